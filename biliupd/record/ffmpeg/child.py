"""One run of ffmpeg that turns a live stream into short segments in a folder of its own.

Runs on the main thread of a recorder process. Whatever may be secret (address, headers) goes to ffmpeg by its standard
input or through the relay: its command line can be read by everybody on the machine. It ends with its recorder.
"""

import logging
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from biliupd.record.ffmpeg.relay import Relay
from biliupd.record.ffmpeg.segments import (
    WORK_FIRST,
    WORK_INDEX,
    WORK_INIT,
    WORK_PREFIX,
    media_seconds,
    usable,
    work_name,
)
from biliupd.record.ledger import Cause
from biliupd.record.parts import REMEMBERED
from biliupd.record.playlist import MediaPlaylist, NotAPlaylist, Segment, parse
from biliupd.record.spec import Spec, Stream

log = logging.getLogger("recorder")

FORMS = ("fmp4", "ts")
SUFFIXES = {"fmp4": ".m4s", "ts": ".ts"}
MOST_LINES = 40  # of one run go to the log
_SPLIT_SECONDS = 1  # at the first keyframe after this: a segment for each group of pictures, wherever one begins
_SEGMENTS = ["-f", "hls", "-hls_time", str(_SPLIT_SECONDS), "-hls_list_size", str(REMEMBERED),
             "-hls_flags", "temp_file+independent_segments", "-start_number", str(WORK_FIRST), "-strict", "-2"]
_KINDS = {
    "fmp4": ["-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", WORK_INIT, "-hls_segment_options",
             "movflags=+frag_discont:use_editlist=0:write_btrt=0:avoid_negative_ts=make_non_negative"],
    "ts": ["-hls_segment_type", "mpegts", "-hls_segment_options", "mpegts_copyts=1"],
}
_PROTOCOLS = ("pipe,tcp,udp,udplite,tls,crypto,rtmp,rtmps,rtmpt,rtmpts,rtmpe,rtmpte,ffrtmphttp,ffrtmpcrypt,rtp,srtp,"
              "srt,rist,sctp,mmsh,mmst,ftp,http,https,httpproxy")
_TS_SCHEMES = ("srt", "udp", "rtp", "tcp", "rist")
_REFUSED = re.compile(r"method \w+ failed: (40[134]|410|454)|HTTP error (40[134]|410)")
_MISFIT = re.compile(r"Could not find tag for codec|not currently supported in container|Malformed AAC")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_ADDRESS = re.compile(r"[a-z0-9+]{2,}://[^\s'\"]+")
_OUR_WORDS = frozenset(("stream", "playlist", "manifest", "master", "index", "video", "audio"))


class Finished(NamedTuple):
    """A segment that is whole; `init`: its init section, empty for MPEG-TS."""

    segment: Segment
    body: bytes
    init: bytes
    suffix: str
    path: Path


def find(program: str) -> str | None:
    """Where ffmpeg is; None when it is not there."""
    return shutil.which(program)


class Child:
    """`sign_at`: when media came last, in monotonic seconds. `taken_seconds` of it were taken.

    When it has ended: `full` says that the disk was, `misfit` that segments of this `form` cannot hold the codecs,
    `over` that the stream is, `refused` (a status) that its server does not want us.
    """

    def __init__(self, program: str, stream: Stream, spec: Spec, directory: Path, form: str) -> None:
        self.stream = stream
        self.form = form or _usual_form(stream.url)
        self.taken_seconds = 0.0
        self.full = self.misfit = False
        self.sign_at = time.monotonic()
        self._refused = 0
        self._stall = spec.stall_seconds
        self._started = False  # media has come
        self._patience = spec.connect_timeout_seconds + spec.stall_seconds  # until it does
        self._folder = directory / f"{WORK_PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        self._folder.mkdir()
        self._next, self._seen = WORK_FIRST, 0
        self._init = b""
        self._lines = 0
        self._last_line = ""
        self._progress = ""
        self._unread = {"out": b"", "err": b""}
        self._secrets = _secrets(stream)
        self._relay = Relay(stream, spec) if stream.url.startswith(("http://", "https://")) else None
        source = ["-i", self._relay.url] if self._relay else [
            "-f", "concat", "-safe", "0", "-auto_convert", "0", "-protocol_whitelist", _PROTOCOLS, "-i", "pipe:0"]
        argv = [*_leash(), program, "-nostdin", "-hide_banner", "-loglevel", "warning", "-nostats",
                "-progress", "pipe:1", "-stats_period", "1", "-copyts", *source, "-c", "copy", "-sn", "-dn",
                "-max_muxing_queue_size", "4096", *_SEGMENTS, *_KINDS[self.form],
                "-hls_segment_filename", work_name(SUFFIXES[self.form]), WORK_INDEX]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL if self._relay else subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self._folder, process_group=0)
        assert self._process.stdout
        assert self._process.stderr
        self._pipes = {self._process.stdout.fileno(): "out", self._process.stderr.fileno(): "err"}
        if self._process.stdin:
            try:
                self._process.stdin.write(_list(stream.url, spec.stall_seconds).encode())
                self._process.stdin.close()
            except BrokenPipeError:
                log.debug("ffmpeg ended at once")  # its exit code says why

    @property
    def over(self) -> bool:
        """Whether the manifest said so."""
        return self._relay is not None and self._relay.over and self._process.returncode == 0

    @property
    def refused(self) -> int:
        """The status with which the address itself was refused; 0: it was not."""
        return self._relay.refused if self._relay and self._relay.refused else self._refused

    def look(self, seconds: float) -> None:
        """Take in what it says; wait for that, but not longer than this."""
        if not self._pipes:  # it is about to end
            time.sleep(min(seconds, 0.02))
            return
        for handle in select.select(list(self._pipes), [], [], seconds)[0]:
            kind, text = self._pipes[handle], os.read(handle, 65536)
            if not text:
                del self._pipes[handle]
                continue
            *lines, self._unread[kind] = (self._unread[kind] + text).split(b"\n")
            self._unread[kind] = self._unread[kind][-4000:]
            for line in lines:
                self._read(kind, line.decode(errors="replace").strip())

    def _read(self, kind: str, line: str) -> None:
        if kind == "out":
            if line.startswith("out_time_us=") and line != self._progress and not line.endswith("N/A"):
                if self._progress:
                    self._sign()
                self._progress = line
            return
        self.full = self.full or bool(_FULL.search(line))
        self.misfit = self.misfit or bool(_MISFIT.search(line))
        if match := _REFUSED.search(line):
            self._refused = int(match[1] or match[2]) if not self._relay else self._refused
        line = self._without_secrets(line)
        if line and line != self._last_line:
            self._last_line, self._lines = line, self._lines + 1
            if self._lines <= MOST_LINES:
                log.info("ffmpeg: %s", line)

    def _sign(self) -> None:
        self.sign_at, self._started = time.monotonic(), True

    def _without_secrets(self, line: str) -> str:
        line = _ADDRESS.sub("…", line)
        for secret in self._secrets:
            line = line.replace(secret, "…")
        return line[:400]

    def trouble(self) -> tuple[Cause, str] | None:
        """Why it has to be left, or is gone already; None when all is well."""
        code = self._process.poll()
        if code is not None:
            if code == 0:
                return Cause.SERVER_DROP, "the server ended the stream"
            return Cause.SERVER_DROP if self.refused else Cause.CUT, f"ffmpeg ended with {code}"
        if self.refused:
            return Cause.SERVER_DROP, f"the address is refused: {self.refused}"
        silent = time.monotonic() - self.sign_at
        if silent > (self._stall if self._started else self._patience):
            return Cause.STALL, f"no media for {silent:.0f} s"
        return None

    def finished(self) -> Iterator[Finished]:
        """Segments that are whole and were not `taken` yet, in their order."""
        try:
            seen = (self._folder / WORK_INDEX).stat().st_mtime_ns
            if seen == self._seen:
                return
            playlist = parse((self._folder / WORK_INDEX).read_text(errors="replace"), since=self._next)
        except (FileNotFoundError, NotAPlaylist):
            return
        if not isinstance(playlist, MediaPlaylist):
            return
        for segment in playlist.segments:
            yield from self._one(segment)
        self._seen = seen

    def _one(self, segment: Segment) -> Iterator[Finished]:
        if self.form == "fmp4" and not self._init:
            self._init = (self._folder / WORK_INIT).read_bytes()
        path = self._folder / segment.uri
        if body := usable(path.read_bytes(), path.suffix):
            self._sign()
            seconds = media_seconds(body, self._init) or segment.duration
            yield Finished(segment._replace(duration=seconds), body, self._init, path.suffix, path)

    def left(self) -> Iterator[Finished]:
        """After its end: what is whole and is not listed, because ffmpeg had no time for that."""
        yield from self.finished()
        for path in sorted(self._folder.glob(f"*{SUFFIXES[self.form]}")):
            yield from self._one(Segment(int(path.stem), path.name, float(_SPLIT_SECONDS)))

    def taken(self, finished: Finished) -> None:
        """It is in its part: the file here is not needed any more."""
        finished.path.unlink()
        self._next = finished.segment.sequence + 1
        self.taken_seconds += finished.segment.duration

    def end(self, seconds: float) -> None:
        """Let it end its last segment within this time; it is gone afterwards."""
        if self._process.poll() is None:
            if self._relay:
                self._relay.stop.set()
            began = time.monotonic()
            for until in (0.7 * seconds, seconds):  # a second signal ends its wait for the network (ffmpeg.c)
                self._process.terminate()
                while self._process.poll() is None and time.monotonic() - began < until:
                    self.look(0.05)
            if self._process.poll() is None:
                log.warning("ffmpeg did not end within %g s of SIGTERM", seconds)
                self._process.send_signal(signal.SIGKILL)
                self._process.wait()
        while self._pipes and select.select(list(self._pipes), [], [], 0)[0]:
            self.look(0)
        if self._relay:
            self._relay.close()

    def close(self) -> None:
        """Leave nothing behind; everything of use was taken."""
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        shutil.rmtree(self._folder)


def _usual_form(url: str) -> str:
    """What is MPEG-TS stays that."""
    parts = urlsplit(url)
    return "ts" if parts.scheme in _TS_SCHEMES or parts.path.endswith(".ts") else "fmp4"


def _list(url: str, stall_seconds: float) -> str:
    """A list of one address for ffmpeg's concat demuxer (ffconcat 1.0), which may hold options of it, too."""
    quoted = url.replace("'", "'\\''").replace("\n", "").replace("\r", "")
    lines = ["ffconcat version 1.0", f"file '{quoted}'", f"option rw_timeout {round(stall_seconds * 1e6)}"]
    if url.startswith("rtsp"):
        lines.append("option rtsp_transport tcp")
    return "\n".join(lines) + "\n"


def _secrets(stream: Stream) -> list[str]:
    """Pieces of the address and the headers that are long enough to be one."""
    parts = urlsplit(stream.url)
    pieces = re.split(r"[/?&=:@,;\s]+", unquote(f"{parts.netloc.rpartition('@')[0]} {parts.path} {parts.query}"))
    for value in stream.headers.values():
        pieces += re.split(r"[=;,\s]+", value)
    return sorted({piece for piece in pieces if len(piece) > 5} - _OUR_WORDS, key=len, reverse=True)


def _leash() -> list[str]:
    """A prefix that makes the kernel end ffmpeg when its recorder dies (PR_SET_PDEATHSIG), by util-linux's setpriv.

    Without it ffmpeg ends when the relay, or its folder, is gone.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
