"""A stand-in for the Hugging Face hub on the loopback: what a download asks of it, and the troubles that it can have."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubStandIn:
    """``files`` maps "owner/repo/name" to content. What clients did is in ``gets`` (path, range, authorization)."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)  # repositories that want the token "good"
    etags: dict[str, str] = field(default_factory=dict)  # to give in place of the sha256
    serve_only: int | None = None  # bytes of a body after which the connection breaks, and everything fails from then on
    redirect: bool = False  # send bodies from another host, as the hub does
    url: str = ""
    gets: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return len(self.gets)


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    hub = HubStandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(?:\?.*)?", self.path):
            self.listing(match[1])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            self.file(match[1], match[2], body=body)
        elif match := re.fullmatch(r"/cdn/(.+)", self.path):
            self.send(self.hub.files[match[1]], body=body)
        else:
            self.refuse(404, "RepoNotFound")

    def listing(self, repo: str) -> None:
        names = [path.removeprefix(f"{repo}/") for path in self.hub.files if path.startswith(f"{repo}/")]
        if not names:
            return self.refuse(404, "RepoNotFound")
        found = json.dumps({"id": repo, "siblings": [{"rfilename": n} for n in names]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)
        return None

    def file(self, repo: str, name: str, *, body: bool) -> None:
        if repo in self.hub.gated and self.headers.get("Authorization") != "Bearer good":
            return self.refuse(401, "GatedRepo")
        content = self.hub.files.get(f"{repo}/{name}")
        if content is None:
            known = any(path.startswith(f"{repo}/") for path in self.hub.files)
            return self.refuse(404, "EntryNotFound" if known else "RepoNotFound")
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{self.hub.etags.get(name) or hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
        }
        if self.hub.redirect:
            self.send_response(302)
            elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
            for key, value in headers.items() | {("Location", f"{elsewhere}/cdn/{repo}/{name}"), ("Content-Length", "0")}:
                self.send_header(key, value)
            self.end_headers()
            return None
        return self.send(content, headers, body=body)

    def send(self, content: bytes, headers: dict[str, str] | None = None, *, body: bool) -> None:
        asked = self.headers.get("Range", "")
        if body:
            self.hub.gets.append((self.path, asked, self.headers.get("Authorization", "")))
        if body and self.hub.serve_only == 0:
            return self.refuse(503, "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body and self.hub.serve_only is not None:
            self.wfile.write(content[start : start + self.hub.serve_only])
            self.hub.serve_only = 0
            self.close_connection = True
        elif body:
            self.wfile.write(content[start:])
        return None

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
