"""Rules that split a model over pipeline stages: evenly as Megatron-Core does, or balanced by cost as authors do by hand.

`place` holds the rule that sweeps price (`parallel.training.stages.slowest_stage`): stages of one chunk are balanced; interleaved
ones are even where the layers divide over all chunks, and balanced where not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parallel.training.layouts import Layout, of_sizes
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, InfeasibleError, SpecError

_SLACK = 1.0 + 1e-12  # sums of equal costs must not miss their own capacity by rounding

Cuts = npt.NDArray[np.int64]


def even_layout(
    layers: int,
    stages: int,
    chunks: int = 1,
    *,
    mtp: int = 0,
    first_layers: int | None = None,
    last_layers: int | None = None,
    count_embedding: bool = False,
    count_loss: bool = False,
) -> Layout:
    """Return Megatron-Core's split without a layout string: as many layers in every chunk.

    Parameters
    ----------
    mtp : modules for multi-token prediction, which sit before the loss
    first_layers, last_layers : layers of the whole first and last stage, the others sharing the rest
        (`num_layers_in_first_pipeline_stage`, ``--decoder-first-pipeline-num-layers``, and the same with last)
    count_embedding, count_loss : whether these count as a layer
        (`account_for_embedding_in_pipeline_split`, `account_for_loss_in_pipeline_split`)

    Raises
    ------
    SpecError
        If something does not divide, or both pairs of options are given.
        Source: Megatron-LM, megatron/core/transformer/transformer_block.py, get_num_layers_to_build.

    Examples
    --------
    >>> print(even_layout(7, 2, 2, count_loss=True))
    Ett|tt|tt|tL
    >>> print(even_layout(61, 16, last_layers=1, mtp=1))
    Et*4|(t*4|)*14tmL
    """
    counted = layers + count_embedding + count_loss
    fixed = {index: n for index, n in ((0, first_layers), (stages - 1, last_layers)) if n is not None}
    rest, among = counted - sum(fixed.values()), stages - len(fixed)
    share = rest // among if among else 0
    loads = [fixed.get(index, share) for index in range(stages)]
    each = [load // chunks for _ in range(chunks) for load in loads]
    each[0] -= count_embedding
    each[-1] -= count_loss
    wrong = {
        "count_embedding and count_loss contradict given first or last stages": fixed and counted > layers,
        f"{rest} layers do not divide over {among} stages": share * among != rest,
        f"stages of {loads} layers do not divide into {chunks} chunks": any(load % chunks for load in loads),
        "a chunk would hold fewer layers than none": min(each) < 0,
    }
    remedy = "set the first or last stage, count the embedding or the loss, balance by cost, or write a layout string"
    if any(wrong.values()):
        raise SpecError([Fault("layers", layers, problem, remedy) for problem, is_so in wrong.items() if is_so])
    return of_sizes(each, stages, mtp)


def place(
    order: Sequence[int],
    costs: Sequence[float],
    stages: int,
    chunks: int = 1,
    *,
    first: float = 0.0,
    last: float = 0.0,
    mtp: int = 0,
    sizes: Sequence[ColumnLike] = (),
    limit: ColumnLike = np.inf,
) -> Layout:
    """Place the layers of one model by the rule of the sweeps, and say where each sits.

    Parameters
    ----------
    order : the kind of each layer, from first to last (`parallel.shapes.layer_order`)
    costs : seconds per layer of each kind
    first, last : seconds of the embedding; of head, loss and the `mtp` modules before them
    sizes : bytes that a layer of each kind takes on a stage, the same on all or by stage (activations in flight differ)
    limit : bytes that a stage may hold, the same on all or by stage

    Raises
    ------
    InfeasibleError
        If no split keeps the limit.

    Examples
    --------
    >>> print(place((0,) * 6, [1.0], 2, last=2.0), place((0,) * 8, [1.0], 2, 2, last=2.0))
    Et*4|ttL Ett|tt|tt|ttL
    """
    if chunks > 1 and len(order) % (stages * chunks) == 0:
        even = even_layout(len(order), stages, chunks, mtp=mtp)
        task = _task(order, costs, stages, chunks, first, last, sizes, limit)
        if task.excess(np.cumsum([0, *(chunk.layers for chunk in even.virtual)])) <= 0:
            return even
    return balanced_layout(order, costs, stages, chunks, first=first, last=last, mtp=mtp, sizes=sizes, limit=limit)


def balanced_layout(
    order: Sequence[int],
    costs: Sequence[float],
    stages: int,
    chunks: int = 1,
    *,
    first: float = 0.0,
    last: float = 0.0,
    mtp: int = 0,
    sizes: Sequence[ColumnLike] = (),
    limit: ColumnLike = np.inf,
) -> Layout:
    """Return the split whose slowest stage is fastest and, among these, whose stages are the most alike.

    Exact for one chunk per stage. Several chunks start from the most even split into chunks, and layers then move one at
    a time from the slowest stage while that helps. Arguments and errors as `place`.

    Examples
    --------
    >>> print(balanced_layout((0,) * 61, [1.0], 8, last=1.0), balanced_layout((0,) * 7, [1.0], 2, 2))
    Et*7|t*7|(t*8|)*5t*7L Et|tt|tt|ttL
    """
    task = _task(order, costs, stages, chunks, first, last, sizes, limit)
    cuts = _spread(task, _balanced(task)) if chunks > 1 else _balanced(task)
    if task.excess(cuts) > 0:
        by = f"the leanest split exceeds it by {max(_leanest_bytes(task), 1.0) / 1e9:.3g} GB"
        raise InfeasibleError(
            "layer placement", "the memory of a stage", by, "Take more stages, or hold less per layer"
        )
    return of_sizes(np.diff(cuts).tolist(), stages, mtp)


@dataclass(frozen=True)
class _Task:
    """What a split is judged by; a split is the cuts 0 … layers, one more than there are virtual stages.

    Attributes
    ----------
    seconds : of the first n layers, (layers + 1)
    bytes : of the first n layers on each stage, (stages, layers + 1)
    ends : seconds of embedding and head on each virtual stage
    limit : bytes that each stage may hold
    """

    seconds: Column
    bytes: Column
    ends: Column
    limit: Column

    @property
    def stages(self) -> int:
        """Pipeline stages."""
        return len(self.limit)

    def loads(self, cuts: Cuts) -> Column:
        """Return the seconds of each virtual stage, (…, virtual stages)."""
        at = self.seconds[cuts]
        return np.asarray(at[..., 1:] - at[..., :-1] + self.ends)

    def by_stage(self, virtual: Column) -> Column:
        """Add virtual stages up by stage, (…, stages)."""
        return np.asarray(virtual.reshape(*virtual.shape[:-1], -1, self.stages).sum(axis=-2))

    def excess(self, cuts: Cuts) -> Column:
        """Return the bytes beyond the limit, all stages together."""
        stage = np.arange(cuts.shape[-1] - 1) % self.stages
        held = self.by_stage(self.bytes[stage, cuts[..., 1:]] - self.bytes[stage, cuts[..., :-1]])
        return np.asarray(np.maximum(held - self.limit * _SLACK, 0.0).sum(axis=-1))


def _task(
    order: Sequence[int],
    costs: Sequence[float],
    stages: int,
    chunks: int,
    first: float,
    last: float,
    sizes: Sequence[ColumnLike],
    limit: ColumnLike,
) -> _Task:
    """Add up seconds and bytes along the layers."""
    kinds = np.asarray(order, dtype=np.int64)
    each = np.stack([np.broadcast_to(column(size), stages) for size in sizes or [0.0] * len(costs)], axis=-1)
    ends = np.zeros(stages * chunks)
    ends[0] += first
    ends[-1] += last
    seconds = np.concatenate([[0.0], np.cumsum(column(costs)[kinds])])
    held = np.concatenate([np.zeros((stages, 1)), np.cumsum(each[:, kinds], axis=1)], axis=1)
    return _Task(seconds, held, ends, np.broadcast_to(column(limit), stages))


def _balanced(task: _Task) -> Cuts:
    """Return the cuts whose heaviest virtual stage is lightest and, among these, whose stages are the most alike.

    Two dynamic programmes over (virtual stages, layers placed): the first finds the least possible maximum, the second
    the least sum of squares under it. Of equal splits it takes the one with fewer layers on the early stages, which hold
    the most activations. The limit of one chunk holds for one-chunk stages only.
    """
    ahead = np.subtract.outer(task.seconds, task.seconds)  # seconds of the layers from the column's to the row's
    alone = len(task.ends) == task.stages

    def weights(virtual: int) -> Column:
        over = alone & (_stage_bytes(task, virtual % task.stages) > task.limit[virtual % task.stages] * _SLACK)
        return np.where(over, np.inf, ahead + task.ends[virtual])

    most, _ = _best_cuts(len(task.ends), weights, np.maximum)

    def squares(virtual: int) -> Column:
        here = weights(virtual)
        return np.where(here <= most * _SLACK, here**2, np.inf)

    return _best_cuts(len(task.ends), squares, np.add)[1]


def _stage_bytes(task: _Task, stage: int) -> Column:
    """Return the bytes on a stage of the layers from the column's to the row's."""
    return np.asarray(np.subtract.outer(task.bytes[stage], task.bytes[stage]))


def _best_cuts(
    parts: int, weights: Callable[[int], Column], add: Callable[[Column, Column], Column]
) -> tuple[float, Cuts]:
    """Return the least sum (or maximum, by `add`) of the weights of all parts, and its cuts.

    ``weights(part)[b, a]`` is the weight of the layers a … b - 1 on that part.
    """
    best, froms = np.array([0.0]), []
    for part in range(parts):
        each = weights(part)
        best = np.concatenate([best, np.full(len(each) - len(best), np.inf)])
        through = np.where(np.tri(len(each), dtype=bool), add(best, each), np.inf)
        froms.append(through.argmin(axis=1))
        best = through.min(axis=1)
    cuts = [len(best) - 1]
    for back in reversed(froms):
        cuts.append(int(back[cuts[-1]]))
    return float(best[-1]), np.array(cuts[::-1])


def _leanest_bytes(task: _Task) -> float:
    """Return by how much the fullest stage exceeds its limit in the split that exceeds it least."""
    return _best_cuts(task.stages, lambda stage: _stage_bytes(task, stage) - task.limit[stage], np.maximum)[0]


def _spread(task: _Task, cuts: Cuts) -> Cuts:
    """Move layers from the most loaded stage to others, one at a time, while that lightens the most loaded.

    A layer taken from one virtual stage and given to another shifts the cuts between them. The better split has less
    excess bytes, then the lighter heaviest stage, then stages, then chunks more alike.
    """
    virtual = np.arange(len(task.ends))
    scale = task.seconds[-1] + task.ends.sum()

    def merit(cuts: Cuts) -> Column:
        chunks = task.loads(cuts) / scale
        stages = task.by_stage(chunks)
        parts = (task.excess(cuts), stages.max(axis=-1), (stages**2).sum(axis=-1), (chunks**2).sum(axis=-1))
        return np.stack([np.round(part, 12) for part in parts], axis=-1)

    best = merit(cuts)
    while True:
        gives, takes = (side.ravel() for side in np.meshgrid(virtual, virtual))
        step = (virtual >= np.minimum(gives, takes)[:, None]) & (virtual < np.maximum(gives, takes)[:, None])
        moved = np.where(step, np.sign(takes - gives)[:, None], 0)
        tried = np.column_stack([np.zeros_like(gives), cuts[1:] - moved])
        tried = tried[np.all(np.diff(tried, axis=1) >= 0, axis=1)]
        merits = merit(tried)
        found = np.lexsort(merits.T[::-1])[0]
        if tuple(merits[found]) >= tuple(best):
            return cuts
        cuts, best = tried[found], merits[found]
