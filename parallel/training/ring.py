"""Ring attention: what context parallelism adds to the kernels of attention, as Transformer Engine runs it.

Each of ``cp`` ranks holds an early and a late piece of the sequence, ``t`` tokens together, and keys and values go round the
ring: one attention kernel a step, whose results and gradients are then merged. The last rank of the ring merges whole results at
every step, and the others wait for it. Source: Transformer Engine, transformer_engine/pytorch/attention/dot_product_attention/
context_parallel.py, AttnFuncWithCPAndKVP2P (causal, BF16 attention, "sbhd").
"""

from dataclasses import replace

import numpy as np

from parallel.models import Attention
from parallel.operators import ACTIVATION_BYTES, Operator, qk_width, v_width
from topo.columns import Column, ColumnLike, column


def result_bytes(values: ColumnLike, cp: ColumnLike) -> Column:
    """Bytes that the last rank moves to merge ``n`` results, or gradients of queries, of ``cp`` steps: ``2·n·(3cp − 1)``.

    The first step's are scaled (read, written), each later one's are scaled and added (two read, one written), in BF16
    (`flash_attn_fwd_out_correction_init`, `flash_attn_fwd_out_correction`; backward: ``dq.copy_``, ``dq.add_``). The softmax's
    sums, one for each head and token, are left out.

    >>> float(result_bytes(1.0, 2))  # 2 · 2, then 3 · 2
    10.0
    """
    return ACTIVATION_BYTES * column(values) * (3.0 * column(cp) - 1.0)


def key_bytes(values: ColumnLike) -> Column:
    """Bytes that put ``n`` keys and values into the buffer that goes round: ``4·n``, forward (``torch.cat``) and backward.

    >>> float(key_bytes(1.0))
    4.0
    """
    return 2.0 * ACTIVATION_BYTES * column(values)


def key_gradient_bytes(values: ColumnLike, cp: ColumnLike) -> Column:
    """Bytes that the last rank moves to add up gradients of ``n`` keys and values: ``2·n·(3cp + 2)/2`` for cp over 1.

    It copies the first step's half, adds a half in each step between, and all of them in the last, its own.

    >>> float(key_gradient_bytes(1.0, 2)), float(key_gradient_bytes(1.0, 3))  # 2 + 6; 2 + 3 + 6
    (8.0, 11.0)
    """
    return ACTIVATION_BYTES * column(values) * (1.5 * column(cp) + 1.0)


def merge(att: Attention, t: ColumnLike, tp: ColumnLike, cp: ColumnLike) -> Operator:
    """Return the memory-bound kernels between the steps of the ring; no bytes where ``cp`` is 1.

    A kernel for every step's result, one for its sums of the softmax, and one for the buffer, ``2·cp + 1``; backward for its
    gradients of queries, and of keys and values.

    >>> llama = Attention("gqa", heads=32, kv_heads=8, head_dim=128)
    >>> op = merge(llama, 1, 1, np.array([1.0, 2.0]))
    >>> op.bytes.tolist(), op.launches.tolist()  # 10 · 4096 + 4 · 2048
    ([0.0, 49152.0], [0.0, 5.0])
    """
    t, tp, cp = column(t), column(tp), column(cp)
    heads = t * att.heads / tp
    kv_heads = t * np.maximum((att.kv_heads if att.kind == "gqa" else att.heads) / tp, 1.0)
    keys = kv_heads * (qk_width(att) + v_width(att))
    ahead = result_bytes(heads * v_width(att), cp) + key_bytes(keys)
    back = result_bytes(heads * qk_width(att), cp) + key_bytes(keys) + key_gradient_bytes(keys, cp)
    return Operator(
        *("ring merge", "vector", "vector"),
        bytes=np.where(cp > 1, ahead, 0.0),
        modules=("core_attn",),
        launches=np.where(cp > 1, 2.0 * cp + 1.0, 0.0),
        backward_passes=back / ahead,
    )


def in_steps(core: Operator, cp: ColumnLike) -> Operator:
    """Return fused attention in the steps of the ring: one kernel each, in which a query meets a cp-th of the context.

    The last rank's first kernel is causal over its own tokens, the others meet half as many keys unmasked: as many a query.

    >>> core = in_steps(Operator("x", "attention", "attention core", k=8192.0), 2)
    >>> float(core.k), float(core.launches)
    (4096.0, 2.0)
    """
    return replace(core, k=column(core.k) / column(cp), launches=column(core.launches) * column(cp))
