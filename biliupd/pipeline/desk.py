"""What follows from the outcome of a step: back to rest with a time, held for a person, or further along.

Shared by all workers. Whoever raises says whether another try can help; only this page decides what is done about it.
"""

import os
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from loguru import logger
from sqlite_utils import Database

from biliupd.catalog import submissions, videos
from biliupd.catalog.database import Catalog, stamp
from biliupd.catalog.states import Stage, State
from biliupd.catalog.submissions import Submission
from biliupd.catalog.videos import Video
from biliupd.config import Config
from biliupd.errors import BiliupdError, NeedsPerson, Stopped, TemporaryError, Unreachable
from biliupd.pipeline.accounts import ACCOUNT_SECONDS

IDLE_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 3600.0


class Desk:
    """The settings in force, the catalog, the stop event, and how failures are written down."""

    def __init__(self, config: Config, catalog: Catalog) -> None:
        self.config = config
        self.catalog = catalog
        self.owner = f"{os.getpid()}"
        self.stop = threading.Event()

    @property
    def db(self) -> Database:
        """The calling thread's connection."""
        return self.catalog.db

    def step(self, video: Video, doing: State, rest: State, action: Callable[[Video], None]) -> None:
        """Run one step of a claimed video; whatever happens, its row is at rest afterwards."""
        db, log, attempts = self.db, logger.bind(video=video["id"]), video["attempts"]

        def hold(why: str) -> None:
            gone = not os.path.lexists(video["file_path"])
            target = State.MISSING if gone else State.HELD
            self.insist(lambda: videos.put_back(db, video, doing, target, why, None, attempts))
            log.error("{}: {}: {}", target, video["title"], why)

        def later(why: str, seconds: float, attempts: int, waits_for: str | None = None) -> None:
            at = moment(seconds) if seconds else None
            self.insist(lambda: videos.put_back(db, video, doing, rest, why, at, attempts, waits_for=waits_for))

        try:
            with logger.contextualize(video=video["id"]):
                action(video)
        except Stopped:
            later("put down because the daemon stops", 0, attempts)
        except NeedsPerson as error:
            later(str(error), ACCOUNT_SECONDS, attempts, waits_for=str(error))
        except (TemporaryError, OSError) as error:
            attempts += 1
            if attempts >= self.config.publish.attempts and not isinstance(error, Unreachable):
                return hold(f"{error} (after {attempts} tries)")
            seconds = self.wait_seconds(attempts, error)
            log.warning("{}: {}; again in {:.0f} s", video["title"], error, seconds)
            later(str(error), seconds, attempts)
        except BiliupdError as error:
            hold(str(error))
        except Exception as error:  # a bug must not stop every other video
            log.exception("a bug in biliupd")
            hold(f"a bug in biliupd: {type(error).__name__}: {error}")

    def attempt(self, row: Submission, stage: Stage, action: Callable[[Submission], bool]) -> bool:
        """The same for a submission, which stays in its stage when another try may help; True when it moved."""
        log = logger.bind(submission=row["id"])
        try:
            with logger.contextualize(submission=row["id"]):
                return action(row)
        except Stopped:
            return False
        except NeedsPerson as error:
            submissions.wait(self.db, row["id"], str(error), moment(ACCOUNT_SECONDS))
        except (TemporaryError, OSError) as error:
            self.later(row, stage, stage, error)
        except BiliupdError as error:
            self.failed(row, stage, Stage.HELD, str(error), None)
            log.error("held: {}", error)
        except Exception as error:  # a bug must not stop every other submission
            log.exception("a bug in biliupd")
            self.failed(row, stage, Stage.HELD, f"a bug in biliupd: {type(error).__name__}: {error}", None)
        return False

    def insist(self, write: Callable[[], object]) -> None:
        """Write an outcome down, however long the catalog is busy. When the daemon stops before, the row stays claimed
        by a dead owner, and the next start puts it back."""
        said = ""
        while True:
            try:
                write()
                return
            except TemporaryError as error:
                if str(error) != said:
                    logger.warning("an outcome waits to be written down: {}", error)
                said = str(error)
                if self.stop.wait(max(error.retry_after_seconds, IDLE_SECONDS)):
                    return

    def failed(self, row: Submission, old: Stage, new: Stage, why: str, retry_at: str | None, **facts: object) -> None:
        """A submission's try that did not work, written down."""
        self.insist(lambda: submissions.failed(self.db, row, old, new, why, retry_at, **facts))

    def later(self, row: Submission, old: Stage, rest: Stage, error: Exception) -> None:
        """Another try after a while; one that was not sent at all is held after `publish.attempts` of them."""
        attempts = row["attempts"] + 1
        log = logger.bind(submission=row["id"])
        limit = self.config.publish.attempts
        if attempts >= limit and rest is Stage.COLLECTING and not isinstance(error, Unreachable):
            why = f"{error} (after {attempts} tries)"
            self.failed(row, old, Stage.HELD, why, None, attempts=attempts)
            log.error("held: {}", why)
            return
        seconds = self.wait_seconds(attempts, error)
        log.warning("{}; again in {:.0f} s", error, seconds)
        self.failed(row, old, rest, str(error), moment(seconds), attempts=attempts)

    def wait_seconds(self, attempts: int, error: Exception) -> float:
        """Doubles with each try up to an hour; longer when the other side asks for it."""
        own: float = min(self.config.publish.retry_seconds * 2.0 ** min(attempts - 1, 30), LONGEST_WAIT_SECONDS)
        asked = error.retry_after_seconds if isinstance(error, TemporaryError) else 0.0
        return max(own * random.uniform(0.8, 1.2), asked)


def moment(seconds: float) -> str:
    """So many seconds from now, as the catalog writes it."""
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))
