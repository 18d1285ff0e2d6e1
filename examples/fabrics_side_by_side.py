"""Wire 512 accelerators in six ways and read off each graph what a ring and what an all-to-all can get.

Every figure is a cut or a flow on the graph: `gather` is the minimum cut round one accelerator (what an all-gather or a
ring is bounded by), `all-to-all` the best uniform exchange that any routing could carry, `halves` the bandwidth between
the two halves. A torus and a switch of the same links tie in the first and part in the second; oversubscription and a
slow rail show where they bite.
"""

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.concurrent import all_to_all_Bps
from topo.direct import FullMesh, Torus
from topo.domains import ScaleUp
from topo.survey import summary

LINK_BPS, NIC_BPS = 100e9, 50e9  # per direction: one of an accelerator's six links, and one 400 Gb/s NIC


def fabrics() -> dict[str, Blueprint]:
    """Return the wirings, none of which has more than six links and one NIC per accelerator."""
    box = ScaleUp(8, 6 * LINK_BPS, 0.6e-6, "copper", switches=2)
    rails = cluster_blueprint("rails", 64, box, ScaleOut(NIC_BPS, "fibre", levels=2))
    tapered = cluster_blueprint("tapered", 64, box, ScaleOut(NIC_BPS, "fibre", levels=2, oversubscription=4.0))
    mesh = FullMesh(8, 6 * LINK_BPS, 0.6e-6, "copper")
    return {
        "one switched domain": cluster_blueprint("one", 1, ScaleUp(512, 6 * LINK_BPS, 1e-6, "copper"), None),
        "torus 8x8x8": cluster_blueprint("torus", 1, Torus((8, 8, 8), LINK_BPS, 1e-6, "copper"), None),
        "64 switched boxes": rails,
        "  4:1 above the leaf": tapered,
        "  rail 3 at half its rate": degrade(rails, "nic", {"rail": 3}, to="leaf", factor=0.5),
        "  without one box": without(rails, {"unit": 1, "domain": 0}),
        "64 fully meshed boxes": cluster_blueprint("meshed", 64, mesh, ScaleOut(NIC_BPS, "fibre", levels=2)),
    }


def main() -> None:
    print(f"{'wiring':<26} {'GPUs':>4} {'gather':>9} {'all-to-all':>10} {'halves':>9} {'hops':>5} {'cables':>7}")
    print(f"{'':<26} {'':>4} {'GB/s each':>9} {'GB/s each':>10} {'GB/s each':>9} {'most':>5}")
    for name, blueprint in fabrics().items():
        facts = summary(blueprint)
        slowest_Bps = min(tier["bandwidth_Bps"] for tier in facts["tiers"])
        exchange_Bps = all_to_all_Bps(blueprint).bandwidth_Bps
        halves_Bps = facts["bisection_Bps"] / (facts["accelerators"] / 2)
        cables = facts["parts"].get("copper", 0) + facts["parts"].get("fibre", 0)
        print(
            f"{name:<26} {facts['accelerators']:>4} {slowest_Bps / 1e9:>9.1f} {exchange_Bps / 1e9:>10.1f} "
            f"{halves_Bps / 1e9:>9.1f} {facts['diameter_hops']:>5} {cables:>7,}"
        )


if __name__ == "__main__":
    main()
