"""Prefill on the boxes that are there, decode on new racks: requests per second of two pools, and of pools that do both.

The best split of every pool for every phase. "In turns" is the most that a pool could do alone: changing over is free, and
nobody minds that answers stand still while prompts are read. `podscale serve scenarios/old-with-new.yaml` prices the two
pools with the splits of the file, and the caches between them.
"""

from pathlib import Path

import podscale
from clusters.spec import ClusterSpec
from parallel.questions.outcome import best_of
from parallel.scenario import serve_points

SCENARIO = Path(__file__).parent / "scenarios" / "old-with-new.yaml"


def rates(cluster: ClusterSpec) -> tuple[float, float]:
    """Return the requests per second that a pool reads, and those that it writes."""
    prefill, decode = serve_points(SCENARIO).values()
    reads, writes = (best_of(point, cluster).tokens_per_s for point in (prefill, decode))
    return reads / prefill.serve.isl, writes / decode.serve.osl


def main() -> None:
    boxes, racks = (rates(point.cluster) for point in serve_points(SCENARIO).values())
    turns = []
    for name, (reads, writes) in (("256 H100", boxes), ("144 GB200", racks)):
        turns.append(1 / (1 / reads + 1 / writes))
        print(f"{name:<9} reads {reads:.0f}, or writes {writes:.0f}, or does both in turns: {turns[-1]:.0f} requests/s")
    both = min(boxes[0], racks[1])
    idle = 1 - both / racks[1]
    print(f"boxes read, racks write: {both:.0f} requests/s, and the racks stand idle {idle:.0%} of the time")
    print(f"racks read, boxes write: {min(racks[0], boxes[1]):.0f}")
    print(f"each pool in turns:      {sum(turns):.0f} at most, with answers that stand still during every prefill")
    served = podscale.serve(SCENARIO)
    print(f"the file's own splits:   {served['requests_per_s']:.0f}; the wire would carry ", end="")
    print(f"{served['rates']['kv_transfer']:,.0f} caches a second")


if __name__ == "__main__":
    main()
