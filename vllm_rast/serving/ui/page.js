// The page: one question, answered by the base and by the mix at once.

import { ApiError, answer, baseView, draftCounts, engineConfig, firstModel } from "./api.js";
import { Tokens, fillLegend } from "./tokens.js";

// The base looks at prompt and answer again whenever they have doubled: all looks together read less than three times
// what there is in the end.
const FIRST_LOOK = 32;

const at = (id) => document.getElementById(id);
const panel = { section: at("inspector"), slider: at("token"), line: at("line"), body: at("table").tBodies[0] };
let model = null;
let speculates = false;
let tokens = new Tokens(at("mix"), panel);
let running = null;

const say = (text) => { at("status").textContent = text; };
const showError = (error) => {
  at("error").textContent = error instanceof ApiError ? error.message : `This page failed: ${error.message}`;
};

/** A slider for each pair; the page sends one number for one pair, and a list for several. */
function makeSliders(alphas) {
  at("alphas").replaceChildren(...alphas.map((value, i) => {
    const field = document.createElement("p");
    const label = document.createElement("label");
    const slider = document.createElement("input");
    const number = document.createElement("span");
    const id = `alpha-${i + 1}`;
    Object.assign(slider, { type: "range", id, min: 0, max: Math.max(2, value), step: 0.05, value });
    label.htmlFor = id;
    label.textContent = alphas.length > 1 ? `α of pair ${i + 1}` : "α (alpha)";
    number.ariaHidden = "true"; // the slider itself says its value
    const show = () => { number.textContent = Number(slider.value).toFixed(2); };
    slider.addEventListener("input", show);
    show();
    field.append(label, slider, number);
    field.className = "slider";
    return field;
  }));
}

/** What vLLM gets as alpha. A schedule travels as JSON text, which every version of the API's schema lets through. */
function readAlpha() {
  const values = [...at("alphas").querySelectorAll("input")].map((slider) => Number(slider.value));
  const alpha = values.length === 1 ? values[0] : values;
  const schedule = {};
  for (const bound of ["warmup", "until"]) if (at(bound).value !== "") schedule[bound] = Number(at(bound).value);
  return Object.keys(schedule).length ? JSON.stringify({ alpha, ...schedule }) : alpha;
}

function readSettings() {
  const settings = {
    model: model.id,
    mode: at("mode").value,
    prompt: at("prompt").value,
    temperature: Number(at("temperature").value),
    max_tokens: Number(at("max-tokens").value),
  };
  if (at("seed").value !== "") settings.seed = Number(at("seed").value);
  return settings;
}

/** Streams one answer into its half of the page; `take` gets every chunk. Stopping is no error. */
async function half(name, settings, alpha, options, take) {
  const started = performance.now();
  const note = at(`${name}-note`);
  note.textContent = "";
  at(name).setAttribute("aria-busy", "true");
  let finish = "stopped";
  let count = 0;
  try {
    for await (const chunk of answer(settings, alpha, options)) {
      take(chunk);
      if (chunk.finish) finish = chunk.finish === "length" ? "cut at max tokens" : "finished";
      if (chunk.usage) count = chunk.usage.completion_tokens;
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      finish = "failed";
      throw error;
    }
  } finally {
    at(name).removeAttribute("aria-busy");
    const tally = count ? `${count} tokens, ` : "";
    note.textContent = `${tally}${((performance.now() - started) / 1000).toFixed(1)} s, ${finish}`;
  }
}

/** The mix's half: its tokens, and the base's opinion of them while they arrive. */
async function mixHalf(settings, alpha, key, stop) {
  const mine = tokens;
  let promptIds = null;
  let looked = 0;
  let looking = null;
  async function look() {
    const from = looked;
    // The look itself makes one token more, which the context must hold.
    const ids = [...promptIds, ...mine.ids].slice(0, (model.max_model_len ?? Infinity) - 1);
    const views = await baseView(model.id, ids, promptIds.length + from, { key, signal: stop.looks.signal });
    mine.compare(from, views);
    looked = from + views.length;
  }
  await half("mix", settings, alpha, { key, signal: stop.streams.signal, withTokens: true }, (chunk) => {
    promptIds ??= chunk.promptIds;
    chunk.tokens.forEach((token, i) => mine.add(token, chunk.finish === "stop" && i === chunk.tokens.length - 1));
    const grown = mine.list.length - looked;
    if (!looking && promptIds && grown >= Math.max(FIRST_LOOK, promptIds.length + looked)) {
      looking = look().catch(() => {}).finally(() => { looking = null; }); // the last look tells what is wrong
    }
  });
  await looking;
  if (promptIds && looked < mine.list.length) {
    say("Comparing with the base…");
    await look();
  }
}

/** How many tokens a step made since `before`, of all requests that drafted: one, and the drafts that were kept. */
async function tellSteps(before, key) {
  const after = await draftCounts(key);
  const steps = after ? after.drafts - before.drafts : 0;
  if (steps <= 0) return;
  const perStep = 1 + (after.accepted - before.accepted) / steps;
  at("mix-note").append(`, ${perStep.toFixed(1)} tokens per step`);
}

async function run() {
  if (running) return;
  const stop = { streams: new AbortController(), looks: new AbortController() };
  const key = at("key").value;
  running = stop;
  at("error").textContent = "";
  at("run").disabled = true;
  at("stop").disabled = false;
  say("Answering…");
  try {
    if (!model) await findModel();
    const settings = readSettings();
    tokens = new Tokens(at("mix"), panel);
    at("base").textContent = "";
    const before = speculates ? await draftCounts(key) : null;
    const base = half("base", settings, "base", { key, signal: stop.streams.signal }, (chunk) => {
      at("base").append(chunk.text);
    });
    const mix = mixHalf(settings, readAlpha(), key, stop);
    const outcomes = await Promise.allSettled([base, mix]);
    if (before) await tellSteps(before, key);
    const failed = outcomes.find(({ status }) => status === "rejected");
    if (failed) throw failed.reason;
    const { moved, compared } = tokens.counts;
    const verdict = `The mix moved ${moved} of ${compared} tokens by 2× or more.`;
    say(`${stop.streams.signal.aborted ? "Stopped. " : ""}${compared ? verdict : ""}`);
  } catch (error) {
    say("");
    if (error.status === 401) askForKey();
    if (error.name !== "AbortError") showError(error);
  } finally {
    running = null;
    at("run").disabled = false;
    at("stop").disabled = true;
  }
}

/** The first stop ends both answers, what there is of the mix is still compared; the second ends that too. */
function stopRunning() {
  if (!running) return;
  if (running.streams.signal.aborted) running.looks.abort();
  running.streams.abort();
}

function askForKey() {
  at("key-field").hidden = false;
  at("key").required = true;
  at("key").focus();
}

async function findModel() {
  model = await firstModel(at("key").value);
  at("model").textContent = `${model.id}: base + α · (positive − negative)`;
}

async function start() {
  fillLegend(at("legend"));
  const config = await engineConfig();
  speculates = Boolean(config.speculate);
  makeSliders(config.alphas);
  try {
    await findModel();
  } catch (error) {
    if (error.status !== 401) throw error;
    askForKey();
    say("This server wants an API key.");
  }
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("stop").addEventListener("click", stopRunning);
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") stopRunning(); });
at("token").addEventListener("input", () => tokens.choose(Number(at("token").value) - 1));
for (const [id, step] of [["previous", -1], ["next", 1]]) {
  at(id).addEventListener("click", () => {
    say(tokens.jump(step) ? panel.line.textContent : "No further token was moved by 2× or more.");
  });
}
at("mix").addEventListener("click", (event) => {
  const { place } = event.target.dataset;
  if (place !== undefined) tokens.choose(Number(place));
});
start().catch(showError);
