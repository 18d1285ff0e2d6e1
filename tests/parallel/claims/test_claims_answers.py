"""The full answers have the signs, bounds and limits that physics asks for, whatever the constants are."""

import numpy as np
import pytest

from parallel.claims import find, fleets, passes, racks, row_of, scaling
from parallel.claims.machines import active, decode_on, frontier, model_of, serve_work, spec_of
from topo.errors import SpecError


def answers(name: str, **given: object) -> dict[str, float]:
    """Return the full answers of a claim by case, those that there are."""
    row = row_of(find(name), given)
    return {case["case"]: case["full"] for case in row["cases"] if case["full"] is not None}


def test_no_pass_is_faster_than_its_two_terms() -> None:
    assert min(answers("pass-time").values()) >= 1.0


def test_no_token_comes_before_its_weights_are_read() -> None:
    claim = find("latency-floor")
    v = claim.values()
    least = claim.full(v)
    read = active(v) / (v["hbm_bandwidth"] * v["accelerators"])  # a byte for each parameter that one token uses
    assert least > read


def test_a_larger_batch_takes_longer_and_makes_more() -> None:
    v = find("pass-time").values()
    batches = np.array([72.0, 720.0, 7200.0])
    seconds = decode_on(v, batches).seconds
    assert np.all(np.diff(seconds) > 0)
    assert np.all(np.diff(batches / seconds) > 0)


def test_speed_has_a_price_that_grows() -> None:
    dear = [answers("fast-mode", tpot=tpot)[f"{tpot:g}"] for tpot in (0.1, 0.05, 0.03)]
    assert 1.0 <= dear[0] <= dear[1] <= dear[2]


def test_the_frontier_is_one() -> None:
    v = find("fast-mode").values()
    seconds, rates = frontier(model_of(v), spec_of(v), serve_work(v))
    assert np.all(np.diff(seconds) < 0)
    assert np.all(np.diff(rates) < 0)


def test_faster_memory_never_slows_a_fleet() -> None:
    v = find("fast-mode").values({"accelerator": "gb200"})
    faster = {**v, "hbm_bandwidth": 2.0 * v["hbm_bandwidth"]}
    assert passes.full_rate(faster, 0.05) >= passes.full_rate(v, 0.05)


def test_an_exchange_across_domains_is_slower_than_inside() -> None:
    assert min(answers("expert-rack").values()) > 1.0


def test_a_pipeline_divides_weights_and_neither_time_nor_cache() -> None:
    v = find("pipeline-time").values()
    assert racks.piped_ratio(v) >= 1.0 - 1e-9
    assert racks.piped_ratio(v, "kv cache") >= 1.0
    assert racks.piped_ratio(v, "weights") < 0.5


def test_a_bubble_shrinks_with_micro_batches() -> None:
    shares = list(answers("pipeline-bubble").values())
    assert shares == sorted(shares, reverse=True)
    assert 0.0 < shares[-1] < shares[0] < 1.0


def test_recomputing_costs_time_and_saves_memory() -> None:
    v = find("recompute-time").values()
    claims = (find("recompute-time"), find("reversible-memory"))
    slower, saved = (claim.full(v) for claim in claims)
    assert 1.0 < slower < 1.5
    assert saved > 1.0


def test_a_split_that_breaks_a_rule_is_refused() -> None:
    with pytest.raises(SpecError):
        row_of(find("pipeline-bubble"), {"ep": 7, "microbatches": 8})


def test_sparse_attention_is_cheaper_than_dense_and_dearer_than_short() -> None:
    dense, sparse = find("million-tokens"), find("sparse-million")
    assert 1.0 < sparse.full(sparse.values()) < dense.full(dense.values())


def test_a_step_to_the_new_generation_is_the_product_of_its_parts() -> None:
    v = find("generation-watts").values()
    steps = {step["step"]: step["factor"] for step in fleets.generation_steps(v)}
    product = np.prod([factor for name, factor in steps.items() if "apart" not in name])
    assert product == pytest.approx(fleets.generation(v))


def test_new_hardware_makes_more_of_a_joule() -> None:
    assert min(answers("generation-watts").values()) > 1.0


def test_more_of_a_resource_is_never_worth_less_than_nothing_much() -> None:
    rows = fleets.shadow_prices(find("rotating-bottleneck").values())
    assert {row["binds"] for row in rows} <= set(fleets.RESOURCES)
    assert min(row[name] for row in rows for name in fleets.RESOURCES) > -0.2


def test_distance_and_its_remedy() -> None:
    near = answers("wan-training")
    assert near["1"] >= near["4000"]
    local = answers("wan-local-steps")
    assert local["1"] <= local["10"] <= local["100"] <= 1.0 + 1e-9


def test_orbit_costs_inference_less_than_training() -> None:
    serve, train = answers("orbit-inference"), answers("orbit-training")
    assert serve["orbit-150kw"] > train["orbit-150kw"]


def test_a_waiting_agent_costs_more_the_longer_it_waits() -> None:
    gains = list(answers("agent-tools").values())
    assert gains == sorted(gains)
    assert gains[0] >= 1.0 - 1e-9


# --- scaling laws ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scaling.LAWS)
def test_tokens_for_a_loss_reach_it(name: str) -> None:
    fit = scaling.law(name)
    loss = float(fit.of(1e11, 1e13))
    assert float(fit.tokens_for(loss, 1e11)) == pytest.approx(1e13, rel=1e-6)


@pytest.mark.parametrize("name", scaling.LAWS)
def test_more_traffic_makes_the_cheapest_model_smaller(name: str) -> None:
    fit = scaling.law(name)
    loss = float(fit.of(1e11, 1e13))
    lives = [scaling.cheapest_life(fit, loss, served, 0.3, 6.0) for served in (0.0, 1e13, 1e15)]
    assert lives[0][0] > lives[1][0] > lives[2][0]
    assert lives[0][1] < lives[1][1] < lives[2][1]


def test_without_traffic_the_cheapest_life_is_chinchillas() -> None:
    fit = scaling.law("besiroglu-2024")
    loss = float(fit.of(7e10, 1.4e12))
    size, tokens = scaling.cheapest_life(fit, loss, 0.0, 1.0, 6.0)
    assert tokens / size == pytest.approx(scaling.chinchilla_ratio(fit, 6.0 * size * tokens), rel=0.01)


def test_a_model_too_small_never_gets_there() -> None:
    fit = scaling.law("hoffmann-2022")
    assert float(fit.tokens_for(1.7, 1e6)) == np.inf


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(SpecError, match="hoffmann-2022"):
        scaling.law("kaplan")
