"""One layer of a training step and micro-batch: its operators, its communication, and the host that launches them.

The layer is priced on the columns that its shapes depend on (`layer_prices`); what hides behind what, recomputation and
the host's share follow row by row (`exposed`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clusters.build import Cluster, path
from clusters.software import Engine, TrainingConstants, training_constants
from clusters.tunings import collective_s
from parallel.exchange import EXCHANGES, candidates, exchange_s, sm_share
from parallel.models import LayerKind, Model, Moe
from parallel.operators import ACTIVATION_BYTES, Operator, feed_forward, head, kv_width, norm, sequence_attention
from parallel.placement import group_members
from parallel.precision import recipe
from parallel.priced import total
from parallel.roofline import BACKWARD_KERNELS, Chip, backward_s, chip, forward_s, gradients_s, trained
from parallel.strategy import Columns
from parallel.training.activations import MODES
from parallel.training.frameworks import framework
from parallel.workload import GRAPHS, TrainWorkload
from topo.columns import Column, column

RECOMPUTE = MODES
COMPUTE = GRAPHS["full"]
PRODUCTS = ("attention", "mlp", "shared expert")
"""Terms whose products tensor-parallel communication can hide behind."""
HOST_NORM = 4.0
"""How sharply a layer turns from the chip's time to the host's: the exponent of their norm."""
COLLECTIVE_KERNELS = 2.0
"""What a collective costs the host, in kernels: its launch, and the event that the other stream waits for."""


@dataclass(frozen=True)
class TrainJob:
    """What stays fixed while strategies vary: model, cluster, workload, the chip in training, and its software."""

    model: Model
    cluster: Cluster
    work: TrainWorkload
    chip: Chip
    fitted: TrainingConstants

    @classmethod
    def of(
        cls, model: Model, cluster: Cluster, work: TrainWorkload, fitted: TrainingConstants | None = None
    ) -> "TrainJob":
        """Bind them together, with the shipped constants of training unless others are given."""
        known = fitted or training_constants()
        machine = chip(cluster.accelerator, recipe(work.precision, training=True))
        return cls(model, cluster, work, trained(machine, known, work.software), known)

    @property
    def engine(self) -> Engine:
        """The class of the software."""
        return self.fitted.engines[self.work.software.engine]

    def does(self, name: str) -> Any:
        """Return what the software does: as it says, else as its engine does."""
        return self.work.software.settled(name)


def collective(job: TrainJob, op: str, size_bytes: Column, members: Column) -> Column:
    """Seconds of one collective of NCCL over a group."""
    return collective_s(op, size_bytes, members, path(job.cluster, op, "nccl"), "nccl")


def tokens(job: TrainJob, cols: Mapping[str, Column]) -> Column:
    """Tokens of one rank and micro-batch."""
    return cols["micro_batch"] * job.work.sequence / cols["cp"]


def operators(job: TrainJob, kind: LayerKind, cols: Mapping[str, Column]) -> list[Operator]:
    """Return the kernels of one layer, in the order of forward."""
    work, h, tp, t = job.work, job.model.hidden, cols["tp"], tokens(job, cols)
    split = np.where(cols["sp"] > 0, tp, 1.0)  # norms and residuals are sharded under sequence parallelism only
    return [
        norm("attention norm", t, h, split),
        *sequence_attention(kind.attention, h, t, work.sequence, tp, causal=work.causal, fused=work.fused_attention),
        norm("mlp norm", t, h, split),
        *feed_forward(kind.mlp, h, t, tp, cols["ep"], cols["etp"], tokens_in_group=t / tp * cols["ep"]),
    ]


def _launches(job: TrainJob, op: Operator) -> Column:
    """Kernels that the host launches forward: none inside a CUDA graph, two where an operand is cast first."""
    if op.term in GRAPHS[job.work.software.graphs]:
        return column(0.0)
    product = op.kind in ("gemm", "grouped_gemm") and op.role != "core"
    return column(op.launches) * (2.0 if product and job.chip.format(op.role).name != "bf16" else 1.0)


def redone(job: TrainJob, op: Operator) -> float:
    """Share of an operator that selective recomputation redoes.

    All of the modules named; or, where products are saved one by one (PyTorch's per-operation recomputation keeps every
    second product and attention's result), memory-bound operations and half of the products.
    """
    if not framework(job.work.framework).saves_products:
        return float(bool(set(op.modules) & set(job.work.recompute_modules)))
    return 0.0 if op.term == "attention core" else 1.0 if op.kind == "vector" else 0.5


def _layer(
    job: TrainJob, kind: LayerKind, cols: Mapping[str, Column], members: Mapping[str, Column]
) -> dict[str, Column]:
    """Seconds, kernels and bytes of one layer of a kind, per micro-batch: forward, backward, what recomputing adds."""
    zero, listed = np.zeros_like(cols["tp"]), operators(job, kind, cols)
    out = {f"{way} {name}": zero for name in COMPUTE for way in ("forward", "backward")}
    named = ("redo selective", "column backward", "weights", "kernels forward", "kernels backward", "kernels selective")
    out |= dict.fromkeys(named, zero)
    trains = job.work.software.trains == "all"
    for op in listed:
        share = job.work.imbalance if op.role == "experts" else 1.0
        launched, ahead = _launches(job, op), forward_s(op, job.chip) * share
        inputs, weights = (share * part for part in gradients_s(op, job.chip))
        back = inputs + (weights if trains else 0.0)
        added = {
            f"forward {op.term}": ahead,
            f"backward {op.term}": back,
            "weights": weights if trains else zero,
            "redo selective": ahead * redone(job, op),
            "column backward": back if op.column_parallel else zero,
            "kernels forward": launched,
            "kernels backward": BACKWARD_KERNELS[op.kind] * launched,
            "kernels selective": launched * redone(job, op),
        }
        for name, value in added.items():
            out[name] = out[name] + value
    last_is_product = job.engine.stops_early and not isinstance(kind.mlp, Moe)
    out["not redone"] = forward_s(listed[-1], job.chip) if last_is_product else zero
    out |= _communication(job, kind, cols, members)
    return {name: np.broadcast_to(value, cols["tp"].shape) for name, value in out.items()}


def _communication(
    job: TrainJob, kind: LayerKind, cols: Mapping[str, Column], members: Mapping[str, Column]
) -> dict[str, Column]:
    """Tensor, context and expert communication of one layer and micro-batch, before overlap.

    Sequence parallelism gathers before and reduce-scatters after each of attention and MLP (Korthikanti 2205.05198 §4.2.2);
    backward gathers the inputs once more for the weight gradient. Without it, each direction all-reduces. The second
    gather and the reduction of backward are `hideable tp`: see `TP_OVERLAPS`. Context parallelism gathers keys and
    values. Experts dispatch and combine in each direction; gradients travel in the combine's format.
    """
    h, t = job.model.hidden, tokens(job, cols)
    moe = kind.mlp if isinstance(kind.mlp, Moe) else None
    sharded = 1.0 + (1.0 if moe is None or moe.shared_intermediate else 0.0)
    boundary = ACTIVATION_BYTES * t * h
    gather = collective(job, "all_gather", boundary, members["tp"])
    scatter = collective(job, "reduce_scatter", boundary, members["tp"])
    reduce = collective(job, "all_reduce", boundary, members["tp"])
    sharp = cols["sp"] > 0
    keys = ACTIVATION_BYTES * t * cols["cp"] * kv_width(kind.attention, cols["tp"])
    kv_gather = collective(job, "all_gather", keys, members["cp"])
    kv_scatter = collective(job, "reduce_scatter", keys, members["cp"])
    out: dict[str, Column] = {
        "forward tp": sharded * np.where(sharp, gather + scatter, reduce),
        "backward tp": sharded * np.where(sharp, gather, 0.0),
        "hideable tp": sharded * np.where(sharp, gather + scatter, reduce),
        "forward cp": kv_gather,
        "backward cp": kv_gather + kv_scatter,
        "forward ep": np.zeros_like(t),
        "backward ep": np.zeros_like(t),
        "lent": np.zeros_like(t),
        "kernels sent": column(COLLECTIVE_KERNELS * (2.0 * sharded * (cols["tp"] > 1) + (cols["cp"] > 1))),
    }
    if moe is not None:
        rows = ACTIVATION_BYTES * t / cols["tp"] * moe.topk * h
        shared = collective(job, "all_gather", rows * cols["etp"], members["etp"])
        shared = shared + collective(job, "reduce_scatter", rows * cols["etp"], members["etp"])
        out |= _exchange(job, moe, t / cols["tp"], rows, members["ep"])
        out["forward tp"] = out["forward tp"] + shared
        out["backward tp"] = out["backward tp"] + shared
    return out


def _exchange(job: TrainJob, moe: Moe, brought: Column, rows_bytes: Column, members: Column) -> dict[str, Column]:
    """Dispatch and combine, forward and backward, and the share of multiprocessors that they take meanwhile."""
    if job.work.software.dispatcher == "alltoall":
        plain = collective(job, "all_to_all", rows_bytes, members)
        dispatch, combine, lent = plain, plain, np.zeros_like(plain)
    else:
        swap = exchange_s(job.cluster, moe, job.model.hidden, brought, members, job.chip.recipe, phase="train")
        dispatch, combine = swap["dispatch"], swap["combine"]
        part = job.chip.accelerator
        shares = [sm_share(EXCHANGES[name], part.name, part.like) or 0.0 for name in candidates("auto", "train")]
        lent = np.array(shares)[swap["kernels"].astype(np.int64)]
    return {
        "forward ep": (dispatch + combine) * job.work.imbalance,
        "backward ep": 2.0 * combine * job.work.imbalance,
        "lent": lent,
    }


def layer_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price every layer kind, the head and the projection of a multi-token-prediction module on what they depend on."""
    members = {name: group_members(job.cluster, cols, name) for name in ("tp", "cp", "ep", "etp")}
    out: dict[str, Column] = {}
    for index, kind in enumerate(job.model.layers):
        out |= {f"{index} {name}": value for name, value in _layer(job, kind, cols, members).items()}
    t, h = tokens(job, cols), job.model.hidden
    fused = job.engine.fused_loss or job.work.software.compiled
    last = head(h, job.model.vocab, t, cols["tp"], fused=fused)
    joined = Operator("mtp projection", "gemm", "head", "mlp", m=t, n=h / cols["tp"], k=2.0 * h)
    for name, listed in (("head", last), ("mtp", [joined])):
        out[f"forward {name}"] = total(forward_s(op, job.chip) for op in listed)
        out[f"backward {name}"] = total(backward_s(op, job.chip) for op in listed)
    return out


def host_s(chip_s: Column, launching_s: Column) -> Column:
    """Seconds that launching adds to the chip's: ``(chip^n + host^n)^(1/n) − chip``, n = `HOST_NORM`.

    >>> float(host_s(np.array(1.0), np.array(0.0))), round(float(host_s(np.array(1.0), np.array(1.0))), 4)
    (0.0, 0.1892)
    """
    longer, shorter = np.maximum(chip_s, launching_s), np.minimum(chip_s, launching_s)
    ratio = shorter / np.maximum(longer, np.finfo(np.float64).tiny)
    return column(longer * (1.0 + ratio**HOST_NORM) ** (1.0 / HOST_NORM) - chip_s)


def tensor_exposed_s(mode: str, get: Mapping[str, Column], products: Column, tp: Column) -> Column:
    """Seconds of a layer's tensor-parallel communication that nothing hides, by a mode of `TP_OVERLAPS`.

    ``chunked`` leaves the first piece of each collective, ``1/tp`` of its time, and what outlasts the products;
    ``backward`` all but the second gather and the reduction of backward, which hide behind `column backward`.
    """
    open_s, hideable = get["forward tp"] + get["backward tp"], get["hideable tp"]
    if mode == "chunked":
        return column(np.maximum((open_s + hideable) / tp, open_s + hideable - products))
    hidden = get["column backward"] if mode == "backward" else 0.0
    return column(open_s + np.maximum(hideable - hidden, 0.0))


def exposed(job: TrainJob, prices: Mapping[str, Column], index: int, cols: Mapping[str, Column]) -> dict[str, Column]:
    """One layer's seconds by term, forward and backward together, with recomputation, overlap and the host's share.

    An overlapped exchange runs while another micro-batch computes: what it outlasts is exposed, and while it runs the
    products miss its multiprocessors (`contention`).
    """
    head = f"{index} "
    get = {name[len(head) :]: value for name, value in prices.items() if name.startswith(head)}
    ahead = total(get[f"forward {name}"] for name in COMPUTE)
    back = total(get[f"backward {name}"] for name in COMPUTE)
    full, selective = cols["recompute"] == RECOMPUTE.index("full"), cols["recompute"] == RECOMPUTE.index("selective")
    again = ahead - get["not redone"] + get["forward tp"] + get["forward cp"] + get["forward ep"]
    redo = np.where(full, again, np.where(selective, get["redo selective"], 0.0))
    core = get["forward attention core"] + get["backward attention core"]
    cp, ep = get["forward cp"] + get["backward cp"], get["forward ep"] + get["backward ep"]
    products = total(get[f"{way} {name}"] for way in ("forward", "backward") for name in PRODUCTS)
    tp = tensor_exposed_s(job.does("tp_overlap"), get, products, cols["tp"])
    overlapped = cols["ep_overlap"] > 0
    lent = np.where(overlapped, get["lent"] * np.minimum(ep, (ahead + back) / (1.0 - get["lent"])), 0.0)
    out = {name: get[f"forward {name}"] + get[f"backward {name}"] for name in COMPUTE}
    out |= {
        "recompute": redo,
        "tp": tp,
        "cp": np.maximum(cp - core, 0.0),
        "ep": np.where(overlapped, np.maximum(ep - (ahead + back + lent), 0.0), ep),
        "contention": lent,
        "busy tp": get["forward tp"] + get["backward tp"] + get["hideable tp"],
        "busy cp": cp,
        "busy ep": ep,
    }
    seen = 1.0 / 3.0  # of the exposed tensor communication, forward does one gather and one scatter of six
    first = ahead + seen * tp + np.where(overlapped, 0.0, get["forward ep"])
    second = back + redo + (1.0 - seen) * tp + np.where(overlapped, out["ep"] + lent, get["backward ep"])
    redone = np.where(full, get["kernels forward"], np.where(selective, get["kernels selective"], 0.0))
    each = job.engine.kernel_host_s
    host = host_s(first, each * (get["kernels forward"] + get["kernels sent"]))
    out["host"] = host + host_s(second, each * (get["kernels backward"] + redone + get["kernels sent"]))
    out["forward share"], out["weights share"] = first + host, get["weights"]
    return out
