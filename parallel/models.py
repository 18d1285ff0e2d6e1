"""Models, counted: parameters, forward FLOPs and key/value cache from shapes alone.

The records (`Model`, `LayerKind`, `Attention`, `Mlp`, `Moe`) live in `parallel.shapes` and are importable from here.
Every count sums the same weight matrices (`attention_matrices`, `mlp_matrices`) that the operators multiply, so a
count and the operator that uses the weight cannot drift apart. `parallel.io` reads `config.json` files.
"""

from dataclasses import replace

import numpy as np

from parallel.entries import (
    chosen_positions,
    collapse_parameters,
    compression_vectors,
    entry_bytes,
    kept_bytes,
    pace,
    seen_at,
    seen_between,
    stream_parameters,
    stream_products,
)
from parallel.shapes import (
    NORMS,
    REPLICATED,
    Attention,
    Compression,
    Indexer,
    LayerKind,
    Mlp,
    Model,
    Moe,
    Shape,
    attention_matrices,
    layer_count,
    layer_order,
    mlp_matrices,
    module_kind,
    weights,
)
from topo.columns import Column, ColumnLike, column

__all__ = [
    "NORMS",
    "REPLICATED",
    "Attention",
    "Compression",
    "Indexer",
    "LayerKind",
    "Mlp",
    "Model",
    "Moe",
    "Shape",
    "active_parameters",
    "attended_positions",
    "attention_matrices",
    "attention_parameters",
    "cached_bytes",
    "chosen_positions",
    "compressed",
    "embedding_parameters",
    "expert_parameters",
    "final_norm_parameters",
    "flops_per_token_forward",
    "head_parameters",
    "index_key_bytes",
    "index_score_flops",
    "indexed",
    "joined_parameters",
    "kept_bytes",
    "kv_bytes_per_sequence",
    "kv_bytes_per_token",
    "kv_bytes_per_token_by_kind",
    "kv_values_per_token",
    "latent_bytes",
    "layer_count",
    "layer_order",
    "layer_parameters",
    "mlp_matrices",
    "mlp_parameters",
    "module_kind",
    "mtp_parameters",
    "norm_parameters",
    "parameters",
    "router_parameters",
    "score_flops",
    "shared_parameters",
    "stream_parameters",
    "weights",
]

SCALED_BYTES = 1.0 + 4.0 / 128.0
"""Of an FP8 value whose FP32 scale 128 of them share."""
ROTARY_BYTES = 2.0
"""Of a rotary value beside a narrower latent: BF16."""

# --- parameters of one layer --------------------------------------------------------------------------------------


def _feed_forward(hidden: int, intermediate: int, gated: bool, bias: bool) -> int:
    matrices = mlp_matrices(hidden, intermediate, gated)
    return weights(matrices) + (sum(outputs for _, outputs in matrices.values()) if bias else 0)


def _attention_vectors(attention: Attention, hidden: int) -> int:
    """Return the biases, inner norms and sinks of one attention block."""
    a = attention
    projected = {"none": 0, "head": 2 * a.head_dim, "full": (a.heads + a.kv_heads) * a.head_dim}[a.qk_norm]
    latent = a.q_lora_rank + a.kv_lora_rank if a.kind == "mla" else 0
    latent += NORMS["layernorm"] * a.indexer.head_dim if a.indexer and not a.compression else 0
    latent += compression_vectors(a)
    biased = (a.heads + 2 * a.kv_heads) * a.head_dim if a.bias and a.kind == "gqa" else 0
    return projected + latent + biased + (hidden if a.output_bias else 0) + (a.heads if a.sinks else 0)


def attention_parameters(model: Model, kind: LayerKind) -> int:
    """Return the parameters of one attention block: matrices, biases, norms of queries, keys and latents.

    GQA: h·d·(2·heads + 2·kv_heads). MLA: h·r_q + r_q·heads·(nope + rope) + h·(r_kv + rope)
    + r_kv·heads·(nope + v) + heads·v·h, plus the two latent norms. An indexer: r_q·heads_I·d_I + h·(d_I + heads_I), plus the
    LayerNorm of its key (deepseek-ai/DeepSeek-V3.2-Exp, inference/model.py, class Indexer). Compressed attention:
    h·(r_q + d) + r_q·heads·d + heads·d·r_o + g·r_o·h, and 2·h·d of keys and gates where it has entries, twice that with an
    indexer, which has an index of its own of them.

    >>> llama = LayerKind("dense", Attention("gqa", heads=32, kv_heads=8, head_dim=128), Mlp(14336), 32)
    >>> attention_parameters(Model("llama-3.1-8b", 4096, 128256, (llama,)), llama) == 2 * 4096 * (4096 + 1024)
    True
    """
    matrices = attention_matrices(kind.attention, model.hidden)
    return weights(matrices) + _attention_vectors(kind.attention, model.hidden)


def mlp_parameters(model: Model, kind: LayerKind) -> int:
    """Return the parameters of one dense feed-forward block; 0 in a mixture-of-experts layer."""
    if isinstance(kind.mlp, Moe):
        return 0
    return _feed_forward(model.hidden, kind.mlp.intermediate, kind.mlp.gated, kind.mlp.bias)


def expert_parameters(model: Model, kind: LayerKind) -> int:
    """Return the parameters of one routed expert (3·h·f when gated); 0 in a dense layer."""
    if isinstance(kind.mlp, Mlp):
        return 0
    return _feed_forward(model.hidden, kind.mlp.intermediate, kind.mlp.gated, kind.mlp.bias)


def shared_parameters(model: Model, kind: LayerKind) -> int:
    """Return the parameters of all shared experts of one layer, their gate included; 0 where there are none."""
    if isinstance(kind.mlp, Mlp) or not kind.mlp.shared_intermediate:
        return 0
    block = _feed_forward(model.hidden, kind.mlp.shared_intermediate, kind.mlp.gated, kind.mlp.bias)
    return block + (model.hidden if kind.mlp.shared_gate else 0)


def router_parameters(model: Model, kind: LayerKind) -> int:
    """Return the parameters of one router, h·experts (+ experts when biased); 0 in a dense layer."""
    if isinstance(kind.mlp, Mlp):
        return 0
    return kind.mlp.experts * (model.hidden + kind.mlp.router_bias)


def norm_parameters(model: Model) -> int:
    """Return the parameters of the residual-stream norms of one layer."""
    return model.norms_per_layer * NORMS[model.norm] * model.hidden


def layer_parameters(model: Model, kind: LayerKind, active: bool = False) -> int:
    """Return the parameters of one layer of this kind; with `active`, only those that one token uses.

    >>> moe = LayerKind("moe", Attention("gqa", 2, 2, 4), Moe(experts=8, topk=2, intermediate=16), 1)
    >>> tiny = Model("tiny", 8, 100, (moe,))
    >>> layer_parameters(tiny, moe) - layer_parameters(tiny, moe, active=True) == (8 - 2) * 3 * 8 * 16
    True
    """
    routed = 0 if isinstance(kind.mlp, Mlp) else (kind.mlp.topk if active else kind.mlp.experts)
    return (
        attention_parameters(model, kind)
        + norm_parameters(model)
        + stream_parameters(model)
        + mlp_parameters(model, kind)
        + router_parameters(model, kind)
        + shared_parameters(model, kind)
        + routed * expert_parameters(model, kind)
    )


# --- parameters of the model --------------------------------------------------------------------------------------


def embedding_parameters(model: Model) -> int:
    """Return the parameters of the input side: token table, learned positions, embedding norm."""
    norm = NORMS[model.norm] if model.embedding_norm else 0
    return (model.vocab + model.learned_positions + norm) * model.hidden


def head_parameters(model: Model) -> int:
    """Return the parameters of the output matrix; 0 where it is the token table itself."""
    return 0 if model.tied_embeddings else model.vocab * model.hidden


def final_norm_parameters(model: Model) -> int:
    """Return the parameters of the norm before the output matrix."""
    return NORMS[model.norm] * model.hidden


def joined_parameters(model: Model) -> int:
    """Return what joins the residual streams, less the biases that routers of the first layers lack: 0 of most models."""
    unbiased = model.hash_layers * sum(kind.mlp.experts for kind in model.layers[:1] if isinstance(kind.mlp, Moe))
    return collapse_parameters(model) - unbiased


def mtp_parameters(model: Model) -> int:
    """Return the parameters of all multi-token-prediction modules; embedding and head are the main model's.

    Each module: a layer of the last kind, a projection from 2h to h, and three norms (DeepSeek-V3 §2.2, eq. 21); streams are
    joined at its end too.
    """
    each = layer_parameters(model, module_kind(model)) + 2 * model.hidden**2 + 3 * NORMS[model.norm] * model.hidden
    return model.mtp_layers * (each + collapse_parameters(model))


def parameters(model: Model, with_mtp: bool = False) -> int:
    """Return all parameters, without the multi-token-prediction modules unless asked for.

    >>> llama = LayerKind("dense", Attention("gqa", heads=32, kv_heads=8, head_dim=128), Mlp(14336), 32)
    >>> parameters(Model("llama-3.1-8b", 4096, 128256, (llama,)))
    8030261248
    """
    layers = sum(kind.count * layer_parameters(model, kind) for kind in model.layers)
    ends = embedding_parameters(model) + final_norm_parameters(model) + head_parameters(model)
    ends += joined_parameters(model)
    return layers + ends + (mtp_parameters(model) if with_mtp else 0)


def active_parameters(model: Model, count_embedding: bool = True) -> int:
    """Return the parameters that one token uses: `topk` experts per layer, everything else whole.

    `count_embedding=False` leaves out the input side, which is looked up rather than multiplied; a tied table stays,
    for it is the output matrix too.
    """
    layers = sum(kind.count * layer_parameters(model, kind, active=True) for kind in model.layers)
    layers += joined_parameters(model)
    if count_embedding:
        return layers + embedding_parameters(model) + final_norm_parameters(model) + head_parameters(model)
    return layers + final_norm_parameters(model) + model.vocab * model.hidden


# --- forward work -------------------------------------------------------------------------------------------------


def attended_positions(attention: Attention, context: ColumnLike, causal: bool = True) -> Column:
    """Return the positions that a token attends to: the mean over a sequence (`causal`) or at the end of it.

    With window w and c tokens, m = min(c, w): causal m − m²/(2c), which is c/2 without a window; else m. An indexer's top-k
    bounds it as a window does. Entries of compressed attention count as positions (`parallel.entries`).

    >>> full, window = Attention("gqa", 1, 1, 64), Attention("gqa", 1, 1, 64, sliding_window=128)
    >>> float(attended_positions(full, 4096)), float(attended_positions(window, 4096))
    (2048.0, 126.0)
    """
    tokens = column(context)
    if attention.compression:
        return seen_between(attention, 0.0, tokens) if causal else seen_at(attention, tokens)
    most = attention.indexer.topk if attention.indexer else attention.sliding_window
    seen = np.minimum(tokens, most) if most else tokens
    return column(seen - seen**2 / (2 * np.maximum(tokens, 1.0)) if causal else seen)


def score_flops(attention: Attention, positions: ColumnLike) -> Column:
    """Return the FLOPs of scores and weighted values for one token over `positions`: 2·heads·(d_qk + d_v)·positions.

    >>> float(score_flops(Attention("gqa", heads=32, kv_heads=8, head_dim=128), 1))
    16384.0
    """
    a = attention
    width = a.qk_nope_head_dim + a.qk_rope_head_dim + a.v_head_dim if a.kind == "mla" else 2 * a.head_dim
    return column(2.0 * a.heads * width * column(positions))


def index_score_flops(attention: Attention, positions: ColumnLike) -> Column:
    """Return the FLOPs of one token's index scores over `positions`: 2·heads_I·d_I·positions; 0 without an indexer.

    An index of compressed attention has a key for each entry, so for every `parallel.entries.pace` positions.

    >>> v32 = Attention("mla", 128, 128, 128, 1536, 512, 128, 64, 128, indexer=Indexer(64, 128, 2048))
    >>> float(index_score_flops(v32, 1))
    16384.0
    """
    indexer = attention.indexer
    return column(2.0 * (indexer.heads * indexer.head_dim if indexer else 0.0) * column(positions) / pace(attention))


def indexed(model: Model) -> bool:
    """Whether tokens of any layer attend to positions that an indexer chooses."""
    return any(kind.attention.indexer for kind in model.layers)


def compressed(model: Model) -> bool:
    """Whether any layer attends to entries that stand for several positions."""
    return any(kind.attention.compression for kind in model.layers)


def flops_per_token_forward(model: Model, context: ColumnLike, causal: bool = True) -> dict[str, Column]:
    """Return the forward FLOPs of one token by part: 2 per weight that multiplies, and the attention scores.

    Parameters
    ----------
    model
        The model; multi-token-prediction modules are not counted.
    context
        Sequence length in tokens.
    causal
        Mean over a causally masked sequence (training, prefill), or one token at its end (decode; full attention).

    Returns
    -------
    dict
        `attention_projections`, `attention_scores` (index scores of all positions included), `mlp`, `router`,
        `shared_experts`, `experts`, `head`. MLA is counted in its expanded form. Source: Narayanan 2021 §5.1 with the gated
        and routed blocks counted.
    """
    h = model.hidden
    parts = dict.fromkeys(("attention_projections", "mlp", "router", "shared_experts", "experts"), 0)
    scores = column(np.zeros_like(column(context)))
    for kind in model.layers:
        n, block = kind.count, kind.mlp
        parts["attention_projections"] += 2 * n * weights(attention_matrices(kind.attention, h))
        parts["attention_projections"] += 2 * n * stream_products(model)
        scores = column(scores + n * score_flops(kind.attention, attended_positions(kind.attention, context, causal)))
        scores = column(scores + n * index_score_flops(kind.attention, column(context) * (0.5 if causal else 1.0)))
        one = 2 * n * weights(mlp_matrices(h, block.intermediate, block.gated))
        if isinstance(block, Mlp):
            parts["mlp"] += one
        else:
            parts["experts"] += block.topk * one
            parts["router"] += 2 * n * h * block.experts
            shared = weights(mlp_matrices(h, block.shared_intermediate, block.gated))
            parts["shared_experts"] += 2 * n * (shared + h * block.shared_gate)
    flops = {name: column(value + np.zeros_like(scores)) for name, value in parts.items()}
    return {**flops, "attention_scores": scores, "head": column(2.0 * model.vocab * h + np.zeros_like(scores))}


# --- key/value cache ----------------------------------------------------------------------------------------------


def kv_values_per_token(attention: Attention) -> int:
    """Return the values that one layer caches for one token: 2·kv_heads·head_dim (GQA), kv_lora_rank + rope (MLA).

    >>> kv_values_per_token(Attention("mla", 128, 128, 128, 1536, 512, 128, 64, 128))
    576
    """
    if attention.kind == "mla":
        return attention.kv_lora_rank + attention.qk_rope_head_dim
    return 2 * attention.kv_heads * attention.head_dim


def index_key_bytes(attention: Attention) -> float:
    """Return the bytes of a token's index key in one layer, in FP8 with an FP32 scale for each 128 values; 0 without one.

    ``d_I + 4·d_I/128``, of compressed attention for every entry alone. Source: deepseek-ai/DeepSeek-V3.2-Exp,
    inference/model.py, class Indexer (k_cache, k_scale_cache); vllm-project/vllm,
    vllm/model_executor/models/deepseek_v2.py, class Indexer (k_cache).

    >>> index_key_bytes(Attention("mla", 128, 128, 128, 1536, 512, 128, 64, 128, indexer=Indexer(64, 128, 2048)))
    132.0
    """
    return attention.indexer.head_dim * SCALED_BYTES / pace(attention) if attention.indexer else 0.0


def latent_bytes(attention: Attention, bytes_per_value: float = 2.0) -> float:
    """Return the cache bytes of one token in one layer that sparse attention gathers.

    ``(r_kv + rope)·b``; narrower than BF16, ``r_kv·(b + 4/128) + 2·rope``: a scale for each 128 values, and the rotary part
    stays in BF16. Source: vllm-project/vllm, vllm/v1/attention/backends/mla/flashmla_sparse.py (fp8_ds_mla, 656 bytes).

    >>> v32 = Attention("mla", 128, 128, 128, 1536, 512, 128, 64, 128, indexer=Indexer(64, 128, 2048))
    >>> latent_bytes(v32, 2.0), latent_bytes(v32, 1.0)
    (1152.0, 656.0)
    """
    a, narrow = attention, bytes_per_value < ROTARY_BYTES
    scaled = bytes_per_value + SCALED_BYTES - 1.0 if narrow else bytes_per_value
    return a.kv_lora_rank * scaled + a.qk_rope_head_dim * (ROTARY_BYTES if narrow else bytes_per_value)


def cached_bytes(attention: Attention, bytes_per_value: float = 2.0) -> float:
    """Return the cache bytes of one token in one layer: its values, or a latent and its index key, or its share of an entry.

    >>> dense = Attention("mla", 128, 128, 128, 1536, 512, 128, 64, 128)
    >>> cached_bytes(dense), cached_bytes(replace(dense, indexer=Indexer(64, 128, 2048)))  # (512 + 64)·2, and 132 more
    (1152.0, 1284.0)
    """
    if attention.compression:
        return entry_bytes(attention) / pace(attention) + index_key_bytes(attention)
    if attention.indexer:
        return latent_bytes(attention, bytes_per_value) + index_key_bytes(attention)
    return kv_values_per_token(attention) * bytes_per_value


def kv_bytes_per_token_by_kind(model: Model, bytes_per_value: float = 2.0) -> dict[str, float]:
    """Return the cache bytes per token of ONE layer of each kind, by the kind's name."""
    return {kind.name: cached_bytes(kind.attention, bytes_per_value) for kind in model.layers}


def kv_bytes_per_token(model: Model, bytes_per_value: float = 2.0) -> float:
    """Return the cache bytes of one token over all layers, inside every sliding window.

    A layer with a window stops growing there: `kv_bytes_per_sequence` accounts for it. DeepSeek-V3 at bf16 takes
    (512 + 64) · 2 · 61 = 70,272 bytes, DeepSeek-V3.2 132 · 61 more.
    """
    return sum(kind.count * cached_bytes(kind.attention, bytes_per_value) for kind in model.layers)


def unwindowed(model: Model, positions: float) -> Model:
    """Return the model as sequences of at most `positions` find it: a window that holds them all is none.

    >>> model = Model("one", 8, 8, (LayerKind("a", Attention("gqa", 2, 2, 4, sliding_window=128), Mlp(8), 1),))
    >>> [unwindowed(model, n).layers[0].attention.sliding_window for n in (128, 129)]
    [0, 128]
    """
    if not any(0 < positions <= kind.attention.sliding_window for kind in model.layers):
        return model
    layers = tuple(
        replace(kind, attention=replace(kind.attention, sliding_window=0))
        if positions <= kind.attention.sliding_window
        else kind
        for kind in model.layers
    )
    return replace(model, layers=layers)


def kv_bytes_per_sequence(model: Model, context: ColumnLike, bytes_per_value: float = 2.0) -> Column:
    """Return the cache bytes of a sequence of `context` tokens, windowed layers holding at most their window.

    Layers whose entries grow hold a window too, and what waits for an entry (`parallel.entries.kept_bytes`).
    """
    tokens = column(context)
    held = [
        kind.count
        * (
            cached_bytes(kind.attention, bytes_per_value)
            * (np.minimum(tokens, kind.attention.sliding_window) if kind.attention.sliding_window else tokens)
            + kept_bytes(kind.attention, tokens)
        )
        for kind in model.layers
    ]
    return column(np.sum(held, axis=0))
