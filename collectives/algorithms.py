"""The table of collective algorithms, and the choice of the fastest.

Every algorithm is a function f(size_bytes, members, path) of seconds: `size_bytes` as nccl-tests counts them, `members`
from `groups.members` with one row per tier, `path` with one hop per tier. Bytes and members broadcast. A group of one
costs exactly 0 s; an operation on 0 bytes costs its latency.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from collectives import all_reduce, all_to_all, doubling, gather, point_to_point
from collectives.path import Path
from collectives.span import Mask
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

Price = Callable[[ColumnLike, ColumnLike, Path], Column]
Valid = Callable[[ColumnLike, Path], Mask]


def always(members: ColumnLike, path: Path) -> Mask:
    """Return that an algorithm runs on every group.

    >>> always([[4, 8]], ())
    array([ True,  True])
    """
    del path
    return np.ones(np.shape(members)[1:], dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to run an operation: its price, the groups it can serve, what it does, and where that is written.

    Examples
    --------
    >>> ALGORITHMS["all_reduce"]["ring"].note
    'reduce-scatter round a ring, then all-gather; bandwidth optimal'
    """

    fn: Price
    note: str
    source: str
    valid: Valid = always


_THAKUR = "Thakur, Rabenseifner, Gropp 2005"
_NCCL = "NCCL src/graph/tuning.cc"

_BRUCK = "Bruck et al. 1997"
_CHEN = "Chen et al. 2005"
_SWING = "De Sensi et al., arXiv 2401.09356"
_PAT = "Jeaugey, arXiv 2506.20252"
_OPEN_MPI = "Open MPI ompi/mca/coll/base"

_GATHERS = {
    "ring": Algorithm(gather.ring, "once round a ring; bandwidth optimal", _NCCL),
    "direct": Algorithm(gather.direct, "every piece straight to every rank; logarithmic latency", _THAKUR),
    "hierarchical": Algorithm(gather.hierarchical, "one ring per tier, one after the other", _THAKUR),
    "swing": Algorithm(doubling.swing, "partners near by, distances 1, 1, 3, 5 …", _SWING, doubling.power_of_two),
    "pat": Algorithm(doubling.pat, "binomial trees of all ranks at once, far edges first", _PAT),
}

_ROOTED = {
    "chain": Algorithm(doubling.chain, "along all ranks in chunks", _NCCL),
    "binomial": Algorithm(doubling.binomial, "who has it sends it on", _THAKUR),
}

ALGORITHMS: Mapping[str, Mapping[str, Algorithm]] = MappingProxyType(
    {
        "all_reduce": MappingProxyType(
            {
                "ring": Algorithm(
                    all_reduce.ring,
                    "reduce-scatter round a ring, then all-gather; bandwidth optimal",
                    "Patarasuk, Yuan 2009",
                ),
                "tree": Algorithm(
                    all_reduce.tree,
                    "pipelined double binary tree; logarithmic latency",
                    "Sanders, Speck, Träff 2009",
                ),
                "hierarchical": Algorithm(
                    all_reduce.hierarchical,
                    "reduce-scatter outward tier by tier, all-gather back",
                    _THAKUR,
                ),
                "nvls": Algorithm(
                    all_reduce.nvls,
                    "the switches add and multicast; a tree where they cannot",
                    "NCCL issues 1455, 1506",
                    all_reduce.some_tier_adds,
                ),
                "one_shot": Algorithm(
                    all_reduce.one_shot, "every rank reads every buffer; one step", "vLLM custom all-reduce"
                ),
                "two_shot": Algorithm(
                    all_reduce.two_shot, "direct reduce-scatter and all-gather; two steps", "vLLM custom all-reduce"
                ),
                "multimem": Algorithm(
                    all_reduce.multimem,
                    "the switches add and multicast, in one kernel",
                    "PyTorch torch.ops.symm_mem",
                    all_reduce.every_tier_adds,
                ),
                "sharp": Algorithm(
                    all_reduce.sharp,
                    "the network's switches add; rings inside the blocks",
                    "NCCL CollNet",
                    all_reduce.outer_tier_adds,
                ),
                "recursive_doubling": Algorithm(
                    doubling.recursive_doubling_sum, "partners swap whole buffers; log2 n steps", _THAKUR
                ),
                "rabenseifner": Algorithm(doubling.rabenseifner, "recursive halving, then doubling", _THAKUR),
                "swing": Algorithm(
                    doubling.swing_sum, "partners near by, distances 1, 1, 3, 5 …", _SWING, doubling.power_of_two
                ),
                "linear": Algorithm(all_reduce.linear, "all to one rank and back", _OPEN_MPI),
            }
        ),
        "all_gather": MappingProxyType(
            {
                **_GATHERS,
                "recursive_doubling": Algorithm(
                    doubling.recursive_doubling, "partners swap all they have", _THAKUR, doubling.power_of_two
                ),
                "bruck": Algorithm(doubling.bruck, "all that a rank has goes 1, 2, 4 … back", _BRUCK),
                "neighbor": Algorithm(doubling.neighbor, "two neighbours in turn", _CHEN, doubling.even),
            }
        ),
        "reduce_scatter": MappingProxyType(
            {
                **_GATHERS,
                "recursive_halving": Algorithm(doubling.recursive_halving, "farthest partner first", _THAKUR),
            }
        ),
        "all_to_all": MappingProxyType(
            {
                "pairwise": Algorithm(all_to_all.pairwise, "n-1 rounds with one partner each", _THAKUR),
                "direct": Algorithm(all_to_all.direct, "all messages posted at once", _NCCL),
                "hierarchical": Algorithm(
                    all_to_all.hierarchical, "inside the block, then between blocks; few messages", "NCCL 2.12 PXN"
                ),
                "linear": Algorithm(all_to_all.direct, "all posted at once, previous rank first", _OPEN_MPI),
                "bruck": Algorithm(doubling.bruck_exchange, "log2 n steps of half the buffer", _BRUCK),
                "pxn": Algorithm(all_to_all.pxn, "over the block to the rail, and along it", "NCCL 2.12 PXN"),
            }
        ),
        "broadcast": MappingProxyType(
            {
                **_ROOTED,
                "scatter_all_gather": Algorithm(
                    doubling.scatter_all_gather, "binomial scatter, ring all-gather", _THAKUR
                ),
            }
        ),
        "reduce": MappingProxyType(
            {
                **_ROOTED,
                "reduce_scatter_gather": Algorithm(
                    doubling.scatter_all_gather, "ring reduce-scatter, binomial gather", _THAKUR
                ),
            }
        ),
        "barrier": MappingProxyType(
            {"dissemination": Algorithm(doubling.dissemination, "1, 2, 4 … ahead", "Hensgen, Finkel, Manber 1988")}
        ),
        "send_recv": MappingProxyType(
            {"direct": Algorithm(point_to_point.farthest, "one message to the farthest member", _NCCL)}
        ),
    }
)
"""Operation → name → algorithm. Tests, documents and `podscale list algorithms` iterate over it."""


NCCL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "all_reduce": ("ring", "tree", "nvls"),
        "all_gather": ("ring",),
        "reduce_scatter": ("ring",),
        "all_to_all": ("direct",),
        "send_recv": ("direct",),
        "broadcast": ("chain",),
        "reduce": ("chain",),
        "barrier": ("dissemination",),
    }
)
"""Operation → what NCCL itself chooses among with several GPUs per node (its all-to-all is grouped send and receive).

Its gathers stay linear in the ranks up to 48; `direct` and `hierarchical` gathers are what other schedules could reach.
"""


def best(
    op: str, size_bytes: ColumnLike, members: ColumnLike, path: Path, among: Sequence[str] | None = None
) -> tuple[Column, npt.NDArray[np.intp], tuple[str, ...]]:
    """Return the seconds of the fastest valid algorithm of an operation, which one it is, and the names to look it up.

    Parameters
    ----------
    op
        A key of `ALGORITHMS`.
    size_bytes, members, path
        As for every algorithm.
    among
        Names to choose from, such as `NCCL[op]`; all of them if not given.

    Returns
    -------
    tuple
        Seconds (infinite where none is valid); the index of the winner (the first of equals) among the names; and those
        names.

    Raises
    ------
    SpecError
        If the operation or a name is unknown.

    Examples
    --------
    >>> from collectives.path import Hop, LinkModel
    >>> path = (Hop(100e9, 0, LinkModel(base_s=0, step_s=1e-6, efficiency=1)),) * 2
    >>> seconds, winner, names = best("all_reduce", [1e3, 1e9], [8, 64], path, among=["tree", "ring"])
    >>> [names[index] for index in winner]
    ['tree', 'ring']
    """
    if op not in ALGORITHMS:
        raise SpecError([Fault("op", op, "is no known operation", f"write one of {', '.join(ALGORITHMS)}")])
    names = tuple(ALGORITHMS[op] if among is None else among)
    unknown = [name for name in names if name not in ALGORITHMS[op]]
    if unknown or not names:
        remedy = f"write some of {', '.join(ALGORITHMS[op])}"
        raise SpecError([Fault(f"{op}.among", name, "is no known algorithm", remedy) for name in unknown or [""]])
    size_bytes, members = column(size_bytes), column(members)
    prices = np.stack(
        [
            algorithm.fn(size_bytes, members, path)
            if algorithm.valid is always
            else np.where(algorithm.valid(members, path), algorithm.fn(size_bytes, members, path), np.inf)
            for algorithm in (ALGORITHMS[op][name] for name in names)
        ]
    )
    winner = prices.argmin(axis=0)
    return column(prices.min(axis=0)), np.asarray(winner), names
