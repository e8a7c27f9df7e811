"""Every recipe is a plan that holds together, and together they make every row of the paper's table."""

from __future__ import annotations

import json
import shutil
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


BEYOND = [path for path in RECIPES if path.read_text().startswith("# Not run here.")]


def test_recipes_beyond_the_paper_say_what_they_are(capsys):
    names = {path.stem for path in BEYOND}
    assert {"olmo3-32b", "r1-32b-deepscaler", "r1-32b-skywork", "orz-32b", "qwen3-14b", "laptop-0.5b"} <= names
    assert {"extrapolation", "adapter-1.5b", "r1-32b-justrl", "r1-32b-nemotron"} <= names
    (extrapolation,) = [path for path in BEYOND if path.stem == "extrapolation"]
    out = "\n".join(dry_run(capsys, extrapolation))
    further = "allenai/Olmo-3-1025-7B + 1.5 * (allenai/Olmo-3-7B-RL-Zero-Math - allenai/Olmo-3-1025-7B)"
    assert f"row        further = {further}" in out
    (adapter,) = [path for path in BEYOND if path.stem == "adapter-1.5b"]
    assert "adapter    tina: not downloaded yet, merged into deepseek-ai/" in "\n".join(dry_run(capsys, adapter))


def test_the_list_of_recipes(capsys):
    """Weights as the models' makers round them; every model of every recipe is known."""
    assert main(["recipes", "--json"]) == 0
    listed = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert listed.keys() == {path.stem for path in RECIPES if "model:" in path.read_text()}
    assert all(one["weights"] for one in listed.values())
    billions = {name: one["weights"] / 2e9 for name, one in listed.items()}
    assert billions["32b-base"] == pytest.approx(32.76, abs=0.1)
    assert billions["7b-1.5b"] == pytest.approx(7.62 + 2 * 1.54, abs=0.1)
    assert billions["llama-70b"] == pytest.approx(70.55 + 2 * 8.03, abs=0.2)
    assert billions["r1-32b-deepscaler"] == pytest.approx(32.76 + 2 * 1.78, abs=0.1)
    assert billions["qwen3-14b"] == pytest.approx(14.77 + 2 * 4.02, abs=0.1)
    assert billions["olmo3-32b"] == pytest.approx(32.2 + 2 * 7.3, abs=0.2)
    assert billions["extrapolation"] == pytest.approx(2 * 7.3, abs=0.1)
    assert listed["32b-base"]["kv_token"] == 2 * 2 * 64 * 8 * 128
    assert listed["32b-base"]["kv_request"] == listed["32b-base"]["kv_token"] * 18432
    assert listed["llama-70b"]["gpus"] == 8


def test_the_table_of_recipes(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "mine.yaml").write_text("model: owner/unknown\npair: ['o/p,o/n']\nalpha: 0.5")
    shutil.copytree(SHIPPED.parent, tmp_path / "folder")
    (tmp_path / "float.yaml").write_text(f"model: {tmp_path / 'folder'}\nengine: {{dtype: float32}}")
    assert main(["recipes", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "mine ? ? ? 1 ? owner/unknown + 0.5 * (o/p - o/n)" in out and "float 0.0 GiB" in out
    assert main(["recipes", str(tmp_path / "folder")]) == 2
    assert "no recipes; name a folder" in capsys.readouterr().err


def test_the_size_of_a_folder_is_what_it_stores():
    from vllm_rast.engine.stored import stored_tensors
    from vllm_rast.mix.model_names import ModelSource
    from vllm_rast.mix.shape import shape_of

    folder = str(SHIPPED.parent)
    stored = sum(one.numel for name, one in stored_tensors(folder).items() if len(one.shape) == 2)
    shape = shape_of(ModelSource(folder))
    assert shape is not None and shape.parameters == stored
    assert shape_of(ModelSource("owner/unknown")) is None


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
