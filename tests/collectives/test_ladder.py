"""Schedules priced on graphs: hand values, known facts, and agreement between rungs."""

from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.ladder import FIDELITIES, Job, Wire, network, price
from collectives.ladder.flow import fair_rates
from collectives.schedule import Schedule, messages, schedule
from topo.errors import SpecError

RUNGS = sorted(FIDELITIES)


def graph_of(edges: list[tuple[Any, Any, float, float]], accelerators: list[Any]) -> "nx.Graph[Any]":
    g: nx.Graph[Any] = nx.Graph()
    g.add_nodes_from(accelerators, kind="accelerator")
    for u, v, bandwidth, latency in edges:
        for node in (u, v):
            if node not in g:
                g.add_node(node, kind="switch")
        g.add_edge(u, v, bandwidth_Bps=bandwidth, latency_s=latency)
    return g


def star(
    ranks: int, bandwidth: float = 1e9, latency: float = 1e-6, slow: dict[int, float] | None = None
) -> "nx.Graph[Any]":
    return graph_of([(r, "s", (slow or {}).get(r, bandwidth), latency) for r in range(ranks)], list(range(ranks)))


def tree(leaves: int, hosts: int, up: float) -> "nx.Graph[Any]":
    """Hosts of 1 GB/s under leaves whose one uplink carries `up`."""
    edges = [(r, f"leaf{r // hosts}", 1e9, 1e-6) for r in range(leaves * hosts)]
    return graph_of([*edges, *((f"leaf{i}", "spine", up, 1e-6) for i in range(leaves))], list(range(leaves * hosts)))


def torus(side: int) -> "nx.Graph[Any]":
    g = nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, side, periodic=True), ordering="sorted")
    nx.set_node_attributes(g, dict.fromkeys(g, "accelerator"), "kind")
    nx.set_edge_attributes(g, {edge: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for edge in g.edges})
    return g


def cost(op: str, algorithm: str, size: float, graph: Any, fidelity: str = "stepwise", **shape: Any) -> float:
    ranks = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    return price(Job(schedule(op, algorithm, len(ranks), size, **shape), ranks), graph, fidelity).seconds


@settings(max_examples=50, deadline=None)
@given(
    ranks=st.integers(2, 9),
    size=st.floats(1e3, 1e9),
    bandwidth=st.floats(1e8, 1e12),
    latency=st.floats(0, 1e-3),
    op=st.sampled_from(["all_reduce", "all_gather", "reduce_scatter"]),
)
def test_on_one_switch_stepwise_is_the_closed_form_of_the_ring(
    ranks: int, size: float, bandwidth: float, latency: float, op: str
) -> None:
    steps = (2 if op == "all_reduce" else 1) * (ranks - 1)
    expected = steps * (2 * latency + size / ranks / bandwidth)
    assert cost(op, "ring", size, star(ranks, bandwidth, latency)) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(ranks=st.integers(2, 8), size=st.floats(1e4, 1e9))
def test_without_a_barrier_a_symmetric_ring_costs_the_same(ranks: int, size: float) -> None:
    g = star(ranks)
    stepwise = cost("all_gather", "ring", size, g)
    assert cost("all_gather", "ring", size, g, "dependency") == pytest.approx(stepwise, rel=1e-9)
    assert cost("all_gather", "ring", size, g, "flow") == pytest.approx(stepwise, rel=1e-6)
    assert cost("all_gather", "ring", size, g, "fifo") == pytest.approx(stepwise, rel=1e-6)


@pytest.mark.parametrize("fidelity", RUNGS)
def test_a_leaf_aligned_ring_does_not_feel_oversubscription_and_all_to_all_does(fidelity: str) -> None:
    free, tight = tree(2, 4, 4e9), tree(2, 4, 1e9)
    ring = [cost("all_reduce", "ring", 1e9, g, fidelity) for g in (free, tight)]
    exchange = [cost("all_to_all", "pairwise", 1e9, g, fidelity) for g in (free, tight)]
    assert ring[1] == pytest.approx(ring[0], rel=0.01)
    assert exchange[1] > 1.9 * exchange[0]


@pytest.mark.parametrize("fidelity", RUNGS)
def test_a_degraded_torus_link_off_the_embedding_is_free_for_a_ring(fidelity: str) -> None:
    snake = [r * 4 + (c if r % 2 == 0 else 3 - c) for r in range(4) for c in range(4)]
    g, hurt = torus(4), torus(4)
    used = {frozenset(pair) for pair in pairwise([*snake, snake[0]])}
    off = next(edge for edge in hurt.edges if frozenset(edge) not in used)
    hurt.edges[off]["bandwidth_Bps"] /= 4
    plan = schedule("all_reduce", "ring", 16, 1e8)
    given_ = {pair: list(pair) for pair in pairwise([*snake, snake[0]])}
    healthy, degraded = (price(Job(plan, snake), each, fidelity, given=given_).seconds for each in (g, hurt))
    assert degraded == pytest.approx(healthy, rel=1e-12)
    assert cost("all_reduce", "recursive_doubling", 1e8, hurt, fidelity) > 1.3 * cost(
        "all_reduce", "recursive_doubling", 1e8, g, fidelity
    )


@pytest.mark.parametrize("fidelity", RUNGS)
def test_two_jobs_on_one_spine_slow_each_other(fidelity: str) -> None:
    g = tree(2, 4, 2e9)
    jobs = [Job(schedule("all_reduce", "ring", 4, 1e8), places) for places in ([0, 4, 1, 5], [2, 6, 3, 7])]
    alone = price(jobs[0], g, fidelity).seconds
    both = price(jobs, g, fidelity)
    assert both.seconds > 1.5 * alone
    assert both.jobs[0] == pytest.approx(both.jobs[1], rel=0.1)


@pytest.mark.parametrize("fidelity", ["flow", "fifo"])
def test_a_job_that_starts_when_the_other_is_done_is_not_slowed(fidelity: str) -> None:
    g = tree(2, 4, 2e9)
    plan = schedule("all_reduce", "ring", 4, 1e8)
    alone = price(Job(plan, [0, 4, 1, 5]), g, fidelity).seconds
    late = price([Job(plan, [0, 4, 1, 5]), Job(plan, [2, 6, 3, 7], start_s=2 * alone)], g, fidelity)
    assert late.jobs == pytest.approx((alone, alone), rel=1e-6)
    assert late.seconds == pytest.approx(3 * alone, rel=1e-6)


@pytest.mark.parametrize("fidelity", ["dependency", "fifo", "flow"])
def test_a_chunk_of_a_ring_crosses_the_wide_area_a_few_times_not_every_step(fidelity: str) -> None:
    edges = [(r, f"site{r // 4}", 1e9, 0.0) for r in range(8)] + [("site0", "site1", 1e9, 10e-3)]
    g = graph_of(edges, list(range(8)))
    assert cost("all_reduce", "ring", 8e3, g) == pytest.approx(0.14, rel=0.01)
    assert cost("all_reduce", "ring", 8e3, g, fidelity) == pytest.approx(0.04, rel=0.01)


@pytest.mark.parametrize("fidelity", RUNGS)
def test_a_slow_host_costs_a_ring_its_ratio(fidelity: str) -> None:
    ratio = cost("all_reduce", "ring", 1e8, star(8, slow={3: 2.5e8}), fidelity) / cost(
        "all_reduce", "ring", 1e8, star(8), fidelity
    )
    assert ratio == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("fidelity", RUNGS)
def test_senders_to_one_receiver_share_its_link(fidelity: str) -> None:
    plan = Schedule("reduce", "direct", 4, 1e6, (messages([1, 2, 3], [0, 0, 0], 1e6),))
    assert price(Job(plan, range(4)), star(4), fidelity).seconds == pytest.approx(3e-3, rel=0.03)


@pytest.mark.parametrize("fidelity", RUNGS)
def test_framing_and_acknowledgements_load_links_both_ways(fidelity: str) -> None:
    wire = Wire(payload_bytes=1000, frame_bytes=1100, ack_bytes=100, payloads_per_ack=2)
    swap = Schedule("send_recv", "shift", 2, 1e6, (messages([0, 1], [1, 0], 1e6),))
    found = price(Job(swap, [0, 1]), star(2, latency=0.0), fidelity, wire).seconds
    assert found == pytest.approx(1.15e-3, rel=0.02)


def test_software_latency_is_added_to_every_round() -> None:
    wire = Wire(base_s=1e-3, hop_s=1e-4, message_s=1e-5, copy_s_per_byte=1e-11)
    plan = schedule("all_gather", "ring", 4, 4e6)
    extra = price(Job(plan, range(4)), star(4), wire=wire).seconds - price(Job(plan, range(4)), star(4)).seconds
    assert extra == pytest.approx(3 * (1e-3 + 2e-4 + 1e-5 + 1e-5))


@pytest.mark.parametrize("fidelity", RUNGS)
def test_a_token_bucket_lets_a_burst_pass_at_once(fidelity: str) -> None:
    plan = Schedule("send_recv", "direct", 2, 1e6, (messages([0], [1], 1e6),))
    free, burst = (
        price(Job(plan, [0, 1]), star(2, latency=0.0), fidelity, Wire(burst_bytes=bucket)).seconds
        for bucket in (0, 1e5)
    )
    assert free - burst == pytest.approx(1e-4, rel=0.01)


def test_posting_all_at_once_reaches_the_total_load_where_rounds_do_not() -> None:
    g = tree(4, 4, 4e9)
    assert cost("all_to_all", "linear", 1e8, g) <= cost("all_to_all", "pairwise", 1e8, g)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), flows=st.integers(1, 6), arcs=st.integers(1, 5))
def test_fair_rates_fill_links_and_give_every_flow_a_full_one(data: st.DataObject, flows: int, arcs: int) -> None:
    uses = [data.draw(st.sets(st.integers(0, arcs - 1), min_size=1)) for _ in range(flows)]
    capacity = np.array([data.draw(st.floats(0.5, 10)) for _ in range(arcs)])
    flow = np.array([i for i, used in enumerate(uses) for _ in used])
    arc = np.array([a for used in uses for a in sorted(used)])
    rates = fair_rates(flow, arc, np.ones(len(arc)), capacity, flows)
    load = np.bincount(arc, rates[flow], arcs)
    assert (load <= capacity * (1 + 1e-6)).all()
    for i, used in enumerate(uses):
        full = [a for a in used if load[a] >= capacity[a] * (1 - 1e-6)]
        assert any(rates[i] >= max(rates[j] for j in range(flows) if a in uses[j]) * (1 - 1e-6) for a in full)


@pytest.mark.parametrize("fidelity", RUNGS)
def test_terms_add_up_and_name_the_busiest_link(fidelity: str) -> None:
    found = price(Job(schedule("all_to_all", "pairwise", 8, 1e8), range(8)), tree(2, 4, 1e9), fidelity)
    assert sum(found.terms.values()) == pytest.approx(found.seconds)
    assert found.busiest is not None
    assert "spine" in found.busiest


def test_all_faults_of_a_call_are_told() -> None:
    plan = schedule("all_gather", "ring", 4, 1.0)
    with pytest.raises(SpecError, match="is no rung"):
        price(Job(plan, range(4)), star(4), "guess")
    with pytest.raises(SpecError, match="are not the 4") as told:
        price([Job(plan, [0, 1]), Job(plan, range(4), start_s=-1.0)], star(4))
    assert len(told.value.faults) == 2
    with pytest.raises(SpecError, match="no ends of the network"):
        price(Job(plan, range(4)), network(star(8), [4, 5, 6, 7]))
    with pytest.raises(SpecError, match="is no link"):
        price(Job(plan, range(4)), star(4), given={(0, 1): [0, 2, 1]})


def test_one_rank_costs_nothing() -> None:
    assert [cost("all_reduce", "ring", 1e6, star(1), fidelity) for fidelity in RUNGS] == [0.0] * len(RUNGS)
