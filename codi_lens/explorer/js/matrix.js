/** One head's attention: named queries × named keys. */

import { headTexts } from "./captions.js";
import { textOn } from "./colours.js";
import { figure, label, labelWidth, set, svg } from "./elements.js";
import { roving } from "./roving.js";
import { fixed, interval, short } from "./wording.js";

/**
 * @typedef {import("./explorer").Explorer} Explorer
 * @typedef {{query: number, name: string}} Row
 * @typedef {{rect: SVGRectElement, text: SVGTextElement, clip: SVGPathElement, query: number, key: number}} Cell
 */

/** Cells below this width take fewer figures. */
const NARROW = 30;
const NARROW_SIGNED = 40;

export class Matrix {
  /**
   * @param {Explorer} explorer
   * @param {HTMLElement} box
   * @param {boolean} second whether it draws the second head
   */
  constructor(explorer, box, second) {
    this.explorer = explorer;
    this.box = box;
    this.second = second;
    /** @type {Cell[]} */
    this.cells = [];
    roving(explorer, box, second ? "The second head" : "The head", () => this._stops());
    box.addEventListener("dblclick", () => explorer.act.clear());
  }

  get head() {
    const { state } = this.explorer.store;
    return this.second ? state.pin : this.explorer.head;
  }

  /** Whether it shows a difference: a second head that stays in its problem does not. */
  get differs() {
    const { shown } = this.explorer;
    return shown.isDifference && !(this.second && shown.pinned);
  }

  /** The value with the full colour. */
  get most() {
    const { shown, store } = this.explorer;
    if (this.differs) return shown.limit;
    return (store.state.scaled && shown.largest(this.head, this.second)) || 1;
  }

  _stops() {
    const { explorer } = this;
    const { rows, columns } = explorer;
    return this.cells.map((cell) => ({
      place: cell.rect,
      row: rows.findIndex(({ query }) => query === cell.query),
      column: columns.indexOf(cell.key),
      texts: () => this._texts(cell),
      choose: () => explorer.act.chooseCell([cell.query, cell.key]),
    }));
  }

  build() {
    const { explorer } = this;
    const { data, palette, rows, columns } = explorer;
    const { zoom } = explorer.store.state;
    const left = labelWidth(rows.map(({ name }) => name)) + 12;
    const bottom = 62;
    const room = Math.max(240, this.box.clientWidth || 520) - left - 4;
    const size = Math.min(54, Math.max(24, room / columns.length)) * zoom;
    const tall = Math.min(34, Math.max(20, size * 0.8)) * Math.max(1, zoom * 0.9);
    const height = tall * rows.length + bottom;
    const { figure: drawn, hatch } = figure(
      Math.ceil(left + size * columns.length + 4),
      Math.ceil(height),
      palette,
    );
    this.cells = [];
    rows.forEach((row, i) => {
      const y = i * tall;
      drawn.append(
        label(left - 6, y + tall / 2 + 4, row.name, { "text-anchor": "end", fill: palette.ink }),
      );
      columns.forEach((key, j) => {
        const x = left + j * size;
        if (!data.payload.possible[row.query][key]) {
          drawn.append(
            svg("rect", { x: x + 0.5, y: y + 0.5, width: size - 1, height: tall - 1, fill: hatch }),
          );
          return;
        }
        const rect = svg("rect", {
          x: x + 0.5,
          y: y + 0.5,
          width: size - 1,
          height: tall - 1,
          "data-cell": this.cells.length,
        });
        const text = label(x + size / 2, y + tall / 2 + 4, "", {
          "text-anchor": "middle",
          "pointer-events": "none",
        });
        const clip = svg("path", {
          d: `M${x + size - 9} ${y + 1}h8v8z`,
          "pointer-events": "none",
          visibility: "hidden",
        });
        this.cells.push({ rect, text, clip, query: row.query, key });
        drawn.append(rect, text, clip);
        if (data.payload.self[row.query][key])
          drawn.append(outline(x, y, size, tall, palette.self, 2));
      });
    });
    columns.forEach((key, j) => {
      const [x, y] = [left + (j + 0.5) * size + 4, rows.length * tall + 12];
      drawn.append(
        label(x, y, data.payload.keys[key], {
          "text-anchor": "end",
          fill: palette.ink,
          transform: `rotate(-50 ${x} ${y})`,
        }),
      );
    });
    this.needed = svg("g", { "pointer-events": "none" });
    this.chosen = svg("g", { "pointer-events": "none" });
    drawn.append(this.needed, this.chosen);
    this.size = { left, size, tall };
    this.drawn = drawn;
    this.box.replaceChildren(drawn);
    this.paint();
  }

  /** The numbers and colours of the head that is shown. */
  paint() {
    const { shown, palette } = this.explorer;
    const { head } = this;
    if (head < 0) return;
    const { differs, most } = this;
    const narrow = (this.size?.size ?? 0) < (differs ? NARROW_SIGNED : NARROW);
    for (const cell of this.cells) {
      const value = shown.at(head, cell.query, cell.key, this.second);
      const undefined_ = Number.isNaN(value);
      const fill = undefined_
        ? palette.ground
        : differs
          ? palette.difference(value / most)
          : palette.attention(value / most);
      set(cell.rect, { fill });
      const text = undefined_ ? "–" : short(value, differs, narrow);
      if (cell.text.textContent !== text) cell.text.textContent = text;
      set(cell.text, {
        fill: undefined_ ? palette.muted : textOn(fill),
        "font-size": narrow ? 9.5 : 12,
      });
      set(cell.clip, {
        visibility: Math.abs(value) > most + 1e-6 ? "visible" : "hidden",
        fill: palette.chosen,
      });
    }
    this.markCell();
  }

  /** The edges that the problem needs, and the chosen cell. */
  markCell() {
    const { explorer } = this;
    if (!this.size || !this.needed || !this.chosen) return;
    const { left, size, tall } = this.size;
    const { data, palette, rows, columns } = explorer;
    const { state } = explorer.store;
    const where = (/** @type {number} */ query, /** @type {number} */ key) => {
      const [i, j] = [rows.findIndex((row) => row.query === query), columns.indexOf(key)];
      return i < 0 || j < 0 ? null : { x: left + j * size, y: i * tall };
    };
    const frozen = this.second && state.pinProblem !== null ? state.pinProblem : state.problem;
    const edges = frozen < 0 ? [] : data.payload.problems[frozen].edges;
    this.needed.replaceChildren(
      ...edges.flatMap(([query, key]) => {
        const at = where(data.payload.queries.indexOf(query), data.payload.keys.indexOf(key));
        return at ? [outline(at.x, at.y, size, tall, palette.needed, 3)] : [];
      }),
    );
    const at = state.cell && where(...state.cell);
    this.chosen.replaceChildren(
      ...(at
        ? [
            svg("rect", {
              x: at.x + 3.5,
              y: at.y + 3.5,
              width: size - 7,
              height: tall - 7,
              fill: "none",
              stroke: palette.chosen,
              "stroke-width": 2,
            }),
          ]
        : []),
    );
  }

  /** @param {Cell} cell */
  _texts({ query, key }) {
    const { explorer, head } = this;
    const { data, shown } = explorer;
    const inOther = this.second && shown.pinned;
    const { value, baseline, half } = shown.both(head, query, key);
    const drawn = shown.at(head, query, key, this.second);
    const lines = [
      `${data.names[head]}: ${data.payload.queries[query]} → ${data.payload.keys[key]}`,
    ];
    if (inOther) lines.push(`attention ${fixed(drawn)}`);
    else {
      const bounds = Number.isNaN(half)
        ? ""
        : ` ${interval(Math.max(0, value - half), Math.min(1, value + half))}`;
      lines.push(
        Number.isNaN(value)
          ? "undefined: no number in the answer"
          : `attention ${fixed(value)}${bounds}`,
      );
      if (shown.isDifference)
        lines.push(`${shown.baselineName} ${fixed(baseline)}, difference ${fixed(drawn)}`);
      const rank = shown.rank(head, query, key);
      if (rank) lines.push(`rank ${rank} of ${data.nHeads} heads in this cell`);
    }
    return [...lines, headTexts(explorer, head)[1]];
  }
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 * @param {string} stroke
 * @param {number} thick
 */
function outline(x, y, width, height, stroke, thick) {
  const inset = thick / 2 + 0.5;
  return svg("rect", {
    x: x + inset,
    y: y + inset,
    width: width - 2 * inset,
    height: height - 2 * inset,
    fill: "none",
    stroke,
    "stroke-width": thick,
    "pointer-events": "none",
  });
}
