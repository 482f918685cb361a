/** The few signs of the page, drawn on a grid of 24 with one line width. */

import { h } from "./dom.js";

const SHAPES = {
  now: "M3 12h4l3-8 4 16 3-8h4",
  streamers: "M5 5.5a9 9 0 0 0 0 13M19 5.5a9 9 0 0 1 0 13M8 8.5a5 5 0 0 0 0 7M16 8.5a5 5 0 0 1 0 7M12 11.8v.4",
  library: "M4 5h7v6H4zM13 5h7v6h-7zM4 13h7v6H4zM13 13h7v6h-7z",
  publishing: "M12 16V4m-5 5 5-5 5 5M4 15v4a1 1 0 0 0 1 1h14a1 1 0 0 0 1-1v-4",
  accounts: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20a7.5 7.5 0 0 1 15 0",
  log: "M4 6h16M4 10h10M4 14h16M4 18h7",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.5v5M9 14.5v5",
  more: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  play: "M7 4.5v15l12-7.5z",
  pause: "M8 5v14M16 5v14",
  stop: "M6 6h12v12H6z",
  close: "M6 6l12 12M18 6 6 18",
  check: "M5 12.5 10 17l9-10",
  warn: "M12 4 2.8 19.5h18.4zM12 10v4M12 17v.01",
  info: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 11v5M12 8v.01",
  retry: "M20 5v5h-5M4 19v-5h5M5.5 9.5A7 7 0 0 1 19 8.5l1 1.5M18.5 14.5A7 7 0 0 1 5 15.5L4 14",
  edit: "M4 20l1-4L16.5 4.5l3 3L8 19zM14 7l3 3",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM16 16l4.5 4.5",
  folder: "M3 6h6l2 2.5h10V19H3z",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  download: "M12 4v12m-5-5 5 5 5-5M4 20h16",
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 12h16",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7v5l3.5 2",
  disk: "M4 13h16v6H4zM6 13l2-8h8l2 8M16.5 16h.01",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  back: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM12 14.8a2.8 2.8 0 1 0 0-5.6 2.8 2.8 0 0 0 0 5.6Z",
  expand: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  key: "M8 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 12h9M18 12v4",
  users: "M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7ZM2.5 20a6.5 6.5 0 0 1 13 0M16 4.5a3.5 3.5 0 0 1 0 6.5M18 14a6.5 6.5 0 0 1 3.5 6",
  logout: "M14 4H5v16h9M10 12h11m-4-4 4 4-4 4",
  offline: "M3 3l18 18M8 15a5.5 5.5 0 0 1 6-1M5 11.5a10 10 0 0 1 5-2.7M14 8.7a10 10 0 0 1 5 2.8M12 19h.01",
  book: "M5 4h14v16H5zM9 4v16M12 9h4M12 13h4",
  qr: "M4 4h6v6H4zM14 4h6v6h-6zM4 14h6v6H4zM14 14h2v2M20 14v6h-6v-2",
};

/** One sign; a reader of the screen passes it by. */
export function icon(name, size = 18) {
  return h(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", width: size, height: size, "aria-hidden": "true", focusable: "false" },
    h("path", { d: SHAPES[name] }),
  );
}

/** The mark of biliupd: a recording that goes up. */
export function mark(size = 26) {
  return h(
    "svg",
    { class: "mark", viewBox: "0 0 32 32", width: size, height: size, "aria-hidden": "true", focusable: "false" },
    h("rect", { x: 1, y: 1, width: 30, height: 30, rx: 8 }),
    h("path", { d: "M9.5 17.5 16 11l6.5 6.5" }),
    h("circle", { cx: 16, cy: 22, r: 2.6 }),
  );
}
