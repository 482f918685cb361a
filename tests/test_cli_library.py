import json
import os

import pytest
from test_cli import biliupd

from biliupd.catalog import records, sync
from biliupd.catalog.database import Catalog
from biliupd.catalog.sync import Changes, Found


@pytest.fixture
def house(tmp_path):
    """A catalog of sixty dropped videos and one recorded one; none of the files is there, and none is needed."""
    catalog = Catalog(tmp_path / "data" / "catalog.db")
    root = str(tmp_path / "drop")
    ann = records.streamer_id(catalog.db, "ann")
    names = [f"trip/{n:02}.mp4" for n in range(59)] + [os.fsdecode(b"\xff.mp4")]
    things = [Found(f"{root}/{name}", root, "file", n * 1000, n, n, 1, False, name) for n, name in enumerate(names)]
    shows = str(tmp_path / "recordings")
    things.append(Found(f"{shows}/ann/1/P001.flv", shows, "file", 5 << 20, 1, 99, 1, False, "晚安[b]", None, ann))
    sync.apply(catalog.db, Changes(added=things))
    catalog.db.execute("update videos set duration = 90, width = 1920, height = 1080, video_codec = 'hevc',"
                       " bvid = 'BV1xx' where title = '晚安[b]'")  # fmt: skip
    catalog.db.conn.commit()
    return tmp_path


CONFIG = "drop_folders: [{directory: drop}]"


def test_the_library_is_listed_searched_and_paged(house):
    first = biliupd(house, "videos", config=CONFIG)
    assert first.exit_code == 0
    assert "61 videos, page 1 of 2" in first.stdout
    (line,) = (line for line in first.stdout.splitlines() if "晚安[b]" in line)
    assert line.split() == ["video:61", "晚安[b]", "recorded", "90", "s", "1920x1080", "hevc", "5.0", "MiB", "BV1xx"]
    assert biliupd(house, "videos", "--page", "2", config=CONFIG).stdout.count("video:") == 11
    assert "1 videos" in biliupd(house, "videos", "晚安", config=CONFIG).stdout
    assert "1 videos" in biliupd(house, "videos", "--streamer", "ann", config=CONFIG).stdout
    assert "0 videos" in biliupd(house, "videos", "--state", "held", config=CONFIG).stdout


def test_the_library_is_a_tree(house):
    top = biliupd(house, "videos", "--in", str(house / "drop"), config=CONFIG).stdout
    assert "trip    59" in top
    assert "1 videos" in top
    found = json.loads(biliupd(house, "videos", "--json", "--in", str(house / "drop" / "trip"), config=CONFIG).stdout)
    assert [video["path"] for video in found["videos"]] == [f"trip/{n:02}.mp4" for n in range(59)]
    outside = biliupd(house, "videos", "--in", str(house), config=CONFIG)
    assert (outside.exit_code, "lies in no watched folder" in outside.stderr) == (1, True)


def test_json_of_a_name_that_is_no_text_is_json(house):
    found = json.loads(biliupd(house, "videos", "--json", "--reverse", "--sort", "file_size", config=CONFIG).stdout)
    assert (found["total"], found["videos"][0]["path"]) == (61, "trip/00.mp4")
    assert json.loads(biliupd(house, "videos", "--json", "--page", "1", "�", config=CONFIG).stdout)["total"] == 1


def test_sums_are_shown_by_streamer(house):
    shown = biliupd(house, "stats", config=CONFIG).stdout
    assert "(dropped)" in shown
    assert "ann" in shown
    sums = {one["streamer"]: one for one in json.loads(biliupd(house, "stats", "--json", config=CONFIG).stdout)}
    assert (sums["ann"]["videos"], sums["ann"]["bytes"], sums["ann"]["seconds"]) == (1, 5 << 20, 90.0)
    assert sums[""]["videos"] == 60
