"""Can 0.8 million parameters use a tool? Fine-tuning on tool traces, RL with the tool in the loop, errors over turns.

Each seed starts from the shipped SFT checkpoint. Demonstrations: products, of which the demonstrator works out only
half with the calculator and gives the other answers from its head (which the model cannot), and chains of 1 to 3
look-ups. An arm without tools sees the products' answers alone. Then RL on products, reward for the right answer only.
The tools' schemas are not shown: they cost more tokens than a whole conversation, and the model could not read them.

    python -m minim1.report.experiments.tools             # six minutes on two cores; writes report/results/tools.json
"""

import random
from collections.abc import Callable, Mapping, Sequence

from minim1.agent import Dialogue, Episodes, demonstrated, errand_dialogue, run_episodes
from minim1.data.chat import encode_chat
from minim1.data.packing import Batch, pack_documents, step_seed
from minim1.data.tokenizer import Tokenizer
from minim1.evaluate import task_sampling
from minim1.report.experiments import Experiment, head, runner
from minim1.report.experiments import stored as stored_result
from minim1.tasks.base import Problem
from minim1.tasks.errands import ERRANDS
from minim1.train.agent import AgentTrainer
from minim1.train.checkpoint import load
from minim1.train.loop import Trainer
from minim1.train.settings import OptimConfig, RLConfig, StageConfig

STEPS, DOCUMENTS, LENGTH, LEARNING_RATE = 150, 24, 256, 1.5e-3
PRODUCTS, CALLS, HOPS = 0.6, 0.5, (1, 2, 3)  # share of products; of those, worked out with a call; look-ups of a chain
TOKENS = 48  # of one turn
CHAINS = (1, 2, 3, 4, 6, 8, 12)  # look-ups asked of the trained model
ASKED, TRIALS = 64, 8  # problems of each evaluation; trials of each chain for pass^k
ROLLOUTS, PROMPTS, SAMPLES, UPDATES = 10, 16, 8, 16


def document(tokenizer: Tokenizer, seed: int, *, calls: float = CALLS, products: float = PRODUCTS):
    """One demonstration of the train split, (ids, mask)."""
    rng = random.Random(seed)
    if rng.random() < products:
        messages = demonstrated(ERRANDS["product"].sample(seed), call=rng.random() < calls)
    else:
        messages = demonstrated(ERRANDS["chain"].sample(seed, rng.choice(HOPS)))
    return encode_chat(tokenizer, messages)


def fine_tune(seed: int, *, steps: int = STEPS, tools: bool = True, after_step: Callable | None = None):
    """The shipped SFT model after `steps` more on tool traces, or (tools=False) on the products' answers alone."""
    loaded = load("shipped/sft")
    options = {} if tools else {"calls": 0.0, "products": 1.0}

    def batch(step: int) -> Batch:
        seeds = (step_seed(seed, step, f"tools/{i}") for i in range(DOCUMENTS))
        documents = [document(loaded.tokenizer, s, **options) for s in seeds]
        return pack_documents(documents, LENGTH, pad_id=loaded.tokenizer.pad_id)

    config = StageConfig(steps=steps, optim=OptimConfig(learning_rate=LEARNING_RATE), seed=seed)
    Trainer(loaded.model, batch, config, name="sft", after_step=after_step, quiet=True).fit()
    return loaded


def ask(loaded, family: str, difficulty: int, count: int, *, seed: int = 0, trials: int = 1, spare: int = 4):
    """Held-out errands and the model's episodes, `trials` in a row of each; M1's temperature 1.0 and top_p 0.95."""
    task = ERRANDS[family]
    problems = [task.sample(step_seed(seed, i, "tools/eval"), difficulty, split="heldout") for i in range(count)]
    problems = [problem for problem in problems for _ in range(trials)]
    dialogues = [errand_dialogue(p, max_steps=(difficulty if family == "chain" else 1) + spare) for p in problems]
    settings = {"max_new_tokens": TOKENS, "top_p": 0.95, "seed": step_seed(seed, 0, "tools/answers")}
    sampling = task_sampling(loaded.tokenizer, **settings)
    return problems, run_episodes(loaded.model, loaded.tokenizer, dialogues, sampling, declare=False)


def right(loaded, problems: list[Problem], episodes: Episodes) -> list[bool]:
    """Whether the last turn of each episode is the right answer in the right format."""
    return [ERRANDS[p.family].verify(p, loaded.tokenizer.decode_completion(ids)).reward == 1
            for p, ids in zip(problems, episodes.completions)]


def first_mistake(problem: Problem, dialogue: Dialogue) -> int | None:
    """The first turn, from 0, that is another than the demonstrator's; None if there is none."""
    turns = [message for message in dialogue.messages if message["role"] == "assistant"]
    results = [result.text for result in dialogue.results]
    for number, turn in enumerate(turns):
        wanted = ERRANDS[problem.family].next_call(problem, results[:number])
        same = turn["content"] == problem.answer if wanted is None else turn.get("tool_calls") == [wanted]
        if not same:
            return number
        if wanted is None:
            return None
    return len(turns)


def products(loaded, seed: int, asked: int = ASKED) -> dict[str, float]:
    """How often it is right, how often it calls, how many calls can be run, how often it is right without a call."""
    problems, episodes = ask(loaded, "product", 2, asked, seed=seed)
    correct, called = right(loaded, problems, episodes), [bool(d.results) for d in episodes.dialogues]
    calls = [result.ok for dialogue in episodes.dialogues for result in dialogue.results]
    with_call, without = [[c for c, k in zip(correct, called) if k is kind] for kind in (True, False)]
    mean = lambda values: sum(values) / len(values) if values else None
    return {"right": mean(correct), "called": mean(called), "valid_calls": mean(calls),
            "right_with_call": mean(with_call), "right_without": mean(without)}


def chains(loaded, seed: int, lengths: Sequence[int] = CHAINS, asked: int = ASKED) -> dict[str, list]:
    """For each length: share right, share without a mistake; turns up to the first mistake, and mistakes, in all."""
    found: dict[str, list] = {"right": [], "no_mistake": [], "turns": [], "mistakes": []}
    for hops in lengths:
        problems, episodes = ask(loaded, "chain", hops, asked, seed=seed)
        at = [first_mistake(p, d) for p, d in zip(problems, episodes.dialogues)]
        correct = right(loaded, problems, episodes)
        found["right"].append(sum(correct) / len(at))
        found["no_mistake"].append(sum(place is None for place in at) / len(at))
        found["turns"].append(sum(hops + 1 if place is None else place + 1 for place in at))  # until the first mistake
        found["mistakes"].append(sum(place is not None for place in at))
    return found


def trials(loaded, seed: int, hops: int = 3, asked: int = ASKED // 2) -> list[int]:
    """How many of TRIALS trials succeed, for each of some chains: what pass^k is computed from."""
    problems, episodes = ask(loaded, "chain", hops, asked, seed=seed, trials=TRIALS)
    correct = right(loaded, problems, episodes)
    return [sum(correct[at : at + TRIALS]) for at in range(0, len(correct), TRIALS)]


def reinforce(loaded, seed: int, *, rollouts: int = ROLLOUTS, prompts: int = PROMPTS, samples: int = SAMPLES) -> dict:
    """RL on products with the calculator in the loop; the curves, one entry for each rollout. The model is changed."""
    config = RLConfig(
        steps=rollouts, families=("product",), prompts_per_rollout=prompts, samples_per_prompt=samples,
        updates_per_rollout=UPDATES, max_new_tokens=TOKENS, overlong_buffer=0, repetition_window=0, seed=seed,
    )
    curves: dict[str, list] = {"reward": [], "call_share": [], "valid_calls": []}
    trainer = AgentTrainer(loaded.model, loaded.tokenizer, config, max_steps=4, quiet=True)
    for step in range(rollouts):
        metrics = trainer.advance(step)
        for name, values in curves.items():
            values.append(round(metrics.get(name, 0.0), 4))
    return curves


def run(arm: str, seed: int, scale: str) -> dict:
    """All of one seed: `products` "no_tools", "sft" and "after_rl", "chains", `trials` ("successes") and "rl"."""
    smoke = scale == "smoke"
    steps, few = (1, 2) if smoke else (STEPS, ASKED)
    found = {"no_tools": products(fine_tune(seed, steps=steps, tools=False), seed, few)}
    loaded = fine_tune(seed, steps=steps)
    found |= {"sft": products(loaded, seed, few), "chains": chains(loaded, seed, CHAINS[:1] if smoke else CHAINS, few)}
    found |= {"successes": trials(loaded, seed, asked=few // 2)}
    batches = {"rollouts": 1, "prompts": 2, "samples": 2} if smoke else {}
    found |= {"rl": reinforce(loaded, seed, **batches)}
    return found | {"after_rl": products(loaded, seed, few)}


def arranged(result: Mapping) -> dict:
    """A result as {"runs": for each seed {"seed", "cpu_seconds", and what `run` gives}}, the settings, and `head`."""
    found = {int(seed): value for seed, value in result["runs"]["tools"].items()}
    seconds = {int(seed): unit["seconds"] for seed, unit in result["units"]["tools"].items()}
    runs = [{"seed": seed, **found[seed], "cpu_seconds": seconds[seed]} for seed in sorted(found)]
    return {**head(result), **result["settings"], "seeds": sorted(found), "runs": runs}


def stored() -> dict:
    """The committed result, `arranged`."""
    return arranged(stored_result("tools"))


EXPERIMENT = Experiment(
    "tools", {"tools": range(3)}, run,
    {"steps": STEPS, "documents": DOCUMENTS, "chains": CHAINS, "asked": ASKED, "trials": TRIALS},
)

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
