"""What a schedule is: an order's generator beside its closed forms, and where they hold."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from collectives.pipelines import domains
from collectives.pipelines.nouns import Order
from collectives.pipelines.orders.zero_bubble import Integers
from topo.columns import Column, ColumnLike
from topo.errors import Fault, SpecError

Generator = Callable[..., Order]
Fit = Callable[..., tuple[Integers, ...]]
Bubble = Callable[..., Column]
Held = Callable[[ColumnLike, ColumnLike, ColumnLike, ColumnLike], Column]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule: who does what when, its bubble, the activations it holds.

    Attributes
    ----------
    generate
        (stages, micro-batches, chunks, *what `fit` returns) → order; `order` checks and remembers.
    bubble_s
        (stages, microbatches, chunks, forward_s, backward_s, hop_s, weight_s=0.0) in seconds: the step beyond the work
        of one stage, from the closed form.
    in_flight
        (stages, microbatches, chunks, stage) in micro-batches of a whole stage.
    exact
        Where `bubble_s` equals the executed order; elsewhere `bubble_s(name, …)` executes it.
    objection
        What is wrong with (stages, micro-batches, chunks), or nothing.
    parameter_copies
        How often the pipeline holds the model.
    chunks
        Chunks per stage that the schedule fixes; 0 where the caller chooses.
    synchronised
        Whether `bubble_s` counts an optimizer step that waits for every stage (see `Costs`).
    training
        Whether it has backwards.
    fit
        For an order that follows its costs: (stages, microbatches, forward_s, input_s, weight_s, hop_s, kept) → the integers
        that `generate` takes besides. `kept` is the share of the activations that weight gradients need.
    note, source
        What it is, and where it comes from.

    Examples
    --------
    >>> from collectives.pipelines import SCHEDULES
    >>> SCHEDULES["1f1b"].note
    'one forward, one backward; fewest activations'
    """

    generate: Generator
    bubble_s: Bubble
    in_flight: Held
    note: str
    source: str
    exact: domains.Exact = domains.everywhere
    objection: domains.Objection = domains.any_numbers
    parameter_copies: int = 1
    chunks: int = 1
    synchronised: bool = True
    training: bool = True
    fit: Fit | None = None

    @property
    def closed(self) -> bool:
        """Whether the closed form is exact whatever the numbers: then nothing is ever executed.

        >>> from collectives.pipelines import SCHEDULES
        >>> SCHEDULES["1f1b"].closed, SCHEDULES["zb-1p"].closed
        (True, False)
        """
        return self.exact is domains.everywhere

    def order(self, stages: int, microbatches: int, chunks: int = 1, *fitted: int) -> Order:
        """Return the order, the same one each time; raise `SpecError` where the schedule has none for these numbers.

        `fitted` is what `fit` returned; without it the order is that of F = I = W and free hops.

        >>> from collectives.pipelines import SCHEDULES
        >>> SCHEDULES["zb-v"].order(4, 8).chunks
        2
        """
        if self.fit and not fitted:
            fitted = tuple(int(n) for n in self.fit(stages, microbatches, 1.0, 1.0, 1.0, 0.0))
        return _order(self.generate, self.objection, stages, microbatches, self.chunks or chunks, *fitted)


@lru_cache(maxsize=64)
def _order(
    generate: Generator, objection: domains.Objection, stages: int, microbatches: int, chunks: int, *fitted: int
) -> Order:
    """Return a checked order; raise `SpecError` with every fault."""
    named = {"stages": stages, "microbatches": microbatches, "chunks": chunks}
    faults = [Fault(name, value, "must be 1 or more", "write 1") for name, value in named.items() if value < 1]
    if not faults and (wrong := objection(stages, microbatches, chunks)):
        faults = [Fault("stages, microbatches, chunks", tuple(named.values()), wrong, "choose other numbers")]
    if faults:
        raise SpecError(faults)
    return generate(stages, microbatches, chunks, *fitted)
