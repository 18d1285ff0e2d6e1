"""A device's list in the making: write schedules as words, micro-batches count themselves."""

from collections import Counter, deque

from collectives.pipelines.actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action

Side = tuple[int, int]


class Hand:
    """Writes one device's actions, over two sides: (pipe, virtual stage) each.

    A word is a kind and a side: `F0` is the next forward of side 0, `I1` the next gradient of the input of side 1, `W0` the
    next gradient of the weights of side 0, `W` the oldest one owed on either side; `F0&B1` runs both overlapped.
    Micro-batches past the last are counted and left out.

    Examples
    --------
    >>> hand = Hand(((0, 0), (0, 3)), microbatches=2)
    >>> hand.play("F0 F1 I1 W", 1)
    >>> [action.kind + str(action.virtual) for action in hand.listed]
    ['F0', 'F3', 'I3', 'W3']
    """

    def __init__(self, sides: tuple[Side, Side], microbatches: int, first: tuple[int, int] = (0, 0)) -> None:
        self.sides, self.microbatches, self.first = sides, microbatches, first
        self.done: Counter[str] = Counter()
        self.owed: deque[Action] = deque()
        self.listed: list[Action] = []

    def play(self, words: str, times: int) -> None:
        """Append the words in turn, so many times."""
        for _ in range(times):
            for word in words.split():
                if word == WEIGHT:
                    self.listed += [self.owed.popleft()] if self.owed else []
                for n, single in enumerate(word.split("&") if word != WEIGHT else []):
                    self._put(single[0], int(single[1]), paired=n > 0)

    def _put(self, kind: str, side: int, paired: bool) -> None:
        """Append the next micro-batch's action of one kind and side."""
        stream = (BACKWARD if kind == INPUT else kind) + str(side)
        k = self.done[stream]
        self.done[stream] += 1
        if k < self.microbatches:
            pipe, virtual = self.sides[side]
            self.listed.append(Action(kind, virtual, self.first[side] + k, pipe, paired))
            if kind == INPUT:
                self.owed.append(Action(WEIGHT, virtual, self.first[side] + k, pipe))

    def forwards(self, side: int) -> int:
        """Return how many forwards of a side are listed, left-out ones included."""
        return self.done[FORWARD + str(side)]
