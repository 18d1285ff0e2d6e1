"""What a schedule is made of: rounds of messages that start together, and what their messages carry.

A round is three arrays of equal length. Who sends what to whom is all that a price needs; which pieces of the buffer a
message carries (`Round.pieces`) is computed only when asked for, to check that the schedule does what it promises.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.signedinteger[Any]]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Rows = Sequence[IntArray] | IntArray
Pieces = Callable[[int], Rows]
"""Repetition (0 … repeat-1) → for each message, the numbers of the pieces in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """Messages that start together.

    Parameters
    ----------
    sender, receiver
        Ranks from 0. A negative number -1-o is a reducing switch: the messages to it in one round are added where their
        routes meet, those from it are copies of one result, made where their routes part. It belongs to rank o: any
        adding switch over the ranks that exchange messages with it.
    size_bytes
        Payload of each message.
    repeat
        So many identical rounds, one after the other (the n-1 of a ring): priced once, times `repeat`.
    adds
        Whether the receiver adds what comes to what it has, for all messages or for each.
    pieces
        What each message carries; not needed for a price.
    """

    sender: IntArray
    receiver: IntArray
    size_bytes: FloatArray
    repeat: int = 1
    adds: bool | BoolArray = False
    pieces: Pieces | None = field(default=None, repr=False)


def messages(
    sender: npt.ArrayLike,
    receiver: npt.ArrayLike,
    size_bytes: npt.ArrayLike,
    repeat: int = 1,
    adds: bool | BoolArray = False,
    pieces: Pieces | None = None,
) -> Round:
    """Return a round, with one size for all messages or a size for each.

    >>> messages([0, 1], [1, 0], 4.0).size_bytes
    array([4., 4.])
    """
    sender = np.asarray(sender, dtype=np.int64)
    sizes = np.broadcast_to(np.asarray(size_bytes, dtype=np.float64), sender.shape)
    return Round(sender, np.asarray(receiver, dtype=np.int64), sizes, repeat, adds, pieces)


@dataclass(frozen=True, slots=True, eq=False)
class Rounds(Sequence[Round]):
    """Rounds made on access, so that the 4,095 of a pairwise exchange of 4,096 ranks never exist at once.

    Examples
    --------
    >>> shifts = Rounds(3, lambda step: messages([0], [step + 1], 1.0))
    >>> len(shifts), shifts[-1].receiver
    (3, array([3]))
    """

    number: int
    make: Callable[[int], Round]

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Round: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Round]: ...
    def __getitem__(self, index: int | slice) -> Round | Sequence[Round]:
        if isinstance(index, slice):
            return tuple(self.make(step) for step in range(*index.indices(self.number)))
        if not -self.number <= index < self.number:
            msg = f"round {index} of {self.number}"
            raise IndexError(msg)
        return self.make(index % self.number)

    def __iter__(self) -> Iterator[Round]:
        return (self.make(step) for step in range(self.number))


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Who sends what to whom, round after round.

    A rank's sends of a round wait for its own sends and receipts of the round before, unless `posted`.

    Parameters
    ----------
    op, algorithm
        Keys of `SCHEDULES`.
    ranks
        Ranks of the group, numbered 0 … ranks-1 in placement order.
    size_bytes
        S as nccl-tests counts it for the operation.
    rounds
        A sequence of rounds; some make them on access.
    posted
        Whether every message is posted at once, in the order of the rounds, without waiting.
    network
        What must hold beyond messages between ranks: "reduction" where switches must add (negative ranks).
    pieces
        Equal pieces that S is cut into, n of them for an all-to-all; not needed for a price.
    """

    op: str
    algorithm: str
    ranks: int
    size_bytes: float
    rounds: Sequence[Round]
    posted: bool = False
    network: str = ""
    pieces: int = 1

    @property
    def steps(self) -> int:
        """Rounds one after the other, repetitions counted."""
        return sum(each.repeat for each in self.rounds)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a rule writes: rounds, and what a `Schedule` says of them (`pieces`, `posted`, `network`)."""

    rounds: Sequence[Round]
    pieces: int = 1
    posted: bool = False
    network: str = ""


def backwards(rounds: Sequence[Round], adds: bool = True) -> tuple[Round, ...]:
    """Return the rounds in reverse order, every message going the other way.

    An all-gather run backwards, its receivers adding, is a reduce-scatter; a broadcast is a reduce. A piece that reached
    every rank exactly once, along a tree, comes back along the same tree.

    >>> back = backwards([messages([0], [1], 4.0), messages([1], [2], 8.0)])
    >>> [(int(each.sender[0]), int(each.receiver[0])) for each in back]
    [(2, 1), (1, 0)]
    """

    def turned(each: Round) -> Round:
        pieces = each.pieces
        flipped = None if pieces is None else lambda turn: pieces(each.repeat - 1 - turn)
        return Round(each.receiver, each.sender, each.size_bytes, each.repeat, adds, flipped)

    return tuple(turned(each) for each in reversed(rounds))


@dataclass(frozen=True, slots=True, eq=False)
class Stages:
    """Messages that chunk after chunk goes through: message i carries chunk c in round start[i] + c.

    `base()` names, for each message, the parts of S in it; part p of chunk c is piece p · chunks + c.
    """

    sender: IntArray
    receiver: IntArray
    size_bytes: FloatArray
    start: IntArray
    adds: BoolArray
    base: Callable[[], Rows]


def join(stages: Sequence[Stages]) -> Stages:
    """Return the messages of several stages as one."""

    def every(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(each, name) for each in stages])

    return Stages(
        every("sender"),
        every("receiver"),
        every("size_bytes"),
        every("start"),
        every("adds"),
        base=lambda: [part for each in stages for part in each.base()],
    )


def stage(
    sender: npt.ArrayLike,
    receiver: npt.ArrayLike,
    size_bytes: npt.ArrayLike,
    start: npt.ArrayLike,
    base: Callable[[], Rows],
    adds: bool = False,
) -> Stages:
    """Return messages with their start; sizes and starts may be one for all."""
    sender = np.asarray(sender, dtype=np.int64)
    sizes = np.broadcast_to(np.asarray(size_bytes, dtype=np.float64), sender.shape)
    starts = np.broadcast_to(np.asarray(start, dtype=np.int64), sender.shape)
    receiver = np.asarray(receiver, dtype=np.int64)
    return Stages(sender, receiver, sizes, starts, np.full(sender.shape, adds), base)


def pipelined(stages: Sequence[Stages], chunks: int) -> tuple[Round, ...]:
    """Return the rounds of a pipeline: every message repeats once per chunk, from its own start.

    Rounds with the same messages at work become one with a repeat.

    >>> chain = stage([0, 1], [1, 2], 1.0, [0, 1], lambda: [])
    >>> [(each.sender.tolist(), each.repeat) for each in pipelined([chain], 4)]
    [([0], 1), ([0, 1], 3), ([1], 1)]
    """
    every = join(stages)
    edges = np.unique(np.concatenate([every.start, every.start + chunks]))

    def segment(first: int, last: int) -> Round:
        on = np.flatnonzero((every.start <= first) & (first < every.start + chunks))

        def pieces(turn: int) -> Rows:
            parts = every.base()
            return [parts[int(index)] * chunks + (first + turn - int(every.start[index])) for index in on]

        sizes = every.size_bytes[on]
        return Round(every.sender[on], every.receiver[on], sizes, last - first, every.adds[on], pieces)

    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    return tuple(each for each in (segment(first, last) for first, last in pairs) if each.sender.size)


def chunks_of(size_bytes: float, chunk_bytes: float) -> int:
    """Return how many chunks of at most `chunk_bytes` a buffer is sent in, at least one.

    >>> chunks_of(1e6, 2**19), chunks_of(0, 2**19)
    (2, 1)
    """
    return max(1, math.ceil(size_bytes / chunk_bytes))


CHUNK_BYTES = 2.0**19
"""Bytes of a chunk in a pipeline unless asked otherwise: NCCL's buffer of 4 MiB in 8 steps."""
