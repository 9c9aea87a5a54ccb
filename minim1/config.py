"""How big? `M1Config`: the architecture in M1's own field names, with presets, validation and JSON.

Every ablation of the course is a field here, never a second code path: `postnorm`, `attn_type_list`,
`num_local_experts=1` (a dense network), `rotary_dim`, `slopes`.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from minim1.errors import UserError

LIGHTNING, SOFTMAX = 0, 1  # the two values of `attn_type_list` (config.json of M1)
FORMAT = 1  # number of the config and checkpoint format
LARGEST = {  # of every size: far beyond M1 itself, and small enough that no file can make us count for hours
    "vocab_size": 2**24, "hidden_size": 2**18, "intermediate_size": 2**18, "num_hidden_layers": 2**10,
    "num_attention_heads": 2**12, "num_key_value_heads": 2**12, "head_dim": 2**12, "num_local_experts": 2**14,
    "num_experts_per_tok": 2**14, "max_position_embeddings": 2**40, "block_size": 2**16,
}


def hybrid_pattern(num_layers: int, period: int = 8) -> tuple[int, ...]:
    """M1's pattern: the last of every `period` layers is softmax attention, the others lightning (report §2).

    >>> hybrid_pattern(8)
    (0, 0, 0, 0, 0, 0, 0, 1)
    """
    return tuple(SOFTMAX if (layer + 1) % period == 0 else LIGHTNING for layer in range(num_layers))


@dataclass(frozen=True)
class M1Config:
    """Architecture of one model; field names are those of M1's `config.json` unless marked (ours).

    `None` in an alpha field means DeepNorm's (2L)^(1/4) with `postnorm`, and 1 without.
    Raises `UserError` when sizes do not fit together.
    """

    vocab_size: int = 1024
    hidden_size: int = 96
    intermediate_size: int = 96  # width of one expert
    num_hidden_layers: int = 8
    num_attention_heads: int = 8
    num_key_value_heads: int = 2  # softmax layers only; lightning layers have no grouping
    head_dim: int = 16
    attn_type_list: tuple[int, ...] | None = None  # None: 7 lightning to 1 softmax
    num_local_experts: int = 4
    num_experts_per_tok: int = 2
    postnorm: bool = True
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rotary_dim: int | None = None  # None: half of head_dim, as in M1
    max_position_embeddings: int = 4096
    router_aux_loss_coef: float = 0.01  # of a loss that is 1.0 when balanced (ours)
    layernorm_full_attention_alpha: float | None = None
    layernorm_full_attention_beta: float = 1.0
    layernorm_linear_attention_alpha: float | None = None
    layernorm_linear_attention_beta: float = 1.0
    layernorm_mlp_alpha: float | None = None
    layernorm_mlp_beta: float = 1.0
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    slopes: tuple[float, ...] | None = None  # (ours) base slope of each head; None: M1's ladder
    block_size: int = 32  # (ours; 32 is a good choice on a CPU) block length of the block forms in PyTorch
    fp32_head: bool = True  # (ours) LM head in fp32 whatever the autocast dtype (report §3.2)

    def __post_init__(self) -> None:
        fill = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen)
        self._validate_types()
        pattern = hybrid_pattern(self.num_hidden_layers) if self.attn_type_list is None else self.attn_type_list
        fill("attn_type_list", tuple(pattern))
        if self.rotary_dim is None:
            fill("rotary_dim", self.head_dim // 2)
        if self.slopes is not None:
            fill("slopes", tuple(float(s) for s in self.slopes))
        deepnorm = (2 * self.num_hidden_layers) ** 0.25 if self.postnorm else 1.0
        for kind in ("full_attention", "linear_attention", "mlp"):
            if getattr(self, f"layernorm_{kind}_alpha") is None:
                fill(f"layernorm_{kind}_alpha", deepnorm)
        self._validate()

    def _validate_types(self) -> None:
        """Before anything is computed from a field: a config.json may hold any JSON."""
        for name, most in LARGEST.items():
            if type(getattr(self, name)) is not int or not 1 <= getattr(self, name) <= most:
                raise UserError(
                    f"{name} is {getattr(self, name)!r:.80}; it must be a whole number of at least 1 and at most {most}"
                )
        for name in ("rms_norm_eps", "rope_theta", "router_aux_loss_coef", *(
            f"layernorm_{kind}_{factor}" for kind in ("full_attention", "linear_attention", "mlp")
            for factor in ("alpha", "beta")
        )):
            value = getattr(self, name)
            if not (_is_number(value) or value is None and name.endswith("alpha")):
                raise UserError(f"{name} is {value!r:.80}; it must be a finite number")
            if name in ("rms_norm_eps", "rope_theta") and value <= 0:
                raise UserError(f"{name} is {value!r}; it must be above 0")
        for name in ("postnorm", "fp32_head", "tie_word_embeddings"):
            if type(getattr(self, name)) is not bool:
                raise UserError(f"{name} is {getattr(self, name)!r:.80}; it must be true or false")
        pattern, slopes = self.attn_type_list, self.slopes
        if pattern is not None and not isinstance(pattern, (list, tuple)):
            raise UserError(f"attn_type_list is {pattern!r:.80}; give one 0 (lightning) or 1 (softmax) for each layer")
        if self.rotary_dim is not None and type(self.rotary_dim) is not int:
            raise UserError(f"rotary_dim is {self.rotary_dim!r:.80}; it must be an even whole number")
        if slopes is not None and not (isinstance(slopes, (list, tuple)) and all(map(_is_number, slopes))):
            raise UserError(
                f"slopes are {slopes!r:.80}; give {self.num_attention_heads} numbers of at least 0, one per head"
            )

    def _validate(self) -> None:
        if len(self.attn_type_list) != self.num_hidden_layers:
            raise UserError(
                f"attn_type_list has {len(self.attn_type_list)} entries for {self.num_hidden_layers} layers; "
                "give one entry for each layer, or leave it out for M1's 7:1 pattern"
            )
        if not all(type(kind) is int and kind in (LIGHTNING, SOFTMAX) for kind in self.attn_type_list):
            raise UserError(
                f"attn_type_list is {list(self.attn_type_list)!r:.300}; only 0 (lightning) and 1 (softmax) exist"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"{self.num_attention_heads} query heads cannot share {self.num_key_value_heads} key/value heads; "
                "choose num_key_value_heads that divides num_attention_heads"
            )
        if self.num_experts_per_tok > self.num_local_experts:
            raise UserError(
                f"num_experts_per_tok is {self.num_experts_per_tok} but there are {self.num_local_experts} experts; "
                "choose at most num_local_experts"
            )
        if not 0 <= self.rotary_dim <= self.head_dim or self.rotary_dim % 2:
            raise UserError(
                f"rotary_dim is {self.rotary_dim}; it must be even and between 0 and head_dim = {self.head_dim}"
            )
        if self.slopes is not None and (len(self.slopes) != self.num_attention_heads or min(self.slopes) < 0):
            raise UserError(
                f"slopes are {list(self.slopes)!r:.300}; give {self.num_attention_heads} numbers of at least 0, one per head"
            )
        if self.tie_word_embeddings:
            raise UserError("tie_word_embeddings is true; M1's head is untied, set it to false")
        if self.hidden_act != "silu":
            raise UserError(f"hidden_act is {self.hidden_act!r:.80}; M1 uses 'silu', and only that is implemented")

    @property
    def init_gain(self) -> float:
        """DeepNorm's initialisation gain (8L)^(-1/4) for value, output and expert matrices; 1 without `postnorm`."""
        return (8 * self.num_hidden_layers) ** -0.25 if self.postnorm else 1.0

    def to_dict(self) -> dict:
        return {"format": FORMAT, "model_type": "minim1", **dataclasses.asdict(self)}

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, values: dict) -> "M1Config":
        """The config of a `to_dict`; `UserError` on another format number or an unknown field."""
        if not isinstance(values, dict):
            raise UserError(f"the config holds a {type(values).__name__}; expected an object of config fields")
        values = dict(values)
        found = values.pop("format", None)
        values.pop("model_type", None)
        if found != FORMAT:
            raise UserError(f"config format is {found!r:.80}; this version of minim1 reads format {FORMAT}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"unknown config field {unknown[0]!r:.80}; known fields: {', '.join(sorted(known))}")
        for name in ("attn_type_list", "slopes"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> "M1Config":
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path} does not exist; expected the config.json of a run folder") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); expected the config.json of a run folder") from None
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of 5,000 digits, lists without end
            raise UserError(f"{path} is not readable JSON ({error}); expected the config.json of a run folder") from None
        return cls.from_dict(values)


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30  # finite, in fp32 too


def nano() -> M1Config:
    """Two CPU cores, minutes: one whole 7:1 group of M1's pattern."""
    return M1Config()


def small() -> M1Config:
    """One GPU of 8 GB or more: two 7:1 groups."""
    return M1Config(
        vocab_size=2048, hidden_size=256, intermediate_size=256, num_hidden_layers=16, num_attention_heads=8,
        num_key_value_heads=2, head_dim=64, num_local_experts=8, block_size=64,
    )


def m1_456b() -> M1Config:
    """MiniMax-M1 itself (its config.json): for counting, never allocated."""
    return M1Config(
        vocab_size=200_064, hidden_size=6144, intermediate_size=9216, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, head_dim=128, num_local_experts=32, num_experts_per_tok=2, rope_theta=1e7,
        rotary_dim=64, max_position_embeddings=10_240_000, block_size=256,
    )


PRESETS = {"nano": nano, "small": small, "m1-456b": m1_456b}


def preset(name: str) -> M1Config:
    """The config of a preset by name.

    >>> round(preset("m1-456b").layernorm_mlp_alpha, 12)
    3.556558820078
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()
