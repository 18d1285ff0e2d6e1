"""The scenario file as Pydantic checks it: imported only while a file is read; every fault comes back at once."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from clusters.fieldvalues import quantity
from clusters.software import attention_kernels, engine_names
from parallel.exchange import EXCHANGES
from parallel.placement import ORDERS
from parallel.precision import FORMATS, RECIPES
from parallel.training.layer import RECOMPUTE
from parallel.training.step import SCHEDULES
from parallel.workload import AMAX, DISPATCHERS, GRAPHS, TP_OVERLAPS, TRAINS
from topo.errors import Fault, SpecError

BESIDE_POOLS = {
    "pool": "leave it out",
    "phase": "leave it out: both phases are priced",
    "strategy": "write strategies: {prefill: {tp: 8}, decode: {ep: 64}}",
    "ladder": "leave it out, or price one pool: write pool and phase",
}
"""Fields that say something of one deployment -> what to do about them where there are two."""

T = TypeVar("T", bound=BaseModel)

Seconds = Annotated[float, BeforeValidator(quantity("seconds")), Field(gt=0)]


class Section(BaseModel):
    """A section of the file: unknown fields are faults."""

    model_config = ConfigDict(extra="forbid", strict=False)


class ExchangeFile(Section):
    """Assumptions of the expert exchange."""

    kernels: Literal["auto", *EXCHANGES] | None = None  # type: ignore[valid-type]
    copies: Literal["expert", "rank", "node"] | None = Field(
        None, description="rows sent per token; default: the kernels'"
    )
    extra_copies: int | None = Field(None, ge=0, description="rows beside the routed ones, such as a shared expert's")
    locality: bool | None = Field(None, description="whether rows for the own rank or domain stay there")
    ideal: bool | None = Field(None, description="links without latency, at their full rate")
    dispatch: Literal[tuple(FORMATS)] | None = None  # type: ignore[valid-type]
    combine: Literal[tuple(FORMATS)] | None = None  # type: ignore[valid-type]


class TrainStrategyFile(Section):
    """A training split. What is left out is 1, none or off."""

    tp: PositiveInt = 1
    cp: PositiveInt = 1
    ep: PositiveInt = 1
    etp: PositiveInt = 1
    pp: PositiveInt = 1
    vpp: PositiveInt = 1
    dp: PositiveInt | None = Field(None, description="default: as many replicas as fit and divide the batch")
    micro_batch: PositiveInt = 1
    zero: int = Field(1, ge=0, le=3)
    replicate: PositiveInt | None = Field(
        None, description="copies of what ZeRO shards, each over dp/replicate neighbours (HSDP); default: 1"
    )
    recompute: Literal[RECOMPUTE] = "none"  # type: ignore[valid-type]
    recompute_layers: PositiveInt | None = Field(None, description="layers of each stage redone in full; default: all")
    layout: str | None = Field(None, description="which layers sit where: Et*4|(t*4|)*14tmL; default: by cost")
    schedule: Literal["1f1b", *SCHEDULES] | None = Field(  # type: ignore[valid-type]
        None, description="default: 1f1b, interleaved where vpp is above 1"
    )
    order: Literal[ORDERS] = ORDERS[0]  # type: ignore[valid-type]
    sp: bool = Field(True, description="sequence parallelism: norms and residuals split by tp")
    ep_overlap: bool = False
    ranks_per_domain: PositiveInt | None = Field(None, description="ranks at work in each domain; default: all")


class ServeStrategyFile(Section):
    """A serving split."""

    tp: PositiveInt = 1
    ep: PositiveInt = 1
    pp: PositiveInt = 1
    cp: PositiveInt = Field(1, description="ranks that share a prompt: prefill context parallelism")
    dcp: PositiveInt = Field(1, description="tensor ranks that deal the cache among them, under an engine")
    dcp_comm: Literal["ag_rs", "a2a"] = Field("ag_rs", description="how these add up what they found (vLLM)")
    microbatches: Literal[1, 2] = 1
    batch: PositiveFloat = Field(1.0, description="sequences (decode) or prompts (prefill) per accelerator")
    ranks_per_domain: PositiveInt | None = None


class TrainWorkloadFile(Section):
    """What is trained."""

    sequence: PositiveInt | None = None
    global_batch: PositiveInt | None = None
    precision: Literal[tuple(RECIPES)] | None = None  # type: ignore[valid-type]
    gradient_bytes: PositiveFloat | None = None
    imbalance: PositiveFloat | None = None
    reserve_bytes: float | None = Field(None, ge=0)
    evaluation_sequences: int | None = Field(None, ge=0, description="sequences of an evaluation, forward only")
    evaluation_steps: PositiveInt | None = Field(None, description="steps between two evaluations")


class SoftwareFile(Section):
    """The software that trains; "engine" stands for what its class does."""

    engine: Literal[engine_names()] | None = None  # type: ignore[valid-type]
    attention: Literal["engine", "unfused", *attention_kernels()] | None = None  # type: ignore[valid-type]
    tp_overlap: Literal["engine", *TP_OVERLAPS] | None = None  # type: ignore[valid-type]
    dp_overlap: bool | None = Field(None, description="whether gradients are reduced behind the backward pass")
    graphs: Literal[tuple(GRAPHS)] | None = Field(None, description="what CUDA graphs replay")  # type: ignore[valid-type]
    dispatcher: Literal[tuple(DISPATCHERS)] | None = None  # type: ignore[valid-type]
    amax: Literal[tuple(AMAX)] | None = Field(None, description="who agrees on FP8 scales")  # type: ignore[valid-type]
    compiled: bool | None = Field(None, description="whether a compiler fuses the memory-bound operations")
    blocking: bool | None = Field(None, description="whether every launch waits for its kernel")
    deferred: int | None = Field(None, ge=0, description="micro-batches whose head gradient waits for the drain")
    trains: Literal[TRAINS] | None = None  # type: ignore[valid-type]
    mtp: bool | None = Field(None, description="whether multi-token-prediction modules are trained")
    release: str | None = Field(None, description="release of the software, year and month: 25.04")
    installation: PositiveFloat | None = Field(None, description="measured over predicted seconds, by your runs")


class ServeWorkloadFile(Section):
    """What is served."""

    isl: PositiveInt | None = None
    osl: PositiveInt | None = None
    tpot_s: Seconds | None = Field(None, description="limit on the time per output token: 50ms, or in seconds")
    ttft_s: Seconds | None = Field(None, description="limit on the time to the first token")
    precision: Literal[tuple(RECIPES)] | None = None  # type: ignore[valid-type]
    kv_bytes: PositiveFloat | None = None
    imbalance: PositiveFloat | None = Field(None, description="rows of the busiest expert rank over the mean")
    zipf: float | None = Field(None, ge=0, description="exponent of the experts' loads, in place of imbalance")
    expert_copies: int | None = Field(None, ge=0, description="experts that a balancer holds twice or more often")
    reserve_bytes: float | None = Field(None, ge=0)


class DraftsFile(Section):
    """Tokens that a small model proposes, and how many hold."""

    method: Literal["mtp", "eagle", "model"] = "mtp"
    tokens: PositiveInt = 1
    acceptance: float | list[float] = Field(
        description="chance that a draft holds if those before it do, or for each the share of the steps in which it holds"
    )
    model: str | None = Field(None, description="what drafts, of method: model")


class StepFile(Section):
    """One rung of a ladder: what changes from the rung above."""

    name: str
    model: str | None = None
    exchange: ExchangeFile | None = None


class RunFile(Section):
    """The run from start to end."""

    tokens: Annotated[float, BeforeValidator(quantity("count"))] = Field(description="of the whole run: 15.6T")
    unit_mtbf_h: PositiveFloat | None = Field(
        None, description="accelerator-hours between interruptions [default: the catalogue's]"
    )
    restart_s: Seconds | None = Field(None, description="from an interruption to the next step [default: 10min]")
    checkpoint_Bps: Annotated[float, BeforeValidator(quantity("bandwidth"))] | None = Field(
        None, description="rate at which the whole job writes [default: the catalogue's]"
    )
    overlapped: float | None = Field(None, ge=0, le=1, description="share of writing that hides behind training")
    usd_per_hour: PositiveFloat | None = Field(None, description="of an accelerator [default: owned]")


class TrainFile(Section):
    """One training run."""

    name: str = "scenario"
    note: str = ""
    model: str
    cluster: str | dict[str, Any]
    pool: str | None = Field(None, description="the pool of a cluster that has several")
    accelerators: PositiveInt | None = Field(None, description="in place of the cluster's own count")
    workload: TrainWorkloadFile = TrainWorkloadFile()
    software: SoftwareFile = SoftwareFile()
    strategy: TrainStrategyFile = TrainStrategyFile()
    run: RunFile | None = Field(None, description="the whole run: days, accelerator-hours, energy, dollars")


class PoolsFile(Section):
    """Which pool of the cluster does what."""

    prefill: str
    decode: str


class StrategiesFile(Section):
    """The splits of the two pools."""

    prefill: ServeStrategyFile = ServeStrategyFile()
    decode: ServeStrategyFile = ServeStrategyFile()


class LoadFile(Section):
    """What an engine is asked: clients that each wait for their answer, or requests at a rate."""

    clients: PositiveInt | None = Field(None, description="closed loop: each sends again when it is answered")
    requests_per_s: PositiveFloat | None = Field(None, description="open loop: requests arrive at random at this rate")
    requests: PositiveInt | None = Field(None, description="requests of the run; default: 10 for each client, or 500")


class SettingsFile(Section):
    """What an operator sets of an engine; what is left out is as a published launch script that fits, or the engine, has it."""

    tokens: PositiveInt | None = Field(None, description="token budget of a step, of each attention group")
    sequences: PositiveInt | None = Field(None, description="most sequences at once, of each attention group")
    memory: float | None = Field(
        None, gt=0, le=1, description="for weights and cache; trtllm: of the rest, for the cache"
    )
    mixed: bool | None = Field(None, description="whether prompts are fed beside decoding sequences")
    graphs: int | None = Field(None, ge=0, description="most sequences of a captured CUDA graph; 0: no graphs")

    @property
    def given(self) -> dict[str, Any]:
        """What is set."""
        return self.model_dump(exclude_none=True)


class SpreadFile(Section):
    """Lengths or times that vary, as a lognormal."""

    median: PositiveFloat
    p90: PositiveFloat | None = Field(None, description="nine tenths are at most so large [default: none varies]")
    most: PositiveFloat | None = Field(None, description="what is larger is cut to it")


class SpreadSecondsFile(SpreadFile):
    """Times that vary: 60s, 10min, or seconds."""

    median: Seconds
    p90: Seconds | None = None
    most: Seconds | None = None


class TierFile(Section):
    """A memory that holds caches."""

    memory: str = Field(description="a name of `podscale list memories`")
    devices: PositiveInt | None = Field(
        None, description="how many there are of a device [default: one per accelerator]"
    )
    capacity: Annotated[float, BeforeValidator(quantity("bytes"))] | None = Field(
        None, description="of one of them [default: the catalogue's]"
    )


class ReuseFile(Section):
    """What prompts have in common, and the memories that hold it until it is asked for again."""

    shared: int = Field(0, ge=0, description="tokens at the head of every prompt")
    history: int = Field(0, ge=0, description="tokens that the session's last visit left behind")
    returns: float = Field(
        ge=0, le=1, description="share of the requests that follow one of their session: 1 - 1/turns"
    )
    revisit: SpreadSecondsFile | list[Seconds] = Field(description="from the end of a visit to the next")
    tiers: list[str | TierFile] = Field([], description="memories beyond HBM, the fastest first")
    layerwise: bool = Field(False, description="whether a layer is computed while the next one's cache comes in")


class StartFile(Section):
    """Where a replica's weights come from when it starts."""

    source: str = Field(description="peers, or a name of `podscale list memories`")
    devices: PositiveInt | None = Field(
        None, description="how many there are of a device [default: one per accelerator]"
    )
    donors: PositiveInt = Field(1, description="replicas that run and send, where the source is peers")
    network: bool = Field(False, description="whether the source lies across the network")
    before_s: Annotated[float, BeforeValidator(quantity("seconds"))] = Field(
        0.0, description="starting the process, building graphs: as you measured it"
    )


class ServeFile(Section):
    """One serving deployment: of one phase, or, with `pools`, of prefill and decode on two pools of one cluster.

    With an `engine` both phases run on the same accelerators, under a load.
    """

    name: str = "scenario"
    note: str = ""
    engine: Literal["none", "vllm", "sglang", "trtllm"] = "none"
    calibration: str | None = Field(None, description="what podscale calibrate serving wrote of your own load test")
    load: LoadFile = LoadFile()
    settings: SettingsFile = SettingsFile()
    phase: Literal["prefill", "decode"] = "decode"
    model: str
    cluster: str | dict[str, Any]
    pool: str | None = Field(None, description="the pool of a cluster that has several")
    pools: PoolsFile | None = Field(None, description="the pool that prefills and the one that decodes")
    accelerators: PositiveInt | None = None
    workload: ServeWorkloadFile = ServeWorkloadFile()
    strategy: ServeStrategyFile = ServeStrategyFile()
    strategies: StrategiesFile | None = Field(None, description="the splits of both pools")
    exchange: ExchangeFile = ExchangeFile()
    drafts: DraftsFile | None = Field(None, description="speculative decoding")
    ladder: list[StepFile] = Field([], description="assumptions changed one after the other, each step kept")
    reuse: ReuseFile | None = Field(None, description="prompts that come back, and where their caches wait")
    cold_start: StartFile | None = Field(None, description="from nothing to the first token")


class AnswersFile(Section):
    """What one step of reinforcement learning trains on."""

    prompts: PositiveInt
    samples: PositiveInt = Field(1, description="answers to each prompt, which share its cache")
    prompt_tokens: PositiveInt = 1024
    lengths: SpreadFile | list[PositiveFloat] = Field(description="tokens of an answer")


class RolloutFile(Section):
    """The engines that write answers."""

    engine: Literal["vllm", "sglang", "trtllm"] = "vllm"
    accelerators: PositiveInt | None = Field(None, description="of the pool; the others train [default: the best]")
    tp: PositiveInt = 1
    ep: PositiveInt = 1
    precision: Literal[tuple(RECIPES)] = "bf16"  # type: ignore[valid-type]
    refill: bool = Field(True, description="whether new weights make caches worthless: they are computed again")
    update_s: Seconds | None = Field(
        None, description="a weight update as measured [default: a broadcast over the graph]"
    )


class TrainerFile(Section):
    """The trainer."""

    strategy: TrainStrategyFile = TrainStrategyFile()
    software: SoftwareFile = SoftwareFile()
    precision: Literal[tuple(RECIPES)] = "bf16"  # type: ignore[valid-type]
    minibatches: PositiveInt = Field(1, description="optimizer steps in which a batch is used up")
    forwards: int = Field(1, ge=0, description="forward passes beforehand: old log-probabilities, a reference model")
    reward_s: float = Field(0.0, ge=0, description="what judging answers adds that nothing hides")


class RlFile(Section):
    """Reinforcement learning: engines, a trainer, and weights that go round."""

    name: str = "scenario"
    note: str = ""
    model: str
    cluster: str | dict[str, Any]
    accelerators: PositiveInt | None = Field(None, description="in place of the cluster's own count")
    staleness: int = Field(1, ge=0, description="versions that an answer may lag behind; 0 is synchronous")
    steps: PositiveInt | None = Field(None, description="of the whole run, to be told in hours")
    answers: AnswersFile
    rollout: RolloutFile = RolloutFile()
    trainer: TrainerFile = TrainerFile()


def check(schema: type[T], data: Mapping[str, Any], file: str) -> T:
    """Return the checked file, or raise one `SpecError` with every fault: field path, value, remedy."""
    try:
        return schema.model_validate(dict(data))
    except ValidationError as error:
        raise SpecError([_fault(schema, item, file) for item in error.errors()]) from None


def load_faults(scenario: ServeFile, file: str) -> list[Fault]:
    """Return what is wrong between `engine`, `load` and the fields of one phase."""
    load, given, faults = scenario.load, scenario.model_fields_set, []
    if scenario.engine == "none":
        remedy = "write engine: vllm, sglang or trtllm, or leave it out"
        names = [name for name in ("load", "calibration") if name in given]
        return [Fault(name, None, "is of an engine, and none is named", remedy, file) for name in names]
    if (load.clients is None) == (load.requests_per_s is None):
        faults.append(Fault("load", None, "wants one of clients and requests_per_s", "write load: {clients: 64}", file))
    beside = ("phase", "pools", "strategies", "ladder", "exchange")
    return faults + [
        Fault(name, None, "is of a single phase, and an engine runs both", "leave it out, or leave out engine", file)
        for name in beside
        if name in given
    ]


def reuse_faults(scenario: ServeFile, file: str) -> list[Fault]:
    """Return what is wrong between `reuse`, `cold_start` and what is priced."""
    faults = []
    if scenario.cold_start and scenario.cold_start.source != "peers":
        faults += _memory_faults("cold_start.source", scenario.cold_start.source, file)
    if not scenario.reuse:
        return faults
    if scenario.engine == "none" and not scenario.pools and scenario.phase == "decode":
        remedy = "write phase: prefill, pools or engine"
        faults.append(Fault("reuse", None, "is of prompts, and only answers are priced", remedy, file))
    if scenario.ladder:
        faults.append(Fault("ladder", None, "stands beside reuse", "leave out one", file))
    for place, tier in enumerate(scenario.reuse.tiers):
        name = tier if isinstance(tier, str) else tier.memory
        faults += _memory_faults(f"reuse.tiers.{place}", name, file)
    return faults


def _memory_faults(field: str, name: str, file: str) -> list[Fault]:
    """Return what is wrong with the name of a memory beyond the accelerator's own."""
    from clusters.memories import memory

    try:
        kind = memory(name).kind
    except SpecError as error:
        return [Fault(field, name, one.problem, one.remedy, file) for one in error.faults]
    return [Fault(field, name, "is the accelerator's own memory", "name one beyond it", file)] if kind == "hbm" else []


def pool_faults(scenario: ServeFile, file: str) -> list[Fault]:
    """Return what is wrong between `pools` and the fields of one deployment."""
    if scenario.pools is None:
        problem, remedy = "belong to two pools", "write pools: {prefill: old, decode: new}, or strategy"
        return [Fault("strategies", None, problem, remedy, file)] if scenario.strategies else []
    given = scenario.model_fields_set
    faults = [Fault(f, None, "stands beside pools", remedy, file) for f, remedy in BESIDE_POOLS.items() if f in given]
    if scenario.pools.prefill == scenario.pools.decode:
        remedy = "name another; for one phase on one pool write pool and phase"
        faults.append(Fault("pools.decode", scenario.pools.decode, "prefills already", remedy, file))
    return faults


def _fault(schema: type[BaseModel], item: Any, file: str) -> Fault:
    place = [str(part) for part in item["loc"]]
    field, kind = ".".join(place), item["type"]
    if kind == "extra_forbidden":
        known = _fields(schema, place[:-1])
        near = get_close_matches(place[-1], known, 1)
        remedy = f"did you mean {near[0]}" if near else f"choose from {', '.join(known)}"
        return Fault(field, item["input"], "no such field", remedy, file)
    if kind == "missing":
        return Fault(field, None, "is missing", "add it", file)
    said = str(item["msg"])
    return Fault(field, item["input"], said[0].lower() + said[1:], "correct the value", file)


def _fields(schema: type[BaseModel], place: list[str]) -> list[str]:
    """Field names of the section at a path."""
    current: Any = schema
    for part in place:
        info = getattr(current, "model_fields", {}).get(part)
        found = info.annotation if info is not None else current
        options = [a for a in (found, *getattr(found, "__args__", ())) if hasattr(a, "model_fields")]
        current = options[0] if options else current
    return list(current.model_fields)
