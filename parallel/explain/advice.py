"""Every change priced again: which would help, which cannot be, and what each costs.

A change helps where it fits in memory, keeps the limit on latency and gives more tokens per second, or where the point does
not run as it is and the change does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clusters.build import build
from parallel import rules
from parallel.explain.changes import CLASSES, Change, extra_usd, hardware, paired, software, splits
from parallel.explain.point import Point
from parallel.explain.scene import Scene
from parallel.placement import domain_size, fillings
from parallel.priced import Priced
from parallel.strategy import Columns
from parallel.sweeps.spaces import NAMES
from parallel.sweeps.task import PHASES
from parallel.training.step import DEFAULTS
from topo.errors import PodscaleError

ADVISED: Final = 3
LEAST: Final = 0.005
"""Gain below which a change is not worth a word."""
SHAPES: Final = ("used", "tp", "cp", "pp", "micro_batch")
"""Columns that the number of replicas follows from."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one row of a block came to: its rate, its latency, its memory, and why it may not be."""

    rate: float
    seconds: float
    latency_s: float
    memory_bytes: float
    reason: str | None
    strategy: dict[str, float]


def _columns(point: Point, rows: Sequence[dict[str, float]]) -> Columns:
    """Return the strategies of a phase as columns, replicas counted anew where the shape changed."""
    base = {**DEFAULTS, **point.strategy} if point.phase == "train" else dict(point.strategy)
    block = {name: [row.get(name, value) for row in rows] for name, value in base.items()}
    if point.phase != "train":
        return Columns.of(**block)
    setting = point.bound.setting
    fresh = rules.data_parallel(setting, Columns.of(**block))
    same = [all(row.get(name, base[name]) == base[name] for name in SHAPES) for row in rows]
    return Columns.of(**{**block, "dp": np.where(same, base["dp"], fresh)})


def outcomes(point: Point, rows: Sequence[dict[str, float]]) -> list[Outcome]:
    """Judge and price strategies of one point as one block."""
    cols, bound, phase = _columns(point, rows), point.bound, PHASES[point.phase]
    broken = rules.first_broken(phase.rules, cols, bound.setting)
    found: list[Outcome | None] = [None] * len(rows)
    for index in np.flatnonzero(broken >= 0).tolist():
        rule = phase.rules[int(broken[index])]
        found[index] = Outcome(0.0, np.inf, np.inf, 0.0, f"breaks the rule: {rule.name}", cols.row(index))
    sound = np.flatnonzero(broken < 0)
    if len(sound):
        priced = point.price(cols.take(sound))
        for place, index in enumerate(sound.tolist()):
            found[index] = _judged(point, priced, place, cols.row(index))
    return [outcome for outcome in found if outcome is not None]


def _judged(point: Point, priced: Priced, row: int, strategy: dict[str, float]) -> Outcome:
    phase, room = PHASES[point.phase], point.built.accelerator.usable_bytes
    needed, latency = float(priced.memory_bytes[row]), float(np.ravel(phase.latency(priced))[row])
    limit = phase.limit_s(point.task)
    reason = None
    if not np.isfinite(needed) or needed > room:
        reason = f"needs {needed / 2**30:.1f} GiB of {room / 2**30:.1f}"
    elif latency > limit:
        reason = f"{phase.limit_name} of {limit * 1e3:g} ms, missed at {latency * 1e3:.4g} ms"
    rate = float(priced.extra["tokens_per_s_per_gpu"][row])
    return Outcome(rate, float(priced.seconds[row]), latency, needed, reason, strategy)


def _row(change: Change, outcome: Outcome, base: Outcome, price: tuple[float | None, str]) -> dict[str, Any]:
    gain = outcome.rate / base.rate - 1.0 if base.rate else 0.0
    helps = outcome.reason is None and (gain > LEAST or base.reason is not None)
    return {
        "change": change.axis,
        "kind": change.kind,
        "said": change.said,
        "price_usd": price[0],
        "price_note": price[1],
        "feasible": outcome.reason is None,
        "helps": helps,
        "makes_it_run": outcome.reason is None and base.reason is not None,
        "reason": outcome.reason,
        "gain": gain if outcome.rate else None,
        "tokens_per_s_per_gpu": outcome.rate or None,
        "step_time_s": outcome.seconds if np.isfinite(outcome.seconds) else None,
        "latency_s": outcome.latency_s if np.isfinite(outcome.latency_s) else None,
        "memory_bytes": outcome.memory_bytes or None,
        "strategy": named(outcome.strategy),
        "note": change.note,
    }


def named(strategy: dict[str, float]) -> dict[str, Any]:
    """Return a strategy with names for coded columns.

    >>> named({"tp": 8, "recompute": 2})
    {'tp': 8, 'recompute': 'full'}
    """
    return {name: NAMES[name][int(value)] if name in NAMES else value for name, value in strategy.items()}


def _split_rows(point: Point, base: Outcome, changes: list[Change]) -> list[dict[str, Any]]:
    if not changes:
        return []
    found = outcomes(point, [dict(change.point.strategy) for change in changes])
    return [_row(change, outcome, base, (0.0, "")) for change, outcome in zip(changes, found, strict=True)]


def _software_rows(point: Point, base: Outcome) -> list[dict[str, Any]]:
    rows = []
    for change in software(point, point.built):
        try:
            outcome = outcomes(change.point, [dict(change.point.strategy)])[0]
        except PodscaleError as error:
            outcome = _refused(error)
        rows.append(_row(change, outcome, base, (0.0, "a switch")))
    return rows


def _refused(error: PodscaleError) -> Outcome:
    return Outcome(0.0, np.inf, np.inf, 0.0, str(error).splitlines()[0], {})


def _hardware_rows(point: Point, base: Outcome, blocked: Sequence[Change]) -> list[dict[str, Any]]:
    """Price the split on other hardware as it is, and the steps of it that only other hardware makes possible.

    Another domain is filled in the way that suits it best. `blocked` are the steps that do not run as things are.
    """
    rows = []
    for wish in hardware(point, point.built):
        price: tuple[float | None, str] = (None, "no part of the catalogue has it")
        try:
            changed = wish.point(point)
            ways = fillings(changed.built) if domain_size(changed.built) != domain_size(point.built) else ()
            here = [dict(point.strategy)] if not ways else [{**point.strategy, "used": float(way)} for way in ways]
            beyond = [] if ways else [dict(change.point.strategy) for change in blocked]
            tried = outcomes(changed, [*here, *beyond])
            runs = [place for place, each in enumerate(tried) if each.reason is None] or range(len(here))
            pick = max(runs, key=lambda place: tried[place].rate)
            outcome, then = tried[pick], "" if pick < len(here) else f", and then {blocked[pick - len(here)].said}"
            price = extra_usd(point.built, build(changed.cluster)) if wish.buyable else price
        except PodscaleError as error:
            changed, outcome, then = point, _refused(error), ""
        rows.append(_row(Change(wish.axis, "hardware", wish.said + then, changed), outcome, base, price))
    return rows


def _order(row: dict[str, Any]) -> tuple[int, float]:
    return CLASSES.index(row["kind"]), -(row["gain"] or 0.0)


def advice(scene: Scene) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the cheapest changes that help, one for each axis, and all that were tried, cheapest first.

    Each row: what is changed (`said`), its `kind` (strategy, software, hardware) and `price_usd`, what it gives
    (`tokens_per_s_per_gpu`, `gain`), whether it is `feasible`, and the `reason` where not. Where no single step of the split
    helps, two steps at once are tried.
    """
    point = scene.point
    base = outcomes(point, [dict(point.strategy)])[0]
    single = list(splits(point, scene.cluster))
    rows = _split_rows(point, base, single)
    if not any(row["helps"] for row in rows):
        pairs = [paired(a, b) for place, a in enumerate(single) for b in single[place + 1 :] if a.axis != b.axis]
        rows += [row for row in _split_rows(point, base, pairs) if row["helps"]]
    blocked = [change for change, row in zip(single, rows, strict=False) if row["reason"] and row["gain"]]
    rows += _software_rows(point, base) + _hardware_rows(point, base, blocked)
    rows.sort(key=_order)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["helps"]:
            best.setdefault(row["change"], row)
    return list(best.values())[:ADVISED], rows
