"""Operators of one serving pass: what the linear layers do to its tokens, and what attention reads for its sequences.

Symbols: ``t`` tokens of one attention group in the pass, decoding and prefilling ones together; ``tp`` ranks of a group,
``dp`` groups (attention-DP), ``etp`` and ``ep`` the same ``tp·dp = etp·ep`` ranks as the routed experts see them. What
depends on the tokens alone stands apart from what depends on the cache, so that a pass is a curve over tokens plus a
read of the cache (`parallel.serving.passes`). Each list names every kernel that an engine launches: one that fuses two
names one, since in a captured graph a small pass costs what its kernels cost to start.
"""

from collections.abc import Callable
from dataclasses import dataclass

from parallel.compressed import stream_operators
from parallel.hotexperts import BALANCED, UNTOLD, HotExperts
from parallel.models import Attention, LayerKind, Mlp, Moe
from parallel.operators import ACTIVATION_BYTES, Operator, kv_width, qk_width, v_width
from parallel.serving.compressed import compressed_linear
from parallel.serving.indexed import dealers, index_linear
from topo.columns import ColumnLike, column

STATE_BYTES = 4.0  # a recurrent state is kept in FP32 (transformers, modeling_qwen3_next.py)
CORE = ("scores", "combine")
"""Kernels of attention over a cache: the splits of a sequence, and their sum (FlashDecoding)."""


@dataclass(frozen=True, slots=True)
class CacheRead:
    """What a token costs at attention: per cached position that it sees, and whatever the length.

    Attributes
    ----------
    values : cached values per position and rank
    flops : FLOPs per position and rank
    state_bytes : bytes of a recurrent state, read and written
    window : positions that it sees at most; 0 is all
    """

    values: float
    flops: float
    state_bytes: float
    window: int


def _vector(name: str, size_bytes: ColumnLike = 0.0) -> Operator:
    return Operator(name, "vector", "vector", bytes=size_bytes)


def gqa_linear(att: Attention, h: float, t: ColumnLike, tp: float) -> list[Operator]:
    """Query, key and value in one GEMM, norms of queries and keys, rotary embedding with the cache write, the output.

    >>> names = [op.name for op in gqa_linear(Attention("gqa", heads=64, kv_heads=8, head_dim=128), 8192, 1, 8)]
    >>> names
    ['qkv', 'rope', 'scores', 'combine', 'attention out']
    """
    t = column(t)
    heads, kv = max(att.heads / tp, 1.0), max(att.kv_heads / tp, 1.0)
    qkv = (heads + 2.0 * kv) * att.head_dim
    wide = 2.0 * ACTIVATION_BYTES * t * qkv
    return [
        Operator("qkv", "gemm", "attention", m=t, n=qkv, k=h),
        *([_vector("query-key norm", wide)] if att.qk_norm != "none" else []),
        _vector("rope", wide),
        *(_vector(name) for name in CORE),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=heads * att.head_dim),
    ]


def mla_linear(att: Attention, h: float, t: ColumnLike, tp: float) -> list[Operator]:
    """Multi-head latent attention with the up-projections absorbed; not absorbed, they cost as many FLOPs.

    Source: DeepSeek-V2 2405.04434 §2.1.2.
    """
    t = column(t)
    heads, latent, rope, nope = att.heads / tp, att.kv_lora_rank, att.qk_rope_head_dim, att.qk_nope_head_dim
    wide = 2.0 * ACTIVATION_BYTES * t
    return [
        Operator("mla down", "gemm", "attention", m=t, n=att.q_lora_rank + latent + rope, k=h),
        _vector("query latent norm", wide * att.q_lora_rank),
        _vector("key-value latent norm", wide * latent),
        Operator("q up", "gemm", "attention", m=t, n=heads * (nope + rope), k=att.q_lora_rank or h),
        Operator("absorb k", "grouped_gemm", "attention", "head", m=t, n=latent, k=nope, groups=heads),
        _vector("rope", wide * heads * rope),
        _vector("cache write", wide * (latent + rope)),
        *index_linear(att, h, t),
        *(_vector(name) for name in CORE),
        Operator("absorb v", "grouped_gemm", "attention", "head", m=t, n=att.v_head_dim, k=latent, groups=heads),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=heads * att.v_head_dim),
    ]


def delta_linear(att: Attention, h: float, t: ColumnLike, tp: float) -> list[Operator]:
    """Gated delta rule: queries, keys, values and gates in two GEMMs, a short convolution, the state, the gated norm.

    Source: Yang et al. 2412.06464 §3; kernels as in transformers, modeling_qwen3_next.py.
    """
    t = column(t)
    keys, values = att.kv_heads * att.head_dim / tp, att.heads * att.head_dim / tp
    wide = 2.0 * ACTIVATION_BYTES * t
    return [
        Operator("delta in", "gemm", "attention", m=t, n=2.0 * (keys + values), k=h),
        Operator("delta gates", "gemm", "attention", "head", m=t, n=2.0 * att.heads / tp, k=h),
        _vector("split", wide * 2.0 * (keys + values)),
        _vector("convolution", wide * (2.0 * keys + values)),
        _vector("convolution state", wide * (2.0 * keys + values)),
        _vector("query norm", wide * keys),
        _vector("key norm", wide * keys),
        _vector("gating"),
        _vector("state"),
        _vector("gated norm", 1.5 * wide * values),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=values),
    ]


LINEAR: dict[str, Callable[[Attention, float, ColumnLike, float], list[Operator]]] = {
    "gqa": gqa_linear,
    "mla": mla_linear,
    "delta": delta_linear,
    "compressed": compressed_linear,
}


def kv_copies(att: Attention, tp: float) -> float:
    """Ranks that hold the same cache: all that share the latent of MLA, or more than there are key-value heads.

    >>> gqa = Attention("gqa", heads=64, kv_heads=8, head_dim=128)
    >>> kv_copies(gqa, 4), kv_copies(gqa, 16)
    (1.0, 2.0)
    """
    return tp if att.kind in ("mla", "compressed") else max(tp / att.kv_heads, 1.0)


def dealt_ranks(att: Attention, tp: float) -> float:
    """Ranks that can deal the cache that they would hold copies of among them; fewer under an indexer, one of entries."""
    if att.compression:
        return 1.0
    return dealers(att, tp) if att.indexer else kv_copies(att, tp)


def cache_read(att: Attention, tp: float, dcp: float = 1.0) -> CacheRead:
    """Return what one token costs at attention; every head meets the whole latent of MLA (absorbed).

    Positions dealt over `dcp` ranks: each holds and reads one in dcp, for the heads of all of them.

    >>> cache_read(Attention("gqa", heads=64, kv_heads=8, head_dim=128), 8)
    CacheRead(values=256.0, flops=4096.0, state_bytes=0.0, window=0)
    """
    if att.kind == "delta":
        return CacheRead(0.0, 0.0, 2.0 * STATE_BYTES * att.heads / tp * att.head_dim**2, 0)
    width = 2.0 * att.kv_lora_rank + att.qk_rope_head_dim if att.kind == "mla" else 2.0 * att.head_dim
    flops = 2.0 * max(att.heads / tp, 1.0) * width
    return CacheRead(float(kv_width(att, tp)) / dcp, flops, 0.0, att.sliding_window)


def prompt_flops(att: Attention, tp: float) -> float:
    """FLOPs per (token, position seen) of a prompt, not absorbed: ``2·heads/tp·(d_qk + d_v)``; none for a state.

    >>> prompt_flops(Attention("gqa", heads=64, kv_heads=8, head_dim=128), 8)
    4096.0
    """
    return 0.0 if att.kind == "delta" else 2.0 * max(att.heads / tp, 1.0) * (qk_width(att) + v_width(att))


def mlp_linear(mlp: Mlp, h: float, t: ColumnLike, tp: float, term: str = "mlp") -> list[Operator]:
    """Up and gate in one GEMM, the activation, down."""
    t, f = column(t), mlp.intermediate / tp
    up = 2.0 * f if mlp.gated else f
    return [
        Operator(f"{term} up", "gemm", term, "mlp", m=t, n=up, k=h),
        _vector(f"{term} activation", ACTIVATION_BYTES * t * (up + f)),
        Operator(f"{term} down", "gemm", term, "mlp", m=t, n=h, k=f),
    ]


def moe_linear(
    moe: Moe, h: float, t: ColumnLike, dp: float, etp: float, ep: float, hot: HotExperts = UNTOLD
) -> list[Operator]:
    """Router, top-k, the sort of rows by expert, grouped GEMMs of one rank's experts, the weighted sum.

    The tokens of all attention groups choose among all experts, and the pass waits for the rank that has most of them.
    """
    t = column(t)
    hit, rows = hot.busiest_hit(moe, t * dp, ep), hot.busiest_rows(moe, t * dp, ep)
    f = moe.intermediate / etp
    up = 2.0 * f if moe.gated else f
    wide = ACTIVATION_BYTES * rows
    return [
        Operator("router", "gemm", "experts", "head", m=t, n=moe.experts, k=h),
        _vector("top-k", 8.0 * t * moe.experts),
        _vector("sort"),
        _vector("permute", 2.0 * wide * h),
        _vector("cast in"),
        Operator("experts up", "grouped_gemm", "experts", "experts", rows / hit, up, h, hit),
        _vector("experts activation", wide * (up + f)),
        Operator("experts down", "grouped_gemm", "experts", "experts", rows / hit, h, f, hit),
        _vector("sum", wide * h),
    ]


def grouped_experts(moe: Moe, h: float, t: ColumnLike, ranks: ColumnLike, hot: HotExperts = BALANCED) -> list[Operator]:
    """Router, permutation and one grouped GEMM each way of a rank's experts, of which redundant copies fill up the slots.

    `t` is the tokens that each of the `ranks` brings; every one gets back ``t·topk`` rows, the busiest some more.
    """
    t, ranks = column(t), column(ranks)
    hit, rows = hot.busiest_hit(moe, t * ranks, ranks), hot.busiest_rows(moe, t * ranks, ranks)
    f = moe.intermediate
    up = 2.0 * f if moe.gated else f
    wide = ACTIVATION_BYTES * rows
    return [
        Operator("router", "gemm", "experts", "attention", m=t, n=moe.experts, k=h),
        _vector("permute", 4.0 * wide * h),
        Operator("experts up", "grouped_gemm", "experts", "experts", rows / hit, up, h, hit),
        _vector("experts activation", wide * (up + f)),
        Operator("experts down", "grouped_gemm", "experts", "experts", rows / hit, h, f, hit),
    ]


def shared_expert(moe: Moe, h: float, t: ColumnLike, tp: float) -> list[Operator]:
    """Return the operators of the shared experts; engines run them on a stream of their own."""
    if not moe.shared_intermediate:
        return []
    return mlp_linear(Mlp(moe.shared_intermediate, moe.gated), h, t, tp, term="shared expert")


def layer_linear(
    kind: LayerKind, h: float, t: ColumnLike, tp: float, dp: float, etp: float, ep: float, hot: HotExperts = UNTOLD,
    *, streams: int = 1,
) -> tuple[list[Operator], list[Operator]]:  # fmt: skip
    """Return the operators of a layer in their order, cache reads left out, and those that start beside them.

    Both norms hold the residual add; hyper-connections of several `streams` stand in their place. A reduction over ranks is a
    kernel too: `parallel.serving.passes` prices it.
    """
    norm = [_vector("norm", 4.0 * ACTIVATION_BYTES * column(t) * h)]
    around = norm if streams == 1 else stream_operators(h, t, streams)
    first = [*around, *LINEAR[kind.attention.kind](kind.attention, h, t, tp), *around]
    if isinstance(kind.mlp, Mlp):
        return [*first, *mlp_linear(kind.mlp, h, t, tp)], []
    return [*first, *moe_linear(kind.mlp, h, t, dp, etp, ep, hot)], shared_expert(kind.mlp, h, t, tp)
