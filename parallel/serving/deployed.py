"""A scenario file bound to its engine and its cluster: replicas, split, drafts, and what the engine admits."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clusters.build import build
from clusters.spec import ClusterSpec
from parallel.hotexperts import HotExperts
from parallel.models import Model, Moe, compressed, unwindowed
from parallel.serving.drafts import draft_memory
from parallel.serving.engines import Engine, Settings, kv_bytes, launched, serving_recipe
from parallel.serving.kernels import engine_chip
from parallel.serving.passes import PassCost, Replica, Split, kept_positions, pass_cost, position_bytes, weight_bytes
from parallel.serving.queueing import Limits
from parallel.serving.runs import limits_of
from parallel.serving.steps import Steps, split_faults, steps_of
from parallel.serving.trust import Trust, trusted
from parallel.speculation import Drafts, drafts_of
from topo.errors import Fault, InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import ServeFile

SIZES: Final = {"tp": "tp", "attention_dp": "dp", "ep": "ep", "etp": "etp"}
"""Size of a split as it is told -> what `Split` calls it."""
FURTHER: Final = ("pp", "cp", "dcp")
"""Sizes that are told where they are not 1."""
CHECKPOINTS: Final = {"nvfp4": "fp4"}
"""Recipe -> what launch scripts call it."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A scenario file as bound to its engine and its cluster.

    Attributes
    ----------
    cost : what a pass through all layers costs
    steps : what the engine's steps cost, and what it admits to an attention group
    count : replicas
    precision, checkpoint : the recipe, and what launch scripts call it
    """

    trust: Trust
    replica: Replica
    cost: PassCost
    steps: Steps
    count: int
    isl: int
    osl: int
    precision: str
    checkpoint: str
    drafts: Drafts | None = None

    @property
    def limits(self) -> Limits:
        """What the engine admits to an attention group, counted in steps."""
        return self.steps.limits

    @property
    def context(self) -> float:
        """Positions that a decoding sequence sees on average of its steps."""
        return self.isl + self.steps.outputs(self.osl) / 2.0

    @property
    def named(self) -> dict[str, Any]:
        """What is deployed, for a calibration to recognise it."""
        replica = self.replica
        return {
            "model": replica.model.name,
            "accelerator": replica.cluster.accelerator.name,
            "precision": self.checkpoint,
            **sizes(replica.split),
        }


def sizes(split: Split) -> dict[str, int]:
    """Return the sizes of a split as they are told.

    >>> sizes(Split(tp=8)), sizes(Split(tp=4, pp=2))["pp"]
    ({'tp': 8, 'attention_dp': 1, 'ep': 1, 'etp': 1}, 2)
    """
    told = {name: int(getattr(split, field)) for name, field in SIZES.items()}
    return told | {name: int(getattr(split, name)) for name in FURTHER if getattr(split, name) > 1}


def deployed(file: "ServeFile", spec: ClusterSpec, model: Model, path: str) -> Deployment:
    """Bind a scenario file.

    Raises
    ------
    SpecError
        The split fits neither model nor cluster, or asks for what engines are not priced with; every fault at once.
    InfeasibleError
        The weights leave no room for one request; the message says by how much.
    """
    model = unwindowed(model, (file.workload.isl or 4096) + (file.workload.osl or 1024))
    trust = trusted(file.engine, Path(path).parent / file.calibration if file.calibration else None)
    base, cluster = trust.engine, build(spec)
    precision, isl, osl = file.workload.precision or "fp8", file.workload.isl or 4096, file.workload.osl or 1024
    drafts, hot = drafts_in(file, path), hot_in(file)
    split = _split(file, model, drafts, path)
    count = int(cluster.accelerators // split.ranks)
    if not count:
        problem = f"has {cluster.accelerators} accelerators, fewer than the {split.ranks:.0f} of one replica"
        raise SpecError([Fault("accelerators", cluster.accelerators, problem, "buy more, or split less", path)])
    part, each = cluster.accelerator, (file.load.clients or 0.0) / count
    named = CHECKPOINTS.get(precision, precision)
    settings = launched(base, model, part, named, split.tp, each, isl, osl, split.dp)
    settings = replace(settings, **file.settings.given)
    recipe = serving_recipe(model, named, part)
    if compressed(model) and file.workload.kv_bytes not in (None, 1.0):
        problem = "is not what entries of compressed attention are kept in: FP8, the rotary part in BF16"
        raise SpecError([Fault("workload.kv_bytes", file.workload.kv_bytes, problem, "write 1, or leave it out", path)])
    width = file.workload.kv_bytes or kv_bytes(settings, named, model)
    replica = Replica(model, cluster, engine_chip(part, recipe, base), split, width, hot, base.regime)
    limits = _limits(file, replica, settings, base, drafts, isl + osl)
    cost = replace(pass_cost(replica, base), graphs=settings.graphs)
    steps = steps_of(replica, cost, limits, settings, (isl, osl), drafts)
    return Deployment(trust, replica, cost, steps, count, isl, osl, precision, named, drafts)


def drafts_in(file: "ServeFile", path: str) -> Drafts | None:
    """Return the drafts that a scenario asks for."""
    if file.drafts is None:
        return None
    from parallel.scenarioparts import model_of

    asked = file.drafts
    try:
        return drafts_of(
            asked.tokens, asked.acceptance, asked.method, model_of(asked.model, path) if asked.model else None
        )
    except SpecError as error:
        raise SpecError([replace(fault, file=path) for fault in error.faults]) from None


def hot_in(file: "ServeFile") -> HotExperts:
    """Return the loads of experts that a scenario asks for."""
    work = file.workload
    return HotExperts(work.zipf or 0.0, work.imbalance or 0.0, work.expert_copies)


def _split(file: "ServeFile", model: Model, drafts: Drafts | None, path: str) -> Split:
    """Return the split of one replica: stages of ``max(tp·cp, ep)`` ranks, attention data-parallel over what tp·cp leaves."""
    chosen, faults = file.strategy, []
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    if chosen.microbatches > 1:
        problem = "is not priced under an engine"
        faults.append(Fault("strategy.microbatches", chosen.microbatches, problem, "leave it out", path))
    uneven = [
        name for name in ("imbalance", "zipf", "expert_copies") if getattr(file.workload, name) not in (None, 0, 1)
    ]
    for field, value in [("strategy.ep", chosen.ep)] * (chosen.ep > 1) + [(f"workload.{n}", None) for n in uneven]:
        if not routed:
            faults.append(Fault(field, value, f"is of experts, and {model.name} has none", "leave it out", path))
    heads = [kind.attention.heads for kind in model.layers]
    if any(number % chosen.tp for number in heads):
        faults.append(Fault("strategy.tp", chosen.tp, f"does not divide {heads[0]} heads", "choose a divisor", path))
    group = chosen.tp * chosen.cp
    ranks = max(group, chosen.ep)
    if ranks % group or ranks % chosen.ep:
        named = f"tp {chosen.tp}" if chosen.cp == 1 else f"tp·cp {group}"
        problem = f"neither divides {named} nor is a multiple of it"
        faults.append(Fault("strategy.ep", chosen.ep, problem, "choose one that does", path))
    etp = ranks / chosen.ep if routed else 1.0
    split = Split(chosen.tp, ranks / group, etp, chosen.ep, chosen.pp, chosen.dcp, chosen.cp, chosen.dcp_comm)
    faults += [replace(fault, file=path) for fault in split_faults(model, split, drafts)]
    if faults:
        raise SpecError(faults)
    return split


def _limits(
    file: "ServeFile", replica: Replica, settings: Settings, base: Engine, drafts: Drafts | None, needed: float
) -> Limits:
    """Return what the engine admits; InfeasibleError where not one request fits."""
    beside = draft_memory(replica, drafts) if drafts else (0.0, 0.0)
    limits = limits_of(replica, settings, base, beside)
    if limits.positions < needed:
        weights, device = (weight_bytes(replica) + beside[0]) / 1e9, replica.chip.accelerator.usable_bytes / 1e9
        problem = (
            f"weights of {weights:.1f} GB leave room for {limits.positions:,.0f} cached positions of {needed:,.0f}"
        )
        raise InfeasibleError(file.name, f"{device:.0f} GB of memory per accelerator", problem, "raise tp, ep or pp")
    return limits


def memory_bytes(held: Deployment, decoding: float, context: float) -> dict[str, float]:
    """Return the bytes of one accelerator: weights, cache in use on average, and what the engine keeps free for more."""
    replica, drafts = held.replica, held.drafts
    draft = draft_memory(replica, drafts) if drafts else (0.0, 0.0)
    each, positions = position_bytes(replica) + draft[1], held.steps.positions
    used = min(decoding * (context + kept_positions(replica)), positions) * each
    found = {"weights": weight_bytes(replica), "kv cache": used, "cache to spare": positions * each - used}
    return found | ({"draft": draft[0]} if drafts else {})
