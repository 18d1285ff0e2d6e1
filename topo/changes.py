"""What is missing from a cluster, or slower than its classes say: failed nodes, slow rails, degraded links.

A change names coordinates, and `topo.orbits` marks them: the quotient is refined around the change, not thrown away.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from topo.blueprint import Blueprint

At = Mapping[str, int | range]
"""Coordinates: one value, or a range of them; an axis that is not named stands for all its values."""

Spans = tuple[tuple[str, tuple[int, int]], ...]
"""The same as [start, stop) intervals in a fixed order: hashable."""


def spans(at: At) -> Spans:
    """Return coordinates as intervals.

    >>> spans({"rail": 3, "domain": range(0, 4)})
    (('domain', (0, 4)), ('rail', (3, 4)))
    """
    return tuple(sorted((k, (v.start, v.stop) if isinstance(v, range) else (v, v + 1)) for k, v in at.items()))


@dataclass(frozen=True)
class Change:
    """Nodes of class `node` at coordinates `at` keep `factor` of the bandwidth of their links; at 0 they are gone.

    With `to`, only their links to nodes of that class (at `to_at`) change; at 0 those are cut.

    Examples
    --------
    A rail at half its rate, and a lost accelerator:

    >>> Change("nic", spans({"rail": 3}), to="leaf", factor=0.5).factor
    0.5
    >>> Change("accelerator", spans({"domain": 0, "slot": 2})).at
    (('domain', (0, 1)), ('slot', (2, 3)))
    """

    node: str
    at: Spans
    to: str = ""
    to_at: Spans = field(default=())
    factor: float = 0.0

    @property
    def marks(self) -> tuple[Spans, ...]:
        """What has to be told apart for the change to fall on whole orbits."""
        return tuple(at for at in (self.at, self.to_at) if at)


def change_faults(bp: "Blueprint") -> list[Fault]:
    """Return what is wrong with a blueprint's changes: unknown classes or axes, values outside, factors above one."""
    faults = []
    for i, change in enumerate(bp.changes):
        where = f"changes[{i}]"
        if not (0 <= change.factor < math.inf):
            faults.append(Fault(f"{where}.factor", change.factor, "must be 0 or more, and finite"))
        names = {node.name for node in bp.nodes}
        for name, at in ((change.node, change.at), *([(change.to, change.to_at)] if change.to else [])):
            if name not in names:
                faults.append(Fault(where, name, "is no node class", f"known: {', '.join(sorted(names))}"))
                continue
            known = bp.closure(bp.node(name).axes)
            for axis, (low, high) in at:
                if axis not in known:
                    remedy = f"known: {', '.join(known) or 'none'}"
                    faults.append(Fault(f"{where}.{axis}", low, f"is no axis of {name}", remedy))
                elif not 0 <= low < high <= bp.axis[axis].size:
                    problem = f"is not inside 0 … {bp.axis[axis].size - 1}"
                    faults.append(Fault(f"{where}.{axis}", low if high == low + 1 else f"{low}:{high}", problem))
        if change.to in names and not any({link.a, link.b} == {change.node, change.to} for link in bp.links):
            faults.append(Fault(where, f"{change.node} - {change.to}", "is no link class", "name two joined classes"))
    return faults


def degrade(
    bp: "Blueprint", node: str, at: At, to: str = "", to_at: At | None = None, factor: float = 0.0
) -> "Blueprint":
    """Return the cluster with the links of some nodes (those to class `to`, if given) at `factor` of their bandwidth.

    Raises
    ------
    SpecError
        Naming every unknown class or axis, every value outside its axis, and a factor that is negative.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> from topo.tiers import tiers
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> slow = degrade(two, "nic", {"rail": 3}, to="leaf", factor=0.5)
    >>> [tier.bandwidth_Bps / 8e9 * 8 for tier in tiers(slow)]
    [900.0, 46.875]
    """
    return replace(bp, changes=(*bp.changes, Change(node, spans(at), to, spans(to_at or {}), factor)))


def without(bp: "Blueprint", at: At) -> "Blueprint":
    """Return the cluster without the nodes at these coordinates, of every class that has all of these axes.

    ``{"domain": 3}`` takes a rack with its accelerators, NICs and switches; ``{"site": 0}`` a site.

    Raises
    ------
    SpecError
        When no class has these axes, or nothing that computes would be left.
    """
    classes = [node for node in bp.nodes if at and set(at) <= set(bp.closure(node.axes))]
    if not classes:
        known = ", ".join(axis.name for axis in bp.axes)
        raise SpecError([Fault("without", dict(at), "names axes that no class has together", f"axes: {known}")])
    return replace(bp, changes=(*bp.changes, *(Change(node.name, spans(at)) for node in classes)))


def drawn(
    bp: "Blueprint", node: str, count: int = 0, share: float = 0.0, seed: int = 0, at: Spans = ()
) -> tuple[Spans, ...]:
    """Return the places of nodes of a class drawn at random, of those at `at`: so many, or that share (at least one).

    The same seed draws the same nodes.

    Raises
    ------
    SpecError
        When the class is unknown, or has fewer nodes there.
    """
    import random

    from topo.graphs import table

    known = {held.name: held for held in bp.nodes}
    if node not in known:
        raise SpecError([Fault("class", node, "is no node class", f"known: {', '.join(known)}")])
    axes, rows = table(bp, known[node])
    for axis, (low, high) in at:
        column = rows[:, axes.index(axis)]
        rows = rows[(low <= column) & (column < high)]
    many = count or max(1, round(share * len(rows)))
    if many > len(rows):
        raise SpecError([Fault("random", many, f"is too many of {node}: there are {len(rows)}", "draw fewer")])
    picked = sorted(random.Random(seed).sample(range(len(rows)), many))  # noqa: S311  (no secret)
    return tuple(spans(dict(zip(axes, row, strict=True))) for row in rows[picked].tolist())


def struck(bp: "Blueprint", node: str, count: int, seed: int = 0, factor: float = 0.0) -> "Blueprint":
    """Return the cluster with `count` nodes of a class, drawn at random, at `factor` of their bandwidth (0: gone).

    Raises
    ------
    SpecError
        As `drawn`.

    Examples
    --------
    >>> from topo.builders import ScaleOut, cluster_blueprint
    >>> from topo.domains import ScaleUp
    >>> two = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "nvlink"), ScaleOut(50e9, "ib"))
    >>> len(struck(two, "nic", 3).changes), struck(two, "nic", 3, seed=1) == struck(two, "nic", 3, seed=1)
    (3, True)
    """
    hit = tuple(Change(node, place, factor=factor) for place in drawn(bp, node, count, seed=seed))
    return replace(bp, changes=(*bp.changes, *hit))
