"""What trained a case: the class of software behind each source, and what the case itself tells of it.

Nothing here is fitted: every table maps words of a source to inputs of the model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, TypeVar

from clusters.software import MIDDLE, NEWEST
from parallel.training.activations import MODULES
from parallel.workload import Software

Json = Mapping[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Family:
    """A source: which group it is scored in, the class of its software, and where that departs from the class."""

    name: str
    pattern: str
    engine: str = "megatron-core"
    tp_overlap: str = "engine"
    attention: str = "engine"
    framework: str = "engine"
    gradient_bytes: float | None = None
    optimizer: str = "adam"
    blocking: bool = False
    even: bool = True
    recompute: str | None = None
    sends: bool = True


FAMILIES: Final[tuple[Family, ...]] = (
    Family("Megatron-Bridge", r"Megatron-Bridge", gradient_bytes=2.0),
    Family("dgxc", r"dgxc", gradient_bytes=2.0, optimizer="adam-remainders"),
    Family("MLPerf", r"MLPerf", gradient_bytes=2.0, optimizer="adam-remainders"),
    Family("NeMo docs", r"NeMo docs|NeMo-Framework-Launcher", gradient_bytes=2.0, optimizer="adam-remainders"),
    Family("SimuMax", r"SimuMax", tp_overlap="none"),
    Family("Mosaic", r"Mosaic|llm-foundry", "fsdp", attention="flash-1", framework="llm-foundry", even=False),
    Family("torchtitan", r"torchtitan", "fsdp", even=False),
    Family("fms-fsdp", r"fms-fsdp", "fsdp", gradient_bytes=2.0, even=False),
    Family("Zero Bubble", r"Zero Bubble", "early-megatron"),
    Family(
        *("vTrain single", r"vTrain.*single", "early-megatron", "none"),
        framework="megatron-deepspeed",
        recompute="none",
        sends=False,
    ),
    Family("vTrain multi", r"vTrain", "early-megatron", "none", framework="megatron-deepspeed"),
    Family(
        "BigScience", r"BigScience", "early-megatron", tp_overlap="none", framework="megatron-deepspeed", blocking=True
    ),
    Family("Korthikanti", r"Korthikanti", "early-megatron"),
    Family("SC21", r"Narayanan", "early-megatron", tp_overlap="none"),
    Family("MegaScale", r"MegaScale", framework="megatron-lm"),
    Family("other", r""),
)
"""Sources by the first pattern that their name holds. Megatron-LM of 2021 and 2022 (Narayanan 2104.04473 §4.2,
Korthikanti 2205.05198 §4.1, BigScience, vTrain's runs) wrote the scores to memory: FlashAttention came with 2205.14135.
The peak memory that Zero Bubble publishes fits unfused attention only. Megatron-LM hides the reduction of input gradients
since late 2021; the DeepSpeed fork that BigScience and vTrain ran is older, and SimuMax's runs switch overlap off.
llm-foundry's tables ran FlashAttention 1 in Triton. Megatron-Bridge's and NeMo's performance recipes reduce gradients in
BF16 (`grad_reduce_in_fp32=False`, `grad_sync_dtype: bf16`); NeMo's distributed Adam keeps of the master copy what the BF16
weight lacks."""

ODD: Final[Mapping[str, str]] = {
    "mb_26.06.01_GPT_OSS_120B_GB200_MXFP8_64": "a regression of that release, says its footnote",
    "mb_26.06.01_GPT_OSS_120B_GB300_MXFP8_64": "a regression of that release, says its footnote",
    "mb_25.11_DeepSeekV3_GB200_BF16_256": "the recipe beside it has another global batch",
    "vtrain_multi_016": "9.8 s where its twins at half and a quarter of the micro-batch take 5.0",
    "vtrain_multi_042": "21.9 s at micro-batch 2, 19.1 at 3: neighbours fall by a third",
}
"""Rows that their own source or their neighbours contradict: priced and scored, but nothing is fitted to them."""

SIMULATED: Final = "not measured: its simulator's own output, to the nanosecond"
ASIDE: Final[tuple[tuple[str, Mapping[str, tuple[float, float]], str], ...]] = (
    ("vTrain single", {}, SIMULATED),
    ("SC21", {"zero_stage": (3, 3)}, "DeepSpeed of 2021 gathers matrix by matrix, in turn: not priced"),
    (
        "BigScience",
        {"tp": (8, 8), "micro": (1, 2)},
        "loses 8 % more than groups of four or larger micro-batches, unexplained",
    ),
)
"""Source, bounds of its mapping, and why nothing is fitted to those of its rows that lie within: they are priced and scored.

vTrain's single-node table (data/ground_truth_single.csv) is output of its simulator, to the nanosecond. A layer adds 4.989274 ms
to each micro-batch, whether there are 12 layers or 24, two micro-batches or 16 (hidden 1,024, tp 8, micro-batch 1). Data
parallelism adds what its profile of all-reduces holds: dp 4 less dp 1 is 6.917800 ms at 969 MiB, the entry of
trace/a100/AR_GPU4_1M_1024M_LUT, and 5.121692 ms at 1,161 MiB, past that profile's end, where src/predictor.py divides bytes by
bus bandwidth without 2·(n − 1)/n (hidden 2,048, pp 2, micro-batch 8, 16 and 20 layers). Nothing is recomputed: a layer adds
8.784 ms to each micro-batch in the first of two stages as in the only one (tp 1, micro-batch 4). Its layers were profiled on one
accelerator, so their host launches no collectives. SC21's ZeRO-3 and
BigScience: ACCURACY.md, "Step time"."""

LAYOUTS: Final[Mapping[tuple[str, str], Mapping[int, str]]] = {
    ("Megatron-Bridge", "deepseek"): {4: "Et*16|(t*16|)*2t*13mL", 8: "Et*8|(t*8|)*6t*5mL", 16: "Et*4|(t*4|)*14tmL"},
}
"""(source, start of a model's name) -> virtual stages -> layout that the source's recipes set where they list none by hand
(Megatron-Bridge recipes/deepseek, set_deepseek_v3_pipeline_model_parallel_layout)."""

CHANGED: Final = r"changed on (\d\d-\d\d) \(\+(\d+)-(\d+)%\)"
DATED: Final = r"\bdate (\d\d-\d\d)"
"""How a case tells that its platform got faster by so many percent on a day, and on which day it ran (BigScience's log:
"A100s PCI-Express/NUMA was improved today so all TFLOPs have changed for the better (1-5%)")."""

LAUNCHED: Final[tuple[tuple[str, str, Mapping[str, str]], ...]] = (
    ("dgxc", r"^v25\.02 grok1/", {"attention": "flash-2", "dispatcher": "alltoall"}),
    ("dgxc", r"^v25\.02 (nemo_megatron/|nemotron/README_340b)", {"attention": "flash-2"}),
    ("MLPerf", r"eos-dfw_n\d+_ngc24\.04|b200_n8_preview|ngc25\.04|ngc25\.09", {"graphs": "full"}),
)
"""(source, start of where its number stands, software) that its launch scripts name beyond their tables.
NVIDIA/dgxc-benchmarking v25.02: `NVTE_FUSED_ATTN=0` (FlashAttention-2 instead of cuDNN's) in grok1/configure.sh,
nemo_megatron/configure.sh and for 340b in nemotron/configure.sh; `moe_token_dispatcher_type: alltoall` in
grok1/grok1_314b.yaml. MLPerf: CUDA graphs of layers (`LAYER_CUDA_GRAPH=1`, v4.0 on more than a thousand nodes, v4.1 on
B200) or of steps (`FULL_CUDA_GRAPH=True`, v5.0 and v5.1), in the files ``*_cg*.sh``."""

RELEASES: Final[tuple[tuple[str, str, str], ...]] = (
    ("dgxc", r"^v25\.02 nemo_megatron/", "24.05"),
    ("dgxc", r"^v25\.02 nemotron/README_15b", "24.12"),
    ("dgxc", r"^v25\.02 (llama3\.1|grok1|nemotron)/", "24.09"),
    ("dgxc", r"^v25\.05\.05 ", "25.04"),
    ("MLPerf", r"ND_H100_v5_n1344_pytorch", "23.09"),
    ("MLPerf", r"b200_n8_preview_nemo", "24.09"),
)
"""(source, words of where its number stands, release): containers of the launch scripts (dgxc: `FW_VERSION` in launch.sh, and
nemotron/metadata.yaml), and of the same round's other submissions (MLPerf); other cases name their own."""

OVERLAPS: Final[tuple[tuple[str, str, str], ...]] = (("Megatron-Bridge", r"^nvfp4", "backward"),)
"""(source, start of a precision, how tensor-parallel communication hides, a key of `parallel.training.layer.TP_OVERLAPS`) where
recipes turn userbuffers off: Megatron-Bridge scripts/performance/configs/llama/llama31_llm_pretrain.py,
`tp_comm_overlap = False if precision == "nvfp4"`. Transformer Engine still gathers and reduces behind backward's products."""

DEFERRED: Final[tuple[tuple[str, str, int], ...]] = (("MLPerf", r"eos_n(32|64)_ngc24\.09", 65),)
"""(source, words of where its number stands, micro-batches whose gradient of the head's weight waits for the drain): MLPerf v4.1,
`DEFER_EMBEDDING_WGRAD_COMPUTE=True` and `WGRAD_DEFERRAL_LIMIT=65` in NVIDIA's config_DGXH100_{32x8x256,64x8x128}x4x8_mbs2.sh."""

RECOMPUTED: Final[tuple[tuple[str, str, str], ...]] = (("dgxc", r"^v25\.05\.05 (llama3\.1|llama4|nemotron)/", "none"),)
"""(source, start of where its number stands, recomputation) where its own text is silent and the recipes that it launches are
not: NVIDIA/NeMo scripts/performance/recommended_model_configs/model_configs_{h100,gb200}.csv, no `recompute_layers` and no
`recompute_modules` in the lines of these models."""

SCALES: Final[tuple[tuple[str, str, str], ...]] = (
    ("dgxc", r"^v25\.02", "all"),
    ("dgxc", "", "tp"),
    ("MLPerf", "", "tp"),
    ("NeMo docs", r"^NeMo 24\.07", "all"),
    ("NeMo docs", "", "tp"),
)
"""(source, start of where its number stands, who agrees on delayed scales, a key of `parallel.workload.AMAX`). All ranks of a
stage by default: dgxc v25.02 sets `NVTE_DP_AMAX_REDUCE_INTERVAL=0`, which Transformer Engine has dropped before its containers
(24.05 and later), and its recipes no `tp_only_amax_red`. MLPerf v3.1 still had the variable (config_common.sh), from v4.0 on
its conf/custom.yaml sets `tp_only_amax_red`, as NeMo's scripts/performance do in 2025 (dgxc v25.05)."""

EVALUATIONS: Final[tuple[tuple[str, str, int, int], ...]] = (("MLPerf", "gpt3", 5662, 24576),)
"""(source, start of a model's name, sequences of an evaluation, sequences trained between two), for cases whose seconds hold
evaluations (`includes_eval`): mlcommons/training_results_v4.0, NVIDIA gpt3 conf/custom.yaml, `val_check_interval`."""

SCOPES: Final[tuple[tuple[str, str], ...]] = (("full_iteration", "full"), ("attn", "attention"), ("mlp", "mlp"))
"""Part of a recipe's CUDA graph scope -> what the graphs replay; any other scope is that of the router."""


def family(source: str) -> Family:
    """Return the family of a source by its name.

    >>> family("vTrain artifact (MICRO 24), VIA-Research/vTrain data/ground_truth_single.csv").name
    'vTrain single'
    """
    return next(f for f in FAMILIES if re.search(f.pattern, source, re.IGNORECASE))


def source_family(case: Json) -> Family:
    """Return the family of a case; one that names no source belongs to the last."""
    return family((case.get("source") or {}).get("name") or "")


def framework(case: Json) -> str:
    """Return the software of a case, a key of `parallel.training.frameworks.FRAMEWORKS`; PyTorch's by what the case compiles.

    torchtitan compiled blocks alone in 2024 and the loss too from 2025 on.

    >>> framework({"source": {"name": "torchtitan benchmarks/llama3-8b_h200_202506_trainy-whitefiber.md"},
    ...     "notes": "fp8 all-gather; compile"})
    'torch-fsdp-compiled'
    """
    source, notes = (case.get("source") or {}).get("name") or "", case.get("notes") or ""
    name = family(source).framework
    if family(source).name not in ("torchtitan", "fms-fsdp") or ("compile" not in notes and "async" not in notes):
        return name
    return "torch-fsdp-compiled" if re.search(r"_2025|_2026", source) else "torch-fsdp-blocks"


def _told(case: Json, table: Sequence[tuple[str, str, _T]]) -> _T | None:
    """Return what the first line of a table says of a case: whose source it is, and words of where its number stands."""
    name, where = source_family(case).name, (case.get("source") or {}).get("where") or ""
    return next((told for whose, words, told in table if whose == name and re.search(words, where)), None)


def launched(case: Json) -> Mapping[str, str]:
    """Return what the launch scripts of a case's source name of its software: fields of `parallel.workload.Software`.

    >>> launched({"source": {"name": "NVIDIA dgxc-benchmarking", "where": "v25.02 nemotron/README_340b.md line 1"}})
    {'attention': 'flash-2'}
    """
    return _told(case, LAUNCHED) or {}


def completed(case: Json) -> Json:
    """Return a case with the recomputation that recipes name where its source does not.

    >>> held = completed({"source": {"name": "dgxc", "where": "v25.05.05 llama4/README.md line 69"},
    ...     "missing": ["recompute mode"], "recompute": {"mode": None}})
    >>> held["recompute"], held["missing"]
    ({'mode': 'none'}, [])
    """
    mode, missing = _told(case, RECOMPUTED), case.get("missing") or []
    if mode is None:
        return case
    unsaid = [name for name in missing if not name.startswith("recompute")]
    return {**case, "recompute": {"mode": mode}, "missing": unsaid}


def amax(case: Json) -> str:
    """Return who agrees on the scales of a case's FP8 tensors: nobody where they are not delayed ones.

    >>> amax({"source": {"name": "MLPerf Training v4.1"}, "precision": "fp8 (delayed scaling, TE)"})
    'tp'
    """
    return (_told(case, SCALES) or "none") if (case.get("precision") or "").startswith("fp8") else "none"


def release(case: Json) -> str:
    """Return the release of a case's software: as it, its source's launch scripts or containers name it, else that of its paper.

    Other published runs are of the middle of the years; a run of one's own is of the newest release, as a scenario is.

    >>> release({"source": {"name": "MLPerf Training v4.1", "where": "NVIDIA/results/eos_n64_ngc24.09_nemo/gpt3 logs"}})
    '24.09'
    >>> release({"source": {"name": "Llama 3 Herd of Models (arXiv 2407.21783)"}})
    '24.07'
    """
    source = case.get("source") or {}
    named = re.search(r"(?:ngc|NeMo )(2\d\.\d\d)", source.get("where") or "")
    paper = re.search(r"arXiv (2\d)(\d\d)\.", source.get("name") or "")
    undated = NEWEST if source_family(case).name == "other" else MIDDLE
    dated = named[1] if named else f"{paper[1]}.{paper[2]}" if paper else undated
    return case.get("release") or _told(case, RELEASES) or dated


def evaluation(case: Json) -> tuple[int, int]:
    """Return the sequences of an evaluation and the steps between two that a case's seconds hold a share of; 0 and 1 if none.

    >>> evaluation({"source": {"name": "MLPerf Training v4.0"}, "model": {"ref": "gpt3_175b"}, "batch": {"global": 2304},
    ...     "includes_eval": True})
    (5662, 11)
    """
    if case.get("includes_eval"):
        for source, start, sequences, every in EVALUATIONS:
            if source_family(case).name == source and case["model"]["ref"].startswith(start):
                return sequences, ceil(every / case["batch"]["global"])
    return 0, 1


def tp_overlap(case: Json) -> str:
    """Return how a case's tensor-parallel communication hides: as recipes say of its precision, else as its family does.

    >>> [tp_overlap({"source": {"name": "Megatron-Bridge"}, "precision": name}) for name in ("nvfp4", "mxfp8")]
    ['backward', 'engine']
    """
    source, precision = source_family(case), case.get("precision") or ""
    ruled = (mode for name, start, mode in OVERLAPS if name == source.name and re.match(start, precision))
    return next(ruled, source.tp_overlap)


def recompute_modules(case: Json) -> tuple[str, ...]:
    """Return the parts of a layer that selective recomputation redoes, as the case lists them; else the attention core.

    >>> recompute_modules({"recompute": {"mode": "selective", "detail": "layernorm,moe_act"}})
    ('layernorm', 'moe_act')
    """
    detail = (case.get("recompute") or {}).get("detail") or ""
    return tuple(name for name in MODULES if re.search(rf"\b{name}\b", detail)) or ("core_attn",)


def recompute_mode(case: Json) -> str:
    """Return how activations are recomputed: as the source's figures show where they contradict its settings, else as stated.

    >>> recompute_mode({"recompute": {"mode": "full"}, "source": {"name": "vTrain artifact, ground_truth_single.csv"}})
    'none'
    """
    return source_family(case).recompute or str(case["recompute"]["mode"])


def recipe_layout(case: Json) -> str | None:
    """Return the layout that the recipes of a case's source set for its model, None where they leave it to the framework.

    >>> recipe_layout({"source": {"name": "Megatron-Bridge"}, "model": {"ref": "deepseek_v3"},
    ...     "parallel": {"pp": 4, "vpp": 2}})
    'Et*8|(t*8|)*6t*5mL'
    """
    source, virtual = source_family(case).name, case["parallel"]["pp"] * case["parallel"]["vpp"]
    for (name, start), layouts in LAYOUTS.items():
        if source == name and (case["model"]["ref"] or "").startswith(start):
            return layouts.get(virtual)
    return None


def before_change(case: Json) -> float:
    """Return the seconds of a run over those on the platform as it became later: the middle of what the source says; else 1.

    >>> before_change({"notes": "date 02-21", "caveat": "tuning changed on 02-25 (+1-5%)"})
    1.03
    """
    day, change = re.search(DATED, case.get("notes") or ""), re.search(CHANGED, case.get("caveat") or "")
    if not day or not change or day[1] >= change[1]:
        return 1.0
    return 1.0 + (float(change[2]) + float(change[3])) / 200.0


def software(case: Json) -> Software:
    """Return what trained a case, as far as its recipe and notes tell; else what its family's engine does."""
    source = source_family(case)
    recipe, notes = case.get("recipe") or {}, f"{case.get('notes') or ''} {case['id']}"
    scope = f"{recipe.get('cuda_graph') or 'none'} {recipe.get('cuda_graph_scope') or ''}"
    replayed = next((graphs for word, graphs in SCOPES if word in scope), "router")
    named = bool(recipe) and not recipe.get("moe_dispatcher")
    told = launched(case)
    return Software(
        engine=source.engine,
        attention=told.get("attention", source.attention),
        tp_overlap="chunked" if "asynctp" in notes.lower() else tp_overlap(case),
        framework=framework(case),
        graphs=told.get("graphs", "none" if str(recipe.get("cuda_graph")).lower() == "none" else replayed),
        dispatcher=told.get("dispatcher", "alltoall" if named else "auto"),
        compiled="compile" in notes,
        blocking=source.blocking,
        sends=source.sends,
        deferred=_told(case, DEFERRED) or 0,
        amax=amax(case),
        release=release(case),
        trains="lora" if case.get("kind") == "lora" else "all",
        mtp="without MTP" not in notes,
        installation=before_change(case),
    )


def set_aside(case: Json) -> str | None:
    """Return why nothing is fitted to a case, None where it takes part."""
    if case["id"] in ODD:
        return ODD[case["id"]]
    mapping = {**case["parallel"], "micro": case["batch"].get("micro")}
    for source, bounds, why in ASIDE:
        within = (least <= (mapping[name] or 0) <= most for name, (least, most) in bounds.items())
        if source == family(case["source"]["name"]).name and all(within):
            return why
    known = completed(case)
    whole = case.get("completeness") == "full" or (known is not case and not known["missing"])
    return None if whole else "incomplete"


def is_simulated(case: Json) -> bool:
    """Whether a case's figure is a simulator's output, not a measurement."""
    return set_aside(case) == SIMULATED


def in_fit(case: Json) -> bool:
    """Whether constants may be fitted to a case: see `ODD` and `ASIDE`."""
    return set_aside(case) is None
