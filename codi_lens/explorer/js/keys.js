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

const OWN = /^(Arrow.*|Page.*|Home|End|Enter| )$/;

/**
 * @param {Explorer} explorer
 * @param {KeyboardEvent} event
 */
export function onKey(explorer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.composedPath()[0];
  if (!(target instanceof HTMLElement)) return;
  if (explorer.help.dialog.open) {
    if (event.key === "?") explorer.help.toggle();
    return;
  }
  const typing = target.matches("input[type=search], textarea");
  if (typing && event.key !== "Escape") return;
  // What a control does with a key itself, it goes on doing; a box that scrolls, scrolls.
  const own = target.matches("select") ? /^(.|Arrow.*|Page.*|Home|End|Enter)$/ : OWN;
  const isOwn = own.test(event.key) && !/^[[\]?/+=-]$/.test(event.key);
  const scrolls = target.matches(".scroller, .scroll");
  if (isOwn && (scrolls || target.matches("input, select, button, summary, a"))) return;
  const found = KEYS.find(([names]) => names.includes(event.key));
  if (!found) return;
  event.preventDefault();
  event.stopPropagation();
  explorer.tip.hide();
  if (typing) target.blur();
  else found[2](explorer, event.key);
}
