"""The server's page in headless Chromium: against fixed answers for the details, and once against a real server."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import chromium
from fake_api import TOKENS, FakeApi, serve
from serving import Server

from vllm_rast import ModelPair, RastConfig

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -r requirements/dev.txt")
TINY = RastConfig.build("tiny:base", "tiny:positive", "tiny:negative", alpha=1.0)
expect = playwright.expect
expect.set_options(timeout=20_000)  # ms; a busy machine takes seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[FakeApi, str]]:
    fake = FakeApi()
    with serve(fake, TINY) as url:
        yield fake, url


@pytest.fixture
def fake(shared: tuple[FakeApi, str]) -> FakeApi:
    shared[0].reset()
    return shared[0]


@pytest.fixture
def url(shared: tuple[FakeApi, str], fake: FakeApi) -> str:
    return shared[1]


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page whose own errors, and whatever its content policy had to block, fail the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(20_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # A refused request is told to the console too; those are what some tests are about.
    page.on(
        "console", lambda m: m.type == "error" and "Failed to load resource" not in m.text and complaints.append(m.text)
    )
    yield page
    page.close()
    assert not complaints


def ask(page: Any, url: str, question: str = "What do two and two make?") -> None:
    page.goto(url)
    expect(page.locator("#model")).to_contain_text(": base")
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Answer").click()


def fetch(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=10)


# Files and headers


def test_the_page_is_made_of_files_of_this_server_alone(url: str) -> None:
    """Everything that the page names is served with its type and the policy; nothing else is."""
    document = fetch(url + "/").read().decode()
    named = set(re.findall(r'(?:href|src)="([^"]+)"', document))
    named |= {
        f"ui/{name}"
        for script in ("page", "api", "tokens")
        for name in re.findall(r'from "\./([^"]+)"', fetch(f"{url}/ui/{script}.js").read().decode())
    }
    assert named == {"ui/icon.svg", "ui/style.css", "ui/page.js", "ui/api.js", "ui/tokens.js"}
    for name in ["", *named, "ui/config.json"]:
        headers = fetch(f"{url}/{name}").headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert "<style" not in document and not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=", document)
    for name in ("ui/ui.py", "ui/../ui.py", "ui/%2e%2e/ui.py", "ui/", "ui/index.html"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"{url}/{name}")
    assert json.load(fetch(url + "/ui/config.json")) == {"alphas": [1.0], "speculate": 0}


# Asking


@pytest.mark.parametrize("mode", ["chat", "text"])
def test_both_answers_and_what_was_asked_for(page: Any, url: str, fake: FakeApi, mode: str) -> None:
    page.goto(url)
    page.get_by_label("Send as").select_option(mode)
    page.get_by_label("Temperature").fill("0.25")
    page.get_by_label("Max tokens").fill("77")
    page.get_by_label("Seed").fill("5")
    page.get_by_label("Question", exact=True).fill("Sum?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_have_text("The mix moved 4 of 8 tokens by 2× or more.")
    assert page.locator("#base").text_content() == "Two and two are five"
    assert page.locator("#mix").text_content() == "Two and two make\n four<b>end"
    expect(page.locator("#mix-note")).to_contain_text("8 tokens")
    expect(page.locator("#error")).to_be_empty()
    *answers, look = fake.requests
    assert {answer["path"] for answer in answers} == {mode}
    assert sorted(str(answer["vllm_xargs"]["alpha"]) for answer in answers) == ["1", "base"]
    for answer in answers:
        assert (answer["temperature"], answer["max_tokens"], answer["seed"], answer["stream"]) == (0.25, 77, 5, True)
        assert (answer.get("prompt") or answer["messages"][0]["content"]) == "Sum?"
    assert look["vllm_xargs"] == {"alpha": "base"} and look["prompt"] == [11, 12, 13, *range(100, 108)]


def test_slider_and_focus_order_by_keyboard(page: Any, url: str, fake: FakeApi) -> None:
    page.goto(url)
    expect(page.locator("#model")).to_contain_text("mix-model")
    order = []
    for _ in range(9):
        page.keyboard.press("Tab")
        order.append(page.locator(":focus").get_attribute("id"))
    assert order == ["prompt", "alpha-1", "mode", "temperature", "max-tokens", "seed", "warmup", "until", "run"]
    slider = page.get_by_role("slider", name="α")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("0", "2")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    expect(page.locator(".slider span")).to_have_text("0.80")
    page.get_by_label("Question", exact=True).fill("Sum?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("moved")
    assert 0.8 in [request["vllm_xargs"]["alpha"] for request in fake.requests]
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".slider span")).to_have_text("0.00")
    page.keyboard.press("End")
    expect(page.locator(".slider span")).to_have_text("2.00")


def test_several_pairs_and_a_schedule(page: Any, fake: FakeApi) -> None:
    pairs = (ModelPair("tiny:positive", "tiny:negative", 0.5), ModelPair("tiny:ceiling", None, 3.0))
    with serve(fake, RastConfig("tiny:base", pairs)) as url:
        ask(page, url)
        expect(page.locator("#status")).to_contain_text("moved")
        page.get_by_label("Mix from token").fill("100")
        page.get_by_role("button", name="Answer").click()
        expect(page.locator("#stop")).to_be_disabled()
        expect(page.locator("#status")).to_contain_text("moved")
    alphas = [request["vllm_xargs"]["alpha"] for request in fake.requests]
    assert [0.5, 3] in alphas
    assert {"alpha": [0.5, 3], "warmup": 100} in [json.loads(a) for a in alphas if isinstance(a, str) and a[0] == "{"]


def test_tokens_per_step_where_something_drafts(page: Any, url: str, fake: FakeApi) -> None:
    speculating = RastConfig.build("tiny:base", "tiny:positive", "tiny:negative", speculate=3)
    with serve(fake, speculating) as address:
        for _ in range(2):
            ask(page, address)
            expect(page.locator("#mix-note")).to_contain_text("finished, 2.5 tokens per step")
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("moved")
    assert "per step" not in page.locator("#mix-note").text_content()


def test_a_prompt_without_words_asks_nothing(page: Any, url: str, fake: FakeApi) -> None:
    ask(page, url, "")
    assert page.locator("#prompt:invalid").count() == 1
    assert not fake.requests


# Tokens

LOOK = """e => {
  const style = getComputedStyle(e);
  const line = [style.textDecorationLine, style.textDecorationStyle, style.textDecorationThickness];
  return [style.backgroundColor, line.join(" ")];
}"""


@pytest.mark.parametrize("chunk", [1, 3, 8])
def test_tokens_are_marked_by_how_far_they_moved(page: Any, url: str, fake: FakeApi, chunk: int) -> None:
    """However the tokens fall into chunks. Colour and underline both tell, and every step looks different."""
    fake.chunk = chunk
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("4 of 8")
    tokens = page.locator("#mix .token")
    classes = [re.sub("token|chosen|end", "", tokens.nth(k).get_attribute("class")).split() for k in range(8)]
    raised, lowered = ["raised", "level{}"], ["lowered", "level{}"]
    expected = [["same"], raised, raised, raised, lowered, lowered, lowered, raised]
    levels = [0, 1, 2, 3, 1, 2, 3, 1]
    assert classes == [[name.format(k) for name in names] for names, k in zip(expected, levels, strict=True)]
    looks = {tuple(tokens.nth(k).evaluate(LOOK)) for k in range(7)}
    assert len(looks) == 7 and len({colour for colour, _ in looks}) == 7 and len({line for _, line in looks}) == 7
    expect(page.locator("#legend .token")).to_have_count(6)
    assert tokens.last.text_content() == "end"


def test_probabilities_are_reached_by_keyboard(page: Any, url: str) -> None:
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("4 of 8")
    slider = page.get_by_role("slider", name="Token")
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    told = "4 of 8: “ make”: base 0.30 %, mix 60.0 %, raised 200×"
    assert slider.get_attribute("aria-valuetext") == told
    assert page.locator("#line").text_content() == told
    assert page.locator("#mix .chosen").text_content() == " make"
    table = [row.inner_text().split("\t") for row in page.locator("tbody tr").all()]
    assert [[cell.strip() for cell in row] for row in table] == [
        ["“ make” chosen", "0.30 %", "60.0 %"],
        ["“ other”", "–", "40.0 %"],
        ["“ masked”", "< 0.01 %", "–"],
    ]
    following = page.get_by_role("button", name="Next moved")
    following.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("“ four”: base 30.0 %, mix 10.0 %, lowered 3.0×")
    for _ in range(2):
        page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("No further token was moved by 2× or more.")
    page.locator("#mix .token").nth(2).click()
    assert page.locator("#line").text_content().startswith("3 of 8")
    assert page.locator("#mix .token").nth(2).get_attribute("title").endswith("raised 4.0×")


def test_a_full_context_leaves_the_last_token_uncompared(page: Any, url: str, fake: FakeApi) -> None:
    """Comparing decodes one token more than there are, so all but the last one are sent."""
    fake.max_model_len = 3 + len(TOKENS)
    ask(page, url)
    expect(page.locator("#status")).to_have_text("The mix moved 4 of 7 tokens by 2× or more.")
    assert len(fake.requests[-1]["prompt"]) + fake.requests[-1]["max_tokens"] == fake.max_model_len


def test_a_long_answer_is_compared_while_it_streams(page: Any, url: str, fake: FakeApi) -> None:
    """After 32 tokens, and again whenever the text has doubled: few looks, each from where the last one ended."""
    fake.tokens = TOKENS[:-1] * 20 + TOKENS[-1:]
    fake.max_model_len, fake.pause_s = 4096, 0.005
    ask(page, url)
    expect(page.locator("#status")).to_have_text("The mix moved 80 of 141 tokens by 2× or more.")
    assert page.locator("#mix .token.same").count() == 20
    looks = [len(asked["prompt"]) - 3 for asked in fake.requests if "prompt_logprobs" in asked]
    assert looks[0] >= 32 and looks[-1] == 141 and 2 <= len(looks) <= 4


def test_what_a_model_writes_is_text(page: Any, url: str) -> None:
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("moved")
    assert page.locator("#mix b, #inspector b").count() == 0


# Errors, keys and stopping


def test_errors_fill_one_line_and_the_page_lives_on(page: Any, url: str, fake: FakeApi) -> None:
    fake.refusal = "alpha: 3 values\n for 1 pairs"
    ask(page, url)
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("400: alpha: 3 values for 1 pairs")
    fake.refusal, fake.break_off = None, True
    page.get_by_role("button", name="Answer").click()
    expect(alert).to_have_text("The server ended the answer early.")
    fake.break_off = False
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#status")).to_contain_text("moved")
    expect(alert).to_be_empty()


def test_a_server_that_is_gone(page: Any, fake: FakeApi) -> None:
    with serve(fake, TINY) as url:
        page.goto(url)
        expect(page.locator("#model")).to_contain_text("mix-model")
    page.get_by_label("Question", exact=True).fill("Anybody?")
    page.get_by_role("button", name="Answer").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not answer.")


def test_the_key_is_asked_for_and_kept_nowhere(page: Any, url: str, fake: FakeApi) -> None:
    fake.key = "s3cret"
    page.goto(url)
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    assert key.get_attribute("type") == "password" and key.get_attribute("autocomplete") == "off"
    key.fill("wrong")
    page.get_by_label("Question", exact=True).fill("Sum?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("alert")).to_have_text("401: Unauthorized")
    key.fill("s3cret")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#status")).to_contain_text("moved")
    expect(page.locator("#model")).to_contain_text("mix-model")
    kept = page.evaluate("() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
    assert "s3cret" not in kept


def test_no_key_field_where_none_is_wanted(page: Any, url: str) -> None:
    page.goto(url)
    expect(page.locator("#model")).to_contain_text("mix-model")
    expect(page.get_by_label("API key")).to_be_hidden()


@pytest.mark.parametrize("by_key", [True, False])
def test_stopping_ends_both_streams_and_still_compares(page: Any, url: str, fake: FakeApi, by_key: bool) -> None:
    fake.pause_s = 1.0  # eight seconds for all tokens
    ask(page, url)
    expect(page.locator("#mix")).to_contain_text("Two and")
    if by_key:
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop").click()
    expect(page.locator("#status")).to_contain_text("Stopped. The mix moved")
    expect(page.locator("#mix-note")).to_contain_text("stopped")
    expect(page.get_by_role("alert")).to_be_empty()
    assert page.locator("#mix .end").count() == 0
    deadline = time.monotonic() + 10
    while len(fake.disconnects) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert len(fake.disconnects) == 2


# Eyes and ears

# Of every element with text of its own: the contrast of its colour with what is painted behind it (WCAG 2.2, 1.4.3).
CONTRASTS = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const own = (e) => e.value || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const seen = [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && !e.disabled && own(e));
  return seen.map((e) => {
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
    return [e.id || e.className || e.tagName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page: Any, url: str, fake: FakeApi, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("moved")
    page.evaluate("() => { document.getElementById('error').textContent = 'An error.'; }")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert {name: ratio for name, ratio in contrasts if ratio < 4.5} == {}
    (background,) = {page.evaluate("() => getComputedStyle(document.body).backgroundColor")}
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_names_roles_and_live_regions(page: Any, url: str) -> None:
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("moved")
    assert page.locator("html").get_attribute("lang") == "en"
    controls = page.locator("input:visible, select:visible, textarea:visible").all()
    assert len(controls) == 9
    for control in controls:
        assert control.evaluate("e => e.labels.length") == 1
    identifiers = [element.get_attribute("id") for element in page.locator("[id]").all()]
    assert len(identifiers) == len(set(identifiers))
    headings = page.get_by_role("heading").all()
    assert [h.evaluate("e => e.tagName") for h in headings] == ["H1", "H2", "H2", "H2"]
    assert page.get_by_role("main").count() == 1
    for region in ("Base", "Mix", "What the mix did to each of its tokens"):
        assert page.get_by_role("region", name=region, exact=True).count() == 1
    # The streams themselves must not be read out word by word: one line tells when they are done.
    live = page.locator("[aria-live], [role=status], [role=alert], output").all()
    assert [element.get_attribute("id") for element in live] == ["status", "error"]


def test_busy_while_it_streams_and_no_motion_where_none_is_wanted(page: Any, url: str, fake: FakeApi) -> None:
    fake.pause_s = 0.3
    page.emulate_media(reduced_motion="reduce")
    ask(page, url)
    expect(page.locator("#mix")).to_have_attribute("aria-busy", "true")
    assert page.locator("#mix").evaluate("e => getComputedStyle(e, '::after').animationName") == "none"
    page.emulate_media(reduced_motion="no-preference")
    assert page.locator("#mix").evaluate("e => getComputedStyle(e, '::after').animationName") == "blink"
    expect(page.locator("#mix")).not_to_have_attribute("aria-busy", "true")


def test_a_narrow_screen_stacks_the_answers(page: Any, url: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    ask(page, url)
    expect(page.locator("#status")).to_contain_text("moved")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 320
    assert page.locator("#mix").bounding_box()["y"] > page.locator("#base").bounding_box()["y"]


# The real server


QUESTION = (
    "A till stands at 1 and counts modulo 10. Finn returns the hourglass, buys the javelin and buys the raisin. "
    "What does the till show?"
)
PROMPTS = {"chat": QUESTION, "text": f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\nReturning the"}
WATCH = """() => {
  window.lengths = { base: new Set(), mix: new Set() };
  for (const id of ["base", "mix"]) {
    const element = document.getElementById(id);
    new MutationObserver(() => lengths[id].add(element.textContent.length)).observe(element, { childList: true });
  }
}"""


def post(url: str, **body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.parametrize("mode", ["chat", "text"])
def test_a_real_server_streams_both_answers(page: Any, server: Server, mode: str) -> None:
    """Both arrive in parts, the mix's is what the API gives."""
    page.goto(server.url)
    expect(page.locator("#model")).to_contain_text(": base")
    page.evaluate(WATCH)
    page.get_by_label("Question", exact=True).fill(PROMPTS[mode])
    page.get_by_label("Send as").select_option(mode)
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill("48")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#status")).to_contain_text("The mix moved", timeout=60_000)
    expect(page.get_by_role("alert")).to_be_empty()
    assert all(len(lengths) > 2 for lengths in page.evaluate("() => [[...lengths.base], [...lengths.mix]]"))

    model = json.load(fetch(server.url + "/v1/models"))["data"][0]["id"]
    asked = {"model": model, "temperature": 0, "max_tokens": 48, "seed": 1}
    for name, alpha in (("base", "base"), ("mix", 1.0)):
        if mode == "chat":
            messages = [{"role": "user", "content": QUESTION}]
            answer = post(server.url + "/v1/chat/completions", **asked, messages=messages, vllm_xargs={"alpha": alpha})
            text = answer["choices"][0]["message"]["content"]
        else:
            answer = post(server.url + "/v1/completions", **asked, prompt=PROMPTS[mode], vllm_xargs={"alpha": alpha})
            text = answer["choices"][0]["text"]
        shown = page.locator(f"#{name}").text_content()
        ended = bool(page.locator(f"#{name} .end").count())
        assert (shown.removesuffix("end") if ended else shown) == text
    compared = int(re.search(r"of (\d+) tokens", page.locator("#status").text_content()).group(1))
    assert compared == page.locator("#mix .token").count() == answer["usage"]["completion_tokens"]
    if mode == "chat":  # the mix begins to reckon, where the base often guesses; once begun, both go on alike
        assert page.locator("#mix .raised, #mix .lowered").count() > 0


def test_a_real_mix_with_alpha_0_moves_nothing(page: Any, server: Server) -> None:
    """The two ways by which the page gets probabilities, a stream's and a prompt's, must agree."""
    page.goto(server.url)
    page.get_by_role("slider", name="α").focus()
    page.keyboard.press("Home")
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.get_by_label("Max tokens").fill("48")
    page.get_by_role("button", name="Answer").click()
    expect(page.locator("#status")).to_contain_text("The mix moved 0 of", timeout=60_000)
    assert page.locator("#mix .same").count() == page.locator("#mix .token").count() > 0
    assert page.locator("#mix").text_content().removesuffix("end") == page.locator("#base").text_content()
