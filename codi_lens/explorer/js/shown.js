/**
 * The attention that the panels draw: of a problem or the mean, as it is or as a difference.
 *
 * @typedef {import("./data").Data} Data
 * @typedef {import("./state").State} State
 */

/** Limits that a difference's scale can have: the least that clips no more than one cell in 200. */
const LIMITS = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1];

export class Shown {
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
      (possible, key) => !possible || Number.isNaN(this.values[query * this.data.nKeys + key]),
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
      half: this.half && !this.isDifference ? this.half[place] : NaN,
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
    /** @type {number[]} */
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
}

/**
 * Everything that a state shows; problems are unpacked for it.
 * @param {Data} data
 * @param {State} state
 */
export async function gather(data, state) {
  const of = (/** @type {number} */ series, /** @type {number} */ problem) =>
    problem < 0 ? data.mean(series) : data.ofProblem(series, problem);
  const compared = comparedWith(data, state);
  const [values, half, baseline, pinned, strip, lens] = await Promise.all([
    of(0, state.problem),
    state.problem < 0 ? data.half(0) : null,
    compared ? of(compared.series, compared.problem) : null,
    state.pin >= 0 && state.pinProblem !== null ? of(0, state.pinProblem) : null,
    data.strip(state.problem),
    data.lens(state.problem),
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
    lens,
  });
}

/**
 * What a problem, or the mean, can be compared with: values of `diff`, and what to call them.
 * @param {Data} data
 * @param {number} problem
 */
export function comparisons(data, problem) {
  const { series, problems } = data.payload;
  const others = series.flatMap(({ label, byProblem }, i) =>
    i && (problem < 0 || byProblem) ? [{ value: `series/${i}`, text: label, group: "" }] : [],
  );
  const mean = problem < 0 ? [] : [{ value: "mean", text: "mean over problems", group: "" }];
  const ids = problems.flatMap(({ id }, i) =>
    i === problem ? [] : [{ value: `problem/${id}`, text: id, group: "another problem" }],
  );
  return [{ value: "", text: "nothing", group: "" }, ...mean, ...others, ...ids];
}

/**
 * What a state compares with; null where that is nothing, or the very thing that is shown.
 * @param {Data} data
 * @param {State} state
 */
export function comparedWith(data, state) {
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
