"""How well two tensors agree, and in words where they do not."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# of the largest expected value
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
DIGITS = 7  # length of the bar: digits in which two values agree
AXES = {4: "BTHE", 3: "BTE", 2: "TE", 1: "H"}  # E stands for D_v, as in the state, BHDE
AXIS_NAMES = {"B": "batch row", "T": "token", "H": "head", "D": "row", "E": "column", "N": "token"}


@dataclass(frozen=True)
class Row:
    """One compared quantity: grade is exact, close or off; digits in which it agrees, at most 7; largest difference, or NaN."""

    name: str
    grade: str
    digits: int
    difference: float

    def __str__(self) -> str:
        bar = "█" * self.digits + "░" * (DIGITS - self.digits)
        difference = "" if math.isnan(self.difference) else f"  max difference {self.difference:.1e}"
        return f"  {self.name:40} {bar}  {self.grade:5}{difference}"


def compare(name: str, value: Tensor, expected: Tensor, tolerance: float | None = None) -> Row:
    """exact: the expected numbers rounded to the value's dtype; close: within the tolerance of the largest of them.

    >>> compare("sum", torch.tensor([0.3]), torch.tensor([0.1 + 0.2], dtype=torch.float64)).grade
    'exact'
    """
    tolerance = TOLERANCE.get(value.dtype, 2e-2) if tolerance is None else tolerance
    expected = expected.double()
    if torch.equal(value, expected.to(value.dtype)):
        return Row(name, "exact", DIGITS, 0.0)
    if value.dtype == torch.bool:
        return Row(name, "off", 0, math.nan)  # True and False have no distance
    same = value.double() == expected  # where both are infinite
    difference = torch.where(same, 0.0, (value.double() - expected).abs()).max().item()
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 0.0
    if math.isnan(difference) or math.isinf(difference):
        return Row(name, "off", 0, difference)
    relative = difference / scale if scale else math.inf
    digits = DIGITS if relative == 0 else max(0, min(DIGITS, int(-math.log10(relative)))) if relative < math.inf else 0
    return Row(name, "close" if relative <= tolerance else "off", digits, difference)


def describe_difference(
    value: Tensor, expected: Tensor, axes: str | None = None, tolerance: float | None = None
) -> str:
    """Where and how two tensors of one shape differ, in words.

    >>> describe_difference(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    'it is 2 times the expected value everywhere.'
    >>> describe_difference(torch.tensor(2.0), torch.tensor(1.0))
    'it is 2, expected 1.'
    """
    tolerance = TOLERANCE.get(value.dtype, 2e-2) if tolerance is None else tolerance
    x, y = value.double(), expected.double()
    limit = tolerance * y[y.isfinite()].abs().amax().clamp(min=1e-30) if y.isfinite().any() else torch.tensor(1e-30)
    if not y.ndim:
        return f"it is {x:.6g}, expected {y:.6g}."
    if not x.any():
        return f"it is {False if value.dtype == torch.bool else 0} everywhere."
    factor = ((x * y).sum() / (y * y).sum()).item()
    if (x - factor * y).abs().max() <= limit * max(1.0, abs(factor)):
        if abs(factor + 1) < 1e-3:
            return "its sign is wrong everywhere."
        times = f"{factor:.4g}" if abs(factor - 1) >= 1e-3 else f"1 {'+' if factor > 1 else '-'} {abs(factor - 1):.1e}"
        return f"it is {times} times the expected value everywhere."
    if y.ndim >= 2 and y.shape[-1] == y.shape[-2] and (x.mT - y).abs().max() <= limit:
        return "its last two axes are swapped."
    difference = torch.where(x == y, 0.0, (x - y).abs()).nan_to_num(nan=math.inf)
    index = tuple(int(i) for i in torch.unravel_index(difference.argmax(), y.shape))
    where = _where_wrong(difference > limit, axes or AXES.get(y.ndim, ""))
    if difference.max() < 2e-2 * limit / tolerance and tolerance < 1e-3:
        where = f"{where} It is right in the first digits only, as if computed in half precision or approximated."
    got, wanted = (f"{z[index]:.6g}" if z.is_floating_point() else f"{z[index].item()}" for z in (value, expected))
    if got == wanted:
        got, wanted = (f"{z[index]:.12g}" for z in (x, y))
    which = "first" if expected.dtype == torch.bool else "largest"
    return f"{where} The {which} difference is at index {index}: {got}, expected {wanted}."


def _where_wrong(wrong: Tensor, axes: str) -> str:
    """The first axis, time before heads, along which some entries agree."""
    for letter in "TNHBDE":
        axis = axes.find(letter)
        if axis < 0 or axis >= wrong.ndim:
            continue
        differs = wrong.movedim(axis, 0).flatten(1).any(dim=1) if wrong.ndim > 1 else wrong
        agrees = (~differs).nonzero().flatten().tolist()
        if not agrees:
            continue
        name = AXIS_NAMES[letter]
        if agrees == list(range(len(agrees))):
            first = f"{name} 0 agrees" if len(agrees) == 1 else f"{name}s 0 to {len(agrees) - 1} agree"
            return f"{first}, from {name} {len(agrees)} on (counted from 0) it differs."
        wrongs = differs.nonzero().flatten().tolist()
        verb, few = ("agrees", agrees) if len(agrees) <= len(wrongs) else ("differs", wrongs)
        if len(few) <= 8:
            return f"it {verb} for {name} {', '.join(map(str, few))} only, of {len(differs)}."
        return f"it differs for {len(wrongs)} of {len(differs)} {name}s, first for {name} {wrongs[0]} (counted from 0)."
    return f"{wrong.double().mean().item():.0%} of its entries differ."


def describe_shape(name: str, got: tuple, wanted: tuple, axes: Sequence[str] | None = None) -> str:
    """What to say of a shape that is not the wanted one.

    >>> describe_shape("cache", (2, 6, 2, 5), (2, 7, 2, 5), ("B", "S + 1", "KV", "D"))
    'The cache has shape (2, 6, 2, 5), expected (2, 7, 2, 5) = (B, S + 1, KV, D): tokens missing: 1.'
    """
    axes = axes or AXES.get(len(wanted), "")
    letters = f" = ({', '.join(axes).replace('E', 'D_v')}{',' * (len(axes) == 1)})" if len(axes) == len(wanted) > 0 else ""
    moved = [axis for axis, (a, b) in enumerate(zip(got, wanted)) if a != b]
    if len(got) != len(wanted):
        hint = f"it should have {len(wanted)} axes, not {len(got)}; look for a missing or extra unsqueeze, squeeze or sum."
    elif len(moved) == 1 and letters and axes[moved[0]][0] in "TSN":
        missing = wanted[moved[0]] - got[moved[0]]
        hint = f"tokens missing: {missing}." if missing > 0 else f"tokens too many: {-missing}."
    elif sorted(got) != sorted(wanted):
        hint = "check which axis each sum or product runs over."
    elif len(moved) == 2:
        hint = f"the sizes are right, in another order: axes {moved[0]} and {moved[1]} are swapped."
    else:
        hint = "the sizes are right, in another order: transpose it back."
    return f"The {name} has shape {got}, expected {wanted}{letters}: {hint}"


# ---------------------------------------------------------------- what is no tensor: numbers, texts, lists of them


def plain(value: Any) -> Any:
    """A value that can be compared with ==: tuples, also inner ones, as lists."""
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def wrong_type(value: Any, expected: Any) -> str:
    """ "expected a list" and how to make one, where the value is something else than the expected one; else "".

    >>> wrong_type(4.0, 4), wrong_type((1, 2), [1, 2]), wrong_type("4", 4), wrong_type(None, [1])
    ('', '', 'expected a number.', 'expected a list: does the function end with `return`?')
    """
    for kinds, name in ((bool, "True or False"), ((int, float), "a number"), (str, "a text (str)"), ((list, tuple), "a list")):
        if isinstance(expected, kinds):
            right = isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool))
            return "" if right else f"expected {name}{_remedy(value, name)}"
    raise TypeError(f"no rule for {type(expected).__name__}")


def _remedy(value: Any, wanted: str) -> str:
    """The end of the sentence: how the value becomes "a list" or "a number", where that is known."""
    if value is None:
        return ": does the function end with `return`?"
    if wanted == "a list" and isinstance(value, Tensor):
        return ": `.tolist()` makes one of a tensor."
    if wanted == "a list" and isinstance(value, (Iterator, range)):
        return ": `list(...)` makes one of it."
    if wanted == "a number" and isinstance(value, Tensor) and value.numel() == 1:
        return ": `.item()` takes it out of the tensor."
    return "."


def describe_plain(value: Any, expected: Any) -> str:
    """Where two values of one type differ, in words.

    >>> describe_plain([1, 5], [1, 2])
    'entry 1 (counted from 0) is 5, expected 2.'
    >>> describe_plain([0, 1], [0, 0, 1])
    'it has 2 entries, expected 3; entry 1 (counted from 0) is 1, expected 0.'
    """
    if isinstance(expected, str):
        same = next((i for i, (a, b) in enumerate(zip(value, expected)) if a != b), min(len(value), len(expected)))
        goes_on = [repr(text[same : same + 30]) if text[same:] else "its end" for text in (value, expected)]
        return f"after {expected[:same][-30:]!r} ({same} characters agree) comes {goes_on[0]}, expected {goes_on[1]}."
    if not isinstance(expected, (list, tuple)):
        return f"it is {_short(value)}, expected {_short(expected)}."
    entries = f"it has {len(value)} {'entry' if len(value) == 1 else 'entries'}, expected {len(expected)}"
    lengths = "" if len(value) == len(expected) else f"{entries}; "
    for index, (a, b) in enumerate(zip(value, expected)):
        if plain(a) != plain(b):
            return f"{lengths}entry {index} (counted from 0) is {_short(a)}, expected {_short(b)}."
    return f"{lengths}as far as both go, they agree." if value and expected else f"{entries}."


def _short(value: Any) -> str:
    text = "NaN" if isinstance(value, float) and math.isnan(value) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
