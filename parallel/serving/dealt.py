"""A cache dealt over tensor ranks while answers are decoded (decode context parallelism): what the ranks tell each other."""

from typing import TYPE_CHECKING, Final

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from parallel.models import Attention
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import domain_size, members_of
from parallel.serving.indexed import picked_bytes
from topo.columns import Column, column

if TYPE_CHECKING:
    from parallel.serving.passes import Replica

SUM_BYTES: Final = 4.0
"""Of a log-sum-exp: FP32."""


def group_members(cluster: Cluster, like: Column, ranks: float) -> Column:
    """Members per tier of groups of so many neighbouring ranks, one for each row of a column."""
    one = np.ones_like(like)
    return members_of(cluster, one * domain_size(cluster), one * ranks, one)


def dealt_s(replica: "Replica", att: Attention, tokens: Column) -> Column:
    """Seconds in which ranks that deal the cache among them gather queries, and add up outputs by their log-sum-exp.

    Of `tokens` of ``H = heads/tp·dcp`` heads: an all-gather of queries, one of the sums in FP32, a reduce-scatter of outputs.
    New prompt tokens of MLA meet keys and values of their own rank, unabsorbed, and need none of it, unless an indexer chooses
    among the positions of all ranks: these gather its candidates too.
    Source: vllm-project/vllm, docs/serving/context_parallel_deployment.md; cp_lse_ag_out_rs in vllm/attention/ops/common.py.
    """
    dcp, cluster = replica.split.dcp, replica.cluster
    if dcp <= 1 or att.kind == "delta":
        return np.zeros_like(tokens)
    group, rows = group_members(cluster, tokens, dcp), tokens * max(att.heads / replica.split.tp, 1.0) * dcp
    latent = att.kind == "mla"
    query = att.kv_lora_rank + att.qk_rope_head_dim if latent else att.head_dim
    out = att.kv_lora_rank if latent else att.head_dim
    sizes = (
        ("all_gather", ACTIVATION_BYTES * rows * query),
        ("all_gather", SUM_BYTES * rows * dcp),
        ("reduce_scatter", ACTIVATION_BYTES * rows * out),
        *((("all_gather", picked_bytes(att, tokens, dcp)),) if att.indexer else ()),
    )
    seconds = [collective_s(op, size, group, path(cluster, op, "nccl"), "nccl") for op, size in sizes]
    return column(np.sum(seconds, axis=0))
