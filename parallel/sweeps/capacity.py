"""What a sweep will take, before it is run: rates measured on a sample of its units, extrapolated to any number of cores.

Units go out from one driver and come back to it. Workers share the work; the driver takes in every result alone. So the
time is that of whichever is slower, and beyond some number of cores it is always the driver.
"""

import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import numpy as np

from parallel.executors import Cell
from parallel.executors.store import Store
from parallel.sweeps.answer import priced
from parallel.sweeps.evaluate import prepare, step
from parallel.sweeps.plan import Sweep
from parallel.sweeps.units import Done, Unit, work
from topo.errors import PodscaleError

T = TypeVar("T")
TASK_S: Final = 0.5e-3
"""The driver's time to hand a task to Ray and learn that it is done: 2,000 a second, measured with Ray 2.60."""
KINDS: Final = 12
"""Models and workloads that are measured; of more, so many are taken evenly."""
UNITS: Final = 24
"""Units of a cell that are measured, evenly over it: where few strategies are valid, units are shorter."""
PATIENCE_S: Final = 3.0
"""CPU time after which no further unit of a cell is measured."""


@dataclass(frozen=True)
class Kind:
    """Cells of one model and workload, told by one of them; what it counts is per cell or per unit.

    Attributes
    ----------
    cells : how many there are
    points, left : strategies of a cell's space, and those that pruning leaves
    units : units of a cell
    prune_s, unit_s : seconds of a core to prune the cell, and to do a unit once it is pruned
    priced : strategies of a unit that are priced in full, memory verdict included
    """

    name: str
    cells: float
    points: float
    left: float
    units: float
    prune_s: float
    unit_s: float
    priced: float


@dataclass(frozen=True)
class Measured:
    """What a sample of a sweep's units says of all of it.

    Attributes
    ----------
    plan_bytes : goes to every worker once
    unit_bytes, done_bytes : go out and come back with every unit
    result_s : seconds of the driver to read, merge and write down what came of a unit
    memory_bytes : the largest that this process has been, as a worker would be
    """

    kinds: tuple[Kind, ...]
    plan_bytes: float
    unit_bytes: float
    done_bytes: float
    result_s: float
    memory_bytes: float
    task_s: float = TASK_S

    def total(self, of: Callable[[Kind], float]) -> float:
        """Sum over all cells of what `of` says of one."""
        return float(sum(kind.cells * of(kind) for kind in self.kinds))


def work_s(told: Measured, cores: float = 1) -> float:
    """Return the seconds of one core that all units take: ``Σ units · unit_s + min(units, cores) · prune_s``.

    A worker prunes a cell when it gets a unit of it for the first time.
    """
    return told.total(lambda kind: kind.units * kind.unit_s + min(kind.units, cores) * kind.prune_s)


def driver_s(told: Measured) -> float:
    """Return the seconds of the driver: units, each handed out and taken in."""
    return told.total(lambda kind: kind.units) * (told.result_s + told.task_s)


def seconds(told: Measured, cores: float) -> float:
    """Return how long the sweep takes: the workers' share, the driver's own work or the longest unit, whichever is most.

    A single core is worker and driver at once, without Ray.
    """
    if cores <= 1:
        return work_s(told) + told.total(lambda kind: kind.units) * told.result_s
    longest = max(kind.prune_s + kind.unit_s for kind in told.kinds)
    return max(work_s(told, cores) / cores, driver_s(told), longest)


def useful_cores(told: Measured) -> float:
    """Return the number of cores beyond which the driver is the limit: a unit's work over the driver's share of it."""
    return told.total(lambda kind: kind.units * kind.unit_s) / driver_s(told)


def scaled(told: Measured, factor: float) -> Measured:
    """Return a sweep of so many times the cells."""
    return replace(told, kinds=tuple(replace(kind, cells=factor * kind.cells) for kind in told.kinds))


def measure(asked: Sweep) -> Measured:
    """Prune some cells of a sweep, do a few units of each, and time it. CPU seconds: a busy machine changes little."""
    done: list[Done] = []
    kinds = [kind for name, cells in _kinds(asked) if (kind := _kind(asked, name, cells, done)) is not None]
    return Measured(
        kinds=tuple(kinds),
        plan_bytes=len(pickle.dumps(asked)),
        unit_bytes=len(pickle.dumps(Unit(asked.cells, 1, 2))),
        done_bytes=float(np.mean([len(pickle.dumps(one)) for one in done])) if done else 0.0,
        result_s=_result_s(asked, done),
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _kinds(asked: Sweep) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and the cells of every model and workload, or of some, evenly."""
    many = len(asked.models) * len(asked.works)
    for kind in np.unique(np.linspace(0, many - 1, min(KINDS, many)).astype(int)).tolist():
        said = asked.settings(kind)
        yield f"{said['model']}, {said['phase']}", list(range(kind, asked.cells, many))


def _kind(asked: Sweep, name: str, cells: list[int], done: list[Done]) -> Kind | None:
    """Measure the cell in the middle, or the next that can be built; what its units came to is added to `done`."""
    for cell in (*cells[len(cells) // 2 :], *cells[: len(cells) // 2]):
        try:
            task = asked.task(cell)
            (_, rest), prune_s = _timed(lambda task=task: prepare(task))  # type: ignore[misc]
        except PodscaleError:
            continue
        size, many = len(rest.heads), step(rest.tail)
        units = 1 if asked.budget else max(1, -(-size // many))
        start, seen = time.process_time(), list[tuple[float, float]]()
        for place in _places(units):
            lo = place * many
            unit = Unit(cell, lo, 0 if asked.budget else min(lo + many, size))
            came, unit_s = _timed(lambda unit=unit: work(asked, unit))  # type: ignore[misc]
            done.append(came)
            seen.append((unit_s, priced(came.found)))
            if time.process_time() - start > PATIENCE_S:
                break
        unit_s, full = np.mean(seen, axis=0).tolist()
        share = asked.cells / min(KINDS, len(asked.models) * len(asked.works))
        return Kind(name, share, task.space.size, size * rest.tail, units, prune_s, unit_s, full)
    return None


def _places(units: int) -> list[int]:
    """Return the units to measure: the middles of equal parts, in an order that a stop leaves evenly spread.

    >>> _places(4), len(_places(1000))
    ([0, 2, 1, 3], 24)
    """
    many = min(UNITS, units)
    places = (np.arange(many) + 0.5) * units / many
    return [int(places[at]) for first in (0, 1) for at in range(first, many, 2)]


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def _result_s(asked: Sweep, done: list[Done]) -> float:
    """Return the driver's seconds for one result: read it, merge it, write it down."""
    if not done:
        return 0.0
    told = [(Unit(0, place, place + 1), pickle.dumps(one)) for place, one in enumerate(done)]
    with TemporaryDirectory() as folder:
        store, cell, start = Store(asked.fingerprint, folder), Cell(), time.process_time()
        for unit, text in told:
            one = pickle.loads(text)  # noqa: S301  (written a line above)
            cell.join(unit, one)
            store.add(unit, one)
        return (time.process_time() - start) / len(told)


def capacity(asked: Sweep, cores: int = 1000, points: float = 1e12) -> dict[str, Any]:
    """Return the capacity plan of a sweep: what was measured of it here and now, and what follows for many cores.

    Parameters
    ----------
    cores : workers to extrapolate to
    points : strategies to extrapolate to

    Returns
    -------
    dict
        `lines`: name, value, unit, how it is known (measured, assumed, computed), and what it rests on; `kinds`: what was
        measured of every model and workload.
    """
    told = measure(asked)
    return {
        "name": asked.name,
        "cells": asked.cells,
        "lines": lines(told, cores, points),
        "kinds": list(map(vars, told.kinds)),
    }


def lines(told: Measured, cores: int, points: float) -> list[dict[str, Any]]:
    """Return the lines of the plan."""
    all_points = told.total(lambda kind: kind.points)
    left, full = told.total(lambda kind: kind.left), told.total(lambda kind: kind.units * kind.priced)
    units, busy_s = told.total(lambda kind: kind.units), told.total(lambda kind: kind.units * kind.unit_s)
    if not units:
        return []
    more, fully = scaled(told, points / all_points), scaled(told, points / full) if full else None
    pace = "the driver sets the pace" if driver_s(told) > work_s(told, cores) / cores else "the workers set the pace"
    made = [
        ("strategies", all_points, "", "computed", "the space of one cell of each model and workload, for all its cells"),
        ("refused before any is decoded", 1 - left / all_points, "share", "measured", "by pruning of those cells"),
        ("priced in full", full, "", "measured", "share of the units that were done, for all; memory verdict included"),
        ("units", units, "", "computed", "two million strategies each, before rules of the last axes"),
        ("rate of one core, strategies judged", left / busy_s, "1/s", "measured", _sample(told)),
        ("rate of one core, priced in full", full / busy_s, "1/s", "measured", "the same units"),
        ("a unit on one core", busy_s / units, "s", "measured", "mean over all units"),
        ("pruning of a cell", _pruning(told), "s", "measured", "once for every worker that gets a unit of the cell"),
        ("plan, to every worker", told.plan_bytes, "B", "measured", "pickled; once"),
        ("task, out", told.unit_bytes, "B", "measured", "pickled, without what Ray adds"),
        ("result, back", told.done_bytes, "B", "measured", "pickled: front, best, counts"),
        ("memory of a worker", told.memory_bytes, "B", "measured", "the largest this process has been, imports included"),
        ("driver, one result", told.result_s, "s", "measured", "read, merge, write to disk"),
        ("driver, one task in Ray", told.task_s, "s", "assumed", "2,000 tasks a second, measured with Ray 2.60"),
        ("driver's limit", 1 / (told.result_s + told.task_s), "units/s", "computed", "one over the sum of the two"),
        ("cores that one driver keeps busy", useful_cores(told), "", "computed", "a unit's work over the driver's share"),
        ("this sweep on 1 core", seconds(told, 1), "s", "computed", "serial; units are alike"),
        (f"this sweep on {cores:,} cores", seconds(told, cores), "s", "computed", f"cores like this one; {pace}"),
        (f"{_power(points)} strategies on {cores:,} cores", seconds(more, cores), "s", "computed", "more cells of this mix"),
    ]  # fmt: skip
    if fully:
        made.append(
            (f"{_power(points)} priced in full on {cores:,} cores", seconds(fully, cores), "s", "computed", "likewise")
        )
    return [dict(zip(("name", "value", "unit", "how", "rests_on"), line, strict=True)) for line in made]


def _power(value: float) -> str:
    """Write a large round number.

    >>> _power(1e12), _power(2.5e9)
    ('10^12', '2.5e+09')
    """
    power = round(np.log10(value))
    return f"10^{power}" if value == 10.0**power else f"{value:.3g}"


def _sample(told: Measured) -> str:
    return f"up to {UNITS} units of {len(told.kinds)} of the cells, CPU time, this machine"


def _pruning(told: Measured) -> float:
    return told.total(lambda kind: kind.prune_s) / told.total(lambda _: 1.0)
