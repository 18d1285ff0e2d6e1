"""What is wired to what: blueprints of clusters, their graphs and quotients, cuts and tiers.

Floor 1 of the house: knows graphs, but no model, vendor, price or measurement. `import topo` is cheap; NetworkX is
imported by the functions that build a graph.

`topo.tiers` is the module; its function of the same name is imported from there: ``from topo.tiers import tiers``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
    from topo.builders import ScaleOut, cluster_blueprint
    from topo.changes import Change, degrade, without
    from topo.columns import Column, ColumnLike, column
    from topo.domains import ScaleUp
    from topo.errors import Fault, InfeasibleError, PodscaleError, SpecError
    from topo.graphs import expand, flat
    from topo.orbits import quotient
    from topo.schema import validate
    from topo.tiers import Tier, summary

_HOMES = {
    "topo.blueprint": ("Axis", "Blueprint", "Level", "LinkClass", "NodeClass"),
    "topo.builders": ("ScaleOut", "cluster_blueprint"),
    "topo.changes": ("Change", "degrade", "without"),
    "topo.columns": ("Column", "ColumnLike", "column"),
    "topo.domains": ("ScaleUp",),
    "topo.errors": ("Fault", "InfeasibleError", "PodscaleError", "SpecError"),
    "topo.graphs": ("expand", "flat"),
    "topo.orbits": ("quotient",),
    "topo.schema": ("validate",),
    "topo.tiers": ("Tier", "summary"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of a reading
    "Axis",
    "NodeClass",
    "LinkClass",
    "Level",
    "Blueprint",
    "expand",
    "flat",
    "quotient",
    "Change",
    "degrade",
    "without",
    "validate",
    "ScaleUp",
    "ScaleOut",
    "cluster_blueprint",
    "Tier",
    "summary",
    "Column",
    "ColumnLike",
    "column",
    "Fault",
    "InfeasibleError",
    "PodscaleError",
    "SpecError",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'topo' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names for completion."""
    return sorted(__all__)
