/** Addresses within the page: `#/library/video/12?q=cat` is the page library, its rest and its query. */

import { redraw } from "./store.js";

export const PAGES = ["now", "streamers", "library", "publishing", "accounts", "log", "settings"];

let current = read();

function read() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map(decoded);
  return { page: page || "now", rest, query: new URLSearchParams(query) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Where we are: {page, rest, query}. */
export const route = () => current;

/** The address of a place in the page. Empty values of `query` are left out. */
export function to(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(kept.flatMap(([name, value]) => [value].flat().map((one) => [name, one]))).toString();
  return `#/${path}${text && `?${text}`}`;
}

/** Go there; `replace` leaves no step to come back to. */
export function go(address, replace = false) {
  if (address === location.hash) return;
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  moved();
}

let tell = () => {};

/** Who is told of each move. */
export function whenMoved(listener) {
  tell = listener;
}

function moved() {
  const before = current;
  current = read();
  tell(before, current);
  redraw();
}

addEventListener("hashchange", moved);
