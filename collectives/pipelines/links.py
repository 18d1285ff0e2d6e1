"""From the links between devices to the hops between virtual stages."""

import numpy as np

from collectives.pipelines.nouns import Order
from topo.columns import Column, ColumnLike, column


def hops_s(order: Order, link_s: ColumnLike) -> Column:
    """Return `Costs.hop_s` from the time to cross each link d | d + 1 between neighbouring devices.

    A message between devices further apart (an interleaved schedule's way back to device 0) takes as long as the slowest
    link between them: it crosses a WAN once.

    Parameters
    ----------
    link_s
        (stages - 1, *columns), seconds per message.

    Examples
    --------
    Four stages, a slow link in the middle, two chunks: 0|1, 1|2, 2|3, back 3|0, and again.

    >>> from collectives.pipelines import SCHEDULES
    >>> print(hops_s(SCHEDULES["interleaved"].order(4, 8, 2), [1.0, 9.0, 1.0]))
    [1. 9. 1. 9. 1. 9. 1.]
    """
    links = column(link_s)
    ends = [(held[v], held[v + 1]) for held in order.device for v in range(order.virtuals - 1)]
    ends += [(order.device[0][-1], order.device[0][0])] if order.loop else []
    nothing = np.zeros((1, *links.shape[1:]))
    rows = [np.concatenate([links[min(a, b) : max(a, b)], nothing]).max(axis=0) for a, b in ends]
    return column(np.array(rows).reshape(len(ends), *links.shape[1:]))
