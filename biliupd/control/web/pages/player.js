/**
 * Plays a video: a file that the browser reads goes to it as it is; anything else comes as a stream that begins where
 * the reader wants, with a seek bar of our own, because a stream has no end the browser could know. A browser that does
 * not play what has no end is fed.
 */

import { h } from "../js/dom.js";
import { canFeed, feed } from "../js/feed.js";
import { clock } from "../js/format.js";
import { t } from "../js/i18n.js";
import { redraw } from "../js/store.js";
import { button, empty } from "../js/ui.js";

const KNOWN = { h264: "avc1.640028", hevc: "hvc1.1.6.L120.90", av1: "av01.0.08M.08", aac: "mp4a.40.2", mp3: "mp3", opus: "opus" };

const plays = new Map(); // by video, while its panel is open: {way, from, at, began, aim}; way: file, stream, fed or none

function playOf(video) {
  if (!plays.has(video.id)) plays.set(video.id, { way: first(video), from: 0, at: 0, began: false, aim: null });
  return plays.get(video.id);
}

function first(video) {
  if (video.state !== "recording" && /\.(mp4|m4v|webm)$/i.test(video.path) && canRead(video)) return "file";
  return video.playable ? "stream" : "none";
}

function canRead({ video_codec: picture, audio_codec: sound, path }) {
  if (/\.webm$/i.test(path)) return true;
  const codecs = [picture, sound].filter(Boolean).map((name) => KNOWN[name] ?? name);
  const type = `video/mp4${codecs.length ? `; codecs="${codecs.join(", ")}"` : ""}`;
  return document.createElement("video").canPlayType(type) !== "";
}

/** The player of a video. */
export function player(video) {
  const play = playOf(video);
  if (play.way === "none") {
    return h("div", { class: "player", key: "none", },
      empty("film", t("play.cannot"), t("play.cannot_text"), h("a", { class: "button", href: `/api/videos/${video.id}/file?download=true`, download: "" }, t("video.download"))));
  }
  const address = play.began ? `/api/videos/${video.id}/play?from=${play.from.toFixed(1)}` : null;
  const file = play.way === "file";
  const fed = play.way === "fed" && address;
  return h("div", { class: "player", key: play.way },
    h("video", {
      key: fed || "", controls: file, playsinline: true, preload: file ? "metadata" : "none",
      src: file ? `/api/videos/${video.id}/file` : play.way === "stream" ? address : null,
      poster: video.thumbnail, "aria-label": video.title, autoplay: play.began,
      mount: (el) => fed && begin(el, fed, video, play), unmount: stop,
      onError: () => failed(video, play),
      onTimeupdate: ({ target }) => !file && ((play.at = play.from + target.currentTime), redraw()),
      onPlay: redraw, onPause: redraw,
    }),
    !file && controls(video, play));
}

const feeding = new WeakMap(); // by element: what ends it

function begin(element, address, video, play) {
  const end = new AbortController();
  feeding.set(element, end);
  feed(element, address, end.signal).catch(() => end.signal.aborted || failed(video, play));
}

function stop(element) {
  feeding.get(element)?.abort();
  element.removeAttribute("src");
  element.load(); // ends the request, and with it the work at the other end
}

function failed(video, play) {
  if (play.way !== "file" && !play.began) return;
  play.way = play.way === "file" ? (video.playable ? "stream" : "none") : play.way === "stream" && canFeed ? "fed" : "none";
  play.began &&= play.way === "fed";
  redraw();
}

function controls(video, play) {
  const element = () => document.querySelector(".player video");
  const running = play.began && element() && !element().paused;
  const whole = Math.max(video.duration ?? 0, play.at);
  const at = play.aim ?? play.at; // where the reader drags to, before letting go
  const from = (seconds) => {
    Object.assign(play, { from: seconds, at: seconds, began: true, aim: null });
    redraw();
  };
  return h("div", { class: "controls" },
    button({
      icon: running ? "pause" : "play", label: t(running ? "play.pause" : "play.play"), only: true, small: true, kind: "quiet",
      onClick: () => (!play.began ? from(0) : running ? element().pause() : element().play()),
    }),
    h("span", { class: "number" }, clock(at)),
    h("input", {
      type: "range", min: 0, max: Math.ceil(whole) || 1, step: 1, value: Math.round(at), "aria-label": t("play.seek"),
      "aria-valuetext": clock(at),
      onInput: ({ target }) => ((play.aim = Number(target.value)), redraw()), onChange: ({ target }) => from(Number(target.value)),
    }),
    h("span", { class: "number muted" }, video.duration ? clock(video.duration) : t("play.unknown")),
    button({ icon: "expand", label: t("play.full"), only: true, small: true, kind: "quiet", onClick: () => element().parentElement.requestFullscreen?.() }));
}

/** The panel of a video was closed: next time it begins anew. */
export const endPlay = (id) => plays.delete(id);
