"""Is it the same content? A quick word on one file, and a full answer on two.

Runs on worker threads, and on the watcher's for a file that changed after its upload. Reads, never writes.
"""

import hashlib
import os
import stat
import threading

from biliupd.errors import Stopped, TemporaryError

SAMPLES = 16
SAMPLE_BYTES = 64 << 10
BLOCK_BYTES = 1 << 20


def fingerprint(path: str) -> str:
    """A text that is equal for equal content, and hardly ever for other: size and SHA-256 of 16 samples of 64 KiB, or
    of all of a smaller file. Empty when it is no regular file that can be read."""
    try:
        handle = _at_once(path)
    except OSError:
        return ""
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            return ""
        digest = hashlib.sha256()
        span = max(0, info.st_size - SAMPLE_BYTES)
        whole = info.st_size <= SAMPLES * SAMPLE_BYTES
        for n in range(SAMPLES):
            offset = n * SAMPLE_BYTES if whole else span * n // (SAMPLES - 1)
            digest.update(os.pread(handle, SAMPLE_BYTES, offset))
        return f"{info.st_size}:{digest.hexdigest()[:32]}"
    except OSError:
        return ""
    finally:
        os.close(handle)


def same_content(one: str, other: str, stop: threading.Event) -> bool:
    """Whether two files are equal byte by byte, or one file by two names.

    Raises TemporaryError when one of them cannot be read or is no file, Stopped when `stop` is set meanwhile.
    """
    try:
        with (open(one, "rb", buffering=0, opener=_at_once) as first,
              open(other, "rb", buffering=0, opener=_at_once) as second):  # fmt: skip
            if not all(stat.S_ISREG(os.fstat(file.fileno()).st_mode) for file in (first, second)):
                raise TemporaryError("two files cannot be compared: one of them is no regular file any more")
            if os.path.sameopenfile(first.fileno(), second.fileno()):
                return True
            if os.fstat(first.fileno()).st_size != os.fstat(second.fileno()).st_size:
                return False
            while block := first.read(BLOCK_BYTES):
                if stop.is_set():
                    raise Stopped("the comparison was stopped")
                if block != second.read(BLOCK_BYTES):
                    return False
            return True
    except OSError as error:
        raise TemporaryError(f"two files cannot be compared: {error.strerror}") from error


def _at_once(path: str, flags: int = os.O_RDONLY | os.O_CLOEXEC) -> int:
    """Open without waiting: a pipe that took the file's place would wait for its writer, and for ever."""
    return os.open(path, flags | os.O_NONBLOCK)
