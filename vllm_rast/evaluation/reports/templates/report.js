"use strict";
// Everything that comes from a model enters the page as text (textContent), never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const OUTCOMES = [["wrong", "Wrong"], ["none", "Unanswered"], ["fault", "Timed out or failed"], ["cut", "Cut off"]];
const MARKS = { right: "✓ right", wrong: "✗ wrong", none: "∅ none", fault: "! fault" };
const ORDERS = [["given", "as in the benchmark"], ["hardest", "hardest first"], ["easiest", "easiest first"]];
const HEIGHT = 26 + 14 * Math.max(1, D.rows.length); // pixels of a problem in the list

// Samples stand sorted by problem, row and number; D.starts[p] is the first sample of problem p.
const S = D.samples;
const outcome = S.correct.map((right, i) => {
  const status = D.statuses[S.status[i]];
  return right ? "right" : status === "no_answer" ? "none" : status === "timeout" || status === "error" ? "fault" : "wrong";
});
const has = (i, what) => (what === "cut" ? D.reasons[S.reason[i]] === "length" : outcome[i] === what);
const tally = D.problems.map((_, p) => {
  const rows = D.rows.map(() => ({ n: 0, right: 0, wrong: 0, none: 0, fault: 0 }));
  for (let i = D.starts[p]; i < D.starts[p + 1]; i++) { rows[S.row[i]].n++; rows[S.row[i]][outcome[i]]++; }
  return rows;
});
const solved = (p, row) => tally[p][row].n > 0 && 2 * tally[p][row].right >= tally[p][row].n;
const missed = (p, row) => tally[p][row].n > 0 && !solved(p, row);
const difficulty = tally.map((rows) => {
  const shares = rows.filter((row) => row.n).map((row) => row.right / row.n);
  return shares.reduce((a, b) => a + b, 0) / Math.max(1, shares.length);
});

let shown = []; // problems that pass the filters
let chosen = -1; // place in `shown`
let pressed = new Set();
let everything = false; // show the samples a filter hides

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") node.textContent = value;
    else if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const clipped = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

function fill(select, options) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
}

// ---- filters

const pick = (id) => ($(id).value === "" ? null : Number($(id).value));

const searchable = new Map();
function textOf(p) {
  if (!searchable.has(p)) {
    const [, id, family, question, gold] = D.problems[p];
    const parts = [id, family || "", question, gold];
    for (let i = D.starts[p]; i < D.starts[p + 1]; i++) parts.push(S.answer[i] || "", S.text[i]);
    searchable.set(p, parts.join("\n").toLowerCase());
  }
  return searchable.get(p);
}

function matches(i, row) {
  return (row === null || S.row[i] === row) && (pressed.size === 0 || [...pressed].some((what) => has(i, what)));
}

function filter() {
  const [benchmark, row, wrongIn, rightIn] = ["benchmark", "row", "wrong-in", "right-in"].map(pick);
  const family = $("family").value;
  const query = $("search").value.trim().toLowerCase();
  const before = shown[chosen];
  let samples = 0;
  shown = [];
  for (let p = 0; p < D.problems.length; p++) {
    if (benchmark !== null && D.problems[p][0] !== benchmark) continue;
    if (family && D.problems[p][2] !== family) continue;
    if (wrongIn !== null && !missed(p, wrongIn)) continue;
    if (rightIn !== null && !solved(p, rightIn)) continue;
    let hits = 0;
    for (let i = D.starts[p]; i < D.starts[p + 1]; i++) hits += matches(i, row);
    if (!hits || (query && !textOf(p).includes(query))) continue;
    samples += hits;
    shown.push(p);
  }
  const order = $("order").value;
  const gain = (p) => { const [a, b] = D.compared.map((r) => tally[p][r]); return b.right / (b.n || 1) - a.right / (a.n || 1); };
  if (order === "hardest") shown.sort((a, b) => difficulty[a] - difficulty[b]);
  if (order === "easiest") shown.sort((a, b) => difficulty[b] - difficulty[a]);
  if (order === "gain") shown.sort((a, b) => gain(b) - gain(a));
  const numbers = [shown.length, D.problems.length, samples, S.text.length].map((n) => n.toLocaleString("en"));
  $("count").textContent = `${numbers[0]} of ${numbers[1]} problems, ${numbers[2]} of ${numbers[3]} samples`;
  $("gained").setAttribute("aria-pressed", String(D.compared && wrongIn === D.compared[0] && rightIn === D.compared[1]));
  everything = false;
  chosen = Math.max(shown.indexOf(before), shown.length ? 0 : -1);
  $("spacer").style.height = `${shown.length * HEIGHT}px`;
  if (chosen <= 0) $("list").scrollTop = 0;
  drawList();
  drawDetail();
}

function press(what) {
  if (!pressed.delete(what)) pressed.add(what);
  drawOutcomes();
  filter();
}

function drawOutcomes() {
  $("outcomes").replaceChildren(...OUTCOMES.map(([what, text]) =>
    make("button", { type: "button", text, "aria-pressed": pressed.has(what), "data-outcome": what, onclick: () => press(what) })));
}

// ---- the list: only what can be seen is in the document

let queued = false;
function drawListSoon() {
  if (!queued) { queued = true; requestAnimationFrame(() => { queued = false; drawList(); }); }
}

function drawList() {
  const list = $("list");
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 5);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + 5);
  const items = [];
  for (let at = first; at < last; at++) items.push(listItem(at));
  list.replaceChildren($("spacer"), ...items);
  if (chosen >= 0) list.setAttribute("aria-activedescendant", `problem-${shown[chosen]}`);
  else list.removeAttribute("aria-activedescendant");
}

function listItem(at) {
  const p = shown[at];
  const [benchmark, id, family, question] = D.problems[p];
  const bars = D.rows.flatMap((name, row) => {
    const t = tally[p][row];
    const bar = make("span", { class: "bar" }, ...["right", "wrong", "none", "fault"].map((what) =>
      make("i", { class: what, style: `flex:${t[what]}` })));
    return [make("span", { text: name }), bar, make("span", { text: t.n ? `${t.right}/${t.n}` : "" })];
  });
  const item = make("div", { class: "item", role: "option", id: `problem-${p}`, "aria-selected": at === chosen,
    "aria-setsize": shown.length, "aria-posinset": at + 1, onclick: () => choose(at) },
    make("div", {}, make("div", { class: "title", text: clipped(question, 200) }),
      make("div", { class: "id", text: [D.benchmarks[benchmark], id, family].filter(Boolean).join(" · ") })),
    make("div", { class: "bars" }, ...bars));
  item.style.top = `${at * HEIGHT}px`;
  item.style.height = `${HEIGHT}px`;
  return item;
}

function choose(at) {
  if (!shown.length) return;
  chosen = Math.min(Math.max(at, 0), shown.length - 1);
  const list = $("list");
  const top = chosen * HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  everything = false;
  drawList();
  drawDetail();
  const [benchmark, id] = D.problems[shown[chosen]];
  history.replaceState(null, "", `#${encodeURIComponent(D.benchmarks[benchmark])}/${encodeURIComponent(id)}`);
}

// ---- one problem

function marked(text) {
  const query = $("search").value.trim().toLowerCase();
  const low = text.toLowerCase();
  if (!query || low.length !== text.length) return [text];
  const parts = [];
  let from = 0;
  for (let at = low.indexOf(query); at >= 0; at = low.indexOf(query, from)) {
    parts.push(text.slice(from, at), make("mark", { text: text.slice(at, at + query.length) }));
    from = at + query.length;
  }
  return [...parts, text.slice(from)];
}

function drawDetail() {
  const detail = $("detail");
  detail.scrollTop = 0;
  if (chosen < 0) {
    detail.replaceChildren(make("p", { class: "note", text: "No problem passes these filters." }));
    return;
  }
  const p = shown[chosen];
  const [benchmark, id, family, question, gold] = D.problems[p];
  const row = pick("row");
  const all = [];
  for (let i = D.starts[p]; i < D.starts[p + 1]; i++) all.push(i);
  const visible = everything ? all : all.filter((i) => matches(i, row));
  detail.replaceChildren(
    make("h3", { text: [D.benchmarks[benchmark], id, family].filter(Boolean).join(" · ") }),
    make("p", { class: "question" }, ...marked(question)),
    make("p", {}, "Gold: ", make("strong", {}, ...marked(gold))),
    votes(p, all),
    tools(visible, all),
    ...visible.map((i) => sampleNode(i, visible.length <= 2)));
}

function tools(visible, all) {
  const bar = make("div", { class: "tools" }, make("span", { text: `${visible.length} of ${all.length} samples` }),
    make("button", { type: "button", text: "Open all", onclick: () => openAll(true) }),
    make("button", { type: "button", text: "Close all", onclick: () => openAll(false) }));
  if (visible.length < all.length) {
    bar.append(make("button", { type: "button", id: "show-all", text: "Show the others too", onclick: () => { everything = true; drawDetail(); } }));
  }
  return bar;
}

function votes(p, all) {
  const body = D.rows.map((name, row) => {
    const answers = new Map();
    for (const i of all) {
      if (S.row[i] !== row) continue;
      const answer = S.answer[i] === null ? "no answer" : S.answer[i];
      const entry = answers.get(answer) || { count: 0, outcome: outcome[i] };
      entry.count++;
      answers.set(answer, entry);
    }
    const sorted = [...answers].sort((a, b) => b[1].count - a[1].count);
    const cells = sorted.slice(0, 8).map(([answer, entry]) =>
      make("span", { class: entry.outcome }, `${clipped(answer, 80)} ×${entry.count}${entry.outcome === "right" ? " ✓" : ""}`));
    if (sorted.length > 8) cells.push(make("span", { text: `and ${sorted.length - 8} more answers` }));
    return cells.length ? make("tr", {}, make("th", { scope: "row", text: name }), make("td", {}, ...cells)) : "";
  });
  return make("table", { class: "votes" }, make("tbody", {}, ...body));
}

function sampleNode(i, open) {
  const reason = D.reasons[S.reason[i]];
  const status = D.statuses[S.status[i]];
  const verdict = { right: "equals the gold", wrong: "differs from the gold", none: "", fault: status }[outcome[i]];
  const why = [D.hows[S.how[i]], verdict].filter(Boolean).join(": ");
  const size = [`${S.tokens[i]} tokens`, reason === "length" ? "cut off" : ""].filter(Boolean).join(", ");
  const node = make("details", { class: outcome[i] },
    make("summary", {},
      make("span", { class: "mark", text: MARKS[outcome[i]] }),
      make("span", { text: `${D.rows[S.row[i]]} #${S.number[i]}` }),
      make("span", {}, ...marked(S.answer[i] === null ? "no answer" : clipped(S.answer[i], 200))),
      make("span", { class: "why", text: why }),
      make("span", { class: "size", text: size })));
  // The output enters the document when it is first opened.
  node.addEventListener("toggle", () => {
    if (node.open && node.childElementCount === 1) node.append(make("pre", {}, ...marked(S.text[i])));
  });
  if (open) { node.append(make("pre", {}, ...marked(S.text[i]))); node.open = true; }
  return node;
}

function openAll(open) {
  for (const node of $("detail").querySelectorAll("details")) node.open = open;
}

// ---- curves

const colour = (name) => {
  const known = ["base", "positive", "rast", "ceiling"];
  if (known.includes(name)) return `var(--${name})`;
  return `var(--other-${D.rows.filter((row) => !known.includes(row)).indexOf(name) % 6})`;
};

function drawCurves() {
  for (const [benchmark, metrics] of Object.entries(D.curves)) {
    for (const [metric, rows] of Object.entries(metrics)) {
      const caption = `${metric}, ${benchmark}`;
      $("curves").append(make("figure", {}, make("figcaption", { text: caption }), plot(rows, caption)));
    }
  }
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function plot(rows, label) {
  const [width, height, left, right, top, bottom] = [420, 260, 34, 96, 8, 26];
  const points = Object.values(rows).flat();
  const most = Math.max(2, ...points.map(([k]) => k));
  const low = Math.floor(10 * Math.min(...points.map(([, , a]) => a))) / 10;
  const high = Math.min(1, Math.ceil(10 * Math.max(...points.map(([, , , b]) => b))) / 10);
  const x = (k) => left + (Math.log2(k) / Math.log2(most)) * (width - left - right);
  const y = (v) => top + ((high - v) / (high - low || 1)) * (height - top - bottom);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const step = high - low > 0.5 ? 2 : 1; // in tenths
  for (let v = step * Math.ceil((10 * low) / step - 1e-6); v <= 10 * high + 1e-6; v += step) {
    node.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(v / 10), y2: y(v / 10) }));
    node.append(svg("text", { x: left - 5, y: y(v / 10) + 4, "text-anchor": "end" }, String(10 * v)));
  }
  for (let k = 1; k <= most; k *= 2) node.append(svg("text", { x: x(k), y: height - 8, "text-anchor": "middle" }, String(k)));
  const ends = [];
  for (const [name, curve] of Object.entries(rows)) {
    const band = [...curve.map(([k, , a]) => [k, a]), ...[...curve].reverse().map(([k, , , b]) => [k, b])];
    node.append(svg("polygon", { points: band.map(([k, v]) => `${x(k)},${y(v)}`).join(" "), fill: colour(name), opacity: 0.16 }));
    node.append(svg("polyline", { points: curve.map(([k, v]) => `${x(k)},${y(v)}`).join(" "), fill: "none", stroke: colour(name), "stroke-width": 2 }));
    const [, value] = curve[curve.length - 1];
    ends.push({ name, value, at: y(value) });
  }
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((end, i) => { if (i) end.at = Math.max(end.at, ends[i - 1].at + 13); });
  for (let i = ends.length - 1, floor = height - bottom; i >= 0; i--, floor -= 13) ends[i].at = Math.min(ends[i].at, floor);
  for (const { name, value, at } of ends) {
    const text = svg("text", { x: width - right + 6, y: at + 4 }, `${name} ${(100 * value).toFixed(0)}`);
    text.style.fill = colour(name);
    node.append(text);
  }
  return node;
}

// ---- setting up

function setUp() {
  const any = [["", "all"]];
  const rows = D.rows.map((name, i) => [i, name]);
  const families = [...new Set(D.problems.map(([, , family]) => family))].filter(Boolean).sort();
  fill($("benchmark"), [...any, ...D.benchmarks.map((name, i) => [i, name])]);
  fill($("family"), [...any, ...families.map((name) => [name, name])]);
  fill($("row"), [...any, ...rows]);
  fill($("wrong-in"), [["", "any"], ...rows]);
  fill($("right-in"), [["", "any"], ...rows]);
  fill($("order"), D.compared ? [...ORDERS, ["gain", `${D.rows[D.compared[1]]} gains most over ${D.rows[D.compared[0]]}`]] : ORDERS);
  $("benchmark").parentElement.hidden = D.benchmarks.length < 2;
  $("family").parentElement.hidden = families.length < 2;
  $("gained").hidden = !D.compared;
  if (D.compared) $("gained").textContent = `${D.rows[D.compared[0]]} wrong, ${D.rows[D.compared[1]]} right`;
  drawOutcomes();
  listen();
  drawCurves();
  filter();
  const wanted = location.hash.slice(1).split("/").map(decodeURIComponent);
  const at = shown.findIndex((p) => D.benchmarks[D.problems[p][0]] === wanted[0] && D.problems[p][1] === wanted[1]);
  if (at >= 0) { choose(at); $("browser").scrollIntoView(); }
}

function listen() {
  let timer;
  $("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filter, 150); });
  for (const id of ["benchmark", "family", "row", "wrong-in", "right-in", "order"]) $(id).addEventListener("change", filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("reset", () => { pressed = new Set(); drawOutcomes(); setTimeout(filter); });
  $("gained").addEventListener("click", () => {
    const on = $("gained").getAttribute("aria-pressed") !== "true";
    $("wrong-in").value = on ? D.compared[0] : "";
    $("right-in").value = on ? D.compared[1] : "";
    filter();
  });
  $("list").addEventListener("scroll", drawListSoon);
  addEventListener("resize", drawListSoon);
  addEventListener("keydown", onKey);
}

function onKey(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && target !== document.body) { $("list").focus(); return; }
  if (target.matches("input, select, textarea")) return;
  const page = Math.max(1, Math.floor($("list").clientHeight / HEIGHT) - 1);
  const steps = { j: 1, k: -1, ...(target === $("list") ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 } : {}) };
  if (event.key in steps) choose(chosen + steps[event.key]);
  else if (event.key === "/") $("search").focus();
  else if (event.key === "Enter" && target === $("list")) $("detail").focus();
  else if (event.key === "e") openAll(!$("detail").querySelector("details[open]"));
  else return;
  event.preventDefault();
}

// The page of tokens that `analyze` made is a document of its own: it is laid out when it is asked for.
function openTokens() {
  const view = $("token-view");
  if (!view || view.firstChild) return;
  const frame = document.createElement("iframe");
  frame.title = "Every token of the answers that were read";
  frame.setAttribute("sandbox", "allow-scripts");
  frame.srcdoc = JSON.parse($("token-page").textContent);
  view.append(frame);
}

if ($("tokens")) $("tokens").addEventListener("toggle", openTokens);

setUp();
