"""login, accounts and renew: what a person sees and types, and what lies on the disk afterwards."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
import segno
from click.testing import CliRunner
from loguru import logger
from support import wait_until

from biliupd.cli import accounts as cli_accounts
from biliupd.cli.accounts import COMMANDS, qr_lines
from biliupd.errors import BiliupdError, ConfigError, NeedsPerson, PermanentError, TemporaryError
from biliupd.publish.credential import Credential
from biliupd.rehearsal.bilibili import Bilibili

PHONE, NAME, PASSWORD = "13800138000", "streamer", "correct horse 电池"
PROGRAM = """
import click, sys
from biliupd.cli.accounts import COMMANDS
click.Group(commands={one.name: one for one in COMMANDS})(sys.argv[1:])
"""


@pytest.fixture
def bilibili(tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Bilibili(tmp_path / "bilibili")
    server.start()
    yield server
    server.close()


@pytest.fixture
def config(bilibili, tmp_path, monkeypatch):
    """A configuration with one account, whose addresses are the stand-in's."""
    monkeypatch.setattr(cli_accounts, "POLL_SECONDS", 0.05)
    return written(bilibili, tmp_path / "config.yaml", "one")


def written(bilibili, path: Path, *names: str, submit: str = "app") -> Path:
    accounts = ", ".join(f"{name}: {{cookies: {name}.json}}" for name in names)
    path.write_text(f"publish: {{passport_url: {bilibili.url}, api_url: {bilibili.url}, member_url: {bilibili.url}, "
                    f"submit: {submit}, timeout_seconds: 5}}\naccounts: {{{accounts}}}\n")
    return path


def biliupd(*words, typed=None):
    group = click.Group(commands={one.name: one for one in COMMANDS})
    return CliRunner().invoke(group, [str(word) for word in words], input=typed)


def refused(*words, kind=BiliupdError, typed=None):
    """Our error, which the main command prints."""
    result = biliupd(*words, typed=typed)
    assert isinstance(result.exception, kind), result.output
    return result


class Phone:
    """Confirms every QR code that is asked for."""

    def __init__(self, bilibili, uid=10001, first=1):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(bilibili, uid, first))

    def _run(self, bilibili, uid, first):
        while not self._stop.wait(0.02):
            if sum(request.route in ("auth_code", "web_qr") for request in bilibili.requests) >= first:
                with contextlib.suppress(LookupError):  # between two codes
                    bilibili.confirm_login(uid=uid)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def the_file(path: Path) -> Credential:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return Credential.load(path)


# -- QR codes -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("how", "interfaces"), [([], "app and web"), (["--tv"], "app and web"), (["--web"], "web")])
def test_a_scanned_qr_code_becomes_a_file_that_only_its_owner_reads(bilibili, config, tmp_path, how, interfaces):
    with Phone(bilibili, uid=7):
        result = biliupd("login", "-c", config, *how)
    assert result.exit_code == 0, result.output
    found = the_file(tmp_path / "one.json")
    assert (found.mid, bool(found.access_token)) == (7, interfaces != "web")
    assert f"logged in as 主播7 (7); written to {tmp_path}/one.json; can submit by {interfaces}; valid until 20" in (
        result.output)
    assert f"The QR code says: {bilibili.url}/" in result.output
    assert not any(secret in result.output for secret in found.secrets)


def matrix(output):
    """The dark modules of the QR code in the output, without its quiet zone."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output.splitlines()]
    rows = []
    for line in (line for line in lines if line and set(line) <= set(" ▀▄█")):
        rows += [[c not in "▀█" for c in line], [c not in "▄█" for c in line]]
    size = len(rows[0])
    zone = cli_accounts.QUIET_ZONE
    assert not any(any(row) for row in (*rows[:zone], *rows[size - zone:size]))
    return [row[zone:-zone] for row in rows[zone:size - zone]]


def test_the_qr_code_is_the_one_of_its_address_and_brings_its_own_colours(bilibili, config, tmp_path):
    (tmp_path / "a.png").touch(mode=0o644)
    with Phone(bilibili):
        group = click.Group(commands={one.name: one for one in COMMANDS})
        result = CliRunner().invoke(group, ["login", "-c", str(config), "--png", str(tmp_path / "a.png")], color=True)
    url = re.search(r"The QR code says: (\S+)", result.output)[1]
    expected = segno.make(url, error="l", micro=False, boost_error=False)
    assert matrix(result.output) == [[bool(module) for module in row] for row in expected.matrix]
    drawn = [line for line in result.output.splitlines() if "█" in line]
    assert all(line.startswith("\x1b[38;5;231;48;5;16m") and line.endswith("\x1b[0m") for line in drawn)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o600, "who sees it can fetch the login, too"


def test_half_blocks_draw_what_is_light():
    dark, light = True, False
    assert qr_lines([[light, light, dark, dark], [light, dark, light, dark], [light, dark, light, dark]]) == [
        "█▀▄ ", "▀ ▀ "]


def test_an_expired_qr_code_is_drawn_anew_up_to_three_times(bilibili, config, tmp_path):
    bilibili.accounts.logins.qr_seconds = 0
    result = refused("login", "-c", config, kind=PermanentError)
    assert result.output.count("The QR code says") == 4
    assert len(set(re.findall(r"auth_code=(\w+)", result.output))) == 4
    assert not (tmp_path / "one.json").exists()


def test_the_second_qr_code_works_as_well(bilibili, config, tmp_path):
    bilibili.refuse("poll", 86038)
    with Phone(bilibili, first=2):
        result = biliupd("login", "-c", config)
    assert result.output.count("The QR code says") == 2
    assert the_file(tmp_path / "one.json").mid == 10001


def test_a_network_that_fails_now_and_then_is_waited_for(bilibili, config, tmp_path):
    bilibili.fail("poll", 502, times=3)
    with Phone(bilibili):
        result = biliupd("login", "-c", config)
    assert result.exit_code == 0
    assert result.output.count("asking again") == 1
    assert the_file(tmp_path / "one.json").mid == 10001


def test_a_place_that_cannot_be_written_is_found_before_anybody_scans(bilibili, config, tmp_path):
    refused("login", "-c", config, "-u", tmp_path / "nowhere" / "a.json", kind=TemporaryError)
    assert bilibili.requests == []


def test_a_login_that_cannot_be_looked_at_yet_is_written_all_the_same(bilibili, config, tmp_path):
    bilibili.fail("nav", 502)
    with Phone(bilibili):
        result = biliupd("login", "-c", config)
    assert (result.exit_code, "could not be looked at yet" in result.output) == (0, True)
    assert the_file(tmp_path / "one.json").access_token


def test_ctrl_c_while_waiting_ends_without_a_trace(bilibili, config, tmp_path):
    before = sorted(os.listdir(tmp_path))
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, "login", "-c", str(config)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: any(request.route == "poll" for request in bilibili.requests))
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=10)
    finally:
        program.kill()
    assert (program.returncode, "Traceback" in errors) == (1, False)
    assert "Aborted" in errors
    assert sorted(os.listdir(tmp_path)) == before


def test_a_narrow_terminal_gets_the_address_alone(bilibili, config):
    master, slave = pty.openpty()
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, "login", "-c", str(config)], stdout=slave, stderr=slave,
                               stdin=slave, env={**os.environ, "COLUMNS": "20", "LINES": "20"})
    os.close(slave)
    said = b""
    try:
        with Phone(bilibili):
            wait_until(lambda: program.poll() is not None)
        while select.select([master], [], [], 0)[0]:
            try:
                said += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
    finally:
        program.kill()
        program.wait()
        os.close(master)
    assert "▀" not in said.decode()
    assert b"make the terminal wider" in said
    assert b"The QR code says: http" in said


# -- typed --------------------------------------------------------------------------------------------------------

def type_sms_code(bilibili, monkeypatch, *wrong):
    """The person reads the code when it is asked for."""
    answers = iter(wrong)
    ask = click.prompt

    def prompt(text, **options):
        if text == "Code of the SMS":
            assert options["hide_input"]
            return next(answers, None) or bilibili.accounts.logins.sms_code(PHONE)
        return ask(text, **options)

    monkeypatch.setattr(click, "prompt", prompt)


def test_a_login_by_sms_forgives_typing_errors(bilibili, config, tmp_path, monkeypatch):
    type_sms_code(bilibili, monkeypatch, "wrong", "wrong")
    result = biliupd("login", "-c", config, "--sms", typed=f"123\n{PHONE}\n")
    assert result.exit_code == 0, result.output
    assert result.output.count("1006") == 2
    assert (the_file(tmp_path / "one.json").platform, bilibili.accounts.logins.sms_code(PHONE) in result.output) == (
        "Android", False)


def test_a_third_wrong_code_is_the_last(bilibili, config, tmp_path, monkeypatch):
    type_sms_code(bilibili, monkeypatch, "wrong", "wrong", "wrong")
    refused("login", "-c", config, "--sms", typed=f"{PHONE}\n", kind=PermanentError)
    assert not (tmp_path / "one.json").exists()


def test_a_captcha_is_shown_and_its_solution_asked_for(bilibili, config, tmp_path, monkeypatch):
    bilibili.accounts.logins.captcha_demanded = True
    type_sms_code(bilibili, monkeypatch)
    result = biliupd("login", "-c", config, "--sms", typed=f"{PHONE}\n\nsolved\n\n")
    assert result.exit_code == 0, result.output
    assert f"{bilibili.url}/h5/project-msg-auth/verify?" in result.output
    result = biliupd("login", "-c", config, "--password", typed=f"{NAME}\n{PASSWORD}\n\nwrong\n\n\nsolved\n\n")
    assert result.exit_code == 0, result.output
    assert the_file(tmp_path / "one.json").platform == "Android"


def test_a_login_by_password_shows_it_to_nobody(bilibili, config, tmp_path):
    result = biliupd("login", "-c", config, "--password", typed=f"{NAME}\nwrong one\n{NAME}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    assert "-629" in result.output
    assert not any(word in result.output for word in (PASSWORD, "wrong one", *the_file(tmp_path / "one.json").secrets))


def test_a_verification_is_named(bilibili, config):
    bilibili.accounts.logins.verification_demanded = True
    result = refused("login", "-c", config, "--password", typed=f"{NAME}\n{PASSWORD}\n", kind=NeedsPerson)
    assert f"{bilibili.url}/verify" in result.exception.hint


# -- cookies ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("way", ["text", "file", "-"])
def test_cookies_are_taken_from_anywhere_and_get_tokens(bilibili, config, tmp_path, way):
    header = Credential.load(bilibili.write_cookies(tmp_path / "browser.json", uid=7)).cookie_header
    (tmp_path / "cookies.txt").write_text(header)
    given = {"text": header, "file": tmp_path / "cookies.txt", "-": "-"}[way]
    result = biliupd("login", "-c", config, "--cookies", given, typed=header if way == "-" else None)
    assert result.exit_code == 0, result.output
    found = the_file(tmp_path / "one.json")
    assert (found.mid, bool(found.access_token)) == (7, True)
    assert not any(secret in result.output for secret in found.secrets)


def test_the_file_of_biliup_is_taken_with_its_tokens(bilibili, config, tmp_path):
    old = Credential.load(bilibili.write_cookies(tmp_path / "biliup.json", uid=7))
    assert biliupd("login", "-c", config, "--cookies", tmp_path / "biliup.json").exit_code == 0
    assert the_file(tmp_path / "one.json").access_token == old.access_token


def test_dead_cookies_never_replace_a_good_login(bilibili, config, tmp_path):
    good = bilibili.write_cookies(tmp_path / "one.json").read_bytes()
    dead = Credential.load(bilibili.write_cookies(tmp_path / "browser.json", uid=7))
    bilibili.expire_login(7)
    result = refused("login", "-c", config, "--cookies", dead.cookie_header, kind=NeedsPerson)
    assert (tmp_path / "one.json").read_bytes() == good
    assert not any(secret in result.output + str(result.exception) for secret in dead.secrets)


@pytest.mark.parametrize(("given", "why"), [
    ("nowhere.txt", "no such file"), ("a=b", "SESSDATA is missing"), ("{}", "SESSDATA is missing"), ("-", "SESSDATA")])
def test_what_holds_no_login_is_refused(config, given, why):
    assert why in str(refused("login", "-c", config, "--cookies", given, kind=PermanentError, typed="").exception)


# -- which file ---------------------------------------------------------------------------------------------------

def test_the_account_is_named_when_there_are_several(bilibili, config, tmp_path):
    written(bilibili, config, "one", "two")
    assert "one, two" in str(refused("login", "-c", config, kind=ConfigError).exception)
    assert "no account x" in str(refused("login", "-c", config, "--account", "x", kind=ConfigError).exception)
    with Phone(bilibili):
        assert biliupd("login", "-c", config, "--account", "two").exit_code == 0
        assert biliupd("login", "-c", config, "-u", tmp_path / "third.json").exit_code == 0
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["third.json", "two.json"]


def test_one_way_at_a_time_and_no_account_without_a_configuration(config):
    assert biliupd("login", "-c", config, "--sms", "--cookies", "a=b").exit_code == 2
    assert biliupd("login", "--account", "a").exit_code == 2


def test_without_a_configuration_the_file_is_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = biliupd("accounts", "--json")
    assert result.exit_code == 1
    (row,) = json.loads(result.output)
    assert (row["file"], row["usable"]) == ("cookies.json", False)
    assert "No such file or directory → log in to Bilibili" in row["state"]


# -- how they stand -----------------------------------------------------------------------------------------------

def test_all_accounts_are_listed_and_the_exit_code_says_whether_all_can_be_used(bilibili, config, tmp_path):
    written(bilibili, config, "one", "two")
    for uid, name in ((10001, "one"), (7, "two")):
        bilibili.write_cookies(tmp_path / f"{name}.json", uid=uid)
    result = biliupd("accounts", "-c", config, "--json")
    rows = json.loads(result.output)
    assert result.exit_code == 0
    assert [(row["name"], row["uid"], row["interfaces"], row["usable"], row["state"]) for row in rows] == [
        ("主播10001", 10001, ["app", "web"], True, "good"), ("主播7", 7, ["app", "web"], True, "good")]
    bilibili.expire_login(7)
    result = biliupd("accounts", "-c", config, "--json")
    assert result.exit_code == 1
    assert [row["state"] for row in json.loads(result.output)] == ["good", "logged out → biliupd login"]
    assert biliupd("accounts", "-c", config, "-u", tmp_path / "one.json").exit_code == 0


@pytest.mark.parametrize(("submit", "code"), [("app", 1), ("web", 0)])
def test_a_login_that_the_settings_cannot_use_is_not_usable(bilibili, config, tmp_path, submit, code):
    written(bilibili, config, "one", submit=submit)
    with Phone(bilibili):
        result = biliupd("login", "-c", config, "--web")
    assert ("which this login cannot" in result.output) == bool(code)
    result = biliupd("accounts", "-c", config, "--json")
    assert result.exit_code == code
    assert ("publish.submit: app" in json.loads(result.output)[0]["state"]) == bool(code)


def test_the_table_gives_no_commands_to_the_terminal(bilibili, config, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    bilibili.write_cookies(tmp_path / "one.json")
    bilibili.accounts.get(10001).name = "a\x1b[2J[red]b\n\u202ec"
    result = biliupd("accounts", "-c", config)
    assert result.exit_code == 0
    assert "a[2J[red]b c  10001  app, web" in result.output
    assert "\x1b" not in result.output


def test_one_account_that_cannot_be_looked_at_does_not_hide_the_others(bilibili, config, tmp_path):
    written(bilibili, config, "one", "two")
    bilibili.write_cookies(tmp_path / "two.json", uid=7)
    (tmp_path / "one.json").write_text("{")
    result = biliupd("accounts", "-c", config, "--json")
    rows = json.loads(result.output)
    assert (result.exit_code, rows[0]["usable"], rows[1]["usable"]) == (1, False, True)
    assert "not JSON" in rows[0]["state"]


# -- renewing -----------------------------------------------------------------------------------------------------

def test_a_login_is_renewed_when_due_or_told_to(bilibili, config, tmp_path):
    path = bilibili.write_cookies(tmp_path / "one.json")
    before = the_file(path)
    result = biliupd("renew", "-c", config)
    assert (result.exit_code, the_file(path)) == (0, before)
    assert "the login of 主播10001 needs nothing; valid until 20" in result.output
    for words in (("--force",), ()):
        if not words:
            bilibili.ask_for_refresh()
        result = biliupd("renew", "-c", config, *words)
        assert (result.exit_code, "was renewed" in result.output) == (0, True), result.output
        assert the_file(path).access_token != before.access_token
        assert not any(secret in result.output for secret in (*the_file(path).secrets, *before.secrets))
        before = the_file(path)


def test_one_login_that_cannot_be_renewed_does_not_keep_the_others_from_it(bilibili, config, tmp_path):
    written(bilibili, config, "one", "two")
    for uid, name in ((10001, "one"), (7, "two")):
        bilibili.write_cookies(tmp_path / f"{name}.json", uid=uid)
    bilibili.expire_login(10001)
    result = biliupd("renew", "-c", config, "--force")
    assert result.exit_code == 1
    assert "one.json: " in result.stderr
    assert "→ log in to Bilibili again" in result.stderr
    assert "主播7 was renewed" in result.stdout
    refused("renew", "-c", config, "-u", tmp_path / "one.json", kind=NeedsPerson)


def test_nothing_of_all_this_puts_a_secret_into_the_log(bilibili, config, tmp_path):
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE")
    with Phone(bilibili):
        for words in (["login"], ["accounts"], ["renew", "--force"], ["login", "--web"], ["renew"]):
            biliupd(*words, "-c", config)
            secrets = the_file(tmp_path / "one.json").secrets
            assert not [line for line in lines for secret in secrets if secret in line]
    logger.remove(sink)
    assert any("was renewed until" in line for line in lines)
