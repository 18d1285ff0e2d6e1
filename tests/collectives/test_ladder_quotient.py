"""The quotient's price of shifts is that of the whole graph."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectives.ladder import Job, price
from collectives.ladder.quotient import SHIFTS, quotient_s
from collectives.schedule import schedule
from topo.blueprint import Blueprint
from topo.builders import ScaleOut, cluster_blueprint
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import flat


def fabric(domains: int, size: int, radix: int, oversubscription: float) -> Blueprint:
    out = ScaleOut(50e9, "ib", rails=1, radix=radix, oversubscription=oversubscription)
    return cluster_blueprint("two", domains, ScaleUp(size, 450e9, 1e-6, "nvlink"), out)


@settings(max_examples=25, deadline=None)
@given(
    domains=st.sampled_from([2, 4, 8, 16]),
    size=st.sampled_from([1, 2, 4]),
    radix=st.sampled_from([8, 16, 32]),
    oversubscription=st.sampled_from([1.0, 3.0]),
    plan=st.sampled_from(sorted(SHIFTS)),
)
def test_the_quotient_prices_shifts_as_the_graph_does(
    domains: int, size: int, radix: int, oversubscription: float, plan: tuple[str, str]
) -> None:
    try:
        bp = fabric(domains, size, radix, oversubscription)
    except SpecError:
        return
    w = flat(bp)
    whole = price(Job(schedule(*plan, domains * size, 1e9), w.accelerators), w).seconds
    assert quotient_s(*plan, 1e9, bp) == pytest.approx(whole, rel=1e-9)


def test_what_is_no_shift_is_refused() -> None:
    with pytest.raises(SpecError, match="are no shifts"):
        quotient_s("all_reduce", "tree", 1e9, fabric(2, 2, 8, 1.0))
