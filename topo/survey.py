"""The figures of a cluster that people compare: bisection, oversubscription, diameter, hops, and the bill of parts."""

import math
from collections import Counter
from dataclasses import asdict
from itertools import combinations, pairwise
from typing import Any

from topo.blueprint import Blueprint, Plane
from topo.orbitcuts import cut, lightest
from topo.orbits import orbit_graph, quotient
from topo.tiers import Pool, Priced, inside, pools, priced


def _half_marks(bp: Blueprint, pool: Pool, found: list[Priced]) -> list[dict[str, int | range]]:
    """Return marks on the first half of the accelerators: whole blocks, then blocks of the next one, and so on.

    Descends as far as the outermost tier's plane goes, so that a scale-up domain is cut only where it is all there is.
    Where a child has several axes of its own (an accelerator in a domain), one of them is halved, an even one if any,
    and the longest of those: the cut across a torus.
    """
    marks: list[dict[str, int | range]] = []
    path: dict[str, int | range] = {}
    left = found[-1][0].size // 2
    sizes = [1, *(tier.size for tier, _, _ in found[:-1])]
    for (tier, level, child), size in reversed(list(zip(found, sizes, strict=True))):
        own = [name for name in child if name not in bp.own(level, pool.classes[0])]
        parents = {name: bp.closure((name,))[:-1] for name in own}
        wide = [n for n in own if bp.axis[n].size > 1 and all(bp.axis[p].size == 1 for p in parents[n] if p in own)]
        if tier.plane != found[-1][0].plane or (marks and len(wide) > 1):
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


def _bisection(bp: Blueprint, found: dict[Pool, list[Priced]]) -> float:
    """Return the minimum cut between two halves of the accelerators, in bytes/s.

    As far as whole blocks allow; where pools are unlike, the first half of the nodes written out against the second.
    """
    if len(found) > 1:
        from topo.flows import bisection
        from topo.graphs import flat

        return bisection(flat(bp)).value_Bps
    ((pool, rows),) = found.items()
    marks = _half_marks(bp, pool, rows)
    spans = [
        [(name, (v.start, v.stop) if isinstance(v, range) else (v, v + 1)) for name, v in mark.items()]
        for mark in marks
    ]
    graph = inside(orbit_graph(bp, marks), rows[-1][0].plane, {}, ())
    left, right = list[str](), list[str]()
    for orbit, member in graph.members.items():
        if member.node.kind == "accelerator":
            mine = any(all(span in member.orbit.cells[name] for name, span in mark) for mark in spans)
            (left if mine else right).append(orbit)
    return cut(graph, left, right)


def between(bp: Blueprint, one: Pool, other: Pool) -> dict[str, Any]:
    """Return what joins two pools: the maximum flow in bytes/s, and latency and links of the lightest path.

    Examples
    --------
    >>> from topo.compose import Core, joined
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> rack = cluster_blueprint("rack", 1, ScaleUp(8, 900e9, 1e-6, "nvlink"), None)
    >>> both = joined("both", {"old": rack, "new": rack}, Core("xdr", {"old": 400e9, "new": 400e9}))
    >>> between(both, *pools(both))["bandwidth_Bps"] / 1e9
    400.0
    """
    graph = orbit_graph(bp)
    ends = [[name for name, member in graph.members.items() if member.node in pool.classes] for pool in (one, other)]
    path = lightest(graph, *ends)
    return {
        "pools": [one.name, other.name],
        "bandwidth_Bps": cut(graph, *ends),
        "latency_s": math.fsum(graph.joints[pair].latency_s for pair in pairwise(path)),
        "hops": len(path) - 1,
    }


def _injection(bp: Blueprint, pool: Pool, plane: Plane) -> float:
    """Return the mean bandwidth per accelerator of a pool into one plane, from its own links alone."""
    found = orbit_graph(bp)
    names = {node.name for node in pool.classes}
    mine = {name: member.multiplicity for name, member in found.members.items() if member.node.name in names}
    total = math.fsum(arc.bandwidth_Bps for arc in found.arcs if arc.tail in mine and arc.wire.plane == plane)
    return total / sum(mine.values())


def hop_histogram(bp: Blueprint) -> dict[int, int]:
    """Return how many ordered pairs of accelerators are so many links apart, on shortest paths of any plane.

    Examples
    --------
    A ring of 6: each has two neighbours, two beyond them, and one opposite.

    >>> from topo.blueprint import Axis, Level, LinkClass, NodeClass
    >>> ring = Blueprint("ring", (Axis("x", 6, order="ring"),), (NodeClass("chip", "accelerator", ("x",)),),
    ...     (LinkClass("chip", "chip", 1.0, 0.0, "ici", along=("x",)),), (Level("all"),))
    >>> hop_histogram(ring)
    {1: 12, 2: 12, 3: 6}
    """
    import networkx as nx

    pairs: Counter[int] = Counter()
    for member in orbit_graph(bp).members.values():
        if member.node.kind != "accelerator":
            continue
        example = member.orbit.example
        graph = quotient(bp, [example] if example else ())
        start = next(
            orbit
            for orbit, held in graph.nodes(data=True)
            if held["node_class"] == member.node.name and held["example"] == example
        )
        for orbit, hops in nx.single_source_shortest_path_length(graph, start).items():
            held = graph.nodes[orbit]
            if held["kind"] == "accelerator" and orbit != start:
                pairs[hops] += member.multiplicity * held["multiplicity"]
    return dict(sorted(pairs.items()))


def parts(bp: Blueprint) -> dict[str, int]:
    """Count what is bought: nodes by part, links by key; empty keys are not bought, and what is gone is not there.

    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> parts(cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None))
    {'accelerator': 8, 'scale-up-switch': 4, 'nvlink': 32}
    """
    found = orbit_graph(bp)
    counts: Counter[str] = Counter()
    for member in found.members.values():
        counts[member.node.part] += member.multiplicity
    ends: Counter[str] = Counter()
    for arc in found.arcs:
        ends[arc.wire.link] += arc.links
    for key, both_directions in ends.items():
        counts[key] += both_directions // 2
    for key, count in bp.extra_parts:
        counts[key] += count
    return {key: count for key, count in counts.items() if key and count}


def summary(bp: Blueprint) -> dict[str, Any]:
    """Return the figures of a cluster that people compare.

    Returns
    -------
    dict
        `accelerators`; `tiers` (a dict each, with `oversubscription`: what an accelerator can inject on the tier's
        plane over what it has at that level); `bisection_Bps` between two halves, per direction, on the outermost
        tier's plane (whole domains, so halves are as equal as those allow); `oversubscription`, the worst on that
        plane; `diameter_hops`, in links, of the two accelerators furthest apart, and `hops`, how many ordered pairs are
        how far apart; `pools`, and `between_pools`, what joins each two; `parts`, how many of each key.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), ScaleOut(50e9, "ib"))
    >>> facts = summary(two)
    >>> facts["bisection_Bps"] / 1e9, facts["oversubscription"], facts["diameter_hops"]
    (400.0, 1.0, 6)
    >>> facts["parts"]
    {'accelerator': 16, 'scale-up-switch': 8, 'nic': 16, 'switch': 8, 'nvlink': 64, 'ib': 16}
    """
    found = {pool: priced(bp, pool) for pool in pools(bp)}
    rows = []
    for pool, held in found.items():
        for tier, _, _ in held:
            injected_Bps = _injection(bp, pool, tier.plane)
            rows.append({**asdict(tier), "oversubscription": injected_Bps / tier.bandwidth_Bps})
    hops = hop_histogram(bp)
    plane = next((held[-1][0].plane for held in found.values() if held), None)
    return {
        "accelerators": sum(
            member.multiplicity for member in orbit_graph(bp).members.values() if member.node.kind == "accelerator"
        ),
        "pools": [pool.name for pool in found],
        "between_pools": [between(bp, *pair) for pair in combinations(found, 2)],
        "tiers": rows,
        "bisection_Bps": _bisection(bp, found) if plane else 0.0,
        "oversubscription": max((row["oversubscription"] for row in rows if row["plane"] == plane), default=1.0),
        "diameter_hops": max(hops, default=0),
        "hops": hops,
        "parts": parts(bp),
    }
