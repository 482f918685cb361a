"""Run ffmpeg, the only other program of this room: progress, deadlines, an end on stop.

Runs on a worker thread, which waits here. Touches what the arguments name. ffmpeg gets its own process group, no
terminal, a lower priority, and dies with the thread that started it, even when that is killed with SIGKILL.
"""

import functools
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from loguru import logger

from biliupd.config import EditConfig
from biliupd.edit.feed import Feed, Feeder
from biliupd.errors import NeedsPerson, PermanentError, Stopped, TemporaryError

LOOK_SECONDS = 0.2  #: how often stop and the deadlines are looked at
KILL_SECONDS = 5.0  #: from SIGTERM to SIGKILL
PART_BYTES = 32 * 1024  #: of stderr, so much is kept of its beginning and of its end
NICENESS = 10
TELLING = re.compile(rb"(?i)Impossible to open|Failed to open|corrupt")  #: lines of stderr kept whatever their number
LARGEST_TELLING = 100


class Refused(PermanentError):
    """ffmpeg does not like what it was given."""


class Finished(NamedTuple):
    """A run of ffmpeg that ended well."""

    stderr: str  #: its beginning and end, at most 64 KiB, and the lines that tell of damage
    seconds: float  #: how long it took


def file_url(path: Path) -> str:
    """The form in which ffmpeg takes any local path for what it is: `a:b.mp4` and `-x` are names, too."""
    return "file:" + os.path.abspath(path)


def find(edit: EditConfig) -> str:
    """Path of ffmpeg: the setting, else the system's, else the one inside imageio-ffmpeg.

    Raises NeedsPerson when there is none; looked for anew each time, so that installing it is enough.
    """
    hint = "install ffmpeg (apt install ffmpeg), or set edit.ffmpeg to its path"
    if edit.ffmpeg is not None:
        if not (edit.ffmpeg.is_file() and os.access(edit.ffmpeg, os.X_OK)):
            raise NeedsPerson(f"edit.ffmpeg is no program: {os.fspath(edit.ffmpeg)!a}", hint=hint,
                              retry_after_seconds=60)
        return os.fspath(edit.ffmpeg)
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            import imageio_ffmpeg

            found = str(imageio_ffmpeg.get_ffmpeg_exe())
        except (ImportError, RuntimeError) as error:
            raise NeedsPerson("ffmpeg was not found", hint=hint, retry_after_seconds=60) from error
    return found


@functools.lru_cache(maxsize=1)
def _leash() -> tuple[str, ...]:
    """A prefix that makes the kernel end the program when its starter dies (PR_SET_PDEATHSIG).

    util-linux's setpriv sets it between fork and exec. Doing so in a `preexec_fn` would run Python in a child forked
    from a process with many threads, which can deadlock. Where setpriv cannot do it, there is no leash.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    leash = (setpriv, "--pdeathsig", "KILL", "--")
    try:
        tried = subprocess.run([*leash, "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return leash if tried.returncode == 0 else ()


class Ffmpeg:
    """ffmpeg with the limits of the configuration; `stop` ends a run within seconds."""

    def __init__(self, edit: EditConfig, stop: threading.Event) -> None:
        self._edit = edit
        self._stop = stop

    def run(
        self, args: Sequence[str], *, on_progress: Callable[[float], None] | None = None, output: Path | None = None,
        feed: Sequence[Feed] | None = None,
    ) -> Finished:
        """Run it to its end; `args` come after the common options.

        `on_progress` is called with the seconds of media written. `output` is a file whose growth counts as progress.
        `feed` is written to its standard input, one file after the other.
        Raises Stopped, TemporaryError (killed, stalled, over its deadline, no space), NeedsPerson (no ffmpeg) or
        Refused, which is permanent.
        """
        if self._stop.is_set():
            raise Stopped("ffmpeg was not started")
        argv = [*_leash(), find(self._edit), "-nostdin", "-hide_banner", "-nostats", "-progress", "pipe:1", *args]
        logger.debug("{!a}", argv)
        began_at = time.monotonic()
        try:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL if feed is None else subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, process_group=0)
        except OSError as error:
            raise TemporaryError(f"ffmpeg could not be started: {error.strerror}") from error
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
        except OSError:
            logger.debug("ffmpeg keeps its priority")
        run = _Run(child, self._edit, self._stop, output, on_progress, feed)
        try:
            run.attend()
        finally:
            run.end()
        stderr = run.stderr.text()
        _judge(child.returncode, stderr)
        if not run.fed:
            raise TemporaryError(f"ffmpeg ended before it had read all: {_last_words(stderr)}")
        return Finished(stderr, time.monotonic() - began_at)


def _judge(code: int, stderr: str) -> None:
    """Raise what an exit code means."""
    if code == 0:
        return
    words = _last_words(stderr)
    if "No space left on device" in stderr or "Disk quota exceeded" in stderr:
        raise TemporaryError("no space left on the device", hint="make room", retry_after_seconds=60)
    if code in (126, 127) and "setpriv" in stderr:
        raise NeedsPerson(f"ffmpeg could not be run: {words}", hint="install ffmpeg anew", retry_after_seconds=60)
    # Since ffmpeg 7 the code may be the low byte of a negative errno: 255 is EPERM there, not only a signal it caught.
    signalled = code in (255, 128 + signal.SIGTERM, 128 + signal.SIGKILL) and "Operation not permitted" not in stderr
    if code < 0 or signalled:
        raise TemporaryError(f"ffmpeg was ended from outside (exit {code})")
    for passing in ("Cannot allocate memory", "Too many open files", "Resource temporarily unavailable",
                    "Input/output error", "Stale file handle"):
        if passing in stderr:
            raise TemporaryError(f"ffmpeg failed (exit {code}): {words}")
    raise Refused(f"ffmpeg failed (exit {code}): {words}")


def _last_words(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return ascii(" / ".join(lines[-3:])[-400:])[1:-1] if lines else "it said nothing"


class _Run:
    """One child while it is attended."""

    def __init__(
        self, child: "subprocess.Popen[bytes]", edit: EditConfig, stop: threading.Event, output: Path | None,
        on_progress: Callable[[float], None] | None, feed: Sequence[Feed] | None,
    ) -> None:
        self._child, self._edit, self._stop, self._output, self._on_progress = child, edit, stop, output, on_progress
        self.stderr = _Capped()
        self.fed = feed is None
        self._feeder = Feeder(feed, child.stdin) if feed is not None and child.stdin is not None else None
        self._line = b""
        self._written = ""
        self._mark: object = None

    def attend(self) -> None:
        """Read and write its pipes until it ends; raises when it must be ended."""
        deadline_at = time.monotonic() + self._edit.deadline_seconds
        stall_at = time.monotonic() + self._edit.stall_seconds
        look_at = 0.0
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        with selectors.DefaultSelector() as pipes:
            pipes.register(self._child.stdout, selectors.EVENT_READ, self._read_progress)
            pipes.register(self._child.stderr, selectors.EVENT_READ, self.stderr.add)
            if self._feeder is not None:
                pipes.register(self._feeder.pipe, selectors.EVENT_WRITE)
            while pipes.get_map():
                for key, _ in pipes.select(LOOK_SECONDS):
                    if self._feeder is not None and key.fileobj is self._feeder.pipe:
                        if not self._feeder.turn():
                            pipes.unregister(self._feeder.pipe)
                            self.fed = self._feeder.done
                            self._feeder.close()
                        continue
                    text = os.read(key.fd, 65536)
                    if text:
                        key.data(text)
                    else:
                        pipes.unregister(key.fileobj)
                now = time.monotonic()
                if now < look_at:
                    continue
                look_at = now + LOOK_SECONDS
                if self._child.poll() is not None:
                    break  # what it started may hold its pipes open; that must not hold us
                if self._stop.is_set():
                    raise Stopped("ffmpeg was stopped")
                mark = self._progress()
                if mark != self._mark:
                    self._mark, stall_at = mark, now + self._edit.stall_seconds
                if now > stall_at:
                    raise TemporaryError(f"ffmpeg made no progress for {self._edit.stall_seconds:g} s and was ended")
                if now > deadline_at:
                    raise TemporaryError(f"ffmpeg took longer than {self._edit.deadline_seconds:g} s and was ended")
            self._drain(pipes)
        self._wait(deadline_at)

    def _drain(self, pipes: selectors.BaseSelector) -> None:
        """Take what is left in the pipes of a child that ended."""
        for key in list(pipes.get_map().values()):
            if key.data is not None:
                os.set_blocking(key.fd, False)
                try:
                    while text := os.read(key.fd, 65536):
                        key.data(text)
                except BlockingIOError:
                    continue

    def _wait(self, deadline_at: float) -> None:
        """It closed its pipes: it may still be writing back its last pages."""
        while self._child.poll() is None:
            if self._stop.wait(0.02):
                raise Stopped("ffmpeg was stopped")
            if time.monotonic() > deadline_at:
                raise TemporaryError("ffmpeg did not end")

    def _read_progress(self, text: bytes) -> None:
        *lines, self._line = (self._line + text).split(b"\n")
        self._line = self._line[-1000:]
        for line in lines:
            key, _, value = line.decode("ascii", "replace").strip().partition("=")
            if key == "out_time_us" and value.lstrip("-").isdigit() and value != self._written:
                self._written = value
                if self._on_progress is not None:
                    self._on_progress(max(int(value), 0) / 1e6)

    def _progress(self) -> object:
        """Something that differs once it has got on: media written, bytes taken, bytes read, or its file."""
        taken = self._feeder.total_bytes if self._feeder is not None else 0
        read = size = b""
        try:
            with open(f"/proc/{self._child.pid}/io", "rb") as counters:
                read = counters.readline()
        except OSError:
            read = b""
        try:
            if self._output is not None:
                size = str(self._output.stat().st_size).encode()
        except OSError:
            size = b""
        return self._written, taken, read, size

    def end(self) -> None:
        """Whatever happened: no process and no open pipe is left."""
        if self._child.poll() is None:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)  # a program that was halted cannot hear the other one
            try:
                self._child.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                logger.warning("ffmpeg did not end within {} s of SIGTERM and is killed", KILL_SECONDS)
                self._signal(signal.SIGKILL)
        if self._feeder is not None:
            self._feeder.close()
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            logger.error("ffmpeg {} cannot be ended; its disk does not answer", self._child.pid)

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._child.pid, number)
        except (ProcessLookupError, PermissionError):
            return


class _Capped:
    """A stream of text of which the beginning, the end and the telling lines are kept."""

    def __init__(self) -> None:
        self._head = self._tail = b""
        self._telling: list[bytes] = []
        self._dropped = 0

    def add(self, text: bytes) -> None:
        room = PART_BYTES - len(self._head)
        self._head += text[:room]
        joined = self._tail + text[max(room, 0):]
        extra = max(len(joined) - PART_BYTES, 0)
        if len(self._telling) < LARGEST_TELLING and TELLING.search(joined, 0, extra):
            self._telling += [line for line in joined[:extra].splitlines() if TELLING.search(line)][:LARGEST_TELLING]
        self._dropped += extra
        self._tail = joined[extra:]

    def text(self) -> str:
        cut = b"\n".join([b"", *self._telling, b"[%d bytes left out]" % self._dropped, b""]) if self._dropped else b""
        return (self._head + cut + self._tail).decode("utf-8", "backslashreplace")
