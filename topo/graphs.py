"""A blueprint written out: every node and link, as a NetworkX graph (`expand`) or as arrays (`flat`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topo.blueprint import KINDS, Blueprint, LinkClass, NodeClass
from topo.changes import Change, Spans
from topo.wires import Wires

if TYPE_CHECKING:
    import networkx as nx

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def table(bp: Blueprint, node: NodeClass) -> tuple[tuple[str, ...], Ints]:
    """Return the axes of a node class (with parents) and the coordinates of its nodes, the last axis running fastest.

    Returns
    -------
    tuple
        Names, and an array of shape (nodes, axes). Nodes that changes took away are still in it.

    Examples
    --------
    >>> from topo.blueprint import Axis, Level
    >>> odd = Blueprint("odd", (Axis("unit", 2), Axis("domain", 2, "unit", last=1)),
    ...     (NodeClass("gpu", "accelerator", ("domain",)), NodeClass("leaf", "switch", ("unit",))),
    ...     (LinkClass("gpu", "leaf", 50e9, 1e-6, "ib"),), (Level("all"),))
    >>> table(odd, odd.nodes[0])[1].tolist()
    [[0, 0], [0, 1], [1, 0]]
    """
    names = bp.closure(node.axes)
    rows = np.zeros((1, 0), dtype=np.int64)
    # Per axis already there: how many values its row's parent has, and whether the row lies where remainders count.
    extent, tail = dict[str, Ints](), dict[str, npt.NDArray[np.bool_]]()
    for name in names:
        axis, many = bp.axis[name], len(rows)
        extent[name], tail[name] = np.full(many, axis.size), np.ones(many, dtype=bool)
        if axis.last is not None and axis.within is not None:
            parent = axis.within
            tail[name] = (rows[:, names.index(parent)] == extent[parent] - 1) & tail[parent]
            extent[name][tail[name]] = axis.last
        copies = extent[name]
        starts = np.cumsum(copies) - copies
        values = np.arange(copies.sum()) - np.repeat(starts, copies)
        rows = np.column_stack([np.repeat(rows, copies, axis=0), values])
        extent = {key: np.repeat(held, copies) for key, held in extent.items()}
        tail = {key: np.repeat(held, copies) for key, held in tail.items()}
    return names, rows


@dataclass(frozen=True)
class _Joined:
    """The links of one class: positions of both ends among the nodes, and bytes/s of each."""

    link: LinkClass
    a: Ints
    b: Ints
    bandwidth_Bps: Floats


def _codes(rows: Ints, columns: list[int], sizes: list[int]) -> Ints:
    """Return one number for each combination of some columns."""
    code: Ints = np.zeros(len(rows), dtype=np.int64)
    for column, size in zip(columns, sizes, strict=True):
        code = code * size + rows[:, column]
    return code


def _pairs(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """Return the positions of every pair of equal codes, in the order of the left."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    low, high = np.searchsorted(ordered, left, "left"), np.searchsorted(ordered, left, "right")
    many = high - low
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return np.repeat(np.arange(len(left)), many), order[np.repeat(low, many) + within]


def _ends(bp: Blueprint, link: LinkClass, tables: Mapping[str, tuple[tuple[str, ...], Ints]]) -> tuple[Ints, Ints]:
    """Return the positions (within their classes) of the ends of every link of a class."""
    (a_names, a_rows), (b_names, b_rows) = tables[link.a], tables[link.b]
    shared = bp.shared(link)
    sizes = [bp.axis[name].size for name in shared]
    a_code = _codes(a_rows, [a_names.index(name) for name in shared], sizes)
    if not link.along:
        return _pairs(a_code, _codes(b_rows, [b_names.index(name) for name in shared], sizes))
    axis = bp.axis[link.along[0]]
    if axis.order == "set":
        a, b = _pairs(a_code, a_code)
        return a[a < b], b[a < b]
    if axis.size == 1:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = a_rows[:, a_names.index(axis.name)]
    # One link from every value to the next; a line ends, a ring closes.
    code, following = a_code * axis.size + place, a_code * axis.size + (place + 1) % axis.size
    a, b = _pairs(following, code)
    keep = np.full(len(a), True) if axis.order == "ring" else place[a] + 1 < axis.size
    return a[keep], b[keep]


def _hit(names: tuple[str, ...], rows: Ints, at: Spans) -> npt.NDArray[np.bool_]:
    """Return which nodes lie at some coordinates."""
    hit: npt.NDArray[np.bool_] = np.ones(len(rows), dtype=bool)
    for axis, (low, high) in at:
        place = rows[:, names.index(axis)]
        hit &= (low <= place) & (place < high)
    return hit


def _written_out(bp: Blueprint) -> tuple[dict[str, tuple[tuple[str, ...], Ints]], dict[str, Floats], list[_Joined]]:
    """Return coordinates and kept share of every node, by class, and the links that are left."""
    tables = {node.name: table(bp, node) for node in bp.nodes}
    kept = {name: np.ones(len(rows)) for name, (_, rows) in tables.items()}
    for change in bp.changes:
        if not change.to:
            kept[change.node][_hit(*tables[change.node], change.at)] *= change.factor
    joined = []
    for link in bp.links:
        a, b = _ends(bp, link, tables)
        share = kept[link.a][a] * kept[link.b][b]
        for change in bp.changes:
            share[_cut_by(change, link, tables, a, b)] *= change.factor
        left = share > 0
        joined.append(_Joined(link, a[left], b[left], share[left] * link.bandwidth_Bps * link.count))
    return tables, kept, joined


def _cut_by(
    change: Change, link: LinkClass, tables: Mapping[str, tuple[tuple[str, ...], Ints]], a: Ints, b: Ints
) -> npt.NDArray[np.bool_]:
    """Return which links of a class a change names, whichever end it names first."""
    hit: npt.NDArray[np.bool_] = np.zeros(len(a), dtype=bool)
    for (here, i), (there, j) in (((link.a, a), (link.b, b)), ((link.b, b), (link.a, a))):
        if (change.node, change.to) == (here, there):
            hit |= _hit(*tables[here], change.at)[i] & _hit(*tables[there], change.to_at)[j]
    return hit


def flat(bp: Blueprint) -> Wires:
    """Return every node and link of a blueprint as arrays, in the order and with the names of `expand`.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> box = flat(cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None))
    >>> box.size, len(box.tail), box.names[0]
    (12, 32, 'accelerator[domain=0,slot=0,rail=0]')
    """
    tables, kept, joined = _written_out(bp)
    position: dict[str, Ints] = {}
    before = 0
    for name, share in kept.items():
        alive = share > 0
        position[name] = np.where(alive, np.cumsum(alive) - 1 + before, -1)
        before += int(alive.sum())
    many = [len(held.a) for held in joined]
    return Wires(
        names=[name for node in bp.nodes for name in _names(node, tables[node.name], kept[node.name])],
        kind=np.concatenate(
            [np.full(int((kept[n.name] > 0).sum()), KINDS.index(n.kind), dtype=np.int8) for n in bp.nodes]
        ),
        tail=_together([position[held.link.a][held.a] for held in joined]).astype(np.int32),
        head=_together([position[held.link.b][held.b] for held in joined]).astype(np.int32),
        bandwidth_Bps=_together([held.bandwidth_Bps for held in joined]),
        latency_s=np.repeat([held.link.latency_s for held in joined], many).astype(np.float64),
    )


def _together(parts: "list[Any]") -> npt.NDArray[Any]:
    """Join arrays, of which there may be none."""
    return np.concatenate(parts) if parts else np.zeros(0)


def _names(node: NodeClass, held: tuple[tuple[str, ...], Ints], kept: Floats) -> list[str]:
    """Name the nodes of a class that are left."""
    axes, rows = held
    if not axes:
        return [node.name] * int((kept > 0).sum())
    template = f"{node.name}[{','.join(f'{axis}=%d' for axis in axes)}]"
    return [template % tuple(row) for row in rows[kept > 0].tolist()]


def expand(bp: Blueprint) -> "nx.Graph[str]":
    """Write out every node and link of a blueprint.

    Nodes are named ``class[axis=value,…]`` and carry `kind`, `domain` (running index of the scale-up domain, None
    outside one), `part`, `node_class`, `coordinates` and `in_network_reduction`. Edges carry `bandwidth_Bps` (per
    direction, summed over parallel links), `latency_s`, `link`, `links` (how many), and `plane`: see `topo.schema`.

    Examples
    --------
    >>> from topo.builders import cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> box = expand(cluster_blueprint("box", 1, ScaleUp(8, 900e9, 1e-6, "nvlink", switches=4), None))
    >>> box.number_of_nodes(), box.number_of_edges(), box.edges["accelerator[domain=0,slot=0,rail=0]",
    ...     "scale-up-switch[domain=0,port=0]"]["bandwidth_Bps"] / 1e9
    (12, 32, 225.0)
    """
    with _collector_paused():
        return _expand(bp)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Make millions of dictionaries without looking for cycles among them again and again: a third of the time."""
    import gc

    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _expand(bp: Blueprint) -> "nx.Graph[str]":
    import networkx as nx

    graph: nx.Graph[str] = nx.Graph(name=bp.name)
    tables, kept, joined = _written_out(bp)
    labels: dict[str, npt.NDArray[Any]] = {}
    domains = _domains(bp, tables)
    for node in bp.nodes:
        axes, rows = tables[node.name]
        alive = kept[node.name] > 0
        names = _names(node, tables[node.name], kept[node.name])
        labels[node.name] = np.empty(len(rows), dtype=object)
        labels[node.name][alive] = names
        shared = {
            "kind": node.kind,
            "part": node.part,
            "node_class": node.name,
            "in_network_reduction": node.in_network_reduction,
        }
        home = domains.get(node.name)
        places = [None] * len(names) if home is None else home[alive].tolist()
        graph.add_nodes_from(
            (name, {**shared, "domain": place, "coordinates": dict(zip(axes, row, strict=True))})
            for name, place, row in zip(names, places, rows[alive].tolist(), strict=True)
        )
    for held in joined:
        _add_links(graph, held, labels)
    return graph


def _add_links(graph: "nx.Graph[str]", held: _Joined, labels: Mapping[str, npt.NDArray[Any]]) -> None:
    """Add the links of one class, on top of those between the same two nodes."""
    link = held.link
    shared = {"latency_s": link.latency_s, "link": link.link, "links": link.count, "plane": link.plane}
    alike = len(held.a) > 0 and held.bandwidth_Bps.min() == held.bandwidth_Bps.max()  # then one float serves all
    rates_Bps = repeat(float(held.bandwidth_Bps[0]), len(held.a)) if alike else held.bandwidth_Bps.tolist()
    ends = zip(labels[link.a][held.a], labels[link.b][held.b], rates_Bps, strict=False)
    if not link.along:  # then no two links join the same nodes
        graph.add_edges_from((u, v, {"bandwidth_Bps": rate_Bps, **shared}) for u, v, rate_Bps in ends)
        return
    for u, v, rate_Bps in ends:
        old = graph.get_edge_data(u, v, {"bandwidth_Bps": 0.0, "links": 0})
        more = {"bandwidth_Bps": old["bandwidth_Bps"] + rate_Bps, "links": old["links"] + link.count}
        graph.add_edge(u, v, **{**shared, **more})


def _domains(bp: Blueprint, tables: Mapping[str, tuple[tuple[str, ...], Ints]]) -> dict[str, Ints]:
    """Return, for each class inside scale-up domains, the running number of each node's domain.

    A domain is a block of the outermost level of that plane; classes of accelerators that are cut alike share them.
    """
    outermost = [level for level in bp.levels if level.plane == "scale-up"][-1:]
    found: dict[str, Ints] = {}
    base = 0
    for own in dict.fromkeys(bp.own(outermost[0], n) for n in bp.nodes if n.kind == "accelerator" and outermost):
        sizes = [bp.axis[name].size for name in own]
        most = 0
        for name, (axes, rows) in tables.items():
            if name not in found and set(own) <= set(axes):
                code = _codes(rows, [axes.index(axis) for axis in own], sizes)
                found[name] = base + np.unique(code, return_inverse=True)[1].reshape(-1)
                most = max(most, int(found[name].max()) + 1)
        base = most
    return found
