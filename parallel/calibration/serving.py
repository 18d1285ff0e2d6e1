"""Fit the constants of the engine classes to measured serving runs, and say how they do on what they have not seen.

``python -m parallel.calibration.serving`` writes `data/engines.yaml`: six constants for each class, and what all share, the rates
of grouped products and how unevenly popular experts are (`data/routing.yaml`). They come of least squares on
log(predicted/measured) of TPOT and TTFT, large errors by their logarithm, every group of model, accelerator, engine and
precision weighing alike. Beside them stand the 90 % bands of measured/predicted, those of disaggregated runs too, and the
errors of constants fitted without one model, or without one accelerator. Rows of unlabelled speculative decoding are left
aside, and no constant sees a disaggregated one.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from clusters.measurements import read_csv
from parallel.hotexperts import FILE
from parallel.io import read_yaml
from parallel.models import Model, Moe
from parallel.serving.engines import CONSTANTS, DATA, Engine, engine, engine_names, own_rates, serving_recipe
from parallel.serving.runs import Run, answer
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import cells, run_of

HEAD: Final = """\
# Written by python -m parallel.calibration.serving; `defaults`, `regime` and an engine's own `grouped` are kept by hand,
# from its documentation.
"""
ROUTING: Final = """\
# Written by python -m parallel.calibration.serving: how unevenly popular experts are under the prompts of public benchmarks,
# standard deviation over mean.
"""
START: Final = {
    "launch": 1.75,
    "request_s": 3e-6,
    "prefill": 1.1,
    "offset_s": 0.014,
    "stream_s": 3e-4,
    "eager_s": 7e-5,
}
LEAST: Final = 0.05
"""A constant stays between this share of where its fit starts and `MOST`."""
MOST: Final = {"launch": 5.0, "request_s": 1e-4, "prefill": 3.0, "offset_s": 1.0, "stream_s": 5e-3, "eager_s": 2e-4}
RATES: Final = {
    "int4": {"hopper": 0.25, "blackwell": 0.25},
    "fp8-block": {"hopper": 0.4, "blackwell": 0.4},
}
"""Where the rates of grouped products start; 1 is the most."""
CELLS: Final = tuple((fmt, where) for fmt, by in RATES.items() for where in by)
SKEW: Final = 0.5
"""Where the coefficient of variation of experts' popularities starts."""
MOST_SKEW: Final = 3.0
TTFT_WEIGHT: Final = 0.6
"""What a TTFT counts beside a TPOT: it is measured with more scatter."""
PULL: Final = 0.02
"""Pull of a constant to where it starts, so that one which no row can tell stays there."""
SCALE: Final = 0.1
"""Error of the logarithm from which on its weight no longer grows with its square (soft L1)."""
STEP: Final = 0.05
"""Change of the logarithm of a constant for a derivative."""

Row = tuple[Run, float, float, str]
"""A run, its measured TPOT and TTFT in seconds, and its group."""
Engines = Mapping[str, Engine]


def fitted(rows: Sequence[Row], names: Sequence[str], most: int = 450) -> dict[str, Engine]:
    """Return the engines with constants fitted to at most `most` of the rows, spread over all groups.

    Constants are searched by their logarithms. Those of one engine move its rows alone, so the derivatives by the same
    constant of all engines come from one evaluation.
    """
    from scipy.optimize import least_squares

    chosen, weights = _chosen(rows, most)
    own = np.array([[run.engine == name for name in names] for run, *_ in chosen])
    start = np.log(
        [*[START[key] for _ in names for key in CONSTANTS], *(RATES[fmt][where] for fmt, where in CELLS), SKEW]
    )
    high = np.log([*[MOST[key] for _ in names for key in CONSTANTS], *(1.0 for _ in CELLS), MOST_SKEW])
    count = len(CONSTANTS)

    def engines(x: np.ndarray) -> dict[str, Engine]:
        found = np.exp(x).tolist()
        rates: dict[str, dict[str, float]] = {fmt: {} for fmt in RATES}
        for (fmt, where), rate in zip(CELLS, found[count * len(names) : -1], strict=True):
            rates[fmt][where] = rate
        return {
            name: replace(
                engine(name),
                **dict(zip(CONSTANTS, found[count * i : count * (i + 1)], strict=True)),
                grouped=own_rates(name, rates),
                skew=found[-1],
            )
            for i, name in enumerate(names)
        }

    def residuals(x: np.ndarray) -> np.ndarray:
        off = np.log(errors(chosen, engines(x)))
        return np.concatenate([weights * off[:, 0], TTFT_WEIGHT * weights * off[:, 1], PULL * (x - start)])

    def jacobian(x: np.ndarray) -> np.ndarray:
        here, slopes = residuals(x), np.zeros((2 * len(chosen) + len(x), len(x)))
        for at in range(count):
            moved = x.copy()
            moved[at : count * len(names) : count] -= STEP
            slope = (here - residuals(moved)) / STEP
            for i in range(len(names)):
                alone = np.arange(len(x)) == count * i + at
                slopes[:, count * i + at] = np.where(np.concatenate([own[:, i], own[:, i], alone]), slope, 0.0)
        for at in range(count * len(names), len(x)):
            moved = x.copy()
            moved[at] -= STEP
            slopes[:, at] = (here - residuals(moved)) / STEP
        return slopes

    bounds = (start + np.log(LEAST), high + 1e-9)
    best = least_squares(residuals, start, jac=jacobian, bounds=bounds, loss="cauchy", f_scale=SCALE, max_nfev=10)
    found = rated(rows, engines(best.x), most)
    return {
        name: polished([row for row in rows if row[0].engine == name], found[name], most * 2 // 5) for name in names
    }


def rated(rows: Sequence[Row], found: Engines, most: int) -> dict[str, Engine]:
    """Return the engines with each shared constant where at most `most` of the rows that show it are met best, in turn.

    Few rows show some of the rates, and a step that suits all others can carry such a rate away from them.
    """
    from scipy.optimize import minimize_scalar

    engines = dict(found)
    routed = [row for row in rows if _routed(row[0].model)]
    turns: list[tuple[Callable[[Engines, float], dict[str, Engine]], list[Row], float, float]] = [
        (_with_skew, routed, LEAST * SKEW, MOST_SKEW)
    ]
    for fmt, where in CELLS:
        showing = [row for row in routed if _shows(row[0], fmt, where)]
        turns.append((partial(_with_rate, cell=(fmt, where)), showing, LEAST * RATES[fmt][where], 1.0))
    for change, showing, low, high in turns:
        if showing:
            chosen, weights = _chosen(showing, most)
            loss = partial(_changed_loss, engines, change, chosen, weights)
            ends = (float(np.log(low)), float(np.log(high)))
            best = minimize_scalar(loss, bounds=ends, method="bounded", options={"maxiter": 15, "xatol": STEP / 2.0})
            engines = change(engines, float(np.exp(best.x)))
    return engines


def _shows(run: Run, fmt: str, generation: str) -> bool:
    """Whether a run multiplies experts of a format on a generation."""
    recipe = serving_recipe(run.model, run.precision, run.part, run.gemm_quant)
    return recipe.experts == fmt and run.part.generation == generation


def _routed(model: Model) -> bool:
    return any(isinstance(kind.mlp, Moe) for kind in model.layers)


def _with_skew(engines: Engines, skew: float) -> dict[str, Engine]:
    """Return the engines with another popularity of experts."""
    return {name: replace(one, skew=skew) for name, one in engines.items()}


def _with_rate(engines: Engines, rate: float, cell: tuple[str, str]) -> dict[str, Engine]:
    """Return the engines with another rate of one format and generation, kernels of their own left out."""
    found = {}
    for name, one in engines.items():
        shared: dict[str, dict[str, float]] = {}
        for fmt, where, held in one.grouped:
            shared.setdefault(fmt, {})[where] = rate if (fmt, where) == cell else held
        found[name] = replace(one, grouped=own_rates(name, shared))
    return found


def _changed_loss(
    engines: Engines,
    change: Callable[[Engines, float], dict[str, Engine]],
    rows: Sequence[Row],
    weights: np.ndarray,
    log_value: float,
) -> float:
    return _loss(errors(rows, change(engines, float(np.exp(log_value)))), weights)


def _loss(ratios: np.ndarray, weights: np.ndarray) -> float:
    """Return the sum over rows that a fit makes small: TPOT and TTFT, large errors by their logarithm (Cauchy)."""
    off = np.log(ratios) * weights[:, None] * (1.0, TTFT_WEIGHT)
    return float(np.sum(np.log1p((off / SCALE) ** 2)))


def polished(rows: Sequence[Row], base: Engine, most: int, calls: int = 100) -> Engine:
    """Return one engine with constants that fit at most `most` of its rows better, by Nelder and Mead's simplex.

    Where all answers are of one length, clients march in step or do not, so the errors jump where derivatives see nothing.
    """
    from scipy.optimize import minimize

    chosen, weights = _chosen(rows, most)
    high = np.log([MOST[key] for key in CONSTANTS])

    def loss(x: np.ndarray) -> float:
        trial = replace(base, **dict(zip(CONSTANTS, np.exp(np.minimum(x, high)).tolist(), strict=True)))
        return _loss(errors(chosen, {base.name: trial}), weights)

    start = np.log([getattr(base, key) for key in CONSTANTS])
    simplex = np.vstack([start, start + np.diag(-np.array([0.1, 0.25, 0.1, 0.25, 0.25, 0.25]))])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxfev": calls, "initial_simplex": simplex})
    return replace(base, **dict(zip(CONSTANTS, np.exp(np.minimum(best.x, high)).tolist(), strict=True)))


def _chosen(rows: Sequence[Row], most: int) -> tuple[list[Row], np.ndarray]:
    """Return at most so many rows, spread over all groups, and their weights: every group counts alike."""
    sizes = Counter(group for *_, group in rows)
    ordered = sorted(range(len(rows)), key=lambda i: (rows[i][3], i))
    chosen = [rows[i] for i in ordered[:: max(len(rows) // most, 1)]]
    weights = np.array([sizes[group] ** -0.5 for *_, group in chosen])
    return chosen, weights * len(weights) / np.sum(weights)


def errors(rows: Sequence[Row], engines: Engines) -> np.ndarray:
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
        rest = [row for row in rows if key(row[0]) != value]
        ratios.append(errors(aside, fitted(rest, engine_names(), most)))
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
    parser.add_argument("--routing", type=Path, default=FILE, help="where the popularity of experts is written")
    parser.add_argument("--rows", type=int, default=450, help="rows that a fit looks at; 0 keeps the constants")
    parser.add_argument("--held-out", action="store_true", help="also refit without each model and each accelerator")
    given = parser.parse_args(argv)
    rows, apart = shipped_rows(), shipped_rows(disaggregated=True)
    held = read_yaml(DATA / "engines.yaml")
    names = engine_names()
    engines = fitted(rows, names, given.rows) if given.rows else {name: engine(name) for name in names}
    for name in names:
        ratios = 1.0 / errors([row for row in rows if row[0].engine == name], engines)
        entry = held["engines"][name]
        entry["constants"] = {key: float(f"{getattr(engines[name], key):.4g}") for key in CONSTANTS}
        entry["bands"] = _bands(ratios, "aggregated")
        entry |= _short({"residuals": figures(1.0 / ratios)})
    skew = engines[names[0]].skew
    if skew is not None:
        given.routing.write_text(ROUTING + yaml.safe_dump({"skew": float(f"{skew:.4g}")}), "utf-8")
    held["grouped"] = {fmt: {} for fmt in RATES}
    for fmt, where, rate in engines[names[0]].grouped:
        if where in RATES[fmt]:
            held["grouped"][fmt][where] = float(f"{rate:.4g}")
    joined = _bands(1.0 / errors(apart, engines), "disaggregated")  # too few of each engine for bands of its own
    for name in names:
        held["engines"][name]["bands"] |= {key: [*band] for key, band in joined.items()}
    if given.held_out:
        keys: dict[str, Callable[[Run], str]] = {"model": lambda run: run.model.name, "part": lambda run: run.part.name}
        held["held_out"] = {name: _short(held_out(rows, key, given.rows // 2)) for name, key in keys.items()}
    given.out.write_text(HEAD + yaml.safe_dump(held, sort_keys=False, default_flow_style=None, width=120), "utf-8")


if __name__ == "__main__":
    main()
