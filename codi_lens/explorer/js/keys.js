/** What each key does, for the listener and for the help. */

/** @typedef {import("./explorer").Explorer} Explorer */

/** @type {[string[], string, (explorer: Explorer, key: string) => void][]} */
export const KEYS = [
  [
    ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
    "move the head",
    (explorer, key) => explorer.act.moveHead(key),
  ],
  [
    ["Home", "End"],
    "first and last head by the quantity",
    (explorer, key) => explorer.act.bestHead(key === "Home"),
  ],
  [
    ["PageUp", "PageDown"],
    "the next better or worse head by the quantity",
    (explorer, key) => explorer.act.stepRank(key === "PageUp" ? -1 : 1),
  ],
  [
    ["["],
    "problem before; ahead of the first is the mean",
    (explorer) => explorer.act.stepProblem(-1),
  ],
  [["]"], "next problem", (explorer) => explorer.act.stepProblem(1)],
  [["m"], "mean over problems", (explorer) => explorer.store.set({ problem: -1 })],
  [["d"], "next comparison: mean, other series, none", (explorer) => explorer.act.nextDiff()],
  [["v"], "position or generation view", (explorer) => explorer.act.nextView()],
  [["q"], "next quantity", (explorer) => explorer.act.nextQuantity()],
  [
    ["s"],
    "scale of this head, or the fixed one",
    (explorer) => explorer.store.set({ scaled: !explorer.store.state.scaled }),
  ],
  [["p"], "pin the head beside the next", (explorer) => explorer.act.pin(explorer.head)],
  [["P"], "pin the head in this problem", (explorer) => explorer.act.pinHere()],
  [["Enter"], "lock the head", (explorer) => explorer.act.lock(explorer.head)],
  [["Escape"], "clear lock, pin, cell and comparison", (explorer) => explorer.act.clear()],
  [["+", "="], "larger cells", (explorer) => explorer.act.zoom(1)],
  [["-"], "smaller cells", (explorer) => explorer.act.zoom(-1)],
  [["/"], "search the problems", (explorer) => explorer.controls.search.focus()],
  [["?"], "this help", (explorer) => explorer.help.toggle()],
];

/**
 * @param {Explorer} explorer
 * @param {KeyboardEvent} event
 */
export function onKey(explorer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.composedPath()[0];
  const inField = target instanceof HTMLElement && target.matches("input, select, textarea");
  if (inField && event.key !== "Escape") return;
  const isButton = target instanceof HTMLElement && target.matches("button, summary, a");
  if (isButton && event.key === "Enter") return;
  // The table scrolls with these while it is in focus.
  const scrolls = target instanceof HTMLElement && target.matches(".scroller, .scroll");
  if (scrolls && /^(Arrow|Page|Home|End)/.test(event.key)) return;
  const found = KEYS.find(([names]) => names.includes(event.key));
  if (!found) return;
  event.preventDefault();
  event.stopPropagation();
  if (inField) target.blur();
  else found[2](explorer, event.key);
}
