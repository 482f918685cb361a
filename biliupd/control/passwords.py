"""Hashes of passwords: argon2id, one at a time, because each takes memory that a NAS does not have many times.

Runs on the threads of the routes, and in the command that makes users; touches nothing.
"""

import ctypes
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from biliupd.control.problems import TooMany

MEMORY_KIB, ROUNDS, LANES = 19 * 1024, 2, 1  #: what OWASP's Password Storage Cheat Sheet asks of argon2id at least
QUEUE = 3  #: so many may wait for their turn, each on a thread that others need, too
AGAIN_SECONDS = 2
MAPPED_BYTES = 1 << 20  #: blocks of this size and more go back to the system when they are freed
_TRIM, _MMAP = -1, -3  #: names of settings of mallopt(3)


class Passwords:
    """Makes and checks hashes. Every method raises Refusal 429 when too many wait already."""

    def __init__(self) -> None:
        _give_memory_back()
        self._hasher = PasswordHasher(time_cost=ROUNDS, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._nobodys = self._hasher.hash(secrets.token_hex())
        self._one = threading.Lock()
        self._places = threading.BoundedSemaphore(QUEUE + 1)

    def hash(self, password: str) -> str:
        """What to keep of a password."""
        with self._turn():
            return self._hasher.hash(password)

    def check(self, kept: str | None, password: str) -> bool:
        """Whether it is the one that `kept` was made of. For nobody (None) it takes as long to say no."""
        with self._turn():
            try:
                return self._hasher.verify(kept or self._nobodys, password)
            except (Argon2Error, InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Whether it was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(kept)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise TooMany("too many log in at once", AGAIN_SECONDS)
        try:
            with self._one:
                yield
        finally:
            self._places.release()


def _give_memory_back() -> None:
    """glibc raises the size from which on it maps memory of its own for a block, and gives it back, to the largest
    block it has met. The next one comes from the heap of whichever thread asks, and stays there: 19 MiB for each. So
    the size is fixed, and how much of a heap's end may stay free with it. Other libraries need nothing.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_MMAP, MAPPED_BYTES)
        mallopt(_TRIM, MAPPED_BYTES)
