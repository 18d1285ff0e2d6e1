"""A deployment under a serving engine and a load: both phases on the same accelerators, requests and all.

What `podscale serve` answers when its scenario names an engine: mean TTFT and TPOT with percentiles, from a simulation of
every replica's share of the load (`parallel.serving.queueing`); the time of a token term by term; memory; a 90 % interval from
the engine's residuals.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.spec import ClusterSpec
from parallel.models import Model, Moe, compressed, flops_per_token_forward, indexed
from parallel.serving.departures import departures
from parallel.serving.deployed import Deployment, deployed, memory_bytes, sizes
from parallel.serving.engines import Engine
from parallel.serving.flags import launches
from parallel.serving.passes import weight_bytes
from parallel.serving.queueing import ClosedLoop, Limits, OpenLoop, Served, StepCost, simulate
from parallel.serving.runs import SEED, about
from parallel.serving.steady import ROUNDS
from parallel.serving.steps import Steps, prompt_summary, stage_summary
from parallel.speculation import told

if TYPE_CHECKING:
    from parallel.scenariofile import LoadFile, ServeFile

SHARES: Final = (50.0, 90.0, 99.0)
"""Percentiles that are told beside the mean."""
MEASURED_EP: Final = 32
"""Largest expert group of the serving runs behind the engines' residuals."""
MOST_REQUESTS: Final = 4000
"""Requests that are simulated at most."""
UNMEASURED: Final = ("pp", "cp", "dcp")
"""Sizes of a split of which no serving run was measured."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The times of a simulated deployment.

    Attributes
    ----------
    served : of one attention group, as calibrated
    ttft_s, tpot_s : means, as the client sees them
    back_s : seconds of a first token on its way back
    decoding : sequences that decode at once in an attention group, on average
    tokens_per_s : of all replicas
    kept : what prompts that come back add to the answer
    """

    served: Served
    ttft_s: float
    tpot_s: float
    back_s: float
    decoding: float
    tokens_per_s: float
    kept: Mapping[str, Any]


def serve_engine(file: "ServeFile", spec: ClusterSpec, model: Model, path: str) -> dict[str, Any]:
    """Simulate the deployment of a scenario file that names an engine; raises what `deployed` does."""
    held = deployed(file, spec, model, path)
    found = _answered(file, held, path)
    zero_shot = None
    if file.calibration:
        bare = serve_engine(file.model_copy(update={"calibration": None}), spec, model, path)
        zero_shot = {name: bare[name] for name in ("ttft_s", "tpot_s")}
    return {
        **_asked(file, held),
        **_times(held, found),
        **_trusted(file, held, found, zero_shot),
        **({"reuse": found.kept} if found.kept else {}),
        **_started(file, held),
    }


def _answered(file: "ServeFile", held: Deployment, path: str) -> Answered:
    """Simulate one attention group's share of the load, with prompts that come back where the file has them."""
    split, load, trust, isl, osl = held.replica.split, file.load, held.trust, held.isl, held.osl
    run = partial(_simulated, load, held.count * split.dp, osl, held.steps)
    kept: dict[str, Any] = {}
    if file.reuse:
        from parallel.serving import reused

        reuse, closed = reused.reuse_of(file.reuse, isl, path), bool(load.clients)
        groups, cost = held.count * split.dp, held.steps.cost
        served, kept = reused.under_load(
            reuse, file.reuse.tiers, held.replica, cost, held.limits, (isl, osl), groups, run, closed=closed
        )
    else:
        served = run(held.steps.cost, held.limits, partial(about, isl))
    served = trust.applied(served, closed=load.requests_per_s is None)
    tpot_s, ttft_s = float(np.mean(served.tpot_s)), float(np.mean(served.ttft_s))
    tokens_per_s = len(served.e2e_s) * osl / served.seconds * split.dp * held.count
    decoding = float(np.sum(served.tpot_s) * (osl - 1) / served.seconds)
    back_s = trust.engine.return_s((load.clients or 0.0) / held.count or decoding * split.dp)
    return Answered(served, ttft_s + back_s, tpot_s, back_s, decoding, tokens_per_s, kept)


def _asked(file: "ServeFile", held: Deployment) -> dict[str, Any]:
    """Return what was asked: names, workload, split."""
    replica, used = held.replica, int(held.count * held.replica.split.ranks)
    work = {"isl": held.isl, "osl": held.osl, "precision": held.precision, "kv_bytes": replica.kv_bytes}
    return {
        "name": file.name,
        "note": file.note,
        "phase": "prefill and decode",
        "model": replica.model.name,
        "cluster": replica.cluster.name,
        "accelerator": replica.cluster.accelerator.title,
        "engine": held.trust.engine.name,
        "limit": None,
        "ladder": [],
        "workload": {**work, **file.load.model_dump()},
        "strategy": {**sizes(replica.split), "replicas": held.count},
        **({"experts": replica.hot.told()} if any(isinstance(k.mlp, Moe) for k in replica.model.layers) else {}),
        **({"drafts": told(held.drafts)} if held.drafts else {}),
        "gpus_used": used,
        "gpus_idle": replica.cluster.accelerators - used,
    }


def _times(held: Deployment, found: Answered) -> dict[str, Any]:
    """Return rates, times, their terms, and memory."""
    replica, steps, context, factor = held.replica, held.steps, held.context, held.trust.tpot
    parts = _terms(steps, found.decoding, context, found.tpot_s / factor)
    terms = {name: factor * seconds for name, seconds in parts.items()}
    groups = replica.split.dp * held.count
    batch = found.decoding
    trains = departures(
        steps.cost, held.limits, groups, batch, context, found.tpot_s * steps.yielded, held.isl,
        steps.outputs(held.osl), factor,
    )  # fmt: skip
    return {
        "tokens_per_s_per_gpu": found.tokens_per_s / replica.cluster.accelerators,
        "tokens_per_s_per_user": 1.0 / found.tpot_s,
        "requests_per_s": found.tokens_per_s / held.osl,
        "step_time_s": factor * steps.cost(batch, batch * context, 0.0, 0.0),
        "ttft_s": found.ttft_s,
        "tpot_s": found.tpot_s,
        "percentiles": _percentiles(found.served, found.back_s),
        "departures": asdict(trains),
        "decoding": batch,
        "saturated": found.served.saturated,
        "mfu": _mfu(held, found),
        "terms": terms,
        "busy": dict(terms),
        "memory_bytes": memory_bytes(held, batch, held.isl + held.osl / 2),
        "memory_capacity_bytes": replica.chip.accelerator.usable_bytes,
        "longest_context": int(held.steps.positions),
        **stage_summary(replica, steps, batch, batch * context),
        **prompt_summary(replica, held.cost, held.isl, held.limits.tokens),
        "bottleneck": max(terms, key=lambda name: terms[name]),
    }


def _trusted(
    file: "ServeFile", held: Deployment, found: Answered, zero_shot: Mapping[str, float] | None
) -> dict[str, Any]:
    """Return how far to trust the times, the limits that they break, how to launch it, and warnings."""
    base, replica = held.trust.engine, held.replica
    intervals = _intervals(base, {"tpot_s": found.tpot_s, "ttft_s": found.ttft_s})
    each, lengths = (file.load.clients or 0.0) / held.count, (held.isl, held.osl)
    part, idle = replica.cluster.accelerator, replica.cluster.accelerators - int(held.count * replica.split.ranks)
    return {
        "interval": intervals["tpot_s"],
        "intervals": intervals,
        "interval_note": f"{'' if intervals['tpot_s'] else 'no '}residuals of {base.name}",
        "limit_broken": _broken(file, found.ttft_s, found.tpot_s),
        "infeasible": None,
        "trust": held.trust.told(zero_shot),
        "deploy": launches(
            *(replica.model, part, held.checkpoint, replica.split, each, lengths, file.workload.kv_bytes, held.drafts),
            file.settings.given,
            replica.hot,
        ),
        "warnings": [
            *held.trust.warnings(held.named),
            *_warnings(held, found.served, idle),
            *found.kept.get("notes", ()),
        ],
    }


def _mfu(held: Deployment, found: Answered) -> float:
    """Return the share of the peak that requests' own arithmetic takes: their prompts, cached parts left out, and tokens."""
    model, isl, osl, chip = held.replica.model, held.isl, held.osl, held.replica.chip
    flops = float(np.sum(list(flops_per_token_forward(model, isl, causal=True).values())))
    flops *= (isl - found.kept.get("cached_tokens", 0.0)) / osl
    flops += float(np.sum(list(flops_per_token_forward(model, isl + osl / 2, causal=False).values())))
    used = int(held.count * held.replica.split.ranks)
    return float(flops * found.tokens_per_s / used / chip.peak(chip.format("experts")))


def _started(file: "ServeFile", held: Deployment) -> dict[str, Any]:
    """Return what a cold start adds: until the weights are there, and the first prompt, alone."""
    if not file.cold_start:
        return {}
    from parallel.serving.coldstart import start_of, started

    replica, isl = held.replica, held.isl
    used = int(held.count * replica.split.ranks)
    start = start_of(file.cold_start, replica.cluster, weight_bytes(replica), used, replica.split.ranks)
    first_s = held.steps.cost(0.0, 0.0, isl, isl * isl / 2.0) + held.steps.lag_s
    return {"cold_start": started(start, first_s, file.cold_start.source)}


def _simulated(
    load: "LoadFile",
    groups: float,
    osl: int,
    steps: Steps,
    cost: StepCost,
    limits: Limits,
    prompts: Callable[[int], list[int]],
) -> Served:
    """Simulate one attention group's share of the load; `prompts` says how many tokens each of so many is fed."""
    outputs = max(steps.outputs(osl), 2.0)
    if load.requests_per_s:
        count = min(load.requests or 500, MOST_REQUESTS)
        gaps = np.random.default_rng(SEED).exponential(groups / load.requests_per_s, count)
        arrivals: OpenLoop | ClosedLoop = OpenLoop(tuple(np.cumsum(gaps).tolist()))
    else:
        clients = max(round((load.clients or 1) / groups), 1)
        count = min(load.requests or ROUNDS * clients, MOST_REQUESTS)
        arrivals = ClosedLoop(clients)
    return steps.as_tokens(simulate(cost, limits, arrivals, prompts(count), about(outputs, count, SEED + 1)))


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


def _terms(steps: Steps, decoding: float, context: float, tpot_s: float) -> dict[str, float]:
    """Return where the time of a token goes; what a bare step does not take is waiting for prompts."""
    batch = max(decoding, 1.0)
    parts = steps.cost.parts(batch, batch * context)
    bare = sum(parts.values())
    scale = min(tpot_s / bare, 1.0)
    return {**{name: scale * seconds for name, seconds in parts.items()}, "prompts": max(tpot_s - bare, 0.0)}


def _broken(file: "ServeFile", ttft_s: float, tpot_s: float) -> str | None:
    work, found = file.workload, []
    if work.ttft_s and ttft_s > work.ttft_s:
        found.append(f"TTFT of {work.ttft_s * 1e3:g} ms, missed at {ttft_s * 1e3:.4g} ms")
    if work.tpot_s and tpot_s > work.tpot_s:
        found.append(f"TPOT of {work.tpot_s * 1e3:g} ms, missed at {tpot_s * 1e3:.4g} ms")
    return "; ".join(found) or None


def _warnings(held: Deployment, served: Served, idle: int) -> list[str]:
    """Return what a reader must know before trusting the answer."""
    replica = held.replica
    notes = list(replica.chip.notes)
    if served.saturated:
        notes.append("saturated: prompts or a limit of the engine hold requests back, so waits grow with the run")
    if replica.split.ep > MEASURED_EP:
        notes.append(f"EP{replica.split.ep:.0f}: serving runs were measured up to EP{MEASURED_EP}")
    untried = [name for name in UNMEASURED if getattr(replica.split, name, 1) > 1]
    untried += ["drafts of several tokens"] * bool(held.drafts and held.drafts.tokens > 1)
    over = "entries of several" if compressed(replica.model) else "indexed"
    untried += [f"attention over {over} positions"] * (indexed(replica.model) or compressed(replica.model))
    if untried:
        notes.append(f"{' and '.join(untried)}: no serving run behind the engine's residuals has them")
    if idle:
        notes.append(f"{idle} accelerators hold no whole replica and stay idle")
    return notes
