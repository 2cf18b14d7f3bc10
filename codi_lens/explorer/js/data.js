/**
 * The numbers behind the page. What is packed is unpacked when it is asked for, a problem at a time.
 *
 * @typedef {import("./schema").Payload} Payload
 * @typedef {import("./schema").Quantity} Quantity
 * @typedef {import("./schema").Problem} Problem
 * @typedef {(name: string) => Uint8Array<ArrayBuffer> | undefined} Blocks gives the deflated bytes of a block
 */

export const VERSION = 1;
/** So many problems stay unpacked; one of 512 heads over 100 tokens is some 500 kB. */
const KEPT = 8;

export class Data {
  /**
   * @param {Payload} payload
   * @param {Blocks} blocks
   */
  constructor(payload, blocks) {
    if (payload.version !== VERSION) {
      throw new Error(
        `This page's script reads data of version ${VERSION}, not ${payload.version}; save the explorer again.`,
      );
    }
    this.payload = payload;
    this.nHeads = payload.layers.length * payload.heads.length;
    this.nQueries = payload.queries.length;
    this.nKeys = payload.keys.length;
    this.nCells = this.nQueries * this.nKeys;
    /** @type {string[]} */
    this.names = payload.layers.flatMap((layer) =>
      payload.heads.map((head) => `L${layer}H${head}`),
    );
    this._indices = new Map(this.names.map((name, i) => [name, i]));
    this._problems = new Map(payload.problems.map((problem, i) => [problem.id, i]));
    this._stripOf = new Map((payload.strips?.heads ?? []).map((head, place) => [head, place]));
    this._blocks = blocks;
    /** @type {Map<string, Promise<Uint8Array<ArrayBuffer>>>} */
    this._unpacked = new Map();
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
}

/** Attention to every token of one question. */
export class Strip {
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
    if (place === undefined || this._undefined.has(query)) return null;
    return this._packed[(place * this._nQueries + query) * this.tokens.length + token] / 255;
  }

  /**
   * The largest attention to a token, whatever the query.
   * @param {number} head
   */
  largest(head) {
    const place = this._places.get(head);
    const n = this._nQueries * this.tokens.length;
    return place === undefined
      ? 0
      : Math.max(...this._packed.subarray(place * n, (place + 1) * n)) / 255;
  }

  /** @param {number} head */
  keeps(head) {
    return this._places.has(head);
  }
}

/** The lens' likeliest tokens in one problem. */
export class LensTable {
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
      probability: this._probabilities[start + rank] / 255,
    }));
    return ranks.filter(({ text }) => text !== "");
  }
}

/**
 * @param {Uint8Array<ArrayBuffer> | undefined} packed
 * @param {string} name
 */
async function inflate(packed, name) {
  if (!packed) throw new Error(`The page holds no block ${name}; save the explorer again.`);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
