/** What states look like and are called: videos, submissions, streamers, accounts; and the acts on them. */

import { ask, post } from "./api.js";
import { h } from "./dom.js";
import { ago, moment, present } from "./format.js";
import { t, told, word } from "./i18n.js";
import { redraw, store } from "./store.js";
import { chip, complain, confirm, tell } from "./ui.js";

const TONES = {
  recording: "live", recorded: "", editing: "busy", ready: "", uploading: "busy", uploaded: "busy", published: "good",
  held: "bad", ignored: "", missing: "warn",
  collecting: "", submitting: "busy", submitted: "busy", appending: "busy",
};

const isKept = (row) => row.state === "ready" && row.waits_for?.startsWith("not published:");

/** The state of a video; one that nobody wants published is not said to be about to be. */
export const videoChip = (video) => isKept(video) ? chip("", t("kept")) : chip(TONES[video.state] ?? "", word("state", video.state));

/** The state of a submission. */
export const stageChip = (submission) => chip(TONES[submission.state] ?? "", word("stage", submission.state));

const LIVE_TONES = { live: "live", offline: "", restricted: "warn", unknown: "warn" };

/** What goes on in a room: recorded, waiting, live and not recorded, offline, … */
export function roomChip(streamer) {
  if (streamer.task) return chip("live", t("room.recording"));
  if (streamer.mode === "paused") return chip("", t("room.paused"));
  if (streamer.status === "live" && streamer.mode === "skipped") return chip("", t("room.skipped"));
  if (streamer.waiting) return chip("warn", t("room.waiting"));
  return chip(LIVE_TONES[streamer.status] ?? "", word("room", streamer.status), told(streamer.status_reason));
}

const ACCOUNT_TONES = { ok: "good", waiting: "bad", cooling: "warn", unknown: "" };

/** The state of an account. */
export const accountChip = (account) => chip(ACCOUNT_TONES[account.state] ?? "", word("account", account.state));

/** Why a row is where it is: what it waits for, what went wrong, when it is tried again. */
export function why(row) {
  const text = told(row.waits_for || row.last_error);
  const later = row.retry_at && !row.retry_at.startsWith("9999") && Date.parse(row.retry_at) > present();
  if (!text && !later) return null;
  return h("p", { class: `why ${row.state === "held" ? "bad" : isKept(row) ? "muted" : ""}` }, text,
    later && h("span", { class: "muted", title: moment(row.retry_at) }, `${text ? " · " : ""}${t("again_at", { when: ago(row.retry_at) })}`));
}

const doing = new Set();

/** Whether an act of this name is under way. */
export const busy = (name) => doing.has(name);

/** Do something once at a time, say what came of it. Resolves to the answer, undefined when it failed. */
export async function act(name, does, done) {
  if (doing.has(name)) return undefined;
  doing.add(name);
  redraw();
  try {
    const answer = await does();
    const said = typeof done === "function" ? done(answer) : done;
    if (said) tell(said);
    return answer;
  } catch (error) {
    complain(error);
    return undefined;
  } finally {
    doing.delete(name);
    redraw();
  }
}

/** Start recording a room when it is live. */
export const start = (streamer) =>
  act(`streamer ${streamer.id}`, () => post(`/streamers/${streamer.id}/start`), (answer) => told(answer.detail) || t("done.start"));

/** Stop, or pause, a room; what ends a recording is asked first. */
export function halt(streamer, how) {
  const does = () => act(`streamer ${streamer.id}`, () => post(`/streamers/${streamer.id}/${how}`), (answer) => told(answer.detail) || t(`done.${how}`));
  if (!streamer.task) return does();
  return confirm({
    title: t(`ask.${how}`, { name: streamer.name }), text: t(`ask.${how}_text`), yes: t(`do.${how}`),
    act: () => post(`/streamers/${streamer.id}/${how}`).then((answer) => tell(told(answer.detail) || t(`done.${how}`))),
  });
}

/** Try again what is held. `kind` is videos, submissions or accounts. */
export const retry = (kind, id) =>
  act(`${kind} ${id}`, () => ask("POST", `/${kind}/${encodeURIComponent(id)}/retry`), t("done.retry"));

/** The streamer of a name. */
export const streamerOf = (name) => [...store.streamers.values()].find((one) => one.name === name);
