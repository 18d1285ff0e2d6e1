"""The kernel of an expert-parallel exchange: what its multiprocessors, its counters and its host take beside the wire."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from collectives.path import LinkModel, Path
from collectives.span import Span
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

Copies = Literal["expert", "rank", "node"]
"""Which copies of a row leave its rank: a key of `collectives.moe.COPIES`."""


@dataclass(frozen=True, slots=True)
class ExchangeModel(LinkModel):
    """Constants of one exchange kernel on one kind of link: those of a `LinkModel`, and what its processors take.

    Those of the outermost link that the group spans count: another kernel runs between nodes than inside one.

    Parameters
    ----------
    expert_s
        Seconds per expert behind the link: a counter for each is sent and waited for.
    peers_s
        Seconds of waiting for the ranks behind the link while rows move, times their share of the group.
    token_s
        Seconds of one multiprocessor per token.
    byte_s
        Seconds of one multiprocessor per byte that it copies.
    row_byte_s
        Seconds per byte of a row that the first row takes through its queue; however few rows there are.
    host_s
        Seconds in which the host issues the kernels; an exchange that is faster waits for it.

    Raises
    ------
    SpecError
        If a constant is negative or not finite.

    Examples
    --------
    >>> ExchangeModel(base_s=5e-6, step_s=0.0, efficiency=0.8, token_s=2e-6).token_s
    2e-06
    """

    expert_s: float = 0.0
    peers_s: float = 0.0
    token_s: float = 0.0
    byte_s: float = 0.0
    row_byte_s: float = 0.0
    host_s: float = 0.0

    def __post_init__(self) -> None:
        LinkModel.__post_init__(self)
        values = {name: getattr(self, name) for name in WORK}
        faults = [
            Fault(f"ExchangeModel.{name}", value, "must be a finite number that is not negative", "write 0 for no cost")
            for name, value in values.items()
            if not 0 <= value < np.inf
        ]
        if faults:
            raise SpecError(faults)


WORK = ("expert_s", "peers_s", "token_s", "byte_s", "row_byte_s", "host_s")
"""What an `ExchangeModel` has beside the constants of a `LinkModel`."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What an exchange kernel does.

    Parameters
    ----------
    copies
        Which copies of a row leave: a key of `COPIES`.
    per_expert
        Whether it runs one group of warps for each expert, on as many multiprocessors as that fills; else on all that
        it is given.
    lent
        Multiprocessors that it is given where nobody says otherwise; 0 for all of the part's.
    in_turn
        Whether its own work follows the transfer (rows are added or spread once they have come), else runs beside it.
    """

    copies: Copies
    per_expert: bool = False
    lent: int = 0
    in_turn: bool = False


def at_work(kernel: Kernel, experts: ColumnLike, multiprocessors: ColumnLike) -> Column:
    """Return how many of its multiprocessors a kernel keeps busy: all, or E/⌈E/M⌉ with a group of warps per expert.

    Source: deepseek-ai/DeepEP, csrc/kernels/internode_ll.cu (num_warp_groups, num_sms).

    Examples
    --------
    256 experts share 132 multiprocessors two by two, 8 keep 8 busy:

    >>> at_work(Kernel("expert", per_expert=True), [256, 8], 132)
    array([128.,   8.])
    """
    experts, given = column(experts), column(multiprocessors)
    return column(experts / np.ceil(experts / given)) if kernel.per_expert else given


def busiest(rows: ColumnLike, chance: ColumnLike, receivers: ColumnLike) -> Column:
    """Return the rows of the busiest of n receivers over their mean, where tokens choose receivers at random.

    1 + c·√((1 - p)/rows), the largest of n normal variables of the binomial's width: c = s - (ln ln n + ln 4π)/(2s) with
    s = √(2 ln n). Source: Cramér 1946, Mathematical Methods of Statistics, §28.6.

    Parameters
    ----------
    rows
        Mean rows per receiver.
    chance
        p, the chance that a token goes to a given receiver (1 and more: every token does).
    receivers
        n, how many receivers there are.

    Examples
    --------
    128 tokens on each of 64 ranks, 8 copies each: a rank gets 1,024 rows, the busiest 6 % more.

    >>> print(f"{busiest(1024, 8 / 64, 64):.3f}")
    1.064
    """
    spread = np.sqrt(np.maximum(1 - column(chance), 0.0) / np.maximum(column(rows), 1.0))
    chances = np.log(np.maximum(column(receivers), 2.0))
    s = np.sqrt(2 * chances)
    return column(1 + np.maximum(s - (np.log(chances) + np.log(4 * np.pi)) / (2 * s), 0.0) * spread)


@dataclass(frozen=True, slots=True)
class Load:
    """What a kernel has to do, as columns.

    `copies` of a row leave for the outermost spanned plane, each to one of `receivers`, drawn at random; `behind` is the
    share of the ranks there; `workers` multiprocessors move `sent_bytes` per copy, and after the transfer if `in_turn`.
    """

    tokens: Column
    row_bytes: Column
    sent_bytes: Column
    copies: Column
    receivers: Column
    experts: Column
    behind: Column
    workers: Column
    in_turn: bool


def is_kernel(path: Path) -> bool:
    """Whether the hops of a path hold a kernel's constants."""
    return any(isinstance(hop.model, ExchangeModel) for hop in path)


def kernel_s(group: Span, path: Path, load: Load, moved_s: Column, steps_s: Column) -> tuple[Column, Column, Column]:
    """Return the seconds of a kernel's own work, its latency, and the total; none of a group of one.

    w = T/workers·(token + r·copies·byte); m = `busiest` · max(moved, w), of the sum if the work comes in turn;
    latency = base + steps + r·row_byte + E·behind·expert; total = max(latency + √(m² + (behind·peers)²), host).
    """
    base, expert, peers, token, byte, row_byte, host = _of_outermost(group, _constants(path))
    apart = group.size > 1
    work = apart * (load.tokens * token + load.sent_bytes * load.copies * byte) / load.workers
    latency = apart * (base + steps_s + row_byte * load.row_bytes + expert * load.experts * load.behind)
    moved = moved_s + work if load.in_turn else np.maximum(moved_s, work)
    moved = moved * busiest(load.tokens * load.copies, load.copies / load.receivers, group.size)
    if peers.any():
        moved = np.sqrt(moved**2 + (peers * load.behind) ** 2)
    return work, latency, np.maximum(latency + moved, apart * host)


@lru_cache(maxsize=1024)
def _constants(path: Path) -> tuple[tuple[float, ...], ...]:
    """Return the base and the constants in `WORK`, each of every tier; a plain model has no work."""
    models = [hop.model for hop in path]
    return tuple(tuple(float(getattr(model, name, 0.0)) for model in models) for name in ("base_s", *WORK))


def _of_outermost(group: Span, constants: tuple[tuple[float, ...], ...]) -> list[Column]:
    """Return each constant of the outermost tier that the group spans; of the innermost for a group of one."""
    outermost = group.spanned.shape[0] - 1 - np.argmax(group.spanned[::-1], axis=0)
    outermost = np.where(group.spanned.any(axis=0), outermost, 0)
    return [column(tiers[0]) if len(set(tiers)) == 1 else np.array(tiers)[outermost] for tiers in constants]
