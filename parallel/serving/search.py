"""Search how to serve: engine, split, replicas and clients, both phases together or on pools of their own.

Every point is priced by the closed form (`parallel.serving.steady`, `parallel.serving.pools`); what wins is simulated step by
step, and counts only if it keeps the limits there too. A point that memory, a limit, saturation or the engine's own words
rule out is counted by its reason, and is no point of a front.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.build import build
from parallel.hybrids import hybrid, hybrid_names
from parallel.io import read_yaml
from parallel.models import compressed, indexed
from parallel.serving import flags, pools
from parallel.serving.deployed import drafts_in, hot_in
from parallel.serving.engines import engine_names
from parallel.serving.mappings import Ask, Worker, Workers, dealt, deeper, sharing, splits
from parallel.serving.passes import Split
from parallel.serving.pipelines import slot_s
from parallel.serving.points import Point, fewest, row
from parallel.serving.queueing import ClosedLoop, simulate
from parallel.serving.runs import SEED, about, moved_s
from parallel.serving.steady import ROUNDS
from parallel.serving.trust import Trust, trusted
from parallel.sweeps.found import pareto
from topo.errors import Fault, InfeasibleError, SpecError

CLIENTS: Final = tuple(sorted({2**e for e in range(12)} | {3 * 2**e for e in range(10)}))
"""Clients of an attention group that are tried."""
PREFILLS: Final = 6
"""Splits of a prefill worker that are paired with those of decoding ones: the fastest, and those that serve the most."""
TRIED: Final = 12
"""Winners that are simulated at most until one keeps the limits."""
SIMULATED: Final = 2000
"""Requests of such a simulation at most."""
SHOWN: Final = 30
MEASURED_EP: Final = 32
"""Largest expert group of the serving runs behind the engines' residuals."""
KINDS: Final = ("aggregated", "disaggregated")
SHARES: Final = (50.0, 90.0, 99.0)

Progress = Callable[..., None]


@dataclass
class Found:
    """Points within the limits, all those priced, and how many were ruled out by what."""

    points: list[Point]
    priced: list[Point]
    rejected: Counter[str]


def search(ask: Ask, progress: Progress | None = None) -> dict[str, Any]:
    """Return the best way to serve of each kind, the front of throughput against interactivity, and the fewest accelerators.

    Raises
    ------
    InfeasibleError
        Nothing keeps the limits: what came nearest.
    """
    started = time.perf_counter()
    made, found = Workers(ask), Found([], [], Counter())
    every = list(splits(ask.model, ask.cluster))
    for done, split in enumerate(every, start=1):
        for trust in ask.trusts:
            _wider(ask, made, split, trust, found)
        if progress is not None:
            progress(done, 2 * len(every), "together")
    for done, trust in enumerate(ask.trusts, start=1):
        _apart(ask, made, every, trust, found)
        if progress is not None:
            progress(len(every) * (1 + done / len(ask.trusts)), 2 * len(every), "in pools")
    if ask.cp or (ask.ttft_s and not found.points):  # no attention group by itself is through with a prompt in time
        _shared(ask, made, every, found)
    seconds = time.perf_counter() - started
    return _document(ask, made, found, seconds)


def _told(ask: Ask, split: Split, trust: Trust, width: float) -> bool:
    """Whether an engine has words for a split."""
    settings = ask.pooled(trust.engine)
    per_host, drafted = max(ask.cluster.accelerator.rails, 1), flags.drafted(ask.drafts)
    deployment = flags.Deployment("", split, settings, width, ask.isl + ask.osl, per_host=per_host, **drafted)
    return not flags.faults(deployment, trust.engine.name)


def _wider(ask: Ask, made: Workers, split: Split, trust: Trust, found: Found) -> None:
    """Price a split; where its cache is what ends it, also over pipeline stages, and with the cache dealt among ranks."""
    waiting = [(split, 0.0)]
    for one, least in waiting:
        full = _together(ask, made, one, trust, found, least)
        if full is not None:
            seats = full.seats(ask.isl, ask.osl)
            waiting += [(another, seats * another.pp / one.pp) for another in deeper(ask, full)]
            if _told(ask, replace(one, dcp=2.0), trust, ask.width(full.settings)):
                waiting += [(another, 0.0) for another in dealt(ask, one)]


def _together(ask: Ask, made: Workers, split: Split, trust: Trust, found: Found, least: float = 0.0) -> Worker | None:
    """Price replicas that do both phases, with more and more clients until a limit stops them; with more than `least`.

    Returns
    -------
    Worker, or None
        The worker, where its cache is full while a token still comes in time.
    """
    replicas = int(ask.cluster.accelerators // split.ranks)
    tried = [clients for clients in CLIENTS[:: 1 if split.pp == 1 else 2] if clients > least]
    left, in_time = len(tried), True
    if not _told(ask, split, trust, ask.width(ask.pooled(trust.engine))):
        found.rejected[f"{trust.engine.name} has no words for it"] += left
        return None
    for clients in tried:
        worker = made.worker(split, trust, clients * split.dp)
        limits, seats = worker.limits, worker.seats(ask.isl, ask.osl)
        if seats < 1.0:
            found.rejected["memory"] += left
            return worker
        told = worker.steady(clients, ask.isl, ask.osl)
        if told.saturated:
            found.rejected["saturated"] += left
            return worker if in_time and clients > seats < limits.sequences else None
        left -= 1
        outside = trust.engine.return_s(clients * split.dp)
        ttft, tpot = trust.ttft * (told.ttft_s + outside), trust.tpot * told.tpot_s
        in_time = not ask.tpot_s or tpot <= ask.tpot_s
        groups = split.dp * replicas
        rate = groups * clients / (ttft + (ask.osl - 1) * tpot)
        gpus = int(replicas * split.ranks)
        _keep(ask, Point(trust.engine.name, split, replicas, clients, groups * clients, ttft, tpot, rate, gpus), found)
    return None


def _shared(ask: Ask, made: Workers, every: Sequence[Split], found: Found) -> None:
    """Price the same with prompts that several ranks share: together, and on prefill workers of their own."""
    dealt_out = [each for split in every for each in sharing(ask, split)]
    for trust in ask.trusts:
        for split in dealt_out:
            _together(ask, made, split, trust, found)
        _apart(ask, made, every, trust, found, dealt_out)


def _apart(
    ask: Ask, made: Workers, every: Sequence[Split], trust: Trust, found: Found, prompts: Sequence[Split] = ()
) -> None:
    """Price prefill workers beside decoding ones, as many of each as the cluster holds in balance.

    `prompts` are the splits of those that prefill, where these are not those that decode.
    """
    width = ask.width(ask.pooled(trust.engine))
    told = [split for split in every if _told(ask, split, trust, width)]
    usable = [each for split in told for each in _deepened(ask, made, split, trust)]
    feeding = [split for split in prompts if _told(ask, split, trust, width)] if prompts else usable
    firsts = [worker for worker in _pool(made, feeding, trust) if worker.limits.positions >= ask.isl + 1]
    times = np.array([trust.ttft * pools.prompt_s(one, ask.isl) for one in firsts])
    if not firsts:
        return
    slots = np.array([trust.ttft * slot_s(one.cost, one.limits.tokens, ask.isl) for one in firsts])
    rates = np.array([one.split.dp / seconds / one.split.ranks for one, seconds in zip(firsts, slots, strict=True)])
    best = pareto(-times, rates)
    kept = best[np.unique(np.linspace(0, len(best) - 1, PREFILLS).round().astype(int))].tolist()
    moved = {split: moved_s(made.worker(split, trust, pooled=True).replica, ask.isl) for split in usable}
    for second in _pool(made, usable, trust):
        room = min(second.limits.sequences, second.seats(ask.isl, ask.osl))
        for batch in (clients for clients in CLIENTS if clients <= room):
            token = trust.tpot * pools.token_s(second, batch, ask.isl, ask.osl)
            for at in kept:
                spans = float(times[at]), moved[second.split], token
                lengths, gpus = (ask.isl, ask.osl), ask.cluster.accelerators
                slot = float(slots[at])
                both = pools.matched(firsts[at], second, batch, lengths, spans, trust.engine, gpus=gpus, slot=slot)
                if both is None:
                    found.rejected["too few accelerators for two pools"] += 1
                    continue
                _keep(ask, _point(trust.engine.name, firsts[at].split, second.split, batch, both), found)


def _deepened(ask: Ask, made: Workers, split: Split, trust: Trust) -> Iterator[Split]:
    """Yield a split of a pool, and over twice as many stages as long as these free memory worth having."""
    waiting = [split]
    for one in waiting:
        yield one
        waiting += deeper(ask, made.worker(one, trust, pooled=True))


def _point(engine: str, first: Split, second: Split, batch: float, told: pools.Matched) -> Point:
    before, after = told.workers
    rates = told.clients, told.ttft_s, told.tpot_s, told.requests_per_s, told.gpus
    return Point(engine, second, after, batch, *rates, first, before)


def _pool(made: Workers, usable: Sequence[Split], trust: Trust) -> Iterator[Worker]:
    for split in usable:
        yield made.worker(split, trust, pooled=True)


def _keep(ask: Ask, point: Point, found: Found) -> None:
    """Take a point in, or count it by the limit that it breaks."""
    found.priced.append(point)
    if ask.tpot_s and point.tpot_s > ask.tpot_s:
        found.rejected["TPOT"] += 1
    elif ask.ttft_s and point.ttft_s > ask.ttft_s:
        found.rejected["TTFT"] += 1
    else:
        found.points.append(point)


def simulated(ask: Ask, made: Workers, point: Point) -> dict[str, Any]:
    """Serve a point step by step: means and percentiles, and whether the limits hold."""
    trust = next(one for one in ask.trusts if one.engine.name == point.engine)
    base, count = trust.engine, SIMULATED
    if point.prefill is None:
        clients = int(point.per_group)
        worker = made.worker(point.split, trust, clients * point.split.dp)
        count = min(ROUNDS * clients, SIMULATED) if clients < SIMULATED else 2 * clients
        outputs = about(ask.osl / worker.yielded, count, SEED + 1)
        served = simulate(worker.cost, worker.limits, ClosedLoop(clients), about(ask.isl, count), outputs)
        served = trust.applied(worker.as_tokens(served), closed=True)
        ttft, tpot, full = served.ttft_s + base.return_s(clients * point.split.dp), served.tpot_s, served.saturated
    else:
        first, second = (made.worker(one, trust, pooled=True) for one in (point.prefill, point.split))
        counts, rates = (point.prefills, point.replicas), (point.clients, point.requests_per_s)
        told = pools.Matched(counts, *rates, point.ttft_s, point.tpot_s, point.gpus)
        one, other = pools.simulated(first, second, told, (ask.isl, ask.osl), count)
        outside = base.offset_s + moved_s(second.replica, ask.isl)
        groups = point.prefills * first.split.dp
        outside += pools.burst_s(point.clients, groups, trust.ttft * slot_s(first.cost, first.limits.tokens, ask.isl))
        ttft = trust.ttft * one.ttft_s + trust.tpot * other.ttft_s + outside
        tpot, full = trust.tpot * other.tpot_s, one.saturated or other.saturated
    means = float(np.mean(ttft)), float(np.mean(tpot))
    kept = (not ask.ttft_s or means[0] <= ask.ttft_s) and (not ask.tpot_s or means[1] <= ask.tpot_s)
    return {
        "requests": count,
        "ttft_s": means[0],
        "tpot_s": means[1],
        "percentiles": {
            name: {f"p{share:g}": float(np.percentile(times, share)) for share in SHARES}
            for name, times in (("ttft_s", ttft), ("tpot_s", tpot))
        },
        "saturated": bool(full),
        "keeps_limits": bool(kept),
    }


def _winner(ask: Ask, made: Workers, ranked: Iterator[Point]) -> tuple[Point, dict[str, Any]] | None:
    """Return the first of some points that keeps the limits in the simulation too; the first of all if none does."""
    first = None
    for point in ranked:
        told = simulated(ask, made, point)
        first = first or (point, told)
        if told["keeps_limits"] and not told["saturated"]:
            return point, told
    return first


def _document(ask: Ask, made: Workers, found: Found, seconds: float) -> dict[str, Any]:
    """Tell what was found, the winners with their simulation."""
    if not found.points:
        _nothing(ask, found)
    bought = ask.cluster.accelerators
    best = {}
    for kind in KINDS:
        of = (point for point in found.points if point.kind == kind)
        best[kind] = _winner(ask, made, iter(sorted(of, key=lambda point: -point.requests_per_s)[:TRIED]))
    least = None
    if ask.clients or ask.requests_per_s:
        small = [one for point in found.points if (one := fewest(ask, point)).gpus <= bought]
        least = _winner(ask, made, iter(sorted(small, key=lambda one: (one.gpus, -one.requests_per_s))[:TRIED]))
    within = [point for point in found.priced if not ask.ttft_s or point.ttft_s <= ask.ttft_s]
    order = pareto(*np.array([[point.requests_per_s, 1.0 / point.tpot_s] for point in within]).T)[:SHOWN].tolist()
    top = max((one for one in best.values() if one), key=lambda one: one[0].requests_per_s)[0]

    def told(one: tuple[Point, dict[str, Any]] | None, *, own: bool = False) -> dict[str, Any] | None:
        return {**row(ask, one[0], one[0].gpus if own else bought), "simulated": one[1]} if one else None

    return {
        "points": len(found.priced),
        "feasible": len(found.points),
        "rejected": dict(found.rejected.most_common()),
        "seconds": seconds,
        "mappings_per_s": len(found.priced) / seconds,
        "best": {kind: told(one) for kind, one in best.items()},
        "fewest": told(least, own=True),
        "front": [row(ask, within[at], bought) for at in order],
        "deploy": deploy(ask, top),
        "trust": {trust.engine.name: trust.told() for trust in ask.trusts},
        "warnings": list(
            _warnings(ask, top, within, demanded=bool(ask.clients or ask.requests_per_s), met=bool(least))
        ),
    }


def _warnings(ask: Ask, top: Point, within: Sequence[Point], *, demanded: bool, met: bool) -> Iterator[str]:
    """Yield what a reader must know."""
    if top.split.ep > MEASURED_EP:
        yield f"EP{top.split.ep:.0f}: serving runs were measured up to EP{MEASURED_EP}"
    if demanded and not met:
        rate = max(point.requests_per_s for point in within)
        yield f"the demand does not fit on {ask.cluster.accelerators} accelerators, which serve {rate:.4g} requests/s"


def _nothing(ask: Ask, found: Found) -> None:
    """Say what came nearest."""
    limits = ", ".join(
        f"{name} of {value * 1e3:g} ms" for name, value in (("TTFT", ask.ttft_s), ("TPOT", ask.tpot_s)) if value
    )
    why = ", ".join(f"{count:,} {name}" for name, count in found.rejected.most_common(3)) or "no split fits"
    if not found.priced:
        raise InfeasibleError("search", limits or "memory", f"nothing can be served: {why}", "take more accelerators")
    near = min(
        found.priced,
        key=lambda p: max(p.ttft_s / (ask.ttft_s or np.inf), p.tpot_s / (ask.tpot_s or np.inf)),
    )
    problem = f"nothing keeps it ({why}); nearest: TTFT {near.ttft_s * 1e3:.4g} ms, TPOT {near.tpot_s * 1e3:.4g} ms"
    raise InfeasibleError("search", limits, problem, "allow more, or take more accelerators")


def deploy(ask: Ask, point: Point) -> dict[str, Any]:
    """Return how a point is launched: one server, or one of each pool."""
    trust = next(one for one in ask.trusts if one.engine.name == point.engine)
    roles: Mapping[str, Split] = (
        {"": point.split} if point.prefill is None else {"prefill": point.prefill, "decode": point.split}
    )
    told = {}
    for role, split in roles.items():
        batch = 0.0 if role == "prefill" else point.per_group
        settings = ask.pooled(trust.engine) if role else ask.settings(trust.engine, split, point.per_group * split.dp)
        one = flags.Deployment(
            flags.repository(ask.model),
            split,
            settings,
            ask.width(settings),
            ask.isl + ask.osl,
            role=role,
            per_host=max(ask.cluster.accelerator.rails, 1),
            batch=batch,
            indexed=indexed(ask.model),
            compressed=compressed(ask.model),
            **flags.drafted(ask.drafts),
            **flags.balanced(ask.model, ask.hot),
        )
        told[role or "server"] = flags.deploy(one, point.engine)
    return told


def search_file(file: str | Path, progress: Progress | None = None, *, cp: bool = False) -> dict[str, Any]:
    """Search for the workload, the limits and the cluster of a serving scenario; its split and clients count for nothing.

    With `cp` prompts that several ranks share are tried too; else only where no limit is kept without.

    An `engine` in the file is the one searched, else all are; `load` is a demand, for the fewest accelerators.

    Raises
    ------
    SpecError
        With every fault of the file.
    InfeasibleError
        Nothing keeps the limits.
    """
    from parallel.scenariofile import ServeFile, check
    from parallel.scenarioparts import cluster_of, model_of, pool_of

    scenario = check(ServeFile, read_yaml(file), str(file))
    if scenario.calibration and scenario.engine == "none":
        raise SpecError([Fault("calibration", scenario.calibration, "is of one engine", "write engine:", str(file))])
    if scenario.pools:
        raise SpecError([Fault("pools", None, "are fixed, and a search finds its own", "write pool:", str(file))])
    spec = pool_of(cluster_of(scenario, file), "pool", scenario.pool, file)
    work, load = scenario.workload, scenario.load
    path = Path(file).parent / scenario.calibration if scenario.calibration else None
    names = engine_names() if scenario.engine == "none" else (scenario.engine,)
    precision = work.precision or "fp8"
    ask = Ask(
        hybrid(scenario.model) if scenario.model in hybrid_names() else model_of(scenario.model, file),
        build(spec),
        {"nvfp4": "fp4"}.get(precision, precision),
        work.isl or 4096,
        work.osl or 1024,
        tuple(trusted(name, path) for name in names),
        work.ttft_s,
        work.tpot_s,
        work.kv_bytes or 0.0,
        load.clients,
        load.requests_per_s,
        *(drafts_in(scenario, str(file)), hot_in(scenario), scenario.settings.given),
        cp=cp,
    )
    found = search(ask, progress)
    asked = {"isl": ask.isl, "osl": ask.osl, "precision": precision, "ttft_s": ask.ttft_s, "tpot_s": ask.tpot_s}
    return {
        "name": scenario.name,
        "note": scenario.note,
        "model": ask.model.name,
        "cluster": ask.cluster.name,
        "accelerators": ask.cluster.accelerators,
        "engines": [trust.engine.name for trust in ask.trusts],
        "workload": {**asked, **load.model_dump()},
        **found,
    }
