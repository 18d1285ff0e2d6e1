"""The fidelity ladder: schedules of rounds priced on a real graph with real routes, each rung finer than the last.

=============  ==========================================================  ===================================
rung           what it plays                                               for
=============  ==========================================================  ===================================
`stepwise`     a barrier after every round; its busiest link counts        one collective (the default)
`dependency`   no barrier: the longest chain of messages                   unequal latencies, wide areas
`flow`         messages share links max-min fairly                         overlapping groups and jobs
`fifo`         pieces of messages queue at every link                      stragglers, degraded links, queues
=============  ==========================================================  ===================================

The first two price sums and copies in switches too (`collectives.ladder.reducers`).

The rung below them all, `closed`, needs no graph: `collectives.algorithms`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from collectives.ladder.fifo import fifo
from collectives.ladder.flow import flow
from collectives.ladder.jobs import Job, Price, Rung, check, placed
from collectives.ladder.network import Given, Network, network
from collectives.ladder.reducers import reducing
from collectives.ladder.stepwise import dependency, stepwise
from collectives.ladder.wire import Wire
from topo.errors import Fault, SpecError
from topo.relays import positions
from topo.routes import Routes
from topo.wires import Wires, wires

if TYPE_CHECKING:
    import numpy.typing as npt

    from topo.wires import AnyGraph

__all__ = ["FIDELITIES", "Job", "Network", "Price", "Wire", "network", "price"]

FIDELITIES: Final[Mapping[str, Rung]] = {
    "stepwise": stepwise,
    "dependency": dependency,
    "flow": flow,
    "fifo": fifo,
}
"""Rung → how it prices placed jobs on a network."""

ONE_PATH: Final = ("fifo",)
"""Rungs that send a message over one path: even spreading stands for hashing there."""


ADDING: Final = ("stepwise", "dependency")
"""Rungs that price sums in switches; in the others messages are on their own."""


def price(
    jobs: Job | Sequence[Job],
    graph: "AnyGraph | Wires | Routes | Network",
    fidelity: str = "stepwise",
    wire: Wire | None = None,
    given: Given | None = None,
    spread: Literal["even", "hash"] = "even",
    seed: int = 0,
    adders: "Sequence[Any] | npt.NDArray[np.integer[Any]] | None" = None,
) -> Price:
    """Return how long schedules take on a graph, alone or side by side.

    Parameters
    ----------
    jobs
        One or several: schedules, each with the nodes of its ranks and its start.
    graph
        A graph that follows `topo.schema`, its arrays or routes; or a `network`, made once for many prices (then
        what follows `wire` is not read).
    fidelity
        A key of `FIDELITIES`.
    wire
        What protocol and software add; by default nothing.
    given, spread, seed, adders
        Which routes messages take, and which switches can add: see `network`.

    Raises
    ------
    SpecError
        Naming an unknown rung, places that are no nodes or too few, pairs without a route, and reducing schedules on
        another rung than `ADDING` or without an adding switch over their ranks.

    Examples
    --------
    Two neighbours of a ring of four exchange 1 GB over links of 1 GB/s and 1 µs.

    >>> import networkx as nx
    >>> from collectives.schedule import Schedule, messages
    >>> g = nx.cycle_graph(4)
    >>> nx.set_node_attributes(g, "accelerator", "kind")
    >>> nx.set_edge_attributes(g, {e: {"bandwidth_Bps": 1e9, "latency_s": 1e-6} for e in g.edges})
    >>> swap = Schedule("send_recv", "direct", 2, 1e9, (messages([0, 1], [1, 0], 1e9),))
    >>> price(Job(swap, [0, 1]), g).seconds, price(Job(swap, [0, 2]), g, "fifo").busiest
    (1.000001, (0, 1))
    """
    listed = [jobs] if isinstance(jobs, Job) else list(jobs)
    if fidelity not in FIDELITIES:
        raise SpecError([Fault("fidelity", fidelity, "is no rung", f"choose one of {', '.join(FIDELITIES)}")])
    check(listed, "" if fidelity in ADDING else f"price it by {' or '.join(ADDING)}")
    if isinstance(graph, Network):
        net = graph
    else:
        w = graph.wires if isinstance(graph, Routes) else wires(graph)
        places = np.unique(np.concatenate([positions(w, job.places, "places") for job in listed]))
        net = network(graph, places, given, spread, seed, adders)
    if fidelity in ONE_PATH:
        net = net.single()
    return FIDELITIES[fidelity](*reducing(placed(listed, net), net), wire or Wire())
