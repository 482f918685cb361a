"""Stretches of local files, decrypted where they are encrypted: looked into, and fed into a pipe.

Runs on a worker thread. Opens regular files for reading, never through a symbolic link, and writes into a pipe.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from biliupd.errors import TemporaryError

FEED_BYTES = 1 << 20
READ_BYTES = 64 * 1024
BLOCK_BYTES = 16  #: of AES


class Feed(NamedTuple):
    """So many bytes of a file, from an offset on; with a key they are encrypted in it (RFC 8216, 4.3.2.4: AES-128)."""

    path: Path
    size_bytes: int  #: as they come out, decrypted and without padding
    offset_bytes: int = 0
    key: bytes = b""
    iv: bytes = b""


class BadKey(Exception):
    """A file does not decrypt with its key."""


def encrypted(path: Path, stored_bytes: int, offset_bytes: int, key: bytes, iv: bytes) -> Feed:
    """A stretch in CBC mode with PKCS#7 padding. Raises BadKey when its last block says otherwise, and OSError."""
    if stored_bytes < BLOCK_BYTES or stored_bytes % BLOCK_BYTES:
        raise BadKey(f"{stored_bytes} bytes are not made of blocks of {BLOCK_BYTES}")
    whole = Feed(path, stored_bytes, offset_bytes, key, iv)
    with reading(whole) as read:
        last = read(stored_bytes - BLOCK_BYTES, BLOCK_BYTES)
    padding = last[-1] if len(last) == BLOCK_BYTES else 0
    if not 1 <= padding <= BLOCK_BYTES or last[-padding:] != bytes([padding]) * padding:
        raise BadKey("its last block does not decrypt")
    return whole._replace(size_bytes=stored_bytes - padding)


def open_file(path: Path) -> int:
    """A descriptor for reading. Never waits (a FIFO), never follows a symbolic link in the last place."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


@contextmanager
def reading(feed: Feed) -> Iterator[Callable[[int, int], bytes]]:
    """A function from (offset, count) to these bytes of what comes out; fewer at its end."""
    file = open_file(feed.path)

    def read(at: int, count: int) -> bytes:
        count = max(min(count, feed.size_bytes - at), 0)
        if not feed.key or not count:
            return os.pread(file, count, feed.offset_bytes + at)
        first, past = at // BLOCK_BYTES, -(-(at + count) // BLOCK_BYTES)
        start = feed.offset_bytes + first * BLOCK_BYTES
        iv = os.pread(file, BLOCK_BYTES, start - BLOCK_BYTES) if first else feed.iv
        raw = os.pread(file, (past - first) * BLOCK_BYTES, start)
        raw = raw[:len(raw) // BLOCK_BYTES * BLOCK_BYTES]
        return _decryptor(feed.key, iv)(raw)[at % BLOCK_BYTES:][:count]

    try:
        yield read
    finally:
        os.close(file)


def _decryptor(key: bytes, iv: bytes) -> Callable[[bytes], bytes]:
    from Crypto.Cipher import AES  # for those streams that need it: else it costs every start of the daemon

    decrypt: Callable[[bytes], bytes] = AES.new(key, AES.MODE_CBC, iv=iv).decrypt
    return decrypt


class Feeder:
    """Moves files into a pipe; without a key not through our memory (splice(2))."""

    def __init__(self, feeds: Sequence[Feed], pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.total_bytes = 0
        self.done = False
        self._feeds = iter(feeds)
        self._file = -1
        self._left_bytes = 0
        self._path = Path()
        self._decrypt: Callable[[bytes], bytes] | None = None
        self._splices = True
        self._pending = b""
        os.set_blocking(pipe.fileno(), False)
        with contextlib.suppress(OSError):  # more than a user may have: it stays as small as it is
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, FEED_BYTES)

    def turn(self) -> bool:
        """Write what fits; False: all is written, or nobody reads any more. Raises TemporaryError for a lost file."""
        try:
            while self._left_bytes == 0 and not self._pending:
                if not self._open_next():
                    self.done = True
                    return False
            moved = self._move()
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        except OSError as error:
            raise TemporaryError(f"{self._path.name!a} cannot be read: {error.strerror}") from error
        if moved == 0:
            raise TemporaryError(f"{self._path.name!a} became shorter while it was read")
        self.total_bytes += moved
        return True

    def _open_next(self) -> bool:
        self._close_file()
        feed = next(self._feeds, None)
        if feed is None:
            return False
        self._path, self._left_bytes = feed.path, feed.size_bytes
        self._decrypt = _decryptor(feed.key, feed.iv) if feed.key else None
        self._file = open_file(feed.path)
        os.lseek(self._file, feed.offset_bytes, os.SEEK_SET)
        return True

    def _move(self) -> int:
        pipe = self.pipe.fileno()
        if self._splices and self._decrypt is None and not self._pending:
            try:
                moved = os.splice(self._file, pipe, min(self._left_bytes, FEED_BYTES), flags=os.SPLICE_F_NONBLOCK)
                self._left_bytes -= moved
                return moved
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOSYS):
                    raise
                self._splices = False  # a file system that cannot do it
        if not self._pending:
            self._pending = self._read()
            self._left_bytes -= len(self._pending)
        moved = os.write(pipe, self._pending) if self._pending else 0
        self._pending = self._pending[moved:]
        return moved

    def _read(self) -> bytes:
        if self._decrypt is None:
            return os.read(self._file, min(self._left_bytes, READ_BYTES))
        blocks = self._left_bytes // BLOCK_BYTES + 1  # the padding fills up the last one, or is one
        stored = os.read(self._file, min(blocks * BLOCK_BYTES, READ_BYTES))
        return self._decrypt(stored)[:self._left_bytes] if len(stored) % BLOCK_BYTES == 0 else b""

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Close the pipe, which tells ffmpeg that this was all, and the file."""
        self._close_file()
        try:
            self.pipe.close()
        except BrokenPipeError:
            return
