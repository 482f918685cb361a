"""Publishing once, as a library and under the commands: going on after anything, and never twice."""

import os
import threading
import time

import pytest
from click.testing import CliRunner
from support import wait_until

from biliupd.cli import main
from biliupd.config import Template
from biliupd.errors import NeedsPerson, PermanentError, Stopped, TemporaryError, UnknownOutcome
from biliupd.publish.archives import view
from biliupd.publish.credential import Credential
from biliupd.publish.journal import Journal
from biliupd.publish.manners import Standing, StandingFile
from biliupd.publish.member import Member
from biliupd.publish.once import Job, Order, upload_video

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(20)


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


@pytest.mark.parametrize(("times", "archives"), [(1, 1), (9, 0)])
def test_a_part_that_bilibili_calls_broken_is_uploaded_again_once(bilibili, settings, clip, tmp_path, times, archives):
    bilibili.refuse("submit", 21015, "第1个视频有损坏", times=times)
    cookies = bilibili.write_cookies(tmp_path / "c.json")
    call = {"publish": settings(submit_interval_seconds=0), "wait": lambda seconds: None}
    if archives:
        upload_video(cookies, clip, "t", **call)
    else:
        with pytest.raises(PermanentError, match="21015"):
            upload_video(cookies, clip, "t", **call)
    assert len(bilibili.archives) == archives
    assert len([one for one in bilibili.requests if one.route == "init"]) == 2


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


@pytest.fixture
def job(bilibili, settings, clip, tmp_path):
    """Runs a job whose state outlives it; what it waited and said is in `waited` and `notes`."""
    bilibili.same_title_seconds = 0
    cookies = bilibili.write_cookies(tmp_path / "c.json")

    class Runs:
        def __init__(self):
            self.waited, self.notes = [], []

        def __call__(self, *files, publish=None, **changes):
            stop, on_progress = changes.pop("stop", None), changes.pop("on_progress", None)
            self.waited, self.notes = [], []
            changes = {"template": Template().model_copy(update={"title": "t"}), **changes}
            order = Order(cookies, files or (clip,), **changes)
            return Job(settings(**{"submit_interval_seconds": 0, "attempts": 3, **(publish or {})}), order,
                       state_directory=tmp_path / "state", stop=stop, on_progress=on_progress,
                       on_note=self.notes.append, wait=self.waited.append).run()

    return Runs()


def count(bilibili, route):
    return sum(request.route == route for request in bilibili.requests)


class Crash(BaseException):
    """The process ends here."""


# -- going on -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", range(12))
def test_wherever_a_run_ends_the_next_one_makes_it_one_submission(
        bilibili, job, clip, tmp_path, monkeypatch, point, when):
    (tmp_path / "cover.png").write_bytes(PICTURE)
    calls, main = [], threading.current_thread()

    def crashing(owner, name):
        original = getattr(owner, name)

        def called(*arguments, **options):
            if threading.current_thread() is not main:
                return original(*arguments, **options)
            calls.append(name)
            mine = len(calls) - 1 == point
            if mine and when == "before":
                raise Crash
            result = original(*arguments, **options)
            if mine:
                raise Crash
            return result

        monkeypatch.setattr(owner, name, called)

    crashing(Member, "send")
    crashing(Journal, "save")
    try:
        job(cover=str(tmp_path / "cover.png"))
        assert len(calls) <= point  # there are no more places to crash at
    except Crash:
        pass
    published = job(cover=str(tmp_path / "cover.png"))
    assert [archive.bvid for archive in bilibili.archives] == [published.bvid]
    assert count(bilibili, "submit") == 1
    assert bilibili.stored(bilibili.archives[0].parts[0].filename).read_bytes() == clip.read_bytes()


def test_a_stopped_job_goes_on_inside_the_file(bilibili, job):
    stop = threading.Event()
    bilibili.slow(128 * 1024)
    with pytest.raises(Stopped):
        job(stop=stop, publish={"parallel_parts": 1},
            on_progress=lambda number, progress: len(bilibili.chunks_seen) >= 2 and stop.set())
    bilibili.heal()
    job()
    assert sorted(bilibili.chunks_seen) in ([1, 2, 3, 4, 5], [1, 2, 3, 3, 4, 5])
    assert count(bilibili, "init") == 1


def test_files_that_are_there_are_not_sent_again_but_a_changed_one_is(bilibili, job, tmp_path):
    files = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for path in files:
        path.write_bytes(b"old " + path.name.encode())
    bilibili.refuse("submit", -400)
    with pytest.raises(PermanentError):
        job(*files)
    files[1].write_bytes(b"new")
    job(*files)
    assert job.notes == ["a.mp4: is there already"]
    (archive,) = bilibili.archives
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [b"old a.mp4", b"new"]


def test_a_failure_is_tried_again_after_longer_and_longer_pauses(bilibili, job):
    bilibili.fail("preupload", 502, times=2)
    job()
    assert job.waited == [5, 10]
    assert "once more in 5 s" in job.notes[0]


def test_a_failure_that_stays_is_raised(bilibili, job):
    bilibili.fail("preupload", 502, times=99)
    with pytest.raises(TemporaryError, match="502"):
        job()
    assert (job.waited, count(bilibili, "preupload")) == ([5, 10], 3)


# -- never twice ----------------------------------------------------------------------------------------------------

def test_what_the_list_shows_late_is_found_by_the_next_run(bilibili, job):
    bilibili.lose_submit_answer()
    bilibili.delay_listing(3600)
    with pytest.raises(UnknownOutcome):
        job()  # the second submit was refused, because the first one was accepted
    bilibili.delay_listing(0)
    published = job()
    assert published.before
    assert [archive.bvid for archive in bilibili.archives] == [published.bvid]
    assert count(bilibili, "submit") == 2


def test_what_was_never_answered_is_only_looked_for_until_somebody_decides(bilibili, job):
    bilibili.drop("submit", times=2)
    with pytest.raises(UnknownOutcome):
        job()
    with pytest.raises(UnknownOutcome, match="2 times"):
        job()
    assert count(bilibili, "submit") == 2
    published = job(again=True)
    assert [archive.bvid for archive in bilibili.archives] == [published.bvid]


def test_again_does_not_repeat_what_turns_out_to_be_there(bilibili, job):
    bilibili.lose_submit_answer()
    bilibili.fail("archives", 502, times=99)
    with pytest.raises(UnknownOutcome, match="looking for it failed"):
        job()
    bilibili.heal()
    assert job(again=True).before
    assert len(bilibili.archives) == 1


def test_a_miss_of_an_earlier_run_counts_when_it_is_long_enough_ago(bilibili, job):
    bilibili.drop("submit")
    bilibili.fail("archives", 502, times=99, skip=1)
    with pytest.raises(UnknownOutcome):
        job(publish={"lookup_seconds": 0.2})
    bilibili.heal()
    at = time.time()
    wait_until(lambda: time.time() > at + 0.25)
    job(publish={"lookup_seconds": 0.2})
    assert job.waited == []
    assert (len(bilibili.archives), count(bilibili, "submit")) == (1, 2)


def test_a_changed_file_is_published_anew_though_the_old_one_was_accepted_unseen(bilibili, job, clip):
    bilibili.lose_submit_answer()
    bilibili.fail("archives", 502, times=99)
    with pytest.raises(UnknownOutcome):
        job()
    bilibili.heal()
    clip.write_bytes(b"new")
    published = job()
    assert not published.before
    assert [bilibili.stored(archive.parts[0].filename).stat().st_size for archive in bilibili.archives][1:] == [3]
    assert bilibili.archives[1].bvid == published.bvid


def test_a_changed_file_is_another_submission_that_is_sent_twice_at_most(bilibili, job, clip):
    bilibili.drop("submit", times=2)
    bilibili.fail("archives", 502, times=99)
    with pytest.raises(UnknownOutcome):
        job()
    bilibili.heal("archives")
    clip.write_bytes(b"new")
    published = job()
    assert [archive.bvid for archive in bilibili.archives] == [published.bvid]
    assert count(bilibili, "submit") == 3


def test_a_title_taken_by_another_submission_is_for_later(bilibili, job, tmp_path):
    job()
    bilibili.same_title_seconds = 600
    other = tmp_path / "other.mp4"
    other.write_bytes(b"other")
    with pytest.raises(TemporaryError, match="21012") as caught:
        job(other)
    assert caught.value.retry_after_seconds == 600
    bilibili.same_title_seconds = 0
    job(other)
    assert (len(bilibili.archives), count(bilibili, "submit")) == (2, 3)


def test_nothing_is_submitted_that_could_not_be_written_down_before(bilibili, job, monkeypatch):
    def full(self):
        raise TemporaryError("No space left on device")

    monkeypatch.setattr(Journal, "save", full)
    with pytest.raises(TemporaryError, match="No space"):
        job()
    assert count(bilibili, "submit") == 0
    monkeypatch.undo()


# -- manners --------------------------------------------------------------------------------------------------------

def test_the_pause_between_two_submissions_is_waited_for(bilibili, job, tmp_path):
    standing = StandingFile(tmp_path / "c.json")
    standing.write(Standing(submits=(time.time() - 59.5,)))
    job(publish={"submit_interval_seconds": 60})
    assert 0 < job.waited[0] <= 0.5
    assert "submitting in" in job.notes[0]


def test_a_long_pause_is_left_to_a_later_run(bilibili, job, tmp_path):
    standing = StandingFile(tmp_path / "c.json")
    standing.write(Standing(submits=(time.time() - 60,) * 5))
    with pytest.raises(TemporaryError, match="everything is uploaded") as caught:
        job()
    assert 3500 < caught.value.retry_after_seconds < 3600
    standing.write(Standing())
    job()
    assert (count(bilibili, "preupload"), len(bilibili.archives)) == (1, 1)


# -- what is refused before it is sent ------------------------------------------------------------------------------

def test_metadata_that_cannot_be_taken_is_refused_before_a_byte_is_sent(bilibili, job):
    with pytest.raises(PermanentError, match="a repost needs its source"):
        job(template=Template().model_copy(update={"title": "t", "copyright": 2}))
    assert bilibili.chunks_seen == []


def test_a_cover_that_is_no_picture_is_refused_before_a_byte_is_sent(bilibili, job, clip):
    with pytest.raises(PermanentError, match="not a JPEG"):
        job(cover=str(clip))
    assert bilibili.chunks_seen == []


def test_more_parts_than_a_submission_takes_are_refused_before_a_byte_is_sent(bilibili, job, tmp_path):
    files = []
    for number in range(99):
        files.append(tmp_path / f"{number}.mp4")
        files[-1].write_bytes(b"x")
    published = job(*files)
    sent = len(bilibili.chunks_seen)
    more = [tmp_path / f"more {number}.mp4" for number in range(2)]
    for path in more:
        path.write_bytes(b"x")
    with pytest.raises(PermanentError, match="has 99 parts"):
        job(*more, vid=published.bvid)
    assert len(bilibili.chunks_seen) == sent


# -- covers ---------------------------------------------------------------------------------------------------------

def test_a_cover_is_uploaded_once_and_anew_when_it_changed(bilibili, job, tmp_path):
    cover = tmp_path / "cover.png"
    for content, expected in ((PICTURE, 1), (PICTURE, 1), (PICTURE + b"!", 2)):
        if not cover.exists() or cover.read_bytes() != content:
            cover.write_bytes(content)
        bilibili.refuse("submit", -400)
        with pytest.raises(PermanentError):
            job(cover=str(cover))
        assert count(bilibili, "cover") == expected
    job(cover=str(cover))
    assert bilibili.picture(bilibili.archives[0].body["cover"]) == PICTURE + b"!"


def test_a_cover_may_be_an_address(bilibili, job, tmp_path):
    (tmp_path / "cover.png").write_bytes(PICTURE)
    job(cover=str(tmp_path / "cover.png"))
    address = bilibili.archives[0].body["cover"]
    job(cover=address, again=True)
    assert bilibili.archives[1].body["cover"] == address
    assert (count(bilibili, "picture"), count(bilibili, "cover")) == (1, 2)
    with pytest.raises(PermanentError, match="封面不存在"):  # of Bilibili's own, it is sent as it is
        job(cover="https://i0.hdslb.com/bfs/archive/1.jpg", again=True)
    assert (count(bilibili, "picture"), count(bilibili, "cover")) == (1, 2)


# -- append ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def more(tmp_path):
    path = tmp_path / "more.mp4"
    path.write_bytes(os.urandom(1000))
    return path


@pytest.mark.parametrize("fault", ["lose_answer", "drop"])
def test_an_append_without_an_answer_happens_once(bilibili, job, more, member, fault):
    bvid = job().bvid
    getattr(bilibili, fault)("edit")
    assert job(more, vid=bvid).bvid == bvid
    (archive,) = bilibili.archives
    assert (archive.edits, [part.title for part in archive.parts]) == (1, ["clip 直播", "more"])
    assert len(view(member, bvid)["videos"]) == 2
    assert job(more, vid=bvid).before


def test_an_append_keeps_what_the_view_does_not_show(bilibili, job, more):
    extra = {"space_hidden": 2}
    bvid = job(template=Template().model_copy(update={"title": "t", "extra_fields": extra})).bvid
    job(more, vid=f"av{bilibili.archives[0].aid}")
    assert (bilibili.archives[0].bvid, bilibili.archives[0].body["space_hidden"]) == (bvid, 2)


# -- beside biliup --------------------------------------------------------------------------------------------------

def test_what_biliup_published_is_listed_shown_and_appended_to(bilibili, biliup, clip, more, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert biliup("upload", "--line", "tx", "--title", "由biliup", "--tag", "直播", clip).returncode == 0
    (archive,) = bilibili.archives

    def biliupd(*words):
        urls = [word for name in ("member", "passport", "api") for word in (f"--{name}-url", bilibili.url)]
        login = ["-u", str(tmp_path / "cookies.json")]
        return CliRunner().invoke(main, [*login, *map(str, words), *urls], catch_exceptions=False).stdout

    assert biliupd("list").startswith(archive.bvid)
    assert "title:      由biliup\n" in biliupd("show", archive.bvid)
    assert biliupd("append", "--line", "tx", "--vid", archive.bvid, more) == f"{archive.bvid}\n"
    assert [part.title for part in archive.parts] == ["clip 直播", "more"]
    assert "more" in biliup("show", archive.bvid).stdout


def test_a_second_append_is_not_built_upon_a_view_that_lacks_the_first(bilibili, settings, clip, tmp_path):
    cookies, state = bilibili.write_cookies(tmp_path / "c.json"), tmp_path / "state"
    publish = settings(submit_interval_seconds=0)
    files = [tmp_path / f"{name}.mp4" for name in "abc"]
    for file in files:
        file.write_bytes(os.urandom(1000))

    def run(file, vid="", wait=None):
        order = Order(cookies, (file,), Template().model_copy(update={"title": "t"}), vid=vid)
        return Job(publish, order, state_directory=state, wait=wait or (lambda seconds: None)).run()

    bvid = run(files[0]).bvid
    before = view(Member(publish, Credential.load(cookies)), bvid)
    run(files[1], bvid)
    bilibili.fail("view", 200, {"code": 0, "message": "0", "data": before}, times=4)
    run(files[2], bvid)
    (archive,) = bilibili.archives
    assert [bilibili.stored(part.filename).read_bytes() for part in archive.parts] == [
        file.read_bytes() for file in files]
