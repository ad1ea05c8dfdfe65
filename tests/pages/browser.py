"""Headless Chromium by way of chromedriver, which speaks the WebDriver protocol over HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # A page that needs the network must fail here, wherever the test runs.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
PATIENCE_S = 120.0


def require_chromium() -> tuple[str, str]:
    """Paths of the browser and its driver; the calling test is skipped when one is missing."""
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("needs chromium and chromedriver on PATH")
    return browser, driver


class Browser:
    """One browser window."""

    def __init__(self, session_url: str) -> None:
        self._url = session_url

    def open(self, page: Path) -> None:
        """Load a file and wait until all its figures are drawn."""
        self.call("url", {"url": page.absolute().as_uri()})
        end = time.monotonic() + PATIENCE_S
        while self.run("return document.documentElement.dataset.figures") is None:
            assert time.monotonic() < end, f"figures are not drawn; console: {self.console()}"
            time.sleep(0.1)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self.call("execute/sync", {"script": script, "args": list(arguments)})

    def console(self) -> list[str]:
        """Messages since the last call, of every level but debug."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.call("se/log", {"type": "browser"})]

    def emulate(self, *, dark: bool) -> None:
        """Prefer a colour scheme."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def resize(self, width: int, height: int) -> None:
        """Set the size of the page on screen, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", size)
        time.sleep(0.5)

    def screenshot(self, file: Path) -> None:
        """A PNG of the whole page at its present width."""
        size = self.devtools("Page.getLayoutMetrics", {})["cssContentSize"]
        before = self.run("return [innerWidth, innerHeight]")
        # A window as high as the page: what lies outside the window is not drawn reliably.
        self.resize(before[0], size["height"])
        file.write_bytes(base64.b64decode(self.devtools("Page.captureScreenshot", {})["data"]))
        self.resize(*before)

    def print(self, file: Path) -> None:
        """A PDF of the page as it would be printed."""
        pdf = self.devtools("Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True})
        file.write_bytes(base64.b64decode(pdf["data"]))

    def devtools(self, command: str, parameters: Mapping[str, Any]) -> Any:
        """A command of the Chrome DevTools protocol."""
        return self.call("goog/cdp/execute", {"cmd": command, "params": dict(parameters)})

    def call(self, path: str, body: Mapping[str, Any]) -> Any:
        """A WebDriver command on this window's session."""
        return _post(f"{self._url}/{path}", body)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in an empty folder; it and its driver end with the block."""
    chromium, chromedriver = require_chromium()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(
        [chromedriver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_until_ready(base)
        session = _post(f"{base}/session", _capabilities(chromium, profile))
        url = f"{base}/session/{session['sessionId']}"
        try:
            yield Browser(url)
        finally:
            _request("DELETE", url, None)
    finally:
        driver.terminate()
        driver.wait(timeout=30)


def _capabilities(chromium: str, profile: Path) -> dict[str, Any]:
    options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
    wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "INFO"}}
    return {"capabilities": {"alwaysMatch": wanted}}


def _wait_until_ready(base: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            if _request("GET", f"{base}/status", None)["ready"]:
                return
        except OSError:
            pass
        assert time.monotonic() < end, "chromedriver does not start"
        time.sleep(0.1)


def _post(url: str, body: Mapping[str, Any]) -> Any:
    return _request("POST", url, json.dumps(body).encode())


def _request(method: str, url: str, body: bytes | None) -> Any:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method=method)
    # The driver is on this machine: a proxy from the environment must not see it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.read().decode()[:500]}") from None
