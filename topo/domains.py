"""Scale-up domains: what a builder of clusters repeats. Each says how it is wired inside, below the axis `domain`.

Here are the switched ones of one or two layers; `topo.direct` has those without switches, `topo.nested` blocks within
blocks.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from topo.blueprint import Axis, Level, LinkClass, NodeClass
from topo.errors import Fault, SpecError

ACCELERATOR = "accelerator"
"""Name of the class of accelerators."""

DOMAIN = "domain"
"""Name of the axis that a builder of clusters repeats a domain along."""


@dataclass(frozen=True)
class Inside:
    """How a domain is wired inside.

    `axes` hang below the axis `domain`, or are free (such as `rail`, alike in every domain); `coordinates` are those of
    an accelerator; `nodes` are the switches; `levels` are the blocks inside the domain, innermost first, without it.
    """

    axes: tuple[Axis, ...]
    coordinates: tuple[str, ...]
    nodes: tuple[NodeClass, ...] = ()
    links: tuple[LinkClass, ...] = ()
    levels: tuple[Level, ...] = ()


class Domain(Protocol):
    """A scale-up domain of any wiring."""

    @property
    def size(self) -> int:
        """Accelerators per domain."""
        ...

    @property
    def blocks(self) -> int:
        """First-layer blocks; 1 where there is one layer."""
        ...

    @property
    def block_size(self) -> int:
        """Accelerators per first-layer block."""
        ...

    @property
    def divisible(self) -> bool:
        """Whether accelerators are interchangeable inside a block, so that leaf switches can serve groups of them."""
        ...

    @property
    def kind(self) -> str:
        """Kind of the domain's level, such as switch or torus."""
        ...

    def inside(self, rails: int, groups: int = 1, *, of_blocks: bool = False) -> Inside:
        """Return the wiring, each rail's accelerators dealt into `groups` (of whole blocks), one leaf switch each."""
        ...

    def extra_parts(self) -> dict[str, int]:
        """Return by key what a domain takes besides its nodes and links; below 0 where links have another key."""
        ...


def dealt(blocks: int, per_block: int, rails: int, groups: int, *, of_blocks: bool) -> tuple[Axis, ...]:
    """Return the axes of interchangeable accelerators: block, group, slot (as far as there are several), and rail.

    A rail's accelerators of a block, or the blocks, are dealt into `groups`, which share a leaf switch each.

    >>> [(axis.name, axis.size) for axis in dealt(8, 72, 8, 4, of_blocks=True)]
    [('group', 4), ('block', 2), ('slot', 9), ('rail', 8)]
    """
    per_rail = per_block // rails
    steps = [("block", blocks)] if blocks > 1 else []
    if groups > 1:
        inner = ("block", blocks // groups) if of_blocks else ("group", groups)
        steps = [("group", groups), inner] if of_blocks else [*steps, inner]
        per_rail = per_rail if of_blocks else per_rail // groups
    names = [name for name, _ in steps]
    steps.append(("slot", per_rail))
    chain = [Axis(name, size, parent) for (name, size), parent in zip(steps, [DOMAIN, *names], strict=True)]
    return (*chain, Axis("rail", rails))


def faults_of(field: str, bandwidth_Bps: float, latency_s: float) -> list[Fault]:
    """Return what is wrong with a bandwidth and a latency, their names prefixed with `field`."""
    faults = []
    if not 0 < bandwidth_Bps < math.inf:
        faults.append(Fault(f"{field}bandwidth_Bps", bandwidth_Bps, "must be above 0 and finite"))
    if not 0 <= latency_s < math.inf:
        faults.append(Fault(f"{field}latency_s", latency_s, "must be 0 or more, and finite"))
    return faults


@dataclass(frozen=True)
class ScaleUp:
    """A switched scale-up domain: accelerators with `bandwidth_Bps` each, over one or two layers of switches.

    Parameters
    ----------
    size
        Accelerators per domain; 1 means no scale-up network.
    bandwidth_Bps
        Per accelerator and direction, all its links together.
    latency_s
        From accelerator to accelerator through one first-layer switch.
    link
        Key of the link.
    switches
        First-layer switches per block; every accelerator has an equal share of its links to each of them.
    layers
        1, or 2: blocks of `inner` accelerators whose switches are joined by a second layer (none for a single block).
    inner
        Accelerators per first-layer block, with two layers.
    oversubscription
        Down:up bandwidth between the two layers.
    in_network_reduction
        Whether the switches can sum.
    switch_part
        Key of the switch.
    outer_latency_s
        From accelerator to accelerator through three switches, with two layers; twice `latency_s` by default.
    outer_switches
        Second-layer switches in all. By default the fewest of as many ports as the first layer's.
    sub_planes
        Equal parts of either layer; a first-layer switch is joined to the second-layer switches of its own part only.

    Examples
    --------
    Huawei CloudMatrix384 (Zuo et al., 2025, arXiv:2506.12708): 48 nodes of 8 with 7 switches each, 112 switches above
    them in 7 sub-planes, so that a switch has 16 links of 28 GB/s up for the 448 GB/s of its 8 accelerators.

    >>> node = ScaleUp(384, 392e9, 1e-6, "ub", switches=7, layers=2, inner=8, outer_switches=112, sub_planes=7)
    >>> node.blocks * node.switches, [(axis.name, axis.size) for axis in node.inside(8).axes]
    (336, [('block', 48), ('slot', 1), ('rail', 8), ('subplane', 7), ('outer', 16)])
    >>> [link.bandwidth_Bps / 1e9 for link in node.inside(8).links]
    [56.0, 28.0]
    """

    size: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    switches: int = 18
    layers: int = 1
    inner: int = 72
    oversubscription: float = 1.0
    in_network_reduction: bool = True
    switch_part: str = "scale-up-switch"
    outer_latency_s: float | None = None
    outer_switches: int | None = None
    sub_planes: int = 1

    def __post_init__(self) -> None:
        faults = [
            Fault(f"scale_up.{field}", getattr(self, field), "must be at least 1")
            for field in ("size", "switches", "inner", "oversubscription", "sub_planes")
            if not getattr(self, field) >= 1
        ]
        faults += faults_of("scale_up.", self.bandwidth_Bps if self.size > 1 else 1.0, self.latency_s)
        if self.outer_latency_s is not None and not self.latency_s <= self.outer_latency_s < math.inf:
            faults.append(
                Fault("scale_up.outer_latency_s", self.outer_latency_s, "must be finite and not below latency_s")
            )
        if self.layers not in (1, 2):
            faults.append(Fault("scale_up.layers", self.layers, "must be 1 or 2"))
        if self.layers == 2 and self.inner >= 1 and self.size % self.inner:
            faults.append(
                Fault(
                    "scale_up.size",
                    self.size,
                    f"is no multiple of inner = {self.inner}",
                    "change one, or use one layer",
                )
            )
        faults += self._second_layer_faults()
        if faults:
            raise SpecError(faults)

    def _second_layer_faults(self) -> list[Fault]:
        """Return what is wrong with the second layer's switches and their sub-planes."""
        faults = []
        for field, none in (("outer_switches", None), ("sub_planes", 1)):
            if self.layers == 1 and getattr(self, field) != none:
                faults.append(Fault(f"scale_up.{field}", getattr(self, field), "needs layers = 2"))
        if self.outer_switches is not None and self.outer_switches < 1:
            faults.append(Fault("scale_up.outer_switches", self.outer_switches, "must be at least 1"))
        for field in ("switches", "outer_switches"):
            value = getattr(self, field)
            if value and self.sub_planes >= 1 and value % self.sub_planes:
                problem = f"is no multiple of sub_planes = {self.sub_planes}"
                faults.append(Fault(f"scale_up.{field}", value, problem, "make the sub-planes alike"))
        return faults

    @property
    def blocks(self) -> int:
        """First-layer blocks per domain: 8 of 72 in a domain of 576.

        >>> ScaleUp(576, 900e9, 1e-6, "nvlink5", layers=2).blocks
        8
        """
        return self.size // self.inner if self.layers == 2 else 1

    @property
    def block_size(self) -> int:
        """Accelerators per first-layer block."""
        return self.size // self.blocks

    @property
    def divisible(self) -> bool:
        """Switches make accelerators interchangeable."""
        return True

    @property
    def kind(self) -> str:
        """Kind of the domain's level."""
        return "switch"

    def inside(self, rails: int, groups: int = 1, *, of_blocks: bool = False) -> Inside:
        """Return axes block, group, slot and rail (as far as there are several), and the switches.

        >>> ScaleUp(576, 900e9, 1e-6, "nvlink5", layers=2).inside(rails=8).coordinates
        ('slot', 'rail')
        """
        axes = dealt(self.blocks, self.block_size, rails, groups, of_blocks=of_blocks)
        levels = (Level("block", axes=("block",)),) if self.blocks > 1 else ()
        if self.size == 1:
            return Inside(axes, ("slot", "rail"))
        more, nodes, links = self._switches()
        return Inside((*axes, *more), ("slot", "rail"), nodes, links, levels)

    def _switches(self) -> tuple[list[Axis], tuple[NodeClass, ...], tuple[LinkClass, ...]]:
        """Return the axes, classes and links of the switches."""

        def switch(name: str, *coordinates: str) -> NodeClass:
            return NodeClass(name, "switch", coordinates, self.switch_part, self.in_network_reduction)

        planes = self.sub_planes if self.blocks > 1 else 1
        own = [Axis("subplane", planes)] if planes > 1 else []
        if planes in (1, self.switches):
            own = own or [Axis("port", self.switches)]
        else:
            own.append(Axis("port", self.switches // planes))
        first = switch("scale-up-switch", "block" if self.blocks > 1 else DOMAIN, *(axis.name for axis in own))
        share_Bps = self.bandwidth_Bps / self.switches
        down = LinkClass(ACCELERATOR, first.name, share_Bps, self.latency_s / 2, self.link)
        if self.blocks == 1:
            return own, (first,), (down,)
        outer = self._outer_switches() // planes
        latency_s = 2 * self.latency_s if self.outer_latency_s is None else self.outer_latency_s
        each_Bps = self.block_size * share_Bps / self.oversubscription / outer
        second = switch("outer-switch", DOMAIN, *(["subplane"] if planes > 1 else []), "outer")
        up = LinkClass(first.name, second.name, each_Bps, (latency_s - self.latency_s) / 2, self.link)
        return [*own, Axis("outer", outer)], (first, second), (down, up)

    def _outer_switches(self) -> int:
        """Return how many switches the second layer has.

        The second layer turns all its ports down, the first has as many down as (o times) up: half as many switches.
        """
        if self.outer_switches is not None:
            return self.outer_switches
        each = self.blocks * self.switches / self.sub_planes / (2 * self.oversubscription)
        return self.sub_planes * math.ceil(each - 1e-9)

    def extra_parts(self) -> dict[str, int]:
        """Nothing: nodes and links say it all."""
        return {}
