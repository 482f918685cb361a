"""The whole way as a person sees it: a real daemon, a real browser, a live site and a Bilibili of its own."""

import re

import pytest
from playwright.sync_api import Page, expect, sync_playwright
from world import PASSWORD, World

from biliupd.record.broadcast import read

PATIENCE_MS = 30_000


@pytest.fixture
def page(world: World):
    """A browser in front of a daemon that nobody has logged in to yet."""
    world.settings["control"] = {"port": 0}
    world.start()
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en-GB", reduced_motion="reduce")
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda one: one.url.startswith((world.page(), "data:", "blob:")) or troubles.append(one.url))
        yield page
        browser.close()
    assert not troubles


def played_seconds(page: Page) -> float:
    return float(page.locator("video").evaluate("video => video.error ? -1 : video.currentTime"))


def test_from_the_first_user_to_the_bvid_on_the_page(world: World, page: Page):
    expect.set_options(timeout=PATIENCE_MS)
    page.goto(world.page())
    page.get_by_label("Code").fill(re.findall(r"with the code (\S+)", world.log())[-1])
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Now", exact=True)).to_be_visible()
    expect(page.get_by_text("Nobody is live right now.")).to_be_visible()

    address = world.site.add_room("flv1", protocol="flv", streamer="flv1", title="the first show", size="320x180")
    page.get_by_role("link", name="Streamers").click()
    page.get_by_role("button", name="Add streamer").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Address of the room").fill("http://nobody.example/room")
    dialog.get_by_role("button", name="Add streamer").click()
    expect(dialog.get_by_text("no platform answers")).to_be_visible()
    dialog.get_by_label("Address of the room").fill(f"rehearsal+{address}")
    dialog.get_by_label("Name").fill("bob")
    dialog.get_by_label("Look every").fill("1")
    dialog.get_by_role("button", name="Add streamer").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("listitem").filter(has_text="bob")).to_be_visible()

    world.site.go_live("flv1")  # nothing is reloaded from here on
    expect(page.get_by_role("listitem").filter(has_text="the first show")).to_be_visible()
    page.get_by_role("link", name="Now").click()
    expect(page.get_by_text("Mbit/s").or_(page.get_by_text("kbit/s")).first).to_be_visible()
    expect(page.get_by_text(re.compile("100 ?%, no gap")).first).to_be_visible()
    world.wait(lambda: any(read(path.parent).figures.media_seconds > 4 for path in
                           (world.directory / "recordings").glob("*/*/broadcast.json")), 30, "media")  # fmt: skip
    frame = page.get_by_role("img", name="bob, a few seconds ago")
    expect(frame).to_be_visible()  # out of the file that grows: it is asked for only when there is something in it
    expect(frame).to_have_js_property("naturalWidth", 320)
    world.site.go_offline("flv1")

    page.get_by_role("link", name="Library").click()
    video = page.get_by_role("link", name=re.compile("the first show"))
    expect(video.first).to_be_visible()
    video.first.click()
    panel = page.get_by_role("dialog")
    panel.get_by_role("button", name="Play", exact=True).first.click()  # an FLV: it comes as a stream of MP4
    world.wait(lambda: played_seconds(page) > 0.3, 30, "it plays")
    expect(panel.get_by_text("Published").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()

    page.get_by_role("link", name="Publishing").click()
    (bvid,) = {row["bvid"] for row in world.rows("submissions")}
    link = page.get_by_role("link", name=re.compile(bvid))
    expect(link.first).to_have_attribute("href", f"https://www.bilibili.com/video/{bvid}")
    world.check_published(1, 1)
