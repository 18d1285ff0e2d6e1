"""What a file of training cases must look like, checked before any case is read: every fault at once, with its place."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from parallel.training.layer import RECOMPUTE
from topo.errors import Fault

Json = Mapping[str, Any]

_SECTIONS: Final = ("model", "cluster", "parallel", "batch", "measured")
_COUNTS: Final = ("tp", "pp", "vpp", "dp", "cp", "ep", "etp")


def faults(document: Any, file: str) -> list[Fault]:
    """Return what is wrong with a case file's structure: sections, references, and numbers that are none.

    >>> [fault.field for fault in faults({"cases": [], "models": {}}, "mine.json")]
    ['clusters']
    """
    sections = {"cases": list, "models": dict, "clusters": dict}
    if not isinstance(document, dict):
        return [Fault("file", None, "is no JSON object", f"it needs {', '.join(sections)}", file)]
    found = [
        Fault(name, None, "is missing or of the wrong kind", f"write a JSON {kind.__name__}", file)
        for name, kind in sections.items()
        if not isinstance(document.get(name), kind)
    ]
    if found:
        return found
    for index, case in enumerate(document["cases"]):
        found += [
            Fault(f"cases[{index}].{field}", value, problem, remedy, file)
            for field, value, problem, remedy in _case_faults(case, document)
        ]
    names = Counter(case["id"] for case in document["cases"] if isinstance(case, dict) and "id" in case)
    return found + [
        Fault("id", name, f"stands for {count} cases", "give each its own", file)
        for name, count in names.items()
        if count > 1
    ]


def _case_faults(case: Any, document: Json) -> Iterator[tuple[str, Any, str, str]]:
    """Field, value, problem and remedy of everything wrong with one case."""
    if not isinstance(case, dict) or not isinstance(case.get("id"), str):
        yield "id", None, "is missing", "give every case a name"
        return
    shapeless = [part for part in _SECTIONS if not isinstance(case.get(part), dict)]
    yield from ((part, case.get(part), "is no JSON object", "see the shipped cases") for part in shapeless)
    if shapeless:
        return
    for part, table in (("model", "models"), ("cluster", "clusters")):
        ref = case[part].get("ref")
        if (ref is not None or part == "cluster") and not isinstance(document[table].get(ref), dict):
            yield f"{part}.ref", ref, f"is not in {table}", f"name an entry of {table}"
    yield from _number_faults(case)


def _number_faults(case: Json) -> Iterator[tuple[str, Any, str, str]]:
    """Faults of a case's counts, choices and measurements."""
    counted = [(f"parallel.{name}", case["parallel"].get(name)) for name in _COUNTS]
    counted += [(f"batch.{name}", case["batch"].get(name)) for name in ("micro", "global")]
    counted += [("model.seq", case["model"].get("seq"))]
    known = [(name, value) for name, value in counted if value is not None]
    for name, value in [*known, ("cluster.gpus", case["cluster"].get("gpus"))]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield name, value, "is not a whole number of 1 or more", "write one, or null if unknown"
    mode = (case.get("recompute") or {}).get("mode")
    if mode is not None and mode not in RECOMPUTE:
        yield "recompute.mode", mode, "is no mode", f"write one of {', '.join(RECOMPUTE)}, or null if unknown"
    stage = case["parallel"].get("zero_stage")
    if not (stage is None or isinstance(stage, str) or stage in (0, 1, 2, 3)):
        yield "parallel.zero_stage", stage, "is no stage", "write 0, 1, 2 or 3, or null if unknown"
    for name, value in case["measured"].items():
        if name in ("iter_time_s", "tokens_per_s_per_gpu") or name.startswith("peak_mem"):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                yield f"measured.{name}", value, "is not a positive number", "write one, or leave it out"
