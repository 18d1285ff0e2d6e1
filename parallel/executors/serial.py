"""The serial executor: one range after another, in this process."""

from collections.abc import Callable

from parallel.executors.ranges import ranges
from parallel.search import Found, merge
from parallel.sweep import Task, evaluate_range


def run(task: Task, progress: Callable[[int, int], None] | None = None) -> Found:
    """Evaluate the task here."""
    found = Found()
    total = task.space.size
    for lo, hi in ranges(total):
        found = merge(found, evaluate_range(task, lo, hi))
        if progress is not None:
            progress(hi, total)
    return found
