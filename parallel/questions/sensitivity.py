"""How far each figure of a cluster moves throughput, and what to buy next.

The elasticity of throughput X to a figure v is ``d ln X / d ln v``: per cent of throughput for one per cent of the figure.
Time is homogeneous: with every rate ``λ`` times as large and every time ``1/λ`` times as long, a step takes ``1/λ`` of its
time. By Euler's theorem

    Σ over rates of d ln X / d ln v  −  Σ over times of d ln X / d ln v  +  fixed  =  1,

where `fixed` is the share of times that no cluster file names: launches of kernels, base latencies of libraries, hosts.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from clusters.spec import ClusterSpec
from parallel.explain.point import Point
from parallel.questions import prices
from parallel.questions.figures import Figure, figures_of
from parallel.questions.outcome import Outcome, held, searched
from topo.errors import Fault, InfeasibleError, SpecError

Progress = Callable[[int, int], None]

STEP: Final = 1e-3
"""Central differences go this far to both sides, in the logarithm of the figure."""
FACTOR: Final = 1.25
"""A purchase makes a figure a quarter better; a split is searched anew that far to both sides."""
KINK: Final = 0.02
"""Elasticities to both sides that differ by more are a kink, and said so."""
WIDE: Final = 0.25
"""The same for steps as wide as a purchase, over which every saturating figure bends."""
SMALL: Final = 0.001
"""Gains up to this are none."""


@dataclass(frozen=True)
class Slope:
    """Elasticity, with that to either side (`worse`, `better`) where there is one; `note` says what the steps meet."""

    value: float | None
    worse: float | None
    better: float | None
    note: str = ""


def sensitivity(
    point: Point,
    *,
    step: float = STEP,
    factor: float = FACTOR,
    search: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Move every figure of a point's cluster, with the split held and, with `search`, with the split searched anew.

    Returns
    -------
    dict
        `rows`, the largest gain first; `account` of the elasticities to rates and times, which closes at 1; `answer`.

    Raises
    ------
    InfeasibleError
        The point does not run on its own cluster.
    """
    _check(step, factor)
    point = point.settled
    base = held(point)
    if not base.tokens_per_s:
        raise InfeasibleError(point.model.name, "the split", base.broken, "give a split that its cluster can run")
    known = figures_of(point.cluster)
    best = searched(point) if search else None
    rows = []
    for place, figure in enumerate(known.values()):
        rows.append(_row(point, figure, base, best, step, factor))
        if progress is not None:
            progress(place + 1, len(known))
    rows.sort(key=lambda row: -(row["gain"] or 0.0))
    document = {
        **_head(point, base, best),
        "step": step,
        "factor": factor,
        "rows": rows,
        "account": account(rows),
    }
    return {**document, "answer": answer(document)}


def _check(step: float, factor: float) -> None:
    faults = []
    if not 0 < step <= 0.2:
        faults.append(Fault("step", step, "is no small step", "give a share above 0, at most 0.2"))
    if not 1 < factor <= 4:
        faults.append(Fault("factor", factor, "is no purchase", "give a factor above 1, at most 4"))
    if faults:
        raise SpecError(faults)


def _head(point: Point, base: Outcome, best: Outcome | None) -> dict[str, Any]:
    """Say what is asked about: the point as it is, and the best that a search finds in its place."""
    anew = None
    if best is not None:
        anew = {
            "tokens_per_s_per_gpu": best.tokens_per_s_per_gpu,
            "over_point": best.tokens_per_s / base.tokens_per_s,
            "strategy": best.strategy,
            "limit_broken": best.broken or None,
            "points": best.points,
        }
    return {
        "phase": point.phase,
        "model": point.model.name,
        "cluster": point.built.name,
        "accelerator": point.cluster.accelerator,
        "accelerators": base.accelerators,
        "precision": point.work.precision,
        "strategy": base.strategy,
        "step_time_s": base.seconds,
        "tokens_per_s_per_gpu": base.tokens_per_s_per_gpu,
        "tokens_per_s": base.tokens_per_s,
        "limit_broken": base.broken or None,
        "searched": anew,
        "point": point.to_dict(),
    }


def _row(
    point: Point, figure: Figure, base: Outcome, best: Outcome | None, step: float, factor: float
) -> dict[str, Any]:
    """Return all that is said of one figure."""
    spec = point.cluster
    now = figure.value(spec) or math.nan
    worse, better = figure.steps(spec, factor)
    near = figure.steps(spec, math.exp(step)) if figure.kind != "count" else (worse, better)
    fixed = slope(figure, spec, base, near, lambda changed: held(point, changed))
    anew = slope(figure, spec, best, (worse, better), lambda changed: searched(point, changed), WIDE) if best else None
    start, reach = (best, searched) if best is not None else (base, held)
    bought = _tried(figure, spec, better, lambda changed: reach(point, changed))
    gain = bought.tokens_per_s / start.tokens_per_s - 1.0 if bought and bought.feasible and start.tokens_per_s else None
    return {
        "figure": figure.name,
        "title": figure.title,
        "field": figure.field,
        "kind": figure.kind,
        "dimension": figure.dimension,
        "value": now,
        "better": better,
        "held": fixed.value,
        "held_worse": fixed.worse,
        "held_better": fixed.better,
        "searched": anew.value if anew else None,
        "gain": gain,
        "strategy": changes(start.strategy, bought.strategy) if bought and gain is not None else {},
        **_price(figure, spec, better, gain, start),
        "notes": [note for note in (fixed.note, f"searched anew: {anew.note}" if anew and anew.note else "") if note],
    }


def slope(
    figure: Figure,
    spec: ClusterSpec,
    base: Outcome,
    to: tuple[float | None, float | None],
    price: Callable[[ClusterSpec], Outcome],
    kink: float = KINK,
) -> Slope:
    """Return the elasticity of throughput from a step to both sides, or from the side that there is."""
    now, notes = figure.value(spec) or math.nan, []
    ends: list[tuple[float, float] | None] = []
    for side, value in zip(("worse", "better"), to, strict=True):
        found = _tried(figure, spec, value, price)
        if found is not None and bool(found.broken) != bool(base.broken):
            notes.append(f"{side}: {found.broken or 'keeps the limit that is broken now'}")
        if value is None or found is None or not (found.tokens_per_s and base.tokens_per_s):
            ends.append(None)
            continue
        ends.append((math.log(value / now), math.log(found.tokens_per_s / base.tokens_per_s)))
    low, high = (end[1] / end[0] if end else None for end in ends)
    if low is not None and high is not None and abs(low - high) > kink and figure.kind not in ("count", "ratio"):
        notes.append(f"a kink: {low:+.2f} to the worse, {high:+.2f} to the better")
    if high is None and low is not None:
        notes.append("cannot be better" if to[1] is None else "one-sided: nothing runs where it is better")
    if low is None and high is not None:
        notes.append("cannot be worse" if to[0] is None else "one-sided: nothing runs where it is worse")
    known = [end for end in ends if end is not None]
    first, last = (known[0], known[-1]) if len(known) > 1 else ((0.0, 0.0), known[0] if known else (1.0, math.nan))
    value = (last[1] - first[1]) / (last[0] - first[0])
    return Slope(value if known else None, low, high, "; ".join(notes))


def _tried(
    figure: Figure, spec: ClusterSpec, value: float | None, price: Callable[[ClusterSpec], Outcome]
) -> Outcome | None:
    """Price the cluster with another value; None where no such cluster can be wired."""
    if value is None:
        return None
    try:
        return price(figure.changed(spec, value))
    except SpecError as error:
        return Outcome(broken=error.faults[0].problem)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what differs between two strategies: name -> before, after.

    >>> changes({"tp": 1, "ep": 64}, {"tp": 1, "ep": 72})
    {'ep': [64, 72]}
    """
    names = dict.fromkeys((*before, *after))
    return {key: [before.get(key), after.get(key)] for key in names if before.get(key) != after.get(key)}


def _price(
    figure: Figure, spec: ClusterSpec, better: float | None, gain: float | None, start: Outcome
) -> dict[str, Any]:
    """Say what the better figure costs and returns, and what it may cost at most: as much as more accelerators would."""
    made = prices.Price(None)
    if better is not None and gain is not None:
        if figure.kind in ("count", "ratio"):
            made = prices.of_parts(spec, figure.changed(spec, better))
        elif figure.name == "hbm_capacity":
            made = prices.of_memory(spec, better - (figure.value(spec) or better))
    each = prices.of_accelerator(spec.accelerator)
    returned = None
    if made.usd is not None and made.usd > 0 and gain is not None and gain > 0:
        returned = gain * start.tokens_per_s / made.usd
    return {
        "price_usd": made.usd,
        "price_unknown": list(made.unknown),
        "price_said": made.said,
        "gain_tokens_per_s_per_usd": returned,
        "worth_usd_per_accelerator": None if each is None or gain is None else gain * each,
    }


def account(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Close the account of Euler's theorem: shares of the time that scale with each rate and time, and the fixed rest.

    >>> made = account([{"figure": "hbm_bandwidth", "kind": "rate", "held": 0.6},
    ...     {"figure": "network_latency", "kind": "time", "held": -0.1}, {"figure": "domain", "kind": "count", "held": 1}])
    >>> made["shares"], round(made["fixed"], 3)
    ({'hbm_bandwidth': 0.6, 'network_latency': 0.1}, 0.3)
    """
    signs = {"rate": 1.0, "time": -1.0}
    shares = {row["figure"]: signs[row["kind"]] * (row["held"] or 0.0) for row in rows if row["kind"] in signs}
    fixed = 1.0 - sum(shares.values())
    kept = {name: share for name, share in shares.items() if share}
    return {"shares": kept, "fixed": fixed, "sum": sum(kept.values()) + fixed}


def answer(document: Mapping[str, Any]) -> str:
    """Say in plain words what to buy next, and what not."""
    rows = [row for row in document["rows"] if row["kind"] in ("rate", "time", "amount") and row["gain"] is not None]
    quarter = f"{document['factor'] - 1.0:.0%}"
    useful = [_bought(row, quarter) for row in rows if row["gain"] > SMALL]
    text = f"No figure alone, {quarter} better, gives more than {SMALL:.1%} more tokens per second."
    if useful:
        text = f"Buy next: {'; then '.join(useful[:3])}."
    if wired := [_wired(row) for row in document["rows"] if row["kind"] in ("ratio", "count") and _pays(row)]:
        text += f" Wired otherwise: {'; '.join(wired)}."
    idle = [row["title"] for row in rows if row["gain"] <= SMALL and row["kind"] == "rate"]
    if useful and idle:
        text += f" Next to nothing here: more {', '.join(idle)}."
    return text + f" {document['account']['fixed']:.0%} of the time is fixed: no figure of the cluster shortens it."


def _pays(row: Mapping[str, Any]) -> bool:
    """Whether a change of the wiring gives more; more accelerators of the same kind are no wiring."""
    return row["figure"] != "accelerators" and (row["gain"] or 0.0) > SMALL


def _wired(row: Mapping[str, Any]) -> str:
    return f"{row['title']} {row['value']:g} to {row['better']:g} gives {row['gain']:+.1%}"


def _bought(row: Mapping[str, Any], quarter: str) -> str:
    way = "less" if row["kind"] == "time" else "more"
    text = f"{quarter} {way} {row['title']} gives {row['gain']:+.1%} tokens/s"
    worth = row["worth_usd_per_accelerator"]
    return text if worth is None else f"{text}, worth up to ${worth:,.0f} per accelerator"
