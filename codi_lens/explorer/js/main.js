/** What the bundle offers: `openPage` for a page of its own, `render` for a widget of anywidget. */

import { html } from "./elements.js";
import { Explorer } from "./explorer.js";

/** A page: data and blocks lie in its elements, the state in its address. */
export async function openPage() {
  const payload = JSON.parse(document.getElementById("data")?.textContent ?? "");
  const blocks = (/** @type {string} */ name) => {
    const text = document.getElementById(`block-${name}`)?.textContent;
    return text ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : undefined;
  };
  const root = /** @type {HTMLElement} */ (document.getElementById("explorer"));
  root.replaceChildren();
  const explorer = await Explorer.open(root, payload, blocks, {
    fragment: location.hash.slice(1),
    onChange: ({ fragment }) => history.replaceState(null, "", `#${fragment}`),
  });
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== explorer.fragment) explorer.act.restore(location.hash.slice(1));
  });
  Object.assign(root, { explorer });
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
  const explorer = await Explorer.open(root, payload, blocks, {
    fragment: model.get("state"),
    onChange: tell,
  });
  Object.assign(root, { explorer });
  /** @param {Explorer} changed */
  function tell(changed) {
    const { problem } = changed.store.state;
    model.set("state", changed.fragment);
    model.set(
      "selected_heads",
      changed.selected.map((head) => changed.data.pairOf(head)),
    );
    model.set("problem", problem < 0 ? null : payload.problems[problem].id);
    model.save_changes();
  }
  const takeHeads = () => {
    /** @type {number[][]} */
    const given = model.get("selected_heads");
    const [head = -1, pin = -1] = given.map(([layer, n]) => explorer.data.headOf(`L${layer}H${n}`));
    const now = head < 0 ? { locked: false, pin: -1 } : { head, locked: true, pin };
    explorer.store.set({ ...now, preview: -1 });
  };
  const takeProblem = () => {
    explorer.store.set({ problem: explorer.data.problemOf(model.get("problem") ?? "") });
  };
  model.on("change:selected_heads", takeHeads);
  model.on("change:problem", takeProblem);
  return () => {
    model.off("change:selected_heads", takeHeads);
    model.off("change:problem", takeProblem);
  };
}
