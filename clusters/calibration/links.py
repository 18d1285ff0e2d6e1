"""Fit link constants to measured collectives and MoE exchanges: `python -m clusters.calibration.links [--out FILE]`.

Every entry prices its rows with the closed forms of `collectives`, as a user's question would, and fits four constants
or fewer by least squares on log(predicted/measured) with a soft-L1 loss, over all group sizes at once. A constant that
the rows cannot identify is fixed beforehand, at NCCL's documented value or a neighbour's, and the entry's note says so.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import residuals, significant, write_yaml
from clusters.catalogue import accelerator, link, switch
from clusters.measurements import Table, read_csv
from clusters.tunings import CONSTANTS, COPIES, DATA, collective_s
from collectives.moe import moe_exchange
from collectives.path import Hop, LinkModel
from topo.columns import Column

AICONFIGURATOR = "aiconfigurator-core 0.12.0 and aiconfigurator 0.5.0 (NVIDIA, Apache-2.0)"
BLOG = "TensorRT-LLM technical blog 18 (NVIDIA, Apache-2.0)"
NCCL = "NVIDIA/nccl src/graph/tuning.cc, v2.30"

#: NCCL's nvlsEfficiency: share of the ring's bandwidth that the switches keep when they add.
REDUCTION_EFFICIENCY = {"nvlink4": 0.85, "nvlink5": 0.74}

#: Link -> the systems of the tables that are wired with it, and one accelerator that has its bandwidth.
NVLINKS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nvlink3": ("a100-sxm-80", ("a100_sxm",)),
    "nvlink4": ("h100-sxm", ("h100_sxm", "h200_sxm")),
    "nvlink5": ("gb200", ("b200_sxm", "b300_sxm", "gb200")),
}

#: Operation -> its name in the tables.
NCCL_OPS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "all_to_all": "alltoall",
}

#: Kernels of serving frameworks that CUDA graphs replay.
GRAPH_KERNELS = ("vllm_graph", "sglang_graph", "trtllm", "TRTLLM")

#: Start, lower and upper bound of base_s, step_s, efficiency and ramp_s.
START = (8e-6, 5e-7, 0.7, 5e-6)
LOWER = (0.0, 0.0, 0.05, 0.0)
UPPER = (3e-4, 5e-5, 1.0, 1e-3)
SCALE = (1e-6, 1e-6, 0.1, 1e-6)

#: An exchange takes one step, whose time cannot be told from the base: three constants.
ONE_STEP: Mapping[str, float] = {"step_s": 0.0}

Price = Callable[[LinkModel], Column]


@dataclass(frozen=True, slots=True)
class Job:
    """One entry to fit: where it goes, what was measured, how a model prices it, which constants are fixed.

    `least_base_s` is the base of the inner tiers: the largest base of a path counts, so a smaller one has no meaning.
    """

    where: tuple[str, str, str]
    measured_s: Column
    price: Price
    ranks: Column
    source: str
    fixed: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    least_base_s: float = 0.0


def fit(job: Job) -> LinkModel:
    """Fit the constants that a job leaves free; they come back rounded as the data file holds them."""
    from scipy.optimize import least_squares

    free = [at for at, name in enumerate(CONSTANTS) if name not in job.fixed]

    def model(values: Iterable[float]) -> LinkModel:
        return LinkModel(
            **{**job.fixed, **{CONSTANTS[at]: float(value) for at, value in zip(free, values, strict=True)}}
        )

    def loss(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.log(job.price(model(values)) / job.measured_s)

    def some(values: tuple[float, ...], base_s: float = 0.0) -> list[float]:
        return [max(base_s, values[at]) if CONSTANTS[at] == "base_s" else values[at] for at in free]

    best = least_squares(
        loss,
        some(START, job.least_base_s + 8e-6),
        bounds=(some(LOWER, job.least_base_s), some(UPPER)),
        x_scale=some(SCALE),
        loss="soft_l1",
        f_scale=0.1,
    )
    return model([significant(value) for value in best.x])


def entry(job: Job, model: LinkModel) -> dict[str, Any]:
    """Return a fitted entry as the data file holds it: constants, residuals, groups measured, source."""
    found: dict[str, Any] = {key: significant(getattr(model, key)) for key in CONSTANTS}
    found["residuals"] = residuals(job.price(model), job.measured_s)
    found["ranks"] = [int(job.ranks.min()), int(job.ranks.max())]
    found["source"] = job.source
    return {**found, "note": job.note} if job.note else found


def nvlink_hop(name: str, model: LinkModel) -> Hop:
    """One scale-up tier of a link generation, with its figures from the catalogue."""
    part = accelerator(NVLINKS[name][0])
    wires = link(name)
    return Hop(
        part.scale_up_Bps,
        wires.latency_s,
        model,
        in_network_reduction=switch(wires.switch).in_network_reduction,
        reduction_efficiency=REDUCTION_EFFICIENCY.get(name, 1.0),
    )


def network_hop(name: str, model: LinkModel, bandwidth_Bps: float) -> Hop:
    """One scale-out tier: two cables with their adapters and one switch."""
    wires = link(name)
    latency_s = 2 * wires.latency_s + (switch(wires.switch).latency_s or 0.0)
    return Hop(bandwidth_Bps, latency_s, model, plane="scale-out")


def where(rows: Table, mask: npt.NDArray[np.bool_]) -> Table:
    """Rows of a table."""
    return {key: values[mask] for key, values in rows.items()}


def nccl_jobs(rows: Table) -> list[Job]:
    """NCCL and graph kernels inside one NVLink domain.

    All-to-all on GB200 under NCCL 2.23 has a flat launch floor that grows with the ranks (60 to 650 µs): only its sizes
    from 512 MiB are used, where the wire rules.
    """
    floor = (rows["system"] == "gb200") & (rows["software_version"] == "2.23") & (rows["op"] == "alltoall")
    usable = ~(floor & (rows["message_bytes"] < 2**29)) & (rows["latency_us"] > 0)
    jobs = []
    for name, (_, systems) in NVLINKS.items():
        here = usable & np.isin(rows["system"], systems)
        kinds = [(op, "nccl", (rows["op"] == word) & (rows["impl"] == "NCCL")) for op, word in NCCL_OPS.items()]
        kinds.append(("all_reduce", "graph", (rows["op"] == "all_reduce") & np.isin(rows["impl"], GRAPH_KERNELS)))
        jobs += [_domain_job(name, op, regime, where(rows, here & mask)) for op, regime, mask in kinds]
    return jobs


def _domain_job(name: str, op: str, regime: str, rows: Table) -> Job:
    size, ranks = rows["message_bytes"], rows["num_gpus"]

    def price(model: LinkModel) -> Column:
        return collective_s(op, size, ranks[np.newaxis], (nvlink_hop(name, model),), regime)

    return Job((name, op, regime), rows["latency_us"] * 1e-6, price, ranks, AICONFIGURATOR)


def row_bytes(hidden: Column, dtype: npt.NDArray[np.str_]) -> Column:
    """Bytes of one token on the wire: FP8 with a 4-byte scale per 128 values, FP4 with one per 16, else 16 bits.

    >>> row_bytes(np.array([7168.0, 7168.0]), np.array(["fp8", "bfloat16"]))
    array([ 7392., 14336.])
    """
    fp4 = np.isin(dtype, ("fp4", "nvfp4"))
    return np.where(dtype == "fp8", hidden * (1 + 4 / 128), np.where(fp4, hidden * 0.5625, hidden * 2.0))


def exchange_s(rows: Table, members: Column, path: tuple[Hop, ...], regime: str, row: Column) -> Column:
    """Seconds of measured MoE exchanges by the regime's copy rule; normal kernels route to four domains at most."""
    copies: Any = COPIES[regime]
    limit = 4.0 if copies == "node" else None
    experts = np.maximum(rows["experts"], rows["ep_size"])
    return moe_exchange(
        rows["tokens_per_rank"], row, rows["topk"], experts, members, path, copies=copies, node_limit=limit
    )["total_s"]


def moe_jobs(rows: Table, phase: str) -> list[Job]:
    """DeepEP exchanges inside one NVLink domain, low latency and normal (with 20 or 24 multiprocessors)."""
    jobs = []
    for regime, backend, sms in (("low-latency", "deepep_low_latency", (0,)), ("normal", "deepep_normal", (20, 24))):
        chosen = (rows["backend"] == backend) & (rows["phase"] == phase) & np.isin(rows["sms"], sms)
        for name in ("nvlink4", "nvlink5"):
            inside = chosen & (rows["nodes"] == 1) & np.isin(rows["system"], NVLINKS[name][1])
            jobs.append(_exchange_job(name, f"moe_{phase}", regime, where(rows, inside)))
    return jobs


def _exchange_job(name: str, op: str, regime: str, rows: Table, source: str = AICONFIGURATOR) -> Job:
    row = rows["bytes_per_token"] if "bytes_per_token" in rows else row_bytes(rows["hidden"], rows["comm_dtype"])

    def price(model: LinkModel) -> Column:
        return exchange_s(rows, rows["ep_size"][np.newaxis], (nvlink_hop(name, model),), regime, row)

    return Job((name, op, regime), rows["latency_us"] * 1e-6, price, rows["ep_size"], source, ONE_STEP)


def one_sided_jobs(rows: Table, phase: str) -> list[Job]:
    """One-sided exchanges over NVLink on GB200 NVL72."""
    return [_exchange_job("nvlink5", f"moe_{phase}", "one-sided", where(rows, rows["phase"] == phase), BLOG)]


def scale_out_moe_jobs(rows: Table, phase: str, inside: Mapping[str, LinkModel]) -> list[Job]:
    """DeepEP exchanges between H100 nodes of eight over NDR, given the constants inside a node.

    Normal kernels on 64 ranks are left out: their dispatch reaches 19 GB/s of 50 whatever the multiprocessors, and
    their combine jumps fourfold between 8,192 and 16,384 tokens, against 43 to 58 GB/s in DeepEP's own table.
    """
    jobs = []
    for regime, backend, sms, widest in (
        ("low-latency", "deepep_low_latency", (0,), 64),
        ("normal", "deepep_normal", (20, 24), 16),
    ):
        mask = (rows["backend"] == backend) & (rows["phase"] == phase) & (rows["nodes"] > 1)
        chosen = where(
            rows, mask & np.isin(rows["sms"], sms) & (rows["ep_size"] <= widest) & (rows["system"] == "h100_sxm")
        )
        if chosen["ep_size"].size:
            jobs.append(_between_nodes_job(f"moe_{phase}", regime, chosen, inside[regime]))
    return jobs


def _between_nodes_job(op: str, regime: str, rows: Table, inside: LinkModel) -> Job:
    members = np.stack([np.full_like(rows["ep_size"], 8.0), rows["ep_size"]])
    row = row_bytes(rows["hidden"], rows["comm_dtype"])

    def price(model: LinkModel) -> Column:
        path = (nvlink_hop("nvlink4", inside), network_hop("ib-ndr", model, 50e9))
        return exchange_s(rows, members, path, regime, row)

    measured_s, least_base_s = rows["latency_us"] * 1e-6, inside.base_s
    return Job(
        ("ib-ndr", op, regime),
        measured_s,
        price,
        rows["ep_size"],
        AICONFIGURATOR,
        ONE_STEP,
        least_base_s=least_base_s,
    )


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
    "DGX A100 8xHDR": Fabric("ib-hdr", 8, 25e9, "nvlink3"),
    "8xA100-40 4xHDR": Fabric("ib-hdr", 8, 12.5e9, "nvlink3"),
    "OCI BM.GPU.B4.8 8xA100-40 RoCE 16x100G": Fabric("roce-400", 8, 25e9, "nvlink3"),
    "OCI BM.GPU.MI300X.8 RoCE 8x400G RCCL": Fabric("roce-400", 8, 50e9, "nvlink4"),
}

PEAK_BYTES = 8 * 2.0**30  # a peak without a size was taken at 8 GiB, the largest that nccl-tests runs by default


def network_job(rows: Table, name: str, inside: Mapping[str, LinkModel], fixed: Mapping[str, float], note: str) -> Job:
    """All-reduce between nodes over one kind of network, given the constants inside the nodes."""
    systems = [system for system, fabric in FABRICS.items() if fabric.link == name]
    chosen = where(rows, np.isin(rows["system"], systems) & (rows["op"] == "all_reduce"))
    fabrics = [FABRICS[system] for system in chosen["system"]]
    size = np.nan_to_num(chosen["message_bytes"], nan=PEAK_BYTES)
    ranks = chosen["ranks"]
    by_busbw = 2 * (ranks - 1) / ranks * size / (chosen["busbw_GBps"] * 1e9)
    measured_s = np.where(np.isnan(chosen["latency_us"]), by_busbw, chosen["latency_us"] * 1e-6)

    def price(model: LinkModel) -> Column:
        seconds = np.empty_like(ranks)
        for fabric in set(fabrics):
            at = np.array([other == fabric for other in fabrics])
            members = np.stack([np.full(at.sum(), float(fabric.domain)), ranks[at]])
            domain = replace(nvlink_hop(fabric.inside, inside[fabric.inside]), in_network_reduction=fabric.adds)
            path = (domain, network_hop(name, model, fabric.bandwidth_Bps))
            seconds[at] = collective_s("all_reduce", size[at], members, path)
        return seconds

    source = "; ".join(sorted({source.split(";")[0] for source in chosen["source"]}))
    return Job((name, "all_reduce", "nccl"), measured_s, price, ranks, source, fixed, note)


def calibrate() -> dict[str, Any]:
    """Fit every entry; return the `constants` part of the data file: link -> operation -> regime."""
    constants: dict[str, Any] = {}
    models: dict[tuple[str, str, str], LinkModel] = {}

    def settle(jobs: Iterable[Job]) -> None:
        for job in jobs:
            models[job.where] = fit(job)
            name, op, regime = job.where
            constants.setdefault(name, {}).setdefault(op, {})[regime] = entry(job, models[job.where])

    moe, one_sided = read_csv("moe_all2all.csv"), read_csv("moe_all2all_gb200_onesided.csv")
    settle(nccl_jobs(read_csv("collectives_nccl.csv")))
    for phase in ("dispatch", "combine"):
        settle([*moe_jobs(moe, phase), *one_sided_jobs(one_sided, phase)])
        inside = {regime: models["nvlink4", f"moe_{phase}", regime] for regime in ("low-latency", "normal")}
        settle(scale_out_moe_jobs(moe, phase, inside))
    settle(_network_jobs(read_csv("collectives_published.csv"), models))
    return constants


def _network_jobs(rows: Table, models: Mapping[tuple[str, str, str], LinkModel]) -> Iterable[Job]:
    """InfiniBand NDR first, then the networks that borrow what their own rows cannot tell.

    No row without in-network reduction covers the middle sizes, so the ramp is that of NVLink 4. The launch base is
    NCCL's ring and tree in the LL protocol.
    """
    inside = {name: models[name, "all_reduce", "nccl"] for name in NVLINKS}
    base_s, ramp_s = 6.6e-6, significant(inside["nvlink4"].ramp_s)
    note = f"base from {NCCL} (ring, LL); ramp of nvlink4 all_reduce"
    yield network_job(rows, "ib-ndr", inside, {"base_s": base_s, "ramp_s": ramp_s}, note)
    latency_s = models["ib-ndr", "all_reduce", "nccl"].step_s
    borrowed = {"base_s": base_s, "step_s": latency_s, "ramp_s": ramp_s}
    for name in ("ib-hdr", "roce-400"):
        yield network_job(rows, name, inside, borrowed, f"{note}; latency of ib-ndr; efficiency from its own rows")


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped measurements and write the constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA)
    options = parser.parse_args(arguments)
    constants = calibrate()
    document = {
        "fitted": date.today().isoformat(),
        "method": "soft-L1 least squares on log(predicted/measured); residuals are |predicted/measured - 1|",
        "reduction_efficiency": {**REDUCTION_EFFICIENCY, "source": f"{NCCL}, nvlsEfficiency"},
        "constants": constants,
    }
    write_yaml(document, options.out, "Written by python -m clusters.calibration.links.")
    sys.stdout.write("".join(_lines(constants)))


def _lines(constants: Mapping[str, Any]) -> Iterable[str]:
    """One line per entry: residuals, rows and the four constants."""
    for name, ops in constants.items():
        for op, regimes in ops.items():
            for regime, found in regimes.items():
                stated, four = found["residuals"], " ".join(f"{found[key]:9.3g}" for key in CONSTANTS)
                errors = f"{stated['median']:7.1%} {stated['p90']:7.1%} {stated['n']:5}"
                yield f"{name:9} {op:15} {regime:12} {errors} {four}\n"


if __name__ == "__main__":
    main()
