import logging
import shutil
from pathlib import Path

import pytest
from loguru import logger

from biliupd import log
from biliupd.config import LogConfig


@pytest.fixture
def file(tmp_path: Path):
    path = tmp_path / "log" / "biliupd.log"
    log.set_up(LogConfig(file=path, rotate_size=4096, keep_files=2))
    yield path
    logger.remove()
    log._hidden.clear()
    for handler in [h for h in logging.root.handlers if isinstance(h, log._FromLibraries)]:
        logging.root.removeHandler(handler)


def test_lines_carry_what_they_are_bound_to(file, capsys):
    logger.bind(streamer="ann", video=7).info("cut at {} bytes", 5)
    assert "INFO    [streamer=ann video=7] cut at 5 bytes\n" in file.read_text()
    assert "[streamer=ann video=7] cut at 5 bytes\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "GET /x?access_key=abcdef123456&ts=1&sign=0011223344",
        "Cookie: SESSDATA=abcdef123456%2C; bili_jct=0011223344",
        '{"access_token": "abcdef123456", "refresh_token":"0011223344"}',
        "the secret abcdef123456 in plain, and 0011223344",
    ],
)
def test_no_secret_gets_into_the_log(file, capsys, text):
    log.hide(["abcdef123456", "0011223344"])
    logger.info("{}", text)
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("a bug")
    for written in (file.read_text(), capsys.readouterr().err):
        assert "Traceback" in written
        assert "abcdef123456" not in written
        assert "0011223344" not in written


def test_parameters_that_carry_secrets_are_hidden_though_nobody_told():
    assert log.redact("a?csrf=12ab34cd&t=5") == "a?csrf=***&t=5"
    assert log.redact("signal, authority and design stay") == "signal, authority and design stay"


def test_the_file_rotates_and_keeps_what_it_was_told_to(file):
    for n in range(200):
        logger.info("line {} {}", n, "x" * 100)
    assert sorted(path.name for path in file.parent.iterdir()) == ["biliupd.log", "biliupd.log.1", "biliupd.log.2"]


def test_a_log_directory_that_was_removed_comes_back(file):
    logger.info("before")
    shutil.rmtree(file.parent)
    logger.info("after")
    assert "after" in file.read_text()


def test_a_full_disk_is_said_once_on_stderr_and_not_with_every_line(file, capsys):
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/full")
    log.set_up(LogConfig(file=file))
    for n in range(3):
        logger.info("line {}", n)
    said = capsys.readouterr().err
    assert said.count("cannot be written: No space left on device") == 1
    assert said.count("line ") == 3
    assert "Traceback" not in said


def test_names_with_braces_and_line_breaks_do_not_break_a_line(file):
    logger.bind(streamer="{x}").info("{} is gone", "a{b}\nERROR c\udcff")
    assert "[streamer={x}] a{b}\\nERROR c\\udcff is gone\n" in file.read_text()


def test_the_journal_gets_priorities_and_no_times(file, capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    log.set_up(LogConfig(file=None))
    logger.error("disk full")
    assert capsys.readouterr().err == "<3>disk full\n"


def test_what_libraries_warn_of_goes_the_same_way(file, capsys):
    logging.getLogger("urllib3.connectionpool").warning("Retrying: /x?access_key=%s", "abcdef123456")
    logging.getLogger("watchdog").info("chatter")
    for written in (file.read_text(), capsys.readouterr().err):
        assert "WARNING urllib3.connectionpool: Retrying: /x?access_key=***\n" in written
        assert "chatter" not in written


def test_the_last_lines_are_remembered_with_their_numbers_and_without_secrets(file):
    log.hide(["abcdef123456"])
    last = log.lines()[-1].seq if log.lines() else 0
    logger.bind(streamer="ann").warning("the secret abcdef123456\nforges a line")
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("failed")
    first, second = log.lines(last)
    assert (first.level, first.text, first.bound) == (
        "WARNING", "the secret ***\\nforges a line", {"streamer": "ann"})
    assert (second.seq, second.text) == (first.seq + 1, "failed (ValueError: no)")
    assert log.lines(second.seq) == []
    for n in range(log.REMEMBERED + 5):
        logger.info("{}", n)
    assert [line.text for line in log.lines()] == [str(n) for n in range(5, log.REMEMBERED + 5)]
