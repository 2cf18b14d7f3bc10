/** Elements of the page and of its figures. Text is only ever set as text. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function html(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  set(made, attributes);
  made.append(...children);
  return made;
}

/**
 * @param {Element} element
 * @param {Record<string, string | number>} attributes
 */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
}

/**
 * A figure that can be taken out of the page: its font and ground are its own.
 * @param {number} width
 * @param {number} height
 * @param {import("./colours").Palette} palette
 */
export function figure(width, height, palette) {
  const id = `hatch-${Math.random().toString(36).slice(2)}`;
  const made = svg("svg", {
    xmlns: SVG,
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    "font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
    "font-size": 12,
    "aria-hidden": "true",
  });
  const lines = svg("path", {
    d: "M-2 2L2 -2M0 8L8 0M6 10L10 6",
    stroke: palette.hatch,
    "stroke-width": 1,
  });
  const ground = svg("rect", { width: 8, height: 8, fill: palette.impossible });
  const hatch = svg(
    "pattern",
    { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" },
    ground,
    lines,
  );
  made.append(svg("defs", {}, hatch), svg("rect", { width, height, fill: palette.ground }));
  return { figure: made, hatch: `url(#${id})` };
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} content
 * @param {Record<string, string | number>} [attributes]
 */
export function label(x, y, content, attributes = {}) {
  return svg("text", { x, y, ...attributes }, content);
}

/**
 * The room that labels of 12 points take, about: nothing is measured, so nothing is laid out for it.
 * @param {string[]} texts
 */
export const labelWidth = (texts) => 6.6 * Math.max(...texts.map((text) => text.length));

/**
 * Say on a box that scrolls sideways at which edges more is to come.
 * @param {HTMLElement} box
 */
export function cue(box) {
  const tell = () => {
    const left = box.scrollLeft > 2;
    const right = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    const more = [left ? "left" : "", right ? "right" : ""].filter(Boolean).join(" ");
    if (box.dataset.more !== more) box.dataset.more = more;
  };
  box.addEventListener("scroll", tell);
  new ResizeObserver(tell).observe(box);
  new MutationObserver(tell).observe(box, { childList: true });
  return box;
}
