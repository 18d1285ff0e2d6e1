"""Clusters of unlike parts, with something missing or slow, or written down by another tool."""

import pickle
from pathlib import Path

import networkx as nx
import pytest

from clusters.build import between, bill, build, facts, notes, pool
from clusters.build import path as road_of
from clusters.spec import fingerprint, focus, load, parse, part_of, with_
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.formats import write
from topo.graphs import expand
from topo.tiers import tiers

FORMATS = Path(__file__).parents[1] / "topo" / "formats"
OLD = {"name": "old", "accelerator": "h100", "accelerators": 512}
NEW = {"name": "new", "accelerator": "gb200", "accelerators": 144}
BOTH = {"pools": [OLD, NEW], "join": {"bandwidth": "1TB/s"}}
SLOW = {"node": "nic", "at": {"rail": 3}, "to": "leaf", "factor": 0.5}
GB200 = {"accelerator": "gb200", "accelerators": 1152}

TWO_RACKS = """
name: two-racks
pools:
  - {name: old, accelerator: h100-sxm, accelerators: 64}
  - name: new
    accelerator: gb200
    accelerators: 144
    changes:
      - {node: nic, at: {rail: 3}, to: leaf, factor: 0.5}   # a slow rail
join:
  oversubscription: 2:1
"""


def faults_of(data):
    with pytest.raises(SpecError) as error:
        build(parse(data, "mine.yaml"))
    assert {fault.file for fault in error.value.faults} == {"mine.yaml"}
    return {fault.field: fault for fault in error.value.faults}


# --- pools ------------------------------------------------------------------------------------------------------------


def test_two_kinds_of_rack_and_one_slow_rail(tmp_path):
    file = tmp_path / "two-racks.yaml"
    file.write_text(TWO_RACKS, encoding="utf-8")
    cluster = build(load(file))
    old, new = pool(cluster, "old"), pool(cluster, "new")
    assert (cluster.accelerators, cluster.usable, cluster.domains) == (208, 208, 10)
    assert [(tier.size, tier.bandwidth_Bps / 1e9) for tier in old.tiers] == [(8, 450), (64, 50)]
    assert [(tier.size, tier.bandwidth_Bps / 1e9) for tier in new.tiers] == [(72, 900), (144, 43.75)]  # 3.5 of 4 rails
    assert between(cluster, "old", "new")["bandwidth_Bps"] == pytest.approx(64 * 50e9 / 2)
    told = facts(cluster)
    assert (told["accelerators"], told["pools"]) == (208, ["old.accelerator", "new.accelerator"])


def test_each_pool_has_its_own_part_counts_and_road():
    cluster = build(parse(BOTH))
    old, new = (pool(cluster, name) for name in ("old", "new"))
    assert (old.name, old.domain, old.usable, old.accelerator.name) == ("old+new/old", 8, 512, "h100-sxm")
    assert (new.name, new.domain, new.usable, new.accelerator.name) == ("old+new/new", 72, 144, "gb200")
    assert road_of(old, "all_reduce")[0].bandwidth_Bps == 450e9
    assert road_of(new, "all_reduce")[0].bandwidth_Bps == 900e9
    assert (cluster.accelerator.name, cluster.tiers) == ("h100-sxm", (*old.tiers, *new.tiers))
    with pytest.raises(SpecError, match="take one pool: old, new"):
        road_of(cluster, "all_reduce")
    with pytest.raises(SpecError, match="did you mean old"):
        pool(cluster, "olt")


def test_a_pool_can_be_named_in_a_spec_that_travels():
    spec = focus(parse(BOTH), "new")
    assert build(pickle.loads(pickle.dumps(spec))) is pool(build(parse(BOTH)), "new")  # noqa: S301
    assert len({fingerprint(focus(spec, name)) for name in ("", "old", "new")}) == 3
    assert focus(spec, "") == parse(BOTH)
    assert (part_of(spec).name, spec.usable, spec.domains) == ("gb200", 144, 2)
    assert with_(spec, name="other").focus == "new"


def test_the_bill_holds_every_pools_accelerators():
    same = {**OLD, "name": "more", "override": {"accelerator": {"power": "1kW"}}}
    rows = {row["part"]: row for row in bill(build(parse({"pools": [OLD, NEW, same]})))["parts"]}
    assert (rows["h100-sxm"]["count"], rows["gb200"]["count"]) == (1024, 144)
    assert rows["h100-sxm"]["power_W"] == 512 * 700 + 512 * 1000


def test_pools_far_apart_are_joined_by_fibre():
    far = build(parse({**BOTH, "join": {"bandwidth": "1TB/s", "km": 40}}))
    assert between(far, "old", "new")["latency_s"] == pytest.approx(200e-6, rel=0.05)
    third = {**NEW, "name": "far"}
    spans = [{"between": ["old", "new"], "km": 1}, {"between": ["new", "far"], "km": 2, "bandwidth": "2TB/s"}]
    chain = build(parse({"pools": [OLD, NEW, third], "join": {"bandwidth": "1TB/s", "spans": spans}}))
    assert between(chain, "new", "far")["bandwidth_Bps"] == 2e12
    assert between(chain, "old", "far")["bandwidth_Bps"] == 1e12


def test_a_pool_of_any_wiring_joins():
    torus = {"name": "tpu", "accelerator": "tpu-v5e", "accelerators": 512, "domain": 256}
    cluster = build(parse({"pools": [torus, NEW]}))
    assert pool(cluster, "tpu").tiers[0].kind == "torus"


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        ({"pools": [OLD]}, {"pools"}),
        ({"pools": [OLD, {**NEW, "name": "old"}]}, {"pools"}),
        ({**BOTH, "domain": 8, "accelerator": "gb200"}, {"domain", "accelerator"}),
        ({"pools": [OLD, {"name": "new", "accelerator": "gb20"}]}, {"pools.1.accelerator", "pools.1.accelerators"}),
        ({"pools": [OLD, {key: NEW[key] for key in ("accelerator", "accelerators")}]}, {"pools.1.name"}),
        ({"pools": [OLD, {**NEW, "scale_out": {"radix": "many"}}]}, {"pools.1.scale_out.radix"}),
        ({"pools": [OLD, {**NEW, "sites": {}}]}, {"pools.1.sites"}),
        ({"pools": [OLD, {**NEW, "scale_out": {"levels": 1, "radix": 8}}]}, {"pools.1.scale_out.levels"}),
        ({"pools": "old"}, {"pools", "accelerator", "accelerators"}),
        (
            {**BOTH, "join": {"spans": [{"between": ["old", "olt"], "km": 1, "bandwidth": "1TB/s"}]}},
            {"join.spans.0.between"},
        ),
        ({**BOTH, "join": {"spans": [{"between": ["old", "new"]}]}}, {"join.spans.0.km", "join.spans.0.bandwidth"}),
        ({**BOTH, "join": {"km": 3}}, {"join.bandwidth"}),
        ({**BOTH, "join": {"km": 3, "bandwidth": "1TB/s", "radix": 4}}, {"join.radix"}),
        ({**BOTH, "changes": [{"node": "nic", "at": {"rail": 3}}]}, {"changes.0"}),
    ],
)
def test_faults_of_pools_name_the_pool(data, fields):
    assert set(faults_of(data)) == fields


def test_what_pools_own_is_not_varied_from_above():
    with pytest.raises(SpecError, match=r"domain = 8: stands beside pools. write it in each pool"):
        with_(parse(BOTH), domain=8)
    assert with_(parse(BOTH), pools=[OLD, {**NEW, "domain": 36}]).pools[1].domain == 36
    assert with_(parse(BOTH)) == parse(BOTH)


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_slow_rail_slows_what_crosses_it():
    spec = parse({**GB200, "changes": [SLOW]})
    assert build(spec).tiers[-1].bandwidth_Bps == pytest.approx(50e9 * 3.5 / 4)
    assert build(spec).usable == 1152
    assert with_(spec) == spec
    assert with_(spec, changes=None).changes == ()


def test_a_domain_that_lacks_an_accelerator_is_idle_unless_all_do():
    lost = {"remove": {"unit": 0, "domain": 0, "slot": 2, "rail": 1}}
    hurt = build(parse({**GB200, "changes": [lost]}))
    assert (hurt.usable, hurt.domain, hurt.domains, hurt.accelerators) == (1080, 72, 15, 1152)
    alone = build(parse({"accelerator": "gb200", "accelerators": 72, "changes": [{"remove": {"slot": 0, "rail": 0}}]}))
    assert (alone.usable, alone.domain, alone.tiers[0].size) == (71, 71, 71)
    assert facts(alone)["accelerators"] == 71


def test_a_draw_is_the_same_for_the_same_seed():
    def drawn(seed):
        change = {"node": "accelerator", "random": {"count": 3, "seed": seed}}
        return build(parse({**GB200, "changes": [change]})).blueprint.changes

    assert drawn(7) == drawn(7) != drawn(8)
    assert len(set(drawn(7))) == 3


def test_a_share_is_drawn_among_those_at_a_place():
    change = {"node": "leaf", "at": {"rail": "0:2"}, "factor": 0.5, "random": {"share": 0.25}}
    cluster = build(parse({**GB200, "changes": [change]}))
    leaves = cluster.blueprint.population(cluster.blueprint.node("leaf").axes)
    assert len(cluster.blueprint.changes) == round(leaves / 2 / 4)
    assert all(dict(made.at)["rail"] in {(0, 1), (1, 2)} for made in cluster.blueprint.changes)


def test_changes_of_the_whole_name_the_pool():
    cluster = build(parse({**BOTH, "changes": [{"node": "old.nic", "at": {"old.rail": "0:4"}, "factor": 0.5}]}))
    assert pool(cluster, "old").tiers[-1].bandwidth_Bps == pytest.approx(37.5e9)
    assert pool(cluster, "new").tiers[-1].bandwidth_Bps == pytest.approx(50e9)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "changes.0"),
        ({"remove": {"domain": 3}, "node": "nic", "at": {"rail": 1}}, "changes.0"),
        ({"remove": {"domain": 3}, "factor": 0.5}, "changes.0.factor"),
        ({"node": "nic"}, "changes.0.at"),
        ({"node": "nic", "at": {"rail": "4:2"}}, "changes.0.at"),
        ({"node": "nic", "at": {"rail": 1}, "to_at": {"rail": 1}}, "changes.0.to_at"),
        ({"node": "nic", "at": {"rail": 1}, "factor": -1}, "changes.0.factor"),
        ({"node": "nic", "random": {"seed": 1}}, "changes.0.random"),
        ({"node": "nic", "random": {"share": 2}}, "changes.0.random.share"),
        ({"remove": {"domian": 3}}, "changes.0.remove"),
        ({"remove": {"rail": 1, "plane": 1}}, "changes.0.remove"),
        ({"node": "nik", "at": {"rail": 1}}, "changes.0"),
        ({"node": "nic", "at": {"row": 1}}, "changes.0.row"),
        ({"node": "nic", "at": {"rail": 44}}, "changes.0.rail"),
        ({"node": "nic", "at": {"rail": 1}, "to": "spine"}, "changes.0"),
        ({"node": "leaf", "random": {"count": 1000}}, "changes.0.random"),
    ],
)
def test_a_wrong_change_is_named_with_what_there_is(change, field):
    faults = faults_of({**GB200, "changes": [change]})
    assert set(faults) == {field}


# --- graphs of other tools --------------------------------------------------------------------------------------------


@pytest.fixture
def fabric(tmp_path):
    """A cluster of two boxes of eight, as another tool writes it down, and the file that names it."""
    blueprint = cluster_blueprint("two", 2, ScaleUp(8, 900e9, 1e-6, "cable"), ScaleOut(50e9, "fibre"))
    write(expand(blueprint), tmp_path / "fabric.json", "node-link")
    file = tmp_path / "mine.yaml"
    file.write_text("accelerator: h100\ngraph: fabric.json\n", encoding="utf-8")
    return blueprint, file


def test_a_graph_stands_in_for_both_networks(fabric):
    blueprint, file = fabric
    spec = load(file)
    cluster = build(spec)
    assert (spec.accelerators, cluster.usable, cluster.domain, cluster.domains) == (16, 16, 8, 2)
    assert [(tier.size, tier.bandwidth_Bps) for tier in cluster.tiers] == [
        (tier.size, pytest.approx(tier.bandwidth_Bps)) for tier in tiers(blueprint)
    ]
    assert [tier.link for tier in cluster.tiers] == ["nvlink4", "ib-ndr"]
    assert [hop.plane for hop in road_of(cluster, "all_reduce")] == ["scale-up", "scale-out"]
    assert facts(cluster)["accelerators"] == 16
    counts = {row["part"]: row["count"] for row in bill(cluster)["parts"]}
    assert (counts["h100-sxm"], counts["fibre"], "accelerator" in counts) == (16, 16, False)


def test_a_graph_is_told_from_another_by_its_content(fabric, tmp_path):
    _, file = fabric
    spec = load(file)
    (tmp_path / "copy.json").write_bytes((tmp_path / "fabric.json").read_bytes())
    copy = parse({"accelerator": "h100", "graph": "copy.json"}, str(file))
    assert fingerprint(copy) == fingerprint(spec)
    assert with_(spec) == spec
    assert part_of(with_(spec, accelerator="b200")).name == "b200-sxm"
    graph = nx.node_link_graph(nx.node_link_data(expand(fabric[0]), edges="links"), edges="links")
    for held in graph.edges.values():
        held["latency_s"] *= 2
    write(graph, tmp_path / "fabric.json", "node-link")
    assert fingerprint(load(file)) != fingerprint(spec)


def test_an_imported_graph_has_no_symmetries_and_says_so(fabric):
    with pytest.raises(SpecError, match="another tool wrote down"):
        build(load(fabric[1])).blueprint  # noqa: B018


def test_what_a_graph_replaces_may_not_stand_beside_it(fabric):
    _, file = fabric
    with pytest.raises(SpecError) as error:
        with_(load(file), domain=8, scale_up={"bandwidth": "1TB/s"}, scale_out={"nic": "400Gb/s", "rails": 8})
    assert {fault.field for fault in error.value.faults} == {"domain", "scale_up.bandwidth", "scale_out.rails"}


def test_lines_that_say_nothing_become_notes():
    found = FORMATS / "hybrid-mesh.txt"
    cluster = build(parse({"accelerator": "h100", "graph": str(found)}))
    assert len(cluster.unused) == 2
    assert set(cluster.unused) <= set(notes(cluster, "all_reduce"))
    assert all(note.startswith(found.name) for note in cluster.unused)


def test_a_format_and_its_words_may_be_given(tmp_path):
    (tmp_path / "ring.yml").write_text(
        "topology: [ Ring ]\nnpus_count: [ 4 ]\nbandwidth: [ 50.0 ]\nlatency: [ 500.0 ]\n", encoding="utf-8"
    )
    graph = {"file": "ring.yml", "format": "astra-sim"}
    spec = parse({"accelerator": "h100", "graph": graph}, str(tmp_path / "mine.yaml"))
    assert (spec.accelerators, build(spec).tiers[0].kind) == (4, "mesh")
    with pytest.raises(SpecError, match="known: nvidia-smi"):
        parse({"accelerator": "h100", "graph": {**graph, "format": "dot"}}, str(tmp_path / "mine.yaml"))
