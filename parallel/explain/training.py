"""The equations of a training step: one row per term, in the order in which the step adds them up.

``m`` micro-batches, ``p`` stages, ``n`` layers of each kind (multi-token-prediction modules among the last); a sum runs over the
kinds. Seconds of a layer are of one micro-batch on one rank.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from parallel.explain.bubbles import BUBBLE, PUT_OFF, bubble_of, others
from parallel.explain.equation import Equation, Input, Inputs, Values, computed, per_kind
from parallel.explain.reduction import DP, dp_inputs
from parallel.explain.scene import TrainScene, one, train_swap
from parallel.explain.traffic import boundary_bytes, expert_bytes, halves, key_bytes
from parallel.training import footprint
from parallel.training.frameworks import framework
from parallel.training.layer import COMPUTE, PRODUCTS, RECOMPUTE, recomputed
from topo.columns import Column

Law = Equation[TrainScene]


def _frame(scene: TrainScene) -> Inputs:
    """Micro-batches, stages and layers: what every sum over layers is multiplied with."""
    names = ", ".join(kind.name for kind in scene.kinds)
    return {
        "m": Input(scene.microbatches, "", "micro-batches of a step"),
        "p": Input(scene.read("pp"), "", "pipeline stages"),
        "n": Input(per_kind(scene.counts), "", f"layers of each kind: {names}"),
    }


def _total(v: Values, layer: Column) -> Column:
    return np.asarray(v["m"] / v["p"] * np.sum(v["n"] * layer))


# --- operators ----------------------------------------------------------------------------------------------------


def _operators(name: str) -> Law:
    def inputs(scene: TrainScene) -> Inputs:
        return _frame(scene) | {
            "F": Input(per_kind(scene.layer(f"forward {name}")), "s", "forward of the term's operators in a layer"),
            "B": Input(per_kind(scene.layer(f"backward {name}")), "s", "backward of them"),
        }

    return Equation(
        "m/p · Σ n·(F + B)",
        inputs,
        lambda v: _total(v, v["F"] + v["B"]),
        "parallel/training/layer.py; operators in parallel/operators.py, their times in parallel/roofline.py",
        note="F and B add up over the operators listed",
    )


def _head(scene: TrainScene) -> Inputs:
    both = {way: one(scene.layers[f"{way} head"]) for way in ("forward", "backward")}
    join = {way: one(scene.layers[f"{way} mtp"]) for way in ("forward", "backward")}
    return {
        **{key: value for key, value in _frame(scene).items() if key != "n"},
        "d": Input(scene.modules, "", "multi-token-prediction modules that are trained"),
        "H": Input(both["forward"] + both["backward"], "s", "head and loss of one micro-batch, both directions"),
        "J": Input(join["forward"] + join["backward"], "s", "projection of one module, both directions"),
    }


def _recompute(scene: TrainScene) -> Inputs:
    mode = RECOMPUTE[int(scene.read("recompute"))]
    return _frame(scene) | {
        "R": Input(
            per_kind([layer["recompute"] for layer in scene.shown]),
            "s",
            "forward work of a layer that backward does again",
            {"mode": mode, "modules": list(scene.point.train.recompute_modules) if mode == "selective" else ["all"]},
        )
    }


# --- communication ------------------------------------------------------------------------------------------------


def _sent(size_bytes: float, members: tuple[float, ...]) -> dict[str, object]:
    return {"size_bytes": size_bytes, "members": list(members)}


def _tp(scene: TrainScene) -> Inputs:
    open_s = np.array(scene.layer("forward tp")) + np.array(scene.layer("backward tp"))
    products = [
        sum(scene.layer(f"{way} {x}")[i] for way in ("forward", "backward") for x in PRODUCTS) for i in _at(scene)
    ]
    size = boundary_bytes(scene)
    moe = scene.moe
    shape = {
        **_sent(size, scene.group("tp")),
        "halves of a layer": [halves(kind) for kind in scene.kinds],
        "per half": "3 all-gathers, 2 reduce-scatters" if scene.read("sp") > 0 else "2 all-reduces",
        **(
            {"expert rows": _sent(expert_bytes(scene, moe), scene.group("etp"))}
            if moe and scene.read("etp") > 1
            else {}
        ),
    }
    return _frame(scene) | {
        "C": Input(open_s, "s", "collectives of a layer that stand alone", shape),
        "Y": Input(per_kind(scene.layer("hideable tp")), "s", "those that can hide in backward"),
        "P": Input(np.array(products), "s", "products of a layer that they can hide behind"),
        "K": Input(per_kind(scene.layer("column backward")), "s", "backward of products split by columns"),
        "t": Input(scene.read("tp"), "", "tensor parallel size"),
    }


def _at(scene: TrainScene) -> range:
    return range(len(scene.kinds))


def _tp_busy(v: Values) -> Column:
    return _total(v, v["C"] + v["Y"])


TP: Final[Mapping[str, Law]] = {
    mode: Equation(text, _tp, exposed, source, _tp_busy)
    for mode, text, exposed, source in (
        ("none", "m/p · Σ n·(C + Y)", _tp_busy, "Korthikanti 2205.05198 §4.2.2"),
        (
            "backward",
            "m/p · Σ n·(C + max(Y − K, 0))",
            lambda v: _total(v, v["C"] + np.maximum(v["Y"] - v["K"], 0.0)),
            "Korthikanti 2205.05198 §4.2.2; overlap: Megatron-LM",
        ),
        (
            "chunked",
            "m/p · Σ n·max((C + Y)/t, C + Y − P)",
            lambda v: _total(v, np.maximum((v["C"] + v["Y"]) / v["t"], v["C"] + v["Y"] - v["P"])),
            "Korthikanti 2205.05198 §4.2.2; overlap: Transformer Engine userbuffers",
        ),
    )
}
"""How tensor-parallel communication hides -> its equation."""


def _cp(scene: TrainScene) -> Inputs:
    core = np.array(scene.layer("forward attention core")) + np.array(scene.layer("backward attention core"))
    sizes = [key_bytes(scene, kind) for kind in scene.kinds]
    return _frame(scene) | {
        "X": Input(
            np.array(scene.layer("forward cp")) + np.array(scene.layer("backward cp")),
            "s",
            "two all-gathers and a reduce-scatter of keys and values",
            {"size_bytes": sizes, "members": list(scene.group("cp"))},
        ),
        "A": Input(core, "s", "attention core of a layer, both directions"),
    }


def _ep(scene: TrainScene) -> Inputs:
    swap, moe = train_swap(scene), scene.moe
    shape: dict[str, object] = {"members": list(scene.group("ep")), "kernels": "NCCL all-to-all"}
    if swap is not None and moe is not None:
        shape |= {"kernels": swap.kernels, "dispatch_s": swap.dispatch_s, "combine_s": swap.combine_s}
        shape["equation"] = "X = (D + 3·Q)·imbalance: dispatch and combine, and their two gradients as combines"
    return _frame(scene) | {
        "X": Input(per_kind([layer["busy ep"] for layer in scene.shown]), "s", "exchange of a layer, both ways", shape),
        "A": Input(_work(scene), "s", "operators of a layer, both directions"),
        "Z": Input(per_kind([layer["contention"] for layer in scene.shown]), "s", "what the exchange takes from them"),
    }


def _work(scene: TrainScene) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    rows = [scene.layer(f"{way} {name}") for way in ("forward", "backward") for name in COMPUTE]
    return np.asarray(np.sum(np.array(rows), axis=0), dtype=np.float64)


EP: Final[Mapping[bool, Law]] = {
    False: Equation("m/p · Σ n·X", _ep, lambda v: _total(v, v["X"]), "parallel/exchange.py, collectives/moe.py"),
    True: Equation(
        "m/p · Σ n·max(X − (A + Z), 0)",
        _ep,
        lambda v: _total(v, np.maximum(v["X"] - (v["A"] + v["Z"]), 0.0)),
        "parallel/exchange.py, collectives/moe.py; overlap: Megatron-Core --overlap-moe-expert-parallel-comm",
        lambda v: _total(v, v["X"]),
        note="the exchange of one micro-batch hides behind the other's operators",
    ),
}
"""Whether the expert exchange is overlapped -> its equation."""


def _contention(scene: TrainScene) -> Inputs:
    shown, busy = computed(DP[bool(scene.job.does("dp_overlap"))], dp_inputs(scene))
    return _frame(scene) | {
        "Z": Input(per_kind([layer["contention"] for layer in scene.shown]), "s", "what a layer's exchange takes"),
        "κ": Input(scene.job.fitted.shared["contention"], "", "what a hidden reduction takes, of its own time"),
        "D": Input(busy - shown, "s", "gradient reduction that is hidden"),
    }


# --- waiting ------------------------------------------------------------------------------------------------------


def _host(scene: TrainScene) -> Inputs:
    third, overlapped = 1.0 / 3.0, scene.read("ep_overlap") > 0
    slower = scene.job.fitted.shared["overlapped"] if overlapped else 1.0
    full, selective = (scene.read("recompute") == RECOMPUTE.index(mode) for mode in ("full", "selective"))
    rows = {way: np.sum([scene.layer(f"{way} {name}") for name in COMPUTE], axis=0) for way in ("forward", "backward")}
    tp, redo = (per_kind([layer[name] for layer in scene.shown]) for name in ("tp", "recompute"))
    first = rows["forward"] + third * tp
    second = rows["backward"] + redo + (1.0 - third) * tp
    if overlapped:
        second = second + per_kind([layer["ep"] + layer["contention"] for layer in scene.shown])
    else:
        first, second = first + scene.layer("forward ep"), second + scene.layer("backward ep")
    sent = np.array(scene.layer("kernels sent"))
    covered = full * one(recomputed(scene.point.model, scene.cols))
    again = np.array(scene.layer("kernels forward")) * covered + np.array(scene.layer("kernels selective")) * selective
    return _frame(scene) | {
        "C₁": Input(first, "s", "forward of a layer on the chip"),
        "C₂": Input(second, "s", "backward of a layer on the chip"),
        "k₁": Input(np.array(scene.layer("kernels forward")) + sent, "", "kernels that the host launches forward"),
        "k₂": Input(np.array(scene.layer("kernels backward")) + sent + again, "", "kernels launched backward"),
        "h": Input(scene.job.engine.kernel_host_s * slower, "s", "host time for each kernel"),
        "ν": Input(scene.job.host_norm, "", "exponent of the norm"),
    }


def _host_s(v: Values) -> Column:
    def added(chip_s: Column, launching_s: Column) -> Column:
        """Scaled by the longer side, so that powers of small numbers stay exact."""
        longer, shorter = np.maximum(chip_s, launching_s), np.minimum(chip_s, launching_s)
        return np.asarray(longer * (1.0 + (shorter / longer) ** v["ν"]) ** (1.0 / v["ν"]) - chip_s)

    return _total(v, np.add(added(v["C₁"], v["k₁"] * v["h"]), added(v["C₂"], v["k₂"] * v["h"])))


def _imbalance(scene: TrainScene) -> Inputs:
    return {key: value for key, value in _frame(scene).items() if key != "n"} | {
        "S": Input(scene.slowest, "s", "slowest stage for one micro-batch, both directions"),
        "T": Input(one(scene.stages["total"]), "s", "all stages together"),
    }


def _pp(scene: TrainScene) -> Inputs:
    hop = one(scene.stages["hop"])
    size = boundary_bytes(scene) / scene.read("tp")
    return {
        "m": Input(scene.microbatches, "", "micro-batches of a step"),
        "p": Input(scene.read("pp"), "", "pipeline stages"),
        "v": Input(scene.read("vpp"), "", "chunks of layers on each stage"),
        "c": Input(hop, "s", "one hop between stages", _sent(size, scene.group("pp"))),
        "w": Input(scene.job.engine.boundary_s, "s", "wait on the host at each end of a chunk"),
        "Δβ": Input(bubble_of(scene, hop) - bubble_of(scene, 0.0), "s", "what hops of c add to the bubble"),
    }


def _chunks(scene: TrainScene) -> Inputs:
    return {
        "m": Input(scene.microbatches, "", "micro-batches of a step"),
        "v": Input(scene.read("vpp"), "", "chunks of layers on each stage"),
    }


def _amax(scene: TrainScene) -> Inputs:
    what = "all-reduce of the largest values of a stage's FP8 tensors"
    return _chunks(scene) | {"a": Input(one(scene.stages["amax"]), "s", what)}


def _evaluation(scene: TrainScene) -> Inputs:
    s = scene.stages
    return _chunks(scene) | {
        "e": Input(scene.point.train.evaluated, "", "global batches evaluated for each one trained"),
        "p": Input(scene.read("pp"), "", "pipeline stages"),
        "f": Input(scene.slowest * one(s["forward share"]) / one(s["total"]), "s", "slowest stage's forward"),
        "g": Input(others(scene)[0], "s", "forward of the others, their mean"),
        "c": Input(one(s["hop"]), "s", "one hop between stages"),
        "w": Input(scene.job.engine.boundary_s, "s", "wait on the host at each end of a chunk"),
    }


def _evaluation_s(v: Values) -> Column:
    fill = (v["p"] - 1.0) * (v["g"] / v["v"] + v["c"]) + v["m"] * v["v"] * v["w"]
    return np.asarray(v["e"] * (v["m"] * v["f"] + (v["p"] > 1) * fill))


# --- the update ---------------------------------------------------------------------------------------------------


def _optimizer(scene: TrainScene) -> Inputs:
    trains = scene.point.train.software.trains == "all"
    return {
        "b": Input(framework(scene.point.train.framework).update_bytes, "B", "bytes read and written per parameter"),
        "N": Input(
            one(footprint.updated_parameters(scene.loads, scene.cols)) * trains, "", "parameters a rank updates"
        ),
        "M": Input(scene.chip.accelerator.hbm_Bps, "B/s", "memory bandwidth, data sheet"),
        "η": Input(scene.chip.kernels["bf16"].hbm_efficiency, "", "share of it that streaming reaches"),
    }


_STAGES: Final = "parallel/training/step.py"
FIXED: Final[Mapping[str, Law]] = {
    **{name: _operators(name) for name in COMPUTE if name != "head"},
    "head": Equation(
        "m/p · (H + d·(H + J))",
        _head,
        lambda v: v["m"] / v["p"] * (v["H"] + v["d"] * (v["H"] + v["J"])),
        "parallel/operators.py; modules: DeepSeek-V3 2412.19437 §2.2",
    ),
    "recompute": Equation("m/p · Σ n·R", _recompute, lambda v: _total(v, v["R"]), "parallel/training/layer.py"),
    "cp": Equation(
        "m/p · Σ n·max(X − A, 0)",
        _cp,
        lambda v: _total(v, np.maximum(v["X"] - v["A"], 0.0)),
        "parallel/training/layer.py",
        lambda v: _total(v, v["X"]),
        note="hides behind the attention core",
    ),
    "contention": Equation(
        "m/p · Σ n·Z + κ·D",
        _contention,
        lambda v: np.add(_total(v, v["Z"]), v["κ"] * v["D"]),
        "parallel/training/layer.py; κ in clusters/data/training.yaml",
    ),
    "host": Equation(
        "m/p · Σ n·(‖C₁, k₁·h‖_ν − C₁ + ‖C₂, k₂·h‖_ν − C₂)",
        _host,
        _host_s,
        "parallel/training/layer.py; h in clusters/data/training.yaml",
    ),
    "imbalance": Equation(
        "m·max(S − T/p, 0)",
        _imbalance,
        lambda v: (v["p"] > 1) * v["m"] * np.maximum(v["S"] - v["T"] / v["p"], 0.0),
        _STAGES,
    ),
    "pp": Equation(
        "2·m·v·w + Δβ where p > 1, else 0",
        _pp,
        lambda v: (v["p"] > 1) * (2.0 * v["m"] * v["v"] * v["w"] + v["Δβ"]),
        "collectives/point_to_point.py, collectives/pipelines",
    ),
    "amax": Equation("2·m·v·a", _amax, lambda v: 2.0 * v["m"] * v["v"] * v["a"], _STAGES),
    "evaluation": Equation(
        "e·(m·f + (p − 1)·(g/v + c) + m·v·w), what follows m·f where p > 1", _evaluation, _evaluation_s, _STAGES
    ),
    "optimizer": Equation("b·N/(η·M)", _optimizer, lambda v: v["b"] * v["N"] / (v["η"] * v["M"]), _STAGES),
    "step": Equation(
        "s",
        lambda scene: {"s": Input(scene.job.fitted.shared["step_s"], "s", "host between two steps")},
        lambda v: v["s"],
        "clusters/data/training.yaml",
    ),
}
"""Term -> its equation, for those with one whatever the software does."""


def train_equations(scene: TrainScene) -> dict[str, Law]:
    """Return the equation of every term of a training step."""
    job = scene.job
    return {
        **FIXED,
        "tp": TP[job.does("tp_overlap")],
        "ep": EP[scene.read("ep_overlap") > 0],
        "dp": DP[bool(job.does("dp_overlap"))],
        "bubble": PUT_OFF if job.work.software.deferred else BUBBLE[int(scene.read("schedule")) == 0],
    }
