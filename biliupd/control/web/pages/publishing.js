/** Publishing: every submission on its way to Bilibili and those that have arrived. */

import { get } from "../js/api.js";
import { h } from "../js/dom.js";
import { ago, bytes, moment, number, percent, rate, span } from "../js/format.js";
import { t, told as said } from "../js/i18n.js";
import { go, route, to } from "../js/router.js";
import { all, listen, may, redraw, store } from "../js/store.js";
import { busy, retry, stageChip, videoChip, why } from "../js/states.js";
import { bar, button, bvLink, dialog, empty, figure, problem, segments, skeleton } from "../js/ui.js";
import { showPreview } from "./preview.js";

const PAGE = 50;
const FILTERS = {
  all: () => true,
  work: (one) => !["published", "held"].includes(one.state),
  held: (one) => one.state === "held",
  published: (one) => one.state === "published",
};
const ORDER = { held: 0, submitting: 1, appending: 1, collecting: 2, submitted: 3, published: 4 };

let filter = "all";
let older = new Map(); // what was asked for beyond what is live
let total = null;
let error = null;
let busyOlder = false;
let shown = null;

export const publishing = {
  enter({ rest }, fresh) {
    if (fresh) [older, total, error] = [new Map(), null, null];
    if (rest[0]) open(Number(rest[0]));
    else shown?.close();
  },
  leave() {
    shown?.close();
  },
  view() {
    if (!store.known.has("submissions")) return skeleton(5);
    const rows = [...new Map([...older, ...store.submissions]).values()];
    if (!rows.length) return empty("publishing", t("publishing.none"), t("publishing.none_text"));
    const listed = rows.filter(FILTERS[filter]).sort((one, other) => ORDER[one.state] - ORDER[other.state] || other.id - one.id);
    return [
      h("div", { class: "tools" }, segments({
        label: t("publishing.filter"), value: filter, onChange: (wanted) => ((filter = wanted), redraw()),
        options: Object.keys(FILTERS).map((name) => [name, label(name, rows)]),
      })),
      listed.length ? h("ul", { class: "panel rows" }, listed.map(row)) : empty("check", t(`publishing.no_${filter}`)),
      problem(error, more),
      (total === null ? rows.length >= PAGE : rows.length < total) &&
        h("p", { class: "centred" }, button({ label: t("publishing.older"), busy: busyOlder, onClick: more })),
    ];
  },
};

function label(name, rows) {
  const counts = store.status?.submissions ?? {};
  const work = Object.entries(counts).reduce((sum, [state, count]) => sum + (FILTERS.work({ state }) ? count : 0), 0);
  const count = { all: null, work, held: counts.held ?? 0, published: counts.published ?? rows.filter(FILTERS.published).length }[name];
  return count === null ? t("publishing.all") : `${t(`publishing.${name}`)} ${number(count)}`;
}

async function more() {
  busyOlder = true;
  redraw();
  try {
    const answer = await get("/submissions", { limit: PAGE, offset: PAGE + older.size });
    older = new Map([...older, ...answer.items.map((one) => [one.id, one])]);
    [total, error] = [answer.total, null];
  } catch (failure) {
    error = failure;
  }
  busyOlder = false;
  redraw();
}

/** How fast its parts go up now: {speed, left}. */
function pace(submission) {
  const going = all("videos").filter((video) => video.submission_id === submission.id && video.state === "uploading" && video.upload);
  const speed = going.reduce((sum, video) => sum + video.upload.bytes_per_second, 0);
  const rest = submission.bytes_total - submission.bytes_sent;
  return { speed, left: speed > 0 ? rest / speed : null };
}

function row(one) {
  const moving = one.state === "collecting" && one.bytes_sent > 0 && one.bytes_sent < one.bytes_total;
  return h(
    "li",
    { key: one.id, class: "submission" },
    h("div", { class: "what" },
      h("p", { class: "name" }, h("a", { class: "plain strong", href: to(`publishing/${one.id}`) }, one.title || t("untitled")), stageChip(one)),
      h("p", { class: "small-text muted" }, told(one), " · ", h("time", { title: moment(one.since) }, ago(one.since))),
      moving && progress(one),
      one.review && one.state !== "published" && h("p", { class: "small-text" }, `${t("publishing.review")}: ${said(one.review)}`),
      why(one)),
    h("div", { class: "acts" },
      one.bvid && bvLink(one.bvid),
      one.state === "held" && may("operator") &&
        button({ label: t("do.again"), icon: "retry", small: true, busy: busy(`submissions ${one.id}`), onClick: () => retry("submissions", one.id) }),
      button({ label: t("publishing.preview", { title: one.title }), icon: "eye", only: true, small: true, kind: "quiet",
        onClick: () => showPreview(`/submissions/${one.id}/preview`, one.title) })),
  );
}

const told = (one) => [
  one.streamer ?? t("video.dropped"),
  t("publishing.parts", { n: one.parts, done: number(one.parts_uploaded), count: number(one.parts) }),
  bytes(one.bytes_total), one.account,
].filter(Boolean).join(" · ");

function progress(one) {
  const { speed, left } = pace(one);
  const share = one.bytes_sent / (one.bytes_total || 1);
  return h("div", { class: "stack progress" }, bar(share, t("upload.of", { title: one.title })),
    h("p", { class: "between small-text muted" },
      h("span", null, `${percent(share)} · ${bytes(one.bytes_sent)} / ${bytes(one.bytes_total)}`, speed > 0 && ` · ${rate(speed)}`),
      left !== null && h("span", null, t("upload.left", { span: span(left) }))));
}

// -- one of them

function open(id) {
  if (shown?.id === id) return;
  shown?.close();
  const own = { id, detail: null, error: null };
  shown = own;
  const close = dialog(() => panel(own), () => {
    if (shown !== own) return;
    shown = null;
    if (route().page === "publishing" && route().rest[0] === String(id)) go(to("publishing"));
  }, true);
  own.close = () => {
    shown = null;
    close();
  };
  own.load = () => get(`/submissions/${id}`).then((detail) => Object.assign(own, { detail, error: null }), (failure) => (own.error = failure)).then(redraw);
  own.load();
}

let stale = 0;
listen((topic, rows) => {
  if (!shown) return;
  const touched = (topic === "submissions" && rows.some((one) => one.id === shown.id)) ||
    (topic === "videos" && rows.some((one) => one.submission_id === shown.id));
  if (!touched) return;
  clearTimeout(stale);
  stale = setTimeout(() => shown?.load(), 500);
});

function panel(own) {
  const { detail, error: failed } = own;
  if (!detail) return { title: t("publishing.one"), side: true, body: failed ? problem(failed, own.load) : skeleton(3) };
  const one = { ...detail, ...store.submissions.get(own.id), videos: detail.videos };
  return {
    title: one.title || t("untitled"), side: true,
    body: [
      problem(failed, own.load),
      h("div", { class: "row-wrap" }, stageChip(one), one.bvid && bvLink(one.bvid), h("span", { class: "muted small-text" }, ago(one.since))),
      why(one),
      one.bytes_sent > 0 && one.bytes_sent < one.bytes_total && progress(one),
      h("div", { class: "row-wrap" },
        one.state === "held" && may("operator") &&
          button({ label: t("do.again"), icon: "retry", kind: "primary", busy: busy(`submissions ${one.id}`), onClick: () => retry("submissions", one.id) }),
        button({ label: t("video.preview"), icon: "eye", onClick: () => showPreview(`/submissions/${one.id}/preview`, one.title) })),
      h("dl", { class: "facts-list" },
        figure(t("video.streamer"), one.streamer ?? t("video.dropped")),
        figure(t("preview.account"), one.account ?? "–"),
        figure(t("video.size"), bytes(one.bytes_total)),
        figure(t("publishing.review"), one.review || "–"),
        figure(t("video.created"), moment(one.created_at)),
        one.attempts > 0 && figure(t("video.attempts"), number(one.attempts))),
      h("section", null, h("h3", null, t("publishing.its_parts")),
        h("ol", { class: "lines numbered" }, one.videos.map((video) => h("li", { key: video.id },
          h("a", { class: "plain grow", href: to(`library/video/${video.id}`) }, video.title), h("small", { class: "muted" }, bytes(video.file_size)), videoChip(video))))),
    ],
  };
}
