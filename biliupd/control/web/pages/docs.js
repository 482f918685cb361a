/** The API for those who write scripts, made from its own description: what can be asked, with what, and what comes. */

import { get } from "../js/api.js";
import { h, render } from "../js/dom.js";
import { mark } from "../js/icons.js";
import { problem, skeleton } from "../js/ui.js";

const DEEPEST = 4; // of an example: a row in a row in a page

let api = null;
let error = null;
let words = "";
const seen = new Set(); // answers that were opened: all of them at once would be some ten thousand elements

async function load() {
  try {
    [api, error] = [await get("/openapi.json"), null];
  } catch (failure) {
    error = failure;
  }
  draw();
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const draw = () => render(document.getElementById("app"), view());

function view() {
  if (!api) return h("main", { class: "docs" }, error ? problem(error, load) : skeleton(8));
  const tags = groups();
  return h("div", { class: "docs-frame" },
    h("nav", { "aria-label": "Operations" },
      h("a", { class: "logo", href: "/" }, mark(), "biliupd"),
      h("input", { type: "search", placeholder: "Find", "aria-label": "Find", onInput: ({ target }) => ((words = target.value.toLowerCase()), draw()) }),
      [...tags].map(([tag, operations]) => h("div", { key: tag }, h("h2", null, tag),
        h("ul", null, operations.map((one) => h("li", { key: one.id }, h("a", { href: `#${one.id}` }, method(one), h("span", { class: "one-line" }, one.path.replace("/api", "")))))))),
    ),
    h("main", { class: "docs" },
      h("h1", null, `${api.info.title} API `, h("small", { class: "muted" }, api.info.version)),
      (api.info.description ?? "").split("\n\n").map((text, place) => h("p", { key: place, class: "prose" }, text)),
      [...tags].map(([tag, operations]) => h("section", { key: tag }, h("h2", null, tag), h("p", { class: "muted" }, about(tag)), operations.map(operation))),
      h("p", { class: "muted" }, "The same for programs: ", h("a", { href: "/api/openapi.json" }, "/api/openapi.json"))));
}

const about = (tag) => (api.tags ?? []).find((one) => one.name === tag)?.description ?? "";
const method = ({ verb }) => h("b", { class: `method ${verb}` }, verb.toUpperCase());

/** Operations by tag, in the order of the description. */
function groups() {
  const found = new Map((api.tags ?? []).map((tag) => [tag.name, []]));
  for (const [path, verbs] of Object.entries(api.paths)) {
    for (const [verb, one] of Object.entries(verbs)) {
      if (words && !`${verb} ${path} ${one.summary ?? ""}`.toLowerCase().includes(words)) continue;
      const tag = one.tags?.[0] ?? "more";
      found.set(tag, [...(found.get(tag) ?? []), { ...one, verb, path, id: `${verb}${path.replace(/[^a-z]+/gi, "-")}` }]);
    }
  }
  return new Map([...found].filter(([, operations]) => operations.length));
}

function operation(one) {
  const body = content(one.requestBody);
  return h("article", { key: one.id, id: one.id, class: "panel operation" },
    h("h3", null, method(one), h("code", null, one.path)),
    h("p", null, one.summary), one.description && one.description !== one.summary && h("p", { class: "muted prose pre" }, one.description),
    one.parameters?.length > 0 && table("Parameters", one.parameters.map((parameter) => ({
      name: parameter.name, note: parameter.in, required: parameter.required, schema: parameter.schema, text: parameter.description,
    }))),
    body?.schema && [fields("Body", body.schema), example(body)],
    h("h4", null, "Answers"),
    Object.entries(one.responses ?? {}).map(([status, answer]) => h("details", { key: status, class: "answer", onToggle: ({ target }) => (target.open && seen.add(`${one.id} ${status}`), draw()) },
      h("summary", null, h("b", { class: status < "400" ? "number good" : "number" }, status), ` ${answer.description ?? ""} `,
        h("code", { class: "muted" }, Object.keys(answer.content ?? {}).join(", "))),
      seen.has(`${one.id} ${status}`) && content(answer)?.schema && [fields("", content(answer).schema), example(content(answer))])));
}

const content = (part) => Object.values(part?.content ?? {})[0];

function resolve(schema) {
  if (schema?.$ref) return resolve(schema.$ref.split("/").slice(1).reduce((found, part) => found?.[part], api));
  return schema ?? {};
}

function fields(title, schema) {
  const whole = resolve(schema);
  const own = resolve(whole.items ?? whole);
  if (!own.properties) return null;
  return table(title, Object.entries(own.properties).map(([name, property]) => ({
    name, required: own.required?.includes(name), schema: property, text: property.description ?? resolve(property).description,
  })));
}

const table = (title, rows) => h("div", { class: "scroll", tabindex: "0" }, title && h("h4", null, title), h("table", { class: "list" },
  h("thead", null, h("tr", null, ["Name", "Type", "Meaning"].map((name) => h("th", { key: name, scope: "col" }, name)))),
  h("tbody", null, rows.map((row) => h("tr", { key: `${row.name} ${row.note ?? ""}` },
    h("th", { scope: "row" }, h("code", null, row.name), row.required && h("span", { class: "needed", title: "required" }, " *")),
    h("td", null, h("code", { class: "muted" }, [type(row.schema), limits(resolve(row.schema))].filter(Boolean).join(" ")), row.note && h("small", { class: "muted" }, ` ${row.note}`)),
    h("td", null, row.text ?? ""))))));

function type(schema) {
  if (schema?.$ref) return schema.$ref.split("/").at(-1);
  const own = schema ?? {};
  if (own.enum) return own.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (own.const !== undefined) return JSON.stringify(own.const);
  const several = own.anyOf ?? own.oneOf ?? own.allOf;
  if (several) return several.map(type).join(" | ");
  return own.type === "array" ? `${type(own.items)}[]` : own.type ?? "any";
}

function limits(schema) {
  const told = [["minimum", "≥"], ["maximum", "≤"], ["minLength", "length ≥"], ["maxLength", "length ≤"]];
  const found = told.filter(([name]) => schema[name] !== undefined).map(([name, sign]) => `${sign} ${schema[name]}`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") found.push(`= ${JSON.stringify(schema.default)}`);
  return found.length ? `(${found.join(", ")})` : "";
}

function example(media) {
  const given = media.example ?? Object.values(media.examples ?? {})[0]?.value;
  return h("pre", { tabindex: "0", "aria-label": "Example" }, JSON.stringify(given ?? sample(media.schema), null, 2));
}

function sample(schema, depth = 0) {
  const own = resolve(schema);
  if (schema?.examples?.length || own.examples?.length) return schema.examples?.[0] ?? own.examples[0];
  if (own.default !== undefined) return own.default;
  if (own.const !== undefined) return own.const;
  if (own.enum) return own.enum[0];
  const several = own.anyOf ?? own.oneOf ?? own.allOf;
  if (several) return sample(several[0], depth);
  if (own.type === "array") return depth < DEEPEST ? [sample(own.items, depth + 1)] : [];
  if (own.properties && depth < DEEPEST) return Object.fromEntries(Object.entries(own.properties).map(([name, one]) => [name, sample(one, depth + 1)]));
  return { string: "…", integer: 1, number: 1.5, boolean: true, object: {} }[own.type] ?? null;
}

draw();
load();
