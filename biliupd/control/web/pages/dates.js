/** Days of the library: all, today, the last few, or some that are chosen. A day is one of the reader's time zone. */

import { h } from "../js/dom.js";
import { present } from "../js/format.js";
import { t } from "../js/i18n.js";

const LAST = { today: 1, week: 7, month: 30 }; // so many days, today included
const EARLIEST = "1970-01-01"; // while a year is being typed it is one of the first centuries
const LATEST = "2199-12-31";

/** The filters of the API for what the address says. */
export function between({ when, from, until }) {
  if (LAST[when]) return { recorded_after: ago(LAST[when] - 1).toISOString() };
  if (when !== "days") return {};
  return { recorded_after: midnight(from)?.toISOString(), recorded_before: midnight(until, 1)?.toISOString() };
}

/** Whether that leaves anything out. */
export const narrows = (chosen) => Object.values(between(chosen)).some(Boolean);

/** The midnight with which a day begins that is so many before today. */
function ago(days) {
  const today = new Date(present());
  return new Date(today.getFullYear(), today.getMonth(), today.getDate() - days);
}

/** The same of a day that is written 2026-01-31, or of one so many later; undefined when it is none. */
function midnight(day, later = 0) {
  const [year, month, date] = /^\d{4}-\d\d-\d\d$/.test(day) ? day.split("-").map(Number) : [];
  if (!(day >= EARLIEST && day <= LATEST) || new Date(year, month - 1, date).getDate() !== date) return undefined;
  return new Date(year, month - 1, date + later);
}

function written(at) {
  const two = (value) => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
}

/** The control. `choose` is called with what the address is to say, and whether it leaves no step to come back to. */
export function dates({ when, from, until }, choose) {
  const option = (value) => h("option", { key: value, value, selected: value === when }, t(`library.when_${value || "any"}`));
  const chosen = (value) => value === "days"
    ? { when: value, from: written(ago((LAST[when] ?? LAST.week) - 1)), until: written(ago(0)) }
    : { when: value, from: "", until: "" };
  return h("div", { class: "dates" },
    h("select", { "aria-label": t("library.when"), onChange: ({ target }) => choose(chosen(target.value)) },
      ["", ...Object.keys(LAST), "days"].map(option)),
    when === "days" && h("div", { class: "days", role: "group", "aria-label": t("library.when") },
      day(t("library.from"), from, (first) => choose({ from: first, until: until && first > until ? first : until }, true)),
      h("span", { "aria-hidden": "true" }, "–"),
      day(t("library.until"), until, (last) => choose({ until: last, from: last && last < from ? last : from }, true))));
}

const day = (label, value, choose) => h("input", {
  type: "date", "aria-label": label, min: EARLIEST, max: LATEST, value,
  onChange: ({ target }) => target.validity.valid && choose(target.value),
});
