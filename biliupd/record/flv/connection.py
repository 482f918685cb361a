"""One HTTP connection that brings FLV, read on a thread of its own.

Runs in the recorder process. The thread never waits for the disk or for repair: it puts what came into the inbox of the
main thread, and gives the connection up when too much waits there.
"""

import logging
import select
import socket
import ssl
import time
from queue import Queue
from threading import Event, Thread
from typing import NamedTuple

from biliupd.errors import TemporaryError
from biliupd.record.fetch import GONE, Refused, explain
from biliupd.record.ledger import Cause
from biliupd.record.spec import Spec, Stream
from biliupd.record.wire import Begun, Wire

log = logging.getLogger("recorder")

MOST_WAITING = 64 << 20  # bytes between the two threads
GATHERED = 512 << 10  # the kernel wakes us for so many bytes …
GATHER_SECONDS = 1.0  # … or once in this time; waking up for each packet is what recording costs most
LARGEST_READ = 1 << 20
LONGEST_LINE = 256  # of the chunked coding
LARGEST_CHUNK = 64 << 20

Chunk = bytes


class Lost(NamedTuple):
    """The connection is gone, or no good. `cause`: of the gap that follows; `gone`: never ask this address again."""

    reason: str
    cause: Cause
    gone: bool = False


class Connection:
    """Puts (itself, piece of the answer) and at last (itself, `Lost`) into `inbox`."""

    def __init__(self, stream: Stream, spec: Spec, inbox: "Queue[tuple[Connection, Chunk | Lost]]") -> None:
        self.taken = 0  # bytes that the main thread has taken out
        self.waiting = 0  # bytes put in; each of the two numbers is written by one thread only
        self._inbox = inbox
        self._broken: OSError | None = None
        self._stall_seconds = spec.stall_seconds
        self._url = stream.url
        self._wire = Wire(stream.url, stream.headers, spec.connect_timeout_seconds, spec.stall_seconds)
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
            stalled = "no byte" in str(error)
            lost = Lost(str(error), Cause.STALL if stalled else Cause.CUT)
        except Exception:
            log.exception("the network thread failed")
            lost = Lost("an error of our own", Cause.CUT)
        self._inbox.put((self, lost))

    def _read(self) -> Lost:
        """Read from the socket itself, in large pieces, and as seldom as that allows."""
        begun = self._wire.begin(self._url)
        try:
            return self._gather(begun)
        except OSError as error:
            raise TemporaryError(explain(error)) from error
        finally:
            begun.link.close()

    def _gather(self, begun: Begun) -> Lost:
        link, piece = begun.link, begun.piece
        coding = Dechunker() if begun.chunked else Counted(begun.length)
        link.setblocking(False)
        poll, heard_at = select.poll(), time.monotonic()
        poll.register(link, select.POLLIN)
        while not self._stop.is_set():
            piece = coding.feed(piece)
            if piece and not self._put(piece):
                return Lost("overflow: the disk is slower than the stream", Cause.OVERFLOW)
            if coding.ended:
                return Lost("the server ended the stream", Cause.SERVER_DROP)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, GATHERED)
            if not poll.poll(GATHER_SECONDS * 1000):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            received = self._receive(link)
            if received is None:
                if time.monotonic() - heard_at > self._stall_seconds:
                    return Lost(f"no byte for {self._stall_seconds:g} s", Cause.STALL)
                piece = b""
                continue
            if not received:
                whole = isinstance(coding, Counted) and coding.left is None
                return Lost("the server ended the stream", Cause.SERVER_DROP) if whole else Lost(
                    "the connection broke off", Cause.CUT)
            heard_at, piece = time.monotonic(), received
        return Lost("abandoned", Cause.CUT)

    def _receive(self, link: socket.socket) -> bytes | None:
        """All that is there, up to LARGEST_READ; empty at the end of the stream, None when nothing is there now."""
        pieces: list[bytes] = []
        size = 0
        while size < LARGEST_READ:
            try:
                if self._broken:
                    raise self._broken
                piece = link.recv(LARGEST_READ - size)
            except (BlockingIOError, ssl.SSLWantReadError):
                return b"".join(pieces) if pieces else None
            except ssl.SSLZeroReturnError:
                piece = b""
            except OSError as error:
                if not pieces:
                    raise
                self._broken = error  # what came before a reset is as good as any
                break
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _put(self, piece: bytes) -> bool:
        """Hand it to the main thread; False when too much waits there."""
        self._inbox.put((self, piece))
        self.waiting += len(piece)
        return self.waiting - self.taken < MOST_WAITING


class Counted:
    """A body that is not coded: `left` bytes of it are to come, or all up to the end of the connection when None."""

    def __init__(self, left: int | None) -> None:
        self.left = left

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        return self.left == 0

    def feed(self, piece: bytes) -> bytes:
        """The media in it."""
        if self.left is not None:
            piece = piece[:self.left]
            self.left -= len(piece)
        return piece


class Dechunker:
    """The chunked coding of HTTP (RFC 9112, section 7.1), for pieces of any size. Raises `TemporaryError`."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0  # of the chunk that has begun
        self._line = b""

    def feed(self, coded: bytes) -> bytes:
        """The media in it."""
        found, at = [], 0
        while at < len(coded) and not self.ended:
            if self._left:
                found.append(coded[at: at + self._left])
                at += len(found[-1])
                self._left -= len(found[-1])
                continue
            end = coded.find(b"\n", at)
            self._line += coded[at: end + 1 if end >= 0 else len(coded)]
            at = end + 1 if end >= 0 else len(coded)
            if end < 0:
                break
            size, self._line = self._line.partition(b";")[0].strip(), b""
            if size:  # else the end of the line that ends a chunk
                self._begin(size)
        if len(self._line) > LONGEST_LINE:
            raise TemporaryError("the server's chunked coding makes no sense")
        return b"".join(found)

    def _begin(self, size: bytes) -> None:
        try:
            self._left = int(size, 16)
        except ValueError:
            self._left = -1
        if not 0 <= self._left <= LARGEST_CHUNK:
            raise TemporaryError("the server's chunked coding makes no sense")
        self.ended = self._left == 0
