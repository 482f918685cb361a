/** Streamers: the rooms that are watched; look, add, change, start, stop, pause, remove. */

import { del, patch, post } from "../js/api.js";
import { h } from "../js/dom.js";
import { ago, number } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t, told } from "../js/i18n.js";
import { formDialog } from "../js/people.js";
import { go, to } from "../js/router.js";
import { all, may, redraw, store } from "../js/store.js";
import { busy, halt, roomChip, start } from "../js/states.js";
import { button, confirm, empty, field, segments, skeleton, tell, tick } from "../js/ui.js";
import { monogram } from "./now.js";

const FILTERS = ["all", "live", "recording", "paused", "trouble"];
const IN = {
  all: () => true,
  live: (one) => one.status === "live",
  recording: (one) => Boolean(one.task),
  paused: (one) => one.mode !== "on",
  trouble: (one) => one.waiting || one.status === "unknown" || one.status === "restricted",
};

let words = "";
let filter = "all";

export const streamers = {
  enter({ query }) {
    if (!query.has("add")) return;
    go(to("streamers"), true);
    if (may("operator")) edit(null);
  },
  view() {
    if (!store.known.has("streamers")) return skeleton(6);
    const rows = all("streamers");
    if (!rows.length) {
      return empty("streamers", t("streamers.none"), t("streamers.none_text"),
        may("operator") && button({ label: t("streamers.add"), icon: "plus", kind: "primary", onClick: () => edit(null) }));
    }
    const wanted = words.toLocaleLowerCase();
    const shown = rows
      .filter((one) => IN[filter](one) && `${one.name} ${one.url} ${one.platform}`.toLocaleLowerCase().includes(wanted))
      .sort((one, other) => weight(one) - weight(other) || other.priority - one.priority || one.name.localeCompare(other.name));
    return [
      h("div", { class: "tools" },
        h("div", { class: "search" }, icon("search"), h("input", {
          type: "search", "aria-label": t("do.search"), placeholder: t("streamers.search"), value: words,
          onInput: (event) => ((words = event.target.value), redraw()),
        })),
        segments({
          label: t("streamers.filter"), value: filter, onChange: (wanted) => ((filter = wanted), redraw()),
          options: FILTERS.map((name) => [name, `${t(`streamers.${name}`)} ${number(rows.filter(IN[name]).length)}`]),
        }),
        h("span", { class: "grow" }),
        may("operator") && button({ label: t("streamers.add"), icon: "plus", kind: "primary", onClick: () => edit(null) })),
      shown.length ? h("ul", { class: "panel rows" }, shown.map(row)) : empty("search", t("nothing"), t("streamers.no_match")),
    ];
  },
};

const weight = (one) => (one.task ? 0 : one.waiting ? 1 : one.status === "live" ? 2 : one.mode === "paused" ? 4 : 3);

function row(one) {
  return h(
    "li",
    { key: one.id, class: "streamer" },
    monogram(one.name),
    h("div", { class: "what" },
      h("p", { class: "name" }, h("strong", { class: "two-lines", dir: "auto" }, one.name), roomChip(one), one.mode === "skipped" && h("small", { class: "muted" }, t("mode.skipped"))),
      h("p", { class: "small-text muted one-line" }, one.task ? h("bdi", null, one.task.title || t("untitled")) : told(one.status_reason),
        one.task && ` · ${ago(one.task.started_at)}`),
      h("p", { class: "small-text facts" },
        h("a", { href: one.url, target: "_blank", rel: "noreferrer noopener", class: "one-line" }, address(one.url)),
        h("span", { class: "muted" }, settingsOf(one)),
        one.source === "yaml" && h("span", { class: "muted", title: `${t("streamers.yaml_text")} (${one.origin})` }, origin(one.origin)))),
    may("operator") && h("div", { class: "acts" }, acts(one)),
  );
}

/** The file's name and the line: the whole path is in the title. */
function origin(text) {
  const [, file, line] = /([^/]+), line (\d+)$/.exec(text) ?? [];
  return file ? `${file}, ${t("settings.line", { line })}` : text || t("streamers.yaml");
}

const address = (url) => url.replace(/^https?:\/\/(www\.)?/, "");

function settingsOf(one) {
  return [
    one.auto_upload ? t(`streamers.publishes_${one.submit_at}`) : t("streamers.keeps"),
    one.priority !== 0 && t("now.priority", { n: one.priority }),
    one.template !== "default" && t("streamers.template_is", { name: one.template }),
    one.account && t("streamers.account_is", { name: one.account }),
  ].filter(Boolean).join(" · ");
}

function acts(one) {
  const working = busy(`streamer ${one.id}`);
  const named = (what) => t("streamers.named", { what: t(`do.${what}`), name: one.name });
  const runs = one.task || (one.mode === "on" && one.status === "live");
  return [
    runs
      ? button({ label: named("stop"), icon: "stop", only: true, small: true, busy: working, onClick: () => halt(one, "stop") })
      : button({ label: named("start"), icon: "play", only: true, small: true, busy: working, onClick: () => start(one) }),
    one.mode !== "paused" && button({ label: named("pause"), icon: "pause", only: true, small: true, disabled: working, onClick: () => halt(one, "pause") }),
    one.source === "api" && button({ label: named("edit"), icon: "edit", only: true, small: true, onClick: () => edit(one) }),
    one.source === "api" && button({ label: named("remove"), icon: "trash", only: true, small: true, kind: "danger", onClick: () => remove(one) }),
  ];
}

function remove(one) {
  confirm({
    title: t("streamers.remove", { name: one.name }), yes: t("do.remove"),
    text: t(one.task ? "streamers.remove_live" : "streamers.remove_text"),
    act: () => del(`/streamers/${one.id}`).then(() => tell(t("done.removed", { name: one.name }))),
  });
}

function edit(one) {
  const value = (name, other = "") => one?.[name] ?? other;
  formDialog({
    title: one ? t("streamers.edit", { name: one.name }) : t("streamers.add"),
    yes: t(one ? "do.save" : "streamers.add"),
    fields: (wrong) => [
      field({ name: "url", label: t("streamers.url"), error: wrong.get("url"), help: t("streamers.url_help"),
        input: { type: "text", required: true, value: value("url"), placeholder: "https://live.bilibili.com/…", inputmode: "url", autocomplete: "off", spellcheck: "false" } }),
      !one && field({ name: "name", label: t("streamers.name"), error: wrong.get("name"), help: t("streamers.name_help"), input: { autocomplete: "off" } }),
      tick("auto_upload", t("streamers.auto_upload"), value("auto_upload", true)),
      field({ name: "submit_at", label: t("streamers.submit_at"), error: wrong.get("submit_at"), input: { value: value("submit_at", "end") },
        options: [["end", t("streamers.at_end")], ["first_part", t("streamers.at_first_part")]] }),
      h("div", { class: "pair" },
        field({ name: "template", label: t("streamers.template"), error: wrong.get("template"), input: { value: value("template", "default") } }),
        field({ name: "account", label: t("streamers.account"), error: wrong.get("account"), input: { value: value("account") },
          options: [["", t("streamers.first_account")], ...accountNames(one).map((name) => [name, name])] })),
      h("div", { class: "pair" },
        field({ name: "priority", label: t("streamers.priority"), error: wrong.get("priority"), help: t("streamers.priority_help"),
          input: { type: "number", min: -1000, max: 1000, step: 1, value: value("priority", 0) } }),
        field({ name: "check_interval", label: t("streamers.interval"), error: wrong.get("check_interval"), help: t("streamers.interval_help"),
          input: { type: "number", min: 1, max: 86400, value: one ? one.check_interval : "" } })),
    ],
    send: (form) => {
      const body = { ...form, url: pasted(form.url), name: form.name || null, account: form.account || null, priority: Number(form.priority) || 0,
        template: form.template || "default", check_interval: form.check_interval ? Number(form.check_interval) : null };
      if (!one) return post("/streamers", body);
      const { name, ...rest } = body;
      return patch(`/streamers/${one.id}`, rest);
    },
    done: (made) => tell(t(one ? "done.saved" : "done.added", { name: made?.name ?? one?.name })),
  });
}

/** Apps share an address with words around it: 【title】 https://… 复制此链接. */
const pasted = (text) => /(?:^|[^+\w])(https?:\/\/[^\s，。）】]+)/i.exec(text)?.[1] ?? text;

const accountNames = (one) => [...new Set([...store.accounts.keys(), ...(one?.account ? [one.account] : [])])];
