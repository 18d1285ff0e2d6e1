"""A claim drawn: what the source says as a band, both answers on every case, and their curve over the input that matters.

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
LEFT, RIGHT = 150, 40
ROW: Final = 30
CURVE: Final = 240
SUFFIXES: Final = (".svg", ".html")
SIMPLE, FULL = palette.WIRINGS[2], palette.WIRINGS[4]
"""Colours of the two answers."""
_DECADE: Final = 8.0
_STYLE: Final = f"""
svg.claim{{--ink:#1b1f24;--soft:#57606a;--line:#d5dbe1;--ground:#fff;
--band:#12a594;--simple:{SIMPLE};--full:{FULL};--bad:#c62f3b;
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

    def ticks(self) -> list[float]:
        """Return round values inside: the decades, with 2 and 5 where there are few; or steps of 1, 2 or 5.

        >>> Scale(1.0, 100.0, 0.0, 10.0, log=True).ticks()
        [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
        >>> Scale(0.0, 1.0, 0.0, 10.0, log=False).ticks()
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        """
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            many = len(powers) > 4
            found = [round(by * 10.0**power, 12) for power in powers for by in ((1,) if many else (1, 2, 5))]
            step = max(1, math.ceil(len(powers) / _DECADE)) if many else 1
            found = found[::step]
        else:
            rough = (self.high - self.low) / 5.0
            unit = 10.0 ** math.floor(math.log10(rough))
            step_size = next(unit * by for by in (1, 2, 5, 10) if unit * by >= rough * 0.999)
            first = math.ceil(self.low / step_size - 1e-9)
            found = [
                round(place * step_size, 12) for place in range(first, math.floor(self.high / step_size + 1e-9) + 1)
            ]
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
    """Return the drawing of a claim, as `podscale claim ID --json` describes it, with its curve."""
    row = document["rows"][0]
    head, top = _head(row)
    cases, below = _cases(row, top)
    curve, height = _curve(row, document.get("curve"), below)
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    return (
        f'<svg class="claim" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t">'
        f'<title id="t">{escape(row["claim"])}</title><style>{_STYLE}</style>{"".join((*head, *cases, *curve))}</svg>\n'
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
    for tick in place.ticks():
        x = place.at(tick)
        out += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 17, claimwords.value(tick, unit), "soft mid")]
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
        out.append(_text(LEFT - 14, top - 8, words.phrase(row["over"]), "soft end"))
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


def _curve(row: Mapping[str, Any], curve: Mapping[str, Any] | None, top: float) -> tuple[list[str], float]:
    """Draw both answers against the input that moves the full one most."""
    if not curve:
        return [], top
    points: Sequence[Mapping[str, Any]] = curve["points"]
    bottom = top + 24 + CURVE
    xs = scale([point["x"] for point in points], LEFT, WIDTH - RIGHT)
    xs = Scale(points[0]["x"], points[-1]["x"], LEFT, WIDTH - RIGHT, log=xs.log)
    low, high = band(row)
    seen = [point[name] for point in points for name in ("simple", "full")] + [row["expected"]]
    ys = scale(seen, bottom, top + 24)
    out = [_text(20, top + 6, f"Against {curve['input'].replace('_', ' ')}, the input that moves the whole model most")]
    upper = ys.at(high) if math.isfinite(high) else top + 24.0
    tall = max(ys.at(low) - upper, 1.0)
    out.append(f'<rect x="{LEFT}" y="{upper:.1f}" width="{WIDTH - LEFT - RIGHT}" height="{tall:.1f}" class="band"/>')
    for tick in ys.ticks():
        y = ys.at(tick)
        out += [
            _line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            _text(LEFT - 10, y + 4, claimwords.value(tick, row["unit"]), "soft end"),
        ]
    for tick in xs.ticks():
        out.append(_text(xs.at(tick), bottom + 18, claimwords.of_input(tick, curve["dimension"]), "soft mid"))
    out.append(_line(xs.at(curve["value"]), top + 24, xs.at(curve["value"]), bottom, "grid"))
    for name in ("simple", "full"):
        known = [(xs.at(point["x"]), ys.at(point[name])) for point in points if point[name] is not None]
        out.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in known)}" class="{name}line"/>')
    return out, bottom + 40
