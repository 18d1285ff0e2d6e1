"""Many NICs or a large domain: where domains of 8 with four NICs each stop beating domains of 72 as the tree gets thinner.

`podscale break-even SCENARIO --a … --b … --over oversubscription=1..16` is the same, with a drawing.
"""

from clusters.spec import load, with_
from parallel.explain.point import Point
from parallel.io import read_model
from parallel.questions.breakeven import axis, break_even
from parallel.workload import ServeWorkload


def main() -> None:
    racks = with_(load("gb200-nvl72"), accelerators=288)
    point = Point("decode", read_model("deepseek-v3"), racks, serve=ServeWorkload(precision="fp8"))
    boxes = {"domain": 8, "scale_out.nics_per_accelerator": 4}
    document = break_even(point, {"domain": 72}, boxes, axis("oversubscription=1..16"), grid=5)
    for found in document["curves"][0]["break_evens"]:
        print(f"{found['before']} is ahead up to an oversubscription of {found['value']:.1f}, then {found['after']}")
    print(f"one way: {document['curves'][0]['monotone']}")


if __name__ == "__main__":
    main()
