"""A kernels file of one's own: what it holds rules, what it lacks is borrowed, what is wrong in it is told."""

import pytest
import yaml

from clusters.kernels import CONSTANTS, kernel, table
from topo.errors import SpecError

MINE = dict.fromkeys(CONSTANTS, 1.0) | {"launch_s": 7e-6, "efficiency": 0.5}


@pytest.fixture
def own(tmp_path, monkeypatch):
    def write(measured):
        file = tmp_path / "mine.yaml"
        file.write_text(measured if isinstance(measured, str) else yaml.safe_dump({"measured": measured}), "utf-8")
        monkeypatch.setenv("PODSCALE_KERNELS", str(file))
        return file

    return write


def test_ones_own_constants_replace_those_of_the_same_precision_only(own):
    shipped, fp8 = kernel("h100-sxm", "bf16"), kernel("h100-sxm", "fp8")
    own({"h100-sxm": {"multiprocessors": 120, "bf16": MINE}})
    mine = kernel("h100-sxm", "bf16")
    assert mine.launch_s == 7e-6 != shipped.launch_s
    assert mine.multiprocessors == 120
    assert mine.note == ""
    assert mine.bands == ()
    assert kernel("h100-sxm", "fp8").efficiency == fp8.efficiency


def test_a_part_that_was_never_measured_becomes_measured(own):
    assert "no measurement" in kernel("h20", "fp8").note
    own({"h20": {"multiprocessors": 78, "fp8": MINE | {"residuals": {"low": 0.9, "high": 1.2}}}})
    assert kernel("h20", "fp8").note == ""
    assert kernel("h20", "fp8").bands == ((float("inf"), 0.9, 1.2),)
    assert "constants of fp8" in kernel("h20", "nvfp4").note
    assert "h200-sxm" in kernel("h20", "bf16").note  # no BF16 rows of its own: the neighbour's, as before


def test_the_catalogue_folder_may_hold_the_file(own, tmp_path, monkeypatch):
    file = own({"h100-sxm": {"multiprocessors": 120, "bf16": MINE}})
    monkeypatch.delenv("PODSCALE_KERNELS")
    file.rename(tmp_path / "kernels.yaml")
    monkeypatch.setenv("PODSCALE_CATALOGUE", str(tmp_path))
    assert kernel("h100-sxm").launch_s == 7e-6
    (tmp_path / "kernels.yaml").unlink()
    assert kernel("h100-sxm").launch_s != 7e-6


def test_without_the_variable_nothing_stays_of_it(own, monkeypatch):
    own({"h100-sxm": {"multiprocessors": 120, "bf16": MINE}})
    assert table()["measured"]["h100-sxm"]["bf16"]["launch_s"] == 7e-6
    monkeypatch.delenv("PODSCALE_KERNELS")
    assert table()["measured"]["h100-sxm"]["bf16"]["launch_s"] != 7e-6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "measured: is missing"),
        ("measured: {}", "measured: is missing"),
        ("measured: {h100-sxm: 3}", "holds no precisions"),
        ("measured: {h100-sxm: {multiprocessors: 132, bf16: {launch_s: fast}}}", "launch_s = 'fast': is no number"),
        ("measured: {h100-sxm: {bf16: {}}}", "multiprocessors: is no count"),
    ],
)
def test_a_wrong_file_is_told_with_its_place(own, text, words):
    own(text)
    with pytest.raises(SpecError) as error:
        kernel("h100-sxm")
    assert words in str(error.value)


def test_every_fault_of_a_file_comes_at_once(own):
    own({"h100-sxm": {"multiprocessors": 132, "bf16": {}, "fp8": {}}})
    with pytest.raises(SpecError) as error:
        table()
    assert len(error.value.faults) == 2 * len(CONSTANTS)


def test_a_file_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PODSCALE_KERNELS", str(tmp_path / "absent.yaml"))
    with pytest.raises(SpecError, match="No such file"):
        kernel("h100-sxm")
