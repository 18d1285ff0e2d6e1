"""Constants of links: what was measured, what is borrowed, and what they predict for the published cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.calibration import link_fits
from clusters.calibration.exchanges import network_hop
from clusters.calibration.exchanges import nvlink_hop as exchange_hop
from clusters.calibration.link_fits import nvlink_hop
from clusters.exchanges import KERNELS, workers
from clusters.tunings import (
    CONSTANTS,
    LINKS,
    OPERATIONS,
    REGIMES,
    SAME,
    collective_s,
    lookup,
    offered,
    reduction_efficiency,
    table,
    tuning,
)
from collectives.algorithms import ALGORITHMS
from collectives.moe import moe_exchange
from collectives.path import Hop
from topo.errors import SpecError

KEYS = st.tuples(st.sampled_from(list(LINKS)), st.sampled_from(list(OPERATIONS)), st.sampled_from(list(REGIMES)))


@settings(max_examples=100, deadline=None)
@given(key=KEYS)
def test_every_link_operation_and_regime_has_constants_and_owns_up_to_borrowing(key: tuple[str, str, str]) -> None:
    link, op, regime = key
    found = tuning(link, op, regime)
    assert (found.model, found.note) == lookup(link, op, regime)
    held = table()["constants"].get(link, {}).get(op, {})
    own = regime in held or SAME.get(regime) in held
    assert own != found.note.startswith(f"no measurement of {link} {op} {regime}")


def test_at_most_four_constants_each_entry_with_its_residuals_and_source() -> None:
    assert len(CONSTANTS) == 4
    for link, ops in table()["constants"].items():
        for op, regimes in ops.items():
            for regime, entry in regimes.items():
                if not op.startswith("moe"):
                    fourth = [key for key in ("ramp_s", "bulk_s") if entry.get(key)]
                    assert len(fourth) <= 1, (link, op, regime)
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
    assert lookup("nvlink5", "all_reduce", "graph")[0].beyond == lookup("nvlink5", "all_reduce", "nccl-2.28")[0]
    assert offered("all_reduce", "graph") != offered("all_reduce")
    assert offered("reduce_scatter") == ("ring",)
    with pytest.raises(SpecError, match="moe_exchange"):
        offered("moe_dispatch", "low-latency")


def test_reduction_efficiency_is_that_of_nccl_and_one_elsewhere() -> None:
    assert [reduction_efficiency(link) for link in ("nvlink3", "nvlink4", "nvlink5", "roce-400")] == [1, 0.81, 0.74, 1]


def test_versions_that_agree_are_one_and_those_that_do_not_differ() -> None:
    assert lookup("nvlink4", "all_reduce", "nccl-2.29") == lookup("nvlink4", "all_reduce")
    old, new = (lookup("nvlink5", "all_to_all", version) for version in ("nccl-2.28", "nccl-2.29"))
    assert old[0] != new[0]
    assert old[1] == new[1] == ""


def seconds_of(regime: str, link: str, ranks: float, *sizes: float) -> list[float]:
    """All-reduce inside a domain, in the regime's own constants and rules."""
    hop = nvlink_hop(link, lookup(link, "all_reduce", regime)[0])
    return collective_s("all_reduce", np.array(sizes), [ranks], (hop,), regime).tolist()


@pytest.mark.parametrize(
    ("regime", "link", "ranks", "switch"),
    [("graph", "nvlink4", 8, 2.0**18), ("graph", "nvlink5", 4, 2.0**19), ("trtllm", "nvlink4", 4, 2.0**21)],
)
def test_engines_switch_kernels_by_their_own_rules(regime: str, link: str, ranks: float, switch: float) -> None:
    """vLLM: two shots from 256 KiB on eight ranks, from 512 KiB on four; TensorRT-LLM 1.3 on Hopper from 2 MiB on four."""
    before, after, twice = seconds_of(regime, link, ranks, switch - 1, switch, 2 * switch)
    hop = (nvlink_hop(link, lookup(link, "all_reduce", regime)[0]),)
    for name, found, size in (("one_shot", before, switch - 1), ("two_shot", after, switch)):
        assert found == pytest.approx(float(ALGORITHMS["all_reduce"][name].fn(size, [ranks], hop)))
    assert twice > after


def test_the_table_of_an_older_engine_may_switch_back() -> None:
    """TensorRT-LLM 1.2, two H100, hidden size 4096: two shots at 2 and at 8 tokens, one at 4."""
    two, four, eight = seconds_of("trtllm-1.2", "nvlink4", 2, 2.0**14, 2.0**15, 2.0**16)
    assert four < two < eight


def test_beyond_eight_ranks_engines_have_no_kernels_of_their_own() -> None:
    assert seconds_of("graph", "nvlink5", 16, 4096.0) == seconds_of("nccl-2.28", "nvlink5", 16, 4096.0)


@pytest.mark.parametrize(
    ("regime", "largest"),
    [("graph", 2.0**23), ("vllm", 2.0**26 - 1), ("sglang", 2.0**24), ("trtllm", 2.0**23 - 1)],
)
def test_beyond_their_sizes_and_across_nodes_kernels_of_frameworks_are_nccl(regime: str, largest: float) -> None:
    size = np.array([4096.0, largest, largest + 1, 2.0**30])
    own, nccl = (
        collective_s("all_reduce", size, [8.0], (nvlink_hop("nvlink4", lookup("nvlink4", "all_reduce", how)[0]),), how)
        for how in (regime, "nccl")
    )
    assert (own == nccl).tolist() == [False, False, True, True]
    roads = [
        (nvlink_hop("nvlink4", lookup("nvlink4", "all_reduce", how)[0]), between_nodes(how)) for how in (regime, "nccl")
    ]
    across, nccl = (
        collective_s("all_reduce", 4096.0, [8.0, 16.0], road, how)
        for road, how in zip(roads, (regime, "nccl"), strict=True)
    )
    assert across == nccl


def between_nodes(regime: str) -> Hop:
    return link_fits.network_hop("ib-ndr", lookup("ib-ndr", "all_reduce", regime)[0], 50e9)


def test_nvls_at_five_to_eight_hoppers_comes_close_to_what_was_published() -> None:
    """NCCL issue 1455, 8 GiB: 258, 265, 270 and 273 GB/s; a ring of eight 209 GB/s."""
    model = lookup("nvlink4", "all_reduce")[0]
    ranks = np.array([[5.0, 6.0, 7.0, 8.0]])
    added = 2.0**33 / collective_s("all_reduce", 2.0**33, ranks, (nvlink_hop("nvlink4", model),))
    assert added == pytest.approx(np.array([258e9, 265e9, 270e9, 273e9]), rel=0.03)
    ring = 2.0**33 / collective_s("all_reduce", 2.0**33, [8.0], (nvlink_hop("nvlink4", model, adds=False),))
    assert ring == pytest.approx(209e9, rel=0.07)


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


def _exchange_us(path, members, row: float, regime: str, part: str) -> float:
    kernel, busy = KERNELS[regime], workers(regime, part, 256)
    rules = {"copies": kernel.copies, "workers": busy, "in_turn": kernel.in_turn}
    return 1e6 * float(moe_exchange(128, row, 8, 256, members, path, **rules)["total_s"])


def test_sixty_four_ranks_over_infiniband_come_within_a_fiftieth_of_deepep() -> None:
    """H100, NDR, EP64, 128 tokens, hidden 7168, top 8: dispatch FP8 166.8 us, combine BF16 304.7 us."""
    took = 0.0
    for phase, row in (("dispatch", 7168 + 7168 / 128 * 4), ("combine", 2 * 7168)):
        inside, between = (lookup(link, f"moe_{phase}", "low-latency")[0] for link in ("nvlink4", "ib-ndr"))
        path = (exchange_hop("h100-sxm", inside), network_hop(between))
        took += _exchange_us(path, [8, 64], row, "low-latency", "h100-sxm")
    assert took == pytest.approx(166.8 + 304.7, rel=0.02)


def test_one_sided_exchange_on_a_rack_comes_close_to_its_table() -> None:
    """GB200 NVL72, EP64, 128 tokens, BF16: dispatch 41.6 us, combine 44.5 us."""
    took = 0.0
    for phase in ("dispatch", "combine"):
        path = (exchange_hop("gb200", lookup("nvlink5", f"moe_{phase}", "one-sided")[0]),)
        took += _exchange_us(path, [64], 2 * 7168, "one-sided", "gb200")
    assert took == pytest.approx(41.6 + 44.5, rel=0.03)
