"""Hops and link models refuse constants that mean nothing, all of them at once."""

import pytest

import collectives
from collectives.path import IDEAL, Hop, LinkModel, share_at
from topo.errors import SpecError


def test_every_wrong_constant_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        LinkModel(base_s=-1, step_s=float("nan"), efficiency=1.5, ramp_s=float("inf"))
    assert [fault.field.split(".")[1] for fault in caught.value.faults] == ["base_s", "step_s", "ramp_s", "efficiency"]
    with pytest.raises(SpecError) as caught:
        Hop(0.0, -1.0, IDEAL, plane="sideways", reduction_efficiency=0.0)
    fields = [fault.field for fault in caught.value.faults]
    assert fields == ["Hop.latency_s", "Hop.reduction_efficiency", "Hop.bandwidth_Bps", "Hop.plane"]


def test_every_wrong_share_is_named() -> None:
    rows = ((0.5, 0.5), (4.0, 0.25), (4.0, 1.0), (float("nan"), 1.5))
    with pytest.raises(SpecError) as caught:
        Hop(1e9, 0.0, IDEAL, in_network_reduction=True, shares=rows, exchange_shares=((2, 0.5), (4, 0.0)))
    assert [fault.field.removeprefix("Hop.") for fault in caught.value.faults] == [
        "shares[0].members",
        "shares[1].share",
        "shares[2].members",
        "shares[3].members",
        "shares[3].share",
        "exchange_shares[1].share",
        "in_network_reduction",
    ]


def test_an_exchange_has_no_more_than_a_ring() -> None:
    with pytest.raises(SpecError, match="more than `shares` gives 4 members"):
        Hop(1e9, 0.0, IDEAL, shares=((4, 0.5), (8, 1.0)), exchange_shares=((2, 0.5), (8, 0.75)))
    falling = Hop(1e9, 0.0, IDEAL, exchange_shares=((4, 0.75), (8, 0.5)))
    assert [share_at(falling.exchange_shares, members) for members in (1, 4, 5, 8, 99)] == [0.75, 0.75, 0.5, 0.5, 0.5]


def test_a_path_is_a_key() -> None:
    assert hash((Hop(1e9, 0, IDEAL),)) == hash((Hop(1e9, 0, IDEAL),))
    assert Hop(1e9, 0, IDEAL, shares=((2, 0.5), (4, 1.0))) != Hop(1e9, 0, IDEAL)


def test_every_public_name_of_the_package_resolves() -> None:
    assert all(getattr(collectives, name) is not None for name in collectives.__all__)
    with pytest.raises(AttributeError, match="no attribute 'all_shuffle'"):
        _ = collectives.all_shuffle
