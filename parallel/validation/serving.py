"""Score serving runs: mean time to the first token and for each further one, two rows per measured line.

The set `serving` of `parallel.validation.sets`. A table with the columns of `serving_silicon.csv` is simulated run by run;
one of peak throughputs (`serving_trtllm_max_throughput.csv`) is searched over the load, see
`parallel.validation.throughput`; published cases (YAML or JSON) are steady states, see `parallel.validation.published`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.measurements import Table, read_csv
from clusters.tablefile import column_names, read_table
from parallel.serving.engines import CONSTANTS, engine, engine_names, fitted_rates, held_out
from parallel.serving.runs import Run, answer
from parallel.validation import scoring
from parallel.validation.cases import Skip
from parallel.validation.levels import levels
from parallel.validation.ranking import rankings
from parallel.validation.serving_rows import SKIPS, Cells, cells, run_of

SHIPPED: Final = "serving_silicon.csv"
THROUGHPUTS: Final = "serving_trtllm_max_throughput.csv"
CASES: Final = "inference_cases.json"
TEXTS: Final = ("id", "model", "system", "engine")
NUMBERS: Final = ("isl", "osl", "ttft_ms", "tpot_ms")
OPTIONAL: Final = (
    *("mode", "engine_version", "precision", "gemm_quant", "moe_quant", "concurrency", "tp", "attention_dp", "pp"),
    *("moe_tp", "moe_ep", "gpus", "listed_batch_size", "note"),
    *(
        f"{side}_{name}"
        for side in ("prefill", "decode")
        for name in ("num_workers", "tp", "pp", "attention_dp", "moe_tp", "moe_ep")
    ),
)
METRICS: Final = ("tpot", "ttft")
NAMED: Final = ("mode", "model", "system", "engine", "engine_version", "precision", "isl", "osl", "concurrency", "note")
Progress = Callable[..., None]
Row = dict[str, Any]


def score(file: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Simulate every run of a table and return the error document.

    Parameters
    ----------
    file
        Anyone's own table with the columns of the shipped ones; both of those if None.
    progress
        Called as ``progress(done, total, note)``.

    Raises
    ------
    SpecError
        The file cannot be read or is no such table; every fault at once, with its line.
    """
    from parallel.validation import published as validation_published
    from parallel.validation import throughput as validation_throughput

    if file is not None and Path(file).suffix in (".yaml", ".yml", ".json"):
        rows, name = validation_published.rows_of(validation_published.read(file), progress), str(file)
    elif file is not None and "tpot_ms" not in column_names(file) and "value" in column_names(file):
        rows = validation_throughput.rows_of(validation_throughput.read(file), progress)
        name = str(file)
    else:
        table = read_csv(SHIPPED) if file is None else read_table(file, NUMBERS, TEXTS, OPTIONAL)
        rows, name = _rows(table, progress), str(file) if file is not None else f"{SHIPPED}, {THROUGHPUTS}, {CASES}"
        if file is None:
            rows += validation_throughput.rows_of(validation_throughput.read(None), progress)
            rows += validation_published.rows_of(validation_published.read(None), progress)
    figures, groups = scoring.summary(rows)
    passes = _passes() if file is None else []
    engines, rates = len(CONSTANTS) * len(engine_names()), sum(map(len, fitted_rates().values()))
    return {
        "set": "serving",
        "file": name,
        "summary": figures,
        "groups": groups,
        "metrics": {
            kind: _told([row for row in each if row["kind"] == kind])
            for each in (rows, passes)
            for kind in _kinds(each)
        },
        "ranking": rankings(rows),
        "levels": {kind: levels([row for row in rows if row["kind"] == kind]) for kind in _kinds(rows)},
        "constants": {
            "fitted": engines + rates + 1,
            "engines": engines,
            "grouped products": rates,
            "popularity of experts": 1,
        },
        "leave_one_source_out": held_out(),
        "skips": {**SKIPS, **validation_published.SKIPS},
        "rows": rows,
        "passes": passes,
    }


def _passes() -> list[Row]:
    """Return the shipped passes of a stated batch, priced by phase without an engine; the summary leaves them out."""
    from parallel.validation import phases

    return [{**row, "kind": f"{row['phase']} pass, no engine"} for row in phases.rows()]


def _kinds(rows: Sequence[Row]) -> list[str]:
    return sorted({row["kind"] for row in rows})


def _told(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of one metric and kind of run, with rank correlation."""
    scored = scoring.predicted_rows(rows)
    figures, _ = scoring.summary(rows)
    return {**figures, "spearman": _spearman(scored)}


def _spearman(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Rank correlation of prediction and measurement."""
    if len(rows) < 3:
        return None
    one, other = (
        np.argsort(np.argsort([row[key] for row in rows])).astype(np.float64) for key in ("predicted", "measured")
    )
    return float(np.corrcoef(one, other)[0, 1])


def _rows(table: Table, progress: Progress | None) -> list[Row]:
    """Return two rows for each line of a table."""
    found: list[Row] = []
    lines = list(cells(table))
    for done, line in enumerate(lines, start=1):
        rows = [_blank(line, metric) for metric in METRICS]
        try:
            run = run_of(line)
        except Skip as why:
            for row in rows:
                row["skipped_because"] = why.reason
        else:
            _fill(rows, run)
        found += rows
        if progress is not None and done % 50 == 0:
            progress(done, len(lines), SHIPPED)
    return found


def _blank(line: Cells, metric: str) -> Row:
    """Return a row as yet without a prediction."""
    mode = "disaggregated" if line.get("mode") == "disagg" else "aggregated"
    model = line["model"].rsplit("/", 1)[-1].lower()
    splits = ("tp", "attention_dp", "moe_tp", "moe_ep")
    return {
        "id": f"{line['id']}:{metric}",
        "metric": metric,
        "kind": f"{metric} {mode}",
        "measured": float(line[f"{metric}_ms"]) / 1e3,
        "predicted": None,
        "ape": None,
        "interval": None,
        "interval_note": None,
        "skipped_because": None,
        "group": f"{line['engine']} {line['system']} {model} {line.get('precision') or 'bf16'}, {mode}, {metric}",
        "notes": [],
        "split": "-".join(line.get(name, "") for name in splits),
        **{name: line.get(name, "") for name in NAMED},
    }


def _fill(rows: Sequence[Row], run: Run) -> None:
    """Fill in predictions, errors, intervals and what to mind."""
    found, base = answer(run), engine(run.engine)
    mode = "disaggregated" if run.prefill is not None else "aggregated"
    bands = {name: (low, high) for name, low, high in base.bands}
    for row, seconds in zip(rows, (found.tpot_s, found.ttft_s), strict=True):
        band = bands.get(f"{row['metric']} {mode}")
        row["predicted"], row["ape"] = seconds, scoring.ape(seconds, row["measured"])
        row["parts"] = list(found.parts) if row["metric"] == "tpot" else None
        row["generation"] = run.part.generation
        row["interval"] = (seconds * band[0], seconds * band[1]) if band else None
        row["interval_note"] = None if band else f"no residuals of {mode} runs are stored"
        if found.saturated:
            row["notes"].append("saturated: a limit of the engine, or the prompts alone, hold requests back")
        if run.drafted:
            row["notes"].append("one draft per step assumed: the row says that it drafts, not how many")
