/**
 * Cells that can be walked through: the pointer, a finger, or the arrows while the box is in focus.
 *
 * @typedef {import("./explorer").Explorer} Explorer
 * @typedef {{place: Element, row: number, column: number, texts: () => string[], choose?: () => void}} Stop
 */

import { set } from "./elements.js";

/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * Show a cell's text beside it, however one gets there; Enter and a click choose it.
 * @param {Explorer} explorer
 * @param {HTMLElement} box
 * @param {string} name of the box
 * @param {() => Stop[]} stops
 */
export function roving(explorer, box, name, stops) {
  set(box, {
    tabindex: "0",
    role: "application",
    "aria-label": `${name}: arrow keys move from cell to cell, Enter chooses one`,
  });
  let at = -1;
  const stopAt = (/** @type {Event} */ event) => {
    const cell = event.target instanceof Element ? event.target.closest("[data-cell]") : null;
    return cell ? stops().findIndex(({ place }) => place === cell) : -1;
  };
  const leave = () => {
    box.querySelector("[data-at]")?.removeAttribute("data-at");
    explorer.tip.hide();
  };
  box.addEventListener("pointermove", (event) => {
    const stop = event.pointerType === "touch" ? undefined : stops()[stopAt(event)];
    if (stop) explorer.tip.show(event, stop.texts());
    else explorer.tip.hide();
  });
  box.addEventListener("pointerleave", () => explorer.tip.hide());
  box.addEventListener("blur", leave);
  box.addEventListener("click", (event) => {
    const stop = stops()[(at = stopAt(event))];
    if (!stop) return;
    stop.choose?.();
    explorer.tip.show(event, stop.texts());
  });
  box.addEventListener("keydown", (event) => {
    const all = stops();
    if (event.key === "Enter" && all[at]) all[at].choose?.();
    else if (event.key in STEPS && !event.shiftKey && all.length)
      at = next(all, at, STEPS[event.key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
    const { place, texts } = all[at];
    box.querySelector("[data-at]")?.removeAttribute("data-at");
    place.setAttribute("data-at", "yes");
    place.scrollIntoView({ block: "nearest", inline: "nearest" });
    const { left, bottom } = place.getBoundingClientRect();
    explorer.tip.show({ clientX: left, clientY: bottom - 14 }, texts());
    explorer.boxes.live.textContent = texts().join(", ");
  });
}

/**
 * The nearest cell in a direction; the first of all where one has not been anywhere.
 * @param {Stop[]} stops
 * @param {number} at
 * @param {[number, number]} step
 */
function next(stops, at, [down, right]) {
  const here = stops[at];
  if (!here) return 0;
  let [best, least] = [at, Infinity];
  stops.forEach(({ row, column }, i) => {
    const [dy, dx] = [row - here.row, column - here.column];
    const along = down * dy + right * dx;
    if (along > 0 && (down ? dx : dy) === 0 && along < least) [best, least] = [i, along];
  });
  return best;
}
