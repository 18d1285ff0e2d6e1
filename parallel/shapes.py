"""What a transformer is made of: shapes as frozen records, and the weight matrices that follow from them.

A `Model` is a tuple of layer kinds (dense and mixture-of-experts layers, windowed and full attention) with how many
there are of each. `parallel.models` counts parameters, FLOPs and cache from these records and hands them on, so
that most readers import from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Any

from topo.errors import Fault, SpecError

#: Vectors a norm of width `n` holds, in multiples of `n`: RMSNorm scales, LayerNorm scales and shifts.
NORMS: Mapping[str, int] = {"rmsnorm": 1, "layernorm": 2}

#: Where the query-key norms act: nowhere, on each head (one vector of `head_dim` for all), or on the whole projection.
QK_NORMS = ("none", "head", "full")

#: Matrices that every tensor-parallel rank holds whole: the latent down-projections of MLA (DeepSeek-V2 §2.1), and those of
#: an indexer (vllm-project/vllm, vllm/model_executor/models/deepseek_v2.py, class Indexer: ReplicatedLinear).
REPLICATED = frozenset(
    {"query_down", "key_value_down", "index_query", "index_key", "index_weight", "compressor", "index_compressor"}
)

Shape = tuple[int, int]  # (inputs, outputs) of one weight matrix


def _whole(record: Any, minimum: int, *fields: str) -> list[Fault]:
    """Return a fault for each field of `record` that is not an integer of at least `minimum`."""
    faults = []
    for field in fields:
        value = getattr(record, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            problem = f"must be an integer of at least {minimum}"
            faults.append(Fault(field, value, problem, f"write a whole number, {minimum} or more"))
    return faults


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise SpecError(faults)


@dataclass(frozen=True, slots=True)
class Indexer:
    """Chooses the positions that a token attends to (DeepSeek Sparse Attention): `topk` of them, by their index scores.

    ``I(t, s) = Σ_j w(t, j)·ReLU(q(t, j)·k(s))`` over `heads` small queries of width `head_dim`, made of the query latent, and
    one key for each position (DeepSeek-V3.2 2512.02556 §2.1, eq. 1; deepseek-ai/DeepSeek-V3.2-Exp, inference/model.py, class
    Indexer). One of no heads scores nothing: its layer attends to what the last one before it chose, and has no index weights
    and keys (`indexer_types: shared`; IndexCache 2603.12201; vllm-project/vllm, vllm/model_executor/models/deepseek_v2.py).
    """

    heads: int
    head_dim: int
    topk: int

    def __post_init__(self) -> None:
        least = 0 if self.heads == 0 and self.head_dim == 0 else 1
        _raise(_whole(self, 1, "topk") + _whole(self, least, "heads", "head_dim"))

    @property
    def scores(self) -> bool:
        """Whether the layer scores positions itself."""
        return self.heads > 0


@dataclass(frozen=True, slots=True)
class Compression:
    """Attention to the last `window` positions, and before them to entries that stand for `ratio` positions each (DeepSeek-V4).

    One vector is key and value of all heads. An entry is a gated sum over its positions: with an indexer (CSA) over those
    of the entry before too, so that keys and gates have twice the width; without (HCA) every entry is attended to. Ratio 0 is
    the window alone. The heads' outputs pass in `groups` to `rank` values each, and together to the residual stream.
    Source: DeepSeek-V4 2606.19348 §2.3; huggingface/transformers,
    src/transformers/models/deepseek_v4/modular_deepseek_v4.py.
    """

    ratio: int
    window: int
    groups: int
    rank: int

    def __post_init__(self) -> None:
        _raise(_whole(self, 0, "ratio") + _whole(self, 1, "window", "groups", "rank"))


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention block: grouped-query (`gqa`, multi-head when `kv_heads == heads`), multi-head latent (`mla`), recurrent.

    The recurrent one is the gated delta rule (`delta`): `heads` of values, `kv_heads` of keys, a state instead of a cache.
    `compressed` is DeepSeek-V4's: latent queries over one key-value vector, of which `compression` says how far it reaches.
    `bias` is on the query, key and value projections, `output_bias` on the output projection; `sliding_window` is
    the number of positions a token sees (0: all); `sinks` adds one learned logit per head (gpt-oss); `indexer` chooses the
    positions that a token attends to, whose latents it needs.

    Raises
    ------
    SpecError
        If a size is not positive, `kv_heads` does not divide `heads`, a latent size is missing, an indexer stands beside
        other than latent queries, or compression is not what its kind needs.

    Examples
    --------
    >>> Attention("gqa", heads=30, kv_heads=8, head_dim=128)
    Traceback (most recent call last):
    ...
    topo.errors.SpecError: kv_heads = 8: does not divide the 30 query heads. choose a divisor of 30.
    """

    kind: str
    heads: int
    kv_heads: int
    head_dim: int
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    bias: bool = False
    output_bias: bool = False
    sliding_window: int = 0
    qk_norm: str = "none"
    sinks: bool = False
    indexer: Indexer | None = None
    compression: Compression | None = None

    def __post_init__(self) -> None:
        faults = _whole(self, 1, "heads", "kv_heads", "head_dim")
        faults += _whole(self, 0, "q_lora_rank", "sliding_window")
        if self.kind not in _MATRICES:
            faults.append(Fault("kind", self.kind, "unknown kind of attention", f"write one of {', '.join(_MATRICES)}"))
        if self.kind == "mla":
            faults += _whole(self, 1, "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        if self.qk_norm not in QK_NORMS:
            faults.append(Fault("qk_norm", self.qk_norm, "unknown query-key norm", f"write one of {QK_NORMS}"))
        faults += self._compression_faults()
        pooled = self.compression is not None and self.compression.ratio > 0
        latent = (self.kind == "mla" or pooled) and self.q_lora_rank and not self.sliding_window
        if self.indexer and not latent:
            problem = "indexes positions of latent attention with a query latent and no window (DeepSeek-V3.2 2512.02556 §2.1)"
            faults.append(
                Fault("indexer", self.indexer.topk, problem, "leave the indexer out, or give the latent sizes")
            )
        if not faults and self.heads % self.kv_heads:
            problem = f"does not divide the {self.heads} query heads"
            faults.append(Fault("kv_heads", self.kv_heads, problem, f"choose a divisor of {self.heads}"))
        _raise(faults)

    def _compression_faults(self) -> list[Fault]:
        """Return what is wrong with compressed attention, or with compression beside any other."""
        if self.kind != "compressed" or self.compression is None:
            problem = "goes with the kind `compressed`, and that with it"
            wrong = (self.kind == "compressed") != (self.compression is not None)
            return [Fault("compression", self.kind, problem, "give both or neither")] if wrong else []
        faults = _whole(self, 1, "q_lora_rank", "qk_rope_head_dim")
        if self.kv_heads != 1 or self.qk_rope_head_dim >= self.head_dim:
            problem = "is one vector, of which the rotary part is less than the whole"
            faults.append(Fault("kv_heads", self.kv_heads, problem, "write 1, and a smaller qk_rope_head_dim"))
        if self.heads % self.compression.groups:
            problem = f"do not divide the {self.heads} heads"
            faults.append(Fault("groups", self.compression.groups, problem, f"choose a divisor of {self.heads}"))
        return faults


@dataclass(frozen=True, slots=True)
class Mlp:
    """A dense feed-forward block: up and down matrices, and a gate when `gated` (SwiGLU, GeGLU)."""

    intermediate: int
    gated: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        _raise(_whole(self, 1, "intermediate"))


@dataclass(frozen=True, slots=True)
class Moe:
    """A mixture-of-experts block: `experts` routed experts of which a token visits `topk`, and shared ones for all.

    `shared_intermediate` is the width of all shared experts together. With `groups` > 1 the experts are split into
    groups and a token may visit only `topk_groups` of them (DeepSeek-V3 §2.1.2). `router_bias` is one value per
    expert, `shared_gate` the one-column gate on the shared expert (Qwen2-MoE).

    Raises
    ------
    SpecError
        If a size is not positive, `topk` exceeds the experts a token may reach, or the groups do not divide.
    """

    experts: int
    topk: int
    intermediate: int
    shared_intermediate: int = 0
    gated: bool = True
    groups: int = 1
    topk_groups: int = 1
    bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False

    def __post_init__(self) -> None:
        faults = _whole(self, 1, "experts", "topk", "intermediate", "groups", "topk_groups")
        faults += _whole(self, 0, "shared_intermediate")
        if not faults:
            if self.experts % self.groups:
                problem = f"does not divide the {self.experts} experts"
                faults.append(Fault("groups", self.groups, problem, f"choose a divisor of {self.experts}"))
            if self.topk_groups > self.groups:
                problem = f"exceeds the {self.groups} expert groups"
                faults.append(Fault("topk_groups", self.topk_groups, problem, f"write {self.groups} or less"))
            reach = min(self.topk_groups, self.groups) * (self.experts // self.groups)
            if self.topk > reach:
                problem = f"exceeds the {reach} experts that a token may reach"
                faults.append(Fault("topk", self.topk, problem, f"write {reach} or less"))
        _raise(faults)


@dataclass(frozen=True, slots=True)
class LayerKind:
    """`count` layers of one shape."""

    name: str
    attention: Attention
    mlp: Mlp | Moe
    count: int

    def __post_init__(self) -> None:
        _raise(_whole(self, 1, "count"))


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer.

    `layers` are stacked in the order given, unless `pattern` names the repeating order of kinds by index: with
    kinds (windowed × 18, full × 18), the pattern (0, 1) alternates them. `learned_positions` are rows of a position
    table, `embedding_norm` a norm right after the embedding (BLOOM), `norms_per_layer` the norms on the residual
    stream, `mtp_layers` the multi-token-prediction modules (each a layer of the last kind; DeepSeek-V3 §2.2).
    `streams` are the residual streams that hyper-connections mix around each block (DeepSeek-V4; Xie et al. 2512.24880),
    `hash_layers` the first layers that route by token id, whose routers have no bias.
    `native_precision` is that of the published weights, `expert_precision` that of the routed experts where it
    differs ("" where not); `published_parameters` what the authors state; `note` a warning from the reader.

    Raises
    ------
    SpecError
        If a size is not positive, two kinds share a name, or the pattern does not give the counts.
    """

    name: str
    hidden: int
    vocab: int
    layers: tuple[LayerKind, ...]
    tied_embeddings: bool = False
    learned_positions: int = 0
    mtp_layers: int = 0
    norm: str = "rmsnorm"
    norms_per_layer: int = 2
    embedding_norm: bool = False
    pattern: tuple[int, ...] = ()
    streams: int = 1
    hash_layers: int = 0
    native_precision: str = "bf16"
    expert_precision: str = ""
    published_parameters: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        faults = _whole(self, 1, "hidden", "vocab") + _whole(self, 0, "learned_positions", "mtp_layers")
        faults += _whole(self, 0, "norms_per_layer", "hash_layers") + _whole(self, 1, "streams")
        if not self.layers:
            faults.append(Fault("layers", (), "a model needs at least one layer", "add a layer kind"))
        if len({kind.name for kind in self.layers}) < len(self.layers):
            faults.append(Fault("layers", [k.name for k in self.layers], "names repeat", "name each kind once"))
        if self.norm not in NORMS:
            faults.append(Fault("norm", self.norm, "unknown norm", f"write one of {', '.join(NORMS)}"))
        if self.pattern and not self._pattern_fits():
            problem = "does not repeat to the counts of the layer kinds"
            faults.append(Fault("pattern", self.pattern, problem, "list indices of `layers` in stacking order"))
        _raise(faults)

    def _pattern_fits(self) -> bool:
        order = list(islice(cycle(self.pattern), layer_count(self)))
        return [order.count(index) for index in range(len(self.layers))] == [kind.count for kind in self.layers]


def module_kind(model: Model) -> LayerKind:
    """Return the kind of layer in a multi-token-prediction module: the last one, and of an index of its own if of any.

    Of compressed attention it has the window alone. Source: vllm-project/vllm,
    vllm/model_executor/models/deepseek_v2.py (is_mtp_layer), vllm/models/deepseek_v4/attention.py (compress_ratio).
    """
    last = [kind for kind in model.layers if not kind.attention.indexer or kind.attention.indexer.scores][-1]
    held = last.attention.compression
    if held is None:
        return last
    alone = replace(held, ratio=0)
    return replace(last, attention=replace(last.attention, compression=alone, indexer=None, sliding_window=held.window))


# --- order and number of layers -----------------------------------------------------------------------------------


def layer_count(model: Model) -> int:
    """Return the number of layers, multi-token-prediction modules not counted."""
    return sum(kind.count for kind in model.layers)


def layer_order(model: Model) -> tuple[int, ...]:
    """Return, for every layer from the first to the last, the index of its kind in `model.layers`.

    >>> dense, moe = Mlp(8), Moe(experts=4, topk=2, intermediate=8)
    >>> kinds = [LayerKind(n, Attention("gqa", 2, 2, 4), m, 2) for n, m in (("dense", dense), ("moe", moe))]
    >>> layer_order(Model("m", 8, 16, tuple(kinds))), layer_order(Model("m", 8, 16, tuple(kinds), pattern=(0, 1)))
    ((0, 0, 1, 1), (0, 1, 0, 1))
    """
    if model.pattern:
        return tuple(islice(cycle(model.pattern), layer_count(model)))
    return tuple(index for index, kind in enumerate(model.layers) for _ in range(kind.count))


# --- weight matrices ----------------------------------------------------------------------------------------------


def _gqa_matrices(attention: Attention, hidden: int) -> dict[str, Shape]:
    query, key_value = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    return {
        "query": (hidden, query),
        "key": (hidden, key_value),
        "value": (hidden, key_value),
        "output": (query, hidden),
    }


def _mla_matrices(attention: Attention, hidden: int) -> dict[str, Shape]:
    a, rank = attention, attention.q_lora_rank
    query = a.heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    down = {"query_down": (hidden, rank), "query_up": (rank, query)} if rank else {"query": (hidden, query)}
    return {
        **down,
        "key_value_down": (hidden, a.kv_lora_rank + a.qk_rope_head_dim),
        "key_value_up": (a.kv_lora_rank, a.heads * (a.qk_nope_head_dim + a.v_head_dim)),
        "output": (a.heads * a.v_head_dim, hidden),
        **(_index_matrices(a.indexer, rank, hidden) if a.indexer and a.indexer.scores else {}),
    }


def _index_matrices(indexer: Indexer, rank: int, hidden: int) -> dict[str, Shape]:
    return {
        "index_query": (rank, indexer.heads * indexer.head_dim),
        "index_key": (hidden, indexer.head_dim),
        "index_weight": (hidden, indexer.heads),
    }


def _delta_matrices(attention: Attention, hidden: int) -> dict[str, Shape]:
    keys, values = attention.kv_heads * attention.head_dim, attention.heads * attention.head_dim
    return {
        "query_key": (hidden, 2 * keys),
        "value_gate": (hidden, 2 * values),
        "step_gates": (hidden, 2 * attention.heads),
        "output": (values, hidden),
    }


def _compressed_matrices(attention: Attention, hidden: int) -> dict[str, Shape]:
    a, held, rank = attention, attention.compression, attention.q_lora_rank
    if held is None:
        return {}
    out = held.groups * held.rank
    found = {
        "query_down": (hidden, rank),
        "query_up": (rank, a.heads * a.head_dim),
        "key_value_down": (hidden, a.head_dim),
        "output_groups": (a.heads * a.head_dim // held.groups, out),
        "output": (out, hidden),
    }
    if held.ratio:
        found["compressor"] = (hidden, 2 * pooled_width(a, a.head_dim))
    if a.indexer:
        found["index_query"] = (rank, a.indexer.heads * a.indexer.head_dim)
        found["index_compressor"] = (hidden, 2 * pooled_width(a, a.indexer.head_dim))
        found["index_weight"] = (hidden, a.indexer.heads)
    return found


def pooled_width(attention: Attention, width: int) -> int:
    """Width of the keys that one entry of `width` is made of, and of their gates: twice it where entries overlap (CSA)."""
    return 2 * width if attention.indexer else width


_MATRICES = {
    "gqa": _gqa_matrices,
    "mla": _mla_matrices,
    "delta": _delta_matrices,
    "compressed": _compressed_matrices,
}


def attention_matrices(attention: Attention, hidden: int) -> dict[str, Shape]:
    """Return the (inputs, outputs) of each weight matrix of an attention block, by name, in the order of use.

    Names in `REPLICATED` are not divided by tensor parallelism. Source: Ainslie 2023 (GQA); DeepSeek-V2 §2.1 (MLA).

    >>> attention_matrices(Attention("gqa", heads=32, kv_heads=8, head_dim=128), 4096)["key"]
    (4096, 1024)
    """
    return _MATRICES[attention.kind](attention, hidden)


def mlp_matrices(hidden: int, intermediate: int, gated: bool) -> dict[str, Shape]:
    """Return the (inputs, outputs) of each weight matrix of a feed-forward block (dense, shared or one expert).

    >>> list(mlp_matrices(4096, 14336, gated=True))
    ['gate', 'up', 'down']
    """
    gate = {"gate": (hidden, intermediate)} if gated else {}
    return {**gate, "up": (hidden, intermediate), "down": (intermediate, hidden)}


def weights(matrices: Mapping[str, Shape]) -> int:
    """Return the values that a set of weight matrices holds."""
    return sum(inputs * outputs for inputs, outputs in matrices.values())
