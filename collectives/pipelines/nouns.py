"""What a pipeline is made of: an order of actions, what they cost, and what came of running them.

A model is cut into virtual stages 0, 1, 2 … in the order of its layers. Each sits on a device, which holds one virtual
stage in 1F1B, several (its chunks) in an interleaved schedule. A bidirectional schedule holds the whole model twice, once
per direction: its *pipes*.
"""

from dataclasses import dataclass
from functools import cached_property

from collectives.pipelines.actions import Action
from collectives.pipelines.plan import Plan, plan
from topo.columns import Column, ColumnLike


@dataclass(frozen=True)
class Order:
    """Who does what, in which order: a schedule for one (stages, micro-batches, chunks), without any times.

    Attributes
    ----------
    actions
        Per device, its actions in the order of execution.
    device
        Per pipe and virtual stage, the device that holds it.
    loop
        0, or the micro-batches in a decode loop: micro-batch k enters the first virtual stage after k - loop left the
        last one (over one more boundary, from the last virtual stage back to the first).

    Examples
    --------
    Two stages, one micro-batch:

    >>> order = Order(((Action("F", 0, 0), Action("B", 0, 0)), (Action("F", 1, 0), Action("B", 1, 0))), ((0, 1),))
    >>> order.stages, order.virtuals, order.chunks, order.boundaries
    (2, 2, 1, 1)
    """

    actions: tuple[tuple[Action, ...], ...]
    device: tuple[tuple[int, ...], ...]
    loop: int = 0

    @property
    def stages(self) -> int:
        """Devices in the pipeline, p."""
        return len(self.actions)

    @property
    def virtuals(self) -> int:
        """Virtual stages of one copy of the model."""
        return len(self.device[0])

    @property
    def chunks(self) -> int:
        """Virtual stages of one copy of the model per device, v."""
        return self.virtuals // self.stages

    @property
    def boundaries(self) -> int:
        """Rows of `Costs.hop_s`: per pipe, one from each virtual stage to the next (and back to the first in a loop)."""
        return len(self.device) * (self.virtuals - 1) + (self.loop > 0)

    @cached_property
    def plan(self) -> Plan:
        """The dependency graph as arrays, made once. Raises `SpecError` where the order is no schedule."""
        return plan(self.actions, self.device, self.loop)


@dataclass(frozen=True)
class Costs:
    """What the actions of an order cost, in seconds, for one strategy or for columns of them.

    The leading axis is the virtual stage (or the boundary, or the device), of its full length or 1; the columns follow. A
    scalar holds for all. Both pipes of a bidirectional schedule cost the same per virtual stage.

    Attributes
    ----------
    forward_s, input_s, weight_s
        Forward, gradient of the input, gradient of the weights of one micro-batch, per virtual stage. A whole backward
        takes input_s + weight_s.
    hop_s
        One transfer of activations, per boundary: pipe 0's 0|1, 1|2 …, then pipe 1's, then the loop's. A boundary
        between two virtual stages of the same device costs nothing, whatever stands here.
    hop_back_s
        The same for gradients; as `hop_s` where not given.
    asynchronous
        Transfers run beside the sender's next work. If not, the sender waits until they have arrived.
    gather_s, scatter_s
        ZeRO, per virtual stage: parameters gathered before its first use, gradients scattered after its last backward;
        with `each_run` before and after every uninterrupted run of actions on it (ZeRO-3). Both keep the device busy;
        a gather starts as soon as the device is free.
    each_run
        See above.
    optimizer_s
        Optimizer step, per device.
    synchronised
        The optimizer step waits for every device (gradient norm, check for infinities). If not, each device steps when its
        own work is done, and the steps follow each other in the longest device's time from its first to its last action.
    overlapped
        A paired forward and backward take this share of the sum of their times, and at least the longer one.

    Examples
    --------
    >>> Costs(1.0, 1.0, 1.0, hop_s=0.1).synchronised
    True
    """

    forward_s: ColumnLike
    input_s: ColumnLike = 0.0
    weight_s: ColumnLike = 0.0
    hop_s: ColumnLike = 0.0
    hop_back_s: ColumnLike | None = None
    asynchronous: bool = True
    gather_s: ColumnLike = 0.0
    scatter_s: ColumnLike = 0.0
    each_run: bool = False
    optimizer_s: ColumnLike = 0.0
    synchronised: bool = True
    overlapped: ColumnLike = 1.0


@dataclass(frozen=True)
class Run:
    """An executed order; arrays are (actions, *columns), (stages, *columns) or (*columns).

    Attributes
    ----------
    order
        What was run; `start_s` and `end_s` list its actions device by device.
    start_s, end_s
        When each action works, from 0 at the first action of the step.
    makespan_s
        From 0 to the end of the last device's work, scatters included, the optimizer not.
    step_s
        The step, optimizer included; the period of the steps where the optimizer is not synchronised.
    busy_s
        Per stage: forward, backward and optimizer.
    idle_s
        Per stage: step_s - busy_s. `causes` tells it by cause.
    in_flight
        Per stage, the most activations held at once, in micro-batches of a whole stage; shape (stages,).
    """

    order: Order
    start_s: Column
    end_s: Column
    makespan_s: Column
    step_s: Column
    busy_s: Column
    idle_s: Column
    in_flight: Column
