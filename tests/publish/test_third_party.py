"""The real biliup 1.2.9 works against the stand-in, so what the stand-in demands is what Bilibili's clients send."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from connect_proxy import ConnectProxy
from support import wait_until

from biliupd.rehearsal.bilibili import Bilibili
from biliupd.rehearsal.bilibili_faults import FOR_EVER

PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


@pytest.fixture
def biliup_begins(
    biliup_program: Path, bilibili: Bilibili, proxy: ConnectProxy, ca_file: Path, tmp_path: Path,
) -> Iterator[Callable]:
    """Starts biliup with the login of account 10001; whatever still runs when the test ends is killed."""
    cookies = bilibili.write_cookies(tmp_path / "cookies.json")
    running: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object) -> subprocess.Popen[bytes]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "share"),
                       "HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(ca_file), "LANG": "C.UTF-8"}
        running.append(subprocess.Popen(
            [str(biliup_program), "-u", str(cookies), *map(str, arguments)], env=environment, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


def seen(bilibili: Bilibili, *names: str) -> list[str]:
    """Routes in the order of their requests, only those named."""
    return [request.route for request in bilibili.requests if request.route in names]


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


def test_biliup_sends_the_newer_fields_and_keeps_them_when_it_appends(bilibili, biliup, clip, tmp_path):
    second = tmp_path / "second.mp4"
    second.write_bytes(b"second" * 30_000)
    newer = {"human_type2": 1008, "topic_id": 1234, "recreate": -1, "neutral_mark": "个人观点",
             "creation_statement": {"id": 2}}
    done = biliup(
        "upload", "--line", "tx", "--title", "新", "--tag", "直播", "--tid", "17", "--tid-v2", "2064", "--hires", "1",
        "--no-reprint", "1", "--up-close-reply", "--up-close-danmu", "--dynamic", "动态",
        "--dtime", int(time.time()) + 5 * 3600, "--extra-fields", json.dumps(newer), clip)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = bilibili.archives
    sent = {**newer, "tid": 17, "tid_v2": 2064, "lossless_music": 1, "no_reprint": 1, "up_close_reply": True,
            "up_close_danmu": True, "dynamic": "动态", "dtime": archive.body["dtime"]}
    assert {name: archive.body[name] for name in sent} == sent
    assert archive.state(0) == -40

    appended = biliup("append", "--vid", archive.bvid, "--line", "tx", second)
    assert appended.returncode == 0, appended.stdout + appended.stderr
    assert (archive.edits, len(archive.parts)) == (1, 2)
    assert {name: archive.body[name] for name in sent} == sent
    assert "limited_free" not in archive.body


def test_biliup_appends_to_what_was_rejected_by_the_web_too(bilibili, biliup, clip, tmp_path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"more {number}.mp4")
        files[-1].write_bytes(os.urandom(100_000))
    assert biliup("upload", "--line", "tx", "--title", "第一", "--tag", "直播", clip).returncode == 0
    (archive,) = bilibili.archives
    bilibili.set_state(archive.bvid, -2, "画面模糊")
    assert archive.bvid in biliup("list", "--not-pubed").stdout
    assert archive.bvid not in biliup("list", "--pubed").stdout
    done = biliup("append", "--submit", "web", "--vid", archive.bvid, "--line", "tx", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        path.read_bytes() for path in (clip, *files)]
    assert archive.bvid in biliup("list", "--pubed").stdout


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


# What biliup 1.2.9 is known to do when something goes wrong; that it does the same here says that the faults are real.


@pytest.mark.parametrize("fault", ["503", "reset"])
def test_biliup_sends_a_part_again_that_failed(bilibili, biliup, clip, fault):
    if fault == "503":
        bilibili.fail("put", 503, part=2, line="tx")
    else:
        bilibili.drop_connection(on_chunk=2, line="tx")
    done = biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(bilibili.chunks_seen) == [1, 2, 2, 3, 4, 5]
    assert bilibili.stored(bilibili.filenames[0]).read_bytes() == clip.read_bytes()


def test_biliup_goes_on_with_a_ticket_that_is_not_accepted_any_more(bilibili, biliup_begins, clip):
    bilibili.stall("put", 0.5, times=FOR_EVER)
    biliup_begins("upload", "--line", "tx", "--limit", "1", "--title", "x", "--tag", "y", clip)
    wait_until(lambda: "put" in bilibili.under_way)
    bilibili.expire_tickets()
    wait_until(lambda: len(bilibili.chunks_seen) >= 2)
    refused = [request for request in bilibili.requests if request.route == "put"]
    assert {request.status for request in refused} == {403}
    assert len({request.headers["x-upos-auth"] for request in refused}) == 1
    assert seen(bilibili, "preupload") == ["preupload"]


def test_biliup_completes_a_second_time_after_an_error(bilibili, biliup, clip):
    bilibili.fail("complete", 500, {"error": "InternalError", "http_code": 500})
    done = biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen(bilibili, "complete", "submit") == ["complete", "complete", "submit"]


def test_biliup_gives_up_an_object_that_is_not_ok_after_three_tries(bilibili, biliup, clip):
    bilibili.fail("complete", 200, {"OK": 0}, times=FOR_EVER)
    assert biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip).returncode == 1
    assert seen(bilibili, "preupload", "complete", "submit") == ["preupload", *["complete"] * 3]
    assert bilibili.archives == []


def test_biliup_waits_a_few_seconds_when_preupload_says_601_with_an_http_error(bilibili, biliup, clip):
    bilibili.refuse("preupload", 601, "上传视频过快", status=403)
    done = biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen(bilibili, "preupload") == ["preupload"] * 2


@pytest.mark.parametrize("fault", ["601 with HTTP 200", "406", "503", "412"])
def test_biliup_fails_at_once_when_preupload_refuses(bilibili, biliup, clip, fault):
    {
        "601 with HTTP 200": lambda: bilibili.refuse("preupload", 601, "上传视频过快", voucher="voucher_1"),
        "406": lambda: bilibili.refuse("preupload", 406, "uploading too fast, take a rest", status=406),
        "503": lambda: bilibili.fail("preupload", 503),
        "412": lambda: bilibili.intercept("preupload"),
    }[fault]()
    done = biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    assert done.returncode == 1
    assert seen(bilibili, "preupload", "init", "submit") == ["preupload"]


@pytest.mark.parametrize("code", [21566, 601, 137022])
def test_biliup_loses_what_it_uploaded_when_its_submission_is_refused(bilibili, biliup, clip, tmp_path, code):
    bilibili.refuse("submit", code, "投稿过于频繁")
    arguments = ("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    done = biliup(*arguments)
    assert done.returncode == 1
    assert str(code) in done.stdout
    assert not list((tmp_path / "share").rglob("*checkpoint*"))
    assert biliup(*arguments).returncode == 0
    assert (len(bilibili.filenames), len(bilibili.archives)) == (2, 1)


def test_biliup_refreshes_its_login_when_it_is_told_to_and_then_uploads(bilibili, biliup, clip, tmp_path):
    before = json.loads((tmp_path / "cookies.json").read_text())["token_info"]["access_token"]
    bilibili.ask_for_refresh()
    done = biliup("upload", "--line", "tx", "--title", "x", "--tag", "y", clip)
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen(bilibili, "info", "refresh", "submit") == ["info", "refresh", "submit"]
    assert json.loads((tmp_path / "cookies.json").read_text())["token_info"]["access_token"] != before


def test_biliup_killed_in_a_file_begins_that_file_again_and_skips_the_finished_one(
    bilibili, biliup_begins, biliup, clip, tmp_path,
):
    second = tmp_path / "second.mp4"
    second.write_bytes(os.urandom(200_000))
    arguments = ("upload", "--line", "tx", "--limit", "1", "--title", "x", "--tag", "y", clip, second)
    bilibili.stall("put", 60, times=FOR_EVER, skip=7)
    begun = biliup_begins(*arguments)
    wait_until(lambda: len(bilibili.chunks_seen) == 7 and "put" in bilibili.under_way)
    begun.kill()
    begun.wait()
    bilibili.heal()
    done = biliup(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [request.query["name"] for request in bilibili.requests if request.route == "preupload"] == [
        clip.name, second.name, second.name]
    (archive,) = bilibili.archives
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        clip.read_bytes(), second.read_bytes()]
