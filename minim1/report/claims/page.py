"""The page of the claims: Markdown for reading anywhere, and HTML with its pictures."""

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from minim1.errors import UserError
from minim1.report.claims import STRONGEST, Finding, Row
from minim1.report.experiments import head, seeds
from minim1.train.files import write_whole

TITLE = "The claims of the MiniMax-M1 report, measured at toy scale"
Answer = tuple[Row, Finding, dict]  # a row, its finding, and the results behind it


def ordered(answers: Sequence[Answer]) -> list[Answer]:
    """The strongest first, the others by number."""
    names = {name: at for at, name in enumerate(STRONGEST)}
    return sorted(answers, key=lambda answer: (names.get(answer[0].name, len(names)), answer[0].number))


def to_json(answer: Answer) -> dict:
    """A claim, ready for JSON: "id", "verdict", "median", "range", "seeds", and what a reader wants beside them."""
    row, finding, results = answer
    first = finding.measured[0]
    return {
        "id": row.name, "verdict": finding.verdict, "median": first.median, "range": first.range,
        "seeds": sorted({seed for result in results.values() for seed in seeds(result)}),
        "number": row.number, "claim": row.claim, "published": row.published, "source": row.source,
        "sentence": finding.sentence,
        "measured": [{"what": m.what, "values": [v if math.isfinite(v) else None for v in m.values],
                      "median": m.median, "range": m.range} for m in finding.measured],
        "experiments": {name: result["places"] for name, result in results.items()},
    }


def to_markdown(answers: Sequence[Answer], scale: str, pictures: Mapping[str, str]) -> str:
    """A table of all claims, then a section for each; pictures: file of each that has one, relative to the page."""
    lines = [f"# {TITLE}", ""]
    if scale == "smoke":
        lines += ["**A smoke run: everything cut short, to see that it works. Its numbers mean nothing.**", ""]
    lines += [
        "Medians over seeds, in brackets the smallest and the largest. How each was measured, and why with these settings, "
        "stands at the top of its experiment in `minim1/report/experiments/`; the rule behind each verdict beside its row in "
        "`minim1/report/claims/`.", "",
        "| # | what the report says | published | what we measure | verdict |", "| ---: | --- | --- | --- | --- |",
    ]
    for row, finding, _ in ordered(answers):
        first = finding.measured[0]
        lines.append(f"| [{row.number}](#{row.name}) | {row.claim} | {row.published} ({row.source}) | "
                     f"{first.what}: {first} | **{finding.verdict}** |")
    for answer in ordered(answers):
        lines += ["", *_section(answer, pictures.get(answer[0].name))]
    return "\n".join(lines) + "\n"


def _section(answer: Answer, picture: str | None) -> list[str]:
    row, finding, results = answer
    lines = [f'<a id="{row.name}"></a>', "", f"## {row.number}. {row.claim[0].upper()}{row.claim[1:]}", "",
             f"Published: {row.published} ({row.source}). Verdict: **{finding.verdict}**.", "", finding.sentence, "",
             "| measured | median [range] |", "| --- | ---: |"]
    lines += [f"| {m.what} | {m} |" for m in finding.measured]
    if picture:
        lines += ["", f"![{row.alt}]({picture})"]
    lines += ["", _origin(row, results)]
    return lines


def _origin(row: Row, results: Mapping[str, Mapping]) -> str:
    """Where the numbers come from, in a line: experiments, seeds, machine, date, versions; and how to have them again."""
    parts = []
    for name, result in results.items():
        place = head(result)
        machine, torch = place["machine"], place["versions"]["torch"]
        parts.append(f"`{name}`, seeds {', '.join(map(str, seeds(result)))}, {machine.get('gpu') or machine['cpu']}, "
                     f"torch {torch}, {place['date']}")
    again = f"`python3 go.py claims {row.name}`"
    return f"From {'; '.join(parts)}; more seeds: {again}." if parts else f"Computed anew by {again}."


def to_html(answers: Sequence[Answer], scale: str) -> str:
    """The same with interactive pictures, in one file that needs no network. Needs plotly."""
    from plotly.offline import get_plotlyjs

    def cell(text: object) -> str:
        return html.escape(str(text))

    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>{TITLE}</title><style>body{{font-family:system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
        "line-height:1.5;color:#222}table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;"
        f"text-align:left;vertical-align:top}}</style><script>{get_plotlyjs()}</script><h1>{TITLE}</h1>",
    ]
    if scale == "smoke":
        parts.append("<p><strong>A smoke run: everything cut short. Its numbers mean nothing.</strong></p>")
    parts.append("<table><tr><th>#<th>what the report says<th>published<th>what we measure<th>verdict</tr>")
    for row, finding, _ in ordered(answers):
        first = finding.measured[0]
        parts.append(f"<tr><td><a href='#{row.name}'>{row.number}</a><td>{cell(row.claim)}<td>{cell(row.published)} "
                     f"({cell(row.source)})<td>{cell(first.what)}: {cell(first)}<td><strong>{finding.verdict}</strong></tr>")
    parts.append("</table>")
    for row, finding, results in ordered(answers):
        table = "".join(f"<tr><td>{cell(m.what)}<td>{cell(m)}</tr>" for m in finding.measured)
        picture = row.draw(results).to_html(full_html=False, include_plotlyjs=False)
        parts.append(f"<h2 id='{row.name}'>{row.number}. {cell(row.claim)}</h2><p>Published: {cell(row.published)} "
                     f"({cell(row.source)}). Verdict: <strong>{finding.verdict}</strong>.</p><p>{cell(finding.sentence)}</p>"
                     f"<table>{table}</table><figure role='img' aria-label='{cell(row.alt)}'>{picture}</figure>"
                     f"<p><small>{cell(_origin(row, results)).replace('`', '')}</small></p>")
    return "\n".join(parts) + "</html>\n"


def write_page(answers: Sequence[Answer], folder: Path, scale: str, *, pictures: bool = False) -> list[Path]:
    """Write claims.md, claims.html where plotly is installed and, if asked for, a picture of each claim; the files written.

    Raises UserError if pictures are asked for and kaleido or its browser is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {row.name: f"{row.name}.svg" for row, _, _ in answers} if pictures else {}
    for row, _, results in answers if pictures else ():
        try:
            row.draw(results).write_image(folder / drawn[row.name])
        except (ImportError, ValueError, RuntimeError) as problem:
            raise UserError(f"no picture can be written here ({str(problem).splitlines()[0]}); install minim1[build] and "
                            "Chromium, or leave --pictures out") from None
    texts = {"claims.md": to_markdown(answers, scale, drawn)}
    try:
        texts["claims.html"] = to_html(answers, scale)
    except ImportError:
        pass
    for name, text in texts.items():
        write_whole(folder / name, lambda part, text=text: part.write_text(text, encoding="utf-8"))
    return [folder / name for name in texts]
