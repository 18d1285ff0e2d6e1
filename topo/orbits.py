"""The graph of orbits: a blueprint up to symmetry, from its sizes alone, however large it is.

The symmetries of a blueprint (`topo.symmetry`) map its graph onto itself, so the graph of orbits under those that
respect some marks, with summed capacities, follows from the sizes. A maximum flow between marked nodes has the same
value on it as on the full graph (spread a quotient flow evenly over each orbit; sum a full flow over it). Changes
(`topo.changes`) are marks of their own: the quotient is refined around them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from topo.blueprint import Axis, Blueprint, LinkClass, NodeClass
from topo.changes import Change, Spans
from topo.symmetry import Cell, Marks, NormalMarks, Orbit, cell_label, neighbours, normal_marks, orbits

if TYPE_CHECKING:
    import networkx as nx


def _label(node: str, values: Mapping[str, object]) -> str:
    """Name a node after its class and coordinates: ``leaf[unit=0,rail=3]``."""
    return f"{node}[{','.join(f'{axis}={value}' for axis, value in values.items())}]" if values else node


@dataclass(frozen=True, slots=True)
class Arc:
    """All links of one class from one orbit to another (or to itself): how many, and their bytes/s together."""

    tail: str
    head: str
    wire: LinkClass
    links: int
    bandwidth_Bps: float


@dataclass(frozen=True, slots=True)
class Member:
    """An orbit as a node: its class, its coordinates up to symmetry, and how many nodes it stands for."""

    node: NodeClass
    orbit: Orbit

    @property
    def multiplicity(self) -> int:
        """How many nodes are in the orbit."""
        return self.orbit.multiplicity


@dataclass(frozen=True)
class Joint:
    """All that joins one orbit to another, of whatever link class: the total, and the least latency."""

    bandwidth_Bps: float
    latency_s: float
    link: str
    links: int
    plane: str


@dataclass(frozen=True)
class OrbitGraph:
    """Orbits by name, and the arcs between them: both directions of every link, link classes apart.

    A quotient with nothing merged: what a linear program over link classes needs, self-arcs included.
    """

    members: dict[str, Member]
    arcs: tuple[Arc, ...]

    @cached_property
    def joints(self) -> dict[tuple[str, str], Joint]:
        """The arcs with their link classes merged, by tail and head."""
        found: dict[tuple[str, str], Joint] = {}
        for arc in self.arcs:
            held = found.get((arc.tail, arc.head), Joint(0.0, math.inf, "", 0, ""))
            found[arc.tail, arc.head] = Joint(
                held.bandwidth_Bps + arc.bandwidth_Bps,
                min(held.latency_s, arc.wire.latency_s),
                arc.wire.link,
                held.links + arc.links,
                arc.wire.plane,
            )
        return found


def orbit_graph(bp: Blueprint, marks: Marks = ()) -> OrbitGraph:
    """Return the orbits under the symmetries that leave the marks and the changes in place, with their arcs.

    Examples
    --------
    A ring of 6, seen from one of its nodes: itself, two neighbours, two beyond, and the one opposite.

    >>> from topo.blueprint import Axis, Level
    >>> ring = Blueprint("ring", (Axis("x", 6, order="ring"),), (NodeClass("chip", "accelerator", ("x",)),),
    ...     (LinkClass("chip", "chip", 1.0, 0.0, "ici", along=("x",)),), (Level("all"),))
    >>> [(name, m.multiplicity) for name, m in orbit_graph(ring, [{"x": 0}]).members.items()]
    [('chip[x=0]', 1), ('chip[x=1&5]', 2), ('chip[x=2&4]', 2), ('chip[x=3]', 1)]
    >>> [(a.tail, a.head, a.bandwidth_Bps) for a in orbit_graph(ring).arcs]
    [('chip[x=*]', 'chip[x=*]', 12.0)]
    """
    return _orbit_graph(bp, normal_marks(bp, marks))


@lru_cache(maxsize=256)
def _orbit_graph(bp: Blueprint, marks: NormalMarks) -> OrbitGraph:
    marks = tuple(sorted({*marks, *(mark for change in bp.changes for mark in change.marks)}))
    members: dict[str, Member] = {}
    scale: dict[str, float] = {}
    for node in bp.nodes:
        for orbit in orbits(bp, bp.closure(node.axes), marks):
            name = _label(node.name, {axis: cell_label(cell) for axis, cell in orbit.cells.items()})
            scale[name] = _kept(bp.changes, node.name, orbit)
            if scale[name]:
                members[name] = Member(node, orbit)
    arcs = [
        Arc(tail, head, link, links, links * link.bandwidth_Bps * kept)
        for link in bp.links
        for tail, head, links in _joined_orbits(bp, link, members)
        if (kept := scale[tail] * scale[head] * _kept_between(bp.changes, members[tail], members[head]))
    ]
    return OrbitGraph(members, tuple(arcs))


def _joined_orbits(bp: Blueprint, link: LinkClass, members: Mapping[str, Member]) -> Iterator[tuple[str, str, int]]:
    """Yield both directions of the links of a class: tail, head, how many."""
    shared = bp.shared(link)
    alike: dict[str, dict[tuple[Cell, ...], list[str]]] = {link.a: defaultdict(list), link.b: defaultdict(list)}
    for name, member in members.items():
        if member.node.name in alike:
            alike[member.node.name][tuple(member.orbit.cells[axis] for axis in shared)].append(name)
    for cells, tails in alike[link.a].items():
        agreed = math.prod(members[tails[0]].orbit.counts[axis] for axis in shared)
        if link.along:
            joined = _along(bp.axis[link.along[0]], link.along, {name: members[name].orbit for name in tails})
            yield from ((tail, head, agreed * pairs * link.count) for tail, head, pairs in joined if pairs)
            continue
        for tail in tails:
            for head in alike[link.b].get(cells, ()):
                own = math.prod(n for axis, n in members[head].orbit.counts.items() if axis not in shared)
                links = members[tail].multiplicity * own * link.count
                yield tail, head, links
                yield head, tail, links


def _along(first: Axis, along: tuple[str, ...], found: Mapping[str, Orbit]) -> Iterator[tuple[str, str, int]]:
    """Yield how many ordered pairs of values along some axes are joined, from orbit to orbit."""
    if first.order != "set":
        by_cell = {orbit.cells[first.name]: name for name, orbit in found.items()}
        for (near, far), pairs in neighbours(first, tuple(by_cell)).items():
            yield by_cell[near], by_cell[far], pairs
        return
    for tail, here in found.items():
        mine = math.prod(here.counts[axis] for axis in along)
        for head, there in found.items():
            yield tail, head, mine * (mine - 1 if tail == head else math.prod(there.counts[axis] for axis in along))


def _holds(orbit: Orbit, at: Spans) -> bool:
    return all(span in orbit.cells[axis] for axis, span in at)


def _kept(changes: Iterable[Change], node: str, orbit: Orbit) -> float:
    """Return the share of their bandwidth that the nodes of an orbit keep."""
    return math.prod(c.factor for c in changes if not c.to and c.node == node and _holds(orbit, c.at))


def _kept_between(changes: Iterable[Change], u: Member, v: Member) -> float:
    """Return the share that the links between two orbits keep, whichever end a change names first."""

    def hit(change: Change, here: Member, there: Member) -> bool:
        named = (change.node, change.to) == (here.node.name, there.node.name)
        return named and _holds(here.orbit, change.at) and _holds(there.orbit, change.to_at)

    return math.prod(change.factor for change in changes if change.to and (hit(change, u, v) or hit(change, v, u)))


def quotient(bp: Blueprint, marks: Marks = ()) -> "nx.DiGraph[str]":
    """Return the graph of orbits under the symmetries that leave the marks in place, from the parameters alone.

    Nodes carry `multiplicity`, `kind`, `part`, `node_class`, `in_network_reduction`, `cells` (axis → marked intervals)
    and `example` (the coordinates of one member). An edge u→v carries `bandwidth_Bps`, the **total** capacity from all
    members of u to all members of v, with `latency_s`, `link`, `links` (how many in all) and `plane`; a self-loop is
    what an orbit has inside.

    Parameters
    ----------
    bp
        The blueprint.
    marks
        Coordinates that are told apart: ``{"unit": 0, "domain": 3}`` is a whole domain. A `range` marks a set of values
        as one class: ``{"pod": range(0, 4)}``. Marks must be for the blueprint's own axes.

    Returns
    -------
    nx.DiGraph
        Frozen, and cached: copy it before changing it.

    Raises
    ------
    SpecError
        When a mark names an unknown axis, or lies outside its axis.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> box = cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None)
    >>> quotient(box).nodes("multiplicity")
    NodeDataView({'accelerator[domain=*,slot=*,rail=*]': 8, 'scale-up-switch[domain=*,port=*]': 4}, data='multiplicity')
    """
    return _quotient(bp, normal_marks(bp, marks))


def alike(bp: Blueprint, plane: str = "", axes: tuple[str, ...] = ()) -> dict[str, int]:
    """Return a number for every orbit, the same where an equitable partition of the orbits tells no difference.

    Orbits of one class that see the same capacity, member for member, towards every number: two racks that have each
    lost an accelerator are one, wherever they stand. (Colour refinement, as in `topo.refine`, on orbits.) Only what
    lies on `plane` (or any) inside blocks of `axes` counts.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.changes import without
    >>> from topo.domains import ScaleUp
    >>> bp = cluster_blueprint("x", 9, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> broken = without(without(bp, {"domain": 2, "slot": 0, "rail": 5}), {"domain": 7, "slot": 0, "rail": 5})
    >>> switches = {name: n for name, n in alike(broken).items() if name.startswith("scale-up-switch")}
    >>> sorted(switches)
    ['scale-up-switch[domain=*,port=*]', 'scale-up-switch[domain=2,port=*]', 'scale-up-switch[domain=7,port=*]']
    >>> len(set(switches.values()))
    2
    """
    found = orbit_graph(bp)
    seen: dict[str, list[tuple[str, int, float]]] = {name: [] for name in found.members}
    inside = {node.name for node in bp.nodes if set(axes) <= set(bp.closure(node.axes))}
    wires = {
        link: place for place, link in enumerate(bp.links) if plane in ("", link.plane) and {link.a, link.b} <= inside
    }
    for arc in found.arcs:
        if arc.wire not in wires:
            continue
        share = arc.bandwidth_Bps / found.members[arc.tail].multiplicity
        seen[arc.tail].append((arc.head, wires[arc.wire], share))
    names = {node.name: place for place, node in enumerate(bp.nodes)}
    number = {name: names[member.node.name] for name, member in found.members.items()}
    while True:
        told: dict[tuple[object, ...], int] = {}
        new: dict[str, int] = {}
        for name, arcs in seen.items():
            towards: dict[tuple[int, int], float] = defaultdict(float)
            for head, wire, share in arcs:
                towards[number[head], wire] += share
            view = (number[name], *sorted((key, float(f"{share:.9g}")) for key, share in towards.items()))
            new[name] = told.setdefault(view, len(told))
        if len(told) == len(set(number.values())):
            return number
        number = new


def forget() -> None:
    """Forget the quotients that are kept: a benchmark starts from nothing."""
    _orbit_graph.cache_clear()
    _quotient.cache_clear()


@lru_cache(maxsize=128)
def _quotient(bp: Blueprint, marks: NormalMarks) -> "nx.DiGraph[str]":
    return as_graph(_orbit_graph(bp, marks), bp.name)


def as_graph(found: OrbitGraph, name: str = "") -> "nx.DiGraph[str]":
    """Return orbits as a frozen NetworkX graph, with the attributes of a `quotient`."""
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph(name=name)
    for orbit, member in found.members.items():
        graph.add_node(
            orbit,
            multiplicity=member.multiplicity,
            kind=member.node.kind,
            part=member.node.part,
            node_class=member.node.name,
            in_network_reduction=member.node.in_network_reduction,
            cells=member.orbit.cells,
            example=member.orbit.example,
        )
    graph.add_edges_from((*ends, vars(joint)) for ends, joint in found.joints.items())
    nx.freeze(graph)
    return graph
