"""Score schedules on real wirings against timed MPI collectives: the set `testbed` of `parallel.validation.sets`.

Every row names its wiring; each is priced on that graph, with its installed routes, at a rung of the fidelity ladder. No
constant belongs to a wiring or a case: five are those of the software stack (`clusters.calibration.testbed`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters import testbed
from clusters.calibration.testbed import FITTED, regime
from clusters.measurements import Table
from collectives.ladder import FIDELITIES
from collectives.schedule import Schedule
from parallel.validation import scoring
from topo.errors import Fault, SpecError

METRIC: Final = "seconds"
BEST: Final = "fifo"

SKIPS: Final[Mapping[str, str]] = {
    "protocol other than eager": "rendezvous waits for a clear-to-send that queues behind other data; not modelled",
    "wiring not given": "the row's topology is not in the file of wirings",
    "operation without a schedule": "the operation is none of `collectives.schedule`",
    "algorithm without a schedule": "the operation has no algorithm of this name",
    "group that the algorithm does not run on": "too few ranks, or a number that it cannot divide",
    "ranks other than the wiring's": "the row's ranks are not the hosts of the wiring",
}
"""Reason → what it means. A row's `skipped_because` is one of these, with the particulars after a colon."""

UNPLANNED: Final[Mapping[str, str]] = {
    "operation": "operation without a schedule",
    "algorithm": "algorithm without a schedule",
    "group": "group that the algorithm does not run on",
}

BANDS: Final[Mapping[str, tuple[float, float]]] = {
    "1 MiB and more": (2**20, np.inf),
    "256 KiB": (2**18, 2**18),
    "64 KiB": (2**16, 2**16),
}
"""Label → least and most bytes."""

OUT: Final = (
    "the interval of a row comes from the residuals of other wirings; `halves` refits the constants without them"
)
UNSEEN: Final = "the constants were fitted to the shipped wirings, not to these rows"

Progress = Callable[..., None]


def score(
    file: str | Path | None = None,
    progress: Progress | None = None,
    fidelity: str | None = None,
    topologies: str | Path | None = None,
) -> dict[str, Any]:
    """Price every row of a table of timed collectives and return the error document.

    Parameters
    ----------
    file : anyone's own table with the columns topology, op, algorithm, proto, bytes, median_s; the shipped one if None
    progress : called as ``progress(done, total)``
    fidelity : a key of `collectives.ladder.FIDELITIES`; ``auto`` and None are the best rung
    topologies : the wirings that the rows name; those that ship if None

    Returns
    -------
    dict
        `summary`, `groups` (families of wirings), `bands` (message sizes), `constants`, `leave_one_source_out`, `rows`.

    Raises
    ------
    SpecError
        An unknown rung, or a file that cannot be read.
    """
    rung = BEST if fidelity in (None, "auto") else str(fidelity)
    if rung not in FIDELITIES:
        raise SpecError([Fault("fidelity", fidelity, "is no rung", f"choose one of auto, {', '.join(FIDELITIES)}")])
    table, wirings = testbed.rows(file), testbed.wirings(topologies)
    rows = _blank(file, table, wirings)
    wire, relay_s = testbed.wire(), testbed.stack()["relay_s"]
    for done, row in enumerate(rows, start=1):
        plan = _plan(row, wirings)
        if isinstance(plan, Schedule):
            row["predicted"] = testbed.seconds(plan, wirings[row["topology"]], rung, wire, relay_s)
            row["ape"] = scoring.ape(row["predicted"], row["measured"])
            _bound(row, regime(plan.op, plan.algorithm, plan.size_bytes), rung)
        else:
            row["skipped_because"] = plan
        if progress is not None and (done % 20 == 0 or done == len(rows)):
            progress(done, len(rows))
    return _document(file, rung, rows)


def _blank(file: str | Path | None, table: Table, wirings: Mapping[str, testbed.Wiring]) -> list[dict[str, Any]]:
    """Return a row per line, as yet without a prediction."""
    stem = Path(testbed.TABLE if file is None else file).name.split(".")[0]
    count = len(table["line"])
    family = table.get("family", np.full(count, "")).tolist()
    ranks = table.get("ranks", np.full(count, "")).tolist()
    rows: list[dict[str, Any]] = []
    for i, time_s in enumerate(testbed.measured(table)):
        name = str(table["topology"][i])
        known = wirings.get(name)
        rows.append(
            {
                "id": f"{stem}:{table['line'][i]}",
                "metric": METRIC,
                "measured": time_s,
                "predicted": None,
                "ape": None,
                "interval": None,
                "interval_note": None,
                "skipped_because": None,
                "group": family[i] or (known.family if known else name),
                "topology": name,
                "op": str(table["op"][i]),
                "algorithm": str(table["algorithm"][i]),
                "proto": str(table["proto"][i]),
                "ranks": int(float(ranks[i])) if ranks[i] else len(known.ranks) if known else None,
                "bytes": float(table["bytes"][i]),
                "notes": [],
            }
        )
    return rows


def _plan(row: Mapping[str, Any], wirings: Mapping[str, testbed.Wiring]) -> Schedule | str:
    """Return the schedule of a row, or why it is skipped."""
    if row["proto"] != "eager":
        return f"protocol other than eager: {row['proto']}"
    known = wirings.get(row["topology"])
    if known is None:
        return f"wiring not given: {row['topology']}"
    if row["ranks"] != len(known.ranks):
        return f"ranks other than the wiring's: {row['ranks']}"
    plan = testbed.planned(row["op"], row["algorithm"], len(known.ranks), row["bytes"])
    return plan if isinstance(plan, Schedule) else f"{UNPLANNED[plan]}: {row['op']} {row['algorithm']}"


def _bound(row: dict[str, Any], where: str, rung: str) -> None:
    """Give a row its interval: the band of measured/predicted on the other wirings, at its regime.

    With n residuals the band leaves out ⌊(n+1)/20⌋ - 1 at each end, the least that covers 90 % of what comes next (Vovk,
    Gammerman, Shafer 2005, §2.2); with fewer than 39 it is their range.
    """
    held = testbed.stack()["residuals"].get(where, {})
    ratios = np.sort([ratio for name, found in held.items() if name != row["topology"] for ratio in found])
    if rung != BEST or len(ratios) < 4:
        row["interval_note"] = (
            f"residuals are kept for the rung {BEST}" if rung != BEST else f"too few residuals: {where}"
        )
        return
    cut = max(0, (len(ratios) + 1) // 20 - 1)
    row["interval"] = (row["predicted"] * ratios[cut], row["predicted"] * ratios[-1 - cut])


def _document(file: str | Path | None, rung: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the error document."""
    figures, groups = scoring.summary(rows)
    count = len(FITTED)
    bands = {
        label: scoring.score([row for row in scoring.predicted_rows(rows) if least <= row["bytes"] <= most])
        for label, (least, most) in BANDS.items()
    }
    own = file is None
    halves = {"halves": testbed.stack()["held_out"]} if own else {}
    return {
        "set": "testbed",
        "file": testbed.TABLE if own else str(file),
        "fidelity": rung,
        "summary": figures,
        "groups": groups,
        "bands": bands,
        "constants": {"fitted": count, "stack": count, "fitted_to_these_rows": count if own else 0},
        "leave_one_source_out": {"note": OUT if own else UNSEEN, **halves, **figures},
        "skips": dict(SKIPS),
        "rows": rows,
    }
