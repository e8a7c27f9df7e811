"""What decodes a plan: vLLM with the patched engine, or a plain transformers loop for checking it."""

from __future__ import annotations

import platform
import socket
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import tee
from typing import TYPE_CHECKING, Any

from vllm_rast.engine.launch import reason_of, set_environment
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.decode import Backend, Completion, Job, TokenTrace
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.evaluation.tasks.prompts import prompt_encoder
from vllm_rast.mix.config import model_names

if TYPE_CHECKING:
    from vllm_rast import RastLLM
    from vllm_rast.mix.config import RastConfig

BACKENDS = ("vllm", "transformers")
FINISHED = ("stop", "length")  # other reasons are failures of the engine


def open_backend(plan: Plan) -> Backend:
    """Load the models of a plan. Raises UserError if they do not fit together or do not fit the machine."""
    with loading(plan.models):
        return TransformersBackend(plan.models) if plan.backend == "transformers" else VllmBackend(plan)


@contextmanager
def loading(models: RastConfig) -> Iterator[None]:
    """Raises UserError, one line, for what keeps models from loading."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:  # what transformers raises for a model that is neither here nor on the hub
        raise UserError(f"cannot load {' or '.join(model_names(models))}: {reason_of(error)}") from error
    except ValueError as error:  # what vLLM raises for options that do not fit the models or each other
        raise UserError(f"vLLM's options: {reason_of(error)}") from error


def start_llm(models: RastConfig, engine: dict[str, Any]) -> RastLLM:
    """An engine of a mix."""
    set_environment(models)
    from vllm_rast import RastLLM

    return RastLLM(
        models.base,
        pairs=list(models.pairs),
        check_tokenizers=models.check_tokenizers,
        speculate=models.speculate,
        drafter=models.drafter,
        pair_forward=models.pair_forward,
        ceiling=models.ceiling,
        token_traces=models.token_traces,
        **engine,
    )


class VllmBackend:
    """All rows in one engine: continuous batching over rows, problems and samples."""

    trace: int | None = None

    def __init__(self, plan: Plan):
        self.llm = start_llm(plan.models, plan.engine)
        from vllm_rast.engine.members import skips_idle_models

        self.rows_apart = skips_idle_models() and plan.trace is None  # a trace uses all models anyway
        self.trace = plan.trace
        self.tokenizer: Any = self.llm.get_tokenizer()
        self.device = device_name()
        self.hosts = {socket.gethostname(): self.device}

    @property
    def max_running(self) -> int:
        """How many jobs the engine decodes at a time."""
        return self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs

    def stream(self, jobs: Iterable[Job | None]) -> Generator[tuple[Job, Completion]]:
        """See Backend. A job that is None says that there is none just now."""
        running: dict[int, Job] = {}

        def remember(jobs: Iterable[Job | None]) -> Iterator[Job | None]:
            for number, job in enumerate(jobs):
                if job is not None:
                    running[number] = job
                yield job

        encode = prompt_encoder(self.tokenizer)
        first, second = tee(remember(jobs))
        outputs = self.llm.stream(
            (job and {"prompt_token_ids": self.fitting(job, encode(job.prompt))} for job in first),
            (job and sampling_params(job, self.tokenizer, self.trace) for job in second),
        )
        for number, output in telling_of_death(outputs):
            job, answer = running.pop(number), output.outputs[0]
            if answer.finish_reason not in FINISHED:
                raise RunError(
                    f"{job.key.benchmark} {job.key.problem}: vLLM did not finish this request "
                    f"(finish_reason={answer.finish_reason})"
                )
            prompt_tokens = len(output.prompt_token_ids or ())
            trace = None if self.trace is None else TokenTrace(answer.token_ids, answer.token_trace)
            yield job, Completion(answer.text, answer.finish_reason, prompt_tokens, len(answer.token_ids), trace)

    def fitting(self, job: Job, prompt_ids: list[int]) -> list[int]:
        """Raises UserError for a prompt that leaves no room for an answer."""
        longest = self.llm.llm_engine.vllm_config.model_config.max_model_len
        if len(prompt_ids) >= longest:
            raise UserError(
                f"--max-model-len {longest}: the prompt of {job.key.benchmark} {job.key.problem} has "
                f"{len(prompt_ids)} tokens; raise the option or leave the problem out"
            )
        return prompt_ids


def telling_of_death(outputs: Iterator[Any]) -> Iterator[Any]:
    """Outputs, and one line if the engine's process or a worker of it ends."""
    from vllm_rast.engine.dead_engine import EngineDeadError

    try:
        yield from outputs
    except EngineDeadError as error:
        raise RunError("vLLM's engine ended unexpectedly (killed, or out of memory)") from error


def sampling_params(job: Job, tokenizer: Any, trace: int | None = None) -> Any:
    """vLLM's SamplingParams of one job; n is 1, so that every sample has its own seed and can be resumed alone."""
    from vllm_rast.engine.requests import final_only

    strings, token_ids = split_stop(job.stop, tokenizer)
    alpha = job.alpha if isinstance(job.alpha, str | int | float) else list(job.alpha)
    return final_only(
        temperature=job.temperature,
        top_p=job.top_p,
        max_tokens=job.max_tokens,
        seed=job.seed,
        stop=strings or None,
        stop_token_ids=token_ids or None,
        extra_args={"alpha": alpha} if trace is None else {"alpha": alpha, "trace": trace},
    )


class TransformersBackend:
    """One sample after the other with the reference loop: slow, and the yardstick for the other backend."""

    rows_apart = False

    def __init__(self, models: RastConfig):
        from vllm_rast.reference import ReferenceLLM

        self.llm = ReferenceLLM(models, dtype="float32")
        self.tokenizer: Any = self.llm.tokenizer
        self.device = device_name()
        self.hosts = {socket.gethostname(): self.device}

    def stream(self, jobs: Iterable[Job]) -> Generator[tuple[Job, Completion]]:
        encode = prompt_encoder(self.tokenizer)
        for job in jobs:
            prompt_ids = encode(job.prompt)
            strings, token_ids = split_stop(job.stop, self.tokenizer)
            answer = self.llm.generate(
                prompt_ids,
                alpha=job.alpha,
                max_tokens=job.max_tokens,
                temperature=job.temperature,
                top_p=job.top_p,
                seed=job.seed,
                stop_token_ids=token_ids,
            )
            text, stopped = cut(self.tokenizer.decode(answer, skip_special_tokens=True), strings)
            ended = stopped or answer[-1] in (self.tokenizer.eos_token_id, *token_ids)
            yield job, Completion(text, "stop" if ended else "length", len(prompt_ids), len(answer))


def split_stop(stop: Iterable[str], tokenizer: Any) -> tuple[list[str], list[int]]:
    """Stop strings and stop token ids. A special token is not part of the decoded text: only its id can stop."""
    special = tokenizer.get_added_vocab()
    strings = [text for text in stop if text not in special]
    return strings, [special[text] for text in stop if text in special]


def cut(text: str, stop: Iterable[str]) -> tuple[str, bool]:
    """A text up to the first stop string in it, and whether there was one."""
    places = [place for place in map(text.find, stop) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def device_name() -> str:
    """The device that torch decodes on, for a run's record."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} x {torch.cuda.device_count()}"
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"
