"""The equation of a training step's bubble, by schedule, and with gradients of the head that wait for the drain."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines import bubble_s
from parallel.explain.equation import Equation, Input, Inputs, Values, computed
from parallel.explain.scene import TrainScene, one
from parallel.training.step import SCHEDULES, beyond_s
from topo.columns import Column

Law = Equation[TrainScene]


def others(scene: TrainScene) -> tuple[float, float, float]:
    """Return seconds of a stage beside the slowest: forward, backward, and the gradient of the weights in it."""
    s, whole = scene.stages, one(scene.stages["total"])
    rest = (whole - scene.put_off - scene.slowest) / max(scene.read("pp") - 1.0, 1.0)
    ahead = rest * one(s["forward share"]) / whole
    return ahead, rest - ahead, rest * one(s["weights share"]) / whole


def bubble_of(scene: TrainScene, hop_s: float) -> float:
    """Return the bubble of the schedule, with hops of so many seconds."""
    ahead, back, weight = others(scene)
    p, m, v, code = scene.read("pp"), scene.microbatches, scene.read("vpp"), int(scene.read("schedule"))
    if p <= 1:
        return 0.0
    if code == 0:
        return float(PIPELINES["interleaved"].bubble_s(p, m, v, ahead, back, hop_s))
    return float(bubble_s(SCHEDULES[code], p, m, v, ahead, back, hop_s, weight)[0])


def _bubble(scene: TrainScene) -> Inputs:
    ahead, back, _ = others(scene)
    return {
        "p": Input(scene.read("pp"), "", "pipeline stages"),
        "v": Input(scene.read("vpp"), "", "chunks of layers on each stage"),
        "F": Input(ahead, "s", "forward of one micro-batch on a stage, the mean without the slowest"),
        "B": Input(back, "s", "backward of it"),
    }


def _dealt(scene: TrainScene) -> Inputs:
    """Return the inputs of a bubble, with what chunks of unequal layers add."""
    s = {**scene.stages, "microbatches": np.array([scene.microbatches]), "end": scene.stages["end"] - scene.put_off}
    some = np.flatnonzero(scene.cols["pp"] > 1)
    beyond = beyond_s(scene.job, s, scene.cols, some)
    added = max(float(beyond.sum()), -bubble_of(scene, 0.0))
    return _bubble(scene) | {
        "δ": Input(added, "s", "chunks of unequal layers, executed: beyond chunks that are all alike")
    }


def _put_off(scene: TrainScene) -> Inputs:
    plain = int(scene.read("schedule")) == 0
    return {
        "β": Input(computed(BUBBLE[plain], (_dealt if plain else _scheduled)(scene))[0], "s", "bubble of the schedule"),
        "m": Input(scene.microbatches, "", "micro-batches of a step"),
        "w": Input(scene.put_off, "s", "gradient of the head's weight that one of them puts off"),
        "p": Input(scene.read("pp"), "", "pipeline stages"),
        "v": Input(scene.read("vpp"), "", "chunks of layers on each stage"),
        "B": Input(others(scene)[1], "s", "backward of one micro-batch on a stage, the mean without the slowest"),
        "c": Input(one(scene.stages["hop"]), "s", "one hop between stages"),
    }


def _put_off_s(v: Values) -> Column:
    return np.asarray(v["β"] + np.maximum(v["m"] * v["w"] - (v["p"] - 1.0) * (v["B"] / v["v"] + v["c"]), 0.0))


def _scheduled(scene: TrainScene) -> Inputs:
    return _bubble(scene) | {
        "β": Input(
            bubble_of(scene, 0.0), "s", f"bubble of {SCHEDULES[int(scene.read('schedule'))]}, executed or closed"
        )
    }


_BUBBLE_SOURCE = "collectives/pipelines; Narayanan 2104.04473 §2.2; δ: parallel/training/uneven.py"
BUBBLE: Final[Mapping[bool, Law]] = {
    True: Equation(
        "(p − 1)·(F + B)/v + δ",
        _dealt,
        lambda v: (v["p"] - 1.0) * (v["F"] + v["B"]) / v["v"] + v["δ"],
        _BUBBLE_SOURCE,
    ),
    False: Equation("β(schedule; p, m, v, F, B)", _scheduled, lambda v: v["β"], "collectives/pipelines"),
}
"""Whether the schedule is 1F1B, interleaved or not -> the equation of its bubble."""
PUT_OFF: Final[Law] = Equation(
    "β + max(m·w − (p − 1)·(B/v + c), 0)",
    _put_off,
    _put_off_s,
    "parallel/training/step.py; Megatron-LM wgrad_deferral_limit",
)
"""The bubble where gradients of the head's weight wait for the drain."""
