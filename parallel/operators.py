"""A layer as an ordinary list of operators whose shapes are columns.

Symbols: ``t`` tokens of one rank and micro-batch (already divided by cp), ``h`` hidden size, ``f`` MLP width, ``tp`` tensor
parallel size with sequence parallelism (norms and residuals are sharded over tp, Korthikanti 2205.05198). A GEMM is
``C[m, n] = A[m, k] · B[k, n]``. Activations are BF16 between operators; what backward keeps
of them is counted in `parallel.training.activations`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parallel.models import (
    Attention,
    Mlp,
    Moe,
    attended_positions,
    cached_bytes,
    index_key_bytes,
    index_score_flops,
    latent_bytes,
)
from topo.columns import Column, ColumnLike, column

ACTIVATION_BYTES = 2.0  # BF16 between operators
UNFUSED_SCORE_BYTES = 8.0  # softmax reads 2, writes 2; dropout reads 2, writes 2 and a mask of 1
ROUTER_PASSES = 24.0  # bytes per token and expert of the gate: FP32 scores, top-k, probabilities and the balance loss
ROUTER_KERNELS = 12.0  # softmax or sigmoid, bias, top-k, scatter, sums, balance loss (Megatron-Core, moe_utils.py)
PERMUTE_KERNELS = 6.0  # row maps, permute before and after the exchange, unpermute twice (Megatron-Core, moe_utils.py)
UNFUSED_KERNELS = 3.0  # softmax, dropout, a copy
SCORE_BYTES = 4.0  # an index score is FP32: one kernel writes it, the next one reads it (DeepGEMM, fp8_mqa_logits)
LEAST_HEADS = {"hopper": 64.0}  # query heads of FlashMLA's sparse kernels: fewer are padded (vLLM, flashmla_sparse.py)
UNFUSED_SAVED_BYTES = 5.0  # softmax out 2, dropout mask 1, dropout out 2 per score (Korthikanti 2205.05198 §4.1)


@dataclass(frozen=True, slots=True)
class Operator:
    """One kernel: a GEMM, a grouped GEMM, an attention core or a memory-bound (vector) operation.

    Attributes
    ----------
    kind : `gemm`, `grouped_gemm`, `attention`, `latent attention` or `vector`; the key of the pricing table
    term : the named cost that its time is booked under
    role : `attention`, `mlp`, `experts` or `head`; the recipe turns it into a number format; `indexer` is FP8
    m, n, k, groups : GEMM shape; `groups` equal GEMMs in one launch
    flops, bytes : work and traffic of an attention core or a vector operation
    modules : parts of a layer, of `parallel.training.activations.MODULES`, whose selective recomputation redoes it
    weights : whether the second operand of a product is a weight; else it is an activation with a gradient of its own
    column_parallel : split by output columns: its backward hides the reduction of its input's gradient
    launches : kernels forward; `parallel.roofline.BACKWARD_KERNELS` says how many backward launches for each
    backward_passes : bytes that a vector operation moves backward, over those forward
    """

    name: str
    kind: str
    term: str
    role: str = "attention"
    m: ColumnLike = 1.0
    n: ColumnLike = 1.0
    k: ColumnLike = 1.0
    groups: ColumnLike = 1.0
    flops: ColumnLike = 0.0
    bytes: ColumnLike = 0.0
    modules: tuple[str, ...] = ()
    weights: bool = True
    column_parallel: bool = False
    launches: ColumnLike = 1.0
    backward_passes: ColumnLike = 1.0


def gemm_flops(op: Operator) -> Column:
    """Multiply-adds of a GEMM operator, counted as two operations: ``2·groups·m·n·k``.

    >>> float(gemm_flops(Operator("x", "gemm", "mlp", m=2, n=3, k=5)))
    60.0
    """
    return 2.0 * column(op.groups) * column(op.m) * column(op.n) * column(op.k)


def qk_width(att: Attention) -> int:
    """Width of one head's query and key.

    >>> qk_width(Attention("gqa", heads=32, kv_heads=8, head_dim=128))
    128
    """
    return att.qk_nope_head_dim + att.qk_rope_head_dim if att.kind == "mla" else att.head_dim


def v_width(att: Attention) -> int:
    """Width of one head's value."""
    return att.v_head_dim if att.kind == "mla" else att.head_dim


def kv_width(att: Attention, tp: ColumnLike) -> Column:
    """Return the cached values per token and layer on one rank: GQA heads are split over tp, the MLA latent is not.

    >>> float(kv_width(Attention("gqa", heads=32, kv_heads=8, head_dim=128), 4))
    512.0
    """
    if att.kind == "mla":
        return column(att.kv_lora_rank + att.qk_rope_head_dim) + 0.0 * column(tp)
    return 2.0 * att.head_dim * np.maximum(att.kv_heads / column(tp), 1.0)


def position_bytes(att: Attention, tp: ColumnLike, kv_bytes: float) -> Column:
    """Return the cache bytes of one position and layer on one rank: `kv_width` values, or a latent (entry) and an index key."""
    if att.indexer or att.compression:
        return column(cached_bytes(att, kv_bytes)) + 0.0 * column(tp)
    return kv_width(att, tp) * kv_bytes


def norm(name: str, t: ColumnLike, h: float, tp: ColumnLike) -> Operator:
    """Fused residual add and norm: reads x and the residual, writes the sum and the normed value; keeps both."""
    size = ACTIVATION_BYTES * column(t) * h / column(tp)
    return Operator(name, "vector", "vector", bytes=4.0 * size, modules=("layernorm",))


def gqa_projections(att: Attention, h: float, t: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Query, key and value in one GEMM, and the output projection."""
    tp = column(tp)
    kv = np.maximum(att.kv_heads / tp, 1.0)
    qkv = (att.heads / tp + 2.0 * kv) * att.head_dim
    return [
        Operator("qkv", "gemm", "attention", m=t, n=qkv, k=h, column_parallel=True),
        Operator("rope", "vector", "vector", bytes=2.0 * ACTIVATION_BYTES * column(t) * qkv),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=att.heads * att.head_dim / tp),
    ]


def mla_projections(att: Attention, h: float, t: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Multi-head latent attention, not absorbed (DeepSeek-V2 2405.04434 §2.1): the down-projections are not split by tp."""
    tp = column(tp)
    q_up = att.heads / tp * qk_width(att)
    kv_up = att.heads / tp * (att.qk_nope_head_dim + att.v_head_dim)
    latent = att.q_lora_rank + att.kv_lora_rank + att.qk_rope_head_dim
    q_in, q_n = (att.q_lora_rank, q_up) if att.q_lora_rank else (h, q_up)
    t = column(t)
    return [
        Operator("mla down", "gemm", "attention", m=t, n=latent, k=h),
        Operator("q up", "gemm", "attention", m=t, n=q_n, k=q_in, modules=("mla_up_proj",), column_parallel=True),
        Operator("kv up", "gemm", "attention", m=t, n=kv_up, k=att.kv_lora_rank, modules=("mla_up_proj",)),
        Operator("rope", "vector", "vector", bytes=2.0 * ACTIVATION_BYTES * t * att.heads / tp * att.qk_rope_head_dim),
        *index_projections(att, h, t),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=att.heads * att.v_head_dim / tp),
    ]


def index_projections(att: Attention, h: float, t: ColumnLike) -> list[Operator]:
    """Return queries, key and weights of an indexer, on every rank whole; nothing where a layer scores no positions.

    Source: vllm-project/vllm, vllm/model_executor/models/deepseek_v2.py, class Indexer (key and weights in one BF16 product).

    >>> [op.name for op in index_projections(Attention("gqa", heads=32, kv_heads=8, head_dim=128), 4096, 1)]
    []
    """
    if not (att.indexer and att.indexer.scores):
        return []
    query = att.indexer.heads * att.indexer.head_dim
    turned = 2.0 * ACTIVATION_BYTES * column(t) * (query + att.indexer.head_dim)
    return [
        Operator("index query", "gemm", "attention", m=t, n=query, k=att.q_lora_rank),
        Operator("index key", "gemm", "attention", "head", m=t, n=att.indexer.head_dim + att.indexer.heads, k=h),
        Operator("index rope", "vector", "vector", bytes=turned),
    ]


def index_scores(att: Attention, t: ColumnLike, positions: ColumnLike, keys: ColumnLike) -> list[Operator]:
    """Scores of `positions` for each of `t` tokens over so many cached `keys`, and the choice of the highest, if it scores.

    ``flops = 2·t·positions·heads_I·d_I`` in FP8 (DeepSeek-V3.2 2512.02556 §2.1, eq. 1). Every rank scores for itself.

    >>> from parallel.io import read_model
    >>> scores, top = index_scores(read_model("deepseek-v3.2").layers[0].attention, 1, 1000, 1000)
    >>> float(scores.flops), float(scores.bytes), float(top.bytes)  # 1000 · 2 · 64 · 128, 1000 · (132 + 4), 1000 · 4
    (16384000.0, 136000.0, 4000.0)
    """
    if not (att.indexer and att.indexer.scores):
        return []
    scored = column(t) * column(positions)
    written = SCORE_BYTES * scored
    return [
        Operator(
            *("index scores", "attention", "attention core", "indexer"),
            flops=index_score_flops(att, scored),
            bytes=column(keys) * index_key_bytes(att) + written,
            weights=False,
        ),
        Operator("index top-k", "vector", "attention core", bytes=written),
    ]


def sparse_heads(att: Attention, tp: ColumnLike, generation: str) -> Column:
    """Return the query heads that a sparse attention kernel works on: those of a rank, padded where it takes no fewer.

    >>> from parallel.io import read_model
    >>> float(sparse_heads(read_model("deepseek-v3.2").layers[0].attention, 8, "hopper"))
    64.0
    """
    return column(np.maximum(att.heads / column(tp), LEAST_HEADS.get(generation, 1.0)))


def attention_core(
    att: Attention, t: ColumnLike, context: ColumnLike, tp: ColumnLike, *, causal: float = 0.5, fused: bool = True
) -> list[Operator]:
    """Scores, softmax and the weighted sum of values over a whole sequence (training and prefill): `CORES`.

    >>> llama = Attention("gqa", heads=32, kv_heads=8, head_dim=128)
    >>> [op.name for op in attention_core(llama, 8192, 8192, 1, fused=False)]
    ['scores', 'softmax', 'values']
    """
    return [fused_core(att, t, context, tp, causal)] if fused else unfused_core(att, t, context, tp)


def core_bytes(att: Attention, t: Column, tp: Column) -> Column:
    """Bytes of queries, keys, values and results of one rank."""
    heads = att.heads / tp
    kv = np.maximum((att.kv_heads if att.kind == "gqa" else att.heads) / tp, 1.0)
    values = t * (heads * qk_width(att) + kv * (qk_width(att) + v_width(att)) + heads * v_width(att))
    return column(ACTIVATION_BYTES * values)


def fused_core(att: Attention, t: ColumnLike, context: ColumnLike, tp: ColumnLike, causal: float = 0.5) -> Operator:
    """One fused kernel: it skips the masked half and what a sliding window hides, and streams its operands once.

    ``flops = 2·t·(causal·context)·heads/tp·(d_qk + d_v)``.

    >>> llama = Attention("gqa", heads=32, kv_heads=8, head_dim=128)
    >>> float(fused_core(llama, 8192, 8192, 1).flops)  # 2 · 8192 · 4096 · 32 · 256
    549755813888.0
    """
    tp, t = column(tp), column(t)
    heads, streamed = att.heads / tp, core_bytes(att, t, tp)
    scores = t * 2.0 * attended_positions(att, context) * heads
    return Operator(
        "attention core",
        "attention",
        "attention core",
        k=context,
        flops=2.0 * scores * causal * (qk_width(att) + v_width(att)),
        bytes=streamed,
        modules=("core_attn",),
        weights=False,
    )


def unfused_core(att: Attention, t: ColumnLike, context: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Two batched products over the full square with the scores in memory between them (before FlashAttention)."""
    tp, t, context = column(tp), column(t), column(context)
    heads = att.heads / tp
    scores, batch = t * context * heads, t / context * heads
    d, v = float(qk_width(att)), float(v_width(att))
    return [
        Operator(
            *("scores", "grouped_gemm", "attention core", "core", context, context, d, batch),
            modules=("core_attn",),
            weights=False,
        ),
        Operator(
            *("softmax", "vector", "attention core"),
            bytes=UNFUSED_SCORE_BYTES * scores,
            backward_passes=11.0 / 8.0,
            modules=("core_attn",),
            launches=UNFUSED_KERNELS,
        ),
        Operator(
            *("values", "grouped_gemm", "attention core", "core", context, v, context, batch),
            modules=("core_attn",),
            weights=False,
        ),
    ]


def decode_attention(
    att: Attention,
    h: float,
    sequences: ColumnLike,
    context: ColumnLike,
    tp: ColumnLike,
    kv_bytes: float,
    *,
    sharing: float = 1.0,
    generation: str = "",
) -> list[Operator]:
    """One token per sequence against its cache. MLA is absorbed: queries meet the latent directly.

    KV read: ``sequences · context · kv_width · kv_bytes``, by as many `sharing` tokens at once. An indexer's tokens share its
    keys, but each gathers the latents that it chooses. Source: DeepSeek-V2 2405.04434 §2.1.2 (absorption).
    """
    tp, b, seen = column(tp), column(sequences), column(context)
    if att.sliding_window:
        seen = np.minimum(seen, att.sliding_window)
    heads = worked = att.heads / tp
    cache = b * seen * kv_width(att, tp) * (kv_bytes / sharing)
    index = [*index_projections(att, h, b), *index_scores(att, b, seen, b * seen / sharing)]
    if att.indexer:
        seen, worked = np.minimum(seen, att.indexer.topk), sparse_heads(att, tp, generation)
        cache = b * seen * latent_bytes(att, kv_bytes) + 0.0 * tp
    if att.kind == "mla":
        latent, rope, nope = att.kv_lora_rank, att.qk_rope_head_dim, att.qk_nope_head_dim
        down = att.q_lora_rank + latent + rope
        return [
            Operator("mla down", "gemm", "attention", m=b, n=down, k=h),
            Operator("q up", "gemm", "attention", m=b, n=heads * (nope + rope), k=att.q_lora_rank or h),
            Operator("absorb k", "grouped_gemm", "attention", m=b, n=latent, k=nope, groups=heads),
            *index,
            Operator(
                *("kv read", "latent attention", "kv read"),
                flops=2.0 * b * seen * worked * (2 * latent + rope),
                bytes=cache,
            ),
            Operator("absorb v", "grouped_gemm", "attention", m=b, n=att.v_head_dim, k=latent, groups=heads),
            Operator("attention out", "gemm", "attention", m=b, n=h, k=heads * att.v_head_dim),
        ]
    core = Operator("kv read", "attention", "kv read", flops=4.0 * b * seen * heads * att.head_dim, bytes=cache)
    qkv, rope_op, out = gqa_projections(att, h, b, tp)
    return [qkv, rope_op, core, out]


def dense_mlp(mlp: Mlp, h: float, t: ColumnLike, tp: ColumnLike, *, term: str = "mlp") -> list[Operator]:
    """Up (and gate), activation, down."""
    t = column(t)
    modules = ("mlp",) if term == "mlp" else ("moe", "shared_experts")
    f = mlp.intermediate / column(tp)
    up = 2.0 * f if mlp.gated else f
    wide = ACTIVATION_BYTES * t
    return [
        Operator(f"{term} up", "gemm", term, "mlp", m=t, n=up, k=h, modules=modules, column_parallel=True),
        Operator(
            *(f"{term} activation", "vector", "vector"),
            bytes=wide * (up + f),
            modules=modules,
            backward_passes=5.0 / 3.0 if mlp.gated else 1.5,
        ),
        Operator(f"{term} down", "gemm", term, "mlp", m=t, n=h, k=f, modules=modules),
    ]


def experts_hit(experts: ColumnLike, topk: float, tokens: ColumnLike) -> Column:
    """Return the expected number of experts that get a token, ``E·(1 − (1 − k/E)^tokens)``, uniform routing.

    >>> round(float(experts_hit(256, 8, 1)), 9)
    8.0
    """
    e = column(experts)
    return e * -np.expm1(column(tokens) * np.log1p(-np.minimum(topk / e, 1.0 - 1e-12)))


def routed_experts(
    moe: Moe, h: float, t: ColumnLike, ep: ColumnLike, etp: ColumnLike, *, tokens_in_group: ColumnLike
) -> list[Operator]:
    """Router, permutation and the grouped GEMMs of one rank's experts.

    `t` is the tokens that this rank brings to the exchange; every rank brings as many, so it gets back ``t·topk`` rows (times
    etp, which shares them) spread over ``slots/ep`` experts. When ep does not divide the experts, the slots left over hold
    redundant copies (EP72 holds 288 slots of 256 experts).
    """
    t, ep, etp = column(t), column(ep), column(etp)
    local = np.ceil(moe.experts / ep)
    hit = experts_hit(local * ep, moe.topk, tokens_in_group) / ep
    rows = t * moe.topk * etp
    f = moe.intermediate / etp
    up = 2.0 * f if moe.gated else f
    wide = ACTIVATION_BYTES * rows
    per_expert = rows / hit
    return [
        Operator("router", "gemm", "router", "head", m=t, n=moe.experts, k=h, modules=("moe",)),
        Operator(
            "gating",
            "vector",
            "router",
            bytes=ROUTER_PASSES * t * moe.experts,
            modules=("moe",),
            launches=ROUTER_KERNELS,
        ),
        Operator("permute", "vector", "vector", bytes=4.0 * wide * h, modules=("moe",), launches=PERMUTE_KERNELS),
        Operator(
            *("experts up", "grouped_gemm", "experts", "experts", per_expert, up, h, hit),
            modules=("moe",),
            launches=hit,
        ),
        Operator(
            *("experts activation", "vector", "vector"),
            bytes=wide * (up + f),
            modules=("moe", "moe_act"),
            backward_passes=5.0 / 3.0,
        ),
        Operator(
            *("experts down", "grouped_gemm", "experts", "experts", per_expert, h, f, hit),
            modules=("moe",),
            launches=hit,
        ),
    ]


PROJECTIONS: dict[str, Callable[[Attention, float, ColumnLike, ColumnLike], list[Operator]]] = {
    "gqa": gqa_projections,
    "mla": mla_projections,
}


def sequence_attention(
    att: Attention,
    h: float,
    t: ColumnLike,
    context: ColumnLike,
    tp: ColumnLike,
    *,
    causal: float = 0.5,
    fused: bool = True,
) -> list[Operator]:
    """Attention over whole sequences (training and prefill): projections and core, as the model counts them."""
    index = index_scores(att, t, column(context) * causal, t)
    core = attention_core(att, t, context, tp, causal=causal, fused=fused)
    return [*PROJECTIONS[att.kind](att, h, t, tp), *index, *core]


def feed_forward(
    mlp: Mlp | Moe,
    h: float,
    t: ColumnLike,
    tp: ColumnLike,
    ep: ColumnLike,
    etp: ColumnLike,
    *,
    tokens_in_group: ColumnLike,
) -> list[Operator]:
    """Return the feed-forward half of a layer: one dense MLP, or routed experts beside the shared ones."""
    if isinstance(mlp, Mlp):
        return dense_mlp(mlp, h, t, tp)
    routed = routed_experts(mlp, h, column(t) / column(tp), ep, etp, tokens_in_group=tokens_in_group)
    if not mlp.shared_intermediate:
        return routed
    return [*routed, *dense_mlp(Mlp(mlp.shared_intermediate, mlp.gated), h, t, tp, term="shared expert")]


def head(h: float, vocab: float, t: ColumnLike, tp: ColumnLike, *, fused: bool = False) -> list[Operator]:
    """Language-model head (vocabulary-parallel) and the softmax over it in FP32."""
    logits = column(t) * vocab / column(tp)
    return [
        Operator("head", "gemm", "head", "head", m=t, n=vocab / column(tp), k=h),
        Operator(
            "loss",
            "vector",
            "head",
            bytes=(6.0 if fused else 12.0) * logits,
            backward_passes=2.0 / 3.0 if fused else 2.0,
        ),
    ]
