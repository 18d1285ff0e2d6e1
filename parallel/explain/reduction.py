"""The equation of the gradient reduction of a training step, hidden or not."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from parallel.explain.equation import Equation, Input, Inputs, Values
from parallel.explain.scene import TrainScene, one
from parallel.explain.traffic import reductions
from topo.columns import Column

Law = Equation[TrainScene]


def dp_inputs(scene: TrainScene) -> Inputs:
    """Return the seconds and counts of a step's reductions, and the work that hides them."""
    s, often = scene.stages, reductions(scene)
    m, p, v = scene.microbatches, scene.read("pp"), scene.read("vpp")
    layers = max(one(s["stage layers"]), 1.0)
    ahead = scene.slowest * one(s["forward share"]) / one(s["total"])
    widen = min(m, p) * (1.0 - 1.0 / v) if v > 1 else 1.0
    inner, zero = 1.0 - 1.0 / layers, scene.read("zero")
    width = scene.point.train.gradient_bytes

    def sent(name: str, group: str, each: float) -> dict[str, object]:
        return {"size_bytes": each * one(s[f"{name} parameters"]), "members": list(scene.group(group))}

    return {
        "r": Input(often[0], "", "reductions of a step"),
        "g": Input(often[1], "", "gatherings of a step"),
        "R": Input(one(s["reduce dp"]), "s", "reduction of a stage's dense gradients", sent("dense", "dp", width)),
        "Rₑ": Input(one(s["reduce edp"]), "s", "that of its experts' gradients", sent("expert", "edp", width)),
        "G": Input(one(s["gather dp"]), "s", "all-gather of its dense weights", sent("dense", "dp", 2.0)),
        "Gₑ": Input(one(s["gather edp"]), "s", "that of its experts' weights", sent("expert", "edp", 2.0)),
        "T": Input(one(s["reduce tied"]), "s", "sum of a tied table's gradients over first and last stage"),
        "L": Input(layers, "", "layers of the stage: all but one bucket can hide"),
        "W": Input((scene.slowest - ahead) * inner * (m if zero >= 2 else widen), "s", "backward work to hide behind"),
        "U": Input(ahead * inner * (m if zero >= 3 else widen), "s", "forward work to hide behind"),
    }


def _dp_parts(v: Values) -> tuple[Column, Column]:
    return v["r"] * (v["R"] + v["Rₑ"]), v["g"] * (v["G"] + v["Gₑ"])


def _dp_busy(v: Values) -> Column:
    reduce, gather = _dp_parts(v)
    return np.asarray(np.add(reduce, gather) + v["T"])


def _dp_shown(v: Values) -> Column:
    reduce, gather = map(np.asarray, _dp_parts(v))
    shown = np.maximum(reduce - v["W"], reduce / v["L"])
    return np.asarray(shown + np.maximum(gather - v["U"], gather / v["L"]) + v["T"])


_DP_SOURCE = "parallel/training/step.py; ZeRO: Rajbhandari 1910.02054 §5; interleaving: 2211.05953 §3"
DP: Final[Mapping[bool, Law]] = {
    False: Equation("r·(R + Rₑ) + g·(G + Gₑ) + T", dp_inputs, _dp_busy, _DP_SOURCE),
    True: Equation(
        "max(ρ − W, ρ/L) + max(γ − U, γ/L) + T, ρ = r·(R + Rₑ), γ = g·(G + Gₑ)",
        dp_inputs,
        _dp_shown,
        _DP_SOURCE,
        _dp_busy,
    ),
}
"""Whether gradients are reduced behind the backward pass -> the equation."""
