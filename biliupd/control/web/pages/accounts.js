/** Accounts of Bilibili: whether they may submit, until when, and the login by QR code. */

import { get } from "../js/api.js";
import { h } from "../js/dom.js";
import { ago, moment, present } from "../js/format.js";
import { icon } from "../js/icons.js";
import { t, told } from "../js/i18n.js";
import { all, may, redraw, store } from "../js/store.js";
import { accountChip, busy, retry } from "../js/states.js";
import { button, dialog, empty, figure, problem, skeleton, tell } from "../js/ui.js";

const POLL_MS = 2000;
const SOON_SECONDS = 7 * 86400;

export const accounts = {
  view() {
    if (!store.known.has("accounts")) return skeleton(2, "card");
    const rows = all("accounts").sort((one, other) => one.name.localeCompare(other.name));
    if (!rows.length) return empty("accounts", t("accounts.none"), t("accounts.none_text"));
    return h("ul", { class: "cards" }, rows.map(card));
  },
};

function card(one) {
  const left = one.expires_at ? (Date.parse(one.expires_at) - present()) / 1000 : null;
  return h(
    "li",
    { key: one.name, class: "panel card account" },
    h("div", { class: "card-head" },
      h("span", { class: "avatar" }, icon("accounts", 24)),
      h("div", { class: "card-title" }, h("h2", null, one.name),
        h("p", { class: "muted" }, one.uname || t("accounts.nobody"), one.mid && h("span", { class: "mono" }, ` UID ${one.mid}`))),
      accountChip(one)),
    one.reason && h("p", { class: `why ${one.state === "waiting" ? "bad" : ""}` }, told(one.reason)),
    one.hint && h("p", { class: "small-text muted" }, told(one.hint)),
    h("dl", { class: "figures" },
      figure(t("accounts.valid"), one.expires_at ? moment(one.expires_at) : "–", left === null ? "" : left < 0 ? "bad" : left < SOON_SECONDS ? "warn" : ""),
      figure(t("accounts.checked"), one.checked_at ? ago(one.checked_at) : "–"),
      one.retry_at && figure(t("accounts.again"), ago(one.retry_at))),
    h("div", { class: "row-wrap" },
      may("admin") && button({ label: t("accounts.login"), icon: "qr", kind: one.state === "waiting" ? "primary" : "", onClick: () => login(one.name) }),
      may("operator") && ["waiting", "cooling"].includes(one.state) &&
        button({ label: t("accounts.retry"), icon: "retry", busy: busy(`accounts ${one.name}`), onClick: () => retry("accounts", one.name) })),
  );
}

/** The QR code in a dialog; it is asked every two seconds how it stands. */
function login(name) {
  let [code, error, timer, over] = [null, null, 0, false];

  const take = async (path, query) => {
    clearTimeout(timer);
    try {
      const found = await get(path, query);
      if (over) return;
      [code, error] = [found, null];
      if (code.state === "waiting") timer = setTimeout(() => take(`/qrcode/${encodeURIComponent(code.id)}`), POLL_MS);
      if (code.state === "confirmed") tell(t("accounts.confirmed", { name }));
    } catch (failure) {
      if (over) return;
      error = failure;
      const passes = failure.status === 0 || failure.status >= 500; // the code may be scanned meanwhile
      if (code && passes) timer = setTimeout(() => take(path), POLL_MS);
    }
    redraw();
  };
  const fresh = () => {
    [code, error] = [null, null];
    redraw();
    take("/qrcode", { account: name });
  };

  fresh();
  dialog((close) => ({
    title: t("accounts.login_of", { name }),
    body: [problem(error, fresh), h("div", { class: "qr", "aria-live": "polite" }, picture(code, error), steps(code))],
    actions: [
      code?.state === "expired" && button({ label: t("accounts.new_code"), icon: "retry", kind: "primary", onClick: fresh }),
      button({ label: t(code?.state === "confirmed" ? "do.close" : "do.cancel"), kind: "quiet", onClick: close }),
    ],
  }), () => {
    over = true;
    clearTimeout(timer);
  });
}

function picture(code, error) {
  if (!code) return error ? null : h("div", { class: "skeleton square", role: "status", "aria-label": t("load") });
  return h("div", { class: `code-place ${code.state}` },
    h("img", { src: code.image, alt: t("accounts.code"), width: 220, height: 220 }),
    code.state !== "waiting" && h("span", { class: `over ${code.state}` }, icon(code.state === "confirmed" ? "check" : "clock", 44)));
}

function steps(code) {
  if (!code) return null;
  if (code.state === "confirmed") return h("p", { class: "strong" }, t("accounts.done"), code.detail && h("small", { class: "muted" }, ` ${told(code.detail)}`));
  if (code.state === "expired") return h("p", { class: "strong" }, t("accounts.expired"));
  return h("div", null, h("p", null, t("accounts.scan")), h("p", { class: "small-text here" }, h("a", { href: code.url, target: "_blank", rel: "noreferrer noopener" }, t("accounts.here"))),
    code.detail && h("p", { class: "small-text muted" }, told(code.detail)),
    h("p", { class: "small-text muted" }, t("accounts.until", { when: ago(code.expires_at) })));
}
