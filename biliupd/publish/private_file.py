"""Small files that hold a login or speak of an account: whole or not at all, and for their owner's eyes only.

Used by everything of this room that keeps something. Root writes for whoever owns the old file, or else the directory,
so that a command run by root leaves nothing that the daemon's user cannot use.
"""

import contextlib
import glob
import os
import secrets
import time
from pathlib import Path

ABANDONED_SECONDS = 3600.0


def replace(place: Path, content: bytes) -> None:
    """Put a file there in one piece, on the disk when this returns, mode 0600 from its first byte. Raises OSError, and
    the old file is as it was then."""
    _forget_abandoned(place)
    new = part(place, content)
    try:
        os.replace(new, place)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def part(place: Path, content: bytes) -> Path:
    """Write and fsync a new file next to `place`. Raises OSError, and leaves nothing then."""
    new = place.with_name(f".{place.name}.{secrets.token_hex(6)}.part")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            give(descriptor, place)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        return new
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise


def give(descriptor: int, place: Path) -> None:
    """Root gives an open file to whoever owns `place`, or else its directory. Raises OSError."""
    if os.geteuid() == 0:
        known = os.stat(place if place.exists() else place.parent)
        os.fchown(descriptor, known.st_uid, known.st_gid)


def _forget_abandoned(place: Path) -> None:
    """What a program that was killed while writing left there is a secret that nobody looks after."""
    with contextlib.suppress(OSError):
        for left in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
            if time.time() - left.lstat().st_mtime > ABANDONED_SECONDS:
                left.unlink()
