"""Sound in a playlist of its own: recorded beside the pictures, and one mp4 with both afterwards."""

import subprocess
import threading
from pathlib import Path

import pytest
from recording_support import MediaServer, Recording, complaints, probe_seconds, run_ffmpeg
from support import wait_until
from test_hls import Channel

from biliupd.config import EditConfig
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.merge import merge
from biliupd.intake import is_video
from biliupd.record.spec import Exit


@pytest.fixture(scope="module")
def apart(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with v/ (no sound) and a/ (nothing else), segments of a second."""
    directory = tmp_path_factory.mktemp("apart")
    for name, leave_out in (("v", "-an"), ("a", "-vn")):
        (directory / name).mkdir()
        run_ffmpeg("-i", media / "clip.flv", leave_out, "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_list_size", 0,
                   "-hls_segment_type", "fmp4", "-hls_segment_filename", directory / name / "%03d.m4s",
                   directory / name / "index.m3u8")
    return directory


def offer(server: MediaServer, apart: Path) -> tuple[Channel, Channel, str]:
    """Pictures, sound, and the address of the playlist that names both."""
    pictures, sound = (Channel(server, apart / name, prefix=f"/{name}") for name in ("v", "a"))
    server.answers["/m.m3u8"] = server.body(
        b'#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="s",NAME="x",URI="a/index.m3u8"\n'
        b'#EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO="s"\nv/index.m3u8\n')
    return pictures, sound, f"{server.url}/m.m3u8"


def streams(path: Path) -> list[tuple[str, float]]:
    """Kind and duration of each stream in a file."""
    found = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "stream=codec_type,duration", "-of", "csv=p=0",
                            f"file:{path}"], capture_output=True, text=True, check=True).stdout.split()
    return [(line.split(",")[0], float(line.split(",")[1])) for line in found]


def merged(recording: Recording, name: str) -> Path:
    output = recording.directory / f"{name}.mp4"
    merge(recording.directory / name / "index.m3u8", output, Ffmpeg(EditConfig(), threading.Event()))
    return output


def test_sound_of_its_own_is_recorded_too_and_one_mp4_holds_both(
        recording: Recording, server: MediaServer, apart: Path) -> None:
    pictures, sound, url = offer(server, apart)
    assert recording.run(url, "hls") == Exit.OVER
    folder = recording.directory / "P001"
    assert [path.read_bytes() for path in sorted(folder.glob("0*.m4s"))] == pictures.bodies
    assert [path.read_bytes() for path in sorted(folder.glob("sound0*.m4s"))] == sound.bodies
    assert (folder / "index.m3u8").read_text().endswith("#EXT-X-ENDLIST\n")
    assert [path.name for path in folder.iterdir() if is_video(str(path)) and path.suffix == ".m3u8"] == ["index.m3u8"]
    assert recording.broadcast.ledger == []
    output = merged(recording, "P001")
    assert complaints(output) == ""
    assert [(kind, pytest.approx(12, abs=0.3)) for kind in ("video", "audio")] == streams(output)


def test_a_hole_in_either_begins_a_new_part_so_that_both_can_be_put_together(
        recording: Recording, server: MediaServer, apart: Path) -> None:
    pictures, sound, url = offer(server, apart)
    pictures.last = sound.last = 3
    pictures.ended = sound.ended = False
    del server.answers[pictures.path(4)], server.answers[sound.path(8)]
    process = recording.start(url, "hls", reconnect_seconds=20.0, stall_seconds=20.0)
    for last, pieces in ((3, 6), (7, 13)):
        pictures.last = sound.last = last
        wait_until(lambda pieces=pieces: len(list(recording.directory.glob("P*/*0*.m4s"))) == pieces)  # type: ignore
    pictures.last = sound.last = 12
    pictures.ended = sound.ended = True
    assert process.wait(20) == Exit.OVER
    assert [path.read_bytes() for path in sorted(recording.directory.glob("P*/0*.m4s"))] == [
        body for number, body in enumerate(pictures.bodies) if number != 4]
    causes = [row["cause"] for row in recording.broadcast.ledger if row["cause"] != "fragment"]
    assert sorted(causes) == ["gap-split", "gap-split", "skipped-segment", "skipped-segment"]
    seconds = 0.0
    for name in recording.names:
        output = merged(recording, name)
        assert complaints(output) == ""
        assert {kind for kind, _ in streams(output)} == {"video", "audio"}
        seconds += probe_seconds(output)
    assert seconds == pytest.approx(11, abs=2.5)
