/** The places of the page, before anything is in them. */

import { cue, html } from "./elements.js";
import { KEYS } from "./keys.js";

/** @typedef {import("./explorer").Explorer} Explorer */

const HEAD_NAME = /\bL(\d+)H(\d+)\b/g;

/**
 * Everything that the panels fill.
 * @param {Explorer} explorer
 * @param {HTMLElement} root
 */
export function layout(explorer, root) {
  const { controls, data } = explorer;
  const boxes = {
    map: html("div", { class: "map" }),
    mapTitle: html("h2"),
    mapNote: html("p", { class: "quiet" }),
    headTitle: html("h2"),
    headFacts: html("p", { class: "facts-of-head" }),
    first: cue(html("div", { class: "matrix" })),
    second: cue(html("div", { class: "matrix" })),
    firstName: html("h3"),
    secondName: html("h3"),
    firstLegend: html("div", { class: "legend" }),
    secondLegend: html("div", { class: "legend" }),
    spoken: html("div", { class: "spoken" }),
    strip: cue(html("div", { class: "strip" })),
    stripNote: html("p", { class: "quiet" }),
    problem: html("div", { class: "problem-text" }),
    table: html("div", { class: "heads" }),
    live: html("div", { class: "spoken", "aria-live": "polite" }),
    said: html("span", { class: "quiet", role: "status" }),
  };
  const head = html(
    "section",
    { class: "card panel-head", "aria-label": "The head" },
    html("div", { class: "bar" }, boxes.headTitle, pins(explorer), controls.views),
    boxes.headFacts,
    html("div", { class: "bar" }, controls.diff.field, controls.scaled.field),
    html(
      "div",
      { class: "matrices" },
      html("div", {}, boxes.firstName, boxes.first, boxes.firstLegend),
      html("div", {}, boxes.secondName, boxes.second, boxes.secondLegend),
    ),
    html("p", { class: "quiet" }, "Hatched: impossible. Orange: self. Green: known edge."),
    boxes.stripNote,
    boxes.strip,
    boxes.spoken,
    exports(explorer, boxes.said),
  );
  const panels = html(
    "main",
    { class: "panels" },
    html(
      "section",
      { class: "card panel-map", "aria-label": "Map of all heads" },
      boxes.mapTitle,
      boxes.mapNote,
      html("div", { class: "bar" }, controls.quantity.field),
      boxes.map,
      controls.filters,
      controls.hidden,
      html("div", { class: "exports" }, ...pictures(explorer, "map", "The map")),
    ),
    head,
    html(
      "section",
      { class: "card panel-problem", "aria-label": "The problem" },
      html("h2", {}, "Problem"),
      controls.problem,
      boxes.problem,
    ),
    html(
      "section",
      { class: "card panel-table", "aria-label": "All heads" },
      html("h2", {}, "Heads"),
      boxes.table,
    ),
  );
  const theme = html("button", { type: "button", class: "theme" }, "dark");
  theme.addEventListener("click", () => explorer.act.turnTheme());
  const help = html("button", { type: "button", "aria-label": "Help: keys" }, "?");
  help.addEventListener("click", () => explorer.help.toggle());
  const { facts, title, findings } = data.payload;
  const cards = Object.entries(facts).map(([name, value]) =>
    html("div", {}, html("dt", {}, name), html("dd", {}, value)),
  );
  root.append(
    html(
      "header",
      {},
      html(
        "div",
        { class: "bar" },
        html("h1", {}, title),
        html("div", { class: "buttons" }, theme, help),
      ),
      html("dl", { class: "facts" }, ...cards),
    ),
  );
  const opening = opened(explorer);
  if (opening) root.append(opening);
  root.append(panels);
  if (findings.length) {
    const list = html(
      "ul",
      {},
      ...findings.map((sentence) => html("li", {}, ...linked(explorer, sentence))),
    );
    root.append(
      html(
        "section",
        { class: "card", "aria-label": "Findings" },
        html("h2", {}, "Findings"),
        list,
      ),
    );
  }
  root.append(boxes.live);
  return { ...boxes, theme };
}

/** @param {Explorer} explorer */
function opened(explorer) {
  const { opening } = explorer.data.payload;
  if (!opening) return null;
  const buttons = opening.examples.map(({ label, state }) => {
    const button = html("button", { type: "button", class: "chip" }, label);
    button.addEventListener("click", () => explorer.act.restore(state));
    return button;
  });
  return html(
    "section",
    { class: "card opening", "aria-label": "What to see first" },
    html("h2", {}, ...linked(explorer, opening.title)),
    html(
      "ul",
      {},
      ...opening.sentences.map((sentence) => html("li", {}, ...linked(explorer, sentence))),
    ),
    html("div", { class: "chips" }, ...buttons),
  );
}

/**
 * A sentence whose heads are buttons that show them.
 * @param {Explorer} explorer
 * @param {string} sentence
 */
function linked(explorer, sentence) {
  /** @type {(Node | string)[]} */
  const parts = [];
  let end = 0;
  for (const found of sentence.matchAll(HEAD_NAME)) {
    const head = explorer.data.headOf(found[0]);
    if (head < 0) continue;
    const button = html("button", { type: "button", class: "link" }, found[0]);
    button.addEventListener("click", () => explorer.act.show(head));
    parts.push(sentence.slice(end, found.index), button);
    end = found.index + found[0].length;
  }
  return [...parts, sentence.slice(end)];
}

/** @param {Explorer} explorer */
function pins(explorer) {
  return html(
    "div",
    { class: "buttons" },
    action("Pin", "Put this head beside the next; again to take it away", () =>
      explorer.act.pin(explorer.head),
    ),
    action("Pin here", "Put this head in this problem beside others", () => explorer.act.pinHere()),
    action("Clear", "Take away lock, pin, chosen cell and comparison", () => explorer.act.clear()),
  );
}

/**
 * @param {string} text
 * @param {string} title
 * @param {() => void} act
 */
function action(text, title, act) {
  const made = html("button", { type: "button", title }, text);
  made.addEventListener("click", act);
  return made;
}

/**
 * @param {Explorer} explorer
 * @param {"head" | "map"} what
 * @param {string} name
 */
function pictures(explorer, what, name) {
  return [
    action("PNG", `${name} as a picture`, () => void explorer.act.saveFigure("png", what)),
    action("SVG", `${name} as vector graphics`, () => void explorer.act.saveFigure("svg", what)),
  ];
}

/**
 * @param {Explorer} explorer
 * @param {HTMLElement} said
 */
function exports(explorer, said) {
  return html(
    "div",
    { class: "exports" },
    action("Copy heads", "The locked and the pinned head, as ablate_heads takes them", () =>
      explorer.act.copySelection(),
    ),
    // A notebook's own address opens no state.
    ...(explorer.alone
      ? [action("Copy link", "A link that opens the page as it is", () => explorer.act.copyLink())]
      : []),
    action("CSV", "The table as it is filtered and sorted", () => explorer.act.saveTable()),
    ...pictures(explorer, "head", "The head's matrix"),
    said,
  );
}

/** The list of keys. */
export class Help {
  /** @param {HTMLElement} root */
  constructor(root) {
    const rows = KEYS.map(([keys, what]) =>
      html(
        "tr",
        {},
        html("td", {}, ...keys.flatMap((key) => [html("kbd", {}, names[key] ?? key), " "])),
        html("td", {}, what),
      ),
    );
    const close = html("button", { type: "button" }, "Close");
    close.addEventListener("click", () => this.dialog.close());
    this.dialog = html(
      "dialog",
      { "aria-label": "Keys" },
      html("h2", {}, "Keys"),
      html("table", {}, html("tbody", {}, ...rows)),
      html(
        "p",
        { class: "quiet" },
        "Point at a head to preview it, click to lock it, shift-click to pin a second one beside it, double-click to clear. Click a cell to follow it across heads and problems.",
      ),
      close,
    );
    root.append(this.dialog);
  }

  toggle() {
    if (this.dialog.open) this.dialog.close();
    else this.dialog.showModal();
  }
}

/** @type {Record<string, string>} */
const names = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };
