"""Times and lengths that vary: lognormal by the two percentiles that people know, or a list of values seen."""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError

Z90 = 1.2815515655446004
"""The 90th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution of positive values.

    Attributes
    ----------
    median, p90 : of a lognormal; equal where nothing varies
    most : values above are cut to it, as an engine ends answers at a longest length
    values : values seen, each as likely as any other, in place of a lognormal
    """

    median: float = 1.0
    p90: float = 1.0
    most: float = math.inf
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no distribution, every fault at once."""
        faults = [
            Fault(name, value, "must be positive", "give a number above zero")
            for name, value in (("median", self.median), ("most", self.most), *(("values", v) for v in self.values))
            if not value > 0
        ]
        if not self.p90 >= self.median:
            faults.append(Fault("p90", self.p90, f"is below the median of {self.median:g}", "give a larger one"))
        if faults:
            raise SpecError(faults)

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm: ``ln(p90/median) / 1.2816``."""
        return math.log(self.p90 / self.median) / Z90

    @property
    def mean(self) -> float:
        """The mean.

        >>> Spread(values=(1.0, 3.0)).mean, Spread(2.0, 2.0).mean
        (2.0, 2.0)
        """
        return self.mean_up_to(math.inf)

    def below(self, value: float) -> float:
        """Share of the values that are at most so large.

        >>> round(Spread(60.0, 600.0).below(60.0), 3), round(Spread(60.0, 600.0).below(600.0), 3)
        (0.5, 0.9)
        """
        if self.values:
            return float(np.mean(self._cut() <= value))
        if value >= self.most or value <= 0.0:
            return float(value > 0.0)
        return _normal(math.log(value / self.median) / self.sigma) if self.sigma else float(value >= self.median)

    def mean_up_to(self, limit: float) -> float:
        """Mean of the values, each cut to a limit: ``E[min(X, limit)]``.

        Of a lognormal ``e^(μ+σ²/2)·Φ((ln t − μ)/σ − σ) + t·(1 − Φ((ln t − μ)/σ))``.

        >>> Spread(values=(1.0, 3.0)).mean_up_to(2.0)
        1.5
        """
        limit = min(limit, self.most)
        if limit <= 0:
            return 0.0
        if self.values:
            return sum(min(seen, limit) for seen in self.values) / len(self.values)
        if not self.sigma:
            return min(self.median, limit)
        whole = self.median * math.exp(self.sigma**2 / 2.0)
        if math.isinf(limit):
            return whole
        z = math.log(limit / self.median) / self.sigma
        return whole * _normal(z - self.sigma) + limit * (1.0 - _normal(z))

    def draw(self, count: int, longest_of: int = 0) -> npt.NDArray[np.float64]:
        """Return `count` values in rising order, one from the middle of each equal part of the distribution.

        With `longest_of` the last one is the longest that so many draws have, at the median: ``0.5^(1/n)``.

        >>> Spread(values=(1.0, 2.0, 3.0, 4.0)).draw(2).tolist()
        [2.0, 4.0]
        """
        shares = (np.arange(count) + 0.5) / count
        if longest_of:
            shares[-1] = max(shares[-1], 0.5 ** (1.0 / longest_of))
        if self.values:
            seen = np.sort(self._cut())
            return np.asarray(seen[np.minimum((shares * len(seen)).astype(np.int64), len(seen) - 1)], dtype=np.float64)
        drawn = self.median * np.exp(self.sigma * _quantiles(tuple(shares.tolist())))
        return np.asarray(np.minimum(drawn, self.most), dtype=np.float64)

    def _cut(self) -> npt.NDArray[np.float64]:
        return np.asarray(np.minimum(np.array(self.values), self.most), dtype=np.float64)


def _normal(z: float) -> float:
    """Share of the standard normal distribution below z."""
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


@cache
def _quantiles(shares: tuple[float, ...]) -> npt.NDArray[np.float64]:
    from statistics import NormalDist

    normal = NormalDist()
    return np.array([normal.inv_cdf(share) for share in shares])
