"""Real media, made once, and ffmpeg as the rooms use it."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from studio_tools import BUNDLED, hls, make

from biliupd.config import EditConfig
from biliupd.edit.ffmpeg import Ffmpeg

SECONDS = 30
SOURCE = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-f", "lavfi", "-i", "sine=frequency=440")
ENCODE = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "50", "-c:a", "aac")


@pytest.fixture(scope="session")
def studio(tmp_path_factory) -> Path:
    """show-ts and show-fmp4: 15 segments of 2 s each; clip.mp4, clip.flv, clip.mkv: 10 s."""
    path = tmp_path_factory.mktemp("studio")
    make(*SOURCE, "-t", str(SECONDS), *ENCODE, str(path / "show.mp4"))
    for kind, name in (("mpegts", "ts"), ("fmp4", "m4s")):
        show = path / ("show-ts" if kind == "mpegts" else "show-fmp4")
        show.mkdir()
        hls(path, show / "index.m3u8", "-hls_segment_type", kind, "-hls_segment_filename", str(show / f"%03d.{name}"))
    make("-i", str(path / "show.mp4"), "-t", "10", "-c", "copy", str(path / "clip.mp4"))
    for name in ("clip.flv", "clip.mkv"):
        make("-i", str(path / "clip.mp4"), "-c", "copy", str(path / name))
    make("-i", str(path / "clip.mp4"), "-c", "copy", "-movflags", "+faststart", str(path / "fast.mp4"))
    return path


@pytest.fixture
def show(studio: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A fresh copy of a show; its playlist."""

    def copy(kind: str = "ts", name: str = "show") -> Path:
        shutil.copytree(studio / f"show-{kind}", tmp_path / name)
        return tmp_path / name / "index.m3u8"

    return copy


@pytest.fixture(params=["system", "bundled"])
def each_ffmpeg(request) -> Ffmpeg:
    """The system's ffmpeg and the one inside imageio-ffmpeg: years apart."""
    path = None if request.param == "system" else Path(BUNDLED)
    return Ffmpeg(EditConfig(ffmpeg=path), threading.Event())


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def ffmpeg(stop) -> Ffmpeg:
    """The bundled one: it starts in a third of the time that Debian's takes."""
    return Ffmpeg(EditConfig(ffmpeg=Path(BUNDLED)), stop)


@pytest.fixture
def stand_in(tmp_path, stop) -> Callable[..., Ffmpeg]:
    """A shell script in the place of ffmpeg."""

    def build(script: str, **settings) -> Ffmpeg:
        path = tmp_path / "stand-in"
        path.write_text("#!/bin/sh\n" + script.replace("exec ffmpeg", f"exec {BUNDLED}"))
        path.chmod(0o755)
        return Ffmpeg(EditConfig(ffmpeg=path, **settings), stop)

    return build
