"""One segment: its bytes, decrypted, looked at and with the init section that belongs to it.

Runs on the network threads of a recorder process, on several at a time.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Lock

from biliupd.errors import TemporaryError
from biliupd.record import container
from biliupd.record.fetch import GONE, Refused
from biliupd.record.hls.items import End, Trouble
from biliupd.record.hls.keys import Keys
from biliupd.record.ledger import Cause
from biliupd.record.playlist import Key, Map, Segment, path_of
from biliupd.record.wire import Wire

log = logging.getLogger("recorder")

LARGEST_SEGMENT = 64 << 20
LARGEST_INIT = 8 << 20
SEGMENT_ATTEMPTS = 3
SEGMENT_SECONDS = 10.0  # for one attempt, or four times its duration
RETRY_SECONDS = 0.5
KEY_SECONDS = 5.0
INIT_SECONDS = 5.0  # so often it is looked whether an init section is still the same
INIT_PAUSE = 1.0
MOST_INITS = 5  # fetched until two are equal


class Fetch:
    """Fetches the segments of one address; keys and init sections are kept.

    `patient`: a refused segment is just missing; else it means that the address has expired.
    """

    def __init__(self, stop: Event, *, patient: bool) -> None:
        self._stop, self._patient = stop, patient
        self._keys = Keys()
        self._inits = Lock()  # guards what follows
        self._init: tuple[str, bytes, float] = ("", b"", 0.0)  # path, content, when it was looked at
        self._decode_time = 0

    def media(self, wire: Wire, segment: Segment, given_up: Callable[[], bool]
              ) -> tuple[bytes | bytearray, bytes] | None:
        """The bytes of a segment and its init section; None when they are not to be had."""
        usable: bytes | bytearray | None = None
        problem = ""
        for attempt in range(SEGMENT_ATTEMPTS):
            if self._stop.is_set() or given_up():
                return None
            try:
                body, _ = wire.get(segment.uri, seconds=max(SEGMENT_SECONDS, 4 * segment.duration),
                                   limit_bytes=LARGEST_SEGMENT, byterange=segment.byterange)
                plain = self._opened(wire, body, segment.key, segment.sequence)
                good, problem = container.sound(plain, segment)
                if good and not problem:
                    usable = good
                    break
                usable = good or usable
            except Refused as error:
                problem = str(error)
                if error.status in (401, 403) and not self._patient:
                    raise End(Trouble(f"segment: {problem}", Cause.SERVER_DROP)) from error
                if error.status in GONE and attempt:
                    break
            except TemporaryError as error:
                problem = str(error)
            if attempt < SEGMENT_ATTEMPTS - 1 and self._stop.wait(RETRY_SECONDS * 2 ** attempt):
                return None
        if not usable:
            log.warning("segment %d: %s", segment.sequence, problem)
            return None
        init = self._init_of(wire, segment, usable)
        return None if init is None else (usable, init)

    def _opened(self, wire: Wire, body: bytes | bytearray, key: Key | None, sequence: int) -> bytes | bytearray:
        if key is None:
            return body
        return self._keys.open(body, key, sequence, lambda uri: self._key(wire, uri))

    def _key(self, wire: Wire, uri: str) -> bytes:
        """The bytes of a key. Refused, it is not known whether the stream goes on: another address may tell."""
        for attempt in range(SEGMENT_ATTEMPTS):
            try:
                return bytes(wire.get(uri, seconds=KEY_SECONDS, limit_bytes=1 << 10)[0])
            except TemporaryError as error:
                reason = str(error)
            if self._stop.wait(RETRY_SECONDS * 2 ** attempt):
                break
        raise End(Trouble(f"key: {reason}", Cause.SERVER_DROP))

    def _init_of(self, wire: Wire, segment: Segment, body: bytes | bytearray) -> bytes | None:
        """The init section that belongs to a segment; None when it is not to be had.

        The same address may bring another one later, so it is asked for again: now and then, at a discontinuity, and
        when the clock of the media goes back.
        """
        if segment.map is None:
            return b""
        path = path_of(segment.map.uri, segment.map.byterange)
        begins = container.decode_time(body) or 0
        with self._inits:
            back, self._decode_time = begins < self._decode_time, begins
            known, content, looked_at = self._init
            now = time.monotonic()
            if path == known and not back and not segment.discontinuity and now - looked_at < INIT_SECONDS:
                return content
            found = self._new_init(wire, segment.map, content if path == known else b"")
            if found is None:
                return content if path == known else None
            self._init = (path, found, time.monotonic())
            return found

    def _new_init(self, wire: Wire, map: Map, before: bytes) -> bytes | None:
        """Two equal answers: some servers hand out half-written ones. `before` counts as one."""
        for _ in range(MOST_INITS):
            try:
                body, _ = wire.get(map.uri, seconds=SEGMENT_SECONDS, limit_bytes=LARGEST_INIT,
                                   byterange=map.byterange)
                found = bytes(self._opened(wire, body, map.key, 0))
            except TemporaryError as error:
                log.warning("init section: %s", error)
                found = b""
            if found and found == before and container.whole_init(found):
                return found
            if found and not container.whole_init(found):
                log.warning("init section: not whole")
            before = found
            if self._stop.wait(INIT_PAUSE):
                break
        return None
