"""A crew on a disk of some megabytes: run by test_crew_care.py in a mount namespace.

    unshare -Urm python small_disk.py DIRECTORY MEDIA

Ends with a traceback when something is not as it should be.
"""

import os
import subprocess
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[n]) for n in range(3)]

from crew_support import Daemon  # noqa: E402
from recording_support import MediaServer, complaints  # noqa: E402

from biliupd.record import broadcast as broadcasts  # noqa: E402

DISK, LEAST = 8 << 20, 4 << 20


def run(base: Path, media: Path, server: MediaServer) -> None:
    """Fill the disk, see it end cleanly, make room, see it go on."""
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.live(clip, silent=True)
    server.answers["/other.flv"] = server.in_turn(
        server.live((media / "other.flv").read_bytes()), server.live(silent=True))
    disk = base / "recordings"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=True)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (DISK - LEAST - len(clip) // 2))
    daemon = Daemon(base, least_free=LEAST)
    daemon.crew.wanted({"someone": 0})
    daemon.crew.went_live(daemon.show(server))
    daemon.until(lambda: daemon.folder and os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize < LEAST)
    daemon.turn(60)
    daemon.until(lambda: daemon.ended)
    assert (daemon.ended[0].reason, daemon.ended[0].over) == ("no_space", False), daemon.ended
    assert complaints(daemon.folder / "P001.flv") == ""
    assert "from 8 MiB on it is" in daemon.notices["space:someone"], daemon.notices
    assert not daemon.crew.wants_stream("someone")
    daemon.turn(60)
    assert daemon.pressed
    assert daemon.rechecks == []
    subprocess.run(["mount", "-o", f"remount,size={4 * DISK}", str(disk)], check=True)
    filler.unlink()
    daemon.turn(60)
    assert daemon.rechecks == ["someone"]
    daemon.crew.went_live(daemon.show(server, "/other.flv"))
    daemon.until(lambda: any(row["cause"] == "no-space" for row in broadcasts.read(daemon.folder).ledger))
    assert daemon.notices == {}, daemon.notices
    assert daemon.started[0].broadcast_id == daemon.started[1].broadcast_id
    daemon.crew.stop_all(5)
    daemon.crew.close(5)


if __name__ == "__main__":
    media_server = MediaServer()
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]), media_server)
    finally:
        media_server.close()
