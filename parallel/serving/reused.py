"""Prompts that come back, in the answer of `podscale serve`: fewer tokens to compute, and caches to bring back first.

The rate of requests decides how long a cache stays in each memory (`parallel.serving.hierarchy`), and what is found there
decides the rate. Prefill by itself is priced at the rate where both agree; under an engine the load is simulated again
until they do.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster
from clusters.economics import economics
from clusters.memories import YEAR_S, memory
from parallel.economics import HOUR_S, hour_usd
from parallel.priced import Priced
from parallel.serving.contexts import context_ranks
from parallel.serving.hierarchy import Found, Reuse, Tier, Visit, found, money
from parallel.serving.passes import Replica
from parallel.serving.queueing import Limits, Served, StepCost
from parallel.serving.runs import SEED, about
from parallel.spread import Spread
from topo.columns import column
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from parallel.explain.point import Point
    from parallel.scenariofile import ReuseFile, SpreadFile, TierFile

TERM: Final = "reload"
HBM: Final = "hbm"
PRICED: Final = {"h100-sxm": "hbm-h100", "rubin-vr200": "hbm-rubin"}
"""Accelerators with a price of their own for a byte of HBM; the others take that of HBM3e."""
ROUNDS: Final = 60
AGREED: Final = 1e-3
"""Change of the rate below which hits and rate agree."""
ASSUMES: Final = (
    "a session comes back to the replica that served it; every memory drops what was used longest ago, into the next one; "
    "writing is as fast as reading and does not slow it; prices are those of the memory alone"
)
Simulate = Callable[[StepCost, Limits, Callable[[int], list[int]]], Served]


def spread_of(file: "SpreadFile | Sequence[float]") -> Spread:
    """Return the distribution that a file describes: by percentiles, or as a list of values."""
    if isinstance(file, Sequence):
        return Spread(values=tuple(file))
    return Spread(file.median, file.p90 or file.median, file.most or float("inf"))


def reuse_of(file: "ReuseFile", isl: int, path: str) -> Reuse:
    """Return what prompts share, or a `SpecError` where nothing would be left to compute."""
    if file.shared + file.history >= isl:
        problem, remedy = (
            f"and shared leave nothing of {isl} prompt tokens to compute",
            "raise workload.isl, or lower them",
        )
        raise SpecError([Fault("reuse.history", file.history, problem, remedy, path)])
    return Reuse(file.shared, file.history, file.returns, spread_of(file.revisit), file.layerwise)


def tiers_of(named: Sequence["str | TierFile"], cluster: Cluster, used: int, ranks: float) -> list[Tier]:
    """Return the memories beyond HBM that a file names, as the accelerators at work have them.

    `ranks` read one cache together. Of a memory that is shared out to accelerators each has its part; of devices there
    are as many as the file says, and the host's bus is in the way.

    >>> from clusters.build import build
    >>> from clusters.spec import load
    >>> [host, flash] = tiers_of(["host-ddr-pcie5", "local-nvme-gen5"], build(load("hgx-h100")), 8, 4)
    >>> host.capacity_bytes / 1e9, host.own_Bps / 1e9, flash.capacity_bytes / 1e12, flash.own_Bps / 1e9
    (2048.0, 252.0, 204.8, 56.0)
    """
    bus_Bps = cluster.accelerator.host_Bps or float("inf")
    out = []
    for entry in named:
        name, devices, capacity = (
            (entry, None, None) if isinstance(entry, str) else (entry.memory, entry.devices, entry.capacity)
        )
        held = memory(name)
        many = float(used) if held.per == "accelerator" else float(devices or used)
        each = held.bandwidth_Bps
        own = ranks * each if held.per == "accelerator" else max(many * ranks / used, 1.0) * each
        if held.kind != "host":
            own = min(own, ranks * bus_Bps)
        size = many * (capacity or held.capacity_bytes)
        out.append(Tier(name, held.kind, size, many * each, own, held.latency_s, held.usd_per_byte))
    return out


def hbm_tier(cluster: Cluster, capacity_bytes: float) -> Tier:
    """Return what the accelerators' own memory has left for caches that wait, at the price of its catalogue entry."""
    part = cluster.accelerator
    price = memory(PRICED.get(part.name, "hbm-gb200")).usd_per_byte
    return Tier(HBM, HBM, max(capacity_bytes, 0.0), part.hbm_Bps * cluster.usable, part.hbm_Bps, None, price)


# --- prefill by itself ---------------------------------------------------------------------------------------------------


def prefill(file: "ReuseFile", point: "Point", path: str, most: float = float("inf")) -> tuple[Priced, dict[str, Any]]:
    """Price a pass of prompts of which some find their history, and say where.

    Requests come as fast as prefill can read them, at most `most` a second. The pass is the mean of passes of prompts that
    find their history and of those that do not, each weighted by its share; `reload` comes on top, or behind the computation
    with `layerwise`. Tokens per second count the whole prompts.
    """
    work, cluster = point.serve, point.built
    reuse = reuse_of(file, work.isl, path)
    plain = point.price()
    missed, hit = (
        replace(point, serve=replace(work, cached=cached)).price()
        for cached in (reuse.shared, reuse.shared + reuse.history)
    )
    used, batch = float(plain.extra["gpus_used"][0]), float(point.cols["batch"][0])
    per_group = float((point.cols["tp"] * context_ranks(point.cols) * point.cols["pp"])[0])
    visit = Visit.of(point.model, reuse, work.isl, work.osl, work.kv_bytes)
    spare = cluster.accelerator.usable_bytes - float(plain.memory_bytes[0])
    waiting = (
        max(spare, 0.0) / (float(plain.memory["kv cache"][0]) / batch) * used
    )  # prompts that the rest of HBM holds
    whole = visit.stored_bytes * work.isl / (work.isl + work.osl - reuse.shared)
    tiers = [hbm_tier(cluster, waiting * whole), *tiers_of(file.tiers, cluster, int(used), per_group)]
    fresh = {"plain": work.isl, "missed": work.isl - reuse.shared, "hit": work.isl - reuse.shared - reuse.history}
    rates = {
        name: float(p.extra["tokens_per_s_per_gpu"][0]) * cluster.accelerators / fresh[name]
        for name, p in (("plain", plain), ("missed", missed), ("hit", hit))
    }

    def rate_at(hits: float) -> float:
        return 1.0 / ((1.0 - hits) / rates["missed"] + hits / rates["hit"])

    low, high = rates["missed"], rates["hit"]
    for _ in range(ROUNDS):
        middle = 0.5 * (low + high)
        fits = rate_at(sum(row.hits for row in found(reuse, visit, tiers, middle))) >= middle
        low, high = (middle, high) if fits else (low, middle)
    rate = min(low, most)
    rows = found(reuse, visit, tiers, rate)
    hits = sum(row.hits for row in rows)
    ready_s = float(hit.seconds[0]) if reuse.layerwise else 0.0
    made = _with_reload(_mean((1.0 - hits, hits), (missed, hit)), rows, ready_s)
    made.extra["tokens_per_s_per_gpu"] = column([rate_at(hits) * work.isl / cluster.accelerators])
    took = {"missed": float(missed.extra["ttft_s"][0]), "hit": float(hit.extra["ttft_s"][0])}
    told = _told(reuse, visit, rows, rate, took, ready_s, used / rates["missed"] - used / rates["hit"], cluster)
    before = {"ttft_s": float(plain.extra["ttft_s"][0]), "requests_per_s": rates["plain"]}
    return made, {**told, "without": before}


def _mean(shares: tuple[float, float], passes: tuple[Priced, Priced]) -> Priced:
    """Return the mean of two prices by their shares; memory is the larger."""

    def mixed(name: str) -> dict[str, Any]:
        one, two = (getattr(p, name) for p in passes)
        return {key: shares[0] * one[key] + shares[1] * two[key] for key in one}

    first, second = passes
    memory_bytes = {key: np.maximum(first.memory[key], second.memory[key]) for key in first.memory}
    seconds = shares[0] * first.seconds + shares[1] * second.seconds
    return Priced(seconds, mixed("terms"), mixed("busy"), memory_bytes, mixed("extra"))


def _with_reload(priced: Priced, rows: Sequence[Found], ready_s: float) -> Priced:
    """Add the mean time in which caches come back; `ready_s` of it hides behind the pass."""
    busy = sum(row.hits * row.reload_s for row in rows)
    shown = sum(row.hits * max(row.reload_s - ready_s, 0.0) for row in rows)
    once = column([shown])
    extra = {**priced.extra, "ttft_s": priced.extra["ttft_s"] + once}
    return replace(
        priced,
        seconds=priced.seconds + once,
        terms={**priced.terms, TERM: once},
        busy={**priced.busy, TERM: column([busy])},
        extra=extra,
    )


# --- under an engine -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prefixed:
    """A step whose sequences see `cached` positions more than were fed to them, and whose prompt tokens `ahead` more."""

    cost: StepCost
    cached: float
    ahead: float

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Return the seconds of the step."""
        return self.cost(decoding, positions + decoding * self.cached, prompt, pairs + prompt * self.ahead)


def under_load(
    reuse: Reuse,
    named: Sequence["str | TierFile"],
    replica: Replica,
    cost: StepCost,
    limits: Limits,
    asked: tuple[int, int],
    groups: float,
    simulate: Simulate,
    *,
    closed: bool,
) -> tuple[Served, dict[str, Any]]:
    """Simulate one attention group whose prompts come back, until the rate and what is found in memory agree.

    `asked` is input and output tokens. A hit is fed what it has not cached; its cache takes its room all the same. Bringing it
    back delays its first token, and in a closed loop the client's next request, not the steps of others. Ranks that share
    prompts each bring a whole cache back, at once.
    """
    isl, osl = asked
    visit = Visit.of(replica.model, reuse, isl, osl, replica.kv_bytes)
    split, cluster = replica.split, replica.cluster
    used = int(groups * split.tp * split.cp)
    outer = tiers_of(named, cluster, used, split.tp)
    plain = simulate(cost, limits, partial(about, isl))
    served, rate, rows, ready_s = plain, _rate(plain) * groups, list[Found](), 0.0
    for _ in range(8):
        held = float(np.sum(served.tpot_s)) * (osl - 1) / served.seconds * (isl + osl / 2.0) + reuse.shared
        room = max(limits.positions - held, 0.0) * groups / visit.stored_tokens * visit.stored_bytes
        rows = found(reuse, visit, [hbm_tier(cluster, room), *outer], rate)
        served, ready_s = _once(reuse, rows, cost, limits, asked, simulate, closed=closed)
        if abs(_rate(served) * groups / rate - 1.0) < AGREED:
            break
        rate = _rate(served) * groups
    took = {name: cost(0.0, 0.0, *_fed(isl, cached)) for name, cached in _classes(reuse).items()}
    saved_s = (took["missed"] - took["hit"]) * split.tp * split.cp
    told = _told(reuse, visit, rows, rate, took, ready_s, saved_s, cluster)
    before = {"ttft_s": float(np.mean(plain.ttft_s)), "requests_per_s": _rate(plain) * groups}
    return served, {**told, "without": before}


def _classes(reuse: Reuse) -> dict[str, int]:
    return {"missed": reuse.shared, "hit": reuse.shared + reuse.history}


def _rate(served: Served) -> float:
    return len(served.e2e_s) / served.seconds


def _fed(isl: int, cached: int) -> tuple[float, float]:
    """Return the tokens that a prompt is fed, and the (token, earlier position) pairs of these."""
    fresh = float(isl - cached)
    return fresh, fresh * (cached + fresh / 2.0)


def _once(
    reuse: Reuse,
    rows: Sequence[Found],
    cost: StepCost,
    limits: Limits,
    asked: tuple[int, int],
    simulate: Simulate,
    *,
    closed: bool,
) -> tuple[Served, float]:
    """Simulate with hits as they are found at one rate; return the times, and what of a reload hides behind a hit's pass."""
    isl, osl = asked
    shares = np.array([1.0 - sum(row.hits for row in rows), *(row.hits for row in rows)])
    cached = np.array([reuse.shared, *[reuse.shared + reuse.history] * len(rows)], dtype=np.float64)
    fresh = isl - cached
    mean = float(shares @ fresh)
    step = Prefixed(cost, float(shares @ cached), float(shares @ (fresh * cached)) / mean)
    room = replace(limits, positions=limits.positions * (mean + osl) / (isl + osl))
    ready_s = cost(0.0, 0.0, *_fed(isl, reuse.shared + reuse.history)) if reuse.layerwise else 0.0
    back_s = np.array([0.0, *(max(row.reload_s - ready_s, 0.0) for row in rows)])
    classes: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def prompts(count: int) -> list[int]:
        nonlocal classes
        classes = np.random.default_rng(SEED).choice(len(shares), count, p=shares / shares.sum())
        spread = np.array(about(isl, count)) / isl
        return [round(tokens) for tokens in (fresh[classes] * spread).tolist()]

    run = simulate(step, room, prompts)
    late = back_s[classes]
    longer = (np.mean(run.e2e_s) + np.mean(late)) / np.mean(run.e2e_s) if closed else 1.0
    seconds = float(run.seconds * longer)
    return replace(run, ttft_s=run.ttft_s + late, e2e_s=run.e2e_s + late, seconds=seconds), ready_s


# --- what is told --------------------------------------------------------------------------------------------------------


def _told(
    reuse: Reuse,
    visit: Visit,
    rows: Sequence[Found],
    rate: float,
    took: dict[str, float],
    ready_s: float,
    saved_gpu_s: float,
    cluster: Cluster,
) -> dict[str, Any]:
    """Return the section `reuse` of the answer: hits, what each memory does, takes and is worth."""
    hits = sum(row.hits for row in rows)
    lifetime_s = float(economics()["capital"]["lifetime"].value) * YEAR_S
    recompute_usd = saved_gpu_s * hour_usd(cluster.accelerator.name) / HOUR_S
    recompute_s = took["missed"] - took["hit"]
    tiers = []
    for row in rows:
        back_s = max(row.reload_s - ready_s, 0.0)
        tiers.append(
            {
                **{key: value for key, value in asdict(row).items() if key != "tier"},
                "name": row.tier.name,
                "kind": row.tier.kind,
                "capacity_bytes": row.tier.capacity_bytes,
                "read_Bps": row.tier.read_Bps,
                "ttft_s": took["hit"] + back_s,
                "faster": back_s < recompute_s,
                **money(row, visit, rate, recompute_usd, lifetime_s),
            }
        )
    return {
        "hit_rate": hits,
        "cached_tokens": reuse.shared + hits * reuse.history,
        "requests_per_s": rate,
        "sessions": rate * reuse.returns * reuse.revisit.mean,
        "stored_bytes": visit.stored_bytes,
        "read_bytes": visit.read_bytes,
        "ttft_missed_s": took["missed"],
        "recompute_s": recompute_s,
        "recompute_usd": recompute_usd,
        "tiers": tiers,
        "notes": _notes(rows, recompute_s, ready_s),
        "assumes": ASSUMES,
    }


def _notes(rows: Sequence[Found], recompute_s: float, ready_s: float) -> list[str]:
    """Return what holds the caches back."""
    out = []
    for row in rows:
        name = row.tier.name
        if row.read_load > 1.0:
            out.append(f"{name} is asked for {row.read_load:.3g} times what it can read: the rest is computed again")
        if row.meets and row.write_load > 1.0 and row.tier.kind != HBM:
            out.append(f"{name} is given {row.write_load:.3g} times what it can take in: part of the hits will be lost")
        if row.meets and row.reload_s - ready_s > recompute_s:
            out.append(f"{name} brings a cache back more slowly than it is computed again")
    return out
