"""Learning rate over a run."""


def warmup_stable_decay(
    step: int, total_steps: int, *, warmup: float = 0.03, decay: float = 0.5, final: float = 0.05
) -> float:
    """Factor on the learning rate: linear warm-up, constant, linear decay. The contract of the part `schedule`.

    `warmup` and `decay` are shares of the run, `final` the factor at its end. (MiniMax-01 report §4.2 warms up,
    stays constant, and decays exponentially at the end; the shares are ours.)

    >>> [warmup_stable_decay(step, 100, warmup=0.1) for step in (0, 9, 40)]
    [0.1, 1.0, 1.0]
    """
    warmup_steps, decay_steps = max(1, round(warmup * total_steps)), round(decay * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = total_steps - step - 1
    if left >= decay_steps:
        return 1.0
    return final + (1 - final) * left / max(1, decay_steps)
