"""Shared models and engines. An engine start costs seconds, so a test module shares its engines."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

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

from vllm_rast.engine.compiling import has_headers
from vllm_rast.engine.llvmlite_guard import let_engines_start_again

let_engines_start_again()

# torch compiles logprobs, and two ranks' look for a token's rank, with Python's headers; both run uncompiled as well.
HAS_HEADERS = has_headers()
os.environ.setdefault("TORCH_COMPILE_DISABLE", "0" if HAS_HEADERS else "1")

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
    from engines import forget_engines

    engines: list[Any] = []
    forget_engines()  # of engines that ran before in this process, and had other models

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
    with patch.object(gc, "collect"):  # once for all of them is enough
        while engines:
            engines.pop().llm_engine.engine_core.shutdown()
    forget_engines()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `vllm-rast serve` of the shipped models, with all their aliases, the page and a trace, for all tests that ask.

    What it counts goes on from test to test, so that tests compare with what it said before.
    """
    import forked
    from serving import SHARED, serving

    with serving(tmp_path_factory.mktemp("server"), *SHARED, popen=forked.Popen) as server:
        yield server
        assert server.process.poll() is None, server.log.read_text()[-4000:]


# What a test needs, told by the fixtures that it uses; files that start their own processes say so themselves.
MARKED_BY_FIXTURE = {
    "start_engine": "engine",
    "engine": "engine",
    "server": "server",
    "stock_server": "server",
    "guarded_server": "server",
    "drafting_server": "server",
    "browser": "browser",
    "page": "browser",
}
MARKED_BY_FILE = {
    "test_backends": "engine",
    "test_generate_vllm": "engine",
    "test_engine_modes": "engine",
    "test_v2_runner": "engine",
    "test_v2_speculation": "engine",
    "test_serve": "server",
    "test_serve_life": "server",
    "test_serve_options": "server",
}


# With several test processes (pytest-xdist) the tests of a file run in one of them, where they share its engines.
# These share the server too, and those of the second list share nothing, since each starts processes of its own.
SHARING_THE_SERVER = (
    "tests/serving/test_serve_mix.py",
    "tests/serving/test_serve_fuzz.py",
    "tests/serving/test_serve_traces.py",
    "tests/serving/test_metrics_endpoint.py",
    "tests/serving/test_ui.py",
    "tests/examples/test_examples.py::test_the_client",
    "tests/evaluation/test_servers.py::test_real_servers",
)
SHARING_NOTHING = (
    "tests/engine/test_processes.py",
    "tests/engine/test_engine_modes.py::test_two_ranks",
    "tests/engine/test_engine_modes.py::test_compiled",
    "tests/serving/test_serve_life.py",
)
# What takes longest, and repetitions with other numbers: `make test-long`. Their shorter neighbours have stubs for
# engines, one rank, fewer faults.
LONG = (
    "tests/engine/test_engine_modes.py::test_compiled_with_an_adapter",
    "tests/engine/test_engine_modes.py::test_two_ranks_that_draft",
    "tests/engine/test_v2_speculation.py::test_samples_follow_the_mix",
    "tests/evaluation/test_ray.py::test_killed_in_the_middle[two at once]",
    "tests/evaluation/test_ray.py::test_many_random_faults",
    "tests/evaluation/test_ray.py::test_real_engines",
    "tests/evaluation/test_ray.py::test_the_driver_ends[15]",
    "tests/evaluation/test_ray.py::test_the_samples_are_the_same[1]",
    "tests/evaluation/test_ray.py::test_the_samples_are_the_same[2]",
    "tests/evaluation/test_ray_executor.py::test_two_ranks_on_two_nodes",
    "tests/evaluation/test_servers.py::test_real_servers",
    "tests/evaluation/test_several_engines.py::test_real_engines",
)
LONGEST_FIRST = (
    "tests/evaluation/test_ray.py",
    *SHARING_THE_SERVER,
    *SHARING_NOTHING,
    "tests/engine/test_v2_runner.py",
)


def group_of(nodeid: str) -> str:
    """The name of the tests that have to run in one process with this one."""
    if nodeid.startswith(SHARING_THE_SERVER):
        return "server"
    return nodeid if nodeid.startswith(SHARING_NOTHING) else nodeid.partition("::")[0]


def place_of(nodeid: str) -> int:
    """Long groups begin first, and the longest, which mostly waits, before all others."""
    return next((place for place, start in enumerate(LONGEST_FIRST) if nodeid.startswith(start)), len(LONGEST_FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: Any, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Grouped(config, log)


def pytest_collection_finish() -> None:
    """Spare the tests what an engine's start costs besides: see `engines`."""
    gc.freeze()
    # vLLM looks at an architecture in a process of its own, lest it initialise CUDA: 10 s of CPU for each.
    if registry := sys.modules.get("vllm.model_executor.models.registry"):
        registry._run_in_subprocess = lambda look: look()  # type: ignore[attr-defined]


def pytest_unconfigure() -> None:
    gc.unfreeze()  # what is frozen at the interpreter's end some libraries take for a leak


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: place_of(item.nodeid))
    for item in items:
        names = {mark for fixture, mark in MARKED_BY_FIXTURE.items() if fixture in getattr(item, "fixturenames", ())}
        names |= {mark for stem, mark in MARKED_BY_FILE.items() if item.path.stem == stem}
        if any("CUDA GPU" in str(mark.kwargs.get("reason")) for mark in item.iter_markers("skipif")):
            names.add("gpu")
        if item.nodeid in LONG or item.nodeid.partition("[")[0] in LONG:
            names.add("long")
        if not HAS_HEADERS and item.nodeid.startswith("tests/engine/test_engine_modes.py::test_compiled"):
            item.add_marker(pytest.mark.skip(reason="needs Python.h: apt-get install python3-dev"))
        for name in names:
            item.add_marker(name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say once, at the end, what was left out and how to get it."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("left out")
        for reason, number in reasons.most_common():
            terminalreporter.line(f"{number:4d} {'test' if number == 1 else 'tests'}: {reason}")
