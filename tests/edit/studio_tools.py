"""Helpers that the tests of this room import by name."""

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg

BUNDLED = imageio_ffmpeg.get_ffmpeg_exe()


def make(*args: str) -> None:
    """Run ffmpeg, as whoever made the media."""
    subprocess.run([BUNDLED, "-nostdin", "-v", "error", "-y", *args], check=True, timeout=60)


def hls(studio: Path, playlist: Path, *args: str) -> None:
    """The show of 30 s in segments of 2 s, as ffmpeg's own HLS muxer makes them."""
    make("-i", str(studio / "show.mp4"), "-map", "0:v", "-map", "0:a", "-c", "copy", "-f", "hls", "-hls_time", "2",
         "-hls_list_size", "0", "-hls_fmp4_init_filename", "init.mp4", *args, str(playlist))


def listing(path: Path) -> list[str]:
    """Names in a directory."""
    return sorted(item.name for item in path.iterdir())


def packets(path: Path) -> list[int]:
    """Number of video and audio packets."""
    text = subprocess.run([BUNDLED, "-v", "error", "-i", path, "-c", "copy", "-f", "framecrc", "-"], check=True,
                          capture_output=True, text=True).stdout
    return [len(re.findall(rf"^{stream}, ", text, re.MULTILINE)) for stream in (0, 1)]


def edit(playlist: Path, old: str, new: str) -> None:
    """Replace what stands in a playlist."""
    text = playlist.read_text()
    assert old in text
    playlist.write_text(text.replace(old, new))


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN (bit 21)."""
    with open("/proc/self/status") as status:
        effective = next(line for line in status if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 21 & 1)
