"""What each part of a step of reinforcement learning takes: engines, forward passes, optimizer steps, weights on their way."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.build import build
from clusters.collective import collective
from clusters.spec import ClusterSpec, with_
from parallel.explain.point import Point
from parallel.models import Model, Moe, unwindowed
from parallel.rl.loop import Answers
from parallel.roofline import chip
from parallel.scenarioparts import given, split_as
from parallel.serving.engines import engine, kv_bytes, serving_recipe
from parallel.serving.passes import PassCost, Replica, Split, pass_cost, weight_bytes
from parallel.serving.queueing import Limits
from parallel.serving.runs import limits_of
from parallel.spread import Spread
from parallel.training.layer import TrainJob
from parallel.training.step import DEFAULTS, stage_prices
from parallel.workload import Software, TrainWorkload
from topo.errors import Fault, InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import AnswersFile, RlFile, RolloutFile, TrainerFile

DRAWN: Final = 4096
"""Quantiles by which a distribution's moments are taken."""
LOADED_Bps: Final = 66e9
"""Weights that an engine takes in a second on each accelerator, whatever the model and the scale: 61 to 76 GB/s over the six
rows of 8 to 256 H800 and H20 in the README of MoonshotAI/checkpoint-engine, of which this is the median."""
ONCE: Final = ("dp", "optimizer", "step", "contention", "evaluation")
"""Terms of a training step that forward passes do not have."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines of one pool: the cost of a pass, what an attention group admits, and how many groups there are."""

    cost: PassCost
    limits: Limits
    groups: int
    used: int


@dataclass(frozen=True, slots=True)
class Training:
    """Seconds of the trainer's part of a step, by term; bytes of one accelerator; accelerators at work."""

    forward_s: float
    train_s: float
    terms: dict[str, float]
    memory: dict[str, float]
    used: int


def answers_of(file: "AnswersFile", lengths: Spread) -> Answers:
    """Return what a step trains on; the answers to one prompt share its cache."""
    return Answers(file.prompts * file.samples, file.prompt_tokens, file.prompt_tokens / file.samples, lengths)


def split_of(file: "RolloutFile", model: Model, path: str) -> Split:
    """Return the split of one engine: ``max(tp, ep)`` ranks, attention data-parallel over those that tp leaves."""
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    faults = []
    if file.ep > 1 and not routed:
        faults.append(Fault("rollout.ep", file.ep, f"splits experts, and {model.name} has none", "leave it out", path))
    if any(kind.attention.heads % file.tp for kind in model.layers):
        faults.append(Fault("rollout.tp", file.tp, "does not divide the attention heads", "choose a divisor", path))
    ranks = max(file.tp, file.ep)
    if ranks % file.tp or ranks % file.ep:
        faults.append(
            Fault("rollout.ep", file.ep, f"and tp {file.tp} do not divide each other", "choose one that does", path)
        )
    if faults:
        raise SpecError(faults)
    return Split(file.tp, ranks / file.tp, ranks / file.ep if routed else 1.0, file.ep)


def engines_of(file: "RolloutFile", model: Model, spec: ClusterSpec, split: Split, longest: float) -> Engines:
    """Return the engines of a pool.

    Raises
    ------
    InfeasibleError
        The weights leave no room for the longest answer.
    """
    base, cluster = engine(file.engine), build(spec)
    recipe = serving_recipe(model, file.precision, cluster.accelerator)
    machine = chip(cluster.accelerator, recipe)
    held = unwindowed(model, longest)
    replica = Replica(held, cluster, machine, split, kv_bytes(base.defaults, file.precision), regime=base.regime)
    limits = limits_of(replica, base.defaults, base)
    if limits.positions < longest:
        room = (
            f"weights of {weight_bytes(replica) / 1e9:.1f} GB leave room for {limits.positions:,.0f} cached positions"
        )
        limit = f"{longest:,.0f} positions of the longest answer"
        raise InfeasibleError("rollout", limit, room, "raise rollout.tp or ep, or cut the answers by lengths.most")
    count = int(cluster.accelerators // split.ranks)
    if not count:
        remedy = f"give it {split.ranks:.0f} at least"
        raise SpecError([Fault("rollout.accelerators", cluster.accelerators, "hold no whole engine", remedy)])
    return Engines(pass_cost(replica, base), limits, int(count * split.dp), int(count * split.ranks))


def packed(answers: Answers) -> tuple[float, float]:
    """Return tokens of a step, and the length of equal sequences that have as many (token, earlier token) pairs.

    ``n·E[L]`` tokens and ``n·E[L²]/2`` pairs are those of ``n·E[L]/s`` sequences of ``s = E[L²]/E[L]``.

    >>> packed(Answers(2, 1.0, 1.0, Spread(values=(1.0, 3.0))))  # sequences of 2 and 4 tokens
    (6.0, 3.3333333333333335)
    """
    whole = answers.prompt + answers.lengths.draw(min(answers.count, DRAWN))
    mean = float(np.mean(whole))
    return answers.count * mean, float(np.mean(whole**2)) / mean


def training_of(file: "TrainerFile", model: Model, spec: ClusterSpec, answers: Answers, path: str) -> Training:
    """Price the trainer's part of a step, its batch packed into equal sequences (`packed`) and dealt to all replicas.

    Forward passes are the forward share of a step's layers and pipeline.

    Raises
    ------
    SpecError
        With every rule that the split breaks.
    InfeasibleError
        The split does not fit in memory.
    """
    tokens, sequence = packed(answers)
    software = Software(**given(file.software))
    work = TrainWorkload(sequence=max(round(sequence), 1), precision=file.precision, software=software)
    model_ranks = file.strategy.tp * file.strategy.cp * file.strategy.pp
    cluster = build(spec)
    dp = file.strategy.dp or max(cluster.usable // model_ranks, 1)
    unit = dp * file.strategy.micro_batch
    each = max(round(tokens / file.minibatches / work.sequence / unit), 1) * unit
    work = replace(work, global_batch=each)
    strategy = file.strategy.model_copy(update={"dp": dp})
    point = split_as(Point("train", model, spec, train=work), strategy)
    point.check(path)
    priced = point.price()
    needed, held = float(priced.memory_bytes[0]), cluster.accelerator.usable_bytes
    if needed > held:
        by = f"the split needs {needed / 2**30:.1f} GiB"
        raise InfeasibleError(
            "trainer", f"{held / 2**30:.0f} GiB of memory per accelerator", by, "raise tp, pp or recompute"
        )
    scale = tokens / work.tokens
    terms = {name: scale * float(value[0]) for name, value in priced.terms.items() if value[0]}
    cols = point.cols.filled(DEFAULTS)
    stack = stage_prices(TrainJob.of(model, cluster, work), cols)
    ahead = float((stack["forward share"] / stack["total"])[0])
    forward = ahead * sum(value for name, value in terms.items() if name not in ONCE)
    memory = {name: float(value[0]) for name, value in priced.memory.items() if value[0]}
    return Training(file.forwards * forward, sum(terms.values()), terms, memory, int(dp * model_ranks))


def update_of(file: "RlFile", model: Model, spec: ClusterSpec) -> dict[str, Any]:
    """Return how the weights go round: an all-gather of the trainer's shards over the graph, and loading what arrives.

    Every accelerator sees all the bytes of one copy, in the engines' format, and keeps what it holds. Buckets are gathered
    while others are loaded, so that the slower of the two sets the time: ``max(gather, bytes / LOADED_Bps)``; a measured time
    replaces both.
    """
    cluster = build(spec)
    recipe = serving_recipe(model, file.rollout.precision, cluster.accelerator)
    size = weight_bytes(Replica(model, cluster, chip(cluster.accelerator, recipe), Split(), 2.0))
    if file.rollout.update_s is not None:
        return {"bytes": size, "seconds": file.rollout.update_s, "bound_by": "as measured"}
    gather = collective(cluster, "all_gather", cluster.usable, size)["time_s"] if cluster.usable > 1 else 0.0
    parts = {"gather_s": gather, "load_s": size / LOADED_Bps}
    slower = max(parts, key=lambda name: parts[name])
    return {"bytes": size, "seconds": parts[slower], "bound_by": slower.removesuffix("_s"), **parts}


def shared_out(spec: ClusterSpec, count: int) -> ClusterSpec:
    """Return a pool of some of a cluster's accelerators, wired as the whole."""
    return with_(spec, accelerators=count)
