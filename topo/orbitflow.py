"""The all-to-all program of a blueprint, written on orbits: as exact as on all nodes, at any size.

Average an optimal flow over the symmetries: sources of one orbit then send alike, so one marked source per orbit is
enough, and its flow is alike on all arcs of one orbit of the symmetries that leave it in place (`orbit_graph` with that
mark). The load that all sources put on the arcs of one unmarked orbit is alike, too, so their capacities count together.
The other way, a flow on the orbits, spread evenly, is one of the whole graph.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topo.blueprint import Blueprint, LinkClass
from topo.multiflow import FREE, Commodity, Rate, concurrent, limits
from topo.orbits import Arc, Member, OrbitGraph, orbit_graph
from topo.symmetry import Cell, Marks, Orbit
from topo.tiers import Pool

# --- arcs that no symmetry maps onto one another ---------------------------------------------------------------------


def arc_orbits(bp: Blueprint, wire: LinkClass, here: Orbit, there: Orbit) -> dict[tuple[str, ...], float]:
    """Return how the links of one class between two orbits fall into orbits of their own: the share of each.

    Along several axes without an order, links are told apart by the axes on which their ends differ (below a value that
    differs, others have nothing to agree with). All other links are one orbit.

    Examples
    --------
    Two boards of four, each accelerator linked to all others: three peers on the board, four off it.

    >>> from topo.blueprint import Axis, Level, NodeClass
    >>> mesh = Blueprint("mesh", (Axis("board", 2), Axis("slot", 4, "board")),
    ...     (NodeClass("gpu", "accelerator", ("slot",)),),
    ...     (LinkClass("gpu", "gpu", 1.0, 0.0, "xgmi", along=("board", "slot")),), (Level("all"),))
    >>> (member,) = orbit_graph(mesh).members.values()
    >>> shares = arc_orbits(mesh, mesh.links[0], member.orbit, member.orbit)
    >>> {differ: round(7 * share) for differ, share in shares.items()}
    {('slot',): 3, ('board',): 4}
    """
    if len(wire.along) < 2:
        return {(): 1.0}
    found: dict[tuple[str, ...], int] = {(): 1}
    for axis in bp.closure(wire.along):
        if axis not in wire.along:
            continue
        mine, theirs = here.counts[axis], there.counts[axis]
        above = set(bp.closure((axis,))[:-1])
        more: dict[tuple[str, ...], int] = {}
        for differ, pairs in found.items():
            if above & set(differ):
                more[differ] = pairs * mine * theirs
            elif here.cells[axis] == there.cells[axis]:
                more[differ] = pairs * mine
                more[*differ, axis] = pairs * mine * (mine - 1)
            else:
                more[*differ, axis] = pairs * mine * theirs
        found = more
    found.pop((), None)
    total = sum(found.values())
    return {differ: pairs / total for differ, pairs in found.items() if pairs}


# --- where orbits lie ------------------------------------------------------------------------------------------------


def _inside(member: Member, place: Mapping[str, int], axes: tuple[str, ...]) -> bool:
    """Return whether an orbit lies in the marked block of `axes`."""
    return all((place[axis], place[axis] + 1) in member.orbit.cells.get(axis, ()) for axis in axes)


def _holds(cell: Cell, value: int) -> bool:
    """Return whether a value is one of a cell's own (a mirrored ring has several), and in all its intervals."""
    own = [low for low, high in cell if high == low + 1]
    return (not own or value in own) and all(low <= value < high for low, high in cell if high > low + 1)


def coarser(graph: OrbitGraph) -> Callable[[Member], str]:
    """Return what finds, for an orbit under more marks, the orbit of `graph` that it is part of.

    >>> from topo.blueprint import Axis, Level, NodeClass
    >>> ring = Blueprint("ring", (Axis("x", 6, order="ring"),), (NodeClass("chip", "accelerator", ("x",)),),
    ...     (LinkClass("chip", "chip", 1.0, 0.0, "ici", along=("x",)),), (Level("all"),))
    >>> find = coarser(orbit_graph(ring))
    >>> {find(member) for member in orbit_graph(ring, [{"x": 0}]).members.values()}
    {'chip[x=*]'}
    """
    trees: dict[str, Any] = {}
    for name, member in graph.members.items():
        keys: list[Any] = [member.node.name, *member.orbit.cells.values()]
        step = trees
        for key in keys[:-1]:
            step = step.setdefault(key, {})
        step[keys[-1]] = name

    def find(member: Member) -> str:
        step = trees[member.node.name]
        for value in member.orbit.example.values():
            step = step[max((cell for cell in step if _holds(cell, value)), key=len)]
        return str(step)

    return find


# --- one commodity per orbit of sources ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """Who talks, where: the pool's accelerators in one block, split into children that need not talk to themselves.

    `child` are the axes of a child block, None where it is one accelerator; `plane` is "" for all links.
    """

    bp: Blueprint
    pool: Pool
    place: Mapping[str, int] = field(default_factory=dict)
    block: tuple[str, ...] = ()
    child: tuple[str, ...] | None = None
    plane: str = ""
    relay: bool = True

    def orbits(self, marks: Marks = ()) -> OrbitGraph:
        """Return the block's part of the graph of orbits."""
        around = [{axis: self.place[axis] for axis in self.block}] if self.block else []
        whole = orbit_graph(self.bp, [*around, *marks])
        members = {name: held for name, held in whole.members.items() if _inside(held, self.place, self.block)}
        return OrbitGraph(
            members,
            tuple(
                arc
                for arc in whole.arcs
                if arc.tail in members and arc.head in members and self.plane in ("", arc.wire.plane)
            ),
        )

    def talks(self, member: Member) -> bool:
        """Return whether an orbit is of the pool."""
        return member.node in self.pool.classes

    @property
    def size(self) -> int:
        """How many accelerators talk."""
        return sum(held.multiplicity for held in self.orbits().members.values() if self.talks(held))

    def blocks(self, graph: OrbitGraph) -> dict[tuple[Any, ...], list[str]]:
        """Return the pool's orbits by child block (up to symmetry)."""
        found: dict[tuple[Any, ...], list[str]] = {}
        for name, held in graph.members.items():
            if self.talks(held):
                key = (name,) if self.child is None else tuple(held.orbit.cells[axis] for axis in self.child)
                found.setdefault(key, []).append(name)
        return found

    def axes(self, member: Member) -> tuple[str, ...]:
        """Return the axes that pick one child block out."""
        return tuple(member.orbit.cells) if self.child is None else self.child

    def sources(self) -> list[tuple[list[str], int]]:
        """Return the child blocks that symmetries tell apart: the orbits of each, and how many blocks are like it."""
        graph = self.orbits()
        found = []
        for names in self.blocks(graph).values():
            first = graph.members[names[0]]
            found.append((names, math.prod(first.orbit.counts[axis] for axis in self.axes(first))))
        return found


_Key = tuple[str, str, LinkClass, tuple[str, ...]]


def _classes(bp: Blueprint, graph: OrbitGraph) -> Iterator[tuple[Arc, tuple[str, ...], float]]:
    """Yield arcs with what tells their orbits apart, and the bytes/s of each."""
    for arc in graph.arcs:
        ends = graph.members[arc.tail].orbit, graph.members[arc.head].orbit
        for differ, share in arc_orbits(bp, arc.wire, *ends).items():
            yield arc, differ, share * arc.bandwidth_Bps


def _count(graph: OrbitGraph, names: Iterable[str]) -> int:
    """Return how many nodes some orbits have."""
    return sum(graph.members[name].multiplicity for name in names)


def _commodity(
    q: Question, first: Member, many: float, where: Callable[[Member], str], index: Mapping[_Key, int]
) -> Commodity:
    """Return what the child block of `first` sends to the others: its accelerators are one source, theirs one sink."""
    axes = q.axes(first)
    place = {axis: first.orbit.example[axis] for axis in axes}
    graph = q.orbits([place] if place else ())
    blocks = q.blocks(graph)
    (mine,) = (
        names
        for names in blocks.values()
        if _inside(graph.members[names[0]], place, axes)
        and (q.child is not None or graph.members[names[0]].node == first.node)
    )
    own = set(mine)
    number = {name: i for i, name in enumerate(n for n in graph.members if n not in own)}
    source = len(number)
    number |= dict.fromkeys(mine, source)
    taken = [0.0] * (source + 1)
    rows: list[tuple[int, int, int]] = []
    for names in blocks.values():
        if names is mine:
            continue
        wanted = float(_count(graph, mine) * _count(graph, names))
        if len(names) == 1:
            taken[number[names[0]]] = wanted
        else:  # whichever of its accelerators takes it in
            rows += [(number[name], len(taken), FREE) for name in names]
            taken.append(wanted)
    home = {name: where(held) for name, held in graph.members.items()}
    for arc, differ, _ in _classes(q.bp, graph):
        tail, head = number[arc.tail], number[arc.head]
        if head not in (tail, source) and (q.relay or tail == source or _forwards(graph, arc)):
            rows.append((tail, head, index[home[arc.tail], home[arc.head], arc.wire, differ]))
    tails, heads, kinds = np.array(rows, np.int64).reshape(-1, 3).T
    return Commodity(many, source, tails, heads, kinds, np.array(taken))


def _forwards(graph: OrbitGraph, arc: Arc) -> bool:
    """Return whether an accelerator sends others' traffic on over this arc by itself: over links to its like only."""
    kinds = graph.members[arc.tail].node.kind, graph.members[arc.head].node.kind
    return kinds[0] != "accelerator" or kinds[1] == "accelerator"


def solved(q: Question, most_variables: int) -> Rate | None:
    """Return the rate between the children of one block, or None where the program would be too large."""
    graph = q.orbits()
    blocks = q.sources()
    if len(blocks) * len(graph.arcs) > most_variables:  # marks only add arcs
        return None
    index: dict[_Key, int] = {}
    capacity: list[float] = []
    for arc, differ, bandwidth_Bps in _classes(q.bp, graph):
        index[arc.tail, arc.head, arc.wire, differ] = len(capacity)
        capacity.append(bandwidth_Bps)
    smallest = min(_count(graph, names) // many for names, many in blocks)
    found, where = list[Commodity](), coarser(graph)
    for names, many in blocks:
        found.append(_commodity(q, graph.members[names[0]], many, where, index))
        if len(blocks) * len(found[0].tail) > most_variables:
            return None
    answer = concurrent(found, np.array(capacity))
    ends = [(tail, head, wire.link, wire.plane) for tail, head, wire, _ in index]
    return Rate(
        bandwidth_Bps=answer.pair_Bps * (q.size - smallest),
        accelerators=q.size,
        limits=limits(answer.weight, ends),
        commodities=len(found),
        variables=answer.variables,
        rows=answer.rows,
        exact=True,
    )
