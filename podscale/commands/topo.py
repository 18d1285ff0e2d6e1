"""`podscale topo`: what a cluster is made of, tier by tier."""

from typing import Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door

_UNKNOWN = {"power_W": "watts", "price_usd": "price"}


def topo(
    cluster: Annotated[str, typer.Argument(help="A name of `podscale list systems`, or a cluster file (YAML).")],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Describe a cluster's wiring: tiers, bisection, parts, watts, price."""
    from clusters.build import bill, build
    from clusters.spec import load
    from topo.survey import summary

    built = build(load(cluster))
    told = bill(built)
    warnings = [f"{_UNKNOWN[key]} unknown for {', '.join(parts)}" for key, parts in told["unknown"].items() if parts]
    if built.usable != built.accelerators:
        warnings.append(f"{built.accelerators - built.usable:,} of {built.accelerators:,} accelerators fill no domain")
    document: dict[str, Any] = {
        "name": built.name,
        **summary(built.blueprint),
        "parts": {row["part"]: row["count"] for row in told["parts"]},
        "power_W": told["power_W"],
        "price_usd": told["price_usd"],
        "bill": told["parts"],
        "warnings": warnings,
    }
    from podscale.tables import draw_topology

    Door(as_json, quiet).answer(document, draw_topology)
