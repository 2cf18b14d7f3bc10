"use strict";
/* Puts one head's numbers into the figures that the page's data brings along. */
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const CONFIG = {
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "zoom2d", "pan2d"],
    displayModeBar: false,
  };
  const N_TOP = 20;
  const state = {
    view: Object.keys(data.views)[0], metric: null, rows: "thoughts",
    shown: null, locked: false, sort: { column: null, down: true },
  };
  let heads = new Map(), drawnRows = null;

  const view = () => data.views[state.view];
  const keyOf = (row) => row.layer + "/" + row.head;
  const format = (value, digits = 3) => (value === null || value === undefined ? "undefined" : value.toFixed(digits));
  const copy = (value) => JSON.parse(JSON.stringify(value));

  function element(tag, text, attributes) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = text;
    for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
    return made;
  }

  /* --- numbers of a head ------------------------------------------------------------------ */

  function valuesOf(row, shown) {
    const full = data.attention[data.layers.indexOf(row.layer)][data.heads.indexOf(row.head)];
    return shown.queries.map((query, i) => shown.keys.map((key, j) =>
      shown.possible[i][j] ? full[data.queries.indexOf(query)][data.keys.indexOf(key)] : null));
  }

  /* As cell_texts in figures.py: no leading zero, so that numbers fit narrow cells. */
  const cellText = (value) => (value === null ? "" : value >= 0.995 ? "1.0" : value.toFixed(2).slice(1));

  const interval = (row, name) => {
    const [low, high] = [row[name + "_low"], row[name + "_high"]];
    return low === null || low === undefined || high === null ? "" : ` [${format(low)}, ${format(high)}]`;
  };

  function ranked(metric) {
    return view().table.filter((row) => row[metric] !== null)
      .sort((a, b) => b[metric] - a[metric] || a.layer - b.layer || a.head - b.head);
  }

  /* --- map and detail --------------------------------------------------------------------- */

  function outline(row) {
    const column = data.heads.indexOf(row.head), line = data.layers.indexOf(row.layer);
    return { type: "rect", xref: "x", yref: "y", x0: column - 0.5, x1: column + 0.5, y0: line - 0.5, y1: line + 0.5,
      line: { color: data.style.self, width: state.locked ? 4 : 2.5 } };
  }

  function drawMap() {
    const figure = copy(view().maps[state.metric]);
    byId("map-title").textContent = figure.title;
    byId("map-note").textContent = figure.subtitle;
    figure.layout.shapes = state.shown ? [outline(state.shown)] : [];
    figure.layout.dragmode = false;
    // Numbers of heads are up to two digits: one label per 28 px keeps them apart.
    figure.layout.xaxis.nticks = Math.max(2, Math.floor((byId("map").clientWidth - 170) / 28));
    figure.layout.uirevision = state.view;
    return Plotly.react("map", figure.data, figure.layout, CONFIG);
  }

  function describe(row) {
    const parts = [`rank ${row.rank} of ${view().table.length} by composite`, row.type];
    if (row.band) parts.push(`${row.band} layers`);
    if (row.hub_position) parts.push(`hub position ${row.hub_position}`);
    if (row.max_query) parts.push(`strongest: ${row.max_query}\u00a0→\u00a0${row.max_key}\u00a0${format(row.max_attention, 2)}`);
    return parts.filter(Boolean).join(" · ");
  }

  function drawDetail() {
    const row = state.shown;
    const shown = state.rows === "run" ? data.run : view().pattern;
    const figure = copy(shown.figure);
    const about = state.rows === "run" ? "whole run" : view().label.toLowerCase();
    byId("detail-title").textContent = `${row.name}, ${about}${state.locked ? " (locked)" : ""}`;
    byId("detail-text").textContent = describe(row);
    byId("detail-scores").replaceChildren(...view().metrics.map((name) => {
      const item = element("li", null, name === state.metric ? { class: "chosen" } : {});
      item.append(element("b", name), ` ${format(row[name])}${interval(row, name)}`);
      if (view().constant.includes(name)) item.append(" (constant)");
      return item;
    }));
    const values = valuesOf(row, shown);
    figure.data[0].z = values;
    const texts = figure.data[2];
    const drawn = values.flatMap((line, i) => line.map((value, j) => ({ value, x: shown.keys[j], y: shown.queries[i] })))
      .filter(({ value }) => value !== null);
    Object.assign(texts, { x: drawn.map(({ x }) => x), y: drawn.map(({ y }) => y), text: drawn.map(({ value }) => cellText(value)) });
    texts.textfont.color = drawn.map(({ value }) =>
      value >= data.style.lightTextFrom ? data.style.lightText : data.style.darkText);
    figure.layout.coloraxis.showscale = false;  // the scale above the heatmap leaves more room for cells
    figure.layout.dragmode = false;
    byId("detail-note").textContent = figure.subtitle;
    byId("detail").setAttribute("aria-label", `Attention of ${row.name}, ${about}, as a heatmap`);
    // Plotly.react loses texts when a trace's points move to other cells, so other rows start anew.
    const plot = drawnRows === shown ? Plotly.react : Plotly.newPlot;
    drawnRows = shown;
    return plot("detail", figure.data, figure.layout, CONFIG);
  }

  /* --- selection -------------------------------------------------------------------------- */

  function show(row, locked) {
    if (row === state.shown && locked === state.locked) return;
    state.shown = row;
    state.locked = locked;
    Plotly.relayout("map", { shapes: [outline(row)] });
    drawDetail();
    markSelection();
  }

  function markSelection() {
    const key = keyOf(state.shown);
    for (const button of byId("top").children) button.setAttribute("aria-pressed", String(state.locked && button.dataset.key === key));
    for (const line of byId("table").tBodies[0].rows) line.classList.toggle("selected", state.locked && line.dataset.key === key);
  }

  function fromPoint(event) {
    const [line, column] = event.points[0].pointIndex;
    return heads.get(data.layers[line] + "/" + data.heads[column]);
  }

  function onKey(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const clamp = (value, n) => Math.min(Math.max(value, 0), n - 1);
    const line = clamp(data.layers.indexOf(state.shown.layer) + step[0], data.layers.length);
    const column = clamp(data.heads.indexOf(state.shown.head) + step[1], data.heads.length);
    show(heads.get(data.layers[line] + "/" + data.heads[column]), true);
  }

  /* --- top heads -------------------------------------------------------------------------- */

  const stops = data.style.scale.map((text) => text.match(/[\d.]+/g).map(Number));
  function colour(value) {
    const at = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
    const i = Math.min(Math.floor(at), stops.length - 2);
    return `rgb(${stops[i].map((low, c) => Math.round(low + (at - i) * (stops[i + 1][c] - low))).join(",")})`;
  }

  function draw(parent, tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  }

  function thumbnail(row) {
    const shown = view().pattern, values = valuesOf(row, shown);
    const n = shown.queries.length, left = 32, size = 180 / n, every = Math.ceil(26 / size);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${left + 182} 200`);
    svg.setAttribute("aria-hidden", "true");
    values.forEach((line, i) => line.forEach((value, j) => {
      const [x, y] = [left + j * size, i * size];
      const possible = shown.possible[i][j];
      draw(svg, "rect", { x: x + 0.5, y: y + 0.5, width: size - 1, height: size - 1,
        fill: !possible ? data.style.impossible : value === null ? "white" : colour(value) });
      if (!possible) {
        const [a, b] = [size * 0.38, size * 0.62];
        draw(svg, "path", { d: `M${x + a} ${y + a}L${x + b} ${y + b}M${x + b} ${y + a}L${x + a} ${y + b}`, stroke: "#595959" });
      }
      if (shown.self[i][j]) {
        draw(svg, "rect", { x: x + 1.5, y: y + 1.5, width: size - 3, height: size - 3, fill: "none",
          stroke: data.style.self, "stroke-width": 1.5 });
      }
    }));
    shown.queries.forEach((name, i) => i % every || draw(svg, "text", { x: left - 4, y: (i + 0.5) * size + 4,
      "text-anchor": "end", "font-size": 12, fill: data.style.ink }, name));
    shown.keys.forEach((name, j) => j % every || draw(svg, "text", { x: left + (j + 0.5) * size, y: 195,
      "text-anchor": "middle", "font-size": 12, fill: data.style.ink }, name));
    return svg;
  }

  function drawTop() {
    const best = ranked(state.metric).slice(0, N_TOP);
    byId("top-title").textContent = `Top ${best.length} heads by ${state.metric}, ${view().label.toLowerCase()}`;
    byId("top").replaceChildren(...best.map((row, place) => {
      const label = `${place + 1}. ${row.name} · ${row.type} · ${format(row[state.metric], 2)}`;
      const button = element("button", null, { type: "button", "data-key": keyOf(row), "aria-label": `Show ${label}` });
      button.append(element("span", label), thumbnail(row));
      button.addEventListener("click", () => show(heads.get(keyOf(row)), true));
      return button;
    }));
  }

  function drawScale() {
    for (const scale of document.querySelectorAll(".scale")) {
      const bar = element("i");
      bar.style.background = `linear-gradient(to right, ${data.style.scale.join(",")})`;
      scale.replaceChildren(element("span", "attention 0"), bar, element("span", "1"));
    }
  }

  /* --- charts ----------------------------------------------------------------------------- */

  function drawCharts() {
    document.querySelectorAll(".charts .card").forEach((card, i) => {
      const figure = copy(view().charts[i]);
      card.querySelector("h2").textContent = figure.title;
      card.querySelector(".note").textContent = figure.subtitle;
      card.querySelector(".plot").setAttribute("aria-label", `Chart: ${figure.title}`);
      figure.layout.dragmode = false;
      Plotly.react(card.querySelector(".plot"), figure.data, figure.layout, CONFIG);
    });
  }

  /* --- table ------------------------------------------------------------------------------ */

  function columns() {
    const present = (name) => name in view().table[0];
    const plain = ["rank", "name", "type", "band", "hub_position"].filter(present);
    return [...plain, ...view().metrics, ...(present("max_attention") ? ["max_attention"] : [])];
  }
  const TEXTS = ["name", "type", "band", "hub_position"];
  const TITLES = { name: "head", hub_position: "hub position", max_attention: "max attention" };

  function drawTableHead() {
    const line = element("tr");
    for (const name of columns()) {
      const cell = element("th", null, { scope: "col", "data-column": name, class: TEXTS.includes(name) ? "" : "number" });
      const button = element("button", TITLES[name] || name, { type: "button" });
      button.addEventListener("click", () => {
        const sort = state.sort;
        state.sort = { column: name, down: sort.column === name ? !sort.down : !TEXTS.includes(name) && name !== "rank" };
        drawTableBody();
      });
      cell.append(button);
      line.append(cell);
    }
    byId("table").tHead.replaceChildren(line);
  }

  function compare(name, down) {
    const inOrder = (a, b) => {
      if (name === "name") return a.layer - b.layer || a.head - b.head;
      if (TEXTS.includes(name)) return String(a[name]).localeCompare(String(b[name]), "en", { numeric: true }) || a.rank - b.rank;
      return a[name] - b[name];
    };
    return (a, b) => {
      const [none, other] = [a[name] === null, b[name] === null];
      if (none || other) return Number(none) - Number(other);
      return down ? inOrder(b, a) : inOrder(a, b);
    };
  }

  function tableCell(row, name) {
    const cell = element("td", null, TEXTS.includes(name) ? {} : { class: "number" });
    if (name === "name") {
      const button = element("button", row.name, { type: "button", "aria-label": `Show ${row.name}` });
      button.addEventListener("click", () => {
        show(heads.get(keyOf(row)), true);
        byId("map").scrollIntoView({ block: "center" });
      });
      cell.append(button);
    } else if (name === "max_attention") {
      cell.append(`${format(row.max_attention)} `, element("small", `${row.max_query} → ${row.max_key}`));
    } else if (view().metrics.includes(name)) {
      cell.append(format(row[name]), element("small", interval(row, name)));
    } else {
      cell.textContent = row[name] === null ? "–" : row[name];
    }
    return cell;
  }

  function drawTableBody() {
    const { column, down } = state.sort, names = columns();
    for (const cell of byId("table").tHead.rows[0].cells) {
      if (cell.dataset.column === column) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    const rows = [...view().table].sort(compare(column, down));
    byId("table").tBodies[0].replaceChildren(...rows.map((row) => {
      const line = element("tr", null, { "data-key": keyOf(row) });
      line.append(...names.map((name) => tableCell(row, name)));
      return line;
    }));
    markSelection();
  }

  /* --- toolbar ---------------------------------------------------------------------------- */

  function drawToolbar() {
    for (const [name, { label }] of Object.entries(data.views)) {
      const choice = element("label");
      const input = element("input", null, { type: "radio", name: "view", value: name });
      input.checked = name === state.view;
      input.addEventListener("change", () => changeView(name));
      choice.append(input, element("span", label));
      byId("view").append(choice);
    }
    byId("metric").addEventListener("change", () => changeMetric(byId("metric").value));
    for (const input of document.querySelectorAll("#rows input")) {
      input.addEventListener("change", () => { state.rows = input.value; drawDetail(); });
    }
  }

  function changeView(name) {
    state.view = name;
    heads = new Map(view().table.map((row) => [keyOf(row), row]));
    const { metrics, constant } = view();
    byId("explanation").textContent = view().explanation;
    byId("metric").replaceChildren(...metrics.map((metric) =>
      element("option", metric + (constant.includes(metric) ? " (constant: ranks nothing)" : ""), { value: metric })));
    const metric = metrics.includes(state.metric) ? state.metric : metrics[0];
    state.shown = state.shown ? heads.get(keyOf(state.shown)) : ranked(metric)[0] || view().table[0];
    drawTableHead();
    drawCharts();
    return changeMetric(metric);
  }

  function changeMetric(metric) {
    state.metric = metric;
    state.sort = { column: metric, down: true };
    byId("metric").value = metric;
    drawTop();
    drawTableBody();
    return Promise.all([drawMap(), drawDetail()]);
  }

  /* --- start ------------------------------------------------------------------------------ */

  for (const box of document.querySelectorAll("[data-example]")) {
    const { data: traces, layout } = data.examples[box.dataset.example];
    const coloraxis = { ...layout.coloraxis, showscale: false };  // the scale above serves both
    Plotly.newPlot(box, traces, { ...layout, coloraxis, dragmode: false }, CONFIG);
  }
  drawToolbar();
  drawScale();
  changeView(state.view).then(() => {
    const map = byId("map");
    map.on("plotly_hover", (event) => { if (!state.locked) show(fromPoint(event), false); });
    map.on("plotly_click", (event) => {
      const row = fromPoint(event);
      show(row, !(state.locked && row === state.shown));
      map.focus({ preventScroll: true });
    });
    map.addEventListener("keydown", onKey);
    let settling;
    window.addEventListener("resize", () => {
      clearTimeout(settling);
      settling = setTimeout(drawMap, 200);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && state.locked) show(state.shown, false);
    });
    document.body.dataset.ready = "yes";
  });
})();
