"""The table of schedules: operation → algorithm → the rule that writes its rounds.

`schedule("all_reduce", "ring", 8, 1e9)` writes one. The names are those of `ALGORITHMS`, whose closed forms price the same
rounds over tiers, and of Open MPI's `coll_tuned`. Ranks count in placement order; sizes are nccl-tests'.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from collectives.schedules import doubling, exchanges, rings, switches, trees
from collectives.schedules.rounds import (
    BoolArray,
    FloatArray,
    IntArray,
    Pieces,
    Plan,
    Round,
    Rounds,
    Schedule,
    messages,
)
from topo.errors import Fault, SpecError

__all__ = [
    "SCHEDULES",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "Pieces",
    "Plan",
    "Round",
    "Rounds",
    "Rule",
    "Schedule",
    "messages",
    "schedule",
]


def anything(ranks: int, **shape: Any) -> str:
    """Return no objection: the algorithm runs on any group."""
    del ranks, shape
    return ""


def power_of_two(ranks: int, **shape: Any) -> str:
    """Return what is wrong unless the ranks are a power of two.

    >>> power_of_two(6), power_of_two(8)
    ('needs a power of two', '')
    """
    del shape
    return "" if ranks & (ranks - 1) == 0 else "needs a power of two"


def even(ranks: int, **shape: Any) -> str:
    """Return what is wrong unless the ranks are even, or one."""
    del shape
    return "" if ranks % 2 == 0 or ranks == 1 else "needs an even number"


def blocks(ranks: int, inner: int | tuple[int, ...] = 0, **shape: Any) -> str:
    """Return what is wrong unless every block divides the next, and the last one the ranks.

    >>> blocks(16, inner=(4, 8)), blocks(16, inner=6)
    ('', 'must be whole blocks of `inner`')
    """
    del shape
    sizes = (*(inner if isinstance(inner, tuple) else (inner or ranks,)), ranks)
    whole = all(least >= 1 and most % least == 0 for least, most in zip([1, *sizes], sizes, strict=False))
    return "" if whole else "must be whole blocks of `inner`"


def grid(ranks: int, shape: tuple[int, ...] = (), **others: Any) -> str:
    """Return what is wrong unless the sides of a torus multiply to the ranks.

    >>> grid(12, shape=(4, 3)), grid(12, shape=(4, 4))
    ('', 'must be the product of `shape`')
    """
    del others
    return "" if prod(shape or (ranks,)) == ranks else "must be the product of `shape`"


def grid_of_twos(ranks: int, shape: tuple[int, ...] = (), **others: Any) -> str:
    """Return what is wrong unless the sides of a torus are powers of two and multiply to the ranks."""
    return grid(ranks, shape, **others) or next(filter(None, map(power_of_two, shape or (ranks,))), "")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to run an operation: what writes its rounds, which groups it serves, what it does, where that is written.

    `fn(ranks, size_bytes, **shape)` returns a `Plan`; `valid(ranks, **shape)` what is wrong with a group, or nothing.
    """

    fn: Callable[..., Plan]
    note: str
    source: str
    valid: Callable[..., str] = anything


def _tiered(write: Callable[..., Plan]) -> Callable[..., Plan]:
    """Return a writer of grids as one of blocks within blocks: `inner` ranks per block, of one or several tiers."""

    def fn(ranks: int, size_bytes: float, inner: int | tuple[int, ...] = 0, **others: Any) -> Plan:
        return write(ranks, size_bytes, rings.broken(ranks, inner or ranks), **others)

    return fn


def _ringed(write: Callable[..., Plan], buckets: Callable[..., Any]) -> Callable[..., Plan]:
    """Return a writer of ring algorithms on a torus of `shape` (one ring, if not given)."""

    def fn(ranks: int, size_bytes: float, shape: tuple[int, ...] = ()) -> Plan:
        return write(shape or (ranks,), size_bytes, buckets(shape or (ranks,)))

    return fn


def _one_ring(write: Callable[..., Plan]) -> Callable[..., Plan]:
    """Return a writer of ring algorithms as one ring of all ranks."""
    return lambda ranks, size_bytes: write((ranks,), size_bytes, rings.forward((ranks,)))


def _rings_by_tier(write: Callable[..., Plan]) -> Callable[..., Plan]:
    """Return a writer of ring algorithms with one ring per tier."""
    return _tiered(lambda _, size_bytes, shape: write(shape, size_bytes, rings.forward(shape)))


def _swung(after: Callable[[Plan], Plan]) -> Callable[..., Plan]:
    """Return a writer of Swings on a torus of `shape` (one ring, if not given)."""
    return lambda ranks, size_bytes, shape=(): after(doubling.swing(shape or (ranks,), size_bytes))


_THAKUR = "Thakur, Rabenseifner, Gropp 2005"
_OPEN_MPI = "Open MPI ompi/mca/coll/base"
_JAIN = "Jain, Sabharwal 2010"
_SWING = "De Sensi et al., arXiv 2401.09356"
_PAT = "Jeaugey, arXiv 2506.20252"
_VLLM = "vLLM custom all-reduce"
_NCCL = "NCCL"


def _on_grids(write: Callable[..., Plan]) -> dict[str, Rule]:
    """Return the rules of the ring algorithms."""
    return {
        "ring": Rule(_one_ring(write), "once round a ring of all ranks", "Patarasuk, Yuan 2009"),
        "hierarchical": Rule(_rings_by_tier(write), "one ring per tier, one after the other", _THAKUR, blocks),
        "bucket": Rule(_ringed(write, rings.both_ways), "torus, axis after axis, both directions", _JAIN, grid),
        "multi_bucket": Rule(_ringed(write, rings.rotated), "torus, all 2d links at once", _JAIN, grid),
    }


SCHEDULES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "all_reduce": {
            **_on_grids(rings.all_reduce),
            "tree": Rule(trees.tree, "pipelined double binary tree", "Sanders, Speck, Träff 2009"),
            "recursive_doubling": Rule(doubling.recursive_doubling_sum, "partners swap whole buffers", _THAKUR),
            "rabenseifner": Rule(doubling.rabenseifner, "recursive halving, then doubling", _THAKUR),
            "swing": Rule(_swung(doubling.summed), "torus, partners near by", _SWING, grid_of_twos),
            "nvls": Rule(switches.nvls, "the block's switches add; trees between blocks", _NCCL, blocks),
            "multimem": Rule(switches.nvls, "nvls within one kernel", "PyTorch torch.ops.symm_mem", blocks),
            "sharp": Rule(switches.sharp, "the network's switches add; rings inside blocks", _NCCL, blocks),
            "one_shot": Rule(exchanges.one_shot, "every rank reads every buffer", _VLLM),
            "two_shot": Rule(exchanges.two_shot, "direct reduce-scatter and all-gather", _VLLM),
            "linear": Rule(trees.linear, "all to rank 0 and back", _OPEN_MPI),
        },
        "all_gather": {
            **_on_grids(rings.all_gather),
            "direct": Rule(exchanges.gathered, "every piece straight to every rank", _THAKUR),
            "recursive_doubling": Rule(
                doubling.recursive_doubling, "partners swap all they have", _THAKUR, power_of_two
            ),
            "bruck": Rule(doubling.bruck, "all that a rank has goes 1, 2, 4 … back", "Bruck et al. 1997"),
            "neighbor": Rule(doubling.neighbor, "two neighbours in turn", "Chen et al. 2005", even),
            "swing": Rule(_swung(lambda plan: plan), "torus, partners near by", _SWING, grid_of_twos),
            "pat": Rule(doubling.pat, "binomial trees of all ranks at once, far edges first", _PAT),
        },
        "reduce_scatter": {
            **_on_grids(rings.reduce_scatter),
            "direct": Rule(exchanges.scattered, "every piece straight to its rank", _THAKUR),
            "recursive_halving": Rule(doubling.recursive_halving, "farthest partner first", _THAKUR),
            "swing": Rule(_swung(doubling.scattered), "torus, partners near by", _SWING, grid_of_twos),
            "pat": Rule(
                lambda *args, **shape: doubling.scattered(doubling.pat(*args, **shape)),
                "binomial trees of all ranks at once, near edges first",
                _PAT,
            ),
        },
        "all_to_all": {
            "pairwise": Rule(exchanges.pairwise, "n-1 rounds with one partner each", _THAKUR),
            "linear": Rule(exchanges.linear, "all posted at once, previous rank first", _OPEN_MPI),
            "direct": Rule(exchanges.direct, "all posted at once, next rank first", _NCCL),
            "bruck": Rule(exchanges.bruck, "⌈log2 n⌉ rounds of half the buffer", "Bruck et al. 1997"),
            "hierarchical": Rule(_tiered(exchanges.hierarchical), "one exchange per tier", _THAKUR, blocks),
            "pxn": Rule(_tiered(exchanges.rail_aligned), "over the block to the rail, along it", "NCCL 2.12", blocks),
        },
        "broadcast": {
            "chain": Rule(trees.chain, "along all ranks in chunks", _NCCL),
            "binomial": Rule(trees.binomial, "who has it sends it on", _THAKUR),
            "scatter_all_gather": Rule(trees.scatter_all_gather, "binomial scatter, ring all-gather", _THAKUR),
        },
        "reduce": {
            "chain": Rule(
                lambda *args, **shape: trees.reduced(trees.chain(*args, **shape)), "along all ranks in chunks", _NCCL
            ),
            "binomial": Rule(
                lambda *args, **shape: trees.reduced(trees.binomial(*args, **shape)), "halves of the ranks add", _THAKUR
            ),
            "reduce_scatter_gather": Rule(trees.reduce_scatter_gather, "ring reduce-scatter, binomial gather", _THAKUR),
        },
        "send_recv": {
            "direct": Rule(exchanges.one_message, "one message", _NCCL),
            "shift": Rule(exchanges.shift, "every rank to the next", "nccl-tests"),
            "ping_pong": Rule(exchanges.ping_pong, "there and back", "Open MPI"),
        },
        "barrier": {
            "dissemination": Rule(trees.dissemination, "1, 2, 4 … ahead", "Hensgen, Finkel, Manber 1988"),
        },
    }
)
"""Operation → name → rule. Tests and documents iterate over it."""


def schedule(op: str, algorithm: str, ranks: int, size_bytes: float, **shape: Any) -> Schedule:
    """Return the schedule of an operation.

    Parameters
    ----------
    op, algorithm
        Keys of `SCHEDULES`.
    ranks
        Ranks of the group; one needs no rounds.
    size_bytes
        S as nccl-tests counts it.
    **shape
        What the algorithm knows of the wiring or the traffic: `inner`, ranks per block (of each tier but the outermost,
        innermost first; hierarchical, pxn, nvls, sharp); `shape`, the sides of a torus (bucket, multi_bucket, swing);
        `matrix`, bytes from each rank to each (all_to_all); `root` (broadcast, reduce); `source`, `target`, `by`
        (send_recv); `chunk_bytes` (pipelines); `aggregate` (pat).

    Raises
    ------
    SpecError
        If a name is unknown, the algorithm doesn't run on such a group, or the matrix has another shape.

    Examples
    --------
    >>> ring = schedule("all_reduce", "ring", 8, 800.0)
    >>> [(each.repeat, float(each.size_bytes[0])) for each in ring.rounds]
    [(7, 100.0), (7, 100.0)]
    >>> schedule("all_gather", "neighbor", 5, 1.0)
    Traceback (most recent call last):
    topo.errors.SpecError: ranks = 5: needs an even number. take another group, or another algorithm than neighbor.
    """
    if op not in SCHEDULES:
        raise SpecError([Fault("op", op, "is no known operation", f"write one of {', '.join(SCHEDULES)}")])
    if algorithm not in SCHEDULES[op]:
        remedy = f"write one of {', '.join(SCHEDULES[op])}"
        raise SpecError([Fault(f"{op}.algorithm", algorithm, "has no schedule", remedy)])
    rule = SCHEDULES[op][algorithm]
    wrong = rule.valid(ranks, **shape) if ranks >= 1 else "must be at least 1"
    faults = (
        [Fault("ranks", ranks, wrong, f"take another group, or another algorithm than {algorithm}")] if wrong else []
    )
    matrix = shape.get("matrix")
    if matrix is not None and np.shape(matrix) != (ranks, ranks):
        problem = "must be square, a row and a column per rank"
        faults.append(Fault("matrix.shape", np.shape(matrix), problem, f"give {ranks} by {ranks} bytes"))
    if faults:
        raise SpecError(faults)
    plan = rule.fn(ranks, size_bytes, **shape) if ranks > 1 else Plan(())
    return Schedule(op, algorithm, ranks, size_bytes, plan.rounds, plan.posted, plan.network, plan.pieces)
