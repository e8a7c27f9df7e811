"""Read a run's answers with all models of its mix, and keep their token traces."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vllm_rast.engine.launch import engine_defaults, reason_of
from vllm_rast.errors import UserError
from vllm_rast.evaluation.analysis.answers import StoredAnswer, chosen_samples, stored_answers
from vllm_rast.evaluation.runs.backends import loading, start_llm, telling_of_death
from vllm_rast.evaluation.runs.folder import RunFolder, without_speed
from vllm_rast.evaluation.runs.plan import ENGINES, SECRET_OPTIONS, plain, weights_of
from vllm_rast.evaluation.runs.progress import Progress
from vllm_rast.evaluation.runs.traces import TraceFolder, parts_of, texts_of_ids
from vllm_rast.mix.alpha import Alpha
from vllm_rast.mix.config import ModelPair, RastConfig

# Of a run's options: nothing is drafted where nothing is decoded, and one engine reads.
LEFT_OUT = ("speculative_config", ENGINES)
COLUMNS = 2  # the number of this set of columns; traces with another one are read again


@dataclass(frozen=True)
class Reading:
    """What shall be read. rows: None for all. alpha: the mix that reads every row; None as in `alpha_of_row`."""

    run: Path
    models: RastConfig
    rows: list[str] | None = None
    samples: int = 1
    problems: int = 50
    alpha: Alpha | None = None
    engine: dict[str, Any] = field(default_factory=dict)

    def config(self, run_config: dict[str, Any]) -> dict[str, Any]:
        """What makes traces what they are, for their folder's hash."""
        engine = {name: plain(value) for name, value in self.engine.items() if name not in SECRET_OPTIONS}
        return {
            "columns": COLUMNS,
            "models": {"base": self.models.base, "pairs": [asdict(pair) for pair in self.models.pairs]},
            "ceiling": self.models.ceiling,
            "weights": weights_of(self.models),
            "alpha": self.alpha,
            "run": run_config["config_hash"],
            "engine": without_speed(engine),
        }


class Reader(Protocol):
    """What reads answers. columns: the names of the numbers."""

    columns: list[str]

    def read(self, answers: Iterable[StoredAnswer]) -> Iterator[tuple[int, np.ndarray]]:
        """(place of the answer, its numbers [num_tokens, len(columns)]) as soon as each is finished."""
        ...


class VllmReader:
    """One engine that holds all models, the ceiling too."""

    def __init__(self, reading: Reading) -> None:
        self.use(start_llm(replace(reading.models, token_traces=True), reading.engine))

    def use(self, llm: Any) -> None:
        """Read with an engine that was started with token traces."""
        self.llm, self.columns = llm, llm.trace_columns

    @classmethod
    def of(cls, llm: Any) -> VllmReader:
        """A reader with an engine that is there already."""
        reader = cls.__new__(cls)
        reader.use(llm)
        return reader

    def read(self, answers: Iterable[StoredAnswer]) -> Iterator[tuple[int, np.ndarray]]:
        from vllm_rast.llm import Answer

        given = (Answer(one.prompt_ids, one.answer_ids, one.alpha, one.seed) for one in answers)
        return telling_of_death(self.llm.trace_answers(given))


def open_reader(reading: Reading) -> Reader:
    """Load the models. Raises UserError if they do not fit together or do not fit the machine."""
    with loading(reading.models):
        return VllmReader(reading)


def models_of_run(config: dict[str, Any], ceiling: str | None = None) -> RastConfig:
    """The models of a run; its ceiling is the one named, else the model of its row `ceiling` if that is one model."""
    pairs = tuple(ModelPair(**pair) for pair in config["models"]["pairs"])
    row = config["rows"].get("ceiling", {})
    if ceiling is None and isinstance(row.get("alpha"), str) and row["alpha"].partition(":")[0] == "positive":
        ceiling = row["formula"]
    return RastConfig(config["models"]["base"], pairs, ceiling=ceiling)


def engine_of_run(config: dict[str, Any], models: RastConfig, given: dict[str, Any]) -> dict[str, Any]:
    """The run's own engine options, and over them those given now."""
    own = config.get("engine") or {}
    return engine_defaults(models) | {name: value for name, value in own.items() if name not in LEFT_OUT} | given


def read_answers(reading: Reading, open_reader: Callable[[Reading], Reader]) -> Path:
    """Read every answer that is chosen and not read yet; returns the folder of the traces.

    The models are loaded only if needed. Raises UserError, before they are loaded, or RunError if a trace cannot be
    written; what was finished before is kept.
    """
    folder = RunFolder(reading.run)
    samples = chosen_samples(folder, reading.rows, reading.samples, reading.problems)
    with TraceFolder(reading.run, reading.config(folder.config), ()) as traces:
        done = traces.done()
        missing = [sample for sample in samples if sample.key not in done]
        if missing:
            tokenizer = tokenizer_of(reading)
            answers = list(stored_answers(folder, missing, reading.models, tokenizer, reading.alpha))
            print(f"vllm-rast: {len(answers):,} answers to read; loading the models", file=sys.stderr, flush=True)
            traces.add_vocabulary(texts_of_ids(tokenizer))
            read_missing(answers, traces, open_reader(reading))
    return traces.path


def tokenizer_of(reading: Reading) -> Any:
    """The base's tokenizer, or the one that the engine's options name. Raises UserError if there is none."""
    from transformers import AutoTokenizer

    base, options = reading.models.sources[0], reading.engine
    path = options.get("tokenizer") or base.path
    revision = options.get("tokenizer_revision") or (base.revision if path == base.path else None)
    trust = bool(options.get("trust_remote_code", False))
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the tokenizer of {path}: {reason_of(error)}") from error


def read_missing(answers: list[StoredAnswer], traces: TraceFolder, reader: Reader) -> None:
    """Read and keep them, and say at what cost."""
    traces.columns = reader.columns
    begin, read, kept = time.monotonic(), 0, 0
    with Progress("reading") as progress:
        for made, (place, numbers) in enumerate(reader.read(answers), 1):
            one = answers[place]
            traces.append(one.key, one.answer_ids, one.exact, numbers)
            read, kept = read + len(one.prompt_ids) + len(one.answer_ids), kept + len(one.answer_ids)
            progress(made, len(answers), len(one.prompt_ids) + len(one.answer_ids))
    traces.flush()
    rate = read / (time.monotonic() - begin)
    size = sum(path.stat().st_size for path in parts_of(traces.path))
    print(
        f"vllm-rast: read {read:,} tokens of prompts and answers, {rate:,.0f} tokens/s, and kept {kept:,} tokens of "
        f"answers; {traces.path} holds {size:,} bytes",
        file=sys.stderr,
        flush=True,
    )
    if inexact := sum(not one.exact for one in answers):
        print(
            f"vllm-rast: {inexact:,} of {len(answers):,} texts gave another number of tokens than were decoded",
            file=sys.stderr,
            flush=True,
        )
