"""What the stand-in live site does on purpose: the tags and playlists it then sends, and its account of the truth."""

import itertools
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from support import wait_until

from biliupd.rehearsal.live_account import Account
from biliupd.rehearsal.live_dash import Manifest
from biliupd.rehearsal.live_feed import FILE_HEADER, Client, Edge, Feed
from biliupd.rehearsal.live_hls import HlsFaults, Shelf, new_key
from biliupd.rehearsal.live_media import AUDIO, SCRIPT, VIDEO, Tag, read_flv
from biliupd.rehearsal.live_site import LiveSite

# FLV: an encoder whose tags a test brings, a feed, and what its clients get


def headers(name: bytes = b"one") -> list[Tag]:
    return [Tag(SCRIPT, 0, b"\x02meta" + name, True, False), Tag(VIDEO, 0, b"\x17\0\0\0\0" + name, True, False),
            Tag(AUDIO, 0, b"\xaf\0\x12\x10", True, False)]


def group(second: int, name: bytes = b"") -> list[Tag]:
    """A group of pictures of one second: a keyframe, three more, a sound after each."""
    found = []
    for n in range(4):
        at, mark = second * 1000 + n * 250, b"%d.%d" % (second, n) + name
        found.append(Tag(VIDEO, at, bytes([0x17 if n == 0 else 0x27]) + b"\1\0\0\0" + mark, False, n == 0))
        found.append(Tag(AUDIO, at + 5, b"\xaf\1" + mark, False, False))
    return found


class Encoder:
    """Gives its tags when it is told to."""

    def __init__(self) -> None:
        self.given: list[Tag] = []
        self.output = BytesIO()

    def tags(self) -> Iterator[Tag]:
        yield from self.given


class Line:
    """A feed that is played by hand, second for second."""

    def __init__(self) -> None:
        self.account = Account()
        self.feed = Feed(self.account)
        self.second = 0
        self._source = self.feed.source(Encoder())
        self.tags(headers())
        self.play(2)

    def tags(self, tags: list[Tag]) -> None:
        for tag in tags:
            self.feed.take(self._source, tag)

    def play(self, seconds: int, name: bytes = b"") -> None:
        for _ in range(seconds):
            self.tags(group(self.second, name))
            self.second += 1

    def other_encoder(self, name: bytes) -> None:
        self._source = self.feed.source(Encoder())
        self.tags(headers(name))


def got(client: Client) -> list[tuple[int, int, bytes]]:
    """(kind, time, body) of what a client got so far, as a reader sees it; delivered with that."""
    content = b""
    while not client.tags.empty():
        piece = client.tags.get()
        assert piece
        content += piece.content
        if piece.unit:
            piece.unit.delivered = True
    if not content.startswith(b"FLV"):
        content = FILE_HEADER + content
    return [(tag.kind, tag.milliseconds, tag.body) for tag in read_flv(BytesIO(content))]


def starts(tags: list[tuple[int, int, bytes]]) -> list[int]:
    return [at for kind, at, body in tags if kind == VIDEO and body[:2] == b"\x17\1"]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def client(line: Line) -> Client:
    """It is there from the second group of pictures on and has read that."""
    client = line.feed.join()
    assert starts(got(client)) == [1000]
    return client


@pytest.mark.parametrize(
    ("cache_seconds", "expected"), [(0, [5000]), (1.5, [5000]), (3, [3000, 4000, 5000]), (99, [0, 1000, 2000])]
)
def test_a_new_connection_begins_with_so_much_of_the_past(line, cache_seconds, expected):
    line.play(4)
    line.feed.cache_seconds = cache_seconds
    first = got(line.feed.join())
    assert [kind for kind, _, _ in first[:3]] == [SCRIPT, VIDEO, AUDIO]
    assert starts(first)[:3] == expected


def test_a_new_connection_can_begin_later_than_now(line):
    line.feed.cache_seconds = -2.5
    client = line.feed.join()
    line.play(5)
    assert starts(got(client)) == [5000, 6000]


def test_jumps_go_both_ways_and_the_encoder_s_own_time_is_unmoved(line, client):
    line.feed.jump(30_000)
    line.play(1)
    line.feed.jump(-31_000)
    line.play(1)
    assert starts(got(client)) == [32_000, 2000]
    assert [unit.seconds for unit in line.account.units if unit.length][-4:] == [3.0, 3.25, 3.5, 3.75]


@pytest.mark.parametrize(("bits", "wraps"), [(24, 1 << 24), (32, 1 << 32)])
def test_a_clock_overflows_as_that_of_a_sender_with_so_many_bits(line, client, bits, wraps):
    line.feed.clock(wraps - 1000, bits)
    line.play(3)
    times = starts(got(client))
    assert times[0] == pytest.approx(wraps - 1000, abs=260)
    assert [at - times[0] for at in times[1:]] == [1000 - wraps, 2000 - wraps] or times[1] - times[0] == 1000
    assert times[2] < 2000


@pytest.mark.parametrize("shift", [0, 7000])
def test_groups_of_pictures_come_again_before_the_next_keyframe(line, client, shift):
    line.play(2)
    line.feed.resend(2, shift)
    line.play(1)
    tags = got(client)
    assert starts(tags) == [2000, 3000, 2000 + shift, 3000 + shift, 4000]
    bodies = [body for _, _, body in tags]
    assert bodies[16:32] == bodies[:16]


def test_headers_garbage_script_and_end_tags_are_put_between(line, client):
    line.feed.repeat_headers()
    line.feed.end_of_sequence()
    line.play(1)
    tags = got(client)
    assert [(kind, body[:2]) for kind, _, body in tags[:4]] == [
        (SCRIPT, b"\x02m"), (VIDEO, b"\x17\0"), (AUDIO, b"\xaf\0"), (VIDEO, b"\x17\x02")]
    line.feed.script(5_000_000)
    line.play(1)
    assert [(at, n) for n, (kind, at, _) in enumerate(got(client)) if kind == SCRIPT] == [(5_000_000, 1)]
    line.feed.insert(b"\xff" * 100, at_keyframe=False)
    line.feed.second_header()
    line.play(1)
    content = b"".join(client.tags.get().content for _ in range(client.tags.qsize()))
    assert content.startswith(FILE_HEADER + b"\x12")
    assert content.count(b"\xff" * 100) == 1
    assert not any(unit.delivered for unit in list(line.account.units)[-8:])


def test_another_encoder_takes_over_at_its_first_keyframe_and_time_goes_on(line, client):
    line.other_encoder(b"two")
    line.second = 0
    line.play(2, b"two")
    tags = got(client)
    assert [(kind, at) for kind, at, _ in tags[:4]] == [(SCRIPT, 0), (VIDEO, 0), (AUDIO, 0), (VIDEO, 1790)]
    assert tags[1][2].endswith(b"two")
    assert starts(tags) == [1790, 2790]


def test_what_was_not_handed_out_is_in_the_account_with_its_cause(line):
    edges = [Edge(), Edge()]
    clients = [line.feed.join(edge) for edge in edges]
    got(clients[0])
    line.account.did("silent")
    edges[0].withheld = True
    line.play(3)
    got(clients[0])
    assert [(hole.what, hole.seconds) for hole in line.account.withheld()] == [("silent", 3.0 - 0.25 + 0.04)]
    got(clients[1])  # the other one brought it
    assert line.account.withheld() == []
    edges[1].withheld = True
    line.play(2)
    edges[0].withheld = False
    line.play(1)
    got(clients[0])
    (hole,) = line.account.withheld()
    assert (hole.seconds, hole.at_seconds) == (2.0, 5.0)
    assert abs((datetime.now(UTC) - hole.since).total_seconds()) < 5


def test_connections_end_as_told_and_only_those_of_the_edge(line):
    edges = [Edge(), Edge()]
    first, second = (line.feed.join(edge) for edge in edges)
    line.feed.close(edges[0], cut=True)
    assert list(first.pieces()) == []
    assert first.cut
    line.feed.close(None, cut=False)
    assert len(list(second.pieces())) == 9
    assert not second.cut
    assert 0 < len(line.feed.half()) < 20
    late = line.feed.join(deadline=0.0)
    got(late)
    assert list(late.pieces()) == []
    assert late.cut


# HLS: a directory as ffmpeg leaves it, and the playlists that come of it


class Encoded:
    """Segments of a second each, and the encoder's own playlist."""

    def __init__(self, directory: Path, run: int = 0, suffix: str = "ts") -> None:
        self.directory, self.run, self.suffix, self.count = directory, run, suffix, 0
        self.path = directory / f"r-1-{run}-0.m3u8"

    def make(self, count: int) -> None:
        self.count += count
        lines = ["#EXTM3U"]
        for n in range(self.count):
            name = f"r-1-{self.run}-0-{n:05}.{self.suffix}"
            (self.directory / name).write_bytes(b"%d:%05d" % (self.run, n))
            lines += [f"#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:{n:02}.000+0000", "#EXTINF:1.000000,", name]
        self.path.write_text("\n".join(lines))


@pytest.fixture
def encoded(tmp_path: Path) -> Encoded:
    return Encoded(tmp_path)


@pytest.fixture
def shelf(encoded: Encoded) -> Shelf:
    shelf = Shelf("r-1", Account())
    shelf.add_run(encoded.path)
    encoded.make(8)
    return shelf


def listed(shelf: Shelf, behind: int = 0) -> tuple[int, list[str]]:
    """The media sequence and the names in a playlist."""
    lines = shelf.playlist(behind).decode().splitlines()
    (sequence,) = [int(line.rpartition(":")[2]) for line in lines if line.startswith("#EXT-X-MEDIA-SEQUENCE")]
    return sequence, [line for line in lines if line and not line.startswith("#")]


def names(*numbers: int) -> list[str]:
    return [f"r-1-{n:05}.ts" for n in numbers]


def deliver(shelf: Shelf, name: str, token: str = "", asked_range: str = "") -> bytes:
    body = shelf.fetch(name, Path("/"), asked_range, token)
    for unit, plain in body.delivers:
        unit.delivered, unit.digest = True, plain
    return body.content if body.status in (200, 206) else b"%d" % body.status


def test_a_playlist_names_the_last_six_segments_and_what_nobody_took_is_withheld(shelf, encoded):
    assert listed(shelf) == (2, names(2, 3, 4, 5, 6, 7))
    assert deliver(shelf, "r-1-00002.ts") == b"0:00002"
    encoded.make(9)
    assert deliver(shelf, "r-1-00012.ts") == b"0:00012"
    shelf.account.did("late")
    assert [(hole.seconds, hole.at_seconds) for hole in shelf.account.withheld(open_units=shelf.listed())] == [(8, 3)]
    shelf.ended = True
    assert shelf.playlist().endswith(b"#EXT-X-ENDLIST\n")
    assert [hole.seconds for hole in shelf.account.withheld(open_units=shelf.listed())] == [9, 4]


@pytest.mark.parametrize(
    ("how", "expected", "tag", "status"),
    [
        ("404", (5, names(5, 6, 7, 8, 9, 10)), False, b"404"),
        ("gap", (5, names(5, 6, 7, 8, 9, 10)), True, b"404"),
        ("absent", (3, names(3, 4, 5, 6, 7, 10)), False, b"404"),
    ],
)
def test_segments_are_not_to_be_had(shelf, encoded, how, expected, tag, status):
    listed(shelf)
    for number in range(8):
        deliver(shelf, names(number)[0])
    shelf.faults.drop, shelf.faults.drop_how = 2, how
    encoded.make(3)
    assert listed(shelf) == expected
    assert (b"#EXT-X-GAP" in shelf.playlist()) is tag
    assert deliver(shelf, "r-1-00008.ts") == status
    assert deliver(shelf, "r-1-00010.ts") == b"0:00010"
    assert [(hole.seconds, hole.at_seconds) for hole in shelf.account.withheld(open_units=6)] == [(2, 8)]


def test_sequences_are_reset_stale_or_frozen(shelf, encoded):
    assert listed(shelf, behind=2) == (0, names(0, 1, 2, 3, 4, 5))
    listed(shelf)
    shelf.faults.reset_to = 0
    encoded.make(2)
    assert listed(shelf) == (0, ["r-1-g1-00000.ts", "r-1-g1-00001.ts"])
    assert deliver(shelf, "r-1-g1-00001.ts") == b"0:00009"
    shelf.faults.frozen = True
    encoded.make(2)
    assert listed(shelf)[1] == ["r-1-g1-00000.ts", "r-1-g1-00001.ts"]
    shelf.faults.frozen = False
    assert len(listed(shelf)[1]) == 4
    edge = Edge(lag=3, lag_every=2)
    assert [edge.behind() for _ in range(4)] == [0, 3, 0, 3]


def test_tokens_rotate_and_old_ones_are_forbidden_in_the_end(shelf):
    shelf.faults.tokens = True
    first, second = listed(shelf)[1][0], listed(shelf)[1][0]
    name, _, token = first.partition("?token=")
    assert second.startswith(name)
    assert second != first
    assert deliver(shelf, name, token) == b"0:00002"
    assert deliver(shelf, name) == b"403"
    for _ in range(50):
        listed(shelf)
    assert deliver(shelf, name, token) == b"403"


def test_byte_ranges_lie_in_one_resource(shelf, encoded):
    listed(shelf)
    shelf.faults.ranges = True
    encoded.make(4)
    text = shelf.playlist().decode()
    assert text.count("r-1-r00002.ts") == 4
    assert [line for line in text.splitlines() if "BYTERANGE" in line] == [
        "#EXT-X-BYTERANGE:7@0", "#EXT-X-BYTERANGE:7", "#EXT-X-BYTERANGE:7", "#EXT-X-BYTERANGE:7"]
    assert deliver(shelf, "r-1-r00002.ts", asked_range="bytes=7-13") == b"0:00009"
    assert [unit.delivered for unit in list(shelf.account.units)[8:]] == [False, True, False, False]
    assert deliver(shelf, "r-1-r00002.ts", asked_range="bytes=99-") == b"416"
    assert len(deliver(shelf, "r-1-r00002.ts")) == 28


@pytest.mark.parametrize("iv", [True, False])
def test_segments_are_encrypted_and_the_account_knows_them_in_clear(shelf, encoded, iv):
    listed(shelf)
    shelf.faults.key = key = new_key(iv=iv)
    encoded.make(1)
    text = shelf.playlist().decode()
    assert f'#EXT-X-KEY:METHOD=AES-128,URI="{key.name}"' in text
    assert (",IV=0x" in text) is iv
    assert deliver(shelf, key.name) == key.secret
    secret, vector = key.secret.hex(), (key.iv or (8).to_bytes(16, "big")).hex()
    argv = ["openssl", "enc", "-d", "-aes-128-cbc", "-K", secret, "-iv", vector]
    content = deliver(shelf, "r-1-00008.ts")
    assert subprocess.run(argv, input=content, capture_output=True, check=True).stdout == b"0:00008"
    assert shelf.account.units[8].delivered
    shelf.faults.key = None
    encoded.make(1)
    assert "#EXT-X-KEY:METHOD=NONE" in shelf.playlist().decode()


def test_another_run_is_a_discontinuity_with_an_init_section_of_its_own(tmp_path):
    first, second = Encoded(tmp_path, 0, "m4s"), Encoded(tmp_path, 1, "m4s")
    shelf = Shelf("r-1", Account(), HlsFaults(low_latency=True))
    for run in (first, second):
        shelf.add_run(run.path)
        run.make(3)
        (tmp_path / f"r-1-{run.run}-0.mp4").write_bytes(b"init %d" % run.run)
    text = shelf.playlist().decode()
    assert [line for line in text.splitlines() if "MAP" in line or "DISCON" in line] == [
        '#EXT-X-MAP:URI="r-1-0-0.mp4"', "#EXT-X-DISCONTINUITY", '#EXT-X-MAP:URI="r-1-1-0.mp4"']
    assert shelf.fetch("r-1-1-0.mp4", tmp_path, "", "").content == b"init 1"
    assert deliver(shelf, "r-1-00003.m4s") == b"1:00000"
    for tag in ("#EXT-X-PART-INF", "#EXT-X-PART:", "#EXT-X-PRELOAD-HINT", "#EXT-X-SERVER-CONTROL"):
        assert tag in text
    second.make(7)
    assert "#EXT-X-DISCONTINUITY-SEQUENCE:1" in shelf.playlist().decode()


def test_a_manifest_counts_the_segments_of_the_picture(tmp_path):
    manifest = Manifest("r-1", Account())
    manifest.add_run(tmp_path / "r-1-0-0.mpd")
    (tmp_path / "r-1-0-0.mpd").write_text("<MPD>")
    for n in range(3):
        for track in (0, 1):
            (tmp_path / f"r-1-0-0-{track}-{n:05}.m4s").write_bytes(b"%d %d" % (track, n))
        manifest.faults.drop = int(n == 0)
        assert manifest.playlist() == b"<MPD>"
    asked = ("r-1-0-0-0-00000.m4s", "r-1-0-0-0-00001.m4s", "r-1-0-0-1-00001.m4s", "r-1-9.m4s", "../x.m4s")
    bodies = [manifest.fetch(name, tmp_path, "", None) for name in asked]
    assert [(body.status, len(body.delivers)) for body in bodies] == [(404, 0), (200, 1), (200, 0), (404, 0), (404, 0)]


# over HTTP, with real media


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    site = LiveSite(tmp_path / "site")
    site.start()
    yield site
    site.close()


def get(url: str, most: int = 1 << 20) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read(most)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def streams(site: LiveSite, room: str) -> list[dict[str, str]]:
    return json.loads(get(f"{site.url}/api/rooms/{room}")[1])["streams"]


def test_each_edge_fails_alone_and_addresses_end_in_time(site):
    site.add_room("r", protocol="flv", streamer="S", title="t", size="160x90", fps=10, edges=2)
    site.go_live("r")
    first, second = (stream["url"] for stream in streams(site, "r"))
    assert first.split("/live")[0] != second.split("/live")[0]
    site.media_fails("r", 500, edge=0)
    assert (get(first)[0], get(second, 13)) == (500, (200, FILE_HEADER))
    site.media_fails("r", 200, edge=0)
    assert get(first)[1].startswith(b"<!doctype html>")
    site.media_fails("r")
    site.hang_up("r")
    with urllib.request.urlopen(first, timeout=10) as response:
        site.hang_up("r", edge=0)
        assert response.read().startswith(FILE_HEADER)
    site.lifetime("r", 0.6, cuts=True)
    told = streams(site, "r")
    seconds = (datetime.fromisoformat(told[0]["expires_at"]) - datetime.now(UTC)).total_seconds()
    assert 0 < seconds <= 0.6
    with urllib.request.urlopen(told[0]["url"], timeout=10) as response, pytest.raises(ConnectionResetError):
        response.read()
    assert get(told[0]["url"])[0] == 403
    site.lifetime("r", None)
    site.expire("r")
    assert [get(url)[0] for url in (first, told[1]["url"])] == [403, 403]
    assert get(streams(site, "r")[0]["url"], 13)[0] == 200


def test_a_throttled_connection_is_slower_than_the_media(site):
    site.add_room("r", protocol="flv", streamer="S", title="t", size="160x90", fps=10)
    site.go_live("r")
    site.throttle("r", 8000)
    with urllib.request.urlopen(streams(site, "r")[0]["url"], timeout=10) as response:
        response.read(13)
        began, size = datetime.now(UTC), 0
        while (datetime.now(UTC) - began).total_seconds() < 1.5:
            size += len(response.read1(65536))
        assert size < 40_000
        site.throttle("r")
        site.hang_up("r")
        response.read()


def test_real_media_changes_codec_size_and_sound_and_decodes(site, tmp_path):
    """FLV in one connection: the headers change with the media, and no payload is lost or comes twice."""
    site.add_room("r", protocol="flv", streamer="S", title="t", size="160x90", fps=10)
    site.go_live("r")
    with urllib.request.urlopen(streams(site, "r")[0]["url"], timeout=10) as response:
        for change in ({"codec": "hevc"}, {"codec": "hvc1"}, {"codec": "avc", "size": "192x108"},
                       {"sample_rate": 48000}):
            site.change("r", **change)
        wait_until(lambda: len(site.made("r")) > 80)
        site.go_offline("r")
        tags = list(read_flv(BytesIO(response.read())))
    assert [tag.body[0] for tag in tags if tag.header and tag.kind == VIDEO] == [0x17, 0x1C, 0x90, 0x17, 0x17]
    assert len({tag.body for tag in tags if tag.header and tag.kind == AUDIO}) == 2
    times = [tag.milliseconds for tag in tags if tag.kind == VIDEO and not tag.header]
    assert max(after - before for before, after in itertools.pairwise(times)) < 300
    assert site.withheld("r") == []
    assert len([unit for unit in site.made("r") if unit.delivered]) == len([tag for tag in tags if not tag.header])


def test_ffmpeg_plays_both_variants_encrypted_and_in_byte_ranges(site):
    site.add_room("r", protocol="hls", streamer="S", title="t", size="192x108", smaller=("96x54",), fps=10,
                  container="fmp4")  # fmt: skip
    site.go_live("r")
    site.encrypt("r")
    site.byte_ranges("r")
    site.low_latency("r")
    wait_until(lambda: len(site.made("r")) > 2)
    master = get(streams(site, "r")[0]["url"])[1].decode()
    assert [line for line in master.splitlines() if line[0] != "#"] == ["0/index.m3u8", "1/index.m3u8"]
    site.go_offline("r")
    for variant in (0, 1):
        argv = ["ffmpeg", "-v", "error", "-xerror", "-allowed_extensions", "ALL", "-i",
                f"{site.url}/live/r/{variant}/index.m3u8", "-f", "null", "-"]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
