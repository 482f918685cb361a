"""One HTTP connection that brings FLV, read on a thread of its own.

Runs in the recorder process. The thread never waits for the disk or for repair: it puts what came into the inbox of the
main thread, and gives the connection up when too much waits there.
"""

import logging
import time
from queue import Queue
from threading import Event, Thread
from typing import NamedTuple

from biliupd.errors import TemporaryError
from biliupd.record.fetch import CHUNK, GONE, NETWORK_ERRORS, Client, Refused, explain
from biliupd.record.ledger import Cause
from biliupd.record.spec import Spec, Stream

log = logging.getLogger("recorder")

MOST_WAITING = (64 << 20) // CHUNK  # chunks between the two threads
LONGEST_GATHER_SECONDS = 0.25  # let bytes gather in the kernel, instead of waking up for each packet …
GATHERED = 64 << 10  # … but only so many, or the window closes and the server drops data

Chunk = bytes


class Lost(NamedTuple):
    """The connection is gone, or no good. `cause`: of the gap that follows; `gone`: never ask this address again."""

    reason: str
    cause: Cause
    gone: bool = False


class Connection:
    """Puts (itself, piece of the answer) and at last (itself, `Lost`) into `inbox`."""

    def __init__(self, stream: Stream, spec: Spec, inbox: "Queue[tuple[Connection, Chunk | Lost]]") -> None:
        self._inbox = inbox
        self._url = stream.url
        self._client = Client(stream.url, stream.headers, spec.connect_timeout_seconds, spec.stall_seconds)
        self._stop = Event()

    def start(self) -> None:
        """Connect and read."""
        Thread(target=self._run, name="network", daemon=True).start()

    def abandon(self) -> None:
        """Read no more. A thread that waits for a silent server ends by its own time-out."""
        self._stop.set()

    def _run(self) -> None:
        try:
            lost = self._read()
        except Refused as error:
            lost = Lost(str(error), Cause.SERVER_DROP, gone=error.status in GONE)
        except TemporaryError as error:
            stalled = isinstance(error.__cause__, TimeoutError) or "no byte" in str(error)
            lost = Lost(str(error), Cause.STALL if stalled else Cause.CUT)
        except Exception:
            log.exception("the network thread failed")
            lost = Lost("an error of our own", Cause.CUT)
        self._inbox.put((self, lost))

    def _read(self) -> Lost:
        answer, _ = self._client.open(self._url)
        pause, gathered = LONGEST_GATHER_SECONDS / 8, 0
        try:
            while not self._stop.is_set():
                before = time.monotonic()
                chunk = answer.read1(CHUNK)
                if not chunk:
                    return Lost("the server ended the stream", Cause.SERVER_DROP)
                if self._inbox.qsize() >= MOST_WAITING:
                    return Lost("overflow: the disk is slower than the stream", Cause.OVERFLOW)
                self._inbox.put((self, chunk))
                gathered += len(chunk)
                if time.monotonic() - before > 0.001 or len(chunk) < GATHERED // 4:  # all that came is read
                    pause = min(LONGEST_GATHER_SECONDS, pause * (0.5 if gathered > GATHERED else 1.2))
                    gathered = 0
                    self._stop.wait(pause)
            return Lost("abandoned", Cause.CUT)
        except NETWORK_ERRORS as error:
            raise TemporaryError(explain(error)) from error
        finally:
            answer.close()
