"""Scale-up domains without switches: full meshes, and tori and meshes of any number of dimensions."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from topo.blueprint import Axis, LinkClass, Order
from topo.domains import ACCELERATOR, DOMAIN, Inside, dealt, faults_of
from topo.errors import Fault, SpecError

TORUS_AXES = "xyzwvu"
"""Names of the axes of a torus."""

RAIL = "rail"
"""Name of the axis of rails."""


@dataclass(frozen=True)
class FullMesh:
    """Accelerators with `bandwidth_Bps` each (all its links together), every one joined to every other.

    Parameters
    ----------
    size
        Accelerators per domain.
    bandwidth_Bps
        Per accelerator and direction.
    latency_s
        From accelerator to accelerator.
    link
        Key of the link.
    links_per_pair
        Parallel links between two accelerators.

    Examples
    --------
    AMD MI300X platform: 7 links of 64 GB/s, one to each peer. Intel Gaudi 3 baseboard: 3 ports of 25 GB/s to each.

    >>> for mesh in (FullMesh(8, 448e9, 2e-6, "xgmi"), FullMesh(8, 525e9, 2e-6, "200GbE", links_per_pair=3)):
    ...     (link,) = mesh.inside(rails=8).links
    ...     print(link.count, link.bandwidth_Bps / 1e9, link.along)
    1 64.0 ('slot', 'rail')
    3 25.0 ('slot', 'rail')
    """

    size: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    links_per_pair: int = 1

    blocks: ClassVar[int] = 1
    divisible: ClassVar[bool] = True
    kind: ClassVar[str] = "mesh"

    def __post_init__(self) -> None:
        faults = [
            Fault(f"scale_up.{field}", getattr(self, field), "must be at least 1")
            for field in ("size", "links_per_pair")
            if getattr(self, field) < 1
        ]
        faults += faults_of("scale_up.", self.bandwidth_Bps if self.size > 1 else 1.0, self.latency_s)
        if faults:
            raise SpecError(faults)

    @property
    def block_size(self) -> int:
        """All accelerators are one block."""
        return self.size

    def inside(self, rails: int, groups: int = 1, *, of_blocks: bool = False) -> Inside:
        """Return axes group (if there are several), slot and rail, and the links along all of them."""
        axes = dealt(1, self.size, rails, groups, of_blocks=of_blocks)
        if self.size == 1:
            return Inside(axes, ("slot", RAIL))
        each_Bps = self.bandwidth_Bps / (self.size - 1) / self.links_per_pair
        along = tuple(axis.name for axis in axes)
        link = LinkClass(
            ACCELERATOR, ACCELERATOR, each_Bps, self.latency_s, self.link, self.links_per_pair, along=along
        )
        return Inside(axes, ("slot", RAIL), links=(link,))

    def extra_parts(self) -> dict[str, int]:
        """Nothing: the links say it all."""
        return {}


@dataclass(frozen=True)
class Torus:
    """A torus or mesh of any number of dimensions: accelerators joined to their neighbours on each axis.

    `link_Bps`, `latency_s`, `link` and `wrap` are one value for all axes, or one for each. An axis of two that wraps
    has two links between its ends; one of a single value has none.

    Where a torus is made of cubes, axes wrap over whole cubes, and links that leave a cube go through optical circuit
    switches: one switch (or several, once ports run out) for each place on a face and each axis, on two ports per cube.

    Parameters
    ----------
    shape
        Accelerators along x, y, z and so on.
    link_Bps
        Per link and direction.
    latency_s
        Per link.
    link
        Key of the link.
    wrap
        Whether the ends of an axis are joined.
    cube
        Edge of a cube; 0: there are no cubes.
    optical_link
        Key of the links that leave a cube, transceivers at both ends included.
    circuit_switch_part, circuit_switch_ports
        Key of the optical circuit switches, and the ports of one.

    Examples
    --------
    Google TPU v4 (Jouppi et al., ISCA 2023, §2): 16 x 16 x 16 in 64 cubes of 4, 48 circuit switches of 128 ports (and 8
    spare); 3 x 4096 links, of which 1 in 4 leaves a cube.

    >>> pod = Torus((16, 16, 16), 45e9, 1e-6, "ici", cube=4, optical_link="optical", circuit_switch_part="ocs")
    >>> pod.size, pod.bandwidth_Bps / 1e9, pod.extra_parts()
    (4096, 270.0, {'ici': -3072, 'optical': 3072, 'ocs': 48})

    AWS Trainium2 UltraServer: 4 x 4 at 128 GB/s per link, four of these in rings at 64 GB/s.

    >>> Torus((4, 4, 4), (128e9, 128e9, 64e9), 1e-6, ("board", "board", "cable")).bandwidth_Bps / 1e9
    640.0

    A wafer of 900,000 cores is a mesh, ``Torus((750, 1200), 8e9, 1e-9, "", wrap=False)``; in a cluster of wafers, the
    wafer itself is the accelerator, and a domain of one.
    """

    shape: tuple[int, ...]
    link_Bps: float | tuple[float, ...]
    latency_s: float | tuple[float, ...]
    link: str | tuple[str, ...]
    wrap: bool | tuple[bool, ...] = True
    cube: int = 0
    optical_link: str = ""
    circuit_switch_part: str = "circuit-switch"
    circuit_switch_ports: int = 128

    blocks: ClassVar[int] = 1
    divisible: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= len(TORUS_AXES):
            problem = f"has {len(self.shape)} axes"
            raise SpecError([Fault("scale_up.shape", self.shape, problem, f"give it 1 to {len(TORUS_AXES)}")])
        faults = [
            Fault(
                f"scale_up.{field}", value, f"has {len(value)} values for {len(self.shape)} axes", "give one for each"
            )
            for field in ("link_Bps", "latency_s", "link", "wrap")
            if isinstance(value := getattr(self, field), tuple) and len(value) != len(self.shape)
        ]
        for field, right, problem in (
            ("shape", lambda size: size >= 1, "must be at least 1 on every axis"),
            ("link_Bps", lambda rate_Bps: 0 < rate_Bps < math.inf, "must be above 0 and finite"),
            ("latency_s", lambda latency_s: 0 <= latency_s < math.inf, "must be 0 or more, and finite"),
        ):
            value = getattr(self, field)
            if not all(map(right, value if isinstance(value, tuple) else (value,))):
                faults.append(Fault(f"scale_up.{field}", value, problem))
        faults += self._cube_faults()
        if faults:
            raise SpecError(faults)

    def _cube_faults(self) -> list[Fault]:
        """Return what is wrong with the cubes."""
        if self.cube < 0:
            return [Fault("scale_up.cube", self.cube, "must be 0 or more", "0: there are no cubes")]
        if not self.cube:
            return []
        faults = []
        if any(size % self.cube for size in self.shape):
            remedy = "below a cube, leave cube out and say wrap=False"
            faults.append(Fault("scale_up.shape", self.shape, f"is not made of whole cubes of {self.cube}", remedy))
        if not self.optical_link:
            faults.append(Fault("scale_up.optical_link", "", "is missing, and links leave the cubes", "name its key"))
        if self.circuit_switch_ports < 2:
            faults.append(Fault("scale_up.circuit_switch_ports", self.circuit_switch_ports, "must be at least 2"))
        return faults

    @property
    def _ways(self) -> tuple["_Way", ...]:
        """The axes with what holds for each."""
        many = len(self.shape)
        given = (_for_each(value, many) for value in (self.link_Bps, self.latency_s, self.link, self.wrap))
        return tuple(_Way(*way) for way in zip(TORUS_AXES, self.shape, *given, strict=False))

    @property
    def size(self) -> int:
        """Accelerators per domain."""
        return math.prod(self.shape)

    @property
    def block_size(self) -> int:
        """All accelerators are one block."""
        return self.size

    @property
    def bandwidth_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Per accelerator and direction, all its links together (inside, where the ends of an axis have fewer)."""
        return sum(way.link_Bps * min(2, way.links_between(way.size)) for way in self._ways)

    @property
    def kind(self) -> str:
        """A torus if any axis closes, else a mesh."""
        return "torus" if any(way.wrap and way.size > 1 for way in self._ways) else "mesh"

    def inside(self, rails: int, groups: int = 1, *, of_blocks: bool = False) -> Inside:  # noqa: ARG002  (part of the protocol)
        """Return the axes x, y, z and so on, and the links along each; a torus has one rail and no groups."""
        one_rail(rails, groups)
        axes = (*(Axis(way.name, way.size, DOMAIN, order=way.order) for way in self._ways), Axis(RAIL, 1))
        links = tuple(
            LinkClass(ACCELERATOR, ACCELERATOR, way.link_Bps, way.latency_s, way.link, along=(way.name,))
            for way in self._ways
            if way.size > 1
        )
        return Inside(axes, tuple(way.name for way in self._ways), links=links)

    def extra_parts(self) -> dict[str, int]:
        """Return the optical links instead of electrical ones, and the circuit switches; {} without cubes."""
        parts: dict[str, int] = {}
        if not self.cube:
            return parts
        switches, cubes = 0, self.size // self.cube ** len(self.shape)
        for way in self._ways:
            rows = self.size // way.size
            leaving = rows * way.links_between(way.size // self.cube)
            if leaving:
                add_part(parts, way.link, -leaving)
                add_part(parts, self.optical_link, leaving)
                switches += self.cube ** (len(self.shape) - 1) * -(-2 * cubes // self.circuit_switch_ports)
        add_part(parts, self.circuit_switch_part, switches)
        return parts


@dataclass(frozen=True)
class _Way:
    """One axis of a torus."""

    name: str
    size: int
    link_Bps: float
    latency_s: float
    link: str
    wrap: bool

    @property
    def order(self) -> Order:
        """A ring where the ends are joined."""
        return "ring" if self.wrap else "line"

    def links_between(self, many: int) -> int:
        """Return how many links join so many things in a row, on this axis: one to the next, and the ends if it wraps."""
        return many if self.wrap and self.size > 1 else many - 1


def _for_each(value: object, many: int) -> tuple[Any, ...]:
    """Return one value for each axis."""
    return value if isinstance(value, tuple) else (value,) * many


def add_part(parts: dict[str, int], key: str, count: int) -> None:
    """Count parts of a key; an empty key is nothing that is bought."""
    if key and count:
        parts[key] = parts.get(key, 0) + count


def one_rail(rails: int, groups: int) -> None:
    """Refuse rails and groups where accelerators are not interchangeable."""
    if rails != 1 or groups != 1:
        raise SpecError([Fault("rails", rails, "are more than a domain of unlike places has", "take 1, and 1 group")])
