/** Log: what the daemon says, as it says it. It stands still while the reader has scrolled up. */

import { h } from "../js/dom.js";
import { number, time } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t } from "../js/i18n.js";
import { redraw, store } from "../js/store.js";
import { button, empty, skeleton, tell } from "../js/ui.js";

const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR"];
const SHOWN = 600;
const AT_THE_END_PX = 40;

let level = "INFO";
let streamer = "";
let words = "";
let stuck = true;
let frozen = null; // the number of the last line when the reader scrolled up

export const log = {
  enter({ query }, fresh) {
    if (fresh) [stuck, frozen] = [true, null];
    if (query.has("streamer")) [streamer, words, level] = [query.get("streamer"), "", "INFO"];
  },
  view() {
    if (!store.known.has("log")) return skeleton(12, "line");
    const names = [...new Set([...[...store.streamers.values()].map((one) => one.name), ...store.log.map((line) => line.streamer)].filter(Boolean))].sort();
    const fitting = store.log.filter(fits);
    const lines = (stuck ? fitting : fitting.filter((line) => line.seq <= frozen)).slice(-SHOWN);
    const later = stuck ? 0 : fitting.filter((line) => line.seq > frozen).length;
    return [
      h("div", { class: "tools" },
        h("select", { "aria-label": t("log.level"), onChange: ({ target }) => choose(() => (level = target.value)) },
          LEVELS.map((name) => h("option", { key: name, value: name, selected: name === level }, t(`log.${name}`)))),
        h("select", { "aria-label": t("log.streamer"), onChange: ({ target }) => choose(() => (streamer = target.value)) },
          h("option", { value: "", selected: !streamer }, t("log.all")), names.map((name) => h("option", { key: name, value: name, selected: name === streamer }, name))),
        h("div", { class: "search" }, icon("search"), h("input", {
          type: "search", "aria-label": t("do.search"), placeholder: t("log.search"), value: words,
          onInput: ({ target }) => choose(() => (words = target.value)),
        })),
        h("span", { class: "grow" }),
        button({ label: t("log.copy"), icon: "copy", onClick: () => copy(lines) })),
      h("div", { class: "panel log-panel" },
        h("div", { class: "log-lines", tabindex: "0", role: "region", "aria-label": t("nav.log"), onScroll: scrolled, mount: toTheEnd },
          lines.length ? h("ol", null, lines.map(line)) : empty("log", t("nothing"), t("log.none"))),
        !stuck && h("div", { class: "resume" }, button({
          label: later ? t("log.resume", { n: later, count: number(later) }) : t("log.end"), icon: "down", kind: "primary", small: true, onClick: resume,
        }))),
      keepAtTheEnd(),
    ];
  },
};

function fits(one) {
  if (LEVELS.indexOf(one.level) < LEVELS.indexOf(level) && LEVELS.includes(one.level)) return false;
  return (!streamer || one.streamer === streamer) && (!words || one.text.toLocaleLowerCase().includes(words.toLocaleLowerCase()));
}

function choose(change) {
  change();
  redraw();
}

const line = (one) => h("li", { key: one.seq, class: one.level.toLowerCase() },
  h("time", { datetime: one.at }, time(one.at)), h("span", { class: "level" }, one.level), one.streamer && h("b", null, one.streamer), h("span", { class: "text" }, one.text));

const place = () => document.querySelector(".log-lines");

function toTheEnd(el) {
  el.scrollTop = el.scrollHeight;
}

/** After each drawing: stay where new lines come. */
function keepAtTheEnd() {
  if (stuck) requestAnimationFrame(() => stuck && place() && toTheEnd(place()));
  return null;
}

function scrolled({ target }) {
  const atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < AT_THE_END_PX;
  if (atEnd === stuck) return;
  stuck = atEnd;
  frozen = store.log.at(-1)?.seq ?? 0;
  redraw();
}

function resume() {
  stuck = true;
  redraw();
  place().focus();
}

function copy(lines) {
  const text = lines.map((one) => `${one.at} ${one.level} ${one.streamer ? `[${one.streamer}] ` : ""}${one.text}`).join("\n");
  navigator.clipboard?.writeText(text).then(() => tell(t("done.copied")), () => tell(t("error.copy"), "bad"));
}
