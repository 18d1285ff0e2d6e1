"""The road a collective takes: one `Hop` per tier, innermost first, each with the constants of its `LinkModel`.

The price of an operation that takes `steps` steps and puts V bytes per rank on a tier of bandwidth B is

    t = base_s + steps · (step_s + latency_s) + V / (efficiency · B) + √(ramp_s · V / B)

`base_s` (launch, rendezvous) is paid once per collective: the largest base of the tiers that the group spans, which is
the outermost one's in practice. Steps and bytes are counted tier by tier by each algorithm.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from topo.errors import Fault, SpecError

PLANES = ("scale-up", "scale-out")


def _non_negative(owner: str, **values: float) -> list[Fault]:
    """Return a fault for each value that is negative, infinite or not a number."""
    return [
        Fault(f"{owner}.{name}", value, "must be a finite number that is not negative", "write 0 for no cost")
        for name, value in values.items()
        if not (math.isfinite(value) and value >= 0)
    ]


def _share(owner: str, **values: float) -> list[Fault]:
    """Return a fault for each value outside (0, 1]."""
    return [
        Fault(f"{owner}.{name}", value, "must lie in (0, 1]", "write 1 for no loss")
        for name, value in values.items()
        if not 0 < value <= 1
    ]


@dataclass(frozen=True, slots=True)
class LinkModel:
    """Four constants that turn steps and bytes into seconds on one kind of link, for one operation and software regime.

    Parameters
    ----------
    base_s
        Seconds before the first byte moves, once per collective (kernel launch, rendezvous).
    step_s
        Seconds of software per step, on top of the wire latency.
    efficiency
        Share of the link bandwidth that large messages reach, in (0, 1].
    ramp_s
        Mid-size penalty: √(ramp_s · V / B) is added to the transfer of V bytes at B bytes/s.

    Raises
    ------
    SpecError
        If a constant is negative or not finite, or the efficiency lies outside (0, 1].

    Examples
    --------
    >>> LinkModel(base_s=5e-6, step_s=1e-6, efficiency=0.8)
    LinkModel(base_s=5e-06, step_s=1e-06, efficiency=0.8, ramp_s=0.0)
    """

    base_s: float
    step_s: float
    efficiency: float
    ramp_s: float = 0.0

    def __post_init__(self) -> None:
        faults = _non_negative("LinkModel", base_s=self.base_s, step_s=self.step_s, ramp_s=self.ramp_s)
        faults += _share("LinkModel", efficiency=self.efficiency)
        if faults:
            raise SpecError(faults)


IDEAL = LinkModel(base_s=0.0, step_s=0.0, efficiency=1.0)
"""A link that costs nothing but its wire: no overhead, all of the bandwidth."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One tier as an operation sees it.

    Parameters
    ----------
    bandwidth_Bps
        Bytes/s per accelerator and direction between the child blocks of the tier.
    latency_s
        Wire latency between two accelerators whose lightest path turns round at this tier.
    model
        The constants of the operation on the tier's links.
    plane
        `"scale-up"` or `"scale-out"`: hops of one plane share an accelerator's ports, the two planes have their own.
    in_network_reduction
        Whether the switches of the tier can add (NVLS, SHARP).
    reduction_efficiency
        Share of `model.efficiency` that a reduction inside the switches reaches, in (0, 1].

    Raises
    ------
    SpecError
        If the bandwidth is not positive, the latency negative, or the plane unknown.

    Examples
    --------
    >>> Hop(450e9, 1e-6, IDEAL).plane
    'scale-up'
    """

    bandwidth_Bps: float
    latency_s: float
    model: LinkModel
    plane: str = "scale-up"
    in_network_reduction: bool = False
    reduction_efficiency: float = 1.0

    def __post_init__(self) -> None:
        faults = _non_negative("Hop", latency_s=self.latency_s)
        faults += _share("Hop", reduction_efficiency=self.reduction_efficiency)
        if not (math.isfinite(self.bandwidth_Bps) and self.bandwidth_Bps > 0):
            faults.append(Fault("Hop.bandwidth_Bps", self.bandwidth_Bps, "must be positive", "write bytes per second"))
        if self.plane not in PLANES:
            faults.append(Fault("Hop.plane", self.plane, "is no plane", f"write one of {', '.join(PLANES)}"))
        if faults:
            raise SpecError(faults)


Path: TypeAlias = tuple[Hop, ...]
"""The tiers of a cluster as one operation sees them, innermost first."""
