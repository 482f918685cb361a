"""The HTTP side of the stand-in live site: API, pages, covers, and media as the faults of each edge want it.

A thread accepts, one thread answers each connection. A site has a server for each of its edges, on a port of its own.
"""

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from biliupd.rehearsal.live_feed import Edge
from biliupd.rehearsal.live_hls import Body, Shelf

if TYPE_CHECKING:
    from biliupd.rehearsal.live_site import LiveSite, Room

PAGE = b"<!doctype html><html><head><title>Are you a human?</title></head><body>Please log in.</body></html>\n"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: "LiveSite", edge: int) -> None:
        super().__init__(address, _Handler)
        self.site = site
        self.edge = edge
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.1,), name=f"live site {edge}", daemon=True)

    def start(self) -> None:
        self._acceptor.start()

    def close(self) -> None:
        if self._acceptor.is_alive():
            self.shutdown()
        self.server_close()
        self._hang_up(deadline_seconds=5.0)

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def _hang_up(self, deadline_seconds: float) -> None:
        """Shut every connection and wait for the threads that answer them."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, deadline_seconds)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is everyday life here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    connection: socket.socket

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.opened(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.closed(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the media addresses hold a secret."""

    def do_GET(self) -> None:
        address, find = urlsplit(self.path), self.server.site.room
        match address.path.strip("/").split("/"):
            case ["api", "rooms", room_id]:
                self._api(room_id)
            case ["rooms", room_id] if room := find(room_id):
                page = f"<!doctype html><meta charset=utf-8><title>{room_id}</title><p>Room {room_id}: "
                self._send(200, "text/html; charset=utf-8", (page + ("live" if room.live else "offline")).encode())
            case ["covers", name] if room := find(name.removesuffix(".jpg")):
                self._send(200, "image/jpeg", (room.directory / "cover.jpg").read_bytes())
            case ["live", name] if room := find(name.removesuffix(".flv")):
                self._media(room, lambda room, edge: self._flv(room, edge, address.query), address.query)
            case ["live", room_id, *_, name] if room := find(room_id):
                variant = address.path.strip("/").split("/")[2]
                self._media(room, lambda room, edge: self._hls(room, edge, variant, name, address.query), address.query)
            case _:
                self._send(404, "text/plain", b"not here\n")

    def _send(self, status: int, content_type: str, body: bytes, **more: str) -> None:
        self._head(status, content_type, Content_Length=str(len(body)), **more)
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": content_type, "Cache_Control": "no-cache", **more}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _json(self, status: int, content: dict[str, object]) -> None:
        self._send(status, "application/json", json.dumps(content, ensure_ascii=False).encode())

    def _api(self, room_id: str) -> None:
        room = self.server.site.room(room_id)
        if room is None:
            return self._json(404, {"error": "no such room"})
        if room.api_delay_seconds:
            self.server.site.stop.wait(room.api_delay_seconds)
        if room.html:
            self._send(200, "text/html; charset=utf-8", PAGE)
        elif room.api_status:
            self._json(room.api_status, {"error": "told to fail"})
        else:
            self._json(200, self.server.site.describe(room))

    # media

    def _media(self, room: "Room", answer: Callable[["Room", Edge], None], query: str) -> None:
        """Answer unless the address or its edge is no good."""
        if self.server.edge >= len(room.edges):
            return self._send(404, "text/plain", b"not here\n")
        edge = room.edges[self.server.edge]
        given = parse_qs(query).get("sign")
        status = edge.status or (403 if given and not room.admits(given[0]) else None)
        if status == 200:
            self._send(200, "text/html; charset=utf-8", PAGE)
        elif status:
            self._send(status, "text/plain", b"told to fail, or the address has expired\n")
        else:
            answer(room, edge)

    def _flv(self, room: "Room", edge: Edge, query: str) -> None:
        if room.media.protocol != "flv" or not room.live:
            return self._send(404, "text/plain", b"not on air\n")
        self.close_connection = True
        client = room.feed.join(edge, room.cut_at(parse_qs(query).get("sign", [""])[0]))
        try:
            self._head(200, "video/x-flv", Connection="close")
            for piece in client.pieces():
                self.wfile.write(piece.content)
                if piece.unit:
                    piece.unit.delivered = True
                self._throttle(edge, len(piece.content))
            if client.cut:
                self.wfile.write(room.feed.half())
                self._reset()
        except OSError:
            pass  # the client went away
        finally:
            room.feed.leave(client)

    def _throttle(self, edge: Edge, size: int) -> None:
        until = time.monotonic() + (size / edge.bytes_per_second if edge.bytes_per_second else 0)
        while edge.bytes_per_second and time.monotonic() < until:  # may be lifted meanwhile
            self.server.site.stop.wait(min(0.1, until - time.monotonic()))

    def _hls(self, room: "Room", edge: Edge, variant: str, name: str, query: str) -> None:
        if edge.cuts:
            edge.cuts -= 1
            return self._reset()
        edge.delivering.wait()
        gone = Body(404, "text/plain", b"not on air\n")
        token = parse_qs(query).get("token", [""])[0]
        if room.media.protocol == "flv" or not room.shelves or self.server.site.gone(room):
            body = gone
        elif name == "master.m3u8" and room.live:
            body = Body(200, Shelf.kind, room.master())
        else:
            shelf = room.shelves[int(variant) if variant.isdigit() and int(variant) < len(room.shelves) else 0]
            if name == shelf.index:
                body = Body(200, shelf.kind, shelf.playlist(edge.behind()))
            else:
                body = shelf.fetch(name, room.directory, self.headers.get("Range", ""), token)
        more = {"Content_Range": body.content_range} if body.content_range else {}
        self._head(body.status, body.kind, Content_Length=str(len(body.content)), **more)
        if not edge.bytes_per_second:
            self.wfile.write(body.content)
        for place in range(0, len(body.content) if edge.bytes_per_second else 0, 4096):
            self.wfile.write(body.content[place : place + 4096])
            self._throttle(edge, 4096)
        for unit, plain in body.delivers:
            unit.delivered, unit.digest = True, plain

    def _reset(self) -> None:
        """Close so that the other side sees a reset instead of an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())
