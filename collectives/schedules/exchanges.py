"""Messages between every two ranks: all-to-all with and without forwarding, direct gathers and sums, single messages.

Piece s · n + d of an all-to-all goes from rank s to rank d. A matrix of bytes from rank to rank, if given, says how large
each is; without one all are S/n.

Sources: Thakur, Rabenseifner and Gropp 2005; Open MPI `coll_base_alltoall.c` (order of partners and of posting); Bruck et
al. 1997; NVIDIA, "Doubling all2all performance with NVIDIA Collective Communication Library 2.12" (PXN).
"""

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod

import numpy as np

from collectives.schedules.rounds import (
    CHUNK_BYTES,
    FloatArray,
    IntArray,
    Plan,
    Round,
    Rounds,
    Stages,
    chunks_of,
    messages,
    pipelined,
    stage,
)


def _sizes(pieces: IntArray, size_bytes: float, ranks: int, matrix: FloatArray | None) -> FloatArray:
    """Return the bytes of messages, each a row of pieces."""
    if matrix is None:
        return np.full(pieces.shape[0], pieces.shape[1] * size_bytes / ranks)
    sizes: FloatArray = matrix.ravel()[pieces].sum(axis=1)
    return sizes


def _everyone(ranks: int, size_bytes: float, matrix: FloatArray | None) -> Callable[[int], Round]:
    """Return what makes the round in which every rank sends its piece to the one so many places ahead."""
    rank = np.arange(ranks)
    twice = np.concatenate([rank, rank])
    same = np.broadcast_to(np.float64(size_bytes / ranks), ranks)

    def turn(by: int) -> Round:
        other = twice[by % ranks :][:ranks]
        sizes = same if matrix is None else matrix[rank, other]
        return Round(rank, other, sizes, pieces=lambda _: (rank * ranks + other)[:, None])

    return turn


def pairwise(ranks: int, size_bytes: float, matrix: FloatArray | None = None) -> Plan:
    """Return n - 1 rounds: in round t rank r sends to r + t and receives from r - t.

    >>> [int(each.receiver[0]) for each in pairwise(4, 4.0).rounds]
    [1, 2, 3]
    """
    turn = _everyone(ranks, size_bytes, matrix)
    return Plan(Rounds(ranks - 1, lambda step: turn(step + 1)), ranks)


def linear(ranks: int, size_bytes: float, matrix: FloatArray | None = None) -> Plan:
    """Return all messages posted at once, in Open MPI's order: rank r sends to r - 1, then r - 2, and so on.

    >>> plan = linear(4, 4.0)
    >>> [int(each.receiver[0]) for each in plan.rounds], plan.posted
    ([3, 2, 1], True)
    """
    turn = _everyone(ranks, size_bytes, matrix)
    return Plan(Rounds(ranks - 1, lambda step: turn(-step - 1)), ranks, posted=True)


def direct(ranks: int, size_bytes: float, matrix: FloatArray | None = None) -> Plan:
    """Return all messages posted at once, rank r to r + 1 first, then r + 2: grouped sends and receives of NCCL."""
    return Plan(pairwise(ranks, size_bytes, matrix).rounds, ranks, posted=True)


def bruck(ranks: int, size_bytes: float, matrix: FloatArray | None = None) -> Plan:
    """Return Bruck's all-to-all: ⌈log₂ n⌉ rounds; round k moves what has bit k in the distance left to go, 2^k ahead.

    >>> [float(each.size_bytes[0]) for each in bruck(6, 60.0).rounds]
    [30.0, 20.0, 20.0]
    """
    rank = np.arange(ranks)

    def turn(bit: int) -> Round:
        far = np.flatnonzero(np.arange(ranks) & bit)

        def pieces() -> IntArray:
            source = (rank[:, None] - far % bit) % ranks
            carried: IntArray = source * ranks + (source + far) % ranks
            return carried

        sizes = far.size * size_bytes / ranks if matrix is None else _sizes(pieces(), size_bytes, ranks, matrix)
        return messages(rank, (rank + bit) % ranks, sizes, pieces=lambda _: pieces())

    return Plan(tuple(turn(1 << bit) for bit in range((ranks - 1).bit_length())), ranks)


def _between(shape: Sequence[int], axis: int) -> tuple[IntArray, IntArray, Callable[[IntArray, IntArray], IntArray]]:
    """Return, for one axis of a grid: every rank's coordinate, the stride, and what rank r sends to its peer there.

    Axes are served in turn, the first one first. On axis l a rank holds the pieces of all ranks that differ from it only
    on the axes before l, and of these it sends what goes to the peer's coordinates on the axes up to l.
    """
    ranks, inner = prod(shape), prod(shape[:axis])
    outer = inner * shape[axis]
    rank = np.arange(ranks)

    def pieces(sender: IntArray, receiver: IntArray) -> IntArray:
        source = sender[:, None] // inner * inner + np.arange(inner)
        target = receiver[:, None] % outer + np.arange(0, ranks, outer)
        carried: IntArray = source[:, :, None] * ranks + target[:, None, :]
        return carried.reshape(sender.size, -1)

    return rank // inner % shape[axis], np.array(inner), pieces


def hierarchical(ranks: int, size_bytes: float, shape: Sequence[int], matrix: FloatArray | None = None) -> Plan:
    """Return one pairwise exchange per axis of a grid (tiers, innermost first), few large messages on the outer ones.

    >>> plan = hierarchical(16, 16.0, (8, 2))
    >>> [float(each.size_bytes[0]) for each in plan.rounds]
    [2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 8.0]
    """
    starts = [0, *accumulate(extent - 1 for extent in shape)]
    rank = np.arange(ranks)

    def make(step: int) -> Round:
        axis = next(number for number, end in enumerate(starts[1:]) if step < end)
        digit, inner, pieces = _between(shape, axis)
        peer = rank + ((digit + step - starts[axis] + 1) % shape[axis] - digit) * inner
        sizes = size_bytes / shape[axis] if matrix is None else _sizes(pieces(rank, peer), size_bytes, ranks, matrix)
        return messages(rank, peer, sizes, pieces=lambda _: pieces(rank, peer))

    return Plan(Rounds(starts[-1], make), ranks)


def rail_aligned(
    ranks: int,
    size_bytes: float,
    shape: Sequence[int],
    matrix: FloatArray | None = None,
    chunk_bytes: float = CHUNK_BYTES,
) -> Plan:
    """Return PXN's all-to-all on a grid (place in the block, block): over the block to the rail, then along the rail.

    A rank hands what is for place j of any block to place j of its own, which sends it on in one message per block: no
    message leaves its rail. The two stages are pipelined in chunks of S.

    >>> plan = rail_aligned(4, 4.0, (2, 2))
    >>> [(each.sender.size, float(each.size_bytes[0])) for each in plan.rounds]
    [(4, 2.0), (4, 2.0)]
    """
    rank = np.arange(ranks)
    chunks = chunks_of(size_bytes, chunk_bytes)
    stages: list[Stages] = []
    for axis, extent in ((axis, extent) for axis, extent in enumerate(shape) if extent > 1):
        digit, inner, pieces = _between(shape, axis)
        steps = np.arange(1, extent)
        sender = np.repeat(rank, steps.size)
        receiver = (rank[:, None] + ((digit[:, None] + steps) % extent - digit[:, None]) * inner).ravel()
        sizes = size_bytes / extent if matrix is None else _sizes(pieces(sender, receiver), size_bytes, ranks, matrix)
        carried = lambda pieces=pieces, sender=sender, receiver=receiver: list(pieces(sender, receiver))  # noqa: E731
        stages.append(stage(sender, receiver, np.asarray(sizes) / chunks, len(stages), carried))
    return Plan(pipelined(stages, chunks), ranks * chunks)


def _all_pairs(ranks: int) -> tuple[IntArray, IntArray]:
    """Return senders and receivers of a message between every two ranks, in both directions."""
    sender, receiver = np.divmod(np.arange(ranks * ranks), ranks)
    return sender[sender != receiver], receiver[sender != receiver]


def one_shot(ranks: int, size_bytes: float) -> Plan:
    """Return the all-reduce in which every rank gets every other whole buffer at once."""
    sender, receiver = _all_pairs(ranks)
    whole = np.zeros((sender.size, 1), dtype=np.int64)
    return Plan((messages(sender, receiver, size_bytes, adds=True, pieces=lambda _: whole),))


def scattered(ranks: int, size_bytes: float) -> Plan:
    """Return the reduce-scatter in which every rank sends every other its piece at once."""
    sender, receiver = _all_pairs(ranks)
    scatter = messages(sender, receiver, size_bytes / ranks, adds=True, pieces=lambda _: receiver[:, None])
    return Plan((scatter,), ranks)


def gathered(ranks: int, size_bytes: float) -> Plan:
    """Return the all-gather in which every rank sends its piece to every other at once."""
    sender, receiver = _all_pairs(ranks)
    return Plan((messages(sender, receiver, size_bytes / ranks, pieces=lambda _: sender[:, None]),), ranks)


def two_shot(ranks: int, size_bytes: float) -> Plan:
    """Return the all-reduce of `scattered`, then `gathered`: two rounds."""
    return Plan((*scattered(ranks, size_bytes).rounds, *gathered(ranks, size_bytes).rounds), ranks)


def one_message(ranks: int, size_bytes: float, source: int = 0, target: int = -1) -> Plan:
    """Return a single message, from the first rank to the last unless said otherwise."""
    return Plan((messages([source % ranks], [target % ranks], size_bytes, pieces=lambda _: [np.zeros(1, np.int64)]),))


def shift(ranks: int, size_bytes: float, by: int = 1) -> Plan:
    """Return the round in which every rank sends to the one so many places ahead: nccl-tests' send_recv, by 1."""
    rank = np.arange(ranks)
    whole = np.zeros((ranks, 1), dtype=np.int64)
    return Plan((messages(rank, (rank + by) % ranks, size_bytes, pieces=lambda _: whole),))


def ping_pong(ranks: int, size_bytes: float, target: int = -1) -> Plan:
    """Return a message from rank 0 to another and one of the same size back."""
    one = [np.zeros(1, np.int64)]
    there = messages([0], [target % ranks], size_bytes, pieces=lambda _: one)
    back = messages([target % ranks], [0], size_bytes, pieces=lambda _: one)
    return Plan((there, back))
