"""Measurements that ship with the project: real timings, compressed, with provenance in README.md beside them.

Readers use the standard library only; a column of numbers comes back as float64 with nan for blanks, any other as text.
"""

import csv
import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from topo.errors import Fault, SpecError

HERE = Path(__file__).parent

Table = dict[str, npt.NDArray[Any]]


def names() -> list[str]:
    """Names of the shipped files, without the compression suffix.

    >>> "gemm.csv" in names()
    True
    """
    return sorted(file.name.removesuffix(".gz") for file in HERE.glob("*.gz"))


def path(name: str) -> Path:
    """Return the compressed file of a measurement set.

    Raises
    ------
    SpecError
        There is no such file; the message lists those there are.

    >>> path("gemm.csv").name
    'gemm.csv.gz'
    """
    file = HERE / f"{name.removesuffix('.gz')}.gz"
    if not file.is_file():
        raise SpecError([Fault("measurements", name, "no such file ships", f"use {', '.join(names())}")])
    return file


def read_csv(name: str | Path) -> Table:
    """Read a table as columns. A name of `names()`, or a path to anyone's own CSV, compressed or not.

    >>> table = read_csv("gemm.csv")
    >>> table["latency_us"].dtype, table["latency_us"].shape == table["system"].shape
    (dtype('float64'), True)
    """
    file = name if isinstance(name, Path) else path(name)
    return {key: values.copy() for key, values in _columns(file).items()}


@lru_cache(maxsize=8)
def _columns(file: Path) -> Table:
    with _opened(file) as stream:
        header, *rows = csv.reader(stream)
    return {key: _numeric(values) for key, values in zip(header, zip(*rows, strict=True), strict=True)}


def _opened(file: Path) -> Any:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="")
    return file.open("r", encoding="utf-8", newline="")


def _numeric(values: tuple[str, ...]) -> npt.NDArray[Any]:
    """Return a float64 column with nan for blanks where every filled cell is a number, else the text."""
    text = np.array(values)
    filled = text != ""
    if not filled.any():
        return text
    try:
        numbers = text[filled].astype(np.float64)
    except ValueError:
        return text
    result = np.full(text.shape, np.nan)
    result[filled] = numbers
    return result


def read_json(name: str | Path) -> Any:
    """Read a JSON document.

    >>> sorted(read_json("training_cases.json"))
    ['cases', 'clusters', 'models', 'readme', 'schema_version']
    """
    with _opened(name if isinstance(name, Path) else path(name)) as stream:
        return json.load(stream)
