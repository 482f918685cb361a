/** What of a broadcast is recorded and what is missing, where and why. */

import { get } from "../js/api.js";
import { h } from "../js/dom.js";
import { clock, moment, number, percent, present, span, time } from "../js/format.js";
import { t, told, word } from "../js/i18n.js";
import { to } from "../js/router.js";
import { all, redraw } from "../js/store.js";
import { dialog, figure, problem, skeleton } from "../js/ui.js";

/** The ledger of a broadcast in a dialog. */
export function showLedger(id) {
  let [found, error, gaps] = [null, null, running(id)?.figures?.gaps];
  const load = async () => {
    try {
      [found, error] = [await get(`/broadcasts/${encodeURIComponent(id)}/ledger`), null];
    } catch (failure) {
      error = failure;
    }
    redraw();
  };
  load();
  dialog(() => {
    const now = running(id)?.figures?.gaps;
    if (now !== gaps) { // another gap, or its end: there is more to tell
      gaps = now;
      load();
    }
    return {
      title: found?.broadcast.title || t("ledger.title"), wide: true,
      body: [problem(error, load), !found && !error && skeleton(3), found && timeline(found)],
    };
  });
}

/** The recorder that writes it now; its sums are those of this moment, the catalog's come when it has ended. */
const running = (id) => all("tasks").find((task) => task.broadcast_id === id && task.status === "recording");

function summed(broadcast) {
  const now = running(broadcast.id)?.figures;
  if (!now) return broadcast;
  const { media_seconds: media, lost_seconds: lost, live_seconds: live, gaps, files } = now;
  return { ...broadcast, media_seconds: media, lost_seconds: lost, live_seconds: live, gaps, files, share: media / (media + lost || 1) };
}

/** The show as a bar with its losses where they are, its sums, and every row in words. */
export function timeline({ broadcast: written, rows }) {
  const broadcast = summed(written);
  const begin = Date.parse(broadcast.first_media_at ?? broadcast.started_at);
  const end = Math.max(Date.parse(broadcast.last_media_at ?? broadcast.ended_at ?? "") || present(), begin + 1000);
  const place = (at) => Math.min(100, Math.max(0, ((Date.parse(at) - begin) / (end - begin)) * 100));
  const lost = rows.filter((row) => row.loss && row.seconds > 0);
  return h("section", { class: "ledger", "aria-labelledby": "ledger" },
    h("div", { class: "between" }, h("h3", { id: "ledger" }, t("ledger.title")), verdict(broadcast)),
    h("div", { class: "show", role: "img", "aria-label": t("ledger.bar", { n: lost.length, count: number(lost.length), span: span(broadcast.lost_seconds) }) },
      rows.map((row, number) => {
        const width = row.seconds > 0 ? (row.seconds * 100000) / (end - begin) : 0;
        const kind = row.loss && row.seconds > 0 ? "loss" : row.cause === "offline" ? "off" : "mark";
        const right = kind === "mark" ? place(row.at) : Math.max(width, place(row.at)); // a row is written when its gap is over
        return h("i", { key: number, class: kind, title: `${time(row.at)} ${cause(row)}`, style: { left: `${Math.max(0, right - width)}%`, width: kind === "mark" ? "1px" : `${width}%` } });
      })),
    h("p", { class: "between small-text muted" }, h("time", null, moment(new Date(begin).toISOString())),
      h("time", null, broadcast.ended_at ? moment(new Date(end).toISOString()) : t("ledger.runs"))),
    h("dl", { class: "figures" }, figure(t("ledger.live"), clock(broadcast.live_seconds)), figure(t("ledger.recorded"), clock(broadcast.media_seconds)),
      figure(t("ledger.lost"), span(broadcast.lost_seconds), broadcast.gaps ? "bad" : "good"), figure(t("ledger.files"), number(broadcast.files))),
    broadcast.gaps > lost.length && h("p", { class: "small-text" }, t("ledger.later"), " ", h("a", { href: to("log", { streamer: broadcast.streamer }) }, t("ledger.log"))),
    rows.length > 0 && h("details", { open: lost.length > 0 && rows.length < 12 }, h("summary", null, t("ledger.rows", { n: rows.length, count: number(rows.length) })),
      h("div", { class: "scroll", tabindex: "0" }, h("table", { class: "list" },
        h("thead", null, h("tr", null, ["when", "what", "long", "where"].map((name) => h("th", { key: name, scope: "col" }, t(`ledger.${name}`))))),
        h("tbody", null, rows.map((row, number) => h("tr", { key: number, class: row.loss && row.seconds > 0 ? "loss" : "" },
          h("td", null, time(row.at)), h("td", null, cause(row), row.detail && h("small", { class: "muted" }, ` ${told(row.detail)}`)),
          h("td", { class: "number" }, row.seconds > 0 ? span(row.seconds) : ""),
          h("td", { class: "mono path" }, row.file ? `${row.file} ${clock(row.media_seconds_at)}` : t("ledger.between")))))))));
}

const cause = (row) => word("cause", row.cause);

function verdict({ gaps, share, lost_seconds: lost }) {
  if (!gaps) return h("span", { class: "chip good" }, h("i", { class: "dot", "aria-hidden": "true" }), t("whole"));
  return h("span", { class: "chip bad" }, h("i", { class: "dot", "aria-hidden": "true" }),
    t("gaps", { n: gaps, gaps: number(gaps), share: percent(Math.min(0.999, share), 1), span: span(lost) }));
}
