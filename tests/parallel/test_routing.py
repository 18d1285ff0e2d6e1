"""The busiest rank under random routing: against draws, against hand values, and at its limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel.routing import busiest_hit, busiest_rows, largest, tiles
from parallel.shapes import Moe

SEED = 2026
DRAWS = 300

CASES = [
    (Moe(experts=256, topk=8, intermediate=1), 4, 8),
    (Moe(experts=256, topk=8, intermediate=1), 64, 4),
    (Moe(experts=512, topk=10, intermediate=1), 4, 4),
    (Moe(experts=128, topk=4, intermediate=1), 32, 16),
    (Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4), 4, 8),
    (Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4), 256, 16),
    (Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4), 128, 4),
]


def drawn(moe: Moe, tokens: int, ranks: int) -> tuple[float, float]:
    """Return the mean rows, and experts hit, of the busiest rank over draws of every token's experts."""
    rng = np.random.default_rng(SEED)
    rows, hit = [], []
    for _ in range(DRAWS):
        scores = rng.random((tokens, moe.experts))
        if moe.groups > 1:
            opened = rng.random((tokens, moe.groups)).argsort(axis=1)[:, : moe.topk_groups]
            mask = np.zeros((tokens, moe.groups), dtype=bool)
            np.put_along_axis(mask, opened, values=True, axis=1)
            scores = np.where(np.repeat(mask, moe.experts // moe.groups, axis=1), scores, -1.0)
        chosen = np.argpartition(-scores, moe.topk - 1, axis=1)[:, : moe.topk]
        counts = np.bincount(chosen.ravel(), minlength=moe.experts).reshape(ranks, -1)
        rows.append(counts.sum(axis=1).max())
        hit.append((counts > 0).sum(axis=1).max())
    return float(np.mean(rows)), float(np.mean(hit))


@pytest.mark.parametrize(("moe", "tokens", "ranks"), CASES)
def test_the_busiest_rank_is_that_of_a_draw_of_random_routings(moe: Moe, tokens: int, ranks: int) -> None:
    rows, hit = drawn(moe, tokens, ranks)
    assert float(busiest_rows(moe, tokens, ranks)) == pytest.approx(rows, rel=0.06)
    assert float(busiest_hit(moe, tokens, ranks)) == pytest.approx(hit, rel=0.06)


def test_the_largest_of_normal_variables_is_that_of_a_draw() -> None:
    draws = np.random.default_rng(SEED).standard_normal((20_000, 32)).max(axis=1).mean()
    assert float(largest(32)) == pytest.approx(draws, abs=0.02)


def test_one_rank_has_the_mean_and_nothing_more() -> None:
    moe = Moe(experts=64, topk=4, intermediate=1)
    assert busiest_rows(moe, [1, 7, 100], 1) == pytest.approx([4, 28, 400])
    assert busiest_hit(moe, [1, 1e6], 1) == pytest.approx([4, 64])


def test_many_tokens_even_the_ranks_out() -> None:
    moe = Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4)
    over = busiest_rows(moe, [1e2, 1e4, 1e6, 1e8], 32) * 32 / 8 / np.array([1e2, 1e4, 1e6, 1e8])
    assert np.all(np.diff(over) < 0)
    assert over[-1] == pytest.approx(1.0, abs=1e-3)


def test_expert_groups_make_the_busiest_rank_busier() -> None:
    free = Moe(experts=256, topk=8, intermediate=1)
    grouped = Moe(experts=256, topk=8, intermediate=1, groups=8, topk_groups=4)
    assert float(busiest_rows(grouped, 64, 8)) > float(busiest_rows(free, 64, 8))


@given(
    experts=st.sampled_from([8, 64, 128, 256, 384]),
    topk=st.integers(1, 8),
    ranks=st.sampled_from([1, 2, 4, 8, 16, 72]),
    tokens=st.integers(1, 100_000),
)
def test_the_busiest_rank_has_the_mean_at_least_and_no_more_experts_than_it_holds(
    experts: int, topk: int, ranks: int, tokens: int
) -> None:
    ranks = min(ranks, experts)
    moe = Moe(experts=experts, topk=topk, intermediate=1)
    local = np.ceil(experts / ranks)
    assert float(busiest_rows(moe, tokens, ranks)) >= tokens * topk / ranks - 1e-9
    assert 0 < float(busiest_hit(moe, tokens, ranks)) <= local
    assert float(busiest_hit(moe, tokens + 1, ranks)) >= float(busiest_hit(moe, tokens, ranks)) - 0.05 * local


@pytest.mark.parametrize(("rows", "tile"), [(8, 16), (14, 16), (30, 32), (64, 64), (100, 128), (140, 128), (512, 128)])
def test_tiles_of_a_random_count_are_those_of_poisson_draws(rows: int, tile: int) -> None:
    counts = np.random.default_rng(SEED).poisson(rows, 20_000)
    assert float(tiles(rows, tile)) == pytest.approx(np.ceil(np.maximum(counts, 1) / tile).mean(), rel=0.05)


@given(rows=st.floats(1, 1e6), tile=st.sampled_from([16.0, 64.0, 128.0]))
def test_tiles_cover_the_rows_and_waste_one_at_most(rows: float, tile: float) -> None:
    found = float(tiles(rows, tile))
    assert max(1.0, rows / tile) - 1e-9 <= found <= rows / tile + 1.0 + 1e-9
