"""What Pydantic finds wrong with a cluster file, as faults: field path, what the field holds, what to write instead."""

from collections.abc import Mapping
from typing import Any, Final

from clusters import catalogue
from clusters.fieldvalues import Wrong
from topo.errors import Fault

NAMED, OWN = "(name)", "(own)"
"""The two ways to say which accelerator; Pydantic puts them into the paths of faults."""

EXAMPLES: Final = {
    "name": "old",
    "count": "2",
    "between": "[old, new]",
    "size": "4",
    "file": "topo.xml",
    "bandwidth": "400GB/s",
    "km": "40",
}
"""Needed field -> what to write."""

Fields = Mapping[tuple[str, ...], tuple[str, ...]]
"""Path of a section, without places in lists -> the names of its fields."""

Error = Mapping[str, Any]
"""One of the details of a Pydantic error."""


def path_of(error: Error) -> tuple[str, ...]:
    """Return the field path of an error, without the names that Pydantic gives to the ways a value may be read."""
    return tuple(part for part in map(str, error["loc"]) if part not in ("float", "str", NAMED, OWN))


def fault_of(error: Error, fields: Fields, file: str) -> Fault:
    """Return the fault of one error."""
    path = path_of(error)
    field, value, kind = ".".join(path) or "cluster", error["input"], error["type"]
    shown = value if isinstance(value, (str, int, float, list, tuple)) else None
    wrong = error.get("ctx", {}).get("error")
    if isinstance(wrong, Wrong):
        return Fault(field, shown, wrong.problem, wrong.remedy, file)
    if kind == "extra_forbidden":
        return Fault(field, shown, "is no field of a cluster file", _stray(path, fields), file)
    if kind == "missing":
        return Fault(field, None, "is missing", f"write for instance {path[-1]}: {EXAMPLES[path[-1]]}", file)
    if kind == "tuple_type":
        return Fault(field, shown, "must be a list of sections", "write each behind a hyphen", file)
    known = ", ".join(fields.get(_section(path), ()))
    return Fault(field, shown, "must be a section of fields", f"write fields under it: {known}" if known else "", file)


def _section(path: tuple[str, ...]) -> tuple[str, ...]:
    """Path without places in lists; a pool has the sections of a cluster."""
    return tuple(part for part in path if not part.isdigit() and part != "pools")


def _stray(path: tuple[str, ...], fields: Fields) -> str:
    """Remedy for an unknown field: the section where a field of that name lives, or the nearest of its section."""
    elsewhere = [where for where, names in fields.items() if path[-1] in names]
    if elsewhere:
        return f"write {'.'.join((*elsewhere[0], path[-1]))}"
    return catalogue.nearest(path[-1], fields[_section(path[:-1])])
