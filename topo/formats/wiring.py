"""How a file's own edges become edges of a graph, where the file gives all attributes itself."""

from typing import TYPE_CHECKING, Any

from topo.formats.base import Source, Unused

if TYPE_CHECKING:
    import networkx as nx

_SUMMED = ("bandwidth_Bps", "latency_s", "links")


def _figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def join(
    source: Source, graph: "nx.Graph[Any]", ends: tuple[Any, Any], held: dict[str, Any], line: int, unused: list[Unused]
) -> None:
    """Add an edge; one beside another adds its bandwidth and links to it, and what else differs is reported.

    Raises
    ------
    SpecError
        When parallel edges lack the figures to add.

    Examples
    --------
    >>> import networkx as nx
    >>> g, left = nx.Graph(), []
    >>> for link in ("copper", "fibre"):
    ...     join(Source("a", ""), g, ("a", "b"), {"bandwidth_Bps": 1e9, "latency_s": 0.0, "link": link}, 1, left)
    >>> g.edges["a", "b"]
    {'bandwidth_Bps': 2000000000.0, 'latency_s': 0.0, 'link': 'copper', 'links': 2}
    >>> left[0].why
    "link = 'fibre' differs from that of the edge beside it, which is kept"
    """
    if not graph.has_edge(*ends):
        graph.add_edge(*ends, **held)
        return
    first = graph.edges[ends]
    if not all(_figure(one.get(name)) for one in (first, held) for name in _SUMMED[:2]):
        raise source.error(line, f"joins {ends[0]} and {ends[1]} once more, without bandwidth_Bps and latency_s to add")
    counts = [one.get("links", 1) for one in (first, held)]
    if not all(map(_figure, counts)):
        raise source.error(line, "has links that are no number", "write 1 or more", counts[1])
    first["bandwidth_Bps"] += held["bandwidth_Bps"]
    first["latency_s"] = min(first["latency_s"], held["latency_s"])
    first["links"] = sum(counts)
    for name, value in held.items():
        if name not in _SUMMED and first.get(name) != value:
            why = f"{name} = {value!r} differs from that of the edge beside it, which is kept"
            unused.append(source.unused(line, why))
