"""What survives a stop: one line per finished unit, under a name that only the same plan has.

The file begins with the plan's fingerprint. A line that a stop cut short is not read back: its unit is done again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from parallel.sweeps.found import from_json, to_json
from parallel.sweeps.units import Done, Unit
from topo.errors import Fault, SpecError

FOLDER: Final = Path(".podscale") / "sweeps"
"""Where sweeps keep what is finished, from the working directory."""
SHORT: Final = 16


class Store:
    """The finished units of one plan in a file.

    Parameters
    ----------
    fingerprint : what tells the plan from any other
    folder : where the file lies; made when the first unit is finished
    """

    def __init__(self, fingerprint: str, folder: Path | str = FOLDER) -> None:
        self.fingerprint = fingerprint
        self.path = Path(folder) / f"{fingerprint[:SHORT]}.jsonl"

    @property
    def _empty(self) -> bool:
        return not self.path.exists() or self.path.stat().st_size == 0

    def read(self) -> Iterator[tuple[Unit, Done]]:
        """Yield the finished units; none where there is no file."""
        if self._empty:
            return
        with self.path.open(encoding="utf-8") as lines:
            if not _is_header(next(lines, ""), self.fingerprint):
                problem, remedy = "holds the finished part of another sweep", "delete it, or leave out --resume"
                raise SpecError([Fault("(file)", None, problem, remedy, str(self.path))])
            for line in lines:
                if found := _read(line):
                    yield found

    def clear(self) -> None:
        """Forget what is finished."""
        self.path.unlink(missing_ok=True)

    def add(self, unit: Unit, done: Done) -> None:
        """Write a finished unit down; it is on disk when this returns. What cannot be priced is tried again instead."""
        if done.error is not None:
            return
        fresh = self._empty
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            if fresh:
                file.write(json.dumps({"plan": self.fingerprint}) + "\n")
            elif not _ends_whole(self.path):
                file.write("\n")
            file.write(json.dumps(_line(unit, done)) + "\n")


def _line(unit: Unit, done: Done) -> dict[str, Any]:
    return {"unit": [unit.cell, unit.lo, unit.hi], "cell": [done.size, done.tail], "found": to_json(done.found)}


def _is_header(line: str, fingerprint: str) -> bool:
    try:
        return bool(json.loads(line) == {"plan": fingerprint})
    except json.JSONDecodeError:
        return False


def _read(line: str) -> tuple[Unit, Done] | None:
    """Read one line; None for one that was cut short."""
    try:
        data = json.loads(line)
        return Unit(*data["unit"]), Done(from_json(data["found"]), *data["cell"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _ends_whole(path: Path) -> bool:
    """Whether the file's last line is whole."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
