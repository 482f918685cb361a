"""How connections join, and what comes twice: the pure stages, and real recorders. Letters: vectors of the rules."""

import random
import socket
import struct
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_support import MediaServer, Recording, complaints, tags_of
from support import wait_until

from biliupd.errors import TemporaryError
from biliupd.record import broadcast as broadcasts
from biliupd.record import spec as specs
from biliupd.record.flv import stream as flv_stream
from biliupd.record.flv.connection import Dechunker
from biliupd.record.flv.duplicates import LOOPING, Duplicates
from biliupd.record.flv.live_edge import LiveEdge
from biliupd.record.flv.rejoin import Search
from biliupd.record.flv.tags import AUDIO, FILE_HEADER, SCRIPT, VIDEO, Role, Tag, look_at, tag_bytes
from biliupd.record.ledger import LOSSES
from biliupd.record.session import Ending, Session
from biliupd.record.spec import Exit, Stream

AVC = Tag(VIDEO, 0, b"\x17\0\0\0\0record A")
AAC = Tag(AUDIO, 0, b"\xaf\x00\x12\x10")


def stream(seconds: int, start: int = 0, seed: int = 1) -> list[Tag]:
    """25 pictures and 40 frames of sound a second, all different, a keyframe each second."""
    chance = random.Random(seed)
    tags = []
    for number in range(seconds * 25):
        head = b"\x17\x01\0\0\0" if number % 25 == 0 else b"\x27\x01\0\0\0"
        tags.append(Tag(VIDEO, number * 40, head + chance.randbytes(60)))
    tags += [Tag(AUDIO, number * 25, b"\xaf\x01" + chance.randbytes(40)) for number in range(seconds * 40)]
    return [tag._replace(timestamp=tag.timestamp + start) for tag in sorted(tags, key=lambda t: (t.timestamp, -t.type))]


def bodies(tags: list[Tag]) -> list[bytes]:
    return [tag.body for tag in tags if look_at(tag).role in (Role.KEYFRAME, Role.MEDIA)]


@given(st.integers(20, 600), st.integers(0, 200), st.integers(-10**6, 10**6), st.integers(1, 40))
@settings(max_examples=80, deadline=None)
def test_i_any_overlap_is_found_wherever_the_clock_stands(cut: int, back: int, shift: int, piece: int) -> None:
    source = stream(10)
    begin = max(0, cut - back)
    search, tail = Search(), source[:cut][-16:]
    new = [AVC, AAC, *(tag._replace(timestamp=tag.timestamp + shift) for tag in source[begin:])]
    seam = None
    for start in range(0, len(new), piece):
        search.feed(new[start: start + piece])
        if seam := search.seam(tail):
            rest = new[start + piece:]
            break
    if cut - begin < 10:  # too little in common to be sure
        return
    assert seam is not None
    assert seam.seamless
    joined = [tag._replace(timestamp=tag.timestamp + seam.shift) for tag in [*seam.tags, *rest]]
    assert [tag for tag in joined if look_at(tag).role is not Role.HEADER] == source[cut:]


def test_another_stream_is_no_overlap_and_is_given_up_at_once_when_it_begins_later() -> None:
    search, tail = Search(), stream(4)[-16:]
    search.feed(stream(2, start=11_000, seed=2))
    assert search.seam(tail) is None
    assert search.hopeless(tail)
    assert search.give_up(tail).missing_ms == 11_000 - tail[-1].timestamp


def test_a_stream_of_another_clock_is_searched_for_twenty_seconds() -> None:
    search, tail = Search(), stream(4, start=500_000)[-16:]
    search.feed(stream(19, seed=2))
    assert not search.hopeless(tail)
    search.feed(stream(4, start=18_000, seed=3))
    assert search.hopeless(tail)
    assert search.give_up(tail).missing_ms is None


def test_frames_of_silence_are_no_proof() -> None:
    silence = [Tag(AUDIO, 23 * n, b"\xaf\x01\x21\x10\x04") for n in range(400)]
    search = Search()
    search.feed(silence[:9])
    assert search.seam(silence[100:116]) is None
    search.feed(silence[9:40])
    assert search.seam(silence[100:116]) is not None


def test_after_an_earlier_run_a_new_file_begins_at_a_keyframe_and_misses_nothing() -> None:
    source, search = stream(6), Search()
    search.feed([AVC, AAC, *source])
    cut = next(n for n, tag in enumerate(source) if tag.timestamp >= 3400)
    seam = search.seam(source[:cut][-10:], from_keyframe=True)
    assert seam is not None
    assert seam.tags[:2] == [AVC, AAC]
    assert look_at(seam.tags[2]).role is Role.KEYFRAME
    assert seam.tags[2].timestamp == 3000
    assert seam.tags[2:] == [tag for tag in source if tag.timestamp >= 3000]


@pytest.mark.parametrize("shift", [0, -5000, 77_777])
def test_c_groups_sent_again_are_dropped_whatever_their_times(shift: int) -> None:
    stage, source = Duplicates(), stream(8)
    again = [tag._replace(timestamp=tag.timestamp + shift) for tag in source if tag.timestamp >= 3000]
    after = stream(3, start=8000, seed=5)
    passed = []
    for number, tag in enumerate([*source, *again, *after]):
        passed += stage.feed([tag], 100 + number / 1000)  # faster than real time
    passed += stage.flush()
    assert bodies(passed) == bodies(source + after)
    assert len(stage.dropped) == 5
    assert all(900 <= length <= 1000 for length in stage.dropped)


def test_t_a_still_picture_is_kept_though_its_groups_are_equal() -> None:
    group = stream(1)
    stage, passed, source = Duplicates(), [], []
    for number in range(20):
        source += [tag._replace(timestamp=tag.timestamp + 1000 * number) for tag in group]
    for tag in source:
        passed += stage.feed([tag], tag.timestamp / 1000)
    assert passed + stage.flush() == source
    assert stage.dropped == []


def test_a_header_within_a_dropped_group_is_not_lost() -> None:
    stage, source = Duplicates(), stream(3)
    other = Tag(VIDEO, 0, b"\x17\0\0\0\0record B")
    passed = stage.feed([*source, *source[:65], other, *stream(1, 3000, seed=9)], 1.0)
    assert other in passed


def test_a_server_that_goes_round_in_circles_is_noticed() -> None:
    stage, source = Duplicates(), stream(6)
    stage.feed(source * (2 + LOOPING // 5), 1.0)
    assert stage.looping


def test_a_group_that_only_begins_like_another_is_kept() -> None:
    source, other = stream(2), stream(2, seed=4)
    changed = [source[0], *other[1:]]
    stage = Duplicates()
    passed = stage.feed([*source, *changed, *stream(1, seed=8)], 1.0) + stage.flush()
    assert bodies(passed) == bodies([*source, *changed, *stream(1, seed=8)])


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 10**6)), max_size=25))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_no_tag_is_lost_that_did_not_come_before(script: list[tuple[int, int]]) -> None:
    groups = [stream(1, seed=seed) for seed in range(8)]
    stage, passed, seen = Duplicates(), [], []
    for number, shift in script:
        seen += groups[number]
        passed += stage.feed([t._replace(timestamp=t.timestamp + shift) for t in groups[number]], 1.0)
    assert set(bodies(passed + stage.flush())) == set(bodies(seen))


@pytest.mark.parametrize(("step", "wait", "lost"), [
    (30_000, 0.04, 0.0), (7_000, 7.0, 7.0), (30_000, 7.0, 7.0), (-30_000, 0.04, 0.0), (3_000, 0.0, 3.0),
], ids=["clock set", "server silent", "silent, and clock set", "set back", "dropped while we lag"])
def test_a_step_of_the_clock_is_a_loss_as_far_as_it_stays_behind_real_time(
        step: int, wait: float, lost: float) -> None:
    edge, now, at = LiveEdge(), 1000.0, 50_000
    edge.note(at, now)
    if not wait:  # the server was ahead by five seconds once, and is not any more
        edge.note(at + 5000, now)
    assert edge.lost(at, step, now + wait) == pytest.approx(lost, abs=0.6)
    if step > 0 and wait:  # and after it the clock is the new one
        edge.note(at + step, now + wait)
        assert edge.lost(at + step, 30_000, now + wait) == 0


# with real recorders

def between(raw: bytes, since: float, until: float) -> bytes:
    """What a server sends that begins and ends so: headers, then all tags of that time."""
    tags = tags_of(raw)
    heads = [tag for tag in tags if tag.type == SCRIPT or look_at(tag).role is Role.HEADER]
    inside = [tag for tag in tags if since * 1000 <= tag.timestamp < until * 1000 and tag not in heads]
    return raw[:13] + tag_bytes([*heads, *inside])


def payloads(raw: bytes) -> list[bytes]:
    """Pictures, in order, and sound, in order: which of them comes first in a file is the muxer's choice."""
    tags = tags_of(raw)
    return [body for kind in (VIDEO, AUDIO) for body in bodies([tag for tag in tags if tag.type == kind])]


def test_i_two_connections_that_overlap_become_one_stream(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(between(clip, 0, 7.5)), server.live(between(clip, 1, 99)), server.status(404))
    assert recording.run(server.url + "/live.flv") == Exit.NEEDS_URL
    made = recording.directory / "P001.flv"
    assert payloads(made.read_bytes()) == payloads(clip)
    assert complaints(made) == ""
    assert [row["cause"] for row in recording.broadcast.ledger] == ["seamless-join"]


def test_o_what_is_missing_between_two_connections_is_in_the_ledger_to_the_frame(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(between(clip, 0, 6)), server.live(between(clip, 8, 99), pause=0), server.status(404))
    began = time.monotonic()
    recording.run(server.url + "/live.flv")
    made = recording.directory / "P001.flv"
    assert recording.names == ["P001.flv"]
    assert payloads(made.read_bytes()) == payloads(between(clip, 0, 6) + between(clip, 8, 99)[13:])
    assert complaints(made) == ""
    gap, = [row for row in recording.broadcast.ledger if row["cause"] in LOSSES]
    assert (gap["cause"], gap["file"]) == ("server-drop", "P001.flv")
    assert gap["media_seconds_at"] == pytest.approx(6, abs=0.1)
    assert gap["seconds"] == pytest.approx(2, abs=0.1) or time.monotonic() - began > 4
    figures = recording.broadcast.figures
    assert (figures.gaps, figures.reconnects) == (1, 1)
    assert figures.lost_seconds == gap["seconds"]


def test_a_long_gap_begins_a_new_file(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(between(clip, 0, 6)), server.live(between(clip, 8, 99)), server.status(404))
    recording.run(server.url + "/live.flv", split_gap_seconds=1.0, fragment_seconds=0.0)
    assert recording.names == ["P001.flv", "P002.flv"]
    assert {row["cause"] for row in recording.broadcast.ledger} == {"server-drop", "gap-split"}


def test_a_planned_switch_delivers_before_it_leaves(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    """The daemon writes another address into the spec; the old connection is open and silent all the while."""
    clip = (media / "clip.flv").read_bytes()
    server.answers["/old.flv"] = server.live(between(clip, 0, 6), silent=True)
    server.answers["/new.flv"] = server.live(between(clip, 3, 99), silent=True)
    recording.start(server.url + "/old.flv", stall_seconds=30.0)
    part = recording.directory / "P001.flv.part"
    wait_until(lambda: part.exists() and len(payloads(part.read_bytes())) == len(payloads(between(clip, 0, 6))))
    spec = specs.read(tmp_path / "spec.json")
    specs.write(tmp_path / "spec.json", replace(spec, streams=(Stream(server.url + "/new.flv", "flv"),)))
    wait_until(lambda: payloads(part.read_bytes()) == payloads(clip))
    assert server.requests == ["/old.flv", "/new.flv"]
    recording.processes[0].terminate()
    assert recording.processes[0].wait(5) == Exit.STOPPED
    assert [row["cause"] for row in recording.broadcast.ledger] == ["cdn-switch"]
    assert recording.broadcast.figures.gaps == 0


def test_a_new_address_that_brings_nothing_does_not_harm_the_old_connection(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/old.flv"] = server.live(clip, silent=True)
    server.answers["/new.flv"] = server.status(403)
    recording.start(server.url + "/old.flv", stall_seconds=30.0)
    part = recording.directory / "P001.flv.part"
    wait_until(lambda: part.exists() and len(payloads(part.read_bytes())) == len(payloads(clip)))
    spec = specs.read(tmp_path / "spec.json")
    specs.write(tmp_path / "spec.json", replace(spec, streams=(Stream(server.url + "/new.flv", "flv"),)))
    wait_until(lambda: "HTTP 403" in recording.log)
    assert recording.processes[0].poll() is None
    recording.processes[0].terminate()
    recording.processes[0].wait(5)
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(clip)


def test_the_next_address_is_tried_at_once_when_one_is_refused(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/two.flv"] = server.in_turn(server.live(clip), server.status(404))
    server.answers["/page.flv"] = server.body(b"<html>busy</html>", "text/html")
    ways = tuple(Stream(f"{server.url}/{name}.flv", "flv") for name in ("one", "page", "two"))
    assert recording.run("", streams=ways, reconnect_seconds=2.0) == Exit.NEEDS_URL
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(clip)
    assert server.requests == ["/one.flv", "/page.flv", "/two.flv", "/two.flv"]
    assert recording.broadcast.needs_address == "every address is refused"


def test_a_recorder_whose_addresses_are_refused_goes_on_with_the_one_the_daemon_brings(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/old.flv"] = server.in_turn(server.live(between(clip, 0, 6)), server.status(403))
    server.answers["/new.flv"] = server.in_turn(server.live(between(clip, 4, 99)), server.status(403))
    process = recording.start(server.url + "/old.flv", reconnect_seconds=20.0)
    wait_until(lambda: recording.broadcast.needs_address != "")
    spec = specs.read(tmp_path / "spec.json")
    specs.write(tmp_path / "spec.json", replace(spec, streams=(Stream(server.url + "/new.flv", "flv"),)))
    part = recording.directory / "P001.flv.part"
    wait_until(lambda: payloads(part.read_bytes()) == payloads(clip))
    process.terminate()
    process.wait(5)
    assert recording.names == ["P001.flv"]
    assert recording.broadcast.figures.gaps == 0


def test_the_next_run_repeats_at_most_the_beginning_of_a_group(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(between(clip, 0, 6.5)), server.status(404), server.live(between(clip, 3, 99)), server.status(404))
    recording.run(server.url + "/live.flv")
    recording.run(server.url + "/live.flv")
    first, second = ((recording.directory / name).read_bytes() for name in ("P001.flv", "P002.flv"))
    both = payloads(first) + payloads(second)
    assert set(both) == set(payloads(clip))
    assert len(both) - len(set(both)) <= 25 + 45
    assert recording.broadcast.figures.gaps == 0
    for name in recording.names:
        assert complaints(recording.directory / name) == ""


def test_z_a_server_that_drips_bytes_is_left(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    whole = between(clip, 0, 99)
    drip = server.live(whole[:20_000], *[bytes([byte]) for byte in whole[20_000:20_040]], pause=0.3)
    server.answers["/live.flv"] = server.in_turn(drip, server.live(clip), server.status(404))
    recording.run(server.url + "/live.flv", progress_seconds=2.0)
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(clip)
    assert "no media for 2 s" in recording.log


def test_what_is_missing_between_two_runs_is_told_by_the_clock_of_the_stream(
        recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/live.flv"] = server.in_turn(
        server.live(between(clip, 0, 6)), server.status(404), server.live(between(clip, 7, 99)), server.status(404))
    recording.run(server.url + "/live.flv")
    recording.run(server.url + "/live.flv", cause="restart")
    gap, = [row for row in recording.broadcast.ledger if row["cause"] in LOSSES and row["seconds"]]
    assert (gap["cause"], gap["file"]) == ("restart", "P002.flv")
    assert gap["seconds"] == pytest.approx(1, abs=0.1)


def test_a_slow_connection_that_falls_too_far_behind_is_left_with_a_gap_of_known_length(
        recording: Recording, server: MediaServer, media: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits are made small; half a minute of slowness is told by the session."""
    clip = (media / "clip.flv").read_bytes()
    server.answers["/slow.flv"] = server.live(between(clip, 0, 3), silent=True)
    server.answers["/fast.flv"] = server.live(between(clip, 6, 99), silent=True)
    ways = tuple(Stream(f"{server.url}/{name}.flv", "flv") for name in ("slow", "fast"))
    broadcast = broadcasts.read(recording.directory)
    assert broadcast is not None
    session = Session(specs.Spec(str(recording.directory), ways, stall_seconds=20.0), broadcast)
    slow = iter([True])
    monkeypatch.setattr(session, "is_slow", lambda: session.media_at is not None and next(slow, False))
    monkeypatch.setattr(flv_stream, "SWITCH_SECONDS", 1.5)
    engine = flv_stream.FlvStream(session)
    tick = session.tick

    def until_all_is_there() -> None:
        tick()
        if session.part and session.part.seconds > 8.5:
            raise Ending(Exit.STOPPED)

    monkeypatch.setattr(session, "tick", until_all_is_there)
    session.begin()
    with pytest.raises(Ending):
        engine.run()
    engine.flush()
    session.end(Exit.STOPPED)
    rows = [(row["cause"], row["seconds"]) for row in recording.broadcast.ledger]
    assert rows[:2] == [("slow", 0), ("cdn-switch", 0)]
    assert rows[2] == ("slow", pytest.approx(3, abs=0.1))
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(
        between(clip, 0, 3) + between(clip, 6, 99)[13:])


@pytest.mark.parametrize("coding", ["chunked", "counted", "open"])
def test_every_way_to_send_a_body_is_read(recording: Recording, server: MediaServer, media: Path, coding: str) -> None:
    clip = (media / "clip.flv").read_bytes()

    def chunked(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(0, len(clip), 1777):
            piece = clip[at: at + 1777]
            handler.wfile.write(b"%x;x=1\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")
        server.released.wait(20)  # the connection stays open: the coding says that it is over

    answers = {"chunked": chunked, "counted": server.body(clip), "open": server.live(clip)}
    server.answers["/live.flv"] = server.in_turn(answers[coding], server.status(404))
    assert recording.run(server.url + "/live.flv", stall_seconds=15.0) == Exit.NEEDS_URL
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(clip)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 3000), max_size=8))
@settings(max_examples=150, deadline=None)
def test_chunks_cut_anywhere_give_the_same_body(chunks: list[bytes], cuts: list[int]) -> None:
    coded = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    places = sorted({min(cut, len(coded)) for cut in cuts})
    coding, found = Dechunker(), b""
    for start, stop in zip([0, *places], [*places, len(coded)], strict=True):
        found += coding.feed(coded[start:stop])
    assert found == b"".join(chunks)
    assert coding.ended


@pytest.mark.parametrize("coded", [b"zz\r\n", b"-5\r\n", b"9" * 30 + b"\r\n", b"x" * 1000])
def test_a_chunked_coding_that_makes_no_sense_is_an_error_of_the_server(coded: bytes) -> None:
    with pytest.raises(TemporaryError):
        Dechunker().feed(coded)


def test_media_that_came_before_a_reset_are_kept(recording: Recording, server: MediaServer, media: Path) -> None:
    clip = (media / "clip.flv").read_bytes()

    def reset(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(between(clip, 0, 6))
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.released.wait(0.4)
        handler.connection.close()
        handler.close_connection = True

    server.answers["/live.flv"] = server.in_turn(reset, server.status(404))
    recording.run(server.url + "/live.flv")
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(between(clip, 0, 6))
    assert "connection lost: Connection reset by peer" in recording.log


def test_what_a_second_connection_brought_before_it_ended_is_kept(
        recording: Recording, server: MediaServer, media: Path, tmp_path: Path) -> None:
    clip = (media / "clip.flv").read_bytes()
    server.answers["/old.flv"] = server.in_turn(server.live(between(clip, 0, 3), silent=True), server.status(404))
    server.answers["/new.flv"] = server.in_turn(server.live(between(clip, 5, 99)), server.status(404))
    recording.start(server.url + "/old.flv", stall_seconds=4.0)
    part = recording.directory / "P001.flv.part"
    wait_until(lambda: part.exists() and len(payloads(part.read_bytes())) == len(payloads(between(clip, 0, 3))))
    spec = specs.read(tmp_path / "spec.json")
    specs.write(tmp_path / "spec.json", replace(spec, streams=(Stream(server.url + "/new.flv", "flv"),)))
    assert recording.processes[0].wait(20) == Exit.NEEDS_URL
    assert payloads((recording.directory / "P001.flv").read_bytes()) == payloads(
        between(clip, 0, 3) + between(clip, 5, 99)[13:])
    gap, = [row for row in recording.broadcast.ledger if row["cause"] in LOSSES]
    assert gap["seconds"] == pytest.approx(2, abs=0.1)


def test_an_old_connection_with_holes_is_joined_by_the_clock_both_share() -> None:
    source, search = stream(8), Search()
    old = [tag for number, tag in enumerate(source) if tag.timestamp < 5000 and number % 3]
    search.feed([AVC, AAC, *(tag for tag in source if tag.timestamp >= 2000)])
    seam = search.seam(old[-16:])
    assert seam is not None
    assert (seam.seamless, seam.shift) == (True, 0)
    last = {kind: max(tag.timestamp for tag in old if tag.type == kind) for kind in (VIDEO, AUDIO)}
    assert seam.tags == [AVC, AAC, *(tag for tag in source if tag.timestamp > last[tag.type])]


def test_after_a_clock_was_set_back_the_next_step_is_measured_from_the_new_one(
        recording: Recording, server: MediaServer, media: Path) -> None:
    tags = tags_of((media / "clip.flv").read_bytes())
    moved = [tag._replace(timestamp=tag.timestamp + (
        0 if tag.timestamp < 3000 else 9_000_000 if tag.timestamp < 6000 else 0)) for tag in tags]
    server.answers["/live.flv"] = server.in_turn(
        server.live(FILE_HEADER + tag_bytes(moved), pause=0), server.status(404))
    recording.run(server.url + "/live.flv")
    assert [row["cause"] for row in recording.broadcast.ledger] == ["jump", "jump"]
    assert recording.broadcast.figures.gaps == 0
