import json
import re
from html.parser import HTMLParser

import pytest

from clusters import kernels, software
from parallel.compare import CompareRequest, compare
from parallel.explain.point import Point
from parallel.explain.scene import scene_of
from parallel.questions.sensitivity import sensitivity
from parallel.serving import bands
from podscale import charts, draw, palette, report, reportparts
from podscale.door import plain
from topo.errors import SpecError


class Page(HTMLParser):
    """Collects the attributes, the ids and the scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.attributes, self.stack, self.data, self.unbalanced = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in ("meta", "br", "col", "rect", "path", "input"):
            self.stack.append(tag)
        if tag == "script" and ("type", "application/json") in attrs:
            self.data.append(dict(attrs)["data-chart"])

    def handle_endtag(self, tag):
        if tag in ("rect", "path"):
            return
        self.unbalanced += self.stack.pop() != tag


@pytest.fixture
def text(document):
    return report.html(document)


def test_report_loads_nothing(text):
    page = Page(text)
    assert not page.stack
    assert not page.unbalanced
    loading = [row for row in page.attributes if row[1] in ("src", "href", "srcset", "data", "action", "poster")]
    assert loading == []
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and "default-src" in (value or ""))
    assert policy.startswith("default-src 'none'")
    outside_plotly = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in outside_plotly.replace("http-equiv", "")
    assert "url(" not in outside_plotly
    assert "@import" not in outside_plotly


def test_report_is_small_enough_to_mail_and_holds_plotly_once(text):
    assert len(text.encode()) < 8e6
    assert text.count("plotly.js v") == 1


def test_report_contains_every_wiring_split_and_chart(text):
    page = Page(text)
    assert text.count('<svg class="wiring"') == 3
    for split in ("EP64 TP1 PP16 DP288", "EP72 TP1 PP1 DP64", "EP288 TP1 PP1 DP16"):
        assert split in text
    assert page.data == ["terms-0", "terms-1", "terms-2", "frontier-0", "memory-0"]
    for chart in page.data:
        figure = json.loads(re.search(f'data-chart="{chart}">(.*?)</script>', text).group(1))
        assert figure["data"]


def test_report_escapes_what_it_is_given(document):
    document["answer"] = "<script>alert(1)</script>"
    document["rows"][0]["strategy"]["schedule"] = "</script><b>"
    text = report.html(document)
    assert "<script>alert(1)" not in text
    assert "</script><b>" not in text
    assert "balanced &lt;even&gt;" in text


def test_report_of_rows_that_cannot_run_says_so(document):
    for row in document["rows"]:
        row.update(infeasible="HBM: 12 GB short", terms={}, memory_bytes={}, strategy={}, tokens_per_s_per_gpu=None)
    document["frontiers"] = []
    text = report.html(document)
    assert text.count("HBM: 12 GB short") == 9
    assert Page(text).data == []


def test_report_that_cannot_be_written_is_the_users_fault(document, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpecError, match="cannot be written"):
        report.write(document, tmp_path / "file" / "compare.html")


def test_bars_of_a_phase_are_the_gpu_time_of_a_token(document):
    rows = [row for row in document["rows"] if row["phase"] == "decode"]
    figure = charts.terms(document["rows"], "decode", palette.of_terms(rows[0]["terms"]))
    together = [sum(trace.x[rank] for trace in figure.data) for rank in range(3)]
    assert together == pytest.approx([1e6 / row["tokens_per_s_per_gpu"] for row in rows])


@pytest.mark.parametrize("domain", [1, 7, 8, 72, 500, 576, 4608])
def test_every_domain_can_be_drawn(domain):
    tier = {
        "name": "leaf", "kind": "switch", "plane": "scale-out", "size": 4608, "blocks": 1, "bandwidth_Bps": 5e10,
        "latency_s": 1e-6, "hops": 4, "in_network_reduction": False, "link": "ib-ndr",
    }  # fmt: skip
    wired = {"domain": domain, "tiers": [tier], "parts": {}}
    svg = draw.wiring(wired, draw.scale([wired, {"domain": 576, "tiers": []}]), "#123456", 4608)
    dots = max(len(re.findall("M", path)) for path in re.findall(r'class="gpu"[^>]* d="([^"]*)"', svg) or [""])
    assert 0 < dots <= 640
    assert "nan" not in svg


def test_a_drawing_shows_the_same_gpus_for_every_domain_that_divides_the_window():
    shared = draw.scale([{"domain": 576, "tiers": []}])
    counts = {
        sum(d.count("h0") for d in re.findall(r'class="gpu"[^>]*d="([^"]*)"', svg))
        for svg in (draw.wiring({"domain": size, "tiers": []}, shared, "#123456", 4608) for size in (8, 72, 576))
    }
    assert counts == {576}


def test_colours_of_wirings_do_not_depend_on_the_order_asked():
    assert palette.of_wirings([8, 72, 576]) == palette.of_wirings([576, 8, 72])


def test_every_colour_of_a_chart_is_in_its_key(document, text):
    figure = charts.terms(document["rows"], "decode", palette.of_terms(document["rows"][-1]["terms"]))
    assert [name for name, _ in charts.key(figure)] == [trace.name for trace in figure.data]
    for name, colour in charts.key(figure):
        assert colour.startswith("#")
        assert f"</span>{name}</li>" in text


@pytest.fixture(scope="module")
def priced():
    """A real comparison, small: its rows carry the points that the further parts of a report are priced from."""
    return plain(compare(CompareRequest(gpus=512, domains=(8, 64), global_batch=2048)))


@pytest.fixture(scope="module")
def told(priced):
    return {part["phase"]: part for part in reportparts.parts(priced["rows"])}


@pytest.fixture(scope="module")
def whole(priced):
    return report.html(priced)


def test_parts_are_about_the_fastest_row_of_each_phase(priced, told):
    assert list(told) == ["train", "prefill", "decode"]
    for phase, part in told.items():
        rows = [row for row in priced["rows"] if row["phase"] == phase]
        assert part["strategy"] == max(rows, key=lambda row: row["tokens_per_s_per_gpu"])["strategy"]


def test_rows_without_a_point_have_no_further_parts(document):
    assert reportparts.parts(document["rows"]) == []


def test_purchases_gain_what_sensitivity_says(told, priced):
    best = max((row for row in priced["rows"] if row["phase"] == "decode"), key=lambda row: row["tokens_per_s_per_gpu"])
    asked = sensitivity(Point.from_dict(best["point"]), search=False)["rows"]
    expected = {row["title"]: row["gain"] for row in asked if row["figure"] != "accelerators" and row["gain"]}
    gains = {row["title"]: row["gain"] for row in told["decode"]["buys"]["rows"]}
    assert gains
    assert gains == {name: pytest.approx(expected[name]) for name in gains}
    assert list(gains.values()) == sorted(gains.values(), reverse=True)


def test_no_operator_is_above_its_roofs(told):
    for part in told.values():
        drawn = part["roofline"]
        assert sum(each["share"] for each in drawn["operators"]) < 1.0
        for each in drawn["operators"]:
            assert each["reached"] <= min(each["roof"], each["flops_per_byte"] * drawn["bandwidth"]) * (1 + 1e-9)
            assert each["moved_Bps"] <= drawn["bandwidth"] * (1 + 1e-9)
            assert each["bound"] in charts.BOUNDS


def test_roofline_draws_every_operator_that_multiplies_and_each_roof_once(told):
    drawn = told["decode"]["roofline"]
    figure = charts.roofline(drawn)
    dots = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert sum(len(trace.x) for trace in dots) == sum(each["reached"] > 0 for each in drawn["operators"])
    assert len(figure.data) - len(dots) == len(set(drawn["roofs"].values()))
    assert charts.roofline({**drawn, "operators": []}) is None


def test_pipelines_too_large_to_be_read_are_left_out_and_said_so(told, priced, monkeypatch):
    assert told["decode"]["timeline"] is None
    drawn = told["train"]["timeline"]
    assert "<svg" in drawn["svg"]
    assert "micro-batches" in drawn["note"]
    monkeypatch.setattr(reportparts, "MOST_BOXES", 1)
    row = reportparts.fastest(priced["rows"])[0]
    left_out = reportparts.timeline(scene_of(Point.from_dict(row["point"]).settled))
    assert left_out["svg"] == ""
    assert "left out" in left_out["note"]


def test_errors_shown_are_those_stored_beside_the_constants(told):
    backing = {group["set"]: group for group in told["decode"]["backing"] if group["set"] in ("gemm", "serving")}
    held = kernels.table()["measured"]["gb200"][backing["gemm"]["group"].split()[1]]["held_out"]
    assert [backing["gemm"][name] for name in ("median", "p90")] == [held["median"], held["p90"]]
    passes = bands.document()["bands"]["decode"]["fp8"]
    assert backing["serving"]["band"] == [passes["low"], passes["high"]]
    assert backing["serving"]["n"] == passes["n"]
    whole_steps = told["train"]["backing"][0]
    assert whole_steps["band"] == software.document()["bands"]["megatron-core, experts"]["all"]
    for part in told.values():
        assert sum(group["share"] or 0.0 for group in part["backing"]) == pytest.approx(1.0)


def test_report_holds_all_parts_and_every_split_once(whole, priced):
    page = Page(whole)
    assert not page.stack
    assert not page.unbalanced
    assert len(whole.encode()) < 8e6
    for title in ("What to buy next", "Roofline of every operator", "The pipeline of", "Every split worth having"):
        assert title in whole
    assert [name for name in page.data if name.startswith("roofline")] == ["roofline-0", "roofline-1", "roofline-2"]
    assert "Accuracy: " in whole
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    splits = re.search(r'<table id="splits".*?</table>', whole, flags=re.DOTALL).group(0)
    points = [(row["phase"], row["domain"], json.dumps(row["strategy"])) for row in priced["rows"]]
    points += [
        (front["phase"], front["domain"], json.dumps(point["strategy"]))
        for front in priced["frontiers"]
        for point in front["points"]
    ]
    assert splits.count("<tr>") - 1 == len(set(points))
