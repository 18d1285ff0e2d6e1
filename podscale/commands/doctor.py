"""`podscale doctor`: is everything here that podscale needs, and what the rest would give."""

import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import BROKEN, Door
from topo.errors import PodscaleError

if TYPE_CHECKING:
    from rich.console import Console

OK: Final = "ok"
WARNING: Final = "warning"
MISSING: Final = "missing"
EXTRAS: Final[Mapping[str, str]] = {
    "tables": "Parquet files out of sweeps",
    "explore": "the explorer: podscale explore",
}
"""Extra -> what it gives; those for developing podscale are left out."""
STYLES: Final[Mapping[str, str]] = {OK: "green", WARNING: "yellow", MISSING: "red"}
LEAST_BYTES: Final = 2 * 2**30
"""Memory below which a search of a large model may be killed."""
_VARIABLES: Final = ("PODSCALE_CATALOGUE", "PODSCALE_TUNINGS", "PODSCALE_KERNELS")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `needed`: podscale, or what was asked for, does not work while it is missing."""

    check: str
    state: str
    found: str
    remedy: str = ""
    needed: bool = False


def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Start Ray on this machine, run one task, stop it.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Join the Ray cluster at this address instead: `auto`, or `host:6379`.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look at Python, packages, cores, Ray, catalogue, output and terminal; every fault comes with its remedy."""
    door = Door(as_json, quiet)
    with door.progress("looking around"):
        findings = [*look(), *_ray(start=ray or address is not None, address=address)]
    broken = any(found.needed and found.state == MISSING for found in findings)
    door.answer({"ok": not broken, "rows": [asdict(found) for found in findings]}, _print)
    if broken:
        raise typer.Exit(BROKEN)


def look() -> Iterator[Finding]:
    """Yield what does not need anything to be started."""
    for check in (_python, _packages, _extras, _machine, _data, _own_files, _output, _terminal):
        yield from check()


# --- versions -----------------------------------------------------------------------------------------------------


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version, as far as they compare.

    >>> numbers("2.51.1"), numbers("3.11.7+local"), numbers("1.0rc1") < numbers("1.0.1")
    ((2, 51, 1), (3, 11, 7), True)
    """
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


def requirement(text: str) -> tuple[str, str, str]:
    """Return name, least version and extra of a requirement.

    >>> requirement("networkx>=3.4"), requirement("polars>=1.20; extra == 'tables'")
    (('networkx', '3.4', ''), ('polars', '1.20', 'tables'))
    """
    head, _, marker = text.partition(";")
    name = re.match(r"[\w.-]+", head.strip())
    least = re.search(r">=\s*([\w.]+)", head)
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
    return name.group() if name else head, least.group(1) if least else "", extra.group(1) if extra else ""


def _wanted() -> list[tuple[str, str, str]]:
    """Return what podscale's own metadata ask for."""
    from importlib import metadata

    try:
        return [requirement(text) for text in metadata.requires("podscale") or ()]
    except metadata.PackageNotFoundError:
        return []


def _installed(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Finding]:
    from importlib import metadata

    version = ".".join(map(str, sys.version_info[:3]))
    try:
        least = (metadata.metadata("podscale")["Requires-Python"] or "").removeprefix(">=")
    except metadata.PackageNotFoundError:
        yield Finding("podscale", WARNING, "runs from its source, not installed", "pip install -e .")
        least = "3.11"
    else:
        yield Finding("podscale", OK, metadata.version("podscale"))
    old = numbers(version) < numbers(least)
    remedy = f"install Python {least} or newer, and podscale into it" if old else ""
    yield Finding("Python", MISSING if old else OK, f"{version}, at least {least}", remedy, needed=True)


def _packages() -> Iterator[Finding]:
    for name, least, extra in _wanted():
        if not extra:
            yield _package(name, least, "", needed=True)


def _package(name: str, least: str, gives: str, *, needed: bool) -> Finding:
    """Judge one package against the least version that is asked for."""
    version = _installed(name)
    wish = f"{name}>={least}" if least else name
    about = f" ({gives})" if gives else ""
    if version is None:
        return Finding(name, MISSING, f"not installed{about}", f"pip install '{wish}'", needed)
    if least and numbers(version) < numbers(least):
        return Finding(name, MISSING, f"{version}, at least {least}{about}", f"pip install '{wish}'", needed)
    return Finding(name, OK, f"{version}{about}", needed=needed)


def _extras() -> Iterator[Finding]:
    wanted = _wanted()
    for extra, gives in EXTRAS.items():
        held = [_package(name, least, "", needed=False) for name, least, own in wanted if own == extra]
        lacking = [found.check for found in held if found.state != OK]
        if held and not lacking:
            yield Finding(f"extra {extra}", OK, f"{gives}: {', '.join(f'{x.check} {x.found}' for x in held)}")
        elif held:
            found = f"without {', '.join(lacking)}; would give {gives}"
            yield Finding(f"extra {extra}", WARNING, found, f"pip install 'podscale[{extra}]'")


# --- the machine --------------------------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding("cores", OK, f"{cores} usable")
    size = memory_bytes()
    if size is None:
        yield Finding("memory", WARNING, "cannot be told on this system")
    else:
        low = size < LEAST_BYTES
        remedy = "search in smaller steps, or on a larger machine" if low else ""
        yield Finding("memory", WARNING if low else OK, f"{size / 2**30:.1f} GiB", remedy)


def memory_bytes() -> int | None:
    """Return the memory that this process may use: the machine's, or less where a control group limits it."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limits = [whole]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def _data() -> Iterator[Finding]:
    from clusters.catalogue import names
    from clusters.spec import systems
    from parallel.io import model_names

    try:
        counts = {"accelerators": len(names()), "systems": len(systems()), "models": len(model_names())}
    except PodscaleError:  # the reader's own files, which are looked at next
        return
    empty = [name for name, count in counts.items() if not count]
    remedy = f"install podscale again: no {', '.join(empty)} came with it" if empty else ""
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    yield Finding("catalogue", MISSING if empty else OK, told, remedy, needed=True)


def _own_files() -> Iterator[Finding]:
    """Look at the catalogue and the constants of the reader's own, which every command would read."""
    from clusters.catalogue import overlay
    from clusters.kernels import table as kernels
    from clusters.tunings import table as tunings

    own = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    faults: list[str] = []
    files = 0
    readers: tuple[Callable[[], Any], ...] = (overlay, tunings, kernels)
    for read in readers:
        try:
            found = read()
            files += len(found) if read is overlay else 0
        except PodscaleError as error:
            faults += str(error).splitlines()
    if faults:
        yield Finding(
            "own catalogue", MISSING, "; ".join(dict.fromkeys(faults)), "mend it, or unset the variable", needed=True
        )
    elif own:
        told = ", ".join(f"{name}={value}" for name, value in own.items())
        yield Finding("own catalogue", OK, f"{told}; {files} files over the shipped one")
    else:
        yield Finding("own catalogue", OK, f"none; set {_VARIABLES[0]} to a folder of your own parts")


def _output() -> Iterator[Finding]:
    """Try to write where answers would go."""
    from tempfile import TemporaryFile

    try:
        with TemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        remedy = "change to a folder of your own, or name another with --out and --report"
        yield Finding("output folder", WARNING, f"{Path.cwd()}: {error.strerror}", remedy)
    else:
        yield Finding("output folder", OK, f"{Path.cwd()} can be written")


def _terminal() -> Iterator[Finding]:
    from podscale.door import console

    made = console()
    colour = "no colour (NO_COLOR)" if os.environ.get("NO_COLOR") else made.color_system or "no colour"
    where = f"{made.width} columns, {colour}" if made.is_terminal else "none: plain text, no progress bars"
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    if encoding != "utf8":
        remedy = "set PYTHONIOENCODING=utf-8, or a UTF-8 locale"
        yield Finding("terminal", WARNING, f"{where}, {encoding}: µ, × and Σ cannot be written", remedy)
    else:
        yield Finding("terminal", OK, f"{where}, UTF-8")


# --- Ray ----------------------------------------------------------------------------------------------------------


def _ray(*, start: bool, address: str | None) -> Iterator[Finding]:
    """Look for Ray; start or join it only where that was asked for."""
    if importlib.util.find_spec("ray") is None:
        yield Finding("Ray", MISSING, "not installed: sweeps run on one core", "pip install ray", needed=start)
        return
    if not start:
        yield Finding("Ray", OK, "installed, not started: --ray starts it, --address joins a cluster")
        return
    if address and (fault := _silent(address)):
        yield Finding("Ray", MISSING, fault, "start it with ray start --head, and open its port", needed=True)
        return
    from parallel.executors.ray import session

    began = time.perf_counter()
    try:
        with session(address):
            api: Any = sys.modules["ray"]  # the session has loaded it
            held = api.cluster_resources()
            api.get(api.remote(num_cpus=1)(_one).remote(), timeout=60)
    except Exception as error:
        remedy = "start it with ray start --head, and open its port 6379" if address else "see the logs in /tmp/ray"
        why = str(error).strip().splitlines() or [type(error).__name__]
        yield Finding("Ray", MISSING, f"{address or 'this machine'}: {why[0]}", remedy, needed=True)
        return
    nodes = sum(name.startswith("node:") and "internal" not in name for name in held)
    told = f"{nodes} nodes, {held.get('CPU', 0):g} cores; up, one task, down in {time.perf_counter() - began:.1f} s"
    yield Finding("Ray", OK, told)


def _one() -> int:
    """Return 1: the task that is run on Ray."""
    return 1


def _silent(address: str) -> str:
    """Say so when nothing answers at an address within seconds: Ray itself would try for minutes."""
    import socket

    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal() or not host:
        return ""
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        return f"{address}: nothing answers ({getattr(error, 'strerror', None) or error})"
    return ""


def _print(console: "Console", document: Mapping[str, Any]) -> None:
    from rich.text import Text

    from podscale.tables import table

    shown = table("", "", "", "found", "remedy", left=("", "found", "remedy"))
    shown.show_header = False
    for row in document["rows"]:
        state = Text(row["state"], style=STYLES[row["state"]])
        shown.add_row(state, row["check"], Text(row["found"]), Text(row["remedy"]))
    console.print(shown)
    wrong = [row["check"] for row in document["rows"] if row["needed"] and row["state"] == MISSING]
    if wrong:
        console.print(Text(f"Broken: {', '.join(wrong)}.", style="bold red"))
    else:
        console.print(Text("podscale has what it needs.", style="bold"))
