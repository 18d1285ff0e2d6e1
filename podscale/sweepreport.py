"""The report of a sweep: one HTML file that needs nothing else, neither the network nor podscale.

What is best and where it flips stands in words at the top; below, a heat map per model and phase, fronts, the best splits,
what refused the rest, every cell in a table that sorts, and what it all rests on. No script but the table's.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from podscale import __version__, frontplot, palette, render, words
from podscale import fronts as fronted
from podscale.door import plain
from podscale.report import environment, write_page
from podscale.sweepgrid import Grid, axis, bends, flips, grids, panel_title, setting, slower_for, summary, verdict
from podscale.sweepwords import counted, refused, regrets

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_PANELS = 12
_MOST_LINES = 2000
_NO_COLUMN = frozenset({"cell", "strategy", "infeasible"})


def write(document: Mapping[str, Any], path: str | Path) -> Path:
    """Write the report of a sweep and return where it stands; the folder is made.

    Parameters
    ----------
    document : the document of ``sweep --json``

    Raises
    ------
    SpecError
        If the place cannot be written to.
    """
    return write_page(html(document), path)


def html(document: Mapping[str, Any]) -> str:
    """Return the report of a sweep as one HTML text."""
    document = plain(document)
    made = grids(document)
    page: str = _template().render(
        version=__version__,
        document=document,
        title=words.sentence(words.phrase(document["name"])),
        rank=words.phrase(list(document["objectives"])[-1]),
        answer=summary(made),
        heads=[head(grid) for grid in made],
        tables=[flip_table(phase, kin) for phase, kin in _by_phase(made).items()],
        maps=[heat_map(grid) for grid in made if len(grid.cells) > 1 and not grid.flat],
        flat=[f"{grid.model} {words.PHASES[grid.phase]}" for grid in made if grid.flat],
        remarks=list(remarks(made)),
        fronts=list(fronts(document, made)),
        best=best_rows(document),
        refused=reasons(document["rejected"]),
        unfit=list(unfit(document)),
        lines=lines(document),
        counted=counted(document),
        regrets=list(regrets(document["cells"])),
        assumptions=list(assumptions(document)),
        intervals=render.interval_lines({"phase": row["settings"]["phase"], **row} for row in document["best"]),
        warnings=list(dict.fromkeys(note for row in document["best"] for note in row.get("warnings") or ())),
    )
    return page


@cache
def _template() -> Any:
    """Load the page, once."""
    found = environment(_TEMPLATES)
    found.globals.update(axis=axis, setting=setting, refused_line=refused)
    return found.get_template("sweep.html.j2")


def head(grid: Grid) -> dict[str, Any]:
    """Return what a card at the top says: the model, the phase, the verdict, and a bar per wiring."""
    rates = {row: [value for place in grid.places if (value := grid.value(row, *place))] for row in grid.rows}
    most = max((max(values) for values in rates.values() if values), default=1.0)
    colours = _colours(grid)
    bars = [
        {
            "name": setting(grid.axes[0], row) if row is not None else "",
            "colour": colours[row],
            "low": min(values) / most if values else 0.0,
            "high": max(values) / most if values else 0.0,
            "said": _range(values),
        }
        for row, values in rates.items()
    ]
    return {"model": grid.model, "phase": words.PHASES[grid.phase], "verdict": verdict(grid), "bars": bars}


def _range(values: Sequence[float]) -> str:
    """Write the least and the most.

    >>> _range([1.0, 2.0]), _range([3.0]), _range([])
    ('1–2', '3', 'cannot run')
    """
    if not values:
        return "cannot run"
    low, high = (words.figures(value) for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _colours(grid: Grid) -> dict[Any, str]:
    """Return a colour per wiring, in the order of rows."""
    return {row: palette.WIRINGS[place % len(palette.WIRINGS)] for place, row in enumerate(grid.rows)}


def _by_phase(made: Sequence[Grid]) -> dict[str, list[Grid]]:
    """Return the grids with something to compare, by phase and shape, so that one table holds alike panels."""
    found: dict[str, list[Grid]] = defaultdict(list)
    for grid in made:
        if len(grid.rows) > 1 and len(grid.columns) > 1 and not grid.flat:
            found[grid.phase].append(grid)
    return found


def flip_table(phase: str, kin: Sequence[Grid]) -> dict[str, Any]:
    """Return where wirings start and stop to matter, for the models of a phase."""
    first = kin[0]
    return {
        "phase": words.PHASES[phase],
        "base": f"{axis(first.axes[0])} {setting(first.axes[0], first.rows[0])}",
        "along": axis(first.axes[1]),
        "panels": [
            panel_title(first, panel) or words.sentence(axis(first.axes[1])) for panel in first.panels[:_MOST_PANELS]
        ],
        "models": [
            {"model": grid.model, "rows": [row | {"panels": row["panels"][:_MOST_PANELS]} for row in flips(grid)]}
            for grid in kin
        ],
    }


def heat_map(grid: Grid) -> dict[str, Any]:
    """Return the panels of a model and phase: figures, and how much better each is than the first wiring."""
    most = max((abs(math.log(ratio)) for row in grid.rows for ratio in grid.ratios(row)), default=0.0)
    scale = min(max(most, math.log(1.25)), math.log(3.0))
    panels = [
        {
            "title": panel_title(grid, panel),
            "rows": [(row, [_heat(grid, row, column, panel, scale) for column in grid.columns]) for row in grid.rows],
        }
        for panel in grid.panels[:_MOST_PANELS]
    ]
    return {
        "title": f"{grid.model}, {words.PHASES[grid.phase]}",
        "grid": grid,
        "panels": panels,
        "more": max(0, len(grid.panels) - _MOST_PANELS),
        "base": f"{axis(grid.axes[0])} {setting(grid.axes[0], grid.rows[0])}" if len(grid.rows) > 1 else "",
    }


def _heat(grid: Grid, row: Any, column: Any, panel: tuple[Any, ...], scale: float) -> dict[str, Any]:
    """Return a cell of a heat map: `heat` is from -1 (worse than the first wiring) to 1 (better)."""
    cell, ratio = grid.cells.get((row, column, panel)), grid.ratio(row, column, panel)
    value = cell[grid.rank] if cell else None
    if cell is None or value is None:
        return {"value": None, "heat": 0.0, "times": "", "why": cell["infeasible"] if cell else "not part of the sweep"}
    first = row == grid.rows[0]
    return {
        "value": words.figures(value),
        "heat": 0.0 if ratio is None or first else max(-1.0, min(1.0, math.log(ratio) / scale)),
        "times": "" if first or ratio is None else words.times(ratio),
        "why": f"{words.split(cell['strategy'])} {words.rest_of(cell['strategy'], brief=True)}".strip(),
    }


def remarks(made: Sequence[Grid]) -> Iterator[str]:
    """Yield what looks odd in the maps and why it is so."""
    slower, idle = (sum(counts) for counts in zip(*map(slower_for, made), strict=True)) if made else (0, 0)
    if slower:
        said = f"In {words.plural(slower, 'cell')} a larger domain is slower than the smallest"
        yield (
            f"{said}; in {idle} of them its best split leaves part of every domain idle. Groups of powers of two do not fill "
            "a domain such as 72: they idle some of it, or straddle domains and leaf switches and pay the thin links above."
        )
    if steps := sum(map(bends, made)):
        yield (
            f"In {words.plural(steps, 'step')} a more oversubscribed fabric is faster. It is another tree of the same switches: "
            "with fewer ports up, a leaf has more ports down, so a wide group of experts stays below it; and where a latency "
            "limit binds, batches move in steps."
        )


def fronts(document: Mapping[str, Any], made: Sequence[Grid]) -> Iterator[dict[str, str]]:
    """Yield the fronts that have a shape: of every model and phase with two objectives, a line per wiring."""
    names = list(document["objectives"])[:2]
    if len(names) != 2:
        return
    for grid in made:
        rows = [
            row
            for row in document["front"]
            if (row["settings"]["model"], row["settings"]["phase"]) == (grid.model, grid.phase)
        ]
        drawn = _joined(_front_lines(grid, rows, names))
        if any(len(line.points) > 2 for line in drawn):
            yield {
                "title": f"{grid.model}, {words.PHASES[grid.phase]}",
                "svg": frontplot.picture(
                    drawn,
                    frontplot.titles(document["objectives"], names),
                    more=document["objectives"][names[0]]["more"],
                ),
                "lines": [(line.name, line.colour) for line in drawn],  # type: ignore[dict-item]
            }


def _joined(drawn: Iterator[frontplot.Line]) -> list[frontplot.Line]:
    """Return lines of which none is another again: such have all names and one colour."""
    same: dict[tuple[tuple[float, float], ...], list[frontplot.Line]] = defaultdict(list)
    for line in drawn:
        same[tuple(point[:2] for point in line.points)].append(line)
    return [replace(lines[0], name=", ".join(line.name for line in lines)) for lines in same.values()]


def _front_lines(grid: Grid, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterator[frontplot.Line]:
    colours = _colours(grid)
    for wiring, colour in colours.items():
        mine = [row for row in rows if row["settings"].get(grid.axes[0]) == wiring or wiring is None]
        if mine:
            points = [(row[names[0]], row[names[1]], _point(grid, row, names)) for row in mine]
            name = f"{axis(grid.axes[0])} {setting(grid.axes[0], wiring)}" if wiring is not None else "front"
            yield frontplot.Line(name, colour, points, _outline(mine, names))


def _outline(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[float, float]]:
    """Return the outline of the band about a front of throughput against interactivity; other pairs have none drawn."""
    if tuple(names) != ("interactivity", fronted.RATE):
        return []
    return fronted.around(sorted(rows, key=lambda row: float(row[names[0]])), names[0], "vh")


def _point(grid: Grid, row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Say what a point of a front is."""
    where = [f"{axis(name)} {setting(name, row['settings'][name])}" for name in (*grid.axes[2], grid.axes[1]) if name]
    figures = [f"{words.figures(row[name])} {words.phrase(name)}" for name in names]
    split = f"{words.split(row['strategy'])} {words.rest_of(row['strategy'], brief=True)}"
    return ", ".join([split.strip(), *figures, *where])


def best_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the best of every group, with where its time goes; those of one model and phase stand together."""
    found = []
    kinds = list(dict.fromkeys((cell["model"], cell["phase"]) for cell in document["cells"]))
    for row in sorted(
        document["best"], key=lambda row: kinds.index((row["settings"]["model"], row["settings"]["phase"]))
    ):
        kind = {"phase": row["settings"]["phase"], **row}
        name, seconds = words.latency(kind)
        found.append(
            {**row, "time_name": name, "time": seconds, "where": words.shares(row.get("terms") or {})[:3]}
            | {
                "fabric": {
                    key: row["settings"][key]
                    for key in varied(document)
                    if key not in row["group"] and key in row["settings"]
                }
            }
        )
    return found


def varied(document: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between cells.

    >>> varied({"cells": [{"cell": 0, "domain": 8, "nic": 1}, {"cell": 1, "domain": 72, "nic": 1}], "objectives": {"x": {}}})
    ['domain']
    """
    rank = list(document["objectives"])[-1]
    skip = {*_NO_COLUMN, "points", "feasible", "regret", rank}
    names = dict.fromkeys(name for cell in document["cells"] for name in cell if name not in skip)
    return [name for name in names if len({str(cell.get(name)) for cell in document["cells"]}) > 1]


def reasons(rejected: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return the reasons of refusal, most frequent first, with their share of the most frequent."""
    most = max(rejected.values(), default=1)
    return [
        {"reason": name, "count": count, "share": count / most}
        for name, count in sorted(rejected.items(), key=lambda item: -item[1])
    ]


def unfit(document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield why whole cells are infeasible, and how many."""
    yield from Counter(cell["infeasible"] for cell in document["cells"] if cell["infeasible"]).most_common(10)


def lines(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of cells: names of the settings that vary, and a row per cell."""
    rank = list(document["objectives"])[-1]
    names = varied(document)
    shown = document["cells"][:_MOST_LINES]
    return {
        "names": names,
        "rank": rank,
        "rows": [
            {
                "values": [(cell.get(name), setting(name, cell[name]) if name in cell else "–") for name in names],
                "rate": cell[rank],
                "feasible": cell["feasible"],
                "split": f"{words.split(cell['strategy'])} {words.rest_of(cell['strategy'], brief=True)}"
                if cell["strategy"]
                else None,
                "why": cell["infeasible"],
            }
            for cell in shown
        ],
        "left": len(document["cells"]) - len(shown),
    }


def assumptions(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what all of the best rest on: fields of workload and cluster that do not vary, with their values."""
    points, vary = [row["point"] for row in document["best"]], varied(document)
    held: dict[str, dict[str, None]] = defaultdict(dict)
    for point in points:
        side = "train" if point["phase"] == "train" else "serve"
        for section in ("cluster", side):
            for name, value in _flat(point[section]):
                held[f"{section}.{name}"][value] = None
    same = ((name, next(iter(values))) for name, values in held.items() if len(values) == 1)
    yield from ((name, value) for name, value in same if name.partition(".")[2] not in vary)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested values by dotted names.

    >>> list(_flat({"a": {"b": 1.5}, "c": None, "d": True}))
    [('a.b', '1.5'), ('d', 'yes')]
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield f"{prefix}{name}", "yes" if value else "no"
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(str, value))
        elif value is not None:
            said = (
                words.figures(value, 4)
                if isinstance(value, float)
                else f"{value:,}"
                if isinstance(value, int)
                else str(value)
            )
            yield f"{prefix}{name}", said
