"""Constants of links: what was measured, what is borrowed, and what they predict for the published cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.calibration.links import network_hop, nvlink_hop
from clusters.tunings import (
    CONSTANTS,
    COPIES,
    LINKS,
    OPERATIONS,
    REGIMES,
    collective_s,
    lookup,
    offered,
    reduction_efficiency,
    table,
    tuning,
)
from collectives.moe import moe_exchange
from topo.errors import SpecError

KEYS = st.tuples(st.sampled_from(list(LINKS)), st.sampled_from(list(OPERATIONS)), st.sampled_from(list(REGIMES)))


@settings(max_examples=100, deadline=None)
@given(key=KEYS)
def test_every_link_operation_and_regime_has_constants_and_owns_up_to_borrowing(key: tuple[str, str, str]) -> None:
    link, op, regime = key
    found = tuning(link, op, regime)
    assert (found.model, found.note) == lookup(link, op, regime)
    own = regime in table()["constants"].get(link, {}).get(op, {})
    assert own != found.note.startswith(f"no measurement of {link} {op} {regime}")


def test_at_most_four_constants_each_entry_with_its_residuals_and_source() -> None:
    assert len(CONSTANTS) == 4
    for ops in table()["constants"].values():
        for regimes in ops.values():
            for entry in regimes.values():
                assert entry["residuals"]["n"] > 0
                assert entry["source"]
                assert entry["ranks"][0] <= entry["ranks"][1]


def test_networks_never_borrow_from_scale_up_links_nor_the_reverse() -> None:
    for link in LINKS:
        for op in OPERATIONS:
            for regime in REGIMES:
                note = lookup(link, op, regime)[1].split(";")[0]
                assert ("of nvlink" in note) <= link.startswith("nvlink") or "constants of" not in note
                if "constants of nvlink" in note:
                    assert link.startswith("nvlink")


def test_a_new_generation_takes_the_newest_measured_of_its_family() -> None:
    assert lookup("nvlink7", "all_gather")[0] == lookup("nvlink5", "all_gather")[0]
    assert lookup("ib-gdr", "all_reduce")[0] == lookup("ib-ndr", "all_reduce")[0]
    assert lookup("NVLink5", "All_Gather", "NCCL") == lookup("nvlink5", "all_gather")
    with pytest.raises(SpecError) as caught:
        lookup("carrier-pigeon", "all_scatter", "udp")
    assert len(caught.value.faults) == 3


def test_graphs_change_all_reduce_only() -> None:
    assert lookup("nvlink4", "all_gather", "graph")[0] == lookup("nvlink4", "all_gather")[0]
    assert lookup("nvlink4", "all_reduce", "graph")[0] != lookup("nvlink4", "all_reduce")[0]
    assert offered("all_reduce", "graph") != offered("all_reduce")
    assert offered("reduce_scatter") == ("ring",)
    with pytest.raises(SpecError, match="moe_exchange"):
        offered("moe_dispatch", "low-latency")


def test_reduction_efficiency_is_that_of_nccl_and_one_elsewhere() -> None:
    assert [reduction_efficiency(link) for link in ("nvlink3", "nvlink4", "nvlink5", "roce-400")] == [1, 0.85, 0.74, 1]


def test_all_gather_latency_stays_linear_in_the_ranks() -> None:
    """GB200, 1 KiB: 47 steps of 48 ranks against 1 of 2."""
    path = (nvlink_hop("nvlink5", lookup("nvlink5", "all_gather")[0]),)
    base_s = path[0].model.base_s
    two, many = collective_s("all_gather", 1024.0, np.array([[2.0, 48.0]]), path) - base_s
    assert 30 < many / two < 47


def test_large_transfers_cost_no_less_than_the_wire() -> None:
    for link in ("nvlink3", "nvlink4", "nvlink5"):
        for op in ("all_gather", "reduce_scatter", "all_to_all"):
            path = (nvlink_hop(link, lookup(link, op)[0]),)
            seconds = collective_s(op, 2.0**30, [8.0], path)
            assert seconds > 7 / 8 * 2.0**30 / path[0].bandwidth_Bps


def _exchange_us(path, members, row: float, regime: str) -> float:
    return 1e6 * float(moe_exchange(128, row, 8, 256, members, path, copies=COPIES[regime])["total_s"])


def test_sixty_four_ranks_over_infiniband_come_within_a_quarter_of_deepep() -> None:
    """H100, NDR, EP64, 128 tokens, hidden 7168, top 8: dispatch FP8 166.8 us, combine BF16 304.7 us."""
    took = 0.0
    for phase, row in (("dispatch", 7168 + 7168 / 128 * 4), ("combine", 2 * 7168)):
        inside, between = (lookup(link, f"moe_{phase}", "low-latency")[0] for link in ("nvlink4", "ib-ndr"))
        path = (nvlink_hop("nvlink4", inside), network_hop("ib-ndr", between, 50e9))
        took += _exchange_us(path, [8, 64], row, "low-latency")
    assert took == pytest.approx(166.8 + 304.7, rel=0.1)


def test_one_sided_exchange_on_a_rack_comes_within_a_quarter_of_its_table() -> None:
    """GB200 NVL72, EP64, 128 tokens, BF16: dispatch 41.6 us, combine 44.5 us."""
    took = 0.0
    for phase in ("dispatch", "combine"):
        path = (nvlink_hop("nvlink5", lookup("nvlink5", f"moe_{phase}", "one-sided")[0]),)
        took += _exchange_us(path, [64], 2 * 7168, "one-sided")
    assert took == pytest.approx(41.6 + 44.5, rel=0.1)
