"""At the edges: fast tokens, several sites, orbit, agents (parts 16, 17, 18 and 20 of the blackboard)."""

from typing import Any, Final

import numpy as np

from clusters.catalogue import Accelerator
from clusters.economics import economics as figures
from clusters.memories import memory
from clusters.spec import ClusterSpec, with_
from parallel import economics, rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.fleets import B, S
from parallel.claims.inputs import RACK, named, without
from parallel.claims.machines import (
    active,
    best,
    decode_on,
    frontier,
    kv_per_token,
    model_of,
    part_of,
    peak_of,
    serve_work,
    spec_of,
    system,
    trained_best,
    weights_bytes,
)
from parallel.claims.passes import seats, two_terms_s
from parallel.models import parameters
from parallel.workload import ServeWorkload, TrainWorkload

D: Final = "Jensen Huang with Dwarkesh Patel"
N: Final = "Satya Nadella on Microsoft's AGI plan"
SRAM: Final = {"wse-3": "cs3-x64"}
"""Machines of on-chip memory -> the system that stands for them."""
SRAM_RESERVE: Final = 1e9
"""Bytes that an engine keeps of an on-chip memory."""
UPDATE_BYTES: Final = 6.0
"""Bytes per parameter that a site sends each step: the gradient in FP32, the parameter in BF16."""
GRID: Final = 25


def machine(v: Values) -> ClusterSpec:
    """Return the cluster of a part: its system where it has on-chip memory alone, else domains of it."""
    part = str(v["accelerator"])
    return system(SRAM[part]) if part in SRAM else spec_of(v)


def tier_work(v: Values) -> ServeWorkload:
    """Return the workload in what the part computes in."""
    if str(v["accelerator"]) in SRAM:
        return serve_work(v, precision="bf16", reserve_bytes=SRAM_RESERVE)
    return serve_work(v)


def tier_usd(v: Values, tpot_s: float | None = None) -> float:
    """Cost of a million tokens at a time per token, or as fast as the machine can; infinite where it cannot."""
    seconds, rates = frontier(model_of(v), machine(v), tier_work(v))
    within = seconds <= (float(np.min(seconds)) if tpot_s is None else tpot_s)
    rate = float(np.max(rates[within])) if within.any() else 0.0
    return economics.usd_per_million(economics.hour_usd(str(v["accelerator"])), rate)


def alone_usd(v: Values) -> float:
    """Cost of a million tokens when one sequence has the whole machine, by the weights' time."""
    spec, part = machine(v), part_of(v)
    seconds = rooflines.weights_s(2.0 * active(v), 1.0, part.hbm_Bps * spec.accelerators)
    return economics.usd_per_million(economics.hour_usd(part.name) * spec.accelerators, 1.0 / seconds)


def sram_over_hbm(v: Values) -> float:
    """Cost on the on-chip machine over that on racks at one time per token; 0 where only the first is as fast."""
    sram = tier_usd({**v, "accelerator": v["sram"]}, v["tpot"])
    hbm = tier_usd(v, v["tpot"])
    return 0.0 if np.isfinite(sram) and not np.isfinite(hbm) else sram / hbm


def sheet_sram_over_hbm(v: Values) -> float:
    """Price of bandwidth: an hour over bytes per second, of one over the other."""
    one, other = part_of({"accelerator": v["sram"]}), part_of(v)
    return economics.hour_usd(one.name) / one.hbm_Bps / (economics.hour_usd(other.name) / other.hbm_Bps)


def tiers(v: Values) -> list[dict[str, Any]]:
    """Cost of a million tokens by machine and interactivity; none where a machine is not as fast."""
    rows = []
    for tpot_s in (0.05, 0.02, 0.01, 0.0075, 0.005, 0.004):
        usd = {part: tier_usd({**v, "accelerator": part}, tpot_s) for part in ("gb200", "rubin-vr200", str(v["sram"]))}
        found = {part: cost if np.isfinite(cost) else None for part, cost in usd.items()}
        rows.append({"tpot_s": tpot_s, "speed": 1.0 / tpot_s, **found})
    return rows


# --- several sites --------------------------------------------------------------------------------------------------


def wan_efficiency(v: Values) -> float:
    """Step of one site over that of two, which synchronise every so many steps; each does the same work."""
    name = str(v["system"])
    sites = {"km": float(v["km"]), "bandwidth": float(v["wan_bandwidth"])}
    two = system(name, sites=sites)
    many = two.accelerators // 2
    one = system(name, sites=None, accelerators=many)
    batch, alone = trained_best(v, one, v["sequences"])
    work = TrainWorkload(global_batch=2 * batch, precision=str(v["precision"]))
    lost = max(0.0, best("train", model_of(v), two, work).seconds - alone.seconds)
    return float(alone.seconds / (alone.seconds + lost / v["local_steps"]))


def step_s(v: Values, part: Accelerator) -> float:
    """Compute time of a training step at the peak: forward and twice that backward, on each accelerator's own tokens."""
    tokens = v["sequences"] * TrainWorkload().sequence
    return 3.0 * rooflines.compute_s(tokens, active(v), peak_of(part, str(v["precision"])))


def sheet_wan_efficiency(v: Values) -> float:
    """Compute time over compute time and one crossing of all gradients and parameters."""
    spec = system(str(v["system"]))
    part = part_of({"accelerator": spec.accelerator})
    step = step_s(v, part)
    crossing = UPDATE_BYTES * parameters(model_of(v)) / v["wan_bandwidth"] + v["km"] / 2e5
    return float(step / (step + crossing / v["local_steps"]))


# --- orbit ----------------------------------------------------------------------------------------------------------


def grounded(spec: ClusterSpec) -> ClusterSpec:
    """Return the same accelerators in the same domains on the ground, under switches."""
    return spec_of({"accelerator": spec.accelerator, "accelerators": spec.accelerators, "domain": spec.domain})


def orbit_over_ground(v: Values, phase: str) -> float:
    """Rate in orbit over that on the ground."""
    spec = system(str(v["system"]))
    if phase == "train":
        lasers = with_(spec, **{"scale_out.link_bandwidth": float(v["laser_bandwidth"])})
        return trained_best(v, lasers, v["sequences"])[1].rate / trained_best(v, grounded(spec), v["sequences"])[1].rate
    work = serve_work(v)
    return best(phase, model_of(v), spec, work).rate / best(phase, model_of(v), grounded(spec), work).rate


def satellite_holds(v: Values) -> float:
    """Whether the weights fit on one satellite: then nothing crosses the lasers."""
    spec = system(str(v["system"]))
    return float(weights_bytes(v) < spec.domain * part_of({"accelerator": spec.accelerator}).hbm_bytes)


def laser_share(v: Values) -> float:
    """Compute time of a step over it and one crossing of the laser by all gradients and parameters."""
    spec = system(str(v["system"]))
    part = part_of({"accelerator": spec.accelerator})
    step = step_s(v, part)
    return float(step / (step + UPDATE_BYTES * parameters(model_of(v)) / v["laser_bandwidth"]))


def orbit_usd(v: Values) -> float:
    """Price of an hour in orbit over that on the ground: launched mass instead of building and electricity."""
    part = system(str(v["system"])).accelerator
    kW = economics.power_of(part_of({"accelerator": part})) / float(figures()["facility"]["pue"].value) / 1e3
    launched = economics.capital_usd(part) + kW * (v["kg_per_kW"] * v["launch_usd_per_kg"] + v["bus_usd_per_kW"])
    return economics.owned_hour_usd(launched, v["rate"], v["years"], 0.0, 0.0) / economics.hour_usd(
        part, v["rate"], v["ground_years"]
    )


# --- agents ---------------------------------------------------------------------------------------------------------


def agent_batch(v: Values, away_s: float, full: bool) -> tuple[float, float]:
    """Sequences that decode in a rack full of caches, and their pass, when agents are away for some seconds after a turn.

    Of R caches, a decode: ``R = a·(1 + 1/f) + a·away / (turn·t(a))`` with a pass of t(a) seconds; a parent's cache waits
    for f sub-agents.
    """
    one = {**v, "osl": 1.0}
    most = max(1.0, seats(one))
    tried = np.geomspace(most / 1e4, most, GRID)
    seconds = decode_on(v, tried, serve_work(one)).seconds if full else np.array([two_terms_s(one, b) for b in tried])
    waiting = 1.0 / v["fan_out"] if v["fan_out"] else 0.0
    held = tried * (1.0 + waiting) + tried * away_s / (v["turn"] * seconds)
    batch = float(np.interp(most, held, tried))
    return batch, float(np.interp(batch, tried, seconds))


def agent_rate(v: Values, away_s: float, full: bool) -> float:
    """Tokens per second of that rack."""
    batch, seconds = agent_batch(v, away_s, full)
    return batch / seconds


def idle_seats(v: Values) -> list[dict[str, Any]]:
    """Share of the caches that wait, and the rate they leave, by how long a tool takes."""
    rows = []
    for tool in (0.1, 1.0, 5.0, 30.0):
        batch, seconds = agent_batch(v, tool, full=True)
        rows.append(
            {
                "tool_s": tool,
                "idle_share": 1.0 - batch / seats({**v, "osl": 1.0}),
                "pass_s": seconds,
                "tokens_per_s": batch / seconds,
            }
        )
    return rows


def cpu_gain(v: Values, full: bool) -> float:
    """Rate with tools twice as fast over the rate with them as they are."""
    return agent_rate(v, v["tool"] / 2.0, full) / agent_rate(v, v["tool"], full)


def tiering_gain(v: Values, full: bool) -> float:
    """Rate with the caches of absent agents moved out and back over the rate with them kept."""
    moving = 2.0 * kv_per_token(v) * v["isl"] / memory(str(v["memory"])).bandwidth_Bps
    return agent_rate(v, min(moving, v["tool"]), full) / agent_rate(v, v["tool"], full)


_TIER: Final = "model accelerator precision kv_bytes isl osl accelerators"
_SITES: Final = named(
    "model precision",
    Input("system", "fairwater-2-4", says="a system of several sites"),
    Input("km", 1100, "", "between them (700 miles)"),
    Input("wan_bandwidth", 1.25e14, "bandwidth", "between them, one way: 1 Pb/s"),
    Input("sequences", 1.0, "", "of a step, for each accelerator", doubled=True),
    Input("local_steps", 1.0, "", "between synchronisations"),
)  # fmt: skip
_SATELLITES: Final = Input("system", "orbit-20kw", says="a ring of satellites")
_AGENT: Final = named(
    without(RACK, "osl"),
    Input("turn", 256.0, "", "tokens between two calls of a tool"),
    Input("tool", 5.0, "seconds", "that a tool takes"),
    Input("fan_out", 0.0, "", "sub-agents that a parent waits for (0: it has none)"),
    isl=65536,
)

CLAIMS: Final = (
    Claim(
        "premium-price", 16,
        "Someone will pay 1,000 USD per million fast tokens: the price is above the cost.",
        f"{D}, Why Not Multiple Chip Architectures",
        "cost of a million tokens as fast as the machine can", "USD", 1000.0, "at most", 1.0,
        named(_TIER),
        alone_usd,
        tier_usd,
        over=("accelerator", ("gb200", "rubin-vr200", "wse-3")),
        note="Simple gives one sequence the whole machine. Groq's LPU is not priced: its rates are not public.",
    ),
    Claim(
        "sram-tier", 16,
        "A tier of fast tokens on SRAM machines pays beside racks of HBM.",
        f"{D}, Why Not Multiple Chip Architectures",
        "cost on SRAM over that on HBM at one speed (0: HBM is not as fast)", "times", 1.0, "at most", 1.0,
        named(f"{_TIER} tpot", Input("sram", "wse-3", says="the machine of on-chip memory"), tpot=0.0075),
        sheet_sram_over_hbm,
        sram_over_hbm,
        over=("tpot", (0.05, 0.02, 0.01, 0.0075, 0.005, 0.004)),
        note="It pays where racks come near their floor. A wafer's dense rate and price are low-confidence figures, "
        "and its starts are those of GPU kernels, for none are public.",
    ),
    Claim(
        "wan-training", 17,
        "One training run spans sites joined at 1 Pb/s.",
        f"{N}, Fairwater 2 and 4",
        "efficiency of two sites, over one", "share", 0.9, "at least", 1.0,
        _SITES,
        sheet_wan_efficiency,
        wan_efficiency,
        over=("km", (1.0, 1100.0, 4000.0)),
        note="Every step synchronised, by the best of data and pipeline parallelism across; distance matters less "
        "than the petabit does.",
    ),
    Claim(
        "wan-local-steps", 17,
        "With local steps between synchronisations it spans any distance.",
        f"{N}, Fairwater 2 and 4",
        "efficiency of two sites, over one", "share", 0.9, "at least", 1.0,
        (*(one for one in _SITES if one.name not in ("local_steps", "wan_bandwidth")),
            Input("wan_bandwidth", 1.25e13, "bandwidth", "between them, one way: 100 Tb/s"),
         Input("local_steps", 10.0, "", "between synchronisations")),
        sheet_wan_efficiency,
        wan_efficiency,
        over=("local_steps", (1.0, 10.0, 100.0)),
        note="At a tenth of the petabit. What local steps cost in loss is not priced.",
    ),
    Claim(
        "orbit-inference", 18,
        "Inference moves to orbit: a satellite serves as its rack would on the ground.",
        f"{B}, Orbital compute as racks in space",
        "decode rate in orbit over that on the ground", "share", 1.0, "at least", 1.1,
        named("model precision kv_bytes isl osl tpot", _SATELLITES),
        satellite_holds,
        lambda v: orbit_over_ground(v, "decode"),
        over=("system", ("orbit-20kw", "orbit-30kw", "orbit-150kw")),
        note="The model has to fit on one satellite; what it gains from wider groups on the ground it loses.",
    ),
    Claim(
        "orbit-training", 18,
        "Training stays on the ground.",
        f"{B}, Orbital compute as racks in space",
        "training rate in orbit over that on the ground", "share", 0.5, "at most", 1.0,
        named("model precision", _SATELLITES, Input("sequences", 8.0, "", "of a step, for each accelerator", doubled=True),
            Input("laser_bandwidth", 1.25e10, "bandwidth", "of one laser, one way: 100 Gb/s")),
        laser_share,
        lambda v: orbit_over_ground(v, "train"),
        over=("system", ("orbit-20kw", "orbit-30kw", "orbit-150kw")),
        note="The simple answer crosses a laser with all gradients once a step; full lets pipelines cross it instead, "
        "which large batches hide.",
    ),
    Claim(
        "orbit-price", 18,
        "Racks in orbit cost no more: no building, no power bill.",
        f"{B}, Orbital compute as racks in space",
        "an accelerator's hour in orbit over that on the ground", "times", 1.0, "at most", 1.0,
        (
            _SATELLITES,
            Input("launch_usd_per_kg", 1500.0, "", "to orbit"),
            Input("kg_per_kW", 40.0, "", "of a satellite: 13.6 are the rack alone, 3,000 lb for 100 kW"),
            Input("bus_usd_per_kW", 20000.0, "", "solar array, radiator and lasers"),
            Input("years", 5.0, "", "in orbit"),
            Input("ground_years", 5.0, "", "on the ground"),
            Input("rate", lambda _: float(figures()["capital"]["financing-rate"].value), "", "interest a year"),
        ),
        lambda v: economics.annuity(v["rate"], v["years"]) / economics.annuity(v["rate"], v["ground_years"]),
        orbit_usd,
        over=("launch_usd_per_kg", (100.0, 500.0, 1500.0)),
        note="Mass, array and launch are this project's assumptions; the simple answer knows lifetimes alone.",
    ),
    Claim(
        "agent-tools", 20,
        "Agents wait for tools: a faster CPU makes the accelerators worth more.",
        f"{S}, Hopper, Grace Blackwell …; Jensen Huang with Lex Fridman, four scaling laws",
        "rate with tools twice as fast over the rate as it is", "times", 1.1, "at least", 1.0,
        _AGENT,
        lambda v: cpu_gain(v, False),
        lambda v: cpu_gain(v, True),
        over=("tool", (0.1, 1.0, 5.0, 30.0)),
        note="The caches of waiting agents keep their seats; with short waits they hardly matter.",
    ),
    Claim(
        "agent-tiering", 20,
        "Agents want memory and storage: moving idle caches out gives their seats to others.",
        f"{S}, Hopper, Grace Blackwell …",
        "rate with idle caches moved out over the rate with them kept", "times", 1.1, "at least", 1.0,
        (*_AGENT, Input("memory", "grace-lpddr-c2c", says="an entry of clusters/data/memories.yaml")),
        lambda v: tiering_gain(v, False),
        lambda v: tiering_gain(v, True),
        over=("memory", ("grace-lpddr-c2c", "host-ddr-pcie5", "local-nvme-gen5", "network-flash")),
        note="Each accelerator has its share of the memory to itself; a seat is taken while its cache moves out and "
        "back.",
    ),
)  # fmt: skip
