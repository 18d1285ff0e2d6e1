"""One layer of a training step and micro-batch: its operators, its communication, and the host that launches them.

The layer is priced on the columns that its shapes depend on (`layer_prices`); what hides behind what, recomputation and
the host's share follow row by row (`exposed`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import exp
from typing import Any

import numpy as np

from clusters.build import Cluster, path
from clusters.kernels import memory_s
from clusters.overlay import kernels_path
from clusters.software import Engine, TrainingConstants, release_years, training_constants
from clusters.tunings import collective_s, tunings_path
from parallel.alike import together
from parallel.exchange import EXCHANGES, candidates, exchange_s, sm_share
from parallel.models import Attention, LayerKind, Mlp, Model, Moe, compressed, indexed, layer_count
from parallel.operators import (
    ACTIVATION_BYTES,
    Operator,
    dense_mlp,
    feed_forward,
    head,
    kv_width,
    norm,
    sequence_attention,
)
from parallel.placement import group_members
from parallel.precision import recipe
from parallel.priced import total
from parallel.roofline import BACKWARD_KERNELS, Chip, chip, forward_s, gradients_s, trained
from parallel.strategy import Columns, Floor, Memo
from parallel.training import ring
from parallel.training.activations import MODES
from parallel.training.frameworks import framework
from parallel.workload import GRAPHS, TrainWorkload
from topo.columns import Column, column
from topo.errors import Fault, SpecError

DENSE_AXES = ("used", "tp", "sp", "cp", "micro_batch")
EXPERT_AXES = ("used", "tp", "cp", "ep", "etp", "micro_batch")
ENDS = ("head", "mtp")
COUNTED = ("redo selective", "column backward", "weights", "kernels forward", "kernels backward", "kernels selective")
Seconds = tuple[Column, ...]
"""Of an operator: forward, the gradient of its inputs, the gradient of its weights."""
RECOMPUTE = MODES
COMPUTE = GRAPHS["full"]
PRODUCTS = ("attention", "mlp", "shared expert")
"""Terms whose products tensor-parallel communication can hide behind."""
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
    known: tuple[Memo, Memo] = field(default_factory=lambda: (Memo(), Memo()), init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, model: Model, cluster: Cluster, work: TrainWorkload, fitted: TrainingConstants | None = None
    ) -> "TrainJob":
        """Bind them together, with the shipped constants of training unless others are given.

        Raises
        ------
        SpecError
            The model attends to positions that an indexer chooses, whose gradients and loss are not priced.
        """
        if compressed(model):
            problem = (
                "attends to entries of several positions over mixed residual streams: their gradients are not priced"
            )
            raise SpecError([Fault("model", model.name, problem, "train another shape, such as deepseek-v3")])
        if indexed(model):
            problem = (
                "chooses positions by an indexer: its gradients and its loss (2512.02556 §2.1, eq. 4) are not priced"
            )
            raise SpecError([Fault("model", model.name, problem, "train the dense shape, such as deepseek-v3")])
        if fitted is None:
            return _shipped(model, cluster, work, kernels_path(), tunings_path())
        machine = chip(cluster.accelerator, recipe(work.precision, training=True))
        return cls(model, cluster, work, trained(machine, fitted, work.software, work.gradient_bytes), fitted)

    @property
    def engine(self) -> Engine:
        """The class of the software."""
        return self.fitted.engines[self.work.software.engine]

    @property
    def host_norm(self) -> float:
        """The exponent that joins the chip's time and the host's: their sum where every launch waits for its kernel."""
        return 1.0 if self.work.software.blocking else self.engine.host_norm

    @property
    def scale(self) -> float:
        """What multiplies every second of a step: the installation's factor, and what releases have saved, ``e^(−g·years)``.

        Megatron-Bridge's tables of one model, mapping and part, release after release, show steps that shorten by a tenth and
        more a year where a part or a format is new, by less later.
        """
        software = self.work.software
        return software.installation * exp(-self.engine.yearly * release_years(software.release))

    @property
    def in_torch(self) -> bool:
        """Whether PyTorch's own parallelism trains: FSDP, torchao's FP8 products, asynchronous tensor parallelism."""
        return framework(self.work.framework).gathers

    @property
    def gathered_bytes(self) -> float:
        """Bytes of a gathered weight or input: BF16, but FP8 where torchao casts before it gathers.

        That needs one scale for a whole tensor (torchtitan docs/float8.md: by default for tensor parallelism, an option that
        its benchmarks take for FSDP). Megatron-Core gathers parameters in BF16 unless `fp8_param_gather` is set.
        """
        return 1.0 if self.in_torch and self.chip.format("mlp").name == "fp8" else ACTIVATION_BYTES

    def does(self, name: str) -> Any:
        """Return what the software does: as it says, else as its engine does."""
        return self.work.software.settled(name)


@lru_cache(maxsize=8)
def _shipped(model: Model, cluster: Cluster, work: TrainWorkload, *overlays: str) -> TrainJob:
    """Bind a job with the shipped constants, once; `overlays` are the files of one's own that lie over others."""
    del overlays
    return TrainJob.of(model, cluster, work, training_constants())


def collective(job: TrainJob, op: str, size_bytes: Column, members: Column) -> Column:
    """Seconds of one collective of NCCL over a group."""
    return collective_s(op, size_bytes, members, path(job.cluster, op, "nccl"), "nccl")


def tokens(job: TrainJob, cols: Mapping[str, Column]) -> Column:
    """Tokens of one rank and micro-batch."""
    return cols["micro_batch"] * job.work.sequence / cols["cp"]


def attention_half(job: TrainJob, att: Attention, cols: Mapping[str, Column]) -> list[Operator]:
    """Return the kernels of attention and of both norms, which are sharded under sequence parallelism only."""
    work, h, tp, t = job.work, job.model.hidden, cols["tp"], tokens(job, cols)
    split = np.where(cols["sp"] > 0, tp, 1.0)
    kernels = sequence_attention(att, h, t, work.sequence, tp, causal=work.causal, fused=work.fused_attention)
    if not job.in_torch and np.any(cols["cp"] > 1):
        kernels = [ring.in_steps(op, cols["cp"]) if op.kind == "attention" else op for op in kernels]
        kernels.append(ring.merge(att, t, tp, cols["cp"]))
    return [norm("attention norm", t, h, split), *kernels, norm("mlp norm", t, h, split)]


def operators(job: TrainJob, kind: LayerKind, cols: Mapping[str, Column]) -> list[Operator]:
    """Return the kernels of one layer, in the order of forward."""
    if isinstance(kind.mlp, Moe):
        return [*attention_half(job, kind.attention, cols), *experts_half(job, kind.mlp, cols)]
    dense = dense_mlp(kind.mlp, job.model.hidden, tokens(job, cols), cols["tp"])
    return [*attention_half(job, kind.attention, cols), *dense]


def experts_half(job: TrainJob, moe: Moe, cols: Mapping[str, Column]) -> list[Operator]:
    """Return the kernels of the experts and of what stands beside them."""
    tp, t, h = cols["tp"], tokens(job, cols), job.model.hidden
    plain = feed_forward(moe, h, t, tp, cols["ep"], cols["etp"], tokens_in_group=t / tp * cols["ep"])
    return [*plain, *(biased_experts(moe, h, t / tp, cols["ep"], cols["etp"]) if moe.bias else [])]


def biased_experts(moe: Moe, h: float, t: Column, ep: Column, etp: Column) -> list[Operator]:
    """Return what experts with biases and clamped gates (GPT-OSS) add: Megatron-Core has no kernel that fuses them.

    Gate and input are clamped and joined again; the output's bias is weighted and added in FP32, expert by expert, joined
    and cast (megatron/core/fusions/fused_bias_geglu.py; transformer/moe/experts.py, TEGroupedMLP._apply_bias). Bytes per value
    are those that PyTorch's kernels read and write, forward and backward.
    """
    rows, local = t * moe.topk * etp, np.ceil(moe.experts / ep)
    wide, out = rows * 2.0 * moe.intermediate / etp, rows * h
    return [
        Operator("clamp", "vector", "vector", bytes=8.0 * wide, modules=("moe", "moe_act"), launches=3.0),
        Operator(
            *("expert bias", "vector", "vector"),
            bytes=28.0 * out,
            modules=("moe",),
            launches=2.0 * local + 2.0,
            backward_passes=36.0 / 28.0,
        ),
    ]


def ends(job: TrainJob, cols: Mapping[str, Column]) -> dict[str, list[Operator]]:
    """Return the kernels of the head, and the projection of a multi-token-prediction module."""
    t, h, tp = tokens(job, cols), job.model.hidden, cols["tp"]
    joined = Operator("mtp projection", "gemm", "head", "mlp", m=t, n=h / tp, k=2.0 * h)
    fused = job.engine.fused_loss or job.work.software.compiled
    return {"head": head(h, job.model.vocab, t, tp, fused=fused), "mtp": [joined]}


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


def _seconds(job: TrainJob, halves: Sequence[list[Operator]], rows: int) -> list[list[Seconds]]:
    """Price the operators of several halves together: seconds forward, of the inputs' and of the weights' gradients."""
    flat = [op for half in halves for op in half]
    priced = iter(together(flat, rows, partial(_priced, job)))
    return [[next(priced) for _ in half] for half in halves]


def _priced(job: TrainJob, op: Operator) -> Seconds:
    """Price one operator; where a kernel of its own adds up gradients, it reads the new one and reads and writes the sum."""
    inputs, weights = gradients_s(op, job.chip)
    if framework(job.work.framework).adds and op.weights and op.kind in ("gemm", "grouped_gemm"):
        values = column(op.groups) * column(op.n) * column(op.k)
        size_bytes = (ACTIVATION_BYTES + 2.0 * job.work.gradient_bytes) * values
        weights = weights + memory_s(size_bytes, job.chip.kernels["bf16"], job.chip.accelerator.hbm_Bps)
    return forward_s(op, job.chip), inputs, weights


def _computed(job: TrainJob, half: Sequence[Operator], seconds: Sequence[Seconds], rows: int) -> dict[str, Column]:
    """Seconds and kernels of half a layer for one micro-batch: forward, backward, what recomputing adds."""
    out = {f"{way} {name}": np.zeros(rows) for name in COMPUTE for way in ("forward", "backward")}
    out |= {name: np.zeros(rows) for name in COUNTED}
    trains = job.work.software.trains == "all"
    for op, (ahead, inputs, weights) in zip(half, seconds, strict=True):
        share = job.work.imbalance if op.role == "experts" else 1.0
        back = share * (inputs + weights if trains else inputs)
        launched, again = _launches(job, op), redone(job, op)
        out[f"forward {op.term}"] += share * ahead
        out[f"backward {op.term}"] += back
        out["weights"] += share * weights * trains
        out["redo selective"] += share * ahead * again
        out["column backward"] += back * op.column_parallel
        out["kernels forward"] += launched
        out["kernels backward"] += BACKWARD_KERNELS[op.kind] * launched
        out["kernels selective"] += launched * again
    return out


def _tensor(job: TrainJob, cols: Mapping[str, Column]) -> tuple[Column, Column]:
    """Seconds of tensor-parallel communication at one boundary of attention or MLP: entering and leaving, and entering.

    Sequence parallelism gathers before and reduce-scatters after each of attention and MLP (Korthikanti 2205.05198 §4.2.2);
    backward gathers the inputs once more for the weight gradient. Without it, each direction all-reduces. Sums travel in
    BF16, what is gathered in `gathered_bytes`.
    """
    values, members = tokens(job, cols) * job.model.hidden, group_members(job.cluster, cols, "tp")
    gather = collective(job, "all_gather", job.gathered_bytes * values, members)
    scatter = collective(job, "reduce_scatter", ACTIVATION_BYTES * values, members)
    reduce, sharp = collective(job, "all_reduce", ACTIVATION_BYTES * values, members), cols["sp"] > 0
    return np.where(sharp, gather + scatter, reduce), np.where(sharp, gather, 0.0)


def _context(job: TrainJob, att: Attention, cols: Mapping[str, Column]) -> tuple[Column, Column]:
    """Seconds in which context parallelism gathers keys and values, and scatters their gradients."""
    members = group_members(job.cluster, cols, "cp")
    keys = ACTIVATION_BYTES * tokens(job, cols) * cols["cp"] * kv_width(att, cols["tp"])
    return collective(job, "all_gather", keys, members), collective(job, "reduce_scatter", keys, members)


def _exchange(job: TrainJob, moe: Moe, cols: Mapping[str, Column]) -> dict[str, Column]:
    """Dispatch and combine, forward and backward, and the share of multiprocessors that they take meanwhile.

    Gradients travel in the combine's format.
    """
    members, brought = group_members(job.cluster, cols, "ep"), tokens(job, cols) / cols["tp"]
    if job.work.software.dispatcher == "alltoall":
        rows_bytes = ACTIVATION_BYTES * brought * moe.topk * job.model.hidden
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


def _shared_expert(job: TrainJob, moe: Moe, cols: Mapping[str, Column]) -> Column:
    """Seconds in which the ranks that share an expert gather its rows and scatter their sums."""
    members = group_members(job.cluster, cols, "etp")
    rows_bytes = ACTIVATION_BYTES * tokens(job, cols) / cols["tp"] * moe.topk * job.model.hidden * cols["etp"]
    gather = collective(job, "all_gather", rows_bytes, members)
    return gather + collective(job, "reduce_scatter", rows_bytes, members)


def dense_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price what no expert group changes: attention, dense MLPs, tensor and context communication, the head."""
    kinds, h, t = job.model.layers, job.model.hidden, tokens(job, cols)
    halves: dict[Any, list[Operator]] = {kind.attention: attention_half(job, kind.attention, cols) for kind in kinds}
    halves |= {kind.mlp: dense_mlp(kind.mlp, h, t, cols["tp"]) for kind in kinds if isinstance(kind.mlp, Mlp)}
    halves |= ends(job, cols)
    seconds = dict(zip(halves, _seconds(job, list(halves.values()), cols.rows), strict=True))
    parts = {key: _computed(job, half, seconds[key], cols.rows) for key, half in halves.items() if key not in ENDS}
    both, entering = _tensor(job, cols)
    sent = COLLECTIVE_KERNELS * job.work.software.sends
    out = {f"forward {name}": total(ahead for ahead, _, _ in seconds[name]) for name in ENDS}
    out |= {f"backward {name}": total(inputs + weights for _, inputs, weights in seconds[name]) for name in ENDS}
    out["weights head"] = total(weights for _, _, weights in seconds["head"])
    for index, kind in enumerate(kinds):
        routed = isinstance(kind.mlp, Moe)
        sharded = 2.0 if isinstance(kind.mlp, Mlp) or kind.mlp.shared_intermediate else 1.0
        layer = dict(parts[kind.attention]) if routed else _added(parts[kind.attention], parts[kind.mlp])
        gathered, scattered = _context(job, kind.attention, cols)
        layer |= {
            "not redone": np.zeros(cols.rows) if routed or not job.engine.stops_early else seconds[kind.mlp][-1][0],
            "forward tp": sharded * both,
            "backward tp": sharded * entering,
            "hideable tp": sharded * both,
            "forward cp": gathered,
            "backward cp": gathered + scattered,
            "kernels sent": column(sent * (2.0 * sharded * (cols["tp"] > 1) + (cols["cp"] > 1))),
            **dict.fromkeys(("forward ep", "backward ep", "lent"), np.zeros(cols.rows)),
        }
        out |= {f"{index} {name}": value for name, value in layer.items()}
    return out


def expert_prices(job: TrainJob, cols: Columns) -> dict[str, Column]:
    """Price the experts of every layer kind that has any, and their communication."""
    out: dict[str, Column] = {}
    for index, kind in enumerate(job.model.layers):
        if isinstance(kind.mlp, Moe):
            half = experts_half(job, kind.mlp, cols)
            layer = _computed(job, half, _seconds(job, [half], cols.rows)[0], cols.rows)
            shared = _shared_expert(job, kind.mlp, cols)
            layer |= {"forward tp": shared, "backward tp": shared, **_exchange(job, kind.mlp, cols)}
            out |= {f"{index} {name}": value for name, value in layer.items()}
    return out


def layer_prices(job: TrainJob, cols: Columns) -> Floor:
    """Price one layer of every kind, the head and the projection of a multi-token-prediction module."""
    dense = cols.on_distinct(DENSE_AXES, partial(dense_prices, job), job.known[0])
    if not any(isinstance(kind.mlp, Moe) for kind in job.model.layers):
        return dense
    experts = cols.on_distinct(EXPERT_AXES, partial(expert_prices, job), job.known[1])
    return dense | _added(dense, experts)


def _added(one: Mapping[str, Column], other: Mapping[str, Column]) -> dict[str, Column]:
    return {name: one[name] + value for name, value in other.items()}


def host_s(chip_s: Column, launching_s: Column, power: float) -> Column:
    """Seconds that launching adds to the chip's: ``(chip^n + host^n)^(1/n) − chip``; all of them where n is 1.

    >>> float(host_s(np.array(1.0), np.array(0.0), 4.0)), round(float(host_s(np.array(1.0), np.array(1.0), 4.0)), 4)
    (0.0, 0.1892)
    """
    longer, shorter = np.maximum(chip_s, launching_s), np.minimum(chip_s, launching_s)
    ratio = shorter / np.maximum(longer, np.finfo(np.float64).tiny)
    return column(longer * (1.0 + ratio**power) ** (1.0 / power) - chip_s)


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


def recomputed(model: Model, cols: Mapping[str, Column]) -> Column:
    """Return the share of the layers that full recomputation covers: all, or `recompute_layers` of each stage.

    Megatron-Core's `block` method recomputes the first layers of a stage and keeps the activations of the others.
    """
    if "recompute_layers" not in cols:
        return column(1.0)
    return np.minimum(cols["recompute_layers"] * cols["pp"] / layer_count(model), 1.0)


def exposed(job: TrainJob, prices: Mapping[str, Column], index: int, cols: Mapping[str, Column]) -> dict[str, Column]:
    """One layer's seconds by term, forward and backward together, with recomputation, overlap and the host's share.

    An overlapped exchange runs while another micro-batch computes: what it outlasts is exposed, and while it runs the
    products miss its multiprocessors (`contention`). PyTorch's asynchronous tensor parallelism copies and adds beside the
    products as a hidden reduction of gradients does, and takes as much from them; Transformer Engine's userbuffers do not.
    """
    head = f"{index} "
    get = {name[len(head) :]: prices[name] for name in prices if name.startswith(head)}
    ahead = total(get[f"forward {name}"] for name in COMPUTE)
    back = total(get[f"backward {name}"] for name in COMPUTE)
    full, selective = cols["recompute"] == RECOMPUTE.index("full"), cols["recompute"] == RECOMPUTE.index("selective")
    again = ahead - get["not redone"] + get["forward tp"] + get["forward cp"] + get["forward ep"]
    share = recomputed(job.model, cols)
    redo = np.where(full, share * again, np.where(selective, get["redo selective"], 0.0))
    core = get["forward attention core"] + get["backward attention core"]
    cp, ep = get["forward cp"] + get["backward cp"], get["forward ep"] + get["backward ep"]
    products = total(get[f"{way} {name}"] for way in ("forward", "backward") for name in PRODUCTS)
    tp = tensor_exposed_s(job.does("tp_overlap"), get, products, cols["tp"])
    overlapped = cols["ep_overlap"] > 0
    lent = np.where(overlapped, get["lent"] * np.minimum(ep, (ahead + back) / (1.0 - get["lent"])), 0.0)
    sent = get["forward tp"] + get["backward tp"] + get["hideable tp"]
    lent = lent + job.in_torch * job.fitted.shared["contention"] * np.maximum(sent - tp, 0.0)
    out = {name: get[f"forward {name}"] + get[f"backward {name}"] for name in COMPUTE}
    out |= {
        "recompute": redo,
        "tp": tp,
        "cp": np.maximum(cp - core, 0.0),
        "ep": np.where(overlapped, np.maximum(ep - (ahead + back + lent), 0.0), ep),
        "contention": lent,
        "busy tp": sent,
        "busy cp": cp,
        "busy ep": ep,
    }
    seen = 1.0 / 3.0  # of the exposed tensor communication, forward does one gather and one scatter of six
    first = ahead + seen * tp + np.where(overlapped, 0.0, get["forward ep"])
    second = back + redo + (1.0 - seen) * tp + np.where(overlapped, out["ep"] + lent, get["backward ep"])
    each = job.engine.kernel_host_s * np.where(overlapped, job.fitted.shared["overlapped"], 1.0)
    redone = np.where(full, share * get["kernels forward"], np.where(selective, get["kernels selective"], 0.0))
    power = job.host_norm
    host = host_s(first, each * (get["kernels forward"] + get["kernels sent"]), power)
    out["host"] = host + host_s(second, each * (get["kernels backward"] + redone + get["kernels sent"]), power)
    out["forward share"], out["weights share"] = first + host, get["weights"]
    return out
