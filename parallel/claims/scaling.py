"""Scaling laws as published, and the model that is cheapest over its whole life at a given loss.

``L(N, D) = E + A/N^α + B/D^β`` (Hoffmann et al. 2203.15556, eq. 10). The cheapest life: Sardana et al., "Beyond
Chinchilla-Optimal" (2401.00448), with decoding at an efficiency of its own.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """Constants of a fit, and where they stand."""

    loss: float
    a: float
    alpha: float
    b: float
    beta: float
    source: str

    def of(self, parameters: ColumnLike, tokens: ColumnLike) -> Column:
        """Loss of a model of `parameters` trained on `tokens`."""
        return self.loss + self.a * column(parameters) ** -self.alpha + self.b * column(tokens) ** -self.beta

    def tokens_for(self, loss: float, parameters: ColumnLike) -> Column:
        """Tokens that bring a model to a loss; infinite where it is too small ever to get there."""
        left = loss - self.loss - self.a * column(parameters) ** -self.alpha
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(left > 0, (self.b / np.where(left > 0, left, 1.0)) ** (1.0 / self.beta), np.inf)


LAWS: Final = {
    "hoffmann-2022": ScalingLaw(1.69, 406.4, 0.34, 410.7, 0.28, "Hoffmann et al. 2203.15556, approach 3"),
    "besiroglu-2024": ScalingLaw(
        1.8172, 482.01, 0.3478, 2085.43, 0.3658, "Besiroglu et al. 2404.10102, its replication"
    ),
}


def law(name: str) -> ScalingLaw:
    """Return the fit of that name."""
    if name not in LAWS:
        raise SpecError([Fault("law", name, "is no scaling law", f"choose one of {', '.join(LAWS)}")])
    return LAWS[name]


def chinchilla_ratio(fit: ScalingLaw, flops: float) -> float:
    """Tokens per parameter that get the least loss from ``6·N·D`` FLOPs.

    >>> 15 < chinchilla_ratio(LAWS["besiroglu-2024"], 5.76e23) < 25
    True
    """
    sizes = np.geomspace(1e7, 1e14, 20_001)
    tokens = flops / 6.0 / sizes
    best = int(np.argmin(fit.of(sizes, tokens)))
    return float(tokens[best] / sizes[best])


def cheapest_life(
    fit: ScalingLaw, loss: float, inference_tokens: float, efficiency: float, training_factor: float
) -> tuple[float, float]:
    """Parameters and training tokens of the model of a loss that costs least over its life.

    ``min training_factor·N·D + 2·N·D_inf/e`` over the N and D of that loss; `training_factor` is 6 for pre-training alone
    and more with reinforcement learning on top.

    >>> fit = LAWS["besiroglu-2024"]
    >>> few = cheapest_life(fit, 2.0, 0.0, 1.0, 6.0)
    >>> many = cheapest_life(fit, 2.0, 1e15, 1.0, 6.0)
    >>> many[0] < few[0], many[1] > few[1]  # more traffic, a smaller model trained for longer
    (True, True)
    """
    sizes = np.geomspace(1e8, 1e14, 60_001)
    tokens = fit.tokens_for(loss, sizes)
    cost = training_factor * sizes * tokens + 2.0 * sizes * inference_tokens / efficiency
    best = int(np.argmin(cost))
    return float(sizes[best]), float(tokens[best])
