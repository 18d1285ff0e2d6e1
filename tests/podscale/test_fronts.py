"""Bands about fronts: points move along both axes, and the line lies inside wherever its band holds the price."""

from hypothesis import given, settings
from hypothesis import strategies as st

from podscale import charts, frontplot, fronts


def point(x: float, y: float, band: tuple[float, float] | None = (0.8, 1.5)) -> dict[str, object]:
    return {
        "tokens_per_s_per_user": x,
        "tokens_per_s_per_gpu": y,
        "tpot_s": 1.0 / x,
        "band": band,
        "strategy": {"tp": 1},
    }


@settings(max_examples=50, deadline=None)
@given(st.floats(1.0, 1e3), st.floats(1.0, 1e4), st.floats(0.3, 1.0), st.floats(1.0, 3.0))
def test_a_longer_time_lowers_both_rates_by_the_same_share(x: float, y: float, low: float, high: float) -> None:
    held = point(x, y, (low, high))
    (left, down), (right, up) = (fronts.moved(held, "tokens_per_s_per_user", end) for end in (1, 0))
    assert left <= x * 1.000001 <= right * 1.000002
    assert abs(left / x - down / y) < 1e-9
    assert abs(right / x - up / y) < 1e-9


def test_the_outline_goes_out_along_one_end_and_back_along_the_other() -> None:
    outline = fronts.around([point(10.0, 300.0), point(20.0, 100.0)], "tokens_per_s_per_user", "vh")
    assert outline[0] == (12.5, 375.0)
    assert outline[2] == (25.0, 125.0)
    assert outline[3] == (20.0 / 1.5, 100.0 / 1.5)
    assert len(outline) == 6


def test_a_front_without_bands_has_no_outline() -> None:
    assert fronts.around([point(10.0, 300.0, None)], "tokens_per_s_per_user", "vh") == []
    assert fronts.around([], "tokens_per_s_per_user", "vh") == []


def test_a_chart_draws_bands_beneath_the_lines_and_keeps_them_out_of_the_key() -> None:
    front = {"phase": "decode", "domain": 8, "points": [point(10.0, 300.0), point(20.0, 100.0)]}
    figure = charts.frontier([front], "decode", {8: "#123456"}, None)
    assert figure is not None
    assert [trace.fill for trace in figure.data] == ["toself", None]
    assert charts.key(figure) == [("domain 8", "#123456")]
    bare = {**front, "points": [point(10.0, 300.0, None)]}
    alone = charts.frontier([bare], "decode", {8: "#123456"}, None)
    assert alone is not None
    assert len(alone.data) == 1


def test_the_fronts_of_a_sweep_make_room_for_their_bands() -> None:
    points = [(10.0, 300.0, "a"), (20.0, 100.0, "b")]
    outline = fronts.around([point(10.0, 300.0), point(20.0, 100.0)], "tokens_per_s_per_user", "vh")
    bare, banded = (
        frontplot.picture([frontplot.Line("one", "#123456", points, edge)], ("x", "y")) for edge in ((), outline)
    )
    assert bare.count("fill-opacity") == 0
    assert banded.count("fill-opacity") == 1
