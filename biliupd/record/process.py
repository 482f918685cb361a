"""One recorder process, seen from the daemon: start it, look whether it lives, signal it, read its log.

Runs on the crew thread. A recorder is a child of the daemon that started it, and of nobody after a restart; both are
watched the same way here.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from loguru import logger

import biliupd
from biliupd.errors import BiliupdError, TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.broadcast import Broadcast

LONGEST_RELAY = 256 << 10  # bytes of log read in one turn


class Process:
    """A recorder that was started, or adopted when `child` is None."""

    def __init__(self, directory: Path, log_path: Path, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.exit_code: int | None = None
        self._directory = directory
        self._log_path = log_path
        self._child = child
        self._log_at = log_path.stat().st_size if child is None and log_path.exists() else 0

    @classmethod
    def started(cls, spec_path: Path, directory: Path, log_path: Path) -> "Process":
        """Start `python -m biliupd.record.recorder`. Raises `TemporaryError` when the system refuses.

        It inherits the lock of its folder: however late it gets to its first line, and whatever becomes of us before,
        nobody takes it for dead.
        """
        held: int | None = None
        try:
            if (held := broadcasts.lock(directory)) is None:
                raise TemporaryError(f"a recorder is at work in {directory} already")
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(log).st_size
                child = subprocess.Popen(
                    [sys.executable, "-m", "biliupd.record.recorder", str(spec_path), str(held)], pass_fds=[held],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    cwd=Path(biliupd.__file__).parents[1])
            finally:
                os.close(log)
        except OSError as error:
            raise TemporaryError(f"cannot start a recorder: {error.strerror}") from error
        finally:
            if held is not None:
                os.close(held)
        process = cls(directory, log_path, child)
        process._log_at = size
        return process

    @property
    def pid(self) -> int | None:
        """None for an adopted one: broadcast.json tells."""
        return self._child.pid if self._child else None

    def alive(self, broadcast: Broadcast) -> bool:
        """Whether it runs still; reaps it when it was ours and has ended."""
        if self._child is not None:
            self.exit_code = self._child.poll()
            return self.exit_code is None
        state = broadcasts.process_state(broadcast)
        if state in ("Z", "X") and broadcast.pid is not None:
            with contextlib.suppress(ChildProcessError):  # a crew before us in this very process began it
                if os.waitpid(broadcast.pid, os.WNOHANG)[0] == 0:
                    return True  # a thread of it is still ending
        elif state:
            return True
        return broadcasts.locked(self._directory)

    def signal(self, broadcast: Broadcast, number: signal.Signals) -> bool:
        """Send a signal, but only to that very process; False while it is not known which one it is."""
        if self._child is not None:
            self._child.send_signal(number)
        elif broadcast.pid is not None and broadcasts.alive(broadcast):
            with contextlib.suppress(ProcessLookupError):
                os.kill(broadcast.pid, number)
        else:
            return False
        return True

    def leave(self) -> None:
        """Let it run on without us."""
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # nobody waits for it: keeps subprocess from complaining, and from reaping

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
