"""What does a long thought cost? FLOPs of generating n tokens, for M1, DeepSeek-R1 and Qwen3-235B.

The report's figure 1 (right) draws such curves and gives no formula. Every curve here is a quadratic: weights cost the
same for each token, attention costs more for each token that is there already. A *convention* says what is counted.
Pure arithmetic; 2 FLOPs for a multiply-add throughout. R1's and Qwen3's sizes are those of their public config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from minim1.config import LIGHTNING, M1Config, preset
from minim1.report.published import fig1_right

K = 1024  # tokens; what the figure's axis counts in


@dataclass(frozen=True)
class Curve:
    """FLOPs of generating n tokens after an empty prompt: linear * n + quadratic * n^2, both exact integers."""

    linear: int
    quadratic: int

    @classmethod
    def of(cls, fixed: int, context: int) -> "Curve":
        """From the multiply-adds of one token: `fixed`, and `context` more for each token it looks at and for itself."""
        return cls(2 * fixed + context, context)

    def total(self, tokens: int) -> int:
        """FLOPs of the first `tokens` tokens together (cumulative)."""
        return self.linear * tokens + self.quadratic * tokens**2

    def token(self, position: int) -> int:
        """FLOPs of the token at `position`, from 1 (marginal).

        >>> Curve.of(10, 3).token(5) == 2 * (10 + 3 * 5)
        True
        """
        return self.total(position) - self.total(position - 1)


def flops_per_token(config: M1Config, context: int) -> int:
    """FLOPs of one decoded token of an M1: products with weights, states and attention; embedding, norms, gates not.

    context: tokens that softmax layers look at, the new one included.

    >>> flops_per_token(preset("m1-456b"), 1) // 10**9
    94
    """
    return curve_of(config).token(context)


def curve_of(config: M1Config) -> Curve:
    """The cost of any M1, cleanly counted."""
    c, h, d, g = config.hidden_size, config.num_attention_heads, config.head_dim, config.num_key_value_heads
    lightning = config.attn_type_list.count(LIGHTNING)
    softmax = config.num_hidden_layers - lightning
    experts = config.num_experts_per_tok * 3 * c * config.intermediate_size + c * config.num_local_experts
    fixed = lightning * (5 * c * h * d + 2 * h * d * d) + softmax * 2 * (c * h * d + c * g * d)
    fixed += config.num_hidden_layers * experts + c * config.vocab_size
    return Curve.of(fixed, softmax * h * 2 * d)


# DeepSeek-R1: 61 layers of MLA, 128 heads; queries through 1,536 numbers, keys and values through 512 + 64 rotary
_MLA = 7168 * 1536 + 1536 * 128 * 192 + 7168 * (512 + 64) + 512 * 128 * (128 + 128) + 128 * 128 * 7168
_R1_DENSE = 3 * 3 * 7168 * 18432  # the first three layers have no experts
_R1_FIXED = 61 * _MLA + 58 * 9 * 3 * 7168 * 2048 + _R1_DENSE + 7168 * 129280
_R1_ROUTERS = 58 * 7168 * 256
# Qwen3-235B-A22B: 94 layers, 64 heads on 4 key heads, 8 of 128 experts
_QWEN_FIXED = 94 * (2 * 4096 * 8192 + 2 * 4096 * 512 + 8 * 3 * 4096 * 1536) + 4096 * 151936
_QWEN_ROUTERS = 94 * 4096 * 128
# M1 as the figure's coefficients have it (our inference): 72 + 8 layers, states charged as a matrix of 8,192 x 8,192
_M1_EXPERTS_HEAD = 80 * 2 * 3 * 6144 * 9216 + 6144 * 200064
_M1_FIGURE = 72 * (5 * 6144 * 8192 + 8192**2) + 8 * 2 * 6144 * (8192 + 1024) + _M1_EXPERTS_HEAD
_M1_MENDED = 70 * (5 * 6144 * 8192 + 64 * 2 * 128**2) + 10 * 2 * 6144 * (8192 + 1024) + _M1_EXPERTS_HEAD

CONVENTIONS = ("clean, naive MLA", "clean, absorbed MLA", "the figure's own", "the figure's, M1 mended",
               "clean M1, the figure's R1")
MODELS = ("MiniMax-M1", "DeepSeek-R1", "Qwen3-235B")


@cache
def curves(convention: str) -> Mapping[str, Curve]:
    """The three curves by model, under one of CONVENTIONS.

    Clean: 2 FLOPs for each multiply-add, scores and values both for the tokens that are there (their sum is n^2 / 2);
    MLA is naive when keys and values are expanded for each head, absorbed when heads work in the 512 + 64 numbers
    that are stored, as servers do. The figure's own: coefficients that fit its curves (see the chapter), values not halved.
    """
    qwen = Curve.of(_QWEN_FIXED + _QWEN_ROUTERS, 94 * 64 * (128 + 128))
    clean = {"MiniMax-M1": curve_of(preset("m1-456b")), "Qwen3-235B": qwen}
    figure = {"MiniMax-M1": Curve(2 * _M1_FIGURE, 8 * 64 * (128 + 2 * 128)),
              "DeepSeek-R1": Curve(2 * (_R1_FIXED + _R1_DENSE), 61 * 128 * (192 + 2 * 128)),
              "Qwen3-235B": Curve(2 * _QWEN_FIXED, 94 * 64 * (128 + 2 * 128))}
    return {
        "clean, naive MLA": clean | {"DeepSeek-R1": Curve.of(_R1_FIXED + _R1_ROUTERS, 61 * 128 * (192 + 128))},
        "clean, absorbed MLA": clean | {"DeepSeek-R1": Curve.of(_R1_FIXED + _R1_ROUTERS, 61 * 128 * (576 + 512))},
        "the figure's own": figure,
        "the figure's, M1 mended": figure | {"MiniMax-M1": Curve(2 * _M1_MENDED, 10 * 64 * (128 + 2 * 128))},
        "clean M1, the figure's R1": figure | {"MiniMax-M1": clean["MiniMax-M1"]},
    }[convention]


def ratio(convention: str, tokens: int, rival: str = "DeepSeek-R1", *, marginal: bool = False) -> float:
    """M1's FLOPs over a rival's: of all tokens up to `tokens`, or (marginal) of the one at that position.

    >>> f"{ratio('clean, naive MLA', 64 * K):.1%}"
    '44.5%'
    """
    ours, theirs = (curves(convention)[name] for name in ("MiniMax-M1", rival))
    return ours.token(tokens) / theirs.token(tokens) if marginal else ours.total(tokens) / theirs.total(tokens)


def published() -> dict[str, list[tuple[int, float]]]:
    """The points of the report's figure 1 (right): model -> [(generated tokens, FLOPs)]."""
    names = {"M1": "MiniMax-M1", "R1": "DeepSeek-R1", "Qwen3": "Qwen3-235B"}
    drawn = {names[short]: [(K * n, 1e16 * value) for n, value in points] for short, points in fig1_right().items()}
    return {name: drawn[name] for name in MODELS}
