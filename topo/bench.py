"""How fast topo is on this machine, beside a NumPy loop that lets times be compared across machines."""

import math
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from topo import orbits
from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.wires import Wires

REPEATS = 5


def best_of(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the least CPU seconds of several runs: one core's time, undisturbed."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return max(min(seconds), 1e-9)


def reference() -> float:
    """Return the sum of a fixed NumPy loop: sorting, gathering and adding two million numbers, ten times."""
    numbers = np.random.default_rng(0).random(2_000_000)
    total = 0.0
    for _ in range(10):
        order = np.argsort(numbers, kind="stable")
        total += float(numbers[order].cumsum()[-1])
        numbers = numbers[order[::-1]]
    return total


@lru_cache
def tree(accelerators: int, size: int = 8) -> Blueprint:
    """Return a three-level rail-optimised fat tree of domains of `size`, four switch chips in each.

    >>> tree(1024).population(("domain", "slot", "rail"))
    1024
    """
    up = ScaleUp(size, 450e9, 1e-6, "nvlink4", switches=4)
    radix = 64 if accelerators <= 65_536 else 128
    return cluster_blueprint("bench", accelerators // size, up, ScaleOut(50e9, "ndr", radix=radix, levels=3))


def irregular(whole: Wires, share: float = 0.01, seed: int = 0) -> Wires:
    """Return a graph without a random share of its wires.

    >>> from topo.graphs import flat
    >>> whole = flat(tree(1024))
    >>> len(whole.tail), len(irregular(whole).tail)
    (7200, 7128)
    """
    kept: npt.NDArray[np.bool_] = np.ones(len(whole.tail), dtype=bool)
    kept[np.random.default_rng(seed).choice(len(kept), math.floor(share * len(kept)), replace=False)] = False
    return Wires(
        whole.names,
        whole.kind,
        whole.tail[kept],
        whole.head[kept],
        whole.bandwidth_Bps[kept],
        whole.latency_s[kept],
    )


def _from_nothing(work: Callable[[], Any]) -> Callable[[], Any]:
    """Forget the quotients kept before each run."""

    def run() -> Any:
        orbits.forget()
        return work()

    return run


def expanded_MiB(accelerators: int) -> float:  # noqa: N802  (the unit is part of the name)
    """Return the memory that writing out a graph takes at its peak."""
    import tracemalloc

    from topo.graphs import expand

    expand(tree(8))  # whatever is imported on the way
    tracemalloc.start()
    expand(tree(accelerators))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes / 2**20


def bench(largest: int = 500_000, written_out: int = 100_000, exchanging: int = 16_384) -> dict[str, float]:
    """Return CPU seconds of the figures that topo promises, and the reference loop's.

    Parameters
    ----------
    largest
        Accelerators of the cluster whose quotient and tiers are timed.
    written_out
        Of the graph that is written out (`expand_MiB` is its memory), and cut in halves with 1 % of its wires down.
    exchanging
        Of the cluster whose all-to-all bound is timed.
    """
    from topo.concurrent import all_to_all_Bps
    from topo.flows import bisection
    from topo.graphs import expand, flat
    from topo.tiers import tiers

    broken = irregular(flat(tree(written_out)))
    return {
        "reference_s": best_of(reference, 2),
        "quotient_500k_s": best_of(_from_nothing(lambda: orbits.quotient(tree(largest)))),
        "tiers_500k_s": best_of(_from_nothing(lambda: tiers(tree(largest)))),
        "expand_100k_s": best_of(lambda: expand(tree(written_out)), 2),
        "expand_100k_MiB": expanded_MiB(written_out),
        "min_cut_100k_s": best_of(lambda: bisection(broken), 3),
        "all_to_all_16k_s": best_of(_from_nothing(lambda: all_to_all_Bps(tree(exchanging))), 3),
    }
