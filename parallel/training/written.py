"""A placement of layers written by hand (`TrainWorkload.layout`): its slowest stage, what stages hold, its schedule executed.

A layout string says what each virtual stage holds; how many stages these go round is the strategy's. So one string
stands for a layout under every pp that divides its virtual stages.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from collectives.pipelines import interleaved_step_s
from parallel.memory import fullest_stage
from parallel.models import Model, layer_order
from parallel.training.layouts import Layout, chunk_times, kind_counts, parse_layout, stage_times
from parallel.training.uneven import FORWARD, ROUNDS, between_rounds
from parallel.workload import TrainWorkload
from topo.columns import Column, column
from topo.errors import SpecError

Rows = npt.NDArray[np.intp]


@lru_cache(maxsize=256)
def written(text: str, model: Model, stages: int, chunks: int | None = None, mtp: bool = True) -> Layout:
    """Return the layout that a string writes for so many stages of a model.

    Raises
    ------
    SpecError
        It is not one of this model on these stages; see `parallel.training.layouts.parse_layout`.
    """
    modules = model.mtp_layers if mtp else None
    return parse_layout(
        text, stages, layers=len(layer_order(model)), mtp=modules, chunks=chunks, field="strategy.layout"
    )


def fits(text: str, model: Model, stages: Column, chunks: Column, mtp: bool = True) -> npt.NDArray[np.bool_]:
    """Whether a layout string is one of the model under each pair of stages and chunks.

    >>> from parallel.io import read_model
    >>> fits("E(t*8|)*3t*8L", read_model("llama-3.1-8b"), np.array([2.0, 4.0, 3.0]), np.array([2.0, 1.0, 1.0])).tolist()
    [True, True, False]
    """

    def fit(pp: float, vpp: float) -> bool:
        try:
            written(text, model, int(pp), int(vpp), mtp)
        except SpecError:
            return False
        return True

    pairs = zip(*(side.tolist() for side in np.broadcast_arrays(stages, chunks)), strict=True)
    return np.array([fit(*pair) for pair in pairs], dtype=bool)


def _laid(text: str, model: Model, stages: Column) -> Iterator[tuple[Rows, Layout]]:
    """Yield the rows of every number of stages, and the layout there."""
    for pp in np.unique(stages):
        yield np.flatnonzero(stages == pp), written(text, model, int(pp), mtp=False)


def placed_layers(model: Model, work: TrainWorkload, stages: Column, place: str) -> list[Column]:
    """Layers of each kind on the first, the fullest inner or the last stage: as written, or as `fullest_stage` fills them.

    >>> from parallel.io import read_model
    >>> work = TrainWorkload(layout="E(t*9|)*3t*5L")
    >>> [placed_layers(read_model("llama-3.1-8b"), work, np.array([4.0]), place)[0].tolist() for place in ("inner", "last")]
    [[9.0], [5.0]]
    """
    if work.layout is None:
        return fullest_stage(model, stages, place)
    out = np.zeros((len(model.layers), len(stages)))
    for rows, layout in _laid(work.layout, model, stages):
        held = kind_counts(layout, layer_order(model))
        held = held.reshape(layout.chunks, layout.stages, -1).sum(axis=0)
        inner = held[1:-1] if layout.stages > 2 else held
        here = {"first": held[0], "inner": inner[inner.sum(axis=1).argmax()], "last": held[-1]}[place]
        out[: held.shape[1], rows] = here[:, None]
    return list(out)


def slowest_s(
    text: str, model: Model, stages: Column, layers: Sequence[Column], last: Column, module: Column
) -> Column:
    """Return the slowest stage's seconds for one micro-batch.

    Parameters
    ----------
    layers : seconds of a layer of each kind
    last, module : seconds of head and loss, and of one module for multi-token prediction without its head
    """
    out = np.zeros(len(stages))
    for rows, layout in _laid(text, model, stages):
        each = [np.broadcast_to(seconds, stages.shape)[rows] for seconds in (*layers, last, module)]
        times = stage_times(layout, layer_order(model), each[:-2], last=each[-2], mtp=each[-1])
        out[rows] = times.max(axis=0)
    return out


def stretched_s(
    text: str,
    model: Model,
    stages: Column,
    layers: Sequence[Column],
    last: Column,
    module: Column,
    microbatches: Column,
) -> Column:
    """Return the seconds that interleaving takes beyond its closed form, which knows chunks that are all alike.

    Rounds of p micro-batches are executed as in `parallel.training.uneven`; nought for one chunk per stage. Parameters as
    `slowest_s`.
    """
    out = np.zeros(len(stages))
    for rows, layout in _laid(text, model, stages):
        if layout.chunks < 2 or layout.stages < 2:
            continue
        p, v = layout.stages, layout.chunks
        each = [np.broadcast_to(seconds, stages.shape)[rows] for seconds in (*layers, last, module)]
        times = chunk_times(layout, layer_order(model), each[:-2], last=each[-2], mtp=each[-1])
        slow = times.reshape(v, p, -1).sum(axis=0).max(axis=0)
        steps = np.stack([interleaved_step_s(p, n * p, v, times * FORWARD, times * (1.0 - FORWARD)) for n in ROUNDS])
        closed = p * np.outer(ROUNDS, slow) + (times.sum(axis=0) - slow) / v
        out[rows] = between_rounds(column(microbatches)[rows] / p, steps - closed)
    return out
