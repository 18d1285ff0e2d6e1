"""Measured collectives of one's own: the text that nccl-tests (or rccl-tests) prints, or a table in CSV, as points.

A log holds any number of tests, with what MPI, Slurm and NCCL print round them. Its format is that of nccl-tests'
`src/util.cu`; earlier versions, which name neither the test nor the root, are read too. Sizes are as nccl-tests counts
them. Every line that gives no point, and is no comment that the tests always print, is told with the reason.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from clusters.calibration.curves import regime_of
from clusters.catalogue import key_of
from clusters.collective import BUS
from clusters.tablefile import MOST_FAULTS, column_names, read_table
from clusters.tunings import SAME
from topo.errors import Fault, SpecError

#: Start of a test's name (all_reduce_perf) or its name in a table -> our operation. Others have no constants.
OPS: Final[Mapping[str, str]] = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "sendrecv": "send_recv",
    "send_recv": "send_recv",
}

UNCHECKED_IN_PLACE: Final = ("all_to_all", "send_recv")
"""Operations that nccl-tests does not run truly in place: only their first time counts."""

#: A name that a driver reports -> the accelerator; the first that matches. Cards on PCIe are other parts.
GPUS: Final = (
    (r"A100-SXM\d?-40GB", "a100-sxm-40"),
    (r"A100-SXM\d?-80GB", "a100-sxm-80"),
    (r"\bH100\b(?!.*(PCIe|NVL))", "h100-sxm"),
    (r"\bH800\b(?!.*(PCIe|NVL))", "h800-sxm"),
    (r"\bH200\b(?!.*NVL)", "h200-sxm"),
    (r"\bH20\b", "h20"),
    (r"\bGH200\b", "gh200"),
    (r"\bGB200\b", "gb200"),
    (r"\bGB300\b", "gb300"),
    (r"\bB200\b", "b200-sxm"),
    (r"\bB300\b", "b300-sxm"),
    (r"\bL40S\b", "l40s"),
    (r"RTX PRO 6000 .*Server", "rtx-pro-6000-server"),
    (r"\bMI300X\b", "mi300x"),
    (r"\bMI325X\b", "mi325x"),
    (r"\bMI355X\b", "mi355x"),
)

#: What a launcher puts before a line: SkyPilot's and Kubernetes' stamps, mpirun --tag-output, srun --label.
PREFIX: Final = re.compile(
    r"^(?:\([\w-]+, rank=[^)]*\) )?(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-][\d:]+) )?(?:\[\d+,\d+\]<std(?:out|err)>: ?)?(?:\s*\d+: )?"
)
NOISE: Final = re.compile(r"\S+:\d+:\d+ \[\d+\] .*?NCCL (?:INFO|WARN|TRACE)|\bNCCL version \d|RCCL version")
NAME: Final = re.compile(r"\b([a-z_]+?)_perf")
RANK: Final = re.compile(
    r"#\s+Rank\s+(\d{1,7})\s+(?:Group\s+(\d+)\s+)?Pid\s+\d+ on\s+(\S+) device\s+\d+ \[[^\]]*\]\s+(.+)"
)
HEAD: Final = re.compile(r"\d+\s+\d+\s+[A-Za-z]\w*(?:\s|$)")
STAMP: Final = re.compile(r"\s+\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$")
FIGURE: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|N/A|inf|nan")

#: Comments that the tests print and that say nothing to us.
KNOWN: Final = re.compile(
    r"#\s*(?:$|Using devices|out-of-place|\(B\)|nccl-tests version|Avg bus bandwidth|Out of bounds values +: 0|"
    r"Collective test concluded|Errors with asterisks|Blocking Enabled|Parallel Init|Per-Iteration Report|"
    r"GPU memory usage|Writing JSON)|rccl-tests: Version"
)

REMEDY: Final = "give the whole output of one test after the other"


@dataclass(frozen=True, slots=True)
class Point:
    """One measured collective. `system` is an accelerator's name, empty where the driver's is not known."""

    line: int
    op: str
    regime: str
    system: str
    ranks: int
    nodes: int
    size_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Log:
    """What a file holds: the points, and by reason what was not used (`count`, `lines`, the first one's `text`)."""

    points: tuple[Point, ...]
    unused: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...] = ()


def bus_factor(op: str, ranks: float) -> float:
    """Return busbw/algbw of an operation (nccl-tests, doc/PERFORMANCE.md).

    >>> bus_factor("all_reduce", 8), bus_factor("all_gather", 8), bus_factor("send_recv", 8)
    (1.75, 0.875, 1.0)
    """
    return BUS[op] * (ranks - 1) / ranks if op in BUS else 1.0


def system_of(gpu: str) -> str:
    """Return the accelerator of a driver's name, empty where it is none of the catalogue.

    >>> system_of("NVIDIA H100 80GB HBM3"), system_of("AMD Instinct MI300X"), system_of("NVIDIA H100 PCIe")
    ('h100-sxm', 'mi300x', '')
    """
    return next((name for pattern, name in GPUS if re.search(pattern, gpu)), "")


def read_log(file: str | Path, ranks: int | None = None, op: str = "") -> Log:
    """Read the output of nccl-tests, or a CSV table in a schema of `podscale validate collectives`.

    Parameters
    ----------
    file
        A log, or a table (``.csv``, ``.csv.gz``).
    ranks, op
        What holds where a log does not say it: early versions do not name the test.

    Raises
    ------
    SpecError
        The file cannot be read, holds no test, or a row is malformed; every fault at once, with its line.
    """
    path = Path(file)
    if path.name.endswith((".csv", ".csv.gz")):
        return _from_table(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as why:
        problem = f"cannot be read: {why.strerror or why}"
        raise SpecError([Fault("FILE", None, problem, "give what nccl-tests printed", str(file))]) from None
    named = NAME.search(path.name)
    return parse(text, str(file), ranks, op or (named.group(1) if named else ""))


def parse(text: str, file: str = "", ranks: int | None = None, op: str = "") -> Log:
    """Read the text of a log; see `read_log`.

    Examples
    --------
    >>> log = parse('''# Collective test starting: all_gather_perf
    ... # nThread 1 nGpus 2 minBytes 1048576 maxBytes 1048576 step: 2(factor) warmup iters: 1 iters: 20
    ... #  Rank  0 Group  0 Pid     10 on     node-1 device  0 [0000:1b:00] NVIDIA H200
    ... #  Rank  1 Group  0 Pid     10 on     node-1 device  1 [0000:2c:00] NVIDIA H200
    ... #       size         count      type   redop    root     time   algbw   busbw  #wrong
    ...      1048576        131072     float    none      -1    20.00   52.43   26.21       0
    ... ''')
    >>> [(point.system, point.ranks, f"{point.seconds * 1e6:.0f} us") for point in log.points]
    [('h200-sxm', 2, '20 us')]
    """
    reader = _Reader(file, ranks, _operation(op))
    lines = text.splitlines()
    for number, raw in enumerate(lines, start=1):
        reader.line(number, PREFIX.sub("", raw).strip(), last=number == len(lines))
    if reader.faults:
        raise SpecError(reader.faults[:MOST_FAULTS])
    if not reader.points:
        told = "; ".join(dict.fromkeys(reason for reason, *_ in reader.unused if reason != NO_TEST))
        problem = f"holds no row of nccl-tests that can be used{': ' + told if told else ''}"
        raise SpecError([Fault("FILE", None, problem, REMEDY, file)])
    return Log(tuple(reader.points), _gathered(reader.unused), tuple(dict.fromkeys(reader.warnings)))


NO_TEST: Final = "no output of nccl-tests"


@dataclass
class _Test:
    """What the comments above a table say. `width` counts the columns of one of its two parts, 0 before the header."""

    op: str
    ranks: set[int] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)
    system: str = ""
    width: int = 0
    wrong: bool = False
    cpu: bool = False


@dataclass
class _Reader:
    """Reads line by line. `hint` is a test named outside its own comments, `held` a row that NCCL's log broke in two."""

    file: str
    ranks: int | None
    hint: str
    points: list[Point] = field(default_factory=list)
    unused: list[tuple[str, int, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    test: _Test = field(init=False)
    held: str = ""

    def __post_init__(self) -> None:
        """Begin with the test that is named outside: a log may do without comments."""
        self.test = _Test(self.hint)

    def line(self, number: int, text: str, last: bool) -> None:
        """Take one line, its launcher's prefix removed."""
        if noise := NOISE.search(text):
            self.unused.append(("NCCL's own log", number, text[noise.start() :]))
            text = text[: noise.start()].strip()
            if self.test.width and HEAD.match(text) and len(text.split()) <= HEAD_COLUMNS:
                self.held, text = text, ""
        if not text:
            return
        if text.startswith(("#", "rccl-tests:")):
            self._comment(number, text)
        elif self.test.width and HEAD.match(text):
            self._row(number, text, last)
        elif self.held and self.test.width and all(map(FIGURE.fullmatch, STAMP.sub("", text).split())):
            text, self.held = f"{self.held} {text}", ""
            self._row(number, text, last)
        else:
            self._other(number, text)

    def _comment(self, number: int, text: str) -> None:
        if found := re.match(r"#\s*Collective test starting: (\S+)", text):
            self.test = _Test(_operation(found.group(1)))
        elif re.match(r"#\s*nThread \d", text):
            if self.test.width or not self.test.op:
                self.test = _Test(self.hint)
            if re.search(r"graph: [1-9]", text):
                self.warnings.append("the tests replayed CUDA graphs: their launch is not that of eager calls")
        elif found := RANK.match(text):
            rank, group, host, gpu = found.groups()
            self.test.ranks.add(int(rank))
            self.test.groups.add(group or "0")
            self.test.hosts.add(host)
            self.test.system = system_of(gpu)
        elif re.match(r"#\s*size\s+count\s+type\b", text):
            self._header(number, text)
        elif found := re.match(r"#\s*Out of bounds values +: ([1-9]\d*)", text):
            self.warnings.append(f"line {number}: {found.group(1)} wrong values, says the test itself")
        elif not KNOWN.match(text):
            self.unused.append(("comment that says nothing here", number, text))

    def _header(self, number: int, text: str) -> None:
        names = text.removeprefix("#").split()
        starts = [at for at, name in enumerate(names) if name in ("time", "cputime")]
        end = names.index("timestamp") if "timestamp" in names else len(names)
        sound = starts and names[starts[0] + 1 : starts[0] + 3] == ["algbw", "busbw"]
        self.test.width = ([*starts, end])[1] - starts[0] if sound else 0
        self.test.cpu, self.test.wrong = "cputime" in names, "#wrong" in names
        self.held = ""
        if self.test.width < LEAST_COLUMNS:
            self.test.width = 0
            self.unused.append(("header without its columns", number, text))

    def _other(self, number: int, text: str) -> None:
        names = set(NAME.findall(text))
        if len(names) == 1:
            self.hint = _operation(names.pop())
        self.unused.append((NO_TEST, number, text))

    def _row(self, number: int, text: str, last: bool) -> None:
        """Take a row of a table: size, count, type, perhaps redop and root, then one part out of place and one in it."""
        words, width = STAMP.sub("", text).split(), self.test.width
        parts, size = (len(words) - 3) // width, float(words[0])
        tail = words[len(words) - parts * width :]
        if not 1 <= parts <= 2 or len(words) - len(tail) > HEAD_COLUMNS or not all(map(FIGURE.fullmatch, tail)):
            self._malformed(number, text, "does not have the columns of its header", last)
            return
        figures = [tail[at * width : (at + 1) * width] for at in range(parts)]
        times = [_number(part[0]) for part in figures]
        if not all(0 <= time < float("inf") for time in times):
            self._malformed(number, text, "holds a time that is no number", last)
        elif off := [part for part, time in zip(figures, times, strict=True) if time and not _agrees(size, time, part)]:
            self._malformed(number, text, f"algbw {off[0][1]} does not follow from size and time", last)
        elif reason := self._unfit(size, times, figures):
            self.unused.append((reason, number, text))
        else:
            self._point(number, text, size, times, figures)

    def _unfit(self, size: float, times: list[float], figures: list[list[str]]) -> str:
        """Return why a sound row gives no point, empty where it does."""
        test = self.test
        if test.cpu:
            return "CPU time: the launch without the collective"
        if len(test.groups) > 1:
            return "several groups at once, which disturb one another"
        if test.op and test.op not in BUS and test.op != "send_recv":
            return f"no constants for {test.op}"
        if not size or not min(times):
            return "no bytes, or no time"
        if test.wrong and any(_number(part[3]) > 0 for part in figures):
            return "its results are wrong"
        return "one rank: nobody to talk to" if (len(test.ranks) == 1 and max(test.ranks) == 0) else ""

    def _point(self, number: int, text: str, size: float, times: list[float], figures: list[list[str]]) -> None:
        test = self.test
        ranks = max(test.ranks) + 1 if test.ranks else self.ranks
        where = f"line {number}"
        if not test.op:
            remedy = "name the test with --op all_reduce, or put the command line above its output"
            self._once(Fault(where, None, "which test it was is not said", remedy, self.file))
        elif ranks is None or ranks < 2:
            self._once(Fault(where, None, "how many ranks there were is not said", "add --ranks 8", self.file))
        else:
            algbw, busbw = _number(figures[0][1]), _number(figures[0][2])
            factor = bus_factor(test.op, ranks)
            if algbw >= 1 and abs(busbw / algbw / factor - 1) > 0.03:
                problem = f"busbw/algbw is {busbw / algbw:.3g}, and {test.op} of {ranks} ranks has {factor:.3g}"
                self._once(Fault(where, text, problem, "correct the test or the ranks", self.file))
                return
            kept = times[:1] if test.op in UNCHECKED_IN_PLACE else times
            seconds = sum(kept) / len(kept) * 1e-6
            nodes = max(1, len(test.hosts))
            self.points.append(Point(number, test.op, "nccl", test.system, ranks, nodes, size, seconds))

    def _malformed(self, number: int, text: str, problem: str, last: bool) -> None:
        if last:
            self.unused.append((f"cut short: {problem}", number, text))
        else:
            self.faults.append(Fault(f"line {number}", text, problem, REMEDY, self.file))

    def _once(self, fault: Fault) -> None:
        """Keep the first fault of a kind: the rows below have the same."""
        if all(fault.problem.split(",")[0] != held.problem.split(",")[0] for held in self.faults):
            self.faults.append(fault)


HEAD_COLUMNS: Final = 5
"""Columns before the times: size, count, type, redop, root. Early versions lack the last, gathers leave both blank."""

LEAST_COLUMNS: Final = 4
"""Columns of one part at least: time, algbw, busbw, #wrong."""


def _number(word: str) -> float:
    """Return a printed figure; N/A counts as none."""
    return 0.0 if word == "N/A" else float(word)


def _agrees(size: float, time_us: float, part: list[str]) -> bool:
    """Whether algbw is size over time, as far as the rounding of both lets it be known."""
    algbw = _number(part[1])
    return abs(algbw - size / time_us * 1e-3) <= 0.011 + 0.02 * algbw


def _operation(name: str) -> str:
    """Return our operation of a test's name, the bare name where there is none."""
    bare = re.sub(r"_perf.*$", "", Path(name).name) if name else ""
    bare = key_of(bare).replace("-", "_")
    return OPS.get(bare, bare)


def _gathered(unused: Iterable[tuple[str, int, str]]) -> tuple[Mapping[str, Any], ...]:
    """Gather unused lines by reason, with their numbers as ranges."""
    kinds: dict[str, list[tuple[int, str]]] = {}
    for reason, number, text in unused:
        kinds.setdefault(reason, []).append((number, text))
    return tuple(
        {"reason": reason, "count": len(held), "lines": _ranges([number for number, _ in held]), "text": held[0][1]}
        for reason, held in kinds.items()
    )


def _ranges(numbers: list[int]) -> str:
    """Return line numbers as ranges.

    >>> _ranges([3, 4, 5, 9])
    '3-5, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number <= runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}-{last}" if last > first else f"{first}" for first, last in runs)


# --- tables ----------------------------------------------------------------------------------------------------------


def _from_table(path: Path) -> Log:
    """Read a table of kernels (system, op, impl, num_gpus …) or of published benchmarks (system, op, ranks, nodes …)."""
    kernels = "num_gpus" in column_names(path)
    if kernels:
        table = read_table(path, ("num_gpus", "message_bytes", "latency_us"), ("system", "op", "impl"))
        seconds = table["latency_us"] * 1e-6
        table |= {"ranks": table["num_gpus"], "nodes": np.ones(len(seconds)), "size": table["message_bytes"]}
    else:
        optional = ("message_bytes", "busbw_GBps", "latency_us")
        table = read_table(path, ("ranks", "nodes"), ("system", "op"), optional)
        table |= {"impl": np.full(len(table["line"]), "NCCL")}
        size, busbw, latency_us = (_optional(table, key, path) for key in optional)
        ops = [_operation(word) for word in table["op"].tolist()]
        factor = np.array([bus_factor(op, ranks) for op, ranks in zip(ops, table["ranks"].tolist(), strict=True)])
        with np.errstate(divide="ignore", invalid="ignore"):
            by_busbw = factor * size / (busbw * 1e9)
        seconds = np.where(latency_us > 0, latency_us * 1e-6, by_busbw)
        table |= {"size": size}
    points, unused = [], []
    columns = (table[key].tolist() for key in ("line", "op", "impl", "system", "ranks", "nodes", "size"))
    for line, word, impl, system, ranks, nodes, size_bytes, took in zip(*columns, seconds.tolist(), strict=True):
        op, regime = _operation(word), SAME.get(regime_of(impl), regime_of(impl)) or "nccl"
        if reason := _aside(op, impl, ranks, size_bytes, took):
            unused.append((reason, line, f"{system} {word} {impl}"))
        else:
            points.append(Point(line, op, regime, system, int(ranks), int(nodes), size_bytes, took))
    if not points:
        problem = f"has no row that can be used: {'; '.join(dict.fromkeys(reason for reason, *_ in unused))}"
        raise SpecError([Fault("rows", None, problem, "measure collectives of NCCL", str(path))])
    return Log(tuple(points), _gathered(unused))


def _aside(op: str, impl: str, ranks: float, size: float, seconds: float) -> str:
    """Return why a row of a table gives no point, empty where it does."""
    if op not in OPS.values():
        return f"no constants for {op}"
    if impl != "NCCL" and (not regime_of(impl) or op != "all_reduce"):
        return f"no regime for the kernels of {impl}"
    if ranks < 2:
        return "one rank: nobody to talk to"
    return "" if size > 0 and 0 < seconds < float("inf") else "neither a time nor a size and a bandwidth to derive it"


def _optional(table: Mapping[str, Any], key: str, path: Path) -> Any:
    """Return a column that may be blank or absent as numbers, nan where it is."""
    cells = table[key].tolist() if key in table else [""] * len(table["line"])
    try:
        return np.array([float(cell) if cell else float("nan") for cell in cells])
    except ValueError as why:
        raise SpecError(
            [Fault(key, None, f"holds what is no number: {why}", "write one or nothing", str(path))]
        ) from None
