"""Error tables: how far predictions lie from measurements, row-weighted and averaged over groups.

A row is a mapping with `measured`, `predicted` (None where skipped), `interval` (a pair or None) and `group`. Errors
are fractions: 0.05 is 5 %. A figure of no rows is None, never 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Row = Mapping[str, Any]
Figures = dict[str, float | int | None]


def ape(predicted: float, measured: float) -> float:
    """Absolute error as a share of the measurement: |predicted/measured - 1|.

    >>> round(ape(1.1, 1.0), 12)
    0.1
    """
    return abs(predicted / measured - 1.0)


def predicted_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have a prediction."""
    return [row for row in rows if row["predicted"] is not None]


def _errors(rows: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Signed errors, predicted/measured - 1."""
    return np.array([row["predicted"] / row["measured"] - 1.0 for row in rows], dtype=np.float64)


def coverage(rows: Sequence[Row]) -> float | None:
    """Share of the measurements that lie in their interval, of the rows that have one.

    >>> coverage([{"measured": 2.0, "interval": (1.0, 3.0)}, {"measured": 4.0, "interval": (1.0, 3.0)}])
    0.5
    """
    held = [row["interval"][0] <= row["measured"] <= row["interval"][1] for row in rows if row.get("interval")]
    return float(np.mean(held)) if held else None


def width(rows: Sequence[Row]) -> float | None:
    """Median width of the intervals, as a share of the measurement, of the rows that have one.

    >>> width([{"measured": 2.0, "interval": (1.0, 3.0)}])
    1.0
    """
    widths = [(row["interval"][1] - row["interval"][0]) / row["measured"] for row in rows if row.get("interval")]
    return float(np.median(widths)) if widths else None


def score(rows: Sequence[Row]) -> Figures:
    """Return the figures of some rows: counts, median, mean and 90th percentile of the error, bias, coverage, width.

    `bias` is the signed median: negative where predictions are too short.

    >>> rows = [{"measured": 1.0, "predicted": p, "interval": None} for p in (0.9, 1.2, 1.3)]
    >>> figures = score([*rows, {"measured": 1.0, "predicted": None, "interval": None}])
    >>> figures["n"], figures["predicted"], figures["skipped"], round(figures["median_ape"], 6), round(figures["bias"], 6)
    (4, 3, 1, 0.2, 0.2)
    """
    scored = predicted_rows(rows)
    errors = _errors(scored)
    sizes = np.abs(errors)
    known = len(scored) > 0
    return {
        "n": len(rows),
        "predicted": len(scored),
        "skipped": len(rows) - len(scored),
        "median_ape": float(np.median(sizes)) if known else None,
        "mean_ape": float(np.mean(sizes)) if known else None,
        "p90_ape": float(np.quantile(sizes, 0.9)) if known else None,
        "bias": float(np.median(errors)) if known else None,
        "coverage": coverage(scored),
        "width": width(scored),
    }


def by_group(rows: Sequence[Row], key: str = "group") -> dict[str, Figures]:
    """Return the figures of every group, by name."""
    names = sorted({row[key] for row in rows})
    return {name: score([row for row in rows if row[key] == name]) for name in names}


def macro(groups: Mapping[str, Figures], figure: str) -> float | None:
    """Mean over groups of one of their figures; groups without one do not count.

    >>> macro({"a": {"median_ape": 0.1}, "b": {"median_ape": 0.3}, "c": {"median_ape": None}}, "median_ape")
    0.2
    """
    values = [figures[figure] for figures in groups.values() if figures[figure] is not None]
    return float(np.mean(np.array(values, dtype=np.float64))) if values else None


def summary(rows: Sequence[Row], key: str = "group") -> tuple[Figures, dict[str, Figures]]:
    """Return the summary of a set, macro averages included, and the figures of its groups."""
    groups = by_group(rows, key)
    extra = {f"macro_{figure}": macro(groups, figure) for figure in ("median_ape", "p90_ape")}
    return {**score(rows), **extra}, groups
