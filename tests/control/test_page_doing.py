"""The dashboard in a real browser, on the real server: who comes in, and what they do."""

import re

from browser import go, until
from playwright.sync_api import expect
from support import wait_until

from biliupd.catalog import users
from biliupd.control.models import Preview

CHANGING = re.compile(r"start|stop|pause\b|add|edit|remove|folders now|try again|log in|use again|^publish$|pin", re.I)


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


def test_a_browser_that_plays_nothing_without_an_end_is_fed(visit, sampled):
    db = sampled.catalog.db
    (flv,) = db.execute("select id from videos where path like '%.flv' and state != 'recording'").fetchone()
    page = visit(f"library/video/{flv}")
    page.route("**/play?*", lambda route: route.fulfill(status=409) if route.request.resource_type == "media"
               else route.continue_())  # fmt: skip
    page.get_by_role("button", name="Play").click()
    until(page, "document.querySelector('video').src.startsWith('blob:')")
    until(page, "document.querySelector('video').currentTime > 0.2")
    bar = page.get_by_label("Place in the video")
    bar.evaluate("bar => { bar.value = 4; bar.dispatchEvent(new Event('change')); }")
    until(page, "document.querySelector('.player .number').textContent === '0:05'")
    page.keyboard.press("Escape")
    wait_until(lambda: sampled.house.still_playing == 0 or page.wait_for_timeout(50))


def test_a_browser_that_has_no_room_for_more_is_fed_the_rest_later(visit, sampled):
    db = sampled.catalog.db
    (flv,) = db.execute("select id from videos where path like '%.flv' and state != 'recording'").fetchone()
    page = visit(f"library/video/{flv}")
    page.evaluate("""() => {
      const append = SourceBuffer.prototype.appendBuffer;
      const read = ReadableStreamDefaultReader.prototype.read;
      let left = new Uint8Array();
      ReadableStreamDefaultReader.prototype.read = async function () { // in small pieces, however fast the network is
        if (!left.length) left = (await read.call(this)).value ?? left;
        const value = left.subarray(0, 8192);
        left = left.subarray(8192);
        return { done: !value.length, value };
      };
      SourceBuffer.prototype.appendBuffer = function (piece) {
        const full = !window.refused && this.buffered.length && this.buffered.end(0) > 1;
        if (full) throw new DOMException(window.refused = "full", "QuotaExceededError");
        return append.call(this, piece);
      };
    }""")
    page.route("**/play?*", lambda route: route.fulfill(status=409) if route.request.resource_type == "media"
               else route.continue_())  # fmt: skip
    page.get_by_role("button", name="Play").click()
    until(page, "window.refused")
    until(page, "(({ buffered }) => buffered.length && buffered.end(0) > 5)(document.querySelector('video'))")
    page.keyboard.press("Escape")
    wait_until(lambda: sampled.house.still_playing == 0 or page.wait_for_timeout(50))


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
