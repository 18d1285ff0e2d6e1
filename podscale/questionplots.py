"""Sensitivity and break-even drawn: bars of elasticity over the account of the time; who is ahead, and where it turns.

One SVG that needs nothing else and follows light and dark; as HTML it is the same drawing in a page.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from podscale import palette, words
from podscale.claimplots import SUFFIXES, Scale
from podscale.questionwords import figure_value, gain
from topo.errors import Fault, SpecError

WIDTH: Final = 880
LEFT, RIGHT = 200, 40
BAR: Final = 34
PANEL: Final = 300
TEXT: Final = 240
"""Room for words to the right of bars, at least."""
LETTER: Final = 7.3
"""Width of a letter, rather too much than too little."""
A, B = palette.WIRINGS[0], palette.WIRINGS[1]
"""Colours of the two designs."""
_STYLE: Final = f"""
svg.question{{--ink:#1b1f24;--soft:#57606a;--line:#d5dbe1;--ground:#fff;--a:{A};--b:{B};
--held:{palette.COMPUTING[0]};--anew:{palette.COMPUTING[1]};--even:#b9c2cb;--none:transparent;
background:var(--ground);font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}}
@media screen and (prefers-color-scheme:dark){{
svg.question{{--ink:#e6edf3;--soft:#a2acb7;--line:#3d444d;--ground:#0d1117;--held:#5b95f5;--anew:#2b4f86;--even:#4a525c}}}}
svg.question text{{fill:var(--ink)}} svg.question .soft{{fill:var(--soft)}}
svg.question .title{{font-size:17px;font-weight:600}}
svg.question .end{{text-anchor:end}} svg.question .mid{{text-anchor:middle}} svg.question .inside{{fill:#fff}}
svg.question .grid{{stroke:var(--line);stroke-width:1}} svg.question .axis{{stroke:var(--soft);stroke-width:1.5}}
svg.question .turn{{stroke:var(--ink);stroke-width:2;stroke-dasharray:5 4}}
svg.question .line{{fill:none;stroke:var(--ink);stroke-width:2.5}} svg.question .dot{{fill:var(--ink)}}
"""
_HUES: Final = (*palette.COMPUTING[:5], "#e4572e", "#f2a541", "#b83b5e")
"""Colours of the parts of the account."""


def check(path: str) -> None:
    """Refuse a file that is no drawing before anything is computed."""
    if Path(path).suffix not in SUFFIXES:
        raise SpecError([Fault("--plot", path, "is not a drawing", "end it in .svg or .html")])


def write(svg: str, path: str | Path) -> Path:
    """Write a drawing, as it is or in a page, and return where it stands.

    Raises
    ------
    SpecError
        The file is neither .svg nor .html, or cannot be written.
    """
    check(str(path))
    target = Path(path)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>podscale</title>'
    page = f'{head}<body style="margin:0">{svg}</body></html>\n'
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page if target.suffix == ".html" else svg, encoding="utf-8")
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise SpecError([Fault("--plot", str(target), problem, "choose another place")]) from None
    return target


def _text(x: float, y: float, said: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _rect(x: float, y: float, width: float, height: float, colour: str, opacity: float = 1.0) -> str:
    size = f'width="{max(width, 0.0):.1f}" height="{height:.1f}"'
    return f'<rect x="{x:.1f}" y="{y:.1f}" {size} style="fill:{colour}" opacity="{opacity:g}"/>'


def _sheet(elements: Sequence[str], height: float, title: str) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    named = f'role="img" aria-labelledby="t"><title id="t">{escape(title)}</title>'
    return (
        f'<svg class="question" xmlns="http://www.w3.org/2000/svg" {size} {named}<style>{_STYLE}</style>'
        f"{''.join(elements)}</svg>\n"
    )


def _head(document: Mapping[str, Any], title: str) -> tuple[list[str], float]:
    """Write the title, whose point it is, and the answer."""
    what = " · ".join((document["model"], document["cluster"], words.PHASES[document["phase"]]))
    split = words.split(document.get("strategy") or {})
    out, y = [_text(20, 32, title, "title")], 54.0
    for text, kind in ((f"{what}{f' · {split}' if split else ''}", "soft"), (document["answer"], "")):
        for line in wrap(text, 116):
            out.append(_text(20, y, line, kind))
            y += 19
    return out, y + 12


# --- sensitivity -----------------------------------------------------------------------------------------------------


def draw_sensitivity(document: Mapping[str, Any]) -> str:
    """Return bars of elasticity, the split held and searched anew, over the account of the time."""
    title = "Per cent of throughput for one per cent of each figure"
    head, top = _head(document, title)
    rows = [row for row in document["rows"] if any(abs(row[key] or 0.0) > 0.002 for key in ("held", "searched"))]
    rows.sort(key=lambda row: -max(abs(row["held"] or 0.0), abs(row["searched"] or 0.0)))
    bars, below = _bars(rows, top, anew=document["searched"] is not None)
    stack, height = _account(document, below + 26)
    return _sheet([*head, *bars, *stack], height, title)


def _bars(rows: Sequence[Mapping[str, Any]], top: float, *, anew: bool) -> tuple[list[str], float]:
    """Draw two bars for each figure, and the gain of a better one in words."""
    keys = ("held", "searched") if anew else ("held",)
    seen = [row[key] for row in rows for key in keys if row[key] is not None] or [1.0]
    room = max([TEXT, *(LETTER * len(_gained(row)) + 24 for row in rows)])
    span = Scale(min(0.0, *seen), max(0.05, *seen), LEFT, WIDTH - RIGHT - room, log=False)
    out = [_rect(LEFT, top - 10, 14, 10, "var(--held)"), _text(LEFT + 20, top, "split held")]
    if anew:
        out += [_rect(LEFT + 110, top - 10, 14, 10, "var(--anew)"), _text(LEFT + 130, top, "split searched anew")]
    out.append(_text(WIDTH - RIGHT, top, "gain of a better one", "soft end"))
    start, bottom = top + 12, top + 12 + BAR * len(rows)
    for tick in span.ticks():
        out.append(_line(span.at(tick), start, span.at(tick), bottom, "grid"))
        out.append(_text(span.at(tick), bottom + 17, f"{tick:g}", "soft mid"))
    for rank, row in enumerate(rows):
        y = start + BAR * rank
        out.append(_text(LEFT - 12, y + BAR / 2 + 4, row["title"], "end"))
        for place, key in enumerate(keys):
            if row[key] is not None:
                low, high = sorted((span.at(0.0), span.at(row[key])))
                each = (BAR - 12) / len(keys)
                out.append(_rect(low, y + 6 + place * each, max(high - low, 1.0), each - 1, f"var(--{_KEYS[key]})"))
        out.append(_text(WIDTH - RIGHT, y + BAR / 2 + 4, _gained(row), "end"))
    out.append(_line(span.at(0.0), start, span.at(0.0), bottom, "axis"))
    return out, bottom + 24


_KEYS: Final = {"held": "held", "searched": "anew"}


def _gained(row: Mapping[str, Any]) -> str:
    """Write the gain of a better figure, and what it is worth.

    >>> _gained({"gain": 0.05, "better": 1e13, "dimension": "bandwidth", "worth_usd_per_accelerator": 3500.0})
    '10 TB/s: +5.0%, ≤ $3.5k per GPU'
    """
    if row["gain"] is None:
        return "–"
    worth = row["worth_usd_per_accelerator"]
    tail = f", ≤ {words.dollars(worth)} per GPU" if worth and gain(row["gain"]) != "0" else ""
    return f"{figure_value(row['better'], row['dimension'])}: {gain(row['gain'])}{tail}"


def _account(document: Mapping[str, Any], top: float) -> tuple[list[str], float]:
    """Draw how the time divides among rates, times and what is fixed."""
    titles = {row["figure"]: row["title"] for row in document["rows"]}
    parts = [(titles[name], share) for name, share in document["account"]["shares"].items() if share > 0.002]
    parts.sort(key=lambda part: -part[1])
    coloured = [(*part, _HUES[rank % len(_HUES)]) for rank, part in enumerate(parts)]
    coloured.append(("fixed", document["account"]["fixed"], "#8d99a6"))
    whole = sum(share for _, share, _ in coloured)
    out, x, y = [_text(20, top, "The time by what shortens it: shares add up to the whole", "soft")], 20.0, top + 56
    place = 20.0
    for name, share, colour in coloured:
        width = (WIDTH - 60) * share / whole
        out.append(_rect(x, top + 12, width, 26, colour))
        if width > 44:
            out.append(_text(x + width / 2, top + 30, words.percent(share), "mid inside"))
        x += width
        said = f"{name} {words.percent(share)}"
        if place + 7.6 * len(said) + 40 > WIDTH:
            place, y = 20.0, y + 20
        out += [_rect(place, y - 10, 12, 10, colour), _text(place + 18, y, said)]
        place += 7.6 * len(said) + 38
    return out, y + 24


# --- break-even ------------------------------------------------------------------------------------------------------


def draw_break_even(document: Mapping[str, Any]) -> str:
    """Return who is ahead over one figure, with the ratio of the rates, or over two."""
    names = {key: document[key]["name"] for key in ("a", "b")}
    title = f"{names['a']} (A) against {names['b']} (B)"
    head, top = _head(document, title)
    head += _key(names, top)
    panel, height = _surface(document, top + 26) if document["across"] else _ratio(document, top + 26)
    return _sheet([*head, *panel], height, title)


def _key(names: Mapping[str, str], y: float) -> Iterator[str]:
    x = 20.0
    for hue, said in (("a", f"A ahead: {names['a']}"), ("b", f"B ahead: {names['b']}"), ("even", "even")):
        yield _rect(x, y - 11, 14, 12, f"var(--{hue})", 0.55)
        yield _text(x + 20, y, said)
        x += 7.2 * len(said) + 52


def _along(held: Mapping[str, Any], start: float, end: float) -> Scale:
    """Scale of a figure that runs, over its range."""
    low, high = held["low"], held["high"]
    return Scale(low, high, start, end, log=high / low > 3.0)


def _ticks(place: Scale, held: Mapping[str, Any]) -> list[tuple[float, str]]:
    return [(tick, figure_value(tick, held["dimension"])) for tick in place.ticks()]


def _bands(curve: Mapping[str, Any]) -> Iterator[tuple[float, float, str]]:
    """Yield the stretches of the figure with who is ahead there."""
    for one, other in pairwise(curve["points"]):
        between = [found["value"] for found in curve["break_evens"] if one["value"] < found["value"] <= other["value"]]
        if between:
            yield one["value"], between[0], one["ahead"]
        yield between[0] if between else one["value"], other["value"], other["ahead"]


def _ratio(document: Mapping[str, Any], top: float) -> tuple[list[str], float]:
    """Draw the ratio of the two rates over the figure, on the stretches of who is ahead."""
    over, curve = document["over"], document["curves"][0]
    bottom = top + PANEL
    xs = _along(over, LEFT, WIDTH - RIGHT)
    known = [point for point in curve["points"] if point["ratio"]]
    ratios = [point["ratio"] for point in known] + [1.0]
    room = 0.08 * (max(ratios) - min(ratios)) + 0.02
    ys = Scale(min(ratios) - room, max(ratios) + room, bottom, top, log=False)
    out = [
        _rect(xs.at(low), top, xs.at(high) - xs.at(low), PANEL, f"var(--{who})", 0.16)
        for low, high, who in _bands(curve)
    ]
    for tick in ys.ticks():
        out.append(_line(LEFT, ys.at(tick), WIDTH - RIGHT, ys.at(tick), "grid"))
        out.append(_text(LEFT - 10, ys.at(tick) + 4, words.times(tick), "soft end"))
    for tick, said in _ticks(xs, over):
        out.append(_text(xs.at(tick), bottom + 18, said, "soft mid"))
    out.append(_line(LEFT, ys.at(1.0), WIDTH - RIGHT, ys.at(1.0), "axis"))
    out.append(_text(20, top + 12, "B over A,", "soft") + _text(20, top + 28, "tokens/s per GPU", "soft"))
    placed = [(xs.at(point["value"]), ys.at(point["ratio"])) for point in known]
    out.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)}" class="line"/>')
    out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot"/>' for x, y in placed]
    for found in curve["break_evens"]:
        x = xs.at(found["value"])
        out += [_line(x, top, x, bottom, "turn")]
        out.append(_text(x + 6, top + 16, figure_value(found["value"], over["dimension"])))
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 40, over["title"], "mid"))
    return out, bottom + 56


def _surface(document: Mapping[str, Any], top: float) -> tuple[list[str], float]:
    """Draw who is ahead over both figures, a column for each value of the second, and the line where it turns."""
    over, across, curves = document["over"], document["across"], document["curves"]
    bottom = top + PANEL
    ys = _along(over, bottom, top)
    values = [curve["across"] for curve in curves]
    width = (WIDTH - RIGHT - LEFT) / len(values)
    out, turns = [], []
    for rank, curve in enumerate(curves):
        left = LEFT + rank * width
        for low, high, who in _bands(curve):
            out.append(_rect(left, ys.at(high), width - 2, ys.at(low) - ys.at(high), f"var(--{who})", 0.5))
        for found in curve["break_evens"]:
            y = ys.at(found["value"])
            turns += [_line(left, y, left + width - 2, y, "turn")]
            turns.append(_text(left + width / 2, y - 6, figure_value(found["value"], over["dimension"]), "mid"))
        for point, y in ((curve["points"][0], bottom - 8), (curve["points"][-1], top + 16)):
            out.append(_text(left + width / 2, y, words.times(point["ratio"]), "mid"))
        out.append(_text(left + width / 2, bottom + 18, figure_value(curve["across"], across["dimension"]), "soft mid"))
    for tick, said in _ticks(ys, over):
        out.append(_text(LEFT - 10, ys.at(tick) + 4, said, "soft end"))
    for rank, line in enumerate(wrap(over["title"], 18)):
        out.append(_text(20, top + 12 + 16 * rank, line))
    out.append(_text(20, bottom - 24, "B over A at", "soft") + _text(20, bottom - 8, "either end", "soft"))
    out.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 40, across["title"], "mid"))
    return [*out, *turns], bottom + 56
