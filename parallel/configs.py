"""Hugging Face `config.json` fields as `Model` records. Opens no file.

How each `model_type` is read is a row of `FAMILIES`: which key holds which size, and the traits that the type
implies without saying so in the file (query-key norms, biases, LayerNorm). Faulty fields give one `SpecError` that
lists every fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from parallel.configcompressed import compressed_rows, hash_layers, read_compressed
from parallel.configreader import MOST_LAYERS, Reader, read_indexer
from parallel.layerkinds import Row, layer_kinds
from parallel.shapes import Attention, Mlp, Model, Moe
from topo.errors import SpecError

#: Fields whose presence means an operator that `models` cannot express; value: what it is.
REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "full_attention_interval": "linear-attention layers",
        "linear_attention": "linear-attention layers",
        "linear_attn_config": "linear-attention layers",
        "hybrid_override_pattern": "Mamba layers",
        "mamba_d_state": "Mamba layers",
        "ssm_cfg": "Mamba layers",
        "index_kpool": "an index over pooled positions",
        "is_encoder_decoder": "an encoder",
    }
)


@dataclass(frozen=True)
class Family:
    """How the files of one `model_type` are read: keys that differ from `KEYS`, and what the type implies."""

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gated: bool = True
    norm: str = "rmsnorm"
    tied: bool = False
    learned_positions: bool = False
    qk_norm: str = "none"
    qkv_bias: bool | None = None  # None: as the file's `attention_bias` says
    output_bias: bool | None = None
    mlp_bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False
    shared_experts: int = 0
    sinks: bool = False
    windowed: str = "never"  # never | all | flagged (use_sliding_window) | alternate
    mla: bool = False
    compressed: bool = False


_GPT = Family(
    gated=False, norm="layernorm", tied=True, learned_positions=True, qkv_bias=True, output_bias=True, mlp_bias=True
)
_QWEN3 = Family(qk_norm="head", windowed="flagged")
_DEEPSEEK = Family(mla=True)
_DEEPSEEK_V3 = Family(mla=True, router_bias=True)

#: Source: the `configuration_*.py` and `modeling_*.py` of each type in Hugging Face transformers.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family(),
        "mistral": Family(windowed="all"),
        "mixtral": Family(windowed="all"),
        "qwen2": Family(qkv_bias=True, output_bias=False, windowed="flagged"),
        "qwen2_moe": Family(qkv_bias=True, output_bias=False, windowed="flagged", shared_gate=True),
        "qwen3": _QWEN3,
        "qwen3_moe": _QWEN3,
        "deepseek_v2": _DEEPSEEK,
        "deepseek_v3": _DEEPSEEK_V3,
        "deepseek_v32": _DEEPSEEK_V3,
        "glm_moe_dsa": _DEEPSEEK_V3,
        "deepseek_v4": Family(router_bias=True, sinks=True, compressed=True),
        "kimi_k2": _DEEPSEEK_V3,
        "gpt2": _GPT,
        "gpt": _GPT,
        "gpt_oss": Family(mlp_bias=True, router_bias=True, sinks=True, windowed="alternate"),
        "glm4_moe": Family(output_bias=False, router_bias=True),
        "minimax_m2": Family(qk_norm="full", router_bias=True),
        "llama4_text": Family(
            keys={
                "intermediate": ("intermediate_size_mlp",),
                "expert_intermediate": ("intermediate_size",),
            },
            shared_experts=1,
        ),
    }
)

#: Published weight formats by `quant_method`: (everything, routed experts).
QUANTISED = {"fp8": ("fp8", ""), "mxfp4": ("bf16", "mxfp4")}
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


# --- reading one file -----------------------------------------------------------------------------------------------


def _head_dim(reader: Reader, hidden: int | None, heads: int | None) -> int | None:
    """Return the file's `head_dim`, or hidden/heads where that is whole."""
    if reader.raw.get("head_dim") is not None or hidden is None or heads is None:
        return reader.whole("head_dim", default=1)
    if hidden % heads:
        reader.fault("heads", f"does not divide the hidden size {hidden}", "choose a divisor or write head_dim")
        return None
    return hidden // heads


def _read_attention(reader: Reader, family: Family, hidden: int | None) -> Attention | None:
    heads = reader.whole("heads")
    if family.compressed:
        return read_compressed(reader, heads)
    biased = reader.flag("attention_bias", default=False)
    names = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    mla = family.mla or reader.raw.get("kv_lora_rank") is not None
    latent: dict[str, Any] = {}
    if mla:
        latent = {name: reader.whole(name) for name in ("kv_lora_rank", *names)}
        latent["q_lora_rank"] = reader.whole("q_lora_rank", default=0, minimum=0)
        head_dim = latent["v_head_dim"]
    else:
        head_dim = _head_dim(reader, hidden, heads)
    if reader.raw.get("index_topk"):
        if not (latent.get("kv_lora_rank") and latent.get("q_lora_rank")):
            problem = "means an index over other than latents, which cannot be expressed"
            reader.fault("index_topk", problem, "write kv_lora_rank")
        latent["indexer"] = read_indexer(reader)
    return reader.build(
        Attention,
        {},
        kind="mla" if mla else "gqa",
        heads=heads,
        kv_heads=reader.whole("kv_heads", default=heads or 1),
        head_dim=head_dim,
        bias=biased if family.qkv_bias is None else family.qkv_bias,
        output_bias=biased if family.output_bias is None else family.output_bias,
        qk_norm="head" if reader.flag("use_qk_norm", default=False) and family.qk_norm == "none" else family.qk_norm,
        sinks=family.sinks,
        **latent,
    )


def _read_mlp(reader: Reader, family: Family, hidden: int | None) -> Mlp | None:
    default = 4 * hidden if hidden and not family.gated else None
    width = reader.whole("intermediate", default=default)
    gated = reader.flag("gated_mlp", default=family.gated)
    bias = reader.flag("mlp_bias", default=family.mlp_bias)
    return reader.build(Mlp, {}, intermediate=width, gated=gated, bias=bias)


def _read_moe(reader: Reader, family: Family) -> Moe | None:
    width = reader.whole("expert_intermediate")
    count = reader.whole("shared_experts", default=family.shared_experts, minimum=0)
    shared = reader.whole("shared_intermediate", default=(count or 0) * (width or 0), minimum=0)
    groups = reader.whole("groups", default=1)
    return reader.build(
        Moe,
        {"intermediate": "expert_intermediate"},
        experts=reader.whole("experts"),
        topk=reader.whole("topk"),
        intermediate=width,
        shared_intermediate=shared,
        gated=reader.flag("gated_mlp", default=family.gated),
        groups=groups,
        topk_groups=reader.whole("topk_groups", default=groups or 1),
        bias=family.mlp_bias,
        router_bias=family.router_bias,
        shared_gate=family.shared_gate,
    )


#: Attention of a layer -> whether it slides.
LAYER_TYPES: Mapping[str, bool] = {
    "full_attention": False,
    "deepseek_sparse_attention": False,
    "sliding_attention": True,
    "chunked_attention": True,
}


def _windows(reader: Reader, family: Family, stated: int | None) -> list[int]:
    """Return every layer's sliding window in positions (0: none); one layer stands for an unreadable count.

    A layer that attends within chunks (Llama 4) counts as one with a window of a chunk, the most that it sees.
    """
    layers = stated or 1
    listed = reader.raw.get("layer_types")
    rule = family.windowed
    if isinstance(listed, list):
        unknown = sorted({str(name) for name in listed} - set(LAYER_TYPES))
        if unknown:
            reader.fault("layer_types", f"{', '.join(unknown)} cannot be expressed", f"use {', '.join(LAYER_TYPES)}")
        if stated and len(listed) != stated:
            reader.fault("layer_types", f"names {len(listed)} layers of {stated}", "name every layer once")
        slides = [LAYER_TYPES.get(str(name), False) for name in (listed * layers)[:layers] or [""] * layers]
    elif rule == "flagged" and reader.flag("use_sliding_window", default=False):
        first = reader.whole("max_window_layers", default=0, minimum=0) or 0
        slides = [index >= first for index in range(layers)]
    else:
        held = reader.raw.get("sliding_window") is not None
        slides = [index % 2 == 0 if rule == "alternate" else rule == "all" and held for index in range(layers)]
    window = reader.whole("sliding_window") if any(slides) else 0
    return [window or 0 if slide else 0 for slide in slides]


#: Whether a layer takes the index of one before it: `indexer_types` and `index_topk_pattern`.
INDEXER_TYPES: Mapping[str, bool] = {"full": False, "shared": True, "F": False, "S": True}


def _shared(reader: Reader, layers: int) -> list[bool]:
    """Return for every layer whether it attends to the positions that one before it chose.

    Listed (`indexer_types`, else `index_topk_pattern`), or all but layer ℓ with ``max(ℓ − offset + 1, 0) mod freq = 0``.
    Source: vllm-project/vllm, vllm/model_executor/models/deepseek_v2.py, DeepseekV2MLAAttention.
    """
    if not reader.raw.get("index_topk"):
        return [False] * layers
    for key in ("indexer_types", "index_topk_pattern"):
        listed = reader.raw.get(key)
        if listed is None:
            continue
        names = list(listed) if isinstance(listed, list | str) else [listed]
        if len(names) != layers or any(str(name) not in INDEXER_TYPES for name in names):
            reader.fault(key, f"must name {layers} layers, each full or shared", "name every layer once")
            return [False] * layers
        shared = [INDEXER_TYPES[str(name)] for name in names]
        if shared[0]:
            reader.fault(key, "begins with a layer that shares an index, before any has one", "begin with full")
        return shared
    every = reader.whole("index_topk_freq", default=1) or 1
    offset = reader.whole("index_skip_topk_offset", default=2, minimum=0) or 0
    return [max(index - offset + 1, 0) % every != 0 for index in range(layers)]


def _routed(reader: Reader, layers: int) -> list[bool]:
    """Return for every layer whether it holds experts."""
    if not reader.raw.get(reader.key("experts")):
        return [False] * layers
    first = reader.whole("first_dense", default=0, minimum=0) or 0
    every = reader.whole("moe_every", default=1) or 1
    dense = reader.raw.get("mlp_only_layers") or ()
    if not isinstance(dense, list | tuple):
        reader.fault("mlp_only_layers", "must be a list of layer numbers", "write a list such as [0, 1]")
        dense = ()
    return [index >= first and (index + 1) % every == 0 and index not in dense for index in range(layers)]


def _precision(reader: Reader) -> tuple[str, str]:
    """Return the format of the published weights, and of the routed experts where that differs."""
    own = reader.raw.get("native_precision")
    if isinstance(own, str):
        name, _, part = own.partition(" ")
        return ("bf16", name) if part == "experts" else (name, "")
    quantised = reader.raw.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    plain = DTYPES.get(str(reader.raw.get("torch_dtype") or reader.raw.get("dtype")), "bf16")
    found = QUANTISED.get(str(method), (plain, ""))
    return (found[0], "mxfp4") if reader.raw.get("expert_dtype") == "fp4" else found


def _published(reader: Reader) -> float | None:
    value = reader.raw.get("published_parameters")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        reader.fault("published_parameters", "must be a positive number", "write the count, such as 671e9")
        return None
    return float(value)


def model_from_config(config: Mapping[str, Any], name: str, file: str = "") -> Model:
    """Turn the fields of a Hugging Face `config.json` into a `Model`.

    A `model_type` that `FAMILIES` does not list is read like `llama` with whatever fields are there, and the model's
    `note` says so. Beyond Hugging Face's fields, `native_precision`, `published_parameters`, `gated_mlp` and
    `positions: learned` are read if present.

    Raises
    ------
    SpecError
        With every missing, mistyped, negative or contradicting field, and every operator that cannot be expressed.

    Examples
    --------
    >>> model_from_config({"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 100,
    ...     "num_attention_heads": 4, "num_key_value_heads": 3}, "tiny", "tiny.json")
    Traceback (most recent call last):
    ...
    topo.errors.SpecError: tiny.json: num_key_value_heads = 3: does not divide the 4 query heads. choose a divisor of 4.
    tiny.json: intermediate_size: is missing. add it.
    """
    nested = config.get("text_config")
    raw = {**config, **nested} if isinstance(nested, dict) else config
    kind = str(raw.get("model_type", "llama"))
    family = FAMILIES.get(kind, Family())
    reader = Reader(raw, file, family.keys)
    for key in REFUSED:
        if raw.get(key):
            reader.fault(key, f"means {REFUSED[key]}, which cannot be expressed", "choose another model")
    for key in ("compress_ratios", "hc_mult"):
        if raw.get(key) and not family.compressed:
            reader.fault(key, f"is read of deepseek_v4 alone, and model_type is {kind}", "choose another model")

    hidden, layers = reader.whole("hidden"), reader.whole("layers", maximum=MOST_LAYERS)
    attention = _read_attention(reader, family, hidden)
    routed = _routed(reader, layers or 1)
    if family.compressed:
        rows = compressed_rows(reader, routed)
    else:
        told = (routed, _windows(reader, family, layers), _shared(reader, layers or 1))
        rows = [Row(*each) for each in zip(*told, strict=True)]
    mlp = None if all(row.routed for row in rows) else _read_mlp(reader, family, hidden)
    moe = _read_moe(reader, family) if any(row.routed for row in rows) else None
    learned = family.learned_positions or raw.get("positions") == "learned"
    precision, expert_precision = _precision(reader)
    fields: dict[str, Any] = {
        "name": name,
        "hidden": hidden,
        "vocab": reader.whole("vocab"),
        "tied_embeddings": reader.flag("tie_word_embeddings", default=family.tied),
        "learned_positions": reader.whole("learned_positions") if learned else 0,
        "mtp_layers": reader.whole("mtp_layers", default=0, minimum=0),
        "norm": family.norm,
        "streams": reader.whole("streams", default=1),
        "hash_layers": hash_layers(reader),
        "native_precision": precision,
        "expert_precision": expert_precision,
        "published_parameters": _published(reader),
        "note": "" if kind in FAMILIES else f"model_type {kind!r} is not known: read like llama",
    }
    if reader.faults or attention is None:
        raise SpecError(reader.faults)
    kinds, pattern = layer_kinds(rows, attention, mlp, moe)
    return Model(layers=kinds, pattern=pattern, **fields)
