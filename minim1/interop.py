"""Who else can run it? Checkpoints for transformers and in MiniMax-M1's own format, out and in.

    hf   transformers' `MiniMaxForCausalLM` and a tokenizer with chat template
    m1   the names and config.json of MiniMaxAI/MiniMax-M1, for the programs that load that model

transformers rotates all of a head where M1 rotates the first `rotary_dim` dims, and has no switch for it. So the rows of
q and k are put in an order in which its pairs are M1's, and its "longrope" factors make the frequencies M1's, and those
of the other pairs 0 (1e-30). Its tables of decay are buffers of a checkpoint, here made from M1's slopes.

The balance loss of M1 and transformers, E sum_e f_e m_e, counts each of the K experts of a token: its f sum to K, ours
to 1, so it is K where `load_balancing_loss` is 1, and their coefficient is ours / K. (They pool the tokens of all layers
before they multiply, we average over layers: the same for one layer, or where the layers' loads are alike.)
"""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from minim1.config import LARGEST, LIGHTNING, M1Config
from minim1.data.chat_template import SEAL, UNSEAL, chat_template
from minim1.data.tokenizer import CONTROL, Tokenizer
from minim1.errors import UserError
from minim1.model.decoder import MiniM1
from minim1.model.lightning import decay_slopes
from minim1.train.checkpoint import (
    RunFolder, check_weights, from_checkpoint, load, load_weights, read_tensors, save_model, to_checkpoint, write_tensors,
)
from minim1.train.files import make_folder, read_json, write_json, write_whole

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MODEL_TYPES = {"hf": "minimax", "m1": "minimax_m1"}
KINDS = ("linear_attention", "full_attention")  # transformers' words for LIGHTNING and SOFTMAX
RESIDUAL = {  # M1's names to transformers'
    f"layernorm_{m1}_{factor}": f"{hf}_{factor}_factor"
    for m1, hf in (("full_attention", "full_attn"), ("linear_attention", "linear_attn"), ("mlp", "mlp"))
    for factor in ("alpha", "beta")
}
NEEDED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim",
          "num_key_value_heads", "num_local_experts", "num_experts_per_tok", "attn_type_list", "rope_theta", "rotary_dim")
ABSENT = ("sliding_window", "shared_intermediate_size", "quantization_config", "rope_scaling")  # from this model
STILL = 1e30  # divides a frequency to nothing; finite in fp32
DECAYS = (".slope_rate", ".query_decay", ".key_decay", ".diagonal_decay")
INDEX = "model.safetensors.index.json"
IDS = {"bos_token_id": Tokenizer.bod_id, "eos_token_id": Tokenizer.eos_id, "pad_token_id": Tokenizer.pad_id}


def export(run: str | Path, out: str | Path, to: str = "hf", dtype: str = "fp32") -> Path:
    """Write the model of a run folder for other programs into the new folder `out`: whole, or not at all.

    Args: run, as for `load`; to, "hf" or "m1"; dtype of the weights, "fp32" or "bf16" (routers stay fp32).
    Raises: UserError for an unknown run or format, a folder that is not empty, or a model that the format cannot say.

        export("shipped", "for_transformers")
        transformers.AutoModelForCausalLM.from_pretrained("for_transformers")
    """
    for what, value, known in (("format", to, MODEL_TYPES), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise UserError(f"{what} is {value!r}; choose one of {', '.join(known)}")
    is_hf = to == "hf"
    with _whole_folder(Path(out)) as folder:
        model, tokenizer, _ = load(run)
        config, tensors = model.config, to_checkpoint({name: p.detach().cpu() for name, p in model.named_parameters()})
        tensors = {name: t if name.endswith(".gate.weight") else t.to(DTYPES[dtype]) for name, t in tensors.items()}
        values = hf_config(config) if is_hf else m1_config(config)
        if is_hf:
            tensors = _reorder(tensors, config, rotary_order(config)) | decays(config)
        else:  # llama.cpp asks for an index, though there is one file
            size = sum(t.numel() * t.element_size() for t in tensors.values())
            files = dict.fromkeys(sorted(tensors), "model.safetensors")
            write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": files})
        values["torch_dtype"] = "bfloat16" if dtype == "bf16" and not is_hf else "float32"  # it rounds decays, too
        write_json(folder / "config.json", values)
        write_tensors(folder / "model.safetensors", {n: t.contiguous() for n, t in tensors.items()}, {})
        write_json(folder / "generation_config.json", IDS)
        _write_tokenizer(tokenizer, config, folder, SEAL if is_hf else "")  # llama.cpp knows no normalizers
        write_whole(folder / "README.md", lambda part: part.write_text(CARDS[to], encoding="utf-8"))
    return Path(out)


def bring_in(folder: str | Path, out: str | Path) -> Path:
    """Make a run folder, which `load` reads, of an exported model, or of what transformers saved of one.

    Raises: UserError for what is no checkpoint of this architecture, and for another program's tokenizer.
    """
    folder = Path(folder)
    model = read_model(folder)
    with _whole_folder(Path(out)) as run:
        try:
            tokenizer = _read_tokenizer(folder, run)
            if tokenizer.vocab_size != model.config.vocab_size:
                raise UserError("it belongs to another model")
        except UserError:
            raise UserError(f"the tokenizer in {folder} is not minim1's, which a run folder needs; the weights alone can be "
                            f"read by minim1.interop.read_model({str(folder)!r})") from None
        RunFolder(run).create({"stage": "import", "source": folder.name}, tokenizer)
        save_model(model, run)
    return Path(out)


def read_model(folder: str | Path) -> MiniM1:
    """The model (fp32) in a folder of safetensors, in M1's format or transformers', whoever wrote it; sharded too.

    Raises: UserError for a config or weights that are not of this architecture, for pickles, and for damaged files.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; give a folder that `minim1 export` or transformers wrote")
    values = read_json(folder / "config.json")
    config, is_hf = read_config(values), values["model_type"] == MODEL_TYPES["hf"]
    tensors = _read_weights(folder)
    tables = {name: tensors.pop(name) for name in list(tensors) if is_hf and name.endswith(DECAYS)}
    tensors = from_checkpoint(tensors)
    with torch.device("meta"):  # a config may ask for more memory than there is
        check_weights(MiniM1(config), tensors, folder)
    if is_hf:
        tensors = _reorder(tensors, config, rotary_order(config).argsort())
        for place, slopes in _slopes(config).items():
            said = tables.get(place + DECAYS[0], slopes).float()
            # 1 %: they may have been in bf16; 2e-5: transformers' own factor of a layer differs from M1's by so much
            if said.shape != slopes.shape or not torch.allclose(said, slopes, rtol=0.01, atol=2e-5):
                raise UserError(f"{folder}: {place}{DECAYS[0]} is not what config.json says; use the config it came with")
    model = MiniM1(config)
    load_weights(model, tensors, folder)
    return model


# ---------------------------------------------------------------- configs


def m1_config(config: M1Config) -> dict:
    """config.json of MiniMax-M1, with our own fields (block_size, fp32_head) beside M1's.

    Raises: UserError for slopes of one's own, for which M1 has no field.
    """
    if config.slopes is not None:
        raise UserError("this model has slopes of its own, which M1's config.json cannot say; export it to hf")
    values = {name: value for name, value in config.to_dict().items() if name not in ("format", "slopes")}
    return values | IDS | {
        "architectures": ["MiniMaxM1ForCausalLM"], "model_type": MODEL_TYPES["m1"], "attention_dropout": 0.0,
        "router_aux_loss_coef": config.router_aux_loss_coef / config.num_experts_per_tok, "router_jitter_noise": 0.0,
        "output_router_logits": False, "shared_intermediate_size": 0, "shared_moe_mode": "sigmoid",
        "sliding_window": None, "use_cache": True,
    }


def hf_config(config: M1Config) -> dict:
    """config.json of transformers' `MiniMaxConfig`; `rotary_dim`, `slopes` and `fp32_head` are for the way back.

    `rope_theta` and `rope_scaling` are the older spelling of `rope_parameters`: transformers 4 would pass over the newer.
    Raises: UserError for what transformers has built in otherwise.
    """
    if not config.postnorm or config.head_dim % 2:
        raise UserError(f"postnorm is {config.postnorm} and head_dim {config.head_dim}; transformers' MiniMax has postnorm "
                        "and an even head_dim: export to m1")
    values = m1_config(dataclasses.replace(config, slopes=None))
    kinds = [KINDS[kind] for kind in values.pop("attn_type_list")]
    return {RESIDUAL.get(name, name): value for name, value in values.items()} | {
        "architectures": ["MiniMaxForCausalLM"], "model_type": MODEL_TYPES["hf"], "layer_types": kinds,
        "rope_scaling": _rope(config), "slopes": config.slopes,
    }


def read_config(values: dict) -> M1Config:
    """The architecture in another program's config.json. Raises: UserError where it is not this one."""
    if values.get("model_type") not in tuple(MODEL_TYPES.values()):
        raise UserError(f"config.json has model_type {values.get('model_type')!r:.80}; minimax (of transformers) and "
                        "minimax_m1 can be read")
    values, rope = _from_hf(values) if values["model_type"] == MODEL_TYPES["hf"] else (values, None)
    for name in NEEDED:
        if values.get(name) is None:
            raise UserError(f"config.json lacks {name}; restore the file that came with the weights")
    for name in ABSENT:
        if values.get(name):
            raise UserError(f"config.json has {name} = {values[name]!r:.80}, of which this model has none; use another one")
    absent = dict.fromkeys(RESIDUAL, 1.0) | {"postnorm": False, "router_aux_loss_coef": 0.001, "block_size": 256}
    known = {field.name for field in dataclasses.fields(M1Config)} & values.keys()
    config = M1Config(**absent | {name: values[name] for name in known})
    if rope is not None and rope != (wanted := _rope(config) or {"rope_type": "default"}):
        raise UserError(f"config.json has rotary positions {rope!r:.200}; {wanted!r:.200} can be read")
    return dataclasses.replace(config, router_aux_loss_coef=config.router_aux_loss_coef * config.num_experts_per_tok)


def _from_hf(values: dict) -> tuple[dict, dict]:
    """transformers' values under M1's names, and its rotary positions without their base."""
    back = {hf: m1 for m1, hf in RESIDUAL.items()}
    found = {"rope_theta": 1e6} | {back.get(name, name): value for name, value in values.items()}
    kinds, heads, hidden = (values.get(name) for name in ("layer_types", "num_attention_heads", "hidden_size"))
    if isinstance(kinds, list):
        kinds = [KINDS.index(kind) if kind in KINDS else kind for kind in kinds]
    if type(heads) is int and 0 < heads <= LARGEST["num_attention_heads"]:
        if found.get("head_dim") is None and type(hidden) is int:
            found["head_dim"] = hidden // heads
        if heads & (heads - 1):  # its ladder differs from M1's unless this is a power of two
            found = {"slopes": [2.0 ** (-8 * head / heads) for head in range(1, heads + 1)]} | found
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    rope = {"rope_type": "default"} | (rope if isinstance(rope, dict) else {"rope_type": rope})
    found["rope_theta"] = rope.pop("rope_theta", found["rope_theta"])
    fixed = {"attn_type_list": kinds, "rope_scaling": None, "postnorm": True}
    return {"rotary_dim": found.get("head_dim")} | found | fixed, rope


def _rope(config: M1Config) -> dict | None:
    """transformers' `rope_scaling`: theta^(-2i/head_dim) divided by a factor is M1's frequency; None if all dims rotate."""
    if config.rotary_dim == config.head_dim:
        return None
    factors = [
        config.rope_theta ** (2 * i / config.rotary_dim - 2 * i / config.head_dim) if 2 * i < config.rotary_dim else STILL
        for i in range(config.head_dim // 2)
    ]
    return {
        "rope_type": "longrope", "factor": 1.0, "attention_factor": 1.0, "short_factor": factors, "long_factor": factors,
        "original_max_position_embeddings": config.max_position_embeddings,
    }


# ---------------------------------------------------------------- tensors


def rotary_order(config: M1Config) -> Tensor:
    """Which of our rows of a head of q or k stands where in transformers' layout: (head_dim,) int64.

    It rotates pairs (i, i + head_dim/2); M1 pairs (i, i + rotary_dim/2) for i < rotary_dim/2, and nothing else.

    >>> rotary_order(M1Config(head_dim=8, rotary_dim=4)).tolist()
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    half, middle = config.rotary_dim // 2, (config.rotary_dim + config.head_dim) // 2
    parts = ((0, half), (config.rotary_dim, middle), (half, config.rotary_dim), (middle, config.head_dim))
    return torch.cat([torch.arange(*part) for part in parts])


def _reorder(tensors: dict[str, Tensor], config: M1Config, order: Tensor) -> dict[str, Tensor]:
    """The rows of every head of q and k in the order given."""
    rotated = ("self_attn.q_proj.weight", "self_attn.k_proj.weight")
    return {
        name: t.unflatten(0, (-1, config.head_dim))[:, order].flatten(0, 1) if name.endswith(rotated) else t
        for name, t in tensors.items()
    }


def decays(config: M1Config) -> dict[str, Tensor]:
    """transformers' buffers of the lightning layers, fp32: slopes (H, 1, 1), and the decays in a block of B tokens.

    From its start to each token and from each to its end (H, B, 1), and between tokens (1, H, B, B).
    """
    found, token = {}, torch.arange(1, config.block_size + 1).view(-1, 1)
    for place, s in _slopes(config).items():
        between = torch.exp(-s * (token - token.T).clamp(min=0)).tril().unsqueeze(0)
        tables = (s, torch.exp(-s * token), torch.exp(-s * (config.block_size - token)), between)
        found |= {place + name: table for name, table in zip(DECAYS, tables)}
    return found


def _slopes(config: M1Config) -> dict[str, Tensor]:
    """The slopes (H, 1, 1) of the lightning layers, by the names of their modules."""
    heads, layers = config.num_attention_heads, config.num_hidden_layers
    return {
        f"model.layers.{layer}.self_attn": decay_slopes(heads, layer, layers, config.slopes).view(-1, 1, 1)
        for layer, kind in enumerate(config.attn_type_list) if kind == LIGHTNING
    }


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder's model.safetensors, or of the shards in its index."""
    names = {"model.safetensors"}
    if (folder / INDEX).exists():
        shards = read_json(folder / INDEX).get("weight_map")
        names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
        if not names or any(Path(name).name != name for name in names):
            raise UserError(f"{folder / INDEX} has no weight_map of files beside it; restore the index of this checkpoint")
    elif not (folder / "model.safetensors").exists():
        raise UserError(f"{folder} has no model.safetensors; pickled weights (.bin, .pt) can run code and are never read: "
                        "save them as safetensors where they were made")
    tensors = {name: t for file in sorted(names) for name, t in read_tensors(folder / file)[0].items()}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UserError(f"{folder}: {name} is {tensor.dtype}; expected floating-point weights, none that are quantised")
    return tensors


# ---------------------------------------------------------------- tokenizer and card


def _write_tokenizer(tokenizer: Tokenizer, config: M1Config, folder: Path, seal: str) -> None:
    """tokenizer.json, its settings and the chat template; with a seal, the tokenizer takes it away again."""
    tokenizer.save(folder / "tokenizer.json")
    if seal:
        write_json(folder / "tokenizer.json", read_json(folder / "tokenizer.json") | {"normalizer": UNSEAL})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.max_position_embeddings,
        **{name.removesuffix("_id"): CONTROL[i] for name, i in IDS.items()}, "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
    })
    text = chat_template(tokenizer, seal)
    write_whole(folder / "chat_template.jinja", lambda part: part.write_text(text, encoding="utf-8"))


def _read_tokenizer(folder: Path, scratch: Path) -> Tokenizer:
    """The tokenizer of an export, without what the export and transformers put around it."""
    spec = read_json(folder / "tokenizer.json") | {"post_processor": None, "truncation": None, "padding": None}
    write_json(scratch / "tokenizer.json", spec | ({"normalizer": None} if spec.get("normalizer") == UNSEAL else {}))
    return Tokenizer.from_file(scratch / "tokenizer.json")


CARDS = {"hf": """\
A small model with MiniMax-M1's architecture, exported by minim1 for transformers.

    model = AutoModelForCausalLM.from_pretrained(folder)  # no remote code
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model.generate(**prompt, max_new_tokens=64)

- Leave it in float32, as config.json says: transformers rounds the decays to the model's dtype.
- `generate` is right for prompts of one length, and wrong after the first token of a row that is padded on the left: its
  cache takes its length from layer 0, and a lightning layer has none. Group prompts by length.
- For the same reason, whoever feeds tokens to a cache must give their `position_ids`.
- The chat template keeps markers that a message spells out, such as <think>, ordinary text. `tokenizer(text)` does not.
- `minim1 import` makes a run folder of this, or of what transformers saved of it.
""", "m1": """\
A small model with MiniMax-M1's architecture, exported by minim1 under the names of MiniMaxAI/MiniMax-M1, for programs
that run that model. Its answers end with token 8.

- config.json names no remote code: a program without a MiniMax-M1 of its own needs that model's Python files.
- llama.cpp's convert_hf_to_gguf.py knows tokenizers by a hash: enter this one's as `starcoder`, which splits text alike.
  It takes for granted what M1 has: softmax in every 8th layer, a power of two of heads, one alpha, and betas of 1.
- The tokenizer turns markers that a message spells out, such as <think> and a line end, into control tokens.
- `minim1 import` makes a run folder of this.
"""}


# ---------------------------------------------------------------- folders


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, and is gone if anything was raised."""
    out = out.resolve()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
            raise UserError(f"{out} exists and is not an empty folder; choose another with --out")
        make_folder(part)
        yield part
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    except OSError as error:
        raise UserError(f"could not write {out} ({error}); choose another folder with --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
