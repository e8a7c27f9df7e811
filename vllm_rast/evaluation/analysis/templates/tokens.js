"use strict";
// Everything that comes from a model enters the page as text (textContent), never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const MOVED = 0.1; // nats of js_mix_base
const ORDERS = [["given", "as in the benchmark"], ["first", "only the first row is right"], ["second", "only the second row is right"]];
// What colours the tokens: name, the number of a token, and what is a full colour; negative numbers have the other one.
const COLOURS = [
  ["moved: log p of mix − base", (t, i) => t.mix_logprob[i] - t.base_logprob[i], 2],
  ["KL(mix, base)", (t, i) => t.kl_mix_base[i], 1],
  ["JS(mix, base)", (t, i) => t.js_mix_base[i], 0.3],
  ["entropy of the base", (t, i) => t.base_entropy[i], 2],
  ["entropy of the mix", (t, i) => t.mix_entropy[i], 2],
  ["surprise of the base", (t, i) => -t.base_logprob[i], 4],
  ["surprise of the mix", (t, i) => -t.mix_logprob[i], 4],
  ["delta: positive − negative", (t, i) => t.delta[i], 4],
  ["cosine with the ceiling", (t, i) => t.delta_cosine_ceiling[i], 1],
  ["JS(ceiling, base)", (t, i) => t.js_ceiling_base[i], 0.3],
].filter(([, of]) => { try { of(Object.fromEntries(D.numbers.map((name) => [name, [0]])), 0); return true; } catch { return false; } });

function make(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function fill(select, options, value) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, text })));
  if (options.some(([one]) => String(one) === String(value))) select.value = value;
}

const clipped = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);
const text = (id) => D.texts[id] ?? "";
const number = (value, name = "") => {
  const parts = D.scales[name] ?? 1000; // the page has no finer numbers, and none beyond 32,767 of them
  const beyond = Math.abs(value) * parts > 32766.5 ? (value > 0 ? "≥ " : "≤ ") : "";
  return Number.isNaN(value) ? "" : beyond + value.toFixed(Math.log10(parts)).replace("-", "−");
};
const TITLES = {
  kl_mix_base: "KL(mix, base), nats", js_mix_base: "JS(mix, base), nats", js_ceiling_base: "JS(ceiling, base), nats",
  tv_mix_base: "total variation of mix and base", implausible: "share of it outside the base's top 20",
  kl_positive_negative: "KL(positive, negative), nats", delta: "positive − negative, of this token", delta_size: "positive − negative, its size",
  delta_cosine_ceiling: "cosine with ceiling − base", delta_cosine_ceiling_centred: "the same, centred",
};

// ---- an answer's numbers, decoded when it is first looked at

const decoded = new Map();
async function traceOf(place) {
  if (!decoded.has(place)) decoded.set(place, await decode(D.answers[place]));
  return decoded.get(place);
}

async function decode(answer) {
  const bytes = Uint8Array.from(atob(answer.data), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  const buffer = await new Response(stream).arrayBuffer();
  const view = new DataView(buffer), n = answer.tokens, trace = { tokens: n };
  let at = 0;
  const read = (size, get) => { const some = Array.from({ length: n }, (_, i) => get(at + size * i)); at += size * n; return some; };
  const int32 = () => read(4, (place) => view.getInt32(place, true));
  const inParts = (scale) => (place) => { const value = view.getInt16(place, true); return value === -32768 ? NaN : value / scale; };
  trace.token = int32();
  for (const model of D.models) trace[`${model}_argmax`] = int32();
  for (const model of D.models) trace[`${model}_rank`] = read(2, (place) => view.getUint16(place, true));
  for (const name of D.numbers) trace[name] = read(2, inParts(D.scales[name]));
  return trace;
}

// ---- what is chosen

let shown = []; // {place, trace, spans, box} of the answers on the page
let active = 0; // which of them has the keyboard
let chosen = 0; // its token
let parts = -1; // where two answers part

const pick = (id) => ($(id).value === "" ? null : Number($(id).value));
const find = (question, row, sample) =>
  D.answers.findIndex((one) => one.question === question && one.row === row && one.sample === sample);

function rightIn(question, row) {
  const own = D.answers.filter((one) => one.question === question && one.row === row && one.right !== null);
  return own.length ? own.filter((one) => one.right).length / own.length : null;
}

function listQuestions() {
  const [first, second] = [pick("first"), pick("second") ?? pick("first")];
  const sign = { given: 0, first: 1, second: -1 }[$("order").value];
  const gain = (q) => sign * ((rightIn(q, first) ?? 0) - (rightIn(q, second) ?? 0));
  const order = D.questions.map((_, q) => q);
  if (sign) order.sort((a, b) => gain(b) - gain(a) || a - b);
  fill($("question"), order.map((q) => [q, clipped(`${D.questions[q][0]} ${D.questions[q][1]}: ${D.questions[q][2]}`, 90)]), $("question").value);
}

async function draw() {
  const question = pick("question");
  const samples = [...new Set(D.answers.filter((one) => one.question === question).map((one) => one.sample))].sort((a, b) => a - b);
  fill($("sample"), samples.map((sample) => [sample, String(sample)]), $("sample").value);
  const [, , asked, gold] = D.questions[question];
  $("asked").textContent = gold ? `${asked}\n\nGold: ${gold}` : asked;
  const places = [...new Set([pick("first"), pick("second")].filter((row) => row !== null))]
    .map((row) => find(question, row, pick("sample"))).filter((place) => place >= 0);
  const traces = await Promise.all(places.map(traceOf));
  parts = -1;
  if (traces.length === 2) {
    parts = traces[0].token.findIndex((id, i) => id !== traces[1].token[i]);
    if (parts < 0) parts = Math.min(...traces.map((trace) => trace.tokens));
  }
  shown = places.map((place, i) => answerOf(place, traces[i], i));
  $("answers").replaceChildren(...shown.map((one) => one.section));
  if (!shown.length) $("answers").replaceChildren(make("p", { class: "note", text: "This row has no answer to this question here." }));
  active = 0;
  choose(0, Math.max(0, Math.min(parts, (shown[0]?.trace.tokens ?? 1) - 1)), false);
  for (const one of shown) one.spans[Math.min(Math.max(parts, 0), one.spans.length - 1)]?.scrollIntoView({ block: "nearest" });
}

function answerOf(place, trace, which) {
  const answer = D.answers[place];
  const spans = trace.token.map((id, i) => make("span", { text: text(id), onclick: () => choose(which, i, true), onmouseenter: () => describe(which, i) }));
  spans.forEach((span, i) => {
    if (parts > 0 && i < parts) span.classList.add("shared");
    if (i === parts) span.classList.add("parts");
  });
  const title = `Answer of ${D.rows[answer.row]}`;
  const box = make("div", { class: "tokens", tabindex: "0", role: "group", "aria-label": `${title}, ${trace.tokens} tokens`,
    onkeydown: (event) => onKey(event, which), onfocus: () => { if (active !== which) choose(which, Math.min(chosen, trace.tokens - 1), false); } }, ...spans);
  const heading = make("h2", {}, `${title}, ${trace.tokens.toLocaleString("en")} tokens `);
  if (answer.right !== null) heading.append(make("span", { class: answer.right ? "right" : "wrong", text: answer.right ? "✓ right" : "✗ wrong" }));
  const one = { place, trace, spans, box, section: make("section", {}, heading, box) };
  paint(one);
  return one;
}

function paint(one) {
  const [, of, full] = COLOURS[pick("colour")];
  one.spans.forEach((span, i) => {
    const value = of(one.trace, i), strength = Math.min(1, Math.abs(value) / full);
    span.style.backgroundColor = strength > 0.02 ? `rgba(var(--${value > 0 ? "up" : "down"}), ${(0.75 * strength).toFixed(2)})` : "";
  });
}

function choose(which, i, focus) {
  shown[active]?.spans[chosen]?.classList.remove("chosen");
  active = which;
  chosen = i;
  const one = shown[which];
  if (!one) { $("details").replaceChildren(); return; }
  one.spans[i].classList.add("chosen");
  if (focus) { one.box.focus({ preventScroll: true }); one.spans[i].scrollIntoView({ block: "nearest" }); }
  describe(which, i);
}

// ---- one token

function describe(which, i) {
  const { trace } = shown[which];
  const rows = D.models.map((model) => make("tr", {},
    make("th", { scope: "row", text: model }),
    make("td", { text: number(Math.exp(trace[`${model}_logprob`][i])) }),
    make("td", { text: number(trace[`${model}_logprob`][i]) }),
    make("td", { text: trace[`${model}_rank`][i].toLocaleString("en") }),
    make("td", { text: number(trace[`${model}_entropy`][i]) }),
    make("td", { text: JSON.stringify(text(trace[`${model}_argmax`][i])) })));
  const head = ["", "p", "log p", "rank", "entropy", "likeliest"].map((name) => make("th", { scope: "col", text: name }));
  const others = D.numbers.filter((name) => !/_(logprob|entropy)$/.test(name));
  $("details").replaceChildren(
    make("h2", { text: `${JSON.stringify(text(trace.token[i]))}, token ${i + 1} of ${trace.tokens}` }),
    make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)),
    make("table", { class: "others" }, make("tbody", {}, ...others.map((name) => make("tr", {},
      make("th", { scope: "row", text: TITLES[name] ?? name }), make("td", { text: number(trace[name][i], name) }))))));
}

// ---- keys

function nextMoved(trace, from, step) {
  for (let i = from + step; i >= 0 && i < trace.tokens; i += step) if (trace.js_mix_base[i] > MOVED) return i;
  return from;
}

function onKey(event, which) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { trace } = shown[which], last = trace.tokens - 1;
  const at = active === which ? chosen : 0;
  const to = {
    ArrowRight: () => Math.min(at + 1, last), ArrowLeft: () => Math.max(at - 1, 0), Home: () => 0, End: () => last,
    n: () => nextMoved(trace, at, 1), p: () => nextMoved(trace, at, -1), d: () => (parts < 0 ? at : Math.min(parts, last)),
  }[event.key];
  if (to) choose(which, to(), true);
  else if (event.key === "o" && shown.length > 1) choose(1 - which, Math.min(at, shown[1 - which].trace.tokens - 1), true);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", (event) => {
  if (!["[", "]"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  const select = $("question"), to = select.selectedIndex + (event.key === "]" ? 1 : -1);
  if (to >= 0 && to < select.options.length) { select.selectedIndex = to; draw().then(() => shown[0]?.box.focus()); }
});

// ---- begin

const base = Math.max(0, D.rows.indexOf("base")), mix = D.rows.indexOf("rast");
fill($("first"), D.rows.map((name, row) => [row, name]), mix >= 0 ? mix : 0);
fill($("second"), [["", "nothing"], ...D.rows.map((name, row) => [row, name])], D.rows.length > 1 ? base : "");
fill($("order"), ORDERS, "given");
fill($("colour"), COLOURS.map(([name], i) => [i, name]), 0);
listQuestions();
if (D.left_out) $("asked").before(make("p", { class: "note", text: `${D.left_out.toLocaleString("en")} answers are left out of this page.` }));
for (const id of ["first", "second", "order"]) $(id).addEventListener("change", () => { listQuestions(); draw(); });
for (const id of ["question", "sample"]) $(id).addEventListener("change", draw);
$("colour").addEventListener("change", () => shown.forEach(paint));
$("choices").addEventListener("submit", (event) => event.preventDefault());
if (D.questions.length) draw();
