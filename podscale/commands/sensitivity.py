"""`podscale sensitivity`: how far each figure of the cluster moves throughput, and what to buy next."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Plot, Quiet, Result, ResultRow
from podscale.door import Door


def sensitivity(
    result: Result,
    row: ResultRow = None,
    *,
    search: Annotated[
        bool, typer.Option(help="Search the split anew at every changed figure, beside holding it.")
    ] = True,
    step: Annotated[float, typer.Option(help="Central differences go this far to both sides.")] = 0.001,
    factor: Annotated[float, typer.Option(help="What a purchase makes of a figure: 1.25 is a quarter better.")] = 1.25,
    plot: Plot = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Move every figure of the cluster by itself: elasticity of throughput, the gain of a quarter more, what it is worth."""
    from parallel.explain.read import read_point
    from parallel.questions.sensitivity import sensitivity as run

    door = Door(as_json, quiet)
    if plot is not None:
        from podscale.questionplots import check

        check(plot)
    point, _ = read_point(result, row)
    with door.progress("moving figures") as progress:
        document = {"result": result, **run(point, step=step, factor=factor, search=search, progress=progress)}
    if plot is not None:
        from podscale.questionplots import draw_sensitivity, write

        document["plot"] = str(write(draw_sensitivity(document), plot))
    from podscale.questionwords import print_sensitivity

    door.answer(document, print_sensitivity)
