"""Clusters from their counts: fat trees, domains, and what they are made of."""

import math
from collections import Counter
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.fattree import share, uplinks
from topo.graphs import expand
from topo.orbits import quotient
from topo.schema import validate

HGX = ScaleUp(8, 450e9, 1e-6, "nvlink4", switches=4)
NDR = ScaleOut(50e9, "ndr")


def _count(bp: Blueprint, name: str) -> int:
    return sum(bp.population(node.axes) for node in bp.nodes if node.name == name)


@pytest.mark.parametrize(
    ("gpus", "leaf", "spine", "core"),
    [
        (512, 8, 0, 0),  # one level: a 64-port leaf per rail
        (768, 24, 16, 0),  # NVIDIA DGX H100 SuperPOD reference architecture, 3 scalable units
        (1024, 32, 16, 0),  # the same and DGX B200, 4 units
        (2048, 64, 32, 0),  # DGX B200, 8 units: the most of two levels
        (4096, 128, 128, 64),  # DGX B200, 16 units: the first with a core
    ],
)
def test_switches_of_nvidia_superpods(gpus: int, leaf: int, spine: int, core: int) -> None:
    bp = cluster_blueprint("superpod", gpus // 8, HGX, NDR)
    assert (_count(bp, "leaf"), _count(bp, "spine"), _count(bp, "core")) == (leaf, spine, core)


def test_two_layer_domain_of_576_has_one_nvlink_between_any_two_of_its_switches() -> None:
    bp = cluster_blueprint("nvl576", 1, ScaleUp(576, 900e9, 1e-6, "nvlink5", layers=2), None)
    assert (_count(bp, "scale-up-switch"), _count(bp, "outer-switch")) == (144, 72)
    (up,) = [link for link in bp.links if link.b == "outer-switch"]
    assert up.bandwidth_Bps == pytest.approx(50e9)


def test_two_layers_of_a_single_block_are_one_layer() -> None:
    for size in (72, 300):
        two = cluster_blueprint("x", 4, ScaleUp(size, 900e9, 1e-6, "nvlink5", layers=2, inner=size), NDR)
        assert two == cluster_blueprint("x", 4, ScaleUp(size, 900e9, 1e-6, "nvlink5"), NDR)


@pytest.mark.parametrize(("size", "rails"), [(8, 8), (72, 8), (500, 5), (1, 1), (36, 6), (13, 1), (4, 4), (7, 7)])
def test_rails_are_the_largest_divisor_of_the_domain(size: int, rails: int) -> None:
    bp = cluster_blueprint("x", 2, ScaleUp(size, 900e9, 1e-6, "nvlink"), NDR)
    assert bp.axis["rail"].size == rails


def test_rails_divide_the_block_of_a_two_layer_domain() -> None:
    bp = cluster_blueprint("x", 2, ScaleUp(20, 900e9, 1e-6, "nvlink", layers=2, inner=4), NDR)
    assert bp.axis["rail"].size == 4


def test_spines_of_their_own_rail_take_over_where_shared_ones_do_not_reach() -> None:
    shared = cluster_blueprint("x", 8192, HGX, NDR)  # 64^3 / 4 NICs: the most of three levels
    own = cluster_blueprint("x", 8193, HGX, NDR)
    assert "rail" not in shared.closure(shared.node("spine").axes)
    assert "rail" in own.closure(own.node("spine").axes)
    with pytest.raises(SpecError, match="take switches with more ports"):
        cluster_blueprint("x", 8 * 8192 + 1, HGX, NDR)


def test_levels_can_be_asked_for_and_are_refused_where_they_do_not_reach() -> None:
    bp = cluster_blueprint("x", 4, HGX, ScaleOut(50e9, "ndr", levels=3))
    assert _count(bp, "core") > 0
    with pytest.raises(SpecError, match="2 levels of 64 ports"):
        cluster_blueprint("x", 8192, HGX, ScaleOut(50e9, "ndr", levels=2))


def test_domains_without_a_network_between_them_are_refused() -> None:
    with pytest.raises(SpecError, match="2 domains need it"):
        cluster_blueprint("x", 2, HGX, None)
    with pytest.raises(SpecError, match="at least 1"):
        cluster_blueprint("x", 0, HGX, None)


def test_all_faults_of_the_arguments_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        ScaleUp(7, -1.0, -1.0, "x", switches=0, layers=2, inner=4, oversubscription=0.5, outer_latency_s=-2.0)
    assert len(caught.value.faults) == 6
    with pytest.raises(SpecError) as caught:
        ScaleOut(
            0.0, "x", rails=0, radix=1, levels=4, oversubscription=(0.0,), latency_s=-1.0, switch_latency_s=math.inf
        )
    assert len(caught.value.faults) == 7


def test_layers_must_be_one_or_two() -> None:
    with pytest.raises(SpecError, match="must be 1 or 2"):
        ScaleUp(8, 1e9, 1e-6, "x", layers=3)


@given(st.integers(1, 5000), st.integers(1, 100))
def test_share_deals_everything_into_the_fewest_parts(total: int, most: int) -> None:
    parts, each, last = share(total, most)
    assert each * (parts - 1) + last == total
    assert 1 <= last <= each <= most
    assert parts == 1 or (parts - 1) * most < total


@given(st.integers(1, 5000), st.integers(1, 100))
def test_share_with_slack_is_equal_or_the_fewest(total: int, most: int) -> None:
    parts, each, last = share(total, most, slack=1.25)
    assert each * (parts - 1) + last == total
    assert each <= most
    assert (each == last and parts <= 1.25 * -(-total // most)) or (parts, each, last) == share(total, most)


@given(st.integers(1, 64), st.integers(1, 32))
def test_uplinks_fit_the_ports_of_both_switches(below: int, wanted: int) -> None:
    switches, each = uplinks(below, wanted, 64, 64 - wanted)
    assert wanted <= switches * each <= 64 - wanted
    assert below * each <= 64


@st.composite
def clusters(draw: st.DrawFn) -> Blueprint:
    """Small clusters with few ports, so that every shape of tree, remainder and spread comes up."""
    inner = draw(st.integers(1, 6))
    layers = draw(st.sampled_from([1, 2]))
    size = inner * draw(st.integers(1, 4)) if layers == 2 else draw(st.integers(1, 12))
    up = ScaleUp(size, 96e9, 1e-6, "nvlink", draw(st.integers(1, 3)), layers, inner, draw(st.sampled_from([1.0, 2.0])))
    ratio = draw(st.sampled_from([(1.0,), (2.0,), (3.0,), (1.0, 2.0), (2.0, 2.0)]))
    out = ScaleOut(4e9, "ib", draw(st.sampled_from([1, 2, 4])), 12, oversubscription=ratio)
    domains = draw(st.integers(1, 14))
    try:
        return cluster_blueprint("x", domains, up, out)
    except SpecError as error:
        if "does not reach" not in str(error):
            raise
        return cluster_blueprint("x", 1, up, None)


@settings(max_examples=40, deadline=None)
@given(clusters())
def test_every_cluster_is_valid_and_within_its_ports(bp: Blueprint) -> None:
    """Each NIC has its full bandwidth, no switch more cables than ports, and nodes add up to the domains."""
    graph = expand(bp)
    validate(graph)
    assert graph.number_of_nodes() == sum(held["multiplicity"] for _, held in quotient(bp).nodes(data=True))
    kinds = Counter(held["kind"] for _, held in graph.nodes(data=True))
    domain = bp.population(("domain",))
    assert kinds["accelerator"] % domain == 0
    for node, held in graph.nodes(data=True):
        wires = [
            (graph.nodes[peer]["kind"], wire) for _, peer, wire in graph.edges(node, data=True) if wire["link"] == "ib"
        ]
        if held["kind"] == "nic":
            assert sum(wire["bandwidth_Bps"] for _, wire in wires) == pytest.approx(4e9)
        # A lane of a NIC takes its share of a port.
        ports = sum(wire["bandwidth_Bps"] / 4e9 if kind == "nic" else wire["links"] for kind, wire in wires)
        assert math.ceil(ports - 1e-9) <= 12
        assert all(wire["bandwidth_Bps"] <= wire["links"] * 4e9 * (1 + 1e-12) for _, wire in wires)


@settings(max_examples=40, deadline=None)
@given(clusters())
def test_uplinks_carry_the_down_bandwidth_over_the_oversubscription(bp: Blueprint) -> None:
    """Level by level, full blocks: bandwidth up = bandwidth down / ratio of one of the ratios in play, never more."""
    graph = quotient(bp)
    layers = [name for name in ("nic", "leaf", "spine", "core") if any(node.name == name for node in bp.nodes)]
    totals = [
        sum(held["bandwidth_Bps"] for u, v, held in graph.edges(data=True) if u.startswith(a) and v.startswith(b))
        for a, b in pairwise(layers)
    ]
    nics = sum(held["multiplicity"] for _, held in graph.nodes(data=True) if held["node_class"] == "nic")
    if totals:
        assert totals[0] == pytest.approx(nics * 4e9)
    if all(axis.last is None for axis in bp.axes):
        for below, above in pairwise(totals):
            assert below / above == pytest.approx(round(below / above))
            assert round(below / above) in (1, 2, 3)


def test_half_a_million_accelerators_are_a_few_dozen_classes() -> None:
    bp = cluster_blueprint("big", 62_500, HGX, ScaleOut(50e9, "xdr", radix=128))
    assert bp.population(bp.node("accelerator").axes) == 500_000
    first = dict.fromkeys(bp.closure(bp.node("accelerator").axes), 0)
    assert len(quotient(bp)) < 20
    assert len(quotient(bp, [first])) < 100


def test_an_uneven_cluster_expands_to_what_the_quotient_counts() -> None:
    bp = cluster_blueprint("odd", 9, ScaleUp(4, 450e9, 1e-6, "nvlink", 2), ScaleOut(50e9, "ib", rails=2, radix=8))
    graph = expand(bp)
    assert nx.is_connected(graph)
    assert Counter(nx.get_node_attributes(graph, "kind").values())["accelerator"] == 36
    assert len({held["domain"] for _, held in graph.nodes(data=True) if held["kind"] == "accelerator"}) == 9
