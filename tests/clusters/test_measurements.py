"""The shipped measurements: complete, reproducible bytes, readable as columns."""

import gzip

import numpy as np
import pytest

from clusters import measurements
from topo.errors import SpecError

ROWS = {
    "gemm.csv": 19512,
    "gemm_aiter.csv": 324,
    "moe_aiter.csv": 41,
    "collectives_rocm.csv": 28,
    "collectives_nccl.csv": 16058,
    "collectives_published.csv": 264,
    "moe_all2all.csv": 40316,
    "moe_all2all_gb200_onesided.csv": 74,
}


def test_every_table_of_the_readme_ships_with_its_rows() -> None:
    readme = (measurements.HERE / "README.md").read_text("utf-8")
    for name, rows in ROWS.items():
        assert len(next(iter(measurements.read_csv(name).values()))) == rows
        assert f"`{name}.gz` | {rows:,} |" in readme
    assert all(f"`{name}.gz`" in readme for name in measurements.names())


def test_files_are_compressed_without_a_time_stamp() -> None:
    for name in measurements.names():
        raw = measurements.path(name).read_bytes()
        assert raw[4:8] == bytes(4)
        assert gzip.compress(gzip.decompress(raw), 9, mtime=0)[:9] == raw[:9]


def test_numbers_come_back_as_floats_with_nan_for_blanks_and_text_as_text() -> None:
    table = measurements.read_csv("collectives_published.csv")
    assert table["message_bytes"].dtype == np.float64
    assert np.isnan(table["message_bytes"]).sum() == 48
    assert table["source"].dtype.kind == "U"


def test_a_readers_own_file_is_read_alike(tmp_path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("op,bytes,note\nall_reduce,8,\nall_gather,,\n", encoding="utf-8")
    table = measurements.read_csv(file)
    assert table["op"].tolist() == ["all_reduce", "all_gather"]
    assert table["bytes"][0] == 8.0
    assert np.isnan(table["bytes"][1])
    assert table["note"].tolist() == ["", ""]


def test_a_caller_may_change_what_it_read() -> None:
    measurements.read_csv("moe_all2all_gb200_onesided.csv")["latency_us"][:] = 0.0
    assert measurements.read_csv("moe_all2all_gb200_onesided.csv")["latency_us"].min() > 0


def test_training_cases_refer_to_clusters_that_ship() -> None:
    cases = measurements.read_json("training_cases.json")
    assert len(cases["cases"]) == 1093
    assert {case["cluster"]["ref"] for case in cases["cases"]} <= set(cases["clusters"])


def test_a_missing_file_names_those_that_ship() -> None:
    with pytest.raises(SpecError, match=r"gemm\.csv"):
        measurements.path("gem.csv")
