"""From one entry of a training-case file to what the model takes: a model, a cluster spec, a workload and a strategy.

A case that cannot be priced gets its reason from `SKIPS`, a closed table; the decision needs the case alone and falls
before anything is priced. Where a case is silent on something the model needs, a documented default stands in and the
case's `notes` name it. Nothing here is fitted: every table below maps words of a source to inputs of the model.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clusters import catalogue
from clusters.spec import ClusterSpec, parse
from parallel.models import Model, Moe, layer_count
from parallel.training.layer import RECOMPUTE
from parallel.training.splits import even_layout
from parallel.training.step import SCHEDULES as TRAIN_SCHEDULES
from parallel.training.written import fits
from parallel.validation.case_software import (
    completed,
    evaluation,
    family,
    recipe_layout,
    recompute_mode,
    recompute_modules,
    software,
    source_family,
)
from parallel.validation.model_cases import Inexpressible, model_from_case
from parallel.workload import TrainWorkload
from topo.errors import SpecError

Json = Mapping[str, Any]

SKIPS: Final[Mapping[str, str]] = {
    "no time measured": "the case gives neither seconds, nor tokens per second, nor the seconds its FLOP/s imply",
    "analytic figure": "the source computed the number; nothing was measured",
    "missing field": "the source does not say what the model must know; the field is named",
    "model not published": "the shape of the model is not public or not one of dense, mixture-of-experts",
    "accelerator not in the catalogue": "no data sheet figures, so no price",
    "kind not modelled": "neither pre-training nor fine-tuning",
    "schedule not modelled": "a schedule that `collectives.pipelines` does not hold",
    "sharding not modelled": "parameters sharded in a way that ZeRO's stages and hybrid sharding do not tell",
    "mapping contradicts itself": "the groups do not multiply to the accelerators, or the batch does not divide",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""


ACCELERATORS: Final[tuple[tuple[str, str], ...]] = (
    (r"^A100.*40\s?GB", "a100-sxm-40"),
    (r"^A100", "a100-sxm-80"),
    (r"^H100", "h100-sxm"),
    (r"^H200", "h200-sxm"),
    (r"^H800", "h800-sxm"),
    (r"^GB200", "gb200"),
    (r"^GB300", "gb300"),
    (r"^B200", "b200-sxm"),
    (r"^B300", "b300-sxm"),
)
"""How a case's clusters name a part -> its name in the catalogue."""

PRECISIONS: Final[tuple[tuple[str, str, float], ...]] = (
    (r"^nvfp4", "nvfp4", 4.0),
    (r"^mxfp8", "mxfp8", 4.0),
    (r"^fp8 rowwise", "fp8-row", 4.0),
    (r"^fp8", "fp8", 4.0),
    (r"^amp_bf16", "bf16", 2.0),
    (r"^fp16/bf16", "bf16", 2.0),
    (r"^bf16", "bf16", 4.0),
    (r"^fp16", "bf16", 2.0),
)
"""Start of a case's precision -> recipe, bytes per accumulated gradient. FP16 runs on the BF16 kernels, whose peak it
shares; Megatron-LM keeps FP16 gradients in FP16 and BF16 ones in FP32, and llm-foundry's FSDP reduces in BF16. Where
the paper leaves FP16 or BF16 open (Zero Bubble), its repository's script runs FP16."""

SCHEDULES: Final[tuple[tuple[str, str], ...]] = (
    (r"^(1f1b(-i)?|interleaved( 1f1b)?( \+ scatter/gather)?)$", "interleaved"),
    (r"^ZB-?1p$", "zb-1p"),
    (r"^ZB-?2p$", "zb-2p"),
    (r"^ZBV$", "zb-v"),
    (r"^V-half$", "v-half"),
    (r"^V-min$", "v-min"),
    (r"^DualPipe$", "dualpipe"),
)
"""How a case writes its schedule -> its name; interleaved is 1F1B where there is one chunk."""

ASSUMED: Final[Mapping[str, str]] = {
    "recompute (assumed none)": "recompute is not stated: none",
    "fabric rate": "the rate of the fabric is not stated: that of the cluster's entry",
    "RoCE rate": "the rate of the fabric is not stated: that of the accelerator's usual NIC",
    "fabric": "the fabric is not stated: that of the cluster's entry",
    "etp": "the experts' tensor parallel size is not stated: Megatron's default, that of tp",
    "layer split (layers %% pp != 0)": "the split of the layers is not stated: as even as whole layers allow",
}
"""Entries of a case's `missing` that a default covers; every other entry makes the case a skip."""

BLOCK_RECOMPUTE: Final = r"block, num_layers=(\d+)"
"""How a case writes Megatron-Core's `block` method: so many layers of each chunk in full, the others not at all."""
HYBRID_SHARDING: Final = "HSDP (shard in node)"
"""What stands for the ZeRO stage where parameters are sharded inside a scale-up domain and replicated among domains."""
SOME_LAYERS: Final = "selective layer"
"""`recompute.detail` of torchtitan's recomputation of every n-th layer."""

MEASURED_NICS: Final[tuple[tuple[str, float], ...]] = ((r"Omni-Path", 135.0 / 400.0),)
"""Word of a cluster's fabric -> share of its NICs' rate that was measured on it. The four Omni-Path links of a node at Jean
Zay moved 135 of 400 Gb/s in 2022 (stas00/ml-engineering network/README.md, Omni-Path). NCCL 2.10 took them for plain verbs: a
ring over four of the nodes, in by one link and out by another, moved 40.5 Gb/s (bigscience experiments/bandwidth,
all_reduce_bench-a100-n4.txt)."""

KINDS: Final = ("pretrain", "memory-only", "sft", "lora")
"""Work that is priced; fine-tuning all weights is pre-training on other data."""

_NEEDED: Final = ("tp", "pp", "vpp", "cp", "ep", "zero_stage")


class Skip(Exception):  # noqa: N818 - a reason, not a mistake
    """Why a case cannot be priced: a key of `SKIPS`, and the particulars."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = f"{reason}: {detail}" if detail else reason
        super().__init__(self.reason)


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """One measured run as inputs of the model. `strategy` holds the columns of one row, `notes` the defaults taken."""

    name: str
    model: Model
    cluster: ClusterSpec
    work: TrainWorkload
    strategy: tuple[tuple[str, float], ...]
    notes: tuple[str, ...]


def group(case: Json, models: Json) -> str:
    """Return the group that a case is scored in: its family, Megatron-Bridge split by whether the model has experts."""
    name = family(case["source"]["name"]).name if case.get("source") else "other"
    if name != "Megatron-Bridge":
        return name
    routed = (models.get(case["model"].get("ref")) or {}).get("moe") or (case["parallel"].get("ep") or 1) > 1
    return f"{name} {'MoE' if routed else 'dense'}"


def accelerator(gpu: str | None) -> str | None:
    """Return the catalogue's name of a part as a case file writes it, None where it lacks it or cannot wire it yet.

    >>> accelerator("GB300 (B300 279GB)"), accelerator("h100"), accelerator("TPU v4")
    ('gb300', 'h100-sxm', None)
    """
    if not gpu:
        return None
    for pattern, name in ACCELERATORS:
        if re.search(pattern, gpu.strip(), re.IGNORECASE):
            return name
    try:
        part = catalogue.accelerator(gpu)
    except SpecError:
        return None
    return None if part.missing or part.topology != "switched" else part.name


def used_per_domain(gpus: int, domain: int) -> int:
    """Return the accelerators at work in each scale-up domain: the most, up to its size, that fill whole domains.

    Jobs on racks of 72 run as 64 or 72 of each rack.

    >>> used_per_domain(256, 72), used_per_domain(1152, 72), used_per_domain(4, 8)
    (64, 72, 4)
    """
    return next(size for size in range(min(domain, gpus), 0, -1) if gpus % size == 0)


def overrides(gpu: str) -> dict[str, str]:
    """Return the figures that a cluster's entry states of a non-standard part, under the keys of a cluster file.

    >>> overrides("H100-SXM-96GB HBM2e 500W (non-standard: 2.4 TB/s HBM, lower clocks)")
    {'hbm_capacity': '96GB', 'hbm_bandwidth': '2.4TB/s', 'power': '500W'}
    """
    if "non-standard" not in gpu:
        return {}
    stated = {
        "hbm_capacity": r"([\d.]+\s?GB)(?!/s)",
        "hbm_bandwidth": r"([\d.]+\s?TB/s)",
        "power": r"([\d.]+\s?W)\b",
    }
    found = ((key, re.search(pattern, gpu)) for key, pattern in stated.items())
    return {key: match[1].replace(" ", "") for key, match in found if match}


def cluster_spec(entry: Json, gpus: int) -> ClusterSpec:
    """Turn an entry of the `clusters` table into a spec with as many accelerators as the case uses.

    `nvlink_GBps` sums both directions and `nic_gbps_per_gpu` is one direction; both follow the catalogue where absent, and
    a fabric of `MEASURED_NICS` has what was measured of it.

    Raises
    ------
    Skip
        The catalogue lacks the accelerator.

    Examples
    --------
    >>> spec = cluster_spec({"gpu": "H800", "nvlink_domain": 8, "nvlink_GBps": 400, "nic_gbps_per_gpu": 400}, 2048)
    >>> spec.domain, spec.scale_up.bandwidth_Bps, spec.scale_out.nic_Bps
    (8, 200000000000.0, 50000000000.0)
    """
    name = accelerator(entry.get("gpu"))
    if name is None:
        raise Skip("accelerator not in the catalogue", str(entry.get("gpu")))
    part = catalogue.accelerator(name)
    fields: dict[str, Any] = {
        "accelerator": name,
        "accelerators": gpus,
        "domain": used_per_domain(gpus, entry.get("nvlink_domain") or part.domain),
    }
    one_way_Bps = (entry.get("nvlink_GBps") or 0.0) * 1e9 / 2
    if one_way_Bps and one_way_Bps != part.scale_up_Bps:
        fields["scale_up"] = {"bandwidth": one_way_Bps}
    out, fabric = {}, entry.get("fabric") or ""
    if rate := entry.get("nic_gbps_per_gpu"):
        reached = next((share for word, share in MEASURED_NICS if re.search(word, fabric)), 1.0)
        out["nic"] = f"{rate * reached:g}Gb/s"
    if out and re.search(r"RoCE|EFA|Ethernet", fabric):
        out["link"] = "roce-400"
    figures = overrides(entry["gpu"])
    return parse(
        fields | ({"scale_out": out} if out else {}) | ({"override": {"accelerator": figures}} if figures else {})
    )


def step_seconds(case: Json) -> float | None:
    """Return the measured seconds of a step: as printed, or from tokens per second, or implied by the printed FLOP/s.

    >>> step_seconds({"measured": {"tokens_per_s_per_gpu": 100}, "model": {"seq": 4000}, "batch": {"global": 8},
    ...     "cluster": {"gpus": 16}})
    20.0
    """
    measured = case["measured"]
    if measured.get("iter_time_s"):
        return float(measured["iter_time_s"])
    rate, sequence, batch = measured.get("tokens_per_s_per_gpu"), case["model"].get("seq"), case["batch"].get("global")
    if rate and sequence and batch:
        return float(sequence * batch / (rate * case["cluster"]["gpus"]))
    implied = case.get("implied_iter_time_s")
    return float(implied) if implied else None


def peak_bytes(case: Json) -> float | None:
    """Return the measured peak memory of an accelerator; what the allocator had handed out where both are given."""
    measured = case["measured"]
    for key, unit in (("peak_mem_GiB", 2.0**30), ("peak_mem_GB", 1e9), ("peak_reserved_GiB", 2.0**30)):
        if measured.get(key):
            return float(measured[key]) * unit
    return None


def counts_reserve(case: Json) -> bool:
    """Whether the reading is the device's (nvidia-smi: driver, libraries and cache included), not the allocator's."""
    return "nvidia-smi" in (case.get("notes") or "")


def counts_slack(case: Json) -> bool:
    """Whether the reading counts what the allocator has reserved: the device's own, and torchtitan's metrics."""
    return counts_reserve(case) or family(case["source"]["name"]).name == "torchtitan"


def training_case(case: Json, models: Json, clusters: Json) -> TrainingCase:
    """Turn one case into inputs of the model.

    Raises
    ------
    Skip
        It cannot be priced; the reason is one of `SKIPS`.
    """
    case = completed(case)
    _priceable(case, models)
    try:
        model = model_from_case(models[case["model"]["ref"]], case["model"]["ref"])
    except Inexpressible as why:
        raise Skip("model not published", why.reason) from None
    spec = cluster_spec(clusters[case["cluster"]["ref"]], case["cluster"]["gpus"])
    strategy = _strategy(case, spec.domain, routed=any(isinstance(kind.mlp, Moe) for kind in model.layers))
    if strategy["pp"] > layer_count(model):
        raise Skip("mapping contradicts itself", "more stages than layers")
    if strategy["tp"] * strategy["cp"] * strategy["dp"] % (strategy["ep"] * strategy["etp"]):
        raise Skip("mapping contradicts itself", "the experts' groups do not tile the ranks of a stage")
    recipe, gradient_bytes = _precision(case["precision"])
    source = family(case["source"]["name"] if case.get("source") else "")
    evaluated, every = evaluation(case)
    work = TrainWorkload(
        sequence=case["model"]["seq"],
        global_batch=case["batch"]["global"],
        precision=recipe,
        software=software(case),
        gradient_bytes=gradient_bytes if "grad" in case["precision"] else source.gradient_bytes or gradient_bytes,
        optimizer=source.optimizer,
        recompute_modules=recompute_modules(case),
        offload_layers=(case.get("recipe") or {}).get("cpu_offload_layers") or 0,
        layout=_layout(case, model),
        evaluation_sequences=evaluated,
        evaluation_steps=every,
    )
    notes = [ASSUMED[name] for name in case.get("missing") or () if name in ASSUMED]
    return TrainingCase(case["id"], model, spec, work, tuple(strategy.items()), tuple(notes))


def _layout(case: Json, model: Model) -> str | None:
    """Return which layers sit on which stage: as the recipe says, else as Megatron splits them, else None (by cost).

    Megatron gives every chunk as many layers, whatever head and loss add to the last one; where that does not divide,
    embedding and loss count as a layer each. PyTorch's own pipelines are balanced.
    """
    stages, chunks = case["parallel"]["pp"], case["parallel"]["vpp"]
    text = (case.get("recipe") or {}).get("pp_layout") or recipe_layout(case)
    if text and fits(text, model, np.array([stages]), np.array([chunks]), mtp=False)[0]:
        return str(text)
    if stages == 1 or not source_family(case).even:
        return None
    for counted in (False, True):
        with suppress(SpecError):
            return str(
                even_layout(
                    layer_count(model),
                    stages,
                    chunks,
                    mtp=model.mtp_layers,
                    count_embedding=counted,
                    count_loss=counted,
                )
            )
    return None


def _schedule(text: str | None) -> str:
    """Return the name of a schedule as a case writes it.

    >>> _schedule("1F1B-I"), _schedule("ZB-1p")
    ('interleaved', 'zb-1p')
    """
    if text is None:
        return "interleaved"
    found = next((name for pattern, name in SCHEDULES if re.match(pattern, text, re.IGNORECASE)), None)
    if found is None:
        raise Skip("schedule not modelled", text)
    return found


def _priceable(case: Json, models: Json) -> None:
    """Raise the first reason not to price a case, before any object is made of it."""
    parallel = case["parallel"]
    if (case.get("kind") or "pretrain") not in KINDS:
        raise Skip("kind not modelled", case["kind"])
    if case["model"].get("ref") is None or not models.get(case["model"]["ref"]):
        raise Skip("model not published")
    _schedule(parallel.get("schedule"))
    if isinstance(parallel.get("zero_stage"), str) and parallel["zero_stage"] != HYBRID_SHARDING:
        raise Skip("sharding not modelled", parallel["zero_stage"])
    if missing := list(dict.fromkeys(_missing(case))):
        raise Skip("missing field", ", ".join(missing))
    ranks = parallel["tp"] * parallel["pp"] * parallel["cp"] * (parallel.get("dp") or 1)
    gpus, batch = case["cluster"]["gpus"], case["batch"]
    if gpus % (parallel["tp"] * parallel["pp"] * parallel["cp"]) or (parallel.get("dp") and ranks != gpus):
        raise Skip("mapping contradicts itself", f"tp, pp, cp and dp do not make {gpus} accelerators")
    if batch["global"] % (_replicas(case) * batch["micro"]):
        raise Skip("mapping contradicts itself", "micro-batch and dp do not divide the global batch")


def _missing(case: Json) -> Iterator[str]:
    """Names of what the model must know and the case does not say."""
    named = {
        "seq": case["model"].get("seq"),
        "micro-batch": case["batch"].get("micro"),
        "global batch": case["batch"].get("global"),
        "recompute mode": (case.get("recompute") or {}).get("mode"),
        "precision": case.get("precision"),
        **{name: case["parallel"].get(name) for name in _NEEDED},
    }
    unsaid = [name for name, value in named.items() if value is None]
    if (case.get("recompute") or {}).get("detail") == SOME_LAYERS:
        unsaid.append("which layers recompute")
    yield from unsaid or (name for name in case.get("missing") or () if name not in ASSUMED)


def _replicas(case: Json) -> int:
    parallel = case["parallel"]
    return int(case["cluster"]["gpus"] // (parallel["tp"] * parallel["pp"] * parallel["cp"]))


def _precision(text: str) -> tuple[str, float]:
    """Recipe and bytes per gradient of a case's precision."""
    for pattern, recipe, gradient_bytes in PRECISIONS:
        if re.match(pattern, text.strip(), re.IGNORECASE):
            return recipe, 2.0 if "fp16 grad" in text else gradient_bytes
    raise Skip("missing field", f"precision (cannot read {text!r})")


def _strategy(case: Json, domain: int, *, routed: bool) -> dict[str, float]:
    """Columns of one row. Experts whose tensor parallel size is not given take that of tp, as in Megatron-Core."""
    parallel = case["parallel"]
    etp = (parallel.get("etp") or parallel["tp"]) if routed else 1
    optional: dict[str, float] = {}
    if block := re.match(BLOCK_RECOMPUTE, case["recompute"].get("detail") or ""):
        optional["recompute_layers"] = float(block[1]) * parallel["vpp"]
    hybrid = parallel["zero_stage"] == HYBRID_SHARDING
    if hybrid:
        optional["replicate"] = case["cluster"]["gpus"] / domain
    return optional | {
        "used": domain,
        "order": 0,
        **{name: parallel[name] for name in ("tp", "cp", "ep", "pp", "vpp")},
        "etp": etp,
        "sp": float(parallel.get("sp") is not False),
        "dp": _replicas(case),
        "micro_batch": case["batch"]["micro"],
        "schedule": TRAIN_SCHEDULES.index(_schedule(parallel.get("schedule"))),
        "zero": 3 if hybrid else parallel["zero_stage"],
        "recompute": RECOMPUTE.index(recompute_mode(case)),
        "ep_overlap": float(bool((case.get("recipe") or {}).get("moe_a2a_overlap")) and parallel["ep"] > 1),
    }
