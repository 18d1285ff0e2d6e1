"""A whole run: tokens become days, accelerator-hours, energy and dollars, what interruptions and checkpoints take included.

    goodput = 1 / ((1 + δ/τ) · (1 + (τ/2 + R) / M))       share of the time that makes progress
    τ = √(2·δ·M)                                          best interval between checkpoints (Young 1974, Daly 2006)

with δ the seconds of a checkpoint that the run waits for, M the mean time between interruptions of the whole job, R the
seconds from an interruption to the next step.
"""

from dataclasses import asdict, dataclass
from math import inf, sqrt
from typing import Any

from clusters.build import Cluster
from clusters.economics import economics
from parallel.economics import HOUR_S, hour_usd, power_of
from topo.errors import Fault, SpecError

DAY_S = 24 * HOUR_S
RESTART_S = 600.0
"""From an interruption to the next step: detection, a spare, restart, reading the checkpoint. An assumption, an input."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is trained from start to end.

    Attributes
    ----------
    tokens : tokens of the whole run
    unit_mtbf_h : accelerator-hours between interruptions; None: the catalogue's (`economics.operations`)
    restart_s : seconds from an interruption to the next step
    checkpoint_Bps : rate at which the whole job writes; None: the catalogue's
    overlapped : share of a checkpoint's writing that hides behind training
    usd_per_hour : price of an accelerator-hour; None: owned, by the catalogue
    """

    tokens: float
    unit_mtbf_h: float | None = None
    restart_s: float = RESTART_S
    checkpoint_Bps: float | None = None
    overlapped: float = 0.0
    usd_per_hour: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a run, every fault at once."""
        given = asdict(self)
        faults = [
            Fault(f"run.{name}", given[name], "must be positive", "give a number above zero")
            for name in ("tokens", "unit_mtbf_h", "checkpoint_Bps", "usd_per_hour")
            if given[name] is not None and not given[name] > 0
        ]
        if self.restart_s < 0:
            faults.append(Fault("run.restart_s", self.restart_s, "is below zero", "give seconds"))
        if not 0.0 <= self.overlapped <= 1.0:
            faults.append(Fault("run.overlapped", self.overlapped, "is no share", "give a number from 0 to 1"))
        if faults:
            raise SpecError(faults)


def job_mtbf_s(unit_mtbf_h: float, accelerators: float) -> float:
    """Mean time between interruptions of a job that any of its accelerators interrupts: ``M = unit / n``.

    Llama 3 on 16,384 H100: 419 interruptions in 54 days (arXiv 2407.21783 §3.3.4).

    >>> round(job_mtbf_s(50_676, 16_384) / 3600, 2)
    3.09
    """
    return unit_mtbf_h * HOUR_S / accelerators


def checkpoint_interval_s(checkpoint_s: float, mtbf_s: float) -> float:
    """Interval between checkpoints that loses least: ``τ = √(2·δ·M)`` (Young 1974; Daly 2006).

    >>> checkpoint_interval_s(2.0, 10_000.0)
    200.0
    """
    return sqrt(2.0 * checkpoint_s * mtbf_s)


def goodput(checkpoint_s: float, interval_s: float, mtbf_s: float, restart_s: float) -> float:
    """Share of the time that makes progress: ``1 / ((1 + δ/τ)(1 + (τ/2 + R)/M))``.

    An interruption loses half an interval on average, and the restart.

    >>> goodput(0.0, 0.0, float("inf"), 600.0), round(goodput(2.0, 200.0, 10_000.0, 400.0), 3)
    (1.0, 0.943)
    """
    written = checkpoint_s / interval_s if interval_s else 0.0
    return 1.0 / ((1.0 + written) * (1.0 + (interval_s / 2.0 + restart_s) / mtbf_s))


def whole_run(
    run: Run, cluster: Cluster, step_s: float, tokens_per_step: float, used: float, state_bytes: float
) -> dict[str, Any]:
    """Return what a whole run takes.

    Parameters
    ----------
    step_s, tokens_per_step : of one step
    used : accelerators at work; those bought are paid for, and only those at work interrupt
    state_bytes : weights and optimizer of the whole model, written once per checkpoint

    Returns
    -------
    dict
        `steps`, `days`, `accelerator_hours`, `energy_J`, `cost_usd`, `goodput`, and what they rest on.
    """
    known = economics()["operations"]
    unit = run.unit_mtbf_h or float(known["interruption"].value)
    mtbf = job_mtbf_s(unit, used)
    written = state_bytes / (run.checkpoint_Bps or float(known["storage"].value)) * (1.0 - run.overlapped)
    interval = checkpoint_interval_s(written, mtbf)
    share = goodput(written, interval, mtbf, run.restart_s)
    steps = run.tokens / tokens_per_step
    seconds = steps * step_s / share
    hours = seconds / HOUR_S * cluster.accelerators
    price = run.usd_per_hour if run.usd_per_hour is not None else hour_usd(cluster.accelerator.name)
    return {
        "tokens": run.tokens,
        "steps": steps,
        "days": seconds / DAY_S,
        "accelerator_hours": hours,
        "energy_J": power_of(cluster.accelerator) * cluster.accelerators * seconds,
        "cost_usd": hours * price,
        "goodput": share,
        "interruptions": seconds / mtbf if mtbf < inf else 0.0,
        "mtbf_s": mtbf,
        "checkpoint_s": written,
        "checkpoint_interval_s": interval,
        "restart_s": run.restart_s,
        "usd_per_hour": price,
        "assumes": "interruptions strike any accelerator alike and stop the whole job; energy at rated power with host and "
        "cooling; price of owned accelerators unless given",
    }
