"""How far to trust one term: the residuals of what was measured of it alone.

A whole training step has residuals of whole steps (`clusters.software.interval`); its terms were never measured apart. A
collective has those of its operation on its link, a product of serving those of its kernel.
"""

from typing import Any, Final

import numpy as np

from clusters.kernels import exact_waves, interval
from clusters.tunings import tuning
from parallel.exchange import EXCHANGES
from parallel.explain.links import WIRES, Wire
from parallel.explain.operators import runs
from parallel.explain.scene import Scene, ServeScene, TrainScene, one, train_swap
from parallel.precision import FORMATS
from topo.columns import column

WHOLE_STEPS: Final = "only whole training steps were measured: their interval is the step's"
NO_RESIDUALS: Final = "nothing was measured of this alone"


def _kernels(scene: Scene, term: str, busiest: Wire) -> tuple[str, str] | None:
    """Return the operation and regime that carry a term."""
    if term == "ep" and "ep" not in scene.messages:
        swap = scene.exchange if isinstance(scene, ServeScene) else None
        if isinstance(scene, TrainScene):
            swap = train_swap(scene)
        return ("moe_dispatch", EXCHANGES[swap.kernels].regime) if swap else None
    sent = scene.messages.get(term, [])
    if not sent:
        return None
    largest = max(sent, key=lambda message: message.times * message.size_bytes)
    inside = busiest.tier.plane == "scale-up"
    return largest.op, largest.regime if inside or largest.regime == "nccl" else "nccl"


def _wired(scene: Scene, term: str, wires: list[Wire]) -> dict[str, Any]:
    """Return the interval of a communication term from the constants of the tier that it leans on most."""
    mine = [wire for wire in wires if wire.saved_s.get(term, 0.0) > 0]
    busiest = max(mine, key=lambda wire: wire.saved_s[term], default=None)
    kernels = _kernels(scene, term, busiest) if busiest else None
    if busiest is None or kernels is None:
        return {"interval": None, "interval_note": NO_RESIDUALS}
    held = tuning(busiest.tier.link, *kernels, scene.cluster.spec.tunings)
    if not held.residuals:
        return {"interval": None, "interval_note": f"no residuals of {kernels[0]} over {busiest.tier.link}"}
    busy = scene.busy[term]
    note = f"of the busy time, from {held.residuals['n']:.0f} measurements of {kernels[0]} over {busiest.tier.link}"
    borrowed = f"; {held.note}" if held.note else ""
    return {"interval": [busy * held.residuals[end] for end in ("low", "high")], "interval_note": note + borrowed}


def _products(scene: Scene, term: str) -> dict[str, Any]:
    """Return the interval of a term of operators: products vary by their kernels' residuals, the rest is taken as it is."""
    low = high = 0.0
    known = False
    for run in runs(scene):
        if run.op.term != term:
            continue
        seconds = run.times * run.seconds(scene.chip)
        fmt = FORMATS["bf16"] if run.op.role in ("core", "indexer") else scene.chip.format(run.op.role)
        model = scene.chip.kernels[fmt.name]
        ends = [seconds, seconds]
        if run.op.kind in ("gemm", "grouped_gemm") and model.bands:
            at = exact_waves(run.op.m, run.op.n, model, run.op.groups)
            ends = [one(np.ravel(column(end))) for end in interval(seconds, at, model)]
            known = True
        low, high = low + ends[0], high + ends[1]
    if not known:
        return {"interval": None, "interval_note": NO_RESIDUALS}
    return {"interval": [low, high], "interval_note": "products by the residuals of their kernels, each at its end"}


def term_interval(scene: Scene, term: str, wires: list[Wire], operators: bool) -> dict[str, Any]:
    """Return `interval` (two ends in seconds, or None) and `interval_note` of one term."""
    if term in WIRES:
        return _wired(scene, term, wires)
    if isinstance(scene, TrainScene):
        return {"interval": None, "interval_note": WHOLE_STEPS}
    return _products(scene, term) if operators else {"interval": None, "interval_note": NO_RESIDUALS}
