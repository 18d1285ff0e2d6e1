"""Fit the kernel constants to measured matrix products: `python -m clusters.calibration.gemm [FILE] [--out FILE]`.

Each accelerator and precision is fitted alone: least squares on log(predicted/measured) with a soft-L1 loss, so that
neither the longest products nor a badly chosen library kernel rules the fit. Starts and bounds are fixed, hence the
result is too. Beside the residuals stands what the fit says of shapes that it has not seen (`held_out`): the shapes are
dealt into five parts, and each is priced with constants fitted to the other four.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import ape, bands, residuals, significant, write_yaml
from clusters.catalogue import accelerator
from clusters.kernel_models import DATA
from clusters.kernels import CONSTANTS, TILES, KernelModel, exact_waves, interval, kernel, table
from clusters.measurements import Table
from clusters.products import UNCAST, groups, part_of, precision_of, price, read_products, select
from topo.errors import Fault, SpecError

SOURCE: Final = (
    "aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0), TensorRT-LLM and vLLM kernels; measurements/gemm.csv; AMD: ROCm/aiter "
    "(MIT), tuned kernels; measurements/gemm_aiter.csv"
)
METHOD: Final = (
    "soft-L1 least squares on log(predicted/measured); residuals are |predicted/measured - 1|; bands are the 5th and "
    "95th percentile of measured/predicted up to a number of waves; held_out: five folds of the shapes"
)

FOLDS: Final = 5
LEAST_ROWS: Final = 16
"""Fewer rows than twice the constants fit anything."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of an accelerator the fit takes as known, from white papers, device queries and the source of its kernels.

    Attributes
    ----------
    multiprocessors : streaming multiprocessors, or Xe cores
    cache_bytes, cache_rate : last-level cache and its bandwidth over the memory's, where the table tells them apart
    rereads : the kernels walk their tiles down the rows and nothing reorders them
    tiles : output tiles other than those of `clusters.kernels.TILES`
    cast_apart : the products were measured with their activations cast: by a kernel of its own, which moves `CAST_BYTES`
    whole_tiles : few rows take as long as a whole tile
    memory : (`hbm_efficiency`, `hbm_ramp_s`) of a precision whose products were all too small to tell, from another's
    """

    multiprocessors: int
    cache_bytes: float = 0.0
    cache_rate: float = 1.0
    rereads: bool = False
    tiles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    cast_apart: bool = False
    whole_tiles: bool = False
    memory: Mapping[str, tuple[float, float]] = field(default_factory=dict)


#: Skinny products on data centre Blackwell are slower the fewer tiles they have. Chosen among five tiles, as the best fit.
NARROW: Final = {"bf16": (64, 128)}

#: Multiprocessors and caches: white papers of Ampere, Hopper, Ada and RTX PRO Blackwell; device queries of the others.
#: Tiles of TensorRT-LLM's own kernels: L40S FP8 by blocks has one, of 32x128, with its grid down the rows and no clusters
#: (fp8_blockscale_gemm_kernel.cuh, gemm_dispatch_sm89); RTX PRO has 64x128 by blocks, and 128x128 for NVFP4, which fits
#: its shared memory (pull request 12141). Wide BF16 and FP8 tiles of the two cards and `cache_rate` were chosen among a
#: few values, as the best fit. AMD: compute units of its white papers (CDNA 3, 304 on MI300X; CDNA 4, 256 on MI355X); tiles as
#: the names of the tuned kernels have them. No row of AITER's streams faster than the memory, so its weights are taken for
#: cold: the 256 MiB of Infinity Cache leave no step in its bandwidths.
PARTS: Final[Mapping[str, Part]] = {
    "a100-sxm-80": Part(108),
    "h100-sxm": Part(132),
    "h200-sxm": Part(132),
    "b200-sxm": Part(148, tiles=NARROW),
    "b300-sxm": Part(148, tiles=NARROW),
    "gb200": Part(152, tiles=NARROW),
    "l40s": Part(
        142,
        cache_bytes=96 * 2**20,
        cache_rate=4.0,
        rereads=True,
        tiles={"bf16": (128, 256), "fp8": (128, 256), "fp8-block": (32, 128)},
    ),
    "rtx-pro-6000-server": Part(
        188,
        cache_bytes=128 * 2**20,
        cache_rate=4.0,
        tiles={"bf16": (128, 256), "fp8-block": (64, 128), "nvfp4": (128, 128)},
    ),
    "arc-pro-b60": Part(20),
    "mi300x": Part(304, cast_apart=True, whole_tiles=True),
    "mi355x": Part(
        256,
        tiles={"bf16": (256, 256), "fp8-block": (64, 64), "nvfp4": (64, 128)},
        cast_apart=True,
        whole_tiles=True,
        memory={"fp8-block": (0.7295, 1e-9), "nvfp4": (0.7295, 1e-9)},
    ),
}

CAST_BYTES: Final[Mapping[str, float]] = {"nvfp4": 2.5}
"""Bytes that a cast moves for each activation, BF16 read and the narrow format written; 3 of a format not named (FP8)."""

#: Start, lower and upper bound of every constant.
START = (4e-6, 0.75, 0.3, 150.0, 0.85, 3e-7, 3.0, 4.0)
LOWER = (5e-7, 0.1, 0.0, 0.0, 0.3, 1e-9, 1.0, 0.0)
UPPER = (2e-5, 1.0, 1.0, 2000.0, 0.97, 5e-5, 8.0, 40.0)
SCALE = (1e-6, 0.1, 0.1, 100.0, 0.1, 1e-6, 1.0, 5.0)

Progress = Callable[..., None]


def uncast(name: str, precision: str) -> bool:
    """Whether a part's products were measured without a cast of their activations, so that none is fitted.

    >>> uncast("h100-sxm", "bf16"), uncast("h100-sxm", "fp8"), uncast("mi300x", "fp8-block")
    (True, False, True)
    """
    return precision in UNCAST or (name in PARTS and PARTS[name].cast_apart)


def skeleton(name: str, precision: str) -> KernelModel:
    """Return a model of a part before its constants: what is known of it, or what its neighbour lends it.

    >>> skeleton("h100-sxm", "bf16").multiprocessors, skeleton("gb200", "bf16").tile
    (132, (64, 128))
    """
    blank: dict[str, Any] = dict.fromkeys(CONSTANTS, 0.0)
    if name not in PARTS:
        return replace(kernel(name, precision), note="", bands=(), **blank)
    part = PARTS[name]
    if precision in part.memory:
        blank["hbm_efficiency"], blank["hbm_ramp_s"] = part.memory[precision]
    return KernelModel(
        name,
        precision,
        multiprocessors=part.multiprocessors,
        tile=part.tiles.get(precision, TILES[precision]),
        cache_bytes=part.cache_bytes,
        cache_rate=part.cache_rate,
        rereads=part.rereads,
        whole_tiles=part.whole_tiles,
        **blank,
    )


def fit(rows: Table, name: str, precision: str) -> KernelModel:
    """Fit the constants of one accelerator and precision to its rows (columns m, n, k, latency_us)."""
    from scipy.optimize import least_squares

    known, part, measured_s = skeleton(name, precision), accelerator(name), rows["latency_us"] * 1e-6
    fixed = ("quantise_bytes",) * uncast(name, precision) + ("hbm_efficiency", "hbm_ramp_s") * bool(
        known.hbm_efficiency
    )
    free = [at for at, key in enumerate(CONSTANTS) if key not in fixed]
    start, lower, upper, scale = (np.array(values)[free] for values in (START, LOWER, UPPER, SCALE))

    def model(values: npt.NDArray[np.float64]) -> KernelModel:
        constants: dict[str, Any] = {CONSTANTS[at]: float(value) for at, value in zip(free, values, strict=True)}
        return replace(known, **constants)

    def loss(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.log(price(rows, model(values), part, precision) / measured_s)

    best = least_squares(loss, start, bounds=(lower, upper), x_scale=scale, loss="soft_l1", f_scale=0.05)
    return model(np.array([significant(value) for value in best.x]))


def banded(model: KernelModel, rows: Table) -> KernelModel:
    """Return a fitted model with the bands of its residuals by waves."""
    predicted = price(rows, model, accelerator(model.accelerator), model.precision)
    found = bands(predicted, rows["latency_us"] * 1e-6, exact_waves(rows["m"], rows["n"], model))
    return replace(model, bands=tuple((edge, low, high) for edge, low, high in found))


def folds(rows: Table) -> npt.NDArray[np.int64]:
    """Return the fold of every row: shapes are shuffled once and dealt out, rows of one shape stay together.

    >>> folds({"m": np.array([1.0, 2.0, 1.0]), "n": np.ones(3), "k": np.ones(3)}).tolist()
    [0, 1, 0]
    """
    shapes = np.stack([rows["m"], rows["n"], rows["k"]])
    kinds, which = np.unique(shapes, axis=1, return_inverse=True)
    dealt = np.random.default_rng(0).permutation(kinds.shape[1]) % FOLDS
    return np.asarray(dealt[which.ravel()], dtype=np.int64)


def held_out(rows: Table, name: str, precision: str) -> dict[str, float]:
    """Return errors and coverage of the intervals where every shape is priced without itself in the fit."""
    part, fold = accelerator(name), folds(rows)
    errors, inside = np.empty(fold.size), np.empty(fold.size, dtype=np.bool_)
    for at in np.unique(fold):
        unseen, seen = fold == at, select(rows, fold != at)
        model, asked = banded(fit(seen, name, precision), seen), select(rows, unseen)
        predicted, measured = price(asked, model, part, precision), asked["latency_us"] * 1e-6
        low, high = interval(predicted, exact_waves(asked["m"], asked["n"], model), model)
        errors[unseen], inside[unseen] = ape(predicted, measured), (low <= measured) & (measured <= high)
    return {
        "median": significant(np.median(errors)),
        "p90": significant(np.quantile(errors, 0.9)),
        "coverage": significant(inside.mean()),
    }


def calibrate(rows: Table, progress: Progress | None = None) -> dict[str, Any]:
    """Fit every accelerator and precision of the table; return the `measured` part of the data file."""
    measured: dict[str, Any] = {}
    jobs = groups(rows)
    for done, ((name, precision), mask) in enumerate(jobs.items()):
        if progress is not None:
            progress(done, len(jobs), f"{name} {precision}")
        part = select(rows, mask)
        model = banded(fit(part, name, precision), part)
        measured.setdefault(name, _head(model))[precision] = _entry(model, part)
    if progress is not None:
        progress(len(jobs), len(jobs))
    return measured


def _head(model: KernelModel) -> dict[str, Any]:
    """Return what an accelerator's entry says of all its precisions."""
    head: dict[str, Any] = {"multiprocessors": model.multiprocessors, "sustained": _sustained(model.accelerator)}
    if model.cache_bytes:
        head |= {"cache_bytes": int(model.cache_bytes), "cache_rate": model.cache_rate, "rereads": model.rereads}
    if model.whole_tiles:
        head["whole_tiles"] = True
    return head


def _sustained(name: str) -> float:
    """Return the clock under load that the data file has of a part: fitted elsewhere, kept here."""
    return float(table()["measured"].get(name, {}).get("sustained", 1.0))


def _entry(model: KernelModel, rows: Table) -> dict[str, Any]:
    """Return the entry of one accelerator and precision."""
    name, precision, measured = model.accelerator, model.precision, rows["latency_us"] * 1e-6
    entry: dict[str, Any] = {key: getattr(model, key) for key in CONSTANTS}
    if uncast(name, precision) and precision not in UNCAST:
        entry |= {"quantise_bytes": CAST_BYTES.get(precision, 3.0), "cast_starts": 1.0}
    if model.tile != TILES[precision]:
        entry["tile"] = [*model.tile]
    entry["residuals"] = residuals(price(rows, model, accelerator(name), precision), measured)
    entry["held_out"] = held_out(rows, name, precision)
    entry["bands"] = [[*band] for band in model.bands]
    words = [sorted(set(rows[key].tolist())) for key in ("software", "software_version") if key in rows]
    entry["software"] = " ".join(word for group in words for word in group)
    return entry


def precisions(measured: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield (accelerator, precision, entry) of the `measured` part of a kernels file."""
    for name, held in measured.items():
        yield from ((name, key, entry) for key, entry in held.items() if isinstance(entry, dict))


def _known(key: str, word: str) -> tuple[str, str] | None:
    """Return what is wrong with an accelerator's or a data type's name, None where nothing is."""
    if key == "system" and part_of(word) is None:
        try:
            accelerator(word)
        except SpecError as error:
            return error.faults[0].problem, error.faults[0].remedy
    if key == "dtype" and precision_of(word) is None:
        return "no such precision of matrix products", f"use {', '.join(TILES)}"
    return None


def calibrate_file(file: str | Path, out: str | Path, progress: Progress | None = None) -> dict[str, Any]:
    """Fit anyone's own table of matrix products and write a kernels file that lies over the shipped one.

    Parameters
    ----------
    file
        Table with the columns system, dtype, m, n, k, latency_us, as ``.csv`` or ``.csv.gz``.
    out
        Where the kernels file goes; `PODSCALE_KERNELS` names it to every later command.
    progress
        Called as ``progress(done, total, note)``.

    Returns
    -------
    dict
        `constants` and `residuals` by accelerator and precision, `file`, `out` and `notes`.

    Raises
    ------
    SpecError
        The table is wrong (every fault at once), or the file cannot be written.
    """
    rows = read_products(file, _known)
    few = {key: int(mask.sum()) for key, mask in groups(rows).items() if mask.sum() < LEAST_ROWS}
    if few:
        remedy = f"measure {LEAST_ROWS} shapes or more"
        raise SpecError(
            [Fault(" ".join(key), None, f"has {n} rows, too few to fit", remedy, str(file)) for key, n in few.items()]
        )
    measured = calibrate(rows, progress)
    document = {"source": str(file), "fitted": date.today().isoformat(), "method": METHOD, "measured": measured}
    try:
        write_yaml(
            document, Path(out), "Written by podscale calibrate gemm; PODSCALE_KERNELS=<this file> puts it to use."
        )
    except OSError as why:
        fault = Fault(
            "--out", str(out), f"cannot be written: {why.strerror or why}", "name a file in a folder that is there"
        )
        raise SpecError([fault]) from None
    constants: dict[str, Any] = {}
    stated: dict[str, Any] = {}
    for name, precision, entry in precisions(measured):
        constants.setdefault(name, {})[precision] = {key: entry[key] for key in CONSTANTS}
        stated.setdefault(name, {})[precision] = {**entry["residuals"], "held_out": entry["held_out"]}
    return {
        "kind": "gemm",
        "file": str(file),
        "out": str(out),
        "constants": constants,
        "residuals": stated,
        "notes": [f"Every command obeys it with PODSCALE_KERNELS={out}"],
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped table, or the reader's own, and write the constants; the fallbacks are kept as they stand."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", nargs="?", type=Path, help="a table with the columns of gemm.csv (default: the shipped)"
    )
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    measured = calibrate(read_products(options.file))
    document = {
        "source": str(options.file or SOURCE),
        "fitted": date.today().isoformat(),
        "method": METHOD,
        "measured": measured,
        "fallback": table()["fallback"],
    }
    write_yaml(
        document, options.out, "Written by python -m clusters.calibration.gemm; only `fallback` is kept by hand."
    )
    for name, precision, entry in precisions(measured):
        stated, unseen = entry["residuals"], entry["held_out"]
        sys.stdout.write(
            f"{name:20} {precision:10} {stated['median']:7.1%} {stated['p90']:7.1%} {stated['n']:5} "
            f"unseen {unseen['median']:7.1%} {unseen['p90']:7.1%} covered {unseen['coverage']:.0%}\n"
        )


if __name__ == "__main__":
    main()
