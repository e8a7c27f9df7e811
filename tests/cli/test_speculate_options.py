"""`--speculate` and `--drafter`: read, shown and refused before anything loads."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from commands import refused

from vllm_rast.cli import serve
from vllm_rast.cli.doctor_findings import examine_speculation
from vllm_rast.cli.main import build_parser, main
from vllm_rast.cli.planning import models_of

MODELS = ["--model", "org/base", "--positive", "org/positive", "--negative", "org/negative"]
COMMANDS = {
    "generate": ["--dry-run", "--benchmark", "tiny", *MODELS],
    "sweep": ["--dry-run", "--benchmark", "tiny", *MODELS],
    "serve": ["org/base", *MODELS[2:]],
}


def config(*options: str) -> tuple[Any, str]:
    """speculate and drafter of the models that the options name."""
    models = models_of(build_parser().parse_args(["generate", *MODELS, *options]))
    return models.speculate, models.drafter


def test_what_is_said_is_what_the_models_get() -> None:
    assert config() == config("--speculate", "0") == (0, "positive")
    assert config("--speculate", "3") == (3, "positive")
    assert config("--speculate", "auto") == ("auto", "positive")
    assert config("--speculate", "2", "--drafter", "negative") == (2, "negative")
    assert config("--speculate", "1", "--drafter", "positive:2", "--pair", "org/p2,") == (1, "positive:2")
    # A recipe's drafter may stay while the command line switches drafts off.
    assert config("--speculate", "0", "--drafter", "negative") == (0, "negative")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "options, said",
    [
        (["--speculate", "17"], "speculate: expected an integer from 0 to 16"),
        (["--speculate", "-1"], "speculate: expected an integer from 0 to 16"),
        (["--speculate", "1.5"], "speculate: expected an integer from 0 to 16"),
        (["--speculate", "yes"], "speculate: expected an integer from 0 to 16"),
        (["--speculate", "9" * 5000], "speculate: expected an integer from 0 to 16"),
        (["--speculate"], "--speculate: expected one argument"),
        (["--speculate", "2", "--drafter", "base"], "drafter: base is the base itself"),
        (
            ["--speculate", "2", "--drafter", "positive:2"],
            "drafter: 'positive:2' is no model of the mix",
        ),
        (["--drafter", "positive"], "--drafter: nothing is drafted; add --speculate K"),
    ],
)
def test_wrong_values_name_the_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], said: str
) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # put back afterwards: `serve` sets it for its process
    message = refused(capsys, [command, *COMMANDS[command], *options])
    assert message.startswith(said) and len(message) < 300


def test_a_mix_without_a_positive_and_a_backend_without_drafts(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", "--dry-run", "--benchmark", "tiny", "--model", "org/base", "--speculate", "2"]
    assert refused(capsys, [*command, "--negative", "org/n"]).startswith("speculate: the positive drafts, and no pair")
    assert main([*command, "--negative", "org/n", "--drafter", "negative"]) == 0
    assert "org/n drafts" in capsys.readouterr().out
    said = refused(capsys, [*command, *MODELS[2:], "--backend", "transformers"])
    assert said.startswith("--speculate: --backend transformers drafts nothing")


def test_a_dry_run_says_what_is_on(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("generate", "sweep"):
        assert main([command, *COMMANDS[command], "--speculate", "3"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("drafts")]
        assert "speculate 3: org/positive drafts" in line and "no extra weights" in line
        assert main([command, *COMMANDS[command]]) == 0
        assert "drafts" not in capsys.readouterr().out


def test_a_recipe_carries_them(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: org/base\npair: ['org/p,org/n', 'org/p2,']\nbenchmark: [tiny]\nspeculate: 4\ndrafter: positive:2\n"
    )
    command = ["generate", "--dry-run", "--recipe", str(recipe)]
    assert main(command) == 0
    assert "speculate 4: org/p2 drafts" in capsys.readouterr().out
    assert main([*command, "--speculate", "1"]) == 0
    assert "speculate 1: org/p2 drafts" in capsys.readouterr().out
    assert main([*command, "--speculate", "0"]) == 0
    assert "drafts" not in capsys.readouterr().out
    recipe.write_text(recipe.read_text().replace("speculate: 4", "speculate: many"))
    assert "got 'many'" in refused(capsys, command)


def test_the_server_gets_them_in_the_additional_configuration() -> None:
    args = build_parser().parse_args(["serve", *MODELS, "--speculate", "3", "--drafter", "negative"])
    options = argparse.Namespace(
        additional_config=None, revision=None, served_model_name=None, load_format="auto", model=None
    )
    serve.put_mix_into(options, serve.models(args, None))
    rast = options.additional_config["rast"]
    assert (rast["speculate"], rast["drafter"]) == (3, "negative")


@pytest.mark.parametrize(("runner", "said"), [("V1", "may ask for fewer"), ("V2", "neither auto")])
def test_the_doctor_says_what_drafts_there_are(runner: str, said: str) -> None:
    finding = examine_speculation(runner)
    assert "--speculate K" in finding.value and said in finding.reason and finding.fine
