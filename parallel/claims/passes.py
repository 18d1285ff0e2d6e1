"""Passes, trains and their price: compute time against memory time (parts 1 to 4 of the blackboard)."""

from dataclasses import replace
from typing import Final

import numpy as np

from clusters.kernels import grouped_gemm_s, memory_s
from parallel import economics, rooflines
from parallel.claims.claim import Chart, Claim, Input, Line, Values
from parallel.claims.inputs import RACK, named, without
from parallel.claims.machines import (
    active,
    best,
    decode_on,
    fastest_s,
    frontier,
    kv_per_token,
    model_of,
    moe_of,
    part_of,
    peak_of,
    priced_at,
    rate_at,
    serve_work,
    spec_of,
    weights_bytes,
    with_experts,
)
from parallel.precision import recipe
from parallel.roofline import chip
from parallel.workload import ServeWorkload
from topo.columns import Column

L: Final = "Blackboard lecture (Reiner Pope with Dwarkesh Patel)"
UNFILLED: Final = without(RACK, "hbm_capacity")
"""One replica whose batch is given, whether or not its caches fit."""
INTERVAL: Final = Input("interval", 0.02, "seconds", "between departures")
PARTS: Final = ("h100-sxm", "gb200", "rubin-vr200", "mi300x")
NVIDIA: Final = ("h100-sxm", "gb200", "rubin-vr200")
BIG: Final = 1 << 14
"""Side of the square matrices, and share of a gigabyte, that a part's best rates are read from."""


# --- the two-term pass of a rack -----------------------------------------------------------------------------------


def rack_compute_s(v: Values, batch: float) -> float:
    """Compute time of a pass on all accelerators."""
    return rooflines.compute_s(batch, active(v), v["peak_flops"] * v["accelerators"])


def rack_memory_s(v: Values, batch: float) -> float:
    """Memory time of a pass on all accelerators: the weights once, every cache once."""
    bandwidth = v["hbm_bandwidth"] * v["accelerators"]
    context = serve_work(v).mean_context
    weights = rooflines.weights_s(weights_bytes(v), 1.0, bandwidth)
    return weights + rooflines.cache_s(batch, context, kv_per_token(v), bandwidth)


def two_terms_s(v: Values, batch: float) -> float:
    """Two-term time of a pass."""
    return rooflines.pass_s(rack_compute_s(v, batch), rack_memory_s(v, batch))


def seats(v: Values) -> float:
    """Sequences whose caches fit beside the weights."""
    room = v["hbm_capacity"] * v["accelerators"] - weights_bytes(v)
    return float(max(0.0, room / (kv_per_token(v) * serve_work(v).mean_context)))


def two_terms_rate(v: Values, tpot_s: float) -> float:
    """Tokens per second and accelerator at a time per output token, by the two terms and the seats."""
    one = {**v}
    weights = rack_memory_s(one, 0.0)
    batch = rooflines.batch_at(tpot_s, weights, rack_memory_s(one, 1.0) - weights, rack_compute_s(one, 1.0))
    batch = min(batch, seats(v))
    return float(batch / max(two_terms_s(v, batch), 1e-12) / v["accelerators"])


def knee(v: Values) -> float:
    """Batch at which compute has caught up with the weights: both from the two terms, caches left out."""
    return rack_memory_s(v, 0.0) / rack_compute_s(v, 1.0)


# --- the same, in full ---------------------------------------------------------------------------------------------


def full_rate(v: Values, tpot_s: float) -> float:
    """Tokens per second and accelerator of the best split at a time per output token."""
    return rate_at(model_of(v), spec_of(v), serve_work(v), tpot_s)


def full_knee(v: Values) -> float:
    """Batch whose growing part of the pass equals the fixed part: intercept over slope of the priced pass."""
    model = with_experts(
        model_of(v), lambda moe: replace(moe, experts=int(v["experts"]), topk=int(v["active_experts"]))
    )
    spec, near = spec_of(v), rooflines.optimal_batch(300.0, v["experts"], v["active_experts"])
    batches = np.array([v["accelerators"], 4.0 * near, 8.0 * near]) / spec.accelerators
    priced = priced_at("decode", model, spec, serve_work(v), used=spec.domain, ep=spec.accelerators, batch=batches)[1]
    low, some, many = priced.seconds.tolist()
    slope = (many - some) / (4.0 * near)
    return float((low - slope * v["accelerators"]) / slope)


def achieved_flop_per_byte(v: Values) -> float:
    """Best rate of a large product over the best rate of a large read, as measured kernels reach them."""
    part = part_of(v)
    machine = chip(part, recipe(str(v["precision"])))
    fmt = machine.format("experts")
    model = machine.kernels[fmt.name]
    side = float(BIG)
    seconds = float(grouped_gemm_s(side, 1.0, side, side, model, machine.peak(fmt), part.hbm_Bps))
    reading = float(memory_s(side * 1e6, machine.kernels["bf16"], part.hbm_Bps))
    scale = v["peak_flops"] / peak_of(part, str(v["precision"])) * part.hbm_Bps / v["hbm_bandwidth"]
    return float(scale * (2.0 * side**3 / seconds) / (side * 1e6 / reading))


def fullest_s(v: Values) -> float:
    """Time of the pass that serves most tokens, however long it takes: its memory is full."""
    seconds, rates = frontier(model_of(v), spec_of(v), serve_work(v))
    return float(seconds[int(np.argmax(rates))])


def usable_drain_s(v: Values) -> float:
    """Drain time of what an engine fills, at the rate that a read reaches."""
    part = part_of(v)
    efficiency = chip(part, recipe("bf16")).kernels["bf16"].hbm_efficiency
    room = v["hbm_capacity"] - min(ServeWorkload().reserve_bytes, v["hbm_capacity"] / 2)
    return float(room / (v["hbm_bandwidth"] * efficiency))


def deployed_batch(v: Values) -> float:
    """Sequences in a replica of the best split within the limit on the time per output token."""
    found = best("decode", model_of(v), spec_of(v), serve_work(v))
    split = found.split
    return split["batch"] * max(split["ep"], split["tp"]) * split["pp"]


# --- what there is to draw -------------------------------------------------------------------------------------------


def batches(v: Values) -> Column:
    """Return batches on both sides of the knee: from one sequence an accelerator to eight times the knee."""
    return np.geomspace(v["accelerators"], 8.0 * knee(v), 25)


def two_times(v: Values) -> Chart:
    """Return both times of a pass, and the whole model's, against the batch."""
    tried = batches(v)
    return Chart(
        "Time of a decode pass against the sequences of the replica", "sequences", "s", (
            Line("compute, of the two terms", tried, np.array([rack_compute_s(v, b) for b in tried]), "simple"),
            Line("memory, of the two terms", tried, np.array([rack_memory_s(v, b) for b in tried]), "soft"),
            Line("the whole model", tried, decode_on(v, tried).seconds, "full"),
        ), {"the knee": knee(v)},
    )  # fmt: skip


def token_cost(v: Values) -> Chart:
    """Return the price of a token against the batch, by the two terms and in full."""
    tried = batches(v)
    per_s = economics.hour_usd(str(v["accelerator"])) / economics.HOUR_S * v["accelerators"] * economics.MILLION
    simple = np.array([two_terms_s(v, b) for b in tried])
    return Chart(
        "Cost of a million tokens against the sequences of the replica", "sequences", "USD", (
            Line("the larger of the two terms", tried, simple / tried * per_s, "simple"),
            Line("the whole model", tried, decode_on(v, tried).seconds / tried * per_s, "full"),
        ), {"the knee": knee(v)},
    )  # fmt: skip


def speed_price(v: Values) -> Chart:
    """Return the price of a token against the speed that a user gets, by the two terms and in full."""
    seconds, rates = frontier(model_of(v), spec_of(v), serve_work(v))
    hour, least = economics.hour_usd(str(v["accelerator"])), float(np.min(seconds))
    tried = np.geomspace(least, 0.1, 25)
    simple = np.array([two_terms_rate(v, t) for t in tried])
    full = np.array([np.max(rates[seconds <= t * (1.0 + 1e-9)]) for t in tried])
    return Chart(
        "Cost of a million output tokens against the speed that one user gets", "tokens/s", "USD", (
            Line("the two terms", 1.0 / tried, economics.usd_per_million(hour, 1.0) / simple, "simple"),
            Line("the whole model", 1.0 / tried, economics.usd_per_million(hour, 1.0) / full, "full"),
        ), {"base": 1.0 / v["tpot"], "fast": v["speed"] / v["tpot"]},
    )  # fmt: skip


CLAIMS: Final = (
    Claim(
        "pass-time", 1,
        "A pass takes the larger of compute time and memory time.",
        f"{L}, The Roofline",
        "time of a decode pass over max(compute, memory)", "times", 1.0, "about", 1.25,
        named(UNFILLED, Input("batch", 2400, "count", "sequences of the replica")),
        lambda _: 1.0,
        lambda v: float(decode_on(v, v["batch"]).seconds[0]) / two_terms_s(v, v["batch"]),
        over=("batch", (300.0, 2400.0, 9600.0, 38400.0)),
        note="The rest is what the two terms leave out: kernel starts, the expert exchange, work that does not "
        "overlap.",
    ),
    Claim(
        "latency-floor", 1,
        "Latency has a floor that no batch size beats, about 20 ms per token.",
        f"{L}, Why Fast Mode Costs More",
        "least time per output token", "s", 0.02, "about", 1.25,
        named(RACK),
        lambda v: rooflines.drain_s(v["hbm_capacity"], v["hbm_bandwidth"]),
        lambda v: fastest_s(model_of(v), spec_of(v), serve_work(v)),
        over=("accelerator", PARTS),
        note="There is a floor, but it is the weights over all bandwidth and the starts of the layers; capacity over "
        "bandwidth is the pass of a memory that is full.",
    ),
    Claim(
        "cost-knee", 1,
        "Cost per token falls with batch until compute has caught up, then hardly.",
        f"{L}, The Roofline",
        "cost of a token at eight times the knee over that at the knee", "times", 1.0, "at least", 1.25,
        named(UNFILLED),
        lambda v: two_terms_s(v, 8 * knee(v)) / 8 / two_terms_s(v, knee(v)),
        lambda v: float(np.divide(*decode_on(v, [8 * knee(v), knee(v)]).seconds)) / 8,
        over=("accelerator", PARTS),
        note="Caches are read per sequence: set isl to 1 to leave them out, as the lecture does. Seats may end before "
        "the knee.",
    ),
    Claim(
        "flop-per-byte", 2,
        "The ratio of FLOPs to bytes of bandwidth has stayed near 300 from A100 to Rubin.",
        f"{L}, Why Optimal Batch Size …",
        "dense FLOP per byte of memory bandwidth", "FLOP/B", 300.0, "about", 1.25,
        named("accelerator precision hbm_bandwidth peak_flops", precision="bf16"),
        lambda v: v["peak_flops"] / v["hbm_bandwidth"],
        achieved_flop_per_byte,
        over=(
            "accelerator",
            ("a100-sxm-80", "h100-sxm", "h200-sxm", "b200-sxm", "gb200", "gb300", "rubin-vr200", "mi300x", "mi355x",
                "tpu-v7", "trainium2"),
        ),
        note="Simple is the data sheet, full what large products and reads reach.",
    ),
    Claim(
        "optimal-batch", 2,
        "The best batch is (FLOP/byte) x (total / active experts): 2,400 for 32 of 256.",
        f"{L}, Why Optimal Batch Size …",
        "sequences at the knee", "sequences", 2400.0, "about", 1.25,
        named(
            UNFILLED,
            Input("flop_per_byte", 300.0, "", "of the accelerator, as the lecture rounds it"),
            Input("experts", 256, "count", "routed experts"),
            Input("active_experts", 32, "count", "experts that a token visits"),
        ),
        lambda v: rooflines.optimal_batch(v["flop_per_byte"], v["experts"], v["active_experts"]),
        full_knee,
        over=("accelerator", PARTS),
        note="Full is the batch whose growing part of the pass equals the fixed part, caches, attention and exchange "
        "counted. With the 8 of 256 that DeepSeek-V3 has, the rule says 9,600: --set active_experts=8.",
    ),
    Claim(
        "active-experts", 2,
        "DeepSeek-V3 activates 32 of 256 experts, one parameter in eight.",
        f"{L}, Why Optimal Batch Size …",
        "all over active", "times", 8.0, "about", 1.1,
        named("model"),
        lambda v: moe_of(model_of(v)).experts / moe_of(model_of(v)).topk,
        lambda v: _parameters(v) / active(v),
        note="A slip of the source: its configuration says 8 routed experts of 256 and one shared. Simple counts "
        "experts, full counts parameters.",
    ),
    Claim(
        "deployed-batch", 2,
        "Real deployments run at up to three times the optimal batch.",
        f"{L}, Why Optimal Batch Size …",
        "sequences of a replica over those at the knee", "times", 3.0, "at most", 1.25,
        named(f"{RACK} tpot"),
        lambda v: two_terms_rate(v, v["tpot"]) * v["tpot"] * v["accelerators"] / knee(v),
        lambda v: deployed_batch(v) / knee(v),
        over=("accelerator", PARTS),
        note="The knee is that of the two terms with the model's own sparsity; the batch is that of the split that "
        "makes most tokens within the limit.",
    ),
    Claim(
        "train-interval", 3,
        "HBM capacity over bandwidth is about 20 ms across generations.",
        f"{L}, The 20 Millisecond Train",
        "time to read the memory once", "s", 0.02, "about", 1.25,
        named("accelerator hbm_bandwidth hbm_capacity"),
        lambda v: rooflines.drain_s(v["hbm_capacity"], v["hbm_bandwidth"]),
        usable_drain_s,
        over=(
            "accelerator",
            ("a100-sxm-80", "h100-sxm", "h200-sxm", "b200-sxm", "gb200", "gb300", "rubin-vr200", "mi300x", "mi325x",
                "mi355x", "tpu-v5e",
             "tpu-v7", "trainium2"),
        ),
        note="The data sheets say 13 ms (Rubin) to 43 ms (MI325X).",
    ),
    Claim(
        "worst-wait", 3,
        "Whoever just misses a train waits two intervals, about 40 ms.",
        f"{L}, The 20 Millisecond Train",
        "two intervals", "s", 0.04, "about", 1.25,
        named(RACK),
        lambda v: rooflines.worst_wait_s(rooflines.drain_s(v["hbm_capacity"], v["hbm_bandwidth"])),
        lambda v: rooflines.worst_wait_s(fullest_s(v)),
        over=("accelerator", PARTS),
        note="Full takes the pass of the split that makes most tokens, its memory full of caches; prefill is another "
        "pool.",
    ),
    Claim(
        "trains-per-second", 3,
        "64 trains leave a second.",
        f"{L}, Why Optimal Batch Size …",
        "passes per second", "1/s", 64.0, "about", 1.1,
        named(RACK, INTERVAL),
        lambda v: rooflines.departures_per_s(v["interval"]),
        lambda v: rooflines.departures_per_s(fullest_s(v)),
        over=("accelerator", PARTS),
        note="A slip of the source: 64 a second is one every 15.6 ms; every 20 ms makes 50.",
    ),
    Claim(
        "replica-rate", 3,
        "A replica makes 64 x 2,000, about 128,000, tokens a second.",
        f"{L}, Why Optimal Batch Size …",
        "tokens per second of a replica", "tokens/s", 128_000.0, "about", 1.25,
        named(RACK, INTERVAL, Input("batch", 2000, "count", "seats of a train")),
        lambda v: v["batch"] * rooflines.departures_per_s(v["interval"]),
        lambda v: full_rate(v, v["interval"]) * v["accelerators"],
        over=("accelerator", PARTS),
        note="2,000 seats every 20 ms are 100,000. Full fills as many seats as the best split can take in that time.",
    ),
    Claim(
        "global-share", 3,
        "That replica is a thousandth of Gemini's traffic.",
        f"{L}, Why Optimal Batch Size …",
        "share of the demand", "share", 1e-3, "about", 2.0,
        named(
            RACK,
            INTERVAL,
            Input("replica", 128_000, "count", "tokens per second of the lecture's replica"),
            Input("monthly_tokens", 1.3e15, "",
                "global demand: Google, all products, October 2025 (3.2e15 in May 2026)"),
        ),
        lambda v: v["replica"] / _demand(v),
        lambda v: full_rate(v, v["interval"]) * v["accelerators"] / _demand(v),
        note="Google counts input and output of all its products; a thousand replicas of 128,000 make 3.4e14 a month.",
    ),
    Claim(
        "fast-mode", 4,
        "Fast mode: six times the price for 2.5 times the speed.",
        f"{L}, Why Fast Mode Costs More",
        "cost of a token at the higher speed over that at the base", "times", 6.0, "about", 1.5,
        named(f"{RACK} tpot", Input("speed", 2.5, "", "how much faster")),
        lambda v: _ratio(two_terms_rate(v, v["tpot"]), two_terms_rate(v, v["tpot"] / v["speed"])),
        lambda v: _ratio(full_rate(v, v["tpot"]), full_rate(v, v["tpot"] / v["speed"])),
        over=("tpot", (0.1, 0.05, 0.03, 0.025, 0.02, 0.0175, 0.015)),
        note="The price of speed depends on where one starts: next to the floor it is steep, far from it almost "
        "nothing.",
    ),
    Claim(
        "slow-mode", 4,
        "Slow mode saves little: past the optimum neither caches nor compute are shared.",
        f"{L}, Why Fast Mode Costs More",
        "saving of a ten times longer time per token", "share", 0.2, "at most", 1.0,
        named(f"{RACK} tpot", Input("slower", 10.0, "", "how much slower")),
        lambda v: 1.0 - two_terms_rate(v, v["tpot"]) / two_terms_rate(v, v["tpot"] * v["slower"]),
        lambda v: 1.0 - full_rate(v, v["tpot"]) / full_rate(v, v["tpot"] * v["slower"]),
        over=("accelerator", PARTS),
    ),
)  # fmt: skip


def _parameters(v: Values) -> float:
    from parallel.models import parameters

    return float(parameters(model_of(v)))


def _demand(v: Values) -> float:
    """Tokens per second of a monthly count."""
    return float(v["monthly_tokens"]) / (365.25 / 12.0 * 86_400.0)


def _ratio(above: float, below: float) -> float:
    """Quotient, infinite where nothing is made."""
    return above / below if below > 0 else float("inf")
