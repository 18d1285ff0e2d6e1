"""Tiers and the summary of a graph of any origin: imported, drawn by hand, or written out and changed.

What `topo.tiers` and `topo.survey` derive from a blueprint's symmetries is measured here on the graph itself: two
tiers, inside a scale-up domain and between domains. Accelerators and domains of one colour (`topo.refine`) are measured
once.
"""

from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS, Plane
from topo.errors import Fault, SpecError
from topo.flows import bisection, min_cut, worst_split
from topo.paths import hops
from topo.rails import scale_up_domains
from topo.refine import colours
from topo.schema import validate
from topo.tiers import Tier
from topo.wires import Wires, wires

if TYPE_CHECKING:
    from topo.wires import AnyGraph

Ints = npt.NDArray[np.int64]


def domains(graph: "AnyGraph") -> Ints:
    """Return the number of the scale-up domain of every node, -1 outside: as its attributes say, or by its wires.

    The attribute `domain` counts where every accelerator has one; else what hangs together without NICs is a domain.
    """
    said = [held.get("domain") for _, held in graph.nodes(data=True)]
    w = wires(graph)
    if any(said[i] is None for i in w.accelerators):
        return scale_up_domains(graph)
    names = list(dict.fromkeys(said[i] for i in w.accelerators))
    number = {name: i for i, name in enumerate(names)}
    return np.array([number.get(name, -1) if name is not None else -1 for name in said], dtype=np.int64)


def _part(w: Wires, kept: npt.NDArray[np.bool_]) -> Wires:
    """Return the nodes kept and the wires between them."""
    number = np.cumsum(kept) - 1
    wire = kept[w.tail] & kept[w.head]
    return Wires(
        names=[w.names[i] for i in np.flatnonzero(kept).tolist()],
        kind=w.kind[kept],
        tail=number[w.tail[wire]].astype(np.int32),
        head=number[w.head[wire]].astype(np.int32),
        bandwidth_Bps=w.bandwidth_Bps[wire],
        latency_s=w.latency_s[wire],
        directed=w.directed,
    )


def _one_of_each(keys: list[Any]) -> list[int]:
    """Return the first place of every distinct key."""
    first: dict[Any, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    return list(first.values())


def _inner(graph: "AnyGraph", w: Wires, home: Ints, colour: Ints) -> Tier | None:
    """Measure the tier inside a domain: the slowest accelerator against the others of its domain."""
    sorts = [(int(colour[i]), int(home[i])) for i in w.accelerators]
    worst: tuple[float, Wires, int] | None = None
    seen: set[int] = set()
    for place in _one_of_each(sorts):
        accelerator = int(w.accelerators[place])
        if int(colour[accelerator]) in seen:
            continue
        seen.add(int(colour[accelerator]))
        inside = _part(w, home == home[accelerator])
        me = int(np.sum(home[:accelerator] == home[accelerator]))
        others = inside.accelerators[inside.accelerators != me]
        if len(others):
            rate_Bps = min_cut(inside, np.array([me]), others).value_Bps
            if worst is None or rate_Bps < worst[0]:
                worst = (rate_Bps, inside, me)
    if worst is None or not worst[0]:  # alone, or joined only through the fabric
        return None
    rate_Bps, inside, me = worst
    sizes = Counter(home[w.accelerators].tolist())
    return _tier("domain", "scale-up", graph, inside, me, rate_Bps, max(sizes.values()), len(sizes))


def _outer(graph: "AnyGraph", w: Wires, home: Ints, colour: Ints) -> Tier | None:
    """Measure the tier between domains: the slowest domain, per accelerator, against all the others."""
    ends = w.accelerators
    mine = {number: ends[home[ends] == number] for number in dict.fromkeys(home[ends].tolist())}
    if len(mine) < 2:
        return None
    numbers = list(mine)
    sorts = [tuple(sorted(colour[mine[number]].tolist())) for number in numbers]
    rates_Bps = []
    for place in _one_of_each(sorts):
        left = mine[numbers[place]]
        right = np.setdiff1d(ends, left)
        rates_Bps.append((min_cut(w, left, right).value_Bps / min(len(left), len(right)), int(left[0])))
    rate_Bps, me = min(rates_Bps)
    return _tier("cluster", "scale-out", graph, w, me, rate_Bps, len(ends), 1, away=home != home[me])


def _tier(
    name: str,
    plane: Plane,
    graph: "AnyGraph",
    w: Wires,
    me: int,
    rate_Bps: float,
    size: int,
    blocks: int,
    away: npt.NDArray[np.bool_] | None = None,
) -> Tier:
    """Return a tier with the lightest path from one accelerator to another (of those `away`)."""
    path = _lightest(w, me, w.accelerators if away is None else w.accelerators[away[w.accelerators]])
    edges = [graph.edges[pair] for pair in pairwise(path)]
    switches = [graph.nodes[node] for node in path if graph.nodes[node]["kind"] == "switch"]
    return Tier(
        name=name,
        kind="switch" if switches else "mesh",
        plane=plane,
        size=size,
        blocks=blocks,
        bandwidth_Bps=rate_Bps,
        latency_s=sum(held["latency_s"] for held in edges),
        hops=len(edges),
        in_network_reduction=bool(switches) and all(held.get("in_network_reduction", False) for held in switches),
        link=str(edges[len(edges) // 2].get("link", "")) if edges else "",
    )


def _lightest(w: Wires, me: int, ends: npt.NDArray[Any]) -> list[Any]:
    """Return the names along the path of least latency to the nearest of some accelerators."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    tail, head, _, latency_s = w.arcs
    # SciPy takes a stored zero for no link, and adds up parallel ones.
    order = np.lexsort((latency_s, head, tail))
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(tail[order]) != 0) | (np.diff(head[order]) != 0)
    kept = order[first]
    weights = csr_array((latency_s[kept] + 1e-15, (tail[kept], head[kept])), shape=(w.size, w.size))
    away_s, before = dijkstra(weights, directed=True, indices=np.array([me]), return_predecessors=True)
    others = ends[ends != me]
    here = int(others[np.argmin(away_s[0, others])])
    path = [here]
    while here != me and before[0, here] >= 0:
        here = int(before[0, here])
        path.append(here)
    return [w.names[node] for node in reversed(path)]


def graph_tiers(graph: "AnyGraph") -> tuple[Tier, ...]:
    """Return the tiers of a graph of any origin: inside its scale-up domains, and between them.

    Raises
    ------
    SpecError
        When the graph breaks `topo.schema`, or has one accelerator only.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.graphs import expand
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> [(tier.name, tier.size, round(tier.bandwidth_Bps / 1e9), tier.hops) for tier in graph_tiers(expand(two))]
    [('domain', 8, 900, 2), ('cluster', 16, 50, 4)]
    """
    validate(graph)
    w, home, colour = wires(graph), domains(graph), colours(graph)
    found = [tier for tier in (_inner(graph, w, home, colour), _outer(graph, w, home, colour)) if tier is not None]
    if not found:
        raise SpecError([Fault("graph", None, "has one accelerator only", "there is nothing to join")])
    return tuple(found)


def graph_summary(graph: "AnyGraph") -> dict[str, Any]:
    """Return the figures of a graph of any origin, under the names of `topo.survey.summary`.

    `bisection_Bps` is the cut of the accelerators' order at half; `worst_split` and `worst_split_Bps` are the natural
    split (an axis halved, domains halved) with the least bandwidth.

    Raises
    ------
    SpecError
        As `graph_tiers`.
    """
    found = graph_tiers(graph)
    w = wires(graph)
    tail, head, rate_Bps, _ = w.arcs
    home = domains(graph)
    inside = (home[tail] == home[head]) & (home[tail] >= 0)
    injected = {
        plane: float(np.bincount(tail[kept], weights=rate_Bps[kept], minlength=w.size)[w.accelerators].mean())
        for plane, kept in (("scale-up", inside), ("scale-out", ~inside))
    }
    rows = []
    for tier in found:
        # NICs inside a domain: what leaves it is what its NICs carry, and a tier is never above one.
        ratio = max(1.0, injected[tier.plane] / tier.bandwidth_Bps) if tier.bandwidth_Bps else float("inf")
        rows.append({**asdict(tier), "oversubscription": ratio})
    name, worst = worst_split(graph)
    distances = hops(graph)
    counts: Counter[str] = Counter(str(held.get("part", "")) for _, held in graph.nodes(data=True))
    for *_, held in graph.edges(data=True):
        counts[str(held.get("link", ""))] += held.get("links", 1)
    return {
        "accelerators": len(w.accelerators),
        "nodes": {kind: int(np.sum(w.kind == i)) for i, kind in enumerate(KINDS) if np.any(w.kind == i)},
        "pools": [""],
        "tiers": rows,
        "bisection_Bps": bisection(graph).value_Bps,
        "worst_split": name,
        "worst_split_Bps": worst.value_Bps,
        "oversubscription": rows[-1]["oversubscription"],
        "diameter_hops": max(distances, default=0),
        "hops": distances,
        "parts": {key: count for key, count in counts.items() if key},
    }
