"""Cluster files: defaults, variations, every fault at once, fingerprints, and the clusters they build."""

import json
import pickle
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters import catalogue, specfile
from clusters.build import bill, build, list_rows, notes, pool
from clusters.build import path as road_of
from clusters.defaults import chips, largest_divisor, ports_at
from clusters.own import FIGURES
from clusters.sections import (
    ChangeSpec,
    ClusterSpec,
    GraphSpec,
    JoinSpec,
    OwnFile,
    ScaleOutSpec,
    ScaleUpSpec,
    SitesSpec,
    SpanSpec,
    TieSpec,
)
from clusters.spec import fingerprint, load, parse, part_of, systems, with_
from clusters.specfile import AcceleratorFile, ClusterFile, check, json_schema
from clusters.tunings import lookup
from topo.errors import SpecError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "clusters").glob("*.yaml"))
GB200 = {"accelerator": "gb200", "accelerators": 1152}
BOXES = [name for name in systems() if name.startswith("hgx-") or name.endswith("-nvl72")]


def _faults(data, tmp_path, text=None):
    path = tmp_path / "mine.yaml"
    path.write_text(text if text is not None else yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        load(path)
    assert all(fault.file == str(path) for fault in error.value.faults)
    return {fault.field: fault for fault in error.value.faults}


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_two_fields_are_enough():
    spec = parse({"accelerator": "GB200", "accelerators": "1152"})
    assert (spec.domain, spec.domains, spec.usable, spec.layers) == (72, 16, 1152, 1)
    assert (spec.scale_up.bandwidth_Bps, spec.scale_up.link, spec.scale_up.switches) == (900e9, "nvlink5", 18)
    assert (spec.scale_out.nic, spec.scale_out.bandwidth_Bps, spec.scale_out.radix) == ("connectx-7", 50e9, 64)


def test_accelerators_that_fill_no_domain_are_idle():
    spec = parse({"accelerator": "gb200", "accelerators": 1000})
    assert (spec.domains, spec.usable, spec.accelerators) == (13, 936, 1000)


@pytest.mark.parametrize(
    ("domain", "layers", "inner", "switches"),
    [(8, 1, 8, 2), (64, 1, 64, 18), (72, 1, 72, 18), (576, 2, 72, 18), (500, 2, 50, 18)],
)
def test_a_domain_beyond_one_layer_of_switches_gets_two(domain, layers, inner, switches):
    up = with_(parse(GB200), domain=domain).scale_up
    assert (up.layers, up.inner, up.switches) == (layers, inner, switches)


def test_an_inner_block_below_the_domain_means_two_layers():
    assert parse({**GB200, "scale_up": {"inner": 36}}).layers == 2
    assert parse({**GB200, "domain": 8, "scale_up": {"inner": 36}}).layers == 1


def test_one_huge_layer_can_be_asked_for():
    assert parse({**GB200, "domain": 576, "scale_up": {"layers": 1}}).scale_up.inner == 576


@pytest.mark.parametrize(
    ("nic", "link", "rate_Bps"),
    [("400Gb/s", "ib-ndr", 50e9), ("cx8", "ib-xdr", 100e9), ("200Gb/s", "ib-hdr", 25e9), (100e9, "ib-xdr", 100e9)],
)
def test_link_and_switch_follow_the_nic(nic, link, rate_Bps):
    out = parse({**GB200, "scale_out": {"nic": nic}}).scale_out
    assert (out.link, out.nic_Bps, out.switch) == (link, rate_Bps, catalogue.link(link).switch)


def test_ethernet_is_one_field():
    out = parse({**GB200, "scale_out": {"link": "roce-400"}}).scale_out
    assert (out.switch, out.radix, out.nic_Bps) == ("sn5600", 128, 50e9)


@given(st.integers(2, 3000), st.integers(1, 144))
@settings(max_examples=100, deadline=None)
def test_the_largest_divisor_divides_and_nothing_larger_does(size, most):
    found = largest_divisor(size, most)
    assert size % found == 0
    assert not [d for d in range(found + 1, min(most, size - 1) + 1) if size % d == 0]


@given(st.integers(1, 72), st.sampled_from([8, 12, 18, 36]), st.sampled_from([36, 64, 72]))
@settings(max_examples=100, deadline=None)
def test_chips_have_ports_enough_whenever_one_layer_reaches(block, links, ports):
    count = chips(block, links, ports)
    assert links % count == 0
    assert block > ports or block * (links // count) <= ports


def test_a_faster_nic_gangs_ports_and_a_slower_one_splits_them():
    box = catalogue.switch("quantum-x800")
    assert [ports_at(box, rate) for rate in (50e9, 100e9, 200e9)] == [288, 144, 72]


# --- variations -------------------------------------------------------------------------------------------------------


def test_same_silicon_other_wiring_is_one_field():
    spec = parse({**GB200, "scale_out": {"oversubscription": 2, "rails": 4}})
    wide = with_(spec, domain=576)
    assert (wide.domain, wide.scale_out, wide.accelerator) == (576, spec.scale_out, spec.accelerator)


def test_sections_merge_dotted_names_reach_and_none_resets():
    spec = parse({**GB200, "scale_out": {"oversubscription": 2, "rails": 4}})
    changes = {"rails": 2}
    both = with_(spec, scale_out=changes, **{"scale_out.nic": "800Gb/s", "override.accelerator.power": "1kW"})
    assert (both.scale_out.rails, both.scale_out.oversubscription, both.scale_out.nic_Bps) == (2, 2.0, 100e9)
    assert part_of(both).power_W == 1000
    assert with_(both, override=None, **{"scale_out.nic": None}).scale_out.nic == "connectx-7"
    assert changes == {"rails": 2}


def test_a_variation_keeps_the_file_but_does_not_blame_it():
    spec = load("gb200-nvl72")
    assert with_(spec, accelerators=144).file == spec.file != ""
    with pytest.raises(SpecError) as error:
        with_(spec, domain=-1)
    assert [fault.file for fault in error.value.faults] == [""]


def test_no_variation_changes_nothing():
    for name in BOXES:
        assert with_(load(name)) == load(name)


@given(st.integers(1, 600), st.integers(1, 4096))
@settings(max_examples=50, deadline=None)
def test_any_domain_either_leaves_less_than_one_domain_idle_or_is_refused(domain, accelerators):
    try:
        spec = parse({"accelerator": "gb200", "accelerators": accelerators, "domain": domain})
    except SpecError as error:
        fields = {fault.field for fault in error.faults}
        assert fields <= {"accelerators", "domain"}
        assert ("accelerators" in fields) == (accelerators < domain)
        assert ("domain" in fields) == (domain > 72 and largest_divisor(domain, 72) == 1)
    else:
        assert 0 <= spec.accelerators - spec.usable < spec.domain
        assert spec.domain % spec.scale_up.inner == 0


# --- faults -----------------------------------------------------------------------------------------------------------


def test_all_faults_come_at_once_each_with_field_value_and_remedy(tmp_path):
    faults = _faults(
        {
            "accelerator": "gb20",
            "accelerators": 12.5,
            "domian": 8,
            "scale_up": {"bandwidth": "-900GB/s", "latency": 2, "link": "ib-ndr", "layers": 3},
            "scale_out": {"nic": "conectx-7", "oversubscription": 0, "rails": 0, "levels": [2]},
            "override": {"accelerator": {"hbm_bandwith": "8TB/s", "peak_bf16": "fast"}},
            "radix": 64,
        },
        tmp_path,
    )
    assert set(faults) == {
        "accelerator",
        "accelerators",
        "domian",
        "scale_up.bandwidth",
        "scale_up.latency",
        "scale_up.link",
        "scale_up.layers",
        "scale_out.nic",
        "scale_out.oversubscription",
        "scale_out.rails",
        "scale_out.levels",
        "override.accelerator.hbm_bandwith",
        "override.accelerator.peak_bf16",
        "radix",
    }
    assert all(fault.remedy for fault in faults.values())
    assert "gb200" in faults["accelerator"].remedy
    assert "did you mean domain?" in faults["domian"].remedy
    assert "did you mean hbm_bandwidth?" in faults["override.accelerator.hbm_bandwith"].remedy
    assert faults["radix"].remedy == "write scale_out.radix"
    assert faults["scale_up.bandwidth"].value == "-900GB/s"
    assert "2 s" in faults["scale_up.latency"].problem


def test_faults_between_fields_come_with_the_others_but_never_for_a_faulty_field(tmp_path):
    faults = _faults({"accelerator": "gb200", "accelerators": 300, "domain": 577, "colour": "red"}, tmp_path)
    assert set(faults) == {"accelerators", "domain", "colour"}
    assert "576" in faults["domain"].remedy
    assert set(_faults({"accelerator": "gb200", "accelerators": 4, "domain": "x"}, tmp_path)) == {"domain"}


def test_fewer_accelerators_than_a_domain_need_the_domain_shrunk(tmp_path):
    faults = _faults({"accelerator": "gb200", "accelerators": 64}, tmp_path)
    assert "domain: 64" in faults["accelerators"].remedy
    assert parse({"accelerator": "gb200", "accelerators": 64, "domain": 64}).usable == 64


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"scale_up": {"layers": 2, "inner": 50}}, "scale_up.inner"),
        ({"scale_up": {"layers": 2, "inner": 72}}, "scale_up.inner"),
        ({"scale_out": {"levels": 2, "oversubscription": [1, 2, 3]}}, "scale_out.oversubscription"),
        ({"scale_out": {"radix": 2, "nics_per_accelerator": 2}}, "scale_out.radix"),
        ({"scale_out": {"oversubscription": []}}, "scale_out.oversubscription"),
        ({"scale_out": {"nics_per_accelerator": 0}}, "scale_out.nics_per_accelerator"),
        ({"scale_out": "400Gb/s"}, "scale_out"),
        ({"scale_out": {"nic": 400}}, "scale_out.nic"),
        ({"scale_up": {"in_network_reduction": "maybe"}}, "scale_up.in_network_reduction"),
        ({"name": ["a"]}, "name"),
    ],
)
def test_each_fault_names_its_field(data, field, tmp_path):
    assert set(_faults({**GB200, **data}, tmp_path)) == {field}


def test_both_needed_fields_are_asked_for(tmp_path):
    assert set(_faults({"name": "mine"}, tmp_path)) == {"accelerator", "accelerators"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accelerator: [gb200", "is not YAML"),
        ("", "holds no fields"),
        ("- gb200\n", "holds no fields"),
        ("accelerator: gb200\naccelerators: 8\naccelerators: 9\n", "is written twice"),
        ("accelerator: &a [*a]\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_cluster_file_is_one_spec_error(text, problem, tmp_path):
    (fault,) = _faults(None, tmp_path, text).values()
    assert problem in fault.problem


def test_a_file_that_cannot_be_read_is_a_spec_error(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (binary, tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(SpecError, match="cluster file"):
            load(path)


def test_a_misspelt_system_gets_the_nearest():
    with pytest.raises(SpecError, match="did you mean gb200-nvl72"):
        load("gb200_nvl27")


def test_yaml_makes_nothing_else_of_what_is_written(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: 2048\naccelerator: h100\naccelerators: 2_048\ndomain: ~\n"
        "scale_out: {oversubscription: 2:1, nic: , latency: 3e-7, in_network_reduction: yes}\n",
        encoding="utf-8",
    )
    spec = load(path)
    assert (spec.name, spec.accelerators, spec.domain) == ("2048", 2048, 8)
    out = spec.scale_out
    assert (out.oversubscription, out.nic, out.latency_s, out.in_network_reduction) == (2.0, "connectx-7", 3e-7, True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([*ClusterFile.model_fields, "x"]),
)
@settings(max_examples=200, deadline=None)
def test_no_content_raises_anything_but_a_spec_error(value, field):
    try:
        outcome = fingerprint(parse({**GB200, field: value}))
    except SpecError as error:
        outcome = str(error)
    assert outcome


# --- fingerprints and the file's schema -------------------------------------------------------------------------------


def _variations(noun):
    """Copies of a frozen noun, each with one leaf changed."""
    for item in fields(noun):
        value = getattr(noun, item.name)
        if not item.compare:
            continue
        if is_dataclass(value):
            yield from (replace(noun, **{item.name: inner}) for inner in _variations(value))
        elif item.name == "pools":
            yield replace(noun, pools=(*value, parse(GB200)))
        elif item.name in ("override", "own"):
            yield replace(noun, **{item.name: (("power", 1.0 + (item.name == "own")),)})
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            yield from (replace(noun, **{item.name: (inner,)}) for inner in _variations(value[0]))
        elif item.name == "accelerator":
            yield replace(noun, accelerator="gb300")
        elif isinstance(value, str):
            yield replace(noun, **{item.name: value + "x"})
        elif isinstance(value, bool):
            yield replace(noun, **{item.name: not value})
        elif isinstance(value, tuple):
            yield replace(noun, **{item.name: (*value, 1)})
        else:
            yield replace(noun, **{item.name: (value or 0) + 1})


def test_the_fingerprint_changes_when_any_field_changes():
    tie = TieSpec("chip", 4, 1e9, 1e-6, "ici")
    span = SpanSpec("a", "b", 1e9, 1.0)
    spec = parse(GB200)
    spec = replace(
        spec,
        scale_up=replace(spec.scale_up, levels=(tie,)),
        sites=SitesSpec(2, 1.0, 1e9, "set", "ib-ndr", None, 1),
        join=JoinSpec("ib-ndr", 1e-6, "quantum-2", 1e-6, 1e9, None, 1.0, None, None, (span,)),
        changes=(ChangeSpec(node="nic"),),
        graph=GraphSpec("0"),
        tunings=OwnFile("0", ""),
    )
    prints = [fingerprint(other) for other in _variations(spec)]
    leaves = [ClusterSpec, ScaleUpSpec, ScaleOutSpec, TieSpec, SitesSpec, JoinSpec, SpanSpec, ChangeSpec, GraphSpec]
    leaves.append(OwnFile)
    nested = 9  # fields that hold nouns are counted by theirs
    assert len(prints) == sum(item.compare for leaf in leaves for item in fields(leaf)) - nested
    assert len({fingerprint(spec), *prints}) == len(prints) + 1


def test_the_fingerprint_is_of_the_content_alone(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**GB200, "domain": 72, "name": "gb200-x1152"}), encoding="utf-8")
    assert fingerprint(load(path)) == fingerprint(parse(GB200))
    assert fingerprint(pickle.loads(pickle.dumps(load(path)))) == fingerprint(parse(GB200))  # noqa: S301


def test_the_override_section_holds_the_catalogues_overrides():
    assert set(AcceleratorFile.model_fields) == set(catalogue.OVERRIDES)


def test_editors_get_a_json_schema_of_every_field():
    schema = json_schema()
    assert [ways["required"] for ways in schema["anyOf"]] == [
        ["accelerator", "accelerators"],
        ["accelerator", "graph"],
        ["pools"],
    ]
    models = {name for name in vars(specfile) if name.endswith("File")} - {"ClusterFile", "GraphFile"}
    assert set(schema["$defs"]) == models
    assert all(
        "description" in field or name.startswith("peak_") or name in FIGURES or field.get("anyOf")
        for model in schema["$defs"].values()
        for name, field in model["properties"].items()
    )
    assert check(GB200)[1] == []


def test_pydantic_is_imported_only_for_a_file():
    heavy = "{'pydantic', 'networkx', 'numpy', 'yaml'}"
    code = f"import sys, clusters.spec, clusters.build; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOXES)
def test_every_box_builds_alone_and_by_the_hundred(name):
    spec = load(name)
    alone, many = build(spec), build(with_(spec, accelerators=100 * spec.domain))
    assert spec.name == name
    assert [tier.size for tier in alone.tiers] == [spec.domain]
    assert (many.usable, many.tiers[-1].size, many.domains) == (100 * spec.domain, 100 * spec.domain, 100)
    assert many.tiers[0].bandwidth_Bps == pytest.approx(many.accelerator.scale_up_Bps)
    assert many.tiers[-1].bandwidth_Bps == pytest.approx(spec.scale_out.bandwidth_Bps)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_builds(path):
    cluster = build(load(path))
    parts = [pool(cluster, held.name) for held in cluster.spec.pools] or [cluster]
    assert cluster.name == path.stem
    assert cluster.usable == sum(part.usable for part in parts) <= cluster.accelerators
    assert all(part.tiers[-1].size >= part.usable for part in parts)


def test_an_oversubscribed_spine_halves_the_outer_tier():
    tiers = build(load(next(path for path in EXAMPLES if "oversubscribed" in path.stem))).tiers
    assert tiers[-1].bandwidth_Bps == pytest.approx(25e9)


def test_a_wide_domain_has_a_tier_of_its_own_and_the_same_nics():
    racks, wide = build(parse(GB200)), build(with_(parse(GB200), domain=576))
    assert [tier.size for tier in wide.tiers][:2] == [72, 576]
    assert wide.tiers[-1].bandwidth_Bps == racks.tiers[-1].bandwidth_Bps == 50e9


def test_a_cluster_is_built_once_for_its_content():
    assert build(parse(GB200)) is build(with_(parse(GB200), domain=72))
    assert build(parse(GB200)).fingerprint == fingerprint(parse(GB200))


def test_an_override_reaches_the_cluster():
    faster = {"accelerator": {"hbm_bandwidth": "9TB/s"}}
    cluster = build(parse({**GB200, "override": faster}))
    assert cluster.accelerator.hbm_Bps == 9e12
    assert cluster.fingerprint != build(parse(GB200)).fingerprint


def test_wiring_that_cannot_reach_is_a_fault_of_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**GB200, "scale_out": {"radix": 4, "levels": 1}}), encoding="utf-8")
    with pytest.raises(SpecError) as error:
        build(load(path))
    assert error.value.faults[0].file == str(path)


def test_the_bill_counts_what_is_bought_and_sums_what_is_known():
    paid = bill(build(parse({"accelerator": "gb200", "accelerators": 150})))
    rows = {row["part"]: row for row in paid["parts"]}
    assert rows["gb200"]["count"] == 150
    assert rows["gb200"]["power_W"] == 150 * 1200
    assert rows["nvlink5-switch"]["count"] == 36
    known = [row["power_W"] for row in paid["parts"] if row["power_W"] is not None]
    assert paid["power_W"] == pytest.approx(sum(known))
    assert "nvlink5-switch" in paid["unknown"]["price_usd"]


def test_a_collectives_road_has_the_wire_of_the_tiers_and_the_constants_of_their_links():
    cluster = build(parse(GB200))
    road = road_of(cluster, "all_gather")
    for hop, tier in zip(road, cluster.tiers, strict=True):
        assert (hop.bandwidth_Bps, hop.latency_s, hop.plane) == (tier.bandwidth_Bps, tier.latency_s, tier.plane)
        assert hop.model == lookup(tier.link, "all_gather")[0]


def test_borrowed_constants_are_said_once():
    cluster = build(parse({**GB200, "scale_out": {"nic": "800Gb/s"}}))
    assert len([note for note in notes(cluster, "all_reduce") if "ib-xdr" in note]) == 1


@pytest.mark.parametrize("kind", ["accelerators", "systems", "fabrics"])
def test_lists_name_every_row(kind):
    rows = list_rows(kind)
    assert len({row["name"] for row in rows}) == len(rows) >= 5
    json.dumps(rows)


def test_an_unknown_list_gets_the_nearest():
    with pytest.raises(SpecError, match="did you mean systems"):
        list_rows("sistems")
