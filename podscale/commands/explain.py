"""`podscale explain`: a result turned into an account, term by term, with the link that stops it and what would help."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet, Result, ResultRow
from podscale.door import Door
from topo.errors import Fault, SpecError


def explain(
    result: Result,
    row: ResultRow = None,
    term: Annotated[
        str | None, typer.Option(help="Show one term alone: every input, every operator. A name such as `ep`.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show the inputs of every term, and every change that was tried.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Explain a result: where its time and memory go, which link stops it, and what would help, re-priced."""
    from parallel.explain.account import explain as account
    from parallel.explain.answered import explain_answer, read_answer
    from parallel.explain.read import read_point
    from parallel.explain.served import explain_served, read_served

    door = Door(as_json, quiet)
    with door.progress("pricing it again, and what could be changed"):
        if served := read_served(result):
            document = {"result": result, **explain_served(served), "rows": []}
        elif answer := read_answer(result):
            document = {"result": result, **explain_answer(answer), "rows": []}
        else:
            point, rows = read_point(result, row)
            document = {"result": result, **account(point), "rows": rows}
    if term is not None:
        _check(term, [held["name"] for held in document["terms"]])
    from podscale.explainwords import drawing

    door.answer(document, drawing(term=term, everything=everything, quiet=quiet))


def _check(term: str, known: list[str]) -> None:
    """Refuse a term that the result does not have."""
    from difflib import get_close_matches

    if term not in known:
        near = get_close_matches(term, known, 1)
        remedy = f"did you mean {near[0]}" if near else f"choose one of {', '.join(known)}"
        raise SpecError([Fault("--term", term, "is no term of this result", remedy)])
