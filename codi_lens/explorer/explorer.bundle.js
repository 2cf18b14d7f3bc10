var CodiLensExplorer = (() => {
  var __defProp = Object.defineProperty;
  var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
  var __getOwnPropNames = Object.getOwnPropertyNames;
  var __hasOwnProp = Object.prototype.hasOwnProperty;
  var __export = (target, all) => {
    for (var name in all)
      __defProp(target, name, { get: all[name], enumerable: true });
  };
  var __copyProps = (to, from, except, desc) => {
    if (from && typeof from === "object" || typeof from === "function") {
      for (let key of __getOwnPropNames(from))
        if (!__hasOwnProp.call(to, key) && key !== except)
          __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
    }
    return to;
  };
  var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

  // codi_lens/explorer/js/main.js
  var main_exports = {};
  __export(main_exports, {
    openPage: () => openPage,
    render: () => render
  });

  // codi_lens/explorer/js/data.js
  var VERSION = 1;
  var KEPT = 8;
  var Data = class {
    /**
     * @param {Payload} payload
     * @param {Blocks} blocks
     */
    constructor(payload, blocks) {
      if (payload.version !== VERSION) {
        throw new Error(
          `This page's script reads data of version ${VERSION}, not ${payload.version}; save the explorer again.`
        );
      }
      this.payload = payload;
      this.nHeads = payload.layers.length * payload.heads.length;
      this.nQueries = payload.queries.length;
      this.nKeys = payload.keys.length;
      this.nCells = this.nQueries * this.nKeys;
      this.names = payload.layers.flatMap(
        (layer) => payload.heads.map((head) => `L${layer}H${head}`)
      );
      this._indices = new Map(this.names.map((name, i) => [name, i]));
      this._problems = new Map(payload.problems.map((problem, i) => [problem.id, i]));
      this._stripOf = new Map((payload.strips?.heads ?? []).map((head, place) => [head, place]));
      this._blocks = blocks;
      this._unpacked = /* @__PURE__ */ new Map();
    }
    /** @param {string} name such as L4H5; -1 where there is no such head */
    headOf(name) {
      return this._indices.get(name) ?? -1;
    }
    /** @param {string} id -1 where there is no such problem */
    problemOf(id) {
      return this._problems.get(id) ?? -1;
    }
    /**
     * Where a head lies on the map.
     * @param {number} head
     */
    place = (head) => {
      const n = this.payload.heads.length;
      return { row: Math.floor(head / n), column: head % n };
    };
    /**
     * Layer and number of a head.
     * @param {number} head
     * @returns {[number, number]}
     */
    pairOf(head) {
      const { row, column } = this.place(head);
      return [this.payload.layers[row], this.payload.heads[column]];
    }
    /**
     * The mean over problems of a series, [head, query, key].
     * @param {number} series
     */
    async mean(series) {
      return new Float32Array((await this._unpack(`m${series}`)).buffer);
    }
    /**
     * Half the width of the mean's 95 % interval; null where there is none.
     * @param {number} series
     */
    async half(series) {
      if (!this.payload.series[series].interval) return null;
      return new Float32Array((await this._unpack(`h${series}`)).buffer);
    }
    /**
     * Attention in one problem, [head, query, key].
     * @param {number} series
     * @param {number} problem
     */
    async ofProblem(series, problem) {
      const packed = await this._unpack(`a${series}/${problem}`);
      const values = Float32Array.from(packed, (value) => value / 255);
      const rows = this.payload.problems[problem].undefined[series];
      for (const row of rows) {
        const query = this.payload.queries.indexOf(row);
        for (let head = 0; head < this.nHeads; head++) {
          const start = head * this.nCells + query * this.nKeys;
          values.fill(NaN, start, start + this.nKeys);
        }
      }
      return values;
    }
    /**
     * Attention of every kept head to the tokens of a problem's question; null where none is kept.
     * @param {number} problem
     * @returns {Promise<Strip | null>}
     */
    async strip(problem) {
      const tokens = problem < 0 ? null : this.payload.problems[problem].tokens;
      if (!tokens || !this.payload.strips) return null;
      const rows = this.payload.problems[problem].undefined[0];
      const undefined_ = new Set(rows.map((row) => this.payload.queries.indexOf(row)));
      const packed = await this._unpack(`t${problem}`);
      return new Strip(packed, tokens, this.nQueries, this._stripOf, undefined_);
    }
    /**
     * What the lens reads in a problem; null where nothing is kept.
     * @param {number} problem
     * @returns {Promise<LensTable | null>}
     */
    async lens(problem) {
      const { lens } = this.payload;
      if (!lens || problem < 0 || !this._blocks(`l${problem}`)) return null;
      return new LensTable(await this._unpack(`l${problem}`), lens);
    }
    /** @param {string} name */
    _unpack(name) {
      const known = this._unpacked.get(name);
      this._unpacked.delete(name);
      const unpacking = known ?? inflate(this._blocks(name), name);
      this._unpacked.set(name, unpacking);
      const problems = [...this._unpacked.keys()].filter((each) => /^[alt]/.test(each));
      for (const old of problems.slice(0, Math.max(0, problems.length - 4 * KEPT)))
        this._unpacked.delete(old);
      return unpacking;
    }
  };
  var Strip = class {
    /**
     * @param {Uint8Array} packed [kept head, query, token]
     * @param {string[]} tokens
     * @param {number} nQueries
     * @param {Map<number, number>} places of heads among those that are kept
     * @param {Set<number>} undefined_ queries without a row
     */
    constructor(packed, tokens, nQueries, places, undefined_) {
      this.tokens = tokens;
      this._packed = packed;
      this._nQueries = nQueries;
      this._places = places;
      this._undefined = undefined_;
    }
    /**
     * @param {number} head
     * @param {number} query
     * @param {number} token
     * @returns {number | null} null where the head's strip is not kept, or the row is undefined
     */
    at(head, query, token) {
      const place = this._places.get(head);
      if (place === void 0 || this._undefined.has(query)) return null;
      return this._packed[(place * this._nQueries + query) * this.tokens.length + token] / 255;
    }
    /**
     * The largest attention to a token, whatever the query.
     * @param {number} head
     */
    largest(head) {
      const place = this._places.get(head);
      const n = this._nQueries * this.tokens.length;
      return place === void 0 ? 0 : Math.max(...this._packed.subarray(place * n, (place + 1) * n)) / 255;
    }
    /** @param {number} head */
    keeps(head) {
      return this._places.has(head);
    }
  };
  var LensTable = class {
    /**
     * @param {Uint8Array<ArrayBuffer>} packed
     * @param {import("./schema").Lens} lens
     */
    constructor(packed, lens) {
      this.lens = lens;
      const n = lens.positions.length * lens.layers.length * lens.k;
      this._ids = new Uint16Array(packed.buffer, 0, n);
      this._probabilities = packed.subarray(2 * n);
    }
    /**
     * The likeliest tokens, likeliest first; none where the problem has no such position.
     * @param {number} position
     * @param {number} layer
     */
    top(position, layer) {
      const { lens } = this;
      const start = (position * lens.layers.length + layer) * lens.k;
      const ranks = Array.from({ length: lens.k }, (_, rank) => ({
        text: lens.texts[this._ids[start + rank]],
        probability: this._probabilities[start + rank] / 255
      }));
      return ranks.filter(({ text }) => text !== "");
    }
  };
  async function inflate(packed, name) {
    if (!packed) throw new Error(`The page holds no block ${name}; save the explorer again.`);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // codi_lens/explorer/js/elements.js
  var SVG = "http://www.w3.org/2000/svg";
  function html(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }
  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, tag);
    set(made, attributes);
    made.append(...children);
    return made;
  }
  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  }
  function figure(width, height, palette2) {
    const id = `hatch-${Math.random().toString(36).slice(2)}`;
    const made = svg("svg", {
      xmlns: SVG,
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      "font-family": "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif",
      "font-size": 12,
      "aria-hidden": "true"
    });
    const lines = svg("path", {
      d: "M-2 2L2 -2M0 8L8 0M6 10L10 6",
      stroke: palette2.hatch,
      "stroke-width": 1
    });
    const ground = svg("rect", { width: 8, height: 8, fill: palette2.impossible });
    const hatch = svg(
      "pattern",
      { id, width: 8, height: 8, patternUnits: "userSpaceOnUse" },
      ground,
      lines
    );
    made.append(svg("defs", {}, hatch), svg("rect", { width, height, fill: palette2.ground }));
    return { figure: made, hatch: `url(#${id})` };
  }
  function label(x, y, content, attributes = {}) {
    return svg("text", { x, y, ...attributes }, content);
  }
  var labelWidth = (texts) => 6.6 * Math.max(...texts.map((text) => text.length));
  function cue(box) {
    const tell = () => {
      const left = box.scrollLeft > 2;
      const right = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
      const more = [left ? "left" : "", right ? "right" : ""].filter(Boolean).join(" ");
      if (box.dataset.more !== more) box.dataset.more = more;
    };
    box.addEventListener("scroll", tell);
    new ResizeObserver(tell).observe(box);
    new MutationObserver(tell).observe(box, { childList: true });
    return box;
  }

  // codi_lens/explorer/js/arrows.js
  var STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  var isArrow = (key) => key in STEPS;
  function nearest(places, from, key, aside = Infinity) {
    const [down, right] = STEPS[key];
    let [best, least] = [-1, Infinity];
    places.forEach(({ row, column }, i) => {
      const [dy, dx] = [row - from.row, column - from.column];
      const along = down * dy + right * dx;
      const off = Math.abs(down ? dx : dy);
      const far = 1e4 * off + along;
      if (along > 0 && off <= aside && far < least) [best, least] = [i, far];
    });
    return best;
  }

  // codi_lens/explorer/js/wording.js
  function fixed(value, digits = 3) {
    if (value === null || value === void 0 || Number.isNaN(value)) return "–";
    const size = Math.abs(value);
    const text = size >= 1e6 ? size.toExponential(2) : size.toFixed(digits);
    return value < 0 && Number(text) !== 0 ? `−${text}` : text;
  }
  function interval(low, high, digits = 3) {
    if (low === null || low === void 0 || high === null || high === void 0) return "";
    return `[${fixed(low, digits)}, ${fixed(high, digits)}]`;
  }
  var significance = (q) => q < 1e-3 ? "q < 0.001" : `q = ${fixed(q)}`;
  function short(value, signed, narrow) {
    if (Number.isNaN(value)) return "";
    const text = fixed(value, narrow && Math.abs(value) >= 0.995 ? 0 : 2);
    const bare = text.replace(/^(−?)0\./, "$1.");
    return signed && value > 0 && Number(value.toFixed(2)) !== 0 ? `+${bare}` : bare;
  }
  var visible = (text) => text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  var count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;
  var meanOver = ({ n }) => n === null ? "the mean" : `mean over ${count(n, "problem")}`;
  var sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);

  // codi_lens/explorer/js/heads.js
  var Measured = class {
    /** @param {import("./schema").Quantity} quantity */
    constructor(quantity) {
      this.quantity = quantity;
      const known = quantity.values.filter((value) => value !== null);
      this.least = known.length ? Math.min(...known) : 0;
      this.most = known.length ? Math.max(...known) : 0;
      this.reach = Math.max(Math.abs(this.least), Math.abs(this.most)) || 1;
      this.order = quantity.values.flatMap((value, head) => value === null ? [] : [head]).sort((a, b) => this.weight(b) - this.weight(a) || a - b);
      this._ranks = [];
      this.order.forEach((head, i) => {
        const before = this.order[i - 1];
        const tied = i > 0 && this.weight(before) === this.weight(head);
        this._ranks[head] = tied ? this._ranks[before] : i + 1;
      });
      this.digits = Math.min(8, Math.max(0, 2 - Math.floor(Math.log10(this.reach))));
    }
    /** @param {number | null | undefined} value */
    fixed(value) {
      return fixed(value, Math.max(this.reach < 100 ? 3 : 0, this.digits));
    }
    /** @param {number} head */
    value(head) {
      return this.quantity.values[head];
    }
    /**
     * What heads are ordered by: a score, or the size of an effect.
     * @param {number} head
     */
    weight(head) {
      const value = this.quantity.values[head] ?? -Infinity;
      return this.quantity.signed ? Math.abs(value) : value;
    }
    /** @param {number} head */
    rank(head) {
      return this._ranks[head];
    }
    /**
     * Where a head lies on the scale: 0 to 1, or -1 to 1 where it is signed.
     * @param {number} head
     */
    along(head) {
      const value = this.quantity.values[head] ?? 0;
      if (this.quantity.signed) return value / this.reach;
      return this.most > this.least ? (value - this.least) / (this.most - this.least) : 1;
    }
    /**
     * How firm a head's number is: 1 less what its interval takes of the scale, or of an effect, to
     * 0.55 at least, so that no colour is taken for another.
     * @param {number} head
     */
    firmness(head) {
      const { low, high, signed } = this.quantity;
      const [from, to] = [low?.[head] ?? null, high?.[head] ?? null];
      if (from === null || to === null) return 1;
      const span = signed ? 2 * Math.abs(this.value(head) ?? 0) : this.most - this.least;
      return 1 - 0.45 * (span > 0 ? Math.min(1, (to - from) / span) : 0);
    }
    /** @param {number} head whether its interval lies clear of 0, adjusted for the number of heads */
    isSignificant(head) {
      const q = this.quantity.q?.[head];
      return q !== null && q !== void 0 && q < 0.05;
    }
    /**
     * A head's number with its interval.
     * @param {number} head
     */
    numbers(head) {
      const { low, high, values } = this.quantity;
      const [from, to] = [low?.[head] ?? null, high?.[head] ?? null];
      const within = from === null || to === null ? "" : ` [${this.fixed(from)}, ${this.fixed(to)}]`;
      return `${this.fixed(values[head])}${within}`;
    }
    /** @param {number} head */
    text(head) {
      const { q, unit, values } = this.quantity;
      if (values[head] === null) return "not measured";
      const own = q?.[head] ?? null;
      const sure = own === null ? "" : `(${significance(own)})`;
      return [this.numbers(head), unit ?? "", sure].filter(Boolean).join(" ");
    }
  };
  function choices(data, state) {
    const given = data.payload.quantities.filter(({ view }) => view === null || view === state.view);
    const shown = [
      { name: "cell", label: "attention of the chosen cell", group: "of what is shown" },
      { name: "difference", label: "total difference", group: "of what is shown" }
    ];
    const named = given.map(({ name, label: label2, group, constant }) => ({
      name,
      label: constant ? `${label2} (constant: ranks nothing)` : label2,
      group
    }));
    return [...named, ...shown];
  }
  function normal(data, state) {
    const offered = choices(data, state);
    const { quantities, labels } = data.payload;
    let { quantity, label: label2 } = state;
    if (!offered.some(({ name }) => name === quantity)) {
      const old = quantities.find(({ name }) => name === quantity)?.label ?? "";
      quantity = (offered.find((each) => each.label.startsWith(old)) ?? offered[0]).name;
    }
    const [kind, ...rest] = label2.split("/");
    const value = rest.join("/");
    const has = labels.some(
      ({ name, view, values }) => name === kind && (view ?? state.view) === state.view && values.includes(value)
    );
    if (!has) label2 = "";
    return { ...state, quantity, label: label2 };
  }
  function measured(data, state, shown) {
    const given = data.payload.quantities.find(({ name }) => name === state.quantity);
    if (given) return new Measured(given);
    const isCell = state.quantity !== "difference";
    const [query, key] = state.cell ?? data.payload.possible.flatMap((row, i) => row[0] ? [[i, 0]] : [])[0];
    const heads = Array.from({ length: data.nHeads }, (_, head) => head);
    const numbers = heads.map((head) => {
      const value = isCell ? shown.at(head, query, key) : shown.isDifference ? shown.total(head) : null;
      return value === null || Number.isNaN(value) ? null : value;
    });
    const half = isCell && shown.half && !shown.isDifference ? shown.half : null;
    const bound = (sign) => half && heads.map((head) => {
      const wide = half[head * data.nCells + query * data.nKeys + key];
      const value = numbers[head];
      return value === null || Number.isNaN(wide) ? null : value + sign * wide;
    });
    const edge = `${data.payload.queries[query]} → ${data.payload.keys[key]}`;
    const where = shown.isDifference ? `, less that of ${shown.baselineName}` : "";
    const { problems } = data.payload;
    const of = shown.problem < 0 ? "" : `, problem ${problems[shown.problem].id}`;
    return new Measured({
      name: state.quantity,
      label: isCell ? `Attention ${edge}${of}${where}` : shown.isDifference ? `Total difference from ${shown.baselineName}${of}` : "Total difference: choose what to compare with",
      group: "of what is shown",
      view: null,
      scope: null,
      unit: null,
      n: shown.problem < 0 ? data.payload.series[0].n : null,
      signed: isCell && shown.isDifference,
      constant: false,
      values: numbers,
      low: bound(-1),
      high: bound(1),
      q: null
    });
  }
  function passing(data, state, quantity) {
    const { layers, heads, labels } = data.payload;
    const [name, ...rest] = state.label.split("/");
    const wanted = rest.join("/");
    const label2 = labels.find(
      (each) => each.name === name && (each.view ?? state.view) === state.view
    );
    const best = state.top ? new Set(quantity.order.slice(0, state.top)) : null;
    return Array.from({ length: data.nHeads }, (_, head) => {
      const layer = layers[Math.floor(head / heads.length)];
      if (layer < state.layers[0] || layer > state.layers[1]) return false;
      if (state.label && label2?.values[head] !== wanted) return false;
      if (best && !best.has(head)) return false;
      return !state.significant || quantity.isSignificant(head);
    });
  }

  // codi_lens/explorer/js/shown.js
  var LIMITS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1];
  var Shown = class {
    /**
     * @param {Data} data
     * @param {object} parts
     * @param {number} parts.problem
     * @param {Float32Array} parts.values [head, query, key]
     * @param {Float32Array | null} parts.half
     * @param {Float32Array | null} parts.baseline
     * @param {string} parts.baselineName
     * @param {Float32Array | null} parts.pinned of the problem in which the second head stays
     * @param {import("./data").Strip | null} parts.strip
     * @param {import("./data").LensTable | null} parts.lens
     */
    constructor(data, parts) {
      this.data = data;
      this.problem = parts.problem;
      this.values = parts.values;
      this.half = parts.half;
      this.baseline = parts.baseline;
      this.baselineName = parts.baselineName;
      this.pinned = parts.pinned;
      this.strip = parts.strip;
      this.lens = parts.lens;
      this.isDifference = parts.baseline !== null;
      this.limit = this.isDifference ? this._limit() : 1;
    }
    /**
     * What is drawn in a cell; NaN where it is impossible or undefined.
     * @param {number} head
     * @param {number} query
     * @param {number} key
     * @param {boolean} [pinned] in the problem in which the second head stays
     */
    at(head, query, key, pinned = false) {
      const { data } = this;
      if (!data.payload.possible[query][key]) return NaN;
      const place = head * data.nCells + query * data.nKeys + key;
      if (pinned && this.pinned) return this.pinned[place];
      return this.baseline ? this.values[place] - this.baseline[place] : this.values[place];
    }
    /** @param {number} query whether the problem that is shown has no such row */
    undefinedRow(query) {
      return this.data.payload.possible[query].every(
        (possible, key) => !possible || Number.isNaN(this.values[query * this.data.nKeys + key])
      );
    }
    /**
     * The attention itself and what it is compared with.
     * @param {number} head
     * @param {number} query
     * @param {number} key
     */
    both(head, query, key) {
      const place = head * this.data.nCells + query * this.data.nKeys + key;
      return {
        value: this.values[place],
        baseline: this.baseline ? this.baseline[place] : NaN,
        half: this.half && !this.isDifference ? this.half[place] : NaN
      };
    }
    /**
     * The place of a head among all, by the size of what is drawn in one cell; equal ones share it.
     * @param {number} head
     * @param {number} query
     * @param {number} key
     */
    rank(head, query, key) {
      const own = Math.abs(this.at(head, query, key));
      if (Number.isNaN(own)) return null;
      let rank = 1;
      for (let other = 0; other < this.data.nHeads; other++) {
        if (Math.abs(this.at(other, query, key)) > own) rank += 1;
      }
      return rank;
    }
    /**
     * The largest attention of a head, for a scale of its own.
     * @param {number} head
     * @param {boolean} [pinned] see `at`
     */
    largest(head, pinned = false) {
      let most = 0;
      for (let query = 0; query < this.data.nQueries; query++)
        for (let key = 0; key < this.data.nKeys; key++) {
          const value = Math.abs(this.at(head, query, key, pinned));
          if (value > most) most = value;
        }
      return most;
    }
    /**
     * Half the summed difference of a row, averaged over rows: 0 is no difference, 1 all that can be.
     * @param {number} head
     */
    total(head) {
      let sum = 0;
      let rows = 0;
      for (let query = 0; query < this.data.nQueries; query++) {
        let row = 0;
        let known = true;
        for (let key = 0; key < this.data.nKeys; key++)
          if (this.data.payload.possible[query][key]) {
            const value = this.at(head, query, key);
            if (Number.isNaN(value)) known = false;
            row += Math.abs(value) / 2;
          }
        if (known) {
          sum += row;
          rows += 1;
        }
      }
      return rows ? sum / rows : null;
    }
    _limit() {
      const sizes = [];
      for (let head = 0; head < this.data.nHeads; head++)
        for (let query = 0; query < this.data.nQueries; query++)
          for (let key = 0; key < this.data.nKeys; key++) {
            const value = this.at(head, query, key);
            if (!Number.isNaN(value)) sizes.push(Math.abs(value));
          }
      const sorted = Float64Array.from(sizes).sort();
      const usual = sorted.length ? sorted[Math.floor(0.995 * (sorted.length - 1))] : 0;
      return LIMITS.find((limit) => usual <= limit) ?? 1;
    }
  };
  async function gather(data, state) {
    const of = (series, problem) => problem < 0 ? data.mean(series) : data.ofProblem(series, problem);
    const compared = comparedWith(data, state);
    const [values, half, baseline, pinned, strip, lens] = await Promise.all([
      of(0, state.problem),
      state.problem < 0 ? data.half(0) : null,
      compared ? of(compared.series, compared.problem) : null,
      state.pin >= 0 && state.pinProblem !== null ? of(0, state.pinProblem) : null,
      data.strip(state.problem),
      data.lens(state.problem)
    ]);
    const baselineName = compared?.name ?? "";
    return new Shown(data, {
      problem: state.problem,
      values,
      half,
      baseline,
      baselineName,
      pinned,
      strip,
      lens
    });
  }
  function comparisons(data, problem) {
    const { series, problems } = data.payload;
    const others = series.flatMap(
      ({ label: label2, byProblem }, i) => i && (problem < 0 || byProblem) ? [{ value: `series/${i}`, text: label2, group: "" }] : []
    );
    const mean = problem < 0 ? [] : [{ value: "mean", text: "mean over problems", group: "" }];
    const ids = problems.flatMap(
      ({ id }, i) => i === problem ? [] : [{ value: `problem/${id}`, text: id, group: "another problem" }]
    );
    return [{ value: "", text: "nothing", group: "" }, ...mean, ...others, ...ids];
  }
  function comparedWith(data, state) {
    const [kind, ...rest] = state.diff.split("/");
    const which = rest.join("/");
    const { series, problems } = data.payload;
    if (kind === "mean" && state.problem >= 0)
      return { series: 0, problem: -1, name: "mean over problems" };
    if (kind === "series") {
      const other = series[Number(which)];
      if (state.problem < 0 || other.byProblem) {
        return { series: Number(which), problem: state.problem, name: other.label };
      }
    }
    if (kind === "problem") {
      const problem = data.problemOf(which);
      if (problem >= 0 && problem !== state.problem) {
        return { series: 0, problem, name: `problem ${problems[problem].id}` };
      }
    }
    return null;
  }

  // codi_lens/explorer/js/save.js
  function selection(heads, data) {
    const pairs = heads.map((head) => `(${data.pairOf(head).join(", ")})`);
    return `[${pairs.join(", ")}]`;
  }
  function download(name, content) {
    const address = URL.createObjectURL(content);
    const link = document.createElement("a");
    link.href = address;
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1e4);
  }
  function composed(parts, palette2) {
    const sizes = parts.map(({ figure: drawn }) => [
      Number(drawn.getAttribute("width")),
      Number(drawn.getAttribute("height"))
    ]);
    const letters = Math.max(
      ...parts.flatMap(({ title, note }) => [title.length * 7.6, note.length * 6.6])
    );
    const width = Math.ceil(Math.max(letters, ...sizes.map(([wide]) => wide)) + 24);
    const height = sizes.reduce((sum, [, tall]) => sum + tall + 66, 12);
    const { figure: whole } = figure(width, height, palette2);
    let y = 12;
    parts.forEach(({ title, note, figure: drawn }, i) => {
      const copy2 = (
        /** @type {SVGSVGElement} */
        drawn.cloneNode(true)
      );
      for (const mark of copy2.querySelectorAll("[data-at]")) mark.removeAttribute("data-at");
      set(copy2, { x: 12, y: y + 24 });
      whole.append(
        label(12, y + 14, title, { "font-weight": 600, "font-size": 13, fill: palette2.ink })
      );
      whole.append(copy2, label(12, y + sizes[i][1] + 40, note, { fill: palette2.muted }));
      y += sizes[i][1] + 66;
    });
    return whole;
  }
  var asSvg = (figure2) => new Blob([new XMLSerializer().serializeToString(figure2)], { type: "image/svg+xml" });
  async function asPng(figure2) {
    const text = new XMLSerializer().serializeToString(figure2);
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * image.width;
    canvas.height = 2 * image.height;
    const context = canvas.getContext("2d");
    if (!context) throw new Error("This browser draws no pictures.");
    context.scale(2, 2);
    context.drawImage(image, 0, 0);
    return new Promise(
      (resolve, reject) => canvas.toBlob(
        (blob) => blob ? resolve(blob) : reject(new Error("The picture is empty.")),
        "image/png"
      )
    );
  }
  async function copy(text, root) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const field = document.createElement("textarea");
      field.value = text;
      root.append(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      return done;
    }
  }

  // codi_lens/explorer/js/state.js
  var Store = class {
    /**
     * @param {State} initial
     * @param {(state: State) => State} normal what a state has to be for this page
     */
    constructor(initial, normal2) {
      this.state = normal2(initial);
      this._normal = normal2;
      this._listeners = [];
    }
    /** @param {(changed: Set<Field>) => void} listener */
    subscribe(listener) {
      this._listeners.push(listener);
    }
    /** @param {Partial<State>} changes */
    set(changes) {
      const before = this.state;
      this.state = this._normal({ ...before, ...changes });
      const fields = (
        /** @type {Field[]} */
        Object.keys(this.state)
      );
      const changed = new Set(
        fields.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(this.state[name]))
      );
      if (changed.size) for (const listener of this._listeners) listener(changed);
    }
  };
  function selected({ head = -1, locked = false, pin = -1 }) {
    return [.../* @__PURE__ */ new Set([...locked ? [head] : [], ...pin >= 0 ? [pin] : []])];
  }
  function toFragment(state, first, data) {
    const id = (problem) => problem < 0 ? "" : data.payload.problems[problem].id;
    const frozen = state.pinProblem === null ? "" : `@${id(state.pinProblem)}`;
    const fields = [
      ["head", data.names[state.head], true],
      ["locked", "0", !state.locked],
      ["pin", state.pin < 0 ? "" : data.names[state.pin] + frozen, state.pin >= 0],
      ["problem", id(state.problem), state.problem !== first.problem],
      ["view", state.view, state.view !== first.view],
      ["quantity", state.quantity, state.quantity !== first.quantity],
      ["diff", state.diff, state.diff !== ""],
      ["scaled", "1", state.scaled],
      [
        "cell",
        state.cell ? `${data.payload.queries[state.cell[0]]},${data.payload.keys[state.cell[1]]}` : "",
        state.cell !== null
      ],
      ["layers", state.layers.join("-"), state.layers.join() !== first.layers.join()],
      ["label", state.label, state.label !== ""],
      ["top", String(state.top), state.top > 0],
      ["significant", "1", state.significant],
      ["search", state.search, state.search !== ""],
      ["zoom", String(state.zoom), state.zoom !== 1],
      ["theme", state.theme, state.theme !== "auto"]
    ];
    const kept = fields.filter(([, , shown]) => shown).map(([name, value]) => [name, value]);
    return new URLSearchParams(kept).toString();
  }
  function fromFragment(fragment, data) {
    const given = new URLSearchParams(fragment.replace(/^#/, ""));
    const found = {};
    const text = (name) => given.get(name) ?? "";
    const { queries, keys, layers, quantities } = data.payload;
    const head = data.headOf(text("head"));
    if (head >= 0) Object.assign(found, { head, locked: text("locked") !== "0" });
    const [pinned, ...where] = text("pin").split("@");
    const pin = data.headOf(pinned);
    if (pin >= 0) {
      const at = where.length ? problemNamed(where.join("@"), data) : null;
      Object.assign(found, { pin, pinProblem: at });
    }
    const problem = given.has("problem") ? problemNamed(text("problem"), data) : null;
    if (problem !== null) found.problem = problem;
    const view = text("view");
    if (view === "position" || view === "generation" && data.payload.generation.length)
      found.view = view;
    const known = [...quantities.map(({ name }) => name), "cell", "difference"];
    if (known.includes(text("quantity"))) found.quantity = text("quantity");
    const compared = comparisons(data, found.problem ?? -1).map(({ value }) => value);
    if (compared.includes(text("diff"))) found.diff = text("diff");
    if (given.has("scaled")) found.scaled = text("scaled") === "1";
    const [query, key] = text("cell").split(",");
    const [row, column] = [queries.indexOf(query), keys.indexOf(key)];
    if (row >= 0 && column >= 0 && data.payload.possible[row][column]) found.cell = [row, column];
    const [first, last] = text("layers").split("-").map(Number);
    if (layers.includes(first) && layers.includes(last) && first <= last)
      found.layers = [first, last];
    const labels = data.payload.labels.flatMap(
      ({ name, values }) => values.map((value) => `${name}/${value}`)
    );
    if (labels.includes(text("label"))) found.label = text("label");
    if (/^\d{1,6}$/.test(text("top"))) found.top = Number(text("top"));
    if (given.has("significant")) found.significant = text("significant") === "1";
    if (given.has("search")) found.search = text("search");
    if (/^(1|1\.5|2|3)$/.test(text("zoom"))) found.zoom = Number(text("zoom"));
    const theme = text("theme");
    if (theme === "light" || theme === "dark") found.theme = theme;
    return found;
  }
  function problemNamed(id, data) {
    if (id === "") return -1;
    const problem = data.problemOf(id);
    return problem < 0 ? null : problem;
  }

  // codi_lens/explorer/js/theme.js
  var KEY = "codi_lens.theme";
  function keptTheme() {
    try {
      const kept = localStorage.getItem(KEY);
      return kept === "light" || kept === "dark" ? kept : null;
    } catch {
      return null;
    }
  }
  function keepTheme(theme) {
    try {
      localStorage.setItem(KEY, theme);
    } catch {
    }
  }

  // codi_lens/explorer/js/actions.js
  var ZOOMS = [1, 1.5, 2, 3];
  var Actions = class {
    /** @param {Explorer} explorer */
    constructor(explorer) {
      this.explorer = explorer;
    }
    /** @param {number} head -1 for none */
    point(head) {
      this.explorer.store.set({ preview: this.explorer.store.state.locked ? -1 : head });
    }
    /** @param {number} head lock it, or release it if it is locked */
    lock(head) {
      const { state } = this.explorer.store;
      this.explorer.store.set({ head, locked: !(state.locked && state.head === head), preview: -1 });
      this._toHead();
    }
    /** @param {number} head */
    show(head) {
      this.explorer.store.set({ head, locked: true, preview: -1 });
      this._toHead();
    }
    /** On a phone the head lies under the map: bring it into sight when it is out of it. */
    _toHead() {
      const { top, bottom } = this.explorer.boxes.first.getBoundingClientRect();
      if (bottom < 40 || top > window.innerHeight - 40) {
        this.explorer.boxes.headTitle.scrollIntoView({
          block: "start",
          behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"
        });
      }
    }
    /** @param {number} head a second one, beside the first; again to take it away */
    pin(head) {
      const gone = this.explorer.store.state.pin === head && this.explorer.store.state.pinProblem === null;
      this.explorer.store.set({ pin: gone ? -1 : head, pinProblem: null });
    }
    /** Pin the head as it is in this problem, to hold it against others. */
    pinHere() {
      this.explorer.store.set({
        pin: this.explorer.head,
        pinProblem: this.explorer.store.state.problem
      });
    }
    /** @param {[number, number]} cell again to release it */
    chooseCell(cell) {
      const same = this.explorer.store.state.cell?.join() === cell.join();
      this.explorer.store.set({ cell: same ? null : cell });
    }
    clear() {
      this.explorer.store.set({
        locked: false,
        preview: -1,
        pin: -1,
        pinProblem: null,
        cell: null,
        diff: ""
      });
    }
    /** @param {string} key an arrow: to the nearest head in that direction that passes the filters */
    moveHead(key) {
      const { data, passes, head } = this.explorer;
      const heads = passes.flatMap((passed, other) => passed ? [other] : []);
      const next = heads[nearest(heads.map(data.place), data.place(head), key)];
      if (next !== void 0) this.explorer.store.set({ head: next, locked: true, preview: -1 });
    }
    /** @param {boolean} first or last */
    bestHead(first) {
      const order = this.explorer.quantity.order.filter((head) => this.explorer.passes[head]);
      if (order.length)
        this.explorer.store.set({
          head: order[first ? 0 : order.length - 1],
          locked: true,
          preview: -1
        });
    }
    /** @param {number} step */
    stepRank(step) {
      const order = this.explorer.quantity.order.filter((head2) => this.explorer.passes[head2]);
      const head = order[order.indexOf(this.explorer.head) + step];
      if (head !== void 0) this.explorer.store.set({ head, locked: true, preview: -1 });
    }
    /**
     * @param {number} step among the problems that the search finds; before the first is the mean
     * @param {boolean} [round] whether the first comes after the last
     */
    stepProblem(step, round = false) {
      const { matching, store } = this.explorer;
      if (!matching.length) return;
      const { problem } = store.state;
      const places = [-1, ...matching];
      const next = step > 0 ? matching.find((place) => place > problem) ?? (round ? matching[0] : void 0) : places.findLast((place) => place < problem);
      if (next !== void 0) store.set({ problem: next });
    }
    /** @param {number} wanted the problem, or the next in its direction that the search finds */
    toMatching(wanted) {
      const { matching, store, controls } = this.explorer;
      const { problem } = store.state;
      const places = [-1, ...matching];
      const beyond = wanted > problem ? places.find((place) => place >= wanted) : places.findLast((place) => place <= wanted);
      const last = wanted > problem ? places[places.length - 1] : -1;
      const next = beyond ?? (matching.length ? last : problem);
      if (next === problem || !matching.length) controls.sync();
      else store.set({ problem: next });
    }
    nextDiff() {
      const { problem, diff } = this.explorer.store.state;
      const list = comparisons(this.explorer.data, problem).filter(({ group }) => group === "");
      const ways = list.map(({ value }) => value);
      this.explorer.store.set({ diff: ways[(ways.indexOf(diff) + 1) % ways.length] });
    }
    nextView() {
      if (!this.explorer.data.payload.generation.length) return;
      this.explorer.store.set({
        view: this.explorer.store.state.view === "position" ? "generation" : "position"
      });
    }
    nextQuantity() {
      const names2 = choices(this.explorer.data, this.explorer.store.state).map(({ name }) => name);
      this.explorer.store.set({
        quantity: names2[(names2.indexOf(this.explorer.store.state.quantity) + 1) % names2.length]
      });
    }
    /** @param {number} step */
    zoom(step) {
      const place = ZOOMS.indexOf(this.explorer.store.state.zoom) + step;
      this.explorer.store.set({ zoom: ZOOMS[Math.min(Math.max(place, 0), ZOOMS.length - 1)] });
    }
    turnTheme() {
      const theme = this.explorer.dark ? "light" : "dark";
      if (this.explorer.alone) keepTheme(theme);
      this.explorer.store.set({ theme });
    }
    /** @param {string} fragment of a link */
    restore(fragment) {
      this.explorer.store.set({
        ...this.explorer.first,
        theme: this.explorer.store.state.theme,
        ...fromFragment(fragment, this.explorer.data)
      });
    }
    copySelection() {
      const heads = this.explorer.selected.length ? this.explorer.selected : [this.explorer.head];
      this._say(
        copy(selection(heads, this.explorer.data), this.explorer.root),
        `copied ${selection(heads, this.explorer.data)}`
      );
    }
    copyLink() {
      const address = `${location.href.split("#")[0]}#${this.explorer.fragment}`;
      this._say(copy(address, this.explorer.root), "link copied");
    }
    saveTable() {
      download("heads.csv", new Blob([this.explorer.table.csv()], { type: "text/csv" }));
    }
    /**
     * The matrices, or the map, with what their headings and legends say.
     * @param {"png" | "svg"} kind
     * @param {"head" | "map"} what
     */
    async saveFigure(kind, what) {
      const { boxes, map, matrix, second, data, head, palette: palette2, store, quantity } = this.explorer;
      const { mapTitle, mapNote, firstName, firstLegend, secondName, secondLegend } = boxes;
      const drawn = what === "map" ? [[mapTitle, mapNote, map.drawn]] : [
        [firstName, firstLegend, matrix.drawn],
        [secondName, secondLegend, store.state.pin < 0 ? void 0 : second.drawn]
      ];
      const parts = drawn.flatMap(
        ([title, note, figure2]) => figure2 ? [{ title: title.textContent ?? "", note: said(note), figure: figure2 }] : []
      );
      if (what === "map")
        parts[0].note = [parts[0].note, said(map.legend)].filter(Boolean).join(" · ");
      const whole = composed(parts, palette2);
      const name = what === "map" ? quantity.quantity.label.replace(/[^\w]+/g, "_") : data.names[head];
      download(`${name}.${kind}`, kind === "svg" ? asSvg(whole) : await asPng(whole));
    }
    /**
     * @param {Promise<boolean>} done
     * @param {string} text
     */
    _say(done, text) {
      void done.then((copied) => {
        this.explorer.boxes.said.textContent = copied ? text : "the browser does not let this page copy";
      });
    }
  };
  function said(box) {
    const parts = box.children.length ? [...box.children] : [box];
    return parts.map((part) => part.textContent ?? "").filter(Boolean).join(" · ");
  }

  // codi_lens/explorer/js/captions.js
  function headTexts({ data, quantity, store }, head) {
    const { view } = store.state;
    const rank = quantity.rank(head);
    const of = rank ? `rank ${rank} of ${quantity.order.length}` : "";
    const labels = data.payload.labels.filter((each) => each.view === null || each.view === view).map(({ values }) => values[head]);
    const measured2 = `${quantity.quantity.label} ${quantity.text(head)}`;
    return [data.names[head], measured2, of, ...labels].filter(Boolean);
  }
  function write(explorer) {
    const { boxes, data, quantity, shown, head } = explorer;
    const { state } = explorer.store;
    const { scope, n, view, constant, label: label2 } = quantity.quantity;
    boxes.mapTitle.textContent = label2;
    const notes = [
      scope ? `measured at ${scope}` : "",
      n ? `n = ${n}` : "",
      view ? `${view} view` : "",
      constant ? "the same for every head, so it ranks nothing" : ""
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
    boxes.stripNote.textContent = shown.strip ? `${data.names[head]} over the question's tokens (␣ is a space)${plain}` : "";
    boxes.firstLegend.replaceChildren(...legend(explorer, explorer.matrix));
    if (state.pin >= 0) boxes.secondLegend.replaceChildren(...legend(explorer, explorer.second));
  }
  function placeOf({ data }, problem) {
    return problem < 0 ? meanOver(data.payload.series[0]) : `problem ${data.payload.problems[problem].id}`;
  }
  function legend({ palette: palette2, data, store }, { head, differs, most }) {
    const texts = differs ? [`difference ${fixed(-most, 2)}`, `+${fixed(most, 2)}`, "corner mark: beyond the scale"] : store.state.scaled ? [
      "attention 0",
      fixed(most, 2),
      `scaled to ${data.names[head]}: colours do not compare with other heads`
    ] : ["attention 0", "1", ""];
    const colour = (at) => differs ? palette2.difference(2 * at - 1) : palette2.attention(at);
    return [
      html("span", {}, texts[0]),
      ramp(colour),
      html("span", {}, texts[1]),
      html("span", { class: "quiet" }, texts[2])
    ];
  }
  function ramp(colour) {
    const colours = Array.from({ length: 24 }, (_, i) => colour(i / 23));
    return html("i", { style: `background:linear-gradient(to right,${colours.join(",")})` });
  }
  function speak(explorer) {
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
  function noStrip({ data, store, head }) {
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

  // codi_lens/explorer/js/colours.js
  var LEAST_SCORE = 0.12;
  function palette(style, dark) {
    const turn = (scale) => dark ? [...scale].reverse() : scale;
    const score = interpolated(turn(style.score));
    const ends = dark ? ["#5aa9ff", "#22384f", "#20242a", "#4d2b1f", "#ff9b66"] : ["#1f5fa8", "#a9cbe8", "#f4f4f2", "#f3bd9c", "#a8420a"];
    const difference = interpolated(ends);
    return {
      attention: interpolated(turn(style.attention)),
      score: (value) => score(LEAST_SCORE + (1 - LEAST_SCORE) * value),
      difference: (value) => difference((value + 1) / 2),
      ink: dark ? "#e6e9ee" : "#1b1f24",
      muted: dark ? "#a3adba" : "#57606a",
      ground: dark ? "#161a20" : "#ffffff",
      impossible: dark ? "#2b3038" : "#e3e3e3",
      hatch: dark ? "#59616d" : "#9b9b9b",
      self: dark ? "#ff8a4c" : "#d9480f",
      needed: dark ? "#3ddc84" : "#12a150",
      chosen: dark ? "#ffd43b" : "#d6006c"
    };
  }
  function textOn(colour) {
    const [r, g, b] = channels(colour).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 < Math.sqrt(1.05 * 0.05) ? "#ffffff" : "#000000";
  }
  function interpolated(scale) {
    const stops = scale.map(channels);
    const at = (value) => {
      const along = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
      const i = Math.min(Math.floor(along), stops.length - 2);
      const mixed = stops[i].map((low, c) => Math.round(low + (along - i) * (stops[i + 1][c] - low)));
      return `rgb(${mixed.join(",")})`;
    };
    return at;
  }
  function channels(colour) {
    if (colour.startsWith("#")) {
      return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
    }
    return (colour.match(/[\d.]+/g) ?? []).map(Number);
  }

  // codi_lens/explorer/js/controls.js
  var TOPS = [5, 10, 20, 50, 100];
  var Controls = class {
    /** @param {Explorer} explorer */
    constructor(explorer) {
      this.explorer = explorer;
      const { data, store } = explorer;
      this.quantity = this._select("Quantity", (value) => store.set({ quantity: value }));
      this.diff = this._select("Compare with", (value) => store.set({ diff: value }));
      this.from = this._select(
        "Layers from",
        (value) => store.set({ layers: [Number(value), Math.max(Number(value), store.state.layers[1])] })
      );
      this.to = this._select(
        "Layers to",
        (value) => store.set({ layers: [Math.min(store.state.layers[0], Number(value)), Number(value)] })
      );
      this.label = this._select("Type or band", (value) => store.set({ label: value }));
      this.top = this._select("Best", (value) => store.set({ top: Number(value) }));
      this.significant = this._check(
        "q < 0.05 only",
        (checked) => store.set({ significant: checked })
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
          this.significant.field
        )
      );
      this.views = this._views();
      this.slider = html("input", {
        type: "range",
        min: "-1",
        max: String(data.payload.problems.length - 1),
        step: "1",
        "aria-label": "Problem"
      });
      this.place = html("output", { class: "place" });
      this.search = html("input", {
        type: "search",
        placeholder: "search text",
        "aria-label": "Search the problems"
      });
      this.found = html("span", { class: "quiet", "aria-live": "polite" });
      this.problem = this._problem();
      for (const layer of data.payload.layers) {
        this.from.select.append(html("option", { value: String(layer) }, `L${layer}`));
        this.to.select.append(html("option", { value: String(layer) }, `L${layer}`));
      }
      const tops = TOPS.filter((n) => n < data.nHeads).map(
        (n) => html("option", { value: String(n) }, `top ${n}`)
      );
      this.top.select.append(html("option", { value: "0" }, "all heads"), ...tops);
    }
    _problem() {
      const { explorer } = this;
      const { store } = explorer;
      const button = (text, name, act) => {
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
          button("›", "Next problem", () => explorer.act.stepProblem(1))
        ),
        html("div", { class: "steps" }, this.place, this.search, this.found)
      );
    }
    _views() {
      const { data, store } = this.explorer;
      const names2 = data.payload.generation.length ? ["position", "generation"] : ["position"];
      const group = html("fieldset", { class: "segments" }, html("legend", {}, "View"));
      const name = `view-${Math.random().toString(36).slice(2)}`;
      for (
        const view of
        /** @type {("position" | "generation")[]} */
        names2
      ) {
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
        choices(data, state).map(({ name, label: label2, group }) => ({ value: name, text: label2, group })),
        state.quantity
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
      this.hidden.textContent = hiding ? `Filters hide ${hiding} of ${count(data.nHeads, "head")}.` : "";
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
      const text = problem < 0 ? meanOver(data.payload.series[0]) : `${problem + 1} of ${n}: ${data.payload.problems[problem].id}`;
      this.place.textContent = text;
      this.slider.setAttribute("aria-valuetext", text);
      if (this.search.value !== search) this.search.value = search;
      this.search.hidden = n === 0;
      this.found.textContent = search ? matching.length === 1 ? "1 matches" : `${matching.length} match` : "";
    }
    _comparisons() {
      const { data, store } = this.explorer;
      const { problem, diff } = store.state;
      const list = comparisons(data, problem);
      if (list.some(({ value }) => value === diff)) return list;
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
  };
  function options(select, wanted, value) {
    const key = JSON.stringify(wanted);
    if (select.dataset.key !== key) {
      select.dataset.key = key;
      const groups = /* @__PURE__ */ new Map([["", select]]);
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

  // codi_lens/explorer/js/keys.js
  var KEYS = [
    [
      ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
      "move the head",
      (explorer, key) => explorer.act.moveHead(key)
    ],
    [
      ["Home", "End"],
      "first and last head by the quantity",
      (explorer, key) => explorer.act.bestHead(key === "Home")
    ],
    [
      ["PageUp", "PageDown"],
      "the next better or worse head by the quantity",
      (explorer, key) => explorer.act.stepRank(key === "PageUp" ? -1 : 1)
    ],
    [
      ["["],
      "problem before; ahead of the first is the mean",
      (explorer) => explorer.act.stepProblem(-1)
    ],
    [["]"], "next problem", (explorer) => explorer.act.stepProblem(1)],
    [["m"], "mean over problems", (explorer) => explorer.store.set({ problem: -1 })],
    [["d"], "next comparison: mean, other series, none", (explorer) => explorer.act.nextDiff()],
    [["v"], "position or generation view", (explorer) => explorer.act.nextView()],
    [["q"], "next quantity", (explorer) => explorer.act.nextQuantity()],
    [
      ["s"],
      "scale of this head, or the fixed one",
      (explorer) => explorer.store.set({ scaled: !explorer.store.state.scaled })
    ],
    [["p"], "pin the head beside the next", (explorer) => explorer.act.pin(explorer.head)],
    [["P"], "pin the head in this problem", (explorer) => explorer.act.pinHere()],
    [["Enter"], "lock the head", (explorer) => explorer.act.lock(explorer.head)],
    [["Escape"], "clear lock, pin, cell and comparison", (explorer) => explorer.act.clear()],
    [["+", "="], "larger cells", (explorer) => explorer.act.zoom(1)],
    [["-"], "smaller cells", (explorer) => explorer.act.zoom(-1)],
    [["/"], "search the problems", (explorer) => explorer.controls.search.focus()],
    [["?"], "this help", (explorer) => explorer.help.toggle()]
  ];
  var OWN = /^(Arrow.*|Page.*|Home|End|Enter| )$/;
  function onKey(explorer, event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.composedPath()[0];
    if (!(target instanceof HTMLElement)) return;
    if (explorer.help.dialog.open) {
      if (event.key === "?") explorer.help.toggle();
      return;
    }
    const typing = target.matches("input[type=search], textarea");
    if (typing && event.key !== "Escape") return;
    const own = target.matches("select") ? /^(.|Arrow.*|Page.*|Home|End|Enter)$/ : OWN;
    const isOwn = own.test(event.key) && !/^[[\]?/+=-]$/.test(event.key);
    const scrolls = target.matches(".scroller, .scroll");
    if (isOwn && (scrolls || target.matches("input, select, button, summary, a"))) return;
    const found = KEYS.find(([names2]) => names2.includes(event.key));
    if (!found) return;
    event.preventDefault();
    event.stopPropagation();
    explorer.tip.hide();
    if (typing) target.blur();
    else found[2](explorer, event.key);
  }

  // codi_lens/explorer/js/layout.js
  var HEAD_NAME = /\bL(\d+)H(\d+)\b/g;
  function layout(explorer, root) {
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
      said: html("span", { class: "quiet", role: "status" })
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
        html("div", {}, boxes.secondName, boxes.second, boxes.secondLegend)
      ),
      html("p", { class: "quiet" }, "Hatched: impossible. Orange: self. Green: known edge."),
      boxes.stripNote,
      boxes.strip,
      boxes.spoken,
      exports(explorer, boxes.said)
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
        html("div", { class: "exports" }, ...pictures(explorer, "map", "The map"))
      ),
      head,
      html(
        "section",
        { class: "card panel-problem", "aria-label": "The problem" },
        html("h2", {}, "Problem"),
        controls.problem,
        boxes.problem
      ),
      html(
        "section",
        { class: "card panel-table", "aria-label": "All heads" },
        html("h2", {}, "Heads"),
        boxes.table
      )
    );
    const theme = html("button", { type: "button", class: "theme" }, "dark");
    theme.addEventListener("click", () => explorer.act.turnTheme());
    const help = html("button", { type: "button", "aria-label": "Help: keys" }, "?");
    help.addEventListener("click", () => explorer.help.toggle());
    const { facts, title, findings } = data.payload;
    const cards = Object.entries(facts).map(
      ([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))
    );
    root.append(
      html(
        "header",
        {},
        html(
          "div",
          { class: "bar" },
          html("h1", {}, title),
          html("div", { class: "buttons" }, theme, help)
        ),
        html("dl", { class: "facts" }, ...cards)
      )
    );
    const opening = opened(explorer);
    if (opening) root.append(opening);
    root.append(panels);
    if (findings.length) {
      const list = html(
        "ul",
        {},
        ...findings.map((sentence2) => html("li", {}, ...linked(explorer, sentence2)))
      );
      root.append(
        html(
          "section",
          { class: "card", "aria-label": "Findings" },
          html("h2", {}, "Findings"),
          list
        )
      );
    }
    root.append(boxes.live);
    return { ...boxes, theme };
  }
  function opened(explorer) {
    const { opening } = explorer.data.payload;
    if (!opening) return null;
    const buttons = opening.examples.map(({ label: label2, state }) => {
      const button = html("button", { type: "button", class: "chip" }, label2);
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
        ...opening.sentences.map((sentence2) => html("li", {}, ...linked(explorer, sentence2)))
      ),
      html("div", { class: "chips" }, ...buttons)
    );
  }
  function linked(explorer, sentence2) {
    const parts = [];
    let end = 0;
    for (const found of sentence2.matchAll(HEAD_NAME)) {
      const head = explorer.data.headOf(found[0]);
      if (head < 0) continue;
      const button = html("button", { type: "button", class: "link" }, found[0]);
      button.addEventListener("click", () => explorer.act.show(head));
      parts.push(sentence2.slice(end, found.index), button);
      end = found.index + found[0].length;
    }
    return [...parts, sentence2.slice(end)];
  }
  function pins(explorer) {
    return html(
      "div",
      { class: "buttons" },
      action(
        "Pin",
        "Put this head beside the next; again to take it away",
        () => explorer.act.pin(explorer.head)
      ),
      action("Pin here", "Put this head in this problem beside others", () => explorer.act.pinHere()),
      action("Clear", "Take away lock, pin, chosen cell and comparison", () => explorer.act.clear())
    );
  }
  function action(text, title, act) {
    const made = html("button", { type: "button", title }, text);
    made.addEventListener("click", act);
    return made;
  }
  function pictures(explorer, what, name) {
    return [
      action("PNG", `${name} as a picture`, () => void explorer.act.saveFigure("png", what)),
      action("SVG", `${name} as vector graphics`, () => void explorer.act.saveFigure("svg", what))
    ];
  }
  function exports(explorer, said2) {
    return html(
      "div",
      { class: "exports" },
      action(
        "Copy heads",
        "The locked and the pinned head, as ablate_heads takes them",
        () => explorer.act.copySelection()
      ),
      ...explorer.alone ? [action("Copy link", "A link that opens the page as it is", () => explorer.act.copyLink())] : [],
      action("CSV", "The table as it is filtered and sorted", () => explorer.act.saveTable()),
      ...pictures(explorer, "head", "The head's matrix"),
      said2
    );
  }
  var Help = class {
    /** @param {HTMLElement} root */
    constructor(root) {
      const rows = KEYS.map(
        ([keys, what]) => html(
          "tr",
          {},
          html("td", {}, ...keys.flatMap((key) => [html("kbd", {}, names[key] ?? key), " "])),
          html("td", {}, what)
        )
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
          "Point at a head to preview it, click to lock it, shift-click to pin a second one beside it, double-click to clear. Click a cell to follow it across heads and problems."
        ),
        close
      );
      root.append(this.dialog);
    }
    toggle() {
      if (this.dialog.open) this.dialog.close();
      else this.dialog.showModal();
    }
  };
  var names = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };

  // codi_lens/explorer/js/map.js
  var LEFT = 34;
  var TOP = 22;
  var HeadMap = class {
    /**
     * @param {Explorer} explorer
     * @param {HTMLElement} box
     */
    constructor(explorer, box) {
      this.explorer = explorer;
      this.box = box;
      this.cells = [];
      this.legend = html("div", { class: "legend" });
      this.drawing = html("div", { class: "drawing" });
      set(box, {
        tabindex: "0",
        role: "application",
        "aria-label": "Map of all heads: arrow keys move from head to head, Enter locks, P pins"
      });
      box.append(this.drawing);
      box.after(this.legend);
      this._listen();
    }
    _listen() {
      const headAt = (event) => {
        const cell = event.target instanceof Element ? event.target.closest("[data-head]") : null;
        return cell ? Number(cell.getAttribute("data-head")) : -1;
      };
      this.box.addEventListener("pointermove", (event) => {
        const head = headAt(event);
        if (event.pointerType === "touch") return;
        this.explorer.act.point(head);
        if (head >= 0) this.explorer.tip.show(event, headTexts(this.explorer, head));
        else this.explorer.tip.hide();
      });
      this.box.addEventListener("pointerleave", () => {
        this.explorer.act.point(-1);
        this.explorer.tip.hide();
      });
      this.box.addEventListener("click", (event) => {
        const head = headAt(event);
        if (head < 0) return;
        if (event.shiftKey) this.explorer.act.pin(head);
        else this.explorer.act.lock(head);
      });
      this.box.addEventListener("dblclick", () => this.explorer.act.clear());
    }
    /** Everything anew: sizes, labels, cells. */
    build() {
      const { data, palette: palette2 } = this.explorer;
      const { layers, heads } = data.payload;
      const width = Math.max(220, this.box.clientWidth || 480);
      const size = Math.min(44, (width - LEFT - 2) / heads.length);
      const tall = Math.max(15, Math.min(34, size));
      const height = TOP + tall * layers.length + 2;
      const { figure: drawn, hatch } = figure(
        Math.round(LEFT + size * heads.length + 2),
        Math.round(height),
        palette2
      );
      this.hatch = hatch;
      this.cells = [];
      const everyColumn = Math.ceil(26 / size);
      heads.forEach((head, i) => {
        if (i % everyColumn === 0) {
          drawn.append(
            label(LEFT + (i + 0.5) * size, TOP - 7, `H${head}`, {
              "text-anchor": "middle",
              fill: palette2.muted
            })
          );
        }
      });
      layers.forEach((layer, line) => {
        const y = TOP + line * tall;
        drawn.append(
          label(LEFT - 5, y + tall / 2 + 4, `L${layer}`, {
            "text-anchor": "end",
            fill: palette2.muted
          })
        );
        heads.forEach((_, column) => {
          const head = line * heads.length + column;
          const cell = svg("rect", {
            x: LEFT + column * size + 0.5,
            y: y + 0.5,
            width: Math.max(1, size - 1),
            height: tall - 1,
            "data-head": head
          });
          this.cells.push(cell);
          drawn.append(cell);
        });
      });
      this.locked = svg("rect", {
        fill: "none",
        stroke: palette2.chosen,
        "stroke-width": 3,
        "pointer-events": "none"
      });
      this.second = svg("rect", {
        fill: "none",
        stroke: palette2.chosen,
        "stroke-width": 2,
        "stroke-dasharray": "4 3",
        "pointer-events": "none"
      });
      this.pointed = svg("rect", {
        fill: "none",
        stroke: palette2.ink,
        "stroke-width": 2,
        "pointer-events": "none"
      });
      drawn.append(this.second, this.pointed, this.locked);
      this.drawn = drawn;
      this.drawing.replaceChildren(drawn);
      this.paint();
    }
    /** The quantity's colours. */
    paint() {
      const { quantity, passes, palette: palette2 } = this.explorer;
      this.cells.forEach((cell, head) => {
        const missing = quantity.value(head) === null;
        set(cell, {
          fill: missing ? this.hatch ?? "" : this._colour(head),
          opacity: passes[head] ? missing ? 1 : quantity.firmness(head) : 0.06
        });
      });
      this._drawLegend();
      this.mark();
    }
    /** @param {number} head */
    _colour(head) {
      const { quantity, palette: palette2 } = this.explorer;
      const along = quantity.along(head);
      if (quantity.quantity.signed) return palette2.difference(along);
      return quantity.quantity.name === "cell" ? palette2.attention(quantity.value(head) ?? 0) : palette2.score(along);
    }
    _drawLegend() {
      const { quantity, palette: palette2 } = this.explorer;
      const { signed, unit, name } = quantity.quantity;
      const [colour, from, to] = signed ? [
        (at) => palette2.difference(2 * at - 1),
        -quantity.reach,
        quantity.reach
      ] : name === "cell" ? [palette2.attention, 0, 1] : [palette2.score, quantity.least, quantity.most];
      const ends = quantity.quantity.low ? "faded: wide interval" : "";
      const missing = this.cells.some((_, head) => quantity.value(head) === null);
      this.legend.replaceChildren(
        html("span", {}, quantity.fixed(from)),
        ramp(colour),
        html("span", {}, `${quantity.fixed(to)}${unit ? ` ${unit}` : ""}`),
        ...ends ? [html("span", { class: "quiet" }, ends)] : [],
        ...missing ? [html("span", { class: "quiet" }, "hatched: not measured")] : []
      );
    }
    /** Which heads are locked, pinned and pointed at. */
    mark() {
      const { state } = this.explorer.store;
      this._outline(this.locked, state.head, state.locked || state.preview < 0);
      this._outline(this.second, state.pin, state.pin >= 0);
      this._outline(this.pointed, state.preview, state.preview >= 0);
    }
    /**
     * @param {SVGRectElement | undefined} outline
     * @param {number} head
     * @param {boolean} shown
     */
    _outline(outline2, head, shown) {
      const cell = this.cells[head];
      if (!outline2) return;
      set(outline2, { visibility: shown && cell ? "visible" : "hidden" });
      if (cell)
        for (const name of ["x", "y", "width", "height"])
          outline2.setAttribute(name, cell.getAttribute(name) ?? "");
    }
  };

  // codi_lens/explorer/js/roving.js
  function roving(explorer, box, name, stops) {
    set(box, {
      tabindex: "0",
      role: "application",
      "aria-label": `${name}: arrow keys move from cell to cell, Enter chooses one`
    });
    let at = -1;
    const stopAt = (event) => {
      const cell = event.target instanceof Element ? event.target.closest("[data-cell]") : null;
      return cell ? stops().findIndex(({ place }) => place === cell) : -1;
    };
    const leave = () => {
      box.querySelector("[data-at]")?.removeAttribute("data-at");
      explorer.tip.hide();
    };
    box.addEventListener("pointermove", (event) => {
      const stop = event.pointerType === "touch" ? void 0 : stops()[stopAt(event)];
      if (stop) explorer.tip.show(event, stop.texts());
      else explorer.tip.hide();
    });
    box.addEventListener("pointerleave", () => explorer.tip.hide());
    box.addEventListener("blur", leave);
    box.addEventListener("click", (event) => {
      const stop = stops()[at = stopAt(event)];
      if (!stop) return;
      stop.choose?.();
      explorer.tip.show(event, stop.texts());
    });
    box.addEventListener("keydown", (event) => {
      const all = stops();
      if (event.key === "Enter" && all[at]) all[at].choose?.();
      else if (isArrow(event.key) && !event.shiftKey && all.length) {
        const next = all[at] ? nearest(all, all[at], event.key, 0) : 0;
        if (next >= 0) at = next;
      } else return;
      event.preventDefault();
      event.stopPropagation();
      const { place, texts } = all[at];
      box.querySelector("[data-at]")?.removeAttribute("data-at");
      place.setAttribute("data-at", "yes");
      place.scrollIntoView({ block: "nearest", inline: "nearest" });
      const { left, bottom } = place.getBoundingClientRect();
      explorer.tip.show({ clientX: left, clientY: bottom - 14 }, texts());
      explorer.boxes.live.textContent = texts().join(", ");
    });
  }

  // codi_lens/explorer/js/matrix.js
  var NARROW = 30;
  var NARROW_SIGNED = 40;
  var Matrix = class {
    /**
     * @param {Explorer} explorer
     * @param {HTMLElement} box
     * @param {boolean} second whether it draws the second head
     */
    constructor(explorer, box, second) {
      this.explorer = explorer;
      this.box = box;
      this.second = second;
      this.cells = [];
      roving(explorer, box, second ? "The second head" : "The head", () => this._stops());
      box.addEventListener("dblclick", () => explorer.act.clear());
    }
    get head() {
      const { state } = this.explorer.store;
      return this.second ? state.pin : this.explorer.head;
    }
    /** Whether it shows a difference: a second head that stays in its problem does not. */
    get differs() {
      const { shown } = this.explorer;
      return shown.isDifference && !(this.second && shown.pinned);
    }
    /** The value with the full colour. */
    get most() {
      const { shown, store } = this.explorer;
      if (this.differs) return shown.limit;
      return store.state.scaled && shown.largest(this.head, this.second) || 1;
    }
    _stops() {
      const { explorer } = this;
      const { rows, columns } = explorer;
      return this.cells.map((cell) => ({
        place: cell.rect,
        row: rows.findIndex(({ query }) => query === cell.query),
        column: columns.indexOf(cell.key),
        texts: () => this._texts(cell),
        choose: () => explorer.act.chooseCell([cell.query, cell.key])
      }));
    }
    build() {
      const { explorer } = this;
      const { data, palette: palette2, rows, columns } = explorer;
      const { zoom } = explorer.store.state;
      const left = labelWidth(rows.map(({ name }) => name)) + 12;
      const bottom = 62;
      const room = Math.max(240, this.box.clientWidth || 520) - left - 4;
      const size = Math.min(54, Math.max(24, room / columns.length)) * zoom;
      const tall = Math.min(34, Math.max(20, size * 0.8)) * Math.max(1, zoom * 0.9);
      const height = tall * rows.length + bottom;
      const { figure: drawn, hatch } = figure(
        Math.ceil(left + size * columns.length + 4),
        Math.ceil(height),
        palette2
      );
      this.cells = [];
      rows.forEach((row, i) => {
        const y = i * tall;
        drawn.append(
          label(left - 6, y + tall / 2 + 4, row.name, { "text-anchor": "end", fill: palette2.ink })
        );
        columns.forEach((key, j) => {
          const x = left + j * size;
          if (!data.payload.possible[row.query][key]) {
            drawn.append(
              svg("rect", { x: x + 0.5, y: y + 0.5, width: size - 1, height: tall - 1, fill: hatch })
            );
            return;
          }
          const rect = svg("rect", {
            x: x + 0.5,
            y: y + 0.5,
            width: size - 1,
            height: tall - 1,
            "data-cell": this.cells.length
          });
          const text = label(x + size / 2, y + tall / 2 + 4, "", {
            "text-anchor": "middle",
            "pointer-events": "none"
          });
          const clip = svg("path", {
            d: `M${x + size - 9} ${y + 1}h8v8z`,
            "pointer-events": "none",
            visibility: "hidden"
          });
          this.cells.push({ rect, text, clip, query: row.query, key });
          drawn.append(rect, text, clip);
          if (data.payload.self[row.query][key])
            drawn.append(outline(x, y, size, tall, palette2.self, 2));
        });
      });
      columns.forEach((key, j) => {
        const [x, y] = [left + (j + 0.5) * size + 4, rows.length * tall + 12];
        drawn.append(
          label(x, y, data.payload.keys[key], {
            "text-anchor": "end",
            fill: palette2.ink,
            transform: `rotate(-50 ${x} ${y})`
          })
        );
      });
      this.needed = svg("g", { "pointer-events": "none" });
      this.chosen = svg("g", { "pointer-events": "none" });
      drawn.append(this.needed, this.chosen);
      this.size = { left, size, tall };
      this.drawn = drawn;
      this.box.replaceChildren(drawn);
      this.paint();
    }
    /** The numbers and colours of the head that is shown. */
    paint() {
      const { shown, palette: palette2 } = this.explorer;
      const { head } = this;
      if (head < 0) return;
      const { differs, most } = this;
      const narrow = (this.size?.size ?? 0) < (differs ? NARROW_SIGNED : NARROW);
      for (const cell of this.cells) {
        const value = shown.at(head, cell.query, cell.key, this.second);
        const undefined_ = Number.isNaN(value);
        const fill = undefined_ ? palette2.ground : differs ? palette2.difference(value / most) : palette2.attention(value / most);
        set(cell.rect, { fill });
        const text = undefined_ ? "–" : short(value, differs, narrow);
        if (cell.text.textContent !== text) cell.text.textContent = text;
        set(cell.text, {
          fill: undefined_ ? palette2.muted : textOn(fill),
          "font-size": narrow ? 9.5 : 12
        });
        set(cell.clip, {
          visibility: Math.abs(value) > most + 1e-6 ? "visible" : "hidden",
          fill: palette2.chosen
        });
      }
      this.markCell();
    }
    /** The edges that the problem needs, and the chosen cell. */
    markCell() {
      const { explorer } = this;
      if (!this.size || !this.needed || !this.chosen) return;
      const { left, size, tall } = this.size;
      const { data, palette: palette2, rows, columns } = explorer;
      const { state } = explorer.store;
      const where = (query, key) => {
        const [i, j] = [rows.findIndex((row) => row.query === query), columns.indexOf(key)];
        return i < 0 || j < 0 ? null : { x: left + j * size, y: i * tall };
      };
      const frozen = this.second && state.pinProblem !== null ? state.pinProblem : state.problem;
      const edges = frozen < 0 ? [] : data.payload.problems[frozen].edges;
      this.needed.replaceChildren(
        ...edges.flatMap(([query, key]) => {
          const at2 = where(data.payload.queries.indexOf(query), data.payload.keys.indexOf(key));
          return at2 ? [outline(at2.x, at2.y, size, tall, palette2.needed, 3)] : [];
        })
      );
      const at = state.cell && where(...state.cell);
      this.chosen.replaceChildren(
        ...at ? [
          svg("rect", {
            x: at.x + 3.5,
            y: at.y + 3.5,
            width: size - 7,
            height: tall - 7,
            fill: "none",
            stroke: palette2.chosen,
            "stroke-width": 2
          })
        ] : []
      );
    }
    /** @param {Cell} cell */
    _texts({ query, key }) {
      const { explorer, head } = this;
      const { data, shown } = explorer;
      const inOther = this.second && shown.pinned;
      const { value, baseline, half } = shown.both(head, query, key);
      const drawn = shown.at(head, query, key, this.second);
      const lines = [
        `${data.names[head]}: ${data.payload.queries[query]} → ${data.payload.keys[key]}`
      ];
      if (inOther) lines.push(`attention ${fixed(drawn)}`);
      else {
        const bounds = Number.isNaN(half) ? "" : ` ${interval(Math.max(0, value - half), Math.min(1, value + half))}`;
        lines.push(
          Number.isNaN(value) ? "undefined: no number in the answer" : `attention ${fixed(value)}${bounds}`
        );
        if (shown.isDifference)
          lines.push(`${shown.baselineName} ${fixed(baseline)}, difference ${fixed(drawn)}`);
        const rank = shown.rank(head, query, key);
        if (rank) lines.push(`rank ${rank} of ${data.nHeads} heads in this cell`);
      }
      return [...lines, headTexts(explorer, head)[1]];
    }
  };
  function outline(x, y, width, height, stroke, thick) {
    const inset = thick / 2 + 0.5;
    return svg("rect", {
      x: x + inset,
      y: y + inset,
      width: width - 2 * inset,
      height: height - 2 * inset,
      fill: "none",
      stroke,
      "stroke-width": thick,
      "pointer-events": "none"
    });
  }

  // codi_lens/explorer/js/problem.js
  var ProblemPanel = class {
    /**
     * @param {Explorer} explorer
     * @param {HTMLElement} box
     */
    constructor(explorer, box) {
      this.explorer = explorer;
      this.box = box;
      this.tokens = [];
    }
    build() {
      const { data, store } = this.explorer;
      const { problem } = store.state;
      this.tokens = [];
      if (problem < 0) {
        const { problems, series } = data.payload;
        const known = problems.filter(({ correct: correct2 }) => correct2 !== null);
        const right = known.filter(({ correct: correct2 }) => correct2).length;
        const interval2 = series[0].interval ? " Each cell tells its 95 % interval." : "";
        const lines = [html("p", {}, `${sentence(meanOver(series[0]))}.${interval2}`)];
        const some = (series[0].n ?? 0) > problems.length ? " shown one by one" : "";
        const judged = `${right} of ${known.length} answers${some} are right.`;
        if (known.length) lines.push(html("p", {}, judged));
        if (problems.length)
          lines.push(html("p", { class: "quiet" }, "Choose a problem with the slider."));
        this.box.replaceChildren(...lines);
        return;
      }
      const { question, answer, expected, correct, totals, edges } = data.payload.problems[problem];
      const parts = [this._text(question)];
      const facts = html("dl", { class: "pairs" });
      const fact = (name, value) => facts.append(html("div", {}, html("dt", {}, name), html("dd", {}, value)));
      if (answer !== null)
        fact("model's answer", answer === "" ? "(nothing)" : visible(answer.trim()));
      if (expected !== null) fact("right answer", expected);
      if (correct !== null)
        fact(
          "judged",
          html("span", { class: correct ? "right" : "wrong" }, correct ? "✓ right" : "✗ wrong")
        );
      parts.push(facts);
      if (totals.length) {
        parts.push(
          html("h4", {}, "Running totals"),
          html(
            "ol",
            { class: "totals" },
            ...totals.map(
              ({ name, value }) => html("li", {}, html("span", { class: "quiet" }, `${name} `), html("b", {}, value))
            )
          )
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
      const { shown, head, store, palette: palette2, data } = this.explorer;
      const row = store.state.cell?.[0] ?? data.nQueries - 1;
      if (!this.tokens.length) return;
      const kept = shown.strip?.keeps(head);
      if (this.caption) {
        const undefined_ = shown.undefinedRow(row);
        this.caption.textContent = undefined_ ? `Nothing to shade: ${data.payload.queries[row]} is undefined in this problem.` : kept ? `Shaded: what ${data.names[head]} attends to from ${data.payload.queries[row]}.` : `The strip of ${data.names[head]} is not kept on this page.`;
      }
      const most = this.explorer.stripScale(head);
      this.tokens.forEach((token, i) => {
        const value = shown.strip?.at(head, row, i) ?? 0;
        const colour = palette2.attention(value / most);
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
        ...this.tokens
      );
      line.addEventListener("pointermove", (event) => {
        const token = this.tokens.findIndex((each) => each === event.target);
        if (token < 0 || event.pointerType === "touch") return tip.hide();
        const { head, store, data } = this.explorer;
        const row = store.state.cell?.[0] ?? data.nQueries - 1;
        const value = fixed(this.explorer.shown.strip?.at(head, row, token));
        tip.show(event, [
          `token ${token} “${visible(this.tokens[token].textContent ?? "")}”`,
          `attention ${value}`
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
        button.addEventListener(
          "click",
          () => this.explorer.act.chooseCell([
            data.payload.queries.indexOf(query),
            data.payload.keys.indexOf(key)
          ])
        );
        return button;
      });
      return html("div", { class: "chips" }, ...buttons);
    }
    _lens() {
      const { shown, palette: palette2 } = this.explorer;
      const { lens } = shown;
      if (!lens) return null;
      const { positions, layers } = lens.lens;
      const columns = html(
        "tr",
        {},
        html("th", { scope: "col" }, "after"),
        ...positions.map((name) => html("th", { scope: "col" }, name))
      );
      const stops = [];
      const rows = layers.map((layer, line) => {
        const cells = positions.map((name, position) => {
          const top = lens.top(position, line);
          if (!top.length) return html("td");
          const colour = palette2.score(top[0].probability);
          const cell = html(
            "td",
            { style: `background:${colour};color:${textOn(colour)}`, "data-cell": "" },
            visible(top[0].text)
          );
          const texts = [
            `state at ${name} after layer ${layer}`,
            ...top.map(({ text, probability }) => `“${visible(text)}” ${fixed(probability, 2)}`)
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
        html("tbody", {}, ...rows)
      );
      const box = cue(html("div", { class: "scroll" }, table));
      roving(this.explorer, box, "Logit lens", () => stops);
      return [
        html("h4", {}, "Logit lens"),
        html(
          "p",
          { class: "quiet" },
          "The likeliest token of the state at each position; its colour is its probability."
        ),
        html("div", { class: "legend" }, "0", ramp(palette2.score), "1"),
        box
      ];
    }
  };

  // codi_lens/explorer/js/strip.js
  var TokenStrip = class {
    /**
     * @param {Explorer} explorer
     * @param {HTMLElement} box
     */
    constructor(explorer, box) {
      this.explorer = explorer;
      this.box = box;
      this.cells = [];
      roving(
        explorer,
        box,
        "The question's tokens",
        () => this.cells.map((cell) => ({
          place: cell.rect,
          row: explorer.rows.findIndex(({ query }) => query === cell.query),
          column: cell.token,
          texts: () => this._texts(cell),
          choose: () => explorer.act.chooseCell([cell.query, 0])
        }))
      );
    }
    build() {
      const { explorer } = this;
      const { shown, palette: palette2, rows } = explorer;
      this.cells = [];
      this.drawn = void 0;
      if (!shown.strip) {
        this.box.replaceChildren(noStrip(explorer));
        return;
      }
      const { zoom } = explorer.store.state;
      const texts = shown.strip.tokens.map(visible);
      const left = labelWidth(rows.map(({ name }) => name)) + 12;
      const [size, tall] = [17 * zoom, 18 * Math.max(1, zoom * 0.9)];
      const longest = Math.min(16, Math.max(...texts.map((text) => text.length)));
      const bottom = longest * 6.4 + 14;
      const { figure: drawn } = figure(
        Math.ceil(left + size * texts.length + 6),
        Math.ceil(tall * rows.length + bottom),
        palette2
      );
      rows.forEach((row, i) => {
        drawn.append(
          label(left - 6, i * tall + tall / 2 + 4, row.name, {
            "text-anchor": "end",
            fill: palette2.ink
          })
        );
        texts.forEach((_, token) => {
          const rect = svg("rect", {
            x: left + token * size + 0.5,
            y: i * tall + 0.5,
            width: size - 1,
            height: tall - 1,
            "data-cell": this.cells.length
          });
          this.cells.push({ rect, query: row.query, token });
          drawn.append(rect);
        });
      });
      texts.forEach((text, token) => {
        const [x, y] = [left + (token + 0.5) * size + 4, rows.length * tall + 9];
        const cut = text.length > 16 ? `${text.slice(0, 15)}…` : text;
        drawn.append(
          label(x, y, cut, {
            "text-anchor": "end",
            fill: palette2.ink,
            transform: `rotate(-90 ${x} ${y})`
          })
        );
      });
      this.drawn = drawn;
      this.box.replaceChildren(drawn);
      this.paint();
    }
    paint() {
      const { explorer } = this;
      const { shown, palette: palette2, head } = explorer;
      if (!shown.strip || !this.drawn) return;
      if (!shown.strip.keeps(head)) {
        this.box.replaceChildren(noStrip(explorer));
        return;
      }
      if (!this.drawn.isConnected) this.box.replaceChildren(this.drawn);
      const most = explorer.stripScale(head);
      for (const { rect, query, token } of this.cells) {
        const value = shown.strip.at(head, query, token);
        rect.setAttribute(
          "fill",
          value === null ? palette2.impossible : palette2.attention(value / most)
        );
      }
    }
    /** @param {{query: number, token: number}} cell */
    _texts({ query, token }) {
      const { data, shown, head } = this.explorer;
      const { tokens } = (
        /** @type {import("./data").Strip} */
        shown.strip
      );
      const value = shown.strip?.at(head, query, token) ?? null;
      return [
        `${data.names[head]}: ${data.payload.queries[query]} → token ${token} “${visible(tokens[token])}”`,
        value === null ? "undefined: no number in the answer" : `attention ${fixed(value)}`
      ];
    }
  };

  // codi_lens/explorer/js/table.js
  var ROW = 30;
  var MARGIN = 4;
  var HeadTable = class {
    /**
     * @param {Explorer} explorer
     * @param {HTMLElement} box
     */
    constructor(explorer, box) {
      this.explorer = explorer;
      this.header = html("div", { class: "row header", role: "row" });
      this.body = html("div", { class: "body", role: "rowgroup" });
      this.scroller = html(
        "div",
        { class: "scroller", role: "table", tabindex: "0", "aria-label": "Heads" },
        html("div", { role: "rowgroup" }, this.header),
        this.body
      );
      box.append(cue(this.scroller));
      this.rows = [];
      this.order = [];
      this.columns = [];
      this.sort = { column: "", down: true };
      this.scroller.addEventListener("scroll", () => this.fill());
      this.body.addEventListener("click", (event) => {
        const row = event.target instanceof Element ? event.target.closest("[data-head]") : null;
        if (!row) return;
        const head = Number(row.getAttribute("data-head"));
        if (event instanceof MouseEvent && event.shiftKey) explorer.act.pin(head);
        else explorer.act.lock(head);
      });
    }
    /** Columns of the view and of the quantity, and the order of rows. */
    build() {
      const { data, store, quantity } = this.explorer;
      const { view } = store.state;
      const others = data.payload.quantities.filter(
        (each) => (each.view === null || each.view === view) && each.name !== quantity.quantity.name
      );
      const labels = data.payload.labels.filter((each) => each.view === null || each.view === view).map(({ name, values }) => ({
        name,
        title: name,
        number: false,
        text: (head) => values[head],
        order: (head) => values[head]
      }));
      this.columns = [
        {
          name: "head",
          title: "head",
          number: false,
          text: (head) => data.names[head],
          order: (head) => head
        },
        {
          name: "rank",
          title: "rank",
          number: true,
          text: (head) => String(quantity.rank(head) ?? "–"),
          order: (head) => quantity.rank(head) ?? null
        },
        this._column(quantity.quantity),
        ...labels,
        ...others.map((each) => this._column(each))
      ];
      if (!this.columns.some(({ name }) => name === this.sort.column))
        this.sort = { column: "rank", down: false };
      const cells = this.columns.map(({ name, title, number }) => {
        const button = html("button", { type: "button", title }, title);
        button.addEventListener("click", () => {
          this.sort = {
            column: name,
            down: this.sort.column === name ? !this.sort.down : number && name !== "rank"
          };
          this.arrange();
        });
        return html(
          "div",
          { class: number ? "cell number" : "cell", role: "columnheader", "data-column": name },
          button
        );
      });
      this.header.replaceChildren(...cells);
      const heads = data.names.map((_, head) => head);
      const widths = this.columns.map(({ title, text }) => {
        const longest = Math.max(
          Math.min(18, title.length) + 2,
          ...heads.map((head) => text(head).length)
        );
        return `${Math.ceil(8.6 * longest + 14)}px`;
      });
      this.scroller.style.setProperty("--columns", widths.join(" "));
      this.rows.forEach((row) => row.remove());
      this.rows = [];
      this.arrange();
    }
    /**
     * @param {import("./schema").Quantity} quantity
     * @returns {Column}
     */
    _column(quantity) {
      const measured2 = new Measured(quantity);
      return {
        name: quantity.name,
        title: quantity.label,
        number: true,
        text: (head) => measured2.numbers(head),
        order: (head) => quantity.values[head]
      };
    }
    /** The heads that pass the filters, sorted. */
    arrange() {
      const { passes } = this.explorer;
      const column = this.columns.find(({ name }) => name === this.sort.column) ?? this.columns[0];
      const keys = passes.map((_, head) => column.order(head));
      const sign = this.sort.down ? -1 : 1;
      this.order = passes.flatMap((passed, head) => passed ? [head] : []).sort((a, b) => {
        const [one, other] = [keys[a], keys[b]];
        if (one === null || other === null)
          return Number(one === null) - Number(other === null) || a - b;
        if (typeof one === "string" || typeof other === "string")
          return sign * String(one).localeCompare(String(other), "en", { numeric: true }) || a - b;
        return sign * (one - other) || a - b;
      });
      for (const cell of this.header.children) {
        const sorted = cell.getAttribute("data-column") === column.name;
        if (sorted) cell.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
        else cell.removeAttribute("aria-sort");
      }
      this.body.style.height = `${ROW * this.order.length}px`;
      set(this.scroller, { "aria-rowcount": this.order.length + 1 });
      this.fill();
    }
    /** Put the heads that are in sight into rows. */
    fill() {
      const height = this.scroller.clientHeight || 420;
      const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - MARGIN);
      const n = Math.min(
        Math.ceil(height / ROW) + 2 * MARGIN,
        Math.max(0, this.order.length - first)
      );
      while (this.rows.length < n) {
        const row = html(
          "div",
          { class: "row", role: "row" },
          ...this.columns.map(
            ({ number }) => html("div", { class: number ? "cell number" : "cell", role: "cell" })
          )
        );
        row.children[0].append(html("button", { type: "button", class: "link" }));
        this.rows.push(row);
        this.body.append(row);
      }
      const { state } = this.explorer.store;
      this.rows.forEach((row, i) => {
        row.hidden = i >= n;
        if (i >= n) return;
        const head = this.order[first + i];
        set(row, {
          "data-head": head,
          "aria-rowindex": first + i + 2,
          style: `transform:translateY(${ROW * (first + i)}px)`,
          "data-shown": head === state.head || head === state.pin ? "yes" : "no"
        });
        this.columns.forEach(({ text, name }, c) => {
          const cell = name === "head" ? row.children[c].children[0] : row.children[c];
          const value = text(head);
          if (cell.textContent !== value) cell.textContent = value;
        });
      });
    }
    /** The table as it is: filtered, sorted, with the ends of intervals in columns of their own. */
    csv() {
      const { data } = this.explorer;
      const known = new Map(data.payload.quantities.map((each) => [each.name, each]));
      const chosen = this.explorer.quantity.quantity;
      known.set(chosen.name, chosen);
      const columns = this.columns.flatMap(({ name: own, title, text }) => {
        const quantity = known.get(own);
        const name = ["cell", "difference"].includes(own) ? title : own;
        const made = [
          [name, (head) => quantity ? String(quantity.values[head] ?? "") : text(head)]
        ];
        if (quantity?.low) made.push([`${name}_low`, (head) => String(quantity.low?.[head] ?? "")]);
        if (quantity?.high)
          made.push([`${name}_high`, (head) => String(quantity.high?.[head] ?? "")]);
        if (quantity?.q) made.push([`${name}_q`, (head) => String(quantity.q?.[head] ?? "")]);
        return made;
      });
      const quoted = (text) => /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
      const lines = [
        columns.map(([name]) => name),
        ...this.order.map((head) => columns.map(([, value]) => value(head)))
      ];
      return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
    }
  };

  // codi_lens/explorer/js/tip.js
  var Tip = class {
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
      const x = event.clientX + 16 + width > window.innerWidth ? event.clientX - width - 12 : event.clientX + 16;
      const y = event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 18;
      this.box.style.left = `${Math.max(4, x)}px`;
      this.box.style.top = `${Math.max(4, y)}px`;
    }
    hide() {
      this.box.hidden = true;
    }
  };

  // codi_lens/explorer/js/explorer.js
  var GATHERED = ["problem", "diff", "pin", "pinProblem"];
  var FILTERS = ["layers", "label", "top", "significant"];
  var HEAD = ["head", "preview", "locked", "scaled", "cell"];
  var Explorer = class _Explorer {
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
      return new _Explorer(root, data, first, state, shown, settings.onChange ?? (() => {
      }));
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
      this._pending = /* @__PURE__ */ new Set();
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
      return this.data.payload.problems.flatMap(
        ({ id, question }, i) => `${id} ${question ?? ""}`.toLowerCase().includes(wanted) ? [i] : []
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
        name: `${makes} (at ${query})`
      }));
    }
    /** @type {number[]} the columns of the view */
    get columns() {
      const { keys, possible } = this.data.payload;
      const { rows } = this;
      return keys.flatMap((_, key) => rows.some(({ query }) => possible[query][key]) ? [key] : []);
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
      return this.store.state.scaled && this.shown.strip?.largest(head) || 1;
    }
    /**
     * Draw what has changed. What has to be unpacked first is waited for; whatever changes meanwhile
     * is drawn with it.
     * @param {Set<Field>} changed
     */
    async refresh(changed) {
      for (const field of changed) this._pending.add(field);
      const gathered = GATHERED.some((field) => this._pending.has(field));
      if (gathered && !await this._gather()) return;
      const pending = this._pending;
      this._pending = /* @__PURE__ */ new Set();
      this._draw(pending, gathered);
    }
    /**
     * @param {Set<Field>} changed
     * @param {boolean} gathered whether other attention is shown
     */
    _draw(changed, gathered) {
      const has = (names2) => names2.some((name) => changed.has(name));
      if (has(["theme"])) this._theme();
      const ofShown = ["cell", "difference"].includes(this.store.state.quantity);
      const anew = has(["quantity", "view"]) || ofShown && (gathered || has(["cell"]));
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
      if (asked !== this._asked) return false;
      this.shown = shown;
      return true;
    }
    _isDark() {
      const { theme } = this.store.state;
      const host = document.body.dataset.jpThemeLight;
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
      const key = (event) => {
        if (event instanceof KeyboardEvent) onKey(this, event);
      };
      listening.addEventListener("keydown", key, { signal });
      const gone = (event) => {
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
  };
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
      theme: "auto"
    };
  }

  // codi_lens/explorer/js/main.js
  async function openPage() {
    const root = (
      /** @type {HTMLElement} */
      document.getElementById("explorer")
    );
    const payload = JSON.parse(document.getElementById("data")?.textContent ?? "");
    const blocks = (name) => {
      const text = document.getElementById(`block-${name}`)?.textContent;
      return text ? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)) : void 0;
    };
    const made = html("div", { id: "explorer" });
    try {
      root.replaceWith(made);
      const explorer = await Explorer.open(made, new Data(payload, blocks), {
        fragment: location.hash.slice(1),
        onChange: keepAddress
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
  var keeping;
  function keepAddress(explorer) {
    clearTimeout(keeping);
    keeping = setTimeout(() => {
      if (location.hash.slice(1) !== explorer.fragment) {
        history.replaceState(null, "", `#${explorer.fragment}`);
      }
    }, 150);
  }
  async function render({ model, el }) {
    const payload = JSON.parse(model.get("payload"));
    const packed = model.get("blocks");
    const blocks = (name) => {
      const view = packed[name];
      if (!view) return void 0;
      return new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    };
    const root = html("div");
    el.append(root);
    const data = new Data(payload, blocks);
    const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
    let telling = false;
    const chosen = () => {
      const pairs = model.get("selected_heads");
      const [head = -1, pin = -1] = pairs.map(([layer, n]) => data.headOf(`L${layer}H${n}`));
      if (head < 0) return { locked: false, pin: -1 };
      return { head, locked: true, pin, pinProblem: null, preview: -1 };
    };
    const shownProblem = () => ({ problem: data.problemOf(model.get("problem") ?? "") });
    const last = fromFragment(model.get("state"), data);
    const heads = selected(last).map((head) => data.pairOf(head));
    const asked = {
      ...same(heads, model.get("selected_heads")) ? {} : chosen(),
      ...model.get("state") || model.get("problem") !== null ? shownProblem() : {}
    };
    const tell = (changed) => {
      const { problem } = changed.store.state;
      const now = {
        state: changed.fragment,
        selected_heads: changed.selected.map((head) => data.pairOf(head)),
        problem: problem < 0 ? null : payload.problems[problem].id
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
      onChange: tell
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
  return __toCommonJS(main_exports);
})();
