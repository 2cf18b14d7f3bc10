/** The problem: its text, what is known of it, and what the lens reads in its thoughts. */

import { cue, html, set } from "./elements.js";
import { ramp } from "./captions.js";
import { textOn } from "./colours.js";
import { roving } from "./roving.js";
import { fixed, meanOver, sentence, visible } from "./wording.js";

/** @typedef {import("./explorer").Explorer} Explorer */

export class ProblemPanel {
  /**
   * @param {Explorer} explorer
   * @param {HTMLElement} box
   */
  constructor(explorer, box) {
    this.explorer = explorer;
    this.box = box;
    /** @type {HTMLElement[]} */
    this.tokens = [];
  }

  build() {
    const { data, store } = this.explorer;
    const { problem } = store.state;
    this.tokens = [];
    if (problem < 0) {
      const { problems, series } = data.payload;
      const known = problems.filter(({ correct }) => correct !== null);
      const right = known.filter(({ correct }) => correct).length;
      const interval = series[0].interval ? " Each cell tells its 95 % interval." : "";
      const lines = [html("p", {}, `${sentence(meanOver(series[0]))}.${interval}`)];
      const some = (series[0].n ?? 0) > problems.length ? " shown one by one" : "";
      const judged = `${right} of ${known.length} answers${some} are right.`;
      if (known.length) lines.push(html("p", {}, judged));
      if (problems.length)
        lines.push(html("p", { class: "quiet" }, "Choose a problem with the slider."));
      this.box.replaceChildren(...lines);
      return;
    }
    const { question, answer, expected, correct, totals, edges } = data.payload.problems[problem];
    /** @type {HTMLElement[]} */
    const parts = [this._text(question)];
    const facts = html("dl", { class: "pairs" });
    const fact = (/** @type {string} */ name, /** @type {Node | string} */ value) =>
      facts.append(html("div", {}, html("dt", {}, name), html("dd", {}, value)));
    if (answer !== null)
      fact("model's answer", answer === "" ? "(nothing)" : visible(answer.trim()));
    if (expected !== null) fact("right answer", expected);
    if (correct !== null)
      fact(
        "judged",
        html("span", { class: correct ? "right" : "wrong" }, correct ? "✓ right" : "✗ wrong"),
      );
    parts.push(facts);
    if (totals.length) {
      parts.push(
        html("h4", {}, "Running totals"),
        html(
          "ol",
          { class: "totals" },
          ...totals.map(({ name, value }) =>
            html("li", {}, html("span", { class: "quiet" }, `${name} `), html("b", {}, value)),
          ),
        ),
      );
    }
    if (edges.length) parts.push(html("h4", {}, "Known edges"), this._edges(edges));
    const lens = this._lens();
    if (lens) parts.push(...lens);
    this.box.replaceChildren(...parts);
    this.paint();
  }

  /** The question's tokens in the colours of the chosen row. */
  paint() {
    const { shown, head, store, palette, data } = this.explorer;
    const row = store.state.cell?.[0] ?? data.nQueries - 1;
    if (!this.tokens.length) return;
    const kept = shown.strip?.keeps(head);
    if (this.caption) {
      const undefined_ = shown.undefinedRow(row);
      this.caption.textContent = undefined_
        ? `Nothing to shade: ${data.payload.queries[row]} is undefined in this problem.`
        : kept
          ? `Shaded: what ${data.names[head]} attends to from ${data.payload.queries[row]}.`
          : `The strip of ${data.names[head]} is not kept on this page.`;
    }
    const most = this.explorer.stripScale(head);
    this.tokens.forEach((token, i) => {
      const value = shown.strip?.at(head, row, i) ?? 0;
      const colour = palette.attention(value / most);
      if (kept && value / most >= 0.02)
        set(token, { style: `background:${colour};color:${textOn(colour)}` });
      else token.removeAttribute("style");
    });
  }

  /** @param {string | null} question */
  _text(question) {
    const { shown, tip } = this.explorer;
    if (!shown.strip)
      return html("p", { class: "question" }, question ?? "The question's text is not kept.");
    this.tokens = shown.strip.tokens.map((text) => html("span", { class: "token" }, text));
    this.caption = html("p", { class: "quiet" });
    const line = html(
      "p",
      { class: "question", "aria-label": question ?? "question" },
      ...this.tokens,
    );
    line.addEventListener("pointermove", (event) => {
      const token = this.tokens.findIndex((each) => each === event.target);
      if (token < 0 || event.pointerType === "touch") return tip.hide();
      const { head, store, data } = this.explorer;
      const row = store.state.cell?.[0] ?? data.nQueries - 1;
      const value = fixed(this.explorer.shown.strip?.at(head, row, token));
      tip.show(event, [
        `token ${token} “${visible(this.tokens[token].textContent ?? "")}”`,
        `attention ${value}`,
      ]);
    });
    line.addEventListener("pointerleave", () => tip.hide());
    return html("div", {}, line, this.caption);
  }

  /** @param {string[][]} edges */
  _edges(edges) {
    const { data } = this.explorer;
    const buttons = edges.map(([query, key]) => {
      const button = html("button", { type: "button", class: "chip" }, `${query} → ${key}`);
      button.addEventListener("click", () =>
        this.explorer.act.chooseCell([
          data.payload.queries.indexOf(query),
          data.payload.keys.indexOf(key),
        ]),
      );
      return button;
    });
    return html("div", { class: "chips" }, ...buttons);
  }

  _lens() {
    const { shown, palette } = this.explorer;
    const { lens } = shown;
    if (!lens) return null;
    const { positions, layers } = lens.lens;
    const columns = html(
      "tr",
      {},
      html("th", { scope: "col" }, "after"),
      ...positions.map((name) => html("th", { scope: "col" }, name)),
    );
    /** @type {import("./roving").Stop[]} */
    const stops = [];
    const rows = layers.map((layer, line) => {
      const cells = positions.map((name, position) => {
        const top = lens.top(position, line);
        if (!top.length) return html("td");
        const colour = palette.score(top[0].probability);
        const cell = html(
          "td",
          { style: `background:${colour};color:${textOn(colour)}`, "data-cell": "" },
          visible(top[0].text),
        );
        const texts = [
          `state at ${name} after layer ${layer}`,
          ...top.map(({ text, probability }) => `“${visible(text)}” ${fixed(probability, 2)}`),
        ];
        stops.push({ place: cell, row: line, column: position, texts: () => texts });
        return cell;
      });
      return html("tr", {}, html("th", { scope: "row" }, `L${layer}`), ...cells);
    });
    const table = html(
      "table",
      { class: "lens" },
      html("thead", {}, columns),
      html("tbody", {}, ...rows),
    );
    const box = cue(html("div", { class: "scroll" }, table));
    roving(this.explorer, box, "Logit lens", () => stops);
    return [
      html("h4", {}, "Logit lens"),
      html(
        "p",
        { class: "quiet" },
        "The likeliest token of the state at each position; its colour is its probability.",
      ),
      html("div", { class: "legend" }, "0", ramp(palette.score), "1"),
      box,
    ];
  }
}
