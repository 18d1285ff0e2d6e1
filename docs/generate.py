"""Write what the pages take from code, data and commands: equations, catalogue, outputs, pictures.

    python docs/generate.py

Everything between a marker and its end is written; all else of a page is left alone (`pages.py` says what the markers are).
`tests/test_docs.py` holds the committed pages against what this makes.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import drawings
import formulas
import lists
import pages

ROOT: Final = pages.ROOT
DOCS: Final = ROOT / "docs"

PARTS: Final[Mapping[tuple[str, str], Callable[[], str]]] = {
    **{("equations.md", section): partial(formulas.equations, section) for section in formulas.PLACES},
    **{("equations.md", marker): partial(formulas.terms, marker) for marker in formulas.TERMS},
    ("equations.md", "algorithms"): formulas.algorithms,
    ("equations.md", "schedules"): formulas.schedules,
    ("catalogue.md", "accelerators"): lists.accelerators,
    ("catalogue.md", "systems"): lists.systems,
    ("catalogue.md", "models"): lists.models,
    ("catalogue.md", "fabrics"): lists.fabrics,
    ("catalogue.md", "memories"): lists.memories,
    ("catalogue.md", "economics"): lists.prices,
    ("../README.md", "accuracy"): lists.accuracy,
    ("guides/sweep-anything.md", "objectives"): lists.objectives,
    ("guides/split-my-model.md", "rules"): lists.rules,
}
"""Page and marker -> what makes that part of it."""


def frontier() -> str:
    """Return the frontier of the main question."""
    from parallel.compare import CompareRequest, compare

    return drawings.frontier_svg(compare(CompareRequest()))


PICTURES: Final[Mapping[str, Callable[[], str]]] = {"house.svg": drawings.house_svg, "frontier.svg": frontier}
"""Drawings that no command of a page makes."""


def renewed(page: Path, folder: pages.Folder) -> str:
    """Return a page of this folder as code, data and commands make it today."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(DOCS).as_posix() if page.is_relative_to(DOCS) else f"../{page.name}"
    for (file, marker), make in PARTS.items():
        if file == name and f"<!-- {marker} -->" in text:
            head, rest = text.split(f"<!-- {marker} -->\n")
            _, tail = rest.split(f"<!-- /{marker} -->")
            text = f"{head}<!-- {marker} -->\n{make()}<!-- /{marker} -->{tail}"
    return pages.filled(text, folder)


def made() -> list[Path]:
    """Return the pages that have generated parts: those of this folder, and the README."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def main() -> None:
    """Write every page and picture anew."""
    with tempfile.TemporaryDirectory() as path:
        folder = pages.Folder(Path(path))
        folder.prepare()
        for page in made():
            page.write_text(renewed(page, folder), encoding="utf-8")
            text = page.read_text(encoding="utf-8")
            pages.prepare(text, folder, {})
        for name, drawn in PICTURES.items():
            (DOCS / "pictures" / name).write_text(drawn(), encoding="utf-8")
        for picture in (folder.path / "docs" / "pictures").glob("*.svg"):
            shutil.copy(picture, DOCS / "pictures" / picture.name)


if __name__ == "__main__":
    main()
