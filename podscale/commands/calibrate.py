"""`podscale calibrate`: constants fitted to your own measurements, written as a file that the other commands obey."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door, Progress
from topo.errors import Fault, SpecError


def _gemm(file: Path, out: Path, progress: Progress | None) -> dict[str, Any]:
    """Fit matrix products."""
    from clusters.calibration.gemm import calibrate_file

    return calibrate_file(file, out, progress)


KINDS: dict[str, Callable[[Path, Path, Progress | None], dict[str, Any]]] = {"gemm": _gemm}
"""What can be fitted -> the function that fits a file of it and writes the constants."""


def calibrate(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What was measured: {', '.join(KINDS)}.")],
    file: Annotated[Path, typer.Argument(help="Your measurements, in the schema of `podscale validate`.")],
    out: Annotated[Path, typer.Option(help="Where the constants go (YAML).")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit the constants of the model to your own measurements and write them with their residuals."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        remedy = f"write {near[0]}" if near else f"choose one of {', '.join(KINDS)}"
        raise SpecError([Fault("KIND", kind, "nothing of that kind to fit", remedy)])
    door = Door(as_json, quiet)
    with door.progress(f"fitting {kind}") as progress:
        document = KINDS[kind](file, out, progress)
    from podscale.tables import draw_calibration

    door.answer(document, draw_calibration)
