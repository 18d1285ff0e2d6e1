"""Where one design stops beating another: a figure of the cluster, the best split of both designs, and where they cross.

The figure runs over a range; at every value both designs are searched anew. Where the better one changes between two
values of the grid, the place is bisected. With a second figure there is a curve of such places: the break-even surface.
The ratio of the two rates is also the ratio of prices at which the designs break even, per accelerator.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final

import numpy as np

from clusters.units import format_quantity, parse_quantity
from parallel.explain.point import Point
from parallel.questions.figures import FIGURES, Figure, figure, moved, set_field
from parallel.questions.outcome import Outcome, best_of
from topo.errors import Fault, SpecError

Progress = Callable[[int, int], None]

GRID: Final = 9
"""Values of the figure, evenly spaced in its logarithm."""
ROWS: Final = 5
"""Values of the second figure."""
TOLERANCE: Final = 0.01
"""A break-even is bracketed to this share of itself."""
MARGIN: Final = 0.005
"""A design beats another by more than this; less is even."""
WIGGLE: Final = 1e-3
"""A ratio that turns back by less than this is still monotone."""


@dataclass(frozen=True)
class Axis:
    """A figure and the range that it runs over, in SI."""

    figure: Figure
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Whether only whole numbers make sense."""
        return self.figure.name in ("domain", "accelerators")

    def grid(self, many: int) -> list[float]:
        """Return values from low to high, evenly spaced in the logarithm.

        >>> axis("oversubscription=1..4").grid(3), axis("domain=8..72").grid(2)
        ([1.0, 2.0, 4.0], [8.0, 72.0])
        """
        values = np.geomspace(self.low, self.high, many)
        values[0], values[-1] = self.low, self.high
        return sorted({float(round(value)) if self.whole else float(value) for value in values})

    def middle(self, low: float, high: float) -> float:
        """Return the value between two, one of the two where whole numbers leave no other."""
        between = float(np.sqrt(low * high))
        return float(round(between)) if self.whole else between

    def said(self, value: float) -> str:
        """Write a value with its unit.

        >>> axis("nic-bandwidth=400Gb/s..800Gb/s").said(50e9), axis("oversubscription=1..8").said(2.345)
        ('50 GB/s', '2.35')
        """
        return format_quantity(value, self.figure.dimension, 3) if self.figure.dimension else f"{value:,.3g}"


def axis(text: str, where: str = "over") -> Axis:
    """Read ``FIGURE=LOW..HIGH``, a figure by its name or by its field in a cluster file.

    >>> held = axis("scale_out.oversubscription=1..16")
    >>> held.figure.name, held.low, held.high
    ('oversubscription', 1.0, 16.0)
    >>> axis("domain=72")
    Traceback (most recent call last):
    ...
    topo.errors.SpecError: over = 'domain=72': is no range. write FIGURE=LOW..HIGH, such as oversubscription=1..16.
    """
    name, _, span = text.partition("=")
    low, dots, high = span.partition("..")
    if not (name.strip() and dots):
        remedy = "write FIGURE=LOW..HIGH, such as oversubscription=1..16"
        raise SpecError([Fault(where, text, "is no range", remedy)])
    found = figure(name)
    try:
        ends = [_number(end, found.dimension) for end in (low, high)]
    except ValueError as error:
        raise SpecError([Fault(where, text, str(error).rstrip("."))]) from None
    if not 0 < ends[0] < ends[1]:
        raise SpecError([Fault(where, text, "does not rise", "write the smaller value first; both are above zero")])
    return Axis(found, *ends)


def _number(text: str, dimension: str) -> float:
    return parse_quantity(text.strip(), dimension) if dimension else float(text)


def break_even(
    point: Point,
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    over: Axis,
    across: Axis | None = None,
    *,
    grid: int = GRID,
    rows: int = ROWS,
    tolerance: float = TOLERANCE,
    margin: float = MARGIN,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Find where one of two designs stops beating the other.

    Parameters
    ----------
    point : what is asked of both; its own split does not matter
    a, b : fields of the cluster file that make the two designs, such as ``{"domain": 8}``
    over : the figure that runs, at `grid` values
    across : a second figure, at `rows` values: one curve for each
    margin : ahead by no more than this is even

    Returns
    -------
    dict
        `curves`: for each value of `across` the `points`, the `break_evens` with their brackets, and whether the ratio of
        the two rates runs one way; `answer`.
    """
    _check(a, b, over, across, grid, rows)
    point = point.settled
    lines = across.grid(rows) if across else [None]
    curves = []
    for done, line in enumerate(lines, 1):
        settings = {across.figure: line} if across and line is not None else {}
        curves.append({"across": line, **_curve(_pairs(point, (a, b), over, settings, margin), over, grid, tolerance)})
        if progress is not None:
            progress(done, len(lines))
    document = {
        "phase": point.phase,
        "model": point.model.name,
        "cluster": point.built.name,
        "a": {"name": _label(a), "fields": dict(a)},
        "b": {"name": _label(b), "fields": dict(b)},
        "over": _axis_of(over),
        "across": _axis_of(across) if across else None,
        "margin": margin,
        "tolerance": tolerance,
        "curves": curves,
        "points": sum(curve.pop("searched") for curve in curves),
    }
    return {**document, "answer": answer(document, over, across)}


def _check(a: Mapping[str, Any], b: Mapping[str, Any], over: Axis, across: Axis | None, grid: int, rows: int) -> None:
    faults = []
    if dict(a) == dict(b):
        faults.append(
            Fault("designs", _label(a), "are the same", "let them differ in a field: domain=8 against domain=72")
        )
    for name, held in (("over", over), ("across", across)):
        both = {each for each in (*a, *b) if held and each == held.figure.field}
        faults += [Fault(name, each, "is what the designs differ in", "run over another figure") for each in both]
    if across and across.figure is over.figure:
        faults.append(Fault("across", across.figure.name, "runs already", "name another figure"))
    faults += [
        Fault(name, many, "is too few", "give 2 or more") for name, many in (("grid", grid), ("rows", rows)) if many < 2
    ]
    if faults:
        raise SpecError(faults)


def _label(fields: Mapping[str, Any]) -> str:
    """Name a design by what makes it.

    >>> _label({"domain": 72}), _label({"override.accelerator.hbm_bandwidth": "8TB/s"}), _label({})
    ('domain 72', 'HBM bandwidth 8TB/s', 'as it is')
    """
    titles = {each.field: each.title for each in FIGURES.values()} | {"domain": "domain", "scale_out.nic": "NIC"}
    said = (f"{titles.get(path, path.rpartition('.')[2].replace('_', ' '))} {value}" for path, value in fields.items())
    return ", ".join(said) or "as it is"


def _axis_of(held: Axis) -> dict[str, Any]:
    each = held.figure
    return {
        "figure": each.name,
        "title": each.title,
        "dimension": each.dimension,
        "low": held.low,
        "high": held.high,
    }


Pairs = Callable[[float], dict[str, Any]]


def _pairs(
    point: Point, designs: tuple[Mapping[str, Any], Mapping[str, Any]], over: Axis, settings: Mapping[Figure, float],
    margin: float,
) -> Pairs:  # fmt: skip
    """Return the function that searches both designs at one value of the figure, each value once."""

    def best(design: Mapping[str, Any], value: float) -> Outcome:
        try:
            spec = point.cluster
            for path, given in design.items():
                spec = set_field(spec, path, given)
            return best_of(point, moved(spec, {**settings, over.figure: value}))
        except SpecError as error:
            return Outcome(broken=f"cannot be wired: {error.faults[0]}")

    @cache
    def pair(value: float) -> dict[str, Any]:
        first, second = (best(design, value) for design in designs)
        a, b = (found.tokens_per_s_per_gpu if found.feasible else 0.0 for found in (first, second))
        return {
            "value": value,
            "a": a,
            "b": b,
            "ratio": b / a if a and b else None,
            "ahead": _ahead(a, b, margin),
            "strategies": {"a": first.strategy, "b": second.strategy},
            "broken": {"a": first.broken or None, "b": second.broken or None},
            "points": first.points + second.points,
        }

    return pair


def _ahead(a: float, b: float, margin: float) -> str:
    """Say which is ahead: a, b, even, or none where neither runs.

    >>> _ahead(1.0, 1.2, 0.005), _ahead(1.0, 1.001, 0.005), _ahead(0.0, 0.0, 0.005)
    ('b', 'even', 'none')
    """
    if not a and not b:
        return "none"
    return "b" if b > a * (1.0 + margin) else "a" if a > b * (1.0 + margin) else "even"


def _curve(pair: Pairs, over: Axis, grid: int, tolerance: float) -> dict[str, Any]:
    """Search the grid, and bisect wherever who is ahead changes."""
    seen = {value: pair(value) for value in over.grid(grid)}
    turns = [(low, high) for low, high in pairwise(sorted(seen)) if seen[low]["ahead"] != seen[high]["ahead"]]
    brackets = [_bisect(pair, over, seen, low, high, tolerance) for low, high in turns]
    crossings = [
        {
            "value": over.middle(low, high),
            "low": low,
            "high": high,
            "before": seen[low]["ahead"],
            "after": seen[high]["ahead"],
        }
        for low, high in brackets
    ]
    points = [seen[value] for value in sorted(seen)]
    return {
        "break_evens": crossings,
        "always": points[0]["ahead"] if not crossings else None,
        "monotone": monotone([point["ratio"] for point in points if point["ratio"]]),
        "searched": sum(point["points"] for point in points),
        "points": points,
    }


def _bisect(
    pair: Pairs, over: Axis, seen: dict[float, dict[str, Any]], low: float, high: float, tolerance: float
) -> tuple[float, float]:
    """Close in on the place where whoever is ahead at the lower value stops to be."""
    while high > low * (1.0 + tolerance):
        middle = over.middle(low, high)
        if middle in (low, high):
            break
        seen[middle] = pair(middle)
        if seen[middle]["ahead"] == seen[low]["ahead"]:
            low = middle
        else:
            high = middle
    return low, high


def monotone(values: Sequence[float]) -> bool:
    """Whether values run one way, wiggles left out.

    >>> monotone([1.0, 1.2, 1.1999, 1.5]), monotone([1.0, 1.2, 1.0])
    (True, False)
    """
    steps = [later / earlier - 1.0 for earlier, later in pairwise(values)]
    return all(step > -WIGGLE for step in steps) or all(step < WIGGLE for step in steps)


def answer(document: Mapping[str, Any], over: Axis, across: Axis | None) -> str:
    """Say in plain words where the designs break even, or that they never do."""
    said = []
    for curve in document["curves"]:
        at = f"At {across.said(curve['across'])} of {across.figure.title}: " if across else ""
        said.append(at + "; ".join(_sentences(document, curve, over)) + ".")
    return " ".join(text[0].upper() + text[1:] for text in said)


def _sentences(document: Mapping[str, Any], curve: Mapping[str, Any], over: Axis) -> Iterator[str]:
    names = {key: document[key]["name"] for key in ("a", "b")}
    span = f"{over.figure.title} {over.said(over.low)} to {over.said(over.high)}"
    if curve["always"] in names:
        ahead = curve["always"]
        other = "a" if ahead == "b" else "b"
        ratios = [point["ratio"] ** (1 if ahead == "b" else -1) for point in curve["points"] if point["ratio"]]
        by = f", by {min(ratios):.2f} to {max(ratios):.2f} times" if ratios else f": {names[other]} does not run"
        yield f"{names[ahead]} beats {names[other]} everywhere in {span}{by}; they never break even there"
    elif curve["always"] is not None:
        how = "neither runs" if curve["always"] == "none" else f"they are even, within {document['margin']:.1%},"
        yield f"{how} everywhere in {span}"
    for found in curve["break_evens"]:
        yield _crossing(names, found, over)
    if curve["break_evens"] and not curve["monotone"]:
        yield "the ratio of the two does not run one way"


def _crossing(names: Mapping[str, str], found: Mapping[str, Any], over: Axis) -> str:
    place = (
        f"at {over.figure.title} {over.said(found['value'])} ({over.said(found['low'])} to {over.said(found['high'])})"
    )
    other = {"a": "b", "b": "a"}
    if found["before"] in names:
        return f"{names[found['before']]} stops beating {names[other[found['before']]]} {place}"
    if found["after"] in names:
        return f"{names[found['after']]} begins to beat {names[other[found['after']]]} {place}"
    return f"{'both stop to run' if found['after'] == 'none' else 'both begin to run'} {place}"
