"""NetworkX's node-link JSON, as `networkx.node_link_data` writes it and its ``edges`` or (before 3.4) ``links`` name it.

Tuples, NaN and keys that are no text are tagged (see `topo.formats.plain`) and come back; other files' lists as node
names become tuples, as in NetworkX. Parallel edges are summed: see `topo.formats.base.add_link`.

Format: networkx/networkx, networkx/readwrite/json_graph/node_link.py.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import Fault, SpecError
from topo.formats.base import Figures, Imported, Source, Unused, checked
from topo.formats.located import Located, parse_json
from topo.formats.plain import decoded, encoded
from topo.formats.wiring import join

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES: dict[str, float] = {}
DEFAULT_LATENCIES: dict[str, float] = {}

_KEYS = {"directed", "multigraph", "graph", "nodes", "edges", "links"}
_OWN = {"node": ("id",), "edge": ("source", "target", "key")}


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:  # noqa: ARG001 - every reader's signature
    """Return the graph of a node-link document; a directed one is an `nx.DiGraph`.

    Raises
    ------
    SpecError
        With the line, where the JSON or an entry is malformed, or the graph breaks `topo.schema`.

    Examples
    --------
    >>> text = '''{"nodes": [{"id": "a", "kind": "accelerator"}, {"id": "b", "kind": "accelerator"}],
    ... "edges": [{"source": "a", "target": "b", "bandwidth_Bps": 1e9, "latency_s": 1e-6}]}'''
    >>> read(Source("a.json", text), {}, {}).graph.edges["a", "b"]["bandwidth_Bps"]
    1000000000.0
    """
    import networkx as nx

    value = parse_json(source)
    if not isinstance(value, Located) or not isinstance(value.get("nodes"), list):
        raise source.error(1, "holds no nodes", 'expected {"nodes": [ … ], "edges": [ … ]}')
    edges = value.get("edges", value.get("links"))
    if not isinstance(edges, list):
        raise source.error(value.line, "holds no edges", 'expected "edges": [ … ]')
    graph: nx.Graph[Any] = nx.DiGraph() if value.get("directed") is True else nx.Graph()
    held = decoded(value.get("graph", {}))
    unused = [source.unused(value.line, f"{key!r} is no key of this format") for key in value if key not in _KEYS]
    if "edges" in value and "links" in value:
        unused.append(source.unused(value.line, "'links' stands beside 'edges'"))
    if isinstance(held, dict):
        graph.graph.update({str(key): one for key, one in held.items()})
    else:
        unused.append(source.unused(value.line, "'graph' is no object"))
    where = _nodes(source, graph, value["nodes"])
    for row in edges:
        _edge(source, graph, row, where, unused)
    return checked(source, graph, unused, where)


def _name(value: Any) -> Any:
    """Return a node name: decoded, and a list as a tuple, all the way down."""
    value = decoded(value)
    return tuple(_name(one) for one in value) if isinstance(value, list) else value


def _end(source: Source, row: Any, key: str, last: int) -> Any:
    """Return the node name under a key of an entry."""
    if not isinstance(row, Located) or key not in row:
        raise source.error(getattr(row, "line", last), f"has no {key!r}", f'expected an object with "{key}"')
    name = _name(row[key])
    try:
        hash(name)
    except TypeError:
        raise source.error(row.line, f"{key!r} is no name", "write text or a number") from None
    if name is None:
        raise source.error(row.line, f"{key!r} is null", "write text or a number")
    return name


def _nodes(source: Source, graph: "nx.Graph[Any]", rows: list[Any]) -> dict[str, int]:
    where: dict[str, int] = {}
    line = 1
    for row in rows:
        name = _end(source, row, "id", line)
        line = row.line
        if name in graph:
            raise source.error(line, f"repeats node {name}", "keep one")
        graph.add_node(name, **{key: decoded(one) for key, one in row.items() if key not in _OWN["node"]})
        where[f"node {name}"] = line
    return where


def _edge(source: Source, graph: "nx.Graph[Any]", row: Any, where: dict[str, int], unused: list[Unused]) -> None:
    last = max(where.values(), default=1)
    a, b = (_end(source, row, key, last) for key in ("source", "target"))
    for node in (a, b):
        if node not in graph:
            raise source.error(row.line, f"leads to {node}, which is no node", "add it to nodes")
    held = {key: decoded(one) for key, one in row.items() if key not in _OWN["edge"]}
    join(source, graph, (a, b), held, row.line, unused)
    where.setdefault(f"edge {a} - {b}", row.line)


def write(graph: "nx.Graph[Any]", path: Path) -> None:
    """Write a graph as `networkx.node_link_data` lays it out.

    Raises
    ------
    SpecError
        When an attribute has a name that the layout takes (id, source, target, key), or a value that JSON cannot hold.
    """
    faults = [
        Fault(f"node {node}.id", held["id"], "has a name that this format takes", "rename it")
        for node, held in graph.nodes(data=True)
        if "id" in held
    ] + [
        Fault(f"edge {a} - {b}.{name}", held[name], "has a name that this format takes", "rename it")
        for a, b, held in graph.edges(data=True)
        for name in _OWN["edge"]
        if name in held
    ]
    if faults:
        raise SpecError(faults)
    nodes = [
        encoded(dict(held), f"node {node}") | {"id": encoded(node, f"node {node}")}
        for node, held in graph.nodes(data=True)
    ]
    edges = [
        encoded(dict(held), f"edge {a} - {b}") | {"source": encoded(a, f"node {a}"), "target": encoded(b, f"node {b}")}
        for a, b, held in graph.edges(data=True)
    ]
    head = {"directed": graph.is_directed(), "multigraph": False, "graph": encoded(dict(graph.graph), "graph")}
    rows = ",\n  ".join
    text = (
        json.dumps(head)[:-1]
        + f',\n "nodes": [\n  {rows(map(json.dumps, nodes))}],\n "edges": [\n  {rows(map(json.dumps, edges))}]}}\n'
    )
    path.write_text(text, encoding="utf-8")
