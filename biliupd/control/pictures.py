"""The newest picture of each recording: made when somebody asks for it, and kept for half a minute.

Runs on the server's event loop. However many ask, one picture is made at a time in the whole daemon, and one of a
recording in half a minute: the recorders need the disk and the processor more than anybody needs a picture.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b

from biliupd.errors import BiliupdError, TemporaryError

KEPT_SECONDS = 30.0
WAIT_SECONDS = 20.0  #: who asks waits no longer, whatever hangs; what is made is made all the same
OLD_SECONDS = 90.0  #: from then on it does not show what goes on

Make = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True)
class Picture:
    """A JPEG."""

    content: bytes
    etag: str
    fresh_seconds: float  #: until there may be a newer one


@dataclass
class _Kept:
    content: bytes = b""
    made_at: float = 0.0
    tried_at: float = 0.0
    error: BiliupdError | None = None  #: what the last try came to


class Pictures:
    """By the id of the task that records."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: dict[str, _Kept] = {}
        self._making: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()

    async def get(self, task_id: str, make: Make) -> Picture:
        """The picture of now. While it is made, others are given the one before, if that is not old, or wait.

        Raises what `make` raised of our errors, for as long as a picture would be kept, and TemporaryError when it
        takes too long.
        """
        kept = self._kept.get(task_id)
        if kept is None or self._now() - kept.tried_at >= KEPT_SECONDS:
            making = self._making.get(task_id)
            if making is None or kept is None or not self._shows(kept):
                if making is None:
                    making = self._making[task_id] = asyncio.create_task(self._make(task_id, make))
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        await asyncio.shield(making)  # who goes away takes it from nobody
                except TimeoutError as error:
                    raise TemporaryError("the picture was not made in time") from error
                kept = self._kept[task_id]
        if kept.error is not None and not self._shows(kept):
            raise kept.error.with_traceback(None)
        etag = f'"{blake2b(kept.content, digest_size=12).hexdigest()}"'
        return Picture(kept.content, etag, max(0.0, kept.tried_at + KEPT_SECONDS - self._now()))

    def _shows(self, kept: _Kept) -> bool:
        return bool(kept.content) and self._now() - kept.made_at < OLD_SECONDS

    async def _make(self, task_id: str, make: Make) -> None:
        try:
            async with self._turn:
                kept = self._kept.get(task_id) or _Kept()
                try:
                    kept.content, kept.error = await make(), None
                    kept.made_at = self._now()
                except BiliupdError as error:
                    kept.error = error
                kept.tried_at = self._now()
                self._kept = {id: one for id, one in self._kept.items() if kept.tried_at - one.tried_at < OLD_SECONDS}
                self._kept[task_id] = kept
        finally:
            del self._making[task_id]
