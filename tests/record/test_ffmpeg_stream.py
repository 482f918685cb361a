"""A recorder process that records by ffmpeg what only that reads: DASH from a server that misbehaves, RTMP, TCP."""

import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from recording_support import MediaServer, Recording, complaints, probe_seconds, run_ffmpeg
from support import wait_until
from test_hls_sound import merged, streams

from biliupd.record.playlist import MediaPlaylist, Segment, parse
from biliupd.record.salvage import salvage
from biliupd.record.spec import Exit

LIVE = {"stall_seconds": 20.0, "reconnect_seconds": 20.0}


@pytest.fixture(scope="module")
def dash(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve segments of a second in two representations; 0 has pictures, 1 sound."""
    directory = tmp_path_factory.mktemp("dash")
    run_ffmpeg("-i", media / "clip.flv", "-c", "copy", "-f", "dash", "-seg_duration", 1, "-init_seg_name",
               "i-$RepresentationID$.m4s", "-media_seg_name", "$RepresentationID$-$Number%02d$.m4s",
               directory / "all.mpd")
    return directory


class Manifest:
    """A rolling DASH manifest over real segments; those from `first` to `last` are listed. `ended` makes it static."""

    def __init__(self, server: MediaServer, directory: Path, prefix: str = "/live") -> None:
        self.server, self.prefix = server, prefix
        self.first, self.last, self.ended = 1, 12, True
        for path in directory.glob("*.m4s"):
            server.answers[f"{prefix}/{path.name}"] = self._segment(path)
        server.answers[f"{prefix}/m.mpd"] = self.answer
        self.url = f"{server.url}{prefix}/m.mpd?token=verysecrettoken"

    def _segment(self, path: Path) -> Callable[[BaseHTTPRequestHandler], None]:
        body, kind, number = path.read_bytes(), path.name[0], path.stem.partition("-")[2]

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if kind != "i" and int(number) > self.last:
                handler.send_error(404)  # not made yet
            else:
                self.server.body(body)(handler)
        return answer

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        count = self.last - self.first + 1
        sets = "".join(
            f'<AdaptationSet id="{n}" contentType="{kind}"><Representation id="{n}" mimeType="{kind}/mp4" '
            f'codecs="{codec}" bandwidth="90000"><SegmentTemplate timescale="1" initialization='
            f'"{self.prefix}/i-$RepresentationID$.m4s" media="$RepresentationID$-$Number%02d$.m4s" '
            f'startNumber="{self.first}"><SegmentTimeline><S t="{self.first - 1}" d="1" r="{count - 1}"/>'
            "</SegmentTimeline></SegmentTemplate></Representation></AdaptationSet>"
            for n, (kind, codec) in enumerate((("video", "avc1.42c00a"), ("audio", "mp4a.40.2"))))
        kind = ('type="static" mediaPresentationDuration="PT12S"' if self.ended else
                'type="dynamic" minimumUpdatePeriod="PT1S" availabilityStartTime="2026-01-01T00:00:00Z"')
        self.server.body((
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" {kind} maxSegmentDuration="PT1S" '
            f'minBufferTime="PT1S" profiles="urn:mpeg:dash:profile:isoff-live:2011"><Period id="0" start="PT0S">'
            f"<BaseURL>{self.server.url}{self.prefix}/</BaseURL>{sets}</Period></MPD>").encode())(handler)

    def asked(self) -> Counter[str]:
        """How often each segment was asked for, by its name."""
        names = (path.rpartition("/")[2] for path in self.server.requests)
        return Counter(name for name in names if name.endswith(".m4s") and not name.startswith("i"))


def segments(recording: Recording, name: str = "P001") -> tuple[Segment, ...]:
    playlist = parse((recording.directory / name / "index.m3u8").read_text())
    assert isinstance(playlist, MediaPlaylist)
    assert playlist.ended
    return playlist.segments


def taken(recording: Recording) -> int:
    return len(list(recording.directory.glob("P*/0*.*[4s]")))


def causes(recording: Recording) -> list[tuple[str, float]]:
    return [(row["cause"], row["seconds"]) for row in recording.broadcast.ledger if row["cause"] != "fragment"]


def running(directory: Path) -> list[str]:
    """Command lines of the processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(str(directory)):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_dash_that_ends_becomes_a_part_and_nobody_sees_what_is_secret(
        recording: Recording, server: MediaServer, dash: Path) -> None:
    manifest = Manifest(server, dash)
    manifest.last, manifest.ended = 4, False
    recording.headers = {"Cookie": "sid=alsoverysecret", "Referer": "https://example.test/"}
    process = recording.start(manifest.url, "ffmpeg", **LIVE)
    wait_until(lambda: taken(recording) >= 3)
    lines = running(recording.directory)
    assert len(lines) == 1
    assert "hls" in lines[0]
    manifest.last = 8
    wait_until(lambda: taken(recording) >= 7)
    manifest.last, manifest.ended = 12, True
    assert process.wait(20) == Exit.OVER
    assert recording.names == ["P001"]
    assert sum(segment.duration for segment in segments(recording)) == pytest.approx(12, abs=0.3)
    assert set(manifest.asked()) >= {f"{kind}-{n:02}.m4s" for kind in "01" for n in range(1, 13)}
    assert server.requests.count("/live/0-02.m4s") == 1
    assert len(server.requests) < 150
    assert all(headers["Cookie"] == "sid=alsoverysecret" for headers in server.headers)
    assert all(headers["Referer"] == "https://example.test/" for headers in server.headers)
    for text in (*lines, recording.log):
        assert "verysecret" not in text
    broadcast = recording.broadcast
    assert broadcast.figures.media_seconds == pytest.approx(12, abs=0.3)
    assert broadcast.ledger == []
    output = merged(recording, "P001")
    assert complaints(output) == ""
    assert [(kind, pytest.approx(12, abs=0.3)) for kind in ("video", "audio")] == streams(output)


def test_a_hole_is_known_by_the_medias_own_clock(recording: Recording, server: MediaServer, dash: Path) -> None:
    manifest = Manifest(server, dash)
    for kind in "01":
        for number in (5, 6):
            del server.answers[f"/live/{kind}-{number:02}.m4s"]
    assert recording.run(manifest.url, "ffmpeg", stall_seconds=30.0, reconnect_seconds=30.0) == Exit.OVER
    assert causes(recording) == [("hole", pytest.approx(2, abs=0.1))]
    assert [segment.discontinuity for segment in segments(recording)].count(True) == 1
    assert recording.broadcast.figures.media_seconds == pytest.approx(10, abs=0.3)


def test_files_are_split_by_time_and_nothing_is_lost_between_them(
        recording: Recording, server: MediaServer, dash: Path) -> None:
    manifest = Manifest(server, dash)
    assert recording.run(manifest.url, "ffmpeg", split_seconds=4.5) == Exit.OVER
    assert recording.names == ["P001", "P002", "P003"]
    assert [cause for cause, _ in causes(recording)] == ["limit-split", "limit-split"]
    outputs = [merged(recording, name) for name in ("P001", "P002", "P003")]
    assert [complaints(output) for output in outputs] == ["", "", ""]
    assert sum(probe_seconds(output) for output in outputs) == pytest.approx(12, abs=0.5)


def test_after_a_stall_what_comes_again_is_left_out(recording: Recording, server: MediaServer, dash: Path) -> None:
    manifest = Manifest(server, dash)
    manifest.last, manifest.ended = 6, False
    process = recording.start(manifest.url, "ffmpeg", stall_seconds=1.5, reconnect_seconds=20.0)
    wait_until(lambda: taken(recording) >= 5)
    wait_until(lambda: "no media for" in recording.log)
    manifest.last = 9
    wait_until(lambda: taken(recording) >= 8)
    manifest.last, manifest.ended = 12, True
    assert process.wait(20) == Exit.OVER
    assert recording.broadcast.figures.media_seconds == pytest.approx(12, abs=0.3)
    assert sum(seconds for _, seconds in causes(recording)) == pytest.approx(0, abs=0.3)
    assert recording.names == ["P001"]
    assert complaints(merged(recording, "P001")) == ""


@pytest.mark.parametrize("number", [9, 15])
def test_ffmpeg_ends_with_its_recorder_and_the_next_one_goes_on(
        recording: Recording, server: MediaServer, dash: Path, number: int) -> None:
    manifest = Manifest(server, dash)
    manifest.last, manifest.ended = 5, False
    process = recording.start(manifest.url, "ffmpeg", **LIVE)
    wait_until(lambda: taken(recording) >= 4)
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == (Exit.STOPPED if number == 15 else -9)
    wait_until(lambda: not running(recording.directory), 3.0)
    assert time.monotonic() - began < 3
    salvage(recording.directory)
    assert recording.names == ["P001"]
    kept = recording.broadcast.figures.media_seconds
    assert kept == pytest.approx(5 if number == 15 else 4, abs=0.3)
    manifest.last, manifest.ended = 12, True
    assert recording.run(manifest.url, "ffmpeg") == Exit.OVER
    assert recording.names == ["P001", "P002"]
    assert recording.broadcast.figures.media_seconds == pytest.approx(12, abs=0.5)
    assert sum(seconds for _, seconds in causes(recording)) == pytest.approx(0, abs=0.3)
    assert [complaints(merged(recording, name)) for name in recording.names[:2]] == ["", ""]


@pytest.mark.parametrize("code", [403, 404])
def test_an_address_that_is_refused_needs_a_new_one(recording: Recording, server: MediaServer, code: int) -> None:
    server.answers["/live/m.mpd"] = server.status(code)
    assert recording.run(f"{server.url}/live/m.mpd?token=verysecrettoken", "ffmpeg") == Exit.NEEDS_URL
    assert recording.broadcast.needs_address
    assert server.requests == ["/live/m.mpd"]
    assert recording.names == []
    assert "verysecret" not in recording.log


def test_without_ffmpeg_it_says_so(recording: Recording) -> None:
    assert recording.run("rtmp://127.0.0.1/live/key", "ffmpeg", ffmpeg="/nowhere/ffmpeg") == Exit.UNSUPPORTED
    assert "ERROR ffmpeg is needed for this address and was not found: /nowhere/ffmpeg" in recording.log


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(("url", "serve", "suffix"), [
    ("rtmp://127.0.0.1:{}/live/verysecretkey", ["-f", "flv", "-listen", "1"], ".m4s"),
    ("tcp://127.0.0.1:{}", ["-f", "mpegts"], ".ts"),
])
def test_a_server_that_ends_and_comes_back_is_recorded_into_the_same_file(
        recording: Recording, media: Path, url: str, serve: list[str], suffix: str) -> None:
    url = url.format(free_port())
    there = f"{url}?listen=1" if url.startswith("tcp") else url

    def server(first: int) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(["ffmpeg", "-nostdin", "-v", "error", "-ss", str(first * 1.05),
                                 "-i", media / "clip.flv", "-t", "6", "-c", "copy", *serve, there])

    process = recording.start(url, "ffmpeg", stall_seconds=10.0, reconnect_seconds=4.0)
    for first in (0, 6):
        child = server(first)
        wait_until(lambda first=first: taken(recording) >= 5 + first)  # type: ignore[misc]
        assert "verysecret" not in "".join(running(recording.directory))
        child.wait(10)
    assert process.wait(20) == Exit.NEEDS_URL
    assert recording.names == ["P001"]
    pieces = segments(recording)
    assert {Path(segment.uri).suffix for segment in pieces} == {suffix}
    assert [segment.discontinuity for segment in pieces].count(True) == 1
    assert recording.broadcast.figures.media_seconds == pytest.approx(12, abs=1)
    assert [cause for cause, _ in causes(recording)] == ["server-drop"]
    assert causes(recording)[0][1] < 6
    output = merged(recording, "P001")
    assert complaints(output) == ""
    assert probe_seconds(output) == pytest.approx(12, abs=1)
    assert "verysecret" not in recording.log


def test_codecs_that_fmp4_does_not_hold_are_recorded_into_mpeg_ts(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.ts"
    run_ffmpeg("-i", media / "clip.flv", "-c", "copy", "-f", "mpegts", clip)  # its AAC has no header beside it
    server.answers["/live"] = server.in_turn(server.body(clip.read_bytes()), server.body(clip.read_bytes()),
                                             server.status(404))
    assert recording.run(f"{server.url}/live", "ffmpeg") == Exit.NEEDS_URL
    assert {Path(segment.uri).suffix for segment in segments(recording)} == {".ts"}
    assert recording.broadcast.figures.media_seconds == pytest.approx(12, abs=0.3)
    assert complaints(merged(recording, "P001")) == ""
