/**
 * Colours of cells. Attention has one fixed sequential scale, differences a symmetric diverging one.
 *
 * @typedef {object} Palette what cells, texts and lines of a theme are drawn in; exported figures
 *   hold these colours themselves, so that they stand alone
 * @property {(value: number) => string} attention of 0 to 1
 * @property {(value: number) => string} score of 0 to 1
 * @property {(value: number) => string} difference of -1 to 1
 * @property {string} ink
 * @property {string} muted
 * @property {string} ground
 * @property {string} impossible
 * @property {string} hatch
 * @property {string} self
 * @property {string} needed
 * @property {string} chosen
 */

/** Where on the scale the lowest score lies, so that it does not read as missing. */
const LEAST_SCORE = 0.12;

/**
 * @param {import("./schema").Style} style
 * @param {boolean} dark
 * @returns {Palette}
 */
export function palette(style, dark) {
  const turn = (/** @type {string[]} */ scale) => (dark ? [...scale].reverse() : scale);
  const score = interpolated(turn(style.score));
  const ends = dark
    ? ["#5aa9ff", "#22384f", "#20242a", "#4d2b1f", "#ff9b66"]
    : ["#1f5fa8", "#a9cbe8", "#f4f4f2", "#f3bd9c", "#a8420a"];
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
    chosen: dark ? "#ffd43b" : "#d6006c",
  };
}

/**
 * Black or white, whichever reads better on a colour.
 * @param {string} colour rgb(r,g,b)
 */
export function textOn(colour) {
  const [r, g, b] = channels(colour).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  // Contrast with white equals contrast with black where (L + 0.05)² = 1.05 · 0.05 (WCAG 2).
  return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05 < Math.sqrt(1.05 * 0.05)
    ? "#ffffff"
    : "#000000";
}

/** @param {string[]} scale */
function interpolated(scale) {
  const stops = scale.map(channels);
  /** @param {number} value */
  const at = (value) => {
    const along = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
    const i = Math.min(Math.floor(along), stops.length - 2);
    const mixed = stops[i].map((low, c) => Math.round(low + (along - i) * (stops[i + 1][c] - low)));
    return `rgb(${mixed.join(",")})`;
  };
  return at;
}

/** @param {string} colour */
function channels(colour) {
  if (colour.startsWith("#")) {
    return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  }
  return (colour.match(/[\d.]+/g) ?? []).map(Number);
}
