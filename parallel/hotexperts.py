"""Hot experts: rows of the busiest rank, from how popular experts are, a Zipf exponent or as measured, and where they stand.

Routers are trained towards even loads over all that they were trained on; prompts of one kind like some experts better.
As public benchmarks find them, popularities are gamma distributed with the coefficient of variation in
`data/routing.yaml`; expert number i of a Zipf law gets

    share_i ∝ i^(−s)

of the rows. Experts stay where their numbers put them, or a balancer copies the hottest and packs ranks evenly, as
DeepSeek's does: a copy more for the expert with the largest load per copy, then the heaviest copy to the lightest rank with
a free slot (deepseek-ai/EPLB, eplb.py: replicate_experts, balanced_packing). Where nothing is said, experts of one box stay,
and those of many are even, as engines' recipes have it: NVIDIA/TensorRT-LLM examples/wide_ep (num_slots: 288), SGLang issue 6017
(--ep-num-redundant-experts 32), DeepSeek's 32 copies. Chance comes on top (`parallel.routing`).
"""

from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace
from math import ceil
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from parallel import routing
from parallel.io import read_yaml
from parallel.placement import BOX
from parallel.shapes import Moe
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

DRAWS: Final = 64
"""Orders of the experts that are drawn, where nothing balances them."""
SEED: Final = 2025
FILE: Final = Path(__file__).parent / "data" / "routing.yaml"

Shares = npt.NDArray[np.float64]


def stays(copies: int | None, ranks: ColumnLike) -> npt.NDArray[np.bool_]:
    """Whether experts lie where their numbers put them: no balancer was asked for, and the ranks are of one box.

    >>> stays(None, [8, 16]).tolist(), stays(32, 8).tolist()
    ([True, False], False)
    """
    return np.asarray((copies is None) & (column(ranks) <= BOX))


@lru_cache(maxsize=1)
def fitted_skew() -> float:
    """Return the coefficient of variation of experts' popularities under the prompts of public benchmarks."""
    return float(read_yaml(FILE)["skew"])


@dataclass(frozen=True, slots=True)
class HotExperts:
    """How uneven the rows of experts are; as it stands, as in public benchmarks, balanced where ranks are more than a box has.

    Attributes
    ----------
    zipf : exponent s of the shares, in place of the popularity
    measured : rows of the busiest rank over the mean, as counted; 1 for ranks that a balancer keeps even, 0 where unknown
    copies : experts that a balancer holds twice or more often; None where nothing is said of a balancer
    skew : coefficient of variation of the popularity; None for the fitted one
    """

    zipf: float = 0.0
    measured: float = 0.0
    copies: int | None = None
    skew: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no load is, every fault at once."""
        faults = []
        if self.zipf < 0:
            faults.append(Fault("zipf", self.zipf, "must not be negative", "write imbalance: 1 for even ranks"))
        if self.measured and self.measured < 1:
            problem, remedy = "the busiest rank has the mean at least", "write 1 for even loads"
            faults.append(Fault("imbalance", self.measured, problem, remedy))
        if self.zipf and self.measured:
            faults.append(Fault("zipf", self.zipf, "stands beside a measured imbalance", "write one of them"))
        if (self.copies or 0) < 0:
            faults.append(Fault("expert_copies", self.copies, "must not be negative", "write 0, or leave it out"))
        if faults:
            raise SpecError(faults)

    def variation(self, experts: int) -> float:
        """Return the coefficient of variation of so many experts' popularities.

        >>> HotExperts(skew=0.5).variation(256), round(HotExperts(zipf=1.0).variation(3), 3)
        (0.5, 0.464)
        """
        if self.zipf:
            shares = zipf_shares(experts, self.zipf)
            return float(shares.std() / shares.mean())
        return fitted_skew() if self.skew is None else self.skew

    def busiest(self, experts: int, ranks: float) -> float:
        """Rows of the busiest of so many ranks over the mean, of many tokens.

        >>> BALANCED.busiest(256, 32), HotExperts(measured=1.3).busiest(256, 32), HotExperts(skew=0).busiest(256, 8)
        (1.0, 1.3, 1.0)
        """
        if ranks <= 1:
            return 1.0
        if self.measured:
            return self.measured
        if self.zipf or self.copies is not None:
            return _busiest(self, experts, int(min(ranks, experts)))
        if not stays(self.copies, ranks):
            return 1.0
        return float(routing.most(1.0, self.variation(experts) ** 2 / ceil(experts / ranks), ranks))

    def busiest_of(self, experts: int, ranks: Column) -> Column:
        """Return `busiest` for a column of ranks.

        >>> HotExperts(measured=1.3).busiest_of(256, np.array([1.0, 8.0])).tolist()
        [1.0, 1.3]
        """
        known = {each: self.busiest(experts, each) for each in set(ranks.ravel().tolist())}
        found: Column = np.vectorize(known.__getitem__, otypes=[np.float64])(ranks)
        return found

    def busiest_rows(self, moe: Moe, tokens: ColumnLike, ranks: ColumnLike) -> Column:
        """Return the rows of the busiest rank, of the tokens of all ranks, chance included.

        >>> moe = Moe(experts=256, topk=8, intermediate=2048)
        >>> [float(hot.busiest_rows(moe, 1e6, 8).round(-4)) for hot in (BALANCED, HotExperts(skew=1.0))]
        [1000000.0, 1260000.0]
        """
        if not (self.measured or self.zipf or self.copies is not None):
            return routing.busiest_rows(moe, tokens, ranks, self.variation(moe.experts) * stays(self.copies, ranks))
        over = (self.busiest_of(moe.experts, column(ranks)) - 1.0) * moe.topk / column(ranks)
        return column(over * column(tokens) + routing.busiest_rows(moe, tokens, ranks))

    def busiest_hit(self, moe: Moe, tokens: ColumnLike, ranks: ColumnLike) -> Column:
        """Return the experts that get a token on the rank where most do.

        >>> moe = Moe(experts=256, topk=8, intermediate=2048)  # unpopular ones are idle for longer
        >>> [float(HotExperts(skew=c).busiest_hit(moe, 32, 1).round()) for c in (0.0, 1.0)]
        [163.0, 129.0]
        """
        return routing.busiest_hit(moe, tokens, ranks, self.variation(moe.experts))

    def told(self) -> dict[str, Any]:
        """Return what an answer says of it."""
        if self.zipf:
            said = f"Zipf {self.zipf:g}"
        elif self.measured:
            said = f"{self.measured:g} times the mean on the busiest rank, chance apart"
        else:
            said = f"popularity varies by {self.variation(0):g} of its mean, as in public benchmarks; balanced across boxes"
        return {"rows": said, "copies": self.copies}


UNTOLD: Final = HotExperts()
"""As public benchmarks find experts, and engines' recipes place them."""
BALANCED: Final = HotExperts(measured=1.0)
"""Ranks that a balancer keeps even: chance alone parts them."""


def zipf_shares(experts: int, exponent: float) -> Shares:
    """Return each expert's share of the rows, the hottest first.

    >>> [round(float(share), 4) for share in zipf_shares(3, 1.0)]
    [0.5455, 0.2727, 0.1818]
    """
    weights = np.arange(1.0, experts + 1.0) ** -exponent
    shares: Shares = weights / weights.sum()
    return shares


def popular_shares(experts: int, variation: float) -> Shares:
    """Return each expert's share of the rows where popularities are gamma distributed, the hottest first.

    The quantiles that part a gamma distribution evenly.

    >>> [round(float(share), 2) for share in popular_shares(4, 0.5)]
    [0.4, 0.28, 0.2, 0.12]
    """
    at = (experts - np.arange(experts) - 0.5) / experts
    weights = routing.gamma_at(np.array([NormalDist().inv_cdf(each) for each in at.tolist()]), variation)
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
def _busiest(hot: HotExperts, experts: int, ranks: int) -> float:
    """Rows of the busiest rank over the mean: packed by a balancer, or in the mean over orders of the experts."""
    shares = zipf_shares(experts, hot.zipf) if hot.zipf else popular_shares(experts, hot.variation(experts))
    if hot.copies is not None:
        return max(packed(copied(shares, hot.copies), ranks)) * ranks
    draw = np.random.default_rng(SEED)
    places = np.minimum(np.arange(experts) // ceil(experts / ranks), ranks - 1)
    tops = [np.bincount(places, draw.permutation(shares), ranks).max() for _ in range(DRAWS)]
    return float(np.mean(tops)) * ranks
