"""`podscale break-even`: where one design of a cluster stops beating another."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Plot, Quiet, Result, ResultRow
from podscale.door import Door
from topo.errors import Fault, SpecError

Design = Annotated[
    list[str], typer.Option(metavar="FIELD=VALUE", help="A field of the cluster file: domain=72. Can be repeated.")
]


def breakeven(
    result: Result,
    row: ResultRow = None,
    *,
    a: Design,
    b: Design,
    over: Annotated[
        str, typer.Option(metavar="FIGURE=LOW..HIGH", help="The figure that runs: oversubscription=1..16.")
    ],
    across: Annotated[
        str | None, typer.Option(metavar="FIGURE=LOW..HIGH", help="A second figure: a curve for each of its values.")
    ] = None,
    grid: Annotated[int, typer.Option(help="Values of the figure, before bisection.")] = 9,
    rows: Annotated[int, typer.Option(help="Values of the second figure.")] = 5,
    tolerance: Annotated[float, typer.Option(help="Width of the bracket around a break-even, as a share.")] = 0.01,
    margin: Annotated[float, typer.Option(help="Ahead by no more than this is even.")] = 0.005,
    plot: Plot = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the value of a figure at which one design stops beating another; both are searched anew at every value."""
    from parallel.explain.read import read_point
    from parallel.questions.breakeven import axis, break_even

    door = Door(as_json, quiet)
    if plot is not None:
        from podscale.questionplots import check

        check(plot)
    point, _ = read_point(result, row)
    designs = {name: fields(given, f"--{name}") for name, given in (("a", a), ("b", b))}
    axes = (axis(over, "--over"), axis(across, "--across") if across else None)
    with door.progress("searching both designs") as progress:
        found = break_even(
            point, designs["a"], designs["b"], *axes,
            grid=grid, rows=rows, tolerance=tolerance, margin=margin, progress=progress,
        )  # fmt: skip
    document = {"result": result, **found}
    if plot is not None:
        from podscale.questionplots import draw_break_even, write

        document["plot"] = str(write(draw_break_even(document), plot))
    from podscale.questionwords import print_break_even

    door.answer(document, print_break_even)


def fields(written: list[str], flag: str) -> dict[str, str]:
    """Read ``FIELD=VALUE``, dotted paths of a cluster file; a comma parts several.

    >>> fields(["domain=8", "scale_out.nic=800Gb/s"], "--a")
    {'domain': '8', 'scale_out.nic': '800Gb/s'}
    """
    out: dict[str, str] = {}
    faults = []
    for text in (part for one in written for part in one.split(",")):
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            faults.append(Fault(flag, text, "sets nothing", "write FIELD=VALUE, such as domain=72"))
        out[name.strip()] = value.strip()
    if faults:
        raise SpecError(faults)
    return out
