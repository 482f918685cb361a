"""A video → a picture for its submission.

Runs on a worker thread. Reads the video through ffmpeg; writes the picture, by way of a hidden `.part` file beside it.
"""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from loguru import logger

from biliupd.edit.ffmpeg import Ffmpeg, file_url
from biliupd.edit.media import READ_ONLY
from biliupd.errors import BiliupdError, Stopped, TemporaryError

WIDTH, HEIGHT = 1146, 717  #: pixels, as Bilibili's own upload page makes them
DEFAULT = Path(__file__).with_name("default-cover.jpg")
PLACES = (0.2, 0.5, 0.8)  #: where in the video a frame is looked for
DULL_BYTES = 14_000  #: a picture of one colour, or nearly so, is smaller than this at the quality used

_FILTERS = (
    f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=decrease,format=yuv444p,"
    f"pad={WIDTH}:{HEIGHT}:(ow-iw)/2:(oh-ih)/2,setsar=1,thumbnail=n=12,setpts=N,format=yuvj420p")


def make_cover(video: Path, output: Path, ffmpeg: Ffmpeg, *, duration_seconds: float) -> bool:
    """Write a JPEG of 1146x717 pixels with a frame of the video; False: it is the picture shipped with biliupd.

    Replaces `output`. Raises Stopped, and TemporaryError when nothing at all can be written.
    """
    temp = output.with_name("." + hashlib.sha256(os.fsencode(output.name)).hexdigest()[:20] + ".part")
    try:
        try:
            own = _best_frame(video, temp, ffmpeg, duration_seconds)
        except Stopped:
            raise
        except (BiliupdError, OSError) as error:
            logger.warning("no cover from {!a}, the default picture is used: {}", video.name, error)
            own = False
        try:
            if not own:
                shutil.copyfile(DEFAULT, temp)
            with open(temp, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temp, output)
        except OSError as error:
            raise TemporaryError(f"the cover {output.name!a} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temp.unlink()
    return own


def _best_frame(video: Path, temp: Path, ffmpeg: Ffmpeg, duration_seconds: float) -> bool:
    """The first frame that is not dull, else the least dull one."""
    best = b""
    for place in PLACES:
        try:
            picture = _frame(video, temp, ffmpeg, place * duration_seconds)
        except Stopped:
            raise
        except BiliupdError:
            if best or place != PLACES[-1]:
                continue
            raise
        best = max(best, picture, key=len)
        if len(best) >= DULL_BYTES:
            break
    if best:
        temp.write_bytes(best)
    return bool(best)


def _frame(video: Path, temp: Path, ffmpeg: Ffmpeg, at_seconds: float) -> bytes:
    """A typical frame among the next keyframes. Only these are decoded: a 4K video costs no more than a small one."""
    ffmpeg.run([
        "-y", *READ_ONLY, "-skip_frame", "nokey", "-noaccurate_seek", "-ss", f"{at_seconds:.3f}", "-t", "40",
        "-i", file_url(video), "-map", "0:v:0", "-an", "-vf", _FILTERS, "-frames:v", "1", "-c:v", "mjpeg", "-q:v", "3",
        "-f", "image2pipe", file_url(temp),
    ], output=temp)
    return temp.read_bytes()
