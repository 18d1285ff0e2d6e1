"""Ports: how many every kind of switch uses, has and has left, and which designs ask for more than there are."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from topo.blueprint import Blueprint
from topo.errors import Fault
from topo.orbits import OrbitGraph, orbit_graph

ENDS = ("accelerator", "nic", "host")
"""Kinds whose cables may share a port of a switch: a port is broken out into several slower ones, at the end only."""


@dataclass(frozen=True)
class Ports:
    """Ports of one class of switches.

    Attributes
    ----------
    node, part, switches
        The class, the key of its part, and how many there are.
    down, up, along
        Ports of the fullest switch by where they lead: towards the accelerators, away from them, to its equals.
    radix
        Ports a switch has; None where not given.
    used
        Ports in use on all switches of the class.
    """

    node: str
    part: str
    switches: int
    down: int
    up: int
    along: int
    radix: int | None
    used: int

    @property
    def each(self) -> int:
        """Ports in use on the fullest switch."""
        return self.down + self.up + self.along

    @property
    def free(self) -> int | None:
        """Ports left on all switches of the class; below zero where there are too few."""
        return None if self.radix is None else self.radix * self.switches - self.used


def ranks(bp: Blueprint) -> dict[str, int]:
    """Return how many links each class of nodes is from the nearest accelerators; unlinked classes are missing.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> ranks(cluster_blueprint("x", 128, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib")))
    {'accelerator': 0, 'scale-up-switch': 1, 'nic': 1, 'leaf': 2, 'spine': 3}
    """
    found = {node.name: 0 for node in bp.nodes if node.kind == "accelerator"}
    ring, rank = list(found), 0
    while ring:
        rank += 1
        near = [pair for link in bp.links for pair in ((link.a, link.b), (link.b, link.a))]
        ring = [far for here, far in near if here in ring and far not in found]
        found |= dict.fromkeys(ring, rank)
    return found


def ports_per_link(rate_Bps: float, port_Bps: float | None, *, to_end: bool) -> float:
    """Return the ports of a switch that one cable takes: a share of one at a NIC, several where it is faster.

    >>> ports_per_link(25e9, 50e9, to_end=True), ports_per_link(25e9, 50e9, to_end=False)
    (0.5, 1)
    >>> ports_per_link(100e9, 50e9, to_end=False), ports_per_link(25e9, None, to_end=True)
    (2, 1)
    """
    if port_Bps is None:
        return 1
    if to_end and rate_Bps < port_Bps:
        return 1 / math.floor(port_Bps / rate_Bps * (1 + 1e-9))
    return math.ceil(rate_Bps / port_Bps * (1 - 1e-9))


def ports(
    bp: Blueprint, radix: Mapping[str, int] | None = None, port_Bps: Mapping[str, float] | None = None
) -> tuple[Ports, ...]:
    """Count the ports of every class of switches, from the accelerators outwards.

    Parameters
    ----------
    bp
        Any blueprint. What changes took away uses no ports; what they slowed down still does.
    radix
        Ports per switch, by class or by part; the class counts where both are there.
    port_Bps
        Rate of a port, likewise. Without it every cable takes one port. With it, slower cables to accelerators and NICs
        share a port (a 400 Gb/s port broken out to two NICs of 200), and faster ones take several.

    Examples
    --------
    The 1,024 accelerators of a published pod, on 64-port switches: 32 leaves and 16 spines, all ports in use.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> pod = cluster_blueprint("x", 128, ScaleUp(8, 900e9, 1e-6, "nvlink", 4), ScaleOut(50e9, "ib"))
    >>> for row in ports(pod, {"switch": 64}):
    ...     print(row.node, row.switches, row.down, row.up, row.free)
    scale-up-switch 512 8 0 None
    leaf 32 32 32 0
    spine 16 64 0 0
    """
    graph, rank = orbit_graph(bp), ranks(bp)
    used = _used(graph, rank, dict(port_Bps or {}))
    rows = []
    for node in sorted(bp.nodes, key=lambda node: rank.get(node.name, len(rank))):
        mine = {name: member.multiplicity for name, member in graph.members.items() if member.node == node}
        if node.kind != "switch" or not mine:
            continue
        fullest = max(mine, key=lambda name: sum(used[name].values()) / mine[name])
        down, up, along = (math.ceil(used[fullest][way] / mine[fullest] - 1e-9) for way in _WAYS)
        total = math.ceil(sum(sum(used[name].values()) for name in mine) - 1e-6)
        given = (radix or {}).get(node.name, (radix or {}).get(node.part))
        rows.append(Ports(node.name, node.part, sum(mine.values()), down, up, along, given, total))
    return tuple(rows)


_WAYS = ("down", "up", "along")


def _used(graph: OrbitGraph, rank: Mapping[str, int], rates: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the ports that each orbit of switches uses in all, by way."""
    used: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(_WAYS, 0.0))
    for arc in graph.arcs:
        here, there = graph.members[arc.tail].node, graph.members[arc.head].node
        rate = rates.get(here.name, rates.get(here.part))
        up = rank.get(there.name, 0) - rank.get(here.name, 0)
        way = "up" if up > 0 else "down" if up < 0 else "along"
        each = ports_per_link(arc.wire.bandwidth_Bps, rate, to_end=there.kind in ENDS)
        used[arc.tail][way] += each * arc.links
    return used


def port_faults(
    bp: Blueprint, radix: Mapping[str, int], port_Bps: Mapping[str, float] | None = None
) -> tuple[Fault, ...]:
    """Return a fault for every class of switches that needs more ports than `radix` (by class or part) gives it.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> pod = cluster_blueprint("x", 128, ScaleUp(8, 900e9, 1e-6, "nvlink", 4), ScaleOut(50e9, "ib"))
    >>> [str(fault) for fault in port_faults(pod, {"leaf": 64, "spine": 36})]
    ["nodes[spine].ports = 64: are more than a switch's 36. take switches with more ports, or fewer links."]
    """
    return tuple(
        Fault(
            f"nodes[{row.node}].ports",
            row.each,
            f"are more than a switch's {row.radix}",
            "take switches with more ports, or fewer links",
        )
        for row in ports(bp, radix, port_Bps)
        if row.radix is not None and row.each > row.radix
    )
