"""Sidecars that came, changed or went → the videos they speak of are described anew.

Runs on the watcher's thread, as part of the intake. Reads no sidecar: the pipeline does.
"""

import os
from pathlib import Path

from loguru import logger
from sqlite_utils import Database

from biliupd.catalog import videos
from biliupd.pipeline.orders import SIDECAR_ENDINGS, stamp_of


def is_sidecar(path: str) -> bool:
    """Whether it may be one, by its name."""
    return path.endswith(SIDECAR_ENDINGS)


def look(db: Database, path: str) -> None:
    """A sidecar settled, was found by a scan, or is gone."""
    base = os.path.splitext(path)[0]
    mark = stamp_of(Path(path))
    changed = [
        id
        for id, file, known in videos.described_below(db, base)
        if known != mark and base in (file, os.path.splitext(file)[0], *map(str, Path(file).parents))
    ]
    if changed:
        logger.info("{} is read again for {} videos", path, len(changed))
        videos.sidecar_changed(db, changed)


def look_for_gone(db: Database, root: str) -> None:
    """After a scan: sidecars that went while nobody looked."""
    gone = []
    for id, file, known in videos.described(db, root):
        bases = (file, os.path.splitext(file)[0], *map(str, Path(file).parents))
        places = (Path(base + ending) for base in bases if len(base) > len(root) for ending in SIDECAR_ENDINGS)
        if known not in {stamp_of(place) for place in places}:
            gone.append(id)
    videos.sidecar_changed(db, gone)
