"use strict";

/* Figures are drawn when they come near the window: all at once would block a small machine. */
const figures = JSON.parse(document.getElementById("data").textContent);
const draw = (box) => {
  const figure = figures[box.dataset.figure];
  Plotly.newPlot(box, figure.data, figure.layout);
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
