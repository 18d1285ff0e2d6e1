"""Rows and experts of the busiest rank when tokens choose their experts, and what a tile's whole rows cost.

Even routing is even only on average. A pass of T tokens, k of E experts each, on R ranks of ``n = E/R`` experts waits for
the rank that has most: of rows where arithmetic counts, of experts hit where their weights do. Three things part it from
the mean:

* Chance. With p the chance that a token chooses an expert, p₂ that it chooses two of one rank and p₂' two of different
  ranks, counts of ranks differ by ``V − C = n·a₁ + n·(n − 1)·a₂ − n²·a₂'`` (variance less covariance): with T times p, p₂, p₂'
  for rows, and the chances that nobody chooses them, to the power of T, for experts hit.
* Expert groups (DeepSeek-V3 2412.19437 §2.1.2), which send the rows of a token to fewer ranks.
* Popularity. Prompts of one kind like some experts better. Chances are taken as gamma distributed with coefficient of
  variation c, so that T tokens leave an expert idle with ``(1 − p)·((1 + c²·T·y)/(1 + c²·y))^(−1/c²)``, ``y = −ln(1 − p)``: the
  zero class of the negative binomial, with k experts for the first token. Ranks that hold what their numbers give them
  differ by ``c/√n`` of the mean.
"""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from parallel.shapes import Moe
from topo.columns import Column, ColumnLike, column

LOGIT = 1.702
"""Slope that makes the logistic curve the normal distribution's, to 0.01 (Camilli 1994, J. Educ. Behav. Stat. 19(3))."""


@lru_cache(maxsize=1024)
def _largest(count: float) -> float:
    return NormalDist().inv_cdf((max(count, 1.0) - 0.375) / (max(count, 1.0) + 0.25))


def largest(count: ColumnLike) -> Column:
    """Return the mean of the largest of so many standard normal variables, ``Φ⁻¹((n − 0.375)/(n + 0.25))``.

    Source: Blom 1958, Statistical Estimates and Transformed Beta-Variables, §6.9. Tables have 0, 1.03, 1.42 and 2.34:

    >>> largest([1, 4, 8, 64]).round(2)
    array([0.  , 1.05, 1.43, 2.34])
    """
    counts = column(count)
    known = {each: _largest(each) for each in set(counts.ravel().tolist())}
    return column(np.array([known[each] for each in counts.ravel().tolist()]).reshape(counts.shape))


@dataclass(frozen=True, slots=True)
class Chances:
    """Chances that a token chooses an expert, two experts of one rank, two of different ranks; n experts per rank."""

    one: Column
    same: Column
    apart: Column
    local: Column


def chances(moe: Moe, ranks: ColumnLike) -> Chances:
    """Return the chances of a router without favourites over so many ranks, which may hold copies in slots left over.

    In g groups of which t are open, two experts of a group are chosen with ``(t/g)·k(k − 1)/(M(M − 1))``, M = t·E/g.

    Two of eight experts; either pair of the 56 is chosen with a chance of 2/(8·7):

    >>> found = chances(Moe(experts=8, topk=2, intermediate=1), 4)
    >>> float(found.one), float((found.same * 56).round(9)), float((found.apart * 56).round(9))
    (0.25, 2.0, 2.0)
    """
    ranks = column(ranks)
    n = column(np.ceil(moe.experts / ranks))
    slots, k = column(n * ranks), float(moe.topk)
    reach = slots * moe.topk_groups / moe.groups
    together = k * (k - 1.0) / np.maximum(reach * (reach - 1.0), 1.0) * moe.topk_groups / moe.groups
    divided = together * (moe.topk_groups - 1.0) / max(moe.groups - 1.0, 1.0)
    mates = np.minimum((slots / moe.groups - 1.0) / np.maximum(n - 1.0, 1.0), 1.0)
    same = mates * together + (1.0 - mates) * divided
    apart = (k * (k - 1.0) - slots * (n - 1.0) * same) / np.maximum(slots * (slots - n), 1.0)
    return Chances(k / slots, column(same), column(np.maximum(apart, 0.0)), n)


def _spread(at: Chances, one: Column, same: Column, apart: Column) -> Column:
    """Variance of a rank's count less its covariance with another's."""
    n = at.local
    return np.maximum(n * one + n * (n - 1.0) * same - n * n * apart, 0.0)


def gamma_at(z: ColumnLike, narrow: ColumnLike) -> Column:
    """Return a gamma variable of mean 1 at a quantile of the normal one, ``(1 − c²/9 + z·c/3)³``, c its width.

    A cube of normal variables is nearly gamma, Poisson counts included. Source: Wilson and Hilferty 1931, PNAS 17(12).

    >>> gamma_at([0.0, 3.0], 1.0).round(2)
    array([0.7 , 6.74])
    """
    c = column(narrow)
    return column(np.maximum(1.0 - c**2 / 9.0 + column(z) * c / 3.0, 0.0) ** 3)


def most(mean: ColumnLike, spread: ColumnLike, ranks: ColumnLike) -> Column:
    """Return the mean of the largest of so many gamma variables, ``μ·gamma_at(z, √spread/μ)``, z as of `largest`.

    Of eight exponential variables of mean 1 it is 1 + 1/2 + … + 1/8 = 2.72.

    >>> most([1, 5], [1, 0], 8).round(2)
    array([2.55, 5.  ])
    """
    mu = np.maximum(column(mean), 1e-300)
    top = np.maximum(gamma_at(largest(ranks), np.sqrt(column(spread)) / mu), 1.0)
    return np.where(column(ranks) > 1, mu * top, mu)


def busiest_rows(moe: Moe, tokens: ColumnLike, ranks: ColumnLike, skew: ColumnLike = 0.0) -> Column:
    """Return the rows of the busiest rank, of the tokens of all ranks; `skew` is c where ranks are not balanced.

    A hundred tokens go to one of two experts: the busier has 0.59·√50 more than fifty.

    >>> float(busiest_rows(Moe(experts=2, topk=1, intermediate=1), 100, 2).round())
    54.0
    """
    t, ranks, at = column(tokens), column(ranks), chances(moe, ranks)
    mean = t * moe.topk / ranks
    spread = _spread(at, t * at.one, t * at.same, t * at.apart) + (column(skew) * mean) ** 2 / at.local
    return most(mean, spread, ranks)


def busiest_hit(moe: Moe, tokens: ColumnLike, ranks: ColumnLike, skew: float = 0.0) -> Column:
    """Return the experts that get a token on the rank where most do; all of a rank's at most. `skew` is c of the experts.

    Eight of 256 experts on eight ranks, one expert a rank on average: the busiest has 2.5, and with many tokens all 32.

    >>> busiest_hit(Moe(experts=256, topk=8, intermediate=1), [1, 1000], 8).round(1)
    array([ 2.5, 32. ])
    """
    t, at = column(tokens), chances(moe, ranks)
    even, both, across = (
        t * np.log1p(-np.minimum(chance, 1.0 - 1e-12))
        for chance in (at.one, 2.0 * at.one - at.same, 2.0 * at.one - at.apart)
    )
    idle = even
    if skew:
        first = np.log1p(-np.minimum(at.one, 1.0 - 1e-12))
        idle = first - (np.log1p(-(skew**2) * even) - np.log1p(-(skew**2) * first)) / skew**2
    rarer = 2.0 * (idle - even)
    pairs = (np.exp(np.minimum(two + rarer, idle)) for two in (both, across))  # two are idle no more often than one
    spread = _spread(at, np.exp(idle), *pairs)
    return np.minimum(most(-at.local * np.expm1(idle), spread, ranks), at.local)


def tiles(rows: ColumnLike, tile: ColumnLike) -> Column:
    """Return how many tiles cover a random count of rows on average, ``E⌈X/tile⌉``, of X with mean and variance `rows`.

    The sum over j of the chance that X exceeds j tiles, one tile at least; far above a tile rows/tile + ½.

    128 rows on average are more than one tile of 128 half of the time:

    >>> tiles([8, 128, 12800], 128).round(1)
    array([  1. ,   1.5, 100.5])
    """
    m, size = column(rows), column(tile)
    first = np.maximum(np.floor(m / size), 2.0) - 1.0
    beyond = [(first + step) * size - m for step in range(4)]
    over = [1.0 / (1.0 + np.exp(np.minimum(LOGIT * each / np.sqrt(np.maximum(m, 1.0)), 500.0))) for each in beyond]
    return column(first + np.sum(over, axis=0))
