"""Calibrate an engine to one's own load test, and say how far the predictions are off before and after.

From three runs on, three constants of the engine are fitted: what a kernel takes to start, the prompt's factor, and the
offset between client and queue. Minimised is Σ ρ(log(predicted/measured)) + Σ (`PRIOR`·log(c/c₀))² over TPOT and TTFT,
ρ the soft-L1 loss: few runs cannot carry a constant far from that of the class. One or two runs give a factor on each of
the two times. Every run is also predicted by constants fitted without it, in the linearised problem.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import residuals, significant, write_yaml
from parallel.calibration.load_tests import ENDINGS, TOLD, read_results
from parallel.calibration.serving import TTFT_WEIGHT
from parallel.serving.engines import Engine, engine
from parallel.serving.runs import Run, answer
from parallel.serving.trust import FITTED, SECTION, Trust
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import cells, run_of
from topo.errors import Fault, SpecError

HEADER: Final = "Written by podscale calibrate serving; name this file in a serving scenario: calibration: FILE"
PRIOR: Final = 0.1
"""What moving a constant by its own size costs, beside a run that is off by as much: a tenth of it."""
SCALE: Final = 0.1
NUDGE: Final = 0.03
BOUNDS: Final = (0.05, 20.0)
"""How far a constant may go from that of the class."""
FEWEST: Final = 3
"""Runs from which on constants are fitted; fewer give a factor on each time."""
BANDED: Final = 10
"""Runs from which on their own residuals make the 90 % band of an answer; with fewer it stays that of the class."""
METRICS: Final = ("tpot", "ttft")
WEIGHTS: Final = np.array([1.0, TTFT_WEIGHT])
COLUMNS: Final[Mapping[str, str]] = {"accelerator": "system", "ep": "moe_ep", "etp": "moe_tp"}
"""What is told beside a result, where a table calls it otherwise."""
Floats = npt.NDArray[np.float64]
Progress = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A run and its mean times in seconds, TPOT first."""

    name: str
    run: Run
    version: str
    seconds: tuple[float, float]


def calibrate_file(file: Path, out: Path, progress: Progress | None = None, **told: Any) -> dict[str, Any]:
    """Fit an engine to a load test and write what a serving scenario names as `calibration`.

    Parameters
    ----------
    file
        A table as `podscale validate serving` takes it; or what a load generator wrote, or a folder of such files.
    out
        Where it goes (YAML).
    told
        engine, model, accelerator, precision, tp, attention_dp, ep, etp, where the file lacks them.

    Raises
    ------
    SpecError
        The file cannot be read, names several engines, or none of its runs can be simulated: every reason.
    """
    runs = read_runs(file, **told)
    names = sorted({one.run.engine for one in runs})
    if len(names) > 1:
        remedy = f"fit one at a time: --engine {names[0]}"
        raise SpecError([Fault("engine", ", ".join(names), "are several engines", remedy, str(file))])
    base = engine(names[0])
    fitted = fit(runs, base, progress)
    document = _document(runs, base, fitted)
    write_yaml({SECTION: document["calibration"], "residuals": document["residuals"]}, out, HEADER)
    return {"out": str(out), **document}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration and what it makes of each run: log(predicted/measured) of TPOT and TTFT before, after, and unseen.

    `unseen` comes from the other runs alone; it is None where there are fewer than `FEWEST`.
    """

    trust: Trust
    before: Floats
    after: Floats
    unseen: Floats | None


def fit(runs: Sequence[Measured], base: Engine, progress: Progress | None = None) -> Fitted:
    """Fit what the runs can carry: constants, or a factor on each time.

    >>> from clusters.catalogue import accelerator
    >>> from parallel.hybrids import served_model
    >>> from parallel.serving.passes import Split
    >>> run = Run("vllm", served_model("llama-3.1-8b"), accelerator("h100-sxm"), "fp8", Split(), 4, 500, 50)
    >>> found = answer(run)
    >>> twice = Measured("a", run, "", (2 * found.tpot_s, found.ttft_s))
    >>> fit([twice], engine("vllm")).trust.tpot
    2.0
    """
    before = errors(runs, base)
    if len(runs) < FEWEST:
        middle = np.median(before, axis=0)
        tpot, ttft = (significant(value) for value in np.exp(-middle))
        trust = Trust(base, "one-point calibrated", len(runs), tpot, ttft, _deployments(runs))
        return Fitted(trust, before, before + np.log([tpot, ttft]), None)
    return _constants(runs, base, before, progress)


def _constants(runs: Sequence[Measured], base: Engine, before: Floats, progress: Progress | None) -> Fitted:
    """Fit `FITTED` by soft-L1 least squares on logarithms, and predict each run by the others."""
    from scipy.optimize import least_squares

    most = 8 * (1 + len(FITTED))
    done = 0

    def off(ratios: Floats) -> Floats:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, most), most, f"{len(runs)} runs")
        return np.append((WEIGHTS * errors(runs, _moved(base, ratios))).ravel(), PRIOR * np.log(ratios))

    start, steps = np.ones(len(FITTED)), [NUDGE] * len(FITTED)
    best = least_squares(off, start, bounds=BOUNDS, diff_step=steps, loss="soft_l1", f_scale=SCALE, max_nfev=8)
    ratios = np.asarray(best.x, dtype=np.float64)
    made = _moved(base, ratios)
    after = errors(runs, made)
    nudged = [ratios * np.where(np.arange(len(FITTED)) == at, np.exp(NUDGE), 1.0) for at in range(len(FITTED))]
    slopes = np.stack([(errors(runs, _moved(base, one)) - after) / NUDGE for one in nudged], axis=-1)
    trust = Trust(made, "engine-version calibrated", len(runs), measured_at=_deployments(runs))
    return Fitted(trust, before, after, left_out(after, slopes, np.log(ratios)))


def left_out(off: Floats, slopes: Floats, logs: Floats) -> Floats:
    """Return what each run's errors are under constants fitted to the others, in the linearised problem.

    Parameters
    ----------
    off : errors of each run at the solution, (runs, 2)
    slopes : their derivatives by the constants' logarithms, (runs, 2, constants)
    logs : the solution, from which the prior pulls back to 0

    >>> slopes = np.ones((2, 2, 1))
    >>> left_out(np.array([[0.1, 0.1], [-0.1, -0.1]]), slopes, np.zeros(1)).round(2).tolist()
    [[0.2, 0.2], [-0.2, -0.2]]
    """
    found = np.empty_like(off)
    for i in range(len(off)):
        kept = np.arange(len(off)) != i
        weighted = (WEIGHTS[:, None] * slopes[kept]).reshape(-1, len(logs))
        pull = PRIOR**2 * np.eye(len(logs))
        right = weighted.T @ (WEIGHTS * off[kept]).ravel() + pull @ logs
        found[i] = off[i] - slopes[i] @ np.linalg.solve(weighted.T @ weighted + pull, right)
    return found


def _moved(base: Engine, ratios: Floats) -> Engine:
    """Return an engine with its constants multiplied."""
    values = {name: getattr(base, name) * ratio for name, ratio in zip(FITTED, ratios.tolist(), strict=True)}
    return replace(base, **values)


def errors(runs: Sequence[Measured], base: Engine) -> Floats:
    """Return log(predicted/measured) of TPOT and TTFT of every run."""
    found = [answer(one.run, base) for one in runs]
    return np.array(
        [
            [np.log(a.tpot_s / one.seconds[0]), np.log(a.ttft_s / one.seconds[1])]
            for a, one in zip(found, runs, strict=True)
        ]
    )


def read_runs(file: Path, **told: Any) -> list[Measured]:
    """Return the runs of a file that can be simulated.

    Raises
    ------
    SpecError
        None can: why, run by run; or the file cannot be read.
    """
    given = {COLUMNS.get(key, key): f"{value}" for key, value in told.items()}
    found, faults = [], []
    for row in _rows(file, given):
        lacks = [key for key in ("model", "system", "engine", "isl", "osl", "ttft_ms", "tpot_ms") if not row.get(key)]
        if lacks:
            flags = {"system": "--accelerator"}
            remedy = "say it beside: " + ", ".join(flags.get(key, f"--{key}") for key in lacks if key in TOLD)
            faults.append(Fault(row["id"], None, f"lacks {', '.join(lacks)}", remedy.removesuffix(": "), str(file)))
            continue
        try:
            run = run_of(row, sized=False)
        except Skip as why:
            remedy = "run it again with a fixed number of clients" if "clients" in why.reason else "complete the run"
            faults.append(Fault(row["id"], None, why.reason, remedy, str(file)))
            continue
        if "engine" in given and run.engine != engine(given["engine"]).name:
            continue
        seconds = float(row["tpot_ms"]) / 1e3, float(row["ttft_ms"]) / 1e3
        found.append(Measured(row["id"], run, row.get("engine_version", ""), seconds))
    if not found:
        raise SpecError(faults or [Fault("FILE", None, "holds no run of that engine", "leave out --engine", str(file))])
    return found


def _rows(file: Path, given: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table, or of what a load generator wrote; what is told beside fills in what is not there."""
    from clusters.tablefile import read_table
    from parallel.validation.serving import NUMBERS, OPTIONAL, TEXTS

    if not file.is_dir() and file.suffix not in ENDINGS:
        for row in cells(read_table(file, NUMBERS, TEXTS, OPTIONAL)):
            yield {**given, **{key: value for key, value in row.items() if value}}
        return
    for name, held in read_results(file):
        row = {key: f"{value:.17g}" if isinstance(value, float) else f"{value}" for key, value in held.items() if value}
        if "engine" in given:
            row.pop("engine", None)  # a result names the client's protocol, which others speak too
        yield _whole({"id": name, **given, **row})


def _whole(row: dict[str, str]) -> dict[str, str]:
    """Complete the experts' split: what is not split by ep is by etp, over the ranks of the attention."""
    ranks = float(row.get("tp") or 1) * float(row.get("attention_dp") or 1)
    ep = float(row.get("moe_ep") or ranks / float(row.get("moe_tp") or ranks))
    return {**row, "moe_ep": f"{ep:g}", "moe_tp": row.get("moe_tp") or f"{ceil(ranks / ep)}"}


def deployment(run: Run) -> dict[str, Any]:
    """Return what a one-point calibration holds for."""
    split = {
        name: int(getattr(run.split, field))
        for name, field in (("tp", "tp"), ("attention_dp", "dp"), ("ep", "ep"), ("etp", "etp"))
    }
    return {"model": run.model.name, "accelerator": run.part.name, "precision": run.precision, **split}


def _deployments(runs: Sequence[Measured]) -> tuple[dict[str, Any], ...]:
    kinds: list[dict[str, Any]] = []
    for one in runs:
        kind = deployment(one.run)
        if kind not in kinds:
            kinds.append(kind)
    return tuple(kinds)


def _document(runs: Sequence[Measured], base: Engine, fitted: Fitted) -> dict[str, Any]:
    """Say what was fitted, how far each run is off before and after, and how to use it."""
    trust, measured = fitted.trust, np.array([one.seconds for one in runs])
    stated: dict[str, dict[str, Any]] = {}
    bands = {}
    for at, metric in enumerate(METRICS):
        real = measured[:, at]
        stated[metric] = {
            "before": residuals(real * np.exp(fitted.before[:, at]), real),
            "after": residuals(real * np.exp(fitted.after[:, at]), real),
        }
        if fitted.unseen is not None:
            unseen = residuals(real * np.exp(fitted.unseen[:, at]), real)
            stated[metric]["after"]["held_out"] = unseen
            if len(runs) >= BANDED:
                bands[f"{metric} aggregated"] = [unseen["low"], unseen["high"]]
    constants = {name: significant(getattr(trust.engine, name)) for name in FITTED}
    calibration = {
        "engine": base.name,
        "level": trust.level,
        "version": ", ".join(sorted({one.version for one in runs if one.version})),
        "rows": len(runs),
        "constants": constants,
        "factors": {"tpot": trust.tpot, "ttft": trust.ttft},
        "bands": bands,
        "deployments": [dict(one) for one in trust.measured_at],
    }
    return {
        "level": trust.level,
        "calibration": calibration,
        "constants": constants if trust.level.startswith("engine") else {"tpot": trust.tpot, "ttft": trust.ttft},
        "class": {name: getattr(base, name) for name in FITTED},
        "residuals": stated,
        "runs": list(_told(runs, fitted)),
        "notes": list(_notes(trust, base)),
        "warnings": list(_warnings(fitted, stated)),
    }


def _warnings(fitted: Fitted, stated: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say so where runs that a fit has not seen are no better predicted than by the class."""
    for metric, held in stated.items():
        unseen = held["after"].get("held_out")
        if unseen and unseen["median"] > held["before"]["median"]:
            yield f"{metric.upper()} of unseen runs is predicted no better than by the engine's class: measure more loads"
    if fitted.unseen is not None and len(fitted.unseen) < BANDED:
        yield f"fewer than {BANDED} runs: the 90 % interval of an answer stays that of the engine's class"


def _notes(trust: Trust, base: Engine) -> Iterator[str]:
    yield f"{trust.level}: {base.name}, from {trust.rows} run{'s' if trust.rows > 1 else ''}"
    if trust.rows < FEWEST:
        yield f"{FEWEST} runs or more, at several loads, would fit the engine's constants and show how they do unseen"
    yield "name the file in a serving scenario: calibration: FILE"


def _told(runs: Sequence[Measured], fitted: Fitted) -> Iterator[dict[str, Any]]:
    """Yield each run: what it was, what was measured, and predicted before, after, and by the others."""
    for at, one in enumerate(runs):
        told: dict[str, Any] = {"id": one.name, **deployment(one.run)}
        told |= {"clients": one.run.clients, "isl": one.run.isl, "osl": one.run.osl}
        for which, metric in enumerate(METRICS):
            real = one.seconds[which]
            told[metric] = {
                "measured": real,
                "before": real * float(np.exp(fitted.before[at, which])),
                "after": real * float(np.exp(fitted.after[at, which])),
                "unseen": None if fitted.unseen is None else real * float(np.exp(fitted.unseen[at, which])),
            }
        yield told
