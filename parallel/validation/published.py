"""Score published serving results: throughput or speed of a stated batch, prefill and decode apart.

A case is a steady state: so many sequences, or prompt tokens, on every accelerator, in one or two micro-batches, under a
split. Its rate is what one pass yields over what the pass takes (`parallel.serving.passes`). Of an engine
without constants the kernels alone are priced, and the row says so.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from clusters import measurements
from clusters.catalogue import Accelerator
from clusters.products import part_of
from parallel.hotexperts import BALANCED, UNTOLD, HotExperts
from parallel.hybrids import served_model
from parallel.io import read_yaml
from parallel.models import Model
from parallel.precision import FORMATS
from parallel.serving.drafts import drafting
from parallel.serving.engines import bare, engine
from parallel.serving.passes import PassCost, Split
from parallel.serving.runs import Run, answer, limits_of, worker
from parallel.speculation import Drafts, drafts_yielding
from parallel.validation import scoring
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import run_of
from parallel.validation.throughput import tokens_per_s
from topo.errors import SpecError

SHIPPED: Final = ("inference_cases.json", "serving_amd.json")
NODE: Final = 8.0
NAMES: Final = ("gb200", "gb300", "b200", "h200", "h100", "h800")
"""Accelerators that cases name, each at the start of what they say of it."""

SKIPS: Final = {
    "formula": "a published limit, not a measurement",
    "metric not modelled": "no steady state of a stated batch",
    "batch not stated": "sequences or tokens per accelerator are unknown",
    "context not stated": "the cached positions are unknown",
    "drafts not stated": "how many of the drafted tokens hold is unknown",
    "one value wanted": "a range, or several figures in one",
}
"""Reason -> what it means, beside those of `parallel.validation.serving_rows.SKIPS`."""

TOLD: Final[Mapping[str, Mapping[str, Any]]] = {
    "deepseek-ai/open-infra-index": {"microbatches": 2},
    "LMSYS blog 2025-05-05 large-scale EP (SGLang on 12x8 H100)": {"redundant_experts": 32},
}
"""Source -> what it says of the split beside its figures: both phases run in two micro-batches (DeepSeek's overview); a
balancer keeps 32 experts twice (the commands of sgl-project/sglang issue 6017: --ep-num-redundant-experts 32 --enable-eplb)."""
BALANCED_RUNS: Final = ("balanced routing",)
"""Words of a case whose experts were made to take even rows."""

SATURATED: Final = ("LMSYS blog 2025-06-16", "LMSYS blog 2025-09-25")
"""Sources that kept their decoding nodes saturated (by a "slow-down API"): as many sequences as the cache holds."""

UNKNOWN: Final = "sglang"
"""The engine whose choice of kernels stands for those of one that nothing is known of."""

HOSTED: Final[Mapping[str, str]] = {"ROCm/ATOM": "vllm"}
"""Source whose engine runs its own, fused kernels under the scheduler and frontend of another: nothing over their starts."""

Case = Mapping[str, Any]
Rate = Callable[[PassCost, float, float, bool], float]
Priced = Callable[[Case, str, list[str]], float]
"""Takes a case, a metric and the row's notes; returns the predicted figure."""


def _decode(cost: PassCost, batch: float, context: float, two: bool) -> float:
    """Tokens per second of one accelerator: ``batch / step``."""
    step = cost.overlapped if two else cost
    return batch / step(batch, batch * context, 0.0, 0.0)


def _prefill(cost: PassCost, tokens: float, context: float, two: bool) -> float:
    """Prompt tokens per second of one accelerator: ``tokens / pass``, prompts of `context` tokens each."""
    step = cost.overlapped if two else cost
    return tokens / step(0.0, 0.0, tokens, tokens * min(context, tokens) / 2.0)


METRICS: Final[Mapping[str, tuple[Rate, float]]] = {
    "prefill_throughput_per_node": (_prefill, NODE),
    "prefill_throughput_per_gpu": (_prefill, 1.0),
    "decode_throughput_per_node": (_decode, NODE),
    "decode_output_throughput_per_node": (_decode, NODE),
    "decode_throughput_per_gpu": (_decode, 1.0),
    "output_speed_per_user": (_decode, 1.0),
}
"""Metric -> how its rate comes about, and of how many accelerators it is."""


def read(file: str | Path | None) -> list[Case]:
    """Return the shipped cases, or those of anyone's own file (YAML or JSON)."""
    documents = [measurements.read_json(name) for name in SHIPPED] if file is None else [read_yaml(file)]
    cases = [case for document in documents for case in document.get("cases", [])]
    return [completed(case, cases) for case in cases if not str(case.get("model", "")).startswith("MoE layer")]


def completed(case: Case, cases: list[Case]) -> Case:
    """Return a case with what it leaves open and its source says elsewhere: formats in a row beside it, or `TOLD`.

    >>> row = {"source": "blog, table 1", "model": "m", "precision": {"moe": "fp8"}}
    >>> completed({"source": "blog, table 1 (ablation)", "model": "m", "precision": None}, [row])["precision"]
    {'moe': 'fp8'}
    """
    source = str(case.get("source"))
    parallel = {**TOLD.get(source.split(",", maxsplit=1)[0], {}), **(case.get("parallel") or {})}
    beside = (
        other["precision"]
        for other in cases
        if other.get("precision") and other["model"] == case["model"] and source.startswith(str(other.get("source")))
    )
    return {**case, "parallel": parallel, "precision": case.get("precision") or next(beside, None)}


def rows_of(cases: list[Case], progress: Any = None) -> list[dict[str, Any]]:
    """Return a row for each case, and one for each time of those that state two."""
    found = []
    for done, case in enumerate(cases, start=1):
        value = case["value"]
        if case["metric"] == "ttft_tpot" and isinstance(value, Mapping):
            found += [_row(case, name, float(value[f"{name}_ms"]) / 1e3, _times) for name in ("tpot", "ttft")]
        else:
            measured = (
                float(value) / (1e3 if case["metric"] == "tpot" else 1.0) if isinstance(value, int | float) else None
            )
            found.append(_row(case, case["metric"], measured, PRICES.get(case["metric"], _rate)))
        if progress is not None:
            progress(done, len(cases), "published cases")
    return found


def _row(case: Case, metric: str, measured: float | None, priced: Priced) -> dict[str, Any]:
    """Return the row of one figure."""
    row: dict[str, Any] = {
        "id": f"{case['id']}:{metric}" if metric != case["metric"] else case["id"],
        "metric": metric,
        "kind": "published times" if priced is _times else "published",
        "measured": measured,
        "predicted": None,
        "ape": None,
        "interval": None,
        "interval_note": None,
        "skipped_because": None,
        "group": f"published {case.get('group') or case.get('model')}",
        "notes": [],
        "model": case.get("model"),
        "system": (case.get("hardware") or {}).get("gpu"),
        "source": case.get("source"),
    }
    try:
        if measured is None:
            raise Skip("one value wanted")
        row["predicted"] = priced(case, metric, row["notes"])
    except Skip as why:
        row["skipped_because"] = why.reason
    else:
        row["ape"] = scoring.ape(row["predicted"], measured)
        row["interval_note"] = "no residuals of published results are stored"
    return row


def _times(case: Case, metric: str, _: list[str]) -> float:
    """Return the mean seconds of one time of a closed loop."""
    sizes, context, formats = (case.get(key) or {} for key in ("parallel", "context", "precision"))
    clients = re.search(r"\d+", str(case.get("batch")))
    line = {
        "engine": _engine(case) or UNKNOWN,
        "system": str((case.get("hardware") or {}).get("gpu")),
        "model": _first(case),
        "precision": str(formats.get("weights") or ""),
        "concurrency": clients[0] if clients else "",
        "isl": str(context.get("isl")),
        "osl": str(context.get("osl")),
        **{key: str(sizes[key]) for key in ("tp", "moe_tp", "moe_ep") if key in sizes},
    }
    host = next((name for start, name in HOSTED.items() if str(case.get("source")).startswith(start)), "")
    base = replace(engine(host), launch=1.0) if host else engine(_engine(case) or UNKNOWN)
    found = answer(run_of({**line, "engine": base.name}), base)
    return found.tpot_s if metric == "tpot" else found.ttft_s


def _latency(case: Case, _: str, notes: list[str]) -> float:
    """Return the seconds of one batch from start to end, its prompts cached: ``osl`` steps, the cache growing by a position each.

    The first step writes a token of every prompt that the prefix cache holds (vllm-project/vllm, benchmarks/benchmark_latency.py
    asks the same prompts again and again; ``enable_prefix_caching`` is on by default since 0.8).
    """
    sizes, context = case["parallel"], case["context"]
    line = {**{key: str(sizes[key]) for key in sizes}, **{key: str(context[key]) for key in ("isl", "osl")}}
    line |= {"engine": _engine(case), "system": case["hardware"]["gpu"], "model": _first(case)}
    run = run_of({**line, "precision": case["precision"]["weights"], "concurrency": str(case["batch"])})
    base = engine(run.engine)
    step = worker(run, run.split, base, base.defaults)[1]
    notes.append("prompts held by the prefix cache")
    batch = float(case["batch"])
    return run.osl * step(batch, batch * (run.isl + run.osl / 2.0), 0.0, 0.0)


def _peak(case: Case, _: str, __: list[str]) -> float:
    """Return the peak of a system in output tokens per second."""
    sizes, context, formats = (case.get(key) or {} for key in ("parallel", "context", "precision"))
    return tokens_per_s(
        {
            "model": _first(case),
            "gpu": str((case.get("hardware") or {}).get("gpu")),
            "parallel": str(
                sizes.get("mapping") or " ".join(f"{n}{size}" for n, size in sizes.items() if _plain(size))
            ),
            "precision": str(formats.get("weights") or formats.get("moe") or ""),
            "isl": str(context.get("isl")),
            "osl": str(context.get("osl")),
            "units": str(case.get("units")),
        }
    )


PRICES: Final[Mapping[str, Priced]] = {"max_output_throughput": _peak, "tpot": _times, "batch_latency": _latency}
"""Metric -> what prices it, where it is no steady state."""


def _first(case: Case) -> str:
    """Return the first of the models that a case names: "Llama-3.1/3.3-70B" is a Llama-3.1-70B."""
    name = str(case["model"])
    joined = re.sub(r"^(.*?)/[\d.]+(-.*)$", r"\1\2", name)
    return joined if joined != name else name.split("/", maxsplit=1)[0]


def _rate(case: Case, _: str, notes: list[str]) -> float:
    """Return the predicted figure of a case in its units."""
    held = steady(case)
    rate, accelerators = METRICS[case["metric"]]
    split = Split(1.0, held.ep, 1.0, held.ep)
    if held.tp > 1:
        split = Split(held.tp, 1.0, held.tp / held.ep if held.tp % held.ep == 0 else held.tp, held.ep)
    named = _engine(case)
    if not named:
        notes.append(f"the engine has no constants: kernels as {UNKNOWN} chooses them, and nothing added")
    base = engine(named) if named else bare(engine(UNKNOWN))
    run = Run(base.name, held.model, held.part, held.precision, split, 1.0, held.context, 1.0, hot=held.hot)
    settings = replace(base.defaults, kv_bytes=held.kv_bytes, graphs=max(held.batch, base.defaults.graphs))
    replica, cost = worker(run, split, base, settings, held.attention)
    if held.batch == math.inf:
        held = replace(held, batch=math.floor(limits_of(replica, settings, base).positions / held.context))
        notes.append(
            f"{held.batch:,.0f} sequences on every accelerator: what the cache holds, as the source kept it full"
        )
    if held.drafts is not None:
        step_s = drafting(replica, cost, held.drafts, 0.0)(held.batch, held.batch * held.context, 0.0, 0.0)
        return accelerators * held.batch * held.drafts.yielded / step_s
    return accelerators * rate(cost, held.batch, held.context, held.microbatches == 2)


@dataclass(frozen=True, slots=True)
class Steady:
    """A steady state that a case states in full.

    Attributes
    ----------
    phase : `prefill` or `decode`
    precision, attention : format of the experts, and of the attention's weights where it is named
    batch : sequences, or prompt tokens, on every accelerator (under tensor parallelism: of the group); infinite where as many
        as fit
    context : positions that a sequence sees, or tokens of a prompt
    microbatches : halves that a pass is run in; None where the case does not say
    token_s : measured seconds of one token on one accelerator
    drafts : what multi-token prediction drafts, where it does
    hot : how uneven the rows of experts are
    """

    model: Model
    part: Accelerator
    phase: str
    precision: str
    attention: str
    kv_bytes: float
    tp: float
    ep: float
    batch: float
    context: float
    microbatches: int | None
    token_s: float
    drafts: Drafts | None = None
    hot: HotExperts = UNTOLD


def steady(case: Case) -> Steady:
    """Return the steady state of a case.

    Raises
    ------
    Skip
        It states none, or of something that cannot be priced.
    """
    if case.get("kind") == "analytic_limit":
        raise Skip("formula")
    if case["metric"] not in METRICS:
        raise Skip("metric not modelled", case["metric"])
    rate, accelerators = METRICS[case["metric"]]
    hardware, parallel = case.get("hardware") or {}, case.get("parallel") or {}
    name = next((known for known in NAMES if str(hardware.get("gpu", "")).lower().startswith(known)), "")
    chip = part_of(name) if name else None
    if chip is None:
        raise Skip("accelerator not in the catalogue", str(hardware.get("gpu")))
    try:
        model = served_model(_first(case))
    except SpecError:
        raise Skip("model not known", str(case["model"])) from None
    batch, context = _number(case.get("batch")), _context(case)
    if batch is None and rate is _decode and str(case.get("source")).startswith(SATURATED):
        batch = math.inf
    if batch is None:
        raise Skip("batch not stated")
    if context is None:
        raise Skip("context not stated")
    drafted, length = parallel.get("mtp"), parallel.get("acceptance_length")
    if drafted and not length:
        raise Skip("drafts not stated")
    ep = float(parallel.get("ep") or 1) if _plain(parallel.get("ep")) else 1.0
    formats = case.get("precision") or {}
    moe = str(formats.get("moe") or formats.get("gemm") or "fp8")
    attention = str(formats.get("attention", ""))
    return Steady(
        model,
        chip,
        "prefill" if rate is _prefill else "decode",
        {"nvfp4": "fp4"}.get(moe, moe),
        attention if attention in FORMATS else "",
        1.0 if formats.get("kv") == "fp8" or moe == "nvfp4" else 2.0,
        float(parallel.get("tp") or 1),
        ep,
        batch,
        context,
        parallel.get("microbatches"),
        accelerators / float(case["value"]),
        drafts_yielding(int(drafted), float(length)) if drafted and length else None,
        _hot(case),
    )


def _hot(case: Case) -> HotExperts:
    """Return how uneven the rows of a case's experts are: balanced by construction, by a balancer's copies, or not at all."""
    if any(words in f"{case.get('notes')} {case.get('config_completeness')}" for words in BALANCED_RUNS):
        return BALANCED
    copies = (case.get("parallel") or {}).get("redundant_experts")
    return HotExperts(copies=int(copies)) if copies else UNTOLD


def _engine(case: Case) -> str:
    """Return the engine that a case or its source names, "" where neither does."""
    source = f"{case['id']} {case.get('source')}".lower().split(" + ", maxsplit=1)[0]
    for key, name in (("sglang", "sglang"), ("trtllm", "trtllm"), ("tensorrt", "trtllm"), ("vllm", "vllm")):
        if key in source:
            return name
    return ""


def _number(value: Any) -> float | None:
    """Return a number, or the first one of a text; of a range its middle.

    >>> _number("128 req/GPU"), _number("~80-93 per GPU"), _number(None)
    (128.0, 86.5, None)
    """
    if isinstance(value, int | float):
        return float(value)
    found = re.match(r"~?(\d+)(?:-(\d+))?", str(value)) if value else None
    return (float(found[1]) + float(found[2] or found[1])) / 2.0 if found else None


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _context(case: Case) -> float | None:
    """Positions that a decoding sequence sees on average, or tokens of a prompt."""
    held = case.get("context")
    if not isinstance(held, Mapping):
        return None
    if "isl" in held:
        return float(held["isl"]) + float(held.get("osl", 0)) / 2.0
    return next((_number(held[key]) for key in ("mean_kv_length", "kv", "prompt") if key in held), None)
