"""What executors carry: a run of strategies of one cell of a plan goes out, a reduced result comes back."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from parallel.sweeps.evaluate import evaluate, head, prepare, step
from parallel.sweeps.found import Found, merge
from parallel.sweeps.sampling import sampled
from parallel.sweeps.task import Task
from topo.errors import PodscaleError


class Plan(Protocol):
    """Cells of work: each is one task."""

    @property
    def cells(self) -> int:
        """How many there are."""
        ...

    @property
    def budget(self) -> int:
        """Strategies of each cell that a sampled search may price; 0 for all of them."""
        ...

    def task(self, cell: int) -> Task:
        """Return the task of a cell; a `PodscaleError` where there is none."""
        ...


@dataclass(frozen=True)
class Tasks:
    """A plan of tasks that are there already."""

    listed: tuple[Task, ...]
    budget: int = 0

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self.listed)

    def task(self, cell: int) -> Task:
        """Return one of them."""
        return self.listed[cell]


@dataclass(frozen=True, order=True)
class Unit:
    """Prefixes ``lo … hi-1`` of what pruning left of a cell. The first of a cell, whose size nobody knows yet, has no hi."""

    cell: int
    lo: int = 0
    hi: int = 0


@dataclass(frozen=True)
class Done:
    """What came of a unit.

    Attributes
    ----------
    found : what its strategies came to; the first of a cell holds what pruning refused, too
    size, tail : prefixes of its cell that pruning left, and strategies of each; of a sampled cell, one of its budget
    error : why the cell cannot be priced
    """

    found: Found = field(default_factory=Found)
    size: int = 0
    tail: int = 1
    error: PodscaleError | None = None


def work(plan: Plan, unit: Unit) -> Done:
    """Do a unit: prune (once for each cell and process), judge, price, reduce. Pure, so that it may be done again."""
    try:
        task = plan.task(unit.cell)
        bound, rest = prepare(task)
        start = replace(head(task.space.size, rest), most=task.ask.most) if unit.lo == 0 else Found()
        if plan.budget:
            return Done(merge(start, sampled(bound, rest, plan.budget, seed=unit.cell)), 1, plan.budget)
        found = evaluate(bound, rest, unit.lo, unit.hi or step(rest.tail))
        return Done(merge(start, found), len(rest.heads), rest.tail)
    except PodscaleError as error:
        return Done(error=error)


def rest_of(cell: int, size: int, many: int) -> list[Unit]:
    """Return the units of a cell after its first, whose size is known by then.

    >>> rest_of(0, 5, 2)
    [Unit(cell=0, lo=2, hi=4), Unit(cell=0, lo=4, hi=5)]
    """
    return [Unit(cell, lo, min(lo + many, size)) for lo in range(many, size, many)]
