"""The commands that keep the catalog, where things are as they should be and where they are not."""

from pathlib import Path

from click.testing import CliRunner, Result

from biliupd.catalog import records
from biliupd.catalog.database import Catalog, ailment, connect
from biliupd.cli import main
from biliupd.lock import DataLock


def biliupd(tmp_path: Path, *words: str) -> Result:
    config = tmp_path / "config.yaml"
    config.write_text("drop_folders: [{directory: drop}]")
    return CliRunner().invoke(main, [*words, "-c", str(config)], catch_exceptions=False)


def test_backup_copies_while_somebody_writes_and_names_the_copy(tmp_path):
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    records.notice(catalog.db, "a", "x")
    with DataLock(tmp_path / "data"):
        done = biliupd(tmp_path, "backup")
        there = biliupd(tmp_path, "backup", str(tmp_path))
    assert done.exit_code == there.exit_code == 0, done.output + there.output
    for folder in (tmp_path / "data" / "backups", tmp_path):
        (made,) = folder.glob("catalog-*.db")
        assert ailment(made, thorough=True) == ""
        assert records.notices(connect(made, read_only=True))[0]["text"] == "x"
    assert str(made) in there.output


def test_backup_says_what_is_in_the_way(tmp_path):
    missing = biliupd(tmp_path, "backup")
    assert (missing.exit_code, "no catalog" in missing.stderr, "→ biliupd run" in missing.stderr) == (1, True, True)
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    (tmp_path / "mine").write_text("mine")
    taken = biliupd(tmp_path, "backup", str(tmp_path / "mine"))
    assert (taken.exit_code, "exists already" in taken.stderr) == (1, True)
    assert (tmp_path / "mine").read_text() == "mine"
    catalog.close()
    catalog.path.write_bytes(b"no database, " * 100)
    damaged = biliupd(tmp_path, "backup", str(tmp_path / "new"))
    assert (damaged.exit_code, "is damaged" in damaged.stderr) == (1, True)
    assert not (tmp_path / "new").exists()


def test_rebuild_waits_for_no_daemon_and_says_what_it_found(tmp_path):
    path = tmp_path / "data" / "catalog.db"
    Catalog(path).close()
    with DataLock(path.parent):
        running = biliupd(tmp_path, "rebuild")
    assert (running.exit_code, "→ biliupd stop" in running.stderr) == (3, True)
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.mp4").touch()
    before = path.read_bytes()
    done = biliupd(tmp_path, "rebuild")
    assert done.exit_code == 0, done.output
    assert "carried over: 0 videos, 0 submissions" in done.output
    assert f"{tmp_path / 'drop'}: 1 videos, 1 of them found now" in done.output
    assert f"{tmp_path / 'recordings'}: is not there" in done.output
    (kept,) = path.parent.glob("catalog.db.before-*")
    assert kept.read_bytes() == before
    path.write_bytes(b"no database, " * 100)
    assert biliupd(tmp_path, "rebuild").exit_code == 0
    assert ailment(path) == ""
