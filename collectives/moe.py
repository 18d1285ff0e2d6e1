"""Expert-parallel exchange: token rows to the ranks that hold their experts (dispatch), or back (combine).

The n ranks of the group hold equal shares of the experts and every rank sends alike. Three rules say how many copies of
a row leave its rank: one per chosen expert, one per distinct rank, or one per distinct scale-up domain, which forwards
it inside. Sources: DeepEP README (low-latency kernels: one copy per expert; normal kernels: one per node, then NVLink);
DeepSeek-V3 report §3.2.2 (routing limited to 4 nodes).

Multiprocessors move the rows: they read, cast, copy and add. What theirs takes beside the wire is in
`collectives.moe_kernel`; where the hops hold plain `LinkModel`s, the wire alone is priced.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from collectives.moe_kernel import Copies, Load, is_kernel, kernel_s
from collectives.path import Path
from collectives.span import Span, base_s, slowest, span, transfer_s
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError


def expected_groups(experts: ColumnLike, groups: ColumnLike, topk: ColumnLike) -> Column:
    """Return the expected number of distinct groups that k distinct experts, chosen uniformly, fall into.

    E[G] = D·(1 - C(E - E/D, k)/C(E, k)), as the product over i < k of (E - E/D - i)/(E - i); D ≤ E groups hold experts.

    Parameters
    ----------
    experts, groups, topk
        Columns of whole numbers: E experts in all, D equal groups, k chosen per token (more than E count as E).

    Examples
    --------
    Eight of 256 experts on 8 nodes:

    >>> print(f"{expected_groups(256, 8, 8):.2f}")
    5.29
    """
    experts, groups, topk = column(experts), column(groups), column(topk)
    holders = np.minimum(groups, experts)
    elsewhere = experts - experts / holders
    missed = np.ones(np.broadcast_shapes(experts.shape, groups.shape, topk.shape))
    for drawn in range(int(topk.max(initial=0))):
        left = experts - drawn
        factor = np.maximum(elsewhere - drawn, 0.0) / np.maximum(left, 1.0)
        missed *= np.where((drawn < topk) & (left > 0), factor, 1.0)
    return column(holders * (1 - missed))


def _domains(group: Span) -> tuple[Column, Column]:
    """Return the members of a rank's own scale-up domain, and the number of such domains in the group."""
    tiers = group.rates.scale_up_tiers
    inside = group.members[tiers - 1] if tiers else np.ones_like(group.size)
    return inside, group.size / inside


def _limited(group: Span, experts: Column, topk: Column, node_limit: Column, per_rank: bool) -> Column:
    """Return the distinct ranks (or domains) that a token's experts hit, with routing limited to `node_limit` domains.

    A limit of M of N domains leaves E·M/N experts to choose from. The chosen domains own the top scores, so the domains
    hit are min(E[G], M) of the unlimited rule rather than the smaller E[G] within M.
    """
    inside, domains = _domains(group)
    if not per_rank:
        return np.minimum(expected_groups(experts, domains, topk), node_limit)
    share = np.minimum(node_limit / domains, 1.0)
    return expected_groups(experts * share, domains * share * inside, topk)


def _copies(group: Span, experts: Column, topk: Column, node_limit: Column) -> tuple[Column, Column, bool]:
    """One copy per chosen expert, whichever plane it takes."""
    del node_limit
    copies = np.broadcast_to(topk, np.broadcast_shapes(topk.shape, experts.shape, group.size.shape))
    return copies, copies, False


def _copies_per_rank(group: Span, experts: Column, topk: Column, node_limit: Column) -> tuple[Column, Column, bool]:
    """One copy per distinct rank, whichever plane it takes."""
    copies = _limited(group, experts, topk, node_limit, per_rank=True)
    return copies, copies, False


def _copies_per_node(group: Span, experts: Column, topk: Column, node_limit: Column) -> tuple[Column, Column, bool]:
    """One copy per distinct domain between domains; inside, one per distinct rank, forwarded rows included."""
    within = _limited(group, experts, topk, node_limit, per_rank=True)
    return within, _limited(group, experts, topk, node_limit, per_rank=False), True


COPIES: Mapping[str, Callable[[Span, Column, Column, Column], tuple[Column, Column, bool]]] = MappingProxyType(
    {"expert": _copies, "rank": _copies_per_rank, "node": _copies_per_node}
)
"""Copy rule → (copies on scale-up, copies on scale-out, whether domains forward) per token."""


def _leaving(group: Span, local_share: ColumnLike | Literal["members"]) -> Column:
    """Return the share of copies that leave the child block of each tier.

    Uniform: 1 - inner/n. With a stated local share x, the copies that stay below the outermost spanned tier o:
    1 - x·inner/inner_o, and nothing crosses a tier beyond o.
    """
    if isinstance(local_share, str):
        if local_share != "members":
            remedy = "write 'members' or a number from 0 to 1"
            raise SpecError([Fault("local_share", local_share, "is no rule", remedy)])
        return column(1 - group.inner / group.size)
    share = column(local_share)
    fine = (share >= 0) & (share <= 1)
    if not bool(fine.all()):
        wrong = float(share[~fine].flat[0])
        raise SpecError([Fault("local_share", wrong, "must lie in 0 to 1", "give the share of copies that stay")])
    below = np.where(group.spanned, group.inner, 1.0).max(axis=0)
    return column(np.where(group.inner < group.size, 1 - share * group.inner / below, 0.0))


def moe_exchange(
    tokens: ColumnLike,
    row_bytes: ColumnLike,
    topk: ColumnLike,
    experts: ColumnLike,
    members: ColumnLike,
    path: Path,
    copies: Copies = "expert",
    node_limit: ColumnLike | None = None,
    local_share: ColumnLike | Literal["members"] = "members",
    workers: ColumnLike = 1.0,
    in_turn: bool = False,
) -> dict[str, Column]:
    """Return the seconds of one dispatch (or one combine) over an expert group, plane by plane.

    On tier l a rank sends T·r·(copies)·(share of copies that cross it), at the tier's efficiency and bandwidth (on a
    direct network, what `Hop.exchange_shares` leaves the group of it):

    * scale-out: all that leaves the child block, through the rank's own NIC;
    * scale-up: what leaves the child block and stays in the domain. With copies="node" also the rows that arrived by
      NIC and go on inside: one copy per distinct rank, (domain - inner)/domain of them.

    The planes overlap, the tiers of one plane share its ports: total = latency + max(scale-up, scale-out).
    latency = base (largest of the spanned tiers') + one step and wire latency of the slowest spanned tier; with
    copies="node" one of each plane.

    Hops with an `ExchangeModel` add what the kernel does. Its w multiprocessors work T/w · (token + r·copies·byte)
    seconds, beside the planes, or after them if `in_turn`; the `busiest` rank decides; and what is moved hides, as the
    root of the sum of squares, behind `peers` times the share of the ranks behind the outermost plane. Latency grows by
    r·row_byte and by `expert` for every expert there, and the total is no shorter than `host`.

    Parameters
    ----------
    tokens
        T, tokens per rank.
    row_bytes
        r, bytes of one row on the wire: hidden size × bytes per value + scales.
    topk, experts
        Chosen experts per token; experts in the group, redundant ones included.
    members, path
        From `groups.members` for the expert group; one hop per tier.
    copies
        "expert", "rank" or "node": a key of `COPIES`.
    node_limit
        Most scale-up domains that the router may choose per token (no limit if not given). It lowers the copies of
        "rank" and "node".
    local_share
        "members": destinations are uniform over the ranks. Or the share of copies that stay below the outermost spanned
        tier; 0 sends every copy over that tier, as analytic limits do.
    workers, in_turn
        w, multiprocessors at work (see `at_work`), and whether their work follows the transfer.

    Returns
    -------
    dict
        Columns `scale_up_s`, `scale_out_s`, `work_s`, `latency_s`, `total_s`.

    Raises
    ------
    SpecError
        If `copies` is unknown, `local_share` is no share, or `members` does not fit the path.

    Examples
    --------
    One expert per device, 32 tokens, 9 copies of 7,000 B, 50 GB/s, all remote: 32 · 9 · 7000 / 50e9 s.

    >>> from collectives.path import IDEAL, Hop
    >>> path = (Hop(50e9, 0, IDEAL, plane="scale-out"),)
    >>> print(f"{moe_exchange(32, 7000, 9, 320, [320], path, local_share=0.0)['total_s'] * 1e6:.2f} us")
    40.32 us
    """
    if copies not in COPIES:
        raise SpecError([Fault("copies", copies, "is no copy rule", f"write one of {', '.join(COPIES)}")])
    experts, topk, limit = column(experts), column(topk), column(np.inf if node_limit is None else node_limit)
    rows = column(tokens) * column(row_bytes)
    shape = np.broadcast_shapes(rows.shape, experts.shape, topk.shape, limit.shape, _shape(local_share))
    sent, group = span(np.broadcast_to(rows, shape), members, path)
    constants, tiers = group.rates, group.rates.scale_up_tiers
    inside_copies, outside_copies, forwards = COPIES[copies](group, experts, topk, limit)

    leaving = _leaving(group, local_share)
    staying = leaving[:tiers] - leaving[tiers] if tiers < len(path) else leaving
    if forwards:
        domain, domains = _domains(group)
        staying = np.where(domains > 1, 1 - group.inner[:tiers] / domain, staying)
    shares = np.concatenate([staying * inside_copies, leaving[tiers:] * outside_copies])
    seconds = transfer_s(group, np.where(group.spanned, shares, 0.0) * sent, traffic="exchange")

    step_s = np.where(group.spanned, constants.step_s + constants.latency_s, 0.0)
    steps = _plane(step_s[:tiers]) + _plane(step_s[tiers:]) if forwards else slowest(step_s)
    latency = base_s(group) + steps
    scale_up, scale_out = _plane(seconds[:tiers]), _plane(seconds[tiers:])
    moved = np.maximum(scale_up, scale_out)
    work, total = np.zeros_like(moved), moved + latency
    if is_kernel(path):
        behind, leaves, receivers = leaving[0], inside_copies, group.size
        if tiers < len(path):
            crosses = leaving[tiers] > 0
            behind, leaves = np.where(crosses, leaving[tiers], behind), np.where(crosses, outside_copies, leaves)
            receivers = np.where(crosses, _domains(group)[1], receivers) if forwards else receivers
        load = Load(
            tokens=column(tokens),
            row_bytes=column(row_bytes),
            sent_bytes=sent,
            copies=leaves,
            receivers=receivers,
            experts=experts,
            behind=behind,
            workers=column(workers),
            in_turn=in_turn,
        )
        work, latency, total = kernel_s(group, path, load, moved, steps)
    return {
        "scale_up_s": scale_up,
        "scale_out_s": scale_out,
        "work_s": column(work),
        "latency_s": column(latency),
        "total_s": column(total),
    }


def _shape(local_share: ColumnLike | Literal["members"]) -> tuple[int, ...]:
    """Return the shape of a stated local share."""
    return () if isinstance(local_share, str) else np.shape(local_share)


def _plane(seconds: Column) -> Column:
    """Return the slowest tier of one plane, 0 where the path has none."""
    return column(seconds.max(axis=0, initial=0.0))
