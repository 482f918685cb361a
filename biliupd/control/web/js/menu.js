/** The menu of whoever is logged in: looks, language, password, sessions, users, the way out. */

import { post } from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { lang, setLanguage, t } from "./i18n.js";
import { may, redraw, store } from "./store.js";
import { changePassword, showSessions, showUsers } from "./people.js";
import { segments } from "./ui.js";

const THEME = "biliupd.theme";

let open = false;

/** The button and what it opens; `leave` is called after a logout. */
export function menu(leave) {
  return h(
    "div",
    { class: "menu-place", onKeydown: (event) => event.key === "Escape" && open && close(true) },
    h("button", {
      type: "button", class: "who", "aria-expanded": String(open), "aria-label": t("menu.label", { name: store.me.username }),
      onClick: () => ((open = !open), redraw()),
    }, [...store.me.username][0]),
    open && items(leave),
  );
}

function items(leave) {
  const then = (act) => () => {
    close(true);
    act();
  };
  const item = (sign, label, act) =>
    h("button", { type: "button", class: "item", onClick: then(act) }, icon(sign), label);
  return h(
    "div",
    { class: "menu", mount: watchOutside, unmount: forgetOutside },
    h("div", { class: "whoami" }, h("strong", null, store.me.username), h("small", { class: "muted" }, t(`role.${store.me.role}`))),
    choice(t("menu.theme"), theme(), [["", t("menu.auto")], ["light", t("menu.light")], ["dark", t("menu.dark")]], setTheme),
    choice(t("menu.language"), lang(), [["en", "English"], ["zh", "简体中文"]], (wanted) => {
      setLanguage(wanted);
      redraw();
    }),
    h("hr"),
    item("key", t("menu.password"), changePassword),
    item("clock", t("menu.sessions"), showSessions),
    may("admin") && item("users", t("menu.users"), showUsers),
    h("a", { class: "item", href: "/api/docs", target: "_blank", rel: "noopener" }, icon("book"), t("menu.docs")),
    h("hr"),
    item("logout", t("menu.logout"), async () => {
      await post("/logout").catch(() => {});
      leave();
    }),
  );
}

const choice = (label, value, options, onChange) =>
  h("div", { class: "choice" }, h("span", { "aria-hidden": "true" }, label), segments({ label, value, options, onChange }));

function close(back) {
  open = false;
  redraw();
  if (back) document.querySelector(".who")?.focus();
}

function outside(event) {
  if (!event.target.closest?.(".menu-place")) close(false);
}

function watchOutside() {
  document.addEventListener("pointerdown", outside);
}

function forgetOutside() {
  document.removeEventListener("pointerdown", outside);
}

function theme() {
  try {
    return localStorage.getItem(THEME) ?? "";
  } catch {
    return "";
  }
}

/** "light", "dark", or "" for that of the system; remembered. */
function setTheme(wanted) {
  try {
    localStorage.setItem(THEME, wanted);
  } catch {
    document.documentElement.dataset.theme = wanted;
  }
  document.dispatchEvent(new Event("biliupd:theme"));
  redraw();
}
