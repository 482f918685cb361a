"""A video → a picture for its submission, and a small one for the library.

Runs on a worker thread. Reads the video through ffmpeg; writes pictures, by way of hidden `.part` files beside them.
Fonts are looked up with fontconfig's `fc-list`; without it, or without a font for the title, pictures have no title.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from loguru import logger

from biliupd.edit.ffmpeg import Ffmpeg, file_url
from biliupd.edit.media import READ_ONLY
from biliupd.errors import BiliupdError, Stopped, TemporaryError

WIDTH, HEIGHT = 1146, 717  #: pixels, as Bilibili's own upload page makes them
THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT = 320, 200  #: the same shape
DEFAULT = Path(__file__).with_name("default-cover.jpg")
PLACES = (0.2, 0.5, 0.8)  #: where in the video a frame is looked for
DULL_BYTES = 14_000  #: a picture with next to nothing on it is smaller than this at the quality used
FLAT_BYTES = 10_000  #: and one of a single colour than this: black 5 KB, red 9 KB, ten letters on black 12 KB

MARGIN = 70  #: pixels left free beside the title
MIDDLE = 320  #: pixels from the top to the middle of the title
FONT_SIZES = (84, 68, 54)  #: pixels; the largest at which the title fits
MOST_LINES = 3
LINE_HEIGHT = 1.35
SMALL, CAPITAL = 0.54, 0.62  #: width of a small Latin letter and of other narrow ones, in heights of the font

_FILTERS = (
    f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=decrease,format=yuv444p,"
    f"pad={WIDTH}:{HEIGHT}:(ow-iw)/2:(oh-ih)/2,setsar=1,thumbnail=n=12,setpts=N,format=yuvj420p")
_JPEG = ("-frames:v", "1", "-c:v", "mjpeg", "-q:v", "3", "-f", "image2pipe")
_IMAGE = ("-protocol_whitelist", "file", "-f", "image2pipe", "-c:v", "mjpeg")


def make_cover(video: Path, output: Path, ffmpeg: Ffmpeg, *, duration_seconds: float, title: str = "") -> bool:
    """Write a JPEG of 1146x717 pixels with a frame of the video.

    False: it has none that shows anything, so it is the picture shipped with biliupd with `title` on it. Replaces
    `output`. Raises Stopped, and TemporaryError when nothing at all can be written.
    """
    with _written(output) as temp:
        try:
            own = _best_frame(video, temp, ffmpeg, duration_seconds)
        except Stopped:
            raise
        except (BiliupdError, OSError) as error:
            logger.warning("no cover from {!a}, the default picture is used: {}", video.name, error)
            own = False
        if not own:
            _default(temp, title, ffmpeg)
    return own


def make_thumbnail(cover: Path, output: Path, ffmpeg: Ffmpeg) -> None:
    """Write a JPEG of 320x200 pixels from a cover. Raises what `Ffmpeg.run` raises, TemporaryError for the disk."""
    with _written(output) as temp:
        ffmpeg.run(["-y", *_IMAGE, "-i", file_url(cover), "-vf",
                    f"scale={THUMBNAIL_WIDTH}:{THUMBNAIL_HEIGHT}:flags=area", *_JPEG, file_url(temp)], output=temp)


@contextlib.contextmanager
def _written(output: Path) -> Iterator[Path]:
    """A hidden file that gets the name of the output once it is written."""
    temp = output.with_name("." + hashlib.sha256(os.fsencode(output.name)).hexdigest()[:20] + ".part")
    try:
        yield temp
        with open(temp, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temp, output)
    except OSError as error:
        raise TemporaryError(f"the picture {output.name!a} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temp.unlink()


def _best_frame(video: Path, temp: Path, ffmpeg: Ffmpeg, duration_seconds: float) -> bool:
    """The first frame that is not dull, else the least dull one; False when all are of one colour."""
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
    if len(best) < FLAT_BYTES:
        return False
    temp.write_bytes(best)
    return True


def _frame(video: Path, temp: Path, ffmpeg: Ffmpeg, at_seconds: float) -> bytes:
    """A typical frame among the next keyframes. Only these are decoded: a 4K video costs no more than a small one."""
    ffmpeg.run([
        "-y", *READ_ONLY, "-skip_frame", "nokey", "-noaccurate_seek", "-ss", f"{at_seconds:.3f}", "-t", "40",
        "-i", file_url(video), "-map", "0:v:0", "-an", "-vf", _FILTERS, *_JPEG, file_url(temp),
    ], output=temp)
    return temp.read_bytes()


def _default(temp: Path, title: str, ffmpeg: Ffmpeg) -> None:
    """The picture shipped with biliupd, with the title on it if that can be drawn."""
    try:
        if _draw(temp, title, ffmpeg):
            return
    except Stopped:
        raise
    except BiliupdError as error:
        logger.info("the default picture gets no title: {}", error)
    shutil.copyfile(DEFAULT, temp)


def _draw(temp: Path, title: str, ffmpeg: Ffmpeg) -> bool:
    """Draw the title; False when there is none, or no font for it. Each line is a file: text, never a filter."""
    text, font = _drawable(title)
    if not text:
        return False
    size, lines = _laid_out(text)
    filters, files = [], []
    try:
        for number, line in enumerate(lines):
            file = temp.with_name(f"{temp.stem}.{number}.part")
            files.append(file)
            file.write_text(line, encoding="utf-8")
            baseline = round(MIDDLE + (number - (len(lines) - 1) / 2) * size * LINE_HEIGHT + size * 0.35)
            filters.append(
                f"drawtext=fontfile={_escaped(font)}:textfile={_escaped(os.path.abspath(file))}:expansion=none:"
                f"fontsize={size}:fontcolor=white:shadowcolor=black@0.5:shadowx=2:shadowy=3:x=(w-text_w)/2:"
                f"y={baseline}-max_glyph_a")
        ffmpeg.run(["-y", *_IMAGE, "-i", file_url(DEFAULT), "-vf", ",".join(filters), *_JPEG, file_url(temp)],
                   output=temp)
    finally:
        for file in files:
            file.unlink(missing_ok=True)
    return True


def _drawable(title: str) -> tuple[str, str]:
    """So much of a title as one font can show, and the font's path; "" when that is nothing. First go pictograms."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in title).split())
    plain = "".join(letter for letter in text if letter <= "\uffff")  # beyond lie pictograms, and rare characters
    words = "".join(letter for letter in plain if unicodedata.category(letter) not in ("So", "Mn"))
    for some in (text, plain, words):
        shown = " ".join(some.split())
        if shown and (font := _font(shown)):
            return shown, font
    return "", ""


def _font(text: str) -> str:
    """Path of the plainest font with all letters of a text; "" when there is none."""
    letters = " ".join(f"{ord(letter):x}" for letter in sorted({*text, "."}))
    try:
        found = subprocess.run(
            ["fc-list", f":scalable=true:charset={letters}", "--format", "%{weight}\t%{slant}\t%{file}\n"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.debug("no fonts: {}", error)
        return ""
    rows = [line.split("\t", 2) for line in os.fsdecode(found).splitlines() if line.count("\t") >= 2]

    def oddness(row: list[str]) -> tuple[object, ...]:
        weight, slant, path = row
        return "Mono" in path, slant != "0", abs(int(weight) - 80) if weight.isdigit() else 0, len(path), path

    return min(rows, key=oddness)[2] if rows else ""  # 80 is fontconfig's regular weight


def _escaped(path: str) -> str:
    """A path as the value of an option inside a filter graph: escaped once as a value, once more for the graph."""
    return re.sub(r"([\\'\[\],;])", r"\\\1", re.sub(r"([\\':])", r"\\\1", path))


def _laid_out(text: str) -> tuple[int, list[str]]:
    """Font size and lines. What does not fit in the smallest size is cut off."""
    for size in FONT_SIZES:
        lines = _wrapped(text, (WIDTH - 2 * MARGIN) / size)
        if len(lines) <= MOST_LINES:
            return size, lines
    return size, [*lines[:MOST_LINES - 1], lines[MOST_LINES - 1][:-2] + "..."]


def _wrapped(text: str, most: float) -> list[str]:
    """Lines of at most so many heights of the font; Latin words stay whole where they can."""
    lines = [""]
    for word in re.findall(r"[!-~]+|.", text):
        if _width(lines[-1] + word) > most and lines[-1]:
            lines.append("")
        for letter in word if _width(word) > most else [word]:
            if _width(lines[-1] + letter) > most and lines[-1]:
                lines.append("")
            lines[-1] += letter if lines[-1] else letter.lstrip()
    return [line.rstrip() for line in lines if line.strip()]


def _width(text: str) -> float:
    return sum(1.0 if unicodedata.east_asian_width(letter) in "WFA" else SMALL if letter.islower() else CAPITAL
               for letter in text)
