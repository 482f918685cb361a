"""The stand-in live site: is what it sends real, does it misbehave as told, does it leave nothing behind?"""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import wait_until

from biliupd.errors import BiliupdError
from biliupd.rehearsal.live_feed import Piece
from biliupd.rehearsal.live_site import LiveSite

SMALL = {"size": "160x90"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LiveSite]:
    site = LiveSite(tmp_path / "site", gone_seconds=1.0)
    site.start()
    yield site
    site.close()
    assert running_under(tmp_path) == []


def running_under(directory: Path) -> list[str]:
    """Command lines of this process's children (and theirs) that a site in `directory` has started."""
    lines = []
    for found in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            parts = found.read_bytes().split(b"\0")
            log = os.readlink(found.with_name("fd") / "2")
        except OSError:
            continue
        if log.startswith(str(directory)):
            lines.append(b" ".join(parts).decode())
    return lines


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def describe(site: LiveSite, room_id: str) -> dict:
    return json.loads(get(f"{site.url}/api/rooms/{room_id}")[2])


def address(site: LiveSite, room_id: str) -> str:
    return describe(site, room_id)["streams"][0]["url"]


def decode(url: str, seconds: float = 1.0) -> subprocess.CompletedProcess[str]:
    """Decode so much of it, strictly: a message on stderr is a fault."""
    argv = ["ffmpeg", "-v", "warning", "-xerror", "-i", url, "-t", str(seconds), "-f", "null", "-"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


class Listener:
    """An FLV connection that is read on a thread of its own; splits what comes into tags."""

    def __init__(self, url: str) -> None:
        self.content = b""
        self.error: Exception | None = None
        self.over = False
        self.thread = threading.Thread(target=self.run, args=(url,))
        self.thread.start()

    def run(self, url: str) -> None:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                while piece := response.read1(65536):
                    self.content += piece
        except (OSError, http.client.HTTPException) as error:
            self.error = error
        self.over = True

    def tags(self) -> list[tuple[int, int, bytes]]:
        """(kind, time in ms, body) of the whole tags so far."""
        found, place = [], 13
        while len(self.content) >= place + 15:
            head = self.content[place : place + 11]
            size = int.from_bytes(head[1:4], "big")
            if len(self.content) < place + 15 + size:
                break
            at = int.from_bytes(head[4:7], "big") | head[7] << 24
            found.append((head[0], at, self.content[place + 11 : place + 11 + size]))
            place += 15 + size
        return found

    def pictures(self) -> list[int]:
        return [at for kind, at, body in self.tags() if kind == 9 and body[1] == 1]


@pytest.mark.parametrize("protocol", ["flv", "hls"])
def test_both_kinds_of_rooms_deliver_what_ffmpeg_decodes_without_a_complaint(site, protocol):
    site.add_room("r", protocol=protocol, streamer="S", title="t", **SMALL)
    site.go_live("r")
    done = decode(address(site, "r"))
    assert (done.returncode, done.stderr) == (0, "")
    argv = ["ffprobe", "-v", "error", "-analyzeduration", "500000", "-of", "csv=p=0", "-show_entries",
            "stream=codec_name,width,height"]  # fmt: skip
    found = subprocess.run([*argv, address(site, "r")], capture_output=True, text=True, timeout=30, check=True).stdout
    assert set(found.split()) >= {"h264,160,90", "aac"}


def test_the_api_says_what_a_room_is(site):
    page = site.add_room("r", protocol="hls", streamer="主播", title="标题 {x}", **SMALL)
    assert page == f"{site.url}/rooms/r"
    offline = describe(site, "r")
    assert offline == {
        "room_id": "r", "streamer": "主播", "title": "标题 {x}", "cover": f"{site.url}/covers/r.jpg",
        "live_status": "offline", "live_id": "", "started_at": None, "streams": [],
    }
    site.go_live("r")
    live = describe(site, "r")
    assert (live["live_status"], live["live_id"], len(live["streams"])) == ("live", "r-1", 1)
    assert live["started_at"].endswith("+00:00")
    site.restrict("r")
    site.rename("r", "other")
    assert (describe(site, "r")["live_status"], describe(site, "r")["streams"]) == ("restricted", [])
    assert describe(site, "r")["title"] == "other"
    site.go_offline("r")
    site.go_live("r")
    assert describe(site, "r")["live_id"] == "r-2"
    status, content_type, picture = get(live["cover"])
    assert (status, content_type, picture[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert b"Room r" in get(page)[2]
    for path in ("/api/rooms/none", "/rooms/none", "/live/none.flv", "/live/none/index.m3u8", "/covers/x.jpg", "/"):
        assert get(site.url + path)[0] == 404
    assert "error" in json.loads(get(f"{site.url}/api/rooms/none")[2])


def test_media_run_in_real_time_and_a_late_joiner_gets_all_headers_and_the_last_keyframe_with_its_time(site):
    site.add_room("r", protocol="flv", streamer="S", title="t", **SMALL)
    site.go_live("r")
    first = Listener(address(site, "r"))
    wait_until(first.pictures)
    began, start = time.monotonic(), first.pictures()[-1]
    wait_until(lambda: first.pictures()[-1] > max(2200, start + 1500))
    assert 0.8 < (time.monotonic() - began) / (first.pictures()[-1] - start) * 1000 < 1.4
    late = Listener(address(site, "r"))
    wait_until(lambda: len(late.pictures()) > 30)
    for listener in (first, late):
        assert listener.content.startswith(b"FLV\x01\x05")
        assert [(kind, body[1:2]) for kind, _, body in listener.tags()[:3]] == [(18, b"\0"), (9, b"\0"), (8, b"\0")]
    start = next((at, body[0] >> 4) for kind, at, body in late.tags() if kind == 9 and body[1] == 1)
    assert start[0] >= 2000
    assert start[1] == 1  # a keyframe
    same = set(late.pictures()) & set(first.pictures())
    assert len(same) > 20  # both listen to one stream
    assert max(b - a for a, b in zip(late.pictures(), late.pictures()[1:], strict=False)) <= 41
    assert site.listeners("r") == 2
    site.go_offline("r")
    first.thread.join(5)
    late.thread.join(5)
    assert (first.error, late.error, first.over, late.over) == (None, None, True, True)


def test_a_cut_resets_the_connections_once_and_the_room_stays_on_air(site):
    site.add_room("f", protocol="flv", streamer="S", title="t", **SMALL)
    site.add_room("h", protocol="hls", streamer="S", title="t", **SMALL)
    site.go_live("f")
    site.go_live("h")
    listeners = [Listener(address(site, "f")) for _ in range(2)]
    wait_until(lambda: all(listener.pictures() for listener in listeners))
    site.cut("f")
    for listener in listeners:
        listener.thread.join(5)
        assert isinstance(listener.error, ConnectionResetError)
    assert decode(address(site, "f")).returncode == 0
    site.cut("h")
    with pytest.raises((OSError, http.client.HTTPException)):
        get(address(site, "h"))
    assert get(address(site, "h"))[0] == 200


def test_withheld_media_leaves_connections_open_and_silent(site):
    site.add_room("f", protocol="flv", streamer="S", title="t", **SMALL)
    site.add_room("h", protocol="hls", streamer="S", title="t", **SMALL)
    site.go_live("f")
    site.go_live("h")
    listener = Listener(address(site, "f"))
    wait_until(listener.pictures)
    site.withhold("f")
    site.withhold("h")
    answer: list[int] = []
    playlist = threading.Thread(target=lambda: answer.append(get(address(site, "h"))[0]))
    playlist.start()
    silent = Listener(address(site, "f"))
    wait_until(lambda: silent.content)
    before = len(listener.pictures())
    until = time.monotonic() + 1.2
    wait_until(lambda: time.monotonic() > until)
    assert len(listener.pictures()) <= before + 1
    assert (listener.over, silent.pictures(), answer) == (False, [], [])
    site.deliver("f")
    site.deliver("h")
    wait_until(lambda: len(listener.pictures()) > before + 10 and silent.pictures())
    gaps = [b - a for a, b in zip(listener.pictures(), listener.pictures()[1:], strict=False)]
    assert max(gaps) > 800  # lost for good, and told by the timestamps
    playlist.join(5)
    assert answer == [200]
    site.go_offline("f")
    listener.thread.join(5)
    silent.thread.join(5)


def test_offline_ends_a_playlist_and_then_everything_is_a_404(site):
    site.add_room("f", protocol="flv", streamer="S", title="t", **SMALL)
    site.add_room("h", protocol="hls", streamer="S", title="t", **SMALL)
    assert get(f"{site.url}/live/f.flv")[0] == 404
    assert get(f"{site.url}/live/h/index.m3u8")[0] == 404
    site.go_live("f")
    site.go_live("h")
    flv, hls = address(site, "f"), address(site, "h")
    status, content_type, playlist = get(hls)
    assert (status, content_type) == (200, "application/vnd.apple.mpegurl")
    assert b"#EXT-X-ENDLIST" not in playlist
    segment = playlist.decode().split()[-1]
    assert get(f"{site.url}/live/h/{segment}")[:2] == (200, "video/mp2t")
    site.go_offline("f")
    site.go_offline("h")
    assert get(flv)[0] == 404
    assert b"#EXT-X-ENDLIST" in get(hls)[2]
    assert decode(hls).returncode == 0
    wait_until(lambda: get(hls)[0] == 404)
    assert get(f"{site.url}/live/h/{segment}")[0] == 404


def test_addresses_expire_and_media_fails_as_told(site):
    site.add_room("h", protocol="hls", streamer="S", title="t", **SMALL)
    site.go_live("h")
    old = address(site, "h")
    site.expire("h")
    assert (get(old)[0], get(address(site, "h"))[0], get(f"{site.url}/live/h/master.m3u8")[0]) == (403, 200, 200)
    site.media_fails("h", 503)
    assert get(address(site, "h"))[0] == 503
    site.media_fails("h")
    assert get(address(site, "h"))[0] == 200


def test_the_api_fails_as_told(site):
    site.add_room("h", protocol="hls", streamer="S", title="t", **SMALL)
    url = f"{site.url}/api/rooms/h"
    site.api_fails("h", status=429)
    assert get(url)[0] == 429
    site.api_fails("h", delay_seconds=0.4)
    began = time.monotonic()
    assert get(url)[0] == 200
    assert time.monotonic() - began > 0.4
    site.api_fails("h")
    site.html_instead("h")
    assert get(url)[:2] == (200, "text/html; charset=utf-8")
    site.html_instead("h", False)
    assert describe(site, "h")["room_id"] == "h"


def test_an_ffmpeg_that_brings_nothing_is_an_error_with_its_reason(site):
    with pytest.raises(BiliupdError, match="no cover"):
        site.add_room("r", protocol="flv", streamer="S", title="t", size="nonsense")
    site.add_room("s", protocol="flv", streamer="S", title="t", fps=0)
    with pytest.raises(BiliupdError, match="video rate"):
        site.go_live("s")
    assert describe(site, "s")["live_status"] == "offline"
    with pytest.raises(ValueError, match="letters"):
        site.add_room("../r", protocol="flv", streamer="S", title="t", **SMALL)


def test_a_slow_client_loses_media_but_holds_up_nobody(site):
    site.add_room("r", protocol="flv", streamer="S", title="t", **SMALL)
    site.go_live("r")
    feed = site.room("r").feed
    slow = feed.join()
    quick = Listener(address(site, "r"))
    wait_until(lambda: len(quick.pictures()) > 5)
    with feed.lock:
        while slow.tags.qsize() < slow.most:
            slow.tags.put(Piece(b""))
    seen = len(quick.pictures())
    wait_until(lambda: slow.wants_keyframe and len(quick.pictures()) > seen + 30)
    feed.leave(slow)
    site.go_offline("r")
    quick.thread.join(5)
    assert quick.error is None


def test_closing_while_everything_is_busy_leaves_no_process_and_no_connection(tmp_path):
    site = LiveSite(tmp_path)
    site.start()
    for room_id, protocol in (("f", "flv"), ("h", "hls")):
        site.add_room(room_id, protocol=protocol, streamer="S", title="t", **SMALL)
        site.go_live(room_id)
    assert len([line for line in running_under(tmp_path) if "testsrc2" in line]) >= 2
    site.withhold("h")
    stuck = Listener(f"{site.url}/live/h/index.m3u8")
    listener = Listener(f"{site.url}/live/f.flv")
    wait_until(listener.pictures)
    began = time.monotonic()
    site.close()
    assert time.monotonic() - began < 4
    listener.thread.join(5)
    stuck.thread.join(5)
    assert running_under(tmp_path) == []


def test_no_ffmpeg_outlives_a_site_that_was_killed(tmp_path):
    program = (
        "import sys; from pathlib import Path; from biliupd.rehearsal.live_site import LiveSite\n"
        "site = LiveSite(Path(sys.argv[1])); site.start()\n"
        "for p in ('flv', 'hls'): site.add_room(p, protocol=p, streamer='S', title='t'); site.go_live(p)\n"
        "print('live', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "live\n"
        assert len([line for line in running_under(tmp_path) if "testsrc2" in line]) >= 2
        child.send_signal(signal.SIGKILL)
        child.wait(5)
        wait_until(lambda: running_under(tmp_path) == [], seconds=5)
