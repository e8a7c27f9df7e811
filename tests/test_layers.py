"""The package is a staircase: every room imports only from rooms below it, and no module imports itself by a detour."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

PACKAGE = "vllm_rast"
# From the ground up; rooms of one floor do not know one another.
FLOORS: list[set[str]] = [
    {"errors"},
    {"mix", "grading"},
    {"kernels"},
    {"engine", "reference"},
    {"llm"},
    {""},  # vllm_rast/__init__.py, the public face
    {"tiny"},
    {"evaluation.tasks"},
    {"evaluation.runs"},
    {"evaluation.scores"},
    {"evaluation.cluster"},
    {"evaluation.reports"},
    {"evaluation.analysis"},
    {"serving"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = {"torch", "vllm", "transformers", "matplotlib", "datasets"}
LIGHT_ROOMS = {"errors", "mix", "grading"}
# What may know vLLM; llm.py only its public face.
KNOWS_VLLM = {"engine", "serving", "llm"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth; what only type checkers read does not count."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return walk(ast.parse(path.read_text(encoding="utf-8")))


def room_of(module: str) -> str:
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["evaluation"] else parts[:1])


IMPORTS = {module: set(imports(path)) for module, path in MODULES.items()}
OWN = {module: {some for some in imported if some in MODULES} for module, imported in IMPORTS.items()}


def test_every_room_has_its_floor() -> None:
    assert {room_of(module) for module in MODULES} - {"evaluation"} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module: str) -> None:
    room = room_of(module)
    for imported in OWN[module]:
        other = room_of(imported)
        assert other == room or FLOOR[other] < FLOOR[room], f"{module} imports {imported} from the same floor or above"


def test_no_circles() -> None:
    left = {module: imported - {module} for module, imported in OWN.items()}
    while ends := {module for module, imported in left.items() if not imported & left.keys()}:
        left = {module: imported for module, imported in left.items() if module not in ends}
    assert not left, f"among these are circles: {sorted(left)}"


@pytest.mark.parametrize("module", MODULES)
def test_who_knows_what(module: str) -> None:
    """What a mix is and what an answer means need no framework; vLLM's internals stay in their rooms."""
    tops = {imported.partition(".")[0] for imported in IMPORTS[module]}
    room = room_of(module)
    if room in LIGHT_ROOMS:
        assert not tops & HEAVY
    if room != "evaluation.cluster":
        assert "ray" not in tops
    if room not in KNOWS_VLLM:
        assert "vllm" not in tops
    elif room == "llm":
        assert not any(imported.startswith("vllm.") for imported in IMPORTS[module])
