"""Beyond one hall: equal sites over fibre, and domains joined without switches, such as an orbital plane of racks."""

import math
from dataclasses import dataclass, replace

from topo.blocks import above_zero, at_least, below, cables, free_name, raise_faults, uplinks, with_nics
from topo.blueprint import ORDERS, Axis, Blueprint, Level, LinkClass, NodeClass, Order
from topo.compose import Border
from topo.domains import ACCELERATOR, DOMAIN, Domain, Inside
from topo.errors import Fault

S_PER_KM_VACUUM = 1 / 299_792.458
"""Seconds per km of light in vacuum: 3.34 µs."""


def _neighbours(order: Order, count: int) -> int:
    """Return how many lines a site has (an inner one, of a line)."""
    return {"set": count - 1, "ring": 2, "line": min(2, count - 1)}[order]


def sites(
    bp: Blueprint,
    count: int,
    bandwidth_Bps: float,
    km: float,
    order: Order = "set",
    border: Border | None = None,
    axis: str = "site",
) -> Blueprint:
    """Repeat a hall at `count` sites, joined by long lines through border switches of their own.

    What is changed in the hall is changed at every site; change one site in the result.

    Parameters
    ----------
    bp
        The hall.
    count
        Sites; one alone gets no border switch.
    bandwidth_Bps, km
        Of each line, per direction: between any two sites on a set, between neighbours on a ring or a line.
    order
        How sites are joined: set, ring or line.
    border
        What the lines end in and are made of.
    axis
        Name of the new axis, and of the border switches: ``site-border``.

    Raises
    ------
    SpecError
        When the hall has the axis already, or a figure is out of range.

    Examples
    --------
    Two halls of sixteen, 1,000 km apart: 5 ms one way, and half of each border switch.

    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> hall = cluster_blueprint("hall", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> two = sites(hall, 2, 100e9, km=1000.0)
    >>> [(link.a, link.b, round(link.latency_s * 1e3, 4)) for link in two.links if link.link == "fibre"]
    [('site-border', 'site-border', 5.0002)]
    >>> [(level.name, level.axes) for level in two.levels]
    [('domain', ('site', 'domain')), ('leaf', ('site',)), ('wan', ())]
    """
    raise_faults(
        *at_least("sites", 1, {"count": count}),
        *at_least("sites", 0, {"km": km}),
        *above_zero("sites", {"bandwidth_Bps": bandwidth_Bps}),
        *_order_faults("sites.order", order),
    )
    edge = border or Border()
    if count == 1:
        return below(bp, Axis(axis, 1))
    total_Bps = bandwidth_Bps * _neighbours(order, count)
    hall = with_nics(bp, total_Bps, edge.nic_part)
    wan = Level(free_name("wan", [level.name for level in hall.levels], axis), "wan", "scale-out")
    name = f"{axis}-border"
    whole = below(hall, Axis(axis, count, order=order), wan)
    # Several border switches are numbered alike at every site: line i runs from switch i to switch i.
    several = (name,) if edge.switches > 1 else ()
    line_Bps = bandwidth_Bps / edge.switches
    lines = cables(name, name, line_Bps, edge.link_Bps, edge.line_s(km), edge.link, along=(axis,))
    return replace(
        whole,
        axes=(*whole.axes, *(Axis(free, edge.switches) for free in several)),
        nodes=(*whole.nodes, NodeClass(name, "switch", (axis, *several), edge.part)),
        links=(*whole.links, *uplinks(hall, name, edge.switches, total_Bps, edge.inside), lines),
    )


def _order_faults(field: str, order: str) -> list[Fault]:
    return [] if order in ORDERS else [Fault(field, order, "is unknown", f"known: {', '.join(ORDERS)}")]


@dataclass(frozen=True)
class Row:
    """Domains in a row: the axis they stand along, and what joins neighbours (on a set: any two).

    `count` links of `bandwidth_Bps` each per direction; `latency_s` of one hop, terminals included.
    """

    axis: str
    size: int
    bandwidth_Bps: float
    latency_s: float
    link: str
    order: Order = "ring"
    count: int = 1

    def __post_init__(self) -> None:
        field = f"rows[{self.axis}]"
        raise_faults(
            *at_least(field, 1, {"size": self.size, "count": self.count}),
            *at_least(field, 0, {"latency_s": self.latency_s}),
            *above_zero(field, {"bandwidth_Bps": self.bandwidth_Bps}),
            *_order_faults(f"{field}.order", self.order),
        )


def _per_place(inside: Inside, places: tuple[str, ...]) -> Inside:
    """Replace the axis `domain` of a domain's wiring by the coordinates of the domain."""

    def placed(axes: tuple[str, ...]) -> tuple[str, ...]:
        return (*places, *(axis for axis in axes if axis not in (DOMAIN, *places)))

    return Inside(
        tuple(replace(axis, within=None if axis.within == DOMAIN else axis.within) for axis in inside.axes),
        placed(inside.coordinates),
        tuple(replace(node, axes=placed(node.axes)) for node in inside.nodes),
        inside.links,
        tuple(replace(level, axes=placed(level.axes)) for level in inside.levels),
    )


def direct_blueprint(
    name: str,
    rows: tuple[Row, ...],
    up: Domain,
    nic_Bps: float,
    *,
    kind: str = "torus",
    accelerator_part: str = "accelerator",
    nic_part: str = "nic",
    terminal_part: str = "terminal",
    latency_s: float = 300e-9,
) -> Blueprint:
    """Join scale-up domains to their neighbours without switches: a torus or mesh whose nodes are whole domains.

    Every accelerator has a NIC of `nic_Bps` to its domain's one terminal, `latency_s` away; terminals are joined along
    the rows, and pass on what is for others.

    Parameters
    ----------
    name
        What to call the cluster.
    rows
        One for each direction; one alone is best along the axis ``domain``.
    up
        What stands at each place.
    nic_Bps
        Per accelerator and direction.
    kind
        Of the outermost level: torus, mesh, laser; the level has the same name.
    accelerator_part, nic_part, terminal_part
        Keys.
    latency_s
        From accelerator to terminal.

    Raises
    ------
    SpecError
        When there are no rows, an axis is there twice, or a figure is out of range.

    Examples
    --------
    Four by four boxes of eight, as a torus: every box has four neighbours.

    >>> from topo.domains import ScaleUp
    >>> rows = tuple(Row(axis, 4, 400e9, 1e-6, "optic") for axis in ("x", "y"))
    >>> grid = direct_blueprint("grid", rows, ScaleUp(8, 900e9, 1e-6, "nvlink"), 50e9)
    >>> grid.population(grid.node("accelerator").axes), [level.axes for level in grid.levels]
    (128, [('x', 'y'), ()])
    """
    raise_faults(
        *([] if rows else [Fault("rows", rows, "are missing", "give at least one")]),
        *above_zero("direct", {"nic_Bps": nic_Bps}),
        *at_least("direct", 0, {"latency_s": latency_s}),
    )
    places = tuple(row.axis for row in rows)
    inside = _per_place(up.inside(1), places)
    domain = (Level(DOMAIN, up.kind, axes=places),) if up.size > 1 else ()
    return Blueprint(
        name,
        (*(Axis(row.axis, row.size, order=row.order) for row in rows), *inside.axes),
        (
            NodeClass(ACCELERATOR, "accelerator", inside.coordinates, accelerator_part),
            *inside.nodes,
            NodeClass("nic", "nic", inside.coordinates, nic_part),
            NodeClass("terminal", "switch", places, terminal_part),
        ),
        (
            *inside.links,
            LinkClass(ACCELERATOR, "nic", nic_Bps, 0.0, "", plane="scale-out"),
            LinkClass("nic", "terminal", nic_Bps, latency_s, "", plane="scale-out"),
            *(
                LinkClass(
                    "terminal",
                    "terminal",
                    row.bandwidth_Bps,
                    row.latency_s,
                    row.link,
                    row.count,
                    "scale-out",
                    (row.axis,),
                )
                for row in rows
            ),
        ),
        (*inside.levels, *domain, Level(kind, kind, "scale-out")),
        extra_parts=tuple((key, n * math.prod(row.size for row in rows)) for key, n in up.extra_parts().items()),
    )


def orbit(
    name: str,
    satellites: int,
    up: Domain,
    laser_Bps: float,
    km: float,
    nic_Bps: float | None = None,
    *,
    order: Order = "ring",
    lasers: int = 1,
    link: str = "laser",
    terminal_latency_s: float = 200e-9,
    accelerator_part: str = "accelerator",
    nic_part: str = "nic",
    terminal_part: str = "terminal",
) -> Blueprint:
    """Describe satellites in one orbital plane, each a scale-up domain, joined to their neighbours by laser.

    Parameters
    ----------
    name
        What to call the plane.
    satellites
        How many, along the axis ``domain``.
    up
        What a satellite carries.
    laser_Bps, lasers
        Of one laser per direction, and how many join two neighbours.
    km
        Between neighbours: 3.34 µs per km of vacuum.
    nic_Bps
        Per accelerator, to the terminal; by default an equal share of all lasers of a satellite.
    order
        ring, once around the Earth, or line.
    link, accelerator_part, nic_part, terminal_part
        Keys.
    terminal_latency_s
        Per hop, of the terminals at both ends together.

    Raises
    ------
    SpecError
        When a figure is out of range.

    Examples
    --------
    >>> from topo.domains import ScaleUp
    >>> plane = orbit("plane", 8, ScaleUp(72, 900e9, 1e-6, "nvlink5"), laser_Bps=100e9, km=1.0)
    >>> [round(link.latency_s * 1e6, 3) for link in plane.links if link.link == "laser"]
    [3.536]
    """
    raise_faults(
        *at_least("orbit", 0, {"km": km, "terminal_latency_s": terminal_latency_s}),
        *at_least("orbit", 1, {"satellites": satellites}),
    )
    hop_s = km * S_PER_KM_VACUUM + terminal_latency_s
    row = Row(DOMAIN, satellites, laser_Bps, hop_s, link, order, lasers)
    share_Bps = laser_Bps * lasers * max(1, _neighbours(order, satellites)) / up.size
    return direct_blueprint(
        name,
        (row,),
        up,
        share_Bps if nic_Bps is None else nic_Bps,
        kind="laser",
        accelerator_part=accelerator_part,
        nic_part=nic_part,
        terminal_part=terminal_part,
    )
