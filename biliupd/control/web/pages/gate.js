/** Before the login: the login, and at the very first start the making of the first user. */

import { post } from "../js/api.js";
import { h } from "../js/dom.js";
import { mark } from "../js/icons.js";
import { lang, setLanguage, t } from "../js/i18n.js";
import { redraw, store } from "../js/store.js";
import { button, field, problem, segments } from "../js/ui.js";

let busy = false;
let error = null;

/** `come` is called once somebody is logged in. */
export function gate(come) {
  const first = store.setup;
  document.title = "biliupd";
  const wrong = error?.fields ?? new Map();
  return h(
    "main",
    { class: "gate" },
    h("div", { class: "logo" }, mark(34), "biliupd"),
    h("div", { class: "box" },
      h("h1", null, t(first ? "gate.setup" : "gate.login")),
      h("p", { class: "lead" }, t(first ? "gate.setup_lead" : "gate.login_lead")),
      h("form", { class: "form", novalidate: true, key: first ? "setup" : "login", onSubmit: (event) => submit(event, first, come) },
        error && !wrong.size && (error.status === 401 ? refused() : problem(error)),
        first && field({ name: "code", label: t("gate.code"), error: wrong.get("code"), help: t("gate.code_help"), input: { autocomplete: "one-time-code", spellcheck: "false" } }),
        field({ name: "username", label: t("people.name"), error: wrong.get("username"),
          input: { autocomplete: "username", autocapitalize: "none", spellcheck: "false", mount: (el) => !first && el.focus() } }),
        field({ name: "password", label: t("gate.password"), error: wrong.get("password"), help: first && t("people.long"),
          input: { type: "password", autocomplete: first ? "new-password" : "current-password" } }),
        button({ label: t(first ? "gate.make" : "gate.in"), kind: "primary", type: "submit", busy, onClick: undefined }))),
    h("div", { class: "choices" }, segments({
      label: t("menu.language"), value: lang(), options: [["en", "English"], ["zh", "简体中文"]],
      onChange: (wanted) => {
        setLanguage(wanted);
        redraw();
      },
    })),
  );
}

const refused = () => h("div", { class: "problem", role: "alert" }, h("div", null, h("strong", null, t("gate.refused"))));

async function submit(event, first, come) {
  event.preventDefault();
  if (busy) return;
  const form = event.target;
  const read = (name) => form.elements[name].value;
  const body = { username: read("username").trim(), password: read("password") };
  [busy, error] = [true, null];
  redraw();
  try {
    await (first ? post("/setup", { ...body, code: read("code").trim() }) : post("/login", { ...body, session: "cookie" }));
    busy = false;
    come();
  } catch (failure) {
    [busy, error] = [false, failure];
    if (failure.status === 409 && first) [store.setup, error] = [false, null];
    redraw();
    const wrong = form.elements[[...failure.fields.keys()][0]] ?? form.elements.password;
    if (wrong === form.elements.password && failure.status) wrong.value = "";
    wrong.focus();
  }
}
