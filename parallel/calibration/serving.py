"""Fit the constants of the engine classes to measured serving runs, and say how they do on what they have not seen.

``python -m parallel.calibration.serving`` writes `data/engines.yaml`: five constants for each class, by soft-L1 least squares
on log(predicted/measured) of TPOT and TTFT, every group of model, accelerator, engine and precision weighing alike; the
90 % bands of measured/predicted, those of disaggregated runs too; and the errors of constants fitted without one model, or
without one accelerator. Rows of unlabelled speculative decoding are left aside, and no constant sees a disaggregated one.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from clusters.measurements import read_csv
from parallel.io import read_yaml
from parallel.serving.engines import CONSTANTS, DATA, Engine, engine, engine_names
from parallel.serving.runs import Run, answer
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import cells, run_of

HEAD: Final = """\
# Written by python -m parallel.calibration.serving; `defaults` are kept by hand, from each engine's documentation.
"""
START: Final = {"launch": 1.8, "request_s": 1e-5, "prefill": 1.1, "offset_s": 0.08, "prompt_pass_s": 0.01}
MOST: Final = {"launch": 5.0, "request_s": 1e-4, "prefill": 3.0, "offset_s": 1.0, "prompt_pass_s": 0.1}
TTFT_WEIGHT: Final = 0.4
"""What a TTFT counts beside a TPOT: it is measured with three times the scatter."""

Row = tuple[Run, float, float, str]
"""A run, its measured TPOT and TTFT in seconds, and its group."""


def fitted(rows: Sequence[Row], base: Engine, most: int = 200) -> Engine:
    """Return the engine with constants fitted to at most `most` of the rows, spread over all groups."""
    from scipy.optimize import least_squares

    sizes = Counter(group for *_, group in rows)
    ordered = sorted(range(len(rows)), key=lambda i: (rows[i][3], i))
    chosen = [rows[i] for i in ordered[:: max(len(rows) // most, 1)]]
    weights = np.array([sizes[group] ** -0.5 for *_, group in chosen])
    weights *= len(weights) / np.sum(weights)
    scale = np.array([START[name] for name in CONSTANTS])

    def residuals(x: np.ndarray) -> np.ndarray:
        trial = replace(base, **dict(zip(CONSTANTS, (x * scale).tolist(), strict=True)))
        found = [answer(run, trial) for run, *_ in chosen]
        tpot = [np.log(one.tpot_s / row[1]) for one, row in zip(found, chosen, strict=True)]
        ttft = [np.log(one.ttft_s / row[2]) for one, row in zip(found, chosen, strict=True)]
        return np.concatenate([weights * tpot, TTFT_WEIGHT * weights * ttft])

    low = np.zeros(len(scale))
    high = np.array([MOST[name] for name in CONSTANTS]) / scale
    steps = [0.03] * len(scale)
    bounds = (low, high)
    best = least_squares(
        residuals, np.ones(len(scale)), bounds=bounds, loss="soft_l1", f_scale=0.1, diff_step=steps, max_nfev=10
    )
    return replace(base, **dict(zip(CONSTANTS, (best.x * scale).tolist(), strict=True)))


def errors(rows: Sequence[Row], engines: dict[str, Engine]) -> np.ndarray:
    """Return predicted/measured of TPOT and TTFT, a row each."""
    found = [answer(run, engines[run.engine]) for run, *_ in rows]
    return np.array([[a.tpot_s / tpot, a.ttft_s / ttft] for a, (_, tpot, ttft, _) in zip(found, rows, strict=True)])


def figures(ratios: np.ndarray) -> dict[str, float]:
    """Return the median error of both, and the 90th percentile of TPOT's."""
    off = np.abs(ratios - 1.0)
    return {
        "n": len(off),
        "tpot_median": float(np.median(off[:, 0])),
        "tpot_p90": float(np.quantile(off[:, 0], 0.9)),
        "ttft_median": float(np.median(off[:, 1])),
    }


def shipped_rows(*, disaggregated: bool = False) -> list[Row]:
    """Return the runs of one mode of the shipped table that have no unlabelled drafts."""
    found: list[Row] = []
    for row in cells(read_csv("serving_silicon.csv")):
        try:
            run = run_of(row)
        except Skip:
            continue
        if (run.prefill is not None) == disaggregated and not run.drafted:
            found.append((run, float(row["tpot_ms"]) / 1e3, float(row["ttft_ms"]) / 1e3, group_of(run)))
    return found


def group_of(run: Run) -> str:
    """Return the group that a run counts in."""
    kind = "disaggregated" if run.prefill is not None else "aggregated"
    return f"{run.engine} {run.part.name} {run.model.name} {run.precision}, {kind}"


def held_out(rows: Sequence[Row], key: Callable[[Run], str], most: int) -> dict[str, dict[str, float]]:
    """Return the figures of every value of a key under constants fitted without its rows, and of all together."""
    out: dict[str, dict[str, float]] = {}
    ratios = []
    for value in sorted({key(run) for run, *_ in rows}):
        aside = [row for row in rows if key(row[0]) == value]
        names = {run.engine for run, *_ in aside}
        rest = [row for row in rows if key(row[0]) != value]
        kept = {name: [row for row in rest if row[0].engine == name] for name in names}
        refit = {name: fitted(kept[name], engine(name), most) if kept[name] else engine(name) for name in names}
        ratios.append(errors(aside, refit))
        out[value] = figures(ratios[-1])
    return {**out, "all": figures(np.concatenate(ratios))}


def _bands(ratios: np.ndarray, mode: str) -> dict[str, list[float]]:
    """Return the 90 % bands of measured/predicted, TPOT and TTFT."""
    quantiles = np.quantile(ratios, (0.05, 0.95), axis=0).T
    return {
        f"{metric} {mode}": [float(f"{q:.4g}") for q in band]
        for metric, band in zip(("tpot", "ttft"), quantiles.tolist(), strict=True)
    }


def _short(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return figures with four digits."""
    return {name: {key: float(f"{value:.4g}") for key, value in one.items()} for name, one in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Fit and write."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=DATA / "engines.yaml")
    parser.add_argument(
        "--rows", type=int, default=200, help="rows of an engine that a fit looks at; 0 keeps the constants"
    )
    parser.add_argument("--held-out", action="store_true", help="also refit without each model and each accelerator")
    given = parser.parse_args(argv)
    rows, apart = shipped_rows(), shipped_rows(disaggregated=True)
    held = read_yaml(DATA / "engines.yaml")
    engines = {}
    for name in engine_names():
        own = [row for row in rows if row[0].engine == name]
        engines[name] = fitted(own, engine(name), given.rows) if given.rows else engine(name)
        ratios = 1.0 / errors(own, engines)
        entry = held["engines"][name]
        entry["constants"] = {key: float(f"{getattr(engines[name], key):.4g}") for key in CONSTANTS}
        entry["bands"] = _bands(ratios, "aggregated")
        entry |= _short({"residuals": figures(1.0 / ratios)})
    joined = _bands(1.0 / errors(apart, engines), "disaggregated")  # too few of each engine for bands of its own
    for name in engine_names():
        held["engines"][name]["bands"] |= {key: [*band] for key, band in joined.items()}
    if given.held_out:
        keys: dict[str, Callable[[Run], str]] = {"model": lambda run: run.model.name, "part": lambda run: run.part.name}
        held["held_out"] = {name: _short(held_out(rows, key, given.rows // 2)) for name, key in keys.items()}
    given.out.write_text(HEAD + yaml.safe_dump(held, sort_keys=False, default_flow_style=None, width=120), "utf-8")


if __name__ == "__main__":
    main()
