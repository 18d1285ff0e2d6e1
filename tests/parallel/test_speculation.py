"""Drafts: how many tokens a step yields."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.io import read_model
from parallel.models import Mlp
from parallel.speculation import draft_model, drafts_of, drafts_yielding
from topo.errors import SpecError


@given(st.integers(1, 8), st.floats(0.0, 0.99))
@settings(max_examples=50, deadline=None)
def test_a_rate_yields_leviathans_mean(tokens: int, rate: float) -> None:
    assert drafts_of(tokens, rate).yielded == pytest.approx((1 - rate ** (tokens + 1)) / (1 - rate))


def test_drafts_that_never_hold_yield_the_models_own_token_and_sure_ones_all() -> None:
    assert drafts_of(4, 0.0).yielded == 1.0
    assert drafts_of(4, 1.0).yielded == 5.0


def test_the_mean_is_that_of_drafts_drawn_one_after_the_other() -> None:
    draw = np.random.default_rng(0).random((200_000, 3)) < 0.7
    held = np.cumprod(draw, axis=1).sum(axis=1) + 1.0
    assert drafts_of(3, 0.7).yielded == pytest.approx(held.mean(), rel=0.01)
    assert drafts_of(3, [float(share) for share in np.cumprod(draw, axis=1).mean(axis=0)]).yielded == pytest.approx(
        held.mean()
    )


@given(st.integers(1, 6), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_an_acceptance_length_gives_its_rate_back(tokens: int, rate: float) -> None:
    made = drafts_of(tokens, rate)
    assert drafts_yielding(tokens, made.yielded).holds == pytest.approx(made.holds, abs=1e-9)


def test_every_fault_of_drafts_is_told() -> None:
    with pytest.raises(SpecError) as error:
        drafts_of(2, [0.5, 0.9, 1.2], "model")
    assert [fault.field for fault in error.value.faults] == ["drafts.acceptance"] * 3 + ["drafts.model"]
    with pytest.raises(SpecError, match="no mean of 1 to 3"):
        drafts_yielding(2, 3.5)


def test_what_drafts_is_one_layer_or_a_model_of_its_own() -> None:
    deepseek, small = read_model("deepseek-v3"), read_model("llama-3.1-8b")
    layer = draft_model(deepseek, drafts_of(1, 0.8)).layers
    assert [kind.count for kind in layer] == [1]
    assert layer[0].mlp == deepseek.layers[-1].mlp
    assert isinstance(draft_model(deepseek, drafts_of(1, 0.8, "eagle")).layers[0].mlp, Mlp)
    assert draft_model(read_model("llama-3.1-70b"), drafts_of(1, 0.8, "model", small)) is small
