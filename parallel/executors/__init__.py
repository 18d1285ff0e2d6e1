"""Executors: the same ranges, the same reduction order, the same bits; only who does the work differs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from parallel.executors import serial
from parallel.search import Found
from parallel.sweep import Task
from topo.errors import Fault, SpecError

Progress = Callable[[int, int], None]
RATE_PER_S = 400_000.0  # strategies per second and core, low on purpose: the estimate that chooses an executor
RAY_ABOVE_S = 5.0  # Ray takes 3 s to start; below this it cannot pay


class Executor(Protocol):
    """Evaluate all rows of a task; `progress(done, total)` is called in the driver."""

    def __call__(self, task: Task, progress: Progress | None = None) -> Found:
        """Run the task."""
        ...


def _ray(task: Task, progress: Progress | None = None) -> Found:
    from parallel.executors import ray as on_ray

    return on_ray.run(task, progress)


EXECUTORS: dict[str, Executor] = {"serial": serial.run, "ray": _ray}


def session(name: str) -> AbstractContextManager[None]:
    """Return what an executor keeps up between tasks: Ray takes seconds to start, so several tasks share one start."""
    if name != "ray":
        return nullcontext()
    from parallel.executors import ray as on_ray

    return on_ray.session()


def choose(name: str, points: int) -> str:
    """Return the executor for a number of points: `auto` takes Ray only where it pays.

    >>> choose("auto", 100_000), choose("auto", 10_000_000)
    ('serial', 'ray')
    """
    if name == "auto":
        return "ray" if points / RATE_PER_S > RAY_ABOVE_S else "serial"
    if name not in EXECUTORS:
        raise SpecError([Fault("executor", name, "no such executor", f"choose auto, {', '.join(EXECUTORS)}")])
    return name


def run(task: Task, executor: str = "auto", progress: Progress | None = None) -> Found:
    """Evaluate a task with the named executor."""
    return EXECUTORS[choose(executor, task.space.size)](task, progress)
