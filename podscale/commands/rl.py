"""`podscale rl`: reinforcement learning, engines and trainer as one workload."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door


def rl(
    scenario: Annotated[
        str, typer.Argument(help="Scenario file (YAML): the model, the cluster, the answers, both pools.")
    ],
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Price reinforcement learning: answers written, trained on, weights sent round; in turns and side by side."""
    from parallel.rl.answer import rl as run

    door = Door(as_json, quiet)
    with door.progress("running the loop") as progress:
        document = run(scenario, progress)
    from podscale.rlwords import draw_rl

    door.answer(document, draw_rl)
