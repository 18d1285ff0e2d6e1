"""Pareto fronts as SVG that stands in a page: a stepped line per wiring, colours from the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from podscale import words

WIDTH, HEIGHT = 620.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 14.0, 10.0, 44.0


@dataclass(frozen=True)
class Line:
    """One front: its points (first objective, second, what to say), best in the first objective first.

    `outline` is that of the band about it, where it has one.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float, str]]
    outline: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Axis:
    """An axis of the picture: from low to high, along so many pixels; logarithmic where it spans more than a decade."""

    low: float
    high: float
    start: float
    end: float

    @property
    def logarithmic(self) -> bool:
        """Whether equal steps are equal ratios."""
        return self.low > 0 and self.high / self.low > 10

    def at(self, value: float) -> float:
        """Return the place of a value.

        >>> Axis(0.0, 10.0, 0.0, 100.0).at(5.0), Axis(1.0, 100.0, 0.0, 100.0).at(10.0)
        (50.0, 50.0)
        """
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values along the axis.

        >>> Axis(0.0, 9.5, 0.0, 1.0).ticks(), Axis(3.0, 400.0, 0.0, 1.0).ticks()
        ([0.0, 2.0, 4.0, 6.0, 8.0], [5.0, 10.0, 20.0, 50.0, 100.0, 200.0])
        """
        if self.logarithmic:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            few = self.high / self.low < 1000
            marks = (factor * 10.0**decade for decade in decades for factor in ((1, 2, 5) if few else (1,)))
        else:
            raw = (self.high - self.low) / 5
            decade = 10.0 ** math.floor(math.log10(raw))
            step = next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= raw * 0.999)
            marks = (round(n * step, 12) for n in range(math.floor(self.low / step), math.ceil(self.high / step) + 1))
        return [mark for mark in marks if self.low <= mark <= self.high]


def axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis on which all values have a place."""
    low, high = min(values), max(values)
    if low > 0 and high / low > 10:
        return Axis(low / 1.15, high * 1.15, start, end)
    return Axis(min(low, 0.0), high * 1.06 or 1.0, start, end)


def picture(lines: Sequence[Line], titles: tuple[str, str], *, more: bool = True) -> str:
    """Return the drawing of some fronts.

    Parameters
    ----------
    titles : of the axis to the right, and of the one up
    more : whether more of the first objective is better
    """
    places = [(x, y) for line in lines for x, y in (*(point[:2] for point in line.points), *line.outline)]
    right = axis([x for x, _ in places], LEFT, WIDTH - RIGHT)
    up = axis([y for _, y in places], HEIGHT - BOTTOM, TOP)
    label = escape(f"{titles[1]} against {titles[0]}")
    parts = [f'<svg class="front" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{label}">']
    for tick in right.ticks():
        x = right.at(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16:g}" text-anchor="middle">{words.figures(tick)}</text>'
        )
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>')
        parts.append(f'<text x="{LEFT - 7:g}" y="{y + 4:.1f}" text-anchor="end">{words.figures(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 8:g}" text-anchor="middle">{escape(titles[0])}</text>')
    turned = f"translate(13 {(HEIGHT - BOTTOM + TOP) / 2:.1f}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(titles[1])}</text>')
    parts += [_banded(line, right, up) for line in lines if line.outline]
    parts += [_drawn(line, right, up, more=more) for line in lines]
    return "".join([*parts, "</svg>"])


def _banded(line: Line, right: Axis, up: Axis) -> str:
    """Return the band about one front."""
    path = "L".join(f"{right.at(x):.1f} {up.at(y):.1f}" for x, y in line.outline)
    return f'<path fill="{line.colour}" fill-opacity=".14" d="M{path}Z"/>'


def _drawn(line: Line, right: Axis, up: Axis, *, more: bool) -> str:
    """Return one front: nothing between two points can be had, so the line steps."""
    placed = [(right.at(x), up.at(y), said) for x, y, said in sorted(line.points)]
    path = f"M{placed[0][0]:.1f} {placed[0][1]:.1f}" + "".join(
        f"V{y:.1f}H{x:.1f}" if more else f"H{x:.1f}V{y:.1f}" for x, y, _ in placed[1:]
    )
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{line.colour}"><title>{escape(f"{line.name}: {said}")}</title></circle>'
        for x, y, said in placed
    )
    return f'<path class="line" stroke="{line.colour}" d="{path}"/>{marks}'


def titles(objectives: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> tuple[str, str]:
    """Return the titles of the axes for two objectives.

    >>> titles({"interactivity": {"unit": "1/s"}, "mfu": {"unit": ""}}, ("interactivity", "mfu"))
    ('interactivity (1/s)', 'MFU')
    """
    units = ("" if "_per_" in name else objectives[name]["unit"] for name in names)
    first, second = (
        f"{words.phrase(name)} ({unit})" if unit else words.phrase(name)
        for name, unit in zip(names, units, strict=True)
    )
    return first, second
