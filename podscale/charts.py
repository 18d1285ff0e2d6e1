"""The report's charts as Plotly figures: where the time goes, throughput against interactivity, memory, rooflines.

Text and grid get their colours from the page's style sheet, so that a chart follows light, dark and print. The key of the
colours is the page's too (`key`): it flows on a phone, where a chart's own would cover its axis.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import plotly.graph_objects as go

from podscale import fronts, palette, words

Rows = Sequence[Mapping[str, Any]]
_SMALL = 0.01
_MARK = {"dash": "dot", "color": "#888", "width": 1.5}


def _layout(height: int, x_title: str, y_title: str = "") -> dict[str, Any]:
    """Return what all charts share: transparent ground, quiet axes, no key."""
    return {
        "height": height,
        "margin": {"l": 10, "r": 30, "t": 10, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": "#777"},
        "showlegend": False,
        "hoverlabel": {"font": {"size": 13}},
        "xaxis": {"title": {"text": x_title}, "automargin": True, "gridcolor": "rgba(128,128,128,.22)"}
        | {"zerolinecolor": "rgba(128,128,128,.5)"},
        "yaxis": {"title": {"text": y_title}, "automargin": True, "gridcolor": "rgba(128,128,128,.22)"}
        | {"zerolinecolor": "rgba(128,128,128,.5)"},
    }


def key(figure: go.Figure) -> list[tuple[str, str]]:
    """Return the name and the colour of everything that a chart draws, bands about lines left out."""
    return [
        (str(trace.name), str(trace.line.color if trace.type == "scatter" else trace.marker.color))
        for trace in figure.data
        if trace.type != "scatter" or trace.fill is None
    ]


def feasible(rows: Rows, phase: str = "") -> list[Mapping[str, Any]]:
    """Return the rows that have a price, of one phase or of all."""
    return [row for row in rows if not row.get("infeasible") and phase in ("", row["phase"])]


def terms(rows: Rows, phase: str, colours: Mapping[str, str]) -> go.Figure | None:
    """Draw where the GPU time of one token goes: a bar per wiring, a segment per term.

    A bar is 1 / (tokens per second per GPU), split like the step's exposed seconds; so bars of wirings that run
    different batches can be compared. Terms below 1 % of every bar are gathered.
    """
    chosen = feasible(rows, phase)
    if not chosen:
        return None
    largest = dict.fromkeys(name for row in chosen for name, _ in words.shares(row["terms"]))
    names = sorted(largest, key=palette.rank)  # talking stands on the axis, where lengths are compared best
    shares = [dict(words.shares(row["terms"])) for row in chosen]
    small = [name for name in names if all(share.get(name, 0.0) < _SMALL for share in shares)]
    labels = [f"domain {row['domain']:,} " for row in chosen]
    figure = go.Figure()
    for name in [name for name in names if name not in small]:
        figure.add_bar(**_segment(chosen, labels, shares, [name], title=words.term(name), colour=colours[name]))
    if small:
        figure.add_bar(**_segment(chosen, labels, shares, small, title="all smaller terms", colour="#9aa0a6"))
    figure.update_layout(
        **_layout(70 + 46 * len(chosen), f"GPU time per token ({_unit(chosen)[1]})"), barmode="stack", bargap=0.35
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _unit(rows: Rows) -> tuple[float, str]:
    """Return the factor from seconds, and the unit, in which the longest bar reads well."""
    longest = max(1.0 / row["tokens_per_s_per_gpu"] for row in rows)
    return next(((f, u) for limit, f, u in ((1.0, 1.0, "s"), (1e-3, 1e3, "ms")) if longest >= limit), (1e6, "µs"))


def _segment(
    rows: Rows, labels: list[str], shares: list[dict[str, float]], names: list[str], *, title: str, colour: str
) -> dict[str, Any]:
    """Return one term's segments in every bar."""
    factor, unit = _unit(rows)
    parts = [sum(share.get(name, 0.0) for name in names) for share in shares]
    seconds = [sum(row["terms"].get(name, 0.0) for name in names) for row in rows]
    busy = [sum((row.get("busy") or {}).get(name, 0.0) for name in names) for row in rows]
    return {
        "name": title,
        "y": labels,
        "x": [part * factor / row["tokens_per_s_per_gpu"] for part, row in zip(parts, rows, strict=True)],
        "orientation": "h",
        "marker": {"color": colour, "line": {"color": "rgba(255,255,255,.55)", "width": 0.7}},
        "text": [f"{part:.0%}" if part >= 0.07 else "" for part in parts],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "constraintext": "inside",
        "customdata": [
            [words.seconds(time), words.percent(part), words.seconds(work)]
            for time, part, work in zip(seconds, parts, busy, strict=True)
        ],
        "hovertemplate": f"<b>{title}</b><br>%{{y}}: %{{x:.3g}} {unit} of GPU time per token"
        "<br>%{customdata[0]} of the step (%{customdata[1]}), busy %{customdata[2]}<extra></extra>",
    }


@dataclass(frozen=True, slots=True)
class Axis:
    """What a phase's frontier is drawn against: the key of its points, title, unit of the hover, kind of axis."""

    key: str
    title: str
    unit: str
    between: str  # what holds between two points: nothing is interpolated
    factor: float = 1.0
    kind: str = "linear"


AXES = {
    "decode": Axis("tokens_per_s_per_user", "tokens/s per user (interactivity)", "tokens/s per user", "vh"),
    "prefill": Axis("ttft_s", "time to first token (ms, logarithmic)", "ms to the first token", "hv", 1e3, "log"),
}
"""Phases that have a frontier."""


def frontier(
    frontiers: Rows, phase: str, colours: Mapping[int, str], limit: tuple[float, str] | None
) -> go.Figure | None:
    """Draw tokens per second per GPU against what a user feels: a line per wiring in its 90 % band, and the limit asked for.

    `limit` is a place on the axis, in the axis's unit, and what to write beside it.
    """
    axis = AXES[phase]
    chosen = [front for front in frontiers if front["phase"] == phase and front.get("points")]
    if not chosen:
        return None
    figure = go.Figure()
    chosen.sort(key=lambda front: int(front["domain"]))
    for front in chosen:
        points = sorted(front["points"], key=lambda point: float(point[axis.key]))
        if outline := fronts.around(points, axis.key, axis.between):
            figure.add_scatter(**_band(outline, axis, colours[front["domain"]]))
    for front in chosen:
        figure.add_scatter(**_front(front, axis, colours[front["domain"]]))
    figure.update_layout(**_layout(420, axis.title, "tokens/s per GPU (throughput)"))
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(type=axis.kind)
    if axis.kind == "log":
        figure.update_xaxes(tickvals=[digit * 10**power for power in range(-1, 6) for digit in (1, 2, 5)])
    if limit:
        _mark(figure, axis, *limit)
    return figure


def _mark(figure: go.Figure, axis: Axis, place: float, said: str) -> None:
    """Draw an upright line across the chart and write beside it what it is."""
    figure.add_vline(x=place, line=_MARK)
    at = math.log10(place) if axis.kind == "log" else place  # annotations count a logarithmic axis in decades
    figure.add_annotation(x=at, y=1, yref="paper", text=f" {said}", showarrow=False, xanchor="left", yanchor="top")


def _band(outline: Sequence[fronts.Place], axis: Axis, colour: str) -> dict[str, Any]:
    """Return the band about one wiring's line."""
    return {
        "x": [x * axis.factor for x, _ in outline],
        "y": [y for _, y in outline],
        "mode": "lines",
        "line": {"color": colour, "width": 0},
        "fill": "toself",
        "fillcolor": colour,
        "opacity": 0.16,
        "hoverinfo": "skip",
    }


def _front(front: Mapping[str, Any], axis: Axis, colour: str) -> dict[str, Any]:
    """Return one wiring's line."""
    points = sorted(front["points"], key=lambda point: float(point[axis.key]))
    return {
        "name": f"domain {front['domain']:,}",
        "x": [point[axis.key] * axis.factor for point in points],
        "y": [point["tokens_per_s_per_gpu"] for point in points],
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2.5, "shape": axis.between},
        "marker": {"size": 6},
        "customdata": [
            [words.split(p["strategy"]), words.rest_of(p["strategy"], brief=True), fronts.said(p) or "not measured"]
            for p in points
        ],
        "hovertemplate": "<b>%{fullData.name}: %{customdata[0]}</b><br>%{customdata[1]}"
        f"<br>%{{y:,.4~g}} tokens/s per GPU (90 %: %{{customdata[2]}})<br>%{{x:,.4~g}} {axis.unit}<extra></extra>",
    }


def memory(rows: Rows, hbm_bytes: float | None) -> go.Figure | None:
    """Draw what fills one GPU's memory: a bar per phase and wiring, with the memory's size as a line."""
    chosen = [row for row in feasible(rows) if row.get("memory_bytes")]
    if not chosen:
        return None
    chosen.sort(key=lambda row: list(words.PHASES).index(row["phase"]))
    names = list(dict.fromkeys(name for row in chosen for name in row["memory_bytes"]))
    colours = palette.of_memory(names)
    labels = [[words.PHASES[row["phase"]] for row in chosen], [f"{row['domain']:,}" for row in chosen]]
    figure = go.Figure()
    for name in names:
        gigabytes = [row["memory_bytes"].get(name, 0.0) / 1e9 for row in chosen]
        figure.add_bar(
            name=words.phrase(name),
            y=labels,
            x=gigabytes,
            orientation="h",
            marker={"color": colours[name], "line": {"color": "rgba(255,255,255,.55)", "width": 0.7}},
            customdata=[words.split(row["strategy"]) for row in chosen],
            hovertemplate=f"<b>{words.phrase(name)}</b>: %{{x:.3g}} GB<br>%{{y}}: %{{customdata}}<extra></extra>",
        )
    figure.update_layout(**_layout(80 + 34 * len(chosen), "GB per GPU"), barmode="stack", bargap=0.3)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    if hbm_bytes:
        note = {"annotation_text": f"HBM {words.scaled(hbm_bytes, 'B')}", "annotation_position": "top left"}
        figure.add_vline(x=hbm_bytes / 1e9, line=_MARK, **note)
    return figure


BOUNDS = {"compute": palette.COMPUTING[0], "memory": palette.FAMILIES[2][2][0], "launch": palette.FAMILIES[3][2][0]}
"""Colour of the operators that each part of the chip bounds."""
_ROOFS = ("#e08a1e", "#d6549b", "#8a7be0", "#8d9a3a")
_NAMED = 0.05  # share of a step from which an operator's name is written


def roofline(drawn: Mapping[str, Any]) -> go.Figure | None:
    """Draw FLOP/s reached against FLOP per byte of every operator that multiplies, under the roofs of its chip.

    `drawn` is a roofline of `podscale.reportparts`; the area of a dot is the operator's share of the step.
    """
    dots = [each for each in drawn["operators"] if each["reached"]]
    if not dots:
        return None
    figure = go.Figure()
    ends = [0.7 * min(dot["flops_per_byte"] for dot in dots), 1.6 * max(dot["flops_per_byte"] for dot in dots)]
    ends[1] = max(ends[1], 2.0 * max(drawn["roofs"].values()) / drawn["bandwidth"])
    for roof, colour in zip(sorted(set(drawn["roofs"].values())), cycle(_ROOFS), strict=False):
        knee = roof / drawn["bandwidth"]
        places = [min(ends[0], 0.5 * knee), knee, ends[1]]
        formats = ", ".join(name.upper() for name, peak in drawn["roofs"].items() if peak == roof)
        figure.add_scatter(
            name=f"roof of {formats}: {words.scaled(roof, 'FLOP/s')}, {words.scaled(drawn['bandwidth'], 'B/s')}",
            x=places,
            y=[min(roof, place * drawn["bandwidth"]) / 1e12 for place in places],
            mode="lines",
            line={"color": colour, "width": 1.8},
            hoverinfo="skip",
        )
    for bound, colour in BOUNDS.items():
        if chosen := [dot for dot in dots if dot["bound"] == bound]:
            figure.add_scatter(**_dots(chosen, bound, colour))
    figure.update_layout(**_layout(430, "FLOP per byte (logarithmic)", "TFLOP/s reached (logarithmic)"))
    figure.update_layout(hovermode="closest")
    digits = (1,) if ends[1] > 100.0 * ends[0] else (1, 2, 5)  # a phone has room for no more
    ticks = [digit * 10.0**power for power in range(-4, 8) for digit in digits]
    figure.update_xaxes(type="log", tickvals=ticks)
    figure.update_yaxes(type="log", tickvals=ticks)
    return figure


def _dots(operators: Rows, bound: str, colour: str) -> dict[str, Any]:
    """Return the operators that one part of the chip bounds; the page puts the names of `meta` where there is room."""
    names = [each["operator"] if each["share"] >= _NAMED else "" for each in operators]
    return {
        "name": f"bound by {bound}",
        "x": [each["flops_per_byte"] for each in operators],
        "y": [each["reached"] / 1e12 for each in operators],
        "mode": "markers+text",
        "meta": {"names": names},
        "text": [""] * len(names),
        "textfont": {"size": 12},
        "cliponaxis": False,
        "line": {"color": colour},
        "marker": {"color": colour, "size": [6 + 44 * math.sqrt(each["share"]) for each in operators]}
        | {"opacity": 0.75, "line": {"color": "rgba(255,255,255,.6)", "width": 0.7}},
        "customdata": [
            [
                each["operator"],
                each["format"].upper(),
                *map(words.percent, (each["share"], each["reached"] / each["roof"])),
            ]
            for each in operators
        ],
        "hovertemplate": "<b>%{customdata[0]}</b> (%{customdata[1]})<br>%{x:,.3~g} FLOP per byte<br>%{y:,.3~g} TFLOP/s, "
        "%{customdata[3]} of its roof<br>%{customdata[2]} of the step<extra></extra>",
    }
