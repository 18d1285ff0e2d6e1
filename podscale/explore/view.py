"""The answer as HTML: what the page puts in place of what it showed before. Numbers stand in tables beside every chart.

Charts are bars of the style sheet and one SVG that stretches with the page, so they read the same on a phone.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from podscale import draw, palette, render, words
from podscale.explore.state import FIELDS, MOST_TEXT, OWN, Design, State, text_of
from podscale.fronts import around as outlined
from podscale.fronts import said
from podscale.report import environment

PAGE = Path(__file__).parent / "page"
COLOURS = {"a": palette.WIRINGS[0], "b": palette.WIRINGS[1]}
_SMALL = 0.01
_AXES = {
    "decode": ("tokens_per_s_per_user", "tokens/s per user", 1.0),
    "prefill": ("ttft_s", "ms to the first token", 1e3),
}
"""Phase -> key of a point's place on the axis, what the axis shows, factor."""

Answer = Mapping[str, Any]


@cache
def _templates() -> Any:
    """Load the templates, once."""
    return environment(PAGE)


def page() -> str:
    """Return the page, without any answer in it."""
    from clusters import catalogue
    from clusters.spec import systems
    from parallel.io import model_names
    from parallel.precision import RECIPES
    from podscale import __version__

    choices = {
        "cluster": {"accelerators": catalogue.names(), "systems": systems()},
        "model": {"models": model_names()},
        "precision": {"": tuple(RECIPES)},
    }
    text: str = (
        _templates()
        .get_template("index.html.j2")
        .render(
            version=__version__,
            groups={"cluster": "Cluster", "model": "Model", "workload": "Workload"},
            fields=FIELDS,
            defaults={field.name: text_of(getattr(Design(), field.name)) for field in FIELDS},
            choices=choices,
            own=OWN,
            most_text=MOST_TEXT,
            phases=words.PHASES,
        )
    )
    return text


def fragments(answer: Answer, state: State) -> dict[str, str]:
    """Return the parts of the page that show an answer: headline, figures, frontier, terms, memory, card."""
    parts = _templates().get_template("parts.html.j2").module
    sides = answer["designs"]
    rows = {side: held["row"] for side, held in sides.items()}
    able = {side: row for side, row in rows.items() if not row["infeasible"]}
    phase = answer["phase"]
    shown = {"colours": COLOURS, "names": {side: side.upper() for side in sides}}
    return {
        "headline": str(parts.headline(phase, sides, _ratio(able), **shown)),
        "figures": str(parts.figures(figures(sides, state), **shown)),
        "frontier": str(parts.frontier(frontier(sides, phase), phase, **shown)),
        "terms": str(parts.bars(terms(able), "GPU time per token", **shown)),
        "memory": str(parts.bars(memory(able, sides), "GB per GPU", **shown)),
        "card": str(parts.card(phase, rows, **shown)),
    }


def faults(found: Sequence[Mapping[str, Any]], *, compare: bool) -> str:
    """Return the table of faults."""
    return str(_templates().get_template("parts.html.j2").module.faults(found, compare))


def wirings(found: Answer) -> str:
    """Return the drawings of the wirings, side by side on one scale."""
    shared = draw.scale(list(found.values()))
    panels = {
        side: {
            **wired,
            "panel": draw.wiring(wired, shared, COLOURS[side], wired["gpus"]),
            "drawing": _apart(wired["drawing"], side),
        }
        for side, wired in found.items()
    }
    return str(_templates().get_template("parts.html.j2").module.wirings(panels, COLOURS))


def assumptions(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Return what the answers rest on; what both designs share stands there once."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for side, held in found.items():
        for row in held:
            value = words.figures(row["value"]) if words.known(row["value"]) else str(row["value"])
            key = (row["name"], f"{value} {row.get('unit') or ''}".strip(), row["source"])
            rows.setdefault(key, []).append(side.upper())
    lines = [(*key, "" if len(sides) == len(found) else ", ".join(sides)) for key, sides in rows.items()]
    return str(_templates().get_template("parts.html.j2").module.assumptions(lines))


def specs(found: Answer) -> str:
    """Return the commands that reproduce the designs, with buttons for their files."""
    return str(_templates().get_template("parts.html.j2").module.spec(found, COLOURS))


def _apart(svg: str, side: str) -> str:
    """Give the ids of a drawing a prefix, so that two can stand on one page.

    >>> _apart('<svg aria-labelledby="t d"><title id="t">', "b")
    '<svg aria-labelledby="b-t b-d"><title id="b-t">'
    """
    svg = re.sub(r'aria-labelledby="(\w+) (\w+)"', rf'aria-labelledby="{side}-\1 {side}-\2"', svg, count=1)
    return re.sub(r' id="(\w+)"', rf' id="{side}-\1"', svg)


def _ratio(able: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return B's speed over A's, where both run."""
    if len(able) < 2 or not able["a"]["tokens_per_s_per_gpu"]:
        return None
    return float(able["b"]["tokens_per_s_per_gpu"] / able["a"]["tokens_per_s_per_gpu"])


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(sides: Answer, state: State) -> list[tuple[str, dict[str, str]]]:
    """Return the lines of the table of figures: a name, and what to write for each side."""
    found = [(name, {side: say(held) for side, held in sides.items()}) for name, say in _LINES]
    set_to = {side: {**asdict(state.designs[side]), **held["settled"]} for side, held in sides.items()}
    return found + [(name, {side: said.format(**held) for side, held in set_to.items()}) for name, said in _SETTINGS]


def _row(say: Any) -> Any:
    """Return what writes something about a row, and a dash where it cannot run."""
    return lambda held: "–" if held["row"]["infeasible"] else say(held["row"])


def _interval(row: Mapping[str, Any]) -> str:
    """Write the interval, or why there is none."""
    if row.get("interval"):
        return words.span(*row["interval"])
    return f"none: {render.reason(row.get('interval_note') or 'not measured')}"


_LINES = (
    ("Tokens/s per GPU", _row(lambda row: words.figures(row["tokens_per_s_per_gpu"], 4))),
    ("Time", _row(lambda row: f"{words.latency(row)[0]} {words.seconds(words.latency(row)[1])}")),
    ("90 % interval", _row(_interval)),
    ("Split", _row(lambda row: words.split(row["strategy"]))),
    ("Beside it", _row(lambda row: words.rest_of(row["strategy"], brief=True) or "nothing")),
    (
        "GPUs at work",
        _row(lambda row: f"{row['gpus_used']:,}" + (f", {row['gpus_idle']:,} idle" * bool(row["gpus_idle"]))),
    ),
    ("Memory in use", _row(lambda row: words.percent(row["memory_share"]))),
    ("Strategies searched", lambda held: f"{held['row']['searched']:,}"),
)
_SETTINGS = (
    ("Silicon", "{cluster}, {gpus} GPUs"),
    ("Domain", "{domain} GPUs, {scale_up} GB/s each"),
    ("NIC", "{nic} Gb/s, {oversubscription} : 1"),
    ("Model", "{model}, {precision}"),
    ("Requests", "{isl:,} in, {osl:,} out"),
    ("Limits", "TPOT {tpot_ms:g} ms, TTFT {ttft_ms:g} ms"),
    ("Training step", "{global_batch:,} sequences of {sequence:,}"),
)
"""Name of a line, and what it says."""


# --- bars -------------------------------------------------------------------------------------------------------------


def terms(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return stacked bars of where one token's GPU time goes, 1 / (tokens/s per GPU), split like the step's terms."""
    if not rows:
        return None
    shares = {side: dict(words.shares(row["terms"])) for side, row in rows.items()}
    largest = dict.fromkeys(name for share in shares.values() for name in share)
    small = {name for name in largest if all(share.get(name, 0.0) < _SMALL for share in shares.values())}
    kept = sorted((name for name in largest if name not in small), key=palette.rank)
    times = {side: 1.0 / row["tokens_per_s_per_gpu"] for side, row in rows.items()}
    lines = []
    for name, colour in palette.of_terms(kept).items():
        lines.append(_line(words.term(name), colour, {s: shares[s].get(name, 0.0) * t for s, t in times.items()}))
    if small:
        together = {s: sum(shares[s].get(name, 0.0) for name in small) * t for s, t in times.items()}
        lines.append(_line("all smaller terms", "#9aa0a6", together))
    return _stacked(lines, times, words.seconds)


def memory(rows: Mapping[str, Mapping[str, Any]], sides: Answer) -> dict[str, Any] | None:
    """Return stacked bars of what fills one GPU's memory, with what there is to fill."""
    rows = {side: row for side, row in rows.items() if row["memory_bytes"]}
    if not rows:
        return None
    names = dict.fromkeys(name for row in rows.values() for name in row["memory_bytes"])
    lines = [
        _line(words.phrase(name), colour, {side: row["memory_bytes"].get(name, 0.0) for side, row in rows.items()})
        for name, colour in palette.of_memory(names).items()
    ]
    totals = {side: sum(row["memory_bytes"].values()) for side, row in rows.items()}
    return _stacked(lines, totals, lambda value: words.scaled(value, "B"), {s: sides[s]["hbm_bytes"] for s in rows})


def _line(name: str, colour: str, values: dict[str, float]) -> dict[str, Any]:
    """Return one kind of segment, its value on each side."""
    return {"name": name, "colour": colour, "values": values}


def _stacked(
    lines: Sequence[dict[str, Any]], totals: Mapping[str, float], say: Any, limits: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the bars on one scale: widths in percent of the longest."""
    longest = max([*totals.values(), *(limits or {}).values()])
    for line in lines:
        line["widths"] = {side: 100.0 * value / longest for side, value in line["values"].items()}
        line["said"] = {side: say(value) for side, value in line["values"].items()}
        line["shares"] = {s: words.percent(v / totals[s]) for s, v in line["values"].items()}
    return {
        "lines": lines,
        "totals": {side: say(total) for side, total in totals.items()},
        "limits": {side: {"at": 100.0 * v / longest, "said": say(v)} for side, v in (limits or {}).items()},
    }


# --- the frontier -----------------------------------------------------------------------------------------------------


def frontier(sides: Answer, phase: str) -> dict[str, Any] | None:
    """Return throughput against interactivity in percent of the chart's field: lines, points, ticks, limits."""
    fronts = {side: held["front"] for side, held in sides.items() if held["front"]}
    if phase not in _AXES or not fronts:
        return None
    key, title, factor = _AXES[phase]
    logarithmic = phase == "prefill"
    between = "vh" if phase == "decode" else "hv"
    outlines = {
        side: outlined(sorted(front, key=lambda p: float(p[key])), key, between) for side, front in fronts.items()
    }
    edges = [edge for outline in outlines.values() for edge in outline]
    points = [(point[key], point["tokens_per_s_per_gpu"]) for front in fronts.values() for point in front]
    places = [x * factor for x, _ in (*points, *edges)]
    low, high = (min(places) / 1.1, max(places) * 1.1) if logarithmic else (0.0, max(places) * 1.04)
    top = max(y for _, y in (*points, *edges)) * 1.06

    def across(x: float) -> float:
        share = math.log(x / low) / math.log(high / low) if logarithmic else (x - low) / (high - low)
        return 100.0 * share

    return {
        "title": title,
        "x_ticks": [(words.figures(t), across(t)) for t in ticks(low, high, logarithmic=logarithmic)],
        "y_ticks": [(words.figures(t), 100.0 * (1 - t / top)) for t in ticks(0.0, top)],
        "bands": {
            side: "L".join(f"{across(x * factor):.2f} {100.0 * (1 - y / top):.2f}" for x, y in outline)
            for side, outline in outlines.items()
            if outline
        },
        "lines": {
            side: _curve(front, lambda point: across(point[key] * factor), top, phase) for side, front in fronts.items()
        },
        "chosen": {
            side: {
                "x": across(_place(held["row"], phase)),
                "y": 100.0 * (1 - held["row"]["tokens_per_s_per_gpu"] / top),
            }
            for side, held in sides.items()
            if not held["row"]["infeasible"]
        },
        "limits": _limits(sides, phase, across),
    }


def _place(row: Mapping[str, Any], phase: str) -> float:
    """Return where a row lies on the axis of its phase."""
    return float(1.0 / row["tpot_s"] if phase == "decode" else row["ttft_s"] * 1e3)


def _curve(front: Iterable[Mapping[str, Any]], across: Any, top: float, phase: str) -> dict[str, Any]:
    """Return one design's points from left to right, and the line of what is reached between them."""
    points = sorted(
        (
            {
                "x": across(point),
                "y": 100.0 * (1 - point["tokens_per_s_per_gpu"] / top),
                "rate": words.figures(point["tokens_per_s_per_gpu"], 4),
                "split": words.split(point["strategy"]),
                "rest": words.rest_of(point["strategy"], brief=True),
                "time": words.seconds(point["tpot_s"] or point.get("ttft_s")),
                "band": said(point),
            }
            for point in front
        ),
        key=lambda point: point["x"],
    )
    step = "V{y:.2f}H{x:.2f}" if phase == "decode" else "H{x:.2f}V{y:.2f}"
    start = "M{x:.2f} {y:.2f}".format(**points[0])
    return {"path": start + "".join(step.format(**point) for point in points[1:]), "points": points}


def _limits(sides: Answer, phase: str, across: Any) -> list[dict[str, Any]]:
    """Return where the limits on latency lie; one line where both designs have the same."""
    found: dict[float, list[str]] = {}
    for side, held in sides.items():
        found.setdefault(held["limit_ms"], []).append(side.upper())
    name = {"decode": "TPOT", "prefill": "TTFT"}[phase]
    drawn = []
    for limit, who in found.items():
        place = across(1e3 / limit if phase == "decode" else limit)
        owner = "" if len(found) == 1 else f"{who[0]}: "
        if 0 <= place <= 100:
            drawn.append({"x": place, "said": f"{owner}{name} {words.figures(limit)} ms"})
    return drawn


def ticks(low: float, high: float, *, logarithmic: bool = False, most: int = 6) -> list[float]:
    """Return round numbers between two others: multiples of 1, 2 or 5, or those digits in every decade.

    >>> ticks(0, 7000), ticks(80, 1500, logarithmic=True)
    ([0.0, 2000.0, 4000.0, 6000.0], [100.0, 200.0, 500.0, 1000.0])
    """
    if logarithmic:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
        found = [value for value in found if low <= value <= high]
        return found if len(found) <= most + 1 else [value for value in found if f"{value:e}"[0] == "1"]
    least = (high - low) / most
    decade = 10.0 ** math.floor(math.log10(least))
    step = next(digit * decade for digit in (1, 2, 5, 10) if digit * decade >= least)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
