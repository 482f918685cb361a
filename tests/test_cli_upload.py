"""upload: what a script sends, reads and may conclude from the exit code, and what a second run does."""

import json
import os
import re
import signal
import time

import pytest
from cli_stand_in import CHUNK, bvid_of, routes, urls
from click.testing import CliRunner
from support import wait_until

from biliupd import cli
from biliupd.cli.upload import FLAGS
from biliupd.publish.manners import Standing, StandingFile

pytest_plugins = ["cli_stand_in"]
PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


# -- publishing -----------------------------------------------------------------------------------------------------

def test_a_file_without_options_is_published_and_only_its_bvid_is_on_standard_output(biliupd, bilibili, film):
    bvid = bvid_of(biliupd("upload", film))
    (archive,) = bilibili.archives
    assert (archive.bvid, archive.title, archive.body["tag"], archive.body["tid"]) == (
        bvid, "clip 直播", "直播录像", 171)
    assert (archive.body["copyright"], archive.body["no_reprint"], archive.body["dtime"]) == (1, 0, None)
    assert [part.title for part in archive.parts] == ["clip 直播"]
    assert bilibili.stored(archive.parts[0].filename).read_bytes() == film.read_bytes()


def test_every_option_arrives(biliupd, bilibili, film, tmp_path):
    (tmp_path / "cover.jpg").write_bytes(PICTURE)
    dtime = int(time.time()) + 6 * 3600
    result = biliupd(
        "upload", "--submit", "web", "--line", "tx", "--limit", "2", "--title", "午夜 {直播}", "--desc", "一 {二}",
        "--tag", "直播，录像,b", "--tid", 17, "--tid-v2", 2064, "--copyright", 2, "--source", "https://x.test/{1}",
        "--cover", tmp_path / "cover.jpg", "--dynamic", "动态{}", "--dtime", dtime, "--interactive", "1", "--dolby",
        "--hires", "1", "--no-reprint", "1", "--is-only-self", "--charging-pay", "1", "--up-selection-reply",
        "--up-close-reply", "--up-close-danmu", "--extra-fields", '{"human_type2": 1008, "topic_id": 5}', film)
    assert result.exit_code == 0, result.output
    (archive,) = bilibili.archives
    expected = {
        "title": "午夜 {直播}", "desc": "一 {二}", "tag": "直播,录像,b", "tid": 17, "tid_v2": 2064, "copyright": 2,
        "source": "https://x.test/{1}", "dynamic": "动态{}", "dtime": dtime, "interactive": 1, "dolby": 1,
        "lossless_music": 1, "no_reprint": 1, "is_only_self": 1, "charging_pay": 1, "up_selection_reply": True,
        "up_close_reply": True, "up_close_danmu": True, "human_type2": 1008, "topic_id": 5}
    assert {name: archive.body[name] for name in expected} == expected
    assert bilibili.picture(archive.body["cover"]) == PICTURE
    assert [request.path for request in bilibili.requests if request.route == "submit"] == ["/x/vu/web/add/v3"]


@pytest.mark.parametrize("name", FLAGS)
def test_a_switch_is_understood_with_and_without_a_number(biliupd, bilibili, config, tmp_path, name):
    field = {"--hires": "lossless_music"}.get(name, name[2:].replace("-", "_"))
    for number, words in enumerate([[name], [name, "1"], [name, "0"], [f"{name}=1"], []]):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"x")
        bvid_of(biliupd("upload", "-c", config, *words, path))
    assert [archive.body[field] for archive in bilibili.archives] == [1, 1, 0, 1, 0]


def test_the_parts_of_several_files_are_in_their_order(biliupd, bilibili, tmp_path):
    files = [tmp_path / name for name in ("b.mp4", "a.mp4", "c.mp4")]
    for path in files:
        path.write_bytes(path.name.encode())
    result = biliupd("upload", "--json", "--title", "three", *files)
    assert result.exit_code == 0, result.output
    (archive,) = bilibili.archives
    assert [part.title for part in archive.parts] == ["b", "a", "c"]
    assert json.loads(result.stdout) == {
        "bvid": archive.bvid, "aid": archive.aid, "url": f"https://www.bilibili.com/video/{archive.bvid}",
        "already": False, "exit_code": 0, "parts": [
            {"file": str(path), "title": part.title, "filename": part.filename, "cid": part.cid}
            for path, part in zip(files, archive.parts, strict=True)]}


def test_a_login_by_cookies_alone_submits_by_the_web(biliupd, bilibili, film, tmp_path):
    content = json.loads((tmp_path / "cookies.json").read_text())
    (tmp_path / "web.json").write_text(json.dumps({**content, "token_info": None}))
    assert biliupd("upload", "--submit", "app", "-u", "web.json", film).exit_code == 77
    bvid_of(biliupd("upload", "-u", "web.json", film))
    assert [request.path for request in bilibili.requests if request.route == "submit"] == ["/x/vu/web/add/v3"]


def test_the_login_is_taken_before_the_command_too(bilibili, film, tmp_path):
    (tmp_path / "cookies.json").rename(tmp_path / "other.json")
    result = CliRunner().invoke(cli.main, ["-u", "other.json", "upload", *urls(bilibili), str(film)])
    assert bvid_of(result) == bilibili.archives[0].bvid


def test_a_configuration_gives_login_and_addresses(bilibili, config, film):
    result = CliRunner().invoke(cli.main, ["upload", "-c", str(config), str(film)])
    assert bvid_of(result) == bilibili.archives[0].bvid


# -- once, and going on ---------------------------------------------------------------------------------------------

def test_what_is_published_is_not_sent_again_unless_asked_for(biliupd, bilibili, config, film):
    bvid = bvid_of(biliupd("upload", "-c", config, film))
    before = len(bilibili.requests)
    again = biliupd("upload", "-c", config, "--json", film)
    assert (again.exit_code, json.loads(again.stdout)["bvid"], json.loads(again.stdout)["already"]) == (0, bvid, True)
    assert "nothing was sent" in again.stderr
    assert len(bilibili.requests) == before
    assert bvid_of(biliupd("upload", "-c", config, "--again", film)) != bvid
    assert len(bilibili.archives) == 2


def test_a_file_that_changed_is_published_anew(biliupd, bilibili, config, film):
    bvid_of(biliupd("upload", "-c", config, film))
    film.write_bytes(b"other")
    result = biliupd("upload", "-c", config, film)
    assert "has changed since" in result.stderr
    _, second = bilibili.archives
    assert (bvid_of(result), bilibili.stored(second.parts[0].filename).read_bytes()) == (second.bvid, b"other")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_ended_in_mid_file_is_gone_on_with(biliupd, begin, bilibili, tmp_path, number):
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    first.write_bytes(os.urandom(100))
    second.write_bytes(os.urandom(8 * CHUNK))
    bilibili.slow(CHUNK * 2)
    process = begin("upload", "--limit", "1", "--json", first, second)
    wait_until(lambda: len(bilibili.chunks_seen) >= 4)
    journals = tmp_path / "state" / "biliupd" / "uploads"
    wait_until(lambda: '\\"done\\":\\"1-' in next(journals.glob("*.json")).read_text())
    process.send_signal(number)
    at = time.monotonic()
    out, err = process.communicate()
    if number != signal.SIGKILL:
        assert (process.returncode, json.loads(out)["exit_code"]) == (128 + number, 128 + number)
        assert "goes on from here" in err
        assert time.monotonic() - at < 1.5
    wait_until(lambda: not bilibili.under_way)
    bilibili.heal()
    before = bilibili.chunks_seen
    result = biliupd("upload", first, second)
    assert "first.mp4: is there already" in result.stderr
    assert re.search(r"second.mp4: goes on, [2-8] of 8 pieces are there", result.stderr)
    (archive,) = bilibili.archives
    assert bvid_of(result) == archive.bvid
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        first.read_bytes(), second.read_bytes()]
    assert bilibili.chunks_seen[:len(before)] == before
    assert 0 < len(bilibili.chunks_seen[len(before):]) <= 6
    assert routes(bilibili, "init") == ["init"] * 2


def test_a_run_that_was_killed_before_the_submit_only_submits(biliupd, begin, bilibili, film, tmp_path):
    standing = StandingFile(tmp_path / "cookies.json")
    standing.write(Standing(submits=(time.time(),)))
    process = begin("upload", film)
    for line in process.stderr:
        if "submitting in" in line:
            break
    process.kill()
    process.wait()
    assert (bilibili.archives, len(bilibili.filenames)) == ([], 1)
    standing.write(Standing())
    bvid = bvid_of(biliupd("upload", film))
    (archive,) = bilibili.archives
    assert (archive.bvid, [part.filename for part in archive.parts]) == (bvid, bilibili.filenames)
    assert routes(bilibili, "preupload", "complete") == ["preupload", "complete"]


def test_a_run_that_was_killed_after_the_submit_finds_what_it_made(biliupd, begin, bilibili, film):
    bilibili.lose_submit_answer()
    process = begin("upload", film)
    for line in process.stderr:
        if "looking whether Bilibili has it" in line:
            break
    process.kill()
    process.wait()
    bvid = bvid_of(biliupd("upload", film))
    assert [archive.bvid for archive in bilibili.archives] == [bvid]
    assert routes(bilibili, "submit") == ["submit"]


def test_a_run_that_was_stopped_in_the_submit_looks_before_it_sends_anything(biliupd, begin, bilibili, film):
    bilibili.stall("submit", 1.5)
    process = begin("upload", film)
    wait_until(lambda: "submit" in bilibili.under_way)
    process.send_signal(signal.SIGINT)
    assert process.wait(1.4) == 130
    wait_until(lambda: bilibili.archives)  # it was on its way
    bvid = bvid_of(biliupd("upload", film))
    assert [archive.bvid for archive in bilibili.archives] == [bvid]
    assert routes(bilibili, "submit") == ["submit"]


def test_a_limit_of_bytes_holds(biliupd, bilibili, film):
    at = time.monotonic()
    bvid_of(biliupd("upload", "--bandwidth", "200KiB", film))
    assert time.monotonic() - at > 0.7


def test_the_same_job_runs_once_at_a_time(biliupd, begin, bilibili, film):
    bilibili.slow(CHUNK)
    process = begin("upload", film)
    wait_until(lambda: bilibili.under_way)
    result = biliupd("upload", "--json", film)
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (3, 3)
    assert "by another biliupd at this moment" in result.stderr
    process.terminate()
    assert process.wait() == 143


# -- what goes wrong ------------------------------------------------------------------------------------------------

def test_a_captcha_needs_a_person_and_until_then_nothing_is_sent(biliupd, bilibili, film, tmp_path):
    bilibili.refuse("submit", 21566, "投稿过于频繁")
    result = biliupd("upload", "--json", film)
    said = json.loads(result.stdout)
    assert (result.exit_code, said["exit_code"], said["retry_after_seconds"]) == (77, 77, 6 * 3600)
    assert "21566" in said["error"]
    assert "captcha" in result.stderr
    assert StandingFile(tmp_path / "cookies.json").read().strikes == 1
    before = len(bilibili.requests)
    for words in (["upload", film], ["append", "BV1xx411c7mD", film], ["list"], ["show", "av1"]):
        result = biliupd(*words)
        assert (result.exit_code, "keeps quiet for another" in result.stderr) == (75, True)
    assert len(bilibili.requests) == before
    StandingFile(tmp_path / "cookies.json").write(Standing())
    bvid_of(biliupd("upload", film))
    assert (len(bilibili.archives), len(bilibili.chunks_seen)) == (1, 5)


def test_a_rest_needs_no_person(biliupd, bilibili, film):
    bilibili.refuse("preupload", 406, "上传过快", status=406)
    assert biliupd("upload", film).exit_code == 75


def test_a_login_that_ended_needs_a_person(biliupd, bilibili, film):
    bilibili.expire_login()
    result = biliupd("upload", film)
    assert result.exit_code == 77
    assert "biliupd login" in result.stderr
    assert biliupd("upload", "-u", "none.json", film).exit_code == 77


def test_a_network_that_fails_is_for_later_and_so_it_says(bilibili, config, film):
    bilibili.fail("preupload", 502, times=99)
    result = CliRunner().invoke(cli.main, ["upload", "-c", str(config), str(film)])
    assert result.exit_code == 75
    assert "502" in result.stderr


def test_what_nobody_knows_has_a_code_of_its_own(bilibili, config, film):
    bilibili.lose_submit_answer()
    bilibili.fail("archives", 502, times=1)
    config.write_text(config.read_text().replace("attempts: 1", "attempts: 1, lookup_seconds: 1"))
    words = ["upload", "-c", str(config), str(film)]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 76
    assert "it looks first" in result.stderr
    assert bvid_of(CliRunner().invoke(cli.main, words)) == bilibili.archives[0].bvid
    assert routes(bilibili, "submit") == ["submit"]


def test_files_that_cannot_be_uploaded_are_all_named_before_anything_is_sent(biliupd, bilibili, film, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    result = biliupd("upload", "missing.mp4", "empty.mp4", "folder", "pipe", film, film, "--cover", "nothing.jpg")
    assert result.exit_code == 1
    for text in ("missing.mp4: No such file", "empty.mp4: empty", "folder: a directory", "pipe: not a regular file",
                 "clip 直播.mp4: named twice"):
        assert text in result.stderr
    assert "nothing.jpg: No such file" in biliupd("upload", film, "--cover", "nothing.jpg").stderr
    assert bilibili.requests == []


def test_too_many_files_are_refused_with_the_remedy(biliupd, bilibili, tmp_path):
    files = [tmp_path / f"{number}.mp4" for number in range(101)]
    for path in files:
        path.write_bytes(b"x")
    result = biliupd("upload", *files)
    assert (result.exit_code, "several submissions" in result.stderr) == (1, True)
    assert bilibili.requests == []


@pytest.mark.parametrize(("words", "said"), [
    (["--extra-fields", "{"], "--extra-fields: not JSON"),
    (["--extra-fields", "[1]"], "--extra-fields: not an object"),
    (["--extra-fields", '{"videos": []}'], "--extra-fields: videos cannot be set"),
    (["--dtime", "tomorrow"], "--dtime: a moment is written"),
    (["--dtime", "+1h"], "4 hours to 15 days"),
    (["--dtime", "1000000000"], "not within 15 days"),
    (["--dtime", "9999999999"], "not within 15 days"),
    (["--copyright", "2"], "needs source"),
    (["--copyright", "4"], "--copyright"),
    (["--tid", "game"], "--tid"),
    (["--tag", "x" * 21], "--tag"),
    (["--tag", ",".join("abcdefghijk")], "--tag"),
    (["--submit", "b-cut-android"], "not supported: take app or web"),
    (["--line", "a&b"], "--line"),
    (["--limit", "0"], "--limit"),
    (["--bandwidth", "fast"], "--bandwidth"),
    (["--member-url", "nowhere"], "--member-url"),
    (["--account", "one"], "add -c"),
    (["--dolby", "2"], "2"),
])
def test_a_wrong_option_is_named_before_anything_is_sent(biliupd, bilibili, film, words, said):
    result = biliupd("upload", *words, film)
    assert (result.exit_code, said in result.stderr) == (2 if words[0] != "--dolby" else 1, True), result.stderr
    assert bilibili.requests == []
