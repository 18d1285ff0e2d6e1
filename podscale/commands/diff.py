"""`podscale diff`: what changed between two results, and why."""

from typing import Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door

Before = Annotated[str, typer.Argument(metavar="A", help="What compare, train, serve or sweep wrote.")]
After = Annotated[str, typer.Argument(metavar="B", help="The same command's answer to something else.")]


def diff(a: Before, b: After, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Compare two results: what was asked differently, which rates moved, and which terms account for it."""
    from parallel.io import read_json
    from parallel.questions.difference import difference

    door = Door(as_json, quiet)
    document = difference(read_json(a), read_json(b), (a, b))
    from podscale.questionwords import print_difference

    door.answer(document, print_difference)
