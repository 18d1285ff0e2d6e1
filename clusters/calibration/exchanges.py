"""Fit the constants of MoE exchanges to measured ones: `python -m clusters.calibration.exchanges [--out FILE]`.

Each kernel on a kind of link has five constants of an `ExchangeModel` or fewer, shared by all ranks, shapes, data types
and counts of multiprocessors. They are fitted by least squares on log(predicted/measured) with a soft-L1 loss, every
group of a system and a number of ranks with the same weight. Beside the residuals of the fit an entry states those of
the rows that a fit without them predicts: 64 ranks, and each source where there are two.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from clusters.calibration.residuals import ape, residuals, significant, write_yaml
from clusters.catalogue import accelerator, link, switch
from clusters.exchanges import KERNELS, workers
from clusters.measurements import Table, read_csv
from clusters.tunings import EXCHANGES
from collectives.moe import moe_exchange
from collectives.moe_kernel import ExchangeModel
from collectives.path import Hop
from topo.columns import Column

AICONFIGURATOR: Final = "aiconfigurator-core 0.12.0 and aiconfigurator 0.8.0 (NVIDIA, Apache-2.0)"
BLOG: Final = "TensorRT-LLM technical blog 18 (NVIDIA, Apache-2.0)"
SOURCES: Final = {"aiconfigurator": AICONFIGURATOR, "blog": BLOG}

#: System of the tables -> its accelerator.
PARTS: Final[Mapping[str, str]] = {
    "h100_sxm": "h100-sxm",
    "h200_sxm": "h200-sxm",
    "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm",
    "gb200": "gb200",
    "gb200_nvl72": "gb200",
}

#: Kernels as a table names them -> regime of the constants.
BACKENDS: Final[Mapping[str, str]] = {
    "deepep-low-latency": "low-latency",
    "deepep-normal": "normal",
    "deepep-ll": "low-latency-vllm",
    "deepep-ht": "normal-vllm",
    "trtllm-deepep-ll": "low-latency-trtllm",
    "trtllm-deepep-ht": "normal-trtllm",
    "deepep-v2-generation": "low-latency-v2",
    "deepep-v2-context": "normal-v2",
    "nvlinkonesided": "one-sided",
    "tensorrt-llm-nvlinkonesided": "one-sided",
    "nvlinktwosided": "two-sided",
    "mnnvlmoe": "mnnvl",
}

DOMAIN_LINKS: Final = ("nvlink4", "nvlink5")
NETWORK: Final = ("ib-ndr", 50e9)
"""Link between nodes and its bytes/s for each accelerator: the tables do not state it, and those that ship had it."""
NODE: Final = 8
NODE_LIMIT: Final = 4.0
"""Nodes that the router of the normal kernels' measurements chose from (DeepSeek-V3's; at two nodes it changes nothing)."""
WIDEST: Final = 64
"""The number of ranks that is predicted from fewer."""
WIDE: Final = f"{WIDEST} ranks"

#: Regime (its first word: the kind of kernel) -> the constants that its rows tell apart, and where the search starts.
START: Final[Mapping[str, float]] = {
    "base_s": 2e-5,
    "efficiency": 0.6,
    "expert_s": 2e-8,
    "peers_s": 5e-6,
    "token_s": 1e-6,
    "byte_s": 2e-11,
    "row_byte_s": 1e-9,
    "host_s": 7e-5,
}
SLOWER: Final = ("token_s", "byte_s")
"""Constants that a second search starts with seven times higher: work that the wire hides has no slope."""
COUNTED: Final = ("base_s", "expert_s", "efficiency", "token_s")
STORED: Final = ("base_s", "peers_s", "efficiency", "token_s")
COPIED: Final = ("base_s", "efficiency", "token_s", "byte_s")


FIXED: Final = {("nvlink5", "normal"): {"efficiency": 0.7}}
FIXED_NOTE: Final = (
    "efficiency from DeepEP's second version on 64 multiprocessors (README: 726 GB/s, of which 7/8 leave the rank); with "
    "24 and fewer the wire is never full"
)


def free(regime: str, phase: str, crossing: bool) -> tuple[str, ...]:
    """Return the constants that the rows of a kernel can tell apart, five at most.

    Kernels that an engine issues without a graph wait for its host; between nodes the wire hides what a multiprocessor
    does in the low-latency kernels; one row's way through its queue shows in the normal combine, which adds on the way.

    >>> free("normal", "combine", crossing=False)
    ('base_s', 'efficiency', 'token_s', 'byte_s', 'row_byte_s')
    """
    if phase == "prepare":
        return ("base_s", "peers_s", "token_s")
    copied = regime.startswith("normal")
    if crossing:
        return COPIED if copied else ("base_s", "expert_s", "efficiency")
    if regime == "normal":
        return (*COPIED, "row_byte_s") if phase == "combine" else COPIED
    found = COPIED if copied else COUNTED if regime.startswith("low-latency") else STORED
    return found if regime in ("low-latency", "one-sided", "two-sided") else (*found, "host_s")


def row_bytes(hidden: Column, dtype: npt.NDArray[np.str_]) -> Column:
    """Bytes of one token on the wire: FP8 with a 4-byte scale per 128 values, FP4 with one per 16, else 16 bits.

    >>> row_bytes(np.array([7168.0, 7168.0]), np.array(["fp8", "bfloat16"]))
    array([ 7392., 14336.])
    """
    fp4 = np.isin(dtype, ("fp4", "nvfp4"))
    return np.where(
        np.isin(dtype, ("fp8", "mxfp8")), hidden * (1 + 4 / 128), np.where(fp4, hidden * 0.5625, hidden * 2.0)
    )


def sent_bytes(rows: Table) -> Column:
    """Bytes of a row of each measurement: as stated, else by its data type; 16 bits on the way back unless it is cast."""
    if "bytes_per_token" in rows:
        return rows["bytes_per_token"]
    return row_bytes(rows["hidden"], np.where(rows["phase"] == "combine", "bfloat16", rows["comm_dtype"]))


def exchange_s(rows: Table, members: Column, path: tuple[Hop, ...], regime: str, part: str) -> Column:
    """Seconds of measured MoE exchanges by what the regime's kernel does; a preparation sends no rows."""
    kernel = KERNELS[regime]
    experts = np.maximum(rows["experts"], rows["ep_size"])
    stated = np.nan_to_num(np.asarray(rows.get("sms", 0.0), dtype=np.float64))
    lent = np.where(stated > 0, stated, kernel.lent)
    preparing = rows["phase"] == "prepare"
    return moe_exchange(
        rows["tokens_per_rank"],
        np.where(preparing, 0.0, sent_bytes(rows)),
        rows["topk"],
        experts,
        members,
        path,
        copies=kernel.copies,
        node_limit=NODE_LIMIT if kernel.copies == "node" else None,
        workers=workers(regime, part, experts, lent=lent),
        in_turn=kernel.in_turn,
    )["total_s"]


def nvlink_hop(part: str, model: ExchangeModel) -> Hop:
    """One scale-up tier, with the figures of an accelerator's links from the catalogue."""
    chip = accelerator(part)
    return Hop(chip.scale_up_Bps, link(chip.link).latency_s, model)


def network_hop(model: ExchangeModel) -> Hop:
    """One scale-out tier: two cables with their adapters and one switch."""
    name, bandwidth_Bps = NETWORK
    wires = link(name)
    latency_s = 2 * wires.latency_s + (switch(wires.switch).latency_s or 0.0)
    return Hop(bandwidth_Bps, latency_s, model, plane="scale-out")


@dataclass(frozen=True)
class Job:
    """One entry to fit: where it goes, what was measured, which constants are free, what is known inside.

    The key of a table begins with its system.

    `inside` holds the constants of the link inside a node where the rows cross a network, else None; `fixed` what is
    known beforehand; `aside` are measurements that the fit leaves out, which it predicts all the same.
    """

    where: tuple[str, str, str]
    tables: Mapping[str, Table]
    free: tuple[str, ...]
    inside: ExchangeModel | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    aside: Mapping[str, Table] = field(default_factory=dict)
    note: str = ""
    sources: Sequence[str] = ("aiconfigurator",)

    def price(self, model: ExchangeModel) -> Column:
        """Seconds of all rows, table after table."""
        return np.concatenate([self._price(part, rows, model) for part, rows in self.tables.items()])

    def _price(self, key: str, rows: Table, model: ExchangeModel) -> Column:
        part, ranks, regime = PARTS[key.split(maxsplit=1)[0]], rows["ep_size"], self.where[2]
        if self.inside is None:
            return exchange_s(rows, ranks[np.newaxis], (nvlink_hop(part, model),), regime, part)
        path = (nvlink_hop(part, self.inside), network_hop(model))
        return exchange_s(rows, np.stack([np.full_like(ranks, NODE), ranks]), path, regime, part)

    def column(self, key: str) -> Any:
        """One column of all rows."""
        return np.concatenate([rows[key] for rows in self.tables.values()])

    @property
    def measured_s(self) -> Column:
        """What was measured, in seconds."""
        return np.asarray(self.column("latency_us") * 1e-6)

    @property
    def weights(self) -> Column:
        """Weight of each row: every system and number of ranks counts the same."""
        found = []
        for rows in self.tables.values():
            _, at, count = np.unique(rows["ep_size"], return_inverse=True, return_counts=True)
            found.append(1.0 / count[at])
        weights = np.concatenate(found)
        return np.asarray(weights / weights.mean())

    def split(self, leave: Callable[[str, Table], npt.NDArray[np.bool_]]) -> tuple["Job", "Job"]:
        """Return the job without some rows of the fit, and with those of all that was measured alone."""

        def some(tables: Mapping[str, Table], wanted: bool) -> dict[str, Table]:
            masks = {key: leave(key, rows) == wanted for key, rows in tables.items()}
            return {key: where(tables[key], mask) for key, mask in masks.items() if mask.any()}

        left = {**some(self.tables, True), **some(self.aside, True)}
        return replace(self, tables=some(self.tables, False), aside={}), replace(self, tables=left, aside={})


def where(rows: Table, mask: npt.NDArray[np.bool_]) -> Table:
    """Rows of a table."""
    return {key: values[mask] for key, values in rows.items()}


def model_of(values: Mapping[str, float]) -> ExchangeModel:
    """Return the model with some constants; the wire costs nothing more where its efficiency is not among them."""
    known: dict[str, Any] = {"base_s": 0.0, "step_s": 0.0, "efficiency": 1.0, **values}
    return ExchangeModel(**known)


def fit(job: Job) -> ExchangeModel:
    """Fit the constants that a job leaves free, as logarithms; they come back rounded as the data file holds them.

    A constant without which the loss grows by less than a thousandth explains nothing: it is left out.
    """
    from scipy.optimize import least_squares

    start = np.array([START[name] for name in job.free])
    least = np.log(start) - 12.0
    most = np.where(np.array(job.free) == "efficiency", 0.0, np.log(start) + 7.0)
    weights, measured_s, width = np.sqrt(job.weights), job.measured_s, 0.1

    def model(logs: npt.NDArray[np.float64]) -> ExchangeModel:
        return model_of({**job.fixed, **dict(zip(job.free, np.exp(logs).tolist(), strict=True))})

    def loss_of(model: ExchangeModel) -> npt.NDArray[np.float64]:
        error = np.log(job.price(model) / measured_s) / width
        return np.asarray(weights * np.sign(error) * np.sqrt(2 * (np.sqrt(1 + error**2) - 1)))

    def loss(logs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return loss_of(model(logs))

    def cost(model: ExchangeModel) -> float:
        return float(np.sum(loss_of(model) ** 2))

    starts = (np.log(start), np.log(start) + np.where(np.isin(job.free, SLOWER), 2.0, 0.0))
    best = min((least_squares(loss, x, bounds=(least, most)) for x in starts), key=lambda found: float(found.cost))
    values = dict(zip(job.free, map(significant, np.exp(best.x)), strict=True))
    for name in job.free:
        without = {key: value for key, value in values.items() if key != name}
        if cost(model_of({**job.fixed, **without})) < 1.001 * cost(model_of({**job.fixed, **values})):
            values = without
    return model_of({**job.fixed, **values})


def held_out(job: Job) -> dict[str, Any]:
    """Return how a fit without some rows predicts them: the widest groups, and each source where there are two."""

    def leaves(name: str, key: str, rows: Table) -> npt.NDArray[np.bool_]:
        return rows["ep_size"] >= WIDEST if name == WIDE else np.full(rows["ep_size"].shape, key.endswith(name))

    found = {}
    for name in (WIDE, *(job.sources if len(job.sources) > 1 else ())):
        kept, left = job.split(partial(leaves, name))
        if kept.tables and left.tables:
            found[name] = _figures(left.price(fit(kept)), left.measured_s)
    return found


def _figures(predicted: Column, measured: Column) -> dict[str, Any]:
    error = ape(predicted, measured)
    return {
        "n": int(error.size),
        "median": significant(np.median(error)),
        "p90": significant(np.quantile(error, 0.9)),
        "bias": significant(np.median(predicted / measured - 1.0)),
    }


def entry(job: Job, model: ExchangeModel) -> dict[str, Any]:
    """Return a fitted entry as the data file holds it: constants, residuals, groups measured, source."""
    found: dict[str, Any] = {key: getattr(model, key) for key in (*job.free, *job.fixed) if getattr(model, key) > 0}
    ranks = job.column("ep_size")
    found["residuals"] = residuals(job.price(model), job.measured_s)
    if apart := held_out(job):
        found["held_out"] = apart
    found["ranks"] = [int(ranks.min()), int(ranks.max())]
    found["source"] = "; ".join(SOURCES[source] for source in job.sources)
    return {**found, "note": job.note} if job.note else found


def jobs(moe: Table, one_sided: Table, known: Mapping[tuple[str, str, str], ExchangeModel] | None = None) -> list[Job]:
    """Return the kernels inside a domain; or those across a network, where the constants inside are known."""
    regimes = np.array([BACKENDS[key] for key in np.char.replace(np.char.lower(moe["backend"]), "_", "-").tolist()])
    found = []
    for phase in dict.fromkeys(moe["phase"].tolist()):
        for regime in dict.fromkeys(BACKENDS.values()):
            rows = where(moe, (regimes == regime) & (moe["phase"] == phase))
            make = _inside if known is None else _across
            found += make(rows, regime, phase, one_sided, known or {})
    return found


def _by_system(rows: Table, systems: Iterable[str]) -> dict[str, Table]:
    """Rows of each of some systems that has any."""
    return {name: where(rows, rows["system"] == name) for name in systems if (rows["system"] == name).any()}


def _inside(rows: Table, regime: str, phase: str, one_sided: Table, _: Mapping[Any, Any]) -> list[Job]:
    """Return a kernel inside a domain, link generation by link generation; a node of GB200 is part of a rack."""
    found = []
    for name in DOMAIN_LINKS:
        systems = [system for system, part in PARTS.items() if accelerator(part).link == name]
        tables = _by_system(where(rows, (rows["nodes"] == 1) | (rows["system"] == "gb200")), systems)
        sources = ["aiconfigurator"]
        if regime == "one-sided" and tables:
            tables = {f"{key} aiconfigurator": table for key, table in tables.items()}
            tables["gb200_nvl72 blog"] = where(one_sided, one_sided["phase"] == phase)
            sources.append("blog")
        if tables:
            place, known = (name, f"moe_{phase}", regime), FIXED.get((name, regime), {})
            told_apart = tuple(key for key in free(regime, phase, crossing=False) if key not in known)
            note = FIXED_NOTE if known else ""
            found.append(Job(place, tables, told_apart, fixed=known, note=note, sources=sources))
    return found


ASIDE: Final = (
    "without 64 ranks in dispatch, which reach 17 GB/s of 50 whatever the multiprocessors, and without 16,384 tokens and "
    "more of 64 ranks in combine, where the rate falls fourfold; DeepEP's own table has 50 GB/s"
)
COPYING: Final = "one shape on one number of ranks: a multiprocessor copies a byte as fast as inside a node"


def aside(regime: str, phase: str, ranks: Any, tokens: Any) -> Any:
    """Whether rows across a network are left out of the fit, as `ASIDE` says; numbers or columns."""
    if regime != "normal":
        return ranks < 0
    return (ranks >= WIDEST) & ((phase == "dispatch") | (tokens > 8192))


def _across(
    rows: Table, regime: str, phase: str, _: Table, known: Mapping[tuple[str, str, str], ExchangeModel]
) -> list[Job]:
    """Return a kernel between H100 nodes over NDR, given the constants inside a node."""
    if not (crossing := (rows["nodes"] > 1) & (rows["system"] == "h100_sxm")).any():
        return []
    rows, inside = where(rows, crossing), known["nvlink4", f"moe_{phase}", regime]
    left = aside(regime, phase, rows["ep_size"], rows["tokens_per_rank"])
    fixed = {"byte_s": inside.byte_s} if np.unique(rows["ep_size"][~left]).size == 1 else {}
    return [
        Job(
            (NETWORK[0], f"moe_{phase}", regime),
            {"h100_sxm": where(rows, ~left)},
            tuple(key for key in free(regime, phase, crossing=True) if key not in fixed),
            inside=inside,
            fixed=fixed,
            aside={"h100_sxm aside": where(rows, left)} if left.any() else {},
            note="; ".join([ASIDE] * bool(left.any()) + [COPYING] * bool(fixed)),
        )
    ]


def calibrate() -> dict[str, Any]:
    """Fit every entry; return the `constants` part of the data file: link -> operation -> regime."""
    constants: dict[str, Any] = {}
    models: dict[tuple[str, str, str], ExchangeModel] = {}
    moe, one_sided = read_csv("moe_all2all.csv"), read_csv("moe_all2all_gb200_onesided.csv")
    for known in (None, models):
        for job in jobs(moe, one_sided, known):
            models[job.where] = fit(job)
            name, op, regime = job.where
            constants.setdefault(name, {}).setdefault(op, {})[regime] = entry(job, models[job.where])
    return constants


def main(arguments: list[str] | None = None) -> None:
    """Fit the shipped measurements and write the constants."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=EXCHANGES)
    options = parser.parse_args(arguments)
    constants = calibrate()
    document = {
        "fitted": date.today().isoformat(),
        "method": "soft-L1 least squares on log(predicted/measured); residuals are |predicted/measured - 1|",
        "constants": constants,
    }
    write_yaml(document, options.out, "Written by python -m clusters.calibration.exchanges.")
    sys.stdout.write("".join(_lines(constants)))


def _lines(constants: Mapping[str, Any]) -> Iterable[str]:
    """One line per entry: residuals, rows and constants."""
    for name, ops in constants.items():
        for op, regimes in ops.items():
            for regime, found in regimes.items():
                stated, held = found["residuals"], found.get("held_out", {})
                values = " ".join(f"{key}={found[key]:.3g}" for key in START if key in found)
                apart = " ".join(f"{key}: {figures['median']:.1%}" for key, figures in held.items())
                yield f"{name:8} {op:26} {regime:18} {stated['median']:6.1%} {stated['p90']:6.1%} {values} {apart}\n"


if __name__ == "__main__":
    main()
