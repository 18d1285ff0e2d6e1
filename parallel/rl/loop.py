"""The loop of reinforcement learning, event by event: engines write answers, a trainer takes them by the batch.

With version i of the weights at most ``(i + η + 1)·B`` answers may have been begun (AReaL 2505.24298 §5.1, with B answers of
a step and staleness η). With η = 0 that is the synchronous loop: a batch is begun when the last one has been trained on, and
the trainer waits for its longest answer, while the engines drain and their steps grow shorter. With more, the engines go on
while the trainer works: new weights interrupt them, and what is begun is finished with them.
"""

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

import numpy as np

from parallel.serving.queueing import Limits, StepCost
from parallel.spread import Spread

SEED: Final = 2025
FEWEST: Final = 512
"""Answers of a batch that are simulated at least, where there are so many: of as many attention groups as that takes."""
MEASURED: Final = 6
"""Steps that the means are taken over, after those that fill the pipeline."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one step trains on.

    Attributes
    ----------
    count : answers of one step, B
    prompt : tokens of a prompt
    fed : prompt tokens that are computed for each answer: those of one prompt share its cache
    lengths : tokens of an answer
    """

    count: int
    prompt: float
    fed: float
    lengths: Spread


@dataclass(frozen=True, slots=True)
class Trainer:
    """Seconds of a step that the trainer takes, in its order, and of the weights on their way to the engines.

    `refill` says whether the caches of answers that are being written are computed again with the new weights.
    """

    forward_s: float
    train_s: float
    update_s: float
    refill: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """Means over steps.

    Attributes
    ----------
    step_s : of a step
    waited_s : in which the trainer has nothing to train on; the rest is its own work and the weights' way
    writing, paused : shares of the time in which the engines write, and take in weights and caches; the rest is idle
    running : answers that an attention group writes at once while it writes
    lag : versions between the weights that began an answer and those that it trains
    tokens : answer tokens of a step, over those of all answers at their mean length
    """

    step_s: float
    waited_s: float
    writing: float
    paused: float
    running: float
    lag: float
    tokens: float


class _Group:
    """One attention group: answers being written, and those that wait."""

    def __init__(self, cost: StepCost, limits: Limits, answers: Answers) -> None:
        self.cost, self.limits, self.answers = cost, limits, answers
        self.waiting: deque[int] = deque()  # tokens of answers not yet begun
        self.version = 0
        self.pace = 0.0  # seconds of each step to the next answer, as `done_at` left it
        self.ends: list[tuple[int, int, int]] = []  # (step after which an answer is done, its tokens, its version)
        self.now, self.steps, self.seen, self.held = 0.0, 0, 0.0, 0.0
        self.writing_s, self.paused_s, self.area = 0.0, 0.0, 0.0

    def admit(self) -> None:
        """Begin answers while there is room, and compute their prompts."""
        begun, prompt = 0, self.answers.prompt
        while self.waiting:
            need = prompt + self.waiting[0] + self.limits.kept
            if self.ends and (len(self.ends) >= self.limits.sequences or self.held + need > self.limits.positions):
                break
            tokens = self.waiting.popleft()
            heappush(self.ends, (self.steps + tokens, tokens, self.version))
            self.held += need
            self.seen += prompt
            begun += 1
        if begun:
            beside = len(self.ends) - begun if self.limits.mixed else 0
            self.writing_s += self._feed(begun * self.answers.fed, self.answers.prompt, beside)

    def _feed(self, tokens: float, seen: float, beside: int) -> float:
        """Compute tokens that see so many positions at the end, in passes of the token budget; return the seconds.

        Fed beside sequences that decode, they take what they add to a step.
        """
        positions = self.seen if beside else 0.0
        bare = self.cost(beside, positions, 0.0, 0.0) if beside else 0.0
        whole, budget = 0.0, self.limits.tokens
        passes, rest = divmod(tokens, budget)
        for take, times in ((budget, passes), (rest, 1.0)):
            if take and times:
                whole += times * (self.cost(beside, positions, take, take * seen / 2.0) - bare)
        self.now += whole
        return whole

    def _each(self, steps: int) -> float:
        """Seconds of each of so many steps from here."""
        many = len(self.ends)
        return self.cost(many, self.seen + many * (steps - 1) / 2.0, 0.0, 0.0)

    def done_at(self) -> float:
        """Time at which the next answer is done; infinite where none is written."""
        if not self.ends:
            return float("inf")
        steps = self.ends[0][0] - self.steps
        self.pace = self._each(steps) if steps else 0.0
        return self.now + steps * self.pace

    def _write(self, steps: int, each: float) -> None:
        many = len(self.ends)
        self.now += steps * each
        self.writing_s += steps * each
        self.area += many * steps * each
        self.steps += steps
        self.seen += many * steps

    def finish(self) -> int:
        """Write until the answer of `done_at` is done; return the version that began it; begin others once a step is over."""
        steps = self.ends[0][0] - self.steps
        self._write(steps, self.pace)
        _, tokens, version = heappop(self.ends)
        self.held -= self.answers.prompt + tokens + self.limits.kept
        self.seen -= self.answers.prompt + tokens
        if not self.ends or self.ends[0][0] > self.steps:
            self.admit()
        return version

    def interrupt(self, at: float, update_s: float, *, refill: bool) -> None:
        """Write until new weights come, take them in, and compute the caches of what is being written again."""
        if self.ends and self.now < at:
            steps = self.ends[0][0] - self.steps
            each = self._each(steps) if steps else 0.0
            if each:
                self._write(min(int((at - self.now) / each), max(steps - 1, 0)), each)
        self.now = max(self.now, at) + update_s
        if refill and self.ends:
            update_s += self._feed(self.seen, self.seen / len(self.ends), 0)
        self.paused_s += update_s


def loop(
    cost: StepCost,
    limits: Limits,
    groups: int,
    answers: Answers,
    trainer: Trainer,
    staleness: int,
    steps: int = MEASURED,
) -> Told:
    """Run the loop until it repeats itself, and return means of its steps.

    Parameters
    ----------
    cost, limits : of one attention group of the engines
    groups : attention groups, among which the answers of a step are dealt

    Examples
    --------
    One group with room for four answers of ten tokens, whose steps take a second: 10 s of writing and 5 s of training, one
    after the other or side by side.

    >>> limits = Limits(sequences=4, tokens=100, positions=1e9)
    >>> def run(staleness):
    ...     ten = Answers(4, 1.0, 0.0, Spread(values=(10.0,)))
    ...     return loop(lambda *_: 1.0, limits, 1, ten, Trainer(0.0, 5.0, 0.0, refill=False), staleness)
    >>> run(0).step_s, run(0).waited_s, run(1).step_s
    (15.0, 10.0, 10.0)
    """
    dealt = _Dealt(cost, limits, groups, answers)
    free, begun = 0.0, 0
    ends, waited, lags = list[float](), list[float](), list[float]()
    for _ in range(staleness + 1):
        dealt.give(0)
    warm = staleness + 2
    for step in range(warm + steps):
        if step == warm:
            begun, waited, lags = len(ends), [], []
            dealt.reset()
        ready = dealt.wait()
        start = max(ready, free)
        waited.append(start - free)
        done = start + trainer.forward_s + trainer.train_s
        dealt.go_on(done)
        lags.append(step - dealt.take())
        for group in dealt.groups:
            group.interrupt(done, trainer.update_s, refill=trainer.refill)
        dealt.give(step + 1)
        free = done + trainer.update_s
        ends.append(free)
    seconds = (ends[-1] - ends[begun - 1]) / steps
    writing, paused, running = dealt.shares()
    whole = steps * seconds
    return Told(
        seconds, float(np.mean(waited)), writing / whole, paused / whole, running, float(np.mean(lags)), dealt.tokens
    )


class _Dealt:
    """A few attention groups in place of all of them, with their share of every batch."""

    def __init__(self, cost: StepCost, limits: Limits, groups: int, answers: Answers) -> None:
        each = max(round(answers.count / groups), 1)
        many = max(min(groups, -(-FEWEST // each)), 1)
        self.groups = [_Group(cost, limits, answers) for _ in range(many)]
        self.batch = each * many
        lengths = np.maximum(np.round(answers.lengths.draw(self.batch, longest_of=answers.count)), 1.0).astype(np.int64)
        self.lengths, self.rng = lengths, np.random.default_rng(SEED)
        self.tokens = float(np.mean(lengths)) / answers.lengths.mean
        self.next: list[tuple[float, int]] = []
        self.versions: deque[int] = deque()

    def give(self, version: int) -> None:
        """Deal a batch."""
        for index, tokens in enumerate(self.rng.permutation(self.lengths).tolist()):
            self.groups[index % len(self.groups)].waiting.append(tokens)
        for group in self.groups:
            group.version = version
            group.admit()
        self.next = [(group.done_at(), index) for index, group in enumerate(self.groups)]
        heapify(self.next)

    def _one(self) -> float:
        """Finish the answer that is done first; return when."""
        at, index = self.next[0]
        self.versions.append(self.groups[index].finish())
        heapreplace(self.next, (self.groups[index].done_at(), index))
        return at

    def wait(self) -> float:
        """Write until there is a batch; return when its last answer was done."""
        at = 0.0
        while len(self.versions) < self.batch:
            at = self._one()
        return at

    def go_on(self, until: float) -> None:
        """Write until a time."""
        while self.next[0][0] <= until:
            self._one()

    def take(self) -> float:
        """Take the batch that has been finished longest; return the mean version that began it."""
        return float(np.mean([self.versions.popleft() for _ in range(self.batch)]))

    def reset(self) -> None:
        """Count from here."""
        for group in self.groups:
            group.writing_s = group.paused_s = group.area = 0.0

    def shares(self) -> tuple[float, float, float]:
        """Return seconds of writing and of pauses, means over groups, and answers at once while one writes."""
        writing, paused, area = (
            float(np.mean([getattr(group, name) for group in self.groups]))
            for name in ("writing_s", "paused_s", "area")
        )
        return writing, paused, area / writing if writing else 0.0
