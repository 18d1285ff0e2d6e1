"""`podscale validate`: the error tables, on the measurements that ship with podscale or on your own file."""

from difflib import get_close_matches
from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

SETS = ("training", "memory", "serving", "collectives", "moe", "gemm", "testbed")


def validate(
    set_name: Annotated[str, typer.Argument(metavar="SET", help=f"What to score: {', '.join(SETS)}.")],
    file: Annotated[str | None, typer.Argument(help="Your measurements [default: those shipped]")] = None,
    *,
    fidelity: Annotated[str | None, typer.Option(help="Rung of the fidelity ladder [default: the best]")] = None,
    topologies: Annotated[str | None, typer.Option(help="Wirings that the measurements name (JSON).")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score the predictions against measurements: errors, bias, coverage of the intervals, skips with reasons."""
    if set_name not in SETS:
        near = get_close_matches(set_name, SETS, n=1)
        remedy = f"write {near[0]}" if near else f"choose one of {', '.join(SETS)}"
        raise SpecError([Fault("SET", set_name, "no such set of measurements", remedy)])
    from parallel.validation.sets import validate as run

    door = Door(as_json, quiet)
    with door.progress(f"scoring {set_name}") as progress:
        document = run(set_name, file=file, fidelity=fidelity, topologies=topologies, progress=progress)
    from podscale.tables import draw_validation

    door.answer(document, draw_validation)
