"""Stands between ffmpeg and the media servers: what identifies us, and every address, stays out of ffmpeg's command
line, which anybody on the machine can read.

Runs on threads of its own in the recorder process. Listens on a port of the loopback interface, and answers only
processes of our own user. It is also what makes ffmpeg polite: of DASH it asks for segments that are not made yet, at
once and thousands of times. Here such a request waits until there is an answer.
"""

import logging
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from biliupd.errors import TemporaryError
from biliupd.record.fetch import CHUNK, GONE, NETWORK_ERRORS, Client, Refused, explain
from biliupd.record.playlist import ByteRange
from biliupd.record.spec import Spec, Stream

log = logging.getLogger("recorder")

LARGEST_MANIFEST = 8 << 20
LARGEST_SEGMENT = 256 << 20
FRESH_SECONDS = 0.5  # a manifest is not asked for more often
RETRY_SECONDS = 0.4
MOST_VAIN = 6
MOST_GIVEN = 500  # segments are remembered
USUAL_SEGMENT_SECONDS = 10.0  # when the manifest does not say how long segments are
_ADDRESS = re.compile(rb"""(<(?:BaseURL|Location)[^>]*>\s*|(?:media|initialization|sourceURL)\s*=\s*["'])"""
                      rb"(https?)://")
_LONGEST = re.compile(rb"""maxSegmentDuration=["']PT(?:([0-9]+)M)?([0-9.]+)S["']""")
_STATIC = re.compile(rb"""<MPD[^>]*\stype=["']static["']""")
# A fragment that makes no sense: ffmpeg's demuxer takes it for the end, which it sees in live DASH in no other way.
_END = b"\0\0\0\x20moof\0\0\0\x18traf\0\0\0\x10trun" + bytes(8)
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Relay:
    """`url` is where ffmpeg finds the stream. `refused`: the HTTP status, when the server refuses the address itself.

    `over`: the manifest says that nothing more will come.
    """

    def __init__(self, stream: Stream, spec: Spec) -> None:
        self.refused = 0
        self.over = False
        self._vain = 0  # requests in a row for segments that will never be
        self.stop = threading.Event()
        self._home = stream.url
        self._stall = spec.stall_seconds
        self._client = Client(stream.url, stream.headers, spec.connect_timeout_seconds, spec.stall_seconds)
        self._patience = min(self._stall, USUAL_SEGMENT_SECONDS)
        self._manifests: dict[str, tuple[float, bytes]] = {}  # by address: when it came
        self._given: list[str] = []
        self._reading = threading.Lock()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if _is_ours(self.client_address[1], relay.port):
                    relay._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Its lines hold addresses."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True,
                         name="relay").start()
        self.url = self._here(stream.url.partition("?")[0])

    def close(self) -> None:
        """Answer nobody any more."""
        self.stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _here(self, url: str) -> str:
        scheme, _, rest = url.partition("://")
        return f"http://127.0.0.1:{self.port}/{scheme}/{rest}"

    def _there(self, path: str) -> str:
        """The address that is meant. One from the root of a host is taken for one of the stream's own host."""
        scheme, _, rest = path[1:].partition("/")
        if scheme not in ("http", "https"):
            return urljoin(self._home, path)
        url = f"{scheme}://{rest}"
        return self._home if url == self._home.partition("?")[0] else url

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        try:
            self._give(handler, self._there(handler.path))
        except OSError:
            handler.close_connection = True  # ffmpeg has left
        except ValueError:
            handler.send_error(400)  # an address that is none

    def _give(self, handler: BaseHTTPRequestHandler, url: str) -> None:
        try:
            if self._is_manifest(url):
                self._give_manifest(handler, url)
            elif self._manifests:
                self._give_segment(handler, url)
            else:
                self._give_stream(handler, url)
        except Refused as error:
            if url == self._home and error.status in GONE:
                self.refused = error.status
            handler.send_error(error.status if error.status >= 400 else 502)
        except TemporaryError as error:
            log.info("%s", error)
            handler.send_error(504)

    def _is_manifest(self, url: str) -> bool:
        return url in self._manifests or urlsplit(url).path.lower().endswith(".mpd")

    def _give_manifest(self, handler: BaseHTTPRequestHandler, url: str) -> None:
        with self._reading:
            came, body = self._manifests.get(url, (0.0, b""))
            if time.monotonic() - came > FRESH_SECONDS:
                body, final = self._client.whole(url, seconds=self._stall, limit_bytes=LARGEST_MANIFEST)
                if final != url:
                    handler.send_response(302)
                    handler.send_header("Location", self._here(final))
                    handler.end_headers()
                    return
                body = self._read(body)
                self._manifests[url] = (time.monotonic(), body)
        _send(handler, body, "application/dash+xml")

    def _read(self, body: bytes) -> bytes:
        """What a manifest says to us; the addresses in it lead through here."""
        self.over = _STATIC.search(body) is not None
        if match := _LONGEST.search(body):
            longest = int(match[1] or 0) * 60 + float(match[2])
            self._patience = min(self._stall, 1.5 * longest + 1)
        here = f"http://127.0.0.1:{self.port}/".encode()
        return _ADDRESS.sub(rb"\1" + here + rb"\2/", body)

    def _give_segment(self, handler: BaseHTTPRequestHandler, url: str) -> None:
        """Whole or not at all; one that is not there yet is waited for.

        None is given twice: ffmpeg loses its place when a manifest is renewed, and goes on when it is refused.
        """
        if self.stop.is_set():
            _send(handler, _END, "video/mp4")
            return
        asked = f"{url} {handler.headers.get('Range', '')}"
        if asked in self._given:
            handler.send_error(404)
            return
        deadline = time.monotonic() + self._patience
        while True:
            try:
                body, _ = self._client.whole(url, seconds=self._stall, limit_bytes=LARGEST_SEGMENT,
                                             byterange=_range(handler))
                break
            except TemporaryError as error:
                self._vain += self.over and isinstance(error, Refused)
                if self.stop.wait(RETRY_SECONDS) or self._vain >= MOST_VAIN:
                    _send(handler, _END, "video/mp4")
                    return
                if time.monotonic() > deadline or self.over:
                    raise
        self._vain = 0
        _send(handler, body, "video/mp4", partial=handler.headers.get("Range") if _range(handler) else None)
        if b"moov" not in body[:4096]:
            self._given = [*self._given, asked][-MOST_GIVEN:]

    def _give_stream(self, handler: BaseHTTPRequestHandler, url: str) -> None:
        """Whatever else it is, piece by piece; when it proves to be a manifest, as one."""
        answer, final = self._client.open(url)
        if "dash" in answer.headers.get("Content-Type", ""):
            answer.close()
            self._manifests[final] = (0.0, b"")
            self._give_manifest(handler, url)
            return
        handler.send_response(200)
        if length := answer.headers.get("Content-Length"):
            handler.send_header("Content-Length", length)
        handler.send_header("Content-Type", answer.headers.get("Content-Type", "application/octet-stream"))
        handler.end_headers()
        try:
            while not self.stop.is_set() and (piece := answer.read1(CHUNK)):
                handler.wfile.write(piece)
        except NETWORK_ERRORS as error:
            log.info("%s", explain(error))
        finally:
            answer.close()


def _send(handler: BaseHTTPRequestHandler, body: bytes, kind: str, partial: str | None = None) -> None:
    handler.send_response(206 if partial else 200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    if partial:
        handler.send_header("Content-Range", partial.replace("=", " ") + "/*")
    handler.end_headers()
    handler.wfile.write(body)


def _range(handler: BaseHTTPRequestHandler) -> ByteRange | None:
    match = _RANGE.fullmatch(handler.headers.get("Range", ""))
    return ByteRange(int(match[1]), int(match[2]) - int(match[1]) + 1) if match else None


def _is_ours(port: int, to: int) -> bool:
    """Whether the process at the other end of a loopback connection is of our user (proc_net_tcp.txt of the kernel)."""
    wanted = [f"0100007F:{port:04X}", f"0100007F:{to:04X}"]
    with Path("/proc/net/tcp").open() as table:
        return any(line.split()[1:3] == wanted and int(line.split()[7]) == os.getuid() for line in table)
