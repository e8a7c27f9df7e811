"""Two answers compared, a gold and a model's: True, False, or None if this module cannot decide.

Structure is compared here and by the gold's rules: a pair is not a set, an interval not its closure. Formulas are the
same if they have the same values at several points; those without unknowns are compared exactly or to 50 digits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

from vllm_rast.grading.latex.parse import Node, num
from vllm_rast.grading.latex.tokens import Unreadable
from vllm_rast.grading.meaning import units
from vllm_rast.grading.meaning.cases import same_cases
from vllm_rast.grading.meaning.families import same_families
from vllm_rast.grading.meaning.formulas import proportional, same_formula
from vllm_rast.grading.meaning.names import is_named, unnamed
from vllm_rast.grading.meaning.regions import INEQUALITIES, looks_like_region, region, same_region, unknown_of
from vllm_rast.grading.meaning.renaming import in_order, rename
from vllm_rast.grading.meaning.rules import PLAIN, Rules, Verdict
from vllm_rast.grading.meaning.tidy import (
    FORMULAS,
    contains,
    contains_pi,
    has_loose_degrees,
    tidy,
    without_arrows,
    without_degrees,
)
from vllm_rast.grading.meaning.values import (
    DEEP_BITS,
    TooLarge,
    Undefined,
    is_count,
    is_real,
    new_effort,
    precision,
    real,
    symbols,
    value,
)
from vllm_rast.grading.meaning.words import qualities, same_words

MAX_ITEMS = 200
NEAR = 0.02  # relative error of what stands after an approximately-equals sign: \\pi \\approx 3.1


def same(gold: Node, answer: Node, rules: Rules = PLAIN) -> Verdict:
    """Whether an answer means the same as the gold. None: not decided here."""
    new_effort()
    try:
        with precision(DEEP_BITS):
            return _same(without_arrows(gold, answer), without_arrows(answer, gold), rules)
    except (Unreadable, TooLarge, RecursionError):
        return None


def _same(gold: Node, answer: Node, rules: Rules) -> Verdict:
    gold, answer = tidy(gold), tidy(answer)
    if gold == answer:
        return True
    if "family" in {gold.kind, answer.kind}:
        return _families(gold, answer, rules)
    if gold.kind != "rel" and is_chain(answer):
        if not is_consistent(answer):
            return False
        answer = tidy(exact_member(answer))
        if answer.kind == "mod" and gold.kind in FORMULAS:  # 2^{10} = 2 (mod 7) gives the remainder 2
            answer = answer.args[0]
    if gold.kind == "rel" and answer.kind != "rel" and is_chain(gold):
        return is_consistent(gold) and _any(_same(member, answer, rules) for member in gold.args[1])
    if has_loose_degrees(gold) or has_loose_degrees(answer):
        return _with_degrees(gold, answer, rules)
    for applies, compare in _STEPS:
        if applies(gold) or applies(answer):
            return compare(gold, answer, rules)
    return same_formula(gold, answer, rules)


def _all(verdicts: Sequence[Verdict]) -> Verdict:
    """True if all are, False if one is, else None."""
    if any(v is False for v in verdicts):
        return False
    return None if any(v is None for v in verdicts) else True


def _any(verdicts: Iterable[Verdict]) -> Verdict:
    """True if one is, False if all are, else None."""
    undecided = False
    for verdict in verdicts:
        if verdict:
            return True
        undecided = undecided or verdict is None
    return None if undecided else False


# Chains: 2 + 3 = 5, \sqrt 2 \approx 1.41


def is_chain(node: Node) -> bool:
    """Whether a relation only says how one value without unknowns is written."""
    return (
        node.kind == "rel" and set(node.args[0]) <= {"=", "~"} and not any(symbols(member) for member in node.args[1])
    )


def is_consistent(chain: Node) -> bool:
    """Whether no step of a chain is wrong: 5 = 6 is, and 5 ~ 6; what cannot be compared passes."""
    operators, members = chain.args
    for operator, left, right in zip(operators, members, members[1:], strict=False):
        if operator == "=" and right.kind == "mod" and left.kind != "mod":
            left = Node("mod", (left, *right.args[1:]))
        if operator == "=" and _same(left, right, PLAIN) is False:
            return False
        if operator == "~" and not _is_near(left, right):
            return False
    return True


def _is_near(left: Node, right: Node) -> bool:
    try:
        a, b = real(value(left)), real(value(right))
    except (Unreadable, Undefined, TooLarge):
        return True
    return bool(abs(a - b) <= NEAR * abs(a))


def exact_member(chain: Node) -> Node:
    """The last member before the first that is only near."""
    operators, members = chain.args
    return members[operators.index("~")] if "~" in operators else members[-1]


def _with_moduli(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Residues of one modulus; 10 \\bmod 7 is also the number 3, a congruence is none."""
    if gold.kind == answer.kind:
        moduli = _same(gold.args[1], answer.args[1], PLAIN)
        if moduli is not True:
            return moduli
        values = [value(part) for part in (gold.args[0], answer.args[0], gold.args[1]) if not symbols(part)]
        if len(values) < 3 or not all(isinstance(v, Fraction) and v.denominator == 1 for v in values) or not values[2]:
            return _same(gold.args[0], answer.args[0], rules)
        return (values[0] - values[1]) % values[2] == 0
    modulo, other = (gold, answer) if gold.kind == "mod" else (answer, gold)
    return value(modulo) == value(other) if modulo.args[2] == "b" and other.kind in FORMULAS else False


def _with_degrees(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Degrees are a unit: 180 - 2a may be written with the sign or without. 60 degrees are pi/3, too."""
    in_units = _angles(gold, answer)
    if in_units != (gold, answer):
        return _same(*in_units, rules)
    plain = _same(without_degrees(gold), without_degrees(answer), rules)
    one_sided = has_loose_degrees(gold) != has_loose_degrees(answer)
    if plain is not False or not one_sided:
        return plain
    other = answer if has_loose_degrees(gold) else gold
    if not contains_pi(other):
        return False
    return same_formula(gold, answer, rules) if {gold.kind, answer.kind} <= FORMULAS else False


# Units, percent, words


def _with_units(gold: Node, answer: Node, rules: Rules) -> Verdict:
    unit_gold = gold.args[1] if gold.kind == "unit" else None
    unit_answer = answer.args[1] if answer.kind == "unit" else None
    bare_gold = gold.args[0] if gold.kind == "unit" else gold
    bare_answer = answer.args[0] if answer.kind == "unit" else answer
    said = qualities(gold), qualities(answer)
    if None not in said:
        return _same_qualities(*said)
    if bare_gold.kind == "word" or bare_answer.kind == "word":
        return False
    statements = [unit for unit in (unit_gold, unit_answer) if unit is not None and units.is_statement(unit)]
    if statements:  # n is even: all the words must agree
        return unit_gold == unit_answer and _same(bare_gold, bare_answer, rules)
    unit_gold = rules.unit if unit_gold is None else unit_gold
    if unit_gold is not None and unit_answer is not None:
        factor = units.factor(unit_gold, unit_answer)
        if factor is None:
            return False
        if factor != 1:
            bare_answer = Node("mul", (num(factor), bare_answer))
    return _same(bare_gold, bare_answer, rules)


def _angles(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Degrees as the unit that they are if the other side is in words: 60 radians."""
    sides = []
    for node, other in ((gold, answer), (answer, gold)):
        in_words = other.kind == "unit" and units.is_angle(other.args[1])
        sides.append(Node("unit", (node.args[0], "degrees")) if node.kind == "deg" and in_words else node)
    return sides[0], sides[1]


def _with_percent(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """10% is 10 if the gold has the sign, else 0.1; and 10 if the question may have asked for percent."""
    if gold.kind == answer.kind:
        return _same(gold.args[0], answer.args[0], rules)
    if gold.kind == "pct":
        plain = _same(gold.args[0], answer, rules)
        return plain or _same(Node("div", (gold.args[0], num(100))), answer, rules)
    fraction = _same(gold, Node("div", (answer.args[0], num(100))), rules)
    if fraction or symbols(gold):
        return fraction
    large = is_real(value(gold)) and abs(real(value(gold))) > 1
    return _same(gold, answer.args[0], rules) if large else fraction


def _with_words(gold: Node, answer: Node, rules: Rules) -> Verdict:
    said = qualities(gold), qualities(answer)
    return same_words(gold, answer) or (None not in said and _same_qualities(*said))


def _same_qualities(gold: Any, answer: Any) -> bool:
    """n odd, odd n, n is odd."""
    return bool(gold == answer)


# Lists, tuples, sets


def _items(node: Node) -> tuple[Node, ...]:
    """The members of a list, without the names they are given: x = 1, 2 and x = 1, x = 2 are 1, 2."""
    if node.kind not in {"list", "set"}:
        return (node,)
    node = Node(node.kind, tuple(item for item in node.args if not _is_integer_condition(item)) or node.args)
    named = [item for item in node.args if is_named(item)]
    names = {item.args[1][0] for item in named}
    if len(names) == 1 and (len(named) == len(node.args) or named == [node.args[0]]):
        return tuple(unnamed(item) for item in node.args)
    return node.args


def _is_integer_condition(node: Node) -> bool:
    """Whether an item is only k in Z, as after x = pi/4 + k pi."""
    return node.kind == "rel" and node.args[0] == ("in",) and node.args[1][1].args[:1] in {("mathbbZ",), ("mathbbN",)}


def _are_indexed(items: Sequence[Node]) -> bool:
    """Whether the names of items are x_1, x_2, ...: the order of such is arbitrary."""
    names = [item.args[1][0].args[0] for item in items if is_named(item) and item.args[1][0].kind == "sym"]
    return len(names) == len(items) and len({name.partition("_")[0] for name in names}) == 1


def _lists(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if looks_like_region(gold) or looks_like_region(answer):
        return _regions(gold, answer, rules)
    if gold.kind == "rel" and _is_tuple_equation(gold) and answer.kind == "list":
        return _by_names(gold, answer, rules)
    if "seq" in {gold.kind, answer.kind}:
        return _list_and_tuple(gold, answer, rules)
    if "empty" in {gold.kind, answer.kind}:
        return False
    golds, answers = _items(gold), _items(answer)
    if max(len(golds), len(answers)) > MAX_ITEMS:
        raise TooLarge
    if len(golds) != len(answers):
        if "set" not in {gold.kind, answer.kind}:
            return False
        golds, answers = tuple(_distinct(golds)), tuple(_distinct(answers))
    for items in (golds, answers):
        if _are_indexed(items):
            golds, answers = tuple(map(unnamed, golds)), tuple(map(unnamed, answers))
    if any(map(is_named, golds)) and not any(map(is_named, answers)):
        return _in_order([unnamed(item) for item in golds], answers, rules)
    if any(map(is_named, answers)) and not any(map(is_named, golds)):
        return _in_order(golds, [unnamed(item) for item in answers], rules)
    if rules.ordered and gold.kind == answer.kind == "list":
        return _in_order(golds, answers, rules)
    return _in_any_order(golds, answers, rules)


def _is_tuple_equation(node: Node) -> bool:
    """(x, y) = (4, -2)"""
    left, right = node.args[1][0], node.args[1][-1]
    return node.args[0] == ("=",) and left.kind == right.kind == "seq" and len(left.args) == len(right.args)


def _by_names(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """x = 4, y = -2 in any order for (x, y) = (4, -2)."""
    names, values = gold.args[1][0].args[2:], gold.args[1][-1].args[2:]
    given = {item.args[1][0]: unnamed(item) for item in answer.args if is_named(item)}
    if set(given) != set(names) or len(answer.args) != len(names):
        return _in_order(values, answer.args, rules) if not given else False
    return _in_order(values, [given[name] for name in names], rules)


def _list_and_tuple(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """A tuple whose parentheses one side left out: the order counts. A set is no tuple."""
    if "set" in {gold.kind, answer.kind} or answer.kind not in {"seq", "list"} or gold.kind not in {"seq", "list"}:
        one = next((x for x in (gold, answer) if x.kind in {"set", "list"}), None)
        if one is not None and len(one.args) == 1:
            other = answer if one is gold else gold
            return _same(one.args[0], other, rules) if one is gold else _same(other, one.args[0], rules)
        return False
    golds, answers = ([unnamed(x) for x in (n.args[2:] if n.kind == "seq" else n.args)] for n in (gold, answer))
    return _in_order(golds, answers, rules)


def _in_order(golds: Sequence[Node], answers: Sequence[Node], rules: Rules) -> Verdict:
    if len(golds) != len(answers):
        return False
    return _all([_same(g, a, rules) for g, a in zip(golds, answers, strict=True)])


def _in_any_order(golds: Sequence[Node], answers: Sequence[Node], rules: Rules) -> Verdict:
    """Whether the answers can be paired off with the golds. Sameness is transitive, so the first match will do."""
    if len(golds) != len(answers):
        return False
    left = list(answers)
    undecided = False
    for gold in golds:
        verdicts = [_same(gold, answer, rules) for answer in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _distinct(items: Sequence[Node]) -> list[Node]:
    kept: list[Node] = []
    for item in items:
        if not any(_same(item, other, PLAIN) for other in kept):
            kept.append(item)
    return kept


def _tuples(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if gold.kind != "seq" or answer.kind != "seq":
        if "matrix" in {gold.kind, answer.kind}:
            return _matrices(gold, answer, rules)
        if is_count(gold) or is_count(answer):  # the point P(2, 3)
            gold, answer = (Node("seq", ("(", ")", *n.args[1:])) if is_count(n) else n for n in (gold, answer))
            return _tuples(gold, answer, rules) if gold.kind == answer.kind else False
        if looks_like_region(gold) or looks_like_region(answer):
            return _regions(gold, answer, rules)
        return _relations(gold, answer, rules) if "rel" in {gold.kind, answer.kind} else False
    is_interval = len(gold.args) == 4 and len(answer.args) == 4
    if is_interval and gold.args[:2] != answer.args[:2]:
        return False
    return _in_order([unnamed(x) for x in gold.args[2:]], [unnamed(x) for x in answer.args[2:]], rules)


def _matrices(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """Cell by cell; a vector may be written as a tuple."""
    if gold.kind == "matrix" and answer.kind == "matrix":
        if [len(row) for row in gold.args] != [len(row) for row in answer.args]:
            return False
        golds, answers = ([cell for row in matrix.args for cell in row] for matrix in (gold, answer))
        return _in_order(golds, answers, rules)
    if "rel" in {gold.kind, answer.kind}:
        return _relations(gold, answer, rules)
    if any(node.kind in {"fn", "cases"} for node in (gold, answer)):  # a determinant or a length is a number
        return False
    matrix, other = (gold, answer) if gold.kind == "matrix" else (answer, gold)
    if other.kind != "seq" or min(len(matrix.args), max(map(len, matrix.args), default=0)) != 1:
        return None if contains(other, {"matrix"}) else False
    vector = [cell for row in matrix.args for cell in row]
    return _in_order(vector, other.args[2:], rules) if matrix is gold else _in_order(other.args[2:], vector, rules)


def _set_builders(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """{element : condition}: both must be the same, whatever the bound name is called."""
    if gold.kind != answer.kind:
        return None
    (element, condition), (other_element, other_condition) = gold.args, answer.args
    names, other_names = ([x for x in in_order(e) if x in symbols(c)] for e, c in (gold.args, answer.args))
    if len(names) != len(other_names):
        return False
    other_element, other_condition = (rename(n, other_names, names) for n in (other_element, other_condition))
    return _all([_same(element, other_element, rules), _same(condition, other_condition, rules)])


def _families(gold: Node, answer: Node, rules: Rules) -> Verdict:
    return same_families(gold, answer, lambda a, b: _same(a, b, rules))


def _by_cases(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if "rel" in {gold.kind, answer.kind}:
        return _relations(gold, answer, rules)
    return same_cases(gold, answer, lambda a, b: _same(a, b, rules))


def is_image(node: Node) -> bool:
    """Whether a set-builder's element is a formula and not just the unknown of its condition."""
    return node.kind == "where" and node.args[0].kind not in {"sym", "rel"}


def _regions(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if is_image(gold) or is_image(answer):
        return _set_builders(gold, answer, rules)
    names = unknown_of(gold), unknown_of(answer)
    if None not in names and names[0] != names[1]:
        return False
    try:
        return same_region(region(_bare_region(gold)), region(_bare_region(answer)))
    except (Unreadable, Undefined):
        if gold.kind == answer.kind == "where":
            return _set_builders(gold, answer, rules)
        if gold.kind == answer.kind == "rel":
            return _inequalities(gold, answer)
        if gold.kind == answer.kind and gold.kind in {"union", "inter", "list"}:
            return _in_any_order(gold.args, answer.args, rules)
        if gold.kind == answer.kind == "seq":
            return _tuples(gold, answer, rules)
        if any(node.kind == "rel" and set(node.args[0]) & INEQUALITIES for node in (gold, answer)):
            return False if gold.kind in FORMULAS or answer.kind in FORMULAS else None  # not solved, |x| < 2
        if "rel" in {gold.kind, answer.kind}:
            return _relations(gold, answer, rules)
        plain = any(n.kind in FORMULAS or (n.kind == "list" and not looks_like_region(n)) for n in (gold, answer))
        return False if plain else None


def _bare_region(node: Node) -> Node:
    """A region without the name in D = (0, 1)."""
    return unnamed(node) if is_named(node) else node


# Relations


def _relations(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if gold.kind == "rel" and answer.kind == "rel":
        return _two_relations(gold, answer, rules)
    if gold.kind == "rel":
        operators, members = gold.args
        if operators == ("in",):
            return _same(members[1], answer, rules)
        return _same(unnamed(gold), answer, rules) if is_named(gold) else False
    operators, members = answer.args
    if "then" in operators:
        last = max(i for i, operator in enumerate(operators) if operator == "then") + 1
        rest = Node("rel", (operators[last:], members[last:])) if operators[last:] else members[last]
        return _same(gold, rest, rules)
    if operators == ("in",):
        return _same(gold, members[1], rules)
    if set(operators) & INEQUALITIES or not set(operators) <= {"=", "~"}:
        return False
    if is_named(answer):
        rest = Node("rel", (operators[1:], members[1:])) if len(members) > 2 else members[1]
        if is_chain(rest) and not is_consistent(rest):
            return False
        return _same(gold, unnamed(answer), rules)
    if members[-1].kind == "sym" and "~" not in operators:
        return _same(gold, members[0], rules)
    known = symbols(gold)  # x + x = 2x is a step for 2x, S = 2x only names it
    steps = [(a, b) for a, b in zip(members, members[1:], strict=False) if symbols(a) | symbols(b) <= known]
    if any(_same(a, b, PLAIN) is False for a, b in steps if "~" not in operators):
        return False
    equation = contains(members[0], {"num"}) or members[-1] == num(0)
    chain = len(members) > 2 or not any(map(symbols, members)) or not equation
    if symbols(gold) or chain:  # 2 + 3 = 5, a + b = 4; x + x = 2x for 2x
        exact = members[operators.index("~")] if "~" in operators else members[-1]
        return _same(gold, members[-1] if symbols(exact) and not symbols(gold) else exact, rules)
    return False


def _two_relations(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if "then" in answer.args[0]:
        return None
    if set(gold.args[0]) & INEQUALITIES or set(answer.args[0]) & INEQUALITIES:
        return _regions(gold, answer, rules)
    if gold.args[0] == answer.args[0] == ("in",):
        return _regions(gold, answer, rules)
    (gold_left, gold_right), (left, right) = _ends(gold), _ends(answer)
    verdict = _all([_same(gold_left, left, rules), _same(gold_right, right, rules)])
    if verdict is not False:
        return verdict
    if is_named(gold) and is_named(answer):
        if "word" in {gold_left.kind, left.kind}:
            return _same(gold_right, right, rules)
        renamed = _rename_argument(gold_left, answer)
        if renamed is not None:
            return _same(gold_right, _ends(renamed)[1], rules)
    kinds = {part.kind for part in (gold_left, gold_right, left, right)}
    if kinds & {"seq", "set", "list", "matrix", "word", "unit", "mod", "cases"}:
        return False
    return proportional(_difference(gold_left, gold_right), _difference(left, right), signed=False)


def _ends(relation: Node) -> tuple[Node, Node]:
    return relation.args[1][0], unnamed(relation) if is_named(relation) else relation.args[1][-1]


def _rename_argument(gold_name: Node, answer: Node) -> Node | None:
    """f(n) = n or f = x for f(x) = x: with the gold's argument, or None if the names are not of that form."""
    name = answer.args[1][0]
    if name.kind == "sym" and gold_name.args[:1] in ((name,), name.args):
        return answer
    if name.kind != gold_name.kind or name.kind not in {"mul", "call"} or len(name.args) != len(gold_name.args):
        return None
    if name.args[0] != gold_name.args[0] or (name.kind == "mul" and name.args[0].kind != "sym"):
        return None
    if any(part.kind != "sym" for part in (*name.args[1:], *gold_name.args[1:])):
        return None
    return rename(answer, [part.args[0] for part in name.args[1:]], [part.args[0] for part in gold_name.args[1:]])


def _difference(left: Node, right: Node) -> Node:
    return Node("add", (left, Node("neg", (right,))))


def _inequalities(gold: Node, answer: Node) -> Verdict:
    """Inequalities in several unknowns: the same up to a positive factor, or turned round."""
    if len(gold.args[0]) != 1 or len(answer.args[0]) != 1:
        return None
    sides = []
    for (operator,), (left, right) in (gold.args, answer.args):
        if operator in {">", ">="}:
            left, right = right, left
        sides.append((operator.replace(">", "<"), _difference(left, right)))
    (gold_operator, gold_side), (operator, side) = sides
    return gold_operator == operator and proportional(gold_side, side, signed=True)


def _colons(gold: Node, answer: Node, rules: Rules) -> Verdict:
    if "rel" in {gold.kind, answer.kind}:
        return _relations(gold, answer, rules)
    if {gold.kind, answer.kind} == {"colon", "div"}:
        return _ratio_and_fraction(gold, answer, rules)
    if not {gold.kind, answer.kind} <= {"time", "colon"} or len(gold.args) != len(answer.args):
        return False
    if "time" in {gold.kind, answer.kind}:
        return _in_order(gold.args, answer.args, rules)
    crossed = [
        _same(Node("mul", (gold.args[0], y)), Node("mul", (answer.args[0], x)), rules)
        for x, y in zip(gold.args[1:], answer.args[1:], strict=True)
    ]
    return _all(crossed)


def _ratio_and_fraction(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """3:4 is the fraction 3/4."""
    ratio = gold if gold.kind == "colon" else answer
    if len(ratio.args) != 2:
        return False
    fraction = Node("div", ratio.args)
    return same_formula(fraction, answer, rules) if ratio is gold else same_formula(gold, fraction, rules)


def _bases(gold: Node, answer: Node, rules: Rules) -> Verdict:
    """A number in a base is the same only as a number in a base."""
    if "rel" in {gold.kind, answer.kind}:
        return _relations(gold, answer, rules)
    if gold.kind != answer.kind or max(gold.args[1], answer.args[1]) > 36:
        return False
    return value(gold) == value(answer)


_STEPS: list[tuple[Callable[[Node], bool], Callable[[Node, Node, Rules], Verdict]]] = [
    (lambda n: n.kind == "unit", _with_units),
    (lambda n: n.kind == "word", _with_words),
    (lambda n: n.kind in {"list", "set"}, _lists),
    (lambda n: n.kind == "seq", _tuples),
    (lambda n: n.kind == "matrix", _matrices),
    (looks_like_region, _regions),
    (lambda n: n.kind == "rel", _relations),
    (lambda n: n.kind == "mod", _with_moduli),
    (lambda n: n.kind == "cases", _by_cases),
    (lambda n: n.kind == "pct", _with_percent),
    (lambda n: n.kind in {"time", "colon"}, _colons),
    (lambda n: n.kind == "base", _bases),
]
