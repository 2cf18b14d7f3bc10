/** The layer × head map of one quantity. */

import { headTexts, ramp } from "./captions.js";
import { figure, html, label, set, svg } from "./elements.js";

/**
 * @typedef {import("./explorer").Explorer} Explorer
 */

const LEFT = 34;
const TOP = 22;

export class HeadMap {
  /**
   * @param {Explorer} explorer
   * @param {HTMLElement} box
   */
  constructor(explorer, box) {
    this.explorer = explorer;
    this.box = box;
    /** @type {SVGRectElement[]} */
    this.cells = [];
    this.legend = html("div", { class: "legend" });
    this.drawing = html("div", { class: "drawing" });
    set(box, {
      tabindex: "0",
      role: "application",
      "aria-label": "Map of all heads: arrow keys move from head to head, Enter locks, P pins",
    });
    box.append(this.drawing);
    box.after(this.legend);
    this._listen();
  }

  _listen() {
    const headAt = (/** @type {Event} */ event) => {
      const cell = event.target instanceof Element ? event.target.closest("[data-head]") : null;
      return cell ? Number(cell.getAttribute("data-head")) : -1;
    };
    this.box.addEventListener("pointermove", (event) => {
      const head = headAt(event);
      if (event.pointerType === "touch") return;
      this.explorer.act.point(head);
      if (head >= 0) this.explorer.tip.show(event, headTexts(this.explorer, head));
      else this.explorer.tip.hide();
    });
    this.box.addEventListener("pointerleave", () => {
      this.explorer.act.point(-1);
      this.explorer.tip.hide();
    });
    this.box.addEventListener("click", (event) => {
      const head = headAt(event);
      if (head < 0) return;
      if (event.shiftKey) this.explorer.act.pin(head);
      else this.explorer.act.lock(head);
    });
    this.box.addEventListener("dblclick", () => this.explorer.act.clear());
  }

  /** Everything anew: sizes, labels, cells. */
  build() {
    const { data, palette } = this.explorer;
    const { layers, heads } = data.payload;
    const width = Math.max(220, this.box.clientWidth || 480);
    const size = Math.min(44, (width - LEFT - 2) / heads.length);
    const tall = Math.max(15, Math.min(34, size));
    const height = TOP + tall * layers.length + 2;
    const { figure: drawn, hatch } = figure(
      Math.round(LEFT + size * heads.length + 2),
      Math.round(height),
      palette,
    );
    this.hatch = hatch;
    this.cells = [];
    const everyColumn = Math.ceil(26 / size);
    heads.forEach((head, i) => {
      if (i % everyColumn === 0) {
        drawn.append(
          label(LEFT + (i + 0.5) * size, TOP - 7, `H${head}`, {
            "text-anchor": "middle",
            fill: palette.muted,
          }),
        );
      }
    });
    layers.forEach((layer, line) => {
      const y = TOP + line * tall;
      drawn.append(
        label(LEFT - 5, y + tall / 2 + 4, `L${layer}`, {
          "text-anchor": "end",
          fill: palette.muted,
        }),
      );
      heads.forEach((_, column) => {
        const head = line * heads.length + column;
        const cell = svg("rect", {
          x: LEFT + column * size + 0.5,
          y: y + 0.5,
          width: Math.max(1, size - 1),
          height: tall - 1,
          "data-head": head,
        });
        this.cells.push(cell);
        drawn.append(cell);
      });
    });
    this.locked = svg("rect", {
      fill: "none",
      stroke: palette.chosen,
      "stroke-width": 3,
      "pointer-events": "none",
    });
    this.second = svg("rect", {
      fill: "none",
      stroke: palette.chosen,
      "stroke-width": 2,
      "stroke-dasharray": "4 3",
      "pointer-events": "none",
    });
    this.pointed = svg("rect", {
      fill: "none",
      stroke: palette.ink,
      "stroke-width": 2,
      "pointer-events": "none",
    });
    drawn.append(this.second, this.pointed, this.locked);
    this.drawn = drawn;
    this.drawing.replaceChildren(drawn);
    this.paint();
  }

  /** The quantity's colours. */
  paint() {
    const { quantity, passes, palette } = this.explorer;
    this.cells.forEach((cell, head) => {
      const missing = quantity.value(head) === null;
      set(cell, {
        fill: missing ? (this.hatch ?? "") : this._colour(head),
        opacity: passes[head] ? (missing ? 1 : quantity.firmness(head)) : 0.06,
      });
    });
    this._drawLegend();
    this.mark();
  }

  /** @param {number} head */
  _colour(head) {
    const { quantity, palette } = this.explorer;
    const along = quantity.along(head);
    if (quantity.quantity.signed) return palette.difference(along);
    return quantity.quantity.name === "cell"
      ? palette.attention(quantity.value(head) ?? 0)
      : palette.score(along);
  }

  _drawLegend() {
    const { quantity, palette } = this.explorer;
    const { signed, unit, name } = quantity.quantity;
    const [colour, from, to] = signed
      ? [
          (/** @type {number} */ at) => palette.difference(2 * at - 1),
          -quantity.reach,
          quantity.reach,
        ]
      : name === "cell"
        ? [palette.attention, 0, 1]
        : [palette.score, quantity.least, quantity.most];
    const ends = quantity.quantity.low ? "faded: wide interval" : "";
    const missing = this.cells.some((_, head) => quantity.value(head) === null);
    this.legend.replaceChildren(
      html("span", {}, quantity.fixed(from)),
      ramp(colour),
      html("span", {}, `${quantity.fixed(to)}${unit ? ` ${unit}` : ""}`),
      ...(ends ? [html("span", { class: "quiet" }, ends)] : []),
      ...(missing ? [html("span", { class: "quiet" }, "hatched: not measured")] : []),
    );
  }

  /** Which heads are locked, pinned and pointed at. */
  mark() {
    const { state } = this.explorer.store;
    this._outline(this.locked, state.head, state.locked || state.preview < 0);
    this._outline(this.second, state.pin, state.pin >= 0);
    this._outline(this.pointed, state.preview, state.preview >= 0);
  }

  /**
   * @param {SVGRectElement | undefined} outline
   * @param {number} head
   * @param {boolean} shown
   */
  _outline(outline, head, shown) {
    const cell = this.cells[head];
    if (!outline) return;
    set(outline, { visibility: shown && cell ? "visible" : "hidden" });
    if (cell)
      for (const name of ["x", "y", "width", "height"])
        outline.setAttribute(name, cell.getAttribute(name) ?? "");
  }
}
