"""Record an HLS address: reload the playlist, fetch what is new, write whole segments in order.

A network thread reloads and fetches; the main thread of the recorder process writes and keeps the ledger. TS, fMP4 and
packed audio; encrypted segments and audio in a playlist of its own are not supported.
"""

import logging
import re
import time
import zlib
from queue import Empty, Full, Queue
from threading import Event as Flag
from threading import Thread
from typing import Any, NamedTuple

from biliupd.errors import TemporaryError
from biliupd.record.fetch import GONE, Client, Refused
from biliupd.record.parts import REMEMBERED, SegmentPart, digest_of
from biliupd.record.playlist import (
    MasterPlaylist,
    MediaPlaylist,
    NotAPlaylist,
    Segment,
    follow,
    parse,
    resume,
)
from biliupd.record.session import TICK_SECONDS, Ending, Session
from biliupd.record.spec import Exit, Spec

log = logging.getLogger("recorder")

LARGEST_PLAYLIST = 8 << 20
LARGEST_SEGMENT = 256 << 20
READ_SECONDS = 10.0
SEGMENT_SECONDS = 60.0
SEGMENT_ATTEMPTS = 3
PLAYLIST_ATTEMPTS = 3
LONGEST_PAUSE = 8.0
SHORTEST_RELOAD = 1.0
TS_PACKET = 188
_FRAGMENT_BOXES = (b"styp", b"moof", b"sidx", b"emsg", b"prft", b"ftyp", b"free", b"uuid", b"mdat")
_SIZE_AND_CRC = re.compile(r"([0-9a-fA-F]{1,8})\|([0-9a-fA-F]{1,8})(?:\|.*)?")


class Piece(NamedTuple):
    """A segment and its bytes. `init` is the init section (fMP4); with `anew` it begins a new part."""

    segment: Segment
    body: bytes
    suffix: str
    init: bytes
    anew: bool


class Missing(NamedTuple):
    """A row for the ledger: about so many seconds were not to be had."""

    cause: str
    seconds: float


class Finished(NamedTuple):
    """Nothing more comes from the network thread. `refused` is the path of a segment that the server forbade."""

    exit: Exit
    reason: str
    refused: str = ""


Item = Piece | Missing | Finished


class _Finish(Exception):
    def __init__(self, exit: Exit, reason: str, refused: str = "") -> None:
        super().__init__(reason)
        self.item = Finished(exit, reason, refused)


class Source:
    """The network thread: puts pieces in order, gaps between them, and a `Finished` at last into `inbox`."""

    def __init__(self, spec: Spec, position: dict[str, Any] | None) -> None:
        self.inbox: Queue[Item] = Queue(maxsize=8)
        self._spec = spec
        self._url = spec.stream.url
        self._client = Client(
            spec.stream.url, spec.stream.headers, spec.connect_timeout_seconds, min(READ_SECONDS, spec.stall_seconds))
        self._position = position
        self._refused = str((position or {}).get("refused", ""))
        self._next: int | None = None
        self._stale = 0
        self._map_path = ""
        self._init = b""
        self._anew = False
        self._stop = Flag()

    def start(self) -> None:
        """Begin to reload and fetch."""
        Thread(target=self._run, name="network", daemon=True).start()

    def abandon(self) -> None:
        """Fetch no more; a thread that waits for a silent server ends by its own time-out."""
        self._stop.set()

    def _run(self) -> None:
        try:
            self._follow()
            return
        except _Finish as finish:
            item = finish.item
        except Exception:
            log.exception("the network thread failed")
            item = Finished(Exit.NEEDS_URL, "an error of our own")
        self._put(item)

    def _put(self, item: Item) -> None:
        while not self._stop.is_set():
            try:
                self.inbox.put(item, timeout=TICK_SECONDS)
                return
            except Full:
                continue

    def _follow(self) -> None:
        new_at = time.monotonic()
        while not self._stop.is_set():
            reloaded_at = time.monotonic()
            playlist = self._reload()
            segments = self._choose(playlist)
            for segment in segments:
                if self._stop.is_set():
                    return
                self._take(segment)
            if playlist.ended and not self._stale:
                raise _Finish(Exit.OVER, "the playlist ended")
            now = time.monotonic()
            new_at = now if segments else new_at
            target = playlist.target_duration or 2.0
            if now - new_at > max(self._spec.stall_seconds, 4 * target):
                raise _Finish(Exit.NEEDS_URL, f"no new segment for {now - new_at:.0f} s")
            pause = target if segments else target / 2
            self._stop.wait(reloaded_at + max(SHORTEST_RELOAD, pause) - now)

    def _choose(self, playlist: MediaPlaylist) -> tuple[Segment, ...]:
        """What of a reload is to be taken; notes what is missing before it."""
        if self._next is None and self._position and "path" in self._position:
            self._next = playlist.next_sequence
            return resume(playlist, int(self._position.get("sequence", 0)), str(self._position["path"]))
        step = follow(playlist, self._next, self._stale)
        self._stale = self._stale + 1 if step.kind == "stale" else 0
        if step.kind in ("new", "reset"):
            self._next = playlist.next_sequence
        if step.kind == "reset":
            self._anew = True
            self._put(Missing("reset", 0.0))
        if step.missed:
            usual = sum(s.duration for s in playlist.segments) / len(playlist.segments)
            self._put(Missing("skipped-segment", step.missed * usual))
        return step.segments

    def _reload(self) -> MediaPlaylist:
        """The media playlist as it is now. Raises `_Finish` when the address is no good any more."""
        since, failures, pause = time.monotonic(), 0, 0.5
        while not self._stop.is_set():
            try:
                body, final = self._client.whole(self._url, seconds=READ_SECONDS + self._spec.connect_timeout_seconds,
                                                 limit_bytes=LARGEST_PLAYLIST)
                playlist = parse(body.decode(errors="replace"), final)
                if isinstance(playlist, MediaPlaylist):
                    return playlist
                self._url = _variant(playlist)
                continue
            except (Refused, NotAPlaylist) as error:
                failures += 1
                reason, final_answer = str(error), isinstance(error, NotAPlaylist) or error.status in GONE
                limit = PLAYLIST_ATTEMPTS - 1 if isinstance(error, Refused) else PLAYLIST_ATTEMPTS
                if final_answer and failures >= limit:
                    raise _Finish(Exit.NEEDS_URL, f"playlist: {reason}") from error
            except TemporaryError as error:
                reason = str(error)
            if time.monotonic() + pause - since > self._spec.reconnect_seconds:
                raise _Finish(Exit.NEEDS_URL, f"playlist: {reason}")
            log.info("playlist: %s", reason)
            self._stop.wait(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        raise _Finish(Exit.NEEDS_URL, "abandoned")

    def _take(self, segment: Segment) -> None:
        if segment.key:
            raise _Finish(Exit.UNSUPPORTED, f"the segments are encrypted ({segment.key.method}), not supported yet")
        self._anew = self._anew or segment.discontinuity
        if segment.gap:
            self._put(Missing("gap-tag", segment.duration))
            return
        body = self._body(segment) if self._renew_init(segment) else None
        if body is None:
            self._put(Missing("skipped-segment", segment.duration))
            return
        suffix = ".m4s" if segment.map else ".ts" if body[0] == 0x47 else ".aac"
        self._put(Piece(segment, body, suffix, self._init, self._anew))
        self._anew = False

    def _renew_init(self, segment: Segment) -> bool:
        """Have the init section that belongs to `segment`; False when it is not to be had."""
        if segment.map is None:
            self._init, self._map_path = b"", ""
            return True
        path = Segment(0, segment.map.uri, 0, byterange=segment.map.byterange).path
        if path == self._map_path and not self._anew:
            return True
        before = b""
        for _ in range(4):  # twice the same: some servers hand out half-written ones
            try:
                body, _ = self._client.whole(segment.map.uri, seconds=SEGMENT_SECONDS, limit_bytes=LARGEST_SEGMENT,
                                             byterange=segment.map.byterange)
            except TemporaryError as error:
                log.warning("init section: %s", error)
                body = b""
            if body and body == before and body[4:8] in (b"ftyp", b"styp", b"moov"):
                self._init, self._map_path = body, path
                return True
            before = body
            self._stop.wait(0.5)
        return False

    def _body(self, segment: Segment) -> bytes | None:
        """The bytes of a segment; None when it is not to be had."""
        usable: bytes | None = None
        for attempt in range(SEGMENT_ATTEMPTS):
            try:
                body, _ = self._client.whole(segment.uri, seconds=SEGMENT_SECONDS, limit_bytes=LARGEST_SEGMENT,
                                             byterange=segment.byterange)
                body, problem = sound(body, segment)
                if not problem:
                    return body
                usable = body or usable
            except Refused as error:
                problem = str(error)
                if error.status in (401, 403) and segment.path != self._refused:
                    raise _Finish(Exit.NEEDS_URL, f"segment: {problem}", segment.path) from error
                if error.status in GONE and attempt:
                    break
            except TemporaryError as error:
                problem = str(error)
            if self._stop.wait(0.5 * 2 ** attempt):
                break
        log.warning("segment %d: %s", segment.sequence, problem)
        return usable


def _variant(playlist: MasterPlaylist) -> str:
    groups = {group for group, _ in playlist.audio}
    whole = tuple(variant for variant in playlist.variants if variant.audio not in groups)
    if not whole:
        raise _Finish(Exit.UNSUPPORTED, "audio comes in a playlist of its own, not supported yet")
    return MasterPlaylist(whole).best().uri


def sound(body: bytes, segment: Segment) -> tuple[bytes, str]:
    """The usable bytes of a segment's answer, and what is wrong with it; nothing usable when it is no media."""
    problem = ""
    claim = _SIZE_AND_CRC.fullmatch(segment.title)
    if claim and (len(body) != int(claim[1], 16) or zlib.crc32(body) != int(claim[2], 16)):
        problem = "size or checksum is not the one announced"
    if segment.map:
        return (body, problem) if body[4:8] in _FRAGMENT_BOXES else (b"", "no fMP4")
    if body[:1] == b"\x47":
        packets = len(body) // TS_PACKET
        if packets and body[::TS_PACKET][:packets].count(0x47) == packets:
            rest = len(body) - packets * TS_PACKET
            return body[:packets * TS_PACKET], problem or ("cut in the middle of a packet" if rest else "")
        return b"", "no MPEG-TS"
    if body[:3] == b"ID3" or (len(body) > 1 and body[0] == 0xFF and body[1] & 0xF0 == 0xF0):
        return body, problem
    return b"", "no media" if body else "empty"


class HlsStream:
    """Everything between the address and the folders of one recorder run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._source = Source(session.spec, session.broadcast.position)
        self._seen: list[str] = list((session.broadcast.position or {}).get("recent", []))
        self._hole = False  # something is missing before the next segment

    def run(self) -> None:
        """Record until `Ending` is raised."""
        self._source.start()
        while True:
            self._session.tick()
            try:
                item = self._source.inbox.get(timeout=TICK_SECONDS)
            except Empty:
                continue
            if isinstance(item, Finished):
                log.info("%s", item.reason)
                if item.refused:
                    self._session.broadcast.position = {
                        **(self._session.broadcast.position or {}), "refused": item.refused}
                raise Ending(item.exit)
            self._write(item)

    def flush(self) -> None:
        """Write what was fetched already."""
        self._source.abandon()
        while True:
            try:
                item = self._source.inbox.get_nowait()
            except Empty:
                return
            if not isinstance(item, Finished):
                self._write(item)

    def _write(self, item: Piece | Missing) -> None:
        session = self._session
        if isinstance(item, Missing):
            session.note(item.cause, item.seconds)
            self._hole = True
            return
        digest = digest_of(item.body)
        if digest in self._seen:
            log.info("segment %d was recorded already", item.segment.sequence)
            return
        part = session.part if isinstance(session.part, SegmentPart) else None
        if part is None or item.anew or part.init != item.init or self._full(part, item):
            session.open_part(lambda directory, number: SegmentPart(directory, number, item.init))
            part = session.part if isinstance(session.part, SegmentPart) else None
        if part is None:
            return
        part.add(item.body, item.segment.duration, item.suffix, discontinuity=self._hole)
        self._hole = False
        session.media_written()
        self._seen = [*self._seen, digest][-REMEMBERED:]
        session.broadcast.position = {
            "sequence": item.segment.sequence, "path": item.segment.path, "recent": self._seen}

    def _full(self, part: SegmentPart, item: Piece) -> bool:
        size, seconds = self._session.spec.split_size, self._session.spec.split_seconds
        too_big = size > 0 and part.bytes + len(item.body) > size
        return too_big or (seconds > 0 and part.seconds + item.segment.duration > seconds)
