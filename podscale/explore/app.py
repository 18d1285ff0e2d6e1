"""The server of the explorer: one page, its script and style sheet, and the answers to its states.

A state comes as the text of an address in the body of a POST and goes no further than `state.parse`. Nothing is stored,
nothing that was sent is run, and no file of this machine is opened by a name that was sent. One thread answers, one
request after another; requests that nobody waits for any more are passed over.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podscale.door import plain
from podscale.explore.state import MOST_TEXT, PHASES, State, parse
from topo.errors import PodscaleError, SpecError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BYTES = 12 * MOST_TEXT + 8192
"""Of a body: four pasted files, each character at most three bytes of an address."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every reply. Styles stand in the page for the lengths of bars; scripts come from the script's file alone."""

_PAGE = Path(__file__).parent / "page"
_FILES = {"explore.js": "text/javascript", "explore.css": "text/css"}

Reply = dict[str, Any]


def answered(state: State, phase: str) -> Reply:
    """Reply with one phase: its numbers, and the parts of the page that show them."""
    from podscale.explore import view
    from podscale.explore.answer import answer

    found = answer(state, phase)
    settled = {side: held["settled"] for side, held in found["designs"].items()}
    return {**found, "settled": settled, "html": view.fragments(found, state)}


def wired(state: State, *, loads: bool = False) -> Reply:
    """Reply with the drawings of the wirings."""
    from podscale.explore import view
    from podscale.explore.answer import wiring

    return {"html": view.wirings(wiring(state, loads=loads))}


def assumed(state: State) -> Reply:
    """Reply with what the answers rest on."""
    from podscale.explore import view
    from podscale.explore.answer import assumptions

    return {"html": view.assumptions(assumptions(state))}


def specified(state: State) -> Reply:
    """Reply with the files and commands that reproduce the designs, and what their own files would start from."""
    from podscale.explore import view
    from podscale.explore.designs import command, files, texts

    found = {}
    for side, design in state.designs.items():
        mark = f"-{side}" if state.compare else ""
        found[side] = {"command": command(design, mark), "files": files(design, mark), "texts": texts(design)}
    return {"specs": found, "html": view.specs(found)}


QUESTIONS: dict[str, Callable[[State], Reply]] = {
    **{f"/answer/{phase}": partial(answered, phase=phase) for phase in PHASES},
    "/wiring": wired,
    "/loads": partial(wired, loads=True),
    "/spec": specified,
    "/assumptions": assumed,
}
"""Address -> what it replies to a state."""


def make_app(hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")) -> "Starlette":
    """Return the application.

    Parameters
    ----------
    hosts
        Names under which it may be asked for; another name in a request is refused, so that no web page can reach a
        server on this computer by pointing its own name here.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.routing import Route

    worker = Worker()
    routes = [Route("/", partial(_page, worker)), *(Route(f"/{name}", _file) for name in _FILES)]
    routes += [Route(path, partial(_asked, worker, reply), methods=["POST"]) for path, reply in QUESTIONS.items()]
    hosts_only = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[Middleware(Guarded), hosts_only])


class Worker:
    """The one thread that answers."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "podscale-explore")
        self._free = asyncio.Lock()

    async def run(self, request: "Request", work: Callable[..., Any], *given: Any) -> Any:
        """Return what `work` returns, or None if the asker has left before it began."""
        async with self._free:
            if await request.is_disconnected():
                return None
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)


class Guarded:
    """Puts `HEADERS` on every reply, and refuses what another site's page asks."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle one request."""

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        app = self.app
        if scope["type"] == "http" and scope["method"] == "POST" and _foreign(dict(scope["headers"])):
            app = _json({"faults": [_fault("request", "comes from another site")]}, 403)
        await app(scope, receive, send_guarded)


def _foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a browser says that another site's page asks."""
    return headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none")


async def _page(worker: Worker, request: "Request") -> "Response":
    """Reply with the page."""
    from starlette.responses import HTMLResponse

    from podscale.explore import view

    return HTMLResponse(await worker.run(request, view.page))


async def _file(request: "Request") -> "Response":
    """Reply with the script or the style sheet."""
    from starlette.responses import Response

    name = request.url.path.lstrip("/")
    return Response((_PAGE / name).read_bytes(), media_type=_FILES[name])


async def _asked(worker: Worker, reply: Callable[[State], Reply], request: "Request") -> "Response":
    """Read a state and reply to it."""
    body = await _body(request)
    if body is None:
        remedy = f"paste files of {MOST_TEXT:,} characters at most"
        return _json({"faults": [_fault("request", f"is larger than {MOST_BYTES:,} bytes", remedy)]}, 413)
    return _json(await worker.run(request, _replied, reply, body) or {})


async def _body(request: "Request") -> bytes | None:
    """Read the body, or return None as soon as it is too large."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return body


def _replied(reply: Callable[[State], Reply], body: bytes) -> Reply:
    """Return the reply to a state, or its faults with the table that shows them (which is a good answer, too: 200)."""
    from podscale.explore import view
    from podscale.explore.answer import faults_of

    compare = False
    try:
        state = parse(body.decode("utf-8", errors="replace"))
        compare = state.compare
        return reply(state)
    except SpecError as error:
        found = faults_of(error)
    except PodscaleError as error:
        found = [_fault("design", str(error))]
    except Exception as error:  # a fault of podscale's own must not take the page with it
        problem = f"made podscale fail, {type(error).__name__}: {error}"
        found = [_fault("design", problem, "change a setting, and please report this one")]
    return {"faults": found, "html": view.faults(found, compare=compare)}


def _fault(label: str, problem: str, remedy: str = "") -> Reply:
    """Return a fault of no control."""
    return {**_NO_CONTROL, "label": label, "problem": problem, "remedy": remedy}


_NO_CONTROL: Reply = {"side": "a", "control": "", "place": "", "value": None}


def _json(document: Reply, status: int = 200) -> "Response":
    """Return a document as JSON without NaN."""
    from starlette.responses import JSONResponse

    return JSONResponse(plain(document), status)


def is_local(host: str) -> bool:
    """Tell whether an address is reached from this computer alone.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
