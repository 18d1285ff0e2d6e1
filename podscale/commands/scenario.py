"""`podscale train` and `podscale serve`: one deployment, priced in full."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door

Scenario = Annotated[str, typer.Argument(help="Scenario file (YAML): the model, the cluster, the split.")]


def train(scenario: Scenario, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Price one training run: step time, its terms, memory per GPU."""
    from parallel.scenario import train as run

    door = Door(as_json, quiet)
    with door.progress("pricing the step"):
        document = run(scenario)
    from podscale.tables import draw_train

    door.answer(document, draw_train)


def serve(
    scenario: Scenario,
    limit: Annotated[
        str | None, typer.Option(help="Price an ideal instead: `communication` makes everything but talking free.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Price one serving deployment: TTFT, TPOT, their terms, memory per GPU; or prefill and decode on two pools."""
    from parallel.scenario import serve as run

    door = Door(as_json, quiet)
    with door.progress("pricing the deployment"):
        document = run(scenario, limit=limit)
    from podscale.tables import draw_serve

    door.answer(document, draw_serve)
