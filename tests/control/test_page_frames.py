"""The frames on the cards of the dashboard: when they are asked for, and what is shown meanwhile and instead."""

import re

import pytest
from browser import PHONE, go
from playwright.sync_api import BrowserContext, Page, expect
from stage import Stage
from support import wait_until

from biliupd.catalog.database import now
from biliupd.catalog.states import rows

LONG_MS = 60_000  #: more than one pause between two frames


@pytest.fixture
def asked(contexts, sampled: Stage):
    """A page with a clock of its own, which is not open yet, and the tasks that it asks frames of."""
    context: BrowserContext = contexts(sampled, "admin", "light", "en-GB")
    page, ids = context.new_page(), []
    page.clock.install()
    page.on("request", lambda one: "/picture" in one.url and ids.append(one.url.split("/")[-2]))
    sampled.house.glimpses = lambda path: picture
    picture = (sampled.base / "data" / "covers" / "0.jpg").read_bytes()
    yield page, ids
    page.close()


def later(page: Page, milliseconds: int = LONG_MS) -> None:
    """So much later by the page's clock; what it asked for by then, it asked for before this."""
    page.clock.run_for(milliseconds)
    page.evaluate("fetch('/api/health').then(() => 0)")


def frames(page: Page):
    return page.get_by_role("img", name=re.compile("a few seconds ago"))


def test_a_card_shows_a_frame_and_asks_for_the_next_while_somebody_looks(sampled, asked):
    page, ids = asked
    running = {run.task_id for run in sampled.house.runs}
    page.goto(f"{sampled.url}/#/now")
    expect(page.locator(".cover .monogram").or_(frames(page)).first).to_be_visible()
    before = page.locator(".cover").first.bounding_box()
    later(page, 2000)
    expect(frames(page)).to_have_count(2)
    expect(frames(page).first).to_have_js_property("naturalWidth", 320)
    assert page.locator(".cover").first.bounding_box() == before
    assert sorted(ids) == sorted(running)
    first = frames(page).first.get_attribute("src")
    later(page, 20_000)
    assert len(ids) == 2
    later(page)
    wait_until(lambda: len(ids) >= 4 or later(page, 1000))
    wait_until(lambda: frames(page).first.get_attribute("src") != first or later(page, 100))
    page.evaluate("Object.defineProperty(document, 'visibilityState', { get: () => 'hidden', configurable: true })")
    many = len(ids)
    later(page)
    assert len(ids) == many
    go(page, "streamers")
    page.evaluate("delete document.visibilityState")
    later(page)
    assert len(ids) == many


def test_of_a_card_that_is_not_on_the_screen_nothing_is_asked_until_it_is(sampled, asked):
    page, ids = asked
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    page.goto(f"{sampled.url}/#/now")
    expect(page.locator(".card")).to_have_count(2)
    later(page, 5000)
    assert len(set(ids)) < 2
    page.locator(".cover").last.scroll_into_view_if_needed()
    wait_until(lambda: len(set(ids)) == 2 or later(page, 1000))


def test_who_saves_data_is_sent_one_frame_and_told_when_it_is_old(sampled, asked):
    page, ids = asked
    page.add_init_script("Object.defineProperty(navigator, 'connection', { value: { saveData: true } })")
    page.goto(f"{sampled.url}/#/now")
    later(page, 2000)
    expect(frames(page)).to_have_count(2)
    later(page, 3 * LONG_MS)
    assert len(ids) == 2
    expect(page.get_by_role("img", name="nightowl, the last picture that came")).to_be_visible()
    expect(page.locator(".cover.stopped")).to_have_count(2)


def test_a_recording_without_a_picture_keeps_its_letter_and_is_not_asked_again_at_once(sampled, asked):
    page, ids = asked
    page.route("**/picture?*", lambda one: one.fulfill(status=404))
    page.goto(f"{sampled.url}/#/now")
    wait_until(lambda: len(ids) == 2 or later(page, 1000))
    expect(page.locator(".cover .monogram")).to_have_count(2)
    later(page, 50_000)
    assert len(ids) == 2
    wait_until(lambda: len(ids) == 4 or later(page, 1000))


def test_a_frame_leads_to_the_player_once_the_library_has_the_recording(sampled, asked):
    page, _ = asked
    run = sampled.house.runs[0]
    path = sampled.recordings / "growing" / "index.m3u8"
    rows(sampled.catalog.db, "videos").insert({
        "title": "growing", "file_path": str(path), "root": str(sampled.recordings), "path": "growing/index.m3u8",
        "parent_path": "growing", "kind": "playlist", "file_size": 1, "mtime_ns": 1, "inode": 1, "device": 1,
        "state": "recording", "since": now(), "created_at": now(), "broadcast_id": run.broadcast_id,
    })  # fmt: skip
    sampled.catalog.db.conn.commit()
    page.goto(f"{sampled.url}/#/now")
    link = page.get_by_role("link", name=f"Play what is recorded of {run.streamer}")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator(".player")).to_be_visible()
