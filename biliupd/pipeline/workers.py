"""The worker threads: editing, uploading, submitting, tidying and copying, and keeping logins alive.

Each claims rows and runs their next step, a few threads of a kind. What a step does is the business of its own page.
"""

import threading
import time
from collections.abc import Callable, Iterable

from loguru import logger

from biliupd.catalog import videos
from biliupd.catalog.database import Catalog, Damaged
from biliupd.config import Config
from biliupd.errors import TemporaryError
from biliupd.pipeline.accounts import Accounts
from biliupd.pipeline.desk import IDLE_SECONDS, Desk
from biliupd.pipeline.editing import Editing
from biliupd.pipeline.keeping import Keeping
from biliupd.pipeline.submitting import Submitting
from biliupd.pipeline.tidying import Tidying
from biliupd.pipeline.uploading import Uploading
from biliupd.publish.upos import Progress

LONG_IDLE_SECONDS = 5.0  #: for work that is never urgent


class Pipeline:
    """Owns the worker threads. `apply` gives it new settings while it runs."""

    def __init__(self, config: Config, catalog: Catalog, hide: Callable[[Iterable[str]], None]) -> None:
        self._desk = Desk(config, catalog)
        self.accounts = Accounts(config, catalog, hide)
        self._uploading = Uploading(self._desk, self.accounts)
        self._threads: list[threading.Thread] = []
        self.turned_at: dict[str, float] = {}
        self.edit_turn = Editing(self._desk).turn
        self.upload_turn = self._uploading.turn
        self.submit_turn = Submitting(self._desk, self.accounts).turn
        self._tidying, self._keeping = Tidying(self._desk), Keeping(self._desk)
        self.account_turn = self.accounts.turn

    @property
    def progress(self) -> dict[int, Progress]:
        """How far each running upload is, by video."""
        return self._uploading.progress

    def start(self) -> None:
        """Start the workers, after putting back what a dead daemon left claimed."""
        if put_back := videos.release(self._desk.db):
            logger.info("{} videos were being worked on when the last daemon ended; they go on", put_back)
        config = self._desk.config
        kinds: list[tuple[str, int, Callable[[], bool], float]] = [
            ("edit", config.edit.workers, self.edit_turn, IDLE_SECONDS),
            ("upload", config.publish.workers, self.upload_turn, IDLE_SECONDS),
            ("submit", 1, self.submit_turn, IDLE_SECONDS), ("tidy", 1, self.tidy_turn, LONG_IDLE_SECONDS),
            ("accounts", 1, self.account_turn, LONG_IDLE_SECONDS),
        ]  # fmt: skip
        for name, count, turn, idle in kinds:
            for n in range(count):
                thread = threading.Thread(target=self._work, args=(turn, idle), name=f"{name}-{n + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def tidy_turn(self) -> bool:
        """Files that may go, and the catalog's copies."""
        return self._keeping.turn() or self._tidying.turn()

    def hurry_tidying(self) -> None:
        """Space is short: what the settings let go goes within some seconds, not within a minute."""
        self._tidying.hurry()

    def close(self, deadline_seconds: float) -> None:
        """Stop: ffmpeg and uploads are ended, their rows go back to rest."""
        self._desk.stop.set()
        until = time.monotonic() + deadline_seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def is_alive(self) -> bool:
        """Whether every worker lives."""
        return all(thread.is_alive() for thread in self._threads)

    def apply(self, config: Config) -> None:
        """New settings for every step that begins from now on; what waited for settings is looked at again."""
        self._desk.config = config
        self.accounts.apply(config)
        videos.wake(self._desk.db)

    def _work(self, turn: Callable[[], bool], idle_seconds: float) -> None:
        name, stop, told = threading.current_thread().name, self._desk.stop, ""
        while not stop.is_set():
            self.turned_at[name] = time.monotonic()
            try:
                busy = turn()
            except TemporaryError as error:  # the catalog is busy or its disk full
                if str(error) != told:
                    logger.warning("{}: {}", name, error)
                told = str(error)
                stop.wait(max(error.retry_after_seconds, IDLE_SECONDS))
                continue
            except Damaged:
                return  # the main thread knows, says so and ends the process
            if told:
                logger.info("{}: goes on", name)
                told = ""
            if not busy:
                stop.wait(idle_seconds)
