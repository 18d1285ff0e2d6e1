"""The tables of `podscale sensitivity`, `break-even`, `size` and `diff`: plain words first, then the figures."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from podscale import words
from podscale.claimwords import of_input
from podscale.tables import table

_ROWS: Final = 8
"""Rows of a difference, or sizes tried, that are shown of more; ``--json`` has them all."""
_LEAST: Final = 5e-4
"""Elasticities below this are not told one by one."""


def elasticity(value: float | None) -> str:
    """Write an elasticity.

    >>> elasticity(0.4321), elasticity(-0.1), elasticity(0.0), elasticity(None)
    ('+0.43', '-0.10', '0', '–')
    """
    if value is None or not words.known(value):
        return "–"
    return f"{value:+.2f}" if abs(value) >= _LEAST * 10 else "0"


def gain(value: float | None) -> str:
    """Write a gain.

    >>> gain(0.0442), gain(0.00001), gain(None)
    ('+4.4%', '0', '–')
    """
    if value is None or not words.known(value):
        return "–"
    return f"{value:+.1%}" if abs(value) >= _LEAST else "0"


def figure_value(value: float | None, dimension: str) -> str:
    """Write the value of a figure.

    >>> figure_value(8e12, "bandwidth"), figure_value(3.3e-07, "seconds"), figure_value(72.0, ""), figure_value(None, "")
    ('8 TB/s', '330 ns', '72', '–')
    """
    if value is None:
        return "–"
    return of_input(value, dimension)


def turned(strategy: Mapping[str, Sequence[Any]], most: int = 4) -> str:
    """Write what changed in a split.

    >>> turned({"ep": [64, 72], "batch": [320, 384]})
    'EP 64 → 72, batch 320 → 384'
    """
    said = [f"{words.phrase(name)} {_plain(before)} → {_plain(after)}" for name, (before, after) in strategy.items()]
    return ", ".join(said[:most]) + (" …" if len(said) > most else "")


def _plain(value: Any) -> str:
    return "–" if value is None else words.figures(value) if isinstance(value, float) else str(value)


def _print_head(console: Console, document: Mapping[str, Any]) -> None:
    """Print whose point this is, and the answer."""
    what = " · ".join(
        str(held)
        for held in (document["model"], document.get("cluster") or document.get("accelerator"), document["phase"])
        if held
    )
    strategy = document.get("strategy") or {}
    console.print(Text.assemble((words.split(strategy), "bold"), "  " if strategy else "", (what, "dim")))
    console.print(Padding(Text(document["answer"], style="bold"), (1, 0, 0, 0)))


# --- sensitivity -----------------------------------------------------------------------------------------------------


def print_sensitivity(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``sensitivity --json``: every figure by its gain, the account of the time, notes."""
    _print_head(console, document)
    anew = document["searched"]
    if anew and anew["over_point"] > 1.0005:
        better = f"{words.times(anew['over_point'])} as fast: {words.split(anew['strategy'])}"
        console.print(Text(f"A search finds a split {better}; gains are counted from it.", style="yellow"))
    if document["limit_broken"]:
        console.print(Text(f"Limit broken: {document['limit_broken']}", style="yellow"))
    console.print(_figures(document))
    _print_account(console, document)
    still = [row["title"] for row in document["rows"] if idle(row)]
    if still:
        console.print(Text(f"Without effect: {', '.join(still)}.", style="dim"))
    for row in document["rows"]:
        if row["notes"] and not idle(row):
            console.print(Text(f"{words.sentence(row['title'])}: {'; '.join(row['notes'])}", style="dim"))
    step, factor = document["step"], document["factor"]
    how = f"Held: central differences of {step:.2g} in the logarithm. Anew: from 1/{factor:g} to {factor:g} times. "
    how += "Costs: parts of the bill; per $1k: tokens/s. Worth: what the gain costs as more accelerators."
    console.print(Text(how, style="dim"))


def _figures(document: Mapping[str, Any]) -> Any:
    """Return the table of figures that matter: elasticities, the gain of a better one, what that costs and is worth."""
    rows = [row for row in document["rows"] if not idle(row)]
    cells = {
        "figure": [row["title"] for row in rows],
        "now": [figure_value(row["value"], row["dimension"]) for row in rows],
        "held": [elasticity(row["held"]) for row in rows],
        "anew": [elasticity(row["searched"]) for row in rows],
        "better": [figure_value(row["better"], row["dimension"]) for row in rows],
        "gain": [gain(row["gain"]) for row in rows],
        "costs": [_least(row, "≥") + words.dollars(row["price_usd"]) for row in rows],
        "per $1k": [_least(row, "≤") + _per_thousand(row["gain_tokens_per_s_per_usd"]) for row in rows],
        "worth per GPU": [
            words.dollars(row["worth_usd_per_accelerator"] if (row["gain"] or 0.0) > _LEAST else None) for row in rows
        ],
    }
    kept = {name: held for name, held in cells.items() if set(held) - {"–"}}
    shown = table("Per cent of throughput for one per cent of each figure, and what a better one gives", *kept)
    shown.columns[0].no_wrap = True
    for line in zip(*kept.values(), strict=True):
        shown.add_row(*line)
    return shown


def idle(row: Mapping[str, Any]) -> bool:
    """Whether a figure moves nothing.

    >>> idle({"held": 0.0, "searched": 0.0, "gain": None})
    True
    """
    return all(abs(row[name] or 0.0) < _LEAST for name in ("held", "searched", "gain"))


def _least(row: Mapping[str, Any], sign: str) -> str:
    return f"{sign} " if row["price_unknown"] and row["price_usd"] else ""


def _per_thousand(per_usd: float | None) -> str:
    return words.figures(1e3 * per_usd) if per_usd else "–"


def _print_account(console: Console, document: Mapping[str, Any]) -> None:
    """Print how the time divides among the rates and times of the cluster, and what is fixed."""
    held = document["account"]
    titles = {row["figure"]: row["title"] for row in document["rows"]}
    shares = sorted(held["shares"].items(), key=lambda pair: -abs(pair[1]))
    said = [f"{titles[name]} {words.percent(share)}" for name, share in shares if abs(share) >= _LEAST]
    said.append(f"fixed {words.percent(held['fixed'])}")
    console.print(Text(f"The time: {', '.join(said)}."))


# --- break-even ------------------------------------------------------------------------------------------------------


def print_break_even(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``break-even --json``: where the designs cross, and the ratio of their rates on the way."""
    _print_head(console, document)
    over, across = document["over"], document["across"]
    names = {key: document[key]["name"] for key in ("a", "b")}
    for curve in document["curves"]:
        at = f", {across['title']} {figure_value(curve['across'], across['dimension'])}" if across else ""
        if across and len(document["curves"]) > 1:
            continue
        shown = table(
            f"Tokens/s per GPU{at}", over["title"], f"A: {names['a']}", f"B: {names['b']}", "B over A", "ahead"
        )
        for point in curve["points"]:
            rates = (words.figures(point[key], 4) if point[key] else "–" for key in ("a", "b"))
            ahead = names.get(point["ahead"], point["ahead"])
            shown.add_row(figure_value(point["value"], over["dimension"]), *rates, words.times(point["ratio"]), ahead)
        console.print(shown)
    if across:
        console.print(_surface(document))
    console.print(Text("B may cost per GPU what A does times B over A: there they break even per dollar.", style="dim"))


def _curve(document: Mapping[str, Any]) -> Any:
    """Return the table of both designs over the figure."""
    over = document["over"]
    shown = table("Tokens/s per GPU", over["title"], "A", "B", "B over A", "ahead")
    for point in document["curves"][0]["points"]:
        rates = (words.figures(point[key], 4) if point[key] else "–" for key in ("a", "b"))
        at = figure_value(point["value"], over["dimension"])
        shown.add_row(at, *rates, words.times(point["ratio"]), _AHEAD[point["ahead"]])
    return shown


_AHEAD: Final = {"a": "A", "b": "B", "even": "even", "none": "neither runs"}


def _surface(document: Mapping[str, Any]) -> Any:
    """Return the table of break-evens over the second figure."""
    over, across = document["over"], document["across"]
    columns = (across["title"], f"{over['title']} of break-even", "below it", "above it", "B over A at both ends")
    shown = table("Where they break even", *columns)
    for curve in document["curves"]:
        ends = " … ".join(words.times(point["ratio"]) for point in (curve["points"][0], curve["points"][-1]))
        at = figure_value(curve["across"], across["dimension"])
        for found in curve["break_evens"]:
            place = figure_value(found["value"], over["dimension"])
            shown.add_row(at, place, _AHEAD[found["before"]], _AHEAD[found["after"]], ends)
        if not curve["break_evens"]:
            shown.add_row(at, "never", *[_AHEAD[curve["always"]]] * 2, ends)
    return shown


# --- size ------------------------------------------------------------------------------------------------------------


def print_size(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``size --json``: the cluster, its split, its bill, and the sizes that were tried."""
    _print_head(console, document)
    unknown = sorted({part for parts in document["unknown"].values() for part in parts})
    pairs = {
        "accelerators": f"{document['accelerators']:,}",
        "tokens/s": words.figures(document["tokens_per_s"], 4),
        "tokens/s per GPU": words.figures(document["tokens_per_s_per_gpu"], 4),
        "days": words.figures(document["days"]) if document["days"] else "",
        "power of the parts": words.scaled(document["power_W"], "W"),
        "price of the parts": words.dollars(document["price_usd"]),
        "per million tokens": f"${document['usd_per_million_tokens']:.3g}"
        if document["usd_per_million_tokens"]
        else "–",
    }
    shown = table("", "", "")
    shown.show_header = False
    for name, value in pairs.items():
        if value:
            shown.add_row(name, Text(value, style="bold"))
    console.print(shown)
    tried = table("Sizes tried", "GPUs", "tokens/s", "power", "price", "why not", left=("why not",))
    near = sorted(document["trials"], key=lambda row: abs(row["accelerators"] - document["accelerators"]))[:_ROWS]
    for row in sorted(near, key=lambda row: int(row["accelerators"])):
        chosen = row["accelerators"] == document["accelerators"]
        cells = (
            words.figures(row["tokens_per_s"], 4) if row["tokens_per_s"] else "–",
            words.scaled(row["power_W"], "W"),
            words.dollars(row["price_usd"]),
            "" if chosen else (row["short"] or "larger, or no faster"),
        )
        shown_size = Text(f"{row['accelerators']:,}", style="bold green" if chosen else "")
        tried.add_row(shown_size, *cells)
    console.print(tried)
    if unknown:
        said = f"Parts without a public figure, left out of the sums: {', '.join(unknown)}. "
        console.print(Text(said + "Hosts, storage and cooling are not in them.", style="dim"))
    if not document["monotone"]:
        console.print(Text("More accelerators are not always faster here: batches have to divide.", style="yellow"))


# --- difference ------------------------------------------------------------------------------------------------------


def print_difference(console: Console, document: Mapping[str, Any]) -> None:
    """Print the document of ``diff --json``: inputs that differ, rates, and the terms that account for them."""
    for line in document["said"]:
        console.print(Text(line, style="bold"))
    if document["inputs"]:
        asked = table("Asked differently", "field", "A", "B", left=("A", "B"))
        for row in document["inputs"][: 2 * _ROWS]:
            asked.add_row(row["field"], *(Text(_short(row[key])) for key in ("a", "b")))
        console.print(asked)
    rates = table("Tokens/s per GPU", "row", "A", "B", "B over A", "split", left=("split",))
    for row in document["rows"][:_ROWS]:
        split = turned(row["strategy"]) or "the same"
        cells = (words.figures(row[key], 4) if row[key] else "–" for key in ("a", "b"))
        rates.add_row(_row_name(row), *cells, words.times(row["ratio"]), row["feasibility"] or split)
    console.print(rates)
    for row in [row for row in document["rows"] if row["terms"] and abs(row["ratio"] - 1.0) > _LEAST][: _ROWS // 2]:
        _print_terms(console, row)
    for name, said in (("a", "first"), ("b", "second")):
        for held in document["only"][name][:_ROWS]:
            told = " ".join(str(value) for value in held.values() if value is not None)
            console.print(Text(f"Only in the {said}: {told}", style="dim"))


def _row_name(row: Mapping[str, Any]) -> str:
    return " ".join(str(value) for value in row["row"].values() if value not in (None, "")) or "–"


def _print_terms(console: Console, row: Mapping[str, Any]) -> None:
    """Print which terms account for a row's change."""
    shown = table(f"{_row_name(row)}: time of one GPU per token", "term", "A", "B", "change", "share of it")
    for held in row["terms"]:
        if held["share"] is None or abs(held["share"]) < 0.005:
            continue
        shares = words.percent(held["share"])
        cells = (words.seconds(held["a"]), words.seconds(held["b"]), words.seconds(held["change"]), shares)
        shown.add_row(words.term(held["term"]), *cells)
    console.print(shown)


def _short(value: Any, most: int = 40) -> str:
    said = "–" if value is None else str(value)
    return said if len(said) <= most else said[: most - 1] + "…"
