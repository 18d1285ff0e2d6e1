"""A cluster as a block of a larger one: repeated below an axis, under a name of its own, with its ends to join it by."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.changes import Change
from topo.errors import Fault, SpecError
from topo.orbits import orbit_graph

# --- checks and names ------------------------------------------------------------------------------------------------


def raise_faults(*faults: Fault) -> None:
    """Raise a SpecError with all faults, if any."""
    if faults:
        raise SpecError(faults)


def above_zero(where: str, values: Mapping[str, float], *, finite: bool = True) -> Iterator[Fault]:
    """Yield a fault for every value that is not above 0 (and finite)."""
    for name, value in values.items():
        if not value > 0 or (finite and math.isinf(value)):
            yield Fault(f"{where}.{name}", value, "must be above 0" + (" and finite" if finite else ""))


def at_least(where: str, least: int, values: Mapping[str, float | None]) -> Iterator[Fault]:
    """Yield a fault for every value that is given and is not at least `least`, and finite."""
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:
            yield Fault(f"{where}.{name}", value, f"must be {least} or more, and finite")


def rounded_up(bandwidth_Bps: float, each_Bps: float) -> int:
    """Return how many cables of at most `each_Bps` carry `bandwidth_Bps`.

    >>> rounded_up(120e9, 50e9), rounded_up(120e9, float("inf"))
    (3, 1)
    """
    return max(1, math.ceil(bandwidth_Bps / each_Bps - 1e-9))


def free_name(wanted: str, taken: Iterable[str], owner: str) -> str:
    """Return a name, with its owner's in front where it is taken.

    >>> free_name("wan", ["domain", "wan"], "site")
    'site.wan'
    """
    return f"{owner}.{wanted}" if wanted in taken else wanted


# --- a whole cluster, repeated or renamed ----------------------------------------------------------------------------


def below(bp: Blueprint, axis: Axis, outer: Level | None = None) -> Blueprint:
    """Hang a whole cluster below a new axis: every class and every block is per value of it; changes repeat with it.

    `outer` is the level of the whole; without it the outermost level stays what it is.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> hall = cluster_blueprint("hall", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> two = below(hall, Axis("site", 2), Level("wan", "wan", "scale-out"))
    >>> [(level.name, level.axes) for level in two.levels]
    [('domain', ('site', 'domain')), ('leaf', ('site',)), ('wan', ())]
    """
    levels = tuple(replace(level, axes=(axis.name, *level.axes)) for level in bp.levels)
    return replace(
        bp,
        axes=(axis, *(replace(held, within=held.within or axis.name) for held in bp.axes)),
        nodes=tuple(replace(node, axes=node.axes or (axis.name,)) for node in bp.nodes),
        levels=(*levels, outer) if outer else (*levels[:-1], bp.levels[-1]),
        extra_parts=tuple((key, count * axis.size) for key, count in bp.extra_parts),
    )


def prefixed(bp: Blueprint, pool: str) -> Blueprint:
    """Put a pool's name before every axis, class and level, and hang all root axes below the axis `pool` of size 1.

    Raises
    ------
    SpecError
        When the name is empty or would make node names unreadable.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.graphs import flat
    >>> box = cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink"), None)
    >>> flat(prefixed(box, "old")).names[7]
    'old.accelerator[old=0,old.domain=0,old.slot=7,old.rail=0]'
    """
    if not pool or set(pool) & set("[]=,. "):
        raise SpecError([Fault("pool", pool, "is no name", "write letters, digits and hyphens")])

    def own(name: str) -> str:
        return f"{pool}.{name}"

    def all_own(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(map(own, names))

    def change(old: Change) -> Change:
        at, to_at = (tuple((own(axis), span) for axis, span in spans) for spans in (old.at, old.to_at))
        return replace(old, node=own(old.node), at=at, to=own(old.to) if old.to else "", to_at=to_at)

    renamed = Blueprint(
        bp.name,
        tuple(replace(axis, name=own(axis.name), within=axis.within and own(axis.within)) for axis in bp.axes),
        tuple(replace(node, name=own(node.name), axes=all_own(node.axes)) for node in bp.nodes),
        tuple(replace(link, a=own(link.a), b=own(link.b), along=all_own(link.along)) for link in bp.links),
        tuple(replace(level, name=own(level.name), axes=all_own(level.axes)) for level in bp.levels),
        tuple(map(change, bp.changes)),
        bp.extra_parts,
    )
    return below(renamed, Axis(pool, 1))


# --- where it ends ---------------------------------------------------------------------------------------------------


def injection(bp: Blueprint) -> float:
    """Return the bytes/s of all accelerators together into the scale-out network, nothing broken.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> injection(cluster_blueprint("x", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))) / 1e9
    800.0
    """
    whole = orbit_graph(replace(bp, changes=()))
    return math.fsum(
        arc.bandwidth_Bps
        for arc in whole.arcs
        if arc.wire.plane == "scale-out" and whole.members[arc.tail].node.kind == "accelerator"
    )


def outermost(bp: Blueprint) -> tuple[NodeClass, ...]:
    """Return the classes where a cluster is joined to others: the scale-out switches with nothing farther out.

    "Farther" counts link classes from the accelerators: the spines of two levels, the cores of three, every terminal of
    a ring. Without scale-out switches, the NICs; without those, nothing.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> pod = cluster_blueprint("pod", 128, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> [node.name for node in outermost(pod)]
    ['spine']
    """
    peers: dict[str, set[str]] = {node.name: set() for node in bp.nodes}
    for link in bp.links:
        if link.plane == "scale-out":
            peers[link.a].add(link.b)
            peers[link.b].add(link.a)
    away = {node.name: 0 for node in bp.nodes if node.kind == "accelerator"}
    edge = set(away)
    while edge:
        edge = {peer for name in edge for peer in peers[name]} - set(away)
        away |= dict.fromkeys(edge, max(away.values()) + 1)
    ends = [n for n in bp.nodes if away.get(n.name) and all(away[peer] <= away[n.name] for peer in peers[n.name])]
    switches = tuple(node for node in ends if node.kind == "switch")
    return switches or tuple(node for node in ends if node.kind == "nic")


def with_nics(bp: Blueprint, total_Bps: float, part: str) -> Blueprint:
    """Give every accelerator of a cluster without a scale-out network an equal NIC, of `total_Bps` together."""
    if outermost(bp):
        return bp
    accelerators = [node for node in bp.nodes if node.kind == "accelerator"]
    each_Bps = total_Bps / sum(bp.population(node.axes) for node in accelerators)
    names = ["nic" if len(accelerators) == 1 else f"{node.name}-nic" for node in accelerators]
    both = list(zip(accelerators, names, strict=True))
    nics = [NodeClass(name, "nic", node.axes, part) for node, name in both]
    links = [LinkClass(node.name, name, each_Bps, 0.0, "", plane="scale-out") for node, name in both]
    return replace(bp, nodes=(*bp.nodes, *nics), links=(*bp.links, *links))


@dataclass(frozen=True)
class Cable:
    """What joins two switches: its key, the most that one carries, its latency, and that of a switch."""

    link: str
    most_Bps: float
    latency_s: float
    switch_latency_s: float


def cables(
    a: str, b: str, total_Bps: float, most_Bps: float, latency_s: float, link: str, along: tuple[str, ...] = ()
) -> LinkClass:
    """Return the scale-out link class that carries `total_Bps` between any two nodes, on cables of `most_Bps`.

    >>> cables("a", "b", 120e9, 50e9, 1e-6, "ib").count
    3
    """
    count = rounded_up(total_Bps, most_Bps)
    return LinkClass(a, b, total_Bps / count, latency_s, link, count, "scale-out", along)


def uplinks(bp: Blueprint, up: str, switches: int, total_Bps: float, cable: Cable) -> tuple[LinkClass, ...]:
    """Join every outermost switch of a cluster to each of `switches` nodes of class `up`, with equal shares of a total.

    A link counts its cable and half of the switch at either end; a NIC is no switch.
    """
    tops = outermost(bp)
    each_Bps = total_Bps / (sum(bp.population(node.axes) for node in tops) * switches)
    halves = {"switch": 1.0, "nic": 0.5}
    return tuple(
        cables(
            node.name,
            up,
            each_Bps,
            cable.most_Bps,
            cable.latency_s + halves[node.kind] * cable.switch_latency_s,
            cable.link,
        )
        for node in tops
    )
