"""The Ray executor: units go out, reduced results come back; a window of two per core is in flight.

Units come from the plan and results merge in any order, so the result is the serial one, bit for bit, for any number of
workers. Units are pure: Ray does one again when its worker or node dies. One that kills its worker every time comes back
as None, and the driver cuts it in two.
"""

import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from parallel.sweeps.units import Done, Plan, Unit, work

STORE_BYTES: Final = 100 * 2**20  # results are a few kB; Ray's default reserves 30 % of the memory
RETRIES: Final = 3


@contextmanager
def session(address: str | None = None) -> Iterator[None]:
    """Keep Ray up for several runs: an existing cluster under `address`, else one started here and stopped after.

    Inside an outer session, or in a program that has started Ray itself, this does nothing.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {} if address else {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **local)
    try:
        yield
    finally:
        ray.shutdown()


def run(plan: Plan, pending: deque[Unit], address: str | None = None) -> Iterator[tuple[Unit, Done | None]]:
    """Do what is pending, in the session that there is or one of its own."""
    with session(address):
        yield from _drive(plan, pending)


def _drive(plan: Plan, pending: deque[Unit]) -> Iterator[tuple[Unit, Done | None]]:
    import ray as api
    from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

    remote = api.remote(num_cpus=1, max_retries=RETRIES)(work)
    shared = api.put(plan)
    flying: dict[object, Unit] = {}
    try:
        while pending or flying:
            while pending and len(flying) < _window(api):
                unit = pending.popleft()
                flying[remote.remote(shared, unit)] = unit
            ready, _ = api.wait(list(flying), num_returns=1)
            for ref in ready:
                unit = flying.pop(ref)
                try:
                    done = api.get(ref)
                except (WorkerCrashedError, NodeDiedError, OutOfMemoryError):
                    done = None
                yield unit, done
    finally:  # the reader stopped: nothing that is in flight is wanted any more
        for ref in flying:
            api.cancel(ref, force=True)


def _window(api: Any) -> int:
    """Units in flight: two per core of the cluster as it is now, for nodes come and go."""
    return max(2, 2 * int(api.cluster_resources().get("CPU", 1)))
