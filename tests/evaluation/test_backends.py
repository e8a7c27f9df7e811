"""What a backend does besides decoding: prompts to tokens, stops, options and environment."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from vllm_rast.engine.launch import ENVIRONMENT, engine_defaults, reason_of, set_environment
from vllm_rast.errors import UserError
from vllm_rast.evaluation.runs import backends
from vllm_rast.evaluation.runs.backends import VllmBackend, cut, prompt_encoder, split_stop
from vllm_rast.evaluation.runs.decode import Job
from vllm_rast.evaluation.runs.folder import Key
from vllm_rast.evaluation.runs.jsonl import RunError
from vllm_rast.evaluation.runs.plan import Plan
from vllm_rast.mix.config import ModelPair, RastConfig
from vllm_rast.mix.model_names import TINY_FOLDER


class Letters:
    """A tokenizer of letters that begins every text with ^ unless it is told not to."""

    bos_token = "^"
    calls = 0

    def encode(self, text, add_special_tokens):
        self.calls += 1
        return [ord(letter) for letter in ("^" if add_special_tokens else "") + text]

    def get_added_vocab(self):
        return {"<|im_end|>": 7}


def job(number: int, prompt: str = "ab") -> Job:
    return Job(
        Key("sums", "base", str(number), 0), prompt, (1.0, 0.5), 11 + number, 0.5, 0.9, 20, ("\nQ:", "<|im_end|>")
    )


def test_a_chat_template_gets_no_second_beginning():
    tokenizer = Letters()
    encode = prompt_encoder(tokenizer)
    assert encode("ab") == [94, 97, 98]
    assert encode("^ab") == [94, 97, 98]
    encode("ab").append(0)
    assert encode("ab") == [94, 97, 98]
    assert tokenizer.calls == 2  # the samples of a problem share the work


def test_special_tokens_stop_by_their_ids():
    """They are no part of the decoded text, so as strings they would never stop anything."""
    assert split_stop(("\nQ:", "<|im_end|>"), Letters()) == (["\nQ:"], [7])


def test_cut():
    assert cut("12\nQ: 3 STOP", ("STOP", "\nQ:")) == ("12", True)
    assert cut("12", ("\nQ:",)) == ("12", False)


def fake_engine(outputs):
    """A VllmBackend without an engine: `outputs` makes (place, finish reason, text) from the places that were asked."""
    backend = VllmBackend.__new__(VllmBackend)
    backend.tokenizer = Letters()
    backend.asked = []

    def stream(prompts, params):
        backend.asked.extend(zip(prompts, params, strict=True))
        for place, reason, text in outputs(range(len(backend.asked))):
            answer = SimpleNamespace(text=text, finish_reason=reason, token_ids=[1, 2])
            yield place, SimpleNamespace(outputs=[answer], prompt_token_ids=[1, 2, 3])

    config = SimpleNamespace(model_config=SimpleNamespace(max_model_len=10))
    backend.llm = SimpleNamespace(stream=stream, llm_engine=SimpleNamespace(vllm_config=config))
    return backend


def test_outputs_find_their_jobs_in_any_order():
    pytest.importorskip("vllm")
    backend = fake_engine(lambda places: [(place, "length", f"text {place}") for place in reversed(places)])
    done = list(backend.stream(map(job, range(3))))
    assert [(one.key.problem, made.text) for one, made in done] == [("2", "text 2"), ("1", "text 1"), ("0", "text 0")]
    assert (done[0][1].finish_reason, done[0][1].prompt_tokens, done[0][1].tokens) == ("length", 3, 2)
    prompt, params = backend.asked[2]
    assert prompt == {"prompt_token_ids": [94, 97, 98]}
    assert (params.n, params.seed, params.temperature, params.top_p, params.max_tokens) == (1, 13, 0.5, 0.9, 20)
    assert params.extra_args == {"alpha": [1.0, 0.5]}
    assert (params.stop, params.stop_token_ids) == (["\nQ:"], [7])


def test_what_the_engine_gave_up_is_no_sample():
    pytest.importorskip("vllm")
    backend = fake_engine(lambda places: [(0, "abort", "half a te")])
    with pytest.raises(RunError, match="sums 0: vLLM did not finish this request"):
        list(backend.stream([job(0)]))


def test_a_prompt_without_room_for_an_answer_is_named():
    pytest.importorskip("vllm")
    backend = fake_engine(lambda places: [])
    with pytest.raises(UserError, match="--max-model-len 10: the prompt of sums 5 has 10 tokens; raise the option"):
        list(backend.stream([job(0), job(5, "123456789")]))


@pytest.mark.parametrize("backend", ["vllm", "transformers"])
def test_what_cannot_be_loaded_is_named(monkeypatch, backend):
    def fail(self, *args):
        raise errors.pop()

    monkeypatch.setattr(VllmBackend, "__init__", fail)
    monkeypatch.setattr(backends.TransformersBackend, "__init__", fail)
    plan = Plan(RastConfig("org/base", (ModelPair("org/p", None),)), rows=[], tasks=[], n=1, backend=backend)
    for error, said in (
        (OSError("nowhere"), "cannot load org/base or org/p: nowhere"),
        (ValueError("too long"), "vLLM's options: too long"),
        (UserError("as it is"), "as it is"),
    ):
        errors = [error]
        with pytest.raises(UserError, match=f"^{said}$"):
            backends.open_backend(plan)


def test_a_refusal_is_one_line():
    wrapped = (
        "1 validation error for ModelConfig\n  Value error, max_model_len (9) is\ntoo long. [type=value_error, input"
    )
    assert reason_of(ValueError(wrapped)) == "max_model_len (9) is too long."
    assert reason_of(OSError("no such model\nCheck your connection")) == "no such model"
    assert reason_of(ValueError()) == "ValueError"


@pytest.mark.skipif(not (TINY_FOLDER / "base").exists(), reason="the shipped models are not there")
def test_only_the_shipped_models_get_options_and_threads(monkeypatch):
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "DEBUG"})
    mixed = RastConfig("org/base", (ModelPair("tiny:positive", None),))
    assert engine_defaults(mixed) == {}
    set_environment(mixed)
    assert os.environ == ENVIRONMENT | {"VLLM_LOGGING_LEVEL": "DEBUG"}
    tiny = RastConfig("tiny:base", (ModelPair("tiny:positive", "tiny:negative"),))
    assert engine_defaults(tiny)["dtype"] == "float32"
    set_environment(tiny)
    assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"  # the user's word stays
