"""How a fat tree is cut: units, pods, leaves and spines from port counts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeVar, cast

from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from topo.builders import ScaleOut
    from topo.domains import Domain


T = TypeVar("T")

LEVELS = ("leaf", "spine", "core")
"""The switching levels of a fat tree, from the NIC up."""


def each_level(given: T | tuple[T, ...]) -> tuple[T, T, T]:
    """Return a figure per level: one for all, or from the leaf up, the last one serving the levels above it too.

    >>> each_level(64), each_level((64, 576))
    ((64, 64, 64), (64, 576, 576))
    """
    values = cast("tuple[T, ...]", given if isinstance(given, tuple) else (given,))
    leaf, spine, core, *_ = (*values, values[-1], values[-1])
    return leaf, spine, core


SLACK = 1.25
"""How many more parts than the fewest are taken, at most, where that makes the parts equal."""


def share(total: int, most: int, slack: float = 1.0) -> tuple[int, int, int]:
    """Deal `total` things into parts of at most `most`.

    Into equal parts, if at most `slack` times the fewest can be equal; otherwise into the fewest, as evenly as a
    single smaller last part allows.

    Returns
    -------
    tuple
        Parts, things per part, things in the last part.

    Examples
    --------
    >>> share(64, 32), share(33, 32), share(18, 4), share(18, 4, slack=1.25)
    ((2, 32, 32), (2, 17, 16), (5, 4, 2), (6, 3, 3))
    """
    fewest_parts = -(-total // most)
    for parts in range(fewest_parts, math.floor(slack * fewest_parts) + 1):
        if total % parts == 0:
            return parts, total // parts, total // parts
    each = -(-total // fewest_parts)
    parts = -(-total // each)
    return parts, each, total - each * (parts - 1)


def uplinks(below: int, wanted: float, ports: int, free: int) -> tuple[int, int]:
    """Return (switches above, cables to each of them) for `below` switches that want `wanted` uplinks each.

    The fewest switches of `ports` ports such that every pair is joined by equally many cables, on at most `free` ports
    of the lower switch. Cables are rounded up; 24 leaves of 32 uplinks take 16 spines of 64 ports and not 12, since 3
    cables a pair would take 72 ports. (NVIDIA DGX H100 SuperPOD reference architecture: 16 spines for 24 leaves.)

    >>> uplinks(24, 32, 64, 32), uplinks(32, 32, 64, 32), uplinks(64, 32, 64, 32)
    ((16, 2), (16, 2), (32, 1))
    """
    cables = max(1, math.ceil(wanted - 1e-9))
    for switches in range(1, cables + 1):
        each = -(-cables // switches)
        if below * each <= ports and switches * each <= free:
            return switches, each
    return cables, 1


def mesh_links(others: int, wanted: float, free: int) -> tuple[int, float]:
    """Return (cables to each of `others` peers, how much of a cable each carries) for `wanted` uplinks in all.

    As many cables a peer as the wanted bandwidth takes, and no more than the `free` ports allow.

    >>> mesh_links(4, 32, 32), mesh_links(3, 32, 32), mesh_links(3, 4, 32)
    ((8, 1.0), (10, 1.0), (2, 0.6666666666666666))
    """
    cables = max(1, min(math.ceil(wanted / others - 1e-9), free // others))
    return cables, min(1.0, wanted / (others * cables))


@dataclass(frozen=True)
class Top:
    """How the pods of a three-level tree are joined: name of the switches and of their axis, kind of the level.

    `most_pods` is how many pods the ports reach.
    """

    name: str
    kind: str
    most_pods: Callable[["ScaleOut"], int]


TOPS = {
    "core": Top("core", "switch", lambda out: out.facing_down(2)),
    "mesh": Top("", "dragonfly", lambda out: 1 + out.up_ports(1) // (out.global_links or 1)),
    "ocs": Top("ocs", "dragonfly", lambda out: out.ocs_radix),
}
"""Packet switches; every spine wired to the same spine of all other pods; the same through circuit switches."""


@dataclass(frozen=True)
class Leaf:
    """What one leaf switch serves.

    `per_domain` leaves share a rail of one domain: `groups` of accelerators have a leaf each, or, with `groups` = 1,
    every NIC has a lane to each leaf. 0: a leaf serves whole domains. `nics` is the NIC bandwidths on a full leaf.
    """

    nics: float
    per_domain: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Tree:
    """How a fat tree is cut. `unit` and `pod` are triples (how many, domains or units in each, in the last)."""

    levels: int
    own_spines: bool
    """Every rail has spines and cores of its own."""
    leaf: Leaf
    unit: tuple[int, int, int]
    pod: tuple[int, int, int]


def leaf_in_domain(up: "Domain", rails: int, down: int) -> Leaf:
    """Return how the leaves of `down` ports share a rail of a domain that no leaf can serve whole.

    In equal groups (of blocks, where the domain has two layers) where at most half as many leaves again as needed
    make that possible; otherwise the lanes of every NIC are spread over as many leaves as needed.

    >>> from topo.domains import ScaleUp
    >>> leaf_in_domain(ScaleUp(576, 900e9, 1e-6, "nvlink5", layers=2), rails=8, down=32)  # 9 NICs a block: 4 x 2 blocks
    Leaf(nics=18.0, per_domain=4, groups=4)
    >>> leaf_in_domain(ScaleUp(296, 900e9, 1e-6, "nvlink5"), rails=8, down=32)  # 37 NICs do not group
    Leaf(nics=18.5, per_domain=2, groups=1)
    """
    per_rail, per_block = up.size // rails, up.block_size // rails
    if not up.divisible:
        return Leaf(per_rail / -(-per_rail // down), -(-per_rail // down))
    whole_blocks = per_block <= down
    things, most = (up.blocks, down // per_block) if whole_blocks else (per_block, down)
    needed = -(-things // most)
    groups = next(n for n in range(needed, things + 1) if things % n == 0)
    if 2 * groups <= 3 * needed:
        leaves = groups if whole_blocks else groups * up.blocks
        return Leaf(per_rail / leaves, leaves, groups)
    leaves = -(-per_rail // down)
    return Leaf(per_rail / leaves, leaves)


def fit(domains: int, up: "Domain", out: "ScaleOut", rails: int, *, levels: int, own_spines: bool) -> Tree | None:
    """Cut a tree of so many levels, or None where it does not reach."""
    per_rail = up.size // rails
    if levels == 1:
        ports = per_rail * domains
        return Tree(1, False, Leaf(ports), (1, domains, domains), (1, 1, 1)) if ports <= out.facing_down(0) else None
    down = out.down_ports(0)
    whole = per_rail <= down
    if not down:
        return None
    leaf = Leaf(0.0) if whole else leaf_in_domain(up, rails, down)
    leaves = max(1, leaf.per_domain) * (1 if own_spines else rails)  # of one unit, under one set of spines
    reach = (out.facing_down(1) if levels == 2 else out.down_ports(1)) // leaves
    if not reach:
        return None
    most_pods = 1 if levels == 2 else TOPS[out.top].most_pods(out)
    for unit_slack, pod_slack in product((SLACK, 1.0), repeat=2):
        unit = share(domains, down // per_rail, unit_slack) if whole else (domains, 1, 1)
        pod = share(unit[0], reach, pod_slack)
        if pod[0] <= most_pods:
            return Tree(levels, own_spines, Leaf(per_rail * unit[1]) if whole else leaf, unit, pod)
    return None


_OWN_SPINES = {"auto": (False, True), "shared": (False,), "rail": (True,)}
"""Whether every rail has spines of its own, in the order of trying, by what was asked for."""


def fewest(domains: int, up: "Domain", out: "ScaleOut", rails: int) -> Tree:
    """Return the tree of the fewest levels that reaches; unless asked otherwise, rails share spines where they can.

    Raises
    ------
    SpecError
        When no tree of the wanted levels reaches.
    """
    wanted = (1, 2, 3) if out.levels is None else (out.levels,)
    for own_spines, levels in product(_OWN_SPINES[out.spines], wanted):
        tree = fit(domains, up, out, rails, levels=levels, own_spines=own_spines)
        if tree is not None:
            return tree
    ports = "/".join(str(ports) for ports in dict.fromkeys(each_level(out.radix)[: wanted[-1]]))
    problem = f"does not reach {domains} domains of {up.size} with {wanted[-1]} levels of {ports} ports"
    if wanted[-1] == 3:
        raise SpecError([Fault("scale_out.radix", out.radix, problem, "take switches with more ports")])
    raise SpecError([Fault("scale_out.levels", out.levels, problem, "take more levels, or leave them out")])


Step = tuple[str, int, int | None]
"""Axis name, size, and the remainder in the last parent."""


def outer_axes(domains: int, tree: Tree | None) -> list[Step]:
    """Return the axes from the whole cluster down to the domain: pod, unit, domain, as far as the tree has them."""
    if tree is None or tree.levels == 1:
        return [("domain", domains, None)]
    units, domains_each, domains_last = tree.unit
    pods, units_each, units_last = tree.pod
    if tree.leaf.per_domain:  # the unit is the domain
        return (
            [("pod", pods, None), ("domain", units_each, units_last)] if tree.levels == 3 else [("domain", units, None)]
        )
    uneven = domains_last if domains_last != domains_each else None
    if tree.levels == 2:
        return [("unit", units, None), ("domain", domains_each, uneven)]
    # A remainder of domains is only the last pod's last unit's: then units carry a `last` too, be it the full size.
    last_units = units_last if uneven or units_last != units_each else None
    return [("pod", pods, None), ("unit", units_each, last_units), ("domain", domains_each, uneven)]
