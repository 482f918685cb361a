"""The dashboard in a real browser, on the real server. Every test fails on an error of the page and on any request to
another host."""

import re
import threading
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, WebSocketRoute, expect, sync_playwright
from stage import Stage
from support import wait_until

from biliupd.catalog import records, users
from biliupd.catalog.states import rows
from biliupd.control.models import Preview

WIDE, PHONE = (1440, 900), (390, 844)
PAGES = ("now", "streamers", "library", "publishing", "accounts", "log", "settings")
ANSWERS = re.compile(r"Failed to load resource.*(status of (401|403|409|422)|ERR_INTERNET_DISCONNECTED)")  #: no faults
PATIENCE_MS = 20_000
CHANGING = re.compile(r"start|stop|pause\b|add|edit|remove|folders now|try again|log in|use again|^publish$|pin", re.I)

#: sentences of the daemon, and how the Chinese page says them
DAEMON = {
    "it is being recorded": "正在录制",
    "offline: it is recorded when it goes live": "未开播，开播后自动录制",
    "unknown (the site answers 502): it is recorded when it goes live":
        "状态未知（the site answers 502），开播后自动录制",
    "葵 is live and waits: 3 of 3 recordings run, its priority is -5":
        "葵 已开播，正在等待：已有 3 个在录，其优先级为 -5",
    "waits for 1 of 2 parts: 歌回 P002 is editing": "等待“歌回 P002”（合并中）",
    "not published: auto_upload is off for 葵": "未投稿：葵 未开启自动投稿",
    "/srv: 9.00 GiB are free, and what is being recorded fills that by 23:40 (all but the 5.00 GiB that stay free)":
        "/srv：可用 9.00 GiB，预计 23:40 写满（保留 5.00 GiB）",
    "String should have at least 8 characters": "至少 8 个字符",
    "Input should be less than or equal to 1000": "不能大于 1000",
    "video 3 is not uploaded: it is published already": "无法投稿：已发布",
    "葵 is set in /etc/config.yaml, line 12": "葵 写在 /etc/config.yaml 第 12 行",
}  # fmt: skip

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def sampled(shared: Stage) -> Stage:
    for role in ("admin", "operator", "viewer"):
        shared.user(role)
    shared.sample(12)
    return shared


Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def contexts(chromium: Browser) -> Callable[..., BrowserContext]:
    """Browsers of people, kept from test to test: what they have loaded once they need not load again."""
    known: dict[tuple[str, ...], BrowserContext] = {}

    def context(stage: Stage, role: str, theme: str, language: str) -> BrowserContext:
        key = (stage.url, role, theme, language)
        if key not in known or not role:
            known[key] = chromium.new_context(
                viewport={"width": WIDE[0], "height": WIDE[1]}, color_scheme=theme, locale=language,
                reduced_motion="reduce",
            )  # fmt: skip
            known[key].set_default_timeout(PATIENCE_MS)
            if role:
                session = {"name": "biliupd", "value": stage.token(role, "cookie"), "url": stage.url}
                known[key].add_cookies([session])
        return known[key]

    return context


@pytest.fixture
def visit_at(contexts: Callable[..., BrowserContext]) -> Iterator[Visit]:
    """Open the page of a stage: logged in as `role`, or not at all. Its troubles are those of the test."""
    pages: list[Page] = []
    troubles: list[str] = []

    def visit(stage: Stage, place: str = "now", role: str = "admin", theme="light", language="en-GB") -> Page:
        page = contexts(stage, role, theme, language).new_page()
        pages.append(page)
        page.on("request", lambda request: request.url.startswith((stage.url, "data:", "blob:"))
                or troubles.append(f"asked {request.url}"))  # fmt: skip
        page.on("console", lambda said: said.type in ("error", "warning") and not ANSWERS.search(said.text)
                and troubles.append(said.text))  # fmt: skip
        page.on("pageerror", lambda error: troubles.append(f"{error}\n{error.stack}"))
        page.goto(f"{stage.url}/#/{place}")
        page.wait_for_selector(".frame" if role else "form")
        return page

    yield visit
    for page in pages:
        page.close()
    assert troubles == []


@pytest.fixture
def visit(visit_at: Visit, sampled: Stage) -> Visit:
    return lambda *words, **more: visit_at(sampled, *words, **more)


def go(page: Page, place: str) -> None:
    page.evaluate("place => { location.hash = `#/${place}`; }", place)


def until(page: Page, holds: str) -> None:
    """Wait for it without wait_for_function, which the page's own policy forbids."""
    wait_until(lambda: page.evaluate(holds) or page.wait_for_timeout(50), PATIENCE_MS / 1000, holds)


# -- who comes in


def test_a_wrong_password_is_told_and_the_right_one_opens_the_page_and_the_way_out_closes_it(visit):
    page = visit(role="")
    page.fill("[name=username]", "admin")
    page.fill("[name=password]", "wrong-password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    expect(page.locator("[name=password]")).to_be_focused()
    page.keyboard.type("admin-password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Now")
    page.click(".who")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_the_first_user_is_made_with_the_code_of_the_log(visit_at, stage):
    page = visit_at(stage, "setup", role="")
    page.fill("[name=code]", "not the code")
    page.fill("[name=username]", "ann")
    page.fill("[name=password]", "correct horse battery")
    page.click("button[type=submit]")
    expect(page.locator("[name=code]")).to_be_focused()
    page.fill("[name=code]", stage.control.auth.setup_code)
    page.click("button[type=submit]")  # what was right is still there
    expect(page.get_by_role("heading", level=1)).to_have_text("Now")
    expect(page.get_by_text("No streamers yet")).to_be_visible()
    for place, said in {"streamers": "No streamers yet", "library": "Nothing here yet", "publishing": "Nothing to pub",
                        "accounts": "No account yet", "log": "Nothing found"}.items():  # fmt: skip
        go(page, place)
        expect(page.locator(".empty")).to_contain_text(said)


def test_a_session_that_is_ended_elsewhere_leads_back_to_the_login(visit, sampled):
    page = visit(role="operator")
    expect(page.locator(".rail .foot")).to_contain_text("Live")
    script = sampled.bearer("operator")
    for session in script.get(f"{sampled.url}/api/sessions", timeout=5).json():
        if session["kind"] == "cookie":
            script.delete(f"{sampled.url}/api/sessions/{session['id']}", timeout=5)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


# -- what is seen


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


# -- what changes


def test_a_change_of_the_catalog_appears_without_reload_and_costs_no_focus_and_no_half_typed_word(visit, sampled):
    db = sampled.catalog.db
    page = visit("publishing")
    expect(page.locator("main")).to_contain_text("审核中")
    (id,) = db.execute("select id from submissions where state = 'submitted'").fetchone()
    rows(db, "submissions").update(id, {"review": "something else", "title": "a title that was changed"})
    db.conn.commit()
    expect(page.locator("main")).to_contain_text("a title that was changed")
    go(page, "streamers")
    page.get_by_role("searchbox").focus()
    page.keyboard.type("members on")
    rows(db, "streamers").update(4, {"status_reason": "now it says this"})
    db.conn.commit()
    expect(page.locator("main")).to_contain_text("now it says this")
    page.keyboard.type("ly")
    expect(page.get_by_role("searchbox")).to_have_value("members only")
    expect(page.locator(".streamer")).to_have_count(1)
    sampled.house.say("a line that comes just now", "WARNING", streamer="nightowl")
    go(page, "log")
    expect(page.locator(".log-lines")).to_contain_text("a line that comes just now")
    sampled.house.say("and one after it")
    expect(page.locator(".log-lines")).to_contain_text("and one after it")
    page.get_by_label("Level").select_option("ERROR")
    expect(page.locator(".log-lines")).not_to_contain_text("and one after it")


def test_a_connection_that_is_cut_comes_back_and_misses_nothing(visit_at, sampled):
    db = sampled.catalog.db
    routes: list[WebSocketRoute] = []
    asked: list[str] = []
    cut = threading.Event()

    def between(route: WebSocketRoute) -> None:
        if cut.is_set():
            route.close(code=1001)
            return
        server = route.connect_to_server()
        route.on_message(lambda text: (asked.append(text), server.send(text)))
        routes.append(route)

    page = visit_at(sampled, role="")
    page.route_web_socket(re.compile("/api/ws$"), between)
    page.context.add_cookies([{"name": "biliupd", "value": sampled.token("admin", "cookie"), "url": sampled.url}])
    page.reload()
    go(page, "accounts")
    expect(page.locator("main")).to_contain_text("录播姬")
    cut.set()
    routes[0].close(code=1001)
    expect(page.locator(".banner")).to_contain_text("comes back by itself")
    go(page, "now")
    expect(page.locator(".verdict")).to_contain_text("nobody knows")  # and not that all is well
    go(page, "accounts")
    records.account(db, "second", "ok", "while nobody listened", uname="another name")
    cut.clear()
    expect(page.locator("main")).to_contain_text("another name")
    expect(page.locator(".banner")).to_have_count(0)
    assert '"seq":null' in asked[0]
    assert re.search(r'"seq":\d+', asked[-1])  # it asked for what it had missed, not for everything


def test_a_device_without_a_network_is_told_so(visit):
    page = visit()
    page.context.set_offline(True)
    expect(page.locator(".banner")).to_contain_text("offline")
    page.context.set_offline(False)
    expect(page.locator(".banner")).to_have_count(0)


def test_the_log_stands_still_while_the_reader_has_scrolled_up(visit, sampled):
    for number in range(80):
        sampled.house.say(f"line {number} of many")
    page = visit("log")
    lines = page.locator(".log-lines")
    expect(lines).to_contain_text("line 79 of many")
    until(page, "(() => { const el = document.querySelector('.log-lines');"
                " return el.scrollTop + el.clientHeight > el.scrollHeight - 5; })()")  # fmt: skip
    lines.evaluate("el => { el.scrollTop = 0; }")
    expect(page.get_by_role("button", name="To the end")).to_be_visible()
    sampled.house.say("this comes while the reader reads")
    page.get_by_role("button", name="1 new line").click()
    expect(lines).to_contain_text("this comes while the reader reads")
    expect(page.locator(".resume")).to_have_count(0)


def measured(page: Page, stage: Stage, **figures: float) -> None:
    """What the recorder of nightowl measures from now on; the page need not wait for the next sample."""
    place = next(place for place, run in enumerate(stage.house.runs) if run.streamer == "nightowl")
    run = stage.house.runs[place]
    stage.house.runs[place] = run._replace(figures=run.figures.model_copy(update=figures))
    page.evaluate("""async ([id, figures]) => {
        const main = document.querySelector("script[type=module]").src;
        const store = await import(new URL("store.js", main));
        store.figures({ tasks: { [id]: figures } });
    }""", [run.task_id, stage.house.runs[place].figures.model_dump()])  # fmt: skip


def test_a_recording_that_gets_nothing_is_told_first_and_a_gap_is_explained_while_it_runs(visit, sampled):
    before = list(sampled.house.runs)
    page = visit("now")
    cards = page.locator(".cards > li")
    expect(cards.first).to_contain_text("nightowl")
    measured(page, sampled, bitrate=0.0)
    expect(page.locator(".verdict")).to_contain_text("1 of 2 recordings gets nothing right now")
    expect(cards.first).to_contain_text("Nothing comes right now")
    page.get_by_role("button", name="1 gap").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".chip")).to_contain_text("1 gap, 12 sec")  # those of the recorder, not of the catalog
    measured(page, sampled, bitrate=5e6, gaps=5, lost_seconds=80.0)
    expect(dialog.locator(".chip")).to_contain_text("5 gaps, 1 min 20 sec")
    dialog.get_by_role("link", name="Open the log").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Streamer")).to_have_value("nightowl")
    sampled.house.runs[:] = before


def test_a_clock_of_the_browser_that_is_hours_ahead_makes_no_moment_wrong(visit):
    page = visit("now")
    page.add_init_script("const right = Date.now; Date.now = () => right() + 7.2e6;")
    page.reload()
    expect(page.locator(".cards .elapsed").last).to_have_text(re.compile(r"^5\d:\d\d$"))


# -- what is done


def test_a_streamer_is_added_after_its_address_was_put_right_started_stopped_and_removed(visit, sampled):
    page = visit("streamers")
    page.get_by_role("button", name="Add streamer").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Address of the room")).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This is needed")
    page.keyboard.type("【a title】 https://www.twitch.tv/newcomer and what an app writes beside it")
    dialog.get_by_label("Priority").fill("5000")
    page.keyboard.press("Enter")
    expect(dialog.locator(".wrong")).to_contain_text("1000")
    expect(dialog.get_by_label("Priority")).to_be_focused()
    dialog.get_by_label("Priority").fill("5")
    sampled.house.live.add("newcomer")
    page.keyboard.press("Enter")
    row = page.locator(".streamer", has_text="newcomer")
    expect(row).to_contain_text("Priority 5")
    row.get_by_role("button", name="Start newcomer").click()
    expect(row).to_contain_text("Recording")
    row.get_by_role("button", name="Stop newcomer").click()
    expect(page.get_by_role("dialog")).to_contain_text("The file is ended properly")
    page.get_by_role("dialog", name="Stop recording").get_by_role("button", name="Stop", exact=True).click()
    expect(row).not_to_contain_text("Recording")
    assert not any(run.streamer == "newcomer" for run in sampled.house.runs)
    row.get_by_role("button", name="Remove newcomer").click()
    page.get_by_role("dialog", name="Remove newcomer?").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)


def test_what_is_held_is_tried_again_and_what_would_be_sent_is_looked_at_first(visit, sampled):
    db = sampled.catalog.db
    (number, broadcast) = db.execute("select id, broadcast_id from submissions where state = 'submitted'").fetchone()
    body = {"title": "a title", "tid": 171, "tag": "录播,直播", "copyright": 2, "source": "https://live.example/1",
            "videos": [{"title": "the first part", "filename": "n1", "desc": ""}]}  # fmt: skip
    sampled.house.previews[broadcast] = [
        Preview(account="main", waits_for="it is being reviewed", bvid="", files=["/srv/1.mp4"], cover="", body=body)
    ]
    page = visit(f"publishing/{number}")
    panel = page.get_by_role("dialog").first
    panel.get_by_role("button", name="Preview").click()
    preview = page.get_by_role("dialog", name="What would be sent")
    for text in ("it is being reviewed", "录播", "Reprint", "the first part", "/srv/1.mp4"):
        expect(preview).to_contain_text(text)
    preview.get_by_text("JSON").click()
    expect(preview.locator("pre")).to_contain_text('"copyright": 2')
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(panel).to_have_count(0)
    go(page, f"publishing/{number}")
    panel.get_by_role("button", name="Preview").click()
    expect(preview).to_contain_text("Reprint")
    page.go_back()  # closes what lies above the page, too
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name=re.compile("^Held")).click()
    held = page.locator(".submission")
    expect(held).to_have_count(1)
    held.get_by_role("button", name="Try again").click()
    expect(held).to_have_count(0)
    (id,) = db.execute("select id from videos where state = 'published'").fetchone()
    go(page, f"library/video/{id}")
    before = db.execute("select pinned from videos where id = ?", [id]).fetchone()
    page.get_by_role("button", name=re.compile("^(Pin|Unpin)$")).click()
    wait_until(lambda: db.execute("select pinned from videos where id = ?", [id]).fetchone() != before
               or page.wait_for_timeout(50))  # fmt: skip


def test_an_admin_makes_users_and_changes_them_and_everybody_ends_sessions(visit, sampled):
    page = visit("now")
    page.click(".who")
    page.get_by_role("button", name="Users").click()
    page.get_by_role("button", name="Add user").click()
    form = page.get_by_role("dialog", name="Add user")
    form.get_by_label("Name").fill("viewer")
    form.get_by_label("New password").fill("short")
    page.keyboard.press("Enter")
    expect(form.locator(".wrong")).to_contain_text("8")
    form.get_by_label("New password").fill("long enough it is")
    page.keyboard.press("Enter")
    expect(form).to_contain_text("viewer")  # the name is taken
    form.get_by_label("Name").fill("guest")
    page.keyboard.press("Enter")
    row = page.get_by_role("row", name="guest")
    expect(row).to_be_visible()
    row.get_by_role("combobox").select_option("operator")
    wait_until(lambda: users.named(sampled.catalog.db, "guest")["role"] == "operator" or page.wait_for_timeout(50))
    row.get_by_role("button", name="Remove guest").click()
    page.get_by_role("dialog", name="Remove guest?").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)
    page.keyboard.press("Escape")
    page.click(".who")
    sampled.token("admin", "bearer")
    page.get_by_role("button", name="Sessions").click()
    script = page.get_by_role("row", name=re.compile("script")).first
    expect(page.get_by_role("row", name=re.compile("this one"))).to_be_visible()
    count = page.get_by_role("row").count()
    script.get_by_role("button", name="End").click()
    expect(page.get_by_role("row")).to_have_count(count - 1)


def test_a_login_at_bilibili_is_done_by_a_code_that_is_watched(visit, sampled):
    page = visit("accounts")
    page.locator(".account", has_text="old").get_by_role("button", name="Log in").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_alt_text("QR code of the login")).to_be_visible()
    sampled.house.confirm(next(reversed(sampled.house.codes)))
    expect(dialog).to_contain_text("Logged in.")
    page.keyboard.press("Escape")
    expect(page.locator(".account", has_text="old")).to_contain_text("somebody")


def test_videos_play_as_files_and_as_streams_with_a_seek_bar_of_their_own(visit, sampled):
    db = sampled.catalog.db
    (file,) = db.execute("select id from videos where path like '%.mp4'").fetchone()
    page = visit(f"library/video/{file}")
    until(page, "document.querySelector('video')?.duration > 5")
    (flv,) = db.execute("select id from videos where path like '%.flv' and state != 'recording'").fetchone()
    page.keyboard.press("Escape")
    go(page, f"library/video/{flv}")
    page.get_by_role("button", name="Play").click()
    until(page, "document.querySelector('video').currentTime > 0.2")
    bar = page.get_by_label("Place in the video")
    bar.evaluate("bar => { bar.value = 4; bar.dispatchEvent(new Event('change')); }")
    until(page, "document.querySelector('video').src.endsWith('from=4.0')")
    until(page, "document.querySelector('video').currentTime > 0.2")
    page.keyboard.press("Escape")
    wait_until(lambda: sampled.house.still_playing == 0 or page.wait_for_timeout(50))  # who closes it ends the work


def test_who_may_only_look_sees_nothing_that_changes_anything(visit):
    page = visit("now", role="viewer")
    expect(page.locator(".rail")).not_to_contain_text("Settings")
    for place in ("now", "streamers", "publishing", "accounts", "library/video/3"):
        go(page, place)
        expect(page.locator("main .skeleton, dialog .skeleton")).to_have_count(0)
        names = page.locator("main button, dialog button").evaluate_all(
            "all => all.map(one => one.getAttribute('aria-label') || one.textContent)")
        assert [name for name in names if CHANGING.search(name)] == []
    go(page, "settings")
    expect(page.get_by_role("heading", level=1)).to_have_text("Now")


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
    expect(page.locator(".operation")).to_have_count(3)
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
