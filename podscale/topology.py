"""A cluster drawn tier by tier, from its symmetry: accelerators at the bottom, the network between domains above them.

Frames are blocks, boxes are nodes of one class, and bands are links, as wide as what they carry for each accelerator.
The drawing is one SVG with its own style sheet; it loads nothing, and follows light and dark.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from podscale import words
from podscale.places import (
    ARCH,
    BOX_HEIGHT,
    GAP,
    GLYPH,
    LINE,
    PAD,
    TITLE,
    Card,
    Layout,
    Seat,
    box_lines,
    direct_line,
    dots,
    label,
    layout,
    spread,
    title_of,
)
from podscale.sheet import LOADS, PLANES, Sheet, hue_of_load, width_of
from topo.outline import Box, Bundle, Direct, Outline

MARGIN = 24.0
_HEAD = 58.0
_WIDEST_BAND = 26.0

Tiers = Sequence[Mapping[str, Any]]
"""Rows of `topo.survey.summary`'s ``tiers``."""


def topology_svg(outline: Outline, tiers: Tiers = ()) -> str:
    """Draw a cluster as one SVG.

    Parameters
    ----------
    outline
        What `topo.outline.outline` returns.
    tiers
        To be listed below the drawing, as `topo.survey.summary` returns them.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.outline import outline
    >>> box = cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None)
    >>> drawn = topology_svg(outline(box))
    >>> "scale-up-switch ×4" in drawn, "4 × 225 GB/s" in drawn
    (True, True)
    """
    sheet = Sheet()
    placed = layout(outline, MARGIN + _HEAD, MARGIN)
    subtitle = _subtitle(outline)
    sheet.text(MARGIN, MARGIN + 14, outline.name, "title")
    sheet.text(MARGIN, MARGIN + 36, subtitle, "note")
    for card in placed.root.cards:
        _draw_card(sheet, placed, card, depth=0)
    _draw_bundles(sheet, placed, outline.bundles)
    for seat in placed.seats.values():
        _draw_box(sheet, placed, seat)
    right, bottom = _draw_legend(sheet, outline, placed.bottom + 34)
    wide, bottom = _draw_tiers(sheet, tiers, bottom)
    title = max(width_of(outline.name, "title"), width_of(subtitle, "note"), right - MARGIN)
    width = 2 * MARGIN + max(placed.width, title, wide)
    return sheet.svg(width, bottom + MARGIN, outline.name, f"{subtitle}. {_described(outline)}")


def topology_html(drawing: str, title: str) -> str:
    """Put a drawing on a page of its own that loads nothing."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>podscale: {escape(title)}</title>"
        "<style>html{background:#fff}@media screen and (prefers-color-scheme:dark){html{background:#0d1117}}"
        "body{margin:0;overflow-x:auto}</style>"
        f"</head><body>\n{drawing}</body></html>\n"
    )


def _subtitle(outline: Outline) -> str:
    """Say how large a cluster is, and how much of it was changed."""
    changes = outline.root.changes
    said = words.plural(outline.accelerators, "accelerator")
    return said + (f" · changed: {', '.join(changes[:3])}" if changes else "") + (", …" if len(changes) > 3 else "")


def _described(outline: Outline) -> str:
    """Describe the drawing for those who do not see it: the bundles, one by one."""
    seats = layout(outline, 0.0, 0.0).ends
    return " ".join(
        f"{b.links:,} links of {words.scaled(b.bandwidth_Bps, 'B/s')} from {seats[b.a].name} to {seats[b.b].name}."
        for b in outline.bundles[:12]
    )


# --- frames and boxes ------------------------------------------------------------------------------------------------


def _draw_card(sheet: Sheet, placed: Layout, card: Card, depth: int) -> None:
    """Draw a frame, a hint of those like it, and the frames inside."""
    top, bottom = placed.top_of(card), placed.bottom_of(card)
    shade = "frame odd" if depth % 2 else "frame"
    if card.frame.each > 1:
        right = card.x + card.width
        sheet.rect(right - 12, top + 5, 20, bottom - top - 10, "ghost", radius=8)
        if card.frame.each > 2:
            sheet.dots([(right + 13 + 6 * i, (top + bottom) / 2) for i in range(3)], 1.7, "more", "var(--soft)")
    sheet.rect(card.x, top, card.width, bottom - top, shade, radius=8)
    sheet.text(card.x + PAD, top + 17, title_of(card.frame), "plain")
    for number, (kind, said) in enumerate(card.lines or ()):
        sheet.text(card.x + PAD, top + TITLE + 14 + LINE * number, said, kind)
    for inner in card.cards:
        _draw_card(sheet, placed, inner, depth + 1)


def _hue(box: Box) -> str:
    if box.kind == "switch":
        return "var(--up)" if box.row < 0 else "var(--out)"
    return f"var(--{box.kind})"


def _draw_box(sheet: Sheet, placed: Layout, seat: Seat) -> None:
    """Draw a box: its name, how many, and squares that stand for them (or the network that they form)."""
    box, row = seat.box, placed.rows[seat.box.row]
    height = row.height if box.kept else BOX_HEIGHT
    left, state = seat.x - seat.width / 2, "gone" if not box.kept else "slow" if box.kept != 1 else ""
    sheet.rect(left, row.top, seat.width, height, f"box {state}".strip(), radius=6)
    y = row.top + 17
    for kind, said in box_lines(box):
        if said:
            sheet.text(seat.x, y, said, "bad" if kind == "big" and box.kept != 1 else kind, "middle", inside=True)
        y += LINE
    if box.direct:
        for direct in box.direct:
            kind = "fact" if direct.kept == 1 else "bad"
            sheet.text(seat.x, y, direct_line(direct), kind, "middle", inside=True)
            y += LINE
        _draw_glyph(sheet, box, seat.x, row.bottom - GLYPH / 2 - 6)
        return
    count, more = dots(box.each, seat.width)
    places = spread(count + more, seat.x, (count + more) * 13.0)
    floor = row.top + height
    squares = places[:-2] + places[-1:] if more else places
    for x in squares:
        sheet.rect(x - 4, floor - 13, 8, 8, "square" if box.kept else "gone", radius=1, hue=_hue(box))
    if more:
        sheet.dots([(places[-2] + 4 * i, floor - 9) for i in (-1, 0, 1)], 1.2, "more", "var(--soft)")


def _draw_glyph(sheet: Sheet, box: Box, x: float, y: float) -> None:
    """Suggest a direct network: a ring, a mesh of all with all, a grid with or without wrap-around, a cube."""
    ordered = [direct for direct in box.direct if direct.order != "set"]
    hue = _hue(box)
    if len(ordered) < 2:
        points, lines = _circle(box.direct[0], x, y)
    else:
        points, lines = _grid(ordered, x, y)
    sheet.path(lines, "mesh", hue)
    sheet.dots(points, 3.4, "dot", hue)


def _circle(direct: Direct, x: float, y: float) -> tuple[list[tuple[float, float]], str]:
    """Return dots on a circle, joined as their axis says."""
    count = min(direct.size, 12 if direct.order != "set" else 8)
    radius = GLYPH / 2 - 6
    turns = [2 * math.pi * (i + 0.5) / count + math.pi / 2 for i in range(count)]
    points = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    if direct.order == "set":
        pairs = [(i, j) for i in range(count) for j in range(i)]
    else:
        pairs = [(i, (i + 1) % count) for i in range(count if direct.order == "ring" else count - 1)]
    return points, "".join(
        f"M{points[i][0]:.1f} {points[i][1]:.1f}L{points[j][0]:.1f} {points[j][1]:.1f}" for i, j in pairs
    )


def _grid(ordered: Sequence[Direct], x: float, y: float) -> tuple[list[tuple[float, float]], str]:
    """Return a grid of at most 4 x 3 (x 2 more layers) dots; a ring's ends stick out on both sides."""
    wide, high = min(ordered[0].size, 4), min(ordered[1].size, 3)
    deep = min(ordered[2].size, 3) if len(ordered) > 2 else 1
    pitch = 27.0

    def at(i: float, j: float, k: float) -> tuple[float, float]:
        shift = k - (deep - 1) / 2
        return x + pitch * (i - (wide - 1) / 2) + 13 * shift, y + pitch * (j - (high - 1) / 2) - 9 * shift

    commands = ""
    points = [at(i, j, k) for k in range(deep) for j in range(high) for i in range(wide)]
    stubs = [0.4 if direct.order == "ring" else 0.0 for direct in (*ordered, *ordered[:1])]
    for j in range(high):
        for k in range(deep):
            commands += _line(at(-stubs[0], j, k), at(wide - 1 + stubs[0], j, k))
    for i in range(wide):
        for k in range(deep):
            commands += _line(at(i, -stubs[1], k), at(i, high - 1 + stubs[1], k))
        for j in range(high if deep > 1 else 0):
            commands += _line(at(i, j, -stubs[2]), at(i, j, deep - 1 + stubs[2]))
    return points, commands


def _line(start: tuple[float, float], end: tuple[float, float]) -> str:
    return f"M{start[0]:.1f} {start[1]:.1f}L{end[0]:.1f} {end[1]:.1f}"


# --- bundles ---------------------------------------------------------------------------------------------------------


def _style(bundle: Bundle) -> tuple[str, str]:
    """Return the classes and the colour of a bundle: by load where it is known, else by plane."""
    changed = " changed" if bundle.kept != 1 else ""
    if bundle.load is not None:
        return f"bundle loaded{changed}", hue_of_load(bundle.load)
    return f"bundle{changed}", PLANES[bundle.plane]


def _draw_bundles(sheet: Sheet, placed: Layout, bundles: Sequence[Bundle]) -> None:
    """Draw every bundle with an end that is drawn, and the labels at the end nearer to the accelerators."""
    most = max((bundle.share_Bps for bundle in bundles), default=1.0) or 1.0
    arriving: dict[tuple[str, bool], list[tuple[float, Bundle]]] = defaultdict(list)
    starts: dict[Bundle, float] = {}
    for bundle in bundles:
        a = placed.seats.get(bundle.a)
        if bundle.b not in placed.seats or (a and bundle in a.level):
            continue
        start = a.x if a else placed.cards[bundle.a].x + placed.cards[bundle.a].width / 2
        if a:
            leaving = a.up if bundle in a.up else a.down
            start = spread(len(leaving), a.x, a.width * 0.4)[leaving.index(bundle)]
        starts[bundle] = start
        upward = placed.ends[bundle.b].row > placed.ends[bundle.a].row
        arriving[bundle.b, upward].append((start, bundle))
    for (key, upward), found in arriving.items():
        found.sort(key=lambda pair: pair[0])
        seat = placed.seats[key]
        for end, (_, bundle) in zip(spread(len(found), seat.x, seat.width * 0.7), found, strict=True):
            width = max(2.0, _WIDEST_BAND * math.sqrt(bundle.share_Bps / most))
            kind, hue = _style(bundle)
            commands = _band(placed, bundle, starts[bundle], end, upward=upward)
            sheet.path(commands, kind, hue, width if bundle.kept else 2.0)
    for seat in placed.seats.values():
        _draw_labels(sheet, placed, seat)
        for number, bundle in enumerate(seat.level):
            _draw_arch(sheet, placed, bundle, number)


def _band(placed: Layout, bundle: Bundle, start: float, end: float, *, upward: bool) -> str:
    """Return the way of a bundle: straight out of its box, then over to the other."""
    near, far = placed.ends[bundle.a].row, placed.ends[bundle.b].row
    row = placed.rows[far]
    if upward:
        below = placed.rows[far - 1]
        y0 = placed.rows[near].top if bundle.a in placed.seats else placed.top_of(placed.cards[bundle.a])
        y1, y2 = min(y0, below.top - below.up), row.bottom
    else:
        above = placed.rows[far + 1]
        y0 = placed.rows[near].bottom if bundle.a in placed.seats else placed.bottom_of(placed.cards[bundle.a])
        y1, y2 = max(y0, above.bottom + above.down), row.top
    middle = (y1 + y2) / 2
    return f"M{start:.1f} {y0:.1f}V{y1:.1f}C{start:.1f} {middle:.1f} {end:.1f} {middle:.1f} {end:.1f} {y2:.1f}"


def _draw_labels(sheet: Sheet, placed: Layout, seat: Seat) -> None:
    """Write what leaves a box, upward above it and downward below it."""
    row = placed.rows[seat.box.row]
    for bundles, top in ((seat.up, row.top - row.up + LINE), (seat.down, row.bottom + LINE + 7)):
        y = top
        for bundle in bundles:
            lines = label(seat, bundle, placed.ends)
            for number, (kind, said) in enumerate(lines):
                sheet.text(seat.x + seat.label_from, y + number * LINE, said, kind)
            y += len(lines) * LINE + 6


def _draw_arch(sheet: Sheet, placed: Layout, bundle: Bundle, number: int) -> None:
    """Draw links between two boxes of one row, over the tops of their frames."""
    a, b = placed.seats[bundle.a], placed.seats[bundle.b]
    before = [s for s in placed.seats.values() if s.box.row == a.box.row]
    number += sum(len(s.level) for s in before[: before.index(a)])
    row = placed.rows[a.box.row]
    tops = [placed.top_of(c) for c in placed.root.walk() if c.frame.name and c.rows[1] == a.box.row]
    y = min([row.top - row.up, *tops]) - ARCH * (number + 1) + 10
    kind, hue = _style(bundle)
    left, right = sorted((a.x, b.x))
    left, right = left + 14 * (number + 1), right - 14 * (number + 1)
    commands = f"M{left:.1f} {row.top:.1f}V{y + 12:.1f}q0 -12 12 -12H{right - 12:.1f}q12 0 12 12V{row.top:.1f}"
    sheet.path(commands, kind, hue, 5)
    lines = label(a, bundle, placed.ends)
    sheet.text((left + right) / 2, y + 17, " · ".join(said for _, said in lines), lines[0][0], "middle")


# --- below the drawing -----------------------------------------------------------------------------------------------


def _draw_legend(sheet: Sheet, outline: Outline, y: float) -> tuple[float, float]:
    """Explain bands and colours; return the right edge, and where the next thing may begin."""
    x = MARGIN
    note = "A band is as wide as the square root of what it carries for each accelerator. " if outline.bundles else ""
    note += "Rates are per direction."
    sheet.text(MARGIN, y, note, "note")
    y += 20
    planes = {bundle.plane for bundle in outline.bundles if bundle.load is None}
    key = LOADS if any(bundle.load is not None for bundle in outline.bundles) else []
    for said, hue in [*key, *((plane, hue) for plane, hue in PLANES.items() if plane in planes)]:
        sheet.path(f"M{x:.1f} {y - 4:.1f}h18", "bundle", hue, 8)
        sheet.text(x + 24, y, said, "note")
        x += 24 + width_of(said, "note") + GAP
    if outline.root.changes:
        sheet.path(f"M{x:.1f} {y - 4:.1f}h22", "bundle changed", "var(--bad)", 4)
        sheet.text(x + 28, y, "changed", "bad")
        x += 28 + width_of("changed", "bad") + GAP
    return max(x - GAP, MARGIN + width_of(note, "note")), y + 10


def _draw_tiers(sheet: Sheet, tiers: Tiers, y: float) -> tuple[float, float]:
    """List the tiers; return the width and the lower edge."""
    if not tiers:
        return 0.0, y
    head = ["tier", "accelerators", "blocks", "each, per direction", "latency", "oversubscription"]
    rows = [
        [
            ": ".join(filter(None, ((tier.get("pool") or "").partition(".")[0], tier["name"]))),
            f"{tier['size']:,}",
            f"{tier['blocks']:,}",
            words.scaled(tier["bandwidth_Bps"], "B/s"),
            words.seconds(tier["latency_s"]),
            f"{words.figures(tier['oversubscription'])} : 1",
        ]
        for tier in tiers
    ]
    widths = [max(width_of(row[i], "head") for row in (head, *rows)) + GAP for i in range(len(head))]
    y += 28
    for number, row in enumerate((head, *rows)):
        x = MARGIN
        for i, said in enumerate(row):
            kind = "fact" if number else "head"
            sheet.text(x if not i else x + widths[i] - GAP, y, said, kind, "start" if not i else "end")
            x += widths[i]
        y += LINE + 3
    return sum(widths), y - LINE
