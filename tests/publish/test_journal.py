"""The memory of a publication: whole, private, of one process at a time, and not kept for ever."""

import json
import os
import stat
import subprocess
import sys
import time

import pytest
from support import wait_until

from biliupd.errors import PermanentError, TemporaryError
from biliupd.publish import journal as module
from biliupd.publish.journal import (
    FINISHED_SECONDS,
    FileEntry,
    Intent,
    Journal,
    Look,
    Outcome,
    UnderWay,
    forget_finished,
    state_directory,
    submitted_body,
)

LOOK = Look(size_bytes=5, mtime_ns=6, inode=7)


def opened(directory, **changes):
    return Journal(directory, **{"mid": 1, "verb": "upload", "vid": "", "paths": ["/a", "/b"], **changes})


def filled(journal, bvid="", at=0.0):
    content = journal.content
    content.files["/a\udcff"] = FileEntry(look=LOOK, session="{}", filename="n1", cid=3)
    content.intent = Intent(title="题", filenames=["n1"], began_at=4.5, body={"title": "题"}, missed_at=9.0)
    if bvid:
        content.outcome = Outcome(aid=1, bvid=bvid, at=at)
    journal.save()


def test_what_was_saved_is_there_again_and_private(tmp_path):
    with opened(tmp_path / "a" / "b") as journal:
        filled(journal, "BV1", 5.0)
        written = journal.content
    with opened(tmp_path / "a" / "b") as journal:
        assert journal.content == written
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert not list(tmp_path.rglob("*.part"))


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path):
    tmp_path.chmod(0o755)
    with opened(tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("changes", [{"mid": 2}, {"verb": "append"}, {"vid": "BV1"}, {"paths": ["/b", "/a"]},
                                     {"paths": ["/a"]}])
def test_another_account_verb_target_or_order_is_another_publication(tmp_path, changes):
    with opened(tmp_path) as journal:
        filled(journal)
        with opened(tmp_path, **changes) as other:
            assert (other.path != journal.path, other.content.files) == (True, {})


def test_only_one_has_it_at_a_time(tmp_path):
    with opened(tmp_path), pytest.raises(UnderWay), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = ("import sys, time; from pathlib import Path; from biliupd.publish.journal import Journal\n"
            "with Journal(Path(sys.argv[1]), mid=1, verb='upload', vid='', paths=['/a', '/b']): time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])

    def taken():
        try:
            with opened(tmp_path):
                return False
        except UnderWay:
            return True

    wait_until(taken)
    process.kill()
    process.wait()
    assert not taken()


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(None) as journal:
        filled(journal)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    with opened(tmp_path) as journal:
        filled(journal)
        before = journal.path.read_bytes()

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module.os, "fsync", full)
        journal.content.files.clear()
        with pytest.raises(TemporaryError, match="No space left"):
            journal.save()
        journal.keep()  # a warning
        assert journal.path.read_bytes() == before
        assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("wrong", [
    {"began_at": 1e300}, {"began_at": float("nan")}, {"missed_at": -1e15}, {"filenames": []}, {"tries": -5}])
def test_an_intent_that_says_nonsense_is_for_a_person(tmp_path, wrong):
    with opened(tmp_path) as journal:
        intent = {"title": "t", "filenames": ["n1"], "began_at": 1.0, **wrong}
        journal.path.write_text(json.dumps({**journal.content.model_dump(), "intent": intent}))
    with pytest.raises(PermanentError, match="cannot be understood"), opened(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "null", "[" * 100_000])
def test_what_cannot_be_understood_is_for_a_person(tmp_path, text):
    with opened(tmp_path) as journal:
        journal.path.write_text(text)
    with pytest.raises(PermanentError, match="cannot be understood") as caught, opened(tmp_path):
        pass
    assert "look at the account's submissions" in caught.value.hint
    with pytest.raises(PermanentError), opened(tmp_path):  # not the lock
        pass


def test_a_newer_file_is_for_a_person(tmp_path):
    with opened(tmp_path) as journal:
        filled(journal)
        journal.path.write_text(journal.path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(PermanentError), opened(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PermanentError, match="Not a directory") as caught, opened(tmp_path / "file" / "x"):
        pass
    assert "XDG_STATE_HOME" in caught.value.hint


def test_only_what_was_finished_long_ago_is_forgotten(tmp_path):
    now = time.time()
    long_ago = now - FINISHED_SECONDS - 60
    journals = {}
    for name, bvid, at in (("old", "BV1", long_ago), ("young", "BV2", now), ("open", "", 0), ("held", "BV3", long_ago),
                           ("spoilt", "BV4", long_ago)):
        with opened(tmp_path, vid=name) as journal:
            filled(journal, bvid, at)
            journals[name] = journal
    journals["spoilt"].path.write_text("{")
    for journal in journals.values():
        os.utime(journal.path, (long_ago, long_ago))
    held = module._take(journals["held"].path.with_suffix(".lock"))
    forget_finished(tmp_path, now)
    os.close(held)
    assert {name for name, journal in journals.items() if journal.path.exists()} == {"young", "open", "held", "spoilt"}
    assert not journals["old"].path.with_suffix(".lock").exists()


def test_the_body_of_a_submission_is_found_by_its_bvid(tmp_path):
    for bvid in ("BV1", "BV2"):
        with opened(tmp_path, vid=bvid) as journal:
            filled(journal, bvid, time.time())
    (tmp_path / ("0" * 32 + ".json")).write_text("{")
    assert submitted_body(tmp_path, "BV2") == {"title": "题"}
    assert submitted_body(tmp_path, "BV3") == {}
    assert submitted_body(None, "BV2") == {}
    assert submitted_body(tmp_path / "none", "BV2") == {}


def test_the_state_directory_is_where_it_belongs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state_directory() == tmp_path / ".local/state/biliupd"
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert str(state_directory()) == "/var/state/biliupd"
