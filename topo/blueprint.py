"""A cluster written as symmetries: a few axes, node classes, link classes, and what has been changed by hand.

The one rule of wiring: **a link class joins every pair of an a-node and a b-node that agree on all axes both have.**
So ``accelerator(domain, rail, slot)`` and ``switch(domain, plane)`` are a full crossbar inside each domain, and
``accelerator(domain, rail, slot)`` and ``leaf(unit, rail)`` are a rail-optimised leaf layer, once ``domain`` is
``within`` ``unit``.

Links *along* an axis join nodes of one class: neighbours on a ring (a torus) or a line (a mesh), or, on an axis without
an order, every pair (a full mesh, the groups of a dragonfly, sites on a wide-area network).

`topo.orbits` turns a blueprint into its quotient, `topo.graphs` into every node and link.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

from topo.changes import Change, change_faults
from topo.errors import Fault, SpecError
from topo.symmetry import orbits

KINDS = ("accelerator", "switch", "nic", "host", "site")
"""What a node can be."""

PLANES = ("scale-up", "scale-out")
"""The two networks of a cluster: inside the domain (NVLink and its like) and between domains (NICs)."""

Plane = Literal["scale-up", "scale-out"]

ORDERS = ("set", "ring", "line")
"""How the values of an axis stand to one another: interchangeable, in a circle, or in a row."""

Order = Literal["set", "ring", "line"]


@dataclass(frozen=True)
class Axis:
    """A coordinate of nodes, with values 0 … size-1.

    `within` names the parent axis: a node that has this coordinate has its parents' too. `last` allows a remainder: it
    is the size inside the last block of the parent (and, where the parent has a `last` itself, only in the last of the
    last), so 33 domains are ``Axis("unit", 2), Axis("domain", 32, "unit", last=1)``. `order` matters to links along the
    axis only; an axis with an order has no `last`.
    """

    name: str
    size: int
    within: str | None = None
    last: int | None = None
    order: Order = "set"


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

    With `along`, a and b are one class, and the links join two of its nodes that agree on every other axis and differ
    along these: by one step on a ring or a line (a ring of two has two links), by anything on axes without an order.
    `link` is an opaque key of what is bought for it; "" is a trace on a board, which nobody buys.
    """

    a: str
    b: str
    bandwidth_Bps: float
    latency_s: float
    link: str
    count: int = 1
    plane: Plane = "scale-up"
    along: tuple[str, ...] = ()


@dataclass(frozen=True)
class Level:
    """A way to cut the cluster in blocks: the accelerators that agree on `axes` (and their parents); () is all.

    Where accelerator classes have axes of their own, a class is cut by those of `axes` that it has.
    """

    name: str
    kind: str = "switch"
    plane: Plane = "scale-up"
    axes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Blueprint:
    """A cluster as axes (parents first), node classes, link classes, and nested levels (innermost first, last = all).

    `changes` are what is missing or slower than the classes say: see `topo.changes`. `extra_parts` are bought besides
    nodes and links, in all, such as circuit switches; a negative number takes back links that are bought as another key.

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
    >>> bp.population(("slot",)), bp.closure(("slot",))
    (8, ('domain', 'slot'))
    """

    name: str
    axes: tuple[Axis, ...]
    nodes: tuple[NodeClass, ...]
    links: tuple[LinkClass, ...]
    levels: tuple[Level, ...]
    changes: tuple[Change, ...] = ()
    extra_parts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        faults = [*_axis_faults(self), *_node_faults(self)] or [*_link_faults(self), *_level_faults(self)]
        faults = faults or change_faults(self)
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

    def own(self, level: Level, node: NodeClass) -> tuple[str, ...]:
        """Return the axes (with parents) that cut `node` into the blocks of `level`."""
        mine = self.closure(node.axes)
        return self.closure(axis for axis in level.axes if axis in mine)

    def shared(self, link: LinkClass) -> tuple[str, ...]:
        """Return the axes on which the ends of a link agree: those both have, but for the ones it runs along."""
        other = set(self.closure(self.node(link.b).axes)) - set(link.along)
        return tuple(axis for axis in self.closure(self.node(link.a).axes) if axis in other)

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
        if axis.order not in ORDERS:
            faults.append(Fault(f"{field}.order", axis.order, "is unknown", f"known: {', '.join(ORDERS)}"))
        elif axis.order != "set" and axis.last is not None:
            faults.append(
                Fault(f"{field}.last", axis.last, f"is a remainder on a {axis.order}", "leave one of them out")
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
    faults = _repeats("links", (" - ".join((*sorted((link.a, link.b)), *link.along)) for link in bp.links))
    for link in bp.links:
        field = f"links[{link.a} - {link.b}]"
        faults += [
            Fault(field, end, "is no node class", f"known: {', '.join(names)}")
            for end in (link.a, link.b)
            if end not in names
        ]
        faults += _along_faults(bp, link, field)
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


def _along_faults(bp: Blueprint, link: LinkClass, field: str) -> list[Fault]:
    if not link.along:
        problem, remedy = "joins a class to itself", "say along which axes, or put a second class between"
        return [Fault(field, link.a, problem, remedy)] if link.a == link.b else []
    if link.a != link.b:
        return [Fault(f"{field}.along", link.along, "joins two classes", "links along an axis join one class")]
    faults = _unknown_axes(bp, f"{field}.along", link.along)
    if faults or any(node.name == link.a and not set(link.along) <= set(bp.closure(node.axes)) for node in bp.nodes):
        return faults or [Fault(f"{field}.along", link.along, f"has axes that {link.a} lacks")]
    if len(link.along) > 1 and any(bp.axis[name].order != "set" for name in link.along):
        faults.append(Fault(f"{field}.along", link.along, "mixes axes with an order", "write one link class for each"))
    # A child's values are numbered inside each parent: "the same slot of another domain" means nothing.
    loose = [name for name in bp.closure(bp.node(link.a).axes) if name not in link.along]
    if any(bp.axis[name].within in link.along for name in loose):
        faults.append(Fault(f"{field}.along", link.along, "leaves out a child axis", "put it along as well"))
    return faults


def _level_faults(bp: Blueprint) -> list[Fault]:
    faults = _repeats("levels", (level.name for level in bp.levels))
    if not bp.levels or bp.levels[-1].axes:
        faults.append(Fault("levels", None, "do not end with the whole cluster", "end with a level whose axes are ()"))
    accelerators = [node for node in bp.nodes if node.kind == "accelerator"]
    for level in bp.levels:
        field = f"levels[{level.name}]"
        if level.plane not in PLANES:
            faults.append(Fault(f"{field}.plane", level.plane, "is unknown", f"known: {', '.join(PLANES)}"))
        held = {axis for node in accelerators for axis in bp.closure(node.axes)}
        faults += [
            Fault(f"{field}.axes", name, "is on no accelerator", "name axes of accelerators")
            for name in level.axes
            if name not in held
        ]
    for inner, outer in pairwise(bp.levels):
        if any(not set(bp.own(outer, node)) <= set(bp.own(inner, node)) for node in accelerators):
            faults.append(
                Fault(f"levels[{outer.name}].axes", outer.axes, f"do not contain level {inner.name}", "nest the levels")
            )
    return faults
