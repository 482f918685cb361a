"""Real media made by ffmpeg, a media server, and a broadcast's folder to record into."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from recording_support import MediaServer, Recording, run_ffmpeg

from biliupd.record import broadcast as broadcasts
from biliupd.record.broadcast import Broadcast

SOURCES = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25", "-f", "lavfi", "-i", "sine=frequency=440"]
CODECS = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0", "-pix_fmt", "yuv420p", "-c:a", "aac"]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.flv (12 s, a keyframe each second), other.flv (another size), ts/ and fmp4/ (1 s segments)."""
    directory = tmp_path_factory.mktemp("media")
    run_ffmpeg(*SOURCES, "-t", 12, *CODECS, "-f", "flv", directory / "clip.flv")
    other = ["-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", *SOURCES[4:]]
    run_ffmpeg(*other, "-t", 4, *CODECS, "-f", "flv", directory / "other.flv")
    for name, kind in (("ts", "mpegts"), ("fmp4", "fmp4")):
        (directory / name).mkdir()
        run_ffmpeg("-i", directory / "clip.flv", "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_list_size", 0,
                   "-hls_segment_type", kind, "-hls_segment_filename",
                   directory / name / ("%03d.ts" if kind == "mpegts" else "%03d.m4s"), directory / name / "index.m3u8")
    return directory


@pytest.fixture
def server() -> Iterator[MediaServer]:
    server = MediaServer()
    yield server
    server.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    directory = tmp_path / "show"
    directory.mkdir()
    broadcasts.write(directory, Broadcast(id="b" * 32, streamer="someone", started_at="2026-01-01T00:00:00+00:00"))
    recording = Recording(directory, tmp_path)
    yield recording
    for process in recording.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
