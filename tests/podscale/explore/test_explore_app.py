"""The server without a socket: requests go straight into the ASGI application."""

import asyncio
import json

import pytest

pytest.importorskip("starlette", reason="the extra [explore] is not installed")

from podscale.commands import explore as command
from podscale.explore.app import HEADERS, MOST_BYTES, QUESTIONS, make_app

SMALL = "gpus=16&domain=8&model=llama-3.1-8b"


def ask(path, body=b"", method="POST", host="127.0.0.1:8765", **headers):
    """Send one request; return status, headers and body."""
    sent, start = bytearray(), {}
    named = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 8765), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip

    async def run():
        waiting = [{"type": "http.request", "body": body if isinstance(body, bytes) else body.encode()}]

        async def receive():
            if waiting:
                return waiting.pop()
            return await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                sent.extend(message.get("body", b""))

        await make_app()(scope, receive, send)

    asyncio.run(run())
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, bytes(sent)


def test_page_loads_nothing_from_elsewhere_and_runs_no_script_of_its_own():
    status, headers, body = ask("/", method="GET")
    text = body.decode()
    assert status == 200
    assert "http" not in text.replace("http-equiv", "")
    assert "<script src=" in text
    assert text.count("<script") == 1
    assert "onclick" not in text
    assert "script-src 'self'" in headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/", "/explore.js", "/explore.css", "/nothing"])
def test_every_reply_carries_the_security_headers(path):
    headers = ask(path, method="GET")[1]
    assert {name: headers[name.lower()] for name in HEADERS} == HEADERS


@pytest.mark.parametrize("path", QUESTIONS)
def test_every_question_is_answered(path):
    status, headers, body = ask(path, SMALL)
    document = json.loads(body)
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert "faults" not in document
    assert document["html"]


def test_an_answer_says_what_binds_and_how_sure_it_is():
    page = json.loads(ask("/answer/decode", SMALL + "&compare=1&b.nic=100")[2])["html"]
    assert "What binds:" in page["headline"]
    assert "badge" in page["headline"]
    assert page["headline"].count("tokens/s per GPU") == 2
    assert page["frontier"].count('class="line"') == 2


def test_faults_are_a_table_at_their_controls_and_escaped():
    document = json.loads(ask("/answer/decode", "nic=%3Cb%3E&b.gpus=0&compare=1&%3Ci%3E=1")[2])
    assert {(fault["side"], fault["control"]) for fault in document["faults"]} == {
        ("a", "nic"),
        ("b", "gpus"),
        ("a", ""),
    }
    assert "&lt;b&gt;" in document["html"]
    assert "<b>" not in document["html"]
    assert "<i>" not in document["html"]
    assert 'data-control="nic"' in document["html"]


def test_what_a_pasted_file_is_called_is_escaped():
    text = "cluster=own&cluster_file=name: <script>alert(1)</script>%0Aaccelerator: h100%0Aaccelerators: 8&model=llama-3.1-8b"
    for path in ("/answer/decode", "/wiring", "/spec"):
        document = json.loads(ask(path, text)[2])
        assert "faults" not in document
        assert "<script" not in json.dumps(document["html"])


def test_a_design_that_cannot_run_is_an_answer():
    page = json.loads(
        ask("/answer/decode", "gpus=8&domain=8&model=gpt3-175b&precision=bf16&cluster=l40s&tpot_ms=0.1")[2]
    )
    assert "cannot run" in page["html"]["headline"]
    assert page["designs"]["a"]["row"]["infeasible"]


def test_a_body_has_a_limit():
    status, _, body = ask("/answer/decode", b"x" * (MOST_BYTES + 1))
    assert status == 413
    assert "larger" in json.loads(body)["faults"][0]["problem"]


def test_other_names_and_other_sites_are_refused():
    assert ask("/", method="GET", host="evil.example")[0] == 400
    assert ask("/answer/decode", SMALL, sec_fetch_site="cross-site")[0] == 403
    assert ask("/answer/decode", SMALL, sec_fetch_site="same-origin")[0] == 200
    assert ask("/answer/decode", method="GET")[0] == 405


def test_a_fault_of_podscales_own_keeps_the_page(monkeypatch):
    monkeypatch.setattr("podscale.explore.answer.answer", lambda *_: 1 / 0)
    fault = json.loads(ask("/answer/decode")[2])["faults"][0]
    assert "ZeroDivisionError" in fault["problem"]


def test_a_port_in_use_is_a_fault(capsys):
    import socket

    from topo.errors import SpecError

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SpecError, match="cannot be listened on"):
        command.explore(port=taken.getsockname()[1], browser=False)
    assert not capsys.readouterr().out


def test_loads_are_those_of_the_best_split_of_the_phase_that_is_shown():
    wide = "gpus=256&domain=8&model=deepseek-v3&cluster=h100&phase="
    pages = {phase: json.loads(ask("/loads", wide + phase)[2])["html"] for phase in ("train", "decode")}
    for phase, page in pages.items():
        split = json.loads(ask(f"/answer/{phase}", wide + phase)[2])["designs"]["a"]["row"]["strategy"]
        assert f"the traffic of the best split, EP{split['ep']:.0f} " in page
        assert "at work: " in page
    assert "at work: training" in pages["train"]
    assert "at work: decode" in pages["decode"]
    assert "at work" not in json.loads(ask("/wiring", wide + "decode")[2])["html"]


def test_a_design_that_cannot_run_is_drawn_without_loads():
    page = json.loads(ask("/loads", "gpus=8&domain=8&model=llama-3.1-405b&cluster=a100-sxm-40&phase=decode")[2])["html"]
    assert "at work" not in page
    assert "Loads:" not in page
