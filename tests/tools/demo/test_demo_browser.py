"""The page in headless Chromium, with gradio and a tiny model: an image dropped, cameras chosen, a sentence typed."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.pages import ROOT
from tests.tools.irra_runs import write_irra_run
from tests.tools.photos import write_photos
from tests.tools.report.browser import CHROMIUM, Browser, browser
from tools.feature_extractor import FeatureExtractor

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio (requirements-demo.txt)"),
]
STOP_S = 60
WAIT_S = 120  # for an answer of the page, on a machine that is busy
CARDS = "document.querySelectorAll('.reid ol:not(.query) li')"
STATUS = "[...document.querySelectorAll('.reid p')].map(one => one.textContent).join('|')"


class Server(NamedTuple):
    """A page that is served."""

    address: str  # ends with /
    uploads: Path
    process: subprocess.Popen


@contextmanager
def served(run: Path, gallery: Path, place: Path, ending: int = signal.SIGINT) -> Iterator[Server]:
    """Serve a run and a gallery as a user does; Ctrl-C or another `ending` ends it well and leaves no upload."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--run", run, "--gallery", gallery, "--port", port, "--uploads", place / "uploads"]
    command = [sys.executable, "-m", "tools.demo", *map(str, words)]
    environment = os.environ | {"GRADIO_SHARE": "True", "GRADIO_ALLOWED_PATHS": "/", "GRADIO_ANALYTICS_ENABLED": "True"}
    with open(place / "stderr", "w") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        try:
            line = process.stdout.readline()
            assert line == f"open http://127.0.0.1:{port}/\n", line + (place / "stderr").read_text()
            yield Server(line.split()[1], place / "uploads", process)
            process.send_signal(ending)
            assert process.wait(STOP_S) == (0 if ending == signal.SIGINT else 128 + ending)
            assert list((place / "uploads").iterdir()) == []
        finally:
            process.kill()
            process.wait()


def shown(window: Browser) -> list[tuple[str, float]]:
    """Return name and similarity of the results on the page, in order."""
    pairs = window.ask(f"[...{CARDS}].map(card => [card.title, card.querySelector('.value').textContent])")
    ranks = [int(words.split(". ")[0]) for _, words in pairs]
    assert ranks == list(range(1, len(pairs) + 1))
    return [(name, float(words.split(". ")[1])) for name, words in pairs]


def assert_ranked(window: Browser, query: np.ndarray, feat: dict[str, np.ndarray], number: int) -> None:
    """Assert that the page shows what a naive loop over embeddings by name finds."""
    cosines = {name: float(query.astype(float) @ one.astype(float)) for name, one in feat.items()}
    best = sorted(cosines, key=lambda name: (-round(cosines[name], 9), name))[:number]
    found = shown(window)
    assert [value for _, value in found] == pytest.approx([cosines[name] for name in best], abs=1e-4)
    assert [value for _, value in found] == pytest.approx([cosines[name] for name, _ in found], abs=1e-4)
    assert len({name for name, _ in found}) == min(number, len(feat))


def status(address: str, data: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Return the status and the text with which the server answers."""
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def assert_no_file_is_given_out(server: Server, gallery: Path) -> None:
    """Ask for files as a stranger would: outside the gallery, in it, by links, by .., through an upload's path."""
    secret = gallery.parent / "secret.txt"
    secret.write_text("the secret")
    (gallery / "link.txt").symlink_to(secret)
    (gallery / "notes.txt").write_text("the secret")
    inside = str(gallery / "notes.txt")
    paths = ["/etc/passwd", str(secret), str(gallery / "link.txt"), f"{gallery}/../secret.txt", inside, "README.md"]
    paths += [f"{gallery}/%2e%2e/secret.txt", "http://127.0.0.1:1/", str(next(gallery.glob("*.jpg")))]
    for path in paths:
        for start in ("gradio_api/file=", "file=", "gradio_api/file/", "gradio_api/%66ile=", "gradio_api/proxy="):
            code, answer = status(server.address + start + path)
            assert code in (403, 404) and "secret" not in answer.replace(path, ""), (start, path, code)
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert status(f"{server.address}config", **headers)[0] == 403
    code, answer = status(f"{server.address}config")
    config = json.loads(answer)
    assert code == 200 and config["analytics_enabled"] is False and "secret" not in answer
    for path in (str(secret), inside, "http://127.0.0.1:1/a.png", "../secret.txt"):
        assert_a_path_is_no_upload(server, config, path)


def assert_a_path_is_no_upload(server: Server, config: dict, path: str) -> None:
    """Send a path in the place of an upload to each function of the page."""
    boxes = {part["id"] for part in config["components"] if part["type"] == "file"}
    values = {part["id"]: part["props"].get("value") for part in config["components"]}
    uses = [one for one in config["dependencies"] if boxes & set(one["inputs"])]
    assert uses
    for use in uses:
        file = {"path": path, "url": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
        data = [file if part in boxes else values[part] for part in use["inputs"]]
        body = {"data": data, "fn_index": use["id"], "session_hash": "stranger", "event_data": None, "trigger_id": None}
        kind = {"Content-Type": "application/json"}
        code, answer = status(f"{server.address}gradio_api/queue/join", json.dumps(body).encode(), **kind)
        if code == 200:
            answer = status(f"{server.address}gradio_api/queue/data?session_hash=stranger")[1]
            assert '"success":false' in answer or "no file that was uploaded here" in answer, answer
        assert "the secret" not in answer


def test_an_image_is_dropped_cameras_are_chosen_and_nothing_else_is_given_out(trained_run, tiny_root, tmp_path):
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    for path in sorted((tiny_root / "VeRi" / "image_test").iterdir()):
        (gallery / path.name).write_bytes(path.read_bytes())
    query = sorted((tiny_root / "VeRi" / "image_query").iterdir())[4]
    extractor = FeatureExtractor.from_run(trained_run)
    feat = {path.name: extractor(str(path))[0].numpy() for path in sorted(gallery.iterdir())}
    wanted = extractor(str(query))[0].numpy()
    with served(trained_run, gallery, tmp_path) as server, browser(tmp_path / "profile") as window:
        window.resize(1280)
        window.open(server.address)
        window.until("document.querySelector('button[aria-dropeffect], [type=file]')", WAIT_S)
        window.drop(query, ".block:has([type=file]) button")
        window.until(f"{CARDS}.length == 12", WAIT_S)
        assert_ranked(window, wanted, feat, 12)
        assert shown(window)[0] == (query.name, 1.0)
        assert not [path for path in server.uploads.rglob("*") if path.is_file()], "the upload is gone"
        before = window.ask(f"{CARDS}[0].querySelector('img').src")
        window.click("input[type=checkbox]")
        window.until(f"{CARDS}[0].querySelector('img').src != {json.dumps(before)}", WAIT_S)
        window.click("input[role=listbox], [role=combobox] input, .block input[aria-expanded]")
        window.until("document.querySelector('[role=option]')", WAIT_S)
        window.click("[role=option]:nth-of-type(2)")
        window.until(f"[...{CARDS}].every(card => card.title.includes('_c002_'))", WAIT_S)
        assert_ranked(window, wanted, {name: one for name, one in feat.items() if "_c002_" in name}, 12)
        for width in (390, 1280):
            window.resize(width)
            assert window.ask("document.documentElement.scrollWidth") <= width
        assert all(address.startswith((server.address, "data:", "blob:")) for address in window.addresses())
        assert_no_file_is_given_out(server, gallery)


def test_a_sentence_is_typed_and_an_upload_that_is_no_image_is_told(tmp_path):
    run = write_irra_run(tmp_path / "run")
    photos = write_photos(tmp_path / "photos")
    extractor = FeatureExtractor.from_run(run)
    folder = tmp_path / "photos"
    feat = {Path(path).relative_to(folder).as_posix(): extractor(path)[0].numpy() for path in photos}
    sentence = "a woman in a red coat"
    with served(run, folder, tmp_path, signal.SIGHUP) as server, browser(tmp_path / "profile") as window:
        window.open(server.address)
        window.until("document.querySelector('textarea')", WAIT_S)
        window.click("textarea")
        window.type(sentence)
        window.until(f"{CARDS}.length == 6", WAIT_S)
        assert_ranked(window, extractor.embed_texts(sentence)[0].numpy(), feat, 6)
        assert sentence in window.ask(STATUS)
        bad = tmp_path / "hostile<img src=x onerror=document.title=1>.jpg"
        bad.write_text("hello")
        window.drop(bad, ".block:has([type=file]) button")
        window.until("document.querySelector('.reid .error')", WAIT_S)
        assert "is no image that can be read (not an image, or none of" in window.ask(STATUS)
        assert window.ask("document.title") != "1" and len(shown(window)) == 6, "the old results stay"
        assert not [path for path in server.uploads.rglob("*") if path.is_file()]
    assert "Traceback" not in (tmp_path / "stderr").read_text()
