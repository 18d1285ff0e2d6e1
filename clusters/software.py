"""Training software: what an engine adds to the work on the chip, and what hours of training leave of its rates.

Constants belong to an engine class (early Megatron, Megatron-Core, PyTorch FSDP), to a part, a number format or a
generation; none belongs to a model, a run or a source. `data/training.yaml` holds them with their residuals, as
`parallel.calibration.training` writes them.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from clusters.catalogue import Accelerator, read_yaml

FILE: Final = Path(__file__).parent / "data" / "training.yaml"
STATIC_POWER: Final = 0.2
"""Share of a part's power limit that does not follow the clock: leakage, memory, links."""
MIDDLE: Final = "24.06"
"""Release of published runs that name none, and of engines whose releases are not told apart: the middle of their years."""
NEWEST: Final = "26.08"
"""Release that stands for software of which none is named: the newest that constants are fitted to."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One class of training software: five constants, and what it does by default.

    Attributes
    ----------
    kernel_host_s : host time per kernel launched [s]; it shows where the chip is faster than the host
    vector : bytes that memory-bound operations move, over those of the fused kernels that `parallel.operators` counts; 1 where
        PyTorch's compiler or fused modules spare them
    host_norm : how sharply a layer turns from the chip's time to the host's: the exponent of their norm
    yearly : share of a step that a year of releases saves, as an exponent
    boundary_s : time that a stage waits on the host at each end of a chunk of a pipeline, per micro-batch [s]
    attention : kernel of the attention core, a key of `attention` in the data file, or `unfused`
    tp_overlap : how tensor-parallel communication hides, a key of `parallel.training.layer.TP_OVERLAPS`
    dp_overlap : whether gradients are reduced behind the backward pass
    framework : what it keeps in memory, a key of `parallel.training.frameworks.FRAMEWORKS`
    stops_early : whether recomputing a layer ends at the last tensor that backward needs (`torch.utils.checkpoint`)
    fused_loss : whether softmax and loss are one kernel that leaves its gradient in place
    note : what it stands for
    """

    name: str
    kernel_host_s: float
    vector: float
    host_norm: float
    yearly: float
    boundary_s: float
    attention: str
    tp_overlap: str
    dp_overlap: bool
    framework: str
    stops_early: bool
    fused_loss: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class TrainingConstants:
    """Everything that is fitted to training runs, as tables.

    Attributes
    ----------
    engines : engine classes by name
    sustained : part or generation -> share of its microbenchmarked rate that BF16 products keep up in training
    formats : part, generation or family of them -> number format, or `narrow` for all others below BF16 -> the same of it, over
        BF16's; under BF16 itself, the part's over its family's
    attention : kernel -> generation -> share of the BF16 peak, forward, on long sequences
    shared : `attention_backward` (over forward), `attention_ramp` (tokens at which attention runs at half its rate),
        `grouped` (rate of an expert's product among others over that of the same product alone), `contention` (what a
        hidden gradient reduction takes from the compute it hides behind, over its own time), `overlapped` (host time of a layer
        whose exchange is overlapped, over that of the same layer otherwise), `step_s` (host time per step)
    """

    engines: Mapping[str, Engine]
    sustained: Mapping[str, float]
    formats: Mapping[str, dict[str, float]]
    attention: Mapping[str, Mapping[str, float]]
    shared: Mapping[str, float]

    def rate(self, part: Accelerator, fmt: str) -> float:
        """Return the share of its microbenchmarked rate that a part keeps up in training, in a number format.

        >>> from clusters.catalogue import accelerator
        >>> 0.5 < training_constants().rate(accelerator("h100-sxm"), "bf16") < 1.0
        True
        """
        own = next((name for name in (part.name, part.generation) if name in self.sustained), "default")
        shares: dict[str, float] = {}
        for each in kin(part):
            shares |= self.formats.get(each, {})
        return self.sustained[own] * shares.get(fmt, 1.0 if fmt == "bf16" else shares.get("narrow", 1.0))

    def attention_forward(self, kernel: str, generation: str) -> float:
        """Return the share of the BF16 peak that a fused attention kernel reaches forward on long sequences."""
        table = self.attention[kernel]
        return table.get(generation, table["default"])


def kin(part: Accelerator) -> tuple[str, str, str]:
    """Return what a table of constants may know a part by, the widest first: family of generations, generation, name.

    >>> from clusters.catalogue import accelerator
    >>> kin(accelerator("gb300"))
    ('blackwell', 'blackwell-ultra', 'gb300')
    """
    return part.generation.split("-")[0], part.generation, part.name


@lru_cache(maxsize=1)
def document() -> Mapping[str, Any]:
    """Return `data/training.yaml`: constants, what they were fitted to, and the constants of each left-out part."""
    held: Mapping[str, Any] = read_yaml(FILE.read_text("utf-8"))
    return held


@lru_cache(maxsize=1)
def training_constants() -> TrainingConstants:
    """Return the shipped constants."""
    return constants_from(document()["constants"])


def constants_from(tables: Mapping[str, Any]) -> TrainingConstants:
    """Return constants from tables in the form of the data file's `constants`."""
    engines = {name: Engine(name=name, **entry) for name, entry in tables["engines"].items()}
    return TrainingConstants(engines, tables["sustained"], tables["formats"], tables["attention"], tables["shared"])


@lru_cache(maxsize=1)
def engine_names() -> tuple[str, ...]:
    """Return the engine classes, the default first.

    >>> engine_names()
    ('megatron-core', 'early-megatron', 'fsdp')
    """
    return tuple(document()["constants"]["engines"])


def attention_kernels() -> tuple[str, ...]:
    """Return the fused attention kernels that have constants.

    >>> attention_kernels()
    ('fused', 'flash-1', 'flash-2')
    """
    return tuple(document()["constants"]["attention"])


def regime(engine: str, routed: bool) -> str:
    """Return whose residuals stand for a run: those of its engine class, with experts or without.

    >>> regime("fsdp", routed=False)
    'fsdp, dense'
    """
    return f"{engine}, {'experts' if routed else 'dense'}"


def interval(seconds: float, held: str, source: str = "all") -> tuple[float, float] | None:
    """Return the 90 % interval of a predicted step from the residuals of a regime; None where none was measured.

    `source` leaves the residuals of one source out; "all" takes every source's.
    """
    table = document().get("bands", {}).get(held)
    if table is None:
        return None
    low, high = table.get(source, table["all"])
    return seconds * low, seconds * high


def release_years(release: str) -> float:
    """Years of a release, as NVIDIA names them (year.month, and a patch), after `MIDDLE`.

    >>> release_years("25.06"), release_years("23.12.01")
    (1.0, -0.5)
    """
    year, month = (float(part) for part in release.split(".")[:2])
    middle_year, middle_month = (float(part) for part in MIDDLE.split("."))
    return year - middle_year + (month - middle_month) / 12.0


def capped_rate(power_W: float, limit_W: float) -> float:
    """Return the clock of a part whose power limit is below its usual one, over its usual clock.

    Dynamic power goes with the cube of the clock (frequency times the square of the voltage that it needs), the
    `STATIC_POWER` share with neither: ``((limit/power − s)/(1 − s))^(1/3)``, at most 1.

    Examples
    --------
    An H100 of 500 W instead of 700 W: ((0.714 − 0.2)/0.8)^(1/3).

    >>> round(capped_rate(700.0, 500.0), 3)
    0.863
    """
    dynamic = (limit_W / power_W - STATIC_POWER) / (1.0 - STATIC_POWER)
    return float(min(1.0, max(dynamic, 0.05) ** (1.0 / 3.0)))


def varied(tables: Mapping[str, Any], values: Mapping[str, float]) -> TrainingConstants:
    """Return constants with some values put in place of the tables', by their path in the file.

    >>> varied(document()["constants"], {"shared/grouped": 0.25}).shared["grouped"]
    0.25
    """
    copy: dict[str, Any] = deepcopy(dict(tables))
    for path, value in values.items():
        *places, last = path.split("/")
        table = copy
        for place in places:
            table = table[place]
        table[last] = value
    return constants_from(copy)
