"""One factor for an installation: how much longer measured steps take than predicted ones, from runs of one's own.

A cluster's software versions, clocks and fabric differ from those that the shipped constants saw. They shift all steps of
an installation together, so that one run says something of the others (`one_run_given` of `podscale validate training`): as much
of it is carried over as installations differ more than runs of one do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clusters.calibration.residuals import residuals, significant, write_yaml
from clusters.software import document as document_of
from clusters.software import training_constants
from parallel.validation.cases import Skip, step_seconds, training_case
from parallel.validation.training import carried
from parallel.validation.training_rows import Rows, rows_of
from topo.columns import Column
from topo.errors import Fault, SpecError

HEADER = "Written by podscale calibrate training; copy `software` into a training scenario."


def factor(measured_s: Column, predicted_s: Column, between: float, within: float) -> float:
    """Return the median of measured over predicted seconds, to the power that carries over to runs not seen (`carried`).

    >>> factor(np.array([1.1, 2.4, 3.0]), np.array([1.0, 2.0, 3.0]), 0.01, 0.0)
    1.1
    >>> round(factor(np.array([1.21]), np.array([1.0]), 0.01, 0.01), 4)  # √1.21
    1.1
    """
    return float(np.median(measured_s / predicted_s) ** carried(between, within, len(measured_s)))


def calibrate_file(file: Path, out: Path, progress: Callable[..., None] | None = None) -> dict[str, Any]:
    """Fit the factor to the runs of a file, and write it as the `software` section of a scenario.

    Parameters
    ----------
    file : runs in the schema of ``training_cases.json``, as `podscale validate training` takes them
    out : where the section goes (YAML)

    Raises
    ------
    SpecError
        The file cannot be read, or none of its runs can be priced: every reason.
    """
    from parallel.validation.sets import read_cases

    document = read_cases(file)
    rows = rows_of(document)
    if not rows.cases:
        raise SpecError(_reasons(document, str(file)))
    predicted = rows.predicted_s(training_constants())
    spread = document_of()["installation"]
    share = carried(spread["between"], spread["within"], len(rows.cases))
    found = significant(factor(rows.measured_s, predicted, spread["between"], spread["within"]))
    whole = significant(float(np.median(rows.measured_s / predicted)))
    stated = {"training": {"installation": residuals(found * predicted, rows.measured_s)}}
    write_yaml({"software": {"installation": found}, "residuals": stated}, out, HEADER)
    if progress is not None:
        progress(1, 1)
    return {
        "out": str(out),
        "constants": {"installation": found},
        "residuals": stated,
        "runs": _told(rows, predicted, found),
        "notes": [
            f"steps take {whole} times as long as predicted",
            f"to the power of {share:.2f} this carries over to other runs; write software: {{installation: {found}}}",
            f"an installation unlike those measured (its own stack, a slower fabric) may carry all: {{installation: {whole}}}",
        ],
    }


def _told(rows: Rows, predicted: Column, found: float) -> list[dict[str, Any]]:
    """Each run with what was measured, and predicted before and after."""
    return [
        {"id": case["id"], "measured": seconds, "predicted": before, "installed": found * before}
        for case, seconds, before in zip(rows.cases, rows.measured_s.tolist(), predicted.tolist(), strict=True)
    ]


def _reasons(document: Any, file: str) -> list[Fault]:
    """Why no run of a file can be priced, run by run."""
    faults = []
    for case in document["cases"]:
        try:
            training_case(case, document["models"], document["clusters"])
            why = "has no step time" if step_seconds(case) is None else "cannot be priced"
        except Skip as skip:
            why = skip.reason
        faults.append(Fault(f"cases.{case['id']}", None, why, "complete the run, or take another", file))
    return faults or [Fault("cases", [], "holds no run", "write at least one", file)]
