"""Scale-up domains: published counts, and every wiring against the full graph in a cluster."""

import math
from collections import Counter, defaultdict
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.direct import FullMesh, Torus
from topo.domains import Domain, ScaleUp
from topo.errors import SpecError
from topo.graphs import expand, flat
from topo.nested import Nested, Tie
from topo.orbits import orbit_graph, quotient
from topo.schema import validate
from topo.tiers import tiers

GB = 1e9
CLOUD_MATRIX = ScaleUp(384, 392 * GB, 1e-6, "ub", switches=7, layers=2, inner=8, outer_switches=112, sub_planes=7)
BOARDFLY = Nested(
    (
        Tie("chip", 4, 300 * GB, 5e-7, "board"),
        Tie("board", 8, 350 * GB, 5e-7, "copper"),
        Tie("group", 36, 550 * GB, 5e-7, "optical"),
    )
)


def _one(up: Domain) -> Blueprint:
    return cluster_blueprint("one", 1, up, None)


def _pod(*shape: int) -> Torus:
    return Torus(shape, 45 * GB, 1e-6, "copper", cube=4, optical_link="optical", circuit_switch_part="ocs")


def _cores(*shape: int) -> Torus:
    return Torus(shape, 8 * GB, 1e-9, "", wrap=False)


def _diameter(bp: Blueprint) -> int:
    """Hops from one accelerator to the furthest, where all places are alike."""
    graph = quotient(bp, [dict.fromkeys(bp.closure(bp.node("accelerator").axes), 0)])
    start = next(node for node, held in graph.nodes(data=True) if set(held["example"].values()) == {0})
    away = nx.single_source_shortest_path_length(graph, start)
    return max(hops for node, hops in away.items() if graph.nodes[node]["kind"] == "accelerator")


def _count(bp: Blueprint, name: str) -> int:
    return bp.population(bp.node(name).axes)


# --- published counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("up", "diameter"),
    [
        (Torus((16, 16), 50 * GB, 1e-6, "ici"), 16),  # TPU v5e
        (_pod(16, 16, 16), 24),  # TPU v4
        (_pod(8, 8, 16), 16),  # 1,024 chips, which Google compares with Boardfly's 7
        (BOARDFLY, 3),
        (FullMesh(8, 448 * GB, 1e-6, "xgmi"), 1),
    ],
)
def test_diameter_in_links(up: Domain, diameter: int) -> None:
    assert _diameter(_one(up)) == diameter


def test_full_mesh_of_eight_has_56_link_ends_of_one_peer_each() -> None:
    graph = expand(_one(FullMesh(8, 448 * GB, 2e-6, "xgmi")))
    assert {len(graph[node]) for node in graph} == {7}
    assert {held["bandwidth_Bps"] for *_, held in graph.edges(data=True)} == {64 * GB}
    (link,) = FullMesh(8, 525 * GB, 2e-6, "200GbE", links_per_pair=3).inside(8).links
    assert (link.count, link.bandwidth_Bps) == (3, 25 * GB)


def test_full_mesh_serves_rail_optimised_leaves() -> None:
    bp = cluster_blueprint("x", 32, FullMesh(8, 448 * GB, 2e-6, "xgmi"), ScaleOut(50 * GB, "ndr"))
    assert (bp.axis["rail"].size, _count(bp, "leaf")) == (8, 8)
    bp = cluster_blueprint("x", 2, FullMesh(8, 448 * GB, 2e-6, "xgmi"), ScaleOut(50 * GB, "ndr", rails=1, radix=8))
    assert bp.axis["group"].size == 2  # a leaf for each half of a domain
    assert {len([p for p in expand(bp)[n] if p.startswith("acc")]) for n in expand(bp) if n.startswith("acc")} == {7}


@pytest.mark.parametrize(
    ("shape", "links", "optical", "switches"),
    [
        ((16, 16, 16), 12288, 3072, 48),  # TPU v4 pod: 48 switches of 128 ports for 64 cubes (Jouppi et al., 2023)
        ((4, 4, 4), 192, 48, 48),  # one cube wraps through all of them: 96 optical links end at its faces
        ((16, 20, 28), 26880, 6720, 144),  # TPU v5p pod: 140 cubes take 280 ports in each place
    ],
)
def test_cubes_leave_by_optical_links_through_circuit_switches(
    shape: tuple[int, ...], links: int, optical: int, switches: int
) -> None:
    pod = _pod(*shape)
    assert sum(held["links"] for *_, held in quotient(_one(pod)).edges(data=True)) == 2 * links
    assert pod.extra_parts() == {"copper": -optical, "optical": optical, "ocs": switches}
    wide = replace(pod, circuit_switch_ports=288)
    assert wide.extra_parts()["ocs"] == 48


def test_open_axes_of_cubes_have_fewer_optical_links() -> None:
    open_ended = replace(_pod(4, 4, 8), wrap=(False, False, True))
    assert open_ended.extra_parts() == {"copper": -32, "optical": 32, "ocs": 16}  # 2 borders of 16 places, on z only
    assert replace(_pod(4, 4, 4), wrap=False).extra_parts() == {}


@pytest.mark.parametrize("shape", [(8, 4), (4, 8, 8), (4, 4, 4)])
@pytest.mark.parametrize("wrap", [True, False])
def test_optical_links_are_those_that_cross_cube_borders_on_the_full_graph(
    shape: tuple[int, ...], *, wrap: bool
) -> None:
    torus = replace(_pod(*shape), wrap=wrap)
    graph = expand(_one(torus))
    leaving = 0
    for u, v, held in graph.edges(data=True):
        ends = [graph.nodes[node]["coordinates"] for node in (u, v)]
        (axis,) = [name for name in ends[0] if ends[0][name] != ends[1][name]]
        low, high = sorted(end[axis] for end in ends)
        leaving += held["links"] if low // 4 != high // 4 or high - low > 1 else 0
    assert torus.extra_parts().get("optical", 0) == leaving


def test_axes_of_a_torus_may_differ() -> None:
    """AWS Trainium2 UltraServer: 4 x 4 at 128 GB/s per link, in rings of 4 at 64 GB/s."""
    server = Torus((4, 4, 4), (128 * GB, 128 * GB, 64 * GB), 1e-6, ("board", "board", "cable"))
    graph = expand(_one(server))
    assert {sum(held["bandwidth_Bps"] for held in graph[node].values()) for node in graph} == {640 * GB}
    assert Counter(held["link"] for *_, held in graph.edges(data=True)) == {"board": 128, "cable": 64}


def test_a_wrapped_pair_has_two_links_and_a_single_value_none() -> None:
    graph = expand(_one(Torus((2, 1), 1 * GB, 1e-6, "x")))
    ((_, _, held),) = graph.edges(data=True)
    assert (held["links"], held["bandwidth_Bps"]) == (2, 2 * GB)
    assert Torus((2, 1), 1 * GB, 1e-6, "x").bandwidth_Bps == 2 * GB
    assert Torus((2, 1), 1 * GB, 1e-6, "x", wrap=False).bandwidth_Bps == 1 * GB
    assert [Torus((1,), 1.0, 0.0, "x").kind, Torus((3,), 1.0, 0.0, "x").kind, _cores(3).kind] == [
        "mesh",
        "torus",
        "mesh",
    ]


def test_two_layers_in_sub_planes() -> None:
    """CloudMatrix384: 48 nodes of 7 switches, 16 above in each of 7 sub-planes, which share no switch."""
    bp = _one(CLOUD_MATRIX)
    assert (_count(bp, "scale-up-switch"), _count(bp, "outer-switch")) == (336, 112)
    graph = expand(bp)
    switches = graph.subgraph(node for node, held in graph.nodes(data=True) if held["kind"] == "switch")
    assert nx.number_connected_components(switches) == 7
    assert {switches.degree(node) for node in switches} == {16, 48}
    for tier in tiers(bp):
        assert tier.bandwidth_Bps == pytest.approx(392 * GB)


def test_second_layer_has_the_fewest_switches_where_none_are_given() -> None:
    for planes, outer in ((1, 168), (7, 168)):
        assert _count(_one(replace(CLOUD_MATRIX, outer_switches=None, sub_planes=planes)), "outer-switch") == outer
    rubin = ScaleUp(576, 1800 * GB, 1e-6, "nvlink6", switches=36, layers=2, sub_planes=18)  # two switches a plane
    assert (_count(_one(rubin), "scale-up-switch"), _count(_one(rubin), "outer-switch")) == (288, 144)


def test_levels_of_switches_side_by_side() -> None:
    """AWS Trainium3 Gen2 UltraServer: 256 GB/s in a sled of 4, 320 in a rack of 18 sleds, 128 between two racks."""
    ties = (("chip", 4, 256, 1), ("sled", 18, 320, 2), ("rack", 2, 128, 4))
    server = Nested(tuple(Tie(name, size, rate * GB, 1e-6, "link", n) for name, size, rate, n in ties))
    bp = _one(server)
    found = tiers(bp)
    assert [(tier.name, tier.size, tier.blocks) for tier in found] == [
        ("sled", 4, 36),
        ("rack", 72, 2),
        ("domain", 144, 1),
    ]
    assert [tier.bandwidth_Bps / GB for tier in found] == pytest.approx([256, 320, 128])
    assert [tier.hops for tier in found] == [2, 2, 2]
    assert [_count(bp, f"{name}-switch") for name, *_ in ties] == [36, 4, 4]


def test_levels_of_a_dragonfly() -> None:
    found = tiers(_one(BOARDFLY))
    assert [(tier.name, tier.kind, tier.size) for tier in found] == [
        ("board", "mesh", 4),
        ("group", "dragonfly", 32),
        ("domain", "dragonfly", 1152),
    ]
    assert [tier.bandwidth_Bps / GB for tier in found] == pytest.approx([300, 350, 550])


def test_ports_of_a_level_are_what_is_bought() -> None:
    """33 nodes of 8 with 4 links each to other nodes (Abts et al., ISCA 2022): 528 links, one to each pair of nodes."""
    rack = Nested((Tie("chip", 8, 7 * GB, 1e-6, "local"), Tie("node", 33, 4 * GB, 1e-6, "global", ports=4)))
    drawn = Counter(dict.fromkeys(("local", "global"), 0))
    for *_, held in expand(_one(rack)).edges(data=True):
        drawn[held["link"]] += held["links"]
    assert rack.size == 264
    assert drawn["global"] + rack.extra_parts()["global"] == 528 == math.comb(33, 2)
    assert drawn["local"] == 33 * math.comb(8, 2)
    assert Nested((Tie("chip", 4, GB, 0.0, "x", ports=6),)).inside(1).links[0].count == 2
    assert Nested((Tie("chip", 4, GB, 0.0, "x", switches=4, ports=6),)).extra_parts() == {"x": 8}


def test_a_wafer_is_a_mesh_of_cores() -> None:
    assert _cores(750, 1200).size == 900_000
    bp = _one(_cores(75, 120))
    assert len(orbit_graph(bp).members) == 38 * 60  # folded on both axes
    assert (flat(bp).size, len(flat(bp).tail)) == (9000, 74 * 120 + 75 * 119)


def test_nothing_is_bought_besides_nodes_and_links_without_cubes_and_ports() -> None:
    for up in (CLOUD_MATRIX, BOARDFLY, FullMesh(8, 448 * GB, 2e-6, "xgmi"), _cores(4, 4)):
        assert up.extra_parts() == {}


# --- faults ----------------------------------------------------------------------------------------------------------


def test_all_faults_come_at_once() -> None:
    bad = math.inf
    for build, count in (
        (lambda: FullMesh(0, 1.0, -1.0, "x", 0), 3),
        (lambda: FullMesh(8, 0.0, bad, "x"), 2),
        (lambda: Torus((0, 4), (1.0,), -1.0, "x", (True, False, True)), 4),
        (lambda: Torus((4, 6), (1.0, bad), 0.0, "x", cube=4, circuit_switch_ports=1), 4),
        (lambda: Torus((4,), 1.0, 0.0, "x", cube=-1), 1),
        (lambda: Torus((), 1.0, 0.0, "x"), 1),
        (lambda: Nested((Tie("", 0, -1.0, -1.0, "x", -1, -1), Tie("rail", 2, 0.0, 0.0, "x"))), 7),
        (lambda: Nested((Tie("chip", 4, 1.0, 0.0, "x"), Tie("chip", 4, 1.0, 0.0, "x"))), 1),
        (lambda: Nested(()), 1),
        (lambda: ScaleUp(16, 1.0, 0.0, "x", switches=7, layers=2, inner=4, outer_switches=10, sub_planes=3), 2),
        (lambda: ScaleUp(16, 1.0, 0.0, "x", outer_switches=8, sub_planes=2), 2),
        (lambda: ScaleUp(16, 1.0, 0.0, "x", layers=2, inner=4, outer_switches=0), 1),
        (lambda: Torus((4,), 1.0, 0.0, "x").inside(2), 1),
    ):
        with pytest.raises(SpecError) as caught:
            build()
        assert len(caught.value.faults) == count, str(caught.value)


# --- every wiring against the full graph -----------------------------------------------------------------------------


@st.composite
def domains(draw: st.DrawFn) -> tuple[Domain, float | None]:
    """Return a small domain of any wiring, and what each of its accelerators has (None: less at open ends)."""
    few = st.integers(1, 3)
    rate = st.sampled_from([12.0, 24.0])
    kind = draw(st.sampled_from(["mesh", "torus", "nested", "one layer", "two layers"]))
    if kind == "mesh":
        size = draw(st.integers(2, 6))
        return FullMesh(size, 60.0, 1e-6, "up", draw(few)), 60.0
    if kind == "torus":
        shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
        wrap = tuple(draw(st.booleans()) for _ in shape)
        torus = Torus(shape, tuple(draw(rate) for _ in shape), 1e-6, "up", wrap)
        even = all(closed or size <= 2 for closed, size in zip(wrap, shape, strict=True))
        return torus, torus.bandwidth_Bps if even else None
    if kind == "nested":
        names = ("chip", "board", "group")[: draw(few)]
        ties = tuple(Tie(n, draw(few), draw(rate), 1e-6, "up", draw(st.integers(0, 2)), draw(few)) for n in names)
        return Nested(ties), Nested(ties).bandwidth_Bps
    planes, ports = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    if kind == "one layer":
        return ScaleUp(draw(st.integers(2, 6)), 24.0, 1e-6, "up", planes * ports), 24.0
    blocks, inner, above = draw(few), draw(few), draw(st.sampled_from([None, planes, 2 * planes]))
    up = ScaleUp(
        blocks * inner, 24.0, 1e-6, "up", planes * ports, 2, inner, 2.0, outer_switches=above, sub_planes=planes
    )
    return up, 24.0 if up.size > 1 else 0.0


@st.composite
def clusters(draw: st.DrawFn) -> tuple[Blueprint, float | None]:
    up, bandwidth_Bps = draw(domains())
    many = draw(st.integers(1, 3))
    out = ScaleOut(4.0, "out", rails=draw(st.sampled_from([1, 2])), radix=draw(st.sampled_from([16, 64])))
    try:
        return cluster_blueprint("x", many, up, out if many > 1 else None), bandwidth_Bps
    except SpecError as error:
        if "does not reach" not in str(error):
            raise
        return _one(up), bandwidth_Bps


def _single(cell: tuple[tuple[int, int], ...]) -> set[int]:
    return {low for low, high in cell if high == low + 1}


def _orbit_of(graph: "nx.DiGraph[str]", held: dict[str, object]) -> str:
    """Find the orbit of a node: the one of its class whose cells fit its coordinates best."""
    at: dict[str, int] = held["coordinates"]  # type: ignore[assignment]
    fits = [
        (sum(len(cell) - max(0, len(_single(cell)) - 1) for cell in other["cells"].values()), orbit)
        for orbit, other in graph.nodes(data=True)
        if other["node_class"] == held["node_class"]
        and all(not cell or at[axis] in _single(cell) for axis, cell in other["cells"].items())
    ]
    return max(fits)[1]


@settings(max_examples=60, deadline=None)
@given(clusters())
def test_every_domain_is_valid_and_gives_accelerators_their_bandwidth(case: tuple[Blueprint, float | None]) -> None:
    bp, bandwidth_Bps = case
    graph = expand(bp)
    validate(graph)
    assert nx.is_connected(graph)
    for node, held in graph.nodes(data=True):
        if held["kind"] == "accelerator" and bandwidth_Bps is not None:
            mine = [wire["bandwidth_Bps"] for wire in graph[node].values() if wire["plane"] == "scale-up"]
            assert sum(mine) == pytest.approx(bandwidth_Bps)


@settings(max_examples=60, deadline=None)
@given(clusters(), st.data())
def test_quotient_around_an_accelerator_is_equitable_and_carries_the_same_flow(
    case: tuple[Blueprint, float | None], data: st.DataObject
) -> None:
    bp, _ = case
    full = expand(bp)
    ends = [node for node, held in full.nodes(data=True) if held["kind"] == "accelerator"]
    if len(ends) < 2:
        return
    a, b = data.draw(st.lists(st.sampled_from(ends), min_size=2, max_size=2, unique=True))
    small = quotient(bp, [full.nodes[node]["coordinates"] for node in (a, b)])
    orbit = {node: _orbit_of(small, held) for node, held in full.nodes(data=True)}
    assert Counter(orbit.values()) == nx.get_node_attributes(small, "multiplicity")
    for node in full:
        seen: dict[str, float] = defaultdict(float)
        for peer in full[node]:
            seen[orbit[peer]] += full.edges[node, peer]["bandwidth_Bps"]
        many = small.nodes[orbit[node]]["multiplicity"]
        assert seen == pytest.approx({peer: held["bandwidth_Bps"] / many for peer, held in small[orbit[node]].items()})
    for right in ([b], [node for node in ends if node != a]):
        heads = sorted({orbit[node] for node in right})
        assert _flow(small, orbit[a], heads) == pytest.approx(_flow(full, a, right))


def _flow(graph: "nx.Graph[str]", left: str, right: list[str]) -> float:
    """Maximum flow from one node to a set of others."""
    arcs: nx.DiGraph[str] = nx.DiGraph()
    arcs.add_edges_from((u, v, {"capacity": held["bandwidth_Bps"]}) for u, v, held in graph.edges(data=True))
    if not graph.is_directed():
        arcs.add_edges_from((v, u, {"capacity": held["bandwidth_Bps"]}) for u, v, held in graph.edges(data=True))
    arcs.add_edges_from((node, ">") for node in right)
    return float(nx.maximum_flow_value(arcs, left, ">"))
