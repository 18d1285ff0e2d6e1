"""What more is known of an installation is worth: the error of serving times at three levels of trust.

* `zero_shot`: the engine class as it stands;
* `version`: factors on the parts of a time (`parallel.serving.runs.PARTS`; one factor where a time has no parts), fitted to four
  fifths of the rows of the same engine version on the same generation of accelerators, scored on the fifth, turn by turn;
* `one_point`: times measured/predicted of one row of the same deployment, scored on its others.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from parallel.validation import scoring

Floats = npt.NDArray[np.float64]
Row = Mapping[str, Any]
VERSION: Final = ("engine", "engine_version", "generation")
DEPLOYMENT: Final = ("engine", "engine_version", "model", "system", "precision", "split")
FOLDS: Final = 5
PRIOR: Final = 0.1
"""Weight of a factor of 1, in rows of an error of one scale."""
SCALE: Final = 0.05
"""Error of the logarithm from which on a row's pull no longer grows (soft L1)."""
ROUNDS: Final = 30


def levels(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Return median and 90th percentile of the error at each level."""
    scored = scoring.predicted_rows(rows)
    near = {
        "zero_shot": {i: float(row["predicted"]) for i, row in enumerate(scored)},
        "version": dict(_of_versions(scored)),
        "one_point": dict(_of_one_point(scored)),
    }
    told: dict[str, dict[str, float | None]] = {}
    for name, seconds in near.items():
        off = [abs(found / scored[i]["measured"] - 1.0) for i, found in seconds.items()]
        told[name] = {
            "n": len(off),
            "median_ape": float(np.median(off)) if off else None,
            "p90_ape": float(np.quantile(off, 0.9)) if off else None,
        }
    return told


def factors(parts: Floats, measured: Floats) -> Floats:
    """Return factors on the columns of `parts` whose weighted sums are near to what was measured, in logarithms.

    Gauss and Newton's steps on soft-L1 residuals, each factor drawn to 1.

    >>> found = factors(np.array([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0]] * 50), np.array([3.0, 7.0, 5.0] * 50))
    >>> found.round(2).tolist()  # once the first, twice the second
    [1.0, 2.0]
    """
    found, towards = np.ones(parts.shape[1]), PRIOR * np.eye(parts.shape[1])
    for _ in range(ROUNDS):
        told = parts @ found
        off = np.log(measured / told)
        weights = (1.0 + (off / SCALE) ** 2) ** -0.25
        slopes = np.vstack([(parts / told[:, None]) * weights[:, None], towards])
        step = np.linalg.lstsq(slopes, np.concatenate([off * weights, PRIOR * (1.0 - found)]), rcond=None)[0]
        found = np.clip(found + step, 0.2, 5.0)
    return found


def _kinds(rows: Sequence[Row], key: Sequence[str]) -> Iterator[list[int]]:
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault(tuple(row.get(name) for name in key), []).append(i)
    yield from kinds.values()


def _of_versions(rows: Sequence[Row]) -> Iterator[tuple[int, float]]:
    """Yield rows and their seconds by factors of others of their version."""
    for members in _kinds(rows, VERSION):
        measured = np.array([rows[i]["measured"] for i in members])
        parts = np.array([rows[i].get("parts") or [rows[i]["predicted"]] for i in members])
        turn = np.arange(len(members)) % FOLDS
        for fold in range(min(FOLDS, len(members))):
            if (turn != fold).any():
                near = parts[turn == fold] @ factors(parts[turn != fold], measured[turn != fold])
                yield from zip(np.array(members)[turn == fold].tolist(), near.tolist(), strict=True)


def _of_one_point(rows: Sequence[Row]) -> Iterator[tuple[int, float]]:
    """Yield rows and their seconds by measured/predicted of the first row of their deployment."""
    for members in _kinds(rows, DEPLOYMENT):
        first = rows[members[0]]
        for i in members[1:]:
            yield i, rows[i]["predicted"] * first["measured"] / first["predicted"]
