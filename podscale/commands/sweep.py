"""`podscale sweep`: every strategy of every cell of a file, and what is worth keeping of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import INFEASIBLE, Door, plain
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from parallel.sweeps.plan import Sweep


def sweep(
    spec: Annotated[Path, typer.Argument(help="Sweep file; `podscale new sweep` writes one to start from.")],
    *,
    executor: Annotated[str, typer.Option(help="Where it runs: auto, serial or ray.")] = "auto",
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster: auto, or ray://host:port or host:port.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the answer here: .json in full, .csv or .parquet one line per cell.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an earlier, stopped run of the same file finished.")
    ] = False,
    state: Annotated[Path, typer.Option(help="Folder for what is finished.")] = Path(".podscale/sweeps"),
    report: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report here.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Do not run it: measure rates, and say what it takes here and on more cores.")
    ] = False,
    budget: Annotated[
        int | None, typer.Option(help="Price at most this many strategies of each cell, and estimate the regret.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sweep strategies, workloads and the cluster itself: the best of each, the front, what refused the rest."""
    from dataclasses import replace

    from parallel.executors import choose
    from parallel.executors.store import Store
    from parallel.sweeps.answer import sweep as run
    from parallel.sweeps.specfile import read_sweep
    from parallel.sweeps.tables import FORMATS, write

    choose(executor, 0)
    if out is not None and out.suffix not in FORMATS:
        raise SpecError([Fault("--out", str(out), "is of no known form", f"end it in {', '.join(FORMATS)}")])
    door = Door(as_json, quiet)
    asked = read_sweep(spec)
    if budget is not None:
        asked = replace(asked, budget=budget)
    if plan:
        return _plan(asked, door, quiet=quiet)
    store = Store(asked.fingerprint, state)
    if not resume:
        store.clear()
    try:
        with door.progress("pricing strategies") as progress:
            document = run(asked, executor, progress, store, address)
    except KeyboardInterrupt:
        if store.path.exists():
            typer.echo(f"podscale: what is finished is kept in {store.path}; add --resume to go on", err=True)
        raise
    document = plain(document)
    if out is not None:
        document["out"] = str(write(document, out))
    if report is not None:
        from podscale.sweepreport import write as write_report

        document["report"] = str(write_report(document, report))
    from podscale.sweepwords import draw_sweep

    door.answer(document, lambda console, doc: draw_sweep(console, doc, quiet=quiet))
    if not document["feasible"]:
        raise typer.Exit(INFEASIBLE)
    return None


def _plan(asked: "Sweep", door: Door, *, quiet: bool) -> None:
    """Answer what a sweep takes instead of running it."""
    from parallel.sweeps.capacity import capacity
    from podscale.capacitywords import draw_capacity

    with door.progress("measuring"):
        document = capacity(asked)
    door.answer(document, lambda console, doc: draw_capacity(console, doc, quiet=quiet))
