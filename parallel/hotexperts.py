"""Hot experts: rows of the busiest rank over the mean, from a Zipf exponent or as measured, with copies of the hottest.

Routers are trained towards even loads, and random prompts find them even; prompts of one kind do not. Expert number i gets

    share_i ∝ i^(−s)

of the rows (Zipf). Experts stay where their numbers put them, or a balancer copies the hottest and packs ranks evenly, as
DeepSeek's does: a copy more for the expert with the largest load per copy, then the heaviest copy to the lightest rank with
a free slot (deepseek-ai/EPLB, eplb.py: replicate_experts, balanced_packing).
"""

from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topo.columns import Column
from topo.errors import Fault, SpecError

DRAWS: Final = 64
"""Orders of the experts that are drawn, where nothing balances them."""
SEED: Final = 2025

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HotExperts:
    """How uneven the rows of experts are; as it stands, even.

    Attributes
    ----------
    zipf : exponent s of the shares; 0 is even
    measured : rows of the busiest rank over the mean, as counted; 0 where `zipf` says it
    copies : experts that a balancer holds twice or more often; None without a balancer
    """

    zipf: float = 0.0
    measured: float = 0.0
    copies: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no load is, every fault at once."""
        faults = []
        if self.zipf < 0:
            faults.append(Fault("zipf", self.zipf, "must not be negative", "write 0 for even loads"))
        if self.measured and self.measured < 1:
            problem, remedy = "the busiest rank has the mean at least", "write 1 for even loads"
            faults.append(Fault("imbalance", self.measured, problem, remedy))
        if self.zipf and self.measured:
            faults.append(Fault("zipf", self.zipf, "stands beside a measured imbalance", "write one of them"))
        if (self.copies or 0) < 0:
            faults.append(Fault("expert_copies", self.copies, "must not be negative", "write 0, or leave it out"))
        if faults:
            raise SpecError(faults)

    @property
    def even(self) -> bool:
        """Whether every rank gets the mean."""
        return not self.zipf and self.measured in (0.0, 1.0)

    def busiest(self, experts: int, ranks: float) -> float:
        """Rows of the busiest of so many ranks over the mean.

        >>> EVEN.busiest(256, 32), HotExperts(measured=1.3).busiest(256, 32)
        (1.0, 1.3)
        """
        if self.even or ranks <= 1:
            return 1.0
        return self.measured or _busiest(self.zipf, self.copies, experts, int(min(ranks, experts)))

    def busiest_of(self, experts: int, ranks: Column) -> Column:
        """Return `busiest` for a column of ranks.

        >>> HotExperts(measured=1.3).busiest_of(256, np.array([1.0, 8.0])).tolist()
        [1.0, 1.3]
        """
        known = {each: self.busiest(experts, each) for each in set(ranks.ravel().tolist())}
        found: Column = np.vectorize(known.__getitem__, otypes=[np.float64])(ranks)
        return found

    def told(self) -> dict[str, Any]:
        """Return what an answer says of it."""
        if self.even:
            return {"rows": "even: random prompts, a trained router"}
        said = f"Zipf {self.zipf:g}" if self.zipf else f"{self.measured:g} times the mean on the busiest rank"
        return {"rows": said, "copies": self.copies}


EVEN: Final = HotExperts()


def zipf_shares(experts: int, exponent: float) -> Shares:
    """Return each expert's share of the rows, the hottest first.

    >>> [round(float(share), 4) for share in zipf_shares(3, 1.0)]
    [0.5455, 0.2727, 0.1818]
    """
    weights = np.arange(1.0, experts + 1.0) ** -exponent
    shares: Shares = weights / weights.sum()
    return shares


def copied(shares: Shares, copies: int) -> list[float]:
    """Return the load of every slot when so many copies are made, each of the expert with the largest load per copy.

    >>> [round(load, 2) for load in copied(np.array([0.6, 0.3, 0.1]), 1)]
    [0.3, 0.3, 0.3, 0.1]
    """
    heap = [(-float(share), index, 1) for index, share in enumerate(shares)]
    heapify(heap)
    for _ in range(copies):
        load, index, held = heap[0]
        heapreplace(heap, (load * held / (held + 1), index, held + 1))
    return [-load for load, _, held in sorted(heap, key=lambda one: one[1]) for _ in range(held)]


def packed(loads: list[float], ranks: int) -> list[float]:
    """Return the load of every rank when the heaviest slot goes to the lightest rank that has room, and so on.

    >>> packed([0.5, 0.25, 0.125, 0.125], 2)
    [0.625, 0.375]
    """
    room, found = ceil(len(loads) / ranks), [0.0] * ranks
    open_ranks = [(0.0, rank, 0) for rank in range(ranks)]
    for load in sorted(loads, reverse=True):
        held, rank, slots = heappop(open_ranks)
        found[rank] = held + load
        if slots + 1 < room:
            heappush(open_ranks, (held + load, rank, slots + 1))
    return found


@lru_cache(maxsize=256)
def _busiest(zipf: float, copies: int | None, experts: int, ranks: int) -> float:
    """Rows of the busiest rank over the mean: packed by a balancer, or in the mean over orders of the experts."""
    shares = zipf_shares(experts, zipf)
    if copies is not None:
        return max(packed(copied(shares, copies), ranks)) * ranks
    draw = np.random.default_rng(SEED)
    places = np.minimum(np.arange(experts) // ceil(experts / ranks), ranks - 1)
    tops = [np.bincount(places, draw.permutation(shares), ranks).max() for _ in range(DRAWS)]
    return float(np.mean(tops)) * ranks
