"""A capacity plan in a terminal: what was measured, and what follows for many cores, each with what it rests on."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from podscale import words
from podscale.tables import table

_LONG = ((86400.0, "days"), (3600.0, "h"), (60.0, "min"))


def draw_capacity(console: Console, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Print the document of ``sweep --plan``; `quiet` leaves out what was measured of each kind of cell."""
    if not document["lines"]:
        console.print(Text("No cell of this sweep can be built; a run says why of each.", style="bold"))
        return
    console.print(lines_table(document))
    if not quiet and len(document["kinds"]) > 1:
        console.print(kinds_table(document))


def lines_table(document: Mapping[str, Any]) -> Table:
    """Draw the lines of the plan."""
    made = table(f"Capacity of {document['name']}", "", "value", "", "rests on", left=("", "rests on"))
    for line in document["lines"]:
        made.add_row(line["name"], figure(line["value"], line["unit"]), line["how"], line["rests_on"])
    return made


def kinds_table(document: Mapping[str, Any]) -> Table:
    """Draw what was measured of every model and workload."""
    made = table(
        "Measured of one cell of each kind",
        *("kind", "cells", "strategies", "left by pruning", "units", "pruning", "a unit", "priced of a unit"),
        left=("kind",),
    )
    for kind in document["kinds"]:
        counts = (figure(kind[name]) for name in ("cells", "points", "left", "units"))
        spent = (figure(kind[name], "s") for name in ("prune_s", "unit_s"))
        made.add_row(kind["name"], *counts, *spent, figure(kind["priced"]))
    return made


def figure(value: float, unit: str = "") -> str:
    """Write a figure of the plan with its unit.

    >>> figure(1630.0, "B"), figure(0.7, "share"), figure(16200.0, "s"), figure(45.0), figure(3.0256e12)
    ('1.63 kB', '70%', '4.5 h', '45', '3.03 × 10¹²')
    """
    if unit == "B":
        return words.scaled(value, "B")
    if unit == "share":
        return words.percent(value)
    if unit == "s":
        return duration(value)
    power = len(f"{value:.0f}") - 1
    said = f"{value / 10**power:.3g} × 10{str(power).translate(_RAISED)}" if power > 8 else words.figures(value)
    return f"{said} {unit}".strip()


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def duration(seconds: float) -> str:
    """Write a time as it is waited for.

    >>> duration(0.0363), duration(356.9), duration(1e6)
    ('36.3 ms', '5.95 min', '11.6 days')
    """
    return next((f"{seconds / long:.3g} {name}" for long, name in _LONG if seconds >= 2 * long), words.seconds(seconds))
