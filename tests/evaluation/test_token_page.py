"""tokens.html: its numbers decoded again, nothing in it but text, and looked at in a browser."""

from __future__ import annotations

import base64
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import chromium
from traced import COLUMNS, make_table, numbers_of

from vllm_rast.evaluation.analysis import token_page as pages
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.analysis.token_page import NO_NUMBER, in_parts, packed, page_data, scale_of, token_page
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.tasks.benchmark import Problem

VOCABULARY = ["</script><b id=evil>", " we", "\n", " then", "é", " check", " so", "<|end|>", " x", "</td>"]
IDS = {"base": [1, 5, 3, 7], "rast": [1, 5, 0, 6, 7]}


def tables() -> tuple[TraceTable, dict[tuple[str, str], Problem], dict[Key, bool]]:
    """Two questions, two rows; they part at the third token, and JS is large at the second and fourth."""
    answers = []
    for problem in ("p", "q"):
        for row, ids in IDS.items():
            columns: dict[str, Any] = dict(zip(COLUMNS, numbers_of(ids).T, strict=True))
            columns = {
                k: v.astype(np.int32 if k.endswith(("_rank", "_argmax")) else np.float32) for k, v in columns.items()
            }
            columns["js_mix_base"] = np.array([0, 0.3, 0, 0.2, 0][: len(ids)], dtype=np.float32)
            columns["token"] = np.array(ids)
            answers.append((Key("maths", row, problem, 0), columns))
    problems = {("maths", name): Problem("maths", name, f"What is <i>{name}</i>?", "4") for name in ("p", "q")}
    right = {key: key.row == "rast" and key.problem == "q" for key, _ in answers}
    return make_table(answers, VOCABULARY), problems, right


def unpacked(data: str, models: list[str], numbers: list[str], count: int) -> dict[str, np.ndarray]:
    """As the module's docstring says."""
    content, at, found = zlib.decompress(base64.b64decode(data), wbits=-15), 0, {}
    names = [("token", "<i4"), *((f"{model}_argmax", "<i4") for model in models)]
    names += [*((f"{model}_rank", "<u2") for model in models), *((name, "<i2") for name in numbers)]
    for name, kind in names:
        found[name] = np.frombuffer(content, kind, count, at)
        at += found[name].nbytes
    assert at == len(content)
    return found


def test_the_numbers_are_there() -> None:
    table, problems, right = tables()
    data = page_data(table, problems, right)
    assert data["models"] == ["base", "mix"] and data["rows"] == ["base", "rast"] and data["left_out"] == 0
    assert [(one["question"], one["row"], one["right"]) for one in data["answers"]] == [
        (0, 0, False),
        (0, 1, False),
        (1, 0, False),
        (1, 1, True),
    ]
    for i, answer in enumerate(data["answers"]):
        inside = slice(table.starts[i], table.starts[i + 1])
        found = unpacked(answer["data"], data["models"], data["numbers"], answer["tokens"])
        assert len(found) == len(COLUMNS) + 1
        for name, values in found.items():
            if values.dtype == np.int16:
                scale = data["scales"][name]
                np.testing.assert_allclose(values / scale, table[name][inside], atol=0.5 / scale + 1e-6)
            else:
                np.testing.assert_array_equal(values, table[name][inside])
    known = {int(token) for name in ("token", "base_argmax", "mix_argmax") for token in table[name]}
    assert data["texts"] == {token: VOCABULARY[token] for token in known}


def test_numbers_that_do_not_fit() -> None:
    assert in_parts(np.array([0.1234, -math.inf, 99.0, math.nan, -0.0004])).tolist() == [
        123,
        -32767,
        32767,
        NO_NUMBER,
        0,
    ]
    table, _, _ = tables()
    table.columns["mix_rank"][0] = 151_936
    found = unpacked(packed(table, slice(0, 4), {}), table.models, [], 4)
    assert found["mix_rank"][0] == 65_535
    sizes = np.array([3, 327.66, np.nan, np.inf])
    assert scale_of("delta_size", sizes) == 100 and scale_of("delta", -sizes[:1]) == 1000
    assert scale_of("delta_cosine_ceiling", sizes) == scale_of("base_logprob", sizes) == 1000
    assert in_parts(sizes, 100).tolist() == [300, 32_766, NO_NUMBER, 32_767]


def test_more_answers_than_a_page_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MAX_TOKENS", 10)
    data = page_data(*tables())
    assert [one["tokens"] for one in data["answers"]] == [4, 5] and data["left_out"] == 2
    assert len(data["questions"]) == 1


def test_nothing_in_the_page_is_markup_of_a_models() -> None:
    html = token_page(*tables(), title="run <1>")
    assert html.count("</script>") == 2 and "evil" in html and "<b id=evil>" not in html and "<i>" not in html
    assert "<title>run &lt;1&gt;: tokens</title>" in html
    assert not re.search(r"(?:src|href)=(?!\"#)", html), "something would be fetched"
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data and json.loads(data[1])["texts"]["0"] == VOCABULARY[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(pytest.importorskip("playwright.sync_api", reason="needs playwright")) as browser:
        yield browser


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page, opened from a file; its own errors, and what its policy had to block, fail the test."""
    (tmp_path / "tokens.html").write_text(token_page(*tables(), title="run"))
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.goto((tmp_path / "tokens.html").as_uri())
    page.wait_for_selector(".tokens span")
    yield page
    page.close()
    assert not complaints


def texts(page: Any, which: int) -> list[str]:
    return page.locator(".tokens").nth(which).locator("span").all_text_contents()


def chosen(page: Any) -> str:
    """Which token is described, once the page is quiet."""
    page.wait_for_timeout(50)
    assert page.locator("span.chosen").count() == 1
    return page.locator("#details h2").text_content()


def test_two_answers_beside_each_other(page: Any) -> None:
    assert texts(page, 0) == [VOCABULARY[token] for token in IDS["rast"]]
    assert texts(page, 1) == [VOCABULARY[token] for token in IDS["base"]]
    assert page.locator("#evil").count() == 0
    assert page.locator("#asked").text_content() == "What is <i>p</i>?\n\nGold: 4"
    assert page.locator("span.shared").all_text_contents() == [" we", " check"] * 2
    assert page.locator("span.parts").all_text_contents() == [VOCABULARY[0], " then"]
    assert chosen(page).endswith("token 3 of 5"), "it opens where they part"
    assert page.locator("#details table").first.locator("tbody tr").count() == 2


def test_the_keyboard(page: Any) -> None:
    page.locator(".tokens").nth(0).focus()
    for key, token in [("Home", 1), ("n", 2), ("n", 4), ("n", 4), ("p", 2), ("ArrowLeft", 1), ("ArrowLeft", 1)]:
        page.keyboard.press(key)
        assert chosen(page).endswith(f"token {token} of 5"), key
    for key, token in [("d", "3 of 5"), ("End", "5 of 5"), ("ArrowRight", "5 of 5"), ("o", "4 of 4"), ("o", "4 of 5")]:
        page.keyboard.press(key)
        assert chosen(page).endswith(f"token {token}"), key
    page.keyboard.press("]")
    page.wait_for_function("document.getElementById('asked').textContent.includes('<i>q</i>')")
    assert page.locator("h2 .right").count() == 1 and page.locator("h2 .wrong").count() == 1


def test_what_is_shown_is_chosen(page: Any) -> None:
    page.select_option("#second", label="nothing")
    page.wait_for_function("document.querySelectorAll('.tokens').length === 1")
    assert page.locator("span.shared, span.parts").count() == 0
    page.select_option("#second", label="base")
    page.select_option("#order", label="only the first row is right")
    page.wait_for_function("document.getElementById('question').options[0].text.startsWith('maths q')")
    page.select_option("#colour", label="JS(mix, base)")
    coloured = (
        page.locator(".tokens")
        .nth(0)
        .locator("span")
        .evaluate_all("all => all.map(one => one.style.backgroundColor !== '')")
    )
    assert coloured == [False, True, False, True, False]
