/** What the bundle offers: `openPage` for a page of its own, `render` for a widget of anywidget. */

import { Data } from "./data.js";
import { html } from "./elements.js";
import { Explorer } from "./explorer.js";
import { fromFragment, selected } from "./state.js";

/** A page: data and blocks lie in its elements, the state in its address. */
export async function openPage() {
  const root = /** @type {HTMLElement} */ (document.getElementById("explorer"));
  const payload = JSON.parse(document.getElementById("data")?.textContent ?? "");
  const blocks = (/** @type {string} */ name) => {
    const text = document.getElementById(`block-${name}`)?.textContent;
    return text ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : undefined;
  };
  const made = html("div", { id: "explorer" });
  try {
    root.replaceWith(made);
    const explorer = await Explorer.open(made, new Data(payload, blocks), {
      fragment: location.hash.slice(1),
      onChange: keepAddress,
    });
    addEventListener("hashchange", () => {
      const asked = location.hash.slice(1);
      if (asked !== explorer.fragment) explorer.act.restore(asked);
    });
    Object.assign(made, { explorer });
  } catch (error) {
    root.append(html("p", {}, `This page cannot be shown: ${error}`));
    made.replaceWith(root);
  }
}

/** @type {ReturnType<typeof setTimeout> | undefined} */
let keeping;

/**
 * Browsers take only so many changes of the address, so only where one stays is kept.
 * @param {Explorer} explorer
 */
function keepAddress(explorer) {
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    if (location.hash.slice(1) !== explorer.fragment) {
      history.replaceState(null, "", `#${explorer.fragment}`);
    }
  }, 150);
}

/**
 * A widget: the heads that are locked and pinned, and the problem, both ways.
 * @param {{model: any, el: HTMLElement}} given
 */
export async function render({ model, el }) {
  /** @type {import("./schema").Payload} */
  const payload = JSON.parse(model.get("payload"));
  const packed = model.get("blocks");
  const blocks = (/** @type {string} */ name) => {
    const view = packed[name];
    if (!view) return undefined;
    return new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  const root = html("div");
  el.append(root);
  const data = new Data(payload, blocks);
  const same = (/** @type {unknown} */ a, /** @type {unknown} */ b) =>
    JSON.stringify(a) === JSON.stringify(b);
  let telling = false;

  /** What Python has chosen, as a state. */
  const chosen = () => {
    /** @type {[number, number][]} */
    const pairs = model.get("selected_heads");
    const [head = -1, pin = -1] = pairs.map(([layer, n]) => data.headOf(`L${layer}H${n}`));
    if (head < 0) return { locked: false, pin: -1 };
    return { head, locked: true, pin, pinProblem: null, preview: -1 };
  };
  const shownProblem = () => ({ problem: data.problemOf(model.get("problem") ?? "") });
  // A widget that is shown again has its last state; what Python changed since goes first.
  const last = fromFragment(model.get("state"), data);
  const heads = selected(last).map((head) => data.pairOf(head));
  const asked = {
    ...(same(heads, model.get("selected_heads")) ? {} : chosen()),
    ...(model.get("state") || model.get("problem") !== null ? shownProblem() : {}),
  };

  /** @param {Explorer} changed */
  const tell = (changed) => {
    const { problem } = changed.store.state;
    const now = {
      state: changed.fragment,
      selected_heads: changed.selected.map((head) => data.pairOf(head)),
      problem: problem < 0 ? null : payload.problems[problem].id,
    };
    telling = true;
    for (const [name, value] of Object.entries(now)) {
      if (!same(model.get(name), value)) model.set(name, value);
    }
    telling = false;
    model.save_changes();
  };
  const explorer = await Explorer.open(root, data, {
    fragment: model.get("state"),
    asked,
    onChange: tell,
  });
  Object.assign(root, { explorer });

  const takeHeads = () => {
    const now = explorer.selected.map((head) => data.pairOf(head));
    if (!telling && !same(now, model.get("selected_heads"))) explorer.store.set(chosen());
  };
  const takeProblem = () => {
    if (!telling) explorer.store.set(shownProblem());
  };
  model.on("change:selected_heads", takeHeads);
  model.on("change:problem", takeProblem);
  return () => {
    model.off("change:selected_heads", takeHeads);
    model.off("change:problem", takeProblem);
    explorer.close();
  };
}
