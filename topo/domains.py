"""Scale-up domains: what a builder of clusters repeats. Each says how it is wired inside, below the axis `domain`."""

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
    switch_part: str = "nvswitch"
    outer_latency_s: float | None = None

    def __post_init__(self) -> None:
        faults = [
            Fault(f"scale_up.{field}", getattr(self, field), "must be at least 1")
            for field in ("size", "switches", "inner", "oversubscription")
            if not getattr(self, field) >= 1
        ]
        if self.size > 1 and not 0 < self.bandwidth_Bps < math.inf:
            faults.append(Fault("scale_up.bandwidth_Bps", self.bandwidth_Bps, "must be above 0 and finite"))
        if not 0 <= self.latency_s < math.inf:
            faults.append(Fault("scale_up.latency_s", self.latency_s, "must be 0 or more, and finite"))
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
        if faults:
            raise SpecError(faults)

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
        per_block = self.block_size // rails
        steps = [("block", self.blocks)] if self.blocks > 1 else []
        if groups > 1:
            inner = ("block", self.blocks // groups) if of_blocks else ("group", groups)
            steps = [("group", groups), inner] if of_blocks else [*steps, inner]
            per_block = per_block if of_blocks else per_block // groups
        names = [name for name, _ in steps]
        steps.append(("slot", per_block))
        axes = [Axis(name, size, parent) for (name, size), parent in zip(steps, [DOMAIN, *names], strict=True)]
        axes.append(Axis("rail", rails))
        levels = (Level("block", axes=("block",)),) if self.blocks > 1 else ()
        if self.size == 1:
            return Inside(tuple(axes), ("slot", "rail"))
        more, nodes, links = self._switches()
        return Inside((*axes, *more), ("slot", "rail"), nodes, links, levels)

    def _switches(self) -> tuple[list[Axis], tuple[NodeClass, ...], tuple[LinkClass, ...]]:
        """Return the axes, classes and links of the switches."""

        def switch(name: str, *coordinates: str) -> NodeClass:
            return NodeClass(name, "switch", coordinates, self.switch_part, self.in_network_reduction)

        first = switch("nvswitch", "block" if self.blocks > 1 else DOMAIN, "port")
        share_Bps = self.bandwidth_Bps / self.switches
        down = LinkClass(ACCELERATOR, first.name, share_Bps, self.latency_s / 2, self.link)
        if self.blocks == 1:
            return [Axis("port", self.switches)], (first,), (down,)
        # The second layer turns all its ports down, the first has as many down as (o times) up: half as many switches.
        outer = math.ceil(self.blocks * self.switches / (2 * self.oversubscription) - 1e-9)
        latency_s = 2 * self.latency_s if self.outer_latency_s is None else self.outer_latency_s
        each_Bps = self.block_size * share_Bps / self.oversubscription / outer
        second = switch("outer-nvswitch", DOMAIN, "outer")
        up = LinkClass(first.name, second.name, each_Bps, (latency_s - self.latency_s) / 2, self.link)
        return [Axis("port", self.switches), Axis("outer", outer)], (first, second), (down, up)
