"""Would the better of two splits have been chosen: pairs of measured runs that differ in their split alone.

A question is a model, accelerator, engine, precision, lengths and clients. Two runs of one question that were measured
`MARGIN` apart are ranked right where the predictions stand in the same order. A release changes a time by more than many a
split does, so the pairs of one release stand beside all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

MARGIN: Final = 1.1
"""Splits are ranked where they are measured further apart than this."""
QUESTION: Final = ("model", "system", "engine", "precision", "isl", "osl", "concurrency")
Row = Mapping[str, Any]
Values = tuple[Row, float, float]
"""A row, and its measured and predicted value."""


def ranked(values: Sequence[Values]) -> dict[str, Any]:
    """Return how many pairs there are, and the share ranked right: of all, and of those of one release (None if none).

    >>> run = {"split": "1", "engine_version": "1.0"}
    >>> twins = [(run, 1.0, 1.1), (run | {"split": "2"}, 2.0, 1.9), (run | {"split": "4", "engine_version": "2.0"}, 3.0, 1.0)]
    >>> ranked(twins)
    {'pairs': 3, 'right': 0.3333333333333333, 'pairs_of_one_release': 1, 'right_of_one_release': 1.0}
    """
    asked: dict[tuple[Any, ...], list[Values]] = {}
    for value in values:
        asked.setdefault(tuple(value[0].get(name) for name in QUESTION), []).append(value)
    found = [pair for those in asked.values() for pair in _pairs(those)]
    alike = [right for right, one_release in found if one_release]
    return {
        "pairs": len(found),
        "right": sum(right for right, _ in found) / len(found) if found else None,
        "pairs_of_one_release": len(alike),
        "right_of_one_release": sum(alike) / len(alike) if alike else None,
    }


def _pairs(values: Sequence[Values]) -> Iterator[tuple[bool, bool]]:
    """Yield for every two splits that differ enough whether they are ranked right, and whether they are of one release."""
    for i, (one, measured, predicted) in enumerate(values):
        for other, other_measured, other_predicted in values[:i]:
            ratio = measured / other_measured
            if one["split"] != other["split"] and max(ratio, 1.0 / ratio) > MARGIN:
                one_release = one.get("engine_version") == other.get("engine_version")
                yield (predicted > other_predicted) == (ratio > 1.0), one_release


def rankings(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return how aggregated runs are ranked: by the time of a token, and by tokens per second and accelerator.

    Of n clients on g accelerators, ``n·osl / (TTFT + (osl − 1)·TPOT) / g``.
    """
    runs: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["predicted"] is not None and row["kind"] == f"{row['metric']} aggregated":
            runs.setdefault(row["id"].rpartition(":")[0], {})[row["metric"]] = row
    whole = [run for run in runs.values() if len(run) == 2]
    tokens = [(run["tpot"], run["tpot"]["measured"], run["tpot"]["predicted"]) for run in whole]
    rates = [(run["tpot"], _rate(run, "measured"), _rate(run, "predicted")) for run in whole]
    return {"tpot": ranked(tokens), "throughput per accelerator": ranked(rates)}


def _rate(run: Mapping[str, Row], key: str) -> float:
    """Tokens per second and accelerator of one run, measured or predicted."""
    row = run["tpot"]
    tp, dp = (float(size or 1) for size in row["split"].split("-")[:2])
    clients, osl = float(row["concurrency"]), float(row["osl"])
    return float(clients * osl / (run["ttft"][key] + (osl - 1.0) * row[key]) / (tp * dp))
