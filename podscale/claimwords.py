"""The claims for a reader: numbers with their units, the table of all rows, one claim with everything beside it."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from podscale import words
from podscale.tables import table

SIGNS = {"about": "≈", "at least": "≥", "at most": "≤"}
"""What a claim says of its number."""
COLOURS = {"holds": "green", "holds on these parts only": "yellow", "does not hold": "red"}
_LONG = ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"))


def times(seconds: float) -> str:
    """Write a time that may be long.

    >>> times(0.02), times(300.0), times(3600.0 * 22), times(86400.0 * 4)
    ('20 ms', '5 min', '22 h', '4 days')
    """
    if seconds < 2.0 * _LONG[-1][0]:
        return words.seconds(seconds)
    unit, name = next(row for row in _LONG if seconds >= 2.0 * row[0] or row is _LONG[-1])
    return f"{words.figures(seconds / unit)} {name}"


_UNITS: dict[str, Callable[[float], str]] = {
    "s": times,
    "share": words.percent,
    "times": lambda number: f"{words.figures(number)}×",
    "B": lambda number: words.scaled(number, "B"),
    "USD": words.dollars,
}
"""How numbers of a unit are written."""
_DIMENSIONS = {"bandwidth": "B/s", "bytes": "B", "flops": "FLOP/s", "power": "W"}
_LARGE = 1e6
_THOUSANDS = 1e4


def value(number: Any, unit: str) -> str:
    """Write a number of a claim.

    >>> value(0.02, "s"), value(0.113, "share"), value(8.0, "times"), value(1800.0, "B"), value(1000.0, "USD")
    ('20 ms', '11%', '8×', '1.8 kB', '$1k')
    """
    if not words.known(number):
        return "–" if number is None else str(number)
    return _UNITS[unit](number) if unit in _UNITS else f"{words.figures(number)} {unit}"


def of_input(number: Any, dimension: str) -> str:
    """Write an input by its dimension.

    >>> of_input(8e12, "bandwidth"), of_input(0.05, "seconds"), of_input("gb200", ""), of_input(1.5e14, "")
    ('8 TB/s', '50 ms', 'gb200', '150 T')
    """
    if not words.known(number):
        return str(number)
    if dimension == "seconds":
        return words.seconds(number)
    if dimension in _DIMENSIONS:
        return words.scaled(number, _DIMENSIONS[dimension])
    return words.scaled(number, "").strip() if number >= _LARGE else words.figures(number)


def tick(number: float, unit: str) -> str:
    """Write a value along an axis; a unit that is a word stands at the end of the axis instead (see `axis_unit`).

    >>> tick(0.02, "s"), tick(200e3, "tokens"), tick(5.0, "years")
    ('20 ms', '200k', '5')
    """
    if not axis_unit(unit):
        return value(number, unit)
    return words.scaled(number, "").replace(" ", "") if number >= _THOUSANDS else words.figures(number)


def axis_unit(unit: str) -> str:
    """Return what stands at the end of an axis: nothing where every value carries its unit.

    >>> axis_unit("tokens"), axis_unit("s")
    ('tokens', '')
    """
    return "" if unit in _UNITS else unit


def input_name(name: str) -> str:
    """Write the name of an input as words.

    >>> input_name("kv_bytes"), input_name("monthly_tokens")
    ('KV bytes', 'monthly tokens')
    """
    return words.phrase(name.replace("_", " "))


def expected(row: Mapping[str, Any]) -> str:
    """Write what the source says.

    >>> expected({"relation": "about", "expected": 0.02, "unit": "s"})
    '≈ 20 ms'
    """
    return f"{SIGNS[row['relation']]} {value(row['expected'], row['unit'])}"


def draw_claims(console: Console, document: Mapping[str, Any]) -> None:
    """Print every row, by the part of the blackboard: expected, simple, full, verdict; below them the claim and its note."""
    console.print(_line("claim", "source", "simple", "full", "verdict"), style="bold")
    part = None
    for row in document["rows"]:
        if row["item"] != part:
            part = row["item"]
            console.print(f"\n[bold cyan]{part} · {document['items'][str(part)]}[/]")
        numbers = (expected(row), value(row["simple"], row["unit"]), value(row["full"], row["unit"]))
        console.print(_line(row["id"], *numbers, row["verdict"]), style=COLOURS[row["verdict"]], markup=False)
        console.print(Padding(escape(row["claim"]), (0, 0, 0, 2)))
        if row["note"]:
            console.print(Padding(escape(row["note"]), (0, 0, 0, 2)), style="dim")
    counts = {name: sum(row["verdict"] == name for row in document["rows"]) for name in COLOURS}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"\n{len(document['rows'])} claims: {said}.")
    console.print("`podscale claim ID` runs one, --set NAME=VALUE changes its inputs, --plot FILE draws it.")


def _line(name: str, stated: str, simple: str, full: str, said: str) -> str:
    """Set a row's name, numbers and verdict in columns."""
    return f"{name:<20}{stated:>20}{simple:>19}{full:>19}  {said}"


def draw_claim(console: Console, document: Mapping[str, Any]) -> None:
    """Print one claim: what it says, both answers, its cases, inputs, sensitivity, and its table."""
    row = document["rows"][0]
    console.print(f"[bold]{escape(row['claim'])}[/]\n[dim]{escape(row['source'])}[/]\n")
    console.print(f"{words.sentence(row['quantity'])}: {expected(row)}, within a factor of {row['tolerance']:g}")
    told = [("simple", "the lecture's arithmetic"), ("full", "the whole model")]
    for name, what in told:
        console.print(f"  {name:<7}{value(row[name], row['unit']):>12}  {what}")
    console.print(f"[{COLOURS[row['verdict']]}]{row['verdict']}[/]  {escape(row['note'])}")
    console.print(escape(sensitivity(document)))
    if row["cases"]:
        cases = table("Cases", row["over"], "simple", "full", "holds", "", left=("",))
        for one in row["cases"]:
            mark = "yes" if one["holds"] else "no"
            shown = (value(one["simple"], row["unit"]), value(one["full"], row["unit"]), mark, escape(one["why"]))
            cases.add_row(of_input(one["value"], row["over_dimension"]), *shown)
        console.print(cases)
    _inputs(console, document)
    for details in document["details"]:
        _details(console, details)


def sensitivity(document: Mapping[str, Any]) -> str:
    """Say which input moves the whole model's answer most.

    >>> sensitivity({"moves_most": {"input": "hour", "full": -1.0}})
    'Most sensitive to hour: one per cent more of it moves the answer of the whole model by -1.00 %.'
    """
    moved = document["moves_most"]
    if moved is None:
        return "No number among the inputs moves the answer of the whole model."
    name, by = input_name(moved["input"]), moved["full"]
    return f"Most sensitive to {name}: one per cent more of it moves the answer of the whole model by {by:+.2f} %."


def _inputs(console: Console, document: Mapping[str, Any]) -> None:
    """Print the inputs, and how far each moves the answers: their elasticity."""
    moves = {moved["input"]: moved for moved in document["sensitivity"]}
    made = table(
        "Inputs, and per cent of the answer for one per cent of each",
        "input",
        "value",
        "simple",
        "full",
        "",
        left=("",),
    )
    for held in document["inputs"]:
        moved = moves.get(held["name"], {})
        shown = [f"{moved[name]:+.2f}" if words.known(moved.get(name)) else "" for name in ("simple", "full")]
        made.add_row(held["name"], of_input(held["value"], held["dimension"]), *shown, escape(held["says"]))
    console.print(made)


def _details(console: Console, details: Mapping[str, Any]) -> None:
    """Print the table beside a claim."""
    names = list(details["rows"][0])
    made = table(words.sentence(details["title"]), *map(words.phrase, names))
    for row in details["rows"]:
        made.add_row(*(_cell(name, row[name]) for name in names))
    console.print(made)


def _cell(name: str, held: Any) -> str:
    """Write a cell by the suffix of its column."""
    if not words.known(held):
        return "–" if held is None else str(held)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return words.seconds(held)
    return words.scaled(held, "") if held >= _LARGE else words.figures(held)
