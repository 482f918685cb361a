"""Settled paths on their way out, kept until they were taken.

Runs on the watcher thread; touches nothing.
"""

from collections import deque
from collections.abc import Callable

from loguru import logger

from biliupd.watch.settle import Settled

BATCH = 500  #: paths per call
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0


class Outbox:
    """A line of settled paths before a callable that may fail, as when a database is locked."""

    def __init__(self, take: Callable[[list[Settled]], None]) -> None:
        self._take = take
        self._items: deque[Settled] = deque()
        self._retry_at = 0.0
        self._retry_seconds = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Settled) -> None:
        """Append."""
        self._items.append(item)

    def forget(self, belongs: Callable[[str], bool]) -> None:
        """Drop the paths for which `belongs` holds."""
        self._items = deque(item for item in self._items if not belongs(item.path))

    def turn(self, now: float) -> bool:
        """Hand over one batch; True: it was taken. A batch that was not is handed over again after a growing pause."""
        if not self._items or now < self._retry_at:
            return False
        batch = [self._items[i] for i in range(min(BATCH, len(self._items)))]
        try:
            self._take(batch)
        except Exception as error:  # noqa: BLE001  not ours to know what it raises: the batch is kept
            if not self._retry_seconds:
                logger.warning("{} settled paths were not taken, tried again later: {!r}", len(batch), error)
            self._retry_seconds = min(max(FIRST_RETRY_SECONDS, self._retry_seconds * 2), LONGEST_RETRY_SECONDS)
            self._retry_at = now + self._retry_seconds
            return False
        if self._retry_seconds:
            logger.info("settled paths are taken again")
        self._retry_seconds = 0.0
        for _ in batch:
            self._items.popleft()
        return True
