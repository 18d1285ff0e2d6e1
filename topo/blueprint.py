"""A cluster written as symmetries: a few axes, node classes and link classes, and the two graphs they stand for.

The one rule of wiring: **a link class joins every pair of an a-node and a b-node that agree on all axes both have.**
So ``accelerator(domain, rail, slot)`` and ``switch(domain, plane)`` are a full crossbar inside each domain, and
``accelerator(domain, rail, slot)`` and ``leaf(unit, rail)`` are a rail-optimised leaf layer, once ``domain`` is
``within`` ``unit``.

`expand` writes out every node. `quotient` never does: permuting the values of an axis (inside each value of its parent)
maps the graph onto itself, so the orbits of the permutations that respect some marks are products of per-axis cells,
and the graph of orbits, with summed capacities, follows from the sizes alone. A maximum flow between marked nodes has
the same value on both (spread a quotient flow evenly over each orbit; sum a full flow over it).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from topo.errors import Fault, SpecError
from topo.symmetry import Cell, Marks, NormalMarks, Orbit, cell_label, coordinates, normal_marks, orbits

if TYPE_CHECKING:
    import networkx as nx

KINDS = ("accelerator", "switch", "nic", "host", "site")
"""What a node can be."""

PLANES = ("scale-up", "scale-out")
"""The two networks of a cluster: inside the domain (NVLink and its like) and between domains (NICs)."""

Plane = Literal["scale-up", "scale-out"]


@dataclass(frozen=True)
class Axis:
    """A coordinate of nodes, with values 0 … size-1.

    `within` names the parent axis: a node that has this coordinate has its parents' too. `last` allows a remainder: it
    is the size inside the last block of the parent (and, where the parent has a `last` itself, only in the last of the
    last), so 33 domains are ``Axis("unit", 2), Axis("domain", 32, "unit", last=1)``.
    """

    name: str
    size: int
    within: str | None = None
    last: int | None = None


@dataclass(frozen=True)
class NodeClass:
    """All nodes of one make: one node for each combination of coordinates. `part` is an opaque key ("" = no part)."""

    name: str
    kind: str
    axes: tuple[str, ...]
    part: str = ""
    in_network_reduction: bool = False


@dataclass(frozen=True)
class LinkClass:
    """`count` parallel links, each of `bandwidth_Bps` per direction, between any a and b that agree on shared axes.

    `link` is an opaque key of what is bought for it; "" is a trace on a board, which nobody buys.
    """

    a: str
    b: str
    bandwidth_Bps: float
    latency_s: float
    link: str
    count: int = 1
    plane: Plane = "scale-up"


@dataclass(frozen=True)
class Level:
    """A way to cut the cluster in blocks: the accelerators that agree on `axes` (and their parents); () is all."""

    name: str
    kind: str = "switch"
    plane: Plane = "scale-up"
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blueprint:
    """A cluster as axes (parents first), node classes, link classes, and nested levels (innermost first, last = all).

    Raises
    ------
    SpecError
        Naming every fault: unknown or repeated names, sizes below one, bandwidths not above zero, levels not nested.

    Examples
    --------
    Two domains of four accelerators, one crossbar each; nothing between them.

    >>> bp = Blueprint(
    ...     "pair", (Axis("domain", 2), Axis("slot", 4, "domain")),
    ...     (NodeClass("accelerator", "accelerator", ("slot",)), NodeClass("crossbar", "switch", ("domain",))),
    ...     (LinkClass("accelerator", "crossbar", 900e9, 1e-6, "nvlink"),), (Level("all"),))
    >>> sorted(expand(bp))[:2], expand(bp).number_of_edges()
    (['accelerator[domain=0,slot=0]', 'accelerator[domain=0,slot=1]'], 8)
    >>> [(name, n) for name, n in quotient(bp, [{"domain": 0}]).nodes("multiplicity")][:2]
    [('accelerator[domain=0,slot=*]', 4), ('accelerator[domain=*,slot=*]', 4)]
    """

    name: str
    axes: tuple[Axis, ...]
    nodes: tuple[NodeClass, ...]
    links: tuple[LinkClass, ...]
    levels: tuple[Level, ...]

    def __post_init__(self) -> None:
        faults = [*_axis_faults(self), *_node_faults(self)] or [*_link_faults(self), *_level_faults(self)]
        if faults:
            raise SpecError(faults)

    @cached_property
    def axis(self) -> dict[str, Axis]:
        """The axes by name."""
        return {axis.name: axis for axis in self.axes}

    @cached_property
    def split_axes(self) -> frozenset[str]:
        """The axes whose last value is unlike the others, because a child axis has a remainder there."""
        return frozenset(axis.within for axis in self.axes if axis.within is not None and axis.last is not None)

    def node(self, name: str) -> NodeClass:
        """Return the node class of that name."""
        return next(node for node in self.nodes if node.name == name)

    def closure(self, axes: Iterable[str]) -> tuple[str, ...]:
        """Return `axes` with all their parents, in the blueprint's order (parents first)."""
        wanted: set[str] = set()
        for name in axes:
            step: str | None = name
            while step is not None:
                wanted.add(step)
                step = self.axis[step].within
        return tuple(axis.name for axis in self.axes if axis.name in wanted)

    def population(self, axes: Iterable[str]) -> int:
        """Return how many combinations of coordinates `axes` (with their parents) have.

        >>> Blueprint("odd", (Axis("unit", 2), Axis("domain", 32, "unit", last=1)),
        ...     (NodeClass("gpu", "accelerator", ("domain",)), NodeClass("leaf", "switch", ("unit",))),
        ...     (LinkClass("gpu", "leaf", 50e9, 1e-6, "ib"),), (Level("all"),)).population(("domain",))
        33
        """
        return sum(orbit.multiplicity for orbit in orbits(self, self.closure(axes)))


# --- validation ------------------------------------------------------------------------------------------------------


def _repeats(what: str, names: Iterable[str]) -> list[Fault]:
    seen: set[str] = set()
    twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    return [Fault(what, name, "is there twice", "give each its own name") for name in twice]


def _axis_faults(bp: Blueprint) -> list[Fault]:
    faults, before = _repeats("axes", (axis.name for axis in bp.axes)), set[str]()
    for axis in bp.axes:
        field = f"axes[{axis.name}]"
        if axis.size < 1:
            faults.append(Fault(f"{field}.size", axis.size, "must be at least 1"))
        if axis.within is not None and axis.within not in before:
            faults.append(Fault(f"{field}.within", axis.within, "is no earlier axis", "list parents first"))
        if axis.last is not None and (axis.within is None or not 1 <= axis.last <= axis.size):
            faults.append(
                Fault(
                    f"{field}.last", axis.last, "is no remainder", f"write 1 to {axis.size}, on an axis with a parent"
                )
            )
        before.add(axis.name)
    return faults


def _unknown_axes(bp: Blueprint, field: str, axes: Iterable[str]) -> list[Fault]:
    known = [axis.name for axis in bp.axes]
    return [
        Fault(field, name, "is no axis of the blueprint", f"known: {', '.join(known) or 'none'}")
        for name in axes
        if name not in known
    ]


def _node_faults(bp: Blueprint) -> list[Fault]:
    faults = _repeats("nodes", (node.name for node in bp.nodes))
    for node in bp.nodes:
        if node.kind not in KINDS:
            faults.append(Fault(f"nodes[{node.name}].kind", node.kind, "is unknown", f"known: {', '.join(KINDS)}"))
        faults += _unknown_axes(bp, f"nodes[{node.name}].axes", node.axes)
    if all(node.kind != "accelerator" for node in bp.nodes):
        faults.append(Fault("nodes", None, "hold no accelerator", "add a node class of kind accelerator"))
    for level in bp.levels:
        faults += _unknown_axes(bp, f"levels[{level.name}].axes", level.axes)
    return faults


def _link_faults(bp: Blueprint) -> list[Fault]:
    names = [node.name for node in bp.nodes]
    faults = _repeats("links", (" - ".join(sorted((link.a, link.b))) for link in bp.links))
    for link in bp.links:
        field = f"links[{link.a} - {link.b}]"
        faults += [
            Fault(field, end, "is no node class", f"known: {', '.join(names)}")
            for end in (link.a, link.b)
            if end not in names
        ]
        if link.a == link.b:
            faults.append(Fault(field, link.a, "joins a class to itself", "put a switch or a second class between"))
        if not 0 < link.bandwidth_Bps < math.inf:
            faults.append(Fault(f"{field}.bandwidth_Bps", link.bandwidth_Bps, "must be above 0 and finite"))
        if not 0 <= link.latency_s < math.inf:
            faults.append(Fault(f"{field}.latency_s", link.latency_s, "must be 0 or more, and finite"))
        if link.count < 1:
            faults.append(Fault(f"{field}.count", link.count, "must be at least 1"))
        if link.plane not in PLANES:
            faults.append(Fault(f"{field}.plane", link.plane, "is unknown", f"known: {', '.join(PLANES)}"))
    linked = {end for link in bp.links for end in (link.a, link.b)}
    for node in bp.nodes:
        if node.name not in linked and bp.population(node.axes) > 1:
            faults.append(Fault(f"nodes[{node.name}]", None, "is joined to nothing", "add a link class that names it"))
    return faults


def _level_faults(bp: Blueprint) -> list[Fault]:
    faults = _repeats("levels", (level.name for level in bp.levels))
    if not bp.levels or bp.levels[-1].axes:
        faults.append(Fault("levels", None, "do not end with the whole cluster", "end with a level whose axes are ()"))
    for level in bp.levels:
        field = f"levels[{level.name}]"
        if level.plane not in PLANES:
            faults.append(Fault(f"{field}.plane", level.plane, "is unknown", f"known: {', '.join(PLANES)}"))
        for node in bp.nodes:
            if node.kind == "accelerator" and not set(level.axes) <= set(bp.closure(node.axes)):
                faults.append(Fault(f"{field}.axes", level.axes, f"has axes that {node.name} lacks"))
    for inner, outer in pairwise(bp.levels):
        if not set(bp.closure(outer.axes)) <= set(bp.closure(inner.axes)):
            faults.append(
                Fault(f"levels[{outer.name}].axes", outer.axes, f"do not contain level {inner.name}", "nest the levels")
            )
    return faults


# --- the two graphs --------------------------------------------------------------------------------------------------


def _label(node: str, values: Mapping[str, object]) -> str:
    """Name a node after its class and coordinates: ``leaf[unit=0,rail=3]``."""
    return f"{node}[{','.join(f'{axis}={value}' for axis, value in values.items())}]" if values else node


def _domain_axes(bp: Blueprint) -> tuple[str, ...] | None:
    """Return the axes of the scale-up domain (the outermost level of that plane), or None where there is none."""
    outermost = [level for level in bp.levels if level.plane == "scale-up"][-1:]
    return bp.closure(outermost[0].axes) if outermost else None


def expand(bp: Blueprint) -> "nx.Graph[str]":
    """Write out every node and link of a blueprint.

    Nodes are named ``class[axis=value,…]`` and carry `kind`, `domain` (running index of the scale-up domain, None
    outside one), `part`, `node_class`, `coordinates` and `in_network_reduction`. Edges carry `bandwidth_Bps` (per
    direction, summed over parallel links), `latency_s`, `link`, `links` (how many), and `plane`: see `topo.schema`.
    """
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph(name=bp.name)
    domain_axes = _domain_axes(bp)
    blocks = coordinates(bp, domain_axes or ())
    index: dict[tuple[int, ...], int] = {tuple(at.values()): i for i, at in enumerate(blocks)}
    members: dict[str, list[tuple[str, dict[str, int]]]] = {}
    for node in bp.nodes:
        names = bp.closure(node.axes)
        inside = domain_axes is not None and set(domain_axes) <= set(names)
        members[node.name] = [(_label(node.name, c), c) for c in coordinates(bp, names)]
        for name, at in members[node.name]:
            graph.add_node(
                name,
                kind=node.kind,
                domain=index[tuple(at[axis] for axis in domain_axes or ())] if inside else None,
                part=node.part,
                node_class=node.name,
                coordinates=at,
                in_network_reduction=node.in_network_reduction,
            )
    for link in bp.links:
        shared = _shared(bp, link)
        peers: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, at in members[link.b]:
            peers[tuple(at[axis] for axis in shared)].append(name)
        graph.add_edges_from(
            ((name, peer) for name, at in members[link.a] for peer in peers[tuple(at[axis] for axis in shared)]),
            bandwidth_Bps=link.bandwidth_Bps * link.count,
            latency_s=link.latency_s,
            link=link.link,
            links=link.count,
            plane=link.plane,
        )
    return graph


def _shared(bp: Blueprint, link: LinkClass) -> tuple[str, ...]:
    """Return the axes that both ends of a link have."""
    other = set(bp.closure(bp.node(link.b).axes))
    return tuple(axis for axis in bp.closure(bp.node(link.a).axes) if axis in other)


def quotient(bp: Blueprint, marks: Marks = ()) -> "nx.DiGraph[str]":
    """Return the graph of orbits under the symmetries that leave the marks in place, from the parameters alone.

    Nodes carry `multiplicity`, `kind`, `part`, `node_class`, `in_network_reduction`, `cells` (axis → marked intervals)
    and `example` (the coordinates of one member). An edge u→v carries `bandwidth_Bps`, the **total** capacity from all
    members of u to all members of v, with `latency_s`, `link`, `links` (how many in all) and `plane`.

    Parameters
    ----------
    bp
        The blueprint.
    marks
        Coordinates that are told apart, parents included: ``{"unit": 0, "domain": 3}`` is a whole domain. A `range`
        marks a set of values as one class: ``{"pod": range(0, 4)}``. Marks must be for the blueprint's own axes.

    Returns
    -------
    nx.DiGraph
        Frozen, and cached: copy it before changing it.

    Raises
    ------
    SpecError
        When a mark names an unknown axis, lacks a parent, or lies outside its axis.
    """
    return _quotient(bp, normal_marks(bp, marks))


@lru_cache(maxsize=128)
def _quotient(bp: Blueprint, marks: NormalMarks) -> "nx.DiGraph[str]":
    import networkx as nx

    graph: nx.DiGraph[str] = nx.DiGraph(name=bp.name)
    members: dict[str, list[tuple[str, Orbit]]] = {}
    for node in bp.nodes:
        found = orbits(bp, bp.closure(node.axes), marks)
        labels = [_label(node.name, {axis: cell_label(cell) for axis, cell in o.cells.items()}) for o in found]
        members[node.name] = list(zip(labels, found, strict=True))
        for name, orbit in members[node.name]:
            graph.add_node(
                name,
                multiplicity=orbit.multiplicity,
                kind=node.kind,
                part=node.part,
                node_class=node.name,
                in_network_reduction=node.in_network_reduction,
                cells=orbit.cells,
                example=orbit.example,
            )
    for link in bp.links:
        shared = _shared(bp, link)
        peers: dict[tuple[Cell, ...], list[tuple[str, int]]] = defaultdict(list)
        for name, orbit in members[link.b]:
            own = math.prod(count for axis, count in orbit.counts.items() if axis not in shared)
            peers[tuple(orbit.cells[axis] for axis in shared)].append((name, own))
        for name, orbit in members[link.a]:
            for peer, per_member in peers[tuple(orbit.cells[axis] for axis in shared)]:
                links = orbit.multiplicity * per_member * link.count
                attributes = {
                    "bandwidth_Bps": links * link.bandwidth_Bps,
                    "latency_s": link.latency_s,
                    "link": link.link,
                    "links": links,
                    "plane": link.plane,
                }
                graph.add_edge(name, peer, **attributes)
                graph.add_edge(peer, name, **attributes)
    nx.freeze(graph)
    return graph
