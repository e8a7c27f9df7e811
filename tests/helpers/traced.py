"""Traces made up for the tests: a run of the shipped models' tokenizer, a reader that makes numbers up, and tables."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from fake_decoding import FakeBackend
from transformers import AutoTokenizer

from vllm_rast.evaluation.analysis.answers import StoredAnswer
from vllm_rast.evaluation.analysis.table import TraceTable
from vllm_rast.evaluation.runs.decode import Completion, Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.mix.model_names import TINY_FOLDER

COLUMNS = ["base_logprob", "base_rank", "base_entropy", "base_argmax"]
COLUMNS += ["mix_logprob", "mix_rank", "mix_entropy", "mix_argmax", "kl_mix_base", "js_mix_base"]
TEXTS = {
    "base": "The answer is \\boxed{3}.",
    "mix": "Buying the abacus at 0 makes 0. So the answer is \\boxed{4}.",
}


class TinyBackend(FakeBackend):
    """Answers of the shipped tokenizer's words, with their true numbers of tokens; every second one is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(TINY_FOLDER / "base")

    def finish(self, job: Job) -> tuple[Job, Completion]:
        self.made.append(job)
        text = TEXTS["base" if job.alpha == "base" else "mix"]
        tokens, ended = len(self.tokenizer.encode(text)), job.seed % 2 == 0
        prompt_tokens = len(self.tokenizer.encode(job.prompt))
        return job, Completion(text, "stop" if ended else "length", prompt_tokens, tokens + ended)


class FakeReader:
    """Numbers that follow from the ids alone, and the answers that it was given; ends after `at_most` of them."""

    columns = COLUMNS

    def __init__(self, at_most: int | None = None) -> None:
        self.at_most = at_most
        self.given: list[StoredAnswer] = []

    def read(self, answers: Iterable[StoredAnswer]) -> Iterator[tuple[int, np.ndarray]]:
        for place, answer in enumerate(answers):
            if place == self.at_most:
                raise KeyboardInterrupt
            self.given.append(answer)
            yield place, numbers_of(answer.answer_ids)


def numbers_of(ids: Sequence[int]) -> np.ndarray:
    """[num_tokens, len(COLUMNS)] in float32; ids of argmax and ranks are whole numbers."""
    rng = np.random.default_rng(zlib.crc32(repr(list(ids)).encode()))
    numbers = rng.random((len(ids), len(COLUMNS))).astype(np.float32)
    for i, column in enumerate(COLUMNS):
        if column.endswith(("_rank", "_argmax")):
            numbers[:, i] = rng.integers(1, 9, len(ids))
    return numbers


def make_table(answers: Sequence[tuple[Key, dict[str, Sequence[float]]]], vocabulary: Sequence[str] = ()) -> TraceTable:
    """A table of answers with the given columns; `token` is 0, 1, ... where none is given."""
    lengths = [len(next(iter(columns.values()))) for _, columns in answers]
    joined: dict[str, Any] = {
        name: np.concatenate([np.asarray(columns[name]) for _, columns in answers]) for name in answers[0][1]
    }
    joined["position"] = np.concatenate([np.arange(length) for length in lengths])
    joined.setdefault("token", joined["position"])
    return TraceTable(joined, [key for key, _ in answers], np.append(0, np.cumsum(lengths)), list(vocabulary))
