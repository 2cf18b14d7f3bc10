/** What can be chosen: quantity and filters of the map, view and comparison of the head, the problem. */

import { html } from "./elements.js";
import { choices } from "./heads.js";
import { comparisons } from "./shown.js";
import { count, meanOver } from "./wording.js";

/** @typedef {import("./explorer").Explorer} Explorer */

const TOPS = [5, 10, 20, 50, 100];

export class Controls {
  /** @param {Explorer} explorer */
  constructor(explorer) {
    this.explorer = explorer;
    const { data, store } = explorer;
    this.quantity = this._select("Quantity", (value) => store.set({ quantity: value }));
    this.diff = this._select("Compare with", (value) => store.set({ diff: value }));
    this.from = this._select("Layers from", (value) =>
      store.set({ layers: [Number(value), Math.max(Number(value), store.state.layers[1])] }),
    );
    this.to = this._select("Layers to", (value) =>
      store.set({ layers: [Math.min(store.state.layers[0], Number(value)), Number(value)] }),
    );
    this.label = this._select("Type or band", (value) => store.set({ label: value }));
    this.top = this._select("Best", (value) => store.set({ top: Number(value) }));
    this.significant = this._check("q < 0.05 only", (checked) =>
      store.set({ significant: checked }),
    );
    this.scaled = this._check("Scaled to this head", (checked) => store.set({ scaled: checked }));
    this.hidden = html("p", { class: "quiet", "aria-live": "polite" });
    this.filters = html(
      "details",
      { class: "filters" },
      html("summary", {}, "Filters"),
      html(
        "div",
        { class: "fields" },
        this.from.field,
        this.to.field,
        this.label.field,
        this.top.field,
        this.significant.field,
      ),
    );
    this.views = this._views();
    this.slider = html("input", {
      type: "range",
      min: "-1",
      max: String(data.payload.problems.length - 1),
      step: "1",
      "aria-label": "Problem",
    });
    this.place = html("output", { class: "place" });
    this.search = html("input", {
      type: "search",
      placeholder: "search text",
      "aria-label": "Search the problems",
    });
    this.found = html("span", { class: "quiet", "aria-live": "polite" });
    this.problem = this._problem();
    for (const layer of data.payload.layers) {
      this.from.select.append(html("option", { value: String(layer) }, `L${layer}`));
      this.to.select.append(html("option", { value: String(layer) }, `L${layer}`));
    }
    const tops = TOPS.filter((n) => n < data.nHeads).map((n) =>
      html("option", { value: String(n) }, `top ${n}`),
    );
    this.top.select.append(html("option", { value: "0" }, "all heads"), ...tops);
  }

  _problem() {
    const { explorer } = this;
    const { store } = explorer;
    const button = (
      /** @type {string} */ text,
      /** @type {string} */ name,
      /** @type {() => void} */ act,
    ) => {
      const made = html("button", { type: "button", "aria-label": name, title: name }, text);
      made.addEventListener("click", act);
      return made;
    };
    this.slider.addEventListener("input", () => explorer.act.toMatching(Number(this.slider.value)));
    this.search.addEventListener("input", () => store.set({ search: this.search.value }));
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") explorer.act.stepProblem(1, true);
    });
    return html(
      "div",
      { class: "stepper" },
      html(
        "div",
        { class: "steps" },
        button("mean", "Mean over problems", () => store.set({ problem: -1 })),
        button("‹", "Problem before", () => explorer.act.stepProblem(-1)),
        this.slider,
        button("›", "Next problem", () => explorer.act.stepProblem(1)),
      ),
      html("div", { class: "steps" }, this.place, this.search, this.found),
    );
  }

  _views() {
    const { data, store } = this.explorer;
    const names = data.payload.generation.length ? ["position", "generation"] : ["position"];
    const group = html("fieldset", { class: "segments" }, html("legend", {}, "View"));
    const name = `view-${Math.random().toString(36).slice(2)}`;
    for (const view of /** @type {("position" | "generation")[]} */ (names)) {
      const input = html("input", { type: "radio", name, value: view });
      input.addEventListener("change", () => store.set({ view }));
      group.append(html("label", {}, input, html("span", {}, view)));
    }
    return group;
  }

  /**
   * @param {string} name
   * @param {(value: string) => void} choose
   */
  _select(name, choose) {
    const select = html("select", { "aria-label": name });
    select.addEventListener("change", () => choose(select.value));
    return { select, field: html("label", { class: "field" }, html("span", {}, name), select) };
  }

  /**
   * @param {string} name
   * @param {(checked: boolean) => void} choose
   */
  _check(name, choose) {
    const input = html("input", { type: "checkbox" });
    input.addEventListener("change", () => choose(input.checked));
    return { input, field: html("label", { class: "check" }, input, html("span", {}, name)) };
  }

  /** Everything as the state has it. */
  sync() {
    const { data, store, passes, quantity } = this.explorer;
    const { state } = store;
    options(
      this.quantity.select,
      choices(data, state).map(({ name, label, group }) => ({ value: name, text: label, group })),
      state.quantity,
    );
    options(this.diff.select, this._comparisons(), state.diff);
    this.from.select.value = String(state.layers[0]);
    this.to.select.value = String(state.layers[1]);
    options(this.label.select, this._labels(), state.label);
    if (state.top && !TOPS.includes(state.top)) {
      this.top.select.append(html("option", { value: String(state.top) }, `top ${state.top}`));
    }
    this.top.select.value = String(state.top);
    this.significant.input.checked = state.significant;
    this.significant.field.hidden = quantity.quantity.q === null && !state.significant;
    this.scaled.input.checked = state.scaled;
    for (const input of this.views.querySelectorAll("input"))
      input.checked = input.value === state.view;
    const hiding = passes.filter((passed) => !passed).length;
    this.hidden.textContent = hiding
      ? `Filters hide ${hiding} of ${count(data.nHeads, "head")}.`
      : "";
    if (hiding && !this._hid) this.filters.open = true;
    this._hid = hiding > 0;
    this._syncProblem();
  }

  _syncProblem() {
    const { data, store, matching } = this.explorer;
    const { problem, search } = store.state;
    const n = data.payload.problems.length;
    this.slider.value = String(problem);
    this.slider.disabled = n === 0;
    const text =
      problem < 0
        ? meanOver(data.payload.series[0])
        : `${problem + 1} of ${n}: ${data.payload.problems[problem].id}`;
    this.place.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    if (this.search.value !== search) this.search.value = search;
    this.search.hidden = n === 0;
    this.found.textContent = search
      ? matching.length === 1
        ? "1 matches"
        : `${matching.length} match`
      : "";
  }

  _comparisons() {
    const { data, store } = this.explorer;
    const { problem, diff } = store.state;
    const list = comparisons(data, problem);
    if (list.some(({ value }) => value === diff)) return list;
    // Kept for when there is something to compare again.
    const here = comparisons(data, problem < 0 ? 0 : -1).find(({ value }) => value === diff);
    const text = `${here?.text ?? "the same problem"} (not here)`;
    return [...list.slice(0, 1), { value: diff, text, group: "" }, ...list.slice(1)];
  }

  _labels() {
    const { data, store } = this.explorer;
    const list = [{ value: "", text: "all", group: "" }];
    for (const { name, view, values } of data.payload.labels) {
      if (view !== null && view !== store.state.view) continue;
      for (const value of [...new Set(values)].sort()) {
        const n = values.filter((each) => each === value).length;
        list.push({ value: `${name}/${value}`, text: `${value} (${n})`, group: name });
      }
    }
    return list;
  }
}

/**
 * Fill a list of choices, where it has changed.
 * @param {HTMLSelectElement} select
 * @param {{value: string, text: string, group: string}[]} wanted
 * @param {string} value
 */
function options(select, wanted, value) {
  const key = JSON.stringify(wanted);
  if (select.dataset.key !== key) {
    select.dataset.key = key;
    /** @type {Map<string, HTMLElement>} */
    const groups = new Map([["", select]]);
    select.replaceChildren();
    for (const { value: own, text, group } of wanted) {
      let parent = groups.get(group);
      if (!parent) {
        parent = html("optgroup", { label: group });
        groups.set(group, parent);
        select.append(parent);
      }
      parent.append(html("option", { value: own }, text));
    }
  }
  select.value = value;
}
