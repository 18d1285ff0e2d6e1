"""The walk-through of the blackboard: every claim is in it, its numbers come from the claims, and it is what is committed."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from parallel.claims import CLAIMS

FOLDER = Path(__file__).parents[1] / "examples" / "blackboard"
STORY = (FOLDER / "story.md").read_text(encoding="utf-8")
FIGURES = re.findall(r"^::figure (\S+)$", STORY, flags=re.M)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
NAMES = re.compile(r"\b(GB200|H100|H800|DeepSeek-V3|FP8|Llama 70B)\b")
"""Names that have digits in them."""


@pytest.fixture(scope="module")
def walk() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("walkthrough", FOLDER / "walkthrough.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(folder: Path, kind: str) -> dict[str, str]:
    """Texts of the files of a kind."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob(f"*.{kind}") if path.name != "story.md"}


def test_the_page_and_its_figures_are_what_the_script_makes(walk: ModuleType, tmp_path: Path) -> None:
    walk.main(tmp_path)
    remedy = "if the change is meant: python examples/blackboard/walkthrough.py"
    assert read(tmp_path, "md") == read(FOLDER, "md"), remedy
    made, kept = read(tmp_path, "svg"), read(FOLDER, "svg")
    assert made.keys() == kept.keys() == {f"{name}.svg" for name in FIGURES}
    for name, text in made.items():
        assert NUMBER.sub("", text) == NUMBER.sub("", kept[name]), remedy
        places = [[float(number) for number in NUMBER.findall(one)] for one in (text, kept[name])]
        assert places[0] == pytest.approx(places[1], abs=0.2), remedy  # a tenth of a pixel may round either way


def test_no_number_of_the_story_is_typed() -> None:
    bare = re.sub(r"```.*?```|`[^`]*`|\{[^}]*\}|^::.*$", "", STORY, flags=re.S | re.M)
    typed = [line for line in NAMES.sub("", bare).splitlines() if re.search(r"\d", line)]
    assert not typed


def test_every_claim_is_told_once() -> None:
    told = [name for line in re.findall(r"^::claims (.*)$", STORY, flags=re.M) for name in line.split()]
    assert sorted(told) == sorted(CLAIMS)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_drawing_that_follows_light_and_dark(name: str) -> None:
    text = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(text)  # noqa: S314  (our own text)
    assert "prefers-color-scheme:dark" in text


def test_a_placeholder_that_names_nothing_is_an_error(walk: ModuleType) -> None:
    with pytest.raises(KeyError):
        walk.page("{no-such-claim full}")
    with pytest.raises(KeyError):
        walk.page("::nothing")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{train-interval expected}", "20 ms"),
        ("{train-interval simple @mi325x}", "42.7 ms"),
        ("{optimal-batch simple active_experts=8}", "9,600 sequences"),
        ("{leaked-cache in:active_parameters}", "100 billion"),
        ("{pipeline-weights expected%}", "25%"),
        ("{trains-per-second simple#}", "50"),
    ],
)
def test_a_placeholder_is_read(walk: ModuleType, written: str, said: str) -> None:
    assert walk.page(written) == said
