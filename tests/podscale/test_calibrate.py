"""`podscale calibrate` and `validate gemm` through the front door."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from clusters.kernels import CONSTANTS
from clusters.products import groups, read_products, select
from podscale.cli import main

LOGS = Path(__file__).parents[1] / "clusters" / "nccl"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rows = read_products()
    part = select(rows, groups(rows)["h100-sxm", "fp8"])
    file = tmp_path_factory.mktemp("own") / "own.csv"
    columns = ("system", "dtype", "m", "n", "k", "latency_us")
    lines = [",".join(map(str, cells)) for cells in zip(*(part[key] for key in columns), strict=True)]
    file.write_text("\n".join([",".join(columns), *lines]), "utf-8")
    return file


def answer(capsys, *argv):
    code = main([*map(str, argv), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_table_of_ones_own_becomes_a_kernels_file(table, tmp_path, capsys):
    out = tmp_path / "mine.yaml"
    code, document = answer(capsys, "calibrate", "gemm", table, "--out", out)
    assert code == 0
    constants, stated = document["constants"]["h100-sxm"]["fp8"], document["residuals"]["h100-sxm"]["fp8"]
    assert set(constants) == set(CONSTANTS)
    assert stated["median"] < 0.05
    assert stated["held_out"]["median"] < 0.05
    entry = yaml.safe_load(out.read_text("utf-8"))["measured"]["h100-sxm"]
    assert {key: entry["fp8"][key] for key in CONSTANTS} == constants
    assert np.isinf(entry["fp8"]["bands"][-1][0])


def test_the_answer_in_words_says_how_to_use_it(table, tmp_path, capsys):
    assert main(["calibrate", "gemm", str(table), "--out", str(tmp_path / "mine.yaml")]) == 0
    told = capsys.readouterr().out
    assert "h100-sxm fp8" in told
    assert "PODSCALE_KERNELS=" in told


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("m,n\n1,2", ["no such column", "latency_us"]),
        ("system,dtype,m,n,k,latency_us\nh10,fp8,1,x,1,1", ["n (line 2)", "did you mean h100"]),
        ("system,dtype,m,n,k,latency_us\nh100,odd,1,1,1,1", ["no such precision"]),
        ("system,dtype,m,n,k,latency_us\nh100,fp8,1,1,1,1", ["too few to fit"]),
    ],
)
def test_a_bad_table_exits_2_with_every_fault(lines, words, tmp_path, capsys):
    file = tmp_path / "bad.csv"
    file.write_text(lines, "utf-8")
    assert main(["calibrate", "gemm", str(file), "--out", str(tmp_path / "mine.yaml")]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words)
    assert not (tmp_path / "mine.yaml").exists()


def test_a_place_that_cannot_be_written_is_told(table, tmp_path, capsys):
    code, document = answer(capsys, "calibrate", "gemm", table, "--out", tmp_path / "absent" / "mine.yaml")
    assert code == 2
    assert "cannot be written" in document["error"]["message"]


def test_an_unknown_kind_gets_the_nearest(tmp_path, capsys):
    assert main(["calibrate", "gem", str(tmp_path / "x.csv"), "--out", "x"]) == 2
    assert "write gemm" in capsys.readouterr().err


def test_validate_scores_ones_own_table(table, capsys):
    code, document = answer(capsys, "validate", "gemm", table)
    assert code == 0
    assert document["summary"]["n"] == document["summary"]["predicted"] > 500


# --- collectives -----------------------------------------------------------------------------------------------------


def test_the_output_of_nccl_tests_becomes_a_tunings_file(tmp_path, capsys, monkeypatch):
    out = tmp_path / "mine.yaml"
    code, document = answer(capsys, "calibrate", "collectives", LOGS / "one-node-h100.log", "--out", out)
    assert code == 0
    assert set(document["constants"]["nvlink4"]) == {"all_reduce nccl", "all_gather nccl"}
    assert document["residuals"]["nvlink4"]["all_gather nccl"]["median"] < 0.03
    assert {held["reason"] for held in document["unused"]} >= {"NCCL's own log", "no constants for broadcast"}
    assert {"measured", "predicted", "ape", "bytes"} <= document["rows"][0].keys()
    asked = ("collective", "all_gather", "--cluster", "hgx-h100", "--ranks", "8", "--bytes", "1GiB")
    monkeypatch.setattr("clusters.build._PATHS", {})
    _, before = answer(capsys, *asked, "--fidelity", "closed")
    monkeypatch.setenv("PODSCALE_TUNINGS", str(out))
    monkeypatch.setattr("clusters.build._PATHS", {})
    _, after = answer(capsys, *asked, "--fidelity", "closed")
    assert before["time_s"] != after["time_s"] == pytest.approx(before["time_s"], rel=0.1)


def test_the_answer_in_words_shows_prices_beside_times_and_lines_not_used(tmp_path, capsys):
    file = str(LOGS / "one-node-h100.log")
    assert main(["calibrate", "collectives", file, "--out", str(tmp_path / "mine.yaml")]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("Measured and predicted", "PODSCALE_TUNINGS=", "Lines not used", "16-19"))
    assert "one group size" in told


def test_flags_fill_in_what_a_log_lacks(tmp_path, capsys):
    file = tmp_path / "mine.txt"
    text = (LOGS / "early-a100.log").read_text("utf-8").split("\n")
    file.write_text("\n".join(line for line in text[1:] if "Rank" not in line), "utf-8")
    out = ("--out", tmp_path / "mine.yaml")
    code, document = answer(capsys, "calibrate", "collectives", file, *out, "--op", "reduce_scatter", "--ranks", "8")
    assert code == 2
    assert "--cluster" in document["error"]["message"]
    flags = ("--op", "reduce_scatter", "--ranks", "8", "--cluster", "hgx-a100")
    code, document = answer(capsys, "calibrate", "collectives", file, *out, *flags)
    assert code == 0
    assert list(document["constants"]) == ["nvlink3"]


def test_flags_of_the_other_kind_are_refused(table, tmp_path, capsys):
    assert main(["calibrate", "gemm", str(table), "--out", str(tmp_path / "x"), "--ranks", "8", "--op", "y"]) == 2
    told = capsys.readouterr().err
    assert "--ranks" in told
    assert "--op" in told


def test_a_log_without_a_test_exits_2(tmp_path, capsys):
    (tmp_path / "x.log").write_text("nothing here\n", "utf-8")
    assert main(["calibrate", "collectives", str(tmp_path / "x.log"), "--out", str(tmp_path / "mine.yaml")]) == 2
    assert "holds no row of nccl-tests" in capsys.readouterr().err
    assert not (tmp_path / "mine.yaml").exists()
