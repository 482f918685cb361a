/** The words of the page in the reader's language, chosen by the browser until the reader chooses. */

import { en } from "../i18n/en.js";

const WORDS = { en, zh: null }; // Chinese comes when somebody reads it
const TAGS = { en: "en", zh: "zh-CN" };
const REMEMBERED = "biliupd.language";

let language = chosen() || (navigator.languages ?? [navigator.language]).map(known).find(Boolean) || "en";
let plural = new Intl.PluralRules(TAGS[language]);

function known(tag) {
  const two = String(tag).slice(0, 2).toLowerCase();
  return two in WORDS ? two : "";
}

function chosen() {
  try {
    return known(localStorage.getItem(REMEMBERED) ?? "");
  } catch {
    return ""; // a browser may keep nothing for us
  }
}

/** "en" or "zh". */
export const lang = () => language;

/** How numbers and dates are written: the reader's own variant of the language, if the browser names one. */
export const locale = () => (navigator.languages ?? []).find((tag) => known(tag) === language) ?? TAGS[language];

/** Choose and remember. */
export function setLanguage(wanted) {
  language = wanted;
  plural = new Intl.PluralRules(TAGS[wanted]);
  try {
    localStorage.setItem(REMEMBERED, wanted);
  } catch {
    // then it holds for this visit
  }
  document.documentElement.lang = TAGS[language];
  learn();
}

document.documentElement.lang = TAGS[language];

let say = null; // how the daemon's sentences are said: it comes when the first is to be said in Chinese
const said = new Map(); // the page is drawn anew all the time
const MOST_SAID = 500;
let arrived = () => {};

async function learn() {
  if (language !== "zh" || WORDS.zh) return;
  try {
    WORDS.zh = (await import("../i18n/zh.js")).zh;
  } catch {
    return; // then it is English
  }
  arrived();
}

await learn(); // before the page is drawn for the first time

/** Who is told when there are more words than before. */
export function whenLearnt(listener) {
  arrived = listener;
}

/** A sentence of the daemon in the reader's language, where that is known; else as it came. */
export function told(text) {
  if (language !== "zh" || !text) return text;
  if (!say) {
    say = () => undefined;
    import("../i18n/daemon.zh.js").then((module) => ((say = module.default), said.clear(), arrived()), () => (say = null));
  }
  if (!said.has(text)) {
    if (said.size >= MOST_SAID) said.clear();
    said.set(text, say(text) ?? text);
  }
  return said.get(text);
}

function find(words, key) {
  return key.split(".").reduce((found, part) => (Object.hasOwn(Object(found), part) ? found[part] : undefined), words);
}

/** Whether there are words for this key. */
export const has = (key) => find(WORDS[language], key) !== undefined;

/** Words by key; {name} in them is filled; of {one, other} the fitting one is taken by `n`. */
export function t(key, values = {}) {
  let text = find(WORDS[language], key) ?? find(en, key) ?? key;
  if (typeof text === "object") text = text[plural.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A word of the daemon in the reader's language; one that is not known is shown as it is. */
export function word(group, value) {
  return has(`${group}.${value}`) ? t(`${group}.${value}`) : String(value ?? "");
}
