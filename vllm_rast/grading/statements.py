"""What a sentence says the answer is: without what comes after it, and never what is only denied or weighed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vllm_rast.grading.qualifiers import is_changed_before
from vllm_rast.grading.searching import last

MAX_STATEMENT = 800  # characters

_END = re.compile(
    r"(?:\.|(?<!\\)[!?])(?=[\s*_)\"']{1,4}[A-Z(\\$*]|[\s*_)\"']{0,4}$)|\n|[\uff01\u3002\uff1f]|\uff0e(?!\d)"
)
# A clause after the answer that says why, or what else: "18, as shown above". What it begins with.
_EXPLAINS = re.compile(
    r"\s*(?:[,;]|\s[-\u2013\u2014]+|\s?\()\s*(?:as|which|so|because|since|where|when|and (?:so|this|that|thus"
    r"|therefore|not)"
    r"|this|that|not|with|after|by|thus|hence|therefore|but not|though|although|giving|meaning|given|i\.e|e\.g|if"
    r"|assuming|rounded|using|for|is|was|would|rather)\b"
    r"|\s+(?:because|since|as (?:shown|required|desired|expected|claimed|above|stated)|which|after|when|based on"
    r"|instead of|(?:and|but) not|rather than|down from|up from|out of|compared)\b|\s*,\s*[a-z]{3,12}ing\b"
)
# After a number or a formula any clause that begins with a word of its own.
_GOES_ON = re.compile(
    r"\s*(?:[,;]|\s[-\u2013\u2014]+|\s\()\s*(?!and\b|or\b|pi\b|sqrt\b)(?:[A-Za-z\u00c0-\u024f]{3,}|(?:I|we|it|he"
    r"|my)\b)(?![A-Za-z]*\()|\s\((?!or\b|mod\b)[^()]{0,200}[A-Za-z]{2}"
)
_BEGINS_WITH_VALUE = re.compile(r"[\s$*({\\\[]{0,6}[-+\u2212]?[\s$({\\]{0,4}(?:\d|[A-Za-z]\s?=|frac|sqrt|pi)")
_CONJUNCTION = re.compile(r"[,;]\s(?:but|and|so|then|yet)[\s,]{0,3}$")
_EXCLAIMS = re.compile(r"^([A-Za-z'\u2019]{2}[^$\\!]*\d)!$")  # It's 42!
_CONCLUDES = re.compile(
    r"\W*(?:so|thus|therefore|hence|giving|making|leaving|bringing|yielding|resulting|totall?ing|meaning|but(?! not)"
    r"|and|then|rather(?! than)|is|was|would)\b"
)
_ALTERNATIVES = re.compile(
    r"(?:^|[\s(])(?:or|else|otherwise|alternatively),?\s+"
    r"(?:equivalently,?\s|simply\s|else\s|maybe\s|perhaps\s|possibly\s|even\s)?\W{0,3}(?:\d|\\(?!text)|[A-Za-z]\b)"
)
_LEADING = re.compile(
    r"(?:(?:so|thus|therefore|hence|then|and|ok|okay|yes(?=\W{1,3}\w)|sure|finally|in conclusion|in total|overall"
    r"|altogether|clearly"
    r"|of course|now|well|we get|we have|it is|it's|that is|which is)\b[\s,:]{0,9}){1,3}",
    re.IGNORECASE,
)
_ADVERBS = r"(?:(?:definitely|certainly|clearly|simply|actually|most|probably|surely|also|still|absolutely)\s){0,3}"
_NOT = re.compile(
    rf"\W{{0,9}}{_ADVERBS}(?:not|never|n't|neither|isn't|other than|anything but|different from|no longer|wrong"
    rf"|incorrect"
    r"|impossible|不是|不等于)(?![a-z])",
    re.IGNORECASE,
)
_BOUNDS = re.compile(
    r"\W{0,9}(?:at least|at most|at minimum|at maximum|more than|less than|fewer than|greater than|larger than"
    r"|bigger than"
    r"|smaller than|higher than|lower than|no more than|no less than|no fewer than|no greater than|not more than"
    r"|not less"
    r" than|in the (?:set|interval|list)|in(?=\s[\\({\[$])|an? (?:element|member) of|up to|under|over|above|below"
    r"|between|somewhere|anything|any number|in the range|within|bounded|strictly"
    r"|close to|nearly|almost|just under|just over)\b",
    re.IGNORECASE,
)
_DOUBTS = re.compile(
    r"\W{0,9}(?:unknown|unclear|uncertain|not clear|undecided|undetermined|either|one of|among|possibly|maybe|perhaps"
    r"|probably not|unlikely|any of)\b",
    re.IGNORECASE,
)
_INSTEAD = re.compile(
    r"\b(?:but(?: rather)?|it(?:'s| is| must be| should be| has to be)(?: actually| in fact)?|rather(?! than)"
    r"|instead(?! of)"
    r"|is actually|correct (?:one|answer|value|option|choice) is|should be|and so)\b[\s:,]{0,9}(?!not\b)",
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"等等|不对|算错|更正|\bperd[oó]n\b|\b(?:wait|edit:|actually|correction|corrected|sorry|oops|whoops|scratch that"
    r"|i mean(?:t)?|let me correct|on second thought"
    r"|hold on|hmm|my mistake|my bad|i made (?:a|an) (?:mistake|error)|apologies|strike that|no,"
    r"|(?<!if )(?:that|this|it|which)(?:'s| is| was) (?:wrong|incorrect|not (?:right|correct))|cannot be right"
    r"|can't be right)",
    re.IGNORECASE,
)
_NOW = re.compile(
    r"(?:the (?:correct |right |real |actual |true |final |new )?(?:answer|value|result|one|number|choice"
    r"|option)? ?(?:is|should be)(?: actually)?"
    r"|(?:it|that|this)(?:'s| is| should be| must be| has to be)(?! (?:wrong|incorrect|not))(?: actually)?|should be"
    r"|should have been|make that"
    r"|i meant?(?: to say)?|correction:?|rather|instead:?|we get|to get|应该是|应为|而是|quise decir)(?![a-z])\s*:?\s*",
    re.IGNORECASE,
)
_DIRECTLY = re.compile(
    r"[\s.,;:!$*)\]\u2013\u2014-]{0,9}(?:(?:oh|no|nope|oops|whoops|wait|actually|sorry|hmm|correction|rather"
    r"|i mean(?:t)?|make that)\b[\s,.:;!\u2013\u2014-]{1,6}){1,4}(?=[$\\({*]{0,4}-?(?:\d|frac|sqrt|[A-J]\b))",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"[\s.,;:!$*)\]}\\]{0,12}(?:(?:but|no|wait|hmm|oops|actually|on second thoughts?)\b[\s,.!]{0,4}){0,3}(?:that|this"
    r"|it|which|the above|i think that|they|everyone|everybody)"
    r"(?: has been (?:refuted|ruled out|rejected|disproved)|(?: can'?t| can\u2019t| cannot| couldn't) be (?:right"
    r"|correct|true|it|the answer)"
    r"|(?:'s|\u2019s| is| was| are| were| looks| seems)\s(?:clearly |obviously |definitely |actually |also )?"
    r"(?:wrong|incorrect|false|not (?:right|correct|the answer|it|possible|valid)|a mistake|impossible|mistaken))"
    r"|[\s.,;:!$*)\]}\\]{0,12}(?:just kidding|i retract|i take (?:that|this|it) back)",
    re.IGNORECASE,
)
_IS = re.compile(
    r"\b(?:is|are|was|were|equals|equal to|be|becomes|comes to|gives|makes|get|costs|has|have|takes?"
    r"|needs?|total of)\b[\s:]{1,9}(?=\S)"
)
_NO_GROUPS = re.compile(r"(?<=\d),(?=\d{1,2}(?!\d))")  # the roots are 3,5: two, and no decimal comma
_IN_SIGNS = [
    (re.compile(rf"^\W{{0,3}}(?:{words})\s{{1,3}}[$\\({{]{{0,3}}(?=\d[\d.,]*[$)\s.*]*$)", re.IGNORECASE), sign)
    for words, sign in (("negative|minus", "-"), ("twice|double", "2*"), ("half(?: of)?", "0.5*"))
]

_NONE_BUT = re.compile(r"^\W{0,3}(?:none other than|no other than|nothing but)\s", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"(yes|no|true|false)(?!\s?,?\s?(?:if|when|unless|and|or)\b)(?=\s?(?:[,.;:!\u2013\u2014]|$))", re.IGNORECASE
)
_ARTICLE = re.compile(r"^(?:a|an|the)\s(?=[A-Z]?[a-z]{2})")
_UNDECIDED = re.compile(
    r"\b(?:(?:don't|do not|can't|cannot|can not|couldn't|could not|unable to|not able to|hard to)"
    r" (?:know|decide|tell|say|determine|choose|find|figure|solve|answer)|not sure|no idea|lucky number|depends on"
    r"|more information|cannot see|can't see|ran out of|will now|please provide)\b",
    re.IGNORECASE,
)
_NOT_BUT = re.compile(
    r"(?:\bnot\b|n['\u2019]t\b|不是)[^.\n]{0,200}?(?:\bbut(?: rather)?\s|而是|[,;]\s(?:it's|it is|rather"
    r"|instead)\s)(?!not\b)",
    re.IGNORECASE,
)
_IF_WRONG = re.compile(r"\W*(?:if|unless)\b.{0,60}\b(?:wrong|not|isn't|incorrect)\b", re.IGNORECASE)
_WHICH_IS = re.compile(
    r"^[^$]{0,200}(?:,\s(?:which|that)\s(?:is|equals|makes|gives|comes to)|\b(?:squared"
    r"|cubed),?\sor)\s(?=[$\\(]{0,3}-?[\d.,/]{1,20}[$\\)]{0,3}[\s.*]*$)"
)
_BREAKS_OFF = re.compile(
    r"\b(?:the|an|and|or|so|then|that|which|we|he|she|they|must|will|can|need|should|to|of|is|are|with|by|for|in|on"
    r"|at|from|if|because|since|but|than|as)[\s,:]{0,9}$",
    re.IGNORECASE,
)
_MORE = re.compile(
    r"(\d)\s(?:more|additional|extra|other|different|distinct|whole|full|such|total)(?=\s[a-z])(?!\s(?:than|or)\b)"
)


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence or line."""
    end = _END.search(text)
    return text[: end.start()] if end else text


def around(text: str, start: int, end: int) -> tuple[str, str]:
    """What stands before and after a place in its sentence.

    A formula on a line of its own belongs to the line before.
    """
    before = text[max(0, start - MAX_STATEMENT) : start]
    stripped = before.rstrip(" \n\t$*_[(\\")
    ends = last(_END.finditer(stripped))
    begin = ends.end() if ends else 0
    after = text[end : end + MAX_STATEMENT]
    stop = _END.search(after)
    return before[begin:], after[: stop.end()] if stop else after


def is_denied(statement: str) -> bool:
    """Whether a statement says what the answer is not, or only within which bounds it lies."""
    return bool(_NOT.match(statement) or _BOUNDS.match(statement) or _DOUBTS.match(statement))


def is_unfinished(sentence: str) -> bool:
    """Whether a sentence breaks off: "and then we must"."""
    return _BREAKS_OFF.search(sentence) is not None


def if_wrong(before: str) -> bool:
    """Whether a sentence says what is so only if something else is wrong."""
    return _IF_WRONG.match(before) is not None


def is_undecided(sentence: str) -> bool:
    """Whether a sentence says that the answer was not found."""
    return _UNDECIDED.search(sentence) is not None


def alternatives(statement: str) -> tuple[str, ...]:
    """The answers between which a statement leaves the choice; all of them may be one: 1/2, or 50 %."""
    return tuple(
        re.split(r",?\s+or\s+(?:equivalently,?\s|simply\s)?", without_clause(_after_words(statement)).strip(" .*_"))
    )


def begins_with_value(statement: str) -> bool:
    """Whether a statement begins with a number or a formula."""
    return _BEGINS_WITH_VALUE.match(statement) is not None


def is_question(statement: str) -> bool:
    """Whether a statement asks."""
    return statement.rstrip(" \n\t*_$)\"'").endswith(("?", "\uff1f"))


def is_taken_back(after: str) -> bool:
    """Whether the words after an answer say that it is wrong: "5. But that is not correct"."""
    return _TAKEN_BACK.match(after) is not None


def withdraws(statement: str) -> bool:
    """Whether a statement ends by saying that it is wrong: "9, which is incorrect"."""
    return _TAKEN_BACK.search(statement, 1) is not None


def offers_alternatives(statement: str) -> bool:
    """Whether a statement names several answers, of which none is the answer alone: 6 (or 5)."""
    return _ALTERNATIVES.search(statement) is not None


def corrected(statement: str, after: str) -> str | None:
    """What a denied or withdrawn statement is replaced by: "not 5, it is 7"; "5. Wait, no, it is 7". Else None."""
    denial = _NOT.match(statement)
    if denial:
        instead = last(_INSTEAD.finditer(statement, denial.end()))
        found = statement[instead.end() :] if instead else said_after(after) or _said_next(after)
        return None if found is None else without_clause(found)
    return said_after(after) or _corrects_itself(statement)


def not_but(statement: str) -> str | None:
    """What follows "not ... but": "It's not 5 but 7". Else None."""
    found = _NOT_BUT.search(statement)
    return without_clause(statement[found.end() :]) if found else None


def _corrects_itself(statement: str) -> str | None:
    """ "5, no wait, 7", in one sentence."""
    wait = last(_WAIT.finditer(statement))
    if wait is None or wait.start() == 0:
        return None
    rest = _NOW.sub(" ", statement[wait.end() :]).strip(" ,.:;-\u2013\u2014*_")
    return rest if re.match(r"[$\\({-]{0,4}(?:\d|[A-J]\b)", rest) else None


def said_after(after: str) -> str | None:
    """What a text says after it has taken something back, or None."""
    wait = _WAIT.search(after[:MAX_STATEMENT])
    if not wait:
        return None
    now = last(_NOW.finditer(after, wait.start(), MAX_STATEMENT)) or _DIRECTLY.match(after)
    if now is None:
        return None
    return first_sentence(after[now.end() : now.end() + MAX_STATEMENT]).strip(" *_") or None


def _said_next(after: str) -> str | None:
    """What the sentence after a denial says the answer is: "not 5. It is 7"."""
    after = after.lstrip(" .\n*$)")
    now = _NOW.match(after)
    return first_sentence(after[now.end() :]).strip(" *_") or None if now else None


def without_clause(statement: str, is_answer: bool = False) -> str:
    """A statement without the clause that explains it.

    is_answer: it is called the answer, so that nothing that follows from it is one
    """
    clause, is_value = _EXPLAINS.search(statement), begins_with_value(statement)
    if is_value:
        clause = min(filter(None, (clause, _GOES_ON.search(statement))), key=lambda found: found.start(), default=None)
    if not clause or not statement[: clause.start()].strip():
        return statement
    rest = statement[clause.start() :]
    if _CONJUNCTION.search(statement[: clause.start()]):
        return statement  # I thought 41, but after a check it is 42
    if _CONCLUDES.match(rest) and not (is_answer and is_value) and re.search(r"\d", rest):
        return statement  # 18 eggs, so she makes 19
    return statement[: clause.start()]


def in_signs(statement: str) -> str:
    """A statement with the arithmetic in its first words in signs: minus 5, twice 8, half of 30."""
    statement = _WHICH_IS.sub("", _NONE_BUT.sub("", statement))
    for words, sign in _IN_SIGNS:
        statement = words.sub(sign, statement)
    return statement


def readings(statement: str, is_answer: bool = False) -> Iterator[str]:
    """What a statement may say the answer is, most likely first: without its clause, without the words before it."""
    statement = _EXCLAIMS.sub(r"\1", _MORE.sub(r"\1", statement.strip(" *_\t")))
    if offers_alternatives(statement):
        yield statement
        return
    plain_word = _YES_OR_NO.match(statement)
    if plain_word:
        yield plain_word[1]
    plain = without_clause(statement, is_answer).strip(" *_,")
    seen = {""}
    for text in (_after_words(plain), plain, statement):
        text = _ARTICLE.sub("", text.strip(" *_,"))
        if text not in seen:
            seen.add(text)
            yield text


def _after_words(text: str) -> str:
    """What comes after the last "is" or after "therefore"."""
    text = text[_leading(text) :]
    connective = last(_IS.finditer(text))
    if not connective or is_changed_before(text[: connective.start()]):
        return text
    after = text[connective.end() :]
    return _NO_GROUPS.sub(", ", after) if connective[0].startswith(("are", "were")) else after


def _leading(text: str) -> int:
    match = _LEADING.match(text)
    return match.end() if match else 0
