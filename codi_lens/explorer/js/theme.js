/** Light or dark, where pages of reports keep it too; some browsers keep nothing for files. */

const KEY = "codi_lens.theme";

/** @returns {"light" | "dark" | null} */
export function keptTheme() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept === "light" || kept === "dark" ? kept : null;
  } catch {
    return null;
  }
}

/** @param {"light" | "dark"} theme */
export function keepTheme(theme) {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It holds for this page.
  }
}
