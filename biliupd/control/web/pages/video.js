/** One video in a panel: play it, what it is, why it is where it is, what can be done, and its broadcast's ledger. */

import { get, post, put } from "../js/api.js";
import { h } from "../js/dom.js";
import { ago, bitrate, bytes, clock, moment, number, percent, rate, span } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t, told } from "../js/i18n.js";
import { to } from "../js/router.js";
import { listen, may, redraw, store } from "../js/store.js";
import { act, busy, retry, videoChip, why } from "../js/states.js";
import { bar, button, bvLink, dialog, figure, problem, skeleton } from "../js/ui.js";
import { timeline } from "./ledger.js";
import { endPlay, player } from "./player.js";
import { showPreview } from "./preview.js";

let shown = null; // {id, video, ledger, error, close}

/** Open the panel of a video; `closed` is called when the reader closes it. */
export function openVideo(id, closed) {
  if (shown?.id === id) return;
  closeVideo();
  const own = { id, video: store.videos.get(id) ?? null, ledger: null, error: null };
  shown = own;
  own.close = dialog(() => panel(own), () => {
    endPlay(id);
    if (shown !== own) return;
    shown = null;
    closed();
  }, true);
  load(own);
}

/** Close it without a word. */
export function closeVideo() {
  const own = shown;
  shown = null;
  own?.close();
}

async function load(own) {
  try {
    own.video = await get(`/videos/${own.id}`);
    own.error = null;
    redraw();
    if (own.video.broadcast_id) own.ledger = await get(`/broadcasts/${encodeURIComponent(own.video.broadcast_id)}/ledger`);
  } catch (error) {
    own.error = error;
  }
  redraw();
}

listen((topic, rows) => {
  const row = shown && topic === "videos" && rows.find((one) => one.id === shown.id);
  if (!row) return;
  const before = shown.video?.state;
  shown.video = row;
  if (before !== row.state) load(shown); // its broadcast may be over: then there is a ledger
});

function panel(own) {
  const { video, error, ledger } = own;
  if (!video) return { title: t("video.title"), side: true, body: error ? problem(error, () => load(own)) : skeleton(3, "card") };
  return {
    title: video.title, side: true,
    body: [
      problem(error, () => load(own)),
      video.removed_at ? h("p", { class: "note" }, t("video.removed", { when: moment(video.removed_at) })) : player(video),
      h("div", { class: "row-wrap" }, videoChip(video),
        video.bvid && bvLink(video.bvid),
        h("span", { class: "muted small-text" }, ago(video.since))),
      why(video),
      uploadOf(video),
      acts(own, video),
      facts(video),
      video.gaps.length > 0 && h("section", null, h("h3", null, t("video.left_out")), h("ul", { class: "lines" }, video.gaps.map(leftOut))),
      ledger && timeline(ledger),
    ],
  };
}

function uploadOf({ title, upload, state }) {
  if (!upload || state !== "uploading") return null;
  const share = upload.bytes_sent / (upload.bytes_total || 1);
  return h("div", { class: "stack" }, bar(share, t("upload.of", { title })),
    h("p", { class: "between small-text muted" },
      h("span", null, `${percent(share)} · ${bytes(upload.bytes_sent)} / ${bytes(upload.bytes_total)} · ${rate(upload.bytes_per_second)}`),
      upload.eta_seconds !== null && h("span", null, t("upload.left", { span: span(upload.eta_seconds) }))));
}

function acts(own, video) {
  const name = `videos ${video.id}`;
  const known = (answer) => answer && ((own.video = answer), redraw());
  const operator = may("operator");
  const stuck = video.state === "held" || video.state === "ignored";
  const open = ["recorded", "ready", "missing", "ignored"].includes(video.state) && !video.submission_id;
  return h("div", { class: "row-wrap" },
    operator && stuck && button({ label: t("do.again"), icon: "retry", kind: "primary", busy: busy(name), onClick: () => retry("videos", video.id).then(known) }),
    operator && open && button({
      label: t("video.publish"), icon: "publishing", busy: busy(`upload ${name}`),
      onClick: () => act(`upload ${name}`, () => post(`/videos/${video.id}/upload`), t("video.asked")).then(known),
    }),
    operator && button({
      label: t(video.pinned ? "video.unpin" : "video.pin"), icon: "pin", "aria-pressed": String(video.pinned), title: t("video.pin_text"),
      busy: busy(`pin ${name}`), onClick: () => act(`pin ${name}`, () => put(`/videos/${video.id}/pin`, { pinned: !video.pinned })).then(known),
    }),
    video.state !== "recording" && button({ label: t("video.preview"), icon: "eye", onClick: () => showPreview(`/videos/${video.id}/preview`, video.title) }),
    !video.removed_at && h("a", { class: "button", href: `/api/videos/${video.id}/file?download=true`, download: "" }, icon("download"), t("video.download")),
    video.submission_id && h("a", { class: "button", href: to(`publishing/${video.submission_id}`) }, icon("publishing"), t("video.submission")));
}

function facts(video) {
  const codecs = [video.video_codec, video.audio_codec].filter(Boolean).join(" + ");
  return h("dl", { class: "facts-list" },
    figure(t("video.streamer"), video.streamer ?? t("video.dropped")),
    figure(t("video.length"), video.duration === null ? "–" : clock(video.duration)),
    figure(t("video.size"), bytes(video.file_size)),
    figure(t("video.picture"), video.width ? `${video.width} × ${video.height}` : "–"),
    figure(t("video.codecs"), codecs || "–"),
    figure(t("video.bitrate"), video.bitrate ? bitrate(video.bitrate) : "–"),
    figure(t("video.recorded"), moment(video.recorded_at)),
    figure(t("video.added"), moment(video.created_at)),
    figure(t("video.uploaded"), moment(video.uploaded_at) || "–"),
    video.attempts > 0 && figure(t("video.attempts"), number(video.attempts)),
    h("div", { class: "figure whole-line" }, h("dt", null, t("video.file")), h("dd", { class: "mono path" }, `${video.root}/${video.path}`)));
}

function leftOut(gap, place) {
  if (typeof gap !== "object" || gap === null) return h("li", { key: place }, told(String(gap)));
  const { at_seconds: at, seconds, cause: reason, segment } = gap;
  return h("li", { key: place }, h("span", { class: "number" }, clock(at)), h("span", { class: "grow" }, told(reason), segment && h("small", { class: "muted mono" }, ` ${segment}`)),
    typeof seconds === "number" && h("span", { class: "muted" }, span(seconds)));
}
