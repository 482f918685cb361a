"""The playlist of one HLS address, asked for again and again: its variant, and what to do when it is not to be had.

Runs on the network threads of a recorder process, on one of them at a time.
"""

import logging
import re
from threading import Event

from biliupd.errors import TemporaryError
from biliupd.record.fetch import GONE, Refused
from biliupd.record.hls.items import End, Task, Trouble
from biliupd.record.hls.variants import Choice, choose
from biliupd.record.ledger import Cause
from biliupd.record.playlist import MasterPlaylist, MediaPlaylist, NotAPlaylist, parse
from biliupd.record.spec import Spec
from biliupd.record.wire import Wire

log = logging.getLogger("recorder")

LARGEST_PLAYLIST = 8 << 20
READ_SECONDS = 10.0
PLAYLIST_ATTEMPTS = 3
RETRY_SECONDS = 0.5
MOST_MASTERS = 3
_LOW_LATENCY = re.compile(r"(?<=[?&])_HLS_[A-Za-z_]+=[^&]*&?")


def plain(url: str) -> str:
    """An address without what asks for low latency: those answers leave out segments, or wait for parts of one."""
    return _LOW_LATENCY.sub("", url).rstrip("?&") if "_HLS_" in url else url


class Reload:
    """Reads the media playlist of an address; `moved`: it is another one than before, which may count differently."""

    def __init__(self, spec: Spec, task: Task, stop: Event) -> None:
        self.choice = Choice((task.stream.url,))
        self.moved = False
        self._spec, self._task, self._stop = spec, task, stop
        self._url = self._top = plain(task.url or task.stream.url)
        self._variables: dict[str, str] = {}
        self._asked_again = False
        self._text = b""
        self._playlist: MediaPlaylist | None = None

    def delivered(self) -> None:
        """It brought something new: the next trouble is another story."""
        self._asked_again = False

    def read(self, wire: Wire, since: int, *, ended: bool) -> MediaPlaylist | None:
        """The media playlist as it is now, with the segments from number `since` on; all when it ends before them.

        None when it was told to stop. `ended`: it has said so, and may be taken away. Raises `End` when the address is
        no good any more.
        """
        failures = masters = 0
        while not self._stop.is_set():
            try:
                body, final = wire.get(self._url, limit_bytes=LARGEST_PLAYLIST,
                                       seconds=READ_SECONDS + self._spec.connect_timeout_seconds)
                if self._playlist and body == self._text:
                    return self._playlist
                playlist = self._parsed(bytes(body), final, since)
                if isinstance(playlist, MediaPlaylist):
                    self._text, self._playlist = bytes(body), playlist
                    return playlist
                masters += 1
                if masters > MOST_MASTERS:
                    raise End(Trouble("master playlists that list master playlists", Cause.SERVER_DROP))
                self._choose(playlist)
            except (TemporaryError, NotAPlaylist) as error:
                if ended and self._playlist:
                    return self._playlist
                failures += 1
                self._failed(error, failures)
        return None

    def _parsed(self, body: bytes, final: str, since: int) -> MasterPlaylist | MediaPlaylist:
        text = body.decode(errors="replace")
        since = 0 if self.moved else since
        playlist = parse(text, final, since=since, variables=self._variables)
        if isinstance(playlist, MediaPlaylist) and playlist.next_sequence < since:
            return parse(text, final, variables=self._variables)  # stale or reset: what else is listed counts
        return playlist

    def _choose(self, master: MasterPlaylist) -> None:
        choice = choose(master, self._spec)
        if choice.label != self.choice.label:
            log.info("variant %s", choice.label)
            if choice.warning:
                log.warning("%s", choice.warning)
        self.choice, self._url, self._variables = choice, plain(choice.addresses[0]), dict(master.variables)

    def _failed(self, error: TemporaryError | NotAPlaylist, failures: int) -> None:
        """Decide where the next try goes to, and wait for it. Raises `End` when there is none left."""
        log.info("playlist: %s", error)
        refused = isinstance(error, Refused) and error.status in GONE
        answered = isinstance(error, Refused | NotAPlaylist)
        top, addresses = self._url == self._top, self.choice.addresses
        addresses = tuple(plain(address) for address in addresses)
        if not top and self._url in addresses[:-1]:
            self._move(addresses[addresses.index(self._url) + 1])  # another one of the same variant
            return
        if failures >= (2 if refused else 1 if self._task.others else PLAYLIST_ATTEMPTS):
            if top or self._asked_again:
                raise End(Trouble(f"playlist: {error}", Cause.SERVER_DROP if answered else Cause.CUT, refused))
            self._asked_again = True
            self._move(self._top)  # it may list others by now
        self._stop.wait(RETRY_SECONDS * 2 ** min(3, failures - 1))

    def _move(self, url: str) -> None:
        self._url, self._playlist, self._text, self.moved = url, None, b"", True
