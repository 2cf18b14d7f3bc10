/** Where an arrow key leads among places in rows and columns: heads of the map, cells of a figure. */

/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** @param {string} key */
export const isArrow = (key) => key in STEPS;

/**
 * The nearest place in a direction: one in the same row or column, however far, before any other.
 * @param {{row: number, column: number}[]} places
 * @param {{row: number, column: number}} from
 * @param {string} key an arrow
 * @param {number} [aside] so far from the row or column at most
 * @returns {number} -1 where there is none
 */
export function nearest(places, from, key, aside = Infinity) {
  const [down, right] = STEPS[key];
  let [best, least] = [-1, Infinity];
  places.forEach(({ row, column }, i) => {
    const [dy, dx] = [row - from.row, column - from.column];
    const along = down * dy + right * dx;
    const off = Math.abs(down ? dx : dy);
    const far = 10_000 * off + along;
    if (along > 0 && off <= aside && far < least) [best, least] = [i, far];
  });
  return best;
}
