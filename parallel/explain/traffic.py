"""Which collectives make each communication term: what is sent, over whom, how often a step."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from parallel.explain.scene import Message, Scene, ServeScene, TrainScene, one
from parallel.models import Moe
from parallel.operators import ACTIVATION_BYTES, kv_width
from parallel.serving.contexts import way_of
from parallel.serving.phases import context_blocks

if TYPE_CHECKING:
    from parallel.models import LayerKind


def boundary_bytes(scene: TrainScene) -> float:
    """Activations of one micro-batch that a layer's halves hand on, ``2·t·h``."""
    return ACTIVATION_BYTES * layer_tokens(scene) * scene.point.model.hidden


def layer_tokens(scene: TrainScene) -> float:
    """Tokens of one rank and micro-batch."""
    return scene.read("micro_batch") * scene.point.train.sequence / scene.read("cp")


def halves(kind: "LayerKind") -> float:
    """Halves of a layer that tensor parallelism splits: attention, and the MLP or the shared expert where there is one."""
    return 1.0 + float(not isinstance(kind.mlp, Moe) or bool(kind.mlp.shared_intermediate))


def key_bytes(scene: TrainScene, kind: "LayerKind") -> float:
    """Keys and values of a whole sequence on the ranks of one tensor shard, ``2·t·cp·kv``."""
    wide = one(kv_width(kind.attention, np.array([scene.read("tp")])))
    return ACTIVATION_BYTES * layer_tokens(scene) * scene.read("cp") * wide


def expert_bytes(scene: TrainScene, moe: Moe) -> float:
    """Rows that one rank brings to the experts, ``2·t/tp·k·h``, times etp, which shares them."""
    rows = layer_tokens(scene) / scene.read("tp") * moe.topk
    return ACTIVATION_BYTES * rows * scene.point.model.hidden * scene.read("etp")


def reductions(scene: TrainScene) -> tuple[float, float]:
    """How often a step reduces gradients, and how often it gathers weights: once, or at every run of a stage.

    ZeRO 2 reduces after every backward; ZeRO 3 also gathers before every forward and backward. A chunk of an interleaved
    pipeline runs on pp micro-batches in a row.
    """
    m = scene.microbatches
    runs = float(np.ceil(m / scene.read("pp"))) if scene.read("vpp") > 1 else m
    reduce = runs if scene.read("zero") >= 2 else 1.0
    gather = 2.0 * runs if scene.read("zero") >= 3 else 1.0
    if scene.point.train.software.trains != "all":
        return 0.0, gather * (scene.read("zero") >= 3)
    return reduce, gather


def train_messages(scene: TrainScene) -> dict[str, list[Message]]:
    """Return the collectives of a training step by term."""
    often = scene.microbatches / scene.read("pp")
    layers = list(zip(scene.kinds, scene.counts, strict=True))
    size, tp, cp, etp = boundary_bytes(scene), scene.group("tp"), scene.group("cp"), scene.group("etp")
    split = sum(count * halves(kind) for kind, count in layers)
    found: dict[str, list[Message]] = {"tp": [], "cp": [], "dp": [], "pp": [], "ep": []}
    if scene.read("sp") > 0:
        gathered = size * scene.job.gathered_bytes / ACTIVATION_BYTES
        found["tp"].append(Message("all_gather", "nccl", gathered, tp, 3.0 * often * split))
        found["tp"].append(Message("reduce_scatter", "nccl", size, tp, 2.0 * often * split))
    else:
        found["tp"].append(Message("all_reduce", "nccl", size, tp, 2.0 * often * split))
    for kind, count in layers:
        keys = key_bytes(scene, kind)
        found["cp"].append(Message("all_gather", "nccl", keys, cp, 2.0 * often * count))
        found["cp"].append(Message("reduce_scatter", "nccl", keys, cp, often * count))
        if isinstance(kind.mlp, Moe):
            rows = expert_bytes(scene, kind.mlp)
            found["tp"] += [
                Message(op, "nccl", rows, etp, 2.0 * often * count) for op in ("all_gather", "reduce_scatter")
            ]
            if scene.point.train.software.dispatcher == "alltoall":
                exchanged = rows / scene.read("etp")
                found["ep"].append(Message("all_to_all", "nccl", exchanged, scene.group("ep"), 4.0 * often * count))
    reduce, gather = reductions(scene)
    width = scene.point.train.gradient_bytes
    for group, name in (("dp", "dense parameters"), ("edp", "expert parameters")):
        held, members = one(scene.stages[name]), scene.group(group)
        found["dp"].append(Message("reduce_scatter", "nccl", width * held, members, reduce))
        found["dp"].append(Message("all_gather", "nccl", scene.job.gathered_bytes * held, members, gather))
    hops = 2.0 * scene.microbatches * scene.read("vpp") * (scene.read("pp") > 1)
    found["pp"].append(Message("send_recv", "nccl", size / scene.read("tp"), scene.group("pp"), hops))
    return {name: kept for name, sent in found.items() if (kept := [each for each in sent if _real(each)])}


def serve_messages(scene: ServeScene) -> dict[str, list[Message]]:
    """Return the collectives of one pass by term."""
    size = ACTIVATION_BYTES * scene.tokens * scene.point.model.hidden
    reduces = 2.0 * scene.parts * sum(scene.counts)
    found = {"tp": [Message("all_reduce", scene.phase.regime, size, scene.group(scene.read("tp")), reduces)]}
    rows = ACTIVATION_BYTES * scene.read("batch") * scene.phase.tokens_per_batch(scene.point.serve)
    hops = scene.read("pp") - (scene.point.phase == "prefill")
    found["cp"] = list(_blocks(scene)) if "cp" in scene.cols else []
    spans = scene.group(scene.read("pp"), scene.ranks)
    found["pp"] = [Message("send_recv", "nccl", rows * scene.point.model.hidden, spans, hops)]
    return {name: kept for name, sent in found.items() if (kept := [each for each in sent if _real(each)])}


def _blocks(scene: ServeScene) -> Iterator[Message]:
    """Yield what the ranks of a prompt pass on in the layers of each kind: cp − 1 messages, or one all-gather."""
    cp, group = scene.read("cp"), scene.group(scene.read("cp"), scene.read("tp"))
    for kind, count in zip(scene.kinds, scene.counts, strict=True):
        size, times = one(context_blocks(scene.job, kind.attention, scene.cols)), scene.parts * count
        if way_of(kind.attention) == "ring":
            yield Message("send_recv", "nccl", size, group, (cp - 1.0) * times)
        else:
            yield Message("all_gather", "nccl", cp * size, group, times)


def collective_rows(scene: Scene, term: str) -> list[dict[str, Any]]:
    """Return the collectives of a term: operation, software, bytes, members by tier, times a step, seconds of each."""
    return [
        {
            "op": message.op,
            "regime": message.regime,
            "bytes": message.size_bytes,
            "members": list(message.members),
            "times": message.times,
            "seconds": message.seconds(scene.road(message.op, message.regime)),
        }
        for message in scene.messages.get(term, ())
    ]


def _real(message: Message) -> bool:
    """Whether anything leaves the rank."""
    return message.members[-1] > 1 and message.size_bytes > 0 and message.times > 0
