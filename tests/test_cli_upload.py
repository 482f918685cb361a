"""upload, append, list and show: what a script sends, reads and may conclude from the exit code."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from support import wait_until

sys.path.insert(0, str(Path(__file__).parent / "publish"))

from connect_proxy import HOSTS, ConnectProxy

from biliupd import cli
from biliupd.cli_upload import FLAGS, vid_of
from biliupd.publish.manners import Standing, StandingFile
from biliupd.rehearsal.bilibili import Bilibili

PICTURE = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
CHUNK = 64 * 1024
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
             "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture
def bilibili(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    server = Bilibili(tmp_path / "bilibili")
    server.chunk_size_bytes = CHUNK
    server.chunk_retry_delay = 0.02
    server.submit_interval_seconds = server.same_title_seconds = 0
    server.lines = {"tx": 0.0}
    server.start()
    server.write_cookies(tmp_path / "cookies.json")
    yield server
    server.close()


@pytest.fixture
def clip(tmp_path):
    """Five parts, the last one short."""
    path = tmp_path / "clip 直播.mp4"
    path.write_bytes(os.urandom(4 * CHUNK + 777))
    return path


@pytest.fixture
def config(bilibili, tmp_path):
    """A configuration that leads to the stand-in, without pauses."""
    path = tmp_path / "config.yaml"
    path.write_text(f"publish: {{passport_url: {bilibili.url}, api_url: {bilibili.url}, member_url: {bilibili.url}, "
                    "timeout_seconds: 5, attempts: 1, submit_interval_seconds: 0}\n"
                    "accounts: {one: {cookies: cookies.json}}\n")
    return path


def urls(bilibili):
    return [word for name in ("member", "passport", "api") for word in (f"--{name}-url", bilibili.url)]


@pytest.fixture
def biliupd(bilibili):
    """Runs the command in this process against the stand-in."""

    def run(*words):
        command, *rest = map(str, words)
        return CliRunner().invoke(cli.main, [command, *urls(bilibili), *rest], catch_exceptions=False)

    return run


@pytest.fixture
def begin(bilibili, tmp_path):
    """Starts it as a process of its own."""
    running = []

    def run(*words):
        command, *rest = map(str, words)
        running.append(subprocess.Popen([sys.executable, "-m", "biliupd", command, *urls(bilibili), *rest],
                                        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.communicate()


def bvid_of(result):
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def routes(bilibili, *names):
    return [request.route for request in bilibili.requests if request.route in names]


# -- publishing -----------------------------------------------------------------------------------------------------

def test_a_file_without_options_is_published_and_only_its_bvid_is_on_standard_output(biliupd, bilibili, clip):
    bvid = bvid_of(biliupd("upload", clip))
    (archive,) = bilibili.archives
    assert (archive.bvid, archive.title, archive.body["tag"], archive.body["tid"]) == (
        bvid, "clip 直播", "直播录像", 171)
    assert (archive.body["copyright"], archive.body["no_reprint"], archive.body["dtime"]) == (1, 0, None)
    assert [part.title for part in archive.parts] == ["clip 直播"]
    assert bilibili.stored(archive.parts[0].filename).read_bytes() == clip.read_bytes()


def test_every_option_arrives(biliupd, bilibili, clip, tmp_path):
    (tmp_path / "cover.jpg").write_bytes(PICTURE)
    dtime = int(time.time()) + 6 * 3600
    result = biliupd(
        "upload", "--submit", "web", "--line", "tx", "--limit", "2", "--title", "午夜 {直播}", "--desc", "一 {二}",
        "--tag", "直播，录像,b", "--tid", 17, "--tid-v2", 2064, "--copyright", 2, "--source", "https://x.test/{1}",
        "--cover", tmp_path / "cover.jpg", "--dynamic", "动态{}", "--dtime", dtime, "--interactive", "1", "--dolby",
        "--hires", "1", "--no-reprint", "1", "--is-only-self", "--charging-pay", "1", "--up-selection-reply",
        "--up-close-reply", "--up-close-danmu", "--extra-fields", '{"human_type2": 1008, "topic_id": 5}', clip)
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


def test_a_login_by_cookies_alone_submits_by_the_web(biliupd, bilibili, clip, tmp_path):
    content = json.loads((tmp_path / "cookies.json").read_text())
    (tmp_path / "web.json").write_text(json.dumps({**content, "token_info": None}))
    assert biliupd("upload", "--submit", "app", "-u", "web.json", clip).exit_code == 77
    bvid_of(biliupd("upload", "-u", "web.json", clip))
    assert [request.path for request in bilibili.requests if request.route == "submit"] == ["/x/vu/web/add/v3"]


def test_the_login_is_taken_before_the_command_too(bilibili, clip, tmp_path):
    (tmp_path / "cookies.json").rename(tmp_path / "other.json")
    result = CliRunner().invoke(cli.main, ["-u", "other.json", "upload", *urls(bilibili), str(clip)])
    assert bvid_of(result) == bilibili.archives[0].bvid


def test_a_configuration_gives_login_and_addresses(bilibili, config, clip):
    result = CliRunner().invoke(cli.main, ["upload", "-c", str(config), str(clip)])
    assert bvid_of(result) == bilibili.archives[0].bvid


# -- once, and going on ---------------------------------------------------------------------------------------------

def test_what_is_published_is_not_sent_again_unless_asked_for(biliupd, bilibili, config, clip):
    bvid = bvid_of(biliupd("upload", "-c", config, clip))
    before = len(bilibili.requests)
    again = biliupd("upload", "-c", config, "--json", clip)
    assert (again.exit_code, json.loads(again.stdout)["bvid"], json.loads(again.stdout)["already"]) == (0, bvid, True)
    assert "nothing was sent" in again.stderr
    assert len(bilibili.requests) == before
    assert bvid_of(biliupd("upload", "-c", config, "--again", clip)) != bvid
    assert len(bilibili.archives) == 2


def test_a_file_that_changed_is_published_anew(biliupd, bilibili, config, clip):
    bvid_of(biliupd("upload", "-c", config, clip))
    clip.write_bytes(b"other")
    result = biliupd("upload", "-c", config, clip)
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
    (archive,) = bilibili.archives
    assert bvid_of(result) == archive.bvid
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        first.read_bytes(), second.read_bytes()]
    assert bilibili.chunks_seen[:len(before)] == before
    assert 0 < len(bilibili.chunks_seen[len(before):]) <= 6
    assert routes(bilibili, "init") == ["init"] * 2


def test_a_run_that_was_killed_before_the_submit_only_submits(biliupd, begin, bilibili, clip, tmp_path):
    standing = StandingFile(tmp_path / "cookies.json")
    standing.write(Standing(submits=(time.time(),)))
    process = begin("upload", clip)
    for line in process.stderr:
        if "submitting in" in line:
            break
    process.kill()
    process.wait()
    assert (bilibili.archives, len(bilibili.filenames)) == ([], 1)
    standing.write(Standing())
    bvid = bvid_of(biliupd("upload", clip))
    (archive,) = bilibili.archives
    assert (archive.bvid, [part.filename for part in archive.parts]) == (bvid, bilibili.filenames)
    assert routes(bilibili, "preupload", "complete") == ["preupload", "complete"]


def test_a_run_that_was_killed_after_the_submit_finds_what_it_made(biliupd, begin, bilibili, clip):
    bilibili.lose_submit_answer()
    process = begin("upload", clip)
    for line in process.stderr:
        if "looking whether Bilibili has it" in line:
            break
    process.kill()
    process.wait()
    bvid = bvid_of(biliupd("upload", clip))
    assert [archive.bvid for archive in bilibili.archives] == [bvid]
    assert routes(bilibili, "submit") == ["submit"]


def test_the_same_job_runs_once_at_a_time(biliupd, begin, bilibili, clip):
    bilibili.slow(CHUNK)
    process = begin("upload", clip)
    wait_until(lambda: bilibili.under_way)
    result = biliupd("upload", "--json", clip)
    assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (3, 3)
    assert "by another biliupd at this moment" in result.stderr
    process.terminate()
    assert process.wait() == 143


# -- what goes wrong ------------------------------------------------------------------------------------------------

def test_a_captcha_needs_a_person_and_until_then_nothing_is_sent(biliupd, bilibili, clip, tmp_path):
    bilibili.refuse("submit", 21566, "投稿过于频繁")
    result = biliupd("upload", "--json", clip)
    said = json.loads(result.stdout)
    assert (result.exit_code, said["exit_code"], said["retry_after_seconds"]) == (77, 77, 6 * 3600)
    assert "21566" in said["error"]
    assert "captcha" in result.stderr
    assert StandingFile(tmp_path / "cookies.json").read().strikes == 1
    before = len(bilibili.requests)
    for words in (["upload", clip], ["append", "BV1xx411c7mD", clip], ["list"], ["show", "av1"]):
        result = biliupd(*words)
        assert (result.exit_code, "keeps quiet for another" in result.stderr) == (75, True)
    assert len(bilibili.requests) == before
    StandingFile(tmp_path / "cookies.json").write(Standing())
    bvid_of(biliupd("upload", clip))
    assert (len(bilibili.archives), len(bilibili.chunks_seen)) == (1, 5)


def test_a_rest_needs_no_person(biliupd, bilibili, clip):
    bilibili.refuse("preupload", 406, "上传过快", status=406)
    assert biliupd("upload", clip).exit_code == 75


def test_a_login_that_ended_needs_a_person(biliupd, bilibili, clip):
    bilibili.expire_login()
    result = biliupd("upload", clip)
    assert result.exit_code == 77
    assert "biliupd login" in result.stderr
    assert biliupd("upload", "-u", "none.json", clip).exit_code == 77


def test_a_network_that_fails_is_for_later_and_so_it_says(bilibili, config, clip):
    bilibili.fail("preupload", 502, times=99)
    result = CliRunner().invoke(cli.main, ["upload", "-c", str(config), str(clip)])
    assert result.exit_code == 75
    assert "502" in result.stderr


def test_what_nobody_knows_has_a_code_of_its_own(bilibili, config, clip):
    bilibili.lose_submit_answer()
    bilibili.fail("archives", 502, times=1)
    config.write_text(config.read_text().replace("attempts: 1", "attempts: 1, lookup_seconds: 1"))
    words = ["upload", "-c", str(config), str(clip)]
    result = CliRunner().invoke(cli.main, words)
    assert result.exit_code == 76
    assert "it looks first" in result.stderr
    assert bvid_of(CliRunner().invoke(cli.main, words)) == bilibili.archives[0].bvid
    assert routes(bilibili, "submit") == ["submit"]


def test_files_that_cannot_be_uploaded_are_all_named_before_anything_is_sent(biliupd, bilibili, clip, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    result = biliupd("upload", "missing.mp4", "empty.mp4", "folder", "pipe", clip, clip, "--cover", "nothing.jpg")
    assert result.exit_code == 1
    for text in ("missing.mp4: No such file", "empty.mp4: empty", "folder: a directory", "pipe: not a regular file",
                 "clip 直播.mp4: named twice"):
        assert text in result.stderr
    assert "nothing.jpg: No such file" in biliupd("upload", clip, "--cover", "nothing.jpg").stderr
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
def test_a_wrong_option_is_named_before_anything_is_sent(biliupd, bilibili, clip, words, said):
    result = biliupd("upload", *words, clip)
    assert (result.exit_code, said in result.stderr) == (2 if words[0] != "--dolby" else 1, True), result.stderr
    assert bilibili.requests == []


# -- append, list, show ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["first", "--vid", "address", "av"])
def test_files_are_appended_and_all_else_stays(biliupd, bilibili, config, clip, tmp_path, how):
    second = tmp_path / "second.mp4"
    second.write_bytes(b"second" * 30_000)
    bvid = bvid_of(biliupd("upload", "-c", config, "--up-close-reply", "--title", "t", clip))
    (archive,) = bilibili.archives
    words = {"first": [bvid], "--vid": ["--vid", bvid], "av": [f"AV{archive.aid}"],
             "address": [f"https://www.bilibili.com/video/{bvid}/?p=1"]}[how]
    assert bvid_of(biliupd("append", "-c", config, *words, second)) == bvid
    assert [part.title for part in archive.parts] == ["clip 直播", "second"]
    assert (archive.title, archive.body["up_close_reply"], archive.edits) == ("t", True, 1)
    assert "nothing was sent" in biliupd("append", "-c", config, *words, second).stderr
    assert archive.edits == 1


def test_an_unknown_submission_is_refused_before_a_byte_is_sent(biliupd, bilibili, clip):
    for words in (["append", "BV1xx411c7mD", clip], ["show", "BV1xx411c7mD"]):
        result = biliupd(*words)
        assert (result.exit_code, "10003" in result.stderr) == (1, True)
    assert bilibili.chunks_seen == []


@pytest.mark.parametrize(("text", "vid"), [
    ("BV1xx411c7mD", "BV1xx411c7mD"), ("bv1xx411c7mD", "BV1xx411c7mD"), ("AV17", "av17"),
    ("https://www.bilibili.com/video/BV1xx411c7mD", "BV1xx411c7mD"), ("https://m.bilibili.com/video/av17?p=2", "av17"),
])
def test_a_submission_is_named_in_several_ways(text, vid):
    assert vid_of(text) == vid


@pytest.mark.parametrize("words", [["append", "clip.mp4", "b.mp4"], ["show", "17"], ["append", "BV1xx411c7mD"],
                                   ["show", "https://evil.test/video/BV1xx411c7mD"]])
def test_what_names_no_submission_is_wrong_usage(biliupd, bilibili, words):
    assert biliupd(*words).exit_code == 2
    assert bilibili.requests == []


def test_list_and_show_tell_how_it_stands(biliupd, bilibili, config, tmp_path):
    bvids = []
    for number in range(2):
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(b"x")
        bvids.append(bvid_of(biliupd("upload", "-c", config, "--tag", "a,b", path)))
    bilibili.set_state(bvids[0], -2, "画面\x1b[31m模糊")
    listed = biliupd("list")
    assert [line.split("\t")[0] for line in listed.stdout.splitlines()] == bvids[::-1]
    assert "打回\t0\t画面[31m模糊" in listed.stdout
    assert biliupd("list", "--pubed").stdout.startswith(bvids[1])
    assert json.loads(biliupd("list", "--not-pubed", "--json").stdout)["archives"][0]["bvid"] == bvids[0]
    assert biliupd("list", "--is-pubing").stdout == ""
    assert biliupd("list", "--from-page", "2").stdout == ""
    assert len(biliupd("list", "--max-pages", "1").stdout.splitlines()) == 2

    shown = biliupd("show", bvids[0]).stdout
    filename = bilibili.archives[0].parts[0].filename
    for text in (bvids[0], "title:      0\n", "打回 (-2)", "a,b", filename):
        assert text in shown
    content = json.loads(biliupd("show", "--json", bvids[0]).stdout)
    assert (content["archive"]["bvid"], content["videos"][0]["filename"]) == (bvids[0], filename)


# -- the way there --------------------------------------------------------------------------------------------------

def test_everything_goes_through_the_proxy_and_is_verified_by_the_given_certificate(bilibili, clip, tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(*HOSTS).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    host, _, port = bilibili.address.rpartition(":")
    proxy = ConnectProxy(context, (host, int(port)))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", "HTTPS_PROXY": proxy.url,
        "PYTHONPATH": str(Path(__file__).parents[1])}

    def run(*words, **more):
        return subprocess.run([sys.executable, "-m", "biliupd", *map(str, words)], env=environment | more, cwd=tmp_path,
                              capture_output=True, text=True, timeout=60, check=False)

    try:
        config = tmp_path / "once.yaml"
        config.write_text("publish: {attempts: 1}\naccounts: {one: {cookies: cookies.json}}\n")
        refused = run("upload", "-c", config, clip)
        assert (refused.returncode, "CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (75, True)
        assert bilibili.requests == []
        done = run("upload", clip, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == bilibili.archives[0].bvid
        listed = run("list", REQUESTS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    finally:
        proxy.close()
    assert done.stdout.strip() in listed.stdout
    assert {"member.bilibili.com:443", "api.bilibili.com:443", bilibili.address} <= set(proxy.targets)
    assert (tmp_path / "home" / ".local" / "state" / "biliupd" / "uploads").stat().st_mode & 0o777 == 0o700


# -- the main command -----------------------------------------------------------------------------------------------

def test_the_help_says_of_every_command_what_it_says_itself():
    for name, (_, text) in cli.ELSEWHERE.items():
        command = cli.main.get_command(None, name)
        assert (command.name, command.help.split("\n\n")[0].replace("\n", " ")) == (name, text)


def test_the_help_imports_nothing_it_does_not_need():
    code = ("import sys\nfrom biliupd.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
            "sys.exit(bool({'requests', 'rich', 'biliupd.cli_upload'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
