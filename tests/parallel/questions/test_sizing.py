"""Sizes against brute force over every number of domains, budgets against the bill, infeasible wishes by how much."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from clusters.build import bill, build
from clusters.spec import with_
from parallel.explain.point import Point
from parallel.questions import sizing
from parallel.questions.outcome import Outcome, best_of
from parallel.questions.sizing import Wish, size
from topo.errors import InfeasibleError, SpecError


@pytest.fixture(params=["train", "decode"])
def asked(request: pytest.FixtureRequest, point: Callable[..., Point]) -> Point:
    return point(request.param, "llama-3.1-8b", "hgx-h100", 32)


def rates(asked: Point, most: int) -> dict[int, float]:
    found = {8 * n: best_of(asked, with_(asked.cluster, accelerators=8 * n)) for n in range(1, most + 1)}
    return {many: one.tokens_per_s if one.feasible else 0.0 for many, one in found.items()}


@pytest.mark.parametrize("share", [0.3, 0.55, 0.99])
def test_the_smallest_cluster_is_that_of_brute_force(asked: Point, share: float) -> None:
    known = rates(asked, 9)
    needed = share * max(known.values())
    document = size(asked, Wish(tokens_per_s=needed, most=72))
    assert document["accelerators"] == min(many for many, rate in known.items() if rate >= needed)
    assert document["tokens_per_s"] == pytest.approx(known[document["accelerators"]])
    assert Point.from_dict(document["point"]).cluster.accelerators == document["accelerators"]
    assert document["binding"].startswith(("throughput", "one domain"))


def test_tokens_and_days_are_a_rate(point: Callable[..., Point]) -> None:
    asked = point("train", "llama-3.1-8b")
    rate = best_of(asked, asked.cluster).tokens_per_s
    document = size(asked, Wish(tokens=rate * 86400 * 30, days=30, most=64))
    assert document["accelerators"] <= 32
    assert document["days"] == pytest.approx(rate * 30 / document["tokens_per_s"])


def test_a_budget_buys_what_its_bill_allows(point: Callable[..., Point]) -> None:
    asked = point("decode", "llama-3.1-8b")
    document = size(asked, Wish(power_W=40e3))
    many = document["accelerators"]
    assert document["power_W"] == bill(build(with_(asked.cluster, accelerators=many)))["power_W"] <= 40e3
    assert bill(build(with_(asked.cluster, accelerators=many + 8)))["power_W"] > 40e3
    assert document["binding"].startswith(f"watts: {many + 8} accelerators take")
    assert document["unknown"]["price_usd"]


def test_a_smaller_size_that_does_is_found_where_throughput_is_not_monotone(
    monkeypatch: pytest.MonkeyPatch, point: Callable[..., Point]
) -> None:
    """Even numbers of domains are fast, odd ones slow: bisection alone would miss the smallest."""

    def odd_is_slow(asked: Point, spec: object) -> Outcome:
        domains = spec.accelerators // 8  # type: ignore[attr-defined]
        return Outcome(tokens_per_s=float(domains if domains % 2 == 0 else domains / 2), accelerators=8 * domains)

    monkeypatch.setattr(sizing, "best_of", odd_is_slow)
    document = size(point("decode", "llama-3.1-8b"), Wish(tokens_per_s=9.5, most=512))
    assert document["domains"] == 10
    assert document["monotone"] is False


def test_budgets_that_buy_more_than_there_is_work_for_say_so(point: Callable[..., Point]) -> None:
    asked = point("train", "llama-3.1-8b")
    asked = replace(asked, train=replace(asked.train, global_batch=8))
    document = size(asked, Wish(price_usd=5e6, most=512))
    known = rates(asked, 20)
    assert document["tokens_per_s"] >= 0.999 * max(known.values())
    assert document["accelerators"] < max(known)
    assert document["binding"].startswith("work: ")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(tokens_per_s=1e9, most=64), "of what is needed"),
        (Wish(tokens_per_s=1e4, power_W=1e3), "watts: 8 accelerators take"),
        (Wish(price_usd=1e3), "one domain breaks it; dollars: 8 accelerators take"),
    ],
)
def test_an_infeasible_wish_says_by_how_much(wish: Wish, said: str, point: Callable[..., Point]) -> None:
    with pytest.raises(InfeasibleError, match=said):
        size(point("decode", "llama-3.1-8b"), wish)


def test_a_limit_that_no_size_keeps_is_named(point: Callable[..., Point]) -> None:
    asked = point("decode", "llama-3.1-8b")
    asked = replace(asked, serve=replace(asked.serve, tpot_s=1e-5))
    with pytest.raises(InfeasibleError, match="TPOT limit: takes"):
        size(asked, Wish(tokens_per_s=1.0, most=64))


def test_what_is_no_question_is_refused_with_every_fault() -> None:
    with pytest.raises(SpecError, match="nothing is asked for"):
        Wish()
    with pytest.raises(SpecError) as error:
        Wish(tokens_per_s=-1.0, tokens=1e12, most=0)
    assert [fault.field for fault in error.value.faults] == ["tokens_per_s", "most", "days", "tokens_per_s"]
