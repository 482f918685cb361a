"""The ledger of a broadcast: what is missing of it and why, what was mended, and where its files begin.

Pure. Rows stand in broadcast.json, in their order; the sums of all of them in its figures, so that a ledger with too
many rows is still right. A row: {at, cause, file, media_seconds_at, seconds, detail}, `at` an ISO 8601 moment, `file`
and `media_seconds_at` the place in the recording (file empty: between two), `seconds` how much is missing there.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from biliupd.record.broadcast import Broadcast

MOST_ROWS = 1000  # beyond it a row is counted in with the last one of its cause
TRIFLE_SECONDS = 2.0  # wall and media time never agree to the second: a server sends some seconds in advance
TRIFLE_SHARE = 0.005


class Cause(StrEnum):
    """Why there is a row. The first ones say that something is missing, those after OFFLINE that nothing is."""

    CUT = "cut"  # the connection broke off
    SERVER_DROP = "server-drop"  # the server ended it, or refused
    STALL = "stall"  # bytes or media did not come for too long
    SLOW = "slow"  # the server sent less than real time (with 0 s: and nothing is missing for that)
    OVERFLOW = "overflow"  # our disk was slower than the stream
    NEW_ADDRESS = "new-address"  # the site had to be asked for another one
    RESTART = "restart"  # our own recorder ended and began again
    NO_SPACE = "no-space"
    WAITED = "waited"  # others had a higher priority
    SKIPPED_SEGMENT = "skipped-segment"  # was not to be had, or slid out of the playlist
    GAP_TAG = "gap-tag"  # the playlist itself says so
    AD = "ad"
    GARBAGE = "garbage"  # bytes that were no media
    DROPPED_TAGS = "dropped-tags"  # could not be decoded without what came before
    HOLE = "hole"  # the stream's own clock went on without media

    OFFLINE = "offline"  # the streamer was not on air: nothing to miss

    JUMP = "jump"  # the stream's clock was set
    DUPLICATE = "dup"  # came twice, written once
    SEAMLESS_JOIN = "seamless-join"  # a new connection went on where the old one ended
    CDN_SWITCH = "cdn-switch"
    RESET = "reset"  # the numbering of segments began anew
    DISCONTINUITY = "discontinuity"
    CODEC_CHANGE = "codec-change"  # from here on: a new file, and why
    END_TAG = "end-tag"
    LIMIT_SPLIT = "limit-split"
    TITLE_SPLIT = "title-split"
    GAP_SPLIT = "gap-split"
    VARIANT_CHANGE = "variant-change"
    FRAGMENT = "fragment"  # the file is shorter than record.fragment_seconds
    SALVAGED = "salvaged"  # a recorder was killed; its file was made whole afterwards


LOSSES = frozenset(cause for cause in Cause if list(Cause).index(cause) < list(Cause).index(Cause.OFFLINE))


class Summary(NamedTuple):
    """`share` of the broadcast that is recorded, 0 to 1; `unexplained_seconds` of wall time are in no row."""

    share: float
    gaps: int
    lost_seconds: float
    live_seconds: float
    media_seconds: float
    unexplained_seconds: float

    def __str__(self) -> str:
        if not self.gaps:
            return "100 %, no gap"
        share = min(99.9, int(self.share * 1000) / 10)  # with a gap it is never 100
        return f"{share:.1f} %, {self.gaps} {'gap' if self.gaps == 1 else 'gaps'}, {self.lost_seconds:.0f} s"


def add(broadcast: "Broadcast", row: dict[str, Any]) -> None:
    """Append a row and count it in."""
    rows, figures = broadcast.ledger, broadcast.figures
    seconds = max(0.0, float(row["seconds"]))
    if row["cause"] == Cause.OFFLINE:
        figures.paused_seconds = round(figures.paused_seconds + seconds, 3)
    elif row["cause"] in LOSSES and seconds > 0:
        figures.gaps += 1
        figures.lost_seconds = round(figures.lost_seconds + seconds, 3)
    before = rows[-1] if rows else {}
    same_place = all(before.get(key) == row[key] for key in ("cause", "file", "media_seconds_at"))
    if same_place and row["cause"] in LOSSES and before.get("seconds"):
        figures.gaps -= 1 if seconds > 0 else 0  # one hole, told in pieces
        before["seconds"] = round(before["seconds"] + seconds, 3)
    elif len(rows) < MOST_ROWS:
        rows.append(row)
    else:
        last = next((item for item in reversed(rows) if item["cause"] == row["cause"]), rows[-1])
        last["count"] = last.get("count", 1) + 1
        last["seconds"] = round(last["seconds"] + seconds, 3)


def summary(broadcast: "Broadcast") -> Summary:
    """The broadcast in one line."""
    figures = broadcast.figures
    media, lost = figures.media_seconds, figures.lost_seconds
    unexplained = figures.live_seconds - media - lost
    if unexplained < max(TRIFLE_SECONDS, TRIFLE_SHARE * figures.live_seconds):
        unexplained = 0.0
    whole = media + lost + unexplained
    return Summary(media / whole if whole else 0.0, figures.gaps, lost, figures.live_seconds, media, unexplained)
