"""Any task of the `reasoning-gym` package (an extra) behind this package's interface."""

import math
from difflib import get_close_matches

from minim1.errors import UserError
from minim1.tasks.base import Problem, Task, Verdict, parse_completion

ADAPTED = "reasoning-gym/"  # what the names of adapted families begin with
EVALUATING = {"eval", "exec", "parse_expr", "sympify", "score_answer"}  # the last: hands the answer on to another judge


def reasoning_gym_task(name: str, *, partial_credit: bool = False, **config) -> "ReasoningGymTask":
    """The reasoning-gym dataset `name` as a `Task`; `config` goes to its own configuration.

    The problems are ordinary text, there is no worked trace, and difficulty is a matter of
    `config` (the knob `difficulty` is always 0). The dataset's own `score_answer` judges. It may
    give partial credit for a wrong answer that contains the right one, so the reward is 1 for a
    full score and else 0, unless `partial_credit`.

    Some of these judges hand the answer to `eval` or to sympy's parser, which is `eval` too: what a
    model wrote would be run as a program. Such datasets are refused (`EVALUATING` are the names by
    which a judge is known). The other judges are that package's code, and are trusted.

    Raises `UserError` when the package is missing, the dataset unknown or refused, or `config` is.

        task = reasoning_gym_task("leg_counting", max_animals=3)
        task.sample(seed=0).prompt
    """
    return ReasoningGymTask(name, partial_credit, config)


class ReasoningGymTask(Task):
    """See `reasoning_gym_task`. `name` is ``reasoning-gym/<dataset>``."""

    def __init__(self, dataset: str, partial_credit: bool, config: dict):
        try:
            from reasoning_gym import create_dataset
            from reasoning_gym.factory import DATASETS
        except ModuleNotFoundError as error:
            raise UserError(
                f"The task {dataset!r} comes from reasoning-gym, and the module {error.name!r} is "
                "not installed; run: pip install 'minim1[tasks]'"
            ) from error
        if dataset not in DATASETS:
            near = get_close_matches(dataset, DATASETS, n=5, cutoff=0.5) or sorted(DATASETS)
            raise UserError(f"reasoning-gym has no dataset {dataset!r}; it has {', '.join(near)}.")
        if reserved := config.keys() & {"seed", "size"}:
            raise UserError(
                f"{' and '.join(sorted(reserved))} cannot be configured for {dataset!r}: "
                "sample(seed) decides which problem it is; leave it out."
            )
        self.name = ADAPTED + dataset
        self.partial_credit = partial_credit
        # A fresh dataset for each problem: some keep state from one index to the next, some
        # know no index beyond their size. What a seed gives must not depend on either.
        self._create = lambda seed: create_dataset(dataset, seed=seed, size=1, **config)
        try:
            self._judge = self._create(0)
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"reasoning-gym refuses {config} for {dataset!r}: {error}") from error
        if found := EVALUATING.intersection(self._judge.score_answer.__code__.co_names):
            raise UserError(
                f"reasoning-gym's judge of {dataset!r} uses {min(found)}, which could run a model's answer as a program; "
                "choose another dataset."
            )

    def _draw(self, rng, difficulty):
        entry = self._create(rng.getrandbits(31))[0]
        return Problem(
            family=self.name,
            prompt=entry["question"],
            trace="",
            answer=entry["answer"] or "",  # some datasets know only how to judge one
            key=f"{self.name} {entry['question']}",
            difficulty=difficulty,
            data={"entry": entry},
        )

    def demonstrate(self, problem, seed):
        if not problem.answer:
            raise UserError(f"{self.name} gives no answer to imitate; train on its reward alone.")
        return super().demonstrate(problem, seed)

    def verify(self, problem, completion):
        """`parts`: `format`, `correct`, the dataset's `score`, and `refused` (1 when its judge
        raised, or gave no finite number: some do on answers that they cannot read)."""
        parsed = parse_completion(completion)
        legal, score, refused = parsed.well_formed and parsed.answer != "", 0.0, False
        if legal:
            try:
                score = float(self._judge.score_answer(parsed.answer, problem.data["entry"]))
            except Exception:  # another package's code on a model's text: no answer may end a run
                refused = True
            if not math.isfinite(score):
                score, refused = 0.0, True
        right = score >= 1
        parts = {"format": legal, "correct": right, "score": score, "refused": refused}
        reward = min(max(score, 0.0), 1.0) if self.partial_credit else float(right)
        return Verdict(reward, {name: float(value) for name, value in parts.items()})
