// The mix's tokens: how far each was moved, how that looks, and the panel that tells it in numbers.

// Ratios of the two probabilities; below the first a token counts as unmoved.
const STEPS = [1.25, 2, 10];
const MOVED = 2; // the level, of 0 to 3, from which on a token counts as moved: a ratio of 2
const LONGEST_TABLE = 6;

const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};

/** From the difference of two log-probabilities in nats: {level: 0 to 3, side: "raised" | "lowered"}. */
function movement(nats) {
  const level = STEPS.filter((ratio) => Math.abs(nats) >= Math.log(ratio)).length;
  return { level, side: nats >= 0 ? "raised" : "lowered" };
}

const styleOf = ({ level, side }) => (level ? `${side} level${level}` : "same");

function percent(logprob) {
  if (logprob === undefined) return "–";
  const value = 100 * Math.exp(logprob);
  if (value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value < 1 ? 2 : 1)} %`;
}

function times(nats) {
  const ratio = Math.exp(Math.abs(nats));
  return ratio > 1000 ? "over 1000×" : `${ratio.toFixed(ratio < 10 ? 1 : 0)}×`;
}

const visible = (name) => `“${name.replaceAll("\n", "⏎").replaceAll("\t", "⇥")}”`;

function describe(token) {
  if (!token.base) return `${visible(token.name)}: mix ${percent(token.logprob)}, base not compared`;
  const nats = token.logprob - token.base.logprob;
  const { level, side } = movement(nats);
  const verdict = level ? `${side} ${times(nats)}` : "about the same";
  return `${visible(token.name)}: base ${percent(token.base.logprob)}, mix ${percent(token.logprob)}, ${verdict}`;
}

export function fillLegend(legend) {
  const names = [`${STEPS[0]} to ${STEPS[1]}×`, `${STEPS[1]} to ${STEPS[2]}×`, `over ${STEPS[2]}×`];
  const entry = (name, style) => make("span", name, `token ${style}`);
  legend.append("Against the base ", make("strong", "likelier"), ": ");
  names.forEach((name, i) => legend.append(entry(name, `raised level${i + 1}`), " "));
  legend.append(make("strong", "less likely"), ": ");
  names.forEach((name, i) => legend.append(entry(name, `lowered level${i + 1}`), " "));
  legend.append("unmarked: about the same");
}

/** The tokens of one answer, shown in `answer` and looked into with `panel`. */
export class Tokens {
  constructor(answer, panel) {
    this.list = [];
    this.answer = answer;
    this.panel = panel;
    this.chosen = 0;
    answer.replaceChildren();
    panel.section.hidden = true;
  }

  get ids() { return this.list.map((token) => token.id); }

  add(token, ended) {
    const end = ended && token.text === "";
    token.span = make("span", end ? "end" : token.text, end ? "token end" : "token");
    token.span.dataset.place = this.list.length;
    this.list.push(token);
    this.answer.append(token.span);
    this.panel.section.hidden = false;
    this.panel.slider.max = this.list.length;
    if (this.list.length === 1) this.show();
  }

  /** The base's view of the tokens from `place` on, as `baseView` gives it. */
  compare(place, views) {
    views.forEach((view, i) => {
      const token = this.list[place + i];
      token.base = view;
      token.span.className += ` ${styleOf(movement(token.logprob - view.logprob))}`;
      token.span.title = describe(token);
    });
    this.show();
  }

  /** How many tokens the mix moved by a ratio of at least 2, and of how many compared. */
  get counts() {
    const compared = this.list.filter((token) => token.base);
    const moved = compared.filter((token) => movement(token.logprob - token.base.logprob).level >= MOVED);
    return { moved: moved.length, compared: compared.length };
  }

  choose(place) {
    this.list[this.chosen].span.classList.remove("chosen");
    this.chosen = place;
    this.show();
    this.list[place].span.scrollIntoView({ block: "nearest" });
  }

  /** Writes the chosen token into the panel. */
  show() {
    const token = this.list[this.chosen];
    token.span.classList.add("chosen");
    const { slider, line, body } = this.panel;
    slider.value = this.chosen + 1;
    line.textContent = `${this.chosen + 1} of ${this.list.length}: ${describe(token)}`;
    slider.setAttribute("aria-valuetext", line.textContent);
    body.replaceChildren(...this.rows(token));
  }

  rows(token) {
    const base = token.base?.top ?? new Map();
    const names = [...new Set([...token.top.keys(), ...base.keys()])];
    const larger = (name) => Math.max(token.top.get(name) ?? -Infinity, base.get(name) ?? -Infinity);
    names.sort((a, b) => larger(b) - larger(a));
    return names.slice(0, LONGEST_TABLE).map((name) => {
      const row = make("tr");
      const head = make("th", visible(name));
      head.scope = "row";
      if (name === token.name) head.append(make("small", " chosen"));
      row.append(head, make("td", percent(base.get(name))), make("td", percent(token.top.get(name))));
      return row;
    });
  }

  /** Moves to the next (step 1) or previous (step -1) token that the mix moved; false if there is none. */
  jump(step) {
    for (let place = this.chosen + step; place >= 0 && place < this.list.length; place += step) {
      const token = this.list[place];
      if (token.base && movement(token.logprob - token.base.logprob).level >= MOVED) {
        this.choose(place);
        return true;
      }
    }
    return false;
  }
}
