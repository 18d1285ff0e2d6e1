"""Tiers and summaries of direct networks, pools and changed clusters, by hand and against the full graph."""

from collections import Counter
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand
from topo.survey import hop_histogram, parts, summary
from topo.tiers import DirectAxis, pools, tiers

GB = 1e9


def _torus(*shape: int, order: str = "ring", link_Bps: float = 100 * GB) -> Blueprint:
    names = "xyzw"[: len(shape)]
    axes = tuple(Axis(name, size, order=order) for name, size in zip(names, shape, strict=True))  # type: ignore[arg-type]
    chip = NodeClass("chip", "accelerator", tuple(names), "tpu")
    links = tuple(LinkClass("chip", "chip", link_Bps, 1e-6, "ici", along=(name,)) for name in names)
    return Blueprint("torus", axes, (chip,), links, (Level("torus", "torus"),))


def _two_boxes() -> Blueprint:
    return cluster_blueprint("two", 2, ScaleUp(8, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib"))


def _two_pools() -> Blueprint:
    """Two racks of three fast chips and one of two slow ones under one switch."""
    return Blueprint(
        "mixed",
        (Axis("new", 2), Axis("seat", 3, "new"), Axis("old", 1), Axis("slot", 2, "old")),
        (
            NodeClass("fast", "accelerator", ("seat",), "fast"),
            NodeClass("slow", "accelerator", ("slot",), "slow"),
            NodeClass("new-switch", "switch", ("new",)),
            NodeClass("old-switch", "switch", ("old",)),
            NodeClass("core", "switch", ()),
        ),
        (
            LinkClass("fast", "new-switch", 900 * GB, 1e-6, "nvlink"),
            LinkClass("slow", "old-switch", 300 * GB, 1e-6, "nvlink"),
            LinkClass("fast", "core", 50 * GB, 1e-6, "ib", plane="scale-out"),
            LinkClass("slow", "core", 25 * GB, 1e-6, "ib", plane="scale-out"),
        ),
        (Level("domain", axes=("new", "old")), Level("core", plane="scale-out")),
    )


def test_a_chip_in_a_torus_sends_on_all_its_links() -> None:
    (tier,) = tiers(_torus(16, 20, 28))
    assert (tier.size, tier.bandwidth_Bps, tier.hops, tier.kind) == (8960, 600 * GB, 1, "torus")
    assert tier.direct == tuple(DirectAxis(size, 200 * GB, "ring") for size in (28, 20, 16))


def test_a_corner_of_a_mesh_sends_on_half_of_them() -> None:
    (tier,) = tiers(_torus(4, 4, order="line"))
    assert tier.bandwidth_Bps == 200 * GB
    assert tier.direct == (DirectAxis(4, 200 * GB, "line"),) * 2


def test_a_full_mesh_is_one_axis_of_peers() -> None:
    mesh = Blueprint(
        "mesh",
        (Axis("slot", 2), Axis("rail", 4)),
        (NodeClass("gpu", "accelerator", ("slot", "rail")),),
        (LinkClass("gpu", "gpu", 64 * GB, 1e-6, "xgmi", along=("slot", "rail")),),
        (Level("mesh", "mesh"),),
    )
    (tier,) = tiers(mesh)
    assert (tier.bandwidth_Bps, tier.direct) == (448 * GB, (DirectAxis(8, 448 * GB, "set"),))
    assert parts(mesh) == {"xgmi": 28}


@pytest.mark.parametrize(("shape", "expected"), [((16, 20, 28), 2 * 16 * 20 * 100), ((16, 16), 2 * 16 * 100)])
def test_the_bisection_of_a_torus_cuts_its_longest_axis_twice(shape: tuple[int, ...], expected: float) -> None:
    assert summary(_torus(*shape))["bisection_Bps"] == pytest.approx(expected * GB, rel=1e-6)


def test_the_diameter_of_a_torus_is_half_of_every_axis() -> None:
    facts = summary(_torus(16, 20, 28))
    assert facts["diameter_hops"] == 8 + 10 + 14
    assert sum(facts["hops"].values()) == 8960 * 8959
    assert facts["parts"] == {"tpu": 8960, "ici": 3 * 8960}


def test_unlike_racks_are_pools_with_tiers_of_their_own() -> None:
    bp = _two_pools()
    assert [pool.name for pool in pools(bp)] == ["fast", "slow"]
    assert [(t.pool, t.name, t.size, t.bandwidth_Bps / GB) for t in tiers(bp)] == [
        ("fast", "domain", 3, 900),
        ("fast", "core", 6, 50),
        ("slow", "domain", 2, 300),
    ]
    assert tiers(bp, "slow") == tiers(bp)[2:]
    facts = summary(bp)
    # The first four against the last four: one fast chip's link to its rack, and the links of three to the core.
    assert (facts["accelerators"], facts["pools"], facts["bisection_Bps"]) == (8, ["fast", "slow"], 1050 * GB)


def test_an_unknown_pool_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="known: fast, slow"):
        tiers(_two_pools(), "medium")


def test_a_slow_rail_slows_the_tier_above_the_domain() -> None:
    slow = degrade(_two_boxes(), "nic", {"rail": 3}, to="leaf", factor=0.5)
    domain, leaf = tiers(slow)
    assert domain.bandwidth_Bps == 900 * GB
    assert leaf.bandwidth_Bps == pytest.approx(50 * GB * 7.5 / 8)


def test_a_missing_accelerator_is_neither_counted_nor_bought() -> None:
    broken = without(_two_boxes(), {"domain": 1, "slot": 0, "rail": 2})
    facts = summary(broken)
    assert (facts["accelerators"], facts["parts"]["accelerator"], facts["parts"]["nic"]) == (15, 15, 15)
    assert [tier.size for tier in tiers(broken)] == [8, 15]


def test_a_missing_rack_leaves_the_others_as_they_were() -> None:
    three = cluster_blueprint("three", 3, ScaleUp(8, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib"))
    left = without(three, {"domain": 2})
    assert [(t.size, t.bandwidth_Bps) for t in tiers(left)] == [(8, 900 * GB), (16, 50 * GB)]
    assert summary(left)["accelerators"] == 16


def test_coordinates_that_no_class_has_are_refused() -> None:
    with pytest.raises(SpecError, match="no class has together"):
        without(_two_boxes(), {"row": 1})


def test_all_faults_of_a_change_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        degrade(_two_boxes(), "nic", {"rail": 9, "row": 1}, to="spine", factor=-1.0)
    assert len(caught.value.faults) == 4


@st.composite
def changed(draw: st.DrawFn) -> Blueprint:
    """A torus or a small fat tree with up to two things gone or slow."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).filter(lambda sizes: max(sizes) > 1))
    tree = cluster_blueprint(
        "tree",
        draw(st.integers(2, 5)),
        ScaleUp(draw(st.sampled_from([2, 4])), 9 * GB, 1e-6, "nvlink", switches=2),
        ScaleOut(GB, "ib", radix=draw(st.sampled_from([4, 8]))),
    )
    bp = draw(st.sampled_from([_torus(*shape, order=draw(st.sampled_from(["ring", "line"]))), tree]))
    node = next(node for node in bp.nodes if node.kind == "accelerator")
    for _ in range(draw(st.integers(0, 2))):
        at = {axis: draw(st.integers(0, bp.axis[axis].size - 1)) for axis in bp.closure(node.axes)}
        bp = degrade(bp, node.name, at, factor=0.5)
    return bp


@settings(max_examples=40, deadline=None)
@given(changed())
def test_hops_and_parts_equal_those_of_the_full_graph(bp: Blueprint) -> None:
    graph = expand(bp)
    ends = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    away = dict(nx.all_pairs_shortest_path_length(graph))
    assert hop_histogram(bp) == dict(sorted(Counter(away[a][b] for a in ends for b in ends if a != b).items()))
    counted: Counter[str] = Counter(held["part"] for _, held in graph.nodes(data=True) if held["part"])
    for *_, held in graph.edges(data=True):
        if held["link"]:
            counted[held["link"]] += held["links"]
    assert parts(bp) == counted


@settings(max_examples=40, deadline=None)
@given(changed())
def test_the_innermost_tier_is_as_slow_as_its_slowest_accelerator(bp: Blueprint) -> None:
    """An accelerator's own links on the plane bound it, and in these fabrics nothing else does."""
    (tier, *_), graph = tiers(bp), expand(bp)
    ends = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    own = [sum(e["bandwidth_Bps"] for e in graph[n].values() if e["plane"] == tier.plane) for n in ends]
    blocks = Counter(graph.nodes[node]["domain"] for node in ends)
    if all(count == tier.size for count in blocks.values()):
        assert tier.bandwidth_Bps <= min(own) * (1 + 1e-9)
    assert replace(bp, changes=()) != bp or tier.bandwidth_Bps == pytest.approx(min(own))
