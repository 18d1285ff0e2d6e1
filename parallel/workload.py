"""What is asked of a cluster: one training step, one prefill, one decode; every field with its unit and default."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from math import ceil
from typing import Any, Final

from clusters.software import NEWEST, training_constants
from parallel.hotexperts import HotExperts
from topo.errors import Fault, SpecError


def _positive(record: object, *names: str) -> list[Fault]:
    faults = []
    for name in names:
        value = getattr(record, name)
        if not value > 0:
            faults.append(Fault(name, value, "must be positive", "give a number above zero"))
    return faults


TP_OVERLAPS: Final[Mapping[str, str]] = {
    "none": "nothing hides",
    "backward": "the second gather and the reduction of backward hide behind gradients (Megatron-LM since 2021)",
    "chunked": "each product works on one rank's piece while the next one travels (Transformer Engine userbuffers)",
}
GRAPHS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "router": ("router",),
    "attention": ("attention", "attention core", "router"),
    "mlp": ("mlp",),
    "full": ("attention", "attention core", "mlp", "shared expert", "router", "experts", "vector", "head"),
}
"""What CUDA graphs replay -> the terms whose kernels cost the host nothing."""
DISPATCHERS: Final[Mapping[str, str]] = {
    "auto": "the fastest kernels of `parallel.exchange` that reach the group",
    "alltoall": "NCCL's all-to-all of every routed row",
}
AMAX: Final[Mapping[str, str | None]] = {"none": None, "tp": "tp-cp", "all": "stage"}
"""Who agrees on the largest values of FP8 tensors after every pass through a chunk, where scales are delayed ones: nobody (scales
of the tensor at hand), tensor- and context-parallel ranks (Megatron-Core's `tp_only_amax_red`), or all ranks of a stage
(its default) -> a key of `parallel.placement.GROUPS`."""
TRAINS: Final = ("all", "lora")
RELEASE: Final = re.compile(r"2\d\.(0[1-9]|1[0-2])(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Software:
    """The software that trains. "engine" stands for what the engine class does by default.

    Attributes
    ----------
    engine : class of the software, a key of `clusters.software`'s engines
    attention : kernel of the attention core, `unfused`, or a key of `clusters.software`'s attention
    tp_overlap : how tensor-parallel communication hides, a key of `TP_OVERLAPS`
    dp_overlap : whether gradients are reduced behind the backward pass; None: as the engine does
    graphs : what CUDA graphs replay, a key of `GRAPHS`
    dispatcher : what carries the expert exchange, a key of `DISPATCHERS`
    framework : what it keeps in memory, a key of `parallel.training.frameworks.FRAMEWORKS`
    amax : who agrees on the largest values of FP8 tensors, a key of `AMAX`
    compiled : whether a compiler fuses the memory-bound operations and the loss (`torch.compile`)
    blocking : whether every launch waits for its kernel (`CUDA_LAUNCH_BLOCKING=1`), so that the host hides behind nothing
    sends : whether the host launches collectives beside a layer's kernels; not where layers were profiled each alone
    deferred : micro-batches whose gradient of the head's weight waits until the pipeline drains (Megatron-Core's
        `defer_embedding_wgrad_compute`, at most its `wgrad_deferral_limit`)
    trains : `all` weights, or `lora`: adapters beside frozen weights
    mtp : whether the model's multi-token-prediction modules are trained
    release : of the software, as NVIDIA names its containers (25.04); it moves engines whose releases are told apart
    installation : measured over predicted seconds, by your runs (`podscale calibrate training`)
    """

    engine: str = "megatron-core"
    attention: str = "engine"
    tp_overlap: str = "engine"
    dp_overlap: bool | None = None
    graphs: str = "none"
    dispatcher: str = "auto"
    amax: str = "none"
    framework: str = "engine"
    compiled: bool = False
    blocking: bool = False
    sends: bool = True
    deferred: int = 0
    trains: str = "all"
    mtp: bool = True
    release: str = NEWEST
    installation: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no engine does, every fault at once."""
        faults = _positive(self, "installation")
        for name, known in _choices().items():
            value = getattr(self, name)
            if value not in known:
                near = get_close_matches(str(value), known, 1)
                remedy = f"did you mean {near[0]}" if near else f"choose one of {', '.join(known)}"
                faults.append(Fault(name, value, "is not known", remedy))
        if self.deferred < 0:
            faults.append(Fault("deferred", self.deferred, "is no count of micro-batches", "give zero or more"))
        if not RELEASE.fullmatch(self.release):
            faults.append(Fault("release", self.release, "is no release", "write year and month, as in 25.04"))
        if faults:
            raise SpecError(faults)

    def settled(self, name: str) -> Any:
        """Return a field, or what the engine does where the field leaves it to the engine.

        >>> Software().settled("tp_overlap"), Software(tp_overlap="none").settled("tp_overlap")
        ('chunked', 'none')
        """
        value = getattr(self, name)
        return getattr(training_constants().engines[self.engine], name) if value in ("engine", None) else value


def _choices() -> dict[str, tuple[str, ...]]:
    return {
        "engine": tuple(training_constants().engines),
        "attention": ("engine", "unfused", *training_constants().attention),
        "tp_overlap": ("engine", *TP_OVERLAPS),
        "graphs": tuple(GRAPHS),
        "dispatcher": tuple(DISPATCHERS),
        "amax": tuple(AMAX),
        "trains": TRAINS,
    }


@dataclass(frozen=True, slots=True)
class TrainWorkload:
    """One optimizer step of pre-training.

    Attributes
    ----------
    sequence : tokens per sequence
    global_batch : sequences per step
    precision : recipe name, see `parallel.precision.RECIPES`
    causal : share of the attention square that is computed (0.5: a fused kernel skips the masked half)
    software : what trains it
    gradient_bytes : bytes per gradient value that is kept and reduced (FP32 accumulation: 4)
    imbalance : rows of the busiest expert rank over the mean (1: balanced by the router's loss)
    optimizer : a key of `parallel.training.frameworks.OPTIMIZERS`
    offload : share of the optimizer's state that the host holds
    offload_layers : layers of a stage whose activations the host holds
    recompute_modules : what selective recomputation redoes, of `parallel.training.activations.MODULES`
    layout : which layers sit on which virtual stage, as Megatron-Core's `pipeline_model_parallel_layout` (None: by cost)
    reserve_bytes : memory that driver and communication library keep (None: counted from the framework's communicators)
    evaluation_sequences, evaluation_steps : every so many steps, so many sequences are evaluated, forward only, and the seconds
        of a step hold their share of it (0: no evaluation)
    """

    sequence: int = 4096
    global_batch: int = 18432
    precision: str = "fp8"
    causal: float = 0.5
    software: Software = field(default_factory=Software)
    gradient_bytes: float = 4.0
    imbalance: float = 1.0
    optimizer: str = "adam"
    offload: float = 0.0
    offload_layers: int = 0
    recompute_modules: tuple[str, ...] = ("core_attn",)
    layout: str | None = None
    reserve_bytes: float | None = None
    evaluation_sequences: int = 0
    evaluation_steps: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be a step."""
        faults = _positive(
            self, "sequence", "global_batch", "causal", "gradient_bytes", "imbalance", "evaluation_steps"
        )
        if self.evaluation_sequences < 0:
            faults.append(
                Fault("evaluation_sequences", self.evaluation_sequences, "is negative", "give 0 for no evaluation")
            )
        if faults:
            raise SpecError(faults)

    @property
    def fused_attention(self) -> bool:
        """Whether scores stay inside a fused kernel."""
        return bool(self.software.settled("attention") != "unfused")

    @property
    def framework(self) -> str:
        """What the software keeps in memory: a key of `parallel.training.frameworks.FRAMEWORKS`."""
        return str(self.software.settled("framework"))

    @property
    def evaluated(self) -> float:
        """Global batches that are evaluated for each one trained; the last of an evaluation is filled up.

        >>> TrainWorkload(global_batch=2304, evaluation_sequences=5662, evaluation_steps=11).evaluated  # 3 batches in 11 steps
        0.2727272727272727
        """
        return ceil(self.evaluation_sequences / self.global_batch) / self.evaluation_steps

    @property
    def tokens(self) -> float:
        """Tokens per step."""
        return float(self.sequence * self.global_batch)


@dataclass(frozen=True, slots=True)
class ServeWorkload:
    """Requests of one shape, served as separate prefill and decode pools.

    Attributes
    ----------
    isl, osl : input and output tokens per request
    cached : input tokens whose keys and values are there already: prefill computes the rest, which sees them
    tpot_s, ttft_s : limits on the time per output token and on the time to the first one
    precision : recipe name
    kv_bytes : bytes per cached value
    exchange : the kernels of the expert exchange, a key of `parallel.exchange.EXCHANGES`, or `auto`
    imbalance : rows of the busiest expert rank over the mean (1: balanced by redundant experts)
    zipf, expert_copies : exponent of the experts' loads in place of `imbalance`, and copies that a balancer makes
    drafts, holds, drafter : tokens that are drafted for each step of decode, the share of the steps in which each holds,
        and what drafts, a key of `parallel.speculation.METHODS`
    reserve_bytes : memory kept by driver, libraries, graphs and allocator
    """

    isl: int = 4096
    osl: int = 1024
    tpot_s: float = 0.05
    ttft_s: float = 2.0
    precision: str = "fp8"
    kv_bytes: float = 2.0
    exchange: str = "auto"
    imbalance: float = 1.0
    reserve_bytes: float = 8 * 2**30
    cached: int = 0
    zipf: float = 0.0
    expert_copies: int | None = None
    drafts: int = 0
    holds: tuple[float, ...] = ()
    drafter: str = "mtp"

    def __post_init__(self) -> None:
        """Refuse what cannot be served."""
        faults = _positive(self, "isl", "osl", "tpot_s", "ttft_s", "kv_bytes", "imbalance")
        if not 0 <= self.cached < self.isl:
            faults.append(
                Fault("cached", self.cached, f"is no part of {self.isl} input tokens", "leave some to compute")
            )
        if self.drafts and len(self.holds) != self.drafts:
            faults.append(Fault("holds", self.holds, f"are not those of {self.drafts} drafts", "give one for each"))
        if faults:
            raise SpecError(faults)
        HotExperts(self.zipf, 0.0 if self.imbalance == 1.0 else self.imbalance, self.expert_copies)

    @property
    def hot(self) -> HotExperts:
        """How uneven the rows of experts are."""
        return HotExperts(self.zipf, 0.0 if self.zipf else self.imbalance, self.expert_copies)

    @property
    def yielded(self) -> float:
        """Mean tokens of a decoding step: the model's own, and the drafts that hold."""
        return 1.0 + sum(self.holds)

    @property
    def fresh(self) -> float:
        """Input tokens of a request that prefill computes."""
        return float(self.isl - self.cached)

    @property
    def mean_context(self) -> float:
        """Cached tokens per sequence, averaged over its life: the prompt and half of the answer."""
        return self.isl + self.osl / 2
