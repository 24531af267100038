"use strict";
// Sorting, filtering and switching. Every number shown was computed when the page was written.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const present = value => value !== null && value !== undefined;

// Sorting: a heading's button turns the column's order; empty cells stay last.

const collator = new Intl.Collator("en", {numeric: true});

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) ? collator.compare(a, b) : x - y;
}

function sortBy(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentNode.children].indexOf(heading);
  const numbers = !heading.classList.contains("word");
  const now = heading.getAttribute("aria-sort") ?? (numbers ? "ascending" : "descending");
  const next = now === "ascending" ? "descending" : "ascending";
  for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", next);
  const key = row => row.children[column].dataset.sort;
  const sign = next === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * compare(x, y);
  }));
}

for (const heading of all("table.sortable thead th")) {
  one("button", heading).addEventListener("click", () => sortBy(heading));
}

// Filtering: nothing chosen shows everything.

const filters = one(".filters");

function chosen(name) {
  return new Set(all(`[data-filter="${name}"] input:checked`).map(input => input.value));
}

function passes(values) {  // what has no value of a filter stays: a plain merge has no scaling
  return all("[data-filter]").every(({dataset: {filter: name}}) => {
    const kept = chosen(name);
    return !kept.size || !present(values[name]) || kept.has(values[name]);
  });
}

function filter() {
  for (const item of all("[data-filtered] tbody tr, details[data-method]")) {
    item.hidden = !passes(item.dataset);
  }
  for (const block of all("#changes tbody")) {
    block.hidden = all("tr[data-method]", block).every(row => row.hidden);
  }
  const rows = all("#leaderboard tbody tr");
  const left = rows.filter(row => !row.hidden).length;
  one("output", filters).textContent = `${left} of ${rows.length} merges`;
  one("[type=reset]", filters).hidden = !one("input:checked", filters);
  draw();
}

if (filters) {
  filters.addEventListener("change", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
}

// Runs: a link opens the run that it leads to; a command can be copied.

function openTarget() {
  const target = /^#run-\d+$/.test(location.hash) && one(location.hash);
  if (!target) return;
  target.hidden = false;
  target.open = true;
  target.scrollIntoView();
}

window.addEventListener("hashchange", openTarget);

async function copy(button) {
  const code = one("code", button.parentNode);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  } catch {  // no clipboard here: selected, it is one key away
    getSelection().selectAllChildren(code);
  }
}

for (const button of all(".copy")) button.addEventListener("click", () => copy(button));

// Figures.

const data = one("#data") && JSON.parse(one("#data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const narrow = matchMedia("(max-width: 640px)");
const CONFIG = {displayModeBar: false, responsive: true};

function theme() {
  const style = getComputedStyle(document.documentElement);
  const names = ["paper", "ink", "muted", "line", "grid"];
  const look = Object.fromEntries(names.map(name => [name, style.getPropertyValue(`--${name}`).trim()]));
  return {...look, lift: parseFloat(style.getPropertyValue("--lift")) / 100, faded: dark.matches ? 0.45 : 0.3};
}

function axis(look, title, more) {
  return {
    ...(title && {title: {text: title, standoff: 8}}), color: look.muted, gridcolor: look.grid,
    linecolor: look.line, showline: true, zeroline: false, automargin: true, ticks: "", ...more,
  };
}

function layout(look, more) {
  return {
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false,
    font: {family: getComputedStyle(document.body).fontFamily, size: narrow.matches ? 11 : 12, color: look.ink},
    margin: {l: 44, r: 12, t: 12, b: 40}, hovermode: "closest", dragmode: false,
    hoverlabel: {bgcolor: look.paper, bordercolor: look.muted, font: {color: look.ink}},
    ...more,
  };
}

function colour(mark, look) {
  if (!mark.colour) return look.ink;
  const parts = mark.colour.match(/[0-9a-f]{2}/gi).map(part => parseInt(part, 16));
  return `rgb(${parts.map(part => Math.round(part + (255 - part) * look.lift)).join()})`;
}

const shown = model => passes(model.filtered);
const studyOf = form => Number(form.study?.value ?? 0);

function written(model, quantity) {
  const [value, error] = [model.values[quantity], model.errors[quantity]];
  if (!present(value)) return "";
  const digits = quantity === 1 ? 3 : 1;
  return value.toFixed(digits) + (present(error) ? ` ±${error.toFixed(digits)}` : "");
}

function told(model, quantities) {
  const lines = quantities.map(q => `${data.quantities[q]} ${written(model, q)}`);
  return [`<b>${model.label}</b>`, ...lines].join("<br>");
}

function markers(models, look, size) {
  return {
    size,
    symbol: models.map(model => model.mark.symbol),
    color: models.map(model => (model.plain ? look.paper : colour(model.mark, look))),
    line: {width: models.map(model => (model.plain || model.mark.hollow ? 1.8 : 1)), color: models.map(model => colour(model.mark, look))},
  };
}

// Labels beside base and experts: of the places around a point, where least is covered.

const PLACES = {
  "top center": [0, -1], "bottom center": [0, 1], "middle right": [1, 0], "middle left": [-1, 0],
  "top right": [1, -1], "top left": [-1, -1], "bottom right": [1, 1], "bottom left": [-1, 1],
};

function placeLabels(named, others, line, pixels) {
  const taken = [...named, ...others].map(point => [...pixels(...point.at), 8, 8]);
  const corners = line.map(corner => pixels(...corner));
  for (const [i, [x, y]] of corners.slice(1).entries()) {  // down, then to the right
    const [left, top] = corners[i];
    taken.push([left, (top + y) / 2, 1, Math.abs(y - top) / 2], [(left + x) / 2, y, Math.abs(x - left) / 2, 1]);
  }
  return named.map(point => {
    const [x, y] = pixels(...point.at);
    const [width, height] = [3.5 * point.label.length + 2, 8];
    const boxes = Object.entries(PLACES).map(([name, [right, down]]) => {
      const box = [x + right * (width + 9), y + down * (right ? 12 : 16), width, height];
      const hits = taken.filter(other => overlap(box, other)).length;
      return {name, box, cost: hits + (box[0] - width < 0 || box[0] + width > pixels.width ? 9 : 0)};
    });
    const best = boxes.reduce((a, b) => (b.cost < a.cost ? b : a));
    taken.push(best.box);
    return best.name;
  });
}

function overlap([x, y, width, height], [otherX, otherY, otherWidth, otherHeight]) {
  return Math.abs(x - otherX) < width + otherWidth && Math.abs(y - otherY) < height + otherHeight;
}

function scale(plot, [left, right], [bottom, top]) {
  const [width, height] = [plot.clientWidth - 56, plot.clientHeight - 52];
  const pixels = (x, y) => [width * (x - left) / (right - left), height * (top - y) / (top - bottom)];
  pixels.width = width;
  return pixels;
}

/* Of means over seeds: a faint dot for each. */
function dots(xs, ys, ink) {
  return xs.length < 2 ? [] : [{type: "scatter", mode: "markers", x: xs, y: ys, hoverinfo: "skip",
    marker: {size: 4, color: ink, opacity: 0.45}}];
}

/* What a figure does not show stands not in its legend. */
function nameKinds(figure, models) {
  const merged = models.filter(model => model.role === "merged");
  const kinds = new Set(merged.map(model => `method ${model.mark.name}`));
  if (merged.some(model => model.plain)) kinds.add("plain");
  if (merged.some(model => model.mark.hollow)) kinds.add("control");
  for (const entry of all(`${figure} .legend [data-kind]`)) entry.hidden = !kinds.has(entry.dataset.kind);
}

function drawFront() {
  const plot = one("#plot-front");
  if (!plot) return;
  const look = theme();
  const form = one("#front form");
  const [first, second] = [Number(form.x.value), Number(form.y.value)];
  const study = studyOf(form);
  const [x, y] = [first + 2, second + 2];
  const known = model => present(model.values[x]) && present(model.values[y]);
  const inside = model => model.study === study && known(model);
  const front = frontOf(study, first, second);
  const models = data.models.filter(model => inside(model) && shown(model));
  nameKinds("#front", models);
  const members = models.filter(model => model.role !== "merged");
  const merged = models.filter(model => model.role === "merged");
  const ranges = [data.ranges[first], data.ranges[second]];
  const placed = model => ({label: model.label, at: [model.values[x], model.values[y]]});
  const strength = model => (front.includes(model) ? 1 : look.faded);
  const at = points => ({x: points.map(point => point.values[x]), y: points.map(point => point.values[y])});
  const hover = points => ({hoverinfo: "text", hovertext: points.map(point => told(point, x === y ? [x] : [x, y]))});
  const bars = (points, quantity) => ({
    type: "data", array: points.map(point => (front.includes(point) ? point.errors[quantity] ?? 0 : 0)),
    color: look.muted, thickness: 0.7, width: 0,
  });
  const points = (some, size, more) => ({
    type: "scatter", mode: "markers", ...at(some), ...hover(some), customdata: some.map(point => point.run),
    marker: {...markers(some, look, size), opacity: some.map(strength)}, ...more,
  });
  const line = front.length === 0 ? [] : [
    [ranges[0][0], front[0].values[y]],
    ...front.map(point => [point.values[x], point.values[y]]),
    [front.at(-1).values[x], ranges[1][0]],
  ];
  const uncertain = front.filter(shown);
  const traces = [
    {type: "scatter", mode: "lines", x: line.map(p => p[0]), y: line.map(p => p[1]), hoverinfo: "skip",
      line: {shape: "vh", color: look.muted, width: 1.2}},
    ...data.curves.map(curve => pathOf(curve).filter(model => inside(model) && shown(model)))
      .filter(path => path.length > 1)
      .map(path => ({type: "scatter", mode: "lines", ...at(path), hoverinfo: "skip", opacity: 0.45,
        line: {color: colour(path[0].mark, look), width: 1}})),
    {type: "scatter", mode: "markers", ...at(uncertain), hoverinfo: "skip", marker: {size: 1, opacity: 0},
      error_x: bars(uncertain, x), error_y: bars(uncertain, y)},
    ...models.filter(model => model.draws.length)
      .flatMap(model => dots(model.draws[x], model.draws[y], colour(model.mark, look))),
    points(merged, 10),
    points(members, 10, {
      mode: "markers+text", text: members.map(model => model.label), textfont: {color: look.ink, size: 12},
      textposition: placeLabels(members.map(placed), merged.map(placed), line, scale(plot, ...ranges)), cliponaxis: false,
    }),
  ];
  Plotly.react(plot, traces, layout(look, {
    xaxis: axis(look, data.benchmarks[first], {range: ranges[0]}),
    yaxis: axis(look, data.benchmarks[second], {range: ranges[1]}),
  }), CONFIG);
}

function frontOf(study, first, second) {
  const fronts = data.fronts[study];
  if (first === second) {  // one benchmark: its best
    const rivals = data.models.filter(model => model.study === study);
    const score = model => model.values[first + 2] ?? -1;
    return [rivals.reduce((a, b) => (score(b) > score(a) ? b : a))];
  }
  const positions = first < second ? fronts[`${first},${second}`] : fronts[`${second},${first}`].toReversed();
  return positions.map(position => data.models[position]);
}

function pathOf(curve) {
  const relaxed = curve.runs.toReversed();
  return (present(curve.null) ? [curve.null, ...relaxed] : relaxed).map(position => data.models[position]);
}

function drawOmega() {
  const plot = one("#plot-omega");
  if (!plot) return;
  const look = theme();
  const form = one("#omega form");
  const [study, quantity] = [studyOf(form), Number(form.quantity.value)];
  const curves = data.curves.filter(curve => curve.study === study && passes(curve.filtered));
  for (const entry of all("#omega .legend [data-curve]")) {
    entry.hidden = !curves.includes(data.curves[entry.dataset.curve]);
  }
  const positions = curves.flatMap(curve => [...curve.runs, curve.null]).filter(present);
  nameKinds("#omega", positions.map(position => data.models[position]));
  const known = position => present(data.models[position].values[quantity]);
  const {limits, ticks, texts} = data.omega_axes[study];
  const nulls = new Set();  // curves of one method share theirs
  const traces = curves.flatMap(curve => {
    const ink = colour(curve.mark, look);
    const drawn = (position, place) => {
      const values = data.models[position].draws[quantity] ?? [];
      return dots(values.map(() => place), values, ink);
    };
    const series = (positions, places, more) => {
      const models = positions.map(position => data.models[position]);
      return {
        type: "scatter", x: places, y: models.map(model => model.values[quantity]),
        hoverinfo: "text", hovertext: models.map(model => told(model, [quantity])),
        customdata: models.map(model => model.run),
        error_y: {type: "data", array: models.map(model => model.errors[quantity] ?? 0), color: ink, thickness: 1, width: 3},
        ...more,
      };
    };
    const kept = curve.runs.map((position, i) => [position, curve.places[i]]).filter(([position]) => known(position));
    const runs = series(kept.map(pair => pair[0]), kept.map(pair => pair[1]), {
      mode: "lines+markers", line: {color: ink, dash: curve.mark.dash, width: 1.8},
      marker: {symbol: curve.mark.symbol, size: 9, color: ink, line: {width: curve.mark.hollow ? 1.8 : 0}},
    });
    const each = kept.flatMap(pair => drawn(...pair));
    if (!present(curve.null) || !known(curve.null) || nulls.has(curve.null)) return [runs, ...each];
    nulls.add(curve.null);
    const value = data.models[curve.null].values[quantity];
    return [
      {type: "scatter", mode: "lines", x: limits, y: [value, value], hoverinfo: "skip", opacity: 0.8,
        line: {color: ink, dash: "dash", width: 1.1}},
      runs, ...each, ...drawn(curve.null, curve.null_place),
      series([curve.null], [curve.null_place], {
        mode: "markers", marker: {symbol: data.models[curve.null].mark.symbol, size: 9, color: look.paper, line: {color: ink, width: 1.8}},
      }),
    ];
  });
  const unit = quantity === 1 ? "" : " (%)";
  Plotly.react(plot, traces, layout(look, {
    xaxis: axis(look, "omega", {range: limits, tickvals: ticks, ticktext: texts}),
    yaxis: axis(look, data.quantities[quantity] + unit),
  }), CONFIG);
}

function drawProfiles() {
  const plot = one("#plot-profiles");
  if (!plot) return;
  const look = theme();
  const form = one("#profiles form");
  const relative = form.scale.value === "range";
  const study = studyOf(form);
  const models = data.models.filter(model => model.study === study && shown(model));
  nameKinds("#profiles", models);
  const merged = models.filter(model => model.role === "merged").length;
  const place = (value, i) => {
    const [low, high] = data.ranges[i];
    return present(value) && relative ? (value - low) / (high - low) : value;
  };
  const quantities = data.benchmarks.map((_, i) => i + 2);
  const last = data.benchmarks.length - 1;
  const traces = models.map(model => {
    const member = model.role !== "merged";
    return {
      type: "scatter", mode: "lines", x: quantities.map((_, i) => i),
      y: quantities.map((q, i) => place(model.values[q], i)),
      hoverinfo: "text", hovertext: quantities.map(q => told(model, [q])),
      opacity: member ? 0.9 : merged > 40 ? 0.35 : 0.8, customdata: quantities.map(() => model.run),
      line: {color: colour(model.mark, look), width: member ? 1.6 : 1.8, dash: member ? "dot" : model.plain ? "dash" : "solid"},
    };
  });
  const names = models.filter(model => present(model.peak)).map(model => ({
    x: model.peak, y: place(model.values[model.peak + 2], model.peak), text: model.label, yshift: 12,
    xanchor: model.peak === 0 ? "left" : model.peak === last ? "right" : "center",
    showarrow: false, bgcolor: look.paper, opacity: 0.9, borderpad: 1,
  }));
  Plotly.react(plot, traces, layout(look, {
    annotations: names, margin: {l: 44, r: 16, t: 24, b: 32},
    xaxis: axis(look, "", {range: [-0.15, last + 0.15], tickvals: quantities.map((_, i) => i), ticktext: data.benchmarks, showline: false, gridcolor: look.line}),
    yaxis: axis(look, relative ? "" : "percent", {showticklabels: !relative, showline: false, showgrid: !relative}),
  }), CONFIG);
}

function draw() {
  if (!data) return;
  drawFront();
  drawOmega();
  drawProfiles();
}

if (data) {
  draw();
  one("#front form")?.addEventListener("change", drawFront);
  one("#omega form")?.addEventListener("change", drawOmega);
  one("#profiles form")?.addEventListener("change", drawProfiles);
  for (const media of [dark, narrow]) media.addEventListener("change", draw);
  for (const button of all(".save")) {
    button.addEventListener("click", () => Plotly.downloadImage(button.dataset.plot, {format: "svg", filename: button.dataset.plot}));
  }
  for (const plot of all(".plot")) {
    plot.on("plotly_click", ({points: [point]}) => {
      if (point.customdata) location.hash = point.customdata;
    });
  }
}
for (const form of all("form")) form.addEventListener("submit", event => event.preventDefault());
openTarget();
