"""How fast an all-gather can be at best on the wires: the least cut over the shards behind it.

Every accelerator holds a shard that all others want. A set X of nodes that leaves somebody out has to let out the
shards of its |X ∩ V_c| accelerators, so they leave at a rate of at most B⁺(X) / |X ∩ V_c| each, and that is reached:

    x* = min over X of B⁺(X) / |X ∩ V_c|

(ForestColl: Zhao et al. 2024, arXiv:2402.06787, theorem 1.) A reduce-scatter is the same backwards, and an all-reduce
without reducing switches takes both.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from topo.blueprint import KINDS, Blueprint
from topo.errors import Fault, SpecError
from topo.flows import min_cut
from topo.orbits import OrbitGraph, orbit_graph
from topo.tiers import Pool, pools
from topo.wires import Wires

_CLOSE = 1e-9
_SOURCE = "<"


@dataclass(frozen=True)
class Gather:
    """The best all-gather.

    Attributes
    ----------
    bandwidth_Bps
        Bytes/s that every accelerator receives, all shards but its own together: S bytes (its own part of them
        included) take (P - 1)/P · S / `bandwidth_Bps`.
    accelerators
        P, how many take part.
    behind
        Orbits on the sending side of the cut that decides.
    """

    bandwidth_Bps: float
    accelerators: int
    behind: frozenset[str]


def _ends(graph: OrbitGraph, names: set[str]) -> dict[str, int]:
    """Return the orbits of accelerators with how many each stands for."""
    return {name: member.multiplicity for name, member in graph.members.items() if member.node.name in names}


def _fed(graph: OrbitGraph, sources: dict[str, int], shard_Bps: float) -> Wires:
    """Return the orbits as a directed graph, with a source that feeds each accelerator's shard in at some rate."""
    names = [_SOURCE, *graph.members]
    index = {name: i for i, name in enumerate(names)}
    arcs = [(index[arc.tail], index[arc.head], arc.bandwidth_Bps) for arc in graph.arcs if arc.tail != arc.head]
    arcs += [(0, index[name], shard_Bps * many) for name, many in sources.items()]
    tail, head, rate_Bps = np.array(arcs, dtype=np.float64).T
    kinds = [0, *(KINDS.index(member.node.kind) for member in graph.members.values())]
    return Wires(
        names,
        np.array(kinds, dtype=np.int8),
        tail.astype(np.int32),
        head.astype(np.int32),
        rate_Bps,
        np.zeros(len(arcs)),
        directed=True,
    )


def _sinks(bp: Blueprint, names: set[str]) -> Iterator[tuple[OrbitGraph, str]]:
    """Yield, for every sort of accelerator, the orbits seen from one of them, and its own."""
    for member in orbit_graph(bp).members.values():
        if member.node.name in names:
            example = member.orbit.example
            graph = orbit_graph(bp, [example] if example else ())
            yield (
                graph,
                next(n for n, m in graph.members.items() if m.node == member.node and m.orbit.example == example),
            )


def gather_Bps(bp: Blueprint, pool: str | None = None) -> Gather:  # noqa: N802  (the unit is part of the name)
    """Return the best all-gather among the accelerators of a cluster, or of a pool.

    Each accelerator in turn is the one that is left out; the rate falls to the ratio of the cut that stops it until
    none does (Dinkelbach's method: a few minimum cuts).

    Raises
    ------
    SpecError
        When there are fewer than two accelerators, some cannot reach others, or there is no such pool.

    Examples
    --------
    A ring of 8: two links into each. A line: its ends have one, and everything has to pass.

    >>> from topo.builders import cluster_blueprint
    >>> from topo.direct import Torus
    >>> for wrap in (True, False):
    ...     bp = cluster_blueprint("x", 1, Torus((8,), 10e9, 1e-6, "ici", wrap=wrap), None)
    ...     print(gather_Bps(bp).bandwidth_Bps / 1e9)
    20.0
    10.0
    """
    names = {node.name for held in _chosen(bp, pool) for node in held.classes}
    total = sum(_ends(orbit_graph(bp), names).values())
    if total < 2:
        raise SpecError([Fault("accelerators", total, "have nothing to gather", "take two or more")])
    shard_Bps, behind = float("inf"), frozenset[str]()
    for graph, sink in _sinks(bp, names):
        sources = {name: many for name, many in _ends(graph, names).items() if name != sink}
        into_Bps = sum(arc.bandwidth_Bps for arc in graph.arcs if arc.head == sink != arc.tail)
        if into_Bps / (total - 1) < shard_Bps:
            shard_Bps, behind = into_Bps / (total - 1), frozenset(graph.members) - {sink}
        while shard_Bps > 0:
            wires = _fed(graph, sources, shard_Bps)
            stopped = min_cut(wires, [_SOURCE], [sink])
            if stopped.value_Bps >= shard_Bps * (total - 1) * (1 - _CLOSE):
                break
            side = stopped.side - {_SOURCE}
            held = sum(many for name, many in sources.items() if name in side)
            out_Bps = sum(arc.bandwidth_Bps for arc in graph.arcs if arc.tail in side and arc.head not in side)
            shard_Bps, behind = out_Bps / held, frozenset(side)
    if shard_Bps <= 0:
        raise SpecError([Fault("accelerators", total, "cannot all reach each other", "join the parts")])
    return Gather(shard_Bps * (total - 1), total, behind)


def _chosen(bp: Blueprint, pool: str | None) -> tuple[Pool, ...]:
    known = pools(bp)
    chosen = tuple(held for held in known if pool in (None, held.name))
    if not chosen:
        remedy = f"known: {', '.join(held.name or 'none' for held in known)}"
        raise SpecError([Fault("pool", pool, "is no pool of the cluster", remedy)])
    return chosen
