"""A look at what only ffmpeg reads: RTMP, RTSP and SRT by an attempt to play it, DASH by its manifest.

Runs on the thread of whoever looks at a room; an ffmpeg lives for at most the time-out of a request. There is no way to
ask such a server whether somebody is on air, so an attempt decides: media came, the server itself said that there is
nothing, or nobody knows.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping

from biliupd.config import LiveConfig
from biliupd.live.fetch import NoAnswer, fetch
from biliupd.live.media import LARGEST_PLAYLIST_BYTES, not_media
from biliupd.live.status import LiveStatus, State

ANALYZED = "1000000"  # microseconds of media: enough to see that there are some, and no five seconds
# RTMP: NetStream.Play.StreamNotFound and the like; RTSP (RFC 7826): 404. Both are said by the server itself.
_NOTHING_THERE = re.compile(r"StreamNotFound|stream not found|404 Not Found|no such stream", re.IGNORECASE)
_ROOT = re.compile(rb"<(?:\w+:)?MPD\b[^>]*>")
_DYNAMIC = re.compile(rb"""\btype\s*=\s*["']dynamic["']""")


def look_by_playing(url: str, live: LiveConfig) -> LiveStatus:
    """Live when media comes within the time-out, offline when the server says there is none, else unknown."""
    program = shutil.which("ffmpeg") or _own_ffmpeg()
    if not program:
        return LiveStatus(State.UNKNOWN, "ffmpeg is missing, and nothing else can look at such an address")
    argv = [program, "-nostdin", "-hide_banner", "-v", "error", "-analyzeduration", ANALYZED, "-i", url, "-map", "0",
            "-c", "copy", "-t", "0.1", "-f", "null", "-"]  # fmt: skip
    seconds = live.request_timeout_seconds
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return LiveStatus(State.UNKNOWN, f"no media within {seconds:g} s", answered=False)
    except (OSError, ValueError) as error:
        return LiveStatus(State.UNKNOWN, f"ffmpeg cannot be run: {type(error).__name__}", answered=False)
    if done.returncode == 0:
        return LiveStatus(State.LIVE)
    if _NOTHING_THERE.search(done.stderr.decode(errors="replace")):
        return LiveStatus(State.OFFLINE, "the server says there is no such stream")
    return LiveStatus(State.UNKNOWN, "no connection, or no media on it", answered=False)


def _own_ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return ""


def look_at_manifest(url: str, headers: Mapping[str, str], live: LiveConfig) -> LiveStatus:
    """A DASH manifest (ISO 23009-1): live when its type is dynamic; static, the default, is a replay."""
    try:
        answer = fetch(url, timeout_seconds=live.request_timeout_seconds, largest_bytes=LARGEST_PLAYLIST_BYTES,
                       headers=headers)  # fmt: skip
    except NoAnswer as error:
        return LiveStatus(State.UNKNOWN, str(error), answered=False)
    if answer.status != 200:
        return not_media(answer)
    root = _ROOT.search(answer.body)
    if root is None:
        return LiveStatus(State.UNKNOWN, "the answer is not a DASH manifest")
    if _DYNAMIC.search(root[0]):
        return LiveStatus(State.LIVE)
    return LiveStatus(State.OFFLINE, "replay: the manifest is static")
