/**
 * What is shown: one state for all panels. A link's fragment holds it, and restores it.
 *
 * @typedef {object} State
 * @property {number} head the locked head, or the one that the page opens on
 * @property {boolean} locked
 * @property {number} preview a head that is pointed at; -1 for none
 * @property {number} pin a second head beside it; -1 for none
 * @property {number | null} pinProblem the problem that the second head stays in; null: it follows
 * @property {number} problem -1 is the mean over problems
 * @property {"position" | "generation"} view
 * @property {string} quantity what the map shows
 * @property {string} diff "" for none, "mean", "series/1", "problem/<id>"
 * @property {boolean} scaled whether attention is drawn on a scale of its own for this head
 * @property {[number, number] | null} cell of the matrix: query and key
 * @property {[number, number]} layers first and last that pass the filter
 * @property {string} label "" for all, else name and value of a label, "type/Forward Flow"
 * @property {number} top only so many heads, best first; 0 for all
 * @property {boolean} significant only heads whose effect differs from 0
 * @property {string} search in the problems' texts
 * @property {number} zoom of matrix and strip
 * @property {"auto" | "light" | "dark"} theme
 */

import { comparisons } from "./shown.js";

/** @typedef {keyof State} Field */

export class Store {
  /**
   * @param {State} initial
   * @param {(state: State) => State} normal what a state has to be for this page
   */
  constructor(initial, normal) {
    this.state = normal(initial);
    this._normal = normal;
    /** @type {((changed: Set<Field>) => void)[]} */
    this._listeners = [];
  }

  /** @param {(changed: Set<Field>) => void} listener */
  subscribe(listener) {
    this._listeners.push(listener);
  }

  /** @param {Partial<State>} changes */
  set(changes) {
    const before = this.state;
    this.state = this._normal({ ...before, ...changes });
    const fields = /** @type {Field[]} */ (Object.keys(this.state));
    const changed = new Set(
      fields.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(this.state[name])),
    );
    if (changed.size) for (const listener of this._listeners) listener(changed);
  }
}

/**
 * The locked head and the pinned one.
 * @param {Partial<State>} state
 */
export function selected({ head = -1, locked = false, pin = -1 }) {
  return [...new Set([...(locked ? [head] : []), ...(pin >= 0 ? [pin] : [])])];
}

/**
 * The state as the fragment of a link; what is as it was at first is left out.
 * @param {State} state
 * @param {State} first
 * @param {import("./data").Data} data
 */
export function toFragment(state, first, data) {
  /** @param {number} problem */
  const id = (problem) => (problem < 0 ? "" : data.payload.problems[problem].id);
  const frozen = state.pinProblem === null ? "" : `@${id(state.pinProblem)}`;
  /** @type {[string, string, boolean][]} */
  const fields = [
    ["head", data.names[state.head], true],
    ["locked", "0", !state.locked],
    ["pin", state.pin < 0 ? "" : data.names[state.pin] + frozen, state.pin >= 0],
    ["problem", id(state.problem), state.problem !== first.problem],
    ["view", state.view, state.view !== first.view],
    ["quantity", state.quantity, state.quantity !== first.quantity],
    ["diff", state.diff, state.diff !== ""],
    ["scaled", "1", state.scaled],
    [
      "cell",
      state.cell
        ? `${data.payload.queries[state.cell[0]]},${data.payload.keys[state.cell[1]]}`
        : "",
      state.cell !== null,
    ],
    ["layers", state.layers.join("-"), state.layers.join() !== first.layers.join()],
    ["label", state.label, state.label !== ""],
    ["top", String(state.top), state.top > 0],
    ["significant", "1", state.significant],
    ["search", state.search, state.search !== ""],
    ["zoom", String(state.zoom), state.zoom !== 1],
    ["theme", state.theme, state.theme !== "auto"],
  ];
  const kept = fields.filter(([, , shown]) => shown).map(([name, value]) => [name, value]);
  return new URLSearchParams(kept).toString();
}

/**
 * What a fragment asks for; whatever it holds that this page does not have is left out.
 * @param {string} fragment
 * @param {import("./data").Data} data
 * @returns {Partial<State>}
 */
export function fromFragment(fragment, data) {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  /** @type {Partial<State>} */
  const found = {};
  const text = (/** @type {string} */ name) => given.get(name) ?? "";
  const { queries, keys, layers, quantities } = data.payload;
  const head = data.headOf(text("head"));
  if (head >= 0) Object.assign(found, { head, locked: text("locked") !== "0" });
  const [pinned, ...where] = text("pin").split("@");
  const pin = data.headOf(pinned);
  if (pin >= 0) {
    const at = where.length ? problemNamed(where.join("@"), data) : null;
    Object.assign(found, { pin, pinProblem: at });
  }
  const problem = given.has("problem") ? problemNamed(text("problem"), data) : null;
  if (problem !== null) found.problem = problem;
  const view = text("view");
  if (view === "position" || (view === "generation" && data.payload.generation.length))
    found.view = view;
  const known = [...quantities.map(({ name }) => name), "cell", "difference"];
  if (known.includes(text("quantity"))) found.quantity = text("quantity");
  const compared = comparisons(data, found.problem ?? -1).map(({ value }) => value);
  if (compared.includes(text("diff"))) found.diff = text("diff");
  if (given.has("scaled")) found.scaled = text("scaled") === "1";
  const [query, key] = text("cell").split(",");
  const [row, column] = [queries.indexOf(query), keys.indexOf(key)];
  if (row >= 0 && column >= 0 && data.payload.possible[row][column]) found.cell = [row, column];
  const [first, last] = text("layers").split("-").map(Number);
  if (layers.includes(first) && layers.includes(last) && first <= last)
    found.layers = [first, last];
  const labels = data.payload.labels.flatMap(({ name, values }) =>
    values.map((value) => `${name}/${value}`),
  );
  if (labels.includes(text("label"))) found.label = text("label");
  if (/^\d{1,6}$/.test(text("top"))) found.top = Number(text("top"));
  if (given.has("significant")) found.significant = text("significant") === "1";
  if (given.has("search")) found.search = text("search");
  if (/^(1|1\.5|2|3)$/.test(text("zoom"))) found.zoom = Number(text("zoom"));
  const theme = text("theme");
  if (theme === "light" || theme === "dark") found.theme = theme;
  return found;
}

/**
 * @param {string} id
 * @param {import("./data").Data} data
 * @returns {number | null}
 */
function problemNamed(id, data) {
  if (id === "") return -1;
  const problem = data.problemOf(id);
  return problem < 0 ? null : problem;
}
