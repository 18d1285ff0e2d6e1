"""The report as its reader meets it: a file in a browser, without a network."""

import pytest

from parallel.compare import CompareRequest, compare
from podscale import report
from podscale.door import plain


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The report of a whole comparison: DeepSeek-V3 on 4,608 GPUs, three wirings, three phases."""
    document = plain(compare(CompareRequest(domains=(8, 72, 576))))
    return report.write(document, tmp_path_factory.mktemp("real") / "compare.html").as_uri()


@pytest.fixture
def file(document, tmp_path):
    return report.write(document, tmp_path / "compare.html").as_uri()


def drawn(page):
    """Wait until every chart is drawn."""
    for place in page.query_selector_all(".chart"):
        page.wait_for_selector(f"#{place.get_attribute('id')} .main-svg")
    return page


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)])
def test_report_is_accessible_in_both_themes_at_desktop_and_phone_width(file, look, accessible, dark, width):
    page = drawn(look(file, dark=dark, width=width))
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(page.screenshot(full_page=True)) > 50_000


def test_report_asks_nobody_for_anything(file, look, browser):
    asked = []
    page = look("about:blank")
    page.on("request", lambda request: asked.append(request.url))
    drawn(page) if page.goto(file) else None
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_charts_keep_their_key_out_of_the_axis_on_a_phone(file, look):
    page = drawn(look(file, width=390))
    boxes = page.evaluate(
        "[...document.querySelectorAll('.chartbox')].map(box => ["
        "box.querySelector('.chart').getBoundingClientRect().bottom, box.querySelector('.key').getBoundingClientRect().top])"
    )
    assert len(boxes) == 5
    assert all(top >= bottom for bottom, top in boxes)


def test_dark_charts_are_readable(file, look):
    page = drawn(look(file, dark=True))
    assert page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill") == "rgb(162, 172, 183)"


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 1280), (False, 390), (True, 390)])
def test_a_real_report_is_accessible_in_both_themes_at_desktop_and_phone_width(real, look, accessible, dark, width):
    page = drawn(look(real, dark=dark, width=width))
    titles = page.evaluate("[...document.querySelectorAll('h2')].map(title => title.textContent)")
    assert {"What to buy next", "Roofline of every operator", "Throughput against interactivity"} <= set(titles)
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_names_of_operators_touch_no_other(real, look, width):
    page = drawn(look(real, width=width))
    boxes = page.evaluate(
        "[...document.querySelectorAll('[id^=roofline]')].map(chart => [...chart.querySelectorAll('.textpoint text')]"
        ".filter(text => text.textContent.trim()).map(text => text.getBoundingClientRect())"
        ".map(box => [box.left, box.right, box.top, box.bottom]))"
    )
    assert len(boxes) == 3
    assert all(chart for chart in boxes)
    for chart in boxes:
        for place, (left, right, top, bottom) in enumerate(chart):
            assert 0 <= left <= right <= width
            others = chart[:place]
            assert not any(left < r and right > x and top < b and bottom > t for x, r, t, b in others)


def test_a_real_report_draws_fronts_in_their_bands_and_wirings_with_their_traffic(real, look):
    page = drawn(look(real))
    fills = page.evaluate("document.querySelectorAll('[id^=frontier] .js-fill').length")
    assert fills == 6
    said = page.evaluate("[...document.querySelectorAll('svg.wiring .note')].map(note => note.textContent).join(' ')")
    assert said.count("at work:") >= 5
    assert "No 90 % interval" not in page.content()
