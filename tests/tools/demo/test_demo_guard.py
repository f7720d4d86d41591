"""What the server of the page answers: its own page alone, to its own names, and never a file."""

import asyncio
import re
import socket
from typing import Any

import pytest

from tools.demo.guard import POLICY, Guard, check_address, is_local, why_refused
from utils.errors import ConfigError

HERE = "127.0.0.1:7860"


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/file=/etc/passwd", "/file=/etc/passwd", "/gradio_api/file/etc/passwd", "/file/etc/passwd"),
        *("/gradio_api/file=http://example.com/", "/gradio_api/proxy=https://example.com/", "/proxy=x"),
        *("/gradio_api/stream/a/b/1/playlist.m3u8", "/gradio_api/custom_component/1/client/a/b.js", "/monitoring"),
        *("/gradio_api/deep_link", "/gradio_api/run-history/records", "/gradio_api/vibe-code/", "/gradio_api/mcp/"),
        *("//gradio_api//file=/etc/passwd", "/GRADIO_API/FILE=/etc/passwd", "/gradio_api/dev/reload"),
    ],
)
def test_addresses_that_give_out_files_or_fetch_are_closed(path):
    assert why_refused(path, HERE, "", True) == why_refused(path, HERE, "", False) == "this address is closed"


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/FileUpload-a1.js", "/assets/stream-1.js", "/static/fonts/x.woff2"]
    + [f"/gradio_api/{name}" for name in ("queue/join", "queue/data", "upload", "heartbeat/x", "startup-events")],
)
def test_the_page_itself_is_open(path):
    assert why_refused(path, HERE, "", True) == why_refused(path, HERE, f"http://{HERE}", True) == ""


@pytest.mark.parametrize(
    ("host", "origin", "local", "reason"),
    [
        ("localhost:7860", "http://localhost:7860", True, ""),
        ("[::1]:7860", "http://[::1]:7860", True, ""),
        ("localhost", "", True, ""),
        ("evil.example:7860", "http://evil.example:7860", True, "this server is called localhost"),
        ("", "", True, "this server is called localhost"),
        ("127.0.0.1.evil.example", "", True, "this server is called localhost"),
        ("box.lan:7860", "http://box.lan:7860", False, ""),
        (HERE, "https://evil.example", True, "the request comes from another page"),
        (HERE, "http://127.0.0.1:9999", True, "the request comes from another page"),
        (HERE, "null", True, "the request comes from another page"),
        ("box.lan:7860", "http://evil.example", False, "the request comes from another page"),
    ],
)
def test_pages_and_names_from_elsewhere_are_refused(host, origin, local, reason):
    assert why_refused("/config", host, origin, local) == reason


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.0.0.2", True), ("0.0.0.0", False), ("::", False)]
    + [("192.168.0.7", False), ("box.lan", False), ("localhost.evil.example", False), ("", False)],
)
def test_only_loopback_is_local(host, local):
    assert is_local(host) == local


def ask(scope: dict[str, Any], local: bool = True) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a guarded application sends for a request, and the kinds of requests that reached it."""
    sent, reached = [], []

    async def app(scope: dict[str, Any], receive: object, send: Any) -> None:
        reached.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
            await send({"type": "http.response.body", "body": b"page"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(Guard(app, local)(scope, None, send))
    return sent, reached


def test_an_answer_carries_the_policy_and_a_refusal_never_reaches_the_application():
    scope = {"type": "http", "path": "/", "headers": [(b"host", HERE.encode())]}
    (start, body), reached = ask(scope)
    assert (start["status"], body["body"], reached) == (200, b"page", ["http"])
    assert dict(start["headers"]) | {b"content-security-policy": POLICY.encode(), b"x-own": b"1"} == dict(
        start["headers"]
    )
    for changed in ({"path": "/gradio_api/file=/etc/passwd"}, {"headers": []}, {"headers": [(b"host", b"[::1")]}):
        (start, body), reached = ask(scope | changed)
        assert (start["status"], reached) == (403, []) and b"/etc" not in body["body"]


def test_sockets_are_closed_and_the_start_of_the_server_passes():
    assert ask({"type": "websocket", "path": "/", "headers": []}) == ([{"type": "websocket.close", "code": 1008}], [])
    assert ask({"type": "lifespan"}) == ([], ["lifespan"])


def test_the_policy_names_no_place_but_the_page_itself():
    words = {word for rule in POLICY.split("; ") for word in rule.split()[1:]}
    assert words == {"'none'", "'self'", "'unsafe-inline'", "'unsafe-eval'", "data:", "blob:"}


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "--port {port} of '127.0.0.1' is taken; name another"),
        ("", "--host '' is no address of this machine"),
        ("http://127.0.0.1", "--host 'http://127.0.0.1' is no address of this machine"),
        ("192.0.2.1", "--host '192.0.2.1' is no address of this machine"),
        ("a" * 99, "is no address of this machine"),
    ],
)
def test_where_no_page_can_be_served_is_told_before_anything_is_read(host, said):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=re.escape(said.format(port=port))):
            check_address(host, port)
    check_address("127.0.0.1", port)
    check_address("0.0.0.0", port)
