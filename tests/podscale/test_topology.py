"""Drawings of clusters: well-formed, complete, no two texts over each other, at every size."""

import json
import re
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from podscale.cli import main
from podscale.expanded import expanded_svg
from podscale.sheet import SIZES, width_of
from podscale.topology import topology_html, topology_svg
from topo.blueprint import Axis, Blueprint, Level, LinkClass, NodeClass
from topo.builders import ScaleOut, cluster_blueprint
from topo.changes import degrade, without
from topo.compose import Core, Fibre, Span, joined
from topo.domains import ScaleUp
from topo.errors import SpecError
from topo.graphs import expand
from topo.outline import outline
from topo.survey import summary

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawing):
    return ElementTree.fromstring(drawing)  # noqa: S314 (our own text)


def clos(domains, size=8, **out):
    up = ScaleUp(size, 900e9, 1e-6, "nvlink5", switches=18 if size > 8 else 4, layers=2 if size == 576 else 1)
    return cluster_blueprint("clos", domains, up, ScaleOut(50e9, "ndr", **out) if domains > 1 else None)


def torus(*shape, order="ring"):
    names = "xyzw"[: len(shape)]
    axes = tuple(Axis(name, size, order=order) for name, size in zip(names, shape, strict=True))
    links = tuple(LinkClass("chip", "chip", 100e9, 1e-6, "ici", along=(name,)) for name in names)
    chip = NodeClass("chip", "accelerator", tuple(names))
    return Blueprint("torus", axes, (chip,), links, (Level("torus", "torus"),))


def mesh(boxes=8):
    return Blueprint(
        "full mesh",
        (Axis("domain", boxes), Axis("slot", 8, "domain")),
        (
            NodeClass("accelerator", "accelerator", ("slot",)),
            NodeClass("nic", "nic", ("slot",)),
            NodeClass("leaf", "switch", ()),
        ),
        (
            LinkClass("accelerator", "accelerator", 64e9, 1e-6, "xgmi", along=("slot",)),
            LinkClass("accelerator", "nic", 50e9, 0.0, "", plane="scale-out"),
            LinkClass("nic", "leaf", 50e9, 5e-7, "ndr", plane="scale-out"),
        ),
        (Level("domain", "mesh", axes=("domain",)), Level("leaf", plane="scale-out")),
    )


def three_sites():
    halls = {"north": clos(128), "east": clos(256), "west": clos(64)}
    return joined("sites", halls, Fibre((Span("north", "east", 1e13, 80), Span("east", "west", 5e12, 1100))))


def many_faults():
    bp = degrade(clos(576), "nic", {"rail": 3}, to="leaf", factor=0.5)
    for i in range(12):
        bp = without(bp, {"pod": i % 5, "unit": i % 3, "domain": i, "rail": i % 8})
    return bp


CASES = {
    "8": lambda: clos(1),
    "72": lambda: clos(1, 72),
    "4,608 in 8": lambda: clos(576),
    "4,608 in 72": lambda: clos(64, 72),
    "4,608 in 576": lambda: clos(8, 576),
    "500,000": lambda: clos(62_500, radix=128, oversubscription=(1, 7)),
    "torus": lambda: torus(16, 20, 28),
    "torus with a dead chip": lambda: without(torus(6, 8, 4), {"x": 1, "y": 2, "z": 3}),
    "full mesh": mesh,
    "pools": lambda: joined("both", {"old": clos(128), "new": clos(4, 72)}, Core("xdr", {"old": 8e11, "new": 8e11})),
    "sites": three_sites,
    "slow rail": lambda: degrade(clos(128), "nic", {"rail": 3}, to="leaf", factor=0.5),
    "lost domain": lambda: without(clos(576), {"pod": 0, "unit": 0, "domain": 3}),
    "many faults": many_faults,
}

SMALL = {
    "8": lambda: clos(1),
    "72": lambda: clos(1, 72),
    "32 with a slow rail": lambda: degrade(clos(4, radix=16), "nic", {"rail": 3}, to="leaf", factor=0.5),
    "ring": lambda: torus(12),
    "line": lambda: torus(12, order="line"),
    "grid": lambda: without(torus(8, 8), {"x": 2, "y": 3}),
    "cube": lambda: torus(4, 4, 4),
    "four axes": lambda: torus(3, 3, 3, 3),
    "full mesh": mesh,
    "two layers": lambda: cluster_blueprint("x", 1, ScaleUp(64, 9e11, 1e-6, "nv", 4, layers=2, inner=16), None),
}


def boxes_of_text(drawing):
    """Return text, left, top, right, bottom of every text, and the size of the sheet."""
    root = parsed(drawing)
    found = []
    for node in root.iter(f"{SVG}text"):
        kind = node.get("class").split()[0]
        width, x, y = width_of(node.text, kind) * 0.93, float(node.get("x")), float(node.get("y"))
        left = x - {"start": 0, "middle": width / 2, "end": width}[node.get("text-anchor")]
        found.append((node.text, left, y - SIZES[kind] * 0.8, left + width, y + SIZES[kind] * 0.2))
    return found, float(root.get("width")), float(root.get("height"))


def assert_legible(drawing):
    texts, width, height = boxes_of_text(drawing)
    assert texts
    for said, left, top, right, bottom in texts:
        assert 0 <= left <= right <= width, said
        assert 0 <= top <= bottom <= height, said
    over = [
        (a[0], b[0]) for a, b in combinations(texts, 2) if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
    ]
    assert not over


@pytest.mark.parametrize("case", CASES)
def test_no_text_lies_over_another(case):
    assert_legible(topology_svg(outline(CASES[case]())))


@pytest.mark.parametrize("case", SMALL)
def test_no_text_lies_over_another_node_by_node(case):
    assert_legible(expanded_svg(SMALL[case]()))


@pytest.mark.parametrize("case", SMALL)
def test_every_node_and_link_is_drawn_in_its_own_place(case):
    bp = SMALL[case]()
    root = parsed(expanded_svg(bp))
    whole = expand(replace(bp, changes=()))
    places = {(c.get("cx"), c.get("cy")) for c in root.iter(f"{SVG}circle")}
    assert len(places) == whole.number_of_nodes()
    wires = [p for p in root.iter(f"{SVG}path") if p.get("class") in ("wire", "wire changed", "gone")]
    assert len(wires) == whole.number_of_edges()


def test_tiers_stand_one_above_the_other():
    root = parsed(topology_svg(outline(clos(576))))
    height = {node.text: float(node.get("y")) for node in root.iter(f"{SVG}text")}
    names = ["core ×96", "spine ×32", "leaf ×8", "nic ×8", "accelerator ×8", "scale-up-switch ×4"]
    heights = [height[name] for name in names]
    assert heights == sorted(heights)
    assert {"pod ×6", "unit ×3 (18 in all)", "domain ×32 (576 in all)"} <= set(height)


def test_labels_give_count_and_rate():
    drawing = topology_svg(outline(clos(576)))
    for said in ("32 × 400 Gb/s", "4 × 225 GB/s", "18,432 nvlink5 links · 500 ns"):
        assert f">{said}<" in drawing


def test_tiers_are_listed_below():
    bp = clos(62_500, radix=128)
    drawing = topology_svg(outline(bp), summary(bp)["tiers"])
    assert_legible(drawing)
    for said in ("oversubscription", "62,500", "900 GB/s"):
        assert f">{said}<" in drawing


def test_what_changed_is_dashed_and_named():
    drawing = topology_svg(outline(CASES["slow rail"]()))
    assert drawing.count('class="bundle changed"') == 2  # the band, and its key
    assert "1 × 400 Gb/s at 50%" in drawing
    assert 'class="bundle changed"' not in topology_svg(outline(clos(128)))


def test_many_faults_are_told_but_not_all_drawn():
    drawing = topology_svg(outline(many_faults()))
    assert len(drawing) < 200_000
    assert " more" in drawing


def test_loads_colour_the_bands_and_bring_their_key():
    loads = {("nic", "leaf"): 0.6, ("leaf", "spine"): 1.0}
    drawing = topology_svg(outline(clos(128), loads))
    assert_legible(drawing)
    for said in ("1 × 400 Gb/s, 60% full", "32 × 400 Gb/s, 100% full", "over 95% full", "scale-up"):
        assert f">{said}<" in drawing
    assert "--hue:var(--load4)" in drawing
    assert "over 95% full" not in topology_svg(outline(clos(128)))


def test_a_drawing_loads_nothing_and_says_what_it_is():
    for drawing in (topology_svg(outline(clos(576))), expanded_svg(clos(1))):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\(|@import|<script", drawing)
        assert "prefers-color-scheme:dark" in drawing
        root = parsed(drawing)
        assert root.get("role") == "img"
        assert root.find(f"{SVG}title").text
        assert root.find(f"{SVG}desc").text


def test_names_are_escaped():
    bp = replace(clos(2), name="<b>&")
    assert parsed(topology_svg(outline(bp))).find(f"{SVG}title").text == "<b>&"
    assert "<title>podscale: &lt;b&gt;&amp;</title>" in topology_html("", "<b>&")


def test_a_large_cluster_is_not_drawn_node_by_node():
    with pytest.raises(SpecError, match="nodes one by one"):
        expanded_svg(clos(576))


@pytest.mark.parametrize(("name", "flags"), [("a.svg", []), ("a.HTML", []), ("b.svg", ["--expanded"])])
def test_topo_writes_the_drawing(tmp_path, capsys, name, flags):
    target = tmp_path / name
    assert main(["topo", "hgx-h100", "--draw", str(target), "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["drawing"] == str(target)
    text = target.read_text(encoding="utf-8")
    assert text.startswith("<svg" if name.endswith("svg") else "<!doctype html>")
    assert "hgx-h100" in text


def test_topo_says_where_the_drawing_lies(tmp_path, capsys):
    assert main(["topo", "hgx-h100", "--draw", str(tmp_path / "a.svg")]) == 0
    assert "a.svg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--draw", "a.png"], "end it in .svg or .html"),
        (["--expanded"], "add --draw FILE.svg"),
        (["--draw", "/no/such/folder/a.svg"], "cannot be written"),
    ],
)
def test_topo_refuses_what_it_cannot_draw(capsys, flags, said):
    assert main(["topo", "hgx-h100", *flags]) == 2
    assert said in capsys.readouterr().err
