"""Playlists of which a segment is gone or spoilt: what was dropped waits for a person, what we recorded goes on."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from loguru import logger

from biliupd.catalog import sync
from biliupd.catalog.sync import Changes, Found
from biliupd.config import EditConfig
from biliupd.errors import TemporaryError


@pytest.fixture(scope="session")
def segments(tmp_path_factory) -> Path:
    """Six segments of a second and their playlist."""
    folder = tmp_path_factory.mktemp("segments")
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:duration=6", "-f", "lavfi", "-i",
         "sine=duration=6", "-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-c:a", "aac", "-f", "hls",
         "-hls_time", "1", "-hls_list_size", "0", "-hls_segment_filename", str(folder / "%03d.ts"),
         str(folder / "index.m3u8")],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return folder


@pytest.fixture
def waiting(make_bench, segments):
    """A bench and its only video: a playlist whose fourth segment is missing, or whatever `spoil` does to it."""

    def make(ours: bool, spoil=Path.unlink, **edit):
        bench = make_bench()
        bench.config = bench.config.model_copy(update={"edit": EditConfig(segment_wait_seconds=0, **edit)})
        bench.pipeline.apply(bench.config)
        root = bench.recordings if ours else bench.drop
        folder = Path(shutil.copytree(segments, root / "show"))
        spoil(folder / "003.ts")
        facts = bench.broadcast(1) if ours else {}
        playlist = folder / "index.m3u8"
        status = playlist.stat()
        sync.apply(bench.catalog.db, Changes(added=[Found(
            str(playlist), str(root), "playlist", 1, status.st_mtime_ns, status.st_ino, status.st_dev, False, "show",
            **facts)]))  # fmt: skip
        bench.pipeline.edit_turn()
        return bench, folder, bench.video(1)

    return make


def test_what_was_dropped_is_held_and_says_what_would_help(waiting):
    _, folder, video = waiting(ours=False)
    assert video["state"] == "held"
    assert "'003.ts' (line 12), in vain for 0 s; edit.missing_segments: merge leaves it out" in video["last_error"]
    assert (folder / "000.ts").exists()


def test_a_missing_segment_is_waited_for_first(waiting):
    bench, folder, video = waiting(ours=False, spoil=lambda path: path.rename(path.with_name("aside")))
    assert video["state"] == "held"
    bench.config = bench.config.model_copy(update={"edit": EditConfig(segment_wait_seconds=3600)})
    bench.pipeline.apply(bench.config)
    bench.catalog.db.execute("update videos set state = 'recorded', last_error = null")
    bench.catalog.db.conn.commit()
    bench.pipeline.edit_turn()
    assert bench.video(1)["state"] == "recorded"
    (folder / "aside").rename(folder / "003.ts")
    bench.pass_time(120)
    bench.pipeline.edit_turn()
    assert bench.video(1)["state"] == "ready"
    assert not folder.exists()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"spoilt" * 100)], ids=["gone", "spoilt"])
@pytest.mark.parametrize(("ours", "setting"), [(True, "hold"), (False, "merge")])
def test_the_rest_is_merged_the_gap_is_noted_and_the_segments_stay(waiting, ours, setting, spoil):
    bench, folder, video = waiting(ours, spoil, missing_segments=setting)
    assert video["state"] == "ready"
    (gap,) = json.loads(video["gaps"])
    assert gap["segment"] == "003.ts"
    assert gap["at_seconds"] == pytest.approx(3, abs=0.3)
    assert gap["seconds"] == pytest.approx(1, abs=0.3)
    assert video["duration"] == pytest.approx(5, abs=0.5)
    bench.pipeline.edit_turn()
    assert (folder / "000.ts").exists(), "a person may want to mend it"


def test_segments_that_cannot_be_removed_are_said_once_and_tried_again(waiting, monkeypatch):
    """A share that is read-only for a while."""
    tries: list[Path] = []

    def refuse(source: Path, **_: object) -> None:
        tries.append(source)
        raise TemporaryError("its files cannot be deleted: Read-only file system")

    said: list[str] = []
    sink = logger.add(said.append, level="WARNING")
    with monkeypatch.context() as read_only:
        read_only.setattr("biliupd.pipeline.editing.merge.remove_source", refuse)
        bench, folder, video = waiting(ours=True, spoil=lambda path: None)
        bench.pipeline.edit_turn()
        bench.pipeline.edit_turn()
    logger.remove(sink)
    assert video["state"] == "ready"
    assert len(tries) >= 3
    assert len([line for line in said if "segments stay" in line]) == 1
    bench.pipeline.edit_turn()
    assert not folder.exists()
