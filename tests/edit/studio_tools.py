"""Helpers that the tests of this room import by name."""

import subprocess


def make(*args: str) -> None:
    """Run the system's ffmpeg, as whoever made the media."""
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-y", *args], check=True, timeout=60)


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (bit 21)."""
    with open("/proc/self/status") as status:
        effective = next(line for line in status if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 21 & 1)
