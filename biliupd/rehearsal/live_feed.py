"""One FLV stream of the stand-in live site, as the edge servers of a CDN hand it out, well or badly.

A reader thread brings the encoder's tags (`run`); every connection has a queue of its own and a thread that empties it.
Faults are put between: they change what is sent, never the account of what the encoder made.
"""

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from biliupd.rehearsal.live_account import Account, Unit
from biliupd.rehearsal.live_media import AUDIO, SCRIPT, VIDEO, Encoder, Tag

CLIENT_QUEUE_TAGS = 512  # about seven seconds of media; a client that is slower loses media up to the next keyframe
HISTORY_SECONDS = 30.0  # what can be sent again
FILE_HEADER = b"FLV\x01\x05\0\0\0\x09\0\0\0\0"
STEP_MILLISECONDS = 40  # between two encoders


@dataclass(eq=False)
class Edge:
    """One of the servers that hand out a room's media, and how it misbehaves. Without a fault all is as it should be.

    `lag`: so many segments behind the newest one, in every `lag_every`-th answer.
    """

    status: int | None = None
    cuts: int = 0
    bytes_per_second: float = 0.0
    withheld: bool = False
    lag: int = 0
    lag_every: int = 1
    asked: int = 0
    delivering: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.delivering.set()

    def behind(self) -> int:
        """How far behind the playlist of this answer is."""
        self.asked += 1
        return self.lag if self.lag and self.asked % self.lag_every == 0 else 0


@dataclass(eq=False, slots=True)
class Piece:
    """Bytes that go out together; `tag` is None for what is no media (garbage, a second file header)."""

    content: bytes
    tag: Tag | None = None
    unit: Unit | None = None
    at: float = 0.0  # seconds of media, as the encoder counts


@dataclass(eq=False)
class Client:
    """One connection. None in the queue: the end. `deadline`: monotonic, then it is cut."""

    edge: Edge
    tags: "queue.SimpleQueue[Piece | None]" = field(default_factory=queue.SimpleQueue)
    wants_keyframe: bool = True
    not_before: float = 0.0  # seconds of media
    most: int = CLIENT_QUEUE_TAGS
    cut: bool = False
    deadline: float | None = None

    def pieces(self) -> Iterator[Piece]:
        """What is to be written, until the end; afterwards `cut` says how it ends."""
        while True:
            try:
                wait = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
                piece = self.tags.get(timeout=wait)
            except queue.Empty:
                self.cut = True
                return
            if piece is None or self.cut:
                return
            yield piece


@dataclass(eq=False)
class Source:
    """An encoder as the feed sees it: its headers, and by how much its clock is moved."""

    encoder: Encoder
    headers: dict[int, Tag] = field(default_factory=dict)
    shift: int = 0
    over: bool = False


class Feed:
    """Hands the tags of one room to any number of clients.

    A client gets the file header, the metadata, the sequence headers, then everything from the last keyframe on (or
    `cache_seconds` before now; negative: from so long after now on), with the timestamps the stream has then.
    """

    def __init__(self, account: Account | None = None) -> None:
        self.lock = threading.Lock()
        self.account = account or Account()
        self.ended = False
        self.clients: set[Client] = set()
        self.cache_seconds = 0.0
        self.clock_bits = 32  # 24: senders that forget the extension byte
        self._current: Source | None = None
        self._began = 0.0
        self._last = -STEP_MILLISECONDS  # of the last picture, on the encoder's clock
        self._jumped = 0
        self._history: deque[Piece] = deque()
        self._picture: Unit | None = None
        self._at_tag: list[Callable[[], Iterable[Piece]]] = []
        self._at_keyframe: list[Callable[[], Iterable[Piece]]] = []

    def run(self, encoder: Encoder) -> None:
        """Hand out an encoder's tags until it ends; on its own thread. Its first keyframe ends the one before it."""
        source = self.source(encoder)
        with encoder.output:
            for tag in encoder.tags():  # one that was replaced is read on, so that it can end
                self.take(source, tag)
        with self.lock:
            if source is self._current or self._current is None:
                self.ended = True
                for client in self.clients:
                    client.tags.put(None)

    def source(self, encoder: Encoder) -> "Source":
        """Something whose tags can be taken."""
        return Source(encoder)

    def take(self, source: "Source", tag: Tag) -> None:
        """One tag, in its order."""
        with self.lock:
            if not source.over:
                self._take(source, tag)

    def plays(self, encoder: Encoder) -> bool:
        """Whether that one's media is what goes out now."""
        return self._current is not None and self._current.encoder is encoder

    def _take(self, source: Source, tag: Tag) -> None:
        if tag.header:
            source.headers[tag.kind] = tag
            if source is self._current:
                self._send(Piece(_bytes(tag, 0), tag))
            return
        if source is not self._current:
            if not tag.keyframe:
                return
            if self._current:
                self._current.over = True
                source.shift = self._last + STEP_MILLISECONDS - tag.milliseconds
            self._current = source
            for kind in (SCRIPT, VIDEO, AUDIO):
                if kind in source.headers:
                    self._send(Piece(_bytes(source.headers[kind], 0), source.headers[kind]))
        tag = tag._replace(milliseconds=tag.milliseconds + source.shift)
        if tag.keyframe:
            self._do(self._at_keyframe)
        else:
            self._do(self._at_tag)
        self._media(tag)

    def _media(self, tag: Tag) -> None:
        at = tag.milliseconds / 1000
        unit = self.account.made(at, 0.0, tag.body)
        if tag.kind == VIDEO:
            if self._picture:
                self._picture.length = max(0.0, at - self._picture.seconds)
            self._picture, self._last = unit, tag.milliseconds
            unit.length = STEP_MILLISECONDS / 1000
        piece = Piece(_bytes(tag, self._time(tag.milliseconds)), tag, unit, at)
        self._history.append(piece)
        while self._history and self._history[0].at < at - HISTORY_SECONDS:
            self._history.popleft()
        self._send(piece)

    def _time(self, milliseconds: int) -> int:
        return (milliseconds + self._jumped) % (1 << self.clock_bits)

    def _do(self, waiting: list[Callable[[], Iterable[Piece]]]) -> None:
        for make in waiting:
            for piece in make():
                self._send(piece)
        waiting.clear()

    def _send(self, piece: Piece) -> None:
        for client in self.clients:
            self._give(client, piece)

    def _give(self, client: Client, piece: Piece) -> None:
        keyframe = piece.tag is not None and piece.tag.keyframe and piece.at >= client.not_before
        full = client.edge.withheld or client.tags.qsize() >= client.most
        client.wants_keyframe = full or (client.wants_keyframe and not keyframe)
        if not client.wants_keyframe:
            client.tags.put(piece)

    # clients

    def join(self, edge: Edge | None = None, deadline: float | None = None) -> Client:
        client = Client(edge or Edge(), deadline=deadline)
        with self.lock:
            if self.ended or self._current is None:
                client.tags.put(None)
                return client
            headers = [self._current.headers[kind] for kind in (SCRIPT, VIDEO, AUDIO) if kind in self._current.headers]
            client.tags.put(Piece(FILE_HEADER + b"".join(_bytes(tag, 0) for tag in headers)))
            client.not_before = self._history[-1].at - min(0.0, self.cache_seconds) if self._history else 0.0
            if self.cache_seconds >= 0 and not client.edge.withheld:
                for piece in self._cached():
                    client.tags.put(piece)
                    client.wants_keyframe = False
                client.not_before = 0.0
                client.most = CLIENT_QUEUE_TAGS + client.tags.qsize()
            elif self.cache_seconds >= 0:
                client.not_before = 0.0
            self.clients.add(client)
        return client

    def _cached(self) -> list[Piece]:
        """From the first keyframe of the last `cache_seconds` on; at least from the last keyframe."""
        pieces, starts = list(self._history), _keyframes(self._history)
        if not starts:
            return []
        wanted = pieces[-1].at - self.cache_seconds
        return pieces[next((n for n in starts if pieces[n].at >= wanted), starts[-1]) :]

    def leave(self, client: Client) -> None:
        with self.lock:
            self.clients.discard(client)

    def close(self, edge: Edge | None = None, *, cut: bool) -> None:
        """End every connection (of one edge): by a reset in the middle of a tag, or in good order."""
        with self.lock:
            for client in self.clients:
                if edge in (None, client.edge):
                    client.cut = cut
                    client.tags.put(None)

    def half(self) -> bytes:
        """The first half of the last tag, as a cut leaves it."""
        with self.lock:
            last = self._history[-1].content if self._history else b""
        return last[: len(last) // 2]

    # faults

    def jump(self, milliseconds: int) -> None:
        """From the next keyframe on the timestamps are that much more (or less)."""
        self._later(self._at_keyframe, lambda: self._set(self._jumped + milliseconds))

    def clock(self, milliseconds: int, bits: int) -> None:
        """The next keyframe has this timestamp; `bits` of it are sent."""
        self._later(self._at_keyframe, lambda: self._set(milliseconds - self._last, bits))

    def _set(self, jumped: int, bits: int = 0) -> tuple[()]:
        self._jumped, self.clock_bits = jumped, bits or self.clock_bits
        return ()

    def insert(self, content: bytes, *, at_keyframe: bool) -> None:
        """Bytes of any kind, before the next keyframe or in the middle of a group of pictures."""
        self._later(self._at_keyframe if at_keyframe else self._at_tag, lambda: [Piece(content)])

    def resend(self, groups: int, milliseconds: int) -> None:
        """Before the next keyframe the last groups of pictures come again, their timestamps that much more."""
        self._later(self._at_keyframe, lambda: list(self._again(groups, milliseconds)))

    def _again(self, groups: int, milliseconds: int) -> Iterator[Piece]:
        starts = _keyframes(self._history)[-groups:]
        for piece in itertools.islice(list(self._history), starts[0] if starts else 0, None):
            assert piece.tag
            at = self._time(piece.tag.milliseconds + milliseconds)
            yield Piece(_bytes(piece.tag, at) if milliseconds else piece.content, piece.tag, piece.unit, piece.at)

    def repeat_headers(self) -> None:
        """Metadata and sequence headers once more, before the next keyframe."""
        def again() -> list[Piece]:
            assert self._current
            return [Piece(_bytes(tag, self._time(self._last)), tag) for tag in self._current.headers.values()]
        self._later(self._at_keyframe, again)

    def second_header(self) -> None:
        """The FLV file header and all others in mid-stream, as when a server begins its answer again."""
        self.insert(FILE_HEADER, at_keyframe=True)
        self.repeat_headers()

    def end_of_sequence(self) -> None:
        """The tag that says the encoder stopped (AVC or HEVC, packet type 2), though it goes on."""
        def end() -> list[Piece]:
            assert self._current
            start = self._current.headers[VIDEO].body[0]
            body = bytes([start & 0xF0 | 2]) + b"hvc1" if start & 0x80 else bytes([start, 2, 0, 0, 0])
            return [Piece(_bytes(Tag(VIDEO, 0, body, False, False), self._time(self._last)))]
        self._later(self._at_keyframe, end)

    def script(self, milliseconds: int) -> None:
        """A script tag with this timestamp in the middle of a group of pictures."""
        body = b"\x02\0\x0aonTextData\x08\0\0\0\0\0\0\x09"
        self.insert(_bytes(Tag(SCRIPT, 0, body, False, False), milliseconds), at_keyframe=False)

    def _later(self, waiting: list[Callable[[], Iterable[Piece]]], make: Callable[[], Iterable[Piece]]) -> None:
        with self.lock:
            waiting.append(make)


def _keyframes(pieces: Iterable[Piece]) -> list[int]:
    return [n for n, piece in enumerate(pieces) if piece.tag and piece.tag.keyframe]


def _bytes(tag: Tag, milliseconds: int) -> bytes:
    size = len(tag.body).to_bytes(3, "big")
    head = bytes([tag.kind]) + size + (milliseconds & 0xFFFFFF).to_bytes(3, "big") + bytes([milliseconds >> 24 & 0xFF])
    return head + b"\0\0\0" + tag.body + (11 + len(tag.body)).to_bytes(4, "big")
