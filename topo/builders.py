"""Clusters as they are bought: scale-up domains of any wiring inside a fat tree, or a mesh of pods.

Every builder returns a `Blueprint`; its graph, quotient, tiers and parts follow from there.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from topo.blueprint import Axis, Blueprint, Level, NodeClass
from topo.cabling import scale_out
from topo.domains import ACCELERATOR, DOMAIN, Domain
from topo.errors import Fault, SpecError
from topo.fattree import LEVELS, TOPS, Leaf, Step, Tree, each_level, fewest, outer_axes

SPINES = ("auto", "shared", "rail")
"""Whose spines: shared by all rails where that reaches, shared in any case, or each rail's own."""


@dataclass(frozen=True)
class ScaleOut:
    """A fat tree of one, two or three switching levels, rail-optimised or not, in one or several copies.

    "Per level" is one figure for all switches, or a tuple from the leaf up whose last one serves the levels above too.

    Parameters
    ----------
    bandwidth_Bps
        Per accelerator and direction: its NIC.
    link
        Key of the cable.
    rails
        The most rails; a domain gets the largest divisor of its size (with two layers, of its block) up to this. With
        1, all NICs of a domain go to one leaf: a switch per rack.
    radix
        Ports per switch, per level, each of the rate of a NIC's port.
    levels
        Switching levels; by default the fewest that reach.
    oversubscription
        Down:up bandwidth at each switching level from the leaf up. A number is the leaf's (the levels above keep what
        the leaf lets through); below 1 there is more up than down. Ratios at or above the top level act on nothing.
    latency_s
        Per cable, its NIC or transceivers included. With the default 0.3 µs and `switch_latency_s` = 0.2 µs, 0.8 µs
        through one leaf.
    switch_latency_s
        Per switch.
    nic_part, switch_part
        Keys of NIC and switch (per level).
    in_network_reduction
        Whether the switches can sum.
    down
        Ports of `radix` that look down at each level from the leaf up, a number being the leaf's; None where the ratio
        says how many, and all at the top.
    planes
        Ports per NIC, each at `bandwidth_Bps` / `planes` and into a copy of the tree of its own.
    trunk
        How many NIC ports' rates one cable between switches carries, on as many of the ports that `radix` counts.
    spines
        "auto": rails have spines of their own where shared ones do not reach; "rail": always; "shared": never.
    top
        What joins the pods of three levels: "core" switches; a "mesh" of cables from each spine to the same spine of
        every other pod; or the same through optical circuit switches, "ocs".
    global_links
        With a mesh, the cables from a spine to each other pod; None: what the oversubscription of the spine asks for.
    ocs_radix, ocs_part
        Fibres per circuit switch, and its key.
    leaf_link
        Key of the cable between NIC and leaf, "" where it is the same as the others.
    """

    bandwidth_Bps: float
    link: str
    rails: int = 8
    radix: int | tuple[int, ...] = 64
    levels: int | None = None
    oversubscription: float | tuple[float, ...] = 1.0
    latency_s: float = 300e-9
    switch_latency_s: float = 200e-9
    nic_part: str = "nic"
    switch_part: str | tuple[str, ...] = "switch"
    in_network_reduction: bool = False
    down: int | tuple[int | None, ...] | None = None
    planes: int = 1
    trunk: int = 1
    spines: Literal["auto", "shared", "rail"] = "auto"
    top: Literal["core", "mesh", "ocs"] = "core"
    global_links: int | None = None
    ocs_radix: int = 136
    ocs_part: str = "ocs"
    leaf_link: str = ""

    def __post_init__(self) -> None:
        faults = list(_faults(self)) or list(_port_faults(self))
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

    @property
    def stated_down(self) -> tuple[int | None, int | None, int | None]:
        """Ports that look down at leaf, spine and core, as far as `down` says.

        >>> ScaleOut(50e9, "ib", down=(16, 32)).stated_down
        (16, 32, None)
        """
        leaf, spine, core, *_ = (*_each(self.down), None, None, None)
        return leaf, spine, core

    @property
    def port_Bps(self) -> float:  # noqa: N802  (the unit is part of the name)
        """Rate of one port of a NIC, per direction."""
        return self.bandwidth_Bps / self.planes

    def cable_ports(self, level: int) -> int:
        """Ports of a switch in cables: NIC ports on a leaf (0), trunks on spine and core."""
        return each_level(self.radix)[level] // (self.trunk if level else 1)

    def facing_down(self, level: int) -> int:
        """Ports that look down on a switch of `level` (0 = leaf) that is the top, in cables: all but those kept free.

        >>> ScaleOut(50e9, "ib", radix=(64, 128), trunk=2).facing_down(1)
        64
        """
        given = self.stated_down[level]
        return self.cable_ports(level) if given is None else given // (self.trunk if level else 1)

    def down_ports(self, level: int) -> int:
        """Ports that look down on a switch of `level` (0 = leaf) with a level above, in cables.

        ⌊radix · o / (1 + o)⌋, or the most below it that leave whole trunks free for the uplinks.

        >>> ScaleOut(50e9, "ib", oversubscription=3).down_ports(0)
        48
        >>> ScaleOut(50e9, "ib", oversubscription=3, trunk=4).down_ports(0)  # 48 down and 4 trunks of 4 ports up
        48
        """
        if self.stated_down[level] is not None:
            return self.facing_down(level)
        ports, ratio = self.cable_ports(level), self.ratios[level]
        most = math.floor(ports * ratio / (1 + ratio) + 1e-9)
        return next((down for down in range(most, 0, -1) if down + self.uplink_ports(level, down) <= ports), 0)

    def up_ports(self, level: int) -> int:
        """Ports that look up on a switch of `level` with a level above, in trunks."""
        return (self.cable_ports(level) - self.down_ports(level)) // (1 if level else self.trunk)

    def uplink_ports(self, level: int, down: int | None = None) -> int:
        """Ports that the uplinks of `down` ports (by default all that look down) take, counted as those.

        >>> ScaleOut(50e9, "ib", oversubscription=3, trunk=4).uplink_ports(0, 30)  # 10 ports: 3 trunks
        12
        """
        trunk = 1 if level else self.trunk
        return trunk * math.ceil(
            (self.facing_down(level) if down is None else down) / self.ratios[level] / trunk - 1e-9
        )


def _each(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


_RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str, str], ...] = (
    (("bandwidth_Bps",), lambda v: 0 < v < math.inf, "must be above 0 and finite", ""),
    (("latency_s", "switch_latency_s"), lambda v: 0 <= v < math.inf, "must be 0 or more, and finite", ""),
    (("rails", "planes", "trunk"), lambda v: v >= 1, "must be at least 1", ""),
    (("global_links",), lambda v: v is None or v >= 1, "must be at least 1", "leave them out for as many as needed"),
    (("levels",), lambda v: v in (None, 1, 2, 3), "must be 1, 2 or 3", "leave it out for the fewest"),
    (("ocs_radix",), lambda v: v >= 2, "must be at least 2", ""),
    (("radix",), lambda v: v != () and min(_each(v)) >= 2, "must be at least 2", "one figure, or one per level"),
    (
        ("oversubscription",),
        lambda v: all(0 < ratio < math.inf for ratio in _each(v)),
        "must be above 0 and finite",
        "",
    ),
    (("switch_part", "down"), lambda v: v != (), "is empty", "write one figure, or one per level"),
    (("spines",), lambda v: v in SPINES, "is unknown", f"known: {', '.join(SPINES)}"),
    (("top",), lambda v: v in TOPS, "is unknown", f"known: {', '.join(TOPS)}"),
)
"""Fields of `ScaleOut`, what holds for each of them alone, what is wrong otherwise, and the remedy."""


def _faults(out: ScaleOut) -> Iterator[Fault]:
    """Yield what is wrong with single fields."""
    for names, holds, problem, remedy in _RULES:
        for name in names:
            if not holds(getattr(out, name)):
                yield Fault(f"scale_out.{name}", getattr(out, name), problem, remedy)


def _port_faults(out: ScaleOut) -> Iterator[Fault]:
    """Yield the levels whose stated down ports leave too few for the uplinks."""
    if out.global_links and out.top != "mesh":
        yield Fault("scale_out.global_links", out.global_links, f"acts on no {out.top}", "leave it out, or top: mesh")
    for level, (name, down) in enumerate(zip(LEVELS, out.stated_down, strict=True)):
        ports = each_level(out.radix)[level]
        if down is None:
            continue
        if not out.facing_down(level) or down > ports:
            yield Fault(
                "scale_out.down", down, f"is not inside {out.trunk if level else 1} … {ports}, the {name}'s ports"
            )
        elif level + 1 < (out.levels or 3) and not (level and out.top == "mesh"):
            needed, spare = out.uplink_ports(level), out.cable_ports(level) - out.facing_down(level)
            if needed > spare:
                problem = f"leaves {spare} ports of the {name} for uplinks that take {needed}"
                yield Fault(
                    "scale_out.down", down, problem, "lower it, say fewer levels, or raise the oversubscription"
                )


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


def _levels(up: Domain, out: ScaleOut | None, inner: tuple[Level, ...], tree: Tree | None) -> tuple[Level, ...]:
    """Return the blocks of a cluster, innermost first."""
    if tree is None or out is None:
        return (*inner, Level(DOMAIN, up.kind))
    levels = [*inner, *([Level(DOMAIN, up.kind, axes=(DOMAIN,))] if up.size > 1 else [])]
    if tree.levels >= 2 and not tree.leaf.per_domain:
        levels.append(Level("leaf", plane="scale-out", axes=("unit",)))
    if tree.levels < 3:
        return (*levels, Level(LEVELS[tree.levels - 1], plane="scale-out"))
    levels.append(Level("spine", plane="scale-out", axes=("pod",)))
    return (*levels, Level(out.top, TOPS[out.top].kind, "scale-out"))


def cluster_blueprint(
    name: str, domains: int, up: Domain, out: ScaleOut | None, accelerator_part: str = "accelerator"
) -> Blueprint:
    """Describe `domains` scale-up domains joined by a fat tree.

    Inside a domain an accelerator is (rail, slot); its NIC goes to a leaf of its rail. A leaf serves as many whole
    domains as its down ports allow, or, where a domain has more NICs per rail than that, an equal share of one domain.
    Units and pods are filled evenly, with one smaller last one where numbers do not divide. Uplinks carry exactly the
    down bandwidth over the oversubscription, spread evenly over the switches above; switches and cables are rounded up.
    (In a mesh of pods whose number does not divide the ports, cables are left out that no port takes.) With several
    planes there is all of that once for each port of the NIC.

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
        more_axes, more_nodes, more_links = scale_out(out, tree, rails, inside.coordinates)
        axes += more_axes
        nodes += more_nodes
        links += more_links
    extra = {key: domains * count for key, count in up.extra_parts().items()}
    if out and leaf.per_domain > leaf.groups == 1:  # a lane is a share of a NIC's one cable, not a cable
        key = out.leaf_link or out.link
        extra[key] = extra.get(key, 0) - domains * up.size * out.planes * (leaf.per_domain - 1)
    levels = _levels(up, out, inside.levels, tree)
    return Blueprint(name, tuple(axes), tuple(nodes), tuple(links), levels, extra_parts=tuple(extra.items()))
