"""What a sweep needs of a graph, derived from it: per level the size, bandwidth and latency.

All numbers come from cuts and lightest paths on orbits, none from the arguments that a builder was called with.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from topo.blueprint import Blueprint, Level, NodeClass, Order, Plane
from topo.errors import Fault, SpecError
from topo.orbitcuts import cut, lightest
from topo.orbits import Member, OrbitGraph, alike, orbit_graph
from topo.symmetry import Cell

_FEW_SORTS = 8
"""Damaged places that are looked at one by one."""


@dataclass(frozen=True)
class DirectAxis:
    """One direction of a network that joins accelerators without switches.

    `size` blocks in a `ring`, a `line` or, each with each, a `set`; `bandwidth_Bps` is what one accelerator (inside, where
    the ends of a line have less) can send along it, per direction of its links.
    """

    size: int
    bandwidth_Bps: float
    order: Order


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
    pool
        The accelerator class whose blocks these are, where classes are cut into blocks of their own; "" for all.
    direct
        Where accelerators are joined without switches: the axes of that network inside a block, the one that
        neighbouring coordinates run along first. () behind switches.
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
    pool: str = ""
    direct: tuple[DirectAxis, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Accelerator classes that every level cuts alike. `name` is "" where there is one pool."""

    name: str
    classes: tuple[NodeClass, ...]


def pools(bp: Blueprint) -> tuple[Pool, ...]:
    """Return the accelerator classes, those together that all levels cut into the same blocks.

    Racks of unlike make are pools; two parts in every box are one.
    """
    alike: dict[tuple[tuple[str, ...], ...], list[NodeClass]] = {}
    for node in bp.nodes:
        if node.kind == "accelerator":
            alike.setdefault(tuple(bp.own(level, node) for level in bp.levels), []).append(node)
    return tuple(Pool(found[0].name if len(alike) > 1 else "", tuple(found)) for found in alike.values())


@dataclass(frozen=True)
class _Sides:
    """Two sets of accelerator orbits and the part of the graph that joins them."""

    graph: OrbitGraph
    left: list[str]
    right: list[str]
    outside: list[str]
    """Orbits that are not inside the left block alone."""

    def count(self, side: list[str]) -> int:
        return sum(self.graph.members[orbit].multiplicity for orbit in side)


def _at(cells: Mapping[str, Cell], place: Mapping[str, int], axes: Iterable[str]) -> bool:
    """Return whether an orbit lies in the marked block of `axes`."""
    return all((place[axis], place[axis] + 1) in cells.get(axis, ()) for axis in axes)


def inside(found: OrbitGraph, plane: Plane, place: Mapping[str, int], axes: tuple[str, ...]) -> OrbitGraph:
    """Return the orbits that are inside one block of `axes`, with their arcs on one plane."""
    kept = {name: member for name, member in found.members.items() if _at(member.orbit.cells, place, axes)}
    arcs = (arc for arc in found.arcs if arc.wire.plane == plane and arc.tail in kept and arc.head in kept)
    return OrbitGraph(kept, tuple(arcs))


def _child_and_siblings(
    bp: Blueprint, pool: Pool, level: Level, child: tuple[str, ...], place: Mapping[str, int], of: NodeClass | None
) -> _Sides:
    """Return one child block of a block of `level`, and the block's other accelerators of the pool.

    `child` is a closure of axes, `place` its coordinates; `of` is the accelerator class where the child is one node.
    """
    marked = {axis: place[axis] for axis in child}
    graph = inside(orbit_graph(bp, [marked] if marked else ()), level.plane, place, bp.own(level, pool.classes[0]))
    mine = {
        orbit
        for orbit, member in graph.members.items()
        if _at(member.orbit.cells, place, child) and (of is None or member.node == of)
    }
    ends = [orbit for orbit, member in graph.members.items() if member.node in pool.classes]
    return _Sides(
        graph,
        left=[orbit for orbit in ends if orbit in mine],
        right=[orbit for orbit in ends if orbit not in mine],
        outside=[orbit for orbit in graph.members if orbit not in mine],
    )


def _places(bp: Blueprint, level: Level, node: NodeClass, child: tuple[str, ...]) -> list[dict[str, int]]:
    """Return where to look for the slowest child block: the first, or, around changes, one of every sort.

    A smaller last block has the rates of the others. Beyond `_FEW_SORTS` symmetries, blocks are one sort where the same
    numbers of accelerators in them are `alike`.
    """
    if not bp.changes:
        return [dict.fromkeys(bp.closure(node.axes), 0)]
    blocks: dict[tuple[Cell, ...], list[tuple[str, Member]]] = {}
    for name, member in orbit_graph(bp).members.items():
        if member.node.name == node.name:
            blocks.setdefault(tuple(member.orbit.cells[axis] for axis in child), []).append((name, member))
    if len(blocks) > _FEW_SORTS:
        number = alike(bp, level.plane, bp.own(level, node))
        sorts: dict[tuple[tuple[int, int], ...], list[tuple[str, Member]]] = {}
        for held in blocks.values():
            sorts.setdefault(tuple(sorted((number[name], _per_block(m, child)) for name, m in held)), held)
        return [held[0][1].orbit.example for held in sorts.values()]
    return [held[0][1].orbit.example for held in blocks.values()]


def _per_block(member: Member, child: tuple[str, ...]) -> int:
    """Return how many nodes of an orbit are in each block of some axes."""
    return math.prod(count for axis, count in member.orbit.counts.items() if axis not in child)


def _rate(sides: _Sides) -> float:
    """Return the bytes/s per accelerator between a child block and its siblings: see `Tier`."""
    mine, theirs = sides.count(sides.left), sides.count(sides.right)
    rate = cut(sides.graph, sides.left, sides.right) / min(mine, theirs)
    return min(rate, cut(sides.graph, sides.left, sides.outside) / mine) if theirs < mine else rate


def _tier(bp: Blueprint, pool: Pool, level: Level, child: tuple[str, ...], options: list[_Sides]) -> Tier:
    """Price one level: the slowest child block of those at hand (`options`), the path of the first."""
    rates_Bps = [_rate(sides) for sides in options]
    if min(rates_Bps) <= 0:
        raise SpecError(
            [Fault(f"levels[{level.name}]", None, f"its blocks are not joined by {level.plane} links", "add links")]
        )
    sides = options[0]
    path = lightest(sides.graph, sides.left, sides.right)
    joints = [sides.graph.joints[ends] for ends in pairwise(path)]
    switches = [node for orbit in path if (node := sides.graph.members[orbit].node).kind == "switch"]
    return Tier(
        name=level.name,
        kind=level.kind,
        plane=level.plane,
        size=max(sides.count(sides.left) + sides.count(sides.right) for sides in options),
        blocks=bp.population(bp.own(level, pool.classes[0])),
        bandwidth_Bps=min(rates_Bps),
        latency_s=math.fsum(joint.latency_s for joint in joints),
        hops=len(joints),
        in_network_reduction=bool(switches) and all(node.in_network_reduction for node in switches),
        link=joints[len(joints) // 2].link,
        pool=pool.name,
        direct=() if switches else _direct(bp, pool, level, child),
    )


def _direct(bp: Blueprint, pool: Pool, level: Level, child: tuple[str, ...]) -> tuple[DirectAxis, ...]:
    """Return the axes along which the accelerators of a block are joined, beyond those of the child block."""
    node = pool.classes[0]
    around = set(bp.own(level, node))
    inner = set() if child == bp.closure(node.axes) else set(child)
    found = []
    for link in bp.links:
        own = [name for name in link.along if name not in around]
        if link.a != node.name or link.plane != level.plane or not own or (inner and not set(own) & inner):
            continue
        axis, each_Bps = bp.axis[own[0]], link.bandwidth_Bps * link.count
        size = math.prod(bp.axis[name].size for name in own)
        if size > 1:
            ways = size - 1 if axis.order == "set" else 2 if axis.order == "ring" or size > 2 else 1
            found.append((bp.axes.index(axis), DirectAxis(size, ways * each_Bps, axis.order)))
    return tuple(axis for _, axis in sorted(found, key=lambda pair: -pair[0]))


Priced = tuple[Tier, Level, tuple[str, ...]]  # a tier, its level, and the axes of its child block


def priced(bp: Blueprint, pool: Pool) -> list[Priced]:
    """Return every tier of a pool with its level and the axes of its child block."""
    found: list[Priced] = []
    child: tuple[str, ...] | None = None
    for level in bp.levels:
        whole = child is not None
        options = [
            sides
            for node in (pool.classes[:1] if whole else pool.classes)
            for axes in [child if child is not None else bp.closure(node.axes)]
            for place in _places(bp, level, node, axes)
            if (sides := _child_and_siblings(bp, pool, level, axes, place, None if whole else node)).right
        ]
        if options:
            axes = child if child is not None else bp.closure(pool.classes[0].axes)
            found.append((_tier(bp, pool, level, axes, options), level, axes))
            child = bp.own(level, pool.classes[0])
    return found


def tiers(bp: Blueprint, pool: str | None = None) -> tuple[Tier, ...]:
    """Return the tiers of a cluster, innermost first; levels whose blocks have one child only are left out.

    Only links of the level's own plane, inside the block, carry its traffic. Where the blueprint has changes, a tier is
    as slow as its slowest child block.

    Parameters
    ----------
    bp
        The cluster.
    pool
        The accelerator class to look at, where there are unlike ones (`pools`); by default all, one after the other.

    Raises
    ------
    SpecError
        When the children of a level are not joined, or there is no such pool.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), ScaleOut(50e9, "ib"))
    >>> [(tier.name, tier.size, tier.bandwidth_Bps / 1e9, tier.hops) for tier in tiers(two)]
    [('domain', 8, 900.0, 2), ('leaf', 16, 50.0, 4)]
    """
    known = pools(bp)
    if pool is not None and pool not in [held.name for held in known]:
        names = ", ".join(held.name or "none" for held in known)
        raise SpecError([Fault("pool", pool, "is no pool of the cluster", f"known: {names}")])
    return tuple(tier for held in known if pool in (None, held.name) for tier, _, _ in priced(bp, held))
