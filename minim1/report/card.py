"""The report card of a run: what base, SFT and RL model can do, before and after, in Markdown, JSON and a plot."""

from pathlib import Path

from minim1.errors import UserError
from minim1.report.palette import COLOURS
from minim1.train.checkpoint import RunFolder
from minim1.train.files import read_json, write_json, write_whole
from minim1.train.pipeline import one_line, stage_result
from minim1.train.recipes import STAGES

TITLES = {"pretrain": "base", "sft": "SFT", "rl": "RL"}
CURVES = {"pretrain": ("loss",), "sft": ("loss",), "rl": ("reward", "thinking", "clipped_share", "entropy")}
PANELS = (  # title, y axis, x axis, lines of (stage, key, colour, dash)
    ("Pretraining (solid), SFT (dotted)", "loss, nats per token", "step",
     (("pretrain", "loss", "text", "solid"), ("sft", "loss", "text", "dot"))),
    ("RL: reward", "mean reward", "rollout batch", (("rl", "reward", "reward", "solid"),)),
    ("RL: thinking length", "tokens", "rollout batch", (("rl", "thinking", "thinking", "solid"),)),
    ("RL: capped weights", "share of tokens", "rollout batch", (("rl", "clipped_share", "clipped", "solid"),)),
)


def report_card(out: str | Path) -> dict:
    """Gather the finished stages of a run folder: {"run", "stages": {stage: {...}}, "training_seconds"}."""
    out = Path(out)
    stages = {name: stage_result(out / name) for name in STAGES if (out / name / "eval.json").exists()}
    if not stages:
        raise UserError(f"{out} holds no evaluated stage; train first: minim1 train --out {out}")
    first = read_json(out / next(iter(stages)) / "run.json")
    run = {key: first[key] for key in ("versions", "corpus", "workers", "device")}
    run |= {"preset": first["recipe"]["name"], "seed": first["recipe"]["seed"]}
    seconds = sum(stage["training_seconds"] or 0 for stage in stages.values())
    evaluation = sum(stage["seconds"] for stage in stages.values())
    return {"run": run, "stages": stages, "training_seconds": seconds, "evaluation_seconds": evaluation}


def write_report(out: str | Path) -> dict:
    """Write report.json, report.md and, where plotly is installed, report.html into a run folder."""
    out, card = Path(out), report_card(out)
    write_json(out / "report.json", card)
    text = to_markdown(card)
    write_whole(out / "report.md", lambda part: part.write_text(text, encoding="utf-8"))
    if (drawn := figure([curves(out)])) is not None:
        html = drawn.to_html(include_plotlyjs=True)
        write_whole(out / "report.html", lambda part: part.write_text(html, encoding="utf-8"))
    return card


def to_markdown(card: dict) -> str:
    """The card as a page: one table, then answers to the same held-out problems at every stage."""
    run, stages = card["run"], card["stages"]
    names = list(stages)
    families = list(next(iter(stages.values()))["families"])
    lines = [
        f"# Report card: {run['preset']}, seed {run['seed']}", "",
        f"Trained in {card['training_seconds']:.0f} s with {run['workers']} worker(s) on {run['device']} "
        f"({run['versions']['machine']}; torch {run['versions']['torch']}); "
        f"evaluated in {card['evaluation_seconds']:.0f} s. Text: {run['corpus']['source']}, {run['corpus']['python']}.",
        "", "Held-out problems, one sampled answer each: accuracy ± standard error (thinking tokens).", "",
        "| | " + " | ".join(TITLES[name] for name in names) + " |",
        "| --- |" + " ---: |" * len(names),
    ]
    for family in families:
        scores = [stages[name]["families"][family] for name in names]
        cells = [f"{s['accuracy']:.3f} ± {s['error']:.3f} ({s['thinking']:.1f})" for s in scores]
        lines.append(f"| {family} ({scores[0]['problems']} problems) | " + " | ".join(cells) + " |")
    bits = [f"{stages[name]['bits_per_byte']:.3f}" for name in names]
    lines += ["| held-out text, bits per byte | " + " | ".join(bits) + " |", "", "## The same problems at every stage", ""]
    for index, shown in enumerate(stages[names[0]]["answers"]):
        lines += [f"`{shown['prompt']}`", ""]
        for name in names:
            said = stages[name]["answers"][index]
            mark = "right" if said["reward"] == 1 else "wrong"
            lines.append(f"- {TITLES[name]} ({mark}): `{one_line(said['completion'])}`")
        lines.append("")
    return "\n".join(lines)


def curves(out: str | Path) -> dict:
    """The logged curves of a run: {stage: {"step": [...], key: [...]}}."""
    return {
        stage: {"step": [r["step"] for r in records], **{key: [r.get(key) for r in records] for key in keys}}
        for stage, keys in CURVES.items()
        for records in [RunFolder(Path(out) / stage).metrics()]
    }


def figure(runs: list[dict]):
    """Loss, reward, thinking length and capped weights of one or more runs' `curves`; None where plotly is missing."""
    try:
        import plotly.graph_objects as go
        from plotly.subplots import make_subplots
    except ImportError:
        return None
    panels = make_subplots(rows=1, cols=len(PANELS), subplot_titles=[title for title, *_ in PANELS], horizontal_spacing=0.07)
    for column, (_, y, x, lines) in enumerate(PANELS, start=1):
        for stage, key, colour, dash in lines:
            for run in runs:
                line = dict(color=COLOURS[colour], dash=dash, width=1.5)
                panels.add_trace(
                    go.Scatter(x=run[stage]["step"], y=run[stage][key], name=f"{TITLES[stage]} {key}", line=line), row=1, col=column
                )
        panels.update_xaxes(title_text=x, row=1, col=column)
        panels.update_yaxes(title_text=y, row=1, col=column)
    return panels.update_layout(template="plotly_white", width=1280, height=340, showlegend=False, margin=dict(t=48, b=56))
