"""`podscale explore`: a local page on which a design is changed by hand and its answer follows."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from podscale.commands.options import AsJson, Quiet
from podscale.door import console, to_json
from topo.errors import Fault, SpecError

if TYPE_CHECKING:
    import socket


def explore(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this computer's ask for trust.")] = (
        "127.0.0.1"
    ),
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Serve the explorer: drag a domain or a link, and watch speed, terms, memory and wiring follow. Ctrl-C stops it."""
    _check_extra()
    import uvicorn

    from podscale.explore.app import is_local, make_app

    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listener.getsockname()[1]}/"
    app = make_app() if is_local(host) else make_app(("*",))
    if as_json:
        sys.stdout.write(to_json({"url": url}) + "\n")
        sys.stdout.flush()
    elif not quiet:
        console().print(f"podscale explorer: {url} (Ctrl-C stops it)", markup=False, soft_wrap=True)
        if not is_local(host):
            console(stderr=True).print("Whoever reaches this address can ask for answers.", style="yellow")
    if browser and not as_json:
        import webbrowser

        webbrowser.open(url)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", server_header=False))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # how a server is meant to end
        pass
    finally:
        listener.close()


def _check_extra() -> None:
    """Refuse where the extra is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        remedy = "install the extra: pip install 'podscale[explore]'"
        raise SpecError([Fault("explore", None, f"needs {' and '.join(missing)}, which is not here", remedy)])


def _listen(host: str, port: int) -> "socket.socket":
    """Return a socket that listens, before anything is said about an address."""
    import socket

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        remedy = "choose another, or --port 0 for a free one"
        fault = Fault("--port", port, f"cannot be listened on at {host} ({error.strerror or error})", remedy)
        raise SpecError([fault]) from None
