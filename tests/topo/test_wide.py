"""Sites over fibre and domains without switches between them: hand values, limits, and the full graph."""

from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass, Order
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import Change, degrade, spans, without
from topo.compose import Border, Core, Fibre, Span, joined
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand, flat
from topo.orbits import quotient
from topo.schema import validate
from topo.wide import Row, direct_blueprint, orbit, sites

GB = 1e9


def _hall(count: int = 2) -> Blueprint:
    return cluster_blueprint("hall", count, ScaleUp(8, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib"))


def _flow(graph: "nx.Graph[str]", left: list[str], right: list[str]) -> float:
    """Maximum flow from some nodes to others, in whole bytes/s."""
    arcs: nx.DiGraph[str] = nx.DiGraph()
    arcs.add_nodes_from(("<", ">"))
    for u, v, held in graph.edges(data=True):
        for pair in ((u, v),) if graph.is_directed() else ((u, v), (v, u)):
            arcs.add_edge(*pair, capacity=round(held["bandwidth_Bps"]))
    arcs.add_edges_from(("<", node) for node in left)
    arcs.add_edges_from((node, ">") for node in right)
    return float(nx.maximum_flow_value(arcs, "<", ">"))


def _cut(bp: Blueprint, axis: str, values: range) -> tuple[float, float]:
    """Maximum flow from the blocks at some values of an axis to all others: on the quotient and on the full graph."""
    full, small = expand(bp), quotient(bp, [{axis: value} for value in range(bp.axis[axis].size)])
    found = []
    for graph, place in ((small, "example"), (full, "coordinates")):
        ends = [(node, held[place][axis]) for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
        left, right = ([n for n, at in ends if (at in values) == side] for side in (True, False))
        found.append(_flow(graph, left, right))
    return found[0], found[1]


# --- sites -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "count", "halves", "lines"),
    [("set", 2, 1, 1), ("set", 4, 2, 4), ("ring", 6, 3, 2), ("line", 6, 3, 1), ("ring", 2, 1, 2), ("line", 2, 1, 1)],
)
def test_a_cut_between_sites_is_the_lines_across(order: Order, count: int, halves: int, lines: int) -> None:
    bp = sites(_hall(), count, 30 * GB, km=100.0, order=order)
    validate(expand(bp))
    assert _cut(bp, "site", range(halves)) == pytest.approx((lines * 30 * GB, lines * 30 * GB))


def test_every_class_is_per_site() -> None:
    bare = Blueprint(
        "bare",
        (Axis("slot", 3), Axis("plane", 2)),
        (
            NodeClass("gpu", "accelerator", ("slot",)),
            NodeClass("free", "switch", ("plane",)),
            NodeClass("hub", "switch", ()),
        ),
        (LinkClass("gpu", "free", GB, 1e-6, "x"), LinkClass("gpu", "hub", GB, 1e-6, "y", plane="scale-out")),
        (Level("all"),),
    )
    two = sites(bare, 2, GB, 10.0)
    assert all("site" in two.closure(node.axes) for node in two.nodes)
    assert [two.population(node.axes) for node in two.nodes] == [6, 4, 2, 2]
    full = expand(two)
    assert sorted(full["site-border[site=1]"]) == ["hub[site=1]", "site-border[site=0]"]
    cut = full.copy()
    cut.remove_edge("site-border[site=0]", "site-border[site=1]")
    assert nx.number_connected_components(cut) == 2


def test_five_microseconds_a_km_and_levels_per_site() -> None:
    bp = sites(_hall(), 2, 30 * GB, 1100.0, border=Border(switch_latency_s=0.0))
    line = expand(bp).edges["site-border[site=0]", "site-border[site=1]"]
    assert line["latency_s"] == pytest.approx(5.5e-3)
    assert (line["link"], line["links"]) == ("fibre", 1)
    assert [(level.name, level.kind, level.axes) for level in bp.levels] == [
        ("domain", "switch", ("site", "domain")),
        ("leaf", "switch", ("site",)),
        ("wan", "wan", ()),
    ]


def test_several_border_switches_share_lines_rounded_up() -> None:
    bp = sites(_hall(8), 3, 200 * GB, 10.0, border=Border(switches=2, link_Bps=40 * GB, cable_Bps=50 * GB))
    assert bp.population(bp.node("site-border").axes) == 6
    up, line = (link for link in bp.links if link.b == "site-border")
    assert (line.count, line.along, up.count, up.a) == (3, ("site",), 1, "leaf")
    assert (line.bandwidth_Bps, up.bandwidth_Bps) == pytest.approx((100 * GB / 3, 400 * GB / 8 / 2))
    assert _cut(bp, "site", range(1))[0] == pytest.approx(400 * GB)


def test_a_remainder_stays_in_every_hall() -> None:
    bp = sites(_hall(49), 2, GB, 10.0)
    assert bp.population(bp.node("accelerator").axes) == 2 * 49 * 8
    validate(expand(bp))


def test_one_site_has_no_border_and_two_on_two_have_both() -> None:
    one = sites(_hall(), 1, GB, 10.0)
    assert {node.name for node in one.nodes} == {node.name for node in _hall().nodes}
    assert one.levels[-1] == _hall().levels[-1]
    four = sites(sites(_hall(), 2, 10 * GB, 1.0), 2, GB, 1000.0, axis="region")
    assert [level.name for level in four.levels] == ["domain", "leaf", "wan", "region.wan"]
    validate(expand(four))
    assert _cut(four, "region", range(1))[0] == pytest.approx(GB)
    with pytest.raises(SpecError, match="is there twice"):
        sites(sites(_hall(), 2, 10 * GB, 1.0), 2, GB, 1000.0)


def test_a_domain_of_its_own_at_every_site_gets_nics() -> None:
    bp = sites(cluster_blueprint("box", 1, ScaleUp(8, 900 * GB, 1e-6, "nvlink"), None), 2, 16 * GB, 1.0)
    validate(expand(bp))
    assert _cut(bp, "site", range(1)) == pytest.approx((16 * GB, 16 * GB))


def test_unlike_pools_at_every_site() -> None:
    both = joined("both", {"a": _hall(2), "b": _hall(4)}, Core("ib"))
    bp = sites(both, 2, 40 * GB, 10.0)
    validate(expand(bp))
    assert _cut(bp, "site", range(1))[0] == pytest.approx(40 * GB)
    assert [level.name for level in bp.levels] == ["domain", "leaf", "joint", "wan"]
    far = sites(joined("far", {"a": _hall(2), "b": _hall(4)}, Fibre((Span("a", "b", GB, 1.0),))), 2, GB, 1.0)
    assert [level.name for level in far.levels][-2:] == ["wan", "site.wan"]


def test_a_missing_site_and_a_change_that_repeats() -> None:
    slow = degrade(_hall(), "nic", {"rail": 3}, to="leaf", factor=0.5)
    bp = without(sites(slow, 3, GB, 10.0), {"site": 1})
    full = expand(bp)
    validate(full)
    assert {held["coordinates"]["site"] for _, held in full.nodes(data=True)} == {0, 2}
    for site in (0, 2):
        nic = f"nic[site={site},domain=0,slot=0,rail=3]"
        assert full.edges[nic, f"leaf[site={site},rail=3]"]["bandwidth_Bps"] == 25 * GB
    one = degrade(sites(_hall(), 3, GB, 10.0), "nic", {"site": 1, "rail": 3}, to="leaf", factor=0.5)
    rates = {s: expand(one).edges[f"nic[site={s},domain=0,slot=0,rail=3]", f"leaf[site={s},rail=3]"] for s in (0, 1)}
    assert [held["bandwidth_Bps"] for held in rates.values()] == [50 * GB, 25 * GB]


def test_all_faults_of_sites_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        sites(_hall(), 0, -1.0, -1.0, order="heap")  # type: ignore[arg-type]
    assert len(caught.value.faults) == 4


# --- domains without switches between them ---------------------------------------------------------------------------


def test_half_a_ring_of_eight_satellites_sends_over_two_links() -> None:
    plane = orbit("plane", 8, ScaleUp(4, 900 * GB, 1e-6, "nvlink"), laser_Bps=100 * GB, km=1.0, lasers=3)
    validate(expand(plane))
    assert _cut(plane, "domain", range(4)) == pytest.approx((600 * GB, 600 * GB))
    line = orbit("row", 8, ScaleUp(4, 900 * GB, 1e-6, "nvlink"), laser_Bps=100 * GB, km=1.0, order="line")
    assert _cut(line, "domain", range(4))[0] == pytest.approx(100 * GB)


def test_a_satellite_lost_leaves_a_ring_the_long_way() -> None:
    plane = orbit("plane", 8, ScaleUp(4, 900 * GB, 1e-6, "nvlink"), 100 * GB, 1.0)
    less = without(plane, {"domain": 4})
    validate(expand(less))
    assert _cut(less, "domain", range(4)) == pytest.approx((100 * GB, 100 * GB))


def test_light_in_vacuum_takes_a_second_for_299792_km() -> None:
    plane = orbit("plane", 4, ScaleUp(4, 900 * GB, 1e-6, "nvlink"), GB, 299_792.458, terminal_latency_s=0.0)
    assert expand(plane).edges["terminal[domain=0]", "terminal[domain=1]"]["latency_s"] == pytest.approx(1.0)


def test_a_satellite_injects_what_its_lasers_carry() -> None:
    for order, lines in (("ring", 2), ("line", 2), ("set", 7)):
        plane = orbit("plane", 8, ScaleUp(4, 900 * GB, 1e-6, "x"), 100 * GB, 1.0, order=order)  # type: ignore[arg-type]
        assert plane.links[1].bandwidth_Bps == pytest.approx(100 * GB * lines / 4)
    alone = orbit("plane", 1, ScaleUp(4, 900 * GB, 1e-6, "x"), 100 * GB, 1.0, order="line")
    validate(expand(alone))


def test_a_torus_of_domains_by_hand() -> None:
    """4 x 4 x 2: across x run 2 links in each of 8 rings; across y the same, of twice the bandwidth."""
    rows = (
        Row("x", 4, 10 * GB, 1e-6, "a"),
        Row("y", 4, 20 * GB, 1e-6, "b"),
        Row("z", 2, 5 * GB, 1e-6, "c", order="line", count=3),
    )
    bp = direct_blueprint("grid", rows, ScaleUp(2, 900 * GB, 1e-6, "nvlink"), 1000 * GB)
    validate(expand(bp))
    assert _cut(bp, "x", range(2)) == pytest.approx((160 * GB, 160 * GB))
    assert _cut(bp, "y", range(2))[0] == pytest.approx(320 * GB)
    assert _cut(bp, "z", range(1))[0] == pytest.approx(16 * 15 * GB)
    assert [(level.name, level.kind, level.axes) for level in bp.levels] == [
        ("domain", "switch", ("x", "y", "z")),
        ("torus", "torus", ()),
    ]
    assert "accelerator[x=3,y=0,z=1,slot=1,rail=0]" in expand(bp)


def test_domains_of_two_layers_and_of_one_accelerator() -> None:
    rows = (Row("x", 3, GB, 1e-6, "a"), Row("y", 2, GB, 1e-6, "a", order="set"))
    two = direct_blueprint("two", rows, ScaleUp(4, 9 * GB, 1e-6, "n", switches=1, layers=2, inner=2), GB)
    validate(expand(two))
    assert [level.axes for level in two.levels] == [("x", "y", "block"), ("x", "y"), ()]
    assert len({held["domain"] for _, held in expand(two).nodes(data=True) if held["kind"] == "accelerator"}) == 6
    one = direct_blueprint("one", rows, ScaleUp(1, 0.0, 0.0, ""), GB, kind="mesh")
    validate(expand(one))
    assert [level.name for level in one.levels] == ["mesh"]


def test_all_faults_of_rows_come_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        Row("x", 0, 0.0, -1.0, "a", order="heap", count=0)  # type: ignore[arg-type]
    assert len(caught.value.faults) == 5
    with pytest.raises(SpecError) as caught:
        direct_blueprint("none", (), ScaleUp(8, GB, 1e-6, "x"), 0.0, latency_s=-1.0)
    assert len(caught.value.faults) == 3
    with pytest.raises(SpecError) as caught:
        orbit("none", 0, ScaleUp(8, GB, 1e-6, "x"), GB, -1.0)
    assert len(caught.value.faults) == 2


# --- quotient against the full graph ---------------------------------------------------------------------------------


@st.composite
def wide(draw: st.DrawFn) -> tuple[Blueprint, str]:
    """Small sites of halls, or rows of domains, with up to two changes; and the axis that they stand along."""
    up = ScaleUp(draw(st.integers(1, 3)), 96 * GB, 1e-6, "nvlink", draw(st.integers(1, 2)))
    some_Bps = st.integers(1, 20).map(lambda n: n * GB)
    order: Order = draw(st.sampled_from(("set", "ring", "line")))
    count = draw(st.integers(2, 5))
    if draw(st.booleans()):
        out = ScaleOut(4 * GB, "ib", draw(st.sampled_from([1, 2])), 6)
        hall = cluster_blueprint("hall", draw(st.integers(1, 4)), up, out)
        border = Border(switches=draw(st.integers(1, 2)), link_Bps=3 * GB)
        bp, axis = sites(hall, count, draw(some_Bps), 10.0, order, border), "site"
    else:
        rows = (Row("x", count, draw(some_Bps), 1e-6, "a", order), Row("y", draw(st.integers(1, 3)), GB, 1e-6, "b"))
        bp, axis = direct_blueprint("grid", rows[: draw(st.integers(1, 2))], up, 8 * GB), "x"
    changes = []
    for link in draw(st.lists(st.sampled_from(bp.links), max_size=2)):
        own = bp.closure(bp.node(link.a).axes)
        names = draw(st.lists(st.sampled_from(own), unique=True))
        at = {name: draw(st.integers(0, bp.axis[name].size - 1)) for name in names}
        gone = bp.node(link.a).kind != "accelerator" and draw(st.booleans())
        changes.append(Change(link.a, spans(at), draw(st.sampled_from(["", link.b])), (), 0.0 if gone else 0.5))
    return replace(bp, changes=tuple(changes)), axis


@settings(max_examples=60, deadline=None)
@given(wide(), st.data())
def test_flow_between_sites_is_the_same_on_quotient_and_full_graph(
    case: tuple[Blueprint, str], data: st.DataObject
) -> None:
    bp, axis = case
    full = expand(bp)
    assert len(set(flat(bp).names)) == full.number_of_nodes()
    assert full.number_of_nodes() == sum(nx.get_node_attributes(quotient(bp), "multiplicity").values())
    if not bp.changes:
        validate(full)
    on_quotient, on_graph = _cut(bp, axis, range(data.draw(st.integers(1, bp.axis[axis].size - 1))))
    assert on_quotient == pytest.approx(on_graph, rel=1e-6, abs=100)
