/** Pieces that every page is made of: buttons, chips, fields, dialogs, messages, and what stands for nothing. */

import { h } from "./dom.js";
import { span } from "./format.js";
import { icon } from "./icons.js";
import { has, t, told } from "./i18n.js";
import { redraw } from "./store.js";

/** A button: {icon, label, onClick, kind: "primary" | "danger" | "quiet", busy, small, only (just the icon)}. */
export function button({ icon: sign, label, onClick, kind = "", busy = false, small = false, only = false, ...rest }) {
  return h(
    "button",
    {
      type: "button", class: `button ${kind} ${small ? "small" : ""} ${only ? "only" : ""}`, onClick,
      disabled: busy || rest.disabled || false, "aria-busy": busy ? "true" : null,
      "aria-label": only ? label : null, title: only ? label : null, ...without(rest, "disabled"),
    },
    busy ? h("span", { class: "spinner" }) : sign && icon(sign, small ? 16 : 18),
    !only && h("span", null, label),
  );
}

function without(object, name) {
  const { [name]: _, ...rest } = object;
  return rest;
}

/** A word with a colour: tone good, warn, bad, busy, live or none. */
export const chip = (tone, text, title) =>
  h("span", { class: `chip ${tone}`, title }, tone && h("i", { class: "dot", "aria-hidden": "true" }), text);

/** A bar from 0 to 1. */
export function bar(share, label, tone = "") {
  const whole = Math.round(Math.min(1, Math.max(0, share || 0)) * 1000) / 10;
  return h(
    "div",
    { class: `bar ${tone}`, role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
      "aria-valuenow": whole },
    h("i", { style: { width: `${whole}%` } }),
  );
}

/** A figure with its name above it. */
export const figure = (name, value, tone = "", note = "") =>
  h("div", { class: `figure ${tone}` }, h("dt", null, name), h("dd", null, value, note && h("small", null, note)));

/** A field of a form. `error` stands at it; `input` are the attributes of the control, `options` make it a list. */
export function field({ name, label, error, help, input = {}, options }) {
  const id = `field-${name}`;
  const notes = [error && `${id}-error`, help && `${id}-help`].filter(Boolean).join(" ");
  const attributes = { id, name, "aria-required": input.required ? "true" : null, "aria-describedby": notes || null, "aria-invalid": error ? "true" : null, ...input };
  const control = options
    ? h("select", attributes, options.map(([value, text]) =>
        h("option", { value, selected: String(value) === String(input.value ?? "") }, text)))
    : h("input", attributes);
  return h(
    "div",
    { class: `field ${error ? "wrong" : ""}` },
    h("label", { for: id }, label),
    control,
    help && h("p", { class: "help", id: `${id}-help` }, help),
    error && h("p", { class: "error", id: `${id}-error` }, icon("warn", 15), told(error)),
  );
}

/** A field that is on or off. */
export const tick = (name, label, checked, rest = {}) =>
  h("label", { class: "tick" }, h("input", { type: "checkbox", name, checked, ...rest }), h("span", null, label));

/** One of a few: {label, value, options: [[value, text]], onChange}. */
export function segments({ label, value, options, onChange }) {
  return h(
    "div",
    { class: "segments", role: "group", "aria-label": label },
    options.map(([option, text]) =>
      h("button", { type: "button", key: option, "aria-pressed": String(option === value), onClick: () => onChange(option) }, text)),
  );
}

/** What an error says, with what to do about it. */
export function problem(error, again) {
  if (!error) return null;
  return h(
    "div",
    { class: "problem", role: "alert" },
    icon("warn"),
    h("div", null, h("strong", null, frame(error)), said(error) && h("p", null, said(error)),
      error.hint && h("p", { class: "hint" }, told(error.hint))),
    again && button({ label: t("do.again"), icon: "retry", small: true, onClick: again }),
  );
}

/** What kind of error it is, in the reader's language. */
export function frame(error) {
  if (!("status" in error)) return t("error.bug");
  if (error.status === 429 && error.retryAfter) return t("error.wait", { span: span(error.retryAfter) });
  const key = `error.${error.status}`;
  return has(key) ? t(key) : t(error.status >= 500 ? "error.500" : "error.other", { status: error.status });
}

const said = (error) => error.status === 0 ? "" : told(error.detail || error.title || (error.status ? "" : error.message));

/** Nothing is here, and why, and what to do. */
export const empty = (sign, title, text, action) =>
  h("div", { class: "empty" }, icon(sign, 30), h("h2", null, title), text && h("p", null, text), action);

/** Something will be here. */
export const skeleton = (count, shape = "row") =>
  h("div", { class: `skeletons ${shape}s`, role: "status", "aria-label": t("load") },
    Array.from({ length: count }, (_, place) => h("div", { key: place, class: `skeleton ${shape}` })));

// -- dialogs and messages: one of each at a time, drawn beside the page

const open = [];
let messages = [];
let number = 0;

/** Open a dialog. `view(close)` returns {title, body, actions, wide, side}; what it needs it keeps itself. One that is
 * `placed` has an address of its own; the others close as soon as somebody goes anywhere. */
export function dialog(view, closed, placed = false) {
  const own = { view, placed, key: ++number };
  own.close = () => {
    const place = open.indexOf(own);
    if (place < 0) return;
    open.splice(place, 1);
    closed?.();
    redraw();
  };
  open.push(own);
  redraw();
  return own.close;
}

/** Close what is open, as when somebody goes to another page; or what has no address of its own. */
export function closeAll(even = true) {
  for (const one of [...open]) if (even || !one.placed) one.close();
}

/** Ask before something is done. */
export function confirm({ title, text, yes, danger = true, act }) {
  let busy = false;
  let error = null;
  dialog((close) => ({
    title,
    body: [h("p", { class: "prose" }, text), problem(error)],
    actions: [
      button({ label: t("do.cancel"), kind: "quiet", onClick: close }),
      button({
        label: yes, kind: danger ? "danger" : "primary", busy,
        onClick: async () => {
          [busy, error] = [true, null];
          redraw();
          try {
            await act();
            close();
          } catch (failure) {
            [busy, error] = [false, failure];
            redraw();
          }
        },
      }),
    ],
  }));
}

/** Say something for some seconds; a screen reader says it too. */
export function tell(text, tone = "good") {
  const own = { text, tone, key: ++number };
  messages = [...messages.slice(-2), own];
  setTimeout(() => {
    messages = messages.filter((one) => one !== own);
    redraw();
  }, tone === "bad" ? 12_000 : 5000);
  redraw();
  requestAnimationFrame(() => requestAnimationFrame(above));
}

/** Messages lie above a dialog that is open already: whatever comes last into the top layer does. */
function above() {
  const place = document.querySelector(".messages");
  if (!place?.showPopover) return;
  if (place.matches(":popover-open")) place.hidePopover();
  place.showPopover();
}

/** The same of an error. */
export const complain = (error) => tell([frame(error), said(error), told(error.hint)].filter(Boolean).join(" · "), "bad");

let quietly = "";

/** Say something only to a screen reader. */
export function announce(text) {
  quietly = text;
}

/** Dialogs and messages, for the frame of the page. */
export function overlays() {
  return [
    ...open.map(drawDialog),
    h("div", { key: "said", class: "messages", popover: "manual", role: "status", "aria-live": "polite",
      mount: (el) => el.showPopover?.() },
      messages.map((one) => h("div", { key: one.key, class: `message ${one.tone}` },
        icon(one.tone === "bad" ? "warn" : "check"), h("span", null, one.text)))),
    h("div", { key: "quiet", class: "unseen", role: "log", "aria-live": "polite" }, quietly),
  ];
}

function drawDialog(own) {
  const { title, body, actions, wide, side } = own.view(own.close);
  const id = `dialog-${own.key}`;
  return h(
    "dialog",
    {
      key: id, class: `dialog ${wide ? "wide" : ""} ${side ? "side" : ""}`, "aria-labelledby": id,
      mount: (el) => {
        el.showModal();
        el.querySelector("form input:not(.unseen)")?.focus();
      },
      unmount: (el) => el.close(),
      onCancel: (event) => {
        event.preventDefault();
        own.close();
      },
      onClose: own.close, // a browser may close it without asking
      onMousedown: (event) => event.target === event.currentTarget && own.close(),
    },
    h("div", { class: "sheet" },
      h("header", null, h("h2", { id }, title),
        button({ icon: "close", label: t("do.close"), only: true, kind: "quiet", onClick: own.close })),
      h("div", { class: "body" }, body),
      actions && h("footer", null, actions)),
  );
}

/** A published video's place at Bilibili. */
export const bvLink = (bvid) =>
  h("a", { class: "mono", href: `https://www.bilibili.com/video/${encodeURIComponent(bvid)}`, target: "_blank", rel: "noreferrer noopener" }, bvid);
