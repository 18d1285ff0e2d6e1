"""What every importer shares: the text that it reads, the faults and leftovers that it names by line, and the graph.

An importer is a function ``(source, rates, latencies) -> Imported``. It uses each line, or lists it in `unused`, or
raises `SpecError` with the line.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo.errors import Fault, SpecError
from topo.schema import validate

if TYPE_CHECKING:
    import networkx as nx

MAX_BYTES = 256 * 2**20
"""No larger file is read."""

MAX_LINKS = 5_000_000
"""No larger graph is written out: a few words of ASTRA-sim or infragraph can stand for any number of links."""

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Unused:
    """A line (counted from 1) that says nothing that the graph holds, and why."""

    line: int
    text: str
    why: str


@dataclass(frozen=True)
class Imported:
    """A graph that follows `topo.schema`, and every line of its file that it doesn't hold."""

    graph: "nx.Graph[Any]"
    unused: tuple[Unused, ...] = ()


@dataclass(frozen=True)
class Source:
    """The text of a file, its lines, and the name under which faults call it."""

    name: str
    text: str
    lines: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        text = self.text.removeprefix("\ufeff").replace("\r\n", "\n")
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "lines", tuple(text.removesuffix("\n").split("\n")))

    def line(self, number: int) -> str:
        """Return line `number` without the blanks around it ("" past the end)."""
        return self.lines[number - 1].strip()[:200] if 0 < number <= len(self.lines) else ""

    def fault(self, line: int, problem: str, remedy: str = "", value: Any = None) -> Fault:
        """Return a fault of a line, or of the file (line 0)."""
        place = f"line {line}" if line else "file"
        return Fault(place if value is None else f"{place}, found", value, problem, remedy, self.name)

    def error(self, line: int, problem: str, remedy: str = "", value: Any = None) -> SpecError:
        """Return the error of one fault of a line."""
        return SpecError([self.fault(line, problem, remedy, value)])

    def unused(self, line: int, why: str) -> Unused:
        """Return a line as unused."""
        return Unused(line, self.line(line), why)


Reader = Callable[[Source, Figures, Figures], Imported]
Writer = Callable[["nx.Graph[Any]", Path], None]


def decode(name: str, data: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with its mark (what PowerShell writes with ``>``).

    Raises
    ------
    SpecError
        With the line of the first byte that is no text.

    Examples
    --------
    >>> decode("a.txt", "GPU0".encode("utf-16"))
    'GPU0'
    """
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(
            [Fault(f"line {line}", None, f"holds bytes that are not {encoding}", "save it as UTF-8 text", name)]
        ) from None


def load(path: Path) -> Source:
    """Read a file of at most `MAX_BYTES` bytes."""
    name = str(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SpecError([Fault("size", size, f"is more than {MAX_BYTES} bytes", "give a smaller file", name)])
        return Source(name, decode(name, path.read_bytes()))
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError([Fault("file", None, f"cannot be read ({error})", "give a text file", name)]) from None


def figures(given: Figures | None, defaults: Figures, what: str) -> dict[str, float]:
    """Return the defaults of a format, overridden by what is given.

    Examples
    --------
    >>> figures({"nvlink": 50e9}, {"nvlink": 25e9, "PIX": 3e10}, "rates")
    {'nvlink': 50000000000.0, 'PIX': 30000000000.0}
    """
    faults = []
    for key, value in (given or {}).items():
        if key not in defaults:
            known = ", ".join(defaults) or "none; this format holds its own"
            faults.append(Fault(f"{what}[{key!r}]", value, "is no word of this format", f"known: {known}"))
        elif not value >= 0 or (what == "rates" and value == 0):
            faults.append(Fault(f"{what}[{key!r}]", value, "must be positive"))
    if faults:
        raise SpecError(faults)
    return {**defaults, **(given or {})}


def add_link(graph: "nx.Graph[Any]", a: Any, b: Any, bandwidth_Bps: float, latency_s: float, **more: Any) -> None:
    """Join two nodes; a link beside another adds its bandwidth to it, and counts in `links`.

    Examples
    --------
    >>> import networkx as nx
    >>> g = nx.Graph()
    >>> add_link(g, "a", "b", 1e9, 1e-6)
    >>> add_link(g, "a", "b", 2e9, 2e-6)
    >>> g.edges["a", "b"]
    {'bandwidth_Bps': 3000000000.0, 'latency_s': 1e-06, 'links': 2}
    """
    links = more.pop("links", 1)
    if graph.has_edge(a, b):
        held = graph.edges[a, b]
        held["bandwidth_Bps"] += bandwidth_Bps
        held["latency_s"] = min(held["latency_s"], latency_s)
        held["links"] += links
    else:
        graph.add_edge(a, b, bandwidth_Bps=bandwidth_Bps, latency_s=latency_s, links=links, **more)


def checked(
    source: Source, graph: "nx.Graph[Any]", unused: list[Unused], where: Mapping[str, int] | None = None
) -> Imported:
    """Return the import of a graph that follows `topo.schema`; `where` knows the line of "node a" and "edge a - b".

    Raises
    ------
    SpecError
        With every fault against the schema, its file, and its line where that is known.
    """
    try:
        validate(graph)
    except SpecError as error:
        raise SpecError(
            Fault(_placed(fault.field, where or {}), fault.value, fault.problem, fault.remedy, source.name)
            for fault in error.faults
        ) from None
    return Imported(graph, tuple(sorted(unused, key=lambda one: one.line)))


def _placed(place: str, where: Mapping[str, int]) -> str:
    subject = place if place in where else place.rpartition(".")[0]
    return f"line {where[subject]}, {place}" if subject in where else place
