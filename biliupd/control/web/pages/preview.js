/** What exactly would be sent to Bilibili, in a dialog. */

import { get } from "../js/api.js";
import { h } from "../js/dom.js";
import { t, told } from "../js/i18n.js";
import { redraw } from "../js/store.js";
import { button, bvLink, dialog, figure, problem, skeleton, tell } from "../js/ui.js";

/** Fetch and show it; `path` is that of the preview. */
export function showPreview(path, title) {
  let [found, error] = [null, null];
  const load = async () => {
    try {
      [found, error] = [await get(path), null];
    } catch (failure) {
      error = failure;
    }
    redraw();
  };
  load();
  dialog(() => ({
    title: t("preview.title", { title }), wide: true,
    body: [problem(error, load), !found && !error && skeleton(3), found?.map(one)],
  }));
}

function one(preview, place) {
  const { body } = preview;
  const tags = String(body.tag ?? body.tags ?? "").split(",").filter(Boolean);
  const parts = body.videos ?? [];
  const json = JSON.stringify(body, null, 2);
  return h("article", { key: place, class: "preview" },
    preview.waits_for && h("p", { class: "note warn" }, told(preview.waits_for)),
    h("h3", null, body.title ?? ""),
    tags.length > 0 && h("p", { class: "row-wrap" }, tags.map((tag) => h("span", { key: tag, class: "chip" }, tag))),
    h("dl", { class: "facts-list" },
      figure(t("preview.account"), preview.account || "–"),
      figure(t("preview.zone"), body.tid ?? "–"),
      figure(t("preview.copyright"), body.copyright === 2 ? t("preview.reprint") : t("preview.own")),
      preview.bvid && figure("bvid", bvLink(preview.bvid)),
      figure(t("preview.cover"), told(preview.cover) || "–"),
      body.source && figure(t("preview.source"), body.source)),
    body.desc && h("p", { class: "prose pre" }, body.desc),
    h("h4", null, t("preview.parts", { n: parts.length, count: parts.length })),
    h("ol", { class: "lines numbered" }, parts.map((part, number) => h("li", { key: number },
      h("span", { class: "grow stack" }, part.title || preview.files[number], h("small", { class: "muted mono path" }, preview.files[number]))))),
    h("details", null, h("summary", null, t("preview.json")),
      h("div", { class: "code" },
        button({ label: t("do.copy"), icon: "copy", small: true, onClick: () => navigator.clipboard?.writeText(json).then(() => tell(t("done.copied"))) }),
        h("pre", { tabindex: "0" }, json))));
}
