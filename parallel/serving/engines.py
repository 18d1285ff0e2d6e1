"""Serving engines as inputs: a few fitted constants, defaults, and the settings that public benchmarks launched them with.

An engine class (vLLM, SGLang, TensorRT-LLM) has six constants, shared by all models, accelerators and splits; all engines share
the rates of grouped products, by number format and generation. `parallel.calibration.serving` fits both, and `data/engines.yaml`
stores them with their residuals. What an operator sets (token budget, memory share, how often the queue is looked at) is no
constant: it comes from the engine's defaults or from a launch script in `data/launches.yaml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from clusters.catalogue import Accelerator, key_of
from parallel.io import read_yaml
from parallel.models import Model, Moe, compressed
from parallel.precision import Recipe
from topo.errors import Fault, SpecError

DATA: Final = Path(__file__).parents[1] / "data"

CONSTANTS: Final = ("launch", "request_s", "prefill", "offset_s", "stream_s", "eager_s")
"""The fitted constants of an engine class, in file order."""

ALIASES: Final[Mapping[str, str]] = {"tensorrt-llm": "trtllm", "tensorrtllm": "trtllm", "trt-llm": "trtllm"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator sets.

    Attributes
    ----------
    tokens : token budget of a step
    sequences : most sequences at once
    memory : share of the device that weights and cache may take; of what the weights leave, with `memory_of_rest`
    mixed : whether prompts are fed beside decoding sequences
    kv_bytes : bytes of a cached value; 0 for what goes with the checkpoint
    poll_steps, wait_steps, wait_share : when the queue is looked at; `wait_share` of the token budget ends a wait
    graphs : most decoding sequences of a captured CUDA graph; 0 without graphs
    """

    tokens: float = 8192
    sequences: float = 1024
    memory: float = 0.9
    memory_of_rest: bool = False
    mixed: bool = True
    kv_bytes: float = 2.0
    poll_steps: int = 1
    wait_steps: int = 0
    wait_share: float = 0.0
    graphs: float = 512


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine class.

    Attributes
    ----------
    launch : what a kernel of a captured graph takes to start, over an empty kernel of the part
    request_s : host seconds for each decoding sequence in a step
    prefill : what the prompt's share of a pass takes, over its price from kernels
    offset_s : seconds between client and queue, there and back
    stream_s : seconds that a token spends in the frontend: a first token waits for one of every other client
    eager_s : host seconds for each kernel of a pass that holds prompt tokens: it runs outside the captured graphs
    bands : (metric and mode, low, high) of the 90 % bands of measured/predicted
    regime : software of its all-reduces, see `clusters.tunings`
    grouped : (format, generation, rate): arithmetic of the kernels that multiply many experts' weights at once over that of a
        single product; the same for all engines but where one has kernels of its own
    skew : how unevenly popular experts were in the runs it is fitted to (`parallel.hotexperts`); None for the fitted figure
    """

    name: str
    launch: float
    request_s: float
    prefill: float
    offset_s: float
    stream_s: float
    eager_s: float
    defaults: Settings
    bands: tuple[tuple[str, float, float], ...] = ()
    grouped: tuple[tuple[str, str, float], ...] = ()
    regime: str = "graph"
    skew: float | None = None

    def return_s(self, clients: float) -> float:
        """Seconds of a first token on its way back: half of ``offset``, and ``stream·clients`` while all are served in turn."""
        return self.offset_s / 2.0 + self.stream_s * clients

    def grouped_rate(self, fmt: str, generation: str) -> float:
        """Return the rate of grouped products; a generation without one has that of the first that has, other formats 1.

        >>> vllm = engine("vllm")
        >>> vllm.grouped_rate("int4", "hopper") < 0.5, vllm.grouped_rate("bf16", "hopper")
        (True, 1.0)
        """
        rates = {where: rate for name, where, rate in self.grouped if name == fmt}
        return rates.get(generation, next(iter(rates.values()), 1.0))


@cache
def _file(name: str) -> Mapping[str, Any]:
    return read_yaml(DATA / name)


def engine_names() -> tuple[str, ...]:
    """Return the engine classes.

    >>> engine_names()
    ('vllm', 'sglang', 'trtllm')
    """
    return tuple(_file("engines.yaml")["engines"])


def held_out() -> Mapping[str, Any]:
    """Return the errors of constants fitted without one model, or one accelerator, as the calibration stored them."""
    note = "constants refitted without the rows being scored: without each model (`model`), each accelerator (`part`)"
    return {"note": note, **_file("engines.yaml").get("held_out", {})}


@cache
def engine(name: str) -> Engine:
    """Return an engine class by name.

    Raises
    ------
    SpecError
        There is no such engine.

    >>> engine("TensorRT-LLM").name
    'trtllm'
    """
    key = ALIASES.get(key_of(name), key_of(name))
    entries = _file("engines.yaml")["engines"]
    if key not in entries:
        raise SpecError([Fault("engine", name, "no constants stand for it", f"choose one of {', '.join(entries)}")])
    entry = entries[key]
    grouped = own_rates(key, shared_rates())
    bands = tuple((metric, float(low), float(high)) for metric, (low, high) in entry.get("bands", {}).items())
    constants = {key: float(entry["constants"][key]) for key in CONSTANTS}
    regime = entry.get("regime", "graph")
    return Engine(key, **constants, defaults=Settings(**entry["defaults"]), bands=bands, grouped=grouped, regime=regime)


def fitted_rates() -> Mapping[str, Mapping[str, float]]:
    """Return the rates of grouped products that are fitted to serving runs, by format and generation.

    >>> sorted(fitted_rates()["fp8-block"])
    ['blackwell', 'hopper']
    """
    rates: Mapping[str, Mapping[str, float]] = _file("engines.yaml").get("grouped", {})
    return rates


def shared_rates() -> dict[str, dict[str, float]]:
    """Return the rates of grouped products by format and generation: fitted to serving runs, or to tables of kernels.

    >>> sorted(shared_rates()["fp8-block"])
    ['blackwell', 'cdna3', 'cdna4', 'hopper']
    """
    measured = _file("engines.yaml").get("grouped_kernels", {})
    return {fmt: {**by, **measured.get(fmt, {})} for fmt, by in fitted_rates().items()}


def own_rates(name: str, shared: Mapping[str, Mapping[str, float]]) -> tuple[tuple[str, str, float], ...]:
    """Return the rates of grouped products of an engine: those that all share, and of kernels that it alone has, its own.

    >>> own_rates("sglang", {"fp8-block": {"hopper": 0.6, "blackwell": 0.2}})
    (('fp8-block', 'hopper', 0.6), ('fp8-block', 'blackwell', 1.0))
    """
    own = _file("engines.yaml")["engines"][name].get("grouped", {})
    return tuple(
        (fmt, where, float(own.get(fmt, {}).get(where, rate)))
        for fmt, by in shared.items()
        for where, rate in by.items()
    )


@cache
def mean_prefill() -> float:
    """Return what a prompt's share of a pass takes over its price from kernels, on average of the engines.

    >>> 1.0 < mean_prefill() < 1.5
    True
    """
    return sum(engine(name).prefill for name in engine_names()) / len(engine_names())


def bare(base: Engine) -> Engine:
    """Return an engine that adds nothing to its kernels: what stands in for one that nothing is known of.

    >>> bare(engine("sglang")).launch, bare(engine("sglang")).prefill
    (1.0, 1.0)
    """
    return replace(base, launch=1.0, request_s=0.0, prefill=1.0, offset_s=0.0, stream_s=0.0, eager_s=0.0)


def launched(
    base: Engine,
    model: Model,
    part: Accelerator,
    precision: str,
    tp: float,
    clients: float,
    isl: float,
    osl: float,
    dp: float = 1.0,
) -> Settings:
    """Return the settings of a run: those of the first launch script that it matches, else the engine's defaults.

    >>> from clusters.catalogue import accelerator
    >>> from parallel.io import read_model
    >>> r1, b200 = read_model("deepseek-r1"), accelerator("b200-sxm")
    >>> [launched(engine("sglang"), r1, b200, "fp4", 8, n, 1024, 1024).poll_steps for n in (8, 16)]
    [10, 30]
    """
    asked = {
        "engine": base.name,
        "model": model.name,
        "generation": part.generation,
        "precision": precision,
        "tp": tp,
        "attention_dp": dp > 1,
        "lengths": [int(isl), int(osl)],
    }
    held = _file("launches.yaml")
    if [int(isl), int(osl)] not in held["lengths"]:
        return base.defaults
    for entry in held["launches"]:
        wanted = {key: value for key, value in entry.items() if key in asked}
        least, most = entry.get("clients", (0, float("inf")))
        if least <= clients < most and all(_among(asked[key], value) for key, value in wanted.items()):
            names = {field.name for field in fields(Settings)}
            return replace(base.defaults, **{key: value for key, value in entry.items() if key in names})
    return base.defaults


def benchmarked(base: Engine, settings: Settings, version: str, clients: float, isl: float, osl: float) -> Settings:
    """Return the settings of a measured run of equal lengths: its tool sizes the token budget by the load.

    >>> trt = engine("trtllm")
    >>> [benchmarked(trt, trt.defaults, "1.0.0", 8, isl, 1024).tokens for isl in (1024, 2000)]
    [8192, 3508]
    """
    if drawn_lengths(isl, osl):
        return settings
    for entry in _file("launches.yaml")["equal_lengths"]:
        if entry["engine"] == base.name and version.startswith(entry.get("version", "")):
            tokens = clients + isl + entry["beyond"] if "beyond" in entry else settings.tokens
            told = {key: entry[key] for key in ("mixed", "graphs") if key in entry}
            return replace(settings, tokens=tokens, **told)
    return settings


def _among(value: Any, wanted: Any) -> bool:
    """Whether a value is the wanted one or one of them."""
    return value in wanted if isinstance(wanted, list) and not isinstance(value, list) else bool(value == wanted)


def drawn_lengths(isl: float, osl: float) -> bool:
    """Whether a run is of the benchmark whose scripts `launches.yaml` holds: it draws lengths from 0.8 to 1 of the nominal."""
    return [int(isl), int(osl)] in _file("launches.yaml")["lengths"]


def serving_recipe(model: Model, precision: str, part: Accelerator, gemm_quant: str = "") -> Recipe:
    """Return which format each part of a checkpoint has on an accelerator.

    * routed experts published in MXFP4 stay so whatever the rest is said to be: BF16 (gpt-oss), or block-scaled FP8
      (DeepSeek-V4, unless the checkpoint is said to be of FP8 alone, or of NVFP4 experts);
    * FP8 checkpoints of models with experts, and those said to be, are block-scaled (DeepSeek, Qwen, MiniMax);
    * NVFP4 checkpoints of models with experts keep attention in BF16 (NVIDIA ModelOpt);
    * INT4 checkpoints keep all but the experts in BF16 (compressed-tensors);
    * four bits on a part without FP4 units are widened to BF16 before the product.

    >>> from clusters.catalogue import accelerator
    >>> from parallel.io import read_model
    >>> serving_recipe(read_model("deepseek-r1"), "fp4", accelerator("b200-sxm")).attention
    'bf16'
    >>> serving_recipe(read_model("gpt-oss-120b"), "fp4", accelerator("h100-sxm")).experts
    'int4'
    >>> serving_recipe(read_model("deepseek-v4-flash"), "fp8", accelerator("b200-sxm")).experts
    'mxfp4'
    """
    routed = any(isinstance(kind.mlp, Moe) for kind in model.layers)
    native = bool(part.peak_flops.get("fp4"))
    if model.expert_precision == "mxfp4":
        rest = "fp8-block" if model.native_precision == "fp8" else "bf16"
        experts = "nvfp4" if precision == "nvfp4" and rest == "fp8-block" else "mxfp4"
        experts = rest if gemm_quant == "fp8_block" and rest == "fp8-block" else experts if native else "int4"
        return _recipe(precision, rest, rest, experts)
    if precision == "fp8":
        fmt = "fp8-block" if routed or gemm_quant == "fp8_block" else "fp8"
        return _recipe(precision, fmt, fmt, fmt)
    if precision == "int4":
        return _recipe(precision, "bf16", "bf16", "int4")
    if precision in ("fp4", "nvfp4"):
        fmt = "nvfp4" if native else "int4"
        return _recipe(precision, "bf16" if routed else fmt, fmt, fmt)
    return _recipe("bf16", "bf16", "bf16", "bf16")


def _recipe(name: str, attention: str, mlp: str, experts: str) -> Recipe:
    dispatch = "bf16" if name == "bf16" else "fp8-block"
    return Recipe(name, attention, mlp, experts, "bf16", dispatch=dispatch, combine="bf16")


def kv_bytes(settings: Settings, precision: str, model: Model | None = None) -> float:
    """Bytes of a cached value: as set, else 2; checkpoints of TensorRT-LLM in FP8 or NVFP4 bring an FP8 cache.

    Entries of compressed attention are in FP8 (`parallel.entries.entry_bytes`), so that is what engines have to be told.

    >>> trt = engine("trtllm").defaults
    >>> kv_bytes(trt, "fp8"), kv_bytes(trt, "bf16")
    (1.0, 2.0)
    """
    if model is not None and compressed(model):
        return 1.0
    if settings.kv_bytes:
        return settings.kv_bytes
    return 1.0 if precision in ("fp8", "fp4", "nvfp4") else 2.0
