"""The attributes that nodes and edges of a cluster graph carry, in one table, and the check of a graph against it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from topo.blueprint import KINDS, PLANES
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    import networkx as nx

    AnyGraph = nx.Graph[Any] | nx.DiGraph[Any]


def _number(value: object) -> bool:
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def _text(value: object) -> bool:
    return isinstance(value, str)


@dataclass(frozen=True)
class Attribute:
    """One attribute: where it stands, whether it must, what it means, which values are right, and how to mend it."""

    on: str
    name: str
    required: bool
    meaning: str
    holds: Callable[[Any], bool]
    remedy: str


SCHEMA = (
    Attribute("node", "kind", True, "what the node is", lambda v: v in KINDS, f"write one of {', '.join(KINDS)}"),
    Attribute("node", "domain", False, "which scale-up domain it is in; None outside", lambda _: True, ""),
    Attribute("node", "part", False, "opaque key of what is bought; '' is nothing", _text, "write text"),
    Attribute(
        "node", "in_network_reduction", False, "whether it sums", lambda v: isinstance(v, bool), "write true or false"
    ),
    Attribute(
        "edge",
        "bandwidth_Bps",
        True,
        "bytes/s per direction, summed over parallel links",
        lambda v: _number(v) and v > 0,
        "write bytes per second above 0, per direction",
    ),
    Attribute(
        "edge",
        "latency_s",
        True,
        "seconds from end to end",
        lambda v: _number(v) and v >= 0,
        "write seconds, 0 or more",
    ),
    Attribute("edge", "link", False, "opaque key of what is bought; '' is nothing", _text, "write text"),
    Attribute("edge", "links", False, "how many parallel links", lambda v: _number(v) and v >= 1, "write 1 or more"),
    Attribute("edge", "plane", False, "which network", lambda v: v in PLANES, f"write one of {', '.join(PLANES)}"),
)
"""Every attribute that this house reads. Others may stand beside them and are left alone."""


def _attribute_faults(on: str, where: str, held: Mapping[str, Any]) -> Iterator[Fault]:
    for attribute in SCHEMA:
        if attribute.on != on:
            continue
        field = f"{where}.{attribute.name}"
        if attribute.name not in held:
            if attribute.required:
                yield Fault(field, None, f"is missing ({attribute.meaning})", attribute.remedy)
        elif not attribute.holds(held[attribute.name]):
            yield Fault(field, held[attribute.name], "is not valid", attribute.remedy)


def _wiring_faults(graph: "AnyGraph", accelerators: list[Any]) -> Iterator[Fault]:
    import networkx as nx

    for node in nx.nodes_with_selfloops(graph):
        yield Fault(f"edge {node} - {node}", None, "joins a node to itself", "remove it")
    if not accelerators:
        yield Fault("nodes", None, "hold no accelerator", "give at least one node the kind accelerator")
    elif len(accelerators) > 1:
        alone = [node for node in accelerators if graph.degree(node) == 0]
        for node in alone:
            yield Fault(
                f"node {node}", None, "is an accelerator that is joined to nothing", "add an edge, or remove it"
            )
        first = {accelerators[0], *nx.descendants(graph, accelerators[0])}
        if graph.is_directed():
            first &= {accelerators[0], *nx.ancestors(graph, accelerators[0])}
        apart = [node for node in accelerators if node not in first and node not in alone]
        if apart and accelerators[0] not in alone:
            yield Fault(
                f"node {apart[0]}",
                None,
                f"cannot reach {accelerators[0]} and back ({len(apart)} such accelerators)",
                "join the parts, in both directions where edges are directed",
            )


def validate(graph: "AnyGraph") -> None:
    """Check a graph of any origin against `SCHEMA`, and that its accelerators can all reach each other.

    Raises
    ------
    SpecError
        With every fault of every node and edge.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> g.add_node("gpu0", kind="accelerator")
    >>> g.add_node("leaf", kind="swich")
    >>> g.add_edge("gpu0", "leaf", bandwidth_Bps=-4.0, latency_s=1e-6)
    >>> validate(g)
    Traceback (most recent call last):
    topo.errors.SpecError: node leaf.kind = 'swich': is not valid. write one of accelerator, switch, nic, host, site.
    edge gpu0 - leaf.bandwidth_Bps = -4.0: is not valid. write bytes per second above 0, per direction.
    """
    faults = [
        fault for node, held in graph.nodes(data=True) for fault in _attribute_faults("node", f"node {node}", held)
    ]
    for a, b, held in graph.edges(data=True):
        faults += _attribute_faults("edge", f"edge {a} - {b}", held)
    faults += _wiring_faults(
        graph, [node for node, held in graph.nodes(data=True) if held.get("kind") == "accelerator"]
    )
    if faults:
        raise SpecError(faults)
