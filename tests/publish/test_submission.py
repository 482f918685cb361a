"""Submitting once, and finding out what became of it."""

import os
import socket
import threading
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from support import wait_until

from biliupd.config import Template
from biliupd.errors import Cooling, NeedsPerson, PermanentError, TemporaryError, UnknownOutcome
from biliupd.publish.archives import Submitted, find, review
from biliupd.publish.covers import upload_cover
from biliupd.publish.line import named
from biliupd.publish.studio import Part, studio
from biliupd.publish.submission import submit
from biliupd.publish.upos import upload

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")


@pytest.fixture
def parts(member, clip):
    def make(count=1):
        uploads = [upload(clip, member, [named("tx")], stop=threading.Event()) for _ in range(count)]
        return [Part(done.filename, f"P{number}", done.cid) for number, done in enumerate(uploads, 1)]

    return make


def body(parts, cover_url="", **said):
    return studio(Template().model_copy(update=said), parts, cover_url=cover_url)


def moment():
    return datetime.now(UTC)


# -- submitting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interface", ["app", "web"])
def test_a_submission_is_accepted(bilibili, member_with, parts, interface, tmp_path):
    member = member_with(submit=interface)
    (tmp_path / "cover.jpg").write_bytes(JPEG)
    cover_url, sent = upload_cover(member, tmp_path / "cover.jpg"), parts(2)
    done = submit(member, body(
        sent, cover_url, title="午夜 直播", tags=["直播", "录像"], desc="a\nb", tid=65, copyright=2, source="https://x",
        dynamic="d", is_only_self=True, human_type2=1008))
    (archive,) = bilibili.archives
    assert done == Submitted(archive.aid, archive.bvid)
    assert [(part.filename, part.title, part.cid) for part in archive.parts] == [
        (part.filename, part.title, part.cid) for part in sent]
    kept = archive.body
    assert (kept["title"], kept["tag"], kept["desc"], kept["tid"], kept["copyright"], kept["source"]) == (
        "午夜 直播", "直播,录像", "a\nb", 65, 2, "https://x")
    assert (kept["is_only_self"], kept["no_reprint"], kept["human_type2"]) == (1, 1, 1008)
    assert bilibili.picture(kept["cover"]) == JPEG
    request = next(item for item in bilibili.requests if item.route == "submit")
    assert request.path == {"app": "/x/vu/app/add", "web": "/x/vu/web/add/v3"}[interface]
    assert ("cookie" in request.headers) == (interface == "web")


def test_the_app_interface_needs_a_token(member, parts):
    credential = replace(member.credential, access_token="")
    member.credential = credential
    with pytest.raises(NeedsPerson, match="access token"):
        submit(member, body(parts(), title="t"))


@pytest.mark.parametrize("interface", ["app", "web"])
@pytest.mark.parametrize("loss", ["reset", "bad gateway", "200 html", "timeout", "-503"])
def test_a_lost_answer_is_an_unknown_outcome_and_the_one_archive_is_found(
        bilibili, member_with, parts, interface, loss):
    member = member_with(submit=interface, timeout_seconds=1)
    sent, began = parts(), moment()
    if loss == "reset":
        bilibili.lose_submit_answer()
    elif loss == "bad gateway":
        bilibili.spoil_answer("submit", 502)
    elif loss == "200 html":
        bilibili.spoil_answer("submit", 200)
    elif loss == "-503":
        bilibili.spoil_answer("submit", 200, b'{"code": -503, "message": "x"}')
    else:
        bilibili.stall("submit", 1.5)
    with pytest.raises(UnknownOutcome) as caught:
        submit(member, body(sent, title="一次"))
    told = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in member.credential.secrets if secret in told]
    if loss == "timeout":
        wait_until(lambda: bilibili.archives)
    (archive,) = bilibili.archives
    assert find(member, [sent[0].filename], began) == Submitted(archive.aid, archive.bvid)
    assert len([request for request in bilibili.requests if request.route == "submit"]) == 1


def test_a_second_submit_of_the_same_file_is_an_unknown_outcome_too(bilibili, member, parts):
    sent, began = parts(), moment()
    done = submit(member, body(sent, title="一"))
    with pytest.raises(UnknownOutcome, match="10009"):
        submit(member, body(sent, title="二"))
    with pytest.raises(UnknownOutcome, match="21012"):
        submit(member, body(parts(), title="一"))
    assert find(member, [sent[0].filename], began) == done
    assert len(bilibili.archives) == 1


def test_nothing_sent_is_temporary_not_unknown(bilibili, member, parts, member_with):
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    for url in (address, "http://nobody.invalid"):
        gone = member_with(member_url=url)
        with pytest.raises(TemporaryError):
            submit(gone, body(parts(), title="t"))
    assert bilibili.archives == []


@pytest.mark.parametrize(("code", "kind"), [
    (21070, TemporaryError), (21566, Cooling), (601, Cooling), (137022, Cooling), (-101, NeedsPerson),
    (21103, PermanentError), (20042, PermanentError), (-400, PermanentError), (12345, PermanentError),
])  # fmt: skip
def test_a_refusal_is_known_to_be_one(bilibili, member, parts, code, kind):
    bilibili.refuse("submit", code)
    with pytest.raises(kind, match=str(code)) as caught:
        submit(member, body(parts(), title="t"))
    assert type(caught.value) is kind


def test_an_intercepted_submit_was_not_accepted(bilibili, member, parts):
    bilibili.fail("submit", 412, b"<html>")
    with pytest.raises(NeedsPerson):
        submit(member, body(parts(), title="t"))


@pytest.mark.parametrize("answer", [{"code": 0, "message": "0"}, {"code": 0, "data": {"aid": "5"}}, {"code": "0"}, {}])
def test_a_success_that_names_no_archive_is_an_unknown_outcome(bilibili, member, parts, answer):
    bilibili.fail("submit", 200, answer)
    with pytest.raises(UnknownOutcome):
        submit(member, body(parts(), title="t"))


def test_an_expired_login_needs_a_person_at_submit(bilibili, member_with, parts):
    sent = parts()
    member = member_with(submit="web")
    bilibili.expire_login()
    with pytest.raises(NeedsPerson, match="-101"):
        submit(member, body(sent, title="t"))


# -- looking ----------------------------------------------------------------------------------------------------------


def test_find_sees_nothing_where_nothing_is_and_reads_every_page(bilibili, member, parts, monkeypatch):
    monkeypatch.setattr("biliupd.publish.archives.PAGE_SIZE", 2)
    began, sent = moment(), parts(5)
    made = [submit(member, body([part], title=f"t{number}")) for number, part in enumerate(sent)]
    assert find(member, ["nsomethingelse"], began) is None
    assert find(member, [sent[0].filename], began) == made[0]
    assert find(member, [sent[0].filename, sent[4].filename], began) == made[4]


def test_find_stops_at_what_is_older(bilibili, member, parts):
    sent = parts()
    submit(member, body(sent, title="t"))
    assert find(member, [sent[0].filename], moment() + timedelta(minutes=6)) is None
    assert find(member, [sent[0].filename], moment() + timedelta(minutes=4)) is not None
    assert len([request for request in bilibili.requests if request.route == "view"]) == 1


def test_find_allows_for_a_clock_that_is_ahead(bilibili, member, parts, monkeypatch):
    sent = parts()
    done = submit(member, body(sent, title="t"))
    ahead = SimpleNamespace(time=lambda: time.time() + 86400, monotonic=time.monotonic)
    monkeypatch.setattr("biliupd.publish.member.time", ahead)
    assert find(member, [sent[0].filename], moment() + timedelta(days=1)) == done


def test_an_error_while_looking_is_no_answer(bilibili, member, parts):
    sent, began = parts(), moment()
    submit(member, body(sent, title="t"))
    bilibili.fail("archives", 502)
    with pytest.raises(TemporaryError):
        find(member, [sent[0].filename], began)
    bilibili.refuse("view", 10003)
    with pytest.raises(TemporaryError, match="in the list, but"):
        find(member, [sent[0].filename], began)
    bilibili.fail("archives", 200, {"code": 0, "data": {"arc_audits": [{}]}})
    with pytest.raises(TemporaryError):
        find(member, [sent[0].filename], began)
    bilibili.expire_login()
    with pytest.raises(NeedsPerson):
        find(member, [sent[0].filename], began)


def test_a_late_listing_hides_it_for_a_while(bilibili, member, parts):
    sent, began = parts(), moment()
    bilibili.delay_listing(3600)
    submit(member, body(sent, title="t"))
    assert find(member, [sent[0].filename], began) is None
    bilibili.delay_listing(0)
    assert find(member, [sent[0].filename], began) is not None


def test_it_is_shown_after_the_review_with_every_part(bilibili, member, parts):
    bilibili.review_seconds = 3600
    sent = parts(2)
    done = submit(member, body(sent, title="t"))
    names = [part.filename for part in sent]
    assert not review(member, done.bvid).shows(names)
    assert review(member, done.bvid).state == -30
    bilibili.review_seconds = 0
    assert review(member, done.bvid).shows(names)
    assert not review(member, done.bvid).shows([*names, "nanother"])
    bilibili.set_state(done.bvid, -2, "画面有问题")
    assert not review(member, done.bvid).shows(names)
    assert review(member, done.bvid).reject_reason == "画面有问题"
    with pytest.raises(PermanentError):
        review(member, "BV1xxxxxxxxx")


# -- covers -----------------------------------------------------------------------------------------------------------


def test_a_cover_that_is_no_picture_is_refused_before_it_is_sent(bilibili, member, tmp_path):
    (tmp_path / "cover.gif").write_bytes(b"GIF89a")
    (tmp_path / "large.jpg").write_bytes(JPEG + bytes(11 << 20))
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("cover.gif", "none.jpg", "large.jpg", "pipe.jpg"):
        with pytest.raises(PermanentError, match=name):
            upload_cover(member, tmp_path / name)
    assert bilibili.requests == []


def test_a_cover_with_a_login_that_ended_needs_a_person(bilibili, member, tmp_path):
    (tmp_path / "cover.jpg").write_bytes(JPEG)
    bilibili.expire_login()
    with pytest.raises(NeedsPerson):
        upload_cover(member, tmp_path / "cover.jpg")
