"""Files that are known already, by their content; what sidecars say; names that are no text."""

import json
import os
import shutil
from threading import Event

import pytest
from support import another

from biliupd.catalog.states import State
from biliupd.catalog.sync import apply, gone, rows_by_id
from biliupd.edit import media
from biliupd.edit.fingerprint import fingerprint, same_content
from biliupd.errors import TemporaryError


def edited(bench, path, **facts):
    """The row of a file after its edit; None when it has none any more."""
    id = bench.add(path, **facts)
    assert bench.pipeline.edit_turn()
    return next(iter(bench.catalog.db.query("select * from videos where id = ?", [id])), None)


def published(bench, path):
    id = bench.add(path)
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    return id


def test_the_same_content_a_second_time_is_ignored_and_nothing_is_sent(bench, clip, video):
    first = published(bench, clip)
    before = len(bench.bilibili.requests)
    shutil.copy(clip, bench.drop / "again.mp4")
    copy = edited(bench, bench.drop / "again.mp4")
    assert (copy["state"], copy["same_as"]) == ("ignored", first)
    assert copy["last_error"].startswith("same as 'clip.mp4' (video:1, BV")
    linked = bench.drop / "linked.mp4"
    os.link(clip, linked)
    assert edited(bench, linked)["state"] == "ignored"
    bench.pipeline.upload_turn()
    bench.pipeline.submit_turn()
    assert len(bench.bilibili.requests) == before


def test_a_pipe_in_the_place_of_a_file_holds_up_nobody(bench, clip):
    first = published(bench, clip)
    shutil.copy(clip, bench.drop / "again.mp4")
    clip.unlink()
    os.mkfifo(clip)
    assert edited(bench, bench.drop / "again.mp4") is None
    assert bench.video(first)["file_path"] == str(bench.drop / "again.mp4")
    with pytest.raises(TemporaryError, match="no regular file"):
        same_content(str(bench.drop / "again.mp4"), str(clip), Event())


def test_a_copy_is_published_when_a_person_or_the_settings_say_so(make_bench, video):
    bench = make_bench(folder={"duplicates": "publish"})
    published(bench, another(video, bench.drop / "a.mp4"))
    shutil.copy(bench.drop / "a.mp4", bench.drop / "b.mp4")
    assert edited(bench, bench.drop / "b.mp4")["state"] == "ready"


def test_a_copy_of_what_was_published_and_then_changed_is_known_before_anybody_saw_the_change(bench, clip):
    first = published(bench, clip)
    shutil.copy(clip, bench.drop / "copy.mp4")
    with open(clip, "ab") as file:
        file.write(b"more")
    copy = edited(bench, bench.drop / "copy.mp4")
    assert (copy["state"], copy["same_as"]) == ("ignored", first)


def test_a_copy_of_what_is_not_published_by_itself_is_published(make_bench, video):
    """Somebody looked at a recording and copied it into the drop folder."""
    bench = make_bench(streamer={"auto_upload": False})
    recording = bench.recordings / "P001.mp4"
    assert edited(bench, another(video, recording), **bench.broadcast(1))["state"] == "ready"
    shutil.copy(recording, bench.drop / "good.mp4")
    assert edited(bench, bench.drop / "good.mp4")["state"] == "ready"


def test_a_copy_of_what_was_published_and_removed_is_known_too(make_bench, video):
    bench = make_bench(retention={"after_publishing": "delete"})
    path = another(video, bench.drop / "a.mp4")
    kept = shutil.copy(path, bench.drop.parent / "kept.mp4")
    published(bench, path)
    bench.everything(lambda: not path.exists())
    shutil.copy(kept, bench.drop / "b.mp4")
    assert edited(bench, bench.drop / "b.mp4")["state"] == "ignored"


def test_files_of_the_same_fingerprint_and_other_content_are_both_published(bench, video):
    """Samples of 64 KiB leave holes between them; the whole comparison does not."""
    first = bench.drop / "a.mp4"
    shutil.copy(video, first)
    with open(first, "ab") as file:
        file.write((2 << 20).to_bytes(4, "big") + b"free" + bytes((2 << 20) - 8))
    other = bench.drop / "b.mp4"
    shutil.copy(first, other)
    with open(other, "r+b") as file:
        file.seek(video.stat().st_size + 8 + 64 * 1024 + 1000)
        file.write(b"x")
    one, two = edited(bench, first), edited(bench, other)
    assert one["fingerprint"] == two["fingerprint"]
    assert (one["state"], two["state"]) == ("ready", "ready")


def test_a_copy_of_what_a_merge_has_just_made_is_known_before_the_merge_is_written_down(bench, clip):
    """Two workers: one makes the pictures of its merge while the other looks at the same content."""
    first = bench.add(bench.drop / "clip.mp4")
    playlist = bench.drop / "list.m3u8"
    playlist.write_text("#EXTM3U\n")
    mark = fingerprint(str(clip))
    bench.catalog.db["videos"].update(first, {
        "file_path": str(playlist), "kind": "playlist", "output_path": str(clip), "fingerprint": mark,
        "state": State.EDITING})  # fmt: skip
    shutil.copy(clip, bench.drop / "copy.mp4")
    copy = edited(bench, bench.drop / "copy.mp4")
    assert (copy["state"], copy["same_as"]) == ("ignored", first)


def test_a_file_that_is_replaced_while_it_is_looked_at_is_looked_at_again(bench, clip, video, monkeypatch):
    """What is uploaded has the fingerprint that is written down: else a copy of it is published, too."""
    probe = media.probe

    def slow(path, ffmpeg):
        found = probe(path, ffmpeg)
        monkeypatch.undo()
        another(video, bench.drop / "other.part").replace(clip)
        return found

    monkeypatch.setattr(media, "probe", slow)
    row = edited(bench, clip)
    assert (row["state"], row["last_error"]) == ("recorded", "'clip.mp4' changed while it was looked at")
    bench.catalog.db["videos"].update(row["id"], {"retry_at": None})
    assert bench.pipeline.edit_turn()
    row = bench.video(row["id"])
    assert (row["state"], row["fingerprint"]) == ("ready", fingerprint(str(clip)))


def test_a_file_moved_by_way_of_another_disk_keeps_its_row(bench, clip):
    id = bench.ready(clip)
    bench.catalog.db["videos"].update(id, {"state": State.RECORDED})
    assert bench.pipeline.edit_turn()
    target = bench.drop / "sub" / "moved.mp4"
    target.parent.mkdir()
    shutil.copy(clip, target)
    clip.unlink()
    apply(bench.catalog.db, gone(rows_by_id(bench.catalog.db, [id])))
    assert edited(bench, target) is None
    row = bench.video(id)
    assert (row["state"], row["path"], row["inode"]) == ("ready", "sub/moved.mp4", target.stat().st_ino)


def test_a_copy_whose_original_is_deleted_before_it_was_uploaded_is_published_instead(bench, clip):
    first = edited(bench, clip)
    shutil.copy(clip, bench.drop / "b.mp4")
    copy = edited(bench, bench.drop / "b.mp4")
    assert copy["state"] == "ignored"
    clip.unlink()
    apply(bench.catalog.db, gone(rows_by_id(bench.catalog.db, [first["id"]])))
    bench.everything(lambda: bench.state(first["id"]) == State.PUBLISHED)
    bench.pipeline.edit_turn()
    (row,) = bench.catalog.db["videos"].rows
    assert (row["path"], row["title"]) == ("b.mp4", "b")


def test_what_is_known_of_a_file_stands_in_its_row(bench, clip):
    row = edited(bench, clip)
    assert (row["width"], row["height"], row["video_codec"], row["audio_codec"]) == (320, 180, "h264", "aac")
    assert 1.5 < row["duration"] < 3.5
    assert row["bitrate"] == pytest.approx(clip.stat().st_size * 8 / row["duration"], rel=0.1)
    assert json.loads(row["gaps"]) == []
    assert os.path.getsize(row["thumbnail_path"]) > 500


def test_what_an_older_version_did_not_write_down_is_found_out_once(bench, clip):
    id = bench.ready(clip)
    bench.catalog.db["videos"].update(id, {"thumbnail_path": None, "state": State.PUBLISHED})
    assert bench.pipeline.edit_turn()
    row = bench.video(id)
    assert (row["video_codec"], row["state"]) == ("h264", "published")
    assert row["fingerprint"].startswith(f"{clip.stat().st_size}:")
    assert os.path.getsize(row["thumbnail_path"]) > 500
    assert not bench.pipeline.edit_turn()


def test_a_sidecar_names_the_video_in_the_library_and_its_change_is_read(bench, clip):
    sidecar = clip.with_suffix(".yaml")
    sidecar.write_text("title: 'The feast of {title}'")
    row = edited(bench, clip)
    assert row["title"] == "The feast of clip"
    sidecar.write_text("title: Another name")
    bench.catalog.db["videos"].update(row["id"], {"sidecar": "?"})
    bench.pipeline.edit_turn()
    assert bench.video(row["id"])["title"] == "Another name"
    sidecar.unlink()
    bench.catalog.db["videos"].update(row["id"], {"sidecar": "?"})
    bench.pipeline.edit_turn()
    assert (bench.video(row["id"])["title"], bench.video(row["id"])["sidecar"]) == ("clip", "")


def test_a_broken_sidecar_leaves_the_name_of_the_file(bench, clip):
    clip.with_suffix(".yaml").write_text("title: [")
    assert edited(bench, clip)["title"] == "clip"


def test_a_name_that_is_no_text_is_published_with_one_that_is(make_bench, video):
    bench = make_bench(folder={"folder_quiet_seconds": 0.01})
    folder = bench.drop / os.fsdecode("年会".encode("gb18030"))
    folder.mkdir()
    path = another(video, folder / os.fsdecode("直播".encode("gb18030") + b".mp4"))
    id = bench.add(path)
    bench.everything(lambda: bench.state(id) == State.PUBLISHED)
    (archive,) = bench.bilibili.archives
    assert archive.title.endswith("年会")
    assert bench.video(id)["title"] == "直播"


