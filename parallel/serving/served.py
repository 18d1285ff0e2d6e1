"""A deployment under a serving engine and a load: both phases on the same accelerators, requests and all.

What `podscale serve` answers when its scenario names an engine: mean TTFT and TPOT with percentiles, from a simulation of
every replica's share of the load (`parallel.serving.queueing`); the time of a token term by term; memory; a 90 % interval from
the engine's residuals.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.build import build
from clusters.catalogue import Accelerator
from clusters.spec import ClusterSpec
from parallel.models import Model, Moe, flops_per_token_forward
from parallel.serving.departures import departures
from parallel.serving.engines import Engine, Settings, kv_bytes, launched, serving_recipe
from parallel.serving.flags import launches
from parallel.serving.kernels import engine_chip
from parallel.serving.passes import (
    PassCost,
    Replica,
    Split,
    cache_positions,
    pass_cost,
    position_bytes,
    weight_bytes,
)
from parallel.serving.queueing import ClosedLoop, Limits, OpenLoop, Served, StepCost, simulate
from parallel.serving.runs import SEED, about
from parallel.serving.steady import ROUNDS
from parallel.serving.trust import Trust, trusted
from topo.errors import Fault, InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import LoadFile, ServeFile

SHARES: Final = (50.0, 90.0, 99.0)
"""Percentiles that are told beside the mean."""
MEASURED_EP: Final = 32
"""Largest expert group of the serving runs behind the engines' residuals."""
MOST_REQUESTS: Final = 4000
"""Requests that are simulated at most."""
SIZES: Final[Mapping[str, str]] = {"tp": "tp", "attention_dp": "dp", "ep": "ep", "etp": "etp"}
"""Size of a split as it is told -> what `Split` calls it."""
CHECKPOINTS: Final[Mapping[str, str]] = {"nvfp4": "fp4"}
"""Recipe -> what launch scripts call it."""


def serve_engine(file: "ServeFile", spec: ClusterSpec, model: Model, path: str) -> dict[str, Any]:
    """Simulate the deployment of a scenario file that names an engine.

    Raises
    ------
    SpecError
        The split fits neither model nor cluster, or asks for what engines are not priced with; every fault at once.
    InfeasibleError
        The weights leave no room for one request; the message says by how much.
    """
    held = deployed(file, spec, model, path)
    trust, replica, cost, limits = held.trust, held.replica, held.cost, held.limits
    base, cluster, split, count, named = trust.engine, replica.cluster, replica.split, held.count, held.checkpoint
    isl, osl, precision, width = held.isl, held.osl, held.precision, replica.kv_bytes
    part, load = cluster.accelerator, file.load
    each = (load.clients or 0.0) / count
    run = partial(_simulated, load, count * split.dp, osl)
    kept: dict[str, Any] = {}
    if file.reuse:
        from parallel.serving import reused

        reuse, closed = reused.reuse_of(file.reuse, isl, path), bool(load.clients)
        served, kept = reused.under_load(
            reuse, file.reuse.tiers, replica, cost, limits, (isl, osl), count * split.dp, run, closed=closed
        )
    else:
        served = run(cost, limits, partial(about, isl))
    served = trust.applied(served, closed=load.requests_per_s is None)
    tpot_s, ttft_s = float(np.mean(served.tpot_s)), float(np.mean(served.ttft_s))
    tokens_per_s = len(served.e2e_s) * osl / served.seconds * split.dp * count
    used = int(count * split.ranks)
    decoding = float(np.sum(served.tpot_s) * (osl - 1) / served.seconds)
    back_s = base.return_s(each or decoding * split.dp)
    ttft_s += back_s
    zero_shot = None
    if file.calibration:
        bare = serve_engine(file.model_copy(update={"calibration": None}), spec, model, path)
        zero_shot = {name: bare[name] for name in ("ttft_s", "tpot_s")}
    parts = _terms(cost, decoding, isl + osl / 2, tpot_s / trust.tpot)
    terms = {name: trust.tpot * seconds for name, seconds in parts.items()}
    flops = float(np.sum(list(flops_per_token_forward(model, isl, causal=True).values())))
    flops *= (isl - kept.get("cached_tokens", 0.0)) / osl
    flops += float(np.sum(list(flops_per_token_forward(model, isl + osl / 2, causal=False).values())))
    peak = replica.chip.peak(replica.chip.format("experts"))
    intervals = _intervals(base, {"tpot_s": tpot_s, "ttft_s": ttft_s})
    return {
        "name": file.name, "note": file.note, "phase": "prefill and decode", "model": model.name, "cluster": cluster.name,
        "engine": base.name, "limit": None, "ladder": [],
        "workload": {"isl": isl, "osl": osl, "precision": precision, "kv_bytes": width, **load.model_dump()},
        "strategy": {
            **{name: int(getattr(split, field)) for name, field in SIZES.items()},
            "replicas": count,
        },
        "gpus_used": used, "gpus_idle": cluster.accelerators - used,
        "tokens_per_s_per_gpu": tokens_per_s / cluster.accelerators, "tokens_per_s_per_user": 1.0 / tpot_s,
        "requests_per_s": tokens_per_s / osl,
        "step_time_s": trust.tpot * cost(decoding, decoding * (isl + osl / 2), 0.0, 0.0),
        "ttft_s": ttft_s, "tpot_s": tpot_s, "percentiles": _percentiles(served, back_s),
        "departures": asdict(departures(
            cost, limits, split.dp * count, decoding, isl + osl / 2, tpot_s, isl, osl, trust.tpot
        )),
        "decoding": decoding, "saturated": served.saturated,
        "mfu": flops * tokens_per_s / used / peak, "terms": terms, "busy": dict(terms),
        "memory_bytes": _memory(replica, limits, decoding, isl + osl / 2),
        "bottleneck": max(terms, key=lambda name: terms[name]),
        "interval": intervals["tpot_s"], "intervals": intervals,
        "interval_note": f"{'' if intervals['tpot_s'] else 'no '}residuals of {base.name}",
        "limit_broken": _broken(file, ttft_s, tpot_s), "infeasible": None,
        "trust": trust.told(zero_shot),
        "deploy": launches(model, part, named, split, each, (isl, osl), file.workload.kv_bytes),
        "warnings": [
            *trust.warnings(_deployment(model, part, named, split)),
            *_warnings(replica, served, cluster.accelerators - used),
            *kept.get("notes", ()),
        ],
        **({"reuse": kept} if kept else {}), **_started(file, replica, cost, used, isl),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deployment:
    """A scenario file as bound to its engine and its cluster.

    Attributes
    ----------
    count : replicas
    precision, checkpoint : the recipe, and what launch scripts call it
    """

    trust: Trust
    replica: Replica
    cost: PassCost
    limits: Limits
    count: int
    isl: int
    osl: int
    precision: str
    checkpoint: str


def deployed(file: "ServeFile", spec: ClusterSpec, model: Model, path: str) -> Deployment:
    """Bind a scenario file; raises what `serve_engine` does."""
    trust = trusted(file.engine, Path(path).parent / file.calibration if file.calibration else None)
    base, cluster = trust.engine, build(spec)
    precision, isl, osl = file.workload.precision or "fp8", file.workload.isl or 4096, file.workload.osl or 1024
    split = _split(file, model, path)
    count = int(cluster.accelerators // split.ranks)
    if not count:
        problem = f"has {cluster.accelerators} accelerators, fewer than the {split.ranks:.0f} of one replica"
        raise SpecError([Fault("accelerators", cluster.accelerators, problem, "buy more, or split less", path)])
    part, each = cluster.accelerator, (file.load.clients or 0.0) / count
    named = CHECKPOINTS.get(precision, precision)
    settings = launched(base, model, part, named, split.tp, each, isl, osl, split.dp)
    recipe = serving_recipe(model, named, part)
    width = file.workload.kv_bytes or kv_bytes(settings, named)
    replica = Replica(model, cluster, engine_chip(part, recipe, base), split, width)
    limits = _limits(file, replica, settings, isl + osl, base.offset_s / 2.0)
    cost = pass_cost(replica, base)
    return Deployment(trust, replica, cost, limits, count, isl, osl, precision, named)


def _deployment(model: Model, part: Accelerator, precision: str, split: Split) -> dict[str, Any]:
    sizes = {name: int(getattr(split, field)) for name, field in SIZES.items()}
    return {"model": model.name, "accelerator": part.name, "precision": precision, **sizes}


def _started(file: "ServeFile", replica: Replica, cost: PassCost, used: int, isl: int) -> dict[str, Any]:
    """Return what a cold start adds: until the weights are there, and the first prompt, alone."""
    if not file.cold_start:
        return {}
    from parallel.serving.coldstart import start_of, started

    start = start_of(file.cold_start, replica.cluster, weight_bytes(replica), used, replica.split.ranks)
    return {"cold_start": started(start, cost(0.0, 0.0, isl, isl * isl / 2.0), file.cold_start.source)}


def _split(file: "ServeFile", model: Model, path: str) -> Split:
    """Return the split of one replica: ``max(tp, ep)`` ranks, attention data-parallel over those that tp leaves."""
    chosen, faults = file.strategy, []
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    for field, value in (("pp", chosen.pp), ("microbatches", chosen.microbatches)):
        if value > 1:
            faults.append(Fault(f"strategy.{field}", value, "is not priced under an engine", "leave it out", path))
    if chosen.ep > 1 and not routed:
        faults.append(
            Fault("strategy.ep", chosen.ep, f"splits experts, and {model.name} has none", "leave it out", path)
        )
    heads = [kind.attention.heads for kind in model.layers]
    if any(number % chosen.tp for number in heads):
        faults.append(Fault("strategy.tp", chosen.tp, f"does not divide {heads[0]} heads", "choose a divisor", path))
    ranks = max(chosen.tp, chosen.ep)
    if ranks % chosen.tp or ranks % chosen.ep:
        problem = f"neither divides tp {chosen.tp} nor is a multiple of it"
        faults.append(Fault("strategy.ep", chosen.ep, problem, "choose one that does", path))
    if faults:
        raise SpecError(faults)
    return Split(chosen.tp, ranks / chosen.tp, ranks / chosen.ep if routed else 1.0, chosen.ep)


def _limits(file: "ServeFile", replica: Replica, settings: Settings, needed: float, delay_s: float) -> Limits:
    """Return what the engine admits; InfeasibleError where not one request fits."""
    positions = cache_positions(replica, settings.memory, of_rest=settings.memory_of_rest)
    if positions < needed:
        weights, device = weight_bytes(replica) / 1e9, replica.chip.accelerator.usable_bytes / 1e9
        problem = f"weights of {weights:.1f} GB leave room for {positions:,.0f} cached positions of {needed:,.0f}"
        raise InfeasibleError(file.name, f"{device:.0f} GB of memory per accelerator", problem, "raise tp or ep")
    return Limits(
        settings.sequences, settings.tokens, positions, settings.mixed,
        settings.poll_steps, settings.wait_steps, settings.wait_share * settings.tokens, delay_s,
    )  # fmt: skip


def _simulated(
    load: "LoadFile", groups: float, osl: int, cost: StepCost, limits: Limits, prompts: Callable[[int], list[int]]
) -> Served:
    """Simulate one attention group's share of the load; `prompts` says how many tokens each of so many is fed."""
    if load.requests_per_s:
        count = min(load.requests or 500, MOST_REQUESTS)
        gaps = np.random.default_rng(SEED).exponential(groups / load.requests_per_s, count)
        return simulate(
            cost, limits, OpenLoop(tuple(np.cumsum(gaps).tolist())), prompts(count), about(osl, count, SEED + 1)
        )
    clients = max(round((load.clients or 1) / groups), 1)
    count = min(load.requests or ROUNDS * clients, MOST_REQUESTS)
    return simulate(cost, limits, ClosedLoop(clients), prompts(count), about(osl, count, SEED + 1))


def _intervals(base: Engine, times: Mapping[str, float]) -> dict[str, tuple[float, float] | None]:
    """Return the 90 % interval of each time from the engine's residuals, None where none are stored."""
    bands = {name: (low, high) for name, low, high in base.bands}
    found = {name: bands.get(f"{name.removesuffix('_s')} aggregated") for name in times}
    return {name: (times[name] * band[0], times[name] * band[1]) if band else None for name, band in found.items()}


def _percentiles(served: Served, back_s: float) -> dict[str, dict[str, float]]:
    """Return percentiles of the three times, as the client sees them."""
    lag = {"ttft_s": back_s, "e2e_s": back_s}
    found = served.percentiles(*SHARES)
    return {name: {f"p{share:g}": held[share] + lag.get(name, 0.0) for share in SHARES} for name, held in found.items()}


def _terms(cost: PassCost, decoding: float, context: float, tpot_s: float) -> dict[str, float]:
    """Return where the time of a token goes; what a bare step does not take is waiting for prompts."""
    batch = max(decoding, 1.0)
    parts = cost.parts(batch, batch * context)
    bare = sum(parts.values())
    scale = min(tpot_s / bare, 1.0)
    return {**{name: scale * seconds for name, seconds in parts.items()}, "prompts": max(tpot_s - bare, 0.0)}


def _memory(replica: Replica, limits: Limits, decoding: float, context: float) -> dict[str, float]:
    """Return the bytes of one accelerator: weights, cache in use on average, and what the engine keeps free for more."""
    used = min(decoding * context, limits.positions) * position_bytes(replica)
    held = limits.positions * position_bytes(replica)
    return {"weights": weight_bytes(replica), "kv cache": used, "cache to spare": held - used}


def _broken(file: "ServeFile", ttft_s: float, tpot_s: float) -> str | None:
    work, found = file.workload, []
    if work.ttft_s and ttft_s > work.ttft_s:
        found.append(f"TTFT of {work.ttft_s * 1e3:g} ms, missed at {ttft_s * 1e3:.4g} ms")
    if work.tpot_s and tpot_s > work.tpot_s:
        found.append(f"TPOT of {work.tpot_s * 1e3:g} ms, missed at {tpot_s * 1e3:.4g} ms")
    return "; ".join(found) or None


def _warnings(replica: Replica, served: Served, idle: int) -> list[str]:
    """Return what a reader must know before trusting the answer."""
    notes = list(replica.chip.notes)
    if served.saturated:
        notes.append("saturated: prompts or a limit of the engine hold requests back, so waits grow with the run")
    if replica.split.ep > MEASURED_EP:
        notes.append(f"EP{replica.split.ep:.0f}: serving runs were measured up to EP{MEASURED_EP}")
    if idle:
        notes.append(f"{idle} accelerators hold no whole replica and stay idle")
    return notes
