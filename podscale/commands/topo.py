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
    cluster: Annotated[
        str,
        typer.Argument(help="A name of `podscale list systems`, a cluster file (YAML), or a graph of another tool."),
    ],
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Read a graph in this format, such as nccl-xml or nvidia-smi."),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(metavar="LINK=RATE", help="Bandwidth of a kind of link that the graph leaves out: pcie=63GB/s."),
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the wiring: a file that ends in .svg or .html.")
    ] = None,
    expanded: Annotated[bool, typer.Option("--expanded", help="Draw every node (up to 256) instead of tiers.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Describe a cluster's wiring: tiers, bisection, all-to-all, ports, parts, watts, price."""
    if expanded or draw:
        _check(draw)
    if form or _is_graph(cluster):
        document = _of_graph(cluster, form, _rates(rate or []), draw)
    else:
        document = _of_cluster(cluster, draw, expanded)
    Door(as_json, quiet).answer(document, _print)


def _is_graph(cluster: str) -> bool:
    """Whether the argument is a file of another tool: one that is there and no YAML."""
    path = Path(cluster)
    return path.is_file() and path.suffix.lower() not in (".yaml", ".yml")


def _rates(given: list[str]) -> dict[str, float]:
    """Read ``pcie=63GB/s`` and its like; every fault at once."""
    from clusters.units import parse_quantity

    rates, faults = dict[str, float](), list[Fault]()
    for text in given:
        name, equals, rate = text.partition("=")
        try:
            rates[name] = float(parse_quantity(rate, "bandwidth"))
        except ValueError as error:
            problem = str(error).rstrip(".") if equals else "names no rate"
            faults.append(Fault("--rate", text, problem, "write a link and its rate, such as pcie=63GB/s"))
    if faults:
        raise SpecError(faults)
    return rates


def _of_graph(file: str, form: str | None, rates: dict[str, float], draw: Path | None) -> dict[str, Any]:
    """Describe a graph that another tool wrote down; its parts are not those of the catalogue."""
    from topo.formats import read
    from topo.imported import graph_summary

    if draw:
        remedy = "draw a described cluster, or write the graph with topo.formats"
        raise SpecError([Fault("--draw", str(draw), "draws symmetries, which an imported graph has none of", remedy)])
    found = read(Path(file), form, rates=rates)
    facts = graph_summary(found.graph)
    return {
        "name": Path(file).name,
        **facts,
        "power_W": None,
        "price_usd": None,
        "bill": [{"part": part, "count": n, "power_W": None, "price_usd": None} for part, n in facts["parts"].items()],
        "warnings": [f"line {line.line} is not used ({line.why}): {line.text}" for line in found.unused],
    }


def _of_cluster(cluster: str, draw: Path | None, expanded: bool) -> dict[str, Any]:
    """Describe a system of the catalogue or a cluster file."""
    from clusters.build import bill, build, facts
    from clusters.spec import load
    from topo.blueprint import Blueprint

    built = build(load(cluster, wiring=True))
    told = bill(built)
    warnings = [f"{_UNKNOWN[key]} unknown for {', '.join(parts)}" for key, parts in told["unknown"].items() if parts]
    if built.usable != built.accelerators:
        warnings.append(f"{built.accelerators - built.usable:,} of {built.accelerators:,} accelerators fill no domain")
    document: dict[str, Any] = {
        "name": built.name,
        **facts(built),
        "parts": {row["part"]: row["count"] for row in told["parts"]},
        "power_W": told["power_W"],
        "price_usd": told["price_usd"],
        "bill": told["parts"],
        "warnings": [*warnings, *built.unused],
    }
    if isinstance(built.wiring, Blueprint) and document["accelerators"] > 1:
        document |= _reach(built.wiring)
    if draw:
        document["drawing"] = str(_draw(built.blueprint, document["tiers"], draw, expanded=expanded))
    return document


def _reach(blueprint: "Blueprint") -> dict[str, Any]:
    """Return what an all-gather and an all-to-all get at best, what limits it, and the ports in use."""
    from dataclasses import asdict

    from topo.concurrent import all_to_all_Bps
    from topo.gather import gather_Bps
    from topo.ports import ports

    rate = all_to_all_Bps(blueprint)
    held = [{key: value for key, value in asdict(row).items() if value is not None} for row in ports(blueprint)]
    return {
        "all_gather_Bps": gather_Bps(blueprint).bandwidth_Bps,
        "all_to_all_Bps": rate.bandwidth_Bps,
        "all_to_all_exact": rate.exact,
        "all_to_all_limits": [asdict(limit) for limit in rate.limits],
        "ports": held,
    }


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
