"use strict";

/* Light, dark, or as the system is set. The choice is kept where the browser keeps anything: some
   refuse to for files, and then it holds for this page. */
const theme = (() => {
  const KEY = "codi_lens.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const heard = [];
  const kept = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  let choice = ["light", "dark"].includes(kept()) ? kept() : "auto";
  const isDark = () => choice === "dark" || (choice === "auto" && system.matches);
  const apply = () => {
    const shown = isDark() ? "dark" : "light";
    if (document.documentElement.dataset.theme === shown) return;
    document.documentElement.dataset.theme = shown;
    heard.forEach((listener) => listener());
  };
  system.addEventListener("change", apply);
  apply();
  return {
    isDark,
    choice: () => choice,
    choose(next) {
      choice = next;
      try {
        localStorage.setItem(KEY, next);
      } catch {
        /* It holds for this page. */
      }
      apply();
    },
    onChange: (listener) => heard.push(listener),
  };
})();
