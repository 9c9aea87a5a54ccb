"""What every family promises: pure sampling, disjoint splits, worked traces that are right."""

import doctest
import importlib
import pkgutil
import random
import re

import pytest

import minim1.tasks
from minim1.errors import UserError
from minim1.tasks import SYMBOLS, TASKS, format_completion, get_task, held_out

EVERY = [(family, difficulty) for family, task in TASKS.items() for difficulty in task.difficulties]


@pytest.mark.parametrize("family, difficulty", EVERY)
def test_the_worked_trace_and_answer_earn_the_reward(family, difficulty):
    task = TASKS[family]
    for seed in range(200):
        problem = task.sample(seed, difficulty, split="all")
        assert (problem.family, problem.difficulty) == (family, difficulty)
        verdict = task.verify(problem, format_completion(problem.trace, problem.answer))
        assert verdict.reward == verdict.parts["format"] == verdict.parts["correct"] == 1
        assert verdict.parts.get("working", 1) == 1
        assert task.verify(problem, format_completion("", problem.answer)).reward == 1


@pytest.mark.parametrize("family, difficulty", EVERY)
def test_splits_are_disjoint_by_key(family, difficulty):
    task = TASKS[family]
    keys = {split: {task.sample(s, difficulty, split=split).key for s in range(150)} for split in ("train", "heldout")}
    assert not keys["train"] & keys["heldout"]
    assert not any(map(held_out, keys["train"])) and all(map(held_out, keys["heldout"]))
    both = [held_out(task.sample(s, difficulty, split="all").key) for s in range(150)]
    assert any(both) and not all(both)


def test_about_a_fifth_of_the_keys_is_held_out():
    for family, task in TASKS.items():
        keys = {task.sample(s, d, split="all").key for d in task.difficulties[-2:] for s in range(2000)}
        share = sum(map(held_out, keys)) / len(keys)
        assert abs(share - 0.2) < 4 * (0.16 / len(keys)) ** 0.5, (family, share)


def test_the_key_ignores_what_does_not_change_the_problem():
    sort, add, pair = TASKS["sort"], TASKS["add"], TASKS["pair"]
    orders = {}
    for seed in range(3000):
        problem = sort.sample(seed, 3, split="all")
        orders.setdefault(problem.key, set()).add(problem.data["letters"])
        assert problem.key.split(" ")[1] == problem.answer
    assert max(map(len, orders.values())) > 3
    keys = {}
    for seed in range(2000):
        data, key = (problem := add.sample(seed, 1, split="all")).data, problem.key
        keys.setdefault(frozenset(data.values()), set()).add(key)
    assert len(keys) == 55 and all(len(k) == 1 for k in keys.values())
    recall, asked = TASKS["recall"], {}
    for seed in range(8000):
        problem = recall.sample(seed, 2, split="all")
        identity = frozenset(problem.data["records"].items()), problem.data["query"]
        asked.setdefault(identity, {problem.prompt: problem.key})[problem.prompt] = problem.key
    assert len({key for keys in asked.values() for key in keys.values()}) == len(asked)
    assert max(map(len, asked.values())) == 2
    pairs = {}
    for seed in range(3000):
        problem = pair.sample(seed, 3, split="all")
        pairs.setdefault(frozenset(problem.data["numbers"]), set()).add(problem.key)
    assert len(pairs) == 220 and all(len(k) == 1 for k in pairs.values())


@pytest.mark.parametrize("family", TASKS)
def test_sampling_is_a_pure_function_of_its_arguments(family):
    task = TASKS[family]
    first = [task.sample(s) for s in range(50)]
    demonstrated = [(task.demonstrate(p, s), task.practice(s)) for s, p in enumerate(first)]
    random.seed(1)
    assert first == [task.sample(s) for s in range(50)]
    assert demonstrated == [(task.demonstrate(p, s), task.practice(s)) for s, p in enumerate(first)]
    assert first == [task.sample(s, task.default_difficulty, split="train") for s in range(50)]
    assert len({p.prompt for p in first}) > 40
    assert task.sample(-1) != task.sample(1)
    assert len({hash(p) for p in first}) > 40


def test_seeds_keep_their_meaning():
    """Logs and checkpoints refer to problems by seed: a change here is a change of format."""
    assert [task.sample(0, split="heldout").prompt for task in TASKS.values()] == GOLDEN


@pytest.mark.parametrize("family", TASKS)
def test_practice_stays_in_the_train_split(family):
    task = TASKS[family]
    heldout = {task.sample(s, split="heldout").prompt for s in range(1000)}
    for seed in range(300):
        document = task.practice(seed)
        assert document.prompt not in heldout and document.prompt == task.sample(seed).prompt
        if family != "pair":
            problem = task.sample(seed)
            assert (document.thinking, document.answer) == (problem.trace, problem.answer)
            assert all(supervised for _, supervised in document.reasoning)


@pytest.mark.parametrize("family", TASKS)
def test_everything_is_written_in_symbols_and_digits(family):
    """No blanks, and no symbol that the tokenizer was not told about."""
    task = TASKS[family]
    unit = re.compile("|".join(map(re.escape, task.symbols)) + "|[0-9+=]")
    for difficulty in task.difficulties:
        for seed in range(50):
            problem = task.sample(seed, difficulty)
            texts = [problem.prompt, problem.trace, problem.answer, task.practice(seed, difficulty).thinking,
                     task.demonstrate(problem, seed).thinking]
            assert all(unit.sub("", text) == "" for text in texts), texts


def test_symbols_are_few_and_distinct():
    assert len(set(SYMBOLS)) == len(SYMBOLS) < 150
    assert set(SYMBOLS) == {s for task in TASKS.values() for s in task.symbols}
    assert all(re.fullmatch("⟨[^⟨⟩\\s]+⟩", s) for s in SYMBOLS)
    assert sum(len(task.symbols) for task in TASKS.values()) == len(SYMBOLS)
    assert [name for name in TASKS] == [task.name for task in TASKS.values()]


def test_other_working_is_reported_and_not_punished():
    for family in ("add", "sort", "recall"):
        problem = TASKS[family].sample(0)
        verdict = TASKS[family].verify(problem, format_completion(problem.trace + "⟨;⟩", problem.answer))
        assert verdict.reward == 1 and verdict.parts["working"] == 0


@pytest.mark.parametrize("family, answer, form", [
    ("add", "007", 0), ("add", "", 0), ("add", "0", 1), ("add", "10", 1), ("add", "00", 0), ("add", "१", 0),
    ("sort", "⟨a⟩", 1), ("sort", "", 0), ("sort", "⟨q⟩", 0), ("sort", "⟨a⟩ ⟨b⟩", 0),
    ("recall", "8", 1), ("recall", "9", 0), ("recall", "0", 0), ("recall", "88", 0), ("recall", "", 0),
])
def test_the_grammar_of_answers(family, answer, form):
    verdict = TASKS[family].verify(TASKS[family].sample(0), format_completion("", answer))
    assert verdict.parts["format"] == form


def test_addition_is_worked_column_by_column():
    task = TASKS["add"]
    for difficulty in task.difficulties:
        for seed in range(100):
            problem = task.sample(seed, difficulty)
            left, right = re.fullmatch("⟨add⟩([0-9]+)\\+([0-9]+)=", problem.prompt).groups()
            assert len(left) == len(right) == difficulty
            assert difficulty == 1 or "0" not in (left[0], right[0])
            columns = re.findall("⟨p(\\d)⟩(\\d)(\\d)(\\d)⟨c(\\d)⟩", problem.trace)
            total = 0
            for i, (place, a, b, s, carry) in enumerate(columns):
                assert (int(place), a, b) == (i, left[-1 - i], right[-1 - i])
                total += int(s) * 10**i
                assert total + int(carry) * 10 ** (i + 1) == int(left[-1 - i:]) + int(right[-1 - i:])
            assert len(columns) == difficulty and problem.answer == str(int(left) + int(right))


def test_sorting_is_worked_by_merging():
    task = TASKS["sort"]
    for difficulty in task.difficulties:
        for seed in range(100):
            problem = task.sample(seed, difficulty)
            letters = re.findall("⟨(.)⟩", problem.prompt)
            trace = re.findall("⟨(.)⟩", problem.trace)
            assert len(trace) == difficulty * (1 if difficulty <= 4 else 2)
            for level in range(len(trace) // difficulty):
                row, run = trace[level * difficulty:][:difficulty], 2 ** (level + 1)
                for start in range(0, difficulty, run):
                    assert row[start:start + run] == sorted(letters[start:start + run])
            assert "".join(re.findall("⟨(.)⟩", problem.answer)) == "".join(sorted(letters))
            assert len(set(letters)) == difficulty


def test_recall_asks_for_a_record_that_is_there():
    task, asked = TASKS["recall"], set()
    for difficulty in task.difficulties:
        for seed in range(100):
            problem = task.sample(seed, difficulty)
            records = re.findall("⟨(.):(.)⟩", problem.prompt)
            query = re.search("⟨(.)\\?⟩$", problem.prompt).group(1)
            assert len(dict(records)) == len(records) == difficulty
            assert problem.answer == dict(records)[query] and problem.trace == f"⟨{query}:{problem.answer}⟩"
            asked.add([k for k, _ in records].index(query))
    assert asked == set(range(8))


@pytest.mark.parametrize("family", TASKS)
def test_bad_arguments_are_told_in_one_sentence(family):
    task = TASKS[family]
    for difficulty in (task.difficulties[0] - 1, task.difficulties[-1] + 1, 2.5, "hard"):
        for call in (task.sample, task.practice):
            with pytest.raises(UserError, match=f"difficulty is .*{difficulty}.* from .* to"):
                call(0, difficulty)
    with pytest.raises(UserError, match="split is 'test'.*train, heldout, all"):
        task.sample(0, split="test")


def test_an_unknown_family_is_answered_with_the_names():
    assert get_task("add") is TASKS["add"]
    with pytest.raises(UserError, match="'adition'; choose from pair, add, sort, recall"):
        get_task("adition")


def test_a_family_without_problems_in_a_split_says_so(monkeypatch):
    monkeypatch.setattr("minim1.tasks.base.held_out", lambda key: False)
    with pytest.raises(UserError, match="none of 1000 .*'heldout'"):
        TASKS["recall"].sample(0, split="heldout")


def test_docstring_examples():
    for module in pkgutil.iter_modules(minim1.tasks.__path__, "minim1.tasks."):
        assert doctest.testmod(importlib.import_module(module.name)).failed == 0
    assert doctest.testmod(minim1.tasks).failed == 0


GOLDEN = [
    "⟨pair⟩⟨9⟩⟨8⟩⟨0⟩⟨1⟩⟨=1⟩",
    "⟨add⟩704+768=",
    "⟨sort⟩⟨c⟩⟨l⟩⟨n⟩⟨f⟩⟨e⟩",
    "⟨recall⟩⟨g:6⟩⟨d:5⟩⟨c:1⟩⟨b:1⟩⟨f:8⟩⟨b?⟩",
]
