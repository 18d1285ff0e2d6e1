"""From a state to its answer: what `podscale compare` says of each design, one phase at a time.

The numbers are those of `parallel.compare`, to the last bit. What has been searched is kept, so that of two designs only
the one that changed is priced again.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from podscale.door import plain
from podscale.explore.designs import built
from podscale.explore.state import BY_NAME, Design, State
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    from parallel.explain.loads import Loads
    from topo.blueprint import Blueprint

MOST_STRATEGIES = 4_000_000
"""A larger search takes more than a few seconds, and is left to the command line."""

_MOST_VARIABLES = 3_000

Answer = dict[str, Any]


def answer(state: State, phase: str = "") -> Answer:
    """Price the designs of a state in one phase, by default the one that is shown.

    Returns
    -------
    dict
        ``phase``; ``designs``: by side, the `row` and the `front` of ``compare --json``, `settled`, `cluster`, `model`;
        ``seconds`` of searching that this took.

    Raises
    ------
    SpecError
        With the faults of all designs, their fields named after the page's controls ("b." before those of B).

    >>> answer(State(Design(gpus=8, domain=8, model="llama-3.1-8b")))["designs"]["a"]["row"]["phase"]
    'decode'
    """
    phase = phase or state.phase
    started = time.perf_counter()
    return {
        "phase": phase,
        "designs": each(state, lambda design: _priced(design, phase)),
        "seconds": time.perf_counter() - started,
    }


def wiring(state: State, *, loads: bool = False) -> Answer:
    """Describe the wirings of a state's designs: tiers and parts, and the drawing of their classes.

    Parameters
    ----------
    loads
        Whether links are coloured by what the best strategy of the phase that is shown puts on them: the share of its step
        in which they are at work.

    Returns
    -------
    dict
        By side: the entry of ``wirings`` of ``compare --json``, `gpus`, `drawing` (SVG), `loaded` (the split whose traffic it
        is, or None), `busy` (loads by tier and phase), and `all_to_all_Bps`, what each GPU gets when all send to all
        (None: not found quickly).
    """
    return each(state, lambda design: _wired(design, state.phase if loads else ""))


def assumptions(state: State) -> Answer:
    """Return, by side, what the answers rest on, each with its source."""
    return each(state, _assumed)


def each(state: State, ask: Callable[[Design], Any]) -> Answer:
    """Ask about every design that is shown, by side; the faults of all come in one error."""
    found, faults = Answer(), list[Fault]()
    for side, design in state.designs.items():
        try:
            found[side] = ask(design)
        except SpecError as error:
            prefix = "b." if side == "b" else ""
            faults += [replace(fault, field=f"{prefix}{fault.field}") for fault in error.faults]
    if faults:
        raise SpecError(faults)
    return found


@lru_cache(maxsize=512)
def _priced(design: Design, phase: str) -> Answer:
    """Search one design in one phase."""
    from clusters.build import build
    from parallel.compare import best_row, front_points, tasks
    from parallel.executors import run

    held = built(design)
    ((domain, task),) = tasks(replace(held.request, phases=(phase,)), held.model, {held.spec.domain: held.spec})
    if task.space.size > MOST_STRATEGIES:
        problem = f"leaves {task.space.size:,} strategies to search, more than the explorer waits for"
        raise SpecError([Fault("domain", domain, problem, "take another size, or ask podscale compare")])
    found = run(task, "serial")
    cluster = build(held.spec)
    return {
        "row": plain({"domain": domain, "pool": held.spec.focus, "phase": phase, **best_row(task, found)}),
        "front": plain(front_points(task, found)),
        "settled": held.settled,
        "cluster": f"{cluster.accelerators:,} {cluster.accelerator.title}",
        "domain": domain,
        "model": held.model.name,
        "hbm_bytes": cluster.accelerator.usable_bytes,
        "limit_ms": {"decode": design.tpot_ms, "prefill": design.ttft_ms}.get(phase),
    }


@lru_cache(maxsize=64)
def _wired(design: Design, phase: str) -> Answer:
    """Describe and draw one wiring, with the loads of a phase's best strategy where one is named."""
    from dataclasses import asdict

    from clusters.build import build, facts
    from podscale.topology import topology_svg
    from topo.outline import outline
    from topo.survey import parts

    cluster = build(built(design).spec)
    split, busy, carried = _carried(design, phase) if phase else (None, {}, None)
    found: Answer = plain(
        {
            "domain": cluster.spec.domain,
            "tiers": [asdict(tier) for tier in cluster.tiers],
            "parts": parts(cluster.blueprint),
            "gpus": cluster.accelerators,
            "loaded": split,
            "busy": busy,
            "all_to_all_Bps": _all_to_all_Bps(cluster.blueprint),
            "drawing": topology_svg(outline(cluster.blueprint, carried), facts(cluster)["tiers"]),
        }
    )
    return found


def _carried(design: Design, phase: str) -> "tuple[str | None, Answer, Loads | None]":
    """Return a phase's best split, the loads that it puts on each tier, and on each class of links; None where none runs."""
    from parallel.explain.loads import class_loads, tier_loads
    from parallel.explain.point import Point
    from parallel.explain.scene import scene_of
    from podscale import words

    row = _priced(design, phase)["row"]
    if row["infeasible"]:
        return None, {}, None
    scene = scene_of(Point.from_dict(row["point"]))
    busy = {tier: {phase: load} for tier, load in tier_loads(scene).items()}
    return words.split(row["strategy"]), busy, class_loads(scene)


def _all_to_all_Bps(blueprint: "Blueprint") -> float | None:  # noqa: N802  (the unit is part of the name)
    """Return the rate of an all-to-all of all accelerators, where it is exact and quickly found."""
    from topo.concurrent import all_to_all_Bps

    try:
        rate = all_to_all_Bps(blueprint, most_variables=_MOST_VARIABLES)
    except SpecError:  # one accelerator, or parts that nothing joins
        return None
    return rate.bandwidth_Bps if rate.exact else None


@lru_cache(maxsize=64)
def _assumed(design: Design) -> list[Answer]:
    """List what the answer rests on."""
    from clusters.build import build
    from parallel.compare import assumptions as of

    held = built(design)
    return list(plain(of(held.request, held.model, build(held.spec))))


def faults_of(error: SpecError) -> list[Answer]:
    """Return faults as the page shows them: side, control, its label, place in a file, value, problem, remedy.

    >>> [fault["label"] for fault in faults_of(SpecError([Fault("b.nic", "-1", "must be positive")]))]
    ['NIC speed']
    """
    found = []
    for fault in error.faults:
        name = fault.field.removeprefix("b.")
        found.append(
            {
                "side": "b" if fault.field != name else "a",
                "control": name if name in BY_NAME else "",
                "label": BY_NAME[name].label if name in BY_NAME else name,
                "place": fault.file,
                "value": None if fault.value is None else str(plain(fault.value)),
                "problem": fault.problem,
                "remedy": fault.remedy,
            }
        )
    return found
