"""Validation: price every measured case and print how far off the model is, row by row and group by group.

The predictions come from constants that were fitted to microbenchmarks (matrix products, collectives), never to
training runs; so each training row is out of sample.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters import kernels, measurements
from clusters.build import Cluster, build
from clusters.tunings import CONSTANTS as LINK_CONSTANTS
from clusters.tunings import tuning
from parallel import cases, scoring
from parallel.case_files import faults
from parallel.cases import Skip, TrainingCase
from parallel.models import Moe
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training import TrainJob, price
from topo.columns import Column
from topo.errors import Fault, SpecError

Json = Mapping[str, Any]
Progress = Callable[..., None]

NO_INTERVAL: Final = "no residuals of training runs are stored: the constants come from microbenchmarks"
OUT_OF_SAMPLE: Final = "no constant is fitted to training runs, so every row is out of sample as it stands"
RUNGS: Final = ("auto", "closed", "closed-form")
COLLECTIVES: Final = ("all_gather", "reduce_scatter", "send_recv")
"""What a training step asks of a link, beside the expert exchange."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a set scores.

    Attributes
    ----------
    metric : name of the figure, with its unit
    file : the shipped measurements
    measured : the measurement of a case, or None
    predicted : the model's figure for a priced block; takes the cases of its rows
    unmeasured : why a case without a measurement is a skip; empty where such a case is no row of the set
    """

    metric: str
    file: str
    measured: Callable[[Json], float | None]
    predicted: Callable[[Priced, list[Json]], Column]
    unmeasured: Callable[[Json], str]


def _held(priced: Priced, rows: list[Json]) -> Column:
    """Bytes per accelerator as the readings of the rows count them: with the reserve only on the device's own meter."""
    reserve = np.array([0.0 if cases.counts_reserve(row) else 1.0 for row in rows])
    return priced.memory_bytes - reserve * priced.memory["reserve"]


TARGETS: Final[Mapping[str, Target]] = {
    "training": Target(
        "step_time_s",
        "training_cases.json",
        cases.step_seconds,
        lambda priced, rows: priced.seconds,  # noqa: ARG005
        lambda case: "analytic figure" if case.get("kind") == "memory-only" else "no time measured",
    ),
    "memory": Target("peak_memory_bytes", "training_cases.json", cases.peak_bytes, _held, lambda case: ""),  # noqa: ARG005
}
"""Set -> what it scores."""

TABLES: Final[Mapping[str, str]] = {
    "gemm": "parallel.validation_gemm",
    "moe": "parallel.validation_moe",
    "collectives": "parallel.validation_collectives",
    "testbed": "parallel.validation_testbed",
}
"""Set of measured operators -> the module whose `score(file, progress)` scores it."""

LADDER: Final = ("testbed",)
"""Sets whose rows are priced on a wiring, at a rung of the fidelity ladder: their `score` takes both."""


def validate(
    set_name: str,
    file: str | Path | None = None,
    fidelity: str | None = None,
    topologies: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score the model against a set of measurements.

    Parameters
    ----------
    set_name : a key of `TARGETS` or `TABLES`
    file : anyone's own measurements in the schema of the shipped ones: ``.json`` cases, a ``.csv`` table, or their ``.gz``
    fidelity : for `LADDER`, a rung (by default the best); the others have closed forms only: ``auto``, ``closed`` or
        ``closed-form``
    topologies : for `LADDER`, the wirings (JSON) that the rows name; the rows of the others name their hardware
    progress : called as ``progress(done, total)``

    Returns
    -------
    dict
        `summary`, `groups`, `constants`, `leave_one_source_out`, `rows` and notes; errors are fractions.

    Raises
    ------
    SpecError
        An unknown set or rung, or a file that cannot be read or does not hold cases; every fault at once.
    """
    _check(set_name, fidelity, topologies)
    if set_name in LADDER:
        laddered: dict[str, Any] = import_module(TABLES[set_name]).score(file, progress, fidelity, topologies)
        return laddered
    if set_name in TABLES:
        scored: dict[str, Any] = import_module(TABLES[set_name]).score(file, progress)
        return scored
    target = TARGETS[set_name]
    document = _read(file, target)
    rows, priced = _rows(document, target, progress)
    figures, groups = scoring.summary(rows)
    return {
        "set": set_name,
        "file": str(file) if file is not None else target.file,
        "summary": figures,
        "groups": groups,
        "constants": _constants(priced),
        "leave_one_source_out": {"note": OUT_OF_SAMPLE, **figures},
        "skips": dict(cases.SKIPS),
        "rows": rows,
    }


def _check(set_name: str, fidelity: str | None, topologies: str | Path | None) -> None:
    """Raise SpecError with every wrong argument."""
    found, sets = [], (*TARGETS, *TABLES)
    if set_name not in sets:
        found.append(Fault("SET", set_name, "no such set of measurements", f"choose one of {', '.join(sets)}"))
    if set_name in LADDER:
        return
    if fidelity is not None and fidelity.replace(" ", "-").replace("_", "-") not in RUNGS:
        found.append(Fault("fidelity", fidelity, f"is no rung for {set_name}", f"choose one of {', '.join(RUNGS)}"))
    if topologies is not None:
        found.append(Fault("topologies", str(topologies), "rows of this set name their hardware", "leave it out"))
    if found:
        raise SpecError(found)


def _read(file: str | Path | None, target: Target) -> Json:
    """Return the cases of a file; SpecError if it cannot be read or is none."""
    name = str(file) if file is not None else target.file
    try:
        document = measurements.read_json(target.file if file is None else Path(file))
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as why:
        problem = f"cannot be read: {getattr(why, 'strerror', None) or why}"
        raise SpecError([Fault("FILE", name, problem, "give a .json or .json.gz of training cases")]) from None
    if found := faults(document, name):
        raise SpecError(found)
    held: Json = document
    return held


def _rows(
    document: Json, target: Target, progress: Progress | None
) -> tuple[list[dict[str, Any]], list[tuple[TrainingCase, Cluster]]]:
    """Rows in the order of the file, and the priced cases with their clusters."""
    rows: list[dict[str, Any]] = []
    blocks: dict[Any, list[tuple[int, Json, TrainingCase]]] = defaultdict(list)
    for case in document["cases"]:
        measured = target.measured(case)
        unmeasured = target.unmeasured(case)
        if measured is None and not unmeasured:
            continue
        row = _row(case, document, target, measured)
        rows.append(row)
        try:
            inputs = cases.training_case(case, document["models"], document["clusters"])
            if measured is None:
                raise Skip(unmeasured)
        except Skip as why:
            row["skipped_because"] = why.reason
            continue
        row["notes"] = list(inputs.notes)
        row["accelerator"] = inputs.cluster.accelerator
        key = (inputs.model.name, inputs.cluster, inputs.work)
        blocks[key].append((len(rows) - 1, case, inputs))
    priced = []
    for done, block in enumerate(blocks.values(), start=1):
        for index, value, cluster, inputs in _price(block, target):
            rows[index] |= {"predicted": value, "ape": scoring.ape(value, rows[index]["measured"])}
            rows[index]["interval_note"] = NO_INTERVAL
            priced.append((inputs, cluster))
        if progress is not None:
            progress(done, len(blocks))
    return rows, priced


def _row(case: Json, document: Json, target: Target, measured: float | None) -> dict[str, Any]:
    """Return a row as yet without a prediction."""
    entry = document["clusters"][case["cluster"]["ref"]]
    return {
        "id": case["id"],
        "metric": target.metric,
        "measured": measured,
        "predicted": None,
        "ape": None,
        "interval": None,
        "interval_note": None,
        "skipped_because": None,
        "group": cases.group(case, document["models"]),
        "model": case["model"].get("ref"),
        "accelerator": cases.accelerator(entry.get("gpu")) or entry.get("gpu"),
        "gpus": case["cluster"]["gpus"],
        "precision": case.get("precision"),
        "source": (case.get("source") or {}).get("name"),
        "notes": [],
    }


def _price(
    block: list[tuple[int, Json, TrainingCase]], target: Target
) -> Iterator[tuple[int, float, Cluster, TrainingCase]]:
    """Price the cases that share model, cluster and workload as one block of columns."""
    first = block[0][2]
    cluster = build(first.cluster)
    names = [name for name, _ in first.strategy]
    columns = Columns.of(**{name: [dict(inputs.strategy)[name] for _, _, inputs in block] for name in names})
    priced = price(TrainJob.of(first.model, cluster, first.work), columns)
    values = np.broadcast_to(target.predicted(priced, [case for _, case, _ in block]), (len(block),))
    for (index, _, inputs), value in zip(block, values, strict=True):
        yield index, float(value), cluster, inputs


def _constants(priced: list[tuple[TrainingCase, Cluster]]) -> dict[str, int]:
    """Count the fitted constants behind some predictions, each set once, however many parts borrow it."""
    jobs = {(inputs.work.precision, cluster.accelerator.name): (inputs, cluster) for inputs, cluster in priced}
    kernel_sets = set()
    for inputs, cluster in jobs.values():
        chip = TrainJob.of(inputs.model, cluster, inputs.work).chip
        kernel_sets |= {tuple(getattr(model, name) for name in kernels.CONSTANTS) for model in chip.kernels.values()}
    asked = set()
    for inputs, cluster in priced:
        routed = any(isinstance(kind.mlp, Moe) for kind in inputs.model.layers)
        for tier in cluster.tiers:
            asked |= {(tier.link, op, "nccl") for op in COLLECTIVES}
            asked |= {(tier.link, f"moe_{step}", "normal") for step in ("dispatch", "combine") if routed}
    links = {tuning(*key).model for key in asked}
    table = kernels.table()
    sources = {
        name if name in table["measured"] else table["fallback"].get(name, table["fallback"]["default"])["like"]
        for _, name in jobs
    }
    counts = {
        "kernels": len(kernels.CONSTANTS) * len(kernel_sets),
        "clocks": sum(table["measured"][name].get("sustained", 1.0) != 1.0 for name in sources),
        "links": len(LINK_CONSTANTS) * len(links),
    }
    return {"fitted": sum(counts.values()), **counts, "fitted_to_these_rows": 0}
