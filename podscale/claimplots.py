"""A claim drawn: what the source says as a band, both answers on every case, and how they move.

How they move is a chart of the claim's own, or their curve over the input that matters most.

One SVG that needs nothing else and follows light and dark; as HTML it is the same drawing in a page.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from podscale import claimwords, palette, words
from topo.errors import Fault, SpecError

WIDTH: Final = 880
LEFT, RIGHT = 150, 48
ROW: Final = 30
CURVE: Final = 240
SUFFIXES: Final = (".svg", ".html")
SIMPLE, FULL = palette.WIRINGS[2], palette.WIRINGS[4]
"""Colours of the two answers."""
_DECADE: Final = 8.0
_LONG: Final = (600.0, 3600.0, 36_000.0, 4 * 86_400.0, 40 * 86_400.0, 400 * 86_400.0)
"""Round times past a minute: ten minutes, an hour, ten hours, 4, 40 and 400 days."""
_CHARACTER: Final = 7.0
"""Width that a character takes, about."""
_STYLE: Final = f"""
svg.claim{{--ink:#1b1f24;--soft:#57606a;--line:#d5dbe1;--ground:#fff;
--band:#12a594;--simple:{SIMPLE};--full:{FULL};--bad:#c62f3b;
--a:{palette.WIRINGS[0]};--b:{palette.WIRINGS[1]};--c:{palette.WIRINGS[2]};
background:var(--ground);font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
@media screen and (prefers-color-scheme:dark){{
svg.claim{{--ink:#e6edf3;--soft:#a2acb7;--line:#3d444d;--ground:#0d1117;--bad:#ff7b80}}}}
svg.claim text{{fill:var(--ink)}} svg.claim .soft{{fill:var(--soft)}} svg.claim .title{{font-size:17px;font-weight:600}}
svg.claim .bad{{fill:var(--bad)}} svg.claim .end{{text-anchor:end}} svg.claim .mid{{text-anchor:middle}}
svg.claim .grid{{stroke:var(--line);stroke-width:1}} svg.claim .band{{fill:var(--band);opacity:.16}}
svg.claim .says{{stroke:var(--band);stroke-width:2}} svg.claim .gap{{stroke:var(--line);stroke-width:3}}
svg.claim .simple{{fill:var(--ground);stroke:var(--simple);stroke-width:2.5}} svg.claim .full{{fill:var(--full)}}
svg.claim .simpleline{{fill:none;stroke:var(--simple);stroke-width:2.5;stroke-dasharray:6 4}}
svg.claim .fullline{{fill:none;stroke:var(--full);stroke-width:2.5}}
svg.claim .softline{{fill:none;stroke:var(--soft);stroke-width:2.5;stroke-dasharray:2 4}}
svg.claim .aline{{fill:none;stroke:var(--a);stroke-width:2.5}} svg.claim .bline{{fill:none;stroke:var(--b);stroke-width:2.5}}
svg.claim .cline{{fill:none;stroke:var(--c);stroke-width:2.5}}
svg.claim .level{{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:8 4}} svg.claim .mark{{stroke:var(--soft);stroke-width:1.5}}
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to a stretch of the picture, straight or by powers of ten."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """Return where a value lies, held inside the stretch.

        >>> Scale(1.0, 100.0, 0.0, 10.0, log=True).at(10.0)
        5.0
        """
        held = min(max(value, self.low), self.high)
        how: Callable[[float], float] = math.log if self.log else float
        share = (how(held) - how(self.low)) / (how(self.high) - how(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, unit: str = "") -> list[float]:
        """Return round values inside: the decades, with 2 and 5 where there are few; or steps of 1, 2 or 5.

        Long times are round in minutes, hours and days.

        >>> Scale(1.0, 100.0, 0.0, 10.0, log=True).ticks()
        [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
        >>> Scale(0.0, 1.0, 0.0, 10.0, log=False).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> Scale(100.0, 1e6, 0.0, 10.0, log=True).ticks("s")
        [600.0, 3600.0, 36000.0, 345600.0]
        """
        if self.log and unit == "s" and self.high > _LONG[0]:
            found = list(_LONG)
        elif self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            many = len(powers) > 4
            found = [round(by * 10.0**power, 12) for power in powers for by in ((1,) if many else (1, 2, 5))]
            found = found[:: max(1, math.ceil(len(powers) / _DECADE)) if many else 1]
        else:
            rough = (self.high - self.low) / 5.0
            size = 10.0 ** math.floor(math.log10(rough))
            step = next(size * by for by in (1, 2, 5, 10) if size * by >= rough * 0.999)
            places = range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)
            found = [round(place * step, 12) for place in places]
        return [tick for tick in found if self.low * (1 - 1e-9) <= tick <= self.high * (1 + 1e-9)]


def scale(values: Iterable[float | None], start: float, end: float) -> Scale:
    """Return a scale that shows all values, with some room: by powers of ten where they differ by a factor of eight."""
    known = [held for held in values if held is not None and math.isfinite(held)] or [1.0]
    low, high = min(known), max(known)
    if low > 0 and high / low > _DECADE:
        return Scale(low / 1.4, high * 1.4, start, end, log=True)
    floor = 0.0 if low >= 0 else low
    return Scale(floor, (high if high > floor else floor + 1.0) * 1.08, start, end, log=False)


def band(row: Mapping[str, Any]) -> tuple[float, float]:
    """Return the values that agree with the source."""
    stated, factor = row["expected"], row["tolerance"]
    low = 0.0 if row["relation"] == "at most" else stated / factor
    return low, math.inf if row["relation"] == "at least" else stated * factor


def draw(document: Mapping[str, Any]) -> str:
    """Return the drawing of a claim, as `podscale claim ID --json` describes it, with its chart or its curve."""
    row = document["rows"][0]
    head, top = _head(row)
    cases, below = _cases(row, top)
    chart = document.get("chart")
    moved, height = _chart(chart, below) if chart else _curve(row, document.get("curve"), below)
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return (
        f'<svg class="claim" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t">'
        f'<title id="t">{escape(row["claim"])}</title><style>{_STYLE}</style>{"".join((*head, *cases, *moved))}</svg>\n'
    )


def write(document: Mapping[str, Any], path: str | Path) -> Path:
    """Write the drawing and return where it stands.

    Raises
    ------
    SpecError
        The file is neither .svg nor .html, or cannot be written.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise SpecError([Fault("--plot", str(target), "is not a drawing", "end it in .svg or .html")])
    svg = draw(document)
    said = escape(document["rows"][0]["id"])
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{said}</title>'
    page = f'{head}<body style="margin:0">{svg}</body></html>\n'
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page if target.suffix == ".html" else svg, encoding="utf-8")
    except OSError as error:
        raise SpecError(
            [Fault("--plot", str(target), f"cannot be written ({error.strerror})", "choose another place")]
        ) from None
    return target


def _text(x: float, y: float, said: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _head(row: Mapping[str, Any]) -> tuple[list[str], float]:
    """Draw the claim, its source and verdict, and the key."""
    out, y = [], 30.0
    said = f"{words.sentence(row['quantity'])}: {claimwords.expected(row)}. Verdict: {row['verdict']}"
    for text, width, kind, step in (
        (row["claim"], 84, "title", 22),
        (row["source"], 120, "soft", 19),
        (said, 120, "", 19),
    ):
        for line in wrap(text, width):
            out.append(_text(20, y, line, kind))
            y += step
    y += 8
    out.append(f'<circle cx="27" cy="{y - 4:.1f}" r="6" class="simple"/>{_text(40, y, "the lecture’s arithmetic")}')
    out.append(f'<circle cx="227" cy="{y - 4:.1f}" r="6" class="full"/>{_text(240, y, "the whole model")}')
    out.append(
        f'<rect x="400" y="{y - 12:.1f}" width="26" height="14" class="band"/>{_text(434, y, "what the source says")}'
    )
    return out, y + 34


def _axis(place: Scale, top: float, bottom: float, unit: str) -> list[str]:
    """Draw upright grid lines and their values below."""
    out = []
    for tick in place.ticks(unit):
        x = place.at(tick)
        out += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 17, claimwords.tick(tick, unit), "soft mid")]
    out.append(_text(WIDTH - RIGHT, bottom + 34, claimwords.axis_unit(unit), "soft end"))
    return out


def _cases(row: Mapping[str, Any], top: float) -> tuple[list[str], float]:
    """Draw a row per case: the two answers and the way between them, over the band."""
    cases = row["cases"] or [{"value": "", "simple": row["simple"], "full": row["full"], "holds": row["full_holds"]}]
    low, high = band(row)
    seen = [case[name] for case in cases for name in ("simple", "full")] + [row["expected"]]
    place = scale([*seen, *(edge for edge in (low, high) if edge and math.isfinite(edge))], LEFT, WIDTH - RIGHT)
    bottom = top + ROW * len(cases)
    start, end = place.at(low), place.at(high) if math.isfinite(high) else float(WIDTH - RIGHT)
    out = [
        f'<rect x="{start:.1f}" y="{top:.1f}" width="{max(end - start, 1.0):.1f}" height="{bottom - top:.1f}" class="band"/>'
    ]
    out += _axis(place, top, bottom, row["unit"])
    if row["over"]:
        out.append(_text(LEFT - 14, top - 8, claimwords.input_name(row["over"]), "soft end"))
    out.append(_line(place.at(row["expected"]), top, place.at(row["expected"]), bottom, "says"))
    for rank, case in enumerate(cases):
        y = top + ROW * (rank + 0.5)
        out.append(
            _text(
                LEFT - 14,
                y + 4,
                claimwords.of_input(case["value"], row["over_dimension"]),
                "end" if case["holds"] else "end bad",
            )
        )
        out += _pair(place, case, y)
    return out, bottom + 44


def _pair(place: Scale, case: Mapping[str, Any], y: float) -> list[str]:
    """Draw the two answers of a case; a missing one is left out."""
    known = {name: place.at(case[name]) for name in ("simple", "full") if case[name] is not None}
    out = [_line(known["simple"], y, known["full"], y, "gap")] if len(known) > 1 else []
    if "simple" in known:
        out.append(f'<circle cx="{known["simple"]:.1f}" cy="{y:.1f}" r="6.5" class="simple"/>')
    if "full" in known:
        out.append(f'<circle cx="{known["full"]:.1f}" cy="{y:.1f}" r="6" class="full"/>')
    else:
        out.append(_text(WIDTH - RIGHT, y + 4, "no answer", "soft end"))
    return out


def _panel(xs: Scale, ys: Scale, x_label: Callable[[float], str], y_unit: str) -> list[str]:
    """Draw the grid of a chart and the values along its sides."""
    out = [_text(LEFT - 10, ys.end - 8, claimwords.axis_unit(y_unit), "soft end")]
    for tick in ys.ticks(y_unit):
        y = ys.at(tick)
        shown = claimwords.tick(tick, y_unit)
        out += [_line(LEFT, y, WIDTH - RIGHT, y, "grid"), _text(LEFT - 10, y + 4, shown, "soft end")]
    for tick in xs.ticks():
        x = xs.at(tick)
        out += [_line(x, ys.start, x, ys.start + 4, "grid"), _text(x, ys.start + 18, x_label(tick), "soft mid")]
    out.append(_line(LEFT, ys.start, WIDTH - RIGHT, ys.start, "grid"))
    return out


def _polyline(xs: Scale, ys: Scale, points: Iterable[tuple[float, float]], kind: str) -> str:
    placed = " ".join(f"{xs.at(x):.1f},{ys.at(y):.1f}" for x, y in points)
    return f'<polyline points="{placed}" class="{kind}line"/>'


def _curve(row: Mapping[str, Any], curve: Mapping[str, Any] | None, top: float) -> tuple[list[str], float]:
    """Draw both answers against the input that moves the full one most."""
    if not curve:
        return [], top
    points: Sequence[Mapping[str, Any]] = curve["points"]
    start, bottom = top + 38, top + 38 + CURVE
    xs = scale([point["x"] for point in points], LEFT, WIDTH - RIGHT)
    xs = Scale(points[0]["x"], points[-1]["x"], LEFT, WIDTH - RIGHT, log=xs.log)
    low, high = band(row)
    seen = [point[name] for point in points for name in ("simple", "full")] + [row["expected"]]
    ys = scale(seen, bottom, start)
    upper = ys.at(high) if math.isfinite(high) else start
    tall = max(ys.at(low) - upper, 1.0)
    said = f"{claimwords.input_name(curve['input'])} ({curve['says'] or 'an input'})"
    out = [
        _text(20, top + 6, f"Against {said}, which moves the whole model most"),
        f'<rect x="{LEFT}" y="{upper:.1f}" width="{WIDTH - LEFT - RIGHT}" height="{tall:.1f}" class="band"/>',
        *_panel(xs, ys, lambda tick: claimwords.of_input(tick, curve["dimension"]), row["unit"]),
        _line(xs.at(curve["value"]), start, xs.at(curve["value"]), bottom, "mark"),
    ]
    for kind in ("simple", "full"):
        known = [(point["x"], point[kind]) for point in points if point[kind] is not None]
        out += [_polyline(xs, ys, known, kind)]
    return out, bottom + 40


def _chart(chart: Mapping[str, Any], top: float) -> tuple[list[str], float]:
    """Draw a claim's own chart: its lines with their names, marked values across, levels with their names along."""
    start, bottom = top + 44, top + 44 + 1.25 * CURVE
    points = [point for line in chart["lines"] for point in line["points"]]
    xs = scale([*(x for x, _ in points), *chart["marks"].values()], LEFT, WIDTH - RIGHT)
    ys = scale([*(y for _, y in points), *chart["levels"].values()], bottom, start)
    out = [_text(20, top + 6, chart["title"]), *_names(chart["lines"], top + 28)]
    out += _panel(xs, ys, lambda tick: claimwords.of_input(tick, ""), chart["y_unit"])
    out.append(_text(WIDTH - RIGHT, bottom + 36, chart["x_unit"], "soft end"))
    for name, x in chart["marks"].items():
        out += [_line(xs.at(x), start, xs.at(x), bottom, "mark"), _text(xs.at(x) + 5, start + 12, name, "soft")]
    for name, y in chart["levels"].items():
        out += [_line(LEFT, ys.at(y), WIDTH - RIGHT, ys.at(y), "level"), _text(LEFT + 6, ys.at(y) - 5, name, "soft")]
    return [*out, *(_polyline(xs, ys, line["points"], line["kind"]) for line in chart["lines"])], bottom + 50


def _names(lines: Sequence[Mapping[str, Any]], y: float) -> list[str]:
    """Draw the key of a chart in one row."""
    out, x = [], 20.0
    for line in lines:
        out += [f'<polyline points="{x:.1f},{y - 4:.1f} {x + 26:.1f},{y - 4:.1f}" class="{line["kind"]}line"/>']
        out.append(_text(x + 33, y, line["name"]))
        x += 33 + _CHARACTER * len(line["name"]) + 24
    return out
