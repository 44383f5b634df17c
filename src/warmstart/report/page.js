"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#3fb1b5", "#d4a514", "#9c755f"];
const FEW = 12;
const scores = D.jobs.filter(job => job.score !== null).map(job => job.score);
const [lowest, highest] = extent(scores);

function extent(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function add(parent, tag, attributes = {}, text = null) {
  const node = document.createElementNS(tag === "svg" ? "http://www.w3.org/2000/svg" : parent.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== null) node.textContent = text;
  return parent.appendChild(node);
}

function canvas(parent, width, height) {
  return add(parent, "svg", { viewBox: `0 0 ${width} ${height}` });
}

function show(value) {
  if (typeof value !== "number") return value.length > 22 ? "…" + value.slice(-21) : value;
  const size = Math.abs(value);
  return size && (size < 1e-3 || size >= 1e5) ? (+value.toPrecision(3)).toExponential() : String(+value.toPrecision(4));
}

function describe(job) {
  const result = job.score === null ? job.state : `${D.metric} ${show(job.score)}`;
  return `${job.name}\n${D.configurations[job.c]}\n${result}`;
}

// A scale from values to positions between a and b; `ticks` are the labelled values, rounded for scores or many values.
function scale(kind, values, a, b) {
  const distinct = [...new Set(values)];
  if (kind === "category") {
    const at = value => a + (b - a) * (distinct.indexOf(value) + 0.5) / distinct.length;
    return Object.assign(at, { ticks: distinct });
  }
  const transform = kind === "log" ? Math.log10 : value => value;
  let [low, high] = extent(distinct.map(transform));
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const at = value => a + (b - a) * (transform(value) - low) / (high - low);
  return Object.assign(at, { ticks: kind !== "score" && distinct.length <= 6 ? distinct : round_values(kind, low, high) });
}

function round_values(kind, low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = kind === "log" ? Math.ceil((high - low) / 6) : power * [1, 2, 5, 10].find(m => (high - low) / (power * m) <= 5);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return kind === "log" ? found.map(value => 10 ** value) : found;
}

// A scale for the result of a job: its score, or a level below all scores for each state without a score.
function results(a, b, gap) {
  const states = D.states.filter(state => state !== "done" || D.metric === null);
  if (!scores.length) return Object.assign(job => at(job.state), { ticks: states.map(s => [at(s), s]), bottom: a });
  const bottom = a - states.length * gap - (states.length ? 6 : 0);
  const inner = scale("score", scores, bottom, b);
  const position = job => job.score === null ? a - states.indexOf(job.state) * gap : inner(job.score);
  const ticks = [...inner.ticks.map(v => [inner(v), show(v)]), ...states.map((s, k) => [a - k * gap, s])];
  return Object.assign(position, { ticks, bottom, inner });

  function at(state) { return scale("category", states, a, b)(state); }
}

function score_color(score) {
  const share = highest > lowest ? (score - lowest) / (highest - lowest) : 1;
  const good = 200 * (D.mode === "min" ? 1 - share : share);
  const [from, to, part] = good < 100 ? ["low", "mid", good] : ["mid", "high", good - 100];
  return `color-mix(in oklab, var(--${to}) ${part.toFixed(1)}%, var(--${from}))`;
}

function score_style(job, property) {
  return job.score === null ? {} : { style: `${property}: ${score_color(job.score)}` };
}

// Draw tick labels along an axis, without overlaps; `half` returns half the size of a label.
function draw_ticks(svg, ticks, half, attributes) {
  let edge = -Infinity;
  for (const [position, text] of [...ticks].sort((one, other) => one[0] - other[0])) {
    if (position - half(text) < edge) continue;
    edge = position + half(text);
    add(svg, "text", attributes(position), text);
  }
}

// Parallel coordinates: axes are vertical, or on a narrow screen horizontal, one below the other.
function parallel() {
  const box = document.getElementById("parallel");
  if (!D.parameters.length) return box.remove();
  if (D.hidden) add(box, "p", {}, `The first ${D.jobs.length} of ${D.jobs.length + D.hidden} runs.`);
  const narrow = matchMedia("(max-width: 700px)");
  const draw = () => {
    box.querySelector("svg")?.remove();
    draw_parallel(box, narrow.matches);
  };
  narrow.addEventListener("change", draw);
  draw();
}

function draw_parallel(box, narrow) {
  const n = D.parameters.length;
  const [width, height] = narrow ? [360, 70 * n + 80] : [1160, 400];
  const [first, last] = narrow ? [24, 336] : [376, 48];
  const svg = canvas(box, width, height);
  const across = k => narrow ? 44 + 70 * k : 90 + (width - 190) * k / n;  // position of an axis
  const point = (k, at) => narrow ? [at, across(k)] : [across(k), at];
  const end = narrow ? results(first, last, -18) : results(first, last, 18);
  const axes = D.parameters.map(parameter => scale(parameter.kind, parameter.values, first, last));
  const count = D.configurations.length;
  const spread = D.parameters.map(p => p.values.length <= FEW ? Math.min(36, 180 / p.values.length) : 0);
  for (const job of [...D.jobs].reverse()) {
    const shift = (job.c + 0.5) / count - 0.5;
    const points = job.values.map((value, k) => point(k, axes[k](value) + spread[k] * shift));
    points.push(point(n, end(job)));
    const steps = points.slice(1).map(([x, y], k) => {
      const [half_x, half_y] = [(points[k][0] + x) / 2, (points[k][1] + y) / 2];
      const [from, to] = narrow ? [[points[k][0], half_y], [x, half_y]] : [[half_x, points[k][1]], [half_x, y]];
      return "C" + [from, to, [x, y]].map(pair => pair.map(value => value.toFixed(1)).join(",")).join(" ");
    });
    const attributes = { class: `job ${job.state}`, "data-c": job.c, "stroke-width": D.jobs.length > 200 ? 1 : 1.8 };
    const path = add(svg, "path", { ...attributes, d: `M${points[0]}${steps.join("")}`, ...score_style(job, "stroke") });
    add(path, "title", {}, describe(job));
  }
  [...axes, end].forEach((axis, k) => {
    const [parameter, is_end] = [D.parameters[k], k === n];
    const [[x1, y1], [x2, y2]] = narrow ? [point(k, 6), point(k, 354)] : [point(k, last - 18), point(k, first + 18)];
    add(svg, "line", { class: "axis", x1, y1, x2, y2 });
    const arrow = narrow ? " → better" : " ↑ better";
    const other = narrow ? " ← better" : " ↓ better";
    const name = is_end ? (D.metric ? D.metric + (D.mode === "max" ? arrow : other) : "state") : parameter.short;
    const [x, y] = narrow ? [6, across(k) - 22] : [across(k), 18];
    add(svg, "text", { class: "name halo", x, y, "text-anchor": narrow ? "start" : "middle" }, name);
    const ticks = is_end ? axis.ticks : axis.ticks.map(value => [axis(value), show(value)]);
    if (narrow) {
      const half = text => 3 * text.length + 4;
      draw_ticks(svg, ticks, half, x => ({ class: "halo", x, y: across(k) + 17, "text-anchor": "middle" }));
    } else {
      const side = is_end ? { class: "halo", x: across(k) + 8 } : { class: "halo", x: across(k) - 8, "text-anchor": "end" };
      draw_ticks(svg, ticks, () => 6, y => ({ ...side, y: y + 4 }));
    }
  });
}

function frame(parent, title, x_ticks, y_ticks) {
  const svg = canvas(parent, 340, 230);
  add(svg, "text", { class: "name", x: 64, y: 14 }, title);
  for (const [y] of y_ticks) add(svg, "line", { class: "axis", x1: 64, x2: 332, y1: y, y2: y });
  draw_ticks(svg, y_ticks, () => 6, y => ({ x: 59, y: y + 4, "text-anchor": "end" }));
  draw_ticks(svg, x_ticks, text => 3 * text.length + 4, x => ({ x, y: 224, "text-anchor": "middle" }));
  return svg;
}

function scatters() {
  const box = document.getElementById("scatters");
  if (!scores.length || !D.parameters.length) return box.remove();
  const end = results(204, 28, 13);
  D.parameters.forEach((parameter, k) => {
    const x = scale(parameter.kind, parameter.values, 84, 314);
    const few = parameter.values.length <= FEW;
    const ticks = x.ticks.map(value => [x(value), show(value)]);
    const svg = frame(box.querySelector(".multiples"), parameter.short, ticks, end.ticks);
    for (const job of D.jobs) {
      const jitter = few ? 14 * ((job.c * 0.618) % 1 - 0.5) : 0;
      const circle = { cx: (x(job.values[k]) + jitter).toFixed(1), cy: end(job).toFixed(1), r: 3.2 };
      const dot = add(svg, "circle", { class: `job ${job.state}`, "data-c": job.c, fill: "none", ...circle, ...score_style(job, "fill") });
      add(dot, "title", {}, describe(job));
    }
    for (const value of few ? parameter.values : []) {
      const values = D.jobs.filter(job => job.values[k] === value && job.score !== null).map(job => job.score);
      if (!values.length) continue;
      const y = end.inner(values.reduce((sum, score) => sum + score, 0) / values.length);
      add(svg, "line", { class: "mean", x1: x(value) - 15, x2: x(value) + 15, y1: y, y2: y });
    }
  });
}

function curves() {
  const box = document.getElementById("curves");
  if (!D.curves.length) return box.remove();
  const named = new Map();
  for (const { name, lines } of D.curves) {
    const all = lines.flatMap(line => [...line.least, ...line.most]);
    const [low, high] = extent(all);
    const y = scale(low > 0 && high / low >= 100 ? "log" : "score", all, 204, 28);
    const x = scale("score", [0, ...lines.flatMap(line => line.x)], 68, 322);
    const [xs, ys] = [x.ticks.map(v => [x(v), show(v)]), y.ticks.map(v => [y(v), show(v)])];
    const svg = frame(box.querySelector(".multiples"), name, xs, ys);
    for (const line of lines) {
      const trace = values => values.map((value, k) => `${x(line.x[k]).toFixed(1)},${y(value).toFixed(1)}`);
      const color = COLOURS[line.slot];
      named.set(line.c, color);
      const edge = [...trace(line.most), ...trace(line.least).reverse()];
      if (line.n > 1) add(svg, "path", { class: "band", "data-c": line.c, style: `fill: ${color}`, d: `M${edge.join("L")}Z` });
      const path = add(svg, "path", { "data-c": line.c, stroke: color, "stroke-width": 1.6, d: `M${trace(line.mean).join("L")}` });
      add(path, "title", {}, D.configurations[line.c]);
    }
  }
  for (const [c, color] of named) {
    const entry = add(box.querySelector(".key"), "span", { "data-c": c });
    add(entry, "i", { style: `background: ${color}` });
    entry.append(D.configurations[c]);
  }
}

function importance() {
  const box = document.getElementById("importance");
  if (D.metric === null) return box.remove();
  if (!D.importance) return add(box, "p", {}, "Too few configurations are done.");
  const noise = D.noise.map(([key, p]) => `${D.parameters.find(one => one.key === key).short} (p = ${show(p)})`);
  if (noise.length) add(box, "p", {}, `Not distinguishable from noise: ${noise.join(", ")}.`);
  if (!D.importance.length) return;
  const shorts = Object.fromEntries(D.parameters.map(parameter => [parameter.key, parameter.short]));
  const svg = canvas(box, 460, 28 * D.importance.length + 10);
  D.importance.forEach(([key, share], k) => {
    add(svg, "text", { class: "name", x: 138, y: 28 * k + 22, "text-anchor": "end" }, show(shorts[key]));
    add(svg, "rect", { class: "fill", x: 146, y: 28 * k + 10, width: Math.max(1, 250 * share), height: 16, rx: 2 });
    add(svg, "text", { x: 154 + 250 * share, y: 28 * k + 22 }, `${(100 * share).toFixed(0)}%`);
  });
}

function budget() {
  const box = document.getElementById("budget");
  if (D.metric === null) return box.remove();
  if (!D.best || D.best[0] < 2) return add(box, "p", {}, "Too few configurations are done.");
  const [n, best] = D.best;
  const y = scale("score", [best, ...D.expected.map(([, value]) => value)], 200, 30);
  const x = scale("score", D.expected.map(([k]) => k), 76, 320);
  const xs = x.ticks.filter(Number.isInteger).map(k => [x(k), show(k)]);
  const svg = frame(box, `best of ${n}: ${show(best)}`, xs, y.ticks.map(value => [y(value), show(value)]));
  add(svg, "line", { class: "level", x1: 64, x2: 332, y1: y(best), y2: y(best) });
  add(svg, "path", { class: "rise", d: "M" + D.expected.map(([k, value]) => `${x(k)},${y(value)}`).join("L") });
}

document.addEventListener("mouseover", event => {
  const c = event.target.closest("[data-c]")?.dataset.c;
  document.querySelectorAll(".hot").forEach(node => node.classList.remove("hot"));
  document.body.classList.toggle("focus", c !== undefined);
  if (c !== undefined) document.querySelectorAll(`[data-c="${c}"]`).forEach(node => node.classList.add("hot"));
});

for (const draw of [parallel, scatters, curves, importance, budget]) draw();
document.body.dataset.drawn = D.jobs.length;
