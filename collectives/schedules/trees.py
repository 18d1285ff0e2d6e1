"""Trees and chains: NCCL's double binary tree, broadcasts and reduces from a root, the dissemination barrier.

Sources: Sanders, Speck and Träff 2009; NCCL `src/graph/trees.cc` (its two trees) and `src/device/broadcast.h` (the chain);
Thakur, Rabenseifner and Gropp 2005 (binomial, scatter and all-gather); Open MPI `coll_base_topo.c` (the binomial tree);
Hensgen, Finkel and Manber 1988 (dissemination).
"""

from collections.abc import Sequence

import numpy as np

from collectives.schedules.rings import forward
from collectives.schedules.rings import gathered as ring_gathered
from collectives.schedules.rounds import (
    CHUNK_BYTES,
    IntArray,
    Plan,
    Round,
    Stages,
    backwards,
    chunks_of,
    messages,
    pipelined,
    stage,
)


def _parent(rank: int, ranks: int) -> int:
    """Return a rank's parent in NCCL's binary tree, -1 for rank 0: leaves and inner nodes alternate.

    xx01 0… hangs on xx10 0…, as xx11 0… does; where xx10 0… is beyond the last rank, on xx00 0….

    >>> [_parent(rank, 6) for rank in range(6)]
    [-1, 2, 4, 2, 0, 4]
    """
    if rank == 0:
        return -1
    bit = rank & -rank
    above = (rank ^ bit) | (bit << 1)
    return above if above < ranks else rank ^ bit


def double_tree(ranks: int) -> tuple[IntArray, IntArray]:
    """Return every rank's parent in each of the two trees, -1 for the roots.

    The second is the first mirrored (ranks even) or shifted by one (odd), so that inner nodes of one are leaves of the
    other (but for a rank or two).

    >>> [tree.tolist() for tree in double_tree(4)]
    [[-1, 2, 0, 2], [1, 3, 1, -1]]
    """
    first = np.array([_parent(rank, ranks) for rank in range(ranks)], dtype=np.int64)
    if ranks % 2:
        moved = np.roll(first, 1)
        return first, np.where(moved < 0, -1, (moved + 1) % ranks)
    turned = first[::-1]
    return first, np.where(turned < 0, -1, ranks - 1 - turned)


def depths(parent: IntArray) -> IntArray:
    """Return how many edges each rank is below its root.

    >>> depths(np.array([-1, 2, 0, 2])).tolist()
    [0, 2, 1, 2]
    """
    depth = np.zeros_like(parent)
    above = parent
    while (above >= 0).any():
        depth = depth + (above >= 0)
        above = np.where(above < 0, -1, parent[above])
    return depth


def heights(parent: IntArray) -> IntArray:
    """Return how many edges each rank is above its deepest leaf.

    >>> heights(np.array([-1, 2, 0, 2])).tolist()
    [2, 0, 1, 0]
    """
    height = np.zeros_like(parent)
    depth = depths(parent)
    for level in range(int(depth.max(initial=0)), 0, -1):
        below = np.flatnonzero(depth == level)
        np.maximum.at(height, parent[below], height[below] + 1)
    return height


def up(parent: IntArray, names: IntArray, size_bytes: float, part: int, start: int = 0) -> Stages:
    """Return the messages that add a tree's chunks from the leaves to the root."""
    child = np.flatnonzero(parent >= 0)
    begin = start + heights(parent)[child]
    base = np.full((child.size, 1), part)
    return stage(names[child], names[parent[child]], size_bytes, begin, lambda: list(base), adds=True)


def down(parent: IntArray, names: IntArray, size_bytes: float, part: int, start: int = 0) -> Stages:
    """Return the messages that pass a tree's chunks on from the root to the leaves."""
    child = np.flatnonzero(parent >= 0)
    begin = start + depths(parent)[child] - 1
    base = np.full((child.size, 1), part)
    return stage(names[parent[child]], names[child], size_bytes, begin, lambda: list(base))


def tree(ranks: int, size_bytes: float, chunk_bytes: float = CHUNK_BYTES) -> Plan:
    """Return the all-reduce by two trees, each with half of the buffer: up to the root and down again, in chunks.

    The root sends a chunk down as soon as it is complete, while later ones still go up.

    >>> plan = tree(4, 8.0, chunk_bytes=1.0)
    >>> sum(each.repeat for each in plan.rounds)
    7
    """
    chunks = chunks_of(size_bytes / 2, chunk_bytes)
    piece_bytes = size_bytes / (2 * chunks)
    names = np.arange(ranks)
    stages = []
    for part, parent in enumerate(double_tree(ranks)):
        top = int(heights(parent).max())
        stages += [up(parent, names, piece_bytes, part), down(parent, names, piece_bytes, part, top)]
    return Plan(pipelined(stages, chunks), 2 * chunks)


def _from_root(rounds: Sequence[Round], ranks: int, root: int) -> tuple[Round, ...]:
    """Return the rounds with every rank moved up by the root."""
    if not root:
        return tuple(rounds)
    return tuple(
        Round(
            (each.sender + root) % ranks, (each.receiver + root) % ranks, each.size_bytes, each.repeat, each.adds,
            each.pieces,
        )
        for each in rounds
    )  # fmt: skip


def binomial(ranks: int, size_bytes: float, root: int = 0) -> Plan:
    """Return the broadcast in which every rank that has the buffer sends it on, 1, 2, 4 … ahead of it.

    >>> [each.receiver.tolist() for each in binomial(6, 1.0).rounds]
    [[1], [2, 3], [4, 5]]
    """

    def level(reach: int) -> Round:
        child = np.arange(reach, min(2 * reach, ranks))
        return messages(child - reach, child, size_bytes, pieces=lambda _: np.zeros((child.size, 1), dtype=np.int64))

    return Plan(_from_root([level(1 << bit) for bit in range((ranks - 1).bit_length())], ranks, root))


def chain(ranks: int, size_bytes: float, root: int = 0, chunk_bytes: float = CHUNK_BYTES) -> Plan:
    """Return the broadcast along a chain of all ranks, in chunks: NCCL's ring broadcast.

    >>> sum(each.repeat for each in chain(4, 10.0, chunk_bytes=1.0).rounds)  # n - 2 + 10 chunks
    12
    """
    chunks = chunks_of(size_bytes, chunk_bytes)
    sender = np.arange(ranks - 1)
    whole = np.zeros((ranks - 1, 1), dtype=np.int64)
    links = stage(sender, sender + 1, size_bytes / chunks, sender, lambda: list(whole))
    return Plan(_from_root(pipelined([links], chunks), ranks, root), chunks)


def _scatter(ranks: int, size_bytes: float) -> tuple[Round, ...]:
    """Return the rounds that halve the buffer down a binomial tree until rank r has piece r."""

    def level(reach: int) -> Round:
        sender = np.arange(0, ranks - reach, 2 * reach)
        ends = np.minimum(sender + 2 * reach, ranks)
        first = sender + reach
        return messages(
            sender, first, (ends - first) * (size_bytes / ranks),
            pieces=lambda _: [np.arange(start, end) for start, end in zip(first, ends, strict=True)],
        )  # fmt: skip

    return tuple(level(1 << bit) for bit in reversed(range((ranks - 1).bit_length())))


def scatter_all_gather(ranks: int, size_bytes: float, root: int = 0) -> Plan:
    """Return the broadcast by a binomial scatter and a ring all-gather, for large buffers.

    >>> [(each.repeat, float(each.size_bytes[0])) for each in scatter_all_gather(4, 40.0).rounds]
    [(1, 20.0), (1, 10.0), (3, 10.0)]
    """
    rounds = (*_scatter(ranks, size_bytes), *ring_gathered((ranks,), size_bytes, forward((ranks,))))
    return Plan(_from_root(rounds, ranks, root), ranks)


def reduce_scatter_gather(ranks: int, size_bytes: float, root: int = 0) -> Plan:
    """Return the reduce by a ring reduce-scatter and a binomial gather, for large buffers."""
    scatter = backwards(ring_gathered((ranks,), size_bytes, forward((ranks,))))
    rounds = (*scatter, *backwards(_scatter(ranks, size_bytes), adds=False))
    return Plan(_from_root(rounds, ranks, root), ranks)


def reduced(plan: Plan) -> Plan:
    """Return the reduce that a broadcast is backwards."""
    return Plan(backwards(plan.rounds), plan.pieces)


def linear(ranks: int, size_bytes: float) -> Plan:
    """Return the all-reduce in which all send to rank 0, which adds, and sends the sum to all: Open MPI's basic linear."""
    other = np.arange(1, ranks)
    whole = np.zeros((other.size, 1), dtype=np.int64)
    down = messages(np.zeros_like(other), other, size_bytes, pieces=lambda _: whole)
    return Plan((*backwards([down]), down))


def dissemination(ranks: int, size_bytes: float = 0.0) -> Plan:
    """Return the barrier in which every rank tells the one 1, 2, 4 … ahead of it: ⌈log₂ n⌉ rounds of no bytes.

    >>> len(dissemination(6).rounds)
    3
    """
    del size_bytes
    rank = np.arange(ranks)

    def tell(reach: int) -> Round:
        return messages(rank, (rank + reach) % ranks, 0.0, pieces=lambda _: (rank[:, None] - np.arange(reach)) % ranks)

    return Plan(tuple(tell(1 << bit) for bit in range((ranks - 1).bit_length())), ranks)
