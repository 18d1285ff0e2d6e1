"""Rings side by side: as many as a block has members, so that each member's own port carries one across its border.

In a full mesh every pair has a link of its own; there the rings are such that no two take the same one.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError

EIGHT: Final = ("07641235", "05746213", "04375261", "03271654", "06342517", "02473156", "01453672")
"""Seven rings that together take each of the 56 links of eight once. Other even counts have such rings, but for 4 and 6
(Tillson, J. Combin. Theory B 29, 1980), and no formula as short as that of `mesh_orders`."""


def ring_orders(ranks: int, inner: int, mesh: bool = False) -> npt.NDArray[np.int64]:
    """Return the orders in which the channels of a ring visit the ranks.

    A single ring leaves a block of `inner` ranks through one port. Channel c goes through even blocks from c upwards,
    round to c - 1, and through odd ones back, so that it enters a block by the port of the rank by which it left the
    one before: on a rail-optimised fabric it stays on its rail (NCCL_CROSS_NIC = 2 alternates in this way). Each of
    the channels carries an equal share of the bytes.

    In blocks that are full meshes (`mesh`) of even size, the channels zigzag: c, c + 1, c - 1, c + 2 ... whose
    differences are all unlike, so that every link is taken once. One block alone has the rings of `mesh_orders`.

    Returns
    -------
    ndarray
        Ranks in order of visit, shape (channels, ranks); one channel where a block without a mesh holds all ranks, or
        one.

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
    >>> ring_orders(8, 4, mesh=True)
    array([[0, 1, 3, 2, 6, 7, 5, 4],
           [1, 2, 0, 3, 7, 4, 6, 5],
           [2, 3, 1, 0, 4, 5, 7, 6],
           [3, 0, 2, 1, 5, 6, 4, 7]])
    """
    if inner < 1 or ranks % inner:
        raise SpecError([Fault("inner", inner, f"does not divide the {ranks} ranks", "take whole blocks")])
    if mesh and inner == ranks:
        return mesh_orders(ranks)
    if inner in (1, ranks):
        return np.arange(ranks)[None]
    channel = np.arange(inner)[:, None]
    if mesh and inner % 2 == 0:
        there = (channel + zigzag(inner)) % inner
        back = (there + inner // 2) % inner
    else:
        there = (channel + np.arange(inner)) % inner
        back = there[:, ::-1]
    blocks = [block * inner + (back if block % 2 else there) for block in range(ranks // inner)]
    return np.concatenate(blocks, axis=1)


def mesh_orders(ranks: int) -> npt.NDArray[np.int64]:
    """Return rings through a full mesh of which no two take the same link in the same direction.

    The last rank is a hub, the others lie on a circle, and ring i goes from the hub zigzag over the circle from i
    (Walecki; Lucas, Recreations mathematiques II, 1883), once this way and once back: an odd number of ranks has
    ``ranks - 1`` such rings, which take every link; an even one has ``ranks - 2``, and eight ranks the seven of `EIGHT`.

    Returns
    -------
    ndarray
        Ranks in order of visit, shape (channels, ranks).

    Examples
    --------
    >>> mesh_orders(5)
    array([[4, 0, 1, 3, 2],
           [4, 1, 2, 0, 3],
           [2, 3, 1, 0, 4],
           [3, 0, 2, 1, 4]])
    >>> len(mesh_orders(8)), len(mesh_orders(6)), len(mesh_orders(2))
    (7, 4, 1)
    """
    if ranks < 3:
        return np.arange(ranks)[None]
    if ranks == len(EIGHT[0]):
        return np.array([[int(rank) for rank in ring] for ring in EIGHT])
    circle = ranks - 1
    start = np.arange(circle // 2)[:, None]
    there = np.hstack([np.full_like(start, circle), (start + zigzag(circle)) % circle])
    return np.concatenate([there, there[:, ::-1]])


def zigzag(many: int) -> npt.NDArray[np.int64]:
    """Return 0, 1, -1, 2, -2 ... round a circle: so many places, each once.

    >>> zigzag(6)
    array([0, 1, 5, 2, 4, 3])
    """
    step = np.arange(1, many + 1) // 2
    return np.where(np.arange(many) % 2, step, -step) % many
