"""Which wiring, in ten lines: a sweep file read, every cell searched, the best of each set side by side.

`podscale sweep sweeps/domains.yaml` prints the same with the splits; `sweeps/which_wiring.yaml` is the large one: three
models, four wirings, twelve fabrics.
"""

from pathlib import Path

from parallel.sweeps.answer import sweep
from parallel.sweeps.specfile import read_sweep

SPEC = Path(__file__).parent / "sweeps" / "domains.yaml"


def main() -> None:
    answer = sweep(read_sweep(SPEC), executor="serial")
    print(f"{answer['points']:,} strategies, {answer['feasible']:,} feasible; tokens/s per GPU of the best")
    best = {
        (c["phase"], c["domain"], c["scale_out.oversubscription"]): c["tokens_per_s_per_gpu"] for c in answer["cells"]
    }
    for phase in ("train", "decode"):
        for thin in (1, 4):
            eight, rack = best[phase, 8, thin], best[phase, 72, thin]
            print(
                f"  {phase:<6} {thin}:1   domain 8 {eight:>6,.0f}   domain 72 {rack:>6,.0f}   {rack / eight:.2f} times"
            )


if __name__ == "__main__":
    main()
