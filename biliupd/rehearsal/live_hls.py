"""One HLS stream of the stand-in live site: what the encoder put on the disk, listed and served, well or badly.

The playlist is written anew for every request, from the encoder's own one; faults change what is listed and how.
Any thread that answers a request, one at a time. Reads the room's directory, writes nothing.
"""

import secrets
import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from Crypto.Cipher import AES
from Crypto.Util.Padding import pad

from biliupd.rehearsal.live_account import Account, Unit, digest
from biliupd.rehearsal.live_media import HLS_SEGMENT_SECONDS

LIST_LENGTH = 6
GROUP = 4  # segments in one resource, where byte ranges are asked for
KNOWN_TOKENS = 40  # playlists whose tokens are still good
_TYPES = {".ts": "video/mp2t", ".m4s": "video/mp4", ".mp4": "video/mp4", ".key": "application/octet-stream"}

Gone = Literal["", "404", "absent", "gap"]


class Key(NamedTuple):
    """AES-128; without `iv` the media sequence number is the initialization vector (RFC 8216, 5.2)."""

    name: str
    secret: bytes
    iv: bytes


@dataclass(eq=False)
class _Segment:
    number: int  # of the encoder, from 0, over all its runs
    path: Path
    seconds: float
    moment: str
    init: str
    first_of_run: bool
    sequence: int
    generation: int
    unit: Unit
    digest: bytes
    gone: Gone = ""
    key: Key | None = None
    tagged: bool = False  # a discontinuity that is none
    ranged: bool = False  # lies in one resource with others
    name: str = ""


class Body(NamedTuple):
    """An answer. `delivers`: what somebody has when all of it is sent, and its digest before any encryption."""

    status: int
    kind: str
    content: bytes
    delivers: tuple[tuple[Unit, bytes], ...] = ()
    content_range: str = ""


@dataclass
class HlsFaults:
    """What is to be done with segments from now on, and how they are listed."""

    drop: int = 0
    drop_how: Gone = "404"
    key: Key | None = None
    discontinuity: bool = False
    tokens: bool = False
    ranges: bool = False
    low_latency: bool = False
    reset_to: int | None = None
    frozen: bool = False


@dataclass
class Shelf:
    """One variant of one broadcast. `first`: the account's own; the units of further variants are looked up in it."""

    index: ClassVar[str] = "index.m3u8"
    kind: ClassVar[str] = "application/vnd.apple.mpegurl"
    live_id: str
    account: Account
    faults: HlsFaults = field(default_factory=HlsFaults)
    ended: bool = False
    _runs: list[Path] = field(default_factory=list)
    _segments: list[_Segment] = field(default_factory=list)
    _names: dict[str, list[_Segment]] = field(default_factory=dict)
    _paths: set[Path] = field(default_factory=set)
    _keys: dict[str, Key] = field(default_factory=dict)
    _tokens: deque[str] = field(default_factory=lambda: deque(maxlen=KNOWN_TOKENS))
    _sequence: int = 0
    _generation: int = 0
    _shown: int | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def add_run(self, playlist: Path) -> None:
        """A further encoder writes there."""
        with self._lock:
            self.refresh()
            self._runs.append(playlist)

    def refresh(self) -> None:
        """Take in what the encoders wrote since."""
        with self._lock:
            for run, playlist in enumerate(self._runs):
                try:
                    lines = playlist.read_text().splitlines()
                except OSError:
                    continue
                seconds, moment, first = 0.0, "", run > 0 and not any(p.name.startswith(playlist.stem + "-")
                                                                      for p in self._paths)
                for line in lines:
                    if line.startswith("#EXTINF:"):
                        seconds = float(line[8:].rstrip(",").partition(",")[0])
                    elif line.startswith("#EXT-X-PROGRAM-DATE-TIME:"):
                        moment = line.partition(":")[2]
                    elif line and not line.startswith("#"):
                        path = playlist.with_name(line)
                        if path not in self._paths:
                            self._paths.add(path)
                            self._add(path, seconds, moment, f"{playlist.stem}.mp4", first)
                            first = False

    def _add(self, path: Path, seconds: float, moment: str, init: str, first_of_run: bool) -> None:
        faults, number = self.faults, len(self._segments)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        unit = self._unit(number, seconds, content)
        if moment:
            unit.made_at = datetime.fromisoformat(moment).timestamp() + seconds
        if faults.reset_to is not None:
            self._sequence, faults.reset_to = faults.reset_to, None
            self._generation += 1
        gone: Gone = ""
        if faults.drop:
            faults.drop -= 1
            gone, unit.forbidden = faults.drop_how, True
        segment = _Segment(
            number, path, seconds, moment, init if path.suffix == ".m4s" else "", first_of_run, self._sequence,
            self._generation, unit, digest(content), gone, faults.key, faults.discontinuity, faults.ranges,
        )  # fmt: skip
        faults.discontinuity = False
        self._sequence += gone != "absent"
        again = f"g{self._generation}-" if self._generation else ""
        if faults.ranges:
            segment.name = f"{self.live_id}-{again}r{segment.sequence // GROUP:05}{path.suffix}"
        else:
            segment.name = f"{self.live_id}-{again}{segment.sequence if again else number:05}{path.suffix}"
        self._segments.append(segment)
        self._names.setdefault(segment.name, []).append(segment)

    def _unit(self, number: int, seconds: float, content: bytes) -> Unit:
        units = self.account.units
        if number < len(units):  # another variant of it
            return units[number]
        return self.account.made(units[-1].seconds + units[-1].length if units else 0.0, seconds, content)

    # playlists

    def playlist(self, behind: int = 0) -> bytes:
        """As it is now, or as it was `behind` segments ago."""
        with self._lock:
            self.refresh()
            until = len(self._segments) - behind
            if self.faults.frozen:
                until = self._shown if self._shown is not None else until
            self._shown = until
            listed = [one for one in self._segments[:max(until, 1)] if one.gone != "absent"]
            window = [one for one in listed if one.generation == listed[-1].generation][-LIST_LENGTH:] if listed else []
            token = secrets.token_hex(8) if self.faults.tokens else ""
            if token:
                self._tokens.append(token)
            return "\n".join([*self._head(window), *self._body(window, token), ""]).encode()

    def _head(self, window: list[_Segment]) -> list[str]:
        longest = max([HLS_SEGMENT_SECONDS, *(one.seconds for one in window)])
        version = 7 if any(one.init for one in window) else 6 if self.faults.low_latency else 4
        lines = ["#EXTM3U", f"#EXT-X-VERSION:{version}", f"#EXT-X-TARGETDURATION:{round(longest)}"]
        if self.faults.low_latency:
            lines += ["#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5,CAN-SKIP-UNTIL=12.0",
                      "#EXT-X-PART-INF:PART-TARGET=0.5"]  # fmt: skip
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{window[0].sequence if window else self._sequence}")
        slid = sum(one.first_of_run or one.tagged for one in self._segments[: window[0].number if window else 0])
        return [*lines, f"#EXT-X-DISCONTINUITY-SEQUENCE:{slid}"] if slid else lines

    def _body(self, window: list[_Segment], token: str) -> list[str]:
        lines: list[str] = []
        key, init, range_end = None, "", ("", 0)
        query = f"?token={token}" if token else ""
        for one in window:
            if one.first_of_run or one.tagged:
                lines.append("#EXT-X-DISCONTINUITY")
            if one.init != init:
                init = one.init
                if key:  # an init section that stands behind a key would be encrypted, too
                    lines.append("#EXT-X-KEY:METHOD=NONE")
                    key = None
                lines.append(f'#EXT-X-MAP:URI="{init}"')
            if one.key != key:
                key = one.key
                self._keys.update({key.name: key} if key else {})
                iv = f",IV=0x{key.iv.hex()}" if key and key.iv else ""
                lines.append(f'#EXT-X-KEY:METHOD=AES-128,URI="{key.name}"{iv}' if key else "#EXT-X-KEY:METHOD=NONE")
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{one.moment}")
            if one.gone == "gap":
                lines.append("#EXT-X-GAP")
            name = one.name + query
            if self.faults.low_latency and one in window[-2:]:
                lines += [f'#EXT-X-PART:DURATION={one.seconds / 2:.3f},URI="{one.name}?part={n}"' for n in (0, 1)]
            lines.append(f"#EXTINF:{one.seconds:.6f},")
            if one.ranged:
                group = self._names[one.name]
                before = sum(len(self._content(other)) for other in group[: group.index(one)])
                size = len(self._content(one))
                lines.append(f"#EXT-X-BYTERANGE:{size}" + ("" if range_end == (name, before) else f"@{before}"))
                range_end = (name, before + size)
            lines.append(name)
        if self.ended:
            lines.append("#EXT-X-ENDLIST")
        elif self.faults.low_latency and window:
            lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{self.live_id}-next.ts"')
        return lines

    # everything else

    def fetch(self, name: str, directory: Path, asked_range: str, token: str | None) -> Body:
        """A segment, a part of a resource, an init section or a key."""
        with self._lock:
            self.refresh()
            kind = _TYPES.get(Path(name).suffix, "")
            if name in self._keys:
                return Body(200, kind, self._keys[name].secret)
            if name.endswith(".mp4") and any(one.init == name for one in self._segments):
                return Body(200, kind, (directory / name).read_bytes())
            segments = self._names.get(name, [])
            if self.faults.tokens and token not in self._tokens and segments:
                return Body(403, "text/plain", b"the token is too old\n")
            if not segments or any(one.gone for one in segments):
                return Body(404, "text/plain", b"not here\n")
            try:
                pieces = [self._content(one) for one in segments]
            except FileNotFoundError:
                return Body(404, "text/plain", b"not any more\n")
        whole = b"".join(pieces)
        units = [(one.unit, one.digest) for one in segments]
        if not asked_range.startswith("bytes="):
            return Body(200, kind, whole, tuple(units))
        start, _, end = asked_range[6:].partition("-")
        begin, last = int(start), min(int(end) if end else len(whole) - 1, len(whole) - 1)
        if begin > last:
            return Body(416, "text/plain", b"beyond the end\n")
        places = [sum(map(len, pieces[:n])) for n in range(len(pieces))]
        covered = tuple(unit for unit, place, piece in zip(units, places, pieces, strict=True)
                        if begin <= place and place + len(piece) - 1 <= last)  # fmt: skip
        return Body(206, kind, whole[begin : last + 1], covered, f"bytes {begin}-{last}/{len(whole)}")

    def _content(self, one: _Segment) -> bytes:
        """Raises `FileNotFoundError` when the encoder has deleted it."""
        content = one.path.read_bytes()
        if not one.key:
            return content
        iv = one.key.iv or one.sequence.to_bytes(16, "big")
        return bytes(AES.new(one.key.secret, AES.MODE_CBC, iv).encrypt(pad(content, 16)))

    def listed(self) -> int:
        """How many of the last segments may still be asked for."""
        return 0 if self.ended else LIST_LENGTH


def new_key(*, iv: bool) -> Key:
    """A fresh one."""
    return Key(f"{secrets.token_hex(4)}.key", secrets.token_bytes(16), secrets.token_bytes(16) if iv else b"")
