/**
 * All that is known of the daemon right now, as the websocket tells it, and who listens to changes.
 *
 * The only state that pages share. Rows are kept by their id; `sums` of the page come from these rows.
 */

import { present } from "./format.js";

const LOG_LINES = 2000;
const SAMPLES = 120;
const KEYS = { streamers: "id", tasks: "id", videos: "id", submissions: "id", accounts: "name" };

const listeners = new Set();
let drawing = false;

export const store = {
  /** Who is logged in: {username, role, session_id}; null: nobody; undefined: not known yet. */
  me: undefined,
  /** Whether the first user is still to be made. */
  setup: false,
  /** connecting, open, reconnecting, or offline */
  link: "connecting",
  /** Since when what is shown may be old; null: it is as it is now. */
  lostAt: null,
  status: null,
  /** Topics whose snapshot has come. */
  known: new Set(),
  streamers: new Map(),
  tasks: new Map(),
  videos: new Map(),
  submissions: new Map(),
  accounts: new Map(),
  counts: {},
  bitrates: new Map(),
  sampleSeconds: 5,
  log: [],
};

/** Forget everything that belongs to a login. */
export function forget() {
  for (const topic of Object.keys(KEYS)) store[topic] = new Map();
  Object.assign(store, { status: null, counts: {}, bitrates: new Map(), log: [], known: new Set() });
  changed("all", [], []);
}

/** Listen: `(topic, rows, gone)`. Returns how to stop. */
export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

let draw = () => {};

/** Who draws the page. It is called once for all changes until the next frame. */
export function drawWith(view) {
  draw = view;
}

/** Something that is seen has changed. */
export function redraw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

function changed(topic, rows, gone) {
  for (const listener of listeners) listener(topic, rows, gone);
  redraw();
}

/** The whole of a topic. */
export function snapshot(message) {
  const topic = message.topic;
  store.known.add(topic);
  if (topic === "status") store.status = message.status;
  else if (topic === "log") store.log = message.lines.slice(-LOG_LINES);
  else store[topic] = new Map(message[topic].map((row) => [row[KEYS[topic]], row]));
  if (topic === "videos") store.counts = message.counts ?? {};
  if (topic === "tasks") {
    store.bitrates = new Map(Object.entries(message.bitrates ?? {}));
    store.sampleSeconds = message.sample_seconds ?? store.sampleSeconds;
  }
  changed(topic, topic === "status" || topic === "log" ? [] : message[topic], []);
}

/** Rows that are new or different, and ids of those that are gone. */
export function change(message) {
  const { topic, put = [], gone = [] } = message;
  if (topic === "status") {
    store.status = put.at(-1) ?? store.status;
  } else {
    const rows = store[topic];
    for (const id of gone) rows.delete(topic === "accounts" || topic === "tasks" ? String(id) : Number(id));
    for (const row of put) rows.set(row[KEYS[topic]], keepFigures(topic, rows, row));
  }
  if (message.counts) store.counts = message.counts;
  changed(topic, put, gone);
}

function keepFigures(topic, rows, row) {
  if (topic !== "tasks" || row.figures || row.status !== "recording") return row;
  return { ...row, figures: rows.get(row.id)?.figures ?? null }; // the next ones come within seconds
}

/** What the recorders measure, every few seconds. */
export function figures(message) {
  for (const [id, measured] of Object.entries(message.tasks ?? {})) {
    const task = store.tasks.get(id);
    if (task) store.tasks.set(id, { ...task, figures: measured });
    const samples = store.bitrates.get(id) ?? [];
    store.bitrates.set(id, [...samples, measured.bitrate].slice(-SAMPLES));
  }
  for (const [id, upload] of Object.entries(message.uploads ?? {})) {
    const video = store.videos.get(Number(id));
    if (video) store.videos.set(Number(id), { ...video, upload });
  }
  changed("figures", [], []);
}

/** Lines of the log, newer than those before. */
export function logged(lines) {
  store.log = store.log.concat(lines).slice(-LOG_LINES);
  changed("log", lines, []);
}

/** Rows of a topic as a list. */
export function all(topic) {
  return [...store[topic].values()];
}

const BLINK_MS = 2000; // a connection that is back sooner is no news

/** Whether what is shown is of some time ago. */
export const isOld = () => store.lostAt !== null && present() - store.lostAt > BLINK_MS;

/** The connection is gone, or back. */
export function setLink(state) {
  if (state === "open") store.lostAt = null;
  else if (store.link === "open") {
    store.lostAt = present();
    setTimeout(redraw, BLINK_MS + 50);
  }
  store.link = state;
  redraw();
}

const RANK = { viewer: 0, operator: 1, admin: 2 };

/** Whether who is logged in has at least this role. */
export function may(role) {
  return Boolean(store.me) && RANK[store.me.role] >= RANK[role];
}
