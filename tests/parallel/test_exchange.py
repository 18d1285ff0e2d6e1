"""The expert exchange: analytic limits, the choice of kernels, and real links against ideal ones."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.build import Cluster, build
from clusters.spec import load, with_
from collectives.moe import expected_groups
from parallel.exchange import EXCHANGES, REAL, ExchangeRules, candidates, exchange_s, sm_share
from parallel.models import Moe
from parallel.placement import domain_size, members_of
from parallel.precision import recipe
from topo.columns import Column
from topo.errors import SpecError

DEEPSEEK = Moe(experts=256, topk=8, intermediate=2048, shared_intermediate=2048, groups=8, topk_groups=4)
quick = settings(max_examples=50, deadline=None)


@lru_cache
def cluster(system: str = "hgx-h100", accelerators: int = 320, domain: int = 8) -> Cluster:
    return build(with_(load(system), accelerators=accelerators, domain=domain))


def spread(built: Cluster, ep: int | list[int], used: int) -> Column:
    sizes = np.atleast_1d(np.asarray(ep, dtype=np.float64))
    return members_of(built, np.full(sizes.shape, float(used or domain_size(built))), sizes, 1.0)


def exchange(
    built: Cluster,
    ep: int | list[int],
    tokens: float = 128.0,
    *,
    name: str = "auto",
    phase: str = "decode",
    hidden: int = 7168,
    precision: str = "fp8",
    rules: ExchangeRules = REAL,
    moe: Moe = DEEPSEEK,
    used: int = 0,
) -> dict[str, Column]:
    return exchange_s(
        built, moe, hidden, tokens, spread(built, ep, used), recipe(precision), name=name, phase=phase, rules=rules
    )


def both(prices: dict[str, Column]) -> Column:
    return prices["dispatch"] + prices["combine"]


# --- limits on paper ----------------------------------------------------------------------------------------------

#: Zhao et al. 2505.09343 §2.3.2: 32 tokens, 8 routed experts and the shared one, 7000 values, 1 B out and 2 B back.
PAPER = ExchangeRules(extra_copies=1, locality=False, ideal=True, copies="expert", dispatch="fp8", combine="bf16")


@pytest.mark.parametrize(
    ("system", "accelerators", "domain", "ep", "bandwidth_Bps", "expected_us"),
    [("hgx-h100", 320, 8, 320, 50e9, 120.96), ("gb200-nvl72", 72, 72, 72, 900e9, 6.72)],
)
def test_limit_of_one_expert_per_device(
    system: str, accelerators: int, domain: int, ep: int, bandwidth_Bps: float, expected_us: float
) -> None:
    built = cluster(system, accelerators, domain)
    assert built.tiers[-1].bandwidth_Bps == bandwidth_Bps
    prices = exchange(built, ep, 32.0, hidden=7000, rules=PAPER, moe=Moe(experts=ep, topk=8, intermediate=2048))
    assert both(prices) == pytest.approx(expected_us * 1e-6)
    assert both(prices) == pytest.approx((1 + 2) * 32 * 9 * 7000 / bandwidth_Bps)
    assert prices["combine"] == pytest.approx(2 * prices["dispatch"])


@pytest.mark.parametrize(
    ("system", "accelerators", "domain", "precision", "name", "measured_s"),
    [
        ("hgx-h100", 64, 8, "fp8", "low-latency", 471.5e-6),  # DeepEP, FP8 dispatch
        ("gb200-nvl72", 72, 72, "bf16", "one-sided", 86.1e-6),  # NVIDIA/TensorRT-LLM, blog 18
    ],
)
def test_published_kernels_at_64_ranks_and_128_tokens(
    system: str, accelerators: int, domain: int, precision: str, name: str, measured_s: float
) -> None:
    prices = exchange(cluster(system, accelerators, domain), 64, name=name, precision=precision)
    assert both(prices) == pytest.approx(measured_s, rel=0.03)


#: deepseek-ai/DeepEP, docs/legacy.md: 128 tokens of 7,168 values, top 8, on H800 with one 400 Gb/s NIC each; no constant
#: was fitted to it. EP -> dispatch in FP8, combine in BF16.
WIDE = {32: (155e-6, 273e-6), 64: (173e-6, 314e-6), 128: (192e-6, 369e-6), 256: (194e-6, 360e-6)}


@pytest.mark.parametrize("ep", WIDE)
def test_low_latency_kernels_at_widths_that_nothing_was_fitted_to(ep: int) -> None:
    prices = exchange(cluster("deepseek-h800", 256), ep, name="low-latency")
    assert prices["dispatch"] == pytest.approx(WIDE[ep][0], rel=0.10)
    assert prices["combine"] == pytest.approx(WIDE[ep][1], rel=0.13)


@pytest.mark.parametrize(("ep", "dispatch_Bps", "combine_Bps"), [(32, 58e9, 57e9), (64, 51e9, 50e9)])
def test_normal_kernels_between_nodes_as_their_authors_measured(
    ep: int, dispatch_Bps: float, combine_Bps: float
) -> None:
    """deepseek-ai/DeepEP, docs/legacy.md: 4,096 tokens, four nodes at most; the bandwidth counts the own node's copy."""
    prices = exchange(cluster("deepseek-h800", 256), ep, 4096.0, name="normal", phase="train")
    rows = 4096 * min(float(expected_groups(256, ep / 8, 8)), 4.0)
    assert prices["dispatch"] == pytest.approx(rows * 7392 / dispatch_Bps, rel=0.2)
    assert prices["combine"] == pytest.approx(rows * 14336 / combine_Bps, rel=0.2)


# --- which kernels ------------------------------------------------------------------------------------------------


def chosen(prices: dict[str, Column], phase: str) -> list[str]:
    return [candidates("auto", phase)[int(index)] for index in prices["kernels"]]


def test_decode_takes_low_latency_kernels_across_domains_and_one_sided_ones_inside() -> None:
    racks = cluster("gb200-nvl72", 576, 72)
    assert chosen(exchange(racks, [8, 144, 576]), "decode") == ["one-sided"] + ["low-latency"] * 2
    assert chosen(exchange(racks, 64, used=64), "decode") == ["one-sided"]
    assert chosen(exchange(racks, 64, used=72), "decode") == ["low-latency"]  # laid end to end, some straddle two racks
    assert chosen(exchange(cluster(), [64, 320]), "decode") == ["low-latency"] * 2


def test_training_takes_one_copy_per_node_across_domains() -> None:
    assert chosen(exchange(cluster(), [64, 320], 4096.0, phase="train"), "train") == ["normal"] * 2


def test_a_domain_of_two_layers_is_one_domain() -> None:
    wide = cluster("gb200-nvl72", 1152, 576)
    assert len(wide.tiers) == 3
    assert np.isfinite(both(exchange(wide, [144, 576, 1152], name="one-sided"))).tolist() == [True, True, False]
    assert chosen(exchange(wide, 1152), "decode") == ["low-latency"]


@quick
@given(st.sampled_from([2, 8, 16, 64, 320]), st.floats(1, 1e5), st.sampled_from(["decode", "prefill", "train"]))
def test_auto_is_the_cheapest_of_its_candidates(ep: int, tokens: float, phase: str) -> None:
    auto = exchange(cluster(), ep, tokens, phase=phase)
    each = [
        float(both(exchange(cluster(), ep, tokens, phase=phase, name=name))[0]) for name in candidates("auto", phase)
    ]
    assert float(both(auto)[0]) == min(each)
    assert each[int(auto["kernels"][0])] == min(each)


def test_one_sided_kernels_cannot_leave_the_domain() -> None:
    prices = exchange(cluster(), [8, 16], name="one-sided")
    assert np.isfinite(both(prices)).tolist() == [True, False]


def test_kernels_of_rdma_alone_price_the_nic_even_inside_a_domain() -> None:
    ideal = ExchangeRules(ideal=True)
    inside = both(exchange(cluster(), 8, name="low-latency-rdma", rules=ideal))
    alone = both(exchange(cluster("hgx-h100", 512, 1), 8, name="low-latency-rdma", rules=ideal, used=1))
    assert inside == pytest.approx(alone)  # seven eighths of the rows over 50 GB/s, whatever NVLink there is
    assert inside > 5 * both(exchange(cluster(), 8, name="low-latency", rules=ideal))


def test_kernels_of_rdma_alone_need_a_network() -> None:
    assert np.isinf(both(exchange(cluster("gb200-nvl72", 72, 72), 64, name="low-latency-rdma", used=64)))


def test_unknown_kernels_are_refused_with_the_known_ones() -> None:
    with pytest.raises(SpecError, match="choose auto, low-latency, low-latency-rdma, normal, one-sided"):
        exchange(cluster(), 64, name="deepep")


def test_kernels_take_their_share_of_the_parts_own_multiprocessors() -> None:
    shares = {part: sm_share(EXCHANGES["normal"], part) for part in ("h100-sxm", "b200-sxm", "gb200", "h20")}
    assert shares == {"h100-sxm": 20 / 132, "b200-sxm": 20 / 148, "gb200": 20 / 152, "h20": 20 / 78}
    assert sm_share(EXCHANGES["low-latency"], "h100-sxm") is None
    assert sm_share(EXCHANGES["low-latency-rdma"], "h100-sxm") == 0


@pytest.mark.parametrize("name", EXCHANGES)
def test_named_kernels_are_the_only_candidate(name: str) -> None:
    assert candidates(name, "decode") == candidates(name, "prefill") == (name,)


# --- assumptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXCHANGES)
@pytest.mark.parametrize("locality", [True, False])
@quick
@given(ep=st.sampled_from([2, 8, 16, 64, 320]), tokens=st.floats(0.0, 1e5))
def test_real_links_are_never_cheaper_than_ideal_ones(name: str, locality: bool, ep: int, tokens: float) -> None:
    real, ideal = (
        exchange(cluster(), ep, tokens, name=name, rules=ExchangeRules(locality=locality, ideal=way))
        for way in (False, True)
    )
    for step in ("dispatch", "combine"):
        assert np.all(real[step] >= ideal[step])


def test_rules_override_what_the_kernels_copy() -> None:
    # Sent over the NICs of 8 nodes: 7 of 8 copies per expert (8) or rank, all but the own of 5.29 nodes, at most 4.
    row, remote = 7168 * 2 / 50e9 * 128, 7 / 8
    ideal = {
        copies: exchange(
            cluster("hgx-h100", 64), 64, name="normal", rules=ExchangeRules(ideal=True, copies=copies), precision="bf16"
        )["dispatch"][0]
        for copies in ("expert", "rank", "node")
    }
    assert ideal["expert"] == pytest.approx(8 * remote * row)
    assert ideal["node"] == pytest.approx(4 * remote * row)
    assert ideal["node"] < ideal["rank"] < ideal["expert"]


def test_routing_without_node_limit_reaches_the_expected_nodes() -> None:
    free = Moe(experts=256, topk=8, intermediate=2048)
    prices = exchange(
        cluster("hgx-h100", 64), 64, name="normal", rules=ExchangeRules(ideal=True), precision="bf16", moe=free
    )
    assert prices["dispatch"] == pytest.approx(5.295 * 7 / 8 * 128 * 14336 / 50e9, rel=1e-3)


def test_a_shared_expert_that_is_sent_costs_one_more_copy() -> None:
    plain, shared = (
        exchange(cluster(), 320, name="low-latency", rules=ExchangeRules(ideal=True, extra_copies=extra))
        for extra in (0, 1)
    )
    assert both(shared) == pytest.approx(both(plain) * 9 / 8)


def test_locality_keeps_the_share_of_the_own_domain() -> None:
    kept, sent = (
        exchange(cluster(), 320, name="low-latency", rules=ExchangeRules(ideal=True, locality=locality))
        for locality in (True, False)
    )
    assert both(kept) == pytest.approx(both(sent) * (1 - 8 / 320))


def test_formats_of_the_recipe_set_the_bytes_and_rules_override_them() -> None:
    ideal = ExchangeRules(ideal=True)
    prices = exchange(cluster(), 320, name="low-latency", rules=ideal)
    assert prices["combine"] / prices["dispatch"] == pytest.approx(14336 / 7392)  # BF16 over FP8 with 56 scales
    forced = exchange(cluster(), 320, name="low-latency", rules=ExchangeRules(ideal=True, dispatch="bf16"))
    assert forced["dispatch"] == pytest.approx(forced["combine"])


@quick
@given(st.lists(st.sampled_from([2, 8, 16, 40, 64, 320]), min_size=1, max_size=6), st.floats(1, 1e4))
def test_columns_equal_scalars(eps: list[int], tokens: float) -> None:
    together = exchange(cluster(), eps, tokens)
    for index, ep in enumerate(eps):
        alone = exchange(cluster(), ep, tokens)
        for key, value in together.items():
            assert value[index] == pytest.approx(alone[key][0], rel=1e-12)


@quick
@given(st.floats(0, 1e5), st.floats(0, 1e5), st.sampled_from(sorted(EXCHANGES)))
def test_more_tokens_never_take_less_time(a: float, b: float, name: str) -> None:
    few, many = (both(exchange(cluster(), 8, tokens, name=name))[0] for tokens in sorted((a, b)))
    assert few <= many
