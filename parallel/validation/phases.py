"""Score the phases of serving alone: passes of a stated batch, priced without an engine (`parallel.serving.phases`).

Three kinds of rows are such passes; none has been fitted to.

* `steady state`: published rates of a stated batch (`parallel.validation.published`), both phases.
* `decode worker`: the decoding side of a disaggregated run (`serving_silicon.csv`). Its batch is what Little's law makes of the
  measured times: ``clients·osl·TPOT / (TTFT + osl·TPOT)`` sequences over all decode workers.
* `prompt alone`: TTFT of an aggregated run of at most four clients, the way from client to queue and back in it. Only passes
  priced at a fifth of a second or more: shorter ones are hidden behind that way, and behind a host that starts their
  kernels one by one.

A row is measured over predicted seconds of the same tokens.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from clusters.build import Cluster, build
from clusters.catalogue import Accelerator, accelerator
from clusters.measurements import read_csv
from clusters.spec import parse
from parallel.models import Model
from parallel.placement import fillings
from parallel.precision import Recipe
from parallel.roofline import chip
from parallel.serving.bands import around, has_experts, width_of
from parallel.serving.engines import drawn_lengths, engine, kv_bytes, serving_recipe
from parallel.serving.phases import ServeJob, price
from parallel.serving.runs import Run
from parallel.strategy import Columns
from parallel.validation import published, scoring
from parallel.validation.cases import Skip
from parallel.validation.serving_rows import Cells, cells, run_of
from parallel.workload import ServeWorkload

TABLE: Final = "serving_silicon.csv"
DRAWN: Final = 0.9
"""Mean of lengths drawn from 0.8 to 1 of the nominal."""
FEW: Final = 4
"""Clients of a run whose prompts stand alone."""
LONG_S: Final = 0.25
"""Pass, as priced, from which on the TTFT of a prompt alone tells it."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A pass as it was measured, with all that prices it.

    Attributes
    ----------
    batch : sequences, or prompts, on every accelerator
    context : positions that a decoding sequence sees; `isl` : tokens of a prompt
    microbatches : halves of a pass; None for the faster of one and two
    seconds : of the pass
    """

    id: str
    kind: str
    source: str
    group: str
    phase: str
    model: Model
    part: Accelerator
    formats: Recipe
    kv_bytes: float
    tp: float
    ep: float
    batch: float
    isl: float
    context: float
    microbatches: int | None
    seconds: float

    @property
    def ranks(self) -> int:
        """Ranks of its expert or tensor group."""
        return int(max(self.tp, self.ep))


def predicted_s(row: Measured) -> float | None:
    """Return the seconds of a pass as priced, domains filled as is fastest; None where a replica fits nowhere."""
    cluster = _cluster(row.part.name, row.ranks)
    work = ServeWorkload(isl=max(int(row.isl), 1), osl=max(int(2 * (row.context - row.isl)), 1), kv_bytes=row.kv_bytes)
    job = ServeJob(row.model, cluster, work, chip(cluster.accelerator, row.formats))
    ways = [
        Columns.of(used=used, tp=row.tp, ep=row.ep, pp=1, microbatches=parts, batch=row.batch)
        for used in fillings(cluster)
        for parts in ((row.microbatches,) if row.microbatches else (1, 2))
    ]
    found = [price(job, row.phase, cols) for cols in ways]
    return min((float(one.seconds[0]) for one in found if one.extra["replicas"][0] >= 1), default=None)


@lru_cache(maxsize=64)
def _cluster(name: str, ranks: int) -> Cluster:
    """Return a cluster of whole domains of a part that holds so many ranks."""
    domain = accelerator(name).domain
    return build(parse({"accelerator": name, "accelerators": -(-ranks // domain) * domain}))


def measured() -> Iterator[Measured]:
    """Yield the shipped rows, in the order of the files."""
    for case in published.read(None):
        if case["metric"] in published.METRICS and isinstance(case["value"], int | float):
            try:
                yield _steady(case)
            except Skip:
                continue
    for line in cells(read_csv(TABLE)):
        try:
            run = run_of(line)
        except Skip:
            continue
        if not run.drafted and all(kind.attention.kind != "delta" for kind in run.model.layers):
            yield from _worker(line, run) if run.prefill else _alone(line, run)


def _steady(case: Mapping[str, Any]) -> Measured:
    """Return the row of a published steady state; Skip where it states none, or splits experts otherwise."""
    held = published.steady(case)
    if held.batch == math.inf:
        raise Skip("batch not stated")
    if has_experts(held.model) and 1 < held.tp != held.ep:
        raise Skip("split not of one replica", "experts split by etp")
    formats = serving_recipe(held.model, held.precision, held.part)
    if held.attention:
        formats = replace(formats, attention=held.attention)
    prompt = held.phase == "prefill"
    group = max(held.tp, 1.0)
    batch = held.batch / held.context if prompt else held.batch
    return Measured(
        case["id"], "steady state", str(case["source"]), _publisher(case), held.phase, held.model, held.part, formats,
        held.kv_bytes, held.tp, held.ep, batch / group, held.context, held.context, held.microbatches,
        held.token_s * held.batch / group,
    )  # fmt: skip


def _publisher(case: Mapping[str, Any]) -> str:
    """Name who published a case: the words of its source before the first comma or bracket."""
    return str(case["source"]).replace("(", ",").split(",")[0].strip()


def _split_over_all(run: Run) -> bool:
    """Whether a run's routed experts lie whole on its ranks, as the phases price them, or there are none."""
    return not has_experts(run.model) or run.split.etp == 1


def _lengths(run: Run) -> tuple[float, float]:
    """Mean tokens of prompt and answer."""
    share = DRAWN if drawn_lengths(run.isl, run.osl) else 1.0
    return share * run.isl, share * run.osl


def _row(line: Cells, run: Run, kind: str, phase: str, batch: float, seconds: float) -> Measured:
    isl, osl = _lengths(run)
    formats = serving_recipe(run.model, run.precision, run.part, run.gemm_quant)
    ep = run.split.ep if has_experts(run.model) else 1.0
    return Measured(
        line["id"], kind, f"{TABLE}: {run.engine}", f"{run.engine} {run.part.name}", phase, run.model, run.part, formats,
        kv_bytes(engine(run.engine).defaults, run.precision), run.split.tp, ep, batch,
        isl, isl + (osl / 2.0 if phase == "decode" else 0.0), 1, seconds,
    )  # fmt: skip


def _worker(line: Cells, run: Run) -> Iterator[Measured]:
    """Yield the decoding side of a disaggregated run."""
    if not _split_over_all(run):
        return
    _, osl = _lengths(run)
    tpot, ttft = (float(line[f"{name}_ms"]) / 1e3 for name in ("tpot", "ttft"))
    decoding = run.clients * osl * tpot / (ttft + osl * tpot)
    yield _row(line, run, "decode worker", "decode", decoding / (run.workers[1] * run.split.ranks), tpot)


def _alone(line: Cells, run: Run) -> Iterator[Measured]:
    """Yield the prompt of an aggregated run of few clients, where its pass is long enough to be told."""
    if run.clients > FEW or run.split.dp > 1 or not _split_over_all(run):
        return
    row = _row(line, run, "prompt alone", "prefill", 1.0 / run.split.tp, float(line["ttft_ms"]) / 1e3)
    seconds = predicted_s(row)
    if seconds is not None and seconds >= LONG_S:
        yield row


def priced() -> list[dict[str, Any]]:
    """Return every row with its prediction and its error."""
    found = []
    for one in measured():
        seconds = predicted_s(one)
        if seconds is not None:
            found.append(
                {
                    "id": one.id, "metric": "step_time_s", "kind": f"{one.phase}, {one.kind}", "phase": one.phase,
                    "width": width_of(one.formats, routed=has_experts(one.model)), "group": one.group,
                    "source": one.source, "model": one.model.name, "accelerator": one.part.name, "ranks": one.ranks,
                    "measured": one.seconds, "predicted": seconds, "ape": scoring.ape(seconds, one.seconds),
                    "skipped_because": None, "notes": [],
                }
            )  # fmt: skip
    return found


def rows() -> list[dict[str, Any]]:
    """Return every row with its prediction, its error and its interval."""
    found = priced()
    for row in found:
        asked = (row["phase"], row["width"], row["accelerator"], row["ranks"], row["predicted"])
        (low, high), row["interval_note"] = around(*asked)
        row["interval"] = (row["predicted"] * low, row["predicted"] * high)
    return found
