/** The newest frame of each recording on the screen: asked for while somebody looks, shown once it can be drawn at once. */

import { isOld, redraw, store } from "../js/store.js";

const PAUSE_MS = 35_000;
const SPREAD_MS = 10_000;
const AGAIN_MS = 60_000; // when there was none
const OLD_MS = 120_000; // from then on it is no proof of anything
const BEGUN_SECONDS = 2; // of media: before that there is none

const frames = new Map(); // by task: {src, at, due}
const places = new Map(); // element → its task
const onScreen = new Set(); // elements
let observer = null;
let looking = false;

/** A task's picture: its address, null when there is none, and whether it is of some time ago. */
export function frameOf(id) {
  const { src = null, at } = frames.get(id) ?? {};
  return { src, old: Date.now() - at > OLD_MS };
}

/** An element where a task's frames belong is in the document. */
export function watch(element, id) {
  observer ??= new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) onScreen[isIntersecting && places.has(target) ? "add" : "delete"](target);
    look();
  });
  places.set(element, id);
  observer.observe(element);
}

/** It is no longer. */
export function unwatch(element) {
  observer.unobserve(element);
  places.delete(element);
  onScreen.delete(element);
}

/** Ask for what is due, for one after the other, as the daemon makes them. */
export async function look() {
  if (looking) return;
  looking = true;
  for (let id; (id = next()); ) await load(id);
  looking = false;
}

const dueAt = (id) => frames.get(id)?.due ?? 0;

function next() {
  if (document.visibilityState !== "visible" || isOld()) return null;
  const begun = (id) => store.tasks.get(id)?.status === "recording" && store.tasks.get(id).figures?.media_seconds > BEGUN_SECONDS;
  const wanted = [...onScreen].map((element) => places.get(element)).filter((id) => begun(id) && dueAt(id) <= Date.now());
  return wanted.sort((one, other) => dueAt(one) - dueAt(other))[0];
}

async function load(id) {
  const image = new Image();
  const src = `/api/tasks/${id}/picture?${Date.now()}`;
  let found = { ...frames.get(id), due: Date.now() + AGAIN_MS };
  image.src = src;
  try {
    await image.decode();
    const pause = navigator.connection?.saveData ? Infinity : PAUSE_MS + Math.random() * SPREAD_MS;
    found = { src, at: Date.now(), due: Date.now() + pause };
  } catch {
    image.src = ""; // none yet, or none at all
  }
  for (const known of [...frames.keys()]) if (store.tasks.get(known)?.status !== "recording") frames.delete(known);
  frames.set(id, found);
  redraw();
}
