"""A hub of one process: what the client of the Hugging Face hub asks of it to make, fill and read repositories."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


class Hub:
    """The repositories: their files by name, and how many commits each has; `made` says which are private."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, int] = {}
        self.made: dict[str, bool] = {}
        self.asked: list[str] = []

    def commit_of(self, repository: str) -> str:
        return hashlib.sha1(f"{repository} {self.commits[repository]}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one `Hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: requests stand in `Hub.asked`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, content: Any, code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        self.hub.asked.append(f"POST {self.path}")
        body, parts = self._body(), self.path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if parts == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts == ["api", "validate-yaml"]:  # of a card
            return self._answer({"errors": [], "warnings": []})
        repository = "/".join(parts[2:4])
        if parts[4] == "preupload":
            return self._answer({"files": [_mode(one) for one in json.loads(body)["files"]]})
        if parts[4] == "commit":
            return self._commit(repository, [json.loads(line) for line in body.splitlines() if line.strip()])
        return self._answer({}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        if repository in self.hub.made:
            return self._answer({"error": "exists", "url": f"{self.url}/{repository}"}, 409)
        self.hub.made[repository] = bool(asked.get("private") or asked.get("visibility") == "private")
        self.hub.files[repository], self.hub.commits[repository] = {}, 0
        return self._answer({"url": f"{self.url}/{repository}", "id": repository, "name": repository})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[repository][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del self.hub.files[repository][value["path"]]
        self.hub.commits[repository] += 1
        commit = self.hub.commit_of(repository)
        self._answer({"commitUrl": f"{self.url}/{repository}/commit/{commit}", "commitOid": commit, "success": True})

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._about("/".join(parts[2:4]), parts[4:])
        repository = "/".join(parts[:2])
        files = self.hub.files.get(repository, {})
        if parts[2] != "resolve" or parts[4] not in files:
            return self._answer({"error": "no such file"}, 404, X_Error_Code="EntryNotFound")
        content = files[parts[4]]
        tag = hashlib.sha256(content).hexdigest()
        return self._answer(content, ETag=f'"{tag}"', X_Repo_Commit=self.hub.commit_of(repository))

    do_HEAD = do_GET

    def _about(self, repository: str, rest: list[str]) -> None:
        if repository not in self.hub.made:
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        names = self.hub.files[repository]
        if rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": name, "size": len(names[name]), "oid": "0" * 40} for name in names]
            return self._answer(tree)
        content = {"id": repository, "modelId": repository, "sha": self.hub.commit_of(repository), "tags": []}
        content |= {"private": self.hub.made[repository], "siblings": [{"rfilename": name} for name in names]}
        return self._answer(content)


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    """Return how a file comes: within the commit. The real hub takes large ones another way, which the client knows."""
    return {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}


@contextmanager
def serving() -> Iterator[tuple[str, Hub]]:
    """Yield (URL, hub) of a hub that answers on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
