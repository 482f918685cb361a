/** Dialogs about people: another password, the sessions that are open, the users there are. */

import { ApiError, del, get, patch, post } from "./api.js";
import { h } from "./dom.js";
import { ago } from "./format.js";
import { t } from "./i18n.js";
import { redraw, store } from "./store.js";
import { button, complain, confirm, dialog, field, problem, skeleton, tell } from "./ui.js";

const ROLES = ["viewer", "operator", "admin"];

let forms = 0;

/**
 * A dialog with a form: `fields(error)` draws it, `send(values)` does it; what is wrong with a field stands there.
 * `values` are strings by name, true or false of a tick.
 */
export function formDialog({ title, fields, send, yes, done, wide }) {
  let busy = false;
  let error = null;
  const id = `form-${++forms}`;
  return dialog((close) => ({
    title, wide,
    body: h("form", {
      id, class: "form", novalidate: true,
      onSubmit: async (event) => {
        event.preventDefault();
        if (busy) return;
        [busy, error] = [true, null];
        redraw();
        try {
          complete(event.target);
          const answer = await send(valuesOf(event.target));
          close();
          done?.(answer);
        } catch (failure) {
          [busy, error] = [false, failure];
          redraw();
          requestAnimationFrame(() => document.querySelector("dialog [aria-invalid=true]")?.focus());
        }
      },
    }, error && !error.fields?.size && problem(error), fields(error?.fields ?? new Map())),
    actions: [
      button({ label: t("do.cancel"), kind: "quiet", onClick: close }),
      button({ label: yes, kind: "primary", busy, type: "submit", form: id }),
    ],
  }));
}

/** What must not be empty and is: said at once, in the reader's language. Throws an ApiError as the daemon would send it. */
function complete(form) {
  const missing = [...form.elements].filter((one) => one.required && !one.value.trim());
  if (missing.length) throw new ApiError(422, { errors: missing.map((one) => ({ field: one.name, message: t("error.missing") })) });
}

function valuesOf(form) {
  const found = {};
  for (const control of form.elements) {
    if (control.name) found[control.name] = control.type === "checkbox" ? control.checked : control.value.trim();
  }
  return found;
}

const secret = (name, label, error, fresh = true, help = "") =>
  field({ name, label, error, help, input: { type: "password", required: true, autocomplete: fresh ? "new-password" : "current-password" } });

/** Another password for oneself. */
export function changePassword() {
  formDialog({
    title: t("people.password"),
    yes: t("people.password"),
    fields: (wrong) => [
      h("input", { class: "unseen", tabindex: "-1", "aria-hidden": "true", autocomplete: "username", value: store.me.username }),
      secret("old", t("people.old"), wrong.get("old"), false),
      secret("new", t("people.new"), wrong.get("new"), true, t("people.long")),
    ],
    send: (values) => post("/me/password", { old: values.old, new: values.new }),
    done: () => tell(t("people.changed")),
  });
}

/** A dialog over a list that is fetched; `row(item, again)` draws one. */
function listDialog({ title, load, row, head, foot }) {
  let [items, error] = [null, null];
  const again = async () => {
    try {
      [items, error] = [await load(), null];
    } catch (failure) {
      error = failure;
    }
    redraw();
  };
  again();
  dialog(() => ({
    title, wide: true,
    body: [
      problem(error, again),
      !items && !error && skeleton(3),
      items && h("div", { class: "scroll", tabindex: "0" }, h("table", { class: "list" },
        h("thead", null, h("tr", null, head.map((name) => h("th", { scope: "col", key: name }, name)), h("th", null, h("span", { class: "unseen" }, t("do.actions"))))),
        h("tbody", null, items.map((item) => row(item, again))))),
    ],
    actions: foot?.(again),
  }));
}

/** The logins that are open. */
export function showSessions() {
  listDialog({
    title: t("people.sessions"),
    load: () => get("/sessions"),
    head: [t("people.what"), t("people.where"), t("people.seen")],
    row: (one, again) => h("tr", { key: one.id },
      h("th", { scope: "row" }, one.label || program(one.agent) || t(`people.${one.kind}`),
        h("small", { class: "muted" }, ` ${one.current ? t("people.this") : t(`people.${one.kind}`)}`)),
      h("td", null, one.address),
      h("td", null, ago(one.seen_at)),
      h("td", { class: "end" }, !one.current && button({
        label: t("people.revoke"), small: true, kind: "danger",
        onClick: () => del(`/sessions/${one.id}`).then(again, complain),
      }))),
  });
}

function program(agent) {
  const browser = /(Edg|Firefox|Chrome|Safari)[/ ]/.exec(agent)?.[1] ?? agent.split(/[ /]/)[0];
  const system = /(iPhone|iPad|Android|Windows|Mac OS X|Linux)/.exec(agent)?.[1] ?? "";
  return [browser.replace("Edg", "Edge"), system.replace("Mac OS X", "macOS")].filter(Boolean).join(", ");
}

/** Who may log in, and as what. */
export function showUsers() {
  listDialog({
    title: t("people.users"),
    load: () => get("/users"),
    head: [t("people.name"), t("people.role"), t("people.since")],
    row: (one, again) => h("tr", { key: one.id },
      h("th", { scope: "row" }, one.username),
      h("td", null, h("select", {
        "aria-label": t("people.role_of", { name: one.username }), value: one.role,
        onChange: (event) => patch(`/users/${one.id}`, { role: event.target.value }).then(again, (error) => {
          event.target.value = one.role;
          complain(error);
        }),
      }, ROLES.map((role) => h("option", { value: role, key: role, selected: role === one.role }, t(`role.${role}`))))),
      h("td", null, ago(one.created_at)),
      h("td", { class: "end" },
        button({ label: t("streamers.named", { what: t("people.set"), name: one.username }), icon: "key", only: true, small: true, onClick: () => setPassword(one, again) }),
        button({
          label: t("streamers.named", { what: t("do.remove"), name: one.username }), icon: "trash", only: true, small: true, kind: "danger",
          onClick: () => confirm({
            title: t("people.remove", { name: one.username }), text: t("people.remove_text"), yes: t("do.remove"),
            act: () => del(`/users/${one.id}`).then(again),
          }),
        }))),
    foot: (again) => button({ label: t("people.add"), icon: "plus", kind: "primary", onClick: () => addUser(again) }),
  });
}

function setPassword(user, again) {
  formDialog({
    title: t("people.set_of", { name: user.username }),
    yes: t("do.save"),
    fields: (wrong) => secret("password", t("people.new"), wrong.get("password"), true, t("people.long")),
    send: (values) => patch(`/users/${user.id}`, { password: values.password }),
    done: again,
  });
}

function addUser(again) {
  formDialog({
    title: t("people.add"),
    yes: t("people.add"),
    fields: (wrong) => [
      field({ name: "username", label: t("people.name"), error: wrong.get("username"), input: { autocomplete: "off", required: true } }),
      secret("password", t("people.new"), wrong.get("password"), true, t("people.long")),
      field({ name: "role", label: t("people.role"), error: wrong.get("role"), input: { value: "viewer" },
        options: ROLES.map((role) => [role, `${t(`role.${role}`)}: ${t(`role.${role}_may`)}`]) }),
    ],
    send: (values) => post("/users", values),
    done: again,
  });
}
