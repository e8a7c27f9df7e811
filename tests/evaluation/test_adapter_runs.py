"""Runs with adapters: what a dry run says, and that samples are bound to an adapter too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllm_rast.cli.main import main
from vllm_rast.engine.launch import is_tiny
from vllm_rast.evaluation.runs.plan import weights_of
from vllm_rast.mix.adapter import CONFIG, WEIGHTS
from vllm_rast.mix.config import ModelPair, RastConfig
from vllm_rast.mix.model_names import TINY_FOLDER

SAID = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": True}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    (tmp_path / CONFIG).write_text(json.dumps({**SAID, "base_model_name_or_path": str(TINY_FOLDER / "negative")}))
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    return tmp_path


def test_a_dry_run(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--dry-run", "--model", "tiny:base", "--positive", str(adapter)]) == 0
    out = capsys.readouterr().out
    negative = TINY_FOLDER / "negative"
    assert f"pair 1      1 * ({adapter} - {negative})" in out
    assert f"adapter    {adapter}: rsLoRA, rank 8, merged into {negative}" in out
    assert f"row        rast = tiny:base + 1.0 * ({adapter} - {negative})" in out


def test_a_dry_run_of_an_adapter_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    pair = "owner/small+owner/lora,owner/small"
    assert main(["generate", "--dry-run", "--model", "o/base", "--pair", pair, "--benchmark", "aime24"]) == 0
    assert "adapter    owner/lora: not downloaded yet, merged into owner/small" in capsys.readouterr().out


def test_samples_are_bound_to_adapter_and_foundation(adapter: Path) -> None:
    def weights() -> str:
        return weights_of(RastConfig("tiny:base", (ModelPair(str(adapter)),)))[str(adapter)]

    before = weights()
    (adapter / WEIGHTS).write_bytes(b"trained")
    trained = weights()
    (adapter / CONFIG).write_text((adapter / CONFIG).read_text().replace("16", "32"))
    alone = weights_of(RastConfig("tiny:base", (ModelPair("tiny:negative"),)))["tiny:negative"]
    assert len({before, trained, weights(), alone}) == 4


def test_the_shipped_models_keep_their_options(adapter: Path) -> None:
    assert is_tiny(RastConfig("tiny:base", (ModelPair(str(adapter)),)))
    assert not is_tiny(RastConfig("tiny:base", (ModelPair(f"owner/small+{adapter}"),)))
