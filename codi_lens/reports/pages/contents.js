/* The switch of colours. */
const choices = [...document.querySelectorAll(".theme button")];
const press = () =>
  choices.forEach((button) => button.setAttribute("aria-pressed", String(button.value === theme.choice())));
choices.forEach((button) =>
  button.addEventListener("click", () => {
    theme.choose(button.value);
    press();
  }),
);
press();

/* Boxes that scroll say on which side there is more, and only they can be reached by Tab. */
const mark = (box) => {
  const room = box.scrollWidth - box.clientWidth;
  box.parentElement.classList.toggle("more-left", room > 1 && box.scrollLeft > 1);
  box.parentElement.classList.toggle("more-right", room > 1 && box.scrollLeft < room - 1);
  box.tabIndex = room > 1 ? 0 : -1;
};
const sizes = new ResizeObserver((entries) =>
  entries.forEach(({ target }) => mark(target.closest(".scroll"))),
);
document.querySelectorAll(".scroll").forEach((box) => {
  box.addEventListener("scroll", () => mark(box), { passive: true });
  sizes.observe(box);
  if (box.firstElementChild) sizes.observe(box.firstElementChild);
});

/* The list of contents: beside the page where there is room, else a bar that opens. */
const contents = document.querySelector("nav.contents");
const list = contents.querySelector("details");
const wide = matchMedia("(min-width: 1100px)");
const fold = () => (list.open = wide.matches);
wide.addEventListener("change", fold);
fold();
contents.classList.add("live");
contents.addEventListener("click", (event) => {
  if (event.target.closest("a") && !wide.matches) list.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !wide.matches && list.open) {
    list.open = false;
    list.querySelector("summary").focus();
  }
});

/* The last heading above the upper part of the window is where the reader is. */
const links = [...contents.querySelectorAll("a")];
const headings = links.map((link) => document.getElementById(decodeURIComponent(link.hash.slice(1))));
const locate = () => {
  const above = headings.map((heading) => heading.getBoundingClientRect().top < 160);
  const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
  const at = atEnd && scrollY > 0 ? links.length - 1 : Math.max(0, above.lastIndexOf(true));
  const section = links[at].closest("nav > details > ol > li");
  links.forEach((link, place) => {
    const here = place === at || link === section.firstElementChild;
    here ? link.setAttribute("aria-current", "location") : link.removeAttribute("aria-current");
  });
  contents.querySelectorAll(".open").forEach((item) => item.classList.remove("open"));
  section.classList.add("open");
  contents.querySelector(".now").textContent = `: ${section.firstElementChild.textContent}`;
  const place = links[at].getBoundingClientRect();
  const frame = contents.getBoundingClientRect();
  if (wide.matches && place.bottom > frame.bottom) contents.scrollTop += place.bottom - frame.bottom + 40;
  if (wide.matches && place.top < frame.top) contents.scrollTop -= frame.top - place.top + 40;
};
let waiting = false;
const soon = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    locate();
  });
};
addEventListener("scroll", soon, { passive: true });
addEventListener("resize", soon);
locate();
