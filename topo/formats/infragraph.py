"""infragraph: devices made of components, instances of devices, and edges between slices of both (YAML or JSON).

The file is read and written without the infragraph package; what this module writes, its ``set_graph`` takes.

Format: Keysight/infragraph, artifacts/openapi.yaml (schema 2.4.0: Infrastructure, Device, Component, Link, Edge,
Instance) and src/infragraph/infragraph_service.py (``_split_endpoint``: python slices, none means all;
``_expand_device_endpoint``, ``_expand_instance_endpoint``: products of slices; ``_generate_device_nodes``: names such as
``server.0.cx5.1.port.0``; edges: many2many is the product, one2one pairs in order, a repeated edge replaces the first).
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.blueprint import KINDS
from topo.errors import Fault, SpecError
from topo.formats.base import MAX_LINKS, Figures, Imported, Source, Unused, checked
from topo.formats.located import Located, line_of, parse_json, parse_yaml
from topo.formats.plain import decoded, encoded

if TYPE_CHECKING:
    import networkx as nx

DEFAULT_RATES: dict[str, float] = {}
"""A link's name is the user's own word, so there is no default: a link without a bandwidth must be given one."""

DEFAULT_LATENCIES: dict[str, float] = {}
"""A link without a latency has none, unless it is given one by its name."""

KINDS_OF_CHOICES = {
    "xpu": "accelerator",
    "nic": "nic",
    "cpu": "host",
    "memory": "host",
    "switch": "switch",
    "port": "switch",  # passes on what it gets
    "custom": "switch",
}
"""What each component is in a graph; `component` and, for custom ones, its type stay beside it."""

CHOICES_OF_KINDS = {"accelerator": "xpu", "nic": "nic", "host": "cpu", "switch": "switch", "site": "custom"}

UNITS_Bps = {
    "gigabits_per_second": 1e9 / 8,
    "gigabytes_per_second": 1e9,
    "gigatransfers_per_second": 1e9 * 16 / 8,  # 16 lanes of one bit, without the line code: the file has no width
}
UNITS_S = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}

_MARK = "podscale "
_PART = re.compile(r"([^\[\].]+)(?:\[([^\[\]]*)\])?")
_KEYS = {
    "infrastructure": {"name", "description", "devices", "links", "instances", "edges"},
    "device": {"name", "description", "components", "links", "edges"},
}


@dataclass
class _File:
    """What is known while reading: devices and instances by name, the graph, where its edges stand, what is unused."""

    source: Source
    rates: Figures
    latencies: Figures
    graph: "nx.Graph[Any]"
    devices: dict[str, "Located"] = field(default_factory=dict)
    instances: dict[str, "Located"] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    where: dict[str, int] = field(default_factory=dict)
    edge_lines: dict[frozenset[str], int] = field(default_factory=dict)
    unused: list[Unused] = field(default_factory=list)

    def rows(self, held: "Located", key: str) -> list["Located"]:
        """Return a list of mappings ([] where it is missing)."""
        rows = held.get(key) or []
        if not isinstance(rows, list) or not all(isinstance(row, Located) for row in rows):
            raise self.source.error(held.at(key), f"{key} is no list of mappings", f"write {key}: [ … ]")
        return rows

    def text(self, held: "Located", key: str) -> str:
        """Return a word that must be there."""
        value = held.get(key)
        if not isinstance(value, str) or not value:
            raise self.source.error(held.at(key), f"gives no {key}", f"write {key}: …", value)
        return value

    def count(self, held: "Located") -> int:
        """Return how many of a component or instance there are."""
        value = held.get("count")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_LINKS:
            raise self.source.error(held.at("count"), "gives no count", "write a whole number above 0", value)
        return value

    def ignore(self, held: "Located", known: set[str]) -> None:
        """Report the keys that the format doesn't have."""
        self.unused += [
            self.source.unused(held.at(key), "is no key of this format") for key in held if key not in known
        ]


def read(source: Source, rates: Figures, latencies: Figures) -> Imported:
    """Return the expanded infrastructure, with node names as infragraph gives them.

    `rates` and `latencies` by link name stand in where a link has no `physical` figures.

    Raises
    ------
    SpecError
        With the line: a missing word, an index past its count, an unknown device, instance, component or link, a link
        without bandwidth.

    Examples
    --------
    >>> text = '''
    ... devices:
    ... - name: box
    ...   components: [{name: xpu, count: 2, choice: xpu}, {name: sw, count: 1, choice: switch}]
    ...   links: [{name: up, physical: {bandwidth: {choice: gigabits_per_second, gigabits_per_second: 400}}}]
    ...   edges: [{ep1: {component: "xpu[0:2]"}, ep2: {component: sw}, scheme: many2many, link: up}]
    ... instances: [{name: node, device: box, count: 1}]
    ... '''
    >>> graph = read(Source("a.yaml", text), {}, {}).graph
    >>> list(graph["node.0.sw.0"]), graph.edges["node.0.xpu.0", "node.0.sw.0"]["bandwidth_Bps"]
    (['node.0.xpu.0', 'node.0.xpu.1'], 50000000000.0)
    """
    import networkx as nx

    value = parse_json(source) if source.text.lstrip().startswith("{") else parse_yaml(source)
    if isinstance(value, Located) and isinstance(value.get("infrastructure"), Located):
        value = value["infrastructure"]
    if not isinstance(value, Located):
        raise source.error(1, "is no mapping", "expected devices, instances and edges")
    file = _File(source, rates, latencies, nx.Graph())
    if "connections" in value or any("connections" in row for row in file.rows(value, "devices")):
        raise source.error(
            value.at("connections"), "is of schema 0.x (connections)", "save it with infragraph 1 or later"
        )
    file.ignore(value, _KEYS["infrastructure"])
    file.devices = {file.text(row, "name"): row for row in file.rows(value, "devices")}
    file.instances = {file.text(row, "name"): row for row in file.rows(value, "instances")}
    _check_rates(file, value)
    for name, row in file.instances.items():
        for i in range(file.count(row)):
            _device(file, f"{name}.{i}", file.text(row, "device"), row, ())
    links = _links(file, value)
    for edge in file.rows(value, "edges"):
        _edge(file, edge, links, lambda end: _instance_ends(file, end), "")
    renamed = {old: new for old, new in file.names.items() if old in file.graph}
    graph = nx.relabel_nodes(file.graph, renamed)
    where = {f"node {renamed.get(name[5:], name[5:])}": line for name, line in file.where.items()}
    return checked(source, graph, file.unused, where)


def _check_rates(file: _File, value: "Located") -> None:
    held = [value, *file.devices.values()]
    known = {row.get("name") for one in held for row in file.rows(one, "links")}
    faults = [
        Fault(
            f"{what}[{name!r}]",
            figure,
            "is no link of this file, or not positive",
            "write a link's name",
            file.source.name,
        )
        for what, given in (("rates", file.rates), ("latencies", file.latencies))
        for name, figure in given.items()
        if name not in known or not figure >= 0 or (what == "rates" and not figure)
    ]
    if faults:
        raise SpecError(faults)


def _device(file: _File, prefix: str, name: str, named_at: "Located", inside: tuple[str, ...]) -> None:
    """Add the nodes and edges of one device under a prefix; a component of choice device is a device in it."""
    if name not in file.devices or name in inside:
        problem = f"device {name} is in itself" if name in inside else f"no device is called {name}"
        raise file.source.error(line_of(named_at, 1), problem, f"known: {', '.join(file.devices)}")
    device = file.devices[name]
    file.ignore(device, _KEYS["device"])
    for row in file.rows(device, "components"):
        component, choice, count = file.text(row, "name"), row.get("choice"), file.count(row)
        if choice != "device" and choice not in KINDS_OF_CHOICES:
            raise file.source.error(
                row.at("choice"), f"component {component} has no known choice", f"write one of {', '.join(KINDS_OF_CHOICES)}",
                choice,
            )  # fmt: skip
        if file.graph.number_of_nodes() + count > MAX_LINKS:
            raise file.source.error(row.at("count"), f"makes more than {MAX_LINKS} nodes", "give smaller counts")
        for i in range(count):
            if choice == "device":
                _device(file, f"{prefix}.{component}.{i}", component, row, (*inside, name))
        if choice != "device":
            _component(file, row, [f"{prefix}.{component}.{i}" for i in range(count)], prefix)
    links = _links(file, device)
    for edge in file.rows(device, "edges"):
        _edge(file, edge, links, lambda end: _component_ends(file, device, _device_path(end)), f"{prefix}.")


def _component(file: _File, row: "Located", nodes: list[str], prefix: str) -> None:
    choice = row["choice"]
    custom = row.get("custom")
    component = custom.get("type", choice) if isinstance(custom, Mapping) else choice
    kind = component if choice == "custom" and component in KINDS else KINDS_OF_CHOICES[choice]
    names, own = _description(row)
    domain = prefix if kind == "accelerator" else None
    for i, node in enumerate(nodes):
        file.graph.add_node(
            node,
            **(
                own if own.get("kind") == kind else {"kind": kind, "domain": domain, "part": "", "component": component}
            ),
        )
        file.where[f"node {node}"] = row.line
        if len(names) == len(nodes):
            file.names[node] = names[i]


def _description(row: "Located") -> tuple[list[Any], dict[str, Any]]:
    """Return the node names and attributes that this module's writer left in a description."""
    text = row.get("description")
    if not isinstance(text, str) or not text.startswith(_MARK):
        return [], {}
    try:
        held = json.loads(text.removeprefix(_MARK))
        names = [decoded(name) for name in held.get("names", [])]
        hash(tuple(names))
        return names, {str(key): decoded(value) for key, value in held.get("attributes", {}).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return [], {}


# --- links and edges -------------------------------------------------------------------------------------------------


def _links(file: _File, held: "Located") -> dict[str, dict[str, Any]]:
    """Return the edge attributes of each link by its name; None as bandwidth where there is none."""
    made = {}
    for row in file.rows(held, "links"):
        name = file.text(row, "name")
        physical = row.get("physical") or {}
        bandwidth_Bps = _quantity(file, row, physical, "bandwidth", UNITS_Bps)
        latency_s = _quantity(file, row, physical, "latency", UNITS_S)
        _, own = _description(row)
        figures = {
            "bandwidth_Bps": file.rates.get(name) if bandwidth_Bps is None else bandwidth_Bps,
            "latency_s": file.latencies.get(name, 0.0) if latency_s is None else latency_s,
        }
        made[name] = (own or {"link": name, "links": 1}) | {
            key: own[key] if _close(own.get(key), figure) else figure for key, figure in figures.items()
        }
    return made


def _close(own: Any, figure: float | None) -> bool:
    """Say whether a figure of a description is that of the link, but for rounding: who edits the link means it."""
    known = isinstance(own, int | float) and figure is not None
    return known and math.isclose(own, figure or 0.0, rel_tol=1e-12)


def _quantity(file: _File, row: "Located", physical: Any, what: str, units: Mapping[str, float]) -> float | None:
    held = physical.get(what) if isinstance(physical, Mapping) else None
    if held is None:
        return None
    choice = held.get("choice") if isinstance(held, Mapping) else None
    value = held.get(choice) if isinstance(choice, str) else None
    if (
        not isinstance(choice, str)
        or choice not in units
        or not isinstance(value, int | float)
        or isinstance(value, bool)
    ):
        raise file.source.error(
            line_of(held, row.line), f"{what} has no figure", f"write choice: and one of {', '.join(units)}", choice
        )
    return float(value) * units[choice]


def _edge(file: _File, edge: "Located", links: Mapping[str, dict[str, Any]], ends: Any, prefix: str) -> None:
    sides = []
    for key in ("ep1", "ep2"):
        if not isinstance(edge.get(key), Located):
            raise file.source.error(edge.at(key), f"gives no {key}", f"write {key}: {{component: …}}", edge.get(key))
        sides.append(ends(edge[key]))
    name = file.text(edge, "link")
    if name not in links:
        raise file.source.error(edge.at("link"), f"no link is called {name}", f"known: {', '.join(links)}")
    held = links[name]
    if held["bandwidth_Bps"] is None:
        raise file.source.error(
            edge.at("link"),
            f"link {name} has no bandwidth",
            f"give rates={{{name!r}: bytes per second}}, or its physical",
        )
    for a, b in _paired(file, edge, sides):
        _join(file, edge, prefix + a, prefix + b, held)


def _paired(file: _File, edge: "Located", sides: list[list[str]]) -> Iterable[tuple[str, str]]:
    scheme = edge.get("scheme")
    if scheme == "many2many":
        if len(sides[0]) * len(sides[1]) + file.graph.number_of_edges() > MAX_LINKS:
            raise file.source.error(edge.line, f"makes more than {MAX_LINKS} links", "give smaller counts")
        return product(sides[0], sides[1])
    if scheme != "one2one":
        problem = (
            "has a scheme that infragraph's own service doesn't build either" if scheme == "ring" else "has no scheme"
        )
        raise file.source.error(edge.at("scheme"), problem, "write one2one or many2many", scheme)
    if len(sides[0]) != len(sides[1]):
        why = f"one2one of {len(sides[0])} and {len(sides[1])} ends: those past the shorter have no partner"
        file.unused.append(file.source.unused(edge.line, why))
    return zip(sides[0], sides[1], strict=False)


def _join(file: _File, edge: "Located", a: str, b: str, held: Mapping[str, Any]) -> None:
    if a == b:
        return  # of cpu × cpu, what joins a thing to itself means nothing, in infragraph too
    pair = frozenset((a, b))
    if pair in file.edge_lines and file.edge_lines[pair] != edge.line:
        why = f"joins {a} and {b}, which line {edge.line} joins anew: infragraph keeps the later"
        file.unused.append(file.source.unused(file.edge_lines[pair], why))
    file.edge_lines[pair] = edge.line
    file.graph.add_edge(a, b, **held)


# --- ends of edges ---------------------------------------------------------------------------------------------------


def _device_path(end: "Located") -> tuple["Located", str]:
    device, component = end.get("device"), end.get("component")
    return end, f"{device}.{component}" if device else str(component or "")


def _sliced(file: _File, end: "Located", text: str, count_of: Any) -> tuple[str, list[str]]:
    """Return the name in ``name[slice]`` and its expansion to ``name.index``."""
    found = _PART.fullmatch(text)
    count = count_of(found[1]) if found else None
    if found is None or count is None:
        raise file.source.error(end.line, f"{text!r} names nothing here", "expected name, name[1] or name[0:2]")
    try:
        numbers = [int(part) if part.strip() else None for part in (found[2] or "").split(":")]
    except ValueError:
        numbers = [None] * 4
    if len(numbers) > 3 or (len(numbers) == 3 and numbers[2] is not None and numbers[2] < 1):
        raise file.source.error(end.line, f"{text!r} holds no slice", "expected e.g. [0:4] or [0:4:2]")
    if len(numbers) == 1:
        start, stop, step = (0, count, 1) if numbers[0] is None else (numbers[0], numbers[0] + 1, 1)
    else:
        start, stop, step = (numbers[0] or 0), (count if numbers[1] is None else numbers[1]), ([*numbers, None][2] or 1)
    if not 0 <= start < stop <= count:
        raise file.source.error(end.line, f"{text!r} reaches past the {count} that there are, or holds none")
    return found[1], [f"{found[1]}.{i}" for i in range(start, stop, step)]


def _component_ends(file: _File, device: "Located", place: tuple["Located", str]) -> list[str]:
    """Return the components that a path such as ``cx5[0:2].port[0]`` stands for."""
    end, path = place
    ends = [""]
    current: Located | None = device
    for part in path.split("."):
        rows = {} if current is None else {row.get("name"): row for row in file.rows(current, "components")}
        name, found = _sliced(file, end, part, lambda n, rows=rows: file.count(rows[n]) if n in rows else None)
        if len(ends) * len(found) > MAX_LINKS:
            raise file.source.error(end.line, f"stands for more than {MAX_LINKS} ends", "give smaller slices")
        ends = [f"{a}.{b}" if a else b for a in ends for b in found]
        current = file.devices.get(name) if rows[name].get("choice") == "device" else None
        leaf = rows[name].get("choice") != "device"
    if not leaf:
        raise file.source.error(end.line, f"{path!r} ends at a device", "name a component of it")
    return ends


def _instance_ends(file: _File, end: "Located") -> list[str]:
    def count_of(name: str) -> int | None:
        return file.count(file.instances[name]) if name in file.instances else None

    name, instances = _sliced(file, end, file.text(end, "instance"), count_of)
    device = file.devices[file.text(file.instances[name], "device")]
    inside = _component_ends(file, device, (end, file.text(end, "component")))
    if len(instances) * len(inside) > MAX_LINKS:
        raise file.source.error(end.line, f"stands for more than {MAX_LINKS} ends", "give smaller slices")
    return [f"{a}.{b}" for a in instances for b in inside]


# --- writing ---------------------------------------------------------------------------------------------------------


def write(graph: "nx.Graph[Any]", path: Path) -> None:
    """Write a graph as one device and its one instance; YAML, or JSON where `path` ends in ``.json``.

    Nodes alike in all attributes are one component, links alike are one link. Names and the attributes that the schema
    of infragraph has no place for stand in the `description`, from where `read` restores them.

    Raises
    ------
    SpecError
        When the graph is directed, or holds a value that JSON can't.
    """
    if graph.is_directed():
        raise SpecError([Fault("graph", None, "is directed, and infragraph's edges are not", "write it as node-link")])
    document = _document(graph)
    if path.suffix == ".json":
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return
    import yaml

    path.write_text(yaml.safe_dump(document, sort_keys=False, width=10**9), encoding="utf-8")


def _document(graph: "nx.Graph[Any]") -> dict[str, Any]:
    groups: dict[str, list[Any]] = {}
    for node, held in graph.nodes(data=True):
        groups.setdefault(json.dumps(encoded(dict(held), f"node {node}")), []).append(node)
    components: list[dict[str, Any]] = []
    place: dict[Any, str] = {}
    for number, (text, nodes) in enumerate(groups.items()):
        kind = graph.nodes[nodes[0]]["kind"]
        name = f"{kind}-{number}"
        note = {"names": [encoded(node, f"node {node}") for node in nodes], "attributes": json.loads(text)}
        row = {"name": name, "description": _MARK + json.dumps(note), "count": len(nodes)}
        choice = CHOICES_OF_KINDS[kind]
        components.append(row | {"choice": choice} | ({"custom": {"type": kind}} if choice == "custom" else {}))
        place |= {node: f"{name}[{i}]" for i, node in enumerate(nodes)}
    links: dict[str, dict[str, Any]] = {}
    edges = []
    for a, b, held in graph.edges(data=True):
        text = json.dumps(encoded(dict(held), f"edge {a} - {b}"))
        link = links.setdefault(text, _link(f"link-{len(links)}", held, text))
        ends = {"ep1": {"component": place[a]}, "ep2": {"component": place[b]}}
        edges.append(ends | {"scheme": "one2one", "link": link["name"]})
    device = {"name": "fabric", "components": components, "links": list(links.values()), "edges": edges}
    return {"name": "podscale", "devices": [device], "instances": [{"name": "graph", "device": "fabric", "count": 1}]}


def _link(name: str, held: Mapping[str, Any], text: str) -> dict[str, Any]:
    bandwidth = {"choice": "gigabytes_per_second", "gigabytes_per_second": float(held["bandwidth_Bps"]) / 1e9}
    latency = {"choice": "ns", "ns": float(held["latency_s"]) * 1e9}
    note = _MARK + json.dumps({"attributes": json.loads(text)})
    return {"name": name, "description": note, "physical": {"bandwidth": bandwidth, "latency": latency}}
