"""Upper bounds of all-to-all traffic that need no linear program: cuts, and the lengths of paths.

If each of n accelerators sends R/(n - 1) to every other, then out of any set of a of them goes a (n - a) R/(n - 1), which
no cut between the set and the rest can be less than. And every byte takes at least as many links as its ends are apart.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from topo.blueprint import Blueprint
from topo.errors import Fault, SpecError
from topo.flows import bisection, natural_splits
from topo.orbitcuts import cut
from topo.orbits import orbit_graph
from topo.paths import hops
from topo.symmetry import normal_marks
from topo.tiers import pools
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

Split = Mapping[str, int | range]

_MOST_ARCS = 200_000
"""How many arcs of quotients are cut through, all splits together: some seconds."""


def rate_across_Bps(cut_Bps: float, inside: int, total: int) -> float:  # noqa: N802  (the unit is part of the name)
    """Return the all-to-all rate per accelerator that fills a cut: C (n - 1) / (a (n - a)), a of n on one side.

    >>> rate_across_Bps(400e9, 8, 16) / 1e9
    93.75
    """
    return cut_Bps * (total - 1) / (inside * (total - inside))


# --- of a blueprint --------------------------------------------------------------------------------------------------


def _splits(bp: Blueprint, names: set[str]) -> Iterator[Split]:
    """Yield the splits that a cluster's build suggests: halves of each axis, one accelerator or block against the rest.

    Around changes, one of each sort, those of the accelerators with the least bandwidth first.
    """
    found = orbit_graph(bp)
    own_Bps = {name: 0.0 for name, held in found.members.items() if held.node.name in names}
    for arc in found.arcs:
        if arc.tail in own_Bps:
            own_Bps[arc.tail] += arc.bandwidth_Bps / found.members[arc.tail].multiplicity
    places = [found.members[name].orbit.example for name in sorted(own_Bps, key=lambda orbit: own_Bps[orbit])]
    halves = {axis: range(bp.axis[axis].size // 2) for at in places for axis in at if bp.axis[axis].size > 1}
    yield from ({axis: half} for axis, half in halves.items())
    for at in places:
        yield dict(at)
        for axis in at:
            block = {step: at[step] for step in bp.closure((axis,))}
            yield block
            if axis in halves:
                yield {**block, axis: halves[axis]}


def cut_bound_Bps(bp: Blueprint, pool: str | None = None) -> float:  # noqa: N802  (the unit is part of the name)
    """Return the most that any accelerator can send in all-to-all traffic, as far as natural cuts tell.

    The least of C(S) (n - 1) / (|S| (n - |S|)) over blocks, single accelerators, and halves along each axis (in all
    blocks alike, and in one), where C is the minimum cut between the accelerators of S and the other ones.

    Parameters
    ----------
    bp
        The cluster.
    pool
        The accelerators that talk: `topo.tiers.pools`; all by default.

    Raises
    ------
    SpecError
        When there is no such pool, or it has fewer than two accelerators.

    Examples
    --------
    Two boxes of 8: 400 GB/s one way between them, for 8 · 8 of the 16 · 15 messages.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> cut_bound_Bps(two) / 1e9
    93.75
    """
    names = {node.name for held in pools(bp) if pool in (None, held.name) for node in held.classes}
    members = orbit_graph(bp).members.values()
    total = sum(held.multiplicity for held in members if held.node.name in names)
    if total < 2:
        raise SpecError([Fault("pool", pool, f"has {total} accelerators", "two or more can talk to each other")])
    rates_Bps, arcs = list[float](), 0
    for split in {normal_marks(bp, [split]): split for split in _splits(bp, names) if split}.values():
        spans = [(axis, (v.start, v.stop) if isinstance(v, range) else (v, v + 1)) for axis, v in split.items()]
        graph = orbit_graph(bp, [split])
        ends = {orbit: member for orbit, member in graph.members.items() if member.node.name in names}
        left = [o for o, m in ends.items() if all(span in m.orbit.cells.get(axis, ()) for axis, span in spans)]
        inside = sum(ends[orbit].multiplicity for orbit in left)
        if 0 < inside < total:
            right = [orbit for orbit in ends if orbit not in set(left)]
            rates_Bps.append(rate_across_Bps(cut(graph, left, right), inside, total))
            arcs += len(graph.joints)
        if arcs > _MOST_ARCS:
            break
    return min(rates_Bps)


# --- of any graph ----------------------------------------------------------------------------------------------------


def graph_bound_Bps(graph: "AnyGraph | Wires") -> float:  # noqa: N802  (the unit is part of the name)
    """Return the most that any accelerator can send in all-to-all traffic over a graph, as far as simple bounds tell.

    The least of: what the links of a single accelerator carry; minimum cuts of `natural_splits`, and of the first half,
    quarter, eighth … of the accelerators, in the graph's order; and Σ capacity / Σ distance of all pairs.

    Examples
    --------
    A ring of 6 with links of 3 bytes/s: 36 bytes/s of capacity for 54 links' worth of one byte/s between each two.

    >>> import networkx as nx
    >>> ring = nx.cycle_graph(6)
    >>> nx.set_node_attributes(ring, "accelerator", "kind")
    >>> nx.set_edge_attributes(ring, {edge: {"bandwidth_Bps": 3.0, "latency_s": 1e-6} for edge in ring.edges})
    >>> round(graph_bound_Bps(ring), 6)
    3.333333
    """
    w = wires(graph)
    ends, total = w.accelerators, len(w.accelerators)
    if total < 2:
        raise SpecError(
            [Fault("graph", total, "has fewer than two accelerators", "two or more can talk to each other")]
        )
    tail, head, bandwidth_Bps, _ = w.arcs
    own = [np.bincount(side, bandwidth_Bps, w.size)[ends].min() for side in (tail, head)]
    splits = list(natural_splits(graph).values()) + [ends[: total >> i] for i in range(2, total.bit_length())]
    across = [
        rate_across_Bps(bisection(w, left).value_Bps, len(left), total) for left in splits if 0 < len(left) < total
    ]
    return float(min(*own, *across, _volume_Bps(w)))


def _volume_Bps(w: Wires) -> float:  # noqa: N802  (the unit is part of the name)
    """Return the rate at which shortest paths would fill all links: (n - 1) Σ capacity / Σ distance.

    Zero where some two accelerators have no path.
    """
    try:
        apart = hops(w)
    except SpecError:  # which names who cannot be reached
        return 0.0
    links = sum(length * pairs for length, pairs in apart.items())
    return float((len(w.accelerators) - 1) * w.arcs[2].sum() / links)
