"""What this package uses of vLLM, read from the sources of both sides, so that nothing has to be imported.

Imports are found in our own files. Signatures and attributes that we override, wrap or read are listed in
tests/engine/vllm_contract.json, with the parameters that vLLM has.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from paths import ROOT

FILE = ROOT / "tests" / "engine" / "vllm_contract.json"
MORE = "..."  # at the end of a list: a release may take further parameters, which have defaults
USERS = ("vllm_rast", "tests", "scripts")


@cache
def our_imports() -> dict[str, list[str]]:
    """Every "module:name" of vLLM that our files import, and where; alternatives in a try count together ("a|b")."""
    found: dict[str, list[str]] = {}
    for folder in USERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for name in _imports(tree):
                found.setdefault(name, []).append(str(path.relative_to(ROOT)))
    return found


def _imports(tree: ast.AST) -> Iterator[str]:
    tried = [node for node in ast.walk(tree) if isinstance(node, ast.Try) and node.handlers]
    inside: set[ast.AST] = set()
    for node in tried:
        first = [name for part in node.body for name in _plain_imports(part)]
        other = [name for handler in node.handlers for part in handler.body for name in _plain_imports(part)]
        if first and other:
            yield from ("|".join(pair) for pair in zip(first, other, strict=True))
            inside |= {part for some in (node.body, *(h.body for h in node.handlers)) for part in some}
    yield from _plain_imports(tree, inside)


def _plain_imports(node: ast.AST, left_out: set[ast.AST] | None = None) -> Iterator[str]:
    if left_out and node in left_out:
        return
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
        yield from (f"{node.module}:{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (f"{alias.name}:" for alias in node.names if alias.name.partition(".")[0] == "vllm")
    for child in ast.iter_child_nodes(node):
        yield from _plain_imports(child, left_out)


class Sources:
    """The Python files of a vLLM, installed or unpacked."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cache  # noqa: B019  (one object for a whole check)
    def module(self, name: str) -> ast.Module | None:
        path = self.folder.joinpath(*name.split("."))
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return ast.parse(file.read_text(encoding="utf-8"))
        return None

    def has(self, name: str) -> bool:
        """Whether "module:name" can be imported; one of "a|b" is enough."""
        return any(self._has(*one.split(":")) for one in name.split("|"))

    def _has(self, module: str, name: str) -> bool:
        tree = self.module(module)
        if tree is None:
            return False
        if not name or self.module(f"{module}.{name}") is not None:
            return True
        if any(self._has(other, name) for other in _starred(module, tree)):
            return True
        lazily = any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))
        return name in set(_defined(tree.body)) or lazily

    def parameters(self, name: str) -> list[str] | None:
        """The parameters of "module:function" or "module:Class.method"; None if there is no such thing."""
        module, _, path = name.partition(":")
        tree = self.module(module)
        node: Any = tree
        for part in path.split("."):
            body = node.body if node is not None else []
            node = next((one for one in _flat(body) if getattr(one, "name", None) == part), None)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return None
        arguments = node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        return names + [f"*{a.arg}" for a in (arguments.vararg,) if a] + [f"**{a.arg}" for a in (arguments.kwarg,) if a]

    def mentions(self, module: str, attribute: str) -> bool:
        """Whether a module's source has an attribute or name of that spelling."""
        tree = self.module(module)
        return tree is not None and any(
            getattr(node, "attr", None) == attribute
            or getattr(node, "id", None) == attribute
            or getattr(node, "name", None) == attribute
            or getattr(node, "arg", None) == attribute
            for node in ast.walk(tree)
        )


def _starred(module: str, tree: ast.Module) -> Iterator[str]:
    """The modules from which a package's module imports everything."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            yield f"{module}.{node.module}" if node.level else node.module or ""


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from _flat(getattr(node, field, []) or [])


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for node in _flat(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def read_contract() -> dict[str, Any]:
    """{"functions": {"module:Class.method": [parameter, ...]}, "attributes": {"module": [name, ...]}}"""
    return json.loads(FILE.read_text())


def broken(sources: Sources) -> list[str]:
    """One line for everything that a vLLM lacks or has otherwise."""
    contract = read_contract()
    lines = [
        f"{name.replace(':', ' has no ')}, imported by {', '.join(sorted(set(users)))}"
        for name, users in our_imports().items()
        if not sources.has(name)
    ]
    for name, parameters in contract["functions"].items():
        now = sources.parameters(name)
        if now is None:
            lines.append(f"{name} is gone")
        elif now != parameters and not (parameters[-1:] == [MORE] and now[: len(parameters) - 1] == parameters[:-1]):
            lines.append(f"{name} takes ({', '.join(now)}), and not ({', '.join(parameters)}) as it did")
    for module, names in contract["attributes"].items():
        lines += [f"{module} no longer knows {name}" for name in names if not sources.mentions(module, name)]
    return lines
