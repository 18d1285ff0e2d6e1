"""Executors: the same units, the same bits; only who does the work differs.

`drive` hands the units of a plan to one, joins what comes back, and writes it down where a stop must lose nothing.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from parallel.executors import serial
from parallel.executors.store import Store
from parallel.sweeps.evaluate import FAILED, head, prepare, step
from parallel.sweeps.found import Found, merge
from parallel.sweeps.task import Task
from parallel.sweeps.units import Done, Plan, Tasks, Unit, rest_of
from topo.errors import Fault, PodscaleError, SpecError

Progress = Callable[[int, int], None]
RATE_PER_S: Final = 8_000_000.0
"""Strategies that pruning leaves, judged per second and core: 5 million where all are valid, 60 where few are."""
RAY_ABOVE_S: Final = 5.0
"""Ray takes 3 s to start; below this it cannot pay."""
PATIENCE: Final = 24
"""Units of a cell that may kill their worker before the whole cell is given up: more than it takes to find one row."""


DEADLY: Final = "this strategy or one of those that share its first axes killed every worker"


class Executor(Protocol):
    """Do the pending units of a plan; None comes back for one that killed every worker that tried."""

    def __call__(
        self, plan: Plan, pending: deque[Unit], address: str | None = None
    ) -> Iterator[tuple[Unit, Done | None]]:
        """Yield units and what came of them, in any order; whoever iterates may add to `pending`."""
        ...


def _ray(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:
    from parallel.executors import ray as on_ray

    return on_ray.run(plan, pending, address)


EXECUTORS: dict[str, Executor] = {"serial": serial.run, "ray": _ray}


def session(name: str, address: str | None = None) -> AbstractContextManager[None]:
    """Return what an executor keeps up between runs: Ray takes seconds to start, so several share one start."""
    if name != "ray":
        return nullcontext()
    from parallel.executors import ray as on_ray

    return on_ray.session(address)


def choose(name: str, points: int) -> str:
    """Return the executor for a number of points: `auto` takes Ray only where it pays.

    >>> choose("auto", 10_000_000), choose("auto", 100_000_000)
    ('serial', 'ray')
    """
    if name == "auto":
        return "ray" if points / RATE_PER_S > RAY_ABOVE_S else "serial"
    if name not in EXECUTORS:
        raise SpecError([Fault("executor", name, "no such executor", f"choose auto, {', '.join(EXECUTORS)}")])
    return name


@dataclass
class Cell:
    """What a cell has come to so far: `done` of its `size` prefixes, with `tail` strategies each, are finished."""

    found: Found = field(default_factory=Found)
    size: int = 0
    tail: int = 1
    done: int = 0
    error: PodscaleError | None = None
    deaths: int = 0

    def join(self, unit: Unit, done: Done) -> None:
        """Take in what came of a unit."""
        self.found, self.error = merge(self.found, done.found), done.error or self.error
        if done.size:
            self.size, self.tail = done.size, done.tail
        self.done += max(min(unit.hi or step(done.tail), done.size) - unit.lo, 0)


def drive(
    plan: Plan,
    executor: str = "serial",
    progress: Progress | None = None,
    store: Store | None = None,
    address: str | None = None,
) -> dict[int, Cell]:
    """Do a plan, what `store` holds of it left out, and return its cells.

    Parameters
    ----------
    progress : called as ``progress(done, total)`` with the strategies finished of those that pruning leaves: cells that
        are not pruned yet count as the mean of the others
    store : reads what is finished, and is told what gets finished
    """
    cells: dict[int, Cell] = {}
    finished: dict[int, list[Unit]] = {}
    for unit, kept in store.read() if store else ():
        cells.setdefault(unit.cell, Cell()).join(unit, kept)
        finished.setdefault(unit.cell, []).append(unit)
    pending = deque(
        unit for cell in range(plan.cells) for unit in _missing(cell, cells.get(cell), finished.get(cell, []))
    )
    for unit, done in EXECUTORS[choose(executor, 0)](plan, pending, address):
        cell = cells.setdefault(unit.cell, Cell())
        if done is None:
            pending.extendleft(_smaller(plan, cell, unit))
            continue
        if store:
            store.add(unit, done)
        cell.join(unit, done)
        if unit == Unit(unit.cell):
            pending.extendleft(reversed(rest_of(unit.cell, done.size, step(done.tail))))
        if progress is not None:
            progress(*_progress(cells, plan.cells))
    return cells


def _missing(number: int, cell: Cell | None, finished: list[Unit]) -> list[Unit]:
    """Return the units of a cell that are not finished; where nothing of it is known, the first alone."""
    if cell is None or not cell.size:
        return [] if cell is not None else [Unit(number)]
    gaps, at, many = [], 0, step(cell.tail)
    for unit in sorted(finished, key=lambda unit: unit.lo):
        gaps += [(at, unit.lo)] if unit.lo > at else []
        at = max(at, unit.hi or many)
    gaps += [(at, cell.size)] if cell.size > at else []
    return [Unit(number, lo, min(lo + many, hi)) for start, hi in gaps for lo in range(start, hi, many)]


def _smaller(plan: Plan, cell: Cell, unit: Unit) -> list[Unit]:
    """Return the halves of a unit that killed its workers.

    None of a single prefix, which is counted as lost, nor of a cell that is given up: a sampled one, or one that kills all.
    """
    cell.deaths += 1
    if plan.budget or cell.deaths > PATIENCE:
        remedy = "give workers more memory"
        cell.error = SpecError([Fault("cell", unit.cell, "killed every worker that priced it", remedy)])
        return []
    task = plan.task(unit.cell)
    _, rest = prepare(task)
    whole = replace(unit, hi=unit.hi or min(step(rest.tail), len(rest.heads)))
    cell.size, cell.tail = len(rest.heads), rest.tail
    if whole.hi - whole.lo <= 1:
        index = int(rest.heads[whole.lo]) * rest.tail
        lost = Found(points=rest.tail, rejected={FAILED: rest.tail}, poisoned=((index, DEADLY),))
        start = head(task.space.size, rest) if whole.lo == 0 else Found()
        cell.found, cell.done = merge(merge(cell.found, start), lost), cell.done + 1
        return []
    middle = (whole.lo + whole.hi) // 2
    after = rest_of(unit.cell, cell.size, step(cell.tail)) if not unit.hi else []
    return [*reversed(after), replace(whole, lo=middle), replace(whole, hi=middle)]


def _progress(cells: dict[int, Cell], count: int) -> tuple[int, int]:
    known = sum(cell.size * cell.tail for cell in cells.values())
    mean = known / max(len(cells), 1)
    return sum(cell.done * cell.tail for cell in cells.values()), known + round(mean * (count - len(cells)))


def run(task: Task, executor: str = "auto", progress: Progress | None = None) -> Found:
    """Evaluate one task with the named executor."""
    return run_all((task,), executor, progress)[0]


def run_all(tasks: Sequence[Task], executor: str = "auto", progress: Progress | None = None) -> list[Found]:
    """Evaluate several tasks with the named executor; the first that cannot be priced stops them all."""
    size = sum(task.space.size for task in tasks)
    cells = drive(Tasks(tuple(tasks)), choose(executor, size), progress)
    for cell in cells.values():
        if cell.error is not None:
            raise cell.error
    return [cells[number].found for number in range(len(tasks))]
