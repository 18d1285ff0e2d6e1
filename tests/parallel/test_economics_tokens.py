"""What a token costs: hand values, limits, and signs; prices come from the catalogue, rates from whoever asks."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.catalogue import accelerator
from clusters.memories import YEAR_S, memory
from parallel import economics
from parallel.economics import PriceSheet

SHEET = PriceSheet(input_usd=2.5, output_usd=12.5, hit_usd=0.25, step=1.5, step_context=200e3)


def test_an_hour_pays_its_capital_back() -> None:
    hour = economics.owned_hour_usd(50_000, 0.0, 5, 0.0, 0.08)
    assert hour * 5 * economics.HOURS_PER_YEAR == pytest.approx(50_000)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-4, 0.3), st.floats(1, 30))
def test_an_annuity_is_worth_its_capital(rate: float, years: float) -> None:
    paid = economics.annuity(rate, years)
    discounted = paid * (1 - (1 + rate) ** -years) / rate
    assert discounted == pytest.approx(1.0)
    assert paid >= 1 / years


def test_cheaper_money_and_a_longer_life_make_a_cheaper_hour() -> None:
    short, cheap, long = (economics.hour_usd("gb200", *terms) for terms in ((0.07, 5), (0.055, 5), (0.055, 12)))
    assert long < cheap < short


def test_the_price_with_everything_is_above_the_part_alone() -> None:
    for part in ("h100-sxm", "gb200", "rubin-vr200", "a100-sxm-80", "mi300x"):
        assert economics.capital_usd(part) > (accelerator(part).price_usd or 0.0)


def test_a_part_without_a_price_has_none_with_everything() -> None:
    assert math.isnan(economics.capital_usd("tpu-v7"))


def test_a_part_draws_more_with_its_host_and_the_building() -> None:
    for part in ("h100-sxm", "gb200"):
        assert economics.power_of(accelerator(part)) > 1.1 * (accelerator(part).power_W or 0.0)


def test_twice_the_tokens_are_half_as_dear_and_none_cost_everything() -> None:
    assert economics.usd_per_million(4.0, 2000) == economics.usd_per_million(4.0, 1000) / 2
    assert economics.usd_per_million(4.0, 0.0) == math.inf


def test_a_cache_hit_is_reading_and_holding() -> None:
    held = memory("host-ddr-pcie5")
    at_once = economics.cache_hit_usd(70e3, held, 0.0, 5 * YEAR_S, 3.0)
    later = economics.cache_hit_usd(70e3, held, 3600.0, 5 * YEAR_S, 3.0)
    assert at_once == economics.reload_usd(70e3, held.bandwidth_Bps, 3.0) < later


def test_the_memory_of_a_gb200_is_a_few_per_cent_of_its_price() -> None:
    assert economics.memory_share(accelerator("gb200"), 10.0, 70_000.0) == pytest.approx(186 * 10 / 70_000)


def test_a_price_sheet_gives_the_lectures_architecture_away() -> None:
    leak = economics.infer(SHEET, (100e9, 100e9), (300, 300), flops=1.0)
    assert leak.kv_bytes_per_token == pytest.approx((1667, 1667), rel=1e-3)
    assert (leak.decode_utilisation, leak.hit_share) == (0.2, 0.1)


def test_ranges_in_give_ranges_out() -> None:
    low, high = economics.infer(SHEET, (50e9, 200e9), (180, 310)).kv_bytes_per_token
    assert high / low == pytest.approx(200 / 50 * 310 / 180)


def test_a_sheet_without_a_step_does_not_tell_the_cache() -> None:
    leak = economics.infer(PriceSheet(1.0, 4.0, 0.1), (1e9, 1e9), (300, 300))
    assert math.isnan(leak.kv_bytes_per_token[0])
    assert leak.decode_utilisation == 0.25
