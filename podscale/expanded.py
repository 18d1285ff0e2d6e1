"""A small cluster drawn node by node: rows of tiers with every link; rings, grids and full meshes in their own shape."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from podscale import words
from podscale.places import short
from podscale.sheet import LOADS, PLANES, Sheet, hue_of_load, width_of
from topo.blueprint import Axis, Blueprint
from topo.errors import Fault, SpecError
from topo.framing import rows
from topo.graphs import expand
from topo.outline import Loads

MOST_NODES = 256
"""More nodes than this are a grey cloud: the outline says more."""

_MARGIN, _HEAD, _BETWEEN = 24.0, 64.0, 84.0

Point = tuple[float, float]
Shape = Callable[[Sequence[Mapping[str, int]], Sequence[Axis], float], list[Point]]


# --- shapes of what stands in one domain -----------------------------------------------------------------------------


def _file(places: Sequence[Mapping[str, int]], _axes: Sequence[Axis], pitch: float) -> list[Point]:
    """Stand side by side."""
    return [(pitch * (i - (len(places) - 1) / 2), 0.0) for i in range(len(places))]


def _circle(places: Sequence[Mapping[str, int]], _axes: Sequence[Axis], pitch: float) -> list[Point]:
    """Stand on a circle, a pitch apart (at least)."""
    count = len(places)
    radius = max(26.0, count * max(pitch, 14.0) / (2 * math.pi)) if count > 1 else 0.0
    turns = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _grid(places: Sequence[Mapping[str, int]], axes: Sequence[Axis], _pitch: float) -> list[Point]:
    """Stand on a grid of the first two axes; the third goes into the depth, further ones make grids side by side."""
    wide, high, *deep = axes
    depth = deep[0].size if deep else 1
    step = max(26.0, 14.0 + 11.0 * depth)
    points = []
    for place in places:
        block = 0
        for axis in deep[1:]:
            block = block * axis.size + place[axis.name]
        k = place[deep[0].name] if deep else 0
        x = place[wide.name] * step + 11.0 * k + block * (wide.size * step + 30.0)
        points.append((x, place[high.name] * step - 8.0 * k))
    (left, right), (low, up) = ((min(values), max(values)) for values in zip(*points, strict=True))
    return [(x - (left + right) / 2, y - (low + up) / 2) for x, y in points]


def _shape(bp: Blueprint, name: str, places: Sequence[Mapping[str, int]]) -> tuple[Shape, list[Axis]]:
    """Choose how the nodes of a class stand in their domain, by the links among them and by how they are numbered."""
    along = [axis for link in bp.links if link.a == name for axis in link.along]
    numbered = [axis for axis in places[0] if len({place[axis] for place in places}) > 1]
    ordered = [axis for axis in along if axis in numbered and bp.axis[axis].order != "set"]
    if len(ordered) > 1:
        return _grid, [bp.axis[axis] for axis in (*ordered, *(axis for axis in numbered if axis not in ordered))]
    straight = bool(ordered) and bp.axis[ordered[0]].order == "line"
    return (_circle if along and set(numbered) <= set(along) and not straight else _file), []


# --- places ----------------------------------------------------------------------------------------------------------


@dataclass
class _Cell:
    """Nodes of one class in one domain: their names, and where they stand around the middle of the cell."""

    names: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    @property
    def size(self) -> tuple[float, float]:
        xs, ys = zip(*self.points, strict=True)
        return max(xs) - min(xs), max(ys) - min(ys)


_Row = dict[int | None, _Cell]


def _cells(bp: Blueprint, graph: Any, pitch: float) -> dict[int, _Row]:
    """Gather nodes by row and domain, and shape every cell."""
    row_of = rows(bp)
    gathered: dict[int, dict[int | None, dict[str, list[str]]]] = defaultdict(lambda: defaultdict(dict))
    for name, held in graph.nodes(data=True):
        classes = gathered[row_of[held["node_class"]]][held["domain"]]
        classes.setdefault(held["node_class"], []).append(name)
    found: dict[int, _Row] = {}
    for number in sorted(gathered, reverse=True):
        found[number] = {}
        for domain, classes in gathered[number].items():
            cell, right = _Cell(), 0.0
            for title, names in classes.items():
                places = [graph.nodes[name]["coordinates"] for name in names]
                shape, axes = _shape(bp, title, places)
                points = shape(places, axes, pitch)
                left = min(x for x, _ in points)
                cell.names += names
                cell.points += [(x - left + right, y) for x, y in points]
                right = max(x for x, _ in cell.points) + 2 * pitch
            middle = (right - 2 * pitch) / 2
            cell.points = [(x - middle, y) for x, y in cell.points]
            found[number][domain] = cell
    return found


@dataclass
class _Plan:
    """Where every node stands, and the frames of the domains."""

    points: dict[str, Point]
    middles: dict[int, float]
    frames: list[tuple[float, float, float, float]]
    width: float
    bottom: float


def _plan(cells: dict[int, _Row], pitch: float, left: float, top: float) -> _Plan:
    """Give each domain a column, in which files spread out, and each row a height."""
    gap, domains = 2 * pitch, dict[int, float]()
    for row in cells.values():
        for domain, cell in row.items():
            if domain is not None:
                domains[domain] = max(domains.get(domain, 0.0), cell.size[0] + gap)
    free = max((row[None].size[0] + gap for row in cells.values() if None in row), default=0.0)
    width = max(sum(domains.values()) + gap * max(0, len(domains) - 1), free)
    apart = (width - sum(domains.values())) / max(1, len(domains))
    column, x = dict[int | None, float](), left
    for domain in sorted(domains):
        column[domain] = x + (domains[domain] + apart) / 2
        x += domains[domain] + apart
    points, middles, y = dict[str, Point](), dict[int, float](), top
    between = min(150.0, max(_BETWEEN, 0.13 * width))
    for number, row in cells.items():
        tall = max(cell.size[1] for cell in row.values())
        y += tall / 2
        middles[number] = y
        for domain, cell in row.items():
            middle, room = (left + width / 2, width) if domain is None else (column[domain], domains[domain])
            file = cell.size[0] and not cell.size[1]
            stretch = (room - gap) / cell.size[0] * min(1.0, len(cell.names) / 8) if file else 1.0
            points |= {
                name: (middle + dx * stretch, y + dy) for name, (dx, dy) in zip(cell.names, cell.points, strict=True)
            }
        y += tall / 2 + between
    frames = []
    for domain, across in domains.items():
        inside = [(middles[n], row[domain].size[1] / 2) for n, row in cells.items() if domain in row]
        high, low = min(m - t for m, t in inside) - 18, max(m + t for m, t in inside) + 18
        frames.append((column[domain] - across / 2, high, across, low - high))
    return _Plan(points, middles, frames, width, y - between)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _load(loads: Loads | None, graph: Any, u: str, v: str) -> float | None:
    """Return the worse load of a link, by the names of its nodes or of their classes."""
    classes = graph.nodes[u]["node_class"], graph.nodes[v]["node_class"]
    pairs = ((u, v), (v, u), classes, classes[::-1])
    return max((loads[pair] for pair in pairs if pair in loads), default=None) if loads else None


def _wraps(bp: Blueprint, graph: Any, u: str, v: str) -> bool:
    """Return whether a link closes a ring of a grid: it is drawn as what sticks out at both ends."""
    a, b = graph.nodes[u], graph.nodes[v]
    rings = [axis for link in bp.links for axis in link.along if bp.axis[axis].order == "ring"]
    if a["node_class"] != b["node_class"] or len(rings) < 2:
        return False
    return any(abs(a["coordinates"][axis] - b["coordinates"][axis]) > 1 for axis in rings if axis in a["coordinates"])


def _stubs(start: Point, end: Point) -> str:
    """Return what sticks out at the ends of a link that goes round."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    across, down = (x1 - x0) / length * 14, (y1 - y0) / length * 14
    return f"M{x0:.1f} {y0:.1f}l{-across:.1f} {-down:.1f}M{x1:.1f} {y1:.1f}l{across:.1f} {down:.1f}"


def _way(start: Point, end: Point, others: int) -> str:
    """Return a straight line, or a bow around what stands between the ends."""
    (x0, y0), (x1, y1) = start, end
    if not others:
        return f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
    length = math.hypot(x1 - x0, y1 - y0)
    bow = min(24.0, 8.0 + length * 0.12)
    across, down = (y1 - y0) / length * bow * 2, -(x1 - x0) / length * bow * 2
    return f"M{x0:.1f} {y0:.1f}Q{(x0 + x1) / 2 + across:.1f} {(y0 + y1) / 2 + down:.1f} {x1:.1f} {y1:.1f}"


def _between(points: Mapping[Point, str], start: Point, end: Point) -> int:
    """Count the nodes that a straight line between two of one row or column would cross."""
    (x0, y0), (x1, y1) = start, end
    if abs(y0 - y1) > 0.5 and abs(x0 - x1) > 0.5:
        return 0
    low_x, high_x, low_y, high_y = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    inside = (
        (x, y)
        for x, y in points
        if low_x - 0.5 <= x <= high_x + 0.5 and low_y - 0.5 <= y <= high_y + 0.5
        if (x, y) not in (start, end)
    )
    return sum(1 for _ in inside)


def expanded_svg(bp: Blueprint, loads: Loads | None = None) -> str:
    """Draw every node and link of a small cluster; what was changed or is gone stands out.

    Parameters
    ----------
    bp
        The cluster.
    loads
        Load over capacity of links, by (from, to), each the name of a node or of a class.

    Raises
    ------
    SpecError
        When there are more than `MOST_NODES` nodes.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> box = cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None)
    >>> drawn = expanded_svg(box)
    >>> drawn.count("<circle"), drawn.count('class="wire"')
    (12, 32)
    """
    count = sum(bp.population(node.axes) for node in bp.nodes)
    if count > MOST_NODES:
        remedy = f"draw clusters of at most {MOST_NODES} nodes so, and others up to symmetry"
        raise SpecError([Fault("--expanded", None, f"would draw {count:,} nodes one by one", remedy)])
    whole, left = expand(replace(bp, changes=())), expand(bp)
    across = max(_row_sizes(bp).values())
    pitch = min(30.0, max(11.0, 1200.0 / across))
    titles = _titles(bp)
    margin = _MARGIN + max(width_of(said, "plain") for said in titles.values()) + 18
    plan = _plan(_cells(bp, whole, pitch), pitch, margin, _MARGIN + _HEAD)
    sheet = Sheet()
    sheet.text(_MARGIN, _MARGIN + 14, bp.name, "title")
    sheet.text(_MARGIN, _MARGIN + 36, words.plural(count, "node"), "note")
    for frame in plan.frames:
        sheet.rect(*frame, "frame", radius=8)
    changed = _draw_wires(sheet, bp, plan, whole, left, loads)
    radius = min(7.0, pitch * 0.34)
    for name, point in plan.points.items():
        held = whole.nodes[name]
        sheet.dots([point], radius, "dot" if name in left else "gone", _hue(held, plan, name))
    for number, said in titles.items():
        sheet.text(_MARGIN, plan.middles[number] + 4, said, "plain")
    bottom = plan.bottom + 44
    width = _key(sheet, bottom, loaded=loads is not None, changed=changed or len(left) < len(whole), graph=whole)
    wide = max(margin + plan.width, _MARGIN + width_of(bp.name, "title"), width) + _MARGIN
    described = f"{words.plural(count, 'node')} and {words.plural(whole.number_of_edges(), 'link')}."
    return sheet.svg(wide, bottom + _MARGIN, bp.name, described)


def _row_sizes(bp: Blueprint) -> dict[int, int]:
    """Count the nodes of each row."""
    found: dict[int, int] = defaultdict(int)
    for name, row in rows(bp).items():
        found[row] += bp.population(bp.node(name).axes)
    return found


def _titles(bp: Blueprint) -> dict[int, str]:
    """Name each row."""
    named: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, row in rows(bp).items():
        named[row][short(name)] += bp.population(bp.node(name).axes)
    return {row: ", ".join(f"{name} ×{count:,}" for name, count in held.items()) for row, held in named.items()}


def _hue(held: Mapping[str, Any], plan: _Plan, name: str) -> str:
    if held["kind"] != "switch":
        return f"var(--{held['kind']})"
    return "var(--up)" if plan.points[name][1] > plan.middles[0] else "var(--out)"


def _draw_wires(sheet: Sheet, bp: Blueprint, plan: _Plan, whole: Any, left: Any, loads: Loads | None) -> bool:
    """Draw every link as built, and mark those that are slower or gone; return whether there are such."""
    taken = {point: name for name, point in plan.points.items()}
    width = max(0.4, min(1.2, 25 / math.sqrt(1 + whole.number_of_edges())))  # many links are drawn thin
    marked = []
    for u, v, held in whole.edges(data=True):
        start, end = plan.points[u], plan.points[v]
        way = _stubs(start, end) if _wraps(bp, whole, u, v) else _way(start, end, _between(taken, start, end))
        rate_Bps = left.edges[u, v]["bandwidth_Bps"] if left.has_edge(u, v) else 0.0
        if rate_Bps < held["bandwidth_Bps"] * (1 - 1e-9):
            share = words.percent(rate_Bps / held["bandwidth_Bps"]) if rate_Bps else "gone"
            marked.append((way, "wire changed" if rate_Bps else "gone", f"{u} – {v}: {share}"))
            continue
        load = _load(loads, whole, u, v)
        hue = PLANES[held["plane"]] if load is None else hue_of_load(load)
        sheet.path(way, "wire", hue, width, said=f"{u} – {v}: {words.scaled(held['bandwidth_Bps'], 'B/s')}")
    for way, kind, said in marked:
        sheet.path(way, kind, "var(--bad)", 1.6, said)
    return bool(marked)


def _key(sheet: Sheet, y: float, *, loaded: bool, changed: bool, graph: Any) -> float:
    """Explain the colours; return how far to the right that goes."""
    planes = {held["plane"] for *_, held in graph.edges(data=True)}
    key = LOADS if loaded else [(plane, hue) for plane, hue in PLANES.items() if plane in planes]
    x = _MARGIN
    for said, hue in [*key, *([("slower or gone", "var(--bad)")] if changed else [])]:
        sheet.path(f"M{x:.1f} {y - 4:.1f}h18", "bundle", hue, 4)
        sheet.text(x + 24, y, said, "note")
        x += 24 + width_of(said, "note") + 16
    return x
