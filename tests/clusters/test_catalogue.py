"""The catalogue: every figure has a unit and a known source, and names forgive what does not matter."""

import pickle
import time

import pytest

from clusters import catalogue
from clusters.units import UNITS
from topo.errors import SpecError

WORDS = {"year", "links", "accelerators", "switches", "rails", "ports"}
TIERS = {"vendor", "code", "paper", "curated", "measured", "press", "estimate", "recalled"}


def _figures():
    parts = [
        *map(catalogue.accelerator, catalogue.names()),
        *map(catalogue.link, catalogue.links()),
        *map(catalogue.nic, catalogue.nics()),
        *map(catalogue.switch, catalogue.switches()),
    ]
    return [(part.name, key, figure) for part in parts for key, figure in part.figures.items()]


@pytest.mark.parametrize(("part", "key", "figure"), _figures())
def test_every_figure_has_a_unit_a_known_source_a_tier_and_a_date(part, key, figure):
    source = catalogue.sources()[figure.source]
    assert figure.unit in WORDS or any(figure.unit in units for units in UNITS.values())
    assert (figure.tier, figure.date) == (source.tier, source.date)
    assert figure.tier in TIERS
    assert len(figure.date) == 7
    assert figure.si > 0
    assert figure.range is None or figure.range[0] <= figure.value <= figure.range[1]
    assert figure.verified == (figure.source != "recalled")


def test_every_source_is_used_or_mentioned_and_has_an_address():
    figures = [figure for _, _, figure in _figures()]
    said = " ".join(figure.note for figure in figures)
    for key, source in catalogue.sources().items():
        assert any(figure.source == key for figure in figures) or key in said
        assert source.title
        assert source.url or key == "recalled"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("h100", "h100-sxm"),
        ("H100_SXM", "h100-sxm"),
        (" gb200 ", "gb200"),
        ("A100", "a100-sxm-80"),
        ("B300", "b300-sxm"),
    ],
)
def test_case_underscores_and_aliases_do_not_matter(written, name):
    assert catalogue.accelerator(written).name == name


@pytest.mark.parametrize(
    ("find", "wrong", "right"),
    [
        (catalogue.accelerator, "gb20", "gb200"),
        (catalogue.nic, "conectx7", "connectx-7"),
        (catalogue.switch, "quantum2", "quantum-2"),
        (catalogue.link, "nvlnk5", "nvlink5"),
    ],
)
def test_a_misspelt_part_gets_the_nearest(find, wrong, right):
    with pytest.raises(SpecError, match=f"did you mean {right}"):
        find(wrong)


def test_figures_are_si_one_way_dense_and_per_package():
    gb200, h100, a100 = map(catalogue.accelerator, ("gb200", "h100", "a100"))
    assert (gb200.scale_up_Bps, gb200.hbm_Bps, gb200.domain, gb200.scale_up_links) == (900e9, 8e12, 72, 18)
    assert (h100.scale_up_Bps, h100.peak_flops["bf16"], h100.hbm_bytes) == (450e9, 989e12, 80e9)
    assert "fp8" not in a100.peak_flops
    assert catalogue.accelerator("h800").scale_up_Bps == 200e9


@pytest.mark.parametrize("name", catalogue.names())
def test_an_accelerators_links_make_its_bandwidth_and_reach_its_switches(name):
    part = catalogue.accelerator(name)
    chip = catalogue.switch(catalogue.link(part.link).switch)
    assert part.scale_up_links * chip.rate_Bps == pytest.approx(part.scale_up_Bps)
    assert part.domain * part.scale_up_links <= part.switches * chip.ports
    assert catalogue.nic(part.nic).rate_Bps < part.scale_up_Bps


def test_an_accelerator_cannot_change_and_survives_a_process_border():
    part = catalogue.accelerator("gb300")
    assert pickle.loads(pickle.dumps(part)) == part  # noqa: S301
    assert hash(part) == hash(pickle.loads(pickle.dumps(part)))  # noqa: S301
    with pytest.raises(TypeError):
        part.peak_flops["bf16"] = 1.0


def test_an_override_replaces_one_figure_and_says_so():
    mine = catalogue.overridden(catalogue.accelerator("h100"), {"peak_fp4": 1e15, "power": 900.0})
    assert (mine.peak_flops["fp4"], mine.power_W, mine.hbm_bytes) == (1e15, 900.0, 80e9)
    assert mine.figures["power"].tier == "user"


def test_rates_find_their_nic():
    assert catalogue.nic_for(25e9).name == "connectx-6"
    assert catalogue.nic_for(1e15).name == "connectx-9"


def test_the_first_look_is_quick():
    import yaml  # noqa: F401  (its import is not the catalogue's)

    took_s = []
    for _ in range(3):
        for cached in (catalogue.sources, catalogue._documents, catalogue._accelerator_names, catalogue._accelerator):
            cached.cache_clear()
        start = time.perf_counter()
        catalogue.accelerator("gb200")
        took_s.append(time.perf_counter() - start)
    assert min(took_s) < 0.03
