/** Small pictures of numbers. */

import { h } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;

/** The last bitrates as a line over its area; `label` says in words what it shows. */
export function sparkline(samples, label, most = 60) {
  const shown = samples.slice(-most);
  const top = Math.max(...shown, 1) * 1.08;
  const step = WIDTH / Math.max(most - 1, 1);
  const start = WIDTH - step * (shown.length - 1);
  const points = shown.map((value, place) =>
    `${(start + place * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 4)).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  return h(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    h("path", { class: "area", d: line && `${line}L${WIDTH},${HEIGHT}L${start.toFixed(1)},${HEIGHT}Z` }),
    h("path", { class: "line", d: line }),
  );
}
