"""The verbs in Python: the same document as the command's, shown as text and as HTML."""

import json
from pathlib import Path

import pytest

import podscale
from podscale.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
SCENARIO = EXAMPLES / "scenarios" / "llama-70b-serve.yaml"
LONG = {"seconds", "executor"}


def printed(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_serve_is_what_the_command_prints(capsys):
    assert podscale.serve(SCENARIO) == printed(capsys, "serve", str(SCENARIO))


def test_collective_is_what_the_command_prints(capsys):
    argv = ("collective", "all_reduce", "--cluster", "hgx-h100", "--ranks", "8", "--bytes", "1MiB")
    assert podscale.collective("all_reduce", cluster="hgx-h100", ranks=8, size_bytes=2**20) == printed(capsys, *argv)


def test_compare_takes_the_fields_of_a_request():
    answer = podscale.compare(model="llama-3.1-8b", accelerator="h100", domains=(8,), gpus=8, phases=("decode",))
    assert [row["domain"] for row in answer["rows"]] == [8]
    assert "tokens/s" in str(answer)


def test_an_answer_shows_itself_as_self_contained_html():
    shown = podscale.claim("flop-per-byte")._repr_html_()
    assert shown.startswith("<pre")
    assert "<script" not in shown
    assert "http" not in shown.replace("http://www.w3.org", "")


def test_a_sweep_is_what_the_command_prints(capsys, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "cluster: hgx-h100\nmodel: llama-3.1-8b\nphases: decode\nvary: {accelerators: 8}\nstrategy: {space: usual}\n"
    )
    here, there = podscale.sweep(file), printed(capsys, "sweep", str(file), "--state", str(tmp_path))
    assert {k: v for k, v in here.items() if k not in LONG} == {k: v for k, v in there.items() if k not in LONG}


@pytest.mark.parametrize("name", podscale.__all__)
def test_every_public_name_is_there(name):
    assert getattr(podscale, name).__doc__


def test_an_unknown_name_is_no_verb():
    with pytest.raises(AttributeError, match="comapre"):
        _ = podscale.comapre
