"""Headless Chromium, driven over its own pipe (https://chromedevtools.github.io/devtools-protocol/): no driver."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    "--remote-debugging-pipe",
)
READ, WRITE = 3, 4  # the files of the pipe, as Chromium sees them
END = b"\0"  # of a message
END_S = 30


class Browser:
    """One page; every method raises on an error that the browser reports."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = os.fdopen(reader, "rb"), os.fdopen(writer, "wb")
        self._count, self._session, self._buffer = 0, {}, b""
        self._messages: list[dict[str, Any]] = []  # events that came while an answer was awaited
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        self._writer.write(json.dumps(message).encode() + END)
        self._writer.flush()
        while (answer := self._read()).get("id") != self._count:
            self._messages.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while END not in self._buffer:
            content = self._reader.read1()
            if not content:
                raise RuntimeError("the browser has ended")
            self._buffer += content
        message, self._buffer = self._buffer.split(END, 1)
        return json.loads(message)

    def open(self, page: Path | str) -> None:
        """Load a file, or a page by its address, to its end."""
        self._messages = [one for one in self._messages if one.get("method") != "Page.loadEventFired"]
        self._call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(one.get("method") == "Page.loadEventFired" for one in self._messages):
            self._messages.append(self._read())

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = END_S) -> None:
        """Wait until a JavaScript expression is true; TimeoutError where that takes longer."""
        end = time.monotonic() + seconds
        while not self.ask(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(f"not true within {seconds} s: {condition}")
            time.sleep(0.05)

    def middle_of(self, selector: str) -> tuple[float, float]:
        """Return the middle of the first element of a selector, scrolled into view, in CSS pixels of the window."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.ask(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.ask(f"(box => [box.x, box.y, box.width, box.height])({element}.getBoundingClientRect())")
        return box[0] + box[2] / 2, box[1] + box[3] / 2

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element."""
        x, y = self.middle_of(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drop(self, file: Path, selector: str) -> None:
        """Drag a file from outside the browser onto an element and drop it there."""
        x, y = self.middle_of(selector)
        data = {"items": [], "files": [str(file.resolve())], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def type(self, words: str) -> None:
        """Type words, then Enter, where the caret is."""
        self._call("Input.insertText", text=words)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self._call("Input.dispatchKeyEvent", type="keyDown", text="\r", **enter)
        self._call("Input.dispatchKeyEvent", type="keyUp", **enter)

    def addresses(self) -> list[str]:
        """Return the address of every request so far."""
        asked = (one["params"]["request"] for one in self._messages if one.get("method") == "Network.requestWillBeSent")
        return [request["url"] for request in asked]

    def console(self) -> list[str]:
        """Return what the console has shown so far."""
        shown = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [json.dumps(one["params"]) for one in self._messages if one.get("method") in shown]

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page `width` CSS pixels wide, also narrower than a window can be."""
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", **sizes)

    def prefer(self, scheme: str) -> None:
        """Prefer `dark` or `light` colours."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        """Save a picture of the whole page as a PNG."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def close(self) -> None:
        """Close the browser, which ends it."""
        self._session = {}
        self._call("Browser.close")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Yield a page of a browser with an empty profile, which ends with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    ours, theirs = (from_browser[0], to_browser[1]), (to_browser[0], from_browser[1])
    moves = f'exec {READ}<&{theirs[0]} {WRITE}>&{theirs[1]} "$@"'
    command = ["bash", "-c", moves, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, pass_fds=theirs, **quiet)
    for end in theirs:
        os.close(end)
    window = None
    try:
        window = Browser(*ours)
        yield window
    finally:
        if window is not None:
            with suppress(RuntimeError, OSError):
                window.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        process.kill()
        process.wait()
