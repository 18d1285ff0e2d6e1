"""Keeping the best: Pareto fronts and winners of a block, merged associatively, so that any partition gives one answer."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from parallel.strategy import Index
from topo.columns import Column


def pareto(x: Column, y: Column) -> npt.NDArray[np.int64]:
    """Return the rows that no other row beats in both objectives (larger is better), best `x` first.

    Of rows with equal objectives the first is kept.

    >>> pareto(np.array([1.0, 2.0, 3.0, 2.0]), np.array([3.0, 2.0, 1.0, 1.0])).tolist()
    [2, 1, 0]
    """
    order = np.lexsort((np.arange(len(x)), -y, -x))
    best = np.maximum.accumulate(np.concatenate(([-np.inf], y[order][:-1])))
    return order[y[order] > best]


@dataclass(frozen=True)
class Found:
    """What a range of strategies came to.

    Attributes
    ----------
    points, feasible : strategies looked at, and those that are valid, fit in memory and keep the limits
    rejected : count by reason
    front : linear indices of the Pareto front, with its objectives `front_x` (interactivity), `front_y` (throughput)
    best : linear index of the best feasible strategy, -1 when there is none, and its objective
    """

    points: int = 0
    feasible: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    front: Index = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    front_x: Column = field(default_factory=lambda: np.empty(0))
    front_y: Column = field(default_factory=lambda: np.empty(0))
    best: int = -1
    best_value: float = -np.inf
    nearest: int = -1
    nearest_value: float = np.inf


def merge(a: Found, b: Found) -> Found:
    """Join two results; associative, and of equal values the lower index wins."""
    index = np.concatenate((a.front, b.front))
    x, y = np.concatenate((a.front_x, b.front_x)), np.concatenate((a.front_y, b.front_y))
    order = np.argsort(index, kind="stable")
    keep = order[pareto(x[order], y[order])]
    winner = min((a, b), key=lambda f: (-f.best_value, f.best))
    close = min((a, b), key=lambda f: (f.nearest_value, f.nearest))
    reasons = {*a.rejected, *b.rejected}
    return Found(
        points=a.points + b.points,
        feasible=a.feasible + b.feasible,
        rejected={name: a.rejected.get(name, 0) + b.rejected.get(name, 0) for name in sorted(reasons)},
        front=index[keep],
        front_x=x[keep],
        front_y=y[keep],
        best=winner.best,
        best_value=winner.best_value,
        nearest=close.nearest,
        nearest_value=close.nearest_value,
    )
