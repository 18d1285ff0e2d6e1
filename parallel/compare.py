"""The main job: one model on one silicon, wired as scale-up domains of several sizes; the best split of every phase."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clusters import catalogue
from clusters.build import Cluster, build, notes
from clusters.spec import ClusterSpec, focus, load, parse, with_
from parallel import results
from parallel.exchange import exchange_s
from parallel.executors import choose, run_all
from parallel.explain.point import Point
from parallel.io import read_model, read_yaml
from parallel.models import Model, Moe, active_parameters, parameters
from parallel.placement import fillings, members_of
from parallel.precision import Recipe, recipe
from parallel.roofline import chip
from parallel.sweeps.found import Found
from parallel.sweeps.spaces import space_of
from parallel.sweeps.task import PHASES, Bound, Task
from parallel.training import footprint
from parallel.workload import ServeWorkload, TrainWorkload
from topo.errors import Fault, SpecError
from topo.survey import parts

CHECKS = Path(__file__).parent / "data" / "exchange_checks.yaml"
PRICED_FROM = (
    "peak_bf16",
    "peak_fp8",
    "peak_fp4",
    "hbm_capacity",
    "hbm_bandwidth",
    "scale_up_bandwidth",
    "scale_up_links",
)
FRONT_POINTS = 60  # a drawn curve needs no more
DOMAINS = (8, 72, 576)
"""Scale-up domains that are compared by default."""


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What to compare; every field has a documented default. With `cluster`, the hardware comes from that file.

    Without `domains`, `DOMAINS` are compared; of a cluster its own and those of `DOMAINS` that its switches can make. A
    cluster of unlike pools is compared pool by pool, or `pool` names one of them. `nic` is a rate in bytes per second, or a
    NIC of the catalogue.
    """

    model: str = "deepseek-v3"
    accelerator: str = "gb200"
    domains: tuple[int, ...] | None = None
    gpus: int = 4608
    nic: float | str | None = None
    oversubscription: float = 1.0
    isl: int = 4096
    osl: int = 1024
    tpot_ms: float = 50.0
    ttft_ms: float = 2000.0
    precision: str = "fp8"
    cluster: str | None = None
    pool: str | None = None
    sequence: int = 4096
    global_batch: int = 18432
    executor: str = "auto"
    phases: tuple[str, ...] = ("train", "prefill", "decode")

    def __post_init__(self) -> None:
        """Collect every fault before anything is computed."""
        faults = [
            Fault(name, getattr(self, name), "must be positive", "give a number above zero")
            for name in ("gpus", "oversubscription", "isl", "osl", "tpot_ms", "ttft_ms", "sequence", "global_batch")
            if not getattr(self, name) > 0
        ]
        if self.domains is not None and not self.domains:
            faults.append(Fault("domains", self.domains, "names no wiring", "give sizes, such as 8,72,576"))
        if self.pool is not None and self.cluster is None:
            faults.append(Fault("pool", self.pool, "is a pool of no cluster", "name the cluster's file too"))
        faults += [
            Fault("phases", phase, "no such phase", f"choose from {', '.join(PHASES)}")
            for phase in self.phases
            if phase not in PHASES
        ]
        if faults:
            raise SpecError(faults)


def specs(request: CompareRequest) -> dict[int, ClusterSpec]:
    """Return the cluster of every wiring: the same parts, another domain size; or the pools of a cluster as they are."""
    if request.cluster:
        base = load(request.cluster)
        if base.pools and request.pool is None:
            return _pools(base)
        base = focus(base, request.pool or "")
        return {domain: with_(base, domain=domain) for domain in request.domains} if request.domains else _fitting(base)
    wanted = request.domains or DOMAINS
    fields: dict[str, Any] = {
        "name": f"{request.accelerator}-x{request.gpus}",
        "accelerator": request.accelerator,
        "accelerators": request.gpus,
        "domain": min(wanted),
        "scale_out": {"oversubscription": request.oversubscription},
    }
    if request.nic is not None:
        fields["scale_out"]["nic"] = request.nic
    base = parse(fields)
    return {domain: with_(base, domain=domain) for domain in wanted}


def _pools(base: ClusterSpec) -> dict[int, ClusterSpec]:
    """Return the pools of a cluster by their domains, which have to differ to be told apart."""
    found = [focus(base, pool.name) for pool in base.pools]
    if len({spec.domain for spec in found}) < len(found):
        names = ", ".join(pool.name for pool in base.pools)
        raise SpecError(
            [Fault("pool", None, "has to be named: pools have the same domain", f"one of {names}", base.file)]
        )
    return {spec.domain: spec for spec in found}


def _fitting(base: ClusterSpec) -> dict[int, ClusterSpec]:
    """Return a cluster as it is and, where switches make its domains, in those of `DOMAINS` that it can be wired in."""
    found = {base.domain: base}
    for domain in DOMAINS:
        if base.scale_up.kind == "switch" and not base.focus and domain <= base.accelerators:
            try:
                found.setdefault(domain, with_(base, domain=domain))
                build(found[domain])
            except SpecError:
                found.pop(domain, None)
    return dict(sorted(found.items()))


def tasks(request: CompareRequest, model: Model, wirings: dict[int, ClusterSpec]) -> list[tuple[int, Task]]:
    """Return one search per wiring and phase."""
    train = TrainWorkload(request.sequence, request.global_batch, request.precision)
    serve = ServeWorkload(request.isl, request.osl, request.tpot_ms / 1e3, request.ttft_ms / 1e3, request.precision)
    found = []
    for domain, spec in wirings.items():
        cluster = build(spec)
        for phase in request.phases:
            space = space_of(phase, cluster, model, (request.precision,))
            found.append((domain, Task(phase, model, spec, train, serve, space)))
    return found


def compare(request: CompareRequest, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Search every phase on every wiring and return the whole answer as one JSON-able document."""
    started = time.perf_counter()
    model, wirings = _read(request)
    request = replace(request, domains=tuple(wirings))
    work = tasks(request, model, wirings)
    executor = choose(request.executor, sum(task.space.size for _, task in work))
    found = run_all([task for _, task in work], executor, progress)
    rows, frontiers = [], []
    for (domain, task), kept in zip(work, found, strict=True):
        pool = wirings[domain].focus
        rows.append({"domain": domain, "pool": pool, "phase": task.phase, **best_row(task, kept)})
        frontiers.append({"domain": domain, "phase": task.phase, "points": front_points(task, kept)})
    order = {phase: place for place, phase in enumerate(request.phases)}
    rows.sort(key=lambda row: order[row["phase"]])
    clusters = {domain: build(spec) for domain, spec in wirings.items()}
    any_cluster = next(iter(clusters.values()))
    return {
        "question": _question(model, clusters),
        "workload": _workload(request, any_cluster),
        "rows": rows,
        "wirings": [_wiring(domain, cluster) for domain, cluster in clusters.items()],
        "frontiers": frontiers,
        "exchange": exchange_rows(model, clusters, recipe(request.precision)),
        "exchange_checks": exchange_checks(),
        "answer": answer(rows, request),
        "assumptions": assumptions(request, model, any_cluster),
        "search": {
            "points": sum(kept.points for kept in found),
            "feasible": sum(kept.feasible for kept in found),
            "seconds": time.perf_counter() - started,
            "executor": executor,
        },
    }


def _question(model: Model, clusters: dict[int, Cluster]) -> str:
    """Say what is compared."""
    first = next(iter(clusters.values()))
    if first.spec.focus:
        pools = [f"{c.accelerators:,} {c.accelerator.title} in domains of {d}" for d, c in clusters.items()]
        return f"{model.name} on {first.name}: {'; '.join(pools)}"
    sizes = ", ".join(map(str, clusters))
    return f"{model.name} on {first.accelerators:,} {first.accelerator.title}, wired as scale-up domains of {sizes}"


def _read(request: CompareRequest) -> tuple[Model, dict[int, ClusterSpec]]:
    """Look up everything that the request names; the faults of all of it come in one error."""
    faults: list[Fault] = []
    found: list[Any] = []
    for look_up in (
        lambda: read_model(request.model),
        lambda: specs(request),
        lambda: recipe(request.precision),
        lambda: choose(request.executor, 0),
    ):
        try:
            found.append(look_up())
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults)
    return found[0], found[1]


def best_row(task: Task, found: Found) -> dict[str, Any]:
    """Return the best feasible strategy in full; else the nearest miss, with the limit that it breaks."""
    index = found.best if found.best >= 0 else found.nearest
    if index < 0:
        return _nothing(found)
    bound = Bound.of(task)
    cols = bound.at(np.array([index], dtype=np.int64))
    row = results.row_of(bound, cols, bound.price(cols), 0)
    if found.best < 0:
        phase = PHASES[task.phase]
        limit = phase.limit_s(task)
        row["infeasible"] = (
            f"{phase.limit_name} of {limit * 1e3:g} ms cannot be met: the fastest split that fits in memory takes "
            f"{found.nearest_value * 1e3:.3g} ms"
        )
    point = Point(task.phase, task.model, task.cluster, task.train, task.serve, cols.row(0))
    return {**row, "searched": found.points, "rejected": found.rejected, "point": point.to_dict()}


def _nothing(found: Found) -> dict[str, Any]:
    reason = max(found.rejected, key=lambda name: found.rejected[name]) if found.rejected else "an empty space"
    return {
        "strategy": {}, "gpus_used": 0, "gpus_idle": 0, "tokens_per_s_per_gpu": 0.0, "step_time_s": None,
        "ttft_s": None, "tpot_s": None, "mfu": None, "terms": {}, "busy": {}, "memory_bytes": {}, "memory_share": None,
        "bottleneck": "none", "stops": "no strategy fits", "interval": None, "interval_note": results.NO_INTERVAL,
        "infeasible": f"no strategy of {found.points:,} fits; the most frequent reason: {reason}",
        "warnings": [], "searched": found.points, "rejected": found.rejected, "point": None,
    }  # fmt: skip


def front_points(task: Task, found: Found) -> list[dict[str, Any]]:
    """Return throughput against interactivity, at most a curve's worth of points.

    A point's `band` is the 90 % band of measured/predicted times: at its ends the point lies at times that much longer, and
    at rates that much lower.
    """
    if len(found.front) == 0 or task.phase == "train":
        return []
    pick = np.unique(np.linspace(0, len(found.front) - 1, FRONT_POINTS).astype(np.int64))
    bound = Bound.of(task)
    cols = bound.at(found.front[pick])
    seconds = bound.price(cols).seconds
    return [
        {
            "tokens_per_s_per_user" if task.phase == "decode" else "ttft_s": x if task.phase == "decode" else 1.0 / x,
            "tokens_per_s_per_gpu": y,
            "tpot_s": 1.0 / x if task.phase == "decode" else None,
            "band": results.band_of(bound, cols, row, float(seconds[row]))[0],
            "strategy": results.strategy_of(bound, cols, row),
        }
        for row, (x, y) in enumerate(found.front_values[pick].tolist())
    ]


def exchange_rows(model: Model, clusters: dict[int, Cluster], formats: Recipe) -> list[dict[str, Any]]:
    """Price one exchange on every wiring: EP64, 128 tokens per GPU, and its ratio to the fastest wiring."""
    moe = next((kind.mlp for kind in model.layers if isinstance(kind.mlp, Moe)), None)
    if moe is None:
        return []
    ep = min(64, *(cluster.usable for cluster in clusters.values()))
    rows: list[dict[str, Any]] = []
    for domain, cluster in clusters.items():
        ways = np.array(fillings(cluster), dtype=np.float64)
        members = members_of(cluster, ways, float(ep), 1.0)
        swap = exchange_s(cluster, moe, model.hidden, 128.0, members, formats, phase="decode")
        seconds = float(np.min(swap["dispatch"] + swap["combine"]))
        rows.append({"domain": domain, "what": f"EP{ep} dispatch + combine, 128 tokens per GPU", "seconds": seconds})
    fastest = min(row["seconds"] for row in rows)
    return [{**row, "ratio": row["seconds"] / fastest} for row in rows]


def exchange_checks() -> list[dict[str, Any]]:
    """Predict the measured exchanges that ship with the project, each on its own hardware and precision."""
    rows = []
    for case in read_yaml(CHECKS)["checks"]:
        cluster = build(with_(load(case["system"]), accelerators=case["accelerators"], domain=case["domain"]))
        model = read_model(case["model"])
        moe = next(kind.mlp for kind in model.layers if isinstance(kind.mlp, Moe))
        members = members_of(cluster, np.array([float(case["domain"])]), float(case["ep"]), 1.0)
        swap = exchange_s(
            cluster, moe, model.hidden, float(case["tokens"]), members, recipe(case["recipe"]), name=case["kernels"]
        )
        predicted, measured = float((swap["dispatch"] + swap["combine"])[0]), float(case["measured_s"])
        rows.append(
            {
                "what": case["what"],
                "predicted_s": predicted,
                "measured_s": measured,
                "ape": abs(predicted / measured - 1.0),
                "source": case["source"],
            }
        )
    return rows


def answer(rows: list[dict[str, Any]], request: CompareRequest) -> str:
    """Say in plain words which wiring wins each phase, and by how much over the smallest domain."""
    sentences = []
    for phase in request.phases:
        mine = [row for row in rows if row["phase"] == phase and not row["infeasible"]]
        if not mine:
            sentences.append(f"{phase.capitalize()}: no wiring meets the limits.")
            continue
        best = max(mine, key=lambda row: row["tokens_per_s_per_gpu"])
        least = min(mine, key=lambda row: row["domain"])
        gain = best["tokens_per_s_per_gpu"] / least["tokens_per_s_per_gpu"]
        winner = best if gain > 1.005 else least
        said = f"{winner['tokens_per_s_per_gpu']:,.0f} tokens/s per GPU with domains of {_named(winner)}"
        if winner is not least:
            said += f", {gain:.2f} times the {_named(least)}-GPU domain"
        elif len(mine) > 1:
            said += ", and no wiring is more than 0.5 % ahead of it"
        sentences.append(f"{phase.capitalize()}: {said}.")
    return " ".join(sentences)


def _named(row: dict[str, Any]) -> str:
    """Name a wiring by its domain, and by its pool where it is one."""
    return f"{row['domain']} ({row['pool']})" if row.get("pool") else str(row["domain"])


def assumptions(request: CompareRequest, model: Model, cluster: Cluster) -> list[dict[str, Any]]:
    """List what the answer rests on, each with its source."""
    part, formats = cluster.accelerator, recipe(request.precision)
    known = catalogue.sources()
    rows: list[dict[str, Any]] = [
        {
            "name": f"{part.title}: {name}",
            "value": figure.value,
            "unit": figure.unit,
            "source": known[figure.source].title,
        }
        for name, figure in part.figures.items()
        if name in PRICED_FROM
    ]
    serve, train = ServeWorkload(), TrainWorkload()
    own = [
        ("parameters", float(parameters(model)), "counted from the shapes, without multi-token prediction"),
        ("active parameters", float(active_parameters(model)), "counted from the shapes, input embedding included"),
        ("formats", ", ".join(f"{k} {v}" for k, v in asdict(formats).items() if k != "name"), "parallel/precision.py"),
        ("experts", "balanced: every rank gets the mean number of rows", "flag of the workload: imbalance"),
        ("prefill and decode", "separate pools; no prefix cache, no speculation", "workload"),
        ("engine", "no host time between steps: CUDA graphs, launch floor per kernel", "clusters/data/kernels.yaml"),
        ("time to first token", "the pass and half of the interval between passes", "parallel/serving/phases.py"),
        ("key-value cache", f"{serve.kv_bytes:g} bytes per value, at the mean context", "workload"),
        (
            "reserve",
            f"{footprint.reserve_said(train)} (train), {serve.reserve_bytes / 2**30:g} GiB (serve)",
            "workload",
        ),
        ("gradients", f"{train.gradient_bytes:g} bytes per value, accumulated and reduced", "Megatron-Core default"),
    ]
    rows += [{"name": name, "value": value, "unit": "", "source": source} for name, value, source in own]
    said = list(chip(part, formats).notes)
    for op, regime in (
        ("all_reduce", "nccl"),
        ("all_reduce", "graph"),
        ("moe_dispatch", "low-latency"),
        ("moe_dispatch", "normal"),
    ):
        said += notes(cluster, op, regime)
    rows += [
        {"name": "constant", "value": note, "unit": "", "source": "clusters/data/tunings.yaml"}
        for note in dict.fromkeys(said)
    ]
    return rows


def _workload(request: CompareRequest, cluster: Cluster) -> dict[str, Any]:
    out = cluster.spec.scale_out
    return {
        **asdict(request),
        "domains": list(request.domains or ()),
        "phases": list(request.phases),
        "accelerator": cluster.accelerator.name,
        "gpus": cluster.accelerators,
        "nic_Bps": out.bandwidth_Bps,
        "oversubscription": out.oversubscription,
    }


def _wiring(domain: int, cluster: Cluster) -> dict[str, Any]:
    tiers = [asdict(tier) for tier in cluster.tiers]
    return {"domain": domain, "pool": cluster.spec.focus, "tiers": tiers, "parts": parts(cluster.blueprint)}
