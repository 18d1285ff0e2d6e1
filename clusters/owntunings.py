"""The tunings file that a cluster file names: its path, from the cluster file, and whether it is one."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from clusters.sections import OwnFile
from topo.errors import Fault, SpecError

FIELD: Final = "tunings"
REMEDY: Final = "write its path from this file; podscale calibrate collectives FILE --out F writes one"


def named(values: Mapping[str, Any], file: str, faults: list[Fault]) -> tuple[OwnFile | None, dict[str, Any]]:
    """Return the tunings file that checked fields name, and the fields with its whole path.

    What is wrong with it joins `faults`; the fields then lack it.

    >>> faults = []
    >>> named({"accelerators": 8, "tunings": "nowhere.yaml"}, "", faults), faults[0].problem
    ((None, {'accelerators': 8}), 'cannot be read: No such file or directory')
    """
    held = {key: value for key, value in values.items() if key != FIELD}
    if FIELD not in values:
        return None, held
    from clusters.tunings import own_constants

    path = str((Path(file).parent / values[FIELD]).resolve()) if file else str(values[FIELD])
    try:
        own_constants(path, FIELD)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except SpecError as error:
        faults += [_of_field(fault, str(values[FIELD]), file) for fault in error.faults]
        return None, held
    return OwnFile(digest, path), {**held, FIELD: path}


def said(own: OwnFile | None, links: Iterable[str]) -> tuple[str, ...]:
    """Return a note on what a cluster's own file holds of its links, empty where it has none.

    >>> said(None, ["nvlink4"])
    ()
    """
    if own is None:
        return ()
    from clusters.tunings import own_entries

    wanted, file = set(links), Path(own.file).name
    held = [" ".join(names) for names in own_entries(own) if names[0] in wanted]
    told = f"constants of {', '.join(held)}" if held else "holds no constants of this cluster's links"
    return (f"{file}, as the cluster says: {told}",)


def _of_field(fault: Fault, path: str, file: str) -> Fault:
    """Return a fault as the cluster file's where the file itself is missing, else with its place in that file."""
    if fault.field == FIELD:
        return replace(fault, value=path, remedy=REMEDY, file=file)
    return replace(fault, field=f"{FIELD}: {fault.field}")
