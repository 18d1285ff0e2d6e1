"""The exchange between attention groups and experts: every way that a pass may take, and what can compute beside it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from clusters.build import path
from clusters.tunings import collective_s
from parallel.exchange import EXCHANGES, candidates, exchange_s, sm_share
from parallel.models import Moe
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import BOX, domain_size, neighbours
from topo.columns import Column, column

if TYPE_CHECKING:
    from parallel.serving.passes import Replica

GATHERED: Final = "gather and scatter"
"""The exchange that no kernel of its own does: every rank gets every row."""


def swaps(replica: "Replica", moe: Moe, tokens: Column) -> dict[str, Column]:
    """Seconds between attention groups and experts by each way that there is: gather and scatter, or dispatch and combine.

    Inside one box engines gather and scatter unless told otherwise (vLLM, docs/serving/expert_parallel_deployment.md:
    ``allgather_reducescatter``; TensorRT-LLM, fused_moe_cutlass.py, select_alltoall_method_type: wants NVLink across boxes);
    so they do where an expert is split, since every part of it needs every row.
    """
    cluster, h, ranks = replica.cluster, replica.model.hidden, replica.split.stage
    group = neighbours(cluster, tokens, ranks)
    size = ACTIVATION_BYTES * tokens * replica.split.groups * h
    plain = sum(
        (collective_s(op, size, group, path(cluster, op, "nccl"), "nccl") for op in ("all_gather", "reduce_scatter")),
        start=np.zeros_like(size),
    )
    if replica.split.etp > 1 or ranks <= domain_size(cluster) <= BOX:
        return {GATHERED: column(plain)}
    own, found = tokens / replica.split.tp, {GATHERED: column(plain)}
    busiest = replica.hot.busiest(moe.experts, ranks)
    for phase in ("decode", "prefill"):
        for name in candidates("auto", phase):
            way = exchange_s(cluster, moe, h, own, group, replica.chip.recipe, name=name, phase=phase)
            found[name] = busiest * (way["dispatch"] + way["combine"])
    return found


def beside(
    replica: "Replica", layers: Sequence[tuple[int, Mapping[str, Column]]]
) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """Return the ways that another half of a pass can compute beside: share of the multiprocessors that each takes, its seconds.

    `layers` are how many there are of each kind, and their ways. Those that reach every rank count; gathering takes the
    multiprocessors that the kernels for prompts take.
    """
    part, found = replica.cluster.accelerator, []
    for name in dict.fromkeys(name for _, ways in layers for name in ways):
        share = sm_share(EXCHANGES["normal" if name == GATHERED else name], part.name, part.like)
        seconds = sum(count * ways[name] for count, ways in layers if name in ways)
        if share is not None and np.all(np.isfinite(seconds)):
            found.append((share, tuple(column(seconds).tolist())))
    return tuple(found)
