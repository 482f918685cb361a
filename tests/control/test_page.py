"""The dashboard in a real browser, on the real server: what it shows, and how it is used."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import PAGES, PHONE, WIDE, go
from playwright.sync_api import Page, expect

from biliupd.catalog.states import rows

#: sentences of the daemon, and how the Chinese page says them
DAEMON = {
    "it is being recorded": "正在录制",
    "offline: it is recorded when it goes live": "未开播，开播后自动录制",
    "unknown (the site answers 502): it is recorded when it goes live":
        "状态未知（网站返回 502），开播后自动录制",
    "葵 is live and waits: 3 of 3 recordings run, its priority is -5":
        "葵 已开播，正在等待：已有 3 个在录，其优先级为 -5",
    "waits for 1 of 2 parts: 歌回 P002 is editing": "等待“歌回 P002”（合并中）",
    "not published: auto_upload is off for 葵": "未投稿：葵 未开启自动投稿",
    "/srv: 9.00 GiB are free, and what is being recorded fills that by 23:40 (all but the 5.00 GiB that stay free)":
        "/srv：可用 9.00\u00a0GiB，预计 23:40 写满（保留 5.00\u00a0GiB）",
    "String should have at least 8 characters": "至少 8 个字符",
    "Input should be less than or equal to 1000": "不能大于 1000",
    "video 3 is not uploaded: it is published already": "无法投稿：已发布",
    "葵 is set in /etc/config.yaml, line 12": "葵 写在 /etc/config.yaml 第 12 行",
}  # fmt: skip


def test_every_page_shows_what_there_is(visit):
    page = visit("now")
    seen = {
        "now": ("2 are being recorded", "1 gap", "100%, no gap", "Full in", "skipped tonight", "the login has ended"),
        "streamers": ("Aoi Ch. 葵", "config.yaml, line 31", "for members of the channel", "Live, skipped"),
        "library": ('Drawing commissions <live> & "quotes"', "Held", "Merging", "12"),
        "publishing": ("the cover was refused", "BV1", "审核中", "1 part"),
        "accounts": ("录播姬", "UID 1234567", "Needs a login", "too many submissions"),
        "log": ("biliupd 1.2.3 starts", "submission 6 is held"),
        "settings": ("record.split_size", "4.00 GiB", "line 9", "default", "/etc/biliupd/config.yaml"),
    }
    for place, texts in seen.items():
        go(page, place)
        for text in texts:
            expect(page.locator("main")).to_contain_text(text)
    assert page.evaluate("document.title") == "Settings · biliupd"


def test_a_video_tells_all_about_itself_and_shows_what_is_missing_of_its_broadcast(visit, sampled):
    number = sampled.catalog.db.execute("select id from videos where broadcast_id = ?", [f"{3:016x}"]).fetchone()[0]
    page = visit(f"library/video/{number}")
    panel = page.get_by_role("dialog")
    for text in ("h264 + aac", "1920 × 1080", "3 gaps", "The disk was full", "Nothing came any more", "1 min 35 s"):
        expect(panel).to_contain_text(text)
    marks = panel.locator(".show .loss")
    expect(marks).to_have_count(3)
    place = marks.nth(2).evaluate("mark => parseFloat(mark.style.left) + parseFloat(mark.style.width)")
    assert place == pytest.approx(100 * 2698 / 5397, abs=0.1)  # the third one ended 2698 s after the first media
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    assert page.evaluate("location.hash") == "#/library"


def test_the_library_is_searched_filtered_sorted_and_walked_through(visit, sampled):
    page = visit("library")
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(12)
    db = sampled.catalog.db
    (ready,) = db.execute("select id from videos where state = 'ready'").fetchone()
    rows(db, "videos").update(ready, {"waits_for": "not published: auto_upload is off for members only"})
    db.conn.commit()
    expect(page.locator(".tile", has_text="Kept, not published")).to_have_count(1)
    page.get_by_role("searchbox").fill("elden")
    expect(tiles).to_have_count(1)
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.locator(".empty")).to_contain_text("No video is like that")
    page.get_by_role("button", name="Show all").click()
    expect(tiles).to_have_count(12)
    page.get_by_label("State").select_option("held")
    expect(tiles).to_have_count(1)
    page.go_back()
    expect(tiles).to_have_count(12)
    page.get_by_label("Order").select_option("title")
    expect(tiles.locator("h2").first).to_have_text("Any% practice, then whatever chat wants")
    page.get_by_role("button", name="Folders", exact=True).click()
    page.get_by_role("link", name="recordings").click()
    page.get_by_role("link", name="nightowl").click()
    page.locator(".folder").first.click()
    expect(tiles).to_have_count(1)
    expect(page.get_by_label("Folder", exact=True)).to_contain_text("nightowl")


def test_nothing_from_outside_becomes_markup_or_a_script(visit, sampled):
    db = sampled.catalog.db
    page = visit("streamers")
    rows(db, "streamers").update(7, {"url": "javascript:alert(1)", "status_reason": "<img src=x onerror=alert(1)>"})
    db.conn.commit()
    row = page.locator(".streamer", has_text="skipped tonight")
    expect(row).to_contain_text("<img src=x onerror=alert(1)>")
    expect(row.locator("a")).to_have_text("javascript:alert(1)")
    assert row.locator("a").get_attribute("href") is None
    assert row.locator("img").count() == 0


# -- how it is used


def test_language_and_theme_are_the_browsers_until_they_are_chosen_and_then_remembered(visit):
    page = visit("streamers", theme="dark", language="zh-CN")
    expect(page.get_by_role("heading", level=1)).to_have_text("主播")
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == ["zh-CN", "dark"]
    go(page, "settings")
    expect(page.locator("main")).to_contain_text("每个主播一个文件夹")
    said = page.evaluate("""async sentences => {
        const { told } = await import(new URL("i18n.js", document.querySelector("script[type=module]").src));
        told("the list comes");
        await new Promise(done => setTimeout(done, 300));
        return sentences.map(told);
    }""", [*DAEMON, "a sentence that nobody knows"])  # fmt: skip
    assert said == [*DAEMON.values(), "a sentence that nobody knows"]
    page.click(".who")
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Light").click()
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Settings")
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == ["en", "light"]
    keys = page.evaluate("""async () => {
        const flat = (words, at = "") => Object.entries(words).flatMap(([key, value]) => typeof value === "string"
            ? [at + key] : "other" in value && !("search" in value) && typeof value.other === "string" && !value[0]
            ? [at + key] : flat(value, `${at}${key}.`));
        const { en } = await import("/static/i18n/en.js");
        const { zh } = await import("/static/i18n/zh.js");
        return [flat(en).sort(), flat(zh).sort()];
    }""")
    assert keys[0] == keys[1]
    assert len(keys[0]) > 300


def test_everything_is_reached_by_keyboard_and_focus_goes_back_where_it_was(visit):
    page = visit("library")
    expect(page.locator(".tile")).to_have_count(12)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    expect(page.locator(".tile > a[tabindex='0']")).to_have_count(1)
    page.locator(".tile > a").first.focus()
    page.keyboard.press("End")
    expect(page.locator(".tile > a[tabindex='0']")).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    place = page.evaluate("[...document.querySelectorAll('.tile > a')].indexOf(document.activeElement)")
    assert place > 2
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert page.evaluate("[...document.querySelectorAll('.tile > a')].indexOf(document.activeElement)") == place
    page.locator(".who").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Log out")).to_have_count(0)
    expect(page.locator(".who")).to_be_focused()


def test_axe_finds_nothing_on_any_page_in_any_width(visit, sampled):
    found: list[str] = []
    script = Axe().axe_script
    contrast = "runOnly: ['color-contrast'],"

    def look(page: Page, place: str, only: str = "") -> None:
        options = f"{{ resultTypes: ['violations'], {only} preload: false }}"
        told = page.evaluate(f"axe.run(document, {options}).then(all => all.violations)")
        found.extend(f"{place}: {one['id']} {one['nodes'][0]['html'][:200]}" for one in told)

    page = visit(role="")
    page.evaluate(script)
    look(page, "login")
    page = visit("now")
    page.evaluate(script)
    for size in (WIDE, PHONE):
        page.set_viewport_size({"width": size[0], "height": size[1]})
        for place in (*PAGES, "library/video/3"):
            go(page, place)
            expect(page.locator(f"main.{place.split('/')[0]}")).to_be_visible()
            expect(page.locator("main .skeleton, dialog .skeleton")).to_have_count(0)
            look(page, f"{place} {size[0]}")
            wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wider <= 0, f"{place} is wider than its window of {size[0]} by {wider}"
            if size == PHONE and place in ("now", "publishing", "accounts", "library/video/3"):
                page.emulate_media(color_scheme="dark")  # other values of the same names: what has all of them tells
                look(page, f"{place} in the dark", contrast)
                page.emulate_media(color_scheme="light")
    page.keyboard.press("Escape")
    page.click(".who")
    look(page, "menu")
    page.goto(f"{sampled.url}/api/docs")
    page.get_by_label("Find").fill("tasks")
    expect(page.locator(".operation")).to_have_count(4)
    page.evaluate(script)
    look(page, "docs")
    assert found == []


def test_the_documentation_shows_every_operation(visit, sampled):
    page = visit("now")
    page.goto(f"{sampled.url}/api/docs")
    expect(page.locator("#post-api-streamers")).to_contain_text("https://www.twitch.tv/example")
    count = page.evaluate("fetch('/api/openapi.json').then(found => found.json()).then(api =>"
                          " Object.values(api.paths).flatMap(Object.keys).length)")
    expect(page.locator(".operation")).to_have_count(count)
    page.locator("#post-api-streamers .answer", has_text="201").locator("summary").click()
    expect(page.locator("#post-api-streamers .answer[open]")).to_contain_text("status_reason")
