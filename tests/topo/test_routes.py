"""Who relays, what the shortest paths are, and how many: by hand, and against NetworkX."""

from itertools import combinations, permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.errors import SpecError
from topo.paths import diameter, disjoint_paths, hops, shortest
from topo.relays import RELAYS, relays
from topo.routes import routes
from topo.wires import wires


def _graph(edges: "list[tuple[Any, ...]]", kinds: dict[str, str] | None = None) -> "nx.Graph[Any]":
    """Return a graph from (a, b) or (a, b, µs); the kind of a node is told by the first letter of its name."""
    named = {"g": "accelerator", "s": "switch", "n": "nic", "h": "host", "w": "site"} | (kinds or {})
    g: nx.Graph[Any] = nx.Graph()
    for a, b, *us in edges:
        for x in (a, b):
            g.add_node(x, kind=named[str(x)[0]])
        g.add_edge(a, b, bandwidth_Bps=1e9, latency_s=(us[0] if us else 1.0) * 1e-6)
    return g


def _boxes(boxes: int, size: int, spines: int = 0) -> "nx.Graph[Any]":
    """Boxes of `size` on one switch; NIC i of every pair of boxes on leaf i of that pair; spines above all leaves."""
    edges: list[tuple[Any, ...]] = []
    for b in range(boxes):
        for i in range(size):
            edges += [(f"g{b}.{i}", f"sbox{b}", 0.5), (f"g{b}.{i}", f"n{b}.{i}", 0.0)]
            edges.append((f"n{b}.{i}", f"sleaf{b // 2}.{i}", 0.4))
    leaves = sorted({b for _, b, _ in edges if str(b).startswith("sleaf")})
    edges += [(leaf, f"sspine{k}", 0.5) for leaf in leaves for k in range(spines)]
    return _graph(edges)


def _direct(g: "nx.Graph[Any]") -> "nx.Graph[Any]":
    nx.set_node_attributes(g, dict.fromkeys(g, "accelerator"), "kind")
    nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    return g


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_a_box_is_two_hops_a_leaf_four_and_a_spine_six() -> None:
    g = _boxes(4, 8, spines=3)
    found = shortest(g, [("g0.0", "g0.1"), ("g0.0", "g1.0"), ("g0.0", "g2.0"), ("g0.0", "g0.0")])
    assert found.hops.tolist() == [2, 4, 6, 0]
    assert found.paths.tolist() == [1, 1, 3, 1]
    assert found.latency_s == pytest.approx([1e-6, 0.8e-6, 1.8e-6, 0.0])


def test_two_rails_without_a_spine_are_not_joined_through_another_box() -> None:
    with pytest.raises(SpecError, match=r"pair g0\.0 -> g1\.1: has no route") as caught:
        shortest(_boxes(2, 2), [("g0.0", "g1.1"), ("g0.1", "g1.0"), ("g0.0", "g1.0")])
    assert len(caught.value.faults) == 2
    assert shortest(_boxes(2, 2), [("g0.0", "g1.1")], relay=("accelerator", *RELAYS)).hops.tolist() == [6]


def _pcie(spine: bool) -> "nx.Graph[Any]":
    """Three hosts with two GPUs and two NICs on one PCIe switch each; rail i of all on leaf i."""
    edges: list[tuple[Any, ...]] = []
    for b in range(3):
        edges += [(f"g{b}.{i}", f"spcie{b}") for i in range(2)]
        edges += [(f"n{b}.{i}", f"spcie{b}") for i in range(2)]
        edges += [(f"n{b}.{i}", f"sleaf{i}") for i in range(2)]
    if not spine:
        edges = [e for e in edges if e[:2] not in {("n0.1", "sleaf1"), ("n1.0", "sleaf0")}]
    return _graph(edges)


def test_a_third_host_relays_nothing_even_by_its_own_switch() -> None:
    g = _pcie(spine=False)  # host 0 on rail 0 alone, host 1 on rail 1 alone, host 2 on both
    assert nx.has_path(g, "g0.0", "g1.0")
    with pytest.raises(SpecError, match="no route"):
        shortest(g, [("g0.0", "g1.0")])
    assert shortest(g, [("g0.0", "g2.0"), ("g2.1", "g1.1"), ("g0.0", "g0.1")]).hops.tolist() == [6, 6, 2]


def test_both_nics_of_a_host_lead_to_another_host() -> None:
    found = shortest(
        _pcie(spine=True), [("g0.0", "g1.1"), ("n0.0", "g1.0"), ("spcie0", "spcie2"), ("sleaf0", "spcie1")]
    )
    assert found.hops.tolist() == [6, 4, 4, 2]
    assert found.paths.tolist() == [2, 1, 2, 1]


def test_a_nic_with_two_ports_doubles_the_paths_and_joins_no_planes() -> None:
    edges = [(f"g{i}", f"n{i}") for i in range(3)] + [(f"n{i}", f"s{p}") for i in range(2) for p in range(2)]
    g = _graph([*edges, ("n2", "s1"), ("g3", "n3"), ("n3", "s0")])
    assert shortest(g, [("g0", "g1")]).paths.tolist() == [2]
    with pytest.raises(SpecError, match="g2 -> g3"):
        shortest(g, [("g2", "g3")])


def test_nics_cabled_to_each_other_join_two_hosts() -> None:
    assert shortest(_graph([("g0", "n0"), ("n0", "n1"), ("n1", "g1")]), [("g0", "g1")]).hops.tolist() == [3]


def test_a_nic_joins_the_accelerators_of_its_host() -> None:
    assert shortest(_graph([("g0", "n0"), ("n0", "g1"), ("n0", "s0")]), [("g0", "g1")]).hops.tolist() == [2]


def test_accelerators_relay_in_a_torus_but_not_in_a_full_mesh_or_under_switches() -> None:
    assert "accelerator" in relays(_direct(nx.convert_node_labels_to_integers(nx.grid_graph((3, 3), periodic=True))))
    assert relays(_direct(nx.complete_graph(8))) == RELAYS
    assert relays(_boxes(2, 4)) == RELAYS
    broken = _direct(nx.complete_graph(8))
    broken.remove_edge(0, 1)
    assert shortest(broken, [(0, 1)]).paths.tolist() == [6]


def test_paths_of_a_torus_are_multinomials() -> None:
    g = _direct(nx.grid_graph((5, 5, 5), periodic=True))
    found = shortest(g, [((0, 0, 0), (2, 2, 2)), ((0, 0, 0), (4, 1, 0)), ((0, 0, 0), (2, 0, 0))])
    assert found.hops.tolist() == [6, 2, 2]
    assert found.paths.tolist() == [90, 2, 1]  # 6! / 2!³, 2! / 1!², 1


def test_least_latency_may_take_more_links_than_fewest() -> None:
    g = _graph([("g0", "s0", 9), ("s0", "g1", 9), ("g0", "s1", 1), ("s1", "s2", 1), ("s2", "g1", 1)])
    fast, short = shortest(g, [("g0", "g1")]), shortest(g, [("g0", "g1")], "hops")
    assert (fast.hops[0], short.hops[0]) == (3, 2)
    assert (fast.latency_s[0], short.latency_s[0]) == (pytest.approx(3e-6), pytest.approx(18e-6))


def test_fewest_links_report_the_latency_of_the_fastest_of_them() -> None:
    g = _graph([("g0", "s0", 9), ("s0", "g1", 9), ("g0", "s1", 1), ("s1", "g1", 1)])
    found = shortest(g, [("g0", "g1")], "hops")
    assert (found.paths[0], found.latency_s[0]) == (2, pytest.approx(2e-6))


def test_latencies_from_board_to_orbit_keep_their_order() -> None:
    g = _graph([("g0", "s0", 1e-3), ("s0", "w0", 60e3), ("w0", "w1", 120e3), ("w1", "g1", 0.25), ("w0", "g1", 120e3)])
    assert shortest(g, [("g0", "g1")]).latency_s == pytest.approx([0.180000001], rel=1e-9)


def test_directed_graphs_have_no_way_back() -> None:
    g = nx.DiGraph([("g0", "s0"), ("s0", "g1")])
    nx.set_node_attributes(g, {"g0": "accelerator", "s0": "switch", "g1": "accelerator"}, "kind")
    nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    assert shortest(g, [("g0", "g1")]).hops.tolist() == [2]
    with pytest.raises(SpecError, match="g1 -> g0"):
        shortest(g, [("g1", "g0")])
    with pytest.raises(SpecError, match="node g0: cannot be reached"):
        hops(g)


# --- hops of all pairs -----------------------------------------------------------------------------------------------


def test_hops_of_a_leaf_and_spine_go_by_the_accelerators_of_the_box() -> None:
    assert hops(_boxes(1, 8)) == {2: 56}
    assert hops(_boxes(2, 8)) == {2: 112, 4: 16, 6: 112}
    assert diameter(_boxes(4, 8, 2)) == 6


def test_hops_are_counted_in_blocks_and_with_representatives(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, whole = _direct(nx.cycle_graph(150)), {**dict.fromkeys(range(1, 75), 300), 75: 150}
    assert hops(ring) == hops(ring, {0: 100, 7: 50}) == whole
    monkeypatch.setattr("topo.paths._WORDS", 1)
    assert hops(ring) == whole
    assert diameter(_direct(nx.empty_graph(1))) == 0


@st.composite
def _fabrics(draw: st.DrawFn) -> "nx.Graph[Any]":
    accelerators, switches = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    names = [*(f"g{i}" for i in range(accelerators)), *(f"s{i}" for i in range(switches))]
    pairs = draw(st.lists(st.sampled_from(list(combinations(names, 2))), min_size=1, unique=True))
    g = _graph([(a, b, draw(st.integers(0, 3))) for a, b in pairs])
    g.add_nodes_from(names[:accelerators], kind="accelerator")
    return g


@given(_fabrics())
@settings(max_examples=50, deadline=None)
def test_hops_agree_with_networkx(g: "nx.Graph[Any]") -> None:
    ends = [x for x in g if g.nodes[x]["kind"] == "accelerator"]
    if all(nx.has_path(g, ends[0], x) for x in ends):
        expected: dict[int, int] = {}
        for a, b in permutations(ends, 2):
            away = nx.shortest_path_length(g, a, b)
            expected[away] = expected.get(away, 0) + 1
        assert hops(g) == expected
        assert hops(g, dict.fromkeys(ends, 3)) == {away: 3 * pairs for away, pairs in expected.items()}
    else:
        with pytest.raises(SpecError, match="cannot be reached"):
            hops(g)


@given(_fabrics(), st.booleans(), st.sampled_from(["latency", "hops"]))
@settings(max_examples=50, deadline=None)
def test_paths_agree_with_networkx(g: "nx.Graph[Any]", relaying: bool, weight: Any) -> None:
    relay = ("accelerator", *RELAYS) if relaying else RELAYS
    for _, _, held in g.edges(data=True):
        held["cost"] = 1 if weight == "hops" else round(held["latency_s"] * 1e6) * 1000 + 1
    for a, b in permutations([x for x in g if x[0] == "g"], 2):
        inside = g if relaying else g.subgraph([a, b, *(x for x in g if x[0] == "s")])
        if not nx.has_path(inside, a, b):
            with pytest.raises(SpecError, match="has no route"):
                shortest(g, [(a, b)], weight, relay)
            continue
        paths = list(nx.all_shortest_paths(inside, a, b, weight="cost"))
        found = shortest(g, [(a, b)], weight, relay)
        assert (found.paths[0], found.hops[0]) == (len(paths), len(paths[0]) - 1)
        assert found.latency_s[0] == pytest.approx(min(nx.path_weight(g, p, "latency_s") for p in paths), abs=1e-12)


@given(_fabrics())
@settings(max_examples=25, deadline=None)
def test_disjoint_paths_are_networkx_edge_connectivity(g: "nx.Graph[Any]") -> None:
    for a, b in combinations([x for x in g if x[0] == "g"], 2):
        assert disjoint_paths(g, a, b) == nx.edge_connectivity(g, a, b)
        inside = g.subgraph([a, b, *(x for x in g if x[0] == "s")])
        assert disjoint_paths(g, a, b, RELAYS) == nx.edge_connectivity(inside, a, b)


# --- faults ----------------------------------------------------------------------------------------------------------


def test_every_unknown_node_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        shortest(_boxes(1, 2), [("g0.0", "x"), ("g0.1", "y")])
    assert [fault.value for fault in caught.value.faults] == ["x", "y"]
    with pytest.raises(SpecError, match="is no position in the graph"):
        shortest(_boxes(1, 2), np.array([[0, 99]]))
    with pytest.raises(SpecError, match="is no array of pairs"):
        shortest(_boxes(1, 2), np.array([0, 1]))
    with pytest.raises(SpecError, match="20 more like these"):
        shortest(_boxes(1, 2), [("g0.0", f"x{i}") for i in range(40)])


def test_unknown_kinds_weights_and_equal_ends_are_named_together() -> None:
    with pytest.raises(SpecError) as caught:
        routes(_boxes(1, 2), "length", ("swich",))  # type: ignore[arg-type]
    assert [fault.field for fault in caught.value.faults] == ["relay", "weight"]
    with pytest.raises(SpecError, match="is both ends"):
        disjoint_paths(_boxes(1, 2), "g0.0", "g0.0", ("swich",))


def test_routes_and_wires_pass_through() -> None:
    r = routes(_boxes(2, 2))
    assert routes(r) is r
    assert routes(r.wires).wires is r.wires
    assert wires(r.wires) is r.wires
