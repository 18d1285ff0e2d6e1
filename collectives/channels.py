"""Rings side by side: as many as a block has members, so that each member's own port carries one across its border."""

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError


def ring_orders(ranks: int, inner: int) -> npt.NDArray[np.int64]:
    """Return the orders in which the channels of a ring visit the ranks.

    A single ring leaves a block of `inner` ranks through one port. Channel c goes through even blocks from c upwards,
    round to c - 1, and through odd ones back, so that it enters a block by the port of the rank by which it left the
    one before: on a rail-optimised fabric it stays on its rail (NCCL_CROSS_NIC = 2 alternates in this way). Each of
    the channels carries 1/inner of the bytes.

    Returns
    -------
    ndarray
        Ranks in order of visit, shape (channels, ranks); one channel where a block holds all ranks, or one.

    Raises
    ------
    SpecError
        When the blocks do not divide the ranks.

    Examples
    --------
    >>> ring_orders(8, 4)
    array([[0, 1, 2, 3, 7, 6, 5, 4],
           [1, 2, 3, 0, 4, 7, 6, 5],
           [2, 3, 0, 1, 5, 4, 7, 6],
           [3, 0, 1, 2, 6, 5, 4, 7]])
    >>> ring_orders(3, 3), ring_orders(3, 1)
    (array([[0, 1, 2]]), array([[0, 1, 2]]))
    """
    if inner < 1 or ranks % inner:
        raise SpecError([Fault("inner", inner, f"does not divide the {ranks} ranks", "take whole blocks")])
    if inner in (1, ranks):
        return np.arange(ranks)[None]
    channel, step = np.arange(inner)[:, None], np.arange(inner)[None]
    there = (channel + step) % inner
    back = there[:, ::-1]
    blocks = [block * inner + (back if block % 2 else there) for block in range(ranks // inner)]
    return np.concatenate(blocks, axis=1)
