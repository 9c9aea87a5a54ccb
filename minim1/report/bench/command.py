"""The verb `minim1 bench`: run benchmarks, say each comparison as it is done, keep all in DIR/bench.json.

    minim1 bench                              everything, on the CPU or the GPU that is there; takes a while
    minim1 bench attention roofline --quick   seconds: to see that it works, not to quote
    minim1 bench attention --mine mine:lightning_attention              or --mine NOTEBOOK.ipynb:FUNCTION
    minim1 bench --plot runs/bench/bench.json
"""

import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

from minim1.errors import UserError

NAMES = ("attention", "experts", "train", "generate", "rl", "roofline")
VERSIONS = {
    "minim1": "minim1", "torch": "torch", "triton": "triton", "transformers": "transformers",
    "fla": "flash-linear-attention", "trl": "trl", "numpy": "numpy",
}
FORMAT = 1


def add_arguments(parser) -> None:
    """The options of the verb, for an `argparse` parser; `run` takes what it parses."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    parser.add_argument("--out", default="runs/bench", metavar="DIR", help="where the results go; default: runs/bench")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: to see that it works, not to quote")
    parser.add_argument("--mine", metavar="MODULE:FUNCTION",
                        help="your own lightning_attention, also in the table; or NOTEBOOK.ipynb:FUNCTION")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="auto", help="auto (float32 on the CPU, else bfloat16), float32, bfloat16, "
                                                        "float16")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads of the CPU; default: 1")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="for one comparison; default: 20")
    parser.add_argument("--call-limit", type=float, default=60.0, metavar="S",
                        help="leave out what takes longer than this for a single call; default: 60")
    parser.add_argument("--lengths", type=int, nargs="+", metavar="N", help="sequence lengths of `attention`")
    parser.add_argument("--keep-memory", action="store_true",
                        help="freed memory is kept, for all, as our training does it (glibc)")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.add_argument("--plot", metavar="FILE.json", help="only write the tables and the figure of a stored result")


def run(arguments) -> None:
    """Do what the command line asks for; bench.json is written after each comparison, bench.md and the figure last."""
    if arguments.plot is not None:
        _draw(Path(arguments.plot), print)
        return
    names = list(dict.fromkeys(arguments.names)) or list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        raise UserError(f"unknown benchmark {unknown[0]!r}; choose among {', '.join(NAMES)}")
    options = _options(arguments)
    import torch

    from minim1.workers import keep_memory

    torch.set_num_threads(options.threads)
    if arguments.keep_memory:
        keep_memory()
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    say = (lambda text: print(text, file=sys.stderr)) if arguments.json else print
    result = _measure(names, options, arguments, out / "bench.json", say)
    _draw(out / "bench.json", say)
    if arguments.json:
        print(json.dumps(result))
    if result["refused"]:
        raise UserError("; ".join(result["refused"].values()))


def _options(arguments):
    """The `Options` that the command line describes."""
    import torch

    from minim1.report.bench.harness import Options

    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device is {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is 'cuda', which is not available here; use --device cpu")
    dtype = arguments.dtype
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"--dtype is {dtype!r}; choose auto, float32, bfloat16 or float16")
    for name, least in (("threads", 1), ("seconds", 0), ("call_limit", 0)):
        if getattr(arguments, name) < least:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is {getattr(arguments, name)}; it must be at least {least}")
    lengths = tuple(sorted(set(arguments.lengths))) if arguments.lengths else None
    if lengths and lengths[0] < 1:
        raise UserError(f"--lengths has {lengths[0]}; a length is at least 1")
    return Options(
        device=device, dtype=getattr(torch, dtype), lengths=lengths, quick=arguments.quick,
        mine=_function(arguments.mine) if arguments.mine else None, seconds=arguments.seconds,
        call_limit=arguments.call_limit, threads=arguments.threads,
    )


def _function(where: str) -> Callable:
    """The function that "module:function" names, also from the folder we are in, or "notebook.ipynb:function"."""
    from minim1.parts import find_part  # imports torch, which the command starts without

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return find_part("lightning", where)


def _measure(names: list[str], options, arguments, file: Path, say: Callable) -> dict:
    from minim1.report.bench.harness import Skip

    settings = asdict(replace(options, mine=arguments.mine, dtype=str(options.dtype).removeprefix("torch.")))
    result = {
        "format": FORMAT, "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(options.device), "versions": versions(),
        "settings": {"names": names, "keep_memory": arguments.keep_memory, **settings},
        "comparisons": [], "crossover": {}, "roofline": None, "skipped": {}, "refused": {},
    }
    begun, done, said = time.perf_counter(), [], set()

    def store() -> None:
        result["comparisons"] = [comparison.to_json() for comparison in done]
        result["crossover"] = crossovers(done)
        result["seconds"] = time.perf_counter() - begun
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for name in names:
        say(f"\n{name}")
        try:
            if name == "roofline":
                from minim1.report.bench import roofline

                result["roofline"] = roofline.benchmark(options, [c for c in done if c.benchmark == "attention"])
                say(roofline.to_markdown(result["roofline"]))
            else:
                for comparison in _benchmark(name, options):
                    say(to_text(comparison, said))
                    done.append(comparison)
                    store()  # a long run that is cut off keeps what it has
        except Skip as reason:
            result["skipped"][name] = str(reason)
            say(f"skipped: {reason}")
        except UserError as refusal:  # ours is wrong, or cannot run: no number of it is kept
            result["refused"][name] = str(refusal)
            say(f"refused: {refusal}")
        store()
    for which, length in result["crossover"].items():
        say(f"{which}: faster than SDPA from N = {length} on" if length else f"{which}: nowhere faster than SDPA")
    return result


def _benchmark(name: str, options) -> Iterator:
    """The comparisons of a benchmark; what it needs is imported only now."""
    if name == "attention":
        from minim1.report.bench.attention import benchmark
    elif name == "experts":
        from minim1.report.bench.experts import benchmark
    elif name == "train":
        from minim1.report.bench.models import benchmark_train as benchmark
    elif name == "generate":
        from minim1.report.bench.models import benchmark_generate as benchmark
    else:
        from minim1.report.bench.rl_step import benchmark
    return benchmark(options)


def crossovers(comparisons: list, peer: str = "SDPA") -> dict[str, int | None]:
    """For each pass the smallest measured length from which on our attention is faster than `peer`."""
    from minim1.report.bench.harness import crossover

    ratios = {}
    for comparison in comparisons:
        if comparison.benchmark == "attention" and peer in comparison.ratios():
            by_length = ratios.setdefault(comparison.case["pass"], {})
            by_length[comparison.case["length"]] = comparison.ratios()[peer]["median"]
    return {which: crossover(by_length) for which, by_length in ratios.items()}


# ---------------------------------------------------------------- what it ran on


def machine(device: str) -> dict:
    """{"os", "python", "cpu", "cores", "memory_gb", "gpu", "gpu_memory_gb"}; what cannot be known is None."""
    import torch

    properties = torch.cuda.get_device_properties(0) if device == "cuda" else None
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        memory = None
    return {
        "os": platform.platform(), "python": platform.python_version(), "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": memory, "gpu": properties and properties.name,
        "gpu_memory_gb": properties and properties.total_memory / 1e9,
    }


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine() or None


def versions() -> dict[str, str | None]:
    """Version of this package and of every peer; None: not installed."""
    found = {}
    for name, distribution in VERSIONS.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


# ---------------------------------------------------------------- as text


def to_text(comparison, said: set | None = None) -> str:
    """A comparison as lines of text. Reasons that are in `said` are not repeated; new ones are added to it."""
    said, ratios = set() if said is None else said, comparison.ratios()
    lines = [", ".join(f"{key} {value}" for key, value in comparison.case.items())]
    for name, timing in comparison.timings.items():
        ratio = ratios.get(name)
        against = f"{ratio['median']:5.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "ours"
        spread = f"[{_duration(timing.low)}, {_duration(timing.high)}]"
        rate = f"{comparison.amount / timing.median:,.0f} {comparison.unit}/s"
        error = f"error {comparison.errors[name]:.1e}" if name in comparison.errors else ""
        lines.append(f"  {name:12} {_duration(timing.median):>8} {spread:20} {against:22} {rate:>24}  {error}".rstrip())
    for name, reason in comparison.skipped.items():
        if (comparison.benchmark, name, reason) not in said:
            said.add((comparison.benchmark, name, reason))
            lines.append(f"  {name:12} {reason if reason.startswith('wrong') else 'skipped: ' + reason}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """
    >>> _duration(0.01234)
    '12.3ms'
    """
    for unit, size in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            break
    value = seconds / size
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}{unit}"


def to_markdown(result: dict) -> str:
    """The stored result as tables: what ran where, for each benchmark times and ratios, the roofline."""
    settings, place = result["settings"], result["machine"]
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    lines = [
        "# minim1 bench", "",
        f"{result['date']}. {place['gpu'] or place['cpu']}, {settings['threads']} CPU thread(s), {settings['dtype']}; "
        f"{place['os']}; {installed}.", "",
        "Medians of rounds in which all take turns; in brackets the smallest and the largest. A ratio is the peer's "
        "time over ours: above 1, ours is faster.",
    ]
    if settings["quick"]:
        lines += ["", "**A quick run on tiny sizes: its numbers mean little.**"]
    for name in dict.fromkeys(comparison["benchmark"] for comparison in result["comparisons"]):
        lines += ["", f"## {name}", "", "| case | who | ms | ratio | per second | error |",
                  "| --- | --- | ---: | ---: | ---: | ---: |"]
        for comparison in (c for c in result["comparisons"] if c["benchmark"] == name):
            lines += _markdown_rows(comparison)
        reasons = {f"{peer}: {reason}" for c in result["comparisons"] if c["benchmark"] == name
                   for peer, reason in c["skipped"].items()}
        lines += ["", *(f"- not measured everywhere: {reason}" for reason in sorted(reasons))]
    for which, length in result["crossover"].items():
        where = f"from N = {length} on" if length else "at no measured length"
        lines += ["", f"Attention, {which}: faster than SDPA {where}."]
    for state in ("skipped", "refused"):
        lines += [f"\n{name} was {state}: {reason}." for name, reason in result[state].items()]
    if result["roofline"]:
        from minim1.report.bench.roofline import to_markdown as page

        lines += ["", "## roofline", "", page(result["roofline"])]
    return "\n".join(lines)


def _markdown_rows(comparison: dict) -> Iterator[str]:
    case = ", ".join(f"{key} {value}" for key, value in comparison["case"].items())
    for name, timing in comparison["timings"].items():
        ratio = comparison["ratios"].get(name)
        against = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else ""
        error = f"{comparison['errors'][name]:.1e}" if name in comparison["errors"] else ""
        spread = f"{timing['median'] * 1e3:.3g} [{timing['low'] * 1e3:.3g}, {timing['high'] * 1e3:.3g}]"
        yield f"| {case} | {name} | {spread} | {against} | {comparison['rates'][name]:,.0f} | {error} |"
        case = ""


def _draw(file: Path, say: Callable) -> None:
    """Write the tables and the figure of a stored result beside it, or say why there is no figure."""
    from minim1.report.bench.figure import write_figure
    from minim1.report.bench.harness import Skip

    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as a stored result ({error}); expected a bench.json") from None
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise UserError(f"{file} is not a result of this version of `minim1 bench`; run the benchmark again")
    tables = file.with_suffix(".md")
    tables.write_text(to_markdown(result) + "\n", encoding="utf-8")
    try:
        files, missing = write_figure(result, file.parent)
    except Skip as reason:
        files, missing = [], f"No figure: {reason}"
    say("Written: " + ", ".join(str(path) for path in (file, tables, *files)))
    if missing:
        say(missing)
