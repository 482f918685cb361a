"""One recorder process, seen from the daemon: start it, look whether it lives, signal it, read its log.

Runs on the crew thread. A recorder is never a child of the daemon: the nursery bears it, and whoever is the daemon then
finds it by process number and start time.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from loguru import logger

from biliupd.errors import BiliupdError, TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast
from biliupd.record.nursery import Nursery

LONGEST_RELAY = 256 << 10  # bytes of log read in one turn


class Process:
    """A recorder that was started, or adopted when it is not known by whom: broadcast.json tells its `pid` then."""

    def __init__(self, directory: Path, log_path: Path) -> None:
        self.pid: int | None = None
        self.exit_code: int | None = None  # once it has ended and somebody knows
        self._started: int | None = None
        self._nursery: Nursery | None = None
        self._directory = directory
        self._log_path = log_path
        self._log_at = log_path.stat().st_size if log_path.exists() else 0

    @classmethod
    def started(cls, nursery: Nursery, spec_path: Path, directory: Path, log_path: Path) -> "Process":
        """Have a recorder started. Raises `TemporaryError` when the system refuses.

        It inherits the lock of its folder: however late it gets to its first line, and whatever becomes of us before,
        nobody takes it for dead.
        """
        held: int | None = None
        try:
            if (held := broadcasts.lock(directory)) is None:
                raise TemporaryError(f"a recorder is at work in {directory} already")
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                process = cls(directory, log_path)
                process.pid = nursery.bear(spec_path, held, log)
            finally:
                os.close(log)
        except OSError as error:
            raise TemporaryError(f"cannot start a recorder: {error.strerror or error}") from error
        finally:
            if held is not None:
                os.close(held)
        process._nursery, process._started = nursery, broadcasts.process_started(process.pid)
        return process

    def alive(self, broadcast: Broadcast) -> bool:
        """Whether it runs still."""
        if self.pid is not None and self._nursery is not None:
            if broadcasts.runs(self.pid, self._started):
                return True
            self.exit_code = self._nursery.exit_code(self.pid)
            return False
        return broadcasts.alive(broadcast) or broadcasts.locked(self._directory)

    def signal(self, broadcast: Broadcast, number: signal.Signals) -> bool:
        """Send a signal, but only to that very process; False while it is not known which one it is."""
        pid, started = self.pid, self._started
        if pid is None:
            pid, started = broadcast.pid, broadcast.pid_started
            if pid is None or not broadcasts.alive(broadcast):
                return False
        if broadcasts.runs(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return True

    def log_lines(self) -> list[str]:
        """Whole lines that its log has gained since the last call."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(self._log_at)
                text = log.read(LONGEST_RELAY)
        except OSError:
            return []
        whole = text[:text.rfind(b"\n") + 1] if len(text) < LONGEST_RELAY else text
        self._log_at += len(whole)
        return whole.decode(errors="replace").splitlines()


def end_recorders(data_directory: Path, deadline_seconds: float) -> int:
    """End every recorder of a data directory on which no daemon runs; how many ran.

    Each ends its file properly. The next daemon finds them ended and closes their broadcasts. Raises TemporaryError
    when one still runs after the deadline.
    """
    running: list[tuple[Path, Process, Broadcast]] = []
    for path in sorted((data_directory / "recorders").glob("*.json")):
        try:
            directory = Path(specs.read(path).directory)
            broadcast = broadcasts.read(directory)
        except BiliupdError as error:
            logger.error("{}", error)
            continue
        if broadcast is not None:
            process = Process(directory, path.with_suffix(".log"))
            if process.alive(broadcast):
                process.signal(broadcast, signal.SIGTERM)
                running.append((directory, process, broadcast))
    deadline = time.monotonic() + deadline_seconds
    for directory, process, broadcast in running:
        while process.alive(broadcast):
            if time.monotonic() > deadline:
                raise TemporaryError(f"the recorder of {directory} does not end", hint=f"kill -9 {broadcast.pid}")
            time.sleep(0.05)
            if broadcast.pid is None:  # it had only just begun
                broadcast = broadcasts.read(directory) or broadcast
                process.signal(broadcast, signal.SIGTERM)
    return len(running)
