"""`podscale list`: what can be named."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

Rows = list[dict[str, Any]]


def _catalogue(kind: str) -> Callable[[], Rows]:
    """Return the reader of one kind of the catalogue."""

    def read() -> Rows:
        from clusters.build import list_rows

        return [dict(row) for row in list_rows(kind)]

    return read


def _models() -> Rows:
    """List the models that can be named."""
    from parallel.io import model_rows

    return [dict(row) for row in model_rows()]


def _algorithms() -> Rows:
    """List the collective algorithms of every operation."""
    from collectives.algorithms import ALGORITHMS

    return [
        {"name": f"{operation}/{name}", "operation": operation, "algorithm": name, **_told(algorithm)}
        for operation, algorithms in ALGORITHMS.items()
        for name, algorithm in algorithms.items()
    ]


def _schedules() -> Rows:
    """List the pipeline schedules."""
    from collectives.pipelines import SCHEDULES

    return [{"name": name, **_told(schedule)} for name, schedule in SCHEDULES.items()]


def _told(entry: Any) -> dict[str, str]:
    """Return what a table's entry says about itself."""
    return {field: str(getattr(entry, field)) for field in ("note", "source") if getattr(entry, field, "")}


KINDS: dict[str, Callable[[], Rows]] = {
    "accelerators": _catalogue("accelerators"),
    "systems": _catalogue("systems"),
    "fabrics": _catalogue("fabrics"),
    "economics": _catalogue("economics"),
    "memories": _catalogue("memories"),
    "models": _models,
    "algorithms": _algorithms,
    "schedules": _schedules,
}


def listing(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")] = "systems",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List what can be named: accelerators, systems, fabrics, economics, memories, models, algorithms, schedules."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        remedy = f"write {near[0]}" if near else f"choose one of {', '.join(KINDS)}"
        raise SpecError([Fault("KIND", kind, "nothing of that kind to list", remedy)])
    from podscale.tables import draw_rows

    Door(as_json, quiet).answer({"kind": kind, "rows": KINDS[kind]()}, draw_rows)
