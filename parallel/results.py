"""From priced columns to rows that explain themselves: plain dictionaries that JSON can hold."""

from typing import Any

from clusters.build import own_notes
from clusters.software import interval, regime
from clusters.tunings import tuning
from parallel.models import compressed, indexed
from parallel.placement import domain_size
from parallel.precision import RECIPES, recipe
from parallel.priced import Priced
from parallel.roofline import chip
from parallel.serving.bands import around, has_experts, width_of
from parallel.serving.phases import stage_ranks
from parallel.strategy import Columns
from parallel.sweeps.spaces import NAMES
from parallel.sweeps.task import PHASES, Bound
from parallel.training.step import SCHEDULES
from topo.columns import Column

NO_INTERVAL = "no interval: no measured residuals stand behind this regime yet (see podscale validate)"

#: What each term says about the wiring, and what would shorten it.
STOPS: dict[str, str] = {
    "attention": "attention projections: more FLOP/s or a lower precision",
    "attention core": "attention scores: more BF16 FLOP/s or a better fused kernel",
    "kv read": "reading the KV cache: more HBM bandwidth, or fewer bytes per cached token",
    "mlp": "the dense MLPs: more FLOP/s or HBM bandwidth",
    "shared expert": "the shared expert: more FLOP/s or HBM bandwidth",
    "router": "the gate of the experts: fused kernels or CUDA graphs",
    "experts": "the routed experts: more FLOP/s, or more tokens per expert",
    "vector": "memory-bound operations between the matrix products: more HBM bandwidth or more fusion",
    "head": "the language-model head",
    "recompute": "recomputed activations: more HBM capacity would avoid it",
    "tp": "tensor-parallel collectives: more scale-up bandwidth or a smaller tp",
    "cp": "context-parallel exchange of keys and values",
    "ep": "the expert exchange: more bandwidth where it crosses, or a domain that holds the expert group",
    "contention": "what hidden communication takes from the work that hides it",
    "host": "the host that launches kernels: CUDA graphs, or larger micro-batches",
    "step": "the host between steps",
    "imbalance": "uneven pipeline stages: the layers do not divide",
    "bubble": "the pipeline bubble: more micro-batches or fewer stages",
    "pp": "hops between pipeline stages",
    "drafts": "drafting: fewer drafts, or a smaller model that drafts",
    "kv_transfer": "moving key-value caches to the pool that decodes: more bandwidth between the pools, or smaller passes",
    "reload": "caches of earlier visits on their way back: a faster memory, more of a fast one, or loading layer by layer",
    "dp": "gradient reduction that backward cannot hide: more scale-out bandwidth",
    "optimizer": "the optimizer's memory traffic",
    "amax": "agreeing on the scales of FP8 tensors: among fewer ranks, or scales of the tensor at hand",
    "evaluation": "evaluations between the steps: fewer sequences, or more steps between them",
}


def strategy_of(bound: Bound, cols: Columns, index: int) -> dict[str, Any]:
    """Return one strategy with names for coded columns, and the sizes that follow."""
    row: dict[str, Any] = cols.row(index)
    for name, names in NAMES.items():
        if name in row:
            row[name] = names[int(row[name])]
    row["ranks_per_domain"] = row.pop("used")
    if bound.task.phase != "train":
        ranks = int(stage_ranks(cols)[index])
        row["attention_dp"] = ranks // int(row["tp"] * row.get("cp", 1))
    else:
        row |= {name: bool(row[name]) for name in ("ep_overlap", "sp")}
        row["schedule"] = "1f1b" if row.get("vpp") == 1 and row.get("schedule") == SCHEDULES[0] else row.get("schedule")
    return row


def at(columns: dict[str, Column], index: int) -> dict[str, float]:
    """Return one row of named columns, zeros left out."""
    return {name: float(value[index]) for name, value in columns.items() if value[index] != 0.0}


def row_of(bound: Bound, cols: Columns, priced: Priced, index: int) -> dict[str, Any]:
    """Return one priced strategy in full: sizes, rates, terms, memory, and what stops it going faster."""
    terms = at(priced.terms, index)
    memory = at(priced.memory, index)
    extra = {name: float(value[index]) for name, value in priced.extra.items()}
    bottleneck = max(terms, key=lambda name: terms[name])
    phase, seconds = bound.task.phase, float(priced.seconds[index])
    used = int(extra["gpus_used"])
    return {
        "strategy": strategy_of(bound, cols, index),
        "gpus_used": used,
        "gpus_idle": bound.cluster.accelerators - used,
        "tokens_per_s_per_gpu": extra["tokens_per_s_per_gpu"],
        "step_time_s": seconds,
        "ttft_s": extra["ttft_s"] if phase == "prefill" else None,
        "tpot_s": seconds if phase == "decode" else None,
        "mfu": extra.get("mfu"),
        "terms": terms,
        "busy": at(priced.busy, index),
        "memory_bytes": memory,
        "memory_share": sum(memory.values()) / bound.cluster.accelerator.usable_bytes,
        "bottleneck": bottleneck,
        "stops": stops(bound, cols, priced, index),
        **interval_of(bound, cols, priced, index),
        "infeasible": None,
        "warnings": warnings_of(bound, cols, index),
    }


def band_of(bound: Bound, cols: Columns, index: int, seconds: float) -> tuple[tuple[float, float] | None, str | None]:
    """Return the 90 % band about a step or a pass, as factors on its times, and what it rests on; or None, and why."""
    routed = has_experts(bound.task.model)
    if bound.task.phase == "train":
        found = interval(1.0, regime(bound.task.train.software.engine, routed))
        return found, None if found else NO_INTERVAL
    name = tuple(RECIPES)[int(cols["precision"][index])] if "precision" in cols else bound.task.serve.precision
    width = width_of(recipe(name), routed=routed)
    return around(bound.task.phase, width, bound.cluster.accelerator.name, int(stage_ranks(cols)[index]), seconds)


def interval_of(bound: Bound, cols: Columns, priced: Priced, index: int) -> dict[str, Any]:
    """Return the 90 % interval of the time that a row is judged by: its step, TTFT or TPOT."""
    judged = float(PHASES[bound.task.phase].latency(priced)[index])
    found, note = band_of(bound, cols, index, float(priced.seconds[index]))
    return {"interval": [judged * end for end in found] if found else None, "interval_note": note}


def warnings_of(bound: Bound, cols: Columns, index: int) -> list[str]:
    """Return what a reader must know before trusting a row: borrowed constants, extrapolation, idle accelerators."""
    training = bound.task.phase == "train"
    work = bound.task.train if training else bound.task.serve
    notes = [bound.task.model.note, *chip(bound.cluster.accelerator, recipe(work.precision, training=training)).notes]
    idle = bound.cluster.accelerators - bound.cluster.usable
    if idle:
        notes.append(f"{idle} accelerators do not fill a domain and stay idle")
    if compressed(bound.task.model):
        notes.append("attention over entries of several positions: no measured pass behind the interval has it")
    elif indexed(bound.task.model):
        notes.append("attention over indexed positions: no measured pass behind the interval has it")
    notes += [beyond_measured(bound, int(cols["ep"][index])), *own_notes(bound.cluster)]
    return [note for note in notes if note]


def beyond_measured(bound: Bound, ep: int) -> str:
    """Say so when an expert group is larger than any that the constants of its exchange were measured on."""
    inside = ep <= domain_size(bound.cluster)
    tier = next((t for t in bound.cluster.tiers if (t.plane == "scale-up") == inside), None)
    if ep == 1 or tier is None:
        return ""
    regime = "one-sided" if inside else "low-latency" if bound.task.phase == "decode" else "normal"
    ranks = tuning(tier.link, "moe_dispatch", regime, bound.cluster.spec.tunings).ranks
    if ranks is None or ep <= ranks[1]:
        return ""
    return f"EP{ep}: the exchange over {tier.link} was measured on up to {ranks[1]} ranks"


def stops(bound: Bound, cols: Columns, priced: Priced, index: int) -> str:
    """Say in one sentence what stops this row: the limit that forbids a larger batch, then the largest term."""
    terms = at(priced.terms, index)
    bottleneck = max(terms, key=lambda name: terms[name])
    sentence = STOPS[bottleneck]
    if bound.task.phase == "train":
        return sentence
    values = {name: float(cols[name][index]) for name in cols}
    larger = Columns.of(**{**values, "batch": 1.25 * values["batch"]})
    more = bound.price(larger)
    if float(more.memory_bytes[0]) > bound.cluster.accelerator.usable_bytes:
        return f"no memory for a larger batch; {sentence}"
    phase = PHASES[bound.task.phase]
    if float(phase.latency(more)[0]) > phase.limit_s(bound.task):
        return f"the {phase.limit_name} forbids a larger batch; {sentence}"
    return sentence
