"""Unlike pools in one cluster: names, layers between them, levels, and flows against the full graph."""

from collections.abc import Callable
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blocks import injection, outermost, prefixed
from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import Change, degrade, spans, without
from topo.compose import TOPS, Border, Core, Fibre, Span, joined
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand, flat
from topo.orbits import quotient
from topo.schema import validate
from topo.wide import orbit, sites

GB = 1e9


def _racks(count: int, size: int, part: str = "gpu") -> Blueprint:
    return cluster_blueprint("racks", count, ScaleUp(size, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib"), part)


def _box(size: int) -> Blueprint:
    return cluster_blueprint("box", 1, ScaleUp(size, 900 * GB, 1e-6, "nvlink", switches=4), None, "sram")


def _flow(graph: "nx.Graph[str]", mine: Callable[[str], bool], theirs: Callable[[str], bool]) -> float:
    """Maximum flow from some accelerators to others, in whole bytes/s."""
    arcs: nx.DiGraph[str] = nx.DiGraph()
    arcs.add_nodes_from(("<", ">"))
    for u, v, held in graph.edges(data=True):
        for pair in ((u, v),) if graph.is_directed() else ((u, v), (v, u)):
            arcs.add_edge(*pair, capacity=round(held["bandwidth_Bps"]))
    ends = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    arcs.add_edges_from(("<", node) for node in ends if mine(node))
    arcs.add_edges_from((node, ">") for node in ends if theirs(node))
    return float(nx.maximum_flow_value(arcs, "<", ">"))


def _between(bp: Blueprint, a: str, b: str) -> float:
    """Maximum flow from pool to pool, on the quotient."""
    return _flow(quotient(bp), lambda n: n.startswith(f"{a}."), lambda n: n.startswith(f"{b}."))


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_pool_carries_its_name_everywhere_and_hangs_below_one_axis() -> None:
    bp = prefixed(degrade(_racks(2, 8), "nic", {"rail": 3}, to="leaf", to_at={"rail": 3}, factor=0.5), "old")
    assert [(axis.name, axis.within) for axis in bp.axes] == [
        ("old", None),
        ("old.domain", "old"),
        ("old.slot", "old.domain"),
        ("old.rail", "old"),
        ("old.port", "old"),
    ]
    assert {node.name for node in bp.nodes} == {"old.accelerator", "old.scale-up-switch", "old.nic", "old.leaf"}
    assert [level.name for level in bp.levels] == ["old.domain", "old.leaf"]
    rail = spans({"old.rail": 3})
    assert bp.changes == (Change("old.nic", rail, "old.leaf", rail, 0.5),)


def test_a_pool_has_the_graph_it_had() -> None:
    bp = _racks(9, 4)
    old, new = expand(bp), expand(prefixed(bp, "p"))
    renamed = nx.relabel_nodes(new, lambda n: n.replace("p=0,", "").replace("p.", ""))
    assert set(renamed) == set(old)
    edges = {frozenset((u, v)): held for u, v, held in renamed.edges(data=True)}
    assert edges == {frozenset((u, v)): held for u, v, held in old.edges(data=True)}
    assert [held["domain"] for _, held in new.nodes(data=True)] == [held["domain"] for _, held in old.nodes(data=True)]


@pytest.mark.parametrize("name", ["", "a b", "a[0]", "a=b", "a,b", "a.b"])
def test_a_pool_name_that_would_make_node_names_unreadable_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="is no name"):
        prefixed(_racks(2, 8), name)


def test_one_pool_alone_is_itself_under_another_name() -> None:
    bp = _racks(40, 8)
    alone = joined("alone", {"p": bp}, Core("ib"))
    own = prefixed(bp, "p")
    assert (alone.axes, alone.nodes, alone.links) == (own.axes, own.nodes, own.links)
    assert [level.name for level in alone.levels] == [level.name for level in bp.levels]
    assert alone.levels[-1].axes == ()


# --- where a pool ends -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bp", "ends"),
    [
        (_racks(2, 8), ["leaf"]),
        (_racks(128, 8), ["spine"]),
        (_racks(512, 8), ["core"]),
        (_box(8), []),
        (orbit("o", 8, ScaleUp(4, 9 * GB, 1e-6, "x"), GB, 1.0), ["terminal"]),
        (sites(_racks(2, 8), 2, GB, 10.0), ["site-border"]),
        (joined("both", {"a": _racks(2, 8), "b": _racks(4, 8)}, Core("ib")), ["core"]),
    ],
)
def test_a_cluster_ends_at_its_outermost_switches(bp: Blueprint, ends: list[str]) -> None:
    assert [node.name for node in outermost(bp)] == ends


def test_injection_counts_what_is_not_broken() -> None:
    assert injection(without(_racks(4, 8), {"domain": 1})) == 32 * 50 * GB
    assert injection(_box(8)) == 0


# --- shared switches -------------------------------------------------------------------------------------------------


def test_two_unlike_pools_have_the_bandwidth_between_them_that_was_asked_for() -> None:
    both = joined("both", {"old": _racks(8, 8), "new": _racks(2, 72)}, Core("ib", {"old": 800 * GB, "new": 1600 * GB}))
    validate(expand(both))
    assert _between(both, "old", "new") == pytest.approx(800 * GB)
    assert _between(both, "new", "old") == pytest.approx(800 * GB)


def test_oversubscription_is_over_all_nics_of_the_smaller_pool() -> None:
    both = joined("both", {"old": _racks(8, 8), "new": _racks(2, 72)}, Core("ib", oversubscription=4.0))
    assert _between(both, "old", "new") == pytest.approx(64 * 50 * GB / 4)


def test_a_domain_without_a_network_gets_nics() -> None:
    both = joined("both", {"fast": _box(8), "many": _racks(2, 8)}, Core("ib", {"fast": 200 * GB}, nic_part="cx"))
    nic = both.node("fast.nic")
    assert (nic.kind, nic.part, both.population(nic.axes)) == ("nic", "cx", 8)
    assert _between(both, "fast", "many") == pytest.approx(200 * GB)
    full = expand(both)
    validate(full)
    # A cable and half of the one switch at its end.
    assert full.edges["fast.nic[fast=0,fast.domain=0,fast.slot=7,fast.rail=0]", "core[core=0]"][
        "latency_s"
    ] == pytest.approx(0.4e-6)


def test_a_domain_without_a_network_must_say_its_bandwidth() -> None:
    with pytest.raises(SpecError, match="has no NICs"):
        joined("both", {"fast": _box(8), "many": _racks(2, 8)}, Core("ib"))


def test_shared_switches_are_the_fewest_with_the_ports() -> None:
    """8 + 8 leaves of 2 cables of 50 GB/s each: 32 ports on one switch, 16 on each of two."""
    pools = {"a": _racks(2, 8), "b": _racks(4, 8)}
    rates = {"a": 800 * GB, "b": 800 * GB}
    for radix, switches, cables in ((32, 1, 2), (31, 2, 1), (16, 2, 1)):
        bp = joined("both", pools, Core("ib", rates, radix=radix, cable_Bps=50 * GB))
        assert bp.axis["core"].size == switches
        assert [link.count for link in bp.links if link.b == "core"] == [cables, cables]
        assert _between(bp, "a", "b") == pytest.approx(800 * GB)
    with pytest.raises(SpecError, match="less than the 16 ports"):
        joined("both", pools, Core("ib", rates, radix=15, cable_Bps=50 * GB))
    with pytest.raises(SpecError, match="less than the 32 ports of 1 "):
        joined("both", pools, Core("ib", rates, switches=1, radix=31, cable_Bps=50 * GB))
    assert joined("both", pools, Core("ib", rates, switches=3)).axis["core"].size == 3


def test_cables_are_rounded_up_and_bandwidth_is_not() -> None:
    bp = joined("both", {"a": _racks(2, 8), "b": _racks(4, 8)}, Core("ib", {"a": 900 * GB}, cable_Bps=50 * GB))
    (link,) = [link for link in bp.links if (link.a, link.b) == ("a.leaf", "core")]
    assert link.count == 3
    assert link.bandwidth_Bps * 3 == pytest.approx(900 * GB / 8)


def test_ten_racks_of_72_and_four_of_36_with_one_slow_rail() -> None:
    bp = joined("mixed", {"large": _racks(10, 72), "small": _racks(4, 36)}, Core("ib", cable_Bps=50 * GB))
    slow = degrade(bp, "large.nic", {"large.rail": 3}, to="large.leaf", factor=0.5)
    full = expand(slow)
    validate(full)
    assert sum(held["kind"] == "accelerator" for _, held in full.nodes(data=True)) == 10 * 72 + 4 * 36
    assert len(quotient(slow)) < 40
    # The first rack: 9 NICs on each of 8 rails, one rail at half its rate.
    racks = quotient(slow, [{"large.unit": 0, "large.domain": 0}])
    first = {n for n in racks if "large.unit=0,large.domain=0" in n}
    rate_Bps = _flow(racks, first.__contains__, lambda n: n.startswith("small."))
    assert rate_Bps == pytest.approx(9 * (7 * 50 + 25) * GB)


# --- fibre -----------------------------------------------------------------------------------------------------------


def test_sites_far_apart_share_the_line_and_wait_five_microseconds_a_km() -> None:
    line = Fibre((Span("east", "west", 400 * GB, 1100.0),), Border(switch_latency_s=0.0))
    bp = joined("wan", {"east": _racks(8, 8), "west": _racks(16, 8)}, line)
    full = expand(bp)
    validate(full)
    assert _between(bp, "east", "west") == pytest.approx(400 * GB)
    assert full.edges["east.border[east=0]", "west.border[west=0]"]["latency_s"] == pytest.approx(5.5e-3)
    assert bp.levels[-1] == Level("wan", "wan", "scale-out")


def test_a_site_without_a_line_of_its_own_goes_through() -> None:
    line = Fibre((Span("a", "b", 400 * GB, 10.0), Span("c", "b", 100 * GB, 20.0)))
    bp = joined("row", {name: _racks(2, 8) for name in "abc"}, line)
    assert _between(bp, "a", "c") == pytest.approx(100 * GB)
    assert _between(bp, "a", "b") == pytest.approx(400 * GB)


def test_lines_are_dealt_over_border_switches_and_rounded_up() -> None:
    border = Border(switches=4, link_Bps=50 * GB, part="edge", link="wave")
    bp = joined("wan", {"a": _racks(2, 8), "b": _racks(2, 8)}, Fibre((Span("a", "b", 1000 * GB, 1.0),), border))
    (line,) = [link for link in bp.links if link.link == "wave"]
    assert line.count == 5
    assert line.bandwidth_Bps == pytest.approx(50 * GB)
    assert bp.population(bp.node("a.border").axes) == 4
    assert _between(bp, "a", "b") == pytest.approx(800 * GB)  # the NICs of a
    full = expand(bp)
    assert full.has_edge("a.border[a=0,border=2]", "b.border[b=0,border=2]")
    assert not full.has_edge("a.border[a=0,border=2]", "b.border[b=0,border=1]")


def test_pools_that_no_line_reaches_and_lines_to_nowhere_are_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        joined("x", {name: _racks(2, 8) for name in "abc"}, Fibre((Span("a", "z", GB, 1.0),)))
    assert [(fault.field, fault.value) for fault in caught.value.faults] == [
        ("spans[0]", "z"),
        ("spans", "b"),
        ("spans", "c"),
    ]


# --- arguments -------------------------------------------------------------------------------------------------------


def test_all_faults_of_the_arguments_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Core("x", {"a": -1.0}, 0.0, 0, 0, 0.0, -1.0, -1.0)
    assert len(caught.value.faults) == 7
    with pytest.raises(SpecError) as caught:
        Border(switches=0, link_Bps=0.0, cable_Bps=-1.0, s_per_km=-1.0, latency_s=-1.0, switch_latency_s=-1.0)
    assert len(caught.value.faults) == 6
    with pytest.raises(SpecError) as caught:
        Fibre((Span("a", "a", 0.0, -1.0), Span("a", "b", 0.0, 1.0)))
    assert len(caught.value.faults) == 4
    with pytest.raises(SpecError, match="is no pool"):
        joined("x", {"a": _racks(2, 8), "b": _racks(2, 8)}, Core("x", {"c": GB}))
    with pytest.raises(SpecError, match="name at least one"):
        joined("x", {}, Core("x"))


# --- levels ----------------------------------------------------------------------------------------------------------


def _level(bp: Blueprint, name: str) -> Level:
    return next(level for level in bp.levels if level.name == name)


def test_levels_are_aligned_innermost_first_and_the_shorter_list_repeats_its_last_block() -> None:
    bp = joined("x", {"big": _racks(128, 8), "box": _box(8), "one": _racks(16, 1)}, Core("ib", {"box": GB}))
    assert [(level.name, level.kind, level.plane) for level in bp.levels] == [
        ("domain", "switch", "scale-up"),
        ("leaf", "switch", "scale-out"),
        ("spine", "switch", "scale-out"),
        ("joint", "switch", "scale-out"),
    ]
    own = {
        pool: [bp.own(level, bp.node(f"{pool}.accelerator")) for level in bp.levels] for pool in ("big", "box", "one")
    }
    assert own["big"] == [("big", "big.unit", "big.domain"), ("big", "big.unit"), ("big",), ()]
    assert own["box"] == [("box",), ("box",), ("box",), ()]
    single = ("one", "one.domain", "one.slot", "one.rail")
    assert own["one"] == [single, ("one",), ("one",), ()]


def test_levels_of_unlike_kind_stay_apart() -> None:
    ring = orbit("o", 4, ScaleUp(2, 9 * GB, 1e-6, "x"), GB, 1.0)
    bp = joined("x", {"sky": ring, "ground": _racks(2, 8)}, Core("ib"))
    assert [(level.name, level.kind) for level in bp.levels] == [
        ("domain", "switch"),
        ("laser", "laser"),
        ("leaf", "switch"),
        ("joint", "switch"),
    ]
    assert bp.own(_level(bp, "laser"), bp.node("ground.accelerator")) == ("ground", "ground.domain")
    assert bp.own(_level(bp, "leaf"), bp.node("sky.accelerator")) == ("sky",)


def test_levels_of_one_name_and_two_kinds_carry_their_pools() -> None:
    def ring(kind: str) -> Blueprint:
        return Blueprint(
            "ring",
            (Axis("x", 4, order="ring"),),
            (NodeClass("chip", "accelerator", ("x",)),),
            (LinkClass("chip", "chip", GB, 1e-6, "ici", along=("x",)),),
            (Level("domain", kind),),
        )

    bp = joined("x", {"a": ring("torus"), "b": ring("mesh"), "c": ring("mesh")}, Core("ib", dict.fromkeys("abc", GB)))
    assert [level.name for level in bp.levels] == ["a.domain", "b+c.domain", "joint"]
    validate(expand(bp))


def test_a_joint_of_joints_has_levels_of_its_own() -> None:
    inner = joined("inner", {"a": _racks(2, 8), "b": _racks(4, 8)}, Core("ib"))
    outer = joined("outer", {"x": inner, "y": _racks(2, 8)}, Core("ib", {"x": 300 * GB, "y": 200 * GB}))
    assert [level.name for level in outer.levels] == ["domain", "leaf", "joint", "outer.joint"]
    assert outer.own(_level(outer, "joint"), outer.node("x.a.accelerator")) == ("x",)
    assert outer.own(_level(outer, "leaf"), outer.node("x.a.accelerator")) == ("x", "x.a")
    validate(expand(outer))
    assert _between(outer, "x", "y") == pytest.approx(200 * GB)
    assert _between(outer, "x.a", "x.b") == pytest.approx(16 * 50 * GB)


def test_domains_of_unlike_pools_are_numbered_on() -> None:
    full = expand(joined("x", {"a": _racks(3, 8), "b": _box(4)}, Core("ib", {"b": GB})))
    homes = {held["domain"] for _, held in full.nodes(data=True) if held["kind"] == "accelerator"}
    assert homes == {0, 1, 2, 3}
    assert full.nodes["core[core=0]"]["domain"] is None


# --- faults ----------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_by_pool() -> None:
    bp = joined("x", {"a": _racks(4, 8), "b": _racks(4, 8)}, Core("ib"))
    less = without(without(bp, {"a.domain": 2}), {"b.domain": 0, "b.slot": 0, "b.rail": 5})
    ends = [n for n, held in expand(less).nodes(data=True) if held["kind"] == "accelerator"]
    assert sum(n.startswith("a.") for n in ends) == 24
    assert sum(n.startswith("b.") for n in ends) == 31
    gone = without(bp, {"b": 0})
    assert all(n.startswith(("a.", "core")) for n in expand(gone))
    with pytest.raises(SpecError, match="no class"):
        without(bp, {"domain": 2})


# --- quotient against the full graph ---------------------------------------------------------------------------------


@st.composite
def pools(draw: st.DrawFn) -> Blueprint:
    """Small clusters: fat trees of few ports, single domains, rings of domains."""
    up = ScaleUp(draw(st.integers(1, 3)), 96 * GB, 1e-6, "nvlink", draw(st.integers(1, 2)))
    count, kind = draw(st.integers(1, 4)), draw(st.sampled_from(["tree", "box", "ring"]))
    if kind == "box":
        return cluster_blueprint("box", 1, up, None)
    if kind == "ring":
        return orbit(
            "ring", count, up, 6 * GB, 1.0, nic_Bps=4 * GB, order=draw(st.sampled_from(["ring", "line", "set"]))
        )
    return cluster_blueprint("tree", count, up, ScaleOut(4 * GB, "ib", draw(st.sampled_from([1, 2])), 6))


@st.composite
def changed(draw: st.DrawFn, bp: Blueprint) -> Blueprint:
    """The same with up to two changes: a switch gone, an accelerator slow, links cut or slow."""
    changes = []
    for link in draw(st.lists(st.sampled_from(bp.links), max_size=2)) if bp.links else ():
        node, to = draw(st.permutations((link.a, link.b)))
        at: dict[str, int | range] = {}
        for axis in draw(st.lists(st.sampled_from(bp.closure(bp.node(node).axes)), unique=True)):
            at[axis] = draw(st.integers(0, bp.axis[axis].size - 1))
        whole = draw(st.booleans())
        gone = not whole or bp.node(node).kind != "accelerator"
        changes.append(Change(node, spans(at), "" if whole else to, (), 0.0 if gone and draw(st.booleans()) else 0.5))
    return replace(bp, changes=(*bp.changes, *changes))


@st.composite
def joints(draw: st.DrawFn) -> Blueprint:
    """Two or three pools, over shared switches or fibre."""
    held = {name: draw(changed(draw(pools()))) for name in ("a", "b", "c")[: draw(st.integers(2, 3))]}
    some_Bps = st.integers(1, 30).map(lambda n: n * GB)
    if draw(st.booleans()):
        rates = {name: draw(some_Bps) for name, bp in held.items() if not injection(bp) or draw(st.booleans())}
        top: Core | Fibre = Core("ib", rates, draw(st.sampled_from([1.0, 3.0])), draw(st.integers(1, 3)), None, 4 * GB)
    else:
        pairs = list(zip("aab", "bcc", strict=True)) if draw(st.booleans()) else [("a", "b"), ("c", "b")]
        lines = tuple(Span(u, v, draw(some_Bps), 10.0) for u, v in pairs if u in held and v in held)
        top = Fibre(lines, Border(switches=draw(st.integers(1, 2)), link_Bps=7 * GB))
    return draw(changed(joined("x", held, top)))


@settings(max_examples=60, deadline=None)
@given(joints())
def test_flow_between_pools_is_the_same_on_quotient_and_full_graph(bp: Blueprint) -> None:
    full, small = expand(bp), quotient(bp)
    assert (
        len(set(flat(bp).names))
        == full.number_of_nodes()
        == sum(nx.get_node_attributes(small, "multiplicity").values())
    )
    if not bp.changes:
        validate(full)
    for a, b in (("a.", "b."), ("b.", "a.")):
        here, there = (lambda n, a=a: n.startswith(a)), (lambda n, b=b: n.startswith(b))
        assert _flow(small, here, there) == pytest.approx(_flow(full, here, there), rel=1e-6, abs=100)


@settings(max_examples=40, deadline=None)
@given(joints(), st.data())
def test_flow_from_one_accelerator_to_another_pool_is_the_same_on_both(bp: Blueprint, data: st.DataObject) -> None:
    full = expand(bp)
    one = data.draw(st.sampled_from([n for n in full if n.startswith("a.accelerator")]))
    at = full.nodes[one]["coordinates"]
    small = quotient(bp, [at])
    theirs = lambda n: n.startswith("b.")  # noqa: E731
    orbits = [
        n
        for n, held in small.nodes(data=True)
        if held["node_class"] == "a.accelerator" and held["example"] == at and held["multiplicity"] == 1
    ]
    assert len(orbits) == 1
    assert _flow(small, lambda n: n in orbits, theirs) == pytest.approx(
        _flow(full, lambda n: n == one, theirs), rel=1e-6, abs=100
    )


def test_every_kind_of_layer_has_a_level_and_parts() -> None:
    for kind, made in TOPS.items():
        assert made.level.axes == (), kind
        assert made.level.plane == "scale-out"
