"""A server of the explorer on a free port, and a browser to look at it with."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def explorer():
    """The address of a running explorer, a process of its own; Ctrl-C ends it well."""
    pytest.importorskip("uvicorn", reason="the extra [explore] is not installed")
    start = "from podscale.commands.explore import explore; explore(port=0, browser=False, as_json=True)"
    command = [sys.executable, "-c", start]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  (our own words)
        yield json.loads(server.stdout.readline())["url"]
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=10) == 0


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window: Debian's, the one that PODSCALE_CHROMIUM names, or Playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser test can run")
    found = os.environ.get("PODSCALE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with api.sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser can be had (apt-get install chromium): {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def look(browser):
    """Open a page; whatever the page complains about fails the test."""
    contexts, complaints = [], []

    def opened(url, *, dark=False, width=1280, height=900):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def accessible():
    """Check a page with axe-core: nothing serious, nothing critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def check(page):
        found = axe.Axe().run(page).response["violations"]
        assert [(fault["id"], fault["help"]) for fault in found if fault["impact"] in ("serious", "critical")] == []

    return check
