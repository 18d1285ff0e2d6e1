"""Caches in tiers: hand values, limits, and an exact simulation of a least-recently-used list as the oracle."""

import heapq
import math
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import read_model
from parallel.serving.hierarchy import Reuse, Tier, Visit, characteristic_s, found, held_s, money, reload_s
from parallel.spread import Spread

VISIT = Visit(stored_bytes=1e9, read_bytes=0.8e9, stored_tokens=1000.0)


def tier(name: str, size_bytes: float, rate_Bps: float = 1e13, kind: str = "host", usd: float | None = 10e-9) -> Tier:
    return Tier(name, kind, size_bytes, rate_Bps, rate_Bps / 10.0, None, usd)


def simulated(reuse: Reuse, rate: float, capacities: list[int], requests: int) -> list[float]:
    """Hits of lists of so many caches, each the least recently used dropped, counted request by request."""
    rng = np.random.default_rng(1)
    arrivals: list[tuple[float, int | None]] = [
        (float(t), None) for t in np.cumsum(rng.exponential(1 / (rate * (1 - reuse.returns)), requests))
    ]
    heapq.heapify(arrivals)
    lists: list[OrderedDict[int, None]] = [OrderedDict() for _ in capacities]
    hits, seen, session = np.zeros(len(capacities)), 0, 0
    warm = 2 * requests // 3
    for count in range(requests):
        now, who = heapq.heappop(arrivals)
        if who is None:
            session += 1
            who = session
        for place, (held, capacity) in enumerate(zip(lists, capacities, strict=True)):
            if who in held:
                hits[place] += count >= warm
                held.move_to_end(who)
            else:
                held[who] = None
                if len(held) > capacity:
                    held.popitem(last=False)
        seen += count >= warm
        if rng.random() < reuse.returns:
            pause = reuse.revisit.median * math.exp(reuse.revisit.sigma * rng.standard_normal())
            heapq.heappush(arrivals, (now + pause, who))
    return [float(share) for share in hits / seen]


@pytest.mark.parametrize("returns", [0.5, 0.8])
def test_ches_time_gives_the_hits_of_an_exact_list(returns: float) -> None:
    reuse, rate, capacities = Reuse(0, 800, returns, Spread(60.0, 300.0)), 20.0, [400, 2000]
    tiers = [tier("one", 400e9), tier("two", 1600e9)]
    rows = found(reuse, VISIT, tiers, rate)
    exact = simulated(reuse, rate, capacities, 60_000)
    assert rows[0].hits == pytest.approx(exact[0], abs=0.015)
    assert rows[0].hits + rows[1].hits == pytest.approx(exact[1], abs=0.015)


def test_everything_is_found_where_everything_fits() -> None:
    reuse = Reuse(0, 800, 0.75, Spread(values=(10.0, 20.0)))
    [row] = found(reuse, VISIT, [tier("all", 1e18)], 1.0)
    assert row.hits == pytest.approx(0.75)
    assert row.read_load == pytest.approx(0.75 * 0.8e9 / 1e13)


def test_the_memory_that_is_full_holds_what_it_can_hold() -> None:
    reuse = Reuse(0, 800, 1.0, Spread(60.0, 60.0))
    rows = found(reuse, VISIT, [tier("small", 100e9), tier("large", 1e15)], 10.0)
    assert rows[0].held_bytes == pytest.approx(100e9)
    assert rows[0].hits == 0.0  # all come back after a minute, and ten seconds' worth fits
    assert rows[1].held_bytes == pytest.approx(500e9)
    assert (rows[1].hits, rows[1].until_s) == (1.0, math.inf)


def test_what_a_memory_cannot_read_is_computed_again() -> None:
    reuse = Reuse(0, 800, 1.0, Spread(60.0, 60.0))
    [row] = found(reuse, VISIT, [tier("slow", 1e18, rate_Bps=2e9)], 10.0)
    assert row.read_load == pytest.approx(4.0)
    assert row.hits == pytest.approx(0.25)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.05, 0.99),
    st.floats(1.0, 1e4),
    st.floats(1.0, 20.0),
    st.lists(st.floats(1e9, 1e15), min_size=1, max_size=4),
)
def test_more_memory_never_finds_less_and_shares_stay_shares(
    returns: float, median: float, ratio: float, sizes: list[float]
) -> None:
    reuse = Reuse(0, 800, returns, Spread(median, median * ratio))
    rows = found(reuse, VISIT, [tier(str(n), size, 1e18) for n, size in enumerate(sizes)], 5.0)
    larger = found(reuse, VISIT, [tier(str(n), 2 * size, 1e18) for n, size in enumerate(sizes)], 5.0)
    assert all(row.hits >= 0 and row.held_bytes <= row.tier.capacity_bytes * (1 + 1e-6) for row in rows)
    assert sum(row.hits for row in rows) <= returns + 1e-9
    assert sum(row.hits for row in larger) >= sum(row.hits for row in rows) - 1e-9


@settings(max_examples=50, deadline=None)
@given(st.floats(1e9, 1e16), st.floats(0.01, 100.0), st.floats(0.0, 0.99))
def test_the_characteristic_time_fills_the_memory(size: float, rate: float, returns: float) -> None:
    reuse = Reuse(0, 800, returns, Spread(60.0, 900.0))
    until = characteristic_s(size, rate, 1e9, reuse)
    if until < 1e12:
        assert rate * 1e9 * held_s(reuse, until) == pytest.approx(size, rel=1e-6)


def test_bytes_of_a_visit_are_those_of_the_model() -> None:
    """Llama 3.1 70B: 327,680 bytes a token; the shared head is held once."""
    visit = Visit.of(read_model("llama-3.1-70b"), Reuse(1000, 5000, 1.0, Spread()), 8000, 500, 2.0)
    assert visit.read_bytes == 5000 * 327_680
    assert visit.stored_bytes == 7500 * 327_680
    assert visit.stored_tokens == 7500


def test_hbm_needs_no_reload_and_others_take_latency_and_bytes() -> None:
    assert reload_s(tier("hbm", 1e9, kind="hbm"), 1e9) == 0.0
    assert reload_s(Tier("disk", "disk", 1e12, 1e9, 1e9, 0.01, None), 2e9) == pytest.approx(2.01)


def test_a_cache_pays_until_holding_it_has_cost_its_computation() -> None:
    """At 10 USD/GB over five years a gigabyte costs 0.000228 USD an hour."""
    year = 365.25 * 86_400
    reuse = Reuse(0, 800, 1.0, Spread(60.0, 60.0))
    [row] = found(reuse, VISIT, [tier("host", 1e12)], 10.0)
    told = money(row, VISIT, 10.0, 0.001, 5 * year)
    assert told["usd_per_token_hour"] == pytest.approx(10 / (5 * year) * 3600 / 1000)
    assert told["break_even_s"] == pytest.approx(0.001 / (10 / (5 * year)))
    assert told["saves_usd_per_hour"] == pytest.approx(36.0)
    assert told["worth"] is True
    assert (
        money(found(reuse, VISIT, [tier("free", 1e12, usd=None)], 10.0)[0], VISIT, 10.0, 0.001, year)["worth"] is None
    )
