/** What can be taken out of the page: the selection, the table, a figure, a link. */

import { figure, label, set } from "./elements.js";

/**
 * Heads as `ablate_heads` takes them.
 * @param {number[]} heads
 * @param {import("./data").Data} data
 */
export function selection(heads, data) {
  const pairs = heads.map((head) => `(${data.pairOf(head).join(", ")})`);
  return `[${pairs.join(", ")}]`;
}

/**
 * @param {string} name
 * @param {Blob} content
 */
export function download(name, content) {
  const address = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/**
 * Figures below each other, each with what is said of it, as one figure that stands alone.
 * @param {{title: string, note: string, figure: SVGSVGElement}[]} parts
 * @param {import("./colours").Palette} palette
 */
export function composed(parts, palette) {
  const sizes = parts.map(({ figure: drawn }) => [
    Number(drawn.getAttribute("width")),
    Number(drawn.getAttribute("height")),
  ]);
  const letters = Math.max(
    ...parts.flatMap(({ title, note }) => [title.length * 7.6, note.length * 6.6]),
  );
  const width = Math.ceil(Math.max(letters, ...sizes.map(([wide]) => wide)) + 24);
  const height = sizes.reduce((sum, [, tall]) => sum + tall + 66, 12);
  const { figure: whole } = figure(width, height, palette);
  let y = 12;
  parts.forEach(({ title, note, figure: drawn }, i) => {
    const copy = /** @type {SVGSVGElement} */ (drawn.cloneNode(true));
    for (const mark of copy.querySelectorAll("[data-at]")) mark.removeAttribute("data-at");
    set(copy, { x: 12, y: y + 24 });
    whole.append(
      label(12, y + 14, title, { "font-weight": 600, "font-size": 13, fill: palette.ink }),
    );
    whole.append(copy, label(12, y + sizes[i][1] + 40, note, { fill: palette.muted }));
    y += sizes[i][1] + 66;
  });
  return whole;
}

/** @param {SVGSVGElement} figure */
export const asSvg = (figure) =>
  new Blob([new XMLSerializer().serializeToString(figure)], { type: "image/svg+xml" });

/**
 * A figure as a picture, twice as large as on the page.
 * @param {SVGSVGElement} figure
 * @returns {Promise<Blob>}
 */
export async function asPng(figure) {
  const text = new XMLSerializer().serializeToString(figure);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = 2 * image.width;
  canvas.height = 2 * image.height;
  const context = canvas.getContext("2d");
  if (!context) throw new Error("This browser draws no pictures.");
  context.scale(2, 2);
  context.drawImage(image, 0, 0);
  return new Promise((resolve, reject) =>
    canvas.toBlob(
      (blob) => (blob ? resolve(blob) : reject(new Error("The picture is empty."))),
      "image/png",
    ),
  );
}

/**
 * Put a text on the clipboard; where the browser forbids it, show it to be copied by hand.
 * @param {string} text
 * @param {HTMLElement} root
 */
export async function copy(text, root) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    root.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
