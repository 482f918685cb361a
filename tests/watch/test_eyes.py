"""How old files are in spite of clocks that step, and what a file at rest may still wait for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import wait_until

from biliupd.errors import PermanentError
from biliupd.watch.eyes import Ages

WALL = 1_700_000_000.5


class Clocks:
    """A wall clock that can be set and one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = WALL, 1000.0
        self.ages = Ages(lambda: self.wall, lambda: self.steady)

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def age(self, moment: float) -> float:
        return self.ages.seconds(int(moment * 1000) * 1_000_000)


@pytest.mark.parametrize(("moment", "age"), [
    (WALL, 0.0), (WALL - 3, 3.0), (WALL - 86400, 86400.0), (WALL + 10, 0.0), (WALL + 315360000, 0.0),
    (0.5, WALL - 0.5),
    (WALL - 3.5, 1.5), (WALL - 0.5, 0.0),  # whole seconds: the file system may know no others
])
def test_the_age_of_a_moment(moment, age):
    assert Clocks().age(moment) == pytest.approx(age)


@pytest.mark.parametrize("step", [7200.0, -7200.0, 315360000.0, -1.7e9, 0.2, -0.2])
def test_a_clock_that_is_set_makes_nothing_old(step):
    clocks = Clocks()
    written = WALL
    clocks.run(1.0)
    clocks.wall += step
    assert clocks.age(written) <= 1.0
    clocks.run(4.0)
    assert clocks.age(written) <= 4.0 + 1e-6
    assert clocks.age(clocks.wall - 2.25) == pytest.approx(2.25)


def test_a_clock_that_is_corrected_slowly_is_believed():
    clocks = Clocks()
    for _ in range(100):
        clocks.run(1.0)
        clocks.wall += 0.0005
        clocks.age(WALL)
    assert clocks.age(WALL) == pytest.approx(100.05)


def test_an_empty_file_waits_and_is_taken_when_it_is_filled(watching, catalog, root):
    (root / "before.mp4").touch()
    os.utime(root / "before.mp4", (1, 1))
    watcher = watching(root)
    (root / "a.mp4").touch()
    both = {str(root / name): "it is empty" for name in ("a.mp4", "before.mp4")}
    wait_until(lambda: watcher.status().waits == both)
    for name in ("a.mp4", "before.mp4"):
        (root / name).write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4", root / "before.mp4"))
    assert (watcher.status().waits, catalog.growing, len(catalog.settled)) == ({}, [], 2)


def test_a_file_that_is_not_whole_waits_and_is_taken_when_it_is(watching, catalog, root):
    path = str(root / "a.mp4")
    catalog.whole[path] = "its mdat box ends at 10, the file at 5"
    watcher = watching(root)
    (root / "a.mp4").write_bytes(b"12345")
    wait_until(lambda: watcher.status().waits == {path: catalog.whole[path]})
    assert catalog.settled == []
    del catalog.whole[path]
    (root / "a.mp4").write_bytes(b"1234567890")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert [item.entries[0].size_bytes for item in catalog.settled] == [10]


def test_a_file_that_cannot_be_looked_into_waits(watching, catalog, root, monkeypatch):
    troubles = [OSError(5, "Input/output error"), PermanentError("no boxes")]

    def unfinished(path):
        if troubles:
            raise troubles.pop(0)
        return ""

    monkeypatch.setattr(catalog, "unfinished", unfinished)
    watching(root)
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert troubles == []


def test_a_file_that_never_becomes_whole_is_told_as_growing_and_taken_in_the_end(watching, catalog, root):
    path = str(root / "a.mp4")
    catalog.whole[path] = "without moov"
    watching(root, limit_seconds=0.2)
    (root / "a.mp4").write_bytes(b"x")
    wait_until(lambda: catalog.has(root / "a.mp4"))
    assert path in catalog.growing
    assert not catalog.settled[-1].growing


SCRIPT = """
import os, sys
from pathlib import Path
from listener import Catalog
from support import wait_until
from biliupd.watch import eyes, watcher
eyes.UNREADABLE_SECONDS = watcher.CHECK_SECONDS = watcher.IDLE_SECONDS = 0.2
root, catalog = Path(sys.argv[1]), Catalog()
watched = catalog.watcher(root, polling_seconds=0.2)
assert not os.access(root / "before.mp4", os.R_OK), "needs a process that may not read everything"
watched.start()
(root / "a.mp4").write_bytes(b"x")
(root / "a.mp4").chmod(0)
names = ("a.mp4", "before.mp4")
waits = {str(root / name): "it may not be read" for name in names}
wait_until(lambda: watched.status().waits == waits)
wait_until(lambda: "may not be watched" in watched.status().observed[str(root)])
wait_until(lambda: "may not be watched" in catalog.roots[-1][1])
assert catalog.listings[0][2] is False, "complete without the closed directory"
for name in names:
    (root / name).chmod(0o644)
(root / "closed").chmod(0o755)
wait_until(lambda: catalog.has(*(root / name for name in (*names, "closed/b.mp4"))))
wait_until(lambda: watched.status().observed[str(root)] == "native")
assert watched.status().waits == {}
watched.close(5)
"""


def test_what_may_not_be_read_waits_until_it_may(tmp_path):
    """In a process without the rights of root, which may read everything."""
    (tmp_path / "closed").mkdir()
    for name in ("closed/b.mp4", "before.mp4"):
        (tmp_path / name).write_bytes(b"x")
    os.utime(tmp_path / "before.mp4", (1, 1))
    (tmp_path / "before.mp4").chmod(0)
    (tmp_path / "closed").chmod(0)
    here = Path(__file__).parent
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={
        **os.environ, "PYTHONPATH": os.pathsep.join([*map(str, (here, here.parent, here.parents[1])), *sys.path])})
    (tmp_path / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
