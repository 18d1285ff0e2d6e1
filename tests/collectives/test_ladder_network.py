"""Routes as rows: they carry what `topo.loads` says, and pairs that load a network alike are priced as one."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.ladder import Job, Wire, network, price
from collectives.ladder import classes as module
from collectives.ladder.classes import classes
from collectives.ladder.network import Network, shares
from collectives.schedule import schedule
from topo.blueprint import KINDS
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import flat
from topo.loads import link_loads
from topo.routes import routes


def fabric(domains: int, size: int, **out: Any) -> Any:
    up = ScaleUp(size, 450e9, 1e-6, "nvlink")
    return flat(cluster_blueprint("two", domains, up, ScaleOut(50e9, "ib", **out)))


@settings(max_examples=20, deadline=None)
@given(data=st.data(), domains=st.integers(2, 5), size=st.sampled_from([2, 4]), radix=st.sampled_from([8, 16]))
def test_rows_carry_what_link_loads_says(data: st.DataObject, domains: int, size: int, radix: int) -> None:
    w = fabric(domains, size, radix=radix, spines="shared", rails=1)
    r, ends = routes(w), w.accelerators.astype(np.int64)
    pairs = data.draw(st.lists(st.tuples(*[st.integers(0, len(ends) - 1)] * 2), min_size=1, max_size=6))
    source, destination = (ends[list(side)] for side in zip(*pairs, strict=True))
    rows = shares(r, source, destination)
    owner, arc, share = rows.entries(np.arange(len(pairs)))
    expected = link_loads(r, (source, destination, 1.0))
    assert np.bincount(arc, share, len(expected)) == pytest.approx(expected, abs=1e-9)
    assert len(owner) == len(arc)


@settings(max_examples=20, deadline=None)
@given(
    domains=st.integers(2, 6),
    size=st.sampled_from([2, 4]),
    rails=st.sampled_from([1, 8]),
    radix=st.sampled_from([8, 16]),
    plan=st.sampled_from([("all_to_all", "pairwise"), ("all_reduce", "ring"), ("all_reduce", "rabenseifner")]),
)
def test_classes_of_pairs_change_no_price(
    domains: int, size: int, rails: int, radix: int, plan: tuple[str, str]
) -> None:
    w = fabric(domains, size, rails=rails, radix=radix, oversubscription=2.0, spines="shared")
    job = Job(schedule(*plan, domains * size, 1e8), w.accelerators)
    whole = network(w, w.accelerators)
    whole.memo["classes"] = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST", 2)
        quick = price(job, network(w, w.accelerators))
    slow = price(job, whole)
    assert quick.seconds == pytest.approx(slow.seconds, rel=1e-9)
    assert quick.terms["wire"] == pytest.approx(slow.terms["wire"], rel=1e-9)


def test_a_slow_nic_is_a_class_of_its_own() -> None:
    w = fabric(16, 4, radix=32, rails=1)
    bandwidth = w.bandwidth_Bps.copy()
    nic = int(np.flatnonzero(w.kind == KINDS.index("nic"))[5])
    slow = np.flatnonzero((w.tail == nic) | (w.head == nic))
    bandwidth[slow] /= 4
    hurt = type(w)(w.names, w.kind, w.tail, w.head, bandwidth, w.latency_s)
    job = Job(schedule("all_to_all", "pairwise", 64, 1e8), w.accelerators)
    net = network(hurt, w.accelerators)
    quick = price(job, net)
    assert classes(net) is not None
    net.memo["classes"] = None
    assert quick.seconds == pytest.approx(price(job, net).seconds, rel=1e-9)
    assert quick.seconds > price(job, w).seconds


def test_torus_ends_pass_traffic_on_so_each_pair_is_its_own() -> None:
    g = nx.convert_node_labels_to_integers(nx.grid_2d_graph(8, 8, periodic=True))
    nx.set_node_attributes(g, dict.fromkeys(g, "accelerator"), "kind")
    nx.set_edge_attributes(g, {edge: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for edge in g.edges})
    assert classes(network(g, list(g))) is None


def test_pairs_on_unlike_rails_without_a_spine_go_by_a_peer() -> None:
    w = fabric(2, 4, rails=4)
    net = network(w, w.accelerators)
    rows = net.row(np.array([0, 0]), np.array([4, 5]))
    assert net.hops[rows].tolist() == [4.0, 6.0]


def test_hashed_routes_are_one_path_and_depend_on_the_pair_alone() -> None:
    w = fabric(8, 2, radix=4, rails=1)
    ends = w.accelerators
    net = network(w, ends, spread="hash", seed=3)
    rows = net.row(np.arange(8), np.arange(8) + 8)
    assert len(rows) == 8
    assert (net.rows.share == 1).all()
    other = network(w, ends, spread="hash", seed=3)
    assert other.path(3, 11) == net.path(3, 11)


def test_routes_that_split_have_a_hashed_twin() -> None:
    w = fabric(4, 2)
    net = network(w, w.accelerators)
    assert net.single().spread == "hash"
    assert net.single().single().spread == "hash"


def test_given_routes_must_serve_every_pair() -> None:
    g = nx.path_graph(3)
    nx.set_node_attributes(g, dict.fromkeys(g, "accelerator"), "kind")
    nx.set_edge_attributes(g, {edge: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for edge in g.edges})
    net: Network = network(g, [0, 1, 2], {(0, 1): [0, 1]})
    assert net.path(0, 1) == [0]
    with pytest.raises(SpecError, match="has no route"):
        net.path(1, 2)


def test_wire_parameters_are_checked() -> None:
    with pytest.raises(SpecError, match=r"wire\.pieces"):
        Wire(pieces=0, payload_bytes=-1)
