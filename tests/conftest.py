"""Shared models and engines. An engine start costs seconds, so a test module shares its engines."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# The engine in the test's own process: no second interpreter to start, and exceptions arrive where they belong.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# One thread, not bound to a core: the models are tiny, and two test runs on one machine must not fight over core 0.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# What a shell starts in the background ignores Ctrl-C, and the programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from vllm_rast.engine.llvmlite_guard import let_engines_start_again

let_engines_start_again()

ENGINE_OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 16,
    "block_size": 32,
    "seed": 0,
}


@pytest.fixture(scope="session")
def random_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of random models with one tokenizer of 90 ids: a base with 128 rows, small ones with 98 or 128."""
    from random_models import make_model

    root: Path = tmp_path_factory.mktemp("models")
    return {
        "base": make_model(root / "base", 1, architecture="llama", layers=3, width=128, heads=4),
        "positive": make_model(root / "positive", 2, vocab=98, kv_heads=1),
        "negative": make_model(root / "negative", 3, vocab=98, kv_heads=1),
        "llama": make_model(root / "llama", 4, architecture="llama", layers=1),
        "other": make_model(root / "other", 5, layers=1, width=128, heads=2),
    }


@pytest.fixture(scope="module")
def start_engine() -> Iterator[Callable[..., Any]]:
    """A function that starts an engine (RastLLM, or vllm.LLM where `plain=True`) with small defaults."""
    engines: list[Any] = []

    def start(model: str, *, plain: bool = False, **options: Any) -> Any:
        import vllm

        from vllm_rast import RastLLM

        options = {**ENGINE_OPTIONS, **options}
        if plain:
            options.setdefault("kv_cache_memory_bytes", 1 << 26)
        engine = (vllm.LLM if plain else RastLLM)(model, **options)
        engines.append(engine)
        return engine

    yield start
    from vllm.distributed import cleanup_dist_env_and_memory

    while engines:
        engines.pop().llm_engine.engine_core.shutdown()
    gc.collect()
    cleanup_dist_env_and_memory()
