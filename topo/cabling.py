"""Nodes and cables of the scale-out network: from a cut tree to classes of a blueprint.

A plan grows from the NICs up: leaves, spines, and what joins the pods (`topo.fattree.TOPS`).
"""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from topo.blueprint import Axis, LinkClass, NodeClass
from topo.domains import ACCELERATOR, DOMAIN
from topo.fattree import TOPS, Tree, each_level, mesh_links, uplinks

if TYPE_CHECKING:
    from topo.builders import ScaleOut


@dataclass
class Cabling:
    """The scale-out part of a blueprint while it is being drawn up: what is there so far."""

    out: "ScaleOut"
    tree: Tree
    rails: int
    axes: list[Axis] = field(default_factory=list)
    nodes: list[NodeClass] = field(default_factory=list)
    links: list[LinkClass] = field(default_factory=list)

    @property
    def copies(self) -> tuple[str, ...]:
        """The axis of the independent copies of the tree, where there are several."""
        return ("tree",) if self.out.planes > 1 else ()

    @property
    def own(self) -> tuple[str, ...]:
        """Axes that keep spines apart: rails with spines of their own, and copies of the tree."""
        return (*(("rail",) if self.tree.own_spines else ()), *self.copies)

    @property
    def leaves(self) -> int:
        """Leaves below one set of spines."""
        return self.tree.pod[1] * max(1, self.tree.leaf.per_domain) * (1 if self.tree.own_spines else self.rails)

    def switch(self, level: int, name: str, *axes: str) -> None:
        """Add the switches of a level."""
        part = each_level(self.out.switch_part)[level]
        self.nodes.append(NodeClass(name, "switch", axes, part, self.out.in_network_reduction))

    def join(
        self, a: str, b: str, load: float, count: int, latency_s: float | None = None, along: tuple[str, ...] = ()
    ) -> None:
        """Add cables between two levels of switches, each carrying `load` of its rate; by default one switch's time."""
        if latency_s is None:
            latency_s = self.out.latency_s + self.out.switch_latency_s
        rate_Bps = load * self.out.trunk * self.out.port_Bps
        self.links.append(LinkClass(a, b, rate_Bps, latency_s, self.out.link, count, "scale-out", along))


def scale_out(
    out: "ScaleOut", tree: Tree, rails: int, coordinates: tuple[str, ...]
) -> tuple[list[Axis], list[NodeClass], list[LinkClass]]:
    """Return the axes, classes and links of NICs and switches, for accelerators of these coordinates."""
    plan = Cabling(out, tree, rails)
    _leaves(plan, coordinates)
    if tree.levels >= 2:
        wanted, cables = _spines(plan)
        if tree.levels == 3:
            _TOPS[out.top](plan, wanted, each_level(out.radix)[1] // out.trunk - plan.leaves * cables)
    return plan.axes, plan.nodes, plan.links


def _leaves(plan: Cabling, coordinates: tuple[str, ...]) -> None:
    """Add NICs and leaves: a leaf per rail of a unit, of a group of accelerators, or of a lane of every NIC."""
    out, tree, lanes = plan.out, plan.tree, 1
    axes: tuple[str, ...] = ("unit", "rail")
    if tree.levels == 1:
        axes = ("rail",)
    elif tree.leaf.groups > 1:
        axes = ("group", "rail")
    elif tree.leaf.per_domain:
        lanes = tree.leaf.per_domain
        plan.axes.append(Axis("lane", lanes))
        axes = (DOMAIN, "rail", "lane")
    plan.axes += [Axis(name, out.planes) for name in plan.copies]
    plan.nodes.append(NodeClass("nic", "nic", coordinates, out.nic_part))
    plan.switch(0, "leaf", *axes, *plan.copies)
    latency_s, link = out.latency_s + out.switch_latency_s / 2, out.leaf_link or out.link
    plan.links += [
        LinkClass(ACCELERATOR, "nic", out.bandwidth_Bps, 0.0, "", plane="scale-out"),
        LinkClass("nic", "leaf", out.port_Bps / lanes, latency_s, link, plane="scale-out"),
    ]


def _spines(plan: Cabling) -> tuple[float, int]:
    """Add the spines; return how many uplinks' worth each of them passes on, and its cables to each leaf."""
    out, tree = plan.out, plan.tree
    ports = out.facing_down(1) if tree.levels == 2 else out.down_ports(1)
    wanted = tree.leaf.nics / out.ratios[0] / out.trunk
    free = (each_level(out.radix)[0] - math.ceil(tree.leaf.nics)) // out.trunk
    spines, cables = uplinks(plan.leaves, wanted, ports, free)
    plan.axes.append(Axis("plane", spines))
    plan.switch(1, "spine", *(("pod",) if tree.levels == 3 else ()), "plane", *plan.own)
    plan.join("leaf", "spine", wanted / (spines * cables), cables)
    return plan.leaves * wanted / spines / out.ratios[1], cables


def _cores(plan: Cabling, wanted: float, free: int) -> None:
    """Join the pods by packet switches."""
    cores, cables = uplinks(plan.tree.pod[0], wanted, plan.out.facing_down(2), free)
    plan.axes.append(Axis("core", cores))
    plan.switch(2, "core", "plane", "core", *plan.own)
    plan.join("spine", "core", wanted / (cores * cables), cables)


def _mesh(plan: Cabling, wanted: float, free: int) -> None:
    """Join every spine to the same spine of all other pods (Dragonfly+: Shpiner et al., HiPINEB 2017)."""
    others = max(1, plan.tree.pod[0] - 1)
    cables, load = (plan.out.global_links, 1.0) if plan.out.global_links else mesh_links(others, wanted, free)
    plan.join("spine", "spine", load, cables, along=("pod",))


def _circuits(plan: Cabling, wanted: float, free: int) -> None:
    """Join the pods by optical circuits: two fibres and a mirror are one cable, without a switch's delay.

    The graph holds the fibres, so that its bandwidth is what circuits set up for the traffic in question give.
    """
    out = plan.out
    switches, cables = uplinks(plan.tree.pod[0], wanted, out.ocs_radix, free)
    plan.axes.append(Axis(TOPS["ocs"].name, switches))
    plan.nodes.append(NodeClass("ocs", "switch", ("plane", "ocs", *plan.own), out.ocs_part))
    plan.join("spine", "ocs", wanted / (switches * cables), cables, (out.latency_s + out.switch_latency_s) / 2)


_TOPS = {"core": _cores, "mesh": _mesh, "ocs": _circuits}
