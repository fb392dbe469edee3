"""A Hub on 127.0.0.1: the routes that huggingface_hub asks for files, with every way in which they can fail."""

import hashlib
import json
import re
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^?]+)")


@dataclass
class FakeHub:
    """`files[repo][commit][file]` are bytes, `refs[repo][tag]` a commit; what a test changes is seen at once."""

    files: dict = field(default_factory=dict)
    refs: dict = field(default_factory=dict)
    requests: list = field(default_factory=list)
    """(method, path, headers) of each request."""
    status: int | None = None
    """Answer of every request."""
    redirect: bool = False
    """Files come from another host name, as the real Hub does it for large ones."""
    cut_after: int | None = None
    """Bytes after which the connection ends."""
    sends: bytes | None = None
    """Bytes sent instead of those that were announced."""
    gated: bool = False
    visibility: str | None = None
    """Of the repository that was made last."""
    url: str = ""

    def put(self, repo: str, commit: str, *tags: str, **files: bytes) -> None:
        named = {name.replace("__", "."): content for name, content in files.items()}
        self.files.setdefault(repo, {}).setdefault(commit, {}).update(named)
        self.refs.setdefault(repo, {}).update(dict.fromkeys(tags, commit))


@contextmanager
def running(hub: FakeHub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            _answer(self, hub)

        do_GET = do_POST = do_HEAD

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(request, hub: FakeHub) -> None:
    length = int(request.headers.get("Content-Length") or 0)
    body = request.rfile.read(length) if length else b""
    hub.requests.append((request.command, request.path, dict(request.headers)))
    if hub.status is not None:
        return _send(request, hub.status, b"no")
    if request.path.startswith("/cdn/"):
        content = next(
            c for c in _contents(hub) if hashlib.sha256(c).hexdigest() == request.path[5:]
        )
        return _content(request, hub, content, {})
    if request.command == "POST":
        return _posted(request, hub, body)
    found = _FILE.match(request.path)
    repo = found and found["repo"]
    if repo not in hub.files:
        return _send(request, 401, b"", {"X-Error-Code": "RepoNotFound"})
    if hub.gated:
        return _send(request, 403, b"", {"X-Error-Code": "GatedRepo"})
    commit = hub.refs.get(repo, {}).get(found["revision"], found["revision"])
    if commit not in hub.files[repo]:
        return _send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
    named = {"X-Repo-Commit": commit}
    content = hub.files[repo][commit].get(found["file"])
    if content is None:
        return _send(request, 404, b"", {"X-Error-Code": "EntryNotFound", **named})
    sha256 = hashlib.sha256(content).hexdigest()
    if hub.redirect:
        port = request.server.server_port
        linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
        place = {"Location": f"http://localhost:{port}/cdn/{sha256}"}
        return _send(request, 302, b"", {**named, **linked, **place})
    return _content(request, hub, content, {"ETag": f'"{sha256}"', **named})


def _posted(request, hub: FakeHub, body: bytes) -> None:
    if "Authorization" not in request.headers:
        return _send(request, 401, b"{}")
    if request.path == "/api/repos/create":
        asked = json.loads(body)
        repo = f"{asked['organization']}/{asked['name']}"
        hub.files.setdefault(repo, {})
        hub.visibility = asked.get("visibility")
        return _json(request, {"url": f"{hub.url}/{repo}", "name": repo})
    if request.path == "/api/validate-yaml":
        return _json(request, {"errors": [], "warnings": []})
    repo = re.match(r"/api/models/([^/]+/[^/]+)/", request.path)[1]
    if "/preupload/" in request.path:
        names = [one["path"] for one in json.loads(body)["files"]]
        how = {"uploadMode": "regular", "shouldIgnore": False}
        return _json(request, {"files": [{"path": name, **how} for name in names]})
    lines = [json.loads(line) for line in body.splitlines()]
    files = [line["value"] for line in lines if line["key"] == "file"]
    commit = hashlib.sha1(body).hexdigest()
    hub.files[repo][commit] = {one["path"]: b64decode(one["content"]) for one in files}
    hub.refs.setdefault(repo, {})["main"] = commit
    page = f"{hub.url}/{repo}/commit/{commit}"
    _json(request, {"success": True, "commitOid": commit, "commitUrl": page, "hookOutput": ""})


def _contents(hub: FakeHub) -> list[bytes]:
    return [c for commits in hub.files.values() for files in commits.values() for c in files.values()]  # fmt: skip


def _content(request, hub: FakeHub, content: bytes, headers: dict) -> None:
    if request.command == "GET" and hub.cut_after is not None:
        _headers(request, 200, {**headers, "Content-Length": str(len(content))})
        request.wfile.write(content[: hub.cut_after])
        request.wfile.flush()
        request.close_connection = True
        request.connection.close()
        return
    _send(request, 200, content if hub.sends is None else hub.sends, headers)


def _json(request, value) -> None:
    _send(request, 200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _send(request, status: int, content: bytes, headers: dict | None = None) -> None:
    _headers(request, status, {"Content-Length": str(len(content)), **(headers or {})})
    if request.command != "HEAD":
        request.wfile.write(content)


def _headers(request, status: int, headers: dict) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.end_headers()
