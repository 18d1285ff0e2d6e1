"""The pages are what code, data and commands make today; their commands and scripts run, their links lead somewhere.

To renew the pages: python docs/generate.py
"""

import doctest
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NUMBER = re.compile(r"[-+−]?\d[\d,]*\.?\d*")
FRAME = re.compile(r"[─…]+|[ \t]+")
REMEDY = "if the change is meant: python docs/generate.py"


def load(name: str) -> Any:
    """Import a module of the folder of pages, which is no package."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


pages, generate = load("pages"), load("generate")
EVERY = pages.pages()
RUN = [page for page in EVERY if page == ROOT / "README.md" or page.is_relative_to(DOCS) or "examples" in page.parts]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = pages.Folder(tmp_path_factory.mktemp("pages"))
    made.prepare()
    return made


def same(old: str, new: str) -> None:
    """Compare two texts: words alike, numbers to a fifth of a per cent, whatever the widths of columns."""
    plain = [FRAME.sub(" ", NUMBER.sub("#", text)).split() for text in (old, new)]
    assert plain[0] == plain[1], REMEDY
    for a, b in zip(NUMBER.findall(old), NUMBER.findall(new), strict=True):
        then, now = (float(x.replace(",", "").replace("−", "-").rstrip(".")) for x in (a, b))
        assert now == pytest.approx(then, rel=3e-3, abs=1e-9), REMEDY


@pytest.mark.parametrize("page", RUN, ids=title)
def test_a_page_runs_as_it_stands(page: Path, folder: Any) -> None:
    names: dict[str, Any] = {}
    for step in pages.steps(page.read_text(encoding="utf-8")):
        if step.kind == "command" and not pages.left_out(step.text):
            code, said = folder.run(step.text)
            assert code == step.code, f"{step.text}\n{said[-800:]}"
        else:
            pages.do(step, folder, names)


@pytest.mark.parametrize("page", generate.made(), ids=title)
def test_a_page_is_what_the_generator_makes(page: Path, folder: Any) -> None:
    same(page.read_text(encoding="utf-8"), generate.renewed(page, folder))


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("*.svg")), ids=lambda path: path.stem)
def test_a_picture_is_what_is_drawn_today(picture: Path, folder: Any) -> None:
    if picture.name in generate.PICTURES:
        drawn = generate.PICTURES[picture.name]()
    else:
        for page in DOCS.rglob("*.md"):
            if f"pictures/{picture.name}" in (text := page.read_text(encoding="utf-8")):
                pages.prepare(text, folder, {})
        drawn = (folder.path / "docs" / "pictures" / picture.name).read_text(encoding="utf-8")
    said = [" ".join(re.findall(r">([^<>]+)</text>", text)) for text in (picture.read_text(encoding="utf-8"), drawn)]
    same(*said)


def test_every_picture_is_shown() -> None:
    shown = " ".join(page.read_text(encoding="utf-8") for page in EVERY)
    assert not [path.name for path in (DOCS / "pictures").iterdir() if path.name not in shown]


@pytest.mark.parametrize("page", EVERY, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    assert not pages.broken_links(page)


def test_every_guide_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in (DOCS / "guides").glob("*.md") if f"guides/{path.name}" not in index]


def test_the_map_of_the_house_names_what_is_there() -> None:
    drawings = load("drawings")
    rooms = [ROOT / folder / name for folder, _, held in drawings.HOUSE for name, _, _ in held]
    assert not [path for path in rooms if not path.exists()]


def test_what_no_test_of_the_pages_runs_says_why() -> None:
    commands = [s.text for p in RUN for s in pages.steps(p.read_text(encoding="utf-8")) if s.kind == "command"]
    assert not [part for part in pages.LEFT_OUT if not any(part in command for command in commands)]


def test_files_that_the_architecture_names_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8") + (DOCS / "extending.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:topo|collectives|clusters|parallel|podscale|tests)/[\w./-]+?)`", text)
    assert len(named) > 40
    assert not [name for name in named if not (ROOT / name.rstrip("/")).exists()]


@pytest.mark.parametrize("name", ["pages", "formulas", "lists", "drawings"])
def test_examples_of_the_generator(name: str) -> None:
    assert doctest.testmod(load(name)).failed == 0
