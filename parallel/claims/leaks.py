"""What prices give away, and why contexts stop growing (parts 10 and 11 of the blackboard)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import sqrt
from typing import Any, Final

import numpy as np

from clusters.catalogue import accelerator, nearest
from clusters.memories import break_even_s, memory
from parallel import economics, rooflines
from parallel.claims.claim import Claim, Input, Values
from parallel.claims.inputs import RACK, named, without
from parallel.claims.machines import LIFETIME_S, active, decode_on, kv_per_token, model_of, rate_of, serve_work
from parallel.claims.passes import NVIDIA, L, rack_compute_s, rack_memory_s, two_terms_rate
from parallel.models import kv_bytes_per_token
from parallel.workload import ServeWorkload
from topo.errors import Fault, InfeasibleError, SpecError

API: Final = "API Prices Leak Architecture"
MIXTURES: Final = ("deepseek-v3", "kimi-k2", "gpt-oss-120b", "qwen3-235b-a22b", "minimax-m2.5")
ATTENTION: Final[Mapping[str, Callable[[float, float], float]]] = {
    "dense": lambda context, _: context,
    "sparse": rooflines.sparse_context,
}
"""Kind of attention -> positions that it reads of a context, beyond a base."""
MOST: Final = 4096.0
"""Sequences per accelerator beyond which the pass is taken to be in its steady slope."""


def slope_s(v: Values, context: float) -> float:
    """Accelerator-seconds that one more sequence of a context adds to a large decode pass."""
    work = replace(serve_work(v), isl=max(1, round(context)), osl=1)
    many = v["accelerators"]
    low, high = decode_on(v, [many * MOST, 2.0 * many * MOST], work).seconds.tolist()
    return float((high - low) / MOST)


def balance(v: Values) -> float:
    """Context at which a sequence's cache takes as long to read as everything else of its token."""
    none, some = slope_s(v, 1.0), slope_s(v, v["probe"])
    return float(none / ((some - none) / v["probe"]))


def leaked(v: Values) -> float:
    """Cache bytes per token that balance a model of that many active parameters at the context, on priced passes."""
    rest = slope_s(v, 1.0) * v["active_parameters"] / active(v)
    per_byte = (slope_s(v, v["probe"]) - slope_s(v, 1.0)) / v["probe"] / kv_per_token(v)
    return float(rest / (per_byte * v["context"]))


def prefill_usd(v: Values) -> float:
    """Price of computing one prompt token."""
    return economics.usd_per_million(v["hour"], rate_of("prefill", v)) / economics.MILLION


def decode_over_prefill(v: Values) -> float:
    """Price of an output token over that of an input token, from the two terms."""
    return 1.0 / rooflines.compute_s(1.0, active(v), v["peak_flops"]) / two_terms_rate(v, v["tpot"])


def hit_share(v: Values) -> float:
    """Price of a token held and brought back, over that of computing it."""
    held = memory(str(v["memory"]))
    return economics.cache_hit_usd(kv_per_token(v), held, v["held"], v["lifetime"], v["hour"]) / prefill_usd(v)


def hit_share_simple(v: Values) -> float:
    """Time of bringing a token back over that of computing it at the peak."""
    held = memory(str(v["memory"]))
    return kv_per_token(v) / held.bandwidth_Bps / rooflines.compute_s(1.0, active(v), v["peak_flops"])


def worth_holding_s(v: Values) -> float:
    """Time for which a memory is cheaper than computing again."""
    return break_even_s(prefill_usd(v), kv_per_token(v), memory(str(v["memory"])).usd_per_byte or 0.0, v["lifetime"])


def drained_s(v: Values) -> float:
    """Time in which a memory is read once."""
    return memory(str(v["memory"])).drain_s


def architectures(v: Values) -> list[dict[str, Any]]:
    """Read a price sheet backwards for a range of active parameters, at the FLOP per byte of several parts."""
    sheet = economics.PriceSheet(v["input_usd"], v["output_usd"], v["hit_usd"], step_context=v["context"])
    rows = []
    for name in NVIDIA:
        ratio = accelerator(name).flop_per_byte
        leak = economics.infer(
            sheet, (v["active_parameters"] / 2, v["active_parameters"] * 2), (ratio, ratio), v["flops"]
        )
        low, high = leak.kv_bytes_per_token
        rows.append(
            {
                "part": name,
                "kv_bytes_low": low,
                "kv_bytes_high": high,
                "decode_uses": leak.decode_utilisation,
                "hit_share": leak.hit_share,
            }
        )
    return rows


# --- context --------------------------------------------------------------------------------------------------------


def token_s(v: Values, context: float, positions: float, full: bool) -> float:
    """Accelerator-seconds per token of a rack that is full of caches of a context, each read over some positions.

    Attention that skips positions reads less and stores as much.
    """
    cached = kv_per_token(v) * context
    work = replace(serve_work(v), isl=max(1, round(positions)), osl=1)
    one = {**v, "isl": work.isl, "osl": work.osl}
    if not full:
        room = (
            v["hbm_capacity"] * v["accelerators"]
            - rack_memory_s({**one, "isl": 1}, 0.0) * v["hbm_bandwidth"] * v["accelerators"]
        )
        batch = room / cached
        return float(
            rooflines.pass_s(rack_compute_s(one, batch), rack_memory_s(one, batch)) * v["accelerators"] / batch
        )
    bare = decode_on(v, v["accelerators"], replace(work, isl=1))
    held = float(bare.memory["weights"][0] + bare.memory["reserve"][0])
    batch = (v["hbm_capacity"] - held) * v["accelerators"] / cached
    if batch < 1.0:
        what, room = f"a context of {context:,.0f} tokens", f"memory of {v['accelerators']:,.0f} accelerators"
        raise InfeasibleError(what, room, f"a cache takes {1.0 / batch:.3g} times what is left", "take more")
    limit = _most_in_time(v, work, batch)
    return float(float(decode_on(v, limit, work).seconds[0]) * v["accelerators"] / limit)


def _most_in_time(v: Values, work: ServeWorkload, batch: float) -> float:
    """Return the sequences, at most `batch`, whose pass costs least per token."""
    tried = batch * np.geomspace(1.0 / 64.0, 1.0, 13)
    seconds = decode_on(v, tried, work).seconds
    return float(tried[int(np.argmin(seconds / tried))])


def dearer(v: Values, full: bool) -> float:
    """Cost of a token at a context over that at the base, dense or reading as a square root beyond it."""
    kind = str(v["attention"])
    if kind not in ATTENTION:
        raise SpecError([Fault("attention", kind, "is unknown", nearest(kind, tuple(ATTENTION)))])
    positions = ATTENTION[kind](v["context"], v["base"])
    return token_s(v, v["context"], positions, full) / token_s(v, v["base"], v["base"], full)


_PROBE: Final = Input("probe", 65536, "count", "context that the slope of the pass is read from")
PROMPTS: Final = without(RACK, "osl")
"""Prompts, computed on a rack."""
_LEAK: Final = named(
    without(RACK, "hbm_capacity", "isl", "osl"),
    Input("active_parameters", 100e9, "count", "as the source guesses"),
    Input("context", 200e3, "count", "where the price steps"),
    Input("flop_per_byte", 300.0, "", "of the accelerator, as the lecture rounds it"),
    Input("flops", 1.0, "", "per weight and token: the lecture counts a multiply-add as one"),
    _PROBE,
    Input("input_usd", 2.5, "", "of the price sheet in the table: per million tokens of input"),
    Input("output_usd", 12.5, "", "of the price sheet in the table: of output"),
    Input("hit_usd", 0.25, "", "of the price sheet in the table: of a cache hit"),
)  # fmt: skip
_LIFETIME: Final = Input("lifetime", LIFETIME_S, "seconds", "of the memory: five years")
_HELD: Final = Input("memory", "network-flash", says="an entry of clusters/data/memories.yaml")
_CONTEXT: Final = named(without(RACK, "isl", "osl"), Input("base", 200e3, "count", "tokens"))
_ATTENTION: Final = Input("attention", "sparse", says=f"one of {', '.join(ATTENTION)}")

CLAIMS: Final = (
    Claim(
        "leaked-cache", 10,
        "A price step at 200k tokens gives away 1.6 to 2 kB of cache per token at 100 B active parameters.",
        f"{L}, {API}",
        "cache bytes per token", "B", 1800.0, "about", 1.25,
        _LEAK,
        lambda v: rooflines.leaked_kv_bytes(v["active_parameters"], v["context"], v["flop_per_byte"], v["flops"]),
        leaked,
        over=("accelerator", NVIDIA),
        note="A multiply-add is two FLOPs in peaks: --set flops=2 doubles the simple answer. Full balances priced "
        "passes of the model, with the rest of the pass scaled to the active parameters.",
    ),
    Claim(
        "cache-per-token", 10,
        "8 key-value heads of 128 make 1.6 to 2 kB per token.",
        f"{L}, {API}",
        "cache bytes per token over all layers", "B", 1800.0, "about", 1.25,
        named("model kv_bytes", Input("kv_heads", 8, "count", "of the source"),
            Input("head_dim", 128, "count", "of the source")),
        lambda v: 2.0 * v["kv_heads"] * v["head_dim"] * v["kv_bytes"],
        lambda v: float(kv_bytes_per_token(model_of(v), v["kv_bytes"])),
        over=("model", (*MIXTURES, "llama-3.1-70b")),
        note="A slip of the source: 8 x 128 x keys and values are 2 kB for each layer, at one byte a value; full adds "
        "the layers up.",
    ),
    Claim(
        "decode-price", 10,
        "Output costs five times input: decode is bound by bandwidth.",
        f"{L}, {API}",
        "cost of an output token over that of an input token", "times", 5.0, "about", 1.5,
        named(f"{RACK} tpot"),
        decode_over_prefill,
        lambda v: rate_of("prefill", v) / rate_of("decode", v),
        over=("accelerator", NVIDIA),
        note="Both at their best split within the limits on latency; the ratio grows as the limit on the time per "
        "token tightens.",
    ),
    Claim(
        "cache-hit", 10,
        "A cache hit costs a tenth of a miss.",
        f"{L}, {API}",
        "holding and bringing back over computing", "times", 0.1, "about", 2.0,
        named(f"{PROMPTS} hour", _HELD, _LIFETIME, Input("held", 300.0, "seconds", "for which it is held")),
        hit_share_simple,
        hit_share,
        over=("memory", ("grace-lpddr-c2c", "host-ddr-pcie5", "local-nvme-gen5", "network-flash")),
        note="The accelerator is taken to wait while the cache comes back; overlapped with another pass, a hit costs "
        "less still.",
    ),
    Claim(
        "cache-5-minutes", 10,
        "The five-minute tier is the drain time of flash.",
        f"{L}, {API}",
        "time in the tier", "s", 300.0, "about", 2.0,
        named(f"{PROMPTS} hour", _HELD, _LIFETIME),
        drained_s,
        worth_holding_s,
        over=("memory", ("local-nvme-gen5", "local-nvme-gen6", "network-flash")),
        note="Simple drains the device, full asks for how long holding is cheaper than computing again: days, for a "
        "latent cache.",
    ),
    Claim(
        "cache-1-hour", 10,
        "The one-hour tier is the drain time of disk.",
        f"{L}, {API}",
        "time in the tier", "s", 3600.0, "about", 2.0,
        named(f"{PROMPTS} hour", replace(_HELD, default="disk"), _LIFETIME),
        drained_s,
        worth_holding_s,
        over=("memory", ("disk", "network-flash", "local-nvme-gen5")),
        note="A nearline disk takes most of a day to drain; an hour is what flash across the network takes.",
    ),
    Claim(
        "context-plateau", 11,
        "Context is stuck near 200k, where reading the cache takes as long as computing.",
        f"{L}, Why Context Length Has Plateaued",
        "context at the balance", "tokens", 200e3, "about", 1.5,
        named(
            without(RACK, "hbm_capacity", "isl", "osl"),
            Input("flop_per_byte", lambda v: v["peak_flops"] / v["hbm_bandwidth"], "", "of the accelerator"),
            _PROBE,
        ),
        lambda v: rooflines.balanced_context(active(v), kv_per_token(v), v["flop_per_byte"]),
        balance,
        over=("model", MIXTURES),
        note="At the 1.8 kB of the source the balance is at 200k by construction; open models cache 30 to 120 times "
        "as much and balance after a few thousand tokens. What keeps contexts short is the price, not this "
        "balance.",
    ),
    Claim(
        "million-tokens", 11,
        "Beyond the balance a token's cost grows with its context: five times at 1 M tokens.",
        f"{L}, Why Context Length Has Plateaued",
        "cost of a token at 1 M over that at 200k", "times", 5.0, "about", 1.35,
        (*_CONTEXT, Input("context", 1e6, "count", "tokens"), replace(_ATTENTION, default="dense")),
        lambda v: dearer(v, False),
        lambda v: dearer(v, True),
        over=("accelerator", ("gb200", "rubin-vr200")),
    ),
    Claim(
        "sparse-million", 11,
        "Sparse attention makes that the square root: 2.2 times at 1 M tokens.",
        f"{L}, Why Context Length Has Plateaued",
        "cost of a token at 1 M over that at 200k dense", "times", sqrt(5.0), "about", 1.35,
        (*_CONTEXT, Input("context", 1e6, "count", "tokens"), _ATTENTION),
        lambda v: dearer(v, False),
        lambda v: dearer(v, True),
        over=("accelerator", ("gb200", "rubin-vr200")),
        note="It saves reading, not room: fewer sequences share the weights.",
    ),
    Claim(
        "hundred-million", 11,
        "At 100 M tokens sparse attention costs about 22 times 200k, dense 500 times.",
        f"{L}, Why Context Length Has Plateaued",
        "cost of a token at 100 M, sparse, over that at 200k dense", "times", sqrt(500.0), "about", 1.35,
        (*_CONTEXT, Input("context", 100e6, "count", "tokens"), _ATTENTION),
        lambda v: dearer(v, False),
        lambda v: dearer(v, True),
        over=("accelerator", ("gb200", "rubin-vr200")),
        note="A cache of 100 M tokens is 3.5 TB: a rack holds a handful, and each has the weights almost to itself.",
    ),
)  # fmt: skip
