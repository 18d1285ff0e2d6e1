"""Which strategies are valid: one table, read by the search, the messages and the documentation.

A rule says when a strategy is *valid*, from the columns it names alone; a strategy is rejected by the first rule it breaks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from clusters.build import Cluster
from collectives.pipelines import SCHEDULES as PIPELINES
from collectives.pipelines.domains import any_numbers
from parallel.exchange import works_for
from parallel.models import Mlp, Model, Moe, compressed, indexed, layer_count
from parallel.placement import ORDERS, domain_size, members_of, world
from parallel.serving.contexts import context_ranks
from parallel.serving.phases import replicas, stage_ranks
from parallel.strategy import Columns
from parallel.training.layer import RECOMPUTE
from parallel.training.step import SCHEDULES
from parallel.training.written import fits
from parallel.workload import ServeWorkload, TrainWorkload
from topo.columns import Column, column
from topo.errors import Fault, SpecError

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Setting:
    """What rules may ask about beside the strategy."""

    model: Model
    cluster: Cluster
    work: TrainWorkload | ServeWorkload

    @property
    def moe(self) -> Moe | None:
        """The expert layer, if there is one."""
        return next((kind.mlp for kind in self.model.layers if isinstance(kind.mlp, Moe)), None)


@dataclass(frozen=True)
class Rule:
    """One condition: the columns it reads, the test, and what to tell whoever breaks it."""

    name: str
    axes: tuple[str, ...]
    valid: Callable[[Columns, Setting], Mask]
    remedy: str


def divides(part: Column, whole: float | Column) -> Mask:
    """Return whether `part` divides `whole`.

    >>> divides(np.array([2.0, 3.0]), 8).tolist()
    [True, False]
    """
    return np.asarray(np.remainder(column(whole), part) == 0)


def _indexed(c: Columns, s: Setting) -> Mask:
    return np.full(c.rows, indexed(s.model))


def _compressed(c: Columns, s: Setting) -> Mask:
    return np.full(c.rows, compressed(s.model))


def _heads(c: Columns, s: Setting) -> Mask:
    ok = np.ones(c.rows, dtype=bool)
    for kind in s.model.layers:
        att = kind.attention
        kv = att.kv_heads if att.kind == "gqa" else att.compression.groups if att.compression else att.heads
        copied = divides(np.full(c.rows, float(kv)), c["tp"]) & (att.compression is None)
        ok &= divides(c["tp"], att.heads) & (divides(c["tp"], kv) | copied)
    return ok


def _widths(c: Columns, s: Setting) -> Mask:
    ok = np.ones(c.rows, dtype=bool)
    for kind in s.model.layers:
        width = kind.mlp.intermediate if isinstance(kind.mlp, Mlp) else kind.mlp.shared_intermediate
        ok &= divides(c["tp"], width)
    return ok


def _ranks(c: Columns, s: Setting) -> Mask:
    return np.asarray((c["dp"] >= 1) & (c["tp"] * c["cp"] * c["pp"] * c["dp"] <= world(s.cluster, c["used"])))


def _train(s: Setting) -> TrainWorkload:
    if not isinstance(s.work, TrainWorkload):
        raise TypeError("training rules need a training workload")
    return s.work


def _microbatches(c: Columns, s: Setting) -> Column:
    return column(_train(s).global_batch / (c["dp"] * c["micro_batch"]))


def _schedule_runs(c: Columns, s: Setting) -> Mask:
    ok = np.ones(c.rows, dtype=bool)
    if "schedule" not in c:
        return ok
    m = np.broadcast_to(_microbatches(c, s), (c.rows,))
    asked = (c["schedule"] > 0) & (c["pp"] > 1) & (c["dp"] >= 1)
    for code in np.unique(c["schedule"][asked]).astype(int).tolist():
        pipeline, mine = PIPELINES[SCHEDULES[code]], asked & (c["schedule"] == code)
        fits = np.full(c.rows, pipeline.training) & ((c["vpp"] == pipeline.chunks) | (pipeline.chunks == 0))
        ok &= ~mine | fits
        if pipeline.objection is any_numbers:
            continue
        for row in np.flatnonzero(mine & fits).tolist():
            ok[row] = not pipeline.objection(int(c["pp"][row]), int(m[row]), int(c["vpp"][row]))
    return ok


def _no_experts(c: Columns, s: Setting) -> Mask:
    return np.asarray(np.full(c.rows, s.moe is not None) | (c["ep"] == 1))


def _kernels_reach(c: Columns, s: Setting) -> Mask:
    named = s.work.exchange if isinstance(s.work, ServeWorkload) else "auto"
    if s.moe is None or named == "auto":
        return np.ones(c.rows, dtype=bool)
    ranks = stage_ranks(c)
    return works_for(s.cluster, members_of(s.cluster, c["used"], ranks, np.ones_like(ranks)), named)


def _whole(sequences: Column, parts: Column) -> Mask:
    return np.asarray((sequences >= parts) & divides(parts, sequences))


def _fresh(s: Setting) -> float:
    return s.work.fresh if isinstance(s.work, ServeWorkload) else 0.0


def _recurrent(c: Columns, s: Setting) -> Mask:
    return np.full(c.rows, any(kind.attention.kind == "delta" for kind in s.model.layers))


def _copies(c: Columns, s: Setting) -> Mask:
    if "replicate" not in c:
        return np.ones(c.rows, dtype=bool)
    experts = c["tp"] * c["cp"] * c["dp"] / (c["ep"] * c["etp"])
    shared = (c["replicate"] == 1) | (c.get("zero", 1.0) > 0)
    return np.asarray(divides(c["replicate"], c["dp"]) & divides(c["replicate"], experts) & shared)


def _laid_out(c: Columns, s: Setting) -> Mask:
    work = _train(s)
    if work.layout is None:
        return np.ones(c.rows, dtype=bool)
    round_robin = (c.get("schedule", 0.0) == 0) | (c["vpp"] == 1)
    return np.asarray(round_robin & fits(work.layout, s.model, c["pp"], c["vpp"], work.software.mtp))


_FILLING = Rule(
    "a domain holds its ranks",
    ("used",),
    lambda c, s: c["used"] <= domain_size(s.cluster),
    "lower ranks_per_domain to the size of a domain, or leave it out",
)

TRAIN_RULES: tuple[Rule, ...] = (
    Rule(
        "training prices no indexed attention",
        (),
        lambda c, s: ~_indexed(c, s) & ~_compressed(c, s),
        "sparse attention over indexed positions is priced in serving alone: train the dense shape, such as deepseek-v3",
    ),
    Rule("tp divides the attention heads", ("tp",), _heads, "choose a tp that divides heads and key-value heads"),
    Rule("tp divides the MLP width", ("tp",), _widths, "choose a tp that divides the intermediate size"),
    Rule("ep needs experts", ("ep",), _no_experts, "set ep to 1 for a dense model"),
    Rule(
        "ep divides the experts",
        ("ep",),
        lambda c, s: divides(c["ep"], s.moe.experts if s.moe else c["ep"]),
        "choose an ep that divides the experts; redundant copies are for serving",
    ),
    Rule(
        "etp divides the expert width",
        ("etp",),
        lambda c, s: divides(c["etp"], s.moe.intermediate if s.moe else 1),
        "choose an etp that divides the expert's intermediate size",
    ),
    Rule(
        "cp divides the sequence",
        ("cp",),
        lambda c, s: (c["cp"] == 1) | divides(2 * c["cp"], _train(s).sequence),
        "causal balancing cuts the sequence into 2·cp pieces: choose a cp that divides it",
    ),
    Rule(
        "stages hold at least one layer",
        ("pp", "vpp"),
        lambda c, s: c["pp"] * c["vpp"] <= layer_count(s.model),
        "lower pp or vpp below the number of layers",
    ),
    Rule("interleaving needs stages", ("pp", "vpp"), lambda c, s: (c["vpp"] == 1) | (c["pp"] > 1), "set vpp to 1"),
    Rule(
        "the ranks suffice",
        ("used", "tp", "cp", "pp", "dp"),
        _ranks,
        "lower tp·cp·pp·dp to the number of accelerators at work",
    ),
    Rule(
        "expert groups tile the ranks",
        ("tp", "cp", "dp", "ep", "etp"),
        lambda c, s: divides(c["ep"] * c["etp"], c["tp"] * c["cp"] * c["dp"]),
        "choose ep·etp that divides tp·cp·dp",
    ),
    Rule(
        "the batch divides",
        ("dp", "micro_batch"),
        lambda c, s: (c["dp"] < 1) | divides(c["dp"] * c["micro_batch"], _train(s).global_batch),
        "choose a global batch that is a multiple of dp·micro-batch",
    ),
    Rule(
        "micro-batches fill whole rounds",
        ("schedule", "pp", "vpp", "dp", "micro_batch"),
        lambda c, s: (
            (c["vpp"] == 1) | (c["dp"] < 1) | divides(c["pp"], _microbatches(c, s)) | (c.get("schedule", 0.0) != 0)
        ),
        "interleaving needs a number of micro-batches that pp divides",
    ),
    Rule(
        "the schedule runs with these numbers",
        ("schedule", "pp", "vpp", "dp", "micro_batch"),
        _schedule_runs,
        "see podscale list schedules for the micro-batches and chunks that it takes",
    ),
    Rule(
        "near pipelines fold onto the expert grid",
        ("order", "tp", "cp", "ep", "etp", "pp"),
        lambda c, s: (
            (c["order"] != ORDERS.index("tp-cp-ep-pp-dp"))
            | ((c["pp"] > 1) & ((c["tp"] * c["cp"] == c["ep"] * c["etp"]) | (c["ep"] * c["etp"] == 1)))
        ),
        "the order tp-cp-ep-pp-dp needs tp·cp = ep·etp and pp above 1 (Megatron-Core)",
    ),
    Rule(
        "overlapped exchange needs experts on several ranks and interleaving",
        ("ep_overlap", "ep", "pp", "vpp"),
        lambda c, s: (c["ep_overlap"] == 0) | ((c["ep"] > 1) & ((c["vpp"] > 1) | (c["pp"] == 1))),
        "set ep_overlap to 0, or vpp above 1 (Megatron-Core, --overlap-moe-expert-parallel-comm)",
    ),
    Rule(
        "copies of shards divide the replicas",
        ("replicate", "zero", "tp", "cp", "dp", "ep", "etp"),
        _copies,
        "set replicate to 1, or to a divisor of dp (and of the experts' replicas) under ZeRO 1 or more",
    ),
    Rule(
        "recomputing some layers is full recomputation",
        ("recompute_layers", "recompute"),
        lambda c, s: np.full(c.rows, "recompute_layers" not in c) | (c["recompute"] == RECOMPUTE.index("full")),
        "set recompute to full, or leave recompute_layers out",
    ),
    Rule(
        "the layout places the layers on these stages",
        ("schedule", "pp", "vpp"),
        _laid_out,
        "write as many virtual stages as pp·vpp, every layer of the model once, and a schedule that goes round the stages",
    ),
    _FILLING,
)

SERVE_RULES: tuple[Rule, ...] = (
    TRAIN_RULES[1],
    TRAIN_RULES[2],
    TRAIN_RULES[3],
    Rule(
        "attention groups tile the expert group",
        ("tp", "cp", "ep"),
        lambda c, s: divides(c["tp"] * context_ranks(c), stage_ranks(c)),
        "choose an ep that tp (times cp, where prompts are dealt) divides",
    ),
    Rule(
        "every rank of a prompt has two pieces of it",
        ("cp",),
        lambda c, s: (context_ranks(c) == 1) | (2.0 * context_ranks(c) <= _fresh(s)),
        "lower cp: a prompt is cut into 2·cp pieces of a token at least",
    ),
    Rule(
        "a recurrent state is computed in order",
        ("cp",),
        lambda c, s: (context_ranks(c) == 1) | ~_recurrent(c, s),
        "set cp to 1: a linear-attention layer hands its state from token to token",
    ),
    Rule(
        "an entry is made of positions of one rank",
        ("cp",),
        lambda c, s: (context_ranks(c) == 1) | ~_compressed(c, s),
        "set cp to 1: compressed attention makes entries of neighbouring positions, and dealing these is not priced",
    ),
    Rule(
        "stages hold at least one layer",
        ("pp",),
        lambda c, s: c["pp"] <= layer_count(s.model),
        "lower pp below the number of layers",
    ),
    Rule(
        "a replica fits the cluster",
        ("used", "tp", "cp", "ep", "pp"),
        lambda c, s: replicas(s.cluster, c) >= 1,
        "lower ep·pp below the number of accelerators",
    ),
    Rule(
        "micro-batches are whole",
        ("batch", "tp", "cp", "microbatches"),
        lambda c, s: _whole(c["batch"] * c["tp"] * context_ranks(c), c["microbatches"]),
        "give every attention group at least one sequence per micro-batch",
    ),
    Rule(
        "two micro-batches need an exchange to hide",
        ("microbatches", "ep"),
        lambda c, s: (c["microbatches"] == 1) | (c["ep"] > 1),
        "set microbatches to 1",
    ),
    _FILLING,
    Rule(
        "the exchange kernels reach the whole expert group",
        ("used", "tp", "cp", "ep"),
        _kernels_reach,
        "one-sided kernels stay inside a scale-up domain, those of RDMA alone need NICs: lower ep, or choose auto",
    ),
)

DECODE_RULES: tuple[Rule, ...] = (
    *SERVE_RULES,
    Rule(
        "context parallelism is of prompts",
        ("cp",),
        lambda c, s: context_ranks(c) == 1,
        "set cp to 1 where answers are decoded; tensor ranks deal their cache under an engine (dcp)",
    ),
)
"""Those of decoding: a step has one token of each sequence, and nothing to deal."""


_WRITTEN = {"used": "ranks_per_domain"}  # columns that a file calls otherwise


def _valid(rule: Rule, cols: Columns, setting: Setting) -> Mask:
    with np.errstate(divide="ignore", invalid="ignore"):  # dp = 0 breaks its own rule
        return rule.valid(cols, setting)


def first_broken(rules: tuple[Rule, ...], cols: Columns, setting: Setting) -> npt.NDArray[np.int64]:
    """Return for each row the index of the first rule that it breaks, or -1 when it is valid."""
    broken = np.full(cols.rows, -1, dtype=np.int64)
    for index, rule in enumerate(rules):
        sub, inverse = cols.distinct(rule.axes)
        bad = ~np.broadcast_to(_valid(rule, sub, setting), (sub.rows,))[inverse]
        broken[bad & (broken < 0)] = index
    return broken


def _told(rule: Rule, cols: Columns) -> list[str]:
    """Return the axes that a rule reads; context parallelism only where the strategy says something of it."""
    return [axis for axis in rule.axes if axis != "cp" or axis in cols]


def check(rules: tuple[Rule, ...], cols: Columns, setting: Setting, file: str = "") -> None:
    """Raise one `SpecError` with every rule that a single strategy breaks."""
    faults = [
        Fault(
            "strategy." + ", ".join(_WRITTEN.get(axis, axis) for axis in _told(rule, cols)) if rule.axes else "model",
            {_WRITTEN.get(axis, axis): cols.row(0)[axis] for axis in rule.axes if axis in cols} or setting.model.name,
            f"breaks the rule: {rule.name}",
            rule.remedy,
            file=file,
        )
        for rule in rules
        if not bool(np.all(_valid(rule, cols, setting)))
    ]
    if faults:
        raise SpecError(faults)


@lru_cache(maxsize=64)
def _divisors(number: int) -> tuple[int, ...]:
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


def data_parallel(setting: Setting, cols: Mapping[str, Column]) -> Column:
    """Return the largest data-parallel size that fits the ranks and divides the batch.

    ``max {d | batch/micro_batch : d·tp·cp·pp ≤ world}``. Ranks left over are idle, and the row says so.
    """
    work = _train(setting)
    room = np.floor(world(setting.cluster, cols["used"]) / (cols["tp"] * cols["cp"] * cols["pp"]))
    dp = np.zeros_like(room)
    for micro in np.unique(cols["micro_batch"]):
        rows = cols["micro_batch"] == micro
        divisors = np.array([0, *_divisors(int(work.global_batch // micro))], dtype=np.float64)
        dp[rows] = divisors[np.searchsorted(divisors, room[rows], side="right") - 1]
    return dp
