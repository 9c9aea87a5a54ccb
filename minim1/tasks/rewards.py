"""Rewards with TRL's signature: ``(prompts, completions, **columns) -> list[float]``."""

from collections.abc import Mapping

from minim1.errors import UserError
from minim1.tasks.base import Problem, Task, parse_completion


def verifier_reward(prompts, completions, *, problem: list[Problem],
                    tasks: Mapping[str, Task] | None = None, **columns) -> list[float]:
    """The verdict's reward of each completion on its problem, by the verifier of its family.

    `problem` is a column of `Problem` objects, aligned with the completions. `tasks` names the
    families when there are others than `get_task` knows; bind it with `functools.partial`.
    """
    from minim1.tasks import get_task

    task = get_task if tasks is None else tasks.__getitem__
    return [task(p.family).verify(p, text).reward
            for p, text in zip(problem, completions, strict=True)]


def format_reward(prompts, completions, **columns) -> list[float]:
    """1.0 for each well-formed completion, whatever it says, else 0.0.

    >>> format_reward(None, ["<think>\\n\\n</think>\\n<end_of_sentence>\\n", "42"])
    [1.0, 0.0]
    """
    return [float(parse_completion(text).well_formed) for text in completions]


def overlong_penalty(length: int, max_length: int, buffer: int) -> float:
    """DAPO's soft punishment of length, to be added to the reward: 0 up to
    ``max_length - buffer`` tokens, then falling linearly to -1 at `max_length`, -1 beyond it.
    Raises `UserError` when the buffer is negative or longer than `max_length`.

    >>> [overlong_penalty(n, 100, 20) for n in (80, 90, 100, 101)]
    [0.0, -0.5, -1.0, -1.0]
    """
    if not 0 <= buffer <= max_length:
        raise UserError(f"buffer is {buffer}, but must lie between 0 and max_length = {max_length}.")
    if length <= max_length - buffer:
        return 0.0
    return -1.0 if length >= max_length else (max_length - buffer - length) / buffer


def tool_reward(prompts, completions, *, episode: list[dict], **columns) -> list[float | None]:
    """The reward of whole conversations with tools (the numbers are ours).

    An episode has `finish`, `state` and `goal` (databases), `violations` (a list), `calls` and `bad_calls` (counts).
    None where the finish is "error"; -0.5 with any violation, else 1.0 where the agent itself ended ("answer") in the
    goal state, else 0.0; less 0.2 times the share of bad calls.

    >>> done = {"finish": "answer", "state": {}, "goal": {}, "violations": [], "calls": 4, "bad_calls": 1}
    >>> tool_reward(None, None, episode=[done, {**done, "violations": ["look"]}, {**done, "finish": "error"}])
    [0.95, -0.55, None]
    """

    def reward(e: dict) -> float | None:
        if e["finish"] == "error":
            return None
        reached = e["finish"] == "answer" and e["state"] == e["goal"]
        return (-0.5 if e["violations"] else float(reached)) - 0.2 * e["bad_calls"] / max(e["calls"], 1)

    return [reward(e) for e in episode]
