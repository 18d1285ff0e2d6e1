"""The catalogue: every figure has a unit and a known source, and names forgive what does not matter."""

import math
import pickle
import time

import pytest

from clusters import catalogue, entries, figures
from clusters.build import build, path
from clusters.economics import economics
from clusters.memories import memories, memory
from clusters.spec import parse
from clusters.units import UNITS
from topo.errors import SpecError

WORDS = {unit for units in entries.WORDS.values() for unit in units}
TIERS = {*entries.TIERS} - {"user"}
SWITCHED = {"scale_up": {"layers": 1}}
DRAIN_MS = {
    "a100": 39,
    "h100": 24,
    "h200": 29,
    "h800": 24,
    "h20": 24,
    "b200": 22,
    "b300": 36,
    "gb200": 23,
    "gb300": 36,
    "rubin-vr200": 13,
    "rubin-ultra": 32,
    "mi300x": 36,
    "mi325x": 43,
    "mi355x": 36,
    "mi455x": 18,
    "tpu-v5e": 20,
    "tpu-v5p": 37,
    "tpu-v6e": 20,
    "tpu-v7": 28,
    "tpu-8t": 33,
    "tpu-8i": 33,
    "trainium2": 36,
    "trainium3": 32,
    "ascend-910c": 40,
}
FLOP_PER_BYTE = {
    "a100": 153,
    "h100": 295,
    "h200": 206,
    "h20": 37,
    "b200": 281,
    "gb200": 312,
    "rubin-vr200": 182,
    "mi300x": 247,
    "mi355x": 312,
    "mi455x": 215,
    "tpu-v5e": 241,
    "tpu-v5p": 166,
    "tpu-v7": 313,
    "trainium2": 230,
    "trainium3": 137,
    "ascend-910c": 235,
}
MADE = {
    "nvidia": "a100-sxm-40 a100-sxm-80 h100-sxm h800-sxm h20 h200-sxm gh200 b200-sxm gb200 b300-sxm gb300 l40s"
    " rtx-pro-6000-server rubin-vr200 rubin-ultra feynman",
    "amd": "mi300x mi325x mi355x mi455x",
    "google": "tpu-v4 tpu-v5e tpu-v5p tpu-v6e tpu-v7 tpu-8t tpu-8i",
    "aws": "trainium1 trainium2 trainium3",
    "intel": "gaudi3 arc-pro-b60",
    "cerebras": "wse-3",
    "groq": "groq-lpu-v1 groq-lp30",
    "huawei": "ascend-910c ascend-950dt",
    "matx": "matx-one",
}


def _figures():
    parts = [
        *map(catalogue.accelerator, catalogue.names()),
        *map(catalogue.link, catalogue.links()),
        *map(catalogue.nic, catalogue.nics()),
        *map(catalogue.switch, catalogue.switches()),
    ]
    return [(part.name, key, figure) for part in parts for key, figure in part.figures.items()]


def test_every_figure_has_a_unit_a_known_source_a_tier_and_a_date():
    for part, key, figure in _figures():
        where, source = f"{part}.{key}", catalogue.sources()[figure.source]
        assert figure.unit in WORDS or any(figure.unit in units for units in UNITS.values()), where
        assert (figure.tier, figure.date) == (source.tier, source.date), where
        assert figure.tier in TIERS, where
        assert len(figure.date) == 7, where
        assert figure.si > 0, where
        assert figure.range is None or figure.range[0] <= figure.value <= figure.range[1], where
        assert figure.verified == (figure.source != "recalled"), where


def test_the_shipped_files_obey_the_tables_that_a_users_files_obey():
    known = entries._sections(figures.DATA / "sources.yaml", [])
    files = sorted((figures.DATA / "accelerators").glob("*.yaml"))
    assert entries.part_faults([figures.DATA / "fabrics.yaml"], files, known) == []
    assert list(entries.source_faults(known, "sources.yaml")) == []


def test_one_file_for_each_maker_holds_its_parts():
    listed = {name for parts in MADE.values() for name in parts.split()}
    assert listed == {*catalogue.names()}
    for maker, parts in MADE.items():
        text = (figures.DATA / "accelerators" / f"{maker}.yaml").read_text(encoding="utf-8")
        assert all(f"\nname: {name}\n" in text for name in parts.split())


def test_no_name_or_alias_is_taken_twice():
    files = [path.read_text(encoding="utf-8") for path in (figures.DATA / "accelerators").glob("*.yaml")]
    documents = [figures.read_yaml(text) for file in files for text in catalogue.documents(file)]
    keys = [key for part in filter(None, documents) for key in (part["name"], *part.get("aliases", ()))]
    assert len(keys) == len({*keys})
    assert all(key == catalogue.key_of(key) for key in keys)


def test_every_source_is_used_or_mentioned_and_has_an_address():
    prices = [figure for section in economics().values() for figure in section.values()]
    held = [figure for name in memories() for figure in memory(name).figures.values()]
    figures = [*(figure for _, _, figure in _figures()), *prices, *held]
    said = " ".join(figure.note for figure in figures)
    for key, source in catalogue.sources().items():
        if source.tier == "user":
            continue
        assert any(figure.source == key for figure in figures) or key in said
        assert source.title
        assert source.url or key == "recalled"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "h100-sxm"),
        ("H100_SXM", "h100-sxm"),
        (" gb200 ", "gb200"),
        ("TPU v5p", "tpu-v5p"),
        ("MI300X", "mi300x"),
        ("A100", "a100-sxm-80"),
        ("B300", "b300-sxm"),
    ],
)
def test_case_underscores_and_aliases_do_not_matter(written, name):
    assert catalogue.accelerator(written).name == name


@pytest.mark.parametrize(
    ("find", "wrong", "right"),
    [
        (catalogue.accelerator, "gb20", "gb200"),
        (catalogue.nic, "conectx7", "connectx-7"),
        (catalogue.switch, "quantum2", "quantum-2"),
        (catalogue.link, "nvlnk5", "nvlink5"),
    ],
)
def test_a_misspelt_part_gets_the_nearest(find, wrong, right):
    with pytest.raises(SpecError, match=f"did you mean {right}"):
        find(wrong)


def test_figures_are_si_one_way_dense_and_per_package():
    gb200, h100, a100 = map(catalogue.accelerator, ("gb200", "h100", "a100"))
    assert (gb200.scale_up_Bps, gb200.hbm_Bps, gb200.domain, gb200.scale_up_links) == (900e9, 8e12, 72, 18)
    assert (h100.scale_up_Bps, h100.peak_flops["bf16"], h100.hbm_bytes) == (450e9, 989e12, 80e9)
    assert "fp8" not in a100.peak_flops
    assert catalogue.accelerator("h800").scale_up_Bps == 200e9


def test_an_accelerators_links_make_its_bandwidth_and_reach_its_switches():
    for part in map(catalogue.accelerator, catalogue.names()):
        chip = catalogue.link(part.link).switch if part.link else ""
        if chip:
            assert part.scale_up_links * catalogue.switch(chip).rate_Bps == pytest.approx(part.scale_up_Bps), part.name
            assert part.domain * part.scale_up_links <= part.switches * catalogue.switch(chip).ports, part.name
        if part.nic and part.domain > 1 and not math.isnan(part.scale_up_Bps):
            assert catalogue.nic(part.nic).rate_Bps * part.nics < part.scale_up_Bps, part.name


def test_a_memory_drains_in_the_published_time():
    found = {name: catalogue.accelerator(name).drain_s * 1e3 for name in DRAIN_MS}
    assert found == pytest.approx(DRAIN_MS, abs=0.55)


def test_flop_per_byte_is_not_one_constant():
    found = {name: catalogue.accelerator(name).flop_per_byte for name in FLOP_PER_BYTE}
    assert found == pytest.approx(FLOP_PER_BYTE, abs=0.51)


def test_the_list_says_how_fast_memory_drains_and_what_is_not_public():
    rows = {row["name"]: row for row in catalogue.accelerator_rows()}
    assert rows["h100-sxm"]["drain_s"] == 80e9 / 3.35e12
    assert round(rows["h100-sxm"]["flop_per_byte"]) == 295
    assert rows["h100-sxm"]["missing"] == ""
    assert {name for name, row in rows.items() if row["missing"] == "template"} == {"feynman", "matx-one"}
    assert rows["rubin-ultra"]["missing"] == "BF16"
    assert rows["feynman"]["hbm_bytes"] is rows["feynman"]["drain_s"] is rows["feynman"]["flop_per_byte"] is None
    assert not [value for row in rows.values() for value in row.values() if value != value]


@pytest.mark.parametrize("name", ["feynman", "matx-one", "rubin-ultra", "groq-lpu-v1"])
def test_a_part_without_public_figures_names_them_all_and_prices_once_they_are_filled_in(name):
    part = catalogue.accelerator(name)
    asked = {"accelerator": name, "accelerators": 128, "scale_up": {"layers": 1}}
    with pytest.raises(SpecError) as error:
        parse({**asked, "domain": 64} if part.domain else asked)
    faults = {fault.field: fault for fault in error.value.faults}
    assert {*faults} == {catalogue.REQUIRED[key][0] for key in part.missing}
    assert all("not public" in fault.problem and fault.remedy for fault in faults.values())
    mine = {"peak_bf16": "8PFLOP/s", "hbm_capacity": "1TB", "hbm_bandwidth": "40TB/s"}
    filled = {
        **asked,
        "domain": 64,
        "scale_up": {"layers": 1, "bandwidth": "4TB/s", "link": "nvlink5"},
        "scale_out": {"nic": "connectx-9"},
        "override": {"accelerator": mine},
    }
    cluster = build(parse(filled))
    assert (cluster.accelerator.peak_flops["bf16"], cluster.accelerator.drain_s) == (8e15, 0.025)
    assert cluster.tiers[0].bandwidth_Bps == 4e12


def test_a_wrong_figure_of_a_template_is_told_once():
    wrong = {"accelerator": "rubin-ultra", "accelerators": 144, "override": {"accelerator": {"peak_bf16": "much"}}}
    with pytest.raises(SpecError) as error:
        parse(wrong)
    assert [fault.field for fault in error.value.faults] == ["override.accelerator.peak_bf16"]
    assert "is not a quantity" in str(error.value)


@pytest.mark.parametrize(
    ("name", "kind"), [("mi300x", "mesh"), ("tpu-v5p", "torus"), ("trainium2", "torus"), ("gaudi3", "mesh")]
)
def test_a_mesh_or_a_torus_is_built_as_one_or_as_the_switched_domain_that_was_asked_for(name, kind):
    asked = {"accelerator": name, "accelerators": 16, "domain": 8}
    assert parse(asked).scale_up.kind == kind
    assert build(parse({**asked, **SWITCHED})).tiers[0].kind == "switch"
    assert build(parse(asked)).tiers[0].size == 8
    assert parse({**asked, "domain": 1}).domain == 1


def test_a_link_without_a_public_switch_gets_one_ideal_layer():
    spec = parse({"accelerator": "ascend-910c", "accelerators": 768})
    assert (spec.domain, spec.layers, spec.scale_up.switch, spec.scale_up.switches) == (384, 1, "", 1)
    assert not spec.scale_up.in_network_reduction
    assert parse({"accelerator": "mi455x", "accelerators": 144}).scale_out.bandwidth_Bps == 300e9
    with pytest.raises(SpecError, match="cannot be cut"):
        parse({"accelerator": "ascend-910c", "accelerators": 766, "domain": 383, "scale_up": {"layers": 2}})


@pytest.mark.parametrize("name", catalogue.names())
def test_every_part_with_public_figures_builds_and_prices_its_collectives(name):
    part = catalogue.accelerator(name)
    if part.missing:
        pytest.skip("a template: another test fills it in")
    wiring = {} if part.topology == "switched" else SWITCHED
    cluster = build(parse({"accelerator": name, "accelerators": 2 * part.domain, **wiring}))
    assert cluster.usable == 2 * part.domain
    for hop in path(cluster, "all_reduce"):
        assert hop.bandwidth_Bps > 0
        assert 0 < hop.model.efficiency <= 1


def test_an_accelerator_cannot_change_and_survives_a_process_border():
    part = catalogue.accelerator("gb300")
    assert pickle.loads(pickle.dumps(part)) == part  # noqa: S301
    assert hash(part) == hash(pickle.loads(pickle.dumps(part)))  # noqa: S301
    with pytest.raises(TypeError):
        part.peak_flops["bf16"] = 1.0


def test_an_override_replaces_one_figure_and_says_so():
    mine = catalogue.overridden(catalogue.accelerator("h100"), {"peak_fp4": 1e15, "power": 900.0})
    assert (mine.peak_flops["fp4"], mine.power_W, mine.hbm_bytes) == (1e15, 900.0, 80e9)
    assert mine.figures["power"].tier == "user"


def test_rates_find_their_nic():
    assert catalogue.nic_for(25e9).name == "connectx-6"
    assert catalogue.nic_for(1e15).name == "connectx-9"


def test_the_first_look_is_quick():
    import yaml  # noqa: F401  (its import is not the catalogue's)

    took_s = []
    for _ in range(3):
        for cached in (
            figures.sources_with,
            catalogue._documents,
            catalogue._accelerator_names,
            catalogue._accelerator,
        ):
            cached.cache_clear()
        start = time.perf_counter()
        catalogue.accelerator("gb200")
        took_s.append(time.perf_counter() - start)
    assert min(took_s) < 0.03
