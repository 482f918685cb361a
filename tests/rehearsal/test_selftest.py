"""`biliupd selftest`: do its verdicts find what is wrong, and does a real recording get through?"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from biliupd.record import broadcast as broadcasts
from biliupd.record.broadcast import Broadcast
from biliupd.rehearsal.live_account import Account, Withheld
from biliupd.rehearsal.live_faults import Faults
from biliupd.rehearsal.live_media import HLS_SEGMENT_SECONDS
from biliupd.rehearsal.machine import facts
from biliupd.rehearsal.scenarios import FLV, HLS, SCENARIOS, Scenario, step
from biliupd.rehearsal.selftest import Selftest, Stage
from biliupd.rehearsal.verdict import complaints, judge

QUICK = (
    Scenario("quick-flv", "a second is not sent", FLV, (step(1, "overlap", -1), step(2, "hang_up")), seconds=8,
             rows=("cut|server-drop",), losses=("cut", "server-drop")),
    Scenario("quick-hls", "a segment is never to be had", HLS, (step(1, "drop_segments", 1),), seconds=6,
             rows=("skipped-segment",), losses=("skipped-segment",)),
    Scenario("quick-disk", "nothing happens, on a small file system", FLV, seconds=3, small_disk=True,
             record={"least_free": 3 << 20}),
    Scenario("wrong", "nothing happens, and something else is expected", FLV, seconds=3, rows=("jump",), files=2),
)  # fmt: skip


def test_real_recordings_pass_and_what_is_not_as_expected_fails(tmp_path):
    said = []
    found = {one.name: one for one in Selftest(tmp_path, "ffmpeg", lambda *words: said.append(words)).run(QUICK)}
    assert (found["quick-flv"].trouble, found["quick-hls"].trouble) == ([], [])
    assert found["quick-disk"].trouble == []  # where nothing may be mounted it is not run, and says so
    for name, cause in (("quick-flv", ("cut: ", "server-drop: ")), ("quick-hls", "skipped-segment: ")):
        assert " 1 gap, " in found[name].ledger
        assert (len(found[name].withheld), found[name].rows[0].startswith(cause)) == (1, True)
    assert found["wrong"].trouble == ["1 files instead of 2", "no row of jump"]
    assert found["wrong"].ledger == "100 %, no gap"
    assert {name for name, _ in said} >= {"quick-flv", "quick-hls", "wrong"}


# judging, without a site: a folder with a playlist of segments that are no media


@pytest.fixture
def recorded(tmp_path):
    """A broadcast of four one-second segments, and the account that belongs to it."""
    folder = tmp_path / "P001"
    folder.mkdir()
    account = Account()
    for n in range(4):
        unit = account.made(float(n), float(HLS_SEGMENT_SECONDS), b"segment %d" % n)
        unit.delivered = True
        (folder / f"{n}.ts").write_bytes(b"segment %d" % n)
    (folder / "index.m3u8").write_text("#EXTM3U\n" + "".join(f"#EXTINF:1,\n{n}.ts\n" for n in range(4)))
    broadcast = Broadcast("id", "S", ended_at="2026-01-01T00:00:00+00:00", files=[{"name": "P001/index.m3u8"}])
    broadcasts.write(tmp_path, broadcast)
    return tmp_path, broadcast, account


def row(cause, seconds):
    return {"at": "", "cause": cause, "file": "", "media_seconds_at": 0.0, "seconds": seconds, "detail": ""}


def hole(seconds):
    return Withheld("cut", datetime.now(UTC), seconds, 0.0)


PLAIN = Scenario("s", "s", HLS, losses=("cut",))


@pytest.mark.parametrize(
    ("scenario", "rows", "withheld", "trouble"),
    [
        (PLAIN, [], [], ""),
        (PLAIN, [("cut", 4.0)], [4.9], ""),
        (PLAIN, [("cut", 4.0)], [6.0], "the ledger says 4.0 s are missing, the site withheld 6.0 s"),
        (PLAIN, [("cut", 4.0)], [], "the ledger says 4.0 s"),
        (PLAIN, [], [4.0], "the ledger says 0.0 s"),
        (PLAIN, [("cut", 9.0), ("cut", 2.0)], [2.1, 8.0], ""),
        (PLAIN, [("cut", 2.0), ("cut", 2.0)], [4.0], ""),
        (PLAIN, [("stall", 4.0)], [4.0], "4.0 s are said to be missing because of stall"),
        (PLAIN, [("jump", 30.0)], [], ""),
        (replace(PLAIN, rows=("dup|jump",)), [("jump", 0.0)], [], ""),
        (replace(PLAIN, rows=("dup", "jump")), [("jump", 0.0)], [], "no row of dup"),
        (replace(PLAIN, files=2), [], [], "1 files instead of 2"),
        (replace(PLAIN, most_lost_seconds=2.0), [("cut", 4.0)], [4.0], "4.0 s were lost, though 2.0 s would have done"),
    ],
)
def test_a_ledger_is_judged_by_what_was_withheld(recorded, monkeypatch, scenario, rows, withheld, trouble):
    folder, broadcast, account = recorded
    monkeypatch.setattr("biliupd.rehearsal.verdict.complaints", lambda path, ffmpeg: [])
    broadcasts.write(folder, replace(broadcast, ledger=[row(*one) for one in rows]))
    verdict = judge(scenario, [folder], [hole(seconds) for seconds in withheld], account.units, "ffmpeg")
    assert trouble in "".join(verdict.trouble)
    assert verdict.ok is (trouble == "")


def test_media_that_is_there_twice_or_not_at_all_is_found(recorded, monkeypatch):
    folder, _, account = recorded
    monkeypatch.setattr("biliupd.rehearsal.verdict.complaints", lambda path, ffmpeg: [])
    index = folder / "P001" / "index.m3u8"
    text = index.read_text()
    index.write_text(text + "#EXTINF:1,\n2.ts\n")
    assert judge(PLAIN, [folder], [], account.units, "ffmpeg").trouble == [
        "1 pieces of media were recorded twice, or are none that the site made"]
    index.write_text(text.replace("2.ts\n", "3.ts\n", 1))
    assert judge(PLAIN, [folder], [], account.units, "ffmpeg").trouble == [
        "1 pieces of media were recorded twice, or are none that the site made",
        "1.0 s of what the site sent are not in the files"]
    assert judge(replace(PLAIN, unread_seconds=2.0), [folder], [], account.units, "ffmpeg").trouble[1:] == []


def test_a_folder_that_is_missing_broken_or_not_ended_is_trouble(recorded, tmp_path):
    folder, broadcast, account = recorded
    assert judge(PLAIN, [], [], account.units, "ffmpeg").trouble == ["0 broadcasts instead of 1"]
    assert "2 broadcasts instead of 1" in judge(PLAIN, [folder, folder], [], account.units, "ffmpeg").trouble
    broadcasts.write(folder, replace(broadcast, ended_at=None))
    trouble = judge(PLAIN, [folder], [], account.units, "ffmpeg").trouble
    assert trouble[0] == "the broadcast was not ended"
    assert trouble[1].startswith("P001/index.m3u8: ffmpeg: ")  # these segments are no media
    (folder / broadcasts.NAME).write_text("{")
    assert "not a readable broadcast.json" in judge(PLAIN, [folder], [], account.units, "ffmpeg").trouble[0]
    assert complaints(tmp_path / "none.flv", "ffmpeg")[0].startswith("none.flv: ffmpeg: ")
    assert complaints(tmp_path / "none.flv", "no-such-program") == ["none.flv: cannot be decoded: FileNotFoundError"]


def test_every_scenario_is_sound():
    """No name twice, steps in their order, and each one something that the site or the stage can do."""
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        times = [one.at for one in scenario.steps]
        assert times == sorted(times), scenario.name
        assert max(times, default=0) < scenario.seconds, scenario.name
        for one in scenario.steps:
            owner, name = (Stage, one.what[6:]) if one.what.startswith("stage.") else (Faults, one.what)
            assert hasattr(owner, name) or name == "change", (scenario.name, name)


def test_the_machine_is_described(tmp_path):
    text = "\n".join(facts(tmp_path, "ffmpeg"))
    for words in ("Python 3", "ffmpeg version", "GiB free", "fdatasync there takes", "max user watches"):
        assert words in text
    assert list(tmp_path.iterdir()) == []


def test_the_command_explains_itself_and_refuses_what_there_is_not():
    argv = [sys.executable, "-m", "biliupd", "selftest"]
    told = subprocess.run([*argv, "--help"], capture_output=True, text=True, check=True, timeout=30).stdout
    for word in ("three minutes", "--only", "--seconds", "--keep", "hls-aes"):
        assert word in told
    refused = subprocess.run([*argv, "--only", "none"], capture_output=True, text=True, check=False, timeout=30)
    assert refused.returncode == 2


def test_what_this_machine_cannot_do_is_not_played(tmp_path, monkeypatch):
    ffmpeg = shutil.which("ffmpeg")
    monkeypatch.setenv("PATH", str(tmp_path))
    small = replace(SCENARIOS[0], name="small", small_disk=True)
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    os.chmod(tmp_path / "unshare", 0o755)
    strange = replace(SCENARIOS[0], name="strange", encoder="libx999")
    found = {one.name: one for one in Selftest(tmp_path / "work", ffmpeg).run([small, strange])}
    assert [(one.ok, one.trouble) for one in found.values()] == [(False, [])] * 2
    assert found["small"].not_run.startswith("needs root")
    assert found["strange"].not_run == "the encoder libx999 is not in this ffmpeg"
