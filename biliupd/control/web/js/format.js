/** Numbers, sizes, moments and lengths as people read them, in their language. */

import { locale, t } from "./i18n.js";

const made = new Map();
let ahead = 0; // of the reader's clock, which may be wrong by hours, is the daemon's by so many milliseconds
const SAME_CLOCK_MS = 5000; // what an answer's way may take, and its date is of whole seconds

/** What the daemon says the time is. */
export function setClock(date) {
  const off = Date.parse(date) - Date.now();
  if (!Number.isNaN(off)) ahead = Math.abs(off) > SAME_CLOCK_MS ? off : 0;
}

/** Now, by the daemon's clock: its moments are compared with this. */
export const present = () => Date.now() + ahead;

function intl(kind, options) {
  const key = `${locale()} ${kind.name} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale(), options));
  return made.get(key);
}

/** A plain number. */
export const number = (value, digits = 0) =>
  intl(Intl.NumberFormat, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);

/** Bytes: 1.4 GiB. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [value, unit] = [Math.max(0, count ?? 0), 0];
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${number(value, unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2)}\u00a0${units[unit]}`;
}

/** Bytes a second. */
export const rate = (count) => `${bytes(count)}/s`;

/** Bits a second: 8.4 Mbit/s. */
export function bitrate(bits) {
  if (!bits) return "0 Mbit/s";
  if (bits < 999_500) return `${number(bits / 1000)}\u00a0kbit/s`;
  return `${number(bits / 1e6, bits < 1e8 ? 1 : 0)}\u00a0Mbit/s`;
}

/** A share, 0 to 1: 99.9 %. It is rounded down, so that 100 % means all. */
export const percent = (share, digits = 0) => {
  const scale = 10 ** (digits + 2);
  const whole = Math.floor(share * scale + 1e-9) / scale;
  return intl(Intl.NumberFormat, { style: "percent", maximumFractionDigits: digits }).format(whole);
};

/** A length or a place in a recording: 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds ?? 0));
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

function unit(value, name, digits = 0) {
  const options = { style: "unit", unit: name, unitDisplay: "short", maximumFractionDigits: digits };
  return intl(Intl.NumberFormat, options).format(value);
}

/** A length in words, its two largest units: 2 min 14 s. */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds ?? 0));
  const steps = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  if (seconds > 0 && seconds < 10) return unit(Math.max(seconds, 0.1), "second", 1);
  const first = steps.findIndex(([, size]) => whole >= size);
  if (first < 0) return unit(0, "second");
  const [[name, size], below] = [steps[first], steps[first + 1]];
  const rest = below ? Math.floor((whole % size) / below[1]) : 0;
  const head = unit(Math.floor(whole / size), name);
  return rest ? `${head} ${unit(rest, below[0])}` : head;
}

/** How long a moment is away: 5 minutes ago, in 2 hours. */
export function ago(at, now = present()) {
  const seconds = (Date.parse(at) - now) / 1000;
  if (Number.isNaN(seconds)) return "";
  const far = Math.abs(seconds);
  if (far < 45) return t("time.now");
  const format = intl(Intl.RelativeTimeFormat, { numeric: "auto", style: "short" });
  if (far < 3600) return format.format(Math.round(seconds / 60), "minute");
  if (far < 86400) return format.format(Math.round(seconds / 3600), "hour");
  if (far < 30 * 86400) return format.format(Math.round(seconds / 86400), "day");
  return date(at);
}

/** Seconds since a moment. */
export const since = (at, now = present()) => Math.max(0, (now - Date.parse(at)) / 1000);

const date = (at) => when(at, { dateStyle: "medium" });

/** A day and a time. */
export const moment = (at) => when(at, { dateStyle: "medium", timeStyle: "short" });

/** A time of the day, with seconds. */
export const time = (at) => when(at, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

function when(at, options) {
  const found = at ? new Date(at) : null;
  return found && !Number.isNaN(found.getTime()) ? intl(Intl.DateTimeFormat, options).format(found) : "";
}
