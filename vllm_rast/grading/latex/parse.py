"""Answers read into trees. A hand-written parser over tokens: nothing is evaluated, sizes and depth are bounded.

Trees are Node(kind, args):

    num value · sym name · inf · neg x · add x.. · mul x.. · div x y · pow x y · fn name x.. · pm x y · mp x y
    fact x · deg x · pct x · base digits b · word text
    list x.. · seq open close x.. · set x.. · matrix row.. · rel operators members · colon x.. · reals · empty
    union x.. · inter x.. · minus x y · unit x text · where x condition
    call name x.. · mod x modulus letter · cases (value, condition).. · family x (name, domain)..
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from vllm_rast.grading.latex.clean import NEW_ROW, clean
from vllm_rast.grading.latex.declarations import declarations
from vllm_rast.grading.latex.tokens import FUNCTIONS, MAX_CHARS, Token, Unreadable, tokenize, word_set

MAX_DEPTH = 40

OPENING = {"(", "[", "{", "\\{", "\\lfloor", "\\lceil", "\\begin"}
CLOSING = {")", "]", "}", "\\}", "\\rfloor", "\\rceil", "\\end"}
RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "~",
             "\\simeq": "~", "\\equiv": "=", "\\sim": "~", "\\cong": "~", "\\implies": "then", "\\Rightarrow": "then",
             "\\to": "->", "\\rightarrow": "->", "\\colon": ":", "\\mapsto": "->"}  # fmt: skip
_TIMES = {"\\cdot", "\\times", "*", "\\ast"}
_SETS = {"\\cup": "union", "\\cap": "inter", "\\setminus": "minus", "\\backslash": "minus", "\\smallsetminus": "minus"}
_MODULO = {"\\pmod", "\\bmod"}
_NO_FACTOR = CLOSING | RELATIONS.keys() | _TIMES | _SETS.keys() | _MODULO
_NO_FACTOR |= {"\\circ", "\\pm", "\\mp", "\\div", "\\degree", "\\mid", "\\|"}
_EMPTY = {"\\emptyset", "\\varnothing"}
_DECORATIONS = {
    "vec",
    "hat",
    "bar",
    "tilde",
    "dot",
    "ddot",
    "overline",
    "overrightarrow",
    "widehat",
    "underline",
    "mathring",
}
_UNKNOWN = {"int", "iint", "oint", "sum", "prod", "lim", "nabla", "partial", "iff", "forall", "exists", "mid", "not"}
_FILLER = word_set(
    "approximately about exactly roughly around only is are the answer option choice either both therefore thus so"
    " hence equals a an that we get have has gives to for all where when"
)


class Node(NamedTuple):
    """A part of an answer: see the module."""

    kind: str
    args: tuple[Any, ...] = ()


def num(value: int | Fraction) -> Node:
    return Node("num", (Fraction(value),))


@lru_cache(maxsize=8192)
def parse(text: str, thousands: bool = True, functions: frozenset[str] = frozenset()) -> Node:
    """The tree of an answer as written. Raises Unreadable if it has none of the known forms.

    functions: the letters that are functions: f(x) is else read as f times x
    """
    if len(text) > MAX_CHARS:
        raise Unreadable("too long")
    head, declared = declarations(clean(text))
    tokens = tokenize(head, thousands)
    if not tokens:
        raise Unreadable("nothing there")
    try:
        node = _Parser(tokens, 0, functions).answer()
        return Node("family", (node, *declared)) if declared else node
    except RecursionError:
        raise Unreadable("nested too deeply") from None


class _Parser:
    """Recursive descent over one stretch of tokens; brackets are read by a parser of their own on what is inside."""

    def __init__(self, tokens: list[Token], depth: int, functions: frozenset[str] = frozenset()):
        if depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        self.tokens, self.depth, self.at, self.functions = tokens, depth, 0, functions
        self.in_bars = False

    # Tokens

    def peek(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at].text if at < len(self.tokens) else ""

    def token(self) -> Token:
        if self.at >= len(self.tokens):
            raise Unreadable("it ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, text: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at].text == text and self.tokens[self.at].kind != "word":
            self.at += 1
            return True
        return False

    def inside(self) -> tuple[list[Token], str]:
        """What is between the bracket just taken and the one that closes it, and that one."""
        start, depth = self.at, 1
        while self.at < len(self.tokens):
            token = self.token()
            if token.kind in {"sign", "cmd"}:
                depth += (token.text in OPENING) - (token.text in CLOSING)
            if depth == 0:
                return self.tokens[start : self.at - 1], token.text
        raise Unreadable("a bracket is not closed")

    def sub(self, tokens: list[Token]) -> _Parser:
        return _Parser(tokens, self.depth + 1, self.functions)

    def whole(self, read: Callable[[], Node]) -> Node:
        node = read()
        if self.at < len(self.tokens):
            raise Unreadable(f"cannot read {self.peek()!r}")
        return node

    # Answers: lists of items

    def answer(self) -> Node:
        pieces = _split(self.tokens, lambda t: t.kind == "sep" or (t.kind == "sign" and t.text in {",", ";"}))
        pieces = [piece for piece in pieces if piece]
        if not pieces:
            raise Unreadable("nothing there")
        if len(pieces) > 1 and all(t.kind == "word" for piece in pieces for t in piece):
            return Node("list", tuple(_word(piece) for piece in pieces))
        groups = _split(self.tokens, lambda t: t.kind == "sign" and t.text == ";")
        if 1 < len(groups) < len(pieces) and all(groups):
            return self._groups(groups)
        items = _same_modulus([self.sub(piece).item() for piece in pieces])
        both = any(t.kind == "sep" and t.text == "and" for t in self.tokens)
        if both and all(item.kind == "rel" and set(item.args[0]) & {"<", ">", "<=", ">="} for item in items):
            return Node("inter", tuple(items))
        return items[0] if len(items) == 1 else Node("list", tuple(items))

    def _groups(self, groups: list[list[Token]]) -> Node:
        """p = 5, q = 2; p = 7, q = 2: each solution is one tuple."""
        solutions = [self.sub(group).answer() for group in groups]
        return Node("list", tuple(Node("seq", ("(", ")", *s.args)) if s.kind == "list" else s for s in solutions))

    def item(self) -> Node:
        """One answer, with its unit or the words before it."""
        self.tokens = [_RATIO if t == _TO and i else t for i, t in enumerate(self.tokens)]
        words = [i for i, token in enumerate(self.tokens) if token.kind == "word"]
        if not words or _depth_at(self.tokens, words[0]):
            return self.whole(self.relation)
        first = words[0]
        if all(_is_wordy(token) for token in self.tokens[first:]) and first == 0:
            return _word(self.tokens)
        if first == 0:
            return self._words_first()
        rest = self.tokens[first:]
        if any(t.text in RELATIONS and t.kind != "word" for t in rest):
            return self._words_in_relation()
        return self._with_unit(self.tokens[:first], rest)

    def _with_unit(self, head: list[Token], rest: list[Token]) -> Node:
        """A formula and the words after it: a multiplier, percent, and what then is its unit."""
        scale = num(1)
        while rest and rest[0].kind == "word" and rest[0].text.lower() in SCALES:
            scale = num(scale.args[0] * SCALES[rest[0].text.lower()])
            rest = rest[1:]
        number = None
        if scale != num(1):
            number = Node("mul", (scale, self.sub(head).whole_relation()))
        if head and head[-1].text == "\\degree" and len(rest) == 1 and rest[0].text in SCALES_OF_WARMTH:
            return Node("unit", (self.sub(head[:-1]).whole_relation(), SCALES_OF_WARMTH[rest[0].text]))
        if rest and _percent_words(rest):
            return Node("pct", (number or self.sub(head).whole_relation(),))
        if number is not None and not rest:
            return number
        while head and head[-1].text in {"/", "\\cdot", "*", "("} and head[-1].kind != "word":
            head = head[:-1]
        if not head or head[-1].text in {"+", "-", "^", "_", "="} or not _is_unit(rest):
            raise Unreadable("words in the middle of a formula")
        return Node("unit", (number or self.sub(head).whole_relation(), " ".join(t.text for t in rest)))

    def whole_relation(self) -> Node:
        return self.whole(self.relation)

    def _words_first(self) -> Node:
        end = 0
        while end < len(self.tokens) and self.tokens[end].kind == "word":
            end += 1
        if all(t.text.lower().strip(":") in _FILLER for t in self.tokens[:end]):
            return self.sub(self.tokens[end:]).item()
        return self._words_in_relation()

    def _words_in_relation(self) -> Node:
        """`Area = 5 cm`: the words before the last = only name what it is."""
        last = max((i for i, t in enumerate(self.tokens) if t.text in {"=", ":"} and t.kind == "sign"), default=0)
        before = self.tokens[:last]
        formula = any(t.kind == "num" or t.text in {"+", "-", "*", "/", "^"} for t in before[: _first_equals(before)])
        if not last or formula or last + 1 >= len(self.tokens) or _depth_at(self.tokens, last):
            raise Unreadable("words in the middle of a formula")
        return self.sub(self.tokens[last + 1 :]).item()

    # Relations and sets

    def relation(self) -> Node:
        members, operators = [], []
        if self.peek() in {"\\approx", "="} and len(self.tokens) > 1:
            self.at += 1
        members.append(self.modulo())
        while self.at < len(self.tokens) and self.peek() in RELATIONS and self.tokens[self.at].kind != "word":
            operators.append(RELATIONS[self.token().text])
            members.append(self.modulo())
        if self.peek() == ":" and not operators:
            return self.colon(members[0])
        return Node("rel", (tuple(operators), tuple(members))) if operators else members[0]

    def modulo(self) -> Node:
        """A member of a relation with its modulus: p for a congruence, b for the remainder of a division."""
        node = self.sets()
        while self.peek() in _MODULO:
            kind = self.token().text[1]
            node = Node("mod", (node, self.argument(whole_number=True) if kind == "p" else self.power(), kind))
        return node

    def colon(self, first: Node) -> Node:
        members, texts = [first], [self.tokens[self.at - 1].text]
        while self.accept(":"):
            start = self.at
            members.append(self.sets())
            texts.append(self.tokens[start].text)
        # Minutes have two digits: 10:30 is a time, 10:3 a ratio.
        two_digits = all(len(text) == 2 and text.isdigit() for text in texts[1:])
        return Node("time" if two_digits and len(texts[0]) <= 2 and texts[0].isdigit() else "colon", tuple(members))

    def sets(self) -> Node:
        node = self.sum()
        while self.peek() in _SETS or (self.peek() == "U" and node.kind in {"seq", "union"}):
            kind = _SETS.get(self.token().text, "union")
            other = self.sum()
            node = Node(kind, (*(node.args if node.kind == kind and kind != "minus" else (node,)), other))
        return node

    # Sums and products

    def sum(self) -> Node:
        node = self.signed()
        while True:
            if self.accept("+"):
                node = Node("add", (node, self.signed_product()))
            elif self.accept("-"):
                node = Node("add", (node, Node("neg", (self.signed_product(),))))
            elif self.peek() in {"\\pm", "\\mp"}:
                kind = self.token().text[1:]
                node = Node(kind, (node, self.product()))
            else:
                return node

    def signed_product(self) -> Node:
        """A product, or one with a sign of its own, as programs print it: 14.0 + -1.0i."""
        return Node("neg", (self.product(),)) if self.accept("-") else self.product()

    def signed(self) -> Node:
        if self.accept("-"):
            return Node("neg", (self.signed(),))
        if self.accept("+"):
            return self.signed()
        if self.peek() in {"\\pm", "\\mp"}:
            kind = self.token().text[1:]
            return Node(kind, (num(0), self.product()))
        return self.product()

    def product(self) -> Node:
        node = self.power()
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.text in _TIMES and token.kind != "word":
                self.at += 1
                other = self.signed_power()
                name, kinds = ("cross", _ARROWS | {"hat"}) if token.text == "\\times" else ("dot", _ARROWS)
                vectors = _has_vector(node, kinds) and _has_vector(other, kinds)
                node = Node("fn", (name, node, other)) if vectors else Node("mul", (node, other))
            elif token.text in {"/", "\\div"} and token.kind != "word":
                self.at += 1
                node = Node("div", (node, self.signed_power()))
            elif token.text == "\\circ":
                self.at += 1
                node = Node("fn", ("composed", node, self.power()))
            elif token.text == "U" and node.kind == "seq":
                return node
            elif self.starts_factor(token):
                node = self.implicit(node)
            else:
                return node
        return node

    def signed_power(self) -> Node:
        if self.accept("-"):
            return Node("neg", (self.signed_power(),))
        return self.power()

    def implicit(self, node: Node) -> Node:
        """A factor without a sign between: a product, or a mixed number such as 1\\frac{4}{5} and 1 4/5."""
        before = self.tokens[self.at - 1]
        whole = node if node.kind == "num" and node.args[0].denominator == 1 and before.kind == "num" else None
        if self.tokens[self.at].kind == "num" and before.kind == "num" and not _ends_in_power(node):
            top = self.token()
            if whole is None or self.peek() != "/" or self.at + 1 >= len(self.tokens):
                raise Unreadable("two numbers side by side")
            self.at += 1
            bottom = self.token()
            mixed = _mixed(whole, num(top.value or 0), num(bottom.value or 0)) or _refuse("a number after a number")
            return Node("pct", (mixed,)) if self.accept("%") else mixed
        factor = self.power()
        sign = factor.kind if factor.kind in {"pct", "deg"} else ""  # 33\\frac13\\% is a third more than 33 %
        fraction = factor.args[0] if sign else factor
        if whole is not None and fraction.kind == "div" and all(part.kind == "num" for part in fraction.args):
            proper = _mixed(whole, *fraction.args)
            if proper is not None:
                return Node(sign, (proper,)) if sign else proper
        return Node("mul", (node, factor))

    def starts_factor(self, token: Token) -> bool:
        if token.kind in {"num", "letter"}:
            return True
        if token.kind == "sign":
            return token.text in {"(", "[", "{"} or (token.text == "|" and not self.in_bars)
        if token.kind == "cmd":
            return token.text not in _NO_FACTOR
        return False

    # Powers and atoms

    def power(self) -> Node:
        node = self.atom()
        while self.at < len(self.tokens):
            if self.accept("^"):
                start = self.at
                exponent = self.exponent()
                applied = node.kind == "sym" and self.peek() == "("
                if applied and self.is_function(node.args[0]):  # a power of f by itself: f^{-1}(x), f^2(x)
                    power = "".join(t.text for t in self.tokens[start : self.at] if t.text not in {"{", "}", "(", ")"})
                    node = self.call(f"{node.args[0]}^{power}")
                elif applied and exponent == Node("neg", (num(1),)):
                    node = self.called(f"{node.args[0]}^-1")
                else:
                    squared = exponent == num(2) and _has_vector(node)
                    node = Node("fn", ("dot", node, node)) if squared else Node("pow", (node, exponent))
            elif node.kind == "sym" and self.peek() == "(" and self.is_function(node.args[0]):
                node = self.call(node.args[0])
            elif self.peek() == "_" and self.tokens[self.at].kind == "sign":
                self.at += 1
                node = self.subscript(node)
            elif self.accept("!"):
                node = Node("fact", (node,)) if node.kind != "fact" else _refuse("a double factorial")
            elif self.accept("%"):
                node = Node("pct", (node,))
            elif self.accept("\\degree"):
                if self.peek() in SCALES_OF_WARMTH and self.at == len(self.tokens) - 1:
                    return Node("unit", (node, SCALES_OF_WARMTH[self.token().text]))
                node = Node("deg", (node,))
            elif self.accept("'"):
                node = Node("sym", (_name(node) + "'",))
            else:
                return node
        return node

    def exponent(self) -> Node:
        """What follows ^; a further one belongs to it: 2^3^4 is 2^(3^4)."""
        node = self.argument(whole_number=True)
        return Node("pow", (node, self.exponent())) if self.accept("^") else node

    def subscript(self, node: Node) -> Node:
        """A name with an index, or a number in a base."""
        start = self.at
        if self.accept("{"):
            inner, _ = self.inside()
        else:
            inner = [self.token()]
        text = "".join(t.text for t in inner if t.text not in {"{", "}"})
        if node.kind == "num":
            digits = self.tokens[start - 2].text
            base = _BASES.get(text.lower().removeprefix("base"), text.removeprefix("base"))
            if digits.isdigit() and base.isdigit() and len(base) < 4 and int(base) > 1:
                return Node("base", (digits.lstrip("0") or "0", int(base)))
            raise Unreadable("an index on a number")
        return Node("sym", (f"{_name(node)}_{text}",))

    def argument(self, whole_number: bool = False) -> Node:
        """What a command or ^ applies to: a group in braces, or one token (of a number its first digit)."""
        if self.accept("{"):
            inner, _ = self.inside()
            return self._group(inner)
        if whole_number and self.accept("-"):
            return Node("neg", (self.argument(whole_number),))
        token = self.tokens[self.at] if self.at < len(self.tokens) else self.token()
        if token.kind == "num" and not whole_number and len(token.text) > 1 and token.text.isdigit():
            rest = token.text[1:]
            self.tokens = list(self.tokens)
            self.tokens[self.at] = Token("num", rest, Fraction(int(rest)))
            return num(int(token.text[0]))
        return self.atom()

    def _group(self, inner: list[Token]) -> Node:
        halves = _split(inner, lambda t: t.text == "\\choose")
        if len(halves) == 2:
            return Node("fn", ("binom", self._group(halves[0]), self._group(halves[1])))
        parser = self.sub(inner)
        return parser.whole(parser.relation)

    def atom(self) -> Node:
        token = self.token()
        if token.kind == "num":
            return num(token.value if token.value is not None else 0)
        if token.kind == "letter":
            return self.called(token.text)
        if token.kind == "sign":
            return self.bracket(token.text)
        if token.kind == "cmd":
            return self.command(token.text)
        raise Unreadable(f"cannot read {token.text!r}")

    def called(self, letter: str) -> Node:
        """A symbol, or its value at a number: I(0) is no product. Other f(x) are products unless f is a function."""
        if letter in _COUNTED and not self.is_function(letter) and self.peek() == "(":
            start = self.at
            count = self.call(letter)
            if len(count.args) == 3 and all(arg.kind in _COUNTED_KINDS for arg in count.args[1:]):
                return count
            self.at = start
        if self.is_function(letter):
            return Node("sym", (letter,))
        following = [t.text for t in self.tokens[self.at : self.at + 3]]
        if (
            len(following) == 3
            and following[0] == "("
            and following[2] == ")"
            and self.tokens[self.at + 1].kind == "num"
        ):
            self.at += 3
            return Node("sym", ("".join([letter, *following]),))
        return Node("sym", (letter,))

    def is_function(self, name: str) -> bool:
        return bool(self.functions) and name.rstrip("'").partition("_")[0] in self.functions

    def call(self, name: str) -> Node:
        """A function applied to what is in the bracket that follows; P(A | B) has a name of its own."""
        self.at += 1
        inner, closing = self.inside()
        bars = [i for i, t in enumerate(inner) if t.text in {"|", "\\mid"} and not _depth_at(inner, i)]
        if len(bars) == 1:
            name, pieces = name + "|", [inner[: bars[0]], inner[bars[0] + 1 :]]
        else:
            pieces = _split(inner, lambda t: t.kind == "sign" and t.text in {",", ";"})
        if closing != ")" or not all(pieces):
            raise Unreadable("brackets that do not match")
        return Node("call", (name, *(self.sub(piece).item() for piece in pieces)))

    def bracket(self, opening: str) -> Node:
        if opening == "|":
            return self.bars()
        if opening not in {"(", "[", "{"}:
            raise Unreadable(f"cannot read {opening!r}")
        inner, closing = self.inside()
        pieces = _split(inner, lambda t: t.kind == "sign" and t.text in {",", ";"})
        if opening == "{" and closing == "}":
            return self.set_of(inner) if len(pieces) > 1 else self._group(inner) if inner else Node("empty")
        if len(pieces) == 1:
            if opening == "(" and inner and all(t.kind == "word" for t in inner):
                return _word(inner)
            if (opening, closing) in {("(", ")"), ("[", "]")}:
                return self._group(inner)
            raise Unreadable("brackets that do not match")
        items = tuple(self.sub(piece).item() for piece in pieces)
        return Node("seq", (opening, closing, *items))

    def bars(self) -> Node:
        """An absolute value, a determinant or a length: the bars close at the next one, so they cannot nest."""
        start = self.at
        depth = 0
        while self.at < len(self.tokens):
            token = self.token()
            if token.kind in {"sign", "cmd"}:
                depth += (token.text in OPENING) - (token.text in CLOSING)
                if token.text == "|" and depth == 0:
                    inside = self._group(self.tokens[start : self.at - 1])
                    name = "det" if inside.kind == "matrix" else "norm" if _has_vector(inside) else "abs"
                    return Node("fn", (name, inside))
        raise Unreadable("a bar is not closed")

    def norm(self) -> Node:
        start = self.at
        while self.at < len(self.tokens):
            if self.token().text == "\\|":
                return Node("fn", ("norm", self._group(self.tokens[start : self.at - 1])))
        raise Unreadable("a bar is not closed")

    def set_of(self, inner: list[Token]) -> Node:
        """What stands in braces: members, or members and a condition."""
        bar = next(
            (i for i, t in enumerate(inner) if t.text in {"|", "\\mid", ":", "\\|"} and not _depth_at(inner, i)), None
        )
        if bar is not None and (inner[bar].text != "|" or sum(t.text == "|" for t in inner) == 1):
            condition = self.sub(inner[bar + 1 :]).answer()
            return Node("where", (self.sub(inner[:bar]).whole_relation(), condition))
        pieces = [p for p in _split(inner, lambda t: t.kind == "sep" or t.text in {",", ";"} and t.kind == "sign") if p]
        return Node("set", tuple(self.sub(piece).item() for piece in pieces)) if pieces else Node("empty")

    def command(self, command: str) -> Node:
        name = command[1:]
        if command == "\\{":
            inner, _ = self.inside()
            return self.set_of(inner)
        if name in {"frac", "binom"}:
            first, second = self.argument(), self.argument()
            return Node("div", (first, second)) if name == "frac" else Node("fn", ("binom", first, second))
        if name == "sqrt":
            return self.root()
        if name in {"lfloor", "lceil"}:
            inner, _ = self.inside()
            return Node("fn", ("floor" if name == "lfloor" else "ceil", self._group(inner)))
        if name == "begin":
            return self.matrix()
        if name in FUNCTIONS:
            return self.function(name)
        if name in _DECORATIONS:
            inner = self.inside()[0] if self.accept("{") else [self.token()]
            named = _decorated(name, "".join(t.text for t in inner))
            return num(int(named)) if named.isascii() and named.isdigit() else Node("sym", (named,))
        if command == "\\infty":
            return Node("inf")
        if command in _EMPTY:
            return Node("empty")
        if command == "\\mathbbR":
            return Node("reals")
        if command == "\\|":
            return self.norm()
        if name in _UNKNOWN or command in CLOSING | RELATIONS.keys() | _SETS.keys() | _MODULO:
            raise Unreadable(f"cannot read {command}")
        return Node("sym", (name,))

    def root(self) -> Node:
        index = num(2)
        if self.accept("["):
            inner, _ = self.inside()
            index = self._group(inner)
        return Node("pow", (self.argument(whole_number=True), Node("div", (num(1), index))))

    def function(self, name: str) -> Node:
        """A function with its power and base, applied to a bracket or to the factors that follow."""
        power = base = None
        for _ in range(2):
            if self.accept("^"):
                power = self.argument(whole_number=True)
            elif self.accept("_"):
                base = self.argument(whole_number=True)
        if name in {"gcd", "lcm", "max", "min"} and self.accept("("):
            inner, _ = self.inside()
            pieces = _split(inner, lambda t: t.kind == "sign" and t.text == ",")
            return Node("fn", (name, *(self._group(piece) for piece in pieces)))
        if power == Node("neg", (num(1),)) and name in {"sin", "cos", "tan", "cot"}:
            name, power = "arc" + name, None
        argument = self.function_argument()
        node = Node("fn", (name, argument) if base is None else (name, argument, base))
        return node if power is None else Node("pow", (node, power))

    def function_argument(self) -> Node:
        if self.accept("(") or self.accept("{") or self.accept("["):
            return self._group(self.inside()[0])
        if self.accept("-"):
            return Node("neg", (self.function_argument(),))
        node = self.power()
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            is_function = token.kind == "cmd" and token.text[1:] in FUNCTIONS
            if is_function or not self.starts_factor(token) or token.text in {"(", "|"}:
                return node
            node = Node("mul", (node, self.power()))
        return node

    def matrix(self) -> Node:
        """A matrix in round, square or curly brackets or in none, a determinant, a length or a function by cases."""
        inner, _ = self.inside()
        name = inner[0].text if inner and inner[0].kind == "env" else ""
        rows = [row for row in _split(inner[bool(name) :], lambda t: t.text == NEW_ROW) if row]
        cells = [_split(row, lambda t: t.kind == "sign" and t.text == "&") for row in rows]
        if name.rstrip("*") in {"cases", "dcases", "rcases"}:
            return self.cases(cells)
        node = Node("matrix", tuple(tuple(self.sub(cell).item() for cell in row) for row in cells))
        scalar = {"vmatrix": "det", "Vmatrix": "norm"}.get(name.rstrip("*"))
        return Node("fn", (scalar, node)) if scalar else node

    def cases(self, rows: list[list[list[Token]]]) -> Node:
        """Values and their conditions; rows without conditions are a system, whose order says nothing."""
        rows = [_value_and_condition(row[0]) if len(row) == 1 else row for row in rows]
        if all(len(row) == 1 for row in rows):
            return Node("list", tuple(self.sub(row[0]).item() for row in rows))
        if any(len(row) != 2 or not row[0] for row in rows):
            raise Unreadable("cases with more than two columns")
        return Node("cases", tuple((self.sub(value).item(), self.condition(when)) for value, when in rows))

    def condition(self, tokens: list[Token]) -> Node:
        while tokens and tokens[0].kind == "word" and tokens[0].text.lower() in _IF:
            tokens = tokens[1:]
        if not tokens or all(t.kind == "word" and t.text.lower() in _OTHERWISE for t in tokens):
            return OTHERWISE
        return self.sub(tokens).answer()


_COUNTED = {"C", "P"}  # C(10, 3) and P(10, 3): how many choices and arrangements
_COUNTED_KINDS = {"num", "sym", "add", "mul", "neg"}
_IF = {"if", "for", "when", "where", "whenever", "as", "all"}
_OTHERWISE = {"otherwise", "else", "elsewhere", "other", "cases", "in", "all"}
OTHERWISE = Node("word", ("otherwise",))
SCALES = {"tens": 10, "hundred": 100,
          "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12,
          "dozens": 12, "score": 20, "hundreds": 100, "thousands": 1000, "millions": 10**6, "billions": 10**9,
          "trillions": 10**12, "lakh": 10**5, "crore": 10**7}  # fmt: skip
SCALES_OF_WARMTH = {"C": "celsius", "F": "fahrenheit"}
_TO, _RATIO = Token("word", "to"), Token("sign", ":")  # 3 to 4 is 3:4
_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
          "ten": "10", "twelve": "12", "sixteen": "16"}  # fmt: skip


def _split(tokens: list[Token], separates: Callable[[Token], bool]) -> list[list[Token]]:
    """The stretches between separators outside all brackets."""
    pieces: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.kind in {"sign", "cmd"}:
            depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0 and separates(token):
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces


def _percent_words(tokens: list[Token]) -> bool:
    return " ".join(t.text.lower().strip(".") for t in tokens) in {"percent", "per cent", "pct", "percents"}


def _first_equals(tokens: list[Token]) -> int:
    return next((i for i, t in enumerate(tokens) if t.text == "=" and t.kind == "sign"), len(tokens))


def _is_unit(tokens: list[Token]) -> bool:
    """Whether words after a formula can be its unit: no sum, no number that is not a power."""
    for i, token in enumerate(tokens):
        if token.kind == "sign" and token.text in {"+", "="} and not _depth_at(tokens, i):
            return False
        if token.kind == "num" and not {t.text for t in tokens[max(i - 3, 0) : i]} & {"^", "_"}:
            return False
    return True


def _depth_at(tokens: list[Token], index: int) -> int:
    signs = [t.text for t in tokens[:index] if t.kind in {"sign", "cmd"}]
    return sum((s in OPENING) - (s in CLOSING) for s in signs)


def _is_wordy(token: Token) -> bool:
    return token.kind in {"word", "letter"} or token.text in {"(", ")", "-", "'", ":"}


def _word(tokens: list[Token]) -> Node:
    return Node("word", (" ".join(t.text for t in tokens if t.kind != "sign").casefold(),))


def _mixed(whole: Node, top: Node, bottom: Node) -> Node | None:
    """whole + top/bottom if that is a proper fraction of integers, else None."""
    values = [part.args[0] for part in (whole, top, bottom)]
    if any(value.denominator != 1 for value in values) or not 0 < values[1] < values[2]:
        return None
    return num(values[0] + values[1] / values[2])


def _ends_in_power(node: Node) -> bool:
    """Whether the last factor is a power, whose exponent is no number beside the next: 2^6 3^5."""
    return node.kind == "pow" or (node.kind == "mul" and _ends_in_power(node.args[1]))


_ARROWS = frozenset(["vec"])


def _has_vector(node: Node, kinds: frozenset[str] = _ARROWS) -> bool:
    """Whether a factor is a vector by its arrow or its bold type, which are one kind, or its hat."""
    if node.kind == "sym":
        return node.args[0].partition(":")[0] in kinds
    if node.kind == "fn" and node.args[0] != "cross":  # \\vec a \\cdot \\vec b, |\\vec a|
        return False
    return any(_has_vector(part, kinds) for part in node.args if isinstance(part, Node))


def _decorated(decoration: str, text: str) -> str:
    """The name of a letter with a hat or an arrow; bold, hats on i, j, k and the two arrows all make vectors."""
    plain = text.removeprefix("vec:").replace("\\imath", "i").replace("\\jmath", "j")
    if decoration == "overrightarrow" or (decoration == "hat" and plain in {"i", "j", "k"}):
        decoration = "vec"
    return plain if decoration == "vec" and plain.isdigit() else f"{decoration}:{plain}"


def _same_modulus(items: list[Node]) -> list[Node]:
    """x = 2, 5 (mod 7): the modulus of the last is that of all."""
    last = _member(items[-1])
    if last.kind != "mod" or len(items) < 2 or any(_member(item).kind == "mod" for item in items[:-1]):
        return items
    return [*(_with_modulus(item, last) for item in items[:-1]), items[-1]]


def _member(item: Node) -> Node:
    return item.args[1][-1] if item.kind == "rel" else item


def _with_modulus(item: Node, modulus: Node) -> Node:
    if item.kind != "rel":
        return Node("mod", (item, *modulus.args[1:]))
    operators, members = item.args
    return Node("rel", (operators, (*members[:-1], Node("mod", (members[-1], *modulus.args[1:])))))


def _value_and_condition(row: list[Token]) -> list[list[Token]]:
    """A row of a function by cases that has no column for its condition: x, x > 0 or x if x > 0."""
    for i, token in enumerate(row):
        starts = token.text == "," if token.kind == "sign" else token.kind == "word" and token.text.lower() in _IF
        if i and starts and not _depth_at(row, i):
            return [row[:i], row[i + (token.kind == "sign") :]]
    return [row]


def _refuse(reason: str) -> Node:
    raise Unreadable(reason)


def _name(node: Node) -> str:
    if node.kind != "sym":
        raise Unreadable("an index on a formula")
    return node.args[0]
