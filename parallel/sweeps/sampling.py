"""A search within a budget: several independent climbs from random places, and what their disagreement says of the rest.

Each of up to `ISLANDS` climbs prices half of its share at random places of the pruned space, then moves its best along one axis
after the other until no step helps or its share is spent. Climbs that all end at the same value have probably found
the best; the regret is estimated as ``1 − median/best`` of what they found. Seeded: the same budget, the same answer.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from parallel.strategy import Index
from parallel.sweeps.cut import Cut
from parallel.sweeps.evaluate import BLOCK, evaluate, judged
from parallel.sweeps.found import Found, merge
from parallel.sweeps.task import Bound

ISLANDS: Final = 8


def sampled(bound: Bound, rest: Cut, budget: int, seed: int = 0) -> Found:
    """Search at most `budget` strategies of what pruning left; everything, where that is no more.

    `Found.islands` holds what each climb ended with.
    """
    if len(rest.heads) * rest.tail <= budget:
        return evaluate(bound, rest, 0, len(rest.heads))
    found, ends = Found(most=bound.task.ask.most), []
    islands = min(ISLANDS, budget)
    for island in range(islands):
        climbed = _climb(bound, rest, budget // islands, np.random.default_rng([seed, island]))
        found = merge(found, climbed)
        ends.append(climbed.best_value)
    return replace(found, islands=tuple(ends))


def regret(islands: tuple[float, ...]) -> float:
    """Return the estimated share by which the best found falls short: ``1 − median/best``, 1 where most found nothing.

    >>> regret((10.0, 10.0, 9.0)), regret(()), regret((5.0, -np.inf, -np.inf))
    (0.0, 0.0, 1.0)
    """
    if not islands:
        return 0.0
    best, middle = max(islands), float(np.median(islands))
    return float(min(1.0, abs(best - middle) / abs(best))) if np.isfinite(middle) and best else 1.0


def _climb(bound: Bound, rest: Cut, share: int, random: np.random.Generator) -> Found:
    """Price random places, then neighbours of the best, until nothing improves or the share is spent."""
    found, spent = Found(most=bound.task.ask.most), 0
    places = np.unique(random.integers(0, len(rest.heads) * rest.tail, max(1, share // 2)))
    for lo in range(0, len(places), BLOCK):
        found = merge(found, judged(bound, rest, rest.of(places[lo : lo + BLOCK]), found))
    spent += len(places)
    while found.best >= 0 and spent < share:
        near = _neighbours(bound, rest, found.best)[: share - spent]
        if not len(near):
            break
        before, spent = found.best_value, spent + len(near)
        found = merge(found, judged(bound, rest, near, found))
        if found.best_value <= before:
            break
    return found


def _neighbours(bound: Bound, rest: Cut, index: int) -> Index:
    """Return the indices that differ from one in a single axis, and whose prefix lives."""
    shape = bound.task.space.shape
    here = np.array(np.unravel_index(index, shape))
    moved = []
    for axis, size in enumerate(shape):
        others = np.delete(np.arange(size), here[axis])
        rows = np.repeat(here[:, None], len(others), axis=1)
        rows[axis] = others
        moved.append(np.ravel_multi_index(tuple(rows), shape))
    found = np.concatenate(moved).astype(np.int64)
    heads = found // rest.tail
    place = np.searchsorted(rest.heads, heads).clip(max=len(rest.heads) - 1)
    return np.sort(found[rest.heads[place] == heads])
