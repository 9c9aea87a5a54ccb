"""Where are we? `block()`: the M1 block and its training as one drawing, with the parts of this chapter lit up.

Every box with a name in code type is a field of `Parts`. A lit box has a thick border and bold text, and a part whose
exercise the learner has passed bears the mark "yours": the drawing can be read without its colours.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

from minim1.course.look import COLOURS
from minim1.errors import UserError

WIDTH, HEIGHT = 800, 504
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
INK = COLOURS["text"]
BADGE = 'text-anchor="middle" font-size="12" font-weight="700" fill="#FFFFFF"'
LIT, PLAIN = "#FFF8B8", "#FFFFFF"


@dataclass(frozen=True)
class Box:
    """A rounded box; with `part`, one that the learner can fill."""

    title: str
    x: int
    y: int
    width: int
    height: int = 46
    part: str | None = None
    note: str = ""
    colour: str = "grey"

    @property
    def name(self) -> str:
        """What `block(lit=...)` calls it: the part's name, or the title of a box that is none."""
        return self.part or self.title


BOXES = (
    Box("embedding", 24, 40, 110, 40),
    Box("RMSNorm", 24, 179, 86, 40),
    Box("lightning attention", 146, 148, 242, part="lightning", note="7 of 8 layers", colour="lightning"),
    Box("RoPE", 146, 206, 62, part="rope", colour="softmax"),
    Box("softmax attention", 224, 206, 164, part="attention", note="1 of 8 layers", colour="softmax"),
    Box("RMSNorm", 24, 299, 86, 40),
    Box("top-2 router", 146, 296, 118, part="router", colour="expert"),
    Box("load balance", 146, 360, 118, part="balance_loss", colour="expert"),
    Box("experts", 290, 296, 100, part="dispatch", colour="expert"),
    Box("RMSNorm", 24, 446, 86, 40),
    Box("LM head", 146, 446, 86, 40),
    Box("packing", 540, 37, 124, part="pack", colour="text"),
    Box("optimiser", 540, 118, 252, 40),
    Box("learning rate", 558, 206, 106, part="schedule", colour="text"),
    Box("next-token loss", 540, 376, 124, part="lm_loss", colour="text"),
    Box("policy loss", 680, 206, 112, part="policy_loss", colour="clipped"),
    Box("advantages", 680, 285, 112, part="advantages", colour="reward"),
    Box("rewards", 680, 364, 112, part="rewards", colour="reward"),
    Box("sampling", 680, 443, 112, part="sampler", colour="thinking"),
)
ARROWS = (  # corners; the last one has the head
    ((540, 60), (134, 60)),  # token ids
    ((67, 80), (67, 179)), ((110, 199), (128, 199)),  # into the first norm, and out of it
    ((128, 199), (128, 171), (146, 171)), ((128, 199), (128, 229), (146, 229)), ((208, 229), (224, 229)),
    ((128, 171), (128, 134), (440, 134), (440, 186)),  # residual of the normalised input
    ((388, 171), (410, 171), (410, 192), (428, 192)), ((388, 229), (410, 229), (410, 206), (428, 206)),
    ((440, 212), (440, 268), (67, 268), (67, 299)),  # to the second half
    ((110, 319), (146, 319)), ((264, 319), (290, 319)), ((205, 342), (205, 360)), ((398, 319), (427, 319)),
    ((128, 319), (128, 416), (440, 416), (440, 332)),
    ((453, 319), (476, 319), (476, 434), (67, 434), (67, 446)),  # out of the last layer
    ((110, 466), (146, 466)), ((232, 466), (680, 466)), ((602, 466), (602, 422)),  # logits
    ((548, 376), (548, 158)), ((611, 206), (611, 158)), ((736, 206), (736, 158)),  # to the optimiser
    ((736, 443), (736, 410)), ((736, 364), (736, 331)), ((736, 285), (736, 252)),
)
SUMS = ((440, 199), (440, 319))
HEADINGS = ((16, 24, "The model"), (540, 24, "Its training"))
WORDS = (
    (80, 119, "N layers, each of them:"), (300, 52, "token ids, document ids"), (300, 458, "logits"),
    (446, 150, "× α"), (446, 408, "× α"), (556, 358, "pretraining, SFT"), (744, 186, "RL"),
)
NAMES = tuple(dict.fromkeys(box.name for box in BOXES))  # what can be lit


def block(lit: Iterable[str] = (), folder: str | Path = "../work") -> None:
    """Display the M1 block with the parts `lit` lit up, and those marked that are the learner's own.

    folder  the learner's notebooks, with what `check` found out about them; default: beside the notebook's folder.

    lit     fields of `Parts`, or titles of boxes that are none: "embedding", "RMSNorm", "LM head", "optimiser".

    Raises `UserError` on another name.

    >>> block(lit=("lightning",))    # doctest: +SKIP
    """
    from IPython.display import display

    lit = _checked(lit)
    yours = _yours(folder)
    alt = describe(lit, yours)
    data = base64.b64encode(draw(lit, yours).encode()).decode()
    # As <img>, since JupyterLab shows a bare SVG without alt text, cut off where too wide, and only once it is trusted.
    image = f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{data}">'
    display({"text/html": image, "text/plain": alt}, raw=True)


def describe(lit: tuple[str, ...], yours: tuple[str, ...]) -> str:
    """The drawing in words."""
    said = (
        "The M1 block. Token ids are embedded and pass N layers, each of them attention (lightning in 7 of 8 layers, "
        "softmax with rotary positions in 1 of 8), then a router and its experts, both with a normalised, scaled "
        "residual. A last norm and the LM head give logits. Beside it the parts of pretraining, fine-tuning and "
        "reinforcement learning."
    )
    said += f" Lit up: {_titles(lit)}." if lit else " Nothing is lit up."
    return said + (f" Already yours: {_titles(yours)}." if yours else "")


def draw(lit: tuple[str, ...], yours: tuple[str, ...]) -> str:
    """The drawing as SVG."""
    title, description = "The M1 block and its training", describe(lit, yours)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-labelledby="block-title block-desc" fill="{INK}" font-family="{SANS}" font-size="13.5">',
        f'<title id="block-title">{title}</title>', f'<desc id="block-desc">{escape(description)}</desc>',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#555"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        '<rect x="12" y="98" width="484" height="326" rx="12" fill="#F6F6F6" stroke="#BDBDBD"/>',
    ]
    lines += [_arrow(corners) for corners in ARROWS]
    lines += [_sum(x, y) for x, y in SUMS]
    lines += [f'<text x="{x}" y="{y}" font-size="15" font-weight="700">{text}</text>' for x, y, text in HEADINGS]
    lines += [f'<text x="{x}" y="{y}" font-size="12.5">{text}</text>' for x, y, text in WORDS]
    lines += [_box(box, box.name in lit, box.part in yours) for box in BOXES]
    return "\n".join([*lines, "</svg>"])


def _arrow(corners: tuple) -> str:
    points = " ".join(f"{x},{y}" for x, y in corners)
    return f'<polyline points="{points}" fill="none" stroke="#555" stroke-width="1.4" marker-end="url(#head)"/>'


def _sum(x: int, y: int) -> str:
    return (
        f'<circle cx="{x}" cy="{y}" r="12" fill="#fff" stroke="#555" stroke-width="1.4"/>'
        f'<path d="M{x - 6} {y}H{x + 6}M{x} {y - 6}V{y + 6}" stroke="#555" stroke-width="1.6"/>'
    )


def _box(box: Box, lit: bool, yours: bool) -> str:
    shape = (
        f'width="{box.width}" height="{box.height}" rx="7" fill="{LIT if lit else PLAIN}" '
        f'stroke="{COLOURS[box.colour]}" stroke-width="{4 if lit else 1.4}"'
    )
    behind = (8, 4, 0) if box.part == "dispatch" else (0,)  # several experts, one behind the other
    lines = [f'<rect x="{box.x + offset}" y="{box.y + offset}" {shape}/>' for offset in behind]
    look = f'x="{box.x + box.width / 2:g}" text-anchor="middle" font-weight="{700 if lit else 400}"'
    y = box.y + box.height / 2 + (-3 if box.part else 5)
    lines.append(f'<text y="{y:g}" {look}>{box.title}</text>')
    if box.part:
        note = f'<tspan font-family="{SANS}" font-weight="400" dx="8">{box.note}</tspan>' if box.note else ""
        lines.append(f'<text y="{y + 16:g}" {look} font-size="12" font-family="{MONO}">{box.part}{note}</text>')
    if yours:
        x = box.x + box.width - 18
        lines.append(f'<rect x="{x - 26}" y="{box.y - 10}" width="52" height="18" rx="9" fill="{INK}"/>')
        lines.append(f'<text x="{x}" y="{box.y + 3}" {BADGE}>yours</text>')
    return "".join(lines)


def _titles(parts: tuple[str, ...]) -> str:
    titles = {box.part: f"{box.title} ({box.part})" for box in BOXES if box.part}
    return ", ".join(titles.get(part, part) for part in parts)


def _checked(lit: Iterable[str]) -> tuple[str, ...]:
    lit = (lit,) if isinstance(lit, str) else tuple(lit)
    for name in lit:
        if name not in NAMES:
            raise UserError(f"{name!r} is no part; choose from {', '.join(NAMES)}")
    return lit


def _yours(folder: str | Path) -> tuple[str, ...]:
    """Parts whose exercise passed when it was last checked: a look into a file, no check is run."""
    if not Path(folder).is_dir():
        return ()
    from minim1.course.checks import EXERCISES
    from minim1.course.progress import known

    passed = {id for id, status in known(folder).items() if status == "passed"}
    return tuple(exercise.part for id, exercise in EXERCISES.items() if exercise.part and id in passed)
