"""Train over two sites: a 16-stage pipeline with 10 ms between its halves, under three schedules.

Every stage works 10 ms forward and 20 ms backward per micro-batch; the link into stage 8 takes 10 ms, all others 10 us.
The schedules are executed exactly; their waits are told by cause, as means over the stages, and the advice follows from
them. With the name of a file this draws them: the committed `pipeline_wan.svg`. The same on the command line:
`podscale pipeline --stages 16 --microbatches 64 --forward 10ms --hop 10us --slow-hop 8:10ms --schedule all`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from parallel.training.layouts import describe
from parallel.training.pipeline import Pipeline, Played, advice, play, row
from parallel.training.splits import place
from podscale.gantt import Panel, gantt_svg

LINKS = tuple(10e-3 if stage == 8 else 10e-6 for stage in range(1, 16))
PIPE = Pipeline(stages=16, microbatches=64, forward_s=10e-3, backward_s=20e-3, chunks=2, links_s=LINKS)
CAUSES = ("fill", "drain", "stall", "hop latency")


def runs() -> list[Played]:
    """Execute the three schedules."""
    return [play(PIPE, schedule) for schedule in ("1f1b", "eager-1f1b", "interleaved")]


def drawing() -> str:
    """Draw them on one time scale."""
    panels = [Panel(each.schedule, each.run, each.costs, each.causes, LINKS) for each in runs()]
    return gantt_svg(panels, "16 stages in two sites", "forward 10 ms, backward 20 ms; 10 ms between stages 7 and 8")


def main() -> None:
    print("16 stages in two sites, 64 micro-batches, 10 ms between the sites (seconds)")
    print(f"  {'schedule':<12}{'step':>7}{'work':>7}" + "".join(f"{cause:>13}" for cause in CAUSES) + f"{'holds':>8}")
    rows = [row(each) for each in runs()]
    for told in rows:
        waits = "".join(f"{told['terms'][cause]:>13.3f}" for cause in CAUSES)
        step, work = told["step_time_s"], told["terms"]["work"]
        print(f"  {told['schedule']:<12}{step:>7.3f}{work:>7.3f}{waits}{told['peak_in_flight']:>8g}")
    for line in advice(rows):
        print(f"- {line}")

    print("More chunks, shorter chunks: a hop of 10 ms outlasts them, and is waited for again")
    for chunks in (2, 4, 8):
        told = row(play(replace(PIPE, chunks=chunks), "interleaved"))
        print(f"  {chunks} chunks: step {told['step_time_s']:.3f}, hop latency {told['terms']['hop latency']:.3f}")

    print("61 layers (3 dense ones at 0.4 of the others), head and loss worth 1.5 layers")
    for stages in (8, 16):
        print(f"  {describe(place((0,) * 3 + (1,) * 58, [0.4, 1.0], stages, last=1.5))}")

    for name in sys.argv[1:]:
        Path(name).write_text(drawing(), encoding="utf-8")


if __name__ == "__main__":
    main()
