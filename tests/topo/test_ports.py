"""Ports by class, and every option of a scale-out fabric against the graph that it draws."""

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand
from topo.orbits import quotient
from topo.ports import port_faults, ports, ranks
from topo.schema import validate
from topo.tiers import tiers

GB = 1e9
HGX = ScaleUp(8, 450 * GB, 1e-6, "nvlink4", switches=4)
B200 = ScaleOut(50 * GB, "ndr")
"""NDR: 64 ports of 400 Gb/s."""

# --- ports -----------------------------------------------------------------------------------------------------------


def test_ports_of_an_uneven_cluster_are_those_of_its_fullest_switch() -> None:
    bp = cluster_blueprint(
        "x", 3, ScaleUp(2, 9.0, 0.0, "n", 1), ScaleOut(1.0, "ib", rails=1, radix=8, down=4, levels=2)
    )
    leaf = next(row for row in ports(bp, {"leaf": 8}) if row.node == "leaf")  # two domains on one, one on the other
    assert (leaf.switches, leaf.down, leaf.up, leaf.used, leaf.free) == (2, 4, 4, 4 + 2 + 8, 2)


def test_what_is_gone_takes_no_ports_and_what_is_slow_does() -> None:
    bp = cluster_blueprint("x", 128, HGX, B200)
    slow = degrade(bp, "nic", {"rail": 3}, to="leaf", factor=0.5)
    assert ports(slow) == ports(bp)
    leaf, fewer = (
        next(row for row in ports(b) if row.node == "leaf") for b in (bp, without(bp, {"unit": 0, "domain": 0}))
    )
    assert leaf.used - fewer.used == 8
    assert leaf.each == fewer.each


def test_ranks_count_links_from_the_accelerators() -> None:
    two = ScaleUp(144, 900 * GB, 1e-6, "nvlink5", layers=2)
    found = ranks(cluster_blueprint("x", 16, two, ScaleOut(50 * GB, "ib", levels=3)))
    assert found == {
        "accelerator": 0,
        "scale-up-switch": 1,
        "nic": 1,
        "outer-switch": 2,
        "leaf": 2,
        "spine": 3,
        "core": 4,
    }


def test_ports_of_both_layers_of_a_domain() -> None:
    bp = cluster_blueprint("nvl576", 1, ScaleUp(576, 900 * GB, 1e-6, "nvlink5", layers=2), None)
    assert [(row.node, row.down, row.up) for row in ports(bp)] == [
        ("scale-up-switch", 72, 72),
        ("outer-switch", 144, 0),
    ]


def test_faults_name_the_class_its_ports_and_the_radix() -> None:
    bp = cluster_blueprint("x", 128, HGX, B200)
    assert [fault.field for fault in port_faults(bp, {"switch": 63})] == ["nodes[leaf].ports", "nodes[spine].ports"]
    assert not port_faults(bp, {"switch": 1, "leaf": 64, "spine": 64})


# --- every option at once --------------------------------------------------------------------------------------------

RATE = 12 * GB


@st.composite
def fabrics(draw: st.DrawFn) -> tuple[Blueprint, ScaleOut]:
    """Small fabrics with few ports, so that every shape of tree, remainder, top and copy comes up."""
    up = ScaleUp(draw(st.integers(1, 9)), 96 * GB, 1e-6, "nvlink", draw(st.integers(1, 2)))
    leaf = draw(st.sampled_from([6, 8, 12, 16]))
    down = draw(st.sampled_from([None, None, None, 2, 4]))
    try:
        out = ScaleOut(
            RATE, "ib", draw(st.sampled_from([1, 2, 4])), (leaf, draw(st.sampled_from([8, 12, 16])), 12),
            levels=draw(st.sampled_from([None, 2, 3, 3])),
            oversubscription=draw(st.sampled_from([(1.0,), (2.0,), (0.5,), (1.0, 3.0), (2.0, 0.5), (4 / 3, 2.0)])),
            down=down, planes=draw(st.integers(1, 3)), trunk=draw(st.sampled_from([1, 1, 2])),
            spines=draw(st.sampled_from(["auto", "rail", "shared"])),
            top=draw(st.sampled_from(["core", "mesh", "ocs"])), ocs_radix=draw(st.sampled_from([8, 20])),
            leaf_link="copper", switch_part=("tor", "agg", "core"),
        )  # fmt: skip
        return cluster_blueprint("x", draw(st.integers(1, 14)), up, out), out
    except SpecError as error:
        if "does not reach" not in str(error) and "uplinks" not in str(error):
            raise
        out = ScaleOut(RATE, "ib", 2, 128, planes=2)
        return cluster_blueprint("x", draw(st.integers(1, 14)), ScaleUp(2, 96 * GB, 1e-6, "nvlink", 1), out), out


@settings(max_examples=60, deadline=None)
@given(fabrics())
def test_every_fabric_is_valid_and_within_its_ports(drawn: tuple[Blueprint, ScaleOut]) -> None:
    bp, out = drawn
    graph = expand(bp)
    validate(graph)
    radix = out.radix if isinstance(out.radix, tuple) else (out.radix,) * 3
    given_ports = {"leaf": radix[0], "spine": radix[1], "core": radix[2], "ocs": out.ocs_radix}
    assert not port_faults(bp, given_ports, dict.fromkeys(("leaf", "spine", "core"), out.port_Bps))
    for node, held in graph.nodes(data=True):
        wires = [wire for _, _, wire in graph.edges(node, data=True) if wire["plane"] == "scale-out" and wire["link"]]
        if held["kind"] == "nic":
            assert len(wires) % out.planes == 0
            assert sum(wire["bandwidth_Bps"] for wire in wires) == pytest.approx(RATE)
        assert all(wire["bandwidth_Bps"] <= wire["links"] * out.trunk * out.port_Bps * (1 + 1e-9) for wire in wires)


@settings(max_examples=60, deadline=None)
@given(fabrics())
def test_ports_of_the_quotient_are_those_of_the_full_graph(drawn: tuple[Blueprint, ScaleOut]) -> None:
    bp, _ = drawn
    graph = expand(bp)
    for row in ports(bp):
        members = [node for node, held in graph.nodes(data=True) if held["node_class"] == row.node]
        each = [sum(wire["links"] for _, _, wire in graph.edges(node, data=True)) for node in members]
        assert (row.switches, row.each, row.used) == (len(each), max(each), sum(each))


@settings(max_examples=60, deadline=None)
@given(fabrics())
def test_uplinks_are_the_down_bandwidth_over_the_oversubscription(drawn: tuple[Blueprint, ScaleOut]) -> None:
    """Where all units and pods are alike: exactly, but for a mesh whose ports do not divide, which has less."""
    bp, out = drawn
    assume(all(axis.last is None for axis in bp.axes))
    total: Counter[tuple[str, str]] = Counter()
    graph = quotient(bp)
    classes = {name: held["node_class"] for name, held in graph.nodes(data=True)}
    for u, v, held in graph.edges(data=True):
        total[classes[u], classes[v]] += held["bandwidth_Bps"]
    names = {node.name for node in bp.nodes}
    layers = [name for name in ("nic", "leaf", "spine", "core", "ocs") if name in names]
    sums = [total[pair] for pair in pairwise(layers)]
    for ratio, (below, above) in zip(out.ratios, pairwise(sums), strict=False):
        assert below / above == pytest.approx(ratio)
    if ("spine", "spine") in total:
        assert total["spine", "spine"] <= total["leaf", "spine"] / out.ratios[1] * (1 + 1e-9)


def _flow(graph: "nx.DiGraph[str]", left: list[str], right: list[str]) -> float:
    net: nx.DiGraph[str] = nx.DiGraph()
    net.add_edges_from((u, v, {"capacity": round(held["bandwidth_Bps"])}) for u, v, held in graph.edges(data=True))
    net.add_edges_from(("<", node) for node in left)
    net.add_edges_from((node, ">") for node in right)
    return float(nx.maximum_flow_value(net, "<", ">"))


@settings(max_examples=40, deadline=None)
@given(fabrics())
def test_the_quotient_cuts_the_first_domain_off_like_the_full_graph(drawn: tuple[Blueprint, ScaleOut]) -> None:
    bp, _ = drawn
    home = bp.closure(("domain",))
    assume(bp.population(home) > 1)
    small = quotient(bp, [dict.fromkeys(home, 0)])
    ends = [(name, held["cells"]) for name, held in small.nodes(data=True) if held["kind"] == "accelerator"]
    mine = [name for name, cells in ends if all((0, 1) in cells[axis] for axis in home)]
    full = expand(bp)
    every = [name for name, held in full.nodes(data=True) if held["kind"] == "accelerator"]
    first = [name for name in every if full.nodes[name]["domain"] == 0 or len(mine) == len(every)]
    if full.nodes[every[0]]["domain"] is None:  # domains of one
        first = every[:1]
    flow = _flow(small, mine, [name for name, _ in ends if name not in mine])
    assert flow == pytest.approx(_flow(full.to_directed(), first, [n for n in every if n not in first]), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(fabrics())
def test_parts_of_the_quotient_are_those_of_the_full_graph(drawn: tuple[Blueprint, ScaleOut]) -> None:
    bp, _ = drawn
    full, small = expand(bp), quotient(bp)
    parts = Counter(held["part"] for _, held in full.nodes(data=True))
    counted: Counter[str] = Counter()
    for _, held in small.nodes(data=True):
        counted[held["part"]] += held["multiplicity"]
    assert counted == parts
    cables: Counter[str] = Counter()
    for _, _, held in full.edges(data=True):
        cables[held["link"]] += 2 * held["links"]
    ends: Counter[str] = Counter()
    for _, _, held in small.edges(data=True):
        ends[held["link"]] += held["links"]
    assert ends == cables


@pytest.mark.parametrize("domains", [7, 13, 29])
@pytest.mark.parametrize("top", ["core", "mesh", "ocs"])
def test_numbers_that_do_not_divide(domains: int, top: Any) -> None:
    out = ScaleOut(RATE, "ib", 2, (8, 12), levels=3, planes=2, top=top, oversubscription=(1.0, 2.0))
    bp = cluster_blueprint("odd", domains, ScaleUp(4, 96 * GB, 1e-6, "nvlink", 1), out)
    graph = expand(bp)
    validate(graph)
    assert sum(held["kind"] == "accelerator" for _, held in graph.nodes(data=True)) == 4 * domains
    assert not port_faults(bp, {"leaf": 8, "spine": 12, "core": 12}, {"leaf": out.port_Bps})
    assert all(math.isfinite(tier.bandwidth_Bps) for tier in tiers(bp))
