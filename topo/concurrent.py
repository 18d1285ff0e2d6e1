"""The all-to-all throughput of a fabric: how much every accelerator can send to every other at once, at best.

The maximum concurrent flow of `topo.multiflow`, on a blueprint by orbits (`topo.orbitflow`: 16,384 accelerators are some
sixty variables), on any other graph accelerator by accelerator, or bounded by cuts (`topo.cutbounds`).
"""

from typing import TYPE_CHECKING

import numpy as np

from topo.blueprint import Blueprint, Level
from topo.cutbounds import cut_bound_Bps, graph_bound_Bps
from topo.errors import Fault, SpecError
from topo.multiflow import Commodity, Limit, Rate, concurrent, limits
from topo.orbitflow import Question, solved
from topo.orbits import orbit_graph
from topo.symmetry import Cell
from topo.tiers import Pool, pools, priced
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

__all__ = ["Limit", "Rate", "all_to_all_Bps", "all_to_all_bound", "cut_bound_Bps", "tier_exchange_Bps"]

MOST_VARIABLES = 100_000
"""Flows from which a linear program is not solved, unless asked for: some ten seconds."""


def _pool(bp: Blueprint, name: str | None) -> Pool:
    """Return a pool by name; all accelerators together for None."""
    known = pools(bp)
    if name is None:
        return Pool("", tuple(node for pool in known for node in pool.classes))
    for pool in known:
        if pool.name == name:
            return pool
    names = ", ".join(pool.name or "none" for pool in known)
    raise SpecError([Fault("pool", name, "is no pool of the cluster", f"known: {names}")])


def all_to_all_Bps(  # noqa: N802  (the unit is part of the name)
    bp: Blueprint, pool: str | None = None, *, relay: bool = True, most_variables: int = MOST_VARIABLES
) -> Rate:
    """Return how much every accelerator of a cluster can send to all others, alike to each and all at once.

    Over all links of both planes, with every message split over as many paths as help.

    Parameters
    ----------
    bp
        The cluster.
    pool
        The accelerators that talk, where there are unlike ones (`topo.tiers.pools`); all of them by default.
    relay
        Whether an accelerator may send others' traffic on over any of its links (through its own switches and NIC, as
        NCCL's PXN does). If not, only over links to other accelerators, as in a torus.
    most_variables
        Where a linear program would have more flows (a chip lost from a large torus leaves no symmetry), the rate is
        the one of the worst cut, and not `exact`.

    Raises
    ------
    SpecError
        When there is no such pool, or it has fewer than two accelerators.

    Examples
    --------
    Two boxes of 8 on one switch, 50 GB/s per accelerator: half of the traffic, 8/15, leaves the box.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> rate = all_to_all_Bps(two)
    >>> round(rate.bandwidth_Bps / 1e9, 6), rate.accelerators, rate.exact, {held.plane for held in rate.limits}
    (93.75, 16, True, {'scale-out'})
    """
    q = Question(bp, _pool(bp, pool), relay=relay)
    if q.size < 2:
        raise SpecError([Fault("pool", pool, f"has {q.size} accelerators", "two or more can talk to each other")])
    return solved(q, most_variables) or Rate(cut_bound_Bps(bp, pool), q.size)


def _tier(bp: Blueprint, name: str, pool: str | None) -> tuple[Pool, Level, tuple[str, ...] | None]:
    """Return the pool, the level and the axes of its child blocks (None: one accelerator)."""
    for held in pools(bp) if pool is None else [_pool(bp, pool)]:
        child: tuple[str, ...] | None = None
        for level in bp.levels:
            if level.name == name:
                return held, level, child
            child = bp.own(level, held.classes[0])
    known = ", ".join(dict.fromkeys(level.name for level in bp.levels))
    raise SpecError([Fault("tier", name, "is no level of the cluster", f"known: {known}")])


def tier_exchange_Bps(  # noqa: N802  (the unit is part of the name)
    bp: Blueprint, tier: str, pool: str | None = None, *, most_variables: int = MOST_VARIABLES
) -> Rate:
    """Return how much every accelerator can send out of its child block, to all others in the block of a tier at once.

    As in `topo.tiers.Tier`, a child block is the block of the tier below (or one accelerator), and only links of the
    tier's own plane inside the block carry traffic. A child sends and takes by any of its accelerators, since the tiers
    below bring it there: a rail-only fabric is as good as any. Third children may relay. Between two accelerators of
    different children goes t, so that the rate is t times the accelerators outside one's own child (the smallest, where
    they are unlike). Behind switches that block nothing it is the tier's bandwidth.

    It is the rate of a full block; where the blueprint has changes, of the slowest block.

    Parameters
    ----------
    bp, pool
        The cluster, and the pool whose tier it is (see `topo.tiers.tiers`).
    tier
        Name of the level.
    most_variables
        Where a linear program would have more flows, the rate is the tier's bandwidth or a lower cut, and not `exact`.

    Raises
    ------
    SpecError
        When there is no such tier or pool, or no block of it has two children.

    Examples
    --------
    A ring of n = 8 with links of b = 100 GB/s each way: 8b (n - 1)/n².

    >>> from topo.blueprint import Axis, LinkClass, NodeClass
    >>> ring = Blueprint("ring", (Axis("x", 8, order="ring"),), (NodeClass("chip", "accelerator", ("x",)),),
    ...     (LinkClass("chip", "chip", 100e9, 0.0, "ici", along=("x",)),), (Level("ring"),))
    >>> round(tier_exchange_Bps(ring, "ring").bandwidth_Bps / 1e9, 6)
    87.5
    """
    held, level, child = _tier(bp, tier, pool)
    block = bp.own(level, held.classes[0])
    rates = list[Rate]()
    for place in _places(bp, held, block):
        q = Question(bp, held, place, block, child, level.plane)
        if sum(many for _, many in q.sources()) < 2:
            continue
        found = solved(q, most_variables)
        if found is None:
            bounds_Bps = [row.bandwidth_Bps for row, at, _ in priced(bp, held) if at is level]
            if child is None and not block:
                bounds_Bps.append(cut_bound_Bps(bp, held.name))
            return Rate(min(bounds_Bps), q.size)
        rates.append(found)
    if not rates:
        raise SpecError([Fault("tier", tier, "has no block with two children", "ask for another")])
    return min(rates, key=lambda rate: rate.bandwidth_Bps)


def _places(bp: Blueprint, pool: Pool, block: tuple[str, ...]) -> list[dict[str, int]]:
    """Return one block of every sort; without changes the first, a full one, as `topo.tiers` does."""
    if not bp.changes:
        return [dict.fromkeys(block, 0)]
    sorts: dict[tuple[Cell, ...], dict[str, int]] = {}
    for member in orbit_graph(bp).members.values():
        if member.node in pool.classes:
            cells, at = member.orbit.cells, member.orbit.example
            sorts.setdefault(tuple(cells[axis] for axis in block), {axis: at[axis] for axis in block})
    return list(sorts.values())


def all_to_all_bound(graph: "AnyGraph | Wires", *, relay: bool = True, most_variables: int = MOST_VARIABLES) -> Rate:
    """Return how much every accelerator of any graph can send to all others at once: imported, irregular, anything.

    Exact, by a linear program with one commodity per accelerator, as far as `most_variables` flows (accelerators times
    directions of links) go: some 64 accelerators. Beyond, the least of some cuts and of what path lengths allow, an
    upper bound (`topo.cutbounds`).

    Parameters
    ----------
    graph
        Any graph that follows `topo.schema`, or its arrays.
    relay
        Whether accelerators may send others' traffic on over any of their links, or only over links to others.
    most_variables
        The most flows of a linear program.

    Raises
    ------
    SpecError
        When there are fewer than two accelerators.

    Examples
    --------
    Three accelerators in a row, 50 GB/s each way: the middle's links carry 2 of the 6 messages each way.

    >>> import networkx as nx
    >>> row = nx.path_graph("abc")
    >>> nx.set_node_attributes(row, "accelerator", "kind")
    >>> nx.set_edge_attributes(row, {edge: {"bandwidth_Bps": 50e9, "latency_s": 1e-6} for edge in row.edges})
    >>> rate = all_to_all_bound(row)
    >>> round(rate.bandwidth_Bps / 1e9, 6), rate.exact
    (50.0, True)
    """
    w = wires(graph)
    ends = w.accelerators
    if len(ends) < 2:
        raise SpecError([Fault("graph", len(ends), "has fewer than two accelerators", "two can talk to each other")])
    tail, head, bandwidth_Bps, _ = w.arcs
    if len(ends) * len(tail) > most_variables:
        return Rate(graph_bound_Bps(graph), len(ends))
    demand = np.zeros(w.size)
    demand[ends] = 1.0
    talks = demand > 0
    arcs = np.flatnonzero((bandwidth_Bps > 0) & (tail != head))
    closed = np.zeros(len(tail), np.bool_) if relay else talks[tail] & ~talks[head]
    found = []
    for source in ends.tolist():
        own = arcs[(~closed[arcs] | (tail[arcs] == source)) & (head[arcs] != source)]
        found.append(Commodity(1.0, source, tail[own].astype(np.int64), head[own].astype(np.int64), own, demand))
    answer = concurrent(found, np.where(bandwidth_Bps > 0, bandwidth_Bps, 1.0))
    names = [(str(w.names[u]), str(w.names[v]), "", "") for u, v in zip(tail.tolist(), head.tolist(), strict=True)]
    return Rate(
        bandwidth_Bps=answer.pair_Bps * (len(ends) - 1),
        accelerators=len(ends),
        limits=limits(answer.weight, names),
        commodities=len(found),
        variables=answer.variables,
        rows=answer.rows,
        exact=True,
    )
