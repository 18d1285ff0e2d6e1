"""The table of formats: what is guessed, refused and never crashed on."""

import gzip
from pathlib import Path

import pytest

from topo.errors import SpecError
from topo.formats import FORMATS, Imported, base, guess, read, write
from topo.formats.base import Source
from topo.schema import validate

FILES = Path(__file__).parent / "formats"
FIXTURES = {
    "hgx.txt": "nvidia-smi",
    "hybrid-mesh.txt": "nvidia-smi",
    "nvswitch.xml": "nccl-xml",
    "direct.xml": "nccl-xml",
    "subnet.topo": "ibnetdiscover",
    "pod.yml": "astra-sim",
    "cluster.yaml": "infragraph",
    "pair.json": "node-link",
    "pair.graphml": "graphml",
}
RATES = {"cluster.yaml": {"pcie": 3e10}}


@pytest.mark.parametrize("name", FIXTURES)
def test_each_file_is_recognised_and_follows_the_schema(name: str) -> None:
    found = read(FILES / name, rates=RATES.get(name))
    validate(found.graph)
    assert guess(Source("no-ending", (FILES / name).read_text())) == FIXTURES[name]
    lines = (FILES / name).read_text().split("\n")
    for one in found.unused:
        assert one.text == lines[one.line - 1].strip()[:200]
        assert one.why


def test_every_format_has_a_file() -> None:
    assert set(FIXTURES.values()) == set(FORMATS)


@pytest.mark.parametrize("name", FIXTURES)
def test_a_file_cut_anywhere_is_read_or_refused(name: str) -> None:
    data = (FILES / name).read_bytes()
    for end in range(0, len(data), max(1, len(data) // 120)):
        text = base.decode(name, data[:end])
        for form in (FIXTURES[name], None):
            try:
                assert isinstance(read(text + "\n", form, rates=RATES.get(name) if form else None), Imported)
            except SpecError:
                continue


@pytest.mark.parametrize("name", FIXTURES)
@pytest.mark.parametrize("byte", [b"\0", b"[", b'"', b"<", b"\xff", b"9" * 5000])
def test_a_file_with_a_stray_byte_is_read_or_refused(name: str, byte: bytes, tmp_path: Path) -> None:
    data = (FILES / name).read_bytes()
    path = tmp_path / name
    for at in range(7, len(data), max(1, len(data) // 12)):
        path.write_bytes(data[:at] + byte + data[at + 1 :])
        try:
            assert isinstance(read(path, FIXTURES[name], rates=RATES.get(name)), Imported)
        except SpecError:
            continue


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "text", ["", "\n", "[" * 4_000, "{" * 4_000, "<a>" * 4_000, "- " * 500 + "\n", "a: *b\n", "1\n"]
)
def test_what_is_no_file_of_the_format_is_refused(form: str, text: str) -> None:
    with pytest.raises(SpecError):
        read(text + "\n", form)


def test_a_file_of_no_format_gets_the_list() -> None:
    with pytest.raises(SpecError, match=r"not recognised.*nvidia-smi.*graphml"):
        read("hello\nworld\n")
    with pytest.raises(SpecError, match="known: nvidia-smi"):
        read("hello\nworld\n", "visio")


def test_a_missing_a_binary_and_a_large_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.xml"):
        read(tmp_path / "nowhere.xml")
    (tmp_path / "a.xml").write_bytes(b"one\n" + gzip.compress(b"two"))
    with pytest.raises(SpecError, match=r"line 2.*utf-8"):
        read(tmp_path / "a.xml")
    monkeypatch.setattr(base, "MAX_BYTES", 10)
    with pytest.raises(SpecError, match="more than 10 bytes"):
        read(FILES / "pod.yml")


def test_utf_16_and_carriage_returns_are_read() -> None:
    data = (FILES / "hgx.txt").read_text().replace("\n", "\r\n").encode("utf-16")
    found = read(base.decode("a.txt", data))
    assert found.graph.number_of_nodes() == 20
    assert not found.unused


def test_a_wrong_rate_is_refused_with_the_known_words() -> None:
    with pytest.raises(SpecError, match="known: nvlink, PIX"):
        read(FILES / "hgx.txt", rates={"NVLink": 1e9})
    with pytest.raises(SpecError, match="must be positive"):
        read(FILES / "hgx.txt", rates={"nvlink": 0.0})
    with pytest.raises(SpecError, match="holds its own"):
        read(FILES / "pod.yml", latencies={"link": 1.0})


def test_what_is_only_read_is_not_written(tmp_path: Path) -> None:
    graph = read(FILES / "pod.yml").graph
    with pytest.raises(SpecError, match="write one of astra-sim, infragraph, node-link, graphml"):
        write(graph, tmp_path / "a", "nvidia-smi")
    with pytest.raises(SpecError, match="is unknown"):
        write(graph, tmp_path / "a", "visio")
    graph.remove_edges_from(list(graph.edges))
    with pytest.raises(SpecError, match="joined to nothing"):
        write(graph, tmp_path / "a", "graphml")
