"""The watcher, the intake and a catalog in a process of their own, which answers on standard input with its figures.

Started by bench.py with a directory: the watched root is `root` in it, the catalog `data/catalog.db`.
"""

import json
import queue
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loguru import logger

from biliupd.catalog.database import Catalog
from biliupd.config import WatchConfig
from biliupd.intake import Intake
from biliupd.watch.settle import Settled
from biliupd.watch.watcher import Watcher


class Counted(queue.Queue):
    """Knows how long it has ever been."""

    longest = 0

    def _put(self, item: object) -> None:
        super()._put(item)
        self.longest = max(self.longest, self._qsize())


def main(directory: Path, quiet_seconds: float) -> None:
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    root = directory / "root"
    catalog = Catalog(directory / "data" / "catalog.db")
    intake = Intake(catalog, directory / "recordings", [root])
    late: list[float] = []

    def settled(batch: Sequence[Settled]) -> None:
        intake.settled(batch)
        now = time.time()
        late.extend(now - max(entry.mtime_ns, entry.ctime_ns) / 1e9 - quiet_seconds
                    for item in batch if not item.growing for entry in item.entries)

    watch = WatchConfig(quiet_seconds=quiet_seconds)
    watcher = Watcher(watch, [root], on_settled=settled, on_scan=intake.survey, on_root=intake.root)
    events = watcher._queue = Counted(watch.queue_size)
    watcher.start()
    for line in sys.stdin:
        if line.strip() == "forget":
            late.clear()
            events.longest = 0
        status = watcher.status()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        sys.stdout.write(json.dumps({
            "scans": sum(status.rescans.values()), "longest": events.longest, "late": late, "settling": status.settling,
            "peak_bytes": usage.ru_maxrss * 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}) + "\n")
        sys.stdout.flush()
    watcher.close(10)


main(Path(sys.argv[1]), float(sys.argv[2]))
