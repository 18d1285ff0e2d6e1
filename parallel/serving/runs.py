"""A measured serving run, as its inputs alone say it: what was asked of which engine on which accelerators, and the answer.

One worker is simulated step by step (`parallel.serving.queueing`). A disaggregated run has two kinds of workers, whose rates are
matched in closed form: its decode batch follows from Little's law.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from clusters.build import Cluster, build, path
from clusters.catalogue import Accelerator, accelerator
from clusters.spec import parse
from collectives.point_to_point import farthest
from parallel.hotexperts import UNTOLD, HotExperts
from parallel.models import Model, compressed, kv_bytes_per_sequence, unwindowed
from parallel.placement import domain_size, members_of
from parallel.serving.drafts import Drafting, drafting
from parallel.serving.engines import (
    Engine,
    Settings,
    benchmarked,
    drawn_lengths,
    engine,
    kv_bytes,
    launched,
    serving_recipe,
)
from parallel.serving.kernels import engine_chip
from parallel.serving.passes import PassCost, Replica, Split, cache_positions, kept_positions, pass_cost, position_bytes
from parallel.serving.pipelines import slot_s
from parallel.serving.queueing import ClosedLoop, Limits, Served, simulate
from parallel.serving.steady import ROUNDS
from parallel.speculation import drafts_of

FEW_CLIENTS = 16
"""Up to so many clients every prompt of a run is simulated, beyond only `SHORT` rounds of them, the steady ones weighted."""
SHORT = 4
LATER_ROUNDS = 50
"""Prompts of each client where the lengths are in thousands: aiconfigurator's bench_run.sh.j2 (before: genai_perf_runner.py)."""
DRAFTED = drafts_of(1, 0.85)
"""One draft by multi-token prediction, of which 85 % hold (DeepSeek-V3 2412.19437 §5.4.3)."""
SEED = 2025
ITERATIONS = 60
PARTS = ("starts", "work", "cache", "prompts")
"""What a further token waits for: starts of kernels, their work, attention's reads of the cache, the prompts of others."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `clients` is of one worker where `prefill` is None; else of the whole, and the workers are counted.

    Attributes
    ----------
    gemm_quant, version : how the checkpoint is quantised, and the engine's release, where the source says so
    sized : whether the token budget was sized by the load, see `parallel.serving.engines.benchmarked`
    drafted : whether multi-token prediction drafts a token per step
    prefill, workers : split of a prefill worker, and how many workers prefill and decode
    hot : how uneven the rows of experts are
    """

    engine: str
    model: Model
    part: Accelerator
    precision: str
    split: Split
    clients: float
    isl: float
    osl: float
    gemm_quant: str = ""
    version: str = ""
    sized: bool = False
    drafted: bool = False
    prefill: Split | None = None
    workers: tuple[float, float] = (1.0, 1.0)
    hot: HotExperts = UNTOLD


@dataclass(frozen=True, slots=True)
class Answer:
    """Mean seconds to the first token and for each further one, and whether requests were held back.

    `parts` are the seconds of a further token by `PARTS`.
    """

    ttft_s: float
    tpot_s: float
    saturated: bool
    parts: tuple[float, ...]


@lru_cache(maxsize=64)
def _cluster(name: str, accelerators: int) -> Cluster:
    return build(parse({"accelerator": name, "accelerators": accelerators}))


@lru_cache(maxsize=1024)
def _priced(
    model: Model,
    name: str,
    precision: str,
    gemm_quant: str,
    split: Split,
    kv: float,
    base: Engine,
    hot: HotExperts,
    attention: str,
) -> tuple[Replica, PassCost]:
    domain = accelerator(name).domain
    cluster = _cluster(name, int(np.ceil(split.ranks / domain)) * domain)
    recipe = serving_recipe(model, precision, cluster.accelerator, gemm_quant)
    machine = engine_chip(cluster.accelerator, replace(recipe, attention=attention or recipe.attention), base)
    replica = Replica(model, cluster, machine, split, kv, replace(hot, skew=base.skew), base.regime)
    return replica, pass_cost(replica, base)


def worker(run: Run, split: Split, base: Engine, settings: Settings, attention: str = "") -> tuple[Replica, PassCost]:
    """Return the replica of one worker, and what its passes cost; `attention` is the format of its weights there."""
    kv = kv_bytes(settings, run.precision, run.model)
    kernels = replace(
        engine(run.engine), grouped=base.grouped, skew=base.skew
    )  # of the engine's constants, curves hold no others
    model = unwindowed(run.model, run.isl + run.osl)
    replica, cost = _priced(model, run.part.name, run.precision, run.gemm_quant, split, kv, kernels, run.hot, attention)
    return replica, replace(cost, engine=base, graphs=settings.graphs)


def limits_of(replica: Replica, settings: Settings, base: Engine, beside: tuple[float, float] = (0.0, 0.0)) -> Limits:
    """Return what an engine admits to one attention group; `beside` as of `cache_positions`."""
    positions = cache_positions(replica, settings.memory, of_rest=settings.memory_of_rest, beside=beside)
    return Limits(
        settings.sequences,
        settings.tokens,
        positions,
        settings.mixed,
        settings.poll_steps,
        settings.wait_steps,
        settings.wait_share * settings.tokens,
        base.offset_s / 2.0,
        kept_positions(replica),
    )


def about(tokens: float, count: int, seed: int = SEED) -> list[int]:
    """Return lengths of some requests, a tenth more or less, so that clients do not march in step.

    >>> min(about(1000, 100)) >= 900, max(about(1000, 100)) <= 1100
    (True, True)
    """
    draw = np.random.default_rng(seed)
    found: list[int] = draw.integers(math.ceil(0.9 * tokens), math.floor(1.1 * tokens) + 1, count).tolist()
    return found


def lengths(run: Run, count: int) -> tuple[list[int], list[int]]:
    """Return prompt and answer tokens of each request: drawn from 0.8 to 1 of the nominal where the benchmark does so."""
    share = DRAFTED.yielded if run.drafted else 1.0
    if not drawn_lengths(run.isl, run.osl):
        return [int(run.isl)] * count, [max(round(run.osl / share), 1)] * count
    draw = np.random.default_rng(SEED)
    inputs = draw.integers(int(0.8 * run.isl), int(run.isl) + 1, count)
    outputs = draw.integers(int(0.8 * run.osl), int(run.osl) + 1, count) / share
    return inputs.tolist(), np.maximum(np.round(outputs), 1).astype(int).tolist()


def rounds(run: Run) -> int:
    """Return how many prompts each client of a benchmark sends; the first ones of all arrive at once."""
    return LATER_ROUNDS if run.sized and run.isl % 1000 == 0 else ROUNDS


def serve_run(run: Run, base: Engine | None = None) -> tuple[Served, int, PassCost | Drafting]:
    """Simulate one worker; return the times, how many clients an attention group has, and what its steps cost."""
    base = base or engine(run.engine)
    settings = launched(
        base, run.model, run.part, run.precision, run.split.tp, run.clients, run.isl, run.osl, run.split.dp
    )
    if run.sized:
        settings = benchmarked(base, settings, run.version, run.clients, run.isl, run.osl)
    replica, priced = worker(run, run.split, base, settings)
    clients = max(round(run.clients / run.split.dp), 1)
    count = clients * (ROUNDS if clients <= FEW_CLIENTS else SHORT)
    cost = drafting(replica, priced, DRAFTED, run.osl) if run.drafted else priced
    served = simulate(cost, limits_of(replica, settings, base), ClosedLoop(clients), *lengths(run, count))
    return served, clients, cost


def answer(run: Run, base: Engine | None = None) -> Answer:
    """Return the mean times of a run, as a load generator reports them: the opening burst is one of its rounds."""
    base = base or engine(run.engine)
    if run.prefill is not None:
        return disaggregated(run, base)
    served, clients, cost = serve_run(run, base)
    opening, later = slice(0, clients), slice(clients, None)
    weigh = 1.0 / rounds(run)

    def mean(times: np.ndarray) -> float:
        rest = times[later] if len(times) > clients else times
        return float(weigh * np.mean(times[opening]) + (1.0 - weigh) * np.mean(rest))

    tpot = mean(served.tpot_s) / (DRAFTED.yielded if run.drafted else 1.0)
    held = float(np.sum(served.tpot_s)) * run.osl / served.seconds
    return Answer(
        mean(served.ttft_s) + base.return_s(run.clients), tpot, served.saturated, _parts(cost, tpot, held, run)
    )


def _parts(cost: PassCost | Drafting, tpot: float, decoding: float, run: Run) -> tuple[float, ...]:
    """Split the seconds of a token: those of a step without prompts, the prompts being what is left."""
    steps = cost.parts(decoding, decoding * (run.isl + run.osl / 2.0))
    starts, cache = steps.pop("starts"), steps.pop("kv read")
    scale = min(tpot / (starts + cache + sum(steps.values())), 1.0)
    found = (scale * starts, scale * sum(steps.values()), scale * cache)
    return *found, max(tpot - sum(found), 0.0)


def disaggregated(run: Run, base: Engine) -> Answer:
    """Match prefill and decode workers: a request takes its prompt, the move of its cache, and ``osl − 1`` steps.

    The rate is ``clients / (TTFT + (osl − 1)·TPOT)``, or what the prefill workers can do where that is less; the sequences
    that decode on one worker are ``rate·(osl − 1)·TPOT / workers`` (Little).
    """
    before, after = run.workers
    drawn = 0.9 if drawn_lengths(run.isl, run.osl) else 1.0
    isl, osl = drawn * run.isl, drawn * run.osl
    settings = base.defaults
    first, prompts = worker(run, run.prefill or run.split, base, settings)
    second, step = worker(run, run.split, base, settings)
    groups = before * first.split.dp
    alone = prompts(0.0, 0.0, isl, isl * isl / 2.0)
    each = slot_s(prompts, settings.tokens, isl)
    moved = moved_s(second, isl)
    most = groups / each
    limits = limits_of(second, settings, base)
    room = max(min(limits.sequences, limits.positions / (isl + osl + limits.kept)), 1.0)
    seats = after * second.split.dp
    held = min(run.clients / seats, room)
    for _ in range(ITERATIONS):
        batch = max(held, 1.0)
        tpot = step(batch, batch * (isl + osl / 2.0), 0.0, 0.0)
        free = run.clients / (alone + moved + osl * tpot)
        rate = min(free, most, room * seats / (osl * tpot))
        held = 0.5 * held + 0.5 * rate * osl * tpot / seats
    burst = max(run.clients / groups - 1.0, 0.0) / 2.0 * each / rounds(run)
    wait = rate / most / 2.0 * alone * max(1.0 - groups / run.clients, 0.0)
    queued = max(run.clients / rate - alone - moved - osl * tpot, 0.0)
    ttft = alone + moved + max(burst + wait, queued) + tpot
    return Answer(ttft + base.offset_s, tpot, rate < free, _parts(step, tpot, max(held, 1.0), run))


def moved_s(replica: Replica, isl: float) -> float:
    """Seconds to move the cache of one prompt between two workers, by what joins the outermost tier of the cluster."""
    cluster = replica.cluster
    one = np.ones(1)
    span = members_of(cluster, one * domain_size(cluster), one * cluster.accelerators, one)
    model = replica.model
    sent = kv_bytes_per_sequence(model, isl, replica.kv_bytes) if compressed(model) else isl * position_bytes(replica)
    size = np.array([float(sent)])
    return float(farthest(size, span, path(cluster, "send_recv", "nccl"))[0])
