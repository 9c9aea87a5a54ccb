"""Does a small model serve the desk over many turns? Taught conversations of a script, then asked for longer ones.

    python -m minim1.report.experiments.desk        # six minutes on two cores; writes report/results/desk.json

Each seed starts from the shipped SFT checkpoint and is fine-tuned on conversations of `DeskAgent`, which keeps to the
policy, with one or two requests; then it serves customers with up to six, at M1's temperature 1.0 and top_p 0.95,
within 40 steps. A conversation succeeds if the records are as they should be, no rule was broken, and the agent itself
ended it. Neither policy nor schemas are shown: they are longer than a conversation, and the model could not read them.

Fixed before the seeds were run: the recipe of `tools`, with rows of 512 tokens, into which two requests fit (up to 470
tokens), and half of its documents, as they are twice as long. A pilot on seed 100 showed that with these the model can
learn it at all: it succeeded in 27 of 32 conversations with one request and in 21 of 32 with two.
"""

import random
from collections.abc import Sequence

from minim1.agent import Dialogue, drive, read_turn, run_episodes
from minim1.data.chat import encode_chat
from minim1.data.packing import Batch, pack_documents, step_seed
from minim1.evaluate import task_sampling
from minim1.report.experiments import Experiment, runner
from minim1.tasks.desk import Desk, DeskAgent, make_desk, violations
from minim1.train.checkpoint import load
from minim1.train.loop import Trainer
from minim1.train.settings import OptimConfig, StageConfig

STEPS, DOCUMENTS, LENGTH, LEARNING_RATE = 150, 12, 512, 1.5e-3
TAUGHT, ASKED = (1, 2), (1, 2, 4, 6)  # requests of a conversation
ARM = "fine-tuned"
TASKS, TRIALS, TOKENS = 12, 3, 64  # desks of each length, conversations at each, tokens of one turn


def conversation(seed: int, requests: int) -> tuple[Desk, Dialogue]:
    """A desk and what its customer says first."""
    desk = make_desk(seed, requests)
    opening = [{"role": "system", "content": None}, {"role": "user", "content": desk.opening()}]
    return desk, Dialogue(opening, desk.tools(), user=desk.say)


def demonstration(seed: int, requests: int) -> list[dict]:
    """The messages of a conversation that the script serves."""
    desk, dialogue = conversation(seed, requests)
    return drive(DeskAgent(desk.customer), dialogue).messages


def fine_tune(seed: int, steps: int = STEPS, documents: int = DOCUMENTS):
    """The shipped SFT model after `steps` more on the script's conversations."""
    loaded = load("shipped/sft")

    def batch(step: int) -> Batch:
        seeds = [step_seed(seed, step, f"desk/{i}") for i in range(documents)]
        taught = [encode_chat(loaded.tokenizer, demonstration(s, random.Random(s).choice(TAUGHT))) for s in seeds]
        return pack_documents(taught, LENGTH, pad_id=loaded.tokenizer.pad_id)

    config = StageConfig(steps=steps, optim=OptimConfig(learning_rate=LEARNING_RATE), seed=seed)
    Trainer(loaded.model, batch, config, name="sft", quiet=True).fit()
    return loaded


def serve(loaded, tasks: Sequence[int], requests: int, *, seed: int = 0) -> list[tuple[bool, Desk, Dialogue]]:
    """The model at the desks of these seeds, all at once: whether it succeeded, the desk, the conversation."""
    served = [conversation(task, requests) for task in tasks]
    goals = [desk.goal() for desk, _ in served]
    sampling = task_sampling(loaded.tokenizer, max_new_tokens=TOKENS, top_p=0.95, seed=seed)
    run_episodes(loaded.model, loaded.tokenizer, [dialogue for _, dialogue in served], sampling, declare=False)
    return [(succeeded(desk, goal, dialogue), desk, dialogue) for (desk, dialogue), goal in zip(served, goals)]


def succeeded(desk: Desk, goal: dict, dialogue: Dialogue) -> bool:
    """Whether the records are as they should be, no rule was broken, and the agent itself ended it."""
    return dialogue.finish == "answer" and desk.records == goal and not violations(desk.trace, desk.customer)


def right_turns(customer: str, messages: Sequence[dict]) -> tuple[int, bool]:
    """How many turns of the agent are the script's until the first that is not, and whether there is such a one."""
    script, right = DeskAgent(customer), 0
    for at, message in enumerate(messages):
        if message["role"] == "assistant":
            if message != read_turn(script(messages[:at]))[0]:
                return right, True
            right += 1
    return right, False


def of_length(loaded, requests: int, seed: int, tasks: int = TASKS, trials: int = TRIALS) -> dict:
    """Conversations with so many requests: {"requests", "trials" of each task, "turns": that the script takes, on
    average, "refusals": share of tasks in which nothing is to be changed, "successes": of each task's trials, "right":
    turns like the script's until the first other one, of all conversations, "wrong": how many have such a one}."""
    seeds = [step_seed(seed, task, "desk/heldout") for task in range(tasks)]
    asked = [task for task in seeds for _ in range(trials)]
    served = serve(loaded, asked, requests, seed=step_seed(seed, requests, "desk/turns"))
    good = [success for success, _, _ in served]
    counts = [right_turns(desk.customer, dialogue.messages) for _, desk, dialogue in served]
    turns = [sum(message["role"] == "assistant" for message in demonstration(s, requests)) for s in seeds]
    desks = [make_desk(s, requests) for s in seeds]
    return {"requests": requests, "trials": trials, "turns": sum(turns) / tasks,
            "refusals": sum(desk.goal() == desk.records for desk in desks) / tasks,
            "successes": [sum(good[at : at + trials]) for at in range(0, len(good), trials)],
            "right": sum(right for right, _ in counts), "wrong": sum(wrong for _, wrong in counts)}


def run(arm: str, seed: int, scale: str) -> list[dict]:
    """`of_length` for each number of requests."""
    if scale == "smoke":
        loaded = fine_tune(seed, 1, 2)
        return [of_length(loaded, requests, seed, tasks=1, trials=2) for requests in TAUGHT]
    loaded = fine_tune(seed)
    return [of_length(loaded, requests, seed) for requests in ASKED]


EXPERIMENT = Experiment(
    "desk", {ARM: range(3)}, run,
    {"steps": STEPS, "documents": DOCUMENTS, "learning_rate": LEARNING_RATE, "taught": TAUGHT, "tasks": TASKS,
     "trials": TRIALS},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
