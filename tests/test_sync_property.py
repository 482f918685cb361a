"""Random operations on real files against a model: after any sequence of them the rows say what the disk says."""

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_intake import survey

from biliupd.catalog.database import Catalog
from biliupd.catalog.states import State
from biliupd.edit.fingerprint import fingerprint
from biliupd.intake import Intake
from biliupd.watch.listing import look
from biliupd.watch.settle import Settled

NAMES = [
    "note.txt", "a.mp4", "b.flv", "c.mkv", "直播.mp4", "x\ny.mp4", os.fsdecode(b"\xff\xfe.mp4"), "🦊" * 60 + ".mp4",
]  # fmt: skip
FOLDERS = ["", "one", "one/two", "three", os.fsdecode(b"d\xe9")]


@dataclass
class Thing:
    """A file of the model. `row` is the id it had when all was last at rest; None: it may have any."""

    row: int | None
    changed: bool = True
    linked: bool = False  # it has or had another name, too: which of the two rows follows it is not said
    published: bool = False


class Walk:
    """A world and what may happen in it."""

    def __init__(self, base: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.roots = [base / "drop", base / "other"]
        for root in self.roots:
            for folder in FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
        self.catalog = Catalog(base / "data" / "catalog.db")
        self.intake = Intake(self.catalog, base / "recordings", self.roots)
        self.things: dict[Path, Thing] = {}
        self.clock = 1_700_000_000_000_000_000
        self.uploads: dict[str, str] = {}  # bvid → what was published
        self.touched: list[Path] = []

    # what may happen

    def create(self) -> None:
        path = self.place()
        if path.exists():
            return self.rewrite()
        self.write(path, self.random.randrange(1, 40))
        self.things[path] = Thing(None)

    def rewrite(self) -> None:
        if path := self.any():
            self.write(path, path.stat().st_size if self.random.random() < 0.5 else self.random.randrange(1, 40))
            self.things[path] = self.fresh(self.things[path])

    def touch(self) -> None:
        if path := self.any():
            self.stamp(path)
            self.things[path].changed = True

    def delete(self) -> None:
        if path := self.any():
            path.unlink()
            del self.things[path]

    def rename(self) -> None:
        """Within a root, between roots, over another file."""
        if path := self.any():
            target = self.place()
            if not (target.exists() and target.samefile(path)) and target.suffix == path.suffix:
                path.rename(target)
                self.things[target] = self.things.pop(path)
                self.touched.append(target)

    def swap(self) -> None:
        one, other = self.any(), self.any()
        if one and other and one != other:
            aside = one.with_name("aside.part")
            one.rename(aside)
            other.rename(one)
            aside.rename(other)
            self.things[one], self.things[other] = self.things[other], self.things[one]

    def rename_folder(self) -> None:
        folder = self.random.choice(self.roots) / "three"
        target = self.random.choice(self.roots) / "one" / f"moved{self.random.randrange(1 << 30)}"
        folder.rename(target)
        folder.mkdir()
        for path in [path for path in self.things if path.is_relative_to(folder)]:
            self.things[target / path.relative_to(folder)] = self.things.pop(path)
        self.touched.append(folder)

    def delete_folder(self) -> None:
        folder = self.random.choice(self.roots) / "one" / "two"
        shutil.rmtree(folder)
        folder.mkdir()
        for path in [path for path in self.things if path.is_relative_to(folder)]:
            del self.things[path]
        self.touched.append(folder)

    def link(self) -> None:
        path, target = self.any(), self.place()
        if path and not target.exists() and target.suffix == path.suffix:
            os.link(path, target)
            self.things[path].linked = True
            self.things[target] = Thing(None, linked=True)

    def settle(self) -> None:
        """As events have it: some of what happened is told, in any order, some never."""
        for path in self.random.sample(self.touched, min(3, len(self.touched))):
            entry = look(str(path)) if not path.is_dir() else None
            if entry or not path.exists():
                self.intake.settled([Settled(str(path), (entry,) if entry else (), self.random.random() < 0.1)])

    def publish(self) -> None:
        db = self.catalog.db
        found = db.execute("select id, file_path from videos where state = 'recorded'").fetchall()
        if found:
            id, path = self.random.choice(found)
            thing = self.things.get(Path(path))
            if thing is not None and thing.row == id and not thing.changed:
                bvid = f"BV{len(self.uploads)}"
                self.uploads[bvid] = fingerprint(path)
                facts = {"state": State.PUBLISHED, "bvid": bvid, "fingerprint": self.uploads[bvid]}
                db["videos"].update(id, facts)
                db["uploads"].upsert({"video_id": id, "bytes_total": 1, "started_at": "", "source_size":
                                      os.stat(path).st_size}, pk="video_id")  # fmt: skip
                thing.published = True

    # what must hold

    def calm(self) -> None:
        """Scan until nothing is new, then compare."""
        for _ in range(4):
            fresh = [entry for root in self.roots for entry in survey(self.intake, root)]
            self.intake.settled([Settled(entry.path, (entry,), False) for entry in fresh])
        assert [entry for root in self.roots for entry in survey(self.intake, root)] == []
        self.touched.clear()
        db = self.catalog.db
        there = {
            row["file_path"]: row
            for row in db.query("select * from videos where state != 'missing' and removed_at is null")
        }
        videos = {str(path): thing for path, thing in self.things.items() if path.suffix != ".txt"}
        assert set(there) == set(videos)
        for path, thing in videos.items():
            row, status = there[path], os.stat(path)
            disk = (status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
            assert (row["file_size"], row["mtime_ns"], row["inode"], row["device"]) == disk, path
            if thing.row is not None and not thing.changed and not thing.linked:
                assert row["id"] == thing.row, f"{path!a} is another video than it was"
            assert (row["state"] == "published") == (row["bvid"] is not None)
            if row["bvid"]:
                assert self.uploads[row["bvid"]] == fingerprint(path), "a published row shows what was published"
            thing.row, thing.changed = row["id"], False
        known = [row["bvid"] for row in db.query("select bvid from videos where bvid is not null")]
        assert sorted(known) == sorted(self.uploads), "what was published stays so, once"

    # the hands

    def place(self) -> Path:
        return self.random.choice(self.roots) / self.random.choice(FOLDERS) / self.random.choice(NAMES)

    def any(self) -> Path | None:
        return self.random.choice(list(self.things)) if self.things else None

    def fresh(self, thing: Thing) -> Thing:
        return Thing(None if thing.published else thing.row)

    def write(self, path: Path, size: int) -> None:
        path.write_bytes(self.random.randbytes(size))
        self.stamp(path)
        for other, thing in self.things.items():
            if other != path and other.exists() and other.samefile(path):
                self.things[other] = self.fresh(thing)

    def stamp(self, path: Path) -> None:
        self.clock += 1_000_000
        os.utime(path, ns=(self.clock, self.clock))
        self.touched.append(path)
        for other, thing in self.things.items():
            if other.exists() and other.samefile(path):
                thing.changed = True


MOVES = [
    (Walk.create, 8), (Walk.rewrite, 3), (Walk.touch, 2), (Walk.delete, 2), (Walk.rename, 6), (Walk.swap, 2),
    (Walk.rename_folder, 1), (Walk.delete_folder, 1), (Walk.link, 1), (Walk.settle, 6), (Walk.publish, 3),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_after_any_sequence_of_operations_the_rows_say_what_the_disk_says(tmp_path, seed):
    walk = Walk(tmp_path, seed)
    moves, weights = zip(*MOVES, strict=True)
    for _ in range(60):
        for move in walk.random.choices(moves, weights, k=walk.random.randrange(1, 20)):
            move(walk)
        walk.calm()
    assert len(walk.uploads) > 10
