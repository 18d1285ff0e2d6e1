"""An accelerator of the user's own in a cluster file: what it states, what it borrows, and every fault at once."""

import json
import pickle
from pathlib import Path

import pytest

from clusters import catalogue
from clusters.kernels import kernel
from clusters.own import FIGURES, LENT, own_part
from clusters.spec import fingerprint, load, parse, part_of, with_
from clusters.specfile import OwnAcceleratorFile, check
from topo.errors import SpecError

EXAMPLE = Path(__file__).parents[2] / "examples" / "clusters" / "my-own.yaml"
SILICON = {"peak_bf16": "1.2 PFLOP/s", "hbm_capacity": "192 GB", "hbm_bandwidth": "8 TB/s"}
LIKE = {"accelerator": {"name": "My_Chip", "like": "h100", **SILICON}, "accelerators": 64}
ALONE = {**SILICON, "link": "nvlink5", "scale_up_bandwidth": "1 TB/s", "domain": 16, "nic": "400Gb/s"}


def faults_of(accelerator, **more):
    with pytest.raises(SpecError) as error:
        parse({"accelerator": accelerator, "accelerators": 64, **more}, "mine.yaml")
    assert all(fault.file == "mine.yaml" for fault in error.value.faults)
    return {fault.field: fault for fault in error.value.faults}


def test_silicon_is_stated_and_wiring_is_lent():
    spec = parse(LIKE)
    part, like = part_of(spec), catalogue.accelerator("h100")
    assert (spec.accelerator, part.name, part.title, part.like) == ("my-chip", "my-chip", "my-chip", "h100-sxm")
    assert (part.hbm_bytes, part.hbm_Bps, dict(part.peak_flops)) == (192e9, 8e12, {"bf16": 1.2e15})
    assert (part.power_W, part.price_usd, part.sram_bytes) == (None, None, None)
    assert (spec.domain, spec.scale_up.link, spec.scale_up.bandwidth_Bps) == (8, like.link, like.scale_up_Bps)
    assert (spec.scale_out.nic, spec.scale_up.switches, part.generation) == (like.nic, like.switches, "hopper")


def test_an_accelerator_that_is_like_none_states_its_wiring_too():
    spec = parse({"accelerator": ALONE, "accelerators": 64})
    assert (spec.accelerator, spec.name) == ("my-accelerator", "my-accelerator-x64")
    assert (spec.domain, spec.scale_up.bandwidth_Bps, spec.scale_out.nic_Bps) == (16, 1e12, 50e9)
    assert part_of(spec).missing == ()


@pytest.mark.parametrize(("field", "rivals"), LENT.items())
def test_what_is_lent_gives_way_to_what_is_stated(field, rivals):
    stated = {"domain": 32, "link": "nvlink5", "scale_up_bandwidth": 1e12, "nic": "connectx-8"}
    like = next(part for part in map(catalogue.accelerator, catalogue.names()) if field in part.figures)
    assert field in own_part({"like": like.name}).figures
    for rival in rivals:
        assert field not in own_part({"like": like.name, rival: stated[rival]}).figures


def test_a_nic_may_be_a_rate_of_its_own_and_counts_once_for_each():
    spec = parse({**LIKE, "accelerator": {**LIKE["accelerator"], "nic": "600Gb/s"}})
    assert (spec.scale_out.nic_Bps, spec.scale_out.nics_per_accelerator) == (75e9, 1.0)
    two = with_(spec, **{"accelerator.nics": 2})
    assert two.scale_out.bandwidth_Bps == 150e9
    assert with_(two, **{"scale_out.nic": "400Gb/s"}).scale_out.nic_Bps == 50e9


def test_missing_figures_come_at_once_with_a_remedy():
    found = faults_of({"name": "mine"})
    assert list(found) == [f"accelerator.{key}" for key in catalogue.REQUIRED]
    assert "like: h100-sxm" in found["accelerator.link"].remedy
    assert "like" not in found["accelerator.peak_bf16"].remedy
    assert set(faults_of({"like": "h100"})) == {f"accelerator.{key}" for key in catalogue.TEMPLATE}
    assert "scale_up_bandwidth: 900GB/s" in found["accelerator.scale_up_bandwidth"].remedy


def test_the_files_own_wiring_stands_in_for_the_accelerators():
    wiring = {"domain": 8, "scale_up": {"link": "nvlink5", "bandwidth": "1TB/s"}, "scale_out": {"nic": "400Gb/s"}}
    assert parse({"accelerator": SILICON, "accelerators": 64, **wiring}).domains == 8


def test_wrong_fields_and_missing_ones_come_in_one_error():
    found = faults_of(
        {"name": "gb200", "like": "h10", "peak_bf16": "fast", "hbm_bandwith": "8TB/s", "power": 0}, domain=0
    )
    assert set(found) == {
        "accelerator.name", "accelerator.like", "accelerator.peak_bf16", "accelerator.hbm_bandwith",
        "accelerator.power", "domain", "accelerator.hbm_capacity", "accelerator.hbm_bandwidth",
    }  # fmt: skip
    assert "override" in found["accelerator.name"].remedy
    assert "did you mean hbm_bandwidth" in found["accelerator.hbm_bandwith"].remedy


@pytest.mark.parametrize("accelerator", [8, ["gb200"], True])
def test_neither_a_name_nor_a_section_is_a_fault_of_the_field(accelerator):
    assert set(faults_of(accelerator)) == {"accelerator"}


def test_a_part_that_is_like_a_mesh_is_wired_as_one():
    up = parse({"accelerator": {"like": "mi300x", **SILICON}, "accelerators": 64}).scale_up
    assert (up.kind, up.bandwidth_Bps, up.link_Bps) == ("mesh", 448e9, (64e9,))


def test_it_varies_overrides_and_pickles_like_any_other():
    spec = parse(LIKE)
    assert with_(spec) == spec == pickle.loads(pickle.dumps(spec))  # noqa: S301
    assert part_of(with_(spec, **{"accelerator.hbm_bandwidth": "9TB/s"})).hbm_Bps == 9e12
    assert part_of(with_(spec, **{"override.accelerator.power": "1kW"})).like == "h100-sxm"
    assert with_(spec, accelerator="h200").own == ()
    assert with_(parse({"accelerator": "gb200", "accelerators": 72}), domain=8, **LIKE).accelerator == "my-chip"


@pytest.mark.parametrize(
    "change", [{"name": "other"}, {"like": "h200"}, {"peak_fp8": "2PFLOP/s"}, {"link": "nvlink5"}, {"power": "1W"}]
)
def test_the_fingerprint_tells_any_two_apart(change):
    changed = {**LIKE, "name": "same", "accelerator": {**LIKE["accelerator"], **change}}
    assert fingerprint(parse({**LIKE, "name": "same"})) != fingerprint(parse(changed))


def test_every_figure_it_may_state_is_a_field_and_says_that_it_is_the_files():
    assert set(FIGURES) < set(OwnAcceleratorFile.model_fields)
    values, faults, _ = check(json.loads(json.dumps({"accelerator": ALONE, "accelerators": 8})))
    assert (faults, values["accelerator"]["nic"]) == ([], 50e9)
    figure = part_of(parse(LIKE)).figures["hbm_bandwidth"]
    assert catalogue.sources()[figure.source].tier == figure.tier == "user"


def test_kernels_are_those_of_the_part_it_is_like_and_say_so():
    mine, like = kernel("my-chip", "bf16", "b200-sxm"), kernel("b200-sxm", "bf16")
    assert (mine.efficiency, mine.launch_s, mine.multiprocessors) == (
        like.efficiency,
        like.launch_s,
        like.multiprocessors,
    )
    assert mine.note.startswith("no measurement of my-chip: constants of b200-sxm (the cluster file says")
    assert (like.note, mine.bands) == ("", ())


def test_a_part_like_an_unmeasured_one_takes_what_that_one_takes():
    mine, like = kernel("my-chip", "bf16", "mi300x"), kernel("mi300x", "bf16")
    assert (mine.efficiency, mine.multiprocessors) == (like.efficiency, like.multiprocessors)
    assert "it is like mi300x: next generation of the same libraries" in mine.note


def test_the_example_is_short_and_whole():
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40
    spec = load(EXAMPLE)
    assert (spec.accelerator, spec.domain, spec.accelerators) == ("my-chip", 72, 2304)
