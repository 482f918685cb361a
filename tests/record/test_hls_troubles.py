"""HLS when something is wrong that no playlist mentions: media left out or changed, TLS, a slow disk, a slow server."""

import ssl
from pathlib import Path

import pytest
import trustme
from recording_support import MediaServer, Recording, run_ffmpeg
from support import wait_until
from test_hls import Channel, folder_bodies
from test_hls_addresses import begin, files, rows, second
from test_hls_sound import apart, offer

from biliupd.record.hls import source as hls_source
from biliupd.record.hls.items import Piece, Task
from biliupd.record.hls.stream import HlsStream
from biliupd.record.session import Ending, Session
from biliupd.record.spec import Exit, Spec, Stream

__all__ = ["apart", "second"]


def test_what_is_missing_between_two_runs_is_one_row_as_long_as_the_numbers_say(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 3, False
    process = recording.start(channel.url, "hls")
    wait_until(lambda: files(recording) == 3)
    process.terminate()
    assert process.wait(5) == Exit.STOPPED
    channel.first, channel.last, channel.ended = 5, 12, True
    del server.answers[channel.path(5)]  # missing, too
    assert recording.run(channel.url, "hls", cause="new-address") == Exit.OVER
    lost = sum(segment.duration for segment in channel.segments[3:6])
    assert rows(recording) == [("new-address", pytest.approx(lost, abs=0.05))]
    assert recording.broadcast.figures.lost_seconds == pytest.approx(lost, abs=0.05)


def test_segments_left_out_without_a_hole_in_the_numbers_are_missed(
        recording: Recording, server: MediaServer, media: Path) -> None:
    channel = Channel(server, media / "ts")
    channel.last, channel.ended = 3, False
    process = recording.start(channel.url, "hls", stall_seconds=20.0)
    wait_until(lambda: files(recording) == 3)
    count = len(server.requests)
    wait_until(lambda: len(server.requests) >= count + 11)  # more than three seconds of real time
    channel.segments, channel.bodies = (*channel.segments[:3], *channel.segments[5:]), [
        *channel.bodies[:3], *channel.bodies[5:]]
    channel.last, channel.ended = 10, True
    assert process.wait(20) == Exit.OVER
    assert folder_bodies(recording) == channel.bodies
    assert rows(recording) == [("skipped-segment", pytest.approx(2, abs=0.1))]
    assert (recording.directory / "P001" / "index.m3u8").read_text().count("#EXT-X-DISCONTINUITY\n") == 1


def test_another_picture_size_without_any_mark_begins_a_new_file(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    channel = Channel(server, media / "ts")
    run_ffmpeg("-i", media / "other.flv", "-c", "copy", "-f", "segment", "-segment_time", 1, tmp_path / "%d.ts")
    others = [path.read_bytes() for path in sorted(tmp_path.glob("?.ts"))]
    for number, body in enumerate(others):
        server.answers[channel.path(5 + number)] = server.body(body)
    channel.last = 5 + len(others)
    assert recording.run(channel.url, "hls") == Exit.OVER
    assert folder_bodies(recording, "P001") == channel.bodies[:5]
    assert folder_bodies(recording, "P002") == others
    assert [cause for cause, _ in rows(recording)] == ["codec-change"]


def test_a_certificate_that_nobody_vouches_for_is_refused_with_a_clear_line(
        recording: Recording, media: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = MediaServer()
    try:
        channel = Channel(server, media / "ts")
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        assert recording.run(channel.url.replace("http:", "https:"), "hls", reconnect_seconds=0.5) == Exit.NEEDS_URL
    finally:
        server.close()
    assert "playlist: the certificate is not accepted: " in recording.log
    assert server.requests == []


def test_nothing_is_fetched_beyond_the_bound_while_the_disk_is_too_slow(
        server: MediaServer, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel(server, media / "ts")
    monkeypatch.setattr(hls_source, "MOST_BYTES", sum(map(len, channel.bodies[:4])) - 1)
    channel.ended = False
    stream = Stream(channel.url, "hls")
    source = hls_source.Source(Spec(str(tmp_path), (stream,)), Task(stream))
    source.start()
    try:
        reloads = server.requests.count("/live/index.m3u8")
        wait_until(lambda: server.requests.count("/live/index.m3u8") >= reloads + 4)
        asked = {path for path in server.requests if path.endswith(".ts")}
        assert 4 <= len(asked) <= 4 + hls_source.MOST_THREADS
        found: list[bytes] = []
        while len(found) < 12:
            item = source.inbox.get(timeout=10)
            assert isinstance(item, Piece)
            found.append(bytes(item.body))
            source.written(item.body)
    finally:
        source.abandon()
    assert found == channel.bodies


def test_a_server_that_is_too_slow_is_left_for_another_one_without_a_loss(
        recording: Recording, server: MediaServer, second: MediaServer, media: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = Channel(server, media / "ts"), Channel(second, media / "ts", numbering=40, prefix="/edge")
    slow.last, slow.ended = 3, False
    spec = Spec(str(recording.directory), (Stream(slow.url, "hls"), Stream(other.url, "hls")))
    session = Session(spec, recording.broadcast)
    answers = iter([True])
    monkeypatch.setattr(session, "is_slow", lambda: files(recording) == 3 and next(answers, False))
    session.begin()
    with pytest.raises(Ending) as ending:
        HlsStream(session).run()
    session.end(ending.value.exit)
    assert ending.value.exit == Exit.OVER
    assert folder_bodies(recording) == slow.bodies
    assert rows(recording) == [("slow", 0.0), ("cdn-switch", 0.0)]


def test_sound_of_its_own_goes_on_at_another_address(
        recording: Recording, server: MediaServer, second: MediaServer, apart: Path) -> None:
    pictures, sound, url = offer(server, apart)
    _, _, other = offer(second, apart)
    pictures.last = sound.last = 4
    pictures.ended = sound.ended = False
    process = begin(recording, url, other)
    wait_until(lambda: len(list(recording.directory.glob("P001/*0*.m4s"))) == 8)
    server.answers.clear()
    assert process.wait(20) == Exit.OVER
    for pattern, channel in (("P*/0*.m4s", pictures), ("P*/sound0*.m4s", sound)):
        assert [path.read_bytes() for path in sorted(recording.directory.glob(pattern))] == channel.bodies
    assert [seconds for _, seconds in rows(recording) if seconds] == []
