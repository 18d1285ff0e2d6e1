"""Fit link constants to measured collectives: `python -m clusters.calibration.links [--out FILE]`.

Constants inside domains come from the curves of `clusters.calibration.curves`, those between nodes from published
multi-node results. A constant that the rows cannot identify is fixed beforehand, at NCCL's documented value or a
neighbour's, and the entry's note says so. Beside the residuals of NCCL's entries stand those of group sizes and of
versions that a fit did not see.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.curves import DOMAINS, usable, where
from clusters.calibration.link_fits import (
    NCCL,
    REDUCTION_EFFICIENCY,
    Job,
    apart,
    better,
    domain_job,
    entry,
    fit,
    kernel_jobs,
    nccl_jobs,
    network_hop,
    nvlink_hop,
)
from clusters.calibration.meshes import mesh_jobs
from clusters.calibration.residuals import ape, significant, write_yaml
from clusters.measurements import Table, read_csv
from clusters.tunings import CONSTANTS, DATA, LIBRARY, collective_s
from collectives.path import LinkModel
from collectives.span import Mask
from topo.columns import Column

SMALL: Final = 8
"""Group sizes up to here fit what larger ones are then predicted with."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """A published cluster without in-network reduction between nodes: its link, its domain and bytes/s per rank.

    `inside` is the link of a domain (MI300X: 448 GB/s per accelerator, as NVLink 4), `adds` whether its switches did.
    """

    link: str
    domain: int
    bandwidth_Bps: float
    inside: str
    adds: bool = False


#: Rows of `collectives_published.csv` that identify a network's constants. Rates are per accelerator and direction.
FABRICS: Mapping[str, Fabric] = {
    "2x8 H20 NDR NVLSTree": Fabric("ib-ndr", 8, 50e9, "nvlink4", adds=True),
    "GB200 NVL4 x3 racks IB ring NVLS off": Fabric("ib-ndr", 4, 50e9, "nvlink5"),
    "GB200 NVL8 x3 racks IB ring NVLS off": Fabric("ib-ndr", 8, 50e9, "nvlink5"),
    "AWS p4de 8xA100-80 EFA 4x100G": Fabric("efa-1", 8, 6.25e9, "nvlink3"),
    "AWS p5 8xH100 EFAv2 32x100G": Fabric("efa-2", 8, 50e9, "nvlink4", adds=True),
    "AWS p5en 8xH200 EFAv3 16x200G": Fabric("efa-3", 8, 50e9, "nvlink4", adds=True),
    "AWS p6-b200 8xB200 EFAv4 8x400G": Fabric("efa-4", 8, 50e9, "nvlink5", adds=True),
    "DGX A100 8xHDR": Fabric("ib-hdr", 8, 25e9, "nvlink3"),
    "8xA100-40 4xHDR": Fabric("ib-hdr", 8, 12.5e9, "nvlink3"),
    "OCI BM.GPU.B4.8 8xA100-40 RoCE 16x100G": Fabric("roce-400", 8, 25e9, "nvlink3"),
    "OCI BM.GPU.MI300X.8 RoCE 8x400G RCCL": Fabric("roce-400", 8, 50e9, "nvlink4"),
}

COLD: Final = {"AWS p5en 8xH200 EFAv3 16x200G": 8.0, "AWS p6-b200 8xB200 EFAv4 8x400G": 2.0**17}
"""System -> bytes up to which its run was not warm: 983 us for 8 B and 167 for 16; 6.3, 3.2 and 0.56 ms for 32, 64 and
128 KiB and 0.38 for 256. `warm` leaves those rows out."""

SHARP: Final = ("CoreWeave H100 NDR IB SHARP", 50e9)
"""The system whose network adds, and its bytes/s for each accelerator."""

PEAK_BYTES = 8 * 2.0**30  # a peak without a size was taken at 8 GiB, the largest that nccl-tests runs by default


def network_job(rows: Table, name: str, inside: Mapping[str, LinkModel], fixed: Mapping[str, float], note: str) -> Job:
    """All-reduce between nodes over one kind of network, given the constants inside the nodes."""
    systems = [system for system, fabric in FABRICS.items() if fabric.link == name]
    chosen = where(rows, np.isin(rows["system"], systems) & (rows["op"] == "all_reduce") & warm(rows))
    fabrics = [FABRICS[system] for system in chosen["system"]]
    size = np.nan_to_num(chosen["message_bytes"], nan=PEAK_BYTES)
    ranks = chosen["ranks"]
    with np.errstate(divide="ignore"):
        by_busbw = 2 * (ranks - 1) / ranks * size / (chosen["busbw_GBps"] * 1e9)
    measured_s = np.where(np.isnan(chosen["latency_us"]), by_busbw, chosen["latency_us"] * 1e-6)

    def price(model: LinkModel) -> Column:
        seconds = np.empty_like(ranks)
        for fabric in set(fabrics):
            at = np.array([other == fabric for other in fabrics])
            members = np.stack([np.full(at.sum(), float(fabric.domain)), ranks[at]])
            domain = nvlink_hop(fabric.inside, inside[fabric.inside], fabric.adds)
            path = (domain, network_hop(name, model, fabric.bandwidth_Bps))
            seconds[at] = collective_s("all_reduce", size[at], members, path)
        return seconds

    source = "; ".join(sorted({source.split(";")[0] for source in chosen["source"]}))
    _, number, many = np.unique(chosen["system"], return_inverse=True, return_counts=True)
    weights = 1 / np.sqrt(many[number])
    return Job((name, "all_reduce", "nccl"), measured_s, price, ranks, source, fixed, note, weights=weights)


def warm(rows: Table) -> npt.NDArray[np.bool_]:
    """Return which rows of a table of published benchmarks are not the first of a run that was cold."""
    most = np.array([COLD.get(system, -1.0) for system in rows["system"].tolist()])
    return np.asarray(~(rows["message_bytes"] <= most))


Models = dict[tuple[str, str, str], LinkModel]


def network_jobs(rows: Table, models: Mapping[tuple[str, str, str], LinkModel]) -> Iterator[Job]:
    """InfiniBand NDR first, then EFA by its own rows, then the networks that borrow what their own rows cannot tell.

    No row of NDR without in-network reduction covers the middle sizes, so the ramp is that of NVLink 4. The launch base
    is NCCL's ring and tree in the LL protocol. `models` is read while the jobs are fitted.
    """
    inside = {name: models[name, "all_reduce", "nccl"] for name in ("nvlink3", "nvlink4", "nvlink5")}
    base_s, ramp_s = 6.6e-6, significant(models["nvlink4", "all_reduce", "nccl"].ramp_s)
    note = f"base from {NCCL} (ring, LL); ramp of nvlink4 all_reduce"
    yield network_job(rows, "ib-ndr", inside, {"base_s": base_s, "ramp_s": ramp_s}, note)
    own = f"base from {NCCL} (ring, LL)"
    for name in ("efa-1", "efa-2", "efa-4"):
        yield network_job(rows, name, inside, {"base_s": base_s}, own)
    lent = {"base_s": base_s, "ramp_s": models["efa-2", "all_reduce", "nccl"].ramp_s}
    yield network_job(rows, "efa-3", inside, lent, f"{own}; ramp of efa-2")
    borrowed = {"base_s": base_s, "step_s": models["ib-ndr", "all_reduce", "nccl"].step_s, "ramp_s": ramp_s}
    for name in ("ib-hdr", "roce-400"):
        yield network_job(rows, name, inside, borrowed, f"{note}; latency of ib-ndr; efficiency from its own rows")


def unseen(job: Job, rows: Table) -> dict[str, Any]:
    """Return the median errors of points that a fit without them predicts: larger groups, each group size, each version.

    `larger` is by group size and over all, fitted to at most `SMALL` ranks; `ranks` and `versions` leave one of each out
    at a time, and hold the mean.
    """
    name, op, regime = job.where
    ranks, versions = rows["num_gpus"], rows["software_version"]

    def errors(seen: Mask, asked: Mask) -> Column:
        model = fit(
            replace(domain_job(name, op, regime, where(rows, seen), job.shape, job.like.own_piece), more=job.more)
        )
        held = domain_job(name, op, regime, where(rows, asked), job.shape)
        return ape(held.price(model), held.measured_s)

    def one_out(kinds: Any) -> float:
        return float(np.mean([np.median(errors(kinds != one, kinds == one)) for one in np.unique(kinds)]))

    found: dict[str, Any] = {}
    if (large := ranks > SMALL).any():
        error, many = errors(~large, large), ranks[large]
        by_size = {f"{size:.0f}": significant(np.median(error[many == size])) for size in np.unique(many)}
        found["larger"] = {"all": significant(np.median(error)), **by_size}
    for key, values in (("ranks", ranks), ("versions", versions)):
        found |= {key: significant(one_out(values))} if np.unique(values).size > 1 else {}
    return found


def summing(rows: Table, models: Mapping[tuple[str, str, str], LinkModel]) -> float:
    """Return the share of its efficiency that NDR keeps when its switches add, from the one system of which that is known.

    CoreWeave, 96 H100 with SHARP: the bus reaches the line rate of the adapters, as a ring's would, and no more. The
    largest share that says so is taken.
    """
    chosen = where(rows, rows["system"] == SHARP[0])
    members = np.stack([np.full_like(chosen["ranks"], 8.0), chosen["ranks"]])
    inside = nvlink_hop("nvlink4", models["nvlink4", "all_reduce", "nccl"])
    between = replace(
        network_hop("ib-ndr", models["ib-ndr", "all_reduce", "nccl"], SHARP[1]), in_network_reduction=True
    )

    def error(share: float) -> float:
        path = (inside, replace(between, reduction_efficiency=share))
        seconds = collective_s("all_reduce", chosen["message_bytes"], members, path)
        return float(np.median(ape(seconds, chosen["latency_us"] * 1e-6)))

    return min((share / 100 for share in range(100, 29, -1)), key=error)


def calibrate() -> dict[str, Any]:
    """Fit every entry; return `reduction_efficiency` and `constants` as the data file holds them."""
    constants: dict[str, Any] = {}
    models: Models = {}

    def settle(job: Job, model: LinkModel, **more: Any) -> None:
        models[job.where] = model
        name, op, regime = job.where
        constants.setdefault(name, {}).setdefault(op, {})[regime] = {**entry(job, model), **more}

    rows, published = usable(read_csv("collectives_nccl.csv")), read_csv("collectives_published.csv")
    for part, jobs in nccl_jobs(rows):
        together = better(jobs)
        versions = apart(part, together)
        if not versions:
            settle(*together, held_out=unseen(together[0], part))
            continue
        settle(*better(jobs, (0.0,), 0.0))
        for rows_of_one, job, model in versions:
            settle(job, model, held_out=unseen(job, rows_of_one))
    nccl = {name: models.get((name, "all_reduce", LIBRARY), models[name, "all_reduce", "nccl"]) for name in DOMAINS}
    for job in kernel_jobs(rows, nccl):
        settle(*better([job]))
    for job in network_jobs(published, models):
        settle(job, fit(job))
    for job in mesh_jobs():
        settle(*((job, fit(job)) if job.fixed else better([job])))
    return {
        "reduction_efficiency": {**REDUCTION_EFFICIENCY, "ib-ndr": summing(published, models)},
        "constants": constants,
    }


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped measurements and write the constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    found = calibrate()
    source = f"{NCCL}, nvlsEfficiency; nvlink4 from NCCL issue 1455; ib-ndr from CoreWeave H100 with SHARP"
    document = {
        "fitted": date.today().isoformat(),
        "method": "soft-L1 least squares on log(predicted/measured), curves alike; residuals are |predicted/measured - 1|",
        "reduction_efficiency": {**found["reduction_efficiency"], "source": source},
        "constants": found["constants"],
    }
    write_yaml(document, options.out, "Written by python -m clusters.calibration.links.")
    sys.stdout.write("".join(_lines(found["constants"])))


def _lines(constants: Mapping[str, Any]) -> Iterable[str]:
    """One line per entry: residuals, rows and the four constants."""
    for name, ops in constants.items():
        for op, regimes in ops.items():
            for regime, found in regimes.items():
                four = [*(found[key] for key in CONSTANTS[:3]), found.get("bulk_s") or found["ramp_s"]]
                stated, shape = found["residuals"], "bulk" if "bulk_s" in found else "ramp"
                errors = f"{stated['median']:7.1%} {stated['p90']:7.1%} {stated['n']:5}"
                figures = " ".join(f"{value:9.3g}" for value in four)
                yield f"{name:9} {op:15} {regime:8} {errors} {figures} {shape} {found.get('held_out', '')}\n"


if __name__ == "__main__":
    main()
