"""One sync of a directory, by the watcher, the intake and the catalog: prints seconds, rows and what was written.

A process of its own, so that its peak memory is its own. With `--only-scan` without the watcher's thread: what a
restart costs when nothing changed.
"""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from loguru import logger

from biliupd.catalog.database import Catalog
from biliupd.config import WatchConfig
from biliupd.intake import Intake
from biliupd.watch import listing
from biliupd.watch.settle import Settled
from biliupd.watch.watcher import Watcher


def main() -> None:
    root, data, wanted, once = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:] == ["--only-scan"]
    logger.remove()
    catalog = Catalog(data / "catalog.db")
    intake = Intake(catalog, data / "recordings", [root])
    before = catalog.db.conn.total_changes
    began = time.perf_counter()
    if once:
        _scan(intake, root)
    else:
        _watch(intake, root, wanted)
    took = time.perf_counter() - began
    (rows,) = catalog.db.execute("select count(*) from videos").fetchone()
    sys.stdout.write(json.dumps({
        "seconds": took, "rows": rows, "written": catalog.db.conn.total_changes - before,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))  # fmt: skip


def _scan(intake: Intake, root: Path) -> None:
    survey = intake.survey(root)
    for directory, entries in listing.scan(os.fspath(root)):
        assert not survey.look(directory, entries)
    survey.end(True)


def _watch(intake: Intake, root: Path, wanted: int) -> None:
    seen, done = [0], threading.Event()

    def settled(batch: list[Settled]) -> None:
        intake.settled(batch)
        seen[0] += len(batch)
        if seen[0] >= wanted:
            done.set()

    watcher = Watcher(WatchConfig(quiet_seconds=0.5), [root], on_settled=settled, on_scan=intake.survey,
                      on_root=lambda root, text: None)  # fmt: skip
    watcher.start()
    done.wait()
    watcher.close(10)


if __name__ == "__main__":
    main()
