"""Score matrix products against measured ones, row by row: the set `gemm` of `parallel.validation.sets`.

The constants are fitted to the shipped rows, so their errors are those of a fit; `held_out` states the errors of the
same formula on shapes that were left out of the fit, and the shapes of anyone's own file are unseen as they stand.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from clusters.catalogue import Accelerator, accelerator
from clusters.kernels import CONSTANTS, KernelModel, exact_waves, interval, kernel, table
from clusters.measurements import Table
from clusters.products import (
    OPTIONAL,
    SHIPPED,
    TEXTS,
    UNCAST,
    classify,
    groups,
    peak_flops,
    price,
    read_products,
    row_ids,
    select,
)
from parallel.validation import scoring

METRIC: Final = "seconds"

SKIPS: Final = {
    "accelerator not in the catalogue": "no data sheet figures, so no price",
    "precision not modelled": "no kernel constants stand for such a data type",
    "figures not published": "the part has no peak at this precision, or no memory bandwidth",
}
"""Reason -> what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

ONE_SOURCE: Final = (
    "all rows come from one source, so none can be left out; held_out prices each fifth of the shapes with constants "
    "fitted to the other four"
)
UNSEEN: Final = "the constants were fitted to the shipped table, not to these rows"
NO_RESIDUALS: Final = "no residuals at this accelerator and precision"

Progress = Callable[..., None]


def score(file: str | Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Price every product of a table and return the error document.

    Parameters
    ----------
    file
        Anyone's own table with the columns system, dtype, m, n, k, latency_us; the shipped one if None.
    progress
        Called as ``progress(done, total, note)``.

    Returns
    -------
    dict
        `summary`, `groups`, `constants`, `leave_one_source_out`, `held_out`, `skips` and `rows`; errors are fractions.

    Raises
    ------
    SpecError
        The file cannot be read or is no such table; every fault at once, with its line.
    """
    products = read_products(file)
    rows = _rows(products)
    models = []
    jobs = groups(products)
    for done, ((name, precision), mask) in enumerate(jobs.items(), start=1):
        part, model = accelerator(name), kernel(name, precision)
        chosen = [row for row, wanted in zip(rows, mask.tolist(), strict=True) if wanted]
        if peak_flops(part, precision) is None or not part.hbm_Bps > 0:
            for row in chosen:
                row["skipped_because"] = f"figures not published: {name} at {precision}"
            continue
        _price(chosen, select(products, mask), model, part)
        models.append(model)
        if progress is not None:
            progress(done, len(jobs), f"{name} {precision}")
    figures, by_group = scoring.summary(rows)
    return {
        "set": "gemm",
        "file": str(file) if file is not None else SHIPPED,
        "summary": figures,
        "groups": by_group,
        "constants": _constants(models, fitted_here=file is None),
        "leave_one_source_out": {"note": ONE_SOURCE if file is None else UNSEEN, **({} if file is None else figures)},
        "held_out": _held_out(models),
        "skips": dict(SKIPS),
        "rows": rows,
    }


def _rows(products: Table) -> list[dict[str, Any]]:
    """Return a row per product, as yet without a prediction."""
    named = classify(products)
    names, precisions = named["accelerator"].tolist(), named["precision"].tolist()
    named_by = (*TEXTS, "m", "n", "k", *OPTIONAL, "line")
    columns: dict[str, list[Any]] = {key: products[key].tolist() for key in named_by if key in products}
    measured = (products["latency_us"] * 1e-6).tolist()
    rows = []
    for at, (identity, name, precision, seconds) in enumerate(
        zip(row_ids(products), names, precisions, measured, strict=True)
    ):
        held = {key: values[at] for key, values in columns.items()}
        rows.append(
            {
                "id": identity,
                "metric": METRIC,
                "measured": seconds,
                "predicted": None,
                "ape": None,
                "interval": None,
                "interval_note": None,
                "skipped_because": _reason(held, name, precision),
                "group": f"{name or held['system']} {precision or held['dtype']}",
                "accelerator": name or None,
                "precision": precision or None,
                **held,
            }
        )
    return rows


def _reason(held: dict[str, Any], name: str, precision: str) -> str | None:
    """Return why a row cannot be priced, None where it can."""
    if not name:
        return f"accelerator not in the catalogue: {held['system']}"
    return None if precision else f"precision not modelled: {held['dtype']}"


def _price(rows: Iterable[dict[str, Any]], products: Table, model: KernelModel, part: Accelerator) -> None:
    """Fill in prediction, error and interval of the rows of one accelerator and precision."""
    predicted = price(products, model, part, model.precision)
    limits = None
    if model.bands:
        low, high = interval(predicted, exact_waves(products["m"], products["n"], model), model)
        limits = list(zip(low.tolist(), high.tolist(), strict=True))
    note = None if limits else model.note or NO_RESIDUALS
    for at, (row, seconds) in enumerate(zip(rows, predicted.tolist(), strict=True)):
        row["predicted"], row["ape"] = seconds, scoring.ape(seconds, row["measured"])
        row["interval"], row["interval_note"] = limits[at] if limits else None, note


def _constants(models: list[KernelModel], *, fitted_here: bool) -> dict[str, int]:
    """Count the fitted constants behind the predictions, each set once, however many parts borrow it."""
    sets = {tuple(getattr(model, key) for key in CONSTANTS): model.precision in UNCAST for model in models}
    fitted = sum(len(CONSTANTS) - uncast for uncast in sets.values())
    return {"fitted": fitted, "kernels": fitted, "fitted_to_these_rows": fitted if fitted_here else 0}


def _held_out(models: list[KernelModel]) -> dict[str, dict[str, float]]:
    """Return what the data file states of shapes left out of the fit, by group; borrowed constants have none."""
    measured = table()["measured"]
    own = [model for model in models if not model.note]
    return {
        f"{model.accelerator} {model.precision}": dict(measured[model.accelerator][model.precision]["held_out"])
        for model in own
        if "held_out" in measured[model.accelerator][model.precision]
    }
