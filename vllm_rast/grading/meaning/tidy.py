"""Trees in fewer kinds: without a plus-minus, a scaled matrix, or degrees that are only a unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.meaning.renaming import rename
from vllm_rast.grading.meaning.values import parts, symbols

FORMULAS = frozenset({"num", "sym", "neg", "add", "mul", "div", "pow", "fn", "fact", "deg", "pct", "inf"})
_CIRCULAR = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def tidy(node: Node) -> Node:
    """A tree without a plus-minus, degrees or a matrix with a factor: the same answer in fewer kinds."""
    if contains(node, {"pm", "mp"}):
        node = _without_pm(node)
    if node.kind in {"mul", "div", "neg"} and contains(node, {"matrix"}):
        return _scaled_matrix(node)
    if node.kind == "seq" and node.args[0] == "[" and all(x.kind == "seq" and x.args[0] == "[" for x in node.args[2:]):
        return Node("matrix", tuple(row.args[2:] for row in node.args[2:]))
    if node.kind == "set" and not node.args:
        return Node("empty")
    if node.kind == "rel" and node.args[0] == ("=",) and node.args[1][1].kind == "sym":
        left, right = node.args[1]
        if not symbols(left) and symbols(right):
            return Node("rel", (("=",), (right, left)))
    return node


def without_arrows(node: Node, other: Node) -> Node:
    """A tree whose vectors have plain names if those of the other have: bold type and arrows are often left out."""
    vectors = [name for name in symbols(node) if name.startswith("vec:")]
    if not vectors or any(name.startswith("vec:") for name in symbols(other)) or _multiplies_vectors(node):
        return node
    plain = [name.removeprefix("vec:") for name in vectors]
    return node if symbols(node).intersection(plain) else rename(node, vectors, plain)  # r is the length of \\vec r


def _multiplies_vectors(node: Node) -> bool:
    """Whether a tree has a product of vectors, which is no product of numbers."""
    return node.args[:1] in {("dot",), ("cross",)} or any(map(_multiplies_vectors, parts(node)))


def contains(node: Node, kinds: set[str]) -> bool:
    return node.kind in kinds or any(contains(part, kinds) for part in parts(node))


def _without_pm(node: Node) -> Node:
    """One answer for each sign; all signs of a formula go together, as mathematicians mean it."""
    if node.kind in {"list", "set"}:
        items: list[Node] = []
        for arg in node.args:
            tidied = _without_pm(arg) if contains(arg, {"pm", "mp"}) else arg
            items.extend(tidied.args if tidied.kind == "list" else (tidied,))
        return Node(node.kind, tuple(items))
    return Node("list", (_signed(node, True), _signed(node, False)))


def _signed(node: Node, upper: bool) -> Node:
    if node.kind in {"pm", "mp"}:
        left, right = (_signed(part, upper) for part in node.args)
        plus = (node.kind == "pm") == upper
        return Node("add", (left, right if plus else Node("neg", (right,))))
    return Node(node.kind, tuple(_signed_argument(arg, upper) for arg in node.args))


def _signed_argument(arg: Any, upper: bool) -> Any:
    if isinstance(arg, Node):
        return _signed(arg, upper)
    if isinstance(arg, tuple):
        return tuple(_signed_argument(part, upper) for part in arg)
    return arg


def _scaled_matrix(node: Node) -> Node:
    """A matrix with a scalar factor, multiplied out; other products with matrices stay."""
    if node.kind == "neg" and node.args[0].kind == "matrix":
        return _map_matrix(node.args[0], lambda cell: Node("neg", (cell,)))
    if node.kind == "mul" and (node.args[0].kind == "matrix") != (node.args[1].kind == "matrix"):
        matrix, factor = sorted(node.args, key=lambda part: part.kind != "matrix")
        return _map_matrix(matrix, lambda cell: Node("mul", (factor, cell)))
    if node.kind == "div" and node.args[0].kind == "matrix":
        return _map_matrix(node.args[0], lambda cell: Node("div", (cell, node.args[1])))
    return node


def _map_matrix(matrix: Node, change: Callable[[Node], Node]) -> Node:
    return Node("matrix", tuple(tuple(change(cell) for cell in row) for row in matrix.args))


def has_loose_degrees(node: Node) -> bool:
    """Whether degrees stand in a formula but not in an argument of sine and the like."""
    if node.kind == "deg":
        return True
    inside = node.kind in FORMULAS - {"fn"} or (node.kind == "fn" and node.args[0] not in _CIRCULAR)
    return inside and any(has_loose_degrees(part) for part in parts(node))


def without_degrees(node: Node) -> Node:
    if node.kind == "deg":
        return without_degrees(node.args[0])
    if node.kind == "fn" and node.args[0] in _CIRCULAR:
        return node
    return Node(node.kind, tuple(without_degrees(arg) if isinstance(arg, Node) else arg for arg in node.args))


def contains_pi(node: Node) -> bool:
    return node == Node("sym", ("pi",)) or any(map(contains_pi, parts(node)))
