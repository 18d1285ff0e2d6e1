"""Scale-out fabrics: published designs by their counts, and every option against the graph that it draws."""

from collections import Counter
from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.fattree import mesh_links
from topo.graphs import expand
from topo.orbits import quotient
from topo.ports import Ports, port_faults, ports
from topo.schema import validate
from topo.tiers import tiers

GB = 1e9
HGX = ScaleUp(8, 450 * GB, 1e-6, "nvlink4", switches=4)
ALONE = ScaleUp(1, 0.0, 0.0, "")


def _switches(bp: Blueprint) -> dict[str, int]:
    return {
        node.name: bp.population(node.axes)
        for node in bp.nodes
        if node.kind == "switch" and node.part != "scale-up-switch"
    }


def _cables(bp: Blueprint) -> dict[str, int]:
    """Cables from nodes of one class to the next ones, each cable once."""
    graph = quotient(bp)
    classes = {name: held["node_class"] for name, held in graph.nodes(data=True)}
    found: Counter[str] = Counter()
    for u, v, held in graph.edges(data=True):
        if held["plane"] == "scale-out" and held["link"]:
            found["-".join(sorted((classes[u], classes[v])))] += held["links"]
    return {pair: ends // 2 for pair, ends in found.items()}


def _rates(bp: Blueprint) -> dict[str, float]:
    return {tier.name: tier.bandwidth_Bps for tier in tiers(bp)}


# --- published designs -----------------------------------------------------------------------------------------------

B200 = ScaleOut(50 * GB, "ndr")
"""NDR: 64 ports of 400 Gb/s."""

B300 = ScaleOut(100 * GB, "roce", levels=2, planes=2, radix=128)
"""Spectrum-4: 64 ports of 800 Gb/s, which are 128 of a NIC's two ports of 400."""

B300_XDR = ScaleOut(100 * GB, "xdr", levels=2, radix=144)
"""Quantum-X800: 144 ports of 800 Gb/s."""

H100 = ScaleOut(50 * GB, "ndr", levels=2)


@pytest.mark.parametrize(
    ("out", "systems", "leaf", "spine", "core"),
    [
        # NVIDIA DGX SuperPOD B200 reference architecture, "Larger DGX SuperPOD component counts". 64 systems fit one
        # leaf per rail, so that two levels must be asked for.
        (replace(B200, levels=2), 64, 16, 8, 0),
        (B200, 128, 32, 16, 0),
        (B200, 256, 64, 32, 0),
        (B200, 512, 128, 128, 64),
        (B200, 1024, 256, 256, 128),
        (B200, 2048, 512, 512, 256),
        # NVIDIA DGX SuperPOD B300 (Ethernet) reference architecture, table 3.
        (B300, 64, 16, 8, 0),
        (B300, 128, 32, 16, 0),
        (B300, 256, 64, 32, 0),
        (B300, 512, 128, 64, 0),
        (B300, 1024, 256, 128, 0),
        # NVIDIA DGX SuperPOD B300 XDR reference architecture, table 3: 18 spines and not 16 for 32 leaves.
        (B300_XDR, 72, 8, 4, 0),
        (B300_XDR, 144, 16, 8, 0),
        (B300_XDR, 288, 32, 18, 0),
        (B300_XDR, 576, 64, 36, 0),
        (B300_XDR, 1296, 144, 72, 0),
        # NVIDIA DGX SuperPOD H100 reference architecture (RA-11333-001): one place of the last unit is kept free.
        (H100, 31, 8, 4, 0),
        (H100, 63, 16, 8, 0),
        (H100, 95, 24, 16, 0),
        (H100, 127, 32, 16, 0),
    ],
)
def test_switches_of_published_superpods(out: ScaleOut, systems: int, leaf: int, spine: int, core: int) -> None:
    bp = cluster_blueprint("superpod", systems, HGX, out)
    assert _switches(bp) == {name: n for name, n in (("leaf", leaf), ("spine", spine), ("core", core)) if n}
    assert _rates(bp)[tiers(bp)[-1].name] == pytest.approx(out.bandwidth_Bps)


@pytest.mark.parametrize(
    ("out", "systems", "cables"),
    [
        (B200, 256, {"leaf-nic": 2048, "leaf-spine": 2048}),
        (B200, 512, {"leaf-nic": 4096, "leaf-spine": 4096, "core-spine": 4096}),
        (B300_XDR, 288, {"leaf-nic": 2304, "leaf-spine": 2304}),
        (B300_XDR, 1296, {"leaf-nic": 10368, "leaf-spine": 10368}),
        # Published as 2,048 and 2,048: there a cable of 800 Gb/s carries both planes of a NIC, or two of 400.
        (B300, 256, {"leaf-nic": 2 * 2048, "leaf-spine": 2 * 2048}),
        # Published as 1,020 and 1,024, with the cables of the fabric manager.
        (H100, 127, {"leaf-nic": 1016, "leaf-spine": 1024}),
    ],
)
def test_cables_of_published_superpods(out: ScaleOut, systems: int, cables: dict[str, int]) -> None:
    assert _cables(cluster_blueprint("superpod", systems, HGX, out)) == cables


def test_multi_plane_fat_tree_of_64_port_switches() -> None:
    """DeepSeek, "Insights into DeepSeek-V3" (ISCA 2025), table 3: MPFT of 16,384, and its FT2 and FT3 of the same."""
    mpft = cluster_blueprint("mpft", 2048, HGX, ScaleOut(50 * GB, "ndr", levels=2, spines="rail"))
    assert sum(_switches(mpft).values()) == 768
    assert _cables(mpft)["leaf-spine"] == 16384
    ft2 = cluster_blueprint("ft2", 2048, ALONE, ScaleOut(50 * GB, "ndr", levels=2))
    assert (sum(_switches(ft2).values()), _cables(ft2)["leaf-spine"]) == (96, 2048)
    ft3 = cluster_blueprint("ft3", 65536, ALONE, ScaleOut(50 * GB, "ndr", levels=3))
    assert sum(_switches(ft3).values()) == 5120
    assert _cables(ft3)["leaf-spine"] + _cables(ft3)["core-spine"] == 131072
    with pytest.raises(SpecError, match="does not reach"):
        cluster_blueprint("more", 2049, HGX, ScaleOut(50 * GB, "ndr", levels=2, spines="rail"))


def test_multi_plane_fat_tree_costs_what_is_published() -> None:
    """The table's rows of FT3 (491 M$) and Slim Fly (1,568 switches, 32,928 links, 146 M$) give a switch and a link.

    With these prices 16,384 endpoints of MPFT cost 4.39 k$ each, and of FT3 7.5 k$.
    """
    switch_usd = (491e6 * 32928 - 146e6 * 131072) / (5120 * 32928 - 1568 * 131072)
    link_usd = (146e6 - 1568 * switch_usd) / 32928
    mpft = cluster_blueprint("mpft", 2048, HGX, ScaleOut(50 * GB, "ndr", levels=2, spines="rail"))
    cost_usd = sum(_switches(mpft).values()) * switch_usd + _cables(mpft)["leaf-spine"] * link_usd
    assert cost_usd / 16384 == pytest.approx(4390, rel=0.01)


def test_planes_of_rails_meet_only_inside_the_boxes() -> None:
    """MPFT: without NVLink between its GPUs, a cluster falls apart into its eight planes."""
    out = ScaleOut(50 * GB, "ndr", radix=4, rails=2, levels=2, spines="rail")
    full = expand(cluster_blueprint("x", 8, ScaleUp(2, 450 * GB, 1e-6, "nvlink4", switches=1), out))
    plane = nx.Graph((u, v) for u, v, held in full.edges(data=True) if held["plane"] == "scale-out")
    assert nx.number_connected_components(plane) == 2
    shared = expand(cluster_blueprint("x", 4, ScaleUp(2, 1e9, 1e-6, "n", 1), replace(out, spines="shared")))
    assert nx.is_connected(nx.Graph((u, v) for u, v, d in shared.edges(data=True) if d["plane"] == "scale-out"))


META = ScaleOut(
    50 * GB, "roce", rails=1, radix=(64, 576, 576), down=(16, 192), oversubscription=(0.5, 14.0), levels=3,
    switch_part=("tor", "chassis"),
)  # fmt: skip
"""Twice the uplinks a rack needs, and 1:7 above the pods: 1:14 of what the racks could send."""


@pytest.mark.parametrize(("ratios", "uplinks"), [((0.5, 14.0), 32), ((1.0, 7.0), 16), ((16 / 18, 63 / 8), 18)])
def test_24k_cluster_of_racks_and_pods(ratios: tuple[float, float], uplinks: int) -> None:
    """ "The Llama 3 Herd of Models" §3.3.1: 16 GPUs a rack switch, 192 racks a pod, eight pods, 1:7 between them.

    The racks' uplinks are twice the servers' links (glennklockwood.com, "Meta's H100 clusters"); with more or fewer
    of them 1:7 stays what a pod has inside over what it has outside.
    """
    bp = cluster_blueprint("meta", 3072, HGX, replace(META, oversubscription=ratios))
    assert _switches(bp)["leaf"] == 1536
    assert [(tier.name, tier.size, tier.blocks) for tier in tiers(bp)[1:]] == [
        ("leaf", 16, 1536), ("spine", 3072, 8), ("core", 24576, 1),
    ]  # fmt: skip
    assert _rates(bp)["leaf"] == _rates(bp)["spine"] == pytest.approx(50 * GB)
    assert _rates(bp)["core"] == pytest.approx(50 * GB / 7)
    rows = {row.node: row for row in ports(bp)}
    assert (rows["leaf"].down, rows["leaf"].up, rows["spine"].down) == (16, uplinks, 192)
    assert not port_faults(bp, {"leaf": 64, "chassis": 576})


def test_16k_of_the_24k_cluster_is_spread_over_six_pods() -> None:
    """ "The Llama 3 Herd of Models" §3.3.1; which pods were used is not public."""
    bp = cluster_blueprint("llama3", 2048, HGX, META)
    assert _switches(bp)["leaf"] == 1024
    assert [(tier.size, tier.blocks) for tier in tiers(bp)[1:]] == [(16, 1024), (2736, 6), (16384, 1)]


HPN = ScaleOut(
    50 * GB, "roce", radix=256, planes=2, trunk=2, down=(128, 240), oversubscription=(128 / 120, 15.0), levels=3
)
"""51.2 Tb/s are 256 ports of 200 Gb/s; leaves and spines are joined at 400."""


def test_dual_plane_pods_of_15_segments() -> None:
    """ "Alibaba HPN" (SIGCOMM 2024): 1,024 GPUs a segment of 16 ToRs, 15 segments a pod, 15:1 in the core.

    A ToR has 128 ports of 200 Gb/s down (eight more are for spare hosts, which are not built here) and 60 of 400 up;
    an aggregation switch 120 of 400 down and 8 up, 60 of them a plane and pod.
    """
    bp = cluster_blueprint("hpn", 3840, HGX, HPN)
    assert [(tier.name, tier.size, tier.blocks) for tier in tiers(bp)[1:]] == [
        ("leaf", 1024, 30), ("spine", 15360, 2), ("core", 30720, 1),
    ]  # fmt: skip
    assert (_switches(bp)["leaf"], _switches(bp)["spine"]) == (30 * 16, 2 * 2 * 60)
    fast = {row.node: row for row in ports(bp, {"switch": 128}, {"switch": 50 * GB})}
    assert (fast["leaf"].down, fast["leaf"].up) == (128 // 2, 60)
    assert (fast["spine"].down, fast["spine"].up, fast["spine"].free) == (120, 8, 0)
    assert _cables(bp) == {"leaf-nic": 2 * 30720, "leaf-spine": 480 * 60, "core-spine": 240 * 8}
    rates = _rates(bp)
    assert rates["leaf"] == pytest.approx(50 * GB)
    assert rates["leaf"] / rates["spine"] == pytest.approx(1.067, abs=5e-4)
    assert rates["spine"] / rates["core"] == pytest.approx(15)


def test_a_nic_of_two_planes_outlives_a_leaf_at_half_rate() -> None:
    """Alibaba HPN (SIGCOMM 2024): the loss of one ToR leaves every NIC of its rail its other port."""
    bp = cluster_blueprint("x", 8, HGX, ScaleOut(50 * GB, "roce", radix=8, planes=2, levels=2, rails=8, spines="rail"))
    lost = degrade(bp, "leaf", {"unit": 0, "rail": 3, "tree": 1})
    graph = expand(lost)
    nic = next(
        n for n, held in graph.nodes(data=True) if held["node_class"] == "nic" and held["coordinates"]["rail"] == 3
    )
    up = [held["bandwidth_Bps"] for _, peer, held in graph.edges(nic, data=True) if peer.startswith("leaf")]
    assert up == [25 * GB]
    validate(graph)


# --- tops ------------------------------------------------------------------------------------------------------------


def test_a_mesh_of_pods_by_hand() -> None:
    """Nine pods of 32-port Dragonfly+: each spine has 16 ports up, two to each of eight others, at full bandwidth.

    Shpiner et al., "Dragonfly+" (HiPINEB 2017): groups of k²/4 hosts where half of k ports look down.
    """
    out = ScaleOut(50 * GB, "hdr", radix=32, rails=1, levels=3, top="mesh")
    bp = cluster_blueprint("megafly", 9 * 256, ALONE, out)
    assert _switches(bp) == {"leaf": 9 * 16, "spine": 9 * 16}
    assert _cables(bp)["spine-spine"] == 16 * 2 * 9 * 8 // 2
    assert next(row for row in ports(bp) if row.node == "spine") == Ports(
        "spine", "switch", 144, 16, 0, 16, None, 144 * 32
    )
    top = tiers(bp)[-1]
    assert (top.name, top.kind, top.size, top.bandwidth_Bps, top.hops) == ("mesh", "dragonfly", 2304, 50 * GB, 7)
    # Cables 0.3 µs, switches 0.2 µs: five cables, four switches.
    assert top.latency_s == pytest.approx(5 * 0.3e-6 + 4 * 0.2e-6)
    with pytest.raises(SpecError, match="does not reach"):
        cluster_blueprint("x", 18 * 256, ALONE, out)  # 16 ports up: 17 pods at most


def test_global_links_say_how_thick_a_mesh_is() -> None:
    out = ScaleOut(50 * GB, "hdr", radix=32, rails=1, levels=3, top="mesh", global_links=1)
    thin = cluster_blueprint("x", 9 * 256, ALONE, out)
    assert _rates(thin)["mesh"] == pytest.approx(25 * GB)  # 8 of 16 uplinks
    assert _cables(thin)["spine-spine"] == 16 * 36
    with pytest.raises(SpecError, match="does not reach"):
        cluster_blueprint("x", 9 * 256, ALONE, replace(out, global_links=3))  # 24 ports up


def test_a_mesh_leaves_ports_free_that_do_not_divide() -> None:
    bp = cluster_blueprint("x", 512, HGX, ScaleOut(50 * GB, "ndr", levels=3, top="mesh"))
    assert next(row for row in ports(bp, {"switch": 64}) if row.node == "spine").free == 2 * 128
    assert _rates(bp)["mesh"] == pytest.approx(50 * GB * 30 / 32)


@given(st.integers(1, 40), st.floats(0.1, 100.0), st.integers(1, 200))
def test_mesh_links_fit_the_ports_and_carry_no_more_than_wanted(others: int, wanted: float, free: int) -> None:
    assume(others <= free)
    cables, load = mesh_links(others, wanted, free)
    assert cables * others <= free
    assert 0 < load <= 1
    carried = cables * others * load
    assert carried <= wanted * (1 + 1e-9)
    assert carried == pytest.approx(wanted) or cables == free // others


def test_circuits_join_pods_without_a_switch_in_time() -> None:
    """Direct connection through optical circuit switches (Poutievski et al., "Jupiter Evolving", SIGCOMM 2022)."""
    mesh = ScaleOut(50 * GB, "fibre", radix=32, rails=1, levels=3, top="mesh")
    ocs = replace(mesh, top="ocs", ocs_radix=136, ocs_part="mirrors")
    direct, optical = (tiers(cluster_blueprint("x", 8 * 256, ALONE, out))[-1] for out in (mesh, ocs))
    assert (direct.kind, optical.kind) == ("dragonfly", "dragonfly")
    assert direct.latency_s == pytest.approx(optical.latency_s)
    bp = cluster_blueprint("x", 8 * 256, ALONE, ocs)
    assert _switches(bp) == {"leaf": 128, "spine": 128, "ocs": 16}  # 16 x 8 fibres of each spine's eight twins
    row = next(row for row in ports(bp, {"mirrors": 136}) if row.node == "ocs")
    assert (row.down, row.up, row.free) == (128, 0, 16 * 8)
    assert optical.bandwidth_Bps == pytest.approx(50 * GB)
    with pytest.raises(SpecError, match="does not reach"):
        cluster_blueprint("x", 8 * 256, ALONE, replace(ocs, ocs_radix=7))


# --- options ---------------------------------------------------------------------------------------------------------


def test_cables_of_the_leaf_have_a_key_of_their_own() -> None:
    bp = cluster_blueprint("x", 128, HGX, replace(B200, leaf_link="copper"))
    links = {(link.a, link.b): link.link for link in bp.links if link.plane == "scale-out"}
    assert links == {("accelerator", "nic"): "", ("nic", "leaf"): "copper", ("leaf", "spine"): "ndr"}


def test_figures_per_level_equal_one_figure_for_all() -> None:
    one = cluster_blueprint("x", 600, HGX, B200)
    assert one == cluster_blueprint("x", 600, HGX, replace(B200, radix=(64, 64), switch_part=("switch",), down=(None,)))


def test_down_ports_that_the_ratio_gives_change_nothing() -> None:
    for out in (B200, replace(B200, oversubscription=(3.0, 2.0))):
        stated = replace(out, down=(out.down_ports(0), out.down_ports(1)), levels=3)
        assert cluster_blueprint("x", 600, HGX, stated) == cluster_blueprint("x", 600, HGX, replace(out, levels=3))


def test_every_fault_of_the_options_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        ScaleOut(
            1.0, "x", radix=(64, 1), down=(), planes=0, trunk=0, spines="own", top="ring", global_links=0, ocs_radix=1,  # type: ignore[arg-type]
            oversubscription=(1.0, -1.0), switch_part=(),
        )  # fmt: skip
    fields = {fault.field.removeprefix("scale_out.") for fault in caught.value.faults}
    assert fields == {
        "radix", "down", "planes", "trunk", "spines", "top", "global_links", "ocs_radix", "oversubscription",
        "switch_part",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"down": 40}, "leaves 24 ports of the leaf for uplinks that take 40"),
        ({"down": (None, 40)}, "leaves 24 ports of the spine"),
        ({"down": 65, "levels": 1}, "is not inside 1 … 64, the leaf's ports"),
        ({"down": (None, 0)}, "is not inside"),
        ({"global_links": 2}, "acts on no core"),
    ],
)
def test_ports_that_do_not_add_up_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        ScaleOut(1.0, "x", **options)


def test_all_ports_of_a_top_level_may_look_down() -> None:
    bp = cluster_blueprint("x", 256, HGX, replace(B200, down=(32, 64), levels=2))
    assert bp == cluster_blueprint("x", 256, HGX, B200)
