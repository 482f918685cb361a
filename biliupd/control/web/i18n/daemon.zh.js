/** What the daemon says, in Chinese. What is not known here stays as it is.
 *
 * A sentence is written as it comes, with places for what it names: {x} stays as it is, {-x} too, but is one word or in
 * quotes; {=x} is a sentence of its own and said in turn, {!x} is one that has to be known here, {+x} is known or like
 * {-x}, {*x} are several; {#x} is a number, {~x} seconds, {%x} a size, {@x} a moment, {state.x} a word of the page. What stands before
 * a colon, a semicolon or a comma is a sentence of its own, too. There are no patterns that could take long: the texts
 * come from anywhere.
 */

import { bytes, moment, span } from "../js/format.js";
import { has, word } from "../js/i18n.js";
import catalog from "./daemon/catalog.zh.js";
import control from "./daemon/control.zh.js";
import edit from "./daemon/edit.zh.js";
import publish from "./daemon/publish.zh.js";
import record from "./daemon/record.zh.js";
import settings from "./daemon/settings.zh.js";
import watch from "./daemon/watch.zh.js";

const LONGEST = 10_000; // characters: nobody reads more
const MOST = 200; // sentences within one
const JOINS = { "\n": "\n", ": ": "：", "; ": "；", ", ": "，" };

const whole = new Map();
const rules = []; // those that say something behind a whole sentence, those that begin with words, the rest; the longest first
for (const [english, chinese] of [catalog, control, edit, publish, record, settings, watch].flatMap(Object.entries)) {
  if (english.includes("{")) rules.push(rule([english, chinese]));
  else whole.set(english, chinese);
}
rules.sort((one, other) => one.rank - other.rank || other.length - one.length);

function rule([english, chinese]) {
  const pieces = english.split(/\{([-=!+*#~%@]|\w+\.)?(\w+)\}/); // literal, kind, name, literal, kind, name, literal …
  const rank = pieces[0] ? 1 : /[=!]/.test(pieces[1]) && pieces.at(-1) ? 0 : 2;
  return { pieces, chinese, rank, length: english.replace(/\{[^{}]+\}/g, "").length };
}

let left = 0;

/** A sentence in Chinese; undefined when nothing of it is known. */
export default function say(text) {
  left = MOST;
  return text.length > LONGEST ? undefined : inTurn(text);
}

function inTurn(text) {
  if (whole.has(text)) return whole.get(text);
  left -= 1;
  for (const one of rules) {
    const found = left > 0 && cut(text, one.pieces);
    const said = found && filled(found, one);
    if (said) return said;
  }
  return left > 0 ? joined(text) : undefined;
}

/** The first of several sentences, or a name that stands before one, and the rest. */
function joined(text) {
  const [, first, join] = /^('[^']*'|"[^"]*"|.+?)(\n|[:;,] )(?=.)/s.exec(text) ?? [];
  if (!join) return undefined;
  const [said, rest] = [inTurn(first), inTurn(text.slice(first.length + join.length))];
  if (said === undefined && rest === undefined) return undefined;
  const kept = said === undefined && join !== ": "; // it may be within a name
  return `${said ?? shown(first)}${kept ? join : JOINS[join]}${rest ?? text.slice(first.length + join.length)}`;
}

/** What stands at the places of a sentence; each ends where what follows it comes first. */
function cut(text, pieces) {
  const last = pieces.at(-1);
  if (!text.startsWith(pieces[0]) || !text.endsWith(last)) return null;
  const [found, end] = [[], text.length - last.length];
  let at = pieces[0].length;
  for (let n = 3; n < pieces.length; n += 3) {
    const next = n === pieces.length - 1 ? end : text.indexOf(pieces[n], at + 1);
    if (next <= at || next > end) return null;
    found.push(text.slice(at, next));
    at = next + pieces[n].length;
  }
  return found;
}

function filled(found, { pieces, chinese }) {
  const values = {};
  for (const [n, text] of found.entries()) {
    const said = taken(pieces[n * 3 + 1] ?? "", text);
    if (said === undefined) return undefined;
    values[pieces[n * 3 + 2]] = said;
  }
  return chinese.replace(/( ?)\{(\w+)\}( ?)/g, (_, before, name, after) =>
    `${values[name].startsWith("“") ? "" : before}${values[name]}${/[”）]$/.test(values[name]) ? "" : after}`);
}

/** What stands at a place, as the page writes it; undefined when it is not of this kind. */
function taken(kind, text) {
  if (text.endsWith(":")) return undefined; // that stands before a sentence
  if (kind === "") return shown(text);
  if (kind === "=") return inTurn(text) ?? shown(text);
  if (kind === "!") return inTurn(text);
  if (kind === "+") return inTurn(text) ?? taken("-", text);
  if (kind === "-") return isQuoted(text) || !/\s/.test(text) ? shown(text) : undefined;
  if (kind === "*") return text.split(/; (?=\S+ \(line \d+\): )/).map((one) => inTurn(one) ?? one).join("；");
  if (kind === "@") return moment(text) || undefined;
  if (kind.endsWith(".")) return has(`${kind}${text}`) ? word(kind.slice(0, -1), text) : undefined;
  if (kind === "%") return sized(text);
  if (!/^[-+]?[\d.,]+$/.test(text)) return undefined;
  return kind === "~" ? span(Number(text)) : text;
}

const SIZES = { MiB: 1 << 20, GiB: 1 << 30 };

function sized(text) {
  const [count, unit] = text.split(" ");
  return Number(count) >= 0 && Object.hasOwn(SIZES, unit) ? bytes(count * SIZES[unit]) : undefined;
}

const isQuoted = (text) => text.length > 1 && /^['"]/.test(text) && text.indexOf(text[0], 1) === text.length - 1;

/** A name that comes in quotes and in ASCII, as people write it; what could turn the line around stays as it is. */
function shown(text) {
  if (!isQuoted(text)) return text;
  const plain = text.slice(1, -1).replace(/\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|\\x([0-9a-f]{2})/g, (code, ...digits) => {
    const letter = String.fromCodePoint(Math.min(parseInt(digits[0] ?? digits[1] ?? digits[2], 16), 0x10ffff));
    return /[\p{C}\p{Z}]/u.test(letter) ? code : letter;
  });
  return `“${plain}”`;
}
