"""One collective on one cluster: both prices, their terms, the bound, and what wiring does to them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import build
from clusters.collective import BUS, collective, graph_bound
from clusters.spec import load, parse, with_
from clusters.tunings import lookup
from topo.errors import SpecError

RACK = "gb200-nvl72"


@pytest.mark.parametrize("op", ["all_gather", "all_reduce", "reduce_scatter"])
@pytest.mark.parametrize("size_bytes", [2.0**16, 2.0**28])
def test_a_ring_on_one_switch_costs_the_same_by_closed_form_and_on_the_graph(op: str, size_bytes: float) -> None:
    rack = build(load(RACK))
    closed = collective(rack, op, 64, size_bytes, "ring", "closed")
    for rung in ("stepwise", "dependency", "flow"):
        on_graph = collective(rack, op, 64, size_bytes, "ring", rung)
        assert on_graph["fidelity"] == rung
        assert on_graph["time_s"] == pytest.approx(closed["time_s"], rel=1e-6)


def test_a_ring_over_boxes_leaves_by_every_nic_and_is_no_dearer_than_its_closed_form() -> None:
    """What leaves a box of eight by a NIC does not cross NVLink there: 7/8 of what the closed form counts.

    The eight NICs take an eighth each.
    """
    pod = build(with_(load("hgx-h100"), accelerators=64))
    closed = collective(pod, "all_gather", 64, 2.0**30, "ring", "closed")
    graph = collective(pod, "all_gather", 64, 2.0**30, "ring", "dependency")
    assert 0.8 * closed["time_s"] < graph["time_s"] < closed["time_s"]
    inside, outside = (lookup(link, "all_gather")[0].efficiency for link in ("nvlink4", "ib-ndr"))
    wire_s = 63 / 64 * 2.0**30 * max(7 / 8 / (450e9 * inside), 1 / 8 / (50e9 * outside))
    assert graph["terms"]["wire"] == pytest.approx(wire_s)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "barrier"]),
    st.sampled_from([2, 8, 24, 64]),
    st.floats(1e3, 1e9),
    st.sampled_from(["closed", "stepwise", "dependency"]),
)
def test_terms_add_up_and_no_price_is_below_the_bound(op: str, ranks: int, size_bytes: float, fidelity: str) -> None:
    pod = build(with_(load("hgx-h100"), accelerators=64))
    told = collective(pod, op, ranks, size_bytes, fidelity=fidelity)
    assert sum(told["terms"].values()) == pytest.approx(told["time_s"])
    assert told["time_s"] >= told["lower_bound_s"] * (1 - 1e-9)
    assert told["algorithm"] in told["prices"]
    moved = BUS.get(op, 0) * (ranks - 1) / ranks or 1.0
    assert told["busbw_Bps"] == pytest.approx(told["algbw_Bps"] * moved)


def test_a_ring_does_not_feel_oversubscription_and_an_all_to_all_does() -> None:
    flat = build(parse({"accelerator": "h100", "accelerators": 1024}))
    tapered = build(
        parse({"accelerator": "h100", "accelerators": 1024, "scale_out": {"oversubscription": 4, "radix": 80}})
    )
    ring = [collective(c, "all_gather", 512, 2.0**30, "ring")["terms"]["wire"] for c in (flat, tapered)]
    exchange = [collective(c, "all_to_all", 1024, 2.0**30, "pairwise")["terms"]["wire"] for c in (flat, tapered)]
    assert ring[1] == pytest.approx(ring[0])
    assert exchange[1] > 1.5 * exchange[0]


def test_a_slow_rail_slows_the_ring_that_crosses_it_and_not_one_inside_a_box() -> None:
    whole = parse({"accelerator": "h100", "accelerators": 64})
    slow = with_(whole, changes=[{"node": "nic", "at": {"rail": 0}, "to": "leaf", "factor": 0.25}])
    inside = [collective(build(spec), "all_gather", 8, 2.0**28, "ring")["time_s"] for spec in (whole, slow)]
    across = [collective(build(spec), "all_gather", 64, 2.0**28, "ring", stride=1)["time_s"] for spec in (whole, slow)]
    assert inside[0] == pytest.approx(inside[1])
    assert across[1] > 1.2 * across[0]


def test_a_pair_of_a_mesh_has_one_link() -> None:
    box = build(load("mi300x-box"))
    pair, all_of_it = (collective(box, "all_gather", n, 2.0**30, "ring", "closed") for n in (2, 8))
    assert pair["busbw_Bps"] < 64e9
    assert all_of_it["busbw_Bps"] > 4 * pair["busbw_Bps"]


@pytest.mark.parametrize("op", ["all_reduce", "all_gather", "reduce_scatter"])
@pytest.mark.parametrize("ranks", [2, 3, 5, 7, 8])
def test_a_ring_played_on_a_mesh_takes_all_links_as_the_closed_form_does(op: str, ranks: int) -> None:
    box = build(load("mi300x-box"))
    played, closed = (collective(box, op, ranks, 2.0**32, "ring", rung)["time_s"] for rung in ("stepwise", "closed"))
    assert played == pytest.approx(closed, rel=0.02)


@pytest.mark.parametrize(("ranks", "rings"), [(2, 1), (3, 2), (4, 2), (5, 4), (6, 4), (7, 6)])
def test_the_wire_of_a_group_of_a_mesh_is_shared_by_its_rings(ranks: int, rings: int) -> None:
    """(n - 1)/n of the bytes over so many links; eight ranks have seven. Four and six have a ring less than links."""
    box = build(load("mi300x-box"))
    some, all_of_it = (
        collective(box, "all_gather", n, 2.0**32, "ring", "stepwise")["terms"]["wire"] for n in (ranks, 8)
    )
    assert some / all_of_it == pytest.approx((ranks - 1) / ranks / rings / (7 / 8 / 7), rel=1e-6)


def test_a_ring_over_boxes_of_meshes_keeps_to_its_rails() -> None:
    boxes = build(with_(load("mi300x-box"), accelerators=16))
    played, closed = (
        collective(boxes, "all_gather", 16, 2.0**32, "ring", rung)["time_s"] for rung in ("stepwise", "closed")
    )
    assert played == pytest.approx(closed, rel=0.05)


def test_what_only_the_closed_form_prices_says_so() -> None:
    told = collective(build(load(RACK)), "all_reduce", 64, 2.0**30, "nvls")
    assert told["fidelity"] == "closed"
    assert any("chunks are pipelined" in warning for warning in told["warnings"])


@pytest.mark.parametrize(
    ("op", "bound"), [("all_gather", "least cut"), ("reduce_scatter", "least cut"), ("all_to_all", "concurrent flow")]
)
def test_the_whole_cluster_on_the_graph_stands_next_to_its_links_bound(op: str, bound: str) -> None:
    pod = build(with_(load("hgx-h100"), accelerators=64))
    on_graph, closed, part = (
        collective(pod, op, ranks, 2.0**28, "auto", rung)
        for ranks, rung in ((64, "stepwise"), (64, "closed"), (32, "stepwise"))
    )
    assert (on_graph["bound"], closed["bound"], part["bound"]) == (bound, "tiers", "tiers")
    assert on_graph["lower_bound_s"] == pytest.approx(closed["lower_bound_s"], rel=0.02)
    assert on_graph["time_s"] >= on_graph["lower_bound_s"]


def test_the_links_bound_sees_a_slow_link_that_no_tier_shows() -> None:
    """One NIC at a hundredth: 7 of 8 are left to its box, one of eight; the tiers' bound is that of whole boxes."""
    change = {"node": "nic", "at": {"rail": 0, "domain": 3}, "to": "leaf", "factor": 0.01}
    pod = build(with_(load("hgx-h100"), accelerators=64, changes=[change]))
    told = collective(pod, "all_gather", 64, 2.0**28, "ring")
    into_Bps = 7.01 * 50e9
    assert told["bound"] == "least cut"
    assert told["lower_bound_s"] == pytest.approx(56 / 64 * 2.0**28 / into_Bps, rel=1e-6)


def test_sums_in_switches_need_not_pass_a_cut_twice() -> None:
    assert graph_bound(build(load(RACK)), "all_reduce", 1e9) is None
    box = build(load("mi300x-box"))
    gather, reduce_ = (graph_bound(box, op, 1e9) for op in ("all_gather", "all_reduce"))
    assert gather is not None
    assert reduce_ == (2 * gather[0], "least cut")


def test_every_fault_of_a_request_comes_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        collective(build(load(RACK)), "all_gather", 100, -1.0, "rings", "finest")
    assert len(caught.value.faults) == 4
    with pytest.raises(SpecError, match="all_reduce"):
        collective(build(load(RACK)), "allreduce", 8, 1.0)


def test_an_algorithm_that_does_not_run_here_names_those_that_do() -> None:
    with pytest.raises(SpecError, match="valid here: ring"):
        collective(build(load("hgx-a100")), "all_reduce", 8, 1e6, "nvls")
