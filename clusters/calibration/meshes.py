"""The fit of link constants of AMD's meshes: engines' own all-reduce kernels, and RCCL's share of a link.

A mesh has one link for each peer, so a pair has a seventh of what eight accelerators have together; the closed forms know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from clusters.build import build, path
from clusters.calibration.link_fits import Job
from clusters.measurements import Table, read_csv
from clusters.products import select
from clusters.spec import parse
from clusters.tunings import collective_s, tuning
from collectives.path import LinkModel
from topo.columns import Column

SHIPPED: Final = "collectives_rocm.csv"
PUBLISHED: Final = "collectives_published.csv"
BOXES: Final[Mapping[str, str]] = {"xgmi-64": "mi300x", "xgmi-76": "mi355x"}
"""Link -> the accelerator whose box of eight was measured."""

RCCL: Final[Mapping[str, str]] = {"xgmi-64": "8xMI300X xGMI RCCL"}
"""Link -> its system in the published tables, of large sizes only: a share of the link is fitted, and nothing else."""


def mesh_jobs() -> Iterator[Job]:
    """Yield the entries of each mesh: the library's share of a link, then the kernels of vLLM and SGLang."""
    published, shipped = read_csv(PUBLISHED), read_csv(SHIPPED)
    for link, part in BOXES.items():
        if link in RCCL:
            yield _library(link, part, select(published, published["system"] == RCCL[link]))
        yield _job(link, part, "graph", select(shipped, shipped["system"] == part))


def _job(link: str, part: str, regime: str, rows: Table) -> Job:
    """Return the job of some rows of a box: what is not fitted is as `clusters.tunings` has it."""
    sizes, ranks, like = rows["message_bytes"], rows["ranks"], tuning(link, "all_reduce", regime).model
    cluster = build(parse({"accelerator": part, "accelerators": 8}))

    def price(model: LinkModel) -> Column:
        road = tuple(replace(hop, model=model) for hop in path(cluster, "all_reduce", regime))
        return collective_s("all_reduce", sizes, ranks[None, :], road, regime)

    source = "; ".join(sorted({source.split(",")[0].split(";")[0] for source in rows["source"]}))
    curves = np.unique(ranks, return_inverse=True)[1]
    return Job((link, "all_reduce", regime), rows["latency_us"] * 1e-6, price, ranks, source, like=like, curves=curves)


def _library(link: str, part: str, rows: Table) -> Job:
    """Return the job of a library whose large sizes alone are known: the efficiency is free."""
    job = _job(link, part, "nccl", rows)
    fixed = {key: getattr(job.like, key) for key in ("base_s", "step_s", "ramp_s")}
    like = replace(job.like, own_piece=0.0)  # every peer has a link of its own: no piece waits for another's
    return replace(job, like=like, fixed=fixed, note="large sizes only: base, step and ramp are those of nvlink4")
