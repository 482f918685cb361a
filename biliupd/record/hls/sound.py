"""Sound that comes in a playlist of its own: a second source, whose segments go into the part of the pictures.

Runs on the main thread of a recorder process. Pictures and sound of a part are put together by their own timestamps
later. For that each part holds one piece of either without a break: where one of them breaks, the next picture begins a
new part.
"""

import time
from collections import deque
from queue import Empty
from typing import Any

from biliupd.record.hls.following import Position
from biliupd.record.hls.items import Joined, Missing, Over, Piece, Reset, Restricted, Task, Trouble
from biliupd.record.hls.source import Source
from biliupd.record.ledger import Cause
from biliupd.record.parts import SegmentPart
from biliupd.record.session import Session

LAST_SECONDS = 5.0  # so long the pictures wait for sound that is late
LATE_SECONDS = 2.0  # so much sound may be behind the pictures


class Sound:
    """`broken`: the next picture has to begin a new part. `pictures_seconds` of them were handed on meanwhile, from
    the date `pictures_began` on (None: not known).
    """

    def __init__(self, session: Session, task: Task) -> None:
        self.broken = False
        self.pictures_seconds = self._seconds = 0.0
        self.pictures_began: float | None = None
        self._late_since: float | None = None
        self.position = task.position
        self.over = False
        self._session = session
        self._source = Source(session.spec, task)
        self._held: deque[tuple[float, Piece]] = deque()  # with its time, until the pictures are there
        self._source.start()

    def late(self) -> bool:
        """Whether the pictures should wait for it; not for ever."""
        if self.over or self.pictures_seconds - self._seconds < LATE_SECONDS:
            self._late_since = None
            return False
        now = time.monotonic()
        self._late_since = self._late_since or now
        return now - self._late_since < LAST_SECONDS

    def close(self) -> None:
        """Fetch no more."""
        self._source.abandon()

    def take(self) -> Trouble | Restricted | None:
        """Write what has come; what ended it, if anything did."""
        self._source.look()
        while True:
            try:
                item = self._source.inbox.get_nowait()
            except Empty:
                return None
            if isinstance(item, Piece):
                self._held.append((self._seconds, item))
                self._seconds += item.segment.duration
                self.begun()
            elif isinstance(item, Missing):
                self._seconds += item.seconds
                self._session.note(item.cause, detail=f"{item.seconds:.1f} s of sound")
                self.broken = True
            elif isinstance(item, Reset) or (isinstance(item, Joined) and (item.seconds or not item.known)):
                self.broken = True
            elif isinstance(item, Over):
                self.over = True
            elif isinstance(item, Trouble | Restricted):
                return item

    def begun(self) -> None:
        """Write what may go into the open part."""
        part = self._session.part
        while self._held and isinstance(part, SegmentPart) and part.suffix and not self.broken:
            at, piece = self._held[0]
            if piece.segment.date is not None and self.pictures_began is not None:
                at = piece.segment.date - self.pictures_began
            if at >= self.pictures_seconds:
                return
            begins = part.sound is None
            if not begins and part.sound and (piece.segment.discontinuity or piece.init != part.sound.init
                                              or piece.suffix != part.sound.suffix):
                self.broken = True
                return
            part.add_sound(piece.body, piece.segment.duration, piece.suffix, piece.init)
            self._held.popleft()
            self._source.written(piece.body)
            self.position = Position.after(piece.segment)

    def reason(self, *, hole: bool, discontinuity: bool) -> str:
        """Why the next picture begins a new part; empty when it does not."""
        return Cause.DISCONTINUITY if discontinuity else Cause.GAP_SPLIT if hole or self.broken else ""


def saved(position: Position | None) -> dict[str, Any]:
    """As it stands in broadcast.json."""
    return {"sound": position._asdict()} if position else {}
