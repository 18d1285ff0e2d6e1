"""The systems that ship: each builds or says what is missing, and comes out as published."""

import json
import re
import time

import pytest

from clusters import catalogue
from clusters.build import build, list_rows, notes
from clusters.spec import SYSTEMS, load, systems, with_
from topo.errors import SpecError
from topo.survey import summary

LACKING = {"kyber-nvl144": "override.accelerator.peak_bf16"}
"""Systems whose accelerator has no public figure -> the field that a file has to fill in."""
COMPLETE = sorted(set(systems()) - set(LACKING))

TIERS = {
    "gb200-nvl72": [(72, 900e9)],
    "gh200-nvl32": [(32, 450e9)],
    "vr-nvl72": [(72, 1.8e12)],
    "vr-nvl576": [(72, 1.8e12), (576, 1.8e12)],
    "vr-pod": [(72, 1.8e12), (1152, 200e9)],
    "cloudmatrix384": [(8, 392e9), (384, 392e9)],
    "helios": [(72, 1.8e12)],
    "superpod-h100": [(8, 450e9), (256, 50e9), (1016, 50e9)],
    "superpod-b200": [(8, 900e9), (256, 50e9), (1024, 50e9)],
    "superpod-b300": [(8, 900e9), (2048, 100e9)],
    "superpod-gb200": [(72, 900e9), (576, 50e9)],
    "meta-24k-roce": [(8, 450e9), (3072, 50e9), (24576, 50e9 / 7)],
    "llama3-16k": [(8, 450e9), (16384, 50e9 / 7)],
    "alibaba-hpn": [(8, 200e9), (1024, 50e9), (15360, 50e9 * 120 / 128), (30720, 50e9 * 120 / 128 / 15)],
    "xai-colossus": [(8, 450e9), (100000, 50e9)],
    "deepseek-h800": [(8, 200e9), (2048, 50e9)],
}
"""Published blocks: accelerators, and bytes/s per accelerator and direction."""

LEAF_AND_SPINE = {
    "superpod-h100": (32, 16),
    "superpod-b200": (32, 16),
    "superpod-b200-2048": (64, 32),
    "superpod-b300": (64, 32),
    "deepseek-h800": (64, 32),
}
"""Switches as the reference architectures count them; DeepSeek's eight planes have 8 leaves and 4 spines each."""


def _switches(name):
    blueprint = build(load(name)).blueprint
    return {node.name: blueprint.population(node.axes) for node in blueprint.nodes if node.kind == "switch"}


@pytest.mark.parametrize("name", COMPLETE)
def test_a_system_builds_whole_and_under_its_own_name(name):
    cluster = build(load(name))
    assert cluster.name == name
    assert cluster.usable == cluster.accelerators == cluster.tiers[-1].size
    assert summary(cluster.blueprint)["accelerators"] == cluster.usable
    assert all(isinstance(note, str) for note in notes(cluster, "all_reduce"))


@pytest.mark.parametrize("name", COMPLETE)
def test_a_system_keeps_what_its_file_says_when_nothing_varies(name):
    assert with_(load(name)) == load(name)


@pytest.mark.parametrize(("name", "field"), LACKING.items())
def test_a_system_without_public_figures_asks_for_them_and_builds_with_them(name, field, tmp_path):
    with pytest.raises(SpecError) as error:
        load(name)
    assert [fault.field for fault in error.value.faults] == [field]
    mine = tmp_path / "mine.yaml"
    text = (SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8")
    mine.write_text(text + "override: {accelerator: {peak_bf16: 8PFLOP/s}}\n", encoding="utf-8")
    assert build(load(mine)).usable == load(mine).accelerators


@pytest.mark.parametrize("name", systems())
def test_a_file_names_its_sources_by_their_keys_or_addresses(name):
    text = (SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8")
    told = re.search(r"^# Source: ([^.]*)\.?", text, re.MULTILINE)[1]
    keys = [key.strip() for key in re.sub(r"\(.*?\)", "", told).split(",")]
    assert "https://" in text or set(keys) <= set(catalogue.sources())


def test_the_list_shows_every_system_with_what_is_missing():
    rows = {row["name"]: row for row in list_rows("systems")}
    assert tuple(rows) == systems()
    assert len({tuple(row) for row in rows.values()}) == 1
    assert {name: row["missing"] for name, row in rows.items() if row["missing"]} == {"kyber-nvl144": "peak_bf16"}
    assert (rows["kyber-nvl144"]["accelerator"], rows["kyber-nvl144"]["accelerators"]) == ("rubin-ultra", 144)
    json.dumps(list(rows.values()), allow_nan=False)


@pytest.mark.parametrize(("name", "published"), TIERS.items())
def test_blocks_have_the_published_size_and_bandwidth(name, published):
    tiers = {tier.size: tier.bandwidth_Bps for tier in build(load(name)).tiers}
    assert {size: tiers.get(size) for size, _ in published} == pytest.approx(dict(published))


@pytest.mark.parametrize(("name", "counts"), LEAF_AND_SPINE.items())
def test_a_fat_tree_takes_the_published_switches(name, counts):
    switches = _switches(name)
    assert (switches["leaf"], switches["spine"]) == counts
    assert "core" not in switches


def test_an_nvl72_has_18_switch_chips_and_130_terabytes_per_second_both_ways():
    assert _switches("gb200-nvl72") == _switches("gb300-nvl72") == {"nvswitch": 18}
    for name, headline_Bps in {"gb200-nvl72": 130e12, "gb300-nvl72": 130e12, "vr-nvl72": 260e12}.items():
        cluster = build(load(name))
        assert 2 * cluster.usable * cluster.tiers[0].bandwidth_Bps == pytest.approx(headline_Bps, rel=0.005)


def test_helios_has_its_headlines_both_ways():
    spec = load("helios")
    assert 2 * 72 * spec.scale_up.bandwidth_Bps == pytest.approx(260e12, rel=0.005)
    assert 2 * 72 * spec.scale_out.bandwidth_Bps == pytest.approx(43e12, rel=0.01)


def test_a_vera_rubin_pod_is_16_racks_of_72_and_42_percent_of_its_headline():
    cluster = build(load("vr-pod"))
    assert (cluster.domains, cluster.usable) == (16, 1152)
    assert 2 * cluster.usable * cluster.tiers[0].bandwidth_Bps == pytest.approx(4.2e15, rel=0.02)


def test_nvl576_joins_eight_racks_in_one_domain():
    cluster = build(load("vr-nvl576"))
    assert (cluster.domains, [tier.blocks for tier in cluster.tiers]) == (1, [8, 1])
    assert {tier.plane for tier in cluster.tiers} == {"scale-up"}


@pytest.mark.parametrize(("name", "ratio"), [("meta-24k-roce", 7), ("llama3-16k", 7), ("alibaba-hpn", 15)])
def test_the_core_is_oversubscribed_as_published(name, ratio):
    *_, pod, core = build(load(name)).tiers
    assert (pod.name, core.name) == ("spine", "core")
    assert pod.bandwidth_Bps / core.bandwidth_Bps == pytest.approx(ratio)


def test_metas_cluster_is_eight_pods_of_3072():
    pod = next(tier for tier in build(load("meta-24k-roce")).tiers if tier.name == "spine")
    assert (pod.size, pod.blocks) == (3072, 8)


def test_alibabas_pod_is_15_segments_of_1024():
    blocks = {tier.size: tier.blocks for tier in build(load("alibaba-hpn")).tiers}
    assert (blocks[1024], blocks[15360]) == (30, 2)


def test_colossus_has_100000_accelerators_on_three_tiers():
    cluster = build(load("xai-colossus"))
    assert cluster.usable == 100_000
    assert [tier.name for tier in cluster.tiers if tier.plane == "scale-out"] == ["leaf", "spine", "core"]


def test_cloudmatrix_nodes_are_a_microsecond_apart():
    assert build(load("cloudmatrix384")).tiers[-1].latency_s == pytest.approx(1e-6)


def test_no_system_takes_long():
    """The whole list, each with its cuts; a single one takes a few milliseconds."""
    start = time.process_time()
    for name in COMPLETE:
        build(with_(load(name), name="timed"))
    assert time.process_time() - start < 0.1 * len(COMPLETE)
