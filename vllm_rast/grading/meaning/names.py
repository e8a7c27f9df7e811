"""Answers with a name: x = 5, f(x) = 2x, (x, y) = (1, 2), Area = 12."""

from __future__ import annotations

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.meaning.values import symbols


def is_named(node: Node) -> bool:
    """Whether a tree is `name = value`."""
    if node.kind != "rel" or not set(node.args[0]) <= {"=", "~"}:
        return False
    return _is_name(node.args[1][0])


def _is_name(node: Node) -> bool:
    """A symbol, f(x), (x, y) or words: what an answer may be called."""
    if node.kind in {"sym", "word"}:
        return True
    if node.kind == "seq":
        return all(_is_name(part) for part in node.args[2:])
    if node.kind == "matrix":
        return all(cell.kind == "sym" for row in node.args for cell in row)
    if node.kind == "div":
        return all(map(_is_length, node.args))
    if _is_length(node):
        return True
    if node.kind == "call":
        return node.args[0].rstrip("|") in _CALLED or all(map(_is_argument, node.args[1:]))
    if node.kind == "mul" and _is_figure(node):
        return True
    if node.kind == "mul":
        return node.args[0].kind == "sym" and (
            node.args[1].kind in {"sym", "num", "seq"}
            or (node.args[0].args[0] in _CALLED and node.args[1].kind in {"rel", "union", "inter"})
        )
    return False


def _is_argument(node: Node) -> bool:
    """A name or a number in f(x), f(-1)."""
    return node.kind == "sym" or (node.kind in {"num", "neg", "div"} and not symbols(node))


def _is_figure(node: Node) -> bool:
    """Points of a figure: AB, \\angle ABC."""
    if node.kind == "mul":
        return all(map(_is_figure, node.args))
    return node.kind == "sym" and (node.args[0] in {"angle", "triangle", "m"} or node.args[0][:1].isupper())


_CALLED = {"P", "Pr", "E", "mathbbP", "mathbbE", "Var"}  # P(X = 3)


def _is_length(node: Node) -> bool:
    """A segment, its length or a power of that: NO, |AB|, AB^2."""
    if node.kind == "fn" and node.args[0] == "abs":
        return _is_figure(node.args[1])
    if node.kind == "pow":
        return node.args[1].kind == "num" and _is_length(node.args[0])
    return node.kind == "mul" and _is_figure(node)


def unnamed(node: Node) -> Node:
    """The value of `name = value`; of a chain its last exact member."""
    if not is_named(node):
        return node
    operators, members = node.args
    exact = operators.index("~") if "~" in operators[1:] else len(members) - 1
    return members[exact] if exact else members[-1]
