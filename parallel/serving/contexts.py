"""Prefill context parallelism: the tokens of a prompt dealt over ranks, keys and values brought to all of them.

A prompt is cut into 2·cp pieces, of which rank i has the i-th and the i-th from the end (zig-zag), or its tokens are dealt
in turn (interleave): either way each rank computes 1/cp of the linear layers and of the (token, earlier position) pairs.
What is not divided: weights, and under multi-head latent attention the up-projection of the others' latents. Sources: Yang
et al. 2411.01783 §3.4, §3.5 (ring pass-KV, zig-zag); docs.sglang.io, advanced_features/prefill_cp (all-gather, interleave);
vllm-project/vllm, issue 25749 (all-gather, then the cache write).
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from clusters.build import Cluster, path
from clusters.tunings import collective_s
from collectives.point_to_point import farthest
from parallel.models import Attention
from parallel.operators import ACTIVATION_BYTES, Operator, kv_width, position_bytes
from parallel.placement import domain_size, members_of
from parallel.roofline import Chip
from parallel.serving.kernels import work_s
from topo.columns import Column, ColumnLike, column


def context_ranks(cols: Mapping[str, Column]) -> Column:
    """Return the ranks that share a prompt: the column cp, 1 where there is none."""
    return column(cols.get("cp", 1.0))


def block_bytes(att: Attention, positions: ColumnLike, tp: ColumnLike, cp: ColumnLike, kv_bytes: float) -> Column:
    """Bytes of keys and values that one rank has of so many positions of a prompt, cached ones too: ``n/cp·kv·bytes``.

    >>> llama = Attention("gqa", heads=128, kv_heads=8, head_dim=128)
    >>> float(block_bytes(llama, 131072, 8, 16, 2.0))  # 8,192 positions · 256 values · 2 bytes
    4194304.0
    """
    return column(positions) / column(cp) * position_bytes(att, tp, kv_bytes)


def gathered_bytes(att: Attention, tokens: ColumnLike, tp: ColumnLike) -> Column:
    """Bytes of new keys and values that engines gather, before they are cached, so in BF16: ``2·t·kv``, index keys too.

    Positions that are cached already lie whole on every rank (vllm-project/vllm at 00193b8, vllm/config/parallel.py: prefill
    context parallelism "does not increase the KV-cache shard count").

    >>> from parallel.io import read_model
    >>> [float(gathered_bytes(read_model(name).layers[0].attention, 1, 1)) for name in ("deepseek-v3", "deepseek-v3.2")]
    [1152.0, 1408.0]
    """
    keys = att.indexer.head_dim if att.indexer else 0.0
    return ACTIVATION_BYTES * column(tokens) * (kv_width(att, tp) + keys)


def expanded(att: Attention, tokens: ColumnLike, tp: ColumnLike) -> list[Operator]:
    """Up-projection of the latents of `tokens` that other ranks computed; nothing of other kinds, nor under an indexer.

    Latents travel, since they are narrower than the keys and values of all heads; each rank makes these of the latents it
    was sent. Heads that meet chosen latents themselves (`parallel.serving.indexed`) need no such product.

    >>> from parallel.io import read_model
    >>> [up] = expanded(read_model("deepseek-v3").layers[0].attention, 1000, 8)
    >>> float(up.m), float(up.n), up.k  # 128/8 heads · (128 + 128)
    (1000.0, 4096.0, 512)
    """
    if att.kind != "mla" or att.indexer:
        return []
    width = att.heads / column(tp) * (att.qk_nope_head_dim + att.v_head_dim)
    return [Operator("kv up of others", "gemm", "attention", m=column(tokens), n=width, k=att.kv_lora_rank)]


def unhidden_s(step_s: ColumnLike, attention_s: ColumnLike, cp: ColumnLike) -> Column:
    """Seconds of a ring that attention does not hide: ``(cp − 1)·max(0, step − attention/cp)``.

    While a rank attends to one block of keys and values the next one comes in (2411.01783 §3.4, eq. 2; §3.5.2, algorithm 2).

    >>> float(unhidden_s(3.0, 8.0, 4)), float(unhidden_s(3.0, 12.0, 4))
    (3.0, 0.0)
    """
    cp = column(cp)
    return (cp - 1.0) * np.maximum(column(step_s) - column(attention_s) / cp, 0.0)


def shared_s(cluster: Cluster, machine: Chip, att: Attention, tokens: Column, tp: float, cp: float) -> Column:
    """Seconds of a layer that sharing the `tokens` of prompts over cp ranks, tp apart, adds under an engine.

    An all-gather of new keys and values before attention, and the up-projection of latents that others computed.
    """
    group = members_of(cluster, np.full_like(tokens, domain_size(cluster)), cp, tp)
    road, size = path(cluster, "all_gather", "nccl"), gathered_bytes(att, tokens, tp)
    again = [work_s(op, machine) for op in expanded(att, tokens * (cp - 1.0) / cp, tp)]
    return column(collective_s("all_gather", size, group, road, "nccl") + np.sum(again, axis=0))


def restored_s(cluster: Cluster, tokens: Column, hidden: float, tp: float, cp: float) -> Column:
    """Seconds after the last layer in which all ranks get all tokens again: an all-gather of ``2·t·h`` bytes.

    Source: sgl-project/sglang, pull request 12065; vllm-project/vllm, pull request 46570 (hidden-state restoration).
    """
    group = members_of(cluster, np.full_like(tokens, domain_size(cluster)), cp, tp)
    road = path(cluster, "all_gather", "nccl")
    return column(collective_s("all_gather", ACTIVATION_BYTES * tokens * hidden, group, road, "nccl"))


Way = Callable[[Cluster, Column, Column, Column, Column], tuple[Column, Column]]


def ring(cluster: Cluster, block: Column, cp: Column, members: Column, attention_s: Column) -> tuple[Column, Column]:
    """Return busy and exposed seconds of pass-KV: cp − 1 messages of a block, each to the next rank, at the slowest hop."""
    step = farthest(block, members, path(cluster, "send_recv", "nccl"))
    return (cp - 1.0) * step, unhidden_s(step, attention_s, cp)


def all_gather(
    cluster: Cluster, block: Column, cp: Column, members: Column, _attention_s: Column
) -> tuple[Column, Column]:
    """Return busy and exposed seconds of one all-gather of cp blocks, before attention, so exposed in full."""
    seconds = collective_s("all_gather", cp * block, members, path(cluster, "all_gather", "nccl"), "nccl")
    return column(seconds), column(seconds)


WAYS: Final[Mapping[str, Way]] = {"ring": ring, "all_gather": all_gather}
"""How keys and values come to all ranks of a prompt -> busy and exposed seconds of a layer."""


def way_of(att: Attention) -> str:
    """Return how they come: round a ring, or at once where an indexer has to see all keys before attention begins.

    >>> from parallel.io import read_model
    >>> [way_of(read_model(name).layers[0].attention) for name in ("llama-3.1-405b", "deepseek-v3.2")]
    ['ring', 'all_gather']
    """
    return "all_gather" if att.indexer else "ring"


def held_blocks(att: Attention, cp: ColumnLike) -> Column:
    """Blocks of the layer at work that a rank holds beside its cache: two that a ring fills in turn, or all of them.

    >>> from parallel.io import read_model
    >>> [float(held_blocks(read_model(name).layers[0].attention, 8)) for name in ("llama-3.1-405b", "deepseek-v3.2")]
    [2.0, 8.0]
    """
    return column(cp if att.indexer else np.minimum(2.0, column(cp) - 1.0))
