"""The figures of chapter 00, and the stored runs that they draw. Each function returns a plotly figure, for `show`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import minim1
from minim1.config import LIGHTNING, M1Config
from minim1.course.look import COLOURS, style
from minim1.evaluate import Score
from minim1.model.count import count
from minim1.tasks.base import Problem
from minim1.train.checkpoint import RunFolder
from minim1.train.files import SHIPPED, read_json

KINDS = ("lightning", "softmax")
NOT_YET = "not yet run<br>on a GPU"
LONGEST_ANSWER = 20  # characters beside a thought; the model sometimes goes on thinking there


def stored(name: str) -> dict | None:
    """`minim1/report/results/NAME.json` as `minim1 report` writes it, or None where there is no such run.

    >>> stored("nano")["seeds"]
    [0, 1, 2]
    """
    path = Path(minim1.__file__).parent / "report" / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def shipped_report() -> dict:
    """The report card of the shipped model: {"run", "stages": {"pretrain" | "sft" | "rl": {...}}, ...}."""
    return read_json(SHIPPED / "report.json")


def shipped_log(stage: str) -> list[dict]:
    """The logged steps of a stage ("pretrain", "sft", "rl") of the shipped model's training."""
    return [record for record in RunFolder(SHIPPED).metrics() if record["stage"] == stage]


def thought(problem: Problem, symbols: Sequence[str], budget: int, answer: str, right: bool):
    """A train of thought about a pair problem, one try to a row: of `symbols`, the first `budget` are kept.

    A row ends with its "wait". The answer stands beside the last token that is kept, cut where it is long.
    """
    import plotly.graph_objects as go

    places, row, column = [], 0, 0
    for symbol in symbols:
        places.append((column, row))
        row, column = (row + 1, 0) if symbol == "wait" else (row, column + 1)
    fig, kept = go.Figure(), min(budget, len(symbols))
    for name, part, marker, ink in (
        ("thought", slice(0, kept), dict(color=COLOURS["thinking"], line=dict(width=0)), COLOURS["text"]),
        ("cut off", slice(kept, None), dict(color="white", line=dict(width=1, color=COLOURS["grey"])), COLOURS["grey"]),
    ):
        fig.add_scatter(
            x=[x for x, _ in places[part]], y=[y for _, y in places[part]], text=symbols[part], name=name,
            mode="markers+text", textfont=dict(color=ink), hoverinfo="text",
            marker=dict(symbol="square", size=36, **marker),
        )
    last = places[kept - 1][1] if kept else 0
    answer = answer if len(answer) <= LONGEST_ANSWER else answer[: LONGEST_ANSWER - 1] + "…"
    fig.add_scatter(
        x=[5.6], y=[last], text=[f"  answer: {answer or 'none'}, {'right' if right else 'wrong'}"], name="answer",
        mode="markers+text", textposition="middle right", hoverinfo="text", showlegend=False,
        marker=dict(symbol="star" if right else "x", size=16, color=COLOURS["reward" if right else "clipped"]),
    )
    rows = max((y for _, y in places), default=0)
    fig.update_xaxes(title="token of the try", range=[-0.7, 11], tickvals=list(range(5)),
                     ticktext=["1", "2", "3", "4", "5"], showgrid=False)
    fig.update_yaxes(title="try", range=[rows + 0.7, -0.7], tickvals=list(range(rows + 1)),
                     ticktext=[str(y + 1) for y in range(rows + 1)], showgrid=False)
    given = f"numbers {' '.join(map(str, problem.data['numbers']))}, target {problem.data['target']}"
    return fig.update_layout(title=given, height=max(360, 190 + 46 * (rows + 1)), margin=dict(t=100),
                             legend=dict(orientation="h", y=1, yanchor="bottom", x=0))


def budgets(scores: Mapping[int, Score], chance: Mapping[str, Sequence[float]]):
    """Accuracy against thinking budget. Budgets that end a try (0, 4, 9, ...) are a line with standard errors; those
    that end a wait (5, 10, ...) and all others are markers. chance: name -> what guessing reaches with 1, 2, ... tries.
    """
    import plotly.graph_objects as go

    whole = sorted(budget for budget in scores if budget % 5 == 4 or not budget)
    waits = sorted(budget for budget in scores if budget and budget % 5 == 0)
    others = sorted(set(scores) - {0, *whole, *waits})
    fig, dashes = go.Figure(), ("dot", "dash")
    for dash, (name, values) in zip(dashes, chance.items()):
        fig.add_scatter(
            x=[5 * tries - 1 for tries in range(1, len(values) + 1)], y=[round(value, 4) for value in values],
            name=name, mode="lines", line=dict(color=COLOURS["grey"], dash=dash, width=1.5),
        )
    for name, chosen, look in (
        ("cut at the end of a try", whole, dict(mode="lines+markers", **style("thinking"))),
        ("cut after a wait", waits, dict(mode="markers", marker=dict(
            symbol="triangle-up", color=COLOURS["text"], size=9))),
        ("cut within a try", others, dict(mode="markers", marker=dict(
            symbol="triangle-down-open", color=COLOURS["text"], size=9, line=dict(width=1.5)))),
    ):
        fig.add_scatter(
            x=chosen, y=[round(scores[b].accuracy, 4) for b in chosen], name=name, **look,
            error_y=dict(array=[round(scores[b].error, 4) for b in chosen], thickness=1.2, width=3),
        )
    fig.update_xaxes(title="thinking budget, tokens", tickvals=whole)
    fig.update_yaxes(title="right answers", range=[-0.03, 1.03], tickformat=".0%")
    legend = dict(orientation="h", y=1.03, yanchor="bottom", x=0)
    return fig.update_layout(height=480, margin=dict(t=110), legend=legend)


def discovery(log: Sequence[Mapping]):
    """In RL, batch after batch: how often a first miss is followed by "wait", and the mean reward."""
    import plotly.graph_objects as go

    fig = go.Figure()
    for name, key, meaning in (("a first miss is followed by ⟨wait⟩", "pair/wait_after_first_no", "thinking"),
                               ("mean reward", "reward", "reward")):
        fig.add_scatter(x=[r["step"] for r in log], y=[round(r[key], 4) for r in log], name=name, mode="lines+markers",
                        **style(meaning))
    fig.update_xaxes(title="rollout batch")
    fig.update_yaxes(title="share", range=[0, 1.04], tickformat=".0%")
    return fig.update_layout(legend=dict(orientation="h", y=1.14, x=0))


def two_runs(laptop: Mapping, gpu: Mapping | None):
    """Two runs side by side, each as `minim1 report` stored it: loss, reward, thinking tokens; every line is a seed.

    Where `gpu` is None its column is narrow and says so.
    """
    from plotly.subplots import make_subplots

    runs = (laptop, gpu)
    fig = make_subplots(rows=3, cols=2, vertical_spacing=0.13, horizontal_spacing=0.1 if gpu else 0.04,
                        shared_yaxes=True, column_widths=[0.5, 0.5] if gpu else [0.85, 0.15],
                        subplot_titles=[_headline(run) for run in runs])
    for column, run in enumerate(runs, start=1):
        if run is None:
            _empty_column(fig, column)
        else:
            _fill_column(fig, column, run)
    for row, title in enumerate(("loss, nats per token", "mean reward", "thinking, tokens"), start=1):
        fig.update_yaxes(title=title, row=row, col=1)
    return fig.update_layout(height=720, legend=dict(orientation="h", y=1.1, x=0))


def _headline(run: Mapping | None) -> str:
    if run is None:
        return "one GPU"
    minutes = sorted(card["training_seconds"] / 60 for card in run["cards"])
    first, span = run["cards"][0]["run"], f"{minutes[0]:.0f} to {minutes[-1]:.0f} minutes"
    return f"{first['preset']} on {first['device']}, {len(minutes)} seeds: {span}"


def _fill_column(fig, column: int, run: Mapping) -> None:
    for number, curves in enumerate(run["curves"]):
        last = curves["pretrain"]["step"][-1]
        for row, stage, key, line, offset, name in (
            (1, "pretrain", "loss", dict(color=COLOURS["text"]), 0, "pretraining"),
            (1, "sft", "loss", dict(color=COLOURS["grey"], dash="dot"), last, "fine-tuning (SFT)"),
            (2, "rl", "reward", dict(color=COLOURS["reward"]), 0, "reward in RL"),
            (3, "rl", "thinking", dict(color=COLOURS["thinking"]), 0, "thinking in RL"),
        ):
            fig.add_scatter(
                x=[step + offset for step in curves[stage]["step"]], y=curves[stage][key], mode="lines", name=name,
                legendgroup=name, showlegend=column == 1 and number == 0, line=line | dict(width=1.8), row=row,
                col=column,
            )
    for row, title in enumerate(("step (fine-tuning follows pretraining)", "rollout batch", "rollout batch"), start=1):
        fig.update_xaxes(title=title, row=row, col=column)


def _empty_column(fig, column: int) -> None:
    for row in (1, 2, 3):
        fig.add_scatter(x=[0.5], y=[None], row=row, col=column, showlegend=False, hoverinfo="skip")
        quiet = dict(showticklabels=False, ticks="", showgrid=False, showline=False, zeroline=False)
        fig.update_xaxes(range=[0, 1], **quiet, row=row, col=column)
        fig.update_yaxes(**quiet, row=row, col=column)
    place = dict(x=0.5, y=0.5, xref="x4 domain", yref="y4 domain")
    fig.add_annotation(text=NOT_YET, showarrow=False, font=dict(size=12, color=COLOURS["grey"]), **place)


def two_models(m1: M1Config, ours: M1Config, contexts: tuple[int, int]):
    """M1 and the shipped model: every layer a bar, of one width for both, and the experts of a layer as diamonds.

    contexts: how many tokens each has learnt to read. Which two experts are filled is an example: the router chooses
    them anew for each token and layer.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    models = [("MiniMax-M1", m1, contexts[0]), ("ours", ours, contexts[1])]
    fig = make_subplots(rows=2, cols=2, column_widths=[0.64, 0.36], horizontal_spacing=0.07, vertical_spacing=0.3,
                        subplot_titles=[title for model in models for title in _captions(*model)])
    for row, (_, config, _) in enumerate(models, start=1):
        for value, kind in enumerate(KINDS):
            layers = [i + 1 for i, made in enumerate(config.attn_type_list) if (made != LIGHTNING) == value]
            pattern = dict(shape="/", fgcolor="white", bgcolor=COLOURS[kind], size=4) if value else None
            fig.add_trace(go.Bar(
                x=layers, y=[1] * len(layers), width=0.8, name=f"{kind} attention", showlegend=row == 1,
                marker=dict(color=COLOURS[kind], pattern=pattern, line=dict(width=0)),
                hovertemplate=f"layer %{{x}}: {kind}<extra></extra>",
            ), row=row, col=1)
        experts = range(config.num_local_experts)
        chosen = {round(share * config.num_local_experts) for share in (0.28, 0.7)}  # any two
        for name, group, symbol in (("expert at work", chosen, "diamond"),
                                    ("expert at rest", set(experts) - chosen, "diamond-open")):
            fig.add_trace(go.Scatter(
                x=[i % 8 for i in sorted(group)], y=[-(i // 8) for i in sorted(group)], mode="markers", name=name,
                showlegend=row == 1, hoverinfo="name",
                marker=dict(symbol=symbol, size=15, color=COLOURS["expert"], line=dict(width=1.5)),
            ), row=row, col=2)
    hidden = dict(showgrid=False, showline=False, showticklabels=False, ticks="")
    fig.update_xaxes(range=[0, m1.num_hidden_layers + 1], tickvals=[1, 8, *range(16, m1.num_hidden_layers + 1, 16)],
                     showgrid=False, col=1)
    fig.update_xaxes(title="layer", row=2, col=1)
    fig.update_xaxes(range=[-0.7, 7.7], col=2, **hidden)
    fig.update_yaxes(range=[0, 1], col=1, **hidden)
    fig.update_yaxes(range=[-3.7, 0.7], col=2, **hidden)
    fig.update_annotations(font_size=13)
    legend = dict(orientation="h", y=-0.2, x=0, font_size=13)
    return fig.update_layout(height=480, barmode="overlay", margin=dict(t=72), legend=legend)


def _captions(name: str, config: M1Config, context: int) -> tuple[str, str]:
    found = count(config)
    return (f"{name}: {config.num_hidden_layers} layers, {short(found['parameters'])} parameters,<br>"
            f"context {context:,} tokens",
            f"{config.num_experts_per_tok} of {config.num_local_experts} experts for a token,<br>"
            f"{short(found['active_parameters'])} parameters at work")


def short(number: int) -> str:
    """A large number in words.

    >>> short(45_900_000_000), short(1_547_744)
    ('45.9 billion', '1.5 million')
    """
    size, word = (10**9, "billion") if number >= 10**9 else (10**6, "million")
    return f"{number / size:.1f} {word}"
