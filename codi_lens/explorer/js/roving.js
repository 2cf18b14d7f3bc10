/**
 * Cells that can be walked through: the pointer, a finger, or the arrows while the box is in focus.
 *
 * @typedef {import("./explorer").Explorer} Explorer
 * @typedef {{place: Element, row: number, column: number, texts: () => string[], choose?: () => void}} Stop
 */

import { isArrow, nearest } from "./arrows.js";
import { set } from "./elements.js";

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
    else if (isArrow(event.key) && !event.shiftKey && all.length) {
      const next = all[at] ? nearest(all, all[at], event.key, 0) : 0;
      if (next >= 0) at = next;
    } else return;
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
