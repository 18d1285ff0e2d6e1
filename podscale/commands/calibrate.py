"""`podscale calibrate`: constants fitted to your own measurements, written as a file that the other commands obey."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door, Progress
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from rich.console import Console

MOST_ROWS = 60
"""Measurements that are printed beside their price; ``--json`` has them all."""


def _gemm(file: Path, out: Path, progress: Progress | None) -> dict[str, Any]:
    """Fit matrix products."""
    from clusters.calibration.gemm import calibrate_file

    return calibrate_file(file, out, progress)


def _collectives(file: Path, out: Path, progress: Progress | None, **told: Any) -> dict[str, Any]:
    """Fit collectives."""
    from clusters.calibration.own_links import calibrate_file

    return calibrate_file(file, out, progress, **told)


def _training(file: Path, out: Path, progress: Progress | None) -> dict[str, Any]:
    """Fit the factor of an installation to its own runs."""
    from parallel.calibration.installation import calibrate_file

    return calibrate_file(file, out, progress)


def _serving(file: Path, out: Path, progress: Progress | None, **told: Any) -> dict[str, Any]:
    """Fit a serving engine to one's own load test."""
    from parallel.calibration.serving_own import calibrate_file

    return calibrate_file(file, out, progress, **told)


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    "collectives": _collectives,
    "gemm": _gemm,
    "serving": _serving,
    "training": _training,
}
"""What can be fitted -> the function that fits a file of it and writes the constants."""

TAKES = {
    "collectives": ("ranks", "op", "cluster"),
    "serving": ("engine", "model", "accelerator", "precision", "tp", "attention_dp", "ep"),
}
"""Kind -> the flags that it takes besides."""


def calibrate(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"What was measured: {', '.join(KINDS)}.")],
    file: Annotated[
        Path,
        typer.Argument(
            help="Your measurements: a table that `validate` takes, the output of nccl-tests, or what a load "
            "generator wrote (vLLM, SGLang, GenAI-Perf, AIPerf: a file or a folder)."
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="Where the constants go (YAML).")],
    cluster: Annotated[str, typer.Option(help="collectives: where it ran, a system or a cluster file.")] = "",
    ranks: Annotated[int | None, typer.Option(help="collectives: how many ranks, if the output lacks them.")] = None,
    op: Annotated[str, typer.Option(help="collectives: which test it was, if the output does not name it.")] = "",
    engine: Annotated[str, typer.Option(help="serving: vllm, sglang or trtllm; of a table, which rows to take.")] = "",
    model: Annotated[str, typer.Option(help="serving: the model, if the file lacks it.")] = "",
    accelerator: Annotated[str, typer.Option(help="serving: where it ran, if the file lacks it.")] = "",
    precision: Annotated[str, typer.Option(help="serving: of the checkpoint: bf16, fp8, fp4, int4.")] = "",
    tp: Annotated[int | None, typer.Option(help="serving: tensor ranks of a replica.")] = None,
    attention_dp: Annotated[int | None, typer.Option(help="serving: attention groups of a replica.")] = None,
    ep: Annotated[int | None, typer.Option(help="serving: ranks that experts are split over.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit the constants of the model to your own measurements and write them with their residuals."""
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        remedy = f"write {near[0]}" if near else f"choose one of {', '.join(KINDS)}"
        raise SpecError([Fault("KIND", kind, "nothing of that kind to fit", remedy)])
    given = {
        "cluster": cluster, "ranks": ranks, "op": op, "engine": engine, "model": model, "accelerator": accelerator,
        "precision": precision, "tp": tp, "attention_dp": attention_dp, "ep": ep,
    }  # fmt: skip
    told = {name: value for name, value in given.items() if value not in ("", None)}
    if wrong := [name for name in told if name not in TAKES.get(kind, ())]:
        raise SpecError(
            [
                Fault(f"--{name.replace('_', '-')}", told[name], f"says nothing of {kind}", "leave it out")
                for name in wrong
            ]
        )
    door = Door(as_json, quiet)
    with door.progress(f"fitting {kind}") as progress:
        document = KINDS[kind](file, out, progress, **told)
    door.answer(document, _draw)


def _draw(console: "Console", document: Mapping[str, Any]) -> None:
    """Print what was fitted; of collectives and engines also each measurement beside its price, and what was not used."""
    from rich.text import Text

    from podscale import words
    from podscale.render import print_warnings
    from podscale.tables import draw_calibration, table

    if rows := document.get("rows", ()):
        shown = table("Measured and predicted", "", "ranks", "bytes", "measured", "predicted", "off by")
        for row in rows[:MOST_ROWS]:
            name = f"{row['link']} {row['op']} {row['regime']}"
            times = (words.seconds(row[key]) for key in ("measured", "predicted"))
            off = words.percent(row["predicted"] / row["measured"] - 1)
            shown.add_row(name, f"{row['ranks']}", f"{row['bytes']:,.0f}", *times, off)
        console.print(shown)
        if len(rows) > MOST_ROWS:
            console.print(f"and {len(rows) - MOST_ROWS} more in --json", style="dim")
    if document.get("calibration"):
        _draw_load_test(console, document)
    draw_calibration(console, document)
    if unused := document.get("unused", ()):
        shown = table("Lines not used", "", "count", "lines", "the first", left=("lines", "the first"))
        for held in unused:
            cells = (held["reason"], f"{held['count']:,}", held["lines"], held["text"])
            shown.add_row(*(Text(cell, overflow="ellipsis", no_wrap=True) for cell in cells))
        console.print(shown)
    print_warnings(console, document.get("warnings", ()))


def _draw_load_test(console: "Console", document: Mapping[str, Any]) -> None:
    """Print the constants of an engine before and after, and how far each run is off before, after and unseen."""
    from podscale import words
    from podscale.tables import table

    shown = table("Of the engine", "", "its class", "here")
    for name, value in document["calibration"]["constants"].items():
        shown.add_row(words.phrase(name), words.figures(document["class"][name]), words.figures(value))
    for name, value in document["calibration"]["factors"].items():
        if value != 1.0:
            shown.add_row(f"factor on {name.upper()}", "1", words.figures(value))
    console.print(shown)
    kinds = ("before", "after", "unseen")
    shown = table("Runs", "clients", "prompt", "answer", "TPOT", *kinds, "TTFT", *kinds)
    for run in document["runs"][:MOST_ROWS]:
        cells = [f"{run[name]:,.0f}" for name in ("clients", "isl", "osl")]
        for metric in ("tpot", "ttft"):
            held = run[metric]
            off = (held[kind] / held["measured"] - 1 if held[kind] else None for kind in kinds)
            cells.append(words.seconds(held["measured"]))
            cells += ["" if value is None else words.percent(value) for value in off]
        shown.add_row(*cells)
    console.print(shown)
    if len(document["runs"]) > MOST_ROWS:
        console.print(f"and {len(document['runs']) - MOST_ROWS} more in --json", style="dim")
