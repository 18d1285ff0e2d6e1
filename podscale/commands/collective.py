"""`podscale collective`: one collective, priced on the wires it runs on."""

from typing import Annotated, Any

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError


def collective(
    op: Annotated[str, typer.Argument(metavar="OP", help="all_reduce, all_gather, reduce_scatter, all_to_all …")],
    *,
    cluster: Annotated[str, typer.Option(help="A name of `podscale list systems`, or a cluster file (YAML).")],
    ranks: Annotated[int, typer.Option(help="Ranks of the group, the first of the cluster.")],
    size: Annotated[str, typer.Option("--bytes", help="As nccl-tests counts it: 268435456, 256MiB, 1GB.")],
    algorithm: Annotated[str, typer.Option(help="auto, or one of `podscale list algorithms`.")] = "auto",
    fidelity: Annotated[
        str, typer.Option(help="closed, stepwise, dependency, flow or fifo: how finely it is played.")
    ] = "stepwise",
    stride: Annotated[int, typer.Option(help="Every how manieth accelerator is a rank.")] = 1,
    pool: Annotated[str, typer.Option(help="One pool of a cluster of unlike racks.")] = "",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Price one collective: time, terms, bus bandwidth, and the bound that no algorithm beats."""
    from clusters.build import build
    from clusters.collective import collective as price
    from clusters.spec import focus, load

    door = Door(as_json, quiet)
    size_bytes = _bytes(size)
    built = build(focus(load(cluster, wiring=True), pool))
    with door.progress("playing the rounds"):
        document: dict[str, Any] = price(built, op, ranks, size_bytes, algorithm, fidelity, stride)
    from podscale.tables import draw_collective

    door.answer(document, draw_collective)


def _bytes(text: str) -> float:
    """Read a size: a number of bytes, or with a unit."""
    from clusters.units import parse_quantity

    try:
        return float(parse_quantity(text, "bytes"))
    except ValueError as error:
        raise SpecError([Fault("--bytes", text, str(error).rstrip("."))]) from None
