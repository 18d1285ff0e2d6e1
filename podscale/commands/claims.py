"""`podscale claims` and `podscale claim`: the claims of the sources, run, changed and challenged."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door
from topo.errors import Fault, SpecError

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Another input: hbm_bandwidth=8TB/s. Can be repeated."),
]


def claims(given: Set = None, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Run every claim: what the source says, the lecture's arithmetic, the whole model, the verdict."""
    from parallel.claims import claims as run

    door = Door(as_json, quiet)
    with door.progress("running the claims") as progress:
        document = run(_given(given), progress)
    from podscale.claimwords import draw_claims

    door.answer(document, draw_claims)


def claim(
    name: Annotated[str, typer.Argument(metavar="ID", help="A name of `podscale claims`.")],
    *,
    given: Set = None,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE", help="Draw it: a file that ends in .svg or .html.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run one claim: both answers on every case, its inputs, and how far each moves the answers."""
    from parallel.claims import claim as run

    door = Door(as_json, quiet)
    with door.progress("running the claim"):
        document = run(name, _given(given), drawn=plot is not None)
    if plot is not None:
        from podscale.claimplots import write

        write(document, plot)
    from podscale.claimwords import draw_claim

    door.answer(document, draw_claim)


def _given(written: list[str] | None) -> dict[str, str]:
    """Read ``NAME=VALUE``.

    >>> _given(["isl=1", "hbm-bandwidth=8TB/s"])
    {'isl': '1', 'hbm_bandwidth': '8TB/s'}
    """
    out: dict[str, str] = {}
    faults = []
    for text in written or ():
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            faults.append(Fault("--set", text, "sets nothing", "write NAME=VALUE, such as isl=8192"))
        out[name.strip().lower().replace("-", "_")] = value.strip()
    if faults:
        raise SpecError(faults)
    return out
