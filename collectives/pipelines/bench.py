"""How fast orders are executed."""

import time

import numpy as np

from collectives.pipelines.execute import execute, step_s
from collectives.pipelines.nouns import Costs
from collectives.pipelines.schedules import SCHEDULES


def bench(name: str = "1f1b", stages: int = 16, microbatches: int = 64, sets: int = 10_000) -> dict[str, float]:
    """Return seconds for one order, for its first run (its graph built), for a run after, and for many sets of costs.

    Every set has its own forward, gradients and hop per virtual stage.

    >>> sorted(bench(stages=2, microbatches=2, sets=3))
    ['pipeline_first_s', 'pipeline_one_s', 'pipeline_order_s', 'pipeline_sets', 'pipeline_sets_s']
    """
    marks = [time.perf_counter()]

    def lap() -> float:
        marks.append(time.perf_counter())
        return marks[-1] - marks[-2]

    order = SCHEDULES[name].generate(stages, microbatches, SCHEDULES[name].chunks or 2)
    figures = {"pipeline_order_s": lap()}
    one = Costs(1.0, 1.0, 1.0, 0.1)
    execute(order, one)
    figures["pipeline_first_s"] = lap()
    execute(order, one)
    figures["pipeline_one_s"] = lap()
    random = np.random.default_rng(0)
    forward, inputs, weight = random.uniform(1.0, 2.0, (3, order.virtuals, sets))
    costs = Costs(forward, inputs, weight, hop_s=random.uniform(0.0, 0.5, (order.boundaries, sets)))
    lap()
    step_s(order, costs)
    return figures | {"pipeline_sets_s": lap(), "pipeline_sets": float(sets)}
