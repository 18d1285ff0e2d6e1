"""What a search keeps: counts, fronts, winners, histograms; merged in any order and any partition to the same bits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from parallel.strategy import Index
from topo.columns import Column

BINS_PER_DECADE: Final = 20
DECADES: Final = (-9, 12)
"""Histograms have fixed bins, so that those of two blocks add up: 20 to a decade, from 1e-9 to 1e12."""


def pareto(*objectives: Column) -> Index:
    """Return the rows that no other row beats in every objective (larger is better), best in the first objective first.

    Of rows with equal objectives the first is kept.

    >>> pareto(np.array([1.0, 2.0, 3.0, 2.0]), np.array([3.0, 2.0, 1.0, 1.0])).tolist()
    [2, 1, 0]
    >>> pareto(np.array([1.0, 1.0]), np.array([2.0, 1.0]), np.array([0.0, 5.0])).tolist()
    [0, 1]
    """
    order = np.lexsort((np.arange(len(objectives[0])), *(-values for values in reversed(objectives))))
    if len(objectives) == 1:
        return order[:1]
    if len(objectives) == 2:
        second = objectives[1][order]
        before = np.maximum.accumulate(np.concatenate(([-np.inf], second[:-1])))
        return order[second > before]
    left, place = np.stack([values[order] for values in objectives], axis=1), 0
    while place < len(left):
        kept = np.any(left > left[place], axis=1)
        kept[place] = True
        order, left = order[kept], left[kept]
        place += 1  # rows before it are sorted above it: none of them goes
    return order


def above(front: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which rows of two objectives a front, best in the first objective first, does not reach.

    >>> above(np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([[2.0, 1.0], [2.0, 2.0], [4.0, 0.0]])).tolist()
    [False, True, True]
    """
    first, second = front[::-1, 0], front[::-1, 1]
    place = np.searchsorted(first, values[:, 0], side="left")
    return np.asarray(values[:, 1] > np.append(second, -np.inf)[place])


def binned(values: Column) -> Index:
    """Return how many values fall into each bin of a decade's twentieth.

    >>> counts = binned(np.array([1.0, 1.0, 10.0]))
    >>> [(bin_edge(int(place)), int(counts[place])) for place in np.flatnonzero(counts)]
    [(1.0, 2), (10.0, 1)]
    """
    low, high = (decade * BINS_PER_DECADE for decade in DECADES)
    places = np.floor(np.log10(np.maximum(values, 1e-300)) * BINS_PER_DECADE + 1e-9).clip(low, high - 1) - low
    return np.bincount(places.astype(np.int64), minlength=high - low).astype(np.int64)


def bin_edge(place: int) -> float:
    """Lower edge of a bin."""
    return float(10.0 ** (DECADES[0] + place / BINS_PER_DECADE))


def _none() -> Index:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Found:
    """What some strategies of one task came to.

    Attributes
    ----------
    points, feasible : strategies looked at, and those that are valid, fit in memory and keep the limits
    rejected : count by reason
    front, front_values : linear indices of the Pareto front, and its objectives (rows × objectives, larger is better)
    top, top_values : linear indices of the best feasible strategies, best first, and what they are ranked by
    most : how many of them are kept
    nearest, nearest_value : index and latency of the fastest strategy that fits in memory, -1 where none does
    counts : histogram of the ranking objective over feasible rows, empty where none was asked for
    poisoned : (index, error) of strategies whose price failed
    islands : what each climb of a sampled search ended with; empty where all was searched
    """

    points: int = 0
    feasible: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    front: Index = field(default_factory=_none)
    front_values: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    top: Index = field(default_factory=_none)
    top_values: Column = field(default_factory=lambda: np.empty(0))
    most: int = 1
    nearest: int = -1
    nearest_value: float = np.inf
    counts: Index = field(default_factory=_none)
    poisoned: tuple[tuple[int, str], ...] = ()
    islands: tuple[float, ...] = ()

    @property
    def best(self) -> int:
        """Linear index of the best feasible strategy, -1 where there is none."""
        return int(self.top[0]) if len(self.top) else -1

    @property
    def best_value(self) -> float:
        """What the best feasible strategy is ranked by, minus infinity where there is none."""
        return float(self.top_values[0]) if len(self.top) else -np.inf


def ranked(index: Index, values: Column, most: int) -> tuple[Index, Column]:
    """Return the `most` largest values and their indices, largest first; of equal values the lower index wins.

    >>> ranked(np.array([7, 3, 9]), np.array([1.0, 2.0, 2.0]), 2)[0].tolist()
    [3, 9]
    """
    if len(values) > 4 * most:
        edge = np.partition(values, len(values) - most)[len(values) - most]
        index, values = index[values >= edge], values[values >= edge]
    order = np.lexsort((index, -values))[:most]
    return index[order], values[order]


def merge(a: Found, b: Found) -> Found:
    """Join two results; associative and commutative, and of equal values the lower index wins."""
    most = max(a.most, b.most)
    both, first = np.unique(np.concatenate((a.top, b.top)), return_index=True)  # climbs may meet
    top, top_values = ranked(both, np.concatenate((a.top_values, b.top_values))[first], most)
    front, front_values = _joined_front(a, b)
    near = min((a, b), key=lambda found: (found.nearest_value, found.nearest))
    return Found(
        points=a.points + b.points,
        feasible=a.feasible + b.feasible,
        rejected={k: a.rejected.get(k, 0) + b.rejected.get(k, 0) for k in sorted({*a.rejected, *b.rejected})},
        front=front,
        front_values=front_values,
        top=top,
        top_values=top_values,
        most=most,
        nearest=near.nearest,
        nearest_value=near.nearest_value,
        counts=a.counts + b.counts if len(a.counts) and len(b.counts) else max(a.counts, b.counts, key=len),
        poisoned=tuple(sorted({*a.poisoned, *b.poisoned})),
        islands=tuple(sorted((*a.islands, *b.islands))),
    )


def _joined_front(a: Found, b: Found) -> tuple[Index, npt.NDArray[np.float64]]:
    if not len(a.front) or not len(b.front):
        whole = a if len(a.front) else b
        return whole.front, whole.front_values
    index, values = np.concatenate((a.front, b.front)), np.concatenate((a.front_values, b.front_values))
    order = np.argsort(index, kind="stable")
    keep = order[pareto(*values[order].T)]
    return index[keep], values[keep]


def to_json(found: Found) -> dict[str, Any]:
    """Return a result in what JSON knows; floats survive exactly, for Python writes the shortest text that reads back.

    >>> from_json(to_json(Found(points=3, nearest=1, nearest_value=0.1))).nearest_value
    0.1
    """
    return {
        item.name: value.tolist() if isinstance(value := getattr(found, item.name), np.ndarray) else value
        for item in fields(Found)
    }


def from_json(data: Mapping[str, Any]) -> Found:
    """Return the result that `to_json` wrote."""
    kept: dict[str, Any] = dict(data)
    for name in ("front", "top", "counts"):
        kept[name] = np.array(kept[name], dtype=np.int64)
    kept["top_values"] = np.array(kept["top_values"], dtype=np.float64)
    width = len(kept["front_values"][0]) if kept["front_values"] else 2
    kept["front_values"] = np.array(kept["front_values"], dtype=np.float64).reshape(-1, width)
    kept["islands"] = tuple(kept["islands"])
    kept["poisoned"] = tuple((int(index), str(error)) for index, error in kept["poisoned"])
    return Found(**kept)


def merged(parts: Sequence[Found]) -> Found:
    """Join any number of results."""
    total = Found()
    for part in parts:
        total = merge(total, part)
    return total
