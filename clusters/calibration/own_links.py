"""Fit the link constants to collectives of one's own: `podscale calibrate collectives FILE --out F`.

The rows are priced on the tiers of a cluster, by the closed forms of what NCCL chooses among, as a user's question
would be, and fitted with the loss of `clusters.calibration.links`. Rows inside a domain give the constants of its link;
rows that leave it give those of the network, with the constants inside as just fitted or as they are known. What the
rows cannot tell is held at the value in force: `HELD` says when.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.build import Cluster, build, path
from clusters.calibration.link_fits import LOWER, ONE_STEP, UPPER, Job, entry, fit
from clusters.calibration.nccl_log import Log, Point, read_log
from clusters.calibration.residuals import write_yaml
from clusters.catalogue import accelerator
from clusters.products import part_of
from clusters.sections import OwnFile
from clusters.spec import load, parse
from clusters.tunings import CONSTANTS, collective_s, tuning
from collectives.path import LinkModel
from topo.columns import Column
from topo.errors import Fault, SpecError

METHOD: Final = "soft-L1 least squares on log(predicted/measured); residuals are |predicted/measured - 1|"
HOST: Final = 8
"""Accelerators of a host. A part whose domain is larger has hosts that share one (NVL72); else a host is a domain."""

FEW_SIZES: Final = 6
SMALL_BYTES: Final = 2.0**16
"""Up to here launch and steps rule: without such rows they cannot be told from the rest."""
LARGE_BYTES: Final = 2.0**26
"""From here the wire rules."""

POOR: Final = 0.2
"""A median residual above this means that the rows do not behave as the closed forms on these wires."""

Progress = Callable[..., None]
Models = dict[tuple[str, str, str], LinkModel]


@dataclass(frozen=True)
class Rows:
    """Points of one operation and regime whose outermost link is the same, on clusters of one wiring or several."""

    where: tuple[str, str, str]
    points: tuple[Point, ...]
    clusters: tuple[Cluster, ...]

    @property
    def own(self) -> OwnFile | None:
        """The tunings file that the clusters name."""
        return self.clusters[0].spec.tunings

    @cached_property
    def sizes(self) -> Column:
        """Bytes of every point."""
        return np.array([point.size_bytes for point in self.points])

    @cached_property
    def ranks(self) -> Column:
        """Group size of every point."""
        return np.array([float(point.ranks) for point in self.points])

    @cached_property
    def measured_s(self) -> Column:
        """Seconds of every point."""
        return np.array([point.seconds for point in self.points])

    @cached_property
    def blocks(self) -> list[tuple[Cluster, Column, Column]]:
        """Clusters, the places of the points that ran on each, and their members by tier."""
        found = []
        for cluster in {each.fingerprint: each for each in self.clusters}.values():
            at = [i for i, each in enumerate(self.clusters) if each.fingerprint == cluster.fingerprint]
            members = np.stack([members_of(cluster, self.points[i]) for i in at], axis=1)
            found.append((cluster, np.array(at), members))
        return found

    def price(self, models: Mapping[tuple[str, str, str], LinkModel]) -> Column:
        """Seconds of every point with some links' constants replaced."""
        _, op, regime = self.where
        seconds = np.empty(len(self.points))
        for cluster, at, members in self.blocks:
            hops = tuple(
                replace(hop, model=models.get((tier.link, op, regime)) or hop.model)
                for hop, tier in zip(path(cluster, op, regime), cluster.tiers, strict=True)
            )
            seconds[at] = collective_s(op, self.sizes[at], members, hops, regime)
        return seconds


#: (constants, whether some rows leave them open, why). What is held keeps the value in force for the link.
HELD: Final[tuple[tuple[tuple[str, ...], Callable[[Rows], bool], str], ...]] = (
    (("base_s", "step_s"), lambda rows: bool(rows.sizes.min() > SMALL_BYTES), "no size up to 64 KiB"),
    (("step_s",), lambda rows: np.unique(rows.ranks).size == 1, "one group size; two tell launch and steps apart"),
    (("efficiency",), lambda rows: bool(rows.sizes.max() < LARGE_BYTES), "no size from 64 MiB"),
    (("ramp_s",), lambda rows: np.unique(rows.sizes).size < FEW_SIZES, f"fewer than {FEW_SIZES} sizes"),
)


def cluster_of(point: Point, given: Cluster | None) -> Cluster:
    """Return the cluster that a point ran on: the one that was named, or as many usual domains as its ranks fill.

    >>> cluster_of(Point(1, "all_reduce", "nccl", "h100-sxm", 16, 2, 1e6, 1e-3), None).name
    'h100-sxm-x16'
    """
    if given is not None:
        return given
    part = accelerator(point.system)
    shared = part.domain > HOST
    domains = ceil(point.ranks / part.domain) if shared else max(point.nodes, ceil(point.ranks / part.domain))
    return build(parse({"accelerator": part.name, "accelerators": domains * part.domain}, wiring=True))


def members_of(cluster: Cluster, point: Point) -> Column:
    """Return how many ranks of a point's group share each tier of a cluster: equally many in every domain used.

    >>> h100 = Point(1, "all_reduce", "nccl", "h100-sxm", 8, 2, 1e6, 1e-3)  # four on each of two hosts
    >>> members_of(cluster_of(h100, None), h100)[:2]
    array([4., 8.])
    """
    hosts = ceil(point.ranks / cluster.domain) if cluster.domain > HOST else point.nodes
    domains = max(hosts, ceil(point.ranks / cluster.domain))
    inside = max(1, point.ranks // domains)
    shared = [
        min(inside, tier.size)
        if tier.size <= cluster.domain
        else min(point.ranks, inside * tier.size // cluster.domain)
        for tier in cluster.tiers
    ]
    return np.array([*shared[:-1], point.ranks], dtype=np.float64)


def outermost(cluster: Cluster, point: Point) -> str:
    """Return the link of the outermost tier that a group spans."""
    members = members_of(cluster, point)
    spanned = np.flatnonzero(members > np.concatenate([[1.0], members[:-1]]))
    return str(cluster.tiers[int(spanned[-1])].link)


def gather(log: Log, given: Cluster | None, file: str) -> list[Rows]:
    """Sort the points by link, operation and regime, those inside domains first.

    Raises
    ------
    SpecError
        The log does not tell the accelerator, or the cluster named is too small.
    """
    held: dict[tuple[str, str, str], list[tuple[Point, Cluster]]] = {}
    inner: set[str] = set()
    faults: dict[str, Fault] = {}
    for point in log.points:
        part = part_of(point.system) if point.system else None
        where = f"line {point.line}"
        if given is None and part is None:
            remedy = "name the cluster that it ran on: --cluster hgx-h100, or a cluster file"
            problem = "is on no accelerator that is known"
            faults.setdefault(problem, Fault(where, point.system or None, problem, remedy, file))
        elif given is not None and point.ranks > given.usable:
            problem = f"has {point.ranks} ranks, and the cluster {given.usable} accelerators"
            faults.setdefault(problem, Fault(where, None, problem, "name a larger one", file))
        else:
            named = replace(point, system=part.name) if part else point
            cluster = cluster_of(named, given)
            link = outermost(cluster, named)
            inner |= {tier.link for tier in cluster.tiers if tier.plane == "scale-up"}
            held.setdefault((link, point.op, point.regime), []).append((named, cluster))
    if faults:
        raise SpecError(faults.values())
    ordered = sorted(held, key=lambda where: where[0] not in inner)
    return [Rows(where, *map(tuple, zip(*held[where], strict=True))) for where in ordered]


def held_constants(rows: Rows) -> tuple[dict[str, float], list[str]]:
    """Return what the rows leave open, at the values in force, and why."""
    fixed: dict[str, float] = dict(ONE_STEP) if rows.where[1] == "send_recv" else {}
    why: list[str] = []
    known = tuning(*rows.where, rows.own)
    lent = known.note.startswith("no measurement")
    whose = known.note.split(";")[0].rpartition("constants of ")[2] if lent else "those in force"
    for names, left_open, reason in HELD:
        kept = [name for name in names if name not in fixed]
        if kept and left_open(rows):
            fixed |= {name: float(getattr(known.model, name)) for name in kept}
            why.append(f"{' and '.join(kept)} kept from {whose}: {reason}")
    return fixed, why


def settle(rows: Rows, models: Models, source: str) -> dict[str, Any] | None:
    """Fit one entry, put it among the models, and return it as the data file holds it; None where all is held."""
    link, op, regime = rows.where
    fixed, why = held_constants(rows)
    if len(fixed) == len(CONSTANTS):
        return None
    inside = [
        models.get((tier.link, op, regime)) or tuning(tier.link, op, regime, rows.own).model
        for cluster, _, _ in rows.blocks
        for tier in cluster.tiers
        if tier.plane == "scale-up" and tier.link != link
    ]
    least = max((model.base_s for model in inside), default=0.0)
    if "base_s" in fixed:
        fixed["base_s"] = max(fixed["base_s"], least)

    def price(model: LinkModel) -> Column:
        return rows.price({**models, rows.where: model})

    like = replace(tuning(*rows.where, rows.own).model, ramp_s=0.0, bulk_s=0.0)
    job = Job(rows.where, rows.measured_s, price, rows.ranks, source, fixed, "; ".join(why), least, like)
    models[rows.where] = fit(job)
    return entry(job, models[rows.where])


def doubts(rows: Rows, found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader should know of a fitted entry."""
    name = " ".join(rows.where)
    if found.get("note"):
        yield f"{name}: {found['note']}"
    if (many := found["residuals"]["n"]) < FEW_SIZES:
        yield f"{name}: {many} rows are too few for an interval"
    if found["residuals"]["median"] > POOR:
        yield f"{name}: off by {found['residuals']['median']:.0%} in the median; is that its wiring (--cluster)?"
    at = CONSTANTS.index("efficiency")
    if found["efficiency"] in (UPPER[at], LOWER[at]):
        yield f"{name}: efficiency at its bound of {found['efficiency']:g}; is that its bandwidth (--cluster)?"


def assumptions(all_rows: list[Rows], given: Cluster | None) -> Iterator[str]:
    """Yield what a log does not say and was taken for granted."""
    networks = {
        (cluster.accelerator.name, cluster.spec.scale_out.nic, rows.where[0])
        for rows in all_rows
        for cluster in rows.clusters
        if rows.where[0] == cluster.spec.scale_out.link
    }
    for part, nic, link in sorted(networks) if given is None else ():
        yield f"the file does not say what joins hosts of {part}: {nic} on {link} is taken; --cluster names another"
    racks = {
        (cluster.accelerator.name, cluster.domain)
        for rows in all_rows
        for point, cluster in zip(rows.points, rows.clusters, strict=True)
        if cluster.domain > HOST and point.nodes > 1
    }
    for part, domain in sorted(racks) if given is None else ():
        yield f"hosts of {part} are taken to share domains of {domain}, filled alike; --cluster says otherwise"
    if given is not None:
        systems = {point.system for rows in all_rows for point in rows.points} - {"", given.accelerator.name}
        for name in sorted(systems):
            yield f"the file was measured on {name}, and is priced on {given.accelerator.name} as --cluster says"


def calibrate(
    log: Log, given: Cluster | None = None, source: str = "", progress: Progress | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]], list[str]]:
    """Fit every entry of a log.

    Returns
    -------
    tuple
        `constants` as the data file holds them (link -> operation -> regime); a row for each point with `predicted`;
        warnings.
    """
    constants: dict[str, Any] = {}
    models: Models = {}
    all_rows = gather(log, given, source)
    told, warnings = [], [*log.warnings, *assumptions(all_rows, given)]
    for done, rows in enumerate(all_rows):
        if progress is not None:
            progress(done, len(all_rows), " ".join(rows.where))
        link, op, regime = rows.where
        found = settle(rows, models, source)
        if found is None:
            few = "its few middle sizes leave every constant open; measure 8 B to 8 GiB"
            warnings.append(f"{' '.join(rows.where)}: not fitted, {few}")
            continue
        constants.setdefault(link, {}).setdefault(op, {})[regime] = found
        warnings += doubts(rows, found)
        told += list(_told(rows, models))
    if not constants:
        raise SpecError([Fault("FILE", None, "has too little to fit anything", "; ".join(warnings), source)])
    return constants, told, list(dict.fromkeys(warnings))


def _told(rows: Rows, models: Models) -> Iterator[dict[str, Any]]:
    """Yield a row for each point: what was measured and what the constants make of it."""
    for point, seconds in zip(rows.points, rows.price(models).tolist(), strict=True):
        yield {
            "id": f"line {point.line}",
            "link": rows.where[0],
            "op": point.op,
            "regime": point.regime,
            "ranks": point.ranks,
            "nodes": point.nodes,
            "bytes": point.size_bytes,
            "measured": point.seconds,
            "predicted": seconds,
            "ape": abs(seconds / point.seconds - 1.0),
        }


def _stored(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry without its residuals where too few rows make them: prices then have no interval, and say so."""
    enough = found["residuals"]["n"] >= FEW_SIZES
    return {key: value for key, value in found.items() if enough or key != "residuals"}


def calibrate_file(
    file: str | Path,
    out: str | Path,
    progress: Progress | None = None,
    *,
    ranks: int | None = None,
    op: str = "",
    cluster: str = "",
) -> dict[str, Any]:
    """Fit anyone's own nccl-tests output and write a tunings file that lies over the shipped one.

    Parameters
    ----------
    file
        What nccl-tests printed, or a CSV table of collectives; see `nccl_log.read_log`, also for `ranks` and `op`.
    out
        Where the tunings file goes; a cluster file names it as `tunings`, `PODSCALE_TUNINGS` to every later command.
    progress
        Called as ``progress(done, total, note)``.
    cluster
        Name or file of the cluster that it was measured on; by default the usual one of the accelerator.

    Returns
    -------
    dict
        `constants` and `residuals` by link and by operation with regime; `rows`, measured beside predicted; `unused`
        lines by reason; `warnings`, `file`, `out` and `notes`.

    Raises
    ------
    SpecError
        The file is wrong (every fault at once), too small, or the result cannot be written.
    """
    given = build(load(cluster, wiring=True)) if cluster else None
    log = read_log(file, ranks, op)
    constants, rows, warnings = calibrate(log, given, str(file), progress)
    stored = {
        link: {name: {regime: _stored(found) for regime, found in regimes.items()} for name, regimes in ops.items()}
        for link, ops in constants.items()
    }
    document = {"source": str(file), "fitted": date.today().isoformat(), "method": METHOD, "constants": stored}
    header = "Written by podscale calibrate collectives. A cluster file that says tunings: <this file> obeys it."
    try:
        write_yaml(document, Path(out), header)
    except OSError as why:
        remedy = "name a file in a folder that is there"
        raise SpecError([Fault("--out", str(out), f"cannot be written: {why.strerror or why}", remedy)]) from None
    fitted = [
        (link, f"{name} {regime}", found)
        for link, ops in constants.items()
        for name, regimes in ops.items()
        for regime, found in regimes.items()
    ]
    told: dict[str, dict[str, Any]] = {"constants": {}, "residuals": {}}
    for link, kind, found in fitted:
        told["constants"].setdefault(link, {})[kind] = {key: found[key] for key in CONSTANTS}
        told["residuals"].setdefault(link, {})[kind] = found["residuals"]
    return {
        "kind": "collectives",
        "file": str(file),
        "out": str(out),
        **told,
        "rows": rows,
        "unused": list(log.unused),
        "warnings": warnings,
        "notes": [f"A cluster file obeys it with tunings: {out}, every command with PODSCALE_TUNINGS={out}"],
    }
