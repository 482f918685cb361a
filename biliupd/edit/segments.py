"""What a playlist lists → files that are there and whole, parted into runs that can each be joined.

Runs on a worker thread. Reads the playlist, the keys and a few bytes of each segment; writes nothing. Every file lies
below the playlist's directory, also when symbolic links are followed, and is a regular one.
"""

import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from biliupd.edit import media
from biliupd.edit.feed import BLOCK_BYTES, BadKey, Feed, encrypted, open_file, reading
from biliupd.edit.playlist import Entry, Ref, Variant, check_name, read, spellings
from biliupd.errors import BiliupdError, PermanentError, TemporaryError

TS_PACKET_BYTES = 188
MOST_BOXES = 100_000  #: of a segment: a fragment of a frame has two
LOOKS = 16  #: at so many packets of a segment it is seen whether they are packets
_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"emsg", b"prft", b"free", b"skip", b"mdat")

Gaps = Literal["refuse", "merge"]


class SegmentMissing(TemporaryError):
    """It is not there (yet)."""


class SegmentDamaged(PermanentError):
    """It is there and of no use."""


class Gap(NamedTuple):
    """What a merge had to leave out."""

    segment: str  #: its name as the playlist writes it
    at_seconds: float  #: where in the merged file
    seconds: float  #: how much is missing there
    cause: str


class Segment(NamedTuple):
    """A segment that can be fed into ffmpeg."""

    name: str
    feed: Feed
    duration_seconds: float
    torn: str = ""  #: why its end is missing


class Run(NamedTuple):
    """Segments whose timestamps go on from one to the next."""

    demuxer: str  #: ffmpeg's name of their format
    init: Feed | None
    segments: list[Segment]

    @property
    def duration_seconds(self) -> float:
        return sum(segment.duration_seconds for segment in self.segments)

    @property
    def feeds(self) -> list[Feed]:
        """All there is to feed, in order."""
        return [*([self.init] if self.init else []), *(segment.feed for segment in self.segments)]


class Plan(NamedTuple):
    """What there is to merge."""

    runs: list[Run]
    gaps: list[Gap]
    target_seconds: float  #: no segment is much longer
    ended: bool
    sound: list[Run]  #: of the same number as `runs`, when the sound has a playlist of its own

    @property
    def duration_seconds(self) -> float:
        """By the playlist, without what is left out."""
        return sum(run.duration_seconds for run in self.runs)


class Found(NamedTuple):
    """A segment that was looked for, and what it needs."""

    demuxer: str
    init: Feed | None
    segment: Segment
    begins: bool  #: it begins a run, whatever was before it


class Assembly:
    """Puts segments together to runs; what cannot be used is refused, or left out and noted."""

    def __init__(self, gaps: Gaps) -> None:
        self.runs: list[Run] = []
        self.gaps: list[Gap] = []
        self._merge = gaps == "merge"
        self._seconds = 0.0
        self._broken = True

    def add(self, name: str, seconds: float, find: Callable[[], Found], *, anew: bool = False) -> None:
        """The next segment. Raises what `find` raises, but SegmentMissing and SegmentDamaged only to refuse them."""
        try:
            found = find()
        except (SegmentMissing, SegmentDamaged) as error:
            if not self._merge:
                raise
            self.gaps.append(Gap(name, self._seconds, seconds, str(error)))
            self._broken = True
            return
        self._broken |= anew or found.begins
        if self._broken or (found.demuxer, found.init) != self.runs[-1][:2]:
            self.runs.append(Run(found.demuxer, found.init, []))
        self.runs[-1].segments.append(found.segment)
        self._broken = bool(found.segment.torn)
        self._seconds += found.segment.duration_seconds

    def plan(self, source: str, target_seconds: float, ended: bool) -> Plan:
        """What came of it. Raises PermanentError when it is nothing."""
        if self.gaps and not self.runs:
            raise PermanentError(f"{source!a}: none of its segments can be used: {self.gaps[0].cause}")
        if not self.runs:
            raise PermanentError(f"{source!a} lists no segment")
        return Plan(self.runs, self.gaps, target_seconds, ended, [])


def plan(playlist: Path, gaps: Gaps = "refuse") -> Plan:
    """Read a playlist and look at its files.

    Raises PermanentError naming the line for what it may not contain or a segment that is damaged, TemporaryError
    naming a segment that is missing. With `gaps` "merge" such segments become gaps of the plan.
    """
    listing = read(playlist)
    if listing.variants:
        return _best(playlist, listing.variants, gaps)
    files = Files(os.path.realpath(playlist.parent))
    made = Assembly(gaps)
    for entry in listing.entries:
        find = functools.partial(files.segment, entry, cut=gaps == "merge")
        made.add(entry.segment.name, entry.duration_seconds, find, anew=entry.anew)
    longest = max((entry.duration_seconds for entry in listing.entries), default=0.0)
    return made.plan(playlist.name, listing.target_seconds or longest, listing.ended)


def _best(playlist: Path, variants: list[Variant], gaps: Gaps) -> Plan:
    """Of the variants whose files are all here the one with the highest bandwidth, with its sound."""
    local: list[tuple[Path, Variant]] = []
    elsewhere: list[BiliupdError] = []
    for variant in variants:
        try:
            local.append((_below(playlist, variant.playlist), variant))
        except (TemporaryError, PermanentError) as error:
            elsewhere.append(error)
    troubles: list[BiliupdError] = []
    for mode in dict.fromkeys(("refuse", gaps)):
        for path, variant in local:
            try:
                return _with_sound(playlist, path, variant, mode)
            except (TemporaryError, PermanentError) as error:
                troubles.append(error)
    raise [*troubles, *elsewhere][0]


def _with_sound(playlist: Path, path: Path, variant: Variant, gaps: Gaps) -> Plan:
    found = plan(path, gaps)
    apart = _below(playlist, variant.audio) if variant.audio is not None else path
    if variant.audio is None or apart == path:
        return found
    sound = plan(apart, gaps)
    if len(sound.runs) != len(found.runs):
        raise PermanentError(f"{playlist.name!a}, line {variant.audio.line}: the sound has other breaks than the "
                             "picture and cannot be put to it")
    gone = [gap._replace(cause=f"sound: {gap.cause}") for gap in sound.gaps]
    return found._replace(sound=sound.runs, gaps=[*found.gaps, *gone])


def _below(playlist: Path, ref: Ref) -> Path:
    """The local media playlist that a line of a master playlist names."""
    try:
        check_name(ref.name, ref.line)
        path = Files(os.path.realpath(playlist.parent)).path(ref)
    except PermanentError as error:
        raise PermanentError(f"{playlist.name!a}, {error}") from error
    if read(path).variants:
        raise PermanentError(f"{playlist.name!a}, line {ref.line}: {ref.name[:200]!a} is a master playlist, too")
    return path


class Files:
    """The files that the lines of one playlist mean."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._keys: dict[str, bytes] = {}

    def segment(self, entry: Entry, *, cut: bool) -> Found:
        """A segment and its init section, looked into."""
        init = self.feed(entry.init) if entry.init is not None else None
        return look(entry.segment.name, self.feed(entry.segment), entry.duration_seconds, init=init, cut=cut)

    def feed(self, ref: Ref) -> Feed:
        """The bytes a line means; raises SegmentMissing or SegmentDamaged naming it, TemporaryError for the disk."""
        path = self.path(ref)
        key = self._key(ref) if ref.key else b""
        try:
            size = os.stat(path).st_size
            if ref.offset_bytes + (ref.size_bytes or 1) > size:
                raise SegmentDamaged(f"{ref.place} "
                                     + (f"is cut short: {size} bytes" if size else "is empty"))
            stored = ref.size_bytes or size - ref.offset_bytes
            if not key:
                return Feed(path, stored, ref.offset_bytes)
            return encrypted(path, stored, ref.offset_bytes, key, ref.iv)
        except BadKey as error:
            raise SegmentDamaged(f"{ref.place} does not decrypt: {error}") from error
        except OSError as error:
            raise TemporaryError(f"{ref.place}: {error.strerror}") from error

    def path(self, ref: Ref) -> Path:
        """The regular file a line means."""
        for name in spellings(ref.name):
            path = os.path.realpath(os.path.join(self._directory, name))
            if not path.startswith(self._directory.rstrip("/") + "/"):
                raise PermanentError(f"{ref.place} leads out of the playlist's directory")
            try:
                info = os.lstat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise TemporaryError(f"{ref.place}: {error.strerror}") from error
            if not stat.S_ISREG(info.st_mode):
                raise SegmentDamaged(f"{ref.place} is no regular file")
            return Path(path)
        raise SegmentMissing(f"waits for segment {ref.place}", retry_after_seconds=60)

    def _key(self, ref: Ref) -> bytes:
        if ref.key not in self._keys:
            path = self.path(ref._replace(name=ref.key))
            try:
                file = open_file(path)
                try:
                    key = os.read(file, BLOCK_BYTES + 1)
                finally:
                    os.close(file)
            except OSError as error:
                raise TemporaryError(f"key {ref.key[:200]!a}: {error.strerror}") from error
            if len(key) != BLOCK_BYTES:
                raise SegmentDamaged(f"{ref._replace(name=ref.key).place} is no key of {BLOCK_BYTES} bytes")
            self._keys[ref.key] = key
        return self._keys[ref.key]


def look(name: str, feed: Feed, seconds: float, *, init: Feed | None, cut: bool) -> Found:
    """Look into a segment: what is it, and is it whole as far as its structure tells?

    Raises SegmentDamaged, and TemporaryError when it cannot be read. With `cut` the rest of a packet at its end is
    left out instead.
    """
    try:
        with reading(feed) as read_at:
            head = read_at(0, 16)
            if head[4:8] in _BOXES:
                kinds = _look_at_boxes(name, read_at, feed.size_bytes)
                return Found("mov", None if b"moov" in kinds else init, Segment(name, feed, seconds), b"moov" in kinds)
            if head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] and head[1] & 0xF6 == 0xF0):
                return Found("aac", None, Segment(name, feed, seconds), False)  # ADTS (ISO/IEC 14496-3, 1.A.2)
            torn = _look_at_packets(name, read_at, feed.size_bytes)
    except OSError as error:
        raise TemporaryError(f"segment {name[:200]!a}: {error.strerror}") from error
    if torn and not cut:
        raise SegmentDamaged(torn)
    whole = feed._replace(size_bytes=feed.size_bytes // TS_PACKET_BYTES * TS_PACKET_BYTES)
    return Found("mpegts", init, Segment(name, whole, seconds, torn), False)


def _look_at_packets(name: str, read_at: Callable[[int, int], bytes], size_bytes: int) -> str:
    """MPEG-TS packets (ISO/IEC 13818-1, 2.4.3.2): each begins with 0x47. Returns why its end is missing."""
    count, rest = divmod(size_bytes, TS_PACKET_BYTES)
    for step in range(LOOKS + 1):
        offset = max(count - 1, 0) * step // LOOKS * TS_PACKET_BYTES
        if count == 0 or read_at(offset, 1) != b"\x47":
            raise SegmentDamaged(f"segment {name[:200]!a} is damaged: no MPEG-TS packet at byte {offset}")
    return f"segment {name[:200]!a} is cut short: {rest} bytes after its last whole packet" if rest else ""


def _look_at_boxes(name: str, read_at: Callable[[int, int], bytes], size_bytes: int) -> set[bytes]:
    kinds: set[bytes] = set()
    end = 0
    for count, box in enumerate(media.boxes(read_at, 0, size_bytes)):
        if count == MOST_BOXES:
            raise SegmentDamaged(f"segment {name[:200]!a} is damaged: it has more than {MOST_BOXES} boxes")
        kinds.add(box.kind)
        end = box.end
    if not kinds & {b"moov", b"moof"}:
        raise SegmentDamaged(f"segment {name[:200]!a} is damaged: it holds neither moov nor moof")
    if end != size_bytes:
        raise SegmentDamaged(f"segment {name[:200]!a} is cut short: its boxes end at {end}, the file at {size_bytes}")
    return kinds
