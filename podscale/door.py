"""What every command shares: one JSON document or a drawn answer, a progress bar on stderr, errors in a paragraph."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from topo.errors import InfeasibleError, PodscaleError

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[..., None]
"""Called as ``progress(done, total, note)`` by work that knows how far it is; `total` and `note` may be left out."""

OK, BROKEN, BAD_INPUT, INFEASIBLE = 0, 1, 2, 3
_PLAIN_WIDTH = 110
_WIDEST = 120


def plain(value: Any) -> Any:  # noqa: PLR0911 (one return per kind of value)
    """Return the value in what JSON knows: NumPy becomes Python, and what is not a finite number becomes null.

    >>> plain({"a": (1, float("inf")), 2: {"b": None}})
    {'a': [1, None], '2': {'b': None}}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return str(value) if isinstance(value, PurePath) else repr(value)


def to_json(document: Any) -> str:
    """Write a document as JSON text without NaN or infinity.

    >>> to_json({"a": float("nan")})
    '{"a": null}'
    """
    return json.dumps(plain(document), allow_nan=False, ensure_ascii=False)


def console(*, stderr: bool = False) -> "Console":
    """Return a console that reads well: at most 120 columns, 110 where there is no terminal; NO_COLOR is obeyed."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal or "COLUMNS" in os.environ:
        made.width = min(made.width, _WIDEST)
    else:
        made.width = _PLAIN_WIDTH
    return made


class ReaderLeftError(Exception):
    """Nobody reads stdout any more, as in ``podscale list models | head -1``."""


@dataclass(frozen=True, slots=True)
class Door:
    """How one command answers: as JSON, quietly, or drawn for a reader."""

    as_json: bool = False
    quiet: bool = False

    def answer(self, document: Mapping[str, Any], draw: Callable[["Console", dict[str, Any]], None]) -> None:
        """Print the document as JSON, or hand it to `draw`, cleaned of NumPy and of what is not finite."""
        try:
            if self.as_json:
                sys.stdout.write(to_json(document) + "\n")
            else:
                draw(console(), plain(document))
            sys.stdout.flush()
        except (BrokenPipeError, SystemExit) as gone:  # rich turns the one into the other
            raise ReaderLeftError from gone

    @contextmanager
    def progress(self, what: str) -> Iterator[Progress | None]:
        """Show a bar on stderr while the block runs; nothing with ``--json``, ``--quiet`` or without a terminal."""
        if self.as_json or self.quiet or not sys.stderr.isatty():
            yield None
            return
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)

            def advance(done: float, total: float | None = None, note: str = "") -> None:
                bar.update(task, completed=done, total=total, description=f"{what}: {note}" if note else what)

            yield advance


def complain(error: Exception, *, as_json: bool) -> int:
    """Say what is wrong on stderr, every fault in it, and return the exit code.

    With ``--json`` stdout still gets its one document, ``{"error": {...}}``: scripts need not read stderr.
    """
    if isinstance(error, InfeasibleError):
        code, kind = INFEASIBLE, "infeasible"
    elif isinstance(error, PodscaleError):
        code, kind = BAD_INPUT, "bad input"
    else:
        code, kind = int(getattr(error, "exit_code", BROKEN)), "bad input"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    faults = [plain(fault) for fault in getattr(error, "faults", ())]
    if as_json:
        sys.stdout.write(to_json({"error": {"kind": kind, "message": message, "faults": faults}}) + "\n")
    sys.stderr.write(_paragraph(message) + "\n")
    return code


def _paragraph(message: str) -> str:
    """Mark the first line as podscale's, and set every further fault under it."""
    lines = message.splitlines() or ["no reason given"]
    if len(lines) == 1:
        return f"podscale: {lines[0]}"
    return "\n".join([f"podscale: {len(lines)} things to mend:", *(f"  {line}" for line in lines)])
