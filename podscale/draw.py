"""Drawings of the wirings as SVG: the same GPUs, boxed by scale-up domain, under the switches that join the boxes.

Every panel shows the same number of GPUs as dots (or one dot for several), so that panels stand beside one another as
the same silicon wired differently. The bar at each tier is as long as the bandwidth that one GPU has there, on one
scale for all panels; what a strategy's own traffic keeps at work of it is filled, and named below. Colours come from the
page's style sheet, by class, so light and dark work.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from podscale import words
from podscale.sheet import step_of

WIDTH = 380.0
_FIELD_HEIGHT = 170.0
_MOST_DOTS = 640
_LABEL_HEIGHT = 34.0
_BUSY_HEIGHT = 15.0
_SWITCH_HEIGHT = 34.0
_MOST_SWITCHES = 8


@dataclass(frozen=True, slots=True)
class Scale:
    """What the panels of one picture share.

    Attributes
    ----------
    window : GPUs that every panel shows
    gpus_per_dot : GPUs that a dot stands for
    bandwidth_Bps : bandwidth of the longest bar
    layers : switching layers above the GPUs, in the panel with the most
    label : height of a tier's label
    """

    window: int
    gpus_per_dot: int
    bandwidth_Bps: float
    layers: int
    label: float = _LABEL_HEIGHT


def scale(wirings: Sequence[Mapping[str, Any]]) -> Scale:
    """Choose the window and the scale for panels that stand side by side: the largest domain fills the window.

    >>> scale([{"domain": 8, "tiers": [{"bandwidth_Bps": 9e11, "plane": "scale-up"}]}, {"domain": 576, "tiers": []}])
    Scale(window=576, gpus_per_dot=1, bandwidth_Bps=900000000000.0, layers=0, label=34.0)
    """
    window = max((wiring["domain"] for wiring in wirings), default=1)
    fastest = max((tier["bandwidth_Bps"] for wiring in wirings for tier in wiring["tiers"]), default=1.0)
    layers = max((len(_outside(wiring["tiers"])) for wiring in wirings), default=0)
    label = _LABEL_HEIGHT + _BUSY_HEIGHT * any(wiring.get("busy") for wiring in wirings)
    return Scale(window, max(1, math.ceil(window / _MOST_DOTS)), fastest, layers, label)


def _outside(tiers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the tiers above the scale-up domain, innermost first."""
    return [tier for tier in tiers if tier["plane"] != "scale-up"]


def grid(count: int, width: float, height: float) -> tuple[int, int]:
    """Return the columns and rows that fill a rectangle with `count` nearly square cells, few of them empty.

    >>> grid(72, 360, 180), grid(8, 360, 180), grid(1, 5, 5)
    ((12, 6), (4, 2), (1, 1))
    """

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = abs(math.log((width / columns) / (height / rows)))
        return shape + 2.0 * (columns * rows - count) / count

    columns = min(range(1, count + 1), key=badness)
    return columns, math.ceil(count / columns)


def wiring(wired: Mapping[str, Any], shared: Scale, colour: str, gpus: int) -> str:
    """Draw one wiring (an entry of the comparison's ``wirings``) as an ``<svg>`` element.

    Parameters
    ----------
    wired
        `domain`, `tiers` (innermost first) and `parts`; and `busy`, where it is known: by the name of a tier, the phases
        of which a strategy is drawn and the share of its step in which the tier's wire is at work.
    shared
        The scale of the picture that the panel belongs to.
    colour
        The colour of this wiring in every picture.
    gpus
        GPUs bought, for the note on how much is drawn.
    """
    inside = [tier for tier in wired["tiers"] if tier["plane"] == "scale-up"]
    outside = _outside(wired["tiers"])
    field_top = shared.layers * (shared.label + _SWITCH_HEIGHT) + (10.0 if shared.layers else 0.0)
    drawn = _Sheet()
    anchors = _anchors(_boxes_across(wired["domain"], shared), field_top)
    busy = wired.get("busy") or {}
    for depth, tier in enumerate(outside):
        bottom = field_top - 10.0 - depth * (shared.label + _SWITCH_HEIGHT)
        told = {**tier, "busy": busy.get(tier["name"], {})}
        anchors = _switch_layer(
            drawn, told, anchors, bottom=bottom, count=_switches(depth, len(outside)), shared=shared
        )
    _field(drawn, wired["domain"], inside, field_top, shared)
    y = field_top + _FIELD_HEIGHT + 6.0
    for tier in inside:
        _tier_label(drawn, {**tier, "busy": busy.get(tier["name"], {})}, y, shared)
        y += shared.label
    for line in _notes(wired, shared, gpus, has_scale_up=bool(inside)):
        y += 15.0
        drawn.text(0.0, y, line, "note")
    title = escape(f"Wiring with scale-up domains of {wired['domain']:,} GPUs")
    return (
        f'<svg class="wiring" viewBox="-2 -2 {WIDTH + 4:g} {y + 10:.0f}" role="img" aria-label="{title}" '
        f'style="--wire:{colour}"><title>{title}</title>{drawn}</svg>'
    )


class _Sheet:
    """SVG elements in the order of drawing."""

    def __init__(self) -> None:
        self._elements: list[str] = []

    def rect(self, x: float, y: float, width: float, height: float, kind: str, *, radius: float = 2.0) -> None:
        self._elements.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'
        )

    def path(self, commands: str, kind: str) -> None:
        self._elements.append(f'<path class="{kind}" d="{commands}"/>')

    def text(self, x: float, y: float, said: str, kind: str, anchor: str = "start") -> None:
        self._elements.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'
        )

    def label(self, x: float, y: float, name: str, facts: str) -> None:
        self._elements.append(
            f'<text class="tier" x="{x:.1f}" y="{y:.1f}">{escape(name)}'
            f'<tspan class="fact" dx="7">{escape(facts)}</tspan></text>'
        )

    def __str__(self) -> str:
        return "".join(self._elements)


def _boxes_across(domain: int, shared: Scale) -> int:
    """Return how many domains the window holds, at least one."""
    return max(1, shared.window // domain)


def _anchors(boxes: int, field_top: float) -> list[tuple[float, float]]:
    """Return the points on the field's edge that NICs leave from: one above each column of boxes, four at least."""
    columns, _ = grid(boxes, WIDTH, _FIELD_HEIGHT)
    columns = max(columns, 4)
    return [((i + 0.5) * WIDTH / columns, field_top) for i in range(columns)]


def _switches(depth: int, layers: int) -> int:
    """Return how many switches stand for a layer: fewer the further out."""
    return max(2, _MOST_SWITCHES >> depth) if layers > 1 else _MOST_SWITCHES // 2


def _switch_layer(
    drawn: _Sheet,
    tier: Mapping[str, Any],
    below: list[tuple[float, float]],
    *,
    bottom: float,
    count: int,
    shared: Scale,
) -> list[tuple[float, float]]:
    """Draw one switching layer of the scale-out fabric with its cables to the layer below; return its upper edge."""
    height, width = 12.0, min(30.0, WIDTH / count * 0.7)
    top = bottom - _SWITCH_HEIGHT + 6.0
    centres = [(i + 0.5) * WIDTH / count for i in range(count)]
    cables = "".join(
        f"M{x0:.1f} {y0:.1f}L{x1:.1f} {top + height:.1f}"
        for rank, (x0, y0) in enumerate(below)
        for x1 in (centres if len(below) <= 2 * count else [centres[rank * count // len(below)]])
    )
    busy = tier.get("busy") or {}
    drawn.path(cables, f"cable load{step_of(max(busy.values()))}" if busy else "cable")
    for x in centres:
        drawn.rect(x - width / 2, top, width, height, "switch")
    _tier_label(drawn, tier, top - shared.label, shared)
    return [(x, top - shared.label) for x in centres]


def _tier_label(drawn: _Sheet, tier: Mapping[str, Any], y: float, shared: Scale) -> None:
    """Write a tier's name, reach, bandwidth and latency, with its bar, and how much of it is at work."""
    facts = [
        f"{tier['size']:,} GPUs" + (f" × {tier['blocks']:,}" if tier["blocks"] > 1 else ""),
        words.seconds(tier["latency_s"]),
        words.plural(int(tier["hops"]), "hop"),
    ]
    if tier.get("in_network_reduction"):
        facts.append("reduces")
    drawn.rect(0.0, y, WIDTH, shared.label - 6.0, "plate")
    drawn.label(0.0, y + 12.0, str(tier["name"]), " · ".join(facts))
    drawn.text(WIDTH, y + 12.0, words.scaled(tier["bandwidth_Bps"], "B/s"), "tier", "end")
    length = max(2.0, WIDTH * tier["bandwidth_Bps"] / shared.bandwidth_Bps)
    drawn.rect(0.0, y + 18.0, WIDTH, 5.0, "rail", radius=2.5)
    busy = tier.get("busy") or {}
    drawn.rect(0.0, y + 18.0, length, 5.0, "pipe faint" if busy else "pipe", radius=2.5)
    if busy:
        most = max(busy.values())
        drawn.rect(0.0, y + 18.0, length * most, 5.0, f"load{step_of(most)}", radius=2.5)
        said = ", ".join(f"{words.PHASES[phase]} {words.percent(load)}" for phase, load in busy.items())
        drawn.text(0.0, y + 36.0, f"at work: {said} of the step", "note")


def _field(drawn: _Sheet, domain: int, inside: Sequence[Mapping[str, Any]], top: float, shared: Scale) -> None:
    """Draw the GPUs of the window, boxed by scale-up domain and, inside it, by its inner switches."""
    boxes = _boxes_across(domain, shared)
    columns, rows = grid(boxes, WIDTH, _FIELD_HEIGHT)
    width, height = WIDTH / columns, _FIELD_HEIGHT / rows
    inner = inside[0]["size"] if len(inside) > 1 else 0
    for box in range(boxes):
        x, y = (box % columns) * width, top + (box // columns) * height
        gap = min(1.5, width * 0.06)
        _box(drawn, (x + gap, y + gap, width - 2 * gap, height - 2 * gap), domain, inner, shared, switched=bool(inside))


def _box(
    drawn: _Sheet,
    frame: tuple[float, float, float, float],
    gpus: int,
    inner: int,
    shared: Scale,
    *,
    switched: bool,
) -> None:
    """Draw one domain: its frame, its switch as a strip along the top, and its GPUs."""
    x, y, width, height = frame
    strip = min(7.0, height * 0.16) if switched else 0.0
    if switched:
        drawn.rect(x, y, width, height, "domain", radius=min(4.0, height * 0.1))
        drawn.rect(x, y, width, strip, "strip", radius=min(3.0, strip / 2))
    inside = (x + 1.5, y + strip + 1.0, width - 3.0, height - strip - 2.5)
    if inner and inner < gpus:
        columns, rows = grid(max(1, gpus // inner), inside[2], inside[3])
        for cell in range(gpus // inner):
            cell_width, cell_height = inside[2] / columns, inside[3] / rows
            corner = (inside[0] + (cell % columns) * cell_width, inside[1] + (cell // columns) * cell_height)
            _box(
                drawn,
                (corner[0] + 1, corner[1] + 1, cell_width - 2, cell_height - 2),
                inner,
                0,
                shared,
                switched=switched,
            )
        return
    _dots(drawn, inside, max(1, round(gpus / shared.gpus_per_dot)))


def _dots(drawn: _Sheet, frame: tuple[float, float, float, float], count: int) -> None:
    """Draw GPUs as dots in a frame, all in one path (a stroke of length nought with round caps)."""
    x, y, width, height = frame
    columns, rows = grid(count, width, height)
    pitch_x, pitch_y = width / columns, height / rows
    size = min(pitch_x, pitch_y) * 0.62
    marks = "".join(
        f"M{x + (i % columns + 0.5) * pitch_x:.1f} {y + (i // columns + 0.5) * pitch_y:.1f}h0" for i in range(count)
    )
    drawn.path(marks, f'gpu" stroke-width="{min(size, 6.0):.1f}')


def _notes(wired: Mapping[str, Any], shared: Scale, gpus: int, *, has_scale_up: bool) -> list[str]:
    """Write under the picture how much of the cluster it shows, and the parts that it takes."""
    boxes = _boxes_across(wired["domain"], shared)
    shown = boxes * wired["domain"]
    lines = [f"Drawn: {shown:,} of {gpus:,} GPUs" + ("" if has_scale_up else ", no scale-up network")]
    if shared.gpus_per_dot > 1:
        lines[0] += f", {shared.gpus_per_dot} per dot"
    parts = [f"{words.figures(count, 6)} {part}" for part, count in (wired.get("parts") or {}).items()]
    line = ""
    for part in parts:
        if line and len(line) + len(part) > 62:
            lines.append(line + ",")
            line = ""
        line += (", " if line else "") + part
    return [*lines, line] if line else lines
