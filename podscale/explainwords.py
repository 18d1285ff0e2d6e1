"""The tables of `podscale explain`: plain words first, then terms, wires, memory, and what would help."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from podscale import words
from podscale.render import print_warnings, reason
from podscale.tables import table

DETAILED: Final = 3
"""Terms whose inputs are shown without being asked for."""
OPERATORS: Final = 6
"""Operators that are shown of a term, of more."""
KINDS: Final[Mapping[str, str]] = {"strategy": "free", "software": "a switch", "hardware": "to buy"}
_UNITS: Final = ("B", "B/s", "FLOP", "FLOP/s")


def drawing(*, term: str | None, everything: bool, quiet: bool) -> Callable[[Console, dict[str, Any]], None]:
    """Return what prints a document of ``explain --json``, whole or one term of it."""

    def draw(console: Console, document: dict[str, Any]) -> None:
        if term is not None:
            _print_term(console, next(held for held in document["terms"] if held["name"] == term), whole=True)
        else:
            draw_explain(console, document, everything=everything, quiet=quiet)

    return draw


def draw_explain(
    console: Console, document: Mapping[str, Any], *, everything: bool = False, quiet: bool = False
) -> None:
    """Print an account."""
    phase = words.PHASES.get(document["phase"], document["phase"])
    what = " · ".join((document["model"], document["cluster"], document.get("engine") or phase))
    console.print(Text.assemble((words.split(document["strategy"]), "bold"), "  ", (what, "dim")))
    console.print(Text(words.rest_of(document["strategy"]), style="dim"))
    console.print()
    for sentence in document["said"]:
        console.print(Text(words.sentence(sentence)))
    console.print(_terms(document))
    shown = document["terms"] if everything else document["terms"][:DETAILED]
    for held in shown:
        _print_term(console, held, whole=everything)
    if document["bottleneck"]["wires"]:
        console.print(_wires(document["bottleneck"]["wires"]))
    console.print(_memory(document))
    for held in document["memory"] if everything else ():
        _print_inputs(console, words.phrase(held["name"]), held)
    _print_advice(console, document, everything=everything)
    _print_interval(console, document)
    if not quiet:
        print_warnings(console, document["warnings"])
        if len(document["rows"]) > 1:
            listed = ", ".join(document["rows"][:12]) + (" …" if len(document["rows"]) > 12 else "")
            console.print(Text(f"Rows of this result: {listed}", style="dim"))


def _terms(document: Mapping[str, Any]) -> Table:
    shown = table(
        "Where the time goes", "term", "exposed", "share", "busy", "bound by", "equation", left=("bound by", "equation")
    )
    for held in document["terms"]:
        cells = (words.seconds(held["seconds"]), words.percent(held["share"]), words.seconds(held["busy_s"]))
        shown.add_row(words.term(held["name"]), *cells, held["bound"] or "", Text(held["equation"]))
    shown.add_row("together", Text(words.seconds(document["seconds"]), style="bold"), "", "", "", "")
    return shown


def _print_term(console: Console, held: Mapping[str, Any], *, whole: bool) -> None:
    """Print one term: its equation, the inputs, the operators behind it, how far to trust it."""
    _print_inputs(console, words.term(held["name"]), held)
    operators = held["operators"] if whole else held["operators"][:OPERATORS]
    if operators:
        console.print(_operators(operators))
        if len(operators) < len(held["operators"]):
            left = words.plural(len(held["operators"]) - len(operators), "more operator")
            console.print(Text(f"and {left}: see --term {held['name']}", style="dim"))
    if held["collectives"]:
        console.print(_collectives(held["collectives"]))
    if whole:
        if held["interval"]:
            low, high = held["interval"]
            console.print(Text(f"90 % interval: {words.span(low, high)} ({held['interval_note']})", style="dim"))
        elif held["interval_note"]:
            console.print(Text(f"No interval: {held['interval_note']}", style="dim"))


def _print_inputs(console: Console, title: str, held: Mapping[str, Any]) -> None:
    shown = table(f"{title}  =  {held['equation']}", "", "value", "what it is", left=("what it is",))
    shown.show_header = False
    for symbol, given in held["inputs"].items():
        about = given["meaning"] + "".join(f"; {line}" for line in of_lines(given.get("of") or {}))
        shown.add_row(Text(symbol, style="bold"), value_said(given["value"], given["unit"]), Text(about))
    console.print(shown)
    note = f"{words.sentence(held['note'])}. " if held.get("note") else ""
    console.print(Text(f"{note}Source: {held['source']}", style="dim"))


def value_said(value: Any, unit: str) -> str:
    """Write an input, or one for each kind of layer.

    >>> value_said(1.5e-3, "s"), value_said([3, 58.0], ""), value_said(8e12, "B/s"), value_said(0.74, "")
    ('1.5 ms', '3, 58', '8 TB/s', '0.74')
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(value_said(each, unit) for each in value)
    if not words.known(value):
        return "∞" if value is None else str(value)
    if unit == "s":
        return words.seconds(value)
    return (
        words.scaled(value, unit)
        if unit in _UNITS and abs(value) >= 1e3
        else f"{words.figures(value, 4)} {unit}".rstrip()
    )


def of_lines(of: Mapping[str, Any]) -> Iterator[str]:
    """Write what an input is computed from.

    >>> list(of_lines({"size_bytes": 2e6, "members": [8.0, 64.0], "kernels": "normal", "dispatch_s": 1e-4}))
    ['2 MB', '8, 64 members by tier', 'kernels normal', 'dispatch 100 µs']
    """
    for name, value in of.items():
        if name == "size_bytes":
            yield value_said(value, "B")
        elif name == "members":
            yield f"{value_said(value, '')} members by tier"
        elif name == "equation":
            yield str(value)
        elif isinstance(value, Mapping):
            yield f"{words.phrase(name)}: {', '.join(of_lines(value))}"
        elif isinstance(value, list) and value and isinstance(value[0], str):
            yield f"{words.phrase(name)} {', '.join(value)}"
        else:
            yield f"{words.phrase(name)} {value_said(value, 's' if name.endswith('_s') else '')}"


def _operators(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("operator", "layers", "times", "m × n × k", "groups", "FLOP", "bytes", "a step", "bound by")
    shown = table("", *columns, left=("layers", "bound by"))
    for row in rows:
        shape = " × ".join(words.figures(row[key], 4) for key in ("m", "n", "k")) if "m" in row else ""
        groups = words.figures(row["groups"], 3) if row.get("groups", 1) != 1 else ""
        work = words.scaled(row["flops"], "") if row["flops"] else ""
        cells = (shape, groups, work, words.scaled(row["bytes"], "B"), words.seconds(row["seconds"]), row["bound"])
        shown.add_row(row["operator"], row["layers"], words.figures(row["times"], 4), *cells)
    return shown


def _collectives(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = table("", "collective", "software", "bytes", "members by tier", "times", "each", left=("software",))
    for row in rows:
        members = ", ".join(words.figures(each) for each in row["members"])
        cells = (
            words.scaled(row["bytes"], "B"),
            members,
            words.figures(row["times"], 4),
            words.seconds(row["seconds"]),
        )
        shown.add_row(words.phrase(row["op"]), row["regime"], *cells)
    return shown


def _wires(rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = table(
        "Wires under the step, busiest first",
        *("tier", "link", "in the graph", "per accelerator", "load", "twice as fast: step", "carries"),
        left=("link", "in the graph", "carries"),
    )
    for row in rows:
        nodes = ", ".join(f"{a} – {b}" for a, b in row["nodes"])
        carried = sorted(row["terms"], key=lambda name: -row["terms"][name])
        saved = f"−{words.percent(row['saved_by_twice'])}" if row["saved_by_twice"] > 5e-4 else "as it is"
        cells = (words.scaled(row["bandwidth_Bps"], "B/s"), words.percent(row["load"]), saved)
        shown.add_row(
            f"{row['tier']} ({row['plane']})", row["link"], nodes, *cells, ", ".join(map(words.term, carried))
        )
    return shown


def _memory(document: Mapping[str, Any]) -> Table:
    room = document["memory_capacity_bytes"]
    shown = table("Memory of one accelerator", "", "bytes", "share", "equation", left=("equation",))
    for held in document["memory"]:
        cells = (words.scaled(held["bytes"], "B"), words.percent(held["share"]), Text(held["equation"]))
        shown.add_row(words.phrase(held["name"]), *cells)
    together = sum(held["bytes"] for held in document["memory"])
    shown.add_row("together", Text(words.scaled(together, "B"), style="bold"), words.percent(together / room), "")
    return shown


def _price(row: Mapping[str, Any]) -> str:
    if row["kind"] != "hardware":
        return KINDS[row["kind"]]
    return words.dollars(row["price_usd"]) if row["price_usd"] is not None else "unknown"


def _print_advice(console: Console, document: Mapping[str, Any], *, everything: bool) -> None:
    """Print the changes that help, cheapest first; with `everything` all that were tried, and why not."""
    title = "All that was tried" if everything else "What would help, cheapest first"
    gained = "gain" if document.get("gain_of", "tokens/s") == "tokens/s" else f"gain: {document['gain_of']}"
    shown = table(title, "change", "price", "tokens/s/GPU", gained, "", left=("",))
    rows = document["tried"] if everything else document["advice"]
    for row in rows:
        about = row["reason"] or row["note"] or ("it runs then" if row["makes_it_run"] else "")
        gain = f"{row['gain'] * 100:+.1f}%" if row["gain"] is not None else "–"
        style = "" if row["helps"] else "dim"
        rate = words.figures(row["tokens_per_s_per_gpu"]) if row["tokens_per_s_per_gpu"] else "–"
        shown.add_row(Text(row["said"], style=style), _price(row), rate, gain, Text(about, style="dim"))
    if rows:
        console.print(shown)
    advised = {row["said"] for row in document["advice"]}
    dear = [
        row for row in document["tried"] if row["kind"] == "hardware" and row["helps"] and row["said"] not in advised
    ]
    if dear and not everything:
        said = "; ".join(f"{row['said']} {row['gain'] * 100:+.1f}%" for row in dear[:4])
        console.print(Text(f"Hardware would: {said}", style="dim"))


def _print_interval(console: Console, document: Mapping[str, Any]) -> None:
    if document.get("interval"):
        what = {"prefill": "TTFT", "decode": "TPOT", "train": "step"}.get(document["phase"], "time per token")
        note = f" ({document['interval_note']})" if document.get("interval_note") else ""
        console.print(Text(f"90 % interval of the {what}: {words.span(*document['interval'])}{note}", style="dim"))
    elif document.get("interval_note"):
        console.print(Text(f"No 90 % interval: {reason(document['interval_note'])}", style="dim"))
