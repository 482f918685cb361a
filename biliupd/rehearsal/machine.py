"""What of this machine decides how well it records. Any thread; writes one small file where it is told to measure."""

import os
import platform
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from biliupd.watch import mounts

SLOW_SYNC_MILLISECONDS = 50.0
_INOTIFY = Path("/proc/sys/fs/inotify")


def facts(directory: Path, ffmpeg: str) -> list[str]:
    """Lines for people: Python, ffmpeg, the file system of `directory` and how fast it syncs, limits, free space."""
    kind = mounts.under(os.path.realpath(directory), mounts.read()).kind or "unknown"
    usage = shutil.disk_usage(directory)
    sync = sync_milliseconds(directory)
    verdict = "slow: many recordings at once will be held up" if sync > SLOW_SYNC_MILLISECONDS else "good"
    return [
        f"Python {platform.python_version()} on Linux {platform.release()}, {os.cpu_count()} processors",
        f"{_version(ffmpeg)} ({ffmpeg})",
        f"{directory}: {kind}, {usage.free >> 30} GiB free of {usage.total >> 30}",
        f"fdatasync there takes {sync:.1f} ms ({verdict})",
        "inotify: " + ", ".join(f"{_limit(name)} {name.replace('_', ' ')}" for name in
                                ("max_user_watches", "max_user_instances", "max_queued_events")),
    ]  # fmt: skip


def sync_milliseconds(directory: Path) -> float:
    """The median of nine times 64 KiB and fdatasync. Raises `OSError`."""
    path, took = directory / "sync.part", []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(9):
            os.write(handle, os.urandom(64 << 10))
            began = time.monotonic()
            os.fdatasync(handle)
            took.append((time.monotonic() - began) * 1000)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(took)


def _version(ffmpeg: str) -> str:
    try:
        done = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, timeout=10, check=False)
        return " ".join(done.stdout.split()[:3]) or "an ffmpeg without a version"
    except (OSError, subprocess.TimeoutExpired):
        return "an ffmpeg that does not run"


def _limit(name: str) -> str:
    try:
        return (_INOTIFY / name).read_text().strip()
    except OSError:
        return "unknown"
