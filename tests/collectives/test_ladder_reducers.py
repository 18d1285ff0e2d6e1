"""Sums in switches on graphs: links carry a sum once, the closed forms hold on symmetric fabrics, no price beats a bound."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.algorithms import ALGORITHMS
from collectives.bounds import lower_bound
from collectives.ladder import ADDING, FIDELITIES, Job, Wire, network, price
from collectives.path import IDEAL, Hop
from collectives.schedule import Schedule, messages, schedule
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand, flat

CHUNKS = 400


def leaves_and_spine(*adders: str, ranks: int = 4, latency_s: float = 0.0) -> "nx.Graph[Any]":
    """Two leaves of `ranks`/2 accelerators each under one spine, all links 1 GB/s."""
    g: nx.Graph[Any] = nx.Graph()
    g.add_nodes_from(range(ranks), kind="accelerator")
    g.add_nodes_from(("a", "b", "top"), kind="switch")
    nx.set_node_attributes(g, dict.fromkeys(adders, True), "in_network_reduction")
    links = [(r, "a" if r < ranks // 2 else "b") for r in range(ranks)] + [("a", "top"), ("b", "top")]
    g.add_edges_from(links, bandwidth_Bps=1e9, latency_s=latency_s)
    return g


def one_round(sender: list[int], receiver: list[int], ranks: int = 4, size_bytes: float = 1e9) -> Schedule:
    rounds = (messages(sender, receiver, size_bytes),)
    return Schedule("all_reduce", "sharp", ranks, size_bytes, rounds, network="reduction")


def accelerators(g: "nx.Graph[Any]") -> list[Any]:
    return [node for node, held in g.nodes(data=True) if held["kind"] == "accelerator"]


@pytest.mark.parametrize("fidelity", ADDING)
@pytest.mark.parametrize(("adders", "seconds"), [(("a", "b", "top"), 1.0), (("top",), 2.0)])
@pytest.mark.parametrize("up", [True, False])
def test_a_link_behind_an_adding_switch_carries_a_sum_once(
    fidelity: str, adders: tuple[str, ...], seconds: float, up: bool
) -> None:
    ranks, switch = list(range(4)), [-1] * 4
    plan = one_round(ranks, switch) if up else one_round(switch, ranks)
    assert price(Job(plan, range(4)), leaves_and_spine(*adders), fidelity).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("fidelity", ADDING)
def test_different_sums_do_not_share_a_link(fidelity: str) -> None:
    g = leaves_and_spine("a", "b", "top")
    two = one_round([0, 1, 2, 3, 0, 1, 2, 3], [-1] * 4 + [-2] * 4)
    assert price(Job(two, range(4)), g, fidelity).seconds == pytest.approx(2.0)
    again = one_round([0, 1, 2, 3, 0, 1, 2, 3], [-1] * 8)
    assert price(Job(again, range(4)), g, fidelity).seconds == pytest.approx(2.0)
    jobs = [Job(one_round([0, 1], [-1, -1], 2), places) for places in ([0, 2], [1, 3])]
    assert price(jobs, g, fidelity).seconds == pytest.approx(2.0)


@pytest.mark.parametrize("fidelity", ADDING)
def test_the_reducer_is_the_nearest_switch_over_its_ranks(fidelity: str) -> None:
    plan = schedule("all_reduce", "sharp", 2, 1e9, chunk_bytes=1e9)
    g = leaves_and_spine("a", "top", latency_s=1e-3)
    near, far = (price(Job(plan, places), g, fidelity).seconds for places in ([0, 1], [2, 3]))
    assert near == pytest.approx(2 * (1.0 + 1e-3))
    assert far == pytest.approx(2 * (2.0 + 2e-3))  # their own leaf does not add: both messages go on to the top


def test_switches_have_no_software() -> None:
    plan, g = schedule("all_reduce", "sharp", 4, 1e9, chunk_bytes=1e9), leaves_and_spine("a", "b", "top")
    plain, slow = (price(Job(plan, range(4)), g, wire=wire).seconds for wire in (Wire(), Wire(base_s=1e-2)))
    assert slow - plain == pytest.approx(1e-2)


@settings(max_examples=30, deadline=None)
@given(
    ranks=st.integers(2, 12),
    switches=st.sampled_from([1, 2, 4]),
    size_bytes=st.floats(1e6, 1e10),
    name=st.sampled_from(["nvls", "multimem"]),
    fidelity=st.sampled_from(ADDING),
)
def test_in_one_domain_a_sum_in_the_switches_is_its_closed_form(
    ranks: int, switches: int, size_bytes: float, name: str, fidelity: str
) -> None:
    """With k chunks a pipeline takes its filling, three rounds of a share, longer."""
    g = expand(cluster_blueprint("box", 1, ScaleUp(ranks, 450e9, 0.0, "nvlink", switches=switches), None))
    plan = schedule("all_reduce", name, ranks, size_bytes, chunk_bytes=size_bytes / ranks / CHUNKS)
    road = (Hop(450e9, 0.0, IDEAL, in_network_reduction=True),)
    closed = float(ALGORITHMS["all_reduce"][name].fn(size_bytes, [ranks], road))
    found = price(Job(plan, accelerators(g)), g, fidelity).seconds
    assert closed * (1 - 1e-9) <= found <= closed * (1 + 4 / CHUNKS)
    assert found >= float(lower_bound("all_reduce", size_bytes, [ranks], road))


@settings(max_examples=30, deadline=None)
@given(
    domains=st.sampled_from([2, 4, 8, 16]),
    size=st.sampled_from([2, 4]),
    rails=st.sampled_from([1, 4]),
    radix=st.sampled_from([8, 16, 64]),
    algorithm=st.sampled_from(["nvls", "sharp"]),
    fidelity=st.sampled_from(ADDING),
)
def test_over_boxes_the_closed_form_holds_on_every_tree_of_switches(
    domains: int, size: int, rails: int, radix: int, algorithm: str, fidelity: str
) -> None:
    """NVLS goes over two trees between boxes: an inner rank of one carries a whole share each way, not (1 - 1/r) of it."""
    sums_outside = algorithm == "sharp"
    up = ScaleUp(size, 450e9, 0.0, "nvlink", switches=2, in_network_reduction=not sums_outside)
    out = ScaleOut(
        50e9, "ib", min(rails, size), radix, latency_s=0.0, switch_latency_s=0.0, in_network_reduction=sums_outside
    )
    g = expand(cluster_blueprint("two", domains, up, out))
    ranks, size_bytes = domains * size, 1e9
    chunk_bytes = size_bytes / size / CHUNKS / (1 if sums_outside else 2)
    plan = schedule("all_reduce", algorithm, ranks, size_bytes, inner=size, chunk_bytes=chunk_bytes)
    road = (
        Hop(450e9, 0.0, IDEAL, in_network_reduction=not sums_outside),
        Hop(50e9, 0.0, IDEAL, "scale-out", in_network_reduction=sums_outside),
    )
    closed = float(ALGORITHMS["all_reduce"][algorithm].fn(size_bytes, [size, ranks], road))
    found = price(Job(plan, accelerators(g)), g, fidelity).seconds
    trees = 1.0 if sums_outside else domains / (domains - 1)
    assert closed * (1 - 1e-9) <= found <= closed * trees * (1 + 20 / CHUNKS)
    assert found >= float(lower_bound("all_reduce", size_bytes, [size, ranks], road)) * (1 - 1e-9)


def test_sums_in_the_network_do_not_feel_oversubscription_below_their_leaves() -> None:
    """A leaf hands on one sum however many hosts it has: 4:1 is as good as 1:1 with eight hosts per leaf."""
    found = []
    for over in (1.0, 4.0):
        out = ScaleOut(50e9, "ib", 1, 16, oversubscription=over, down=8, in_network_reduction=True)
        bp = cluster_blueprint("two", 16, ScaleUp(1, 450e9, 0.0, "nvlink"), out)
        g = expand(bp)
        found.append(price(Job(schedule("all_reduce", "sharp", 16, 1e9), accelerators(g)), g).terms["wire"])
    assert found[1] == pytest.approx(found[0])


def test_arrays_are_told_which_switches_add() -> None:
    bp = cluster_blueprint("box", 1, ScaleUp(4, 450e9, 0.0, "nvlink", switches=2), None)
    plan, w, g = schedule("all_reduce", "nvls", 4, 1e9), flat(bp), expand(bp)
    switches = np.setdiff1d(np.arange(w.size), w.accelerators)
    told = price(Job(plan, w.accelerators), w, adders=switches).seconds
    assert told == price(Job(plan, accelerators(g)), g).seconds
    with pytest.raises(SpecError, match="share no switch that adds"):
        price(Job(plan, w.accelerators), w)


def test_a_network_serves_sums_and_messages_alike() -> None:
    g = leaves_and_spine("a", "b", "top", ranks=6)
    net = network(g, range(6))
    plans = [schedule("all_reduce", name, 6, 1e8) for name in ("ring", "sharp", "ring", "nvls", "sharp")]
    assert [price(Job(plan, range(6)), net).seconds for plan in plans] == [
        price(Job(plan, range(6)), g).seconds for plan in plans
    ]


@pytest.mark.parametrize("fidelity", sorted(set(FIDELITIES) - set(ADDING)))
def test_rungs_without_sums_say_so(fidelity: str) -> None:
    with pytest.raises(SpecError, match="price it by stepwise or dependency"):
        price(Job(schedule("all_reduce", "nvls", 4, 1e9), range(4)), leaves_and_spine("top"), fidelity)


def test_installed_routes_lead_to_no_switch() -> None:
    with pytest.raises(SpecError, match="share no switch that adds"):
        price(Job(schedule("all_reduce", "sharp", 2, 1e9), [0, 1]), leaves_and_spine("a"), given={(0, 1): [0, "a", 1]})
