"""The most that everybody can send to everybody at once: maximum concurrent multicommodity flow as a linear program.

One commodity per source (destinations of one source need not be told apart), many like sources in one commodity:

    minimise λ   subject to   inflow_k(v) - outflow_k(v) = demand_k(v)   for each commodity k and node v but its source
                              Σ_k many_k · flow_k(c) <= λ · capacity(c)  for each class c of arcs

With demands for one byte/s between each two ends, 1/λ bytes/s fit. Splitting traffic over paths is free. Shahrokhi and
Matula, "The maximum concurrent flow problem", J. ACM 37 (1990); the aggregation is that of Basu et al., "Efficient
all-to-all collective communication schedules for direct-connect topologies" (HPDC 2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FREE = -1
"""Class of arcs without a limit."""

_TIGHT = 1e-7
"""Share of the limit from which a class of links counts as holding the rate down."""


@dataclass(frozen=True)
class Limit:
    """Links of one class, both directions, that hold a rate down.

    `a` and `b` name their ends, `link` and `plane` are the link's. `weight` is the share of the limit that is theirs:
    by 1 % more bandwidth of all of them the rate grows by `weight` %, as long as nothing else becomes as tight (where
    several classes are full at once the weights are one choice of several). All weights add up to 1.
    """

    a: str
    b: str
    link: str
    plane: str
    weight: float


@dataclass(frozen=True)
class Rate:
    """How fast every accelerator can send to every other at the same time.

    Attributes
    ----------
    bandwidth_Bps
        Bytes/s that each accelerator sends, over all its destinations.
    accelerators
        How many take part.
    limits
        What holds it down, the heaviest first; () where no linear program was solved.
    commodities, variables, rows
        Size of the linear program: sources that are told apart, flows, constraints.
    exact
        Whether no routing does better and some routing does as well (to about 1e-9 of the rate). If not, the rate is
        an upper bound.
    """

    bandwidth_Bps: float
    accelerators: int
    limits: tuple[Limit, ...] = ()
    commodities: int = 0
    variables: int = 0
    rows: int = 0
    exact: bool = False


@dataclass(frozen=True)
class Commodity:
    """What `many` like sources send, as the flow of one of them.

    Attributes
    ----------
    many
        How many sources it stands for.
    source
        The node that sends.
    tail, head, kind
        Of each arc: its ends, and the class whose capacity it uses (`FREE`: none), shape (arcs,).
    demand
        What each node takes out, for one byte/s between any two ends, shape (nodes,); the source's is not read.
    """

    many: float
    source: int
    tail: Ints
    head: Ints
    kind: Ints
    demand: Floats

    def balance(self) -> Any:
        """Return inflow minus outflow of each node as a sparse matrix, without the row of the source."""
        from scipy.sparse import csr_array

        arcs = np.arange(len(self.tail))
        signs = np.repeat([1.0, -1.0], len(arcs))
        rows, columns = np.concatenate([self.head, self.tail]), np.concatenate([arcs, arcs])
        whole: Any = csr_array((signs, (rows, columns)), shape=(len(self.demand), len(arcs)))
        return whole[np.arange(len(self.demand)) != self.source]


@dataclass(frozen=True)
class Solution:
    """Bytes/s between each two ends, and how much of the limit is due to each class of arcs (adding up to 1)."""

    pair_Bps: float
    weight: Floats
    variables: int
    rows: int


def concurrent(commodities: Sequence[Commodity], capacity_Bps: Floats) -> Solution:
    """Return the most bytes/s that fit between each two ends at once.

    Solved by HiGHS: interior point and crossover to a vertex, feasible to 1e-7 of the traffic of one pair; the dual
    simplex method (slower where there are many commodities) takes over if that fails. Where an end cannot be reached the
    rate is 0.

    Parameters
    ----------
    commodities
        What is sent, with demands for one byte/s between each two ends.
    capacity_Bps
        Of each class of arcs, all of it together, shape (classes,).

    Examples
    --------
    Two accelerators, one link of 50 bytes/s each way:

    >>> one_way = [Commodity(1, s, np.array([s]), np.array([1 - s]), np.array([s]), np.ones(2)) for s in (0, 1)]
    >>> concurrent(one_way, np.array([50.0, 50.0])).pair_Bps
    50.0
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_diag, csr_array, hstack

    if not len(capacity_Bps):
        return Solution(0.0, capacity_Bps, 0, 0)
    sent = [k.many * (k.demand.sum() - k.demand[k.source]) for k in commodities]
    unit = math.fsum(sent) / capacity_Bps.sum()  # λ with every arc full and every path one arc
    kind = np.concatenate([k.kind for k in commodities])
    many = np.concatenate([np.full(len(k.kind), k.many) for k in commodities])
    used = np.flatnonzero(kind != FREE)
    load = csr_array(
        (many[used] / (capacity_Bps[kind[used]] * unit), (kind[used], used)), shape=(len(capacity_Bps), len(kind))
    )
    balance = block_diag([k.balance() for k in commodities], format="csr")
    demand = np.concatenate([np.delete(k.demand, k.source) for k in commodities])
    solve: Any = linprog  # SciPy's types know dense matrices only
    for method in ("highs-ipm", "highs-ds"):
        found = solve(
            np.append(np.zeros(len(kind)), 1.0),
            A_ub=hstack([load, csr_array(np.full((len(capacity_Bps), 1), -1.0))], format="csr"),
            b_ub=np.zeros(len(capacity_Bps)),
            A_eq=hstack([balance, csr_array((balance.shape[0], 1))], format="csr"),
            b_eq=demand,
            method=method,
        )
        if found.status in (0, 2):
            break
    size = len(kind) + 1, len(capacity_Bps) + balance.shape[0]
    if found.status == 2:  # no flow reaches every end
        return Solution(0.0, np.zeros(len(capacity_Bps)), *size)
    if found.status != 0:
        raise ArithmeticError(f"the linear program of {size[0]} variables was not solved: {found.message}")
    return Solution(float(1 / (found.fun * unit)), -found.ineqlin.marginals, *size)


def limits(weight: Floats, ends: Sequence[tuple[str, str, str, str]]) -> tuple[Limit, ...]:
    """Return what holds a rate down, both directions together; `ends` has a, b, link and plane of each class."""
    total: dict[tuple[str, str, str, str], float] = {}
    for share, (a, b, link, plane) in zip(weight.tolist(), ends, strict=True):
        key = (*((a, b) if (b, a, link, plane) not in total else (b, a)), link, plane)
        total[key] = total.get(key, 0.0) + share
    tight = sorted(((share, key) for key, share in total.items() if share > _TIGHT), key=lambda pair: -pair[0])
    return tuple(Limit(*key, weight=share) for share, key in tight)
