"""`biliupd ledger`: from broadcast.json, from the figures of a recorder that runs, and from the catalog alone."""

import json
import os
import shutil

import pytest
from test_cli import biliupd

from biliupd.catalog.database import Catalog
from biliupd.cli.ledger import _WORDS
from biliupd.intake import Intake
from biliupd.record import broadcast as broadcasts
from biliupd.record import ledger
from biliupd.record.broadcast import Broadcast, Figures
from biliupd.record.ledger import Cause
from biliupd.watch.listing import look
from biliupd.watch.settle import Settled


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A broadcast of ann with two gaps, one of bob without any; both catalogued."""
    monkeypatch.setenv("COLUMNS", "200")
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    intake = Intake(catalog, tmp_path / "recordings", [tmp_path / "recordings"])
    for hour, (streamer, id) in enumerate((("ann", "aa11" * 8), ("bob", "aa22" * 8))):
        directory = tmp_path / "recordings" / streamer / "show"
        directory.mkdir(parents=True)
        made = Broadcast(
            id=id, streamer=streamer, title="[red]晚安\x1b", started_at=f"2026-01-01T0{hour}:00:00+00:00",
            ended_at="2026-01-01T05:00:00+00:00",
            files=[{"name": "P001.flv", "seconds": 3600.0, "bytes": 5 << 20}])  # fmt: skip
        made.figures = Figures(bytes=5 << 20, media_seconds=3600.0, live_seconds=3600.0, files=1)
        if streamer == "ann":
            made.figures.live_seconds = 3700.0
            rows = (Cause.CUT, 100.0, 11.0), (Cause.LIMIT_SPLIT, 0.0, 0.0), (Cause.STALL, 3000.0, 30)
            for cause, at, seconds in rows:
                ledger.add(made, {"at": "2026-01-01T01:02:03+00:00", "cause": cause.value, "file": "P001.flv",
                                  "media_seconds_at": at, "seconds": seconds, "detail": "why"})  # fmt: skip
        broadcasts.write(directory, made)
        (directory / "P001.flv").write_bytes(b"x")
        entries = tuple(entry for path in directory.iterdir() if (entry := look(str(path))))
        intake.settled([Settled(str(directory), entries, False)])
    return tmp_path


def test_the_latest_are_listed(house):
    lines = biliupd(house, "ledger", config="").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["aa22aa22", "bob"], ["aa11aa11", "ann"]]
    assert "100 %, no gap" in lines[1]
    assert "2 gaps, 41 s" in lines[2]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("what", ["ann", "aa11", "recordings/ann/show"])
def test_one_is_told_in_full_whether_its_folder_is_there_or_not(house, what, gone, monkeypatch):
    monkeypatch.chdir(house)
    if gone:
        shutil.rmtree(house / "recordings")
    text = biliupd(house, "ledger", what, config="").stdout
    assert "ann: [red]晚安\n" in text
    assert "live 1:01:40, recorded 1:00:00: 97.2 %, 2 gaps, 41 s" in text
    assert "59 s are neither recorded nor in the ledger" in text
    assert ("video:1 recorded" in text) is not gone
    rows = [line for line in text.splitlines() if "P001.flv" in line and "why" in line]
    assert [row.split("P001.flv")[1].split()[:2] for row in rows] == [["0:01:40", "11.0"], ["0:00:00", "new"],
                                                                   ["0:50:00", "30.0"]]
    assert "the connection broke off (why)" in rows[0]
    found = json.loads(biliupd(house, "ledger", what, "--json", config="").stdout)
    assert (found["summary"], found["unexplained_seconds"]) == ("97.2 %, 2 gaps, 41 s", 59.0)
    assert [row["cause"] for row in found["ledger"]] == ["cut", "limit-split", "stall"]


def test_one_that_is_being_recorded_is_fresh(house):
    directory = house / "recordings" / "bob" / "show"
    facts = broadcasts.read(directory)
    facts.pid, facts.boot_id, facts.ended_at = os.getpid(), broadcasts.boot_id(), None
    facts.pid_started = broadcasts.process_started(os.getpid())
    broadcasts.write(directory, facts)
    facts.figures.media_seconds = facts.figures.live_seconds = 7261.0
    (house / "data" / "recorders").mkdir()
    broadcasts.write_figures(house / "data" / "recorders" / f"{facts.id}.figures", facts)
    text = biliupd(house, "ledger", "bob", config="").stdout
    assert "being recorded now" in text
    assert "recorded 2:01:01" in text


@pytest.mark.parametrize(("what", "word"), [
    ("nobody", "no broadcast and no recorded streamer"), ("\x1b", "no broadcast"), ("aa", "the beginning of 2 ids"),
])  # fmt: skip
def test_what_means_nothing_is_said(house, what, word):
    result = biliupd(house, "ledger", what, config="")
    assert (result.exit_code, word in result.stderr) == (1, True)
    result = biliupd(house, "ledger", "--json", what, config="")
    assert word in json.loads(result.stdout)["error"]


def test_every_cause_has_plain_words():
    assert set(_WORDS) == {cause.value for cause in Cause}
