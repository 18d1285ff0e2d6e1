"""Pipeline stages under an engine: micro-batches that go round, each with its share of the sequences.

vLLM, SGLang and TensorRT-LLM keep as many micro-batches in flight as there are stages: of ``b`` sequences ``m = min(b, pp)``
micro-batches get ``b/m`` each. A micro-batch starts its next pass when it has come through all stages, and a stage takes one
after the other, so that all of them get a token every

    cycle = max(Σ over micro-batches of the slowest stage's time, longest way through all stages and hops)

A prompt is fed in chunks of the token budget, one to a micro-batch, pp of them at once: a single chunk lengthens the cycle
by all that it adds to its own pass, since those behind it wait at every stage; pp chunks together lengthen it no further
while others follow them (the last chunk of a lone burst of c is through c − 1 slots after its cycle: `Pipeline.lag_s`).
What stages free is memory for weights; each holds fewer layers of the cache, of the sequences of all micro-batches.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Any

import numpy as np

from clusters.build import Cluster, path
from collectives.point_to_point import send_recv
from parallel.operators import ACTIVATION_BYTES
from parallel.serving.engines import Engine
from parallel.serving.passes import (
    GRID,
    Curve,
    PassCost,
    Replica,
    curves,
    interpolated,
    layers_cost,
    position_bytes,
    stage_counts,
    weight_bytes,
)
from parallel.serving.queueing import Limits, StepCost


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a cycle of all micro-batches costs: a `parallel.serving.queueing.StepCost`.

    Attributes
    ----------
    whole : a pass through all layers
    stages : (stages alike, a pass through one of them)
    depth : stages
    hops_s : seconds of all hops of one pass at each token count of `GRID`
    back_s : seconds in which the last stage tells the first which tokens came
    budget : tokens of a micro-batch
    """

    whole: PassCost
    stages: tuple[tuple[int, PassCost], ...]
    depth: int
    hops_s: tuple[float, ...]
    back_s: float
    budget: float

    def micro_batches(self, decoding: float) -> float:
        """Micro-batches of so many sequences."""
        return max(min(decoding, float(self.depth)), 1.0)

    def through(self, decoding: float, positions: float, prompt: float, pairs: float) -> tuple[float, float]:
        """Return the seconds of one micro-batch on its way through all stages and hops, and at the slowest stage."""
        way, slowest = interpolated(self.hops_s, decoding + prompt / self.whole.cp) + self.back_s, 0.0
        for alike, cost in self.stages:
            seconds = cost.checking(1.0, decoding, positions, prompt, pairs)
            way += alike * seconds
            slowest = max(slowest, seconds)
        return way, slowest

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Return the seconds of a cycle; see the module's equation."""
        parts = self.micro_batches(decoding)
        each, seen = decoding / parts, positions / parts
        if not prompt:
            way, slowest = self.through(each, seen, 0.0, 0.0)
            return max(parts * slowest, way)
        chunks = max(prompt / max(self.budget - each, 1.0), 1.0)
        way, slowest = self.through(each, seen, prompt / chunks, pairs / chunks)
        others = max(parts - chunks, 0.0) if decoding else 0.0
        beside = self.through(each, seen, 0.0, 0.0)[1] if others else 0.0
        return max(chunks * slowest + others * beside, way)

    def lag_s(self, isl: float) -> float:
        """Seconds that a first token comes after the cycle that its prompt was through with: the last chunk's way.

        A prompt of C chunks fills C slots of the first stage, the last of them ``(C − 1) mod pp`` after its cycle began.
        """
        chunks = ceil(isl / self.budget)
        each = isl / chunks
        return (chunks - 1) % self.depth * self.through(0.0, 0.0, each, each * isl / 2.0)[1]

    def prompt_s(self, isl: float) -> tuple[float, float]:
        """Seconds of a prompt alone, ``(C − 1)·slowest + way`` of its C chunks, and between two that follow each other."""
        chunks = ceil(isl / self.budget)
        way, slowest = self.through(0.0, 0.0, isl / chunks, isl * isl / 2.0 / chunks)
        return (chunks - 1) * slowest + way, chunks * slowest

    def parts(self, decoding: float, positions: float) -> dict[str, float]:
        """Return the seconds of a cycle without prompts by name: one micro-batch's way, and what the slowest stage adds."""
        count = self.micro_batches(decoding)
        each = decoding / count
        found = self.whole.parts(each, positions / count)
        found["hops"] = interpolated(self.hops_s, each) + self.back_s
        return {**found, "uneven stages": max(self(decoding, positions, 0.0, 0.0) - sum(found.values()), 0.0)}

    def told(self, replica: Replica, decoding: float, positions: float) -> dict[str, Any]:
        """Return what an answer says of the stages: layers, seconds of a micro-batch on each, and what one GPU holds."""
        count = self.micro_batches(decoding)
        layers = [sum(kinds) for kinds in stage_counts(replica.model, self.depth)]
        seconds = [cost(decoding / count, positions / count, 0.0, 0.0) for _, cost in self.stages]
        alone = replace(replica, split=replace(replica.split, pp=1.0))
        return {
            "stages": self.depth,
            "layers": layers,
            "micro_batches": count,
            "slowest_s": max(seconds),
            "fastest_s": min(seconds),
            "weight_bytes": {"one_stage": weight_bytes(alone), "these": weight_bytes(replica)},
            "position_bytes": {"one_stage": position_bytes(alone), "these": position_bytes(replica)},
            "note": "stages share out weights and layers of the cache, and hold the sequences of all micro-batches",
        }


def slot_s(cost: StepCost, budget: float, isl: float) -> float:
    """Seconds between two prompts where many wait: as many to a pass as its token budget holds; stages work on several.

    >>> f"{slot_s(lambda decoding, positions, prompt, pairs: 1e-3 + 1e-6 * prompt, 8192, 1000):.6f}"  # eight share 1 ms
    '0.001125'
    """
    together = max(budget // isl, 1.0)
    fed = (0.0, 0.0, together * isl, together * isl * isl / 2.0)
    if not isinstance(cost, Pipeline):
        return cost(*fed) / together
    return cost.through(*fed)[1] / together if together > 1.0 else cost.prompt_s(isl)[1]


def crossings(cluster: Cluster, stages: int, ranks: int) -> Mapping[int, int]:
    """Return how many hops between neighbouring stages of so many ranks turn round at each tier.

    Rank k of a stage sends to rank k of the next one; the worst placed pair counts.

    >>> from clusters.build import build
    >>> from clusters.spec import parse
    >>> dict(crossings(build(parse({"accelerator": "h200-sxm", "accelerators": 32})), 4, 4))  # two stages to a box of 8
    {0: 2, 1: 1}
    """
    found: Counter[int] = Counter()
    for stage in range(stages - 1):
        ends = [(stage * ranks + k, (stage + 1) * ranks + k) for k in (0, ranks - 1)]
        tiers = [
            next(
                (at for at, tier in enumerate(cluster.tiers) if a // tier.size == b // tier.size),
                len(cluster.tiers) - 1,
            )
            for a, b in ends
        ]
        found[max(tiers)] += 1
    return found


def pipeline(
    replica: Replica,
    engine: Engine,
    budget: float,
    priced: tuple[Curve, ...] | None = None,
    graphs: float = inf,
) -> Pipeline:
    """Price a replica's pipeline under an engine whose micro-batches have a token budget each; `graphs` as of a pass.

    `priced` are its layers, where these are known.
    """
    split, model = replica.split, replica.model
    layers = priced or curves(replica)
    counts = stage_counts(model, split.pp)
    alike = Counter((held, at == len(counts) - 1) for at, held in enumerate(counts))
    stages = [
        (times, replace(layers_cost(replica, engine, layers, held, ends=last), graphs=graphs))
        for (held, last), times in alike.items()
    ]
    road = path(replica.cluster, "send_recv", "nccl")
    sizes = ACTIVATION_BYTES * np.array(GRID) * model.hidden * model.streams
    crossed = crossings(replica.cluster, int(split.pp), int(split.stage))
    hops = sum(
        (times * send_recv(sizes, np.full(sizes.shape, tier), road) for tier, times in crossed.items()),
        start=np.zeros_like(sizes),
    )
    back = float(send_recv(sizes[:1], np.array([max(crossed)]), road)[0])
    whole = layers_cost(replica, engine, layers, [kind.count for kind in model.layers])
    return Pipeline(whole, tuple(stages), int(split.pp), tuple(hops.tolist()), back, budget)


def unshared(limits: Limits, pp: float, isl: float, clients: float) -> Limits:
    """Return the limits of a pipeline under which no cycle feeds prompts of two clients; chunks of one still go together.

    Clients are answered at cycles, not at times: a long cycle that feeds one prompt brings few others.

    >>> unshared(Limits(8, 400, 1e6), 4, 150, 6).tokens
    206.0
    """
    budget = limits.tokens / pp
    return replace(limits, tokens=budget * min(ceil(isl / budget), pp) + clients)


def piped(limits: Limits, pp: float) -> Limits:
    """Return what a pipeline admits: as many budgets at once as stages, and other micro-batches decode beside a prompt.

    >>> piped(Limits(8, 100, 1e6, mixed=False), 4) == Limits(8, 400, 1e6, mixed=True)
    True
    """
    return limits if pp <= 1 else replace(limits, tokens=limits.tokens * pp, mixed=True)
