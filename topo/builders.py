"""Clusters as they are bought: scale-up domains of any wiring inside a rail-optimised fat tree.

Every builder returns a `Blueprint`; its graph, quotient, tiers and parts follow from there.
"""

import math
from dataclasses import dataclass

from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass, Plane
from topo.domains import ACCELERATOR, DOMAIN, Domain
from topo.errors import Fault, SpecError
from topo.fattree import Leaf, Step, Tree, fewest, outer_axes, uplinks

TREE = ("leaf", "spine", "core")
"""The switching levels of a fat tree, from the NIC up."""


@dataclass(frozen=True)
class ScaleOut:
    """A rail-optimised fat tree of one, two or three switching levels.

    Parameters
    ----------
    bandwidth_Bps
        Per accelerator and direction: its NIC.
    link
        Key of the cable.
    rails
        The most rails; a domain gets the largest divisor of its size (with two layers, of its block) up to this.
    radix
        Ports per switch, each of the NIC's speed.
    levels
        Switching levels; by default the fewest that reach.
    oversubscription
        Down:up bandwidth at each switching level from the leaf up. A number is the leaf's (the levels above keep what
        the leaf lets through). Ratios at or above the top level act on nothing.
    latency_s
        Per cable, its NIC or transceivers included. With the default 0.3 µs and `switch_latency_s` = 0.2 µs, 0.8 µs
        through one leaf.
    switch_latency_s
        Per switch.
    nic_part, switch_part
        Keys of NIC and switch.
    in_network_reduction
        Whether the switches can sum.
    """

    bandwidth_Bps: float
    link: str
    rails: int = 8
    radix: int = 64
    levels: int | None = None
    oversubscription: float | tuple[float, ...] = 1.0
    latency_s: float = 300e-9
    switch_latency_s: float = 200e-9
    nic_part: str = "nic"
    switch_part: str = "switch"
    in_network_reduction: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not 0 < self.bandwidth_Bps < math.inf:
            faults.append(Fault("scale_out.bandwidth_Bps", self.bandwidth_Bps, "must be above 0 and finite"))
        if self.rails < 1:
            faults.append(Fault("scale_out.rails", self.rails, "must be at least 1"))
        if self.radix < 2:
            faults.append(Fault("scale_out.radix", self.radix, "must be at least 2"))
        if self.levels not in (None, 1, 2, 3):
            faults.append(Fault("scale_out.levels", self.levels, "must be 1, 2 or 3", "leave it out for the fewest"))
        if not all(1 <= ratio < math.inf for ratio in self.ratios):
            faults.append(Fault("scale_out.oversubscription", self.oversubscription, "must be at least 1 and finite"))
        faults += [
            Fault(f"scale_out.{field}", getattr(self, field), "must be 0 or more, and finite")
            for field in ("latency_s", "switch_latency_s")
            if not 0 <= getattr(self, field) < math.inf
        ]
        if faults:
            raise SpecError(faults)

    @property
    def ratios(self) -> tuple[float, float]:
        """Down:up bandwidth at leaf and spine.

        >>> ScaleOut(50e9, "ib", oversubscription=2).ratios
        (2.0, 1.0)
        """
        given = self.oversubscription if isinstance(self.oversubscription, tuple) else (self.oversubscription,)
        leaf, spine, *_ = (*map(float, given), 1.0, 1.0)
        return leaf, spine

    def down_ports(self, level: int) -> int:
        """Ports that look down on a switch of `level` (0 = leaf) with a level above: ⌊radix · o / (1 + o)⌋.

        >>> ScaleOut(50e9, "ib", oversubscription=3).down_ports(0)
        48
        """
        ratio = self.ratios[level]
        return math.floor(self.radix * ratio / (1 + ratio) + 1e-9)


def _rails(up: Domain, out: ScaleOut | None) -> int:
    """Return the largest divisor of the (block of the) domain that is at most the rails wanted."""
    most = min(out.rails if out and up.divisible else 1, up.block_size)
    return next(r for r in range(most, 0, -1) if up.block_size % r == 0)


def _chain(steps: list[Step]) -> list[Axis]:
    """Hang each axis below the one before."""
    parents = [None, *(name for name, *_ in steps)]
    return [
        Axis(name, size, parent, last if parent else None)
        for parent, (name, size, last) in zip(parents, steps, strict=False)
    ]


def _scale_out(
    out: ScaleOut, tree: Tree, rails: int, coordinates: tuple[str, ...], axes: list[Axis]
) -> tuple[list[NodeClass], list[LinkClass]]:
    """Add the planes of the fat tree to `axes`; return the classes and links of NICs and switches."""
    plane: Plane = "scale-out"
    cable_s, switch_s = out.latency_s, out.switch_latency_s

    def switch(name: str, *coordinates: str) -> NodeClass:
        return NodeClass(name, "switch", coordinates, out.switch_part, out.in_network_reduction)

    leaf, spread = tree.leaf, 1
    if tree.levels == 1:
        leaf_axes: tuple[str, ...] = ("rail",)
    elif leaf.groups > 1:
        leaf_axes = ("group", "rail")
    elif leaf.per_domain:
        spread = leaf.per_domain
        axes.append(Axis("lane", spread))
        leaf_axes = (DOMAIN, "rail", "lane")
    else:
        leaf_axes = ("unit", "rail")
    nodes = [NodeClass("nic", "nic", coordinates, out.nic_part), switch("leaf", *leaf_axes)]
    links = [
        LinkClass(ACCELERATOR, "nic", out.bandwidth_Bps, 0.0, "", plane=plane),
        LinkClass("nic", "leaf", out.bandwidth_Bps / spread, cable_s + switch_s / 2, out.link, plane=plane),
    ]
    own = ("rail",) if tree.own_spines else ()
    if tree.levels >= 2:
        leaves = tree.pod[1] * max(1, leaf.per_domain) * (1 if own else rails)
        ports = out.radix if tree.levels == 2 else out.down_ports(1)
        wanted = leaf.nics / out.ratios[0]
        spines, cables = uplinks(leaves, wanted, ports, out.radix - math.ceil(leaf.nics))
        each_Bps = wanted * out.bandwidth_Bps / (spines * cables)
        axes.append(Axis("plane", spines))
        nodes.append(switch("spine", *(("pod",) if tree.levels == 3 else ()), "plane", *own))
        links.append(LinkClass("leaf", "spine", each_Bps, cable_s + switch_s, out.link, cables, plane))
    if tree.levels == 3:
        wanted = leaves * wanted / spines / out.ratios[1]
        cores, cables = uplinks(tree.pod[0], wanted, out.radix, out.radix - leaves * cables)
        each_Bps = wanted * out.bandwidth_Bps / (cores * cables)
        axes.append(Axis("core", cores))
        nodes.append(switch("core", "plane", "core", *own))
        links.append(LinkClass("spine", "core", each_Bps, cable_s + switch_s, out.link, cables, plane))
    return nodes, links


def _levels(up: Domain, inner: tuple[Level, ...], tree: Tree | None) -> tuple[Level, ...]:
    """Return the blocks of a cluster, innermost first."""
    if tree is None:
        return (*inner, Level(DOMAIN, up.kind))
    levels = [*inner, *([Level(DOMAIN, up.kind, axes=(DOMAIN,))] if up.size > 1 else [])]
    if tree.levels >= 2 and not tree.leaf.per_domain:
        levels.append(Level("leaf", plane="scale-out", axes=("unit",)))
    if tree.levels == 3:
        levels.append(Level("spine", plane="scale-out", axes=("pod",)))
    return (*levels, Level(TREE[tree.levels - 1], plane="scale-out"))


def cluster_blueprint(
    name: str, domains: int, up: Domain, out: ScaleOut | None, accelerator_part: str = "accelerator"
) -> Blueprint:
    """Describe `domains` scale-up domains joined by a rail-optimised fat tree.

    Inside a domain an accelerator is (rail, slot); its NIC goes to a leaf of its rail. A leaf serves as many whole
    domains as its down ports allow, or, where a domain has more NICs per rail than that, an equal share of one domain.
    Units and pods are filled evenly, with one smaller last one where numbers do not divide. Uplinks carry exactly the
    down bandwidth over the oversubscription, spread evenly over the switches above; switches and cables are rounded up.
    Spines are shared by the rails; where three such levels do not reach, every rail gets spines and cores of its own.

    Parameters
    ----------
    name
        What to call the cluster.
    domains
        Number of scale-up domains.
    up, out
        The two networks. `out` may be None for a single domain.
    accelerator_part
        Key of the accelerator.

    Raises
    ------
    SpecError
        When there is nothing to join the domains, or the tree cannot reach them all.

    Examples
    --------
    NVIDIA DGX B200 SuperPOD reference architecture: 1,024 GPUs take 32 leaf and 16 spine switches.

    >>> from topo.domains import ScaleUp
    >>> hgx = ScaleUp(8, 900e9, 1e-6, "nvlink5", switches=2)
    >>> pod = cluster_blueprint("superpod", 128, hgx, ScaleOut(50e9, "ndr"))
    >>> [(node.name, pod.population(node.axes)) for node in pod.nodes if node.name in ("leaf", "spine")]
    [('leaf', 32), ('spine', 16)]
    """
    if domains < 1:
        raise SpecError([Fault("domains", domains, "must be at least 1")])
    if out is None and domains > 1:
        raise SpecError(
            [Fault("scale_out", None, f"is missing, and {domains} domains need it", "add it, or one domain")]
        )
    rails = _rails(up, out)
    tree = fewest(domains, up, out, rails) if out else None
    leaf = tree.leaf if tree else Leaf(0.0)
    of_blocks = up.blocks > 1 and leaf.per_domain == leaf.groups
    inside = up.inside(rails, leaf.groups, of_blocks=of_blocks)
    axes = [*_chain(outer_axes(domains, tree)), *inside.axes]
    nodes = [NodeClass(ACCELERATOR, "accelerator", inside.coordinates, accelerator_part), *inside.nodes]
    links = [*inside.links]
    if out and tree:
        more_nodes, more_links = _scale_out(out, tree, rails, inside.coordinates, axes)
        nodes += more_nodes
        links += more_links
    return Blueprint(name, tuple(axes), tuple(nodes), tuple(links), _levels(up, inside.levels, tree))
