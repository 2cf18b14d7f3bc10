/** Numbers and names as texts. */

/**
 * A number with a true minus, and no minus before zero.
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function fixed(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const text = size >= 1e6 ? size.toExponential(2) : size.toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/**
 * @param {number | null | undefined} low
 * @param {number | null | undefined} high
 * @param {number} [digits]
 */
export function interval(low, high, digits = 3) {
  if (low === null || low === undefined || high === null || high === undefined) return "";
  return `[${fixed(low, digits)}, ${fixed(high, digits)}]`;
}

/** @param {number} q */
export const significance = (q) => (q < 0.001 ? "q < 0.001" : `q = ${fixed(q)}`);

/**
 * A cell's number without its leading zero, so that it fits.
 * @param {number} value
 * @param {boolean} signed
 * @param {boolean} narrow
 */
export function short(value, signed, narrow) {
  if (Number.isNaN(value)) return "";
  const text = fixed(value, narrow && Math.abs(value) >= 0.995 ? 0 : 2);
  const bare = text.replace(/^(−?)0\./, "$1.");
  return signed && value > 0 && Number(value.toFixed(2)) !== 0 ? `+${bare}` : bare;
}

/**
 * A token with its spaces and line breaks made visible.
 * @param {string} text
 */
export const visible = (text) => text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");

/**
 * @param {number} n
 * @param {string} what
 */
export const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/**
 * What a series' mean is over.
 * @param {import("./schema").Series} series
 */
export const meanOver = ({ n }) => (n === null ? "the mean" : `mean over ${count(n, "problem")}`);

/**
 * With a capital letter.
 * @param {string} text
 */
export const sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
