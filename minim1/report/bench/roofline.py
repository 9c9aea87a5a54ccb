"""What this machine can do at most, and which share of it lightning attention reaches.

Two limits: bytes through memory (measured with large copies) and multiply-adds (measured with a large matmul, and with
the batches of [64, 64] x [64, 64] that the block form is made of). A call that moves B bytes and does F FLOP
cannot take less than the larger of B / bandwidth and F / rate: that one is the bound it is nearer to.
"""

import torch

from minim1.report.bench import attention
from minim1.report.bench.harness import Comparison, Options, interleave

BLOCK = {"cpu": 32, "cuda": 64}  # the block lengths that our forms use there, for which FLOP are counted
COPY_MIB = {"cpu": (1, 16, 64, 256), "cuda": (16, 256, 1024, 4096)}
MEMORY_MIB = {"cpu": 64, "cuda": 256}  # copies at least as large go through memory, not a cache
MATMUL = {"cpu": 2048, "cuda": 8192}
BATCHED = {"cpu": 32, "cuda": 1024}  # how many [64, 64] x [64, 64] in one call: they stay in the cache


def measure(options: Options) -> dict:
    """{"copy_bytes_per_second": {MiB: rate}, "bandwidth", "matmul_flops", "batched_flops"}: the best of several rounds.

    A copy counts the bytes read and the bytes written, once each; bandwidth is the best of the large copies.
    """
    device, dtype = options.device, options.dtype
    seconds = 1.0 if options.quick else 5.0

    def fastest(entries: dict) -> dict[str, float]:
        return {name: timing.low for name, timing in interleave(entries, repeats=7, seconds=seconds).items()}

    sizes = (1, 4) if options.quick else COPY_MIB[device]
    buffers = [torch.ones(size << 20, dtype=torch.uint8, device=device) for size in sizes]
    targets = [torch.zeros_like(buffer) for buffer in buffers]
    copies = fastest({
        str(size): lambda target=target, buffer=buffer: target.copy_(buffer)
        for size, target, buffer in zip(sizes, targets, buffers)
    })
    rates = {size: 2 * (size << 20) / copies[str(size)] for size in sizes}
    del buffers, targets
    size, count = (256, 16) if options.quick else (MATMUL[device], BATCHED[device])
    a, b, large = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    x, y, small = (torch.randn(count, 64, 64, device=device).to(dtype) for _ in range(3))
    with torch.no_grad():
        times = fastest({"large": lambda: torch.mm(a, b, out=large), "small": lambda: torch.bmm(x, y, out=small)})
    return {
        "copy_bytes_per_second": rates,
        "bandwidth": max(rate for size, rate in rates.items() if size >= MEMORY_MIB[device] or options.quick),
        "matmul_flops": 2 * size**3 / times["large"],
        "batched_flops": 2 * count * 64**3 / times["small"],
    }


def count(which: str, tokens: int, heads: int, dim: int, element_size: int, block: int) -> dict[str, float]:
    """FLOP and bytes of lightning attention on `tokens` = B T tokens, in blocks of `block`.

    FLOP per token and head, C the block, D the head dim: forward 4 C D + 4 D^2 (Q K^T and scores V; Q S and K^T V),
    backward 10 C D + 10 D^2 (scores again and their gradient, dQ, dK, dV; the five products with states).
    Bytes in U, one (B, T, H, D) tensor: at best the forward reads q, k, v and writes o (4 U), the backward reads
    q, k, v, do and writes dq, dk, dv (7 U). "bytes_triton" is what our kernels ask for when each input is read once
    by each launch: 4 U forward, and 12 U in the three launches of the backward (dq: k, v, do; dk: q, v, do;
    dv: q, k, do; each with its output).

    >>> count("forward", 1, 1, 64, 4, block=64)
    {'flops': 32768, 'bytes': 1024, 'bytes_triton': 1024}
    """
    flops, tensors, triton = 4 * block * dim + 4 * dim**2, 4, 4
    if which == "forward+backward":
        flops, tensors, triton = flops + 10 * block * dim + 10 * dim**2, tensors + 7, triton + 12
    unit = tokens * heads * dim * element_size
    return {"flops": tokens * heads * flops, "bytes": tensors * unit, "bytes_triton": triton * unit}


def page(peaks: dict, comparisons: list[Comparison], options: Options) -> dict:
    """The peaks, and for each attention time of ours what it achieved: rates, shares of the peaks, the nearer bound.

    Rows: {"pass", "length", "seconds", "flops_per_second", "bytes_per_second", "of_matmul", "of_batched",
    "of_bandwidth", "of_bandwidth_triton", "bound": "arithmetic" or "memory", "of_bound"} and what `count` says; the
    shares are of the measured peaks, "of_bound" is the least possible time over the measured one.
    """
    rows = []
    for comparison in comparisons:
        if comparison.benchmark != "attention" or comparison.ours not in comparison.timings:
            continue
        case, seconds = comparison.case, comparison.timings[comparison.ours].median
        cost = count(
            case["pass"], case["batch"] * case["length"], case["heads"], case["dim"], options.dtype.itemsize,
            BLOCK[options.device],
        )
        arithmetic, memory = cost["flops"] / peaks["matmul_flops"], cost["bytes"] / peaks["bandwidth"]
        rows.append({
            "pass": case["pass"], "length": case["length"], "seconds": seconds, **cost,
            "flops_per_second": cost["flops"] / seconds, "bytes_per_second": cost["bytes"] / seconds,
            "of_matmul": arithmetic / seconds,
            "of_batched": cost["flops"] / peaks["batched_flops"] / seconds,
            "of_bandwidth": memory / seconds,
            "of_bandwidth_triton": cost["bytes_triton"] / peaks["bandwidth"] / seconds,
            "bound": "arithmetic" if arithmetic > memory else "memory",
            "of_bound": max(arithmetic, memory) / seconds,
        })
    return {"device": options.device, "peaks": peaks, "block": BLOCK[options.device], "rows": rows}


def benchmark(options: Options, comparisons: list[Comparison] = ()) -> dict:
    """The page; the attention is timed here, without peers, unless `comparisons` has it already."""
    comparisons = comparisons or list(attention.benchmark(options, peers=()))
    return page(measure(options), comparisons, options)


def to_markdown(page: dict) -> str:
    """The peaks in a sentence and the rows as a table; on CUDA also with the bytes that our Triton kernels ask for."""
    peaks, on_cuda = page["peaks"], page["device"] == "cuda"
    columns = {
        "N": lambda row: f"{row['length']}",
        "ms": lambda row: f"{row['seconds'] * 1e3:.3g}",
        "GFLOP/s": lambda row: f"{row['flops_per_second'] / 1e9:.0f}",
        "of large matmul": lambda row: f"{row['of_matmul']:.0%}",
        "of [64, 64] batch": lambda row: f"{row['of_batched']:.0%}",
        "GB/s": lambda row: f"{row['bytes_per_second'] / 1e9:.3g}",
        "of copy": lambda row: f"{row['of_bandwidth']:.0%}",
    }
    if on_cuda:
        columns["of copy, bytes of the kernels"] = lambda row: f"{row['of_bandwidth_triton']:.0%}"
    lines = [
        f"| pass | {' | '.join(columns)} | nearer bound |",
        f"| --- | {' | '.join('---:' for _ in columns)} | --- |",
        *(
            f"| {row['pass']} | {' | '.join(show(row) for show in columns.values())} | {row['bound']} |"
            for row in page["rows"]
        ),
    ]
    return "\n".join([
        f"Measured here: copies move {peaks['bandwidth'] / 1e9:.3g} GB/s (read + written), a large matmul does "
        f"{peaks['matmul_flops'] / 1e9:.3g} GFLOP/s, a batch of [64, 64] x [64, 64] "
        f"{peaks['batched_flops'] / 1e9:.3g} GFLOP/s.",
        "", *lines, "",
        f"FLOP are counted for blocks of {page['block']} tokens, bytes as if each input were read once and each result "
        "written once (4 tensors forward, 7 backward).",
    ])
