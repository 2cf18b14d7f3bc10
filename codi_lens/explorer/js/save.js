/** What can be taken out of the page: the selection, the table, a figure, a link. */

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
