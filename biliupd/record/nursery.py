"""A small process that has loaded all a recorder needs, and forks one for each recording.

`python -m biliupd.record.nursery FD`: FD is a socket to the daemon. Forked recorders share the memory of what is
loaded, and begin within milliseconds. It has one thread, opens nothing, and ends with the daemon; recorders live on.
The class `Nursery` is the daemon's side of it, used by the crew's thread.
"""

import array
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

import biliupd

ANSWER_SECONDS = 10.0
_LONGEST = 64 << 10


class Nursery:
    """The daemon's side. The process is started when it is first needed, and anew when it is gone."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._exit_codes: dict[int, int] = {}

    def bear(self, spec_path: Path, held: int, log: int) -> int:
        """Fork a recorder for this spec; it inherits `held` (the lock of its folder) and writes to `log`. Its pid.

        Raises `OSError` when the system refuses.
        """
        for attempt in (1, 2):
            try:
                link = self._linked()
                request = json.dumps({"spec": os.fspath(spec_path)}).encode() + b"\n"
                descriptors = array.array("i", [held, log])
                link.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
                while True:
                    answer = self._answer(link)
                    if "born" in answer:
                        return int(answer["born"])
                    if "refused" in answer:
                        raise OSError(answer["refused"], os.strerror(answer["refused"]))
            except (BrokenPipeError, ConnectionError, EOFError):
                self.close()
                if attempt == 2:
                    raise OSError("the process that starts recorders ends at once") from None
        raise AssertionError

    def exit_code(self, pid: int) -> int | None:
        """What a recorder ended with (negative: by that signal); None while it runs, or when nobody knows."""
        link = self._socket
        if link is not None:
            try:
                link.setblocking(False)
                while True:
                    self._answer(link)
            except (BlockingIOError, EOFError, OSError):
                pass
            finally:
                link.settimeout(ANSWER_SECONDS)
        return self._exit_codes.get(pid)

    def close(self) -> None:
        """Let the process go; recorders live on."""
        if self._socket is not None:
            self._socket.close()
            self._socket, self._unread = None, b""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ANSWER_SECONDS)
            self._process = None

    def _linked(self) -> socket.socket:
        if self._socket is None:
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "biliupd.record.nursery", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True,
                    cwd=Path(biliupd.__file__).parents[1])
            ours.settimeout(ANSWER_SECONDS)
            self._socket = ours
        return self._socket

    def _answer(self, link: socket.socket) -> dict[str, int]:
        """The next line the process says; deaths are noted on the way."""
        while b"\n" not in self._unread:
            piece = link.recv(_LONGEST)
            if not piece:
                raise EOFError
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, int] = json.loads(line)
        if "died" in answer:
            self._exit_codes[answer["died"]] = answer["code"]
        return answer


def main(link: socket.socket) -> None:
    """Fork on request and say who died, until the daemon closes its end."""
    stops = _prepare()
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # the daemon says when it ends; recorders answer them themselves
    wake_in, wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_out, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the daemon says when it ends
    selector = selectors.DefaultSelector()
    selector.register(link, selectors.EVENT_READ)
    selector.register(wake_in, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is link:
                try:
                    request, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 2)
                except ConnectionError:  # the daemon died with an answer unread
                    return
                if not request:
                    return
                _say(link, _bear(json.loads(request)["spec"], descriptors, [link.fileno(), wake_in, wake_out]))
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                os.read(wake_in, 4096)
        for pid, code in _dead():
            _say(link, {"died": pid, "code": code})


def _prepare() -> tuple[signal.Signals, ...]:
    """Load everything now, so that it is shared; the garbage collector leaves it alone, or pages would be copied.

    Returns the signals that stop a recorder: held back from the beginning, so that none comes before it can answer.
    """
    import encodings.idna
    import gc

    from biliupd.record import fetch, recorder
    from biliupd.record.flv import stream as flv_stream
    from biliupd.record.hls import stream as hls_stream

    for module in (encodings.idna, fetch, flv_stream, hls_stream, recorder):
        assert module
    gc.collect()
    gc.freeze()
    return recorder.STOPS


def _bear(spec_path: str, descriptors: list[int], ours: list[int]) -> dict[str, int]:
    try:
        pid = os.fork()
    except OSError as error:
        return {"refused": error.errno or 0}
    if pid:
        return {"born": pid}
    code = 1
    try:
        code = _live(spec_path, descriptors, ours)
    finally:
        os._exit(code)


def _live(spec_path: str, descriptors: list[int], ours: list[int]) -> int:
    """In the forked process: become a recorder; its exit code."""
    import logging

    from biliupd.record import recorder

    held, log = descriptors
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    for descriptor in (log, *ours):
        os.close(descriptor)
    with contextlib.suppress(OSError):  # only for those who look at a list of processes
        Path("/proc/self/comm").write_text("biliupd-record")
    try:
        return recorder.main(["recorder", spec_path, str(held)])
    except BaseException:
        logging.getLogger("recorder").exception("the recorder failed")
        return 1
    finally:
        logging.shutdown()


def _dead() -> list[tuple[int, int]]:
    found = []
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append((ended[0], os.waitstatus_to_exitcode(ended[1])))
    return found


def _say(link: socket.socket, answer: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # the daemon is gone; so are we, with the next look
        link.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
