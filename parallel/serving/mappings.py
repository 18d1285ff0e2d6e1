"""Which splits of a replica there are, what one of them costs under an engine, and when it cannot be.

Every domain size is treated alike: a replica spans powers of two, and whole and halved scale-up domains; it may straddle
several domains, or leave some accelerators of one idle.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from clusters.build import Cluster
from parallel.hotexperts import UNTOLD, HotExperts
from parallel.models import Model, Moe, layer_count, unwindowed
from parallel.serving.drafts import draft_memory
from parallel.serving.engines import Engine, Settings, kv_bytes, launched, serving_recipe
from parallel.serving.kernels import engine_chip
from parallel.serving.operators import dealt_ranks
from parallel.serving.passes import Curve, PassCost, Replica, Split, curves, layers_cost, weight_bytes
from parallel.serving.pipelines import Pipeline, pipeline, unshared
from parallel.serving.queueing import Limits, Served, StepCost
from parallel.serving.runs import limits_of
from parallel.serving.steady import Steady, steady
from parallel.serving.steps import as_tokens, steps_of
from parallel.serving.trust import Trust
from parallel.speculation import Drafts

MOST_TP: Final = 16
"""Ranks that attention is split over at most."""
MOST_ETP: Final = 16
"""Ranks that one expert is split over at most."""
MOST_CP: Final = 64
"""Ranks that share a prompt at most."""
MOST_PP: Final = 8
"""Pipeline stages that are tried at most."""
HEAVY: Final = 0.4
"""Share of an accelerator's memory that weights take before pipeline stages are tried: less of it frees little for caches."""


@dataclass(frozen=True)
class Ask:
    """What is to be served: `kv` is the width of a cached value, 0 for what the engine and the checkpoint bring.

    `trusts` are the engines, each with what stands behind it; the limits are seconds, or None; `given` is set by the asker;
    `cp` is whether prompts that several ranks share are tried whatever the limits.
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
    drafts: Drafts | None = None
    hot: HotExperts = UNTOLD
    given: Mapping[str, Any] = field(default_factory=dict)
    cp: bool = False

    @cached_property
    def routed(self) -> bool:
        """Whether the model has experts."""
        return any(isinstance(kind.mlp, Moe) for kind in self.model.layers)

    def settings(self, base: Engine, split: Split, clients: float = 0.0) -> Settings:
        """Return what an operator sets: as a published launch script does that fits, else the engine's defaults."""
        part, lengths = self.cluster.accelerator, (self.isl, self.osl)
        found = launched(base, self.model, part, self.precision, split.tp, clients, *lengths, split.dp)
        return replace(found, **self.given)

    def pooled(self, base: Engine) -> Settings:
        """Return what an operator sets on a worker of a pool."""
        return replace(base.defaults, **self.given)

    def replica(self, split: Split, width: float, base: Engine) -> Replica:
        """Return the model on the accelerators of a split, as an engine's kernels find them."""
        part = self.cluster.accelerator
        recipe = serving_recipe(self.model, self.precision, part)
        model = unwindowed(self.model, self.isl + self.osl)
        return Replica(model, self.cluster, engine_chip(part, recipe, base), split, width, self.hot, base.regime)

    def width(self, settings: Settings) -> float:
        """Bytes of a cached value."""
        return self.kv or kv_bytes(settings, self.precision, self.model)


@dataclass(frozen=True)
class Worker:
    """A split under one engine: what its steps cost, and what it admits to each attention group.

    Attributes
    ----------
    yielded : tokens that a sequence gets of a step
    lag_s : seconds that a first token comes after the step that its prompt was through with
    """

    replica: Replica
    cost: StepCost
    limits: Limits
    settings: Settings
    yielded: float = 1.0
    lag_s: float = 0.0

    @property
    def split(self) -> Split:
        """The split."""
        return self.replica.split

    def seats(self, isl: float, osl: float) -> float:
        """Return how many requests of so many input and output tokens the cache holds."""
        return self.limits.positions / (isl + osl / self.yielded + self.limits.kept)

    def steady(self, clients: float, isl: float, osl: float) -> Steady:
        """Return the closed form of so many clients on each attention group, in tokens."""
        told = steady(self.cost, self.limits, clients, isl, osl / self.yielded)
        tpot_s = told.tpot_s
        if self.split.pp > 1:
            alone = unshared(self.limits, self.split.pp, isl, clients)
            tpot_s = steady(self.cost, alone, clients, isl, osl / self.yielded).tpot_s
        return replace(told, ttft_s=told.ttft_s + self.lag_s, tpot_s=tpot_s / self.yielded)

    def as_tokens(self, served: Served) -> Served:
        """Return the times of requests whose answers were counted in steps."""
        return as_tokens(served, self.yielded, self.lag_s)


Priced = tuple[Replica, tuple[Curve, ...], PassCost, tuple[float, float]]
"""A replica of one stage, its layers, a pass through all of them, and weights and bytes a position of a draft."""


class Workers:
    """Workers of a search; what a pass costs is priced once for all engines whose kernels are alike."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.priced: dict[tuple[Split, float, str, tuple[tuple[str, str, float], ...]], Priced] = {}
        self.pipes: dict[tuple[Split, float, Engine, float, float], Pipeline] = {}

    def worker(self, split: Split, trust: Trust, clients: float = 0.0, *, pooled: bool = False) -> Worker:
        """Return a worker; one of a pool runs with the engine's defaults."""
        base = trust.engine
        settings = self.ask.pooled(base) if pooled else self.ask.settings(base, split, clients)
        replica, layers, cost, beside = self._priced(split, self.ask.width(settings), base)
        replica = replace(replica, split=split)
        limits = limits_of(replica, settings, base, beside)
        cost = replace(cost, engine=base, graphs=settings.graphs)
        pipe, asked = None, (self.ask.isl, self.ask.osl)
        if split.pp > 1:
            key = split, replica.kv_bytes, base, settings.tokens, settings.graphs
            if key not in self.pipes:
                self.pipes[key] = pipeline(replica, base, settings.tokens, layers, settings.graphs)
            pipe = self.pipes[key]
        steps = steps_of(replica, cost, limits, settings, asked, self.ask.drafts, pipe)
        return Worker(replica, steps.cost, steps.limits, settings, steps.yielded, steps.lag_s)

    def _priced(self, split: Split, width: float, base: Engine) -> "Priced":
        """Price the layers of a split, whose stages of a pipeline are alike, and what a draft takes of its memory."""
        key = replace(split, pp=1.0), width, base.regime, base.grouped
        if key not in self.priced:
            replica = self.ask.replica(key[0], width, base)
            layers = curves(replica)
            whole = layers_cost(replica, base, layers, [kind.count for kind in self.ask.model.layers])
            beside = draft_memory(replica, self.ask.drafts) if self.ask.drafts else (0.0, 0.0)
            self.priced[key] = replica, layers, whole, beside
        return self.priced[key]


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


def deeper(ask: Ask, worker: Worker) -> Iterator[Split]:
    """Yield a split over twice as many pipeline stages, where these free memory worth having.

    Stages hold the cache of as many sequences as so many replicas would, and their weights once: where weights take `HEAVY`
    of the memory, twice the stages leave room for more sequences at once. Twice the expert ranks share the weights out as
    well and wait for no one: with experts, stages are for where these would leave the scale-up domain.
    """
    split = worker.split
    stages = 2.0 * split.pp
    most = min(MOST_PP, layer_count(ask.model), ask.cluster.accelerators // split.stage)
    heavy = weight_bytes(worker.replica) > HEAVY * ask.cluster.accelerator.usable_bytes
    alone = not ask.routed or 2.0 * split.stage > ask.cluster.domain
    if heavy and alone and stages <= most and ask.drafts is None:
        yield replace(split, pp=stages)


def dealt(ask: Ask, split: Split) -> Iterator[Split]:
    """Yield a split whose tensor ranks deal the cache that they would hold copies of, among as many as do."""
    copies = [dealt_ranks(kind.attention, split.tp) for kind in ask.model.layers if kind.attention.kind != "delta"]
    most = min(copies, default=1.0)
    if split.dcp == 1 and most > 1 and split.tp % most == 0:
        yield replace(split, dcp=most)


def sharing(ask: Ask, split: Split) -> Iterator[Split]:
    """Yield splits whose prompts are shared by 2, 4, … times the tensor ranks.

    With experts these are ranks of other attention groups, so that the experts stay where they are; without, further ones.

    >>> from clusters.build import build
    >>> from clusters.spec import load
    >>> from parallel.io import read_model
    >>> ask = Ask(read_model("deepseek-v3"), build(load("hgx-h200")), "fp8", 65536, 1, ())
    >>> [(one.cp, one.dp) for one in sharing(ask, Split(2.0, 4.0, 1.0, 8.0))]
    [(2.0, 2.0), (4.0, 1.0)]
    """
    if any(kind.attention.kind in ("delta", "compressed") for kind in ask.model.layers):
        return
    room = split.dp if ask.routed else ask.cluster.accelerators // split.tp
    for cp in _powers(int(min(room, MOST_CP, ask.isl // 2)))[1:]:
        if not ask.routed:
            yield replace(split, cp=float(cp))
        elif split.dp % cp == 0:
            yield replace(split, dp=split.dp / cp, cp=float(cp))


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
