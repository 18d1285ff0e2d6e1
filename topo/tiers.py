"""What a sweep needs of a graph, derived from it: per level the size, bandwidth, latency; and a summary.

All numbers come from cuts and lightest paths on `quotient`, none from the arguments that a builder was called with.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from topo.blueprint import Blueprint, Level, NodeClass, Plane
from topo.errors import Fault, SpecError
from topo.orbits import quotient

if TYPE_CHECKING:
    import networkx as nx

_TIE_S = 1e-15
"""Added to every link when looking for the lightest path, so that among equal latencies fewer links win."""


@dataclass(frozen=True)
class Tier:
    """One level of a cluster as its accelerators see it.

    Attributes
    ----------
    name, kind, plane
        From the blueprint's `Level`.
    size
        Accelerators per block (of a full block, where the last is smaller).
    blocks
        Blocks in the cluster.
    bandwidth_Bps
        Bytes/s per accelerator and direction between one child block (the block of the tier below, or one accelerator)
        and its siblings inside the block: their minimum cut over the accelerators of the smaller side, and no more than
        what the child can put out over its own.
    latency_s, hops
        Of the lightest path between two accelerators of one block and different child blocks; hops are links.
    in_network_reduction
        Whether every switch on that path can sum.
    link
        Key of the link at the turning point of that path.
    """

    name: str
    kind: str
    plane: Plane
    size: int
    blocks: int
    bandwidth_Bps: float
    latency_s: float
    hops: int
    in_network_reduction: bool
    link: str


@dataclass(frozen=True)
class _Sides:
    """Two sets of accelerator orbits and the part of the quotient that joins them."""

    graph: "nx.DiGraph[str]"
    left: list[str]
    right: list[str]
    outside: list[str]
    """Nodes that are not inside the left block alone."""

    def count(self, side: list[str]) -> int:
        return sum(self.graph.nodes[orbit]["multiplicity"] for orbit in side)


def _first(cells: dict[str, Any], axes: Iterable[str]) -> bool:
    """Return whether an orbit lies in the first block of `axes` (coordinate 0 on each of them)."""
    return all((0, 1) in cells.get(axis, ()) for axis in axes)


def _inside(graph: "nx.DiGraph[str]", level: Level, axes: tuple[str, ...]) -> "nx.DiGraph[str]":
    """Return the part of a quotient that is inside the first block of a level, on the level's plane."""
    import networkx as nx

    kept: nx.DiGraph[str] = nx.DiGraph()
    kept.add_nodes_from((node, held) for node, held in graph.nodes(data=True) if _first(held["cells"], axes))
    kept.add_edges_from(
        (u, v, held)
        for u, v, held in graph.edges(data=True)
        if u in kept and v in kept and held["plane"] == level.plane
    )
    return kept


def _child_and_siblings(bp: Blueprint, level: Level, child: tuple[str, ...], of: NodeClass | None) -> _Sides:
    """Return the first child block of the first block of `level`, and the block's other accelerators.

    `child` is a closure of axes; `of` is the accelerator class when the child is a single accelerator.
    """
    graph = _inside(quotient(bp, [dict.fromkeys(child, 0)] if child else ()), level, bp.closure(level.axes))
    mine = {
        orbit
        for orbit, held in graph.nodes(data=True)
        if _first(held["cells"], child) and (of is None or held["node_class"] == of.name)
    }
    ends = [orbit for orbit, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    return _Sides(
        graph,
        left=[orbit for orbit in ends if orbit in mine],
        right=[orbit for orbit in ends if orbit not in mine],
        outside=[orbit for orbit in graph if orbit not in mine],
    )


def _cut(graph: "nx.DiGraph[str]", left: list[str], right: list[str]) -> float:
    """Return the maximum flow (= minimum cut) from one set of orbits to another, in bytes/s.

    Capacities are rounded to whole bytes/s, in which NetworkX computes exactly.
    """
    import networkx as nx
    from networkx.algorithms.flow import shortest_augmenting_path

    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_nodes_from(("<", ">"))
    flow.add_edges_from((u, v, {"capacity": round(held["bandwidth_Bps"])}) for u, v, held in graph.edges(data=True))
    flow.add_edges_from(("<", orbit) for orbit in left)
    flow.add_edges_from((orbit, ">") for orbit in right)
    return float(nx.maximum_flow_value(flow, "<", ">", flow_func=shortest_augmenting_path))


def _lightest(sides: _Sides) -> list[str]:
    """Return the path of least latency from one side to the other (fewest links among equals)."""
    import networkx as nx

    def weight(_u: str, _v: str, held: dict[str, Any]) -> float:
        return float(held["latency_s"]) + _TIE_S

    lengths: dict[str, float]
    paths: dict[str, list[str]]
    lengths, paths = nx.multi_source_dijkstra(sides.graph, set(sides.left), weight=weight)  # type: ignore[assignment]
    return paths[min(sides.right, key=lambda orbit: (lengths.get(orbit, math.inf), orbit))]


def _rate(sides: _Sides) -> float:
    """Return the bytes/s per accelerator between a child block and its siblings: see `Tier`."""
    mine, theirs = sides.count(sides.left), sides.count(sides.right)
    rate = _cut(sides.graph, sides.left, sides.right) / min(mine, theirs)
    return min(rate, _cut(sides.graph, sides.left, sides.outside) / mine) if theirs < mine else rate


def _tier(bp: Blueprint, level: Level, options: list[_Sides]) -> Tier:
    """Price one level: the worst accelerator class where several exist (`options`), the path of the first."""
    rates_Bps = [_rate(sides) for sides in options]
    if min(rates_Bps) <= 0:
        raise SpecError(
            [Fault(f"levels[{level.name}]", None, f"its blocks are not joined by {level.plane} links", "add links")]
        )
    sides = options[0]
    path = _lightest(sides)
    edges = [sides.graph.edges[pair] for pair in pairwise(path)]
    switches = [held for orbit in path if (held := sides.graph.nodes[orbit])["kind"] == "switch"]
    return Tier(
        name=level.name,
        kind=level.kind,
        plane=level.plane,
        size=sides.count(sides.left) + sides.count(sides.right),
        blocks=bp.population(level.axes),
        bandwidth_Bps=min(rates_Bps),
        latency_s=math.fsum(held["latency_s"] for held in edges),
        hops=len(edges),
        in_network_reduction=bool(switches) and all(held["in_network_reduction"] for held in switches),
        link=edges[len(edges) // 2]["link"],
    )


_Priced = tuple[Tier, Level, tuple[str, ...]]  # a tier, its level, and the axes of its child block


def _priced(bp: Blueprint) -> list[_Priced]:
    """Return every tier with its level and the axes of its child block."""
    accelerators = [node for node in bp.nodes if node.kind == "accelerator"]
    found: list[_Priced] = []
    child: tuple[str, ...] | None = None
    for level in bp.levels:
        if child is None:
            options = [_child_and_siblings(bp, level, bp.closure(node.axes), node) for node in accelerators]
        else:
            options = [_child_and_siblings(bp, level, child, None)]
        if all(sides.right for sides in options):
            found.append(
                (_tier(bp, level, options), level, bp.closure(accelerators[0].axes) if child is None else child)
            )
            child = bp.closure(level.axes)
    return found


def tiers(bp: Blueprint) -> tuple[Tier, ...]:
    """Return the tiers of a cluster, innermost first; levels whose blocks have one child only are left out.

    Only links of the level's own plane, inside the block, carry its traffic.

    Raises
    ------
    SpecError
        When the children of a level are not joined.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), ScaleOut(50e9, "ib"))
    >>> [(tier.name, tier.size, tier.bandwidth_Bps / 1e9, tier.hops) for tier in tiers(two)]
    [('domain', 8, 900.0, 2), ('leaf', 16, 50.0, 4)]
    """
    return tuple(tier for tier, _, _ in _priced(bp))


def _half_marks(bp: Blueprint, priced: list[_Priced]) -> list[dict[str, int | range]]:
    """Return marks on the first half of the accelerators: whole blocks, then blocks of the next one, and so on.

    Descends as far as the outermost tier's plane goes, so that a scale-up domain is cut only where it is all there is.
    Where a child has several axes of its own (an accelerator in a domain), one of them is halved, an even one if any.
    """
    marks: list[dict[str, int | range]] = []
    path: dict[str, int | range] = {}
    left = priced[-1][0].size // 2
    sizes = [1, *(tier.size for tier, _, _ in priced[:-1])]
    for (tier, level, child), size in reversed(list(zip(priced, sizes, strict=True))):
        own = [name for name in child if name not in bp.closure(level.axes)]
        parents = {name: bp.closure((name,))[:-1] for name in own}
        wide = [n for n in own if bp.axis[n].size > 1 and all(bp.axis[p].size == 1 for p in parents[n] if p in own)]
        if tier.plane != priced[-1][0].plane or (marks and len(wide) > 1):
            break
        axis = min(wide, key=lambda name: (bp.axis[name].size % 2, -bp.axis[name].size))
        each = size * math.prod(bp.axis[name].size for name in own if axis in parents[name])
        take = bp.axis[axis].size // 2 if len(wide) > 1 else left // each
        path |= {name: 0 for name in parents[axis] if name not in path}
        if take:
            marks.append({**path, axis: range(take)})
        left -= take * each
        if left <= 0 or len(wide) > 1:
            break
        path[axis] = take
    return marks


def _bisection(bp: Blueprint, priced: list[_Priced]) -> float:
    """Return the minimum cut between two halves of the accelerators (as far as whole blocks allow), in bytes/s."""
    marks = _half_marks(bp, priced)
    spans = [
        [(name, (v.start, v.stop) if isinstance(v, range) else (v, v + 1)) for name, v in mark.items()]
        for mark in marks
    ]
    graph = _inside(quotient(bp, marks), priced[-1][1], ())
    left, right = list[str](), list[str]()
    for orbit, held in graph.nodes(data=True):
        if held["kind"] == "accelerator":
            mine = any(all(span in held["cells"][name] for name, span in mark) for mark in spans)
            (left if mine else right).append(orbit)
    return _cut(graph, left, right)


def _injection(bp: Blueprint, plane: Plane) -> float:
    """Return the mean bandwidth per accelerator into one plane, from its own links alone."""
    graph = quotient(bp)
    mine = {orbit for orbit, held in graph.nodes(data=True) if held["kind"] == "accelerator"}
    total = sum(held["bandwidth_Bps"] for u, _, held in graph.edges(data=True) if u in mine and held["plane"] == plane)
    return float(total / sum(graph.nodes[orbit]["multiplicity"] for orbit in mine))


def _diameter(bp: Blueprint) -> int:
    """Return the most links on a shortest path between two accelerators (through others where that is shorter)."""
    import networkx as nx

    worst = 0
    for _, held in quotient(bp).nodes(data=True):
        if held["kind"] != "accelerator":
            continue
        graph = quotient(bp, [held["example"]] if held["example"] else ())
        start = next(
            orbit
            for orbit, other in graph.nodes(data=True)
            if other["node_class"] == held["node_class"] and other["example"] == held["example"]
        )
        away = nx.single_source_shortest_path_length(graph, start)
        worst = max(worst, *(hops for orbit, hops in away.items() if graph.nodes[orbit]["kind"] == "accelerator"))
    return worst


def _parts(bp: Blueprint) -> dict[str, int]:
    """Count what is bought: nodes by part, links by key; empty keys are not bought."""
    graph = quotient(bp)
    nodes = [(held["part"], held["multiplicity"]) for _, held in graph.nodes(data=True)]
    links = [(held["link"], held["links"]) for _, _, held in graph.to_undirected(as_view=True).edges(data=True)]
    parts: dict[str, int] = {}
    for part, count in (*nodes, *links):
        if part:
            parts[part] = parts.get(part, 0) + count
    return parts


def summary(bp: Blueprint) -> dict[str, Any]:
    """Return the figures of a cluster that people compare.

    Returns
    -------
    dict
        `accelerators`; `tiers` (a dict each); `bisection_Bps` between two halves, per direction, on the outermost
        tier's plane (whole domains, so halves are as equal as those allow); `oversubscription`, what an accelerator can
        inject on that plane over the least bandwidth of its tiers; `diameter_hops`, in links, of the two accelerators
        furthest apart; `parts`, how many of each key.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), ScaleOut(50e9, "ib"))
    >>> facts = summary(two)
    >>> facts["bisection_Bps"] / 1e9, facts["oversubscription"], facts["diameter_hops"]
    (400.0, 1.0, 6)
    >>> facts["parts"]
    {'accelerator': 16, 'nvswitch': 8, 'nic': 16, 'switch': 8, 'nvlink': 64, 'ib': 16}
    """
    priced = _priced(bp)
    facts: dict[str, Any] = {
        "accelerators": sum(bp.population(node.axes) for node in bp.nodes if node.kind == "accelerator"),
        "tiers": [asdict(tier) for tier, _, _ in priced],
        "bisection_Bps": 0.0,
        "oversubscription": 1.0,
        "diameter_hops": _diameter(bp),
        "parts": _parts(bp),
    }
    if priced:
        plane = priced[-1][0].plane
        facts["bisection_Bps"] = _bisection(bp, priced)
        least_Bps = min(tier.bandwidth_Bps for tier, _, _ in priced if tier.plane == plane)
        facts["oversubscription"] = _injection(bp, plane) / least_Bps
    return facts
