"""Kernel constants: what one accelerator makes of operators at one precision, and where its constants come from.

`kernel` looks them up in `data/kernels.yaml`, over which a file of one's own may lie (`clusters.overlay`); a part or
precision without measurements borrows its neighbour's and says so. The formulas are in `clusters.kernels`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clusters.catalogue import key_of, read_yaml
from clusters.overlay import kernels_path, overlaid
from topo.columns import Column, ColumnLike, column
from topo.errors import Fault, SpecError

DATA = Path(__file__).parent / "data" / "kernels.yaml"

#: The fitted constants, in file order: eight at most for each accelerator and precision.
CONSTANTS = (
    "launch_s",
    "efficiency",
    "wave",
    "k_ramp",
    "hbm_efficiency",
    "hbm_ramp_s",
    "norm",
    "quantise_bytes",
)

#: Other spellings of a precision, as recipes and checkpoints write them.
PRECISIONS: Mapping[str, str] = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "bf16",
    "float16": "bf16",
    "half": "bf16",
    "fp8": "fp8",
    "fp8-tensor": "fp8",
    "int8": "fp8",
    "fp8-block": "fp8-block",
    "mxfp8": "fp8-block",
    "nvfp4": "nvfp4",
    "fp4": "nvfp4",
    "mxfp4": "nvfp4",
    "int8-wo": "int8-wo",
    "w8a16": "int8-wo",
    "int4-wo": "int4-wo",
    "w4a16": "int4-wo",
    "int8-sq": "int8-sq",
    "sq": "int8-sq",
    "smoothquant": "int8-sq",
}

#: What stands in where an accelerator has no constants of a precision: the first of these that it has.
NEAREST_PRECISION: Mapping[str, tuple[str, ...]] = {
    "bf16": (),
    "fp8": ("fp8-block", "bf16"),
    "fp8-block": ("fp8", "bf16"),
    "nvfp4": ("fp8-block", "fp8", "bf16"),
    "int8-wo": ("bf16",),
    "int4-wo": ("bf16",),
    "int8-sq": ("fp8", "fp8-block", "bf16"),
}

#: Output tile (rows, columns) that the vendor libraries use at each precision. A convention, not a fit; an entry of
#: the data file may name another (`tile`).
TILES: Mapping[str, tuple[int, int]] = {
    "bf16": (128, 128),
    "fp8": (128, 128),
    "fp8-block": (128, 128),
    "nvfp4": (128, 256),
    "int8-wo": (128, 128),
    "int4-wo": (128, 128),
    "int8-sq": (128, 128),
}


@dataclass(frozen=True, slots=True)
class KernelModel:
    """What one accelerator makes of operators at one precision.

    Parameters
    ----------
    accelerator, precision
        What was asked for; `note` says so where the constants come from elsewhere.
    launch_s
        Time of an empty kernel [s].
    efficiency
        Share of the data sheet FLOP/s that large shapes reach.
    wave
        Sharpness of wave quantisation: 0 ignores it, 1 rounds the waves up.
    k_ramp
        Prologue and epilogue of a tile, in units of k.
    hbm_efficiency
        Share of the data sheet memory bandwidth that large sizes reach.
    hbm_ramp_s
        Memory ramp: V bytes take a further sqrt(hbm_ramp_s · V / B) [s].
    norm
        Exponent of the norm that joins compute and memory time, at least 1.
    quantise_bytes
        Bytes moved for each activation element to cast it to the low precision, before the product; 0 for BF16.
    multiprocessors
        Streaming multiprocessors of the part [count], from its data sheet.
    tile
        Output tile (rows, columns) of one multiprocessor.
    sustained
        Clock under a training load relative to the short benchmark; see `under_load`.
    note
        Empty where the constants were fitted for this part and precision, else whose they are and why.
    cache_bytes
        Last-level cache shared by the multiprocessors, where its size enters the price; else 0.
    cache_rate
        Bandwidth of that cache over the memory's; 1 where the measurements do not tell the two apart.
    rereads
        Whether activations that outgrow the cache are read again for every column of tiles; see `reread_bytes`.
    cast_starts
        Kernels that cast the activations before a product, where they are no part of `launch_s`.
    whole_tiles
        Whether few rows take as long as a whole tile: the loop over k waits for memory, not for arithmetic.
    bands
        90 % band of measured/predicted by regime: (waves up to, low, high), ascending; empty without residuals.
    """

    accelerator: str
    precision: str
    launch_s: float
    efficiency: float
    wave: float
    k_ramp: float
    hbm_efficiency: float
    hbm_ramp_s: float
    norm: float
    quantise_bytes: float
    multiprocessors: int
    tile: tuple[int, int]
    sustained: float = 1.0
    note: str = ""
    cache_bytes: float = 0.0
    cache_rate: float = 1.0
    rereads: bool = False
    cast_starts: float = 0.0
    whole_tiles: bool = False
    bands: tuple[tuple[float, float, float], ...] = ()


def under_load(model: KernelModel) -> KernelModel:
    """Return the model at sustained clocks: the efficiency times `sustained`.

    A short benchmark runs at boost clock; a training step of seconds runs where the power limit leaves it.

    >>> from dataclasses import replace
    >>> under_load(replace(kernel("h100-sxm", "bf16"), efficiency=0.8, sustained=0.5)).efficiency
    0.4
    """
    return replace(model, efficiency=model.efficiency * model.sustained, sustained=1.0)


def interval(seconds: ColumnLike, at_waves: ColumnLike, model: KernelModel) -> tuple[Column, Column]:
    """90 % interval of a product's time: the prediction times the band of its regime, by exact waves.

    Raises
    ------
    ValueError
        The model has no residuals (`bands` is empty).

    Examples
    --------
    >>> from dataclasses import replace
    >>> known = replace(kernel("h100-sxm"), bands=((1.0, 0.5, 2.0), (float("inf"), 0.9, 1.1)))
    >>> low, high = interval([1.0, 10.0], [0.2, 30.0], known)
    >>> low, high
    (array([0.5, 9. ]), array([ 2., 11.]))
    """
    if not model.bands:
        raise ValueError(f"no residuals of {model.accelerator} at {model.precision}")
    edges, low, high = np.array(model.bands).T
    at = np.searchsorted(edges[:-1], column(at_waves))
    return column(column(seconds) * low[at]), column(column(seconds) * high[at])


def table() -> Mapping[str, Any]:
    """Return `data/kernels.yaml` with the reader's own file over it: constants, residuals, fallbacks and sources."""
    return _table(kernels_path())


@lru_cache
def _table(own: str) -> Mapping[str, Any]:
    return overlaid(read_yaml(DATA.read_text("utf-8")), own, CONSTANTS)


def kernel(accelerator: str, precision: str = "bf16", like: str = "") -> KernelModel:
    """Return the constants of an accelerator at a precision, or the nearest that were measured, with a `note`.

    The order of fallback: the accelerator's own rows; the part that `fallback` in the data file names for it (its
    own die, else its generation); the nearest precision of that part; the default part. An accelerator of the user's own
    takes what the part has that it is said to be `like`.

    Raises
    ------
    SpecError
        The precision is not one of `PRECISIONS`, or the reader's own kernels file is wrong.

    Examples
    --------
    >>> kernel("h100-sxm", "bf16").note
    ''
    >>> kernel("gb300", "nvfp4").note.split(":")[0]
    'no measurement of gb300'
    """
    return _kernel(accelerator, precision, like, kernels_path())


@lru_cache
def _kernel(accelerator: str, precision: str, like: str, own: str) -> KernelModel:
    name, wanted, counts = key_of(accelerator), PRECISIONS.get(key_of(precision)), 0
    if wanted is None:
        choices = ", ".join(PRECISIONS)
        raise SpecError([Fault("precision", precision, "no kernel constants for this precision", f"use {choices}")])
    held, notes = _table(own), []
    source = name
    published: dict[str, float] = {}
    while not _nearest_precision(wanted, held["measured"].get(source, {})):
        asked = like if like and source == name else ""
        borrowed = _lender(asked, wanted, held) if asked else held["fallback"].get(source, held["fallback"]["default"])
        notes.append(f"no measurement of {source}: constants of {borrowed['like']} ({borrowed['why']})")
        published = {**borrowed.get("efficiency", {}), **published}
        counts = counts or borrowed.get("multiprocessors", 0)
        source = borrowed["like"]
    part = held["measured"][source]
    found = _nearest_precision(wanted, part)
    if found != wanted:
        notes.append(f"no {wanted} rows of {source}: constants of {found}")
    if wanted in published:
        notes.append(f"efficiency {published[wanted]} from its best published matrix product")
    entry = part[found]
    constants = {key: float(entry[key]) for key in CONSTANTS}
    constants["efficiency"] = float(published.get(wanted, constants["efficiency"]))
    rows, cols = entry.get("tile", TILES[found])
    return KernelModel(
        accelerator=name,
        precision=wanted,
        multiprocessors=int(counts or part["multiprocessors"]),
        tile=(int(rows), int(cols)),
        sustained=float(part.get("sustained", 1.0)),
        note="; ".join(notes),
        bands=() if notes else _bands(entry),
        cache_bytes=float(part.get("cache_bytes", 0.0)),
        cache_rate=float(part.get("cache_rate", 1.0)),
        rereads=bool(part.get("rereads", False)),
        whole_tiles=bool(part.get("whole_tiles", False)),
        cast_starts=float(part[found].get("cast_starts", 0.0)),
        **constants,
    )


def _lender(like: str, wanted: str, held: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return whose constants stand in for a part of the user's own: those of the part that it is like, or theirs."""
    if _nearest_precision(wanted, held["measured"].get(like, {})):
        return {"like": like, "why": "the cluster file says that it is like it"}
    further = held["fallback"].get(like, held["fallback"]["default"])
    return {**further, "why": f"it is like {like}: {further['why']}"}


def _nearest_precision(wanted: str, part: Mapping[str, Any]) -> str:
    """Return the precision itself or the nearest that a part's entry has, empty where it has none of them."""
    return next((name for name in (wanted, *NEAREST_PRECISION[wanted]) if name in part), "")


def _bands(entry: Mapping[str, Any]) -> tuple[tuple[float, float, float], ...]:
    """Return the bands of an entry: those by waves, else the one of all rows, else none."""
    if "bands" in entry:
        return tuple((float(edge), float(low), float(high)) for edge, low, high in entry["bands"])
    stated = entry.get("residuals", {})
    return ((float("inf"), float(stated["low"]), float(stated["high"])),) if {"low", "high"} <= stated.keys() else ()
