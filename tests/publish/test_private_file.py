"""Small private files: whole, and of use to the daemon's user though root ran the command."""

import os
import time

from biliupd.config import PublishConfig
from biliupd.publish import private_file
from biliupd.publish.line import Lines, named
from biliupd.publish.manners import StandingFile


def test_what_root_keeps_belongs_to_the_owner_of_the_directory(tmp_path):
    """Else the daemon could neither read nor replace what a command run by root left behind."""
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    with StandingFile(tmp_path / "cookies.json").submitting(PublishConfig()):
        pass
    Lines(tmp_path / "lines.json").failed(named("tx"))
    owners = {path.name: path.stat().st_uid for path in tmp_path.iterdir()}
    assert owners == dict.fromkeys(("cookies.json.standing", "cookies.json.standing.lock", "lines.json"), owner)


def test_what_a_killed_program_left_is_cleared_away_when_it_is_old(tmp_path):
    place = tmp_path / "a[b].json"
    old, young, other = (tmp_path / name for name in (".a[b].json.00.part", ".a[b].json.11.part", ".c.json.22.part"))
    for path in (old, young, other):
        path.write_bytes(b"secret")
    before = time.time() - private_file.ABANDONED_SECONDS - 5
    for path in (old, other):
        os.utime(path, (before, before))
    private_file.replace(place, b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted((young.name, other.name, place.name))
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"new", 0o600)
