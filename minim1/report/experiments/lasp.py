"""Does one all-gather replace the serial chain between the pieces of a sequence? (MiniMax-01 report §3.2, LASP+.)

    python -m minim1.report.experiments.lasp       # less than a minute; writes report/results/lasp.json

2 and 4 processes, each with a piece of one sequence, exchange states both ways (`minim1.report.sequence_parallel`).
Stored: how far the joined output and final state are from those of one process, how many exchanges had to happen one
after another, and how many bytes each rank received. The length is prime, so that the pieces are unequal; the decays
are those of a middle layer of eight, whose slowest head still feels, in the last piece, what stood in the first.
No time is stored: on one machine there is no network whose latency could be saved.

An exchange is one call as the program sees it. What a library does inside of an all-gather is its own: a ring passes
N - 1 messages one after another there too, but none of them waits for a rank's arithmetic.
"""

import torch

from minim1.model.lightning import decay_slopes, lightning_attention
from minim1.report import sequence_parallel
from minim1.report.bench.harness import relative_error
from minim1.report.experiments import Experiment, runner

RANKS = {"2 ranks": 2, "4 ranks": 4}
BATCH, HEADS, HEAD_DIM, LAYER, LAYERS = 2, 4, 32, 4, 8
TOKENS = {"smoke": 61, "cpu": 2039, "gpu": 2039}


def compare(ranks: int, seed: int = 0, tokens: int = TOKENS["cpu"]) -> dict:
    """Both exchanges against one process, on random q, k and v.

    Returns: "LASP" and "LASP+" -> {"error", "state_error": relative, of output and final state; "exchanges" in a row;
    "received": bytes by rank}, and "lengths" of the pieces.
    """
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, BATCH, tokens, HEADS, HEAD_DIM, generator=generator)
    slopes = decay_slopes(HEADS, LAYER, LAYERS)
    out, state = lightning_attention(q, k, v, slopes)
    results = sequence_parallel.run(q, k, v, slopes, ranks=ranks)
    return {"lengths": results["LASP"].lengths} | {
        form: {"error": relative_error(result.out, out), "state_error": relative_error(result.state, state),
               "exchanges": result.exchanges, "received": result.received}
        for form, result in results.items()
    }


def run(arm: str, seed: int, scale: str) -> dict:
    """`compare` at a scale."""
    return compare(RANKS[arm], seed, TOKENS[scale])


EXPERIMENT = Experiment("lasp", {arm: range(3) for arm in RANKS}, run, {
    "ranks": RANKS, "tokens": TOKENS, "batch": BATCH, "heads": HEADS, "head_dim": HEAD_DIM, "layer": [LAYER, LAYERS],
})

if __name__ == "__main__":
    runner.main(EXPERIMENT, __doc__)
