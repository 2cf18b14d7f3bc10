/**
 * A number for every head, and which heads pass the filters.
 *
 * @typedef {import("./data").Data} Data
 * @typedef {import("./state").State} State
 * @typedef {import("./shown").Shown} Shown
 */

import { fixed, significance } from "./wording.js";

/** A quantity whose numbers may come from the attention that is shown. */
export class Measured {
  /** @param {import("./schema").Quantity} quantity */
  constructor(quantity) {
    this.quantity = quantity;
    const known = quantity.values.filter((value) => value !== null);
    this.least = known.length ? Math.min(...known) : 0;
    this.most = known.length ? Math.max(...known) : 0;
    this.reach = Math.max(Math.abs(this.least), Math.abs(this.most)) || 1;
    /** @type {number[]} heads that have a number, best first */
    this.order = quantity.values
      .flatMap((value, head) => (value === null ? [] : [head]))
      .sort((a, b) => this.weight(b) - this.weight(a) || a - b);
    /** @type {number[]} equal heads share the better rank */
    this._ranks = [];
    this.order.forEach((head, i) => {
      const before = this.order[i - 1];
      const tied = i > 0 && this.weight(before) === this.weight(head);
      this._ranks[head] = tied ? this._ranks[before] : i + 1;
    });
    /** So many decimals that the largest number has three figures or more. */
    this.digits = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(this.reach))));
  }

  /** @param {number | null | undefined} value */
  fixed(value) {
    return fixed(value, Math.max(this.reach < 100 ? 3 : 0, this.digits));
  }

  /** @param {number} head */
  value(head) {
    return this.quantity.values[head];
  }

  /**
   * What heads are ordered by: a score, or the size of an effect.
   * @param {number} head
   */
  weight(head) {
    const value = this.quantity.values[head] ?? -Infinity;
    return this.quantity.signed ? Math.abs(value) : value;
  }

  /** @param {number} head */
  rank(head) {
    return this._ranks[head];
  }

  /**
   * Where a head lies on the scale: 0 to 1, or -1 to 1 where it is signed.
   * @param {number} head
   */
  along(head) {
    const value = this.quantity.values[head] ?? 0;
    if (this.quantity.signed) return value / this.reach;
    return this.most > this.least ? (value - this.least) / (this.most - this.least) : 1;
  }

  /**
   * How firm a head's number is: 1 less what its interval takes of the scale, or of an effect, to
   * 0.55 at least, so that no colour is taken for another.
   * @param {number} head
   */
  firmness(head) {
    const { low, high, signed } = this.quantity;
    const [from, to] = [low?.[head] ?? null, high?.[head] ?? null];
    if (from === null || to === null) return 1;
    const span = signed ? 2 * Math.abs(this.value(head) ?? 0) : this.most - this.least;
    return 1 - 0.45 * (span > 0 ? Math.min(1, (to - from) / span) : 0);
  }

  /** @param {number} head whether its interval lies clear of 0, adjusted for the number of heads */
  isSignificant(head) {
    const q = this.quantity.q?.[head];
    return q !== null && q !== undefined && q < 0.05;
  }

  /**
   * A head's number with its interval.
   * @param {number} head
   */
  numbers(head) {
    const { low, high, values } = this.quantity;
    const [from, to] = [low?.[head] ?? null, high?.[head] ?? null];
    const within = from === null || to === null ? "" : ` [${this.fixed(from)}, ${this.fixed(to)}]`;
    return `${this.fixed(values[head])}${within}`;
  }

  /** @param {number} head */
  text(head) {
    const { q, unit, values } = this.quantity;
    if (values[head] === null) return "not measured";
    const own = q?.[head] ?? null;
    const sure = own === null ? "" : `(${significance(own)})`;
    return [this.numbers(head), unit ?? "", sure].filter(Boolean).join(" ");
  }
}

/**
 * The quantities that a view has, those of the attention that is shown last.
 * @param {Data} data
 * @param {State} state
 */
export function choices(data, state) {
  const given = data.payload.quantities.filter(({ view }) => view === null || view === state.view);
  const shown = [
    { name: "cell", label: "attention of the chosen cell", group: "of what is shown" },
    { name: "difference", label: "total difference", group: "of what is shown" },
  ];
  const named = given.map(({ name, label, group, constant }) => ({
    name,
    label: constant ? `${label} (constant: ranks nothing)` : label,
    group,
  }));
  return [...named, ...shown];
}

/**
 * A state that this page can show: the view has its quantity, and heads of its label.
 * @param {Data} data
 * @param {State} state
 * @returns {State}
 */
export function normal(data, state) {
  const offered = choices(data, state);
  const { quantities, labels } = data.payload;
  let { quantity, label } = state;
  if (!offered.some(({ name }) => name === quantity)) {
    const old = quantities.find(({ name }) => name === quantity)?.label ?? "";
    quantity = (offered.find((each) => each.label.startsWith(old)) ?? offered[0]).name;
  }
  const [kind, ...rest] = label.split("/");
  const value = rest.join("/");
  const has = labels.some(
    ({ name, view, values }) =>
      name === kind && (view ?? state.view) === state.view && values.includes(value),
  );
  if (!has) label = "";
  return { ...state, quantity, label };
}

/**
 * The quantity that the map shows.
 * @param {Data} data
 * @param {State} state
 * @param {Shown} shown
 * @returns {Measured}
 */
export function measured(data, state, shown) {
  const given = data.payload.quantities.find(({ name }) => name === state.quantity);
  if (given) return new Measured(given);
  const isCell = state.quantity !== "difference";
  const [query, key] =
    state.cell ?? data.payload.possible.flatMap((row, i) => (row[0] ? [[i, 0]] : []))[0];
  const heads = Array.from({ length: data.nHeads }, (_, head) => head);
  const numbers = heads.map((head) => {
    const value = isCell
      ? shown.at(head, query, key)
      : shown.isDifference
        ? shown.total(head)
        : null;
    return value === null || Number.isNaN(value) ? null : value;
  });
  const half = isCell && shown.half && !shown.isDifference ? shown.half : null;
  const bound = (/** @type {number} */ sign) =>
    half &&
    heads.map((head) => {
      const wide = half[head * data.nCells + query * data.nKeys + key];
      const value = numbers[head];
      return value === null || Number.isNaN(wide) ? null : value + sign * wide;
    });
  const edge = `${data.payload.queries[query]} → ${data.payload.keys[key]}`;
  const where = shown.isDifference ? `, less that of ${shown.baselineName}` : "";
  const { problems } = data.payload;
  const of = shown.problem < 0 ? "" : `, problem ${problems[shown.problem].id}`;
  return new Measured({
    name: state.quantity,
    label: isCell
      ? `Attention ${edge}${of}${where}`
      : shown.isDifference
        ? `Total difference from ${shown.baselineName}${of}`
        : "Total difference: choose what to compare with",
    group: "of what is shown",
    view: null,
    scope: null,
    unit: null,
    n: shown.problem < 0 ? data.payload.series[0].n : null,
    signed: isCell && shown.isDifference,
    constant: false,
    values: numbers,
    low: bound(-1),
    high: bound(1),
    q: null,
  });
}

/**
 * Which heads pass the filters, by head.
 * @param {Data} data
 * @param {State} state
 * @param {Measured} quantity
 */
export function passing(data, state, quantity) {
  const { layers, heads, labels } = data.payload;
  const [name, ...rest] = state.label.split("/");
  const wanted = rest.join("/");
  const label = labels.find(
    (each) => each.name === name && (each.view ?? state.view) === state.view,
  );
  const best = state.top ? new Set(quantity.order.slice(0, state.top)) : null;
  return Array.from({ length: data.nHeads }, (_, head) => {
    const layer = layers[Math.floor(head / heads.length)];
    if (layer < state.layers[0] || layer > state.layers[1]) return false;
    if (state.label && label?.values[head] !== wanted) return false;
    if (best && !best.has(head)) return false;
    return !state.significant || quantity.isSignificant(head);
  });
}
