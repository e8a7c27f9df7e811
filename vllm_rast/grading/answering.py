"""The part of an output that answers: after the thinking, before a next question that a model adds by itself."""

from __future__ import annotations

import re

from vllm_rast.grading.searching import last

_THOUGHT_ENDS = re.compile(
    r"</(?:think|thinking|thought|thoughts|reasoning|scratchpad)>|\[/THINK\]|\u25c1/think\u25b7"
    r"|<\|(?:end_of_thought|end_of_thinking|/think)\|>|</seed:think>",
    re.IGNORECASE,
)
_THOUGHT_STARTS = re.compile(
    r"<(?:think|thinking|thought|thoughts|reasoning|scratchpad)>|\[THINK\]|\u25c1think\u25b7"
    r"|<\|(?:begin_of_thought|begin_of_thinking|think)\|>|<seed:think>",
    re.IGNORECASE,
)
_TURN_ENDS = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|eom_id|end_of_turn)\|>|</s>|<end_of_turn>|<eos>|<\uff5cend\u2581of\u2581sentence\uff5c>"
)
_ANSWER_TAG = "<answer>", "</answer>"
# How a next question begins, at the start of a line.
_NEXT = re.compile(
    r"^[ \t>#*]{0,8}(?:(?:Question|Problem|Exercise|Example|Task|Instruction|Query)\s?\d{0,4}\s?(?:\*\*)?[:.)]"
    r"|(?:Question|Problem|Exercise)\s\d{1,4}\b|(?:Q|Human|User|Input)\s?\d{0,4}(?:\*\*)?:|#{2,4}"
    r" ?(?:Instruction|Question|Problem|User|Input)\b)"
    r"|<\|(?:im_start|start_header_id)\|>(?:user|human)|\[INST\]|<start_of_turn>user|<\|user\|>",
    re.MULTILINE,
)
_ANSWERS = re.compile(r"\\boxed|####|\banswer\b", re.IGNORECASE)
_SAYS_SOMETHING = re.compile(r"\d|\\boxed|####|\banswer\b|\b[A-J]\b", re.IGNORECASE)


def answering(output: str) -> str:
    """What of an output counts.

    Thinking does not, unless nothing follows it. What comes after the model's own end of turn, or after a next
    question, does not; a question that is only repeated at the start is no next one.
    """
    text = _after_thinking(output)
    end = _TURN_ENDS.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    return _tagged(text) or _before_next_question(text)


def _tagged(text: str) -> str | None:
    """What is between the last pair of answer tags."""
    opening, closing = _ANSWER_TAG
    end = text.rfind(closing)
    start = text.rfind(opening, 0, max(end, 0))
    return text[start + len(opening) : end] if start >= 0 and text[start + len(opening) : end].strip() else None


def _after_thinking(output: str) -> str:
    end = last(_THOUGHT_ENDS.finditer(output))
    if end is None:
        return _THOUGHT_STARTS.sub(" ", output)
    after = _TURN_ENDS.sub("", output[end.end() :])
    return after if after.strip() else _THOUGHT_STARTS.sub(" ", output[: end.start()])


def _before_next_question(text: str) -> str:
    """A text up to the next question after something has been said.

    If it begins with a question, that is the prompt repeated, and only an answer to it counts as said.
    """
    repeated = _NEXT.match(text.lstrip()) is not None
    says, begin, said = _ANSWERS if repeated else _SAYS_SOMETHING, 0, False
    for match in _NEXT.finditer(text):
        said = said or says.search(text, begin, match.start()) is not None
        if said:
            return text[: match.start()]
        begin = match.end()
    return text
