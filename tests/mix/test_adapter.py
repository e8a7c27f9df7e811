"""Names of adapters, and what is refused of them before anything loads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vllm_rast.errors import UserError
from vllm_rast.mix.adapter import CONFIG, WEIGHTS
from vllm_rast.mix.config import ModelPair, RastConfig, names_said
from vllm_rast.mix.model_names import ModelSource, adapter_config, is_shipped, look_up, parse_model

SAID: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "owner/small"}


def write(folder: Path, **said: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps({**SAID, **said}))
    return str(folder)


@pytest.fixture
def adapter(tmp_path: Path) -> str:
    return write(tmp_path / "adapter")


def test_what_it_stands_on(adapter: str, tmp_path: Path) -> None:
    assert parse_model(adapter, "positive") == ModelSource("owner/small", None, ModelSource(adapter))
    pinned = write(tmp_path / "pinned", revision="abc")
    assert parse_model(pinned, "positive") == ModelSource("owner/small", "abc", ModelSource(pinned))
    assert ModelPair(pinned).negative == "owner/small@abc"
    assert ModelPair(adapter, "owner/else").negative == "owner/else"
    assert ModelPair("owner/rl").negative is None
    assert ModelPair(None, adapter).positive is None


def test_another_foundation(adapter: str) -> None:
    source = parse_model(f"owner/other@1+{adapter}", "positive")
    assert source == ModelSource("owner/other", "1", ModelSource(adapter))
    assert parse_model(source.name, "positive") == source
    assert ModelPair(f"owner/other@1+{adapter}").negative == "owner/other@1"
    assert parse_model("owner/a+owner/b@2", "positive") == ModelSource("owner/a", None, ModelSource("owner/b", "2"))


def test_folders_with_a_plus(tmp_path: Path) -> None:
    adapter = write(tmp_path / "c+d")
    (tmp_path / "a+b").mkdir()
    (tmp_path / "a+b" / "config.json").write_text("{}")
    model = str(tmp_path / "a+b")
    assert parse_model(model, "model") == ModelSource(model)
    assert parse_model(adapter, "model").adapter == ModelSource(adapter)
    assert parse_model(f"{model}+{adapter}", "model") == ModelSource(model, None, ModelSource(adapter))


def test_a_shipped_foundation(adapter: str) -> None:
    assert is_shipped(f"tiny:negative+{adapter}") and not is_shipped(adapter)
    mix = RastConfig("tiny:base", (ModelPair(f"tiny:negative+{adapter}"),))
    assert mix.pairs[0].negative == "tiny:negative" and len(mix.sources) == 3


def test_an_adapter_of_the_hub_that_was_used_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    revision = "0" * 40
    folder = tmp_path / "models--owner--lora"
    write(folder / "snapshots" / revision)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    source = parse_model("owner/lora", "positive")
    assert source == ModelSource("owner/small", None, ModelSource("owner/lora"))
    config = adapter_config(source)
    assert config is not None and config.rank == 8


def test_the_hub_is_asked_about_ids_alone(adapter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(path: str, file: str, revision: str | None) -> str:
        assert file == CONFIG
        asked.append((path, revision))
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    look_up(["tiny:base", None, adapter, f"owner/a@1+{adapter}", "owner/b+owner/c@2", "/nowhere/else"])
    assert asked == [("owner/a", "1"), ("owner/b", None), ("owner/c", "2")]


def test_a_whole_model_with_an_adapter_s_configuration(adapter: str) -> None:
    (Path(adapter) / "config.json").write_text("{}")
    assert parse_model(adapter, "model").adapter is not None  # nothing but a description of the foundation
    (Path(adapter) / WEIGHTS).touch()
    assert parse_model(adapter, "model").adapter is not None
    (Path(adapter) / "model-00001-of-00002.safetensors").touch()
    assert parse_model(adapter, "model") == ModelSource(adapter)


def test_scales(tmp_path: Path) -> None:
    said = {"rank_pattern": {"q_proj": 4, r"layers\.0\.mlp.*": 2}, "alpha_pattern": {"0.self_attn.q_proj": 3}}
    config = adapter_config(parse_model(write(tmp_path / "a", **said), "positive"))
    assert config is not None
    assert config.scale("model.layers.1.self_attn.v_proj") == 2
    assert config.scale("model.layers.1.self_attn.q_proj") == 4
    assert config.scale("model.layers.0.self_attn.q_proj") == 0.75
    assert config.scale("model.layers.0.mlp.up_proj") == 8
    stable = adapter_config(parse_model(write(tmp_path / "b", use_rslora=True, r=16), "positive"))
    assert stable is not None and stable.scale("any") == 4


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "of the type 'PROMPT_TUNING'"),
        ({"peft_type": "IA3"}, "of the type 'IA3'"),
        ({"peft_type": None}, "of the type None"),
        ({"r": 0}, "its r is 0"),
        ({"lora_alpha": "8"}, "its lora_alpha '8'"),
        ({"rank_pattern": {"q": 0}}, "its rank_pattern"),
        ({"rank_pattern": [1]}, "its rank_pattern"),
        ({"alpha_pattern": {"q": True}}, "its alpha_pattern"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' changes the model"),
        ({"init_lora_weights": "loftq"}, "'loftq' changes the model"),
        ({"alora_invocation_tokens": [1, 2]}, "it uses alora_invocation_tokens"),
        ({"use_qalora": True}, "it uses use_qalora"),
        ({"layer_replication": [[0, 1]]}, "it uses layer_replication"),
        ({"trainable_token_indices": [3]}, "it uses trainable_token_indices"),
        ({"target_parameters": ["experts.down_proj"]}, "it uses target_parameters"),
        ({"something_new": 1}, "it uses something_new"),
        ({"base_model_name_or_path": None}, "does not say what it stands on; write MODEL+"),
        ({"base_model_name_or_path": "/elsewhere/models/small"}, "which is not here; write MODEL+"),
    ],
)
def test_what_is_refused(tmp_path: Path, said: dict[str, Any], named: str) -> None:
    folder = write(tmp_path / "a", **said)
    with pytest.raises(UserError) as caught:
        ModelPair(folder)
    message = str(caught.value)
    assert message.startswith("positive: the adapter ") and named in message and "\n" not in message
    if "stand" not in named and "write" not in named:
        assert "merge it with peft first" in message


def test_options_that_are_not_in_use_are_no_matter(tmp_path: Path) -> None:
    unused = {"use_qalora": False, "loftq_config": {}, "arrow_config": None, "ensure_weight_tying": False, "new": []}
    assert parse_model(write(tmp_path / "a", **unused), "positive").adapter is not None


def test_sums_that_are_none(adapter: str, tmp_path: Path) -> None:
    for name, named in [
        (f"owner/a+{tmp_path}", "is not a PEFT adapter"),
        ("owner/a+/nowhere/else", "no folder '/nowhere/else'"),
        (f"{adapter}+{write(tmp_path / 'second')}", "stands on another adapter"),
        ("owner/a+", "a side is missing"),
        ("+owner/a", "a side is missing"),
    ]:
        with pytest.raises(UserError, match="^positive: ") as caught:
            parse_model(name, "positive")
        assert named in str(caught.value)
    (Path(adapter) / CONFIG).write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        parse_model(adapter, "positive")


def test_a_folder_of_neither(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json"):
        parse_model(os.fspath(tmp_path), "positive")


def test_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "small.Q4_K_M.GGUF").touch()
    for name in (str(tmp_path / "small.Q4_K_M.GGUF"), str(tmp_path), "small.gguf", f"owner/a+{tmp_path}/x.gguf"):
        with pytest.raises(UserError, match=r"^positive: .*is a GGUF file, .* gguf_file=FILE\)") as caught:
            parse_model(name, "positive")
        assert "\n" not in str(caught.value)


def test_a_folder_of_gguf_files_and_a_configuration(tmp_path: Path) -> None:
    """As the hub has them; other weights beside them are read."""
    for name in ("config.json", "small.Q4_K_M.gguf"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=r"^positive: 'small.Q4_K_M.gguf' is a GGUF file"):
        parse_model(str(tmp_path), "positive")
    (tmp_path / "model.safetensors").touch()
    assert parse_model(str(tmp_path), "positive").path == str(tmp_path)


@pytest.mark.parametrize("pairs", [5, "ab", [5, None, {"positive": 3}], {"positive": "a"}])
def test_names_are_looked_for_in_whatever_was_said(pairs: Any) -> None:
    """Before anything is checked, the hub is asked about names alone."""
    assert names_said({"positive": "one/model", "pairs": pairs}) == ["one/model"]
    said = {"pairs": [ModelPair("tiny:positive"), {"negative": "tiny:negative"}]}
    assert names_said(said) == ["tiny:positive", "tiny:negative"]
