"""The catalog's own welfare: is it whole and small, a copy of it each day, and what the operator has to know of it.

Runs on the tidying worker. Reads the catalog on connections of its own and writes copies of it beside it.
"""

import time

from loguru import logger

from biliupd.catalog import backup, changes, records
from biliupd.catalog.database import ailment, on_network
from biliupd.errors import BiliupdError
from biliupd.pipeline.desk import Desk

LOOK_SECONDS = 60.0
CHECK_SECONDS = 3600.0


class Keeping:
    """Looks once a minute; checks once an hour; copies once a day."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._look_at = 0.0
        self._check_at = time.monotonic() + CHECK_SECONDS  # the daemon's start was a check
        self._refused = ""

    def turn(self) -> bool:
        """Whatever is due; False: there is nothing more to do for now."""
        at = time.monotonic()
        if at < self._look_at:
            return False
        self._look_at = at + LOOK_SECONDS
        path, db = self._desk.catalog.path, self._desk.db
        if at >= self._check_at:
            self._check_at = at + CHECK_SECONDS
            if why := ailment(path):
                self._desk.catalog.is_damaged(why)
                return False
        kind = on_network(path.parent)
        records.notice(db, "catalog", backup.told(path))
        records.notice(db, "network", f"the catalog lies on a network file system ({kind}): it works, but slowly, and"
                       " no other machine may use it; better set recordings.data_directory to a local disk"
                       if kind else "")  # fmt: skip
        changes.prune(db)
        self._copy()
        return False

    def _copy(self) -> None:
        try:
            made = backup.keep(self._desk.catalog.path, self._desk.config.recordings.backups)
        except BiliupdError as error:
            if str(error) != self._refused:
                logger.error("today's copy of the catalog failed: {}", error)
            self._refused = str(error)
            records.notice(self._desk.db, "backup", f"today's copy of the catalog failed: {error}; {error.hint}")
            return
        if made or self._refused:
            self._refused = ""
            records.notice(self._desk.db, "backup", "")
        if made:
            logger.info("the catalog was copied to {}", made)
