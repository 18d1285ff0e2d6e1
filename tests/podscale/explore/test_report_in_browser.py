"""The report as its reader meets it: a file in a browser, without a network."""

import pytest

from podscale import report


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
