"""What a drawing of a cluster shows: frames in frames, boxes of like nodes on rows, bundles of like links.

Everything is read off the graph of orbits, so 500,000 accelerators take as long as 8. Orbits that a reader need not
tell apart are one box; what has been changed stands apart. Where things lie on paper is not decided here.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from topo.blueprint import Blueprint, LinkClass, Order, Plane
from topo.changes import Change, Spans
from topo.framing import rows, steps
from topo.orbits import Arc, Member, OrbitGraph, orbit_graph
from topo.symmetry import Cell, Orbit

Loads = Mapping[tuple[str, str], float]
"""Load over capacity, by (from, to): names of classes, or of orbits as `topo.orbits.orbit_graph` writes them."""

Place = tuple[tuple[str, tuple[Cell, ...]], ...]
"""Which frame: outermost first, the frame's name and the cells of its axes, as far as marks tell them apart."""


@dataclass(frozen=True, slots=True)
class Direct:
    """Links of a node to others of its box: along `axes`, `ways` of them, each with `kept` of `bandwidth_Bps`.

    `size` is how many nodes stand in that ring or line, or how many are joined each with each (`order` "set").
    """

    axes: tuple[str, ...]
    size: int
    order: Order
    ways: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    plane: Plane
    kept: float
    load: float | None


@dataclass(frozen=True, slots=True)
class Box:
    """Nodes of one class that are drawn as one.

    Attributes
    ----------
    key : unique name, to which bundles refer
    name, kind, part : of the class
    where : the coordinates that set it apart, such as "rail 3"; "" where it is the rule
    count, each : nodes in all, and in one frame
    row : 0 for accelerators; the further above on the scale-out plane, the further below on scale-up alone
    kept : share of its bandwidth that a node keeps; 0 where it is gone
    direct : its links to its like
    """

    key: str
    name: str
    kind: str
    part: str
    where: str
    count: int
    each: int
    row: int
    kept: float = 1.0
    direct: tuple[Direct, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """Blocks of one make, `each` of them in every block around, `count` in all; `changes` tells what was changed inside."""

    name: str
    where: str
    count: int
    each: int
    accelerators: int
    changes: tuple[str, ...]
    boxes: tuple[Box, ...]
    frames: tuple["Frame", ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Links of one class between two boxes, `a` the one nearer to the accelerators.

    Attributes
    ----------
    a, b : keys of boxes
    link, plane, latency_s : of the class
    links, each : how many in all, and how many at a node of `a` (a mean, where nodes differ)
    bandwidth_Bps : of one link per direction, as built
    kept : share of it that is left; 0 where the links are cut
    share_Bps : bytes/s of all of them for each accelerator in the frame of `a`
    load : load over capacity, the worse direction; None if not known
    """

    a: str
    b: str
    link: str
    plane: Plane
    latency_s: float
    links: int
    each: float
    bandwidth_Bps: float
    kept: float
    share_Bps: float
    load: float | None


@dataclass(frozen=True, slots=True)
class Outline:
    """A cluster as a drawing shows it; `root` is the frame of all."""

    name: str
    accelerators: int
    root: Frame
    bundles: tuple[Bundle, ...]


GONE = "gone"
"""What is said of nodes and links that are not there."""


# --- boxes ------------------------------------------------------------------------------------------------------------


def _marked(bp: Blueprint) -> dict[str, set[tuple[int, int]]]:
    """Return which intervals of each axis set something apart: changes and remainders."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for change in bp.changes:
        for mark in change.marks:
            for axis, span in mark:
                found[axis].add(span)
    for axis in bp.split_axes:
        found[axis].add((bp.axis[axis].size - 1, bp.axis[axis].size))
    return found


def _said(axis: str, cell: Iterable[tuple[int, int]]) -> str:
    """Name coordinates: the narrowest interval, as numbers.

    >>> _said("old.rail", [(0, 8), (3, 4)]), _said("rail", [(0, 4)]), _said("rail", [])
    ('rail 3', 'rail 0–3', '')
    """
    spans = sorted(cell, key=lambda span: span[1] - span[0])
    if not spans:
        return ""
    low, high = spans[0]
    return f"{axis.rpartition('.')[2]} {low}" + (f"–{high - 1}" if high > low + 1 else "")


def _holds(orbit: Orbit, at: Spans) -> bool:
    return all(span in orbit.cells.get(axis, ()) for axis, span in at)


def _effects(bp: Blueprint, member: Member) -> tuple[tuple[str, float, Spans], ...]:
    """Return the changes that name nodes of an orbit: the class they are towards ("" for all), factor, and where."""

    def found(change: Change) -> Iterable[tuple[str, float, Spans]]:
        if change.node == member.node.name and _holds(member.orbit, change.at):
            yield change.to, change.factor, change.at
        if change.to == member.node.name and change.to_at and _holds(member.orbit, change.to_at):
            yield change.node, change.factor, change.to_at

    return tuple(effect for change in bp.changes for effect in found(change))


@dataclass(frozen=True)
class _Grouped:
    """Orbits gathered into boxes, and boxes into frames."""

    boxes: dict[str, Box]
    of: dict[str, str]  # orbit -> key of its box
    place: dict[str, Place]  # key of a box -> its frame
    frames: dict[Place, int]  # frame -> how many


def _grouped(bp: Blueprint, whole: OrbitGraph) -> _Grouped:
    """Gather the orbits of a cluster that nothing was taken from (but marked as if)."""
    marked, within, row = _marked(bp), steps(bp), rows(bp)
    frames: dict[Place, dict[tuple[Cell, ...], int]] = defaultdict(dict)
    frames[()] = {(): 1}
    alike: dict[tuple[str, Place, tuple[tuple[str, float], ...]], list[str]] = defaultdict(list)
    told: dict[str, tuple[tuple[str, float, Spans], ...]] = {}
    for name, member in whole.members.items():
        orbit, place, axes = member.orbit, tuple[tuple[str, tuple[Cell, ...]], ...](), tuple[str, ...]()
        for title, own in within[member.node.name]:
            cells = tuple(tuple(span for span in orbit.cells[axis] if span in marked[axis]) for axis in own)
            place, axes = (*place, (title, cells)), bp.closure((*axes, *own))
            many = math.prod(orbit.counts[axis] for axis in axes)
            frames[place][tuple(orbit.cells[axis] for axis in axes)] = many
        told[name] = _effects(bp, member)
        effects = sorted({(to, factor) for to, factor, _ in told[name]})
        alike[member.node.name, place, tuple(effects)].append(name)
    many_of = {place: sum(held.values()) for place, held in frames.items()}
    boxes: dict[str, Box] = {}
    for (title, place, told_of), orbits in alike.items():
        node, count = bp.node(title), sum(whole.members[name].multiplicity for name in orbits)
        framed = {axis for _, own in within[title] for axis in own}
        where = {
            ", ".join(_said(axis, [span]) for axis, span in at if axis not in framed)
            for name in orbits
            for _, _, at in told[name]
        } - {""}
        boxes[orbits[0]] = Box(
            key=orbits[0],
            name=title,
            kind=node.kind,
            part=node.part,
            where=_listed(where),
            count=count,
            each=math.ceil(count / many_of[place]),
            row=row[title],
            kept=math.prod(factor for to, factor in told_of if not to),
        )
    keys = {name: orbits[0] for orbits in alike.values() for name in orbits}
    places = {orbits[0]: place for (_, place, _), orbits in alike.items()}
    return _Grouped(boxes, keys, places, many_of)


def _listed(names: Iterable[str], most: int = 2) -> str:
    """List a few names.

    >>> _listed({"slot 2", "slot 1", "slot 9", "slot 5"})
    'slot 1; slot 2 and 2 more'
    """
    ordered = sorted(names, key=lambda name: (len(name), name))
    rest = len(ordered) - most
    return "; ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")


# --- bundles ---------------------------------------------------------------------------------------------------------


def _load(arcs: Iterable[Arc], whole: OrbitGraph, loads: Loads | None) -> float | None:
    """Return the worst load of some arcs, in either direction, where any is known."""
    if loads is None:
        return None
    found = [
        loads[pair]
        for arc in arcs
        for u, v in ((arc.tail, arc.head), (whole.members[arc.tail].node.name, whole.members[arc.head].node.name))
        for pair in ((u, v), (v, u))
        if pair in loads
    ]
    return max(found, default=None)


def _joined(
    bp: Blueprint, whole: OrbitGraph, kept: OrbitGraph, boxes: _Grouped, loads: Loads | None
) -> tuple[list[Bundle], dict[str, list[Direct]]]:
    """Gather arcs into bundles between boxes, and into direct links inside them."""
    left = {(arc.tail, arc.head, arc.wire): arc.bandwidth_Bps for arc in kept.arcs}
    alike: dict[tuple[str, str, LinkClass, float], list[Arc]] = defaultdict(list)
    for arc in whole.arcs:
        a, b = boxes.of[arc.tail], boxes.of[arc.head]
        inner = whole.members[arc.tail].node.name == arc.wire.a
        if not inner or not boxes.boxes[a].kept or not boxes.boxes[b].kept:
            continue  # the other direction, or links of what is gone
        share = round(left.get((arc.tail, arc.head, arc.wire), 0.0) / arc.bandwidth_Bps, 9)
        alike[min(a, b) if arc.wire.along else a, max(a, b) if arc.wire.along else b, arc.wire, share].append(arc)
    bundles, direct = list[Bundle](), defaultdict[str, list[Direct]](list)
    for (a, b, wire, share), arcs in alike.items():
        load = _load(arcs, whole, loads)
        if a == b:
            direct[a].append(replace(_direct(bp, wire), kept=share, load=load))
            continue
        links = sum(arc.links for arc in arcs) // (2 if wire.along else 1)
        near, far = sorted((a, b), key=lambda key: abs(boxes.boxes[key].row))
        home = _population(whole, boxes, boxes.place[near]) or _population(whole, boxes, ())
        bundles.append(
            Bundle(
                a=near,
                b=far,
                link=wire.link,
                plane=wire.plane,
                latency_s=wire.latency_s,
                links=links,
                each=links / boxes.boxes[near].count,
                bandwidth_Bps=wire.bandwidth_Bps,
                kept=share,
                share_Bps=links * wire.bandwidth_Bps * share / home,
                load=load,
            )
        )
    return bundles, direct


def _direct(bp: Blueprint, wire: LinkClass) -> Direct:
    """Describe links along axes, as a node that is not at an end of a line has them."""
    first = bp.axis[wire.along[0]]
    size = math.prod(bp.axis[name].size for name in wire.along)
    ways = size - 1 if first.order == "set" else 2 if first.order == "ring" or size > 2 else 1
    each = ways * wire.count
    return Direct(
        wire.along, size, first.order, each, wire.bandwidth_Bps, wire.latency_s, wire.link, wire.plane, 1.0, None
    )


def _population(whole: OrbitGraph, boxes: _Grouped, place: Place) -> int:
    """Count the accelerators inside all frames of one make."""
    return sum(
        member.multiplicity
        for name, member in whole.members.items()
        if member.node.kind == "accelerator" and boxes.place[boxes.of[name]][: len(place)] == place
    )


# --- frames ----------------------------------------------------------------------------------------------------------


def _frame(
    place: Place, axes: Mapping[str, tuple[str, ...]], boxes: _Grouped, changed: Mapping[str, list[str]]
) -> Frame:
    """Gather what lies in one frame, largest part first."""
    own = [boxes.boxes[key] for key, held in boxes.place.items() if held == place]
    inner = [p for p in boxes.frames if len(p) == len(place) + 1 and p[: len(place)] == place]
    frames = [_frame(p, axes, boxes, changed) for p in inner]
    # Unlike makes in the order of the classes; of one make, the rule before what is changed, the largest first.
    order = {name: i for i, name in enumerate(dict.fromkeys(p[-1][0] for p in inner))}
    frames.sort(key=lambda frame: (order[frame.name], len(frame.changes), -frame.accelerators))
    changes = [told for box in own for told in changed.get(box.key, ())]
    for frame in frames:
        changes += [f"{frame.where or frame.name} {GONE}"] if frame.changes == (GONE,) else frame.changes
    gone = not any(box.kept for box in own) and all(frame.changes == (GONE,) for frame in frames)
    boxed = sum(box.count for box in own if box.kind == "accelerator" and box.kept)
    name, cells = place[-1] if place else ("", ())
    return Frame(
        name=name,
        where=", ".join(filter(None, (_said(a, c) for a, c in zip(axes.get(name, ()), cells, strict=True)))),
        count=boxes.frames[place],
        each=math.ceil(boxes.frames[place] / boxes.frames[place[:-1]]),
        accelerators=boxed + sum(frame.accelerators for frame in frames),
        changes=(GONE,) if gone else tuple(dict.fromkeys(changes)),
        boxes=tuple(sorted(own, key=lambda box: (-box.row, not box.kept, bool(box.where)))),
        frames=tuple(frames),
    )


def _told(boxes: Mapping[str, Box], bundles: Iterable[Bundle]) -> Mapping[str, list[str]]:
    """Say of each box what was changed."""
    found: dict[str, list[str]] = defaultdict(list)

    def say(key: str, what: str, kept: float) -> None:
        found[key].append(f"{what} {f'at {100 * kept:.3g}%' if kept else GONE}")

    def named(box: Box) -> str:
        return f"{box.name.rpartition('.')[2]} {box.where}".strip()

    for box in boxes.values():
        if box.kept != 1:
            say(box.key, named(box), box.kept)
        for links in box.direct:
            if links.kept not in (1, box.kept**2):
                say(box.key, f"{named(box)} along {', '.join(links.axes)}", links.kept)
    for bundle in bundles:
        a, b = boxes[bundle.a], boxes[bundle.b]
        if bundle.kept != a.kept * b.kept:
            first, second = (b, a) if b.where and not a.where else (a, b)
            say(first.key, f"{named(first)} – {named(second)}", bundle.kept)
    return found


def outline(bp: Blueprint, loads: Loads | None = None) -> Outline:
    """Return what a drawing of a cluster shows.

    Parameters
    ----------
    bp
        The cluster.
    loads
        Load over capacity of links, by (from, to), each the name of a class or of an orbit; see also `class_loads`.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = outline(cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib")))
    >>> [(frame.name, frame.count, [(box.name, box.each) for box in frame.boxes]) for frame in two.root.frames]
    [('domain', 2, [('nic', 8), ('accelerator', 8), ('scale-up-switch', 18)])]
    >>> [(bundle.links, bundle.bandwidth_Bps / 1e9) for bundle in two.bundles]
    [(288, 50.0), (16, 50.0), (16, 50.0)]
    """
    marks = [{axis: range(*span) for axis, span in mark} for change in bp.changes for mark in change.marks]
    whole, kept = orbit_graph(replace(bp, changes=()), marks), orbit_graph(bp)
    grouped = _grouped(bp, whole)
    bundles, direct = _joined(bp, whole, kept, grouped, loads)
    for key, links in direct.items():
        grouped.boxes[key] = replace(grouped.boxes[key], direct=tuple(links))
    changed = _told(grouped.boxes, bundles)
    axes = {name: own for held in steps(bp).values() for name, own in held}
    root = _frame((), axes, grouped, changed)
    return Outline(bp.name, root.accelerators, root, tuple(bundles))


def class_loads(bp: Blueprint, loads_Bps: npt.ArrayLike) -> dict[tuple[str, str], float]:
    """Return the worst load over capacity between any two classes, from loads on every arc.

    Parameters
    ----------
    bp
        The cluster.
    loads_Bps
        Bytes/s on each of `topo.graphs.flat`'s arcs, such as `topo.loads.link_loads` returns.

    Examples
    --------
    One NIC of two is full, the other idle.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(1, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> class_loads(two, [50e9, 0, 50e9, 0, 0, 0, 0, 0])[("nic", "leaf")]
    1.0
    """
    from topo.graphs import flat

    held = flat(bp)
    tail, head, bandwidth_Bps, _ = held.arcs
    share = np.asarray(loads_Bps, dtype=np.float64) / bandwidth_Bps
    names = {node.name: i for i, node in enumerate(bp.nodes)}
    of = np.fromiter((names[name.partition("[")[0]] for name in held.names), np.int64, held.size)
    pair = of[tail] * len(names) + of[head]
    worst = np.zeros(len(names) ** 2)
    np.maximum.at(worst, pair, share)
    classes = list(names)
    return {(classes[p // len(names)], classes[p % len(names)]): float(worst[p]) for p in np.unique(pair)}
