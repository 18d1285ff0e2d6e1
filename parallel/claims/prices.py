"""What a token costs on each generation, and what is asked for it (parts 10 and 14 of the blackboard)."""

from typing import Any, Final

import numpy as np

from clusters import measurements
from clusters.economics import listing, listings
from parallel import economics, rooflines
from parallel.claims.claim import Chart, Claim, Input, Line, Values
from parallel.claims.fleets import FLEET, OLD_NEW, fleet, fleet_rate
from parallel.claims.inputs import named
from parallel.claims.machines import (
    active,
    frontier,
    model_of,
    part_of,
    peak_of,
    rate_of,
    serve_work,
    spec_of,
)
from parallel.claims.passes import NVIDIA, L, full_rate, two_terms_rate

N: Final = "Satya Nadella on Microsoft's AGI plan"
SPEEDS: Final = (20.0, 50.0, 100.0)
"""Tokens per second that one user gets."""
MEASURED: Final = {
    "dsv3-prod-prefill-no-cache": "h100-sxm",
    "dsv3-prod-decode": "h100-sxm",
    "sglang-h100-prefill-4k": "h100-sxm",
    "sglang-h100-decode-2k": "h100-sxm",
    "sglang-gb200-prefill-fp8": "gb200",
    "sglang-gb200-decode-fp8": "gb200",
}
"""Published measurements of DeepSeek-V3 at work -> the part whose hour prices them; an H800 at the hour of an H100."""
SHOWN: Final = ("deepseek-2025-02", "deepseek-2025-09", "deepseek-2025-12")
"""Listings whose price of output is drawn."""
NODE: Final = 8.0
"""Accelerators of the nodes that most of them count."""


def sold(v: Values, tokens_per_s: float) -> float:
    """Return dollars per million tokens of a rate, when some hours stay unsold."""
    return economics.usd_per_million(v["hour"], tokens_per_s * v["utilisation"])


def request_usd(v: Values, input_usd: float, output_usd: float) -> float:
    """Return dollars for one request at prices per million tokens."""
    return float(v["isl"] * input_usd + v["osl"] * output_usd) / economics.MILLION


def asked_usd(v: Values) -> float:
    """Return what the listing asks for one request."""
    return request_usd(v, v["input_price"], v["output_price"])


def cost_usd(v: Values) -> float:
    """Return what one request costs: prompt and answer each on the best split within its limit."""
    return request_usd(v, sold(v, rate_of("prefill", v)), sold(v, full_rate(v, v["tpot"])))


def simple_cost_usd(v: Values) -> float:
    """Return what one request costs with prompts at the peak and answers by the two terms."""
    prompts = 1.0 / rooflines.compute_s(1.0, active(v), v["peak_flops"])
    return request_usd(v, sold(v, prompts), sold(v, two_terms_rate(v, v["tpot"])))


# --- tables ---------------------------------------------------------------------------------------------------------


def costs(v: Values) -> list[dict[str, Any]]:
    """List the cost of a million tokens of input and of output by part and interactivity, and what makes up an hour."""
    rows = []
    for part in NVIDIA:
        one = {**fleet(v, part, str(v["precision"])), "hour": economics.hour_usd(part)}
        hour = {f"{name}_usd": usd for name, usd in economics.hour_parts(part).items()}
        prompts = rate_of("prefill", one)
        for speed in SPEEDS:
            answers = fleet_rate(v, part, str(v["precision"]), 1.0 / speed)
            rows.append(
                {
                    "part": part,
                    "speed": speed,
                    "input_rate": prompts,
                    "output_rate": answers or None,
                    "input_usd": sold(one, prompts),
                    "output_usd": sold(one, answers) if answers else None,
                    **hour,
                }
            )
    return rows


def asked(v: Values) -> list[dict[str, Any]]:
    """List public prices with their dates, and each over the cost of the request."""
    cost = cost_usd(v)
    return [
        {
            "listing": one.name,
            "model": one.model,
            "since": one.since,
            "input_usd": one.input_usd,
            "hit_usd": one.hit_usd,
            "output_usd": one.output_usd,
            "over_cost": request_usd(v, one.input_usd, one.output_usd) / cost,
        }
        for one in listings().values()
    ]


def measured(v: Values) -> list[dict[str, Any]]:
    """List what others measured, at the hour of the same table: a check from outside."""
    held = {case["id"]: case for case in measurements.read_json("inference_cases.json")["cases"]}
    rows = []
    for name, part in MEASURED.items():
        case = held[name]
        rate = float(case["value"]) / (NODE if "node" in str(case["units"]) else 1.0)
        one = {**v, "hour": economics.hour_usd(part)}
        phase = "prefill" if "prefill" in name else "decode"
        rows.append({"measurement": name, "phase": phase, "at_hour_of": part, "rate": rate, "usd": sold(one, rate)})
    return rows


def speeds(v: Values) -> Chart:
    """Return the cost of output against the speed that one user gets, by part, between the public prices."""
    lines = []
    for part, kind in zip(NVIDIA, "abc", strict=True):
        one = fleet(v, part, str(v["precision"]))
        seconds, rates = frontier(model_of(one), spec_of(one), serve_work(one))
        own = {**v, "hour": economics.hour_usd(part)}
        lines.append(Line(part, 1.0 / seconds, np.array([sold(own, rate) for rate in rates]), kind))
    asked = {f"{one.host}, {one.since}": one.output_usd for one in listings().values() if one.name in SHOWN}
    title = "Cost of a million output tokens against the speed that one user gets, and public prices"
    return Chart(title, "tokens/s", "USD", tuple(lines), levels=asked, longest=150.0)


_SOLD: Final = Input("utilisation", 0.8, "", "share of the hours that is sold: DeepSeek had 227 of 278 nodes at work")

CLAIMS: Final = (
    Claim(
        "api-price", 10,
        "An API price covers the cost of its tokens.",
        f"{L}, API Prices Leak Architecture; DeepSeek API documentation, price list of 5 September 2025",
        "price of a request over its cost", "times", 1.0, "at least", 1.0,
        named(
            f"{FLEET} ttft hour", _SOLD,
            Input("listing", "deepseek-2025-09", says="an entry of clusters/data/prices.yaml"),
            Input("input_price", lambda v: listing(str(v["listing"])).input_usd, "", "USD per million input tokens"),
            Input("output_price", lambda v: listing(str(v["listing"])).output_usd, "", "USD per million output tokens"),
        ),
        lambda v: asked_usd(v) / simple_cost_usd(v),
        lambda v: asked_usd(v) / cost_usd(v),
        over=("accelerator", NVIDIA),
        note="Cost is of accelerators that are owned, fed and housed, all prompts computed; staff, research, idle "
        "replicas and free users are not in it.",
    ),
    Claim(
        "generation-dollars", 14,
        "Tokens per dollar decide: the dearer machine makes the cheaper token.",
        f"{N}, tokens per dollar per watt",
        "tokens per dollar over the generation before", "times", 1.0, "at least", 1.0,
        OLD_NEW,
        lambda v: _flops_per_usd(v, "new") / _flops_per_usd(v, "old"),
        lambda v: _tokens_per_usd(v, "new") / _tokens_per_usd(v, "old"),
        over=("tpot", (0.1, 0.05, 0.02)),
        note="Decode alone; `podscale claim api-price` prices prompts as well, and says what an hour is made of.",
    ),
)  # fmt: skip


def _flops_per_usd(v: Values, which: str) -> float:
    """Peak of a part over the price of its hour."""
    part, precision = str(v[which]), str(v[f"{which}_precision"])
    return peak_of(part_of({"accelerator": part}), precision) / economics.hour_usd(part)


def _tokens_per_usd(v: Values, which: str) -> float:
    """Decode tokens of a part over the price of its hour."""
    part, precision = str(v[which]), str(v[f"{which}_precision"])
    return fleet_rate(v, part, precision, v["tpot"]) / economics.hour_usd(part)
