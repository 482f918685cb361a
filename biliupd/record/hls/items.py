"""What the network threads of an HLS recording hand to its main thread, and what they are told.

Pure values, used in the recorder process.
"""

from typing import NamedTuple

from biliupd.record.hls.following import Position
from biliupd.record.ledger import Cause
from biliupd.record.playlist import Segment
from biliupd.record.spec import Stream


class Task(NamedTuple):
    """What is to be followed. `away_seconds`: since media of `position` came; None: nothing is recorded yet.

    `others`: other addresses are left, so that nothing is given up here before they are tried. `patient`: a refused
    segment is given up; else it means that the address has expired. `url`: what is followed, if it is not the address
    of the stream itself but that of its sound.
    """

    stream: Stream
    position: Position | None = None
    away_seconds: float = 0.0
    others: bool = False
    patient: bool = False
    url: str = ""


class Piece(NamedTuple):
    """A segment and its bytes. `init` is its init section (fMP4), `label` its variant.

    `probe`: it may be older than what was recorded last.
    """

    segment: Segment
    body: bytes | bytearray
    suffix: str
    init: bytes
    label: str
    probe: bool


class Missing(NamedTuple):
    """About so many seconds were not to be had; `segment` is the one that is missing, if one is."""

    cause: Cause
    seconds: float
    segment: Segment | None = None


class Joined(NamedTuple):
    """The address goes on after the given position; `seconds` are missing there. Not `known`: by the clock only."""

    seconds: float
    known: bool


class Reset(NamedTuple):
    """The numbering began anew."""

    seconds: float


class Sound(NamedTuple):
    """The sound comes in a playlist of its own; empty: it does not."""

    url: str


class Over(NamedTuple):
    """Everything listed was handed on, and no more will come."""


class Restricted(NamedTuple):
    """It is encrypted in a way that is meant to keep recorders out."""

    reason: str


class Trouble(NamedTuple):
    """The address does not work (any more): `gone` when the server refuses it."""

    reason: str
    cause: Cause = Cause.CUT
    gone: bool = False


Item = Piece | Missing | Joined | Reset | Sound | Over | Restricted | Trouble


class End(Exception):
    """Ends the work of all network threads of an address, and says why."""

    def __init__(self, item: Over | Restricted | Trouble) -> None:
        super().__init__(str(item))
        self.item = item
