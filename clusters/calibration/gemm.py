"""Fit the kernel constants to measured matrix products: `python -m clusters.calibration.gemm [FILE] [--out FILE]`.

Each accelerator and precision is fitted alone: least squares on log(predicted/measured) with a soft-L1 loss, so that
neither the longest products nor a badly chosen library kernel rules the fit. Starts and bounds are fixed, hence the
result is too.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import residuals, significant, write_yaml
from clusters.catalogue import accelerator
from clusters.kernels import CONSTANTS, DATA, TILES, KernelModel, gemm_s, table
from clusters.measurements import Table, read_csv
from topo.columns import Column

SOURCE = "aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0), TensorRT-LLM kernels; measurements/gemm.csv"

#: Where the data name an accelerator otherwise than the catalogue does.
SYSTEMS: Mapping[str, str] = {
    "a100_sxm": "a100-sxm-80",
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200",
}

#: Streaming multiprocessors: A100 and Hopper white papers; device queries of the Blackwell parts.
MULTIPROCESSORS: Mapping[str, int] = {
    "a100-sxm-80": 108,
    "h100-sxm": 132,
    "h200-sxm": 132,
    "b200-sxm": 148,
    "b300-sxm": 148,
    "gb200": 152,
}


@dataclass(frozen=True, slots=True)
class Precision:
    """A data type of the table: our name for it, the data sheet peak it runs against, its bytes per element."""

    name: str
    peak: str
    element_bytes: float


DTYPES: Mapping[str, Precision] = {
    "bfloat16": Precision("bf16", "bf16", 2.0),
    "fp8": Precision("fp8", "fp8", 1.0),
    "fp8_block": Precision("fp8-block", "fp8", 1.0),
    "nvfp4": Precision("nvfp4", "fp4", 0.5625),  # 4 bits and an FP8 scale per 16 elements
}

#: Start, lower and upper bound of every constant; BF16 needs no cast and fits seven.
START = (4e-6, 0.75, 0.3, 150.0, 0.85, 3e-7, 3.0, 4.0)
LOWER = (5e-7, 0.1, 0.0, 0.0, 0.3, 1e-9, 1.0, 0.0)
UPPER = (2e-5, 1.0, 1.0, 2000.0, 0.97, 5e-5, 8.0, 40.0)
SCALE = (1e-6, 0.1, 0.1, 100.0, 0.1, 1e-6, 1.0, 5.0)


def groups(rows: Table) -> Iterator[tuple[str, str, npt.NDArray[np.bool_]]]:
    """Yield (system, dtype, mask) for each set of rows that this module can price."""
    for system in SYSTEMS:
        for dtype in DTYPES:
            mask = (rows["system"] == system) & (rows["dtype"] == dtype)
            if mask.any():
                yield system, dtype, mask


def price(rows: Table, model: KernelModel, name: str, dtype: str) -> Column:
    """Seconds of the rows' products on the accelerator `name`, with data sheet figures from the catalogue."""
    part, precision = accelerator(name), DTYPES[dtype]
    size = precision.element_bytes
    return gemm_s(
        rows["m"], rows["n"], rows["k"], model, part.peak_flops[precision.peak], part.hbm_Bps, size, size, 2.0
    )


def fit(rows: Table, name: str, dtype: str) -> KernelModel:
    """Fit the constants of one accelerator and precision to its rows (columns m, n, k, latency_us)."""
    from scipy.optimize import least_squares

    precision = DTYPES[dtype].name
    free = len(CONSTANTS) - (precision == "bf16")
    measured_s = rows["latency_us"] * 1e-6

    def model(values: npt.NDArray[np.float64]) -> KernelModel:
        constants: dict[str, Any] = dict.fromkeys(CONSTANTS, 0.0) | dict(
            zip(CONSTANTS, map(float, values), strict=False)
        )
        return KernelModel(name, precision, multiprocessors=MULTIPROCESSORS[name], tile=TILES[precision], **constants)

    def loss(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.log(price(rows, model(values), name, dtype) / measured_s)

    best = least_squares(
        loss, START[:free], bounds=(LOWER[:free], UPPER[:free]), x_scale=SCALE[:free], loss="soft_l1", f_scale=0.05
    )
    return model(np.array([significant(value) for value in best.x]))


def calibrate(rows: Table) -> dict[str, Any]:
    """Fit every accelerator and precision of the table; return the `measured` part of the data file."""
    measured: dict[str, Any] = {}
    for system, dtype, mask in groups(rows):
        name, part = SYSTEMS[system], {key: values[mask] for key, values in rows.items()}
        model = fit(part, name, dtype)
        entry: dict[str, Any] = {key: getattr(model, key) for key in CONSTANTS}
        entry["residuals"] = residuals(price(part, model, name, dtype), part["latency_us"] * 1e-6)
        entry["software"] = " ".join(sorted(set(part["software"]) | set(part["software_version"]), reverse=True))
        measured.setdefault(name, {"multiprocessors": MULTIPROCESSORS[name], "sustained": 1.0})
        measured[name][DTYPES[dtype].name] = entry
    return measured


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped table, or the reader's own, and write the constants; the fallbacks are kept as they stand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", nargs="?", type=Path, help="a table with the columns of gemm.csv (default: the shipped)"
    )
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    kept = {"sustained": {name: entry["sustained"] for name, entry in table()["measured"].items()}}
    measured = calibrate(read_csv(options.file or "gemm.csv"))
    for name, entry in measured.items():
        entry["sustained"] = kept["sustained"].get(name, 1.0)
    document = {
        "source": str(options.file or SOURCE),
        "fitted": date.today().isoformat(),
        "method": "soft-L1 least squares on log(predicted/measured); residuals are |predicted/measured - 1|",
        "measured": measured,
        "fallback": table()["fallback"],
    }
    write_yaml(
        document, options.out, "Written by python -m clusters.calibration.gemm; only `fallback` is kept by hand."
    )
    for name, entry in measured.items():
        for precision in (key for key in entry if isinstance(entry[key], dict)):
            stated = entry[precision]["residuals"]
            sys.stdout.write(f"{name:14} {precision:10} {stated['median']:7.1%} {stated['p90']:7.1%} {stated['n']:5}\n")


if __name__ == "__main__":
    main()
