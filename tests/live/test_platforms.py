"""One suite for all platforms: the same questions, each asked of every kind of address."""

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace
from urllib.request import Request, urlopen

import pytest
from support import wait_until

from biliupd.config import LiveConfig
from biliupd.errors import TemporaryError
from biliupd.live import media, via_streamlink
from biliupd.live.direct import Direct
from biliupd.live.media import Playlist, Standstill, read_playlist, starts_like_flv
from biliupd.live.platform import PLATFORMS, LiveStream, State, answers, platform_for
from biliupd.live.status import one_line, shown

LIVE = LiveConfig(request_timeout_seconds=0.5)
PATIENT = LiveConfig()
FLV = b"FLV\x01\x05\0\0\0\x09\0\0\0\0"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\n7.ts\n#EXTINF:2,\n8.ts\n"
ROOM = {"room_id": "r", "live_status": "live", "title": "t", "live_id": 5, "started_at": "2026-03-01T20:00:00+08:00"}

# name of the platform, protocol, address with {url} for the server
KINDS = [
    pytest.param("rehearsal", "flv", "rehearsal+{url}/rooms/r", id="rehearsal flv"),
    pytest.param("rehearsal", "hls", "rehearsal+{url}/rooms/r", id="rehearsal hls"),
    pytest.param("rehearsal", "ffmpeg", "rehearsal+{url}/rooms/r", id="rehearsal dash"),
    pytest.param("direct", "flv", "{url}/live/r.flv", id="direct flv"),
    pytest.param("direct", "ffmpeg", "{url}/live/r/index.mpd", id="direct dash"),
    pytest.param("direct", "hls", "{url}/live/r/index.m3u8", id="direct hls"),
    pytest.param("direct", "hls", "{url}/live/r/master.m3u8", id="direct hls variants"),
    pytest.param("streamlink", "flv", "httpstream://{url}/live/r.flv", id="streamlink flv"),
    pytest.param("streamlink", "hls", "hls://{url}/live/r/index.m3u8", id="streamlink hls"),
    pytest.param("streamlink", "hls", "hls://{url}/live/r/master.m3u8", id="streamlink hls variants"),
]


def scripted_path(address: str) -> str:
    path = address.split("{url}")[1]
    return "/api" + path if address.startswith("rehearsal") else path


@pytest.mark.parametrize(("name", "protocol", "address"), KINDS)
def test_a_room_is_live_while_its_media_runs_and_offline_when_the_site_says_so(site, name, protocol, address):
    kind = "dash" if protocol == "ffmpeg" else protocol
    site.add_room("r", protocol=kind, streamer="S", title="A\x1b title\n", size="160x90")
    url = address.format(url=site.url)
    platform = platform_for(url)
    assert platform is not None
    assert platform.name == name
    assert platform.check(url, PATIENT).state is State.OFFLINE

    site.go_live("r")
    status = platform.check(url, PATIENT)
    assert status.state is State.LIVE, status
    stream = platform.stream(url, PATIENT)
    assert stream.protocol == protocol
    with urlopen(Request(stream.url, headers=dict(stream.headers)), timeout=5) as media:
        assert media.read(7).startswith({"flv": b"FLV\x01", "hls": b"#EXTM3U", "ffmpeg": b"<?xml"}[protocol])
    if name == "rehearsal":
        assert (status.title, status.live_id) == ("A title", "r-1")
        assert status.started_at is not None
        assert status.started_at.utcoffset().total_seconds() == 0
        assert status.cover_url.startswith(site.url)

    site.go_offline("r")
    status = platform.check(url, PATIENT)
    assert status.state is State.OFFLINE, status
    wait_until(lambda: site.gone(site.room("r")))
    assert platform.check(url, PATIENT).state is State.OFFLINE


@pytest.mark.parametrize(("name", "protocol", "address"), KINDS)
@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_site_in_trouble_leaves_the_room_unknown(script, name, protocol, address, status):
    script.says(scripted_path(address), status=status, body=FLV + PLAYLIST)
    url = address.format(url=script.url)
    seen = platform_for(url).check(url, LIVE)
    assert (seen.state, seen.answered) == (State.UNKNOWN, True)
    assert str(status) in seen.reason
    assert script.url not in seen.reason


@pytest.mark.parametrize(("name", "protocol", "address"), KINDS)
@pytest.mark.parametrize("body", [b"", b"<!doctype html><title>Are you human?</title>", b"\0" * 99, b"[]", b'{"a":1}'])
def test_garbage_leaves_the_room_unknown(script, name, protocol, address, body):
    script.says(scripted_path(address), body=body)
    url = address.format(url=script.url)
    seen = platform_for(url).check(url, LIVE)
    assert (seen.state, bool(seen.reason)) == (State.UNKNOWN, True)


@pytest.mark.parametrize(("name", "protocol", "address"), KINDS)
def test_a_site_that_does_not_answer_leaves_the_room_unknown(script, name, protocol, address):
    script.says(scripted_path(address), silent=True)
    url = address.format(url=script.url)
    seen = platform_for(url).check(url, LIVE)
    assert (seen.state, seen.answered) == (State.UNKNOWN, False)
    assert "within 0.5 s" in seen.reason
    closed = address.format(url="http://127.0.0.1:9")
    seen = platform_for(closed).check(closed, LIVE)
    assert (seen.state, seen.answered) == (State.UNKNOWN, False)
    assert "no connection" in seen.reason


@pytest.mark.parametrize(("name", "protocol", "address"), KINDS)
def test_a_stream_is_refused_as_temporary_when_there_is_none(script, name, protocol, address):
    script.says(scripted_path(address), status=500)
    url = address.format(url=script.url)
    if address.endswith((".flv", ".mpd")):
        there_is = url.removeprefix("httpstream://")  # the address is all there is
        assert platform_for(url).stream(url, LIVE).url == there_is
    elif name == "streamlink":
        with pytest.raises(TemporaryError, match="500"):
            platform_for(url).stream(url, LIVE)
    else:
        with pytest.raises(TemporaryError, match="the site answers 500"):
            platform_for(url).stream(url, LIVE)


def test_a_restricted_room_is_neither_live_nor_offline(site):
    page = site.add_room("r", protocol="flv", streamer="S", title="t")
    site.go_live("r")
    site.restrict("r")
    platform = platform_for(f"rehearsal+{page}")
    assert platform.check(f"rehearsal+{page}", LIVE).state is State.RESTRICTED
    with pytest.raises(TemporaryError, match="no stream"):
        platform.stream(f"rehearsal+{page}", LIVE)


def test_the_faults_of_the_stand_in_leave_the_room_unknown(site):
    url = f"rehearsal+{site.add_room('r', protocol='hls', streamer='S', title='t')}"
    check = platform_for(url).check
    site.api_fails("r", status=502)
    assert check(url, LIVE).reason == "the site answers 502"
    site.api_fails("r", delay_seconds=2)
    assert check(url, LIVE).reason == "no answer within 0.5 s"
    site.api_fails("r")
    site.html_instead("r")
    assert check(url, LIVE).reason == "the answer is not JSON"
    site.html_instead("r", False)
    assert check(url, LIVE).state is State.OFFLINE
    assert check(url.replace("/r", "/other"), LIVE).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, State.LIVE),
        ({"live_status": "offline"}, State.OFFLINE),
        ({"live_status": "restricted"}, State.RESTRICTED),
        ({"live_status": "round"}, State.UNKNOWN),
        ({"live_status": None}, State.UNKNOWN),
        ({"live_status": 1}, State.UNKNOWN),
        ({"room_id": "other"}, State.UNKNOWN),
        ({"title": None, "cover": 7, "live_id": [], "started_at": "yesterday"}, State.LIVE),
        ({"started_at": "2026-03-01T20:00:00"}, State.LIVE),
    ],
)
def test_the_stand_in_api_is_believed_only_word_for_word(script, change, state):
    script.says("/api/rooms/r", body=json.dumps(ROOM | change).encode())
    seen = platform_for("rehearsal+http://h/rooms/r").check(f"rehearsal+{script.url}/rooms/r", LIVE)
    assert seen.state is state
    if not change:
        assert (seen.live_id, seen.started_at.isoformat()) == ("5", "2026-03-01T12:00:00+00:00")
    if "title" in change:
        assert (seen.title, seen.live_id, seen.started_at) == ("", "", None)


@pytest.mark.parametrize("scheme", ["", "hls://"])
def test_a_playlist_with_an_end_is_a_replay_and_one_without_segments_is_unknown(script, scheme):
    url = f"{scheme}{script.url}/a.m3u8"
    platform = platform_for(url)
    script.says("/a.m3u8", body=PLAYLIST + b"#EXT-X-ENDLIST\n")
    assert platform.check(url, LIVE).state is State.OFFLINE
    assert "replay" in platform.check(url, LIVE).reason
    script.says("/a.m3u8", body=b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n")
    assert platform.check(url, LIVE).state is State.UNKNOWN


def test_a_playlist_that_no_longer_moves_is_unknown_until_it_does(script, monkeypatch):
    script.says("/a.m3u8", body=PLAYLIST)
    url, direct = f"{script.url}/a.m3u8", Direct()
    clock = [100.0]
    monkeypatch.setattr(media, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    seen = []
    for clock[0], sequence in ((100, b"7"), (110, b"7"), (120, b"7"), (180, b"7"), (181, b"8"), (190, b"8")):
        script.says("/a.m3u8", body=PLAYLIST.replace(b"SEQUENCE:7", b"SEQUENCE:" + sequence))
        seen.append(direct.check(url, LIVE).state)
    assert seen == [State.LIVE, State.LIVE, State.UNKNOWN, State.UNKNOWN, State.LIVE, State.LIVE]


def test_what_is_remembered_of_playlists_has_a_bound(monkeypatch):
    monkeypatch.setattr(media, "MOST_REMEMBERED", 2)
    standstill = Standstill()
    assert [standstill.seconds(url, ("1", "a"), at) for url, at in (("a", 0), ("b", 1), ("a", 2), ("c", 3))] == [
        0, 0, 2, 0,
    ]
    assert standstill.seconds("b", ("1", "a"), 9) == 0
    assert standstill.seconds("c", ("1", "a"), 9) == 6


def test_a_look_at_a_stream_reads_its_first_bytes_and_hangs_up(script):
    script.says("/a.flv", body=FLV, then_silent=True)
    script.says("/b.flv", body=FLV[:7], then_silent=True)
    direct = platform_for(f"{script.url}/a.flv")
    assert direct.check(f"{script.url}/a.flv", LIVE).state is State.LIVE
    assert direct.check(f"{script.url}/b.flv", LIVE).state is State.UNKNOWN


def test_a_user_and_password_go_out_as_a_header_and_stay_out_of_everything_shown(script):
    script.says("/a.flv", body=FLV)
    url = script.url.replace("http://", "http://user:p%40ss@") + "/a.flv?token=secret"
    direct = platform_for(url)
    assert direct.check(url, LIVE).state is State.LIVE
    assert script.headers[-1]["Authorization"] == "Basic dXNlcjpwQHNz"
    stream = direct.stream(url, LIVE)
    assert (stream.url, stream.headers) == (f"{script.url}/a.flv?token=secret", {"Authorization": "Basic dXNlcjpwQHNz"})
    for word in ("secret", "dXNl", "user", "p%40ss"):
        assert word not in repr(stream)
        assert word not in shown(url)
        assert word not in shown("hls://" + url)
        assert word not in direct.check(url.replace("a.flv", "none.flv"), LIVE).reason


def test_a_look_follows_redirects_and_keeps_nothing_of_what_the_site_set(script):
    script.says("/a.flv", status=302, location="/b.flv?token=1")
    script.says("/b.flv", body=FLV)
    script.says("/loop.flv", status=302, location="/loop.flv")
    direct = Direct()
    for _ in range(2):
        assert direct.check(f"{script.url}/a.flv", LIVE).state is State.LIVE
    assert ["Cookie" in headers for headers in script.headers] == [False, True, False, True]
    assert direct.stream(f"{script.url}/a.flv", LIVE).url == f"{script.url}/a.flv"
    assert direct.check(f"{script.url}/loop.flv", LIVE).reason == "the site redirects in circles"


def test_an_answer_that_ends_early_is_no_answer(script):
    """Half a playlist has no end, so a replay would look live."""
    script.says("/a.m3u8", body=PLAYLIST, length=len(PLAYLIST) + 16)
    seen = Direct().check(f"{script.url}/a.m3u8", LIVE)
    assert (seen.state, seen.answered) == (State.UNKNOWN, False)


def test_a_playlist_without_bounds_is_not_read_to_its_end(script):
    script.says("/a.m3u8", body=PLAYLIST + b"#EXTINF:2,\n9.ts\n" * 40_000)
    assert Direct().check(f"{script.url}/a.m3u8", LIVE).reason == "the playlist is longer than 256 KiB"


def test_the_best_variant_with_sound_is_taken_and_a_password_does_not_follow_to_another_host(script):
    elsewhere = script.url.replace("127.0.0.1", "localhost")
    master = (
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="s",NAME="a",URI="sound.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=900,RESOLUTION=1920x1080,AUDIO="s"\nmute.m3u8\n'
        f"#EXT-X-STREAM-INF:BANDWIDTH=500,RESOLUTION=1280x720\n{elsewhere}/720.m3u8?key=1\n"
        "#EXT-X-STREAM-INF:BANDWIDTH=700\nunsized.m3u8\n"
    )
    script.says("/m.m3u8", body=master.encode())
    script.says("/720.m3u8", body=PLAYLIST)
    url = script.url.replace("//", "//user:pass@") + "/m.m3u8"
    direct = platform_for(url)
    assert direct.check(url, LIVE).state is State.LIVE
    assert ["Authorization" in headers for headers in script.headers] == [True, False]
    assert direct.stream(url, LIVE) == LiveStream(f"{elsewhere}/720.m3u8?key=1", "hls", {})
    only_mute = "\n".join(master.splitlines()[:4])
    script.says("/m.m3u8", body=only_mute.encode())
    for address in (url, f"hls://{script.url}/m.m3u8"):
        seen = platform_for(address).check(address, LIVE)
        assert (seen.state, "not supported yet" in seen.reason) == (State.UNKNOWN, True)


def test_streamlink_hands_over_the_headers_a_stream_takes(script):
    script.says("/a.flv", body=FLV)
    url = f"httpstream://{script.url}/a.flv headers={{'Referer':'http://site/','Cookie':'k=v'}} params={{'t':'1'}}"
    streamlink = platform_for(url)
    assert streamlink.check(url, LIVE).state is State.LIVE
    assert script.headers[-1]["Referer"] == "http://site/"
    stream = streamlink.stream(url, LIVE)
    assert stream.url == f"{script.url}/a.flv?t=1"
    assert (stream.headers["Cookie"], stream.headers["Referer"]) == ("k=v", "http://site/")
    assert "Mozilla" in stream.headers["User-Agent"]
    assert "Accept-Encoding" not in stream.headers


def test_streamlink_streams_of_other_kinds_are_said_to_be_unsupported(script):
    script.says("/a.mp4", body=b"<!doctype html>")
    url = f"httpstream://{script.url}/a.mp4"
    platform = platform_for(url)
    assert platform.name == "streamlink"
    assert "not supported yet" in platform.check(url, LIVE).reason
    with pytest.raises(TemporaryError, match="not supported yet"):
        platform.stream(url, LIVE)


@pytest.mark.parametrize("form", ["{}", "dash://{}", "dash://{} headers={{'Referer':'http://site/'}}"])
def test_a_dash_manifest_is_live_while_it_is_dynamic_and_ffmpeg_records_it(script, form):
    url = form.format(f"{script.url}/a.mpd")
    platform = platform_for(url)
    assert platform.name == ("streamlink" if "headers" in url else "direct")
    for body, state in ((DASH, State.OFFLINE), (DASH.replace(b"static", b"dynamic"), State.LIVE)):
        script.says("/a.mpd", body=body)
        assert platform.check(url, LIVE).state is state, body
    stream = platform.stream(url, LIVE)
    assert (stream.url, stream.protocol) == (f"{script.url}/a.mpd", "ffmpeg")
    assert ("Referer" in stream.headers) is ("headers" in url)
    script.says("/a.mpd", body=b"<!doctype html><MPDX type='dynamic'>")
    assert platform.check(url, LIVE).state is State.UNKNOWN
    script.says("/a.mpd", status=404)
    assert platform.check(url, LIVE).state is State.OFFLINE
    script.says("/a.mpd", status=403)
    assert platform.check(url, LIVE).state is State.UNKNOWN


@pytest.mark.parametrize("address", ["rtmp://127.0.0.1:{}/live/r", "srt://127.0.0.1:{}"])
def test_what_only_ffmpeg_reads_is_live_when_it_plays_and_never_offline_for_want_of_an_answer(address):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url, patient = address.format(port), LIVE.model_copy(update={"request_timeout_seconds": 10.0})
    direct = platform_for(url)
    assert direct.name == "direct"
    seen = direct.check(url, LIVE)
    assert (seen.state, seen.answered) == (State.UNKNOWN, False)
    kind = ["-f", "flv", "-listen", "1", url] if url.startswith("rtmp") else ["-f", "mpegts", f"{url}?mode=listener"]
    server = subprocess.Popen(
        ["ffmpeg", "-nostdin", "-v", "quiet", "-f", "lavfi", "-re", "-i", "testsrc2=size=160x90:rate=10", "-c:v",
         "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", *kind], stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: direct.check(url, patient).state is State.LIVE)
        assert direct.stream(url, LIVE) == LiveStream(url, "ffmpeg")
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("Server error: NetStream.Play.StreamNotFound: no such stream", State.OFFLINE),
        ("method DESCRIBE failed: 404 Not Found", State.OFFLINE),
        ("Connection refused", State.UNKNOWN),
        ("method DESCRIBE failed: 401 Unauthorized", State.UNKNOWN),
    ],
)
def test_a_server_that_says_there_is_no_such_stream_is_believed(said, state, tmp_path, monkeypatch):
    """A stand-in for ffmpeg, as no server of these kinds is at hand; its words are those of ffmpeg 5.1."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho '{said} rtsp://h/secret' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    seen = Direct().check("rtsp://h/secret", LIVE)
    assert seen.state is state
    assert "secret" not in seen.reason


def test_mirrors_of_the_wanted_quality_are_alternates(monkeypatch):
    names = {"720p": "a", "720p_alt": "b", "720p_alt2": "a", "1080p": "c", "1080p_hls": "d", "480p": "e"}
    found = {name: SimpleNamespace(url=path) for name, path in names.items()}
    found["best"], found["worst"] = found["1080p"], found["480p"]
    monkeypatch.setattr(via_streamlink, "_recordable", lambda stream: LiveStream(f"http://h/{stream.url}.flv", "flv"))
    for quality, ways in (("best", "cd"), ("720p", "ab"), ("480p", "e"), ("1080p_hls", "dc")):
        stream = via_streamlink._choose(found, quality)
        assert [one.url[9] for one in (stream, *stream.alternates)] == list(ways)


def test_further_streams_of_the_stand_in_are_alternates_and_its_word_on_their_end_is_kept(site):
    url = f"rehearsal+{site.add_room('r', protocol='flv', streamer='S', title='t', size='160x90', edges=3)}"
    site.go_live("r")
    stream = platform_for(url).stream(url, LIVE)
    assert len({one.url for one in (stream, *stream.alternates)}) == 3
    assert stream.expires_at is None
    site.lifetime("r", 60.0)
    stream = platform_for(url).stream(url, LIVE)
    for one in (stream, *stream.alternates):
        assert 50 < (one.expires_at - datetime.now(UTC)).total_seconds() <= 60
    site.lifetime("r", 60.0, told=False)
    assert platform_for(url).stream(url, LIVE).expires_at is None


@pytest.mark.parametrize(
    ("complaints", "state"),
    [
        ([], State.OFFLINE),
        (["This stream is currently offline"], State.OFFLINE),
        (["Stream is password protected"], State.RESTRICTED),
        (["The stream is not available in your region"], State.RESTRICTED),
        (["Could not find https://site/?token=secret in {'k': 'secret'}\nsecret"], State.UNKNOWN),
    ],
)
def test_a_plugin_that_finds_nothing_means_offline_unless_it_complained(complaints, state):
    seen = via_streamlink.nothing_found(complaints)
    assert seen.state is state
    assert "token" not in seen.reason


def test_a_plugin_that_finds_nothing_is_heard(script):
    """streamlink's own generic plugin complains of an address without a host."""
    seen = platform_for("hls:///x.m3u8").check("hls:///x.m3u8", LIVE)
    assert seen.state is State.UNKNOWN
    assert seen.reason == "Input URL is missing a host or input file path is missing the … scheme"


def test_local_files_are_no_streams(tmp_path):
    (tmp_path / "a.m3u8").write_bytes(PLAYLIST)
    url = f"hls://file://{tmp_path}/a.m3u8"
    assert platform_for(url).check(url, LIVE).state is State.UNKNOWN


@pytest.mark.parametrize("quality", ["best", "worst", "720p", "4k,480p", "4k"])
def test_the_wanted_quality_is_chosen_by_name(script, quality):
    lines = [
        f"#EXT-X-STREAM-INF:BANDWIDTH={height}000,RESOLUTION=1x{height}\n{height}.m3u8" for height in (480, 720, 1080)
    ]
    script.says("/m.m3u8", body=("#EXTM3U\n" + "\n".join(lines)).encode())
    url = f"hls://{script.url}/m.m3u8"
    stream = platform_for(url).stream(url, LIVE.model_copy(update={"quality": quality}))
    expected = {"best": 1080, "worst": 480, "720p": 720, "4k,480p": 480, "4k": 1080}[quality]
    assert stream.url == f"{script.url}/{expected}.m3u8"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("rehearsal+http://127.0.0.1:1/rooms/a-1", "rehearsal"),
        ("rehearsal+http://127.0.0.1:1/rooms/", None),
        ("rehearsal+http://user@h/rooms/a", None),
        ("https://h/live/a.flv?x=1", "direct"),
        ("https://h/live/a.FLV", "direct"),
        ("https://h/a.m3u8#f", "direct"),
        ("https://h/a.m3u8.html", None),
        ("https://h/page?file=a.flv", None),
        ("https:///a.flv", None),
        ("http://[/a.flv", None),
        ("ftp://h/a.flv", None),
        ("https://h/a.MPD?x=1", "direct"),
        ("dash://https://h/manifest", "direct"),
        ("dash://https://h/manifest key=1", "streamlink"),
        ("dash://rtmp://h/a", "streamlink"),
        ("rtmps://user:word@h/app/key", "direct"),
        ("rtsp://h:554/cam", "direct"),
        ("srt://h:9000?streamid=a", "direct"),
        ("rtmp:///app", None),
        ("hlsvariant://https://h/a.m3u8 name_key=bitrate", "streamlink"),
        ("https://www.twitch.tv/somebody", "streamlink"),
        ("twitch.tv/somebody", "streamlink"),
        ("https://live.bilibili.com/123", "streamlink"),
        ("https://example.com/", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_an_address_has_one_platform_or_none(url, name):
    platform = platform_for(url)
    assert (platform.name if platform else None) == name
    assert answers(url) == (name is not None)


def test_streamlink_is_not_loaded_for_addresses_that_do_not_need_it():
    program = (
        "import sys; from biliupd.live.platform import answers; from biliupd.live.poller import Poller;"
        "assert answers('http://h/a.flv') and answers('rehearsal+http://h/rooms/a');"
        "assert 'streamlink' not in sys.modules; assert answers('https://www.twitch.tv/a');"
        "assert 'streamlink' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


@pytest.mark.parametrize(
    ("start", "plausible"),
    [
        (FLV, True),
        (FLV[:4], True),
        (b"FLV\x02", False),
        (b"\x12\0\0\x10\0\0\0\0\0\0\0", True),
        (b"\x09\0\0\x10\0\0\0\0\0\0\0", True),
        (b"\x09\0\0\0\0\0\0\0\0\0\0", False),
        (b"\x09\0\0\x10\0\0\0\0\0\0\x01", False),
        (b"\x09\0\0\x10", False),
        (b"", False),
    ],
)
def test_the_first_bytes_tell_flv_from_other_things(start, plausible):
    assert starts_like_flv(start) is plausible


def test_playlists_are_read_as_far_as_needed():
    assert read_playlist("<html>", "http://h/") is None
    assert read_playlist("", "http://h/") is None
    found = read_playlist("\ufeff#EXTM3U\r\n#EXTINF:1,\r\na.ts\r\n", "http://h/")
    assert found == Playlist(segments=1, newest=("", "a.ts"))
    found = read_playlist(PLAYLIST.decode(), "http://h/")
    assert found == Playlist(segments=2, target_seconds=2, newest=("7", "8.ts"))
    assert read_playlist("#EXTM3U\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXTINF:1,\na\n", "http://h/").ended
    assert read_playlist("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1", "http://h/").variants == ()


def test_text_of_a_site_is_made_harmless():
    assert one_line("a\n\x1b[31mb\u202e \ud800c\t ") == "a [31mb c"
    assert one_line(12) == "12"
    assert one_line(None) == one_line(["x"]) == ""


def test_every_platform_has_a_name_of_its_own():
    assert len({platform.name for platform in PLATFORMS}) == len(PLATFORMS)


DASH = b"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT4S" minBufferTime="PT1S"
 profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet mimeType="video/mp4">
<Representation id="1" bandwidth="1000" width="320" height="240" codecs="avc1.42c00d">
<BaseURL>a.mp4</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>"""
