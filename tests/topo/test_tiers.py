"""Tiers and summaries, by hand and against cuts and paths on the full graph."""

import math

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand
from topo.survey import summary
from topo.tiers import tiers

GB = 1e9


def _cluster(domain: int, gpus: int = 4608, oversubscription: float | tuple[float, ...] = 1.0) -> Blueprint:
    up = ScaleUp(domain, 900 * GB, 1e-6, "nvlink5", layers=2 if domain == 576 else 1)
    return cluster_blueprint("x", gpus // domain, up, ScaleOut(50 * GB, "xdr", oversubscription=oversubscription))


@pytest.mark.parametrize(
    ("domain", "sizes"),
    [
        (8, [("domain", 8, 576), ("leaf", 256, 18), ("spine", 768, 6), ("core", 4608, 1)]),
        (72, [("domain", 72, 64), ("leaf", 216, 22), ("spine", 864, 6), ("core", 4608, 1)]),
        (576, [("block", 72, 64), ("domain", 576, 8), ("core", 4608, 1)]),
        (1, [("leaf", 32, 144), ("spine", 768, 6), ("core", 4608, 1)]),
    ],
)
def test_tiers_of_4608_accelerators(domain: int, sizes: list[tuple[str, int, int]]) -> None:
    found = tiers(_cluster(domain))
    assert [(tier.name, tier.size, tier.blocks) for tier in found] == sizes
    for tier in found:
        expected = 900 * GB if tier.plane == "scale-up" else 50 * GB
        assert tier.bandwidth_Bps == pytest.approx(expected, rel=1e-9)
        assert tier.link == ("nvlink5" if tier.plane == "scale-up" else "xdr")
        assert tier.in_network_reduction == (tier.plane == "scale-up")
        assert tier.kind == "switch"


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("domain", [1, 8, 72, 576])
def test_leaf_oversubscription_divides_every_tier_above_the_leaf(domain: int, ratio: float) -> None:
    for tier in tiers(_cluster(domain, oversubscription=ratio)):
        if tier.plane == "scale-out":
            expected = 50 * GB if tier.name == "leaf" else 50 * GB / ratio
            assert tier.bandwidth_Bps == pytest.approx(expected, rel=1e-9)


def test_spine_oversubscription_divides_the_core_tier_only() -> None:
    found = {tier.name: tier.bandwidth_Bps / GB for tier in tiers(_cluster(8, oversubscription=(1.0, 4.0)))}
    assert found == pytest.approx({"domain": 900, "leaf": 50, "spine": 50, "core": 12.5})
    found = {tier.name: tier.bandwidth_Bps / GB for tier in tiers(_cluster(8, oversubscription=(2.0, 4.0)))}
    assert found == pytest.approx({"domain": 900, "leaf": 50, "spine": 25, "core": 6.25})


def test_oversubscription_between_the_layers_of_a_domain() -> None:
    up = ScaleUp(576, 900 * GB, 1e-6, "nvlink5", layers=2, oversubscription=2.0, outer_latency_s=1.6e-6)
    block, domain = tiers(cluster_blueprint("x", 1, up, None))
    assert (block.bandwidth_Bps, domain.bandwidth_Bps) == pytest.approx((900 * GB, 450 * GB))
    assert (block.latency_s, domain.latency_s) == pytest.approx((1e-6, 1.6e-6))
    assert (block.hops, domain.hops) == (2, 4)


def test_latency_and_hops_of_a_three_level_tree() -> None:
    """Cables 0.3 µs, switches 0.2 µs: 2 + 1, 4 + 3 and 6 + 5 of them; the NIC adds a link without latency."""
    _, leaf, spine, core = tiers(_cluster(8))
    assert [tier.latency_s * 1e6 for tier in (leaf, spine, core)] == pytest.approx([0.8, 1.8, 2.8])
    assert [tier.hops for tier in (leaf, spine, core)] == [4, 6, 8]


def test_in_network_reduction_needs_every_switch_of_the_path() -> None:
    out = ScaleOut(50 * GB, "ndr", in_network_reduction=True)
    up = ScaleUp(8, 900 * GB, 1e-6, "nvlink", in_network_reduction=False)
    assert [tier.in_network_reduction for tier in tiers(cluster_blueprint("x", 128, up, out))] == [False, True, True]


@pytest.mark.parametrize(("domain", "count"), [(500, 9), (576 * 2, 4), (2304, 7), (296, 5), (7, 13), (61, 61)])
def test_odd_domains_keep_their_bandwidth(domain: int, count: int) -> None:
    up = ScaleUp(domain, 900 * GB, 1e-6, "nvlink5")
    found = tiers(cluster_blueprint("x", count, up, ScaleOut(50 * GB, "xdr")))
    assert (found[0].size, found[0].blocks) == (domain, count)
    assert found[0].bandwidth_Bps == pytest.approx(900 * GB)
    assert found[-1].size == domain * count
    assert [tier.bandwidth_Bps for tier in found[1:]] == pytest.approx([50 * GB] * (len(found) - 1), rel=1e-9)


def test_a_nic_spread_over_leaves_is_one_cable() -> None:
    """37 NICs of a rail on leaves of 32 ports: lanes to two leaves each, and yet one cable each."""
    up, out = ScaleUp(296, 900 * GB, 1e-6, "nvlink5"), ScaleOut(50 * GB, "ib", leaf_link="copper")
    assert summary(cluster_blueprint("x", 3, up, out))["parts"]["copper"] == 3 * 296


def test_one_accelerator_has_no_tier_and_one_domain_has_one() -> None:
    assert tiers(cluster_blueprint("x", 1, ScaleUp(1, 0.0, 0.0, ""), ScaleOut(50 * GB, "xdr"))) == ()
    assert tiers(cluster_blueprint("x", 1, ScaleUp(1, 0.0, 0.0, ""), None)) == ()
    (tier,) = tiers(cluster_blueprint("x", 1, ScaleUp(72, 900 * GB, 1e-6, "nvlink5"), ScaleOut(50 * GB, "xdr")))
    assert (tier.name, tier.size, tier.blocks) == ("domain", 72, 1)


def test_the_slowest_of_two_accelerator_classes_sets_the_innermost_tier() -> None:
    bp = Blueprint(
        "mixed",
        (Axis("slot", 4),),
        (
            NodeClass("fast", "accelerator", ("slot",)),
            NodeClass("slow", "accelerator", ("slot",)),
            NodeClass("switch", "switch", ()),
        ),
        (LinkClass("fast", "switch", 9 * GB, 1e-6, "x"), LinkClass("slow", "switch", 3 * GB, 1e-6, "x")),
        (Level("all"),),
    )
    (tier,) = tiers(bp)
    assert (tier.size, tier.bandwidth_Bps) == (8, 3 * GB)


def test_blocks_that_are_not_joined_are_refused() -> None:
    bp = Blueprint(
        "islands",
        (Axis("domain", 2), Axis("slot", 2, "domain")),
        (NodeClass("gpu", "accelerator", ("slot",)), NodeClass("switch", "switch", ("domain",))),
        (LinkClass("gpu", "switch", GB, 1e-6, "x"),),
        (Level("domain", axes=("domain",)), Level("all", plane="scale-out")),
    )
    with pytest.raises(SpecError, match="not joined by scale-out links"):
        tiers(bp)


@st.composite
def clusters(draw: st.DrawFn) -> Blueprint:
    """Small clusters with few ports, of every shape of tree."""
    layers = draw(st.sampled_from([1, 2]))
    inner = draw(st.integers(1, 4))
    size = inner * draw(st.integers(1, 3)) if layers == 2 else draw(st.integers(1, 9))
    up = ScaleUp(
        size, 96 * GB, 1e-6, "nvlink", draw(st.integers(1, 2)), layers, inner, draw(st.sampled_from([1.0, 2.0]))
    )
    ratio = draw(st.sampled_from([(1.0,), (2.0,), (1.0, 2.0), (2.0, 2.0)]))
    out = ScaleOut(4 * GB, "ib", draw(st.sampled_from([1, 2])), draw(st.sampled_from([6, 8])), oversubscription=ratio)
    try:
        return cluster_blueprint("x", draw(st.integers(1, 7)), up, out)
    except SpecError as error:
        if "does not reach" not in str(error):
            raise
        return cluster_blueprint("x", 1, up, None)


@settings(max_examples=40, deadline=None)
@given(clusters())
def test_tiers_equal_cuts_and_paths_on_the_full_graph(bp: Blueprint) -> None:
    """The oracle knows levels only: it expands, cuts with NetworkX, and searches paths, on the level's own plane."""
    full = expand(bp)
    gpus = {node: held["coordinates"] for node, held in full.nodes(data=True) if held["kind"] == "accelerator"}
    levels = {level.name: level for level in bp.levels}
    inner: tuple[str, ...] = ()
    child = ["accelerator[" + ",".join(f"{a}=0" for a in bp.closure(bp.node("accelerator").axes)) + "]"]
    for tier in tiers(bp):
        axes = bp.closure(levels[tier.name].axes)
        held = [n for n, at in full.nodes("coordinates") if all(at.get(axis) == 0 for axis in axes)]
        block = [node for node in held if node in gpus]
        rest = [node for node in block if node not in child]
        assert len(block) == tier.size
        plane = nx.Graph([(u, v, d) for u, v, d in full.subgraph(held).edges(data=True) if d["plane"] == tier.plane])
        arcs: nx.DiGraph[str] = nx.DiGraph()
        for u, v, d in plane.edges(data=True):
            arcs.add_edge(u, v, capacity=round(d["bandwidth_Bps"]))
            arcs.add_edge(v, u, capacity=round(d["bandwidth_Bps"]))
        arcs.add_edges_from(("<", node) for node in child)
        arcs.add_edges_from((node, ">") for node in rest)
        rate = nx.maximum_flow_value(arcs, "<", ">") / min(len(child), len(rest))
        if len(rest) < len(child):  # a smaller last block: what the full one can put out counts too
            own = [node for node in held if all(full.nodes[node]["coordinates"].get(axis) == 0 for axis in inner)]
            arcs.add_edges_from((node, ">") for node in held if node not in own)
            rate = min(rate, nx.maximum_flow_value(arcs, "<", ">") / len(child))
        assert tier.bandwidth_Bps == pytest.approx(rate, rel=1e-6)
        lengths = nx.multi_source_dijkstra_path_length(plane, set(child), weight="latency_s")
        assert tier.latency_s == pytest.approx(min(lengths[node] for node in rest))
        child, inner = block, axes


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.0])
def test_a_smaller_last_unit_changes_no_rate(ratio: float) -> None:
    """49 domains are units of 25 and 24; the last has as many uplinks as the first."""
    up, out = ScaleUp(8, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib", levels=2, oversubscription=ratio)
    for domains in (49, 67, 97):
        *_, spine = tiers(cluster_blueprint("x", domains, up, out))
        assert spine.bandwidth_Bps == pytest.approx(50 * GB / ratio)


@settings(max_examples=25, deadline=None)
@given(clusters())
def test_summary_equals_counts_and_diameter_of_the_full_graph(bp: Blueprint) -> None:
    full, facts = expand(bp), summary(bp)
    gpus = [node for node, held in full.nodes(data=True) if held["kind"] == "accelerator"]
    assert facts["accelerators"] == len(gpus)
    wires = sum(held["links"] for *_, held in full.edges(data=True) if held["link"])
    parts = sum(1 for _, held in full.nodes(data=True) if held["part"])
    assert sum(facts["parts"].values()) == wires + parts + sum(count for _, count in bp.extra_parts)
    assume(len(gpus) > 1)
    away = [nx.single_source_shortest_path_length(full, node) for node in gpus]
    assert facts["diameter_hops"] == max(lengths[node] for lengths in away for node in gpus)


@pytest.mark.parametrize("domain", [1, 8, 72, 576])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_summary_of_4608_accelerators(domain: int, ratio: float) -> None:
    facts = summary(_cluster(domain, oversubscription=ratio))
    assert facts["accelerators"] == 4608
    assert facts["oversubscription"] == pytest.approx(ratio)
    assert facts["bisection_Bps"] >= 2304 * 50 * GB / ratio * (1 - 1e-9)
    assert facts["diameter_hops"] == 8
    assert facts["parts"]["nic"] == 4608
    assert len(facts["tiers"]) == len(tiers(_cluster(domain, oversubscription=ratio)))


def test_bisection_at_full_bandwidth_is_half_the_nics() -> None:
    for domain in (1, 8, 72, 576):
        assert summary(_cluster(domain))["bisection_Bps"] == pytest.approx(2304 * 50 * GB, rel=1e-9)


def test_bisection_of_one_domain_is_half_its_links() -> None:
    facts = summary(cluster_blueprint("x", 1, ScaleUp(72, 900 * GB, 1e-6, "nvlink5"), None))
    assert facts["bisection_Bps"] == pytest.approx(36 * 900 * GB)
    assert facts["oversubscription"] == pytest.approx(1.0)
    assert facts["parts"] == {"accelerator": 72, "scale-up-switch": 18, "nvlink5": 1296}
    assert math.isclose(facts["tiers"][0]["latency_s"], 1e-6)
