"""Fit the constants of training software to measured runs: `python -m parallel.calibration.training [--out FILE]`.

Minimised is Σ w·ρ(log(predicted/measured)) + Σ (log(c/c₀)/`PRIOR`)², ρ the soft-L1 loss at `SCALE`: few rows cannot
carry a constant far from its value in `FREE`; the search begins at the constants of the data file. A source of n rows weighs √n.
Each step solves the linearised problem (Gauss-Newton with damping) on finite differences, for which only the rows that a
constant can move are priced again.

Beside the constants of all rows, those of each part of the cross-validation and of each source left out are stored, so
that `podscale validate training` can score every row with constants that have not seen it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import significant, write_yaml
from clusters.measurements import read_json
from clusters.software import FILE, document, kin, varied
from parallel.models import Moe
from parallel.precision import RECIPES
from parallel.validation import case_software
from parallel.validation import training as validation_training
from parallel.validation.training_rows import FOLDS, Block, Rows, folds, rows_of, source_of

FREE: Final[Mapping[str, float]] = {
    "sustained/ampere": 0.9,
    "sustained/hopper": 0.75,
    **dict.fromkeys((f"sustained/{name}" for name in ("b200-sxm", "gb200", "b300-sxm", "gb300")), 0.65),
    "formats/hopper/fp8-row": 0.6,
    "formats/blackwell/fp8": 1.3,
    "formats/blackwell/mxfp8": 1.3,
    "formats/blackwell/nvfp4": 1.3,
    "formats/blackwell-ultra/nvfp4": 1.3,
    "formats/gb200/bf16": 1.0,
    "attention/fused/hopper": 0.5,
    "attention/fused/blackwell": 0.5,
    "attention/fused/blackwell-ultra": 0.5,
    "attention/flash-1/ampere": 0.33,
    "attention/flash-1/hopper": 0.2,
    "attention/flash-2/hopper": 0.35,
    "shared/attention_ramp": 300.0,
    "shared/grouped": 0.5,
    "shared/contention": 0.3,
    "shared/overlapped": 1.0,
    "engines/early-megatron/kernel_host_s": 4e-5,
    "engines/early-megatron/boundary_s": 5e-4,
    "engines/early-megatron/vector": 1.0,
    "engines/megatron-core/kernel_host_s": 3e-5,
    "engines/megatron-core/boundary_s": 1e-4,
    "engines/megatron-core/yearly": 0.05,
    "engines/fsdp/vector": 3.0,
}
"""The fitted constants by their path in the data file, with the value that each starts from and is held to by `PRIOR`.
Attention starts from its papers: 2307.08691 (FlashAttention-1 reaches 25 to 40 % of an A100) and 2407.08608 (FlashAttention-2
reaches 35 % of an H100); a year of releases from the median by which one configuration differs between two of Megatron-Bridge's,
4 to 5 %."""

FROZEN: Final[Mapping[str, str]] = {
    "shared/attention_backward": "63 % over 73 % of the peak, FlashAttention-2 (2307.08691) abstract",
    "shared/step_s": "host time once per step, of the order of PyTorch's optimizer and logging calls",
    "formats/hopper/fp8": "1: FP8 products lose as much as BF16 ones once casts are counted; a free constant finds 0.99",
    **dict.fromkeys(
        ("engines/early-megatron/host_norm", "engines/fsdp/host_norm"),
        "4: near the longer of the two; at 2 vTrain's nodes and BigScience's heads are off by more",
    ),
    "engines/megatron-core/host_norm": "2, of 2, 3, 4 and 6: MLPerf, dgxc and SimuMax, each without its own rows, are off least",
    "engines/megatron-core/vector": "1: the operations that Transformer Engine fuses are those counted",
    "formats/blackwell/narrow": "about the mean of FP8, MXFP8 and NVFP4: stands for formats that no run was measured in",
    "engines/fsdp/kernel_host_s": "10 µs per eager PyTorch kernel; the runs measured do not show it",
    "engines/fsdp/boundary_s": "0: no pipeline was measured",
    **dict.fromkeys(("engines/early-megatron/yearly", "engines/fsdp/yearly"), "0: no runs of several dated releases"),
    "attention/fused/ampere": "middle of 50 to 73 %, FlashAttention-2 (2307.08691) abstract",
    "attention/flash-2/ampere": "as fused",
    "formats/blackwell/bf16": "1 by definition",
}
"""Constants of the same tables that are not fitted, with where they come from."""

NARROW: Final = tuple(name for name in RECIPES if name != "bf16")
"""Recipes with products below BF16."""

PRIOR: Final = 0.3
SCALE: Final = 0.05
NUDGE: Final = 0.02
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MOVES: Final[Mapping[str, Callable[[list[str], Block], bool]]] = {
    "engines": lambda place, block: block.inputs[0].work.software.engine == place[1],
    "sustained": lambda place, block: (
        place[1] in (block.cluster.accelerator.name, block.cluster.accelerator.generation)
    ),
    "formats": lambda place, block: (
        place[1] in kin(block.cluster.accelerator)
        and (place[2] == "bf16" or block.inputs[0].work.precision in ((place[2],) if place[2] != "narrow" else NARROW))
    ),
    "attention": lambda place, block: (
        block.cluster.accelerator.generation == place[2]
        and block.inputs[0].work.software.settled("attention") == place[1]
    ),
    "shared": lambda place, block: (
        place[1] != "grouped" or any(isinstance(kind.mlp, Moe) for kind in block.inputs[0].model.layers)
    ),
}
"""Table -> whether a constant of it can move the price of a block."""


class Problem:
    """Rows, the constants that start the fit, and the linearised prices around the last solution."""

    def __init__(self, rows: Rows, tables: Mapping[str, Any], free: Mapping[str, float] = FREE) -> None:
        self.rows, self.tables, self.free = rows, tables, tuple(free)
        self.start = np.log(list(free.values()))
        self.found = np.log([_at(tables, path) for path in self.free])
        sources = [source_of(case) for case in rows.cases]
        self.weights = np.array([1.0 / np.sqrt(sources.count(source)) for source in sources])
        self.weights *= len(sources) / self.weights.sum()
        self.in_fit = np.array([case_software.in_fit(case) for case in rows.cases])
        self.moved = [
            [MOVES[path.split("/")[0]](path.split("/"), block) for block in rows.blocks] for path in self.free
        ]

    def constants(self, logs: Floats) -> dict[str, float]:
        """Return the constants at a point."""
        return dict(zip(self.free, np.exp(logs).tolist(), strict=True))

    def errors(self, logs: Floats, which: Sequence[bool] | None = None) -> Floats:
        """Return log(predicted/measured) of every row at a point."""
        return np.log(self.rows.predicted_s(varied(self.tables, self.constants(logs)), which) / self.rows.measured_s)

    def slopes(self, logs: Floats, errors: Floats) -> Floats:
        """Return the change of every row's error with the logarithm of each constant."""
        out = np.zeros((len(errors), len(logs)))
        for index, moved in enumerate(self.moved):
            nudged = logs.copy()
            nudged[index] += NUDGE
            changed = self.errors(nudged, moved)
            seen = ~np.isnan(changed)
            out[seen, index] = (changed[seen] - errors[seen]) / NUDGE
        return out

    def cost(self, logs: Floats, errors: Floats, used: Bools) -> float:
        """Return what is minimised."""
        loss = 2.0 * (np.sqrt(1.0 + (errors[used] / SCALE) ** 2) - 1.0)
        return float(np.sum(self.weights[used] * loss) + np.sum(((logs - self.start) / PRIOR) ** 2))

    def step(self, logs: Floats, errors: Floats, slopes: Floats, used: Bools, damping: float) -> tuple[Floats, Floats]:
        """Return the damped Gauss-Newton step of the reweighted problem, and the standard deviations at its end."""
        weights = np.where(used, self.weights / np.sqrt(1.0 + (errors / SCALE) ** 2), 0.0) / SCALE**2
        normal = slopes.T @ (slopes * weights[:, None]) + np.eye(len(logs)) / PRIOR**2
        gradient = slopes.T @ (weights * errors) + (logs - self.start) / PRIOR**2
        change = -np.linalg.solve(normal + damping * np.diag(np.diag(normal)), gradient)
        return np.clip(change, -0.5, 0.5), np.sqrt(np.diag(np.linalg.inv(normal)))

    def solve(self, used: Bools, logs: Floats, rounds: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the solution over the used rows, its errors, slopes and standard deviations."""
        errors = self.errors(logs)
        best, damping = self.cost(logs, errors, used), 1e-2
        slopes, spread = self.slopes(logs, errors), np.zeros_like(logs)
        for left in range(rounds, 0, -1):
            change, spread = self.step(logs, errors, slopes, used, damping)
            tried = self.errors(logs + change)
            found = self.cost(logs + change, tried, used)
            if found >= best:
                damping *= 10.0
                continue
            settled = best - found < 1e-3 * best
            logs, errors, best, damping = logs + change, tried, found, damping / 5.0
            if settled or left == 1:
                break
            slopes = self.slopes(logs, errors)
        return logs, errors, slopes, spread

    def without(self, left_out: Bools, logs: Floats, errors: Floats, slopes: Floats, rounds: int = 20) -> Floats:
        """Return the solution of the linearised problem when some rows are left out."""
        used, moved = self.in_fit & ~left_out, np.zeros_like(logs)
        for _ in range(rounds):
            change, _ = self.step(logs + moved, errors + slopes @ moved, slopes, used, 1e-3)
            moved = moved + change
            if np.max(np.abs(change)) < 1e-4:
                break
        return logs + moved


def fit(rows: Rows, tables: Mapping[str, Any], rounds: int = 8) -> dict[str, Any]:
    """Return the document of fitted constants: of all rows, of every part and of every source left out."""
    problem = Problem(rows, tables)
    logs, errors, slopes, spread = problem.solve(problem.in_fit, problem.found, rounds)
    parts, sources = folds(rows.cases), np.array([source_of(case) for case in rows.cases])

    def told(point: Floats) -> dict[str, float]:
        return {path: significant(value) for path, value in problem.constants(point).items()}

    def left(out: Bools, again: int = 0) -> dict[str, float]:
        near = problem.without(out, logs, errors, slopes)
        return told(problem.solve(problem.in_fit & ~out, near, again)[0] if again else near)

    parts_out = [left(parts == part) for part in range(FOLDS)]
    constants = placed(tables, told(logs))
    unseen = validation_training.unseen(rows, parts, dict(enumerate(parts_out)), constants)
    names = sorted(set(sources.tolist()))
    sources_out = {name: left(sources == name, 1) for name in names}
    apart = validation_training.unseen(rows, sources, sources_out, constants)
    return {
        "fitted": str(date.today()),
        "source": "training_cases.json; rows set aside: parallel.validation.case_software.ODD and ASIDE",
        "rows": int(problem.in_fit.sum()),
        "constants": constants,
        "spread": {path: significant(sd) for path, sd in zip(problem.free, spread.tolist(), strict=True)},
        "frozen": dict(FROZEN),
        "bands": rounded(
            validation_training.bands(unseen, rows.measured_s, validation_training.regimes(rows), sources.tolist())
        ),
        "installation": installations(rows, apart),
        "parts": parts_out,
        "sources": sources_out,
    }


def installations(rows: Rows, predicted: Floats) -> dict[str, float]:
    """Return the variances of log(measured/predicted) between installations and within one, of constants without the source."""
    ratios = validation_training.ratios_by_source(rows, predicted, taught=True)
    between, within = validation_training.variances(list(ratios.values()))
    return {"between": significant(between), "within": significant(within)}


def rounded(table: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, list[float]]]:
    """Return bands as the data file holds them."""
    return {name: {key: [significant(v) for v in pair] for key, pair in row.items()} for name, row in table.items()}


def _at(tables: Mapping[str, Any], path: str) -> float:
    found: Any = tables
    for place in path.split("/"):
        found = found[place]
    return float(found)


def placed(tables: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """Return tables with some values replaced, by path."""
    out: dict[str, Any] = {key: placed(held, {}) if isinstance(held, Mapping) else held for key, held in tables.items()}
    for path, value in values.items():
        *places, last = path.split("/")
        table = out
        for place in places:
            table = table[place]
        table[last] = value
    return out


def main() -> None:
    """Fit to the shipped runs and write the data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    rows = rows_of(read_json("training_cases.json"))
    header = "Written by python -m parallel.calibration.training; what is not fitted (`frozen`) is kept by hand."
    write_yaml(fit(rows, document()["constants"], given.rounds), given.out, header)


if __name__ == "__main__":
    main()
