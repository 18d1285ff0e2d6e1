"""JSON Schema of a model file, for editors: the fields of a `config.json` that `parallel.configs` reads.

It is made from the reader's own tables, so that the two agree. Fields that it does not name are let through, for such
files hold many that do not matter here.
"""

from types import MappingProxyType
from typing import Any, Final

from parallel.configcompressed import RATIOS
from parallel.configreader import KEYS, MOST_LAYERS
from parallel.configs import DTYPES, FAMILIES, LAYER_TYPES, QUANTISED, REFUSED
from parallel.layerkinds import SHORT

WHAT: Final = MappingProxyType(
    {
        "layers": "layers",
        "hidden": "width of the residual stream",
        "heads": "query heads",
        "kv_heads": "key-value heads; left out: as many as query heads",
        "head_dim": "width of a head; left out: hidden size / heads",
        "intermediate": "width of the feed-forward block",
        "vocab": "tokens of the vocabulary",
        "experts": "routed experts of a layer; left out: none",
        "topk": "routed experts that a token passes",
        "expert_intermediate": "width of a routed expert",
        "shared_experts": "experts that every token passes",
        "shared_intermediate": "width of the shared experts together",
        "groups": "groups of experts that routing chooses among first",
        "topk_groups": "groups that a token may reach",
        "first_dense": "leading layers without experts",
        "moe_every": "one layer in this many holds experts",
        "learned_positions": "learned positions, where the type has them",
        "mtp_layers": "layers for multi-token prediction, which are not priced",
        "kv_lora_rank": "latent attention: width of the cached latent",
        "q_lora_rank": "latent attention: width of the query latent; 0 or left out: none",
        "qk_nope_head_dim": "latent attention: width of a head without position",
        "qk_rope_head_dim": "latent attention: width of the rotary part",
        "v_head_dim": "latent attention: width of a value head",
        "index_topk": "sparse attention: positions that a token attends to; left out: all",
        "index_n_heads": "sparse attention: heads of the indexer",
        "index_head_dim": "sparse attention: width of an indexer's head",
        "index_topk_freq": "sparse attention: layers that share an index, where `indexer_types` does not list them",
        "index_skip_topk_offset": "sparse attention: leading layers, and one, that have indexes of their own; left out: 2",
        "sliding_window": "positions that a sliding layer sees",
        "max_window_layers": "layers below this one do not slide",
        "o_groups": "compressed attention: groups in which outputs of heads are projected",
        "o_lora_rank": "compressed attention: width of such a group's output",
        "streams": "residual streams that hyper-connections mix around each block; left out: 1",
        "hash_layers": "first layers whose experts the token alone decides",
    }
)
"""Size, by our name or the file's -> what it is."""
FROM_ZERO: Final = (
    *("shared_experts", "shared_intermediate", "first_dense", "mtp_layers", "q_lora_rank", "max_window_layers"),
    *("index_skip_topk_offset", "hash_layers"),
)
"""Sizes that may be 0; all others are at least 1."""
NEEDED: Final = ("layers", "hidden", "heads", "vocab")
"""Sizes that every model has to give."""
FLAGS: Final = MappingProxyType(
    {
        "attention_bias": "whether the projections of attention have biases",
        "mlp_bias": "whether the feed-forward matrices have biases",
        "gated_mlp": "whether the feed-forward block is gated: three matrices, not two",
        "use_qk_norm": "whether queries and keys are normalised per head",
        "use_sliding_window": "whether the sliding window is in use",
        "tie_word_embeddings": "whether the head is the embedding",
    }
)
"""Field that is true or false -> what it says."""


def model_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a model file, JSON or YAML.

    >>> schema = model_schema()
    >>> schema["properties"]["num_hidden_layers"]["description"]
    'layers'
    >>> {"required": ["hidden_size"]} in schema["allOf"][1]["anyOf"]
    True
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Model",
        "description": "A transformer, with the fields of a Hugging Face config.json.",
        "type": "object",
        "properties": {**_sizes(), **_flags(), **_others(), **_refused()},
        "allOf": [{"anyOf": [{"required": [key]} for key in (*KEYS[name], "text_config")]} for name in NEEDED],
    }


def _sizes() -> dict[str, Any]:
    """Properties of the whole numbers, under every key that may hold them."""
    found: dict[str, Any] = {}
    for name, what in WHAT.items():
        field: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0 if name in FROM_ZERO else 1}
        if name == "layers":
            field["maximum"] = MOST_LAYERS
        for key in KEYS.get(name, (name,)):
            found.setdefault(key, {**field, "description": what})
    return found


def _flags() -> dict[str, Any]:
    """Properties of the flags."""
    return {key: {"type": ["boolean", "null"], "description": what} for key, what in FLAGS.items()}


def _others() -> dict[str, Any]:
    """Properties of everything else that is read."""
    types = f"how the fields are read: {', '.join(FAMILIES)}; any other is read like llama"
    return {
        "model_type": {"type": "string", "description": types, "examples": [*FAMILIES]},
        "text_config": {"type": "object", "description": "the language model of a file that holds others too"},
        "layer_types": {
            "type": ["array", "null"],
            "items": {"enum": [*LAYER_TYPES, *(name for name in SHORT if name not in LAYER_TYPES)]},
            "description": "attention of every layer",
        },
        "compress_ratios": {
            "type": ["array", "null"],
            "items": {"enum": [*RATIOS]},
            "description": "compressed attention: positions of an entry, of every layer; 0: the window alone",
        },
        "compress_rates": {
            "type": ["object", "null"],
            "description": "compressed attention: the same by `layer_types`",
        },
        "mlp_layer_types": {
            "type": ["array", "null"],
            "items": {"enum": ["hash_moe", "moe"]},
            "description": "whether the token alone decides the experts of a layer",
        },
        "expert_dtype": {
            "type": ["string", "null"],
            "description": "format of the routed experts: fp4, where it differs",
        },
        "indexer_types": {
            "type": ["array", "null"],
            "items": {"enum": ["full", "shared"]},
            "description": "sparse attention: whether a layer has an index of its own, or takes that of the last one that has",
        },
        "index_topk_pattern": {
            "type": ["string", "null"],
            "pattern": "^F[FS]*$",
            "description": "sparse attention: the same as `indexer_types`, F and S",
        },
        "mlp_only_layers": {"type": ["array", "null"], "items": {"type": "integer"}, "description": "without experts"},
        "torch_dtype": {"type": ["string", "null"], "description": "format of the weights", "examples": [*DTYPES]},
        "quantization_config": {
            "type": ["object", "null"],
            "properties": {"quant_method": {"type": "string", "examples": [*QUANTISED]}},
            "description": "format of the weights, where they are quantised",
        },
        "native_precision": {"type": "string", "description": "format of the weights in words of ours: fp8"},
        "published_parameters": {"type": "number", "exclusiveMinimum": 0, "description": "count to check against"},
        "positions": {"type": "string", "description": "learned, where positions are"},
    }


def _refused() -> dict[str, Any]:
    """Properties of what cannot be priced; they may be there, but hold nothing."""
    nothing: dict[str, Any] = {"enum": [None, False, 0, "", [], {}]}
    return {key: {**nothing, "description": f"means {what}, which cannot be priced"} for key, what in REFUSED.items()}
