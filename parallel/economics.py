"""What a token costs: accelerators by the hour, tokens by the million, caches by the second, and prices read backwards.

Rates come from the steps of `parallel.serving.phases` and `parallel.training.step`, prices from `clusters.economics` and
`clusters.memories`; nothing here knows how fast anything is.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Final

from clusters.catalogue import Accelerator, accelerator
from clusters.economics import economics
from clusters.memories import YEAR_S, Memory, holding_usd_per_byte_s
from parallel.rooflines import leaked_kv_bytes

HOUR_S: Final = 3600.0
HOURS_PER_YEAR: Final = YEAR_S / HOUR_S
HOURS_PER_MONTH: Final = HOURS_PER_YEAR / 12.0
MILLION: Final = 1e6
ALL_IN: Final = {
    "h100-sxm": ("h100-sxm-all-in", 1.0),
    "gb200": ("gb200-all-in", 1.0),
    "rubin-vr200": ("vr200-nvl72-rack", 72.0),
}
"""Accelerators whose price with host, network and rack is published -> its figure, and how many share it."""
LIKE: Final = "h100-sxm"
"""The part whose price with everything over its price alone stands in for the others'."""
HOST: Final = (("dgx-h100-power", 8.0), ("gb300-nvl72-tray-power", 4.0))
"""Power of the host beside accelerators in boxes of eight, and in racks: the figure, and how many share it."""


def capital_usd(part: str) -> float:
    """Price of one accelerator with its share of host, network and rack; NaN where nothing is public.

    Published for some; else the part's price times what the H100's grows by (50,000 / 30,000).

    >>> capital_usd("gb200"), round(capital_usd("a100-sxm-80"))
    (70000.0, 20000)
    """
    known = economics()["capital"]
    if part in ALL_IN:
        key, many = ALL_IN[part]
        return float(known[key].value) / many
    alone, like = accelerator(part).price_usd, accelerator(LIKE).price_usd
    if alone is None or like is None:
        return float("nan")
    return alone * float(known[ALL_IN[LIKE][0]].value) / like


def power_of(part: Accelerator) -> float:
    """Power of one accelerator with its share of the host and of the building's cooling.

    >>> round(power_of(accelerator("gb200")))
    1710
    """
    hosts, pue = economics()["hosts"], float(economics()["facility"]["pue"].value)
    key, many = HOST[part.domain > 8]
    return (float(part.power_W or "nan") + float(hosts[key].value) / many) * pue


def annuity(rate: float, years: float) -> float:
    """Yearly payment for a unit of capital: ``r / (1 − (1 + r)^−n)``.

    >>> round(annuity(0.07, 5), 4), annuity(0.0, 5)
    (0.2439, 0.2)
    """
    return rate / (1.0 - (1.0 + rate) ** -years) if rate else 1.0 / years


def owned_hour_usd(capital: float, rate: float, years: float, power_W: float, usd_per_kWh: float) -> float:
    """Price of an hour of one accelerator that is owned: its capital, paid back in equal parts, and its electricity.

    >>> round(owned_hour_usd(50000, 0.07, 5, 1500, 0.08), 2)
    1.51
    """
    return capital * annuity(rate, years) / HOURS_PER_YEAR + power_W / 1e3 * usd_per_kWh


def hour_parts(
    part: str, rate: float | None = None, years: float | None = None, capital: float | None = None
) -> dict[str, float]:
    """Dollars of an hour of an owned part: its capital paid back, its electricity, its place in a building.

    Interest, lifetime, price of electricity and of colocation (per kW of IT) are the catalogue's unless others are given.

    >>> {name: round(usd, 2) for name, usd in hour_parts("h100-sxm").items()}
    {'capital': 1.5, 'electricity': 0.12, 'housing': 0.35}
    """
    known = economics()
    owned, facility = known["capital"], known["facility"]
    interest = float(owned["financing-rate"].value) if rate is None else rate
    lifetime = float(owned["lifetime"].value) if years is None else years
    power_W = power_of(accelerator(part))
    bought = capital_usd(part) if capital is None else capital
    return {
        "capital": owned_hour_usd(bought, interest, lifetime, 0.0, 0.0),
        "electricity": owned_hour_usd(0.0, 0.0, 1.0, power_W, float(facility["electricity"].value)),
        "housing": power_W / float(facility["pue"].value) / 1e3 * float(facility["colocation"].value) / HOURS_PER_MONTH,
    }


def hour_usd(part: str, rate: float | None = None, years: float | None = None, capital: float | None = None) -> float:
    """Price of an hour of an owned part: the sum of `hour_parts`.

    >>> 1.8 < hour_usd("h100-sxm") < 2.2
    True
    """
    return sum(hour_parts(part, rate, years, capital).values())


def usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float:
    """Price of a million tokens from an accelerator that makes so many a second.

    >>> usd_per_million(3.6, 1000)
    1.0
    """
    return usd_per_hour / HOUR_S / tokens_per_s * MILLION if tokens_per_s > 0 else float("inf")


def tokens_per_joule(tokens_per_s: float, power_W: float) -> float:
    """Tokens per second and watt.

    >>> tokens_per_joule(1500, 1000)
    1.5
    """
    return tokens_per_s / power_W


def memory_share(
    part: Accelerator, usd_per_GB: float, capital: float, host_bytes: float = 0.0, host_usd_per_GB: float = 0.0
) -> float:
    """Share of the capital of an accelerator that its memory takes, and its host's.

    >>> round(memory_share(accelerator("gb200"), 10.0, 70000.0), 4)
    0.0266
    """
    return (part.hbm_bytes * usd_per_GB + host_bytes * host_usd_per_GB) / 1e9 / capital


def reload_usd(kv_bytes: float, bandwidth_Bps: float, usd_per_hour: float) -> float:
    """Price of bringing cached bytes back: the time of the accelerator that waits for them.

    >>> reload_usd(1e9, 1e9, 3.6)
    0.001
    """
    return kv_bytes / bandwidth_Bps * usd_per_hour / HOUR_S


def cache_hit_usd(kv_bytes: float, held: Memory, seconds: float, lifetime_s: float, usd_per_hour: float) -> float:
    """Price of a token whose cache was held for some seconds and brought back."""
    kept = kv_bytes * seconds * holding_usd_per_byte_s(held.usd_per_byte or 0.0, lifetime_s)
    return kept + reload_usd(kv_bytes, held.bandwidth_Bps, usd_per_hour)


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """What a provider publishes, in dollars per million tokens.

    Attributes
    ----------
    input_usd, output_usd, hit_usd : uncached input, output, cached input
    step : factor of the price above `step_context` tokens (1: there is none)
    """

    input_usd: float
    output_usd: float
    hit_usd: float
    step: float = 1.0
    step_context: float = 0.0


@dataclass(frozen=True, slots=True)
class Leak:
    """What a price sheet gives away, each as (low, high).

    Attributes
    ----------
    kv_bytes_per_token : cache bytes over all layers
    decode_utilisation : share of its compute that decode uses, prefill taken to use all of its own
    hit_share : price of a cache hit over that of a miss
    """

    kv_bytes_per_token: tuple[float, float]
    decode_utilisation: float
    hit_share: float


def infer(
    sheet: PriceSheet, active_parameters: tuple[float, float], flop_per_byte: tuple[float, float], flops: float = 2.0
) -> Leak:
    """Read an architecture off a price sheet.

    The price steps where the cache takes longer to read than the weights take to multiply, `flops` per weight:
    ``kv = flops·N / (context · FLOP/byte)``. Output costs more than input by what decode leaves idle.
    Source: API Prices Leak Architecture.

    >>> leak = infer(PriceSheet(2.5, 12.5, 0.25, 1.5, 200e3), (100e9, 100e9), (300, 300), flops=1.0)
    >>> round(leak.kv_bytes_per_token[0]), leak.decode_utilisation, leak.hit_share
    (1667, 0.2, 0.1)
    """
    pairs = zip(active_parameters, reversed(flop_per_byte), strict=True)
    low, high = (
        leaked_kv_bytes(n, sheet.step_context, i, flops) if sheet.step_context else float("nan") for n, i in pairs
    )
    share = sheet.input_usd / sheet.output_usd
    return Leak((low, high), share if isfinite(share) else 0.0, sheet.hit_usd / sheet.input_usd)
