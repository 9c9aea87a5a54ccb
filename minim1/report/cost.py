"""What does it cost? Hours and dollars from FLOPs, utilisation, GPUs and a price, for any model and for our own run.

M1's RL cost $534,700 on 512 H800 in three weeks (M1 report, abstract); it prints no price for an hour.
"""

from minim1.report.memory import sequence_bytes, sequences, weight_bytes

FORWARD, TRAINING = 2, 6  # FLOPs for each active parameter and token: a multiply-add, and twice that for the backward
M1_RL = {"gpus": 512, "days": 21, "dollars": 534_700}  # M1 report, abstract and §1: "three weeks"
H800_PEAK = 989e12  # FLOP/s of dense bf16 products, by the vendor's data sheet


def gpu_hours(days: float, gpus: int) -> float:
    """
    >>> gpu_hours(21, 512)
    258048
    """
    return 24 * days * gpus


def cost_model(model: dict, machine: dict, *, context: int, tokens: float, weights: str = "int8",
               training: bool = False) -> dict:
    """Memory, time and money to process `tokens` tokens, in sequences of `context` tokens.

    Args: model: as `memory.sizes` gives it; machine: gpus, gpu_bytes, peak (FLOP/s of each), utilisation (0 to 1),
        price (dollars for one GPU and one hour); weights: "int8" or "bf16"; training: forward and backward.
    Returns: weight_bytes, sequence_bytes, sequences (ints), hours and dollars. Only products with weights are counted.
    """
    flops = (TRAINING if training else FORWARD) * model["active"] * tokens
    hours = flops / (machine["gpus"] * machine["peak"] * machine["utilisation"]) / 3600
    return {
        "weight_bytes": weight_bytes(model, weights), "sequence_bytes": sequence_bytes(model, context),
        "sequences": sequences(model, context, weights, machine), "hours": hours,
        "dollars": hours * machine["gpus"] * machine["price"],
    }


def run_cost(stages: dict, active: int, *, workers: int, price: float) -> dict[str, dict]:
    """The same for a run of ours, from its report card: {stage: {flops, flops_per_second, hours, dollars}}.

    Args: stages: `report.json`'s, with tokens and training_seconds of each; active: parameters multiplied per token;
        workers: processes, one core each; price: dollars for one core and one hour. Tokens are trained on; those of RL
        were sampled before, which costs a forward more.
    """
    found = {}
    for name, stage in stages.items():
        flops = (TRAINING + FORWARD * (name == "rl")) * active * stage["tokens"]
        seconds = stage["training_seconds"]
        found[name] = {"flops": flops, "flops_per_second": flops / seconds, "hours": seconds / 3600,
                       "dollars": workers * price * seconds / 3600}
    return found
