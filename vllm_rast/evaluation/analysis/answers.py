"""The answers of a run as token ids: its prompts put again, its texts cut into tokens again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.folder import Key, RunFolder, Sample
from vllm_rast.evaluation.tasks.benchmark import Problem
from vllm_rast.evaluation.tasks.inputs import InputFile
from vllm_rast.evaluation.tasks.prompts import Template, get_template, prompt_encoder
from vllm_rast.mix.alpha import Alpha, single_models
from vllm_rast.mix.config import RastConfig


@dataclass(frozen=True)
class StoredAnswer:
    """One sample's ids. exact: the text gave as many tokens again as were decoded. seed: the sample's."""

    key: Key
    prompt_ids: list[int]
    answer_ids: list[int]
    alpha: Alpha | None
    exact: bool
    seed: int | None = None


def chosen_samples(folder: RunFolder, rows: Sequence[str] | None, samples: int, problems: int) -> list[Sample]:
    """The first `samples` samples of each of the first `problems` problems of every benchmark, row by row.

    Raises UserError for a row that the run does not have, or if there is no such sample.
    """
    for row in rows or ():
        if row not in folder.config["rows"]:
            raise UserError(f"--rows {row}: the run has no such row; its rows are {', '.join(folder.config['rows'])}")
    order = list(rows or folder.config["rows"])
    every: dict[str, list[str]] = {}
    for problem in folder.problems():
        if not folder.is_skipped(problem.benchmark, problem.id):
            every.setdefault(problem.benchmark, []).append(problem.id)
    place = {(name, ident): i for name, idents in every.items() for i, ident in enumerate(idents[:problems])}
    chosen = [
        sample
        for sample in folder.samples()
        if sample.row in order and sample.sample < samples and (sample.benchmark, sample.problem) in place
    ]
    if not chosen:
        raise UserError(f"{folder.path}: no finished sample of these rows; run `vllm-rast generate` on it first")
    benchmarks = list(folder.config["benchmarks"])

    def rank(one: Sample) -> tuple[int, int, int, int]:
        where = place[one.benchmark, one.problem]
        return order.index(one.row), benchmarks.index(one.benchmark), where, one.sample

    return sorted(chosen, key=rank)


def alpha_of_row(folder: RunFolder, row: str, models: RastConfig, alpha: Alpha | None) -> Alpha | None:
    """The mix that reads a row's answers: `alpha` if there is one, the row's own if it mixes, else the pairs' own."""
    own = folder.config["rows"][row]["alpha"]
    if alpha is not None:
        return alpha
    return own if mixes(own, models) else None


def mixes(alpha: Any, models: RastConfig) -> bool:
    """Whether a row's alpha, as a run's configuration has it, is of a mix and not the name of one model."""
    return not isinstance(alpha, str) or alpha not in single_models(models)


class Prompts:
    """A run's prompts as they were put. Raises UserError if a template is not what it was."""

    def __init__(self, folder: RunFolder, tokenizer: Any) -> None:
        self.config, self.tokenizer = folder.config, tokenizer
        self.problems: dict[tuple[str, str], Problem] = {(one.benchmark, one.id): one for one in folder.problems()}
        self.templates = {name: self.template_of(entry) for name, entry in self.config["benchmarks"].items()}
        self.verbatim = {name: verbatim_ids(name, entry) for name, entry in self.config["benchmarks"].items()}

    def template_of(self, entry: dict[str, Any]) -> Template:
        said = entry if "template" in entry else self.config
        template = get_template(said["template"])
        if template.hash != said["template_hash"]:
            raise UserError(f"--template {said['template']}: its text is not the run's any more; restore the file")
        return template

    def __call__(self, benchmark: str, problem: str) -> str:
        question = self.problems[benchmark, problem].question
        if problem in self.verbatim[benchmark]:
            return question
        return self.templates[benchmark].render(question, self.tokenizer)


def verbatim_ids(benchmark: str, entry: dict[str, Any]) -> frozenset[str]:
    """The problems of an input file whose text is the whole prompt; none for a benchmark."""
    path = Path(entry.get("data") or "")
    if path.stem != benchmark or not path.is_file():
        return frozenset()
    try:
        file = InputFile(path)
        return file.verbatim if file.data_hash == entry["data_hash"] else frozenset()
    except UserError:  # a benchmark's own rows, in another form
        return frozenset()


def stored_answers(
    folder: RunFolder, samples: Sequence[Sample], models: RastConfig, tokenizer: Any, alpha: Alpha | None = None
) -> Iterator[StoredAnswer]:
    """The samples' prompts and answers as ids, in the samples' order; a sample without a token is left out.

    A run keeps texts, not ids: a text is cut into tokens again, and where the answer ended by itself the end of text
    follows. Raises UserError if a prompt has not as many tokens as the run says.
    """
    prompts, encode = Prompts(folder, tokenizer), prompt_encoder(tokenizer)
    for sample in samples:
        prompt_ids = encode(prompts(sample.benchmark, sample.problem))
        if len(prompt_ids) != sample.prompt_tokens:
            raise UserError(
                f"{folder.path}: the prompt of {sample.benchmark} {sample.problem} has {len(prompt_ids)} tokens, "
                f"not {sample.prompt_tokens} as when it was decoded; restore template, input file and tokenizer"
            )
        answer_ids = list(tokenizer.encode(sample.text, add_special_tokens=False))
        if sample.finish_reason == "stop" and len(answer_ids) < sample.tokens and tokenizer.eos_token_id is not None:
            answer_ids.append(tokenizer.eos_token_id)
        if answer_ids:
            row_alpha = alpha_of_row(folder, sample.row, models, alpha)
            yield StoredAnswer(
                sample.key, prompt_ids, answer_ids, row_alpha, len(answer_ids) == sample.tokens, sample.seed
            )
