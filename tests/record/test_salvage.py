"""What a killed recorder, or a power cut, left of HLS and of ffmpeg's segments is made whole."""

import shutil
from pathlib import Path

import pytest
from recording_support import MediaServer, Recording, complaints, run_ffmpeg
from support import wait_until
from test_hls import Channel, folder_bodies
from test_hls_sound import apart, merged, offer, streams  # noqa: F401

from biliupd.record import broadcast as broadcasts
from biliupd.record.ffmpeg.segments import mark_of, usable
from biliupd.record.parts import digest_of
from biliupd.record.playlist import Entry, MediaPlaylist, parse, write
from biliupd.record.salvage import salvage
from biliupd.record.spec import Exit


def listed(path: Path) -> list[tuple[str, float]]:
    playlist = parse(path.read_text())
    assert isinstance(playlist, MediaPlaylist)
    assert playlist.ended
    return [(segment.uri, segment.duration) for segment in playlist.segments]


def box(kind: bytes, size: int) -> bytes:
    return (size + 8).to_bytes(4, "big") + kind + b"m" * size


PACKET = b"\x47" + b"p" * 187
FRAGMENT = box(b"moof", 40) + box(b"mdat", 900)


@pytest.mark.parametrize(("suffix", "body", "kept"), [
    (".ts", PACKET * 5, PACKET * 5),
    (".ts", PACKET * 5 + PACKET[:90], PACKET * 5),
    (".ts", PACKET * 5 + b"\0" * 4096, PACKET * 5),
    (".ts", PACKET * 5 + b"garbage" * 90, PACKET * 5),
    (".ts", b"\0" * 4096, b""),
    (".ts", b"", b""),
    (".m4s", box(b"styp", 16) + FRAGMENT, box(b"styp", 16) + FRAGMENT),
    (".m4s", FRAGMENT * 2 + FRAGMENT[:-1], FRAGMENT * 2),
    (".m4s", FRAGMENT + box(b"moof", 40), FRAGMENT),
    (".m4s", FRAGMENT * 2 + FRAGMENT[:400] + b"\0" * 548, FRAGMENT * 2),
    (".m4s", FRAGMENT[:-9], b""),
    (".m4s", b"\0" * 4096, b""),
    (".aac", b"\xff\xf1sound", b"\xff\xf1sound"),
    (".aac", b"\0" * 4096, b""),
])
def test_of_a_torn_segment_what_is_whole_is_kept(suffix: str, body: bytes, kept: bytes) -> None:
    assert usable(body, suffix) == kept
    assert usable(kept, suffix) == kept


def test_a_killed_recording_with_sound_of_its_own_is_ended_in_both(
        recording: Recording, server: MediaServer, apart: Path) -> None:  # noqa: F811
    pictures, sound, url = offer(server, apart)
    pictures.last = sound.last = 6
    pictures.ended = sound.ended = False
    process = recording.start(url, "hls", stall_seconds=20.0, sync_seconds=2.0)
    folder = recording.directory / "P001"
    wait_until(lambda: len(list(folder.glob("sound0*.m4s"))) == len(list(folder.glob("0*.m4s"))) == 6)
    wait_until(lambda: (folder / "sound.m3u").exists() and "sound000006" in (folder / "sound.m3u").read_text())
    wait_until(lambda: "sound" in (recording.broadcast.position or {}))
    process.kill()
    process.wait()
    (folder / "000007.m4s").write_bytes(pictures.bodies[6])  # not listed yet
    (folder / "sound000007.m4s").write_bytes(sound.bodies[6][:-50])  # nor this, and it is torn
    (folder / "000008.m4s").write_bytes(b"")
    (folder / "sound000008.m4s").write_bytes(bytes(5000))
    assert len(salvage(recording.directory)) == 1
    assert [name for name, _ in listed(folder / "video.m3u")] == [f"{n:06}.m4s" for n in range(1, 8)]
    assert [name for name, _ in listed(folder / "sound.m3u")] == [f"sound{n:06}.m4s" for n in range(1, 7)]
    index = (folder / "index.m3u8").read_text()
    assert "video.m3u" in index
    assert "sound.m3u" in index
    assert index.endswith("#EXT-X-ENDLIST\n")
    broadcast = recording.broadcast
    assert broadcast.files == [{"name": "P001/index.m3u8", "seconds": pytest.approx(7, abs=0.2), "bytes": sum(
        path.stat().st_size for path in folder.iterdir() if path.suffix in (".m4s", ".mp4"))}]
    assert broadcast.ledger[-1]["cause"] == "salvaged"
    assert broadcast.position is not None
    assert digest_of(pictures.bodies[6]) in broadcast.position["recent"]
    assert broadcast.position["sound"]["path"].endswith(".m4s")
    assert salvage(recording.directory) == []
    output = merged(recording, "P001")
    assert complaints(output) == ""
    assert {kind for kind, _ in streams(output)} == {"video", "audio"}


def test_after_a_power_cut_a_ts_recording_ends_with_a_whole_packet_and_goes_on(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 5, False
    process = recording.start(channel.url, "hls", stall_seconds=20.0)
    folder = recording.directory / "P001"
    wait_until(lambda: len(list(folder.glob("*.ts"))) == 5)
    process.kill()
    process.wait()
    torn = channel.bodies[4]
    (folder / "000005.ts").write_bytes(torn[:188 * 30] + bytes(len(torn) - 188 * 30))
    (folder / "000004.ts").write_bytes(b"")
    (folder / "index.m3u8").write_text(write([Entry("000001.ts", 1.0)]))
    assert len(salvage(recording.directory)) == 1
    assert folder_bodies(recording) == [*channel.bodies[:3], torn[:188 * 30]]
    assert recording.broadcast.figures.media_seconds == pytest.approx(3 + 188 * 30 / len(torn), abs=0.1)
    assert salvage(recording.directory) == []
    channel.last, channel.ended = 12, True
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording, "P002")[-7:] == channel.bodies[5:]


@pytest.fixture
def work(recording: Recording, media: Path) -> Path:
    """A part of three segments, and ffmpeg's folder with the third one and three more, one of them torn."""
    part, work = recording.directory / "P001", recording.directory / ".ffmpeg-1-2"
    part.mkdir()
    work.mkdir()
    names = sorted(path.name for path in (media / "fmp4").glob("*.m4s"))
    for folder, first, last, width in ((part, 0, 3, 6), (work, 2, 6, 8)):
        shutil.copy(media / "fmp4" / "init.mp4", folder)
        for n, name in enumerate(names[first:last], first + 1):
            shutil.copy(media / "fmp4" / name, folder / f"{n:0{width}}.m4s")
    (part / "index.m3u8").write_text(write([Entry("000001.m4s", 1.0)], init="init.mp4"))
    (work / "index.m3u8").write_text(write([Entry(f"{n:08}.m4s", 1.0) for n in (3, 4)], init="init.mp4"))
    (work / "00000006.m4s").write_bytes((work / "00000006.m4s").read_bytes()[:-9])
    (work / "00000007.m4s.tmp").write_bytes(b"unfinished")
    return work


def test_what_ffmpeg_had_ended_goes_into_its_part(
        recording: Recording, work: Path, media: Path, tmp_path: Path) -> None:
    broadcast = recording.broadcast
    broadcast.position = {"recent": [], "clock": [1, 0, 12800]}
    broadcasts.write(recording.directory, broadcast)
    assert len(salvage(recording.directory)) == 1
    assert not work.exists()
    bodies = [path.read_bytes() for path in sorted((media / "fmp4").glob("*.m4s"))]
    assert folder_bodies(recording) == bodies[:5]
    position = recording.broadcast.position
    assert position is not None
    assert position["recent"][-1] == mark_of(bodies[4])
    assert position["clock"] == [1, pytest.approx(5 * position["clock"][2], rel=0.02), position["clock"][2]]
    made = tmp_path / "made.mp4"
    run_ffmpeg("-i", recording.directory / "P001" / "index.m3u8", "-c", "copy", made)
    assert complaints(made) == ""
    assert recording.broadcast.figures.media_seconds == pytest.approx(5, abs=1.1)
    assert salvage(recording.directory) == []


def test_a_salvage_that_was_killed_itself_takes_nothing_twice(
        recording: Recording, work: Path, media: Path, tmp_path: Path) -> None:
    shutil.copytree(work, tmp_path / "again")
    salvage(recording.directory)
    index = recording.directory / "P001" / "index.m3u8"
    index.write_text(index.read_text().replace("#EXT-X-ENDLIST\n", ""))
    shutil.copytree(tmp_path / "again", work)
    salvage(recording.directory)
    assert len(folder_bodies(recording)) == 5


@pytest.mark.parametrize("ended", [True, False])
def test_without_a_part_to_go_into_it_gets_one_of_its_own(recording: Recording, work: Path, ended: bool) -> None:
    part = recording.directory / "P001"
    if ended:
        (part / "index.m3u8").write_text((part / "index.m3u8").read_text() + "#EXT-X-ENDLIST\n")
    else:
        (part / "init.mp4").write_bytes(b"of another codec")
    salvage(recording.directory)
    assert len(folder_bodies(recording, "P002")) == 3
    assert [item["name"] for item in recording.broadcast.files][-1] == "P002/index.m3u8"


def test_a_folder_of_ffmpeg_without_media_goes(recording: Recording) -> None:
    work = recording.directory / ".ffmpeg-1-2"
    work.mkdir()
    (work / "00000001.m4s.tmp").write_bytes(b"unfinished")
    assert salvage(recording.directory) == []
    assert recording.names == []
