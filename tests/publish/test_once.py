"""biliupd as a library: one call, one video."""

import pytest

from biliupd.errors import NeedsPerson, UnknownOutcome
from biliupd.publish.once import upload_video


def test_one_call_publishes_a_file(bilibili, settings, clip, tmp_path):
    (tmp_path / "cover.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    seen = []
    bvid = upload_video(
        bilibili.write_cookies(tmp_path / "c.json"), str(clip), "标题", "简介", publish=settings(), tags=["a", "b"],
        tid=17, cover=tmp_path / "cover.png", on_progress=lambda sent, total: seen.append((sent, total)))
    (archive,) = bilibili.archives
    assert archive.bvid == bvid
    assert (archive.body["desc"], archive.body["tag"], archive.body["tid"]) == ("简介", "a,b", 17)
    assert archive.body["cover"]
    assert archive.parts[0].title == "clip 直播"
    assert bilibili.stored(archive.parts[0].filename).read_bytes() == clip.read_bytes()
    assert seen[-1] == (clip.stat().st_size,) * 2


def test_a_lost_answer_is_looked_up_and_never_submitted_again(bilibili, settings, clip, tmp_path):
    bilibili.lose_submit_answer()
    bilibili.delay_listing(3600)
    waited = []

    def wait(seconds):
        waited.append(seconds)
        if len(waited) == 2:
            bilibili.delay_listing(0)

    bvid = upload_video(bilibili.write_cookies(tmp_path / "c.json"), clip, "t", publish=settings(), wait=wait)
    assert [archive.bvid for archive in bilibili.archives] == [bvid]
    assert len(waited) == 2


def test_what_is_nowhere_is_sent_once_more(bilibili, settings, clip, tmp_path):
    bilibili.drop("submit")
    waited = []
    bvid = upload_video(
        bilibili.write_cookies(tmp_path / "c.json"), clip, "t", publish=settings(submit_interval_seconds=0),
        wait=waited.append)
    assert [archive.bvid for archive in bilibili.archives] == [bvid]
    assert sum(waited) == 210


def test_what_is_nowhere_twice_is_raised(bilibili, settings, clip, tmp_path):
    bilibili.drop("submit", times=2)
    with pytest.raises(UnknownOutcome) as caught:
        upload_video(bilibili.write_cookies(tmp_path / "c.json"), clip, "t",
                     publish=settings(submit_interval_seconds=0), wait=lambda seconds: None)
    assert "look at" in caught.value.hint
    assert len([request for request in bilibili.requests if request.route == "submit"]) == 2


def test_a_login_that_ended_is_noticed_before_a_byte_is_sent(bilibili, settings, clip, tmp_path):
    cookies = bilibili.write_cookies(tmp_path / "c.json")
    bilibili.expire_login()
    with pytest.raises(NeedsPerson):
        upload_video(cookies, clip, "t", publish=settings())
    assert bilibili.chunks_seen == []
