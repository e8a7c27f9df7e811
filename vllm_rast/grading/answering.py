"""The part of an output that answers: after the thinking, before a next question that a model adds by itself."""

from __future__ import annotations

import re
from typing import NamedTuple

_THOUGHT = (
    r"think(?:ing)?|thoughts?|reason(?:ing)?|reflect(?:ion)?|analysis|scratch_?pad|inner_(?:thoughts?"
    r"|monologue)|seed:think"
)
_OPENS = (
    rf"<(?:{_THOUGHT})>|\[THINK\]|\u25c1think\u25b7|<\|(?:begin_of_(?:thought|thinking)|start_thinking|think"
    rf"|thinking)\|>"
    r"|<unused94>(?:thought)?|<\|channel\|>(?:analysis|commentary)[^<\n]{0,60}<\|message\|>|^Thinking\.\.\.$"
)
_CLOSES = (
    rf"</(?:{_THOUGHT})>|\[/THINK\]|\u25c1/think\u25b7|<\|(?:end_of_(?:thought|thinking)|end_thinking|/think"
    rf"|/thinking)\|>"
    r"|<unused95>|<\|channel\|>final[^<\n]{0,60}<\|message\|>|^\.\.\.done thinking\.$|\bassistantfinal(?=\W|[A-Z])"
)
_MARKS = re.compile(rf"(?P<opens>{_OPENS})|(?P<closes>{_CLOSES})", re.IGNORECASE | re.MULTILINE)
_TURN_ENDS = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|eom_id|end_of_turn|return|end_response|END_RESPONSE)\|>|</s>|<end_of_turn>|<eos>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>"
)
_CHANNEL = re.compile(r"<\|start\|>(?:assistant)?|<\|channel\|>\w{0,12}|<\|message\|>|<\|START_RESPONSE\|>")
_MARKUP = re.compile(r"</?(?:b|i|p|em|strong|br|u|div|span|li|ul|ol|h[1-6]|code|center)\s?/?>")
_ANSWER_TAG = re.compile(
    r"<(?P<end>/?)(?:answer|final_answer|final answer|solution|finalanswer)>|<\|(?P<edge>begin"
    r"|end)_of_solution\|>",
    re.IGNORECASE,
)
_TAG_JOINER = re.compile(r"[\s,;.&/|]{0,20}(?:(?:and|or|maybe|perhaps)\b[\s,;.]{0,9}){0,2}", re.IGNORECASE)
_QUESTION = (
    r"(?:(?:now |and )?here(?:'s| is| are)\s)?(?:(?:an?|the)\s)?"
    r"(?:(?:next|new|another|second|third|follow-?up|practice|bonus|additional|similar|sample)\s{1,3})?"
    r"(?:question|problem|exercise|example|task|instruction|query|puzzle)s?"
)
_ELSEWHERE = (
    "\u4f8b\u9898?|\u4e60\u9898|\u95ee\u9898|\u554f\u984c|\u9898\u76ee|\u984c\u76ee|\u7ec3\u4e60|\u4e0b\u4e00\u9898"
    "|\uc9c8\ubb38|\ubb38\uc81c|Pregunta|Problema|Ejercicio|Exercice|Probl\u00e8me"
    "|Frage|Aufgabe|N\u00e4chste Frage|\u0412\u043e\u043f\u0440\u043e\u0441|\u0417\u0430\u0434\u0430\u0447\u0430"
    "|Domanda|Esercizio|Pergunta|Exerc\u00edcio|Quest\u00e3o|Question suivante|Siguiente pregunta"
)
# How a next question begins, at the start of a line or after a sentence.
_NEXT = re.compile(
    rf"(?:^[ \t>#*_\-]{{0,8}}|(?<=[.!?]) {{1,3}}\*{{0,2}})(?:{_QUESTION}\s?\#?\d{{0,4}}\s?(?:\*\*)?[:.)]"
    rf"|(?:{_ELSEWHERE})\s?\d{{0,4}}\s?(?:\*\*)?[:.)\uff1a]|(?:Q\d{{0,4}}[:.)]|Q\s\d{{1,4}}\b)"
    r"|(?:human|user|input|student|prompt)\s?\d{0,4}(?:\*\*)?:)"
    r"|^[ \t>#*_\-]{0,8}(?:(?:question|problem|exercise)\s#?\d{1,4}\b|#{1,4} ?(?:instruction|question|problem|user"
    r"|input)\b)"
    r"|<\|(?:im_start|start_header_id)\|>(?:user|human)|\[INST\]|<start_of_turn>user|<\|user\|>|<\|start\|>user",
    re.MULTILINE | re.IGNORECASE,
)
# A question without a heading, in a paragraph of its own; one to oneself ("Is this right?") begins otherwise.
_ASKS = re.compile(
    r"(?<=\n)[ \t]*\n[ \t]*(?:\d{1,3}[.)]\s[^\n?]{8,600}\?|(?:\d{1,3}[.)]\s)?"
    r"(?:(?:What|How (?:many|much|long|far|old|often)|Which|Who)\b[^\n?]{4,600}\?"
    r"|(?:Find|Compute|Calculate|Evaluate|Determine|Simplify|Solve)\b[^\n]{12,600}[.)$][ \t]*(?=\n)))"
)
_ANSWERS = re.compile(
    r"\\boxed|####|\banswer\b|\u7b54\u6848|\brespuesta\b|\br\u00e9ponse\b|\bantwort\b|\u043e\u0442\u0432\u0435\u0442",
    re.IGNORECASE,
)
_SAYS_SOMETHING = re.compile(r"\d|\\boxed|####|\banswer\b|\b[A-J]\b", re.IGNORECASE)


def answering(output: str) -> str:
    """What of an output counts.

    Thinking does not, unless nothing else is said. What comes after the model's own end of turn, or after a next
    question, does not; a question that is only repeated at the start is no next one.
    """
    text = _MARKUP.sub(" ", _without_thinking(output))
    end = _TURN_ENDS.search(text)
    if end and text[: end.start()].strip():
        text = text[: end.start()]
    return _tagged(text) or _before_bare_question(_before_next_question(text))


def _without_thinking(output: str) -> str:
    """An output without its thoughts; the last thought if there is nothing else."""
    said: list[str] = []
    thought, place, thinks = "", 0, False
    for mark in _MARKS.finditer(output):
        between = output[place : mark.start()]
        if mark["closes"] and not thinks:  # the opening mark was in the prompt
            said.clear()
            thought = between or thought
        elif thinks:
            thought = between if between.strip() else thought
        else:
            said.append(between)
        thinks, place = bool(mark["opens"]), mark.end()
    if place == 0:
        return output
    rest = output[place:]
    if thinks:
        thought = rest if rest.strip() else thought
    else:
        said.append(rest)
    spoken = _CHANNEL.sub(" ", "\n".join(said))
    says = _TURN_ENDS.sub("", spoken).strip()
    return spoken if says and (not thinks or _SAYS_SOMETHING.search(says)) else _CHANNEL.sub(" ", thought)


def _tagged(text: str) -> str | None:
    """What is in the last answer tags; the last ones may not be closed."""
    begin: int | None = None
    between, found = 0, []
    for tag in _ANSWER_TAG.finditer(text):
        if not tag["end"] and tag["edge"] != "end":
            begin, opening = tag.end(), tag
        elif begin is not None:
            if text[begin : tag.start()].strip():
                found.append(_Tagged(opening[0], text[between : opening.start()], text[begin : tag.start()].strip()))
            between, begin = tag.end(), None
    if begin is not None and text[begin:].strip():
        found.append(_Tagged(opening[0], text[between : opening.start()], text[begin:].strip()))
    return _side_by_side(found) if found else None


class _Tagged(NamedTuple):
    """What is in a tag, the tag, and what stands between it and the one before."""

    tag: str
    before: str
    inside: str


def _side_by_side(found: list[_Tagged]) -> str:
    """The last answer, with those in the same tag before it if only a comma or a word stands between: a list."""
    first = len(found) - 1
    while first and found[first].tag == found[first - 1].tag and _TAG_JOINER.fullmatch(found[first].before):
        first -= 1
    inside = [one.inside for one in found[first:]]
    distinct = list(dict.fromkeys(inside))
    return ", ".join(distinct) if len(distinct) > 1 else inside[-1]


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


def _before_bare_question(text: str) -> str:
    """A text up to a question without a heading that comes after an answer."""
    answer = _ANSWERS.search(text)
    asks = _ASKS.search(text, answer.end()) if answer else None
    return text[: asks.start()] if asks else text
