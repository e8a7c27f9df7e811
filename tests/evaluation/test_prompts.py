"""Prompt templates and where they stop."""

from __future__ import annotations

import pytest

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.prompts import TEMPLATES, get_template


class Tokenizer:
    chat_template = "a template"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


def test_the_papers_prompt():
    template = get_template("paper")
    assert template.render("What is 1 + 1?") == ("Question:\nWhat is 1 + 1?\nAnswer:\nLet's think step by step.\n")


def test_the_papers_prompt_is_the_tiny_models_prompt():
    from vllm_rast.tiny.world import PROMPT

    assert get_template("paper").render("{x}?") == PROMPT.format(q="{x}?")


def test_qwen_boxed():
    prompt = get_template("qwen-boxed").render("What is {1}?")
    assert prompt.startswith("<|im_start|>system\n") and prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert "\\boxed{}" in prompt and "What is {1}?" in prompt


def test_chat_uses_the_models_own_template():
    prompt = get_template("chat").render("What?", Tokenizer())
    assert prompt.startswith("<user>What?\n\n") and "\\boxed{}" in prompt and prompt.endswith("<assistant>")
    with pytest.raises(UserError, match="no chat template"):
        get_template("chat").render("What?", object())


@pytest.mark.parametrize("name", TEMPLATES)
def test_stop_strings_cut_no_answer(name):
    answer = (
        "The user sees an assistant.\n\nStep 1. Answer: we ask a question: what is it?\nuser: 5\nassistant: 6\n"
        "Therefore \\boxed{\\text{user}}.\n\nQuestions remain.\n</s> ### Problem"
    )
    assert not any(stop in answer for stop in get_template(name).stop)


def test_the_papers_prompt_stops_at_another_question():
    ran_on = "So \\boxed{5}.\n\nQuestion:\nWhat is 2 + 2?\nAnswer:\nLet's think step by step.\n\\boxed{4}"
    first = min(ran_on.index(stop) for stop in get_template("paper").stop if stop in ran_on)
    assert ran_on[:first].strip() == "So \\boxed{5}."


def test_a_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("Q: {question}\nA:")
    assert get_template(str(path)).render("1+1?") == "Q: 1+1?\nA:"
    assert get_template(str(path)).stop == []
    path.write_text('stop: ["\\nQ:"]\nQ: {question}\nA:')
    assert get_template(str(path)).render("1+1?") == "Q: 1+1?\nA:"
    assert get_template(str(path)).stop == ["\nQ:"]


@pytest.mark.parametrize(
    "text",
    ["no place", "{question} {question}", "stop: Q\n{question}", "stop: [1]\n{question}", 'stop: [""]\n{question}'],
)
def test_a_bad_file(tmp_path, text):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(UserError, match="--template"):
        get_template(str(path))


def test_an_unknown_name_suggests_one():
    with pytest.raises(UserError, match="did you mean paper"):
        get_template("papr")
