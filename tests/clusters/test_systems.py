"""The systems that ship: each builds or says what is missing, and comes out as published."""

import json
import re
import time
from pathlib import Path

import pytest

from clusters import catalogue
from clusters.build import between, build, facts, list_rows, notes, path, pool
from clusters.spec import SYSTEMS, load, parse, systems, with_
from clusters.tunings import collective_s
from collectives.groups import members
from topo.errors import SpecError
from topo.survey import summary

EXAMPLES = Path(__file__).parents[2] / "examples" / "clusters"
BF16 = "override.accelerator.peak_bf16"
LACKING = {
    "google-virgo": [BF16],
    "groq-lpx": [BF16, "scale_out.nic"],
    "kyber-nvl144": [BF16],
    "kyber-nvl576": [BF16],
    "tpu-8i-pod": [BF16, "scale_out.nic"],
    "tpu-8t-pod": [BF16],
    "vr-pod-lpx": [f"pools.1.{BF16}", "pools.1.scale_out.nic"],
}
"""Systems whose accelerators have figures that are not public -> the fields that a file has to fill in."""
MINE = {"peak_bf16": "1PFLOP/s", "nic": "400Gb/s"}
"""What fills them in, for the tests of all else."""
COMPLETE = sorted(set(systems()) - set(LACKING))
POOLED = ("vr-pod-lpx",)
ALONE = sorted(set(systems()) - set(POOLED))

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
    "superpod-b300": [(8, 900e9), (512, 100e9), (2048, 100e9)],
    "superpod-gb200": [(72, 900e9), (576, 50e9)],
    "meta-24k-roce": [(8, 450e9), (16, 50e9), (3072, 50e9), (24576, 50e9 / 7)],
    "llama3-16k": [(8, 450e9), (16, 50e9), (16384, 50e9 / 7)],
    "alibaba-hpn": [(8, 200e9), (1024, 50e9), (15360, 50e9 * 120 / 128), (30720, 50e9 * 120 / 128 / 15)],
    "xai-colossus": [(8, 450e9), (100000, 50e9)],
    "deepseek-h800": [(8, 200e9), (2048, 50e9)],
    "tpu-v4-pod": [(4096, 270e9)],
    "tpu-v5e-pod": [(256, 200e9)],
    "tpu-v5p-pod": [(8960, 600e9)],
    "tpu-v6e-pod": [(256, 400e9)],
    "tpu-v7-pod": [(9216, 600e9)],
    "tpu-8t-pod": [(9600, 1200e9)],
    "google-virgo": [(9600, 1200e9), (134400, 350e9 / 8)],
    "trn2-ultraserver": [(64, 640e9)],
    "trn3-gen2-ultraserver": [(4, 256e9), (72, 320e9), (144, 128e9)],
    "mi300x-box": [(8, 448e9)],
    "mi325x-box": [(8, 448e9)],
    "mi355x-box": [(8, 535.5e9)],
    "gaudi3-box": [(8, 525e9)],
    "cs3-x64": [(64, 150e9)],
    "fairwater-2": [(72, 900e9), (129024, 100e9)],
    "fairwater-2-4": [(72, 900e9), (129024, 100e9), (258048, 125e12 / 129024)],
    "fairwater-2-wisconsin": [(72, 900e9), (129024, 100e9), (258048, 125e12 / 129024)],
    "orbit-20kw": [(8, 900e9), (160, 2 * 12.5e9 / 8)],
    "orbit-30kw": [(16, 900e9), (320, 2 * 62.5e9 / 16)],
    "orbit-150kw": [(72, 900e9), (1440, 1e12 / 8 / 72)],
}
"""Published blocks: accelerators, and bytes/s per accelerator and direction."""

SWITCHES = {
    "gb200-nvl72": {"scale-up-switch": 18},
    "gb300-nvl72": {"scale-up-switch": 18},
    "cloudmatrix384": {"scale-up-switch": 336, "outer-switch": 112},
    "superpod-h100": {"leaf": 32, "spine": 16},
    "superpod-b200": {"leaf": 32, "spine": 16},
    "superpod-b200-2048": {"leaf": 64, "spine": 32},
    "superpod-b300": {"leaf": 64, "spine": 32},
    "deepseek-h800": {"leaf": 64, "spine": 32},
    "meta-24k-roce": {"leaf": 1536},
    "fairwater-2": {"leaf": 8 * 512},
}
"""Switches as published; what is not is left out. NVIDIA counts leaves and spines of both planes together."""


def _missing(name):
    """Return the fields that a file has to fill in."""
    try:
        load(name)
    except SpecError as error:
        return [fault.field for fault in error.faults]
    return []


def _filled(name):
    """Return the spec of a system, with figures of one's own where none are public."""
    data = catalogue.read_yaml((SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8"))
    for field in _missing(name):
        section, (*steps, last) = data, re.findall(r"\w+", field)
        for step in steps:
            section = section[int(step)] if step.isdigit() else section.setdefault(step, {})
        section[last] = MINE[last]
    return parse(data, f"{name}.yaml")


def _cluster(name):
    return build(_filled(name))


def _switches(name):
    blueprint = _cluster(name).blueprint
    return {node.name: blueprint.population(node.axes) for node in blueprint.nodes if node.kind == "switch"}


@pytest.mark.parametrize("name", systems())
def test_a_system_builds_whole_and_under_its_own_name(name):
    cluster = _cluster(name)
    assert cluster.name == name
    assert cluster.usable == cluster.accelerators
    assert name in POOLED or cluster.usable == cluster.tiers[-1].size


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("op", ["all_reduce", "all_gather", "all_to_all"])
def test_a_system_prices_a_collective_over_all_of_it(name, op):
    cluster = _cluster(name)
    blocks = tuple(tier.size for tier in cluster.tiers)
    for many in (2, cluster.usable):
        assert 0 < collective_s(op, 1e9, members(many, 1, blocks), path(cluster, op)) < 60
    assert all(isinstance(note, str) for note in notes(cluster, op))


@pytest.mark.parametrize("name", POOLED)
def test_the_pools_of_a_system_price_a_collective_each_on_its_own(name):
    whole = _cluster(name)
    for spec in whole.spec.pools:
        part = pool(whole, spec.name)
        group = members(part.usable, 1, tuple(tier.size for tier in part.tiers))
        assert 0 < collective_s("all_reduce", 1e9, group, path(part, "all_reduce")) < 60


@pytest.mark.parametrize("name", COMPLETE)
def test_a_system_keeps_what_its_file_says_when_nothing_varies(name):
    assert with_(load(name)) == load(name)


@pytest.mark.parametrize(("name", "fields"), LACKING.items())
def test_a_system_without_public_figures_asks_for_each_of_them_and_its_header_says_so(name, fields):
    assert sorted(_missing(name)) == sorted(fields)
    told = re.sub(r"\s*# ", " ", (SYSTEMS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert all(field in told for field in fields)


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
    assert {name for name, row in rows.items() if row["missing"]} == set(LACKING)
    assert (rows["kyber-nvl144"]["missing"], rows["groq-lpx"]["missing"]) == ("peak_bf16", "peak_bf16, nic")
    assert (rows["kyber-nvl144"]["accelerator"], rows["kyber-nvl144"]["accelerators"]) == ("rubin-ultra", 144)
    json.dumps(list(rows.values()), allow_nan=False)


@pytest.mark.parametrize(("name", "published"), TIERS.items())
def test_blocks_have_the_published_size_and_bandwidth(name, published):
    tiers = {tier.size: tier.bandwidth_Bps for tier in _cluster(name).tiers}
    assert {size: tiers.get(size) for size, _ in published} == pytest.approx(dict(published))


@pytest.mark.parametrize(("name", "counts"), SWITCHES.items())
def test_a_system_takes_the_published_switches(name, counts):
    switches = _switches(name)
    assert {kind: switches.get(kind) for kind in counts} == counts
    assert "core" not in switches or "meta" in name


# --- headlines, in their own convention ------------------------------------------------------------------------------


def _both_ways(cluster):
    """Scale-up bandwidth of all accelerators, both ways added up."""
    return 2 * _one_way(cluster)


def _one_way(cluster):
    """Scale-up bandwidth of all accelerators, in one direction."""
    return cluster.usable * cluster.spec.scale_up.bandwidth_Bps


def _levels(cluster):
    """Scale-up bandwidth of one accelerator over all levels, in one direction."""
    return sum(tie.bandwidth_Bps for tie in cluster.spec.scale_up.levels)


def _out(cluster):
    """Scale-out bandwidth of all accelerators, in one direction."""
    return cluster.usable * cluster.spec.scale_out.bandwidth_Bps


def _bisection(cluster):
    """Minimum cut between two halves, in one direction."""
    return summary(cluster.blueprint)["bisection_Bps"]


def _memory(cluster):
    return cluster.usable * cluster.accelerator.hbm_bytes


def _memory_rate(cluster):
    return cluster.usable * cluster.accelerator.hbm_Bps


def _dense(precision):
    """Arithmetic of all accelerators, dense."""
    return lambda cluster: cluster.usable * cluster.accelerator.peak_flops[precision]


def _usable(cluster):
    return cluster.usable


HEADLINES = [
    # system, what, headline, convention, within
    ("gb200-nvl72", "130 TB/s", 130e12, _both_ways, 0.005),
    ("gb300-nvl72", "130 TB/s", 130e12, _both_ways, 0.005),
    ("vr-nvl72", "260 TB/s", 260e12, _both_ways, 0.005),
    ("helios", "260 TB/s", 260e12, _both_ways, 0.005),
    ("groq-lpx", "640 TB/s", 640e12, _both_ways, 0.001),
    ("groq-lpx", "315 PFLOP/s", 315e15, _dense("fp8"), 0.005),
    ("groq-lpx", "128 GB", 128e9, _memory, 0.001),
    ("groq-lpx", "40 PB/s", 40e15, _memory_rate, 0.05),
    ("kyber-nvl576", "15 EFLOP/s FP4", 15e18, _dense("fp4"), 0.05),
    ("kyber-nvl576", "5 EFLOP/s FP8", 5e18, _dense("fp8"), 0.005),
    ("tpu-v4-pod", "1.1 EFLOP/s BF16", 1.1e18, _dense("bf16"), 0.03),
    ("tpu-v4-pod", "1.1 PB/s all-reduce", 1.1e15, _one_way, 0.01),
    ("tpu-v4-pod", "24 TB/s bisection", 24e12, _bisection, 0.05),
    ("tpu-v5e-pod", "51.2 TB/s all-reduce", 51.2e12, _one_way, 1e-9),
    ("tpu-v5e-pod", "1.6 TB/s bisection", 1.6e12, _bisection, 1e-9),
    ("tpu-v5e-pod", "6.4 Tb/s of data centre network", 6.4e12 / 8, _out, 1e-9),
    ("tpu-v5e-pod", "100 POP/s INT8", 100e15, _dense("int8"), 0.01),
    ("tpu-v5p-pod", "8,960 chips", 8960, _usable, 0),
    ("tpu-v6e-pod", "102.4 TB/s all-reduce", 102.4e12, _one_way, 1e-9),
    ("tpu-v6e-pod", "3.2 TB/s bisection", 3.2e12, _bisection, 1e-9),
    ("tpu-v6e-pod", "234.9 PFLOP/s BF16", 234.9e15, _dense("bf16"), 0.001),
    ("tpu-v7-pod", "42.5 EFLOP/s FP8", 42.5e18, _dense("fp8"), 0.001),
    ("tpu-v7-pod", "1.77 PB, of chips of 192 GB that are GiB", 1.77e15 * 1.024**3, _memory, 0.001),
    ("tpu-8t-pod", "121 EFLOP/s FP4", 121e18, _dense("fp4"), 0.001),
    ("tpu-8t-pod", "2 PB", 2e15, _memory, 0.05),
    ("tpu-8i-pod", "1,152 chips", 1152, _usable, 0),
    ("tpu-8i-pod", "19.2 Tb/s a chip, both ways", 1152 * 19.2e12 / 8, _both_ways, 1e-9),
    ("google-virgo", "134,000 chips", 134_000, _usable, 0.005),
    ("google-virgo", "47 Pb/s of bisection, per chip", 47e15 / 8, _out, 0.005),
    ("google-virgo", "1,700 EFLOP/s FP4", 1.7e21, _dense("fp4"), 0.005),
    ("trn2-ultraserver", "83.2 PFLOP/s FP8", 83.2e15, _dense("fp8"), 0.001),
    ("trn2-ultraserver", "42.8 PFLOP/s BF16", 42.8e15, _dense("bf16"), 0.005),
    ("trn2-ultraserver", "1,024 + 256 GB/s a chip, both ways", 64 * 1280e9, _both_ways, 1e-9),
    ("trn3-gen2-ultraserver", "362 PFLOP/s MXFP8", 362e15, _dense("fp8"), 0.005),
    ("trn3-gen2-ultraserver", "706 TB/s of memory", 706e12, _memory_rate, 0.001),
    ("trn3-gen2-ultraserver", "256 + 320 + 128 GB/s", 704e9, _levels, 1e-9),
    ("mi300x-box", "896 GB/s a GPU", 8 * 896e9, _both_ways, 1e-9),
    ("mi325x-box", "896 GB/s a GPU", 8 * 896e9, _both_ways, 1e-9),
    ("mi355x-box", "1,075 GB/s a GPU", 8 * 1075e9, _both_ways, 0.005),
    ("gaudi3-box", "1,050 GB/s a GPU", 8 * 1050e9, _both_ways, 1e-9),
    ("gaudi3-box", "1,200 GB/s out of the box, both ways", 1200e9 / 2, _out, 1e-9),
    ("cs3-x64", "1.2 Tb/s a system", 64 * 1.2e12 / 8, _out, 1e-9),
    ("fairwater-2", "131,072 NICs", 131_072, _usable, 0.02),
    ("xai-colossus", "100,000 GPUs", 100_000, _usable, 0),
    ("vr-pod", "1,152 GPUs", 1152, _usable, 0),
]
"""Published totals that the files reproduce, each in the convention of its maker."""

APART = [
    ("tpu-8i-pod", "a diameter of 7 hops", 7, lambda cluster: facts(cluster)["diameter_hops"], 3),
    ("cs3-x64", "8 EFLOP/s", 8e18, _dense("bf16"), 0.8e18),
    ("trn3-gen2-ultraserver", "2.56 TB/s a chip, both ways", 2560e9, lambda cluster: 2 * _levels(cluster), 1408e9),
]
"""Published totals that the files do not reproduce, and what they give; the headers say why."""


@pytest.mark.parametrize(
    ("name", "headline", "convention", "within"),
    [pytest.param(name, *rest, id=f"{name}: {what}") for name, what, *rest in HEADLINES],
)
def test_a_headline_comes_out_in_its_own_convention(name, headline, convention, within):
    assert convention(_cluster(name)) == pytest.approx(headline, rel=within or 1e-12)


@pytest.mark.parametrize(
    ("name", "headline", "convention", "built"),
    [pytest.param(name, *rest, id=f"{name}: {what}") for name, what, *rest in APART],
)
def test_a_headline_that_is_not_reproduced_is_known_to_differ(name, headline, convention, built):
    assert convention(_cluster(name)) == pytest.approx(built)
    assert built != pytest.approx(headline, rel=0.1)


def test_a_helios_rack_sends_43_terabytes_per_second_out_both_ways():
    assert 2 * _out(_cluster("helios")) == pytest.approx(43e12, rel=0.01)


def test_an_nvl72_has_5184_copper_cables_four_for_each_link():
    """A link of 50 GB/s one way has two pairs of 200 Gb/s each way, and each pair is a cable."""
    assert 4 * facts(_cluster("gb200-nvl72"))["parts"]["nvlink5"] == 5184


def test_a_vera_rubin_pod_is_16_racks_of_72_and_42_percent_of_its_headline():
    cluster = _cluster("vr-pod")
    assert (cluster.domains, cluster.usable) == (16, 1152)
    assert _both_ways(cluster) == pytest.approx(4.2e15, rel=0.02)


def test_the_headlines_of_a_vera_rubin_pod_are_those_of_its_gpus_and_ten_lpx_racks():
    """60 EFLOP/s: NVFP4 for inference, the high end of the figure's range, and FP8 of the LPUs. 10 PB/s: both ways."""
    cluster = _cluster("vr-pod-lpx")
    gpus, lpus = pool(cluster, "rubin"), pool(cluster, "lpx")
    assert (gpus.usable, lpus.usable, lpus.domains) == (1152, 10 * 256, 10)
    fp4 = gpus.accelerator.figures["peak_fp4"]
    flops = gpus.usable * fp4.range[1] * fp4.si / fp4.value + _dense("fp8")(lpus)
    assert flops == pytest.approx(60e18, rel=0.02)
    assert _both_ways(gpus) + _both_ways(lpus) == pytest.approx(10e15, rel=0.06)


def test_a_v4_pod_has_48_circuit_switches_and_a_quarter_of_its_links_are_optical():
    parts = facts(_cluster("tpu-v4-pod"))["parts"]
    assert (parts["circuit-switch"], parts["ici-optical"], parts["ici"]) == (48, 3072, 9216)


@pytest.mark.parametrize(
    ("name", "accelerators", "counts"), [("deepseek-h800", 16384, (512, 256)), ("superpod-b300", 8192, (256, 128))]
)
def test_the_published_largest_size_takes_the_published_switches_on_two_levels(name, accelerators, counts):
    """768 switches for DeepSeek, of which no more than 16,384 fit."""
    blueprint = build(with_(load(name), accelerators=accelerators)).blueprint
    switches = {node.name: blueprint.population(node.axes) for node in blueprint.nodes}
    assert (switches["leaf"], switches["spine"]) == counts


def test_deepseeks_eight_planes_end_at_16384():
    with pytest.raises(SpecError):
        build(with_(load("deepseek-h800"), accelerators=16384 + 8))


def test_the_sites_of_fairwater_are_a_petabit_apart_and_milliseconds_where_the_way_is_long():
    near, far = (_cluster(f"fairwater-2-{where}").tiers[-1] for where in ("4", "wisconsin"))
    assert near.bandwidth_Bps * 129024 == far.bandwidth_Bps * 129024 == pytest.approx(1e15 / 8)
    assert far.latency_s - near.latency_s == pytest.approx(1126 * 5e-6)
    assert near.latency_s < 15e-6


@pytest.mark.parametrize(("name", "kw"), [("orbit-20kw", 20), ("orbit-30kw", 30), ("orbit-150kw", 150)])
def test_a_satellite_holds_no_more_than_its_power_allows(name, kw):
    cluster = _cluster(name)
    assert cluster.domains == 20
    assert cluster.domain * (18 * 6.5 + 3.6) / 72 <= kw
    hop = cluster.tiers[-1]
    assert hop.kind == "laser"
    assert hop.latency_s == pytest.approx(2174 / 299_792, rel=0.01)


def test_nvl576_joins_eight_racks_in_one_domain():
    cluster = _cluster("vr-nvl576")
    assert (cluster.domains, [tier.blocks for tier in cluster.tiers]) == (1, [8, 1])
    assert {tier.plane for tier in cluster.tiers} == {"scale-up"}


def test_nvl576_of_2025_is_the_same_rack_as_kyber_nvl144():
    one, other = _cluster("kyber-nvl576"), _cluster("kyber-nvl144")
    assert one.tiers == other.tiers
    assert 4 * one.usable == 576


@pytest.mark.parametrize(("name", "ratio"), [("meta-24k-roce", 7), ("llama3-16k", 7), ("alibaba-hpn", 15)])
def test_the_core_is_oversubscribed_as_published(name, ratio):
    *_, pod, core = _cluster(name).tiers
    assert (pod.name, core.name) == ("spine", "core")
    assert pod.bandwidth_Bps / core.bandwidth_Bps == pytest.approx(ratio)


def test_metas_cluster_is_eight_pods_of_3072():
    tier = next(tier for tier in _cluster("meta-24k-roce").tiers if tier.name == "spine")
    assert (tier.size, tier.blocks) == (3072, 8)


def test_alibabas_pod_is_15_segments_of_1024():
    blocks = {tier.size: tier.blocks for tier in _cluster("alibaba-hpn").tiers}
    assert (blocks[1024], blocks[15360]) == (30, 2)


def test_colossus_has_three_tiers():
    assert [t.name for t in _cluster("xai-colossus").tiers if t.plane == "scale-out"] == ["leaf", "spine", "core"]


def test_cloudmatrix_nodes_are_a_microsecond_apart():
    assert _cluster("cloudmatrix384").tiers[-1].latency_s == pytest.approx(1e-6)


def test_old_and_new_stand_beside_each_other_with_what_the_file_puts_between_them():
    both = build(load(EXAMPLES / "old-with-new.yaml"))
    old, new = pool(both, "old"), pool(both, "new")
    assert [(part.accelerator.name, part.domain, part.usable) for part in (old, new)] == [
        ("h100-sxm", 8, 256),
        ("gb200", 72, 144),
    ]
    assert between(both, "old", "new")["bandwidth_Bps"] == pytest.approx(1.6e12)


def test_one_slow_rail_of_four_takes_an_eighth_of_a_racks_way_out():
    racks = build(load(EXAMPLES / "two-racks-slow-rail.yaml"))
    old, new = (pool(racks, name).tiers[-1].bandwidth_Bps for name in ("old", "new"))
    assert (old, new) == (pytest.approx(50e9 * 3.5 / 4), pytest.approx(100e9))


def test_a_wafer_decodes_from_memory_a_thousand_times_as_fast_as_that_of_the_rack_before_it():
    both = build(load(EXAMPLES / "sram-decode.yaml"))
    rack, wafer = pool(both, "prefill").accelerator, pool(both, "decode").accelerator
    assert wafer.hbm_Bps / rack.hbm_Bps > 1000


def test_no_system_takes_long():
    """The whole list, each with its cuts; a single one takes a few milliseconds."""
    start = time.process_time()
    for name in COMPLETE:
        build(with_(load(name), name="timed"))
    assert time.process_time() - start < 0.1 * len(COMPLETE)
