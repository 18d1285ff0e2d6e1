"""Hops and link models refuse constants that mean nothing, all of them at once."""

import pytest

import collectives
from collectives.path import IDEAL, Hop, LinkModel
from topo.errors import SpecError


def test_every_wrong_constant_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        LinkModel(base_s=-1, step_s=float("nan"), efficiency=1.5, ramp_s=float("inf"))
    assert [fault.field.split(".")[1] for fault in caught.value.faults] == ["base_s", "step_s", "ramp_s", "efficiency"]
    with pytest.raises(SpecError) as caught:
        Hop(0.0, -1.0, IDEAL, plane="sideways", reduction_efficiency=0.0)
    fields = [fault.field for fault in caught.value.faults]
    assert fields == ["Hop.latency_s", "Hop.reduction_efficiency", "Hop.bandwidth_Bps", "Hop.plane"]


def test_a_path_is_a_key() -> None:
    assert hash((Hop(1e9, 0, IDEAL),)) == hash((Hop(1e9, 0, IDEAL),))


def test_every_public_name_of_the_package_resolves() -> None:
    assert all(getattr(collectives, name) is not None for name in collectives.__all__)
    with pytest.raises(AttributeError, match="no attribute 'all_shuffle'"):
        _ = collectives.all_shuffle
