"""Compressed attention and hyper-connections (DeepSeek-V4) as operators, in both phases of serving.

Symbols as in `parallel.operators`. Entries and positions of the window are one list of vectors that a token gathers, and the
same kernel reads them for all heads; index scores are over entries. Hyper-connections stand where other models have a norm
with a residual add. Kernels: vllm-project/vllm, vllm/models/deepseek_v4; sgl-project/sglang, layers/mhc.py.
"""

import numpy as np

from parallel.entries import entry_bytes, pace, seen_at, seen_between, stream_weights
from parallel.models import Attention, index_key_bytes, index_score_flops
from parallel.operators import ACTIVATION_BYTES, SCORE_BYTES, Operator, norm
from parallel.shapes import pooled_width
from topo.columns import Column, ColumnLike, column

LEAST_HEADS = 64.0
"""Query heads of FlashMLA's sparse kernels on Hopper and Blackwell: fewer are padded (vllm-project/vllm,
vllm/models/deepseek_v4/nvidia/flashmla.py, get_padded_num_q_heads)."""
PROJECTION_BYTES = 4.0
"""Of the mixing weights of hyper-connections, and of what they give: FP32."""


def padded_heads(att: Attention, tp: ColumnLike) -> Column:
    """Query heads that the kernel of a rank works on.

    >>> from parallel.io import read_model
    >>> [float(padded_heads(read_model("deepseek-v4-pro").layers[0].attention, tp)) for tp in (1, 8)]
    [128.0, 64.0]
    """
    return column(np.maximum(att.heads / column(tp), LEAST_HEADS))


def seen_flops(att: Attention, tp: ColumnLike) -> Column:
    """FLOPs of a token for each position or entry that it attends to: ``4·heads·d``, padded heads too."""
    return column(4.0 * att.head_dim * padded_heads(att, tp))


# --- projections --------------------------------------------------------------------------------------------------


def projections(att: Attention, h: float, t: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Linear layers: latents of queries and keys at once, queries, keys and gates of entries, the output in groups.

    Entries' keys, and an indexer's, are of BF16 weights, which every rank holds whole. Products of one input that engines
    start on streams of their own count one after the other.

    >>> from parallel.io import read_model
    >>> [len(projections(kind.attention, 4096, 1, 1)) for kind in read_model("deepseek-v4-flash").layers]
    [4, 8, 5]
    """
    held, t, tp = att.compression, column(t), column(tp)
    if held is None:
        return []
    heads, groups = att.heads / tp, held.groups / tp
    found = [
        Operator("latents", "gemm", "attention", m=t, n=att.q_lora_rank + att.head_dim, k=h),
        Operator("q up", "gemm", "attention", m=t, n=heads * att.head_dim, k=att.q_lora_rank),
    ]
    if held.ratio:
        found.append(
            Operator("compressor", "gemm", "attention", "head", m=t, n=2 * pooled_width(att, att.head_dim), k=h)
        )
    if att.indexer:
        width = 2 * pooled_width(att, att.indexer.head_dim)
        query = att.indexer.heads * att.indexer.head_dim
        found += [
            Operator("index query", "gemm", "attention", m=t, n=query, k=att.q_lora_rank),
            Operator("index compressor", "gemm", "attention", "head", m=t, n=width, k=h),
            Operator("index weight", "gemm", "attention", "head", m=t, n=att.indexer.heads, k=h),
        ]
    each = att.heads * att.head_dim / held.groups
    return [
        *found,
        Operator("output groups", "grouped_gemm", "attention", m=t, n=held.rank, k=each, groups=groups),
        Operator("attention out", "gemm", "attention", m=t, n=h, k=groups * held.rank),
    ]


def passing(att: Attention, t: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Kernels between the products: norms, rotation, cache write, entries, the way back of the rotation.

    A key and a gate of every position go to a state in FP32, of which an entry is made when it is full.

    >>> from parallel.io import read_model
    >>> [len(passing(kind.attention, 1, 1)) for kind in read_model("deepseek-v4-flash").layers]
    [3, 8, 5]
    """
    t = column(t)
    wide, queries = 2.0 * ACTIVATION_BYTES * t, att.heads / column(tp) * att.head_dim
    found = [
        _vector("latent norms", wide * (att.q_lora_rank + att.head_dim)),
        _vector("query norm, rope, cache write", wide * (queries + att.head_dim)),
    ]
    ratio = att.compression.ratio if att.compression else 0
    for name, width in (("", att.head_dim), ("index ", att.indexer.head_dim if att.indexer else 0)):
        if width and ratio:
            states = 2.0 * PROJECTION_BYTES * t * pooled_width(att, width)
            found += [_vector(f"{name}state write", 2.0 * states), _vector(f"{name}entry write", states)]
    if att.indexer:
        found.append(_vector("index rope", 0.75 * wide * att.indexer.heads * att.indexer.head_dim))
    return [*found, _vector("inverse rope", wide * queries)]


def _vector(name: str, size_bytes: ColumnLike) -> Operator:
    return Operator(name, "vector", "vector", bytes=size_bytes)


# --- residual streams ---------------------------------------------------------------------------------------------


def stream_operators(h: float, t: ColumnLike, streams: int) -> list[Operator]:
    """Hyper-connections around one block of `t` tokens: weights of all streams, their sum into the block, out of it again.

    ``mix``: reads n·h and ``(2 + n)·n·n·h`` weights; ``collapse``: reads n·h, writes h, Sinkhorn's rounds and the norm inside;
    ``expand``: reads n·h of streams and h of the block, writes n·h. Every tensor rank does all of it.

    >>> [float(op.bytes) for op in stream_operators(4096, 1, 4)]  # 2·4h + 4·24·4h; 2·5h; 2·9h
    [1605632.0, 40960.0, 73728.0]
    """
    t = column(t)
    inputs, outputs = stream_weights(streams, round(h))
    stream = ACTIVATION_BYTES * t * h
    return [
        _vector("streams mix", stream * streams + PROJECTION_BYTES * inputs * outputs),
        _vector("streams collapse", stream * (streams + 1.0)),
        _vector("streams expand", stream * (2.0 * streams + 1.0)),
    ]


def around(name: str, h: float, t: ColumnLike, tp: ColumnLike, streams: int) -> list[Operator]:
    """Return what stands around a block: a norm with the residual add, or hyper-connections.

    >>> [op.name for op in around("mlp norm", 4096, 1, 1, 1)]
    ['mlp norm']
    """
    return [norm(name, t, h, tp)] if streams == 1 else stream_operators(h, t, streams)


# --- attention ----------------------------------------------------------------------------------------------------


def _scores(att: Attention, scored: Column, keys: Column) -> list[Operator]:
    """Scores of so many (token, position) pairs over the cached keys of so many positions, and the choice of the highest."""
    if not att.indexer:
        return []
    written = SCORE_BYTES * scored / pace(att)
    return [
        Operator(
            *("index scores", "attention", "attention core", "indexer"),
            flops=index_score_flops(att, scored),
            bytes=keys * index_key_bytes(att) + written,
            weights=False,
        ),
        _vector("index top-k", written),
    ]


def compressed_prompt(
    att: Attention, h: float, t: ColumnLike, first: float, last: float, tp: ColumnLike
) -> list[Operator]:
    """Attention of prompt tokens at positions `first` to `last`: those of the window, and entries chosen or all.

    >>> from parallel.io import read_model
    >>> att = read_model("deepseek-v4-flash").layers[1].attention
    >>> float(compressed_prompt(att, 4096, 1, 4096, 8192, 1)[-1].flops)  # (128 + 512) · 4 · 64 · 512
    83886080.0
    """
    t = column(t)
    core = Operator(
        *("attention core", "attention", "attention core"),
        k=last,
        flops=t * seen_between(att, first, last) * seen_flops(att, tp),
        bytes=2.0 * ACTIVATION_BYTES * t * padded_heads(att, tp) * att.head_dim,
        weights=False,
    )
    scores = _scores(att, t * (first + last) / 2.0, column(last))
    return [*projections(att, h, t, tp), *passing(att, t, tp), *scores, core]


def compressed_decode(
    att: Attention, h: float, sequences: ColumnLike, context: ColumnLike, tp: ColumnLike, *, sharing: float = 1.0
) -> list[Operator]:
    """One token per sequence against its cache; `sharing` tokens of a sequence share its index keys.

    >>> from parallel.io import read_model
    >>> att = read_model("deepseek-v4-flash").layers[1].attention
    >>> float(compressed_decode(att, 4096, 1, 8192, 1)[-1].bytes)  # (128 + 512) · 584
    373760.0
    """
    b, context = column(sequences), column(context)
    seen = b * seen_at(att, context)
    read = Operator(
        *("kv read", "latent attention", "kv read"),
        flops=seen * seen_flops(att, tp),
        bytes=seen * entry_bytes(att) + 0.0 * column(tp),
    )
    scores = _scores(att, b * context, b * context / sharing)
    return [*projections(att, h, b, tp), *passing(att, b, tp), *scores, read]
