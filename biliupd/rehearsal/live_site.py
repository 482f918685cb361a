"""A live site on this machine: rooms with an API, a page, a cover, and real media that really runs in real time.

`biliupd demo`, `biliupd selftest` and the tests use it. Loopback only; one port, and one more for each further edge. A
thread accepts, one thread answers each connection, one thread per FLV encoder reads what its ffmpeg writes and hands it
to everybody who listens. Touches its own directory only (covers, HLS segments, what ffmpeg complained about).
"""

import secrets
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from biliupd.errors import BiliupdError
from biliupd.rehearsal.live_account import Account, Unit
from biliupd.rehearsal.live_dash import Manifest
from biliupd.rehearsal.live_faults import Faults
from biliupd.rehearsal.live_feed import Edge, Feed
from biliupd.rehearsal.live_hls import Shelf
from biliupd.rehearsal.live_media import MEDIA_DEADLINE_SECONDS, Codec, Encoder, Media, Protocol
from biliupd.rehearsal.live_server import Server


@dataclass(eq=False)
class Room:
    """What a room is, whether it is on air, and how its API misbehaves. One account, feed and shelf per broadcast."""

    room_id: str
    media: Media
    streamer: str
    title: str
    directory: Path
    edges: list[Edge]
    broadcasts: int = 0
    live: bool = False
    restricted: bool = False
    started_at: datetime | None = None
    ended_at: float = 0.0
    sign: str = field(default_factory=lambda: secrets.token_hex(8))
    signs: dict[str, float] = field(default_factory=dict)
    lifetime_seconds: float | None = None
    lifetime_cuts: bool = False
    lifetime_told: bool = True
    api_status: int | None = None
    api_delay_seconds: float = 0.0
    html: bool = False
    now: Media | None = None  # after a change in mid-stream
    encoders: list[Encoder] = field(default_factory=list)
    readers: list[threading.Thread] = field(default_factory=list)
    runs: int = 0
    account: Account = field(default_factory=Account)
    feed: Feed = field(default_factory=Feed)
    shelves: list[Shelf] = field(default_factory=list)

    @property
    def live_id(self) -> str:
        return f"{self.room_id}-{self.broadcasts}"

    def admits(self, sign: str) -> bool:
        """Whether an address is still good."""
        return time.monotonic() < self.signs.get(sign, 0.0) or (sign == self.sign and sign not in self.signs)

    def cut_at(self, sign: str) -> float | None:
        """When a connection made with this address is cut; monotonic."""
        return self.signs.get(sign) if self.lifetime_cuts else None

    def fresh_sign(self) -> datetime | None:
        """Where addresses do not last, make a new one; when it ends."""
        if self.lifetime_seconds is None:
            return None
        self.sign = secrets.token_hex(8)
        self.signs[self.sign] = time.monotonic() + self.lifetime_seconds
        return datetime.now(UTC) + timedelta(seconds=self.lifetime_seconds)

    def master(self) -> bytes:
        """The multivariant playlist; the smaller a picture, the less it claims."""
        lines = ["#EXTM3U"]
        for n, size in enumerate(self.media.sizes):
            codecs = "hvc1.1.6.L60.90" if self.media.codec != "avc" else "avc1.42c00d"
            lines += [f'#EXT-X-STREAM-INF:BANDWIDTH={800_000 - n * 300_000},RESOLUTION={size},'
                      f'FRAME-RATE={self.media.fps}.000,CODECS="{codecs},mp4a.40.2"',
                      f"{n}/index.m3u8" if len(self.media.sizes) > 1 else "index.m3u8"]  # fmt: skip
        return "\n".join([*lines, ""]).encode()


class LiveSite(Faults):
    """The site. `start()` opens the port, `close()` ends every ffmpeg and every connection. Both may be called once.

    Addresses: `/rooms/ID` a page, `/api/rooms/ID` JSON, `/live/ID.flv` or `/live/ID/index.m3u8` the media (also
    `/live/ID/master.m3u8`, which lists the variants `/live/ID/N/index.m3u8`).
    """

    def __init__(self, directory: Path, *, ffmpeg: str = "ffmpeg", port: int = 0, gone_seconds: float = 5.0) -> None:
        """`gone_seconds`: so long after its end a playlist is still served, then it is a 404."""
        self.stop = threading.Event()
        self._directory = directory
        self._ffmpeg = ffmpeg
        self._gone_seconds = gone_seconds
        self._rooms: dict[str, Room] = {}
        self._servers = [Server(("127.0.0.1", port), self, 0)]
        self._started = False
        self._lock = threading.Lock()
        self.url = self._servers[0].url

    def start(self) -> None:
        with self._lock:
            self._started = True
            for server in self._servers:
                server.start()

    def close(self) -> None:
        self.stop.set()
        for room in self._rooms.values():
            for edge in room.edges:
                edge.delivering.set()
            _end(room)
        for server in self._servers:
            server.close()

    def add_room(
        self, room_id: str, *, protocol: Protocol, streamer: str, title: str, size: str = "640x360",
        fps: int = 25, codec: Codec = "avc", container: Literal["ts", "fmp4"] = "ts", smaller: tuple[str, ...] = (),
        edges: int = 1,
    ) -> str:
        """A new room, offline. Returns the address of its page. Raises `BiliupdError` when ffmpeg fails.

        A room of DASH is one that only ffmpeg reads, and its API says so. `smaller`: sizes of further variants (HLS);
        then the API names the multivariant playlist. `edges`: so many servers hand out its media, and the API lists as
        many streams.
        """
        if not room_id.replace("-", "").replace("_", "").isalnum() or not room_id.isascii():
            raise ValueError(f"a room id is made of letters, digits, - and _: {room_id!r}")
        media = Media(protocol, (size, *smaller), fps, codec, container=container)
        room = Room(room_id, media, streamer, title, self._directory / room_id, [Edge() for _ in range(edges)])
        room.directory.mkdir(parents=True, exist_ok=True)
        argv = [self._ffmpeg, "-nostdin", "-v", "error", "-f", "lavfi", "-i", f"testsrc2=size={size}", "-frames:v", "1",
                "-y", str(room.directory / "cover.jpg")]  # fmt: skip
        try:
            subprocess.run(argv, capture_output=True, timeout=MEDIA_DEADLINE_SECONDS, check=True)
        except subprocess.CalledProcessError as error:
            raise BiliupdError(f"ffmpeg made no cover: {error.stderr.decode(errors='replace')[-300:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BiliupdError(f"ffmpeg made no cover: {error}") from error
        with self._lock:
            while len(self._servers) < edges:
                self._servers.append(Server(("127.0.0.1", 0), self, len(self._servers)))
                if self._started:
                    self._servers[-1].start()
            self._rooms[room_id] = room
        return f"{self.url}/rooms/{room_id}"

    def go_live(self, room_id: str) -> None:
        """Start a broadcast; returns once its media flows. Raises `BiliupdError` when ffmpeg brings none."""
        room = self._rooms[room_id]
        if room.live:
            return
        _end(room)
        for path in room.directory.glob(f"{room.live_id}-*"):
            path.unlink()
        room.broadcasts += 1
        room.account, room.now = Account(), None
        room.feed = Feed(room.account)
        kinds: dict[str, type[Shelf]] = {"hls": Shelf, "dash": Manifest}
        kind = kinds.get(room.media.protocol)
        room.shelves = [kind(room.live_id, room.account) for _ in room.media.sizes] if kind else []
        self._encode(room, room.media)
        room.started_at = datetime.now(UTC)
        room.live = True

    def change(self, room_id: str, *, size: str = "", codec: Codec | None = None, sample_rate: int = 0) -> None:
        """Another picture size, video codec or sound in mid-stream, by another encoder that takes over.

        FLV goes on at its first keyframe; HLS goes on with a discontinuity, after a pause of less than a second.
        Returns when the new media flows.
        """
        room = self._did(room_id, "change")
        now = room.now or room.media
        room.now = replace(now, sizes=(size, *now.sizes[1:]) if size else now.sizes, codec=codec or now.codec,
                           sample_rate=sample_rate or now.sample_rate)  # fmt: skip
        before = room.encoders.pop()
        try:
            if room.media.protocol != "flv":
                before.end()
            self._encode(room, room.now)
        finally:
            before.end()

    def _encode(self, room: Room, media: Media) -> None:
        """Start an encoder and wait for its media."""
        encoder = Encoder(self._ffmpeg, media, room.directory, room.live_id, room.runs)
        room.encoders.append(encoder)
        room.runs += 1
        for shelf, playlist in zip(room.shelves, encoder.playlists, strict=room.media.protocol != "flv"):
            shelf.add_run(playlist)
        reader = threading.Thread(
            target=room.feed.run, args=(encoder,), name=f"live site {room.room_id}", daemon=True
        )
        room.readers.append(reader)
        reader.start()
        flows: Callable[[], bool] = (
            (lambda: room.feed.plays(encoder)) if room.media.protocol == "flv"
            else lambda: all(playlist.exists() for playlist in encoder.playlists)
        )  # fmt: skip
        deadline = time.monotonic() + MEDIA_DEADLINE_SECONDS
        while not flows():
            if not reader.is_alive() or time.monotonic() > deadline or self.stop.wait(0.02):
                _end(room)
                complaint = encoder.log.read_text(errors="replace").strip()[-300:]
                raise BiliupdError(f"ffmpeg brought no media for {room.room_id}: {complaint}")

    def go_offline(self, room_id: str) -> None:
        """End the broadcast: FLV connections end, the playlist gets its ENDLIST and vanishes some seconds later."""
        room = self._rooms[room_id]
        room.live = False
        _end(room)
        for shelf in room.shelves:
            shelf.refresh()
            shelf.ended = True
        room.ended_at = time.monotonic()

    def listeners(self, room_id: str) -> int:
        """How many FLV connections the room has now."""
        return len(self._rooms[room_id].feed.clients)

    def made(self, room_id: str) -> list[Unit]:
        """Every tag (sound and picture) or segment that the encoder made in this broadcast."""
        room = self._rooms[room_id]
        for shelf in room.shelves:
            shelf.refresh()
        return list(room.account.units)

    def room(self, room_id: str) -> Room | None:
        return self._rooms.get(room_id)

    def gone(self, room: Room) -> bool:
        return not room.live and time.monotonic() > room.ended_at + self._gone_seconds

    def describe(self, room: Room) -> dict[str, object]:
        """What the API says about a room."""
        on_air = room.live and not room.restricted
        ends = room.fresh_sign() if on_air else None
        expires = {"expires_at": ends.isoformat()} if ends and room.lifetime_told else {}
        playlist = "master.m3u8" if len(room.media.sizes) > 1 else room.shelves[0].index if room.shelves else ""
        protocol = "ffmpeg" if room.media.protocol == "dash" else room.media.protocol
        media = f"{room.room_id}.flv" if room.media.protocol == "flv" else f"{room.room_id}/{playlist}"
        streams = [
            {"protocol": protocol, "url": f"{server.url}/live/{media}?sign={room.sign}", **expires}
            for server in self._servers[: len(room.edges)]
        ]
        return {
            "room_id": room.room_id,
            "streamer": room.streamer,
            "title": room.title,
            "cover": f"{self.url}/covers/{room.room_id}.jpg",
            "live_status": ("restricted" if room.restricted else "live") if room.live else "offline",
            "live_id": room.live_id if room.live else "",
            "started_at": room.started_at.isoformat() if room.live and room.started_at else None,
            "streams": streams if on_air else [],
        }


def _end(room: Room) -> None:
    """End the encoder and whoever reads it."""
    for encoder in room.encoders:
        encoder.end()
    for reader in room.readers:
        reader.join(5)
    room.encoders.clear()
    room.readers.clear()
