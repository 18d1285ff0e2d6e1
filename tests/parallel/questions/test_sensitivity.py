"""Elasticities against what they have to be: shares of a known sum, the account of the whole model, limits and kinks."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters import kernels
from clusters.spec import ClusterSpec, load, with_
from parallel import roofline
from parallel.explain.point import Point
from parallel.questions.figures import FIGURES, Figure, figures_of, moved
from parallel.questions.outcome import Outcome, held, searched
from parallel.questions.sensitivity import account, sensitivity, slope
from topo.errors import InfeasibleError, SpecError

BOX = with_(load("hgx-h100"), accelerators=64)
MOVED = ("peak_bf16", "hbm_bandwidth", "nic_bandwidth", "scale_up_latency")
weights = st.lists(st.floats(0.01, 10.0), min_size=5, max_size=5)
every_phase = pytest.mark.parametrize("phase", ["train", "prefill", "decode"])


def near(each: Figure, spec: ClusterSpec, step: float = 1e-3) -> tuple[float | None, float | None]:
    return each.steps(spec, math.exp(step))


@settings(max_examples=30, deadline=None)
@given(weights)
def test_elasticities_of_a_sum_are_its_shares_and_the_account_closes(parts: list[float]) -> None:
    """T = Σ wᵢ·r₀/r + w·t/t₀ + fixed."""
    *scaled, fixed = parts

    def price(spec: ClusterSpec) -> Outcome:
        ratios = [(FIGURES[name].value(spec) or 0.0) / (FIGURES[name].value(BOX) or 1.0) for name in MOVED]
        return Outcome(
            1.0 / (sum(w / r for w, r in zip(scaled[:3], ratios[:3], strict=True)) + scaled[3] * ratios[3] + fixed)
        )

    base = price(BOX)
    rows = []
    for name, share in zip(MOVED, scaled, strict=True):
        each = FIGURES[name]
        found = slope(each, BOX, base, near(each, BOX), price).value
        assert found is not None
        assert found == pytest.approx(share / sum(parts) * (-1 if each.kind == "time" else 1), abs=1e-6)
        rows.append({"figure": name, "kind": each.kind, "held": found})
    assert account(rows)["fixed"] == pytest.approx(fixed / sum(parts), abs=1e-6)
    assert account(rows)["sum"] == pytest.approx(1.0)


@every_phase
def test_the_account_of_the_whole_model_agrees_with_moving_everything_at_once(
    phase: str, point: Callable[..., Point]
) -> None:
    """Fixed time is what does not shrink when every rate grows and every time shrinks by the same factor."""
    asked = point(phase)
    document = sensitivity(asked, search=False)
    step = 1e-3
    rates = [each for each in figures_of(asked.cluster).values() if each.kind in ("rate", "time")]

    def at(sign: int) -> float:
        way = {
            each: (each.value(asked.cluster) or 0.0) * math.exp(sign * step * (1 if each.kind == "rate" else -1))
            for each in rates
        }
        return math.log(held(asked, moved(asked.cluster, way)).tokens_per_s)

    together = (at(1) - at(-1)) / (2 * step)
    assert document["account"]["fixed"] == pytest.approx(1.0 - together, abs=1e-5)
    assert 0.0 < document["account"]["fixed"] < 0.6
    assert document["account"]["sum"] == pytest.approx(1.0)


@contextmanager
def without_fixed_times(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels that start at once and reach their memory bandwidth at any size."""

    def kernel(*names: str) -> kernels.KernelModel:
        return replace(kernels.kernel(*names), launch_s=0.0, hbm_ramp_s=0.0)

    roofline._kernels.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(roofline, "kernel", kernel)
        yield
    roofline._kernels.cache_clear()


def test_without_fixed_times_the_shares_of_one_accelerator_add_up_to_one(
    monkeypatch: pytest.MonkeyPatch, point: Callable[..., Point]
) -> None:
    asked = replace(point("prefill", "llama-3.1-8b", "hgx-h100", 8), strategy={
        "used": 8.0, "tp": 1.0, "ep": 1.0, "pp": 1.0, "microbatches": 1.0, "batch": 1.0,
    })  # fmt: skip
    with without_fixed_times(monkeypatch):
        shares = sensitivity(asked, search=False)["account"]["shares"]
        assert set(shares) == {"peak_bf16", "hbm_bandwidth"}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
        fast = FIGURES["hbm_bandwidth"].changed(asked.cluster, 1e18)
        alone = sensitivity(replace(asked, cluster=fast), search=False)["account"]["shares"]
        assert alone["peak_bf16"] == pytest.approx(1.0, abs=1e-4)


def test_a_kink_is_said_with_both_sides() -> None:
    """T = max(compute, memory), both equal: more of one alone gives nothing, less of it costs in full."""

    def price(spec: ClusterSpec) -> Outcome:
        parts = [(FIGURES[name].value(BOX) or 0.0) / (FIGURES[name].value(spec) or 1.0) for name in MOVED[:2]]
        return Outcome(1.0 / max(parts))

    each = FIGURES["hbm_bandwidth"]
    found = slope(each, BOX, price(BOX), near(each, BOX), price)
    assert (found.worse, found.better, found.value) == pytest.approx((1.0, 0.0, 0.5), abs=1e-6)
    assert "a kink: +1.00 to the worse, +0.00 to the better" in found.note


def test_a_step_that_breaks_a_limit_says_which(point: Callable[..., Point]) -> None:
    asked = point("decode")
    tight = replace(asked, serve=replace(asked.serve, tpot_s=held(asked).seconds * 1.0001))
    rows = {row["figure"]: row for row in sensitivity(tight, search=False)["rows"]}
    assert any(note.startswith("worse: TPOT limit: takes") for note in rows["hbm_bandwidth"]["notes"])
    assert rows["hbm_capacity"]["held"] == 0.0


def test_no_oversubscription_cannot_be_better(point: Callable[..., Point]) -> None:
    row = next(row for row in sensitivity(point("train"), search=False)["rows"] if row["figure"] == "oversubscription")
    assert (row["gain"], row["better"], row["held_better"]) == (None, None, None)
    assert row["held_worse"] <= 0.0
    assert row["notes"] == ["cannot be better"]


@every_phase
def test_searching_anew_never_loses_to_the_split_held(phase: str, point: Callable[..., Point]) -> None:
    asked = point(phase)
    for name in ("hbm_bandwidth", "nic_bandwidth", "peak_bf16"):
        each = FIGURES[name]
        for value in each.steps(asked.cluster, 1.25):
            spec = each.changed(asked.cluster, value or 0.0)
            stays, anew = held(asked, spec), searched(asked, spec)
            assert anew.feasible
            assert not stays.feasible or anew.tokens_per_s >= stays.tokens_per_s


def test_the_document_holds_what_is_needed_to_buy(point: Callable[..., Point]) -> None:
    ticks: list[tuple[int, int]] = []
    document = sensitivity(point("decode"), progress=lambda done, total: ticks.append((done, total)))
    rows = {row["figure"]: row for row in document["rows"]}
    gains = [row["gain"] or 0.0 for row in document["rows"]]
    assert gains == sorted(gains, reverse=True)
    assert ticks[-1] == (len(rows), len(rows))
    more = rows["accelerators"]
    assert more["price_usd"] >= 8 * 30000
    assert more["gain_tokens_per_s_per_usd"] == pytest.approx(
        more["gain"] * document["searched"]["tokens_per_s_per_gpu"] * 32 / more["price_usd"]
    )
    assert rows["hbm_capacity"]["price_usd"] > 0
    assert "by the gigabyte" in rows["hbm_capacity"]["price_said"]
    best = max((row for row in rows.values() if row["kind"] == "rate"), key=lambda row: row["gain"])
    assert f"Buy next: 25% more {best['title']}" in document["answer"]
    assert Point.from_dict(document["point"]) == point("decode")


def test_a_split_that_cannot_run_is_infeasible_and_a_wild_step_refused(point: Callable[..., Point]) -> None:
    with pytest.raises(InfeasibleError, match="tp divides the attention heads"):
        sensitivity(point("decode").split(tp=5.0))
    with pytest.raises(SpecError) as error:
        sensitivity(point("decode"), step=2.0, factor=0.5)
    assert [fault.field for fault in error.value.faults] == ["step", "factor"]
