"""Which wire stops a step: every tier made twice as fast, the step priced again, and the tier's cut named in the graph.

A collective takes ``a + V/B`` on a tier of bandwidth B, so ``V/B = 2·(t(B) − t(2B))``: what twice the bandwidth saves is half
of the time that the wire itself is at work. That, over the step, is the tier's load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clusters.build import Cluster
from parallel.explain.scene import Scene, ServeScene, TrainScene
from parallel.priced import Priced
from parallel.results import at
from parallel.serving import phases as serving
from parallel.training import step as training
from topo.blueprint import Blueprint

if TYPE_CHECKING:
    from topo.tiers import Tier

WIRES: Final[tuple[str, ...]] = ("tp", "cp", "ep", "dp", "pp")
"""Terms that put bytes on wires."""
RESOURCES: Final[Mapping[str, str]] = {
    "compute": "dense FLOP/s of the accelerator",
    "memory": "memory bandwidth of the accelerator",
    "launch": "the time that kernels take to start",
}
WAITING: Final[Mapping[str, str]] = {
    "host": "the host that launches kernels",
    "step": "the host between steps",
    "imbalance": "the slowest pipeline stage",
    "bubble": "the pipeline's first and last micro-batches",
    "contention": "multiprocessors that communication takes",
    "recompute": "forward work that backward does again, for memory's sake",
    "optimizer": "memory bandwidth of the accelerator",
    "amax": "latency of an all-reduce of a few kilobytes",
    "evaluation": "forward work that trains nothing",
}


@dataclass(frozen=True, slots=True)
class Wire:
    """One tier under a step.

    Attributes
    ----------
    saved_s : by term, busy seconds that twice the bandwidth saves
    shorter : share of the step that twice the bandwidth saves
    load : share of the step in which the tier's wire is at work
    """

    tier: "Tier"
    index: int
    saved_s: Mapping[str, float]
    shorter: float
    load: float


def _faster(cluster: Cluster, index: int) -> Cluster:
    """Return the cluster with one tier twice as fast; its name in the caches is its own."""
    tier = cluster.tiers[index]
    direct = tuple(replace(axis, bandwidth_Bps=2.0 * axis.bandwidth_Bps) for axis in tier.direct)
    tiers = list(cluster.tiers)
    tiers[index] = replace(tier, bandwidth_Bps=2.0 * tier.bandwidth_Bps, direct=direct)
    return replace(cluster, tiers=tuple(tiers), fingerprint=f"{cluster.fingerprint}, tier {index} twice as fast")


def _priced(scene: Scene, cluster: Cluster) -> Priced:
    if isinstance(scene, TrainScene):
        return training.price(replace(scene.job, cluster=cluster), scene.point.cols)
    if isinstance(scene, ServeScene):
        return serving.price(replace(scene.job, cluster=cluster), scene.point.phase, scene.point.cols)
    raise TypeError(scene)


def wires(scene: Scene) -> list[Wire]:
    """Return every tier that carries anything, with what twice its bandwidth would save."""
    found = []
    for index, tier in enumerate(scene.cluster.tiers):
        priced = _priced(scene, _faster(scene.cluster, index))
        busy = at(priced.busy, 0)
        saved = {name: scene.busy[name] - busy.get(name, 0.0) for name in WIRES if name in scene.busy}
        shorter = 1.0 - float(priced.seconds[0]) / scene.seconds
        load = min(2.0 * sum(saved.values()) / scene.seconds, 1.0)
        if load > 0:
            found.append(Wire(tier, index, saved, shorter, load))
    return found


def cut_of(cluster: Cluster, index: int) -> list[dict[str, Any]]:
    """Return the links that set a tier's bandwidth: the least cut between a child block and its siblings, by class.

    Empty for an imported graph, which has no classes.

    >>> from clusters.build import build
    >>> from clusters.spec import load, with_
    >>> box = build(with_(load("hgx-h100"), accelerators=1024))
    >>> [(row["from"], row["to"], row["link"], row["links"]) for row in cut_of(box, 0)]
    [('accelerator', 'scale-up-switch', 'nvlink4', 4)]
    """
    import networkx as nx

    from topo.orbits import as_graph, orbit_graph
    from topo.tiers import inside, pools, priced

    if not isinstance(cluster.wiring, Blueprint):
        return []
    bp, wanted = cluster.wiring, cluster.spec.focus
    every = pools(bp)
    pool = next((held for held in every if wanted and held.name.startswith(f"{wanted}.")), every[0])
    _, level, child = priced(bp, pool)[index]
    place = dict.fromkeys(child, 0)
    orbits = inside(orbit_graph(bp, [place] if place else ()), level.plane, place, bp.own(level, pool.classes[0]))
    graph = as_graph(orbits)
    names = {node.name for node in pool.classes}
    ends = [orbit for orbit, held in graph.nodes(data=True) if held["node_class"] in names]
    mine = [o for o in ends if all((0, 1) in graph.nodes[o]["cells"].get(axis, ()) for axis in child)]
    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_edges_from((u, v, {"capacity": round(held["bandwidth_Bps"])}) for u, v, held in graph.edges(data=True))
    flow.add_edges_from(("<", orbit) for orbit in mine)
    flow.add_edges_from((orbit, ">") for orbit in ends if orbit not in mine)
    if not mine or len(mine) == len(ends):
        return []
    _, (near, _) = nx.minimum_cut(flow, "<", ">")
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for u, v, held in graph.edges(data=True):
        if u in near and v not in near:
            classes = (graph.nodes[u]["node_class"], graph.nodes[v]["node_class"])
            key = (*classes, held["link"])
            row = rows.setdefault(key, {"from": key[0], "to": key[1], "link": key[2], "links": 0, "bandwidth_Bps": 0.0})
            row["links"] += held["links"]
            row["bandwidth_Bps"] += held["bandwidth_Bps"]
    return sorted(rows.values(), key=lambda row: -row["bandwidth_Bps"])


def wire_row(scene: Scene, wire: Wire) -> dict[str, Any]:
    """Return one tier as a row: what it is in the graph, how fast, how loaded, and what twice as much would save."""
    tier = wire.tier
    cut = cut_of(scene.cluster, wire.index)
    return {
        "tier": tier.name,
        "plane": tier.plane,
        "link": tier.link,
        "nodes": [[row["from"], row["to"]] for row in cut],
        "cut": cut,
        "accelerators": tier.size,
        "bandwidth_Bps": tier.bandwidth_Bps,
        "latency_s": tier.latency_s,
        "load": wire.load,
        "saved_by_twice": wire.shorter,
        "terms": {name: 2.0 * seconds for name, seconds in wire.saved_s.items() if seconds > 0},
    }


def bottleneck(scene: Scene, bounds: Mapping[str, str], tiers: Sequence[Wire]) -> dict[str, Any]:
    """Return the largest term, what it waits for, and the wire behind it (or, where it is none, the busiest wire).

    `bounds` says of each term of operators what bounds the longest of them, `tiers` are `wires`.
    """
    term = max(scene.terms, key=lambda name: scene.terms[name])
    mine = [wire for wire in tiers if wire.saved_s.get(term, 0.0) > 0]
    pick = max(mine, key=lambda wire: wire.saved_s[term]) if mine else max(tiers, key=lambda w: w.load, default=None)
    row = wire_row(scene, pick) if pick else None
    if term in WIRES:
        resource = "the wire" if mine else "latency and software of the collective"
    else:
        resource = WAITING.get(term) or RESOURCES[bounds.get(term, "launch")]
    return {
        "term": term,
        "seconds": scene.terms[term],
        "share": scene.terms[term] / scene.seconds,
        "waits_for": resource,
        "bound": bounds.get(term),
        "on_the_wire": term in WIRES,
        "link": row["link"] if row else None,
        "tier": row["tier"] if row else None,
        "nodes": row["nodes"] if row else [],
        "bandwidth_Bps": row["bandwidth_Bps"] if row else None,
        "load": row["load"] if row else None,
        "wires": [wire_row(scene, wire) for wire in sorted(tiers, key=lambda wire: -wire.load)],
    }
