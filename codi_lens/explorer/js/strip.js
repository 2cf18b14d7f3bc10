/** One head's attention to every token of the question. */

import { noStrip } from "./captions.js";
import { figure, label, labelWidth, svg } from "./elements.js";
import { roving } from "./roving.js";
import { fixed, visible } from "./wording.js";

/** @typedef {import("./explorer").Explorer} Explorer */

/** The rows of the matrix over every token of the question. */
export class TokenStrip {
  /**
   * @param {Explorer} explorer
   * @param {HTMLElement} box
   */
  constructor(explorer, box) {
    this.explorer = explorer;
    this.box = box;
    /** @type {{rect: SVGRectElement, query: number, token: number}[]} */
    this.cells = [];
    roving(explorer, box, "The question's tokens", () =>
      this.cells.map((cell) => ({
        place: cell.rect,
        row: explorer.rows.findIndex(({ query }) => query === cell.query),
        column: cell.token,
        texts: () => this._texts(cell),
        choose: () => explorer.act.chooseCell([cell.query, 0]),
      })),
    );
  }

  build() {
    const { explorer } = this;
    const { shown, palette, rows } = explorer;
    this.cells = [];
    this.drawn = undefined;
    if (!shown.strip) {
      this.box.replaceChildren(noStrip(explorer));
      return;
    }
    const { zoom } = explorer.store.state;
    const texts = shown.strip.tokens.map(visible);
    const left = labelWidth(rows.map(({ name }) => name)) + 12;
    const [size, tall] = [17 * zoom, 18 * Math.max(1, zoom * 0.9)];
    const longest = Math.min(16, Math.max(...texts.map((text) => text.length)));
    const bottom = longest * 6.4 + 14;
    const { figure: drawn } = figure(
      Math.ceil(left + size * texts.length + 6),
      Math.ceil(tall * rows.length + bottom),
      palette,
    );
    rows.forEach((row, i) => {
      drawn.append(
        label(left - 6, i * tall + tall / 2 + 4, row.name, {
          "text-anchor": "end",
          fill: palette.ink,
        }),
      );
      texts.forEach((_, token) => {
        const rect = svg("rect", {
          x: left + token * size + 0.5,
          y: i * tall + 0.5,
          width: size - 1,
          height: tall - 1,
          "data-cell": this.cells.length,
        });
        this.cells.push({ rect, query: row.query, token });
        drawn.append(rect);
      });
    });
    texts.forEach((text, token) => {
      const [x, y] = [left + (token + 0.5) * size + 4, rows.length * tall + 9];
      const cut = text.length > 16 ? `${text.slice(0, 15)}…` : text;
      drawn.append(
        label(x, y, cut, {
          "text-anchor": "end",
          fill: palette.ink,
          transform: `rotate(-90 ${x} ${y})`,
        }),
      );
    });
    this.drawn = drawn;
    this.box.replaceChildren(drawn);
    this.paint();
  }

  paint() {
    const { explorer } = this;
    const { shown, palette, head } = explorer;
    if (!shown.strip || !this.drawn) return;
    if (!shown.strip.keeps(head)) {
      this.box.replaceChildren(noStrip(explorer));
      return;
    }
    if (!this.drawn.isConnected) this.box.replaceChildren(this.drawn);
    const most = explorer.stripScale(head);
    for (const { rect, query, token } of this.cells) {
      const value = shown.strip.at(head, query, token);
      rect.setAttribute(
        "fill",
        value === null ? palette.impossible : palette.attention(value / most),
      );
    }
  }

  /** @param {{query: number, token: number}} cell */
  _texts({ query, token }) {
    const { data, shown, head } = this.explorer;
    const { tokens } = /** @type {import("./data").Strip} */ (shown.strip);
    const value = shown.strip?.at(head, query, token) ?? null;
    return [
      `${data.names[head]}: ${data.payload.queries[query]} → token ${token} “${visible(tokens[token])}”`,
      value === null ? "undefined: no number in the answer" : `attention ${fixed(value)}`,
    ];
  }
}
