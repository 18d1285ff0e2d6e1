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
    from topo.changes import Change, degrade, struck, without
    from topo.columns import Column, ColumnLike, column
    from topo.compose import Core, Fibre, Span, joined
    from topo.concurrent import Rate, all_to_all_bound, all_to_all_Bps, cut_bound_Bps, tier_exchange_Bps
    from topo.direct import FullMesh, Torus
    from topo.domains import ScaleUp
    from topo.errors import Fault, InfeasibleError, PodscaleError, SpecError
    from topo.flows import Cut, bisection, max_flow, min_cut
    from topo.gather import Gather, gather_Bps
    from topo.graphs import expand, flat
    from topo.imported import graph_summary, graph_tiers
    from topo.nested import Nested, Tie
    from topo.orbits import quotient
    from topo.outline import Outline, class_loads
    from topo.ports import Ports, port_faults
    from topo.refine import refine
    from topo.schema import validate
    from topo.survey import hop_histogram, parts, summary
    from topo.tiers import DirectAxis, Pool, Tier, pools
    from topo.wide import Row, direct_blueprint, orbit, sites

_HOMES = {
    "topo.blueprint": ("Axis", "Blueprint", "Level", "LinkClass", "NodeClass"),
    "topo.builders": ("ScaleOut", "cluster_blueprint"),
    "topo.changes": ("Change", "degrade", "struck", "without"),
    "topo.columns": ("Column", "ColumnLike", "column"),
    "topo.compose": ("Core", "Fibre", "Span", "joined"),
    "topo.concurrent": ("Rate", "all_to_all_Bps", "all_to_all_bound", "cut_bound_Bps", "tier_exchange_Bps"),
    "topo.direct": ("FullMesh", "Torus"),
    "topo.domains": ("ScaleUp",),
    "topo.imported": ("graph_summary", "graph_tiers"),
    "topo.nested": ("Nested", "Tie"),
    "topo.outline": ("Outline", "class_loads"),
    "topo.ports": ("Ports", "port_faults"),
    "topo.wide": ("Row", "direct_blueprint", "orbit", "sites"),
    "topo.errors": ("Fault", "InfeasibleError", "PodscaleError", "SpecError"),
    "topo.flows": ("Cut", "bisection", "max_flow", "min_cut"),
    "topo.gather": ("Gather", "gather_Bps"),
    "topo.graphs": ("expand", "flat"),
    "topo.orbits": ("quotient",),
    "topo.refine": ("refine",),
    "topo.schema": ("validate",),
    "topo.survey": ("hop_histogram", "parts", "summary"),
    "topo.tiers": ("DirectAxis", "Pool", "Tier", "pools"),
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
    "refine",
    "Cut",
    "max_flow",
    "min_cut",
    "bisection",
    "Rate",
    "Gather",
    "gather_Bps",
    "all_to_all_Bps",
    "tier_exchange_Bps",
    "all_to_all_bound",
    "cut_bound_Bps",
    "Change",
    "degrade",
    "without",
    "struck",
    "validate",
    "ScaleUp",
    "FullMesh",
    "Torus",
    "Nested",
    "Tie",
    "ScaleOut",
    "cluster_blueprint",
    "joined",
    "Core",
    "Fibre",
    "Span",
    "sites",
    "Row",
    "direct_blueprint",
    "orbit",
    "Tier",
    "DirectAxis",
    "Pool",
    "pools",
    "summary",
    "parts",
    "hop_histogram",
    "Ports",
    "port_faults",
    "Outline",
    "class_loads",
    "graph_tiers",
    "graph_summary",
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
