"""GraphML, as NetworkX writes it (and yEd, Gephi and igraph, as far as they use plain keys).

GraphML holds text, numbers and true or false. Every other value (None, lists, dicts, tuples), every name of a node that
is no text, and text that XML would change is written as ``json:`` and JSON text, and comes back as it was. Parallel
edges are summed: see `topo.formats.base.add_link`.

Format: graphml.graphdrawing.org/primer, and networkx/networkx, networkx/readwrite/graphml.py.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import Fault, SpecError
from topo.formats.base import Figures, Imported, Source, Unused, checked
from topo.formats.plain import decoded, encoded
from topo.formats.wiring import join
from topo.formats.xmltree import Element, parse_xml

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES: dict[str, float] = {}
DEFAULT_LATENCIES: dict[str, float] = {}

_JSON = "json:"
_RISKY = re.compile(r"^\s|\s$|[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_TYPES: dict[str, Any] = {
    "string": str,
    "int": int,
    "long": int,
    "integer": int,
    "float": float,
    "double": float,
    "real": float,
    "boolean": lambda text: _TRUTH[text.strip().lower()],
}


class _File:
    """A document while it is read: its keys, and what couldn't be used."""

    def __init__(self, source: Source, root: Element) -> None:
        self.source = source
        self.unused: list[Unused] = []
        self.keys: dict[str, Element] = {}
        for key in (child for child in root.children if child.tag == "key"):
            name, kind = key.attributes.get("attr.name"), key.attributes.get("attr.type", "string")
            if not key.attributes.get("id"):
                raise source.error(key.line, "<key> has no id", 'expected <key id="d0" …>')
            if name is not None and kind not in _TYPES:
                raise source.error(key.line, "has an unknown attr.type", f"known: {', '.join(_TYPES)}", kind)
            self.keys[key.attributes["id"]] = key
            if name is None:
                self.drop(key, "names no attribute (attr.name): its data is a program's own")

    def drop(self, element: Element, why: str) -> None:
        """Report an element."""
        self.unused.append(self.source.unused(element.line, why))

    def value(self, key: Element, text: str, line: int) -> Any:
        """Return a value in the type of its key."""
        kind = key.attributes.get("attr.type", "string")
        try:
            value = _TYPES[kind](text)
        except (ValueError, KeyError):
            raise self.source.error(line, f"is no {kind}", f"the key of line {key.line} says {kind}", text) from None
        return restored(value)

    def data(self, element: Element) -> dict[str, Any]:
        """Return the attributes of a node, edge or graph: its data over the defaults of its keys."""
        held = {
            key.attributes["attr.name"]: self.value(key, default.text, default.line)
            for key in self.keys.values()
            if "attr.name" in key.attributes and key.attributes.get("for", "all") in {element.tag, "all"}
            for default in key.children
            if default.tag == "default"
        }
        for child in element.children:
            if child.tag != "data":
                continue
            key = self.keys.get(child.attributes.get("key", ""))
            if key is None:
                raise self.source.error(child.line, "<data> has a key that is not declared", "add its <key>")
            if "attr.name" in key.attributes:
                held[key.attributes["attr.name"]] = self.value(key, child.text, child.line)
            else:
                self.drop(child, f"the key of line {key.line} names no attribute")
        return held


def restored(value: Any) -> Any:
    """Return a value or name of a file as it was before `kept` wrote it.

    Examples
    --------
    >>> restored("json:null"), restored("json:{not"), restored("gpu0")
    (None, 'json:{not', 'gpu0')
    """
    if not isinstance(value, str) or not value.startswith(_JSON):
        return value
    try:
        return decoded(json.loads(value.removeprefix(_JSON)))
    except (ValueError, RecursionError):
        return value


def kept(value: Any, where: str) -> Any:
    """Return a value as GraphML can hold it.

    Examples
    --------
    >>> kept(None, "x"), kept((0, 1), "x"), kept(1.5, "x"), kept("gpu0", "x")
    ('json:null', 'json:{"__tuple__": [0, 1]}', 1.5, 'gpu0')
    """
    plain = encoded(value, where)
    if isinstance(plain, bool | float) or (isinstance(plain, int) and abs(plain) < 2**63):
        return plain
    if isinstance(plain, str) and not plain.startswith(_JSON) and not _RISKY.search(plain):
        return plain
    return _JSON + json.dumps(plain)


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:  # noqa: ARG001 - every reader's signature
    """Return the first graph of a document; a directed one is an `nx.DiGraph`.

    Raises
    ------
    SpecError
        With the line, where the XML or a value is malformed, an edge leads nowhere, or the graph breaks `topo.schema`.

    Examples
    --------
    >>> text = '''<graphml><key id="k" for="node" attr.name="kind" attr.type="string"/>
    ... <graph edgedefault="undirected"><node id="a"><data key="k">accelerator</data></node></graph></graphml>'''
    >>> read(Source("a.graphml", text), {}, {}).graph.nodes["a"]
    {'kind': 'accelerator'}
    """
    import networkx as nx

    root = parse_xml(source, "graphml")
    file = _File(source, root)
    graphs = [child for child in root.children if child.tag == "graph"]
    if not graphs:
        raise source.error(root.line, "<graphml> holds no <graph>", "expected one")
    for child in root.children:
        if child.tag not in {"key", "graph"} or child in graphs[1:]:
            file.drop(child, "is not the first <graph>")
    element = graphs[0]
    directed = element.attributes.get("edgedefault") == "directed"
    graph: nx.Graph[Any] = nx.DiGraph() if directed else nx.Graph()
    graph.graph.update(file.data(element))
    where: dict[str, int] = {}
    for child in element.children:
        if child.tag == "node":
            _node(file, graph, child, where)
    for child in element.children:
        if child.tag == "edge":
            _edge(file, graph, child, where)
        elif child.tag not in {"node", "data"}:
            file.drop(child, f"<{child.tag}> is neither node nor edge")
    return checked(source, graph, file.unused, where)


def _node(file: _File, graph: "nx.Graph[Any]", element: Element, where: dict[str, int]) -> None:
    name = _name(file, element, "id")
    if name in graph:
        raise file.source.error(element.line, f"repeats node {name}", "keep one")
    graph.add_node(name, **file.data(element))
    where[f"node {name}"] = element.line
    for child in element.children:
        if child.tag != "data":
            file.drop(child, f"<{child.tag}> in a node is not read")


def _name(file: _File, element: Element, attribute: str) -> Any:
    name = restored(element.attributes.get(attribute, ""))
    try:
        hash(name)
    except TypeError:
        name = None
    if name is None or name == "":
        raise file.source.error(element.line, f"<{element.tag}> has no {attribute}", f'expected {attribute}="…"')
    return name


def _edge(file: _File, graph: "nx.Graph[Any]", element: Element, where: dict[str, int]) -> None:
    a, b = (_name(file, element, end) for end in ("source", "target"))
    for node in (a, b):
        if node not in graph:
            raise file.source.error(element.line, f"leads to {node}, which is no node", "add the <node>")
    if element.attributes.get("directed", str(graph.is_directed()).lower()) != str(graph.is_directed()).lower():
        raise file.source.error(element.line, "is directed otherwise than its graph", "use one edgedefault")
    join(file.source, graph, (a, b), file.data(element), element.line, file.unused)
    where.setdefault(f"edge {a} - {b}", element.line)
    for child in element.children:
        if child.tag != "data":
            file.drop(child, f"<{child.tag}> in an edge is not read")


def write(graph: "nx.Graph[Any]", path: Path) -> None:
    """Write a graph as NetworkX writes GraphML.

    Raises
    ------
    SpecError
        When an attribute's name is no text, or its value is one that JSON cannot hold.
    """
    import networkx as nx

    made: nx.Graph[Any] = nx.DiGraph() if graph.is_directed() else nx.Graph()
    made.graph.update(_kept(graph.graph, "graph"))
    for node, held in graph.nodes(data=True):
        made.add_node(_text(node), **_kept(held, f"node {node}"))
    for a, b, held in graph.edges(data=True):
        made.add_edge(_text(a), _text(b), **_kept(held, f"edge {a} - {b}"))
    path.write_text("\n".join(nx.generate_graphml(made)) + "\n", encoding="utf-8")


def _text(node: Any) -> str:
    text = kept(node, f"node {node}")
    return text if isinstance(text, str) and text else _JSON + json.dumps(encoded(node, f"node {node}"))


def _kept(held: dict[Any, Any], where: str) -> dict[str, Any]:
    wrong = [name for name in held if not isinstance(name, str) or _RISKY.search(name)]
    if wrong:
        raise SpecError(
            [Fault(f"{where}.{wrong[0]!r}", None, "has a name that GraphML cannot hold", "write plain text")]
        )
    return {name: kept(value, f"{where}.{name}") for name, value in held.items()}
