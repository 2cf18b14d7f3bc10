/** The table of heads. Only the rows in sight exist; they are filled anew as it scrolls. */

import { cue, html, set } from "./elements.js";
import { Measured } from "./heads.js";

/**
 * @typedef {import("./explorer").Explorer} Explorer
 * @typedef {{name: string, title: string, number: boolean, text: (head: number) => string, order: (head: number) => number | string | null}} Column
 */

const ROW = 30;
const MARGIN = 4;

export class HeadTable {
  /**
   * @param {Explorer} explorer
   * @param {HTMLElement} box
   */
  constructor(explorer, box) {
    this.explorer = explorer;
    this.header = html("div", { class: "row header", role: "row" });
    this.body = html("div", { class: "body", role: "rowgroup" });
    this.scroller = html(
      "div",
      { class: "scroller", role: "table", tabindex: "0", "aria-label": "Heads" },
      html("div", { role: "rowgroup" }, this.header),
      this.body,
    );
    box.append(cue(this.scroller));
    /** @type {HTMLElement[]} */
    this.rows = [];
    /** @type {number[]} */
    this.order = [];
    /** @type {Column[]} */
    this.columns = [];
    this.sort = { column: "", down: true };
    this.scroller.addEventListener("scroll", () => this.fill());
    this.body.addEventListener("click", (event) => {
      const row = event.target instanceof Element ? event.target.closest("[data-head]") : null;
      if (!row) return;
      const head = Number(row.getAttribute("data-head"));
      if (event instanceof MouseEvent && event.shiftKey) explorer.act.pin(head);
      else explorer.act.lock(head);
    });
  }

  /** Columns of the view and of the quantity, and the order of rows. */
  build() {
    const { data, store, quantity } = this.explorer;
    const { view } = store.state;
    const others = data.payload.quantities.filter(
      (each) => (each.view === null || each.view === view) && each.name !== quantity.quantity.name,
    );
    /** @type {Column[]} */
    const labels = data.payload.labels
      .filter((each) => each.view === null || each.view === view)
      .map(({ name, values }) => ({
        name,
        title: name,
        number: false,
        text: (head) => values[head],
        order: (head) => values[head],
      }));
    this.columns = [
      {
        name: "head",
        title: "head",
        number: false,
        text: (head) => data.names[head],
        order: (head) => head,
      },
      {
        name: "rank",
        title: "rank",
        number: true,
        text: (head) => String(quantity.rank(head) ?? "–"),
        order: (head) => quantity.rank(head) ?? null,
      },
      this._column(quantity.quantity),
      ...labels,
      ...others.map((each) => this._column(each)),
    ];
    if (!this.columns.some(({ name }) => name === this.sort.column))
      this.sort = { column: "rank", down: false };
    const cells = this.columns.map(({ name, title, number }) => {
      const button = html("button", { type: "button", title }, title);
      button.addEventListener("click", () => {
        this.sort = {
          column: name,
          down: this.sort.column === name ? !this.sort.down : number && name !== "rank",
        };
        this.arrange();
      });
      return html(
        "div",
        { class: number ? "cell number" : "cell", role: "columnheader", "data-column": name },
        button,
      );
    });
    this.header.replaceChildren(...cells);
    const heads = data.names.map((_, head) => head);
    const widths = this.columns.map(({ title, text }) => {
      // A long title is cut, so that the numbers are in sight; it tells the rest when pointed at.
      const longest = Math.max(
        Math.min(18, title.length) + 2,
        ...heads.map((head) => text(head).length),
      );
      return `${Math.ceil(8.6 * longest + 14)}px`;
    });
    this.scroller.style.setProperty("--columns", widths.join(" "));
    this.rows.forEach((row) => row.remove());
    this.rows = [];
    this.arrange();
  }

  /**
   * @param {import("./schema").Quantity} quantity
   * @returns {Column}
   */
  _column(quantity) {
    const measured = new Measured(quantity);
    return {
      name: quantity.name,
      title: quantity.label,
      number: true,
      text: (head) => measured.numbers(head),
      order: (head) => quantity.values[head],
    };
  }

  /** The heads that pass the filters, sorted. */
  arrange() {
    const { passes } = this.explorer;
    const column = this.columns.find(({ name }) => name === this.sort.column) ?? this.columns[0];
    const keys = passes.map((_, head) => column.order(head));
    const sign = this.sort.down ? -1 : 1;
    this.order = passes
      .flatMap((passed, head) => (passed ? [head] : []))
      .sort((a, b) => {
        const [one, other] = [keys[a], keys[b]];
        if (one === null || other === null)
          return Number(one === null) - Number(other === null) || a - b;
        if (typeof one === "string" || typeof other === "string")
          return sign * String(one).localeCompare(String(other), "en", { numeric: true }) || a - b;
        return sign * (one - other) || a - b;
      });
    for (const cell of this.header.children) {
      const sorted = cell.getAttribute("data-column") === column.name;
      if (sorted) cell.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    this.body.style.height = `${ROW * this.order.length}px`;
    set(this.scroller, { "aria-rowcount": this.order.length + 1 });
    this.fill();
  }

  /** Put the heads that are in sight into rows. */
  fill() {
    const height = this.scroller.clientHeight || 420;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - MARGIN);
    const n = Math.min(
      Math.ceil(height / ROW) + 2 * MARGIN,
      Math.max(0, this.order.length - first),
    );
    while (this.rows.length < n) {
      const row = html(
        "div",
        { class: "row", role: "row" },
        ...this.columns.map(({ number }) =>
          html("div", { class: number ? "cell number" : "cell", role: "cell" }),
        ),
      );
      row.children[0].append(html("button", { type: "button", class: "link" }));
      this.rows.push(row);
      this.body.append(row);
    }
    const { state } = this.explorer.store;
    this.rows.forEach((row, i) => {
      row.hidden = i >= n;
      if (i >= n) return;
      const head = this.order[first + i];
      set(row, {
        "data-head": head,
        "aria-rowindex": first + i + 2,
        style: `transform:translateY(${ROW * (first + i)}px)`,
        "data-shown": head === state.head || head === state.pin ? "yes" : "no",
      });
      this.columns.forEach(({ text, name }, c) => {
        const cell = name === "head" ? row.children[c].children[0] : row.children[c];
        const value = text(head);
        if (cell.textContent !== value) cell.textContent = value;
      });
    });
  }

  /** The table as it is: filtered, sorted, with the ends of intervals in columns of their own. */
  csv() {
    const { data } = this.explorer;
    const known = new Map(data.payload.quantities.map((each) => [each.name, each]));
    const chosen = this.explorer.quantity.quantity;
    known.set(chosen.name, chosen);
    const columns = this.columns.flatMap(({ name: own, title, text }) => {
      const quantity = known.get(own);
      // What is of the attention that is shown says of which.
      const name = ["cell", "difference"].includes(own) ? title : own;
      /** @type {[string, (head: number) => string][]} */
      const made = [
        [name, (head) => (quantity ? String(quantity.values[head] ?? "") : text(head))],
      ];
      if (quantity?.low) made.push([`${name}_low`, (head) => String(quantity.low?.[head] ?? "")]);
      if (quantity?.high)
        made.push([`${name}_high`, (head) => String(quantity.high?.[head] ?? "")]);
      if (quantity?.q) made.push([`${name}_q`, (head) => String(quantity.q?.[head] ?? "")]);
      return made;
    });
    const quoted = (/** @type {string} */ text) =>
      /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
    const lines = [
      columns.map(([name]) => name),
      ...this.order.map((head) => columns.map(([, value]) => value(head))),
    ];
    return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  }
}
