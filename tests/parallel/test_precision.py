"""Formats and recipes: widths by hand, and every name resolvable."""

from dataclasses import fields

import pytest

from clusters.kernels import kernel
from parallel.precision import FORMATS, RECIPES, Recipe, recipe, row_bytes
from topo.errors import SpecError

ROLES = [field.name for field in fields(Recipe) if field.name != "name"]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("role", ROLES)
def test_every_role_of_every_recipe_names_a_format(name: str, role: str) -> None:
    assert getattr(recipe(name), role) in FORMATS


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_go_by_their_own_name(name: str) -> None:
    assert recipe(name).name == name


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_kernels(name: str) -> None:
    assert kernel("h100-sxm", FORMATS[name].kernel).efficiency > 0


@pytest.mark.parametrize("name", RECIPES)
def test_head_and_combine_stay_in_bf16(name: str) -> None:
    assert recipe(name).head == recipe(name).combine == "bf16"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bf16", 2 * 7168), ("fp8", 7168), ("fp8-block", 7168 + 56 * 4), ("nvfp4", 7168 / 2 + 7168 / 16)],
)
def test_a_row_of_7168_values_takes_the_bytes_counted_by_hand(name: str, expected: float) -> None:
    assert row_bytes(7168, name) == expected


def test_widths_do_not_grow_from_format_to_format() -> None:
    widths = [FORMATS[name].bytes_per_value for name in ("bf16", "fp8", "nvfp4")]
    assert widths == sorted(widths, reverse=True)
    assert FORMATS["nvfp4"].title == "nvfp4 (0.5625 B)"


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="choose one of bf16, fp8, mxfp8, fp8-row, nvfp4"):
        recipe("fp16")
