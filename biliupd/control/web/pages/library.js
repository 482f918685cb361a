/** Library: every video there is, as a grid that is searched, or folder by folder; one of them in a panel. */

import { get, post } from "../js/api.js";
import { h } from "../js/dom.js";
import { ago, bytes, clock, number } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t, word } from "../js/i18n.js";
import { go, route, to } from "../js/router.js";
import { listen, may, redraw, store } from "../js/store.js";
import { act, busy, videoChip } from "../js/states.js";
import { bar, button, empty, problem, segments, skeleton } from "../js/ui.js";
import { between, dates, narrows } from "./dates.js";
import { closeVideo, openVideo } from "./video.js";

const PAGE = 48;
const STATES = ["recording", "recorded", "editing", "ready", "uploading", "uploaded", "published", "held", "ignored", "missing"];
const SORTS = ["recorded_at", "created_at", "title", "duration", "file_size", "uploaded_at"];
const CHOICES = ["q", "streamer", "state", "when", "from", "until", "sort", "order", "page", "root", "folder", "view"];

let found = null; // {items, total} or a Tree
let asked = "";
let error = null;
let streamers = [];
let typing = 0;
let stale = 0;
let request = null;
let current = null; // the video whose tile the Tab key leads to

export const library = {
  enter({ rest }, fresh) {
    if (fresh) get("/stats").then((sums) => ((streamers = sums.map((one) => one.streamer).filter(Boolean)), redraw()), () => {});
    load(fresh);
    if (rest[0] === "video" && rest[1]) openVideo(Number(rest[1]), () => go(to("library", choices())));
    else closeVideo();
  },
  leave() {
    request?.abort();
    clearTimeout(typing);
    closeVideo();
  },
  view() {
    const chosen = choices();
    return [tools(chosen), chosen.view === "tree" ? crumbs(chosen) : null, error ? problem(error, () => load(true)) : list(chosen)];
  },
};

/** What the address says that should be seen. */
function choices() {
  const { query } = route();
  return Object.fromEntries(CHOICES.map((name) => [name, query.get(name) ?? ""]));
}

const choose = (change, replace = false) =>
  go(to("library", { ...choices(), page: "", ...change }), replace);

const placeOf = ({ page }) => Math.min(1e6, Math.max(0, Math.floor(Number(page)) || 0));
const lastOf = ({ total }) => Math.max(0, Math.ceil(total / PAGE) - 1);

async function load(anew = false) {
  const chosen = choices();
  const { q, streamer, state, sort, order, root, folder } = chosen;
  const piece = { limit: PAGE, offset: PAGE * placeOf(chosen) };
  const [path, query] = chosen.view === "tree"
    ? ["/videos/tree", { root, folder, ...piece }]
    : ["/videos", { q, streamer, state, ...between(chosen), sort: sort || SORTS[0], order: order || "desc", ...piece }];
  const wanted = `${path} ${JSON.stringify(query)}`;
  if (wanted === asked && !anew) return;
  if (wanted !== asked) found = null;
  asked = wanted;
  request?.abort();
  request = new AbortController();
  const own = request;
  try {
    const answer = await get(path, query, own.signal);
    if (own !== request) return;
    if (placeOf(chosen) > lastOf(answer)) return choose({ page: lastOf(answer) || "" }, true); // what was there is gone
    [found, error] = [answer, null];
  } catch (failure) {
    if (own.signal.aborted) return;
    error = failure;
  }
  redraw();
}

/** Of the page that is seen, rows change in place; what comes or goes is asked for anew, but not at every change. */
listen((topic, rows, gone) => {
  if (route().page !== "library" || !store.me || (topic !== "videos" && topic !== "all")) return;
  const shown = found?.items ?? found?.videos ?? [];
  const fresh = new Map(rows.map((row) => [row.id, row]));
  const known = new Set(shown.map((one) => one.id));
  shown.forEach((one, place) => fresh.has(one.id) && (shown[place] = fresh.get(one.id)));
  if (gone.some((id) => known.has(Number(id))) || rows.some((row) => !known.has(row.id))) {
    clearTimeout(stale);
    stale = setTimeout(() => store.me && route().page === "library" && load(true), 800);
  }
});

function tools(chosen) {
  const tree = chosen.view === "tree";
  const option = (value, text, current) => h("option", { key: value, value, selected: value === current }, text);
  return h("div", { class: "tools", key: "tools" },
    !tree && h("div", { class: "search" }, icon("search"), h("input", {
      type: "search", "aria-label": t("do.search"), placeholder: t("library.search"), value: chosen.q,
      onInput: ({ target }) => {
        clearTimeout(typing);
        typing = setTimeout(() => choose({ q: target.value.trim() }, true), 250);
      },
    })),
    !tree && h("select", { "aria-label": t("library.streamer"), onChange: ({ target }) => choose({ streamer: target.value }) },
      option("", t("library.any_streamer"), chosen.streamer), streamers.map((name) => option(name, name, chosen.streamer))),
    !tree && h("select", { "aria-label": t("library.state"), onChange: ({ target }) => choose({ state: target.value }) },
      option("", t("library.any_state"), chosen.state),
      STATES.map((state) => option(state, counted(state), chosen.state))),
    !tree && h("select", {
      "aria-label": t("library.sort"),
      onChange: ({ target }) => choose({ sort: target.value, order: target.value === "title" ? "asc" : "" }),
    }, SORTS.map((sort) => option(sort, t(`library.by_${sort}`), chosen.sort || SORTS[0]))),
    !tree && dates(chosen, choose),
    h("span", { class: "grow" }),
    may("operator") && button({ label: t("library.sync"), icon: "retry", only: true, busy: busy("sync"), onClick: () => act("sync", () => post("/sync", {}), t("library.synced")) }),
    segments({
      label: t("library.view"), value: chosen.view, onChange: (view) => choose({ view, root: "", folder: "" }),
      options: [["", t("library.grid")], ["tree", t("library.tree")]],
    }));
}

function counted(state) {
  const count = store.status?.videos?.[state];
  return count ? `${word("state", state)} (${number(count)})` : word("state", state);
}

function crumbs({ root, folder }) {
  const parts = folder ? folder.split("/") : [];
  const places = [[t("library.roots"), {}], ...(root ? [[root.split("/").at(-1) || root, { root }]] : []),
    ...parts.map((name, place) => [name, { root, folder: parts.slice(0, place + 1).join("/") }])];
  return h("nav", { class: "crumbs", key: "crumbs", "aria-label": t("library.crumbs") },
    h("ol", null, places.map(([name, where], place) => h("li", { key: place },
      h("a", { href: to("library", { view: "tree", ...where }), "aria-current": place === places.length - 1 ? "page" : null }, name)))));
}

function list(chosen) {
  if (!found) return skeleton(12, "tile");
  const videos = found.items ?? found.videos;
  const folders = found.folders ?? [];
  if (!videos.length && !folders.length) return nothing(chosen);
  return h("div", { key: "list" },
    folders.length > 0 && placeOf(chosen) === 0 && h("ul", { class: "panel rows folders" }, folders.map((one) => folder(one, chosen))),
    h("ul", { class: "tiles", onKeydown: rove }, videos.map((video) => tile(video, chosen, videos.some((one) => one.id === current) ? current : videos[0].id))),
    found.total > 0 && pages(chosen));
}

function nothing(chosen) {
  const others = chosen.q || chosen.streamer || chosen.state;
  const then = narrows(chosen);
  if (chosen.view === "tree" || !(others || then)) return empty("library", t("library.none"), t("library.none_text"));
  return empty("search", t("nothing"), t(!then ? "library.no_match" : others ? "library.no_match_then" : "library.none_then"),
    button({ label: t("library.all"), onClick: () => go(to("library")) }));
}

function folder(one, { root }) {
  const where = root ? { root, folder: one.path } : { root: one.path };
  return h("li", { key: one.path }, h("a", { class: "folder", href: to("library", { view: "tree", ...where }) },
    icon("folder", 22), h("strong", { class: "grow one-line" }, one.name),
    h("small", { class: "muted" }, t("library.videos", { n: one.videos, count: number(one.videos) })), icon("right", 16)));
}

function tile(video, chosen, reached) {
  const { upload } = video;
  return h("li", { key: video.id, class: "tile" },
    h("a", { href: to(`library/video/${video.id}`, chosen), tabindex: video.id === reached ? "0" : "-1", onFocus: () => ((current = video.id), redraw()) },
      h("div", { class: `picture ${video.removed_at ? "removed" : ""}` },
        video.thumbnail ? h("img", { src: video.thumbnail, alt: "", loading: "lazy", decoding: "async" }) : icon("film", 34),
        video.duration && h("span", { class: "length" }, clock(video.duration)),
        video.pinned && h("span", { class: "pinned", title: t("library.pinned") }, icon("pin", 15)),
        video.state === "uploading" && upload && bar(upload.bytes_sent / (upload.bytes_total || 1), t("upload.of", { title: video.title }))),
      h("h2", { class: "two-lines", title: video.title }, video.title),
      h("p", { class: "small-text muted one-line" }, [video.streamer, ago(video.recorded_at), bytes(video.file_size)].filter(Boolean).join(" · ")),
      videoChip(video)));
}

/** Arrows go through the grid as they go through a picture. */
function rove(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0, Home: -Infinity, End: Infinity }[event.key];
  const links = [...event.currentTarget.querySelectorAll(".tile > a")];
  const place = links.indexOf(event.target);
  if (step === undefined || place < 0) return;
  const across = links.filter((one) => one.offsetParent && one.getBoundingClientRect().top === links[0].getBoundingClientRect().top).length || 1;
  const next = links[Math.min(links.length - 1, Math.max(0, place + (step || (event.key === "ArrowDown" ? across : -across))))];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function pages(chosen) {
  const page = placeOf(chosen);
  const last = lastOf(found);
  const first = page * PAGE + 1;
  return h("nav", { class: "pages", "aria-label": t("library.pages") },
    h("span", { class: "muted number" }, t("library.range", { first: number(first), last: number(Math.min(found.total, first + PAGE - 1)), total: number(found.total) })),
    last > 0 && button({ label: t("library.before"), icon: "back", only: true, disabled: page === 0, onClick: () => turn(page - 1) }),
    last > 0 && button({ label: t("library.after"), icon: "right", only: true, disabled: page >= last, onClick: () => turn(page + 1) }));
}

function turn(page) {
  choose({ page: page || "" });
  scrollTo(0, 0);
}
