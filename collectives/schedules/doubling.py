"""Logarithmic algorithms: recursive doubling and halving, Rabenseifner, Swing, Bruck, neighbour exchange and PAT.

Most are all-gathers in which both partners of a pair give each other all they have; run backwards they are
reduce-scatters. They differ in who the partners are. Where ranks are no power of two, the first ranks fold in pairs, and
one of each pair sits out.

Sources: Thakur, Rabenseifner and Gropp 2005; Open MPI `coll_base_allgather.c`, `coll_base_allreduce.c` and
`coll_base_reduce_scatter.c` (partners and folds); Bruck et al. 1997; Chen et al. 2005 (neighbour exchange); De Sensi et
al., arXiv 2401.09356 (Swing); Jeaugey, arXiv 2506.20252, and NCCL `src/include/collectives.h` (PAT).
"""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from collectives.schedules.rounds import IntArray, Pieces, Plan, Round, Rounds, backwards, messages


def met(partners: Sequence[IntArray], names: IntArray, counts: IntArray, piece_bytes: float) -> tuple[Round, ...]:
    """Return an all-gather in which partners exchange all they have.

    Parameters
    ----------
    partners
        For each round the partner of every participant, by its position.
    names
        Ranks of the participants.
    counts
        Pieces that each brings: the pieces are numbered along the participants.

    Examples
    --------
    >>> ranks = np.arange(4)
    >>> [float(each.size_bytes[0]) for each in met([ranks ^ 1, ranks ^ 2], ranks, np.ones(4, dtype=int), 10.0)]
    [10.0, 20.0]
    """
    first = np.cumsum(counts) - counts
    rounds: list[Round] = []
    held = counts

    def carried(before: int) -> Sequence[IntArray]:
        have = [np.arange(start, start + count) for start, count in zip(first, counts, strict=True)]
        for partner in partners[:before]:
            have = [np.concatenate([have[one], have[other]]) for one, other in enumerate(partner)]
        return have

    for number, partner in enumerate(partners):
        pieces: Pieces = lambda _, before=number: carried(before)  # type: ignore[misc]  # noqa: E731
        rounds.append(messages(names, names[partner], held * piece_bytes, pieces=pieces))
        held = held + held[partner]
    return tuple(rounds)


def _cube(ranks: int) -> tuple[int, list[IntArray]]:
    """Return the largest power of two within the ranks, and the partners of a hypercube of it, nearest first."""
    bits = ranks.bit_length() - 1
    return 1 << bits, [np.arange(1 << bits) ^ (1 << bit) for bit in range(bits)]


def _survivors(ranks: int, odd: bool) -> tuple[IntArray, IntArray]:
    """Return the ranks that take part after the fold, and those that sit out: one of each of the first pairs."""
    extra = ranks - (1 << (ranks.bit_length() - 1))
    pairs = 2 * np.arange(extra)
    return np.concatenate([pairs + odd, np.arange(2 * extra, ranks)]), pairs + (not odd)


def recursive_doubling(ranks: int, size_bytes: float) -> Plan:
    """Return the all-gather with partners at distance 1, 2, 4 …; ranks are a power of two.

    >>> [int(each.receiver[0]) for each in recursive_doubling(8, 8.0).rounds]
    [1, 2, 4]
    """
    size, partners = _cube(ranks)
    each = np.arange(size)
    return Plan(met(partners, each, np.ones_like(each), size_bytes / ranks), ranks)


def recursive_halving(ranks: int, size_bytes: float) -> Plan:
    """Return the reduce-scatter with the farthest partner first and half the buffer; any number of ranks.

    The even ranks of the first pairs give all they have to their odd neighbour, and get their piece from it at the end.
    """
    _, partners = _cube(ranks)
    names, idle = _survivors(ranks, odd=True)
    counts = np.where(np.arange(names.size) < idle.size, 2, 1)
    piece_bytes = size_bytes / ranks
    halving = backwards(met(partners, names, counts, piece_bytes))
    if not idle.size:
        return Plan(halving, ranks)
    whole = np.tile(np.arange(ranks), (idle.size, 1))
    fold = messages(idle, idle + 1, size_bytes, adds=True, pieces=lambda _: whole)
    unfold = messages(idle + 1, idle, piece_bytes, pieces=lambda _: idle[:, None])
    return Plan((fold, *halving, unfold), ranks)


def recursive_doubling_sum(ranks: int, size_bytes: float) -> Plan:
    """Return the all-reduce in which partners at distance 1, 2, 4 … add each other's whole buffer.

    The even ranks of the first pairs fold into their odd neighbours first, and get the sum from them at the end.
    """
    _, partners = _cube(ranks)
    names, idle = _survivors(ranks, odd=True)
    whole: Callable[[IntArray], Pieces] = lambda sender: lambda _: np.zeros((sender.size, 1), dtype=np.int64)  # noqa: E731
    rounds = [messages(names, names[one], size_bytes, adds=True, pieces=whole(names)) for one in partners]
    if idle.size:
        fold = messages(idle, idle + 1, size_bytes, adds=True, pieces=whole(idle))
        rounds = [fold, *rounds, messages(idle + 1, idle, size_bytes, pieces=whole(idle))]
    return Plan(tuple(rounds))


def rabenseifner(ranks: int, size_bytes: float) -> Plan:
    """Return the all-reduce by recursive halving, nearest partner first, then doubling back; any number of ranks.

    Before it the first pairs swap and add halves and the odd rank hands its half over; after it, it gets the sum.

    >>> [float(each.size_bytes[0]) for each in rabenseifner(4, 80.0).rounds]
    [40.0, 20.0, 20.0, 40.0]
    """
    size, partners = _cube(ranks)
    names, idle = _survivors(ranks, odd=False)
    pieces = 2 * size
    gather = met(partners[::-1], names, np.full(size, 2), size_bytes / pieces)
    rounds = (*backwards(gather), *gather)
    if not idle.size:
        return Plan(rounds, pieces)
    left, right = np.arange(size), np.arange(size, pieces)
    halves = [*[right] * idle.size, *[left] * idle.size]
    swap = messages([*(idle - 1), *idle], [*idle, *(idle - 1)], size_bytes / 2, adds=True, pieces=lambda _: halves)
    hand = messages(idle, idle - 1, size_bytes / 2, pieces=lambda _: [right] * idle.size)
    back = messages(idle - 1, idle, size_bytes, pieces=lambda _: [np.arange(pieces)] * idle.size)
    return Plan((swap, hand, *rounds, back), pieces)


def swing_partners(shape: Sequence[int], start: int, mirrored: bool) -> list[IntArray]:
    """Return every rank's partner in each step of one Swing, whose steps take the axes in turn from `start`.

    On one axis an even coordinate meets the one δ(s) = (1 - (-2)^(s+1))/3 ahead (1, -1, 3, -5 …), an odd one the one as
    far behind; mirrored, the other way round.

    >>> [partner.tolist() for partner in swing_partners((4,), 0, mirrored=False)]
    [[1, 0, 3, 2], [3, 2, 1, 0]]
    """
    rank = np.arange(prod(shape))
    done = [0] * len(shape)
    partners: list[IntArray] = []
    turn = start
    while len(partners) < rank.size.bit_length() - 1:
        axis, turn = turn % len(shape), turn + 1
        if 1 << done[axis] >= shape[axis]:
            continue
        stride = prod(shape[:axis])
        digit = rank // stride % shape[axis]
        ahead = (1 - (-2) ** (done[axis] + 1)) // 3 * np.where((digit % 2 == 0) != mirrored, 1, -1)
        partners.append(rank + ((digit + ahead) % shape[axis] - digit) * stride)
        done[axis] += 1
    return partners


def _side_by_side(several: Sequence[tuple[Round, ...]], pieces: int) -> tuple[Round, ...]:
    """Return rounds with the messages of several schedules at once; the pieces of each are numbered after the last's."""

    def merged(number: int) -> Round:
        rounds = [each[number] for each in several]

        def carried(turn: int) -> Sequence[IntArray]:
            parts = [each.pieces(turn) if each.pieces else () for each in rounds]
            return [row + index * pieces for index, part in enumerate(parts) for row in part]

        sender, receiver, sizes = (
            np.concatenate([getattr(each, name) for each in rounds]) for name in ("sender", "receiver", "size_bytes")
        )
        return messages(sender, receiver, sizes, pieces=carried)

    return tuple(merged(number) for number in range(len(several[0])))


def swing(shape: Sequence[int], size_bytes: float) -> Plan:
    """Return the all-gather of 2d Swings at once on a torus whose sides are powers of two.

    Each starts on another axis or is mirrored, so that all links work. The last step of a Swing, between neighbours,
    moves half of its share.

    >>> [float(each.size_bytes[0]) for each in swing((8,), 160.0).rounds]
    [10.0, 20.0, 40.0]
    """
    ranks = prod(shape)
    each = np.arange(ranks)
    count = 2 * len(shape)
    piece_bytes = size_bytes / (ranks * count)
    several = [
        met(swing_partners(shape, start, mirrored)[::-1], each, np.ones_like(each), piece_bytes)
        for mirrored in (False, True)
        for start in range(len(shape))
    ]
    return Plan(_side_by_side(several, ranks), ranks * count)


def _shift(ranks: int, by: int, offsets: IntArray, piece_bytes: float) -> Round:
    """Return the round in which rank r sends to r + by what it has of ranks r + offset."""
    rank = np.arange(ranks)
    size_bytes = offsets.size * piece_bytes
    return messages(rank, (rank + by) % ranks, size_bytes, pieces=lambda _: (rank[:, None] + offsets) % ranks)


def bruck(ranks: int, size_bytes: float) -> Plan:
    """Return Bruck's all-gather: all that a rank has goes 1, 2, 4 … back, the last round only what is missing.

    >>> [float(each.size_bytes[0]) for each in bruck(6, 60.0).rounds]
    [10.0, 20.0, 20.0]
    """
    steps = [1 << bit for bit in range((ranks - 1).bit_length())]
    held = [np.arange(min(step, ranks - step)) for step in steps]
    shifts = (_shift(ranks, -step, have, size_bytes / ranks) for step, have in zip(steps, held, strict=True))
    return Plan(tuple(shifts), ranks)


def pat(ranks: int, size_bytes: float, aggregate: int = 0) -> Plan:
    """Return PAT's all-gather: Bruck's with the far steps first, at most `aggregate` pieces in a message.

    Offset s comes from offset s less its lowest bit d, over a distance of d, so every piece spreads down a binomial tree
    with its long edges first. The first log₂(A) steps aggregate 1, 2 … A/2 pieces; then every offset below the stride
    2^⌈log₂ n⌉/A is a step of its own, parents first, with all the pieces that lie whole strides beyond it. A is a power
    of two; 0 for all (NCCL for small sizes): ⌈log₂ n⌉ steps.

    >>> [float(each.size_bytes[0]) for each in pat(8, 80.0).rounds]
    [10.0, 20.0, 40.0]
    >>> [float(each.size_bytes[0]) for each in pat(8, 80.0, aggregate=2).rounds]
    [10.0, 20.0, 20.0, 20.0]
    """
    top = 1 << (ranks - 1).bit_length()
    most = max(1, top // 2)
    width = min(aggregate, most) if aggregate else most
    stride = top // width
    far = [(top >> step, np.arange(top >> step, ranks, top >> (step - 1))) for step in range(1, width.bit_length())]
    near = [(offset & -offset, np.arange(offset, ranks, stride)) for offset in _parents_first(stride)]
    rounds = (
        _shift(ranks, -distance, offsets - distance, size_bytes / ranks)
        for distance, offsets in (*far, *near)
        if offsets.size
    )
    return Plan(tuple(rounds), ranks)


def _parents_first(stride: int) -> list[int]:
    """Return the offsets below a stride, depth first with the large ones first: NCCL's order.

    >>> _parents_first(8)
    [4, 6, 7, 5, 2, 3, 1]
    """

    def below(base: int, bit: int) -> list[int]:
        found = []
        while bit:
            found += [base + bit, *below(base + bit, bit // 2)]
            bit //= 2
        return found

    return below(0, stride // 2)


def neighbor(ranks: int, size_bytes: float) -> Plan:
    """Return the neighbour exchange: all-gather in n/2 rounds with the two neighbours in turn; ranks are even.

    After the first round a rank passes on the two pieces that it got last.

    >>> [(int(each.receiver[0]), float(each.size_bytes[0])) for each in neighbor(6, 60.0).rounds]
    [(1, 10.0), (5, 20.0), (1, 20.0)]
    """
    rank = np.arange(ranks)
    sign = np.where(rank % 2 == 0, 1, -1)
    pair = rank - rank % 2

    def held(number: int) -> IntArray:
        """Return the first of the pair of pieces that each rank got in a round; its own pair for round 0."""
        turn = sign * (-1 if number % 2 else 1)
        first: IntArray = (pair + turn * 2 * ((number + 1) // 2)) % ranks if number else pair
        return first

    def exchange(number: int) -> Round:
        partner = (rank + (sign if number % 2 == 0 else -sign)) % ranks
        if number == 0:
            return messages(rank, partner, size_bytes / ranks, pieces=lambda _: rank[:, None])
        return messages(
            rank, partner, 2 * size_bytes / ranks, pieces=lambda _: held(number - 1)[:, None] + np.array([0, 1])
        )

    return Plan(Rounds(ranks // 2, exchange), ranks)


def scattered(plan: Plan) -> Plan:
    """Return the reduce-scatter that an all-gather is backwards."""
    return Plan(backwards(plan.rounds), plan.pieces)


def summed(plan: Plan) -> Plan:
    """Return the all-reduce of an all-gather backwards, then forwards."""
    return Plan((*backwards(plan.rounds), *plan.rounds), plan.pieces)
