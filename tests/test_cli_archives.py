"""append, list and show, how far an upload is, the way through a proxy, and the main command's help."""

import contextlib
import json
import os
import pty
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cli_stand_in import CHUNK, bvid_of
from support import wait_until

sys.path.insert(0, str(Path(__file__).parent / "publish"))

from connect_proxy import HOSTS, ConnectProxy

from biliupd import cli
from biliupd.cli import progress as cli_progress
from biliupd.cli.upload import vid_of
from biliupd.publish.upos import Progress as Sent

pytest_plugins = ["cli_stand_in"]


# -- append, list, show ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["first", "--vid", "address", "av"])
def test_files_are_appended_and_all_else_stays(biliupd, bilibili, config, film, tmp_path, how):
    second = tmp_path / "second.mp4"
    second.write_bytes(b"second" * 30_000)
    bvid = bvid_of(biliupd("upload", "-c", config, "--up-close-reply", "--title", "t", film))
    (archive,) = bilibili.archives
    words = {"first": [bvid], "--vid": ["--vid", bvid], "av": [f"AV{archive.aid}"],
             "address": [f"https://www.bilibili.com/video/{bvid}/?p=1"]}[how]
    assert bvid_of(biliupd("append", "-c", config, *words, second)) == bvid
    assert [part.title for part in archive.parts] == ["clip 直播", "second"]
    assert (archive.title, archive.body["up_close_reply"], archive.edits) == ("t", True, 1)
    assert "nothing was sent" in biliupd("append", "-c", config, *words, second).stderr
    assert archive.edits == 1


def test_an_unknown_submission_is_refused_before_a_byte_is_sent(biliupd, bilibili, film):
    for words in (["append", "BV1xx411c7mD", film], ["show", "BV1xx411c7mD"]):
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


@pytest.mark.parametrize("wrong", ['"aid": 1e999, "ctime": 1', '"aid": 1, "ctime": NaN', '"aid": {}, "ctime": 1'])
def test_a_list_of_impossible_numbers_is_no_list(biliupd, bilibili, wrong):
    entries = '[{"Archive": {"bvid": "BV1xx411c7mD", ' + wrong + "}}]"
    page = '{"code": 0, "data": {"arc_audits": ' + entries + ', "page": {"count": 1}}}'
    bilibili.fail("archives", 200, page.encode())
    assert "an answer that cannot be used" in biliupd("list").stderr


@pytest.mark.parametrize("archive", ['{"aid": 1e999}', '{"aid": 1, "copyright": [1], "ctime": {}, "dtime": "x"}'])
def test_a_view_of_wrong_types_shows_what_there_is(biliupd, bilibili, archive):
    bilibili.fail("view", 200, b'{"code": 0, "data": {"archive": %s, "videos": null}}' % archive.encode())
    result = biliupd("show", "BV1xx411c7mD")
    assert "an answer that cannot be used" in result.stderr or "aid:        1\n" in result.stdout


# -- how far it is --------------------------------------------------------------------------------------------------

def test_without_a_terminal_a_line_now_and_then_says_how_far_it_is(biliupd, bilibili, config, film, monkeypatch):
    monkeypatch.setattr(cli_progress, "LINE_SECONDS", 0.3)
    bilibili.slow(CHUNK * 2)
    result = biliupd("upload", "-c", config, "--limit", "1", film)
    lines = [line for line in result.stderr.splitlines() if line.startswith("clip 直播.mp4: ")]
    assert 2 <= len(lines) <= 9
    assert re.fullmatch(r"clip 直播.mp4: \d+ % of 256.8 KiB, [\d.]+ [KM]?i?B/s(, \d:\d\d left)?, line tx", lines[0])
    assert lines[-1] == "clip 直播.mp4: 100 % of 256.8 KiB, line tx"
    assert sum("100 %" in line for line in lines) == 1


def test_a_terminal_shows_bars_and_no_escape_of_a_file_name(bilibili, config, tmp_path):
    path = tmp_path / "a\x1b[31m[bold]b.mp4"
    path.write_bytes(os.urandom(4 * CHUNK))
    bilibili.slow(CHUNK * 4)
    master, slave = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, "-m", "biliupd", "upload", "-c", str(config), str(path)],
                               stdout=subprocess.PIPE, stderr=slave, env=environment, text=True)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal's end
        while block := os.read(master, 65536):
            shown += block
    os.close(master)
    out, _ = process.communicate()
    assert (process.returncode, out.strip()) == (0, bilibili.archives[0].bvid)
    assert "a[31m[bold]b.mp4" in shown.decode()
    assert "━" in shown.decode()
    assert "100 % of 256.0 KiB, line tx" in shown.decode()


@pytest.mark.parametrize(("sent", "text"), [
    (Sent(0, 2**30, 0.0, None, "tx"), "0 % of 1.00 GiB, 0 B/s, line tx"),
    (Sent(2**29, 2**30, 2.5 * 2**20, 75.4, "bda2"), "50 % of 1.00 GiB, 2.5 MiB/s, 1:15 left, line bda2"),
    (Sent(5, 5, 1.0, 0.0, "tx"), "100 % of 5 B, line tx"),
])
def test_how_far_it_is_fits_a_few_words(sent, text):
    assert cli_progress.facts(sent) == text


# -- the way there --------------------------------------------------------------------------------------------------

@pytest.fixture
def proxy(bilibili, tmp_path):
    """Leads every host to the stand-in; its certificates are believed by whoever believes ca.pem."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    authority.issue_cert(*HOSTS).configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    host, _, port = bilibili.address.rpartition(":")
    proxy = ConnectProxy(context, (host, int(port)))
    yield proxy
    proxy.close()


def test_everything_goes_through_the_proxy_and_is_verified_by_the_given_certificate(bilibili, proxy, film, tmp_path):
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8", "HTTPS_PROXY": proxy.url,
        "PYTHONPATH": str(Path(__file__).parents[1])}

    def run(*words, **more):
        return subprocess.run([sys.executable, "-m", "biliupd", *map(str, words)], env=environment | more, cwd=tmp_path,
                              capture_output=True, text=True, timeout=60, check=False)

    config = tmp_path / "once.yaml"
    config.write_text("publish: {attempts: 1}\naccounts: {one: {cookies: cookies.json}}\n")
    refused = run("upload", "-c", config, film)
    assert (refused.returncode, "CERTIFICATE_VERIFY_FAILED" in refused.stderr) == (75, True)
    assert bilibili.requests == []
    done = run("upload", film, SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == bilibili.archives[0].bvid
    listed = run("list", REQUESTS_CA_BUNDLE=str(tmp_path / "ca.pem"))
    assert done.stdout.strip() in listed.stdout
    assert {"member.bilibili.com:443", "api.bilibili.com:443", bilibili.address} <= set(proxy.targets)
    assert (tmp_path / "home" / ".local" / "state" / "biliupd" / "uploads").stat().st_mode & 0o777 == 0o700


# -- the main command -----------------------------------------------------------------------------------------------

def test_the_help_says_of_every_command_what_it_says_itself():
    for name, (_, text) in cli.COMMANDS.items():
        command = cli.main.get_command(None, name)
        assert (command.name, command.help.split("\n\n")[0].replace("\n", " ")) == (name, text)


def test_an_error_is_an_object_too_when_objects_are_wanted(biliupd, bilibili):
    for words in (["list", "-u", "none.json"], ["show", "-u", "none.json", "av1"]):
        result = biliupd(*words, "--json")
        assert (result.exit_code, json.loads(result.stdout)["exit_code"]) == (77, 77)


def test_a_list_that_is_stopped_says_so_by_its_code(begin, bilibili):
    bilibili.stall("archives", 30)
    process = begin("list")
    wait_until(lambda: "archives" in bilibili.under_way)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "Traceback" not in process.stderr.read()


def test_the_help_imports_nothing_it_does_not_need():
    code = ("import sys\nfrom biliupd.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
            "sys.exit(bool({'requests', 'rich', 'biliupd.cli.upload'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
