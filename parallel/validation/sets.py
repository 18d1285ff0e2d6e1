"""Validation: price every measured case and print how far off the model is, row by row and group by group.

A shipped training run is priced with constants that have not seen its configuration: those of the part of the
cross-validation that it lies in (`parallel.calibration.training`). Anyone's own runs get the shipped constants.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters import kernels, measurements, software
from clusters.build import Cluster
from clusters.tunings import CONSTANTS as LINK_CONSTANTS
from clusters.tunings import tuning
from parallel.models import Moe
from parallel.precision import recipe
from parallel.priced import Priced
from parallel.roofline import chip
from parallel.training import footprint
from parallel.validation import case_software, cases, scoring
from parallel.validation.case_files import faults
from parallel.validation.cases import Skip, TrainingCase
from parallel.validation.training_rows import Block
from topo.columns import Column
from topo.errors import Fault, SpecError

Json = Mapping[str, Any]
Progress = Callable[..., None]

NO_INTERVAL: Final = "no residuals of such runs are stored"
NO_MEMORY_FIT: Final = "no constant is fitted to memory readings, so every row is out of sample as it stands"
UNSEEN: Final = "the constants were fitted to the shipped runs, not to these rows"
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
    """Bytes per accelerator as the readings of the rows count them.

    What the allocator hands out; what it reserves beyond (`footprint.SLACK`); or all that the device's own meter shows.
    """
    slack = np.array([footprint.SLACK if cases.counts_slack(row) else 0.0 for row in rows])
    reserve = np.array([1.0 if cases.counts_reserve(row) else 0.0 for row in rows])
    handed_out = priced.memory_bytes - priced.memory["reserve"]
    return handed_out * (1.0 + slack) + reserve * priced.memory["reserve"]


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
    "gemm": "parallel.validation.gemm",
    "moe": "parallel.validation.moe",
    "serving": "parallel.validation.serving",
    "collectives": "parallel.validation.collectives",
    "testbed": "parallel.validation.testbed",
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
    out = {
        "set": set_name,
        "file": str(file) if file is not None else target.file,
        "constants": _constants(priced, set_name, shipped=file is None),
        "skips": dict(cases.SKIPS),
        "leave_one_source_out": {"note": NO_MEMORY_FIT if set_name == "memory" else UNSEEN},
        "rows": rows,
    }
    if set_name == "training":
        out |= _training(document, rows, shipped=file is None)
    figures, groups = scoring.summary(rows)
    return {**out, "summary": figures, "groups": groups}


def _training(document: Json, rows: list[dict[str, Any]], *, shipped: bool) -> dict[str, Any]:
    """Give the rows their intervals; price shipped ones with constants that have not seen them, and score that."""
    from parallel.validation import training as validation_training
    from parallel.validation import training_rows

    found = training_rows.rows_of(document)
    scored = [row for row in rows if row["predicted"] is not None]
    held = validation_training.regimes(found)
    figures = scoring.score(scored)
    if shipped:
        for row, case, seconds in zip(scored, found.cases, validation_training.by_part(found), strict=True):
            row |= {"predicted": float(seconds), "ape": scoring.ape(float(seconds), row["measured"])}
            row["not_fitted"] = case_software.set_aside(case)
    for row, case, name in zip(scored, found.cases, held, strict=True):
        source = training_rows.source_of(case) if shipped else "all"
        row["interval"] = software.interval(row["predicted"], name, source)
        row["interval_note"] = None if row["interval"] else NO_INTERVAL
    return {"in_sample": figures, **validation_training.blocks(found, scored)} if shipped else {}


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


def read_cases(file: str | Path) -> Json:
    """Return the training cases of a file; SpecError if it cannot be read or holds none."""
    return _read(file, TARGETS["training"])


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
        blocks[(inputs.model.name, inputs.cluster, inputs.work)].append((len(rows) - 1, case, inputs))
    priced = []
    for done, held in enumerate(blocks.values(), start=1):
        block = Block.of([index for index, _, _ in held], [inputs for _, _, inputs in held])
        values = np.broadcast_to(target.predicted(block.price(), [case for _, case, _ in held]), (len(held),))
        for index, inputs, value in zip(block.rows, block.inputs, values.tolist(), strict=True):
            rows[index] |= {"predicted": value, "ape": scoring.ape(value, rows[index]["measured"])}
            rows[index]["interval_note"] = NO_INTERVAL
            priced.append((inputs, block.cluster))
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


def _constants(priced: list[tuple[TrainingCase, Cluster]], set_name: str, *, shipped: bool) -> dict[str, int]:
    """Count the constants behind some predictions, each set once, however many parts borrow it."""
    jobs = {(inputs.work.precision, cluster.accelerator.name): (inputs, cluster) for inputs, cluster in priced}
    kernel_sets = set()
    for inputs, cluster in jobs.values():
        used = chip(cluster.accelerator, recipe(inputs.work.precision, training=True))
        kernel_sets |= {tuple(getattr(model, name) for name in kernels.CONSTANTS) for model in used.kernels.values()}
    asked = set()
    for inputs, cluster in priced:
        routed = any(isinstance(kind.mlp, Moe) for kind in inputs.model.layers)
        for tier in cluster.tiers:
            asked |= {(tier.link, op, "nccl") for op in COLLECTIVES}
            asked |= {(tier.link, f"moe_{step}", "normal") for step in ("dispatch", "combine") if routed}
    links = {tuning(*key).model for key in asked}
    training = software.document() if priced and set_name == "training" else {"spread": {}, "frozen": {}}
    counts = {
        "kernels": len(kernels.CONSTANTS) * len(kernel_sets),
        "links": len(LINK_CONSTANTS) * len(links),
        "training": len(training["spread"]),
    }
    frozen = {"training_frozen": len(training["frozen"]), "fitted_to_these_rows": counts["training"] if shipped else 0}
    return {"fitted": sum(counts.values()), **counts, **frozen}
