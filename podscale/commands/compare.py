"""`podscale compare`: the same silicon, wired with scale-up domains of different sizes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import INFEASIBLE, Door, plain
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from parallel.compare import CompareRequest


def compare(
    *,
    model: Annotated[str, typer.Option(help="Model: a name of `podscale list models`, or a config.json.")] = (
        "deepseek-v3"
    ),
    accelerator: Annotated[str, typer.Option(help="Accelerator: a name of `podscale list accelerators`.")] = "gb200",
    domains: Annotated[
        str | None,
        typer.Option(help="Scale-up domain sizes; they need not divide the GPUs [default: 8,72,576; a cluster's own]"),
    ] = None,
    gpus: Annotated[int, typer.Option(help="GPUs bought, the same for every wiring.")] = 4608,
    nic: Annotated[
        str | None, typer.Option(help="NIC per GPU: 400Gb/s, 50GB/s or a name, connectx-8 [default: usual one]")
    ] = None,
    oversubscription: Annotated[float, typer.Option(help="Down to up bandwidth of the scale-out fabric.")] = 1.0,
    isl: Annotated[int, typer.Option(help="Input tokens per request.")] = 4096,
    osl: Annotated[int, typer.Option(help="Output tokens per request.")] = 1024,
    tpot_ms: Annotated[float, typer.Option(help="Longest time per output token, in milliseconds.")] = 50.0,
    ttft_ms: Annotated[float, typer.Option(help="Longest time to the first token, in milliseconds.")] = 2000.0,
    precision: Annotated[str, typer.Option(help="Number formats: bf16, fp8 or nvfp4.")] = "fp8",
    sequence: Annotated[int, typer.Option(help="Training: tokens per sequence.")] = 4096,
    global_batch: Annotated[int, typer.Option(help="Training: sequences per step.")] = 18432,
    cluster: Annotated[str | None, typer.Option(help="Take everything else from this cluster file or system.")] = None,
    pool: Annotated[str | None, typer.Option(help="With --cluster: one of its pools, where racks are unlike.")] = None,
    executor: Annotated[str, typer.Option(help="Where the search runs: auto, serial or ray.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Write a self-contained HTML report here.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare scale-up domain sizes: best split, speed and bottleneck of training, prefill and decode."""
    from parallel.compare import compare as run

    door = Door(as_json, quiet)
    request = _request(
        texts={"domains": domains, "nic": nic},
        fields={
            "model": model,
            "accelerator": accelerator,
            "gpus": gpus,
            "oversubscription": oversubscription,
            "isl": isl,
            "osl": osl,
            "tpot_ms": tpot_ms,
            "ttft_ms": ttft_ms,
            "precision": precision,
            "sequence": sequence,
            "global_batch": global_batch,
            "cluster": cluster,
            "pool": pool,
            "executor": executor,
        },
    )
    if report is not None:
        _check_place(report)
    with door.progress("searching splits") as progress:
        document = plain(run(request, progress=progress))
    if report is not None:
        from podscale.report import write

        document["report"] = str(write(document, report))
    from podscale.render import draw_compare

    door.answer(document, lambda console, doc: draw_compare(console, doc, quiet=quiet))
    if all(row.get("infeasible") for row in document["rows"]):
        raise typer.Exit(INFEASIBLE)


def parse_domains(text: str, gpus: int) -> tuple[int, ...]:
    """Read ``8,72,576``.

    Raises
    ------
    SpecError
        With every entry that is not a whole number between 1 and `gpus`, or stands there twice.

    >>> parse_domains("8, 72,500", 4608)
    (8, 72, 500)
    """
    faults, sizes = [], []
    for entry in (part.strip() for part in text.split(",")):
        if not entry.isdecimal() or int(entry) < 1:
            remedy = "write GPUs per scale-up domain, separated by commas: --domains 8,72,576"
            faults.append(Fault("--domains", entry, "a domain is a whole number of GPUs, 1 or more", remedy))
        elif int(entry) > gpus > 0:
            remedy = f"raise --gpus to {int(entry)} or more, or leave this domain out"
            faults.append(Fault("--domains", int(entry), f"larger than the {gpus:,} GPUs of --gpus", remedy))
        elif int(entry) in sizes:
            faults.append(Fault("--domains", int(entry), "stands there twice", "name each size once"))
        else:
            sizes.append(int(entry))
    if faults:
        raise SpecError(faults)
    return tuple(sizes)


def _parse_nic(text: str) -> float | str:
    """Read a NIC: a bandwidth per GPU and direction, in bytes per second, or a name of the catalogue.

    >>> _parse_nic("400Gb/s"), _parse_nic("cx8")
    (50000000000.0, 'connectx-8')
    """
    from clusters import catalogue
    from clusters.units import parse_quantity

    if text.strip()[:1] not in "0123456789+-.":
        try:
            return catalogue.nic(text).name
        except SpecError as error:
            remedy = f"{error.faults[0].remedy}; or write a rate, such as 400Gb/s"
            raise SpecError([Fault("--nic", text, error.faults[0].problem, remedy)]) from None
    try:
        value = float(parse_quantity(text, "bandwidth"))
    except ValueError as error:
        raise SpecError([Fault("--nic", text, str(error).rstrip("."))]) from error
    if value <= 0:
        raise SpecError([Fault("--nic", text, "bandwidth must be positive", "write 400Gb/s or 50GB/s")])
    return value


def _request(texts: dict[str, str | None], fields: dict[str, Any]) -> "CompareRequest":
    """Build the request; the faults of flags read here and of those checked below come in one error."""
    from parallel.compare import CompareRequest

    faults: list[Fault] = []
    parsed: dict[str, Any] = {}
    most = 0 if fields["cluster"] else fields["gpus"]  # a cluster file says how many there are
    readers = {"domains": lambda text: parse_domains(text, most), "nic": _parse_nic}
    for name, text in texts.items():
        if text is None:
            continue
        try:
            parsed[name] = readers[name](text)
        except SpecError as error:
            faults += error.faults
    try:
        request = CompareRequest(**fields, **parsed)
    except SpecError as error:
        faults += error.faults
    if faults:
        raise SpecError(faults)
    return request


def _check_place(report: Path) -> None:
    """Refuse a place that cannot hold the report before the search, not after it."""
    if report.is_dir():
        raise SpecError([Fault("--report", str(report), "is a folder", f"name a file: {report / 'compare.html'}")])
    blocked = next((parent for parent in report.parents if parent.exists() and not parent.is_dir()), None)
    if blocked is not None:
        raise SpecError([Fault("--report", str(report), f"{blocked} is not a folder", "choose another place")])
