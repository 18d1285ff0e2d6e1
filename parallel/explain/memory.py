"""Where the memory of one accelerator goes: an equation for each holder, on the stage that holds most."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from parallel import memory
from parallel.explain.equation import Equation, Input, Inputs, Values, computed, per_kind
from parallel.explain.scene import Scene, ServeScene, TrainScene, one
from parallel.models import Moe, indexed, kept_bytes, mlp_parameters, shared_parameters
from parallel.operators import ACTIVATION_BYTES, position_bytes
from parallel.precision import FORMATS
from parallel.serving.contexts import held_blocks
from parallel.serving.phases import context_blocks
from parallel.training import footprint
from parallel.training.frameworks import framework
from parallel.training.step import SCHEDULES
from topo.columns import Column

TrainLaw = Equation[TrainScene]
ServeLaw = Equation[ServeScene]


# --- training -----------------------------------------------------------------------------------------------------


def _place(scene: TrainScene) -> str:
    """Return the stage that holds most: first, inner or last."""
    return memory.PLACES[int(footprint.fullest(scene.loads, scene.cols, scene.point.train)[0])]


def _state(name: str) -> TrainLaw:
    def inputs(scene: TrainScene) -> Inputs:
        place, zero = _place(scene), int(scene.read("zero"))
        whole, divided = footprint.rates(scene.point.train)[name]
        gathered = one(scene.loads["gathered"]) if name == "weights" and zero >= 3 else 0.0
        return {
            "a": Input(float(whole[zero]), "B", f"bytes per parameter that ZeRO {zero} leaves whole"),
            "N": Input(one(scene.loads[f"whole {place}"]), "", f"parameters of a rank of the {place} stage"),
            "b": Input(float(divided[zero]), "B", "bytes per parameter that replicas share"),
            "D": Input(one(scene.loads[f"divided {place}"]), "", "parameters that are left of them for each replica"),
            "G": Input(memory.WEIGHT_BYTES * gathered, "B", "weights gathered for the layers at work"),
        }

    return Equation(
        "a·N + b·D + G",
        inputs,
        lambda v: v["a"] * v["N"] + v["b"] * v["D"] + v["G"],
        "parallel/training/footprint.py; ZeRO: Rajbhandari 1910.02054 §5",
    )


def _activations(scene: TrainScene) -> Inputs:
    place, work, cols = _place(scene), scene.point.train, scene.cols
    s = footprint.stage_bytes(scene.point.model, cols, work)
    held = footprint.flights(cols, cols["pp"] * 0.0 + scene.microbatches, SCHEDULES)
    copies, fw, zero = 0.0, framework(work.framework), scene.read("zero")
    if work.gradient_bytes < footprint.STEP_COPY_BYTES and not fw.gathers:
        whole, divided = (one(scene.loads[f"{name} {place}"]) for name in ("whole", "divided"))
        copies = footprint.STEP_COPY_BYTES * divided if zero >= 1 else fw.step_copy * whole
    apart = one(footprint.waiting(work, cols) * s["put off"]) * (place == "last")
    return {
        "f": Input(one(held[place]), "", f"micro-batches in flight on the {place} stage"),
        "K": Input(one(s[f"kept {place}"]), "B", "what one of them leaves for backward"),
        "w": Input(one(s[f"work {place}"]) + apart, "B", "workspace of the layer or the loss at work, and what waits"),
        "C": Input(copies, "B", "FP32 copies of gradients, when activations are gone"),
    }


def _reserve(scene: TrainScene) -> Inputs:
    work = scene.point.train
    fw = framework(work.framework)
    given = work.reserve_bytes
    return {
        "x": Input(
            fw.context_bytes if given is None else given, "B", "driver and context" if given is None else "given"
        ),
        "q": Input(one(footprint.communicators(scene.cols, fw)) * (given is None), "", "communicators of a rank"),
        "h": Input(footprint.CHANNELS, "", "channels of a communicator"),
        "y": Input(footprint.CHANNEL_BYTES, "B", "buffers of a channel"),
    }


TRAIN: Final[Mapping[str, TrainLaw]] = {
    **{name: _state(name) for name in ("weights", "gradients", "optimizer")},
    "activations": Equation(
        "max(f·K + w, C)",
        _activations,
        lambda v: np.maximum(v["f"] * v["K"] + v["w"], v["C"]),
        "parallel/training/activations.py; Korthikanti 2205.05198 §4",
    ),
    "reserve": Equation(
        "x + q·h·y",
        _reserve,
        lambda v: v["x"] + v["q"] * v["h"] * v["y"],
        "parallel/training/footprint.py; NCCL src/init.cc",
    ),
}
"""Holder of a training step's memory -> its equation."""


# --- serving ------------------------------------------------------------------------------------------------------


def _stage(scene: ServeScene) -> list[float]:
    """Layers of each kind on the fullest stage."""
    return [one(count) for count in memory.fullest_stage(scene.point.model, scene.cols["pp"])]


def _weights(scene: ServeScene) -> Inputs:
    model, recipe, tp = scene.point.model, scene.chip.recipe, scene.cols["tp"]
    width = {role: FORMATS[getattr(recipe, role)].bytes_per_value for role in ("attention", "mlp", "experts", "head")}
    kinds = scene.kinds
    attention = [memory.attention_bytes(model, kind, tp, width["attention"]) / width["attention"] for kind in kinds]
    feed = [(mlp_parameters(model, kind) + shared_parameters(model, kind)) / scene.read("tp") for kind in kinds]
    small = [memory.small_parameters(model, kind) for kind in kinds]
    experts = [memory.expert_shard(model, kind, np.array([scene.ranks]), 1.0) for kind in kinds]
    return {
        "n": Input(per_kind(_stage(scene)), "", "layers of each kind on the fullest stage"),
        "A": Input(per_kind(attention), "", "attention's parameters of a layer on a rank"),
        "F": Input(per_kind(feed), "", "those of the MLP and the shared expert"),
        "R": Input(per_kind(small), "", "those of router and norms"),
        "X": Input(per_kind(experts), "", "those of the routed experts, copies included"),
        "E": Input(one(memory.end_parameters(model, tp, scene.cols["pp"])), "", "those of embedding or head"),
        "a": Input(width["attention"], "B", f"bytes per value: {recipe.attention}"),
        "f": Input(width["mlp"], "B", f"bytes per value: {recipe.mlp}"),
        "x": Input(width["experts"], "B", f"bytes per value: {recipe.experts}"),
        "e": Input(width["head"], "B", f"bytes per value: {recipe.head}"),
        "w": Input(memory.WEIGHT_BYTES, "B", "bytes per value of router and norms"),
    }


def _weight_bytes(v: Values) -> Column:
    layer = v["A"] * v["a"] + v["F"] * v["f"] + v["R"] * v["w"] + v["X"] * v["x"]
    return np.asarray(np.sum(v["n"] * layer) + v["E"] * v["e"])


def _cache(scene: ServeScene) -> Inputs:
    work, decoding = scene.point.serve, scene.point.phase == "decode"
    context = work.mean_context if decoding else float(work.isl)
    kept = [min(context, kind.attention.sliding_window or context) for kind in scene.kinds]
    sizes = [
        position_bytes(kind.attention, scene.cols["tp"], work.kv_bytes)
        + kept_bytes(kind.attention, context) / positions
        for kind, positions in zip(scene.kinds, kept, strict=True)
    ]
    return {
        "n": Input(per_kind(_stage(scene)), "", "layers of each kind on the fullest stage"),
        "s": Input(scene.read("batch") * scene.read("tp") * scene.read("pp"), "", "sequences of an attention group"),
        "c": Input(np.array(kept), "", "positions that are kept of each"),
        "k": Input(
            per_kind([size / work.kv_bytes for size in sizes]),
            "",
            f"values per position and layer{', index keys, scales and what waits counted as such' * indexed(scene.point.model)}",
        ),
        "b": Input(work.kv_bytes, "B", "bytes per value"),
    }


def _passing(scene: ServeScene) -> Inputs:
    model = scene.point.model
    widest = max(
        kind.mlp.topk * kind.mlp.intermediate * 3 if isinstance(kind.mlp, Moe) else 3 * kind.mlp.intermediate
        for kind in model.layers
    )
    return {
        "t": Input(
            scene.read("batch") * scene.phase.tokens_per_batch(scene.point.serve), "", "tokens of a rank and pass"
        ),
        "h": Input(float(model.hidden), "", "hidden size"),
        "f": Input(float(widest), "", "width of the widest feed-forward block, all three matrices"),
        "B": Input(scene.read("batch"), "", "sequences of a rank"),
        "V": Input(float(model.vocab), "", "vocabulary"),
        "a": Input(ACTIVATION_BYTES, "B", "bytes per activation"),
    }


def _blocks(scene: ServeScene) -> Inputs:
    kinds = [kind.attention for kind in scene.kinds]
    held = per_kind([one(held_blocks(att, scene.cols["cp"])) for att in kinds])
    each = per_kind([one(context_blocks(scene.job, att, scene.cols)) for att in kinds])
    return {
        "h": Input(held, "", "blocks held at once: two that a ring fills in turn, all under an indexer"),
        "K": Input(each, "B", "keys and values that a rank has of the prompts of a micro-batch, a layer"),
    }


SERVE: Final[Mapping[str, ServeLaw]] = {
    "weights": Equation("Σ n·(A·a + F·f + R·w + X·x) + E·e", _weights, _weight_bytes, "parallel/memory.py"),
    "kv cache": Equation(
        "Σ n·s·c·k·b",
        _cache,
        lambda v: np.sum(v["n"] * v["c"] * v["k"]) * v["s"] * v["b"],
        "parallel/memory.py",
        note="stages divide the weights, not the cache: each holds fewer layers of more sequences",
    ),
    "activations": Equation(
        "a·t·(6·h + f) + 4·B·V",
        _passing,
        lambda v: v["a"] * v["t"] * (6.0 * v["h"] + v["f"]) + 4.0 * v["B"] * v["V"],
        "parallel/serving/phases.py",
    ),
    "kv blocks": Equation(
        "max h·K",
        _blocks,
        lambda v: np.asarray(np.max(v["h"] * v["K"])),
        "parallel/serving/contexts.py",
        note="keys and values of other ranks of a prompt, while a layer attends to them",
    ),
    "reserve": Equation(
        "x",
        lambda scene: {"x": Input(scene.point.serve.reserve_bytes, "B", "driver, libraries, graphs and allocator")},
        lambda v: v["x"],
        "parallel/workload.py",
    ),
}
"""Holder of a serving rank's memory -> its equation."""


def memory_rows(scene: Scene) -> list[dict[str, Any]]:
    """Return what each holder takes of one accelerator, with its equation, largest first."""
    held = {name: one(value) for name, value in scene.priced.memory.items()}
    laws: Mapping[str, Equation[Any]] = TRAIN if isinstance(scene, TrainScene) else SERVE
    room, rows = scene.cluster.accelerator.usable_bytes, list[dict[str, Any]]()
    for name, size in sorted(held.items(), key=lambda pair: -pair[1]):
        law = laws[name]
        inputs = law.inputs(scene)
        rows.append(
            {
                "name": name,
                "bytes": size,
                "share": size / room,
                "equation": law.text,
                "inputs": {symbol: given.written() for symbol, given in inputs.items()},
                "computed_bytes": computed(law, inputs)[0],
                "source": law.source,
                "note": law.note,
            }
        )
    return rows
