"""A recorder process that records HLS, against a media server that misbehaves."""

import re
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from recording_support import MediaServer, Recording, complaints, probe_seconds, run_ffmpeg
from support import wait_until

from biliupd.config import EditConfig
from biliupd.edit.ffmpeg import Ffmpeg
from biliupd.edit.merge import merge
from biliupd.record import broadcast as broadcasts
from biliupd.record.container import sound
from biliupd.record.playlist import MediaPlaylist, Segment, parse
from biliupd.record.salvage import salvage
from biliupd.record.spec import Exit


class Channel:
    """A rolling playlist over real segments. `first` and `last` say which are listed; `ended` closes it."""

    def __init__(self, server: MediaServer, directory: Path, *, numbering: int = 0, prefix: str = "/live") -> None:
        self.server, self.prefix, self.numbering = server, prefix, numbering
        listed = parse((directory / "index.m3u8").read_text())
        assert isinstance(listed, MediaPlaylist)
        self.segments = listed.segments
        self.bodies = [(directory / segment.uri).read_bytes() for segment in self.segments]
        self.first, self.last, self.ended = 0, len(self.segments), True
        self.extra: dict[int, str] = {}
        self.map = f"{prefix}/init.mp4" if self.segments[0].map else ""
        if self.map:
            server.answers[self.map] = server.body((directory / "init.mp4").read_bytes())
        for n, body in enumerate(self.bodies):
            server.answers[self.path(n)] = server.body(body)
        server.answers[f"{prefix}/index.m3u8"] = self.answer
        self.url = f"{server.url}{prefix}/index.m3u8"

    def path(self, n: int) -> str:
        return f"{self.prefix}/{self.segments[n].uri}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:0.3", f"#EXT-X-MEDIA-SEQUENCE:{self.numbering + self.first}"]
        lines += [f'#EXT-X-MAP:URI="{self.map}"'] if self.map else []
        for n in range(self.first, self.last):
            lines += [*([self.extra[n]] if n in self.extra else []),
                      f"#EXTINF:{self.segments[n].duration},", f"{self.server.url}{self.path(n)}?token=secret"]
        lines += ["#EXT-X-ENDLIST"] if self.ended else []
        self.server.body("\n".join(lines).encode())(handler)


def folder_bodies(recording: Recording, name: str = "P001") -> list[bytes]:
    playlist = parse((recording.directory / name / "index.m3u8").read_text())
    assert isinstance(playlist, MediaPlaylist)
    assert playlist.ended
    return [(recording.directory / name / segment.uri).read_bytes() for segment in playlist.segments]


def merged(recording: Recording, tmp_path: Path, name: str = "P001") -> Path:
    made = tmp_path / f"{name}.mp4"
    run_ffmpeg("-i", recording.directory / name / "index.m3u8", "-c", "copy", made)
    return made


@pytest.mark.parametrize("kind", ["ts", "fmp4"])
def test_a_playlist_that_ends_becomes_a_folder_that_ends(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path, kind: str) -> None:
    channel = Channel(server, media / kind)
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert recording.names == ["P001"]
    assert folder_bodies(recording) == channel.bodies
    made = merged(recording, tmp_path)
    assert complaints(made) == ""
    assert abs(probe_seconds(made) - 12) < 0.3
    assert recording.broadcast.exit == "over"
    assert recording.broadcast.ledger == []
    assert recording.broadcast.figures.media_seconds == pytest.approx(12, abs=0.3)
    assert list((recording.directory / "P001").glob("*.part")) == []
    assert "secret" not in recording.log


def test_a_rolling_window_is_followed_and_each_segment_taken_once(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 4, False
    process = recording.start(channel.url, "hls")
    wait_until(lambda: len(list(recording.directory.glob("P001/*.ts"))) == 4)
    channel.first, channel.last = 2, 8
    wait_until(lambda: len(list(recording.directory.glob("P001/*.ts"))) == 8)
    channel.first, channel.last, channel.ended = 6, 12, True
    assert process.wait(10) == Exit.OVER
    assert folder_bodies(recording) == channel.bodies
    assert len([path for path in server.requests if path.endswith(".ts")]) == 12


def test_w_a_segment_that_is_not_there_becomes_a_gap(recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    del server.answers[channel.path(4)]
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording) == channel.bodies[:4] + channel.bodies[5:]
    gap, = recording.broadcast.ledger
    assert gap["cause"] == "skipped-segment"
    assert gap["seconds"] == pytest.approx(channel.segments[4].duration, abs=0.01)
    assert server.requests.count(channel.path(4)) == 2


def test_what_is_left_around_missing_segments_becomes_one_mp4(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    for number in (3, 4, 5, 6):
        del server.answers[channel.path(number)]
    assert recording.run(channel.url, "hls") == Exit.OVER
    index = recording.directory / "P001" / "index.m3u8"
    assert index.read_text().count("#EXT-X-DISCONTINUITY\n") == 1
    output = recording.directory / "P001.mp4"
    merged = merge(index, output, Ffmpeg(EditConfig(), threading.Event()))
    left = sum(segment.duration for n, segment in enumerate(channel.segments) if n not in (3, 4, 5, 6))
    assert merged.duration_seconds == pytest.approx(left, abs=0.3)
    assert complaints(output) == ""


def test_a_segment_that_breaks_off_or_is_a_web_page_is_asked_again(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    whole = server.body(channel.bodies[2])
    server.answers[channel.path(2)] = server.in_turn(server.status(503), whole)
    server.answers[channel.path(3)] = server.in_turn(server.body(b"<html>busy</html>"), server.body(channel.bodies[3]))
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording) == channel.bodies
    assert recording.broadcast.ledger == []


def test_numbers_that_are_missed_become_a_gap(recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 3, False
    process = recording.start(channel.url, "hls")
    wait_until(lambda: len(list(recording.directory.glob("P001/*.ts"))) == 3)
    channel.first, channel.last, channel.ended = 6, 12, True
    assert process.wait(10) == Exit.OVER
    assert folder_bodies(recording) == channel.bodies[:3] + channel.bodies[6:]
    assert [(gap["cause"], gap["seconds"]) for gap in recording.broadcast.ledger] == [
        ("skipped-segment", pytest.approx(3, abs=0.2))]


def test_a_discontinuity_stays_in_the_file_when_the_codecs_do(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "fmp4")
    channel.extra[5] = "#EXT-X-DISCONTINUITY"
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording) == channel.bodies
    assert [row["cause"] for row in recording.broadcast.ledger] == ["discontinuity"]
    assert (recording.directory / "P001" / "index.m3u8").read_text().count("#EXT-X-DISCONTINUITY\n") == 1


@pytest.mark.parametrize("limit", [{"split_seconds": 5.0}, {"split_size": 150_000}])
def test_a_split_loses_nothing(recording: Recording, server: MediaServer, media: Path, limit: dict[str, float]) -> None:
    channel = Channel(server, media / "ts")
    assert recording.run(channel.url, "hls", **limit) == Exit.OVER
    assert len(recording.names) > 2
    assert [body for name in recording.names for body in folder_bodies(recording, name)] == channel.bodies
    for item in recording.broadcast.files:
        assert item["seconds"] <= limit.get("split_seconds", 99)
        assert item["bytes"] <= limit.get("split_size", 1 << 30)


@pytest.mark.parametrize("numbering", [0, 1000])
def test_a_next_run_records_no_segment_twice(
        recording: Recording, server: MediaServer, media: Path, numbering: int) -> None:
    """With another address the numbers may differ, and the paths, too."""
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 5, False
    process = recording.start(channel.url, "hls")
    wait_until(lambda: len(list(recording.directory.glob("P001/*.ts"))) == 5)
    process.terminate()
    assert process.wait(3) == Exit.STOPPED
    other = Channel(server, media / "ts", numbering=numbering, prefix="/edge" if numbering else "/live")
    other.first, other.last = (3, 6) if numbering else (0, 12)
    assert recording.run(other.url, "hls", cause="new-address") == Exit.OVER
    assert folder_bodies(recording, "P001") + folder_bodies(recording, "P002") == channel.bodies[:other.last]
    assert [row["cause"] for row in recording.broadcast.ledger if row["cause"] != "fragment"] == ["new-address"]


def test_a_killed_recorder_leaves_a_folder_that_can_be_salvaged(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    channel = Channel(server, media / "fmp4")
    channel.last, channel.ended = 6, False
    process = recording.start(channel.url, "hls")
    wait_until(lambda: len(list(recording.directory.glob("P001/*.m4s"))) == 6)
    process.kill()
    process.wait()
    folder = recording.directory / "P001"
    (folder / "000008.m4s.part").write_bytes(b"torn")
    (folder / "000007.m4s").write_bytes(channel.bodies[6])  # renamed, but not listed yet
    assert len(salvage(recording.directory)) == 1
    assert folder_bodies(recording) == channel.bodies[:7]
    assert complaints(merged(recording, tmp_path)) == ""
    assert salvage(recording.directory) == []
    channel.last, channel.ended = 12, True
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording, "P002") == channel.bodies[7:]


def test_salvage_leaves_no_empty_folder(recording: Recording) -> None:
    (recording.directory / "P001").mkdir()
    (recording.directory / "P001" / "000001.ts.part").write_bytes(b"torn")
    assert len(salvage(recording.directory)) == 1
    assert recording.names == []


def test_a_signal_ends_the_folder_within_two_seconds(recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 3, False
    server.answers[channel.path(2)] = server.live(b"\x47", silent=True)
    process = recording.start(channel.url, "hls", stall_seconds=30.0)
    wait_until(lambda: len(list(recording.directory.glob("P001/*.ts"))) == 2)
    process.terminate()
    assert process.wait(2) == Exit.STOPPED
    assert folder_bodies(recording) == channel.bodies[:2]


@pytest.mark.parametrize(("answer", "said"), [
    (b"<html>gone</html>", "web page"), (None, "HTTP 404"), (b"garbage", "not a playlist")])
def test_an_address_without_a_playlist_needs_a_new_one(
        recording: Recording, server: MediaServer, answer: bytes | None, said: str) -> None:
    if answer is not None:
        server.answers["/live/index.m3u8"] = server.body(answer, "text/html")
    assert recording.run(server.url + "/live/index.m3u8?token=secret", "hls") == Exit.NEEDS_URL
    assert said in recording.log
    assert "secret" not in recording.log
    assert recording.names == []


def test_a_playlist_that_stands_still_needs_a_new_address(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.ended = False
    assert recording.run(channel.url, "hls", stall_seconds=2.0) == Exit.NEEDS_URL
    assert folder_bodies(recording) == channel.bodies


@pytest.mark.parametrize("key", ['METHOD=SAMPLE-AES,URI="k"', 'METHOD=AES-128,URI="k",KEYFORMAT="com.widevine"'])
def test_segments_under_drm_are_refused_with_a_clear_line(
        recording: Recording, server: MediaServer, media: Path, key: str) -> None:
    channel = Channel(server, media / "ts")
    channel.extra[0] = f"#EXT-X-KEY:{key}"
    assert recording.run(channel.url, "hls") == Exit.UNSUPPORTED
    assert "restricted (encrypted with" in recording.log
    assert recording.names == []


def test_a_refused_segment_asks_for_a_new_address_and_is_a_gap_when_none_comes(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    server.answers[channel.path(4)] = server.status(403)
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording) == channel.bodies[:4] + channel.bodies[5:]
    assert "needs a new address: segment: HTTP 403" in recording.log
    assert [(row["cause"], row["seconds"]) for row in recording.broadcast.ledger if row["seconds"]] == [
        ("skipped-segment", pytest.approx(channel.segments[4].duration, abs=0.01))]
    assert recording.broadcast.needs_address == ""


def test_a_master_playlist_leads_to_its_best_variant(recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    server.answers["/master.m3u8"] = server.body(
        b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=1x1\nnone.m3u8\n"
        b"#EXT-X-STREAM-INF:BANDWIDTH=2,RESOLUTION=2x2\nlive/index.m3u8\n")
    assert recording.run(server.url + "/master.m3u8", "hls") == Exit.OVER
    assert folder_bodies(recording) == channel.bodies


@pytest.mark.parametrize(("body", "title", "has_map", "kept", "said"), [
    (b"\x47" + b"x" * 187, "", False, 188, ""),
    (b"\x47" + b"x" * 200, "", False, 188, "cut"),
    (b"\x47" + b"x" * 400, "", False, 0, "MPEG-TS"),
    (b"<html>", "", False, 0, "no media"),
    (b"\0\0\0\x18styp", "", True, 8, ""),
    (b"\0\0\0\x18styp", "8|deadbeef", True, 8, "checksum"),
    (b"<html></html>", "", True, 0, "fMP4"),
    (b"", "", False, 0, "empty"),
])
def test_what_comes_as_a_segment_is_looked_at(body: bytes, title: str, has_map: bool, kept: int, said: str) -> None:
    from biliupd.record.playlist import Map

    found, problem = sound(body, Segment(1, "x", 2.0, title, map=Map("init") if has_map else None))
    assert len(found) == kept
    assert re.search(said, problem) if said else problem == ""


def test_the_position_survives_in_broadcast_json(recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    recording.run(channel.url, "hls")
    found = broadcasts.read(recording.directory)
    assert found is not None
    assert found.position is not None
    assert (found.position["sequence"], found.position["path"]) == (11, channel.path(11))


def test_what_identifies_us_goes_to_the_host_of_the_stream_only(media, server, recording):
    """A playlist may name any host for its segments; cookies and passwords are none of their business."""
    other = MediaServer()
    try:
        channel = Channel(other, media / "fmp4")
        server.answers["/master.m3u8"] = server.body(
            b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n/moved.m3u8\n", "audio/mpegurl")

        def moved(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(302)
            handler.send_header("Location", channel.url)
            handler.end_headers()

        server.answers["/moved.m3u8"] = moved
        recording.headers = {"Cookie": "a=secret", "Authorization": "secret", "Referer": "r"}
        assert recording.run(f"{server.url}/master.m3u8", "hls") == Exit.OVER
    finally:
        other.close()
    assert len(folder_bodies(recording)) == len(channel.bodies)
    assert set(server.requests) == {"/master.m3u8", "/moved.m3u8"}
    assert all("secret" in str(sent) for sent in server.headers)
    assert len(other.headers) > len(channel.bodies)
    assert not any("secret" in str(sent) for sent in other.headers)
    assert all(sent["Referer"] == "r" for sent in server.headers + other.headers)


@pytest.mark.parametrize("line", ["http://[", "//evil\u2100.com/", "file:///etc/passwd", "http://127.0.0.1:99999/"])
def test_an_address_that_is_none_is_no_bug_of_ours(server, recording, line):
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{line}\n#EXT-X-ENDLIST\n"
    server.answers["/a.m3u8"] = server.body(text.encode())
    assert recording.run(f"{server.url}/a.m3u8", "hls") in (Exit.NEEDS_URL, Exit.OVER)
    assert "Traceback" not in recording.log
