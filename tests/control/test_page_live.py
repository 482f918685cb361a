"""The dashboard in a real browser, on the real server: what changes there by itself."""

import re
import threading

from browser import go, until
from playwright.sync_api import Page, WebSocketRoute, expect
from stage import Stage

from biliupd.catalog import records
from biliupd.catalog.states import rows


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
