"""`RastLLM`: vLLM's `LLM` on a mix of models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import Any, NamedTuple

import numpy as np
from vllm import LLM, RequestOutput, SamplingParams

from vllm_rast.engine.children import watched_children
from vllm_rast.engine.names import LOAD_FORMAT, WORKER_CLS
from vllm_rast.engine.plugin import register
from vllm_rast.engine.requests import trace_params
from vllm_rast.engine.taken_traces import TAKE, taken, will_take
from vllm_rast.errors import UserError
from vllm_rast.kernels.token_trace import trace_columns
from vllm_rast.mix.alpha import Alpha
from vllm_rast.mix.config import AUTO, ModelPair, RastConfig, names_said
from vllm_rast.mix.model_names import look_up
from vllm_rast.mix.speculation import DRAFTER


class Answer(NamedTuple):
    """A given answer to be read: the ids of its prompt and its own, and the mix that reads it (see RastLLM), with the
    seed that a random gate goes by."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    alpha: Alpha | None = None
    seed: int | None = None


class RastLLM(LLM):
    """An LLM whose every token comes from base + sum of alpha * (positive - negative).

    Args:
        model: the base: a folder, a hub id, `OWNER/NAME@REVISION`, or a shipped model (`tiny:base`). It may
            be a PEFT adapter too; see ModelPair.
        positive, negative: the first pair's models; either may be left out.
        alpha: the default for requests that say nothing: one number, or one for each pair, and with a gate
            {"alpha": A, "gate": {...}}. None keeps the pairs' own (1.0 for the first pair).
        pairs: further pairs, each with an alpha of its own.
        check_tokenizers, trace, speculate, drafter, ceiling, token_traces, pair_forward: see RastConfig.
        options: everything else that `vllm.LLM` takes.

    A request chooses its own weights with `SamplingParams(extra_args={"alpha": ...})`: a number for all pairs, a list
    with one for each, or the name of a single model (`"base"`, `"positive"`, `"negative"`, `"positive:2"`). Or a
    schedule over the generated position, 0 for the first new token, with numbers or lists for A and B:

        {"alpha": A, "warmup": 100}         the base for 100 tokens, then A
        {"alpha": A, "until": 100}          A for 100 tokens, then the base; also together with warmup
        [[0, A], [100, B]]                  A, and from position 100 on B; the same as {"steps": [[0, A], [100, B]]}
        {"ramp": [[0, A], [100, B]]}        straight from A to B, constant before and after

    Any of these dictionaries, and {"alpha": A} alone, may have a gate, which says on which tokens the differences act
    (see `vllm_rast.mix.gate.Gate`); elsewhere the base decodes alone:

        {"alpha": A, "gate": {"js": 0.1}}   where mix and base are at least 0.1 nats apart; also "kl", "top", "random"

    Beside it, `"speculate"` bounds how many tokens are drafted for the request, from 0 to the engine's own number, and
    `"trace": K` gives every sample a `token_trace`: for each of its tokens the log-probabilities of mix, base, positive
    and negative, and the K likeliest ids of each, as a dictionary of arrays [num_tokens] (columns as
    `vllm_rast.kernels.token_trace.likeliest_columns` names them, before temperature and top-p).
    `prompt_logprobs` have the weights of position 0. A schedule may be JSON text, if no dictionary gets through.
    Beam search sends each token as a request of its own, without `extra_args`: it decodes with the default.

    Raises UserError, before any weights load, for what `vllm_rast.engine.checks` refuses.
    """

    def __init__(
        self,
        model: str,
        *,
        positive: str | None = None,
        negative: str | None = None,
        alpha: float | Sequence[float] | dict[str, Any] | None = None,
        pairs: Sequence[ModelPair] = (),
        check_tokenizers: bool = True,
        trace: bool = False,
        speculate: int | str = 0,
        drafter: str = DRAFTER,
        ceiling: str | None = None,
        token_traces: bool = False,
        pair_forward: str = AUTO,
        **options: Any,
    ) -> None:
        register()
        additional = dict(options.pop("additional_config", None) or {})
        if "rast" in additional:
            raise UserError("additional_config: its rast part is made of RastLLM's own arguments; give those instead")
        said = {"positive": positive, "negative": negative, "ceiling": ceiling, "pairs": pairs}
        look_up([model, *names_said(said)])
        self.rast_config = RastConfig.build(
            model,
            positive,
            negative,
            alpha,
            pairs,
            load_format=options.pop("load_format", "auto"),
            check_tokenizers=check_tokenizers,
            trace=trace,
            speculate=speculate,
            drafter=drafter,
            ceiling=ceiling,
            token_traces=token_traces,
            pair_forward=pair_forward,
        )
        base = self.rast_config.sources[0]
        if base.revision is not None:
            options.setdefault("revision", base.revision)
        additional["rast"] = self.rast_config.to_dict()
        with watched_children():
            super().__init__(
                base.path,
                load_format=LOAD_FORMAT,
                worker_cls=options.pop("worker_cls", WORKER_CLS),
                additional_config=additional,
                **options,
            )
        self.traced = will_take(self.llm_engine.input_processor)
        self.llm_engine.step = self.adding_traces(self.llm_engine.step)  # type: ignore[method-assign]

    def adding_traces(self, step: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
        """The engine's step, whose finished outputs also have the traces that were asked for (see the class)."""

        @functools.wraps(step)
        def wrapped() -> list[Any]:
            outputs = step()
            if self.traced:
                self.add_traces([one for one in outputs if one.finished and one.request_id in self.traced])
            return outputs

        return wrapped

    def add_traces(self, outputs: Sequence[RequestOutput]) -> None:
        """Give every sample of finished requests that asked for it its `token_trace`."""
        if not outputs:
            return
        asked = {output.request_id: {sample.index: sample for sample in output.outputs} for output in outputs}
        for trace in taken(self.collective_rpc(TAKE, args=(list(asked),))):
            sample = asked[trace.request][trace.sample]
            sample.token_trace = trace.columns(self.rast_config, len(sample.token_ids))  # type: ignore[attr-defined]
        self.traced.difference_update(asked)

    def stream(
        self,
        prompts: Iterable[Any],
        sampling_params: SamplingParams | Iterable[SamplingParams],
        *,
        max_queued: int | None = None,
    ) -> Iterator[tuple[int, RequestOutput]]:
        """Decode any number of prompts and yield (place of the prompt, output) as soon as each is finished.

        prompts: anything `generate` takes; consumed as the engine can use them, so an endless source is fine. None
            takes a place, and stands for "none just now": what runs goes on, and the source is asked again after the
            next step. If nothing runs, a source had better wait than yield None, or the two would spin.
        sampling_params: one for all, or one for each prompt.
        max_queued: how many requests may be unfinished at a time; by default twice what the engine runs at once.

        Closing the iterator early aborts what is still running.
        """
        limit = max_queued or 2 * self.llm_engine.vllm_config.scheduler_config.max_num_seqs
        pending = enumerate(pair_up(prompts, sampling_params))
        places: dict[str, tuple[int, str]] = {}
        try:
            more = True
            while more or places:
                while more and len(places) < limit:
                    item = next(pending, None)
                    if item is None:
                        more = False
                        break
                    place, (prompt, params) = item
                    if prompt is None:
                        break
                    (internal,) = self.enqueue(prompt, params, use_tqdm=False)
                    # vLLM hands out "7-1a2b3c4d" for the request that its outputs call "7".
                    places[internal.rpartition("-")[0]] = (place, internal)
                for output in self.llm_engine.step() if places else ():
                    if output.finished and output.request_id in places:
                        yield places.pop(output.request_id)[0], output
        finally:
            if places:
                self.llm_engine.abort_request([internal for _, internal in places.values()], internal=True)
            if left := self.traced.intersection(places):
                self.collective_rpc(TAKE, args=(list(left),))
                self.traced -= left

    @property
    def trace_columns(self) -> list[str]:
        """The names of the columns of `trace_answers`; `vllm_rast.kernels.token_trace` says what each means."""
        return trace_columns(self.rast_config)

    def trace_answers(
        self, answers: Iterable[Answer], *, max_queued: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Read given answers with all models, prompt and answer in one prefill, and yield (place of the answer, its
        numbers) as soon as each is finished. Nothing is decoded, and nothing is read from the prefix cache.

        The numbers are [num_answer_tokens, len(trace_columns)] in float32. Raises UserError if the engine was started
        without token_traces, or an answer is empty.
        """
        if not self.rast_config.token_traces:
            raise UserError("token_traces: this engine keeps none; start it with token_traces=True")
        prompts, requests = tee(answers)
        outputs = self.stream(
            ({"prompt_token_ids": [*one.prompt_ids, *one.answer_ids[:-1]]} for one in prompts),
            (trace_request_of(key, one) for key, one in enumerate(requests)),
            max_queued=max_queued,
        )
        width = len(self.trace_columns)
        for _ in outputs:
            ranks = self.collective_rpc("rast_token_traces")
            for key, numbers in next((some for some in ranks if some), ()):
                yield key, np.frombuffer(numbers, dtype=np.float32).reshape(-1, width)


def trace_request_of(key: int, answer: Answer) -> SamplingParams:
    if not len(answer.answer_ids) or not len(answer.prompt_ids):
        raise UserError(f"answers[{key}]: a prompt and an answer need a token each; leave empty ones out")
    return trace_params(key, len(answer.prompt_ids), int(answer.answer_ids[-1]), answer.alpha, answer.seed)


def pair_up(
    prompts: Iterable[Any], sampling_params: SamplingParams | Iterable[SamplingParams]
) -> Iterator[tuple[Any, SamplingParams]]:
    """Each prompt with its own copy of the parameters (vLLM writes into what it is given)."""
    if isinstance(sampling_params, SamplingParams):
        return ((prompt, sampling_params.clone()) for prompt in prompts)
    return zip(prompts, sampling_params, strict=True)
