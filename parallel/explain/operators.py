"""The operators behind each term: shape, work, traffic, seconds a step, and what bounds them on this chip."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from clusters.catalogue import overridden
from clusters.kernels import gemm_bytes
from parallel.explain.scene import Scene, ServeScene, TrainScene, one
from parallel.operators import ACTIVATION_BYTES, Operator, gemm_flops, head
from parallel.precision import FORMATS
from parallel.roofline import Chip, backward_s, forward_s, gradients_s
from parallel.serving.kernels import started_s
from parallel.serving.phases import feed_forward, head_tokens, layer_operators
from parallel.training.layer import operators
from topo.columns import column

FREE = 1e6
"""How many times faster a part of the chip becomes to see what is left without it."""
PEAKS = ("bf16", "fp8", "fp4")


@dataclass(frozen=True, slots=True)
class Run:
    """An operator, how often a step runs it forward, and the seconds of one run in both directions."""

    layer: str
    op: Operator
    times: float
    share: float
    """Rows of the busiest rank over the mean, for experts; what a prompt takes over its kernels alone."""
    trains: bool | None
    """Whether weights have gradients; None where there is no backward."""

    def seconds(self, machine: Chip) -> float:
        """Seconds of one run, backward included."""
        if self.trains is None:
            return self.share * one(column(started_s(self.op, machine)))
        ahead = one(column(forward_s(self.op, machine)))
        inputs, weights = (one(column(part)) for part in gradients_s(self.op, machine))
        if self.layer == "head":  # its backward is whole, whatever is trained
            return ahead + one(column(backward_s(self.op, machine)))
        return self.share * (ahead + inputs + (weights if self.trains else 0.0))


def _train_runs(scene: TrainScene) -> Iterator[Run]:
    often, work = scene.microbatches / scene.read("pp"), scene.point.train
    trains = work.software.trains == "all"
    for kind, count in zip(scene.kinds, scene.counts, strict=True):
        for op in operators(scene.job, kind, scene.cols):
            yield Run(kind.name, op, often * count, work.imbalance if op.role == "experts" else 1.0, trains)
    t, tp, h = scene.cols["micro_batch"] * work.sequence / scene.cols["cp"], scene.cols["tp"], scene.point.model.hidden
    fused = scene.job.engine.fused_loss or work.software.compiled
    for op in head(h, scene.point.model.vocab, t, tp, fused=fused):
        yield Run("head", op, often * (1.0 + scene.modules), 1.0, trains=True)
    if scene.modules:
        joined = Operator("mtp projection", "gemm", "head", "mlp", m=t, n=h / tp, k=2.0 * h)
        yield Run("head", joined, often * scene.modules, 1.0, trains=True)


def _serve_runs(scene: ServeScene) -> Iterator[Run]:
    h, tp, tokens = scene.point.model.hidden, scene.cols["tp"], np.array([scene.tokens])
    over = scene.phase.over()
    for kind, count in zip(scene.kinds, scene.counts, strict=True):
        listed = [
            *layer_operators(scene.job, scene.phase, kind, scene.cols),
            *feed_forward(kind.mlp, scene.point.serve, h, tokens, tp, np.array([scene.ranks])),
        ]
        for op in listed:
            yield Run(kind.name, op, scene.parts * count, over, None)
    for op in head(h, scene.point.model.vocab, head_tokens(scene.job, scene.phase, scene.cols), tp):
        yield Run("head", op, 1.0, over, None)


def runs(scene: Scene) -> list[Run]:
    """Return every operator of a step, layer kind by layer kind."""
    if isinstance(scene, TrainScene):
        return list(_train_runs(scene))
    return list(_serve_runs(scene)) if isinstance(scene, ServeScene) else []


@lru_cache(maxsize=64)
def _without(part: Any, name: str) -> Any:
    """Return a part whose products, or whose memory, take no time."""
    peaks = {f"peak_{fmt}": part.peak_flops[fmt] * FREE for fmt in PEAKS if part.peak_flops.get(fmt)}
    return overridden(part, peaks if name == "compute" else {"hbm_bandwidth": part.hbm_Bps * FREE})


def bound_by(run: Run, machine: Chip) -> str:
    """Return which would take longer alone, `compute` or `memory`, or `launch` where most is left without either.

    >>> from parallel.roofline import chip
    >>> from parallel.precision import recipe
    >>> from clusters.catalogue import accelerator
    >>> h100 = chip(accelerator("h100-sxm"), recipe("bf16"))
    >>> shapes = {"large": 8192, "few tokens": 16}
    >>> [bound_by(Run("", Operator("x", "gemm", "mlp", "mlp", m=m, n=8192, k=8192), 1, 1, None), h100) for m in shapes.values()]
    ['compute', 'memory']
    """
    part = machine.accelerator
    fast = {name: _without(part, name) for name in ("compute", "memory")}
    neither = _without(fast["compute"], "memory")
    alone = {
        name: run.seconds(replace(machine, accelerator=fast[other]))
        for name, other in (("compute", "memory"), ("memory", "compute"))
    }
    if run.seconds(replace(machine, accelerator=neither)) > 0.5 * run.seconds(machine):
        return "launch"
    return max(alone, key=lambda name: alone[name])


def work(op: Operator, machine: Chip) -> tuple[float, float]:
    """Return FLOPs and bytes of one operator, forward."""
    if op.kind not in ("gemm", "grouped_gemm"):
        return one(column(op.flops)), one(column(op.bytes)) * (machine.vector if op.kind == "vector" else 1.0)
    fmt = FORMATS["bf16"] if op.role == "core" else machine.format(op.role)
    side = min(fmt.bytes_per_value, ACTIVATION_BYTES)
    moved = column(op.groups) * gemm_bytes(op.m, op.n, op.k, side, side, ACTIVATION_BYTES)
    return one(gemm_flops(op)), one(column(moved))


def operator_rows(scene: Scene) -> dict[str, list[dict[str, Any]]]:
    """Return the operators of each term, those that take longest first.

    Each row: `operator`, `layers` (the kind), `times` a step, `m`, `n`, `k`, `groups` of products, `flops` and `bytes` of one
    run forward, `seconds` of a step in both directions, `bound`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs(scene):
        flops, moved = work(run.op, scene.chip)
        product = run.op.kind in ("gemm", "grouped_gemm")
        shape = {key: one(column(getattr(run.op, key))) for key in ("m", "n", "k", "groups")} if product else {}
        row = {
            "operator": run.op.name,
            "layers": run.layer,
            "times": run.times,
            **shape,
            "flops": flops,
            "bytes": moved,
            "seconds": run.times * run.seconds(scene.chip),
            "bound": bound_by(run, scene.chip),
        }
        found.setdefault(run.op.term, []).append(row)
    return {term: sorted(rows, key=lambda row: -row["seconds"]) for term, rows in found.items()}
