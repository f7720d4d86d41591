"""What stands before gradio's own server: which requests it hears at all, and what a browser may do with its answers.

Pictures are part of the page, so no address of the server has to give out a file.
"""

import errno
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from utils.errors import ConfigError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# gradio's addresses that read files, fetch from elsewhere, keep a visitor's state on the disk or serve its developers
CLOSED = re.compile(
    r"^/+(gradio_api/+)?(file|proxy|stream|custom_component|component_server|process_recording|deep_link|run-history"
    r"|runs|dev|vibe|mcp|profiling|monitoring|undo-vibe)",
    re.IGNORECASE,
)
# Scripts are gradio's own; it makes functions from text, and writes its settings into the page.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; worker-src 'self' "
    "blob:; form-action 'none'; base-uri 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def check_address(host: str, port: int) -> None:
    """Raise ConfigError where no page can be served: no host of this machine, or a port that is taken or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or " ", port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(address)
            own.listen()
    except (OSError, UnicodeError) as error:
        number = None if isinstance(error, (socket.gaierror, UnicodeError)) else error.errno
        if number == errno.EADDRINUSE:
            raise ConfigError(f"--port {port} of '{host}' is taken; name another") from error
        if number in (errno.EACCES, errno.EPERM):
            raise ConfigError(f"--port {port} is not open to this user; name one above 1023") from error
        raise ConfigError(f"--host '{host}' is no address of this machine; name one, such as 127.0.0.1") from error


def is_local(host: str) -> bool:
    """Return whether a server that listens on `host` is heard on this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def why_refused(path: str, host: str, origin: str, local: bool) -> str:
    """Return why a request is not answered, '' = it is.

    `path` is decoded, `host` and `origin` are the headers, '' = there is none. A `local` server answers to its own
    names alone, or a page from elsewhere whose name leads here could read it (DNS rebinding).
    """
    if CLOSED.match(path):
        return "this address is closed"
    if local and not is_local(urlsplit(f"//{host}").hostname or ""):
        return "this server is called localhost"
    if origin and urlsplit(origin).netloc != host:
        return "the request comes from another page"
    return ""


class Guard:
    """ASGI middleware around `app` that refuses requests with 403 as `why_refused` says, and adds HEADERS to answers.

    Sockets, which gradio does not use, are closed to all.
    """

    def __init__(self, app: App, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        given = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        try:
            reason = why_refused(scope["path"], given.get(b"host", ""), given.get(b"origin", ""), self._local)
        except ValueError:  # a host that is none
            reason = "the request names no host"
        if not reason:
            await self._app(scope, receive, _with_headers(send))
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": reason.encode()})


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return answer
