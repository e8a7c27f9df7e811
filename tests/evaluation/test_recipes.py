"""Every recipe is a plan that holds together, and together they make every row of the paper's table."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from paths import ROOT

from vllm_rast.cli.main import main
from vllm_rast.cli.recipe import recipe_arguments
from vllm_rast.errors import UserError

RECIPES = sorted((ROOT / "eval" / "recipes").glob("*.yaml"))
BENCHMARKS = ["math500", "aime24", "amc23", "minerva", "olympiadbench", "gsm8k"]
SHIPPED = ROOT / "vllm_rast" / "tiny" / "models" / "base" / "config.json"


def dry_run(capsys: pytest.CaptureFixture[str], recipe: Path, *more: str) -> list[str]:
    command = "sweep" if "sweep" in recipe.stem else "generate"
    assert main([command, "--dry-run", "--recipe", str(recipe), *more]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("vllm")  # the recipes name options of the engine
    real = socket.socket.connect
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        socket.socket,
        "connect",
        lambda self, address: real(self, address) if isinstance(address, str) else pytest.fail("a dry run went out"),
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_dry_run_of_every_recipe(capsys, recipe):
    if "tiny" in recipe.stem and not SHIPPED.exists():
        pytest.skip("the shipped models are not there")
    out = dry_run(capsys, recipe)
    said = yaml.safe_load(recipe.read_text())
    assert recipe.read_text().startswith("# ")
    assert [line.split()[1].rstrip(":") for line in out if line.startswith("benchmark")] == said["benchmark"]
    assert f"n {said['n']}" in "\n".join(out)
    assert any(" samples to make, 0 there" in line for line in out)
    engine = next(line for line in out if line.startswith("backend"))
    for name, value in said.get("engine", {}).items():
        assert f"{name.replace('-', '_')}={value}" in engine


def test_the_paper_s_table_is_complete(capsys):
    """Each base alone, with each smaller pair, and tuned directly; one folder for the rows of a base."""
    rows: dict[str, set[str]] = {}
    for recipe in RECIPES:
        if recipe.stem.split("-")[0] in ("32b", "14b", "7b"):
            out = dry_run(capsys, recipe)
            benchmarks = [line.split()[1].rstrip(":") for line in out if line.startswith("benchmark")]
            assert benchmarks == BENCHMARKS
            assert all("temperature 1, top_p 0.95, max_tokens 16384" in line for line in out if line[:9] == "benchmark")
            folder = out[0].split()[1]
            rows.setdefault(folder, set()).update(line.partition(" ")[2].strip() for line in out if line[:4] == "row ")
    tuned, plain = "hkust-nlp/Qwen-2.5-{}-SimpleRL-Zoo", "Qwen/Qwen2.5-{}"
    for base, pairs in {"32B": ["1.5B", "7B", "14B"], "14B": ["1.5B", "7B"], "7B": ["1.5B"]}.items():
        expected = {f"base = {plain.format(base)}", f"ceiling = {tuned.format(base)}"}
        for size in pairs:
            small, large = plain.format(size), tuned.format(size)
            expected.add(f"rast-{size.lower()} = {plain.format(base)} + 1.0 * ({large} - {small})")
            expected.add(f"positive-{size.lower()} = {large}")
        assert rows.pop(f"runs/qwen2.5-{base.lower()}:") == expected
    assert not rows


def test_the_command_line_goes_before_the_recipe(capsys):
    recipe = next(path for path in RECIPES if path.stem == "7b-1.5b")
    more = ["--n", "2", "--alpha", "0.5", "--benchmark", "aime24", "--tensor-parallel-size", "8", "--run", "runs/other"]
    out = "\n".join(dry_run(capsys, recipe, *more))
    assert "run        runs/other: " in out
    assert "Qwen/Qwen2.5-7B + 0.5 * (" in out
    assert "tensor_parallel_size=8" in out
    assert "math500" not in out
    assert "60 samples to make" in out


def test_a_recipe_s_values_become_arguments(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "top_p: 0.5\npair: ['a,b', 'c,d,2']\nrows: [base, x=1]\nengine: {enforce-eager: yes, a_b: no, c: {d: 1}}"
    )
    expected = ["--top-p", "0.5", "--pair", "a,b", "--pair", "c,d,2", "--rows", "base", "x=1"]
    expected += ["--enforce-eager", "--no-a-b", "--c", '{"d": 1}']
    assert recipe_arguments(str(path)) == expected


@pytest.mark.parametrize(
    "text, said",
    [("- n", "expected options and their values"), ("engine: 3", "expected options"), ("a: [", "not YAML")],
)
def test_what_is_no_recipe(tmp_path, text, said):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        recipe_arguments(str(path))


def test_a_wrong_option_in_a_recipe_is_named(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_text("model: org/base\nbenchmark: [tiny]\ntemperatur: 1")
    assert main(["generate", "--dry-run", "--recipe", str(path)]) == 2
    assert "unknown option --temperatur; did you mean --temperature?" in capsys.readouterr().err
