"""The smallest cluster for a demand, and the most throughput for a budget: whole domains, each size searched anew.

Throughput grows with the cluster, but not always: batches have to divide. The size is found by doubling and bisection, then
sizes below it are tried, and a smaller one that does is taken in its place.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from clusters.build import bill, build
from clusters.spec import ClusterSpec
from parallel.economics import hour_usd, usd_per_million
from parallel.explain.point import Point
from parallel.questions.figures import set_field
from parallel.questions.outcome import Outcome, best_of
from topo.errors import Fault, InfeasibleError, SpecError

Progress = Callable[[int, int], None]

DAY_S: Final = 86_400.0
MOST: Final = 131_072
"""Accelerators up to which clusters are tried."""
BELOW: Final = (1, 2, 3)
"""Domains below an answer that are tried again."""
SHARES: Final = (0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of an answer that are tried again."""
EQUAL: Final = 1e-3
"""A cluster within a budget is not made larger for less than this share of tokens."""
ROUNDING: Final = 1e-12
"""A rate that was asked for as tokens in a time is met in spite of the last digit."""
BUDGETS: Final = {"power_W": ("watts", "W"), "price_usd": ("dollars", "USD")}
"""Sums of the bill that may be limited: what they are called, their unit."""


@dataclass(frozen=True)
class Wish:
    """What is asked for: a rate, tokens in a time, or as much as a budget allows.

    Attributes
    ----------
    tokens_per_s : of the whole cluster
    tokens, days : so many tokens in so many days
    power_W, price_usd : the most that the parts of the bill may draw and cost
    most : accelerators up to which clusters are tried
    """

    tokens_per_s: float | None = None
    tokens: float | None = None
    days: float | None = None
    power_W: float | None = None
    price_usd: float | None = None
    most: int = MOST

    def __post_init__(self) -> None:
        """Refuse what is no question, every fault at once."""
        given = {name: getattr(self, name) for name in ("tokens_per_s", "tokens", "days", *BUDGETS)}
        faults = [
            Fault(name, value, "must be positive", "give a number above zero")
            for name, value in {**given, "most": self.most}.items()
            if value is not None and not (value > 0 and math.isfinite(value))
        ]
        if (self.tokens is None) != (self.days is None):
            faults.append(Fault("days", self.days, "goes with tokens", "give both: tokens, and days to train on them"))
        if self.tokens_per_s is not None and self.tokens is not None:
            faults.append(Fault("tokens_per_s", self.tokens_per_s, "stands beside tokens and days", "give one of them"))
        if all(value is None for value in given.values()):
            remedy = "give a rate, tokens and days, watts or dollars"
            faults.append(Fault("demand", None, "nothing is asked for", remedy))
        if faults:
            raise SpecError(faults)

    @property
    def needed(self) -> float | None:
        """Tokens per second that are needed; None where only a budget is given.

        >>> Wish(tokens=8.64e12, days=10).needed
        10000000.0
        """
        if self.tokens is not None and self.days is not None:
            return self.tokens / (self.days * DAY_S)
        return self.tokens_per_s

    @property
    def budgets(self) -> dict[str, float]:
        """The sums that are limited."""
        return {name: value for name in BUDGETS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Trial:
    """A cluster of so many accelerators: its best split, and its bill."""

    accelerators: int
    outcome: Outcome
    parts: Mapping[str, Any] = field(default_factory=dict)

    def over(self, wish: Wish) -> str:
        """Say which budget is broken, and by how much; empty where none is."""
        for name, limit in wish.budgets.items():
            value = self.parts.get(name)
            if value is not None and value > limit:
                said, unit = BUDGETS[name]
                return f"{said}: {self.accelerators:,} accelerators take {value:,.4g} {unit} of {limit:,.4g}"
        return ""

    def short(self, wish: Wish) -> str:
        """Say why the demand is not met; empty where it is."""
        if not self.outcome.feasible:
            return self.outcome.broken or "nothing runs"
        if wish.needed is None or self.outcome.tokens_per_s >= wish.needed * (1.0 - ROUNDING):
            return ""
        rate, share = self.outcome.tokens_per_s, self.outcome.tokens_per_s / wish.needed
        return (
            f"throughput: {self.accelerators:,} accelerators give {rate:,.4g} tokens/s, {share:.1%} of what is needed"
        )


class Sizes:
    """Clusters of whole domains, each searched once."""

    def __init__(self, point: Point, progress: Progress | None = None) -> None:
        self.point, self.progress = point, progress
        self.step = point.cluster.domain * (point.cluster.sites.count if point.cluster.sites else 1)
        self.known: dict[int, Trial] = {}

    def spec(self, many: int) -> ClusterSpec:
        """Cluster of so many domains."""
        return set_field(self.point.cluster, "accelerators", many * self.step)

    def parts(self, many: int) -> Mapping[str, Any]:
        """Bill of a cluster of so many domains."""
        return bill(build(self.spec(many)))

    def at(self, many: int) -> Trial:
        """Best split on so many domains."""
        if many not in self.known:
            size = many * self.step
            try:
                self.known[many] = Trial(size, best_of(self.point, self.spec(many)), self.parts(many))
            except SpecError as error:
                self.known[many] = Trial(size, Outcome(broken=f"cannot be wired: {error.faults[0].problem}"))
            if self.progress is not None:
                self.progress(len(self.known), len(self.known) + 1)
        return self.known[many]


def size(point: Point, wish: Wish, progress: Progress | None = None) -> dict[str, Any]:
    """Return the smallest cluster of the point's kind that does what is wished, and its split.

    With a budget alone: the cluster within it that makes the most tokens, the smallest of equals.

    Raises
    ------
    InfeasibleError
        No cluster does, with what binds and by how much.
    """
    if point.cluster.graph:
        problem = "is a graph that another tool wrote down, and cannot be made larger"
        raise SpecError([Fault("cluster", point.cluster.name, problem, "describe it by its networks")])
    sizes = Sizes(point.settled, progress)
    most = max(1, wish.most // sizes.step)
    many, binding = _smallest(sizes, wish, most) if wish.needed is not None else _richest(sizes, wish, most)
    return _document(sizes, wish, sizes.at(many), binding)


def _smallest(sizes: Sizes, wish: Wish, most: int) -> tuple[int, str]:
    """Double until the demand is met, bisect, try below; then hold the answer against the budgets."""
    low, high = 0, 1
    while sizes.at(high).short(wish):
        if high >= most:
            raise _infeasible(sizes, wish)
        low, high = high, min(2 * high, most)
    while high > low + 1:
        middle = (low + high) // 2
        low, high = (middle, high) if sizes.at(middle).short(wish) else (low, middle)
    high = _lower(sizes, wish, high)
    found = sizes.at(high)
    if over := found.over(wish):
        raise InfeasibleError(
            sizes.point.model.name, "the budget", f"what is asked for needs more; {over}", _advice(wish)
        )
    return high, sizes.at(high - 1).short(wish) if high > 1 else "one domain: there is no smaller cluster"


def _lower(sizes: Sizes, wish: Wish, many: int) -> int:
    """Try sizes below an answer, until none of them meets the demand."""
    while True:
        below = {many - step for step in BELOW} | {round(share * many) for share in SHARES}
        meets = [less for less in sorted(below) if 0 < less < many and not sizes.at(less).short(wish)]
        if not meets:
            return many
        many = meets[0]


def _richest(sizes: Sizes, wish: Wish, most: int) -> tuple[int, str]:
    """Find the largest cluster within the budgets, and the size up to it that makes the most tokens."""
    if first := Trial(sizes.step, Outcome(), sizes.parts(1)).over(wish):
        raise InfeasibleError(sizes.point.model.name, "the budget", f"one domain breaks it; {first}", _advice(wish))
    low, high = 1, most + 1
    while high > low + 1:
        middle = (low + high) // 2
        over = Trial(middle * sizes.step, Outcome(), sizes.parts(middle)).over(wish)
        low, high = (low, middle) if over else (middle, high)
    tried = {low, *(low - step for step in BELOW), *(round(share * low) for share in SHARES)}
    feasible = [many for many in sorted(tried) if many > 0 and sizes.at(many).outcome.feasible]
    if not feasible:
        raise _infeasible(sizes, wish)
    most_tokens = max(sizes.at(many).outcome.tokens_per_s for many in feasible)
    enough = Wish(tokens_per_s=most_tokens * (1.0 - EQUAL))
    best = _lower(sizes, enough, next(many for many in feasible if not sizes.at(many).short(enough)))
    if best < low:
        return best, f"work: {low * sizes.step:,} accelerators, which the budget allows, make no more tokens"
    if low == most:
        return best, f"the largest cluster that is tried: {wish.most:,} accelerators"
    return best, Trial(high * sizes.step, Outcome(), sizes.parts(high)).over(wish)


def _infeasible(sizes: Sizes, wish: Wish) -> InfeasibleError:
    """Say what binds at the size that came nearest."""
    nearest = max(sizes.known.values(), key=lambda trial: (trial.outcome.feasible, trial.outcome.tokens_per_s))
    limit = "the demand" if nearest.outcome.feasible else "the limits of the workload"
    by = f"of {len(sizes.known)} sizes up to {max(each.accelerators for each in sizes.known.values()):,}, none does; "
    return InfeasibleError(sizes.point.model.name, limit, by + nearest.short(wish), _advice(wish))


def _advice(wish: Wish) -> str:
    return "ask for less, ease the limits, or raise the budget" if wish.budgets else "ask for less, or ease the limits"


def _document(sizes: Sizes, wish: Wish, found: Trial, binding: str) -> dict[str, Any]:
    point, outcome = sizes.point, found.outcome
    trials = [sizes.known[many] for many in sorted(sizes.known)]
    rates = [trial.outcome.tokens_per_s for trial in trials if trial.outcome.feasible]
    document = {
        "phase": point.phase,
        "model": point.model.name,
        "accelerator": point.cluster.accelerator,
        "domain": point.cluster.domain,
        "wish": {
            "tokens_per_s": wish.needed,
            "tokens": wish.tokens,
            "days": wish.days,
            **{name: wish.budgets.get(name) for name in BUDGETS},
        },
        "accelerators": found.accelerators,
        "domains": found.accelerators // point.cluster.domain,
        "tokens_per_s": outcome.tokens_per_s,
        "tokens_per_s_per_gpu": outcome.tokens_per_s_per_gpu,
        "step_time_s": outcome.seconds,
        "days": wish.tokens / outcome.tokens_per_s / DAY_S if wish.tokens else None,
        "power_W": found.parts["power_W"],
        "price_usd": found.parts["price_usd"],
        "unknown": found.parts["unknown"],
        "usd_per_million_tokens": _usd_per_million(point, outcome),
        "strategy": outcome.strategy,
        "terms": outcome.terms,
        "binding": binding,
        "monotone": all(later > earlier * (1.0 - EQUAL) for earlier, later in pairwise(rates)),
        "trials": [_trial(trial, wish) for trial in trials],
        "point": outcome.point.to_dict() if outcome.point else None,
    }
    return {**document, "answer": answer(document)}


def _trial(trial: Trial, wish: Wish) -> dict[str, Any]:
    return {
        "accelerators": trial.accelerators,
        "tokens_per_s": trial.outcome.tokens_per_s if trial.outcome.feasible else None,
        "power_W": trial.parts.get("power_W"),
        "price_usd": trial.parts.get("price_usd"),
        "short": trial.short(wish) or trial.over(wish) or None,
    }


def _usd_per_million(point: Point, outcome: Outcome) -> float | None:
    """Dollars for a million tokens from owned accelerators; None where their price is not public."""
    try:
        usd = usd_per_million(hour_usd(point.cluster.accelerator), outcome.tokens_per_s_per_gpu)
    except SpecError:
        return None
    return usd if math.isfinite(usd) else None


def answer(document: Mapping[str, Any]) -> str:
    """Say in plain words how large, what for, and what binds."""
    said = f"{document['accelerators']:,} {document['accelerator']} in {document['domains']:,} domains of {document['domain']}"
    text = f"{said} make {document['tokens_per_s']:,.4g} tokens/s"
    if document["days"]:
        text += f": {document['wish']['tokens']:,.3g} tokens in {document['days']:,.3g} days"
    return f"{text}. What binds: {document['binding']}."
