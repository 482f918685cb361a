/** Settings: the configuration in force, each value with where it came from. To look at, not to change. */

import { get } from "../js/api.js";
import { h } from "../js/dom.js";
import { icon } from "../js/icons.js";
import { bytes, number, span } from "../js/format.js";
import { has, lang, t, told as said } from "../js/i18n.js";
import { redraw } from "../js/store.js";
import { button, empty, problem, skeleton, tick } from "../js/ui.js";

let found = null;
let error = null;
let words = "";
let onlyChanged = false;
let chinese = null;

async function load() {
  try {
    [found, error] = [await get("/settings"), null];
  } catch (failure) {
    error = failure;
  }
  redraw();
}

export const settings = {
  enter: (_, fresh) => fresh && load(),
  view() {
    if (error) return problem(error, load);
    if (!found) return skeleton(8);
    const wanted = words.toLocaleLowerCase();
    const shown = found.settings.filter((one) => (!onlyChanged || one.source !== "default") &&
      `${one.key} ${meaning(one)} ${told(one.value)}`.toLocaleLowerCase().includes(wanted));
    const sections = grouped(shown);
    return [
      found.refused.length > 0 && h("section", { class: "problem", role: "alert" }, icon("warn"),
        h("div", null, h("strong", null, t("settings.refused")), h("ul", null, found.refused.map((text, place) => h("li", { key: place }, said(text)))))),
      h("p", { class: "muted" }, t("settings.lead"), " ", h("span", { class: "mono path" }, found.file)),
      h("div", { class: "tools" },
        h("div", { class: "search" }, icon("search"), h("input", {
          type: "search", "aria-label": t("do.search"), placeholder: t("settings.search"), value: words,
          onInput: ({ target }) => ((words = target.value), redraw()),
        })),
        tick("changed", t("settings.changed"), onlyChanged, { onChange: ({ target }) => ((onlyChanged = target.checked), redraw()) }),
        h("span", { class: "grow" }),
        h("span", { class: "muted number" }, t("settings.count", { n: shown.length, count: number(shown.length) })),
        button({ label: t("settings.reload"), icon: "retry", only: true, onClick: load })),
      shown.length ? [...sections].map(([name, rows]) => section(name, rows)) : empty("search", t("nothing"), t("settings.none")),
    ];
  },
};

const sectionOf = (one) => one.key.split(/[.[]/)[0];

function grouped(rows) {
  const found = new Map();
  for (const row of rows) found.set(sectionOf(row), [...(found.get(sectionOf(row)) ?? []), row]);
  return found;
}

function section(name, rows) {
  const title = has(`settings.in.${name}`) ? t(`settings.in.${name}`) : name;
  return h("section", { key: name, class: "panel setting-section", "aria-labelledby": `section-${name}` },
    h("h2", { id: `section-${name}` }, title, h("span", { class: "mono muted" }, name)),
    h("dl", null, rows.map((one) => h("div", { key: one.key, class: `setting ${one.source}` },
      h("dt", null, h("code", null, one.key), h("small", { class: "muted" }, meaning(one))),
      h("dd", null, h("code", { class: "value" }, told(one.value), h("span", { class: "muted" }, inWords(one))), h("small", { class: one.source === "default" ? "muted" : "from" }, origin(one)))))));
}

/** What a setting means, in the reader's language where that is known. */
function meaning({ key, description }) {
  if (lang() === "zh") learn();
  const kind = key.replace(/\[\d+\]/g, "[]").replace(/^(templates|accounts)\..+?\.(?=[^.]+$)/, "$1.*.");
  return (lang() === "zh" && chinese?.[kind]) || description;
}

/** The Chinese descriptions are long and for this page only: they come when they are wanted. */
function learn() {
  if (chinese) return;
  chinese = {};
  import("../i18n/settings.zh.js").then((module) => ((chinese = module.default), redraw()));
}

function told(value) {
  if (value === null || value === "") return t("settings.empty");
  if (typeof value === "object") return Array.isArray(value) && !value.length ? "[]" : JSON.stringify(value, null, 1).replace(/\n\s*/g, " ");
  return String(value);
}

/** A number of bytes or seconds as people read it. */
function inWords({ key, value }) {
  if (typeof value !== "number") return "";
  if (/(size|bandwidth|free)$/.test(key) && value >= 1024) return `  ${bytes(value)}`;
  return /(seconds|interval)$/.test(key) && value >= 120 ? `  ${span(value)}` : "";
}

function origin({ source, line }) {
  if (source === "file") return line === null ? t("settings.file") : t("settings.line", { line });
  return t(`settings.${source}`);
}
