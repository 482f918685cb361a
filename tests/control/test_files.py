"""Files of the library: whole, in pieces, played; and nothing that lies elsewhere, whatever a row says."""

import os
import re
import socket
from urllib.parse import unquote

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as some
from stage import Stage
from support import wait_until

from biliupd.catalog.database import now
from biliupd.catalog.paths import PATH_COLUMNS, stored
from biliupd.catalog.states import rows
from biliupd.control import connections, files
from biliupd.control.files import CHUNK_BYTES, named, ranged
from biliupd.control.models import Refusal
from biliupd.errors import PermanentError, TemporaryError

LONG = os.urandom(CHUNK_BYTES * 2 + 777)


def add(stage: Stage, path: str, root=None, **facts) -> int:
    """A video whose row says that its file lies there."""
    root = str(root or stage.drop)
    known = stage.catalog.db.execute("select id from videos where file_path = cast(? as text)", [stored(path)])
    if found := known.fetchone():
        return found[0]
    rows(stage.catalog.db, "videos").insert({
        "title": "x", "file_path": stored(path), "root": root, "path": "x", "parent_path": "", "kind": "file",
        "file_size": 1, "mtime_ns": 1, "inode": 1, "device": 1, "state": "ready", "since": now(), "created_at": now(),
        **facts,
    }, conversions=PATH_COLUMNS)  # fmt: skip
    return stage.catalog.db.execute("select max(id) from videos").fetchone()[0]


@pytest.fixture
def viewer(shared):
    return shared.bearer("viewer")


@pytest.fixture
def long(shared):
    """Address of a file of several chunks."""
    path = shared.drop / "long.mp4"
    if not path.exists():
        path.write_bytes(LONG)
    return f"{shared.url}/api/videos/{add(shared, str(path))}/file"


def test_a_file_comes_whole_with_what_it_is(viewer, long):
    answer = viewer.get(long)
    assert (answer.status_code, answer.content == LONG) == (200, True)
    assert answer.headers["content-length"] == str(len(LONG))
    assert (answer.headers["content-type"], answer.headers["accept-ranges"]) == ("video/mp4", "bytes")
    assert answer.headers["cache-control"] == "private, no-cache"
    head = viewer.head(long)
    assert (head.status_code, head.content) == (200, b"")
    different = {"date"}
    assert ({k: v for k, v in head.headers.items() if k.lower() not in different}
            == {k: v for k, v in answer.headers.items() if k.lower() not in different})  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1), ("bytes=5-9", 5, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None),
        ("BYTES=0-1", 0, 2),
        ("bytes=0-99999999999", 0, None), ("bytes=-99999999999", 0, None), ("bytes=300000-600000", 300000, 600001),
        (f"bytes={len(LONG) - 1}-", -1, None),
    ],
)  # fmt: skip
def test_a_piece_comes_as_it_was_asked_for(viewer, long, asked, start, end):
    answer = viewer.get(long, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == LONG[start:end]
    first, last, size = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"]).groups()
    assert (int(size), LONG[int(first) : int(last) + 1]) == (len(LONG), answer.content)


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=a-b", "bytes", "bytes=", "bytes=-", "lines=0-5", "bytes=0-5x",
              "bytes=" + "1" * 9000 + "-", "bytes=١-٢".encode()],
)  # fmt: skip
def test_a_range_nobody_understands_is_answered_with_all(viewer, long, asked):
    answer = viewer.get(long, headers={"Range": asked})
    assert (answer.status_code, len(answer.content)) == (200, len(LONG))


@pytest.mark.parametrize("asked", [f"bytes={len(LONG)}-", "bytes=99999999-", "bytes=-0", "bytes=99999999-100000000"])
def test_where_nothing_of_the_file_lies_there_is_nothing(viewer, long, asked):
    answer = viewer.get(long, headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(LONG)}")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_file_that_is_known_is_not_sent_again_and_a_changed_one_not_patched_together(viewer, long):
    whole = viewer.head(long).headers
    etag, changed = whole["etag"], whole["last-modified"]
    for headers, status in (
        ({"If-None-Match": etag}, 304), ({"If-None-Match": f'"a", W/{etag}'}, 304), ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200), ({"If-None-Match": '"other"', "If-Modified-Since": changed}, 200),
        ({"If-Modified-Since": changed}, 304), ({"If-Match": etag}, 200), ({"If-Match": '"other"'}, 412),
        ({"Range": "bytes=0-1", "If-Range": etag}, 206), ({"Range": "bytes=0-1", "If-Range": changed}, 206),
        ({"Range": "bytes=0-1", "If-Range": '"other"'}, 200), ({"Range": "bytes=0-1", "If-Range": f"W/{etag}"}, 200),
        ({"Range": "bytes=0-1", "If-None-Match": etag}, 304), ({"Range": "bytes=0-1", "If-Match": '"other"'}, 412),
        ({"Range": "bytes=99999999-", "If-Range": '"other"'}, 200),
    ):  # fmt: skip
        answer = viewer.get(long, headers=headers)
        assert answer.status_code == status, headers
        assert status != 304 or (answer.content, answer.headers["etag"]) == (b"", etag)


@settings(max_examples=100, deadline=None)
@given(some.integers(0, 50), some.none() | some.integers(0, 60), some.none() | some.integers(0, 60))
def test_ranges_follow_the_rule_for_every_number(size, first, last):
    text = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    content = bytes(range(size))
    found = ranged(text, size)
    if first is None:
        assert found == (None if last is None else (max(0, size - last), size))
    elif last is not None and last < first:
        assert found is None
    else:
        start, end = found
        assert content[start:end] == content[first : None if last is None else last + 1]
        assert 0 <= start <= end <= size


def test_an_empty_file_is_empty(shared, viewer):
    path = shared.drop / "empty.mp4"
    path.touch()
    url = f"{shared.url}/api/videos/{add(shared, str(path))}/file"
    assert (viewer.get(url).status_code, viewer.get(url).content) == (200, b"")
    assert viewer.get(url, headers={"Range": "bytes=0-"}).status_code == 416


# -- nothing that lies elsewhere


@pytest.fixture
def outside(shared, tmp_path):
    """A secret, and several ways to it that a row could name."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    link, folder, chain = (shared.drop / f"{name}-{tmp_path.name}" for name in ("link.mp4", "folder", "chain.mp4"))
    link.symlink_to(secret)
    folder.symlink_to(tmp_path)
    chain.symlink_to(link)
    return {
        "itself": str(secret), "by a link": str(link), "by a folder": str(folder / "secret.mp4"), "chain": str(chain),
        "dots": f"{shared.drop}/../../{tmp_path.name}/secret.mp4",
        "dots far up": f"{shared.drop}" + "/.." * 40 + str(secret),
        "beside": f"{shared.drop}-{tmp_path.name}", "the catalog": str(shared.catalog.path), "a device": "/dev/zero",
        "itself by proc": "/proc/self/root" + str(secret), "passwd": "/etc/passwd", "relative": "secret.mp4",
        "the root": str(shared.drop), "nothing": "", "zero": f"{shared.drop}/a\0b", "proc": "/proc/self/environ",
    }  # fmt: skip


def test_a_row_that_leads_out_of_the_library_leads_nowhere(shared, viewer, outside):
    beside = outside["beside"]
    os.mkdir(f"{beside}")
    for way, path in outside.items():
        id = add(shared, path, thumbnail_path=path.replace("\0", ""), cover_path=path.replace("\0", ""))
        for what in ("file", "thumbnail", "cover", "play"):
            if (way, what) in (("the catalog", "thumbnail"), ("the catalog", "cover")):
                continue
            answer = viewer.get(f"{shared.url}/api/videos/{id}/{what}")
            assert answer.status_code == 404, (way, what)
            assert "secret" not in answer.text
    catalog = add(shared, str(shared.catalog.path), thumbnail_path=str(shared.catalog.path))
    assert viewer.get(f"{shared.url}/api/videos/{catalog}/thumbnail").status_code == 404  # it is no picture


def test_links_inside_the_library_are_followed_and_so_is_a_root_that_is_a_link(stage, tmp_path):
    (stage.drop / "real.mp4").write_bytes(b"film")
    (stage.drop / "link.mp4").symlink_to("real.mp4")
    (tmp_path / "way").symlink_to(stage.drop)
    stage.house.watched = [tmp_path / "way"]
    viewer = stage.session("viewer")
    for path in (stage.drop / "link.mp4", tmp_path / "way" / "real.mp4", tmp_path / "way" / "link.mp4"):
        answer = viewer.get(f"{stage.url}/api/videos/{add(stage, str(path))}/file")
        assert (answer.status_code, answer.content) == (200, b"film")
    stage.house.watched = []
    assert viewer.get(f"{stage.url}/api/videos/{add(stage, str(path))}/file").status_code == 404


def test_a_fifo_a_socket_and_a_directory_hold_no_thread(shared, viewer):
    os.mkfifo(shared.drop / "fifo.mp4")
    (shared.drop / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(shared.drop / "s.mp4"))
        for name in ("fifo.mp4", "folder.mp4", "s.mp4", "absent.mp4"):
            answer = viewer.get(f"{shared.url}/api/videos/{add(shared, str(shared.drop / name))}/file", timeout=5)
            assert answer.status_code == 404


def test_what_is_put_in_the_place_of_a_file_between_the_look_and_the_opening_is_not_read(stage, tmp_path, monkeypatch):
    path, secret = stage.drop / "film.mp4", tmp_path / "secret.mp4"
    path.write_bytes(b"film")
    secret.write_bytes(b"secret")
    real = os.fstat

    def swap(number):
        status = real(number)
        if path.exists() and not path.is_symlink() and os.path.samestat(status, os.lstat(path)):
            path.rename(stage.drop / "aside.mp4")
            path.symlink_to(secret)
        return status

    monkeypatch.setattr(files.os, "fstat", swap)
    with files.open_within(str(path), [stage.drop]) as opened:
        assert opened.read() == b"film"
    with pytest.raises(Refusal, match="not in the library"):
        files.open_within(str(path), [stage.drop])


def test_a_file_that_was_removed_is_gone_and_one_that_is_not_there_is_not_found(stage):
    viewer = stage.session("viewer")
    gone = add(stage, str(stage.drop / "gone.mp4"), removed_at=now(), state="published")
    for what in ("file", "play"):
        assert viewer.get(f"{stage.url}/api/videos/{gone}/{what}").status_code == 410
        assert viewer.get(f"{stage.url}/api/videos/9999/{what}").status_code == 404
        assert viewer.get(f"{stage.url}/api/videos/{2**63}/{what}").status_code == 422
    assert viewer.get(f"{stage.url}/api/videos/{gone}/thumbnail").status_code == 404


def test_no_file_stays_open(stage):
    (stage.drop / "film.mp4").write_bytes(LONG)
    url = f"{stage.url}/api/videos/{add(stage, str(stage.drop / 'film.mp4'))}/file"
    viewer = stage.session("viewer")
    etag = viewer.head(url).headers["etag"]
    for headers in ({}, {"Range": "bytes=0-5"}, {"Range": "bytes=9999999-"}, {"If-None-Match": etag},
                    {"If-Match": '"x"'}):  # fmt: skip
        viewer.get(url, headers=headers)

    def is_open():
        return any("film.mp4" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                   if os.path.islink(f"/proc/self/fd/{fd}"))  # fmt: skip

    wait_until(lambda: not is_open())
    with requests.get(url, cookies=viewer.cookies, stream=True, timeout=5) as left:
        left.raw.read(10)
    wait_until(lambda: not is_open())


# -- names and types


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"film.mp4", "film.mp4"), ("【歌回】夜.mp4".encode(), "【歌回】夜.mp4"),
        ("直播.mp4".encode("gb18030"), "直播.mp4"),
        (b'a"b\\c;d.mp4', 'a"b\\c;d.mp4'),
        (b"a\r\nSet-Cookie: x=1\r\n\r\n<b>.mp4", "a\r\nSet-Cookie: x=1\r\n\r\n<b>.mp4"),
        (b"100%25.mp4", "100%25.mp4"), (b"\xff\xfe\x81.mp4", None), (b"a\x1b[31m'.mp4", "a\x1b[31m'.mp4"),
    ],
)  # fmt: skip
def test_a_name_can_hold_anything_and_forges_no_header(shared, viewer, name, shown):
    path = os.fsdecode(os.path.join(os.fsencode(shared.drop), name))
    with open(path, "wb") as file:
        file.write(b"film")
    url = f"{shared.url}/api/videos/{add(shared, path)}/file"
    for wanted, kind in (("", "inline"), ("?download=true", "attachment")):
        answer = viewer.get(url + wanted)
        assert (answer.status_code, answer.content) == (200, b"film")
        assert "set-cookie" not in answer.headers
        found = re.fullmatch(rf"{kind}; filename=\"([ !#-\[\]-~]*)\"; filename\*=UTF-8''([!-~]*)",
                             answer.headers["content-disposition"])  # fmt: skip
        assert found
        assert shown is None or unquote(found[2]) == shown
        assert shown is None or not shown.isascii() or set(shown) & set('"\\%\r\x1b') or found[1] == shown


@given(some.text(some.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).map(str.encode)
       | some.binary(min_size=1))  # fmt: skip
def test_no_name_breaks_out_of_its_header(bytes_of_name):
    name = os.fsdecode(bytes_of_name)
    assert re.fullmatch(r"inline; filename=\"[ !#-\[\]-~]*\"; filename\*=UTF-8''[!-~]*", named("inline", f"/a/{name}"))


def test_a_file_is_called_what_it_is_and_never_anything_that_a_browser_runs(shared, viewer):
    for name, kind in (("a.flv", "video/x-flv"), ("a.MKV", "video/x-matroska"), ("a.ts", "video/mp2t"),
                       ("a.html", "application/octet-stream"), ("a.svg", "application/octet-stream"),
                       ("a.js", "application/octet-stream"), ("a", "application/octet-stream")):  # fmt: skip
        (shared.drop / name).write_bytes(b"<script>alert(1)</script>")
        answer = viewer.get(f"{shared.url}/api/videos/{add(shared, str(shared.drop / name))}/file")
        assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == (kind, "nosniff")


def test_a_picture_comes_from_the_library_or_from_beside_the_catalog(shared, viewer):
    covers = shared.catalog.path.parent / "covers"
    covers.mkdir(exist_ok=True)
    for picture in (covers / "1.jpg", shared.drop / "cover.jpg"):
        picture.write_bytes(b"\xff\xd8 a picture")
        id = add(shared, f"{picture}.mp4", thumbnail_path=str(picture))
        answer = viewer.get(f"{shared.url}/api/videos/{id}/thumbnail")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        assert answer.content == picture.read_bytes()
        again = viewer.get(f"{shared.url}/api/videos/{id}/thumbnail", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        assert viewer.head(f"{shared.url}/api/videos/{id}/thumbnail").status_code == 200
        assert viewer.get(f"{shared.url}/api/videos/{id}/cover").status_code == 404


# -- played


@pytest.fixture
def player(shared):
    """The shared one, whose house has been asked nothing yet."""
    shared.house.asked.clear()
    shared.house.refuses.clear()
    return shared


def playing(stage, pieces) -> str:
    """Address of a film that plays what `pieces` gives."""
    (stage.drop / "film.flv").write_bytes(b"film")
    stage.house.plays = pieces
    return f"{stage.url}/api/videos/{add(stage, str(stage.drop / 'film.flv'))}/play"


def test_a_film_is_played_from_where_it_is_asked_for(player):
    url = playing(player, lambda path, at: iter([b"moov", b"moof", b"mdat"]))
    answer = player.session("viewer").get(url, params={"from": 12.5})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "video/mp4", b"moovmoofmdat")
    assert player.house.asked == [("mp4", (player.drop / "film.flv", 12.5))]
    assert player.house.still_playing == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [(PermanentError("it holds no picture"), 409), (TemporaryError("4 are played", retry_after_seconds=10), 503),
     (Refusal(503, "too many"), 503)],
)  # fmt: skip
def test_what_cannot_be_played_is_a_problem(player, error, status):
    player.house.refuses["mp4"] = error
    answer = player.session("viewer").get(playing(player, lambda path, at: iter(())))
    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))
    assert player.house.still_playing == 0


def test_playing_ends_when_the_client_goes_away_also_one_that_takes_nothing(player):
    pulled = []

    def endless(path, at):
        while True:
            pulled.append(1)
            yield b"x" * 100_000

    url, viewer = playing(player, endless), player.session("viewer")
    with requests.get(url, cookies=viewer.cookies, stream=True, timeout=5) as answer:
        answer.raw.read(10)
        for _ in range(20):
            assert viewer.get(f"{player.url}/api/me").status_code == 200
        assert len(pulled) < 200  # it waits for the client, and does not fill the memory
        assert player.house.still_playing == 1
    wait_until(lambda: player.house.still_playing == 0)


def test_a_client_that_takes_nothing_for_long_is_cut(player, monkeypatch):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    url, cookies = playing(player, lambda path, at: iter(lambda: b"x" * 100_000, b"")), player.session("viewer").cookies
    with requests.get(url, cookies=cookies, stream=True, timeout=5) as answer:
        answer.raw.read(10)
        wait_until(lambda: player.house.still_playing == 0)


def test_a_stream_that_breaks_is_cut_and_not_ended(player):
    def breaks(path, at):
        yield b"moov"
        raise TemporaryError("ffmpeg is silent")

    answer = requests.get(playing(player, breaks), cookies=player.session("viewer").cookies, stream=True, timeout=5)
    pieces = answer.iter_content(4)
    assert next(pieces) == b"moov"
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        next(pieces)
    assert player.house.still_playing == 0


def test_a_file_that_becomes_shorter_while_it_is_sent_is_cut(player):
    path = player.drop / "film.mp4"
    path.write_bytes(b"x" * 60_000_000)
    url = f"{player.url}/api/videos/{add(player, str(path))}/file"
    with requests.get(url, cookies=player.session("viewer").cookies, stream=True, timeout=5) as answer:
        answer.raw.read(10)
        os.truncate(path, 1000)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(answer.iter_content(1 << 20))


@pytest.mark.parametrize("start", ["-1", "nan", "inf", "x", "1e9"])
def test_a_moment_that_is_none_names_the_field(shared, viewer, start):
    answer = viewer.get(f"{shared.url}/api/videos/1/play", params={"from": start})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.from")
