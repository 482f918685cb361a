"""A live site on this machine: rooms with an API, a page, a cover, and real media that really runs in real time.

`biliupd demo` and the tests use it. One port on 127.0.0.1; a thread accepts, one thread answers each connection, one
thread per FLV room reads what its ffmpeg writes and hands it to everybody who listens. Touches its own directory only
(covers, HLS segments, what ffmpeg complained about). Each ffmpeg lives exactly as long as a pipe that this process
holds open, so none outlives it, whatever happens to it.
"""

import contextlib
import json
import os
import queue
import secrets
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Literal
from urllib.parse import parse_qs, urlsplit

from biliupd.errors import BiliupdError

CLIENT_QUEUE_TAGS = 512  # about seven seconds of media; a client that is slower loses media up to the next keyframe
HLS_SEGMENT_SECONDS = 1
HLS_LIST_LENGTH = 6
MEDIA_DEADLINE_SECONDS = 20.0
_KEEP_RUNNING = '"$@" & exec >&-; read -r _; kill $! 2>/dev/null; wait $!'  # ends ffmpeg once our pipe is closed


@dataclass(eq=False)
class _Client:
    """One connection that listens to an FLV room. None in the queue: the end."""

    tags: queue.SimpleQueue[bytes | None] = field(default_factory=queue.SimpleQueue)
    wants_keyframe: bool = True
    cut: bool = False


class _Feed:
    """Hands the tags of one FLV stream to any number of clients, as the edge server of a CDN does.

    A client gets the file header, the metadata, the sequence headers, then everything from the last keyframe on, with
    the timestamps the stream has at that moment.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.flowing = threading.Event()
        self.withheld = False
        self.ended = False
        self.clients: set[_Client] = set()
        self._headers: dict[str, bytes] = {}
        self._since_keyframe: list[bytes] = []

    def run(self, media: IO[bytes]) -> None:
        """Read tags (FLV specification, annex E) until the stream ends; on its own thread."""
        header = media.read(13)
        while len(header) == 13 and len(head := media.read(11)) == 11:
            rest = media.read(int.from_bytes(head[1:4], "big") + 4)
            self._hand_out(header, head[0] & 0x1F, head + rest, rest[:2])
        with self.lock:
            self.ended = True
            for client in self.clients:
                client.tags.put(None)

    def _hand_out(self, header: bytes, kind: int, tag: bytes, body: bytes) -> None:
        with self.lock:
            if kind == 18 or body[1:2] == b"\0":  # metadata or a sequence header (AVC, AAC)
                self._headers["file"] = header
                self._headers[str(kind)] = tag
                keyframe = False
            else:
                keyframe = kind == 9 and body[0] >> 4 == 1
                if keyframe:
                    self._since_keyframe.clear()
                    self.flowing.set()
                self._since_keyframe.append(tag)
            if not self.withheld:
                for client in self.clients:
                    self._give(client, tag, keyframe)

    def _give(self, client: _Client, tag: bytes, keyframe: bool) -> None:
        full = client.tags.qsize() >= CLIENT_QUEUE_TAGS
        client.wants_keyframe = full or (client.wants_keyframe and not keyframe)
        if not client.wants_keyframe:
            client.tags.put(tag)

    def join(self) -> _Client:
        client = _Client()
        with self.lock:
            if self.ended:
                client.tags.put(None)
                return client
            start = [self._headers[name] for name in ("file", "18", "9", "8") if name in self._headers]
            client.tags.put(b"".join(start))
            if not self.withheld and len(self._since_keyframe) < CLIENT_QUEUE_TAGS // 2:
                for tag in self._since_keyframe:
                    client.tags.put(tag)
                client.wants_keyframe = not self._since_keyframe
            self.clients.add(client)
        return client

    def leave(self, client: _Client) -> None:
        with self.lock:
            self.clients.discard(client)

    def cut(self) -> None:
        with self.lock:
            for client in self.clients:
                client.cut = True
                client.tags.put(None)

    def withhold(self, withheld: bool) -> None:
        with self.lock:
            self.withheld = withheld
            for client in self.clients:
                client.wants_keyframe = True


@dataclass(eq=False)
class _Room:
    """What a room is, whether it is on air, and how it misbehaves."""

    room_id: str
    protocol: Literal["flv", "hls"]
    streamer: str
    title: str
    size: str
    fps: int
    directory: Path
    broadcasts: int = 0
    live: bool = False
    restricted: bool = False
    started_at: datetime | None = None
    ended_at: float = 0.0
    sign: str = field(default_factory=lambda: secrets.token_hex(8))
    process: subprocess.Popen[bytes] | None = None
    reader: threading.Thread | None = None
    feed: _Feed = field(default_factory=_Feed)
    api_status: int | None = None
    api_delay_seconds: float = 0.0
    media_status: int | None = None
    html: bool = False
    cuts: int = 0
    delivering: threading.Event = field(default_factory=threading.Event)

    @property
    def live_id(self) -> str:
        return f"{self.room_id}-{self.broadcasts}"

    @property
    def playlist(self) -> Path:
        return self.directory / self.live_id / "index.m3u8"


class LiveSite:
    """The site. `start()` opens the port, `close()` ends every ffmpeg and every connection. Both may be called once.

    Addresses: `/rooms/ID` a page, `/api/rooms/ID` JSON, `/live/ID.flv` or `/live/ID/index.m3u8` the media (also
    `/live/ID/master.m3u8`, which lists that one variant).
    """

    def __init__(self, directory: Path, *, ffmpeg: str = "ffmpeg", port: int = 0, gone_seconds: float = 5.0) -> None:
        """`gone_seconds`: so long after its end a playlist is still served, then it is a 404."""
        self.stop = threading.Event()
        self._directory = directory
        self._ffmpeg = ffmpeg
        self._gone_seconds = gone_seconds
        self._rooms: dict[str, _Room] = {}
        self._server = _Server(("127.0.0.1", port), self)
        self._acceptor = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="live site", daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        self._acceptor.start()

    def close(self) -> None:
        self.stop.set()
        for room in self._rooms.values():
            room.delivering.set()
            _end(room)
        if self._acceptor.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.hang_up(deadline_seconds=5.0)

    def add_room(
        self, room_id: str, *, protocol: Literal["flv", "hls"], streamer: str, title: str, size: str = "640x360",
        fps: int = 25,
    ) -> str:
        """A new room, offline. Returns the address of its page. Raises `BiliupdError` when ffmpeg fails."""
        if not room_id.replace("-", "").replace("_", "").isalnum() or not room_id.isascii():
            raise ValueError(f"a room id is made of letters, digits, - and _: {room_id!r}")
        room = _Room(room_id, protocol, streamer, title, size, fps, self._directory / room_id)
        room.directory.mkdir(parents=True, exist_ok=True)
        room.delivering.set()
        argv = [self._ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}", "-frames:v", "1",
                "-y", str(room.directory / "cover.jpg")]
        try:
            subprocess.run(argv, capture_output=True, timeout=MEDIA_DEADLINE_SECONDS, check=True)
        except subprocess.CalledProcessError as error:
            raise BiliupdError(f"ffmpeg made no cover: {error.stderr.decode(errors='replace')[-300:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BiliupdError(f"ffmpeg made no cover: {error}") from error
        self._rooms[room_id] = room
        return f"{self.url}/rooms/{room_id}"

    def go_live(self, room_id: str) -> None:
        """Start a broadcast; returns once its media flows. Raises `BiliupdError` when ffmpeg brings none."""
        room = self._rooms[room_id]
        if room.live:
            return
        _end(room)
        room.broadcasts += 1
        room.playlist.parent.mkdir(exist_ok=True)
        room.feed = _Feed()
        argv = ["sh", "-c", _KEEP_RUNNING, "sh", *_media_argv(self._ffmpeg, room)]
        with (room.directory / "ffmpeg.log").open("wb") as log:
            room.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert room.process.stdout
        room.reader = threading.Thread(
            target=room.feed.run, args=(room.process.stdout,), name=f"live site {room_id}", daemon=True
        )
        room.reader.start()
        flows: Callable[[], bool] = room.feed.flowing.is_set if room.protocol == "flv" else room.playlist.exists
        deadline = time.monotonic() + MEDIA_DEADLINE_SECONDS
        while not flows():
            if room.feed.ended or time.monotonic() > deadline or self.stop.wait(0.02):
                _end(room)
                complaint = (room.directory / "ffmpeg.log").read_text(errors="replace").strip()[-300:]
                raise BiliupdError(f"ffmpeg brought no media for {room_id}: {complaint}")
        room.started_at = datetime.now(UTC)
        room.live = True

    def go_offline(self, room_id: str) -> None:
        """End the broadcast: FLV connections end, the playlist gets its ENDLIST and vanishes some seconds later."""
        room = self._rooms[room_id]
        room.live = False
        _end(room)
        room.ended_at = time.monotonic()

    def restrict(self, room_id: str, restricted: bool = True) -> None:
        """On air, but the API says it is not for everybody."""
        self._rooms[room_id].restricted = restricted

    def rename(self, room_id: str, title: str) -> None:
        self._rooms[room_id].title = title

    def cut(self, room_id: str) -> None:
        """Reset every FLV connection of the room, or the next request for HLS media, once."""
        room = self._rooms[room_id]
        room.cuts += room.protocol == "hls"
        room.feed.cut()

    def withhold(self, room_id: str) -> None:
        """Connections stay open and bring nothing more. What is withheld of an FLV stream is lost."""
        self._rooms[room_id].delivering.clear()
        self._rooms[room_id].feed.withhold(True)

    def deliver(self, room_id: str) -> None:
        """The end of `withhold`; FLV goes on with the next keyframe."""
        self._rooms[room_id].feed.withhold(False)
        self._rooms[room_id].delivering.set()

    def expire(self, room_id: str) -> None:
        """Media addresses the API gave so far answer 403; connections that are open stay."""
        self._rooms[room_id].sign = secrets.token_hex(8)

    def api_fails(self, room_id: str, status: int | None = None, delay_seconds: float = 0) -> None:
        """The room's API answers with this HTTP status, this late; without arguments it is well again."""
        self._rooms[room_id].api_status = status
        self._rooms[room_id].api_delay_seconds = delay_seconds

    def media_fails(self, room_id: str, status: int | None = None) -> None:
        """New requests for the room's media get this HTTP status; None: well again."""
        self._rooms[room_id].media_status = status

    def html_instead(self, room_id: str, html: bool = True) -> None:
        """The room's API answers 200 with a page, as sites do that want a captcha."""
        self._rooms[room_id].html = html

    def listeners(self, room_id: str) -> int:
        """How many FLV connections the room has now."""
        return len(self._rooms[room_id].feed.clients)

    def room(self, room_id: str) -> _Room | None:
        return self._rooms.get(room_id)

    def gone(self, room: _Room) -> bool:
        return not room.live and time.monotonic() > room.ended_at + self._gone_seconds

    def describe(self, room: _Room) -> dict[str, object]:
        """What the API says about a room."""
        media = f"{room.room_id}.flv" if room.protocol == "flv" else f"{room.room_id}/index.m3u8"
        stream = {"protocol": room.protocol, "url": f"{self.url}/live/{media}?sign={room.sign}"}
        return {
            "room_id": room.room_id,
            "streamer": room.streamer,
            "title": room.title,
            "cover": f"{self.url}/covers/{room.room_id}.jpg",
            "live_status": ("restricted" if room.restricted else "live") if room.live else "offline",
            "live_id": room.live_id if room.live else "",
            "started_at": room.started_at.isoformat() if room.live and room.started_at else None,
            "streams": [stream] if room.live and not room.restricted else [],
        }


def _media_argv(ffmpeg: str, room: _Room) -> list[str]:
    """A test picture with a running clock and a beep, in real time; a keyframe every second."""
    fps = str(room.fps)
    argv = [ffmpeg, "-hide_banner", "-nostdin", "-v", "error", "-re", "-f", "lavfi"]
    argv += ["-i", f"testsrc2=size={room.size}:rate={fps}"]
    argv += ["-re", "-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=44100"]
    argv += ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1", "-pix_fmt", "yuv420p"]
    argv += ["-b:v", "600k", "-g", fps, "-keyint_min", fps, "-sc_threshold", "0", "-c:a", "aac", "-b:a", "64k"]
    if room.protocol == "flv":
        return [*argv, "-flvflags", "no_duration_filesize", "-flush_packets", "1", "-f", "flv", "pipe:1"]
    argv += ["-f", "hls", "-hls_time", str(HLS_SEGMENT_SECONDS), "-hls_list_size", str(HLS_LIST_LENGTH)]
    argv += ["-hls_delete_threshold", "3", "-hls_flags", "delete_segments+temp_file+program_date_time"]
    segments = room.playlist.with_name(f"{room.live_id}-%05d.ts")
    return [*argv, "-hls_segment_filename", str(segments), str(room.playlist)]


def _end(room: _Room) -> None:
    """Let go of the pipe that keeps ffmpeg running and wait until it has written its last byte."""
    process, reader = room.process, room.reader
    if process is None or process.stdin is None or process.stdout is None:
        return
    process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if reader:
        reader.join(5)
    process.stdout.close()
    room.process = room.reader = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], site: LiveSite) -> None:
        super().__init__(address, _Handler)
        self.site = site
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()

    def opened(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
            self._changed.notify_all()

    def hang_up(self, deadline_seconds: float) -> None:
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
    server: _Server
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
                if self._admits(room, address.query):
                    self._flv(room)
            case ["live", room_id, name] if room := find(room_id):
                if self._admits(room, address.query):
                    self._hls(room, name)
            case _:
                self._send(404, "text/plain", b"not here\n")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self._head(status, content_type, "Content-Length", str(len(body)))
        self.wfile.write(body)

    def _head(self, status: int, content_type: str, name: str, value: str) -> None:
        self.send_response(status)
        for line in (("Content-Type", content_type), ("Cache-Control", "no-cache"), (name, value)):
            self.send_header(*line)
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
            self._send(200, "text/html; charset=utf-8", b"<!doctype html><title>Are you a human?</title>")
        elif room.api_status:
            self._json(room.api_status, {"error": "told to fail"})
        else:
            self._json(200, self.server.site.describe(room))

    def _admits(self, room: _Room, query: str) -> bool:
        """False: the request was answered (or hung up on) already."""
        given = parse_qs(query).get("sign")
        status = room.media_status or (403 if given and given[0] != room.sign else None)
        if status:
            self._send(status, "text/plain", b"told to fail, or the address has expired\n")
        return not status

    def _flv(self, room: _Room) -> None:
        if room.protocol != "flv" or not room.live:
            return self._send(404, "text/plain", b"not on air\n")
        self.close_connection = True
        client = room.feed.join()
        try:
            self._head(200, "video/x-flv", "Connection", "close")
            while (tag := client.tags.get()) is not None and not client.cut:
                self.wfile.write(tag)
            if client.cut:
                self._reset()
        except OSError:
            pass  # the client went away
        finally:
            room.feed.leave(client)

    def _hls(self, room: _Room, name: str) -> None:
        if room.cuts:
            room.cuts -= 1
            return self._reset()
        room.delivering.wait()
        path, playlist = room.playlist.with_name(name), "application/vnd.apple.mpegurl"
        if name == "master.m3u8" and room.live:
            return self._send(200, playlist, _master(room))
        content = None
        if path.suffix in (".ts", ".m3u8") and not self.server.site.gone(room):
            with contextlib.suppress(FileNotFoundError):
                content = path.read_bytes()
        if content is None:
            return self._send(404, "text/plain", b"not on air\n")
        self._send(200, "video/mp2t" if path.suffix == ".ts" else playlist, content)

    def _reset(self) -> None:
        """Close so that the other side sees a reset instead of an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _master(room: _Room) -> bytes:
    lines = ["#EXTM3U", f"#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION={room.size},FRAME-RATE={room.fps}.000"]
    return "\n".join([*lines, "index.m3u8", ""]).encode()
