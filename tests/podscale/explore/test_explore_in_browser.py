"""The explorer as its reader meets it: in a browser, with a mouse, a keyboard and a back button."""

import shlex
from pathlib import Path
from urllib.parse import parse_qs

import pytest

START = "#gpus=288&global_batch=1152"


def ready(page):
    """Wait until the phase that is shown has been answered."""
    page.wait_for_selector("#results[data-answered][aria-busy=false]")
    return page


def complete(page):
    """Wait until everything has been answered: the other phases, the files, the assumptions, the loads."""
    page.wait_for_selector("#results[data-complete][aria-busy=false]")
    return page


def answered(page, act):
    """Do something, and wait for the answer that follows."""
    before = page.get_attribute("#results", "data-answered")
    act()
    page.wait_for_selector(f"#results:not([data-answered='{before}'])[aria-busy=false]")


def address(page):
    """Return what the address says."""
    return {key: held[0] for key, held in parse_qs(page.url.partition("#")[2], keep_blank_values=True).items()}


def headline(page):
    return page.inner_text("#headline")


def drag(page, name, pixels):
    """Drag a slider's handle by some pixels, one after another: one entry of the history."""
    held = page.locator(f"[type=range][data-for={name}]")
    held.scroll_into_view_if_needed()
    box, most = held.bounding_box(), int(held.get_attribute("max"))
    x = box["x"] + 8 + (box["width"] - 16) * int(held.input_value()) / most
    page.mouse.move(x, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(x + pixels, box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)])
def test_page_is_accessible_in_both_themes_at_desktop_and_phone_width(explorer, look, accessible, dark, width):
    page = complete(look(explorer + START + "&compare=1&b.domain=8", dark=dark, width=width))
    for summary in page.query_selector_all("details:not([open]) > summary"):
        summary.click()
    accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(page.screenshot(full_page=True)) > 50_000


def test_page_shows_answer_charts_drawing_and_command(explorer, look):
    page = complete(look(explorer + START))
    assert "tokens/s per GPU" in headline(page)
    assert "What binds:" in headline(page)
    assert page.locator("#frontier path.point").count() > 5
    assert page.locator("#terms .track span").count() > 3
    assert page.locator("#memory .track span").count() > 2
    assert page.locator("#wiring svg.wiring").count() == 1
    assert page.locator("#wiring svg.topology").count() == 1
    assert "podscale compare --cluster cluster.yaml" in page.inner_text("#spec")
    assert all(page.inner_text(f"#card-{phase}") != "…" for phase in ("train", "prefill", "decode"))


def test_every_slider_changes_the_numbers(explorer, look):
    page = ready(look(explorer + START))
    for name in ("domain", "nic", "oversubscription", "scale_up", "tpot_ms", "isl", "osl", "gpus"):
        before = page.inner_text("#figures") + page.inner_html("#frontier")
        slider = page.locator(f"[type=range][data-for={name}]")
        slider.focus()
        answered(page, lambda slider=slider: slider.press("ArrowRight"))
        assert page.inner_text("#figures") + page.inner_html("#frontier") != before
        assert page.input_value(f"#{name}") == address(page)[name]
        assert slider.get_attribute("aria-valuetext") == address(page)[name]


def test_an_address_restores_what_it_was_copied_from(explorer, look):
    first = ready(look(explorer + START))
    first.check("#compare")
    answered(first, lambda: first.fill("#domain", "8"))
    first.click("#edit [value=a]")
    answered(first, lambda: first.select_option("#precision", "bf16"))
    second = ready(look(first.url))
    assert headline(second) == headline(first)
    assert "A’s throughput" in headline(first)
    for selector in ("#compare", "#edit [value=a]"):
        assert second.is_checked(selector)
    assert second.input_value("#precision") == "bf16"
    assert second.inner_text("#figures") == first.inner_text("#figures")


def test_back_and_forward_follow_the_changes(explorer, look):
    page = ready(look(explorer + START))
    said = [headline(page)]
    answered(page, lambda: drag(page, "domain", -70))
    said.append(headline(page))
    answered(page, lambda: page.select_option("#model", "mixtral-8x22b"))
    said.append(headline(page))
    assert len(set(said)) == 3
    for act, expected in ((page.go_back, 1), (page.go_back, 0), (page.go_forward, 1)):
        answered(page, act)
        assert headline(page) == said[expected]
    assert page.input_value("#model") == "deepseek-v3"


def test_a_wrong_entry_is_kept_named_and_mended(explorer, look):
    page = ready(look(explorer + START))
    before = headline(page)
    page.fill("#nic", "fast")
    page.wait_for_selector("#faults:not([hidden])")
    assert "NIC speed" in page.inner_text("#faults")
    assert "fast" in page.inner_text("#faults")
    assert page.input_value("#nic") == "fast"
    assert page.get_attribute("#nic", "aria-invalid") == "true"
    assert headline(page) == before
    page.click("#faults a")
    assert page.evaluate("document.activeElement.id") == "nic"
    answered(page, lambda: page.fill("#nic", "800"))
    assert page.is_hidden("#faults")
    assert page.get_attribute("#nic", "aria-invalid") is None


def test_a_file_of_ones_own_starts_from_what_is_shown_and_can_be_loaded(explorer, look, tmp_path):
    page = ready(look(explorer + START + "&domain=8"))
    before = headline(page)
    page.select_option("#cluster", "own")
    page.wait_for_selector("[data-field=cluster_file]:not([hidden])")
    ready(page)
    assert "domain: 8" in page.input_value("#cluster_file")
    assert headline(page) == before
    own = tmp_path / "mine.yaml"
    own.write_text("name: mine\naccelerator: h100\naccelerators: 64\n")
    answered(page, lambda: page.set_input_files("[data-for=cluster_file]", own))
    assert "64 NVIDIA H100" in headline(page)
    (tmp_path / "large.yaml").write_text("x" * 40_000)
    page.set_input_files("[data-for=cluster_file]", tmp_path / "large.yaml")
    page.wait_for_selector("#faults:not([hidden])")
    assert "larger" in page.inner_text("#faults")
    assert "h100" in page.input_value("#cluster_file")


def test_downloads_reproduce_the_numbers(explorer, look, tmp_path, monkeypatch, capsys):
    import json

    from podscale.cli import main
    from podscale.words import figures

    page = complete(look(explorer + START + "&compare=1&b.domain=8&b.nic=200"))
    monkeypatch.chdir(tmp_path)
    for side in "ab":
        with page.expect_download() as caught:
            page.click(f"[data-download='cluster-{side}.yaml']")
        caught.value.save_as(tmp_path / caught.value.suggested_filename)
        said = page.locator("#spec pre").nth("ab".index(side)).inner_text()
        assert Path(shlex.split(said)[3]).exists()
        assert main([*shlex.split(said)[1:], "--json"]) == 0
        rows = {row["phase"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
        for phase, row in rows.items():
            shown = page.locator(f"#card-{phase} .rate b").nth("ab".index(side)).inner_text()
            assert shown == figures(row["tokens_per_s_per_gpu"], 4)


def test_the_link_is_copied_and_the_page_starts_again(explorer, look):
    page = ready(look(explorer + START + "&domain=8"))
    page.click("#share")
    page.wait_for_selector("#status:not(:empty)")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    answered(page, lambda: page.click("[type=reset]"))
    assert "#" not in page.url
    assert page.input_value("#domain") == ""


def test_everything_can_be_reached_by_keyboard(explorer, look):
    page = complete(look(explorer + START))
    reached = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("(e => e.id || e.dataset.for || e.dataset.download || e.name)(document.activeElement)")
        )
    assert {"share", "phase", "cluster", "domain", "nic", "model", "tpot_ms", "cluster.yaml"} <= reached


def test_print_leaves_the_controls_out(explorer, look):
    page = complete(look(explorer + START))
    page.emulate_media(media="print")
    assert page.is_hidden("#controls")
    assert page.is_visible("#headline")
    assert page.is_visible("#figures")


def test_slider_to_numbers(explorer, look, benchmark):
    """DeepSeek-V3 on 4,608 GPUs, as the browser measures it: `pytest --benchmark-only` prints the time."""
    page = complete(look(explorer))
    slider = page.locator("[type=range][data-for=nic]")
    slider.focus()
    page.keyboard.press("Home")
    took = []

    def press():
        answered(page, lambda: slider.press("ArrowRight"))
        took.append(float(page.get_attribute("#results", "data-took")))

    benchmark.pedantic(press, rounds=10)
    benchmark.extra_info["milliseconds in the browser"] = sorted(took)
    print(f"\nslider to numbers: {sorted(took)[len(took) // 2]:.0f} ms in the median")  # noqa: T201
