"""What a sweep came to, as one document: the best of every group, its front, every cell in a line, reasons of refusal."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np

from parallel import results
from parallel.executors import Cell, choose, drive, session
from parallel.executors.store import Store
from parallel.explain.point import Point
from parallel.sweeps.evaluate import prepare
from parallel.sweeps.found import Found, bin_edge, merged, pareto
from parallel.sweeps.objectives import OBJECTIVES, shown
from parallel.sweeps.plan import Sweep
from parallel.sweeps.sampling import regret
from parallel.sweeps.task import PHASES, Bound
from topo.errors import PodscaleError

Key = tuple[tuple[str, Any], ...]
SHOWN: Final = 500
"""Points of a front that are written in full; more say no more."""
LOOKED_AT: Final = 16
"""Cells that an estimate of the work prunes at most."""


def sweep(
    asked: Sweep,
    executor: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    store: Store | None = None,
    address: str | None = None,
) -> dict[str, Any]:
    """Do a sweep and return the whole answer as one JSON-able document.

    Parameters
    ----------
    executor : a key of `parallel.executors.EXECUTORS`, or `auto`: Ray where an estimate is above five seconds
    store : what is finished already, and where to write down what gets finished
    address : an existing Ray cluster
    """
    started = time.perf_counter()
    name = choose(executor, estimate(asked)) if address is None else "ray"
    with session(name, address):
        cells = drive(asked, name, progress, store, address)
    seconds = time.perf_counter() - started
    answered = {**document(asked, cells), "executor": name, "seconds": seconds}
    if store is not None:
        store.clear()
    return answered


def estimate(asked: Sweep) -> int:
    """Return about how many strategies pruning leaves: those of the first cells, as far as they have to be looked at."""
    sizes: list[int] = []
    for cell in range(min(asked.cells, LOOKED_AT)):
        try:
            _, rest = prepare(asked.task(cell))
        except PodscaleError:
            continue
        size = len(rest.heads) * rest.tail
        sizes.append(min(size, asked.budget) if asked.budget else size)
        if choose("auto", sum(sizes)) != "serial":
            break
    return asked.cells * sum(sizes) // max(len(sizes), 1)


def document(asked: Sweep, cells: dict[int, Cell]) -> dict[str, Any]:
    """Return what the cells of a sweep came to."""
    total = merged([cell.found for cell in cells.values()])
    groups: dict[Key, list[int]] = defaultdict(list)
    for number in sorted(cells):
        settings = asked.settings(number)
        groups[tuple((name, settings.get(name)) for name in asked.group)].append(number)
    best = [row for key, members in groups.items() for row in _best(asked, cells, key, members)]
    return {
        "name": asked.name,
        "question": question(asked),
        "fingerprint": asked.fingerprint,
        "objectives": {
            name: {"unit": OBJECTIVES[name].unit, "more": OBJECTIVES[name].sense > 0} for name in _named(asked)
        },
        "points": total.points,
        "feasible": total.feasible,
        "rejected": total.rejected,
        "priced": priced(total),
        "best": best,
        "front": [row for key, members in groups.items() for row in _front(asked, cells, key, members)],
        "cells": [_line(asked, cells[number], number) for number in sorted(cells)],
        "histograms": [
            _histogram(key, [cells[n].found for n in m]) for key, m in groups.items() if asked.ask.histogram
        ],
        "poisoned": [row for number in sorted(cells) for row in _poisoned(asked, cells[number], number)],
        "answer": answer(asked, best),
    }


def priced(total: Found) -> int:
    """Return how many strategies were priced in full, memory verdict included."""
    after = {"no finite price", "memory", *(phase.limit_name for phase in PHASES.values())}
    late = sum(n for reason, n in total.rejected.items() if reason in after or reason.startswith("limit of "))
    return total.feasible + late


def _named(asked: Sweep) -> tuple[str, ...]:
    """Return the objectives of a sweep, what it ranks by last."""
    return (*(name for name in dict.fromkeys(asked.ask.front) if name != asked.ask.rank), asked.ask.rank)


def question(asked: Sweep) -> str:
    """Say what is asked, in one sentence."""
    models = ", ".join(model.name for model in asked.models)
    phases = ", ".join(dict.fromkeys(work.phase for work in asked.works))
    varied = [f"{len(values)} values of {name}" for name, values in asked.vary if len(values) > 1]
    said = f"{phases} of {models} on {', '.join(dict.fromkeys(spec.name for spec in asked.clusters))}"
    return f"{said}, over {' by '.join(varied)}" if varied else said


def _best(asked: Sweep, cells: dict[int, Cell], key: Key, members: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the best rows of a group in full."""
    found = [
        (-value, number, int(index))
        for number in members
        for index, value in zip(cells[number].found.top, cells[number].found.top_values.tolist(), strict=True)
    ]
    for place, (value, number, index) in enumerate(sorted(found)[: asked.ask.most]):
        yield {
            "group": dict(key),
            "place": place + 1,
            **_row(asked, number, index),
            "rank": shown(asked.ask.rank, -value),
        }


def _row(asked: Sweep, number: int, index: int) -> dict[str, Any]:
    """Return one strategy of a cell in full, priced again, with all that it takes to price it once more."""
    bound = Bound.of(asked.task(number))
    cols = bound.at(np.array([index], dtype=np.int64))
    row = results.row_of(bound, cols, bound.price(cols), 0)
    return {"cell": number, "index": index, "settings": asked.settings(number), **row, "point": _point(bound, index)}


def _point(bound: Bound, index: int) -> dict[str, Any]:
    task = bound.task
    strategy = bound.at(np.array([index], dtype=np.int64)).row(0)
    return Point(task.phase, task.model, task.cluster, task.train, task.serve, strategy).to_dict()


def _front(asked: Sweep, cells: dict[int, Cell], key: Key, members: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the Pareto front of a group over all its cells, best in the first objective first."""
    full = [number for number in members if len(cells[number].found.front)]
    if not full:
        return
    values = np.concatenate([cells[number].found.front_values for number in full])
    owner = np.repeat(full, [len(cells[number].found.front) for number in full])
    index = np.concatenate([cells[number].found.front for number in full])
    bound_of = lru_cache(lambda number: Bound.of(asked.task(number)))
    for row in pareto(*values.T)[:SHOWN].tolist():
        number = int(owner[row])
        bound = bound_of(number)
        cols = bound.at(index[row : row + 1])
        yield {
            "group": dict(key),
            "cell": number,
            "index": int(index[row]),
            "settings": asked.settings(number),
            **{name: shown(name, float(v)) for name, v in zip(asked.ask.front, values[row], strict=True)},
            "band": results.band_of(bound, cols, 0, float(bound.price(cols).seconds[0]))[0],
            "strategy": results.strategy_of(bound, cols, 0),
            "point": _point(bound, int(index[row])),
        }


def _line(asked: Sweep, cell: Cell, number: int) -> dict[str, Any]:
    """Return a cell in one line: its settings, its best, or why there is none."""
    found = cell.found
    line: dict[str, Any] = {
        "cell": number,
        **asked.settings(number),
        "points": found.points,
        "feasible": found.feasible,
        asked.ask.rank: shown(asked.ask.rank, found.best_value) if found.best >= 0 else None,
        "strategy": None,
        "infeasible": str(cell.error) if cell.error else _why(asked, number, found),
    }
    if found.best >= 0:
        bound = Bound.of(asked.task(number))
        line["strategy"] = results.strategy_of(bound, bound.at(found.top[:1]), 0)
    if found.islands:
        line["regret"] = regret(found.islands)
    return line


def _why(asked: Sweep, number: int, found: Found) -> str | None:
    """Say why nothing of a cell is feasible: the limit that the fastest strategy breaks, or the reason of most."""
    if found.best >= 0:
        return None
    if found.nearest >= 0:
        task = asked.task(number)
        phase = PHASES[task.phase]
        limit = phase.limit_s(task)
        if np.isfinite(limit) and found.nearest_value > limit:
            return f"{phase.limit_name} of {limit * 1e3:g} ms: the fastest that fits takes {found.nearest_value * 1e3:.3g} ms"
    most = max(found.rejected, key=lambda name: found.rejected[name]) if found.rejected else "an empty space"
    return f"none of {found.points:,} strategies: most often {most}"


def _histogram(key: Key, found: Iterable[Found]) -> dict[str, Any]:
    counts = merged(list(found)).counts
    filled = np.flatnonzero(counts)
    span = range(int(filled[0]), int(filled[-1]) + 1) if len(filled) else range(0)
    return {"group": dict(key), "edges": [bin_edge(place) for place in span], "counts": [int(counts[p]) for p in span]}


def _poisoned(asked: Sweep, cell: Cell, number: int) -> Iterator[dict[str, Any]]:
    for index, error in cell.found.poisoned:
        bound = Bound.of(asked.task(number))
        strategy = bound.at(np.array([index], dtype=np.int64)).row(0)
        yield {"cell": number, "index": index, "strategy": strategy, "error": error}


def answer(asked: Sweep, best: list[dict[str, Any]]) -> str:
    """Say in plain words what is best of every model and phase, and with which of the settings that vary."""
    firsts: dict[tuple[str, str], dict[str, Any]] = {}
    sense = OBJECTIVES[asked.ask.rank].sense
    for row in best:
        key = (row["settings"]["model"], row["settings"]["phase"])
        if key not in firsts or sense * row["rank"] > sense * firsts[key]["rank"]:
            firsts[key] = row
    if not firsts:
        return "No strategy of this sweep is feasible; `cells` says why."
    varied = [name for name, values in asked.vary if len(values) > 1]
    varied += [name for name in ("cluster",) if len(asked.clusters) > 1]
    unit = OBJECTIVES[asked.ask.rank].unit
    said = []
    for (model, phase), row in firsts.items():
        where = ", ".join(f"{name} {row['settings'][name]}" for name in varied)
        said.append(f"{model}, {phase}: {_figure(row['rank'])} {unit}".rstrip() + (f" with {where}" if where else ""))
    return "; ".join(said) + "."


def _figure(value: float) -> str:
    """Write four significant figures, never in powers of ten."""
    return f"{float(f'{value:.4g}'):,.10g}"
