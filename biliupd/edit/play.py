"""Any recording → fragmented MP4 that a browser plays while it is made: remuxed, nothing is encoded again.

Runs on whichever thread pulls. Reads the recording, also one that still grows, and writes nothing.
"""

import contextlib
import os
import selectors
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from biliupd.config import EditConfig
from biliupd.edit import media, segments
from biliupd.edit.feed import Feed, Feeder
from biliupd.edit.ffmpeg import Ffmpeg, file_url, find
from biliupd.errors import PermanentError, TemporaryError

MOST = 4  #: at the same time
READ_BYTES = 128 << 10
SILENT_SECONDS = 30.0  #: without a byte: it hangs
KILL_SECONDS = 3.0
_FRAGMENTS = ("-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "1000000", "-f", "mp4")
_places = threading.BoundedSemaphore(MOST)


def mp4(edit: EditConfig, source: Path, from_seconds: float = 0.0) -> Iterator[bytes]:
    """The recording from the keyframe at or before `from_seconds` on; closing the iterator ends it.

    `source` is a file, or a media playlist with its segments (then it begins with a segment, and sound that has a
    playlist of its own is left out). Raises, with the first piece, PermanentError when it cannot be played, and
    TemporaryError when too many are being played or a file is not to be had now.
    """
    if not _places.acquire(blocking=False):
        raise TemporaryError(f"{MOST} recordings are being played already", retry_after_seconds=10)
    try:
        feeds: list[Feed] | None = None
        if source.suffix.lower() == ".m3u8":
            run, feeds = _from(segments.plan(source, "merge"), from_seconds)
            given = ["-protocol_whitelist", "pipe", "-f", run.demuxer, "-i", "pipe:0"]
            codecs = _codecs(edit, given, run.feeds[: 2 if run.init else 1])
        else:
            given = [*media.READ_ONLY, "-ss", f"{from_seconds:.3f}", "-i", file_url(source)]
            codecs = _codecs(edit, given, None)
        form = ["-tag:v", "hvc1"] if "hevc" in codecs else []  # as browsers want it
        form += ["-bsf:a", "aac_adtstoasc"] if "aac" in codecs else []  # with empty_moov the muxer does not see to it
        argv = [find(edit), "-nostdin", "-v", "error", *given, "-map", "0:v:0?", "-map", "0:a:0?",
                "-c", "copy", *form, *_FRAGMENTS, "pipe:1"]  # fmt: skip
        yield from _pieces(argv, feeds, source.name)
    finally:
        _places.release()


def _from(plan: segments.Plan, from_seconds: float) -> tuple[segments.Run, list[Feed]]:
    """The run that holds this moment, and what to feed: from its segment there on, and the runs of the same form."""
    at = 0.0
    for number, run in enumerate(plan.runs):
        for place, segment in enumerate(run.segments):
            at += segment.duration_seconds
            if at > from_seconds:
                later = [feed.feed for other in plan.runs[number + 1 :] for feed in other.segments
                         if (other.demuxer, other.init) == (run.demuxer, run.init)]  # fmt: skip
                first = [run.init] if run.init else []
                return run, [*first, *(one.feed for one in run.segments[place:]), *later]
    raise PermanentError(f"it is shorter than {from_seconds:.0f} s")


def _codecs(edit: EditConfig, given: list[str], feeds: list[Feed] | None) -> tuple[str, str]:
    """ffmpeg's names of those of picture and sound; empty: there is none."""
    try:
        words = Ffmpeg(edit, threading.Event()).run([*given, "-map", "0", "-c", "copy", "-t", "0", "-f", "null", "-"],
                                                    feed=feeds).stderr  # fmt: skip
    except PermanentError as error:
        raise PermanentError(f"it cannot be played: {error}") from error
    return media.streams(words)[:2]


def _pieces(argv: list[str], feeds: list[Feed] | None, name: str) -> Iterator[bytes]:
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL if feeds is None else subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0)  # fmt: skip
    except OSError as error:
        raise TemporaryError(f"ffmpeg could not be started: {error.strerror}") from error
    assert child.stdout is not None
    feeder = Feeder(feeds, child.stdin) if feeds is not None and child.stdin is not None else None
    out, began = child.stdout.fileno(), False
    try:
        with selectors.DefaultSelector() as pipes:
            pipes.register(out, selectors.EVENT_READ)
            if feeder is not None:
                pipes.register(feeder.pipe, selectors.EVENT_WRITE)
            while True:
                ready = [key.fd for key, _ in pipes.select(SILENT_SECONDS)]
                if not ready:
                    raise TemporaryError(f"{name!a}: ffmpeg is silent")
                if feeder is not None and feeder.pipe in [pipes.get_map()[fd].fileobj for fd in ready] \
                        and not feeder.turn():
                    pipes.unregister(feeder.pipe)
                    feeder.close()
                    feeder = None
                if out in ready:
                    piece = os.read(out, READ_BYTES)
                    if not piece:
                        break
                    began = True
                    yield piece
        if not began:
            raise PermanentError(f"{name!a} cannot be played in a browser; it can be downloaded")
    finally:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(KILL_SECONDS)
        if feeder is not None:
            feeder.close()
        child.stdout.close()
        logger.debug("{!a} was played", name)
