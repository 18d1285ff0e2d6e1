"""A sweep in a terminal: the answer in words, the best of every group, the settings side by side, what refused the rest."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from podscale import words
from podscale.render import print_warnings
from podscale.tables import quantity, table

_CELLS = 24
_REASONS = 6
_FIXED = frozenset({"cell", "points", "feasible", "strategy", "infeasible", "regret"})


def draw_sweep(console: Console, document: Mapping[str, Any], *, quiet: bool = False) -> None:
    """Print the document of ``sweep --json``; `quiet` leaves out everything but the answer and the best."""
    console.print(Text(document["question"], style="dim"))
    console.print(Padding(Text(document["answer"], style="bold"), (1, 0, 0, 0)))
    if document["best"]:
        console.print(best_table(document))
    if quiet:
        return
    if len(document["cells"]) > 1:
        console.print(cells_table(document))
    console.print(Text(f"\n{counted(document)}"))
    for line in refused(document["rejected"]):
        console.print(Text(line, style="dim"))
    if document["poisoned"]:
        first = document["poisoned"][0]
        said = f"{words.plural(len(document['poisoned']), 'strategy')} failed, the first with {first['error']}: see `poisoned`"
        console.print(Text(said, style="yellow"))
    for line in regrets(document["cells"]):
        console.print(Text(line, style="dim"))
    print_warnings(console, (note for row in document["best"] for note in row.get("warnings") or ()))
    if document.get("out"):
        console.print(Text.assemble("Written: ", (str(document["out"]), "bold")), soft_wrap=True)
    if document.get("report"):
        console.print(Text.assemble("Report: ", (str(document["report"]), "bold")), soft_wrap=True)


def best_table(document: Mapping[str, Any]) -> Table:
    """Draw the best of every group."""
    best, varied = document["best"], _varied(document)
    keys = list(best[0]["group"])
    made = table(
        "Best of each", *keys, *varied, "split", document_rank(document), "time", left=("split", *keys, *varied)
    )
    for row in best:
        made.add_row(
            *(str(row["group"][key]) for key in keys),
            *(value_of(row["settings"].get(name)) for name in varied),
            f"{words.split(row['strategy'])} {words.rest_of(row['strategy'], brief=True)}".strip(),
            words.figures(row["rank"], 4),
            words.seconds(words.latency({"phase": row["settings"]["phase"], **row})[1]),
        )
    return made


def document_rank(document: Mapping[str, Any]) -> str:
    """Name what the best are ranked by: the last of the objectives.

    >>> document_rank({"objectives": {"interactivity": {}, "tokens_per_s_per_gpu": {}}})
    'tokens/s/GPU'
    """
    return words.phrase(list(document["objectives"])[-1])


def _varied(document: Mapping[str, Any]) -> list[str]:
    """Return the settings that differ between cells and name no group."""
    cells, groups = document["cells"], set(document["best"][0]["group"]) if document["best"] else set()
    rank = list(document["objectives"])[-1]
    names = [name for name in cells[0] if name not in _FIXED | {rank} | groups]
    return [name for name in names if len({str(cell.get(name)) for cell in cells}) > 1]


def value_of(value: Any) -> str:
    """Write a setting.

    >>> value_of(None), value_of(4096), value_of("400Gb/s")
    ('–', '4,096', '400Gb/s')
    """
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def cells_table(document: Mapping[str, Any]) -> Table:
    """Draw the cells: the settings that vary, and the best of each; the first ones, where there are many."""
    cells = document["cells"]
    rank = list(document["objectives"])[-1]
    groups = list(document["best"][0]["group"]) if document["best"] else []
    names = [*groups, *_varied(document)]
    shown = cells if len(cells) <= _CELLS else sorted(cells, key=lambda cell: -(cell[rank] or 0.0))[:_CELLS]
    title = "Every cell" if shown is cells else f"The first {_CELLS} of {len(cells):,} cells; --out FILE.csv has all"
    made = table(
        title,
        *names,
        document_rank(document),
        "split, or why there is none",
        left=(*names, "split, or why there is none"),
    )
    for cell in shown:
        made.add_row(
            *(value_of(cell.get(name)) for name in names),
            quantity(rank, cell[rank]) if words.known(cell[rank]) else "–",
            words.split(cell["strategy"]) if cell["strategy"] else str(cell["infeasible"]),
        )
    return made


def counted(document: Mapping[str, Any]) -> str:
    """Say how many strategies were looked at, how fast, and by whom.

    >>> counted({"points": 5_000_000, "priced": 1_000_000, "feasible": 10, "seconds": 2.0, "executor": "ray"})
    '5,000,000 strategies in 2 s (ray): 1,000,000 priced in full, 10 feasible; 500,000 priced per second'
    """
    rate = document["priced"] / document["seconds"] if document["seconds"] else 0.0
    return (
        f"{document['points']:,} strategies in {words.seconds(document['seconds'])} ({document['executor']}): "
        f"{document['priced']:,} priced in full, {document['feasible']:,} feasible; {rate:,.0f} priced per second"
    )


def refused(reasons: Mapping[str, int]) -> Iterable[str]:
    """Yield what refused the most strategies.

    >>> list(refused({"memory": 2, "the ranks suffice": 1000}))
    ['refused: 1,000 the ranks suffice', 'refused: 2 memory']
    """
    for name in sorted(reasons, key=lambda name: -reasons[name])[:_REASONS]:
        yield f"refused: {reasons[name]:,} {name}"


def regrets(cells: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """Yield what a sampled search may have missed.

    >>> list(regrets([{"regret": 0.02}, {"regret": 0.1}, {}]))
    ['sampled: the best of a cell may be 2% to 10% better (how far independent climbs disagree)']
    """
    found = sorted(cell["regret"] for cell in cells if cell.get("regret") is not None)
    if found:
        low, high = (words.percent(value) for value in (found[0], found[-1]))
        span = low if low == high else f"{low} to {high}"
        yield f"sampled: the best of a cell may be {span} better (how far independent climbs disagree)"
