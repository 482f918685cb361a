"""Which of several ways to the same media is tried next.

Pure. Runs in the recorder process. An address that is refused (403, 404), and a host that says nothing or failed twice
in a row, are left for the next one; a host is forgiven when another delivers, an address when the site names it anew.
"""

from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from biliupd.record.spec import Stream

MOST_FAILURES = 2


class Addresses:
    """The streams of a spec and how they fared. `current` is None when none is left: a new one has to be asked for."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = list(streams)
        self._gone: set[str] = set()
        self._failures: Counter[str] = Counter()
        self.current: Stream | None = self._streams[0]

    def renew(self, streams: Sequence[Stream]) -> None:
        """The site was asked again: these are the ways now. Hosts that failed go last."""
        self._streams = sorted(streams, key=lambda stream: self._failures[_host(stream)] >= MOST_FAILURES)
        self._gone.clear()
        self._failures.clear()
        self.current = self._streams[0]

    def failed(self, *, gone: bool = False, silent: bool = False) -> bool:
        """The current one failed; `gone`: the server refuses it, `silent`: it brings nothing.

        Whether to go on at once: with one that has not failed since any delivered, or (None) by asking for others.
        """
        if self.current is None:
            return False
        before, host = self.current, _host(self.current)
        if gone:
            self._gone.add(before.url)
        else:
            self._failures[host] += 1
        if silent:
            self._failures[host] = max(self._failures[host], MOST_FAILURES)
        if gone or self._failures[host] >= MOST_FAILURES:
            left = [stream for stream in self._streams if stream.url not in self._gone]
            best = min(self._failures[_host(stream)] for stream in left) if left else 0
            self.current = next((stream for stream in left if self._failures[_host(stream)] == best), None)
        return self.current is None or (self.current is not before and not self._failures[_host(self.current)])

    def left(self) -> bool:
        """Leave the current one, which delivers too little, for another one; False when there is none."""
        others = [stream for stream in self._streams if stream.url not in self._gone and stream is not self.current]
        if others:
            self.current = min(others, key=lambda stream: self._failures[_host(stream)])
        return bool(others)

    def delivered(self) -> None:
        """The current one brings media: everybody else is forgiven."""
        self._failures.clear()


def _host(stream: Stream) -> str:
    try:
        return urlsplit(stream.url).netloc
    except ValueError:
        return stream.url
