"""One collective on one cluster: which algorithm, how long, and how far from what the wires allow.

The closed form prices tiers; the other rungs of `collectives.ladder` price the schedule of rounds on the cluster's own
graph. Both take the same constants of link and software (`clusters.tunings`): on the graph a link has its bandwidth
times the efficiency, half of a step's software lies on the links at both ends of a message, base and ramp come on top
("ramp" is all that the link's protocols take beside the wire). Next to the price stands the bound: of the tiers, or, for
the whole cluster on the graph, of its links.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clusters.build import Cluster, notes, path
from clusters.catalogue import key_of, nearest
from clusters.tunings import lookup, offered
from collectives.algorithms import ALGORITHMS, best
from collectives.bounds import lower_bound
from collectives.groups import members
from collectives.span import Traffic, bandwidths, rates, span, transfer_s, with_own_piece
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    import numpy.typing as npt

    from collectives.ladder import Job
    from collectives.path import LinkModel, Path
    from topo.blueprint import Blueprint, LinkClass
    from topo.columns import Column
    from topo.wires import Wires

LIKE: Final[Mapping[str, str]] = MappingProxyType(
    {"broadcast": "all_gather", "reduce": "reduce_scatter", "barrier": "all_reduce"}
)
"""Operation without measurements -> the one whose constants stand in."""

BUS: Final[Mapping[str, float]] = MappingProxyType(
    {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}
)
"""Operation -> how many times (n - 1)/n of its bytes its bus bandwidth counts (nccl-tests, doc/PERFORMANCE.md)."""

CLOSED: Final = "closed"
FITTED: Final[Mapping[str, str]] = MappingProxyType(
    dict.fromkeys(
        ("nvls", "multimem", "sharp", "tree"),
        "its chunks are pipelined, and the fitted closed form holds what that costs",
    )
)
"""Algorithm that only the closed form prices -> why."""

COPIED: Final = (
    *((op, "ring") for op in ("all_reduce", "all_gather", "reduce_scatter")),
    *(("all_to_all", name) for name in ("direct", "linear")),
)
"""Algorithms whose closed forms count the piece that a rank only copies."""

BLOCKED: Final = ("hierarchical", "pxn")
"""Algorithms that want to know how many ranks share a block."""

TIERS: Final = "tiers"
"""The bound of `collectives.bounds`, by what leaves the blocks of each tier."""

MOST_ORBITS: Final = 64
"""Sorts of nodes that the graph's own bound is sought among, and ..."""

MOST_VARIABLES: Final = 5000
"""... flows of its linear program: less than a second; beyond, the tiers' or the cuts' bound."""

PASSES: Final[Mapping[str, int]] = MappingProxyType({"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2})
"""Operation -> how often its bytes pass the least cut of an all-gather."""

MOST_RANKS: Final = 4096
"""Ranks that a schedule is priced for on the graph; beyond, the closed form."""


@dataclass(frozen=True)
class Choice:
    """An algorithm and why: by price among some, or because it was asked for."""

    name: str
    why: str
    prices: Mapping[str, float]


def fidelities() -> tuple[str, ...]:
    """Rungs that a collective can be priced at, the cheapest first."""
    from collectives.ladder import FIDELITIES

    return (CLOSED, *FIDELITIES)


def collective(
    cluster: Cluster,
    op: str,
    ranks: int,
    size_bytes: float,
    algorithm: str = "auto",
    fidelity: str = "stepwise",
    stride: int = 1,
) -> dict[str, Any]:
    """Price one collective among the first ranks of a cluster.

    Parameters
    ----------
    cluster
        Of one pool.
    op
        A key of `collectives.algorithms.ALGORITHMS`; hyphens will do.
    ranks
        Size of the group; rank i is accelerator i · `stride` in the cluster's order.
    size_bytes
        As nccl-tests counts it.
    algorithm
        A name of the operation's, or "auto": the fastest by closed form of those that NCCL offers.
    fidelity
        "closed", or a rung of `collectives.ladder`. Pipelined algorithms (`FITTED`) are priced by the closed form alone.

    Returns
    -------
    dict
        `time_s`; `terms` that add up to it; `lower_bound_s` and `over_bound`, the ratio to it; `algbw_Bps` and
        `busbw_Bps`; `algorithm`, `why` and the `prices` of the others; `fidelity`, the rung used, and `closed_s`, the
        closed form's price; `busiest`, the ends of the link that is busy longest; `warnings`.

    Raises
    ------
    SpecError
        With every argument that is wrong.

    Examples
    --------
    >>> from clusters.build import build
    >>> from clusters.spec import load
    >>> told = collective(build(load("gb200-nvl72")), "all-reduce", 64, 2**30)
    >>> told["algorithm"], told["fidelity"], told["time_s"] > told["lower_bound_s"]
    ('nvls', 'closed', True)
    """
    kind = key_of(op).replace("-", "_")
    _check(cluster, kind, ranks, size_bytes, algorithm, fidelity, stride)
    tuned = LIKE.get(kind, kind)
    road = path(cluster, tuned)
    blocks = tuple(min(tier.size, cluster.accelerators) for tier in cluster.tiers)
    group = members(ranks, stride, (*blocks[:-1], max(blocks[-1], ranks * stride)))
    choice = _choose(kind, size_bytes, group, road, algorithm)
    warnings = list(notes(cluster, tuned))
    if kind in LIKE:
        warnings.append(f"no measurements of {kind}: the constants of {tuned} stand in")
    rung, why_closed = _rung(kind, choice.name, ranks, fidelity)
    if why_closed:
        warnings.append(f"priced by the closed form: {why_closed}")
    if rung == CLOSED:
        seconds = choice.prices[choice.name]
        terms, busiest = _closed_terms(kind, choice.name, size_bytes, group, road), None
    else:
        terms, busiest = _on_graph(cluster, kind, tuned, choice.name, ranks, size_bytes, rung, stride, group)
        seconds = float(sum(terms.values()))
    bound, bounded_by = float(lower_bound(kind, size_bytes, group, road)), TIERS
    if rung != CLOSED and ranks == cluster.accelerators and stride == 1:
        bound, bounded_by = graph_bound(cluster, kind, size_bytes) or (bound, bounded_by)
    moved = BUS.get(kind, 0.0) * (ranks - 1) / ranks or 1.0
    return {
        "op": kind,
        "cluster": cluster.name,
        "ranks": ranks,
        "bytes": size_bytes,
        "time_s": seconds,
        "lower_bound_s": bound,
        "bound": bounded_by,
        "over_bound": seconds / bound if bound else None,
        "algorithm": choice.name,
        "why": choice.why,
        "prices": dict(choice.prices),
        "fidelity": rung,
        "closed_s": choice.prices[choice.name],
        "algbw_Bps": size_bytes / seconds if seconds else 0.0,
        "busbw_Bps": size_bytes * moved / seconds if seconds else 0.0,
        "terms": terms,
        "busiest": busiest,
        "warnings": warnings,
    }


def graph_bound(cluster: Cluster, op: str, size_bytes: float) -> tuple[float, str] | None:
    """Return the fewest seconds in which a cluster's links allow an operation of all its accelerators, and by what.

    (n - 1)/n · S over the best rate of an all-gather by its "least cut" (once each way for an all-reduce), or of an
    all-to-all by "concurrent flow", exact, or by "cuts". None where it would take more than about a second, for other
    operations, and for sums where switches add, which need not pass the cut twice.

    Examples
    --------
    Eight boxes of eight, a NIC of 50 GB/s for each accelerator: 7/8 of its gigabyte have to come in by it.

    >>> from clusters.build import build
    >>> from clusters.spec import load, with_
    >>> seconds, by = graph_bound(build(with_(load("hgx-h100"), accelerators=64)), "all_to_all", 1e9)
    >>> round(seconds * 50e9 / 1e9, 6), by
    (0.875, 'concurrent flow')
    """
    adds = any(tier.in_network_reduction for tier in cluster.tiers)
    if op not in (*PASSES, "all_to_all") or (op == "all_reduce" and adds):
        return None
    found = _best_rate(cluster.blueprint, cluster.spec.focus or None, op == "all_to_all")
    if found is None:
        return None
    rate_Bps, ranks, by = found
    return PASSES.get(op, 1) * size_bytes * (ranks - 1) / ranks / rate_Bps, by


@lru_cache(maxsize=64)
def _best_rate(blueprint: "Blueprint", pool: str | None, exchange: bool) -> tuple[float, int, str] | None:
    """Return the bytes/s that each accelerator gets at best in an exchange or a gather, how many they are, and by what."""
    from topo.concurrent import all_to_all_Bps
    from topo.gather import gather_Bps
    from topo.orbits import orbit_graph

    if len(orbit_graph(blueprint).members) > MOST_ORBITS:
        return None
    if exchange:
        rate = all_to_all_Bps(blueprint, pool, most_variables=MOST_VARIABLES)
        return rate.bandwidth_Bps, rate.accelerators, "concurrent flow" if rate.exact else "cuts"
    best_gather = gather_Bps(blueprint, pool)
    return best_gather.bandwidth_Bps, best_gather.accelerators, "least cut"


def _check(
    cluster: Cluster, op: str, ranks: int, size_bytes: float, algorithm: str, fidelity: str, stride: int
) -> None:
    """Raise SpecError with everything wrong about a request."""
    faults = []
    if op not in ALGORITHMS:
        faults.append(Fault("op", op, "is no known operation", nearest(op, ALGORITHMS)))
    elif algorithm not in ("auto", *ALGORITHMS[op]):
        faults.append(
            Fault("algorithm", algorithm, f"is none of {op}", f"write auto, or one of {', '.join(ALGORITHMS[op])}")
        )
    if not (ranks >= 2 and stride >= 1 and ranks * stride <= cluster.usable):
        remedy = f"at least 2 ranks, of {cluster.usable:,} accelerators"
        faults.append(Fault("ranks", ranks, f"do not fit with a stride of {stride}", remedy))
    if not size_bytes >= 0:
        faults.append(Fault("bytes", size_bytes, "must not be negative", "write for instance 256MiB"))
    if fidelity not in fidelities():
        faults.append(Fault("fidelity", fidelity, "is no rung", f"write one of {', '.join(fidelities())}"))
    if faults:
        raise SpecError(faults)


def _choose(op: str, size_bytes: float, group: "Column", road: "Path", algorithm: str) -> Choice:
    """Choose by closed form among what NCCL offers, or take what was asked for."""
    among: tuple[str, ...] = tuple(ALGORITHMS[op])
    if algorithm == "auto" and op not in LIKE:
        among = offered(op)
    prices = {}
    for name in among if algorithm == "auto" else (algorithm,):
        seconds = float(best(op, size_bytes, group, road, among=[name])[0])
        if np.isfinite(seconds):
            prices[name] = seconds
    if not prices:
        remedy = f"valid here: {', '.join(_valid(op, size_bytes, group, road))}"
        raise SpecError([Fault("algorithm", algorithm, "does not run on this group and wiring", remedy)])
    winner = min(prices, key=lambda name: prices[name])
    others = [name for name in prices if name != winner]
    why = (
        "as asked"
        if algorithm != "auto"
        else "the only one that NCCL offers"
        if not others
        else (f"the fastest by closed form, before {', '.join(others)}")
    )
    return Choice(winner, why, MappingProxyType(prices))


def _valid(op: str, size_bytes: float, group: "Column", road: "Path") -> list[str]:
    """Return the algorithms that run on a group."""
    return [name for name in ALGORITHMS[op] if np.isfinite(best(op, size_bytes, group, road, among=[name])[0])]


def _rung(op: str, name: str, ranks: int, fidelity: str) -> tuple[str, str]:
    """Return the rung to price at, and why it is the closed form where another was asked for."""
    from collectives.schedule import SCHEDULES

    if fidelity == CLOSED:
        return CLOSED, ""
    if name not in SCHEDULES.get(op, {}):
        return CLOSED, f"{name} has no schedule of rounds"
    if name in FITTED:
        return CLOSED, FITTED[name]
    if ranks > MOST_RANKS:
        return CLOSED, f"more than {MOST_RANKS:,} ranks"
    return fidelity, ""


def _closed_terms(op: str, name: str, size_bytes: float, group: "Column", road: "Path") -> dict[str, float]:
    """Return the launch, the steps' latency and the bytes' time of a closed form: with no bytes, and the rest."""
    price = ALGORITHMS[op][name].fn
    whole, empty = (float(price(size, group, road)) for size in (size_bytes, 0.0))
    base_s = max(hop.model.base_s for hop, spans in zip(road, _spanned(group), strict=True) if spans)
    base_s = min(base_s, empty)
    return {"base": base_s, "latency": empty - base_s, "wire": whole - empty}


def _spanned(group: "Column") -> list[bool]:
    """Return which tiers a group spans."""
    inner = np.concatenate([[1.0], group[:-1]])
    return list((group > inner).tolist())


def _on_graph(
    cluster: Cluster,
    op: str,
    tuned: str,
    name: str,
    ranks: int,
    size_bytes: float,
    rung: str,
    stride: int,
    group: "Column",
) -> tuple[dict[str, float], list[str] | None]:
    """Price a schedule on the cluster's graph; return terms that add up, and the ends of the busiest link."""
    from collectives.ladder import price
    from topo.graphs import flat

    road = path(cluster, tuned)
    wires = flat(_as_software_sees(cluster, tuned))
    mine = _accelerators(cluster, wires)
    mine = mine[: ranks * stride : stride]
    told = price(_jobs(op, name, ranks, size_bytes, group, road, mine, _is_mesh(cluster)), wires, rung)
    spans = _spanned(group)
    base_s = max(hop.model.base_s for hop, spanned in zip(road, spans, strict=True) if spanned)
    # What the closed form adds to the wire of a tier, with the bytes read off the graph's own busiest link.
    slow = max(range(len(road)), key=lambda tier: spans[tier] / rates(road, 0).bandwidth_Bps[tier])
    wire_s = told.terms.get("wire", told.seconds)
    traffic: Traffic = "exchange" if op == "all_to_all" else "ring"
    ramp_s = _beside_the_wire(road, group, slow, wire_s, size_bytes if (op, name) in COPIED else 0.0, traffic)
    terms = {"base": base_s, **{key: float(value) for key, value in told.terms.items()}, "ramp": ramp_s}
    return terms, [str(end) for end in told.busiest] if told.busiest else None


def _beside_the_wire(
    road: "Path", group: "Column", tier: int, wire_s: float, copied_bytes: float, traffic: Traffic
) -> float:
    """Return the seconds that a tier's protocols take beside its wire, whose seconds are at its efficiency."""
    _, held = span(0.0, group, road)
    volume = np.zeros(len(road))
    volume[tier] = wire_s * road[tier].model.efficiency * bandwidths(held, traffic)[tier]
    seconds = transfer_s(held, with_own_piece(held, volume, np.array(copied_bytes)), traffic=traffic)
    return float(seconds[tier] - wire_s)


def _is_mesh(cluster: Cluster) -> bool:
    """Return whether every pair of a domain has a link of its own."""
    inside = [tier.direct for tier in cluster.tiers if tier.plane == "scale-up"]
    return len(inside) == 1 and [axis.order for axis in inside[0]] == ["set"]


def _jobs(
    op: str,
    name: str,
    ranks: int,
    size_bytes: float,
    group: "Column",
    road: "Path",
    mine: "npt.NDArray[Any]",
    mesh: bool,
) -> "list[Job]":
    """Return the schedules of a collective: a ring over several blocks, or in a mesh, runs in channels side by side."""
    from collectives.channels import ring_orders
    from collectives.ladder import Job
    from collectives.schedule import schedule

    inside = [int(many) for many, hop in zip(group, road, strict=True) if hop.plane == "scale-up"]
    if name == "ring" and inside and ranks % inside[-1] == 0:
        orders = ring_orders(ranks, inside[-1], mesh)
        plan = schedule(op, name, ranks, size_bytes / len(orders))
        return [Job(plan, mine[order]) for order in orders]
    blocks = [int(many) for many in group[:-1] if 1 < many < ranks]
    shape = {"inner": tuple(blocks) if len(blocks) > 1 else blocks[0]} if blocks and name in BLOCKED else {}
    return [Job(schedule(op, name, ranks, size_bytes, **shape), mine)]


def _accelerators(cluster: Cluster, wires: "Wires") -> "npt.NDArray[Any]":
    """Return the positions of a cluster's (or a pool's) accelerators in its graph."""
    if not cluster.spec.focus:
        return wires.accelerators
    start = f"{cluster.spec.focus}."
    return np.array([i for i in wires.accelerators.tolist() if str(wires.names[i]).startswith(start)])


def _as_software_sees(cluster: Cluster, op: str) -> "Blueprint":
    """Return the wiring with each link's efficiency in its bandwidth, and a step's software at both ends of a message."""
    blueprint = cluster.blueprint
    kinds = {node.name: node.kind for node in blueprint.nodes}
    names = {link.link for link in blueprint.links if link.link}
    models = {name: lookup(name, op, own=cluster.spec.tunings)[0] for name in names}
    return replace(blueprint, links=tuple(_seen(link, kinds, models.get(link.link)) for link in blueprint.links))


def _seen(link: "LinkClass", kinds: Mapping[str, str], model: "LinkModel | None") -> "LinkClass":
    """Return one class of links as the software sees it; a trace on a board, which has no model, is what it is."""
    if model is None:
        return link
    ends = [kinds[link.a], kinds[link.b]]
    # Between two accelerators a step is whole; up to a switch it is half, and the way down has the other.
    steps = ends.count("accelerator") / 2 if link.plane == "scale-up" else ends.count("nic") / 2
    return replace(
        link,
        bandwidth_Bps=link.bandwidth_Bps * model.efficiency,
        latency_s=link.latency_s + steps * model.step_s,
    )
