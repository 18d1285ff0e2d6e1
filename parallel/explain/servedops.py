"""What a decoding step under an engine runs: its linear operators and its reductions, each with its seconds of a step."""

from typing import Any

import numpy as np

from clusters.build import path
from clusters.tunings import collective_s
from parallel.explain.operators import Run, bound_by, work
from parallel.explain.scene import one
from parallel.models import Moe
from parallel.operators import ACTIVATION_BYTES
from parallel.placement import domain_size, members_of
from parallel.serving.deployed import Deployment
from parallel.serving.kernels import work_s
from parallel.serving.passes import linear_operators
from topo.columns import column


def operator_rows(held: Deployment, tokens: float) -> list[dict[str, Any]]:
    """Return the linear operators of a step for some tokens of an attention group, those that take longest first.

    In the form of `parallel.explain.operators.operator_rows`; starts of kernels are a term of their own.
    """
    replica, machine = held.replica, held.replica.chip
    found = []
    for kind in replica.model.layers:
        ops, beside = linear_operators(replica, kind, tokens)
        for op in [*ops, *beside]:
            seconds = kind.count * one(column(work_s(op, machine)))
            if seconds <= 0:
                continue
            flops, moved = work(op, machine)
            product = op.kind in ("gemm", "grouped_gemm")
            shape = {key: one(column(getattr(op, key))) for key in ("m", "n", "k", "groups")} if product else {}
            found.append(
                {
                    "operator": op.name, "layers": kind.name, "times": float(kind.count), **shape, "flops": flops,
                    "bytes": moved, "seconds": seconds, "bound": bound_by(Run(kind.name, op, 1.0, 1.0, None), machine),
                }
            )  # fmt: skip
    return sorted(found, key=lambda row: -row["seconds"])


def collective_rows(held: Deployment, tokens: float) -> list[dict[str, Any]]:
    """Return the reductions of a step, by the engine's own kernels or NCCL, whichever is faster."""
    replica, split = held.replica, held.replica.split
    if split.tp <= 1:
        return []
    cluster, size = replica.cluster, np.array([ACTIVATION_BYTES * tokens * replica.model.hidden])
    members = members_of(cluster, np.array([float(domain_size(cluster))]), np.array([split.tp]), np.ones(1))
    ways = {
        regime: one(collective_s("all_reduce", size, members, path(cluster, "all_reduce", regime), regime))
        for regime in ("graph", "nccl")
    }
    regime = min(ways, key=lambda name: ways[name])
    times = sum(
        kind.count * (1.0 if isinstance(kind.mlp, Moe) and split.groups > 1 else 2.0) for kind in replica.model.layers
    )
    return [
        {
            "op": "all_reduce", "regime": regime, "bytes": float(size[0]), "members": members[:, 0].tolist(),
            "times": times, "seconds": ways[regime],
        }
    ]  # fmt: skip
