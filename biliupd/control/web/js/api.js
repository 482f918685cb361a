/** Requests to the API of biliupd. An answer that is an error becomes an `ApiError` that says so in words. */

import { setClock } from "./format.js";

const PATIENCE_MS = 60_000;

/** A problem (RFC 9457): `fields` maps a field of the body to what is wrong with it. */
export class ApiError extends Error {
  constructor(status, problem = {}) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.title = problem.title ?? "";
    this.detail = problem.detail ?? "";
    this.hint = problem.hint ?? "";
    this.retryAfter = 0;
    this.fields = new Map(
      (problem.errors ?? []).map((one) => [one.field.replace(/^(body|query|path)\./, ""), one.message]),
    );
  }
}

let onLoggedOut = () => {};

/** Who is told when the daemon no longer knows us. */
export function whenLoggedOut(tell) {
  onLoggedOut = tell;
}

/**
 * Ask the API. `path` begins below /api; `query` leaves out what is empty; lists repeat their name.
 * Resolves to the JSON of the answer, null when there is none. Rejects with ApiError; status 0: no answer at all.
 */
export async function ask(method, path, { query, body, signal } = {}) {
  const address = `/api${path}${queryOf(query)}`;
  const init = { method, credentials: "same-origin", headers: { Accept: "application/json" } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  const late = AbortSignal.timeout(PATIENCE_MS);
  init.signal = signal && AbortSignal.any ? AbortSignal.any([signal, late]) : signal ?? late;
  let answer;
  try {
    answer = await fetch(address, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { title: "unreachable" });
  }
  setClock(answer.headers.get("date"));
  const json = answer.headers.get("content-type")?.includes("json");
  const content = json ? await answer.json().catch(() => null) : null;
  if (answer.ok) return content;
  const error = new ApiError(answer.status, content ?? {});
  error.retryAfter = Number(answer.headers.get("retry-after")) || 0;
  if (answer.status === 401 && path !== "/login") onLoggedOut();
  throw error;
}

function queryOf(query) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") found.append(name, one);
    }
  }
  const text = found.toString();
  return text && `?${text}`;
}

export const get = (path, query, signal) => ask("GET", path, { query, signal });
export const post = (path, body) => ask("POST", path, { body });
export const put = (path, body) => ask("PUT", path, { body });
export const patch = (path, body) => ask("PATCH", path, { body });
export const del = (path) => ask("DELETE", path);
