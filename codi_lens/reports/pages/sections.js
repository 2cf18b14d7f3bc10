"use strict";

const { figures, dark } = JSON.parse(document.getElementById("data").textContent);

/* A figure's colours on a dark page; scales of cells and lists of colours of their numbers stay. */
const recoloured = (value, key = "") => {
  if (Array.isArray(value)) {
    return value.some((item) => item && typeof item === "object" && !Array.isArray(item))
      ? value.map((item) => recoloured(item))
      : /color$/.test(key) && key !== "colorscale" ? value.map((item) => dark[item] ?? item) : value;
  }
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, recoloured(item, name)]));
  }
  return /color$/.test(key) && typeof value === "string" ? (dark[value] ?? value) : value;
};
const shownAs = ({ data, layout }) => {
  const copy = structuredClone({ data, layout });
  if (!theme.isDark()) return copy;
  const { data: traces, layout: whole } = recoloured(copy);
  const button = whole.font.color;
  const hoverlabel = { ...whole.hoverlabel, bordercolor: whole.paper_bgcolor };
  whole.modebar = { ...whole.modebar, color: button, activecolor: button, bgcolor: "rgba(0,0,0,0)" };
  return { data: traces, layout: { ...whole, hoverlabel } };
};

/* The head that a point of a figure shows, from its labels: L4H5, or L4 and H5 on two axes. */
const headOf = ({ x, y, text, customdata }) => {
  const named = [`${y}${x}`, text, x, y, Array.isArray(customdata) ? customdata[0] : customdata];
  return named.find((name) => typeof name === "string" && /^L\d+H\d+$/.test(name));
};
const opensHeads = (box) => {
  box.on("plotly_click", ({ points }) => {
    const head = headOf(points[0]);
    if (head) location.href = `${box.dataset.explorer}#head=${head}`;
  });
  const point = (shape) => box.querySelectorAll(".nsewdrag").forEach((area) => (area.style.cursor = shape));
  box.on("plotly_hover", ({ points }) => point(headOf(points[0]) ? "pointer" : ""));
  box.on("plotly_unhover", () => point(""));
};

/* Figures are drawn when they come near the window: all at once would block a small machine. */
const drawn = new Set();
const draw = (box) => {
  const { data, layout } = shownAs(figures[box.dataset.figure]);
  Plotly.newPlot(box, data, layout);
  drawn.add(box);
  if (box.dataset.explorer) opensHeads(box);
};
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        near.unobserve(entry.target);
        draw(entry.target);
      }
    }
  },
  { rootMargin: "800px" },
);
document.querySelectorAll("[data-figure]").forEach((box) => near.observe(box));
theme.onChange(() => {
  for (const box of drawn) {
    const { data, layout } = shownAs(figures[box.dataset.figure]);
    Plotly.react(box, data, layout);
  }
});
