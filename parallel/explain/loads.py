"""What a strategy's own traffic puts on every class of links: the share of the step in which a link is at work.

Each tier's wire is at work for a share of the step (`parallel.explain.links.wires`), so an accelerator sends
``load·bandwidth`` across it, averaged over the step. Behind switches that traffic goes to the same place of the next block
and takes the shortest routes of the graph; between accelerators that are joined directly it lies on their own links.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from parallel.explain.links import Wire, cut_of, wires
from parallel.explain.scene import Scene
from parallel.placement import blocks, domain_size

if TYPE_CHECKING:
    from topo.loads import Traffic

MOST_LOADED: Final = 8192
"""Accelerators up to which traffic is put on every link of the graph."""
Loads = Mapping[tuple[str, str], float]
"""Share of the step in which links from one class of nodes to another are at work, the worst of them."""


def tier_loads(scene: Scene) -> dict[str, float]:
    """Return, by tier, the share of the step in which its wire is at work; tiers that carry nothing have none."""
    return {wire.tier.name: wire.load for wire in wires(scene)}


def class_loads(scene: Scene) -> Loads:
    """Return the loads of the strategy's own traffic by class of links.

    Clusters of more than `MOST_LOADED` accelerators, and imported graphs, have only those of each tier's narrowest cut.
    """
    carried = wires(scene)
    found: dict[tuple[str, str], float] = {}
    for wire in carried:
        for row in cut_of(scene.cluster, wire.index):
            for pair in ((row["from"], row["to"]), (row["to"], row["from"])):
                found[pair] = max(found.get(pair, 0.0), wire.load)
    return {**found, **_routed(scene, [wire for wire in carried if not wire.tier.direct])}


def _routed(scene: Scene, carried: list[Wire]) -> Loads:
    """Return the loads of all links on the routes of the traffic across switched tiers."""
    from topo.blueprint import Blueprint
    from topo.graphs import flat
    from topo.loads import link_loads
    from topo.outline import class_loads as by_class

    wiring = scene.cluster.wiring
    if not carried or not isinstance(wiring, Blueprint):
        return {}
    graph = flat(wiring)
    if not 2 <= len(graph.accelerators) <= MOST_LOADED:
        return {}
    loads_Bps = link_loads(graph, _traffic(scene, carried, _ranks(scene, graph.accelerators, graph.names)))
    return {pair: load for pair, load in by_class(wiring, loads_Bps).items() if load > 0}


def _ranks(scene: Scene, ends: npt.ArrayLike, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the accelerators at work in the order of ranks: those of the pool in question, `used` of each domain."""
    from topo.blueprint import Blueprint
    from topo.tiers import pools

    found, wanted, wiring = np.asarray(ends, dtype=np.int64), scene.cluster.spec.focus, scene.cluster.wiring
    if wanted and isinstance(wiring, Blueprint):
        every = pools(wiring)
        pool = next((held for held in every if held.name.startswith(f"{wanted}.")), every[0])
        classes = {node.name for node in pool.classes}
        found = found[[names[end].partition("[")[0] in classes for end in found.tolist()]]
    return found[np.arange(len(found)) % domain_size(scene.cluster) < scene.read("used")]


def _traffic(scene: Scene, carried: list[Wire], ranks: npt.NDArray[np.int64]) -> "Traffic":
    """Return who sends how much to whom: across each tier, every rank to its place in the next block of the tier below."""
    held = (1, *blocks(scene.cluster, int(scene.read("used"))))
    place = np.arange(len(ranks))
    sources, targets, rates = [], [], []
    for wire in carried:
        child, block = held[wire.index], held[wire.index + 1]
        start = place // block * block
        size = np.minimum(block, len(ranks) - start)
        other = start + (place - start + child) % size
        goes = other != place
        sources.append(ranks[place[goes]])
        targets.append(ranks[other[goes]])
        rates.append(np.full(int(goes.sum()), wire.load * wire.tier.bandwidth_Bps))
    return np.concatenate(sources), np.concatenate(targets), np.concatenate(rates)
