"""Tiers and summaries of graphs of any origin, against those of the blueprints that they were written out from."""

from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.formats import read
from topo.graphs import expand
from topo.imported import graph_summary, graph_tiers
from topo.survey import summary
from topo.tiers import tiers

GB = 1e9
RATES = {"subnet.topo": {"???": GB}, "cluster.yaml": {"pcie": 31 * GB}}
"""Figures that two of the files leave out."""
FORMATS = Path(__file__).parent / "formats"


@st.composite
def clusters(draw: st.DrawFn) -> Blueprint:
    up = ScaleUp(draw(st.sampled_from([2, 4, 6])), 9 * GB, 1e-6, "nvlink", switches=2)
    out = ScaleOut(GB, "ib", radix=draw(st.sampled_from([4, 8])), oversubscription=draw(st.sampled_from([1.0, 3.0])))
    return cluster_blueprint("x", draw(st.integers(2, 5)), up, out)


@settings(max_examples=25, deadline=None)
@given(clusters())
def test_a_written_out_cluster_measures_as_its_blueprint_says(bp: Blueprint) -> None:
    inner, outer = graph_tiers(expand(bp))
    first, *others = tiers(bp)
    assert (inner.size, inner.blocks, inner.hops) == (first.size, first.blocks, first.hops)
    assert inner.bandwidth_Bps == pytest.approx(first.bandwidth_Bps)
    assert inner.latency_s == pytest.approx(first.latency_s)
    # Between domains the graph counts all wires, so detours over other domains' NICs can only help.
    assert outer.bandwidth_Bps >= min(tier.bandwidth_Bps for tier in others) * (1 - 1e-9)
    assert outer.size == others[-1].size
    said, found = summary(bp), graph_summary(expand(bp))
    assert (found["accelerators"], found["parts"], found["hops"]) == (said["accelerators"], said["parts"], said["hops"])


def test_domains_are_found_by_wires_where_no_attribute_tells_them() -> None:
    graph = expand(cluster_blueprint("two", 2, ScaleUp(4, 900 * GB, 1e-6, "nvlink"), ScaleOut(50 * GB, "ib")))
    for _, held in graph.nodes(data=True):
        del held["domain"]
    assert [(tier.size, tier.blocks, tier.plane) for tier in graph_tiers(graph)] == [
        (4, 2, "scale-up"),
        (8, 1, "scale-out"),
    ]


def test_a_ring_is_one_domain_without_switches() -> None:
    ring: nx.Graph[int] = nx.cycle_graph(6)
    for node in ring:
        ring.nodes[node]["kind"] = "accelerator"
        ring.edges[node, (node + 1) % 6].update(bandwidth_Bps=5 * GB, latency_s=1e-6)
    (tier,) = graph_tiers(ring)
    assert (tier.kind, tier.size, tier.bandwidth_Bps, tier.hops) == ("mesh", 6, 10 * GB, 1)


def test_one_accelerator_is_refused() -> None:
    alone: nx.Graph[str] = nx.Graph()
    alone.add_node("gpu", kind="accelerator")
    with pytest.raises(SpecError, match="one accelerator"):
        graph_tiers(alone)


@pytest.mark.parametrize("path", sorted(p for p in FORMATS.iterdir() if p.suffix != ".md"), ids=lambda p: p.name)
def test_every_imported_file_can_be_measured(path: Path) -> None:
    facts = graph_summary(read(path, rates=RATES.get(path.name)).graph)
    assert facts["tiers"]
    assert all(row["bandwidth_Bps"] > 0 for row in facts["tiers"])
    assert facts["worst_split_Bps"] <= facts["bisection_Bps"] * (1 + 1e-9)
