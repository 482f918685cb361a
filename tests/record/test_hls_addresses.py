"""A recorder process that records HLS over several addresses: what fails is left, and nothing is recorded twice."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from Crypto.Cipher import AES
from recording_support import MediaServer, Recording, run_ffmpeg
from support import wait_until
from test_hls import Channel, folder_bodies

from biliupd.record import spec as specs
from biliupd.record.spec import Exit, Spec, Stream

SECRET = bytes(range(16))


@pytest.fixture
def second() -> Iterator[MediaServer]:
    """Another host."""
    server = MediaServer()
    yield server
    server.close()


def write(recording: Recording, *urls: str, **settings: object) -> Path:
    path = recording.directory.parent / "spec.json"
    specs.write(path, Spec(str(recording.directory), tuple(Stream(url, "hls") for url in urls), **{  # type: ignore
        "reconnect_seconds": 8.0, "stall_seconds": 3.0, **settings}))
    return path


def begin(recording: Recording, *urls: str, **settings: object) -> "subprocess.Popen[str]":
    path = write(recording, *urls, **settings)
    with (recording.directory.parent / "recorder.log").open("a") as log:
        process = subprocess.Popen([sys.executable, "-m", "biliupd.record.recorder", str(path)], stderr=log, text=True)
    recording.processes.append(process)
    return process


def rows(recording: Recording) -> list[tuple[str, float]]:
    return [(row["cause"], row["seconds"]) for row in recording.broadcast.ledger if row["cause"] != "fragment"]


def files(recording: Recording, name: str = "P001", kind: str = "ts") -> int:
    return len(list(recording.directory.glob(f"{name}/*.{kind}")))


@pytest.mark.parametrize("trouble", ["playlist-404", "playlist-page", "segments-404", "no-host", "segment-page"])
def test_an_address_that_fails_is_left_for_the_next_one_and_nothing_is_missing(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path, trouble: str) -> None:
    bad, good = Channel(server, media / "ts"), Channel(second, media / "ts", numbering=50, prefix="/edge")
    page = server.body(b"<html>busy</html>", "text/html")
    url = bad.url
    if trouble == "no-host":
        url = bad.url.replace("127.0.0.1", "no.such.host.invalid")
    elif trouble.startswith("playlist"):
        server.answers["/live/index.m3u8"] = page if trouble == "playlist-page" else server.status(404)
    else:
        for number in range(3, 12):
            server.answers[bad.path(number)] = page if trouble == "segment-page" else server.status(404)
    process = begin(recording, url, good.url)
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording) == bad.bodies
    assert [seconds for _, seconds in rows(recording) if seconds] == []
    assert recording.broadcast.needs_address == ""


def test_new_addresses_are_taken_up_at_once_when_the_old_one_is_refused(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path) -> None:
    old, new = Channel(server, media / "ts"), Channel(second, media / "ts", numbering=700, prefix="/edge")
    old.last, old.ended, new.first, new.last, new.ended = 4, False, 2, 8, False
    process = begin(recording, old.url)
    wait_until(lambda: files(recording) == 4)
    server.answers["/live/index.m3u8"] = server.status(403)
    wait_until(lambda: recording.broadcast.needs_address)
    assert "403" in recording.broadcast.needs_address
    write(recording, new.url)
    wait_until(lambda: files(recording) == 8)
    wait_until(lambda: recording.broadcast.needs_address == "")
    new.last, new.ended = 12, True
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording) == old.bodies
    assert [cause for cause, _ in rows(recording)] == ["seamless-join"]
    assert recording.broadcast.figures.reconnects == 1


def test_a_planned_switch_leaves_the_old_address_when_the_new_one_delivers(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path) -> None:
    old, new = Channel(server, media / "ts"), Channel(second, media / "ts", prefix="/edge")
    old.last, old.ended, new.last, new.ended = 4, False, 3, False
    process = begin(recording, old.url)
    wait_until(lambda: files(recording) == 4)
    write(recording, new.url)
    wait_until(lambda: second.requests)
    old.last = 6
    wait_until(lambda: files(recording) == 6)  # the new one has nothing yet: the old one goes on
    new.last = 9
    wait_until(lambda: files(recording) == 9)
    count = len(server.requests)
    new.last, new.ended = 12, True
    assert process.wait(20) == Exit.OVER
    assert len(server.requests) <= count + 2  # one may have been under way
    assert folder_bodies(recording) == old.bodies
    assert rows(recording) == [("cdn-switch", 0.0)]


def test_x_an_init_section_that_changes_under_its_address_begins_a_new_file(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run_ffmpeg("-i", media / "other.flv", "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_list_size", 0,
               "-hls_segment_type", "fmp4", "-hls_segment_filename", tmp_path / "other" / "%03d.m4s",
               tmp_path / "other" / "index.m3u8")
    channel = Channel(server, media / "fmp4")
    first, init = list(channel.bodies), (tmp_path / "other" / "init.mp4").read_bytes()
    channel.last, channel.ended = 5, False
    process = begin(recording, channel.url)
    wait_until(lambda: files(recording, kind="m4s") == 5)
    server.answers[channel.map] = server.in_turn(server.body(init[:300]), server.body(init))  # at first half of it
    others = [(tmp_path / "other" / f"{number:03}.m4s").read_bytes() for number in range(4)]
    for number, body in enumerate(others):
        server.answers[channel.path(5 + number)] = server.body(body)
    channel.last, channel.ended = 9, True
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording, "P001") == first[:5]
    assert folder_bodies(recording, "P002") == others
    assert (recording.directory / "P002" / "init.mp4").read_bytes() == init
    assert [cause for cause, _ in rows(recording)] == ["codec-change"]


def test_encrypted_segments_are_recorded_in_clear_and_a_refused_key_waits_for_another_address(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path) -> None:
    channels = [Channel(server, media / "ts", numbering=258), Channel(second, media / "ts", numbering=258)]
    for channel in channels:
        channel.extra[0] = '#EXT-X-KEY:METHOD=AES-128,URI="/a.key?x=1"'
        channel.extra[6] = f'#EXT-X-KEY:METHOD=AES-128,URI="/b.key",IV=0x{"ab" * 16}'
        channel.server.answers["/a.key"] = channel.server.answers["/b.key"] = server.body(SECRET)
        for number, body in enumerate(channel.bodies):
            iv = (258 + number).to_bytes(16, "big") if number < 6 else b"\xab" * 16
            padding = 16 - len(body) % 16
            channel.server.answers[channel.path(number)] = server.body(
                AES.new(SECRET, AES.MODE_CBC, iv).encrypt(body + bytes([padding]) * padding))
    server.answers["/b.key"] = server.status(403)
    process = begin(recording, channels[0].url, reconnect_seconds=15.0)
    wait_until(lambda: recording.broadcast.needs_address == "key: HTTP 403")
    wait_until(lambda: files(recording) == 6)
    write(recording, channels[1].url, reconnect_seconds=15.0)
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording) == channels[0].bodies
    assert server.requests.count("/a.key") == 1 or server.requests.count("/b.key") > 2


def test_what_the_ledger_says_is_missing_is_what_was_withheld(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    durations = [segment.duration for segment in channel.segments]
    channel.last, channel.ended = 6, False
    del server.answers[channel.path(1)]
    channel.extra[3] = "#EXT-X-GAP"
    process = begin(recording, channel.url)
    wait_until(lambda: files(recording) == 4)
    channel.first, channel.last, channel.ended = 8, 12, True  # 6 and 7 were never listed
    server.answers["/live/preroll-1.ts"] = server.body(b"an advertisement")
    channel.extra[9] = f"#EXTINF:2.5,\n{server.url}/live/preroll-1.ts"
    assert process.wait(20) == Exit.OVER
    kept = [number for number in range(12) if number not in (1, 3, 6, 7)]
    assert folder_bodies(recording) == [channel.bodies[number] for number in kept]
    sums: dict[str, float] = {}
    for cause, seconds in rows(recording):
        sums[cause] = sums.get(cause, 0.0) + seconds
    assert sums == {"skipped-segment": pytest.approx(durations[1] + durations[6] + durations[7], abs=0.05),
                    "gap-tag": pytest.approx(durations[3], abs=0.01), "ad": 2.5}
    figures = recording.broadcast.figures
    assert figures.lost_seconds == pytest.approx(sum(sums.values()))
    assert figures.media_seconds == pytest.approx(sum(durations[number] for number in kept), abs=0.01)
    assert "/live/preroll-1.ts" not in server.requests
    index = (recording.directory / "P001" / "index.m3u8").read_text()
    assert index.count("#EXT-X-DISCONTINUITY\n") == 4


def test_a_title_begins_a_new_file_and_so_does_a_long_gap(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 3, False
    settings: dict[str, object] = {"split_on_title": True, "split_gap_seconds": 1.5, "title": "one",
                                   "stall_seconds": 20.0}
    process = begin(recording, channel.url, **settings)
    wait_until(lambda: files(recording) == 3)
    write(recording, channel.url, **{**settings, "title": "two"})
    count = len(server.requests)
    wait_until(lambda: len(server.requests) > count + 3)  # some seconds later
    channel.last = 5
    wait_until(lambda: files(recording, "P002") == 2)
    channel.first, channel.last, channel.ended = 8, 12, True
    assert process.wait(20) == Exit.OVER
    assert [folder_bodies(recording, name) for name in recording.names] == [
        channel.bodies[:3], channel.bodies[3:5], channel.bodies[8:]]
    assert [cause for cause, _ in rows(recording)] == ["title-split", "skipped-segment", "gap-split"]


def test_a_segment_that_is_held_up_is_given_up_when_ten_later_ones_are_there_and_a_stop_waits_for_nobody(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.ended = False
    server.answers[channel.path(1)] = server.live(b"\x47", silent=True)
    process = begin(recording, channel.url, stall_seconds=30.0)
    wait_until(lambda: files(recording) == 11, 8.0)
    process.terminate()
    assert process.wait(3) == Exit.STOPPED
    assert folder_bodies(recording) == [channel.bodies[0], *channel.bodies[2:]]
    assert rows(recording) == [("skipped-segment", pytest.approx(1, abs=0.1))]


def test_a_variant_that_fails_has_a_backup_and_a_new_resolution_is_a_new_file(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path, tmp_path: Path) -> None:
    (tmp_path / "ts").mkdir()
    run_ffmpeg("-i", media / "other.flv", "-c", "copy", "-f", "hls", "-hls_time", 1, "-hls_list_size", 0,
               "-hls_segment_filename", tmp_path / "ts" / "%03d.ts", tmp_path / "ts" / "index.m3u8")
    low, high = Channel(server, media / "ts"), Channel(second, tmp_path / "ts", prefix="/high")
    low.last, low.ended = 3, False
    variant = "#EXT-X-STREAM-INF:BANDWIDTH=9,RESOLUTION=160x120\n"
    server.answers["/m.m3u8"] = server.body(f"#EXTM3U\n{variant}/gone.m3u8\n{variant}{low.url}\n".encode())
    second.answers["/m.m3u8"] = server.body(
        f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=99,RESOLUTION=320x240\n{high.url}\n".encode())
    process = begin(recording, f"{server.url}/m.m3u8", f"{second.url}/m.m3u8")
    wait_until(lambda: files(recording) == 3)
    server.answers["/live/index.m3u8"] = server.answers["/m.m3u8"] = server.status(404)
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording, "P001") == low.bodies[:3]
    assert folder_bodies(recording, "P002") == high.bodies[3:]  # by their names they go on where the others ended
    assert "variant-change" in [cause for cause, _ in rows(recording)]


def test_byte_ranges_and_packed_sound_are_recorded(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    run_ffmpeg("-i", media / "clip.flv", "-vn", "-c", "copy", tmp_path / "a.aac")
    sound = (tmp_path / "a.aac").read_bytes()
    tag = b"ID3\x04\0\0" + bytes([0, 0, 0, 63]) + bytes(63)
    bodies = [tag + sound[:len(sound) // 2], tag + sound[len(sound) // 2:]]
    while bodies[1][73:75] != b"\xff\xf1":  # frames are not cut
        bodies = [bodies[0] + bodies[1][73:74], tag + bodies[1][74:]]
    server.answers["/all.aac"] = server.body(b"".join(bodies))
    server.answers["/live.m3u8"] = server.body(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
        f"#EXTINF:1,\n#EXT-X-BYTERANGE:{len(bodies[0])}@0\nall.aac\n"
        f"#EXTINF:1,\n#EXT-X-BYTERANGE:{len(bodies[1])}\nall.aac\n#EXT-X-ENDLIST\n".encode())
    assert begin(recording, f"{server.url}/live.m3u8").wait(20) == Exit.OVER
    assert folder_bodies(recording) == [body[len(tag):] for body in bodies]
