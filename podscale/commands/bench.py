"""`podscale bench`: how fast podscale itself is, on this machine."""

from podscale.commands.options import AsJson, Quiet
from podscale.door import Door


def bench(as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Measure podscale itself: strategies priced per second and core, graphs built, collectives priced."""
    from parallel.bench import bench as run

    door = Door(as_json, quiet)
    with door.progress("measuring"):
        document = run()
    from podscale.tables import draw_bench

    door.answer(document, draw_bench)
