"""What changed between two result files, and why: inputs, splits, feasibility, and the terms that account for the rates.

The time of one accelerator for one token is ``1 / (tokens per second and accelerator)``; a row's exposed terms divide it in
the proportion of its step. The terms of the difference add up to the difference, so nothing is left unexplained.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from parallel.results import STOPS
from topo.errors import Fault, SpecError

KEYS: Final = ("model", "phase", "domain", "pool", "cluster", "name")
"""What tells the rows of a document apart, the most telling first."""
LISTS: Final = ("rows", "best", "top")
"""Where documents keep their rows."""
OUTPUTS: Final = (
    *("rows", "best", "top", "front", "frontiers", "wirings", "exchange", "exchange_checks", "answer", "assumptions"),
    *("search", "terms", "busy", "memory_bytes", "memory_share", "memory_by_stage", "interval", "interval_note"),
    *("warnings", "stops", "bottleneck", "step_time_s", "ttft_s", "tpot_s", "tokens_per_s_per_gpu", "mfu", "gpus_used"),
    *("gpus_idle", "limit_broken", "infeasible", "ladder", "placement", "report", "seconds", "points", "feasible"),
    *("strategy", "question", "rejected", "cells", "histogram", "pools", "rates", "transfer", "requests_per_s"),
    *("fingerprint", "objectives", "priced", "histograms", "poisoned", "point", "executor"),
)
"""Fields of a document that are answers; the others are what was asked."""
SAME: Final = 1e-9
"""Rates that differ by less are the same."""


def difference(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str] = ("a", "b")) -> dict[str, Any]:
    """Compare two documents of ``compare``, ``train``, ``serve`` or ``sweep``.

    Returns
    -------
    dict
        `inputs` that differ, `rows` that both have, `only` those that one has, `answer` in plain words.

    Raises
    ------
    SpecError
        A document holds an error, or no rows.
    """
    first, second = (rows_of(document, name) for document, name in zip((a, b), names, strict=True))
    keys = _keys([*first, *second], first, second)
    left, right = ({_key(row, keys): row for row in rows} for rows in (first, second))
    if len(first) == len(second) == 1:
        pairs = [(next(iter(left)), first[0], second[0])]
    else:
        pairs = [(key, row, right[key]) for key, row in left.items() if key in right]
    rows = [{"row": dict(zip(keys, key, strict=True)), **compared(one, other)} for key, one, other in pairs]
    matched = {key for key, *_ in pairs}
    only = {
        name: [dict(zip(keys, key, strict=True)) for key in held if key not in matched]
        for name, held in (("a", left), ("b", right))
        if len(first) + len(second) > 2
    }
    document = {
        "a": names[0],
        "b": names[1],
        "inputs": list(_asked(a, b, pairs)),
        "rows": rows,
        "only": {"a": only.get("a", []), "b": only.get("b", [])},
    }
    told = said(document)
    return {**document, "said": told, "answer": " ".join(told)}


def rows_of(document: Mapping[str, Any], name: str = "") -> list[Mapping[str, Any]]:
    """Return the rows of a document: those of its list, those of its two pools, or itself."""
    if isinstance(document.get("error"), Mapping):
        problem = f"holds an error: {document['error'].get('message', '')}".rstrip(".")
        raise SpecError([Fault("error", None, problem, "mend that first", name)])
    for key in LISTS:
        if held := [
            row for row in document.get(key) or () if isinstance(row, Mapping) and "tokens_per_s_per_gpu" in row
        ]:
            return held
    if pools := document.get("pools"):
        return list(pools.values())
    if "tokens_per_s_per_gpu" in document:
        return [document]
    remedy = "give what compare, train, serve or sweep wrote with --json or --out"
    raise SpecError([Fault("(file)", None, "holds no rows with a rate", remedy, name)])


def _keys(
    rows: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the fewest fields, the most telling first, that tell the rows of each document apart.

    Winners of a sweep are told apart by their group and their place in it, whatever cluster they won on.
    """
    if all("group" in row for row in rows):
        return (*sorted({key for row in rows for key in row["group"]}), "place")
    chosen: list[str] = []
    for key in (key for key in KEYS if any(row.get(key) is not None for row in rows)):
        chosen.append(key)
        if all(len({_key(row, tuple(chosen)) for row in held}) == len(held) for held in (first, second)):
            break
    return tuple(chosen)


def _key(row: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row.get(key, (row.get("group") or {}).get(key)) for key in keys)


def _asked(
    a: Mapping[str, Any], b: Mapping[str, Any], pairs: Sequence[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]
) -> Iterator[dict[str, Any]]:
    """Yield what the documents, and where they do not say, what their rows were asked differently."""
    yield from inputs(a, b)
    if "workload" in a and "workload" in b:
        return
    told = set()
    for _, one, other in pairs:
        left, right = ({**(row.get("point") or {}), "strategy": {}} for row in (one, other))
        for found in inputs(left, right):
            if str(found) not in told:
                told.add(str(found))
                yield found


def inputs(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> Iterator[dict[str, Any]]:
    """Yield what was asked differently, by its path.

    >>> [row["field"] for row in inputs({"workload": {"isl": 1, "osl": 2}}, {"workload": {"isl": 3, "osl": 2}})]
    ['workload.isl']
    """
    for key in dict.fromkeys((*a, *b)):
        if not path and key in OUTPUTS:
            continue
        left, right, where = a.get(key), b.get(key), f"{path}{key}"
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            yield from inputs(left, right, f"{where}.")
        elif left != right:
            yield {"field": where, "a": left, "b": right}


def compared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two rows of one key: rates, terms of the time per token, splits, limits."""
    runs = [_runs(row) for row in (a, b)]
    rates = [float(row["tokens_per_s_per_gpu"]) if run else None for row, run in zip((a, b), runs, strict=True)]
    ratio = rates[1] / rates[0] if rates[0] and rates[1] else None
    return {
        "a": rates[0],
        "b": rates[1],
        "ratio": ratio,
        "terms": terms(a, b) if ratio else [],
        "strategy": changed(a.get("strategy") or {}, b.get("strategy") or {}),
        "bottleneck": [row.get("bottleneck") for row in (a, b)],
        "feasibility": _feasibility(runs, a, b),
    }


def _runs(row: Mapping[str, Any]) -> bool:
    return bool(row.get("tokens_per_s_per_gpu")) and not row.get("infeasible") and not row.get("limit_broken")


def _feasibility(runs: Sequence[bool], a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Say which row stopped or began to run, and why; None where both do, or neither."""
    if runs[0] == runs[1]:
        return None
    row = b if runs[0] else a
    why = str(row.get("infeasible") or row.get("limit_broken") or "nothing runs")
    return f"runs no more: {why}" if runs[0] else f"runs now; before: {why}"


def terms(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Divide the difference of accelerator time per token among the terms, the largest part first.

    Returns
    -------
    list of dict
        `term`, its seconds of one accelerator for one token in both, their `change`, and its `share` of the whole change.

    Examples
    --------
    Half of the rate: a second more for a token, all of it the exchange's.

    >>> one = {"tokens_per_s_per_gpu": 1.0, "terms": {"experts": 3.0, "ep": 1.0}}
    >>> two = {"tokens_per_s_per_gpu": 0.5, "terms": {"experts": 3.0, "ep": 5.0}}
    >>> [(row["term"], row["change"], row["share"]) for row in terms(one, two)]
    [('ep', 1.0, 1.0), ('experts', 0.0, 0.0)]
    """
    left, right = _per_token(a), _per_token(b)
    whole = sum(right.values()) - sum(left.values())
    rows = [
        {
            "term": name,
            "a": left.get(name, 0.0),
            "b": right.get(name, 0.0),
            "change": (change := right.get(name, 0.0) - left.get(name, 0.0)),
            "share": change / whole if abs(whole) > SAME * sum(left.values()) else None,
        }
        for name in dict.fromkeys((*left, *right))
    ]
    return sorted(rows, key=lambda row: -abs(row["change"]))


def _per_token(row: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of one accelerator for one token, by term: ``term / Σ terms / rate``."""
    held = {str(name): float(value) for name, value in (row.get("terms") or {"step": 1.0}).items()}
    whole = sum(held.values()) * float(row["tokens_per_s_per_gpu"])
    return {name: value / whole for name, value in held.items()}


def changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return what differs between two strategies: name -> before, after.

    >>> changed({"tp": 1, "ep": 64}, {"tp": 1, "ep": 72})
    {'ep': [64, 72]}
    """
    names = dict.fromkeys((*a, *b))
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}


def said(document: Mapping[str, Any]) -> list[str]:
    """Say in plain words what changed and why, a sentence for each row that moved most."""
    asked = ", ".join(row["field"] for row in document["inputs"][:4])
    more = len(document["inputs"]) - 4
    told = [f"Asked differently: {asked}{f' and {more} more' if more > 0 else ''}." if asked else "The same was asked."]
    moved = [row for row in document["rows"] if row["feasibility"] or abs((row["ratio"] or 1.0) - 1.0) > SAME]
    if not moved:
        told.append("No rate changed.")
    told += map(_sentence, sorted(moved, key=lambda row: -abs((row["ratio"] or 0.0) - 1.0))[:3])
    if len(moved) > 3:
        told.append(f"{len(moved) - 3} rows more changed.")
    missing = [len(document["only"][name]) for name in ("a", "b")]
    if any(missing):
        told.append(f"{missing[0]} rows are only in the first, {missing[1]} only in the second.")
    return told


def _term(name: str) -> str:
    """Name a term, as what shortens it does: "the expert exchange".

    >>> _term("ep"), _term("no such term")
    ('the expert exchange', 'no such term')
    """
    return STOPS.get(name, name).partition(":")[0]


def _sentence(row: Mapping[str, Any]) -> str:
    name = " ".join(str(value) for value in row["row"].values() if value not in (None, "")) or "the row"
    if row["feasibility"]:
        return f"{name}: {row['feasibility']}."
    text = f"{name}: {row['ratio']:.3g} times the rate"
    parts = [each for each in row["terms"] if each["share"] is not None and abs(each["share"]) >= 0.1][:2]
    if parts:
        text += ", " + " and ".join(f"{each['share']:.0%} of the change is {_term(each['term'])}" for each in parts)
    if row["strategy"]:
        splits = (f"{key} {before} to {after}" for key, (before, after) in list(row["strategy"].items())[:4])
        text += f"; split: {', '.join(splits)}"
    return text + "."
