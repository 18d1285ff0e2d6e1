"""What memory costs, holds and saves (parts 8 and 12 of the blackboard)."""

from dataclasses import replace
from typing import Final

from clusters.catalogue import accelerator
from clusters.memories import memory
from parallel import economics, rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.inputs import RACK, named, without
from parallel.claims.machines import (
    active,
    best,
    model_of,
    moe_of,
    part_of,
    priced_at,
    serve_work,
    spec_of,
    system,
    width_of,
    with_experts,
)
from parallel.claims.passes import NVIDIA, L, two_terms_rate
from parallel.claims.racks import TRAINED, trained
from parallel.models import Model, expert_parameters, parameters

PRICES: Final = {"h100-sxm": "hbm-h100", "gb200": "hbm-gb200", "rubin-vr200": "hbm-rubin"}
"""Accelerators whose memory has a price -> the entry of `clusters.memories`."""
HOSTS: Final = {
    "h100-sxm": ("host-ddr-pcie5", 1.0),
    "gb200": ("grace-lpddr-c2c", 2.0),
    "rubin-vr200": ("grace-lpddr-c2c", 2.0),
}
"""Their hosts' memory, and how many accelerators share what the entry holds."""
KORTHIKANTI: Final = 17.0
"""Activation bytes of a layer over those of its input: 34·s·b·h / 2·s·b·h (2205.05198, table 2, scores recomputed)."""


def hbm_price(v: Values) -> float:
    """Price of a part's memory."""
    return 1e9 * float(memory(PRICES.get(str(v["accelerator"]), "hbm-gb200")).usd_per_byte or 0.0)


def all_memory_share(v: Values) -> float:
    """Share of the capital that HBM, the host's memory and the flash of an accelerator take together."""
    entry, sharers = HOSTS.get(str(v["accelerator"]), ("host-ddr-pcie5", 1.0))
    hosts, flash = memory(entry), memory("network-flash")
    usd = v["hbm_capacity"] * v["hbm_price"] / 1e9
    usd += (hosts.price_usd or 0.0) / sharers + (flash.price_usd or 0.0)
    return float(usd / v["capital"])


def grown(model: Model, wanted: float) -> Model:
    """Return a model with as many experts as bring it to that many parameters."""
    moe = moe_of(model)
    each = sum(kind.count * expert_parameters(model, kind) for kind in model.layers)
    others = parameters(model) - each * moe.experts
    many = max(moe.topk, round((wanted - others) / each))
    return with_experts(model, lambda held: replace(held, experts=many, groups=1, topk_groups=1))


def sheet_multiple(v: Values) -> float:
    """Divide the memory of a domain by the weights, one copy of each."""
    spec = system(str(v["system"]))
    return float(
        spec.domain * accelerator(spec.accelerator).hbm_bytes / v["parameters"] / width_of(str(v["precision"]))
    )


def rack_multiple(v: Values) -> float:
    """Divide what a rack holds beside an engine's reserve by the model's weights as its ranks hold them."""
    spec = system(str(v["system"]))
    model = grown(model_of(v), v["parameters"])
    cluster, priced = priced_at("decode", model, spec, serve_work(v), used=spec.domain, ep=spec.domain, batch=1.0)
    room = cluster.accelerator.hbm_bytes - float(priced.memory["reserve"][0])
    return room / float(priced.memory["weights"][0])


def low_hbm(v: Values) -> tuple[float, float]:
    """Cost of a million tokens with less memory on each accelerator and with all of it, on the same pipeline of racks."""
    out = []
    for share in (v["share"], 1.0):
        spec = spec_of({**v, "accelerators": v["racks"] * part_of(v).domain, "hbm_capacity": share * v["hbm_capacity"]})
        rate = best("decode", model_of(v), spec, serve_work(v)).rate
        out.append(economics.usd_per_million(_hour(v, share), rate))
    return out[0], out[1]


def _hour(v: Values, share: float) -> float:
    """Price of an hour of an accelerator with a share of its memory."""
    part = str(v["accelerator"])
    saved = (1.0 - share) * v["hbm_capacity"] * v["hbm_price"] * v["markup"] / 1e9
    return economics.hour_usd(part, capital=economics.capital_usd(part) - saved)


def low_hbm_simple(v: Values) -> float:
    """Return that ratio by the two terms: a smaller memory seats fewer, a cheaper accelerator costs less."""
    racks = v["racks"] * part_of(v).domain
    rates = [
        two_terms_rate({**v, "accelerators": racks, "hbm_capacity": share * v["hbm_capacity"]}, v["tpot"])
        for share in (v["share"], 1.0)
    ]
    return _hour(v, v["share"]) / rates[0] / (_hour(v, 1.0) / rates[1])


def recomputed(v: Values) -> tuple[float, float]:
    """Step time with everything recomputed over that with nothing, and activations without over activations with."""
    none, full = (trained(v, recompute=mode, microbatches=v["microbatches"]) for mode in (0.0, 2.0))
    saved = none.memory["activations"] / full.memory["activations"]
    return float((full.seconds / none.seconds)[0]), float(saved[0])


def cache_worth(v: Values) -> float:
    """Accelerator time of computing a context again, over that of a token that finds it cached."""
    spec, model, work = spec_of(v), model_of(v), serve_work(v)
    again = v["isl"] / best("prefill", model, spec, work).rate
    return float(again * best("decode", model, spec, work).rate)


_HBM_PRICE: Final = Input("hbm_price", hbm_price, "", "USD per GB")

CLAIMS: Final = (
    Claim(
        "memory-capex", 8,
        "Half of the capital goes into memory.",
        f"{L}, The Memory Wall Paradox",
        "share of the capital of an accelerator with host, network and rack", "share", 0.5, "about", 1.25,
        named("accelerator hbm_capacity", _HBM_PRICE,
            Input("capital", lambda v: economics.capital_usd(str(v["accelerator"])), "price", "with host and network")),
        lambda v: v["hbm_capacity"] * v["hbm_price"] / 1e9 / v["capital"],
        all_memory_share,
        over=("accelerator", NVIDIA),
        note="At what memory costs its buyers per GB: simple is HBM, full adds host memory and 16 TB of flash. Half "
        "needs prices several times as high, or margins counted as memory.",
    ),
    Claim(
        "trillion-in-rack", 8,
        "A trillion parameters are about 1 TB; a rack holds ten times that.",
        f"{L}, Pipeline Parallelism; The Memory Wall Paradox",
        "memory of a rack over the weights", "times", 10.0, "about", 1.5,
        (
            Input("system", "gb200-nvl72", says="a name of `podscale list systems`"),
            Input("model", "kimi-k2", says="its shape, with other experts"),
            *named("precision", Input("parameters", 1e12, "count", "of the model")),
        ),
        sheet_multiple,
        rack_multiple,
        over=("system", ("hgx-h200", "gb200-nvl72", "gb300-nvl72", "vr-nvl72")),
        note="Simple counts a byte per parameter; full has the attention weights on every rank, and an engine's "
        "reserve.",
    ),
    Claim(
        "low-hbm", 8,
        "With weights pipelined across racks, less HBM per chip would do and be cheaper.",
        f"{L}, The Memory Wall Paradox",
        "cost per token with a share of the HBM over that with all", "times", 1.0, "at most", 1.0,
        named(
            f"{without(RACK, 'accelerators')} tpot", _HBM_PRICE,
            Input("share", 0.5, "", "of the HBM that is left"), Input("racks", 4, "count", "in the pipeline", doubled=True),
            Input("markup", 1.0, "", "what a buyer pays for memory over its price per GB"),
        ),
        low_hbm_simple,
        lambda v: low_hbm(v)[0] / low_hbm(v)[1],
        over=("share", (0.25, 0.5, 0.75)),
        note="It saves a few per cent of an accelerator and loses seats, of which a tight limit on the time per token needs "
        "few: set tpot, hbm_price or markup.",
    ),
    Claim(
        "recompute-time", 12,
        "Spending compute to save memory costs one more forward pass: a third of a step.",
        f"{L}, Cryptography Meets Neural Nets",
        "step with everything recomputed over step with nothing", "times", 4.0 / 3.0, "about", 1.1,
        TRAINED,
        lambda _: rooflines.recompute_time(),
        lambda v: recomputed(v)[0],
        over=("stages", (2.0, 4.0, 8.0)),
        note="Both at one split. The forward's communication is repeated too; the optimizer and the reduction are not.",
    ),
    Claim(
        "reversible-memory", 12,
        "Reversible layers, or recomputing, keep a small part of the activations.",
        f"{L}, Cryptography Meets Neural Nets (RevNets, 2017)",
        "activations kept without over those with", "times", 10.0, "at least", 1.25,
        TRAINED,
        lambda _: KORTHIKANTI,
        lambda v: recomputed(v)[1],
        over=("stages", (2.0, 4.0, 8.0)),
        note="Recomputing keeps a layer's input and the working set of one layer; a reversible layer would not keep "
        "the input.",
    ),
    Claim(
        "cache-mirror", 12,
        "Key-value caching is the mirror image: memory spent to save compute.",
        f"{L}, Cryptography Meets Neural Nets",
        "time to compute a context again over that of one token that has it cached", "times", 100.0, "at least", 1.0,
        named(f"{RACK} tpot ttft"),
        lambda v: v["isl"] * rooflines.compute_s(1.0, active(v), v["peak_flops"]) * two_terms_rate(v, v["tpot"]),
        cache_worth,
        over=("accelerator", NVIDIA),
    ),
)  # fmt: skip
