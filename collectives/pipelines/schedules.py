"""The table of schedules, and their price: by closed form where that is exact, by execution elsewhere."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from collectives.pipelines import closed, closed_split, domains, held
from collectives.pipelines.execute import in_flight
from collectives.pipelines.orders import both_ways, folded, inference, looped, plain, zero_bubble
from collectives.pipelines.record import Bubble, Fit, Held, Schedule
from collectives.pipelines.sweep import executed_bubble_s
from topo.columns import Column, ColumnLike, column


def bubble_s(
    name: str,
    stages: ColumnLike,
    microbatches: ColumnLike,
    chunks: ColumnLike,
    forward_s: ColumnLike,
    backward_s: ColumnLike,
    hop_s: ColumnLike,
    weight_s: ColumnLike = 0.0,
    kept: ColumnLike = 1.0,
) -> tuple[Column, domains.Bools]:
    """Return the exact bubble of a schedule, and whether it was simulated: the closed form where it holds, else executed.

    Raises
    ------
    SpecError
        A row that needs execution has numbers the schedule cannot run.

    Examples
    --------
    A hop shorter and one longer than a chunk:

    >>> bubble, simulated = bubble_s("interleaved", 4, 8, 2, 1.0, 2.0, [0.5, 2.0])
    >>> print(bubble, simulated)
    [11.5 46. ] [False  True]
    """
    schedule = SCHEDULES[name]
    given = (stages, microbatches, chunks, forward_s, backward_s, hop_s, weight_s, kept)
    rows = np.broadcast_arrays(*map(column, given))
    simulated = np.asarray(~schedule.exact(*rows[:-1]))
    out = np.array(schedule.bubble_s(*rows[:-1])) if not simulated.all() else np.empty(rows[0].shape)
    if simulated.any():
        out[simulated] = executed_bubble_s(schedule, *(row[simulated] for row in rows))
    return column(out), simulated


def _executed(name: str) -> Bubble:
    """Return a `bubble_s` that executes: for a schedule without a closed form."""

    def run(*given: ColumnLike, **named: ColumnLike) -> Column:
        return executed_bubble_s(SCHEDULES[name], *given, **named)

    return run


def _counted(name: str) -> Held:
    """Return an `in_flight` that counts in the order: for a schedule without a closed form."""

    def count(stages: ColumnLike, microbatches: ColumnLike, chunks: ColumnLike, stage: ColumnLike) -> Column:
        rows = np.broadcast_arrays(*map(column, (stages, microbatches, chunks, stage)))
        flat = np.stack([row.reshape(-1) for row in rows]).astype(int)
        counts = [in_flight(SCHEDULES[name].order(p, m, v))[i] for p, m, v, i in flat.T.tolist()]
        return column(counts).reshape(rows[0].shape)

    return count


def _within(copies: int) -> Fit:
    """Return the `fit` of a zero-bubble order within the activations of so many times p micro-batches."""

    def fit(
        stages: ColumnLike,
        microbatches: ColumnLike,
        forward_s: ColumnLike,
        input_s: ColumnLike,
        weight_s: ColumnLike,
        hop_s: ColumnLike,
        kept: ColumnLike = 1.0,
    ) -> tuple[zero_bubble.Integers, ...]:
        held = copies * column(stages)
        return zero_bubble.fitted(stages, microbatches, forward_s, input_s, weight_s, hop_s, held, kept)

    return fit


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "gpipe": Schedule(
            plain.gpipe,
            closed.gpipe_bubble_s,
            held.gpipe_in_flight,
            "all forwards, then all backwards",
            "arXiv 1811.06965",
        ),
        "1f1b": Schedule(
            plain.one_f_one_b,
            closed.one_f_one_b_bubble_s,
            held.one_f_one_b_in_flight,
            "one forward, one backward; fewest activations",
            "arXiv 2104.04473",
        ),
        "eager-1f1b": Schedule(
            plain.eager_one_f_one_b,
            closed.eager_bubble_s,
            held.eager_in_flight,
            "1F1B with twice the forwards ahead; slow hops are paid once",
            "arXiv 2211.05322",
        ),
        "interleaved": Schedule(
            looped.interleaved,
            closed.interleaved_bubble_s,
            held.interleaved_in_flight,
            "1F1B over several chunks per stage; a smaller bubble, more messages",
            "arXiv 2104.04473",
            exact=domains.short_hops,
            objection=domains.whole_groups,
            chunks=0,
        ),
        "breadth-first": Schedule(
            looped.breadth_first,
            closed.breadth_first_bubble_s,
            held.gpipe_in_flight,
            "every micro-batch through one chunk, then the next; gathers parameters once per chunk",
            "arXiv 2211.05953",
            chunks=0,
        ),
        "zb-h1": Schedule(
            zero_bubble.zb_h1,
            closed_split.zb_h1_bubble_s,
            held.zb_h1_in_flight,
            "1F1B whose weight gradients fill the bubble; 1F1B's activations at every stage",
            "arXiv 2401.10241",
            exact=domains.past_stages,
            synchronised=False,
        ),
        "zb-h2": Schedule(
            zero_bubble.zb_h2,
            closed_split.zb_h2_bubble_s,
            held.zb_h2_in_flight,
            "no bubble where F = I = W and the optimizer waits for nobody; twice the activations",
            "arXiv 2401.10241",
            exact=domains.past_double,
            synchronised=False,
        ),
        "zb-1p": Schedule(
            zero_bubble.zero_bubble,
            _executed("zb-1p"),
            held.zb_h1_in_flight,
            "zero bubble fitted to the costs within 1F1B's activations",
            "arXiv 2401.10241",
            exact=domains.nowhere,
            synchronised=False,
            fit=_within(1),
        ),
        "zb-2p": Schedule(
            zero_bubble.zero_bubble,
            _executed("zb-2p"),
            held.zb_2p_in_flight,
            "zero bubble fitted to the costs within twice 1F1B's activations",
            "arXiv 2401.10241",
            exact=domains.nowhere,
            synchronised=False,
            fit=_within(2),
        ),
        "zb-v": Schedule(
            folded.zb_v,
            closed_split.zb_v_bubble_s,
            held.zb_h1_in_flight,
            "ZB-H2's bubble with ZB-H1's activations, over a V of two chunks per stage",
            "arXiv 2401.10241",
            exact=domains.level_work,
            chunks=2,
            synchronised=False,
        ),
        "v-half": Schedule(
            folded.v_half,
            _executed("v-half"),
            _counted("v-half"),
            "V of two chunks with about half of 1F1B's activations",
            "arXiv 2405.15362",
            exact=domains.nowhere,
            chunks=2,
            synchronised=False,
        ),
        "v-min": Schedule(
            folded.v_min,
            _executed("v-min"),
            _counted("v-min"),
            "V of two chunks with about a third of 1F1B's activations",
            "arXiv 2405.15362",
            exact=domains.nowhere,
            chunks=2,
            synchronised=False,
        ),
        "dualpipe": Schedule(
            both_ways.dualpipe,
            closed_split.dualpipe_bubble_s,
            held.dualpipe_in_flight,
            "both directions at once, forward overlapped with backward; parameters twice",
            "deepseek-ai/DualPipe",
            exact=domains.dualpipe_hops,
            objection=domains.paired_ranks,
            parameter_copies=2,
        ),
        "dualpipe-v": Schedule(
            both_ways.dualpipe_v,
            closed_split.dualpipe_v_bubble_s,
            held.dualpipe_v_in_flight,
            "DualPipe cut in half: a V of two chunks per stage, parameters once",
            "deepseek-ai/DualPipe",
            exact=domains.dualpipe_v_hops,
            objection=domains.two_per_stage,
            chunks=2,
        ),
        "chimera": Schedule(
            both_ways.chimera,
            closed_split.chimera_bubble_s,
            held.chimera_in_flight,
            "two 1F1B pipelines in opposite directions; parameters twice",
            "arXiv 2107.06925",
            objection=domains.whole_units,
            parameter_copies=2,
        ),
        "prefill": Schedule(
            inference.prefill,
            closed.prefill_bubble_s,
            held.nothing_held,
            "a stream of forwards",
            "by longest path",
            training=False,
        ),
        "decode": Schedule(
            inference.decode,
            closed.decode_bubble_s,
            held.nothing_held,
            "a loop of forwards: every token goes round; the bubble is per token",
            "by longest path",
            training=False,
        ),
    }
)
"""Schedule → order, bubble and activations. Tests, documents and `podscale list schedules` iterate over it."""
