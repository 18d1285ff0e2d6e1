"""Say how far priced phases are off: 90 % bands of measured/predicted, and how they do on what they have not seen.

``python -m parallel.calibration.phases`` writes `data/phases.yaml` from the rows of `parallel.validation.phases`. Nothing is
fitted: a band is where the measurements lie. From `ENOUGH` rows on its ends are order statistics, of ranks ``⌊0.05·(n + 1)⌋``
and ``⌈0.95·(n + 1)⌉``, between which the next row lies with 90 % or more, whatever the distribution. Fewer rows have no such
ranks: the band is Student's for the next one on the logarithm, ``mean ± t(0.95, n − 1)·s·√(1 + 1/n)``, widened to hold all.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from parallel.serving.bands import ALL, FILE

ENOUGH: Final = 19
"""Rows from which on both order statistics exist."""
OWN: Final = 10
"""Rows from which on a number format has a band of its own."""
HEAD: Final = (
    "# Written by python -m parallel.calibration.phases: nothing in it is fitted, it says where measurements lie.\n"
)

Row = dict[str, Any]


def ends(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the 90 % band of the next ratio.

    >>> ends([i / 100 for i in range(81, 120)])  # 39 rows: the second from either end
    (0.82, 1.18)
    >>> low, high = ends([0.9, 1.1])  # two rows: Student's t with one degree of freedom
    >>> low < 0.5 and high > 2.0
    True
    """
    ordered = np.sort(np.array(ratios, dtype=np.float64))
    n = len(ordered)
    if n >= ENOUGH:
        return float(ordered[int(0.05 * (n + 1)) - 1]), float(ordered[int(np.ceil(0.95 * (n + 1) - 1e-9)) - 1])
    from scipy.stats import t

    logs = np.log(ordered)
    middle, spread = float(np.mean(logs)), float(np.std(logs, ddof=1))
    half = float(t.ppf(0.95, n - 1)) * spread * (1.0 + 1.0 / n) ** 0.5
    return min(float(np.exp(middle - half)), float(ordered[0])), max(float(np.exp(middle + half)), float(ordered[-1]))


def entry(rows: Sequence[Row]) -> Row:
    """Return the band of some rows, with what stands behind it."""
    ratios = [row["measured"] / row["predicted"] for row in rows]
    low, high = ends(ratios)
    off = [row["ape"] for row in rows]
    ranks = [row["ranks"] for row in rows]
    return {
        "low": _short(low),
        "middle": _short(float(np.median(ratios))),
        "high": _short(high),
        "n": len(rows),
        "median_ape": _short(float(np.median(off))),
        "p90_ape": _short(float(np.quantile(off, 0.9))),
        "parts": sorted({row["accelerator"] for row in rows}),
        "ranks": [min(ranks), max(ranks)],
        "shortest_s": _short(min(row["predicted"] for row in rows)),
        "models": sorted({row["model"] for row in rows}),
        "rows": {kind: sum(row["kind"] == kind for row in rows) for kind in sorted({row["kind"] for row in rows})},
    }


def bands(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Return the bands of each phase: over all formats, and of each width of numbers with `OWN` rows."""
    found: dict[str, dict[str, Row]] = {}
    held = list(rows)
    for phase in ("prefill", "decode"):
        mine = [row for row in held if row["phase"] == phase]
        found[phase] = {ALL: entry(mine)}
        for width in sorted({row["width"] for row in mine}):
            own = [row for row in mine if row["width"] == width]
            if len(own) >= OWN:
                found[phase][width] = entry(own)
    return found


def held_out(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the share of each group's rows that lie in bands made without the group."""
    found: dict[str, dict[str, Row]] = {}
    for phase in ("prefill", "decode"):
        mine = [row for row in rows if row["phase"] == phase]
        scored = {group: _unseen(mine, group) for group in sorted({row["group"] for row in mine})}
        inside = sum(one["n"] * one["coverage"] for one in scored.values())
        found[phase] = {**scored, "all": {"n": len(mine), "coverage": inside / len(mine)}}
    return {phase: {name: _figures(one) for name, one in held.items()} for phase, held in found.items()}


def _unseen(rows: Sequence[Row], group: str) -> Row:
    """Score the rows of one group with the bands of the others."""
    aside = [row for row in rows if row["group"] == group]
    inside = 0
    for row in aside:
        rest = [one for one in rows if one["group"] != group]
        own = [one for one in rest if one["width"] == row["width"]]
        low, high = ends([one["measured"] / one["predicted"] for one in (own if len(own) >= OWN else rest)])
        inside += low <= row["measured"] / row["predicted"] <= high
    return {"n": len(aside), "coverage": inside / len(aside)}


def _figures(held: Row) -> Row:
    return {key: value if isinstance(value, int) else _short(value) for key, value in held.items()}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def main(argv: Sequence[str] | None = None) -> None:
    """Price every row and write the bands."""
    import yaml

    from parallel.validation.phases import priced

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=FILE)
    given = parser.parse_args(argv)
    found = priced()
    document = {"bands": bands(found), "held_out": held_out(found)}
    given.out.write_text(HEAD + yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=120), "utf-8")


if __name__ == "__main__":
    main()
