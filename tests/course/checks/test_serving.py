"""The checks of chapter 15 accept what is right, whoever wrote it, and agree with the package's own conventions."""

import pytest
import torch

from minim1 import Sampling, generate
from minim1.config import M1Config
from minim1.course.checking import run_check
from minim1.course.checks import find
from minim1.course.checks.serving import cost_of
from minim1.model.decoder import MiniM1
from minim1.report import cost, memory

SEEDS = (0, 1, 2, 3)


def int8_by_rows(x, weight):
    rows, codes, scales = [], [], []
    for row in weight.float():
        top = row.abs().max()
        scales.append(top / 127 if top else torch.ones(()))
        codes.append(torch.round(row / scales[-1]).char())
        rows.append((x * codes[-1].to(x.dtype)).sum(-1) * scales[-1].to(x.dtype))
    return torch.stack(rows, -1), torch.stack(codes), torch.stack(scales)


def within_by_counting(draw, prompt, budget, *, think_id, end_think_id, stop_id, max_new_tokens):
    """Looks the whole text over at each token, instead of counting along."""
    new, drawn = [], []
    for _ in range(max_new_tokens):
        open_at = None
        for at, token in enumerate(prompt + new):
            if open_at is None and token == think_id:
                open_at = at
            elif token == end_think_id:
                open_at = None
        token = draw(prompt + new)
        spent = None if open_at is None else len(prompt + new) - 1 - open_at
        drawn.append(budget is None or spent is None or spent < budget or token == end_think_id)
        new.append(token if drawn[-1] else end_think_id)
        if new[-1] == stop_id:
            break
    return tuple(new), drawn


@pytest.mark.parametrize("exercise_id, function", [("15.1", int8_by_rows), ("15.2", within_by_counting)])
def test_another_right_solution_passes(exercise_id, function):
    result = run_check(find(exercise_id), function, SEEDS)
    assert result.status == "passed", result


@pytest.mark.parametrize("budget", [None, 0, 1, 3])
def test_the_budget_is_the_packages(budget):
    """Greedy, from a prompt that leaves its thinking open: the same tokens and the same mask as `generate`."""
    model = MiniM1(M1Config(vocab_size=12, hidden_size=16, intermediate_size=16, num_hidden_layers=1, head_dim=4,
                            num_attention_heads=2, num_key_value_heads=1, attn_type_list=(0,)), seed=3)
    think, end, stop, prompt = 1, 2, 3, [4, 1, 5]

    def draw(ids):
        with torch.no_grad():
            return int(model(torch.tensor([ids])).logits[0, -1].argmax())

    tags = dict(think_id=think, end_think_id=end)
    new, drawn = find("15.2").reference()(draw, prompt, budget, **tags, stop_id=stop, max_new_tokens=9)
    sampling = Sampling(max_new_tokens=9, temperature=0, stop_ids=(stop,), thinking_budget=budget, **tags)
    rollout = generate(model, [prompt], sampling)
    assert new == rollout.completions[0]
    assert drawn == rollout.mask[0, len(prompt) : len(prompt) + len(new)].tolist()


@pytest.mark.parametrize("weights", memory.WEIGHTS)
def test_the_oracle_of_the_cost_is_the_packages_formula(weights):
    sizes, machine = memory.sizes(M1Config()), dict(gpus=2, gpu_bytes=10**7, peak=1e12, utilisation=0.3, price=1.5)
    found = cost.cost_model(sizes, machine, context=500, tokens=1e6, weights=weights, training=True)
    assert found == pytest.approx(cost_of(sizes, machine, 500, 1e6, weights, True))
