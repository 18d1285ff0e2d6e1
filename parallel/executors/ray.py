"""The Ray executor: ranges go out, reduced blocks come back; a window of two per core is in flight.

Ranges and the order of reduction come from the task, so the result is the serial one, bit for bit, for any number of
workers. Tasks are pure, so Ray may retry them after a worker's death.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parallel.executors.ranges import ranges
from parallel.search import Found, merge
from parallel.sweep import Task, evaluate_range

STORE_BYTES = 100 * 2**20  # results are a few kB; Ray's default reserves 30 % of the memory


@contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Keep Ray up for several tasks: an existing cluster under `address`, else one started here and stopped after.

    Inside an outer session, or in a program that has started Ray itself, this does nothing.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {} if address else {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    try:
        yield
    finally:
        ray.shutdown()


def run(task: Task, progress: Callable[[int, int], None] | None = None) -> Found:
    """Evaluate the task on Ray, in the session that there is or one of its own."""
    with session():
        return _drive(task, progress)


def _drive(task: Task, progress: Callable[[int, int], None] | None) -> Found:
    import ray as api

    work = api.remote(num_cpus=1, max_retries=3)(evaluate_range)
    shared = api.put(task)
    pieces = ranges(task.space.size)
    resources: dict[str, float] = api.available_resources()  # type: ignore[no-untyped-call]
    window = max(2, 2 * int(resources.get("CPU", 1)))
    waiting = list(enumerate(pieces))[::-1]
    flying: dict[object, int] = {}
    done: dict[int, Found] = {}
    finished = 0
    while waiting or flying:
        while waiting and len(flying) < window:
            number, (lo, hi) = waiting.pop()
            flying[work.remote(shared, lo, hi)] = number
        ready, _ = api.wait(list(flying), num_returns=1)
        for ref in ready:
            number = flying.pop(ref)
            done[number] = api.get(ref)
            finished += pieces[number][1] - pieces[number][0]
            if progress is not None:
                progress(finished, task.space.size)
    found = Found()
    for number in range(len(pieces)):
        found = merge(found, done[number])
    return found
