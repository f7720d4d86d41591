"""Headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/) by its chromedriver."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
)
START_S = 30


class Browser:
    """One browser window; every method raises on an error of the driver."""

    def __init__(self, port: int, profile: Path) -> None:
        self._root = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/session/{session['sessionId']}"

    def _call(self, path: str, content: dict | None = None, method: str | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        """Load a file."""
        self._call("/url", {"url": path.resolve().as_uri()})

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        return self._call("/execute/sync", {"script": f"return {expression}", "args": []})

    def console(self) -> list[str]:
        """Return what the console has shown since the last call."""
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"})]

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page `width` CSS pixels wide, also narrower than a window can be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._command("Emulation.setDeviceMetricsOverride", metrics)

    def darken(self) -> None:
        """Prefer dark colours."""
        wish = {"name": "prefers-color-scheme", "value": "dark"}
        self._command("Emulation.setEmulatedMedia", {"features": [wish]})

    def screenshot(self, path: Path) -> None:
        """Save a picture of the whole page as a PNG."""
        path.write_bytes(
            base64.b64decode(self._command("Page.captureScreenshot", {"captureBeyondViewport": True})["data"])
        )

    def _command(self, name: str, params: dict) -> Any:
        return self._call("/goog/cdp/execute", {"cmd": name, "params": params})

    def close(self) -> None:
        """Close the window."""
        self._call("", method="DELETE")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Yield a window with an empty profile; driver and browser end with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{port}/status")
        window = Browser(port, profile)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait(START_S)


def _wait_for(address: str) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
