"""Collectives timed over shaped links of known wiring: tables of measurements, their wirings, and their price.

A wiring is a document (JSON) with `topologies`: name → nodes (`id`, `rank` where it is a host of one), links (`u`, `v`,
`rate_mbit` and `delay_ms` per direction) and, where known, the installed routes ("h0>h1" → nodes on the way).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from clusters import measurements
from clusters.catalogue import read_yaml
from clusters.measurements import Table
from clusters.tablefile import read_table
from collectives.ladder import Job, Network, Wire, network, price
from collectives.schedule import SCHEDULES, Schedule, schedule
from topo.errors import Fault, SpecError

TABLE: Final = "mpi_testbed.csv"
WIRINGS: Final = "mpi_testbed_topologies.json"
STACKS: Final = Path(__file__).parent / "data" / "stacks.yaml"
TEXTS: Final = ("topology", "op", "algorithm", "proto")
NUMBERS: Final = ("bytes", "median_s")
OPTIONAL: Final = ("family", "ranks", "min_s", "spread_rel")
NOISY: Final = 0.15
"""Spread of a row's repetitions, (max - min) / median, beyond which its fastest one counts."""

OPS: Final[Mapping[str, str]] = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "alltoall": "all_to_all",
    "bcast": "broadcast",
}
"""MPI's names of operations → ours, where they differ."""

POINT_TO_POINT: Final[Mapping[str, tuple[str, str, str]]] = {
    "pingpong": ("ping_pong", "to", "target"),
    "shift": ("shift", "by", "by"),
}
"""Operation → the algorithm of send_recv, what stands before the number in the table's `algorithm`, and what that is."""


@dataclass(frozen=True)
class Wiring:
    """A wiring of a testbed: its network, and the nodes of the ranks in order."""

    name: str
    family: str
    ranks: tuple[str, ...]
    document: Mapping[str, Any]
    burst_bytes: float
    networks: dict[float, Network] = field(default_factory=dict, repr=False, compare=False)

    def network(self, relay_s: float = 0.0) -> Network:
        """Return the network between the ranks, with the installed routes where they are told, else hashed shortest ones.

        A delayed link passes a relay in user space, which takes `relay_s` beyond the delay.
        """
        if relay_s not in self.networks:
            self.networks[relay_s] = self._network(relay_s)
        return self.networks[relay_s]

    def _network(self, relay_s: float) -> Network:
        import networkx as nx

        graph: nx.Graph[Any] = nx.Graph()
        hosts = set(self.ranks)
        for node in self.document["nodes"]:
            graph.add_node(node["id"], kind="accelerator" if node["id"] in hosts else "switch")
        for link in self.document["links"]:
            rate, delay = float(link["rate_mbit"]) * 125e3, float(link.get("delay_ms") or 0.0) * 1e-3
            delay += relay_s if delay else 0.0
            graph.add_edge(link["u"], link["v"], bandwidth_Bps=rate, latency_s=delay)
        told = self.document.get("routes")
        routes = {tuple(pair.split(">")): nodes for pair, nodes in told.items()} if told else None
        return network(graph, self.ranks, routes, "hash")


def wirings(file: str | Path | None = None) -> dict[str, Wiring]:
    """Return the wirings of a document, or those that ship.

    Raises
    ------
    SpecError
        The file cannot be read, or lacks `topologies` or what a wiring must hold; every fault at once.

    >>> wirings()["star_n4_100M"].ranks
    ('h0', 'h1', 'h2', 'h3')
    """
    name = str(file) if file is not None else WIRINGS
    try:
        document = measurements.read_json(WIRINGS if file is None else Path(file))
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as why:
        problem = f"cannot be read: {getattr(why, 'strerror', None) or why}"
        raise SpecError([Fault("topologies", name, problem, "give a .json or .json.gz of wirings")]) from None
    held = document.get("topologies") if isinstance(document, dict) else None
    if not isinstance(held, dict):
        raise SpecError([Fault("topologies", None, "is missing", "map names to nodes and links", name)])
    faults = [fault for key, wiring in held.items() for fault in _faults(key, wiring, name)]
    if faults:
        raise SpecError(faults[:20])
    burst = float(document.get("burst_bytes", 0.0))
    return {key: _wiring(key, wiring, burst) for key, wiring in held.items()}


def _faults(key: str, wiring: Any, name: str) -> list[Fault]:
    """Return what a wiring lacks."""
    field = f"topologies.{key}"
    if not isinstance(wiring, dict) or not all(isinstance(wiring.get(part), list) for part in ("nodes", "links")):
        return [Fault(field, None, "lacks nodes or links", "list both", name)]
    ids = {node.get("id") for node in wiring["nodes"] if isinstance(node, dict)}
    faults = []
    for i, link in enumerate(wiring["links"]):
        if not isinstance(link, dict) or link.get("u") not in ids or link.get("v") not in ids:
            faults.append(Fault(f"{field}.links[{i}]", link, "joins no two nodes", "name their ids in u and v", name))
        elif not isinstance(link.get("rate_mbit"), int | float) or link["rate_mbit"] <= 0:
            faults.append(Fault(f"{field}.links[{i}].rate_mbit", link.get("rate_mbit"), "is no rate above 0", "", name))
    return faults


def _wiring(key: str, held: Mapping[str, Any], burst: float) -> Wiring:
    """Return a wiring."""
    hosts = sorted((node["rank"], node["id"]) for node in held["nodes"] if node.get("rank") is not None)
    return Wiring(key, str(held.get("family", key)), tuple(node for _, node in hosts), held, burst)


def rows(file: str | Path | None = None) -> Table:
    """Return a table of measurements, or the one that ships; SpecError for cells that are no numbers."""
    return read_table(measurements.path(TABLE) if file is None else file, NUMBERS, TEXTS, OPTIONAL)


@cache
def stack(name: str = "open-mpi-tcp") -> Mapping[str, Any]:
    """Return a software stack of `data/stacks.yaml`: its wire parameters, their source, and their residuals.

    >>> stack()["wire"]["cores"]
    2
    """
    found: Mapping[str, Any] = read_yaml(STACKS.read_text(encoding="utf-8"))[name]
    return found


def wire(name: str = "open-mpi-tcp") -> Wire:
    """Return the wire parameters of a software stack."""
    return Wire(**stack(name)["wire"])


def planned(op: str, algorithm: str, ranks: int, size_bytes: float) -> Schedule | str:
    """Return the schedule of a row, or why there is none: a word of the operation, the algorithm or the group.

    >>> planned("shift", "by2", 4, 8.0).rounds[0].receiver.tolist(), planned("allreduce", "magic", 4, 8.0)
    ([2, 3, 0, 1], 'algorithm')
    """
    shape: dict[str, int] = {}
    if op in POINT_TO_POINT:
        name, before, what = POINT_TO_POINT[op]
        number = algorithm.removeprefix(before)
        if not number.isdigit():
            return "algorithm"
        op, algorithm, shape = "send_recv", name, {what: int(number)}
        if not 0 < shape[what] < ranks:
            return "group"
    op = OPS.get(op, op)
    if op not in SCHEDULES:
        return "operation"
    rule = SCHEDULES[op].get(algorithm)
    if rule is None:
        return "algorithm"
    return schedule(op, algorithm, ranks, size_bytes, **shape) if not rule.valid(ranks, **shape) else "group"


def seconds(plan: Schedule, wiring: Wiring, fidelity: str, parameters: Wire, relay_s: float = 0.0) -> float:
    """Return the price of a schedule on a wiring."""
    shaped = replace(parameters, burst_bytes=wiring.burst_bytes)
    return price(Job(plan, wiring.ranks), wiring.network(relay_s), fidelity, shaped).seconds


def measured(table: Table) -> list[float]:
    """Return the time of every row: the median of its repetitions, the fastest where they spread beyond `NOISY`."""
    blank: Sequence[str] = [""] * len(table["line"])
    best, spread = table.get("min_s", blank), table.get("spread_rel", blank)
    chosen = []
    for median, least, width in zip(table["median_s"].tolist(), best, spread, strict=True):
        noisy = width and least and float(width) > NOISY
        chosen.append(float(least) if noisy else float(median))
    return chosen
