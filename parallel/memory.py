"""What a rank holds of a model: parameters of a layer and of a pipeline stage, weights and cache while serving.

What a training step holds beside its parameters is in `parallel.training.footprint`.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from parallel.entries import kept_bytes
from parallel.models import (
    REPLICATED,
    LayerKind,
    Model,
    Moe,
    attention_matrices,
    attention_parameters,
    embedding_parameters,
    expert_parameters,
    final_norm_parameters,
    head_parameters,
    joined_parameters,
    layer_count,
    layer_order,
    mlp_parameters,
    norm_parameters,
    router_parameters,
    shared_parameters,
    stream_parameters,
)
from parallel.operators import position_bytes
from parallel.precision import FORMATS, Recipe
from parallel.priced import total
from parallel.workload import ServeWorkload
from topo.columns import Column, ColumnLike, column

PLACES = ("first", "inner", "last")
WEIGHT_BYTES = 2.0  # BF16 parameters that forward and backward read
UNQUANTISED = (
    "compressor",
    "index_compressor",
    "index_weight",
)  # of compressed attention (safetensors of DeepSeek-V4-Flash)


def attention_shard(model: Model, kind: LayerKind, tp: ColumnLike) -> Column:
    """Attention parameters of one layer on one rank: matrices split by tp, the latent down-projections whole.

    Beyond one rank per key-value head, keys and values are held in copies, as `operators.kv_width` caches them.
    """
    sizes = {name: r * c for name, (r, c) in attention_matrices(kind.attention, model.hidden).items()}
    whole = sum(size for name, size in sizes.items() if name in REPLICATED)
    key_value = sizes.get("key", 0) + sizes.get("value", 0)
    copies = np.maximum(column(tp) / kind.attention.kv_heads, 1.0)
    return whole + (attention_parameters(model, kind) - whole + (copies - 1.0) * key_value) / column(tp)


def attention_bytes(model: Model, kind: LayerKind, tp: ColumnLike, bytes_per_value: float) -> Column:
    """Weight bytes of attention of one layer on one rank: compressors and an index's weights of theirs stay in BF16."""
    sizes = attention_matrices(kind.attention, model.hidden)
    wide = sum(r * c for name, (r, c) in sizes.items() if kind.attention.compression and name in UNQUANTISED)
    return attention_shard(model, kind, tp) * bytes_per_value + wide * (
        WEIGHT_BYTES - min(bytes_per_value, WEIGHT_BYTES)
    )


def small_parameters(model: Model, kind: LayerKind) -> int:
    """Parameters of router, norms and hyper-connections of one layer; the last are in FP32, and count as two each."""
    return router_parameters(model, kind) + norm_parameters(model) + 2 * stream_parameters(model)


def dense_shard(model: Model, kind: LayerKind, tp: ColumnLike) -> Column:
    """Parameters of one layer on one rank, routed experts left out; router, norms and hyper-connections are held whole."""
    split = mlp_parameters(model, kind) + shared_parameters(model, kind)
    whole = router_parameters(model, kind) + norm_parameters(model) + stream_parameters(model)
    return attention_shard(model, kind, tp) + split / column(tp) + whole


def expert_shard(model: Model, kind: LayerKind, ep: ColumnLike, etp: ColumnLike, copies: int = 0) -> Column:
    """Routed expert parameters of one layer on one rank: ``⌈(E + copies)/ep⌉`` experts, split by etp."""
    if not isinstance(kind.mlp, Moe):
        return 0.0 * column(ep)
    return np.ceil((kind.mlp.experts + copies) / column(ep)) * expert_parameters(model, kind) / column(etp)


def stage_layers(model: Model, pp: ColumnLike, place: str) -> Column:
    """Layers on the first, an inner or the last stage when ``L`` layers do not divide over ``pp`` stages.

    The ends carry the embedding and the head, so the last stage is the first to go short of a layer, then the first one.

    >>> from parallel.io import read_model  # 61 layers on 16 stages: 13 of 4, 3 of 3
    >>> [float(stage_layers(read_model("deepseek-v3"), 16, place)) for place in ("first", "inner", "last")]
    [3.0, 4.0, 3.0]
    """
    pp = column(pp)
    most = np.ceil(layer_count(model) / pp)
    full = layer_count(model) - pp * (most - 1.0)  # stages that hold the most
    short = {"first": full <= pp - 2, "inner": np.zeros_like(full, dtype=bool), "last": full <= pp - 1}[place]
    return column(most - short)


@lru_cache(maxsize=64)
def _heaviest_first(model: Model) -> tuple[int, ...]:
    """Return the indices of the layer kinds: those with most parameters first, then those with the longest cache."""

    def weight(index: int) -> tuple[float, float]:
        kind = model.layers[index]
        held = float(dense_shard(model, kind, 1) + expert_shard(model, kind, 1, 1))
        return -held, -(kind.attention.sliding_window or np.inf)

    return tuple(sorted(range(len(model.layers)), key=weight))


def fullest_stage(model: Model, pp: ColumnLike, place: str = "inner") -> list[Column]:
    """Layers of each kind on the fullest stage (or another place), `stage_layers` of them.

    Those with most parameters first, then those with the longest cache. Kinds that alternate (`Model.pattern`) stay mixed: a
    stage has no more of a kind than so many layers in a row have.
    """
    stage = stage_layers(model, pp, place)
    left, found = stage, [stage * 0.0 for _ in model.layers]
    for index in _heaviest_first(model):
        most = _most_in_a_row(model, index)[stage.astype(int)] if model.pattern else column(model.layers[index].count)
        found[index] = np.minimum(left, most)
        left = left - found[index]
    return found


@lru_cache(maxsize=256)
def _most_in_a_row(model: Model, kind: int) -> Column:
    """Return how many layers of a kind 0, 1, 2 and so on layers in a row have at most."""
    before = np.concatenate([[0.0], np.cumsum([index == kind for index in layer_order(model)])])
    return np.array([np.max(before[size:] - before[: len(before) - size]) for size in range(len(before))])


def end_parameters(model: Model, tp: ColumnLike, pp: ColumnLike) -> Column:
    """Embedding and head on the stage that holds more of them, both where there is one stage; the last norm whole.

    So is what joins residual streams.
    """
    table, out = float(embedding_parameters(model)), float(head_parameters(model))
    split = np.where(column(pp) > 1, max(table, out), table + out)
    return split / column(tp) + final_norm_parameters(model) + joined_parameters(model)


def stage_parameters(
    model: Model, cols: Mapping[str, Column], layers: Sequence[Column] | None = None
) -> dict[str, Column]:
    """Dense and expert parameters per rank of the fullest stage, and its layers (`layers` of each kind, where placed)."""
    layers = layers or fullest_stage(model, cols["pp"])
    placed = list(zip(layers, model.layers, strict=True))
    dense = total(n * dense_shard(model, kind, cols["tp"]) for n, kind in placed)
    experts = total(n * expert_shard(model, kind, cols["ep"], cols["etp"]) for n, kind in placed)
    return {
        "dense parameters": dense + end_parameters(model, cols["tp"], cols["pp"]),
        "expert parameters": experts,
        "stage layers": total(layers),
    }


def serving_weights(model: Model, cols: Mapping[str, Column], recipe: Recipe, copies: int = 0) -> Column:
    """Weight bytes per rank of the fullest stage, each role in its own format, with so many copies of experts.

    Routed experts spread over all ``max(ep, tp·cp)`` ranks of the stage, as `parallel.serving.phases` prices them; what else
    there is the ranks that share a prompt (`cp`) hold each for itself.
    """
    spread = np.maximum(cols["ep"], cols["tp"] * cols.get("cp", np.ones_like(cols["tp"])))
    layers = fullest_stage(model, cols["pp"])
    width = {role: FORMATS[getattr(recipe, role)].bytes_per_value for role in ("attention", "mlp", "experts", "head")}
    total = end_parameters(model, cols["tp"], cols["pp"]) * width["head"]
    for n, kind in zip(layers, model.layers, strict=True):
        feed = (mlp_parameters(model, kind) + shared_parameters(model, kind)) / cols["tp"]
        small = small_parameters(model, kind) * WEIGHT_BYTES
        total = total + n * (
            attention_bytes(model, kind, cols["tp"], width["attention"])
            + feed * width["mlp"]
            + small
            + expert_shard(model, kind, spread, 1.0, copies) * width["experts"]
        )
    return total


def cache_bytes(
    model: Model, cols: Mapping[str, Column], sequences: Column, context: ColumnLike, work: ServeWorkload
) -> Column:
    """Key-value cache per rank of the fullest stage for `sequences` of `context` tokens each.

    Pipeline stages divide the weights but not the cache: each stage holds fewer layers of pp times as many sequences.
    """
    layers = fullest_stage(model, cols["pp"])
    total = column(0.0)
    for n, kind in zip(layers, model.layers, strict=True):
        seen = np.minimum(context, kind.attention.sliding_window) if kind.attention.sliding_window else column(context)
        held = seen * position_bytes(kind.attention, cols["tp"], work.kv_bytes) + kept_bytes(kind.attention, context)
        total = total + n * sequences * held
    return total
