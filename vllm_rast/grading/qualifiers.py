"""What stands beside a value in a sentence and changes what is claimed.

"not 5", "at least 5", "twice 5", "5 is wrong", "5 or 6" and "5?" all hold a 5 that is not the answer. Words are read
outwards from the value: backwards over those that change nothing ("be", "the", "equal to") to the first that might,
and forwards in the same way. A verb such as "is" ends the way back, so that what it speaks of does not count: "the
number that is not prime is 9".
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NEAR = 120  # characters that are looked at on either side of a value
_WORD = re.compile(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)?|[^\sA-Za-z]")
_SPACERS = frozenset('*_$`"({[\\\u201c\u2018') | _words(
    "be being been equal equals equalling exactly precisely simply just really actually even the a an of as"
    " only possibly necessarily likely probably text textbf mathbf boxed answer value result number option choice"
    " correct final right true single given letter that"
)
_DENIALS = _words(
    "not never cannot neither nor none nobody nothing without except excluding unlike exclude excludes reject rejects"
    " eliminate eliminates wrong incorrect incorrectly false hardly doubt doubts avoid isnt wasnt arent cant"
)
_CHOOSES = _words("either whether if unless suppose assume assuming supposing otherwise")
_DOUBTS = _CHOOSES | _words("maybe perhaps possibly might could may")
_CHANGES = _words(
    "twice thrice double triple quadruple half third quarter fifth sixth seventh eighth ninth tenth after root"
    " square cube reciprocal inverse factorial multiple multiples plus times over under above below exceed exceeds"
    " exceeded exceeding surpass surpasses surpassed surpassing outnumbers excess short shy upwards between beyond"
    " past almost nearly barely from within per squared opposite negation absolute log"
    " logarithm sine cosine increments modulo mod power powers divisor divisors factor factors digit digits first"
    " last problem question exercise example step case part page section figure equation chapter theorem lemma"
    " table row line item note version such like"
)
_RELATIONS = _words("neq ne ge geq le leq gt lt > < \u2260 \u2264 \u2265 \u2a7d \u2a7e")
# Anywhere before a value in its clause: what is said of it is not that it is the answer.
_SPEAKS_OF = re.compile(
    r"\b(?:wrong(?:ly)?|incorrect(?:ly)?|mistaken(?:ly)?|mistakes?|errors?|fallac\w+|traps?|tempting"
    r"|na[i\u00ef]ve(?:ly)?"
    r"|(?:many|most|some) (?:students|people|solvers)|(?:one|you|some|they|people) (?:might|may|could)"
    r"|suppos\w+|assum\w+|imagine|pretend|according to|(?:wrote|writes|said|says)\s(?:that|down)|claimed|claims|asked"
    r"|disprove|contradiction|retract|let (?:the|our|my) \w+ be"
    r"|(?:everyone|everybody|people|others|most|many) (?:says?|said|thinks?|thought|claims?|believes?|gets?|got)"
    r"|thought to be|refuse|rhymes|fails to|draft|for (?:example|instance)|e\.g\.|looks? like|format|such as"
    r"|with probability|(?:won't|will not|wouldn't|would not|never|refuse to) (?:answer|say|write|choose|box|claim)"
    r"|don't (?:answer|say|write|choose|box)|do not (?:answer|say|write|choose|box))\b(?:(?!\b(?:but|so|therefore"
    r"|thus|hence)\b)[^,.;:\n])*$",
    re.IGNORECASE,
)
# One of several guesses: "guess 2: 5"; my guess is an answer.
_GUESSES = re.compile(
    r"\b(?:guesses|(?:first|second|third|another|next|other) guess|guess \d)\b[^.\n]{0,60}$", re.IGNORECASE
)
# A hint at the answer: "the answer begins with 5", "the answer minus 1 is 5".
_ABOUT_ANSWER = re.compile(
    r"\b(?:to the answer to (?:get|make|give)|answer(?:'s)?\s(?:begins?|starts?|ends?|has|contains|squared|cubed"
    r"|doubled|tripled|halved|plus|minus|times|divided|multiplied|increased|decreased|comes\s(?:after|before)|rhymes"
    r"|precedes|follows|digits?|(?:first|last)\s(?:digit|letter)|key|sheet|rounds?|mod(?:ulo)?))\b"
    r"(?:(?!\b(?:but|so|therefore|thus|hence)\b)[^,.;:\n]){0,60}$",
    re.IGNORECASE,
)
# These only look like denials.
EMPHASIS = re.compile(
    r"\b(?:(?:there is |there's )?no doubt(?: that)?|without (?:a |any )?doubt|none other than|no other than"
    r"|nothing but)\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|whether|suppos(?:e|ing)|assum(?:e|ing)|imagine|pretend|when)\s(?:that\s)?(?:(?:the|our|your|my"
    r"|its)\s)?(?:(?:final|correct|right|true)\s)?(?:(?:answer|result|value|solution|it|this)\s(?:is|was|were"
    r"|equals)\s)?[\s$*\\({]*$",
    re.IGNORECASE,
)
_BEFORE_TO = _words(
    "up limited restricted confined close closer closest next prior near nearest"
    " adjacent compared similar relative add added prime coprime proportional"
)
_BEFORE_BY = _words(
    "bounded limited capped restricted divisible divided multiplied multiply divide off decreased reduced"
)
_COPULAS = _words(
    "is was are were be seems seem appears looks would will must should can could does do did has have may might"
    " proves turns"
)
_WRONG = _words(
    "off not never wrong incorrect incorrectly false impossible invalid excluded rejected eliminated unacceptable"
    " untrue extraneous inadmissible mistaken inconsistent erroneous mistake error too"
)
_SAYS_NO = re.compile(
    r"(?:ain|isn|wasn|aren|doesn|don|didn|won|wouldn|can|couldn|shouldn|mustn|hasn)['\u2019]?t$|cannot$|fails?$"
    r"|contradicts$"
)
_CHANGES_AFTER = _words("factorial squared cubed")
_COMPUTES_WITH = _words("plus minus times modulo mod")
_FACTORS = [[word] for word in ("as", "smaller", "larger", "more", "less", "bigger", "greater", "fewer")]
_CONDITIONS = _words("if unless had provided")
_ALTERNATES = _words("alternatively otherwise else possibly maybe perhaps")
_COMPUTES_ON = re.compile(
    r"\s{0,3}(?:(?:percent|per cent|\\?%)\sof\s(?=[$\d\\])|raised\b|away\b|(?:increased|decreased|reduced|multiplied"
    r"|divided)\s(?:by|to)\b)"
)
_SAME_AGAIN = _words("equivalently simply in just more precisely rather exactly alternatively")
_OPEN_ENDED = _words("more less fewer greater higher lower above below over under so larger smaller older later")
_VALUE = re.compile(
    r"[\s*_$({\[\\\"'`]{0,6}(?:\d|\\(?:frac|dfrac|sqrt|pi|boxed|infty)|[A-Za-z](?![A-Za-z'\u2019])|[-\u2212+]\s?\d)"
)
_RANGE = re.compile(r"\s{0,3}(?:[-\u2013\u2014]|\bto\b|\bthrough\b|\.\.\.?)\s{0,3}\$?\d")
_FOREIGN_DENIES = re.compile(
    r"(?:不是|不等于|不为|并非|不選|不选|至少|至多|大于|小于|超过|不超过|不小于|不大于|约为?|可能)(?:是|为|等于)?\s{0,3}$"
    r"|\b(?:mayor|menor|más|menos|plus (?:grande? )?|moins|supérieure? à|inférieure? à|maior|menor|maggiore|minore"
    r"|größer|kleiner|mehr|weniger|больше|меньше)\s?(?:que|do que|di|de|als|чем)?\s[\s$*(\\]{0,4}$"
    r"|\b(?:al menos|como máximo|como mínimo|au moins|au plus|mindestens|höchstens|не менее|не более|pelo menos"
    r"|almeno)\s[\s$*(\\]{0,4}$"
    r"|(?:\b(?:не|no es|no son|n'est pas|ne vaut pas|pas|nicht|kein|não é|non è)\s|nunca es\s|(?:doppio di|doble de"
    r"|double de|doppelte von)\s|じゃない|ではない|[\u2717\u2718\u274c]\s?)[\s$*(\\]{0,4}$"
)
_FOREIGN_DENIED = re.compile(
    r"^[\s$)\]}*。，]{0,4}(?:是|为|項|项)?(?:错误|錯誤|错的|不对|不正确|不可能|不成立|不是|的两倍|的一半|的平方|和\S{1,9}之间|之间|以上|以下"
    r"|ではありません|ではない|じゃない|より|아닙니다|가 아니|이 아니|이상|이하)"
)
_AS_LARGE_AS = re.compile(r"\bas\s\w{1,12}\sas\s[$\\(]{0,3}$")
_WRONG_ANSWER = re.compile(
    r"\b(?:incorrect|wrong|false)\s(?:answer|result|value|guess)\s?:[\s$*(\\\[]{0,6}$", re.IGNORECASE
)
_BOUNDED = re.compile(
    r"\b(?:(?:less|greater|more|fewer|larger|smaller|higher|lower)\sthan\sor\s(?:exactly\s)?equal\sto"
    r"|at\sthe\s(?:very\s)?(?:most|least)|(?:bounded|limited|capped)\s(?:from\s)?(?:above|below)\sby"
    r"|(?<!least )(?<!greatest )(?:upper|lower)\s(?:bound|limit)\sof"
    r"|(?:never|not|n['\u2019]t|cannot)\s(?:quite\s|ever\s)?(?:reach(?:es)?|attains?|gets?\sto|hits?|arrives?\sat))"
    r"\s[\s$*(\\]{0,4}$",
    re.IGNORECASE,
)
_ONE_OF = re.compile(r"\b(?:one|any|some)\sof\s[\s\d,$.\\(){}]{0,60}(?:(?:or|and)\s)?[\s$\\(]{0,4}$", re.IGNORECASE)
_BETWEEN = re.compile(r"\b(?:between|from)\s[^\s,.]{1,20}\s(?:and|to)\s[\s$(\\]{0,4}$")
_NO_CLAIMS = (_FOREIGN_DENIES, _SPEAKS_OF, _CONDITION, _WRONG_ANSWER, _BETWEEN)
_HINTS = (_ABOUT_ANSWER, _GUESSES)
_LIMITS = (*_HINTS, _AS_LARGE_AS, _ONE_OF, _BOUNDED)
_PART_OF_WORD = re.compile(
    r"(?:-[a-z]|st\b|nd\b|rd\b|th\b|\u2030|\s{0,2}\+(?!\s?\d)|\s{0,2}[\u2717\u2718\u274c])"
)  # 8th, 3-digit
_QUOTED = re.compile(r"(?:^|\n)\s{0,3}>[\s*_`]{0,6}$")  # as mail and Markdown quote
_CLOSING = re.compile(r"^[\s*_$`\")}\]'\u201d\u2019]+")
_FALLS_SHORT = re.compile(r"\b(?:than)\s{1,9}\$?(?:\d|\\|[A-Za-z]\b(?!['\u2019]))")


def is_changed(before: str, after: str) -> bool:
    """Whether what stands before a value or after it, in its sentence, takes it back, bounds it or computes with it."""
    return is_changed_before(before) or is_changed_after(after)


def is_changed_before(before: str, only_denied: bool = False) -> bool:
    """Whether the words that lead to a value deny it, doubt it, bound it or compute with it.

    only_denied: bounds, doubts, hints and sums do not count; "at most \\boxed{2}" and "perhaps \\boxed{2}" give 2
    """
    before = EMPHASIS.sub(" ", before[-NEAR:])
    if any(pattern.search(before) for pattern in _NO_CLAIMS):
        return True
    if not only_denied and any(pattern.search(before) for pattern in _LIMITS):
        return True
    words = [word.lower().replace("\u2019", "'") for word in _WORD.findall(_QUOTED.sub(" ", before))]
    while words and _is_spacer(words):
        words.pop()
        if words and words[-1] == "not":
            return True
    if not words:
        return False
    if only_denied:
        return words[-1] in _DENIALS or words[-1] in _CHOOSES or bool(_SAYS_NO.search(words[-1]))
    return _changes(words[-1], words[-2] if len(words) > 1 else "")


def is_hint(before: str) -> bool:
    """Whether what leads to a value only hints at the answer, or guesses several times."""
    return any(pattern.search(before[-NEAR:]) for pattern in _HINTS)


def _is_spacer(words: list[str]) -> bool:
    """Whether the last of some words changes nothing; "to" only in "equal to" and its like."""
    if words[-1] == "to":
        return len(words) > 1 and words[-2] in {"equal", "amount", "equals", "equivalent"}
    return words[-1] in _SPACERS


def _changes(word: str, previous: str) -> bool:
    if word == "to":  # amounts to, fell to; but close to, prime to
        return previous in _BEFORE_TO
    if word == "by":
        return previous in _BEFORE_BY
    if word == "at":
        return previous in {"capped", "limited", "maxes", "peaks"}
    if word in {"least", "most", "minimum", "maximum"}:
        return previous == "at"
    if word == "but":
        return previous in {"anything", "everything", "all"}
    if word == "than" or word in _RELATIONS:
        return True
    return word in _DENIALS or word in _DOUBTS or word in _CHANGES or bool(_SAYS_NO.search(word))


def is_changed_after(after: str) -> bool:
    """Whether the words that follow a value in its sentence take it back, compute with it or name another."""
    after = after[:NEAR]
    if _FOREIGN_DENIED.search(after) or _RANGE.match(after) or _PART_OF_WORD.match(after):
        return True
    rest = _CLOSING.sub("", after)
    if rest[:1] in {"?", "\uff1f"}:
        return True
    found = list(_WORD.finditer(rest))
    words = [match[0].lower().replace("\u2019", "'") for match in found[:6]]
    if words and words[0] in {",", "("}:
        words, found = words[1:], found[1:]
        if words and words[0] != "or" and words[0] not in _ALTERNATES:
            return False
    if not words:
        return False
    if words[0] == "or":
        return _is_alternative(rest[found[0].end() :], words[1:])
    if words[0] in _COMPUTES_WITH:
        return _VALUE.match(rest[found[0].end() :]) is not None or words[1:2] in _FACTORS
    if words[0] in _CONDITIONS or words[0] in _ALTERNATES or _COMPUTES_ON.match(rest):
        return True
    if words[0] in _CHANGES_AFTER or _SAYS_NO.search(words[0]):
        return True
    if words[0] in {"more", "less", "fewer", "short", "greater", "smaller"}:
        return _FALLS_SHORT.search(rest) is not None
    if words[0] in _COPULAS and "bound" in words and not {"least", "greatest"} & set(words):
        return True
    return words[0] in _COPULAS and any(word in _WRONG or _SAYS_NO.search(word) for word in words[1:4])


def _is_alternative(rest: str, words: list[str]) -> bool:
    """Whether what follows an "or" is another value or leaves the value open, and does not say the same again."""
    if words and words[0] in _SAME_AGAIN:
        return False
    return bool(words) and (words[0] in _OPEN_ENDED or words[0] in _DOUBTS or _VALUE.match(rest) is not None)
