"""What can be done to a room of the stand-in live site on purpose. Any thread may call it; it takes effect at once.

`edge` names one of the servers that hand out the room's media (0 is the first that the API lists); None: all of them.
"""

import secrets
from typing import TYPE_CHECKING, Literal

from biliupd.rehearsal.live_account import Withheld
from biliupd.rehearsal.live_feed import Edge
from biliupd.rehearsal.live_hls import HlsFaults, new_key

if TYPE_CHECKING:
    from biliupd.rehearsal.live_site import Room


class Faults:
    """The half of a `LiveSite` that misbehaves."""

    _rooms: "dict[str, Room]"

    def _did(self, room_id: str, what: str) -> "Room":
        room = self._rooms[room_id]
        room.account.did(what)
        return room

    def _edges(self, room_id: str, edge: int | None, what: str) -> list[Edge]:
        edges = self._did(room_id, what).edges
        return edges if edge is None else [edges[edge]]

    # the truth

    def withheld(self, room_id: str) -> list[Withheld]:
        """What of this broadcast's media nobody was given, from the first that somebody was given on."""
        room = self._rooms[room_id]
        for shelf in room.shelves:
            shelf.refresh()
        return room.account.withheld(open_units=room.shelves[0].listed() if room.shelves else 0)

    def note(self, room_id: str, what: str) -> None:
        """Something that is not the site's doing, for the account: a recorder was killed."""
        self._did(room_id, what)

    # the API and its addresses

    def restrict(self, room_id: str, restricted: bool = True) -> None:
        """On air, but the API says it is not for everybody."""
        self._rooms[room_id].restricted = restricted

    def rename(self, room_id: str, title: str) -> None:
        self._rooms[room_id].title = title

    def api_fails(self, room_id: str, status: int | None = None, delay_seconds: float = 0) -> None:
        """The room's API answers with this HTTP status, this late; without arguments it is well again."""
        self._rooms[room_id].api_status = status
        self._rooms[room_id].api_delay_seconds = delay_seconds

    def html_instead(self, room_id: str, html: bool = True) -> None:
        """The room's API answers 200 with a page, as sites do that want a captcha."""
        self._rooms[room_id].html = html

    def expire(self, room_id: str) -> None:
        """Media addresses the API gave so far answer 403; connections that are open stay."""
        room = self._did(room_id, "expire")
        room.signs.clear()
        room.sign = secrets.token_hex(8)

    def lifetime(self, room_id: str, seconds: float | None, *, cuts: bool = False, told: bool = True) -> None:
        """Addresses that the API gives from now on answer 403 after so long; None: they last.

        `cuts`: open connections are reset then, too. `told`: the API says `expires_at`.
        """
        room = self._rooms[room_id]
        room.lifetime_seconds, room.lifetime_cuts, room.lifetime_told = seconds, cuts, told

    # connections, for both protocols

    def cut(self, room_id: str, edge: int | None = None) -> None:
        """Reset every FLV connection of the room, in the middle of a tag; or the next request for HLS media, once."""
        room = self._did(room_id, "cut")
        for one in self._edges(room_id, edge, "cut"):
            one.cuts += room.media.protocol != "flv"
        room.feed.close(None if edge is None else room.edges[edge], cut=True)

    def hang_up(self, room_id: str, edge: int | None = None) -> None:
        """End every FLV connection of the room in good order, though the room stays on air."""
        room = self._did(room_id, "hang_up")
        room.feed.close(None if edge is None else room.edges[edge], cut=False)

    def withhold(self, room_id: str, edge: int | None = None) -> None:
        """Connections stay open and bring nothing more. What is withheld of an FLV stream is lost."""
        for one in self._edges(room_id, edge, "withhold"):
            one.delivering.clear()
            one.withheld = True

    def deliver(self, room_id: str, edge: int | None = None) -> None:
        """The end of `withhold`; FLV goes on with the next keyframe."""
        for one in self._edges(room_id, edge, "deliver"):
            one.withheld = False
            one.delivering.set()

    def throttle(self, room_id: str, bytes_per_second: float = 0, edge: int | None = None) -> None:
        """So many bytes a second for each answer, as fast as it goes for 0. An FLV client that is 7 s behind loses."""
        for one in self._edges(room_id, edge, "throttle"):
            one.bytes_per_second = bytes_per_second

    def media_fails(self, room_id: str, status: int | None = None, edge: int | None = None) -> None:
        """New requests for the room's media get this HTTP status, with 200 a web page; None: well again."""
        for one in self._edges(room_id, edge, "media_fails"):
            one.status = status

    # FLV

    def overlap(self, room_id: str, seconds: float) -> None:
        """A new connection begins with so many seconds of the past (0: with the last keyframe), or, when this is
        negative, with the first keyframe so many seconds later."""
        self._rooms[room_id].feed.cache_seconds = seconds

    def jump(self, room_id: str, seconds: float) -> None:
        """From the next keyframe on the timestamps are so much more, or less."""
        self._did(room_id, "jump").feed.jump(round(seconds * 1000))

    def clock(self, room_id: str, milliseconds: int, bits: int = 32) -> None:
        """The next keyframe has this timestamp; with 24 `bits` the sender forgets the extension byte."""
        self._did(room_id, "clock").feed.clock(milliseconds, bits)

    def resend(self, room_id: str, groups: int, shift_seconds: float = 0) -> None:
        """The last groups of pictures come once more, as they were or with other timestamps."""
        self._did(room_id, "resend").feed.resend(groups, round(shift_seconds * 1000))

    def repeat_headers(self, room_id: str) -> None:
        """Metadata and sequence headers come once more."""
        self._did(room_id, "repeat_headers").feed.repeat_headers()

    def second_header(self, room_id: str) -> None:
        """A second FLV header in mid-stream."""
        self._did(room_id, "second_header").feed.second_header()

    def garbage(self, room_id: str, size: int = 1024) -> None:
        """Bytes that are no tag, between two tags; among them some that look like the beginning of one."""
        noise = (secrets.token_bytes(61) + b"\x09\0\1") * (size // 64 + 1)
        self._did(room_id, "garbage").feed.insert(noise[:size], at_keyframe=False)

    def script(self, room_id: str, milliseconds: int = 5_000_000) -> None:
        """A script tag with this timestamp."""
        self._did(room_id, "script").feed.script(milliseconds)

    def end_of_sequence(self, room_id: str) -> None:
        """The tag that says the encoder stopped, though it goes on."""
        self._did(room_id, "end_of_sequence").feed.end_of_sequence()

    # HLS

    def _hls(self, room_id: str, what: str) -> list[HlsFaults]:
        room = self._did(room_id, what)
        for shelf in room.shelves:
            shelf.refresh()
        return [shelf.faults for shelf in room.shelves]

    def drop_segments(self, room_id: str, count: int, how: Literal["404", "absent", "gap"] = "404") -> None:
        """The next segments are not to be had: 404 for ever, not in the playlist, or marked as a gap there."""
        for faults in self._hls(room_id, "drop_segments"):
            faults.drop, faults.drop_how = count, how

    def reset_sequence(self, room_id: str, to: int = 0) -> None:
        """The media sequence begins anew with the next segment, as after an encoder's restart."""
        for faults in self._hls(room_id, "reset_sequence"):
            faults.reset_to = to

    def stale(self, room_id: str, segments: int, every: int = 2, edge: int | None = None) -> None:
        """Every so manieth playlist is that many segments behind, as from another server of a CDN; 0: no more."""
        for one in self._edges(room_id, edge, "stale"):
            one.lag, one.lag_every = segments, every

    def freeze(self, room_id: str, frozen: bool = True) -> None:
        """The playlist is served and does not change any more."""
        for faults in self._hls(room_id, "freeze"):
            faults.frozen = frozen

    def rotate_tokens(self, room_id: str, rotate: bool = True) -> None:
        """The addresses of the segments have another token in every playlist."""
        for faults in self._hls(room_id, "rotate_tokens"):
            faults.tokens = rotate

    def encrypt(self, room_id: str, encrypted: bool = True, *, iv: bool = True) -> None:
        """From the next segment on AES-128 with a new key."""
        key = new_key(iv=iv) if encrypted else None
        for faults in self._hls(room_id, "encrypt"):
            faults.key = key

    def byte_ranges(self, room_id: str, ranges: bool = True) -> None:
        """From the next segment on several of them lie in one resource."""
        for faults in self._hls(room_id, "byte_ranges"):
            faults.ranges = ranges

    def low_latency(self, room_id: str, tags: bool = True) -> None:
        """The playlist has the tags of low-latency HLS."""
        for faults in self._hls(room_id, "low_latency"):
            faults.low_latency = tags

    def discontinuity(self, room_id: str) -> None:
        """The next segment is marked as one, though nothing changes."""
        for faults in self._hls(room_id, "discontinuity"):
            faults.discontinuity = True
