"""Loads of experts: shares, copies, packing, and the busiest rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.hotexperts import EVEN, HotExperts, copied, packed, zipf_shares
from topo.errors import SpecError


def test_even_loads_are_no_burden_anywhere() -> None:
    assert HotExperts(zipf=0.0) == EVEN
    assert [EVEN.busiest(256, ranks) for ranks in (1, 8, 256)] == [1.0, 1.0, 1.0]


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
