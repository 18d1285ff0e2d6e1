"""A cache dealt over tensor ranks while answers are decoded (decode context parallelism): what the ranks tell each other."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from clusters.build import path
from clusters.tunings import collective_s
from parallel.models import Attention
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import neighbours
from parallel.serving.indexed import picked_bytes
from topo.columns import Column, ColumnLike, column

if TYPE_CHECKING:
    from parallel.serving.passes import Replica

SUM_BYTES: Final = 4.0
"""Of a log-sum-exp: FP32."""


def gathered_sums(rows: ColumnLike, width: float, dcp: float) -> tuple[tuple[str, Column], ...]:
    """All-gather of the sums in FP32, ``4·rows·dcp``, then a reduce-scatter of outputs, ``2·rows·width``.

    Source: vllm-project/vllm, cp_lse_ag_out_rs in vllm/attention/ops/common.py.

    >>> [(op, float(size)) for op, size in gathered_sums(64, 512, 8)]
    [('all_gather', 2048.0), ('reduce_scatter', 65536.0)]
    """
    rows = column(rows)
    return ("all_gather", SUM_BYTES * rows * dcp), ("reduce_scatter", ACTIVATION_BYTES * rows * width)


def swapped_parts(rows: ColumnLike, width: float, _dcp: float) -> tuple[tuple[str, Column], ...]:
    """One all-to-all of partial outputs with their sums beside them, ``rows·(2·width + 4)``; each rank adds up its heads'.

    Source: Helix parallelism 2507.07120; vllm-project/vllm, pull requests 34883 and 41160 (outputs and sums in one message).

    >>> [(op, float(size)) for op, size in swapped_parts(64, 512, 8)]  # 64 · (1024 + 4)
    [('all_to_all', 65792.0)]
    """
    return (("all_to_all", column(rows) * (ACTIVATION_BYTES * width + SUM_BYTES)),)


COMBINED: Final[Mapping[str, Callable[[ColumnLike, float, float], tuple[tuple[str, Column], ...]]]] = {
    "ag_rs": gathered_sums,
    "a2a": swapped_parts,
}
"""How partial outputs of a dealt cache become whole, in vLLM's words (--dcp-comm-backend) -> collectives and bytes."""


def dealt_s(replica: "Replica", att: Attention, tokens: Column) -> Column:
    """Seconds in which ranks that deal the cache among them gather queries, and add up outputs by their log-sum-exp.

    Of `tokens` of ``H = heads/tp·dcp`` heads: an all-gather of queries, and then what `COMBINED` says of a split's backend.
    New prompt tokens of MLA meet keys and values of their own rank, unabsorbed, and need none of it, unless an indexer chooses
    among the positions of all ranks: these gather its candidates too.
    Source: vllm-project/vllm, docs/serving/context_parallel_deployment.md.
    """
    dcp, cluster = replica.split.dcp, replica.cluster
    if dcp <= 1 or att.kind == "delta":
        return np.zeros_like(tokens)
    group, rows = neighbours(cluster, tokens, dcp), tokens * max(att.heads / replica.split.tp, 1.0) * dcp
    latent = att.kind == "mla"
    query = att.kv_lora_rank + att.qk_rope_head_dim if latent else att.head_dim
    out = att.kv_lora_rank if latent else att.head_dim
    sizes = (
        ("all_gather", ACTIVATION_BYTES * rows * query),
        *COMBINED[replica.split.dcp_comm](rows, out, dcp),
        *((("all_gather", picked_bytes(att, tokens, dcp)),) if att.indexer and att.indexer.scores else ()),
    )
    seconds = [collective_s(op, size, group, path(cluster, op, "nccl"), "nccl") for op, size in sizes]
    return column(np.sum(seconds, axis=0))
