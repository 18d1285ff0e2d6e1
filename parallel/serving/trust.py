"""How far an engine's answer may be trusted: zero-shot, calibrated to the engine's version, or to one point.

`podscale calibrate serving` (`parallel.calibration.serving_own`) writes what a load test moved: constants of the engine,
or, where it has too few runs for these, one factor on the time per token and one on the first. A serving scenario names
the file as `calibration`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from parallel.io import read_yaml
from parallel.serving.engines import Engine, engine
from parallel.serving.queueing import Served
from topo.errors import Fault, SpecError

LEVELS: Final[Mapping[str, str]] = {
    "zero-shot": "hardware facts and the engine class's constants; no run of this installation was seen",
    "engine-version calibrated": "the engine's constants were fitted to runs of this installation",
    "one-point calibrated": "measured over predicted of one or two runs multiplies both times",
}
"""Level -> what stands behind it."""

FITTED: Final = ("launch", "prefill", "offset_s")
"""Constants of an engine that a load test moves."""
SECTION: Final = "serving"


@dataclass(frozen=True, slots=True)
class Trust:
    """What stands behind an answer.

    Attributes
    ----------
    engine : with the constants to use
    level : one of `LEVELS`
    rows : runs behind a calibration
    tpot, ttft : factors on the times of an answer, 1 but for `one-point calibrated`
    measured_at : the deployments of those runs, a mapping of model, accelerator, precision and split each
    """

    engine: Engine
    level: str = "zero-shot"
    rows: int = 0
    tpot: float = 1.0
    ttft: float = 1.0
    measured_at: tuple[Mapping[str, Any], ...] = ()

    def applied(self, served: Served, *, closed: bool) -> Served:
        """Return the times of a run as calibrated; clients that wait for their answer send the slower, the later it comes.

        >>> times = Served(np.array([1.0]), np.array([0.1]), np.array([2.0]), 2.0, 1, False)
        >>> base = replace(engine("vllm"), offset_s=0.0)
        >>> told = Trust(base, tpot=2.0).applied(times, closed=True)
        >>> told.tpot_s.tolist(), told.e2e_s.tolist(), told.seconds
        ([0.2], [3.0], 3.0)
        """
        if self.tpot == self.ttft == 1.0:
            return served
        offset = self.engine.offset_s / 2.0  # what is on the way back; that to the queue is in the times
        first = np.maximum(self.ttft * (served.ttft_s + offset) - offset, 0.0)
        whole = first + self.tpot * (served.e2e_s - served.ttft_s)
        longer = float(np.mean(whole + offset) / np.mean(served.e2e_s + offset)) if closed else 1.0
        return replace(
            served, ttft_s=first, tpot_s=self.tpot * served.tpot_s, e2e_s=whole, seconds=served.seconds * longer
        )

    def told(self, zero_shot: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return it for the answer, beside the times without the calibration."""
        return {
            "level": self.level,
            "said": LEVELS[self.level],
            "runs": self.rows,
            "constants": {name: getattr(self.engine, name) for name in FITTED},
            "factors": {"tpot": self.tpot, "ttft": self.ttft},
            "zero_shot": dict(zero_shot) if zero_shot else None,
        }

    def warnings(self, deployment: Mapping[str, Any]) -> list[str]:
        """Say so where a point was measured on another deployment: its factors hold for its own."""
        if self.level != "one-point calibrated" or deployment in self.measured_at:
            return []
        held = "; ".join(worded(one) for one in self.measured_at)
        return [f"one-point calibrated on {held}, and asked of {worded(deployment)}: factors seldom carry over"]


def worded(deployment: Mapping[str, Any]) -> str:
    """Write a deployment.

    >>> worded({"model": "llama-3.1-70b", "accelerator": "h200-sxm", "precision": "fp8", "tp": 4, "attention_dp": 1})
    'llama-3.1-70b h200-sxm fp8 tp 4'
    """
    split = [f"{name} {value:g}" for name, value in deployment.items() if isinstance(value, int | float) and value > 1]
    return " ".join([*(str(value) for value in deployment.values() if isinstance(value, str)), *split])


def trusted(name: str, calibration: Path | None = None) -> Trust:
    """Return what stands behind an engine: its class, or what a calibration file holds.

    Raises
    ------
    SpecError
        The file cannot be read, is no calibration of serving, or is one of another engine: every fault.

    >>> trusted("vllm").level
    'zero-shot'
    """
    base = engine(name)
    if calibration is None:
        return Trust(base)
    held = read_yaml(calibration).get(SECTION)
    file = str(calibration)
    if not isinstance(held, Mapping):
        remedy = "name a file that podscale calibrate serving wrote"
        raise SpecError([Fault("calibration", SECTION, "is missing: no such section", remedy, file)])
    faults = []
    if held.get("engine") != base.name:
        remedy = f"name a calibration of {base.name}, or write engine: {held.get('engine')}"
        faults.append(Fault("calibration", held.get("engine"), f"is of another engine than {base.name}", remedy, file))
    if held.get("level") not in LEVELS:
        faults.append(Fault("level", held.get("level"), "is none", f"write one of {', '.join(LEVELS)}", file))
    positive = {**held.get("constants", {}), **held.get("factors", {})}
    faults += [
        Fault(key, value, "is not a positive number", "calibrate again", file)
        for key, value in positive.items()
        if not isinstance(value, int | float) or value <= 0
    ]
    if faults:
        raise SpecError(faults)
    constants = {key: float(value) for key, value in held.get("constants", {}).items() if key in FITTED}
    bands = {key: (float(low), float(high)) for key, (low, high) in held.get("bands", {}).items()}
    kept = tuple((key, *bands.pop(key, (low, high))) for key, low, high in base.bands)
    return Trust(
        replace(base, **constants, bands=kept),  # type: ignore[arg-type]
        str(held["level"]),
        int(held.get("rows", 0)),
        **{key: float(value) for key, value in held.get("factors", {}).items() if key in ("tpot", "ttft")},
        measured_at=tuple(held.get("deployments", ())),
    )
