"""What the pipeline does when the disk fills up, and with fragments: no more than the settings allow."""

import shutil

import pytest

from biliupd.catalog import videos
from biliupd.catalog.states import State, move
from biliupd.pipeline import tidying


@pytest.mark.parametrize(("retention", "left"), [({"after_publishing": "delete"}, 0), ({}, 1)])
def test_what_may_go_goes_at_once_when_space_is_short_and_nothing_else(
        make_bench, video, monkeypatch, retention, left):
    bench = make_bench(retention=retention)
    monkeypatch.setattr(tidying, "LOOK_SECONDS", 3600.0)
    bench.pipeline.tidy_turn()
    path = shutil.copy(video, bench.drop / "a.mp4")
    id = bench.add(path)
    bench.everything(lambda: bench.state(id) == "published")
    assert path.exists()
    bench.pipeline.hurry_tidying()
    bench.pipeline.tidy_turn()
    assert path.exists() is bool(left)


def test_a_fragment_is_neither_waited_for_nor_published_nor_deleted_until_a_person_wants_it(make_bench, video):
    bench = make_bench(retention={"after_publishing": "delete"})
    folder = bench.recordings / "show"
    folder.mkdir()
    show = bench.broadcast(parts=2)
    paths = [shutil.copy(video, folder / f"P00{n}.mp4") for n in (1, 2)]
    with open(paths[0], "ab") as file:
        file.write((24).to_bytes(4, "big") + b"free" + b"." * 16)
    ids = [bench.add(path, **show) for path in paths]
    videos.set_aside(bench.catalog.db, "b1", {str(paths[0]): "a fragment of 2.0 s; biliupd retry publishes it"})
    bench.everything(lambda: bench.state(ids[1]) == "published")
    (archive,) = bench.bilibili.archives
    assert len(archive.parts) == 1
    assert bench.state(ids[0]) == "ignored"
    assert paths[0].exists()
    assert videos.retry(bench.catalog.db, ids[0])
    bench.everything(lambda: bench.state(ids[0]) == "published")
    assert len(archive.parts) == 2


def test_a_broadcast_of_fragments_alone_is_not_submitted(bench, video):
    path = shutil.copy(video, bench.recordings / "P001.mp4")
    id = bench.ready(path, **bench.broadcast(parts=1))
    videos.set_aside(bench.catalog.db, "b1", {str(path): "a fragment"})
    for turn in (bench.pipeline.edit_turn, bench.pipeline.upload_turn, bench.pipeline.submit_turn):
        assert not turn()
    assert (bench.state(id), bench.bilibili.archives) == ("ignored", [])
    assert not move(bench.catalog.db, id, State.RECORDED, State.EDITING)
