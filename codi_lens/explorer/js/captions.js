/** Headings, legends and what screen readers are told. */

import { html } from "./elements.js";
import { count, fixed, meanOver } from "./wording.js";

/** @typedef {import("./explorer").Explorer} Explorer */

/**
 * A head's name, and what is known of it.
 * @param {Explorer} explorer
 * @param {number} head
 */
export function headTexts({ data, quantity, store }, head) {
  const { view } = store.state;
  const rank = quantity.rank(head);
  const of = rank ? `rank ${rank} of ${quantity.order.length}` : "";
  const labels = data.payload.labels
    .filter((each) => each.view === null || each.view === view)
    .map(({ values }) => values[head]);
  const measured = `${quantity.quantity.label} ${quantity.text(head)}`;
  return [data.names[head], measured, of, ...labels].filter(Boolean);
}

/**
 * Every heading and legend, as the state has it.
 * @param {Explorer} explorer
 */
export function write(explorer) {
  const { boxes, data, quantity, shown, head } = explorer;
  const { state } = explorer.store;
  const { scope, n, view, constant, label } = quantity.quantity;
  boxes.mapTitle.textContent = label;
  const notes = [
    scope ? `measured at ${scope}` : "",
    n ? `n = ${n}` : "",
    view ? `${view} view` : "",
    constant ? "the same for every head, so it ranks nothing" : "",
  ];
  boxes.mapNote.textContent = notes.filter(Boolean).join(" · ");
  const less = shown.isDifference ? ` less ${shown.baselineName}` : "";
  const where = `${placeOf(explorer, state.problem)}${less}`;
  boxes.headTitle.textContent = `${data.names[head]}${state.locked ? " (locked)" : ""}`;
  boxes.headFacts.textContent = headTexts(explorer, head).slice(1).join(" · ");
  boxes.firstName.textContent = `${data.names[head]}, ${where}`;
  if (state.pin >= 0) {
    const frozen = state.pinProblem === null ? where : placeOf(explorer, state.pinProblem);
    boxes.secondName.textContent = `${data.names[state.pin]}, ${frozen}`;
  }
  const plain = shown.isDifference ? ": attention itself, no difference" : "";
  boxes.stripNote.textContent = shown.strip
    ? `${data.names[head]} over the question's tokens (␣ is a space)${plain}`
    : "";
  boxes.firstLegend.replaceChildren(...legend(explorer, explorer.matrix));
  if (state.pin >= 0) boxes.secondLegend.replaceChildren(...legend(explorer, explorer.second));
}

/**
 * @param {Explorer} explorer
 * @param {number} problem
 */
function placeOf({ data }, problem) {
  return problem < 0
    ? meanOver(data.payload.series[0])
    : `problem ${data.payload.problems[problem].id}`;
}

/**
 * @param {Explorer} explorer
 * @param {import("./matrix").Matrix} matrix
 */
function legend({ palette, data, store }, { head, differs, most }) {
  const texts = differs
    ? [`difference ${fixed(-most, 2)}`, `+${fixed(most, 2)}`, "corner mark: beyond the scale"]
    : store.state.scaled
      ? [
          "attention 0",
          fixed(most, 2),
          `scaled to ${data.names[head]}: colours do not compare with other heads`,
        ]
      : ["attention 0", "1", ""];
  const colour = (/** @type {number} */ at) =>
    differs ? palette.difference(2 * at - 1) : palette.attention(at);
  return [
    html("span", {}, texts[0]),
    ramp(colour),
    html("span", {}, texts[1]),
    html("span", { class: "quiet" }, texts[2]),
  ];
}

/**
 * A bar of the colours from 0 to 1.
 * @param {(at: number) => string} colour
 */
export function ramp(colour) {
  const colours = Array.from({ length: 24 }, (_, i) => colour(i / 23));
  return html("i", { style: `background:linear-gradient(to right,${colours.join(",")})` });
}

/**
 * For screen readers: the matrix as a table, and which head is locked.
 * @param {Explorer} explorer
 */
export function speak(explorer) {
  const { data, rows, columns, shown, head, boxes, store } = explorer;
  const { keys, possible } = data.payload;
  const name = boxes.firstName.textContent ?? "";
  const titles = columns.map((key) => html("th", { scope: "col" }, keys[key]));
  const body = rows.map((row) => {
    const cells = columns.map((key) => {
      const value = shown.at(head, row.query, key);
      return html("td", {}, possible[row.query][key] ? fixed(value) : "impossible");
    });
    return html("tr", {}, html("th", { scope: "row" }, row.name), ...cells);
  });
  const top = html("tr", {}, html("th", { scope: "col" }, "query"), ...titles);
  const caption = html("caption", {}, name);
  const table = html("table", {}, caption, html("thead", {}, top), html("tbody", {}, ...body));
  boxes.spoken.replaceChildren(table);
  if (store.state.locked) {
    boxes.live.textContent = `${name}. ${headTexts(explorer, head).slice(1).join(", ")}`;
  }
}

/**
 * What stands where there is no strip of tokens.
 * @param {Explorer} explorer
 */
export function noStrip({ data, store, head }) {
  const { strips, problems } = data.payload;
  const { problem } = store.state;
  let text = "";
  if (strips && problem < 0) text = "Choose a problem to see its question's tokens.";
  else if (strips && problems[problem].tokens) {
    const kept = `${strips.heads.length} of ${count(data.nHeads, "head")}`;
    text = `Token strips are kept for ${kept}, so that the page stays small; ${data.names[head]} is not among them.`;
  } else if (strips) text = "The tokens of this problem are not kept.";
  return html("p", { class: "quiet" }, text);
}
