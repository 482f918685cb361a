"""The library in a real browser: its days, its order, and its folders in pages."""

import os
import re
from datetime import datetime, timedelta, tzinfo
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PHONE, WIDE, go
from playwright.sync_api import Page, expect
from stage import Stage

from biliupd.catalog import sync
from biliupd.catalog.states import rows
from biliupd.catalog.sync import Changes, Found

SHANGHAI = ZoneInfo("Asia/Shanghai")
NEW_YORK = ZoneInfo("America/New_York")


def asked_of(page: Page) -> list[dict[str, str]]:
    """What the page asks of the library from now on."""
    found: list[dict[str, str]] = []

    def note(request) -> None:
        parts = urlsplit(request.url)
        if parts.path in ("/api/videos", "/api/videos/tree"):
            found.append({name: values[0] for name, values in parse_qs(parts.query).items()})

    page.on("request", note)
    return found


def recorded(stage: Stage, *files: tuple[str, datetime]) -> None:
    """Rows of a drop folder: name without ending, and when it was written last."""
    db, root = stage.catalog.db, os.fspath(stage.drop)
    first = db.execute("select coalesce(max(inode), 0) + 1 from videos").fetchone()[0]
    sync.apply(db, Changes(added=[
        Found(f"{root}/{name}.mp4", root, "file", 9, int(at.timestamp()) * 10**9, first + n, 7, False,
              name.rpartition("/")[2]) for n, (name, at) in enumerate(files)
    ]))  # fmt: skip


def names(page: Page) -> list[str]:
    return page.locator(".tile h2").all_text_contents()


def midnight(zone: tzinfo, days_ago: int = 0) -> datetime:
    today = datetime.now(zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    return (today - timedelta(days=days_ago)).replace(tzinfo=zone)


@pytest.fixture
def shelf(stage: Stage) -> Stage:
    """Somebody in Shanghai put these there, in no order."""
    a_minute = timedelta(minutes=1)
    recorded(
        stage, ("six days ago", midnight(SHANGHAI, 6)), ("today", midnight(SHANGHAI) + a_minute),
        ("seven days ago", midnight(SHANGHAI, 6) - a_minute), ("yesterday", midnight(SHANGHAI) - a_minute),
        ("a month ago", midnight(SHANGHAI, 29)), ("long ago", midnight(SHANGHAI, 29) - a_minute),
        ("at new year", datetime(2020, 1, 1, tzinfo=SHANGHAI)),
        ("after new year", datetime(2020, 1, 2, tzinfo=SHANGHAI)),
        ("on new year", datetime(2020, 1, 1, 23, 59, tzinfo=SHANGHAI)),
    )  # fmt: skip
    return stage


@pytest.fixture
def in_shanghai(visit_at, shelf, contexts):
    """The page of somebody there."""
    context = contexts(shelf, "admin", "light", "en-GB")
    page = context.new_page()
    context.new_cdp_session(page).send("Emulation.setTimezoneOverride", {"timezoneId": "Asia/Shanghai"})
    page.goto(f"{shelf.url}/#/library")
    yield page
    page.close()


def test_what_was_recorded_last_comes_first_and_says_when(visit, sampled):
    page = visit("library")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(12)
    expect(page.get_by_label("Order")).to_have_value("recorded_at")
    expect(tiles.first).to_contain_text("3 hr ago")
    expect(tiles.last).to_contain_text("3 days ago")
    page.get_by_label("Order").select_option("created_at")
    expect(page).to_have_url(re.compile("sort=created_at"))
    db = sampled.catalog.db
    (id,) = db.execute("select min(id) from videos").fetchone()
    row = dict(next(db.query("select * from videos where id = ?", [id])))
    rows(db, "videos").update(id, {"created_at": "2001-02-03T04:05:06.000+00:00"})
    db.conn.commit()
    go(page, f"library/video/{id}")
    facts = page.get_by_role("dialog").locator(".facts-list")
    expect(facts).to_contain_text(re.compile(r"Added3 Feb 2001"))
    expect(facts).not_to_contain_text(re.compile(r"Recorded3 Feb 2001"))
    rows(db, "videos").update(id, {"created_at": row["created_at"]})
    db.conn.commit()


def test_days_are_those_of_who_looks(in_shanghai):
    page = in_shanghai
    expect(page.locator(".tile")).to_have_count(9)
    whole = ["today", "yesterday", "six days ago", "seven days ago", "a month ago", "long ago", "after new year",
             "on new year", "at new year"]  # fmt: skip
    assert names(page) == whole
    when = page.get_by_role("combobox", name="Recorded")
    for choice, count in (("Today", 1), ("Last 7 days", 3), ("Last 30 days", 5), ("Any time", 9)):
        when.select_option(choice)
        expect(page.locator(".tile")).to_have_count(count)
        assert names(page) == whole[:count]
    assert page.evaluate("location.hash") == "#/library"
    page.go_back()
    expect(page.locator(".tile")).to_have_count(5)
    expect(when).to_have_value("month")


def test_chosen_days_are_whole_ones_and_are_kept_in_the_address(in_shanghai):
    page = in_shanghai
    page.get_by_role("combobox", name="Recorded").select_option("Today")
    expect(page.locator(".tile")).to_have_count(1)
    page.get_by_role("combobox", name="Recorded").select_option("Choose days…")
    first, last = page.get_by_label("First day"), page.get_by_label("Last day")
    today = midnight(SHANGHAI).strftime("%Y-%m-%d")
    expect(first).to_have_value(today)
    expect(last).to_have_value(today)
    first.fill("2020-01-01")
    expect(page.locator(".tile")).to_have_count(9)
    last.fill("2020-01-01")
    expect(page.locator(".tile")).to_have_count(2)
    assert names(page) == ["on new year", "at new year"]
    expect(page).to_have_url(re.compile(r"#/library\?when=days&from=2020-01-01&until=2020-01-01$"))
    page.get_by_role("link", name="at new year").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".tile")).to_have_count(2)
    expect(first).to_have_value("2020-01-01")
    last.fill("2019-12-31")  # before the first one, which goes along
    expect(first).to_have_value("2019-12-31")
    expect(page.locator(".empty")).to_contain_text("Nothing was recorded then")
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".tile")).to_have_count(9)
    expect(first).to_have_count(0)
    go(page, "library?when=days&from=2020-01-02")
    expect(page.locator(".tile")).to_have_count(7)
    go(page, "library?when=days&until=2020-01-01&q=at")
    expect(page.locator(".tile")).to_have_count(1)
    go(page, "library?when=days&until=2020-01-01&q=nothing")
    expect(page.locator(".empty")).to_contain_text("No video of then is like that")


@pytest.mark.parametrize("address", [
    "when=days", "when=days&from=&until=", "when=days&from=yesterday", "when=days&from=0001-01-01&until=9999-12-31",
    "when=days&from=2026-02-31", "when=tomorrow&from=2020-01-01", "from=2020-01-01&until=2020-01-01", "page=-1",
    "page=x", "page=1.5e9",
])  # fmt: skip
def test_an_address_that_means_nothing_leaves_nothing_out(visit, address):
    page = visit(f"library?{address}")
    expect(page.locator(".tile")).to_have_count(12)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_date_that_is_typed_is_asked_for_when_it_is_one(visit):
    page = visit("library?when=days&from=2020-01-01&until=2020-01-02")
    expect(page.locator(".empty")).to_contain_text("Nothing was recorded then")
    asked = asked_of(page)
    page.get_by_label("First day").focus()
    page.keyboard.type("02022019")  # day, month, year: as the language of the browser has it
    expect(page).to_have_url(re.compile("from=2019-02-02"))
    expect(page.get_by_label("First day")).to_be_focused()
    assert {one["recorded_after"][:4] for one in asked} <= {"2019", "2020"}
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_day_with_a_change_of_the_clock_is_as_long_as_it_is(visit):
    page = visit("library")
    page.context.new_cdp_session(page).send("Emulation.setTimezoneOverride", {"timezoneId": "America/New_York"})
    asked = asked_of(page)
    for day in ("2026-03-08", "2026-11-01", "2026-07-01"):
        go(page, f"library?when=days&from={day}&until={day}")
        expect(page.locator(".empty")).to_contain_text("Nothing was recorded then")
        begins = datetime.fromisoformat(day).replace(tzinfo=NEW_YORK)
        ends = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=NEW_YORK)
        found = [datetime.fromisoformat(asked[-1][name]) for name in ("recorded_after", "recorded_before")]
        assert found == [begins, ends]


def test_a_large_folder_comes_in_pages_as_the_grid_does(visit_at, stage):
    stage.user()
    at = datetime.now(SHANGHAI)
    recorded(stage, *((f"large/{n:03}", at) for n in range(100)), ("large/deeper/1", at))
    page = visit_at(stage, "library?view=tree")
    asked = asked_of(page)
    expect(page.locator(".pages")).to_have_count(0)
    page.get_by_role("link", name="drop").click()
    page.get_by_role("link", name="large").click()
    expect(page.locator(".tile")).to_have_count(48)
    expect(page.locator(".pages")).to_contain_text("1–48 of 100")
    expect(page.locator(".folder")).to_contain_text("deeper")
    for first, last in ((49, 96), (97, 100)):
        page.get_by_role("button", name="Next page").click()
        expect(page.locator(".pages")).to_contain_text(f"{first}–{last} of 100")
        expect(page.locator(".tile h2").first).to_have_text(f"{first - 1:03}")
        expect(page.locator(".folder")).to_have_count(0)
    expect(page.get_by_role("button", name="Next page")).to_be_disabled()
    of_large = [one["offset"] for one in asked if one.get("folder") == "large"]
    assert list(dict.fromkeys(of_large)) == ["0", "48", "96"]
    page.get_by_role("navigation", name="Folder").get_by_role("link", name="drop").click()
    expect(page.locator(".folder")).to_contain_text("large")
    page.go_back()
    expect(page.locator(".pages")).to_contain_text("97–100 of 100")
    stage.catalog.db.execute("update videos set state = 'missing' where path > 'large/050' and path < 'large/9'")
    stage.catalog.db.conn.commit()
    page.reload()
    expect(page.locator(".pages")).to_contain_text("49–50 of 50")  # and no empty page


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_the_control_fits_every_width_and_axe_finds_nothing(visit, language):
    page = visit("library?when=days&from=2020-01-01&until=2020-01-02", language=language)
    expect(page.locator(".empty")).to_be_visible()
    page.evaluate(Axe().axe_script)
    for width, height in (WIDE, (768, 1000), PHONE, (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            found = page.evaluate("axe.run(document, { resultTypes: ['violations'], preload: false })"
                                  ".then(all => all.violations.map(one => one.id + one.nodes[0].html))")  # fmt: skip
            assert found == []
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        inputs = page.locator(".days input").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
        assert min(inputs) > 105, width
