"""Residuals: how far a fitted formula stays from what was measured, as stored beside every set of constants."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from topo.columns import Column, ColumnLike, column


def ape(predicted: ColumnLike, measured: ColumnLike) -> Column:
    """Absolute percentage error as a fraction: |predicted/measured − 1|.

    >>> ape([11.0, 9.0], 10.0).round(3)
    array([0.1, 0.1])
    """
    return np.abs(column(predicted) / column(measured) - 1.0)


def residuals(predicted: ColumnLike, measured: ColumnLike) -> dict[str, float | int]:
    """Summary of a fit: n, median and 90th percentile of the error, and the 90 % band of measured/predicted.

    `low` and `high` are the 5th and 95th percentile of measured/predicted: a prediction times these is its interval.

    >>> residuals([10.0, 10.0, 10.0], [9.0, 10.0, 12.0])
    {'n': 3, 'median': 0.1111, 'p90': 0.1556, 'low': 0.91, 'high': 1.18}
    """
    error, ratio = ape(predicted, measured), column(measured) / column(predicted)
    low, high = np.quantile(ratio, [0.05, 0.95])
    return {
        "n": int(error.size),
        "median": significant(np.median(error)),
        "p90": significant(np.quantile(error, 0.9)),
        "low": significant(low),
        "high": significant(high),
    }


def bands(predicted: ColumnLike, measured: ColumnLike, regime: ColumnLike, most: int = 6) -> list[list[float]]:
    """90 % bands of measured/predicted by regime: [regime up to, low, high], as many rows in each, the last open.

    There are `most` bands, or fewer so that each holds 40 rows; with fewer than 80 rows there is one. Every band holds
    1, the prediction itself, also where nearly all rows of a regime lie on one side of it.

    >>> bands([1.0, 1.0], [0.9, 1.1], [5.0, 7.0])
    [[inf, 0.91, 1.09]]
    """
    ratio, place = column(measured) / column(predicted), column(regime)
    count = max(1, min(most, ratio.size // 40))
    edges = [significant(edge) for edge in np.quantile(place, np.arange(1, count) / count)] + [float("inf")]
    at = np.searchsorted(edges[:-1], place)
    held = [(edge, ratio[at == index]) for index, edge in enumerate(edges) if (at == index).any()]
    limits = [(edge, *np.quantile(part, [0.05, 0.95])) for edge, part in held]
    return [[edge, significant(min(low, 1.0)), significant(max(high, 1.0))] for edge, low, high in limits]


def significant(value: ColumnLike, digits: int = 4) -> float:
    """Round a number to significant digits, as the data files hold it; below a trillionth it is 0.

    >>> significant(1.234567e-6), significant(3e-17)
    (1.235e-06, 0.0)
    """
    number = float(column(value))
    return float(f"{number:.{digits - 1}e}") if abs(number) >= 1e-12 else 0.0


def write_yaml(document: dict[str, Any], file: Path, header: str) -> None:
    """Write a data file: a comment line, then the document with its keys in their order and short lists inline."""
    text = yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False, default_flow_style=None, width=118)
    file.write_text(f"# {header}\n{text}", encoding="utf-8")
