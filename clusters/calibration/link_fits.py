"""The fit of link constants: one job an entry, priced by the closed forms of `collectives` as a user's question would be.

An entry has four constants or fewer for all group sizes, parts and versions at once: base, step, efficiency, and either
the ramp or the filling of the bulk protocol, whichever fits better.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.curves import DOMAINS, FAMILIES, NCCL_OPS, NOT_ADDED, regime_of, where
from clusters.calibration.residuals import ape, residuals, significant
from clusters.catalogue import accelerator, link, switch
from clusters.dispatch import dispatch_of
from clusters.measurements import Table
from clusters.tunings import CONSTANTS, collective_s
from collectives.path import IDEAL, Hop, LinkModel
from topo.columns import Column, column

AICONFIGURATOR = "aiconfigurator-core 0.12.0 and aiconfigurator 0.5.0 (NVIDIA, Apache-2.0)"
NCCL = "NVIDIA/nccl src/graph/tuning.cc, v2.30"

#: Share of a link's efficiency that is kept when the switches add. NCCL reckons with 0.85 (Hopper) and 0.74 (Blackwell),
#: times (n - 1)/n of its 16 or 24 channels; 0.81 is what issue 1455 has at 5 to 8 H100, between the two.
REDUCTION_EFFICIENCY = {"nvlink4": 0.81, "nvlink5": 0.74}

OWN_PIECE: Final = 0.5
"""Weight of the piece that a rank only copies in NCCL: the first step of a ring writes it at home while it sends it.

With it a single efficiency fits 2, 4 and 8 ranks of NVLink 3, 4 and 5. An all-to-all has it or not, as fits better.
"""

#: The fourth constant: a ramp, or the filling of the bulk protocol.
SHAPES: Final = ("ramp_s", "bulk_s")

#: Start, lower and upper bound of base_s, step_s, efficiency and the fourth.
START = (8e-6, 1e-6, 0.7, 5e-6)
LOWER = (0.0, 0.0, 0.05, 0.0)
UPPER = (3e-4, 5e-5, 1.0, 1e-3)
SCALES = (1.0, 0.4, 2.5)
"""Factors of the start: a fit begins from each, and the best end counts."""

#: One step, whose time cannot be told from the base: three constants.
ONE_STEP: Mapping[str, float] = {"step_s": 0.0}

SOFT: Final = 0.03
"""Errors of log(predicted/measured) well above this count by size, not square: the fit goes for the median."""

NEAR: Final = 0.3
"""Error up to which a curve's worst point is near."""

FAR: Final = 0.22
MORES: Final = (0.0, 1.0, 3.0, 6.0)
"""What an error of log(predicted/measured) has beyond `FAR` counts so much more in the fits that are compared: those of
the median, and those that keep a curve near at every size."""

APIECE: Final = 4.0
"""What the share of curves that a fit leaves adds to its loss, in units of that loss."""

VERSIONS: Final = ("nccl-2.28", "nccl-2.29")
"""Regimes of NCCL's versions, of which a link and operation has its own entries where they disagree (`apart`)."""

APART: Final = 0.95
"""Loss of the fits of two versions, over that of the fit to both, up to which they count as different."""

Price = Callable[[LinkModel], Column]


@dataclass(frozen=True, slots=True)
class Job:
    """One entry to fit: where it goes, what was measured, how a model prices it, which constants are fixed.

    `least_base_s` is the base of the inner tiers: the largest base of a path counts, so a smaller one has no meaning.
    `like` has what is not fitted; `shape` names the fourth constant; `more` is of `MORES`; `weights` say what a row counts,
    `curves` of which curve it is.
    """

    where: tuple[str, str, str]
    measured_s: Column
    price: Price
    ranks: Column
    source: str
    fixed: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    least_base_s: float = 0.0
    like: LinkModel = IDEAL
    shape: str = "ramp_s"
    more: float = 0.0
    weights: Column | float = 1.0
    curves: npt.NDArray[np.intp] = field(default_factory=lambda: np.array([], dtype=np.intp))


def loss(job: Job, model: LinkModel, more: float = 0.0) -> Column:
    """Return what a fit sums the squares of: |log(predicted/measured)|, softly, and `more` times what exceeds `FAR`."""
    error = np.abs(np.log(job.price(model) / job.measured_s))
    squares = _soft(error) + more * _soft(np.maximum(error - FAR, 0.0))
    return column(np.sqrt(squares) * job.weights)


def _soft(error: Column) -> Column:
    """Return the square of a small error, and twice `SOFT` times a large one less `SOFT`.

    >>> print(f"{_soft(np.array(0.001)):.1e} {_soft(np.array(3.0)):.3f}")
    1.0e-06 0.178
    """
    return column(SOFT**2 * 2 * (np.sqrt(1 + (error / SOFT) ** 2) - 1))


def fit(job: Job) -> LinkModel:
    """Fit the constants that a job leaves free; they come back rounded as the data file holds them."""
    from scipy.optimize import least_squares

    names = (*CONSTANTS[:3], job.shape)
    free = [at for at, name in enumerate(names) if name not in job.fixed]

    def model(values: Iterable[float]) -> LinkModel:
        found: dict[str, Any] = {names[at]: float(value) for at, value in zip(free, values, strict=True)}
        return replace(job.like, **{**job.fixed, **found})

    def missed(values: npt.NDArray[np.float64]) -> Column:
        return loss(job, model(values), job.more)

    def some(values: tuple[float, ...], base_s: float = 0.0) -> npt.NDArray[np.float64]:
        return np.array([max(base_s, values[at]) if names[at] == "base_s" else values[at] for at in free])

    low, high, start = some(LOWER, job.least_base_s), some(UPPER), some(START, job.least_base_s + 8e-6)
    ends = [
        least_squares(
            missed,
            np.clip(scale * start, low * 1.01 + 1e-12, high * 0.99),
            bounds=(low, high),
            x_scale=start,
        )
        for scale in SCALES
    ]
    return model([significant(value) for value in min(ends, key=lambda end: float(end.cost)).x])


def better(jobs: Iterable[Job], mores: tuple[float, ...] = MORES, apiece: float = APIECE) -> tuple[Job, LinkModel]:
    """Fit jobs that differ in shape, for the median and for far points, and return the one of least `score`, its model."""
    tried = [replace(job, more=more) for job in jobs for more in mores]
    return min(((job, fit(job)) for job in tried), key=lambda pair: score(pair[0], pair[1], apiece))


def score(job: Job, model: LinkModel, apiece: float = APIECE) -> float:
    """Return the loss of a model, times one and `apiece` for the share of curves that it leaves."""
    return float(np.sum(loss(job, model) ** 2)) * (1.0 + apiece * left(job, model))


def left(job: Job, model: LinkModel) -> float:
    """Return the share of curves that a model leaves somewhere by more than `NEAR`."""
    far = ape(job.price(model), job.measured_s) > NEAR
    return np.unique(job.curves[far]).size / np.unique(job.curves).size


def entry(job: Job, model: LinkModel) -> dict[str, Any]:
    """Return a fitted entry as the data file holds it: constants, residuals, groups measured, source."""
    found: dict[str, Any] = {key: significant(getattr(model, key)) for key in CONSTANTS}
    found |= {key: significant(value) for key in ("bulk_s", "own_piece") if (value := getattr(model, key))}
    found["residuals"] = residuals(job.price(model), job.measured_s)
    found["ranks"] = [int(job.ranks.min()), int(job.ranks.max())]
    found["source"] = job.source
    return {**found, "note": job.note} if job.note else found


def nvlink_hop(name: str, model: LinkModel, adds: bool | None = None) -> Hop:
    """One scale-up tier of a link generation, with its figures from the catalogue; `adds`: whether its switches did."""
    part = accelerator(DOMAINS[name][0])
    wires = link(name)
    able = bool(wires.switch) and switch(wires.switch).in_network_reduction
    return Hop(
        part.scale_up_Bps,
        wires.latency_s,
        model,
        in_network_reduction=able if adds is None else adds,
        reduction_efficiency=REDUCTION_EFFICIENCY.get(name, 1.0),
    )


#: Links between nodes that the catalogue does not hold -> the one whose wire and switch latency stand in.
WIRES: Final[Mapping[str, str]] = {"efa": "roce-400", **{f"efa-{number}": "roce-400" for number in (1, 2, 3, 4)}}


def network_hop(name: str, model: LinkModel, bandwidth_Bps: float) -> Hop:
    """One scale-out tier: two cables with their adapters and one switch."""
    wires = link(WIRES.get(name, name))
    latency_s = 2 * wires.latency_s + (switch(wires.switch).latency_s or 0.0)
    return Hop(bandwidth_Bps, latency_s, model, plane="scale-out")


def nccl_jobs(rows: Table) -> Iterator[tuple[Table, list[Job]]]:
    """Yield the curves of NCCL inside domains of a link, of one operation, and the jobs to choose from.

    `rows` is as `curves.usable` gives it.
    """
    for name, (_, systems) in DOMAINS.items():
        for op, word in NCCL_OPS.items():
            mask = np.isin(rows["system"], systems) & (rows["op"] == word) & (rows["impl"] == "NCCL")
            part = where(rows, mask)
            yield part, shapes(name, op, "nccl", part)


def shapes(name: str, op: str, regime: str, rows: Table) -> list[Job]:
    """Return the jobs of some curves of NCCL that differ in shape."""
    pieces = (OWN_PIECE, 0.0) if op == "all_to_all" else (OWN_PIECE,)
    return [domain_job(name, op, regime, rows, shape, own) for shape in SHAPES for own in pieces]


def apart(rows: Table, together: tuple[Job, LinkModel]) -> list[tuple[Table, Job, LinkModel]]:
    """Return the fits of NCCL's versions where they disagree, with their curves; none where the fit to all will do."""
    job, model = together
    name, op, _ = job.where
    regimes = regimes_of(rows)
    parts = [where(rows, regimes == version) for version in VERSIONS]
    if any(part["curve"].size == 0 for part in parts):
        return []
    fits = [better(shapes(name, op, version, part)) for version, part in zip(VERSIONS, parts, strict=True)]
    if sum(score(*pair) for pair in fits) > APART * score(job, model):
        return []
    return [(part, *pair) for part, pair in zip(parts, fits, strict=True)]


def kernel_jobs(rows: Table, nccl: Mapping[str, LinkModel]) -> list[Job]:
    """All-reduce kernels of serving frameworks, given NCCL's constants by link, which rule beyond their sizes."""
    regimes = regimes_of(rows)
    found = []
    for name, (_, systems) in DOMAINS.items():
        for family, members in FAMILIES.items():
            part = where(rows, np.isin(rows["system"], systems) & np.isin(regimes, members))
            if part["curve"].size:
                job = domain_job(name, "all_reduce", family, part, "ramp_s")
                found.append(replace(job, like=replace(IDEAL, beyond=nccl[name])))
    return found


def regimes_of(rows: Table) -> npt.NDArray[np.str_]:
    """Return the regime of every row of a table of kernels."""
    blank = np.full(len(rows["impl"]), "")
    names = (rows["impl"], rows["software_version"], rows.get("recorded_version", blank))
    return np.array([regime_of(*row) for row in zip(*(part.tolist() for part in names), strict=True)])


def domain_job(name: str, op: str, regime: str, rows: Table, shape: str, own_piece: float = 0.0) -> Job:
    """Return the job of some curves inside domains of one link."""
    size, ranks = rows["message_bytes"], rows["num_gpus"]
    added = ~np.isin(rows["dtype"], NOT_ADDED)
    regimes = regimes_of(rows) if regime in FAMILIES else np.full(size.shape, regime)

    def price(model: LinkModel) -> Column:
        seconds = np.empty_like(size)
        for how in np.unique(regimes).tolist():
            ruled = replace(model, dispatch=dispatch_of(how, name))
            for at, adds in ((added & (regimes == how), None), (~added & (regimes == how), False)):
                if at.any():
                    path = (nvlink_hop(name, ruled, adds),)
                    seconds[at] = collective_s(op, size[at], ranks[at][np.newaxis], path, how)
        return seconds

    _, number, many = np.unique(rows["curve"], return_inverse=True, return_counts=True)
    return Job(
        (name, op, regime),
        rows["latency_us"] * 1e-6,
        price,
        ranks,
        AICONFIGURATOR,
        like=replace(IDEAL, own_piece=own_piece),
        shape=shape,
        weights=1 / np.sqrt(many[number]),
        curves=number,
    )
