"""How well training steps are predicted by constants that have not seen them: parts, sources, sweeps, one run given.

`parallel.calibration.training` stores the constants of every part of the cross-validation and of every source left out; here the
rows that were left out are priced with them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.software import document, regime, varied
from parallel.models import Moe
from parallel.validation import scoring
from parallel.validation.case_software import in_fit, is_simulated
from parallel.validation.cases import Json
from parallel.validation.training_rows import Rows, folds, source_of

Floats = npt.NDArray[np.float64]
SWEEP: Final = 4
"""Mappings of one job from which a sweep is scored by rank and regret."""


def regimes(rows: Rows) -> list[str]:
    """Return the regime of every row."""
    out = [""] * len(rows.cases)
    for block in rows.blocks:
        for row, inputs in zip(block.rows, block.inputs, strict=True):
            routed = any(isinstance(kind.mlp, Moe) for kind in inputs.model.layers)
            out[row] = regime(inputs.work.software.engine, routed)
    return out


def unseen(
    rows: Rows,
    labels: npt.NDArray[Any],
    constants: Mapping[Any, Mapping[str, float]],
    shipped: Mapping[str, Any] | None = None,
) -> Floats:
    """Price every row with the constants that were fitted without the rows of its label."""
    tables, out = shipped or document()["constants"], np.full(len(rows.cases), np.nan)
    for label, values in constants.items():
        mine = labels == label
        which = [bool(mine[block.rows].any()) for block in rows.blocks]
        if any(which):
            predicted = rows.predicted_s(varied(tables, values), which)
            out[mine] = predicted[mine]
    return out


def by_part(rows: Rows) -> Floats:
    """Price every row with the constants fitted without its part of the cross-validation."""
    return unseen(rows, folds(rows.cases), dict(enumerate(document()["parts"])))


def by_source(rows: Rows) -> Floats:
    """Price every row with the constants fitted without its source."""
    return unseen(rows, np.array([source_of(case) for case in rows.cases]), document()["sources"])


def variances(ratios: Sequence[Floats]) -> tuple[float, float]:
    """Return the variances of log(measured/predicted) between sources and within one, of the ratios of each source.

    Analysis of variance of S groups of nₛ rows, N in all: ``within = Σ (x − x̄ₛ)² / (N − S)``,
    ``between = (Σ nₛ·(x̄ₛ − x̄)² / (S − 1) − within) / n₀``, ``n₀ = (N − Σ nₛ²/N) / (S − 1)``, not below 0. Source: Searle,
    Casella & McCulloch, Variance Components (1992), §3.6.

    >>> pairs = [np.exp([0.0, 0.2]), np.exp([1.0, 1.2])]
    >>> [round(each, 4) for each in variances(pairs)]  # (1.0 − 0.02) / 2; 4·0.01 / 2
    [0.49, 0.02]
    """
    logs = [np.log(each) for each in ratios]
    sizes, means = np.array([len(each) for each in logs]), np.array([each.mean() for each in logs])
    rows, groups = float(sizes.sum()), len(logs)
    within = sum(float(((each - mean) ** 2).sum()) for each, mean in zip(logs, means, strict=True)) / (rows - groups)
    spread = float((sizes * (means - np.concatenate(logs).mean()) ** 2).sum()) / (groups - 1)
    typical = (rows - float((sizes**2).sum()) / rows) / (groups - 1)
    return max((spread - within) / typical, 0.0), within


def carried(between: float, within: float, runs: int = 1) -> float:
    """Return how much of what runs of an installation say of it carries over to its others: ``σ_b² / (σ_b² + σ_w²/n)``.

    The exponent of their measured/predicted; 1 where runs of one installation err alike or are many. Empirical Bayes: Efron &
    Morris, Data Analysis Using Stein's Estimator (1975); the variances are `variances` of published sources.

    >>> carried(0.01, 0.01), carried(0.01, 0.0), carried(0.01, 0.01, 9)
    (0.5, 1.0, 0.9)
    """
    return between / (between + within / runs)


def one_run(predicted: Floats, measured: Floats, share: float = 1.0) -> float | None:
    """Median error of a source once one of its runs has scaled it: over all pairs of (run given, run predicted).

    `share` is the exponent of the given run's measured/predicted.

    >>> round(one_run(np.array([2.0, 2.0]), np.array([1.0, 1.1])), 4)
    0.0955
    >>> round(one_run(np.array([1.0, 1.0]), np.array([1.21, 1.1]), share=0.5), 4)  # 1.1/1.1; √1.1/1.21
    0.0666
    """
    ratios = measured / predicted
    errors = np.abs(ratios[:, None] ** share / ratios[None, :] - 1.0)
    return float(np.median(errors[~np.eye(len(ratios), dtype=bool)])) if len(ratios) > 1 else None


def ratios_by_source(rows: Rows, predicted: Floats, taught: bool = False) -> dict[str, Floats]:
    """Return measured/predicted of every source's complete rows, or of those that constants are fitted to (`taught`).

    Sources that have two or more.
    """
    sources = np.array([source_of(case) for case in rows.cases])
    held = np.array([in_fit(case) if taught else case.get("completeness") == "full" for case in rows.cases])
    found = {name: np.flatnonzero((sources == name) & held) for name in sorted(set(sources.tolist()))}
    return {name: rows.measured_s[at] / predicted[at] for name, at in found.items() if len(at) > 1}


def one_run_given(rows: Rows, predicted: Floats) -> dict[str, Any]:
    """Score what one run of a source says of its others: how much carries over is learnt from the other sources alone.

    Rows that are set aside teach nothing: where the model lacks what a run does, its residual says nothing of installations. The
    median is of sources that were measured; a simulator's output is no installation.
    """
    ratios, taught = ratios_by_source(rows, predicted), ratios_by_source(rows, predicted, taught=True)
    shares = {name: carried(*variances([held for other, held in taught.items() if other != name])) for name in ratios}
    own = {name: one_run(np.ones(len(held)), held, shares[name]) for name, held in ratios.items()}
    simulated = {source_of(case) for case in rows.cases if is_simulated(case)}
    return {
        "median": float(
            np.median([value for name, value in own.items() if value is not None and name not in simulated])
        ),
        "sources": own,
        "shares": shares,
    }


def sweeps(rows: Sequence[Json], predicted: Floats, measured: Floats) -> list[dict[str, Any]]:
    """Score the choice of a mapping: rank correlation and regret of every job that was measured in several mappings.

    A job is a model, sequence, batch, precision and number of accelerators in one source. Regret is the measured time of the
    mapping that is predicted best, over the best measured one, less 1.
    """
    jobs: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for index, case in enumerate(rows):
        model, batch = case["model"], case["batch"]
        key = (source_of(case), model["ref"], model["seq"], batch["global"], case["precision"], case["cluster"]["gpus"])
        jobs[(*key, case.get("release"))].append(index)
    out = []
    for key, found in jobs.items():
        at = np.array(found)
        if len(at) < SWEEP:
            continue
        chosen = at[np.argmin(predicted[at])]
        out.append(
            {
                "source": key[0],
                "model": key[1],
                "accelerators": key[5],
                "mappings": len(at),
                "rank_correlation": rank_correlation(predicted[at], measured[at]),
                "regret": float(measured[chosen] / measured[at].min() - 1.0),
            }
        )
    return out


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; 0 where one side does not vary.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 15.0]))
    0.5
    """
    a, b = (np.array([np.mean(np.flatnonzero(np.sort(side) == value)) for value in side]) for side in (first, second))
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return 0.0
    return float(round(np.corrcoef(a, b)[0, 1], 12))


def bands(
    predicted: Floats, measured: Floats, held: Sequence[str], sources: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """90 % bands of measured/predicted by regime: of all rows, and without each source that has rows there.

    A band without its source that would rest on fewer than 20 rows is that of all other rows.
    """
    ratio, names, whose = measured / predicted, np.array(held), np.array(sources)

    def band(mask: npt.NDArray[np.bool_]) -> list[float]:
        low, high = np.quantile(ratio[mask], [0.05, 0.95])
        return [float(min(low, 1.0)), float(max(high, 1.0))]

    out: dict[str, dict[str, Any]] = {}
    for name in sorted(set(held)):
        here = names == name
        out[name] = {"all": band(here)}
        for source in sorted(set(whose[here].tolist())):
            others = here & (whose != source)
            out[name][source] = band(others if others.sum() >= 20 else whose != source)
    return out


def blocks(rows: Rows, scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the error document of the shipped runs holds beside its rows.

    `scored` are the rows of the document that have a prediction, in the order of `rows`.
    """
    predicted, full = by_source(rows), np.array([case.get("completeness") == "full" for case in rows.cases])
    left = [
        {**row, "predicted": float(value), "ape": scoring.ape(float(value), row["measured"])}
        for row, value in zip(scored, predicted, strict=True)
    ]
    figures, groups = scoring.summary(left)
    parts = np.array([row["predicted"] for row in scored], dtype=np.float64)
    choices = sweeps(rows.cases, parts, rows.measured_s)
    return {
        "complete": scoring.summary([row for row, whole in zip(scored, full, strict=True) if whole])[0],
        "leave_one_source_out": {
            "note": "constants fitted without the row's source: an installation of which nothing is known",
            **figures,
            "summary": figures,
            "groups": groups,
        },
        "one_run_given": one_run_given(rows, predicted),
        "sweeps": {
            "mean_regret": float(np.mean([choice["regret"] for choice in choices])),
            "median_rank_correlation": float(np.median([choice["rank_correlation"] for choice in choices])),
            "rows": choices,
        },
    }
