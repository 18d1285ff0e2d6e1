"""Every kind of network that a cluster file can say, from its fields to tiers, and every fault between them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters import catalogue
from clusters.build import bill, build, facts
from clusters.build import path as road_of
from clusters.defaults import kind_of, near_cube, refit
from clusters.spec import fingerprint, load, parse, with_
from topo.errors import SpecError

GB = 1e9
GB200 = {"accelerator": "gb200", "accelerators": 1152}
V5P = {"accelerator": "tpu-v5p", "accelerators": 8960}
MI300X = {"accelerator": "mi300x", "accelerators": 576}
LEVELS = [
    {"name": "board", "size": 4, "bandwidth": "300GB/s", "switches": 1},
    {"name": "rack", "size": 18, "bandwidth": "200GB/s", "switches": 2},
]


def tiers_of(data):
    return [(tier.kind, tier.size, round(tier.bandwidth_Bps / GB, 3)) for tier in build(parse(data)).tiers]


def faults_of(data):
    with pytest.raises(SpecError) as error:
        build(parse(data, "mine.yaml"))
    assert {fault.file for fault in error.value.faults} == {"mine.yaml"}
    assert all(fault.remedy for fault in error.value.faults)
    return {fault.field: fault for fault in error.value.faults}


# --- inside a domain --------------------------------------------------------------------------------------------------


def test_a_part_is_wired_as_its_maker_does():
    assert tiers_of(GB200)[0] == ("switch", 72, 900)
    assert tiers_of(MI300X)[0] == ("mesh", 8, 448)
    assert tiers_of(V5P) == [("torus", 8960, 600)]
    assert parse(V5P).scale_up.shape == (16, 20, 28)


@pytest.mark.parametrize(("domain", "kind", "rate"), [(4, "mesh", 192), (8, "mesh", 448), (72, "switch", 448)])
def test_a_mesh_has_a_link_to_each_peer_and_is_switched_where_it_lacks_links(domain, kind, rate):
    assert tiers_of({**MI300X, "domain": domain})[0] == (kind, domain, rate)


def test_a_mesh_takes_what_the_file_says_of_a_link_or_of_all():
    asked = {**MI300X, "domain": 4}
    assert tiers_of({**asked, "scale_up": {"bandwidth": "300GB/s"}})[0] == ("mesh", 4, 300)
    assert tiers_of({**asked, "scale_up": {"link_bandwidth": "50GB/s"}})[0] == ("mesh", 4, 150)
    wide = {**MI300X, "domain": 15, "scale_up": {"kind": "mesh"}}
    assert tiers_of(wide)[0] == ("mesh", 15, 448)


def test_parallel_links_to_a_peer_are_counted():
    up = parse({"accelerator": "gaudi3", "accelerators": 16}).scale_up
    assert (up.kind, up.links_per_pair, up.link_Bps, up.bandwidth_Bps) == ("mesh", 3, (25e9,), 525e9)
    counts = {
        row["part"]: row["count"] for row in bill(build(parse({"accelerator": "gaudi3", "accelerators": 8})))["parts"]
    }
    assert counts["gaudi-ethernet"] == 3 * 8 * 7 // 2


def test_a_torus_has_figures_for_each_axis():
    up = {"shape": [4, 4, 4], "link_bandwidth": ["128GB/s", "128GB/s", "64GB/s"], "wrap": [True, True, False]}
    spec = parse({"accelerator": "trainium2", "accelerators": 64, "scale_up": up})
    assert spec.scale_up.bandwidth_Bps == 640e9
    (tier,) = build(spec).tiers
    assert [(axis.size, axis.order) for axis in tier.direct] == [(4, "line"), (4, "ring"), (4, "ring")]


def test_cubes_swap_links_for_optical_ones_and_circuit_switches():
    cubes = {row["part"]: row["count"] for row in bill(build(parse({**V5P, "scale_up": {"cube": 4}})))["parts"]}
    plain = {row["part"]: row["count"] for row in bill(build(parse(V5P)))["parts"]}
    assert plain["ici"] == 3 * 8960 == cubes["ici"] + cubes["ici-optical"]
    assert cubes["ici-optical"] * 4 == 3 * 8960


def test_levels_of_switches_and_links_are_tiers():
    data = {**GB200, "scale_up": {"levels": LEVELS}}
    assert parse(data).scale_up.kind == "nested"
    assert tiers_of(data)[:2] == [("switch", 4, 300), ("switch", 72, 200)]


def test_switches_of_two_layers_are_counted():
    up = {"layers": 2, "inner": 8, "switches": 7, "outer_switches": 112, "sub_planes": 7, "outer_latency": "2us"}
    cluster = build(parse({"accelerator": "ascend-910c", "accelerators": 384, "scale_up": up}))
    bp = cluster.blueprint
    assert {node.name: bp.population(node.axes) for node in bp.nodes if node.kind == "switch"} == {
        "scale-up-switch": 336,
        "outer-switch": 112,
    }
    assert cluster.tiers[-1].latency_s == pytest.approx(2e-6)


@pytest.mark.parametrize("name", ["tpu-8i", "groq-lp30"])
def test_what_no_source_says_in_full_has_to_be_said(name):
    part = catalogue.accelerator(name)
    assert kind_of({}, part, 64) == ""
    assert "scale_up.kind" in faults_of({"accelerator": name, "accelerators": 64, "domain": 64})
    spoken = {"accelerator": name, "accelerators": 64, "domain": 64, "scale_up": {"kind": "switch"}}
    assert "scale_up.kind" not in set(faults_of(spoken))


@given(st.integers(1, 4000), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_a_shape_holds_its_size_on_all_its_axes(size, axes):
    shape = near_cube(size, axes)
    assert (len(shape), math.prod(shape), sorted(shape)) == (axes, size, list(shape))


@given(st.lists(st.integers(1, 24), min_size=1, max_size=4), st.integers(1, 2000))
@settings(max_examples=50, deadline=None)
def test_levels_of_another_domain_hold_it(sizes, domain):
    found = [level["size"] for level in refit([{"size": size} for size in sizes], domain)]
    assert math.prod(found) == domain
    assert all(new <= old for new, old in zip(found[:-1], sizes[:-1], strict=True))


@pytest.mark.parametrize("domain", [8, 72, 576])
def test_the_same_silicon_in_domains_of_another_size_keeps_its_bandwidth(domain):
    wired = [V5P, {**V5P, "scale_up": {"shape": [16, 20, 28], "cube": 4}}, {**GB200, "scale_up": {"levels": LEVELS}}]
    for data in wired:
        base = parse(data)
        spec = with_(base, domain=domain)
        assert build(spec).tiers[0].bandwidth_Bps == build(base).tiers[0].bandwidth_Bps
        assert build(spec).domain == domain
        assert with_(spec, domain=base.domain).scale_up.kind == base.scale_up.kind


# --- between domains --------------------------------------------------------------------------------------------------


def test_a_tree_takes_figures_for_each_level():
    out = {"switch": ["sn5600", "quantum-x800"], "radix": [64, 128], "down": [16, 64], "oversubscription": [0.5, 2]}
    spec = parse({**GB200, "scale_out": {**out, "levels": 2}})
    assert (spec.scale_out.radix, spec.scale_out.down, spec.scale_out.oversubscription) == (
        (64, 128),
        (16, 64),
        (0.5, 2),
    )
    switches = {node.name: node.part for node in build(spec).blueprint.nodes if node.kind == "switch"}
    assert (switches["leaf"], switches["spine"]) == ("sn5600", "quantum-x800")


def test_radixes_default_to_those_of_the_switches():
    assert parse({**GB200, "scale_out": {"switch": ["quantum-2", "quantum-x800"]}}).scale_out.radix == (64, 288)
    assert parse({**GB200, "scale_out": {"planes": 2}}).scale_out.radix == 128


def test_planes_divide_the_nic_and_nothing_is_lost():
    cluster = build(parse({**GB200, "scale_out": {"planes": 4, "nic": "800Gb/s"}}))
    assert cluster.tiers[-1].bandwidth_Bps == pytest.approx(100e9)
    assert [axis.size for axis in cluster.blueprint.axes if axis.name == "tree"] == [4]


def test_pods_meet_in_a_mesh_or_in_circuit_switches():
    many = {"accelerator": "h100", "accelerators": 4096}
    for top in ("mesh", "ocs"):
        assert tiers_of({**many, "scale_out": {"levels": 3, "radix": 32, "top": top}})[-1][0] == "dragonfly"


def test_every_rail_may_have_its_own_spines():
    cluster = build(parse({"accelerator": "h100", "accelerators": 1024, "scale_out": {"spines": "rail"}}))
    assert "rail" in cluster.blueprint.node("spine").axes


@pytest.mark.parametrize(("kind", "level"), [("ring", "laser"), ("line", "laser"), ("torus", "laser")])
def test_domains_may_be_joined_directly(kind, level):
    out = {"kind": kind, "link_bandwidth": "800Gb/s", "links_per_neighbour": 4, "km": 0.2, "medium": "vacuum"}
    tier = build(parse({**GB200, "scale_out": out})).tiers[-1]
    assert (tier.kind, tier.size) == (level, 1152)
    ends = {"ring": 2, "line": 1, "torus": 4}[kind]
    assert tier.bandwidth_Bps == pytest.approx(ends * 4 * 100e9 / 72)
    assert road_of(build(parse({**GB200, "scale_out": out})), "all_reduce")[-1].bandwidth_Bps == tier.bandwidth_Bps


def test_light_takes_its_time_in_fibre_and_less_in_vacuum():
    def latency_s(**more):
        out = {"kind": "ring", "link_bandwidth": "800Gb/s", **more}
        return build(parse({**GB200, "scale_out": out})).tiers[-1].latency_s

    assert latency_s(km=100) - latency_s() == pytest.approx(500e-6)
    assert latency_s(km=100, medium="vacuum") - latency_s() == pytest.approx(333.56e-6, rel=1e-4)


def test_a_ring_takes_a_torus_and_its_shape_follows_the_number_of_domains():
    out = {"kind": "torus", "shape": [2, 8], "link_bandwidth": "800Gb/s"}
    spec = parse({**GB200, "scale_out": out})
    assert (spec.scale_out.shape, with_(spec, accelerators=72 * 36).scale_out.shape) == ((2, 8), (6, 6))
    assert with_(spec, domain=36).scale_out.shape == (4, 8)


# --- sites ------------------------------------------------------------------------------------------------------------


def test_sites_share_the_accelerators_and_are_as_far_apart_as_light_takes():
    spec = parse({**GB200, "accelerators": 1200, "sites": {"count": 2, "km": 1000, "bandwidth": "7.2TB/s"}})
    assert (spec.domains, spec.usable) == (16, 1152)
    cluster = build(spec)
    wan = cluster.tiers[-1]
    assert (wan.kind, wan.size, cluster.tiers[-2].size) == ("wan", 1152, 576)
    assert wan.bandwidth_Bps == pytest.approx(7.2e12 / 576)
    assert wan.latency_s == pytest.approx(5e-3, rel=2e-3)
    assert road_of(cluster, "all_reduce")[-1].latency_s == wan.latency_s


def test_lines_between_sites_are_counted_by_what_one_carries():
    sites = {"count": 2, "km": 1, "bandwidth": "3.2Tb/s", "link": "roce-400", "link_bandwidth": "400Gb/s"}
    counts = {row["part"]: row["count"] for row in bill(build(parse({**GB200, "sites": sites})))["parts"]}
    assert counts["roce-400"] == 8


def test_one_domain_at_each_site_has_nics():
    cluster = build(
        parse({"accelerator": "gb200", "accelerators": 144, "sites": {"count": 2, "km": 9, "bandwidth": "1TB/s"}})
    )
    assert [tier.kind for tier in cluster.tiers] == ["switch", "wan"]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ({"scale_up": {"kind": "tree"}}, {"scale_up.kind"}),
        ({"scale_up": {"kind": "mesh", "layers": 2}}, {"scale_up.layers"}),
        ({"scale_up": {"kind": "switch", "shape": [8, 9]}}, {"scale_up.shape"}),
        ({"scale_up": {"shape": [8, 8]}}, {"scale_up.shape"}),
        ({"scale_up": {"shape": "8x9"}}, {"scale_up.shape"}),
        ({"scale_up": {"shape": [8, 9], "wrap": [True]}}, {"scale_up.wrap"}),
        ({"scale_up": {"shape": [8, 9], "cube": 4}}, {"scale_up.cube"}),
        ({"scale_up": {"shape": [8, 9], "bandwidth": "1TB/s", "link_bandwidth": "1TB/s"}}, {"scale_up.bandwidth"}),
        ({"scale_up": {"kind": "torus"}, "domain": 577}, {"domain"}),
        ({"scale_up": {"kind": "nested"}}, {"scale_up.levels"}),
        ({"scale_up": {"levels": LEVELS}, "domain": 36}, {"scale_up.levels"}),
        ({"scale_up": {"levels": [LEVELS[0], {**LEVELS[1], "name": "board"}]}}, {"scale_up.levels"}),
        (
            {"scale_up": {"levels": [{"name": "a b", "size": 72}]}},
            {"scale_up.levels.0.name", "scale_up.levels.0.bandwidth"},
        ),
        ({"scale_up": {"levels": [{**LEVELS[0], "colour": "red"}]}}, {"scale_up.levels.0.colour"}),
        ({"scale_up": {"outer_switches": 4, "layers": 1}}, {"scale_up.outer_switches"}),
        ({"scale_out": {"kind": "ring"}}, {"scale_out.link_bandwidth"}),
        ({"scale_out": {"kind": "ring", "link_bandwidth": "1TB/s", "rails": 8}}, {"scale_out.rails"}),
        ({"scale_out": {"kind": "torus", "link_bandwidth": "1TB/s", "shape": [3, 5]}}, {"scale_out.shape"}),
        ({"scale_out": {"km": 3}}, {"scale_out.km"}),
        ({"scale_out": {"radix": [64, 64, 64, 64]}}, {"scale_out.radix"}),
        ({"scale_out": {"spines": "own"}}, {"scale_out.spines"}),
        ({"sites": {"count": 20, "km": 1, "bandwidth": "1TB/s"}}, {"accelerators"}),
        ({"sites": {"count": 2}}, {"sites.km", "sites.bandwidth"}),
        ({"join": {}}, set()),
        ({"join": {"km": 3}}, {"join"}),
        ({"graph": "nowhere.xml"}, {"accelerators", "graph"}),
    ],
)
def test_faults_of_and_between_fields_name_them(data, fields):
    if not fields:
        assert fingerprint(parse({**GB200, "join": None}))
        return
    assert set(faults_of({**GB200, **data})) == fields


def test_faults_of_the_builders_carry_the_file():
    assert set(faults_of({**GB200, "scale_out": {"down": 40, "levels": 2}})) == {"scale_out.down"}


@pytest.mark.parametrize("data", [GB200, MI300X, {**V5P, "domain": 64}], ids=["switch", "mesh", "torus"])
def test_facts_are_told_of_every_kind(data):
    told = facts(build(parse(data)))
    assert told["accelerators"] == data["accelerators"]
    assert told["bisection_Bps"] > 0


# --- wafers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"scale_up": {"layers": 1}}, {"scale_up": {"bandwidth": "1TB/s"}}], ids=str)
def test_a_wafer_is_a_domain_of_its_own(more):
    faults = faults_of({"accelerator": "wse-3", "accelerators": 64, "domain": 8, **more})
    assert {*faults} == {"domain"}
    assert "wse-3 is a domain of its own" in faults["domain"].problem
    assert "write domain: 1" in faults["domain"].remedy


def test_a_wafer_alone_or_with_a_link_of_the_users_is_built():
    assert build(parse({"accelerator": "wse-3", "accelerators": 64})).domain == 1
    spec = parse({"accelerator": "wse-3", "accelerators": 64, "domain": 8, "scale_up": {"link": "ualink"}})
    assert build(spec).tiers[0].link == "ualink"


@pytest.mark.parametrize("each", [0.5, 1, 2, 4])
def test_the_bill_counts_every_nic_of_an_accelerator_and_its_cable(each):
    built = build(with_(load("hgx-h100"), accelerators=64, **{"scale_out.nics_per_accelerator": each}))
    counts = {row["part"]: row["count"] for row in bill(built)["parts"]}
    assert (counts["connectx-7"], counts["ib-ndr"]) == (64 * each, 64 * each)
