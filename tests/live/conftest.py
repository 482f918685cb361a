"""Stand-ins for sites: one whose every answer a test dictates, and the shipped one with real media."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from biliupd.rehearsal.live_site import LiveSite


@dataclass
class Reply:
    """`silent`: say nothing; `then_silent`: say it, but do not end; `length`: of the body, as promised."""

    status: int = 200
    body: bytes = b""
    silent: bool = False
    then_silent: bool = False
    location: str = ""
    length: int | None = None


@dataclass
class Script:
    """A server that answers as told and remembers what it was asked."""

    url: str
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def says(self, path: str, **reply: object) -> None:
        """From now on, this is the answer to a GET of `path`."""
        self.replies[path] = Reply(**reply)

    def count(self, path: str) -> int:
        return sum(asked.split("?")[0] == path for asked in self.asked)


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path)
            told.headers.append(dict(self.headers))
            reply = told.replies.get(self.path.split("?")[0], Reply(404))
            if reply.silent:
                told.over.wait()
                return
            self.send_response(reply.status)
            if reply.location:
                self.send_header("Location", reply.location)
            if reply.length is not None:
                self.send_header("Content-Length", str(reply.length))
            self.send_header("Set-Cookie", "session=kept; Path=/")
            self.end_headers()
            self.wfile.write(reply.body)
            if reply.then_silent:
                told.over.wait()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told = Script(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield told
    told.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    site = LiveSite(tmp_path / "site", gone_seconds=0.3)
    site.start()
    yield site
    site.close()
