"""One deployment from a file: a model, a cluster, a split; priced in full, or as the limit of its communication alone.

A cluster of unlike pools is priced on the one that `pool` names, or, with `pools`, prefills on one and decodes on another.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clusters.build import between, build
from clusters.spec import ClusterSpec, focus
from parallel import results, rules
from parallel.exchange import REAL, ExchangeRules
from parallel.explain.point import Point
from parallel.io import read_yaml
from parallel.memory import WEIGHT_BYTES
from parallel.models import Model, flops_per_token_forward, parameters
from parallel.placement import domain_size
from parallel.priced import Priced
from parallel.scenarioparts import cluster_of, every, given, model_of, pool_of, split_as
from parallel.serving import phases as serving
from parallel.serving.phases import ServeJob
from parallel.speculation import draft_faults, drafts_of
from parallel.strategy import Columns
from parallel.sweeps.task import PHASES, Bound
from parallel.training.frameworks import optimizer_bytes
from parallel.training.layer import TrainJob
from parallel.training.layouts import describe
from parallel.training.step import DEFAULTS, placement
from parallel.workload import ServeWorkload, Software, TrainWorkload
from topo.errors import Fault, InfeasibleError, SpecError

if TYPE_CHECKING:
    from parallel.scenariofile import ExchangeFile, RunFile, ServeFile, ServeStrategyFile, TrainFile
    from parallel.serving.transfer import Side, Transfer
    from parallel.training.verdict import Verdict

SIDES = ("prefill", "decode")
"""The phases of a request, in their order."""


def train(path: str | Path) -> dict[str, Any]:
    """Price the training run of a scenario file.

    Raises
    ------
    SpecError
        With every fault of the file, and every rule that its split breaks.
    InfeasibleError
        The split does not fit in memory; the message says by how much.
    """
    file, point = _training(path)
    bound, cols = point.bound, point.cols
    judged = _verdict(bound, cols)
    if not judged.fits:
        said, change = judged.said, judged.change.said if judged.change else "take more accelerators"
        limit = f"{judged.capacity_bytes / 2**30:.0f} GiB of memory per accelerator"
        raise InfeasibleError(file.name, limit, said.split(";")[0], f"nearest that fits: {change}")
    job = TrainJob.of(point.model, bound.cluster, point.train)
    document = _document(file, point, bound.price(cols))
    if file.run:
        document["run"] = _run(file.run, point, document)
    return {**document, "memory_by_stage": judged.stages, "placement": describe(placement(job, cols))}


def _run(file: "RunFile", point: Point, document: dict[str, Any]) -> dict[str, Any]:
    """Say what the whole run takes; a checkpoint holds BF16 weights and the optimizer's state."""
    from parallel.operations import Run, whole_run

    held = parameters(point.model) * (WEIGHT_BYTES + optimizer_bytes(point.train.optimizer))
    step_s, used = document["step_time_s"], document["gpus_used"]
    return whole_run(Run(**given(file)), point.built, step_s, point.train.tokens, used, held)


def train_point(path: str | Path) -> Point:
    """Return what a training scenario asks to be priced, whether it fits in memory or not.

    Raises
    ------
    SpecError
        With every fault of the file, and every rule that its split breaks.
    """
    return _training(path)[1]


def _training(path: str | Path) -> "tuple[TrainFile, Point]":
    from parallel.scenariofile import TrainFile, check

    file = check(TrainFile, read_yaml(path), str(path))
    spec, model = pool_of(cluster_of(file, path), "pool", file.pool, path), model_of(file.model, path)
    work = TrainWorkload(**given(file.workload), software=Software(**given(file.software)))
    point = split_as(Point("train", model, spec, work), file.strategy)
    point.check(str(path))
    return file, point


def _verdict(bound: Bound, cols: Columns) -> "Verdict":
    """Judge the memory of a split stage by stage; a change that breaks a rule is no change."""
    from parallel.training.verdict import verdict

    task = bound.task

    def reprice(block: Columns) -> Priced:
        broken = rules.first_broken(rules.TRAIN_RULES, block, bound.setting) >= 0
        priced = bound.price(block)
        return replace(priced, memory={**priced.memory, "broken": np.where(broken, np.inf, 0.0)})

    row = cols.filled(DEFAULTS).row(0)
    return verdict(task.model, task.train, row, bound.cluster.accelerator.usable_bytes, reprice)


def serve(path: str | Path, limit: str | None = None) -> dict[str, Any]:
    """Price the deployment of a scenario file; with ``limit="communication"`` everything but the expert exchange is free.

    With an `engine` in the file both phases run on the same accelerators, under a load: see `parallel.serving.served`.
    A `ladder` in the file changes assumptions one after the other; each rung is priced in the same way. With `pools` in the
    file there are two deployments, and the caches that move between them: see `parallel.serving.transfer`.
    """
    if limit not in (None, "communication"):
        raise SpecError([Fault("limit", limit, "no such limit", "write communication, or leave it out")])
    file = _serving(path)
    if file.engine != "none":
        from parallel.serving.served import serve_engine

        if limit is not None:
            raise SpecError([Fault("limit", limit, "is of one phase, and an engine runs both", "leave it out")])
        spec, model = cluster_of(file, path), model_of(file.model, path)
        return serve_engine(file, pool_of(spec, "pool", file.pool, path), model, str(path))
    points = _deployments(file, path)
    if file.pools:
        if limit is not None:
            remedy = "leave it out, or write pool and phase in the file"
            raise SpecError([Fault("limit", limit, "is of one phase, and the file has two", remedy)])
        return _serve_pools(file, points, path)
    point = points[file.phase]
    priced, kept = _serve_price(point, limit), dict[str, Any]()
    if file.reuse and limit is None:
        from parallel.serving import reused

        priced, kept = reused.prefill(file.reuse, point, str(path))
    document = _document(file, point, priced, check_memory=limit is None)
    document |= {"limit": limit, **_kept(document, kept), **_started(file, point, document)}
    if limit is not None or point.exchange != REAL:
        document |= {"interval": None, "interval_note": "a limit on paper, which no run can be measured against"}
    document["mfu"] = _serve_mfu(point, document) if limit is None else None
    document["ladder"] = _ladder(file, point, limit, path)
    return document


def serve_points(path: str | Path) -> dict[str, Point]:
    """Return what a serving scenario asks to be priced, by phase, whether it fits in memory or not.

    Raises
    ------
    SpecError
        With every fault of the file, and every rule that its split breaks; or the file names an engine, whose answer is a
        simulation of requests and not one split's price.
    """
    file = _serving(path)
    if file.engine != "none":
        problem = "simulates requests, whose times jump with the batch: no split of one phase is priced"
        remedy = (
            "podscale explain tells its terms and simulates changes; or leave out engine and load, to price one phase"
        )
        raise SpecError([Fault("engine", file.engine, problem, remedy, str(path))])
    return _deployments(file, path)


def _serving(path: str | Path) -> "ServeFile":
    from parallel.scenariofile import ServeFile, check, load_faults, pool_faults, reuse_faults

    file = check(ServeFile, read_yaml(path), str(path))
    if faults := [fault for find in (load_faults, pool_faults, reuse_faults) for fault in find(file, str(path))]:
        raise SpecError(faults)
    return file


def _deployments(file: "ServeFile", path: str | Path) -> dict[str, Point]:
    """Return the deployment of a file, or, with `pools`, those of both phases."""
    from parallel.scenariofile import StrategiesFile

    spec, model = cluster_of(file, path), model_of(file.model, path)
    if not file.pools:
        pool = pool_of(spec, "pool", file.pool, path)
        return {file.phase: _deployment(file, pool, model, file.phase, file.strategy, path)}
    names: dict[str, str] = file.pools.model_dump()
    strategies = file.strategies or StrategiesFile()

    def deployment(phase: str) -> Point:
        one = pool_of(spec, f"pools.{phase}", names[phase], path)
        try:
            return _deployment(file, one, model, phase, getattr(strategies, phase), path)
        except SpecError as error:
            here = f"strategies.{phase}."
            told = [replace(fault, field=fault.field.replace("strategy.", here)) for fault in error.faults]
            raise SpecError(told) from None

    return dict(zip(SIDES, every([partial(deployment, phase) for phase in SIDES]), strict=True))


def _deployment(
    file: "ServeFile", spec: ClusterSpec, model: Model, phase: str, strategy: "ServeStrategyFile", path: str | Path
) -> Point:
    """Bind one phase to its cluster, and its split to the rules."""
    kernels = {"exchange": file.exchange.kernels} if file.exchange.kernels else {}
    work = ServeWorkload(**given(file.workload), **kernels, **_drafted(file, model, strategy, path))
    point = Point(phase, model, spec, serve=work, exchange=_rules(REAL, file.exchange))
    split = strategy.model_dump(exclude={"dcp", "dcp_comm", *({"cp"} if strategy.cp == 1 else ())})
    split["used"] = split.pop("ranks_per_domain") or domain_size(point.built)
    point = replace(point, strategy={name: float(value) for name, value in split.items()})
    point.check(str(path))
    return point


def _drafted(file: "ServeFile", model: Model, strategy: "ServeStrategyFile", path: str | Path) -> dict[str, Any]:
    """Return what a workload says of drafts, and refuse what is priced under an engine alone."""
    faults = []
    if strategy.dcp > 1 or strategy.dcp_comm != "ag_rs":
        problem = "is of an engine, and none is named"
        faults.append(Fault("strategy.dcp", strategy.dcp, problem, "write engine: vllm, or leave it out", str(path)))
    if file.settings.given:
        told = ", ".join(file.settings.given)
        faults.append(Fault("settings", told, "are of an engine, and none is named", "write engine: vllm", str(path)))
    if file.drafts and file.drafts.method == "model":
        problem, remedy = "is priced under an engine alone", "write engine: vllm, or mtp or eagle"
        faults.append(Fault("drafts.method", "model", problem, remedy, str(path)))
    if file.drafts:
        found = draft_faults(model, file.drafts.method, strategy.pp)
        faults += [replace(fault, file=str(path)) for fault in found]
    if faults:
        raise SpecError(faults)
    if file.drafts is None:
        return {}
    made = drafts_of(file.drafts.tokens, file.drafts.acceptance, file.drafts.method)
    return {"drafts": made.tokens, "holds": made.holds, "drafter": made.method}


def _serve_pools(file: "ServeFile", points: dict[str, Point], path: str | Path) -> dict[str, Any]:
    """Price prefill on one pool, decode on the other, and the caches between them as a term of the first."""
    from parallel.serving.transfer import request_bytes, transfer

    prices = {phase: points[phase].price() for phase in SIDES}
    kept: dict[str, Any] = {}
    if file.reuse:
        from parallel.serving import reused

        writes = _side(points["decode"], prices["decode"]).requests_per_s
        prices["prefill"], kept = reused.prefill(file.reuse, points["prefill"], str(path), writes)
    sides = {phase: _side(points[phase], prices[phase]) for phase in SIDES}
    first, names = points["prefill"], [points[phase].cluster.focus for phase in SIDES]
    moved = transfer(
        request_bytes(first.model, first.serve),
        sides["prefill"],
        sides["decode"],
        between(build(focus(first.cluster, "")), *names),
    )
    prices["prefill"] = moved.added(prices["prefill"])
    documents = {}
    for phase, point in points.items():
        named = file.model_copy(update={"name": f"{file.name}, {phase} on pool {point.cluster.focus}"})
        document = _document(named, point, prices[phase])
        document |= _started(file, point, document) | (_kept(document, kept) if phase == "prefill" else {})
        documents[phase] = {**document, "pool": point.cluster.focus, "mfu": _serve_mfu(point, document)}
    rates = {phase: side.requests_per_s for phase, side in sides.items()}
    return {"name": file.name, **_both(documents, rates, moved)}


def _kept(document: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """Return what prompts that come back add to a document."""
    return {"reuse": kept, "warnings": [*document["warnings"], *kept["notes"]]} if kept else {}


def _started(file: "ServeFile", point: Point, document: dict[str, Any]) -> dict[str, Any]:
    """Return what a cold start adds to a document: until the weights are there, and one pass."""
    if not file.cold_start:
        return {}
    from parallel.serving.coldstart import start_of, started

    ranks = float(serving.stage_ranks(point.cols)[0] * point.cols["pp"][0])
    start = start_of(file.cold_start, point.built, document["memory_bytes"]["weights"], document["gpus_used"], ranks)
    return {"cold_start": started(start, document["step_time_s"], file.cold_start.source)}


def _side(point: Point, priced: Priced) -> "Side":
    """Read off one deployment what the transfer has to know, the requests that it could serve among it."""
    from parallel.serving.transfer import Side

    tokens = point.serve.isl if point.phase == "prefill" else point.serve.osl
    rate = float(priced.extra["tokens_per_s_per_gpu"][0]) * point.built.accelerators
    return Side.of(point.built, point.cols, rate / tokens)


def _both(documents: dict[str, dict[str, Any]], rates: dict[str, float], moved: "Transfer") -> dict[str, Any]:
    """Join two deployments: what a request sees, what the slower of pools and wire serves, and both in full."""
    first, second = (documents[phase] for phase in SIDES)
    rates = {**rates, "kv_transfer": moved.requests_per_s}
    slowest = min(rates, key=lambda name: rates[name])
    bought = sum(document["gpus_used"] + document["gpus_idle"] for document in documents.values())
    broken = [
        f"{phase}: {document['limit_broken']}" for phase, document in documents.items() if document["limit_broken"]
    ]
    warnings = [f"{phase}: {note}" for phase, document in documents.items() for note in document["warnings"]]
    if moved.load > 1.0:
        warnings.append(
            f"the wire between the pools carries {moved.requests_per_s:.4g} caches per second of "
            f"{min(rates['prefill'], rates['decode']):.4g} that the pools could serve: it sets the rate"
        )
    return {
        **{key: first[key] for key in ("note", "model", "workload")},
        "phase": " and ".join(SIDES),
        "cluster": ", ".join(document["cluster"] for document in documents.values()),
        "ttft_s": first["ttft_s"],
        "tpot_s": second["tpot_s"],
        "requests_per_s": rates[slowest],
        "tokens_per_s_per_gpu": rates[slowest] * first["workload"]["osl"] / bought,
        "gpus_used": sum(document["gpus_used"] for document in documents.values()),
        "bottleneck": slowest,
        "rates": rates,
        "transfer": asdict(moved),
        "pools": documents,
        "limit_broken": "; ".join(broken) or None,
        "warnings": warnings,
    }


def _serve_price(point: Point, limit: str | None) -> Priced:
    if limit is None:
        return point.price()
    if point.bound.setting.moe is None or float(serving.stage_ranks(point.cols)[0]) == 1.0:
        remedy = "give a model with experts and an ep above 1, or leave the limit out"
        raise SpecError([Fault("limit", limit, "this split exchanges no expert rows", remedy)])
    job = ServeJob.of(point.model, point.built, point.serve, point.exchange)
    return serving.communication_limit(job, point.phase, point.cols)


def _ladder(file: "ServeFile", point: Point, limit: str | None, path: str | Path) -> list[dict[str, Any]]:
    """Price the rungs of a ladder, each with the changes of all above it."""
    if not file.ladder:
        return []
    rows: list[dict[str, Any]] = []

    def rung(name: str, here: Point) -> None:
        here.check(str(path))
        priced = _serve_price(here, limit)
        seconds = float(priced.seconds[0])
        before = rows[-1]["seconds"] if rows else seconds
        rows.append(
            {
                "name": name,
                "seconds": seconds,
                "exchange_s": float(priced.busy["ep"][0]),
                "ratio_to_previous": seconds / before,
            }
        )

    rung("as stated", point)
    for step in file.ladder:
        if step.model:
            point = replace(point, model=model_of(step.model, path))
        if step.exchange:
            point = replace(point, exchange=_rules(point.exchange, step.exchange))
            if step.exchange.kernels:
                point = replace(point, serve=replace(point.serve, exchange=step.exchange.kernels))
        rung(step.name, point)
    return rows


def _rules(base: ExchangeRules, changes: "ExchangeFile") -> ExchangeRules:
    return replace(base, **{k: v for k, v in given(changes).items() if k != "kernels"})


def _document(
    file: "TrainFile | ServeFile", point: Point, priced: Priced, *, check_memory: bool = True
) -> dict[str, Any]:
    bound = point.bound
    row = results.row_of(bound, point.cols, priced, 0)
    needed, held = float(priced.memory_bytes[0]), bound.cluster.accelerator.usable_bytes
    if check_memory and needed > held:
        largest = max(row["memory_bytes"], key=lambda name: row["memory_bytes"][name])
        raise InfeasibleError(
            file.name,
            f"{held / 2**30:.0f} GiB of memory per accelerator",
            f"the split needs {needed / 2**30:.1f} GiB, {row['memory_bytes'][largest] / 2**30:.1f} GiB of it {largest}",
            _more_room(point.phase),
        )
    return {
        "name": file.name,
        "note": file.note,
        "phase": point.phase,
        "model": point.model.name,
        "cluster": bound.cluster.name,
        "workload": asdict(point.work),
        **row,
        "limit_broken": _broken_limit(bound, priced),
        "point": point.to_dict(),
    }


def _more_room(phase: str) -> str:
    remedies = {
        "train": "raise pp, ep or the ZeRO stage, or recompute",
        "prefill": "raise ep, pp or tp, or lower the batch",
        "decode": "raise ep, pp or tp, or lower the batch",
    }
    return remedies[phase]


def _broken_limit(bound: Bound, priced: Priced) -> str | None:
    phase = PHASES[bound.task.phase]
    latency, limit = float(phase.latency(priced)[0]), phase.limit_s(bound.task)
    return f"{phase.limit_name} of {limit * 1e3:g} ms, missed at {latency * 1e3:.4g} ms" if latency > limit else None


def _serve_mfu(point: Point, document: dict[str, Any]) -> float:
    """Model FLOPs per second over the peak of the accelerators at work."""
    causal = point.phase == "prefill"
    context = float(point.serve.isl) if causal else point.serve.mean_context
    flops = float(np.sum(list(flops_per_token_forward(point.model, context, causal=causal).values())))
    rate = document["tokens_per_s_per_gpu"] * point.built.accelerators / document["gpus_used"]
    if reuse := document.get("reuse"):
        rate *= 1.0 - reuse["cached_tokens"] / point.serve.isl
    machine = ServeJob.of(point.model, point.built, point.serve).chip
    return float(flops * rate / machine.peak(machine.format("experts")))
