"""Clusters whose wiring another tool wrote down: the graph, its domains and tiers, and the lines that say nothing."""

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clusters import catalogue
from clusters.sections import ClusterSpec, GraphSpec

if TYPE_CHECKING:
    from topo.formats import Imported
    from topo.tiers import Tier
    from topo.wires import AnyGraph


@lru_cache(8)
def read_graph(found: GraphSpec) -> "Imported":
    """Read a graph file of any of the formats of `topo.formats`, once for its content; nobody may change the graph.

    Raises
    ------
    SpecError
        With the file and line, when it is malformed or of no known format.
    """
    from topo.formats import read

    return read(Path(found.file), found.format or None, rates=dict(found.rates), latencies=dict(found.latencies))


def homes(graph: "AnyGraph") -> list[int]:
    """Return how many accelerators each scale-up domain of a graph has."""
    from topo.imported import domains
    from topo.wires import wires

    return sorted(Counter(domains(graph)[wires(graph).accelerators].tolist()).values())


def links_of(spec: ClusterSpec) -> dict[str, str]:
    """Return whose constants the links of a graph take where it names none that the catalogue knows, by plane."""
    return {"scale-up": spec.scale_up.link, "scale-out": spec.scale_out.link}


def imported_tiers(spec: ClusterSpec, graph: "AnyGraph") -> "tuple[Tier, ...]":
    """Return the tiers of a graph, each with a link of the catalogue."""
    from topo.imported import graph_tiers

    known, mine = catalogue.links(), links_of(spec)
    return tuple(
        tier if tier.link in known else replace(tier, link=mine[tier.plane] or tier.link) for tier in graph_tiers(graph)
    )


def unused(found: GraphSpec) -> tuple[str, ...]:
    """Return a note for every line that the graph does not hold."""
    name = Path(found.file).name
    return tuple(f"{name}:{line.line}: not used ({line.why}): {line.text}" for line in read_graph(found).unused)


def parts(graph: "AnyGraph") -> dict[str, int]:
    """Count what is bought besides accelerators: nodes by part, links by key."""
    counts: Counter[str] = Counter()
    for _, held in graph.nodes(data=True):
        if held["kind"] != "accelerator":
            counts[str(held.get("part", ""))] += 1
    for *_, held in graph.edges(data=True):
        counts[str(held.get("link", ""))] += held.get("links", 1)
    return {key: count for key, count in counts.items() if key}
