"""Where a strategy's groups of ranks sit on the wiring: (size, stride) under the placement order, then members per tier.

Ranks are numbered along the placement order, fastest first, and fill the scale-up domains one after another. Megatron-Core
calls the two orders ``tp-cp-ep-dp-pp`` (its default: pipeline neighbours far apart) and ``tp-cp-ep-pp-dp`` (pipeline
neighbours close together, replicas far apart).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster
from collectives.groups import members
from topo.columns import Column, ColumnLike, column
from topo.tiers import Tier

ORDERS: tuple[str, ...] = ("tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp")
BOX = 8
"""Accelerators of one box: larger scale-up domains join boxes."""


def domain_size(cluster: Cluster) -> int:
    """Accelerators of one scale-up domain: the outermost scale-up tier, or 1 where there is none."""
    return max((tier.size for tier in cluster.tiers if tier.plane == "scale-up"), default=1)


def fillings(cluster: Cluster) -> tuple[int, ...]:
    """Return the ways to fill a domain: all of it, or the largest multiple of a power of two that keeps three quarters.

    A 72-GPU rack also runs as 64 (groups of a power of two stay inside), an 8-GPU box only as 8.
    """
    size = domain_size(cluster)
    ways = {size} | {size - size % (1 << bit) for bit in range(size.bit_length())}
    return tuple(sorted(way for way in ways if 4 * way >= 3 * size))


def blocks(cluster: Cluster, used: int) -> tuple[int, ...]:
    """Ranks per block of each tier, innermost first, when `used` ranks of every domain work.

    Inside a domain of several blocks the ranks spread evenly where they divide (512 of 8 x 72: 64 in each block), else
    they fill one block after another.
    """
    size = domain_size(cluster)

    def ranks(tier: Tier) -> int:
        if tier.size >= size:
            return used * (tier.size // size)
        parts = size // tier.size
        return used // parts if used % parts == 0 else tier.size

    return tuple(ranks(tier) for tier in cluster.tiers)


def world(cluster: Cluster, used: ColumnLike) -> Column:
    """Ranks at work in the whole cluster."""
    return column(used) * (cluster.usable // domain_size(cluster))


def _near(c: Mapping[str, Column]) -> Column:
    """Whether pipeline neighbours are nested between cp and dp."""
    return np.asarray(c["order"] == ORDERS.index("tp-cp-ep-pp-dp"), dtype=np.float64)


def _apart(c: Mapping[str, Column]) -> Column:
    """Stages that lie between a rank and the same rank of the next replica."""
    return np.where((_near(c) > 0) & (c["dp"] > 1), c["pp"], 1.0)


def copies(c: Mapping[str, Column]) -> Column:
    """Return how many copies there are of what ZeRO shards: it divides among neighbours, and groups of these are alike."""
    return column(c.get("replicate", np.ones_like(c["dp"])))


def _expert_replicas(c: Mapping[str, Column]) -> Column:
    return c["tp"] * c["cp"] * c["dp"] / (c["ep"] * c["etp"])


#: (size, stride) of every group. Dense ranks are tp × cp × dp × pp, expert ranks etp × ep × edp × pp over the same ranks
#: ("parallel folding", Megatron-Core). `dp` reduces dense gradients, so context-parallel ranks belong to it.
#: With stages between cp and dp its ranks have no single stride; even spacing is exact for blocks of whole pipelines and
#: puts no more ranks than there are in blocks that divide one. The same holds for `edp` where ep·etp is 1.
#: `stage` joins all ranks of a pipeline stage, `tp-cp` those that hold one replica of it.
#: Under hybrid sharding (`replicate`) these two shard among neighbours; `copies` joins the ranks that hold the same shard.
GROUPS: dict[str, Callable[[Mapping[str, Column]], tuple[Column, Column]]] = {
    "tp": lambda c: (c["tp"], np.ones_like(c["tp"])),
    "cp": lambda c: (c["cp"], c["tp"]),
    "etp": lambda c: (c["etp"], np.ones_like(c["etp"])),
    "ep": lambda c: (c["ep"], c["etp"]),
    "tp-cp": lambda c: (c["tp"] * c["cp"], np.ones_like(c["tp"])),
    "stage": lambda c: (c["tp"] * c["cp"] * c["dp"], _apart(c)),
    "pp": lambda c: (c["pp"], c["tp"] * c["cp"] * np.where(_near(c) > 0, 1.0, c["dp"])),
    "dp": lambda c: (c["dp"] * c["cp"] / copies(c), c["tp"] * _apart(c)),
    "edp": lambda c: (_expert_replicas(c) / copies(c), c["ep"] * c["etp"] * _apart(c)),
    "copies": lambda c: (copies(c), c["tp"] * c["cp"] * c["dp"] / copies(c) * _apart(c)),
}


def members_of(cluster: Cluster, used: Column, size: ColumnLike, stride: ColumnLike) -> Column:
    """Members per tier of groups of (size, stride), for columns with different fillings; shape (tiers, rows)."""
    used, sizes, strides = np.broadcast_arrays(column(used), column(size), column(stride))
    whole = sorted(set(used.ravel().tolist()))
    if len(whole) == 1:
        return members(sizes, strides, blocks(cluster, int(whole[0])))
    result = np.empty((len(cluster.tiers), *used.shape))
    for filling in whole:
        rows = used == filling
        result[:, rows] = members(sizes[rows], strides[rows], blocks(cluster, int(filling)))
    return result


def outermost(members: Column) -> npt.NDArray[np.int64]:
    """Return the outermost tier that a group spans, from its members per tier; -1 for a group of one.

    >>> outermost(np.array([[1.0, 8.0, 1.0], [1.0, 8.0, 4.0]])).tolist()
    [-1, 0, 1]
    """
    inner = np.concatenate([np.ones_like(members[:1]), members[:-1]])
    tiers = np.arange(len(members)).reshape(-1, *(1,) * (members.ndim - 1))
    return np.asarray(np.where(members > inner, tiers, -1).max(axis=0))


def neighbours(cluster: Cluster, like: Column, ranks: float) -> Column:
    """Members per tier of groups of so many neighbouring ranks, one for each row of a column."""
    one = np.ones_like(like)
    return members_of(cluster, one * domain_size(cluster), one * ranks, one)


def group_members(cluster: Cluster, cols: Mapping[str, Column], name: str) -> Column:
    """Members per tier of one group, as the closed forms take them; shape (tiers, rows)."""
    return members_of(cluster, cols["used"], *GROUPS[name](cols))
