"""Fleets: what to measure, what to buy, what to keep (parts 13 to 15 of the blackboard)."""

from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from math import exp, inf, log
from typing import Any, Final

from clusters.spec import ClusterSpec, with_
from parallel import economics, rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.inputs import RACK, named
from parallel.claims.machines import active, best, model_of, part_of, peak_of, rate_at, serve_work, spec_of
from parallel.claims.passes import NVIDIA, two_terms_rate
from parallel.models import Model
from parallel.workload import ServeWorkload
from topo.errors import InfeasibleError, PodscaleError

S: Final = "Jensen Huang at Stanford CS153"
B: Final = "Gavin Baker on Invest Like the Best"
FLEET: Final = f"{RACK} tpot"
PAIR: Final = "model kv_bytes isl osl tpot accelerators"
"""What two fleets have in common."""
RESOURCES: Final = ("compute", "HBM bandwidth", "HBM capacity", "scale-up", "scale-out")
SPREAD: Final = ("used", "tp", "ep", "pp")
"""Columns that say where the weights lie."""
OVER: Final = 1.25
"""By how much a resource is raised to see what it is worth."""


def mfu(v: Values) -> float:
    """Share of the peak that decode uses for the model's own work."""
    return float(best("decode", model_of(v), spec_of(v), serve_work(v)).rate * 2.0 * active(v) / v["peak_flops"])


def fleet(v: Values, part: str, precision: str, **own: float) -> dict[str, Any]:
    """Return the inputs with another part and its own figures, but for those given."""
    kept = {
        key: value for key, value in v.items() if key not in ("hbm_bandwidth", "hbm_capacity", "peak_flops", "domain")
    }
    return {**kept, "accelerator": part, "precision": precision, **own}


def fleet_rate(v: Values, part: str, precision: str, tpot_s: float, **own: float) -> float:
    """Decode tokens per second and accelerator of a part at a time per output token, in its maker's domains unless given."""
    one = fleet(v, part, precision, **own)
    return rate_at(model_of(v), spec_of(one), serve_work(one), tpot_s)


def per_joule(part: str, v: Values, precision: str, tpot_s: float) -> float:
    """Decode tokens per joule of a part at a time per output token."""
    return economics.tokens_per_joule(
        fleet_rate(v, part, precision, tpot_s), economics.power_of(part_of({"accelerator": part}))
    )


def generation(v: Values) -> float:
    """Tokens per joule of the new fleet over the old one, each in its own precision."""
    old = per_joule(str(v["old"]), v, str(v["old_precision"]), v["tpot"])
    new = per_joule(str(v["new"]), v, str(v["new_precision"]), v["tpot"])
    return new / old if old else inf


def sheet_generation(v: Values) -> float:
    """Peak per watt of the new part over the old one."""
    old, new = (part_of({"accelerator": v[key]}) for key in ("old", "new"))
    per_watt = [
        peak_of(part, str(v[f"{key}_precision"])) / economics.power_of(part)
        for part, key in ((old, "old"), (new, "new"))
    ]
    return per_watt[1] / per_watt[0]


def generation_steps(v: Values) -> list[dict[str, Any]]:
    """Decompose the gain in tokens per joule into factors: memory, compute, domain, precision, watts; batching apart.

    Each step changes one thing at the same time per output token; the factors but the last multiply to the whole.
    `batching` is what the new fleet gains more with five times the time per token. Software is the same throughout.
    """
    old, new, tpot, before = str(v["old"]), str(v["new"]), v["tpot"], str(v["old_precision"])
    parts = {name: part_of({"accelerator": name}) for name in (old, new)}
    small, slow = float(parts[old].domain), peak_of(parts[old], before)
    after = str(v["new_precision"])
    rates = [
        ("start", fleet_rate(v, old, before, tpot)),
        ("memory: bandwidth and capacity", fleet_rate(v, new, before, tpot, domain=small, peak_flops=slow)),
        ("compute", fleet_rate(v, new, before, tpot, domain=small)),
        ("domain", fleet_rate(v, new, before, tpot)),
        ("precision", fleet_rate(v, new, after, tpot)),
    ]
    factors = [(name, now / then if then else inf) for (_, then), (name, now) in pairwise(rates)]
    watts = [economics.power_of(parts[name]) for name in (old, new)]
    filled = fleet_rate(v, new, after, 5.0 * tpot)
    factors += [("watts", watts[0] / watts[1]), ("batching, apart: five times the time", filled / rates[-1][1])]
    return [{"step": name, "factor": factor} for name, factor in factors]


# --- bottlenecks that rotate ----------------------------------------------------------------------------------------


def raised(v: Values, resource: str, factor: float) -> ClusterSpec:
    """Return the cluster with more of one resource."""
    changes = {
        "compute": {"peak_flops": v["peak_flops"] * factor},
        "HBM bandwidth": {"hbm_bandwidth": v["hbm_bandwidth"] * factor},
        "HBM capacity": {"hbm_capacity": v["hbm_capacity"] * factor},
    }
    if resource in changes:
        return spec_of({**v, **changes[resource]})
    spec = spec_of(v)
    if resource == "scale-up":
        return with_(spec, **{"scale_up.bandwidth": spec.scale_up.bandwidth_Bps * factor})
    return with_(spec, **{"scale_out.nic": spec.scale_out.bandwidth_Bps * factor})


def shadow_prices(v: Values) -> list[dict[str, Any]]:
    """Return what more of each resource is worth to each workload: d ln(rate) / d ln(resource), and what binds most."""
    rows = []
    for phase, tpot_s in (("prefill", v["tpot"]), ("decode", v["tpot"]), ("decode", v["fast"])):
        work = replace(serve_work(v), tpot_s=tpot_s)
        base = best(phase, model_of(v), spec_of(v), work).rate
        worth = {name: _worth(phase, model_of(v), raised(v, name, OVER), work, base) for name in RESOURCES}
        title = phase if phase == "prefill" else f"decode at {tpot_s * 1e3:g} ms"
        rows.append({"workload": title, **worth, "binds": max(worth, key=lambda name: worth[name])})
    return rows


@lru_cache(256)
def _worth(phase: str, model: Model, spec: ClusterSpec, work: ServeWorkload, base: float) -> float:
    try:
        return log(best(phase, model, spec, work).rate / base) / log(OVER)
    except PodscaleError:
        return 0.0


def spread(rows: list[dict[str, Any]]) -> float:
    """Return how many resources bind a mix: the perplexity of what more of each is worth to the workload that wants it most.

    ``exp(−Σ p·ln p)``: n where n of them are worth the same and the others nothing.

    >>> round(spread([{name: float(name in RESOURCES[:2]) for name in RESOURCES}]), 6)
    2.0
    """
    worth = [max(0.0, *(row[name] for row in rows)) for name in RESOURCES]
    shares = [one / sum(worth) for one in worth if one > 0]
    return exp(-sum(share * log(share) for share in shares))


def infinite_compute(v: Values) -> float:
    """Speed-up of a phase when arithmetic takes a hundredth of its time."""
    model, work = model_of(v), serve_work(v)
    fast = spec_of({**v, "peak_flops": v["peak_flops"] * v["speedup"]})
    return best(str(v["phase"]), model, fast, work).rate / best(str(v["phase"]), model, spec_of(v), work).rate


# --- prefill apart from decode --------------------------------------------------------------------------------------


def apart(v: Values) -> float:
    """Cost of a request with a split for each phase, over that with one split for both: the cheaper of the two.

    A split is fixed in how it spreads the weights (see `SPREAD`); its batch is each phase's own.
    """
    found = {phase: best(phase, model_of(v), spec_of(v), serve_work(v)) for phase in ("prefill", "decode")}
    own = v["isl"] / found["prefill"].rate + v["osl"] / found["decode"].rate
    shared = inf
    for one in found.values():
        fixed = tuple((name, one.split[name]) for name in SPREAD)
        try:
            rates = [best(phase, model_of(v), spec_of(v), serve_work(v), fixed).rate for phase in found]
        except InfeasibleError:
            continue
        shared = min(shared, v["isl"] / rates[0] + v["osl"] / rates[1])
    return float(own / shared)


# --- old beside new -------------------------------------------------------------------------------------------------


def request_usd(v: Values, prefill: str, decode: str) -> float:
    """Price of one request: its prompt on one part, its answer on another."""
    out = 0.0
    for phase, part, tokens in (("prefill", prefill, v["isl"]), ("decode", decode, v["osl"])):
        precision = str(v["old_precision"] if part == v["old"] else v["new_precision"])
        one = {**v, "accelerator": part, "precision": precision}
        rate = best(phase, model_of(v), spec_of(one), serve_work(one)).rate
        out += tokens * economics.usd_per_million(hour_of(v, part), rate) / economics.MILLION
    return out


def hour_of(v: Values, part: str) -> float:
    """Price of an hour: new at its capital, old at what is left of its own."""
    left = v["book_value"] if part == v["old"] else 1.0
    return economics.hour_usd(part, capital=left * economics.capital_usd(part))


def _usd_per_flops(v: Values, part: str) -> float:
    """Price of an hour for each FLOP/s of peak."""
    precision = str(v["old_precision"] if part == v["old"] else v["new_precision"])
    return hour_of(v, part) / peak_of(part_of({"accelerator": part}), precision)


def simple_mixed(v: Values) -> float:
    """Cost with old prefill over all new, prompts at the peak and answers at the two terms."""
    new, old = str(v["new"]), str(v["old"])
    part = part_of({"accelerator": new})
    one = {**v, "accelerator": new, "precision": v["new_precision"], "hbm_bandwidth": part.hbm_Bps,
           "hbm_capacity": part.hbm_bytes, "peak_flops": peak_of(part, str(v["new_precision"]))}  # fmt: skip
    decode = v["osl"] * hour_of(v, new) / two_terms_rate(one, v["tpot"])
    prefill = {name: v["isl"] * 2.0 * active(v) * _usd_per_flops(v, name) for name in (new, old)}
    return float((prefill[old] + decode) / (prefill[new] + decode))


def useful_years(v: Values, old_per_hour: float, new_per_hour: float) -> float:
    """Age at which running the old part for a prompt token costs what owning and running the newest does.

    The newest at any time is `halving` years' worth of progress ahead of the new one of today: ``cost·2^(−t/halving)``.
    """
    run = economics.hour_usd(str(v["old"]), capital=0.0) / old_per_hour
    own = economics.hour_usd(str(v["new"])) / new_per_hour
    return float(v["age"] + max(0.0, v["halving"] * log(own / run) / log(2.0)))


def prefill_rate(v: Values, part: str) -> float:
    """Prompt tokens per second of a part."""
    precision = str(v["old_precision"] if part == v["old"] else v["new_precision"])
    one = {**v, "accelerator": part, "precision": precision}
    return best("prefill", model_of(v), spec_of(one), serve_work(one)).rate


_OLD: Final = Input("old", "h100-sxm", says="the old accelerator")
_NEW: Final = Input("new", "gb200", says="the new accelerator")
_OLD_P: Final = Input("old_precision", "fp8", says="of the old one")
_NEW_P: Final = Input("new_precision", "nvfp4", says="of the new one")
_PARTS: Final = (_OLD, _NEW, _OLD_P, _NEW_P)
OLD_NEW: Final = named(PAIR, *_PARTS)
_WATTS: Final = f"{S}, MFU is the wrong metric"

CLAIMS: Final = (
    Claim(
        "mfu-eleven", 13,
        "A fleet at 11 % of its peak can be the one to have.",
        f"{S}, MFU is the wrong metric (11 % at Memphis)",
        "share of the peak used in decode", "share", 0.11, "about", 1.5,
        named(FLEET),
        lambda v: two_terms_rate(v, v["tpot"]) * 2.0 * active(v) / v["peak_flops"],
        mfu,
        over=("accelerator", NVIDIA),
        note="At the split that makes most tokens within the limit; the 11 % of the source are a training fleet's.",
    ),
    Claim(
        "mfu-misleads", 13,
        "MFU misleads: the fleet that uses less of its peak makes more tokens per watt.",
        _WATTS,
        "tokens per joule of the fleet with the lower MFU over the other", "times", 1.0, "at least", 1.0,
        (*OLD_NEW, Input("new_tpot", 0.02, "seconds", "limit of the new fleet, which lowers its MFU")),
        sheet_generation,
        lambda v: per_joule(str(v["new"]), v, str(v["new_precision"]), v["new_tpot"]) / per_joule(str(v["old"]), v,
            str(v["old_precision"]), v["tpot"]),
        over=("new", ("gb200", "rubin-vr200")),
        note="The new fleet answers 2.5 times as fast, at a lower share of a higher peak.",
    ),
    Claim(
        "amdahl", 13,
        "Half of the work made infinitely fast is a speed-up of two: distributing work makes everything a bottleneck.",
        "Jensen Huang with Lex Fridman, on distributed work (Amdahl's law)",
        "speed-up with compute a hundred times as fast", "times", 2.0, "at most", 1.1,
        named(FLEET, Input("phase", "decode", says="prefill or decode"),
            Input("share", 0.5, "", "of the work that speeds up"),
         Input("speedup", 100.0, "", "of that share")),
        lambda v: rooflines.amdahl(v["share"], v["speedup"]),
        infinite_compute,
        over=("phase", ("prefill", "decode")),
        note="Full makes the arithmetic faster and searches again: what is left is memory, starts and wires.",
    ),
    Claim(
        "disaggregated", 13,
        "Prefill and decode are served apart, each on a split of its own, because one split cannot suit both.",
        f"{B}, Chip startups … (prefill bound by capacity, decode by bandwidth)",
        "cost of a request with a split for each phase over that with one for both", "times", 0.9, "at most", 1.0,
        named(f"{FLEET} ttft"),
        lambda _: 1.0,
        apart,
        over=("accelerator", NVIDIA),
        note="The source gives no number; a tenth is the bar set here. The two terms see no split. That "
        "prefills stall the answers of those who "
        "decode beside them is not counted; `podscale serve` simulates it.",
    ),
    Claim(
        "rotating-bottleneck", 13,
        "The bottleneck rotates with the workload, so every resource has to be over-provisioned.",
        f"{S}, MFU is the wrong metric (Amdahl)",
        "resources that bind a mix of workloads, by what more of each is worth", "resources", 3.0, "at least", 1.0,
        named(FLEET, Input("fast", 0.02, "seconds", "a tighter limit, of the third workload")),
        lambda _: 2.0,
        lambda v: spread(shadow_prices(v)),
        over=("accelerator", ("h100-sxm", "gb200")),
        note="The mix is prefill, and decode at two limits. The two terms know two resources. `podscale claim` lists "
        "every resource's shadow price.",
    ),
    Claim(
        "generation-watts", 14,
        "Hopper to GB200 NVL72 is 50 times the tokens per watt.",
        f"{S}, Hopper, Grace Blackwell …; {_WATTS}",
        "tokens per joule over the generation before", "times", 50.0, "about", 1.5,
        OLD_NEW,
        sheet_generation,
        generation,
        over=("tpot", (0.1, 0.05, 0.025, 0.02, 0.0175)),
        note="Near the floor of the old fleet the ratio has no bound; at the speeds that most tokens are served at it "
        "is single digits. Hosts and cooling are in the watts; software is taken to be equally good on both.",
    ),
    Claim(
        "generation-rubin", 14,
        "Another 50 times from GB200 to Vera Rubin.",
        _WATTS,
        "tokens per joule over the generation before", "times", 50.0, "about", 1.5,
        named(PAIR, Input("old", "gb200", says="the old accelerator"),
            Input("new", "rubin-vr200", says="the new accelerator"),
         Input("old_precision", "nvfp4", says="of the old one"), _NEW_P),
        sheet_generation,
        generation,
        over=("tpot", (0.1, 0.05, 0.02, 0.01)),
        note="The source claims 50 times for each generation.",
    ),
    Claim(
        "old-prefill", 15,
        "Old accelerators on prefill behind new ones on decode lower the cost of a token.",
        f"{B}, Chip startups …",
        "cost of a request with old prefill over that on new alone", "times", 1.0, "at most", 1.0,
        named(f"{PAIR} ttft", *_PARTS, Input("book_value", 0.25, "", "what is left of the old one's capital")),
        simple_mixed,
        lambda v: request_usd(v, str(v["old"]), str(v["new"])) / request_usd(v, str(v["new"]), str(v["new"])),
        over=("book_value", (0.0, 0.25, 0.5, 1.0)),
        note="Moving the caches is left out: `podscale serve` with pools prices it.",
    ),
    Claim(
        "useful-life", 15,
        "Disaggregation gives accelerators 10 to 15 useful years.",
        f"{B}, GPU useful lives",
        "age at which running it for prefill costs what the newest does", "years", 12.0, "about", 1.35,
        named("model isl accelerators", *_PARTS, Input("age", 3.0, "", "years since the old one was new"),
            Input("halving", 2.0, "", "years in which the newest gets half as dear")),
        lambda v: useful_years(v, peak_of(part_of({"accelerator": v["old"]}), str(v["old_precision"])),
            peak_of(part_of({"accelerator": v["new"]}), str(v["new_precision"]))),
        lambda v: useful_years(v, prefill_rate(v, str(v["old"])), prefill_rate(v, str(v["new"]))),
        over=("halving", (2.0, 3.0, 5.0)),
        note="Running is electricity and colocation. A slower fall of prices, or a building with power to spare, "
        "lengthens it.",
    ),
    Claim(
        "cheap-money", 15,
        "A longer life and money at 5 to 6 instead of 7 % lower the cost of a token.",
        f"{B}, GPU useful lives",
        "cost of an hour over that with 7 % and five years", "times", 1.0, "at most", 1.0,
        named("accelerator", Input("rate", 0.055, "", "interest a year"), Input("years", 12.0, "", "of life"),
         Input("old_rate", 0.07, "", "interest to compare with"),
         Input("old_years", 5.0, "", "of life to compare with")),
        lambda v: economics.annuity(v["rate"], v["years"]) / economics.annuity(v["old_rate"], v["old_years"]),
        lambda v: economics.hour_usd(str(v["accelerator"]), v["rate"],
            v["years"]) / economics.hour_usd(str(v["accelerator"]), v["old_rate"], v["old_years"]),
        over=("years", (5.0, 8.0, 12.0)),
        note="At five years the cheaper money alone saves three per cent; the life does the rest.",
    ),
)  # fmt: skip
