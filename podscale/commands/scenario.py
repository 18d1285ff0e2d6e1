"""`podscale train` and `podscale serve`: one deployment, priced in full, and traced."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from parallel.explain.point import Point

Scenario = Annotated[str, typer.Argument(help="Scenario file (YAML): the model, the cluster, the split.")]
_NEAR = 0.02
"""Steps that differ by less are the same."""
Trace = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write what every pipeline stage does when, for ui.perfetto.dev: .json."),
]


def train(scenario: Scenario, trace: Trace = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Price one training run: step time, its terms, memory per GPU."""
    from parallel.scenario import train as run

    _check(trace)
    door = Door(as_json, quiet)
    with door.progress("pricing the step"):
        document = run(scenario)
    if trace:
        made = _step(scenario)
        document["trace"] = _write(trace, made)
        document["warnings"] = [*document["warnings"], *_apart(**made["otherData"])]
    from podscale.tables import draw_train

    door.answer(document, draw_train)


def serve(
    scenario: Scenario,
    limit: Annotated[
        str | None, typer.Option(help="Price an ideal instead: `communication` makes everything but talking free.")
    ] = None,
    trace: Trace = None,
    search: Annotated[
        bool, typer.Option("--search", help="Find split, clients, engine and pools for the file's limits and demand.")
    ] = False,
    cp: Annotated[bool, typer.Option("--cp", help="With --search: also try prompts that several ranks share.")] = False,
    flags: Annotated[
        bool, typer.Option("--flags", help="Print how vLLM, SGLang and TensorRT-LLM are launched like that.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Price one serving deployment: TTFT, TPOT, their terms, memory per GPU; or search for the best."""
    _check(trace, limit)
    door = Door(as_json, quiet)
    if search:
        _search(scenario, door, trace=trace, limit=limit, flags=flags, cp=cp)
        return
    if cp:
        raise SpecError([Fault("--cp", None, "is of a search", "add --search, or write strategy: {cp: 4}")])
    from parallel.scenario import serve as run

    with door.progress("pricing the deployment"):
        document = run(scenario, limit=limit)
    if trace:
        document["trace"] = _write(trace, _pass(scenario))
    from podscale.servewords import draw_launches
    from podscale.tables import draw_serve

    if flags and not document.get("deploy"):
        raise SpecError([Fault("--flags", None, "are an engine's, and the file names none", "write engine: vllm")])
    if flags and (faults := document["deploy"][document["engine"]].get("faults")):
        raise SpecError([Fault(**fault) for fault in faults])

    def draw(console: "Console", told: dict[str, Any]) -> None:
        draw_serve(console, told)
        if flags:
            draw_launches(console, told["deploy"])

    door.answer(document, draw)


def _search(scenario: str, door: Door, *, trace: Path | None, limit: str | None, flags: bool, cp: bool) -> None:
    """Answer a search."""
    from parallel.serving.search import search_file
    from podscale.servewords import draw_launches, draw_search

    given = {"--trace": trace, "--limit": limit}
    if wrong := [name for name, value in given.items() if value]:
        raise SpecError([Fault(name, str(given[name]), "is of one deployment", "leave it out") for name in wrong])
    with door.progress("searching") as progress:
        document = search_file(scenario, progress, cp=cp)

    def draw(console: "Console", told: dict[str, Any]) -> None:
        draw_search(console, told)
        if flags:
            draw_launches(console, told["deploy"])

    door.answer(document, draw)


def _check(trace: Path | None, limit: str | None = None) -> None:
    """Refuse a trace that cannot be written before anything runs."""
    faults = []
    if trace and trace.suffix.lower() != ".json":
        faults.append(Fault("--trace", str(trace), "is no trace that can be written", "end it in .json"))
    if trace and limit:
        faults.append(Fault("--trace", str(trace), "shows a whole pass, and the limit has one term", "leave out one"))
    if faults:
        raise SpecError(faults)


def _title(point: "Point") -> str:
    return f"{point.model.name}, {point.phase} on {point.built.name}"


def _step(scenario: str) -> dict[str, Any]:
    """Return the trace of a training step."""
    from parallel.explain.lanes import play
    from parallel.explain.scene import TrainScene
    from parallel.scenario import train_point
    from podscale.timeline import trace

    scene = TrainScene(train_point(scenario))
    played = play(scene)
    made = trace(played.run, played.costs, played.causes, _title(scene.point), played.slices)
    made["otherData"] |= {"step_s": played.seconds, "priced_s": scene.seconds}
    return made


def _apart(step_s: float, priced_s: float, **_: Any) -> list[str]:
    """Say so when the executed schedule and the price are not the same.

    >>> _apart(6.6, 6.0), _apart(6.0, 6.0)
    (['the schedule, executed chunk by chunk, takes 6.6 s, the price is 6 s: its layers are rounded to eighths'], [])
    """
    from podscale import words

    if abs(step_s / priced_s - 1.0) < _NEAR:
        return []
    took, priced = words.seconds(step_s), words.seconds(priced_s)
    return [
        f"the schedule, executed chunk by chunk, takes {took}, the price is {priced}: its layers are rounded to eighths"
    ]


def _pass(scenario: str) -> dict[str, Any]:
    """Return the trace of a pass; a file with two pools has two, and is refused."""
    from parallel.explain.lanes import pass_slices
    from parallel.explain.scene import ServeScene
    from parallel.scenario import serve_points
    from podscale.timeline import pass_trace

    points = serve_points(scenario)
    if len(points) > 1:
        raise SpecError([Fault("--trace", None, "shows one phase, and the file has two", "write pool and phase")])
    [point] = points.values()
    scene = ServeScene(point)
    return pass_trace(pass_slices(scene), _title(point), scene.seconds)


def _write(target: Path, made: dict[str, Any]) -> str:
    """Write a trace, its folder made, and return where it lies."""
    from podscale.door import to_json

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(to_json(made), encoding="utf-8")
    except OSError as error:
        raise SpecError(
            [Fault("--trace", str(target), f"cannot be written ({error.strerror})", "name another")]
        ) from None
    return str(target)
