"""A decoding deployment as trains: when they depart, how many seats they have, and the worst wait for one.

A step takes along every sequence that has a seat. Who comes just after a departure waits for the next one, and has the
token when that one arrives: two steps at worst, the longest being one that a token budget of prompts rides on.
"""

from dataclasses import dataclass

from parallel.serving.queueing import Limits, StepCost


@dataclass(frozen=True, slots=True)
class Departures:
    """What the steps of all attention groups look like to a passenger.

    Attributes
    ----------
    cadence_s : mean time between two departures
    longest_s : of a step that feeds a whole token budget of prompts
    seats, taken : sequences that a step takes along at most, and on average
    worst_wait_s : from coming to the token, a seat being free: two departures
    """

    cadence_s: float
    longest_s: float
    seats: int
    taken: float
    worst_wait_s: float


def departures(
    step_s: StepCost,
    limits: Limits,
    groups: float,
    decoding: float,
    context: float,
    cadence_s: float,
    isl: float,
    osl: float,
    factor: float = 1.0,
) -> Departures:
    """Return the departures of `groups` attention groups that decode `decoding` sequences each; `factor` calibrates a step.

    >>> limits = Limits(sequences=8, tokens=100, positions=1e9)
    >>> told = departures(lambda b, n, p, q: 0.02 + p * 1e-4, limits, 2, 4, 50, 0.021, 200, 20)
    >>> told.seats, told.taken, round(told.longest_s, 6), round(told.worst_wait_s, 6)
    (16, 8, 0.03, 0.06)
    """
    seats = max(min(limits.sequences, limits.positions / (isl + osl + limits.kept)), 1.0)
    prompt = min(limits.tokens, max(seats * isl, 1.0))
    beside = decoding if limits.mixed else 0.0
    longest = max(factor * step_s(beside, beside * context, prompt, prompt * min(prompt, isl) / 2.0), cadence_s)
    return Departures(cadence_s, longest, int(seats * groups), decoding * groups, 2.0 * longest)
