"""Choice letters: which one an output decides for."""

from __future__ import annotations

import re
from typing import NamedTuple

from vllm_rast.grading.qualifiers import is_changed_after, is_changed_before
from vllm_rast.grading.statements import MAX_STATEMENT, around, is_question, is_taken_back

_OPENS = r"[\(\[*$_\"'`\s:\uff1a]{0,4}(?:\\(?:text|textbf|mathrm|mathbf|boxed)\s?\{\s?)?[\(\[*]{0,3}"
# A capital, or a small letter in parentheses: "a" alone is an article.
_LETTER = rf"{_OPENS}(?P<letter>[A-J](?![A-Za-z'\u2019])|(?<=\()[a-j](?=\)))[\)\]}}*$_\"'`]{{0,4}}"
_RIGHT = (
    r"\s{0,3}(?i:is|would be|must be|has to be|should be|seems|matches|works|holds|fits|appears)\b(?i:\s{1,9}(?:the"
    r"|to be|clearly|indeed|therefore|only|most|definitely|our|my|also)){0,3}\s{0,9}(?i:\w{1,20}\s)?"
    r"(?i:correct|right|true|answer|best|option|choice|one|valid|$|(?=[.,;!]))"
)
_NAMED = r"(?i:\b(?:options?|choices?|answers?|statement|alternative|letter))"
_ASSERTED = [
    re.compile(rf"{_NAMED}\s{{0,3}}{_LETTER}{_RIGHT}"),
    re.compile(
        rf"(?:^|[\s(,;]){_LETTER}\s{{0,3}}(?i:is|must be)\s{{1,9}}(?i:(?:the|our|my"
        rf"|clearly)\s{{1,9}})?(?i:only\s)?(?i:correct|right|true|answer|best)\b"
    ),
    re.compile(
        r"(?i:\b(?:answer|choice|option|one|alternative|statement|solution)\s{0,3}(?:to\b[^.\n:]{0,60}?)?"
        r"(?:\*\*|__)?(?:is|:|=|must be|should be|would be|has to be)\s{0,3}(?:\*\*|__)?"
        rf"(?:therefore|thus|clearly|definitely|indeed|not|actually|probably)?:?\s{{0,3}}(?:(?:the\s)?(?:option|choice"
        rf"|letter|answer))?){_LETTER}(?=[\s.,;:)!?]|$)"
    ),
    re.compile(
        r"(?i:\b(?:so|thus|therefore|hence|yes|no),?\s(?:it is |it's |it must be |it has to be |the answer is "
        r"|we choose |i choose |choose |pick "
        rf"|option |choice ){{0,2}}){_LETTER}\s{{0,3}}(?=[.!,;]|$)"
    ),
    re.compile(
        r"(?i:\b(?:choose|chose|select|pick|picked|go with|goes with|going with|mark|settle on|vote for|opt for)\s"
        rf"(?:(?:option|choice|answer|letter)\s){{0,2}}){_LETTER}(?=[\s.,;:)!]|$)"
    ),
    re.compile(
        r"(?i:\b(?:it is|it's|it must be|it should be|it has to be|that is|that's|rather|but|instead,?|i mean|i meant"
        r"|make that|leaves|leaving)\s(?:only\s)?"
        rf"(?:actually\s|really\s)?(?:option\s|choice\s|answer\s)?){_LETTER}(?=[\s]{{0,3}}[.,;:!]|\s(?i:instead"
        rf"|because|since)|\s*$)"
    ),
    re.compile(rf"(?:^|[\s(]){_LETTER}\sit\sis\b"),
    re.compile(rf"(?m:^)(?:A|Ans|ANS|ANSWER)\s?:\s{{0,3}}{_LETTER}(?=[\s.,)]|$)"),
    re.compile(
        r"(?i:\b(?:actually|no|oops|wait|sorry|correction|instead|hmm)\b[\s,.:;!\u2013\u2014-]{1,6}(?:it's |it is "
        r"|option |choice )?)"
        rf"{_LETTER}(?=[.!]|\s*$)"
    ),
    re.compile(
        rf"(?:故选|應選|应选|选择|選擇|选|選|而是|正确的是|正确选项是|正確的是|答案[是为為：:选選]{{0,3}}|答[：:是]|正解は|答えは|정답은|정답:|답은|答案)(?:选项|選項)?{_LETTER}"
    ),
    re.compile(rf"(?:选项|選項)?{_LETTER}\s?(?:项|項)?(?:是|为)?(?:正确|正確|对的|對的)"),
]
_DENIES = re.compile(
    r"(?i:\b(?:not|n't|cannot|never|neither|nor|none|without|rather than|instead of|unlike|eliminate[sd]?"
    r"|exclude[sd]?|rules? out"
    r"|ruled out|reject(?:s|ed)?|wrong|incorrect|if|unless|whether|doubt)\b(?:(?!\bbut\b)[^.,;\n]){0,40}$"
    r"|(?i:\b(?:any|every|all|anything|everything|anyone)\b)[^.,;\n]{0,30}\bbut\s?(?i:option\s|choice\s)?[(\s]*$"
    r"|(?:不选|不選|不是|并非|排除)\s?$)"
)
# A hint at the answer, and no choice: the first letter of the answer is B.
_INITIAL = re.compile(
    r"(?i:\b(?:first|last|second|third|fourth|final|middle|initial|starting|opening)\s(?:letter|character|initial|word)s?\b"
    r"|\b(?:begins|starts|ends|spelt|spelled|contains|rhymes)\s(?:with|by|in|on)?\b)[^.\n]{0,60}$"
)
_DENIED = re.compile(
    r"[\s)\]}*$_\"'`]{0,4}(?:(?i:is|are|was|would be|seems|looks)\s(?i:\w{1,12}\s){0,2}?(?i:not|n't|wrong|incorrect"
    r"|false|impossible|excluded|eliminated|ruled)|(?i:isn't|cannot|can't|doesn't|does not|fails)"
    r"|是?(?:错|不正确|不对|不成立))"
)
_OTHER = re.compile(
    r"[\s.)\]}*$\"']{0,6}(?:(?:or|and|and/or|&|\+|/|,|;|\\text\s?\{\s?(?:or|and)\s?\}|和|或|、)[\s,]{0,3}){1,2}"
    r"(?:(?:also|maybe|perhaps|possibly|either)\s)?(?:option\s|choice\s)?"
    r"[\s(\[*$\"']{0,4}(?:\\(?:text|textbf|mathrm|mathbf)\s?\{\s?)?\(?(?:[A-J](?![A-Za-z'])|-?\d)(?!\s(?:is|was"
    r"|are)\s(?:wrong|incorrect|false|not))"
)
_ANOTHER_BEFORE = re.compile(
    r"(?:^|[\s(*$])[A-J]\)?[\s*$,)]{0,4}(?:(?:or|and|and/or|&|/|,)\s?){1,2}(?:option\s|choice\s)?[\s(*$]{0,3}$"
)


class Choice(NamedTuple):
    """A letter and whether the output only says that it is not the one."""

    letter: str
    denied: bool


def names_another(rest: str) -> bool:
    """Whether what follows a choice letter is another one: "or (D)", "+ C"."""
    return bool(_OTHER.match(rest))


def chosen_letter(text: str) -> Choice | None:
    """The letter that the last assertion of an output decides for; None without one, "?" if it names several."""
    found = {match.start("letter"): match for pattern in _ASSERTED for match in pattern.finditer(text)}
    denied = None
    for _, match in sorted(found.items(), reverse=True):
        start, end = match.span("letter")
        before, after = around(text, start, end)
        if _is_denied(before, after, text[end : end + MAX_STATEMENT]):
            denied = denied or Choice(match["letter"].upper(), True)
            continue
        several = names_another(text[end : end + MAX_STATEMENT]) or _ANOTHER_BEFORE.search(before)
        return Choice("?" if several else match["letter"].upper(), False)
    return denied


def _is_denied(before: str, after: str, following: str) -> bool:
    return bool(
        _DENIES.search(before)
        or _INITIAL.search(before)
        or _DENIED.match(after)
        or is_question(after)
        or is_taken_back(following)
        or (is_changed_before(before) and not before.rstrip().endswith(("choice", "option")))
        or (is_changed_after(after) and not names_another(after))
    )
