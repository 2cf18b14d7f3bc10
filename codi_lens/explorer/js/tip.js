/** The text beside the pointer. */

import { html } from "./elements.js";

export class Tip {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.box = html("div", { class: "tip", role: "presentation", hidden: "" });
    root.append(this.box);
  }

  /**
   * @param {{clientX: number, clientY: number}} event
   * @param {string[]} lines the first is its heading
   */
  show(event, lines) {
    const [title, ...rest] = lines.filter(Boolean);
    this.box.replaceChildren(html("b", {}, title), ...rest.map((line) => html("span", {}, line)));
    this.box.hidden = false;
    const [width, height] = [this.box.offsetWidth, this.box.offsetHeight];
    const x =
      event.clientX + 16 + width > window.innerWidth
        ? event.clientX - width - 12
        : event.clientX + 16;
    const y =
      event.clientY + 18 + height > window.innerHeight
        ? event.clientY - height - 12
        : event.clientY + 18;
    this.box.style.left = `${Math.max(4, x)}px`;
    this.box.style.top = `${Math.max(4, y)}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}
