"""The command line itself: what is accepted, what is refused and how."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from commands import refused

import vllm_rast
from vllm_rast.cli.main import COMMANDS, command, main
from vllm_rast.cli.parser import unknown_option, with_dashes

MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]
DRY = ["generate", "--dry-run", "--benchmark", "tiny"]


def test_help_names_every_command_and_loads_no_engine():
    script = (
        "import sys\n"
        "from vllm_rast.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: code = end.code\n"
        "print([m for m in ('torch', 'vllm', 'transformers', 'matplotlib', 'numpy', 'datasets') if m in sys.modules])\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"    {name}" in done.stdout for name in COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(capsys, name):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: vllm-rast {name}" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"vllm-rast {vllm_rast.__version__}\n"


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "vllm_rast", "--version"], capture_output=True, text=True)
    assert done.stdout == f"vllm-rast {vllm_rast.__version__}\n"


def test_unknown_commands_and_options(capsys):
    assert "invalid choice: 'generat'" in refused(capsys, ["generat"])
    assert "required: COMMAND" in refused(capsys, [])
    assert refused(capsys, ["evaluate", "x", "--jsn"]) == "unknown option --jsn; did you mean --json?"
    assert refused(capsys, ["benchmarks", "--zzz=1"]).startswith("unknown option --zzz; see --help")


def test_the_closest_option_is_named():
    known = ["--max-tokens", "--max-num-seqs"]
    assert unknown_option("--max_token=5", known) == "unknown option --max_token; did you mean --max-tokens?"


def test_underscores_are_dashes_in_names_only():
    typed = ["--top_p=a_b", "--max_tokens", "my_file", "--hf_overrides.head_dtype", "-x_y"]
    assert with_dashes(typed) == ["--top-p=a_b", "--max-tokens", "my_file", "--hf-overrides.head_dtype", "-x_y"]


def test_the_resume_command_can_be_pasted(monkeypatch):
    monkeypatch.setattr(sys, "argv", [".venv/bin/vllm-rast"])
    assert command(["demo"]) == ".venv/bin/vllm-rast demo"
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert (
        command(["generate", "--run", "a run", "--rows", "half=0.5"])
        == "vllm-rast generate --run 'a run' --rows half=0.5"
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--n", "0"], "--n 0: at least 1"),
        (["--n", "many"], "--n: invalid int value"),
        (["--temperature", "-1"], "--temperature: the temperature must be 0 or more, not -1"),
        (["--temperature", "nan"], "--temperature: the temperature must be 0 or more"),
        (["--temperature", "0", "--n", "4"], "--n 4: with --temperature 0 all samples of a problem are the same"),
        (["--top-p", "0"], "--top-p 0: it must be above 0"),
        (["--top-p", "1.5"], "--top-p 1.5: it must be above 0 and at most 1"),
        (["--max-tokens", "0"], "--max-tokens 0: at least 1"),
        (["--limit", "0"], "--limit 0: at least 1"),
        (["--alpha", "nan"], "alpha: expected a finite number"),
        (["--template", "papr"], "--template papr: no such template; did you mean paper?"),
        (["--benchmark", "tinny"], "--benchmark tinny: no such benchmark; did you mean tiny?"),
        (["--benchmark", "tiny", "tiny"], "--benchmark tiny: this name occurs twice"),
        (["--data", "none.jsonl"], "--data none.jsonl: no such file"),
        (["--data", "math500=x.jsonl"], "--data math500=x.jsonl: 'math500' is not among the benchmarks tiny"),
        (["--benchmark", "math500", "aime24", "--data", __file__], "several benchmarks need a folder"),
        (["--input", "none.jsonl"], "--input none.jsonl: no such file"),
        (["--recipe", "none.yaml"], "--recipe none.yaml: No such file"),
        (["--rows", ","], "--rows: name at least one row"),
        (["--rows", "base,base"], "--rows: the name 'base' occurs twice"),
        (["--rows", "bse"], "--rows bse: 'bse' is neither a model nor a number"),
        (["--rows", "0.5"], "--rows 0.5: a number needs a name; write NAME=0.5"),
        (["--rows", "a b=1"], "--rows a b=1: 'a b' is not a name"),
        (["--rows", "two=1/2"], "--rows two=1/2: alpha: 2 values for 1 pairs"),
        (["--rows", "x=positive:2"], "--rows x=positive:2: alpha: 'positive:2' is neither"),
        (["--rows", "hot=1@warm"], "--rows hot=1@warm: the temperature 'warm' is not a number"),
        (["--rows", 'x={"alpha": 1}'], '--rows x={"alpha": 1}: alpha: a schedule needs warmup'),
        (["--rows", 'x={"alpha": 1, base'], "looks like JSON but does not parse"),
        (["--rows", '{"until": 5}'], "is not a name; write NAME=ALPHA"),
        (["--rows", "inf=inf"], "--rows inf=inf: alpha: expected a finite number"),
        (["--pair", "one"], "--pair: expected POSITIVE,NEGATIVE[,ALPHA]"),
        (["--backend", "transformers", "--max-num-seqs", "5"], "--max-num-seqs: --backend transformers takes none"),
    ],
)
def test_wrong_values_name_the_option(capsys, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, [*DRY, *MODELS, *arguments])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--model", "org/base"], "--benchmark: name at least one"),
        (["--positive", "org/positive"], "--model: name the base"),
        (["--model", "org/base", "--alpha", "2", "--benchmark", "tiny"], "--alpha: there is nothing to mix"),
        (["--model", "org/base", "--rows", "rast", "--benchmark", "tiny"], "--rows rast: there is nothing to mix"),
        (["--model", "./none", "--benchmark", "tiny"], "model: there is no folder './none'"),
    ],
)
def test_models_that_do_not_fit(capsys, monkeypatch, tmp_path, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, ["generate", "--dry-run", *arguments])


def test_a_run_needs_a_folder(capsys):
    assert (
        refused(capsys, ["generate", "--benchmark", "tiny", *MODELS])
        == "--run: name the folder to write, such as --run runs/first"
    )


@pytest.mark.parametrize(
    "line, said",
    [
        ("{", "line 2: not JSON"),
        ("[]", 'line 2: expected either "question" or "prompt"'),
        ('{"answer": 1}', 'line 2: expected either "question" or "prompt"'),
        ('{"question": "a", "prompt": "b"}', 'line 2: expected either "question" or "prompt"'),
        ('{"question": "a", "answer": {}}', 'line 2: "answer" must be a text, a number or a list'),
        ('{"question": "a", "id": 0}', "lines 1 and 2 have the id '0'"),
    ],
)
def test_wrong_input_lines_are_named(capsys, tmp_path, line, said):
    path = tmp_path / "in.jsonl"
    path.write_text('{"question": "1?", "answer": [1, "2"]}\n' + line + "\n")
    assert said in refused(capsys, ["generate", "--dry-run", *MODELS, "--input", str(path)])


def test_a_dry_run_needs_no_network_for_a_benchmark_on_the_hub(capsys, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("a dry run went to the network"))
    assert (
        main(["generate", "--dry-run", *MODELS, "--benchmark", "math500", "gsm8k", "--n", "4", "--limit", "600"]) == 0
    )
    out = capsys.readouterr().out
    assert "math500: 500 problems (would be loaded from HuggingFaceH4/MATH-500:test@" in out
    assert "rast: 2,000 samples to make, 0 there" in out
    assert "rast: 2,400 samples to make, 0 there" in out


def test_a_dry_run_shows_the_first_prompt_and_writes_nothing(capsys, tmp_path):
    rows = tmp_path / "math500.jsonl"
    rows.write_text(json.dumps({"unique_id": "a", "problem": "What is 1 + 1?", "answer": "2", "subject": "s"}) + "\n")
    arguments = ["--benchmark", "math500", "--data", f"math500={rows}", "--run", str(tmp_path / "run")]
    with pytest.warns(UserWarning, match="1 rows instead of 500"):
        assert main(["generate", "--dry-run", *MODELS, *arguments]) == 0
    assert "Question:\nWhat is 1 + 1?\nAnswer:\nLet's think step by step.\n" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_warning_of_ours_is_one_line(tmp_path):
    rows = tmp_path / "math500.jsonl"
    rows.write_text(json.dumps({"unique_id": "a", "problem": "1 + 1?", "answer": "2", "subject": "s"}) + "\n")
    command = ["generate", "--dry-run", *MODELS, "--benchmark", "math500", "--data", str(rows)]
    done = subprocess.run([sys.executable, "-m", "vllm_rast", *command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith(f"vllm-rast: warning: math500: {rows} has 1 rows instead of 500")
    assert done.stderr.count("\n") == 1


def test_rows_with_several_pairs(capsys):
    more = ["--pair", "org/p2,,0.5", "--pair", "org/p3,org/n3", "--alpha", "2"]
    assert main([*DRY, *MODELS, *more, "--rows", "base,rast,one=1,all=1/0/-1,p=positive:2,n=negative:3"]) == 0
    formulas = [
        line.removeprefix("row        ") for line in capsys.readouterr().out.splitlines() if line.startswith("row")
    ]
    assert formulas == [
        "base = org/base",
        "rast = org/base + 2.0 * (org/positive - org/negative) + 0.5 * (org/p2) + 2.0 * (org/p3 - org/n3)",
        "one = org/base + 1.0 * (org/positive - org/negative) + 1.0 * (org/p2) + 1.0 * (org/p3 - org/n3)",
        "all = org/base + 1.0 * (org/positive - org/negative) + -1.0 * (org/p3 - org/n3)",
        "p = org/p2",
        "n = org/n3",
    ]


def test_rows_with_schedules(capsys):
    rows = ['base,late={"alpha": 1,"warmup":100}@0.5,ramp={"ramp": [[0, 0], [9, [1]]]}', "two=[[0, 1], [5, 0]]"]
    assert main([*DRY, *MODELS, "--rows", *rows]) == 0
    formulas = [
        line.removeprefix("row        ") for line in capsys.readouterr().out.splitlines() if line.startswith("row")
    ]
    mix = "org/base + alpha(t) * (org/positive - org/negative) with alpha(t) ="
    assert formulas == [
        "base = org/base",
        f'late = {mix} {{"alpha": 1, "warmup": 100}} at temperature 0.5',
        f'ramp = {mix} {{"ramp": [[0, 0], [9, [1]]]}}',
        f"two = {mix} [[0, 1], [5, 0]]",
    ]
    assert main([*DRY, *MODELS, "--pair", "org/p2,,0.5", "--rows", 'x={"until": 5}']) == 0
    mix = "org/base + alpha1(t) * (org/positive - org/negative) + alpha2(t) * (org/p2)"
    assert f'x = {mix} with alpha1(t), alpha2(t) = {{"until": 5}}\n' in capsys.readouterr().out


def test_engine_options_are_vllms_own(capsys, monkeypatch):
    pytest.importorskip("vllm")
    from vllm_rast.cli.engine_options import parse_engine_options
    from vllm_rast.mix.config import RastConfig

    options = ["--max-num-seqs", "64", "--no-enable-prefix-caching", "-tp", "2", "--max-model-len", "4k"]
    options += ["--hf-overrides.head_dtype", "float32", "--speculative-config", '{"method": "ngram"}']
    assert parse_engine_options(with_dashes(options), RastConfig("org/base")) == {
        "max_num_seqs": 64,
        "enable_prefix_caching": False,
        "tensor_parallel_size": 2,
        "max_model_len": 4000,
        "hf_overrides": {"head_dtype": "float32"},
        "speculative_config": {"method": "ngram"},
    }
    said = refused(capsys, [*DRY, *MODELS, "--tempreature", "0.5"])
    assert said == "unknown option --tempreature; did you mean --temperature?"
    said = refused(capsys, [*DRY, *MODELS, "--max-num-seq", "5"])
    assert said == "unknown option --max-num-seq; did you mean --max-num-seqs?"
    assert "--max-num-seqs: invalid int value: 'x'" in refused(capsys, [*DRY, *MODELS, "--max-num-seqs", "x"])
    assert main([*DRY, *MODELS, "--max_num_seqs", "5", "--hf-token", "secret"]) == 0
    out = capsys.readouterr().out
    assert "backend    vllm: max_num_seqs=5" in out
    assert "secret" not in out
