"""The best all-gather: published values, and every cut of the full graph tried one by one."""

from itertools import combinations

import networkx as nx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade
from topo.compose import Core, joined
from topo.direct import FullMesh, Torus
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.gather import gather_Bps
from topo.graphs import expand

GB = 1e9


def _torus(*shape: int, wrap: bool = True) -> Blueprint:
    return cluster_blueprint("x", 1, Torus(shape, GB, 1e-6, "ici", wrap), None)


@pytest.mark.parametrize("shape", [(8,), (4, 4), (4, 4, 4), (4, 8), (3, 5), (2, 2, 4), (2, 4)])
def test_a_torus_gathers_on_all_its_links(shape: tuple[int, ...]) -> None:
    assert gather_Bps(_torus(*shape)).bandwidth_Bps == pytest.approx(2 * len(shape) * GB)


@pytest.mark.parametrize(("shape", "links"), [((8,), 1), ((4, 4), 2)])
def test_the_corner_of_a_mesh_rules(shape: tuple[int, ...], links: int) -> None:
    assert gather_Bps(_torus(*shape, wrap=False)).bandwidth_Bps == pytest.approx(links * GB)


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, 1.0), (8.0, 1.0), (15.0, 1.0), (30.0, 0.5)])
def test_oversubscription_is_not_felt_before_it_outweighs_the_leaf(ratio: float, expected: float) -> None:
    """Two leaves of L = 8 of P = 16: 8/ratio links let 8 shards out, enough until L (P - 1)/(P - L) = 15."""
    out = ScaleOut(GB, "ib", rails=1, radix=16, levels=2, down=8, oversubscription=ratio)
    tree = cluster_blueprint("tree", 16, ScaleUp(1, 0.0, 0.0, ""), out)
    assert gather_Bps(tree).bandwidth_Bps == pytest.approx(expected * GB)


def test_one_slow_link_slows_everybody() -> None:
    box = cluster_blueprint("box", 1, ScaleUp(8, 9 * GB, 1e-6, "nvlink", switches=1), None)
    slow = degrade(box, "accelerator", {"slot": 3}, factor=0.25)
    assert gather_Bps(slow).bandwidth_Bps == pytest.approx(9 / 4 * GB)


def test_a_pool_gathers_by_itself_and_the_whole_through_what_joins_the_pools() -> None:
    rack = cluster_blueprint("rack", 1, ScaleUp(4, 9 * GB, 1e-6, "nvlink"), None)
    both = joined("both", {"a": rack, "b": rack}, Core("ib", {"a": GB, "b": GB}))
    assert gather_Bps(both, "a.accelerator").bandwidth_Bps >= 9 * GB
    whole = gather_Bps(both)
    assert (whole.accelerators, whole.bandwidth_Bps) == (8, pytest.approx(GB / 4 * 7))


def test_nobody_to_gather_from_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing to gather"):
        gather_Bps(cluster_blueprint("x", 1, ScaleUp(1, 0.0, 0.0, ""), None))


@st.composite
def fabrics(draw: st.DrawFn) -> Blueprint:
    kind = draw(st.sampled_from(["tree", "mesh", "torus", "pools"]))
    tree = cluster_blueprint(
        "tree",
        draw(st.integers(2, 3)),
        ScaleUp(2, 8 * GB, 1e-6, "nvlink", switches=1),
        ScaleOut(GB, "ib", rails=1, radix=4, oversubscription=draw(st.sampled_from([1.0, 3.0]))),
    )
    bp = {
        "tree": lambda: tree,
        "mesh": lambda: cluster_blueprint("mesh", 1, FullMesh(draw(st.integers(2, 5)), 6 * GB, 1e-6, "xgmi"), None),
        "torus": lambda: _torus(draw(st.integers(2, 4)), draw(st.integers(1, 3)), wrap=draw(st.booleans())),
        "pools": lambda: joined("p", {"a": tree, "b": _torus(3)}, Core("ib", {"a": 2 * GB, "b": GB})),
    }[kind]()
    ends = [node for node in bp.nodes if node.kind == "accelerator"]
    node = draw(st.sampled_from(ends))
    if draw(st.booleans()):
        at = {axis: draw(st.integers(0, bp.axis[axis].size - 1)) for axis in bp.closure(node.axes)}
        bp = degrade(bp, node.name, at, factor=0.5)
    return bp


@settings(max_examples=40, deadline=None)
@given(fabrics())
def test_it_is_the_least_cut_over_the_shards_behind_it(bp: Blueprint) -> None:
    """Every set of accelerators in turn: the least cut round it over its size (switches fall on the better side)."""
    graph = expand(bp)
    ends = [node for node, held in graph.nodes(data=True) if held["kind"] == "accelerator"]
    assume(2 <= len(ends) <= 9)
    arcs: nx.DiGraph[str] = nx.DiGraph()
    for u, v, held in graph.edges(data=True):
        arcs.add_edge(u, v, capacity=held["bandwidth_Bps"])
        arcs.add_edge(v, u, capacity=held["bandwidth_Bps"])
    least = float("inf")
    for size in range(1, len(ends)):
        for chosen in combinations(ends, size):
            inside = arcs.copy()
            inside.add_edges_from(("<", node) for node in chosen)
            inside.add_edges_from((node, ">") for node in ends if node not in chosen)
            least = min(least, nx.maximum_flow_value(inside, "<", ">") / size)
    assert gather_Bps(bp).bandwidth_Bps == pytest.approx(least * (len(ends) - 1), rel=1e-6)
