"""Prompt templates: how a question becomes the text that the models go on from, and where they must stop.

A template file is plain text with `{question}` in it; if its first line is `stop:` and a JSON list of strings,
generation stops at these.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.tasks.text import read_text, short_hash

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

    @property
    def hash(self) -> str:
        """Changes when what the template makes of a question changes, or where it stops."""
        return short_hash(json.dumps([self.text, self.stop, self.instruction]))

    def render(self, question: str, tokenizer: Any = None) -> str:
        """The prompt for a question. Raises UserError if a chat template is needed and the tokenizer has none."""
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
    """The template of that name, or of a file. Raises UserError if there is neither or the file has no place."""
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(TEMPLATES)}, or a file"
        raise UserError(f"--template {name}: no such template; {hint}")
    text = read_text(path, "--template")
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


def prompt_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Text to token ids, remembering the last prompts: the samples of a problem share one.

    A chat template already begins with the beginning-of-sequence token; it must not get a second one.
    """
    bos = getattr(tokenizer, "bos_token", None)

    @lru_cache(maxsize=64)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=not (bos and text.startswith(bos))))

    return lambda text: list(encode(text))
