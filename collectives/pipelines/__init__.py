"""Pipeline schedules: orders of work, their exact execution, closed forms for sweeps, and the bubble told by cause.

`SCHEDULES[name].order(stages, microbatches, chunks)` says who does what, `execute(order, costs)` when; `bubble_s` prices a
schedule on columns, by the closed form where that is exact and by execution elsewhere.
"""

from collectives.pipelines.actions import Action
from collectives.pipelines.bench import bench
from collectives.pipelines.causes import CAUSES, causes
from collectives.pipelines.execute import execute, in_flight, step_s, transfers
from collectives.pipelines.links import hops_s
from collectives.pipelines.nouns import Costs, Order, Run
from collectives.pipelines.record import Schedule
from collectives.pipelines.rounds import interleaved_step_s
from collectives.pipelines.schedules import SCHEDULES, bubble_s
from collectives.pipelines.sweep import executed_bubble_s

__all__ = [
    "CAUSES",
    "SCHEDULES",
    "Action",
    "Costs",
    "Order",
    "Run",
    "Schedule",
    "bench",
    "bubble_s",
    "causes",
    "execute",
    "executed_bubble_s",
    "hops_s",
    "in_flight",
    "interleaved_step_s",
    "step_s",
    "transfers",
]
