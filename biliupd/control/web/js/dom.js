/**
 * A page as plain values, and the least change that makes the document like them.
 *
 * A view is a function that returns what should be seen; `render` compares it with what it returned last and touches
 * only what differs, so that focus, scrolling, selection and half-typed text survive every live update. Text goes in
 * as text and addresses are checked here, so nothing that comes from a site can become markup or a script.
 */

const SVG = "http://www.w3.org/2000/svg";
const ADDRESS = { href: /^(?:https?:\/\/|\/(?![/\\])|#)/i, src: /^(?:\/(?![/\\])|data:image\/)/i };
const PROPERTIES = new Set(["value", "checked", "selected", "disabled", "open", "indeterminate", "muted"]);

/**
 * One element. Props: attributes, `class`, `style` (an object), `onName` handlers, `key` (unique among its siblings),
 * `mount(element)` and `unmount(element)`, and `still: true` for one whose children are its own business.
 */
export function h(tag, props, ...children) {
  const own = props ?? {};
  return { tag, props: own, key: own.key, children: children.flat(Infinity).map(leaf), el: null };
}

function leaf(child) {
  if (child !== null && typeof child === "object") return child;
  const text = child === null || child === undefined || child === false || child === true ? "" : String(child);
  return { tag: "", text, el: null }; // an empty one keeps the place of what is not there
}

/** Make `container` hold exactly these children. */
export function render(container, ...children) {
  const hooks = [];
  const focused = document.activeElement;
  const next = children.flat(Infinity).map(leaf);
  patchChildren(container, container.$children ?? [], next, container.namespaceURI === SVG, hooks);
  container.$children = next;
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  for (const hook of hooks) hook();
}

function create(node, svg, hooks) {
  if (!node.tag) return (node.el = document.createTextNode(node.text));
  const inside = svg || node.tag === "svg";
  const el = inside ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  node.el = el;
  if (!node.props.still) patchChildren(el, [], node.children, inside, hooks);
  for (const [name, value] of Object.entries(node.props)) set(el, name, undefined, value);
  if (node.props.mount) hooks.push(() => node.props.mount(el));
  return el;
}

function patch(old, node, svg, hooks) {
  const el = (node.el = old.el);
  if (!node.tag) {
    if (old.text !== node.text) el.data = node.text;
    return;
  }
  const inside = svg || node.tag === "svg";
  if (!node.props.still) patchChildren(el, old.children, node.children, inside, hooks);
  for (const name of Object.keys(old.props)) if (!(name in node.props)) set(el, name, old.props[name], undefined);
  for (const [name, value] of Object.entries(node.props)) {
    if (old.props[name] !== value) set(el, name, old.props[name], value);
  }
}

function patchChildren(el, olds, news, svg, hooks) {
  const keyed = new Map();
  const plain = [];
  for (const old of olds) old.key === undefined ? plain.push(old) : keyed.set(old.key, old);
  let next = 0;
  const kept = new Set();
  const pairs = news.map((node) => {
    const old = node.key === undefined ? plain[next++] : keyed.get(node.key);
    if (!old || old.tag !== node.tag || kept.has(old)) return [null, node];
    kept.add(old);
    return [old, node];
  });
  for (const old of olds) if (!kept.has(old)) remove(old);
  let cursor = el.firstChild;
  for (const [old, node] of pairs) {
    if (old) patch(old, node, svg, hooks);
    else create(node, svg, hooks);
    if (node.el === cursor) cursor = cursor.nextSibling;
    else el.insertBefore(node.el, cursor);
  }
}

function remove(node) {
  leave(node); // while it is still in the document: a dialog that closes gives the focus back
  node.el.remove();
}

function leave(node) {
  if (!node.tag) return;
  node.props.unmount?.(node.el);
  if (!node.props.still) node.children.forEach(leave);
}

function set(el, name, old, value) {
  if (name === "key" || name === "mount" || name === "unmount" || name === "still") return;
  if (name.startsWith("on")) return listen(el, name.slice(2).toLowerCase(), value);
  if (name === "style") return style(el, old ?? {}, value ?? {});
  if (name === "value" && el === document.activeElement && el.tagName === "INPUT" && el.type !== "range") return; // being typed
  if (PROPERTIES.has(name)) {
    el[name] = value ?? (name === "value" ? "" : false);
    return;
  }
  if (value && ADDRESS[name]?.test(value) === false) value = null;
  if (value === null || value === undefined || value === false) el.removeAttribute(name);
  else el.setAttribute(name, value === true ? "" : value);
}

function listen(el, event, handler) {
  el.$on ??= {};
  if (!(event in el.$on)) el.addEventListener(event, (happened) => el.$on[event]?.(happened));
  el.$on[event] = handler;
}

function style(el, old, wanted) {
  for (const name of Object.keys(old)) if (!(name in wanted)) el.style.removeProperty(name);
  for (const [name, value] of Object.entries(wanted)) if (old[name] !== value) el.style.setProperty(name, value);
}
