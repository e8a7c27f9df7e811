"""What decodes a plan: vLLM with the patched engine, or a plain transformers loop for checking it."""

from __future__ import annotations

import logging
import os
import platform
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import tee
from typing import TYPE_CHECKING, Any

from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs.decode import Backend, Completion, Job
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import Plan, model_names
from vllm_rast.mix.model_names import TINY_PREFIX

if TYPE_CHECKING:
    from vllm_rast.mix.config import RastConfig

BACKENDS = ("vllm", "transformers")
FINISHED = ("stop", "length")  # other reasons are failures of the engine

# The shipped models: answers are short, float32 is exact, and compiling would cost more than it saves. 32 is the
# least block that vLLM's attention on a CPU takes: the shorter the block, the more of a prompt the samples share.
TINY_ENGINE: dict[str, Any] = {
    "dtype": "float32",
    "max_model_len": 512,
    "block_size": 32,
    "enforce_eager": True,
    "max_num_seqs": 256,
    "max_num_batched_tokens": 8192,
    "use_tqdm_on_load": False,
}
TINY_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # a second process would cost more than the scheduling it takes over
    # Two threads that share their cores with other work wait for each other at every one of these small products: on a
    # busy machine with two cores 314 tokens/s, where one thread made 3,400.
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",  # what vLLM would advise for speed does not matter here
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
# vLLM logs to stdout unless told otherwise; here stdout is for results.
ENVIRONMENT = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "WARNING"}


def open_backend(plan: Plan) -> Backend:
    """Load the models of a plan. Raises UserError where they do not fit together or do not fit the machine."""
    try:
        return TransformersBackend(plan.models) if plan.backend == "transformers" else VllmBackend(plan)
    except UserError:
        raise
    except OSError as error:  # what transformers raises for a model that is neither here nor on the hub
        raise UserError(f"cannot load {' or '.join(model_names(plan.models))}: {reason_of(error)}") from error
    except ValueError as error:  # what vLLM raises for options that do not fit the models or each other
        raise UserError(f"vLLM's options: {reason_of(error)}") from error


def engine_defaults(models: RastConfig) -> dict[str, Any]:
    """Engine options for the shipped models; none for others, whose options are vLLM's business."""
    return dict(TINY_ENGINE) if is_tiny(models) else {}


def is_tiny(models: RastConfig) -> bool:
    return all(name.startswith(TINY_PREFIX) for name in model_names(models))


def set_environment(models: RastConfig | None = None) -> None:
    """Environment variables that vLLM reads when it is imported; what the user has set stays."""
    tiny = TINY_ENVIRONMENT if models is not None and is_tiny(models) else {}
    for name, value in (ENVIRONMENT | tiny).items():
        os.environ.setdefault(name, value)
    # Two remarks of vLLM 0.32 about Triton, which a CPU does without, that no setting of its own reaches.
    logging.getLogger("vllm.triton_utils.importing").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.triton_utils")


class VllmBackend:
    """All rows in one engine: continuous batching over rows, problems and samples."""

    def __init__(self, plan: Plan):
        set_environment(plan.models)
        from vllm_rast import RastLLM
        from vllm_rast.engine.members import skips_idle_models

        self.rows_apart = skips_idle_models()
        self.llm = RastLLM(plan.models.base, pairs=list(plan.models.pairs), **plan.engine)
        self.tokenizer: Any = self.llm.get_tokenizer()
        self.device = device_name()

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
        running: dict[int, Job] = {}

        def remember(jobs: Iterable[Job]) -> Iterator[Job]:
            for number, job in enumerate(jobs):
                running[number] = job
                yield job

        encode = prompt_encoder(self.tokenizer)
        first, second = tee(remember(jobs))
        outputs = self.llm.stream(
            ({"prompt_token_ids": self.fitting(job, encode(job.prompt))} for job in first),
            (sampling_params(job, self.tokenizer) for job in second),
        )
        for number, output in outputs:
            job, answer = running.pop(number), output.outputs[0]
            if answer.finish_reason not in FINISHED:
                raise RunError(f"{job.key.benchmark} {job.key.problem}: vLLM gave it up ({answer.finish_reason})")
            prompt_tokens = len(output.prompt_token_ids or ())
            yield job, Completion(answer.text, answer.finish_reason, prompt_tokens, len(answer.token_ids))

    def fitting(self, job: Job, prompt_ids: list[int]) -> list[int]:
        """Raises UserError for a prompt that leaves no room for an answer."""
        longest = self.llm.llm_engine.vllm_config.model_config.max_model_len
        if len(prompt_ids) >= longest:
            raise UserError(
                f"--max-model-len {longest}: the prompt of {job.key.benchmark} {job.key.problem} has "
                f"{len(prompt_ids)} tokens; raise the option or leave the problem out"
            )
        return prompt_ids


def reason_of(error: Exception) -> str:
    """The sentence that matters, on one line: pydantic wraps vLLM's own into several lines."""
    text = str(error)
    wrapped = re.search(r"(?:Value|Assertion) error, (.*?)\s*(?:\[type=|$)", text, re.DOTALL)
    return " ".join((wrapped[1] if wrapped else text.strip().partition("\n")[0]).split()) or type(error).__name__


def sampling_params(job: Job, tokenizer: Any) -> Any:
    """vLLM's SamplingParams of one job; n is 1, so that every sample has its own seed and can be resumed alone."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    strings, token_ids = split_stop(job.stop, tokenizer)
    alpha = job.alpha if isinstance(job.alpha, str | int | float) else list(job.alpha)
    return SamplingParams(
        temperature=job.temperature,
        top_p=job.top_p,
        max_tokens=job.max_tokens,
        seed=job.seed,
        stop=strings or None,
        stop_token_ids=token_ids or None,
        extra_args={"alpha": alpha},
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


class TransformersBackend:
    """One sample after the other with the reference loop: slow, and the yardstick for the other backend."""

    rows_apart = False

    def __init__(self, models: RastConfig):
        from vllm_rast.reference import ReferenceLLM

        self.llm = ReferenceLLM(models, dtype="float32")
        self.tokenizer: Any = self.llm.tokenizer
        self.device = device_name()

    def stream(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Completion]]:
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


def prompt_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """Text to token ids, remembering the last prompts: the samples of a problem share one.

    A chat template already begins with the beginning-of-sequence token; it must not get a second one.
    """
    bos = getattr(tokenizer, "bos_token", None)

    @lru_cache(maxsize=64)
    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=not (bos and text.startswith(bos))))

    return lambda text: list(encode(text))


def split_stop(stop: Iterable[str], tokenizer: Any) -> tuple[list[str], list[int]]:
    """Stop strings and stop token ids. A special token is no part of the decoded text: only its id can stop."""
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
