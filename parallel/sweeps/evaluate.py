"""A block of strategies: judge, price, reduce. The unit of work of every executor is a run of whole blocks."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import numpy as np

from parallel import rules
from parallel.priced import Priced
from parallel.strategy import Index, keep_temporaries
from parallel.sweeps.cut import Cut, cut, living
from parallel.sweeps.found import Found, above, binned, merge, pareto, ranked
from parallel.sweeps.objectives import OBJECTIVES, better
from parallel.sweeps.task import PHASES, Bound, Task
from topo.columns import Column
from topo.errors import Fault, PodscaleError, SpecError

BLOCK: Final = 1 << 17
"""Valid strategies per block: they fit the cache. Part of the definition, so that any executor gives the same bits."""
PART: Final = 1 << 21
"""Strategies of a unit of work, valid or not: half a second or so, enough for Ray to pay and a smooth progress bar."""
FAILED: Final = "its price failed"
POISONED: Final = 64
"""Strategies of a unit whose price may fail before all of it counts as failed."""


def head(size: int, rest: Cut) -> Found:
    """Return what pruning came to, before any strategy was priced."""
    return Found(points=size - len(rest.heads) * rest.tail, rejected=rest.rejected)


def step(tail: int) -> int:
    """Return how many prefixes make a unit of work, when each has a tail of so many strategies."""
    return max(1, PART // tail)


def evaluate(bound: Bound, rest: Cut, lo: int, hi: int) -> Found:
    """Judge, price and reduce all strategies of the prefixes ``lo … hi-1`` of what pruning left.

    A strategy whose price fails is found by halving and reported; it takes nothing else with it.
    """
    rejected: dict[str, int] = {}
    found = Found(most=bound.task.ask.most)
    for index in _blocks(living(bound, rest.levels, rest.heads[lo:hi], rejected)):
        found = merge(found, _guarded(bound, index, found))
    looked = max(min(hi, len(rest.heads)) - lo, 0) * rest.tail
    return merge(found, Found(points=looked - found.points, rejected=rejected))


def _blocks(slices: Iterable[Index]) -> Iterator[Index]:
    """Yield the strategies of slices in blocks of `BLOCK`, the last one shorter."""
    held = np.empty(0, dtype=np.int64)
    for some in slices:
        held = np.concatenate((held, some))
        whole = len(held) // BLOCK * BLOCK
        yield from (held[lo : lo + BLOCK] for lo in range(0, whole, BLOCK))
        held = held[whole:]
    if len(held):
        yield held


def _guarded(bound: Bound, index: Index, seen: Found) -> Found:
    """Price strategies; where that fails, halve them until those that fail stand alone."""
    try:
        return priced(bound, index, seen)
    except PodscaleError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if len(seen.poisoned) >= POISONED:
            problem, remedy = f"fails for more than {POISONED} strategies: {told}", "please report it"
            raise SpecError([Fault("price", None, problem, remedy)]) from error
        if len(index) == 1:
            return Found(points=1, rejected={FAILED: 1}, poisoned=((int(index[0]), told),), most=seen.most)
        first = _guarded(bound, index[: len(index) // 2], seen)
        return merge(first, _guarded(bound, index[len(index) // 2 :], merge(seen, first)))


def judged(bound: Bound, rest: Cut, index: Index, seen: Found) -> Found:
    """Judge and price single strategies that pruning left, wherever they lie, and reduce them."""
    broken = rules.first_broken(rest.rules, bound.at(index), bound.setting)
    rejected: dict[str, int] = {}
    for rule, count in zip(rest.rules, np.bincount(broken + 1, minlength=len(rest.rules) + 1)[1:], strict=True):
        if count:
            rejected[rule.name] = rejected.get(rule.name, 0) + int(count)
    valid = index[broken < 0]
    refused = Found(points=len(index) - len(valid), rejected=rejected, most=seen.most)
    return merge(refused, _guarded(bound, valid, seen)) if len(valid) else refused


def priced(bound: Bound, index: Index, seen: Found) -> Found:
    """Price valid strategies and reduce them. `seen` is known already: rows that its front beats need no sorting."""
    return _kept(bound, index, bound.price(bound.at(index)), seen)


def _kept(bound: Bound, index: Index, priced: Priced, seen: Found) -> Found:
    """Reduce priced rows: count what fails and why, keep front, winners and nearest miss."""
    phase, ask = PHASES[bound.task.phase], bound.task.ask
    needed, latency = priced.memory_bytes, phase.latency(priced)
    rank = better(bound, priced, ask.rank)
    rate = priced.extra["tokens_per_s_per_gpu"]
    sound = np.isfinite(needed) & np.isfinite(latency) & np.isfinite(rate) & np.isfinite(rank)
    fits = sound & (needed <= bound.cluster.accelerator.usable_bytes)
    refused = {"no finite price": sound, "memory": fits}
    feasible = fits & (latency <= phase.limit_s(bound.task))
    refused[phase.limit_name] = feasible
    for name, limit in ask.limits:
        feasible = feasible & (better(bound, priced, name) >= OBJECTIVES[name].sense * limit)
        refused[f"limit of {name}"] = feasible
    left, rejected = len(index), dict[str, int]()
    for name, passed in refused.items():
        if lost := left - (left := int(np.count_nonzero(passed))):
            rejected[name] = rejected.get(name, 0) + lost
    kept = np.flatnonzero(feasible if ask.limited else fits)
    front, front_values = _front(bound, priced, kept, seen)
    near = int(np.argmin(np.where(fits, latency, np.inf)))
    winners = np.flatnonzero(feasible)
    top, top_values = ranked(index[winners], rank[winners], ask.most)
    return Found(
        points=len(index),
        feasible=left,
        rejected=rejected,
        front=index[front],
        front_values=front_values,
        top=top,
        top_values=top_values,
        most=ask.most,
        nearest=int(index[near]) if fits.any() else -1,
        nearest_value=float(latency[near]) if fits.any() else np.inf,
        counts=binned(np.abs(rank[winners])) if ask.histogram else np.empty(0, dtype=np.int64),
    )


def _front(bound: Bound, priced: Priced, kept: Index, seen: Found) -> tuple[Index, Column]:
    """Rows of the Pareto front among the kept ones, and their objectives."""
    values = np.stack([better(bound, priced, name) for name in bound.task.ask.front], axis=1)
    if len(seen.front) and values.shape[1] == 2:
        kept = kept[above(seen.front_values, values[kept])]
    front = kept[pareto(*values[kept].T)]
    return front, values[front]


@lru_cache(maxsize=8)
def _prepared(task: Task) -> tuple[Bound, Cut]:
    bound = Bound.of(task)
    return bound, cut(bound)


def prepare(task: Task) -> tuple[Bound, Cut]:
    """Build a task's cluster and prune its space, once for each task and process."""
    keep_temporaries()
    return _prepared(task)
