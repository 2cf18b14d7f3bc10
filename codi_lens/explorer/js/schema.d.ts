// Made from schema.json by `make js`: change that, not this.

/**
 * [query][key]: 1 where causality allows attention.
 */
export type Mask = (0 | 1)[][];
/**
 * [query][key]: 1 where a position attends to itself.
 */
export type Mask1 = (0 | 1)[][];
/**
 * One per head, layer by layer; null where there is none.
 */
export type Numbers = (number | null)[];

export interface Payload {
  /**
   * Of this schema. A script refuses any other.
   */
  version: 1;
  title: string;
  /**
   * Short facts by name.
   */
  facts: {
    [k: string]: string;
  };
  /**
   * What is said and shown first, if anything.
   */
  opening: Opening | null;
  /**
   * Plain sentences; heads named in them become links.
   */
  findings: string[];
  /**
   * @minItems 1
   */
  layers: [number, ...number[]];
  /**
   * @minItems 1
   */
  heads: [number, ...number[]];
  /**
   * @minItems 1
   */
  queries: [string, ...string[]];
  /**
   * @minItems 1
   */
  keys: [string, ...string[]];
  possible: Mask;
  self: Mask1;
  /**
   * Rows of the generation view: which query makes which thought.
   */
  generation: {
    query: string;
    makes: string;
  }[];
  /**
   * What heads can be filtered by: functional types, bands.
   */
  labels: Label[];
  quantities: Quantity[];
  /**
   * Attention: first the one that is shown, then what it can be compared with.
   *
   * @minItems 1
   */
  series: [Series, ...Series[]];
  problems: Problem[];
  /**
   * Attention to every token of the question, if it is kept: block `t<problem>`, uint8 [kept head, query, token], 255 times the attention.
   */
  strips: Strips | null;
  /**
   * The lens' likeliest tokens, if they are kept: block `l<problem>`, uint16 [position, layer, rank] of `texts` and then uint8 of the same shape, 255 times the probability.
   */
  lens: Lens | null;
  style: Style;
}
export interface Opening {
  title: string;
  sentences: string[];
  /**
   * What a button each shows; the page opens on the first.
   */
  examples: {
    label: string;
    /**
     * As the fragment of a link: head=L2H3&problem=7
     */
    state: string;
  }[];
}
export interface Label {
  name: string;
  view: "position" | "generation" | null;
  values: string[];
}
export interface Quantity {
  name: string;
  label: string;
  group: string;
  /**
   * The view that it belongs to; null for both.
   */
  view: "position" | "generation" | null;
  /**
   * Where it was measured.
   */
  scope: string | null;
  unit: string | null;
  /**
   * Problems behind it.
   */
  n: number | null;
  /**
   * Whether 0 is the middle of its scale.
   */
  signed: boolean;
  /**
   * Equal for all heads: it ranks nothing.
   */
  constant: boolean;
  values: Numbers;
  /**
   * Lower ends of 95 % intervals.
   */
  low: Numbers | null;
  high: Numbers | null;
  /**
   * Adjusted for the number of heads.
   */
  q: Numbers | null;
}
export interface Series {
  label: string;
  /**
   * Problems behind the mean; null where only the mean was given.
   */
  n: number | null;
  /**
   * Block `m<series>` is float32 [head, query, key]; with an interval, `h<series>` of the same shape is half the width of the mean's 95 % interval.
   */
  interval: boolean;
  /**
   * Block `a<series>/<problem>` is uint8 [head, query, key], 255 times the attention.
   */
  byProblem: boolean;
}
export interface Problem {
  id: string;
  question: string | null;
  /**
   * What the model wrote.
   */
  answer: string | null;
  expected: string | null;
  correct: boolean | null;
  /**
   * Of each series, the queries whose row is undefined: `anchor` of an answer without number.
   */
  undefined: string[][];
  /**
   * Known values on the way, in their order.
   */
  totals: {
    name: string;
    value: string;
  }[];
  /**
   * Known edges: [query, key].
   */
  edges: [string, string][];
  /**
   * Of the question, where its strip is kept.
   */
  tokens: string[] | null;
}
export interface Strips {
  /**
   * Those whose strips are kept, as numbers of heads layer by layer.
   */
  heads: number[];
}
export interface Lens {
  positions: string[];
  layers: number[];
  k: number;
  texts: string[];
}
export interface Style {
  /**
   * Colours of attention 0 to 1 on a light page; a dark one turns them round.
   */
  attention: string[];
  score: string[];
}
