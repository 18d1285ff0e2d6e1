"""What a drawing shows: every node and link counted once, in the right frame and row, changes apart."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.compose import Core, Fibre, Span, joined
from topo.domains import ScaleUp
from topo.framing import rows, steps
from topo.graphs import expand, flat
from topo.loads import link_loads
from topo.orbits import orbit_graph
from topo.outline import Box, Frame, class_loads, outline


def _clos(domains: int, size: int = 8, **out: object) -> Blueprint:
    up = ScaleUp(size, 900e9, 1e-6, "nvlink", switches=4)
    return cluster_blueprint("clos", domains, up, ScaleOut(50e9, "ib", **out) if domains > 1 else None)  # type: ignore[arg-type]


def _torus(*shape: int) -> Blueprint:
    names = "xyzw"[: len(shape)]
    axes = tuple(Axis(name, size, order="ring") for name, size in zip(names, shape, strict=True))
    links = tuple(LinkClass("chip", "chip", 100e9, 1e-6, "ici", along=(name,)) for name in names)
    chip = NodeClass("chip", "accelerator", tuple(names))
    return Blueprint("torus", axes, (chip,), links, (Level("torus", "torus"),))


def _frames(frame: Frame) -> list[Frame]:
    return [frame, *chain.from_iterable(map(_frames, frame.frames))]


def _boxes(frame: Frame) -> list[Box]:
    return [box for held in _frames(frame) for box in held.boxes]


def test_frames_nest_as_the_levels_do() -> None:
    root = outline(_clos(576)).root
    found = [(f.name, f.each, f.count, f.accelerators, [b.name for b in f.boxes]) for f in _frames(root)]
    assert found == [
        ("", 1, 1, 4608, ["core"]),
        ("pod", 6, 6, 4608, ["spine"]),
        ("unit", 3, 18, 4608, ["leaf"]),
        ("domain", 32, 576, 4608, ["nic", "accelerator", "scale-up-switch"]),
    ]


def test_rows_climb_from_the_accelerators() -> None:
    assert rows(_clos(576)) == {"accelerator": 0, "scale-up-switch": -1, "nic": 1, "leaf": 2, "spine": 3, "core": 4}


def test_a_second_layer_of_scale_up_lies_below_the_first() -> None:
    up = ScaleUp(576, 900e9, 1e-6, "nvlink", layers=2)
    bp = cluster_blueprint("two layers", 8, up, ScaleOut(50e9, "ib"))
    assert (rows(bp)["scale-up-switch"], rows(bp)["outer-switch"]) == (-1, -2)
    assert [name for name, _ in steps(bp)["accelerator"]] == ["pod", "domain", "group", "block"]


def test_switches_of_wider_blocks_lie_further_out_though_accelerators_reach_both() -> None:
    bp = Blueprint(
        "sleds",
        (Axis("rack", 2), Axis("sled", 3, "rack"), Axis("chip", 4, "sled")),
        (
            NodeClass("gpu", "accelerator", ("chip",)),
            NodeClass("near", "switch", ("sled",)),
            NodeClass("far", "switch", ("rack",)),
        ),
        (LinkClass("gpu", "near", 2.0, 0.0, "a"), LinkClass("gpu", "far", 1.0, 0.0, "b")),
        (Level("sled", axes=("sled",)), Level("rack", axes=("rack",)), Level("all")),
    )
    assert rows(bp) == {"gpu": 0, "near": -1, "far": -2}


def test_a_bundle_tells_links_per_node_and_bandwidth_per_accelerator() -> None:
    found = outline(_clos(576, oversubscription=2.0))
    names = {box.key: box.name for box in _boxes(found.root)}
    shares = {(names[b.a], names[b.b]): b.share_Bps / 1e9 for b in found.bundles}
    assert shares["accelerator", "scale-up-switch"] == 900
    assert shares["nic", "leaf"] == 50
    assert shares["leaf", "spine"] == 25
    up = next(b for b in found.bundles if names[b.a] == "accelerator" and names[b.b] == "scale-up-switch")
    assert (up.each, up.links, up.bandwidth_Bps / 1e9) == (4, 4 * 4608, 225)


def test_a_slow_rail_stands_apart_and_nothing_else_does() -> None:
    found = outline(degrade(_clos(128), "nic", {"rail": 3}, to="leaf", factor=0.5))
    boxes = _boxes(found.root)
    assert [(b.name, b.where, b.each) for b in boxes if b.name in ("nic", "leaf", "accelerator")] == [
        ("leaf", "", 8),
        ("nic", "", 7),
        ("nic", "rail 3", 1),
        ("accelerator", "", 8),
    ]
    slow = [b for b in found.bundles if b.kept != 1]
    assert [(b.kept, b.links, b.share_Bps / 1e9) for b in slow] == [(0.5, 128, 50 / 8 / 2)]
    assert found.root.changes == ("nic rail 3 – leaf at 50%",)


def test_a_lost_domain_is_gone_and_the_others_are_one_frame() -> None:
    found = outline(without(_clos(32), {"domain": 3}))
    assert found.accelerators == 31 * 8
    assert [(f.where, f.each, f.changes) for f in found.root.frames] == [("", 31, ()), ("domain 3", 1, ("gone",))]
    assert found.root.changes == ("domain 3 gone",)
    gone = {box.key for box in _boxes(found.root.frames[1])}
    assert not [b for b in found.bundles if {b.a, b.b} & gone]


def test_a_remainder_is_a_frame_of_its_own() -> None:
    frames = outline(_clos(127)).root.frames
    assert [(f.name, f.where, f.each, f.accelerators) for f in frames] == [
        ("unit", "", 3, 96 * 8),
        ("unit", "unit 3", 1, 31 * 8),
    ]


def test_a_torus_is_one_box_with_its_axes_and_a_dead_chip_another() -> None:
    (box,) = _boxes(outline(_torus(16, 20, 28)).root)
    assert [(d.axes, d.size, d.order, d.ways) for d in box.direct] == [
        (("x",), 16, "ring", 2),
        (("y",), 20, "ring", 2),
        (("z",), 28, "ring", 2),
    ]
    alive, dead = _boxes(outline(without(_torus(4, 4), {"x": 1, "y": 2})).root)
    assert (alive.count, alive.kept, dead.count, dead.kept, dead.where) == (15, 1, 1, 0, "x 1, y 2")


def test_pools_are_frames_side_by_side_below_their_core() -> None:
    both = joined("both", {"old": _clos(128), "new": _clos(4, 72)}, Core("xdr", {"old": 8e11, "new": 8e11}))
    found = outline(both)
    assert [frame.name for frame in found.root.frames] == ["old", "new"]
    assert [box.name for box in found.root.boxes] == ["core"]
    assert rows(both)["core"] > max(row for name, row in rows(both).items() if name != "core")


def test_borders_of_unlike_sites_lie_level() -> None:
    fibre = Fibre((Span("a", "b", 1e12, 80.0),))
    bp = joined("sites", {"a": _clos(128), "b": _clos(4)}, fibre)
    assert rows(bp)["a.border"] == rows(bp)["b.border"] == 4


def test_loads_come_by_class_and_the_worse_direction_counts() -> None:
    found = outline(_clos(2), {("nic", "leaf"): 0.3, ("leaf", "nic"): 0.9})
    assert sorted(b.load for b in found.bundles if b.load is not None) == [0.9]


def test_loads_of_a_pattern_are_found_by_class() -> None:
    bp = _clos(2)
    w = flat(bp)
    one, other = w.accelerators[0], w.accelerators[8]
    loads = class_loads(bp, link_loads(w, (np.array([one]), np.array([other]), 25e9)))
    assert loads["nic", "leaf"] == loads["leaf", "nic"] == pytest.approx(0.5)


@st.composite
def _changed(draw: st.DrawFn) -> Blueprint:
    bp = _clos(draw(st.integers(2, 40)), draw(st.sampled_from([2, 4, 8])), radix=16)
    for _ in range(draw(st.integers(0, 2))):
        node = draw(st.sampled_from([n for n in bp.nodes if n.axes]))
        axes = draw(st.sets(st.sampled_from(bp.closure(node.axes)), min_size=1, max_size=2))
        at: dict[str, int | range] = {axis: draw(st.integers(0, bp.axis[axis].size - 1)) for axis in sorted(axes)}
        bp = degrade(bp, node.name, at, factor=draw(st.sampled_from([0.0, 0.5])))
    return bp


@settings(max_examples=50, deadline=None)
@given(_changed())
def test_every_node_and_link_is_in_the_outline_once(bp: Blueprint) -> None:
    found, whole, left = outline(bp), expand(replace(bp, changes=())), expand(bp)
    boxes = {box.key: box for box in _boxes(found.root)}
    nodes, alive = Counter[str](), Counter[str]()
    for box in boxes.values():
        nodes[box.name] += box.count
        alive[box.name] += box.count if box.kept else 0
    assert nodes == Counter(held["node_class"] for _, held in whole.nodes(data=True))
    assert +alive == Counter(held["node_class"] for _, held in left.nodes(data=True))
    assert found.accelerators == sum(held["kind"] == "accelerator" for _, held in left.nodes(data=True))
    drawn_Bps = sum(b.links * b.bandwidth_Bps * b.kept for b in found.bundles)
    assert drawn_Bps == pytest.approx(sum(held["bandwidth_Bps"] for *_, held in left.edges(data=True)))
    assert bool(found.root.changes) == (left.number_of_nodes() < whole.number_of_nodes() or _slower(whole, left))


def _slower(whole: object, left: object) -> bool:
    def rates(graph: object) -> float:
        return sum(held["bandwidth_Bps"] for *_, held in graph.edges(data=True))  # type: ignore[attr-defined]

    return rates(left) < rates(whole)


@pytest.mark.parametrize("domains", [1, 576, 62_500])
def test_the_outline_of_any_size_has_few_boxes(domains: int) -> None:
    bp = _clos(domains, radix=128)
    assert len(_boxes(outline(bp).root)) == len(orbit_graph(bp).members) <= 20
