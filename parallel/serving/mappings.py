"""Which splits of a replica there are, what one of them costs under an engine, and when it cannot be.

Every domain size is treated alike: a replica spans powers of two, and whole and halved scale-up domains; it may straddle
several domains, or leave some accelerators of one idle.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from clusters.build import Cluster
from parallel.models import Model, Moe
from parallel.serving.engines import Engine, Settings, kv_bytes, launched, serving_recipe
from parallel.serving.kernels import engine_chip
from parallel.serving.passes import PassCost, Replica, Split, pass_cost
from parallel.serving.queueing import Limits
from parallel.serving.runs import limits_of
from parallel.serving.trust import Trust

MOST_TP = 16
"""Ranks that attention is split over at most."""
MOST_ETP = 16
"""Ranks that one expert is split over at most."""


@dataclass(frozen=True)
class Ask:
    """What is to be served: `kv` is the width of a cached value, 0 for what the engine and the checkpoint bring.

    `trusts` are the engines, each with what stands behind it; the limits are seconds, or None.
    """

    model: Model
    cluster: Cluster
    precision: str
    isl: int
    osl: int
    trusts: tuple[Trust, ...]
    ttft_s: float | None = None
    tpot_s: float | None = None
    kv: float = 0.0
    clients: float | None = None
    requests_per_s: float | None = None

    @cached_property
    def routed(self) -> bool:
        """Whether the model has experts."""
        return any(isinstance(kind.mlp, Moe) for kind in self.model.layers)

    def settings(self, base: Engine, split: Split, clients: float = 0.0) -> Settings:
        """Return what an operator sets: as a published launch script does that fits, else the engine's defaults."""
        part, lengths = self.cluster.accelerator, (self.isl, self.osl)
        return launched(base, self.model, part, self.precision, split.tp, clients, *lengths, split.dp)

    def replica(self, split: Split, width: float, base: Engine) -> Replica:
        """Return the model on the accelerators of a split, as an engine's kernels find them."""
        part = self.cluster.accelerator
        recipe = serving_recipe(self.model, self.precision, part)
        return Replica(self.model, self.cluster, engine_chip(part, recipe, base), split, width)

    def width(self, settings: Settings) -> float:
        """Bytes of a cached value."""
        return self.kv or kv_bytes(settings, self.precision)


@dataclass(frozen=True)
class Worker:
    """A split under one engine: what its passes cost, and what it admits to each attention group."""

    replica: Replica
    cost: PassCost
    limits: Limits
    settings: Settings

    @property
    def split(self) -> Split:
        """The split."""
        return self.replica.split


class Workers:
    """Workers of a search; what a pass costs is priced once for all engines whose kernels are alike."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.priced: dict[tuple[Split, float, tuple[tuple[str, str, float], ...]], tuple[Replica, PassCost]] = {}

    def worker(self, split: Split, trust: Trust, clients: float = 0.0, *, pooled: bool = False) -> Worker:
        """Return a worker; one of a pool runs with the engine's defaults."""
        base = trust.engine
        settings = base.defaults if pooled else self.ask.settings(base, split, clients)
        key = split, self.ask.width(settings), base.grouped
        if key not in self.priced:
            replica = self.ask.replica(split, key[1], base)
            self.priced[key] = replica, pass_cost(replica, base)
        replica, cost = self.priced[key]
        return Worker(replica, replace(cost, engine=base), limits_of(replica, settings, base), settings)


def splits(model: Model, cluster: Cluster, accelerators: int | None = None) -> Iterator[Split]:
    """Yield the splits of one replica on at most so many accelerators.

    Attention groups besides the tensor ranks are of models with experts only: without these they are replicas. Experts
    are split over any divisor of the ranks whose cofactor divides them.

    >>> from clusters.build import build
    >>> from clusters.spec import load
    >>> from parallel.io import read_model
    >>> [one.tp for one in splits(read_model("llama-3.1-70b"), build(load("hgx-h200")))]
    [1.0, 2.0, 4.0, 8.0]
    >>> Split(1.0, 72.0, 1.0, 72.0) in splits(read_model("deepseek-v3"), build(load("gb200-nvl72")))
    True
    """
    most = accelerators or cluster.accelerators
    moe = next((kind.mlp for kind in model.layers if isinstance(kind.mlp, Moe)), None)
    heads = [kind.attention.heads for kind in model.layers]
    for ranks in _sizes(most, cluster.domain):
        for tp in (t for t in _powers(MOST_TP) if t <= ranks and ranks % t == 0 and all(h % t == 0 for h in heads)):
            if moe is None:
                if tp == ranks:
                    yield Split(float(tp), 1.0, 1.0, 1.0)
                continue
            for etp in (e for e in _powers(MOST_ETP) if ranks % e == 0 and moe.intermediate % e == 0):
                if ranks // etp <= moe.experts:
                    yield Split(float(tp), ranks / tp, float(etp), ranks / etp)


def _powers(most: int) -> list[int]:
    return [2**e for e in range(most.bit_length()) if 2**e <= most]


def _sizes(most: int, domain: int) -> list[int]:
    """Return the sizes of a replica: powers of two, and what halving a domain and joining domains give.

    >>> _sizes(144, 72)
    [1, 2, 4, 8, 9, 16, 18, 32, 36, 64, 72, 128, 144]
    """
    found = set(_powers(most))
    size = domain
    while size > 1:
        found.add(size)
        if size % 2:
            break
        size //= 2
    found |= {domain * n for n in _powers(max(most // max(domain, 1), 1))}
    return sorted(size for size in found if 0 < size <= most)
