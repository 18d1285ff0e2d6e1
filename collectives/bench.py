"""How fast schedules are priced on graphs on this machine."""

import time
from functools import partial

from collectives.ladder import Job, Network, network, price
from collectives.ladder.quotient import quotient_s
from collectives.schedule import schedule
from topo.bench import best_of, tree
from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.graphs import flat
from topo.wires import Indices

SIZE_BYTES = 2.0**28
PRICED = (("all_reduce", "ring"), ("all_to_all", "pairwise"))


def two_levels(accelerators: int) -> Blueprint:
    """Return boxes of eight with a NIC each, under leaves and spines that carry half of what the leaves let in."""
    up = ScaleUp(8, 450e9, 1e-6, "nvlink4", switches=4)
    out = ScaleOut(50e9, "ndr", radix=64 if accelerators <= 1024 else 128, levels=2, oversubscription=2.0)
    return cluster_blueprint("bench", accelerators // 8, up, out)


def _prepared(ranks: int) -> tuple[Network, Indices]:
    """Return the network between all accelerators, routes and pair classes found."""
    wires = flat(two_levels(ranks))
    net = network(wires, wires.accelerators)
    price(Job(schedule("all_gather", "ring", ranks, 1.0), wires.accelerators), net)
    return net, wires.accelerators


def bench(small: int = 512, large: int = 4096, largest: int = 100_000) -> dict[str, float]:
    """Return CPU seconds of stepwise prices: a ring all-reduce and a pairwise all-to-all, on graphs and on a quotient.

    A network and its pair classes are found once, and serve every price after: `pairs_512_s`, `pairs_4096_s`.
    """
    told: dict[str, float] = {}
    for name, ranks in (("512", small), ("4096", large)):
        start = time.process_time()
        net, places = _prepared(ranks)
        told[f"pairs_{name}_s"] = time.process_time() - start
        for op, algorithm in PRICED:
            job = Job(schedule(op, algorithm, ranks, SIZE_BYTES), places)
            told[f"stepwise_{op}_{name}_s"] = best_of(partial(price, job, net), 2)
    for op, algorithm in PRICED:
        told[f"quotient_{op}_100k_s"] = best_of(partial(quotient_s, op, algorithm, SIZE_BYTES, tree(largest)), 2)
    return told
