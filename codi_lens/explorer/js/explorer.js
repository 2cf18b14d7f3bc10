/**
 * The explorer: three linked panels on one state.
 *
 * @typedef {import("./state").State} State
 * @typedef {import("./state").Field} Field
 * @typedef {{fragment?: string, asked?: Partial<State>, onChange?: (explorer: Explorer) => void}} Settings
 *   a link's fragment, what is asked for beyond it, and who hears of changes
 */

import { Actions } from "./actions.js";
import { speak, write } from "./captions.js";
import { palette } from "./colours.js";
import { Controls } from "./controls.js";
import { set } from "./elements.js";
import { measured, normal, passing } from "./heads.js";
import { onKey } from "./keys.js";
import { Help, layout } from "./layout.js";
import { HeadMap } from "./map.js";
import { Matrix } from "./matrix.js";
import { ProblemPanel } from "./problem.js";
import { gather } from "./shown.js";
import { TokenStrip } from "./strip.js";
import { Store, fromFragment, selected, toFragment } from "./state.js";
import { HeadTable } from "./table.js";
import { keptTheme } from "./theme.js";
import { Tip } from "./tip.js";

/** @type {Field[]} what decides the attention that is shown */
const GATHERED = ["problem", "diff", "pin", "pinProblem"];
/** @type {Field[]} what decides which heads pass */
const FILTERS = ["layers", "label", "top", "significant"];
/** @type {Field[]} what decides how one head is drawn */
const HEAD = ["head", "preview", "locked", "scaled", "cell"];

export class Explorer {
  /**
   * Put the explorer into an element.
   * @param {HTMLElement} root
   * @param {import("./data").Data} data
   * @param {Settings} [settings]
   */
  static async open(root, data, settings = {}) {
    const { payload } = data;
    const first = firstState(payload);
    const asked = settings.fragment || (payload.opening?.examples[0]?.state ?? "");
    const given = { ...first, ...fromFragment(asked, data), ...settings.asked };
    const state = normal(data, given);
    const shown = await gather(data, state);
    return new Explorer(root, data, first, state, shown, settings.onChange ?? (() => {}));
  }

  /**
   * @param {HTMLElement} root
   * @param {import("./data").Data} data
   * @param {State} first
   * @param {State} state
   * @param {import("./shown").Shown} shown
   * @param {(explorer: Explorer) => void} onChange
   */
  constructor(root, data, first, state, shown, onChange) {
    this.root = root;
    this.data = data;
    this.first = first;
    this.store = new Store(state, (given) => normal(data, given));
    this.shown = shown;
    this.onChange = onChange;
    this.quantity = measured(data, state, shown);
    this.passes = passing(data, this.store.state, this.quantity);
    this.dark = this._isDark();
    this.palette = palette(data.payload.style, this.dark);
    root.classList.add("codi-lens-explorer");
    this.act = new Actions(this);
    this.tip = new Tip(root);
    this.help = new Help(root);
    this.controls = new Controls(this);
    this.boxes = layout(this, root);
    this.map = new HeadMap(this, this.boxes.map);
    this.matrix = new Matrix(this, this.boxes.first, false);
    this.second = new Matrix(this, this.boxes.second, true);
    this.strip = new TokenStrip(this, this.boxes.strip);
    this.problem = new ProblemPanel(this, this.boxes.problem);
    this.table = new HeadTable(this, this.boxes.table);
    this._asked = 0;
    this._ended = new AbortController();
    /** @type {Set<Field>} what has changed and is not drawn yet */
    this._pending = new Set();
    this._theme();
    this.build();
    this.table.build();
    this.controls.sync();
    this._listen();
    root.dataset.ready = "yes";
    onChange(this);
  }

  /** The head that is shown: locked, pointed at, or the last. */
  get head() {
    const { head, locked, preview } = this.store.state;
    return !locked && preview >= 0 ? preview : head;
  }

  /** Whether the page is the explorer's own. */
  get alone() {
    return this.root.parentElement === document.body;
  }

  /** Problems that the search finds. */
  get matching() {
    const wanted = this.store.state.search.trim().toLowerCase();
    return this.data.payload.problems.flatMap(({ id, question }, i) =>
      `${id} ${question ?? ""}`.toLowerCase().includes(wanted) ? [i] : [],
    );
  }

  /** @type {{query: number, name: string}[]} the rows of the view */
  get rows() {
    const { queries, generation } = this.data.payload;
    if (this.store.state.view === "position") {
      return queries.map((name, query) => ({ query, name }));
    }
    return generation.map(({ query, makes }) => ({
      query: queries.indexOf(query),
      name: `${makes} (at ${query})`,
    }));
  }

  /** @type {number[]} the columns of the view */
  get columns() {
    const { keys, possible } = this.data.payload;
    const { rows } = this;
    return keys.flatMap((_, key) => (rows.some(({ query }) => possible[query][key]) ? [key] : []));
  }

  /** What a link to this page needs to open it as it is. */
  get fragment() {
    return toFragment(this.store.state, this.first, this.data);
  }

  /** The locked head and the pinned one. */
  get selected() {
    return selected(this.store.state);
  }

  /**
   * The largest attention of the head's strip, where that is what its scale ends at.
   * @param {number} head
   */
  stripScale(head) {
    return (this.store.state.scaled && this.shown.strip?.largest(head)) || 1;
  }

  /**
   * Draw what has changed. What has to be unpacked first is waited for; whatever changes meanwhile
   * is drawn with it.
   * @param {Set<Field>} changed
   */
  async refresh(changed) {
    for (const field of changed) this._pending.add(field);
    const gathered = GATHERED.some((field) => this._pending.has(field));
    if (gathered && !(await this._gather())) return;
    const pending = this._pending;
    this._pending = new Set();
    this._draw(pending, gathered);
  }

  /**
   * @param {Set<Field>} changed
   * @param {boolean} gathered whether other attention is shown
   */
  _draw(changed, gathered) {
    const has = (/** @type {Field[]} */ names) => names.some((name) => changed.has(name));
    if (has(["theme"])) this._theme();
    const ofShown = ["cell", "difference"].includes(this.store.state.quantity);
    const anew = has(["quantity", "view"]) || (ofShown && (gathered || has(["cell"])));
    if (anew) this.quantity = measured(this.data, this.store.state, this.shown);
    if (anew || has(FILTERS)) {
      this.passes = passing(this.data, this.store.state, this.quantity);
      this.map.paint();
    }
    if (has(["view", "zoom", "theme", "pin"])) this.build();
    else if (gathered) this._paintProblem();
    else if (anew || has(HEAD)) this._paintHead();
    if (has(["head", "preview", "locked", "pin"])) this.map.mark();
    if (anew) this.table.build();
    else if (has(FILTERS)) this.table.arrange();
    else if (has(["head", "pin", "locked"])) this.table.fill();
    if (changed.size === 1 && has(["preview"])) return;
    this.controls.sync();
    this.onChange(this);
  }

  /** All figures anew. */
  build() {
    const pinned = this.store.state.pin >= 0;
    this.root.classList.toggle("pinned", pinned);
    this.map.build();
    this.matrix.build();
    if (pinned) this.second.build();
    this._paintProblem();
  }

  _paintProblem() {
    this.strip.build();
    this.problem.build();
    this._paintHead();
  }

  _paintHead() {
    this.matrix.paint();
    if (this.store.state.pin >= 0) this.second.paint();
    this.strip.paint();
    this.problem.paint();
    write(this);
    clearTimeout(this._speaking);
    this._speaking = setTimeout(() => speak(this), 200);
  }

  async _gather() {
    const asked = ++this._asked;
    const shown = await gather(this.data, this.store.state);
    if (asked !== this._asked) return false; // another was asked for meanwhile
    this.shown = shown;
    return true;
  }

  _isDark() {
    const { theme } = this.store.state;
    const host = document.body.dataset.jpThemeLight; // JupyterLab says which theme it has
    const system = matchMedia("(prefers-color-scheme: dark)").matches;
    const kept = this.alone ? keptTheme() : null;
    const chosen = theme === "auto" ? kept : theme;
    if (chosen) return chosen === "dark";
    return host ? host === "false" : system;
  }

  _theme() {
    this.dark = this._isDark();
    this.palette = palette(this.data.payload.style, this.dark);
    this.root.dataset.theme = this.dark ? "dark" : "light";
    this.boxes.theme.textContent = this.dark ? "Light" : "Dark";
    set(this.boxes.theme, { "aria-label": this.dark ? "Light colours" : "Dark colours" });
  }

  _listen() {
    this.store.subscribe((changed) => void this.refresh(changed));
    if (!this.alone) this.root.tabIndex = 0;
    const { signal } = this._ended;
    const listening = this.alone ? document : this.root;
    const key = (/** @type {Event} */ event) => {
      if (event instanceof KeyboardEvent) onKey(this, event);
    };
    listening.addEventListener("keydown", key, { signal });
    // A text beside the pointer goes when what it tells of goes; one beside a cell in focus stays.
    const gone = (/** @type {Event} */ event) => {
      const inside = event.target instanceof Element && event.target.closest("[data-cell]");
      const kept = event.type === "scroll" ? this.root.querySelector("[data-at]") : inside;
      if (!kept) this.tip.hide();
    };
    addEventListener("scroll", gone, { capture: true, passive: true, signal });
    addEventListener("pointerdown", gone, { capture: true, passive: true, signal });
    const system = matchMedia("(prefers-color-scheme: dark)");
    const turn = () => {
      this._theme();
      this.build();
    };
    system.addEventListener("change", turn, { signal });
    let width = this.root.clientWidth;
    const resized = new ResizeObserver(() => {
      if (Math.abs(this.root.clientWidth - width) < 2) return;
      width = this.root.clientWidth;
      this.build();
      this.table.fill();
    });
    resized.observe(this.root);
    signal.addEventListener("abort", () => resized.disconnect());
  }

  /** Hear of nothing any more. */
  close() {
    this._ended.abort();
  }
}

/**
 * Before anything is chosen: the head that is first by the first quantity.
 * @param {import("./schema").Payload} payload
 * @returns {State}
 */
function firstState(payload) {
  const given = payload.quantities.find(({ view }) => view !== "generation");
  const weights = (given?.values ?? []).map((value) => value ?? -Infinity);
  return {
    head: Math.max(0, weights.indexOf(Math.max(...weights))),
    locked: false,
    preview: -1,
    pin: -1,
    pinProblem: null,
    problem: -1,
    view: "position",
    quantity: given?.name ?? "cell",
    diff: "",
    scaled: false,
    cell: null,
    layers: [payload.layers[0], payload.layers[payload.layers.length - 1]],
    label: "",
    top: 0,
    significant: false,
    search: "",
    zoom: 1,
    theme: "auto",
  };
}
