"""The serial executor: one unit after another, in this process."""

from collections import deque
from collections.abc import Iterator

from parallel.sweeps.units import Done, Plan, Unit, work


def run(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:  # noqa: ARG001
    """Do what is pending, in order; whoever iterates may add to it."""
    while pending:
        unit = pending.popleft()
        yield unit, work(plan, unit)
