"""Scale-up domains of blocks within blocks: dragonflies, HyperX, and layers of switches side by side."""

import math
from dataclasses import dataclass
from typing import ClassVar

from topo.blueprint import Axis, Level, LinkClass, NodeClass
from topo.direct import RAIL, add_part, one_rail
from topo.domains import ACCELERATOR, DOMAIN, Inside, faults_of
from topo.errors import Fault, SpecError


@dataclass(frozen=True)
class Tie:
    """How the blocks of one level are joined, with links of its own at every accelerator.

    Parameters
    ----------
    name
        Of the blocks that are joined, such as chip or board.
    size
        How many of them are joined.
    bandwidth_Bps
        Per accelerator and direction, its links of this level together.
    latency_s
        From accelerator to accelerator on this level.
    link
        Key of the link.
    switches
        0: each block is joined to each other, accelerator to accelerator of the same place. Otherwise all accelerators
        are joined to so many switches.
    ports
        Links per accelerator on this level; by default one to each peer or switch. Where they do not divide by these,
        bandwidth is spread evenly over all, and only the links that there are count as parts.
    switch_part
        Key of the switch.
    in_network_reduction
        Whether the switches can sum.
    """

    name: str
    size: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    switches: int = 0
    ports: int = 0
    switch_part: str = "switch"
    in_network_reduction: bool = False

    @property
    def peers(self) -> int:
        """How many accelerators or switches an accelerator is joined to."""
        return self.switches or self.size - 1

    @property
    def count(self) -> int:
        """Parallel links to each of them."""
        return self.ports // self.peers if self.ports and self.ports % self.peers == 0 else 1

    def faults(self, field: str) -> list[Fault]:
        """Return everything that is wrong."""
        found = faults_of(field, self.bandwidth_Bps if self.size > 1 else 1.0, self.latency_s)
        for name, least in (("size", 1), ("switches", 0), ("ports", 0)):
            if getattr(self, name) < least:
                found.append(Fault(field + name, getattr(self, name), f"must be at least {least}"))
        if self.name in ("", DOMAIN, RAIL):
            found.append(Fault(f"{field}name", self.name, "is empty or taken", "name the blocks: chip, board, group"))
        return found


@dataclass(frozen=True)
class Nested:
    """Blocks within blocks, each level joined in its own way: dragonflies, HyperX, and switches beside switches.

    Chips are joined to boards, boards to groups, groups to the domain: innermost first. Blocks without switches are
    joined at the same place of each, as in HyperX (Ahn et al., SC 2009). That idealises a dragonfly (Kim et al., ISCA
    2008): where a machine has fewer ports to other groups than there are groups, it deals its links out over the places
    of a group. Capacities between whole groups are those here, but its paths make detours inside the groups at either
    end, which the `latency_s` of a level may contain.

    Examples
    --------
    Google TPU 8i: Boardfly joins 1,152 chips at a diameter of 7. Groups of eight boards of four, and what each level
    has of the 1,200 GB/s, are assumed here; with the same places joined, the diameter is 3.

    >>> fly = Nested((Tie("chip", 4, 300e9, 5e-7, "board"), Tie("board", 8, 350e9, 5e-7, "copper"),
    ...     Tie("group", 36, 550e9, 5e-7, "optical", ports=6)))
    >>> fly.size, fly.kind, fly.bandwidth_Bps / 1e9, fly.extra_parts()
    (1152, 'dragonfly', 1200.0, {'optical': -16704})

    AWS Trainium3 Gen2 UltraServer (AWS Neuron documentation): 256 GB/s to the switch of a sled of 4, 320 GB/s inside
    the rack of 18 sleds, 128 GB/s between two racks. One switch for each of these is assumed.

    >>> trn3 = Nested((Tie("chip", 4, 256e9, 1e-6, "a", 1), Tie("sled", 18, 320e9, 1e-6, "b", 1),
    ...     Tie("rack", 2, 128e9, 1e-6, "c", 1)))
    >>> trn3.size, trn3.kind, trn3.inside(1).coordinates, trn3.bandwidth_Bps / 1e9
    (144, 'switch', ('rack', 'sled', 'chip'), 704.0)
    """

    ties: tuple[Tie, ...]

    blocks: ClassVar[int] = 1
    divisible: ClassVar[bool] = False

    def __post_init__(self) -> None:
        faults = [fault for i, tie in enumerate(self.ties) for fault in tie.faults(f"scale_up.ties[{i}].")]
        names = [tie.name for tie in self.ties]
        if not names:
            faults.append(Fault("scale_up.ties", (), "are none", "give one at least"))
        if len(set(names)) < len(names):
            faults.append(Fault("scale_up.ties", names, "have a name twice", "give each its own"))
        if faults:
            raise SpecError(faults)

    @property
    def size(self) -> int:
        """Accelerators per domain."""
        return math.prod(tie.size for tie in self.ties)

    @property
    def block_size(self) -> int:
        """All accelerators are one block."""
        return self.size

    @property
    def bandwidth_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Per accelerator and direction, the links of all levels together."""
        return sum(tie.bandwidth_Bps for tie in self.ties if tie.size > 1)

    @property
    def kind(self) -> str:
        """Kind of the outermost level."""
        return self._kind(len(self.ties) - 1)

    def _kind(self, level: int) -> str:
        return "switch" if self.ties[level].switches else "dragonfly" if level else "mesh"

    def inside(self, rails: int, groups: int = 1, *, of_blocks: bool = False) -> Inside:  # noqa: ARG002  (part of the protocol)
        """Return an axis for each level, the links along it or its switches, and the blocks; one rail and no groups."""
        one_rail(rails, groups)
        names = tuple(tie.name for tie in reversed(self.ties))
        axes = [*(Axis(tie.name, tie.size, DOMAIN) for tie in reversed(self.ties)), Axis(RAIL, 1)]
        nodes, links = list[NodeClass](), list[LinkClass]()
        for level, tie in enumerate(self.ties):
            if tie.size == 1:
                continue
            other, latency_s = ACCELERATOR, tie.latency_s
            if tie.switches:
                other, port, latency_s = f"{tie.name}-switch", f"{tie.name}-port", tie.latency_s / 2
                axes.append(Axis(port, tie.switches))
                place = (DOMAIN, *names[: len(names) - level - 1], port)
                nodes.append(NodeClass(other, "switch", place, tie.switch_part, tie.in_network_reduction))
            each_Bps = tie.bandwidth_Bps / tie.peers / tie.count
            along = () if tie.switches else (tie.name,)
            links.append(LinkClass(ACCELERATOR, other, each_Bps, latency_s, tie.link, tie.count, along=along))
        levels = [
            Level(outer.name, self._kind(level), axes=names[: len(names) - level - 1])
            for level, outer in enumerate(self.ties[1:])
        ]
        return Inside(tuple(axes), names, tuple(nodes), tuple(links), tuple(levels))

    def extra_parts(self) -> dict[str, int]:
        """Return how many links there are more (or fewer, below 0) than pairs that they are spread over."""
        parts: dict[str, int] = {}
        for tie in self.ties:
            if tie.size > 1 and tie.ports:
                ends = self.size * (tie.ports - tie.peers * tie.count)
                add_part(parts, tie.link, ends if tie.switches else math.ceil(ends / 2))
        return parts
