"""Wire 64 accelerators in two ways, read the tiers off each graph, and price one all-reduce on both.

The wires are a blueprint of `topo`; the tiers come from its cuts and shortest paths, none are typed in; the prices are
the closed forms of `collectives`. The links are ideal (`IDEAL`: no software, full rate), so every figure can be checked
by hand: a ring moves 2·(n-1)/n of the bytes past the slowest cut, in 2·(n-1) steps.
"""

from collectives.algorithms import ALGORITHMS, NCCL, best
from collectives.bounds import lower_bound
from collectives.groups import members
from collectives.path import IDEAL, Hop, Path
from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.graphs import expand
from topo.tiers import Tier, tiers

RANKS = 64
SIZES = {"1 MiB": 2**20, "1 GiB": 2**30}
NVLINK_BPS, NIC_BPS = 900e9, 50e9  # per accelerator and direction: NVLink 5, one 400 Gb/s NIC


def wirings() -> dict[str, Blueprint]:
    """Return the same accelerators and NICs, in eight domains of 8 and in one domain of 64."""
    nic = ScaleOut(NIC_BPS, "ib-ndr")
    return {
        f"{domains} x {size}": cluster_blueprint(
            f"{domains}x{size}", domains, ScaleUp(size, NVLINK_BPS, 0.6e-6, "nvlink5"), nic if domains > 1 else None
        )
        for domains, size in ((8, 8), (1, 64))
    }


def road(found: tuple[Tier, ...]) -> Path:
    """Return the tiers as a collective sees them, on ideal links."""
    return tuple(Hop(t.bandwidth_Bps, t.latency_s, IDEAL, t.plane, t.in_network_reduction) for t in found)


def main() -> None:
    for name, blueprint in wirings().items():
        graph, found = expand(blueprint), tiers(blueprint)
        print(f"{name}: {graph.number_of_nodes()} nodes, {graph.number_of_edges()} links")
        for tier in found:
            print(
                f"  {tier.name:<8} {tier.plane:<10} {tier.size:>3} accelerators  {tier.bandwidth_Bps / 1e9:>4.0f} GB/s"
                f"  {tier.latency_s * 1e6:.1f} us  {tier.hops} hops"
            )
        path, group = road(found), members(RANKS, 1, tuple(tier.size for tier in found))
        for label, size_bytes in SIZES.items():
            print(f"  all-reduce of {label} over {RANKS} ranks")
            for algorithm in NCCL["all_reduce"]:
                seconds = ALGORITHMS["all_reduce"][algorithm].fn(size_bytes, group, path)
                print(f"    {algorithm:<5} {float(seconds) * 1e6:>7.1f} us")
            _, winner, names = best("all_reduce", size_bytes, group, path, among=NCCL["all_reduce"])
            bound_us = float(lower_bound("all_reduce", size_bytes, group, path)) * 1e6
            print(f"    fastest: {names[int(winner)]}; no algorithm beats {bound_us:.1f} us on these wires")


if __name__ == "__main__":
    main()
