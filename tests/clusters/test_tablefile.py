"""A reader's own table: read whichever way it is stored, and every fault named with its line."""

import gzip

import numpy as np
import pytest

from clusters.tablefile import MOST_FAULTS, read_table
from topo.errors import SpecError

GOOD = "dtype,m,note,us\nfp8, 1 ,x,2.5\n\nbf16,4,,1e3\n"


def write(tmp_path, text, name="own.csv"):
    file = tmp_path / name
    data = text.encode() if isinstance(text, str) else text
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return file


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_columns_come_back_with_the_line_of_every_row(tmp_path, name, mark):
    table = read_table(write(tmp_path, mark + GOOD, name), ["m", "us"], ["dtype"], ["note", "absent"])
    assert sorted(table) == ["dtype", "line", "m", "note", "us"]
    assert table["dtype"].tolist() == ["fp8", "bf16"]
    assert table["m"].dtype == np.float64
    assert table["us"].tolist() == [2.5, 1000.0]
    assert table["line"].tolist() == [2, 4]


def faults(tmp_path, text, **options):
    with pytest.raises(SpecError) as error:
        read_table(write(tmp_path, text), ["m", "us"], ["dtype"], **options)
    return error.value.faults


def test_missing_columns_come_all_at_once(tmp_path):
    assert {fault.field for fault in faults(tmp_path, "a,m\n1,2\n")} == {"us", "dtype"}
    assert {fault.field for fault in faults(tmp_path, "")} == {"m", "us", "dtype"}
    assert "nothing below" in faults(tmp_path, "dtype,m,us\n")[0].problem


def test_wrong_cells_are_named_with_their_line_and_all_at_once(tmp_path):
    found = faults(tmp_path, "dtype,m,us\nfp8,1,2\nfp8,x,-3\n,1,nan\nfp8,1\nfp8,1,inf\n")
    assert [(fault.field, fault.value) for fault in found] == [
        ("m (line 3)", "x"),
        ("us (line 3)", "-3"),
        ("dtype (line 4)", None),
        ("us (line 4)", "nan"),
        ("line 5", None),
        ("us (line 6)", "inf"),
    ]


def test_words_are_checked_once_at_their_first_line_together_with_the_cells(tmp_path):
    def known(key, word):
        return None if word == "fp8" else ("no such thing", "write fp8")

    found = faults(tmp_path, "dtype,m,us\nfp8,1,2\nodd,1,2\nodd,x,2\n", check=known)
    assert [fault.field for fault in found] == ["m (line 4)", "dtype (line 3)"]


def test_a_flood_of_faults_is_counted(tmp_path):
    found = faults(tmp_path, "dtype,m,us\n" + "fp8,x,1\n" * 50)
    assert len(found) == MOST_FAULTS + 1
    assert "30 more" in found[-1].problem


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", None])
def test_a_file_that_cannot_be_read_is_told(tmp_path, data):
    file = write(tmp_path, data) if data else tmp_path / "absent.csv"
    with pytest.raises(SpecError, match="cannot be read"):
        read_table(file, ["m"])
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(SpecError, match="cannot be read"):
        read_table(broken, ["m"])
