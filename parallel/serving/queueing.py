"""Continuous batching, step by step: who waits, who is fed, who decodes, and when each gets its tokens.

A step gives one token to every decoding sequence and feeds prompts in the order of arrival, beside the decoding ones
(`mixed`) or instead of them, up to a token budget. A request is admitted when the cache can hold it to its last token.
While nothing waits, the simulation jumps to the next completion, or to the next look at the queue.

Sources: Yu et al., Orca (OSDI 2022) §3; Kwon et al., vLLM 2309.06180 §4; Agrawal et al., Sarathi-Serve 2403.02310 §4.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
SATURATED = 0.9
"""Share of the time that prompts may take, and of the requests that may be running at once, before a run counts as full."""


class StepCost(Protocol):
    """What one step costs."""

    def __call__(self, decoding: float, positions: float, prompt: float, pairs: float, /) -> float:
        """Seconds of a step.

        Parameters
        ----------
        decoding, positions : sequences that get a token, and cached positions that they see together
        prompt, pairs : prompt tokens fed, and (token, earlier position) pairs of these
        """
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine admits, and when it looks for new requests.

    Attributes
    ----------
    sequences : most sequences at once
    tokens : token budget of a step
    positions : cache positions that the memory holds
    mixed : whether prompts are fed beside decoding sequences; otherwise decoding waits
    poll_steps : decoding steps between looks at the queue
    wait_steps : decoding steps that prompts are held back, to feed several at once ...
    wait_tokens : ... unless so many prompt tokens wait
    delay_s : seconds from the client to the queue: who is answered is back no sooner
    kept : positions that a sequence takes beside its own, for what it caches whatever its length
    """

    sequences: float
    tokens: float
    positions: float
    mixed: bool = True
    poll_steps: int = 1
    wait_steps: int = 0
    wait_tokens: float = 0.0
    delay_s: float = 0.0
    kept: float = 0.0


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Clients that all send at once at the start, and then as soon as they are answered."""

    clients: int


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests at given times, in order, whatever becomes of those before."""

    times_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """Times of every request: to the first token, for each further token, to the last token; and of the run.

    `most_running` is how many were admitted at once at most, `saturated` whether the limits held requests back.
    """

    ttft_s: Times
    tpot_s: Times
    e2e_s: Times
    seconds: float
    most_running: int
    saturated: bool

    def percentiles(self, *shares: float) -> dict[str, dict[float, float]]:
        """Return the mean (under 0) and percentiles of each time.

        >>> one = np.array([1.0, 2.0, 3.0])
        >>> Served(one, one, one, 3.0, 1, False).percentiles(50.0)["ttft_s"]
        {0: 2.0, 50.0: 2.0}
        """
        times = {"ttft_s": self.ttft_s, "tpot_s": self.tpot_s, "e2e_s": self.e2e_s}
        return {
            name: {0: float(np.mean(found)), **{share: float(np.percentile(found, share)) for share in shares}}
            for name, found in times.items()
        }


def simulate(
    step_s: StepCost, limits: Limits, arrivals: ClosedLoop | OpenLoop, inputs: Sequence[int], outputs: Sequence[int]
) -> Served:
    """Serve as many requests as lengths are given, in the order in which they are sent.

    Parameters
    ----------
    inputs, outputs : prompt tokens and answer tokens of each request

    Examples
    --------
    Two clients, steps of one second whatever is in them, four requests of three tokens each. The first token comes with
    the prompt, so a request takes three steps, and a client sends twice.

    >>> limits = Limits(sequences=8, tokens=100, positions=1e9)
    >>> served = simulate(lambda *_: 1.0, limits, ClosedLoop(2), [10] * 4, [3] * 4)
    >>> served.ttft_s.tolist(), served.tpot_s.tolist(), served.seconds
    ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 6.0)
    """
    run = _Run(step_s, limits, arrivals, inputs, outputs)
    while run.done < len(inputs):
        run.look()
        run.admit()
        if run.feeding:
            run.feed()
        else:
            run.jump()
        run.finish()
    return run.served()


class _Run:
    """The state of one simulation. `seen` counts cached positions, `held` those reserved to the last token."""

    def __init__(
        self,
        step_s: StepCost,
        limits: Limits,
        arrivals: ClosedLoop | OpenLoop,
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> None:
        count = len(inputs)
        self.step_s, self.limits, self.inputs, self.outputs = step_s, limits, inputs, outputs
        self.sent, self.first, self.last = np.zeros(count), np.zeros(count), np.zeros(count)
        self.closed, self.span_s = isinstance(arrivals, ClosedLoop), math.inf
        if isinstance(arrivals, ClosedLoop):
            self.following = min(arrivals.clients, count)
        else:
            self.sent[:], self.following = arrivals.times_s[:count], count
            self.span_s = float(self.sent[-1])  # prompts that need longer than they took to come pile up
        self.coming = deque(range(self.following))  # sent or about to be, not yet seen by the engine
        self.waiting: deque[int] = deque()
        self.feeding: deque[int] = deque()  # admitted; `fed` tokens of the first one's prompt are through
        self.ends: list[tuple[int, int]] = []  # (step after which a sequence is done, request)
        self.now, self.steps, self.look_at, self.held_since = 0.0, 0, 0, -1
        self.fed, self.held, self.seen, self.done = 0, 0.0, 0.0, 0
        self.most, self.gathered, self.refused, self.prompt_s = 0, True, False, 0.0

    @property
    def arrives_s(self) -> float:
        """When the next request reaches the queue."""
        return float(self.sent[self.coming[0]]) + self.limits.delay_s

    def look(self) -> None:
        """Take in what has arrived, where it is time to look; an idle engine waits for the next request."""
        if not self.ends and not self.feeding and not self.waiting and self.coming:
            self.now = max(self.now, self.arrives_s)
        if not self.ends or self.steps >= self.look_at:
            self.look_at = self.steps + self.limits.poll_steps
            while self.coming and self.arrives_s <= self.now:
                self.waiting.append(self.coming.popleft())

    def admit(self) -> None:
        """Admit requests in their order while there is room, unless prompts are still being gathered."""
        limits = self.limits
        self.gathered = True
        if limits.wait_steps and self.waiting and not self.feeding:
            self.held_since = self.steps if self.held_since < 0 else self.held_since
            self.gathered = (
                not self.ends
                or self.steps - self.held_since >= limits.wait_steps
                or sum(self.inputs[request] for request in self.waiting) >= limits.wait_tokens
            )
        while self.gathered and self.waiting:
            running = len(self.ends) + len(self.feeding)
            need = self.inputs[self.waiting[0]] + self.outputs[self.waiting[0]] + limits.kept
            if running and (running >= limits.sequences or self.held + need > limits.positions):
                self.refused = True
                break
            self.held += need
            self.feeding.append(self.waiting.popleft())
            self.held_since = -1
        self.most = max(self.most, len(self.ends) + len(self.feeding))

    def jump(self) -> None:
        """Decode until a sequence is done or the queue is looked at."""
        decoding = len(self.ends)
        run = self.ends[0][0] - self.steps
        if self.waiting and not self.gathered:
            run = min(run, self.held_since + self.limits.wait_steps - self.steps)
        each = self.step_s(decoding, self.seen + decoding * (run - 1) / 2.0, 0.0, 0.0)
        if self.coming:
            late = max(math.ceil((self.arrives_s - self.now) / each), 1)
            looks = math.ceil(max(late - (self.look_at - self.steps), 0) / self.limits.poll_steps)
            run = min(run, self.look_at - self.steps + looks * self.limits.poll_steps)
        self.now += run * each
        self.steps += run
        self.seen += decoding * run
        behind = math.ceil((self.steps - self.look_at) / self.limits.poll_steps)
        self.look_at += self.limits.poll_steps * max(behind, 0)

    def feed(self) -> None:
        """Feed prompts up to the token budget, beside the decoding sequences or instead of them."""
        beside = len(self.ends) if self.limits.mixed else 0
        budget = max(self.limits.tokens - beside, 1.0)
        prompt, pairs, whole = 0.0, 0.0, []
        while self.feeding and prompt < budget:
            request = self.feeding[0]
            take = int(min(self.inputs[request] - self.fed, max(budget - prompt, 1.0)))
            pairs += take * (self.fed + take / 2.0)
            prompt += take
            self.fed += take
            if self.fed < self.inputs[request]:
                break
            whole.append(self.feeding.popleft())
            self.fed = 0
        seconds = self.step_s(beside, self.seen if beside else 0.0, prompt, pairs)
        self.now += seconds
        self.prompt_s += seconds
        self.look_at = self.steps  # the queue is looked at after a prompt
        if beside:
            self.steps += 1
            self.seen += beside
        for request in whole:
            self.first[request] = self.now
            self.seen += self.inputs[request]
            heappush(self.ends, (self.steps + self.outputs[request] - 1, request))

    def finish(self) -> None:
        """Take out the sequences that are done; their clients send again."""
        while self.ends and self.ends[0][0] <= self.steps:
            _, request = heappop(self.ends)
            self.last[request] = self.now
            self.held -= self.inputs[request] + self.outputs[request] + self.limits.kept
            self.seen -= self.inputs[request] + self.outputs[request] - 1
            self.done += 1
            if self.closed and self.following < len(self.inputs):
                self.sent[self.following] = self.now
                self.coming.append(self.following)
                self.following += 1

    def served(self) -> Served:
        """Return the times."""
        count = len(self.inputs)
        spans = np.maximum(np.asarray(self.outputs, dtype=np.float64) - 1.0, 1.0)
        return Served(
            self.first - self.sent,
            (self.last - self.first) / spans,
            self.last - self.sent,
            self.now,
            self.most,
            self.refused or self.prompt_s > SATURATED * min(self.now, max(self.span_s, 2.0 * self.prompt_s / count)),
        )
