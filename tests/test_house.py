"""The rules of the house: who may import whom, what no shipped file holds, and that the house documents are true."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("topo", "collectives", "clusters", "parallel", "podscale")
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))

MAX_LINES = 450
VERBS = ("run", "test", "bench", "lint", "report", "clean")
CHANGELOG_HEADINGS = ("Added", "Changed", "Fixed", "Removed", "Numbers")
READS = frozenset({"open", "read_text", "read_bytes"})

#: Import -> the only files that may hold it. A folder stands for all that is in it.
RESERVED = {
    "ray": ("parallel/executors/ray.py",),
    "pydantic": ("clusters/specfile.py", "parallel/scenariofile.py", "parallel/sweeps/specfile.py"),
    "typer": ("podscale",),
    "rich": ("podscale",),
    "plotly": ("podscale",),
    "jinja2": ("podscale",),
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(text_of(path))))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, module) of every import, wherever it stands; a relative one as dots."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def calls_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every call that may read a file: `open(...)`, or a method of a path."""
    for node in nodes_of(path):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr
            elif isinstance(node.func, ast.Name) and node.func.id == "open":
                yield node.lineno, node.func.id


def fields(text: str) -> list[str]:
    """Return the names in backticks in the second column of a document's tables."""
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    return [name for row in rows if len(row) > 3 for name in re.findall(r"`([^`]+)`", row[2])]


# --- imports ---------------------------------------------------------------------------------------------------------


def test_imports_run_downward() -> None:
    upward = [
        f"{name_of(path)}:{line} imports {module}"
        for path in MODULES
        for line, module in imports_of(path)
        if (above := module.split(".")[0]) in FLOORS
        and FLOORS.index(above) > FLOORS.index(path.relative_to(ROOT).parts[0])
    ]
    assert not upward


def test_imports_are_absolute() -> None:
    relative = [f"{name_of(p)}:{line}" for p in MODULES for line, module in imports_of(p) if module.startswith(".")]
    assert not relative


@pytest.mark.parametrize("library", RESERVED)
def test_a_reserved_library_stays_in_its_room(library: str) -> None:
    rooms = tuple(ROOT / room for room in RESERVED[library])
    strays = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        for line, module in imports_of(path)
        if module.split(".")[0] == library and not any(path.is_relative_to(room) for room in rooms)
    ]
    assert not strays, f"{library} may be imported only in {', '.join(RESERVED[library])}"


def test_parallel_reads_files_only_at_its_door() -> None:
    doors = (ROOT / "parallel" / "io.py", ROOT / "parallel" / "executors")
    strays = [
        f"{name_of(path)}:{line} calls {call}"
        for path in MODULES
        if path.is_relative_to(ROOT / "parallel") and not any(path.is_relative_to(door) for door in doors)
        for line, call in calls_of(path)
        if call in READS
    ]
    assert not strays


def test_no_other_distribution_provides_our_packages() -> None:
    providers = packages_distributions()
    others = {floor: set(providers.get(floor, ())) - {"podscale"} for floor in FLOORS}
    assert not {floor: names for floor, names in others.items() if names}


# --- shipped files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", FLOORS)
def test_every_package_is_typed(floor: str) -> None:
    assert (ROOT / floor / "py.typed").is_file()


def test_no_shipped_code_asserts() -> None:
    found = [f"{name_of(p)}:{n.lineno}" for p in MODULES for n in nodes_of(p) if isinstance(n, ast.Assert)]
    assert not found, "raise SpecError or InfeasibleError instead: python -O drops an assert"


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    found = [
        f"{name_of(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if later.search(line)
    ]
    assert not found


def test_rooms_stay_small() -> None:
    large = {name_of(p): lines for p in MODULES if (lines := len(text_of(p).splitlines())) > MAX_LINES}
    assert not large, f"split files above {MAX_LINES} lines"


# --- house documents -------------------------------------------------------------------------------------------------


@cache
def names_in_code() -> frozenset[str]:
    """Return every identifier and every short text of the shipped code, and `Class.field` of its classes."""
    found: set[str] = set()
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                found.add(node.name)
                for part in node.body:
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                        found.add(f"{node.name}.{part.target.id}")
                    elif isinstance(part, ast.FunctionDef):
                        found.add(f"{node.name}.{part.name}")
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
            elif isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 40:
                found.add(node.value)
    return frozenset(found)


def test_every_name_of_the_nomenclature_is_in_the_code() -> None:
    listed = fields(text_of(ROOT / "NOMENCLATURE.md"))
    assert len(listed) > 100
    assert not [name for name in listed if name not in names_in_code()]


def test_the_nomenclature_lists_what_the_tables_hold() -> None:
    from collectives.algorithms import ALGORITHMS
    from collectives.moe import COPIES
    from collectives.pipelines import SCHEDULES
    from parallel.exchange import EXCHANGES
    from parallel.precision import FORMATS, RECIPES
    from parallel.results import STOPS
    from parallel.training.layer import RECOMPUTE

    algorithms = {name for operation in ALGORITHMS.values() for name in operation}
    held = {*ALGORITHMS, *algorithms, *COPIES, *SCHEDULES, *EXCHANGES, *FORMATS, *RECIPES, *STOPS, *RECOMPUTE}
    assert not held - set(fields(text_of(ROOT / "NOMENCLATURE.md")))


def test_the_changelog_has_its_headings() -> None:
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    headings = re.findall(r"^(#{2,3}) (.+)$", text_of(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)
    releases = [title for level, title in headings if level == "##"]
    assert releases[0].split()[0] == version
    assert [title for level, title in headings if level == "###"] == [*CHANGELOG_HEADINGS] * len(releases)


def test_the_makefile_has_its_verbs() -> None:
    targets = re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE)
    assert set(VERBS) <= set(targets)


def test_contributing_names_every_verb_and_floor() -> None:
    text = text_of(ROOT / "CONTRIBUTING.md")
    assert not [word for word in (*(f"make {v}" for v in VERBS), *(f"`{f}/`" for f in FLOORS)) if word not in text]


def test_the_licence_is_whole() -> None:
    licence = text_of(ROOT / "LICENSE")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["license"] == "Apache-2.0"
