"""`podscale topo`: what a cluster is made of, tier by tier."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from topo.blueprint import Blueprint

_UNKNOWN = {"power_W": "watts", "price_usd": "price"}


def topo(
    cluster: Annotated[str, typer.Argument(help="A name of `podscale list systems`, or a cluster file (YAML).")],
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the wiring: a file that ends in .svg or .html.")
    ] = None,
    expanded: Annotated[bool, typer.Option("--expanded", help="Draw every node (up to 256) instead of tiers.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Describe a cluster's wiring: tiers, bisection, parts, watts, price."""
    from clusters.build import bill, build
    from clusters.spec import load
    from topo.survey import summary

    if expanded or draw:
        _check(draw)
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
    if draw:
        document["drawing"] = str(_draw(built.blueprint, document["tiers"], draw, expanded=expanded))
    Door(as_json, quiet).answer(document, _print)


def _print(console: "Console", document: dict[str, Any]) -> None:
    """Print the tables, and where the drawing lies."""
    from podscale.tables import draw_topology

    draw_topology(console, document)
    if "drawing" in document:
        console.print(f"Drawing: {document['drawing']}", markup=False, soft_wrap=True)


def _check(target: Path | None) -> None:
    """Refuse a drawing without a file, or of an unknown kind, before anything is built."""
    if target is None:
        raise SpecError([Fault("--expanded", None, "draws nothing by itself", "add --draw FILE.svg")])
    if target.suffix.lower() not in (".svg", ".html"):
        raise SpecError([Fault("--draw", str(target), "is no drawing that can be written", "end it in .svg or .html")])


def _draw(blueprint: "Blueprint", tiers: list[dict[str, Any]], target: Path, *, expanded: bool) -> Path:
    """Write a drawing and return where it lies."""
    from podscale.expanded import expanded_svg
    from podscale.topology import topology_html, topology_svg
    from topo.outline import outline

    drawing = expanded_svg(blueprint) if expanded else topology_svg(outline(blueprint), tiers)
    try:
        text = topology_html(drawing, blueprint.name) if target.suffix.lower() == ".html" else drawing
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        fault = Fault("--draw", str(target), f"cannot be written ({error.strerror})", "choose another place")
        raise SpecError([fault]) from error
    return target
