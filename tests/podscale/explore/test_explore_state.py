from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel.compare import CompareRequest
from podscale.explore.state import BY_NAME, FIELDS, MOST_TEXT, PHASES, Design, State, parse, write
from topo.errors import SpecError

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def values(field):
    blank = getattr(Design(), field.name) in (None, "")
    if field.kind in ("name", "file"):
        return TEXT if blank else TEXT.filter(bool)
    number = st.integers(int(field.low), int(field.high)) if field.kind == "whole" else st.floats(field.low, field.high)
    return number | st.none() if blank else number


DESIGNS = st.builds(Design, **{field.name: values(field) for field in FIELDS})
STATES = st.builds(State, DESIGNS, DESIGNS, st.booleans(), st.sampled_from(PHASES), st.sampled_from("ab"))


@given(STATES)
@settings(max_examples=60, deadline=None)
def test_an_address_holds_the_whole_state(state):
    assert parse(write(state)) == state


@given(st.text(max_size=80) | st.text(alphabet="ab.=&%domaincpu0123456789", max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_address_is_a_state_or_a_fault(address):
    with suppress(SpecError):
        assert isinstance(parse(address), State)


def test_fields_are_those_of_a_design_and_defaults_those_of_compare():
    assert [field.name for field in FIELDS] == [field.name for field in fields(Design)]
    request, design = CompareRequest(), Design()
    for name in ("model", "precision", "isl", "osl", "tpot_ms", "ttft_ms", "sequence", "global_batch"):
        assert getattr(design, name) == getattr(request, name)
    assert design.cluster == request.accelerator


def test_design_b_is_a_with_what_differs():
    state = parse("nic=800&domain=8&b.domain=72&b.nic=&compare=1")
    assert (state.a.nic, state.a.domain) == (800.0, 8)
    assert (state.b.nic, state.b.domain) == (None, 72)
    assert state.designs.keys() == {"a", "b"}
    assert parse("domain=8").designs.keys() == {"a"}


def test_every_fault_of_an_address_comes_in_one_error():
    with pytest.raises(SpecError) as caught:
        parse("nic=fast&b.gpus=1.5&domain=0&domain=8&color=red&phase=later&tpot_ms=nan&model=&isl=1e99")
    found = {fault.field: fault.problem for fault in caught.value.faults}
    assert found == {
        "nic": "is no number", "b.gpus": "is no whole number", "domain": "stands there twice",
        "color": "is nothing that can be set", "phase": "is not known", "tpot_ms": "is out of bounds",
        "model": "is empty", "isl": "is out of bounds",
    }  # fmt: skip
    assert all(fault.remedy for fault in caught.value.faults)


def test_a_pasted_file_has_a_limit():
    assert parse(f"cluster_file={'x' * MOST_TEXT}").a.cluster_file
    with pytest.raises(SpecError, match="characters"):
        parse(f"cluster_file={'x' * (MOST_TEXT + 1)}")


def test_sliders_stop_inside_their_bounds_in_order():
    for field in BY_NAME.values():
        if field.notches:
            assert list(field.notches) == sorted(set(field.notches))
            assert field.low <= field.notches[0]
            assert field.notches[-1] <= field.high
