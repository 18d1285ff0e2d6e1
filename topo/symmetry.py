"""Which coordinates of a blueprint marks can tell apart: orbits as products of per-axis cells.

The symmetries of a blueprint permute the values of each axis, inside each value of its parent: in any way on an axis
without an order, by turning and mirroring a ring, by mirroring a line. Those that respect some marks keep every marked
interval of an axis in place (below the parents that the mark names), and the last value where a remainder makes it
unlike the others. Their orbits on coordinates are therefore products: one cell per axis. On a ring one marked value
leaves the mirror image, so cells are distances from it; two leave nothing, and every value is a cell of its own.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from topo.blueprint import Axis, Blueprint

Marks = Iterable[Mapping[str, int | range]]
"""Coordinates to tell apart; a `range` marks a set of values as one, and an axis not named is marked nowhere. A mark
that names no parent holds below every value of the parent."""

Cell = tuple[tuple[int, int], ...]
"""The marked intervals [start, stop) that a set of axis values lies in; () is "the rest". On a ring or a line that is
told apart, also the values themselves, as intervals of one."""

NormalMarks = tuple[tuple[tuple[str, tuple[int, int]], ...], ...]
"""Marks as intervals in a fixed order: hashable."""


@dataclass(frozen=True, slots=True)
class Orbit:
    """Coordinates that marks cannot tell apart: per axis the cell, how many values it has, and one value of it."""

    cells: dict[str, Cell]
    counts: dict[str, int]
    example: dict[str, int]

    @property
    def multiplicity(self) -> int:
        """How many coordinates are in this orbit."""
        return math.prod(self.counts.values())


def orbits(bp: "Blueprint", names: tuple[str, ...], marks: NormalMarks = ()) -> list[Orbit]:
    """Return the orbits of the coordinates `names` (a closure) under the permutations that respect `marks`."""
    wanted = [dict(mark) for mark in marks]
    found = [Orbit({}, {}, {})]
    for name in names:
        axis, parents = bp.axis[name], bp.closure((name,))[:-1]
        held = [
            (mark[name], [(parent, mark[parent]) for parent in parents if parent in mark])
            for mark in wanted
            if name in mark
        ]
        found = [
            Orbit({**o.cells, name: cell}, {**o.counts, name: count}, {**o.example, name: first})
            for o in found
            for cell, (count, first) in _cells(bp, axis, o.cells, held).items()
        ]
    return found


_Held = list[
    tuple[tuple[int, int], list[tuple[str, tuple[int, int]]]]
]  # marked intervals of an axis, with the parents'


def _cells(bp: "Blueprint", axis: "Axis", path: Mapping[str, Cell], held: _Held) -> dict[Cell, tuple[int, int]]:
    """Split the values of `axis`, below the cells `path` of its parents, by which marked intervals hold them."""
    size = _extent(bp, axis, path)
    marked = {interval for interval, above in held if all(span in path[parent] for parent, span in above)}
    if axis.name in bp.split_axes and _on_tail(bp, axis, path):
        marked.add((size - 1, size))
    if axis.order != "set":
        return _ordered_cells(axis, marked)
    bounds = sorted({0, size, *(min(edge, size) for interval in marked for edge in interval)})
    cells: dict[Cell, tuple[int, int]] = {}
    for low, high in pairwise(bounds):
        cell = tuple(sorted(m for m in marked if m[0] <= low and high <= m[1]))
        count, first = cells.get(cell, (0, low))
        cells[cell] = (count + high - low, first)
    return cells


def _ordered_cells(axis: "Axis", marked: set[tuple[int, int]]) -> dict[Cell, tuple[int, int]]:
    """Split a ring or a line: whole, by its mirror image, or value by value, as far as the marks leave symmetry."""
    size = axis.size
    if axis.order == "ring" and not marked:
        return {(): (size, 0)}
    ((centre, after),) = marked if len(marked) == 1 else ((0, size),)
    if axis.order == "ring" and after == centre + 1:
        images = [{(centre + d) % size, (centre - d) % size} for d in range(size // 2 + 1)]
    elif axis.order == "line" and not marked:
        images = [{i, size - 1 - i} for i in range((size + 1) // 2)]
    else:
        images = [{i} for i in range(size)]
    cells: dict[Cell, tuple[int, int]] = {}
    for image in images:
        own = {(value, value + 1) for value in image}
        holding = {m for m in marked if any(m[0] <= value < m[1] for value in image)}
        cells[tuple(sorted(own | holding))] = (len(image), min(image))
    return cells


@lru_cache(maxsize=256)
def neighbours(axis: "Axis", cells: tuple[Cell, ...]) -> dict[tuple[Cell, Cell], int]:
    """Return how many links along a ring or line lead from values of one cell to values of another.

    >>> from topo.blueprint import Axis
    >>> ring = Axis("x", 4, order="ring")
    >>> neighbours(ring, ((),))
    {((), ()): 8}
    >>> neighbours(ring, (((0, 1),), ((1, 2), (3, 4)), ((2, 3),)))[((0, 1),), ((1, 2), (3, 4))]
    2
    """
    size = axis.size
    home = {value: cell for cell in cells for value in _values(size, cell)}
    joined: Counter[tuple[Cell, Cell]] = Counter()
    for value, cell in home.items():
        for step in (value - 1, value + 1):
            if size > 1 and (axis.order == "ring" or 0 <= step < size) and step % size in home:
                joined[cell, home[step % size]] += 1
    return dict(joined)


def _values(size: int, cell: Cell) -> set[int]:
    """Return the values of a cell of a ring or line: all of them where nothing is told apart."""
    return {low for low, high in cell if high == low + 1} or set(range(size))


def _extent(bp: "Blueprint", axis: "Axis", path: Mapping[str, Cell]) -> int:
    """Return the size of `axis` below `path`: `last` in the last block of the parent, else `size`."""
    if axis.last is None or axis.within is None:
        return axis.size
    parent = bp.axis[axis.within]
    size = _extent(bp, parent, path)
    at_end = (size - 1, size) in path[parent.name] and _on_tail(bp, parent, path)
    return axis.last if at_end else axis.size


def _on_tail(bp: "Blueprint", axis: "Axis", path: Mapping[str, Cell]) -> bool:
    """Return whether a last value of `axis` below `path` is one of those that a remainder refers to."""
    if axis.last is None or axis.within is None:
        return True
    parent = bp.axis[axis.within]
    size = _extent(bp, parent, path)
    return (size - 1, size) in path[parent.name] and _on_tail(bp, parent, path)


def normal_marks(bp: "Blueprint", marks: Marks) -> NormalMarks:
    """Return marks as intervals in a fixed order, or a SpecError with every fault."""
    faults, normal = list[Fault](), set[tuple[tuple[str, tuple[int, int]], ...]]()
    for mark in marks:
        unknown = [name for name in mark if name not in bp.axis]
        faults += [
            Fault("marks", name, "is no axis of the blueprint", f"known: {', '.join(bp.axis)}") for name in unknown
        ]
        if unknown:
            continue
        spans = {name: v if isinstance(v, range) else range(v, v + 1) for name, v in mark.items()}
        for name, span in spans.items():
            if span.step != 1 or not 0 <= span.start < span.stop <= bp.axis[name].size:
                faults.append(Fault(f"marks[{name}]", mark[name], f"is not inside 0 … {bp.axis[name].size - 1}"))
        normal.add(tuple(sorted((name, (span.start, span.stop)) for name, span in spans.items())))
    if faults:
        raise SpecError(faults)
    return tuple(sorted(normal))


def cell_label(cell: Cell) -> str:
    """Name a cell: its values, the intervals, or ``*`` for the rest.

    >>> cell_label(((3, 4),)), cell_label(((0, 8),)), cell_label(()), cell_label(((1, 2), (15, 16)))
    ('3', '0:8', '*', '1&15')
    """
    single = [str(low) for low, high in cell if high == low + 1]
    return "&".join(single) or "&".join(f"{low}:{high}" for low, high in cell) or "*"


def coordinates(bp: "Blueprint", names: tuple[str, ...]) -> Iterator[dict[str, int]]:
    """Yield every combination of coordinates, the last axis running fastest."""

    def below(index: int, path: dict[str, Cell], values: dict[str, int]) -> Iterator[dict[str, int]]:
        if index == len(names):
            yield values
            return
        name = names[index]
        for value in range(_extent(bp, bp.axis[name], path)):
            yield from below(index + 1, {**path, name: ((value, value + 1),)}, {**values, name: value})

    return below(0, {}, {})
