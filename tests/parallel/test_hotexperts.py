"""Loads of experts: shares, copies, packing, and the busiest rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.hotexperts import BALANCED, UNTOLD, HotExperts, copied, fitted_skew, packed, popular_shares, zipf_shares
from parallel.routing import busiest_rows
from parallel.shapes import Moe
from topo.errors import SpecError


def test_even_loads_are_no_burden_anywhere() -> None:
    assert [BALANCED.busiest(256, ranks) for ranks in (1, 8, 256)] == [1.0, 1.0, 1.0]
    assert [HotExperts(skew=0.0).busiest(256, ranks) for ranks in (1, 8, 256)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("ranks", [8, 32, 128])
def test_popular_experts_in_any_order_burden_the_busiest_rank_as_drawn(ranks: int) -> None:
    rng = np.random.default_rng(3)
    loads = rng.gamma(1.0 / 0.8**2, size=(4_000, ranks, 256 // ranks)).sum(axis=2)
    drawn = (loads.max(axis=1) / loads.mean(axis=1)).mean()
    moe = Moe(experts=256, topk=1, intermediate=1)
    assert float(busiest_rows(moe, 1e9, ranks, 0.8)) * ranks / 1e9 == pytest.approx(drawn, rel=0.03)


def test_a_balancer_evens_popular_experts_out_while_a_rank_has_some_to_give() -> None:
    alone, packs, copies = (HotExperts(skew=1.0, copies=count).busiest(256, 64) for count in (None, 0, 32))
    assert alone == 1.0
    assert 1.0 <= copies < 1.1 < packs


def test_loads_of_ranks_are_those_that_tensorrt_llm_counted() -> None:
    """DeepSeek-R1, 1,024 rows a rank and step on average of 58 layers (NVIDIA/TensorRT-LLM, examples/wide_ep/ep_load_balancer).

    As numbered, 32 ranks differ by 0.480 of the mean and the busiest has 2.56 times it; under a balancer with 32 copies, the
    busiest of 36 has 1.115 times it. The popularity is fitted to times per token, not to these.
    """
    moe, tokens = Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4), 1024 * 32 / 8
    narrow = fitted_skew() / np.sqrt(256 / 32)
    assert narrow == pytest.approx(0.480, rel=0.1)
    assert float(busiest_rows(moe, tokens, 32, fitted_skew())) / 1024 == pytest.approx(2.56, rel=0.2)
    assert float(HotExperts(copies=32).busiest_rows(moe, 1024 * 36 / 8, 36)) / 1024 == pytest.approx(1.115, rel=0.05)


def test_wide_expert_parallelism_without_a_balancer_loses_what_sglang_measured() -> None:
    """Speedups by EPLB with 32 copies: 1.49 in prefill on 32 ranks, 2.54 in decode on 72 (LMSYS, 2025-05-05).

    Of the time that experts and exchange take, which is not all of prefill.
    """
    moe = Moe(experts=256, topk=8, intermediate=1)
    prefill, decode = (float(busiest_rows(moe, 1e6 * ranks, ranks, fitted_skew())) / 8e6 for ranks in (32, 72))
    assert 1.49 < prefill < 2.3
    assert decode == pytest.approx(2.54, rel=0.25)


def test_where_nothing_is_said_experts_stay_in_a_box_and_are_even_across_boxes() -> None:
    assert UNTOLD.busiest(256, 8) > 1.1
    assert UNTOLD.busiest(256, 16) == 1.0


def test_popularity_leaves_experts_idle_and_its_shares_are_all_the_rows() -> None:
    moe = Moe(experts=256, topk=8, intermediate=1)
    even, uneven = (float(HotExperts(skew=c).busiest_hit(moe, 64, 1)) for c in (0.0, fitted_skew()))
    assert uneven < even < 256
    shares = popular_shares(256, fitted_skew())
    assert shares.sum() == pytest.approx(1.0)
    assert shares.std() / shares.mean() == pytest.approx(fitted_skew(), rel=0.05)


@given(st.integers(1, 100_000), st.sampled_from([1, 4, 8, 32, 64]), st.sampled_from([None, 0, 32]))
@settings(max_examples=50, deadline=None)
def test_the_busiest_rank_has_more_rows_than_chance_gives_it(tokens: int, ranks: int, copies: int | None) -> None:
    moe = Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4)
    rows = [float(hot.busiest_rows(moe, tokens, ranks)) for hot in (BALANCED, HotExperts(copies=copies))]
    assert tokens * 8 / ranks <= rows[0] * (1 + 1e-9)
    assert rows[0] <= rows[1] * (1 + 1e-9)


def test_what_was_measured_stands_as_it_is_and_one_rank_has_it_all() -> None:
    assert HotExperts(measured=1.4).busiest(256, 32) == 1.4
    assert HotExperts(measured=1.4).busiest(256, 1) == HotExperts(zipf=1.0).busiest(256, 1) == 1.0


def test_one_expert_to_a_rank_puts_the_hottest_alone() -> None:
    shares = zipf_shares(64, 0.8)
    assert HotExperts(zipf=0.8).busiest(64, 64) == pytest.approx(float(shares[0]) * 64)
    assert HotExperts(zipf=0.8, copies=0).busiest(64, 64) == pytest.approx(float(shares[0]) * 64)


def test_copies_and_packing_by_hand() -> None:
    assert copied(np.array([0.5, 0.3, 0.2]), 2) == pytest.approx([0.25, 0.25, 0.15, 0.15, 0.2])
    assert packed([0.25, 0.25, 0.2, 0.15, 0.15, 0.0], 2) == pytest.approx([0.45, 0.55])


@given(st.floats(0.1, 1.5), st.sampled_from([8, 16, 32, 64]))
@settings(max_examples=30, deadline=None)
def test_a_balancer_and_its_copies_only_help(zipf: float, ranks: int) -> None:
    alone, packs, copies = (HotExperts(zipf=zipf, copies=count).busiest(256, ranks) for count in (None, 0, 64))
    assert 1.0 - 1e-12 <= copies <= packs + 1e-9
    assert packs <= alone + 1e-9


@given(st.floats(0.0, 2.0), st.integers(0, 64))
@settings(max_examples=30, deadline=None)
def test_copies_share_out_every_row_once(zipf: float, copies: int) -> None:
    loads = copied(zipf_shares(64, zipf), copies)
    assert len(loads) == 64 + copies
    assert sum(loads) == pytest.approx(1.0)
    assert sum(packed(loads, 8)) == pytest.approx(1.0)


def test_hotter_experts_burden_more() -> None:
    found = [HotExperts(zipf=exponent).busiest(256, 32) for exponent in (0.2, 0.6, 1.0)]
    assert found == sorted(found)
    assert HotExperts(zipf=0.6).busiest_of(256, np.array([8.0, 32.0])).tolist() == [
        HotExperts(zipf=0.6).busiest(256, 8),
        found[1],
    ]


def test_every_fault_of_a_load_is_told() -> None:
    with pytest.raises(SpecError) as error:
        HotExperts(zipf=-1.0, measured=0.5, copies=-1)
    assert {fault.field for fault in error.value.faults} == {"zipf", "imbalance", "expert_copies"}
