"""`podscale pipeline`: one pipeline under one schedule or all of them; why its stages wait, drawn and traced."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from parallel.training.pipeline import Played

_HEADS = {"imbalance": "uneven", "hop latency": "hops", "exposed communication": "exposed"}
"""Short names of causes, for the heads of tables."""
_HEAD_OF_HELD = ("waits", "holds", "params")


def pipeline(
    *,
    schedule: Annotated[
        str, typer.Option(help="A name of `podscale list schedules`, or all to compare them.")
    ] = "1f1b",
    stages: Annotated[int, typer.Option(help="Pipeline stages, p.")],
    microbatches: Annotated[int, typer.Option(help="Micro-batches per step, m.")],
    chunks: Annotated[int, typer.Option(help="Virtual stages per stage, for schedules that leave them open.")] = 1,
    forward: Annotated[str, typer.Option(help="Forward of a micro-batch through a mean stage: 10ms.")],
    backward: Annotated[str | None, typer.Option(help="Its whole backward (default: twice the forward).")] = None,
    weight: Annotated[
        str | None, typer.Option(help="The gradient of the weights alone (default: half of that).")
    ] = None,
    hop: Annotated[str, typer.Option(help="A transfer between neighbouring stages: 10us.")] = "0s",
    slow_hop: Annotated[
        list[str] | None, typer.Option(metavar="N:TIME", help="Another hop into stage N: 8:10ms. Can be repeated.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="The optimizer step of a stage: 50ms.")] = "0s",
    waited: Annotated[bool, typer.Option("--waited", help="A stage does not work while it sends.")] = False,
    unsynchronised: Annotated[
        bool, typer.Option("--unsynchronised", help="No stage waits for another before its optimizer step.")
    ] = False,
    layers: Annotated[int, typer.Option(help="Layers to be placed on the stages (default: equal stages).")] = 0,
    head: Annotated[float, typer.Option(help="How many layers head and loss weigh, on the last stage.")] = 0.0,
    layout: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A placement as Megatron-Core writes it: Et*3|(tt|)*29tL.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace of one schedule, for ui.perfetto.dev: .json.")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw what runs when: a file that ends in .svg or .html.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run a pipeline exactly: the step, why its stages wait, the activations they hold, and what to do about it."""
    seconds = _seconds(
        {"--forward": forward, "--backward": backward, "--weight": weight, "--hop": hop, "--optimizer": optimizer}
    )
    links = _links(stages, seconds["--hop"], slow_hop or [])
    _check(schedule, trace, draw)
    from parallel.training.layouts import parse_layout
    from parallel.training.pipeline import Pipeline, document

    pipe = Pipeline(
        stages,
        microbatches,
        seconds["--forward"],
        2.0 * seconds["--forward"] if backward is None else seconds["--backward"],
        chunks=chunks,
        weight_s=None if weight is None else seconds["--weight"],
        links_s=links,
        layers=layers,
        head=head,
        layout=parse_layout(layout, stages, field="--layout") if layout else None,
        optimizer_s=seconds["--optimizer"],
        asynchronous=not waited,
        synchronised=not unsynchronised,
    )
    door = Door(as_json, quiet)
    with door.progress("running the schedules"):
        told, played = document(pipe, schedule)
    if trace:
        told["trace"] = str(_write_trace(trace, played[0]))
    if draw:
        told["drawing"] = str(_write_drawing(draw, told, played))
    door.answer(told, _print)


def _seconds(given: dict[str, str | None]) -> dict[str, float]:
    """Read times with their units; every fault at once."""
    from clusters.units import parse_quantity

    times, faults = dict[str, float](), list[Fault]()
    for flag, text in given.items():
        try:
            times[flag] = float(parse_quantity(text, "seconds")) if text is not None else 0.0
        except ValueError as error:
            faults.append(Fault(flag, text, str(error).rstrip(".")))
    faults += [Fault(flag, given[flag], "is less than nought", "give a time") for flag, t in times.items() if t < 0]
    if faults:
        raise SpecError(faults)
    return times


def _links(stages: int, hop_s: float, slow: Sequence[str]) -> tuple[float, ...]:
    """Return the hop into each stage but the first; ``8:10ms`` changes the one into stage 8."""
    links, faults = [hop_s] * (stages - 1), []
    for text in slow:
        number, colon, time = text.partition(":")
        if not (colon and number.isdecimal() and 1 <= int(number) < stages):
            remedy = "write a stage and a time, such as 8:10ms for the link between stages 7 and 8"
            faults.append(Fault("--slow-hop", text, f"names no stage from 1 to {stages - 1}", remedy))
            continue
        try:
            links[int(number) - 1] = _seconds({"--slow-hop": time})["--slow-hop"]
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(faults)
    return tuple(links)


def _check(schedule: str, trace: Path | None, draw: Path | None) -> None:
    """Refuse what cannot be written before anything runs."""
    faults = []
    if trace and schedule == "all":
        faults.append(Fault("--trace", str(trace), "holds one schedule, not all of them", "name one with --schedule"))
    if trace and trace.suffix.lower() != ".json":
        faults.append(Fault("--trace", str(trace), "is no trace that can be written", "end it in .json"))
    if draw and draw.suffix.lower() not in (".svg", ".html"):
        faults.append(Fault("--draw", str(draw), "is no drawing that can be written", "end it in .svg or .html"))
    if faults:
        raise SpecError(faults)


def _write_trace(target: Path, played: "Played") -> Path:
    """Write the Chrome trace and return where it lies."""
    from podscale.door import to_json
    from podscale.timeline import trace

    made = trace(played.run, played.costs, played.causes, played.schedule)
    return _write(target, to_json(made), "--trace")


def _write_drawing(target: Path, told: dict[str, Any], played: "Sequence[Played]") -> Path:
    """Write the Gantt drawing and return where it lies."""
    from podscale.gantt import Panel, gantt_svg
    from podscale.topology import topology_html

    title = f"{told['stages']} stages, {told['microbatches']} micro-batches"
    panels = [Panel(_named(each), each.run, each.costs, each.causes, told["links_s"]) for each in played]
    svg = gantt_svg(panels, title, _setting(told["forward_s"], told["backward_s"], told["links_s"]))
    html = target.suffix.lower() == ".html"
    return _write(target, topology_html(svg, title) if html else svg, "--draw")


def _named(played: "Played") -> str:
    """Name a schedule, with its chunks where it has several."""
    chunks = played.run.order.chunks
    return played.schedule + (f", {chunks} chunks" if chunks > 1 else "")


def _write(target: Path, text: str, flag: str) -> Path:
    """Write a file, or say why not."""
    try:
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        fault = Fault(flag, str(target), f"cannot be written ({error.strerror})", "choose another place")
        raise SpecError([fault]) from error
    return target


def _setting(forward_s: float, backward_s: float, links_s: Sequence[float]) -> str:
    """Say what was given: times of a stage, and of the links.

    >>> _setting(0.01, 0.02, [1e-5, 1e-5, 1e-2, 1e-5])
    'forward 10 ms, backward 20 ms, hop 10 µs; into stage 3 10 ms'
    """
    from podscale import words

    said = f"forward {words.seconds(forward_s)}" + (f", backward {words.seconds(backward_s)}" if backward_s else "")
    if not links_s:
        return said
    usual = sorted(links_s)[len(links_s) // 2]
    others = [f"into stage {i + 1} {words.seconds(hop)}" for i, hop in enumerate(links_s) if hop != usual]
    return "; ".join([f"{said}, hop {words.seconds(usual)}", *others[:4]])


def _print(console: "Console", document: dict[str, Any]) -> None:
    """Print the schedules, the stages of a single one, what follows, and where the files lie."""
    from rich.text import Text

    from podscale import words
    from podscale.tables import table

    rows = document["rows"]
    title = f"{document['stages']} stages, {document['microbatches']} micro-batches"
    links = [link or 0.0 for link in document["links_s"]]
    setting = _setting(document["forward_s"], document["backward_s"], links)
    console.print(Text.assemble((title, "bold"), "  ", (setting, "dim")))
    terms = [name for name in rows[0]["terms"] if any(abs(r["terms"][name]) > 1e-9 for r in rows)]
    shown = table("A mean stage", "schedule", "v", "step", *(_HEADS.get(name, name) for name in terms), *_HEAD_OF_HELD)
    shown.columns[0].no_wrap = True
    for r in sorted(rows, key=lambda r: r["step_time_s"]):
        times = [words.seconds(r["terms"][name]) for name in terms]
        held = (words.percent(r["bubble_share"]), words.figures(r["peak_in_flight"]), f"×{r['parameter_copies']}")
        shown.add_row(r["schedule"], str(r["chunks"]), words.seconds(r["step_time_s"]), *times, *held)
    console.print(shown)
    for said in dict.fromkeys(r["placement"] for r in rows if r["placement"]):
        console.print(Text(f"Layers: {said}"))
    if len(rows) == 1:
        _print_stages(console, rows[0], terms[1:])
    for line in document["advice"]:
        console.print(Text(f"· {line}"))
    for row in document["skipped"]:
        console.print(Text(f"{row['schedule']} cannot run: {row['skipped_because']}", style="dim"))
    for name, said in (("trace", "Trace (ui.perfetto.dev)"), ("drawing", "Drawing")):
        if name in document:
            console.print(f"{said}: {document[name]}", markup=False, soft_wrap=True)


def _print_stages(console: "Console", row: dict[str, Any], causes: Sequence[str]) -> None:
    """Print every stage of a schedule: work, waits by cause, the most micro-batches held."""
    from podscale import words
    from podscale.tables import table

    if row["layout"]:
        console.print(f"Layout: {row['layout']}", markup=False, soft_wrap=True)
    shown = table("By stage", "stage", "works", "waits", *(_HEADS.get(name, name) for name in causes), "holds")
    for stage in row["stages"]:
        waits = [words.seconds(stage["causes"][name]) for name in causes]
        held = words.figures(stage["in_flight"])
        shown.add_row(str(stage["stage"]), words.seconds(stage["busy_s"]), words.seconds(stage["idle_s"]), *waits, held)
    console.print(shown)
