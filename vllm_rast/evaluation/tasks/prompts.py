"""Prompt templates: how a question becomes the text that the models go on from, and where they must stop.

A template file is plain text with `{question}` in it; where its first line is `stop:` and a JSON list of strings,
generation stops at these.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError

PLACE = "{question}"
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."

# Stop strings begin on a line of their own and open the next exercise, which no answer does. Words such as "user" or
# "assistant" do stand in answers, and blank lines stand between the steps of a solution: neither may be one.
NEXT_QUESTION = ("\nQuestion:",)


@dataclass(frozen=True)
class Template:
    """A named way to put a question.

    text: with `{question}` once, or None for the tokenizer's own chat template around `instruction`
    stop: strings at which generation ends (beside the end-of-sequence token)
    """

    name: str
    text: str | None
    stop: list[str] = field(default_factory=list)
    instruction: str = ""

    def render(self, question: str, tokenizer: Any = None) -> str:
        """The prompt for a question. Raises UserError where a chat template is needed and the tokenizer has none."""
        if self.text is not None:
            return self.text.replace(PLACE, question)
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"--template {self.name}: the model's tokenizer has no chat template; use paper or qwen-boxed"
            )
        content = f"{question}\n\n{self.instruction}" if self.instruction else question
        turns = [{"role": "user", "content": content}]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


PAPER = Template(
    # arXiv 2506.15710: the prompt of every row of its tables.
    "paper",
    f"Question:\n{PLACE}\nAnswer:\nLet's think step by step.\n",
    list(NEXT_QUESTION),
)
QWEN_BOXED = Template(
    # Qwen2.5-Math's chat prompt, spelt out so that base models get it too.
    "qwen-boxed",
    f"<|im_start|>system\n{BOXED}<|im_end|>\n<|im_start|>user\n{PLACE}<|im_end|>\n<|im_start|>assistant\n",
    ["<|im_end|>", "<|endoftext|>"],
)
CHAT = Template("chat", None, [], BOXED)
TEMPLATES = {template.name: template for template in (PAPER, QWEN_BOXED, CHAT)}


def get_template(name: str) -> Template:
    """The template of that name, or of a file. Raises UserError where there is neither or the file has no place."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TEMPLATES)}, or a file"
        raise UserError(f"--template {name}: no such template; {hint}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--template {name}: {error}") from error
    stop: list[str] = []
    if text.startswith("stop:"):
        first, _, text = text.partition("\n")
        stop = _stop_strings(name, first.removeprefix("stop:"))
    if text.count(PLACE) != 1:
        raise UserError(f"--template {name}: {PLACE} must stand in the file exactly once")
    return Template(name, text, stop)


def _stop_strings(name: str, line: str) -> list[str]:
    try:
        stop = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"--template {name}: after stop: a JSON list of strings is needed: {error}") from error
    if not isinstance(stop, list) or not all(isinstance(s, str) and s for s in stop):
        raise UserError(f"--template {name}: after stop: a JSON list of strings is needed")
    return stop
