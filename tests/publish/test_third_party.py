"""The real biliup 1.2.9 works against the stand-in, so what the stand-in demands is what Bilibili's clients send."""

import hashlib
import json

import pytest

PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


@pytest.mark.parametrize("interface", ["app", "web", "b-cut-android"])
def test_biliup_publishes_a_file(bilibili, proxy, biliup, clip, tmp_path, interface):
    (tmp_path / "cover.jpg").write_bytes(PICTURE)
    done = biliup("upload", "--submit", interface, "--title", "午夜直播", "--tag", "直播,录像", "--desc", "一二三",
                  "--cover", tmp_path / "cover.jpg", clip)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = bilibili.archives
    assert [part.filename for part in archive.parts] == bilibili.filenames
    assert bilibili.sha256(bilibili.filenames[0]) == hashlib.sha256(clip.read_bytes()).hexdigest()
    assert (archive.title, archive.body["tag"]) == ("午夜直播", "直播,录像")
    assert bilibili.picture(archive.body["cover"]) == PICTURE
    assert "member.bilibili.com:443" in proxy.targets


def test_biliup_lists_shows_and_appends(bilibili, biliup, clip, tmp_path):
    second = tmp_path / "second.mp4"
    second.write_bytes(b"second" * 30_000)
    assert biliup("upload", "--line", "tx", "--title", "第一", "--tag", "直播", clip).returncode == 0
    (archive,) = bilibili.archives

    listed, shown = biliup("list"), biliup("show", archive.bvid)
    assert archive.bvid in listed.stdout
    assert "第一" in listed.stdout
    assert archive.parts[0].filename in shown.stdout

    appended = biliup("append", "--vid", archive.bvid, "--line", "tx", second)
    assert appended.returncode == 0, appended.stdout + appended.stderr
    (archive,) = bilibili.archives
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        clip.read_bytes(), second.read_bytes()]
    assert archive.title == "第一"


def test_biliup_renews_its_tokens(bilibili, biliup, tmp_path):
    before = json.loads((tmp_path / "cookies.json").read_text())["token_info"]["access_token"]
    bilibili.ask_for_refresh()
    done = biliup("renew")
    after = json.loads((tmp_path / "cookies.json").read_text())["token_info"]["access_token"]
    assert done.returncode == 0, done.stdout + done.stderr
    assert after == bilibili.accounts.get(10001).access_token != before


def test_biliup_is_told_that_it_is_logged_out(bilibili, biliup, clip):
    bilibili.expire_login()
    assert biliup("upload", "--title", "x", "--tag", "y", clip).returncode != 0
    assert bilibili.archives == []


def test_biliup_makes_a_second_archive_after_a_lost_answer_and_the_stand_in_counts_it(bilibili, biliup, clip):
    bilibili.same_title_seconds = 0
    bilibili.lose_submit_answer()
    arguments = ("upload", "--line", "tx", "--title", "一次", "--tag", "直播", clip)
    assert biliup(*arguments).returncode != 0
    assert len(bilibili.archives) == 1
    assert biliup(*arguments).returncode == 0
    assert len(bilibili.archives) == 2
