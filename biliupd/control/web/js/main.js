/** The frame around the pages: who is logged in, where we are, whether the connection stands. */

import { ApiError, get, whenLoggedOut } from "./api.js";
import { h, render } from "./dom.js";
import { icon, mark } from "./icons.js";
import { t, whenLearnt } from "./i18n.js";
import * as live from "./live.js";
import { menu } from "./menu.js";
import { PAGES, go, route, to, whenMoved } from "./router.js";
import { drawWith, forget, isOld, listen, may, redraw, store } from "./store.js";
import { announce, closeAll, overlays, problem } from "./ui.js";
import { accounts } from "../pages/accounts.js";
import { library } from "../pages/library.js";
import { log } from "../pages/log.js";
import { gate } from "../pages/gate.js";
import { needed, now } from "../pages/now.js";
import { publishing } from "../pages/publishing.js";
import { settings } from "../pages/settings.js";
import { streamers } from "../pages/streamers.js";

const VIEWS = { now, streamers, library, publishing, accounts, log, settings };
const ON_A_PHONE = 4; // pages in the tab bar; the others are behind "more"

let failure = null;
let more = false;
let arrived = false; // at another page than the first: there the focus goes

async function begin() {
  failure = null;
  try {
    store.me = await get("/me");
    live.begin(otherwise);
    enter(null, route());
  } catch (error) {
    store.me = null;
    if (error.status === 401) store.setup = (await get("/setup").catch(() => ({ needed: false }))).needed;
    else failure = error;
  }
  redraw();
}

/** The daemon takes us for somebody else: logged out (then asking says so), or with another role. */
async function otherwise() {
  const me = await get("/me").catch(() => null);
  if (!me || !store.me) return;
  store.me = me;
  enter(null, route());
  redraw();
}

/** After a login. */
function come() {
  forget();
  begin();
}

/** After a logout, ours or one that the daemon decided. */
function leave() {
  if (!store.me) return;
  live.end();
  VIEWS[route().page]?.leave?.();
  closeAll();
  store.me = null;
  forget();
}

function enter(before, after) {
  if (!store.me) return;
  const page = VIEWS[after.page];
  if (before && before.page !== after.page) {
    VIEWS[before.page]?.leave?.();
    closeAll();
    more = false;
    scrollTo(0, 0);
    arrived = true;
  } else if (before) closeAll(false);
  if (!page || (after.page === "settings" && !may("admin"))) return go(to("now"), true);
  live.wantLog(after.page === "log");
  page.enter?.(after, before?.page !== after.page);
}

whenMoved(enter);
whenLoggedOut(leave);

// -- what a person should hear without looking

const heard = new Map();

listen((topic, rows) => {
  if (topic === "tasks") {
    const first = !heard.size;
    for (const task of rows) {
      const before = heard.get(task.id);
      heard.set(task.id, task.status);
      if (before && before !== task.status) announce(t("say.ended", { name: task.streamer }));
      if (!before && !first && task.status === "recording") announce(t("say.began", { name: task.streamer }));
    }
  }
  if (topic === "status" && rows[0] && !rows[0].ok) announce(rows[0].trouble.join(". "));
});

// -- drawing

function view() {
  if (store.me === undefined) return h("div", { class: "gate", "aria-busy": "true" }, mark(44));
  if (failure) return h("main", { class: "gate" }, h("div", { class: "box" }, h("h1", null, "biliupd"), problem(failure, begin)));
  if (!store.me) return gate(come);
  const { page } = route();
  const current = VIEWS[page] ?? now;
  const title = t(`nav.${VIEWS[page] ? page : "now"}`);
  document.title = `${title} · biliupd`;
  return h(
    "div",
    { class: `frame ${isOld() ? "old" : ""}` },
    h("a", { class: "skip", href: "#main", onClick: skip }, t("nav.skip")),
    rail(page),
    h("div", { class: "content" },
      banner(),
      h("header", { class: "head" }, h("h1", null, title), linkState(), menu(leave)),
      h("main", { id: "main", tabindex: "-1", key: page, class: `page ${page}`, mount: (el) => arrived && el.focus({ preventScroll: true }) }, current.view(route()))),
    overlays(),
  );
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

function rail(page) {
  const shown = PAGES.filter((name) => name !== "settings" || may("admin"));
  const hidden = shown.slice(ON_A_PHONE);
  return h(
    "nav",
    { class: "rail", "aria-label": t("nav.label") },
    h("div", { class: "brand" }, mark(), h("span", null, "biliupd")),
    h("ul", null,
      shown.map((name, place) => h("li", { key: name, class: place < ON_A_PHONE ? "" : "wide-only" }, tab(name, page))),
      h("li", { key: "more", class: "narrow-only menu-place" },
        h("button", {
          type: "button", class: "tab", "aria-expanded": String(more), "aria-current": String(hidden.includes(page)),
          onClick: () => ((more = !more), redraw()),
        }, icon("more", 22), h("span", null, t("nav.more"))),
        more && h("div", {
          class: "menu above", onKeydown: (event) => event.key === "Escape" && closeMore(),
          mount: (el) => el.querySelector("a").focus(), onFocusout: left,
        }, hidden.map((name) =>
          h("a", { key: name, class: "item", href: to(name), onClick: () => ((more = false), redraw()) },
            icon(name), t(`nav.${name}`)))))),
    h("div", { class: "foot" }, linkState(), h("span", null, store.status ? `biliupd ${store.status.version}` : "")),
  );
}

function left(event) {
  if (event.currentTarget.parentElement.contains(event.relatedTarget)) return;
  more = false;
  redraw();
}

function closeMore() {
  more = false;
  redraw();
  document.querySelector(".rail .tab").focus();
}

function tab(name, page) {
  const waits = name === "now" ? needed() : name === "publishing" ? store.status?.submissions?.held ?? 0 : 0;
  return h(
    "a",
    { href: to(name), "aria-current": name === page ? "page" : null, title: t(`nav.${name}`) },
    icon(name, 22),
    h("span", null, t(`nav.${name}`)),
    waits > 0 && h("span", { class: "badge" }, waits, h("span", { class: "unseen" }, ` ${t("nav.waits")}`)),
  );
}

function linkState() {
  const tone = { open: "good", connecting: "", reconnecting: "warn", offline: "bad" }[store.link];
  return h("span", { class: `link-state ${tone}` }, h("i", { class: "dot", "aria-hidden": "true" }), t(`link.${store.link}`));
}

function banner() {
  const text = store.link === "offline" ? t("link.none") : isOld() && t("link.lost");
  return h("div", { role: "status", key: "banner" }, text && h("div", { class: "banner" }, icon("offline", 17), text));
}

whenLearnt(redraw);
drawWith(() => render(document.getElementById("app"), view()));
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof ApiError) event.preventDefault(); // whoever asked has shown it, or has gone
});
redraw();
begin();
