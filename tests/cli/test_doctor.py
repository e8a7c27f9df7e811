"""The doctor says what is there, and fails where something keeps an engine from starting."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

import vllm_rast.cli.doctor_findings as doctor
from vllm_rast.cli.main import main


def findings(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--json"]) == code
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_names_versions_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, 0)
    assert found["vLLM"]["value"].startswith("0.32.")
    assert found["plug-in"]["value"] == "registered"
    assert found["runner"]["value"] in ("V1", "V2") and found["runner"]["reason"]
    assert {"torch", "CPU", "device", "combine_logits", "tiny models"} <= found.keys()


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "combine_logits" in capsys.readouterr().out


def test_missing_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "TINY_FOLDER", tmp_path)
    assert "train_tiny" in findings(capsys, 1)["tiny models"]["reason"]


def test_plugin_switched_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "lora_filesystem_resolver")
    assert findings(capsys, 1)["plug-in"]["value"] == "switched off"


def test_wrong_vllm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.31.0")
    assert "written for 0.32" in findings(capsys, 1)["vLLM"]["reason"]
