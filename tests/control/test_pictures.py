"""The newest picture of what is being recorded: how often it is made, who gets it, and what is no picture."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from stage import Stage, media
from support import wait_until

from biliupd.control import pictures
from biliupd.control.models import NewStreamer
from biliupd.control.pictures import KEPT_SECONDS, OLD_SECONDS, Pictures
from biliupd.edit.glimpse import DEADLINE_SECONDS
from biliupd.errors import PermanentError, TemporaryError
from biliupd.reception import newest_part


def recorded(stage: Stage, name: str = "ann") -> str:
    """Address of the picture of somebody who is being recorded from now on."""
    stage.house.make_streamer(NewStreamer(url="https://live.example.org/1", name=name))
    return f"{stage.url}/api/tasks/{stage.house.record(name).task_id}/picture"


class Camera:
    """Makes a picture whenever it is told to; `clock` is what time it is."""

    def __init__(self) -> None:
        self.made = self.at_once = self.most_at_once = 0
        self.clock = 1000.0
        self.error: Exception | None = None
        self.shutter = asyncio.Event()
        self.shutter.set()
        self.pictures = Pictures(now=lambda: self.clock)

    async def make(self) -> bytes:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.shutter.wait()
            if self.error is not None:
                raise self.error
            self.made += 1
            return b"picture %d" % self.made
        finally:
            self.at_once -= 1

    async def get(self, task: str = "a") -> bytes:
        return (await self.pictures.get(task, self.make)).content


def test_a_picture_is_kept_for_half_a_minute_and_says_how_long_it_is_good():
    async def run() -> None:
        camera = Camera()
        first = await camera.pictures.get("a", camera.make)
        assert (first.content, first.fresh_seconds) == (b"picture 1", KEPT_SECONDS)
        camera.clock += KEPT_SECONDS - 1
        again = await camera.pictures.get("a", camera.make)
        assert (again.content, again.etag, again.fresh_seconds) == (b"picture 1", first.etag, 1)
        camera.clock += 1
        later = await camera.pictures.get("a", camera.make)
        assert later.content == b"picture 2"
        assert later.etag != first.etag
        assert await camera.get("b") == b"picture 3"

    asyncio.run(run())


def test_however_many_ask_one_picture_is_made_at_a_time():
    async def run() -> None:
        camera = Camera()
        camera.shutter.clear()
        asking = [asyncio.create_task(camera.get(task)) for task in "abc" * 20]
        while camera.at_once == 0:
            await asyncio.sleep(0)
        asking[0].cancel()  # who asked first goes away
        camera.shutter.set()
        got = await asyncio.gather(*asking[1:])
        assert sorted(set(got)) == [b"picture 1", b"picture 2", b"picture 3"]
        assert (camera.made, camera.most_at_once) == (3, 1)

    asyncio.run(run())


def test_while_one_is_made_others_get_the_one_before_unless_that_is_old():
    async def run() -> None:
        camera = Camera()
        await camera.get()
        for seconds, soon in ((KEPT_SECONDS, True), (OLD_SECONDS, False)):
            camera.clock += seconds
            camera.shutter.clear()
            before = camera.made
            first = asyncio.create_task(camera.get())
            while camera.at_once == 0:
                await asyncio.sleep(0)
            other = asyncio.create_task(camera.get())
            for _ in range(5):
                await asyncio.sleep(0)
            assert other.done() == soon
            camera.shutter.set()
            assert await first == b"picture %d" % (before + 1)
            assert await other == b"picture %d" % (before + (0 if soon else 1))

    asyncio.run(run())


def test_what_went_wrong_is_kept_as_long_and_a_picture_from_before_is_better():
    async def run() -> None:
        camera = Camera()
        camera.error = PermanentError("no picture")
        for _ in range(3):
            with pytest.raises(PermanentError, match="no picture"):
                await camera.get()
            camera.error = TemporaryError("never raised: it is not asked")
        camera.clock += KEPT_SECONDS
        camera.error = None
        assert await camera.get() == b"picture 1"
        camera.error = TemporaryError("the disk hangs")
        camera.clock += KEPT_SECONDS
        assert await camera.get() == b"picture 1"
        camera.clock += OLD_SECONDS
        with pytest.raises(TemporaryError, match="the disk hangs"):
            await camera.get()

    asyncio.run(run())


def test_who_asks_does_not_wait_for_a_disk_that_hangs_and_gets_it_once_it_does_not(monkeypatch):
    async def run() -> None:
        camera = Camera()
        camera.shutter.clear()
        for task in "aab":
            with pytest.raises(TemporaryError, match="not made in time"):
                await camera.get(task)
        assert camera.at_once == 1
        camera.shutter.set()
        assert {await camera.get("a"), await camera.get("b")} == {b"picture 1", b"picture 2"}
        assert camera.made == 2

    assert pictures.WAIT_SECONDS > DEADLINE_SECONDS
    monkeypatch.setattr(pictures, "WAIT_SECONDS", 0.05)
    asyncio.run(run())


def test_of_recordings_that_nobody_looks_at_nothing_is_kept():
    async def run() -> None:
        camera = Camera()
        for number in range(100):
            camera.clock += 10
            await camera.get(str(number))
        assert len(camera.pictures._kept) < 12

    asyncio.run(run())


def test_a_recorder_writes_its_newest_part_whatever_lies_beside_it(tmp_path):
    assert newest_part(tmp_path / "absent") is None
    for name in ("P001/index.m3u8", "P002.flv", "P003.flv.part", "broadcast.json", "P004/000001.ts", "Pxyz.flv.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert newest_part(tmp_path) == tmp_path / "P003.flv.part"
    (tmp_path / "P004" / "index.m3u8").touch()
    assert newest_part(tmp_path) == tmp_path / "P004" / "index.m3u8"
    (tmp_path / "P1000.flv.part").touch()
    assert newest_part(tmp_path) == tmp_path / "P1000.flv.part"


def test_a_viewer_sees_a_frame_of_what_is_being_recorded_and_a_stranger_does_not(stage):
    url, viewer = recorded(stage), stage.session("viewer")
    answer = viewer.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.content[:3] == b"\xff\xd8\xff"
    assert len(answer.content) > 2000
    kind, _, seconds = answer.headers["cache-control"].rpartition("=")
    assert kind == "private, max-age"
    assert 25 <= int(seconds) <= 30
    known = viewer.get(url, headers={"If-None-Match": answer.headers["etag"]})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", answer.headers["etag"])
    assert viewer.get(url).content == answer.content
    assert [what for what, _ in stage.house.asked if what == "glimpse"] == ["glimpse"]
    viewer.cookies.clear()
    assert viewer.get(url).status_code == 401


def test_many_who_look_at_once_cost_one_picture(stage):
    url, shutter, asked = recorded(stage), threading.Event(), []

    def slowly(path) -> bytes:
        asked.append(path)
        shutter.wait(10)
        return b"a picture"

    stage.house.glimpses = slowly
    viewers = [stage.bearer("viewer") for _ in range(40)]  # more than there are threads to read
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(viewer.get, url, timeout=10) for viewer in viewers]
        wait_until(lambda: asked)
        assert viewers[0].get(f"{stage.url}/api/tasks", timeout=5).ok  # nobody else waits for it
        shutter.set()
        assert {answer.result().content for answer in answers} == {b"a picture"}
    assert len(asked) == 1


def test_what_is_no_picture_is_told_with_the_reason(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "KEPT_SECONDS", 0.0)
    url, viewer = recorded(stage), stage.session("viewer")
    task = url.split("/")[-2]
    secret = tmp_path / "secret.flv"
    secret.write_bytes((media() / "clip.flv").read_bytes())
    link = stage.recordings / "P001.flv.part"
    link.symlink_to(secret)
    sound = stage.recordings / "P002.flv.part"
    sound.write_bytes(b"FLV\1\4\0\0\0\x09\0\0\0\0")
    for path, reason in ((None, "nothing is being written yet"), (secret, "not in the library"),
                         (link, "not in the library"), (stage.recordings / "gone", "cannot be read"),
                         (sound, "no keyframe"), (stage.recordings, "not in the library")):  # fmt: skip
        stage.house.writes[task] = path
        answer = viewer.get(url)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert reason in answer.json()["detail"], path
    del stage.house.writes[task]
    assert viewer.get(url).status_code == 200
    stage.house.refuses["glimpse"] = TemporaryError("the disk hangs")
    assert viewer.get(url).status_code == 200  # the one before
    monkeypatch.setattr(pictures, "OLD_SECONDS", 0.0)
    answer = viewer.get(url)
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    stage.house._end("ann")
    assert "it has ended" in viewer.get(url).json()["detail"]
    assert viewer.get(url.replace(task, "nobody")).status_code == 404
