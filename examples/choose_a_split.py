"""Find the best split of Llama 3.1 70B over 64 H100 for decode, and see where its time goes.

The sweep prices every strategy of a space (tensor and pipeline parallelism, batch), throws out what does not fit in
memory or keeps a user waiting too long, and keeps the Pareto front and the best. Figures are rounded to what the model
can promise; `podscale compare` prints the same with intervals and a report.
"""

import numpy as np

from clusters.build import build
from clusters.spec import load, with_
from parallel.executors import run
from parallel.io import read_model
from parallel.results import row_of
from parallel.sweeps.found import Found
from parallel.sweeps.spaces import usual_serve
from parallel.sweeps.task import Bound, Task
from parallel.workload import ServeWorkload, TrainWorkload

LIMIT_S = 0.03  # a reader keeps up with 33 tokens per second


def search() -> tuple[Task, Found]:
    """Sweep the decode strategies of one model on 8 boxes of 8 accelerators."""
    cluster = with_(load("hgx-h100"), accelerators=64)
    model = read_model("llama-3.1-70b")
    asked = ServeWorkload(isl=2048, osl=512, tpot_s=LIMIT_S, precision="fp8")
    task = Task("decode", model, cluster, TrainWorkload(), asked, usual_serve(build(cluster), model, "decode"))
    return task, run(task, executor="serial")


def main() -> None:
    task, found = search()
    print(f"{found.points} strategies, {found.feasible} feasible, {len(found.front)} on the Pareto front")
    for reason, count in found.rejected.items():
        print(f"  {count:>4} refused: {reason}")

    bound = Bound.of(task)
    columns = bound.at(np.array([found.best]))
    row = row_of(bound, columns, bound.price(columns), 0)
    chosen = row["strategy"]
    print(f"best: tp {chosen['tp']}, pp {chosen['pp']}, {chosen['batch']} sequences per accelerator")
    print(f"  {row['tpot_s'] * 1e3:.0f} ms per token, {row['memory_share']:.0%} of the memory")
    for name, seconds in sorted(row["terms"].items(), key=lambda item: -item[1]):
        print(f"  {name:<12} {seconds / row['tpot_s']:>4.0%}")


if __name__ == "__main__":
    main()
