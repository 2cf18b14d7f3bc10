/** What a visitor does: point, lock, pin, step, compare, take along. */

import { nearest } from "./arrows.js";
import { choices } from "./heads.js";
import { comparisons } from "./shown.js";
import { asPng, asSvg, composed, copy, download, selection } from "./save.js";
import { fromFragment } from "./state.js";
import { keepTheme } from "./theme.js";

/** @typedef {import("./explorer").Explorer} Explorer */

const ZOOMS = [1, 1.5, 2, 3];

export class Actions {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
  }

  /** @param {number} head -1 for none */
  point(head) {
    this.explorer.store.set({ preview: this.explorer.store.state.locked ? -1 : head });
  }

  /** @param {number} head lock it, or release it if it is locked */
  lock(head) {
    const { state } = this.explorer.store;
    this.explorer.store.set({ head, locked: !(state.locked && state.head === head), preview: -1 });
    this._toHead();
  }

  /** @param {number} head */
  show(head) {
    this.explorer.store.set({ head, locked: true, preview: -1 });
    this._toHead();
  }

  /** On a phone the head lies under the map: bring it into sight when it is out of it. */
  _toHead() {
    const { top, bottom } = this.explorer.boxes.first.getBoundingClientRect();
    if (bottom < 40 || top > window.innerHeight - 40) {
      this.explorer.boxes.headTitle.scrollIntoView({
        block: "start",
        behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
      });
    }
  }

  /** @param {number} head a second one, beside the first; again to take it away */
  pin(head) {
    const gone =
      this.explorer.store.state.pin === head && this.explorer.store.state.pinProblem === null;
    this.explorer.store.set({ pin: gone ? -1 : head, pinProblem: null });
  }

  /** Pin the head as it is in this problem, to hold it against others. */
  pinHere() {
    this.explorer.store.set({
      pin: this.explorer.head,
      pinProblem: this.explorer.store.state.problem,
    });
  }

  /** @param {[number, number]} cell again to release it */
  chooseCell(cell) {
    const same = this.explorer.store.state.cell?.join() === cell.join();
    this.explorer.store.set({ cell: same ? null : cell });
  }

  clear() {
    this.explorer.store.set({
      locked: false,
      preview: -1,
      pin: -1,
      pinProblem: null,
      cell: null,
      diff: "",
    });
  }

  /** @param {string} key an arrow: to the nearest head in that direction that passes the filters */
  moveHead(key) {
    const { data, passes, head } = this.explorer;
    const heads = passes.flatMap((passed, other) => (passed ? [other] : []));
    const next = heads[nearest(heads.map(data.place), data.place(head), key)];
    if (next !== undefined) this.explorer.store.set({ head: next, locked: true, preview: -1 });
  }

  /** @param {boolean} first or last */
  bestHead(first) {
    const order = this.explorer.quantity.order.filter((head) => this.explorer.passes[head]);
    if (order.length)
      this.explorer.store.set({
        head: order[first ? 0 : order.length - 1],
        locked: true,
        preview: -1,
      });
  }

  /** @param {number} step */
  stepRank(step) {
    const order = this.explorer.quantity.order.filter((head) => this.explorer.passes[head]);
    const head = order[order.indexOf(this.explorer.head) + step];
    if (head !== undefined) this.explorer.store.set({ head, locked: true, preview: -1 });
  }

  /**
   * @param {number} step among the problems that the search finds; before the first is the mean
   * @param {boolean} [round] whether the first comes after the last
   */
  stepProblem(step, round = false) {
    const { matching, store } = this.explorer;
    if (!matching.length) return;
    const { problem } = store.state;
    const places = [-1, ...matching];
    const next =
      step > 0
        ? (matching.find((place) => place > problem) ?? (round ? matching[0] : undefined))
        : places.findLast((place) => place < problem);
    if (next !== undefined) store.set({ problem: next });
  }

  /** @param {number} wanted the problem, or the next in its direction that the search finds */
  toMatching(wanted) {
    const { matching, store, controls } = this.explorer;
    const { problem } = store.state;
    const places = [-1, ...matching];
    const beyond =
      wanted > problem
        ? places.find((place) => place >= wanted)
        : places.findLast((place) => place <= wanted);
    const last = wanted > problem ? places[places.length - 1] : -1;
    const next = beyond ?? (matching.length ? last : problem);
    if (next === problem || !matching.length) controls.sync();
    else store.set({ problem: next });
  }

  nextDiff() {
    const { problem, diff } = this.explorer.store.state;
    const list = comparisons(this.explorer.data, problem).filter(({ group }) => group === "");
    const ways = list.map(({ value }) => value);
    this.explorer.store.set({ diff: ways[(ways.indexOf(diff) + 1) % ways.length] });
  }

  nextView() {
    if (!this.explorer.data.payload.generation.length) return;
    this.explorer.store.set({
      view: this.explorer.store.state.view === "position" ? "generation" : "position",
    });
  }

  nextQuantity() {
    const names = choices(this.explorer.data, this.explorer.store.state).map(({ name }) => name);
    this.explorer.store.set({
      quantity: names[(names.indexOf(this.explorer.store.state.quantity) + 1) % names.length],
    });
  }

  /** @param {number} step */
  zoom(step) {
    const place = ZOOMS.indexOf(this.explorer.store.state.zoom) + step;
    this.explorer.store.set({ zoom: ZOOMS[Math.min(Math.max(place, 0), ZOOMS.length - 1)] });
  }

  turnTheme() {
    const theme = this.explorer.dark ? "light" : "dark";
    if (this.explorer.alone) keepTheme(theme);
    this.explorer.store.set({ theme });
  }

  /** @param {string} fragment of a link */
  restore(fragment) {
    this.explorer.store.set({
      ...this.explorer.first,
      theme: this.explorer.store.state.theme,
      ...fromFragment(fragment, this.explorer.data),
    });
  }

  copySelection() {
    const heads = this.explorer.selected.length ? this.explorer.selected : [this.explorer.head];
    this._say(
      copy(selection(heads, this.explorer.data), this.explorer.root),
      `copied ${selection(heads, this.explorer.data)}`,
    );
  }

  copyLink() {
    const address = `${location.href.split("#")[0]}#${this.explorer.fragment}`;
    this._say(copy(address, this.explorer.root), "link copied");
  }

  saveTable() {
    download("heads.csv", new Blob([this.explorer.table.csv()], { type: "text/csv" }));
  }

  /**
   * The matrices, or the map, with what their headings and legends say.
   * @param {"png" | "svg"} kind
   * @param {"head" | "map"} what
   */
  async saveFigure(kind, what) {
    const { boxes, map, matrix, second, data, head, palette, store, quantity } = this.explorer;
    const { mapTitle, mapNote, firstName, firstLegend, secondName, secondLegend } = boxes;
    /** @type {[HTMLElement, HTMLElement, SVGSVGElement | undefined][]} */
    const drawn =
      what === "map"
        ? [[mapTitle, mapNote, map.drawn]]
        : [
            [firstName, firstLegend, matrix.drawn],
            [secondName, secondLegend, store.state.pin < 0 ? undefined : second.drawn],
          ];
    const parts = drawn.flatMap(([title, note, figure]) =>
      figure ? [{ title: title.textContent ?? "", note: said(note), figure }] : [],
    );
    if (what === "map")
      parts[0].note = [parts[0].note, said(map.legend)].filter(Boolean).join(" · ");
    const whole = composed(parts, palette);
    const name =
      what === "map" ? quantity.quantity.label.replace(/[^\w]+/g, "_") : data.names[head];
    download(`${name}.${kind}`, kind === "svg" ? asSvg(whole) : await asPng(whole));
  }

  /**
   * @param {Promise<boolean>} done
   * @param {string} text
   */
  _say(done, text) {
    void done.then((copied) => {
      this.explorer.boxes.said.textContent = copied
        ? text
        : "the browser does not let this page copy";
    });
  }
}

/**
 * The texts of a note or a legend, apart.
 * @param {HTMLElement} box
 */
function said(box) {
  const parts = box.children.length ? [...box.children] : [box];
  return parts
    .map((part) => part.textContent ?? "")
    .filter(Boolean)
    .join(" · ");
}
