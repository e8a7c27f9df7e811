"""What the installed vLLM must have for this package: everything that is missing in one list."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from contract import Sources, broken, our_imports


def test_the_installed_vllm_has_everything_that_is_used() -> None:
    found = importlib.util.find_spec("vllm")
    assert found is not None and found.origin is not None
    missing = broken(Sources(Path(found.origin).parent.parent))
    assert not missing, "this vLLM has changed:\n" + "\n".join(missing)


def test_the_list_is_not_empty_and_a_wrong_name_is_found(tmp_path: Path) -> None:
    assert len(our_imports()) > 40
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("class LLM: ...")
    sources = Sources(tmp_path)
    assert sources.has("vllm:LLM") and not sources.has("vllm:SamplingParams") and sources.has("vllm:Nothing|vllm:LLM")
    assert any("SamplingParams" in line for line in broken(sources))
