/**
 * The websocket: what the daemon does, as it happens, into the store.
 *
 * A cut connection comes back by itself, later each time, and at once when the network or the reader returns. It asks
 * for what has changed since the last number it has seen, so nothing is missed.
 */

import * as store from "./store.js";
import { get } from "./api.js";

const TOPICS = ["status", "streamers", "tasks", "videos", "submissions", "accounts"];
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 6000;
const SILENCE_MS = 30_000; // then it is asked over HTTP whether anybody is still there
const LOGGED_OUT = 4401;

let socket = null;
let wanted = false;
let withLog = false;
let pause = FIRST_PAUSE_MS;
let timer = 0;
let heardAt = 0;
let epoch = null;
let seen = null; // the last number of a change; a message without one does not complete what it belongs to
let had = new Set(); // topics whose snapshot has come: before that the number means nothing
let line = null; // the last number of the log
let onLoggedOut = () => {};

/** Keep connected from now on. `loggedOut` is told when the daemon no longer takes us for who we were. */
export function begin(loggedOut) {
  onLoggedOut = loggedOut;
  wanted = true;
  connect();
}

/** Disconnect, and forget what was seen. */
export function end() {
  wanted = false;
  clearTimeout(timer);
  socket?.close();
  socket = null;
  forgetNumbers();
}

/** Whether lines of the log are wanted. */
export function wantLog(yes) {
  if (withLog === yes) return;
  withLog = yes;
  if (!yes) line = null;
  if (socket?.readyState === WebSocket.OPEN) subscribe();
}

function forgetNumbers() {
  [epoch, line, seen, had] = [null, null, null, new Set()];
}

function connect() {
  clearTimeout(timer);
  if (!wanted || socket) return;
  const own = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/ws`);
  socket = own;
  own.onopen = () => subscribe();
  own.onmessage = (event) => own === socket && take(JSON.parse(event.data));
  own.onclose = (event) => own === socket && lost(event.code);
}

function subscribe() {
  const topics = withLog ? [...TOPICS, "log"] : TOPICS;
  const seq = TOPICS.every((topic) => had.has(topic)) ? seen : null;
  socket.send(JSON.stringify({ topics, seq, log: line, epoch }));
}

function take(message) {
  heardAt = Date.now();
  const { type, topic, seq } = message;
  if (type === "hello") {
    if (epoch !== message.epoch) line = null;
    epoch = message.epoch;
    pause = FIRST_PAUSE_MS;
    link("open");
  } else if (type === "snapshot") {
    store.snapshot(message);
    had.add(topic);
    note(topic, seq);
  } else if (type === "change") {
    store.change(message);
    note(topic, seq);
  } else if (type === "log") {
    line = seq;
    store.logged(message.lines);
  } else if (type === "figures") {
    store.figures(message);
  }
}

function note(topic, seq) {
  if (topic === "log") line = seq;
  else seen = seq ?? seen;
}

function lost(code) {
  socket = null;
  if (!wanted) return;
  if (code === LOGGED_OUT) onLoggedOut();
  link(navigator.onLine ? "reconnecting" : "offline");
  timer = setTimeout(connect, pause * (0.7 + 0.6 * Math.random()));
  pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
}

function link(state) {
  if (store.store.link !== state) store.setLink(state);
}

/** The network, or the reader, has come or gone. What the browser says of the network holds for others, too. */
function look() {
  if (!wanted) return;
  pause = FIRST_PAUSE_MS;
  socket ? probe() : connect();
}

/** A connection may be dead and nobody is told: ask another way. */
async function probe() {
  const own = socket;
  if (!own) return;
  heardAt = Date.now();
  try {
    await get("/me", {}, AbortSignal.timeout(10_000));
  } catch (error) {
    if (own !== socket || error.status === 401) return;
    own.onclose = null; // a dead connection may take minutes to close
    own.close();
    lost(0);
  }
}

const isSeen = () => document.visibilityState === "visible";

addEventListener("online", look);
addEventListener("offline", look);
document.addEventListener("visibilitychange", () => isSeen() && look());
setInterval(() => isSeen() && Date.now() - heardAt > SILENCE_MS && probe(), SILENCE_MS);
