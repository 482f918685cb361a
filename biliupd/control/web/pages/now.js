/** Now: what needs somebody, who is being recorded and how well, and what comes after it. */

import { sparkline } from "../js/chart.js";
import { h } from "../js/dom.js";
import { ago, bitrate, bytes, clock, number, percent, present, rate, since, span, time } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t, told, word } from "../js/i18n.js";
import { to } from "../js/router.js";
import { all, isOld, may, redraw, store } from "../js/store.js";
import { busy, halt, retry, streamerOf } from "../js/states.js";
import { bar, button, chip, empty, figure, skeleton } from "../js/ui.js";
import * as frames from "./frames.js";
import { showLedger } from "./ledger.js";

const LISTED = 5;
const FOLDED = 4;
const SILENT_SECONDS = 30;
const SHORT_OF_DISK_SECONDS = 6 * 3600;
let clockTimer = 0;
let unfolded = false;

export const now = {
  enter() {
    clearInterval(clockTimer);
    clockTimer = setInterval(() => (redraw(), frames.look()), 1000); // what is elapsed goes on by itself
  },
  leave() {
    clearInterval(clockTimer);
  },
  view() {
    const { status } = store;
    if (!status || !store.known.has("tasks")) return [skeleton(1), skeleton(3, "card")];
    const running = all("tasks").filter((task) => task.status === "recording");
    running.sort((one, other) => rank(one) - rank(other) || one.started_at.localeCompare(other.started_at));
    return [
      verdict(status, running),
      needs(status),
      h("div", { class: "now-columns", key: "columns" },
        h("section", { "aria-labelledby": "live-now" },
          h("h2", { id: "live-now", class: "section" }, t("now.live"), h("span", { class: "count" }, number(running.length))),
          running.length ? h("ul", { class: "cards" }, running.map(recording)) : nobody()),
        h("div", { class: "aside" }, disk(status.disk), waiting(status.waiting), uploads(), latest())),
    ];
  },
};

// -- one sentence

const elapsed = (task) => since(task.started_at, isOld() ? store.lostAt : present());

/** Nothing has come for half a minute. */
const isSilent = ({ figures, ...task }) => Boolean(figures) && figures.bitrate === 0 && elapsed(task) > SILENT_SECONDS;

/** What somebody has to look at comes first. */
const rank = (task) => isSilent(task) ? 0 : task.figures?.gaps ? 1 : 2;

/** What is said of those that are live, and how bad it is. */
function sentence(running, waits) {
  const ids = new Set(running.map((task) => task.streamer_id));
  const left = all("streamers").filter((one) => one.status === "live" && one.mode === "on" && !ids.has(one.id) && !one.waiting).length;
  const skipped = all("streamers").filter((one) => one.status === "live" && one.mode === "skipped" && !ids.has(one.id)).length;
  const silent = running.filter(isSilent).length;
  const say = (key, n) => t(key, { n, count: number(n), running: number(running.length) });
  if (silent) return [say("now.silent", silent), "bad"];
  if (waits) return [say(running.length ? "now.some" : "now.none_waits", waits), "bad"];
  if (left) return [say("now.left", left), "warn"];
  if (!running.length) return [t(skipped ? "now.quiet_skipped" : "now.quiet"), "good"];
  return [say(skipped ? "now.being" : "now.all", running.length), "live"];
}

function verdict(status, running) {
  if (isOld()) {
    return h("section", { class: "verdict", key: "verdict", "aria-label": t("now.verdict") },
      h("i", { class: "dot big", "aria-hidden": "true" }),
      h("div", { class: "says" }, h("p", { class: "main" }, t("now.old")), h("p", { class: "rest" }, t("now.as_of", { time: time(store.lostAt) }))));
  }
  const lost = running.reduce((sum, task) => sum + (task.figures?.lost_seconds ?? 0), 0);
  const gaps = running.reduce((sum, task) => sum + (task.figures?.gaps ?? 0), 0);
  const waits = status.waiting.length;
  const bits = running.reduce((sum, task) => sum + (task.figures?.bitrate ?? 0), 0);
  const [main, how] = sentence(running, waits);
  const tone = !status.ok ? "bad" : how === "live" && gaps ? "warn" : how;
  const watched = all("streamers").filter((one) => one.mode !== "paused").length;
  const rest = !running.length ? t("now.watching", { n: watched, count: number(watched) })
    : gaps ? t("now.lost", { n: gaps, gaps: number(gaps), span: span(lost) }) : t("now.whole");
  return h(
    "section",
    { class: `verdict ${tone}`, key: "verdict", "aria-label": t("now.verdict") },
    h("i", { class: "dot big", "aria-hidden": "true" }),
    h("div", { class: "says" }, h("p", { class: "main" }, main), h("p", { class: `rest ${!running.length ? "" : gaps ? "warn" : "good"}` }, rest)),
    h("dl", { class: "figures" },
      running.length > 0 && figure(t("now.rate"), bitrate(bits)),
      status.disk && figure(t(status.disk.seconds_left === null ? "now.disk_free" : "now.disk_left"), status.disk.seconds_left === null ? bytes(status.disk.free) : span(status.disk.seconds_left),
        diskTone(status.disk)),
      figure(t("now.uploading"), number(status.videos.uploading ?? 0))),
  );
}

const nobody = () => store.streamers.size
  ? empty("streamers", t("now.nobody"), t("now.nobody_text"))
  : empty("streamers", t("streamers.none"), t("streamers.none_text"),
    may("operator") && h("a", { class: "button primary", href: to("streamers", { add: 1 }) }, icon("plus"), t("streamers.add")));

// -- what needs somebody

/** What waits for a person: [what is wrong, accounts, submissions, videos, and how many of these are not in the store]. */
function open(status) {
  const wrong = [...new Set([...status.notices.filter((one) => !one.info).map((one) => one.text), ...status.trouble])];
  const accounts = all("accounts").filter((one) => one.state === "waiting");
  const submissions = all("submissions").filter((one) => one.state === "held");
  const videos = all("videos").filter((one) => one.state === "held");
  return { wrong, accounts, submissions, videos, more: Math.max(0, status.held - submissions.length - videos.length) };
}

/** How many things wait for a person. */
export function needed() {
  if (!store.status) return 0;
  const { wrong, accounts, submissions, videos, more } = open(store.status);
  return wrong.length + accounts.length + submissions.length + videos.length + more;
}

function needs(status) {
  const { wrong, accounts, submissions, videos, more } = open(status);
  const queued = new Set(status.waiting.map((one) => `place:${one.streamer}`)); // told above and beside it
  const begun = new Map(status.notices.map((one) => [one.text, one.since]));
  const items = [
    ...wrong.map((text) => need(text, "warn", "bad", told(text), begun.has(text) ? ago(begun.get(text)) : "")),
    ...accounts.map((one) => account(one, "bad")),
    ...submissions.map((one) => held("submissions", one, to(`publishing/${one.id}`))),
    ...videos.map((one) => held("videos", one, to(`library/video/${one.id}`))),
  ];
  const notes = [
    ...all("accounts").filter((one) => one.state === "cooling").map((one) => account(one, "warn")),
    ...status.notices.filter((one) => one.info && !queued.has(one.key)).map((one) => need(one.text, "info", "", told(one.text), ago(one.since))),
  ];
  if (more) items.push(need("more", "film", "bad", t("now.more_held", { n: more, count: number(more) }), "", look("library", { state: "held" })));
  const shown = [...items, ...notes];
  const folded = innerWidth < 760 ? FOLDED / 2 : FOLDED;
  if (!shown.length) return h("div", { key: "needs" });
  return h("section", { class: "needs", key: "needs", "aria-labelledby": "needs-you" },
    h("h2", { id: "needs-you", class: "section" }, t(items.length ? "now.needs" : "now.notes"), items.length > 0 && h("span", { class: "count" }, number(items.length))),
    h("ul", { class: "panel rows" }, unfolded ? shown : shown.slice(0, folded),
      shown.length > folded && h("li", { key: "fold" }, h("button", {
        type: "button", class: "fold", "aria-expanded": String(unfolded), onClick: () => ((unfolded = !unfolded), redraw()),
      }, icon("down", 16), unfolded ? t("now.show_less") : t("now.show_all", { n: shown.length })))));
}

const look = (page, query) => h("a", { class: "button small", href: to(page, query) }, t("do.look"));

function account(one, tone) {
  return need(`account ${one.name}`, "accounts", tone, t("now.account", { name: one.name, state: word("account", one.state) }),
    [told(one.reason), told(one.hint)].filter(Boolean).join(" · "), look("accounts"));
}

function need(key, sign, tone, title, text, action) {
  return h("li", { key, class: `need ${tone}` }, icon(sign),
    h("div", { class: "what" }, h("strong", null, title), text && h("small", { class: "muted" }, text)), action);
}

function held(kind, one, address) {
  const name = `${kind} ${one.id}`;
  return need(name, kind === "videos" ? "film" : "publishing", "bad",
    h("a", { class: "plain", href: address }, t(kind === "videos" ? "now.held_video" : "now.held_submission", { title: one.title })),
    told(one.last_error || one.waits_for),
    may("operator") && button({ label: t("do.again"), icon: "retry", small: true, busy: busy(name), onClick: () => retry(kind, one.id) }));
}

// -- one recording

function recording(task) {
  const figures = task.figures;
  const samples = store.bitrates.get(task.id) ?? [];
  const streamer = store.streamers.get(task.streamer_id) ?? streamerOf(task.streamer);
  const slow = figures && figures.speed > 0 && figures.speed < 0.9 && figures.media_seconds > 30;
  const silent = isSilent(task);
  return h(
    "li",
    { key: task.id, class: "card panel" },
    h("div", { class: "card-top" },
      picture(task, silent),
      h("div", { class: "card-main" },
        h("div", { class: "card-head" },
          h("div", { class: "card-title" },
            h("h3", { class: "two-lines", title: task.streamer, dir: "auto" }, task.streamer),
            h("p", { class: "muted two-lines", title: task.title, dir: "auto" }, task.title || t("untitled"))),
          h("div", { class: "card-side" },
            h("time", { class: "elapsed", title: t("now.elapsed") }, clock(elapsed(task))),
            streamer && may("operator") && button({
              label: t("now.stop", { name: task.streamer }), icon: "stop", only: true, small: true,
              busy: busy(`streamer ${streamer.id}`), onClick: () => halt({ ...streamer, task }, "stop"),
            }))),
        h("div", { class: "row-wrap" }, silent && chip("bad", t("now.nothing_comes")), wholeness(figures, task.broadcast_id, silent), figures?.reconnects > 0 &&
          h("small", { class: "muted" }, t("now.reconnects", { n: figures.reconnects, count: number(figures.reconnects) }))),
        sparkline(samples, t("now.graph", { rate: bitrate(figures?.bitrate) })))),
    h("dl", { class: "figures" },
      figure(t("now.bitrate"), figures?.bitrate || silent ? bitrate(figures.bitrate) : "–", silent ? "bad" : ""),
      figure(t("now.size"), bytes(figures?.bytes)),
      figure(t("now.speed"), figures?.speed ? `${number(figures.speed, 2)}×` : "–", slow ? "warn" : ""),
      figure(t("now.length"), clock(figures?.media_seconds))),
  );
}

/** The newest frame; a video that can be played already is a click away. */
function picture(task, silent) {
  const videos = all("videos").filter((one) => one.broadcast_id === task.broadcast_id);
  const growing = videos.find((one) => one.state === "recording" && one.playable);
  const { src, old } = frames.frameOf(task.id);
  const still = videos.find((one) => one.thumbnail)?.thumbnail;
  const stopped = silent || old;
  const place = {
    class: `cover ${stopped ? "stopped" : ""}`, key: growing ? "link" : "plain", mount: (el) => frames.watch(el, task.id), unmount: frames.unwatch,
  };
  const shown = src ? h("img", { key: "newest", class: "newest", src, alt: t(stopped ? "now.frame_last" : "now.frame", { name: task.streamer }), decoding: "sync" })
    : still ? h("img", { key: "still", src: still, alt: "", loading: "lazy" }) : monogram(task.streamer);
  return growing ? h("a", { ...place, href: to(`library/video/${growing.id}`), "aria-label": t("now.play", { name: task.streamer }) }, shown) : h("div", place, shown);
}

/** How whole a recording is; without a gap it is a reward. */
function wholeness(figures, broadcast, silent) {
  if (!figures) return chip("", t("now.starting"));
  if (!figures.gaps) return chip(silent ? "" : "live", t("whole"));
  const share = Math.min(0.999, figures.media_seconds / (figures.media_seconds + figures.lost_seconds || 1));
  const text = t("gaps", { n: figures.gaps, gaps: number(figures.gaps), share: percent(share, 1), span: span(figures.lost_seconds) });
  return h("button", { type: "button", class: `chip press ${share > 0.99 ? "warn" : "bad"}`, onClick: () => showLedger(broadcast) },
    h("i", { class: "dot", "aria-hidden": "true" }), text);
}

/** Stands for a picture that is not there. */
export const monogram = (name) =>
  h("span", { class: `monogram m${[...(name ?? "")].reduce((sum, one) => sum + one.codePointAt(0), 0) % 5}`, "aria-hidden": "true" }, [...(name || "·")][0]);

// -- beside it

const diskTone = (disk) => disk.warning || disk.free < disk.least_free * 1.2 ? "bad"
  : disk.seconds_left !== null && disk.seconds_left < SHORT_OF_DISK_SECONDS ? "warn" : "";

function disk(found) {
  if (!found) return null;
  const tone = diskTone(found);
  return h("section", { class: "panel block", key: "disk" },
    h("h2", null, icon("disk"), t("now.disk")),
    h("p", { class: "lead-figure" }, found.seconds_left === null ? t("now.free", { size: bytes(found.free) }) : t("now.full_in", { span: span(found.seconds_left) })),
    bar(1 - found.free / (found.total || 1), t("now.disk_used"), tone),
    h("p", { class: "between small-text muted" }, h("span", null, t("now.of", { free: bytes(found.free), total: bytes(found.total) })), h("span", { class: "mono path" }, found.directory)),
    found.warning && h("p", { class: "why bad" }, told(found.warning)));
}

function waiting(queue) {
  if (!queue.length) return h("div", { key: "waiting" });
  return h("section", { class: "panel block", key: "waiting" },
    h("h2", null, icon("clock"), t("now.waiting"), h("span", { class: "count" }, number(queue.length))),
    h("ol", { class: "lines" }, queue.map((one) => h("li", { key: one.streamer }, h("span", { class: "grow one-line", title: one.streamer, dir: "auto" }, one.streamer),
      h("small", { class: "muted" }, t("now.priority", { n: one.priority }), " · ", ago(one.since))))));
}

function uploads() {
  const running = all("videos").filter((one) => one.state === "uploading" && one.upload);
  const left = (store.status.videos.ready ?? 0) + (store.status.videos.recorded ?? 0) + (store.status.videos.editing ?? 0);
  return h("section", { class: "panel block", key: "uploads" },
    h("h2", null, icon("publishing"), t("now.uploads"), h("span", { class: "count" }, number(running.length))),
    running.length ? h("ul", { class: "lines" }, running.slice(0, LISTED).map(uploading)) : h("p", { class: "muted" }, t("now.no_upload")),
    left > 0 && h("p", { class: "small-text muted" }, t("now.queued", { n: left, count: number(left) })));
}

function uploading({ id, title, upload }) {
  return h("li", { key: id, class: "stack" },
    h("a", { class: "plain one-line", href: to(`library/video/${id}`) }, title),
    bar(upload.bytes_sent / (upload.bytes_total || 1), t("upload.of", { title })),
    h("p", { class: "between small-text muted" },
      h("span", null, `${percent(upload.bytes_sent / (upload.bytes_total || 1))} · ${rate(upload.bytes_per_second)}`),
      upload.eta_seconds !== null && h("span", null, t("upload.left", { span: span(upload.eta_seconds) }))));
}

function latest() {
  const shown = all("submissions").filter((one) => one.bvid).sort((one, other) => other.since.localeCompare(one.since)).slice(0, LISTED);
  return h("section", { class: "panel block", key: "latest" },
    h("h2", null, icon("check"), t("now.latest")),
    shown.length ? h("ul", { class: "lines" }, shown.map((one) => h("li", { key: one.id },
      h("a", { class: "plain one-line grow", href: to(`publishing/${one.id}`) }, one.title),
      h("small", { class: "muted" }, ago(one.since))))) : h("p", { class: "muted" }, t("now.no_latest")));
}
