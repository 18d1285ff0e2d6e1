"""What traffic puts on links: by hand, conserved, against a walk over all paths, hashed, and kept to rails."""

from itertools import permutations
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.errors import SpecError
from topo.loads import busiest_s, link_loads
from topo.rails import rail_aware, scale_up_domains
from topo.relays import RELAYS
from topo.routes import Routes, routes
from topo.wires import Wires, wires

UP = {"bandwidth_Bps": 450e9, "latency_s": 0.5e-6, "plane": "scale-up"}
NIC = {"bandwidth_Bps": 50e9, "latency_s": 0.0, "plane": "scale-out"}
OUT = {"bandwidth_Bps": 50e9, "latency_s": 0.4e-6, "plane": "scale-out"}


def _cluster(domains: int, size: int, rails: int, spines: int, per_leaf: int = 2) -> "nx.Graph[Any]":
    """Domains on one crossbar; NIC i on leaf (domain // per_leaf, i % rails); spines above all leaves."""
    g: nx.Graph[Any] = nx.Graph()
    g.add_nodes_from((f"g{d}.{i}" for d in range(domains) for i in range(size)), kind="accelerator")
    g.add_nodes_from((f"n{d}.{i}" for d in range(domains) for i in range(size)), kind="nic")
    leaves = [f"leaf{u}.{i}" for u in range(-(-domains // per_leaf)) for i in range(rails)]
    g.add_nodes_from(
        [*(f"box{d}" for d in range(domains)), *leaves, *(f"spine{k}" for k in range(spines))], kind="switch"
    )
    for d in range(domains):
        for i in range(size):
            g.add_edge(f"g{d}.{i}", f"box{d}", **UP)
            g.add_edge(f"g{d}.{i}", f"n{d}.{i}", **NIC)
            g.add_edge(f"n{d}.{i}", f"leaf{d // per_leaf}.{i % rails}", **OUT)
    g.add_edges_from(((leaf, f"spine{k}") for leaf in leaves for k in range(spines)), **OUT)
    return g


def _all_to_all(w: Wires) -> tuple[Any, Any, float]:
    a = w.accelerators.astype(np.int64)
    return np.repeat(a, len(a)), np.tile(a, len(a)), 1.0


def _by_arc(w: Wires, loads: Any) -> dict[tuple[Any, Any], float]:
    return {
        (w.names[a], w.names[b]): load for a, b, load in zip(*w.arcs[:2], loads.tolist(), strict=True) if load != 0.0
    }


# --- even ------------------------------------------------------------------------------------------------------------


def test_one_message_splits_over_the_spines_and_meets_again() -> None:
    g = _cluster(4, 2, 2, spines=4)
    loads = _by_arc(wires(g), link_loads(g, (["g0.0"], ["g2.0"], 8.0)))
    assert loads == {
        ("g0.0", "n0.0"): 8.0,
        ("n0.0", "leaf0.0"): 8.0,
        **{("leaf0.0", f"spine{k}"): 2.0 for k in range(4)},
        **{(f"spine{k}", "leaf1.0"): 2.0 for k in range(4)},
        ("leaf1.0", "n2.0"): 8.0,
        ("n2.0", "g2.0"): 8.0,
    }


def test_a_ring_of_boxes_uses_each_link_at_most_once_in_each_direction() -> None:
    g = _cluster(2, 4, 1, spines=0)
    w = wires(g)
    loads = link_loads(g, (w.accelerators.astype(np.int64), np.roll(w.accelerators, -1), 3.0))
    assert set(loads.tolist()) == {0.0, 3.0}
    assert busiest_s(g, loads) == pytest.approx(3.0 / 50e9)


def test_all_to_all_on_a_fat_tree_loads_alike_links_alike_in_both_directions() -> None:
    g = _cluster(4, 4, 4, spines=2)
    w = wires(g)
    loads = link_loads(g, _all_to_all(w))
    half = len(w.tail)
    assert loads[:half] == pytest.approx(loads[half:])
    classes: dict[tuple[str, str], set[float]] = {}
    for (a, b), load in _by_arc(w, loads).items():
        classes.setdefault((a.rstrip("0123456789."), b.rstrip("0123456789.")), set()).add(round(load, 9))
    assert all(len(found) == 1 for found in classes.values())
    assert classes["g", "box"] == {3.0}
    assert classes["g", "n"] == {12.0}
    assert classes["leaf", "spine"] == {(2 * 12 - 2) / 2}  # of two NICs' 12 messages each, one stays on the leaf


def test_all_to_all_on_an_even_torus_loads_every_link_n_cubed_over_8() -> None:
    ring: nx.Graph[Any] = nx.cycle_graph(8)
    nx.set_node_attributes(ring, dict.fromkeys(ring, "accelerator"), "kind")
    nx.set_edge_attributes(ring, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in ring.edges})
    assert link_loads(ring, _all_to_all(wires(ring))) == pytest.approx(np.full(16, 8.0))  # S·P/8 with S = P messages


def _walk(g: "nx.Graph[Any]", a: str, b: str, amount: float) -> dict[tuple[str, str], float]:
    """Split at every node evenly over the next hops, by NetworkX's distances alone."""
    inside = g.subgraph([a, b, *(x for x in g if g.nodes[x]["kind"] == "switch")])
    away = nx.single_source_dijkstra_path_length(inside, b, weight="cost")
    loads: dict[tuple[str, str], float] = {}
    here = {a: amount}
    while here:
        node = max(here, key=lambda x: away[x])
        share = here.pop(node)
        if node == b:
            continue
        to = [x for x in inside[node] if x in away and away[x] + inside.edges[node, x]["cost"] == away[node]]
        for x in to:
            here[x] = here.get(x, 0.0) + share / len(to)
            loads[node, x] = loads.get((node, x), 0.0) + share / len(to)
    return loads


@st.composite
def _traffic(draw: st.DrawFn) -> tuple["nx.Graph[Any]", list[tuple[str, str, float]]]:
    names = [*(f"g{i}" for i in range(draw(st.integers(2, 5)))), *(f"s{i}" for i in range(draw(st.integers(1, 6))))]
    g: nx.Graph[Any] = nx.Graph()
    for name in names:
        g.add_node(name, kind="accelerator" if name[0] == "g" else "switch")
    for a, b in draw(st.lists(st.sampled_from(list(permutations(names, 2))), min_size=6, unique=True)):
        us = draw(st.integers(0, 2))
        g.add_edge(a, b, bandwidth_Bps=1e9, latency_s=us * 1e-6, cost=us * 1000 + 1)
    joined = [
        (a, b)
        for a, b in permutations([x for x in names if x[0] == "g"], 2)
        if nx.has_path(g.subgraph([a, b, *(x for x in names if x[0] == "s")]), a, b)
    ]
    return g, [(a, b, float(draw(st.integers(0, 9)))) for a, b in joined]


@given(_traffic())
@settings(max_examples=60, deadline=None)
def test_even_loads_are_a_walk_over_next_hops_and_are_conserved(
    case: tuple["nx.Graph[Any]", list[tuple[str, str, float]]],
) -> None:
    g, traffic = case
    w = wires(g)
    loads = link_loads(
        g, ([a for a, _, _ in traffic], [b for _, b, _ in traffic], [x for *_, x in traffic]), relay=RELAYS
    )
    expected: dict[tuple[str, str], float] = {}
    for a, b, amount in traffic:
        for arc, load in _walk(g, a, b, amount).items() if amount else ():
            expected[arc] = expected.get(arc, 0.0) + load
    assert _by_arc(w, loads) == pytest.approx(expected)
    for x in g:
        gain = sum((b == x) * amount - (a == x) * amount for a, b, amount in traffic)
        i = w.index[x]
        assert loads[w.arcs[1] == i].sum() - loads[w.arcs[0] == i].sum() == pytest.approx(gain)


def test_patterns_priced_together_are_the_sum_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    r = routes(_cluster(4, 3, 3, spines=3))
    source, destination, _ = _all_to_all(r.wires)
    whole = link_loads(r, (source, destination, 1.0))
    assert whole == pytest.approx(sum(link_loads(r, (source[i::3], destination[i::3], 1.0)) for i in range(3)))
    monkeypatch.setattr("topo.loads._CHUNK", 7)
    assert whole == pytest.approx(link_loads(r, (source, destination, 1.0)))
    monkeypatch.setattr("topo.loads._CELLS", 1)
    assert whole == pytest.approx(link_loads(r, (source, destination, 1.0)))


def test_a_message_to_oneself_and_one_of_nothing_load_nothing() -> None:
    g = _cluster(2, 2, 1, spines=1)
    assert not link_loads(g, (["g0.0", "g0.0"], ["g0.0", "g1.0"], [5.0, 0.0])).any()


# --- hashed ----------------------------------------------------------------------------------------------------------


def _spread(r: Routes, seed: int, flows: int) -> Any:
    w = r.wires
    a = w.accelerators.astype(np.int64)
    return link_loads(r, (a, np.roll(a, len(a) // 2), 1.0), "hash", seed, flows)


def test_one_flow_takes_one_path_and_the_same_one_again() -> None:
    g = _cluster(4, 2, 2, spines=8)
    w, traffic = wires(g), (["g0.0"], ["g2.0"], 8.0)
    taken = _by_arc(w, link_loads(g, traffic, "hash", seed=3))
    assert len(taken) == 6
    assert set(taken.values()) == {8.0}
    assert taken == _by_arc(w, link_loads(g, traffic, "hash", seed=3))
    spines = {
        min(x for arc in _by_arc(w, link_loads(g, traffic, "hash", s)) for x in arc if "spine" in x) for s in range(60)
    }
    assert spines == {f"spine{k}" for k in range(8)}


def test_hashed_loads_average_to_even_ones_and_their_busiest_link_is_never_better() -> None:
    r = routes(_cluster(8, 4, 4, spines=4, per_leaf=4))
    a = r.wires.accelerators.astype(np.int64)
    even = link_loads(r, (a, np.roll(a, len(a) // 2), 1.0))
    runs = [_spread(r, seed, flows=1) for seed in range(150)]
    assert np.mean(runs, axis=0) == pytest.approx(even, abs=0.3)
    assert min(run.max() for run in runs) >= even.max()
    assert np.mean([run.max() for run in runs]) > np.mean([_spread(r, seed, flows=16).max() for seed in range(30)])
    assert _spread(r, 0, flows=4000) == pytest.approx(even, abs=0.1)


def test_hashing_hits_the_expected_fullest_of_bins() -> None:
    # 4 flows of one leaf on 4 spines: E[max] = Σ over all 4⁴ throws of the fullest bin / 4⁴ = 2.125
    r = routes(_cluster(2, 4, 1, spines=4, per_leaf=1))
    w = r.wires
    sources, ends = [f"g0.{i}" for i in range(4)], [f"g1.{i}" for i in range(4)]
    up = [w.names[a].startswith("leaf0") and w.names[b].startswith("spine") for a, b in zip(*w.arcs[:2], strict=True)]
    fullest = [link_loads(r, (sources, ends, 1.0), "hash", seed)[up].max() for seed in range(600)]
    assert np.mean(fullest) == pytest.approx(2.125, abs=0.1)


# --- rails -----------------------------------------------------------------------------------------------------------


def test_a_message_changes_rails_inside_its_domain() -> None:
    g = _cluster(2, 4, 4, spines=2)
    found = rail_aware(g, (["g0.0", "g0.1", "g0.2"], ["g1.3", "g1.1", "g0.3"], [6.0, 1.0, 2.0]))
    assert [list(g)[i] for i in found.peer] == ["g0.3", "g0.1", "g0.2"]
    assert _by_arc(wires(g), found.loads) == {
        ("g0.0", "box0"): 6.0,
        ("box0", "g0.3"): 8.0,
        ("g0.3", "n0.3"): 6.0,
        ("n0.3", "leaf0.3"): 6.0,
        ("leaf0.3", "n1.3"): 6.0,
        ("n1.3", "g1.3"): 6.0,
        ("g0.1", "n0.1"): 1.0,
        ("n0.1", "leaf0.1"): 1.0,
        ("leaf0.1", "n1.1"): 1.0,
        ("n1.1", "g1.1"): 1.0,
        ("g0.2", "box0"): 2.0,
    }


def test_all_to_all_over_rails_leaves_the_spine_alone_and_the_nics_as_they_were() -> None:
    g = _cluster(2, 4, 4, spines=2)
    w = wires(g)
    direct, railed = link_loads(g, _all_to_all(w)), rail_aware(g, _all_to_all(w)).loads
    arcs = [(w.names[a], w.names[b]) for a, b in zip(*w.arcs[:2], strict=True)]
    spine, nic = np.array([["spine" in a + b, a[0] == "n" or b[0] == "n"] for a, b in arcs]).T
    assert direct[spine].sum() > 0
    assert not railed[spine].any()
    assert railed[nic] == pytest.approx(direct[nic])
    box = np.array([a.startswith("g") and b.startswith("box") for a, b in arcs])
    # (N-1)/N of all messages take (g-1)/g of them through the box: 3 inside, and 3 · 4/4 more per accelerator
    assert railed[box] == pytest.approx(np.full(8, 3.0 + 3.0))


def test_accelerators_of_one_rail_leave_by_their_own_nic_and_others_share_theirs() -> None:
    g = _cluster(2, 6, 2, spines=1)  # rails 0 and 1 have three accelerators each
    found = rail_aware(g, (["g0.2", "g0.1", "g0.3"], ["g1.0", "g1.0", "g1.4"], 1.0))
    assert [list(g)[i] for i in found.peer] == ["g0.2", "g0.0", "g0.4"]


def test_rails_without_a_spine_are_reached_and_without_a_leaf_are_named() -> None:
    g = _cluster(2, 2, 2, spines=0)
    assert rail_aware(g, (["g0.0"], ["g1.1"], 1.0), spread="hash").loads.sum() == 6.0
    for i in range(2):
        g.remove_edge(f"n1.{i}", f"leaf0.{i}")
    with pytest.raises(SpecError, match=r"g0\.0 -> g1\.1"):
        rail_aware(g, (["g0.0"], ["g1.1"], 1.0))


def test_domains_come_from_planes_from_nics_or_from_the_caller() -> None:
    g = _cluster(2, 2, 2, spines=1)
    by_plane, by_nic = scale_up_domains(g), scale_up_domains(wires(g))
    assert by_plane.tolist() == by_nic.tolist()
    assert [by_plane[wires(g).index[x]] for x in ("g0.0", "box0", "g1.1", "n0.0", "leaf0.0")] == [0, 0, 1, -1, -1]
    alone = np.where(wires(g).kind == 0, np.arange(len(g)), -1)
    assert [list(g)[i] for i in rail_aware(g, (["g0.0"], ["g1.1"], 1.0), alone).peer] == ["g0.0"]
    with pytest.raises(SpecError, match="is not one number for each"):
        rail_aware(g, (["g0.0"], ["g1.1"], 1.0), alone[:3])


# --- faults ----------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_traffic_is_named() -> None:
    g = _cluster(2, 2, 2, spines=0)
    with pytest.raises(SpecError) as caught:
        link_loads(g, (["g0.0"], ["g0.1", "g1.0"], [-1.0]), "wild", flows=0)  # type: ignore[arg-type]
    assert [fault.field for fault in caught.value.faults] == ["traffic", "traffic amounts", "spread", "flows"]
    with pytest.raises(SpecError, match=r"pair g0\.0 -> g1\.1"):
        link_loads(g, (["g0.0", "g0.0"], ["g1.1", "g1.0"], 1.0))
    with pytest.raises(SpecError, match=r"pair g0\.0 -> g1\.1"):
        link_loads(g, (["g0.0"], ["g1.1"], 1.0), "hash", flows=3)
