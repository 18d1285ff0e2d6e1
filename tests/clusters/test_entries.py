"""A user's own catalogue: adds to the shipped one, overrides it, and tells all its faults at once."""

from pathlib import Path

import pytest

from clusters import catalogue, figures
from clusters.build import build, list_rows, path
from clusters.economics import economics
from clusters.memories import memories, memory
from clusters.spec import load, parse
from topo.errors import SpecError

EXAMPLE = Path(__file__).parents[2] / "examples" / "catalogue"
PART = """
name: mine
title: Mine
vendor: me
generation: one
link: nvlink5
nic: connectx-7
figures:
  year: {value: 2026, unit: year, source: recalled}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Write files of a user's catalogue and point podscale at them."""

    def write(**files):
        for name, text in files.items():
            target = tmp_path / (f"accelerators/{name}.yaml" if name.startswith("part") else f"{name}.yaml")
            target.parent.mkdir(exist_ok=True)
            target.write_text(text, encoding="utf-8")
        monkeypatch.setenv(figures.VARIABLE, str(tmp_path))
        return tmp_path

    return write


def _faults(file=None):
    with pytest.raises(SpecError) as error:
        catalogue.names()
    return {fault.field: fault for fault in error.value.faults if file is None or fault.file.endswith(file)}


def test_the_example_adds_a_part_and_overrides_one_figure_of_another(monkeypatch):
    shipped = catalogue.accelerator("h100")
    monkeypatch.setenv(figures.VARIABLE, str(EXAMPLE))
    mine, h100 = catalogue.accelerator("mine"), catalogue.accelerator("h100")
    assert (mine.name, mine.hbm_Bps, mine.missing) == ("my-accelerator", 14e12, ())
    assert mine.figures["hbm_bandwidth"].range == (12, 16)
    assert catalogue.sources()["my-guess"].tier == "user"
    assert (h100.power_W, h100.figures["power"].tier) == (620, "measured")
    assert (h100.hbm_Bps, h100.title, h100.domain) == (shipped.hbm_Bps, shipped.title, shipped.domain)
    cluster = build(parse({"accelerator": "my-accelerator", "accelerators": 128}))
    assert cluster.tiers[0].link == "ualink"
    assert path(cluster, "all_reduce")[0].bandwidth_Bps == 1.2e12
    assert "my-accelerator" in [row["name"] for row in catalogue.accelerator_rows()]


def test_without_the_variable_the_shipped_catalogue_is_back(monkeypatch):
    monkeypatch.setenv(figures.VARIABLE, str(EXAMPLE))
    assert catalogue.accelerator("h100").power_W == 620
    monkeypatch.delenv(figures.VARIABLE)
    assert catalogue.accelerator("h100").power_W == 700
    assert "my-accelerator" not in catalogue.names()


def test_an_edited_file_counts_at_once_in_parts_and_systems(own):
    text = "name: h100-sxm\nfigures:\n  domain: {value: %d, unit: accelerators, source: recalled}\n"
    own(part=text % 4)
    assert (catalogue.accelerator("h100").domain, load("hgx-h100").domain) == (4, 4)
    own(part=text % 2)
    assert (catalogue.accelerator("h100").domain, load("hgx-h100").domain) == (2, 2)


def test_links_nics_and_switches_are_added_and_overridden(own):
    own(
        fabrics="""
links:
  nvlink-mine:
    title: Mine
    plane: scale-up
    switch: big-switch
    figures:
      latency: {value: 2, unit: us, source: recalled}
  ib-ndr:
    figures:
      latency: {value: 1, unit: us, source: recalled}
switches:
  big-switch:
    title: Big
    in_network_reduction: true
    figures:
      ports: {value: 512, unit: ports, source: recalled}
      rate: {value: 100, unit: GB/s, source: recalled}
""",
        part="name: gb200\nlink: nvlink-mine\n",
    )
    spec = parse({"accelerator": "gb200", "accelerators": 512, "domain": 512})
    assert (spec.layers, spec.scale_up.switch, spec.scale_up.latency_s) == (1, "big-switch", 2e-6)
    assert (catalogue.link("ib-ndr").latency_s, catalogue.link("ib-ndr").switch) == (1e-6, "quantum-2")


def test_every_fault_of_a_part_comes_at_once_with_its_file_and_field(own):
    folder = own(
        part="""
name: mine
titel: Mine
vendor: me
link: nvlnk5
figures:
  peak_bf16: {value: 1, unit: GB/s, source: recalled}
  hbm_capacity: {value: 80, source: recalled}
  hbm_bandwidth: {value: 3, unit: TB/s}
  hbm_speed: {value: 3, unit: TB/s, source: recalled}
  power: {value: -1, unit: W, source: my-meter}
  price: {value: 10, unit: USD, source: recalled, range: [1, 2], noted: yes}
""",
        part_two="- not\n- a part\n",
    )
    faults = _faults("part.yaml")
    assert {*faults} == {
        "mine.titel",
        "mine.title",
        "mine.generation",
        "mine.figures.year",
        "mine.link",
        "mine.figures.peak_bf16.unit",
        "mine.figures.hbm_capacity.unit",
        "mine.figures.hbm_bandwidth.source",
        "mine.figures.hbm_speed",
        "mine.figures.power.value",
        "mine.figures.power.source",
        "mine.figures.price.range",
        "mine.figures.price.noted",
    }
    assert "did you mean nvlink5" in faults["mine.link"].remedy
    assert "did you mean title" in faults["mine.titel"].remedy
    assert "flops" in faults["mine.figures.peak_bf16.unit"].problem
    assert all(fault.file == str(folder / "accelerators" / "part.yaml") for fault in faults.values())
    assert {*_faults("part_two.yaml")} == {"file"}


def test_faults_of_sources_fabrics_and_the_folder_come_with_them(own):
    folder = own(
        part=PART,
        sources="mine: {titel: Mine, tier: gospel}\nother: 3\n",
        fabrics="links:\n  wormhole:\n    title: W\n    plane: sideways\nwires: {}\nnics: [1]\n",
        notes="hello: there\n",
    )
    assert {*_faults("sources.yaml")} == {"mine.titel", "mine.title", "mine.date", "mine.tier", "other"}
    assert {*_faults("fabrics.yaml")} == {"wormhole.plane", "wormhole.figures.latency", "wormhole", "wires", "nics"}
    assert {*_faults("notes.yaml")} == {"file"}
    assert _faults()["wormhole"].file == str(folder / "fabrics.yaml")


@pytest.mark.parametrize(("text", "said"), [("name: [", "is not YAML"), ("figures: {}\n", "is missing")])
def test_a_file_that_is_no_part_is_told(own, text, said):
    own(part=PART, part_two=text)
    assert any(said in fault.problem for fault in _faults("part_two.yaml").values())


def test_a_folder_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv(figures.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match="is no folder"):
        catalogue.accelerator("h100")


def test_a_part_of_ones_own_may_be_a_template(own):
    own(part=PART)
    assert catalogue.accelerator("mine").missing == (
        "peak_bf16",
        "hbm_capacity",
        "hbm_bandwidth",
        "scale_up_bandwidth",
        "domain",
    )
    assert catalogue.accelerator_rows()[-1]["missing"] == "template"


# --- memories and prices of one's own ------------------------------------------------------------------------------------


def test_the_example_adds_a_memory_and_overrides_a_price_and_a_rate(monkeypatch):
    shipped = memory("disk"), economics()["facility"]["pue"]
    monkeypatch.setenv(figures.VARIABLE, str(EXAMPLE))
    shelf, disk, power = memory("my-cxl-shelf"), memory("disk"), economics()["facility"]["electricity"]
    assert (shelf.capacity_bytes, shelf.bandwidth_Bps, shelf.drain_s, shelf.latency_s) == (8e12, 100e9, 80.0, None)
    assert shelf.price_usd == pytest.approx(56_000)
    assert (disk.figures["price"].value, disk.capacity_bytes) == (0.03, shipped[0].capacity_bytes)
    assert (power.value, power.range, power.tier) == (0.055, (0.05, 0.07), "measured")
    assert economics()["facility"]["pue"] == shipped[1]
    assert list_rows("memories")[-1]["name"] == "my-cxl-shelf"
    monkeypatch.delenv(figures.VARIABLE)
    assert "my-cxl-shelf" not in memories()
    assert economics()["facility"]["electricity"].value == 0.08


def test_a_memory_may_be_that_of_an_accelerator_of_ones_own(own):
    part = PART + "  hbm_capacity: {value: 100, unit: GB, source: recalled}\n"
    shelf = "hbm-mine: {title: Mine, kind: hbm, per: accelerator, accelerator: mine, figures: {bandwidth: %s}}\n"
    own(part=part, memories=shelf % "{value: 2, unit: TB/s, source: recalled}")
    assert (memory("hbm-mine").capacity_bytes, memory("hbm-mine").bandwidth_Bps) == (100e9, 2e12)
    own(part=PART, memories=shelf % "{value: 3, unit: TB/s, source: recalled}")
    with pytest.raises(SpecError, match=r"hbm-mine\.figures\.capacity: is missing"):
        memory("hbm-mine")


def test_a_price_of_a_part_of_ones_own_is_listed(own):
    own(part=PART, economics="gpu_hour:\n  mine: {value: 2, unit: USD/h, source: recalled}\n")
    assert {row["name"]: row["value"] for row in list_rows("economics")}["gpu_hour/mine"] == 2


def test_every_fault_of_memories_and_prices_comes_at_once(own):
    own(
        memories="""
mine:
  titel: Mine
  kind: tape
  per: rack
  accelerator: h1000
  aliases: [my]
  figures:
    bandwidth: {value: 1, unit: GB, source: recalled}
    latency: {value: -1, unit: us, source: recalled}
    price: {value: 1, unit: USD, source: nobody, range: [2, 3]}
    speed: {value: 1, unit: GB/s, source: recalled}
disk: 3
""",
        economics="""
gpu_hours: {}
facility:
  pue: {value: 1.2, unit: of IT power, source: recalled}
  electricity: 0.08
  water: {value: 1, unit: litre, source: recalled}
optics: [1]
gpu_hour:
  h10: {value: 1, unit: USD/h, source: recalled}
""",
    )
    faults = _faults("memories.yaml")
    assert {*faults} == {
        "disk", "mine.titel", "mine.title", "mine.kind", "mine.per", "mine.accelerator", "mine.aliases",
        "mine.figures.bandwidth.unit", "mine.figures.latency.value", "mine.figures.price.unit",
        "mine.figures.price.source", "mine.figures.price.range", "mine.figures.speed",
    }  # fmt: skip
    assert "hbm or host or pool or flash or disk" in faults["mine.kind"].remedy
    assert "USD/GB" in faults["mine.figures.price.unit"].remedy
    faults = _faults("economics.yaml")
    assert {*faults} == {
        "gpu_hours",
        "facility.pue.unit",
        "facility.electricity",
        "facility.water.unit",
        "optics",
        "gpu_hour.h10",
    }
    assert "did you mean gpu_hour" in faults["gpu_hours"].remedy
    assert "ratio" in faults["facility.pue.unit"].remedy
