"""Public prices of tokens: each has a day, a host, a source with an address, and figures in their unit."""

from datetime import date

import pytest

from clusters.economics import listing, listings
from topo.errors import SpecError


def test_every_listing_has_its_day_host_and_source() -> None:
    assert len(listings()) >= 6
    for one in listings().values():
        assert (
            date(2024, 12, 26) <= date.fromisoformat(one.since) <= date(2026, 11, 21)
        )  # the model's own day, and the last read
        assert not one.until or one.since < one.until
        assert one.host
        assert one.model.startswith("DeepSeek-V3")
        assert (one.source.url or "").startswith("https://")
        assert one.source.tier != "recalled"
        assert {figure.unit for figure in one.figures.values()} == {"USD/Mtoken"}


def test_a_cached_token_is_cheaper_than_one_that_is_computed_and_output_is_never_cheaper_than_input() -> None:
    for one in listings().values():
        assert one.hit_usd is None or 0 < one.hit_usd < one.input_usd
        assert one.input_usd <= one.output_usd


def test_they_stand_in_the_order_of_their_days() -> None:
    days = [one.since for one in listings().values()]
    assert days == sorted(days)


def test_a_listing_is_found_by_its_name() -> None:
    assert listing("DeepSeek_2025_09").hit_usd == 0.07
    with pytest.raises(SpecError, match="deepseek-2025-09"):
        listing("deepseek-2025-9")
