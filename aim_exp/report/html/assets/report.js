"use strict";
// Sorting, filtering, choosing; Observable Plot draws. Every number was computed when the page was written.

const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const present = value => value !== null && value !== undefined;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Sorting: a heading's button turns the column's order, section by section; empty cells stay last.

const collator = new Intl.Collator("en", {numeric: true});

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
  return Number.isNaN(x) ? collator.compare(a, b) : x - y;
}

function sortBy(heading) {
  const table = heading.closest("table");
  const column = [...heading.parentNode.children].indexOf(heading);
  const now = heading.getAttribute("aria-sort") ?? (heading.classList.contains("word") ? "descending" : "ascending");
  const next = now === "ascending" ? "descending" : "ascending";
  for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", next);
  const key = ({children: {[column]: cell}}) => cell.dataset.sort ?? cell.textContent.trim();
  const sign = next === "ascending" ? 1 : -1;
  const empty = text => text === "" || text === "–";
  for (const body of table.tBodies) {
    body.append(...[...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return empty(x) || empty(y) ? empty(x) - empty(y) : sign * compare(x, y);
    }));
  }
}

for (const heading of all("table.sortable thead th")) {
  one("button", heading)?.addEventListener("click", () => sortBy(heading));
}

// Runs: a link opens the run that it leads to; a command can be copied.

function openTarget() {
  const target = /^#run-\d+$/.test(location.hash) && one(location.hash);
  if (!target) return;
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

// Looks: a colour is a variable of the style, a marker a shape that d3 and Plot draw.

const data = one("#data") ? JSON.parse(one("#data").textContent) : {looks: [], rows: [], filters: {}, groups: [], sweeps: []};
const CALLS = {M: "moveTo", L: "lineTo", Q: "quadraticCurveTo", C: "bezierCurveTo", Z: "closePath"};

function shape(commands) {
  return commands && {draw(context, size) {
    const radius = Math.sqrt(size / Math.PI);
    for (const [letter, ...places] of commands) context[CALLS[letter]](...places.map(place => place * radius));
  }};
}

const looks = data.looks.map((look, number) => ({
  ink: look.colour ? `var(--look-${number})` : "var(--ink)",
  edge: shape(look.edge), part: shape(look.part), dash: look.dash.join(" "),
}));

function picture(look, {hollow = false, line, point = true, wide = false} = {}) {  // for legends and tables
  const svg = d3.create("svg:svg").attr("class", "symbol").attr("aria-hidden", "true")
    .attr("viewBox", line === undefined ? "-9 -9 18 18" : "-20 -9 40 18").style("color", look.ink);
  if (line !== undefined) {
    svg.append("path").attr("d", "M-19,0H19").attr("stroke", "currentColor").attr("stroke-width", wide ? 6 : 2)
      .attr("stroke-dasharray", line);
  }
  if (point) {
    svg.append("path").attr("d", d3.symbol(look.edge, 115)()).attr("stroke", "currentColor").attr("stroke-width", 1.6)
      .attr("fill", hollow || look.part ? "var(--paper)" : "currentColor");
    if (look.part && !hollow) svg.append("path").attr("d", d3.symbol(look.part, 115)()).attr("fill", "currentColor");
  }
  return svg.node();
}

const rowOf = new Map(data.rows.map(row => [row.key, row]));
for (const line of all("tr[data-row]")) {
  const row = rowOf.get(line.dataset.row);
  if (row) one("th", line).prepend(picture(looks[row.look], row));
}

// Filtering: nothing chosen shows everything; what has no such setting stays.

const filters = one(".filters");

for (const [name, values] of Object.entries(data.filters)) {
  const chips = values.map(value => element("label", {class: "chip"},
    element("input", {type: "checkbox", value}), element("span", {}, value)));
  one(".choices", filters).append(element("fieldset", {"data-filter": name}, element("legend", {}, name), ...chips));
}

let passing = () => true;

function count() {
  const merges = data.rows.filter(row => row.role === "merged");
  one("output", filters).textContent = `${merges.filter(passing).length} of ${merges.length} merges`;
}

function filter() {
  const chosen = all("fieldset", filters).map(set =>
    [set.dataset.filter, all("input:checked", set).map(input => input.value)]).filter(([, kept]) => kept.length);
  passing = ({settings}) => chosen.every(([name, kept]) => !(name in settings) || kept.includes(settings[name]));
  for (const line of all("tr[data-row]")) {
    const row = rowOf.get(line.dataset.row);
    line.hidden = Boolean(row) && !passing(row);
  }
  count();
  one("[type=reset]", filters).hidden = !chosen.length;
  draw();
}

if (filters && Object.keys(data.filters).length) {
  filters.hidden = false;
  count();
  filters.addEventListener("change", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
}

// Figures: what all have in common.

const narrow = matchMedia("(max-width: 640px)");
const group = () => Number(one("#which select")?.value ?? 0);
const shownRows = () => data.rows.filter(row => row.group === group() && passing(row));

function written(row, quantity) {
  const {name, digits} = data.quantities[quantity];
  const [value, error] = [row.values[quantity], row.errors[quantity]];
  return `${name} ${value.toFixed(digits)}${present(error) ? ` ±${error.toFixed(digits)}` : ""}`;
}

function axisTitle(quantity) {
  const {name, unit} = data.quantities[quantity];
  return unit ? `${name} (${unit})` : name;
}

function dots(points, {r = 5, dy = 0} = {}) {
  return d3.groups(points, point => `${point.look} ${point.hollow}`).flatMap(([, some]) => {
    const look = looks[some[0].look];
    const filled = !some[0].hollow;
    const place = {x: "x", y: "y", r, dy, opacity: point => (point.faded ? 0.35 : 1)};
    const marks = [Plot.dot(some, {...place, symbol: look.edge, stroke: look.ink,
      fill: filled && !look.part ? look.ink : "var(--paper)", ariaDescription: "point"})];
    if (filled && look.part) marks.push(Plot.dot(some, {...place, symbol: look.part, fill: look.ink, ariaDescription: "part"}));
    return marks;
  });
}

function drawDots(points) {  // of means over seeds, one model each
  return Plot.dot(points, {x: "x", y: "y", r: 1.8, fill: "ink", opacity: 0.5, ariaDescription: "draw"});
}

function tip(points, more) {
  return Plot.tip(points, Plot.pointer({x: "x", y: "y", title: "text", fill: "var(--paper)", stroke: "var(--muted)",
    textPadding: 8, lineHeight: 1.35, pathFilter: null, ...more}));
}

function show(id, options, about) {
  const box = one(`#plot-${id}`);
  if (!box.clientWidth) return;  // not laid out now
  const plot = Plot.plot({
    width: box.clientWidth, height: box.clientHeight, marginLeft: 44, marginBottom: 42, marginRight: 14, marginTop: 24,
    style: {background: "transparent", color: "var(--muted)", fontFamily: "inherit", fontSize: narrow.matches ? "11px" : "12px", overflow: "visible"},
    ariaLabel: about, ...options,
  });
  plot.addEventListener("click", () => {
    const line = plot.value?.key && one(`#leaderboard tr[data-row="${CSS.escape(plot.value.key)}"] a`);
    if (line) location.hash = line.hash;
  });
  box.replaceChildren(plot);
}

function fillLegend(id, entries) {
  one(`#${id} .legend`).replaceChildren(...entries.map(([image, text]) => element("li", {}, image, text)));
}

function namesShown(legend, series, joined) {  // what a figure does not show stands not in its legend
  const names = new Set(series.flatMap(each => each.names));
  return legend.filter(entry => names.has(entry.name)).map(({name, look, patch}) =>
    [picture(looks[look], patch ? {line: "", point: false, wide: true} : {line: joined ? looks[look].dash : undefined}), name]);
}

const plainPicture = line => picture({ink: "var(--muted)", edge: d3.symbolCircle}, {hollow: true, line});
const linePicture = line => picture({ink: "var(--muted)"}, {line, point: false});
const grid = {stroke: "var(--grid)", strokeOpacity: 1};

// The front of two benchmarks.

function frontOf(points) {  // none is as good on both and better on one; left to right
  const kept = [];
  for (const point of d3.sort(points, (a, b) => b.x - a.x || b.y - a.y)) {
    const last = kept.at(-1);
    if (!last || point.y > last.y || (point.y === last.y && point.x === last.x)) kept.push(point);
  }
  return kept.reverse();
}

function range(values) {
  const [low, high] = d3.extent(values);
  const room = Math.max(0.08 * (high - low), 2);
  return [low - room, high + room];
}

const PLACES = [["start", 11, 0], ["end", -11, 0], ["middle", 0, -14], ["middle", 0, 14], ["start", 8, -12], ["end", -8, -12],
  ["start", 8, 12], ["end", -8, 12]];

/* Names beside base and experts: of the places around a point, where least is covered. */
function namePlaces(named, others, scaleX, scaleY) {
  const taken = others.map(point => [scaleX(point.x), scaleY(point.y), 8, 8]);
  return named.map(point => {
    const width = 3.4 * point.label.length;
    const boxes = PLACES.map(([anchor, dx, dy]) => {
      const centre = scaleX(point.x) + dx + (anchor === "start" ? width : anchor === "end" ? -width : 0);
      const box = [centre, scaleY(point.y) + dy, width, 8];
      const covered = taken.filter(([x, y, w, h]) => Math.abs(x - box[0]) < w + width && Math.abs(y - box[1]) < h + 8).length;
      const outside = centre - width < scaleX.range()[0] || centre + width > scaleX.range()[1] + 10;
      return {anchor, dx, dy, box, cost: covered + 9 * outside};
    });
    const best = d3.least(boxes, box => box.cost);
    taken.push(best.box);
    return {...point, ...best};
  });
}

function drawFront() {
  if (!one("#front")) return;
  const form = one("#front form");
  const [first, second] = [Number(form.x.value) + data.first, Number(form.y.value) + data.first];
  const point = row => ({...row, x: row.values[first], y: row.values[second],
    text: [row.label, ...[...new Set([first, second])].map(quantity => written(row, quantity))].join("\n")});
  const known = data.rows.filter(row => row.group === group() && present(row.values[first]) && present(row.values[second])).map(point);
  if (!known.length) return show("front", {marks: []}, "nothing is scored on both");
  const near = form.range.value === "merges" ? known.filter(p => p.role === "merged") : known;
  const domain = (axis, quantity) => range((near.length ? near : known).flatMap(p => [p[axis], ...(p.draws?.[quantity] ?? [])]));
  const [domainX, domainY] = [domain("x", first), domain("y", second)];
  const inside = p => p.x >= domainX[0] && p.x <= domainX[1] && p.y >= domainY[0] && p.y <= domainY[1];
  const front = frontOf(known.filter(p => p.role !== "reference"));
  const best = new Set(front);
  for (const p of known) p.faded = !best.has(p) && p.role !== "reference";
  const shown = known.filter(p => passing(p) && inside(p));
  const at = new Map(shown.map(p => [p.key, p]));
  const series = data.sweeps[0].series.filter(each => each.group === group());
  const paths = series.map(each => [each.level, ...each.rows.toReversed()].filter(present)
    .map(number => at.get(data.rows[number].key)).filter(Boolean)).filter(path => path.length);
  const ends = [Math.min(domainX[0], front[0].x), Math.min(domainY[0], front.at(-1).y)];
  const stairs = [[ends[0], front[0].y], ...front.map(p => [p.x, p.y]), [front.at(-1).x, ends[1]]];
  const sure = front.filter(p => passing(p) && inside(p));
  const members = shown.filter(p => p.role !== "merged");
  const box = one("#plot-front");
  const names = namePlaces(members, shown, d3.scaleLinear(domainX, [44, box.clientWidth - 14]), d3.scaleLinear(domainY, [box.clientHeight - 42, 24]));
  const bar = {stroke: "var(--muted)", strokeWidth: 0.8};
  show("front", {
    x: {domain: domainX, label: axisTitle(first), labelAnchor: "center", labelArrow: "none", ticks: narrow.matches ? 5 : 8, tickSize: 0},
    y: {domain: domainY, label: axisTitle(second), labelArrow: "none", ticks: 7, tickSize: 0},
    marks: [
      Plot.gridX(grid), Plot.gridY(grid),
      Plot.line(stairs, {curve: "step-before", stroke: "var(--muted)", strokeWidth: 1.3, clip: true, ariaDescription: "front"}),
      paths.map(path => Plot.line(path, {x: "x", y: "y", stroke: looks[path.at(-1).look].ink, strokeOpacity: 0.5, ariaDescription: "path"})),
      Plot.ruleY(sure.filter(p => present(p.errors[first])), {y: "y", x1: p => p.x - p.errors[first], x2: p => p.x + p.errors[first], ...bar}),
      Plot.ruleX(sure.filter(p => present(p.errors[second])), {x: "x", y1: p => p.y - p.errors[second], y2: p => p.y + p.errors[second], ...bar}),
      drawDots(shown.flatMap(p => (p.draws ? p.draws[first].map((x, i) => ({x, y: p.draws[second][i], ink: looks[p.look].ink})) : []))),
      dots(shown.filter(p => p.role === "merged")), dots(members, {r: 5.5}),
      names.map(({x, y, label, anchor, dx, dy}) => Plot.text([[x, y]], {text: [label], textAnchor: anchor, dx, dy, fill: "var(--ink)",
        stroke: "var(--paper)", strokeWidth: 3, ariaDescription: "name"})),
      tip(shown),
    ],
  }, `${data.quantities[second].name} against ${data.quantities[first].name}: every model, and the front`);
  const merges = shown.filter(p => p.role === "merged");
  const numbers = new Set(merges.map(p => data.rows.findIndex(row => row.key === p.key)));
  const seen = series.filter(each => [...each.rows, each.level].some(number => numbers.has(number)));
  const own = members.find(p => p.role !== "reference");
  fillLegend("front", [
    ...namesShown(data.sweeps[0].legend, seen, false),
    ...(merges.some(p => p.hollow) ? [[plainPicture(), "plain merge"]] : []),
    ...(own ? [[picture(looks[own.look]), "base, experts"]] : []),
    ...(members.some(p => p.hollow) ? [[picture(looks[members.find(p => p.hollow).look], {hollow: true}), "reference"]] : []),
    [linePicture(""), "front"],
  ]);
}

// Any score against any setting.

function drawSweep() {
  if (!one("#sweep")) return;
  const form = one("#sweep form");
  const {title, limits, ticks, values, series: every, legend} = data.sweeps[Number(form.key.value)];
  const quantity = Number(form.quantity.value);
  const has = number => present(number) && present(data.rows[number].values[quantity]) && passing(data.rows[number]);
  const point = (number, x, look) => {
    const row = data.rows[number];
    return {...row, look, x, y: row.values[quantity], e: row.errors[quantity], text: `${row.label}\n${written(row, quantity)}`};
  };
  const series = every.filter(each => each.group === group() && (each.rows.some(has) || has(each.level)));
  const levels = new Map();  // what several series share is drawn once
  const lines = series.map(each => {
    if (has(each.level) && !levels.has(each.level)) levels.set(each.level, point(each.level, each.level_place, each.look));
    return each.rows.flatMap((number, i) => (has(number) ? [point(number, each.places[i], each.look)] : []));
  });
  const flat = [...levels.values()];
  const points = [...lines.flat(), ...flat.filter(p => present(p.x))];
  const texts = new Map(ticks);
  const long = d3.sum(ticks, ([, text]) => text.length) * 8 > one("#plot-sweep").clientWidth - 60;
  show("sweep", {
    ...(long && {marginBottom: 100}),
    x: {type: "linear", domain: limits, ticks: ticks.map(tick => tick[0]), tickFormat: place => texts.get(place), label: title,
      labelAnchor: "center", labelArrow: "none", tickSize: 0, ...(long && {tickRotate: -35})},
    y: {label: axisTitle(quantity), labelArrow: "none", nice: true, ticks: 7, tickSize: 0},
    marks: [
      Plot.gridX(ticks.map(tick => tick[0]), grid), Plot.gridY(grid),
      flat.map(p => Plot.ruleY([p], {y: "y", stroke: looks[p.look].ink, strokeDasharray: p.hollow ? "5 4" : "1.5 3", strokeOpacity: 0.8, ariaDescription: p.hollow ? "plain" : "level"})),
      lines.filter(line => line.length > 1).map(line => Plot.line(line, {x: "x", y: "y", stroke: looks[line[0].look].ink, strokeWidth: 1.8,
        strokeLinecap: "butt", strokeDasharray: looks[line[0].look].dash, ariaDescription: "series"})),
      Plot.ruleX(points.filter(p => present(p.e)), {x: "x", y1: p => p.y - p.e, y2: p => p.y + p.e, stroke: p => looks[p.look].ink, ariaDescription: "bar"}),
      drawDots(points.flatMap(p => (p.draws ? p.draws[quantity].map(y => ({x: p.x, y, ink: looks[p.look].ink})) : []))),
      dots(points), tip(points),
    ],
  }, `${data.quantities[quantity].name} against ${title}`);
  const joined = lines.some(line => line.length > 1);
  const dashed = flat.some(p => p.hollow);
  fillLegend("sweep", [...namesShown(legend, series, joined), ...(dashed || points.some(p => p.hollow) ? [[plainPicture(dashed ? "5 4" : undefined), "plain merge"]] : [])]);
  one("#sweep-title").textContent = `Against ${title}`;
  const cell = row => (row ? written(row, quantity).slice(data.quantities[quantity].name.length + 1) : "");
  const lone = series.some(each => has(each.level));
  one("#sweep-table").replaceChildren(
    element("thead", {}, tableLine("th", [title, ...values, ...(lone ? ["without it"] : [])])),
    element("tbody", {}, ...series.map(each => tableLine("td", [each.names.filter(Boolean).join(" ") || "all",
      ...values.map(value => cell(each.rows.filter(has).map(number => data.rows[number]).find(row => row.settings[title] === value))),
      ...(lone ? [cell(has(each.level) ? data.rows[each.level] : null)] : [])]))));
}

// All benchmarks at once.

function drawProfiles() {
  if (!one("#profiles")) return;
  const relative = one("#profiles form").scale.value === "range";
  const names = data.quantities.slice(data.first).map(quantity => quantity.name);
  const everyone = data.rows.filter(row => row.group === group());
  const ranges = names.map((_, i) => d3.extent(everyone, row => row.values[i + data.first]));
  const place = (value, i) => (relative ? (value - ranges[i][0]) / (ranges[i][1] - ranges[i][0] || 1) : value);
  const rows = shownRows();
  const points = rows.map(row => names.map((_, i) => [row.values[i + data.first], i]).filter(([value]) => present(value))
    .map(([value, i]) => ({...row, x: i, y: place(value, i), text: `${row.label}\n${written(row, i + data.first)}`})));
  const members = everyone.filter(row => row.role === "base" || row.role === "expert");
  const lead = (row, i) => row.values[i + data.first] - d3.mean(members, other => other.values[i + data.first]);
  const peaks = rows.filter(row => members.includes(row)).map(row => {
    const i = d3.greatest(d3.range(names.length), n => lead(row, n) || 0);
    return {x: i, y: place(row.values[i + data.first], i), text: row.label, anchor: i === 0 ? "start" : i === names.length - 1 ? "end" : "middle"};
  }).filter(peak => present(peak.y));
  const dash = row => (row.role !== "merged" ? "1.5 3" : row.hollow ? "5 4" : "");
  const few = rows.length <= 40;
  show("profiles", {
    marginLeft: relative ? 24 : 44, marginRight: 24,
    x: {domain: [-0.12, names.length - 0.88], ticks: d3.range(names.length), tickFormat: i => names[i], tickSize: 0, label: null},
    y: {label: relative ? null : "percent", labelArrow: "none", axis: relative ? null : "left", ticks: 6, tickSize: 0},
    marks: [
      Plot.ruleX(d3.range(names.length), {stroke: "var(--line)"}), relative ? null : Plot.gridY(grid),
      points.map((line, i) => Plot.line(line, {x: "x", y: "y", stroke: looks[rows[i].look].ink, strokeDasharray: dash(rows[i]),
        strokeWidth: 1.7, strokeLinecap: "butt", strokeOpacity: few ? 0.85 : 0.4, ariaDescription: "profile"})),
      few ? dots(points.flat().filter(p => p.role === "merged"), {r: 3.5}) : null,
      peaks.map(peak => Plot.text([peak], {x: "x", y: "y", text: "text", textAnchor: peak.anchor, dy: -11, fill: "var(--ink)",
        stroke: "var(--paper)", strokeWidth: 3})),
      tip(points.flat()),
    ],
  }, "A line per model over all benchmarks");
  const numbers = new Set(rows.map(row => row.key));
  const series = data.sweeps[0].series.filter(each => [...each.rows, each.level].some(n => present(n) && numbers.has(data.rows[n].key)));
  fillLegend("profiles", [
    ...namesShown(data.sweeps[0].legend, series, false),
    ...(rows.some(row => row.hollow && row.role === "merged") ? [[plainPicture("5 4"), "plain merge"]] : []),
    [linePicture("1.5 3"), "base, experts"],
  ]);
}

// What a relaxation left, by kind of module; how base's saliency is spread.

function drawDose() {
  if (!one("#dose")) return;
  const {kinds, profiles, legend} = data.dose;
  const form = one("#dose form");
  const measure = form.measure.value;
  const words = measure === "kept" ? "delta" : "change of outputs";
  const names = namesShown(legend, [{names: legend.map(entry => entry.name)}], form.by?.value === "layer");
  if (form.by?.value === "layer") {
    drawLayers(profiles, `${measure}_by_layer`, words);
    return fillLegend("dose", names);
  }
  const lines = d3.max(profiles, profile => profile.line) + 1;
  const row = Math.max(20, 7 * lines);
  one("#plot-dose").style.height = `${row * (kinds.length + 1) + 60}px`;
  const points = profiles.flatMap(profile => Object.entries(profile[measure]).map(([kind, x]) => ({
    x, y: kind, look: profile.look, line: profile.line, range: measure === "kept" ? profile.ranges[kind] : undefined, r: profile.mean_r[kind],
    text: `${profile.label}\n${kind}: ${x.toFixed(3)} of the ${words} left`,
  })));
  const [least, greatest] = d3.extent(points, p => p.x);
  const omegas = d3.sort(d3.rollups(profiles, some => d3.mean(some, profile => profile[measure].all), profile => profile.omega), ([, x]) => x);
  let taken = -Infinity;  // an omega is written where it has room
  const named = omegas.filter(([omega, x]) => {
    const half = 0.015 * omega.length * (greatest - least);
    return x - half > taken && (taken = x + half);
  });
  const shift = line => 0.7 * row * ((line + 0.5) / lines - 0.5);
  show("dose", {
    marginLeft: 8 + 7 * d3.max(kinds, kind => kind.length), marginTop: 6,
    x: {label: `share of the ${words} that is left`, labelAnchor: "center", labelArrow: "none", nice: true, ticks: narrow.matches ? 4 : 8},
    y: {type: "point", domain: ["omega", ...kinds], label: null, tickSize: 0, padding: 0.6},
    marks: [
      Plot.gridX(grid), Plot.gridY(kinds, grid),
      Plot.text(named, {x: ([, x]) => x, y: () => "omega", text: ([omega]) => omega, fill: "var(--ink)"}),
      Plot.text(points.filter(p => present(p.r)), {x: "r", y: "y", text: () => "|", fill: "var(--muted)", fontSize: 15, opacity: 0.5}),
      d3.groups(points, p => p.line).flatMap(([line, some]) => [
        Plot.ruleY(some.filter(p => p.range), {y: "y", x1: p => p.range[0], x2: p => p.range[1], stroke: looks[some[0].look].ink, strokeWidth: 2, strokeOpacity: 0.6, dy: shift(line)}),
        ...dots(some, {r: 4.5, dy: shift(line)}), tip(some, {dy: shift(line)})]),
    ],
  }, "Share of the delta that was kept, by kind of module");
  fillLegend("dose", [...names, [element("span", {class: "symbol"}, "|"), "mean r"]]);
}

function drawLayers(profiles, measure, words) {
  one("#plot-dose").style.height = "";
  const lines = profiles.map(profile => Object.entries(profile[measure]).map(([layer, y]) => ({x: Number(layer), y, look: profile.look,
    omega: profile.omega, text: `${profile.label}\nlayer ${layer}: ${y.toFixed(3)} of the ${words} left`}))).filter(line => line.length);
  const layers = [...new Set(lines.flat().map(p => p.x))].sort((a, b) => a - b);
  const ends = d3.rollups(lines, some => d3.mean(some, line => line.at(-1).y), line => line[0].omega);
  show("dose", {
    marginRight: 40,
    x: {label: "layer", labelAnchor: "center", labelArrow: "none", tickFormat: "d", tickSize: 0,
      ticks: layers.filter((_, i) => i % Math.ceil(layers.length / 12) === 0)},
    y: {label: `share of the ${words} that is left`, labelArrow: "none", nice: true, ticks: 7, tickSize: 0},
    marks: [
      Plot.gridY(grid), lines.map(line => Plot.line(line, {x: "x", y: "y", stroke: looks[line[0].look].ink, strokeWidth: 1.8,
        strokeLinecap: "butt", strokeDasharray: looks[line[0].look].dash, ariaDescription: "layers"})),
      dots(lines.flat(), {r: 4}), Plot.text(ends, {x: () => layers.at(-1), y: ([, y]) => y, text: ([omega]) => omega, dx: 10, textAnchor: "start", fill: "var(--ink)"}),
      tip(lines.flat()),
    ],
  }, `Share of the ${words} that was kept, by layer`);
}

const MUTED = ["#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#AA4499"];

function drawSaliency() {
  if (!one("#saliency")) return;
  const {channels, inputs} = data.saliency;
  const colour = i => `color-mix(in srgb, ${MUTED[i % MUTED.length]}, white var(--lift))`;
  const dash = i => ["", "6 2 1.5 2", "1.5 1.5"][Math.floor(i / MUTED.length) % 3];
  const curves = inputs.map((input, i) => input.falling.map((y, n) => ({x: channels[n], y, i, text: `${input.name}\n${(100 * channels[n]).toPrecision(2)} % of the channels\nhave s / max s ≥ ${y.toPrecision(2)}`})));
  const least = Math.max(1e-3, d3.min(curves.flat(), p => p.y));
  const [shares, decades] = [[0.001, 0.01, 0.1, 1].flatMap(ten => (ten < 1 ? [ten, 3 * ten] : ten)).filter(share => share >= channels[0]),
    [0.001, 0.01, 0.1, 1].filter(ten => ten >= least)];
  show("saliency", {
    x: {type: "log", label: "channels, most salient first", labelAnchor: "center", labelArrow: "none", tickSize: 0, tickFormat: share => `${+(100 * share).toPrecision(1)} %`, ticks: shares},
    y: {type: "log", domain: [least, 1.1], clamp: true, label: "s / max s", labelArrow: "none", tickSize: 0, ticks: decades, tickFormat: "~g"},
    marks: [Plot.gridX(shares, grid), Plot.gridY(decades, grid),
      curves.map((curve, i) => Plot.line(curve, {x: "x", y: "y", stroke: colour(i), strokeDasharray: dash(i), strokeWidth: 1.8})), tip(curves.flat())],
  }, "Saliency of channels in falling order, a line for each input");
  const cells = inputs.flatMap((input, i) => input.layers.map(([layer, mean]) => ({x: layer, y: input.name, mean, text: `${input.name}, layer ${layer}\nmean s / max s ${mean.toPrecision(3)}`})));
  one("#plot-layers").style.height = `${22 * inputs.length + 60}px`;
  const layers = [...new Set(cells.map(cell => cell.x))].sort((a, b) => (a === "none") - (b === "none") || a - b);
  const step = Math.ceil(layers.length / 12);
  const color = {type: "log", scheme: "cividis", domain: [Math.min(0.1, d3.min(cells, cell => cell.mean)), 1]};
  show("layers", {
    marginLeft: 8 + 7 * d3.max(inputs, input => input.name.length), marginTop: 4,
    x: {domain: layers, label: "layer", labelAnchor: "center", labelArrow: "none", ticks: layers.filter((layer, i) => i % step === 0 || layer === "none"), tickSize: 0},
    y: {domain: inputs.map(input => input.name), label: null, tickSize: 0},
    color,
    marks: [Plot.cell(cells, {x: "x", y: "y", fill: "mean", inset: 0.5}), tip(cells)],
  }, "Mean saliency by layer and input");
  one("#plot-layers").append(Plot.legend({color, label: "mean s / max s", ticks: 3, tickFormat: "~g", style: {background: "transparent"}}));
  fillLegend("saliency", inputs.map((input, i) => [picture({ink: colour(i)}, {line: dash(i), point: false}), input.name]));
}

// Items: what two models answered. Files lie beside the page, and are scripts: a page from disk may load no other.

const files = new Map();  // by name, what settles the promise of its content
const MORE = 20;

async function answers(name, packed) {
  const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt(0));
  files.get(name).resolve(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json());
}

function content(name) {
  if (!files.has(name)) {
    const file = {};
    file.promise = new Promise((resolve, reject) => Object.assign(file, {resolve, reject}));
    files.set(name, file);
    const script = element("script", {src: `${data.items.folder}/${name}.js`});
    script.onerror = () => file.reject(new Error(`${data.items.folder}/${name}.js is not beside this page`));
    document.body.append(script);
  }
  return files.get(name).promise;
}

function tableLine(tag, texts) {
  return element("tr", {}, ...texts.map((text, i) => element(i && tag === "td" ? "td" : "th", {class: i ? "number" : "word"}, text)));
}

function answerOf(title, {score, text}) {
  return element("div", {}, element("h4", {}, title, element("span", {class: score > 0 ? "right" : "wrong"}, present(score) ? ` ${+score.toFixed(3)}` : "")),
    element("pre", {}, text));
}

function choicesOf({choices}, before, after) {
  if (!choices) return "";
  const number = (given, i) => given.loglikelihoods?.[i].toFixed(2) ?? "";
  return element("div", {class: "scroll"}, element("table", {}, element("thead", {}, tableLine("th", ["choice", "log-likelihood before", "after"])),
    element("tbody", {}, ...choices.map((text, i) => tableLine("td", [text, number(before, i), number(after, i)])))));
}

function itemShown(question, before, after) {
  const {id, prompt, start, target} = question;
  return element("article", {}, element("h3", {}, id), element("pre", {}, prompt.slice(start)),
    start ? element("details", {}, element("summary", {}, "whole prompt"), element("pre", {}, prompt)) : "",
    element("p", {}, element("b", {}, "target "), element("code", {}, target)), choicesOf(question, before, after),
    element("div", {class: "both"}, answerOf("before", before), answerOf("after", after)));
}

let latest = 0;  // only the latest choice is shown

async function drawItems() {
  const form = one("#items form");
  const [box, state, more] = [one("#items .answers"), one("#items output"), one("#items .more")];
  const number = ++latest;
  const names = [form.a, form.b].map(choice => data.items.models[Number(choice.value)].files[Number(form.benchmark.value)]);
  box.replaceChildren();
  more.hidden = true;
  if (!names.every(present)) { state.textContent = "one of the two has no items on this benchmark"; return; }
  state.textContent = "reading ...";
  try {
    const [before, after] = await Promise.all(names.map(content));
    const [questions, others] = await Promise.all([after, before].map(model => content(model.questions)));
    if (number !== latest) return;
    const ids = asked => asked.map(question => question.id).join();
    if (ids(questions) !== ids(others)) throw new Error("the two were not asked the same items");
    const change = item => (present(before.given[item].score) && present(after.given[item].score) ? after.given[item].score - before.given[item].score : 0);
    const every = d3.sort(d3.range(questions.length), item => -Math.abs(change(item)));
    const kinds = {changed: item => change(item), up: item => change(item) > 0, down: item => change(item) < 0, all: () => true};
    const text = form.text.value.toLowerCase();
    const texts = ({prompt, start, target}, item) => [prompt.slice(start), target, before.given[item].text, after.given[item].text];
    const has = item => !text || texts(questions[item], item).some(t => t.toLowerCase().includes(text));
    const shown = every.filter(kinds[form.kind.value]).filter(has);
    state.textContent = `${shown.length} of ${every.length} items; ${d3.sum(every, kinds.up)} better, ${d3.sum(every, kinds.down)} worse`;
    const add = () => {
      const first = box.children.length;
      box.append(...shown.slice(first, first + MORE).map(item => itemShown(questions[item], before.given[item], after.given[item])));
      more.hidden = box.children.length >= shown.length;
    };
    more.onclick = add;
    add();
  } catch (error) {
    if (number === latest) state.textContent = error.message;
  }
}

function openItems() {  // from a cell of the differences: #items=NAME&a=KEY&b=KEY
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (!wanted.get("items") || !data.items) return;
  const form = one("#items form");
  const position = name => data.items.models.findIndex(model => model.key === wanted.get(name));
  form.benchmark.value = data.quantities.slice(data.first).findIndex(quantity => quantity.name === wanted.get("items"));
  const places = [position("a"), position("b")];
  if (places.includes(-1)) { one("#items output").textContent = "of one of the two there are no items here"; return; }
  [form.a.value, form.b.value] = places;
  one("#items").scrollIntoView();
  drawItems();
}

if (data.items) {
  const form = one("#items form");
  for (const choice of [form.a, form.b]) {
    choice.append(...data.items.models.map(({label, group}, i) =>
      element("option", {value: i}, data.groups.length > 1 ? `${label} [${group + 1}]` : label)));
  }
  form.b.value = Math.max(1, data.items.models.findLastIndex(model => model.files.some(present))) % data.items.models.length;
  form.addEventListener("change", drawItems);
  window.addEventListener("hashchange", openItems);
  new IntersectionObserver((entries, observer) => {  // nothing is read before it is looked at
    if (entries.some(entry => entry.isIntersecting) && !latest) { observer.disconnect(); drawItems(); }
  }).observe(one("#items"));
}

const FIGURES = {front: drawFront, sweep: drawSweep, profiles: drawProfiles, dose: drawDose, saliency: drawSaliency};

function draw() {
  for (const figure of Object.values(FIGURES)) figure();
}

if (data.quantities) {
  draw();
  for (const [id, figure] of Object.entries(FIGURES)) one(`#${id} form`)?.addEventListener("change", figure);
  one("#which")?.addEventListener("change", draw);
  let width = innerWidth;
  window.addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); } });
}
for (const form of all("form")) form.addEventListener("submit", event => event.preventDefault());
openTarget();
openItems();
