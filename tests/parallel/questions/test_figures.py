"""A figure is moved alone: the wiring of a cluster with another rate is the same wiring."""

import pytest

from clusters.build import bill, build
from clusters.spec import ClusterSpec, focus, load, parse, with_
from parallel.questions.figures import FIGURES, KINDS, figure, figures_of, moved, set_field
from topo.errors import SpecError

SPECS = {
    "switched": with_(load("gb200-nvl72"), accelerators=288),
    "two layers": with_(load("gb200-nvl72"), accelerators=1152, domain=576),
    "torus": parse({"accelerator": "tpu-v5p", "accelerators": 128, "domain": 64}),
    "mesh": parse({"accelerator": "mi300x", "accelerators": 32}),
    "sites": parse(
        {"accelerator": "h100", "accelerators": 64, "sites": {"count": 2, "km": 100, "bandwidth": "800Gb/s"}}
    ),
    "pool": focus(
        parse(
            {
                "pools": [
                    {"name": "old", "accelerator": "h100", "accelerators": 64},
                    {"name": "new", "accelerator": "gb200", "accelerators": 144},
                ]
            }
        ),
        "new",
    ),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def tiers(spec: ClusterSpec) -> list[tuple[str, int, float, float]]:
    return [(tier.plane, tier.size, tier.bandwidth_Bps, tier.latency_s) for tier in build(spec).tiers]


@every_spec
def test_a_figure_at_its_own_value_changes_nothing(spec: ClusterSpec) -> None:
    before = build(spec)
    for each in figures_of(spec).values():
        after = build(each.changed(spec, each.value(spec) or 0.0))
        for one, other in zip(tiers(after.spec), tiers(spec), strict=True):
            assert one[:2] == other[:2]
            assert one[2:] == pytest.approx(other[2:]), each.name
        assert after.accelerator.usable_bytes == pytest.approx(before.accelerator.usable_bytes), each.name
        assert after.accelerator.peak_flops == before.accelerator.peak_flops


@every_spec
def test_with_every_rate_doubled_and_every_time_halved_tiers_are_twice_as_good(spec: ClusterSpec) -> None:
    known = [each for each in figures_of(spec).values() if each.kind in ("rate", "time")]
    to = {each: (each.value(spec) or 0.0) * (2.0 if each.kind == "rate" else 0.5) for each in known}
    for before, after in zip(tiers(spec), tiers(moved(spec, to)), strict=True):
        assert before[:2] == after[:2]
        assert after[2] == pytest.approx(2.0 * before[2])
        assert after[3] == pytest.approx(0.5 * before[3])


@pytest.mark.parametrize("spec", [spec for spec in SPECS.values() if not spec.pools])
def test_rates_times_and_amounts_leave_the_parts_as_they_are(spec: ClusterSpec) -> None:
    def parts(of: ClusterSpec) -> list[tuple[str, float]]:
        return [(row["part"], row["count"]) for row in bill(build(of))["parts"]]

    for each in figures_of(spec).values():
        if each.kind in ("rate", "time", "amount"):
            assert parts(each.changed(spec, 1.25 * (each.value(spec) or 0.0))) == parts(spec), each.name


def test_capacity_is_what_programs_have() -> None:
    spec = load("hgx-h100")
    capacity = FIGURES["hbm_capacity"]
    more = build(capacity.changed(spec, 2.0 * (capacity.value(spec) or 0.0)))
    assert more.accelerator.usable_bytes == pytest.approx(2.0 * build(spec).accelerator.usable_bytes)


def test_a_field_of_a_pool_is_changed_in_that_pool() -> None:
    changed = set_field(SPECS["pool"], "domain", 36)
    assert (changed.focus, changed.domain) == ("new", 36)
    assert {pool.name: pool.domain for pool in changed.pools} == {"old": 8, "new": 36}


@every_spec
def test_better_is_better(spec: ClusterSpec) -> None:
    for each in figures_of(spec).values():
        worse, better = each.steps(spec, 1.25)
        now = each.value(spec) or 0.0
        less_is_faster = each.kind in ("time", "ratio")
        assert worse is None or (worse > now) == less_is_faster, each.name
        assert better is None or (better < now) == less_is_faster, each.name


def test_a_graph_of_another_tool_has_no_figures_of_its_links() -> None:
    assert all(each.kind in KINDS for each in FIGURES.values())
    alone = with_(load("hgx-h100"), accelerators=8)
    assert "nic_bandwidth" not in figures_of(alone)


def test_an_unknown_figure_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean hbm_bandwidth"):
        figure("hbm_bandwith")
