"""Expert exchange: counted subsets, published kernels, limits."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.direct import mesh_shares
from collectives.moe import COPIES, expected_groups, moe_exchange
from collectives.moe_kernel import ExchangeModel, Kernel, at_work, busiest
from collectives.path import IDEAL, Hop, LinkModel
from topo.errors import SpecError

NODES = (Hop(200e9, 0.0, IDEAL), Hop(50e9, 0.0, IDEAL, "scale-out"))
each_rule = pytest.mark.parametrize("copies", COPIES)


# Distinct groups ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "expected"), [(8, 5.29), (16, 6.52), (32, 7.27)])
def test_published_expectations(groups: int, expected: float) -> None:
    assert expected_groups(256, groups, 8) == pytest.approx(expected, abs=0.005)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_expectation_equals_counted_subsets(groups: int, per_group: int, topk: int) -> None:
    experts = groups * per_group
    chosen = list(combinations(range(experts), min(topk, experts)))
    mean = np.mean([len({expert // per_group for expert in subset}) for subset in chosen])
    assert expected_groups(experts, groups, topk) == pytest.approx(mean, rel=1e-12)


def test_expectation_limits() -> None:
    assert expected_groups(256, 256, 8) == pytest.approx(8)  # one expert per group: every choice is another group
    assert expected_groups(256, 1, 8) == pytest.approx(1)
    assert expected_groups(8, 32, 4) == pytest.approx(4)  # more groups than experts: only 8 hold one
    assert expected_groups(4, 2, 9) == pytest.approx(2)
    assert expected_groups([256, 256], [8, 32], [8, 0]).tolist() == pytest.approx([5.295, 0], abs=1e-3)


# Published figures -------------------------------------------------------------------------------------------------


def test_infiniband_low_latency_kernels_at_64_ranks() -> None:
    # H100, 8 per NVLink domain, 400 Gb/s InfiniBand at 46.5 GB/s; base 27 us. 128 tokens, hidden 7168, top 8 of 256.
    path = (Hop(450e9, 0.0, LinkModel(12e-6, 0.0, 0.5)), Hop(50e9, 0.0, LinkModel(27e-6, 0.0, 0.93), "scale-out"))
    for row_bytes, measured_s in ((7168 + 224, 166.8e-6), (2 * 7168, 304.7e-6)):
        exchange = moe_exchange(128, row_bytes, 8, 256, [8, 64], path)
        assert exchange["total_s"] == pytest.approx(measured_s, rel=0.25)
        assert exchange["scale_out_s"] > 2 * exchange["scale_up_s"]


@pytest.mark.parametrize("copies", ["expert", "rank"])
def test_nvlink_one_sided_kernels_at_64_ranks(copies: str) -> None:
    # GB200, one domain of 72 at 900 GB/s, rows of 2 bytes per value: dispatch 41.6 us, combine 44.5 us.
    path = (Hop(900e9, 1e-6, LinkModel(20e-6, 0.0, 0.75)),)
    exchange = moe_exchange(128, 2 * 7168, 8, 256, [64], path, copies=copies)  # type: ignore[arg-type]
    assert exchange["total_s"] == pytest.approx(41.6e-6, rel=0.25)
    assert exchange["total_s"] == pytest.approx(44.5e-6, rel=0.25)
    assert exchange["scale_out_s"] == 0


def test_scale_up_is_several_times_faster_than_scale_out_at_64_ranks() -> None:
    up = moe_exchange(128, 14336, 8, 256, [64], (Hop(900e9, 1e-6, LinkModel(20e-6, 0.0, 0.75)),))
    out = moe_exchange(
        128, 14336, 8, 256, [8, 64], (Hop(450e9, 0, IDEAL), Hop(50e9, 0, LinkModel(27e-6, 0, 0.93), "scale-out"))
    )
    assert 4 < out["total_s"] / up["total_s"] < 9


def test_analytic_limit_of_one_expert_per_device() -> None:
    # Insights into DeepSeek-V3 (ISCA 2025) §2.3.2: (1 + 2) B × 32 tokens × 9 × 7000 / 50 GB/s = 120.96 us;
    # 900 GB/s of an NVL72 domain: 6.72 us.
    for path, members, expected_us in (
        ((Hop(50e9, 0.0, IDEAL, "scale-out"),), [320], 120.96),
        ((Hop(450e9, 0.0, IDEAL), Hop(50e9, 0.0, IDEAL, "scale-out")), [8, 320], 120.96),
        ((Hop(900e9, 0.0, IDEAL),), [72], 6.72),
    ):
        both = sum(
            float(moe_exchange(32, 7000 * width, 9, 320, members, path, local_share=0.0)["total_s"]) for width in (1, 2)
        )
        assert both * 1e6 == pytest.approx(expected_us, rel=1e-12)


# Bytes -------------------------------------------------------------------------------------------------------------


def test_hand_bytes_of_the_three_copy_rules() -> None:
    rows_s = 100 * 1000 / 50e9  # 100 tokens of 1000 bytes, one copy, over the NIC
    per_expert = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="expert")
    assert per_expert["scale_out_s"] == pytest.approx(8 * 7 / 8 * rows_s)
    assert per_expert["scale_up_s"] == pytest.approx(8 * 7 / 64 * rows_s / 4)
    per_rank = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="rank")
    assert per_rank["scale_out_s"] == pytest.approx(float(expected_groups(256, 64, 8)) * 7 / 8 * rows_s)
    per_node = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="node")
    assert per_node["scale_out_s"] == pytest.approx(float(expected_groups(256, 8, 8)) * 7 / 8 * rows_s)
    assert per_node["scale_up_s"] == pytest.approx(float(expected_groups(256, 64, 8)) * 7 / 8 * rows_s / 4)


def test_a_node_limit_caps_the_copies_between_nodes() -> None:
    limited = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="node", node_limit=4)
    assert limited["scale_out_s"] == pytest.approx(4 * 7 / 8 * 100 * 1000 / 50e9)
    assert limited["scale_out_s"] * 8 / 4 == pytest.approx(
        float(moe_exchange(100, 1000, 8, 256, [8, 64], NODES)["scale_out_s"])
    )
    loose = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="node", node_limit=8)
    free = moe_exchange(100, 1000, 8, 256, [8, 64], NODES, copies="node")
    assert {key: float(value) for key, value in loose.items()} == {key: float(value) for key, value in free.items()}


@each_rule
def test_a_group_on_a_mesh_has_the_links_between_its_members(copies: str) -> None:
    mesh = Hop(448e9, 0.0, IDEAL, shares=mesh_shares(8)[0])
    for ranks, links in ((2, 1), (4, 3), (8, 7)):
        links_alone = (Hop(links * 64e9, 0.0, IDEAL), NODES[1])
        expected = moe_exchange(100, 1000, 8, 256, [ranks, 8 * ranks], links_alone, copies=copies)  # type: ignore[arg-type]
        exchange = moe_exchange(100, 1000, 8, 256, [ranks, 8 * ranks], (mesh, NODES[1]), copies=copies)  # type: ignore[arg-type]
        assert exchange["scale_up_s"] == pytest.approx(float(expected["scale_up_s"]))
        assert exchange["scale_out_s"] == expected["scale_out_s"]


def test_an_exchange_takes_its_own_shares() -> None:
    ring = Hop(100e9, 0.0, IDEAL, shares=((8, 1.0),), exchange_shares=((8, 0.5),))
    exchange = moe_exchange(100, 1000, 8, 256, [8], (ring,))
    assert exchange["scale_up_s"] == pytest.approx(8 * 7 / 8 * 100 * 1000 / 50e9)


def test_a_group_that_straddles_domains_sends_as_its_worst_rank() -> None:
    straddling = moe_exchange(100, 1000, 8, 256, [8, 64], NODES)
    contained = moe_exchange(100, 1000, 8, 256, [64, 64], NODES)
    assert straddling["scale_out_s"] == pytest.approx(8 * (64 - 8) / 64 * 100 * 1000 / 50e9)
    assert contained["scale_out_s"] == 0
    assert contained["scale_up_s"] == pytest.approx(8 * 63 / 64 * 100 * 1000 / 200e9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=3), st.integers(1, 4))
def test_copies_per_rank_equal_counted_destinations(ratios: list[int], topk: int) -> None:
    blocks = np.cumprod(ratios).tolist()
    ranks, experts = blocks[-1], 2 * blocks[-1]
    speeds = (9.0, 5.0, 3.0)
    path = tuple(
        Hop(speed, 0.0, IDEAL, plane)
        for speed, plane in zip(speeds, ("scale-up", "scale-out", "scale-out"), strict=True)
    )
    copies = float(expected_groups(experts, ranks, topk))
    to = [0] * 3
    for rank in range(1, ranks):
        to[next(tier for tier, block in enumerate(blocks) if rank < block)] += 1
    beyond = [to[0], (to[1] + to[2]) * (to[1] > 0), to[2]]
    exchange = moe_exchange(1, 1, topk, experts, blocks, path, copies="rank")
    assert exchange["scale_up_s"] == pytest.approx(copies * to[0] / ranks / 9, rel=1e-12)
    assert exchange["scale_out_s"] == pytest.approx(
        max(copies * share / ranks / speed for share, speed in zip(beyond[1:], speeds[1:], strict=True)), rel=1e-12
    )


# Properties --------------------------------------------------------------------------------------------------------


@each_rule
@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.floats(0, 1e4), st.floats(0.0, 1.0) | st.none())
def test_planes_overlap_and_add_up(
    copies: str, inside: int, domains: int, topk: int, tokens: float, local_share: float | None
) -> None:
    path = (
        Hop(450e9, 1e-6, LinkModel(1e-5, 1e-6, 0.7, 1e-6)),
        Hop(50e9, 4e-6, LinkModel(2e-5, 0, 0.9, 0), "scale-out"),
    )
    exchange = moe_exchange(
        tokens,
        7168,
        topk,
        4 * inside * domains,
        [inside, inside * domains],
        path,
        copies=copies,  # type: ignore[arg-type]
        local_share="members" if local_share is None else local_share,
    )
    slower = np.maximum(exchange["scale_up_s"], exchange["scale_out_s"])
    assert exchange["total_s"] == pytest.approx(slower + exchange["latency_s"])
    assert all(seconds >= 0 for seconds in exchange.values())
    if inside * domains == 1:
        assert exchange["total_s"] == 0


@each_rule
def test_columns_equal_scalars(copies: str) -> None:
    generator = np.random.default_rng(5)
    path = (*NODES, Hop(25e9, 1e-6, LinkModel(1e-5, 1e-6, 0.8, 1e-6), "scale-out"))
    members = np.cumprod(generator.integers(1, 9, (3, 30)), axis=0)
    tokens, topk, limit = generator.integers(1, 500, 30), generator.integers(1, 9, 30), generator.integers(1, 5, 30)
    table = moe_exchange(tokens, 7168, topk, 512, members, path, copies=copies, node_limit=limit)  # type: ignore[arg-type]
    for row in range(30):
        one = moe_exchange(
            tokens[row],
            7168,
            topk[row],
            512,
            members[:, row],
            path,
            copies=copies,  # type: ignore[arg-type]
            node_limit=limit[row],
        )
        assert {key: float(value) for key, value in one.items()} == pytest.approx(
            {key: float(value[row]) for key, value in table.items()}, rel=1e-12
        )


@each_rule
def test_any_argument_may_be_the_column(copies: str) -> None:
    rule = {"copies": copies}
    two = [2, 4]
    assert moe_exchange(two, 7168, 8, 256, [8, 64], NODES, **rule)["total_s"].shape == (2,)  # type: ignore[arg-type]
    assert moe_exchange(9, two, 8, 256, [8, 64], NODES, **rule)["total_s"].shape == (2,)  # type: ignore[arg-type]
    assert moe_exchange(9, 7168, two, 256, [8, 64], NODES, **rule)["total_s"].shape == (2,)  # type: ignore[arg-type]
    assert moe_exchange(9, 7168, 8, [64, 256], [8, 64], NODES, **rule)["total_s"].shape == (2,)  # type: ignore[arg-type]
    members = [[8, 8], [64, 8]]
    assert moe_exchange(9, 7168, 8, 256, members, NODES, **rule)["total_s"].shape == (2,)  # type: ignore[arg-type]
    for extra in ({"node_limit": two}, {"local_share": [0.0, 0.5]}):
        assert moe_exchange(9, 7168, 8, 256, [8, 64], NODES, **rule, **extra)["total_s"].shape == (2,)  # type: ignore[arg-type]


# Kernels -----------------------------------------------------------------------------------------------------------


def kernel(**constants: float) -> ExchangeModel:
    return ExchangeModel(**{"base_s": 10e-6, "step_s": 0.0, "efficiency": 1.0, **constants})  # type: ignore[arg-type]


def total(model: LinkModel, tokens: float = 4096, members: int = 8, **given: object) -> float:
    exchange = moe_exchange(tokens, 7168, 8, 256, [members], (Hop(450e9, 0.0, model),), **given)  # type: ignore[arg-type]
    return float(exchange["total_s"])


def test_a_kernel_without_work_is_the_wire_to_the_busiest_rank() -> None:
    wire = 4096 * 8 * 7168 * 7 / 8 / 450e9
    assert total(kernel()) == pytest.approx(10e-6 + wire * float(busiest(4096 * 8, 1.0, 8)))
    assert total(LinkModel(10e-6, 0.0, 1.0)) == pytest.approx(10e-6 + wire)


def test_multiprocessors_work_beside_the_wire_or_in_turn() -> None:
    model, wire = kernel(token_s=1e-6, byte_s=1e-11), 4096 * 8 * 7168 * 7 / 8 / 450e9
    for busy in (1, 4, 20):
        work = 4096 / busy * (1e-6 + 8 * 7168 * 1e-11)
        assert total(model, workers=busy) == pytest.approx(10e-6 + max(wire, work))
        assert total(model, workers=busy, in_turn=True) == pytest.approx(10e-6 + wire + work)


def test_counters_rows_peers_and_host_add_their_latency() -> None:
    assert total(kernel(expert_s=1e-8), 0) == pytest.approx(10e-6 + 256 * 7 / 8 * 1e-8)
    assert total(kernel(row_byte_s=1e-9), 0) == pytest.approx(10e-6 + 7168e-9)
    assert total(kernel(peers_s=8e-6), 0) == pytest.approx(10e-6 + 7e-6)
    assert total(kernel(host_s=1.0)) == 1.0
    assert total(kernel(host_s=1.0, token_s=1.0, expert_s=1.0, row_byte_s=1.0, peers_s=1.0), members=1) == 0


def test_the_outermost_link_says_which_kernel_runs() -> None:
    path = (
        Hop(450e9, 0.0, kernel(base_s=30e-6, expert_s=1e-6)),
        Hop(50e9, 0.0, kernel(base_s=20e-6, expert_s=1e-8), "scale-out"),
    )
    inside, across = moe_exchange(0, 7168, 8, 256, [[8, 8], [8, 64]], path)["total_s"]
    assert inside == pytest.approx(30e-6 + 256 * 7 / 8 * 1e-6)
    assert across == pytest.approx(20e-6 + 256 * 56 / 64 * 1e-8)


@pytest.mark.parametrize(("ranks", "tokens", "topk"), [(64, 128, 8), (64, 16, 8), (16, 32, 4), (128, 24, 8)])
def test_the_busiest_rank_as_drawn(ranks: int, tokens: int, topk: int) -> None:
    """Experts drawn without a preference, one per rank: rows of the busiest rank over the mean, 40 draws."""
    generator = np.random.default_rng(7)
    drawn = [
        np.bincount(
            np.argpartition(generator.random((tokens * ranks, ranks)), topk, axis=1)[:, :topk].ravel(), minlength=ranks
        ).max()
        for _ in range(40)
    ]
    expected = np.mean(drawn) / (tokens * topk) - 1
    assert float(busiest(tokens * topk, topk / ranks, ranks)) - 1 == pytest.approx(expected, rel=0.15)


def test_no_rank_is_busier_where_every_token_goes_everywhere() -> None:
    assert busiest(100, [1.0, 2.0], 8).tolist() == [1, 1]


def test_a_group_of_warps_for_each_expert_fills_part_of_the_multiprocessors() -> None:
    warps = Kernel("expert", per_expert=True)
    assert at_work(warps, [8, 132, 133, 384], 132).tolist() == [8, 132, 66.5, 128]
    assert at_work(Kernel("node"), 8, 20) == 20


def test_wrong_constants_of_a_kernel_are_all_named() -> None:
    with pytest.raises(SpecError) as caught:
        kernel(expert_s=-1.0, token_s=float("nan"), host_s=float("inf"))
    assert [fault.field.split(".")[1] for fault in caught.value.faults] == ["expert_s", "token_s", "host_s"]


def test_wrong_rules_name_the_remedy() -> None:
    with pytest.raises(SpecError, match="write one of expert, rank, node"):
        moe_exchange(1, 1, 1, 1, [1, 1], NODES, copies="twice")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="'members' or a number"):
        moe_exchange(1, 1, 1, 1, [1, 1], NODES, local_share="none")
    with pytest.raises(SpecError, match=r"1\.5"):
        moe_exchange(1, 1, 1, 1, [1, 1], NODES, local_share=[0.5, 1.5])
