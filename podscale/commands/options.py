"""Flags that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no notes, only the answer.")]

Result = Annotated[
    str,
    typer.Argument(
        metavar="SCENARIO_OR_RESULT",
        help="A scenario (YAML), or what train, serve, compare (--json) or sweep (--out) wrote.",
    ),
]
ResultRow = Annotated[
    str | None,
    typer.Argument(metavar="[ROW]", help="A row of it: its number, or words such as `decode 72`. Default: the best."),
]
Plot = Annotated[str | None, typer.Option(metavar="FILE", help="Draw it: a file that ends in .svg or .html.")]
