"""Trees with other names for their unknowns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vllm_rast.grading.latex.parse import Node
from vllm_rast.grading.meaning.values import parts, symbols


def in_order(node: Node) -> list[str]:
    """The unknowns of a tree in the order in which they first occur."""
    if node.kind == "sym":
        return sorted(symbols(node))
    return list(dict.fromkeys(name for part in parts(node) for name in in_order(part)))


def rename(node: Node, old: Sequence[str], new: Sequence[str]) -> Node:
    """A tree with other names, all changed at once; an unknown that has one of them already gives way."""
    return _renamed(node, {name: f"{name}, another" for name in new} | dict(zip(old, new, strict=True)))


def _renamed(node: Node, names: Mapping[str, str]) -> Node:
    if node.kind == "sym":
        return Node("sym", (names.get(node.args[0], node.args[0]),))
    return Node(node.kind, tuple(_renamed_argument(arg, names) for arg in node.args))


def _renamed_argument(arg: Any, names: Mapping[str, str]) -> Any:
    if isinstance(arg, Node):
        return _renamed(arg, names)
    return tuple(_renamed_argument(part, names) for part in arg) if isinstance(arg, tuple) else arg
