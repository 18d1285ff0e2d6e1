"""Measured training runs as blocks that price together, and how they are split for cross-validation."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster, build
from clusters.software import TrainingConstants
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.training.layer import TrainJob
from parallel.training.step import price
from parallel.validation import case_software, cases
from parallel.validation.cases import Json, Skip, TrainingCase

FOLDS: Final = 4
"""Parts of the cross-validation. A configuration family (source, model, sequence, cluster, accelerators, precision) lies
whole in one of them, so that releases of one configuration never stand on both sides."""


@dataclass(frozen=True)
class Block:
    """Cases that share model, cluster and workload: one call prices them. `rows` are their places in the list."""

    rows: npt.NDArray[np.intp]
    inputs: tuple[TrainingCase, ...]
    cluster: Cluster
    columns: Columns

    @classmethod
    def of(cls, rows: Sequence[int], inputs: Sequence[TrainingCase]) -> "Block":
        """Build the cluster and the columns of cases that belong together."""
        names = [name for name, _ in inputs[0].strategy]
        columns = Columns.of(**{name: [dict(case.strategy)[name] for case in inputs] for name in names})
        return cls(np.array(rows, dtype=np.intp), tuple(inputs), build(inputs[0].cluster), columns)

    def price(self, fitted: TrainingConstants | None = None) -> Priced:
        """Price the block, with the shipped constants unless others are given."""
        first = self.inputs[0]
        return price(TrainJob.of(first.model, self.cluster, first.work, fitted), self.columns)


@dataclass(frozen=True)
class Rows:
    """The cases of a document that can be priced and have a measured step, in its order."""

    cases: list[Json] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    measured_s: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def predicted_s(self, fitted: TrainingConstants, which: Sequence[bool] | None = None) -> npt.NDArray[np.float64]:
        """Price all rows, or those of some blocks (the others come back as nan)."""
        out = np.full(len(self.cases), np.nan)
        for index, block in enumerate(self.blocks):
            if which is None or which[index]:
                out[block.rows] = block.price(fitted).seconds
        return out


def rows_of(document: Json) -> Rows:
    """Return the rows of a document of training cases."""
    found: list[Json] = []
    together: dict[Any, list[tuple[int, TrainingCase]]] = defaultdict(list)
    measured: list[float] = []
    for case in document["cases"]:
        seconds = cases.step_seconds(case)
        if seconds is None:
            continue
        try:
            inputs = cases.training_case(case, document["models"], document["clusters"])
        except Skip:
            continue
        together[(inputs.model.name, inputs.cluster, inputs.work)].append((len(found), inputs))
        found.append(case)
        measured.append(seconds)
    blocks = [Block.of([row for row, _ in held], [inputs for _, inputs in held]) for held in together.values()]
    return Rows(found, blocks, np.array(measured))


def source_of(case: Json) -> str:
    """Return the source that a case is left out with.

    >>> source_of({"source": {"name": "MLPerf Training v5.1"}})
    'MLPerf'
    """
    return case_software.family(case["source"]["name"]).name


def folds(found: Sequence[Json]) -> npt.NDArray[np.intp]:
    """Return the part of the cross-validation that each case lies in: families in their order of name, dealt out in turn."""
    keys = [
        "|".join(
            str(part)
            for part in (
                source_of(case),
                case["model"].get("ref"),
                case["model"].get("seq"),
                case["cluster"].get("ref"),
                case["cluster"].get("gpus"),
                case.get("precision"),
            )
        )
        for case in found
    ]
    place = {key: index % FOLDS for index, key in enumerate(sorted(set(keys)))}
    return np.array([place[key] for key in keys], dtype=np.intp)
