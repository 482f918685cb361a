"""The command line where things are not as they should be: a line and a hint, never a traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support import wait_until

from biliupd.catalog import records
from biliupd.catalog.database import Catalog
from biliupd.catalog.sync import Changes, Found, apply
from biliupd.cli import main
from biliupd.lock import DataLock, holder
from biliupd.publish.manners import Standing, StandingFile


def biliupd(tmp_path: Path, *words: str, config: str | None = None) -> Result:
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    return CliRunner().invoke(main, [*words, "-c", str(tmp_path / "config.yaml")], catch_exceptions=False)


@pytest.mark.parametrize("words", [["run"], ["run", "--detach"]])
@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("recordings: {data_directory: file/data}", "file/data cannot be used: Not a directory"),
        ("recordings: {data_directory: file}", "file cannot be used: File exists"),
    ],
)
def test_a_data_directory_that_cannot_be_used_is_named_with_the_remedy(tmp_path, words, config, place):
    (tmp_path / "file").touch()
    result = biliupd(tmp_path, *words, config=config)
    assert result.exit_code == 1
    assert f"{tmp_path}/{place}" in result.stderr
    assert "→ set recordings.data_directory to" in result.stderr


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("recordings: {directory: file/x}", ("recordings.directory", "cannot be made: Not a directory", "→ make it")),
        ("log: {file: file/x.log}", ("log.file", "cannot be written", "log.file: null")),
        ("log: {file: .}", ("log.file", "cannot be written: Is a directory")),
    ],
)
def test_what_the_daemon_cannot_write_to_is_named_with_the_remedy(tmp_path, config, words):
    (tmp_path / "file").touch()
    result = biliupd(tmp_path, "run", config=config)
    assert result.exit_code == 1
    for word in words:
        assert word in result.stderr
    assert holder(tmp_path / "data") is None


def test_check_warns_of_what_the_machine_does_not_have(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "cookies.json").write_text("[]")
    result = biliupd(
        tmp_path, "check",
        config="recordings: {directory: file/x}\naccounts: {a: {cookies: cookies.json}, b: {cookies: nowhere}}",
    )  # fmt: skip
    assert result.exit_code == 0
    assert f"recordings.directory: you may not write to {tmp_path}/file" in result.stderr
    assert "accounts.a.cookies" in result.stderr
    assert "not a JSON object; videos wait" in result.stderr
    assert "nowhere: No such file or directory; videos wait" in result.stderr


def test_stop_works_though_the_file_is_broken_meanwhile(tmp_path):
    (tmp_path / "config.yaml").write_text("recordings: {data_directory: state}")
    daemon = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from biliupd.lock import DataLock\n"
         "with DataLock(Path(sys.argv[1])): time.sleep(60)", str(tmp_path / "state")]
    )  # fmt: skip
    try:
        wait_until(lambda: holder(tmp_path / "state"))
        result = biliupd(tmp_path, "stop", config="recordings: {data_directory: state}\nstreamres: []")
        assert (result.exit_code, result.stdout) == (0, "daemon ended; 0 recordings ended\n")
        assert daemon.wait(5) == -signal.SIGTERM
    finally:
        daemon.kill()
        daemon.wait()


def test_retry_makes_no_catalog_and_takes_no_odd_numbers(tmp_path):
    result = biliupd(tmp_path, "retry", "video:1", config="")
    assert (result.exit_code, "no catalog in" in result.stderr) == (1, True)
    assert not (tmp_path / "data").exists()
    Catalog(tmp_path / "data" / "catalog.db")
    for odd in ("video:²", f"video:{'9' * 30}", "video:", "video:-1", "7"):
        result = biliupd(tmp_path, "retry", odd)
        assert (result.exit_code, "names neither" in result.stderr) == (1, True), odd


def test_a_catalog_that_is_none_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "catalog.db").write_text("hello " * 1000)
    result = biliupd(tmp_path, "status", config="")
    assert result.exit_code == 1
    assert "catalog.db is damaged: file is not a database" in result.stderr


def test_a_catalog_of_another_version_is_named_with_the_remedy(tmp_path):
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    catalog.db.execute("delete from _sqlite_migrations where name = 'publishing'")
    catalog.db.conn.commit()
    result = biliupd(tmp_path, "status", config="")
    assert result.exit_code == 1
    assert "another version of biliupd" in result.stderr
    assert "start the daemon once" in result.stderr


def test_a_name_gives_no_commands_to_the_terminal(tmp_path):
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    name = "1\x1b[2J2\x07\u202e3\n4\u30005 [red]6[/]"
    records.notice(catalog.db, "a", name)
    records.streamer_id(catalog.db, "ann", platform=name, url="")
    records.keep_streamers(catalog.db, [{
        "name": "ann", "url": "", "platform": name, "check_interval": 1, "auto_upload": 1}])
    result = biliupd(tmp_path, "status", config="")
    assert result.stdout.count("1[2J23 4 5 [red]6[/]") == 2


def test_a_cookies_file_that_others_can_read_is_said(tmp_path):
    cookies = [{"name": name, "value": "x" * 20} for name in ("SESSDATA", "bili_jct")]
    path = tmp_path / "cookies.json"
    path.write_text(json.dumps({"cookie_info": {"cookies": cookies}}))
    os.chmod(path, 0o644)
    result = biliupd(tmp_path, "check", config="accounts: {a: {cookies: cookies.json}}")
    assert result.exit_code == 0
    assert "WARNING: " in result.stderr
    assert "chmod 600" in result.stderr


def test_a_second_daemon_says_who_runs(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with DataLock(tmp_path / "data"):
        result = biliupd(tmp_path, "run")
    assert result.exit_code == 3
    assert f"process {os.getpid()} runs on {tmp_path}/data already" in result.stderr


def test_a_full_disk_is_said_and_is_no_bug(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "biliupd.pid").symlink_to("/dev/full")
    result = biliupd(tmp_path, "run", config="")
    assert result.exit_code == 75
    assert f"{tmp_path}/data/biliupd.pid cannot be written: No space left on device" in result.stderr


DROP = "drop_folders: [{directory: drop}]\naccounts: {main: {cookies: c.json}}\n"


def test_a_preview_shows_what_would_be_sent_and_sends_nothing(tmp_path):
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "my show.mp4").write_bytes(b"x")
    (tmp_path / "drop" / "my show.yaml").write_text("title: 我的节目\ndolby: true\n")
    result = biliupd(tmp_path, "preview", str(tmp_path / "drop" / "my show.mp4"), config=DROP)
    assert result.exit_code == 0
    assert "account main" in result.stdout
    assert '"title": "我的节目"' in result.stdout
    assert '"dolby": 1' in result.stdout
    assert "a frame of my show.mp4" in result.stdout
    assert not (tmp_path / "data").exists()
    (one,) = json.loads(biliupd(tmp_path, "preview", "--json", str(tmp_path / "drop" / "my show.mp4")).stdout)
    assert (one["account"], one["body"]["title"]) == ("main", "我的节目")
    Catalog(tmp_path / "data" / "catalog.db")
    odd = tmp_path / "drop" / os.fsdecode(b"\xff.mp4")
    odd.write_bytes(b"x")
    for words in ([], ["--json"]):
        assert biliupd(tmp_path, "preview", *words, str(odd)).exit_code == 0
    result = biliupd(tmp_path, "preview", "nowhere.mp4")
    assert (result.exit_code, "'nowhere.mp4' is no file" in result.stderr) == (1, True)


def test_check_warns_of_a_cover_that_is_not_there(tmp_path):
    result = biliupd(tmp_path, "check", config="templates: {default: {cover: a.jpg}, other: {cover: live}}")
    assert result.exit_code == 0
    assert f"templates.default.cover: {tmp_path}/a.jpg cannot be read" in result.stderr
    assert "templates.other" not in result.stderr


@pytest.mark.parametrize("words", [["preview", "--json", "nowhere.mp4"], ["accounts", "--json"]])
def test_an_error_is_json_too_for_who_wants_json(tmp_path, words):
    result = biliupd(tmp_path, *words, config="{}" if "preview" in words else "acounts: {}")
    content = json.loads(result.stdout)
    assert result.exit_code == content["exit_code"] == (1 if "preview" in words else 78)
    assert content["error"] in result.stderr.replace("biliupd: ", "")


def test_a_sidecar_cannot_command_the_terminal(tmp_path):
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.mp4").write_bytes(b"x")
    (tmp_path / "drop" / "a.yaml").write_text('"\\e]0;mine\\a": 1')
    result = biliupd(tmp_path, "preview", str(tmp_path / "drop" / "a.mp4"), config=DROP)
    assert "]0;mine (line 1): there is no such setting" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_terminal_that_cannot_show_a_character_shows_another(tmp_path):
    (tmp_path / "config.yaml").write_text(DROP)
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.mp4").write_bytes(b"x")
    done = subprocess.run([sys.executable, "-m", "biliupd", "preview", "drop/a.mp4"], cwd=tmp_path, check=False,
                          env=os.environ | {"PYTHONIOENCODING": "latin-1"},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a.mp4 \\u2192 P1" in done.stdout


def test_retry_ends_the_quiet_of_an_account_but_forgets_no_warning(tmp_path):
    Catalog(tmp_path / "data" / "catalog.db")
    standing = StandingFile(tmp_path / "c.json")
    standing.write(Standing(until=time.time() + 9999, reason="601", strikes=2))
    assert biliupd(tmp_path, "retry", "account:main", config=DROP).exit_code == 0
    assert (standing.read().quiet_seconds(time.time()), standing.read().strikes) == (0, 2)
    result = biliupd(tmp_path, "retry", "account:mian")
    assert (result.exit_code, "did you mean main?" in result.stderr) == (1, True)


def test_pin_and_unpin_name_a_video_a_file_or_a_folder(tmp_path):
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    paths = [str(tmp_path / "drop" / name) for name in ("a.mp4", "sub/b.mp4")]
    apply(catalog.db, Changes(added=[Found(path, str(tmp_path / "drop"), "file", 1, 1, n, 1, title="t")
                                     for n, path in enumerate(paths)]))  # fmt: skip

    def pinned():
        return [row["pinned"] for row in catalog.db.query("select pinned from videos order by id")]

    assert biliupd(tmp_path, "pin", "video:2", config=DROP).exit_code == 0
    assert pinned() == [0, 1]
    assert "2 pinned" in biliupd(tmp_path, "pin", str(tmp_path / "drop")).stdout
    assert pinned() == [1, 1]
    assert biliupd(tmp_path, "unpin", paths[0]).exit_code == 0
    assert pinned() == [0, 1]
    for odd in ("video:77", "elsewhere.mp4", "video:x"):
        result = biliupd(tmp_path, "pin", odd)
        assert (result.exit_code, "is no video of the catalog" in result.stderr) == (1, True)


def test_a_catalog_of_a_newer_version_has_an_exit_code_of_its_own(tmp_path):
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    catalog.db["_sqlite_migrations"].insert({"migration_set": "biliupd", "name": "of_tomorrow", "applied_at": ""})
    catalog.close()
    before = catalog.path.read_bytes()
    result = biliupd(tmp_path, "run", config="control: {enabled: false}")
    assert (result.exit_code, "install that version again" in result.stderr) == (4, True)
    assert catalog.path.read_bytes() == before
