"""`podscale size`: the smallest cluster for a demand, or the most throughput for a budget."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet, Result, ResultRow
from podscale.door import Door
from topo.errors import Fault, SpecError


def size(
    result: Result,
    row: ResultRow = None,
    *,
    tokens_per_s: Annotated[float | None, typer.Option(help="Tokens per second that the cluster has to make.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on, such as 15e12; goes with --days.")] = None,
    days: Annotated[float | None, typer.Option(help="Days to train on them.")] = None,
    power: Annotated[str | None, typer.Option(help="The most that the parts may draw: 2MW.")] = None,
    price: Annotated[str | None, typer.Option(help="The most that the parts may cost: 100M (dollars).")] = None,
    most: Annotated[int, typer.Option(help="Accelerators up to which clusters are tried.")] = 131_072,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the smallest cluster of the same kind that meets a demand, or the fastest within a budget, and its split."""
    from parallel.explain.read import read_point
    from parallel.questions.sizing import Wish
    from parallel.questions.sizing import size as run

    door = Door(as_json, quiet)
    budgets = _sums({"power": power, "price": price})
    wish = Wish(tokens_per_s, tokens, days, budgets["power"], budgets["price"], most)
    point, _ = read_point(result, row)
    with door.progress("searching sizes") as progress:
        document = {"result": result, **run(point, wish, progress)}
    from podscale.questionwords import print_size

    door.answer(document, print_size)


def _sums(texts: dict[str, str | None]) -> dict[str, float | None]:
    """Read watts and dollars; the faults of both come in one error."""
    from clusters.units import parse_quantity

    found, faults = dict[str, float | None](), list[Fault]()
    for name, text in texts.items():
        try:
            found[name] = None if text is None else parse_quantity(text, name)
        except ValueError as error:
            faults.append(Fault(f"--{name}", text, str(error).rstrip(".")))
    if faults:
        raise SpecError(faults)
    return found
