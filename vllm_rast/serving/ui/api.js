// The server's own API. Addresses are relative, so that the page also works behind a proxy's path.

const ALTERNATIVES = 5;

/** An error that a person can read in one line. */
export class ApiError extends Error {
  constructor(message, status) {
    super(String(message).replace(/\s+/g, " ").trim().slice(0, 400));
    this.status = status;
  }
}

async function call(path, key, options = {}) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = text;
  try {
    const body = JSON.parse(text);
    message = body.error?.message ?? body.error ?? body.detail ?? text;
  } catch { /* a proxy's page: shown as it is */ }
  if (typeof message !== "string") message = JSON.stringify(message);
  throw new ApiError(`${response.status}: ${message || response.statusText}`, response.status);
}

/** The first model that the server lists: the mix. {id, max_model_len} */
export async function firstModel(key) {
  const { data } = await (await call("v1/models", key)).json();
  return data[0];
}

/** What the page is told of the engine: {alphas: the default of each pair, [pairs], speculate: 0 if nothing drafts}. */
export async function engineConfig() {
  return (await call("ui/config.json")).json();
}

/** The server's counters: {drafts: steps that verified some, accepted: drafts kept}; null if it does not show them. */
export async function draftCounts(key) {
  let text;
  try {
    text = await (await call("metrics", key)).text();
  } catch {
    return null;
  }
  const sum = (name) => {
    const samples = text.matchAll(new RegExp(`^vllm:spec_decode_num_${name}_total\\{.*\\} (\\S+)$`, "gm"));
    return [...samples].reduce((total, [, value]) => total + Number(value), 0);
  };
  return { drafts: sum("drafts"), accepted: sum("accepted_tokens") };
}

/** Yields one object per line of server-sent events, until [DONE]. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection to the server broke off.");
    }
    if (part.done) throw new ApiError("The server ended the answer early.");
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(event.error.message ?? event.error);
      yield event;
    }
  }
}

/** Cuts a chunk's text into its tokens' shares; what a parser held back or skipped goes to the last. */
function shareText(text, tokens) {
  let rest = text;
  for (const token of tokens) {
    token.text = rest.startsWith(token.name) ? token.name : "";
    rest = rest.slice(token.text.length);
  }
  if (tokens.length) tokens.at(-1).text += rest;
}

/** One chunk of either API as {text, tokens: [{id, name, text, logprob, top}], promptIds, finish, usage}. */
function readChunk(chunk) {
  const choice = chunk.choices[0] ?? {};
  const text = choice.text ?? choice.delta?.content ?? choice.delta?.reasoning ?? choice.delta?.reasoning_content ?? "";
  const logprobs = choice.logprobs;
  let tokens = [];
  if (logprobs?.content) {
    tokens = logprobs.content.map((entry) => ({
      name: entry.token,
      logprob: entry.logprob,
      top: new Map(entry.top_logprobs.map((other) => [other.token, other.logprob])),
    }));
  } else if (logprobs?.tokens) {
    tokens = logprobs.tokens.map((name, i) => ({
      name,
      logprob: logprobs.token_logprobs[i],
      top: new Map(Object.entries(logprobs.top_logprobs[i] ?? {})),
    }));
  }
  tokens.forEach((token, i) => { token.id = choice.token_ids?.[i]; });
  shareText(text, tokens);
  const promptIds = chunk.prompt_token_ids ?? choice.prompt_token_ids;
  return { text, tokens, promptIds, finish: choice.finish_reason, usage: chunk.usage };
}

/**
 * Streams one answer. settings: {model, mode: "chat" | "text", prompt, temperature, max_tokens, seed}.
 * withTokens asks for each token's id and log-probability under the model that answers.
 */
export async function* answer(settings, alpha, { key, signal, withTokens }) {
  const { mode, prompt, ...shared } = settings;
  const body = { ...shared, stream: true, stream_options: { include_usage: true }, vllm_xargs: { alpha } };
  if (mode === "chat") body.messages = [{ role: "user", content: prompt }];
  else body.prompt = prompt;
  if (withTokens) {
    body.return_token_ids = true;
    Object.assign(body, mode === "chat" ? { logprobs: true, top_logprobs: ALTERNATIVES } : { logprobs: ALTERNATIVES });
  }
  const path = mode === "chat" ? "v1/chat/completions" : "v1/completions";
  const response = await call(path, key, { method: "POST", body: JSON.stringify(body), signal });
  for await (const event of events(response)) yield readChunk(event);
}

/** What the base alone gives each id from place `from` on: [{logprob, top}], the text being its prompt. */
export async function baseView(model, ids, from, { key, signal }) {
  const body = {
    model, prompt: ids, max_tokens: 1, temperature: 0, prompt_logprobs: ALTERNATIVES, vllm_xargs: { alpha: "base" },
  };
  const response = await call("v1/completions", key, { method: "POST", body: JSON.stringify(body), signal });
  const [choice] = (await response.json()).choices;
  return choice.prompt_logprobs.slice(from).map((row, i) => ({
    logprob: row[ids[from + i]].logprob,
    top: new Map(Object.values(row).map((entry) => [entry.decoded_token, entry.logprob])),
  }));
}
