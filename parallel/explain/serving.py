"""The equations of a prefill or decoding pass: one row per term.

A pass runs as ``u`` micro-batches through ``n`` layers of each kind; a sum runs over the kinds. Seconds of a layer are of one
micro-batch on one rank.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from parallel.compressed import compressed_decode
from parallel.entries import entry_bytes, seen_at
from parallel.explain.equation import Equation, Input, Inputs, Values, per_kind
from parallel.explain.scene import ServeScene, one
from parallel.models import Attention
from parallel.operators import ACTIVATION_BYTES, decode_attention, kv_width
from parallel.serving.contexts import way_of
from parallel.serving.phases import COMPUTE, context_blocks
from topo.columns import Column

Law = Equation[ServeScene]


def _frame(scene: ServeScene) -> Inputs:
    """Layers and micro-batches."""
    names = ", ".join(kind.name for kind in scene.kinds)
    return {
        "n": Input(per_kind(scene.counts), "", f"layers of each kind: {names}"),
        "u": Input(scene.parts, "", "micro-batches of a pass"),
    }


def _total(v: Values, layer: Column) -> Column:
    return np.asarray(np.sum(v["n"] * v["u"] * layer))


def _each(scene: ServeScene, name: str) -> Column:
    """Seconds of a term in a layer, for one micro-batch, for each kind."""
    return np.array(scene.layer(name)) / scene.parts


# --- operators ----------------------------------------------------------------------------------------------------


def _operators(name: str) -> Law:
    def inputs(scene: ServeScene) -> Inputs:
        return _frame(scene) | {"O": Input(_each(scene, name), "s", "the term's operators in a layer")}

    source = "parallel/serving/phases.py; operators in parallel/operators.py, their times in parallel/roofline.py"
    return Equation("Σ n·u·O", inputs, lambda v: _total(v, v["O"]), source, note="O adds up over the operators listed")


def _cache_read(scene: ServeScene) -> Inputs:
    work, machine, tp = scene.point.serve, scene.chip, np.array([scene.read("tp")])
    b, context, hidden = np.array([scene.tokens]), work.mean_context, scene.point.model.hidden
    bf16, att = machine.kernels["bf16"], [kind.attention for kind in scene.kinds]
    part, rates = machine.accelerator.generation, machine.attention
    listed = [
        compressed_decode(a, hidden, b, context, tp)
        if a.compression
        else decode_attention(a, hidden, b, context, tp, work.kv_bytes, generation=part)
        for a in att
    ]
    reads = [next(op for op in ops if op.term == "kv read") for ops in listed]
    shape = {
        "sequences": scene.tokens,
        "context": [one(seen_at(a, context)) if a.compression else min(context, _most(a) or context) for a in att],
        "values per position": [entry_bytes(a) / work.kv_bytes if a.compression else one(kv_width(a, tp)) for a in att],
        "bytes per value": work.kv_bytes,
    }
    return _frame(scene) | {
        "V": Input(per_kind([op.bytes for op in reads]), "B", "cache read by a layer and micro-batch", shape),
        "Φ": Input(per_kind([op.flops for op in reads]), "FLOP", "scores and weighted sums over it"),
        "ℓ": Input(bf16.launch_s, "s", "launch of a kernel"),
        "M": Input(machine.accelerator.hbm_Bps, "B/s", "memory bandwidth, data sheet"),
        "η": Input(bf16.hbm_efficiency, "", "share of it that streaming reaches"),
        "τ": Input(bf16.hbm_ramp_s, "s", "ramp of the memory"),
        "Π": Input(machine.accelerator.peak_flops["bf16"], "FLOP/s", "dense BF16 peak, data sheet"),
        "ε": Input(
            per_kind([rates.latent if op.kind == "latent attention" else rates.forward for op in reads]),
            *("", "share of it that fused attention reaches"),
        ),
    }


def _most(att: Attention) -> int:
    """Positions that a token attends to at most; 0 is all."""
    return att.indexer.topk if att.indexer else att.sliding_window


def _cache_read_s(v: Values) -> Column:
    wire = v["V"] / v["M"]
    return _total(v, v["ℓ"] + np.maximum(v["Φ"] / (v["ε"] * v["Π"]), wire / v["η"] + np.sqrt(v["τ"] * wire)))


def _head(scene: ServeScene) -> Inputs:
    return {"H": Input(one(scene.layers["head"]), "s", "head over one token of each sequence")}


# --- communication ------------------------------------------------------------------------------------------------


def _tp(scene: ServeScene) -> Inputs:
    size = ACTIVATION_BYTES * scene.tokens * scene.point.model.hidden
    shape = {"size_bytes": size, "members": list(scene.group(scene.read("tp"))), "regime": scene.phase.regime}
    return _frame(scene) | {"R": Input(_each(scene, "tp") / 2.0, "s", "all-reduce of one half of a layer", shape)}


def _cp(scene: ServeScene) -> Inputs:
    cp, kinds = scene.read("cp"), [kind.attention for kind in scene.kinds]
    sizes = [one(context_blocks(scene.job, att, scene.cols)) for att in kinds]
    shape = {"size_bytes": sizes, "members": list(scene.group(cp, scene.read("tp"))), "ways": [*map(way_of, kinds)]}
    rounds = max(cp - 1.0, 1.0)
    return _frame(scene) | {
        "c": Input(cp, "", "ranks that share a prompt"),
        "K": Input(_each(scene, "busy cp") / rounds, "s", "one block of keys and values, from rank to rank", shape),
        "A": Input(_each(scene, "attention core"), "s", "attention to all blocks"),
        "h": Input(
            per_kind([float(way_of(att) == "ring") for att in kinds]), "", "1 where it runs meanwhile, 0 where it waits"
        ),
    }


CP: Final[Law] = Equation(
    "Σ n·u·(c − 1)·max(K − h·A/c, 0)",
    _cp,
    lambda v: _total(v, (v["c"] - 1.0) * np.maximum(v["K"] - v["h"] * v["A"] / v["c"], 0.0)),
    "parallel/serving/contexts.py; ring pass-KV: Yang et al. 2411.01783 §3.4",
    lambda v: _total(v, (v["c"] - 1.0) * v["K"]),
    note="while a rank attends to one block of keys and values the next one comes in",
)
"""Of strategies whose prompts are dealt over ranks."""


def exchange_share(scene: ServeScene) -> float | None:
    """Share of the multiprocessors that the exchange takes from a micro-batch beside it; None where none can run."""
    swap = scene.exchange
    beside = swap is not None and scene.parts > 1 and scene.ranks > 1
    return swap.taken if swap is not None and beside else None


def _work(scene: ServeScene) -> Column:
    """Seconds of a layer and micro-batch beside the exchange: operators and all-reduces."""
    return np.asarray(np.sum([_each(scene, name) for name in (*COMPUTE, "tp")], axis=0), dtype=np.float64)


def _ep(scene: ServeScene) -> Inputs:
    swap, shape = scene.exchange, dict[str, object]()
    if swap is not None:
        shape = {
            "kernels": swap.kernels,
            "members": list(swap.members),
            "tokens per rank": scene.tokens / scene.read("tp"),
        }
        shape |= {"dispatch_s": swap.dispatch_s, "combine_s": swap.combine_s}
        shape["equation"] = "X = (D + Q)·imbalance: dispatch and combine"
    routed = np.array([float(busy > 0) for busy in scene.layer("busy ep")])
    return _frame(scene) | {
        "X": Input(_each(scene, "busy ep"), "s", "exchange of a layer and micro-batch", shape),
        "A": Input(_work(scene) * routed, "s", "what the other micro-batch does in a layer"),
        "σ": Input(exchange_share(scene) or 0.0, "", "share of the multiprocessors that the exchange takes from it"),
    }


EP: Final[Mapping[bool, Law]] = {
    False: Equation("Σ n·u·X", _ep, lambda v: _total(v, v["X"]), "parallel/exchange.py, collectives/moe.py"),
    True: Equation(
        "Σ n·u·max(X − A/(1 − σ), 0)",
        _ep,
        lambda v: _total(v, np.maximum(v["X"] - v["A"] / (1.0 - v["σ"]), 0.0)),
        "parallel/exchange.py, collectives/moe.py; overlap: DeepSeek-V3 2412.19437 §3.4",
        lambda v: _total(v, v["X"]),
        note="the exchange of one micro-batch hides behind the work of the other",
    ),
}
"""Whether one micro-batch's exchange runs beside the other's work -> the equation."""


# --- waiting ------------------------------------------------------------------------------------------------------


def _turns(scene: ServeScene) -> Inputs:
    size = ACTIVATION_BYTES * scene.read("batch") * scene.phase.tokens_per_batch(scene.point.serve)
    shape = {"size_bytes": size * scene.point.model.hidden, "members": list(scene.group(scene.read("pp"), scene.ranks))}
    return {
        "p": Input(scene.read("pp"), "", "pipeline stages, and micro-batches that go round"),
        "S": Input(one(scene.passes["slow"]), "s", "slowest stage"),
        "T": Input(one(scene.passes["total"]), "s", "all stages together"),
        "c": Input(one(scene.passes["hop"]), "s", "one hop between stages", shape),
    }


_SOURCE: Final = "parallel/serving/phases.py"
_PP_SOURCE: Final = "collectives/point_to_point.py, parallel/serving/phases.py"
WAITS: Final[Mapping[str, Mapping[str, Law]]] = {
    "decode": {
        "imbalance": Equation(
            "p·S − T where p·S > T + p·c, else 0",
            _turns,
            lambda v: np.where(v["p"] * v["S"] > v["T"] + v["p"] * v["c"], v["p"] * v["S"] - v["T"], 0.0),
            _SOURCE,
        ),
        "pp": Equation(
            "p·c where p·S ≤ T + p·c, else 0",
            _turns,
            lambda v: np.where(v["p"] * v["S"] > v["T"] + v["p"] * v["c"], 0.0, v["p"] * v["c"]),
            _PP_SOURCE,
            lambda v: v["p"] * v["c"],
        ),
    },
    "prefill": {
        "imbalance": Equation(
            "0", _turns, lambda v: 0.0 * v["p"], _SOURCE, note="a prompt does not wait for the slowest"
        ),
        "pp": Equation("(p − 1)·c", _turns, lambda v: (v["p"] - 1.0) * v["c"], _PP_SOURCE, lambda v: v["p"] * v["c"]),
    },
}
"""Phase -> the equations of what stages wait for."""

FIXED: Final[Mapping[str, Law]] = {
    **{name: _operators(name) for name in COMPUTE if name not in ("head", "kv read")},
    "kv read": Equation(
        "Σ n·u·(ℓ + max(Φ/(ε·Π), V/(η·M) + √(τ·V/M)))",
        _cache_read,
        _cache_read_s,
        "parallel/operators.py; absorption: DeepSeek-V2 2405.04434 §2.1.2; ramp: clusters/kernels.py",
    ),
    "head": Equation("H", _head, lambda v: v["H"], "parallel/operators.py"),
    "tp": Equation(
        "Σ 2·n·u·R", _tp, lambda v: _total(v, 2.0 * v["R"]), "parallel/serving/phases.py, collectives/all_reduce.py"
    ),
    "contention": Equation(
        "Σ n·u·A·(1/(1 − σ) − 1)",
        _ep,
        lambda v: _total(v, v["A"] * (1.0 / (1.0 - v["σ"]) - 1.0)),
        _SOURCE,
        note="products run on the multiprocessors that the exchange leaves",
    ),
}
"""Term -> its equation, in both phases."""


def serve_equations(scene: ServeScene) -> dict[str, Law]:
    """Return the equation of every term of a pass."""
    passed = {"cp": CP} if "cp" in scene.cols else {}
    return {**FIXED, **passed, "ep": EP[exchange_share(scene) is not None], **WAITS[scene.point.phase]}
